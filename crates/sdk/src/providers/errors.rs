//! What the errors of providers mean: kinds and texts.

use http::StatusCode;
use throughline_llm::openai::ApiError;
use throughline_trace::ErrorType;

/// Longest part of a body that is quoted in an error message, characters.
const QUOTED_CHARS: usize = 200;

/// The kind of failure that an answer with a status other than 2xx is.
pub fn refusal_type(status: StatusCode, told: &ApiError) -> ErrorType {
    if is_filtered(told) {
        return ErrorType::ContentFiltered;
    }
    if is_unpaid(told) {
        return ErrorType::Auth;
    }
    // A redirect is not followed: a POST would arrive as a GET, and the key elsewhere.
    ErrorType::from_http_status(status.as_u16()).unwrap_or(ErrorType::InvalidResponse)
}

/// The kind of an error that came with status 200, or in the middle of a stream.
pub fn told_type(told: &ApiError) -> ErrorType {
    if is_filtered(told) {
        return ErrorType::ContentFiltered;
    }
    if is_unpaid(told) {
        return ErrorType::Auth;
    }
    match told.code.parse::<u16>().ok().and_then(ErrorType::from_http_status) {
        Some(kind) => kind,
        None => named_type(told.raw_code().unwrap_or_default()),
    }
}

/// The kind of an error by the name that OpenAI or Anthropic gives it.
fn named_type(name: &str) -> ErrorType {
    match name {
        "overloaded_error" => ErrorType::Overloaded,
        "authentication_error" | "permission_error" => ErrorType::Auth,
        "invalid_request_error" | "not_found_error" | "request_too_large" => {
            ErrorType::InvalidRequest
        }
        "timeout_error" => ErrorType::Timeout,
        name if name.contains("rate_limit") => ErrorType::RateLimited,
        _ => ErrorType::Server,
    }
}

fn is_filtered(told: &ApiError) -> bool {
    matches!(told.code.as_str(), "content_filter" | "content_policy_violation")
}

/// Whether the account is refused until somebody pays: OpenAI says so with the status of a rate limit,
/// but no pause helps.
fn is_unpaid(told: &ApiError) -> bool {
    let is_of = |text: &str| {
        matches!(text, "insufficient_quota" | "billing_hard_limit_reached" | "billing_not_active")
    };
    is_of(&told.code) || is_of(&told.kind)
}

/// A status as people know it: `429 Too Many Requests`.
pub fn status_text(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

/// The beginning of a body, on one line.
pub fn quoted(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let line: Vec<&str> = text.split_whitespace().collect();
    let short: String = line.join(" ").chars().take(QUOTED_CHARS).collect();
    if short.is_empty() { "an empty body".to_owned() } else { format!("{short:?}") }
}

/// An error with what caused it: reqwest's own text stops at the first level. The address is left
/// out, the message around it names the host.
pub(crate) fn causes(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    if text.is_empty() { error.to_string() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_errors_are_told_apart() {
        let told = |kind: &str| ApiError { kind: kind.to_owned(), ..ApiError::default() };
        for (kind, error_type) in [
            ("overloaded_error", ErrorType::Overloaded),
            ("rate_limit_error", ErrorType::RateLimited),
            ("authentication_error", ErrorType::Auth),
            ("permission_error", ErrorType::Auth),
            ("invalid_request_error", ErrorType::InvalidRequest),
            ("timeout_error", ErrorType::Timeout),
            ("api_error", ErrorType::Server),
        ] {
            assert_eq!(told_type(&told(kind)), error_type, "{kind}");
        }
        let too_many = StatusCode::TOO_MANY_REQUESTS;
        for (code, error_type) in [
            ("insufficient_quota", ErrorType::Auth),
            ("rate_limit_exceeded", ErrorType::RateLimited),
        ] {
            let told = ApiError { code: code.to_owned(), ..ApiError::default() };
            assert_eq!(refusal_type(too_many, &told), error_type, "{code}");
        }
        let overloaded = StatusCode::from_u16(529).expect("a status");
        assert_eq!(refusal_type(overloaded, &ApiError::default()), ErrorType::Overloaded);
    }
}
