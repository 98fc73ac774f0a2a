//! Lists of traces, and searches, as ClickHouse answers them.
//!
//! A statement gives candidates: what SQL can tell of a filter narrows them, and each is held
//! against the whole filter and the query here, by the very code that the embedded store has, so
//! that both engines mean the same.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use throughline_trace::{Span, TraceId, TraceSummary};

use super::RemoteReader;
use super::schema::{LIST_HEAD, LIST_TAIL};
use crate::error::QueryError;
use crate::page::page_items;
use crate::query::{NANOS_PER_MILLI, Page, SearchExtent, TraceFilter};
use crate::read_search::MAX_SEARCH_MILLIS;
use crate::search::{NameField, Term, TextTest};
use crate::search_spans::SpanSearch;

/// Fewest candidates that a search asks for at a time.
const MIN_CANDIDATES: usize = 200;

/// Most spans that are read at a time for what a query asks of them. A trace with more is told as
/// too large where what was seen of it does not tell.
const MAX_SEARCHED_SPANS: usize = 50_000;

/// First characters of cursors of these lists: cursors of the embedded store are other ones.
const CURSOR_PREFIX: &str = "tc1";

/// Where a trace stands: by start, downwards, then by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    start_unix_nano: u64,
    trace_id: TraceId,
}

impl Place {
    fn to_cursor(self) -> String {
        format!("{CURSOR_PREFIX}{:016x}{}", self.start_unix_nano, self.trace_id)
    }

    fn of_cursor(cursor: &str) -> Result<Self, QueryError> {
        let parse = || {
            let digits = cursor.strip_prefix(CURSOR_PREFIX)?;
            let (start, id) = (digits.get(..16)?, digits.get(16..)?);
            start.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(())?;
            let start_unix_nano = u64::from_str_radix(start, 16).ok()?;
            Some(Self { start_unix_nano, trace_id: id.parse().ok()? })
        };
        parse().ok_or_else(|| QueryError::Cursor(cursor.chars().take(80).collect()))
    }
}

/// What narrows the candidates.
#[derive(Debug, Default)]
struct Conditions {
    sql: String,
    values: Vec<(&'static str, String)>,
}

impl Conditions {
    fn add(&mut self, sql: &str, name: &'static str, value: impl ToString) {
        self.sql.push_str(" AND ");
        self.sql.push_str(sql);
        self.values.push((name, value.to_string()));
    }

    /// What SQL can tell of a filter: never more than what a trace must meet.
    fn of(filter: &TraceFilter) -> Self {
        let mut made = Self::default();
        let names = [
            ("max(has(agents, {agent:String}))", "agent", &filter.agent),
            ("max(has(sessions, {session:String}))", "session", &filter.session),
            ("max(has(users, {user:String}))", "user", &filter.user),
            ("max(has(models, {model:String}))", "model", &filter.model),
            ("max(has(services, {service:String}))", "service", &filter.service),
        ];
        for (sql, name, value) in names {
            if let Some(value) = value {
                made.add(sql, name, value);
            }
        }
        let longest = "max(end_unix_nano) - start";
        let numbers = [
            (format!("{longest} >= {{least:UInt64}}"), "least", filter.min_duration_ms),
            (format!("{longest} <= {{most:UInt64}}"), "most", filter.max_duration_ms),
        ];
        for (sql, name, value) in numbers {
            if let Some(value) = value {
                made.add(&sql, name, value.saturating_mul(NANOS_PER_MILLI));
            }
        }
        if filter.error == Some(true) {
            made.sql.push_str(" AND max(error_count) > 0");
        }
        if let Some(after) = filter.start_after_unix_nano {
            made.add("start >= {from:UInt64}", "from", after);
        }
        if let Some(before) = filter.start_before_unix_nano {
            made.add("start < {before:UInt64}", "before", before);
        }
        if let Some(query) = &filter.query {
            query.required_terms().for_each(|term| made.narrow(term));
        }
        made
    }

