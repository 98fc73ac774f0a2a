//! One trace from prompt to fallback, for agents written in Rust.
//!
//! [`Telemetry`] sets traces, metrics and logs up; [`span`] makes the spans that everything here is
//! built from; [`Dimensions`] say whose they are; [`decision`] records what was chosen and why. On
//! these stand [`Traced`] chat models ([`OpenAi`], [`OpenAiResponses`], [`Anthropic`] or your own
//! [`ChatModel`]), [`TracedEmbeddings`], a [`Router`] over several models, tools ([`tool()`],
//! [`macro@tool`], [`ToolRegistry`]), [`Fallback`] and the [`Agent`] that puts them together. [`propagation`] and [`middleware`] carry a
//! trace over processes, [`task`] over tasks and threads; [`Recorder`] shows it to tests.
//!
//! One invariant: a span that was started is ended and exported, or counted
//! ([`Telemetry::counts`]), also when its future is dropped or its task panics; and nothing here
//! blocks or panics the host.
//!
//! ```
//! use throughline::{Dimensions, Recorder, SpanKind, Telemetry, span};
//!
//! let recorder = Recorder::new(); // in production: Telemetry::builder().service_name("shop").init()
//! let telemetry = Telemetry::builder().recorder(&recorder).build()?;
//! {
//!     let _in = telemetry.enter();
//!     let _as = Dimensions::new().agent("shop").session("s-1").enter();
//!     let call = span("GET /stock").kind(SpanKind::Client).start();
//!     call.in_scope(|| throughline::decision("act").action("order").confidence(0.9).record());
//! }
//! assert_eq!(recorder.tree(&["agent_id"]), "GET /stock agent_id=shop\n");
//! # Ok::<(), throughline::TelemetryError>(())
//! ```

pub mod metrics;
pub mod middleware;
mod panic_stack;
pub mod propagation;
pub mod stream;
pub mod task;
pub mod telling;

mod agent;
mod agent_notes;
mod call;
mod call_attributes;
mod call_event;
mod chat;
mod content;
mod context_bag;
mod decision;
mod dimensions;
mod embedding;
mod export;
mod fallback;
mod http_client;
mod instrument;
mod json_schema;
mod layer;
mod layer_company;
mod layer_untold;
mod log_layer;
mod logs;
mod made_by;
mod model_guard;
mod private_file;
mod providers;
mod recorder;
mod remote;
mod resilient;
mod routing;
#[cfg(feature = "server")]
mod serve;
mod span;
mod steering;
mod step;
mod telemetry;
mod telemetry_builder;
mod telemetry_decisions;
mod telemetry_directives;
mod telemetry_otlp;
mod telemetry_pipeline;
mod token_count;
mod tools;
mod traced;
mod traced_embeddings;
mod tracer;
mod watched;
mod work_scope;
mod workflow;

