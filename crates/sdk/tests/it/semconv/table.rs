//! What the conventions say, as data: attributes with their types and values, operations with what
//! they require, instruments with units and bounds.

use opentelemetry::{Array, Value};
use throughline::SpanKind;

/// The type of an attribute's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Texts,
    Int,
    Double,
    Truth,
    /// A JSON list of messages, parts or definitions.
    List,
    /// Anything: text for most, but the conventions leave it open.
    Any,
}

impl Kind {
    pub(crate) fn fits(self, value: &Value) -> bool {
        match self {
            Self::Text => matches!(value, Value::String(text) if !text.as_str().is_empty()),
            Self::Texts => matches!(value, Value::Array(Array::String(texts)) if !texts.is_empty()),
            Self::Int => matches!(value, Value::I64(number) if *number >= 0),
            Self::Double => matches!(value, Value::F64(number) if number.is_finite()),
            Self::Truth => matches!(value, Value::Bool(_)),
            Self::List => serde_json::from_str::<Vec<serde_json::Value>>(&value.as_str()).is_ok(),
            Self::Any => true,
        }
    }
}

/// One attribute: its key, its type, and its values where they are closed.
pub(crate) type Attribute = (&'static str, Kind, &'static [&'static str]);

/// Namespaces of which every attribute must be in [`ATTRIBUTES`].
pub(crate) const NAMESPACES: [&str; 11] = [
    "gen_ai.",
    "server.",
    "http.",
    "rpc.",
    "url.",
    "mcp.",
    "network.",
    "exception.",
    "jsonrpc.",
    "client.",
    "user_agent.",
];

const OPERATION_NAMES: &[&str] = &[
    "chat",
    "generate_content",
    "text_completion",
    "embeddings",
    "retrieval",
    "create_agent",
    "invoke_agent",
    "invoke_workflow",
    "plan",
    "execute_tool",
    "create_memory",
    "update_memory",
    "upsert_memory",
    "search_memory",
    "delete_memory",
    "create_memory_store",
    "delete_memory_store",
    "fetch_response",
];
const METHODS: &[&str] = &[
    "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE",
    "_OTHER",
];
const GRPC_STATUSES: &[&str] = &[
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
const ERRORS: &[&str] = &[
    "TIMEOUT",
    "CIRCUIT_OPEN",
    "RATE_LIMITED",
    "CANCELLED",
    "CONNECTION",
    "SERVER",
    "INVALID_REQUEST",
    "AUTH",
    "INVALID_RESPONSE",
    "STREAM_FAILED",
    "POLICY_REJECTED",
    "CONTENT_FILTERED",
    "TOOL_FAILED",
    "TOOL_MISSING",
    "INVALID_ARGUMENTS",
    "FALLBACK_EXHAUSTED",
    "OVERLOADED",
    "PANIC",
    "_OTHER",
];
const OUTCOMES: &[&str] = &[
    "ok",
    "policy_rejected",
    "model_timeout",
    "timeout",
    "retry_succeeded",
    "fallback_degraded",
    "circuit_open",
    "cancelled",
    "error",
];

use Kind::{Any, Double, Int, List, Text, Texts, Truth};

/// The conventions' attributes, and those that the requirements fix.
pub(crate) const ATTRIBUTES: &[Attribute] = &[
    ("gen_ai.operation.name", Text, OPERATION_NAMES),
    ("gen_ai.provider.name", Text, &[]),
    ("gen_ai.request.model", Text, &[]),
    ("gen_ai.request.max_tokens", Int, &[]),
    ("gen_ai.request.temperature", Double, &[]),
    ("gen_ai.request.top_p", Double, &[]),
    ("gen_ai.request.top_k", Int, &[]),
    ("gen_ai.request.frequency_penalty", Double, &[]),
    ("gen_ai.request.presence_penalty", Double, &[]),
    ("gen_ai.request.stop_sequences", Texts, &[]),
    ("gen_ai.request.seed", Int, &[]),
    ("gen_ai.request.choice.count", Int, &[]),
    // Only said when it is so.
    ("gen_ai.request.stream", Truth, &["true"]),
    ("gen_ai.request.encoding_formats", Texts, &[]),
    ("gen_ai.request.reasoning.level", Text, &[]),
    ("gen_ai.request.previous_response.id", Text, &[]),
    ("gen_ai.response.id", Text, &[]),
    ("gen_ai.response.model", Text, &[]),
    ("gen_ai.response.finish_reasons", Texts, &[]),
    ("gen_ai.response.time_to_first_chunk", Double, &[]),
    ("gen_ai.usage.input_tokens", Int, &[]),
    ("gen_ai.usage.output_tokens", Int, &[]),
    ("gen_ai.usage.cache_read.input_tokens", Int, &[]),
    ("gen_ai.usage.cache_write.input_tokens", Int, &[]),
    ("gen_ai.usage.reasoning.output_tokens", Int, &[]),
    ("gen_ai.usage.text.input_tokens", Int, &[]),
    ("gen_ai.usage.text.output_tokens", Int, &[]),
    ("gen_ai.usage.audio.input_tokens", Int, &[]),
    ("gen_ai.usage.audio.output_tokens", Int, &[]),
    ("gen_ai.usage.image.input_tokens", Int, &[]),
    ("gen_ai.usage.image.output_tokens", Int, &[]),
    ("gen_ai.conversation.id", Text, &[]),
    ("gen_ai.conversation.compacted", Truth, &["true"]),
    ("gen_ai.agent.id", Text, &[]),
    ("gen_ai.agent.name", Text, &[]),
    ("gen_ai.agent.description", Text, &[]),
    ("gen_ai.agent.version", Text, &[]),
    ("gen_ai.workflow.name", Text, &[]),
    ("gen_ai.data_source.id", Text, &[]),
    ("gen_ai.output.type", Text, &["text", "json", "image", "speech"]),
    ("gen_ai.embeddings.dimension.count", Int, &[]),
    ("gen_ai.tool.name", Text, &[]),
    ("gen_ai.tool.description", Text, &[]),
    ("gen_ai.tool.type", Text, &["function", "extension", "datastore"]),
    ("gen_ai.tool.call.id", Text, &[]),
    ("gen_ai.tool.call.arguments", Any, &[]),
    ("gen_ai.tool.call.result", Any, &[]),
    ("gen_ai.tool.definitions", List, &[]),
    ("gen_ai.input.messages", List, &[]),
    ("gen_ai.output.messages", List, &[]),
    ("gen_ai.system_instructions", List, &[]),
    ("gen_ai.token.type", Text, &["input", "output"]),
    ("gen_ai.token.modality", Text, &["text", "image", "audio", "unknown"]),
    ("error.type", Text, ERRORS),
    ("server.address", Text, &[]),
    ("server.port", Int, &[]),
    ("http.request.method", Text, METHODS),
    ("http.request.method_original", Text, &[]),
    ("http.response.status_code", Int, &[]),
    ("http.route", Text, &[]),
    ("url.scheme", Text, &["http", "https"]),
    ("url.path", Text, &[]),
    ("url.full", Text, &[]),
    ("url.template", Text, &[]),
    ("rpc.system.name", Text, &["grpc"]),
    ("rpc.method", Text, &[]),
    ("rpc.response.status_code", Text, GRPC_STATUSES),
    ("network.protocol.name", Text, &[]),
    ("network.protocol.version", Text, &["1.0", "1.1", "2", "3"]),
    ("network.transport", Text, &["tcp", "udp", "pipe", "unix", "quic"]),
    ("mcp.method.name", Text, &["initialize", "tools/list", "tools/call"]),
    ("mcp.protocol.version", Text, &[]),
    ("mcp.session.id", Text, &[]),
    ("mcp.resource.uri", Text, &[]),
    ("jsonrpc.request.id", Text, &[]),
    ("exception.type", Text, &[]),
    ("exception.message", Text, &[]),
    ("exception.stacktrace", Text, &[]),
    // Of the requirements.
    ("agent_id", Text, &[]),
    ("session_id", Text, &[]),
    ("workflow_id", Text, &[]),
    ("retry_count", Int, &[]),
    ("status_code", Int, &[]),
    ("is_cached", Truth, &[]),
    ("outcome", Text, OUTCOMES),
    ("ai.phase", Text, &["plan", "act", "observe", "reflect"]),
    ("ai.tool_used", Text, &[]),
    ("ai.reasoning_trace", Text, &[]),
    ("ai.step_index", Int, &[]),
    ("ai.agent.name", Text, &[]),
    ("stream_id", Text, &[]),
    ("chunk_seq", Int, &[]),
    ("error", Truth, &["true"]),
    ("component", Text, &["tool-registry"]),
    ("method", Text, &["register", "lookup"]),
    (
        "result",
        Text,
        &[
            "found",
            "missing",
            "registered",
            "already_registered",
            "invalid",
            "not_reachable",
            "failed",
            "cancelled",
        ],
    ),
    ("fallback.decision", Text, &["triggered", "skipped"]),
    ("fallback.branch", Text, &["primary", "degraded"]),
    ("fallback.result", Text, &["success", "failed"]),
    ("throughline.cost_usd", Double, &[]),
    ("throughline.usage.estimated", Truth, &["true"]),
];

/// What an operation's span must be.
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    pub(crate) kinds: &'static [SpanKind],
    pub(crate) required: &'static [&'static str],
    /// The attribute after the operation in the span's name; `None` when the name is the operation.
    pub(crate) named_by: Option<&'static str>,
}

const MODEL: &[&str] = &["gen_ai.provider.name", "gen_ai.request.model"];
const LOCAL_OR_NOT: &[SpanKind] = &[SpanKind::Client, SpanKind::Internal];

/// The operations that the SDK knows.
pub(crate) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "chat",
        kinds: LOCAL_OR_NOT,
        required: MODEL,
        named_by: Some("gen_ai.request.model"),
    },
    Operation {
        name: "embeddings",
        kinds: &[SpanKind::Client],
        required: MODEL,
        named_by: Some("gen_ai.request.model"),
    },
    Operation {
        name: "invoke_agent",
        // The conventions name the asking side and the run in one process. A run that a service was
        // asked for is the server's side of that call.
        kinds: &[SpanKind::Client, SpanKind::Internal, SpanKind::Server],
        required: &["gen_ai.provider.name", "gen_ai.agent.name"],
        named_by: Some("gen_ai.agent.name"),
    },
    Operation {
        name: "invoke_workflow",
        kinds: &[SpanKind::Internal],
        required: &["gen_ai.workflow.name"],
        named_by: Some("gen_ai.workflow.name"),
    },
    Operation {
        name: "execute_tool",
        kinds: &[SpanKind::Internal],
        required: &["gen_ai.tool.name", "gen_ai.tool.type"],
        named_by: Some("gen_ai.tool.name"),
    },
    Operation {
        name: "search_memory",
        kinds: &[SpanKind::Client],
        required: &["gen_ai.provider.name"],
        named_by: None,
    },
    Operation {
        name: "update_memory",
        kinds: &[SpanKind::Client],
        required: &["gen_ai.provider.name"],
        named_by: None,
    },
];

