//! What is known of the traces of a closed segment before sampling judges them: their summaries over
//! all segments, their decisions and holds, and how others of their kind were.

use std::collections::HashMap;
use std::path::PathBuf;

use rusqlite::{Connection, OptionalExtension as _, params, params_from_iter};
use throughline_trace::{
    Cuboid, OperationKind, Resolution, Rollup, Severity, TraceId, TraceSummary,
};

use crate::audit::holds::{self, Hold};
use crate::id_filter::IdFilter;
use crate::keep::{KeepError, skeleton};
use crate::layout::{Layout, SegmentId};
use crate::rollups::{cuboid_keys, read_cell};
use crate::sampled;
use crate::sampling::{BASELINE_DAYS, Baselines, Case, Decided, Sampling, quiet_at, slow_limit};
use crate::schema::{ROLLUPS, SEGMENT};
use crate::trace_rows::{self, TraceRows};
use crate::{decisions_of_trace, derived_rows};

/// Other segments whose connections are kept open.
const MAX_OPEN: usize = 16;

/// Page cache of a connection to another segment, KiB.
const CACHE_KIB: i64 = 1_024;

/// The traces of one segment, as sampling sees them.
pub(crate) struct Cases<'a> {
    layout: &'a Layout,
    control: &'a Connection,
    pub(super) segment: &'a Connection,
    id: SegmentId,
    holds: Vec<Hold>,
    /// Later segments, newest first, and earlier ones.
    pub(super) later: Vec<Other>,
    pub(super) earlier: Vec<Other>,
    open: Vec<(PathBuf, Connection)>,
}

/// Another segment.
pub(super) struct Other {
    pub(super) id: SegmentId,
    /// Which traces may be there; none for the segment that is written.
    filter: Option<IdFilter>,
}

/// A trace of the segment.
#[derive(Debug)]
pub(crate) struct Known {
    /// Over all segments.
    pub(crate) summary: TraceSummary,
    /// Its row in the segment.
    pub(crate) trace_no: i64,
    /// Whether earlier segments know it too.
    pub(crate) is_carried: bool,
    pub(crate) decided: Decided,
    pub(crate) is_held: bool,
    pub(crate) has_error_log: bool,
}

impl Known {
    /// The case, at a time (nanoseconds since the Unix epoch).
    pub(crate) fn case(&self, sampling: &Sampling, now_unix_nano: u64) -> Case<'_> {
        Case {
            summary: &self.summary,
            decided: self.decided,
            is_held: self.is_held,
            has_error_log: self.has_error_log,
            is_running: quiet_at(&self.summary, sampling) > now_unix_nano,
        }
    }
}

impl<'a> Cases<'a> {
    /// Looks at which other segments there are.
    pub(crate) fn open(
        layout: &'a Layout,
        control: &'a Connection,
        segment: &'a Connection,
        id: SegmentId,
    ) -> Result<Self, KeepError> {
        let holds = holds::in_force(control)?;
        let (mut later, mut earlier) = (Vec::new(), Vec::new());
        for other in layout.list()?.into_iter().filter(|other| *other != id) {
            let connection = match SEGMENT.open_reader(&layout.file_of(other)) {
                Ok(connection) => connection,
                // What cannot be read says nothing of any trace, now or later.
                Err(error) => {
                    tracing::debug!(segment = other.stem(), %error, "not asked about traces");
                    continue;
                }
            };
            let bits: Option<Vec<u8>> = connection
                .query_row("SELECT bits FROM trace_filter", [], |row| row.get(0))
                .optional()?;
            let other = Other { id: other, filter: bits.and_then(IdFilter::from_bytes) };
            if other.id > id {
                later.push(other);
            } else {
                earlier.push(other);
            }
        }
        Ok(Self { layout, control, segment, id, holds, later, earlier, open: Vec::new() })
    }

    /// Tells `tell` every trace of the segment, by its row number.
    pub(crate) fn each(
        &mut self,
        mut tell: impl FnMut(&mut Self, Known) -> Result<(), KeepError>,
    ) -> Result<(), KeepError> {
        self.each_row(|cases, trace_no, is_carried, part| {
            let known = cases.known(trace_no, is_carried, part)?;
            tell(cases, known)
        })
    }

