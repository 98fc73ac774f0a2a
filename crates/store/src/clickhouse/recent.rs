//! What was known of traces a moment ago: a request asks for the version of a trace first, then for
//! the trace, and need not ask ClickHouse twice for the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use throughline_trace::TraceId;

use super::remote::Known;

/// How long an answer is believed: the trace that is read by it then lacks nothing that the version
/// before it had.
const MAX_AGE: Duration = Duration::from_secs(1);

/// Most traces that are remembered.
const MAX_TRACES: usize = 64;

/// Answers of the last moment, each given out once.
#[derive(Debug, Clone, Default)]
pub(super) struct Recent(Arc<Mutex<HashMap<TraceId, (Instant, Known)>>>);

impl Recent {
    pub(super) fn put(&self, id: TraceId, known: Known) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_TRACES {
            all.retain(|_, (at, _)| at.elapsed() < MAX_AGE);
        }
        if all.len() < MAX_TRACES {
            all.insert(id, (Instant::now(), known));
        }
    }

    pub(super) fn take(&self, id: TraceId) -> Option<Known> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, known) = all.remove(&id)?;
        (at.elapsed() < MAX_AGE).then_some(known)
    }
}
