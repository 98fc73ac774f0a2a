//! What a group adds to rollups: one entry for each combination of all dimensions and minute, from
//! which the cells of the lattice follow.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use rusqlite::{Connection, params};
use throughline_trace::{Counts, Decision, Dimensions, DimensionsRef, Rollup, SpanFacts};

use crate::body::{self, BodyError};
use crate::clock::MAX_UNDOUBTED_DAYS;
use crate::layout::{Day, NANOS_PER_DAY};
use crate::schema::from_nanos;
use crate::trace_rows::RowError;

/// First byte of a stored delta: postcard of a list of dimensions, minute and sums.
const VERSION_V1: u8 = 1;

/// The same, and behind it a list of indicator, minute and counts.
const VERSION_V2: u8 = 2;

/// Nanoseconds in a minute.
const NANOS_PER_MINUTE: u64 = 60_000_000_000;

/// No telemetry ended before this (2015-01-01): a clock that says so was never set. Nanoseconds
/// since the Unix epoch.
const EARLIEST_UNIX_NANO: u64 = 1_420_070_400_000_000_000;

/// How far a sender's clock may be ahead of ours, nanoseconds (an hour: a wrong time zone is more).
pub(crate) const MAX_AHEAD_NANO: u64 = 3_600_000_000_000;

/// What times are believed of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Horizon {
    latest_unix_nano: u64,
    /// What an unbelievable time is filed under.
    stand_in_unix_nano: u64,
}

impl Horizon {
    /// For what arrived at a time by the server's clock, into the segment of a day. That clock is
    /// believed as far as the writer believes it.
    pub(crate) fn new(received_unix_nano: u64, day: Day) -> Self {
        let end_of_days = (day.0 + 1 + MAX_UNDOUBTED_DAYS).max(0) as u64;
        let limit = end_of_days.saturating_mul(NANOS_PER_DAY).max(EARLIEST_UNIX_NANO);
        let received = received_unix_nano.clamp(EARLIEST_UNIX_NANO, limit);
        Self {
            latest_unix_nano: received.saturating_add(MAX_AHEAD_NANO).min(limit),
            stand_in_unix_nano: received,
        }
    }

    /// The time to file under, and whether it is not the one that was told.
    pub(crate) fn judge(&self, told_unix_nano: u64) -> (u64, bool) {
        if (EARLIEST_UNIX_NANO..=self.latest_unix_nano).contains(&told_unix_nano) {
            (told_unix_nano, false)
        } else {
            (self.stand_in_unix_nano, true)
        }
    }

    /// The facts of a span, filed under a time that can be.
    pub(crate) fn filed(&self, facts: &SpanFacts) -> Option<SpanFacts> {
        let (end_unix_nano, is_misdated) = self.judge(facts.end_unix_nano);
        is_misdated.then(|| facts.misdated(end_unix_nano))
    }
}

/// The last group of a segment that adds anything to rollups, or of which its deltas do not tell: the
/// part of the segment is whole only with it.
pub(crate) fn counted_until(segment: &Connection) -> Result<u64, rusqlite::Error> {
    let sql = "SELECT max(complete_from, coalesce((SELECT max(batch_no) FROM rollup_deltas), 0))
        FROM rollup_state";
    segment.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0)).map(|last| last as u64)
}

/// Whether rows were taken out of a segment.
pub(crate) fn is_thinned(segment: &Connection) -> Result<bool, rusqlite::Error> {
    segment.prepare_cached("SELECT is_thinned FROM rollup_state")?.query_row([], |row| row.get(0))
}

/// What one group, or one piece of a rebuild, adds up to.
#[derive(Debug, Default)]
pub(crate) struct Deltas {
    cells: Vec<(Arc<Dimensions>, u64, Rollup)>,
    /// Places in `cells` by where the dimensions lie in memory: spans of one batch share them. The
    /// entry keeps them alive, so that no other dimensions come to lie there.
    by_pointer: HashMap<(usize, u64), (Arc<Dimensions>, usize), RandomState>,
    by_content: HashMap<(Arc<Dimensions>, u64), usize, RandomState>,
    /// What indicators count, by indicator and minute.
    counts: HashMap<(Arc<str>, u64), Counts, RandomState>,
}

/// What [`Deltas::store`] wrote.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Stored {
    /// Dimensions, minute, sums.
    pub(crate) cells: Vec<(Dimensions, u64, Rollup)>,
    /// Indicator, minute, counts.
    pub(crate) counts: Vec<(String, u64, Counts)>,
}

