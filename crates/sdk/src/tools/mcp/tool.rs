//! One tool of an MCP server.

use std::time::Duration;

use futures_util::future::BoxFuture;
use opentelemetry::Context;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, CallToolResult, CancelledNotification,
    CancelledNotificationParam, ClientRequest, MetaObject, RequestId, RequestMetaObject,
    ServerResult,
};
use rmcp::service::PeerRequestOptions;
use rmcp::{Peer, RoleClient};
use serde_json::{Map, Value};
use throughline_trace::{ErrorType, keys};

use super::server::{McpError, McpServer};
use crate::agent_notes::captures_content;
use crate::context_bag::{ContextBag, Need};
use crate::propagation;
use crate::resilient::Fault as _;
use crate::span::ActiveSpan;
use crate::tools::error::ToolError;
use crate::tools::error_text;
use crate::tools::tool::{Tool, ToolType};
use crate::tools::tool_id::ToolId;

const METHOD: &str = "tools/call";

/// A tool of an [`McpServer`], which lists them.
///
/// A call is a span `tools/call {name}`; its trace and baggage are in `_meta` (SEP-414), what the
/// server's tools were declared to need in `_meta["throughline/context"]`. A call that is given up is
/// cancelled at the server.
#[derive(Debug, Clone)]
pub struct McpTool {
    server: McpServer,
    id: ToolId,
    name: String,
    description: String,
    parameters: Value,
    result: Option<Value>,
}

impl McpTool {
    pub(super) fn new(server: McpServer, id: ToolId, listed: rmcp::model::Tool) -> Self {
        let description = listed.description.or(listed.title.map(Into::into)).unwrap_or_default();
        Self {
            server,
            id,
            name: listed.name.into_owned(),
            description: description.into_owned(),
            parameters: Value::Object((*listed.input_schema).clone()),
            result: listed.output_schema.map(|schema| Value::Object((*schema).clone())),
        }
    }

    /// The name that the server knows the tool by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What tells this description of the tool from another.
    pub(super) fn fingerprint(&self) -> blake3::Hash {
        let described =
            serde_json::json!([self.name, self.description, self.parameters, self.result]);
        blake3::hash(described.to_string().as_bytes())
    }

    async fn ask(&self, arguments: Value) -> Result<Value, ToolError> {
        let span = self
            .server
            .span(METHOD, format!("{METHOD} {}", self.name))
            .attribute(keys::GEN_AI_OPERATION_NAME, "execute_tool")
            .attribute(keys::GEN_AI_TOOL_NAME, self.name.clone())
            .start();
        let result = span.instrument(self.request(arguments, &span)).await;
        if let Err(error) = &result {
            if let Some(code) = error.code() {
                span.set(keys::ERROR_CODE, code.to_owned());
            }
            span.fail(error.error_type(), error_text(error));
        }
        result
    }

    async fn request(&self, arguments: Value, span: &ActiveSpan) -> Result<Value, ToolError> {
        let mut params = CallToolRequestParams::new(self.name.clone());
        if let Value::Object(arguments) = arguments {
            params = params.with_arguments(arguments);
        }
        let mut options = PeerRequestOptions::no_options();
        options.meta = Some(RequestMetaObject(MetaObject(self.meta()?)));
        let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
        let peer = self.server.peer().await.map_err(failed)?;
        let handle = match peer.send_cancellable_request(request, options).await {
            Ok(handle) => handle,
            Err(error) => return Err(failed(self.server.failure(METHOD, &error))),
        };
        let id = handle.id.clone();
        span.set(keys::JSONRPC_REQUEST_ID, id.to_string());
        let mut guard = CancelOnDrop { peer, id: Some(id) };
        let answered = handle.await_response().await;
        guard.id = None;
        match answered {
            Ok(ServerResult::CallToolResult(result)) => self.answer(result),
            Ok(ServerResult::InputRequiredResult(_)) => Err(ToolError::kind(
                ErrorType::InvalidResponse,
                format!("expected an answer from {}, got a question to the user", self.id),
            )),
            Ok(ServerResult::CreateTaskResult(_)) => Err(ToolError::kind(
                ErrorType::InvalidResponse,
                format!("expected an answer from {}, got a task to wait for", self.id),
            )),
            Ok(_) => Err(ToolError::kind(
                ErrorType::InvalidResponse,
                format!("expected the result of a tool from {}, got another", self.id),
            )),
            Err(error) => Err(failed(self.server.failure(METHOD, &error))),
        }
    }

    fn meta(&self) -> Result<Map<String, Value>, ToolError> {
        let mut meta = Map::new();
        propagation::inject_meta(&Context::current(), &mut meta);
        let context = |error| ToolError::Context { id: self.id.to_string(), error };
        if let Some(bag) = ContextBag::to_send(self.id.as_str(), self.needs()).map_err(context)? {
            bag.inject_meta(&mut meta).map_err(context)?;
        }
        Ok(meta)
    }

    fn answer(&self, result: CallToolResult) -> Result<Value, ToolError> {
        let texts: Vec<&str> = result
            .content
            .iter()
            .filter_map(|block| block.as_text())
            .map(|text| text.text.as_str())
            .collect();
        if result.is_error == Some(true) {
            let said =
                if texts.is_empty() { "the tool failed".to_owned() } else { texts.join("\n") };
            let (kind, code) = (ErrorType::ToolFailed, "tool_error".to_owned());
            return Err(ToolError::Code { kind, code, message: said });
        }
        if let Some(structured) = result.structured_content {
            return Ok(structured);
        }
        if texts.len() == result.content.len() {
            return Ok(Value::String(texts.join("\n")));
        }
        Ok(serde_json::to_value(&result.content)?)
    }
}

/// An error of the server as the tool's own.
fn failed(error: McpError) -> ToolError {
    let shown =
        if captures_content() { error.to_string() } else { format!("{} failed", error.method) };
    match error.code {
        Some(code) => ToolError::Code { kind: error.kind, code, message: shown },
        None => ToolError::kind(error.kind, shown),
    }
}

impl Tool for McpTool {
    fn id(&self) -> &ToolId {
        &self.id
    }

    fn description(&self) -> &str {
        &self.description
    }

    fn parameters(&self) -> Value {
        self.parameters.clone()
    }

    fn result_schema(&self) -> Option<Value> {
        self.result.clone()
    }

    fn needs(&self) -> &[Need] {
        self.server.needs()
    }

    fn tool_type(&self) -> ToolType {
        ToolType::Extension
    }

    fn timeout(&self) -> Duration {
        self.server.timeout()
    }

    fn call(&self, arguments: Value) -> BoxFuture<'_, Result<Value, ToolError>> {
        Box::pin(self.ask(arguments))
    }
}

/// Tells the server that nobody waits any more, when the call is dropped.
struct CancelOnDrop {
    peer: Peer<RoleClient>,
    id: Option<RequestId>,
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        let (Some(id), Ok(runtime)) = (self.id.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let peer = self.peer.clone();
        let reason = Some("the caller gave up".to_owned());
        let params = CancelledNotificationParam::new(Some(id), reason);
        let word = async move {
            // A server that is gone needs no word.
            let _ = peer.send_notification(CancelledNotification::new(params).into()).await;
        };
        crate::task::spawn_on(word, &runtime);
    }
}
