//! The layer of clients: a span for each request, whose headers carry the trace on.

use std::borrow::Cow;
use std::sync::Arc;
use std::task::{Context as Poller, Poll};

use http::{HeaderMap, Method, Request, Response, Uri};
use http_body::Body;
use opentelemetry::{Context, KeyValue};
use throughline_llm::prices::PriceTable;
use throughline_trace::keys;
use tower_layer::Layer;
use tower_service::Service;

use super::answer::{TracedAnswer, TracedBody};
use super::exchange::{Exchange, Side};
use super::naming::{
    Address, Protocol, grpc_attributes, grpc_method, method_attributes, method_name, shortened,
};
use crate::SpanKind;
use crate::http_client::without_userinfo;
use crate::propagation;
use crate::providers::provider_of_host;
use crate::span::span;
use crate::telemetry_pipeline::Pipeline;
use crate::work_scope::WorkScope;

/// Puts a span around each request of a client, over HTTP or gRPC, and the trace into its headers:
/// over hyper clients, tonic channels and [`reqwest::Client`]. An HTTP span is named by its method
/// and the request's [`UrlTemplate`], if it has one; a gRPC span by the gRPC method.
///
/// Agent, session and workflow ids go along, and what else of the baggage may cross processes
/// ([`propagation`]); say [`baggage(false)`](Self::baggage) for servers of strangers.
#[derive(Clone)]
pub struct TraceClientLayer {
    /// `None`: to all but model providers.
    pub(super) sends_baggage: Option<bool>,
    sends_trace_bin: bool,
    server: Option<Address>,
    pub(super) captures_content: Option<bool>,
    pub(super) prices: Option<Arc<PriceTable>>,
    pub(super) pipeline: Option<Arc<Pipeline>>,
}

/// Without the telemetry: its exporters hold keys.
impl std::fmt::Debug for TraceClientLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TraceClientLayer")
            .field("sends_baggage", &self.sends_baggage)
            .field("sends_trace_bin", &self.sends_trace_bin)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

/// The form of a request's path (`/stock/{item}`), as an extension of the request: a span named by
/// the path itself would have as many names as there are items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlTemplate(pub Cow<'static, str>);

impl Default for TraceClientLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl TraceClientLayer {
    /// The layer.
    pub fn new() -> Self {
        Self {
            sends_baggage: None,
            sends_trace_bin: false,
            server: None,
            captures_content: None,
            prices: None,
            pipeline: Pipeline::current(),
        }
    }

    /// Whether requests carry baggage. When nobody says, they do unless they go to a model provider:
    /// that is a third party, to whom these ids say who asks. A provider is whoever has the address of
    /// one that we know, whoever is asked within a model call, and over reqwest whoever is asked in the
    /// form of a model call, or at the path of one with a body that cannot be looked at. Over other
    /// clients bodies are never looked at: say `baggage(false)` there for a gateway or provider with an
    /// address of its own. The trace context always goes: its ids mean nothing to others.
    #[must_use]
    pub fn baggage(mut self, wanted: bool) -> Self {
        self.sends_baggage = Some(wanted);
        self
    }

    /// Whether gRPC requests also carry `grpc-trace-bin`, for services that know no other form.
    /// Needs the feature `grpc`.
    #[must_use]
    pub fn grpc_trace_bin(mut self, wanted: bool) -> Self {
        self.sends_trace_bin = wanted;
        self
    }

    /// The server, for requests that do not say it themselves, as those over a tonic channel.
    #[must_use]
    pub fn server(mut self, host: impl Into<String>, port: u16) -> Self {
        self.server = Some(Address { host: host.into(), port: Some(port) });
        self
    }

    /// Whether prompts and answers of recognised model calls go onto their spans, whatever telemetry
    /// in general says ([`captures_content`](crate::captures_content)).
    #[must_use]
    pub fn capture_content(mut self, wanted: bool) -> Self {
        self.captures_content = Some(wanted);
        self
    }

    /// Prices of recognised model calls, other than those of telemetry.
    #[must_use]
    pub fn prices(mut self, prices: PriceTable) -> Self {
        self.prices = Some(Arc::new(prices));
        self
    }

    /// The context that a request starts in.
    pub(super) fn parent(&self) -> Context {
        Pipeline::beneath(self.pipeline.as_ref(), Context::current())
    }

