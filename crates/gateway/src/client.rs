//! Requests to providers: pooled connections, limits on what an answer may hold, and nothing of a
//! client's headers but what providers are meant to see.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use throughline::telling::{self, Roots};
use throughline_llm::anthropic;
use throughline_trace::ErrorType;

use crate::api::Api;
use crate::config::ProviderKind;
use crate::fault::{Fault, Refusal, causes};
use crate::plain::{IdleLimits, PlainClient, PlainError};
use crate::plan::{Plan, PlanError};
use crate::provider::Provider;
use crate::way::{InTime, Way};

/// How long a connection without requests is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Connections without requests that are kept for one provider.
const MAX_IDLE_PER_HOST: usize = 256;
/// How often a connection over which nothing comes is asked by TCP whether it still is one: what a firewall has
/// forgotten looks open from here for as long as nobody asks.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// How often TCP asks without an answer before the connection is none.
const KEEP_ALIVE_RETRIES: u32 = 3;
/// Header bytes of one answer.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// Largest body of a refusal that is read, bytes.
const MAX_REFUSAL_BYTES: usize = 64 << 10;

/// Content type of a streamed answer.
pub(crate) const EVENTS: &str = "text/event-stream";

/// Headers of clients that providers get too; beside them those that begin with [`PASSED_PREFIXES`].
const PASSED: [&str; 5] = [
    "idempotency-key",
    "openai-organization",
    "openai-project",
    "openai-beta",
    "x-client-request-id",
];
const PASSED_PREFIXES: [&str; 2] = ["anthropic-", "x-stainless-"];

/// Whether what a client says in a header may change what it is answered: those that name the request, or
/// the library that made it, do not.
pub(crate) fn shapes_answer(name: &str) -> bool {
    name.starts_with("openai-") || name.starts_with("anthropic-")
}

/// What sends requests on one way.
#[derive(Debug, Clone)]
pub(crate) enum Http {
    /// Without TLS and proxy.
    Plain(PlainClient),
    /// On every other way.
    Any(Box<Client<InTime, Full<Bytes>>>),
}

/// The clients, one for each way and patience with connecting: a few, which every request looks through.
/// Each has its own connections.
#[derive(Debug, Clone)]
pub(crate) struct Clients(Vec<(Duration, Way, Http)>);

impl Clients {
    /// What a plan needs; clients that are there already are kept with their connections.
    pub(crate) fn for_plan(plan: &Plan, before: Option<&Self>) -> Result<Self, PlanError> {
        let mut clients = Vec::new();
        // Reading what the system trusts takes a while: once for each way.
        let mut roots: HashMap<Way, rustls::ClientConfig> = HashMap::new();
        for (connect, way) in plan.ways() {
            let kept = before.and_then(|before| before.exact(connect, &way)).cloned();
            let client = match (kept, roots.get(&way)) {
                (Some(kept), _) => kept,
                (None, Some(tls)) => client(tls.clone(), connect, &way),
                (None, None) => {
                    let tls = tls_for(&way).map_err(PlanError::Client)?;
                    roots.insert(way.clone(), tls.clone());
                    client(tls, connect, &way)
                }
            };
            clients.push((connect, way, client));
        }
        Ok(Self(clients))
    }

    /// The client for a way, with this patience or else any.
    pub(crate) fn get(&self, connect: Duration, way: &Way) -> Option<&Http> {
        let any = || self.0.iter().find(|(_, own, _)| own == way).map(|(.., http)| http);
        self.exact(connect, way).or_else(any)
    }

    fn exact(&self, connect: Duration, way: &Way) -> Option<&Http> {
        let is_it = |own: &&(Duration, Way, Http)| own.0 == connect && own.1 == *way;
        self.0.iter().find(is_it).map(|(.., http)| http)
    }
}

fn tls_for(way: &Way) -> Result<rustls::ClientConfig, String> {
    let mut tls = match (&way.ca, way.is_tls) {
        (Some(ca), true) => telling::tls(Roots::SystemAnd(&ca.pem))?,
        (_, false) => telling::tls(Roots::None)?,
        (None, true) => telling::tls(Roots::System).or_else(|error| {
            // Providers on plain addresses can be asked nevertheless.
            tracing::warn!(error, "no certificates: providers cannot be reached over TLS");
            telling::tls(Roots::None)
        })?,
    };
    // The connector names the versions of HTTP itself.
    tls.alpn_protocols.clear();
    Ok(tls)
}

