//! What one export request carried, decoded.

use crate::{Decision, LogRecord, MetricPoint, Span};

/// The telemetry of one export request: decoded, in one dialect, redacted. It is accepted or
/// refused as a whole; a success is answered only when all of it is durable.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SpanBatch {
    /// When the server received it, nanoseconds since the Unix epoch.
    pub received_unix_nano: u64,
    /// Spans, in the order of the request.
    pub spans: Vec<Span>,
    /// Log records that are not decisions.
    pub logs: Vec<LogRecord>,
    /// Decisions.
    pub decisions: Vec<Decision>,
    /// Metric points.
    pub metrics: Vec<MetricPoint>,
}

impl SpanBatch {
    /// How many items it carries.
    pub fn len(&self) -> usize {
        self.spans.len() + self.logs.len() + self.decisions.len() + self.metrics.len()
    }

    /// Whether it carries nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What became durable of a batch. The batch as a whole is acknowledged; these are its counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accepted {
    /// Spans written.
    pub spans: u64,
    /// Spans that were there already, equal to the byte: a redelivery.
    pub duplicate_spans: u64,
    /// Spans whose id was there already with other content; they are kept and marked.
    pub conflicting_spans: u64,
    /// Log records written.
    pub logs: u64,
    /// Decisions written.
    pub decisions: u64,
    /// Decisions that were there already.
    pub duplicate_decisions: u64,
    /// Metric points written.
    pub metrics: u64,
}

/// Why a batch was not taken; nothing of it was kept, and the sender may send it again (unless it
/// is [`Refusal::Unfit`]).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The inbox is full for the moment.
    #[error("the inbox is full; retry in {retry_after_ms} ms")]
    Full {
        /// When to try again, milliseconds.
        retry_after_ms: u64,
    },
    /// The server is draining.
    #[error("the server is shutting down; retry in {retry_after_ms} ms")]
    ShuttingDown {
        /// When to try again, milliseconds.
        retry_after_ms: u64,
    },
    /// The disk is full: nothing more is taken until there is room.
    #[error("no space left on the data disk; retry in {retry_after_ms} ms, after space was made")]
    DiskFull {
        /// When to try again, milliseconds.
        retry_after_ms: u64,
    },
    /// The batch can never be stored, however often it is sent.
    #[error("the batch can never be stored: {0}")]
    Unfit(String),
    /// Storage failed in another way.
    #[error("storage failed: {0}")]
    Storage(String),
}

impl Refusal {
    /// When the sender may try again, milliseconds.
    pub fn retry_after_ms(&self) -> u64 {
        match self {
            Self::Full { retry_after_ms }
            | Self::ShuttingDown { retry_after_ms }
            | Self::DiskFull { retry_after_ms } => *retry_after_ms,
            Self::Storage(_) | Self::Unfit(_) => 1_000,
        }
    }
}
