//! What can go wrong with a tool and with a registry of tools.

use std::any::Any;
use std::fmt::Display;
use std::time::Duration;

use throughline_trace::ErrorType;

use super::tool_id::ToolId;
use crate::context_bag::BagError;
use crate::decision::AuditError;
use crate::resilient::Fault;

/// Why a registry did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// There is a tool of that id.
    #[error(
        "expected a new tool id, got {0}, which is registered; give the new tool another version"
    )]
    AlreadyRegistered(ToolId),
    /// A schema of the tool is none, or refers to another document.
    #[error("expected {id} to have a JSON Schema for its {part}: {reason}")]
    Schema {
        /// The tool.
        id: ToolId,
        /// `arguments` or `result`.
        part: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The tool runs in this process, so a registry elsewhere cannot call it.
    #[error("expected a tool that can be reached over HTTP, got {id}, which runs in this process")]
    NotReachable {
        /// The tool.
        id: ToolId,
    },
    /// A registry elsewhere did not answer, or not as it should.
    #[error("expected the registry to answer: {message}")]
    Remote {
        /// What kind of failure.
        kind: ErrorType,
        /// For people.
        message: String,
    },
}

impl Fault for RegistryError {
    fn error_type(&self) -> ErrorType {
        match self {
            Self::Remote { kind, .. } => *kind,
            _ => ErrorType::InvalidRequest,
        }
    }
}

impl From<RegistryError> for ToolError {
    fn from(error: RegistryError) -> Self {
        Self::fault(error)
    }
}

/// Why a tool gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    /// No tool of that id is registered.
    #[error("expected a registered tool ({}), got {}", known_text(.known), super::registry::shown(.id))]
    Missing {
        /// What was asked for.
        id: String,
        /// What is registered.
        known: Vec<String>,
    },
    /// The arguments do not fit the tool's schema.
    #[error("expected arguments that fit the schema of {id}, got {got}: {reason}")]
    InvalidArguments {
        /// The tool.
        id: String,
        /// The arguments, as JSON text.
        got: String,
        /// What is wrong with them.
        reason: String,
    },
    /// The tool needs something of its caller's context that it may not have, or that is missing.
    #[error("{id} was not started: {error}")]
    Context {
        /// The tool.
        id: String,
        /// Which field, and why.
        error: BagError,
    },
    /// The decision to call the tool must be durable, and is not.
    #[error("{id} was not started: {error}")]
    Audit {
        /// The tool.
        id: String,
        /// Why its record is not durable.
        error: AuditError,
    },
    /// The tool did not answer in time.
    #[error("expected {id} to answer within {} ms, got nothing; give it more time or less to do", .after.as_millis())]
    Timeout {
        /// The tool.
        id: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The tool says that it failed.
    #[error("{0}")]
    Failed(String),
    /// The tool failed in a way that it can name.
    #[error("{message}")]
    Kind {
        /// What kind of failure.
        kind: ErrorType,
        /// For people.
        message: String,
    },
    /// The tool failed with a code of its own: an HTTP status, an exit code, a JSON-RPC error.
    #[error("{message}")]
    Code {
        /// What kind of failure.
        kind: ErrorType,
        /// The code as it came.
        code: String,
        /// For people.
        message: String,
    },
}

fn known_text(known: &[String]) -> String {
    if known.is_empty() { "none is".to_owned() } else { known.join(", ") }
}

impl ToolError {
    /// A failure of a kind that the tool knows (its database timed out, its provider refused).
    pub fn kind(kind: ErrorType, message: impl Into<String>) -> Self {
        Self::Kind { kind, message: message.into() }
    }

    /// A failure that says its kind itself: `.map_err(ToolError::fault)` keeps it.
    pub fn fault(fault: impl Fault) -> Self {
        Self::kind(fault.error_type(), fault.to_string())
    }

    /// What a tool's function failed with: its own [`ToolError`], or else [`ToolError::Failed`].
    pub(super) fn of<E: Display + 'static>(error: E) -> Self {
        match (&error as &dyn Any).downcast_ref::<Self>() {
            Some(own) => own.clone(),
            // The alternate form of an error with a chain is the whole chain.
            None => Self::Failed(format!("{error:#}")),
        }
    }
}

impl ToolError {
    /// The raw code of whoever failed, where there is one: for `throughline.error.code`.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Code { code, .. } => Some(code),
            _ => None,
        }
    }
}

impl Fault for ToolError {
    fn error_type(&self) -> ErrorType {
        match self {
            Self::Missing { .. } => ErrorType::ToolMissing,
            Self::InvalidArguments { .. } => ErrorType::InvalidArguments,
            Self::Context { error, .. } => error.error_type(),
            Self::Audit { error, .. } => error.error_type(),
            Self::Timeout { .. } => ErrorType::Timeout,
            Self::Failed(_) => ErrorType::ToolFailed,
            Self::Kind { kind, .. } | Self::Code { kind, .. } => *kind,
        }
    }
}

impl From<String> for ToolError {
    fn from(message: String) -> Self {
        Self::Failed(message)
    }
}

impl From<&str> for ToolError {
    fn from(message: &str) -> Self {
        Self::Failed(message.to_owned())
    }
}

impl From<Box<dyn std::error::Error + Send + Sync>> for ToolError {
    fn from(error: Box<dyn std::error::Error + Send + Sync>) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<std::io::Error> for ToolError {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<serde_json::Error> for ToolError {
    fn from(error: serde_json::Error) -> Self {
        Self::Failed(error.to_string())
    }
}
