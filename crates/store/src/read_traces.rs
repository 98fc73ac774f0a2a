//! The list of traces, and one trace with all that belongs to it.

use std::collections::HashSet;

use rusqlite::params;
use throughline_trace::{FallbackState, LogRecord, Span, TraceId, TraceSummary};

use crate::answer::{StoredTrace, Truncated};
use crate::decision_rows;
use crate::error::QueryError;
use crate::facet::{self, ALL_TRACES, FacetKind};
use crate::page::{self, List, Place};
use crate::query::{NANOS_PER_MILLI, Page, TraceFilter, contains_text};
use crate::read_spans::RowReader;
use crate::schema::{from_nanos, to_nanos};
use crate::session::{Lease, Segment, Session};
use crate::trace_rows::{self, RowError};

/// Most spans in one answer.
const MAX_TRACE_SPANS: usize = 50_000;

/// Most log records in one answer.
const MAX_TRACE_LOGS: usize = 10_000;

/// Most decisions in one answer.
const MAX_TRACE_DECISIONS: usize = 10_000;

/// Most bytes of attribute values in one answer, messages repeated.
const MAX_TRACE_BYTES: usize = 128 * 1024 * 1024;

/// Most distinct names of a segment that are searched for a text.
const MAX_SEARCHED_NAMES: usize = 2_000;

/// Most facets that are walked down together.
const MAX_UNITED_FACETS: usize = 32;

/// Facets that more than this share (one in so many) of the traces have are not worth uniting: a
/// walk down all traces finds a page of them soon.
const DENSE_SHARE: i64 = 8;

/// Traces that have spans and meet the filter, newest start first.
pub(crate) fn list(
    session: &Session,
    filter: &TraceFilter,
    cursor: Option<&str>,
    limit: usize,
) -> Result<Page<TraceSummary>, QueryError> {
    let after = Place::of_optional(List::Traces, cursor)?;
    let items = page::page_items(limit);
    let segments = session.segments()?;
    let several: HashSet<TraceId> =
        segments.iter().flat_map(|segment| segment.digest.carried.iter().copied()).collect();
    let mut found = Vec::new();
    for id in &several {
        session.check_time()?;
        let Some((place, whole)) = whole_of_several(session, &segments, *id)? else { continue };
        if after.is_none_or(|after| place < after) && filter.matches(&whole) {
            found.push((place, whole));
        }
    }
    let last = |segment: &Segment| segment.digest.starts.map(|(_, last)| last);
    let mut found =
        page::merge(session, &segments, found, items, last, |session, segment, want| {
            let lease = session.segment(segment.day)?;
            let walk = Walk { filter, after, several: &several, want };
            walk.segment(segment, &lease).map_err(|error| error.on_query(lease.path()))
        })?;
    let control = session.control()?;
    for (_, summary) in &mut found {
        summary.decision_count = decision_rows::count_of_trace(&control, summary.trace_id)
            .map_err(|error| error.on_query(control.path()))?;
    }
    Ok(page::to_page(List::Traces, found, items))
}

/// A trace that several segments know: it stands where its earliest part does.
fn whole_of_several(
    session: &Session,
    segments: &[Segment],
    id: TraceId,
) -> Result<Option<(Place, TraceSummary)>, QueryError> {
    let mut found: Option<(Place, TraceSummary)> = None;
    for segment in segments.iter().filter(|segment| segment.digest.may_know(id)) {
        let lease = session.segment(segment.day)?;
        let rows = trace_rows::find(&lease, id).map_err(|error| error.on_query(lease.path()))?;
        let Some(rows) = rows else { continue };
        let place = Place {
            time_unix_nano: rows.part.start_unix_nano,
            day: segment.day,
            row: rows.trace_no,
        };
        match &mut found {
            Some((earliest, whole)) => {
                *earliest = place.min(*earliest);
                whole.merge(rows.part);
            }
            None => found = Some((place, rows.part)),
        }
    }
    Ok(found)
}

/// A walk down the postings of one segment.
struct Walk<'a> {
    filter: &'a TraceFilter,
    after: Option<Place>,
    several: &'a HashSet<TraceId>,
    want: usize,
}