fn client(tls: rustls::ClientConfig, connect: Duration, way: &Way) -> Http {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(connect));
    http.set_keepalive(Some(KEEP_ALIVE_INTERVAL));
    http.set_keepalive_interval(Some(KEEP_ALIVE_INTERVAL));
    http.set_keepalive_retries(Some(KEEP_ALIVE_RETRIES));
    if way.is_plain() {
        let limits = IdleLimits {
            connect_timeout: connect,
            idle_timeout: IDLE_TIMEOUT,
            max_idle: MAX_IDLE_PER_HOST,
            max_buffer_bytes: MAX_HEADER_BYTES * 2,
        };
        return Http::Plain(PlainClient::new(http, limits));
    }
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        // HTTP/2 would put all requests to a provider on one connection, where those beyond what it takes at once
        // (a hundred, often) wait unseen until their time is over, and speak against a target that is well.
        .enable_http1()
        .wrap_connector(way.connector(http));
    let connector = InTime { connector, limit: connect };
    let client = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
        .http1_max_buf_size(MAX_HEADER_BYTES * 2)
        .build(connector);
    Http::Any(Box::new(client))
}

/// The headers of a request to a provider, without trace context.
pub(crate) fn headers_for(provider: &Provider, client: &HeaderMap, is_stream: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in client {
        let text = name.as_str();
        let is_passed =
            PASSED.contains(&text) || PASSED_PREFIXES.iter().any(|prefix| text.starts_with(prefix));
        if is_passed {
            headers.append(name.clone(), value.clone());
        }
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let accepted = if is_stream { EVENTS } else { "application/json" };
    headers.insert(ACCEPT, HeaderValue::from_static(accepted));
    // What is compressed cannot be read on its way.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let agent = concat!("throughline-gateway/", env!("CARGO_PKG_VERSION"));
    headers.insert(USER_AGENT, HeaderValue::from_static(agent));
    const VERSION: HeaderName = HeaderName::from_static("anthropic-version");
    if provider.kind == ProviderKind::Anthropic {
        headers.entry(VERSION).or_insert(HeaderValue::from_static(anthropic::VERSION));
    }
    if let Some((name, value)) = provider.key() {
        headers.insert(name.clone(), value.clone());
    }
    headers
}

/// Sends a request; answers other than 2xx are faults.
pub(crate) async fn send(
    client: &Http,
    who: &str,
    api: Api,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response<Incoming>, Fault> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    let failed = |is_connect: bool, error: &dyn std::error::Error| {
        let what = if is_connect { "cannot be reached" } else { "did not answer" };
        Fault::new(ErrorType::Connection, format!("{who} {what}: {}", causes(error)))
    };
    let response = match client {
        Http::Plain(client) => client
            .send(request)
            .await
            .map_err(|error| failed(matches!(error, PlainError::Connect(_)), &error))?,
        Http::Any(client) => {
            client.request(request).await.map_err(|error| failed(error.is_connect(), &error))?
        }
    };
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let (head, body) = response.into_parts();
    let body = read(body, MAX_REFUSAL_BYTES, who, status).await.unwrap_or_default();
    Err(Fault::refused(who, Refusal { api, status, headers: head.headers, body }))
}

/// Reads a whole body.
pub(crate) async fn read(
    body: Incoming,
    max_bytes: usize,
    who: &str,
    status: StatusCode,
) -> Result<Bytes, Fault> {
    let collected = Limited::new(body, max_bytes).collect().await.map_err(|error| {
        let (kind, message) = match error.downcast_ref::<LengthLimitError>() {
            Some(_) => (
                ErrorType::InvalidResponse,
                format!(
                    "expected an answer of at most {max_bytes} bytes of {who}, got a longer one"
                ),
            ),
            None => (
                ErrorType::Connection,
                format!("the answer of {who} broke off: {}", causes(error.as_ref())),
            ),
        };
        Fault::new(kind, message).with_status(status)
    })?;
    Ok(collected.to_bytes())
}

/// The headers of a provider's answer that its client gets too.
pub(crate) fn passed_back(headers: &HeaderMap) -> HeaderMap {
    const NAMES: [&str; 5] =
        ["content-type", "x-request-id", "request-id", "retry-after", "retry-after-ms"];
    const PREFIXES: [&str; 3] = ["openai-", "anthropic-", "x-ratelimit-"];
    let is_passed = |name: &str| {
        NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    let mut passed = HeaderMap::new();
    for (name, value) in headers {
        if is_passed(name.as_str()) {
            passed.append(name.clone(), value.clone());
        }
    }
    passed
}
