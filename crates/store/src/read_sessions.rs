//! Sessions and users: the traces that name the same one, summed up.

use std::collections::HashSet;

use throughline_trace::{NameSet, TraceId, TraceSummary};

use crate::error::QueryError;
use crate::page::{self, Found, List, Place, of_cursor_within, stopped, to_cursor_within};
use crate::query::{Page, TraceFilter};
use crate::read_search::{Budget, Descent, MAX_SEARCHED_TRACES};
use crate::session::{Held, Segment, Session};
use crate::trace_place;

/// Most traces of a session that are summed up, the latest.
pub(crate) const MAX_SESSION_TRACES: u64 = 1_000;

/// Most agents, models and so on that the summary of a session or user names.
const MAX_NAMES: usize = 16;

/// What is known of a session or of a user.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupSummary {
    /// Its id.
    pub name: String,
    /// Traces that name it.
    pub trace_count: u64,
    /// Model calls.
    pub turns: u64,
    /// Traces with a failed span.
    pub failed_traces: u64,
    /// Failed spans.
    pub error_count: u64,
    /// Tokens in.
    pub input_tokens: u64,
    /// Tokens out.
    pub output_tokens: u64,
    /// Cost, billionths of a US dollar.
    pub cost_nano_usd: u64,
    /// Agents named, at most 16.
    pub agents: NameSet,
    /// Models that answered, at most 16.
    pub models: NameSet,
    /// Sessions named, at most 16; that of a session is its own.
    pub sessions: NameSet,
    /// Users named, at most 16.
    pub users: NameSet,
    /// Earliest start of a trace, nanoseconds since the Unix epoch.
    pub first_unix_nano: u64,
    /// Latest end of a trace, nanoseconds since the Unix epoch.
    pub last_unix_nano: u64,
    /// Whether it has more traces than are summed up: the totals are of the latest.
    pub is_cut: bool,
}

impl GroupSummary {
    /// Cost, US dollars.
    pub fn cost_usd(&self) -> f64 {
        self.cost_nano_usd as f64 / 1e9
    }

    pub(crate) fn empty(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            trace_count: 0,
            turns: 0,
            failed_traces: 0,
            error_count: 0,
            input_tokens: 0,
            output_tokens: 0,
            cost_nano_usd: 0,
            agents: NameSet::new(),
            models: NameSet::new(),
            sessions: NameSet::new(),
            users: NameSet::new(),
            first_unix_nano: u64::MAX,
            last_unix_nano: 0,
            is_cut: false,
        }
    }

    pub(crate) fn add(&mut self, trace: &TraceSummary) {
        self.trace_count += 1;
        self.failed_traces += u64::from(trace.error_count > 0);
        for (mine, theirs) in [
            (&mut self.turns, trace.llm_calls),
            (&mut self.error_count, trace.error_count),
            (&mut self.input_tokens, trace.input_tokens),
            (&mut self.output_tokens, trace.output_tokens),
            (&mut self.cost_nano_usd, trace.cost_nano_usd),
        ] {
            *mine = mine.saturating_add(theirs);
        }
        for (mine, theirs) in [
            (&mut self.agents, &trace.agents),
            (&mut self.models, &trace.models),
            (&mut self.sessions, &trace.sessions),
            (&mut self.users, &trace.users),
        ] {
            theirs.iter().for_each(|name| mine.insert_capped(name, MAX_NAMES));
        }
        self.first_unix_nano = self.first_unix_nano.min(trace.start_unix_nano);
        self.last_unix_nano = self.last_unix_nano.max(trace.end_unix_nano);
    }
}

/// What traces are put together by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    Session,
    User,
}

impl Group {
    fn list(self) -> List {
        match self {
            Self::Session => List::Sessions,
            Self::User => List::Users,
        }
    }

    pub(crate) fn names(self, trace: &TraceSummary) -> &NameSet {
        match self {
            Self::Session => &trace.sessions,
            Self::User => &trace.users,
        }
    }

