//! The list of traces, and one trace with all that belongs to it.

use rusqlite::params;
use throughline_trace::{FallbackState, LogRecord, Span, TraceId, TraceSummary};

use crate::answer::{StoredTrace, Truncated};
use crate::decision_rows;
use crate::error::QueryError;
use crate::facet::{self, ALL_TRACES, FacetKind};
use crate::page::{self, Found, List, Offer, Place, Want};
use crate::query::{NANOS_PER_MILLI, Page, TraceFilter, contains_text};
use crate::read_spans::RowReader;
use crate::schema::{from_nanos, to_nanos};
use crate::session::{Held, Lease, Segment, Session};
use crate::trace_rows::{self, RowError};

/// Most spans in one answer.
const MAX_TRACE_SPANS: usize = 50_000;

/// Most log records in one answer.
const MAX_TRACE_LOGS: usize = 10_000;

/// Most decisions in one answer.
const MAX_TRACE_DECISIONS: usize = 10_000;

/// Most bytes of content in one answer, over all segments, messages repeated.
const MAX_TRACE_BYTES: usize = 64 * 1024 * 1024;

/// Most distinct names of a segment that are searched for a text.
const MAX_SEARCHED_NAMES: usize = 2_000;

/// Most facets that are walked down together.
const MAX_UNITED_FACETS: usize = 32;

/// Facets that more than this share (one in so many) of the traces have are not worth uniting: a
/// walk down all traces finds a page of them soon.
const DENSE_SHARE: i64 = 8;

/// Traces that have spans and meet the filter, newest start first.
///
/// A trace that went on in a later segment stands there as a whole; the rows that older segments
/// have of it are passed over when a walk meets them.
pub(crate) fn list(
    session: &Session,
    filter: &TraceFilter,
    cursor: Option<&str>,
    limit: usize,
) -> Result<Page<TraceSummary>, QueryError> {
    let after = Place::of_optional(List::Traces, cursor)?;
    let items = page::page_items(limit);
    let segments = session.segments()?;
    let mut held = Held::new(session);
    if let Some(newest) = segments.first() {
        held.lease(newest.id)?;
    }
    let last = |segment: &Segment| segment.digest.starts.map(|(_, last)| last);
    let mut found = page::merge(session, &segments, items, last, |segment, want| {
        let newer = segments.iter().take_while(|other| other.id > segment.id).count();
        let lies_before_page = after
            .zip(segment.digest.starts)
            .is_some_and(|(after, starts)| starts.0 > after.time_unix_nano);
        // The newest may have gained earlier traces since its digest was read.
        if lies_before_page && newer > 0 {
            return Ok(Vec::new());
        }
        let lease = held.lease(segment.id)?;
        let newer = &segments[..newer];
        Walk { session, filter, after, want, newer, held: &mut held, segment, lease: &lease }.run()
    })?;
    let control = session.control()?;
    for Found { item: summary, .. } in &mut found {
        summary.decision_count = decision_rows::count_of_trace(&control, summary.trace_id)
            .map_err(|error| error.on_query(control.path()))?;
    }
    Ok(page::to_page(List::Traces, found, items))
}

/// What the segments know of a trace. The newest that carries it has it whole; further ones are
/// asked only if a segment could not read what was before it.
fn whole(
    session: &Session,
    segments: &[Segment],
    id: TraceId,
) -> Result<Option<TraceSummary>, QueryError> {
    let mut found: Option<TraceSummary> = None;
    for segment in segments.iter().filter(|segment| segment.digest.may_know(id)) {
        let lease = session.segment(segment.id)?;
        let rows = trace_rows::find(&lease, id).map_err(|error| error.on_query(lease.path()))?;
        let Some(rows) = rows else { continue };
        match &mut found {
            Some(found) => found.merge(rows.summary),
            None => found = Some(rows.summary),
        }
        if rows.is_carried {
            break;
        }
    }
    Ok(found)
}

/// A walk down the postings of one segment.
struct Walk<'a, 's> {
    session: &'s Session,
    filter: &'a TraceFilter,
    after: Option<Place>,
    want: Want,
    /// Segments of later days.
    newer: &'a [Segment],
    held: &'a mut Held<'s>,
    segment: &'a Segment,
    lease: &'a Lease,
}

impl Walk<'_, '_> {
    fn run(mut self) -> Result<Vec<Found<TraceSummary>>, QueryError> {
        let mut found = Vec::new();
        let facets = self
            .leading_facets(self.lease, self.segment.digest.traces)
            .map_err(|error| self.lease.fails(&error))?;
        for facet in facets {
            found.extend(self.walk(facet)?);
        }
        Ok(found)
    }

