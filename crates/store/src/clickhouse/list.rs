//! Lists of traces, and searches, as ClickHouse answers them.
//!
//! A statement gives candidates: what SQL can tell of a filter narrows them, and each is held
//! against the whole filter and the query here, by the very code that the embedded store has, so
//! that both engines mean the same.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use throughline_trace::{FallbackState, Span, TraceId, TraceSummary};

use super::RemoteReader;
use super::conditions::Conditions;
use super::remote::count_in;
use super::schema::{
    LIST_GROUPS, LIST_HEAD, LIST_TAIL, LOOKUP_LIMIT, NEWEST_PARTS, ROWS, SPANS_WITH,
};
use crate::error::QueryError;
use crate::page::page_items;
use crate::query::{NANOS_PER_MILLI, Page, SearchExtent, TraceFilter};
use crate::read_search::MAX_SEARCH_MILLIS;
use crate::search::{NameField, NumberField, SearchQuery, Term, TextTest};
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

impl Conditions {
    /// What SQL can tell of a filter: never more than what a trace must meet.
    pub(super) fn of(filter: &TraceFilter) -> Self {
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
        match filter.error {
            Some(true) => made.add_plain("max(error_count) > 0"),
            Some(false) => made.add_plain("max(error_count) = 0"),
            None => {}
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

    /// All that a filter says but its query, for lists that nobody looks through afterwards. Of the
    /// root, and of fallbacks, a merged summary has the first and the furthest, and so has this.
    pub(super) fn exact(filter: &TraceFilter) -> Self {
        let mut made = Self::of(&TraceFilter { query: None, ..filter.clone() });
        if let Some(fallback) = filter.fallback {
            let names = FallbackState::ALL.map(|state| format!("'{}'", state.as_str())).join(",");
            let sql = format!(
                "max(indexOf([{names}], JSONExtractString(summary, 'fallback'))) = {{fallback:UInt8}}"
            );
            made.add(&sql, "fallback", fallback as u8 + 1);
        }
        if let Some(text) = &filter.text {
            let sql = "positionCaseInsensitiveUTF8(argMin(name, (
                    NOT JSONExtractBool(summary, 'root', 'is_root'),
                    JSONExtractUInt(summary, 'root', 'start_unix_nano'),
                    JSONExtractString(summary, 'root', 'span_id'))), {root_text:String}) > 0";
            made.add(sql, "root_text", text);
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
        if !self.has(name) {
            self.add(sql, name, value);
        }
    }
}

/// Parts that are looked at for each trace of a page, where only the newest are.
const PARTS_PER_TRACE: usize = 4;

/// Fewest letters of a text that are looked up: what the index knows is four in a row.
const MIN_TEXT_CHARS: usize = 4;

/// Most texts of a query that are looked up.
const TEXT_NAMES: [&str; 3] = ["text_a", "text_b", "text_c"];

/// What spans must say for a query, as far as SQL can tell.
fn texts_of(query: &SearchQuery) -> Conditions {
    let mut made = Conditions::default();
    let wanted = query.required_terms().filter_map(|term| match term {
        Term::Text(text) => sure_part(text),
        _ => None,
    });
    for (part, name) in wanted.zip(TEXT_NAMES) {
        made.add(&format!("{SPANS_WITH}{{{name}:String}})"), name, format!("%{part}%"));
    }
    made
}

/// The longest part of a text that stands in the columns of a span as it does in what the span says:
/// letters and digits of ASCII, which JSON does not escape, and not a number, which it may spell in
/// several ways. In lower case.
fn sure_part(text: &str) -> Option<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|part| part.len() >= MIN_TEXT_CHARS)
        .filter(|part| {
            part.bytes().any(|c| c.is_ascii_alphabetic() && !c.eq_ignore_ascii_case(&b'e'))
        })
        .max_by_key(|part| part.len())
        .map(str::to_ascii_lowercase)
}

/// What a page has so far.
struct Gathered {
    items: Vec<TraceSummary>,
    traces_cut: u64,
}

