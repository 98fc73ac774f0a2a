//! To whom browser pages may address requests.
//!
//! A web site can make its own name mean this machine (DNS rebinding); its pages are then of the
//! same origin as the receivers, and CORS does not ask. What is left is the name they used.

use http::header::{HOST, ORIGIN};
use http::request;
use http::uri::Authority;

use crate::failure::Failure;

/// Header of browsers that says how the page that asks is related to us.
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Refuses what a browser sent to another name than those `allowed`; `None` allows all. Other
/// clients may call us as they like.
pub(crate) fn check(allowed: Option<&[String]>, head: &request::Parts) -> Result<(), Failure> {
    let Some(allowed) = allowed else { return Ok(()) };
    if !head.headers.contains_key(ORIGIN) && !head.headers.contains_key(SEC_FETCH_SITE) {
        return Ok(());
    }
    let name = name(head).unwrap_or_default();
    if allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name)) {
        return Ok(());
    }
    let got = name.chars().take(MAX_SHOWN_CHARS).collect();
    Err(Failure::Host { expected: allowed.join(", "), got })
}

/// Characters of a wrong name that an answer repeats.
const MAX_SHOWN_CHARS: usize = 80;

/// The host that a request is addressed to, without its port: what HTTP/2 says as `:authority`, or
/// else the header `Host` (RFC 9110, 7.2). IPv6 keeps its brackets.
fn name(head: &request::Parts) -> Option<&str> {
    let header = || head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let address = head.uri.authority().map(Authority::as_str).or_else(header)?;
    let address = address.rsplit_once('@').map_or(address, |(_, host)| host);
    match address.rfind(']') {
        Some(end) => address.get(..=end),
        None => address.split(':').next(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_may_only_call_us_by_our_names() {
        let allowed = ["localhost".to_owned(), "[::1]".to_owned()];
        let is_let_in = |uri: &str, headers: &[(&str, &str)]| {
            let mut request = http::Request::post(uri);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let (head, ()) = request.body(()).unwrap().into_parts();
            assert!(check(None, &head).is_ok());
            check(Some(&allowed), &head).is_ok()
        };
        let origin = ("origin", "http://evil.example");
        assert!(is_let_in("/v1/traces", &[("host", "collector")]), "no browser");
        assert!(is_let_in("/v1/traces", &[origin, ("host", "LOCALHOST:4318")]));
        assert!(is_let_in("/v1/traces", &[origin, ("host", "[::1]:4318")]));
        assert!(is_let_in("http://localhost:4318/v1/traces", &[origin]));
        assert!(!is_let_in("/v1/traces", &[origin, ("host", "evil.example:4318")]));
        assert!(!is_let_in("http://evil.example/v1/traces", &[origin, ("host", "localhost")]));
        assert!(!is_let_in("http://localhost@evil.example/", &[origin]));
        assert!(!is_let_in("/v1/traces", &[origin]), "no name at all");
        let site = (SEC_FETCH_SITE, "same-origin");
        assert!(!is_let_in("/v1/traces", &[site, ("host", "evil.example")]));
    }
}