impl Deltas {
    /// Adds a span.
    pub(crate) fn add_span(&mut self, facts: &SpanFacts) {
        self.cell(&facts.dimensions, facts.end_unix_nano).add_span(facts);
        self.observe(facts, 1);
    }

    /// Adds what indicators count of a span, `times` over, and nothing else.
    pub(crate) fn observe(&mut self, facts: &SpanFacts, times: i64) {
        let minute = facts.end_unix_nano / NANOS_PER_MINUTE;
        for one in facts.observations() {
            let counts = self.counts.entry((Arc::clone(&one.indicator), minute)).or_default();
            counts.add(one.counts, times);
        }
    }

    /// Takes back a call that is told twice.
    pub(crate) fn take_back(&mut self, facts: &SpanFacts) {
        self.cell(&facts.dimensions, facts.end_unix_nano).take_back(facts);
        self.observe(facts, -1);
    }

    /// Adds a decision.
    pub(crate) fn add_decision(&mut self, decision: &Decision, day: Day) {
        let horizon = Horizon::new(decision.received_at_ns, day);
        let (time, is_misdated) = horizon.judge(decision.timestamp_ns);
        let dimensions = DimensionsRef::of_decision(decision).to_shared();
        self.cell(&dimensions, time).add_decision(decision, is_misdated);
    }

    fn cell(&mut self, dimensions: &Arc<Dimensions>, unix_nano: u64) -> &mut Rollup {
        let minute = unix_nano / NANOS_PER_MINUTE;
        let Self { cells, by_pointer, by_content, .. } = self;
        let pointer = Arc::as_ptr(dimensions) as usize;
        let (_, at) = by_pointer.entry((pointer, minute)).or_insert_with(|| {
            let at = *by_content.entry((Arc::clone(dimensions), minute)).or_insert_with(|| {
                cells.push((Arc::clone(dimensions), minute, Rollup::default()));
                cells.len() - 1
            });
            (Arc::clone(dimensions), at)
        });
        &mut cells[*at].2
    }

    /// Whether nothing was added.
    pub(crate) fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Hands over what was added: dimensions, minute since the Unix epoch, sums.
    pub(crate) fn into_cells(self) -> Vec<(Arc<Dimensions>, u64, Rollup)> {
        self.cells
    }

    /// Hands over what indicators counted: indicator, minute since the Unix epoch, counts.
    pub(crate) fn into_counts(self) -> impl Iterator<Item = (Arc<str>, u64, Counts)> {
        self.counts.into_iter().map(|((indicator, minute), counts)| (indicator, minute, counts))
    }

    /// Writes the group's row.
    pub(crate) fn store(
        &self,
        segment: &Connection,
        batch_no: u64,
        received_unix_nano: u64,
    ) -> Result<(), RowError> {
        if self.is_empty() {
            return Ok(());
        }
        let mut bytes = vec![if self.counts.is_empty() { VERSION_V1 } else { VERSION_V2 }];
        let rows: Vec<(&Dimensions, u64, &Rollup)> =
            self.cells.iter().map(|(of, minute, sums)| (of.as_ref(), *minute, sums)).collect();
        body::encode_into(&rows, &mut bytes)?;
        if !self.counts.is_empty() {
            let counts: Vec<(&str, u64, Counts)> = self
                .counts
                .iter()
                .map(|((of, minute), counts)| (&**of, *minute, *counts))
                .collect();
            body::encode_into(&counts, &mut bytes)?;
        }
        segment
            .prepare_cached("INSERT INTO rollup_deltas VALUES (?1, ?2, ?3)")?
            .execute(params![batch_no as i64, from_nanos(received_unix_nano), bytes])?;
        Ok(())
    }

    /// What [`Deltas::store`] wrote.
    pub(crate) fn read(bytes: &[u8]) -> Result<Stored, BodyError> {
        match bytes.split_first() {
            None => Err(BodyError::Empty),
            Some((&VERSION_V1, rest)) => {
                Ok(Stored { cells: body::decode(rest)?, counts: Vec::new() })
            }
            Some((&VERSION_V2, rest)) => {
                let (cells, counts) = body::decode(rest)?;
                Ok(Stored { cells, counts })
            }
            Some((version, _)) => Err(BodyError::Version(*version)),
        }
    }
}
