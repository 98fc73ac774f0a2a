//! Errors as the APIs of OpenAI and Anthropic word them, because clients parse them.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

/// An error answer: status and the body `{"error": {message, type, param, code}}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<String>,
    message: String,
    retry_after_secs: Option<u64>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status, kind, code: None, param: None, message, retry_after_secs: None }
    }

    /// 400: the request is wrong at `param`.
    pub(crate) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        let wrong = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message);
        Self { param: Some(param.into()), ..wrong }
    }

    /// 400: the value at `param` is of another type than it must be.
    pub(crate) fn invalid_type(param: &str, expected: &str, got: &serde_json::Value) -> Self {
        let got = match got {
            serde_json::Value::Null => "null",
            serde_json::Value::Bool(_) => "a boolean",
            serde_json::Value::Number(number) if number.is_f64() => "a decimal",
            serde_json::Value::Number(_) => "an integer",
            serde_json::Value::String(_) => "a string",
            serde_json::Value::Array(_) => "an array",
            serde_json::Value::Object(_) => "an object",
        };
        let message =
            format!("Invalid type for '{param}': expected {expected}, but got {got} instead.");
        Self { code: Some("invalid_type"), ..Self::invalid(param, message) }
    }

    /// 400: `param` must be there.
    pub(crate) fn missing(param: &str) -> Self {
        let wrong = Self::invalid(param, format!("Missing required parameter: '{param}'."));
        Self { code: Some("missing_required_parameter"), ..wrong }
    }

    /// 400: fields that chat completions do not have.
    pub(crate) fn unrecognized(names: &[&str]) -> Self {
        let argument = if names.len() == 1 { "argument" } else { "arguments" };
        let message = format!("Unrecognized request {argument} supplied: {}", names.join(", "));
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// 400: a field that responses do not have.
    pub(crate) fn unknown_parameter(name: &str) -> Self {
        let wrong = Self::invalid(name, format!("Unknown parameter: '{name}'."));
        Self { code: Some("unknown_parameter"), ..wrong }
    }

    /// 400: the body is no JSON object.
    pub(crate) fn unreadable(detail: &str) -> Self {
        let message = format!(
            "We could not parse the JSON body of your request ({detail}). The simulated provider \
             expects a JSON object, as the OpenAI API does."
        );
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// 413: the body is longer than allowed.
    pub(crate) fn too_large(limit_bytes: usize) -> Self {
        let message = format!("Maximum content size limit ({limit_bytes} bytes) exceeded.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", message)
    }

    /// 404: no such model.
    pub(crate) fn no_such_model(name: &str) -> Self {
        let message = format!("The model `{name}` does not exist or you do not have access to it.");
        let wrong = Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message);
        Self { code: Some("model_not_found"), param: Some("model".to_owned()), ..wrong }
    }

    /// 404: no such route.
    pub(crate) fn no_such_route(method: &http::Method, path: &str) -> Self {
        let message = format!("Invalid URL ({method} {path})");
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message)
    }

    /// 429: slow down.
    pub(crate) fn rate_limited(model: &str, retry_after_secs: u64) -> Self {
        let message = format!(
            "Rate limit reached for {model} in organization org-demo on tokens per min (TPM): \
             Limit 30000, Used 29612, Requested 874. Please try again in {retry_after_secs}s. \
             Visit https://platform.openai.com/account/rate-limits to learn more."
        );
        let wrong = Self::new(StatusCode::TOO_MANY_REQUESTS, "tokens", message);
        Self {
            code: Some("rate_limit_exceeded"),
            retry_after_secs: Some(retry_after_secs),
            ..wrong
        }
    }

    /// 500: the provider failed.
    pub(crate) fn server(request_id: &str) -> Self {
        let message = format!(
            "The server had an error while processing your request. Sorry about that! You can \
             retry your request, or contact us through our help center if the error persists. \
             (Please include the request ID {request_id} in your message.)"
        );
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    /// 503: the model has no room.
    pub(crate) fn overloaded(model: &str) -> Self {
        let message = format!(
            "The model {model} is currently overloaded with other requests. Please try again later."
        );
        let wrong = Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message);
        Self { code: Some("service_unavailable"), ..wrong }
    }
}

/// Anthropic's status for a model without room (not registered with IANA).
const OVERLOADED: u16 = 529;

impl ApiError {
    /// The answer in Anthropic's form: `{"type": "error", "error": {type, message}}`.
    pub(crate) fn into_anthropic(self) -> Response {
        let (status, kind) = match self.status.as_u16() {
            404 => (self.status, "not_found_error"),
            413 => (self.status, "request_too_large"),
            429 => (self.status, "rate_limit_error"),
            503 => (StatusCode::from_u16(OVERLOADED).unwrap_or(self.status), "overloaded_error"),
            400..=499 => (self.status, "invalid_request_error"),
            _ => (self.status, "api_error"),
        };
        let body = json!({"type": "error", "error": {"type": kind, "message": self.message}});
        with_pause((status, Json(body)).into_response(), self.retry_after_secs)
    }
}

fn with_pause(mut response: Response, retry_after_secs: Option<u64>) -> Response {
    if let Some(secs) = retry_after_secs {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(secs));
    }
    response
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({"error": {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }});
        with_pause((self.status, Json(body)).into_response(), self.retry_after_secs)
    }
}
