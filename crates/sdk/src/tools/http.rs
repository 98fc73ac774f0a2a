//! Tools that are HTTP services: arguments in the address and the body, the trace and the context in
//! the headers (requirements R2.2, R2.3, R4.1).

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, header};
use opentelemetry::Context;
use opentelemetry::trace::SpanKind;
use reqwest::Url;
use serde_json::{Map, Value, json};
use throughline_trace::{ErrorType, keys};

use super::error::ToolError;
use super::template::{Template, text_of};
use super::tool::{TOOL_TIMEOUT, Tool, ToolType};
use super::tool_id::{ToolId, ToolIdError};
use crate::context_bag::{ContextBag, Need};
use crate::http_client;
use crate::propagation;
use crate::resilient::Fault as _;
use crate::span::{ActiveSpan, span};

/// Bytes of an answer that are read at most.
pub const HTTP_TOOL_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Characters of a refusal's body that the error tells at most.
const REFUSAL_MAX_CHARS: usize = 512;

/// Why a tool of an HTTP service could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpToolError {
    /// The id cannot be a tool's.
    #[error(transparent)]
    Id(#[from] ToolIdError),
    /// The address is none, or has a place for an argument where none may be.
    #[error("expected an http or https address with {{name}} only in its path and query: {reason}")]
    Address {
        /// What is wrong with it.
        reason: String,
    },
    /// A header cannot be sent.
    #[error("expected a header name and value that HTTP allows, got {name:?}")]
    Header {
        /// Its name.
        name: String,
    },
}

/// A tool that is an HTTP service.
///
/// The model's arguments are put into the `{name}` places of the address, percent-encoded; the rest
/// are the query of a GET, HEAD or DELETE, and the JSON body of all else. The request carries the
/// trace, the allow-listed baggage and, in `x-throughline-context`, what the tool declared that it
/// needs; nothing but the trace to [third parties](Self::third_party). Redirects are not followed. A
/// status of 300 or more is a failure with its [`ErrorType`].
///
/// ```
/// use http::Method;
/// use serde_json::json;
/// use throughline::HttpTool;
///
/// let stock = HttpTool::new("stock_v1", "How many there are", Method::GET, "https://shop.example/items/{item}")?
///     .parameters(json!({
///         "type": "object",
///         "properties": {"item": {"type": "integer"}, "shelf": {"type": "string"}},
///         "required": ["item"],
///     }));
/// assert!(HttpTool::new("x_v1", "No", Method::GET, "https://{host}/").is_err());
/// # Ok::<(), throughline::HttpToolError>(())
/// ```
#[derive(Clone)]
pub struct HttpTool {
    id: ToolId,
    description: String,
    method: Method,
    shown: String,
    written: String,
    server: Url,
    address: Template,
    headers: HeaderMap,
    parameters: Value,
    result: Option<Value>,
    is_text: bool,
    is_third_party: bool,
    needs: Vec<Need>,
    timeout: Duration,
    client: OnceLock<Result<reqwest::Client, String>>,
}

impl HttpTool {
    /// A service without arguments, which answers with JSON.
    ///
    /// # Errors
    /// [`HttpToolError`].
    pub fn new(
        id: &str,
        description: impl Into<String>,
        method: Method,
        address: &str,
    ) -> Result<Self, HttpToolError> {
        let wrong = |reason: String| HttpToolError::Address { reason };
        let id: ToolId = id.parse()?;
        let template = Template::parse(address).map_err(|error| wrong(error.to_string()))?;
        let begin = address.find("://").map_or(0, |at| at + "://".len());
        let path = address[begin..].find(['/', '?', '#']).map_or(address.len(), |at| begin + at);
        if address[..path].contains(['{', '}']) {
            return Err(wrong("a place stands before the path".to_owned()));
        }
        let server = Url::parse(&address[..path]).map_err(|error| wrong(error.to_string()))?;
        if !matches!(server.scheme(), "http" | "https") {
            return Err(wrong(format!("got {}", server.scheme())));
        }
        let shown = address[path..].split(['?', '#']).next().unwrap_or_default();
        Ok(Self {
            id,
            description: description.into(),
            method,
            shown: if shown.is_empty() { "/".to_owned() } else { shown.to_owned() },
            written: address.to_owned(),
            server,
            address: template,
            headers: HeaderMap::new(),
            parameters: json!({"type": "object", "properties": {}}),
            result: None,
            is_text: false,
            is_third_party: false,
            needs: Vec::new(),
            timeout: TOOL_TIMEOUT,
            client: OnceLock::new(),
        })
    }

    /// A header of every request, for credentials among others: no span or error has its value.
    ///
    /// # Errors
    /// [`HttpToolError::Header`].
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, HttpToolError> {
        let (key, value) = http_client::secret_header(name, value)
            .map_err(|_| HttpToolError::Header { name: name.to_owned() })?;
        self.headers.insert(key, value);
        Ok(self)
    }

