//! Requests to send, a server to send them to, and batches as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prometheus_client::registry::Registry;
use prost::Message;
use throughline_ingest::{Encoding, Ingest, IngestOptions, Limits, Report, Signal, Submit, decode};
use throughline_redact::{Redacted, Redactor};
use throughline_trace::access::Keyring;
use throughline_trace::{Accepted, Attributes, Refusal, SpanBatch};
use tower::ServiceExt as _;

/// 2026-11-22T12:00:00Z, nanoseconds since the Unix epoch: when requests of these tests arrive.
pub(crate) const RECEIVED: u64 = 1_795_348_800_000_000_000;

/// A good time for a span to start: a second before [`RECEIVED`].
pub(crate) const START: u64 = RECEIVED - 1_000_000_000;

pub(crate) fn value(value: any_value::Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

pub(crate) fn text(text: &str) -> AnyValue {
    value(any_value::Value::StringValue(text.to_owned()))
}

pub(crate) fn attribute(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

pub(crate) fn resource() -> Option<Resource> {
    let attributes = vec![attribute("service.name", text("shop"))];
    Some(Resource { attributes, ..Resource::default() })
}

fn scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope { name: "tests".into(), ..InstrumentationScope::default() })
}

/// A span without fault.
pub(crate) fn span(id: u8, name: &str) -> Span {
    Span {
        trace_id: vec![0xaa; 16],
        span_id: vec![id; 8],
        name: name.to_owned(),
        kind: 1,
        start_time_unix_nano: START,
        end_time_unix_nano: START + 5_000_000,
        ..Span::default()
    }
}

pub(crate) fn traces(spans: Vec<Span>) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: resource(),
            scope_spans: vec![ScopeSpans { scope: scope(), spans, ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }],
    }
}

pub(crate) fn logs(log_records: Vec<LogRecord>) -> ExportLogsServiceRequest {
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: resource(),
            scope_logs: vec![ScopeLogs { scope: scope(), log_records, ..ScopeLogs::default() }],
            ..ResourceLogs::default()
        }],
    }
}

/// What [`Submit`] of a test server does with a batch.
pub(crate) type Answer = Arc<dyn Fn(&SpanBatch) -> Result<Accepted, Refusal> + Send + Sync>;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) registry: Registry,
    batches: Arc<Mutex<Vec<SpanBatch>>>,
}

impl Server {
    /// Serves both receivers on one port; what is accepted is kept for the test to see.
    pub(crate) async fn start(options: IngestOptions, keyring: Keyring, answer: Answer) -> Self {
        let batches = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&batches);
        let submit: Submit = Arc::new(move |batch: Redacted| {
            let batch = batch.into_batch();
            let result = answer(&batch);
            if result.is_ok() {
                kept.lock().unwrap().push(batch);
            }
            Box::pin(async move { result })
        });
        let mut registry = Registry::default();
        let ingest = Ingest::new(
            options,
            Arc::new(Redactor::off()),
            submit,
            Arc::new(keyring),
            &mut registry,
        );
        // One port here; `cli` has one for each.
        let address = serve(by_content_type(ingest.http_router(), ingest.grpc_router())).await;
        Self { address, registry, batches }
    }

    /// A server of gRPC alone, which takes everything.
    pub(crate) async fn open_grpc() -> Self {
        let mut registry = Registry::default();
        let submit: Submit = Arc::new(|_| Box::pin(async { Ok(Accepted::default()) }));
        let keyring = Arc::new(Keyring::open());
        let ingest = Ingest::new(
            IngestOptions::default(),
            Arc::new(Redactor::off()),
            submit,
            keyring,
            &mut registry,
        );
        Self { address: serve(ingest.grpc_router()).await, registry, batches: Arc::default() }
    }

    /// A server that takes everything.
    pub(crate) async fn open() -> Self {
        Self::start(IngestOptions::default(), Keyring::open(), accept_all()).await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn batches(&self) -> Vec<SpanBatch> {
        self.batches.lock().unwrap().clone()
    }

    pub(crate) fn span_names(&self) -> Vec<String> {
        self.batches().into_iter().flat_map(|batch| batch.spans).map(|span| span.name).collect()
    }

    /// The value of one counter as `/metrics` would show it; 0 when it is not there.
    pub(crate) fn counter(&self, line: &str) -> f64 {
        counter(&self.registry, line)
    }
}

pub(crate) fn counter(registry: &Registry, line: &str) -> f64 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    let value = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().unwrap())
}

/// A client of HTTP; it wants TLS to be set up, though nothing here uses it.
pub(crate) fn client() -> reqwest::ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
}