    /// Starts the span of a request and writes it into its headers.
    pub(super) fn start_http(
        &self,
        method: &Method,
        url: &str,
        address: Option<Address>,
        template: Option<&UrlTemplate>,
        is_provider: bool,
        headers: &mut HeaderMap,
    ) -> Exchange {
        let verb = method_name(method);
        let name = match template {
            Some(UrlTemplate(template)) => format!("{verb} {}", shortened(template)),
            None => verb.to_owned(),
        };
        let mut attributes = Vec::with_capacity(6);
        method_attributes(method, &mut attributes);
        attributes.push(KeyValue::new(keys::URL_FULL, shown(url)));
        if let Some(UrlTemplate(template)) = template {
            attributes.push(KeyValue::new(keys::URL_TEMPLATE, shortened(template)));
        }
        let address = address.or_else(|| self.server.clone());
        let asked = match &address {
            Some(address) => format!("{verb} {}", address.host),
            None => verb.to_owned(),
        };
        let from = Started { name, attributes, address, protocol: Protocol::Http, asked };
        self.started(from, is_provider, headers)
    }

    fn start<B>(&self, request: &mut Request<B>) -> Exchange {
        let address = Address::of(request.uri(), request.headers());
        if Protocol::of(request.headers()) == Protocol::Grpc {
            let method = grpc_method(request.uri().path());
            let attributes = grpc_attributes(&method).to_vec();
            let address = self.server.clone().or(address);
            let asked = method.clone();
            let headers = request.headers_mut();
            let from =
                Started { name: method, attributes, address, protocol: Protocol::Grpc, asked };
            return self.started(from, false, headers);
        }
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let template = request.extensions().get::<UrlTemplate>().cloned();
        let url = whole_url(&uri, address.as_ref());
        self.start_http(&method, &url, address, template.as_ref(), false, request.headers_mut())
    }

    /// Starts the span. A provider may also be told by its address, or that a call goes to it.
    fn started(&self, from: Started, is_provider: bool, headers: &mut HeaderMap) -> Exchange {
        let Started { name, mut attributes, address, protocol, asked } = from;
        let is_provider =
            is_provider || WorkScope::current().is_call() || address.as_ref().is_some_and(is_known);
        if let Some(address) = address {
            address.attributes(&mut attributes);
        }
        let span =
            span(name).kind(SpanKind::Client).attributes(attributes).parent(self.parent()).start();
        let cx = span.context();
        if self.sends_baggage.unwrap_or(!is_provider) {
            propagation::inject_context(&cx, headers);
        } else {
            propagation::inject_trace(&cx, headers);
        }
        #[cfg(feature = "grpc")]
        if self.sends_trace_bin && protocol == Protocol::Grpc {
            propagation::inject_bin_header(&cx, headers);
        }
        Exchange::new(span, Side::Client, protocol, asked)
    }
}

/// A request whose span is to be started.
struct Started {
    name: String,
    attributes: Vec<KeyValue>,
    address: Option<Address>,
    protocol: Protocol,
    asked: String,
}

/// Whether a model provider is at this address.
fn is_known(address: &Address) -> bool {
    provider_of_host(&address.host).is_some()
}

/// The address of a request as it may be shown: without user, password and query, where keys are.
fn shown(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    shortened(&without_userinfo(url))
}

/// The address of a request that has only a path.
fn whole_url(uri: &Uri, address: Option<&Address>) -> String {
    match (uri.authority(), address) {
        (None, Some(address)) => {
            let port = address.port.map(|port| format!(":{port}")).unwrap_or_default();
            format!("http://{}{port}{}", address.host, uri.path())
        }
        _ => uri.to_string(),
    }
}

impl<S> Layer<S> for TraceClientLayer {
    type Service = TraceClient<S>;

    fn layer(&self, inner: S) -> TraceClient<S> {
        TraceClient { inner, layer: self.clone() }
    }
}

/// A client's service within [`TraceClientLayer`].
#[derive(Debug, Clone)]
pub struct TraceClient<S> {
    pub(super) inner: S,
    pub(super) layer: TraceClientLayer,
}

impl<S, B, R> Service<Request<B>> for TraceClient<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: std::fmt::Display + 'static,
    R: Body,
{
    type Response = Response<TracedBody<R>>;
    type Error = S::Error;
    type Future = TracedAnswer<S::Future>;

    fn poll_ready(&mut self, poller: &mut Poller<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(poller)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let exchange = Box::new(self.layer.start(&mut request));
        let method = request.method().clone();
        TracedAnswer::new(&method, exchange, || self.inner.call(request))
    }
}
