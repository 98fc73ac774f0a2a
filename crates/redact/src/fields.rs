//! Names of the places where text is, for limits of rules and for counters.

use throughline_trace::keys;

use crate::glob::Glob;

/// Fields that are no attributes, by the names that `fields` of a rule may use.
pub(crate) mod named {
    pub(crate) const SPAN_NAME: &str = "span.name";
    pub(crate) const STATUS_MESSAGE: &str = "status.message";
    pub(crate) const TRACE_STATE: &str = "trace_state";
    pub(crate) const EVENT_NAME: &str = "event.name";
    pub(crate) const LOG_BODY: &str = "log.body";
    pub(crate) const LOG_SEVERITY: &str = "log.severity";
    pub(crate) const METRIC_NAME: &str = "metric.name";
    pub(crate) const METRIC_DESCRIPTION: &str = "metric.description";
    pub(crate) const METRIC_UNIT: &str = "metric.unit";
    pub(crate) const SCOPE_NAME: &str = "scope.name";
    pub(crate) const SCOPE_VERSION: &str = "scope.version";
    pub(crate) const SCHEMA_URL: &str = "schema_url";
}

/// The word for everything that a conversation with a model may be in.
const MESSAGES: &str = "messages";

/// What the word stands for: our normal form, and the attributes of the dialects that it was made
/// of, which stay beside it.
const MESSAGE_GLOBS: &[&str] = &[
    "gen_ai.*.messages",
    "gen_ai.system_instructions",
    "gen_ai.tool.*",
    "gen_ai.task.*put",
    "gen_ai.prompt*",
    "gen_ai.completion*",
    "gen_ai.event.content",
    "gen_ai.*.message",
    "gen_ai.choice",
    "gen_ai.retrieval.*",
    "gcp.vertex.agent.data",
    "gcp.vertex.agent.llm_re*",
    "gcp.vertex.agent.tool_*",
    "llm.*messages*",
    "llm.prompt*",
    "llm.completion*",
    "llm.invocation_parameters",
    "llm.request.functions*",
    "llm.tools*",
    "tool.description",
    "tool.parameters",
    "tool.output",
    "tool_call.function.arguments",
    "embedding.embeddings*",
    "retrieval.documents*",
    "reranker.*documents*",
    "reranker.query",
    "input.value",
    "output.value",
    "traceloop.entity.*put",
    "ai.prompt*",
    "ai.response.*",
    "ai.toolcall.*",
    "ai.result.*",
    "ai.value*",
    "mlflow.chat.tools",
    "mlflow.spaninputs",
    "mlflow.spanoutputs",
    "langsmith.*put*",
    "all_messages_events",
    "pydantic_ai.all_messages",
    "model_request_parameters",
    "events",
    "final_result",
    "request_data",
    "response_data",
    "tool_arguments",
    "tool_calls",
    "tool_response",
    "tools",
    "messages",
    "prompt",
    "content",
    "message",
];

/// Whether a rule that is limited to `globs` applies to a field.
pub(crate) fn is_among(globs: &[Glob], field: &str) -> bool {
    globs.iter().any(|glob| {
        if glob.as_str() == MESSAGES {
            return MESSAGE_GLOBS.iter().any(|glob| Glob::is_match(glob, field));
        }
        glob.matches(field)
    })
}

/// Attributes that machines join by: ids, hashes, models, counts. What only looks like a telephone
/// number there is none.
pub(crate) fn is_machine_made(field: &str) -> bool {
    const EXACT: &[&str] = &[
        keys::DECISION_ID,
        keys::PARENT_DECISION_ID,
        keys::INPUT_HASH,
        keys::INPUT_HASH_KEY_ID,
        keys::INSTANCE_ID,
        keys::TIMESTAMP_NS,
        keys::SEQ,
        keys::STREAM_ID,
        keys::MODEL_NAME,
        keys::MODEL_VERSION,
        keys::MODEL_ID,
        keys::SERVICE_INSTANCE_ID,
        keys::GEN_AI_REQUEST_MODEL,
        keys::GEN_AI_RESPONSE_MODEL,
        keys::GEN_AI_RESPONSE_ID,
        keys::GEN_AI_REQUEST_PREVIOUS_RESPONSE,
        keys::GEN_AI_TOOL_CALL_ID,
        keys::JSONRPC_REQUEST_ID,
        keys::MCP_SESSION_ID,
        named::TRACE_STATE,
        named::SCOPE_VERSION,
        named::SCHEMA_URL,
        "trace_id",
        "span_id",
        "parent_id",
        "traceparent",
    ];
    match field.starts_with("throughline.") {
        true => OURS.contains(&field),
        false => {
            field.starts_with("gen_ai.usage.")
                || field.starts_with("telemetry.sdk.")
                || EXACT.contains(&field)
        }
    }
}

