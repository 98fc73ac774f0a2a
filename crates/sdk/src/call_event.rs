//! The event `gen_ai.client.inference.operation.details` (OpenTelemetry GenAI conventions): one model
//! call with everything its span tells, and its content as structured values.

use std::collections::HashMap;
use std::time::SystemTime;

use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, Severity};
use opentelemetry::{Array, Context, Key, KeyValue};
use throughline_trace::keys;

use crate::content::{ContentCapture, Kept};
use crate::telemetry_pipeline::Pipeline;

/// Keys that the event does not repeat: our own dimensions of the span.
const LEFT_OUT: [&str; 2] = [keys::OUTCOME, keys::RETRY_COUNT];

/// An event that is being gathered.
#[derive(Debug, Default)]
pub(crate) struct CallEvent {
    attributes: Vec<(Key, AnyValue)>,
    /// Whether prompt and answer are told.
    pub(crate) has_content: bool,
}

impl CallEvent {
    /// An event, if the switches of the current telemetry want one.
    pub(crate) fn begin(capture: ContentCapture) -> Option<Self> {
        let pipeline = Pipeline::current()?;
        let is_wanted = pipeline.emits_events().unwrap_or(capture.events);
        is_wanted.then(|| Self { attributes: Vec::new(), has_content: capture.events })
    }

    pub(crate) fn tell(&mut self, entry: &KeyValue) {
        if !LEFT_OUT.contains(&entry.key.as_str()) {
            self.attributes.push((entry.key.clone(), any_value(&entry.value)));
        }
    }

    /// Content, which is structured here.
    pub(crate) fn tell_content(&mut self, kept: &Kept) {
        if self.has_content {
            let value = structured(kept.value.clone());
            self.attributes.push((Key::from_static_str(kept.key), value));
            kept.cut.iter().for_each(|entry| self.tell(entry));
        }
    }

    /// Writes the event into the log of the span in `cx`.
    pub(crate) fn emit(self, cx: &Context) {
        let Some(pipeline) = Pipeline::of(cx) else { return };
        let _attached = cx.clone().attach();
        let logger = pipeline.event_logger();
        let mut record = logger.create_log_record();
        record.set_event_name(keys::INFERENCE_DETAILS_EVENT);
        record.set_timestamp(SystemTime::now());
        record.set_severity_number(Severity::Debug);
        record.set_severity_text("DEBUG");
        record.add_attributes(self.attributes);
        logger.emit(record);
    }
}

fn any_value(value: &opentelemetry::Value) -> AnyValue {
    use opentelemetry::Value;
    match value {
        Value::Bool(truth) => AnyValue::Boolean(*truth),
        Value::I64(number) => AnyValue::Int(*number),
        Value::F64(number) => AnyValue::Double(*number),
        Value::String(text) => AnyValue::String(text.clone()),
        Value::Array(Array::String(texts)) => {
            AnyValue::ListAny(Box::new(texts.iter().cloned().map(AnyValue::String).collect()))
        }
        other => AnyValue::from(other.to_string()),
    }
}

/// JSON as the value of a log. There is no null in it: a field that is null is left out, an item is
/// an empty text.
fn structured(value: serde_json::Value) -> AnyValue {
    use serde_json::Value;
    match value {
        Value::Null => AnyValue::from(""),
        Value::Bool(truth) => AnyValue::Boolean(truth),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => AnyValue::Int(whole),
            None => AnyValue::Double(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => AnyValue::from(text),
        Value::Array(items) => {
            AnyValue::ListAny(Box::new(items.into_iter().map(structured).collect()))
        }
        Value::Object(fields) => {
            let some = fields.into_iter().filter(|(_, value)| !value.is_null());
            let map: HashMap<Key, AnyValue> =
                some.map(|(key, value)| (Key::from(key), structured(value))).collect();
            AnyValue::Map(Box::new(map))
        }
    }
}
