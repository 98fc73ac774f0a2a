//! The list of traces, and one trace with all that belongs to it.

use std::time::Instant;

use throughline_trace::{LogRecord, Sampled, Span, TraceId, TraceSummary};

use crate::answer::{StoredTrace, TracePlace, TraceVersion, Truncated};
use crate::decision_rows;
use crate::error::QueryError;
use crate::page::{Filling, List, Place};
use crate::query::{Page, TraceFilter};
use crate::read_search::{self, Descent};
use crate::read_spans::RowReader;
use crate::sampled;
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
    match &filter.query {
        Some(query) => read_search::list(session, filter, query, cursor, limit),
        None => list_until(session, filter, cursor, limit, read_search::end_of_page()),
    }
}

/// The list without a query, for which rows are looked at up to `until`.
pub(crate) fn list_until(
    session: &Session,
    filter: &TraceFilter,
    cursor: Option<&str>,
    limit: usize,
    until: Instant,
) -> Result<Page<TraceSummary>, QueryError> {
    let after = Place::of_optional(List::Traces, cursor)?;
    let segments = session.segments()?;
    let mut walk = Descent::new(session, &segments, filter.clone(), after, until)?;
    let mut filling = Filling::new(List::Traces, limit, until);
    let walked = fill(session, filter, &mut walk, &mut filling);
    let mut page = filling.ended(walked)?;
    let control = session.control()?;
    for summary in &mut page.items {
        count_decisions(&control, summary)?;
        sampled::fill(session, &segments, summary)?;
    }
    Ok(page)
}

/// Fills a page; answers whether the walk came to its end.
fn fill(
    session: &Session,
    filter: &TraceFilter,
    walk: &mut Descent<'_, '_>,
    page: &mut Filling<TraceSummary>,
) -> Result<bool, QueryError> {
    while let Some(found) = walk.next()? {
        let place = found.place;
        if filter.fields_match(&found.item) && walk.is_whole_here(place, &found.item)? {
            page.push(found);
        } else {
            page.pass(place);
        }
        walk.before = Some(place);
        if page.is_over(session) {
            return Ok(false);
        }
    }
    if let (true, Some(before)) = (walk.is_out_of_time, walk.before) {
        page.pass(before);
    }
    Ok(!walk.is_out_of_time)
}

/// A page that ClickHouse gave, with what only this store knows of its traces: how many decisions
/// and log records there are, and when the last part came.
pub(crate) fn counted(
    session: &Session,
    mut page: Page<TraceSummary>,
) -> Result<Page<TraceSummary>, QueryError> {
    for item in &mut page.items {
        if let Some(here) = summary(session, item.trace_id)? {
            item.log_count = item.log_count.max(here.log_count);
            item.decision_count = item.decision_count.max(here.decision_count);
            item.received_unix_nano = here.received_unix_nano;
        }
    }
    Ok(page)
}

/// Sets the number of decisions, which only the control database knows.
pub(crate) fn count_decisions(
    control: &Lease,
    summary: &mut TraceSummary,
) -> Result<(), QueryError> {
    summary.decision_count = decision_rows::count_of_trace(control, summary.trace_id)
        .map_err(|error| error.on_query(control.path()))?;
    Ok(())
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

/// Whether one of these later segments has the trace as a whole.
pub(crate) fn is_carried_further(
    session: &Session,
    held: &mut Held<'_>,
    newer: &[Segment],
    id: TraceId,
) -> Result<bool, QueryError> {
    for newer in newer.iter().filter(|newer| newer.digest.may_know(id)) {
        session.count_row();
        let lease = held.lease(newer.id)?;
        if trace_rows::is_carried(&lease, id).map_err(|error| lease.fails(&error))? {
            return Ok(true);
        }
    }
    Ok(false)
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
    sampled::fill(session, &segments, &mut summary)?;
    Ok(Some(summary))
}

/// What tells whether a trace is still what it was.
pub(crate) fn version(session: &Session, id: TraceId) -> Result<Option<TraceVersion>, QueryError> {
    let Some(summary) = summary(session, id)? else { return Ok(None) };
    let mut places = Vec::new();
    for segment in session.segments()?.iter().filter(|segment| segment.digest.may_know(id)) {
        let lease = session.segment(segment.id)?;
        if trace_rows::knows(&lease, id).map_err(|error| lease.fails(&error))? {
            let place = TracePlace { segment: segment.id.stem(), is_skeleton: segment.is_skeleton };
            places.push(place);
        }
    }
    let control = session.control()?;
    let decision_ids = decision_rows::ids_of_trace(&control, id, MAX_TRACE_DECISIONS)
        .map_err(|error| error.on_query(control.path()))?;
    Ok(Some(TraceVersion { summary, places, decision_ids }))
}

/// One trace with its spans, log records and decisions.
pub(crate) fn trace(session: &Session, id: TraceId) -> Result<Option<StoredTrace>, QueryError> {
    let Some(mut summary) = summary(session, id)? else { return Ok(None) };
    // What is missing is told from the very file that lacks it: packing may put another in its place
    // between two looks.
    summary.sampled = Sampled::default();
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
        if let Some(found) = sampled::of(&lease, id).map_err(|error| lease.fails(&error))? {
            summary.sampled.merge(found);
        }
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
    is_skeleton |= summary.sampled.spans_bared > 0;
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
