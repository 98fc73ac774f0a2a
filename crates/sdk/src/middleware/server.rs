//! The layer of servers: a span for each request, which goes on with the trace of its caller.

use std::sync::Arc;
use std::task::{Context as Poller, Poll};

use http::{Extensions, Request, Response};
use http_body::Body;
use opentelemetry::{Context, KeyValue};
use tower_layer::Layer;
use tower_service::Service;

use super::answer::{TracedAnswer, TracedBody};
use super::exchange::{Exchange, Side};
use super::naming::{
    Protocol, grpc_method, grpc_server_attributes, http_server_attributes, method_name, shortened,
};
use crate::SpanKind;
use crate::propagation;
use crate::span::{ActiveSpan, span};
use crate::telemetry_pipeline::Pipeline;

/// Finds the route of a request among its extensions.
type RouteOf = Arc<dyn Fn(&Extensions) -> Option<String> + Send + Sync>;

/// Puts a span around each request of a server, over HTTP or gRPC: `{METHOD} {route or path}`, or
/// the gRPC method. What the handler does and starts belongs to the trace of the caller.
///
/// The spans go to the telemetry that is current where the layer is made, if the request's context
/// has none of its own.
///
/// ```
/// use throughline::middleware::TraceServerLayer;
///
/// let app: axum::Router = axum::Router::new()
///     .route("/stock/{item}", axum::routing::get(|| async { "17" }))
///     .layer(TraceServerLayer::new().route(|extensions| {
///         let path = extensions.get::<axum::extract::MatchedPath>()?;
///         Some(path.as_str().to_owned())
///     }));
/// # drop(app);
/// ```
#[derive(Clone, Default)]
pub struct TraceServerLayer {
    route: Option<RouteOf>,
    pipeline: Option<Arc<Pipeline>>,
}

impl TraceServerLayer {
    /// The layer.
    pub fn new() -> Self {
        Self { route: None, pipeline: Pipeline::current() }
    }

    /// How to find the route (`/stock/{item}`) of a request: routers leave it in the extensions.
    /// Without it, spans are named after the method alone.
    #[must_use]
    pub fn route(
        mut self,
        route: impl Fn(&Extensions) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.route = Some(Arc::new(route));
        self
    }

    fn start<B>(&self, request: &Request<B>) -> Exchange {
        let parent = propagation::extract_any(request.headers());
        let parent = Pipeline::beneath(self.pipeline.as_ref(), parent);
        match Protocol::of(request.headers()) {
            Protocol::Grpc => self.start_grpc(request, parent),
            Protocol::Http => self.start_http(request, parent),
        }
    }

    fn start_http<B>(&self, request: &Request<B>, parent: Context) -> Exchange {
        let path = shortened(request.uri().path());
        let route = self.route.as_ref().and_then(|route| route(request.extensions()));
        let method = method_name(request.method());
        // Paths are without number: the name of a span is never one (HTTP conventions).
        let name = match &route {
            Some(route) => format!("{method} {route}"),
            None => method.to_owned(),
        };
        let asked = format!("{method} {}", route.as_deref().unwrap_or(&path));
        let attributes = http_server_attributes(request, route);
        let span = started(name, attributes, parent);
        Exchange::new(span, Side::Server, Protocol::Http, asked)
    }

    fn start_grpc<B>(&self, request: &Request<B>, parent: Context) -> Exchange {
        let method = grpc_method(request.uri().path());
        let attributes = grpc_server_attributes(request);
        let span = started(method.clone(), attributes, parent);
        Exchange::new(span, Side::Server, Protocol::Grpc, method)
    }
}

fn started(name: String, attributes: Vec<KeyValue>, parent: Context) -> ActiveSpan {
    span(name).kind(SpanKind::Server).attributes(attributes).parent(parent).start()
}

impl<S> Layer<S> for TraceServerLayer {
    type Service = TraceServer<S>;

    fn layer(&self, inner: S) -> TraceServer<S> {
        TraceServer { inner, layer: self.clone() }
    }
}

impl std::fmt::Debug for TraceServerLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TraceServerLayer")
            .field("has_route", &self.route.is_some())
            .finish_non_exhaustive()
    }
}

/// A server's service within [`TraceServerLayer`].
#[derive(Debug, Clone)]
pub struct TraceServer<S> {
    inner: S,
    layer: TraceServerLayer,
}

impl<S, B, R> Service<Request<B>> for TraceServer<S>
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

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let exchange = Box::new(self.layer.start(&request));
        let method = request.method().clone();
        TracedAnswer::new(&method, exchange, || self.inner.call(request))
    }
}
