//! Decisions that must be durable before what was decided is done.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opentelemetry::logs::AnyValue;
use opentelemetry_sdk::logs::LogBatch;
use throughline_trace::{DecisionId, ErrorType, keys};
use tokio::runtime::Handle;

use crate::resilient::Fault;

/// How long a decision that must be durable waits for the server, when there is no spool.
pub const AUDIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether an action may go ahead when the record of its decision is not durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Audit {
    /// It may; the loss is counted.
    #[default]
    BestEffort,
    /// It may not.
    Required,
}

/// Why the record of a decision is not durable. What was decided must not be done: as a [`Fault`] it
/// is a rejection by policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// There is no telemetry to record it with.
    #[error("expected telemetry that records decisions, got none; set Telemetry up first")]
    NoTelemetry,
    /// The disk did not take it.
    #[error("expected the decision on the disk of the spool: {0}")]
    Spool(String),
    /// The spool has no room.
    #[error("expected room in the decision spool, got none; is the server down for long?")]
    SpoolFull,
    /// The queue has no room.
    #[error("expected room in the queue of decisions, got none")]
    QueueFull,
    /// The server refused it.
    #[error("expected the server to acknowledge the decision: {0}")]
    Refused(String),
    /// The server did not answer in time.
    #[error(
        "expected the server to acknowledge the decision within {} s; a decision spool would make it durable without the server",
        AUDIT_TIMEOUT.as_secs()
    )]
    NotAcknowledged,
    /// Telemetry was shut down meanwhile.
    #[error("expected telemetry that still runs, got one that was shut down")]
    Stopped,
}

impl Fault for AuditError {
    fn error_type(&self) -> ErrorType {
        ErrorType::PolicyRejected
    }
}

/// Is told once whether a record is durable.
pub(crate) type Done = Box<dyn FnOnce(Result<(), AuditError>) + Send>;

#[derive(Default)]
struct Waiting {
    by_id: HashMap<DecisionId, Done>,
    /// After the shutdown nothing is acknowledged, and no time limit runs.
    is_closed: bool,
}

/// Who waits for the server to acknowledge which decision.
#[derive(Clone, Default)]
pub(crate) struct Acknowledgements {
    waiting: Arc<Mutex<Waiting>>,
    /// Where time limits run; without it the exporter answers at once.
    timers: Option<Handle>,
}

impl Acknowledgements {
    pub(crate) fn timed_on(timers: Option<Handle>) -> Self {
        Self { timers, ..Self::default() }
    }

    /// Tells `done` when the decision is acknowledged, or not in time.
    pub(crate) fn expect(&self, id: DecisionId, done: Done) {
        let mut waiting = self.waiting();
        if waiting.is_closed {
            drop(waiting);
            return done(Err(AuditError::Stopped));
        }
        waiting.by_id.insert(id, done);
        drop(waiting);
        if let Some(timers) = &self.timers {
            let waiting = self.clone();
            #[expect(
                clippy::disallowed_methods,
                reason = "the decisions of a process belong to no trace"
            )]
            timers.spawn(async move {
                tokio::time::sleep(AUDIT_TIMEOUT).await;
                waiting.refuse(id, AuditError::NotAcknowledged);
            });
        }
    }

    /// Telemetry was shut down: who still waits is told so, and who comes later.
    pub(crate) fn close(&self) {
        let mut waiting = self.waiting();
        waiting.is_closed = true;
        let left = std::mem::take(&mut waiting.by_id);
        drop(waiting);
        for done in left.into_values() {
            done(Err(AuditError::Stopped));
        }
    }

    /// Whether telemetry was shut down.
    pub(crate) fn is_closed(&self) -> bool {
        self.waiting().is_closed
    }

    /// Nobody will acknowledge the decision.
    pub(crate) fn refuse(&self, id: DecisionId, error: AuditError) {
        let done = self.waiting().by_id.remove(&id);
        if let Some(done) = done {
            done(Err(error));
        }
    }

    /// The decisions of a batch that somebody waits for.
    pub(crate) fn awaited_in(&self, batch: &LogBatch<'_>) -> Vec<DecisionId> {
        if self.waiting().by_id.is_empty() {
            return Vec::new();
        }
        let ids = batch.iter().filter_map(|(record, _)| {
            let mut entries = record.attributes_iter();
            match entries.find(|(key, _)| key.as_str() == keys::DECISION_ID) {
                Some((_, AnyValue::String(id))) => id.as_str().parse().ok(),
                _ => None,
            }
        });
        ids.collect()
    }

    /// A batch was answered.
    pub(crate) fn settle(&self, ids: Vec<DecisionId>, result: &Result<(), AuditError>) {
        for id in ids {
            let done = self.waiting().by_id.remove(&id);
            if let Some(done) = done {
                done(result.clone());
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Acknowledgements {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acknowledgements").field("waiting", &self.waiting().by_id.len()).finish()
    }
}