    /// Tells `tell` the summaries over all segments of every trace of the segment: as much as says
    /// when it may be judged.
    fn each_summary(
        &mut self,
        mut tell: impl FnMut(TraceSummary) -> Result<(), KeepError>,
    ) -> Result<(), KeepError> {
        self.each_row(|cases, _, _, part| tell(cases.whole(part, None)?))
    }

    fn each_row(
        &mut self,
        mut tell: impl FnMut(&mut Self, i64, bool, TraceSummary) -> Result<(), KeepError>,
    ) -> Result<(), KeepError> {
        let segment = self.segment;
        let mut statement = segment.prepare(
            "SELECT trace_no, carried, summary FROM traces WHERE continues IS NULL
                ORDER BY trace_no",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            tell(self, row.get(0)?, row.get(1)?, trace_rows::summary(row, 2)?)?;
        }
        Ok(())
    }

    fn known(
        &mut self,
        trace_no: i64,
        is_carried: bool,
        part: TraceSummary,
    ) -> Result<Known, KeepError> {
        let id = part.trace_id;
        let mut has_error_log = part.log_count > 0 && has_error_log(self.segment, trace_no)?;
        let mut summary = self.whole(part, Some(&mut has_error_log))?;
        if is_carried && !has_error_log {
            has_error_log = self.had_error_log(id)?;
        }
        let decided = decided(self.control, id)?;
        summary.decision_count = decided.count;
        let is_held = self.holds.iter().any(|hold| skeleton::is_held(hold, &summary));
        Ok(Known { summary, trace_no, is_carried, decided, is_held, has_error_log })
    }

    /// The summary of a trace over all segments, of which `part` is what this one and those before it
    /// know. `has_error_log` is set when a later segment has such a record of it.
    fn whole(
        &mut self,
        part: TraceSummary,
        mut has_error_log: Option<&mut bool>,
    ) -> Result<TraceSummary, KeepError> {
        let id = part.trace_id;
        let mut whole: Option<TraceSummary> = None;
        let mut is_whole = false;
        for at in 0..self.later.len() {
            if is_whole && has_error_log.is_none() {
                break;
            }
            if !may_know(&self.later[at], id) {
                continue;
            }
            let connection = self.connection(self.later[at].id)?;
            let Some(rows) = trace_rows::find(connection, id)? else { continue };
            if let Some(found) = &mut has_error_log {
                **found |= has_error_log_of(connection, &rows)?;
            }
            if !is_whole {
                is_whole = rows.is_carried;
                match &mut whole {
                    Some(whole) => whole.merge(rows.summary),
                    None => whole = Some(rows.summary),
                }
            }
        }
        Ok(match whole {
            Some(whole) if is_whole => whole,
            Some(mut whole) => {
                whole.merge(part);
                whole
            }
            None => part,
        })
    }