pub(crate) async fn serve(router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

fn by_content_type(http: Router, grpc: Router) -> Router {
    Router::new().fallback(move |request: axum::extract::Request| {
        let content_type = request.headers().get("content-type");
        let is_grpc =
            content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        let router = if is_grpc { grpc.clone() } else { http.clone() };
        async move { router.oneshot(request).await }
    })
}

pub(crate) fn accept_all() -> Answer {
    Arc::new(|batch| {
        Ok(Accepted {
            spans: batch.spans.len() as u64,
            logs: batch.logs.len() as u64,
            decisions: batch.decisions.len() as u64,
            metrics: batch.metrics.len() as u64,
            ..Accepted::default()
        })
    })
}

pub(crate) fn refuse(refusal: Refusal) -> Answer {
    Arc::new(move |_| Err(refusal.clone()))
}

/// Waits until `holds`; a test that waits in vain fails.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .unwrap_or_else(|_| panic!("{what}"));
}

/// What `message` decodes to as protobuf, as text.
pub(crate) fn protobuf(signal: Signal, message: &impl Message) -> String {
    within(&Limits::default(), signal, message)
}

/// As [`protobuf`], within other limits.
pub(crate) fn within(limits: &Limits, signal: Signal, message: &impl Message) -> String {
    let body = message.encode_to_vec();
    let decoded = decode(signal, Encoding::Protobuf, &body, limits, RECEIVED).unwrap();
    to_text(&decoded.batch, &decoded.report)
}

/// What `body` decodes to as JSON, as text; the error if it does not.
pub(crate) fn json(signal: Signal, body: &str) -> String {
    match decode(signal, Encoding::Json, body.as_bytes(), &Limits::default(), RECEIVED) {
        Ok(decoded) => to_text(&decoded.batch, &decoded.report),
        Err(error) => error.to_string(),
    }
}

/// A batch and what was wrong with it, as text.
pub(crate) fn to_text(batch: &SpanBatch, report: &Report) -> String {
    let mut out = String::new();
    for span in &batch.spans {
        let parent = span.parent_span_id.map_or("root".to_owned(), |id| format!("parent {id}"));
        let _ = writeln!(
            out,
            "span {:?} {}/{} {parent} {} {}+{} {} {:?}",
            span.name,
            span.trace_id,
            span.span_id,
            span.kind.as_str(),
            time(span.start_unix_nano),
            span.duration_nano(),
            span.status.code.as_str(),
            span.status.message,
        );
        attributes(&mut out, "  ", &span.attributes, span.dropped_attributes_count);
        for event in &span.events {
            let _ = writeln!(out, "  event {:?} {}", event.name, time(event.time_unix_nano));
            attributes(&mut out, "    ", &event.attributes, event.dropped_attributes_count);
        }
        if span.dropped_events_count > 0 {
            let _ = writeln!(out, "  events dropped: {}", span.dropped_events_count);
        }
        for link in &span.links {
            let _ = writeln!(out, "  link {}/{}", link.trace_id, link.span_id);
            attributes(&mut out, "    ", &link.attributes, link.dropped_attributes_count);
        }
        if span.dropped_links_count > 0 {
            let _ = writeln!(out, "  links dropped: {}", span.dropped_links_count);
        }
    }
    for log in &batch.logs {
        let _ = writeln!(
            out,
            "log {:?} {} seen {} {} {:?} {:?} {}",
            log.event_name,
            time(log.time_unix_nano),
            time(log.observed_unix_nano),
            log.severity.as_str(),
            log.trace_id,
            log.span_id,
            log.body.to_json(),
        );
        attributes(&mut out, "  ", &log.attributes, log.dropped_attributes_count);
    }
    for decision in &batch.decisions {
        let _ = writeln!(out, "decision {}", serde_json::to_string(decision).unwrap());
    }
    for point in &batch.metrics {
        let _ = writeln!(
            out,
            "point {:?} [{}] {:?} {} {:?}",
            point.name,
            point.unit,
            point.kind,
            time(point.time_unix_nano),
            point.value,
        );
        attributes(&mut out, "  ", &point.attributes, 0);
    }
    if !report.is_clean() {
        let problems: BTreeMap<_, _> =
            report.problems().map(|(problem, count)| (problem.as_str(), count)).collect();
        let _ = writeln!(
            out,
            "rejected {} mended {} truncated {} {problems:?}\n{}",
            report.rejected,
            report.mended,
            report.truncated,
            report.message()
        );
    }
    out
}

fn attributes(out: &mut String, indent: &str, attributes: &Attributes, dropped: u32) {
    for (key, value) in attributes.iter() {
        let _ = writeln!(out, "{indent}{key} = {}", value.to_json());
    }
    if dropped > 0 {
        let _ = writeln!(out, "{indent}attributes dropped: {dropped}");
    }
}

/// Relative to [`RECEIVED`], for people: `received`, `received-1s`.
fn time(unix_nano: u64) -> String {
    let diff = i128::from(unix_nano) - i128::from(RECEIVED);
    match diff {
        0 => "received".to_owned(),
        nano if nano.abs() < 3_600_000_000_000 => {
            format!("received{:+}ms", nano as f64 / 1e6)
        }
        _ => format!("at {unix_nano}"),
    }
}
