//! What providers and gateways say in headers: pauses, what is left of a rate limit, answers out of a
//! cache.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName};
use throughline_llm::RateLimits;

/// Our gateway's word on where an answer came from: `hit` or `miss`.
pub const CACHE_HEADER: &str = "x-throughline-cache";

/// What the names of headers that tell rate limits begin with.
const LIMITS: [&str; 2] = ["x-ratelimit-", "anthropic-ratelimit-"];

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

/// Whether the answer came out of a cache.
pub(crate) fn is_cached(headers: &HeaderMap) -> bool {
    text(headers, CACHE_HEADER).is_some_and(|word| word.eq_ignore_ascii_case("hit"))
}

/// What is left of the caller's rate limits, in the words of OpenAI or Anthropic.
pub fn rate_limits(headers: &HeaderMap) -> Option<RateLimits> {
    let is_told = |name: &HeaderName| LIMITS.iter().any(|one| name.as_str().starts_with(one));
    if !headers.keys().any(is_told) {
        return None;
    }
    let count = |names: [&str; 2]| {
        names.into_iter().find_map(|name| text(headers, name)?.parse::<u64>().ok())
    };
    let time = |names: [&str; 2]| names.into_iter().find_map(|name| wait(text(headers, name)?));
    let limits = RateLimits {
        remaining_requests: count([
            "x-ratelimit-remaining-requests",
            "anthropic-ratelimit-requests-remaining",
        ]),
        remaining_tokens: count([
            "x-ratelimit-remaining-tokens",
            "anthropic-ratelimit-tokens-remaining",
        ]),
        requests_reset: time(["x-ratelimit-reset-requests", "anthropic-ratelimit-requests-reset"]),
        tokens_reset: time(["x-ratelimit-reset-tokens", "anthropic-ratelimit-tokens-reset"]),
    };
    (limits != RateLimits::default()).then_some(limits)
}

/// The pause that a refusal asks for: what it says itself, or else when the limit that is used up is
/// full again.
pub fn pause(headers: &HeaderMap) -> Option<Duration> {
    retry_after(headers).or_else(|| rate_limits(headers)?.pause())
}

/// `Retry-After` in seconds or as a date, or OpenAI's `retry-after-ms`.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    if let Some(millis) = text(headers, "retry-after-ms").and_then(|text| text.parse().ok()) {
        return Some(Duration::from_millis(millis));
    }
    let text = text(headers, RETRY_AFTER.as_str())?;
    if let Ok(secs) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(secs).ok();
    }
    Some(until(jiff::fmt::rfc2822::parse(text).ok()?.timestamp()))
}

/// A time until then: `20ms`, `1.5s`, `6m0s`, or the moment itself (`2026-01-27T12:00:30Z`).
fn wait(text: &str) -> Option<Duration> {
    if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        return Some(until(moment));
    }
    let (mut rest, mut secs) = (text, 0.0);
    while !rest.is_empty() {
        let end = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end = rest[end..].find(|c: char| !c.is_ascii_alphabetic());
        let unit_end = unit_end.map_or(rest.len(), |more| end + more);
        secs += number
            * match &rest[end..unit_end] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3_600.0,
                "d" => 86_400.0,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    Duration::try_from_secs_f64(secs).ok()
}

fn until(moment: jiff::Timestamp) -> Duration {
    Duration::try_from(moment.duration_since(jiff::Timestamp::now())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_str(text).expect("a header value");
        pairs.iter().map(|(n, v)| (http::HeaderName::from_static(n), value(v))).collect()
    }

    #[test]
    fn pauses_are_read_in_every_form() {
        let of = |name: &'static str, value: &str| pause(&headers(&[(name, value)]));
        assert_eq!(of("retry-after", "2"), Some(Duration::from_secs(2)));
        assert_eq!(of("retry-after", "0.5"), Some(Duration::from_millis(500)));
        assert_eq!(of("retry-after-ms", "20"), Some(Duration::from_millis(20)));
        assert_eq!(of("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        let later = of("retry-after", "Fri, 31 Dec 2100 23:59:59 GMT").expect("a date");
        assert!(later > Duration::from_secs(86_400));
        assert_eq!(of("retry-after", "-1"), None);
        assert_eq!(of("retry-after", "soon"), None);
    }

    #[test]
    fn a_used_up_limit_says_when_to_come_again() {
        let openai = headers(&[
            ("x-ratelimit-remaining-requests", "9"),
            ("x-ratelimit-reset-requests", "120ms"),
            ("x-ratelimit-remaining-tokens", "0"),
            ("x-ratelimit-reset-tokens", "6m0.5s"),
        ]);
        assert_eq!(pause(&openai), Some(Duration::from_millis(360_500)));
        let limits = rate_limits(&openai).expect("limits");
        assert_eq!((limits.remaining_requests, limits.remaining_tokens), (Some(9), Some(0)));
        let anthropic = headers(&[
            ("anthropic-ratelimit-requests-remaining", "0"),
            ("anthropic-ratelimit-requests-reset", "2000-01-27T12:00:30Z"),
        ]);
        assert_eq!(pause(&anthropic), Some(Duration::ZERO));
        assert_eq!(pause(&headers(&[("x-ratelimit-remaining-tokens", "5")])), None);
        assert_eq!(rate_limits(&HeaderMap::new()), None);
    }

    #[test]
    fn a_gateways_cache_is_seen() {
        assert!(is_cached(&headers(&[(CACHE_HEADER, "HIT")])));
        assert!(!is_cached(&headers(&[(CACHE_HEADER, "miss")])));
        assert!(!is_cached(&HeaderMap::new()));
    }

    proptest! {
        #[test]
        fn no_header_makes_the_readers_panic(text in "[ -~]{0,20}", unit in "[0-9.]{0,6}(ms|s|m|h|d)") {
            let _ = wait(&text);
            let _ = wait(&unit);
            let _ = pause(&headers(&[("retry-after", &text), ("x-ratelimit-reset-tokens", &unit)]));
        }
    }
}
