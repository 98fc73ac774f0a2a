//! Traces as ClickHouse has them, of all servers that mirror into it. The network is the caller's.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use throughline_trace::{Sampled, Span, SpanId, TraceId, TraceSummary};

use super::metrics::Menu;
use super::recent::Recent;
use super::schema::{PARTS_OF, SPANS_OF};
use super::{parse, rows};
use crate::answer::{StoredTrace, TracePlace, TraceVersion, Truncated};
use crate::error::QueryError;
use crate::layout::{Day, SegmentId};

/// Most spans of a trace in an answer.
const MAX_TRACE_SPANS: usize = 50_000;

/// How long texts are not looked up after that took too long.
const SLOW_LOOKUPS_PAUSE: Duration = Duration::from_secs(60);

/// What a statement will answer: rows, or what is wrong, for people.
pub type Rows<'a> = Pin<Box<dyn Future<Output = Result<Vec<Value>, String>> + Send + 'a>>;

/// Runs statements that end in `FORMAT JSONEachRow`, with 64-bit integers as numbers.
pub trait Statements: fmt::Debug + Send + Sync {
    /// Asks one, with these values for what it names in braces.
    fn rows<'a>(&'a self, sql: &'a str, values: &'a [(&'static str, String)]) -> Rows<'a>;
}

/// Reads what all servers have written.
#[derive(Debug, Clone)]
pub struct RemoteReader {
    statements: Arc<dyn Statements>,
    /// The name under which the store beside us is mirrored.
    server: String,
    recent: Recent,
    menu: Menu,
    /// When looking texts up last took too long.
    slow_lookup: Arc<Mutex<Option<Instant>>>,
}

/// What ClickHouse knows of a trace without its spans.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// Whole summaries, by server.
    pub(super) wholes: BTreeMap<String, TraceSummary>,
    places: Vec<TracePlace>,
}

impl Known {
    /// The summary over all servers.
    pub(super) fn joined(self) -> Option<TraceSummary> {
        self.wholes.into_values().reduce(|mut joined, other| {
            joined.merge(other);
            joined
        })
    }
}

impl RemoteReader {
    /// Reads by these statements; `server` is the name under which our own store is mirrored.
    pub fn new(statements: Arc<dyn Statements>, server: impl Into<String>) -> Self {
        let (recent, menu, slow_lookup) = Default::default();
        Self { statements, server: server.into(), recent, menu, slow_lookup }
    }

    pub(super) fn menu(&self) -> &Menu {
        &self.menu
    }

    /// Whether looking texts up took too long a moment ago.
    pub(super) fn are_lookups_slow(&self) -> bool {
        let at = *self.slow_lookup.lock().unwrap_or_else(PoisonError::into_inner);
        at.is_some_and(|at| at.elapsed() < SLOW_LOOKUPS_PAUSE)
    }

