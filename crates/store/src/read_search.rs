//! Searches: a walk over all segments at once, newest trace first, that can stop anywhere.
//!
//! Each segment offers its candidates in order; the latest of all is looked at next. So the walk
//! has always seen everything above one place, and a page that stops there can say so.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rusqlite::{OptionalExtension as _, params};
use throughline_trace::TraceSummary;

use crate::error::QueryError;
use crate::index::{self, Candidates, Narrowing};
use crate::layout::SegmentId;
use crate::page::{self, Found, List, MAX_PAGE_BYTES, Place, stopped};
use crate::plan;
use crate::query::{Page, TraceFilter};
use crate::read_traces::{count_decisions, is_carried_further};
use crate::sampled;
use crate::schema::{from_nanos, to_nanos};
use crate::search::SearchQuery;
use crate::search_spans::SpanSearch;
use crate::session::{Held, Lease, Segment, Session};

/// How long a page of a search or list looks before it answers with what it has, milliseconds.
pub const MAX_SEARCH_MILLIS: u64 = 1_000;

/// Most traces that a page of a search looks at.
pub const MAX_SEARCHED_TRACES: u64 = 100_000;

/// Most rows that the search index names which are put in order one by one; more are met on a walk
/// down their facet.
const MAX_ROWS_AT_ONCE: usize = 20_000;

/// Candidates that a segment offers at once.
const CANDIDATES_AT_ONCE: usize = 64;

/// When a page that is begun now answers with what it has.
pub(crate) fn end_of_page() -> Instant {
    Instant::now() + Duration::from_millis(MAX_SEARCH_MILLIS)
}

/// What a page may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    pub(crate) until: Instant,
    traces: u64,
}

impl Budget {
    /// The usual time, and at most so many traces.
    pub(crate) fn of_traces(traces: u64) -> Self {
        Self { until: end_of_page(), traces }
    }

    /// Whether a page ends that has looked at so many traces, or that nobody waits for.
    pub(crate) fn is_used_up(&self, session: &Session, traces: u64) -> bool {
        traces >= self.traces || Instant::now() > self.until || session.is_abandoned()
    }
}

/// Traces that meet the filter and fit the query, newest start first.
pub(crate) fn list(
    session: &Session,
    filter: &TraceFilter,
    query: &SearchQuery,
    cursor: Option<&str>,
    limit: usize,
) -> Result<Page<TraceSummary>, QueryError> {
    let budget = Budget::of_traces(MAX_SEARCHED_TRACES);
    list_within(session, filter, query, cursor, limit, budget)
}

/// [`list`] at a price.
pub(crate) fn list_within(
    session: &Session,
    filter: &TraceFilter,
    query: &SearchQuery,
    cursor: Option<&str>,
    limit: usize,
    budget: Budget,
) -> Result<Page<TraceSummary>, QueryError> {
    let after = Place::of_optional(List::Traces, cursor)?;
    let limit = page::page_items(limit);
    let search = SpanSearch::new(query);
    let control = session.control()?;
    let segments = session.segments()?;
    let narrowed = plan::narrowed(filter, query);
    let narrowing = Narrowing::of(query);
    let mut walk = Descent::new(session, &segments, narrowed, after, budget.until)?;
    walk.narrowing = narrowing.as_ref();
    let mut page = Page::empty();
    let (mut bytes, mut looked) = (0, 0);
    while let Some(found) = walk.next()? {
        page.search.unindexed_spans = walk.unindexed_spans;
        let Found { place, bytes: size, item: mut summary } = found;
        let is_here = filter.fields_match(&summary) && walk.is_whole_here(place, &summary)?;
        if is_here {
            looked += 1;
            if query.asks_for_decisions() {
                count_decisions(&control, &mut summary)?;
            }
            match search.verdict(session, &mut walk.held, &segments, &summary) {
                Ok(Some(true)) => {
                    count_decisions(&control, &mut summary)?;
                    sampled::fill(session, &segments, &mut summary)?;
                    bytes += size;
                    page.items.push(summary);
                }
                Ok(Some(false)) => {}
                Ok(None) => page.search.traces_cut += 1,
                // The next page begins with this trace and has all the time for it.
                Err(QueryError::Timeout { .. }) if walk.before.is_some() => {
                    return Ok(stopped(page, List::Traces, walk.before));
                }
                // It had all the time, and a page that began with it again would have no more.
                Err(QueryError::Timeout { .. }) => {
                    page.search.traces_cut += 1;
                    return Ok(stopped(page, List::Traces, Some(place)));
                }
                Err(error) => return Err(error),
            }
        }
        walk.before = Some(place);
        if page.items.len() >= limit || bytes > MAX_PAGE_BYTES {
            page.next = Some(place.to_cursor(List::Traces));
            return Ok(page);
        }
        if budget.is_used_up(session, looked) {
            return Ok(stopped(page, List::Traces, Some(place)));
        }
    }
    page.search.unindexed_spans = walk.unindexed_spans;
    if let (true, Some(place)) = (walk.is_out_of_time, walk.before) {
        return Ok(stopped(page, List::Traces, Some(place)));
    }
    Ok(page)
}

