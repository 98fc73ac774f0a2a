//! What `#[throughline::tool]` writes its code with. Nobody else needs it.

use std::future::Future;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use throughline_trace::ErrorType;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use super::error::ToolError;
use super::function::{FunctionTool, ToolOutput};
use super::tool_id::ToolId;
use crate::task;

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

/// What a function that is not async answers, run on a thread for blocking work in the surroundings
/// of this call. One that has not begun when nobody waits any more does not begin; a panic goes on
/// here.
///
/// # Errors
/// What the function failed with, or the runtime was shut down before it began.
pub async fn blocking(
    work: impl FnOnce() -> Result<Value, ToolError> + Send + 'static,
) -> Result<Value, ToolError> {
    if Handle::try_current().is_err() {
        // Somebody else's executor: there are no such threads.
        return work();
    }
    match AbortOnDropHandle::new(task::spawn_blocking(work)).await {
        Ok(answer) => answer,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => {
                let text = "expected the tool to run, got the end of the runtime before it began";
                Err(ToolError::kind(ErrorType::Cancelled, text))
            }
        },
    }
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
