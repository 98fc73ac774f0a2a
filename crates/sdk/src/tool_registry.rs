//! The tool registry: `register` and `lookup` are spans `tool.registry.{tool_id}`, running a tool is
//! a span `execute_tool {tool}` linked to the model call that asked (requirement R4.1).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use opentelemetry::trace::SpanContext;
use serde_json::Value;
use throughline_llm::ToolCall;
use throughline_trace::{ErrorType, SpanRole, keys};

use crate::agent_notes::{self, captures_content};
use crate::metrics::RegistryCall;
use crate::resilient::Fault as _;
use crate::span::{ActiveSpan, span};
use crate::tool::{Tool, ToolError, ToolId};

/// Bytes of a tool's arguments or result on its span at most; the tool itself sees all of them.
pub const TOOL_CONTENT_MAX_BYTES: usize = 256 * 1024;

/// Why a tool was not registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a new tool id, got {0}, which is registered; give the new tool another version")]
pub struct AlreadyRegistered(pub ToolId);

/// Tools by id. Clones share them.
#[derive(Clone, Default)]
pub struct ToolRegistry {
    tools: Arc<RwLock<BTreeMap<ToolId, Arc<dyn Tool>>>>,
}

impl ToolRegistry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tool.
    ///
    /// # Errors
    /// [`AlreadyRegistered`] when there is one of that id; the registry is unchanged then.
    pub fn register(&self, tool: impl Tool + 'static) -> Result<(), AlreadyRegistered> {
        let id = tool.id().clone();
        observe(id.as_str(), "register", || {
            let mut tools = self.tools.write().unwrap_or_else(PoisonError::into_inner);
            if tools.contains_key(&id) {
                return Observed {
                    result: "duplicate",
                    failure: Some((ErrorType::InvalidRequest, format!("{id} is registered"))),
                    value: Err(AlreadyRegistered(id.clone())),
                };
            }
            tools.insert(id.clone(), Arc::new(tool));
            Observed { result: "registered", failure: None, value: Ok(()) }
        })
    }

    /// [`register`](Self::register), for chaining.
    ///
    /// # Errors
    /// [`AlreadyRegistered`].
    pub fn with(self, tool: impl Tool + 'static) -> Result<Self, AlreadyRegistered> {
        self.register(tool)?;
        Ok(self)
    }

    /// The tool of an id (`web_search_v2`), or of a name alone its highest version.
    pub fn lookup(&self, id: &str) -> Option<Arc<dyn Tool>> {
        observe(id, "lookup", || {
            let tools = self.tools.read().unwrap_or_else(PoisonError::into_inner);
            let exact = id.parse::<ToolId>().ok().and_then(|id| tools.get(&id));
            let newest =
                || tools.iter().rev().find(|(known, _)| known.name() == id).map(|(_, tool)| tool);
            match exact.or_else(newest).cloned() {
                Some(tool) => Observed { result: "found", failure: None, value: Some(tool) },
                None => Observed {
                    result: "missing",
                    failure: Some((
                        ErrorType::ToolMissing,
                        format!("no tool {id:?} is registered"),
                    )),
                    value: None,
                },
            }
        })
    }

    /// The ids of all tools, in order.
    pub fn ids(&self) -> Vec<ToolId> {
        self.tools.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// All tools as a chat request describes them to the model.
    pub fn definitions(&self) -> Vec<throughline_llm::Tool> {
        let tools = self.tools.read().unwrap_or_else(PoisonError::into_inner);
        tools
            .values()
            .map(|tool| throughline_llm::Tool {
                name: tool.id().to_string(),
                description: tool.description().to_owned(),
                parameters: tool.parameters(),
                is_strict: false,
            })
            .collect()
    }

    /// Looks up and runs the tool that a model asked for. The span links to the model call that
    /// asked, where that is known: within an agent run it is.
    ///
    /// # Errors
    /// [`ToolError`], also on the span.
    pub async fn execute(&self, call: &ToolCall) -> Result<Value, ToolError> {
        self.execute_for(call, agent_notes::asked_by(&call.id).as_ref()).await
    }

    /// [`execute`](Self::execute), saying which span asked.
    ///
    /// # Errors
    /// [`ToolError`], also on the span.
    pub async fn execute_for(
        &self,
        call: &ToolCall,
        asked_by: Option<&SpanContext>,
    ) -> Result<Value, ToolError> {
        let Some(tool) = self.lookup(&call.name) else {
            let known = self.ids().iter().map(ToString::to_string).collect();
            return Err(ToolError::Missing { id: call.name.clone(), known });
        };
        let span = tool_span(tool.as_ref(), call, asked_by);
        let result = span.instrument(run(tool.as_ref(), call)).await;
        match &result {
            Ok(value) => {
                if captures_content() {
                    set_content(&span, keys::GEN_AI_TOOL_CALL_RESULT, value.to_string());
                }
            }
            Err(error) => span.fail(error.error_type(), error_text(error)),
        }
        result
    }
}

