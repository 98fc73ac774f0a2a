//! The schema `trace`: what is known of a trace without reading its spans.

use std::sync::{Arc, LazyLock};

use throughline_trace::{RootSpan, TraceSummary};

use super::{
    Row, boolean, count, double, duration, int, is_always_set, millis, nanos, row, shape, string,
    texts, timestamp,
};
use crate::schema::{RecordType, Schema, Scope};
use crate::time::Timestamp;
use crate::value::{Record, Value};

static TRACE: LazyLock<Arc<RecordType>> = LazyLock::new(|| Arc::new(shape("trace", ROWS)));

/// The schema with the one variable `trace`. [`TraceSummary`] is its scope.
pub fn trace_schema() -> Schema {
    super::schema_of("trace", &TRACE, "the summary of the trace")
}

impl Scope for TraceSummary {
    fn variable(&self, index: usize) -> Option<Value<'_>> {
        (index == 0).then_some(Value::Record(self))
    }
}

impl Record for TraceSummary {
    fn shape(&self) -> &RecordType {
        &TRACE
    }

    fn field(&self, index: usize) -> Value<'_> {
        ROWS.get(index).map_or(Value::Null, |row| (row.get)(self))
    }

    fn is_set(&self, index: usize) -> bool {
        ROWS.get(index).is_some_and(|row| (row.is_set)(self))
    }
}

fn root(trace: &TraceSummary, read: for<'a> fn(&'a RootSpan) -> Option<&'a str>) -> Value<'_> {
    Value::Str(trace.root.as_ref().and_then(read).unwrap_or_default())
}

fn has(trace: &TraceSummary, read: for<'a> fn(&'a RootSpan) -> Option<&'a str>) -> bool {
    trace.root.as_ref().and_then(read).is_some()
}

/// Nanoseconds from the first start to the last end; none while only decisions are known.
fn nanos_of(trace: &TraceSummary) -> u64 {
    trace.end_unix_nano.saturating_sub(trace.start_unix_nano)
}

fn start(trace: &TraceSummary) -> u64 {
    if trace.start_unix_nano == u64::MAX { 0 } else { trace.start_unix_nano }
}

const ROWS: &[Row<TraceSummary>] = &[
    row(
        "id",
        string,
        |t| Value::text(t.trace_id.to_string()),
        is_always_set,
        "32 hexadecimal digits",
    ),
    row(
        "name",
        string,
        |t| root(t, |r| Some(&r.name)),
        |t| has(t, |r| Some(&r.name)),
        "name of the root, or of the earliest span",
    ),
    row(
        "service",
        string,
        |t| root(t, |r| Some(&r.service)),
        |t| has(t, |r| Some(&r.service)),
        "service of the root",
    ),
    row(
        "agent",
        string,
        |t| root(t, |r| r.agent.as_deref()),
        |t| has(t, |r| r.agent.as_deref()),
        "agent of the root",
    ),
    row(
        "session",
        string,
        |t| root(t, |r| r.session.as_deref()),
        |t| has(t, |r| r.session.as_deref()),
        "session of the root",
    ),
    row(
        "outcome",
        string,
        |t| root(t, |r| r.outcome.as_deref()),
        |t| has(t, |r| r.outcome.as_deref()),
        "business outcome of the root",
    ),
    row(
        "is_error",
        boolean,
        |t| Value::Bool(t.root.as_ref().is_some_and(|r| r.is_error)),
        |t| t.root.is_some(),
        "whether the root failed",
    ),
    row(
        "has_root",
        boolean,
        |t| Value::Bool(t.root.as_ref().is_some_and(|r| r.is_root)),
        is_always_set,
        "whether the true root has arrived",
    ),
    row(
        "start",
        timestamp,
        |t| Value::Timestamp(Timestamp::from_unix_nano(start(t))),
        |t| t.start_unix_nano != u64::MAX,
        "earliest start",
    ),
    row(
        "end",
        timestamp,
        |t| Value::Timestamp(Timestamp::from_unix_nano(t.end_unix_nano)),
        |t| t.end_unix_nano != 0,
        "latest end",
    ),
    row(
        "duration",
        duration,
        |t| nanos(nanos_of(t)),
        |t| t.end_unix_nano != 0,
        "from the earliest start to the latest end",
    ),
    row(
        "duration_ms",
        double,
        |t| millis(nanos_of(t)),
        |t| t.end_unix_nano != 0,
        "from the earliest start to the latest end, milliseconds",
    ),
    row("span_count", int, |t| count(t.span_count), is_always_set, "spans"),
    row("error_count", int, |t| count(t.error_count), is_always_set, "spans that failed"),
    row("llm_calls", int, |t| count(t.llm_calls), is_always_set, "logical model calls"),
    row("tool_calls", int, |t| count(t.tool_calls), is_always_set, "tool runs"),
    row("retries", int, |t| count(t.retries), is_always_set, "attempts beyond the first"),
    row("decision_count", int, |t| count(t.decision_count), is_always_set, "decisions"),
    row("log_count", int, |t| count(t.log_count), is_always_set, "log records"),
    row(
        "input_tokens",
        int,
        |t| count(t.input_tokens),
        is_always_set,
        "tokens in of all logical calls",
    ),
    row(
        "output_tokens",
        int,
        |t| count(t.output_tokens),
        is_always_set,
        "tokens out of all logical calls",
    ),
    row(
        "cost_usd",
        double,
        |t| Value::Double(t.cost_nano_usd as f64 / 1e9),
        is_always_set,
        "cost of all logical calls, US dollars",
    ),
    Row {
        values: || vec!["none", "skipped", "degraded", "failed"],
        ..row(
            "fallback",
            string,
            |t| Value::Str(t.fallback.as_str()),
            is_always_set,
            "the furthest that any fallback went",
        )
    },
    row("agents", texts, |t| Value::texts(&t.agents), |t| !t.agents.is_empty(), "agents named"),
    row(
        "sessions",
        texts,
        |t| Value::texts(&t.sessions),
        |t| !t.sessions.is_empty(),
        "sessions named",
    ),
    row("users", texts, |t| Value::texts(&t.users), |t| !t.users.is_empty(), "users named"),
    row(
        "models",
        texts,
        |t| Value::texts(&t.models),
        |t| !t.models.is_empty(),
        "models that answered",
    ),
    row(
        "services",
        texts,
        |t| Value::texts(&t.services),
        |t| !t.services.is_empty(),
        "services that sent spans",
    ),
    row("tools", texts, |t| Value::texts(&t.tools), |t| !t.tools.is_empty(), "tools that ran"),
    row(
        "error_types",
        texts,
        |t| Value::texts(&t.error_types),
        |t| !t.error_types.is_empty(),
        "`error.type` values and classes of exceptions of failed spans",
    ),
];