    /// Goes down the postings of one facet until enough is found.
    fn walk(&mut self, facet: i64) -> Result<Vec<Found<TraceSummary>>, QueryError> {
        let lease = self.lease;
        let fails = |error: rusqlite::Error| lease.fails(&error);
        let (mut start, mut row) = Place::bound_in(self.after, self.segment.id);
        if let Some(before) = self.filter.start_before_unix_nano
            && from_nanos(before) <= start
        {
            (start, row) = (from_nanos(before), i64::MIN);
        }
        let floor = self.want.floor.map_or(0, |floor| floor.time_unix_nano);
        let from = from_nanos(self.filter.start_after_unix_nano.unwrap_or(0).max(floor));
        let mut statement = lease
            .prepare_cached(
                "SELECT p.start, p.trace_no, t.trace_id, t.duration, t.errors, t.fallback, t.name,
                    t.summary
                 FROM postings p CROSS JOIN traces t
                    ON t.trace_no = p.trace_no AND t.start = p.start
                 WHERE p.facet = ?1 AND (p.start, p.trace_no) < (?2, ?3) AND p.start >= ?4
                 ORDER BY p.start DESC, p.trace_no DESC",
            )
            .map_err(fails)?;
        let mut rows = statement.query(params![facet, start, row, from]).map_err(fails)?;
        let mut offer = Offer::new(self.want);
        while !offer.is_full()
            && let Some(row) = rows.next().map_err(fails)?
        {
            self.session.count_row();
            if !self.may_match(row).map_err(fails)? {
                continue;
            }
            let (place, bytes, summary) = self.read(row).map_err(|e| e.on_query(lease.path()))?;
            if self.filter.matches(&summary) && !self.is_carried_further(summary.trace_id)? {
                offer.push(place, bytes, summary);
            }
        }
        Ok(offer.into_list())
    }

    fn read(&self, row: &rusqlite::Row<'_>) -> Result<(Place, usize, TraceSummary), RowError> {
        let time_unix_nano = to_nanos(row.get(0)?);
        let place = Place { time_unix_nano, segment: self.segment.id, row: row.get(1)? };
        let bytes = row.get_ref(7)?.as_blob().map_err(rusqlite::Error::from)?.len();
        Ok((place, bytes, trace_rows::summary(row, 7)?))
    }

    /// Whether a later segment has the trace as a whole.
    fn is_carried_further(&mut self, id: TraceId) -> Result<bool, QueryError> {
        for newer in self.newer.iter().filter(|newer| newer.digest.may_know(id)) {
            self.session.count_row();
            let lease = self.held.lease(newer.id)?;
            if trace_rows::is_carried(&lease, id).map_err(|error| lease.fails(&error))? {
                return Ok(true);
            }
        }
        Ok(false)
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
    let found = whole(session, &segments, id)?;
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
                decision_rows::of_trace(&control, id, MAX_TRACE_DECISIONS, MAX_TRACE_BYTES)
                    .map_err(fails)?;
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
    let (mut is_cut, mut is_skeleton) = (false, false);
    let mut bytes_so_far = 0;
    let segments = session.segments()?;
    for segment in segments.iter().rev().filter(|segment| segment.digest.may_know(id)) {
        session.check_time()?;
        let lease = session.segment(segment.id)?;
        let fails = |error: RowError| error.on_query(lease.path());
        let Some(rows) = trace_rows::find(&lease, id).map_err(fails)? else { continue };
        is_skeleton |= segment.is_skeleton;
        let mut reader = RowReader::new(&lease);
        reader.bytes = bytes_so_far;
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
        bytes_so_far = reader.bytes;
    }
    logs.sort_by_key(|log| log.time_unix_nano);
    let control = session.control()?;
    let room = MAX_TRACE_BYTES.saturating_sub(bytes_so_far);
    let decisions = decision_rows::of_trace(&control, id, MAX_TRACE_DECISIONS, room)
        .map_err(|error| error.on_query(control.path()))?;
    is_cut |= (decisions.len() as u64) < summary.decision_count;
    let truncated = is_cut.then_some(Truncated {
        total_spans: summary.span_count,
        total_logs: summary.log_count,
        total_decisions: summary.decision_count,
    });
    Ok(Some(StoredTrace { summary, spans, logs, decisions, truncated, is_skeleton }))
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
        if logs.len() >= MAX_TRACE_LOGS {
            return Ok(true);
        }
        let log = reader.log(row)?;
        if reader.bytes > MAX_TRACE_BYTES {
            return Ok(true);
        }
        logs.push(log);
    }
    Ok(false)
}
