//! The part of the API's description that takes bodies.

use serde_json::{Value, json};

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
    ]
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
