//! The schema `span`.

use std::sync::{Arc, LazyLock};

use throughline_trace::{Event, Phase, Span, SpanKind, SpanRole, StatusCode, Usage, keys};

use super::{
    Row, boolean, count, double, duration, int, is_always_set, millis, nanos, open_map, row, shape,
    string, timestamp,
};
use crate::collection::{List, ListData, Map, MapData};
use crate::schema::{RecordType, Schema, Scope, Type};
use crate::time::Timestamp;
use crate::value::{Record, Value};

static SPAN: LazyLock<Arc<RecordType>> = LazyLock::new(|| Arc::new(shape("span", ROWS)));
static EVENT: LazyLock<Arc<RecordType>> = LazyLock::new(|| Arc::new(shape("event", EVENT_ROWS)));

/// The schema with the one variable `span`. [`Span`] is its scope.
pub fn span_schema() -> Schema {
    super::schema_of("span", &SPAN, "the span")
}

/// A field that rules are sorted by before they are evaluated (see
/// [`Expression::guards`](crate::Expression::guards)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GuardField {
    /// `span.agent`
    Agent,
    /// `span.name`
    Name,
    /// `span.phase`
    Phase,
    /// `span.tool`
    Tool,
    /// `span.model`
    Model,
    /// `span.service`
    Service,
    /// `span.role`
    Role,
}

impl GuardField {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Agent, Self::Name, Self::Phase, Self::Tool, Self::Model, Self::Service, Self::Role];

    /// The field's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Name => "name",
            Self::Phase => "phase",
            Self::Tool => "tool",
            Self::Model => "model",
            Self::Service => "service",
            Self::Role => "role",
        }
    }

    /// The field of a span, as a rule sees it: empty when it is not set.
    pub fn of(self, span: &Span) -> &str {
        match self {
            Self::Agent => span.agent().unwrap_or_default(),
            Self::Name => &span.name,
            Self::Phase => span.phase().map_or("", Phase::as_str),
            Self::Tool => span.tool().unwrap_or_default(),
            Self::Model => span.model().unwrap_or_default(),
            Self::Service => span.service(),
            Self::Role => span.role().as_str(),
        }
    }
}

impl Scope for Span {
    fn variable(&self, index: usize) -> Option<Value<'_>> {
        (index == 0).then_some(Value::Record(self))
    }
}

impl Record for Span {
    fn shape(&self) -> &RecordType {
        &SPAN
    }

    fn field(&self, index: usize) -> Value<'_> {
        ROWS.get(index).map_or(Value::Null, |row| (row.get)(self))
    }

    fn is_set(&self, index: usize) -> bool {
        ROWS.get(index).is_some_and(|row| (row.is_set)(self))
    }
}

impl Record for Event {
    fn shape(&self) -> &RecordType {
        &EVENT
    }

    fn field(&self, index: usize) -> Value<'_> {
        EVENT_ROWS.get(index).map_or(Value::Null, |row| (row.get)(self))
    }

    fn is_set(&self, index: usize) -> bool {
        EVENT_ROWS.get(index).is_some_and(|row| (row.is_set)(self))
    }
}

/// The status as OpenTelemetry spells it.
fn status(code: StatusCode) -> &'static str {
    match code {
        StatusCode::Unset => "UNSET",
        StatusCode::Ok => "OK",
        StatusCode::Error => "ERROR",
    }
}

/// The kind as OpenTelemetry spells it.
fn kind(kind: SpanKind) -> &'static str {
    match kind {
        SpanKind::Unspecified => "UNSPECIFIED",
        SpanKind::Internal => "INTERNAL",
        SpanKind::Server => "SERVER",
        SpanKind::Client => "CLIENT",
        SpanKind::Producer => "PRODUCER",
        SpanKind::Consumer => "CONSUMER",
    }
}

fn cost_usd(span: &Span) -> Option<f64> {
    span.attributes.f64(keys::COST_USD).filter(|cost| cost.is_finite() && *cost >= 0.0)
}

fn usage(span: &Span) -> Option<Usage> {
    Usage::from_attributes(&span.attributes)
}

fn text(text: Option<&str>) -> Value<'_> {
    Value::Str(text.unwrap_or_default())
}

fn events() -> Type {
    Type::list(Type::Record(EVENT.clone()))
}

