//! What the tables of one statement share: the files, the time that is left, and what went wrong.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::error::QueryError;
use crate::session::{Files, Segment, Session};

/// One statement, as its tables and functions see it; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Source(Arc<Run>);

#[derive(Debug)]
struct Run {
    files: Arc<Files>,
    /// Set once nobody waits for the answer any more.
    abandoned: Arc<AtomicBool>,
    deadline: Instant,
    now_unix_nano: u64,
    failure: Mutex<Option<QueryError>>,
    /// Putting rows in order took more memory than it may.
    is_too_much: AtomicBool,
    decisions: AtomicU64,
    /// Sampling took something from what was read.
    is_sampled: AtomicBool,
}

impl Source {
    pub(super) fn new(
        files: Arc<Files>,
        abandoned: Arc<AtomicBool>,
        deadline: Instant,
        now_unix_nano: u64,
    ) -> Self {
        Self(Arc::new(Run {
            files,
            abandoned,
            deadline,
            now_unix_nano,
            failure: Mutex::default(),
            is_too_much: AtomicBool::new(false),
            decisions: AtomicU64::new(0),
            is_sampled: AtomicBool::new(false),
        }))
    }

    /// A look at the files. It lasts no longer than any reader may hold one, whatever the time of
    /// the statement: long scans are many looks.
    pub(super) fn session(&self) -> Session {
        let run = &self.0;
        Session::begin_before(Arc::clone(&run.files), Arc::clone(&run.abandoned), run.deadline)
    }

    /// The moment that `now` means in all of the statement, nanoseconds since the Unix epoch.
    pub(super) fn now_unix_nano(&self) -> u64 {
        self.0.now_unix_nano
    }

    /// Whether nobody waits for the answer any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.0.abandoned.load(Ordering::Relaxed)
    }

    /// Whether the statement has had its time.
    pub(super) fn is_late(&self) -> bool {
        Instant::now() >= self.0.deadline
    }

    /// Whether the statement has to end; loops outside SQLite ask it.
    pub(super) fn is_over(&self) -> bool {
        self.is_abandoned() || self.is_late()
    }

    /// Fails when the statement has to end.
    pub(super) fn check_time(&self) -> Result<(), QueryError> {
        match self.is_over() {
            true => Err(QueryError::Timeout { limit_ms: crate::reader::MAX_QUERY_MILLIS }),
            false => Ok(()),
        }
    }

    /// Notes whether sampling took something from the segments that spans or log records are read
    /// from.
    pub(super) fn note_sampling(&self, segments: &[Segment]) {
        if segments.iter().any(|segment| segment.digest.is_sampled) {
            self.0.is_sampled.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it did.
    pub(super) fn is_sampled(&self) -> bool {
        self.0.is_sampled.load(Ordering::Relaxed)
    }

    /// Counts a decision that was given out.
    pub(super) fn count_decision(&self) {
        self.0.decisions.fetch_add(1, Ordering::Relaxed);
    }

    /// Decisions that were given out.
    pub(super) fn decisions(&self) -> u64 {
        self.0.decisions.load(Ordering::Relaxed)
    }

    /// The error of a table that would take more memory than it may.
    pub(super) fn needs_too_much(&self) -> QueryError {
        self.0.is_too_much.store(true, Ordering::Relaxed);
        QueryError::Storage("putting rows in order takes too much memory".to_owned())
    }

    /// Whether a table needed too much.
    pub(super) fn is_too_much(&self) -> bool {
        self.0.is_too_much.load(Ordering::Relaxed)
    }

    /// Keeps why a table failed, which SQLite passes on as a text only.
    pub(super) fn fail(&self, error: QueryError) -> rusqlite::Error {
        let text = error.to_string();
        self.0.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        rusqlite::Error::ModuleError(text)
    }

    /// What [`Source::fail`] was told first.
    pub(super) fn take_failure(&self) -> Option<QueryError> {
        self.0.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The error that ends a loop; who runs the statement tells lateness from absence.
    pub(super) fn ended() -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_INTERRUPT),
            None,
        )
    }
}
