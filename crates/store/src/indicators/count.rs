//! A segment counted from its rows, for indicators that are newer than its spans.
//!
//! It reads one snapshot of the segment, in pieces, with pauses between them. While that of the *open*
//! segment is read, which is so after every change of rules that brings an indicator, its write-ahead log
//! cannot begin anew and grows by what comes in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension as _};
use throughline_trace::{Call, CallLedger, Observation, SpanFacts, TraceId, is_call};

use super::observer::Watching;
use super::parts::CountDelta;
use crate::earlier::EarlierSegments;
use crate::layout::{Layout, SegmentId};
use crate::prepare::share;
use crate::read_spans::RowReader;
use crate::rollups::{Deltas, Horizon, Standing, is_thinned};
use crate::sampled;
use crate::schema::{SEGMENT, SchemaError};
use crate::trace_rows::{self, RowError};

/// How long one piece takes.
const PIECE: Duration = Duration::from_millis(200);

/// A segment that is being counted.
#[derive(Debug)]
pub(crate) struct Count {
    pub(crate) id: SegmentId,
    /// Who lacked a part.
    pub(crate) indicators: Vec<Arc<str>>,
    /// The last group of the snapshot.
    pub(crate) batch_no: u64,
    watching: Watching,
    /// In one read transaction from begin to end.
    connection: Connection,
    layout: Layout,
    /// Asked for traces that go on from before; loaded with the first of them.
    earlier: Option<EarlierSegments>,
    is_estimate: bool,
    /// The last trace that was counted.
    trace_no: i64,
}

/// What goes wrong while a segment is counted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CountError {
    #[error(transparent)]
    Row(#[from] RowError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl From<rusqlite::Error> for CountError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Row(error.into())
    }
}

impl Count {
    /// Takes a snapshot of a segment. Whoever calls it has applied no group that is not in it.
    /// `earlier` is what an earlier count of a segment that is not older had loaded.
    pub(crate) fn begin(
        layout: &Layout,
        id: SegmentId,
        earlier: Option<EarlierSegments>,
        watching: Watching,
        indicators: Vec<Arc<str>>,
    ) -> Result<Self, SchemaError> {
        let connection = SEGMENT.open_reader(&layout.whole(id))?;
        connection.execute_batch("BEGIN")?;
        let is_estimate = is_thinned(&connection)?;
        let batch_no: i64 =
            connection.query_row("SELECT batch_no FROM state", [], |row| row.get(0))?;
        Ok(Self {
            id,
            indicators,
            batch_no: batch_no as u64,
            watching,
            connection,
            layout: layout.clone(),
            earlier: earlier.map(|earlier| earlier.before(id)),
            is_estimate,
            trace_no: 0,
        })
    }

    /// The segments before it, if it needed them, for the count of one that is older.
    pub(crate) fn into_earlier(self) -> Option<EarlierSegments> {
        self.earlier
    }

    /// How the parts stand when all is counted.
    pub(crate) fn standing(&self) -> Standing {
        if self.is_estimate { Standing::Incomplete } else { Standing::Whole }
    }

    /// Counts further traces for a moment; whether that was the last.
    pub(crate) fn step(&mut self) -> Result<(Vec<CountDelta>, bool), CountError> {
        let begin = Instant::now();
        let mut found = Vec::new();
        while begin.elapsed() < PIECE {
            let next: Option<(i64, Vec<u8>)> = self
                .connection
                .prepare_cached(
                    "SELECT trace_no, trace_id FROM traces
                        WHERE trace_no > ?1 AND continues IS NULL ORDER BY trace_no LIMIT 1",
                )?
                .query_row([self.trace_no], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let Some((trace_no, id)) = next else { return Ok((found, true)) };
            self.trace_no = trace_no;
            if let Ok(id) = TraceId::from_slice(&id) {
                self.trace(id, trace_no, &mut found)?;
            }
        }
        Ok((found, false))
    }

    fn trace(
        &mut self,
        id: TraceId,
        trace_no: i64,
        found: &mut Vec<CountDelta>,
    ) -> Result<(), CountError> {
        let Some(trace) = trace_rows::at(&self.connection, trace_no)? else { return Ok(()) };
        let weight = match self.is_estimate {
            true => sampled::of(&self.connection, id)?.map_or(1.0, |sampled| sampled.weight),
            false => 1.0,
        };
        let horizon = Horizon::new(trace.summary.received_unix_nano, self.id.day);
        let mut calls = CallLedger::default();
        if trace.is_carried {
            let earlier = match &mut self.earlier {
                Some(earlier) => earlier,
                none => none.insert(EarlierSegments::load(&self.layout, self.id)?),
            };
            // Calls of earlier segments: what they take back, or lose by, is this one's doing.
            earlier.find(id, &self.watching, |span| {
                if let Some(call) = span.call {
                    calls.add(call);
                }
            });
        }
        let (mut deltas, mut dimensions) = (Deltas::default(), Vec::new());
        let mut observed: Vec<Observation> = Vec::new();
        RowReader::new(&self.connection).spans(id, &trace.spaces, |span, _| {
            self.watching.observe(&span, &mut observed);
            observed.retain(|one| self.indicators.contains(&one.indicator));
            let role = span.role();
            if observed.is_empty() && !is_call(role) {
                return true;
            }
            let facts = SpanFacts::of(&span, role, |of| share(&mut dimensions, of));
            let facts = horizon.filed(&facts).unwrap_or(facts).observed(&observed);
            deltas.observe(&facts, 1);
            if is_call(role) {
                let time = (span.start_unix_nano, span.end_unix_nano);
                let call =
                    Call::of_parts(span.span_id, span.parent_span_id, time, &span.attributes);
                calls.add_telling(call.with_facts(facts), |facts| deltas.observe(facts, -1));
            }
            true
        })?;
        let of_these = |(indicator, ..): &(Arc<str>, _, _)| self.indicators.contains(indicator);
        for (indicator, minute, mut counts) in deltas.into_counts().filter(of_these) {
            if weight > 1.0 {
                for number in [&mut counts.total, &mut counts.good, &mut counts.sum_micros] {
                    *number = (*number as f64 * weight).round() as i64;
                }
            }
            found.push(CountDelta { batch_no: None, indicator, minute, counts });
        }
        Ok(())
    }
}
