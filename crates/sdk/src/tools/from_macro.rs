//! What `#[throughline::tool]` writes its code with. Nobody else needs it.

use std::future::Future;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::ToolError;
use super::function::{FunctionTool, ToolOutput};
use super::tool_id::ToolId;

/// The tool of a function. The macro has judged the id.
pub fn made<F, A, Fut>(
    name: &str,
    version: u32,
    description: &str,
    function: F,
) -> FunctionTool<F, A>
where
    F: Fn(A) -> Fut + Send + Sync,
    A: DeserializeOwned + JsonSchema + Send,
    Fut: Future<Output: ToolOutput> + Send,
{
    FunctionTool::made(ToolId::judged(name, version), description.to_owned(), function)
}

/// A function's answer is told as what it is, if it is a [`ToolOutput`] …
pub trait IsOutput {
    /// How it is told.
    fn told_as(&self) -> AsOutput {
        AsOutput
    }
}

impl<T: ToolOutput> IsOutput for T {}

/// … and as the JSON of its value otherwise: the method of the reference is looked for later.
pub trait IsAnything {
    /// How it is told.
    fn told_as(&self) -> AsAnything {
        AsAnything
    }
}

impl<T: Serialize> IsAnything for &T {}

/// See [`IsOutput`].
#[derive(Debug)]
pub struct AsOutput;

impl AsOutput {
    /// The answer for the model.
    ///
    /// # Errors
    /// [`ToolError`], when the function failed.
    pub fn tell<T: ToolOutput>(self, answer: T) -> Result<Value, ToolError> {
        answer.into_answer()
    }
}

/// See [`IsAnything`].
#[derive(Debug)]
pub struct AsAnything;

impl AsAnything {
    /// The answer for the model.
    ///
    /// # Errors
    /// [`ToolError`], when the value is none that JSON has.
    pub fn tell<T: Serialize>(self, answer: T) -> Result<Value, ToolError> {
        Ok(serde_json::to_value(answer)?)
    }
}