/// Those of our own that hold ids, hashes and numbers, by their whole names: others hold what people and
/// models said (`throughline.entities`, `throughline.attempt.message`).
const OURS: &[&str] = &[
    keys::ACTION_ID,
    keys::ATTEMPT_ERROR_CODE,
    keys::ATTEMPT_ERROR_TYPE,
    keys::BREAKER_TARGET,
    keys::CONTENT_BYTES,
    keys::CONTENT_INPUT_BYTES,
    keys::CONTENT_INPUT_LEFT_OUT,
    keys::CONTENT_INPUT_SHA256,
    keys::CONTENT_OUTPUT_BYTES,
    keys::CONTENT_OUTPUT_LEFT_OUT,
    keys::CONTENT_OUTPUT_SHA256,
    keys::CONTENT_PARTS_LEFT_OUT,
    keys::CONTENT_SHA256,
    keys::CONTENT_TOOLS_BYTES,
    keys::CONTENT_TOOLS_LEFT_OUT,
    keys::CONTENT_TOOLS_SHA256,
    keys::CONTEXT_EMBEDDING,
    keys::COST_USD,
    keys::DIRECTIVE_EVIDENCE,
    keys::DIRECTIVE_ID,
    keys::ERROR_CODE,
    keys::EVIDENCE,
    keys::FINDING,
    keys::FORECAST_ACTUAL,
    keys::FORECAST_ID,
    keys::FORECAST_VALUE,
    keys::HEDGE,
    keys::LIMIT_REQUESTS,
    keys::LIMIT_TOKENS,
    keys::MEMORY_MESSAGES,
    keys::MENDED,
    keys::PRICE_VERSION,
    keys::REDACTED,
    keys::RETRY_DELAY_MS,
    keys::ROLE,
    keys::ROUTE_GENERATION,
    keys::RUN_ID,
    keys::SAMPLING_WEIGHT,
    keys::STREAM_BYTES,
    keys::STREAM_CHUNKS,
    keys::STREAM_RESUMES,
    keys::TRUNCATED_BYTES,
    keys::TRUNCATED_HASHES,
    keys::USAGE_CACHE_WRITE_1H,
];

/// Where something was taken out: the label `field` of the counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    SpanName,
    StatusMessage,
    TraceState,
    SpanAttribute,
    Message,
    EventName,
    EventAttribute,
    LinkAttribute,
    Resource,
    Scope,
    LogBody,
    LogText,
    LogAttribute,
    Decision,
    DecisionAttribute,
    MetricText,
    MetricAttribute,
}

impl Place {
    pub(crate) const ALL: [Self; 17] = [
        Self::SpanName,
        Self::StatusMessage,
        Self::TraceState,
        Self::SpanAttribute,
        Self::Message,
        Self::EventName,
        Self::EventAttribute,
        Self::LinkAttribute,
        Self::Resource,
        Self::Scope,
        Self::LogBody,
        Self::LogText,
        Self::LogAttribute,
        Self::Decision,
        Self::DecisionAttribute,
        Self::MetricText,
        Self::MetricAttribute,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::SpanName => "span_name",
            Self::StatusMessage => "status_message",
            Self::TraceState => "trace_state",
            Self::SpanAttribute => "span_attribute",
            Self::Message => "message",
            Self::EventName => "event_name",
            Self::EventAttribute => "event_attribute",
            Self::LinkAttribute => "link_attribute",
            Self::Resource => "resource",
            Self::Scope => "scope",
            Self::LogBody => "log_body",
            Self::LogText => "log_text",
            Self::LogAttribute => "log_attribute",
            Self::Decision => "decision",
            Self::DecisionAttribute => "decision_attribute",
            Self::MetricText => "metric_text",
            Self::MetricAttribute => "metric_attribute",
        }
    }

    /// Messages are counted apart from the other attributes of a span.
    pub(crate) fn of_key(self, key: &str) -> Self {
        if self == Self::SpanAttribute && keys::MESSAGE_KEYS.contains(&key) {
            return Self::Message;
        }
        self
    }
}
