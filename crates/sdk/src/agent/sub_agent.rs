//! An agent, here or elsewhere, as a tool of another.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Agent, Task};
use crate::tools::{Tool, ToolError, ToolId, ToolIdError};

/// How long an agent may take as a tool, when not said.
pub const AGENT_TOOL_TIMEOUT: Duration = Duration::from_secs(300);

/// What is asked of an agent that is a tool.
#[derive(Deserialize)]
struct Asked {
    task: String,
}

type Ask = Arc<dyn Fn(String) -> BoxFuture<'static, Result<Value, ToolError>> + Send + Sync>;

/// An agent as a tool: made by [`Agent::as_tool`] and [`RemoteAgent::as_tool`](crate::RemoteAgent).
/// Its argument is `task`, its result the answer.
pub struct AgentTool {
    id: ToolId,
    description: String,
    timeout: Duration,
    ask: Ask,
}

impl AgentTool {
    pub(super) fn of_agent(
        agent: Agent,
        id: &str,
        description: String,
    ) -> Result<Self, ToolIdError> {
        Self::of(id, description, move |task| {
            let agent = agent.clone();
            async move {
                let run = agent.run(Task::new(task)).await.map_err(ToolError::fault)?;
                Ok(Value::from(run.answer))
            }
        })
    }

    /// A tool that asks somebody to do a task.
    pub(crate) fn of<F, Fut>(id: &str, description: String, ask: F) -> Result<Self, ToolIdError>
    where
        F: Fn(String) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Value, ToolError>> + Send + 'static,
    {
        Ok(Self {
            id: id.parse()?,
            description,
            timeout: AGENT_TOOL_TIMEOUT,
            ask: Arc::new(move |task| Box::pin(ask(task))),
        })
    }

    /// Sets how long the agent may take; [`AGENT_TOOL_TIMEOUT`] when not said.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl Tool for AgentTool {
    fn id(&self) -> &ToolId {
        &self.id
    }

    fn description(&self) -> &str {
        &self.description
    }

    fn parameters(&self) -> Value {
        json!({
            "type": "object",
            "properties": {
                "task": { "type": "string", "description": "What to do, with all that is needed for it." },
            },
            "required": ["task"],
        })
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn call(&self, arguments: Value) -> BoxFuture<'_, Result<Value, ToolError>> {
        match Asked::deserialize(&arguments) {
            Ok(asked) => (self.ask)(asked.task),
            Err(error) => Box::pin(std::future::ready(Err(ToolError::InvalidArguments {
                id: self.id.to_string(),
                got: arguments.to_string(),
                reason: error.to_string(),
            }))),
        }
    }
}

impl fmt::Debug for AgentTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentTool").field("id", &self.id.as_str()).finish_non_exhaustive()
    }
}
