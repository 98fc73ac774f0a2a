//! The spans and decisions of one request. A span that was begun is ended and recorded whatever
//! becomes of the request: its guard does that.

use std::sync::Arc;

use opentelemetry::{KeyValue, Value as OtelValue};
use throughline::Outcome;
use throughline_trace::{
    Attributes, Decision, DecisionId, ErrorType, Event, Link, Span, SpanId, SpanKind, SpanRole,
    Status, StatusCode, TraceId, Value, keys,
};
use tokio::time::Instant;

use crate::asked::Asked;
use crate::caller::Caller;
use crate::clock::{now_unix_nano, unix_nano};
use crate::recorder::Recorder;

/// OTLP: whether the parent is of another process is known.
const HAS_IS_REMOTE: u32 = 0x100;
/// OTLP: the parent is of another process.
const IS_REMOTE: u32 = 0x200;

/// Attributes of the span of a call, as a rule: there is room for so many from the beginning.
const EXPECTED_ATTRIBUTES: usize = 32;

/// The trace of one request.
#[derive(Debug)]
pub(crate) struct Trail {
    pub(crate) recorder: Recorder,
    pub(crate) caller: Caller,
}

/// What every span below a choice bears.
pub(crate) type Stamp = Vec<(&'static str, Value)>;

/// A new span id.
pub(crate) fn new_span_id() -> SpanId {
    SpanId::from_u64(rand::random::<u64>().max(1))
}

impl Trail {
    pub(crate) fn new(recorder: Recorder, caller: Caller) -> Arc<Self> {
        Arc::new(Self { recorder, caller })
    }

    pub(crate) fn trace_id(&self) -> TraceId {
        self.caller.trace_id
    }

    /// Begins a span; without a parent of ours it is the caller's child.
    pub(crate) fn span(
        self: &Arc<Self>,
        name: String,
        kind: SpanKind,
        role: SpanRole,
        parent: Option<SpanId>,
    ) -> OpenSpan {
        let caller = &self.caller;
        let mut span = Span::new(caller.trace_id, new_span_id(), parent.or(caller.parent), name);
        span.kind = kind;
        span.flags = u32::from(caller.flags) | HAS_IS_REMOTE;
        if parent.is_none() && caller.parent.is_some() {
            span.flags |= IS_REMOTE;
        }
        span.trace_state.clone_from(&caller.trace_state);
        span.start_unix_nano = unix_nano(Instant::now());
        span.attributes.0.reserve(EXPECTED_ATTRIBUTES);
        span.attributes.set(keys::ROLE, role.as_str());
        OpenSpan { span: Some(Box::new(span)), trail: Arc::clone(self), is_watched: false }
    }

    /// Records a call that was refused before any target was chosen.
    pub(crate) fn refuse(
        self: &Arc<Self>,
        asked: &Asked,
        kind: ErrorType,
        message: &str,
    ) -> SpanId {
        let (operation, model) = (asked.api.operation(), asked.model.as_str());
        let name = format!("{operation} {model}");
        let mut span = self.span(name, SpanKind::Client, SpanRole::LlmCall, None);
        span.set(keys::GEN_AI_OPERATION_NAME, operation);
        span.set(keys::GEN_AI_REQUEST_MODEL, model);
        span.stamp(&Stamp::new());
        span.fail(kind, message);
        span.outcome(Outcome::of_model_error(kind));
        span.id()
    }

    /// Records a decision.
    pub(crate) fn decide(&self, decided: Decided<'_>) -> DecisionId {
        let decision_id = DecisionId::on_trace(self.caller.trace_id, rand::random());
        let text = |key: &str| self.caller.dimension(key).unwrap_or_default().to_owned();
        self.recorder.decision(Decision {
            decision_id,
            parent_decision_id: decided.parent,
            trace_id: Some(self.caller.trace_id),
            span_id: Some(decided.span_id),
            timestamp_ns: now_unix_nano(),
            received_at_ns: 0,
            stage: decided.stage.to_owned(),
            input_hash: decided.input_hash.to_owned(),
            model_version: decided.model_version.to_owned(),
            action: decided.action,
            reason: decided.reason,
            confidence: None,
            agent_id: text(keys::AGENT_ID),
            session_id: text(keys::SESSION_ID),
            instance_id: String::new(),
            seq: 0,
            derived: false,
            service: String::new(),
            attributes: decided.attributes,
        });
        decision_id
    }
}

/// A decision that was taken.
#[derive(Debug)]
pub(crate) struct Decided<'a> {
    pub(crate) span_id: SpanId,
    pub(crate) stage: &'a str,
    pub(crate) action: String,
    pub(crate) reason: String,
    pub(crate) input_hash: &'a str,
    pub(crate) model_version: &'a str,
    pub(crate) parent: Option<DecisionId>,
    pub(crate) attributes: Attributes,
}