/// Candidates of all segments, the latest first.
pub(crate) struct Descent<'a, 's> {
    session: &'s Session,
    segments: &'a [Segment],
    filter: TraceFilter,
    after: Option<Place>,
    pub(crate) held: Held<'s>,
    streams: Vec<Stream>,
    /// What the search index may be asked for.
    narrowing: Option<&'a Narrowing>,
    /// Spans of segments that it does not know.
    unindexed_spans: u64,
    /// A segment was opened: no page is for nothing.
    has_opened: bool,
    /// The last place that was dealt with.
    pub(crate) before: Option<Place>,
    /// The walk ended before its end.
    pub(crate) is_out_of_time: bool,
    until: Instant,
}

/// Candidates of a segment: those of one facet, or those that the search index names.
struct Stream {
    /// Position among the segments.
    segment: usize,
    source: Source,
    candidates: VecDeque<Found<TraceSummary>>,
    /// Nothing above this is still to be fetched; `None` when all was.
    unread: Option<Place>,
    /// Something was fetched: `unread` is the place of a trace.
    is_begun: bool,
}

/// What a stream walks down.
#[derive(Clone)]
enum Source {
    /// The segment was not opened yet.
    Unopened,
    /// The traces of a facet, as far as they are among these, in rising order.
    Facet(i64, Option<Rc<[i64]>>),
    /// Rows and their places, the latest last.
    Rows(Vec<Place>),
}

impl Stream {
    /// The latest place that it may still offer.
    fn head(&self) -> Option<Place> {
        self.candidates.front().map(|found| found.place).or(self.unread)
    }
}

impl<'a, 's> Descent<'a, 's> {
    pub(crate) fn new(
        session: &'s Session,
        segments: &'a [Segment],
        filter: TraceFilter,
        after: Option<Place>,
        until: Instant,
    ) -> Result<Self, QueryError> {
        let mut held = Held::new(session);
        let mut streams = Vec::with_capacity(segments.len());
        let from = filter.start_after_unix_nano.unwrap_or(0);
        for (at, segment) in segments.iter().enumerate() {
            let time_unix_nano = if at == 0 {
                // The newest may have gained later traces since its digest was read.
                held.lease(segment.id)?;
                u64::MAX
            } else {
                let until = after.map_or(u64::MAX, |after| after.time_unix_nano);
                match segment.digest.starts {
                    // What lies above the cursor was dealt with.
                    Some((first, last)) if last >= from && first <= until => last,
                    _ => continue,
                }
            };
            let unread = Some(Place { time_unix_nano, segment: segment.id, row: i64::MAX });
            let candidates = VecDeque::new();
            let source = Source::Unopened;
            streams.push(Stream { segment: at, source, candidates, unread, is_begun: false });
        }
        Ok(Self {
            session,
            segments,
            filter,
            after,
            held,
            streams,
            narrowing: None,
            unindexed_spans: 0,
            has_opened: false,
            before: None,
            is_out_of_time: false,
            until,
        })
    }

