//! What an agent is to do, and what came of it.

use std::sync::{Arc, OnceLock};

use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;
use throughline_llm::Message;
use throughline_trace::{DecisionId, TraceId, Usage};
use tokio_util::sync::CancellationToken;

use super::AgentError;
use super::budget::Budget;
use super::perception::Perception;
use crate::metrics::Outcome;

/// What an agent is to do, for whom.
#[derive(Debug, Clone)]
pub struct Task {
    pub(crate) messages: Vec<Message>,
    pub(crate) session: Option<String>,
    pub(crate) workflow: Option<String>,
    pub(crate) kind: SpanKind,
    pub(crate) budget: Budget,
    pub(crate) cancel: Option<CancellationToken>,
    pub(crate) cause: Option<DecisionId>,
    /// Where the run says which trace it is on, as soon as it knows.
    pub(crate) trace: Option<Arc<OnceLock<TraceId>>>,
    pub(crate) inbound: Option<Inbound>,
}

/// The request that a run answers, as its span tells it.
#[derive(Debug, Clone)]
pub(crate) struct Inbound {
    /// What was asked.
    pub(crate) attributes: Vec<KeyValue>,
    /// The status that is answered, by what the run failed with if it did.
    pub(crate) status: fn(Option<&AgentError>) -> KeyValue,
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
            budget: Budget::none(),
            cancel: None,
            cause: None,
            trace: None,
            inbound: None,
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

    /// What this task may cost, on top of what the agent may spend on any.
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// Lets whoever holds the token take the task back: the run ends with
    /// [`AgentError::Cancelled`](crate::AgentError::Cancelled) then, its spans with outcome
    /// `cancelled`.
    ///
    /// ```
    /// use throughline::{CancellationToken, Task};
    ///
    /// let token = CancellationToken::new();
    /// let task = Task::new("Count the stars").cancelled_by(token.clone());
    /// token.cancel(); // from anywhere
    /// # drop(task);
    /// ```
    #[must_use]
    pub fn cancelled_by(mut self, token: CancellationToken) -> Self {
        self.cancel = Some(token);
        self
    }

    /// The decision that led to this task, perhaps in another process: the run's decisions are below
    /// it. That of the current context when not said.
    #[must_use]
    pub fn caused_by(mut self, decision: DecisionId) -> Self {
        self.cause = Some(decision);
        self
    }

    /// Says that the agent is hosted as a service and the task came over the network: the span of
    /// the run is a server's.
    #[must_use]
    pub fn hosted(mut self) -> Self {
        self.kind = SpanKind::Server;
        self
    }

    /// Says that the task came from this process, whatever was said before.
    #[cfg(feature = "server")]
    pub(crate) fn in_process(mut self) -> Self {
        self.kind = SpanKind::Internal;
        self.inbound = None;
        self
    }

    /// Says which request the run answers.
    #[cfg(feature = "server")]
    pub(crate) fn answering(mut self, inbound: Inbound) -> Self {
        self.inbound = Some(inbound);
        self
    }

    /// Has the run say which trace it is on.
    #[cfg(feature = "server")]
    pub(crate) fn telling_trace(mut self, to: Arc<OnceLock<TraceId>>) -> Self {
        self.trace = Some(to);
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
    /// Tokens of all turns, as far as the provider reported them.
    pub usage: Usage,
    /// What the model's answers cost, US dollars: those whose model has a known price; `None` when
    /// none has. What sub-agents and other agents cost is theirs.
    pub cost_usd: Option<f64>,
    /// How many tool calls the model asked for.
    pub tool_calls: u32,
    /// What the task was taken to be about, when the agent perceives.
    pub perception: Option<Perception>,
    /// The decisions of the run, in order.
    pub decisions: Vec<DecisionId>,
    /// The conversation, what memory gave and the answer included, to go on with.
    pub messages: Vec<Message>,
    /// The trace of the run; `None` without telemetry.
    pub trace_id: Option<TraceId>,
}
