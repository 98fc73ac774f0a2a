//! The last few traces that pages were drawn from: whoever reads a trace opens one span after the
//! other, and each would read all of it from the disk again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use throughline_store::{StoredTrace, TraceVersion};
use throughline_trace::{Attributes, Value};

/// Most traces that are kept.
const MAX_TRACES: usize = 4;
/// Most memory that they may take together, bytes.
const MAX_BYTES: usize = 32 * 1024 * 1024;
/// Memory of a span, event, log record or decision besides its texts and attributes, bytes.
const PART_BYTES: usize = 512;
/// Memory of an attribute besides its key and value, bytes.
const ATTRIBUTE_BYTES: usize = 64;

/// Traces as they were read, the last used one first.
#[derive(Default)]
pub(crate) struct Kept(Mutex<VecDeque<Entry>>);

struct Entry {
    version: TraceVersion,
    trace: Arc<StoredTrace>,
    bytes: usize,
}

impl Kept {
    /// The trace of this version, if it is kept and nothing of it changed since.
    pub(crate) fn get(&self, current: &TraceVersion) -> Option<Arc<StoredTrace>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|entry| entry.is_of(current))?;
        let entry = kept.remove(at)?;
        if entry.version != *current {
            return None;
        }
        let trace = Arc::clone(&entry.trace);
        kept.push_front(entry);
        Some(trace)
    }

    /// Keeps a trace that was read after its version, if it is not too large, and drops what was not
    /// used for longest.
    pub(crate) fn put(&self, version: TraceVersion, trace: &Arc<StoredTrace>) {
        let bytes = bytes_of(trace) + PART_BYTES * version.places.len();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|entry| !entry.is_of(&version));
        if bytes > MAX_BYTES {
            return;
        }
        kept.push_front(Entry { version, trace: Arc::clone(trace), bytes });
        while kept.len() > MAX_TRACES
            || kept.iter().map(|entry| entry.bytes).sum::<usize>() > MAX_BYTES
        {
            kept.pop_back();
        }
    }
}

impl Entry {
    /// Whether it is the trace of a version, though perhaps not as it is now.
    fn is_of(&self, version: &TraceVersion) -> bool {
        self.version.summary.trace_id == version.summary.trace_id
    }
}

/// Memory that a trace takes, bytes, about. A resource that spans share counts with each of them:
/// rather too much than too little.
fn bytes_of(trace: &StoredTrace) -> usize {
    let spans = trace.spans.iter().map(|span| {
        let events = span
            .events
            .iter()
            .map(|event| PART_BYTES + event.name.len() + attributes(&event.attributes));
        let links = span
            .links
            .iter()
            .map(|link| PART_BYTES + link.trace_state.len() + attributes(&link.attributes));
        let texts = span.name.len() + span.trace_state.len() + span.status.message.len();
        let shared = attributes(&span.resource.attributes) + attributes(&span.scope.attributes);
        PART_BYTES
            + texts
            + shared
            + attributes(&span.attributes)
            + events.sum::<usize>()
            + links.sum::<usize>()
    });
    let logs = trace.logs.iter().map(|log| {
        let shared = attributes(&log.resource.attributes) + attributes(&log.scope.attributes);
        PART_BYTES + shared + value(&log.body) + attributes(&log.attributes)
    });
    let decisions = trace.decisions.iter().map(|decision| {
        let texts = [&decision.action, &decision.reason, &decision.agent_id, &decision.session_id];
        let texts = texts.iter().map(|text| text.len()).sum::<usize>();
        PART_BYTES + texts + attributes(&decision.attributes)
    });
    spans.sum::<usize>() + logs.sum::<usize>() + decisions.sum::<usize>()
}

fn attributes(attributes: &Attributes) -> usize {
    attributes.iter().map(|(key, inner)| ATTRIBUTE_BYTES + key.len() + value(inner)).sum()
}

/// As [`Value::size_bytes`], with the room that parts of lists take.
fn value(of: &Value) -> usize {
    match of {
        Value::Array(items) => items.iter().map(|item| ATTRIBUTE_BYTES + value(item)).sum(),
        Value::Map(entries) => {
            entries.iter().map(|(key, inner)| ATTRIBUTE_BYTES + key.len() + value(inner)).sum()
        }
        other => other.size_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use throughline_store::TracePlace;
    use throughline_trace::{DecisionId, Span, SpanId, TraceId, TraceSummary};

    use super::*;

    fn stored(id: u8, text_bytes: usize) -> Arc<StoredTrace> {
        let trace_id = TraceId::from_slice(&[id; 16]).unwrap();
        let span_id = SpanId::from_slice(&[id; 8]).unwrap();
        let mut span = Span::new(trace_id, span_id, None, "one");
        span.attributes.set("text", "x".repeat(text_bytes));
        Arc::new(StoredTrace {
            summary: TraceSummary::empty(trace_id),
            spans: vec![span],
            logs: Vec::new(),
            decisions: Vec::new(),
            truncated: None,
            is_skeleton: false,
        })
    }

    fn version(of: &StoredTrace) -> TraceVersion {
        let place = TracePlace { segment: "2026-11-22".to_owned(), is_skeleton: false };
        TraceVersion {
            summary: of.summary.clone(),
            places: vec![place],
            decision_ids: vec![DecisionId(uuid::Uuid::from_u128(1))],
        }
    }

    #[test]
    fn a_trace_is_kept_until_something_of_it_changes() {
        let trace = stored(1, 0);
        let whole = version(&trace);
        let changes: [fn(&mut TraceVersion); 4] = [
            |of| of.summary.log_count += 1,
            |of| of.places[0].is_skeleton = true,
            |of| of.places.clear(),
            |of| of.decision_ids = vec![DecisionId(uuid::Uuid::from_u128(2))],
        ];
        for change in changes {
            let kept = Kept::default();
            assert!(kept.get(&whole).is_none());
            kept.put(whole.clone(), &trace);
            let again = kept.get(&whole).unwrap();
            assert!(Arc::ptr_eq(&trace, &again));
            let mut changed = whole.clone();
            change(&mut changed);
            assert!(kept.get(&changed).is_none(), "{changed:?}");
            assert!(kept.get(&whole).is_none(), "it is dropped at once");
        }
    }

    #[test]
    fn few_are_kept_those_used_last() {
        let kept = Kept::default();
        let traces: Vec<_> = (1..=MAX_TRACES as u8).map(|id| stored(id, 0)).collect();
        traces.iter().for_each(|trace| kept.put(version(trace), trace));
        assert!(kept.get(&version(&traces[0])).is_some(), "the oldest, used now");
        kept.put(version(&stored(100, 0)), &stored(100, 0));
        assert!(kept.get(&version(&traces[0])).is_some());
        assert!(kept.get(&version(&traces[1])).is_none());
    }

    #[test]
    fn what_they_take_is_bounded() {
        let kept = Kept::default();
        let (half, other) = (stored(1, MAX_BYTES / 2), stored(2, MAX_BYTES / 2));
        kept.put(version(&half), &half);
        kept.put(version(&other), &other);
        assert!(kept.get(&version(&half)).is_none() && kept.get(&version(&other)).is_some());
        let large = stored(3, MAX_BYTES);
        kept.put(version(&large), &large);
        assert!(kept.get(&version(&large)).is_none() && kept.get(&version(&other)).is_some());
    }
}
