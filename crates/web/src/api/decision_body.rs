//! One decision as a JSON object (its schema: `decision_schema`), read strictly: a field that cannot be
//! read is told by name.

use super::forms::whole;
use serde_json::{Map, Value as Json};
use throughline_trace::{Attributes, Decision, DecisionId, SpanId, TraceId, Value, keys};

use crate::failure::shown;

/// Longest name or id, bytes.
pub(super) const MAX_NAME_BYTES: usize = 16 * 1024;

/// Longest reason, bytes.
pub(super) const MAX_REASON_BYTES: usize = 256 * 1024;

/// Most attributes of one decision.
pub(super) const MAX_ATTRIBUTES: usize = 1_024;

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Its path: `decision.confidence`.
    pub(crate) field: String,
    /// What was expected, what came.
    pub(crate) message: String,
}

/// Takes fields out of an object and notes what is wrong with them.
struct Fields {
    object: Map<String, Json>,
    prefix: &'static str,
    problems: Vec<Problem>,
}

/// Reads a decision, or says everything that is wrong with it.
pub(crate) fn read(json: Json, received_at_ns: u64) -> Result<Decision, Vec<Problem>> {
    let Json::Object(object) = json else {
        return Err(vec![Problem {
            field: String::new(),
            message: format!("expected an object, got {}", kind(&json)),
        }]);
    };
    let mut fields = Fields { object, prefix: "", problems: Vec::new() };
    let inner = fields.object("decision");
    let is_inner_there = inner.is_some();
    let mut inner =
        Fields { object: inner.unwrap_or_default(), prefix: "decision.", problems: Vec::new() };
    let action = match is_inner_there {
        true => inner.required_text("action"),
        false => {
            fields.wrong("decision", "an object with `action`", None);
            String::new()
        }
    };
    let decision_id = fields.parsed("decision_id", "a UUID", uuid);
    if decision_id.is_none() && !fields.has_problem("decision_id") {
        fields.wrong("decision_id", "a UUID", None);
    }
    let timestamp_ns = fields.number("timestamp_ns");
    let mut decision = Decision {
        decision_id: decision_id.unwrap_or(DecisionId(uuid::Uuid::nil())),
        parent_decision_id: fields.parsed("parent_decision_id", "a UUID", uuid),
        trace_id: fields.parsed::<TraceId>(
            "trace_id",
            "32 hexadecimal characters, not all zeros",
            |text| text.parse().ok(),
        ),
        span_id: fields.parsed::<SpanId>(
            "span_id",
            "16 hexadecimal characters, not all zeros",
            |text| text.parse().ok(),
        ),
        timestamp_ns: timestamp_ns.unwrap_or(received_at_ns),
        received_at_ns,
        stage: fields.required_text("stage"),
        input_hash: fields.text("input_hash", MAX_NAME_BYTES),
        model_version: fields.text("model_version", MAX_NAME_BYTES),
        action,
        reason: inner.text("reason", MAX_REASON_BYTES),
        confidence: inner.share("confidence"),
        agent_id: fields.text("agent_id", MAX_NAME_BYTES),
        session_id: fields.text("session_id", MAX_NAME_BYTES),
        instance_id: fields.text("instance_id", MAX_NAME_BYTES),
        seq: fields.number("seq").unwrap_or(0),
        derived: fields.truth("derived"),
        service: fields.text("service", MAX_NAME_BYTES),
        attributes: Attributes::new(),
    };
    let given = fields.object("attributes").unwrap_or_default();
    let alternatives = inner.object.remove("alternatives");
    let top = std::mem::take(&mut fields.object);
    // Counted before they are set: each is compared with those before it.
    let count = given.len() + top.len() + inner.object.len() + usize::from(alternatives.is_some());
    if count > MAX_ATTRIBUTES {
        let message = format!("expected at most {MAX_ATTRIBUTES}, got {count}");
        fields.problems.push(Problem { field: "attributes".to_owned(), message });
    } else {
        let others =
            inner.object.into_iter().map(|(key, value)| (format!("decision.{key}"), value));
        let named = alternatives.map(|value| (keys::DECISION_ALTERNATIVES.to_owned(), value));
        for (key, value) in given.into_iter().chain(top).chain(others).chain(named) {
            if !value.is_null() {
                decision.attributes.set(key, Value::from_json(value));
            }
        }
    }
    fields.problems.extend(inner.problems);
    if fields.problems.is_empty() { Ok(decision) } else { Err(fields.problems) }
}

