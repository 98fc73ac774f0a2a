//! The parameters of the API: what each means, its form and an example. The lists of names that
//! operations take stand beside what reads them.

use serde_json::{Value, json};
use throughline_api::cursor::MAX_LIMIT;
use throughline_store::MAX_QUERY_CHARS;
use throughline_trace::{
    Dimension, FallbackState, MAX_SERIES_MEASURES, Measure, SpanRole, TRACE_ID_PATTERN,
};

use super::signals::WINDOWS;
use crate::params::{DEFAULT_LIMIT, MAX_DURATION_MS};

/// A parameter as the description has it.
pub(crate) struct Parameter {
    pub(crate) about: &'static str,
    pub(crate) schema: Value,
    pub(crate) example: Option<Value>,
}

/// The query parameter of this name; `path` tells those apart that several operations have.
pub(crate) fn in_query(name: &str, path: &str) -> Option<Parameter> {
    let about = about(name, path)?;
    let (schema, example) = form(name, path);
    Some(Parameter { about, schema, example })
}

/// The parameter of this name in a path.
pub(crate) fn in_path(name: &str) -> Option<Parameter> {
    let (about, schema, example) = match name {
        "trace_id" => (
            "32 hexadecimal characters, not all zero.",
            trace_id(),
            Some(json!("4bf92f3577b34da6a3ce929d0e0e4736")),
        ),
        "decision_id" => ("A UUID.", json!({ "type": "string", "format": "uuid" }), None),
        "name" => ("Name of the metric, percent-encoded.", text(), None),
        "contract" => ("Name of the contract.", text(), None),
        "hold_id" => ("Id of the hold, as `/api/v1/audit/holds` has it.", text(), None),
        _ => return None,
    };
    Some(Parameter { about, schema, example })
}

fn about(name: &str, path: &str) -> Option<&'static str> {
    let is_search = path == "/api/v1/traces" || path == "/api/v1/live";
    Some(match name {
        "q" if is_search => {
            "A query such as `model:gpt-4o tokens>5000 \"free text\"` (docs/search.md)."
        }
        "q" => "Part of the reason or body, in any case of letters.",
        "agent" => "Only of this agent.",
        "session" => "Only of this session or conversation.",
        "user" => "Only of this user (`user.id`).",
        "model" => "Only with a call answered by this model.",
        "service" => "Only from this service (`service.name`).",
        "error" => "`true`: only traces with a failed span; `false`: only without.",
        "fallback" => "How far fallbacks went: `none`, `skipped`, `degraded` or `failed`.",
        "min_duration" => {
            "At least this long: `250ms`, `1.5s`, `2m`, `1h`, or a number of milliseconds."
        }
        "max_duration" => "At most this long, written the same way.",
        "since" => {
            "At or after: back from now (`15m`, `24h`, `7d`), RFC 3339, a UTC date, or Unix nanoseconds."
        }
        "until" => "Before, written the same way.",
        "window" => "How long before now, for all signals alike; each over its own when left out.",
        "measure" => "What each point tells; `count` when left out.",
        "group_by" => "One series for each value.",
        "operation" => {
            "What counts and durations are of: `root` (spans without a parent) or roles of spans; what the dimensions are about when left out."
        }
        "phase" => "Only of this phase: `plan`, `act`, `observe` or `reflect`.",
        "tool" => "Only of this tool.",
        "version" => "Only of this version of the model, agent or service.",
        "branch" => "Only of this branch of a fallback: `primary` or `degraded`.",
        "step" => {
            "Time between points, whole minutes: `1m`, `5m`, `1h`, `1d`, or a number of seconds; one that gives at most 120 points when left out."
        }
        "stage" => "Only of this stage.",
        "action" => "Only with this action.",
        "trace_id" => "Only of this trace.",
        "model_version" => "Only of this version of a model.",
        "input_hash" => "Only on the input with this hash.",
        "instance" => "Only recorded by this process.",
        "derived" => "`true`: only those that the server derived; `false`: only recorded ones.",
        "min_confidence" => "At least this sure.",
        "max_confidence" => "At most this sure.",
        "severity" => "At least this severe.",
        "event_name" => "Only events of this name.",
        "cursor" => "Where the page begins: `next` of the page before, unchanged.",
        "limit" => "Most items of a page.",
        "kind" => "Events of traces or of decisions only; both when left out.",
        _ => return None,
    })
}

