//! Log events named `agent.decision` to decisions (requirement R4.4).

use std::borrow::Cow;
use std::collections::HashSet;
use std::str::FromStr;

use throughline_trace::{Attributes, Decision, DecisionId, LogRecord, Value, keys};

/// Attribute under which a decision keeps the body of its log record.
const BODY: &str = "body";
/// Attribute or body field that holds `{action, reason, confidence}` in the JSON form of a decision.
const NESTED: &str = "decision";
/// Ids that a record without an active span may carry as attributes.
const TRACE_ID: &str = "trace_id";
const SPAN_ID: &str = "span_id";

/// Fields that make a decision what it is: among many others they are taken wherever they stand.
const OWN: [&str; 16] = [
    keys::DECISION_ID,
    keys::PARENT_DECISION_ID,
    keys::TIMESTAMP_NS,
    keys::STAGE,
    keys::INPUT_HASH,
    keys::MODEL_VERSION,
    keys::DECISION_ACTION,
    keys::DECISION_REASON,
    keys::DECISION_CONFIDENCE,
    keys::AGENT_ID,
    keys::SESSION_ID,
    keys::INSTANCE_ID,
    keys::SEQ,
    keys::DERIVED,
    TRACE_ID,
    SPAN_ID,
];

/// What makes a record no decision.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoDecision {
    /// No id, or none that is a UUID.
    #[error("expected a UUID as {}", keys::DECISION_ID)]
    Id,
    /// Nothing says what was chosen.
    #[error("expected a text as {}", keys::DECISION_ACTION)]
    Action,
}

/// A record that can become a decision, with what was read from it.
pub(super) struct Draft {
    fields: Attributes,
    decision_id: DecisionId,
    action: String,
    parent_decision_id: Option<DecisionId>,
    timestamp_ns: Option<u64>,
    confidence: Option<f64>,
    /// Keys of fields that are there and cannot be read; they stay attributes.
    unreadable: Vec<&'static str>,
    left_out: usize,
}

/// The fields of a record: its attributes, and what its body has under other names. The sender decides
/// how many there are, hence the set.
struct Fields<'r> {
    list: Attributes,
    names: HashSet<Cow<'r, str>>,
    max_fields: usize,
    left_out: usize,
}

impl<'r> Fields<'r> {
    fn of(record: &'r LogRecord, max_fields: usize) -> Self {
        let mut fields =
            Self { list: Attributes::new(), names: HashSet::new(), max_fields, left_out: 0 };
        let mut nested = None;
        for (key, value) in &record.attributes.0 {
            match value {
                Value::Map(inside) if key == NESTED && !fields.names.contains(NESTED) => {
                    nested = Some(inside);
                }
                // They are within the limit, and what a sender says twice is kept twice.
                _ => fields.list.0.push((key.clone(), value.clone())),
            }
            fields.names.insert(key.into());
        }
        if let Value::Map(body) = &record.body {
            for (key, value) in body {
                match value {
                    Value::Map(inside) if key == NESTED && !fields.names.contains(NESTED) => {
                        nested = Some(inside);
                        fields.names.insert(key.into());
                    }
                    _ => fields.add(key.into(), value),
                }
            }
        }
        for (key, value) in nested.into_iter().flatten() {
            fields.add(format!("{NESTED}.{key}").into(), value);
        }
        fields
    }

    fn add(&mut self, key: Cow<'r, str>, value: &Value) {
        if self.names.contains(&key) {
            return;
        }
        if self.list.len() >= self.max_fields && !OWN.contains(&&*key) {
            self.left_out += 1;
            return;
        }
        self.list.0.push((key.clone().into_owned(), value.clone()));
        self.names.insert(key);
    }
}

