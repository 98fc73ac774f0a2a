//! What exporters send: small OTLP requests, made by hand from the protocol's own messages.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, status};
use throughline_trace::{DecisionId, SpanId, TraceId, keys};
use tonic::transport::Channel;

/// A start time: 2026-11-22T12:00:00Z, nanoseconds since the Unix epoch.
pub(crate) const NOON: u64 = 1_795_348_800_000_000_000;
const MS: u64 = 1_000_000;

pub(crate) fn text(key: &str, value: impl Into<String>) -> KeyValue {
    pair(key, any_value::Value::StringValue(value.into()))
}

pub(crate) fn int(key: &str, value: i64) -> KeyValue {
    pair(key, any_value::Value::IntValue(value))
}

pub(crate) fn double(key: &str, value: f64) -> KeyValue {
    pair(key, any_value::Value::DoubleValue(value))
}

fn pair(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

pub(crate) fn resource(service: &str) -> Resource {
    Resource { attributes: vec![text(keys::SERVICE_NAME, service)], ..Resource::default() }
}

/// A span from `from_ms` to `to_ms` after [`NOON`].
pub(crate) fn span(
    trace: TraceId,
    id: u64,
    parent: Option<u64>,
    name: &str,
    (from_ms, to_ms): (u64, u64),
    attributes: Vec<KeyValue>,
) -> Span {
    let id_bytes = |id: u64| SpanId::from_u64(id).as_bytes().to_vec();
    Span {
        trace_id: trace.as_bytes().to_vec(),
        span_id: id_bytes(id),
        parent_span_id: parent.map(id_bytes).unwrap_or_default(),
        name: name.to_owned(),
        start_time_unix_nano: NOON + from_ms * MS,
        end_time_unix_nano: NOON + to_ms * MS,
        attributes,
        ..Span::default()
    }
}

pub(crate) fn traces(service: &str, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope_spans = ScopeSpans {
        scope: Some(InstrumentationScope { name: "test".to_owned(), ..Default::default() }),
        spans,
        ..ScopeSpans::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource(service)),
            scope_spans: vec![scope_spans],
            ..ResourceSpans::default()
        }],
    }
}

pub(crate) fn logs(service: &str, log_records: Vec<LogRecord>) -> ExportLogsServiceRequest {
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(resource(service)),
            scope_logs: vec![ScopeLogs { log_records, ..ScopeLogs::default() }],
            ..ResourceLogs::default()
        }],
    }
}

/// A log record with a body.
pub(crate) fn log(trace: TraceId, span: u64, body: &str) -> LogRecord {
    LogRecord {
        time_unix_nano: NOON,
        trace_id: trace.as_bytes().to_vec(),
        span_id: SpanId::from_u64(span).as_bytes().to_vec(),
        body: text("", body).value,
        severity_number: 9,
        ..LogRecord::default()
    }
}

/// A decision, as the log event that it is on the wire.
pub(crate) fn decision(trace: TraceId, span: u64, id: DecisionId, action: &str) -> LogRecord {
    LogRecord {
        event_name: keys::DECISION_EVENT.to_owned(),
        attributes: vec![
            text(keys::DECISION_ID, id.to_string()),
            int(keys::TIMESTAMP_NS, i64::try_from(NOON).expect("before 2262")),
            text(keys::STAGE, "plan"),
            text(keys::DECISION_ACTION, action),
            text(keys::DECISION_REASON, "three cards in a minute"),
            double(keys::DECISION_CONFIDENCE, 0.83),
            text(keys::AGENT_ID, "fraud"),
            text(keys::SESSION_ID, "s-12"),
        ],
        body: None,
        ..log(trace, span, "")
    }
}

/// The little trace that most tests send: a run, a step, a model call, a tool that failed.
pub(crate) fn fraud_trace(trace: TraceId) -> ExportTraceServiceRequest {
    let agent = || text(keys::AGENT_ID, "fraud");
    let mut tool = span(
        trace,
        4,
        Some(1),
        "execute_tool geo_lookup",
        (820, 850),
        vec![
            agent(),
            text(keys::GEN_AI_OPERATION_NAME, "execute_tool"),
            text(keys::GEN_AI_TOOL_NAME, "geo_lookup"),
            text(keys::ERROR_TYPE, "TOOL_FAILED"),
        ],
    );
    tool.status = Some(Status {
        code: status::StatusCode::Error as i32,
        message: "no such place".to_owned(),
    });
    let chat = vec![
        agent(),
        text(keys::GEN_AI_OPERATION_NAME, "chat"),
        text(keys::GEN_AI_REQUEST_MODEL, "gpt-4o"),
        int(keys::GEN_AI_USAGE_INPUT_TOKENS, 1_204),
        int(keys::GEN_AI_USAGE_OUTPUT_TOKENS, 310),
        double(keys::COST_USD, 0.0061),
    ];
    let run = vec![
        agent(),
        text(keys::SESSION_ID, "s-12"),
        text(keys::GEN_AI_OPERATION_NAME, "invoke_agent"),
    ];
    traces(
        "checkout",
        vec![
            span(trace, 1, None, "invoke_agent fraud", (0, 2_310), run),
            span(trace, 2, Some(1), "fraud.plan.risk", (0, 812), vec![agent()]),
            span(trace, 3, Some(2), "chat gpt-4o", (1, 801), chat),
            tool,
        ],
    )
}

/// Sends over OTLP/gRPC.
#[derive(Clone)]
pub(crate) struct Exporter {
    traces: TraceServiceClient<Channel>,
    logs: LogsServiceClient<Channel>,
    key: Option<String>,
}

impl Exporter {
    pub(crate) async fn connect(url: &str) -> Self {
        let endpoint = Channel::from_shared(url.to_owned()).expect("a URL");
        Self::over(endpoint.connect().await.expect("connected"))
    }

    pub(crate) fn over(channel: Channel) -> Self {
        Self {
            traces: TraceServiceClient::new(channel.clone()),
            logs: LogsServiceClient::new(channel),
            key: None,
        }
    }

    pub(crate) fn with_key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(key) = &self.key {
            let value = format!("Bearer {key}").parse().expect("ASCII");
            request.metadata_mut().insert("authorization", value);
        }
        request
    }

    pub(crate) async fn send_traces(
        &mut self,
        message: ExportTraceServiceRequest,
    ) -> Result<(), tonic::Status> {
        let request = self.request(message);
        let answer = self.traces.export(request).await?.into_inner();
        assert_eq!(answer.partial_success, None, "taken whole");
        Ok(())
    }

    pub(crate) async fn send_logs(
        &mut self,
        message: ExportLogsServiceRequest,
    ) -> Result<(), tonic::Status> {
        let request = self.request(message);
        let answer = self.logs.export(request).await?.into_inner();
        assert_eq!(answer.partial_success, None, "taken whole");
        Ok(())
    }
}
