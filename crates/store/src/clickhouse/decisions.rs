//! Decisions and log records of all servers, as lists.
//!
//! SQL narrows as far as it can tell; each row is held against the whole filter here, by the code that
//! the embedded store has.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::Value;
use throughline_trace::{Decision, DecisionId, LogRecord, TraceId};

use super::RemoteReader;
use super::conditions::{Conditions, texts};
use super::parse_records as parse;
use super::remote::Counts;
use super::schema::{COUNTS_OF, DECISIONS_HEAD, DECISIONS_TAIL, LOGS_HEAD, LOGS_TAIL};
use crate::answer::StoredTrace;
use crate::error::QueryError;
use crate::page::page_items;
use crate::query::{DecisionFilter, LogFilter, Page, SearchExtent};
use crate::read_search::MAX_SEARCH_MILLIS;

/// First characters of cursors of these lists: those of the embedded store are other ones.
const DECISIONS_CURSOR: &str = "dc1";
const LOGS_CURSOR: &str = "lc1";

/// Fewest rows that are asked for at a time where SQL does not tell all of a filter.
const MIN_CANDIDATES: usize = 500;

/// Most of the decisions, and of the log records, of a trace in an answer.
const MAX_TRACE_RECORDS: usize = 10_000;

/// Where a row stands: by time, downwards, and then by what is never told twice, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    time_unix_nano: u64,
    tie: String,
}

impl Place {
    fn to_cursor(&self, prefix: &str) -> String {
        format!("{prefix}{:016x}{}", self.time_unix_nano, self.tie)
    }

    fn of_cursor(prefix: &str, cursor: &str) -> Result<Self, QueryError> {
        let parse = || {
            let digits = cursor.strip_prefix(prefix)?;
            let (time, tie) = (digits.get(..16)?, digits.get(16..)?);
            let is_hex = time.bytes().all(|byte| byte.is_ascii_hexdigit());
            let is_tie = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
            (is_hex && !tie.is_empty() && tie.chars().all(is_tie)).then_some(())?;
            let time_unix_nano = u64::from_str_radix(time, 16).ok()?;
            Some(Self { time_unix_nano, tie: tie.to_owned() })
        };
        parse().ok_or_else(|| QueryError::Cursor(cursor.chars().take(80).collect()))
    }

    fn of_row(row: &Value) -> Self {
        Self {
            time_unix_nano: row["time_unix_nano"].as_u64().unwrap_or_default(),
            tie: row["tie"].as_str().unwrap_or_default().to_owned(),
        }
    }
}

/// A list of records, as a statement and what its rows are.
struct Records<'a, T> {
    head: &'a str,
    tail: &'a str,
    cursor_prefix: &'a str,
    conditions: Conditions,
    /// Whether rows may come that do not fit.
    is_rough: bool,
    parse: fn(&Value) -> Result<T, String>,
}

impl<T> Records<'_, T> {
    async fn page(
        &self,
        remote: &RemoteReader,
        fits: impl Fn(&T) -> bool,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<T>, QueryError> {
        let begin = Instant::now();
        let of_cursor = |cursor| Place::of_cursor(self.cursor_prefix, cursor);
        let mut after = cursor.map(of_cursor).transpose()?;
        let items = page_items(limit);
        let mut found: Vec<(Place, T)> = Vec::new();
        let mut is_stopped = false;
        loop {
            let wanted = items + 1 - found.len();
            let most = if self.is_rough { wanted.max(MIN_CANDIDATES) } else { wanted };
            let rows = self.rows(remote, after.as_ref(), most).await?;
            let is_over = rows.len() < most;
            after = rows.last().map(Place::of_row).or(after);
            for row in rows {
                let item = (self.parse)(&row).map_err(QueryError::ClickHouse)?;
                if fits(&item) {
                    found.push((Place::of_row(&row), item));
                }
            }
            if is_over || found.len() > items {
                break;
            }
            if begin.elapsed() > Duration::from_millis(MAX_SEARCH_MILLIS) {
                is_stopped = true;
                break;
            }
        }
        let has_more = found.len() > items;
        found.truncate(items);
        let last = found.last().filter(|_| has_more).map(|(place, _)| place.clone());
        let until = after.filter(|_| is_stopped && !has_more);
        let search = SearchExtent {
            searched_until_unix_nano: until.as_ref().map(|place| place.time_unix_nano),
            ..SearchExtent::default()
        };
        let next = last.or(until).map(|place| place.to_cursor(self.cursor_prefix));
        Ok(Page { items: found.into_iter().map(|(_, item)| item).collect(), next, search })
    }

    async fn rows(
        &self,
        remote: &RemoteReader,
        after: Option<&Place>,
        most: usize,
    ) -> Result<Vec<Value>, QueryError> {
        let mut conditions = self.conditions.clone();
        if let Some(after) = after {
            let sql = "(time_unix_nano < {at:UInt64} OR time_unix_nano = {at:UInt64} AND tie < {after:String})";
            conditions.add(sql, "at", after.time_unix_nano);
            conditions.values.push(("after", after.tie.clone()));
        }
        conditions.values.push(("limit", most.to_string()));
        let sql = format!("{}{}{}", self.head, conditions.sql, self.tail);
        remote.ask(&sql, &conditions.values).await
    }
}

