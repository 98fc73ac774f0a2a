//! What the errors of providers mean: kinds, pauses, texts.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use throughline_llm::openai::ApiError;
use throughline_trace::ErrorType;

/// Longest part of a body that is quoted in an error message, characters.
const QUOTED_CHARS: usize = 200;

/// The kind of failure that an answer with a status other than 2xx is.
pub(crate) fn refusal_type(status: StatusCode, told: &ApiError) -> ErrorType {
    if is_filtered(told) {
        return ErrorType::ContentFiltered;
    }
    // A redirect is not followed: a POST would arrive as a GET, and the key elsewhere.
    ErrorType::from_http_status(status.as_u16()).unwrap_or(ErrorType::InvalidResponse)
}

/// The kind of an error that came with status 200, or in the middle of a stream.
pub(crate) fn told_type(told: &ApiError) -> ErrorType {
    if is_filtered(told) {
        return ErrorType::ContentFiltered;
    }
    match told.code.parse::<u16>().ok().and_then(ErrorType::from_http_status) {
        Some(kind) => kind,
        None if told.raw_code().is_some_and(|code| code.contains("rate_limit")) => {
            ErrorType::RateLimited
        }
        None => ErrorType::Server,
    }
}

fn is_filtered(told: &ApiError) -> bool {
    matches!(told.code.as_str(), "content_filter" | "content_policy_violation")
}

/// `Retry-After` in seconds or as a date, or OpenAI's `retry-after-ms`.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(millis) = text("retry-after-ms").and_then(|text| text.trim().parse().ok()) {
        return Some(Duration::from_millis(millis));
    }
    let text = text(RETRY_AFTER.as_str())?.trim();
    if let Ok(secs) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(secs).ok();
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(at.duration_since(jiff::Timestamp::now())).unwrap_or_default())
}

/// A status as people know it: `429 Too Many Requests`.
pub(crate) fn status_text(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

/// The beginning of a body, on one line.
pub(crate) fn quoted(body: &[u8]) -> String {
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
    use http::HeaderValue;

    use super::*;

    #[test]
    fn pauses_are_read_in_every_form() {
        let of = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_str(value).expect("a header value"));
            retry_after(&headers)
        };
        assert_eq!(of("retry-after", "2"), Some(Duration::from_secs(2)));
        assert_eq!(of("retry-after", "0.5"), Some(Duration::from_millis(500)));
        assert_eq!(of("retry-after-ms", "20"), Some(Duration::from_millis(20)));
        assert_eq!(of("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        let later = of("retry-after", "Fri, 31 Dec 2100 23:59:59 GMT").expect("a date");
        assert!(later > Duration::from_secs(86_400));
        assert_eq!(of("retry-after", "-1"), None);
        assert_eq!(of("retry-after", "soon"), None);
    }
}