impl Walk<'_> {
    fn segment(
        &self,
        segment: &Segment,
        lease: &Lease,
    ) -> Result<Vec<(Place, TraceSummary)>, RowError> {
        let mut found = Vec::new();
        for facet in self.leading_facets(lease, segment.digest.traces)? {
            self.walk(segment, lease, facet, &mut found)?;
        }
        Ok(found)
    }

    /// Goes down the postings of one facet until enough is found.
    fn walk(
        &self,
        segment: &Segment,
        lease: &Lease,
        facet: i64,
        found: &mut Vec<(Place, TraceSummary)>,
    ) -> Result<(), RowError> {
        let (mut start, mut row) = Place::bound_in(self.after, segment.day);
        if let Some(before) = self.filter.start_before_unix_nano
            && from_nanos(before) <= start
        {
            (start, row) = (from_nanos(before), i64::MIN);
        }
        let from = self.filter.start_after_unix_nano.map_or(i64::MIN, from_nanos);
        let mut statement = lease.prepare_cached(
            "SELECT p.start, p.trace_no, t.trace_id, t.duration, t.errors, t.fallback, t.name,
                t.summary
             FROM postings p CROSS JOIN traces t ON t.trace_no = p.trace_no AND t.start = p.start
             WHERE p.facet = ?1 AND (p.start, p.trace_no) < (?2, ?3) AND p.start >= ?4
             ORDER BY p.start DESC, p.trace_no DESC",
        )?;
        let mut rows = statement.query(params![facet, start, row, from])?;
        let enough = found.len() + self.want;
        while found.len() < enough
            && let Some(row) = rows.next()?
        {
            if !self.may_match(row)? {
                continue;
            }
            let summary = trace_rows::summary(row, 7)?;
            if self.filter.matches(&summary) && !self.several.contains(&summary.trace_id) {
                let time_unix_nano = to_nanos(row.get(0)?);
                let place = Place { time_unix_nano, day: segment.day, row: row.get(1)? };
                found.push((place, summary));
            }
        }
        Ok(())
    }

    /// The facets to walk down: together they have every trace that may meet the filter, and none
    /// twice. That is the rarest facet that the filter names, or those of the names or durations
    /// that it accepts when they are few; else all traces.
    fn leading_facets(&self, lease: &Lease, traces: u64) -> Result<Vec<i64>, rusqlite::Error> {
        let filter = self.filter;
        let mut wanted: Vec<(FacetKind, &str)> = Vec::new();
        for (kind, value) in [
            (FacetKind::Session, &filter.session),
            (FacetKind::Agent, &filter.agent),
            (FacetKind::Model, &filter.model),
            (FacetKind::Service, &filter.service),
        ] {
            let fitting = value.as_deref().filter(|value| value.len() <= facet::MAX_FACET_BYTES);
            wanted.extend(fitting.map(|value| (kind, value)));
        }
        if filter.error == Some(true) {
            wanted.push((FacetKind::Error, ""));
        }
        if let Some(state) = filter.fallback.filter(|state| *state != FallbackState::None) {
            wanted.push((FacetKind::Fallback, state.as_str()));
        }
        let mut best = (ALL_TRACES, i64::MAX);
        for (kind, value) in wanted {
            let Some((facet, traces)) = facet::find(lease, kind, value)? else {
                return Ok(Vec::new());
            };
            if traces < best.1 {
                best = (facet, traces);
            }
        }
        let few = best.1.min(traces as i64 / DENSE_SHARE);
        for facets in [self.facets_of_text(lease)?, self.facets_of_duration(lease)?] {
            let Some(facets) = facets else { continue };
            if facets.len() <= MAX_UNITED_FACETS
                && facets.iter().map(|(_, traces)| traces).sum::<i64>() <= few
            {
                return Ok(facets.into_iter().map(|(facet, _)| facet).collect());
            }
        }
        Ok(vec![best.0])
    }

    fn facets_of_text(&self, lease: &Lease) -> Result<Option<Vec<(i64, i64)>>, rusqlite::Error> {
        let Some(text) = &self.filter.text else { return Ok(None) };
        facet::search(lease, FacetKind::Name, MAX_SEARCHED_NAMES, |name| {
            name == facet::LONG_NAMES || contains_text(name, text)
        })
    }

    fn facets_of_duration(
        &self,
        lease: &Lease,
    ) -> Result<Option<Vec<(i64, i64)>>, rusqlite::Error> {
        let (min, max) = (self.filter.min_duration_ms, self.filter.max_duration_ms);
        if min.is_none() && max.is_none() {
            return Ok(None);
        }
        let bucket = |ms: u64| facet::duration_bucket(ms.saturating_mul(NANOS_PER_MILLI));
        let fitting = min.map_or(0, bucket)..=max.map_or(u64::BITS, bucket);
        facet::search(lease, FacetKind::Duration, u64::BITS as usize + 1, |value| {
            value.parse().is_ok_and(|bucket: u32| fitting.contains(&bucket))
        })
    }

    /// Looks at the columns first: reading a summary costs more.
    fn may_match(&self, row: &rusqlite::Row<'_>) -> Result<bool, rusqlite::Error> {
        let filter = self.filter;
        if filter.min_duration_ms.is_some() || filter.max_duration_ms.is_some() {
            let nanos = row.get::<_, i64>(3)? as u64;
            let is_short = filter.min_duration_ms.is_some_and(|min| nanos / NANOS_PER_MILLI < min);
            let is_long = filter
                .max_duration_ms
                .is_some_and(|max| nanos > max.saturating_mul(NANOS_PER_MILLI));
            if is_short || is_long {
                return Ok(false);
            }
        }
        if let Some(error) = filter.error
            && error != (row.get::<_, i64>(4)? > 0)
        {
            return Ok(false);
        }
        if let Some(fallback) = filter.fallback
            && fallback as i64 != row.get::<_, i64>(5)?
        {
            return Ok(false);
        }
        match &filter.text {
            Some(text) => Ok(contains_text(row.get_ref(6)?.as_str()?, text)),
            None => Ok(true),
        }
    }
}

