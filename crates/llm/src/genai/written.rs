//! Messages written as text at once: what their values would be as text, without the values, which cost
//! several times the writing.

use serde_json::Value;

use super::{is_repeated, part_to_json};
use crate::chat::Choice;
use crate::message::{Message, Part};

/// Bytes of a message beside what its parts say, about.
const FRAME_BYTES: usize = 96;

/// The text of [`input_messages`](super::input_messages).
pub fn input_messages_text(messages: &[Message]) -> String {
    text_of(messages.iter().map(|message| (message, None)))
}

/// The text of [`output_messages`](super::output_messages).
pub fn output_messages_text(choices: &[Choice]) -> String {
    text_of(choices.iter().map(|choice| (&choice.message, Some(choice.finish_reason.as_str()))))
}

fn text_of<'m>(messages: impl Iterator<Item = (&'m Message, Option<&'m str>)> + Clone) -> String {
    let said = |part: &Part| match part {
        Part::Text(text) | Part::Reasoning(text) | Part::Refusal(text) => text.len(),
        _ => 0,
    };
    let bytes_of = |message: &Message| message.parts.iter().map(said).sum::<usize>() + FRAME_BYTES;
    let bytes = messages.clone().map(|(message, _)| bytes_of(message)).sum();
    let mut text = String::with_capacity(bytes);
    list(&mut text, messages, |text, (message, reason)| write_message(text, message, reason));
    text
}

/// Names stand in the order in which values have them.
fn write_message(text: &mut String, message: &Message, finish_reason: Option<&str>) {
    text.push('{');
    if let Some(reason) = finish_reason {
        text.push_str("\"finish_reason\":");
        write_text(text, reason);
        text.push(',');
    }
    if let Some(name) = &message.name {
        text.push_str("\"name\":");
        write_text(text, name);
        text.push(',');
    }
    text.push_str("\"parts\":");
    list(text, message.parts.iter().filter(|part| !is_repeated(part)), write_part);
    text.push_str(",\"role\":");
    write_text(text, message.role.as_str());
    text.push('}');
}

fn write_part(text: &mut String, part: &Part) {
    let (content, kind) = match part {
        Part::Text(content) => (content, "text"),
        Part::Reasoning(content) => (content, "reasoning"),
        Part::Refusal(content) => (content, "refusal"),
        other => return text.push_str(&part_to_json(other).to_string()),
    };
    text.push_str("{\"content\":");
    write_text(text, content);
    text.push_str(",\"type\":\"");
    text.push_str(kind);
    text.push_str("\"}");
}

fn list<T>(
    text: &mut String,
    items: impl Iterator<Item = T>,
    mut write: impl FnMut(&mut String, T),
) {
    text.push('[');
    for (at, item) in items.enumerate() {
        if at > 0 {
            text.push(',');
        }
        write(text, item);
    }
    text.push(']');
}

/// A text with its quotes. One with nothing to escape, as most are, is found out sixteen bytes at a time.
fn write_text(text: &mut String, said: &str) {
    let is_escaped = |byte: &u8| (*byte < b' ') | (*byte == b'"') | (*byte == b'\\');
    if said.as_bytes().iter().fold(false, |any, byte| any | is_escaped(byte)) {
        text.push_str(&Value::from(said).to_string());
        return;
    }
    text.push('"');
    text.push_str(said);
    text.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::genai::{input_messages, output_messages};
    use crate::message::{FinishReason, Media, MediaSource, Role, ToolCall, ToolResult};

    fn part() -> impl Strategy<Value = Part> {
        prop_oneof![
            "\\PC{0,12}".prop_map(Part::Text),
            "[a-z\"\\\\\n\u{1}é]{0,12}".prop_map(Part::Reasoning),
            "\\PC{0,12}".prop_map(Part::Refusal),
            "[{}a-z\":]{0,9}".prop_map(|arguments| {
                Part::ToolCall(ToolCall { id: "c".to_owned(), name: "f".to_owned(), arguments })
            }),
            any::<i64>().prop_map(|number| {
                Part::ToolResult(ToolResult { id: None, result: json!({ "b": number, "a": 1.5 }) })
            }),
            any::<bool>().prop_map(|is_known| {
                let mime_type = is_known.then(|| "image/png".to_owned());
                let source = MediaSource::Base64("iVBO".to_owned());
                Part::Media(Media { modality: "image".to_owned(), mime_type, source })
            }),
            Just(Part::Other(json!({ "type": "odd", "in": [null, true] }))),
            Just(Part::Other(json!({ "type": "thinking", "thinking": "hm", "signature": "s" }))),
        ]
    }

    fn message() -> impl Strategy<Value = Message> {
        let role =
            prop_oneof![Just(Role::User), Just(Role::Tool), Just(Role::Other("x\"".to_owned()))];
        let name = prop::option::of("\\PC{0,5}");
        (role, prop::collection::vec(part(), 0..4), name).prop_map(|(role, parts, name)| Message {
            role,
            parts,
            name,
        })
    }

    proptest! {
        #[test]
        fn what_is_written_at_once_is_what_the_values_say(messages in prop::collection::vec(message(), 0..4)) {
            prop_assert_eq!(input_messages_text(&messages), input_messages(&messages).to_string());
            let reasons = [FinishReason::Stop, FinishReason::from_text("odd")];
            let choices = messages.into_iter().zip(reasons.into_iter().cycle());
            let choices = choices.map(|(message, finish_reason)| Choice { message, finish_reason });
            let choices: Vec<Choice> = choices.collect();
            prop_assert_eq!(output_messages_text(&choices), output_messages(&choices).to_string());
        }
    }
}