    /// JSON Schema of the arguments: an object.
    #[must_use]
    pub fn parameters(mut self, schema: Value) -> Self {
        self.parameters = schema;
        self
    }

    /// JSON Schema of the answer.
    #[must_use]
    pub fn result_schema(mut self, schema: Value) -> Self {
        self.result = Some(schema);
        self
    }

    /// Takes the answer for text rather than JSON.
    #[must_use]
    pub fn answering_text(mut self) -> Self {
        self.is_text = true;
        self
    }

    /// Sends neither baggage nor context: the service is somebody else's. It still gets the trace.
    #[must_use]
    pub fn third_party(mut self) -> Self {
        self.is_third_party = true;
        self
    }

    /// Declares the fields of the caller's [`ContextBag`] that the service needs.
    #[must_use]
    pub fn with_needs(mut self, needs: impl IntoIterator<Item = Need>) -> Self {
        self.needs = needs.into_iter().collect();
        self
    }

    /// Sets how long the service may take; [`TOOL_TIMEOUT`] when not said.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    async fn ask(&self, arguments: Value) -> Result<Value, ToolError> {
        let (url, rest) = self.url(arguments)?;
        let span = self.span(&url);
        let result = span.instrument(self.send(url, rest, &span)).await;
        if let Err(error) = &result {
            span.fail(error.error_type(), super::error_text(error));
        }
        result
    }

    /// The whole address with its places unfilled: what fills them may be private, and is among the
    /// arguments of the tool's span, where those may be shown.
    fn shown_url(&self) -> String {
        let server = http_client::without_userinfo(self.server.as_str());
        format!("{}{}", server.trim_end_matches('/'), self.shown)
    }

    fn span(&self, url: &Url) -> ActiveSpan {
        let mut builder = span(format!("{} {}", self.method, self.shown))
            .kind(SpanKind::Client)
            .attribute(keys::HTTP_REQUEST_METHOD, self.method.to_string())
            .attribute(keys::URL_TEMPLATE, self.shown.clone())
            .attribute(keys::URL_FULL, self.shown_url())
            .attribute(keys::SERVER_ADDRESS, url.host_str().unwrap_or_default().to_owned());
        if let Some(port) = url.port_or_known_default() {
            builder = builder.attribute(keys::SERVER_PORT, i64::from(port));
        }
        builder.start()
    }

    async fn send(
        &self,
        url: Url,
        rest: Map<String, Value>,
        span: &ActiveSpan,
    ) -> Result<Value, ToolError> {
        let client = self.client.get_or_init(|| http_client::client(&self.server));
        let client = client.as_ref().map_err(|error| {
            ToolError::kind(ErrorType::Connection, format!("expected an HTTP client: {error}"))
        })?;
        let mut headers = self.headers.clone();
        self.inject(&mut headers)?;
        let mut request = client.request(self.method.clone(), url);
        if !is_query(&self.method) {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            request = request.body(Value::Object(rest).to_string());
        }
        let response = request.headers(headers).send().await.map_err(|error| self.broken(error))?;
        let status = response.status();
        span.set(keys::HTTP_RESPONSE_STATUS_CODE, i64::from(status.as_u16()));
        let body = self.read(response).await?;
        if !status.is_success() {
            let kind =
                ErrorType::from_http_status(status.as_u16()).unwrap_or(ErrorType::InvalidResponse);
            let said: String =
                String::from_utf8_lossy(&body).chars().take(REFUSAL_MAX_CHARS).collect();
            let message = format!("expected {} to answer, got {status}: {}", self.id, said.trim());
            let code = status.as_u16().to_string();
            return Err(ToolError::Code { kind, code, message });
        }
        if self.is_text {
            return Ok(Value::String(String::from_utf8_lossy(&body).into_owned()));
        }
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).map_err(|error| {
            let text = format!("expected JSON from {}: {error}", self.id);
            ToolError::kind(ErrorType::InvalidResponse, text)
        })
    }

    fn inject(&self, headers: &mut HeaderMap) -> Result<(), ToolError> {
        if self.is_third_party {
            propagation::inject_trace(&Context::current(), headers);
            return Ok(());
        }
        propagation::inject(headers);
        let context = |error| ToolError::Context { id: self.id.to_string(), error };
        match ContextBag::to_send(self.id.as_str(), &self.needs).map_err(context)? {
            Some(bag) => bag.inject_headers(headers).map_err(context),
            None => Ok(()),
        }
    }

    async fn read(&self, response: reqwest::Response) -> Result<Vec<u8>, ToolError> {
        let mut body = Vec::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| self.broken(error))?;
            if body.len() + chunk.len() > HTTP_TOOL_MAX_BYTES {
                let id = &self.id;
                let text =
                    format!("expected at most {HTTP_TOOL_MAX_BYTES} bytes from {id}, got more");
                return Err(ToolError::kind(ErrorType::InvalidResponse, text));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// A failure of the connection, without the address: its query may be anything.
    fn broken(&self, error: reqwest::Error) -> ToolError {
        let kind = if error.is_timeout() { ErrorType::Timeout } else { ErrorType::Connection };
        let host = self.server.host_str().unwrap_or_default();
        ToolError::kind(kind, format!("expected {host} to answer: {}", error.without_url()))
    }

    /// The address with its arguments, and the arguments that are left.
    fn url(&self, arguments: Value) -> Result<(Url, Map<String, Value>), ToolError> {
        let got = || arguments.to_string();
        let wrong =
            |reason| ToolError::InvalidArguments { id: self.id.to_string(), got: got(), reason };
        let nothing = Map::new();
        let given = arguments.as_object().unwrap_or(&nothing);
        let filled = self.address.fill(given, |name, value| match value.as_str() {
            "" | "." | ".." => {
                Err(format!("at /{name}: expected something to put into an address"))
            }
            _ => Ok(percent_encoded(&value)),
        });
        let filled = filled.map_err(wrong)?.ok_or_else(|| {
            let names: Vec<&str> = self.address.names().collect();
            wrong(format!(
                "at the top: expected the fields {}, of which one is missing",
                names.join(", ")
            ))
        })?;
        let mut url = Url::parse(&filled).map_err(|error| wrong(format!("no address: {error}")))?;
        let mut rest = given.clone();
        rest.retain(|name, _| !self.address.names().any(|known| known == name));
        if is_query(&self.method) {
            let pairs: Vec<(String, String)> = rest
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| (name.clone(), text_of(value)))
                .collect();
            if !pairs.is_empty() {
                url.query_pairs_mut().extend_pairs(pairs);
            }
        }
        Ok((url, rest))
    }
}