    /// Looking texts up takes too long: it is left alone for a while.
    pub(super) fn lookups_are_slow(&self) {
        *self.slow_lookup.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    pub(super) async fn ask(
        &self,
        sql: &str,
        values: &[(&'static str, String)],
    ) -> Result<Vec<Value>, QueryError> {
        self.statements.rows(sql, values).await.map_err(QueryError::ClickHouse)
    }

    /// What is known of some traces.
    pub(super) async fn known(
        &self,
        ids: &[TraceId],
    ) -> Result<BTreeMap<TraceId, Known>, QueryError> {
        let mut found: BTreeMap<TraceId, Known> = BTreeMap::new();
        // Servers of which the newest segment that has the trace whole was met.
        let mut done: HashSet<(TraceId, String)> = HashSet::new();
        for row in self.ask(PARTS_OF, &[("ids", array(ids))]).await? {
            let text = |name: &str| row[name].as_str().unwrap_or_default();
            let mut summary: TraceSummary =
                serde_json::from_str(text("summary")).map_err(|error| {
                    let detail = format!("a summary in ClickHouse cannot be read: {error}");
                    QueryError::ClickHouse(detail)
                })?;
            // When it was read for ClickHouse, soon after it came: all that is known there.
            summary.received_unix_nano = row["version"].as_u64().unwrap_or_default();
            let (id, server) = (summary.trace_id, text("server").to_owned());
            let known = found.entry(id).or_default();
            if done.contains(&(id, server.clone())) {
                continue;
            }
            known.places.push(TracePlace {
                segment: format!("{server}/{}", text("segment")),
                is_skeleton: false,
            });
            match known.wholes.get_mut(&server) {
                Some(whole) => whole.merge(summary),
                None => drop(known.wholes.insert(server.clone(), summary)),
            }
            if row["is_carried"] == 1 {
                done.insert((id, server));
            }
        }
        Ok(found)
    }

    /// What is known of a trace; nothing is an answer too.
    async fn known_of(&self, id: TraceId) -> Result<Known, QueryError> {
        Ok(self.known(&[id]).await?.remove(&id).unwrap_or_default())
    }

    /// Spans of some traces with the server that has each, in the order of arrival, at most so
    /// many; with what each says, as text.
    pub(super) async fn spans(
        &self,
        ids: &[TraceId],
        limit: usize,
    ) -> Result<Vec<(String, Span, String)>, QueryError> {
        let values = [("ids", array(ids)), ("limit", limit.to_string())];
        let rows = self.ask(SPANS_OF, &values).await?;
        rows.into_iter()
            .map(|row| {
                let span = parse::span(&row).map_err(QueryError::ClickHouse)?;
                let server = row["server"].as_str().unwrap_or_default().to_owned();
                Ok((server, span, parse::content(row)))
            })
            .collect()
    }

    /// A trace, with what ClickHouse has and the store beside us has not: parts on other servers, and
    /// what retention or sampling took here. Without ClickHouse what is here is the answer.
    ///
    /// # Errors
    /// [`QueryError::ClickHouse`] when it cannot be asked, and nothing is here.
    pub(crate) async fn trace(
        &self,
        here: Option<StoredTrace>,
        id: TraceId,
    ) -> Result<Option<StoredTrace>, QueryError> {
        let is_lacking = here.as_ref().is_none_or(lacks_spans);
        let asked = async {
            let remembered = self.recent.take(id);
            let ids = [id];
            let spans = self.spans(&ids, MAX_TRACE_SPANS + 1);
            if let (None, true) = (&remembered, is_lacking) {
                // Whatever is known, its spans are wanted: both at once.
                let (known, spans) = tokio::try_join!(self.known_of(id), spans)?;
                return Ok((known, spans));
            }
            let known = match remembered {
                Some(known) => known,
                None => self.known_of(id).await?,
            };
            let is_elsewhere = known.wholes.keys().any(|server| *server != self.server);
            if known.wholes.is_empty() || !(is_elsewhere || is_lacking) {
                return Ok((known, Vec::new()));
            }
            Ok::<_, QueryError>((known, spans.await?))
        };
        match tokio::try_join!(asked, self.records(id)) {
            Ok(((known, spans), records)) => {
                let whole = join(here, known, spans, &self.server);
                Ok(whole.map(|trace| records.join(trace, &self.server)))
            }
            Err(error) => instead(here, error),
        }
    }

    /// What tells whether such a trace is still what it was.
    ///
    /// # Errors
    /// As [`RemoteReader::trace`].
    pub(crate) async fn version(
        &self,
        here: Option<TraceVersion>,
        id: TraceId,
    ) -> Result<Option<TraceVersion>, QueryError> {
        let ids = [id];
        let (known, counts) = match tokio::try_join!(self.known_of(id), self.counts(&ids)) {
            Ok(known) => known,
            Err(error) => return instead(here, error),
        };
        // Who asks for the version asks for the trace next, unless it has that.
        self.recent.put(id, known.clone());
        let (mut places, decision_ids, summary) = match here {
            Some(here) => (here.places, here.decision_ids, Some(here.summary)),
            None => Default::default(),
        };
        places.extend(known.places.iter().cloned());
        let summary = join_summary(summary, known, &self.server);
        Ok(summary.map(|mut summary| {
            count_in(&mut summary, &counts);
            TraceVersion { summary, places, decision_ids }
        }))
    }

    /// The summary of such a trace.
    ///
    /// # Errors
    /// As [`RemoteReader::trace`].
    pub(crate) async fn summary(
        &self,
        here: Option<TraceSummary>,
        id: TraceId,
    ) -> Result<Option<TraceSummary>, QueryError> {
        let ids = [id];
        match tokio::try_join!(self.known_of(id), self.counts(&ids)) {
            Ok((known, counts)) => {
                let summary = join_summary(here, known, &self.server);
                Ok(summary.map(|mut summary| {
                    count_in(&mut summary, &counts);
                    summary
                }))
            }
            Err(error) => instead(here, error),
        }
    }
}

/// Log records and decisions, by trace.
pub(super) type Counts = HashMap<TraceId, (u64, u64)>;

/// Sets the numbers of log records and decisions, of which this server may know newer ones.
pub(super) fn count_in(summary: &mut TraceSummary, counts: &Counts) {
    let (logs, decisions) = counts.get(&summary.trace_id).copied().unwrap_or_default();
    summary.log_count = summary.log_count.max(logs);
    summary.decision_count = summary.decision_count.max(decisions);
}

/// Ids as an array of ClickHouse.
fn array(ids: &[TraceId]) -> String {
    let quoted: Vec<String> = ids.iter().map(|id| format!("'{id}'")).collect();
    format!("[{}]", quoted.join(","))
}

/// What is here, when ClickHouse could not be asked.
fn instead<T>(here: Option<T>, error: QueryError) -> Result<Option<T>, QueryError> {
    if here.is_none() {
        return Err(error);
    }
    tracing::warn!(%error, "a trace is shown as far as this server has it");
    Ok(here)
}

fn lacks_spans(here: &StoredTrace) -> bool {
    here.is_skeleton
        || here.summary.sampled.spans_dropped > 0
        || here.truncated.is_none() && (here.spans.len() as u64) < here.summary.span_count
}

/// A summary over all servers. Of our own the store knows more, unless retention took the
/// segments of the trace whole.
fn join_summary(here: Option<TraceSummary>, mut known: Known, own: &str) -> Option<TraceSummary> {
    let Some(here) = here else { return known.joined() };
    let mut joined = match known.wholes.remove(own) {
        Some(ours) if ours.span_count > here.span_count => TraceSummary {
            log_count: here.log_count,
            decision_count: here.decision_count,
            received_unix_nano: here.received_unix_nano,
            ..ours
        },
        _ => here,
    };
    known.wholes.into_values().for_each(|other| joined.merge(other));
    Some(joined)
}

fn join(
    here: Option<StoredTrace>,
    known: Known,
    spans: Vec<(String, Span, String)>,
    own: &str,
) -> Option<StoredTrace> {
    if known.wholes.is_empty() {
        return here;
    }
    let is_lacking = here.as_ref().is_none_or(lacks_spans);
    let summary = join_summary(here.as_ref().map(|here| here.summary.clone()), known, own)?;
    let mut trace = here.unwrap_or_else(|| StoredTrace {
        summary: TraceSummary::empty(summary.trace_id),
        spans: Vec::new(),
        logs: Vec::new(),
        decisions: Vec::new(),
        truncated: None,
        is_skeleton: false,
    });
    let sampled = std::mem::take(&mut trace.summary.sampled);
    trace.summary = summary;
    if is_lacking {
        // Of a span that is left bare here the whole is there.
        let whole: HashSet<SpanId> = spans
            .iter()
            .filter(|(server, _, _)| server == own)
            .map(|(_, span, _)| span.span_id)
            .collect();
        trace.spans.retain(|span| !whole.contains(&span.span_id));
    }
    // A sender that tried two servers is told by both, and its spans are the same.
    let place = SegmentId::first(Day(0));
    let text = |span: &Span| parse::content(rows::span(place, 0, span));
    let mut seen: HashSet<String> = trace.spans.iter().map(text).collect();
    for (server, span, content) in spans {
        if (is_lacking || server != own) && seen.insert(content) {
            trace.spans.push(span);
        }
    }
    let is_cut = trace.spans.len() > MAX_TRACE_SPANS;
    trace.spans.truncate(MAX_TRACE_SPANS);
    let is_whole = trace.spans.len() as u64 >= trace.summary.span_count;
    if is_whole {
        trace.is_skeleton = false;
    } else {
        trace.summary.sampled = sampled;
    }
    if is_whole && !is_cut {
        trace.summary.sampled = Sampled::default();
    }
    if is_cut || trace.truncated.is_some() {
        trace.truncated = Some(Truncated {
            total_spans: trace.summary.span_count,
            total_logs: trace.summary.log_count,
            total_decisions: trace.summary.decision_count,
        });
    }
    Some(trace)
}

#[cfg(test)]
mod tests {
    //! What is here, joined with what a database with fixed rows answers.

    use serde_json::json;

    use super::*;

    #[derive(Debug)]
    struct Fixed(Result<(Vec<Value>, Vec<Value>), String>);

    impl Statements for Fixed {
        fn rows<'a>(&'a self, sql: &'a str, _: &'a [(&'static str, String)]) -> Rows<'a> {
            Box::pin(async move {
                let (parts, spans) = self.0.clone()?;
                Ok(match sql {
                    PARTS_OF => parts,
                    SPANS_OF => spans,
                    _ => Vec::new(),
                })
            })
        }
    }

    const ID: u128 = 7;

    fn span(id: u64, name: &str) -> Span {
        Span::new(TraceId::from_u128(ID), SpanId::from_u64(id), None, name)
    }

    fn summary(spans: u64) -> TraceSummary {
        TraceSummary { span_count: spans, ..TraceSummary::empty(TraceId::from_u128(ID)) }
    }

    fn part(server: &str, spans: u64, is_carried: u8) -> Value {
        let text = serde_json::to_string(&summary(spans)).unwrap();
        json!({ "server": server, "segment": "x", "is_carried": is_carried, "summary": text, "version": 5 })
    }

    fn row(server: &str, span: &Span) -> Value {
        let mut row = rows::span(SegmentId::first(Day(1)), 3, span);
        row["server"] = json!(server);
        row
    }

    fn here(spans: Vec<Span>, is_skeleton: bool, total: u64) -> StoredTrace {
        let (logs, decisions) = Default::default();
        let summary = summary(total);
        StoredTrace { summary, spans, logs, decisions, truncated: None, is_skeleton }
    }

    fn reader(parts: Vec<Value>, spans: Vec<Value>) -> RemoteReader {
        RemoteReader::new(Arc::new(Fixed(Ok((parts, spans)))), "own")
    }

    async fn names(reader: &RemoteReader, here: Option<StoredTrace>) -> (Vec<String>, u64, bool) {
        let trace = reader.trace(here, TraceId::from_u128(ID)).await.unwrap().unwrap();
        let names = trace.spans.into_iter().map(|span| span.name).collect();
        (names, trace.summary.span_count, trace.is_skeleton)
    }

    #[tokio::test]
    async fn what_was_taken_here_and_what_came_elsewhere_is_shown_once() {
        let (whole, far) = (span(1, "whole"), span(2, "far"));
        let spans = vec![row("own", &whole), row("other", &far), row("other", &whole)];
        let parts = vec![part("other", 2, 1), part("own", 1, 1)];
        let both = reader(parts, spans);
        let is = |names: &[&str], count: u64, is_skeleton: bool| {
            (names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), count, is_skeleton)
        };
        // The span that both were sent counts at both.
        let bare = here(vec![span(1, "bare")], true, 1);
        assert_eq!(names(&both, Some(bare)).await, is(&["whole", "far"], 3, true));
        let kept = here(vec![whole.clone()], false, 1);
        assert_eq!(names(&both, Some(kept)).await, is(&["whole", "far"], 3, false));
        assert_eq!(names(&both, None).await, is(&["whole", "far"], 3, false));
        let alone = reader(vec![part("own", 1, 1)], vec![row("own", &whole)]);
        let bare = here(vec![span(1, "bare")], true, 1);
        assert_eq!(names(&alone, Some(bare)).await, is(&["whole"], 1, false));
    }

    #[tokio::test]
    async fn of_a_server_the_newest_part_that_has_the_whole_ends_the_sum() {
        let parts = vec![part("a", 1, 0), part("a", 5, 1), part("a", 4, 1), part("b", 2, 1)];
        let found = reader(parts, Vec::new()).summary(None, TraceId::from_u128(ID)).await.unwrap();
        assert_eq!(found.map(|found| (found.span_count, found.received_unix_nano)), Some((8, 5)));
    }

    #[tokio::test]
    async fn without_an_answer_what_is_here_is_shown_and_nothing_is_an_error() {
        let down = RemoteReader::new(Arc::new(Fixed(Err("refused".to_owned()))), "own");
        let kept = here(vec![span(1, "here")], false, 1);
        assert_eq!(names(&down, Some(kept)).await.0, ["here"]);
        let none = down.trace(None, TraceId::from_u128(ID)).await;
        assert!(matches!(none, Err(QueryError::ClickHouse(_))), "{none:?}");
    }
}