impl fmt::Debug for ToolRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.ids().iter().map(ToolId::as_str)).finish()
    }
}

fn tool_span(tool: &dyn Tool, call: &ToolCall, asked_by: Option<&SpanContext>) -> ActiveSpan {
    let id = tool.id();
    let mut builder = span(format!("execute_tool {id}"))
        .role(SpanRole::Tool)
        .attribute(keys::GEN_AI_OPERATION_NAME, "execute_tool")
        .attribute(keys::GEN_AI_TOOL_NAME, id.to_string())
        .attribute(keys::GEN_AI_TOOL_TYPE, "function")
        .attribute(keys::GEN_AI_TOOL_DESCRIPTION, tool.description().to_owned())
        .attribute(keys::AI_TOOL_USED, id.to_string());
    if !call.id.is_empty() {
        builder = builder.attribute(keys::GEN_AI_TOOL_CALL_ID, call.id.clone());
    }
    if let Some(asked_by) = asked_by {
        builder = builder.link(asked_by, Vec::new());
    }
    let span = builder.start();
    if captures_content() {
        set_content(&span, keys::GEN_AI_TOOL_CALL_ARGUMENTS, call.arguments.clone());
    }
    span
}

async fn run(tool: &dyn Tool, call: &ToolCall) -> Result<Value, ToolError> {
    let arguments = call.arguments_json().map_err(|error| ToolError::InvalidArguments {
        id: tool.id().to_string(),
        got: call.arguments.clone(),
        reason: error.to_string(),
    })?;
    let after = tool.timeout();
    match tokio::time::timeout(after, tool.call(arguments)).await {
        Ok(result) => result,
        Err(_) => Err(ToolError::Timeout { id: tool.id().to_string(), after }),
    }
}

/// The error as a span may show it: a message about arguments quotes them, and what a tool says may
/// be anything.
pub(crate) fn error_text(error: &ToolError) -> String {
    match error {
        error if captures_content() => error.to_string(),
        ToolError::InvalidArguments { id, .. } => {
            format!("expected arguments that fit the schema of {id}")
        }
        ToolError::Failed(_) => "the tool failed".to_owned(),
        ToolError::Kind { kind, .. } => format!("the tool failed with {kind}"),
        ToolError::Missing { .. } | ToolError::Timeout { .. } => error.to_string(),
    }
}

/// Puts text on a span, cut at a character when it is too long, which is then said.
fn set_content(span: &ActiveSpan, key: &'static str, mut text: String) {
    if text.len() > TOOL_CONTENT_MAX_BYTES {
        let bytes = i64::try_from(text.len()).unwrap_or(i64::MAX);
        text.truncate(text.floor_char_boundary(TOOL_CONTENT_MAX_BYTES));
        span.set(keys::TRUNCATED_BYTES, bytes);
    }
    span.set(key, text);
}

/// What came of a request to the registry.
struct Observed<T> {
    result: &'static str,
    failure: Option<(ErrorType, String)>,
    value: T,
}

/// Runs a request to the registry within its span, and measures it.
fn observe<T>(id: &str, method: &'static str, work: impl FnOnce() -> Observed<T>) -> T {
    let span = span(format!("tool.registry.{id}"))
        .role(SpanRole::Registry)
        .attribute(keys::COMPONENT, "tool-registry")
        .attribute(keys::METHOD, method)
        .start();
    let started = Instant::now();
    let observed = span.in_scope(work);
    let call = RegistryCall {
        method,
        result: observed.result,
        is_success: observed.failure.is_none(),
        duration: started.elapsed(),
    };
    call.record();
    span.set("result", observed.result);
    if let Some((kind, message)) = observed.failure {
        span.fail(kind, message);
    }
    observed.value
}
