//! Spans by falling start, without reading all of them: traces are taken by their falling end, and
//! a span may be given out as soon as no trace that is still to come ends behind its start.
//!
//! It rests on a trace's end being that of its latest span, and on no span ending before its start:
//! ingest mends those that say so.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};

use super::source::Source;
use super::span_scan::{Candidate, Looks, SpanRow, Wanted, candidates, spans_of};
use crate::error::QueryError;
use crate::layout::Day;
use crate::session::Segment;

/// Traces that are put in order at once; further ones in another round over the segments' traces.
const MAX_ORDERED_TRACES: usize = 50_000;

/// Bytes of spans that wait for their turn.
pub(super) const MAX_ORDERED_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of spans that wait up to which they are read with their bodies.
const MAX_BODY_BYTES_WAITING: usize = 16 * 1024 * 1024;

/// Where a trace stands in the order.
type Place = (u64, Day, i64);

/// A walk over the spans of all segments, by falling start.
#[derive(Debug)]
pub(super) struct ByTime {
    source: Source,
    wanted: Wanted,
    segments: Vec<Segment>,
    looks: Looks,
    /// Latest end first.
    traces: VecDeque<(Day, Candidate)>,
    /// Traces at or behind it were taken already.
    bound: Option<Place>,
    is_whole: bool,
    waiting: BinaryHeap<Waiting>,
    waiting_bytes: usize,
}

#[derive(Debug)]
struct Waiting(SpanRow);

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        let place = |row: &SpanRow| (row.start_unix_nano, row.day, row.key);
        place(&self.0).cmp(&place(&other.0))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Waiting {}

impl ByTime {
    pub(super) fn new(source: &Source, wanted: Wanted, segments: Vec<Segment>) -> Self {
        Self {
            source: source.clone(),
            looks: Looks::new(source),
            wanted,
            segments,
            traces: VecDeque::new(),
            bound: None,
            is_whole: false,
            waiting: BinaryHeap::new(),
            waiting_bytes: 0,
        }
    }

    /// The next row.
    pub(super) fn next(&mut self) -> Result<Option<SpanRow>, QueryError> {
        loop {
            if self.traces.is_empty() && !self.is_whole {
                self.refill()?;
            }
            let end = self.traces.front().map(|(_, trace)| trace.end_unix_nano);
            let is_due = |row: &Waiting| end.is_none_or(|end| row.0.start_unix_nano >= end);
            if self.waiting.peek().is_some_and(is_due) {
                let row = self.waiting.pop().map(|waiting| waiting.0);
                self.waiting_bytes -= row.as_ref().map_or(0, SpanRow::bytes);
                return Ok(row);
            }
            let Some((day, trace)) = self.traces.pop_front() else { return Ok(None) };
            self.check_time()?;
            let with_bodies =
                self.wanted.with_bodies && self.waiting_bytes < MAX_BODY_BYTES_WAITING;
            let wanted = self.wanted.with_bodies(with_bodies);
            let lease = self.looks.lease(day)?;
            let rows = spans_of(lease, day, trace.trace_id, &wanted)
                .map_err(|error| error.on_query(lease.path()))?;
            for row in rows {
                self.waiting_bytes += row.bytes();
                self.waiting.push(Waiting(row));
            }
            if self.waiting_bytes > MAX_ORDERED_BYTES {
                return Err(self.source.needs_too_much());
            }
        }
    }

    fn check_time(&self) -> Result<(), QueryError> {
        if self.source.is_over() {
            return Err(QueryError::Timeout { limit_ms: crate::reader::MAX_QUERY_MILLIS });
        }
        Ok(())
    }

    /// Puts the traces with the latest ends below the bound in order.
    fn refill(&mut self) -> Result<(), QueryError> {
        // The least of the latest is on top, to be dropped first.
        let mut latest: BinaryHeap<Reverse<(Place, [u8; 16])>> = BinaryHeap::new();
        let mut is_whole = true;
        for segment in &self.segments {
            let day = segment.day;
            let mut next_trace = 0;
            loop {
                if self.source.is_over() {
                    return Err(QueryError::Timeout { limit_ms: crate::reader::MAX_QUERY_MILLIS });
                }
                let lease = self.looks.lease(day)?;
                let found = candidates(lease, &self.wanted, &mut next_trace)
                    .map_err(|error| error.on_query(lease.path()))?;
                let Some(found) = found else { break };
                for trace in found {
                    let place = (trace.end_unix_nano, day, trace.trace_no);
                    if self.bound.is_some_and(|bound| place >= bound) {
                        continue;
                    }
                    latest.push(Reverse((place, *trace.trace_id.as_bytes())));
                    if latest.len() > MAX_ORDERED_TRACES {
                        latest.pop();
                        is_whole = false;
                    }
                }
            }
        }
        let sorted = latest.into_sorted_vec();
        self.is_whole = is_whole;
        self.bound = sorted.last().map(|Reverse((place, _))| *place);
        self.traces = sorted
            .into_iter()
            .filter_map(|Reverse(((end_unix_nano, day, trace_no), id))| {
                let trace_id = throughline_trace::TraceId::from_bytes(id)?;
                Some((day, Candidate { trace_no, trace_id, end_unix_nano }))
            })
            .collect();
        Ok(())
    }
}
