//! A decision as it is written down: the object of `docs/decision.schema.json`, and the log record
//! that it becomes on the wire.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, Severity};
use opentelemetry::trace::{SpanId, TraceFlags, TraceId};
use opentelemetry::{Array, KeyValue, StringValue, Value};
use opentelemetry_sdk::logs::{SdkLogRecord, SdkLogger};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use throughline_trace::{DecisionId, keys};

use crate::logs::DECISION_TARGET;

/// The object of the schema.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct DecisionRecord {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) span_id: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) trace_flags: u8,
    pub(crate) decision_id: Option<DecisionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) parent_decision_id: Option<DecisionId>,
    pub(crate) timestamp_ns: i64,
    pub(crate) stage: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) input_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) input_hash_key_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) model_version: Option<String>,
    pub(crate) decision: Chosen,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) guideline_refs: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) agent_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) workflow_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) agent_role: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) instance_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seq: Option<i64>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub(crate) attributes: Map<String, Json>,
}

/// What was chosen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Chosen {
    pub(crate) action: String,
    pub(crate) reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) confidence: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) alternatives: Vec<String>,
}

impl DecisionRecord {
    /// The attributes of the log record, or of the span's event.
    pub(crate) fn entries(&self) -> Vec<KeyValue> {
        let text = |value: &Option<String>| value.clone().map(Value::from);
        let texts = |values: &[String]| {
            (!values.is_empty()).then(|| {
                let values = values.iter().cloned().map(StringValue::from).collect();
                Value::Array(Array::String(values))
            })
        };
        let id = |id: Option<DecisionId>| id.map(|id| Value::from(id.to_string()));
        let fields = [
            (keys::DECISION_ID, id(self.decision_id)),
            (keys::PARENT_DECISION_ID, id(self.parent_decision_id)),
            (keys::TIMESTAMP_NS, Some(Value::from(self.timestamp_ns))),
            (keys::STAGE, Some(Value::from(self.stage.clone()))),
            (keys::DECISION_ACTION, Some(Value::from(self.decision.action.clone()))),
            (keys::DECISION_REASON, Some(Value::from(self.decision.reason.clone()))),
            (keys::DECISION_CONFIDENCE, self.decision.confidence.map(Value::from)),
            (keys::DECISION_ALTERNATIVES, texts(&self.decision.alternatives)),
            (keys::GUIDELINE_REFS, texts(&self.guideline_refs)),
            (keys::INPUT_HASH, text(&self.input_hash)),
            (keys::INPUT_HASH_KEY_ID, text(&self.input_hash_key_id)),
            (keys::MODEL_VERSION, text(&self.model_version)),
            (keys::INSTANCE_ID, text(&self.instance_id)),
            (keys::SEQ, self.seq.map(Value::from)),
            (keys::AGENT_ID, text(&self.agent_id)),
            (keys::SESSION_ID, text(&self.session_id)),
            (keys::WORKFLOW_ID, text(&self.workflow_id)),
            (keys::AGENT_ROLE, text(&self.agent_role)),
        ];
        let fields = fields.into_iter().filter_map(|(key, value)| Some(KeyValue::new(key, value?)));
        let others = self
            .attributes
            .iter()
            .map(|(key, value)| KeyValue::new(key.clone(), value_of_json(value)));
        fields.chain(others).collect()
    }

    /// The log record of the wire. `blank` only makes it.
    pub(crate) fn log_record(&self, blank: &SdkLogger) -> SdkLogRecord {
        let mut record = blank.create_log_record();
        let nanos = u64::try_from(self.timestamp_ns).unwrap_or(0);
        let time = UNIX_EPOCH + Duration::from_nanos(nanos);
        record.set_event_name(keys::DECISION_EVENT);
        record.set_timestamp(time);
        record.set_observed_timestamp(time);
        record.set_severity_number(Severity::Info);
        record.set_severity_text("INFO");
        record.set_body(AnyValue::from(self.decision.action.clone()));
        record.add_attributes(
            self.entries().into_iter().map(|entry| (entry.key, any_value(entry.value))),
        );
        let trace = self.trace_id.as_deref().and_then(|id| TraceId::from_hex(id).ok());
        let span = self.span_id.as_deref().and_then(|id| SpanId::from_hex(id).ok());
        if let (Some(trace), Some(span)) = (trace, span) {
            record.set_trace_context(trace, span, Some(TraceFlags::new(self.trace_flags)));
        }
        record
    }

