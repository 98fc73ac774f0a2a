//! The part of the API's description that takes bodies.

use serde_json::{Value, json};

use throughline_store::{
    DEFAULT_SQL_ROWS, DEFAULT_SQL_TIMEOUT, MAX_SQL_PARAMETERS, MAX_SQL_ROWS, MAX_SQL_TEXT_BYTES,
    MAX_SQL_TIMEOUT, sql_views,
};

use super::record::{MAX_BODY_BYTES, MAX_DECISIONS};

const JSON: &str = "application/json";

/// The schema of one decision, as it is published.
const DECISION: &str = include_str!("../../../../docs/decision.schema.json");

/// What is posted, by path.
pub(super) fn operations() -> Vec<(&'static str, Value)> {
    vec![
        ("/api/v1/decisions", decisions()),
        (
            "/api/v1/audit/erase",
            order(
                "Erases the content of decisions; their places in the chain stay: {decisions, records, is_log_clean}. 409 names the hold that keeps one of them. Needs the scope `admin`.",
            ),
        ),
        ("/api/v1/audit/holds", order("Begins a legal hold. Needs the scope `admin`.")),
        ("/api/v1/audit/holds/{hold_id}/release", release()),
        ("/api/v1/sql", sql()),
    ]
}

fn sql() -> Value {
    let millis = MAX_SQL_TIMEOUT.as_millis();
    let names: Vec<&str> = sql_views().into_iter().map(|view| view.name).collect();
    json!({
        "summary": format!("One SELECT in SQLite's SQL over the tables {}: {{columns: [{{name, type}}], rows, cut, elapsed_ms}}. `cut` is `rows` or `bytes` when there are more rows than are given, else null. Whole numbers beyond 2^53 are text. docs/sql.md has every table, column and limit. Needs the scope `read`.", names.join(", ")),
        "requestBody": { "required": true, "content": { JSON: { "schema": {
            "type": "object",
            "required": ["query"],
            "additionalProperties": false,
            "properties": {
                "query": { "type": "string", "maxLength": MAX_SQL_TEXT_BYTES },
                "parameters": {
                    "oneOf": [
                        { "type": "array", "maxItems": MAX_SQL_PARAMETERS },
                        { "type": "object", "maxProperties": MAX_SQL_PARAMETERS },
                    ],
                    "description": "Values for `?` in their order, or for `:name` by name. Lists and objects become JSON text.",
                },
                "max_rows": { "type": "integer", "minimum": 1, "maximum": MAX_SQL_ROWS, "default": DEFAULT_SQL_ROWS },
                "timeout_ms": { "type": "integer", "minimum": 1, "maximum": millis as u64, "default": DEFAULT_SQL_TIMEOUT.as_millis() as u64 },
            },
        } } } },
        "responses": answers(&[
            ("400", "The statement cannot be read, or does more than read; `problems` has {offset, line, column} where that is known."),
            ("413", "The body is too large."),
            ("422", "The statement needs more memory than it may have."),
            ("503", "It took longer than `timeout_ms`, or others did."),
        ]),
    })
}

fn failure(text: &str) -> Value {
    json!({ "description": text, "content": { JSON: { "schema": { "$ref": "#/components/schemas/Failure" } } } })
}

fn answers(more: &[(&str, &str)]) -> Value {
    let mut answers = json!({
        "200": { "description": "The answer.", "content": { JSON: {} } },
        "401": failure("A key is needed."),
        "403": failure("The key may not do this."),
    });
    for (status, text) in more {
        answers[*status] = failure(text);
    }
    answers
}

fn decisions() -> Value {
    // The text is part of the binary; a test reads it.
    let decision: Value = serde_json::from_str(DECISION).unwrap_or_default();
    json!({
        "summary": format!("Records decisions: all of them or none, durable before the answer {{accepted, duplicates}}; a decision_id that is there already counts as a duplicate. At most {MAX_DECISIONS} and {MAX_BODY_BYTES} bytes. Needs the scope `ingest`."),
        "requestBody": { "required": true, "content": {
            JSON: { "schema": { "oneOf": [
                decision,
                { "type": "array", "minItems": 1, "maxItems": MAX_DECISIONS, "items": { "type": "object" } },
            ] } },
            "application/x-ndjson": { "schema": { "type": "string" } },
        } },
        "responses": answers(&[
            ("400", "A decision cannot be read: `problems` has {index, field, message} of each."),
            ("413", "The body is too large."),
            ("415", "The body is neither JSON nor NDJSON."),
            ("503", "It cannot be made durable now; Retry-After says when to come back."),
        ]),
    })
}

fn order(summary: &str) -> Value {
    let text = json!({ "type": "string" });
    let time = json!({ "type": "integer", "minimum": 0 });
    json!({
        "summary": summary,
        "requestBody": { "required": true, "content": { JSON: { "schema": {
            "type": "object",
            "required": ["filter", "reason"],
            "additionalProperties": false,
            "properties": {
                "reason": { "type": "string", "minLength": 1, "description": "Becomes part of the log: name no person." },
                "filter": {
                    "type": "object",
                    "minProperties": 1,
                    "additionalProperties": false,
                    "properties": {
                        "agent": text, "session": text, "trace_id": text, "decision_id": text,
                        "after_unix_nano": time, "before_unix_nano": time,
                    },
                },
            },
        } } } },
        "responses": answers(&[
            ("400", "The order has no condition or no reason."),
            ("409", "A legal hold is in the way; the message names it."),
            ("422", "The body is not as described."),
        ]),
    })
}

fn release() -> Value {
    json!({
        "summary": "Ends a legal hold; ending it twice changes nothing. Needs the scope `admin`.",
        "parameters": [
            { "name": "hold_id", "in": "path", "required": true, "schema": { "type": "string" } },
        ],
        "responses": answers(&[("404", "No hold has this id.")]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_of_decisions_is_part_of_it() {
        let schema = &decisions()["requestBody"]["content"][JSON]["schema"]["oneOf"][0];
        assert_eq!(schema["title"], "Decision");
    }
}
