//! Answers of the service, and what an agent's error is as an HTTP status.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use serde::Serialize;
use throughline_trace::{ErrorType, TraceId};

use crate::agent::AgentError;
use crate::metrics::Outcome;
use crate::remote::wire::{ErrorReply, TRACE_ID_HEADER, WireError};
use crate::resilient::Fault as _;

/// Seconds that a caller is asked to wait when there are too many runs.
const BUSY_RETRY_SECS: u64 = 1;

/// What a body may fail with: it breaks off.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct BodyError(pub(super) String);

/// The body of an answer.
pub(super) type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A body that is there already.
pub(super) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// An answer in JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    // What is answered are our own types: they have no keys that JSON cannot spell.
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    let mut response = Response::new(whole(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The answer with the trace that it was recorded on.
pub(super) fn on_trace(mut response: Response<Body>, trace: Option<TraceId>) -> Response<Body> {
    let value = trace.and_then(|id| HeaderValue::from_str(&id.to_string()).ok());
    if let Some(value) = value {
        response.headers_mut().insert(HeaderName::from_static(TRACE_ID_HEADER), value);
    }
    response
}

/// Why a request is not answered as it would like.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) kind: ErrorType,
    pub(super) outcome: Outcome,
    pub(super) message: String,
    pub(super) retry_after_secs: Option<u64>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, kind: ErrorType, message: impl Into<String>) -> Self {
        let outcome = Outcome::of_error(kind);
        Self { status, kind, outcome, message: message.into(), retry_after_secs: None }
    }

    pub(super) fn wrong(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorType::InvalidRequest, message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, ErrorType::InvalidRequest, message)
    }

    /// There are as many runs as there may be.
    pub(super) fn busy(most: usize) -> Self {
        let message =
            format!("expected at most {most} runs at once, got one more; try again later");
        let busy = Self::new(StatusCode::SERVICE_UNAVAILABLE, ErrorType::Overloaded, message);
        Self { retry_after_secs: Some(BUSY_RETRY_SECS), ..busy }
    }

    /// The run failed.
    pub(super) fn of(error: &AgentError) -> Self {
        let kind = error.error_type();
        let retry_after_secs = error.retry_after().map(|pause| pause.as_secs().max(1));
        Self {
            status: status_of(kind),
            kind,
            outcome: error.outcome(),
            message: error.to_string(),
            retry_after_secs,
        }
    }

    pub(super) fn body(&self) -> ErrorReply {
        ErrorReply {
            error: WireError {
                kind: self.kind.as_str().to_owned(),
                message: self.message.clone(),
                outcome: self.outcome.as_str().to_owned(),
            },
        }
    }

    pub(super) fn response(&self) -> Response<Body> {
        let mut response = json(self.status, &self.body());
        if let Some(secs) = self.retry_after_secs {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(secs));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The status of an agent's error. What its own provider refuses is no fault of the caller.
fn status_of(kind: ErrorType) -> StatusCode {
    match kind {
        ErrorType::Timeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorType::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorType::CircuitOpen | ErrorType::Overloaded | ErrorType::Cancelled => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        ErrorType::PolicyRejected => StatusCode::FORBIDDEN,
        ErrorType::ContentFiltered => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorType::Connection
        | ErrorType::Server
        | ErrorType::Auth
        | ErrorType::InvalidResponse
        | ErrorType::StreamFailed
        | ErrorType::FallbackExhausted => StatusCode::BAD_GATEWAY,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
