//! What every operation of the API keeps, in one place: it takes the parameters that its description
//! names and no others, it answers in a form that is asked for, and what did not change is not sent
//! again.

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use throughline_api::EVENTS;

use super::operation::{Operation, parameters_of};
use crate::failure::{Failure, shown};
use crate::params::Params;

/// Hexadecimal characters of a version that was made by hashing.
const VERSION_CHARS: usize = 32;

/// Answers may be kept, and are asked for anew each time: `If-None-Match` makes that cheap.
const KEPT_AND_CHECKED: HeaderValue = HeaderValue::from_static("private, no-cache");

/// What an operation keeps, from its description.
#[derive(Debug, Clone)]
pub(crate) struct Contract {
    pub(crate) parameters: Vec<String>,
    pub(crate) media: String,
    pub(crate) has_version: bool,
}

impl Contract {
    pub(crate) fn of(operation: &Operation) -> Self {
        Self {
            parameters: parameters_of(operation).into_iter().map(str::to_owned).collect(),
            media: operation.media.to_owned(),
            has_version: has_version(&operation.method, operation.media),
        }
    }
}

/// Whether answers have versions, so that what did not change is not sent again.
pub(crate) fn has_version(method: &Method, media: &str) -> bool {
    *method == Method::GET && media != EVENTS
}

/// Holds a request against the contract, and its answer against what the asker has.
pub(crate) async fn keep(
    State(contract): State<std::sync::Arc<Contract>>,
    request: Request,
    next: Next,
) -> Response {
    held(&contract, request, next).await
}

/// The same for a contract that is looked up.
pub(crate) async fn held(contract: &Contract, request: Request, next: Next) -> Response {
    let parameters: Vec<&str> = contract.parameters.iter().map(String::as_str).collect();
    if let Err(failure) = Params::check(request.uri(), &parameters) {
        return failure.into_response();
    }
    if !accepts(request.headers(), &contract.media) {
        return not_acceptable(request.headers(), &contract.media).into_response();
    }
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let known = known_versions(request.headers());
    let response = next.run(request).await;
    if !is_read || !contract.has_version || response.status() != StatusCode::OK {
        return response;
    }
    match versioned(response).await {
        Ok(response) => unless_known(response, known.as_deref()),
        Err(failure) => failure.into_response(),
    }
}

/// The answer with the version of what it says. An answer whose maker knows a version has it by now;
/// lists are hashed, since nothing in the store counts everything that may change one: what comes
/// in, what is erased, what ages out, and the clock.
async fn versioned(response: Response) -> Result<Response, Failure> {
    let mut response = if response.headers().contains_key(header::ETAG) {
        response
    } else {
        let (mut parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.map_err(|error| Failure::answer(&error))?;
        parts.headers.insert(header::ETAG, etag(&[&bytes])?);
        Response::from_parts(parts, Body::from(bytes))
    };
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(KEPT_AND_CHECKED);
    Ok(response)
}

/// The version of an answer that is made from these parts. It is a weak one: the same answer may be
/// sent compressed or not.
pub(crate) fn etag(parts: &[&[u8]]) -> Result<HeaderValue, Failure> {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    let hash = hasher.finalize().to_hex();
    HeaderValue::try_from(format!("W/\"{}\"", &hash.as_str()[..VERSION_CHARS]))
        .map_err(|error| Failure::answer(&error))
}

/// The versions that the asker has.
pub(crate) fn known_versions(headers: &HeaderMap) -> Option<String> {
    let values: Vec<&str> = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    (!values.is_empty()).then(|| values.join(","))
}

/// Whether the asker has this version (RFC 9110, 13.1.2: compared weakly).
pub(crate) fn is_known(known: Option<&str>, version: &HeaderValue) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let (Some(known), Ok(version)) = (known, version.to_str()) else { return false };
    // Our own versions have no comma in them.
    known.split(',').any(|tag| tag.trim() == "*" || opaque(tag) == opaque(version))
}

/// The answer, or 304 when the asker has it.
pub(crate) fn unless_known(response: Response, known: Option<&str>) -> Response {
    let version = response.headers().get(header::ETAG);
    if !version.is_some_and(|version| is_known(known, version)) {
        return response;
    }
    let (mut parts, _) = response.into_parts();
    parts.status = StatusCode::NOT_MODIFIED;
    for about_body in [header::CONTENT_TYPE, header::CONTENT_LENGTH] {
        parts.headers.remove(about_body);
    }
    // What a cache needs to choose between stored answers; the compression adds it to bodies only.
    parts.headers.entry(header::VARY).or_insert(HeaderValue::from_static("accept-encoding"));
    Response::from_parts(parts, Body::from(Bytes::new()))
}

fn not_acceptable(headers: &HeaderMap, media: &str) -> Failure {
    let given = headers.get_all(header::ACCEPT).iter();
    let given: Vec<&str> = given.filter_map(|value| value.to_str().ok()).collect();
    let shown = shown(&given.join(", "));
    Failure::new(
        StatusCode::NOT_ACCEPTABLE,
        "not_acceptable",
        format!("header `Accept`: expected one that takes {media}, got {shown:?}"),
        format!("leave it out, or ask for {media}"),
    )
}

/// Whether `Accept` takes a media type (RFC 9110, 12.5.1): the most specific range that covers it
/// decides; no header takes everything.
fn accepts(headers: &HeaderMap, media: &str) -> bool {
    let mut values = headers.get_all(header::ACCEPT).iter().peekable();
    if values.peek().is_none() {
        return true;
    }
    let kind = media.split('/').next().unwrap_or_default();
    let mut best: Option<(u8, bool)> = None;
    let ranges = values.filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(','));
    for range in ranges {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let specific = match name.strip_suffix("/*") {
            Some("*") => 1,
            Some(of) if of == kind => 2,
            None if name == media => 3,
            _ => continue,
        };
        let quality = parts.find_map(|part| part.strip_prefix("q=")?.trim().parse::<f32>().ok());
        let is_wanted = quality.is_none_or(|quality| quality > 0.0);
        if best.is_none_or(|(of, was_wanted)| (specific, is_wanted) > (of, was_wanted)) {
            best = Some((specific, is_wanted));
        }
    }
    best.is_some_and(|(_, is_wanted)| is_wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn the_most_specific_range_decides_what_is_accepted() {
        let takes =
            |accept: &[&'static str]| accepts(&headers(header::ACCEPT, accept), "application/json");
        assert!(takes(&[]));
        for accept in ["*/*", "application/*", "Application/JSON", "text/html, */*;q=0.1"] {
            assert!(takes(&[accept]), "{accept}");
        }
        for accept in ["text/html", "text/*", "application/xml", "application/json;q=0", ""] {
            assert!(!takes(&[accept]), "{accept}");
        }
        assert!(!takes(&["*/*", "application/json; q=0.0"]), "the specific one decides");
        assert!(takes(&["application/*;q=0, application/json"]));
    }

    #[test]
    fn versions_are_compared_weakly() {
        let version = HeaderValue::from_static("W/\"a\"");
        for known in ["W/\"a\"", "\"a\"", "\"b\", W/\"a\"", "*"] {
            assert!(is_known(Some(known), &version), "{known}");
        }
        for known in ["\"b\"", "a", "", "W/\"ab\""] {
            assert!(!is_known(Some(known), &version), "{known}");
        }
        assert!(!is_known(None, &version));
    }

    #[test]
    fn parts_of_a_version_do_not_run_into_each_other() {
        assert_ne!(etag(&[b"ab", b"c"]).unwrap(), etag(&[b"a", b"bc"]).unwrap());
    }
}
