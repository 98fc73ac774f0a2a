//! One trace from prompt to fallback, for agents written in Rust.
//!
//! [`Telemetry`] sets traces, metrics and logs up; [`span`] makes the spans that everything here is
//! built from; [`Dimensions`] say whose they are; [`decision`] records what was chosen and why. On
//! these stand [`Traced`] chat models ([`OpenAi`] or your own [`ChatModel`]), tools ([`tool`],
//! [`ToolRegistry`]), [`Fallback`] and the [`Agent`] that puts them together; [`propagation`] carries
//! a trace over HTTP, [`Recorder`] shows it to tests.
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
pub mod propagation;

mod agent;
mod agent_notes;
mod agent_run;
mod attempt;
mod chat;
mod decision;
mod dimensions;
mod export;
mod fallback;
mod fallback_model;
mod http_client;
mod instrument;
mod layer;
mod log_layer;
mod logs;
mod providers;
mod recorder;
mod resilient;
mod run;
mod span;
mod step;
mod stream;
mod telemetry;
mod telemetry_builder;
mod telemetry_otlp;
mod telemetry_pipeline;
mod tool;
mod tool_registry;
mod traced;
mod watched;
mod workflow;

pub use agent::{Agent, AgentBuilder, AgentError, AgentRun, MAX_TURNS, Task};
pub use agent_notes::captures_content;
pub use chat::{ChatError, ChatModel, ChatStream, Endpoint};
pub use decision::{DecisionBuilder, decision};
pub use dimensions::Dimensions;
pub use export::{Counts, SignalCounts};
pub use fallback::{Answered, Fallback, FallbackError};
pub use fallback_model::FallbackModel;
pub use instrument::{InContext, Instrumented, Running, in_context};
pub use layer::{SdkTracer, SpanFilter, SpanLayer, layer, layer_at};
pub use log_layer::log_layer;
pub use logs::{StdoutLogs, json_layer};
pub use metrics::Outcome;
pub use opentelemetry::trace::SpanKind;
pub use providers::{OPENAI_BASE_URL, OpenAi, OpenAiBuilder, OpenAiError};
pub use recorder::Recorder;
pub use resilient::{Fault, Resilience, ResilientError};
pub use span::{ActiveSpan, SpanBuilder, span};
pub use step::{StepBuilder, step};
pub use stream::DEFAULT_IDLE_TIMEOUT;
pub use telemetry::{SHUTDOWN_TIMEOUT, ShutdownError, Telemetry, TelemetryError};
pub use telemetry_builder::TelemetryBuilder;
pub use telemetry_otlp::OtlpProtocol;
pub use throughline_llm as llm;
pub use throughline_resilience as resilience;
pub use throughline_trace::{
    DecisionId, ErrorType, Phase, SpanRole, StepName, StepNameError, keys,
};
pub use tool::{
    FunctionTool, Json, TOOL_ID_MAX_CHARS, TOOL_TIMEOUT, Tool, ToolError, ToolId, ToolIdError,
    ToolOutput, tool,
};
pub use tool_registry::{AlreadyRegistered, TOOL_CONTENT_MAX_BYTES, ToolRegistry};
pub use traced::Traced;
pub use workflow::{Workflow, workflow};

/// Holds the examples of the guide to what the SDK is.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/sdk.md")]
struct Guide;