/// What SQL can tell of a filter, and whether that is all of it.
fn of_decisions(filter: &DecisionFilter) -> (Conditions, bool) {
    let mut made = Conditions::default();
    let names = [
        ("agent = {agent:String}", "agent", &filter.agent),
        ("session = {session:String}", "session", &filter.session),
        ("stage = {stage:String}", "stage", &filter.stage),
        ("action = {action:String}", "action", &filter.action),
        ("model_version = {model_version:String}", "model_version", &filter.model_version),
        ("input_hash = {input_hash:String}", "input_hash", &filter.input_hash),
        ("instance_id = {instance:String}", "instance", &filter.instance),
    ];
    for (sql, name, value) in names {
        if let Some(value) = value {
            made.add(sql, name, value);
        }
    }
    if let Some(derived) = filter.derived {
        made.add("is_derived = {derived:UInt8}", "derived", u8::from(derived));
    }
    if let Some(id) = filter.trace_id {
        made.add("trace_id = {trace:String}", "trace", id);
    }
    if let Some(min) = filter.min_confidence {
        made.add("confidence >= {min:Float64}", "min", min);
    }
    if let Some(max) = filter.max_confidence {
        made.add("confidence <= {max:Float64}", "max", max);
    }
    times(&mut made, (filter.after_unix_nano, filter.before_unix_nano));
    text(&mut made, "reason", filter.text.as_deref());
    (made, filter.text.is_some())
}

/// The same of log records.
fn of_logs(filter: &LogFilter) -> (Conditions, bool) {
    let mut made = Conditions::default();
    if let Some(service) = &filter.service {
        made.add("service = {service:String}", "service", service);
    }
    if let Some(name) = &filter.event_name {
        made.add("event_name = {event:String}", "event", name);
    }
    if let Some(min) = filter.min_severity {
        made.add("severity_number >= {severity:UInt8}", "severity", min.0);
    }
    if let Some(id) = filter.trace_id {
        made.add("trace_id = {trace:String}", "trace", id);
    }
    times(&mut made, (filter.after_unix_nano, filter.before_unix_nano));
    text(&mut made, "body", filter.text.as_deref());
    (made, filter.text.is_some())
}

fn times(made: &mut Conditions, (after, before): (Option<u64>, Option<u64>)) {
    if let Some(after) = after {
        made.add("time_unix_nano >= {since:UInt64}", "since", after);
    }
    if let Some(before) = before {
        made.add("time_unix_nano < {until:UInt64}", "until", before);
    }
}

/// Part of a text in any case of letters. What is not ASCII is left to our own code: its rules for
/// upper and lower case are not those of ClickHouse.
fn text(made: &mut Conditions, column: &str, part: Option<&str>) {
    if let Some(part) = part.filter(|part| part.is_ascii()) {
        let sql = format!("position(lowerUTF8({column}), {{text:String}}) > 0");
        made.add(&sql, "text", part.to_lowercase());
    }
}

