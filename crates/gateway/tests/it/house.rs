//! A gateway on a real port, a plain HTTP client, and what was recorded.

use std::sync::{Arc, Mutex};

use axum::Router;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use throughline_gateway::{
    Gateway, GatewayConfig, Handover, Offer, Plan, ProviderConfig, ProviderKind, RouteConfig,
    Submit, TargetConfig,
};
use throughline_trace::access::Keyring;
use throughline_trace::{Accepted, Refusal, SpanBatch};

use crate::trees;

/// A gateway that is served.
pub(crate) struct House {
    pub(crate) gateway: Gateway,
    pub(crate) url: String,
    recorded: Arc<Mutex<SpanBatch>>,
    handover: Handover,
    pub(crate) registry: Registry,
}

/// Records on their way into memory.
struct Keeping {
    batch: Option<SpanBatch>,
    into: Arc<Mutex<SpanBatch>>,
}

impl Offer for Keeping {
    fn offer(&mut self) -> BoxFuture<'_, Result<Accepted, Refusal>> {
        let batch = self.batch.take().unwrap_or_default();
        let mut all = self.into.lock().expect("the records");
        all.spans.extend(batch.spans);
        all.decisions.extend(batch.decisions);
        Box::pin(async { Ok(Accepted::default()) })
    }

    fn is_left(&self) -> bool {
        self.batch.is_some()
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<http::HeaderMap>,
}

impl Answered {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl House {
    pub(crate) async fn open(config: &GatewayConfig) -> Self {
        Self::with_keys(config, Keyring::open()).await
    }

    pub(crate) async fn with_keys(config: &GatewayConfig, keyring: Keyring) -> Self {
        let plan = Plan::of(config, &|_| None).expect("a good configuration");
        let recorded = Arc::new(Mutex::new(SpanBatch::default()));
        let into = Arc::clone(&recorded);
        let submit: Submit = Arc::new(move |batch: SpanBatch| {
            Box::new(Keeping { batch: Some(batch), into: Arc::clone(&into) })
        });
        let mut registry = Registry::default();
        let (gateway, handover) =
            Gateway::start(plan, submit, Arc::new(keyring), &mut registry).expect("a gateway");
        let url = serve(gateway.router()).await;
        Self { gateway, url, recorded, handover, registry }
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        client.request(request).await.expect("an answer")
    }

    pub(crate) fn request(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Request<Full<Bytes>> {
        let mut request =
            Request::builder().method(Method::POST).uri(format!("{}{path}", self.url));
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Full::new(Bytes::from(body.to_owned()))).expect("a request")
    }

    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answered {
        read(self.send(self.request(path, headers, body)).await).await
    }

    /// A question to a model.
    pub(crate) async fn ask(&self, model: &str) -> Answered {
        self.post("/v1/chat/completions", &[], &question(model, false)).await
    }

    /// A question to a model, to be answered in a stream.
    pub(crate) async fn ask_stream(&self, model: &str) -> Answered {
        self.post("/v1/chat/completions", &[], &question(model, true)).await
    }

    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answered {
        let mut request = Request::get(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        read(self.send(request.body(Full::default()).expect("a request")).await).await
    }

    /// Everything that was recorded, once all of it is there.
    pub(crate) async fn records(self) -> SpanBatch {
        self.handover.finish().await;
        std::mem::take(&mut *self.recorded.lock().expect("the records"))
    }

    /// The traces as text.
    pub(crate) async fn tree(self) -> String {
        let all = self.records().await;
        trees::tree(&all.spans, &all.decisions)
    }

    pub(crate) fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).expect("metrics");
        text
    }
}

/// Serves a router on a free port.
pub(crate) async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

pub(crate) async fn read(response: Response<Incoming>) -> Answered {
    let (head, body) = response.into_parts();
    let collected = body.collect().await.expect("a whole body");
    let trailers = collected.trailers().cloned();
    Answered { status: head.status, headers: head.headers, body: collected.to_bytes(), trailers }
}

pub(crate) fn question(model: &str, is_stream: bool) -> String {
    let mut body = json!({"model": model, "messages": [{"role": "user", "content": "hi"}]});
    if is_stream {
        body["stream"] = json!(true);
    }
    body.to_string()
}

pub(crate) fn provider(name: &str, kind: ProviderKind, url: &str) -> ProviderConfig {
    ProviderConfig { base_url: Some(url.to_owned()), ..ProviderConfig::new(name, kind) }
}

/// A gateway before one provider, with quick retries.
pub(crate) fn before(url: &str) -> GatewayConfig {
    let mut config = GatewayConfig {
        providers: vec![provider("one", ProviderKind::OpenAiCompatible, url)],
        ..GatewayConfig::default()
    };
    config.policy.retry = Some(throughline_resilience::RetryPolicy {
        base_delay_ms: 1,
        max_attempts: 2,
        ..Default::default()
    });
    config
}

pub(crate) fn target(provider: &str, model: &str) -> TargetConfig {
    TargetConfig {
        provider: provider.to_owned(),
        model: Some(model.to_owned()),
        ..TargetConfig::default()
    }
}

/// The model `smart`, which falls back from one provider to another.
pub(crate) fn with_fallback(first: &str, second: &str) -> GatewayConfig {
    let mut config = before(first);
    config.providers.push(provider("two", ProviderKind::OpenAiCompatible, second));
    config.policy.retry =
        Some(throughline_resilience::RetryPolicy { max_attempts: 1, ..Default::default() });
    config.routes = vec![RouteConfig {
        model: "smart".to_owned(),
        targets: vec![target("one", "gpt-4o")],
        fallback: vec![target("two", "gpt-4o-mini")],
        ..RouteConfig::default()
    }];
    config
}