    /// What SQL can tell of a term that must hold: of each field the first.
    fn narrow(&mut self, term: &Term) {
        let (sql, name, value) = match term {
            Term::Name(field, TextTest::Is(value)) => {
                let (sql, name) = match field {
                    NameField::Agent => ("max(has(agents, {q_agent:String}))", "q_agent"),
                    NameField::Session => ("max(has(sessions, {q_session:String}))", "q_session"),
                    NameField::User => ("max(has(users, {q_user:String}))", "q_user"),
                    NameField::Model => ("max(has(models, {q_model:String}))", "q_model"),
                    NameField::Service => ("max(has(services, {q_service:String}))", "q_service"),
                    NameField::Trace => ("trace_id = {q_trace:String}", "q_trace"),
                    _ => return,
                };
                (sql, name, value.clone())
            }
            Term::Start(bounds) => match (bounds.low, bounds.high) {
                (Some(low), _) => ("start >= {q_from:UInt64}", "q_from", low.value.to_string()),
                (None, Some(high)) => ("start <= {q_to:UInt64}", "q_to", high.value.to_string()),
                (None, None) => return,
            },
            Term::Error(true) => ("max(error_count) >= {q_errors:UInt64}", "q_errors", "1".into()),
            _ => return,
        };
        if self.values.iter().all(|(bound, _)| *bound != name) {
            self.add(sql, name, value);
        }
    }
}

/// What a page has so far.
struct Gathered {
    items: Vec<TraceSummary>,
    traces_cut: u64,
}

impl RemoteReader {
    /// Traces of all servers that have spans, newest start first; a search where the filter has a
    /// query, which looks for at most [`MAX_SEARCH_MILLIS`] at a time. `limit` is 1 to 1,000.
    /// Decisions and log records are not counted.
    ///
    /// # Errors
    /// [`QueryError::Cursor`]; [`QueryError::ClickHouse`] when it cannot be asked.
    pub async fn traces(
        &self,
        filter: &TraceFilter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<TraceSummary>, QueryError> {
        let begin = Instant::now();
        let mut after = cursor.map(Place::of_cursor).transpose()?;
        let items = page_items(limit);
        let conditions = Conditions::of(filter);
        let mut found = Gathered { items: Vec::new(), traces_cut: 0 };
        let mut is_over = false;
        let mut searched_until = None;
        while found.items.len() <= items && !is_over {
            if begin.elapsed() > Duration::from_millis(MAX_SEARCH_MILLIS) {
                searched_until = after;
                break;
            }
            let wanted = items + 1 - found.items.len();
            // SQL tells nearly all of the fields, and little of a query.
            let most = if filter.query.is_some() { wanted.max(MIN_CANDIDATES) } else { wanted };
            let candidates = self.candidates(&conditions, after, most).await?;
            is_over = candidates.len() < most;
            after = candidates.last().copied().or(after);
            self.sift(filter, &candidates, &mut found).await?;
        }
        let has_more = found.items.len() > items;
        found.items.truncate(items);
        let last = found
            .items
            .last()
            .filter(|_| has_more)
            .map(|last| Place { start_unix_nano: last.start_unix_nano, trace_id: last.trace_id });
        let until = searched_until.filter(|_| !has_more);
        Ok(Page {
            next: last.or(until).map(Place::to_cursor),
            items: found.items,
            search: SearchExtent {
                searched_until_unix_nano: until.map(|place| place.start_unix_nano),
                traces_cut: found.traces_cut,
                unindexed_spans: 0,
            },
        })
    }

    /// The next traces that may fit.
    async fn candidates(
        &self,
        conditions: &Conditions,
        after: Option<Place>,
        most: usize,
    ) -> Result<Vec<Place>, QueryError> {
        let (mut sql, mut values) = (conditions.sql.clone(), conditions.values.clone());
        if let Some(after) = after {
            sql.push_str(
                " AND (start < {at:UInt64} OR start = {at:UInt64} AND trace_id > {after:String})",
            );
            values.push(("at", after.start_unix_nano.to_string()));
            values.push(("after", after.trace_id.to_string()));
        }
        values.push(("limit", most.to_string()));
        let rows = self.ask(&format!("{LIST_HEAD}{sql}{LIST_TAIL}"), &values).await?;
        rows.iter()
            .map(|row| {
                let id = row["trace_id"].as_str().unwrap_or_default();
                let start = row["start"].as_u64();
                id.parse()
                    .ok()
                    .zip(start)
                    .map(|(trace_id, start_unix_nano)| Place { start_unix_nano, trace_id })
            })
            .collect::<Option<_>>()
            .ok_or_else(|| {
                QueryError::ClickHouse("expected traces with an id and a start, got others".into())
            })
    }

    /// Keeps those candidates that fit.
    async fn sift(
        &self,
        filter: &TraceFilter,
        candidates: &[Place],
        found: &mut Gathered,
    ) -> Result<(), QueryError> {
        if candidates.is_empty() {
            return Ok(());
        }
        let ids: Vec<TraceId> = candidates.iter().map(|place| place.trace_id).collect();
        let mut known = self.known(&ids).await?;
        let summaries: Vec<TraceSummary> = ids
            .iter()
            .filter_map(|id| known.remove(id)?.joined())
            .filter(|summary| filter.fields_match(summary))
            .collect();
        let Some(query) = &filter.query else {
            found.items.extend(summaries);
            return Ok(());
        };
        let search = SpanSearch::new(query);
        let open: Vec<TraceId> = summaries
            .iter()
            .filter(|summary| search.judge_by_summary(summary).is_none())
            .map(|summary| summary.trace_id)
            .collect();
        let mut spans: HashMap<TraceId, Vec<Span>> = HashMap::new();
        let mut is_cut = false;
        if !open.is_empty() {
            let read = self.spans(&open, MAX_SEARCHED_SPANS).await?;
            is_cut = read.len() >= MAX_SEARCHED_SPANS;
            for (_, span, _) in read {
                spans.entry(span.trace_id).or_default().push(span);
            }
        }
        for summary in summaries {
            let mut of = spans.remove(&summary.trace_id).unwrap_or_default();
            if is_cut && (of.len() as u64) < summary.span_count && open.contains(&summary.trace_id)
            {
                // The others took its room: it is asked for alone.
                let alone = self.spans(&[summary.trace_id], MAX_SEARCHED_SPANS).await?;
                of = alone.into_iter().map(|(_, span, _)| span).collect();
            }
            let is_whole = of.len() as u64 >= summary.span_count;
            match search.judge_by_spans(&summary, &of, is_whole) {
                Some(true) => found.items.push(summary),
                Some(false) => {}
                None => found.traces_cut += 1,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::SearchQuery;

    #[test]
    fn cursors_come_back_and_others_are_refused() {
        let place = Place { start_unix_nano: u64::MAX - 3, trace_id: TraceId::from_u128(77) };
        let cursor = place.to_cursor();
        assert_eq!(Place::of_cursor(&cursor).unwrap(), place);
        for odd in ["", "tc1", "tc1zz", "tc1ü", &cursor[..40], &format!("{cursor}0"), "t2"] {
            let refused = Place::of_cursor(odd);
            assert!(matches!(refused, Err(QueryError::Cursor(_))), "{odd}");
        }
    }

    #[test]
    fn terms_that_must_hold_narrow_and_others_do_not() {
        let bound = |text: &str| {
            let query = Some(SearchQuery::parse(text, 0).unwrap());
            let made = Conditions::of(&TraceFilter { query, ..TraceFilter::default() });
            made.values.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(bound("agent:a error:true user:u agent:b"), ["q_agent", "q_errors", "q_user"]);
        assert_eq!(bound("start>2020-01-01 words"), ["q_from"]);
        for open in ["-agent:a", "agent:a OR user:u", "agent:a*", "agent:*", "error:false", "a.b:1"]
        {
            assert!(bound(open).is_empty(), "{open}");
        }
    }

    #[test]
    fn what_a_filter_names_is_bound_and_never_written_into_a_statement() {
        let odd = "'); DROP TABLE spans --";
        let filter = TraceFilter {
            agent: Some(odd.to_owned()),
            user: Some(odd.to_owned()),
            min_duration_ms: Some(u64::MAX),
            ..TraceFilter::default()
        };
        let made = Conditions::of(&filter);
        assert!(!made.sql.contains("DROP"));
        let bound: Vec<&str> = made.values.iter().map(|(name, _)| *name).collect();
        assert_eq!(bound, ["agent", "user", "least"]);
        assert_eq!(made.values[2].1, u64::MAX.to_string());
    }
}
