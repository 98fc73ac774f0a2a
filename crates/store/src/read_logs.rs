//! Lists of log records and of decisions.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Instant;

use rusqlite::params;
use throughline_trace::{Decision, DecisionId, LogRecord};

use crate::answer::DecisionGap;
use crate::audit::standing;
use crate::error::QueryError;
use crate::page::{Filling, Found, List, MAX_PAGE_BYTES, Place};
use crate::query::{DecisionFilter, LogFilter, Page};
use crate::read_search::end_of_page;
use crate::read_spans::RowReader;
use crate::schema::{from_nanos, to_nanos};
use crate::session::{Held, Lease, Segment, Session};
use crate::trace_rows::RowError;
use crate::{decision_gaps, decision_rows, trace_place};

/// Rows of a segment that are looked at together.
const ROWS_AT_ONCE: usize = 256;

/// Log records that meet the filter, newest first.
pub(crate) fn logs(
    session: &Session,
    filter: &LogFilter,
    cursor: Option<&str>,
    limit: usize,
) -> Result<Page<LogRecord>, QueryError> {
    logs_until(session, filter, cursor, limit, end_of_page())
}

/// The list, for which rows are looked at up to `until`.
fn logs_until(
    session: &Session,
    filter: &LogFilter,
    cursor: Option<&str>,
    limit: usize,
    until: Instant,
) -> Result<Page<LogRecord>, QueryError> {
    let after = Place::of_optional(List::Logs, cursor)?;
    let segments = session.segments()?;
    let mut page = Filling::new(List::Logs, limit, until);
    let streams = streams(&segments, filter, after);
    let most_found = page.most_items() + 1;
    let held = Held::new(session);
    let walked = Walk { session, filter, most_found, until, held, streams }.fill(&mut page);
    page.ended(walked)
}

/// The log records of a segment, from the newest down.
struct Stream<'a> {
    segment: &'a Segment,
    sought: Option<Sought>,
    found: VecDeque<Found<LogRecord>>,
    /// Nothing above this is still to be read; `None` when all was.
    unread: Option<Place>,
}

impl Stream<'_> {
    /// The latest place that it may still offer.
    fn head(&self) -> Option<Place> {
        self.found.front().map(|found| found.place).or(self.unread)
    }
}

/// What the filter names, as this segment has it.
struct Sought {
    trace_no: Option<i64>,
    services: Option<HashSet<i64>>,
}

/// The segments that may have something for the page.
fn streams<'a>(
    segments: &'a [Segment],
    filter: &LogFilter,
    after: Option<Place>,
) -> Vec<Stream<'a>> {
    let from = filter.after_unix_nano.unwrap_or(0);
    // What lies above is on earlier pages, or not asked for.
    let until = after.map_or(u64::MAX, |after| after.time_unix_nano);
    let until = filter.before_unix_nano.map_or(until, |before| until.min(before.saturating_sub(1)));
    let of_trace = |segment: &Segment| filter.trace_id.is_none_or(|id| segment.digest.may_know(id));
    let mut streams = Vec::new();
    for (at, segment) in segments.iter().enumerate().filter(|(_, segment)| of_trace(segment)) {
        let time_unix_nano = match segment.digest.logs_at {
            // The newest may have gained later ones since its digest was read.
            _ if at == 0 => u64::MAX,
            Some((first, last)) if first <= until && last >= from => last,
            _ => continue,
        };
        let top = Place { time_unix_nano, segment: segment.id, row: i64::MAX };
        let unread = Some(after.map_or(top, |after| after.min(top)));
        streams.push(Stream { segment, sought: None, found: VecDeque::new(), unread });
    }
    streams
}

/// A walk over all segments at once: the latest row of all is dealt with next, so that a page can
/// end anywhere and knows that everything above was looked at.
struct Walk<'a, 's> {
    session: &'s Session,
    filter: &'a LogFilter,
    most_found: usize,
    until: Instant,
    held: Held<'s>,
    streams: Vec<Stream<'a>>,
}

impl Walk<'_, '_> {
    fn latest(&self) -> Option<(Place, usize)> {
        let heads = self.streams.iter().enumerate();
        heads.filter_map(|(at, stream)| Some((stream.head()?, at))).max()
    }