/// An instrument: name, unit, bounds (none for what is no histogram), and the labels of each point.
pub(crate) type Instrument = (&'static str, &'static str, &'static [f64], &'static [&'static str]);

const DURATIONS: &[f64] =
    &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
const TOKENS: &[f64] = &[
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];
const REGISTRY: &[f64] =
    &[0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1_000.0, 5_000.0];

const AGENT_RUNS: &[f64] =
    &[0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 409.6];
const CALL_COUNTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];
const WORKFLOWS: &[f64] =
    &[1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 7_200.0];
const CALL: &[&str] = &["gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model"];
const TOKEN_TYPE: &[&str] = &["gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.token.type"];
const MODALITY: &[&str] =
    &["gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.token.modality"];

/// The instruments of model calls under the names in the wild.
pub(crate) const ESTABLISHED: &[Instrument] = &[
    ("gen_ai.client.operation.duration", "s", DURATIONS, CALL),
    ("gen_ai.client.operation.time_to_first_chunk", "s", DURATIONS, CALL),
    ("gen_ai.client.operation.time_per_output_chunk", "s", DURATIONS, CALL),
    ("gen_ai.client.token.usage", "{token}", TOKENS, TOKEN_TYPE),
];

/// The instruments of model calls under the newest names.
pub(crate) const LATEST: &[Instrument] = &[
    ("gen_ai.client.inference.duration", "s", DURATIONS, CALL),
    ("gen_ai.client.embeddings.duration", "s", DURATIONS, CALL),
    ("gen_ai.client.inference.time_to_first_chunk", "s", DURATIONS, CALL),
    ("gen_ai.client.inference.time_per_output_chunk", "s", DURATIONS, CALL),
    ("gen_ai.client.inference.usage.input_tokens", "{token}", &[], MODALITY),
    ("gen_ai.client.inference.usage.output_tokens", "{token}", &[], MODALITY),
    ("gen_ai.client.inference.usage.cache_read.input_tokens", "{token}", &[], MODALITY),
    ("gen_ai.client.inference.usage.reasoning.output_tokens", "{token}", &[], MODALITY),
    ("gen_ai.client.inference.operation.input_tokens", "{token}", TOKENS, CALL),
    ("gen_ai.client.inference.operation.output_tokens", "{token}", TOKENS, CALL),
];

/// The instruments that have one name.
pub(crate) const INSTRUMENTS: &[Instrument] = &[
    (
        "agent_operations_total",
        "",
        &[],
        &["operation", "outcome", "status_code", "model_name", "is_cached"],
    ),
    (
        "gen_ai.execute_tool.duration",
        "s",
        DURATIONS,
        &["gen_ai.operation.name", "gen_ai.tool.name"],
    ),
    (
        "gen_ai.invoke_agent.duration",
        "s",
        AGENT_RUNS,
        &["gen_ai.operation.name", "gen_ai.agent.name"],
    ),
    (
        "gen_ai.invoke_agent.inference_calls",
        "{inference_call}",
        CALL_COUNTS,
        &["gen_ai.operation.name", "gen_ai.agent.name"],
    ),
    (
        "gen_ai.invoke_agent.tool_calls",
        "{tool_call}",
        CALL_COUNTS,
        &["gen_ai.operation.name", "gen_ai.agent.name"],
    ),
    (
        "gen_ai.invoke_workflow.duration",
        "s",
        WORKFLOWS,
        &["gen_ai.operation.name", "gen_ai.workflow.name"],
    ),
    ("tool_registry_latency_ms", "ms", REGISTRY, &["method", "status"]),
    ("tool_registry_calls_total", "", &[], &["method", "result"]),
    ("throughline_breaker_state", "", &[], &["target"]),
    ("throughline_breaker_transitions_total", "", &[], &["target", "state"]),
];

/// The labels that any series may have besides its own.
pub(crate) const LABELS: &[&str] = &[
    "agent_id",
    "workflow_id",
    "session_id",
    "ab_test_group",
    "error.type",
    "gen_ai.response.model",
    "gen_ai.request.model",
    "gen_ai.token.modality",
];
