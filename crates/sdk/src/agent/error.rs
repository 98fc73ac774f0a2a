//! Why an agent could not be made, or gave no answer.

use std::time::Duration;

use throughline_trace::{ErrorType, StepNameError};

use super::budget::BudgetLimit;
use super::memory::MemoryError;
use crate::chat::ChatError;
use crate::decision::AuditError;
use crate::metrics::Outcome;
use crate::resilient::Fault;
use crate::tools::{RegistryError, ToolIdError};

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
    /// A budget is spent: of this run, or of the run that this one is a part of.
    #[error(
        "expected {agent} to need at most {allowed} of {limit}, got {spent}; allow more or give the agent less to do"
    )]
    Budget {
        /// The agent whose budget it is.
        agent: String,
        /// What there was not enough of.
        limit: BudgetLimit,
        /// How much there was, with its unit.
        allowed: String,
        /// How much was spent or asked for, with its unit.
        spent: String,
    },
    /// A policy, or the human that it asked, forbade to go on.
    #[error("expected the policy {policy} to allow it, got a refusal: {reason}")]
    PolicyRejected {
        /// The policy.
        policy: String,
        /// Why, in its words.
        reason: String,
    },
    /// A decision must be durable before it is acted on, and is not.
    #[error("{action} was not started: {error}")]
    Audit {
        /// What was decided.
        action: String,
        /// Why its record is not durable.
        error: AuditError,
    },
    /// The run was told to stop from outside.
    #[error("expected to be let go on, got the order to stop: {reason}")]
    Stopped {
        /// Why, in the words of who gave the order.
        reason: String,
    },
    /// The session was handed over to a human.
    #[error("expected to be let go on, got the order to hand over to a human: {reason}")]
    HandedOver {
        /// Why, in the words of who gave the order.
        reason: String,
    },
    /// What was said before could not be read or kept, and the agent must not go on without.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Whoever asked took the task back.
    #[error("expected an answer to be wanted, got a cancellation")]
    Cancelled,
}

impl Fault for AgentError {
    fn error_type(&self) -> ErrorType {
        match self {
            Self::Model { error, .. } => error.error_type,
            Self::Refused { .. } => ErrorType::ContentFiltered,
            Self::Empty { .. } => ErrorType::InvalidResponse,
            Self::Budget { limit: BudgetLimit::Time, .. } => ErrorType::Timeout,
            Self::Budget { .. }
            | Self::PolicyRejected { .. }
            | Self::Audit { .. }
            | Self::Stopped { .. }
            | Self::HandedOver { .. } => ErrorType::PolicyRejected,
            Self::Cancelled => ErrorType::Cancelled,
            Self::Name(_)
            | Self::ToolId(_)
            | Self::Tool(_)
            | Self::TurnLimit { .. }
            | Self::Memory(_) => ErrorType::Other,
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