/// Schema and example.
fn form(name: &str, path: &str) -> (Value, Option<Value>) {
    let schema = match name {
        "limit" => json!({
            "type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT,
        }),
        "error" | "derived" => json!({ "type": "boolean" }),
        "min_confidence" | "max_confidence" => {
            json!({ "type": "number", "minimum": 0, "maximum": 1 })
        }
        "fallback" => one_of(&FallbackState::ALL.map(FallbackState::as_str)),
        "severity" => one_of(&["trace", "debug", "info", "warn", "error", "fatal"]),
        "kind" => one_of(&["traces", "decisions"]),
        "window" => one_of(&WINDOWS.map(|(name, _)| name)),
        "trace_id" => trace_id(),
        "q" if path == "/api/v1/traces" => with_format("search-query", Some(MAX_QUERY_CHARS)),
        "q" if path == "/api/v1/live" => with_format("live-query", Some(MAX_QUERY_CHARS)),
        "since" | "until" => number_or(
            json!({ "type": "integer", "minimum": 0, "maximum": i64::MAX }),
            with_format("moment", None),
        ),
        "min_duration" | "max_duration" => number_or(
            json!({ "type": "number", "minimum": 0, "maximum": MAX_DURATION_MS }),
            with_format("duration", None),
        ),
        "step" => number_or(
            json!({ "type": "integer", "minimum": 60, "multipleOf": 60 }),
            with_format("whole-minutes", None),
        ),
        // Opaque, and good for one list only.
        "cursor" => with_format(&format!("cursor-of{}", path.replace('/', "-")), None),
        "measure" => {
            let names: Vec<String> = Measure::all().into_iter().map(Measure::name).collect();
            list_of(&names, MAX_SERIES_MEASURES)
        }
        "group_by" => list_of(&Dimension::ALL.map(Dimension::as_str), Dimension::ALL.len()),
        "operation" => {
            let mut kinds = vec!["root"];
            kinds.extend(SpanRole::ALL.map(SpanRole::as_str));
            let most = kinds.len();
            list_of(&kinds, most)
        }
        _ => text(),
    };
    let example = match name {
        "q" if path == "/api/v1/traces" => Some(json!("model:gpt-4o tokens>5k")),
        "since" => Some(json!("24h")),
        "min_duration" => Some(json!("1.5s")),
        "step" => Some(json!("1h")),
        "measure" => Some(json!(["count", "error_rate", "p95"])),
        "severity" => Some(json!("warn")),
        _ => None,
    };
    (schema, example)
}

/// A text that is not blank.
fn text() -> Value {
    json!({ "type": "string", "minLength": 1, "pattern": "\\S" })
}

fn trace_id() -> Value {
    json!({ "type": "string", "pattern": TRACE_ID_PATTERN })
}

fn with_format(format: &str, max_length: Option<usize>) -> Value {
    let mut schema = json!({ "type": "string", "minLength": 1, "format": format });
    if let Some(max_length) = max_length {
        schema["maxLength"] = max_length.into();
    }
    schema
}

/// A bare number, in the unit that it is taken for, or a text with its unit.
fn number_or(number: Value, text: Value) -> Value {
    json!({ "anyOf": [text, number] })
}

fn one_of(values: &[&str]) -> Value {
    json!({ "type": "string", "enum": values })
}

fn list_of(values: &[impl serde::Serialize], most: usize) -> Value {
    json!({
        "type": "array", "minItems": 1, "maxItems": most,
        "items": { "type": "string", "enum": values },
    })
}
