//! A segment's part made anew from its spans: for data directories of versions without rollups, and
//! for a `rollups.db` that is missing or older than the segments.
//!
//! It reads one snapshot of the segment, which knows the number of the last group in it. When all is
//! counted, that number is noted, so that deltas of later groups are applied on top and earlier ones
//! passed over. It works in pieces, with pauses between them. While the snapshot of the *open*
//! segment is read, its write-ahead log cannot begin anew and grows by what comes in.

use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension as _};
use throughline_trace::{CallLedger, Dimensions, TraceId};

use super::cells::Sums;
use super::deltas::{Deltas, Horizon};
use crate::earlier::EarlierSegments;
use crate::indicators::Watching;
use crate::layout::{Layout, SegmentId};
use crate::schema::SEGMENT;
use crate::trace_rows::{self, RowError};

use super::applier::ApplyError;
use super::deltas::is_thinned;

/// How long one piece takes.
const PIECE: Duration = Duration::from_millis(200);

/// A rebuild under way.
#[derive(Debug)]
pub(super) struct Rebuild {
    id: SegmentId,
    /// In one read transaction from begin to end.
    connection: Connection,
    earlier: EarlierSegments,
    batch_no: u64,
    /// The last trace that was counted.
    trace_no: i64,
    spans: u64,
}

/// A piece of a rebuild.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) sums: Sums<std::sync::Arc<Dimensions>>,
    pub(super) is_end: bool,
}

impl Rebuild {
    /// Begins with a segment.
    pub(super) fn begin(layout: &Layout, id: SegmentId) -> Result<Self, ApplyError> {
        let connection = SEGMENT.open_reader(&layout.whole(id))?;
        connection.execute_batch("BEGIN")?;
        if is_thinned(&connection)? {
            return Err(ApplyError::Thinned);
        }
        let batch_no: i64 =
            connection.query_row("SELECT batch_no FROM state", [], |row| row.get(0))?;
        let earlier = EarlierSegments::load(layout, id)?;
        Ok(Self { id, connection, earlier, batch_no: batch_no as u64, trace_no: 0, spans: 0 })
    }

    pub(super) fn id(&self) -> SegmentId {
        self.id
    }

    /// The last group that is counted.
    pub(super) fn batch_no(&self) -> u64 {
        self.batch_no
    }

    /// Spans counted so far.
    pub(super) fn spans(&self) -> u64 {
        self.spans
    }

    /// Counts further traces for a moment.
    pub(super) fn step(&mut self) -> Result<Step, RowError> {
        let begin = Instant::now();
        let mut deltas = Deltas::default();
        while begin.elapsed() < PIECE {
            let next: Option<(i64, Vec<u8>)> = self
                .connection
                .prepare_cached(
                    "SELECT trace_no, trace_id FROM traces
                        WHERE trace_no > ?1 AND continues IS NULL ORDER BY trace_no LIMIT 1",
                )?
                .query_row([self.trace_no], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let Some((trace_no, id)) = next else {
                return Ok(Step { sums: deltas.into_cells(), is_end: true });
            };
            self.trace_no = trace_no;
            if let Ok(id) = TraceId::from_slice(&id) {
                self.count(id, trace_no, &mut deltas)?;
            }
        }
        Ok(Step { sums: deltas.into_cells(), is_end: false })
    }

    fn count(&mut self, id: TraceId, trace_no: i64, deltas: &mut Deltas) -> Result<(), RowError> {
        let Some(trace) = trace_rows::at(&self.connection, trace_no)? else { return Ok(()) };
        let horizon = Horizon::new(trace.summary.received_unix_nano, self.id.day);
        let mut calls = CallLedger::default();
        if trace.is_carried {
            // Calls of earlier days: what they take back, or lose by, is this day's doing.
            self.earlier.find(id, &Watching::default(), |span| {
                if let Some(call) = span.call {
                    calls.add(call);
                }
            });
        }
        let spans = &mut self.spans;
        trace_rows::told_spans(&self.connection, &trace.spaces, |call, facts| {
            let filed = horizon.filed(&facts).unwrap_or(facts);
            deltas.add_span(&filed);
            *spans += 1;
            if let Some(call) = call {
                calls.add_telling(call.with_facts(filed), |facts| deltas.take_back(facts));
            }
        })
    }
}