impl Fields {
    fn wrong(&mut self, name: &str, expected: &str, got: Option<&Json>) {
        let got = match got {
            None => "none".to_owned(),
            Some(Json::String(text)) => format!("{:?}", shown(text)),
            Some(Json::Number(number)) => number.to_string(),
            Some(other) => kind(other).to_owned(),
        };
        let field = format!("{}{name}", self.prefix);
        self.problems.push(Problem { field, message: format!("expected {expected}, got {got}") });
    }

    fn has_problem(&self, name: &str) -> bool {
        self.problems.iter().any(|problem| problem.field == name)
    }

    /// The value under a name; null is no value.
    fn take(&mut self, name: &str) -> Option<Json> {
        self.object.remove(name).filter(|value| !value.is_null())
    }

    fn object(&mut self, name: &str) -> Option<Map<String, Json>> {
        match self.take(name)? {
            Json::Object(object) => Some(object),
            other => {
                self.wrong(name, "an object", Some(&other));
                // It is told once.
                Some(Map::new())
            }
        }
    }

    fn text(&mut self, name: &str, max_bytes: usize) -> String {
        match self.take(name) {
            None => String::new(),
            Some(Json::String(text)) if text.len() <= max_bytes => text,
            Some(Json::String(text)) => {
                let field = format!("{}{name}", self.prefix);
                let message =
                    format!("expected a text of at most {max_bytes} bytes, got {}", text.len());
                self.problems.push(Problem { field, message });
                String::new()
            }
            Some(other) => {
                self.wrong(name, "a text", Some(&other));
                String::new()
            }
        }
    }

    fn required_text(&mut self, name: &str) -> String {
        let before = self.problems.len();
        let text = self.text(name, MAX_NAME_BYTES);
        if text.is_empty() && self.problems.len() == before {
            self.wrong(name, "a text that is not empty", None);
        }
        text
    }

    fn parsed<T>(
        &mut self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = self.take(name)?;
        let parsed = value.as_str().filter(|text| !text.is_empty()).and_then(parse);
        if parsed.is_none() {
            self.wrong(name, expected, Some(&value));
        }
        parsed
    }

    /// A whole number above 0 that may be text: 64 bits do not fit the numbers of JavaScript.
    fn number(&mut self, name: &str) -> Option<u64> {
        let value = self.take(name)?;
        let number = match &value {
            // Neither a sign nor leading zeros: one number has one text.
            Json::String(text)
                if text.starts_with(|first: char| first.is_ascii_digit() && first != '0') =>
            {
                text.parse().ok()
            }
            Json::String(_) => None,
            Json::Number(number) => whole(number),
            _ => None,
        };
        let number = number.filter(|number| (1..=i64::MAX as u64).contains(number));
        if number.is_none() {
            self.wrong(name, "a whole number above 0, as a number or as text", Some(&value));
        }
        number
    }

    fn share(&mut self, name: &str) -> Option<f64> {
        let value = self.take(name)?;
        let share = value.as_f64().filter(|share| (0.0..=1.0).contains(share));
        if share.is_none() {
            self.wrong(name, "a number from 0 to 1", Some(&value));
        }
        share
    }

    fn truth(&mut self, name: &str) -> bool {
        match self.take(name) {
            None => false,
            Some(Json::Bool(truth)) => truth,
            Some(other) => {
                self.wrong(name, "true or false", Some(&other));
                false
            }
        }
    }
}

