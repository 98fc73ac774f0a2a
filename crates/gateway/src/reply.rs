//! What clients are told when there is no answer: in the form of the API that they asked.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use throughline_llm::openai::{self, ApiError};
use throughline_llm::{anthropic, event_bytes, named_event_bytes};
use throughline_trace::{DecisionId, ErrorType, TraceId};

use crate::api::Api;
use crate::client::passed_back;
use crate::fault::Fault;

/// The code of what breaks the contract of its route.
pub(crate) const CONTRACT_VIOLATED: &str = "contract_violated";
/// The code of a model without a price that a key with a budget asks for.
pub(crate) const NO_PRICE: &str = "no_price";
/// When a client should come back that found no room here, when nobody knows better.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// The trace of a request.
pub(crate) const TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");
/// The decision that led to the answer.
pub(crate) const DECISION_ID: HeaderName = HeaderName::from_static("x-decision-id");
/// `failed`, when a stream broke.
pub(crate) const STREAM_STATE: HeaderName = HeaderName::from_static("x-stream-state");

/// An answer that tells what went wrong.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    /// Class of errors, in the words of the API.
    pub(crate) kind: &'static str,
    pub(crate) code: String,
    pub(crate) param: String,
    pub(crate) message: String,
    pub(crate) retry_after: Option<Duration>,
}

