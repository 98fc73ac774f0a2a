//! Running a tool that a model asked for: its span, the checks before it starts, its time.

use opentelemetry::KeyValue;
use opentelemetry::trace::SpanContext;
use serde_json::Value;
use throughline_llm::ToolCall;
use throughline_trace::{SpanRole, keys};

use super::error::ToolError;
use super::tool::Tool;
use crate::agent_notes::captures_content;
use crate::content;
use crate::context_bag::{BagError, ContextBag};
use crate::metrics::{Outcome, Timed, What};
use crate::resilient::Fault as _;
use crate::span::{ActiveSpan, span};
use crate::watched::Watched;

/// Bytes of a tool's arguments or result on its span at most; the tool itself sees all of them.
pub const TOOL_CONTENT_MAX_BYTES: usize = 256 * 1024;

/// Runs a tool in a span that links to the model call that asked.
///
/// # Errors
/// [`ToolError`], also on the span.
pub(crate) async fn execute(
    tool: &dyn Tool,
    call: &ToolCall,
    asked_by: Option<&SpanContext>,
) -> Result<Value, ToolError> {
    let watched = Watched::new(tool_span(tool, call, asked_by), Some("execute_tool"));
    let span = &watched.span;
    let mut timed = span.in_scope(|| Timed::start(What::Tool, tool.id().to_string()));
    let result = span.instrument(run(tool, call, span)).await;
    timed.end(result.as_ref().err().map(ToolError::error_type));
    match &result {
        Ok(value) => {
            if captures_content() {
                set_content(span, keys::GEN_AI_TOOL_CALL_RESULT, content::result(value));
            }
            watched.tell(Outcome::Ok);
        }
        Err(error) => {
            if let Some(code) = error.code() {
                span.set(keys::ERROR_CODE, code.to_owned());
            }
            span.fail(error.error_type(), error_text(error));
            watched.tell(Outcome::of_error(error.error_type()));
        }
    }
    result
}

fn tool_span(tool: &dyn Tool, call: &ToolCall, asked_by: Option<&SpanContext>) -> ActiveSpan {
    let id = tool.id();
    let mut builder = span(format!("execute_tool {id}"))
        .role(SpanRole::Tool)
        .attribute(keys::GEN_AI_OPERATION_NAME, "execute_tool")
        .attribute(keys::GEN_AI_TOOL_NAME, id.to_string())
        .attribute(keys::GEN_AI_TOOL_TYPE, tool.tool_type().as_str())
        .attribute(keys::GEN_AI_TOOL_DESCRIPTION, tool.description().to_owned())
        .attribute(keys::AI_TOOL_USED, id.to_string());
    if !call.id.is_empty() {
        builder = builder.attribute(keys::GEN_AI_TOOL_CALL_ID, call.id.clone());
    }
    if let Some(asked_by) = asked_by {
        let mut attributes = Vec::new();
        if !call.id.is_empty() {
            attributes.push(KeyValue::new(keys::GEN_AI_TOOL_CALL_ID, call.id.clone()));
        }
        builder = builder.link(asked_by, attributes);
    }
    let span = builder.start();
    if captures_content() {
        set_content(&span, keys::GEN_AI_TOOL_CALL_ARGUMENTS, content::arguments(&call.arguments));
    }
    span
}

async fn run(tool: &dyn Tool, call: &ToolCall, span: &ActiveSpan) -> Result<Value, ToolError> {
    let arguments = call.arguments_json().map_err(|error| ToolError::InvalidArguments {
        id: tool.id().to_string(),
        got: call.arguments.clone(),
        reason: format!("expected JSON: {error}"),
    })?;
    tool.check(&arguments)?;
    let bag = ContextBag::to_send(tool.id().as_str(), tool.needs()).map_err(|error| {
        span.event("context.rejected", rejected(&error));
        ToolError::Context { id: tool.id().to_string(), error }
    })?;
    let work = tool.call(arguments);
    let result = match bag {
        Some(view) => within_time(tool, view.scope(work)).await,
        None => within_time(tool, work).await,
    }?;
    tool.check_result(&result)?;
    Ok(result)
}

async fn within_time(
    tool: &dyn Tool,
    work: impl Future<Output = Result<Value, ToolError>>,
) -> Result<Value, ToolError> {
    let after = tool.timeout();
    match tokio::time::timeout(after, work).await {
        Ok(result) => result,
        Err(_) => Err(ToolError::Timeout { id: tool.id().to_string(), after }),
    }
}

fn rejected(error: &BagError) -> Vec<KeyValue> {
    let mut attributes = vec![KeyValue::new(keys::ERROR_MESSAGE, error.to_string())];
    if let Some(field) = error.field() {
        attributes.push(KeyValue::new(keys::CONTEXT_FIELD, field.to_owned()));
    }
    attributes
}

/// The error as a span may show it: a message about arguments quotes them, and what a tool says may
/// be anything.
pub(crate) fn error_text(error: &ToolError) -> String {
    match error {
        error if captures_content() => content::text(&error.to_string()).into_owned(),
        ToolError::InvalidArguments { id, .. } => {
            format!("expected arguments that fit the schema of {id}")
        }
        ToolError::Failed(_) => "the tool failed".to_owned(),
        ToolError::Kind { kind, .. } | ToolError::Code { kind, .. } => {
            format!("the tool failed with {kind}")
        }
        ToolError::Missing { .. }
        | ToolError::Timeout { .. }
        | ToolError::Context { .. }
        | ToolError::Audit { .. } => error.to_string(),
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