/// The summary of one trace, over all segments and its decisions.
pub(crate) fn summary(session: &Session, id: TraceId) -> Result<Option<TraceSummary>, QueryError> {
    let segments = session.segments()?;
    let found = whole_of_several(session, &segments, id)?.map(|(_, whole)| whole);
    let control = session.control()?;
    let fails = |error: RowError| error.on_query(control.path());
    let decision_count = decision_rows::count_of_trace(&control, id).map_err(fails)?;
    let mut summary = match found {
        Some(summary) => summary,
        None if decision_count == 0 => return Ok(None),
        None => {
            // A crash came between the two files, and the sender has not come back yet.
            let mut summary = TraceSummary::empty(id);
            let decisions =
                decision_rows::of_trace(&control, id, MAX_TRACE_DECISIONS).map_err(fails)?;
            decisions.iter().for_each(|decision| summary.add_decision(decision));
            summary
        }
    };
    summary.decision_count = decision_count;
    Ok(Some(summary))
}

/// One trace with its spans, log records and decisions.
pub(crate) fn trace(session: &Session, id: TraceId) -> Result<Option<StoredTrace>, QueryError> {
    let Some(summary) = summary(session, id)? else { return Ok(None) };
    let mut spans: Vec<Span> = Vec::new();
    let mut logs: Vec<LogRecord> = Vec::new();
    let mut is_cut = false;
    let segments = session.segments()?;
    for segment in segments.iter().rev().filter(|segment| segment.digest.may_know(id)) {
        session.check_time()?;
        let lease = session.segment(segment.day)?;
        let fails = |error: RowError| error.on_query(lease.path());
        let Some(rows) = trace_rows::find(&lease, id).map_err(fails)? else { continue };
        let mut reader = RowReader::new(&lease);
        let take = |span: Span, bytes: usize| {
            if spans.len() >= MAX_TRACE_SPANS || bytes > MAX_TRACE_BYTES {
                is_cut = true;
                return false;
            }
            spans.push(span);
            true
        };
        reader.spans(id, &rows.spaces, take).map_err(fails)?;
        is_cut |= read_logs(&lease, &mut reader, rows.trace_no, &mut logs).map_err(fails)?;
    }
    logs.sort_by_key(|log| log.time_unix_nano);
    let control = session.control()?;
    let decisions = decision_rows::of_trace(&control, id, MAX_TRACE_DECISIONS)
        .map_err(|error| error.on_query(control.path()))?;
    is_cut |= (decisions.len() as u64) < summary.decision_count;
    let truncated = is_cut.then_some(Truncated {
        total_spans: summary.span_count,
        total_logs: summary.log_count,
        total_decisions: summary.decision_count,
    });
    Ok(Some(StoredTrace { summary, spans, logs, decisions, truncated }))
}

/// Reads the log records of a trace; answers whether some were left out.
fn read_logs(
    lease: &Lease,
    reader: &mut RowReader<'_>,
    trace_no: i64,
    logs: &mut Vec<LogRecord>,
) -> Result<bool, RowError> {
    let mut statement = lease.prepare_cached(&format!(
        "SELECT {} FROM logs WHERE trace_no = ?1 ORDER BY time, log",
        RowReader::LOG_COLUMNS
    ))?;
    let mut rows = statement.query([trace_no])?;
    while let Some(row) = rows.next()? {
        if logs.len() >= MAX_TRACE_LOGS || reader.bytes > MAX_TRACE_BYTES {
            return Ok(true);
        }
        logs.push(reader.log(row)?);
    }
    Ok(false)
}
