//! The form of a decision that `POST /api/v1/decisions` takes, as a JSON Schema beside its reader
//! (`decision_body`). It is wider than docs/decision.schema.json, the form in which the SDK writes
//! decisions: what a program by hand may leave out, may be left out. Tests hold the two against the
//! reader.

use serde_json::{Value, json};

use super::decision_body::{MAX_ATTRIBUTES, MAX_NAME_BYTES, MAX_REASON_BYTES};

/// The schema.
pub(crate) fn schema() -> Value {
    json!({
        "title": "DecisionToRecord",
        "description": "What an agent chose, why, and how sure it was. Fields that are not named here become attributes; null is as good as left out.",
        "type": "object",
        "examples": [{
            "decision_id": "5f0c5b0e-2b1e-4c86-9d3b-3a5f2f1f6a11",
            "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
            "stage": "plan",
            "decision": { "action": "answer_from_cache", "reason": "asked before", "confidence": 0.93 },
            "agent_id": "support",
        }],
        "required": ["decision_id", "stage", "decision"],
        "properties": {
            "decision_id": uuid("string", "A second record with the same id is a redelivery and counts once."),
            "parent_decision_id": uuid_or_null("The decision that led to this one."),
            "trace_id": hex(32, "The trace in whose course it was taken."),
            "span_id": hex(16, "The span that took it."),
            "timestamp_ns": number("When, nanoseconds since the Unix epoch, by the agent's clock; when it arrived, if left out."),
            "stage": {
                "type": "string", "minLength": 1, "maxLength": MAX_NAME_BYTES,
                "description": "Where in the agent's work: plan, act, fallback, reflect, …",
            },
            "decision": {
                "type": "object",
                "required": ["action"],
                "properties": {
                    "action": {
                        "type": "string", "minLength": 1, "maxLength": MAX_NAME_BYTES,
                        "description": "What was chosen.",
                    },
                    "reason": text(MAX_REASON_BYTES, "Why, for people."),
                    "confidence": {
                        "type": ["number", "null"], "minimum": 0, "maximum": 1,
                        "description": "How sure.",
                    },
                    "alternatives": { "description": "What could have been chosen instead." },
                },
            },
            "input_hash": text(MAX_NAME_BYTES, "Keyed hash of what the decision was based on."),
            "model_version": text(MAX_NAME_BYTES, "The model or strategy that decided."),
            "agent_id": text(MAX_NAME_BYTES, "The agent."),
            "session_id": text(MAX_NAME_BYTES, "The session or conversation."),
            "instance_id": text(MAX_NAME_BYTES, "The process that recorded it."),
            "seq": number("Running number within the instance, from 1; 0 for none, if left out."),
            "service": text(MAX_NAME_BYTES, "`service.name` of the process."),
            "derived": {
                "type": ["boolean", "null"], "description": "It was concluded from a span.",
            },
            "attributes": {
                "type": ["object", "null"], "maxProperties": MAX_ATTRIBUTES,
                "description": "Whatever else belongs to it.",
            },
        },
    })
}

/// At most so many bytes; the schema can count characters only.
fn text(max_bytes: usize, about: &str) -> Value {
    json!({ "type": ["string", "null"], "maxLength": max_bytes, "description": about })
}

fn uuid(kind: &str, about: &str) -> Value {
    json!({
        "type": kind,
        "pattern": "^(?!0{8}-0{4}-0{4}-0{4}-0{12})[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$",
        "description": about,
    })
}

fn uuid_or_null(about: &str) -> Value {
    let mut schema = uuid("string", about);
    schema["type"] = json!(["string", "null"]);
    schema
}

fn hex(chars: usize, about: &str) -> Value {
    json!({
        "type": ["string", "null"],
        "pattern": format!("^(?!0+$)[0-9a-fA-F]{{{chars}}}$"),
        "description": about,
    })
}

/// A whole number above 0 of 63 bits, as a number or as text.
fn number(about: &str) -> Value {
    json!({
        "description": about,
        "anyOf": [
            { "type": "integer", "minimum": 1, "maximum": i64::MAX },
            { "type": "string", "pattern": "^([1-9][0-9]{0,17}|[1-8][0-9]{18}|9[01][0-9]{17})$" },
            { "type": "null" },
        ],
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::decision_body::read;
    use super::*;

    fn published() -> Value {
        let text = include_str!("../../../../docs/decision.schema.json");
        serde_json::from_str(text).unwrap()
    }

    fn whole() -> Value {
        json!({
            "decision_id": "1b4e28ba-2fa1-41d2-883f-0016d3cca427",
            "parent_decision_id": "1b4e28ba-2fa1-41d2-883f-0016d3cca428",
            "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "span_id": "00f067aa0ba902b7",
            "timestamp_ns": "1764144000000000000", "stage": "plan", "input_hash": "ab",
            "model_version": "v2", "agent_id": "fraud", "session_id": "s", "instance_id": "i",
            "seq": 7, "derived": false, "service": "shop", "attributes": { "x": 1 },
            "decision": { "action": "approve", "reason": "small", "confidence": 0.5 },
        })
    }

    /// Values that fields are tried with.
    fn values() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (0.0..2.0).prop_map(Value::from),
            Just(json!(7.0)),
            Just(json!(7.5)),
            Just(json!("")),
            Just(json!("0")),
            Just(json!("007")),
            Just(json!("+7")),
            Just(json!("9223372036854775808")),
            Just(json!("9199999999999999999")),
            Just(json!("00000000-0000-0000-0000-000000000000")),
            Just(json!("1b4e28ba-2fa1-11d2-883f-0016d3cca427")),
            Just(json!("1b4e28ba2fa111d2883f0016d3cca427")),
            Just(json!("0000000000000000")),
            Just(json!("00f067aa0ba902b7")),
            Just(json!({})),
            Just(json!([])),
            Just(json!({ "action": "" })),
            Just(json!({ "action": "a", "confidence": 1.5 })),
            "[a-z0-9]{1,6}".prop_map(Value::from),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]
        #[test]
        fn what_the_schema_says_is_what_is_read(
            changes in proptest::collection::vec((0usize..16, values()), 1..3), left_out in 0usize..20,
        ) {
            let mut decision = whole();
            let names: Vec<String> = decision.as_object().unwrap().keys().cloned().collect();
            for (at, value) in changes {
                decision[names[at % names.len()].as_str()] = value;
            }
            if let Some(name) = names.get(left_out) {
                decision.as_object_mut().unwrap().remove(name);
            }
            let is_valid = jsonschema::is_valid(&schema(), &decision);
            let read = read(decision.clone(), 5);
            prop_assert_eq!(is_valid, read.is_ok(), "{}: {:?}", decision, read.err());
        }
    }

    #[test]
    fn the_example_can_be_read() {
        let example = schema()["examples"][0].clone();
        assert!(jsonschema::is_valid(&schema(), &example));
        assert!(read(example, 5).is_ok());
    }

    #[test]
    fn a_whole_decision_fits_both_schemas() {
        assert!(jsonschema::is_valid(&schema(), &whole()));
        assert!(jsonschema::is_valid(&published(), &whole()));
        assert!(read(whole(), 5).is_ok());
    }
}
