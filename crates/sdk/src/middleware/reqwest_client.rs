//! The client layer over reqwest, and reqwest's own way of asking with it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Poller, Poll, ready};

use pin_project_lite::pin_project;
use reqwest::{Request, RequestBuilder, Response, ResponseBuilderExt as _, Url};
use tower_layer::Layer as _;
use tower_service::Service;

use super::answer::{TracedAnswer, Watch};
use super::client::{TraceClient, TraceClientLayer};
use super::model_answer::ModelExchange;
use super::model_form::Form;
use super::naming::Address;
use crate::call::Call;
use crate::chat::Endpoint;
use crate::made_by::MadeBy;
use crate::propagation;
use crate::providers::provider_of_host;
use crate::work_scope::WorkScope;

/// Longest body of a request that is looked at, bytes.
const MAX_REQUEST_BYTES: usize = 8 * 1024 * 1024;

/// Sends a request within a span, whose trace goes along: [`TraceClientLayer`] for one request.
pub trait SendTraced {
    /// Sends the request.
    ///
    /// # Errors
    /// Those of [`RequestBuilder::send`].
    fn send_traced(self) -> impl Future<Output = reqwest::Result<Response>> + Send;
}

impl SendTraced for RequestBuilder {
    async fn send_traced(self) -> reqwest::Result<Response> {
        let (client, request) = self.build_split();
        let request = request?;
        TraceClientLayer::new().layer(client).call(request).await
    }
}

impl TraceClientLayer {
    fn start_reqwest(&self, request: &mut Request) -> Box<dyn Watch> {
        if let Some(exchange) = self.start_model(request) {
            return Box::new(exchange);
        }
        let is_provider = may_be_model(request);
        let address = address_of(request.url());
        let (method, url) = (request.method().clone(), request.url().to_string());
        let headers = request.headers_mut();
        Box::new(self.start_http(&method, &url, address, None, is_provider, headers))
    }

    /// The span of a model call, if the request is one that we can read. Within a call that has its
    /// span already the request is one of its attempts, and its tokens are not counted again.
    fn start_model(&self, request: &mut Request) -> Option<ModelExchange> {
        let url = request.url();
        let form = Form::of(request.method(), url.path())?;
        let body = readable_body(request)?;
        let asked = form.request(url.path(), body)?;
        if WorkScope::current().is_call() {
            return None;
        }
        let host = url.host_str()?.to_owned();
        let endpoint = Endpoint {
            provider: provider_of_host(&host).unwrap_or(form.provider()).to_owned(),
            server_port: url.port_or_known_default(),
            server_address: Some(host),
        };
        let made_by = MadeBy {
            operation: form.operation(),
            endpoint,
            captures_content: self.captures_content,
            prices: self.prices.clone(),
        };
        let _attached = self.parent().attach();
        let call = Call::begin(made_by, &Arc::new(asked));
        let cx = call.span().context();
        if self.sends_baggage.unwrap_or(false) {
            propagation::inject_context(&cx, request.headers_mut());
        } else {
            propagation::inject_trace(&cx, request.headers_mut());
        }
        Some(ModelExchange::new(call, form))
    }
}

/// The body of a request, if it can be looked at.
fn readable_body(request: &Request) -> Option<&[u8]> {
    request.body()?.as_bytes().filter(|body| body.len() <= MAX_REQUEST_BYTES)
}

/// Whether a request that was not recognised may be one to a model all the same: it goes where they
/// go, and its body cannot be looked at or is one.
fn may_be_model(request: &Request) -> bool {
    let path = request.url().path();
    Form::of(request.method(), path).is_some_and(|form| {
        readable_body(request).is_none_or(|body| form.request(path, body).is_some())
    })
}

fn address_of(url: &Url) -> Option<Address> {
    let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
    Some(Address { host, port: url.port_or_known_default() })
}

impl<S> Service<Request> for TraceClient<S>
where
    S: Service<Request, Response = Response>,
    S::Error: std::fmt::Display + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = ReqwestAnswer<S::Future>;

    fn poll_ready(&mut self, poller: &mut Poller<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(poller)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let watch = self.layer.start_reqwest(&mut request);
        let method = request.method().clone();
        let ask = || Plain { inner: self.inner.call(request) };
        ReqwestAnswer { inner: TracedAnswer::new(&method, watch, ask) }
    }
}

pin_project! {
    /// The answer of reqwest as one of `http`, which keeps the address that it came from.
    struct Plain<F> {
        #[pin]
        inner: F,
    }
}

impl<F, E> Future for Plain<F>
where
    F: Future<Output = Result<Response, E>>,
{
    type Output = Result<http::Response<reqwest::Body>, E>;

    fn poll(self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<Self::Output> {
        let response = ready!(self.project().inner.poll(poller))?;
        let address = http::Response::builder().url(response.url().clone()).body(());
        let mut response = http::Response::from(response);
        if let Ok(address) = address {
            response.extensions_mut().extend(address.into_parts().0.extensions);
        }
        Poll::Ready(Ok(response))
    }
}

pin_project! {
    /// The answer that a [`TraceClient`] over reqwest waits for. Dropped before it is there, its
    /// span ends as cancelled.
    #[must_use = "futures do nothing unless polled"]
    pub struct ReqwestAnswer<F> {
        #[pin]
        inner: TracedAnswer<Plain<F>>,
    }
}

impl<F, E> Future for ReqwestAnswer<F>
where
    F: Future<Output = Result<Response, E>>,
    E: std::fmt::Display + 'static,
{
    type Output = Result<Response, E>;

    fn poll(self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<Self::Output> {
        let response = ready!(self.project().inner.poll(poller))?;
        Poll::Ready(Ok(Response::from(response.map(reqwest::Body::wrap))))
    }
}

impl<F> std::fmt::Debug for ReqwestAnswer<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReqwestAnswer").finish_non_exhaustive()
    }
}
