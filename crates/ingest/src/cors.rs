//! CORS for browsers that send OTLP/HTTP: off unless origins are named.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderValue, Method, StatusCode};

/// How long a browser may remember a preflight, seconds.
const MAX_AGE_SECS: u64 = 3_600;

/// Origins whose pages may send.
#[derive(Debug)]
pub(crate) enum Origins {
    All,
    Listed(Vec<String>),
}

impl Origins {
    /// `None` when no page may send.
    pub(crate) fn new(origins: &[String]) -> Option<Self> {
        if origins.is_empty() {
            return None;
        }
        if origins.iter().any(|origin| origin == "*") {
            return Some(Self::All);
        }
        // A slash at the end is no part of an origin, and a usual slip.
        Some(Self::Listed(
            origins.iter().map(|origin| origin.trim_end_matches('/').to_owned()).collect(),
        ))
    }

    fn allow(&self, origin: &HeaderValue) -> bool {
        match self {
            Self::All => true,
            Self::Listed(listed) => listed
                .iter()
                .any(|allowed| allowed.as_bytes().eq_ignore_ascii_case(origin.as_bytes())),
        }
    }
}

/// Answers preflights of allowed origins, and lets their pages read the replies. To all others
/// nothing is said, so that the browser forbids it.
pub(crate) async fn answer(
    State(origins): State<Arc<Origins>>,
    request: Request,
    next: Next,
) -> Response {
    let origin = request.headers().get(ORIGIN).filter(|origin| origins.allow(origin)).cloned();
    let is_preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let asked = request.headers().get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let mut response = if is_preflight && origin.is_some() {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(MAX_AGE_SECS));
        if let Some(asked) = asked {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked);
        }
        response
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.append(VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After"));
    }
    response
}