    /// The latest candidate that was not given yet.
    pub(crate) fn next(&mut self) -> Result<Option<Found<TraceSummary>>, QueryError> {
        loop {
            let heads = self.streams.iter().enumerate();
            let latest = heads.filter_map(|(at, stream)| Some((stream.head()?, at))).max();
            let Some((_, at)) = latest else { return Ok(None) };
            if let Some(found) = self.streams[at].candidates.pop_front() {
                return Ok(Some(found));
            }
            // It is the latest head: everything above was dealt with or did not fit.
            if self.is_stop(at) {
                self.before = self.streams[at].unread;
            }
            let is_over = Instant::now() > self.until || self.session.is_abandoned();
            if self.before.is_some() && is_over {
                self.is_out_of_time = true;
                return Ok(None);
            }
            match self.fetch(at) {
                Err(QueryError::Timeout { .. }) if self.before.is_some() => {
                    self.is_out_of_time = true;
                    return Ok(None);
                }
                other => other?,
            }
        }
    }

    /// Whether the walk may stop at the head of a stream, and has come nearer to its end there. The
    /// head of a segment that was not opened is where its latest trace may stand; above it lie segments
    /// that were opened, though nothing in them may have been a candidate.
    fn is_stop(&self, at: usize) -> bool {
        let stream = &self.streams[at];
        let is_further =
            self.after.is_none_or(|after| stream.unread.is_some_and(|head| head < after));
        match stream.source {
            Source::Unopened => self.has_opened && is_further,
            _ => stream.is_begun,
        }
    }

    /// Whether the segment of a candidate is the one that has the trace whole.
    pub(crate) fn is_whole_here(
        &mut self,
        place: Place,
        summary: &TraceSummary,
    ) -> Result<bool, QueryError> {
        let newer = self.segments.iter().take_while(|other| other.id > place.segment).count();
        let newer = &self.segments[..newer];
        Ok(!is_carried_further(self.session, &mut self.held, newer, summary.trace_id)?)
    }

    /// Reads on in a stream; opens its segment first if that has not been done.
    fn fetch(&mut self, at: usize) -> Result<(), QueryError> {
        if matches!(self.streams[at].source, Source::Unopened) {
            return self.open(at);
        }
        let lease = self.held.lease(self.segments[self.streams[at].segment].id)?;
        let stream = &mut self.streams[at];
        match &mut stream.source {
            Source::Unopened => Ok(()),
            Source::Facet(facet, among) => {
                let (facet, among) = (*facet, among.clone());
                self.fetch_facet(at, &lease, facet, among.as_deref())
            }
            Source::Rows(rows) => {
                let taken = rows.split_off(rows.len().saturating_sub(CANDIDATES_AT_ONCE));
                let is_more = !rows.is_empty();
                stream.unread = taken.first().copied().filter(|_| is_more);
                stream.is_begun = true;
                self.fetch_rows(at, &lease, &taken)
            }
        }
    }

    /// Opens a stream: it becomes one for each facet that must be walked down, or one of the rows that
    /// the search index names when they are few.
    fn open(&mut self, at: usize) -> Result<(), QueryError> {
        self.has_opened = true;
        let number = self.streams[at].segment;
        let segment = &self.segments[number];
        let mut among = None;
        if let Some(narrowing) = self.narrowing {
            // Only the newest changes; of the others the index alone may say that nothing fits.
            let lease = if number == 0 { Some(self.held.lease(segment.id)?) } else { None };
            match index::candidates(self.session, segment, lease.as_deref(), narrowing)? {
                Candidates::Rows(rows) if rows.is_empty() => {
                    let stream = &mut self.streams[at];
                    (stream.source, stream.unread) = (Source::Rows(Vec::new()), None);
                    return Ok(());
                }
                Candidates::Rows(rows) if rows.len() <= MAX_ROWS_AT_ONCE => {
                    let lease = self.held.lease(segment.id)?;
                    let places = self.places(&rows, segment.id, &lease)?;
                    let stream = &mut self.streams[at];
                    stream.unread = stream.unread.filter(|_| !places.is_empty());
                    stream.source = Source::Rows(places);
                    return Ok(());
                }
                Candidates::Rows(rows) => among = Some(Rc::from(rows)),
                Candidates::Many => {}
                Candidates::Unknown { spans } => self.unindexed_spans += spans,
            }
        }
        let lease = self.held.lease(segment.id)?;
        let facets = plan::leading_facets(&self.filter, &lease, segment.digest.traces)
            .map_err(|error| lease.fails(&error))?;
        let Stream { segment, unread, is_begun, .. } = self.streams.swap_remove(at);
        self.streams.extend(facets.into_iter().map(|facet| Stream {
            segment,
            source: Source::Facet(facet, among.clone()),
            candidates: VecDeque::new(),
            unread,
            is_begun,
        }));
        Ok(())
    }