pub use agent::{
    AGENT_TOOL_TIMEOUT, Agent, AgentBuilder, AgentError, AgentRun, AgentStream, AgentTool, Budget,
    BudgetLimit, Denial, FileMemory, HOOK_TIMEOUT, HUMAN_TIMEOUT, Hook, HumanAnswer, HumanGate,
    HumanQuestion, InMemory, MAX_PARALLEL_TOOLS, MAX_TURNS, Memory, MemoryError, MemoryWindow,
    ModelPerception, Perception, PluginScope, RunEvent, Steer, Steered, StepAction, StepContext,
    StepPolicy, StepResult, Task, TracerAware, Verdict,
};
pub use agent_notes::captures_content;
pub use chat::{ChatError, ChatModel, ChatStream, Endpoint};
pub use content::{CONTENT_MAX_BYTES, ContentCapture, MaskContent, Redactor};
pub use context_bag::{
    BagError, BagField, BagSchema, CONTEXT_BAG_ENV, CONTEXT_BAG_FORM, CONTEXT_BAG_HEADER,
    CONTEXT_BAG_MAX_BYTES, CONTEXT_BAG_MAX_FIELDS, CONTEXT_BAG_META_KEY, CONTEXT_BAG_VERSION,
    ContextBag, Need, Sensitivity, SourceLayer,
};
pub use decision::{
    AUDIT_TIMEOUT, Audit, AuditError, DECISION_SPOOL_MAX_BYTES, DecisionBuilder,
    INPUT_HASH_KEY_MIN_BYTES, SpoolCounts, current_decision, decision,
};
pub use dimensions::Dimensions;
pub use embedding::EmbeddingModel;
pub use export::{Counts, SignalCounts};
pub use fallback::{
    Answered, DegradedSwitch, Fallback, FallbackError, FallbackModel, LimitReached,
};
/// What the methods of the traits here return, so that a type of yours can have them without another
/// dependency.
pub use futures_util::future::BoxFuture;
pub use instrument::{InContext, Instrumented, Running, in_context};
pub use layer::{Bridge, SpanFilter, SpanLayer, layer, layer_at};
pub use log_layer::log_layer;
pub use logs::{StdoutLogs, json_layer};
pub use metrics::Outcome;
pub use opentelemetry::trace::SpanKind;
pub use providers::{
    ANTHROPIC_BASE_URL, Anthropic, AnthropicBuilder, ChatCompletions, ClientBuilder, ClientError,
    Form, Messages, ModelClient, OPENAI_BASE_URL, OpenAi, OpenAiBuilder, OpenAiError,
    OpenAiResponses, OpenAiResponsesBuilder, Responses,
};
pub use recorder::Recorder;
pub use remote::{RemoteAgent, RemoteError, RemoteEvent, RemoteRun, RemoteStream};
pub use resilient::{BreakerReport, Fault, Resilience, ResilientError, breakers};
pub use routing::{
    AbGroup, AbTest, Experiment, RouteHints, RouteTo, Router, RouterBuilder, RouterError,
    RoutingTags, ab_test,
};
#[cfg(feature = "server")]
pub use serve::{
    AgentServer, AgentServerBuilder, BACKGROUND_TTL, DRAIN_TIMEOUT, MAX_BACKGROUND_RUNS, MAX_RUNS,
    REQUEST_MAX_BYTES, RUN_TIME_LIMIT, SERVE_ADDRESS, ServeError, serve_agent,
};
pub use span::{ActiveSpan, SpanBuilder, span};
pub use steering::{MAX_DIRECTIVES, Steering, SteeringError, Told};
pub use step::{StepBuilder, step};
pub use stream::{CutStream, DEFAULT_IDLE_TIMEOUT, StreamPosition, TracedChunk};
pub use telemetry::{SHUTDOWN_TIMEOUT, ShutdownError, Telemetry, TelemetryError};
pub use telemetry_builder::TelemetryBuilder;
pub use telemetry_otlp::OtlpProtocol;
pub use throughline_llm as llm;
pub use throughline_llm::{ChatRequest, ChatResponse, Chunk, Message, ToolCall};
/// Makes a tool of a function: `#[throughline::tool(id = "stock_v1")]` on `async fn stock` (or a
/// plain `fn`) puts `stock_tool()` beside it, which makes the [`Tool`]. The function stays as it is.
///
/// - The doc comment is the description (or `description = "…"`), those of the parameters describe
///   them; `Option` and `#[default(…)]` make one optional; `#[serde(…)]` and `#[schemars(…)]` work as
///   on a field. A field that is not a parameter is refused.
/// - A [`ContextBag`] or [`Dimensions`] parameter (`&` or owned) is injected and no part of the
///   schema; `needs(…)` names the fields of the bag that the tool needs, `wants(…)` those that it
///   starts without.
/// - A `#[state]` parameter is given once, to the maker: `#[state] store: &Store` makes
///   `stock_tool(store: Arc<Store>)`.
/// - `timeout_secs = 5` is the time it may take; `name = …` another name for the maker.
/// - A plain `fn` runs on a thread for blocking work ([`task::spawn_blocking`]), in the trace and
///   context of its call: it may read files and calculate. When its time is over the caller goes on,
///   the function does too, until it returns. An `async fn` runs where its caller does, and is not to
///   block.
/// - The function answers with anything that serialises, or with a `Result` of it.
///
/// ```
/// use std::sync::Arc;
/// use throughline::{ContextBag, Tool, ToolError, ToolRegistry};
///
/// struct Warehouse { boxes: u32 }
///
/// /// How many of an item there are.
/// #[throughline::tool(id = "stock_v1", wants(user_timezone))]
/// async fn stock(
///     /// The item's number.
///     item: u32,
///     /// Where to look; everywhere when not said.
///     shelf: Option<String>,
///     context: &ContextBag,
///     #[state] warehouse: &Warehouse,
/// ) -> Result<u32, ToolError> {
///     let _zone = context.get("user_timezone");
///     if item == 0 { Err("there is no item 0".into()) } else { Ok(warehouse.boxes) }
/// }
///
/// let tools = ToolRegistry::new().with(stock_tool(Arc::new(Warehouse { boxes: 12 })))?;
/// assert_eq!(tools.definitions()[0].description, "How many of an item there are.");
/// # Ok::<(), throughline::RegistryError>(())
/// ```
///
/// The id is judged when it is compiled:
///
/// ```compile_fail
/// /// Has no version.
/// #[throughline::tool(id = "stock")]
/// fn stock(item: u32) -> u32 { item }
/// ```
pub use throughline_macros::tool;
pub use throughline_resilience as resilience;
pub use throughline_trace::{
    DecisionId, Directive, DirectiveAck, DirectiveAction, DirectiveStatus, DirectiveTarget,
    ErrorType, Phase, RetryJitter, RetryStrategy, RouteTarget, RouteWeights, RouteWeightsError,
    SpanRole, StepName, StepNameError, keys,
};
pub use tokio_util::sync::CancellationToken;
#[cfg(feature = "grpc")]
pub use tools::GrpcTool;
pub use tools::{
    FunctionTool, HTTP_TOOL_MAX_BYTES, HttpRegistry, HttpTool, HttpToolError, Json,
    ObservedRegistry, REGISTRY_TIMEOUT, Registry, RegistryError, SUBPROCESS_STDERR_TAIL_BYTES,
    SUBPROCESS_STDOUT_MAX_BYTES, SubprocessTool, TOOL_CONTENT_MAX_BYTES, TOOL_ID_MAX_CHARS,
    TOOL_TIMEOUT, TemplateError, Tool, ToolError, ToolId, ToolIdError, ToolOutput, ToolRegistry,
    ToolType, tool,
};
#[cfg(feature = "mcp")]
pub use tools::{
    MCP_CONNECT_TIMEOUT, MCP_INHERITED_VARIABLES, McpBuilder, McpError, McpServer, McpSync, McpTool,
};
#[cfg(feature = "server")]
pub use tools::{TOOL_SERVICE_MAX_BYTES, ToolService};
pub use traced::Traced;
pub use traced_embeddings::TracedEmbeddings;
pub use tracer::{SdkSpan, SdkTracer};
pub use workflow::{Workflow, workflow};

/// For the code that the macros write.
#[doc(hidden)]
pub mod __private {
    pub use schemars;
    pub use serde;

    pub use crate::tools::from_macro::*;
}

/// Holds the examples of the guide to what the SDK is.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/sdk.md")]
struct Guide;