/// An id in its usual form, with hyphens, that is not all zeros.
fn uuid(text: &str) -> Option<DecisionId> {
    const UUID_CHARS: usize = 36;
    let id = (text.len() == UUID_CHARS).then(|| text.parse::<DecisionId>().ok())?;
    id.filter(|id| !id.0.is_nil())
}

fn kind(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "a truth value",
        Json::Number(_) => "a number",
        Json::String(_) => "a text",
        Json::Array(_) => "a list",
        Json::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn problems(json: Json) -> String {
        let found = read(json, 5).expect_err("problems");
        let lines = found.iter().map(|one| format!("{}: {}", one.field, one.message));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn r4_4_the_example_of_the_guide_is_a_decision() {
        let guide = include_str!("../../../../docs/decisions.md");
        let text = guide.split("```json\n").nth(1).and_then(|rest| rest.split("```").next());
        let read = read(serde_json::from_str(text.unwrap()).unwrap(), 5).unwrap();
        assert_eq!(read.action, "answer_from_cache");
        assert_eq!(read.confidence, Some(0.93));
        assert_eq!(read.timestamp_ns, 1_764_144_000_000_000_000);
        assert_eq!(read.received_at_ns, 5);
        let keys: Vec<&str> = read.attributes.iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["guideline_refs", "decision.alternatives"]);
    }

    #[test]
    fn r4_4_every_wrong_field_is_named() {
        insta::assert_snapshot!(problems(json!({
            "decision_id": "7", "parent_decision_id": 7, "trace_id": "00", "span_id": "x",
            "timestamp_ns": -1, "stage": 4, "seq": "none", "derived": "yes",
            "decision": { "action": "", "reason": [], "confidence": 7 },
            "attributes": "none",
        })), @r#"
        decision_id: expected a UUID, got "7"
        timestamp_ns: expected a whole number above 0, as a number or as text, got -1
        parent_decision_id: expected a UUID, got 7
        trace_id: expected 32 hexadecimal characters, not all zeros, got "00"
        span_id: expected 16 hexadecimal characters, not all zeros, got "x"
        stage: expected a text, got 4
        seq: expected a whole number above 0, as a number or as text, got "none"
        derived: expected true or false, got "yes"
        attributes: expected an object, got "none"
        decision.action: expected a text that is not empty, got none
        decision.reason: expected a text, got a list
        decision.confidence: expected a number from 0 to 1, got 7
        "#);
        insta::assert_snapshot!(problems(json!({})), @"
        decision: expected an object with `action`, got none
        decision_id: expected a UUID, got none
        stage: expected a text that is not empty, got none
        ");
        insta::assert_snapshot!(problems(json!([])), @": expected an object, got a list");
    }

    /// Each attribute is compared with those before it: half a million would take minutes.
    #[test]
    fn r4_4_too_many_attributes_are_refused_before_they_are_read() {
        let attributes: Map<String, Json> =
            (0..500_000).map(|at| (format!("a{at}"), Json::from(at))).collect();
        let found = problems(json!({
            "decision_id": "00000000-0000-0000-0000-000000000001", "stage": "plan",
            "decision": { "action": "approve", "colour": "red" }, "attributes": attributes,
        }));
        assert_eq!(found, "attributes: expected at most 1024, got 500001");
    }

    fn any_json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<i64>().prop_map(Json::from),
            any::<f64>().prop_map(Json::from),
            ".{0,9}".prop_map(Json::from),
        ];
        let name = prop_oneof![
            Just("decision".to_owned()),
            Just("decision_id".to_owned()),
            Just("stage".to_owned()),
            Just("action".to_owned()),
            Just("attributes".to_owned()),
            "[a-z]{0,4}",
        ];
        leaf.prop_recursive(3, 20, 5, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
                proptest::collection::hash_map(name.clone(), inner, 0..6)
                    .prop_map(|map| Json::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_json_is_answered_without_a_panic(json in any_json()) {
            let _ = read(json, 5);
        }
    }
}