    /// Fills a page; answers whether the walk came to its end.
    fn fill(mut self, page: &mut Filling<LogRecord>) -> Result<bool, QueryError> {
        let top = self.latest().map(|(top, _)| top);
        while let Some((head, at)) = self.latest() {
            let found = self.streams[at].found.pop_front();
            let is_fetched = found.is_some();
            match found {
                Some(found) => page.push(found),
                // A page that ended where it began would be given again and again.
                None if Some(head) < top => page.pass(head),
                None => {}
            }
            if page.is_over(self.session) {
                return Ok(false);
            }
            if !is_fetched {
                let lease = self.held.lease(self.streams[at].segment.id)?;
                self.fetch(at, &lease).map_err(|error| error.on_query(lease.path()))?;
            }
        }
        Ok(true)
    }

    /// Looks at the next rows of a segment: a few at a time, so that no segment is walked down far
    /// below what the others still have, which the next page would have to do again.
    fn fetch(&mut self, at: usize, lease: &Lease) -> Result<(), RowError> {
        let stream = &mut self.streams[at];
        let Some(sought) = sought(lease, self.filter, stream.sought.take())? else {
            stream.unread = None;
            return Ok(());
        };
        let id = stream.segment.id;
        let (mut time, mut log) = Place::bound_in(stream.unread, id);
        if let Some(before) = self.filter.before_unix_nano
            && from_nanos(before) <= time
        {
            (time, log) = (from_nanos(before), i64::MIN);
        }
        let from = from_nanos(self.filter.after_unix_nano.unwrap_or(0));
        let of_trace =
            if sought.trace_no.is_some() { "trace_no = ?4 AND" } else { "?4 IS NULL AND" };
        let mut statement = lease.prepare_cached(&format!(
            "SELECT {} FROM logs WHERE {of_trace} time <= ?1 AND (time, log) < (?1, ?2) AND time >= ?3
             ORDER BY time DESC, log DESC LIMIT ?5",
            RowReader::LOG_COLUMNS
        ))?;
        let most = ROWS_AT_ONCE as i64;
        let mut rows = statement.query(params![time, log, from, sought.trace_no, most])?;
        let mut reader = RowReader::new(lease);
        let (mut read, mut last, mut is_enough) = (0, None, false);
        while !is_enough && let Some(row) = rows.next()? {
            read += 1;
            let place =
                Place { time_unix_nano: to_nanos(row.get(0)?), segment: id, row: row.get(1)? };
            last = Some(place);
            // The columns first: reading a record costs more.
            let min = self.filter.min_severity;
            let is_other = min.is_some_and(|min| row.get(4).is_ok_and(|got: u8| got < min.0))
                || sought.services.as_ref().is_some_and(|services| {
                    row.get(6).is_ok_and(|got: i64| !services.contains(&got))
                });
            if !is_other {
                let before = reader.bytes;
                let item = reader.log(row)?;
                if self.filter.matches(&item) {
                    let bytes = reader.bytes - before;
                    stream.found.push_back(Found { place, bytes, item });
                }
            }
            is_enough = stream.found.len() >= self.most_found
                || reader.bytes > MAX_PAGE_BYTES
                || Instant::now() > self.until;
        }
        stream.unread = last.filter(|_| is_enough || read == ROWS_AT_ONCE);
        stream.sought = Some(sought);
        Ok(())
    }
}

/// What the filter names, as a segment has it; `None` when it has nothing of it.
fn sought(
    lease: &Lease,
    filter: &LogFilter,
    known: Option<Sought>,
) -> Result<Option<Sought>, RowError> {
    if known.is_some() {
        return Ok(known);
    }
    let trace_no = match filter.trace_id {
        None => None,
        Some(id) => match trace_place::first(lease, id)? {
            None => return Ok(None),
            first => first,
        },
    };
    let services = filter.service.as_deref().map(|service| resources_of(lease, service));
    Ok(Some(Sought { trace_no, services: services.transpose()? }))
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
    decisions_until(session, filter, cursor, limit, end_of_page())
}

/// The list, for which rows are looked at up to `until`.
fn decisions_until(
    session: &Session,
    filter: &DecisionFilter,
    cursor: Option<&str>,
    limit: usize,
    until: Instant,
) -> Result<Page<Decision>, QueryError> {
    let after = Place::of_optional(List::Decisions, cursor)?;
    let mut page = Filling::new(List::Decisions, limit, until);
    let control = session.control()?;
    let walked = decision_rows::list(session, &control, filter, after, &mut page)
        .map_err(|error| error.on_query(control.path()));
    page.ended(walked)
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

#[cfg(test)]
mod tests;
