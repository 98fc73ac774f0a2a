//! What a registry over HTTP and its clients say to each other: JSON under four addresses.
//!
//! `GET /tools` lists [`Described`] tools, `GET /tools/{id}` is one, `POST /tools` registers one that
//! has an address, `POST /tools/{id}/call` runs one. Errors are `{"error": {"type", "message", "code"}}`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use throughline_trace::ErrorType;

use super::error::ToolError;
use super::tool::Tool;
use crate::context_bag::Need;
#[cfg(feature = "server")]
use crate::resilient::Fault as _;

/// A tool as it is described to another process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Described {
    pub(super) id: String,
    #[serde(default)]
    pub(super) description: String,
    pub(super) parameters: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) result: Option<Value>,
    #[serde(default)]
    pub(super) needs: Vec<Need>,
    #[serde(default)]
    pub(super) timeout_ms: Option<u64>,
    /// Method and address, for one that the registry is to call: `GET https://shop.example/{item}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<String>,
}

impl Described {
    pub(super) fn of(tool: &dyn Tool) -> Self {
        Self {
            id: tool.id().to_string(),
            description: tool.description().to_owned(),
            parameters: tool.parameters(),
            result: tool.result_schema(),
            needs: tool.needs().to_vec(),
            timeout_ms: u64::try_from(tool.timeout().as_millis()).ok(),
            address: tool.address(),
        }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout_ms.map_or(super::tool::TOOL_TIMEOUT, Duration::from_millis)
    }
}

/// All tools.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Listed {
    pub(super) tools: Vec<Described>,
}

/// What a tool is called with.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Called {
    #[serde(default)]
    pub(super) arguments: Value,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) call_id: String,
}

/// What a tool answered.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answered {
    pub(super) result: Value,
}

/// What went wrong.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Failed {
    pub(super) error: Failure,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Failure {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) code: Option<String>,
}

impl Failed {
    #[cfg(feature = "server")]
    pub(super) fn new(kind: ErrorType, message: impl Into<String>) -> Self {
        let error = Failure { kind: kind.as_str().to_owned(), message: message.into(), code: None };
        Self { error }
    }

    #[cfg(feature = "server")]
    pub(super) fn of(error: &ToolError) -> Self {
        let mut failed = Self::new(error.error_type(), error.to_string());
        failed.error.code = error.code().map(str::to_owned);
        failed
    }

    pub(super) fn into_error(self) -> ToolError {
        let Failure { kind, message, code } = self.error;
        let kind = ErrorType::from_text(&kind).unwrap_or(ErrorType::Other);
        match code {
            Some(code) => ToolError::Code { kind, code, message },
            None => ToolError::Kind { kind, message },
        }
    }
}
