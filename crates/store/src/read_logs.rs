//! Lists of log records and of decisions.

use std::collections::{HashMap, HashSet};

use rusqlite::params;
use throughline_trace::{Decision, DecisionId, LogRecord};

use crate::answer::DecisionGap;
use crate::audit::standing;
use crate::error::QueryError;
use crate::page::{self, Found, List, Offer, Place, Want};
use crate::query::{DecisionFilter, LogFilter, Page};
use crate::read_spans::RowReader;
use crate::schema::{from_nanos, to_nanos};
use crate::session::{Lease, Segment, Session};
use crate::trace_rows::{self, RowError};
use crate::{decision_gaps, decision_rows};

/// Log records that meet the filter, newest first.
pub(crate) fn logs(
    session: &Session,
    filter: &LogFilter,
    cursor: Option<&str>,
    limit: usize,
) -> Result<Page<LogRecord>, QueryError> {
    let after = Place::of_optional(List::Logs, cursor)?;
    let items = page::page_items(limit);
    let segments = session.segments()?;
    let last = |segment: &Segment| segment.digest.last_log;
    let found = page::merge(session, &segments, items, last, |segment, want| {
        let lease = session.segment(segment.id)?;
        logs_of_segment(&lease, segment, filter, after, want)
            .map_err(|error| error.on_query(lease.path()))
    })?;
    Ok(page::to_page(List::Logs, found, items))
}

fn logs_of_segment(
    lease: &Lease,
    segment: &Segment,
    filter: &LogFilter,
    after: Option<Place>,
    want: Want,
) -> Result<Vec<Found<LogRecord>>, RowError> {
    let (mut time, mut log) = Place::bound_in(after, segment.id);
    if let Some(before) = filter.before_unix_nano
        && from_nanos(before) <= time
    {
        (time, log) = (from_nanos(before), i64::MIN);
    }
    let floor = want.floor.map_or(0, |floor| floor.time_unix_nano);
    let from = from_nanos(filter.after_unix_nano.unwrap_or(0).max(floor));
    let trace_no = match filter.trace_id {
        None => None,
        Some(id) => match trace_rows::find(lease, id)? {
            Some(rows) => Some(rows.trace_no),
            None => return Ok(Vec::new()),
        },
    };
    let services = match &filter.service {
        None => None,
        Some(service) => Some(resources_of(lease, service)?),
    };
    let of_trace = if trace_no.is_some() { "trace_no = ?4 AND" } else { "?4 IS NULL AND" };
    let mut statement = lease.prepare_cached(&format!(
        "SELECT {} FROM logs WHERE {of_trace} time <= ?1 AND (time, log) < (?1, ?2) AND time >= ?3
         ORDER BY time DESC, log DESC",
        RowReader::LOG_COLUMNS
    ))?;
    let mut rows = statement.query(params![time, log, from, trace_no])?;
    let mut reader = RowReader::new(lease);
    let mut offer = Offer::new(want);
    while !offer.is_full()
        && let Some(row) = rows.next()?
    {
        // The columns first: reading a record costs more.
        let is_other =
            filter.min_severity.is_some_and(|min| row.get(4).is_ok_and(|got: u8| got < min.0))
                || services.as_ref().is_some_and(|services| {
                    row.get(6).is_ok_and(|got: i64| !services.contains(&got))
                });
        if is_other {
            continue;
        }
        let before = reader.bytes;
        let record = reader.log(row)?;
        if filter.matches(&record) {
            let time_unix_nano = to_nanos(row.get(0)?);
            let place = Place { time_unix_nano, segment: segment.id, row: row.get(1)? };
            offer.push(place, reader.bytes - before, record);
        }
    }
    Ok(offer.into_list())
}

fn resources_of(lease: &Lease, service: &str) -> Result<HashSet<i64>, rusqlite::Error> {
    lease
        .prepare_cached("SELECT resource FROM resources WHERE service = ?1")?
        .query_map([service], |row| row.get(0))?
        .collect()
}

/// Decisions that meet the filter, newest first.
pub(crate) fn decisions(
    session: &Session,
    filter: &DecisionFilter,
    cursor: Option<&str>,
    limit: usize,
) -> Result<Page<Decision>, QueryError> {
    let after = Place::of_optional(List::Decisions, cursor)?;
    let items = page::page_items(limit);
    let control = session.control()?;
    let want = Want { items: items + 1, floor: None };
    let found = decision_rows::list(&control, filter, after, want)
        .map_err(|error| error.on_query(control.path()))?;
    Ok(page::to_page(List::Decisions, found, items))
}

/// One decision.
pub(crate) fn decision(session: &Session, id: DecisionId) -> Result<Option<Decision>, QueryError> {
    let control = session.control()?;
    decision_rows::find(&control, id).map_err(|error| error.on_query(control.path()))
}

/// Places of decisions in the chain of the audit log.
pub(crate) fn chain_places(
    session: &Session,
    ids: &[DecisionId],
) -> Result<HashMap<DecisionId, (u64, [u8; 32])>, QueryError> {
    let control = session.control()?;
    standing::places(&control, ids).map_err(|error| control.fails(&error))
}

/// Decisions that are missing.
pub(crate) fn decision_gaps(
    session: &Session,
    noticed_before_unix_nano: u64,
    limit: usize,
) -> Result<Vec<DecisionGap>, QueryError> {
    let control = session.control()?;
    decision_gaps::list(&control, noticed_before_unix_nano, limit)
        .map_err(|error| error.on_query(control.path()))
}
