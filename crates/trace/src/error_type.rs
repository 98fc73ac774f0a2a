//! The closed list of `error.type` values (requirement R4.3).

use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of failure ended an operation. Closed: a provider's raw code goes to
/// [`keys::ERROR_CODE`](crate::keys::ERROR_CODE), a class name nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorType {
    /// Took longer than allowed.
    Timeout,
    /// A breaker refused the call.
    CircuitOpen,
    /// The provider asked to slow down (HTTP 429).
    RateLimited,
    /// The caller gave up.
    Cancelled,
    /// No connection, or it broke.
    Connection,
    /// The other side failed (HTTP 5xx).
    Server,
    /// The request was wrong (HTTP 4xx other than 401, 403, 429).
    InvalidRequest,
    /// The credentials were refused (HTTP 401, 403).
    Auth,
    /// The answer could not be understood.
    InvalidResponse,
    /// A stream broke off or its chunks were out of order.
    StreamFailed,
    /// A policy forbade it.
    PolicyRejected,
    /// The provider refused the content.
    ContentFiltered,
    /// A tool said that it failed.
    ToolFailed,
    /// No tool of that name is registered.
    ToolMissing,
    /// Tool arguments do not fit the tool's schema.
    InvalidArguments,
    /// Everything was tried, the fallback too.
    FallbackExhausted,
    /// Too many calls at once: a bulkhead is full, or the other side says so (HTTP 529).
    Overloaded,
    /// Code panicked.
    Panic,
    /// None of the others (OpenTelemetry's own catch-all).
    #[serde(rename = "_OTHER")]
    Other,
}

impl ErrorType {
    /// Every value.
    pub const ALL: [Self; 19] = [
        Self::Timeout,
        Self::CircuitOpen,
        Self::RateLimited,
        Self::Cancelled,
        Self::Connection,
        Self::Server,
        Self::InvalidRequest,
        Self::Auth,
        Self::InvalidResponse,
        Self::StreamFailed,
        Self::PolicyRejected,
        Self::ContentFiltered,
        Self::ToolFailed,
        Self::ToolMissing,
        Self::InvalidArguments,
        Self::FallbackExhausted,
        Self::Overloaded,
        Self::Panic,
        Self::Other,
    ];

    /// The value of the `error.type` attribute.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "TIMEOUT",
            Self::CircuitOpen => "CIRCUIT_OPEN",
            Self::RateLimited => "RATE_LIMITED",
            Self::Cancelled => "CANCELLED",
            Self::Connection => "CONNECTION",
            Self::Server => "SERVER",
            Self::InvalidRequest => "INVALID_REQUEST",
            Self::Auth => "AUTH",
            Self::InvalidResponse => "INVALID_RESPONSE",
            Self::StreamFailed => "STREAM_FAILED",
            Self::PolicyRejected => "POLICY_REJECTED",
            Self::ContentFiltered => "CONTENT_FILTERED",
            Self::ToolFailed => "TOOL_FAILED",
            Self::ToolMissing => "TOOL_MISSING",
            Self::InvalidArguments => "INVALID_ARGUMENTS",
            Self::FallbackExhausted => "FALLBACK_EXHAUSTED",
            Self::Overloaded => "OVERLOADED",
            Self::Panic => "PANIC",
            Self::Other => "_OTHER",
        }
    }

    /// The value that an attribute spells, if it is one of ours.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// The kind of failure an HTTP status stands for; `None` below 400.
    pub fn from_http_status(status: u16) -> Option<Self> {
        match status {
            0..=399 => None,
            401 | 403 => Some(Self::Auth),
            408 | 504 => Some(Self::Timeout),
            429 => Some(Self::RateLimited),
            400..=499 => Some(Self::InvalidRequest),
            529 => Some(Self::Overloaded),
            _ => Some(Self::Server),
        }
    }
}

impl fmt::Display for ErrorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