impl Draft {
    /// Reads the fields of `record` from its attributes, or from its body when that is a map: at most
    /// `max_fields` beside its own, as of attributes of any item.
    pub(super) fn read(record: &LogRecord, max_fields: usize) -> Result<Self, NoDecision> {
        let Fields { list: fields, left_out, .. } = Fields::of(record, max_fields);
        let decision_id = fields
            .str(keys::DECISION_ID)
            .and_then(|text| text.trim().parse::<DecisionId>().ok())
            .filter(|id| !id.0.is_nil())
            .ok_or(NoDecision::Id)?;
        let action = fields.str(keys::DECISION_ACTION).ok_or(NoDecision::Action)?.to_owned();
        let mut draft = Self {
            fields,
            decision_id,
            action,
            parent_decision_id: None,
            timestamp_ns: None,
            confidence: None,
            unreadable: Vec::new(),
            left_out,
        };
        draft.parent_decision_id =
            draft.optional(keys::PARENT_DECISION_ID, |value| value.as_str()?.trim().parse().ok());
        draft.timestamp_ns = draft.optional(keys::TIMESTAMP_NS, |value| {
            value.as_i64().and_then(|ns| u64::try_from(ns).ok()).filter(|ns| *ns > 0)
        });
        draft.confidence = draft.optional(keys::DECISION_CONFIDENCE, |value| {
            value.as_f64().filter(|share| (0.0..=1.0).contains(share))
        });
        Ok(draft)
    }

    /// The field under `key`: `None` when it is absent, empty, or unreadable (then it is noted).
    fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.fields.get(key)?;
        if *value == Value::Empty || value.as_str() == Some("") {
            return None;
        }
        let read = read(value);
        if read.is_none() {
            self.unreadable.push(key);
        }
        read
    }

    pub(super) fn has_unreadable_fields(&self) -> bool {
        !self.unreadable.is_empty()
    }

    /// Whether there were more fields than it may have.
    pub(super) fn has_left_out(&self) -> bool {
        self.left_out > 0
    }

    /// The decision; what has no place in it stays an attribute.
    pub(super) fn finish(self, record: LogRecord, received_at_ns: u64) -> Decision {
        let Self { mut fields, unreadable, .. } = self;
        let trace_id = record.trace_id.or_else(|| take_parsed(&mut fields, TRACE_ID));
        let span_id = record.span_id.or_else(|| take_parsed(&mut fields, SPAN_ID));
        for key in [keys::DECISION_ID, keys::DECISION_ACTION] {
            fields.remove(key);
        }
        for key in [keys::PARENT_DECISION_ID, keys::TIMESTAMP_NS, keys::DECISION_CONFIDENCE] {
            if !unreadable.contains(&key) {
                fields.remove(key);
            }
        }
        let mut text = |key| take_text(&mut fields, key).unwrap_or_default();
        let (stage, input_hash) = (text(keys::STAGE), text(keys::INPUT_HASH));
        let (model_version, reason) = (text(keys::MODEL_VERSION), text(keys::DECISION_REASON));
        let (agent_id, session_id) = (text(keys::AGENT_ID), text(keys::SESSION_ID));
        let mut instance_id = text(keys::INSTANCE_ID);
        if instance_id.is_empty()
            && let Some(id) = record.resource.attributes.str(keys::SERVICE_INSTANCE_ID)
        {
            instance_id = id.to_owned();
        }
        let seq = fields.u64(keys::SEQ).unwrap_or(0);
        if seq > 0 {
            fields.remove(keys::SEQ);
        }
        let derived = fields.bool(keys::DERIVED).unwrap_or(false);
        if derived {
            fields.remove(keys::DERIVED);
        }
        match record.body {
            Value::Empty | Value::Map(_) => {}
            Value::String(text) if text.is_empty() || text == keys::DECISION_EVENT => {}
            body => fields.set(BODY, body),
        }
        Decision {
            decision_id: self.decision_id,
            parent_decision_id: self.parent_decision_id,
            trace_id,
            span_id,
            timestamp_ns: self.timestamp_ns.unwrap_or(record.time_unix_nano),
            received_at_ns,
            stage,
            input_hash,
            model_version,
            action: self.action,
            reason,
            confidence: self.confidence,
            agent_id,
            session_id,
            instance_id,
            seq,
            derived,
            service: record.resource.service().to_owned(),
            attributes: fields,
        }
    }
}

/// Takes the text under `key` out; a value that is no text stays where it is.
fn take_text(fields: &mut Attributes, key: &str) -> Option<String> {
    fields.get(key)?.as_str()?;
    match fields.remove(key) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

/// Takes the value that the text under `key` spells out; text that spells none stays where it is.
fn take_parsed<T: FromStr>(fields: &mut Attributes, key: &str) -> Option<T> {
    let parsed = fields.str(key)?.trim().parse().ok()?;
    fields.remove(key);
    Some(parsed)
}
