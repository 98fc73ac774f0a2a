//! How an agent is described.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use throughline_llm::prices::PriceTable;
use throughline_llm::{ChatRequest, ChatResponse, Message};
use throughline_trace::{Phase, StepName};

use super::human::{HUMAN_TIMEOUT, HumanGate};
use super::memory::{Memory, MemoryWindow, Remembered};
use super::perception::{ModelPerception, Perceiver, Perception};
use super::plugin::TracerAware;
use super::policy::StepPolicy;
use super::steering::Steer;
use super::{Agent, AgentError, Budget, Definition};
use crate::chat::ChatModel;
use crate::tools::ToolRegistry;

/// How often an agent may ask its model in one run, when the builder does not say.
pub const MAX_TURNS: u32 = 8;

/// How many tools of one plan run at once, when the builder does not say.
pub const MAX_PARALLEL_TOOLS: usize = 8;

/// Describes an [`Agent`].
#[must_use = "an agent is made with `build`"]
pub struct AgentBuilder {
    definition: Definition,
}

impl AgentBuilder {
    pub(super) fn new(name: String, model: Arc<dyn ChatModel>, model_name: String) -> Self {
        Self {
            definition: Definition {
                id: name.clone(),
                name,
                role: None,
                version: None,
                description: String::new(),
                model,
                request: ChatRequest::new(model_name),
                tools: ToolRegistry::new(),
                max_turns: MAX_TURNS,
                parallel_tools: MAX_PARALLEL_TOOLS,
                is_streaming: false,
                captures_content: None,
                confidence: None,
                perceiver: None,
                policies: Vec::new(),
                human: None,
                human_timeout: HUMAN_TIMEOUT,
                plugins: Vec::new(),
                memory: None,
                budget: Budget::none(),
                prices: None,
                steer: None,
            },
        }
    }

