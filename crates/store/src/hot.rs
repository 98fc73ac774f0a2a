//! Traces that the writer has at hand: which spans they have, and their summary so far.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use throughline_trace::{
    Call, CallLedger, Decision, FallbackState, Span, SpanFacts, SpanId, TraceId, TraceSummary,
    is_call,
};

use crate::facet;
use crate::rollups::Deltas;
use crate::trace_rows::{SPAN_BITS, SeenSpan};

/// What a trace takes beside its spans, bytes: it, its names and what its postings say.
const TRACE_BYTES: usize = size_of::<HotTrace>() + 768;

/// What each span of a trace takes, bytes.
const SPAN_BYTES: usize = 32;

/// What each model call of a trace takes beside its span, bytes.
const CALL_BYTES: usize = size_of::<Call>() + size_of::<SpanFacts>() + 32;

/// A trace of the open segment, in memory.
#[derive(Debug)]
pub(crate) struct HotTrace {
    /// The row of the trace.
    pub(crate) trace_no: i64,
    /// The row whose key space the next span goes to: the same, until that is full.
    pub(crate) space_no: i64,
    /// The next free number in that key space.
    pub(crate) next: u32,
    /// Whether the row is in the database.
    pub(crate) is_stored: bool,
    /// Whether it changed in the running group.
    pub(crate) is_dirty: bool,
    /// What is known of the trace, by earlier segments too; its decisions are counted apart.
    pub(crate) summary: TraceSummary,
    /// Whether earlier segments know it.
    pub(crate) is_carried: bool,
    /// Decisions in the control database.
    pub(crate) decision_count: u64,
    /// What the postings say.
    pub(crate) posted: Option<Posted>,
    /// Span ids with the checksum of the first span of that id.
    seen: HashMap<SpanId, u64, RandomState>,
    /// Further spans of an id that was there already.
    conflicts: HashSet<(SpanId, u64)>,
    /// Its model calls, by which one that is told twice is found.
    calls: CallLedger,
}

/// The postings of a trace.
#[derive(Debug)]
pub(crate) struct Posted {
    /// The start that they are filed under.
    pub(crate) start_unix_nano: u64,
    /// The facets, facet 0 included.
    pub(crate) facets: Vec<i64>,
    /// What they were worked out from.
    pub(crate) shape: Shape,
}

/// Changes whenever the postings of a summary may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    start_unix_nano: u64,
    names: [usize; 5],
    is_error: bool,
    fallback: FallbackState,
    duration_bucket: u32,
    root: Option<(bool, SpanId, u64, usize)>,
}

impl Shape {
    pub(crate) fn of(part: &TraceSummary) -> Self {
        Self {
            start_unix_nano: part.start_unix_nano,
            names: [&part.agents, &part.sessions, &part.models, &part.services, &part.users]
                .map(|names| names.len()),
            is_error: part.error_count > 0,
            fallback: part.fallback,
            duration_bucket: facet::duration_bucket(part.duration_nano()),
            root: part
                .root
                .as_ref()
                .map(|root| (root.is_root, root.span_id, root.start_unix_nano, root.name.len())),
        }
    }

    /// Whether a set of names is full, so that its names may change while their number does not.
    pub(crate) fn is_full(&self) -> bool {
        self.names.contains(&throughline_trace::MAX_NAMES_PER_SUMMARY)
    }
}

/// What a span is to its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Novelty {
    /// The first of its id.
    New,
    /// There already, equal to the byte.
    Duplicate,
    /// Its id is there already with other content.
    Conflict,
}

impl HotTrace {
    /// A trace without anything.
    pub(crate) fn new(trace_id: TraceId, trace_no: i64) -> Self {
        Self {
            trace_no,
            space_no: trace_no,
            next: 0,
            is_stored: false,
            is_dirty: false,
            summary: TraceSummary::empty(trace_id),
            is_carried: false,
            decision_count: 0,
            posted: None,
            seen: HashMap::default(),
            conflicts: HashSet::new(),
            calls: CallLedger::default(),
        }
    }

    /// The key of the next span.
    pub(crate) fn take_key(&mut self) -> i64 {
        let key = (self.space_no << SPAN_BITS) + i64::from(self.next);
        self.next += 1;
        key
    }

    /// What a span with this checksum would be; it counts as seen from now on.
    pub(crate) fn see(&mut self, span_id: SpanId, checksum: u64) -> Novelty {
        use std::collections::hash_map::Entry;
        match self.seen.entry(span_id) {
            Entry::Vacant(slot) => {
                slot.insert(checksum);
                Novelty::New
            }
            Entry::Occupied(first) if *first.get() == checksum => Novelty::Duplicate,
            Entry::Occupied(_) if self.conflicts.insert((span_id, checksum)) => Novelty::Conflict,
            Entry::Occupied(_) => Novelty::Duplicate,
        }
    }

    /// Whether a span of this id was written.
    pub(crate) fn knows(&self, span_id: SpanId) -> bool {
        self.seen.contains_key(&span_id)
    }

    /// Takes in a span that is written, and is no repetition; answers what it adds to the weight.
    pub(crate) fn take_span(
        &mut self,
        span: &Span,
        facts: &SpanFacts,
        received_unix_nano: u64,
        deltas: &mut Deltas,
    ) -> usize {
        self.summary.add_span_as(span, facts.role, received_unix_nano);
        deltas.add_span(facts);
        if is_call(facts.role) {
            let time = (span.start_unix_nano, span.end_unix_nano);
            let call = Call::of_parts(span.span_id, span.parent_span_id, time, &span.attributes);
            let call = call.with_facts(facts.clone());
            let told_twice = self.calls.add_telling(call, |facts| deltas.take_back(facts));
            self.summary.take_back(told_twice);
            return SPAN_BYTES + CALL_BYTES;
        }
        SPAN_BYTES
    }

    /// Takes in a span that the summary already has.
    pub(crate) fn remember(&mut self, stored: SeenSpan) {
        let novelty = self.see(stored.span_id, stored.checksum);
        if let (Some(call), Novelty::New | Novelty::Conflict) = (stored.call, novelty) {
            self.calls.add(call);
        }
    }

    /// Takes the names in that a decision brings. Its count is not taken: it is in the control
    /// database, and names are sets, so that a repetition changes nothing.
    pub(crate) fn take_names(&mut self, decision: &Decision) {
        self.summary.add_names(decision);
    }

    /// All that is known of the trace.
    pub(crate) fn whole(&self) -> TraceSummary {
        let mut whole = self.summary.clone();
        whole.decision_count = self.decision_count;
        whole
    }

    /// Bytes that it takes in memory, roughly, for the bound of the cache.
    pub(crate) fn weight(&self) -> usize {
        let spans = self.seen.len() + self.conflicts.len();
        TRACE_BYTES + spans * SPAN_BYTES + self.calls.len() * CALL_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_spans_are_duplicates_and_others_conflict_once() {
        let mut trace = HotTrace::new(TraceId::from_u128(1), 1);
        let id = SpanId::from_u64(1);
        let seen = [(id, 7), (id, 7), (id, 8), (id, 8), (id, 7), (SpanId::from_u64(2), 8)];
        use Novelty::{Conflict, Duplicate, New};
        assert_eq!(
            seen.map(|(id, sum)| trace.see(id, sum)),
            [New, Duplicate, Conflict, Duplicate, Duplicate, New]
        );
    }
}
