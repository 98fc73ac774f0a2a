//! What of a span is text that is searched. The walk over spans and the index of texts both ask
//! here, so that neither knows a text that the other does not.

use serde_json::Value as Json;
use throughline_trace::keys::{self, MESSAGE_KEYS};
use throughline_trace::{Attributes, Event, Span, Value};

use crate::body::SpanBody;
use crate::messages::{Slot, Taken};

/// Attributes beside the messages whose text is searched.
const TEXT_KEYS: [&str; 4] = [
    keys::GEN_AI_TOOL_CALL_ARGUMENTS,
    keys::GEN_AI_TOOL_CALL_RESULT,
    keys::ERROR_MESSAGE,
    "exception.message",
];

/// Fields of a message whose values are no content of it.
const NO_CONTENT: [&str; 2] = ["role", "type"];

/// Fields of a message that hold its parts, as lists.
const PARTS: [&str; 3] = ["parts", "content", "tool_calls"];

/// What a text in JSON is, which says what of it is content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Written {
    /// A message or its parts; what a tool is given or answers lies deeper and is content.
    Message,
    /// The description of a tool, a schema: its types are no content, however deep.
    Definition,
    /// Arguments and results of tools, texts: all of it.
    Content,
}

impl Written {
    /// What the value of an attribute is.
    pub(crate) fn under(key: &str) -> Self {
        match key {
            keys::GEN_AI_TOOL_DEFINITIONS => Self::Definition,
            key if MESSAGE_KEYS.contains(&key) => Self::Message,
            _ => Self::Content,
        }
    }

    /// What the value of a field of an object is.
    fn within(self, key: &str, value: &Json) -> Self {
        match self {
            Self::Message if value.is_array() && PARTS.contains(&key) => Self::Message,
            Self::Definition => Self::Definition,
            Self::Message | Self::Content => Self::Content,
        }
    }
}

/// Something that a span says, beside its messages.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Said<'a> {
    /// A text as it is.
    Text(&'a str),
    /// A value, be it structured or JSON as text.
    Value(&'a Value, Written),
}

/// All that a span says beside its messages.
pub(crate) fn said_by<'a>(name: &'a str, body: &'a SpanBody) -> impl Iterator<Item = Said<'a>> {
    let plain = body.attributes.iter().filter_map(|(key, slot)| match slot {
        Slot::Plain(value) => Some((key.as_str(), value)),
        _ => None,
    });
    said(name, &body.status_message, &body.events).chain(of_attributes(plain))
}

/// The same of a span whose messages were taken out of some of its attributes.
pub(crate) fn said_beside<'a>(
    span: &'a Span,
    taken: &'a [Taken],
) -> impl Iterator<Item = Said<'a>> {
    let is_taken = |at| taken.iter().any(|one| one.attribute == at);
    let plain = span.attributes.iter().enumerate().filter(move |(at, _)| !is_taken(*at));
    said(&span.name, &span.status.message, &span.events)
        .chain(of_attributes(plain.map(|(_, attribute)| attribute)))
}

/// All that a span says which has its messages in its attributes.
pub(crate) fn said_by_span(span: &Span) -> impl Iterator<Item = Said<'_>> {
    said(&span.name, &span.status.message, &span.events)
        .chain(of_attributes(span.attributes.iter()))
}

fn said<'a>(
    name: &'a str,
    status_message: &'a str,
    events: &'a [Event],
) -> impl Iterator<Item = Said<'a>> {
    let events = events.iter().flat_map(|event| {
        let attributes: &Attributes = &event.attributes;
        std::iter::once(Said::Text(&event.name)).chain(of_attributes(attributes.iter()))
    });
    [Said::Text(name), Said::Text(status_message)].into_iter().chain(events)
}

fn of_attributes<'a>(
    attributes: impl Iterator<Item = (&'a str, &'a Value)>,
) -> impl Iterator<Item = Said<'a>> {
    attributes
        .filter(|(key, _)| MESSAGE_KEYS.contains(key) || TEXT_KEYS.contains(key))
        .map(|(key, value)| Said::Value(value, Written::under(key)))
}

/// A message that a span refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Referred {
    /// Its number in the segment.
    pub(crate) message: i64,
    /// Whether its bytes are JSON as text; else they are the stored form of a value.
    pub(crate) is_json: bool,
    /// What it is there: the same message may be another thing under another key.
    pub(crate) written: Written,
}

/// The messages that slots refer to by these numbers, in order.
pub(crate) fn messages_of(
    slots: &[(String, Slot)],
    numbers: Vec<i64>,
) -> impl Iterator<Item = Referred> + '_ {
    let mut numbers = numbers.into_iter();
    slots.iter().flat_map(move |(key, slot)| {
        let written = Written::under(key);
        let (count, is_json) = match slot {
            Slot::Plain(_) => (0, true),
            Slot::Text { count, .. } => (*count, true),
            Slot::List { count } => (*count, false),
        };
        let taken: Vec<i64> = numbers.by_ref().take(count as usize).collect();
        taken.into_iter().map(move |message| Referred { message, is_json, written })
    })
}

/// Whether a text is looked into as JSON.
pub(crate) fn may_be_json(text: &str) -> bool {
    text.trim_start().starts_with(['[', '{'])
}

/// Tells each text that JSON as text holds; what is no JSON is one text.
pub(crate) fn texts_in_json(text: &str, written: Written, tell: &mut impl FnMut(&str)) {
    match serde_json::from_str(text) {
        Ok(json) => texts_in_tree(&json, written, tell),
        Err(_) => tell(text),
    }
}

/// Tells each text of a value.
pub(crate) fn texts_in_value(value: &Value, written: Written, tell: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) if may_be_json(text) => texts_in_json(text, written, tell),
        Value::String(text) => tell(text),
        Value::Array(_) | Value::Map(_) => texts_in_tree(&value.to_json(), written, tell),
        _ => {}
    }
}

/// Tells each text of JSON.
pub(crate) fn texts_in_tree(json: &Json, written: Written, tell: &mut impl FnMut(&str)) {
    match json {
        Json::String(text) => tell(text),
        Json::Array(items) => items.iter().for_each(|item| texts_in_tree(item, written, tell)),
        Json::Object(fields) => {
            for (key, value) in fields {
                let is_named = value.is_string() && NO_CONTENT.contains(&key.as_str());
                if written == Written::Content || !is_named {
                    texts_in_tree(value, written.within(key, value), tell);
                }
            }
        }
        Json::Number(number) => tell(&number.to_string()),
        Json::Null | Json::Bool(_) => {}
    }
}