    /// All traces of the one of this name.
    fn filter(self, name: &str) -> TraceFilter {
        let name = Some(name.to_owned());
        match self {
            Self::Session => TraceFilter { session: name, ..TraceFilter::default() },
            Self::User => TraceFilter { user: name, ..TraceFilter::default() },
        }
    }

    /// The only one that a filter wants.
    pub(crate) fn wanted(self, filter: &TraceFilter) -> Option<&str> {
        match self {
            Self::Session => filter.session.as_deref(),
            Self::User => filter.user.as_deref(),
        }
    }

    fn is_wanted(self, filter: &TraceFilter, name: &str) -> bool {
        self.wanted(filter).is_none_or(|wanted| wanted == name)
    }
}

/// Sessions of the traces that meet the filter, the one whose trace started last first. Totals are
/// of all traces of a session, whether they meet the filter or not.
pub(crate) fn sessions(
    session: &Session,
    filter: &TraceFilter,
    cursor: Option<&str>,
    limit: usize,
) -> Result<Page<GroupSummary>, QueryError> {
    let budget = Budget::of_traces(MAX_SEARCHED_TRACES);
    list_within(session, Group::Session, filter, cursor, limit, budget)
}

/// Users, in the same way.
pub(crate) fn users(
    session: &Session,
    filter: &TraceFilter,
    cursor: Option<&str>,
    limit: usize,
) -> Result<Page<GroupSummary>, QueryError> {
    let budget = Budget::of_traces(MAX_SEARCHED_TRACES);
    list_within(session, Group::User, filter, cursor, limit, budget)
}

/// A list at a price.
pub(crate) fn list_within(
    session: &Session,
    group: Group,
    filter: &TraceFilter,
    cursor: Option<&str>,
    limit: usize,
    budget: Budget,
) -> Result<Page<GroupSummary>, QueryError> {
    let limit = page::page_items(limit);
    let segments = session.segments()?;
    let cursor = cursor.map(|cursor| of_cursor_within(group.list(), cursor)).transpose()?;
    let after = cursor.map(|(after, _)| after);
    let mut walk = Descent::new(session, &segments, filter.clone(), after, budget.until)?;
    let reach = match (cursor, segments.first()) {
        (Some((_, reach)), _) => reach,
        (None, Some(newest)) => last_row(newest, &mut walk.held)?,
        (None, None) => return Ok(Page::empty()),
    };
    let of = Listed { group, filter, after, reach, segments: &segments };
    let next = |place: Option<Place>| Some(to_cursor_within(group.list(), place?, reach));
    let stopped = |page: Page<GroupSummary>, place: Option<Place>| Page {
        next: next(place),
        ..stopped(page, group.list(), place)
    };
    let (mut page, mut seen, mut looked) = (Page::empty(), HashSet::new(), 0);
    while let Some(Found { place, item: trace, .. }) = walk.next()? {
        looked += 1;
        if filter.fields_match(&trace)
            && walk.is_whole_here(place, &trace)?
            && of.was_there(place, trace.trace_id, &mut walk.held)?
        {
            // All groups of a trace are on one page: the cursor stands behind the whole trace.
            let mut of_trace = Vec::new();
            for name in group.names(&trace).iter().filter(|name| group.is_wanted(filter, name)) {
                if !seen.insert(name.clone()) {
                    continue;
                }
                match of.summed_up(session, name, budget)? {
                    Sum::Whole(summary) => of_trace.push(summary),
                    Sum::Nothing => {}
                    // The next page begins with this trace and has all the time for it.
                    Sum::OutOfTime(_) if walk.before.is_some() => {
                        return Ok(stopped(page, walk.before));
                    }
                    // It had all the time: what is known of it is said to be cut.
                    Sum::OutOfTime(Some(latest)) => of_trace.push(latest),
                    Sum::OutOfTime(None) => page.search.traces_cut += 1,
                }
            }
            page.items.extend(of_trace);
        }
        walk.before = Some(place);
        if page.items.len() >= limit {
            page.next = next(Some(place));
            return Ok(page);
        }
        if budget.is_used_up(session, looked) {
            return Ok(stopped(page, Some(place)));
        }
    }
    if walk.is_out_of_time {
        return Ok(stopped(page, walk.before));
    }
    Ok(page)
}

