//! Policies: what an agent may do, asked before and after each of its steps.

use futures_util::future::BoxFuture;
use serde_json::Value;
use throughline_llm::{ChatRequest, ChatResponse, Message, ToolCall};

use crate::tools::ToolError;

/// What a policy says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Allow,
    /// It must not.
    Deny {
        /// Why, for the decision log, the run's error and the model. It is recorded as it stands
        /// in the error, so let it not quote what must not be.
        reason: String,
    },
    /// A human shall say ([`HumanGate`](crate::HumanGate)).
    AskHuman {
        /// What the human is asked.
        question: String,
    },
}

impl Verdict {
    /// It must not, for this reason.
    pub fn deny(reason: impl Into<String>) -> Self {
        Self::Deny { reason: reason.into() }
    }

    /// A human shall say.
    pub fn ask_human(question: impl Into<String>) -> Self {
        Self::AskHuman { question: question.into() }
    }
}

/// What becomes of a run whose step was denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Denial {
    /// The model is told that it was refused and why, and may try something else. A model call that
    /// was denied before it was made ends the run all the same: there is nobody to tell.
    #[default]
    TellModel,
    /// The run ends with [`AgentError::PolicyRejected`](crate::AgentError::PolicyRejected).
    EndRun,
}

/// The step that a policy judges.
#[derive(Debug, Clone, Copy)]
pub struct StepContext<'a> {
    /// The agent.
    pub agent: &'a str,
    /// Which turn, from 1.
    pub turn: u32,
    /// The conversation so far.
    pub messages: &'a [Message],
    /// What is to be done.
    pub action: StepAction<'a>,
}

/// What is to be done in a step.
#[derive(Debug, Clone, Copy)]
pub enum StepAction<'a> {
    /// The model is asked.
    ModelCall(&'a ChatRequest),
    /// A tool is run.
    ToolCall(&'a ToolCall),
    /// The answer is given to whoever asked. It is judged before that only.
    Answer(&'a str),
}

impl StepAction<'_> {
    /// `model_call`, the tool's name, or `answer`.
    pub fn name(&self) -> &str {
        match self {
            Self::ModelCall(_) => "model_call",
            Self::ToolCall(call) => &call.name,
            Self::Answer(_) => "answer",
        }
    }
}

/// What came of a step.
#[derive(Debug, Clone, Copy)]
pub enum StepResult<'a> {
    /// What the model said.
    Model(&'a ChatResponse),
    /// What the tool said.
    Tool(Result<&'a Value, &'a ToolError>),
}

/// Judges each step before it is taken and what came of it after. What it knows of the task's intent
/// is in [`Perception::current`](crate::Perception::current). A denial is recorded as a decision of
/// stage `policy`, and is outcome `policy_rejected`.
///
/// ```
/// use throughline::{BoxFuture, StepAction, StepContext, StepPolicy, Verdict};
///
/// /// Nothing is deleted unless a human says so.
/// struct NoDeletes;
///
/// impl StepPolicy for NoDeletes {
///     fn name(&self) -> &str {
///         "no_deletes"
///     }
///
///     fn before<'a>(&'a self, step: &'a StepContext<'a>) -> BoxFuture<'a, Verdict> {
///         Box::pin(async move {
///             match step.action {
///                 StepAction::ToolCall(call) if call.name.starts_with("delete") => {
///                     Verdict::ask_human(format!("may {} run {}?", step.agent, call.name))
///                 }
///                 _ => Verdict::Allow,
///             }
///         })
///     }
/// }
/// ```
pub trait StepPolicy: Send + Sync {
    /// Name of the policy, in decisions and messages.
    fn name(&self) -> &str;

    /// Whether the step may be taken. Called for model calls, tool calls and the answer.
    fn before<'a>(&'a self, step: &'a StepContext<'a>) -> BoxFuture<'a, Verdict> {
        let _ = step;
        Box::pin(std::future::ready(Verdict::Allow))
    }

    /// Whether what came of the step may be used: a tool's result be told to the model, the model's
    /// answer be acted upon. Called for model calls that succeeded and for tool calls.
    fn after<'a>(
        &'a self,
        step: &'a StepContext<'a>,
        result: &'a StepResult<'a>,
    ) -> BoxFuture<'a, Verdict> {
        let _ = (step, result);
        Box::pin(std::future::ready(Verdict::Allow))
    }

    /// What becomes of the run when this policy has denied a step.
    fn on_denial(&self, step: &StepContext<'_>) -> Denial {
        let _ = step;
        Denial::default()
    }
}