impl RemoteReader {
    /// Traces of all servers that have spans, newest start first; a search where the filter has a
    /// query, which looks for at most [`MAX_SEARCH_MILLIS`] at a time. `limit` is 1 to 1,000.
    ///
    /// # Errors
    /// [`QueryError::Cursor`]; [`QueryError::ClickHouse`] when it cannot be asked.
    pub async fn traces(
        &self,
        filter: &TraceFilter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<TraceSummary>, QueryError> {
        let mut begin = Instant::now();
        let mut after = cursor.map(Place::of_cursor).transpose()?;
        let items = page_items(limit);
        let conditions = Conditions::of(filter);
        let mut texts = filter.query.as_ref().map(texts_of).unwrap_or_default();
        if self.are_lookups_slow() {
            texts = Conditions::default();
        }
        // Whatever is asked for may be among the newest; what is rare is looked up.
        let mut is_first = true;
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
            let none = Conditions::default();
            let of_spans = if is_first { &none } else { &texts };
            let mut candidates = Vec::new();
            if conditions.sql.is_empty() && of_spans.sql.is_empty() {
                candidates = self.newest(after, most).await?;
            }
            if candidates.len() < most {
                let asked = self.candidates(of_spans, &conditions, after, most).await;
                candidates = match asked {
                    // Parts of it that are everywhere lead nowhere: the traces are walked over, with all the
                    // time that takes.
                    Err(error) if !of_spans.sql.is_empty() => {
                        tracing::debug!(%error, "a text is not looked up");
                        self.lookups_are_slow();
                        (texts, begin) = (Conditions::default(), Instant::now());
                        continue;
                    }
                    answered => answered?,
                };
            }
            is_first = false;
            is_over = candidates.len() < most;
            after = candidates.last().copied().or(after);
            self.sift(filter, &candidates, &mut found).await?;
        }
        let has_more = found.items.len() > items;
        found.items.truncate(items);
        let ids: Vec<TraceId> = found.items.iter().map(|summary| summary.trace_id).collect();
        let counts = self.counts(&ids).await?;
        found.items.iter_mut().for_each(|summary| count_in(summary, &counts));
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

    /// The next traces among the newest parts, where nothing narrows: grouping all of them takes
    /// long. Those that started earlier than these parts tell are left out when they are read.
    async fn newest(&self, after: Option<Place>, most: usize) -> Result<Vec<Place>, QueryError> {
        let mut parts = Conditions::default();
        let before = after.map_or(u64::MAX, |after| after.start_unix_nano);
        parts.add(NEWEST_PARTS, "before", before);
        parts.values.push(("parts", (most * PARTS_PER_TRACE).to_string()));
        self.candidates(&parts, &Conditions::default(), after, most).await
    }

    /// The next traces that may fit: conditions about parts, and about traces.
    async fn candidates(
        &self,
        of_parts: &Conditions,
        conditions: &Conditions,
        after: Option<Place>,
        most: usize,
    ) -> Result<Vec<Place>, QueryError> {
        let mut sql = conditions.sql.clone();
        let mut values = of_parts.values.clone();
        values.extend(conditions.values.iter().cloned());
        if let Some(after) = after {
            sql.push_str(
                " AND (start < {at:UInt64} OR start = {at:UInt64} AND trace_id > {after:String})",
            );
            values.push(("at", after.start_unix_nano.to_string()));
            values.push(("after", after.trace_id.to_string()));
        }
        values.push(("limit", most.to_string()));
        let limits = if of_parts.sql.contains(SPANS_WITH) { LOOKUP_LIMIT } else { "" };
        let sql = format!("{LIST_HEAD}{}{LIST_GROUPS}{sql}{LIST_TAIL}{limits}{ROWS}", of_parts.sql);
        let rows = self.ask(&sql, &values).await?;
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
        // One that started earlier stands further back, and comes there.
        let starts: HashMap<TraceId, u64> =
            candidates.iter().map(|place| (place.trace_id, place.start_unix_nano)).collect();
        let mut known = self.known(&ids).await?;
        let mut summaries: Vec<TraceSummary> = ids
            .iter()
            .filter_map(|id| known.remove(id)?.joined())
            .filter(|summary| filter.fields_match(summary))
            .filter(|summary| starts.get(&summary.trace_id) == Some(&summary.start_unix_nano))
            .collect();
        let records = [NumberField::Decisions, NumberField::Logs];
        if filter.query.as_ref().is_some_and(|query| query.asks_for(&records)) {
            let counts = self.counts(&ids).await?;
            summaries.iter_mut().for_each(|summary| count_in(summary, &counts));
        }
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
    fn of_texts_that_must_be_said_what_json_leaves_as_it_is_is_looked_up() {
        let bound = |text: &str| {
            let made = texts_of(&SearchQuery::parse(text, 0).unwrap());
            made.values.into_iter().map(|(_, value)| value).collect::<Vec<_>>()
        };
        assert_eq!(bound("\"CARD declined\""), ["%declined%"]);
        assert_eq!(bound("refund agent:a voucher"), ["%refund%", "%voucher%"]);
        for open in
            ["-refund", "refund OR voucher", "abc", "Grüße", "12345", "1e30", "agent:refund"]
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