/// The last row of the newest segment: how far the first page of a list reaches.
fn last_row(newest: &Segment, held: &mut Held<'_>) -> Result<Place, QueryError> {
    let lease = held.lease(newest.id)?;
    let last: Option<i64> = lease
        .prepare_cached("SELECT max(trace_no) FROM traces")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .map_err(|error| lease.fails(&error))?;
    Ok(Place { time_unix_nano: 0, segment: newest.id, row: last.unwrap_or(0) })
}

/// What is listed.
struct Listed<'a> {
    group: Group,
    filter: &'a TraceFilter,
    /// Where the page before this one ended.
    after: Option<Place>,
    /// The last row that there was when the first page was made. A trace that came later may stand above
    /// the cursor, on a page that was given before it came: it neither lists anything nor tells that
    /// something was listed.
    reach: Place,
    segments: &'a [Segment],
}

/// What came of adding up a session or user.
enum Sum {
    /// Its totals; of its latest traces when it has more than are summed up, and then it is cut.
    Whole(GroupSummary),
    /// Nothing to list: a page before this one had it, because one of its traces that meet the
    /// filter stands at or before the cursor.
    Nothing,
    /// Time ran out; the totals as far as they were added up, cut, if no page before had it.
    OutOfTime(Option<GroupSummary>),
}

impl Listed<'_> {
    /// Whether a trace was there when the first page was made.
    fn was_there(
        &self,
        place: Place,
        id: TraceId,
        held: &mut Held<'_>,
    ) -> Result<bool, QueryError> {
        let reach = (self.reach.segment, self.reach.row);
        if (place.segment, place.row) <= reach {
            return Ok(true);
        }
        // One that went on in a later segment was there before.
        let earlier = self.segments.iter().filter(|segment| {
            segment.id < place.segment && segment.id <= reach.0 && segment.digest.may_know(id)
        });
        for segment in earlier {
            let lease = held.lease(segment.id)?;
            let first = trace_place::first(&lease, id).map_err(|error| lease.fails(&error))?;
            if first.is_some_and(|row| (segment.id, row) <= reach) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The totals of the session or user of a name.
    fn summed_up(&self, session: &Session, name: &str, budget: Budget) -> Result<Sum, QueryError> {
        let of_group = self.group.filter(name);
        let mut walk = Descent::new(session, self.segments, of_group.clone(), None, budget.until)?;
        let mut summary = GroupSummary::empty(name);
        // Whether all traces at or before the cursor were looked at.
        let mut is_new = self.after.is_none();
        let is_out_of_time = loop {
            let found = match walk.next() {
                Ok(Some(found)) => found,
                Ok(None) => break walk.is_out_of_time,
                Err(QueryError::Timeout { .. }) => break true,
                Err(error) => return Err(error),
            };
            let Found { place, item: trace, .. } = found;
            is_new |= self.after.is_some_and(|after| place < after);
            if is_new && summary.is_cut {
                break false;
            }
            if !of_group.fields_match(&trace) {
                continue;
            }
            match walk.is_whole_here(place, &trace) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(QueryError::Timeout { .. }) => break true,
                Err(error) => return Err(error),
            }
            if !is_new && self.filter.fields_match(&trace) {
                match self.was_there(place, trace.trace_id, &mut walk.held) {
                    Ok(true) => return Ok(Sum::Nothing),
                    Ok(false) => {}
                    Err(QueryError::Timeout { .. }) => break true,
                    Err(error) => return Err(error),
                }
            }
            if summary.trace_count < MAX_SESSION_TRACES {
                summary.add(&trace);
            } else {
                summary.is_cut = true;
            }
        };
        if is_out_of_time {
            summary.is_cut = true;
            let is_known = is_new && summary.trace_count > 0;
            return Ok(Sum::OutOfTime(is_known.then_some(summary)));
        }
        Ok(if summary.trace_count > 0 { Sum::Whole(summary) } else { Sum::Nothing })
    }
}
