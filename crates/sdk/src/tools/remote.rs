//! A registry in another process, over HTTP.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use opentelemetry::trace::SpanKind;
use reqwest::Url;
use serde::de::DeserializeOwned;
use serde_json::Value;
use throughline_trace::{ErrorType, keys};

use super::error::{RegistryError, ToolError};
use super::error_text;
use super::http::HTTP_TOOL_MAX_BYTES;
use super::registry::Registry;
use super::tool::{Tool, ToolType};
use super::tool_id::ToolId;
use super::wire::{Answered, Called, Described, Failed, Listed};
use crate::context_bag::{ContextBag, Need};
use crate::http_client;
use crate::propagation;
use crate::resilient::Fault as _;
use crate::span::{ActiveSpan, span};

/// How long a request to a registry may take, calls of tools aside.
pub const REGISTRY_TIMEOUT: Duration = Duration::from_secs(10);

/// A registry that another process serves (feature `server`: `ToolService`). Its tools are called
/// there, on the caller's trace and with their view of the caller's context.
///
/// ```no_run
/// # async fn doc() -> Result<(), throughline::RegistryError> {
/// use throughline::{HttpRegistry, ObservedRegistry, ToolRegistry};
///
/// let theirs = ObservedRegistry::new(HttpRegistry::new("https://tools.example/registry")?);
/// let tools = ToolRegistry::new();
/// tools.add_all(&theirs).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct HttpRegistry {
    base: Url,
    client: reqwest::Client,
    headers: HeaderMap,
}

impl HttpRegistry {
    /// The registry at this address, under which `/tools` lies.
    ///
    /// # Errors
    /// [`RegistryError::Remote`] when the address is none, or the system has no root certificates.
    pub fn new(address: &str) -> Result<Self, RegistryError> {
        let base = Url::parse(address).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let Some(mut base) = base else {
            let shown = http_client::without_userinfo(address);
            let text = format!("expected an http or https address, got {shown:?}");
            return Err(remote(ErrorType::InvalidRequest, text));
        };
        base.set_query(None);
        base.set_fragment(None);
        let client =
            http_client::client(&base).map_err(|text| remote(ErrorType::Connection, text))?;
        Ok(Self { base, client, headers: HeaderMap::new() })
    }

    /// A header of every request, for credentials.
    ///
    /// # Errors
    /// [`RegistryError::Remote`] when HTTP does not allow it; the error does not show the value.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, RegistryError> {
        let (name, value) = http_client::secret_header(name, value)
            .map_err(|text| remote(ErrorType::InvalidRequest, text))?;
        self.headers.insert(name, value);
        Ok(self)
    }

    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// Sends a request with the current trace, and reads the answer up to its limit.
    async fn send(
        &self,
        method: Method,
        segments: &[&str],
        body: Option<String>,
        bag: Option<&ContextBag>,
    ) -> Result<(StatusCode, Vec<u8>), RegistryError> {
        let mut headers = self.headers.clone();
        propagation::inject(&mut headers);
        if let Some(bag) = bag {
            bag.inject_headers(&mut headers)
                .map_err(|error| remote(error.error_type(), error.to_string()))?;
        }
        let mut request = self.client.request(method, self.url(segments));
        if let Some(body) = body {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            request = request.body(body);
        }
        let broken =
            |error: reqwest::Error| remote(ErrorType::Connection, error.without_url().to_string());
        let response = request.headers(headers).send().await.map_err(broken)?;
        let status = response.status();
        let mut read = Vec::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(broken)?;
            if read.len() + chunk.len() > HTTP_TOOL_MAX_BYTES {
                let text = format!("expected at most {HTTP_TOOL_MAX_BYTES} bytes, got more");
                return Err(remote(ErrorType::InvalidResponse, text));
            }
            read.extend_from_slice(&chunk);
        }
        Ok((status, read))
    }

    /// [`send`](Self::send), in bounded time.
    async fn ask(
        &self,
        method: Method,
        segments: &[&str],
        body: Option<String>,
    ) -> Result<(StatusCode, Vec<u8>), RegistryError> {
        match tokio::time::timeout(REGISTRY_TIMEOUT, self.send(method, segments, body, None)).await
        {
            Ok(result) => result,
            Err(_) => {
                let text = format!("got nothing in {} ms", REGISTRY_TIMEOUT.as_millis());
                Err(remote(ErrorType::Timeout, text))
            }
        }
    }

    fn tool(&self, described: Described) -> Result<Arc<dyn Tool>, RegistryError> {
        let id: ToolId = described.id.parse().map_err(|_| {
            remote(ErrorType::InvalidResponse, "got a tool without a tool id".to_owned())
        })?;
        Ok(Arc::new(RemoteTool { registry: self.clone(), id, described }))
    }
}