/// A span that has begun.
#[derive(Debug)]
pub(crate) struct OpenSpan {
    span: Option<Box<Span>>,
    trail: Arc<Trail>,
    /// Dropped without an outcome, it was cancelled.
    is_watched: bool,
}

impl OpenSpan {
    pub(crate) fn id(&self) -> SpanId {
        self.span.as_ref().map_or_else(new_span_id, |span| span.span_id)
    }

    /// From now on it is cancelled when it is dropped before it was told an outcome.
    pub(crate) fn watched(mut self) -> Self {
        self.is_watched = true;
        self
    }

    fn edit(&mut self, edit: impl FnOnce(&mut Span)) {
        if let Some(span) = &mut self.span {
            edit(span);
        }
    }

    pub(crate) fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.edit(|span| span.attributes.set(key, value));
    }

    /// Sets what the SDK's functions tell.
    pub(crate) fn set_all(&mut self, entries: impl IntoIterator<Item = KeyValue>) {
        for entry in entries {
            self.set(entry.key.as_str(), value_of(entry.value));
        }
    }

    /// Sets what every span of the request bears, where the span does not say otherwise.
    pub(crate) fn stamp(&mut self, stamp: &Stamp) {
        let trail = Arc::clone(&self.trail);
        self.edit(|span| {
            for (key, value) in stamp.iter().chain(&trail.caller.dimensions) {
                if span.attributes.get(key).is_none() {
                    span.attributes.set(*key, value.clone());
                }
            }
        });
    }

    /// The span began at another time.
    pub(crate) fn began(&mut self, at: Instant) {
        self.edit(|span| span.start_unix_nano = unix_nano(at));
    }

    pub(crate) fn event(&mut self, name: &str, attributes: Vec<(&str, Value)>) {
        let attributes = Attributes(
            attributes.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        );
        self.edit(|span| {
            span.events.push(Event {
                time_unix_nano: unix_nano(Instant::now()),
                name: name.to_owned(),
                attributes,
                dropped_attributes_count: 0,
            });
        });
    }

    pub(crate) fn link(&mut self, to: SpanId) {
        self.edit(|span| {
            span.links.push(Link {
                trace_id: span.trace_id,
                span_id: to,
                trace_state: String::new(),
                flags: 0,
                attributes: Attributes::new(),
                dropped_attributes_count: 0,
            });
        });
    }

    pub(crate) fn outcome(&mut self, outcome: Outcome) {
        self.set(keys::OUTCOME, outcome.as_str());
    }

    /// The operation failed (requirement R4.3).
    pub(crate) fn fail(&mut self, kind: ErrorType, message: &str) {
        self.set(keys::ERROR_TYPE, kind.as_str());
        self.set(keys::ERROR_MESSAGE, message);
        let message = match kind {
            ErrorType::Timeout => kind.as_str(),
            _ => message,
        };
        let status = Status { code: StatusCode::Error, message: message.to_owned() };
        self.edit(|span| span.status = status);
    }

    /// Ends the span.
    pub(crate) fn end(self) {}
}

impl Drop for OpenSpan {
    fn drop(&mut self) {
        if let Some(mut span) = self.span.take() {
            if self.is_watched && span.attributes.get(keys::OUTCOME).is_none() {
                span.attributes.set(keys::OUTCOME, Outcome::Cancelled.as_str());
            }
            span.end_unix_nano = unix_nano(Instant::now()).max(span.start_unix_nano);
            self.trail.recorder.span(*span);
        }
    }
}

/// A value of OpenTelemetry's as ours.
fn value_of(value: OtelValue) -> Value {
    use opentelemetry::Array;
    match value {
        OtelValue::Bool(truth) => Value::Bool(truth),
        OtelValue::I64(number) => Value::Int(number),
        OtelValue::F64(number) => Value::Double(number),
        OtelValue::String(text) => Value::String(text.into()),
        OtelValue::Array(Array::Bool(all)) => {
            Value::Array(all.into_iter().map(Value::Bool).collect())
        }
        OtelValue::Array(Array::I64(all)) => {
            Value::Array(all.into_iter().map(Value::Int).collect())
        }
        OtelValue::Array(Array::F64(all)) => {
            Value::Array(all.into_iter().map(Value::Double).collect())
        }
        OtelValue::Array(Array::String(all)) => Value::Array(
            all.into_iter().map(|text| Value::String(text.as_str().to_owned())).collect(),
        ),
        other => Value::String(other.to_string()),
    }
}

/// A count as an attribute.
pub(crate) fn count(number: u64) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}