    /// Shows the decision to local logs: all that is on the wire.
    pub(crate) fn show(&self) {
        let list = |values: &[String]| {
            (!values.is_empty()).then(|| Json::from(values.to_vec()).to_string())
        };
        let others = (!self.attributes.is_empty())
            .then(|| Json::Object(self.attributes.clone()).to_string());
        tracing::info!(
            target: DECISION_TARGET,
            event_name = keys::DECISION_EVENT,
            decision_id = self.decision_id.map(tracing::field::display),
            timestamp_ns = self.timestamp_ns,
            instance_id = self.instance_id,
            seq = self.seq,
            parent_decision_id = self.parent_decision_id.map(tracing::field::display),
            stage = self.stage,
            input_hash = self.input_hash,
            input_hash_key_id = self.input_hash_key_id,
            model_version = self.model_version,
            decision.action = self.decision.action,
            decision.reason = self.decision.reason,
            decision.confidence = self.decision.confidence,
            decision.alternatives = list(&self.decision.alternatives),
            guideline_refs = list(&self.guideline_refs),
            attributes = others,
            "decision"
        );
    }
}

/// Whether anybody listens to decisions in local logs.
pub(crate) fn is_shown() -> bool {
    tracing::enabled!(target: DECISION_TARGET, tracing::Level::INFO)
}

fn is_zero(flags: &u8) -> bool {
    *flags == 0
}

/// Nanoseconds since the Unix epoch.
pub(crate) fn unix_nanos(time: SystemTime) -> i64 {
    let nanos = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    i64::try_from(nanos).unwrap_or(i64::MAX)
}

/// An attribute's value as JSON.
pub(crate) fn json_of_value(value: &Value) -> Json {
    match value {
        Value::Bool(truth) => Json::from(*truth),
        Value::I64(number) => Json::from(*number),
        Value::F64(number) => Json::from(*number),
        Value::String(text) => Json::from(text.as_str()),
        Value::Array(Array::Bool(all)) => Json::from(all.clone()),
        Value::Array(Array::I64(all)) => Json::from(all.clone()),
        Value::Array(Array::F64(all)) => Json::from(all.clone()),
        Value::Array(Array::String(all)) => all.iter().map(StringValue::as_str).collect(),
        other => Json::from(other.to_string()),
    }
}

/// JSON as an attribute's value: lists of one kind stay lists, what has no form of its own is text.
pub(crate) fn value_of_json(json: &Json) -> Value {
    match json {
        Json::Bool(truth) => Value::from(*truth),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => Value::from(whole),
            None => Value::from(number.as_f64().unwrap_or(0.0)),
        },
        Json::String(text) => Value::from(text.clone()),
        Json::Array(items) => match array_of_json(items) {
            Some(array) => Value::Array(array),
            None => Value::from(json.to_string()),
        },
        other => Value::from(other.to_string()),
    }
}

/// A list whose items are of one kind; numbers are whole if all of them are.
fn array_of_json(items: &[Json]) -> Option<Array> {
    fn all<T>(items: &[Json], of: impl Fn(&Json) -> Option<T>) -> Option<Vec<T>> {
        items.iter().map(of).collect()
    }
    let text = |item: &Json| item.as_str().map(|text| StringValue::from(text.to_owned()));
    all(items, text)
        .map(Array::String)
        .or_else(|| all(items, Json::as_bool).map(Array::Bool))
        .or_else(|| all(items, Json::as_i64).map(Array::I64))
        .or_else(|| all(items, Json::as_f64).map(Array::F64))
}

fn any_value(value: Value) -> AnyValue {
    match value {
        Value::Bool(truth) => AnyValue::Boolean(truth),
        Value::I64(number) => AnyValue::Int(number),
        Value::F64(number) => AnyValue::Double(number),
        Value::String(text) => AnyValue::String(text),
        Value::Array(Array::Bool(all)) => list(all, AnyValue::Boolean),
        Value::Array(Array::I64(all)) => list(all, AnyValue::Int),
        Value::Array(Array::F64(all)) => list(all, AnyValue::Double),
        Value::Array(Array::String(all)) => list(all, AnyValue::String),
        other => AnyValue::from(other.to_string()),
    }
}

fn list<T>(items: Vec<T>, of: impl Fn(T) -> AnyValue) -> AnyValue {
    AnyValue::ListAny(Box::new(items.into_iter().map(of).collect()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_of_one_kind_are_lists_on_the_wire() {
        for told in [json!([0.25, -1.5]), json!([1, 2]), json!([true, false]), json!(["a", "b"])] {
            let value = value_of_json(&told);
            assert_eq!(json_of_value(&value), told);
            assert!(matches!(any_value(value), AnyValue::ListAny(items) if items.len() == 2));
        }
        // An embedding may have a whole number in it.
        assert_eq!(json_of_value(&value_of_json(&json!([1, 0.5]))), json!([1.0, 0.5]));
        assert_eq!(json_of_value(&value_of_json(&json!([1, "a"]))), json!("[1,\"a\"]"));
    }
}
