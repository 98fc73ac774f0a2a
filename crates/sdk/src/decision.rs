//! The decision log (requirement R4.4): what an agent chose, why and how sure it was, as an OTLP log
//! event `agent.decision` on the span that chose.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, Severity};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry::{Context, Key, KeyValue, StringValue, Value};
use serde::Serialize;
use throughline_trace::{DecisionId, keys};

use crate::dimensions::Dimensions;
use crate::logs::DECISION_TARGET;
use crate::span::ActiveSpan;
use crate::telemetry_pipeline::Pipeline;

/// A decision at this stage of the agent's work (`plan`, `act.tool`, `fallback`, …), to be described
/// and then [recorded](DecisionBuilder::record).
///
/// ```
/// let query = serde_json::json!({ "question": "is the item in stock?" });
/// let id = throughline::decision("plan")
///     .action("check_stock_v1")
///     .reason("the customer asks for availability")
///     .confidence(0.82)
///     .input(&query)
///     .record();
/// # let _ = id;
/// ```
pub fn decision(stage: impl Into<String>) -> DecisionBuilder {
    DecisionBuilder {
        stage: stage.into(),
        action: String::new(),
        reason: String::new(),
        confidence: None,
        input_hash: None,
        model_version: None,
        parent: None,
        cx: None,
        attributes: Vec::new(),
    }
}

/// A decision that is not recorded yet.
#[derive(Debug)]
#[must_use = "a decision is recorded with `record`"]
pub struct DecisionBuilder {
    stage: String,
    action: String,
    reason: String,
    confidence: Option<f64>,
    input_hash: Option<String>,
    model_version: Option<String>,
    parent: Option<DecisionId>,
    cx: Option<Context>,
    attributes: Vec<KeyValue>,
}

impl DecisionBuilder {
    /// What was chosen.
    pub fn action(mut self, action: impl Into<String>) -> Self {
        self.action = action.into();
        self
    }

    /// Why, for people.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    /// How sure, 0 to 1. What is not a number in that range is left out: a wrong confidence would
    /// steer the agent.
    pub fn confidence(self, confidence: f64) -> Self {
        self.confidence_if(Some(confidence))
    }

    /// [`confidence`](Self::confidence), if it is known.
    pub fn confidence_if(mut self, confidence: Option<f64>) -> Self {
        self.confidence = confidence.filter(|sure| (0.0..=1.0).contains(sure));
        self
    }

    /// What the decision is based on. Only its hash is recorded: equal inputs have equal hashes,
    /// whatever the order of their fields. Input that JSON cannot spell has none.
    pub fn input(mut self, input: &impl Serialize) -> Self {
        self.input_hash = input_hash(input);
        self
    }

    /// Version of the model or strategy that decided.
    pub fn model_version(mut self, version: impl Into<String>) -> Self {
        self.model_version = Some(version.into());
        self
    }

    /// The decision that led to this one.
    pub fn parent(mut self, parent: DecisionId) -> Self {
        self.parent = Some(parent);
        self
    }

    /// [`parent`](Self::parent), if there is one.
    pub fn parent_if(mut self, parent: Option<DecisionId>) -> Self {
        self.parent = parent;
        self
    }

    /// The span that decided, when it is not the current one.
    pub fn on(mut self, span: &ActiveSpan) -> Self {
        self.cx = Some(span.context());
        self
    }

    /// Whatever else belongs to the record.
    pub fn attribute(mut self, key: impl Into<Key>, value: impl Into<Value>) -> Self {
        self.attributes.push(KeyValue::new(key, value));
        self
    }

    /// Records the decision and says its id. Never blocks: a record that finds the queue full is
    /// counted ([`Counts::decisions`](crate::Counts::decisions)), and its number is missing from the
    /// sequence that the server checks.
    pub fn record(mut self) -> DecisionId {
        let id = DecisionId::random();
        let cx = self.cx.take().unwrap_or_else(Context::current);
        let _attached = cx.clone().attach();
        let now = SystemTime::now();
        let pipeline = Pipeline::of(&cx);
        let counted = pipeline.as_ref().map(|pipeline| {
            let seq = i64::try_from(pipeline.next_seq()).unwrap_or(i64::MAX);
            (pipeline.instance_id(), seq)
        });
        let attributes = self.attributes_at(id, now, counted);
        self.show(id, now, counted);
        match &pipeline {
            Some(pipeline) => {
                let logger = pipeline.decision_logger();
                let mut record = logger.create_log_record();
                record.set_event_name(keys::DECISION_EVENT);
                record.set_timestamp(now);
                record.set_severity_number(Severity::Info);
                record.set_severity_text("INFO");
                record.set_body(AnyValue::from(self.action));
                record.add_attributes(
                    attributes.into_iter().map(|entry| (entry.key, any_value(entry.value))),
                );
                logger.emit(record);
            }
            // Somebody else set telemetry up: there is no logger to be had from OpenTelemetry, but
            // the span carries the decision as an event.
            None => cx.span().add_event(keys::DECISION_EVENT, attributes),
        }
        id
    }

