//! The schema `decision`.

use std::sync::{Arc, LazyLock};

use throughline_trace::Decision;

use super::{Row, boolean, count, double, is_always_set, open_map, row, shape, string, timestamp};
use crate::collection::{Map, MapData};
use crate::schema::{RecordType, Schema, Scope};
use crate::time::Timestamp;
use crate::value::{Record, Value};

static DECISION: LazyLock<Arc<RecordType>> = LazyLock::new(|| Arc::new(shape("decision", ROWS)));

/// The schema with the one variable `decision`. [`Decision`] is its scope.
pub fn decision_schema() -> Schema {
    super::schema_of("decision", &DECISION, "the decision")
}

impl Scope for Decision {
    fn variable(&self, index: usize) -> Option<Value<'_>> {
        (index == 0).then_some(Value::Record(self))
    }
}

impl Record for Decision {
    fn shape(&self) -> &RecordType {
        &DECISION
    }

    fn field(&self, index: usize) -> Value<'_> {
        ROWS.get(index).map_or(Value::Null, |row| (row.get)(self))
    }

    fn is_set(&self, index: usize) -> bool {
        ROWS.get(index).is_some_and(|row| (row.is_set)(self))
    }
}

/// The text of an id, or none.
fn id<'a>(id: Option<impl ToString>) -> Value<'a> {
    id.map_or(Value::Str(""), |id| Value::text(id.to_string()))
}

const ROWS: &[Row<Decision>] = &[
    row("id", string, |d| id(Some(d.decision_id)), is_always_set, "UUID of the decision"),
    row(
        "parent_id",
        string,
        |d| id(d.parent_decision_id),
        |d| d.parent_decision_id.is_some(),
        "UUID of the decision that led to it",
    ),
    row(
        "trace_id",
        string,
        |d| id(d.trace_id),
        |d| d.trace_id.is_some(),
        "trace in whose course it was taken",
    ),
    row("span_id", string, |d| id(d.span_id), |d| d.span_id.is_some(), "span that took it"),
    row(
        "time",
        timestamp,
        |d| Value::Timestamp(Timestamp::from_unix_nano(d.timestamp_ns)),
        is_always_set,
        "when it was taken, by the agent's clock",
    ),
    row(
        "received",
        timestamp,
        |d| Value::Timestamp(Timestamp::from_unix_nano(d.received_at_ns)),
        is_always_set,
        "when it arrived, by the server's clock",
    ),
    row(
        "stage",
        string,
        |d| Value::Str(&d.stage),
        |d| !d.stage.is_empty(),
        "where in the agent's work (`plan`, `act.tool`, `fallback` …)",
    ),
    row(
        "input_hash",
        string,
        |d| Value::Str(&d.input_hash),
        |d| !d.input_hash.is_empty(),
        "hash of what it was based on",
    ),
    row(
        "model_version",
        string,
        |d| Value::Str(&d.model_version),
        |d| !d.model_version.is_empty(),
        "version of the model that decided",
    ),
    row("action", string, |d| Value::Str(&d.action), |d| !d.action.is_empty(), "what was chosen"),
    row("reason", string, |d| Value::Str(&d.reason), |d| !d.reason.is_empty(), "why, for people"),
    row(
        "confidence",
        double,
        |d| Value::Double(d.confidence.unwrap_or(0.0)),
        |d| d.confidence.is_some(),
        "how sure, 0 to 1",
    ),
    row(
        "agent",
        string,
        |d| Value::Str(&d.agent_id),
        |d| !d.agent_id.is_empty(),
        "the agent that decided",
    ),
    row(
        "session",
        string,
        |d| Value::Str(&d.session_id),
        |d| !d.session_id.is_empty(),
        "the session it belongs to",
    ),
    row(
        "instance",
        string,
        |d| Value::Str(&d.instance_id),
        |d| !d.instance_id.is_empty(),
        "the process that recorded it",
    ),
    row(
        "seq",
        super::int,
        |d| count(d.seq),
        |d| d.seq != 0,
        "running number within the instance, from 1",
    ),
    row(
        "is_derived",
        boolean,
        |d| Value::Bool(d.derived),
        is_always_set,
        "whether the server derived it from a foreign span",
    ),
    row(
        "service",
        string,
        |d| Value::Str(&d.service),
        |d| !d.service.is_empty(),
        "`service.name` of the sender",
    ),
    row(
        "attributes",
        open_map,
        |d| Value::Map(Map(MapData::Pairs(&d.attributes.0))),
        is_always_set,
        "whatever else came with it, by key",
    ),
];
