//! What a tool is to everything that uses one.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::Value;

use super::checked;
use super::error::ToolError;
use super::tool_id::ToolId;
use crate::context_bag::Need;

/// How long a tool may run when it does not say otherwise.
pub const TOOL_TIMEOUT: Duration = Duration::from_secs(60);

/// What kind of thing a tool is: `gen_ai.tool.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ToolType {
    /// Code that the agent runs.
    #[default]
    Function,
    /// A service that the agent calls.
    Extension,
    /// A store of data that the agent asks.
    Datastore,
}

impl ToolType {
    /// The value of the attribute.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Extension => "extension",
            Self::Datastore => "datastore",
        }
    }
}

/// Something that a model may ask for. Usually made with [`tool`](crate::tool()).
pub trait Tool: Send + Sync {
    /// Name and version.
    fn id(&self) -> &ToolId;

    /// What the tool does, for the model.
    fn description(&self) -> &str;

    /// JSON Schema of the arguments: an object. A `$schema` in it says which draft it is.
    fn parameters(&self) -> Value;

    /// JSON Schema of the result, where the tool says one.
    fn result_schema(&self) -> Option<Value> {
        None
    }

    /// The fields of the caller's [`ContextBag`](crate::ContextBag) that the tool needs. It is given
    /// these and no others.
    fn needs(&self) -> &[Need] {
        &[]
    }

    /// What kind of thing the tool is.
    fn tool_type(&self) -> ToolType {
        ToolType::Function
    }

    /// Where the tool can be called over HTTP, if it can: what a registry elsewhere is told.
    fn address(&self) -> Option<String> {
        None
    }

    /// How long the tool may run.
    fn timeout(&self) -> Duration {
        TOOL_TIMEOUT
    }

    /// Judges arguments by the schema, before the tool starts. A registry keeps the schema compiled.
    ///
    /// # Errors
    /// [`ToolError::InvalidArguments`], which names each problem's place, what was expected and what
    /// came.
    fn check(&self, arguments: &Value) -> Result<(), ToolError> {
        checked::check_arguments(self.id(), &self.parameters(), arguments)
    }

    /// Judges the result by its schema, where there is one.
    ///
    /// # Errors
    /// [`ToolError::Kind`] of `INVALID_RESPONSE`.
    fn check_result(&self, result: &Value) -> Result<(), ToolError> {
        match self.result_schema() {
            Some(schema) => checked::check_result(self.id(), &schema, result),
            None => Ok(()),
        }
    }

    /// Runs the tool. Called within the tool's span, with the tool's view of the caller's
    /// [`ContextBag`](crate::ContextBag) current.
    ///
    /// # Errors
    /// [`ToolError::InvalidArguments`] when the arguments do not fit, anything else when it fails.
    fn call(&self, arguments: Value) -> BoxFuture<'_, Result<Value, ToolError>>;
}

impl<T: Tool + ?Sized> Tool for Arc<T> {
    fn id(&self) -> &ToolId {
        (**self).id()
    }

    fn description(&self) -> &str {
        (**self).description()
    }

    fn parameters(&self) -> Value {
        (**self).parameters()
    }

    fn result_schema(&self) -> Option<Value> {
        (**self).result_schema()
    }

    fn needs(&self) -> &[Need] {
        (**self).needs()
    }

    fn tool_type(&self) -> ToolType {
        (**self).tool_type()
    }

    fn address(&self) -> Option<String> {
        (**self).address()
    }

    fn timeout(&self) -> Duration {
        (**self).timeout()
    }

    fn check(&self, arguments: &Value) -> Result<(), ToolError> {
        (**self).check(arguments)
    }

    fn check_result(&self, result: &Value) -> Result<(), ToolError> {
        (**self).check_result(result)
    }

    fn call(&self, arguments: Value) -> BoxFuture<'_, Result<Value, ToolError>> {
        (**self).call(arguments)
    }
}
