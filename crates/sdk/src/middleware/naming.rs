//! What the conventions of OpenTelemetry call a request: names and attributes of HTTP and gRPC spans.

use http::header::{CONTENT_TYPE, HOST};
use http::uri::Authority;
use http::{HeaderMap, Method, Request, Uri, Version};
use opentelemetry::KeyValue;
use throughline_trace::keys;

/// Characters of a path in a span's name or attribute at most.
const MAX_PATH_CHARS: usize = 256;

/// The methods that conventions know; a name of anybody's choice would be a name of its own.
const METHODS: [&str; 10] =
    ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"];

/// How two processes talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http,
    Grpc,
}

impl Protocol {
    /// The protocol that a request's headers tell.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let kind = headers.get(CONTENT_TYPE).map(http::HeaderValue::as_bytes).unwrap_or_default();
        match kind.strip_prefix(b"application/grpc") {
            // Not gRPC-Web, which goes over HTTP as other requests do.
            Some([] | [b'+' | b';', ..]) => Self::Grpc,
            _ => Self::Http,
        }
    }
}

/// The method's name in a span.
pub(super) fn method_name(method: &Method) -> &str {
    if METHODS.contains(&method.as_str()) { method.as_str() } else { "HTTP" }
}

/// The method as attributes.
pub(super) fn method_attributes(method: &Method, into: &mut Vec<KeyValue>) {
    if METHODS.contains(&method.as_str()) {
        into.push(KeyValue::new(keys::HTTP_REQUEST_METHOD, method.as_str().to_owned()));
    } else {
        into.push(KeyValue::new(keys::HTTP_REQUEST_METHOD, "_OTHER"));
        into.push(KeyValue::new(keys::HTTP_REQUEST_METHOD_ORIGINAL, shortened(method.as_str())));
    }
}

/// The protocol's version as an attribute, where the conventions name it.
pub(super) fn version_attribute(version: Version) -> Option<KeyValue> {
    let text = match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_11 => "1.1",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => return None,
    };
    Some(KeyValue::new(keys::NETWORK_PROTOCOL_VERSION, text))
}

/// Host and port of a server, as far as they are said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: Option<u16>,
}

impl Address {
    /// What a request says of the server that it is for: its address, or else its `Host`.
    pub(super) fn of(uri: &Uri, headers: &HeaderMap) -> Option<Self> {
        if let Some(authority) = uri.authority() {
            return Some(Self::new(authority, uri.scheme_str()));
        }
        let host = headers.get(HOST)?.to_str().ok()?;
        Some(Self::new(&host.parse().ok()?, uri.scheme_str()))
    }

    fn new(authority: &Authority, scheme: Option<&str>) -> Self {
        let by_scheme = match scheme {
            Some("https") => Some(443),
            Some("http") => Some(80),
            _ => None,
        };
        // Brackets are the address's, not the host's.
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Self { host, port: authority.port_u16().or(by_scheme) }
    }

    pub(super) fn attributes(&self, into: &mut Vec<KeyValue>) {
        into.push(KeyValue::new(keys::SERVER_ADDRESS, self.host.clone()));
        if let Some(port) = self.port {
            into.push(KeyValue::new(keys::SERVER_PORT, i64::from(port)));
        }
    }
}

/// What the span of a server tells of an HTTP request.
pub(crate) fn http_server_attributes<B>(
    request: &Request<B>,
    route: Option<String>,
) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(8);
    method_attributes(request.method(), &mut attributes);
    let mut set = |key: &'static str, value: String| {
        attributes.push(KeyValue::new(key, value));
    };
    set(keys::URL_SCHEME, request.uri().scheme_str().unwrap_or("http").to_owned());
    set(keys::URL_PATH, shortened(request.uri().path()));
    if let Some(route) = route {
        set(keys::HTTP_ROUTE, route);
    }
    attributes.extend(version_attribute(request.version()));
    if let Some(address) = Address::of(request.uri(), request.headers()) {
        address.attributes(&mut attributes);
    }
    attributes
}

/// What the span of a server tells of a gRPC call.
pub(crate) fn grpc_server_attributes<B>(request: &Request<B>) -> Vec<KeyValue> {
    let mut attributes = grpc_attributes(&grpc_method(request.uri().path())).to_vec();
    if let Some(address) = Address::of(request.uri(), request.headers()) {
        address.attributes(&mut attributes);
    }
    attributes
}

/// The gRPC method that a path names: `package.Service/Method`.
pub(super) fn grpc_method(path: &str) -> String {
    shortened(path.trim_start_matches('/'))
}

/// The attributes of a gRPC call.
pub(super) fn grpc_attributes(method: &str) -> [KeyValue; 2] {
    [
        KeyValue::new(keys::RPC_SYSTEM_NAME, "grpc"),
        KeyValue::new(keys::RPC_METHOD, method.to_owned()),
    ]
}

/// The first [`MAX_PATH_CHARS`] of a text that a stranger chose.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_PATH_CHARS) {
        Some((end, _)) => text[..end].to_owned(),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn grpc_is_told_by_its_content_type() {
        for (kind, protocol) in [
            ("application/grpc", Protocol::Grpc),
            ("application/grpc+proto", Protocol::Grpc),
            ("application/grpc;x", Protocol::Grpc),
            ("application/grpc-web", Protocol::Http),
            ("application/json", Protocol::Http),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            assert_eq!(Protocol::of(&headers), protocol, "{kind}");
        }
    }

    #[test]
    fn the_address_is_that_of_the_request_or_of_its_host() {
        let of = |uri: &str, host: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static(host));
            Address::of(&uri.parse().expect("an address"), &headers)
                .map(|address| format!("{} {:?}", address.host, address.port))
        };
        assert_eq!(of("https://a.example/x", "b"), Some("a.example Some(443)".to_owned()));
        assert_eq!(of("/x", "b.example:8080"), Some("b.example Some(8080)".to_owned()));
        assert_eq!(of("/x", "[::1]:80"), Some("::1 Some(80)".to_owned()));
        assert_eq!(of("/x", "no host"), None);
    }

    #[test]
    fn what_a_stranger_chose_is_shortened() {
        assert_eq!(shortened(&"ü".repeat(1_000)).chars().count(), MAX_PATH_CHARS);
        let method = Method::from_bytes(b"BREW").expect("a method");
        assert_eq!(method_name(&method), "HTTP");
        let mut attributes = Vec::new();
        method_attributes(&method, &mut attributes);
        assert_eq!(attributes[0].value.as_str(), "_OTHER");
        assert_eq!(attributes[1].value.as_str(), "BREW");
    }
}
