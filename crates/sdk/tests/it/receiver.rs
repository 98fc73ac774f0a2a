//! A receiver of OTLP on 127.0.0.1, on a runtime of its own, that keeps what it gets as text.

use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::serve::Listener;
use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

/// What came, a line each: `trace NAME`, `log EVENT`, `metric NAME`, `key …`, `resource KEY=VALUE`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Received {
    lines: Arc<Mutex<Vec<String>>>,
    metrics: Arc<Mutex<Vec<Metric>>>,
    logs: Arc<Mutex<Vec<LogRecord>>>,
    spans: Arc<Mutex<Vec<Span>>>,
    rejected: Arc<AtomicI64>,
}

impl Received {
    /// Answers over gRPC say from now on that so many items were not taken of each request.
    pub(crate) fn reject(&self, items: i64) {
        self.rejected.store(items, Ordering::Release);
    }

    fn rejected(&self) -> Option<i64> {
        Some(self.rejected.load(Ordering::Acquire)).filter(|items| *items != 0)
    }

    fn note(&self, line: String) {
        self.lines.lock().expect("lines").push(line);
    }

    /// All different lines, sorted.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = self.lines.lock().expect("lines").clone();
        lines.sort();
        lines.dedup();
        lines
    }

    /// Every metric as it came.
    pub(crate) fn kept_metrics(&self) -> Vec<Metric> {
        self.metrics.lock().expect("metrics").clone()
    }

    /// Every log record as it came.
    pub(crate) fn kept_logs(&self) -> Vec<LogRecord> {
        self.logs.lock().expect("logs").clone()
    }

    /// Every span as it came.
    pub(crate) fn kept_spans(&self) -> Vec<Span> {
        self.spans.lock().expect("spans").clone()
    }

    /// Whether exactly this line came.
    pub(crate) fn has(&self, line: &str) -> bool {
        self.lines().iter().any(|came| came == line)
    }

    /// Whether the header says that what follows is compressed, which is noted.
    fn encoding(&self, headers: &HeaderMap, name: &str) -> bool {
        let said = headers.get(name).and_then(|value| value.to_str().ok());
        let said = said.filter(|name| *name != "identity");
        said.into_iter().for_each(|name| self.note(format!("encoding {name}")));
        said.is_some()
    }

    fn key(&self, key: Option<&str>) {
        self.note(format!("key {}", key.unwrap_or("none")));
    }

    fn resource(&self, resource: Option<&Resource>) {
        for entry in resource.iter().flat_map(|resource| &resource.attributes) {
            if entry.key.starts_with("service.name") || entry.key.starts_with("deployment") {
                let value = entry.value.as_ref().and_then(|value| value.value.as_ref());
                self.note(format!("resource {}={value:?}", entry.key));
            }
        }
    }

    fn traces(&self, request: &ExportTraceServiceRequest) {
        for group in &request.resource_spans {
            self.resource(group.resource.as_ref());
            for span in group.scope_spans.iter().flat_map(|scope| &scope.spans) {
                self.note(format!("trace {}", span.name));
                self.spans.lock().expect("spans").push(span.clone());
            }
        }
    }

    fn logs(&self, request: &ExportLogsServiceRequest) {
        for group in &request.resource_logs {
            for record in group.scope_logs.iter().flat_map(|scope| &scope.log_records) {
                self.note(format!(
                    "log {}{}",
                    record.event_name,
                    if record.event_name.is_empty() { &record.severity_text } else { "" }
                ));
                self.logs.lock().expect("logs").push(record.clone());
            }
        }
    }

    fn metrics(&self, request: &ExportMetricsServiceRequest) {
        for group in &request.resource_metrics {
            for metric in group.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
                self.note(format!("metric {}", metric.name));
                self.metrics.lock().expect("metrics").push(metric.clone());
            }
        }
    }
}

/// An attribute as text, `-` when there is none.
pub(crate) fn shown(attributes: &[KeyValue], key: &str) -> String {
    let value = attributes.iter().find(|entry| entry.key == key);
    match value.and_then(|entry| entry.value.clone()?.value) {
        None => "-".to_owned(),
        Some(Value::StringValue(text)) => text,
        Some(Value::BoolValue(truth)) => truth.to_string(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(other) => format!("{other:?}"),
    }
}

fn key_of(metadata: &MetadataMap) -> Option<&str> {
    metadata.get("authorization").and_then(|value| value.to_str().ok())
}

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.key(key_of(request.metadata()));
        self.encoding(request.metadata().as_ref(), "grpc-encoding");
        self.traces(request.get_ref());
        let error_message = "no room for these".to_owned();
        let partial_success = self
            .rejected()
            .map(|rejected_spans| ExportTracePartialSuccess { rejected_spans, error_message });
        Ok(Response::new(ExportTraceServiceResponse { partial_success }))
    }
}

