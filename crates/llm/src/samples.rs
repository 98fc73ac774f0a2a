//! What the tests of all wire forms share.

use proptest::prelude::*;
use serde_json::Value;

use crate::openai::WireError;
use crate::{Assembler, Message, SseEvent, SseParser, WireForm, named_event_bytes};

/// Any JSON, rich in the words that wire forms are made of.
pub(crate) fn arbitrary_json() -> impl Strategy<Value = Value> {
    let words = vec![
        "type",
        "text",
        "content",
        "role",
        "tool_use",
        "tool_result",
        "thinking",
        "signature",
        "image",
        "source",
        "base64",
        "function_call",
        "message",
        "reasoning",
        "assistant",
        "usage",
        "input_tokens",
        "output",
        "name",
        "id",
        "input",
        "arguments",
        "text_delta",
    ];
    let known = proptest::sample::select(words).prop_map(str::to_owned);
    let word = prop_oneof!["[a-z]{0,6}", known];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((word.clone(), inner), 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Messages as lines for a person.
pub(crate) fn shown(messages: &[Message]) -> String {
    let line = |m: &Message| format!("{}: {:?}", m.role.as_str(), m.parts);
    messages.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The events of a stream.
pub(crate) fn events_of(text: &str) -> Vec<SseEvent> {
    let mut events = Vec::new();
    SseParser::new().push(text.as_bytes(), &mut events).expect("events");
    events
}

/// What comes of a stream, and whether it had its end mark.
pub(crate) fn assembled(form: WireForm, text: &str) -> Result<(Assembler, bool), WireError> {
    let (mut reader, mut answer, mut is_over) = (form.stream_reader(), Assembler::new(), false);
    for event in events_of(text) {
        let streamed = reader.read(&event)?;
        is_over |= streamed.is_last;
        if let Some(chunk) = &streamed.chunk {
            answer.push(chunk);
        }
    }
    Ok((answer, is_over))
}

/// Events on the wire.
pub(crate) fn written(events: &[Value]) -> String {
    events.iter().map(named_event_bytes).collect()
}
