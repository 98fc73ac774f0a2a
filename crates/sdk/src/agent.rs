//! An agent: a chat model and tools in a loop of plan, act, observe and reflect, as one trace
//! (requirements R1.1, R2.5).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::SpanKind;
use throughline_llm::{ChatRequest, ChatResponse, Message};
use throughline_trace::{DecisionId, ErrorType, Phase, StepName, StepNameError, TraceId, Usage};

use crate::agent_run;
use crate::chat::{ChatError, ChatModel};
use crate::metrics::Outcome;
use crate::resilient::Fault;
use crate::tools::{RegistryError, ToolIdError, ToolRegistry};

/// How often an agent may ask its model in one run, when the builder does not say.
pub const MAX_TURNS: u32 = 8;

/// Why an agent could not be made or gave no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AgentError {
    /// The agent's name cannot be part of a span's name.
    #[error(transparent)]
    Name(#[from] StepNameError),
    /// A tool of the agent has a text for an id that is none.
    #[error(transparent)]
    ToolId(#[from] ToolIdError),
    /// Two tools of the agent have the same id, or a tool has a schema that is none.
    #[error(transparent)]
    Tool(#[from] RegistryError),
    /// The model did not answer.
    #[error("expected the model to answer in turn {turn}: {error}")]
    Model {
        /// Which turn, from 1.
        turn: u32,
        /// What went wrong.
        #[source]
        error: ChatError,
    },
    /// The model declined to answer, or the provider's filter held the answer back.
    #[error("expected an answer from {model} in turn {turn}, got a refusal")]
    Refused {
        /// The model.
        model: String,
        /// Which turn, from 1.
        turn: u32,
        /// What the model said to it, or as much of the answer as came; may be empty. It is content,
        /// so no part of the message: that goes onto every span that the error passes.
        text: String,
    },
    /// The model answered with nothing.
    #[error("expected a text or tool calls from {model} in turn {turn}, got neither")]
    Empty {
        /// The model.
        model: String,
        /// Which turn, from 1.
        turn: u32,
    },
    /// The agent did not come to an answer in the turns it has.
    #[error(
        "expected an answer within {turns} turns, got tool calls only; allow more turns or give the agent less to do"
    )]
    TurnLimit {
        /// Turns that were taken.
        turns: u32,
    },
}

impl Fault for AgentError {
    fn error_type(&self) -> ErrorType {
        match self {
            Self::Model { error, .. } => error.error_type,
            Self::Refused { .. } => ErrorType::ContentFiltered,
            Self::Empty { .. } => ErrorType::InvalidResponse,
            Self::Name(_) | Self::ToolId(_) | Self::Tool(_) | Self::TurnLimit { .. } => {
                ErrorType::Other
            }
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Model { error, .. } => error.outcome(),
            other => Outcome::of_error(other.error_type()),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        self.of_model().and_then(Fault::retry_after)
    }

    fn status_code(&self) -> Option<u16> {
        self.of_model().and_then(Fault::status_code)
    }

    fn code(&self) -> Option<&str> {
        self.of_model().and_then(Fault::code)
    }
}

impl AgentError {
    fn of_model(&self) -> Option<&ChatError> {
        match self {
            Self::Model { error, .. } => Some(error),
            _ => None,
        }
    }
}

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
    pub(crate) model: Arc<dyn ChatModel>,
    /// What every request starts from: model, instructions, sampling.
    pub(crate) request: ChatRequest,
    pub(crate) tools: ToolRegistry,
    pub(crate) max_turns: u32,
    pub(crate) is_streaming: bool,
    pub(crate) captures_content: Option<bool>,
    pub(crate) confidence: Option<ConfidenceOf>,
}

impl Agent {
    /// An agent of this name that asks this model: `name` of `a-z`, `0-9`, `_` and `-`, since it is
    /// part of span names.
    pub fn builder(
        name: impl Into<String>,
        model: impl ChatModel + 'static,
        model_name: impl Into<String>,
    ) -> AgentBuilder {
        let name = name.into();
        AgentBuilder {
            definition: Definition {
                id: name.clone(),
                name,
                role: None,
                version: None,
                model: Arc::new(model),
                request: ChatRequest::new(model_name),
                tools: ToolRegistry::new(),
                max_turns: MAX_TURNS,
                is_streaming: false,
                captures_content: None,
                confidence: None,
            },
        }
    }

    /// The agent's name.
    pub fn name(&self) -> &str {
        &self.definition.name
    }

    /// Does a task: asks the model, runs the tools that it asks for, until it answers. The run is a
    /// span `invoke_agent {agent}`, its steps `{agent}.{phase}.{domain}`; what was chosen is in the
    /// decision log. A run that is dropped ends with outcome `cancelled`.
    ///
    /// # Errors
    /// [`AgentError`], also on the span of the run.
    pub async fn run(&self, task: impl Into<Task>) -> Result<AgentRun, AgentError> {
        agent_run::run(&self.definition, task.into()).await
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("name", &self.definition.name).finish_non_exhaustive()
    }
}

/// Describes an [`Agent`].
#[must_use = "an agent is made with `build`"]
pub struct AgentBuilder {
    definition: Definition,
}

impl AgentBuilder {
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

/// What an agent is to do, for whom.
#[derive(Debug, Clone)]
pub struct Task {
    pub(crate) messages: Vec<Message>,
    pub(crate) session: Option<String>,
    pub(crate) workflow: Option<String>,
    pub(crate) kind: SpanKind,
}

impl Task {
    /// A task in words.
    pub fn new(text: impl Into<String>) -> Self {
        Self::conversation([Message::user(text)])
    }

    /// A conversation to go on with.
    pub fn conversation(messages: impl IntoIterator<Item = Message>) -> Self {
        Self {
            messages: messages.into_iter().collect(),
            session: None,
            workflow: None,
            kind: SpanKind::Internal,
        }
    }

    /// `session_id`; that of the current context when not said.
    #[must_use]
    pub fn session(mut self, id: impl Into<String>) -> Self {
        self.session = Some(id.into());
        self
    }

    /// `workflow_id`; that of the current context when not said.
    #[must_use]
    pub fn workflow(mut self, id: impl Into<String>) -> Self {
        self.workflow = Some(id.into());
        self
    }

    /// Says that the agent is hosted as a service and the task came over the network: the span of
    /// the run is a server's.
    #[must_use]
    pub fn hosted(mut self) -> Self {
        self.kind = SpanKind::Server;
        self
    }
}

impl From<&str> for Task {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for Task {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentRun {
    /// The answer.
    pub answer: String,
    /// `ok`, or `retry_succeeded` or `fallback_degraded` when it took that.
    pub outcome: Outcome,
    /// How often the model was asked.
    pub turns: u32,
    /// Tokens of all turns.
    pub usage: Usage,
    /// The decisions of the run, in order.
    pub decisions: Vec<DecisionId>,
    /// The conversation, answer included, to go on with.
    pub messages: Vec<Message>,
    /// The trace of the run; `None` without telemetry.
    pub trace_id: Option<TraceId>,
}