    /// `agent_id`, where it is not the name.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.definition.id = id.into();
        self
    }

    /// `agent_role`, for logs.
    pub fn role(mut self, role: impl Into<String>) -> Self {
        self.definition.role = Some(role.into());
        self
    }

    /// Version of the agent; of its decisions too, as `model_version`.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.definition.version = Some(version.into());
        self
    }

    /// What the agent does, for people and for models that may ask it.
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.definition.description = text.into();
        self
    }

    /// Instructions that every run begins with.
    pub fn instructions(mut self, text: impl Into<String>) -> Self {
        self.definition.request = self.definition.request.system(text);
        self
    }

    /// Changes what every request starts from: temperature, longest answer, …
    pub fn request(mut self, change: impl FnOnce(ChatRequest) -> ChatRequest) -> Self {
        self.definition.request = change(self.definition.request);
        self
    }

    /// The tools that the model may ask for.
    pub fn tools(mut self, tools: ToolRegistry) -> Self {
        self.definition.tools = tools;
        self
    }

    /// How often the model may be asked in one run; [`MAX_TURNS`] when not said, at least 1.
    pub fn max_turns(mut self, turns: u32) -> Self {
        self.definition.max_turns = turns.max(1);
        self
    }

    /// How many tools of one plan run at once; [`MAX_PARALLEL_TOOLS`] when not said, at least 1. The
    /// order of their results is that of the plan in any case, and one that fails ends no other.
    pub fn parallel_tools(mut self, most: usize) -> Self {
        self.definition.parallel_tools = most.max(1);
        self
    }

    /// What one run may spend; all of it when not said. See [`Budget`].
    pub fn budget(mut self, budget: Budget) -> Self {
        self.definition.budget = budget;
        self
    }

    /// Prices other than the built-in list, for budgets and [`AgentRun::cost_usd`](crate::AgentRun).
    pub fn prices(mut self, prices: PriceTable) -> Self {
        self.definition.prices = Some(Arc::new(prices));
        self
    }

    /// Perceives before it plans, by asking the model what a task is about ([`ModelPerception`]).
    pub fn perceive(mut self, how: ModelPerception) -> Self {
        self.definition.perceiver = Some(Perceiver::Model(how));
        self
    }

    /// Perceives before it plans, with a function of the conversation. A failure of it is on the
    /// step's span; the run goes on without.
    ///
    /// ```
    /// # use throughline::{Agent, AgentBuilder, Perception};
    /// # fn describe(builder: AgentBuilder) -> AgentBuilder {
    /// builder.perceive_with(|messages| async move {
    ///     let asks = messages.last().map(|message| message.joined_text()).unwrap_or_default();
    ///     if asks.contains("refund") { Ok(Perception::new("refund")) } else { Err("no known intent") }
    /// })
    /// # }
    /// ```
    pub fn perceive_with<F, Fut, E>(mut self, function: F) -> Self
    where
        F: Fn(Vec<Message>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Perception, E>> + Send + 'static,
        E: Display,
    {
        self.definition.perceiver = Some(Perceiver::function(function));
        self
    }

    /// Adds a policy that is asked before and after each step; all of them must allow it.
    pub fn policy(mut self, policy: impl StepPolicy + 'static) -> Self {
        self.definition.policies.push(Arc::new(policy));
        self
    }

    /// Where a policy's question to a human goes. Without a gate the answer is no.
    pub fn human_gate(mut self, gate: impl HumanGate + 'static) -> Self {
        self.definition.human = Some(Arc::new(gate));
        self
    }

    /// How long a human is waited for; [`HUMAN_TIMEOUT`] when not said. Then the answer is no.
    pub fn human_timeout(mut self, limit: Duration) -> Self {
        self.definition.human_timeout = limit;
        self
    }

    /// Adds a plugin. Only what is [`TracerAware`] can be one.
    pub fn plugin(mut self, plugin: impl TracerAware + 'static) -> Self {
        self.definition.plugins.push(Arc::new(plugin));
        self
    }

    /// Remembers what was said in a session; tasks without a session are not remembered. A memory
    /// that fails is on its span, and the run goes on without.
    pub fn memory(mut self, memory: impl Memory + 'static, window: MemoryWindow) -> Self {
        self.definition.memory =
            Some(Remembered { memory: Arc::new(memory), window, is_required: false });
        self
    }

    /// [`memory`](Self::memory) that the agent must not go on without: its failure is that of the
    /// run ([`AgentError::Memory`]).
    pub fn required_memory(mut self, memory: impl Memory + 'static, window: MemoryWindow) -> Self {
        self.definition.memory =
            Some(Remembered { memory: Arc::new(memory), window, is_required: true });
        self
    }

    /// Asks this between steps whether the run may go on.
    pub fn steer(mut self, steer: impl Steer + 'static) -> Self {
        self.definition.steer = Some(Arc::new(steer));
        self
    }

    /// Whether answers are asked for as streams.
    pub fn streaming(mut self, wanted: bool) -> Self {
        self.definition.is_streaming = wanted;
        self
    }

    /// Whether the task, the answer, the model's reasons and what tools are asked and say are
    /// recorded: on the spans of the run, its steps, tools and model calls, and in its decisions.
    /// When not said, as the model says ([`ChatModel::captures_content`]), or else telemetry in
    /// general ([`captures_content`](crate::captures_content)). A model that says otherwise has its
    /// way with its own calls.
    pub fn capture_content(mut self, wanted: bool) -> Self {
        self.definition.captures_content = Some(wanted);
        self
    }

    /// How sure an answer is, for the decision log; nobody knows when not said.
    pub fn confidence(
        mut self,
        of: impl Fn(&ChatResponse) -> Option<f64> + Send + Sync + 'static,
    ) -> Self {
        self.definition.confidence = Some(Arc::new(of));
        self
    }

    /// The agent.
    ///
    /// # Errors
    /// [`AgentError::Name`] when the name cannot be part of a span's name.
    pub fn build(self) -> Result<Agent, AgentError> {
        StepName::new(&self.definition.name, Phase::Plan, "task")?;
        Ok(Agent { definition: Arc::new(self.definition) })
    }
}
