//! Spans by falling start, without reading all of them: traces are taken by their falling end, and
//! a span may be given out as soon as no trace that is still to come ends behind its start.
//!
//! It rests on a trace's end being that of its latest span, and on no span ending before its start:
//! ingest mends those that say so.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};

use throughline_trace::TraceId;

use super::source::Source;
use super::span_scan::{Candidate, Looks, SpanRow, Wanted, candidates, read, window_of_trace};
use crate::error::QueryError;
use crate::layout::SegmentId;
use crate::session::Segment;

/// Traces that are put in order at once; further ones in another round over the segments' traces.
const MAX_ORDERED_TRACES: usize = if cfg!(test) { 7 } else { 50_000 };

/// Bytes of spans that wait for their turn.
const MAX_ORDERED_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of spans that wait up to which they are read with their bodies.
const MAX_BODY_BYTES_WAITING: usize = 16 * 1024 * 1024;

/// Where a trace stands in the order.
type Place = (u64, SegmentId, i64);

/// A walk over the spans of all segments, by falling start.
#[derive(Debug)]
pub(super) struct ByTime {
    source: Source,
    wanted: Wanted,
    segments: Vec<Segment>,
    looks: Looks,
    /// Latest end first.
    traces: VecDeque<(SegmentId, Candidate)>,
    /// Traces at or behind it were taken already.
    bound: Option<Place>,
    is_whole: bool,
    waiting: BinaryHeap<Waiting>,
    waiting_bytes: usize,
    /// Start of the row that was given out last.
    last_start: u64,
    /// Whether bodies are asked for.
    asks_bodies: bool,
}

#[derive(Debug)]
struct Waiting(SpanRow);

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        let place = |row: &SpanRow| (row.start_unix_nano, row.segment, row.key);
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
            asks_bodies: wanted.with_bodies,
            wanted,
            segments,
            traces: VecDeque::new(),
            bound: None,
            is_whole: false,
            waiting: BinaryHeap::new(),
            waiting_bytes: 0,
            last_start: u64::MAX,
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
            if self.waiting.peek().is_some_and(is_due)
                && let Some(Waiting(row)) = self.waiting.pop()
            {
                self.waiting_bytes -= row.bytes();
                // Committed after its trace had its place: the order is a promise, seeing what comes
                // meanwhile is none.
                if row.start_unix_nano > self.last_start {
                    continue;
                }
                self.last_start = row.start_unix_nano;
                return Ok(Some(row));
            }
            let Some((segment, trace)) = self.traces.pop_front() else { return Ok(None) };
            self.take_in(segment, trace.trace_id)?;
        }
    }

    /// Reads the spans of a trace, a part at a time: each looks at the clock and at what waits.
    fn take_in(&mut self, segment: SegmentId, id: TraceId) -> Result<(), QueryError> {
        let lease = self.looks.lease(segment)?;
        let window = window_of_trace(lease, id).map_err(|error| error.on_query(lease.path()))?;
        let mut window = window.unwrap_or_default();
        let mut rows = VecDeque::new();
        while !window.ranges.is_empty() {
            self.source.check_time()?;
            self.wanted.with_bodies =
                self.asks_bodies && self.waiting_bytes < MAX_BODY_BYTES_WAITING;
            let lease = self.looks.lease(segment)?;
            read(lease, segment, &self.wanted, &mut window, &mut rows)
                .map_err(|error| error.on_query(lease.path()))?;
            for row in rows.drain(..) {
                self.waiting_bytes += row.bytes();
                self.waiting.push(Waiting(row));
            }
            if self.waiting_bytes > MAX_ORDERED_BYTES {
                return Err(self.source.needs_too_much());
            }
        }
        Ok(())
    }

    /// Puts the traces with the latest ends below the bound in order.
    fn refill(&mut self) -> Result<(), QueryError> {
        // The least of the latest is on top, to be dropped first.
        let mut latest: BinaryHeap<Reverse<(Place, [u8; 16])>> = BinaryHeap::new();
        let mut is_whole = true;
        for segment in &self.segments {
            let segment = segment.id;
            let mut next_trace = 0;
            loop {
                self.source.check_time()?;
                let lease = self.looks.lease(segment)?;
                let found = candidates(lease, &self.wanted, &mut next_trace)
                    .map_err(|error| error.on_query(lease.path()))?;
                let Some(found) = found else { break };
                for trace in found {
                    let place = (trace.end_unix_nano, segment, trace.trace_no);
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
            .filter_map(|Reverse(((end_unix_nano, segment, trace_no), id))| {
                let trace_id = TraceId::from_bytes(id)?;
                Some((segment, Candidate { trace_no, trace_id, end_unix_nano }))
            })
            .collect();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use throughline_trace::{Span, SpanBatch, SpanId, TraceId};

    use super::*;
    use crate::{SqlQuery, SqlValue, Store, StoreOptions};

    #[tokio::test]
    async fn rounds_over_many_traces_leave_nothing_out_and_keep_the_order() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreOptions::new(dir.path()), &mut Registry::default()).unwrap();
        let mut spans = Vec::new();
        for trace in 1..=40_u64 {
            for id in 1..=3 {
                let (trace_id, span_id) = (TraceId::from_u128(trace.into()), SpanId::from_u64(id));
                let mut span = Span::new(trace_id, span_id, None, "a");
                // Traces begin and end in different orders, and one is longer than all others.
                span.start_unix_nano = 1_000_000 + trace * 37 % 97 + id * 3;
                let lasts = if trace == 5 { 900 } else { trace * 53 % 41 };
                span.end_unix_nano = span.start_unix_nano + lasts;
                spans.push(span);
            }
        }
        let mut expected: Vec<i64> = spans.iter().map(|span| span.start_unix_nano as i64).collect();
        expected.sort_unstable_by_key(|start| Reverse(*start));
        assert!(expected.len() > 3 * MAX_ORDERED_TRACES);
        let batch = SpanBatch { spans, ..SpanBatch::default() };
        store.inbox().commit(batch).await.unwrap();
        let text = "SELECT start_unix_nano FROM spans ORDER BY start_unix_nano DESC";
        let answer = store.reader().sql(SqlQuery::new(text)).await.unwrap();
        let starts: Vec<i64> = answer
            .rows
            .iter()
            .map(|row| match row[0] {
                SqlValue::Integer(start) => start,
                _ => panic!("a start is a number"),
            })
            .collect();
        assert_eq!(starts, expected);
        store.close().await.unwrap();
    }
}
