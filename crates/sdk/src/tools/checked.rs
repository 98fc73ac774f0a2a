//! A tool with its schemas compiled: what a registry keeps.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::Value;
use throughline_trace::ErrorType;

use super::error::{RegistryError, ToolError};
use super::tool::{Tool, ToolType};
use super::tool_id::ToolId;
use crate::context_bag::Need;
use crate::json_schema::{JsonSchema, Quote};

/// A tool whose schemas are compiled once.
pub(super) struct CheckedTool {
    tool: Arc<dyn Tool>,
    parameters: Value,
    arguments: JsonSchema,
    result: Option<JsonSchema>,
}

impl CheckedTool {
    /// Compiles the schemas of a tool.
    pub(super) fn new(tool: Arc<dyn Tool>) -> Result<Self, RegistryError> {
        let wrong = |part: &'static str| {
            let id = tool.id().clone();
            move |reason: String| RegistryError::Schema { id, part, reason }
        };
        let parameters = tool.parameters();
        let arguments = JsonSchema::compile(&parameters).map_err(wrong("arguments"))?;
        let result = tool.result_schema().map(|schema| JsonSchema::compile(&schema));
        let result = result.transpose().map_err(wrong("result"))?;
        Ok(Self { tool, parameters, arguments, result })
    }
}

impl Tool for CheckedTool {
    fn id(&self) -> &ToolId {
        self.tool.id()
    }

    fn description(&self) -> &str {
        self.tool.description()
    }

    fn parameters(&self) -> Value {
        self.parameters.clone()
    }

    fn result_schema(&self) -> Option<Value> {
        self.tool.result_schema()
    }

    fn needs(&self) -> &[Need] {
        self.tool.needs()
    }

    fn tool_type(&self) -> ToolType {
        self.tool.tool_type()
    }

    fn address(&self) -> Option<String> {
        self.tool.address()
    }

    fn timeout(&self) -> Duration {
        self.tool.timeout()
    }

    fn check(&self, arguments: &Value) -> Result<(), ToolError> {
        judge_arguments(self.id(), &self.arguments, arguments)
    }

    fn check_result(&self, result: &Value) -> Result<(), ToolError> {
        match &self.result {
            Some(schema) => judge_result(self.id(), schema, result),
            None => Ok(()),
        }
    }

    fn call(&self, arguments: Value) -> BoxFuture<'_, Result<Value, ToolError>> {
        self.tool.call(arguments)
    }
}

/// Compiles the schema and judges arguments by it.
pub(super) fn check_arguments(
    id: &ToolId,
    schema: &Value,
    arguments: &Value,
) -> Result<(), ToolError> {
    let wrong = |reason| RegistryError::Schema { id: id.clone(), part: "arguments", reason };
    judge_arguments(id, &JsonSchema::compile(schema).map_err(wrong)?, arguments)
}

/// Compiles the schema and judges a result by it.
pub(super) fn check_result(id: &ToolId, schema: &Value, result: &Value) -> Result<(), ToolError> {
    let wrong = |reason| RegistryError::Schema { id: id.clone(), part: "result", reason };
    judge_result(id, &JsonSchema::compile(schema).map_err(wrong)?, result)
}

fn judge_arguments(id: &ToolId, schema: &JsonSchema, arguments: &Value) -> Result<(), ToolError> {
    schema.check(arguments, Quote::Values).map_err(|reason| ToolError::InvalidArguments {
        id: id.to_string(),
        got: arguments.to_string(),
        reason,
    })
}

fn judge_result(id: &ToolId, schema: &JsonSchema, result: &Value) -> Result<(), ToolError> {
    schema.check(result, Quote::Values).map_err(|reason| {
        let text = format!("expected {id} to answer with what its result schema says: {reason}");
        ToolError::kind(ErrorType::InvalidResponse, text)
    })
}
