//! The pages and the API over a real store in a scratch directory.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod api;
mod audit;
mod continuity;
mod contract;
mod description;
mod doors;
mod fixtures;
mod gateway;
mod pages;
mod signals;
mod sql;
mod store;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use futures_util::StreamExt as _;
use prometheus_client::registry::Registry;
use throughline_store::{AuditKeys, AuditLog, ReadLog, Store, StoreOptions};
use throughline_trace::access::{Keyring, Scope};
use throughline_web::{WebState, loopback_hosts, router};
use tokio::sync::watch;
use tower::ServiceExt as _;

/// A time in the recent past, so that filters by time have something to find.
fn recent_ns() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_nanos() as u64 - 60_000 * fixtures::MS
}

/// Longest that a test waits for a live event before it fails.
const LISTEN_LIMIT: std::time::Duration = std::time::Duration::from_secs(20);

/// A whole site over an empty store.
struct Site {
    store: Store,
    app: Router,
    audit: AuditLog,
    reads: ReadLog,
    keyring: Arc<Keyring>,
    readiness: watch::Sender<bool>,
    _dir: tempfile::TempDir,
}

/// What came back.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The value of a cookie that the answer sets.
    fn cookie(&self, name: &str) -> Option<String> {
        let set =
            self.headers.get_all(header::SET_COOKIE).iter().map(|value| value.to_str().unwrap());
        set.filter_map(|text| text.split(';').next()?.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
    }
}

impl Site {
    /// Access control off, as on loopback.
    fn open() -> Self {
        Self::new(Keyring::open(), loopback_hosts())
    }

    /// Keys needed.
    fn locked() -> Self {
        Self::new(Keyring::required(), None)
    }

    fn new(keyring: Keyring, allowed_hosts: Option<Vec<String>>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut registry = Registry::default();
        let store = Store::open(StoreOptions::new(dir.path()), &mut registry).unwrap();
        let audit = AuditLog::new(dir.path(), AuditKeys::default());
        let reads = ReadLog::start(audit.clone(), 365, &mut registry).unwrap();
        let inbox = store.inbox();
        let (readiness, ready) = watch::channel(true);
        let keyring = Arc::new(keyring);
        let app = router(WebState {
            reader: store.reader(),
            audit: audit.clone(),
            reads: reads.clone(),
            submit: Arc::new(move |batch| {
                let inbox = inbox.clone();
                Box::pin(async move { inbox.commit(batch).await })
            }),
            governance: signals::view(throughline_store::Governance::open(dir.path()).unwrap()),
            gateway: Arc::new(gateway::standing),
            committed: store.committed_sender(),
            keyring: Arc::clone(&keyring),
            cookie_secret: store.control().secret("web-cookies").unwrap(),
            registry: Arc::new(registry),
            ready,
            is_tls: false,
            version: "0.0.0-test".to_owned(),
            allowed_hosts,
            otlp_http_url: "http://127.0.0.1:4318".to_owned(),
            otlp_grpc_url: "http://127.0.0.1:4317".to_owned(),
        });
        Self { store, app, audit, reads, keyring, readiness, _dir: dir }
    }

    /// A new key with these scopes, live at once.
    fn key(&self, scopes: &[Scope]) -> (String, String) {
        let (text, key) = self.store.control().create_key("test", scopes).unwrap();
        self.reload_keys();
        (text, key.id)
    }

    fn reload_keys(&self) {
        self.keyring.replace(self.store.control().load_keyring().unwrap());
    }

    /// Keeps contracts that were proposed.
    fn propose(&self, names: &[&str]) {
        use throughline_govern::contract::{CONTRACT_KIND, Contract, Step, Terms};
        let governance = throughline_store::Governance::open(self._dir.path()).unwrap();
        for name in names {
            let spec = serde_json::json!({
                "consumer": "shop", "provider": "inventory", "when": "true",
                "expect": "response.latency_ms < 150", "objective": 0.99,
            });
            let step = Step::Propose(Terms::read(name, &spec).unwrap(), None);
            let contract = Contract::new(name).step(step, None, ("ada", 1)).unwrap().0;
            let body = serde_json::to_string(&contract).unwrap();
            governance.write_document(CONTRACT_KIND, name, 0, "ada", &body).unwrap();
        }
    }

    async fn commit(&self, batch: throughline_trace::SpanBatch) {
        self.store.inbox().commit(batch).await.unwrap();
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let answer = self.answer(request).await;
        description::check(&method, &path, &answer);
        answer
    }

    /// The answer to a question, not held against the description.
    async fn send_unchecked(&self, path: &str) -> Answer {
        let request = Request::get(path).header(header::HOST, "localhost:4319");
        self.answer(request.body(Body::empty()).unwrap()).await
    }

    async fn answer(&self, request: Request<Body>) -> Answer {
        let response = self.app.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    /// Listens to a stream while `work` runs; what came until `wanted` stood in it.
    async fn listen(&self, path: &str, wanted: &str, work: impl Future<Output = ()>) -> String {
        let request = Request::get(path).header(header::HOST, "localhost:4319");
        let request = request.body(Body::empty()).unwrap();
        let response = self.app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        work.await;
        let mut frames = response.into_body().into_data_stream();
        let mut seen = String::new();
        let reading = async {
            while !seen.contains(wanted) {
                let Some(frame) = frames.next().await else { break };
                seen.push_str(std::str::from_utf8(&frame.unwrap()).unwrap());
            }
        };
        tokio::time::timeout(LISTEN_LIMIT, reading).await.unwrap();
        seen
    }

    async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[]).await
    }

    async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::get(path).header(header::HOST, "localhost:4319");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::empty()).unwrap()).await
    }

    async fn post(&self, path: &str, form: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::post(path)
            .header(header::HOST, "localhost:4319")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::from(form.to_owned())).unwrap()).await
    }
}