const ROWS: &[Row<Span>] = &[
    row(
        "name",
        string,
        |s| Value::Str(&s.name),
        |s| !s.name.is_empty(),
        "what was done (`chat gpt-4o`)",
    ),
    Row {
        values: || SpanRole::ALL.iter().map(|role| role.as_str()).collect(),
        ..row(
            "role",
            string,
            |s| Value::Str(s.role().as_str()),
            is_always_set,
            "what part of an agent's work it is",
        )
    },
    Row {
        values: || vec!["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"],
        ..row(
            "kind",
            string,
            |s| Value::Str(kind(s.kind)),
            is_always_set,
            "its place between caller and callee",
        )
    },
    Row {
        values: || vec!["UNSET", "OK", "ERROR"],
        ..row(
            "status",
            string,
            |s| Value::Str(status(s.status.code)),
            is_always_set,
            "whether it failed; UNSET is the usual state of a success",
        )
    },
    row(
        "status_message",
        string,
        |s| Value::Str(&s.status.message),
        |s| !s.status.message.is_empty(),
        "what went wrong, for people",
    ),
    row(
        "error_type",
        string,
        |s| text(s.error_type()),
        |s| s.error_type().is_some(),
        "`error.type`",
    ),
    row(
        "outcome",
        string,
        |s| text(s.attributes.str(keys::OUTCOME)),
        |s| s.attributes.str(keys::OUTCOME).is_some(),
        "business outcome (`ok`, `policy_rejected`, `fallback_degraded` …)",
    ),
    row("duration", duration, |s| nanos(s.duration_nano()), is_always_set, "from start to end"),
    row(
        "duration_ms",
        double,
        |s| millis(s.duration_nano()),
        is_always_set,
        "from start to end, milliseconds",
    ),
    row(
        "start",
        timestamp,
        |s| Value::Timestamp(Timestamp::from_unix_nano(s.start_unix_nano)),
        is_always_set,
        "start, by the sender's clock",
    ),
    row(
        "end",
        timestamp,
        |s| Value::Timestamp(Timestamp::from_unix_nano(s.end_unix_nano)),
        is_always_set,
        "end, by the sender's clock",
    ),
    row(
        "service",
        string,
        |s| Value::Str(s.service()),
        is_always_set,
        "`service.name`, or `unknown_service`",
    ),
    row("agent", string, |s| text(s.agent()), |s| s.agent().is_some(), "the agent that it names"),
    row(
        "session",
        string,
        |s| text(s.session()),
        |s| s.session().is_some(),
        "the session or conversation",
    ),
    row(
        "model",
        string,
        |s| text(s.model()),
        |s| s.model().is_some(),
        "the model that answered, or else the one that was asked",
    ),
    row("tool", string, |s| text(s.tool()), |s| s.tool().is_some(), "the tool that ran"),
    Row {
        values: || vec!["", "plan", "act", "observe", "reflect"],
        ..row(
            "phase",
            string,
            |s| text(s.phase().map(Phase::as_str)),
            |s| s.phase().is_some(),
            "the phase of a step",
        )
    },
    row(
        "attributes",
        open_map,
        |s| Value::Map(Map(MapData::Pairs(&s.attributes.0))),
        is_always_set,
        "attributes by key; values have the type in which they came",
    ),
    row(
        "resource",
        open_map,
        |s| Value::Map(Map(MapData::Pairs(&s.resource.attributes.0))),
        is_always_set,
        "attributes of the sender (`service.version` …)",
    ),
    row(
        "input_tokens",
        int,
        |s| count(usage(s).map_or(0, |usage| usage.input_tokens)),
        |s| usage(s).is_some(),
        "tokens in that the span tells, all of them",
    ),
    row(
        "output_tokens",
        int,
        |s| count(usage(s).map_or(0, |usage| usage.output_tokens)),
        |s| usage(s).is_some(),
        "tokens out that the span tells, all of them",
    ),
    row(
        "cost_usd",
        double,
        |s| Value::Double(cost_usd(s).unwrap_or(0.0)),
        |s| cost_usd(s).is_some(),
        "cost that the span tells, US dollars",
    ),
    row(
        "events",
        events,
        |s| Value::List(List(ListData::Events(&s.events))),
        |s| !s.events.is_empty(),
        "what happened within it, in order",
    ),
    row(
        "is_root",
        boolean,
        |s| Value::Bool(s.parent_span_id.is_none()),
        is_always_set,
        "whether it has no parent",
    ),
    row(
        "scope",
        string,
        |s| Value::Str(&s.scope.name),
        |s| !s.scope.name.is_empty(),
        "the instrumentation library that made it",
    ),
    row(
        "trace_id",
        string,
        |s| Value::text(s.trace_id.to_string()),
        is_always_set,
        "32 hexadecimal digits",
    ),
    row(
        "span_id",
        string,
        |s| Value::text(s.span_id.to_string()),
        is_always_set,
        "16 hexadecimal digits",
    ),
];

const EVENT_ROWS: &[Row<Event>] = &[
    row(
        "name",
        string,
        |e| Value::Str(&e.name),
        |e| !e.name.is_empty(),
        "what happened (`exception`)",
    ),
    row(
        "time",
        timestamp,
        |e| Value::Timestamp(Timestamp::from_unix_nano(e.time_unix_nano)),
        is_always_set,
        "when, by the sender's clock",
    ),
    row(
        "attributes",
        open_map,
        |e| Value::Map(Map(MapData::Pairs(&e.attributes.0))),
        is_always_set,
        "attributes by key",
    ),
];