    /// What a stream of a segment may give: up to the first of these, start and row, and from the
    /// second on.
    fn bounds(&self, unread: Option<Place>, segment: SegmentId) -> ((i64, i64), i64) {
        let mut end = Place::bound_in(self.after, segment);
        for bound in [
            unread.map(|place| (from_nanos(place.time_unix_nano), place.row)),
            self.filter.start_before_unix_nano.map(|before| (from_nanos(before), i64::MIN)),
        ] {
            end = bound.map_or(end, |bound| bound.min(end));
        }
        (end, from_nanos(self.filter.start_after_unix_nano.unwrap_or(0)))
    }

    /// Where these rows stand, the latest last, as far as the bounds let them through.
    fn places(
        &self,
        rows: &[i64],
        segment: SegmentId,
        lease: &Lease,
    ) -> Result<Vec<Place>, QueryError> {
        let fails = |error: rusqlite::Error| lease.fails(&error);
        let (end, from) = self.bounds(None, segment);
        let mut find = lease.prepare_cached(plan::START_OF_CANDIDATE).map_err(fails)?;
        let mut places = Vec::with_capacity(rows.len());
        for (at, row) in rows.iter().enumerate() {
            if at % CANDIDATES_AT_ONCE == CANDIDATES_AT_ONCE - 1 {
                self.session.check_time()?;
            }
            // One that waits for the index may never have been committed.
            let start: Option<i64> =
                find.query_row([row], |row| row.get(0)).optional().map_err(fails)?;
            if let Some(start) = start.filter(|start| (*start, *row) < end && *start >= from) {
                places.push(Place { time_unix_nano: to_nanos(start), segment, row: *row });
            }
        }
        places.sort_unstable();
        Ok(places)
    }

    fn fetch_facet(
        &mut self,
        at: usize,
        lease: &Lease,
        facet: i64,
        among: Option<&[i64]>,
    ) -> Result<(), QueryError> {
        let segment = self.segments[self.streams[at].segment].id;
        let fails = |error: rusqlite::Error| lease.fails(&error);
        let ((start, row), from) = self.bounds(self.streams[at].unread, segment);
        let stream = &mut self.streams[at];
        let mut statement = lease
            .prepare_cached(&format!(
                "{} ORDER BY p.start DESC, p.trace_no DESC LIMIT ?5",
                plan::CANDIDATES
            ))
            .map_err(fails)?;
        let limit = CANDIDATES_AT_ONCE as i64;
        let mut rows = statement.query(params![facet, start, row, from, limit]).map_err(fails)?;
        let (mut read, mut last) = (0, None);
        while let Some(row) = rows.next().map_err(fails)? {
            self.session.count_row();
            read += 1;
            let place = plan::place(row, segment).map_err(fails)?;
            last = Some(place);
            if among.is_none_or(|among| among.binary_search(&place.row).is_ok())
                && plan::may_match(&self.filter, row).map_err(fails)?
            {
                let found = plan::read(row, segment).map_err(|e| e.on_query(lease.path()))?;
                stream.candidates.push_back(found);
            }
        }
        stream.is_begun = true;
        stream.unread = last.filter(|_| read == CANDIDATES_AT_ONCE);
        Ok(())
    }

    /// Reads the traces of some rows, the latest last.
    fn fetch_rows(&mut self, at: usize, lease: &Lease, taken: &[Place]) -> Result<(), QueryError> {
        let fails = |error: rusqlite::Error| lease.fails(&error);
        let stream = &mut self.streams[at];
        let mut statement = lease.prepare_cached(plan::CANDIDATE).map_err(fails)?;
        for place in taken.iter().rev() {
            let mut rows = statement.query([place.row]).map_err(fails)?;
            let Some(row) = rows.next().map_err(fails)? else { continue };
            self.session.count_row();
            if plan::may_match(&self.filter, row).map_err(fails)? {
                let found = plan::read(row, place.segment).map_err(|e| e.on_query(lease.path()))?;
                stream.candidates.push_back(found);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