impl Refused {
    pub(crate) fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        let kind = match status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            402 => "billing_error",
            429 => "rate_limit_error",
            503 => "overloaded_error",
            504 => "timeout_error",
            400..=499 => "invalid_request_error",
            _ => "api_error",
        };
        let (code, message) = (code.to_owned(), message.into());
        Self { status, kind, code, param: String::new(), message, retry_after: None }
    }

    /// A wrong request.
    pub(crate) fn of_error(error: ApiError) -> Self {
        let mut refused = Self::new(StatusCode::BAD_REQUEST, "", error.message);
        refused.param = error.param;
        refused
    }

    /// A failed call, of a client that asked one target. What is the client's own to mend keeps its
    /// status; what is between us and the provider is 502, 503 or 504.
    pub(crate) fn of_fault(fault: &Fault) -> Self {
        let told = fault.status.and_then(|status| StatusCode::from_u16(status).ok());
        let status = match fault.kind {
            ErrorType::InvalidRequest | ErrorType::ContentFiltered => {
                told.filter(StatusCode::is_client_error).unwrap_or(StatusCode::BAD_REQUEST)
            }
            ErrorType::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            ErrorType::PolicyRejected if fault.code.as_deref() == Some(NO_PRICE) => {
                StatusCode::PAYMENT_REQUIRED
            }
            ErrorType::PolicyRejected => StatusCode::FORBIDDEN,
            kind => unanswered(kind),
        };
        Self::with_fault(status, fault)
    }

    /// Every target failed.
    pub(crate) fn exhausted(faults: &[Fault]) -> Self {
        let Some(last) = faults.last() else {
            let message = "no target was asked";
            return Self::new(StatusCode::BAD_GATEWAY, "fallback_exhausted", message);
        };
        let all: Vec<&str> = faults.iter().map(|fault| fault.message.as_str()).collect();
        let mut refused = Self::with_fault(unanswered(last.kind), last);
        refused.code = "fallback_exhausted".to_owned();
        refused.message = format!("every target failed: {}", all.join("; then "));
        refused.retry_after = faults.iter().filter_map(|fault| fault.retry_after).min();
        refused
    }

    fn with_fault(status: StatusCode, fault: &Fault) -> Self {
        let code = match &fault.code {
            Some(code) if status.is_client_error() || code == CONTRACT_VIOLATED => code.clone(),
            _ => fault.kind.as_str().trim_start_matches('_').to_ascii_lowercase(),
        };
        let mut refused = Self::new(status, &code, fault.message.as_str());
        refused.retry_after = fault.retry_after;
        refused
    }

    fn error(&self) -> ApiError {
        ApiError {
            message: self.message.clone(),
            kind: self.kind.to_owned(),
            code: self.code.clone(),
            param: self.param.clone(),
        }
    }

    /// The body in the form of an API.
    fn body(&self, api: Api) -> Value {
        match api {
            // Anthropic's form has one word for the class and none for the code.
            Api::Messages => {
                anthropic::error_to_json(&ApiError { code: String::new(), ..self.error() })
            }
            _ => openai::error_to_json(&self.error()),
        }
    }

    /// The event that ends a stream that broke. It is never a clean end.
    pub(crate) fn event(&self, api: Api) -> Bytes {
        let mut body = self.body(api);
        let text = match api {
            Api::Messages => named_event_bytes(&body),
            Api::Responses => {
                let event = json!({
                    "type": "error", "code": self.code, "message": self.message, "param": null,
                    "error": body["error"].take(),
                });
                named_event_bytes(&event)
            }
            Api::Chat | Api::Completions | Api::Embeddings => event_bytes(&body.to_string()),
        };
        Bytes::from(text)
    }

    /// The answer in the form of an API.
    pub(crate) fn into_response(self, api: Api) -> Response {
        let mut response = Response::new(Body::from(self.body(api).to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let is_busy = self.status == StatusCode::SERVICE_UNAVAILABLE;
        let retry_after = self.retry_after.or(is_busy.then_some(BUSY_PAUSE));
        if let Some(pause) = retry_after {
            headers.insert(RETRY_AFTER, seconds(pause));
        }
        response
    }
}

/// A pause in whole seconds, at least one.
fn seconds(pause: Duration) -> HeaderValue {
    let whole = pause.as_secs() + u64::from(pause.subsec_nanos() > 0);
    HeaderValue::from(whole.max(1))
}

/// The status of a request that a provider left without an answer.
fn unanswered(kind: ErrorType) -> StatusCode {
    match kind {
        ErrorType::Timeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorType::CircuitOpen | ErrorType::Overloaded | ErrorType::RateLimited => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => StatusCode::BAD_GATEWAY,
    }
}

/// The answer to a failed call of a single target: a refusal that is the client's own to mend is
/// passed on as it came.
pub(crate) fn failed(api: Api, fault: &Fault) -> Response {
    let is_the_clients = matches!(
        fault.kind,
        ErrorType::InvalidRequest | ErrorType::ContentFiltered | ErrorType::RateLimited
    );
    let refusal = fault.refusal.as_ref().filter(|refusal| refusal.api == api);
    let refusal = refusal.filter(|refusal| is_the_clients && refusal.status.is_client_error());
    let mut response = match refusal {
        Some(refusal) => {
            let mut response = Response::new(Body::from(refusal.body.clone()));
            *response.status_mut() = refusal.status;
            *response.headers_mut() = passed_back(&refusal.headers);
            response
        }
        None => Refused::of_fault(fault).into_response(api),
    };
    if fault.kind == ErrorType::StreamFailed {
        response.headers_mut().insert(STREAM_STATE, HeaderValue::from_static("failed"));
    }
    response
}

/// The answer when every target failed.
pub(crate) fn exhausted(api: Api, faults: &[Fault]) -> Response {
    let mut response = Refused::exhausted(faults).into_response(api);
    if faults.last().is_some_and(|fault| fault.kind == ErrorType::StreamFailed) {
        response.headers_mut().insert(STREAM_STATE, HeaderValue::from_static("failed"));
    }
    response
}

/// Names the trace and the decision in the headers of an answer.
pub(crate) fn name_trace(headers: &mut HeaderMap, trace_id: TraceId, decision: Option<DecisionId>) {
    if let Ok(value) = HeaderValue::from_bytes(&trace_id.to_hex()) {
        headers.insert(TRACE_ID, value);
    }
    if let Some(DecisionId(id)) = decision {
        let mut text = uuid::Uuid::encode_buffer();
        if let Ok(value) = HeaderValue::from_str(id.hyphenated().encode_lower(&mut text)) {
            headers.insert(DECISION_ID, value);
        }
    }
}