#[tonic::async_trait]
impl LogsService for Received {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.encoding(request.metadata().as_ref(), "grpc-encoding");
        self.logs(request.get_ref());
        let error_message = "no room for these".to_owned();
        let partial_success = self.rejected().map(|rejected_log_records| {
            ExportLogsPartialSuccess { rejected_log_records, error_message }
        });
        Ok(Response::new(ExportLogsServiceResponse { partial_success }))
    }
}

#[tonic::async_trait]
impl MetricsService for Received {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.encoding(request.metadata().as_ref(), "grpc-encoding");
        self.metrics(request.get_ref());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

async fn over_http(
    State(received): State<Received>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> &'static str {
    received.key(headers.get("authorization").and_then(|value| value.to_str().ok()));
    let body = match received.encoding(&headers, "content-encoding") {
        true => {
            let mut plain = Vec::new();
            GzDecoder::new(&*body).read_to_end(&mut plain).expect("gzip");
            plain.into()
        }
        false => body,
    };
    match uri.path() {
        "/v1/traces" => received.traces(&ExportTraceServiceRequest::decode(body).expect("traces")),
        "/v1/logs" => received.logs(&ExportLogsServiceRequest::decode(body).expect("logs")),
        "/v1/metrics" => {
            received.metrics(&ExportMetricsServiceRequest::decode(body).expect("metrics"));
        }
        other => received.note(format!("unknown path {other}")),
    }
    ""
}

/// An address where nobody listens: connections are refused. The port is kept for the life of the
/// process, since exporters go on after their test, and would reach the server of another.
pub(crate) fn nobody() -> SocketAddr {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    let address = socket.local_addr().expect("an address");
    std::mem::forget(socket);
    address
}

/// An address that takes connections and never answers, for the life of the process.
pub(crate) fn mute() -> SocketAddr {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("an address");
    std::mem::forget(socket);
    address
}

/// Serves what `app` makes, on a free port and a thread of its own, for as long as the process lives.
pub(crate) fn serve(app: impl FnOnce() -> axum::Router + Send + 'static) -> SocketAddr {
    serve_over(|tcp| tcp, app)
}

/// [`serve`], with the connections that `listen` makes of those of TCP.
fn serve_over<L: Listener<Addr = SocketAddr>>(
    listen: impl FnOnce(TcpListener) -> L + Send + 'static,
    app: impl FnOnce() -> axum::Router + Send + 'static,
) -> SocketAddr {
    let (bound, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async move {
            let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            bound.send(tcp.local_addr().expect("an address")).expect("a waiting test");
            axum::serve(listen(tcp), app()).await.expect("served");
        });
    });
    address.recv().expect("a server")
}

/// Starts a receiver of gRPC and HTTP on a free port; it lives as long as the process.
pub(crate) fn start() -> (SocketAddr, Received) {
    let received = Received::default();
    let served = received.clone();
    (serve(move || routes(served)), received)
}

/// [`start`], with TLS as this server has it.
pub(crate) fn start_tls(tls: rustls::ServerConfig) -> (SocketAddr, Received) {
    let received = Received::default();
    let served = received.clone();
    (serve_tls(tls, move || routes(served)), received)
}

/// [`serve`], with TLS as this server has it.
pub(crate) fn serve_tls(
    tls: rustls::ServerConfig,
    app: impl FnOnce() -> axum::Router + Send + 'static,
) -> SocketAddr {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    serve_over(|tcp| OverTls { tcp, acceptor }, app)
}

fn routes(served: Received) -> axum::Router {
    let gzip = CompressionEncoding::Gzip;
    let traces = TraceServiceServer::new(served.clone()).accept_compressed(gzip);
    let grpc = tonic::service::Routes::new(traces)
        .add_service(LogsServiceServer::new(served.clone()).accept_compressed(gzip))
        .add_service(MetricsServiceServer::new(served.clone()).accept_compressed(gzip))
        .prepare()
        .into_axum_router();
    let http = axum::Router::new()
        .route("/v1/{signal}", axum::routing::post(over_http))
        .with_state(served);
    grpc.merge(http)
}

/// Connections whose handshake succeeded; the others are of nobody's concern here.
struct OverTls {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for OverTls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (stream, from) = Listener::accept(&mut self.tcp).await;
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}