    /// Whether an earlier segment has a log record of severity ERROR or above of the trace.
    fn had_error_log(&mut self, id: TraceId) -> Result<bool, KeepError> {
        for at in 0..self.earlier.len() {
            if !may_know(&self.earlier[at], id) {
                continue;
            }
            let connection = self.connection(self.earlier[at].id)?;
            let rows = trace_rows::find(connection, id)?;
            if rows.map_or(Ok(false), |rows| has_error_log_of(connection, &rows))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether sampling took spans of the trace from an earlier segment.
    pub(crate) fn was_dropped_before(&mut self, id: TraceId) -> Result<bool, KeepError> {
        for at in 0..self.earlier.len() {
            if !may_know(&self.earlier[at], id) {
                continue;
            }
            let connection = self.connection(self.earlier[at].id)?;
            if sampled::of(connection, id)?.is_some_and(|sampled| sampled.spans_dropped > 0) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn connection(&mut self, id: SegmentId) -> Result<&Connection, KeepError> {
        let path = self.layout.file_of(id);
        if let Some(at) = self.open.iter().position(|(of, _)| *of == path) {
            return Ok(&self.open[at].1);
        }
        let connection = SEGMENT.open_reader(&path)?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        if self.open.len() >= MAX_OPEN {
            self.open.remove(0);
        }
        self.open.push((path, connection));
        Ok(&self.open[self.open.len() - 1].1)
    }

    /// How slow the operations of agents are, from the rollups of the days up to the segment's.
    pub(crate) fn slow_nanos(&self, quantile: f64) -> Result<HashMap<String, f64>, KeepError> {
        let rollups = ROLLUPS.open_reader(&self.layout.rollups())?;
        let (first, behind) = cuboid_keys(Cuboid::Agent);
        let last = self.id.day.0;
        let mut statement = rollups.prepare(
            "SELECT k.a, c.body FROM cells c JOIN keys k ON k.key = c.key
                WHERE c.resolution = ?1 AND c.bucket > ?2 AND c.bucket <= ?3
                    AND c.key >= ?4 AND c.key < ?5",
        )?;
        let from = last.saturating_sub(BASELINE_DAYS as i64);
        let mut rows =
            statement.query(params![Resolution::Day as i64, from, last, first, behind])?;
        let mut sums: HashMap<String, Rollup> = HashMap::new();
        while let Some(row) = rows.next()? {
            let body = row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?;
            let cell = read_cell(body).map_err(trace_rows::RowError::from)?;
            sums.entry(row.get(0)?).or_default().merge(&cell);
        }
        let slow = sums.into_iter().filter_map(|(agent, sums)| {
            let durations = &sums.operations(OperationKind::Root)?.durations;
            Some((agent, slow_limit(durations, quantile)?))
        });
        Ok(slow.collect())
    }
}

/// What is known of a segment before its traces are judged.
#[derive(Debug)]
pub(crate) enum Readiness {
    Ready(Baselines),
    /// A trace may go on until then, nanoseconds since the Unix epoch.
    NotBefore(u64),
}

/// Counts the kinds of the segment's traces, unless one of them still runs and `is_patient`.
pub(crate) fn look(
    cases: &mut Cases<'_>,
    sampling: &Sampling,
    now_unix_nano: u64,
    is_patient: bool,
    pause: &dyn Fn() -> Result<(), KeepError>,
) -> Result<Readiness, KeepError> {
    let mut baselines = Baselines::default();
    let mut waits_for: Option<u64> = None;
    cases.each_summary(|summary| {
        pause()?;
        let quiet_at = quiet_at(&summary, sampling);
        if is_patient && quiet_at > now_unix_nano {
            waits_for = waits_for.max(Some(quiet_at));
        }
        if let Some(rare) = sampling.always.rare {
            baselines.count(&summary, rare.by);
        }
        Ok(())
    })?;
    if let Some(quiet_at) = waits_for {
        return Ok(Readiness::NotBefore(quiet_at));
    }
    if let Some(quantile) = sampling.always.slow_quantile {
        baselines.slow_nanos = cases.slow_nanos(quantile)?;
    }
    Ok(Readiness::Ready(baselines))
}

pub(super) fn may_know(other: &Other, id: TraceId) -> bool {
    other.filter.as_ref().is_none_or(|filter| filter.may_contain(id))
}

/// Whether a log record of severity ERROR or above was written in the course of a trace.
fn has_error_log(segment: &Connection, trace_no: i64) -> Result<bool, rusqlite::Error> {
    segment
        .prepare_cached("SELECT 1 FROM logs WHERE trace_no = ?1 AND severity >= ?2 LIMIT 1")?
        .exists(params![trace_no, Severity::ERROR.0])
}

fn has_error_log_of(segment: &Connection, rows: &TraceRows) -> Result<bool, rusqlite::Error> {
    Ok(rows.summary.log_count > 0 && has_error_log(segment, rows.trace_no)?)
}

fn decided(control: &Connection, id: TraceId) -> Result<Decided, rusqlite::Error> {
    let sql =
        format!("SELECT body, confidence FROM decisions WHERE {}", decisions_of_trace::CONDITION);
    let mut statement = control.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(decisions_of_trace::values(id)))?;
    let mut decided = Decided::default();
    while let Some(row) = rows.next()? {
        decided.count += 1;
        // What cannot be read may have been recorded.
        let is_derived = derived_rows::is_of_span(row.get_ref(0)?.as_blob()?).unwrap_or(false);
        decided.recorded += u64::from(!is_derived);
        let confidence: Option<f64> = row.get(1)?;
        decided.least_confidence =
            decided.least_confidence.into_iter().chain(confidence).reduce(f64::min);
    }
    Ok(decided)
}