fn remote(kind: ErrorType, message: String) -> RegistryError {
    RegistryError::Remote { kind, message }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, RegistryError> {
    serde_json::from_slice(body)
        .map_err(|error| remote(ErrorType::InvalidResponse, format!("expected JSON: {error}")))
}

/// What a status other than success means.
fn refused(status: StatusCode, body: &[u8]) -> RegistryError {
    let kind = ErrorType::from_http_status(status.as_u16()).unwrap_or(ErrorType::InvalidResponse);
    let said = serde_json::from_slice::<Failed>(body).map(|failed| failed.error.message);
    remote(kind, format!("got {status}: {}", said.unwrap_or_default()))
}

impl Registry for HttpRegistry {
    /// Registers a tool that has an [`address`](Tool::address); that of this process alone has none.
    fn register(&self, tool: Arc<dyn Tool>) -> BoxFuture<'_, Result<(), RegistryError>> {
        Box::pin(async move {
            let id = tool.id().clone();
            if tool.address().is_none() {
                return Err(RegistryError::NotReachable { id });
            }
            let body = serde_json::to_string(&Described::of(tool.as_ref()))
                .map_err(|error| remote(ErrorType::InvalidRequest, error.to_string()))?;
            match self.ask(Method::POST, &["tools"], Some(body)).await? {
                (status, _) if status.is_success() => Ok(()),
                (StatusCode::CONFLICT, _) => Err(RegistryError::AlreadyRegistered(id)),
                (status, body) => Err(refused(status, &body)),
            }
        })
    }

    fn lookup<'a>(
        &'a self,
        id: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<dyn Tool>>, RegistryError>> {
        Box::pin(async move {
            match self.ask(Method::GET, &["tools", id], None).await? {
                (status, body) if status.is_success() => self.tool(read(&body)?).map(Some),
                (StatusCode::NOT_FOUND, _) => Ok(None),
                (status, body) => Err(refused(status, &body)),
            }
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<ToolId>, RegistryError>> {
        Box::pin(async move {
            let (status, body) = self.ask(Method::GET, &["tools"], None).await?;
            if !status.is_success() {
                return Err(refused(status, &body));
            }
            let listed: Listed = read(&body)?;
            let mut ids: Vec<ToolId> =
                listed.tools.iter().filter_map(|tool| tool.id.parse().ok()).collect();
            ids.sort();
            Ok(ids)
        })
    }
}

impl fmt::Debug for HttpRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.base.host_str().unwrap_or_default();
        f.debug_struct("HttpRegistry").field("host", &host).finish_non_exhaustive()
    }
}

/// A tool that runs at a registry elsewhere.
struct RemoteTool {
    registry: HttpRegistry,
    id: ToolId,
    described: Described,
}

impl RemoteTool {
    fn span(&self) -> ActiveSpan {
        let base = &self.registry.base;
        let url = self.registry.url(&["tools", self.id.as_str(), "call"]);
        let mut builder = span("POST /tools/{id}/call")
            .kind(SpanKind::Client)
            .attribute(keys::HTTP_REQUEST_METHOD, "POST")
            .attribute(keys::URL_TEMPLATE, "/tools/{id}/call")
            .attribute(keys::URL_FULL, http_client::without_userinfo(url.as_str()).to_string())
            .attribute(keys::SERVER_ADDRESS, base.host_str().unwrap_or_default().to_owned());
        if let Some(port) = base.port_or_known_default() {
            builder = builder.attribute(keys::SERVER_PORT, i64::from(port));
        }
        builder.start()
    }

    async fn ask(&self, arguments: Value) -> Result<Value, ToolError> {
        let span = self.span();
        let asking = async {
            let context = |error| ToolError::Context { id: self.id.to_string(), error };
            let bag = ContextBag::to_send(self.id.as_str(), self.needs()).map_err(context)?;
            let body = serde_json::to_string(&Called { arguments, call_id: String::new() })?;
            let segments = ["tools", self.id.as_str(), "call"];
            let (status, body) =
                self.registry.send(Method::POST, &segments, Some(body), bag.as_ref()).await?;
            span.set(keys::HTTP_RESPONSE_STATUS_CODE, i64::from(status.as_u16()));
            if status.is_success() {
                return Ok(read::<Answered>(&body)?.result);
            }
            Err(match serde_json::from_slice::<Failed>(&body) {
                Ok(failed) => failed.into_error(),
                Err(_) => refused(status, &body).into(),
            })
        };
        let result: Result<Value, ToolError> = span.instrument(asking).await;
        if let Err(error) = &result {
            span.fail(error.error_type(), error_text(error));
        }
        result
    }
}

impl Tool for RemoteTool {
    fn id(&self) -> &ToolId {
        &self.id
    }

    fn description(&self) -> &str {
        &self.described.description
    }

    fn parameters(&self) -> Value {
        self.described.parameters.clone()
    }

    fn result_schema(&self) -> Option<Value> {
        self.described.result.clone()
    }

    fn needs(&self) -> &[Need] {
        &self.described.needs
    }

    fn tool_type(&self) -> ToolType {
        ToolType::Extension
    }

    fn timeout(&self) -> Duration {
        self.described.timeout()
    }

    fn call(&self, arguments: Value) -> BoxFuture<'_, Result<Value, ToolError>> {
        Box::pin(self.ask(arguments))
    }
}
