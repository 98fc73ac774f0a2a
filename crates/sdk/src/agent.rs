//! An agent: a chat model and tools in a loop of plan, act, observe and reflect, as one trace
//! (requirements R1.1, R2.5). What it perceives, may do, spends and remembers are rooms of their own.

mod acting;
mod budget;
mod builder;
mod error;
mod events;
mod human;
mod judging;
mod memory;
mod memory_file;
mod perception;
mod planning;
mod plugin;
mod policy;
mod remembering;
mod run;
mod steering;
mod sub_agent;
mod task;
mod words;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use throughline_llm::prices::PriceTable;
use throughline_llm::{ChatRequest, ChatResponse};

use crate::chat::ChatModel;
use crate::tools::{ToolIdError, ToolRegistry};

pub(crate) use budget::Ledger;
pub use budget::{Budget, BudgetLimit};
pub use builder::{AgentBuilder, MAX_PARALLEL_TOOLS, MAX_TURNS};
pub use error::AgentError;
pub use events::{AgentStream, RunEvent};
pub use human::{HUMAN_TIMEOUT, HumanAnswer, HumanGate, HumanQuestion};
pub use memory::{InMemory, Memory, MemoryError, MemoryWindow};
pub use memory_file::FileMemory;
pub use perception::{ModelPerception, Perception};
pub use plugin::{HOOK_TIMEOUT, Hook, PluginScope, TracerAware};
pub use policy::{Denial, StepAction, StepContext, StepPolicy, StepResult, Verdict};
pub use steering::{Steer, Steered};
pub use sub_agent::{AGENT_TOOL_TIMEOUT, AgentTool};
#[cfg(feature = "server")]
pub(crate) use task::Inbound;
pub use task::{AgentRun, Task};
pub(crate) use words::conversation;

/// A chat model with tools and a task to do. Clones share everything.
///
/// Wrap the model in [`Traced`](crate::Traced): the agent makes the spans of the run and its steps,
/// the model makes those of its calls.
#[derive(Clone)]
pub struct Agent {
    pub(crate) definition: Arc<Definition>,
}

/// How sure the model is, read from its answer; 0 to 1.
pub(crate) type ConfidenceOf = Arc<dyn Fn(&ChatResponse) -> Option<f64> + Send + Sync>;

/// What an agent is.
pub(crate) struct Definition {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) role: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) description: String,
    pub(crate) model: Arc<dyn ChatModel>,
    /// What every request starts from: model, instructions, sampling.
    pub(crate) request: ChatRequest,
    pub(crate) tools: ToolRegistry,
    pub(crate) max_turns: u32,
    /// Tool calls that run at once.
    pub(crate) parallel_tools: usize,
    pub(crate) is_streaming: bool,
    pub(crate) captures_content: Option<bool>,
    pub(crate) confidence: Option<ConfidenceOf>,
    pub(crate) perceiver: Option<perception::Perceiver>,
    pub(crate) policies: Vec<Arc<dyn StepPolicy>>,
    pub(crate) human: Option<Arc<dyn HumanGate>>,
    pub(crate) human_timeout: Duration,
    pub(crate) plugins: Vec<Arc<dyn TracerAware>>,
    pub(crate) memory: Option<memory::Remembered>,
    pub(crate) budget: Budget,
    pub(crate) prices: Option<Arc<PriceTable>>,
    pub(crate) steer: Option<Arc<dyn Steer>>,
}

impl Agent {
    /// An agent of this name that asks this model: `name` of `a-z`, `0-9`, `_` and `-`, since it is
    /// part of span names.
    pub fn builder(
        name: impl Into<String>,
        model: impl ChatModel + 'static,
        model_name: impl Into<String>,
    ) -> AgentBuilder {
        AgentBuilder::new(name.into(), Arc::new(model), model_name.into())
    }

    /// The agent's name.
    pub fn name(&self) -> &str {
        &self.definition.name
    }

    /// What the agent does, for people and for models that may ask it; empty when not said.
    pub fn description(&self) -> &str {
        &self.definition.description
    }

    /// The agent's version, when it was said.
    pub fn version(&self) -> Option<&str> {
        self.definition.version.as_deref()
    }

    /// Does a task: asks the model, runs the tools that it asks for, until it answers. The run is a
    /// span `invoke_agent {agent}`, its steps `{agent}.{phase}.{domain}`; what was chosen is in the
    /// decision log. A run that is dropped ends with outcome `cancelled`.
    ///
    /// # Errors
    /// [`AgentError`], also on the span of the run.
    pub async fn run(&self, task: impl Into<Task>) -> Result<AgentRun, AgentError> {
        run::run(&self.definition, task.into(), events::Events::none()).await
    }

    /// Does a task as [`run`](Self::run) does, telling what happens as it happens. The run goes on
    /// only while the stream is polled, so that it is never further than its reader; dropping the
    /// stream cancels the run. The last item is [`RunEvent::Done`] or the error.
    ///
    /// ```
    /// # use throughline::{Agent, ChatModel, RunEvent};
    /// # use futures_util::StreamExt as _;
    /// # async fn tell(model: impl ChatModel + 'static) -> Result<(), Box<dyn std::error::Error>> {
    /// let agent = Agent::builder("shop", model, "gpt-4o-mini").build()?;
    /// let mut events = agent.stream("Is item 7 there?");
    /// while let Some(event) = events.next().await {
    ///     match event? {
    ///         RunEvent::Text(delta) => print!("{delta}"),
    ///         RunEvent::Done(run) => println!(" ({} turns)", run.turns),
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub fn stream(&self, task: impl Into<Task>) -> AgentStream {
        AgentStream::begin(Arc::clone(&self.definition), task.into())
    }

    /// This agent as a tool of another: its run is a child of the tool's span, in the same session,
    /// within what is left of the other's budget, its decisions below the one that called it.
    ///
    /// # Errors
    /// [`ToolIdError`] when the id cannot be a tool's (`researcher_v1`).
    pub fn as_tool(
        &self,
        id: &str,
        description: impl Into<String>,
    ) -> Result<AgentTool, ToolIdError> {
        AgentTool::of_agent(self.clone(), id, description.into())
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("name", &self.definition.name).finish_non_exhaustive()
    }
}