    /// `counted` is the instance and the number of the decision within it.
    fn attributes_at(
        &mut self,
        id: DecisionId,
        now: SystemTime,
        counted: Option<(&str, i64)>,
    ) -> Vec<KeyValue> {
        let mut all = vec![
            KeyValue::new(keys::DECISION_ID, id.to_string()),
            KeyValue::new(keys::TIMESTAMP_NS, unix_nanos(now)),
            KeyValue::new(keys::STAGE, self.stage.clone()),
            KeyValue::new(keys::DECISION_ACTION, self.action.clone()),
            KeyValue::new(keys::DECISION_REASON, self.reason.clone()),
        ];
        let optional = [
            (keys::PARENT_DECISION_ID, self.parent.map(|parent| Value::from(parent.to_string()))),
            (keys::DECISION_CONFIDENCE, self.confidence.map(Value::from)),
            (keys::INPUT_HASH, self.input_hash.clone().map(Value::from)),
            (keys::MODEL_VERSION, self.model_version.clone().map(Value::from)),
            (keys::INSTANCE_ID, counted.map(|(instance, _)| Value::from(instance.to_owned()))),
            (keys::SEQ, counted.map(|(_, seq)| Value::from(seq))),
        ];
        all.extend(
            optional.into_iter().filter_map(|(key, value)| Some(KeyValue::new(key, value?))),
        );
        for (key, value) in Dimensions::current().ids() {
            all.push(KeyValue::new(key, StringValue::from(value)));
        }
        all.append(&mut self.attributes);
        all
    }

    /// Shows the decision to local logs.
    fn show(&self, id: DecisionId, now: SystemTime, counted: Option<(&str, i64)>) {
        tracing::info!(
            target: DECISION_TARGET,
            event_name = keys::DECISION_EVENT,
            decision_id = %id,
            timestamp_ns = unix_nanos(now),
            instance_id = counted.map(|(instance, _)| instance),
            seq = counted.map(|(_, seq)| seq),
            parent_decision_id = self.parent.map(tracing::field::display),
            stage = self.stage,
            input_hash = self.input_hash,
            model_version = self.model_version,
            decision.action = self.action,
            decision.reason = self.reason,
            decision.confidence = self.confidence,
            "decision"
        );
    }
}

fn unix_nanos(time: SystemTime) -> i64 {
    let nanos = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    i64::try_from(nanos).unwrap_or(i64::MAX)
}

fn any_value(value: Value) -> AnyValue {
    match value {
        Value::Bool(truth) => AnyValue::Boolean(truth),
        Value::I64(number) => AnyValue::Int(number),
        Value::F64(number) => AnyValue::Double(number),
        Value::String(text) => AnyValue::String(text),
        other => AnyValue::from(other.to_string()),
    }
}

/// The hash of an input: blake3 over its JSON with sorted keys, 64 hexadecimal characters.
fn input_hash(input: &impl Serialize) -> Option<String> {
    let mut json = serde_json::to_value(input).ok()?;
    json.sort_all_objects();
    Some(blake3::hash(json.to_string().as_bytes()).to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_inputs_have_equal_hashes_whatever_the_order() {
        let hash = |text: &str| {
            input_hash(&serde_json::from_str::<serde_json::Value>(text).expect("json"))
        };
        assert_eq!(hash(r#"{"a":1,"b":{"c":2,"d":3}}"#), hash(r#"{"b":{"d":3,"c":2},"a":1}"#));
        assert_ne!(hash(r#"{"a":1}"#), hash(r#"{"a":"1"}"#));
        assert_eq!(hash("null").map(|text| text.len()), Some(64));
    }

    #[test]
    fn a_confidence_that_is_none_is_left_out() {
        assert_eq!(decision("plan").confidence(0.5).confidence, Some(0.5));
        assert_eq!(decision("plan").confidence_if(Some(0.5)).confidence, Some(0.5));
        assert_eq!(decision("plan").confidence_if(None).confidence, None);
        for wrong in [-0.1, 1.1, f64::NAN] {
            assert_eq!(decision("plan").confidence(wrong).confidence, None);
        }
    }
}
