//! The last few traces that pages were drawn from: whoever reads a trace opens one span after the
//! other, and each would read all of it from the disk again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use throughline_store::StoredTrace;
use throughline_trace::{Attributes, TraceSummary, Value};

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
pub(crate) struct Kept(Mutex<VecDeque<(Arc<StoredTrace>, usize)>>);

impl Kept {
    /// The trace of this summary, if it is kept and nothing of it changed since. The store reads
    /// the summary of a trace before the rest, so that what came between makes it differ.
    pub(crate) fn get(&self, current: &TraceSummary) -> Option<Arc<StoredTrace>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(trace, _)| trace.summary.trace_id == current.trace_id)?;
        let entry = kept.remove(at)?;
        if entry.0.summary != *current {
            return None;
        }
        let trace = Arc::clone(&entry.0);
        kept.push_front(entry);
        Some(trace)
    }

    /// Keeps a trace that was just read, if it is not too large, and drops what was not used for
    /// longest.
    pub(crate) fn put(&self, trace: &Arc<StoredTrace>) {
        let bytes = bytes_of(trace);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(other, _)| other.summary.trace_id != trace.summary.trace_id);
        if bytes > MAX_BYTES {
            return;
        }
        kept.push_front((Arc::clone(trace), bytes));
        while kept.len() > MAX_TRACES
            || kept.iter().map(|(_, bytes)| bytes).sum::<usize>() > MAX_BYTES
        {
            kept.pop_back();
        }
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
    use throughline_trace::{Span, SpanId, TraceId};

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

    #[test]
    fn a_trace_is_kept_until_something_of_it_changes() {
        let kept = Kept::default();
        let trace = stored(1, 0);
        assert!(kept.get(&trace.summary).is_none());
        kept.put(&trace);
        let again = kept.get(&trace.summary).unwrap();
        assert!(Arc::ptr_eq(&trace, &again));
        let mut changed = trace.summary.clone();
        changed.log_count += 1;
        assert!(kept.get(&changed).is_none());
        assert!(kept.get(&trace.summary).is_none(), "it is dropped at once");
    }

    #[test]
    fn few_are_kept_those_used_last() {
        let kept = Kept::default();
        let traces: Vec<_> = (1..=MAX_TRACES as u8).map(|id| stored(id, 0)).collect();
        traces.iter().for_each(|trace| kept.put(trace));
        assert!(kept.get(&traces[0].summary).is_some(), "the oldest, used now");
        kept.put(&stored(100, 0));
        assert!(kept.get(&traces[0].summary).is_some());
        assert!(kept.get(&traces[1].summary).is_none());
    }

    #[test]
    fn what_they_take_is_bounded() {
        let kept = Kept::default();
        let (half, other) = (stored(1, MAX_BYTES / 2), stored(2, MAX_BYTES / 2));
        kept.put(&half);
        kept.put(&other);
        assert!(kept.get(&half.summary).is_none() && kept.get(&other.summary).is_some());
        let large = stored(3, MAX_BYTES);
        kept.put(&large);
        assert!(kept.get(&large.summary).is_none() && kept.get(&other.summary).is_some());
    }
}
