//! A registry as an HTTP service (feature `server`): what [`HttpRegistry`](super::HttpRegistry) asks.

use std::convert::Infallible;
use std::fmt;
use std::task::{Context as Poller, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use opentelemetry::trace::SpanKind;
use serde::Serialize;
use serde_json::Value;
use throughline_llm::ToolCall;
use throughline_trace::{ErrorType, keys};
use tower_service::Service;

use super::error::{RegistryError, ToolError};
use super::http::HttpTool;
use super::local::ToolRegistry;
use super::tool::Tool;
use super::wire::{Answered, Called, Described, Failed, Listed};
use crate::context_bag::ContextBag;
use crate::instrument::in_context;
use crate::propagation;
use crate::resilient::Fault as _;
use crate::span::span;

/// Bytes of a request to a registry at most.
pub const TOOL_SERVICE_MAX_BYTES: usize = 1024 * 1024;

type Answer = Response<Full<Bytes>>;

/// Serves a [`ToolRegistry`] over HTTP, as a tower service under any path: with axum,
/// `Router::new().nest_service("/registry", ToolService::new(tools))`. Whoever reaches it can call
/// the tools: put whatever asks for credentials before it. Each request goes on with its caller's
/// trace, and each tool gets what the caller's context was declared to tell it.
#[derive(Clone)]
pub struct ToolService {
    tools: ToolRegistry,
    may_register: bool,
}

impl ToolService {
    /// Serves these tools; nobody else registers any.
    pub fn new(tools: ToolRegistry) -> Self {
        Self { tools, may_register: false }
    }

    /// Lets callers register tools that are HTTP services, which this process then calls for them:
    /// only where all callers may make it send requests.
    #[must_use]
    pub fn accepting_tools(mut self) -> Self {
        self.may_register = true;
        self
    }

    async fn answer(&self, method: Method, path: &str, headers: &HeaderMap, body: Bytes) -> Answer {
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let at = segments.iter().rposition(|segment| *segment == "tools");
        let rest = at.map(|at| &segments[at + 1..]);
        match (method, rest) {
            (Method::GET, Some([])) => {
                let found =
                    self.tools.ids().into_iter().filter_map(|id| self.tools.find(id.as_str()));
                let tools = found.map(|tool| Described::of(tool.as_ref())).collect();
                json(StatusCode::OK, &Listed { tools })
            }
            (Method::GET, Some([id])) => match self.tools.lookup(id) {
                Some(tool) => json(StatusCode::OK, &Described::of(tool.as_ref())),
                None => missing(),
            },
            (Method::POST, Some([])) => self.register(&body).await,
            (Method::POST, Some([id, "call"])) => self.call(id, headers, &body).await,
            _ => missing(),
        }
    }

    async fn register(&self, body: &[u8]) -> Answer {
        if !self.may_register {
            let text = "expected a registry that accepts tools; this one does not";
            return json(StatusCode::FORBIDDEN, &Failed::new(ErrorType::PolicyRejected, text));
        }
        let bad = |text: String| {
            json(StatusCode::BAD_REQUEST, &Failed::new(ErrorType::InvalidRequest, text))
        };
        let described: Described = match serde_json::from_slice(body) {
            Ok(described) => described,
            Err(error) => return bad(format!("expected a tool as JSON: {error}")),
        };
        let tool = match tool_of(described) {
            Ok(tool) => tool,
            Err(text) => return bad(text),
        };
        match self.tools.register(tool) {
            Ok(()) => json(StatusCode::CREATED, &Value::Null),
            Err(error @ RegistryError::AlreadyRegistered(_)) => {
                let text = error.to_string();
                json(StatusCode::CONFLICT, &Failed::new(ErrorType::InvalidRequest, text))
            }
            Err(error) => bad(error.to_string()),
        }
    }

    async fn call(&self, id: &str, headers: &HeaderMap, body: &[u8]) -> Answer {
        let bad = |kind, text: String| json(StatusCode::BAD_REQUEST, &Failed::new(kind, text));
        let called: Called = match serde_json::from_slice(body) {
            Ok(called) => called,
            Err(error) => return bad(ErrorType::InvalidRequest, format!("expected JSON: {error}")),
        };
        let bag = match ContextBag::from_headers(headers) {
            Ok(bag) => bag,
            Err(error) => return bad(error.error_type(), error.to_string()),
        };
        // Of a name alone the tool that it means now: what came was given to that one.
        let id = self.tools.find(id).map_or_else(|| id.to_owned(), |tool| tool.id().to_string());
        let call = ToolCall {
            id: called.call_id,
            name: id.clone(),
            arguments: called.arguments.to_string(),
        };
        let work = self.tools.execute_for(&call, None);
        let result = match bag {
            // What came was given to this tool, and is handed to it as such.
            Some(bag) => bag.given_to(&id).scope(work).await,
            None => work.await,
        };
        match result {
            Ok(result) => json(StatusCode::OK, &Answered { result }),
            Err(error) => json(status_of(&error), &Failed::of(&error)),
        }
    }
}

fn tool_of(described: Described) -> Result<impl Tool + use<>, String> {
    let address = described.address.as_deref().unwrap_or_default();
    let (method, address) = address
        .split_once(' ')
        .ok_or("expected the method and address of an HTTP service: \"GET https://…\"")?;
    let method = Method::try_from(method).map_err(|_| "expected an HTTP method")?;
    let timeout = described.timeout();
    let tool = HttpTool::new(&described.id, described.description, method, address)
        .map_err(|error| error.to_string())?
        .parameters(described.parameters)
        .with_needs(described.needs)
        .with_timeout(timeout);
    Ok(match described.result {
        Some(schema) => tool.result_schema(schema),
        None => tool,
    })
}

fn status_of(error: &ToolError) -> StatusCode {
    match error.error_type() {
        ErrorType::ToolMissing => StatusCode::NOT_FOUND,
        ErrorType::InvalidArguments | ErrorType::InvalidRequest => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorType::PolicyRejected => StatusCode::FORBIDDEN,
        ErrorType::Timeout => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_GATEWAY,
    }
}

fn missing() -> Answer {
    let text = "expected /tools, /tools/{id} or /tools/{id}/call of a registered tool";
    json(StatusCode::NOT_FOUND, &Failed::new(ErrorType::ToolMissing, text))
}

fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    let text = serde_json::to_vec(body).unwrap_or_default();
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

impl<B> Service<Request<B>> for ToolService
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Answer;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Answer, Infallible>>;

    fn poll_ready(&mut self, _: &mut Poller<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let service = self.clone();
        let (head, body) = request.into_parts();
        let cx = propagation::extract(&head.headers);
        let work = async move {
            let template = template_of(head.uri.path());
            let span = span(format!("{} {template}", head.method))
                .kind(SpanKind::Server)
                .attribute(keys::HTTP_REQUEST_METHOD, head.method.to_string())
                .attribute(keys::HTTP_ROUTE, template)
                .attribute(keys::URL_PATH, head.uri.path().to_owned())
                .attribute(keys::URL_SCHEME, head.uri.scheme_str().unwrap_or("http").to_owned())
                .start();
            let answering = async {
                match Limited::new(body, TOOL_SERVICE_MAX_BYTES).collect().await {
                    Ok(body) => {
                        let body = body.to_bytes();
                        service.answer(head.method, head.uri.path(), &head.headers, body).await
                    }
                    Err(_) => {
                        let text = format!("expected at most {TOOL_SERVICE_MAX_BYTES} bytes");
                        let failed = Failed::new(ErrorType::InvalidRequest, text);
                        json(StatusCode::PAYLOAD_TOO_LARGE, &failed)
                    }
                }
            };
            let answer = span.instrument(answering).await;
            let status = answer.status();
            span.set(keys::HTTP_RESPONSE_STATUS_CODE, i64::from(status.as_u16()));
            if status.is_server_error() {
                span.fail(ErrorType::Server, format!("answered {status}"));
            }
            Ok(answer)
        };
        Box::pin(in_context(cx, work))
    }
}

/// The path with a place for the tool's id.
fn template_of(path: &str) -> &'static str {
    let mut segments = path.trim_end_matches('/').rsplit('/');
    match (segments.next(), segments.next(), segments.next()) {
        (Some("call"), _, Some("tools")) => "/tools/{id}/call",
        (Some("tools"), ..) => "/tools",
        _ => "/tools/{id}",
    }
}

impl fmt::Debug for ToolService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolService").field("tools", &self.tools).finish_non_exhaustive()
    }
}