fn is_query(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::DELETE)
}

/// All but the characters that RFC 3986 leaves to everyone.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

impl Tool for HttpTool {
    fn id(&self) -> &ToolId {
        &self.id
    }

    fn description(&self) -> &str {
        &self.description
    }

    fn parameters(&self) -> Value {
        self.parameters.clone()
    }

    fn result_schema(&self) -> Option<Value> {
        self.result.clone()
    }

    fn needs(&self) -> &[Need] {
        &self.needs
    }

    fn tool_type(&self) -> ToolType {
        ToolType::Extension
    }

    /// Method and address, unless credentials are sent or it is somebody else's: what another process
    /// could not do in the same way.
    fn address(&self) -> Option<String> {
        let is_plain = self.headers.is_empty() && !self.is_third_party && !self.is_text;
        is_plain.then(|| format!("{} {}", self.method, self.written))
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn call(&self, arguments: Value) -> BoxFuture<'_, Result<Value, ToolError>> {
        Box::pin(self.ask(arguments))
    }
}

impl fmt::Debug for HttpTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTool").field("id", &self.id.as_str()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tool(address: &str) -> HttpTool {
        HttpTool::new("a_v1", "A", Method::GET, address).expect("a tool")
    }

    #[test]
    fn an_argument_cannot_leave_its_place_in_the_address() {
        let tool = tool("https://shop.example/items/{item}?sort=up");
        let url = |item: &str| {
            tool.url(json!({"item": item, "q": "a&b"})).map(|(url, _)| url.to_string())
        };
        assert_eq!(
            url("../../admin?x=1#y").as_deref(),
            Ok("https://shop.example/items/..%2F..%2Fadmin%3Fx%3D1%23y?sort=up&q=a%26b")
        );
        for wrong in ["", ".", ".."] {
            assert!(url(wrong).is_err(), "{wrong}");
        }
        assert!(tool.url(json!({})).is_err(), "the item is missing");
    }

    #[test]
    fn places_stand_only_in_path_and_query() {
        for wrong in ["https://{host}/a", "{scheme}://a/b", "https://a:{port}/", "ftp://a/b", "a/b"]
        {
            assert!(HttpTool::new("a_v1", "A", Method::GET, wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn every_argument_stays_one_segment(item in "\\PC{1,40}") {
            let tool = tool("https://shop.example/items/{item}");
            if let Ok((url, _)) = tool.url(json!({"item": item})) {
                prop_assert_eq!(url.path_segments().map(Iterator::count), Some(2));
                prop_assert_eq!(url.host_str(), Some("shop.example"));
                prop_assert_eq!((url.query(), url.fragment()), (None, None));
            }
        }
    }
}
