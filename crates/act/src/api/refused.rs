//! Why a request got no answer, as a problem of RFC 9457 in the form that all of `/api/v1` has.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Where the guide is.
const HINT: &str = "docs/acting.md tells what it takes";

/// Seconds after which whoever found no place may come back.
const RETRY_AFTER_S: u64 = 5;

/// Why a request got no answer.
#[derive(Debug, Clone)]
pub struct Refused {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: String,
    hint: String,
}

impl Refused {
    fn new(status: StatusCode, code: &'static str, title: &'static str, detail: String) -> Self {
        Self { status, code, title, detail, hint: HINT.to_owned() }
    }

    /// The body or the query cannot be read.
    pub(crate) fn bad_request(detail: String) -> Self {
        let title = "The body cannot be read or carried out";
        Self::new(StatusCode::BAD_REQUEST, "bad_request", title, detail)
    }

    /// A parameter cannot be read.
    pub(crate) fn parameter(name: &str, expected: &str, got: &str) -> Self {
        let got: String = got.chars().take(80).collect();
        let detail = format!("parameter `{name}`: expected {expected}, got {got:?}");
        let title = "A parameter cannot be read";
        Self::new(StatusCode::BAD_REQUEST, "bad_parameter", title, detail)
    }

    /// The body is JSON of another shape.
    pub(crate) fn bad_body(detail: String) -> Self {
        let title = "The body is JSON of another shape";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_body", title, detail)
    }

    /// The body is larger than is taken.
    pub(crate) fn too_large(max_bytes: usize) -> Self {
        let detail = format!("expected a body of at most {max_bytes} bytes");
        let title = "The body is too large";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", title, detail)
    }

    /// What the path names is not there.
    pub(crate) fn not_found(what: &str, id: &str) -> Self {
        let id: String = id.chars().take(80).collect();
        let detail = format!("no {what} {id:?} is stored");
        Self::new(StatusCode::NOT_FOUND, "not_found", "Nothing is there", detail)
    }

    /// It does not fit how things stand.
    pub(crate) fn conflict(detail: String) -> Self {
        let title = "It does not fit how things stand";
        Self::new(StatusCode::CONFLICT, "conflict", title, detail)
    }

    /// The disk.
    pub(crate) fn storage(error: String) -> Self {
        tracing::error!(error, "governance could not be asked");
        let title = "The store could not answer";
        let refused = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "storage", title, error);
        Self { hint: "the server's log says more".to_owned(), ..refused }
    }

    /// There is no place left.
    pub(crate) fn full(detail: String) -> Self {
        let title = "The store takes nothing right now";
        let refused = Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", title, detail);
        Self { hint: "come back after `Retry-After`".to_owned(), ..refused }
    }
}

impl IntoResponse for Refused {
    /// Status and reason; the body comes with [`told`], which knows the path.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes a refusal out as a problem.
pub(super) async fn told(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    let Some(refused) = response.extensions_mut().remove::<Refused>() else { return response };
    let body = json!({
        "type": format!("/api/v1/problems#{}", refused.code),
        "title": refused.title,
        "status": refused.status.as_u16(),
        "detail": refused.detail,
        "instance": path,
        "code": refused.code,
        "hint": refused.hint,
    });
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.remove(header::CONTENT_LENGTH);
    if refused.status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
    }
    // What the router said of methods (`Allow`) stays.
    *response.body_mut() = Body::from(body.to_string());
    response
}

/// The path is ours and takes another method.
pub(super) async fn wrong_method(method: Method, uri: Uri) -> Refused {
    let detail = format!("{} does not take {method}", uri.path());
    let title = "The path does not take this method";
    Refused::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", title, detail)
}