impl RemoteReader {
    /// Decisions of all servers that meet the filter, newest first; one that two servers have comes
    /// once.
    ///
    /// # Errors
    /// [`QueryError::Cursor`]; [`QueryError::ClickHouse`] when it cannot be asked.
    pub async fn decisions(
        &self,
        filter: &DecisionFilter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<Decision>, QueryError> {
        let (conditions, is_rough) = of_decisions(filter);
        let records = Records {
            head: DECISIONS_HEAD,
            tail: DECISIONS_TAIL,
            cursor_prefix: DECISIONS_CURSOR,
            conditions,
            is_rough,
            parse: parse::decision,
        };
        records.page(self, |decision| filter.matches(decision), cursor, limit).await
    }

    /// One decision, of whatever server.
    ///
    /// # Errors
    /// [`QueryError::ClickHouse`].
    pub(crate) async fn decision(&self, id: DecisionId) -> Result<Option<Decision>, QueryError> {
        let mut of = Conditions::default();
        of.add("decision_id = {id:String}", "id", id);
        of.values.push(("limit", "1".to_owned()));
        let sql = format!("{DECISIONS_HEAD}{}{DECISIONS_TAIL}", of.sql);
        let rows = self.ask(&sql, &of.values).await?;
        rows.first().map(parse::decision).transpose().map_err(QueryError::ClickHouse)
    }

    /// Log records of all servers that meet the filter, newest first.
    ///
    /// # Errors
    /// [`QueryError::Cursor`]; [`QueryError::ClickHouse`] when it cannot be asked.
    pub async fn logs(
        &self,
        filter: &LogFilter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<LogRecord>, QueryError> {
        let (conditions, is_rough) = of_logs(filter);
        let records = Records {
            head: LOGS_HEAD,
            tail: LOGS_TAIL,
            cursor_prefix: LOGS_CURSOR,
            conditions,
            is_rough,
            parse: parse::log,
        };
        records.page(self, |log| filter.matches(log), cursor, limit).await
    }

    /// How many log records and decisions there are of some traces.
    pub(super) async fn counts(&self, ids: &[TraceId]) -> Result<Counts, QueryError> {
        if ids.is_empty() {
            return Ok(Counts::new());
        }
        let ids = texts(ids.iter().map(ToString::to_string));
        let rows = self.ask(COUNTS_OF, &[("ids", ids)]).await?;
        let read = |row: &Value| {
            let id = row["trace_id"].as_str()?.parse().ok()?;
            Some((id, (row["logs"].as_u64()?, row["decisions"].as_u64()?)))
        };
        Ok(rows.iter().filter_map(read).collect())
    }

    /// Log records and decisions of a trace, of all servers.
    pub(super) async fn records(&self, id: TraceId) -> Result<TraceRecords, QueryError> {
        let mut of = Conditions::default();
        of.add("trace_id = {trace:String}", "trace", id);
        of.values.push(("limit", MAX_TRACE_RECORDS.to_string()));
        let logs = format!("{LOGS_HEAD}{}{LOGS_TAIL}", of.sql);
        let decisions = format!("{DECISIONS_HEAD}{}{DECISIONS_TAIL}", of.sql);
        let (logs, decisions) =
            tokio::try_join!(self.ask(&logs, &of.values), self.ask(&decisions, &of.values))?;
        let log = |row: &Value| {
            let server = row["server"].as_str().unwrap_or_default().to_owned();
            Ok((server, parse::log(row)?))
        };
        let parsed = || {
            let logs = logs.iter().rev().map(log).collect::<Result<_, String>>()?;
            let decisions = decisions.iter().rev().map(parse::decision);
            Ok(TraceRecords { logs, decisions: decisions.collect::<Result<_, String>>()? })
        };
        parsed().map_err(QueryError::ClickHouse)
    }
}

/// What was recorded in the course of a trace, by time.
#[derive(Debug, Default)]
pub(super) struct TraceRecords {
    /// With the server that has each.
    logs: Vec<(String, LogRecord)>,
    decisions: Vec<Decision>,
}

impl TraceRecords {
    /// Adds what a trace lacks: what other servers have, and what retention took of our own.
    pub(super) fn join(self, mut trace: StoredTrace, own: &str) -> StoredTrace {
        let is_lacking = trace.logs.is_empty();
        let logs = self.logs.into_iter().filter(|(server, _)| is_lacking || server != own);
        trace.logs.extend(logs.map(|(_, log)| log));
        trace.logs.sort_by_key(|log| log.time_unix_nano);
        let here: HashSet<DecisionId> = trace.decisions.iter().map(|of| of.decision_id).collect();
        trace.decisions.extend(
            self.decisions.into_iter().filter(|decision| !here.contains(&decision.decision_id)),
        );
        trace.decisions.sort_by_key(|decision| decision.timestamp_ns);
        let summary = &mut trace.summary;
        summary.log_count = summary.log_count.max(trace.logs.len() as u64);
        summary.decision_count = summary.decision_count.max(trace.decisions.len() as u64);
        trace
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_back_and_others_are_refused() {
        let place = Place { time_unix_nano: u64::MAX - 1, tie: "2026-01-02-1/0000/eu_1.a".into() };
        let cursor = place.to_cursor(LOGS_CURSOR);
        assert_eq!(Place::of_cursor(LOGS_CURSOR, &cursor).unwrap(), place);
        for odd in ["", "lc1", "lc10123456789abcdef", "lc1zz", "l2", "lc10123456789abcdef'"] {
            assert!(Place::of_cursor(LOGS_CURSOR, odd).is_err(), "{odd}");
        }
        assert!(Place::of_cursor(DECISIONS_CURSOR, &cursor).is_err());
    }

    #[test]
    fn values_are_bound_and_texts_that_are_not_ascii_are_left_to_us() {
        let odd = "'; DROP TABLE logs --";
        let bound = |text: &str| {
            let filter = LogFilter {
                service: Some(odd.to_owned()),
                text: Some(text.to_owned()),
                ..LogFilter::default()
            };
            let (made, is_rough) = of_logs(&filter);
            assert!(is_rough && !made.sql.contains("DROP"));
            made.values.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(bound("CARD"), ["service", "text"]);
        assert_eq!(bound("Grüße"), ["service"]);
    }
}
