//! Messages written as text at once: what their values would be as text, without the values, which cost
//! several times the writing.

use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};

use super::{is_repeated, part_to_json};
use crate::chat::Choice;
use crate::message::{Message, Part};

/// Bytes of a message beside what its parts say, about.
const FRAME_BYTES: usize = 96;

/// The text of [`input_messages`](super::input_messages).
pub fn input_messages_text(messages: &[Message]) -> String {
    let written = messages.iter().map(|message| Written { message, finish_reason: None });
    text_of(messages.iter(), written)
}

/// The text of [`output_messages`](super::output_messages).
pub fn output_messages_text(choices: &[Choice]) -> String {
    let written = choices.iter().map(|choice| Written {
        message: &choice.message,
        finish_reason: Some(choice.finish_reason.as_str()),
    });
    text_of(choices.iter().map(|choice| &choice.message), written)
}

fn text_of<'m>(
    messages: impl Iterator<Item = &'m Message>,
    written: impl Iterator<Item = Written<'m>>,
) -> String {
    let said = |part: &Part| match part {
        Part::Text(text) | Part::Reasoning(text) | Part::Refusal(text) => text.len(),
        _ => 0,
    };
    let bytes = messages.map(|one| FRAME_BYTES + one.parts.iter().map(said).sum::<usize>()).sum();
    let mut text = Vec::with_capacity(bytes);
    // A vector takes everything, and nothing in a message refuses to be written.
    let _ = serde_json::Serializer::new(&mut text).collect_seq(written);
    String::from_utf8(text).unwrap_or_default()
}

/// A message; names in the order in which values have them.
struct Written<'m> {
    message: &'m Message,
    finish_reason: Option<&'m str>,
}

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_map(None)?;
        if let Some(reason) = self.finish_reason {
            fields.serialize_entry("finish_reason", reason)?;
        }
        if let Some(name) = &self.message.name {
            fields.serialize_entry("name", name)?;
        }
        fields.serialize_entry("parts", &WrittenParts(&self.message.parts))?;
        fields.serialize_entry("role", self.message.role.as_str())?;
        fields.end()
    }
}

struct WrittenParts<'m>(&'m [Part]);

impl Serialize for WrittenParts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let parts = self.0.iter().filter(|part| !is_repeated(part));
        serializer.collect_seq(parts.map(WrittenPart))
    }
}

struct WrittenPart<'m>(&'m Part);

impl Serialize for WrittenPart<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (content, kind) = match self.0 {
            Part::Text(content) => (content, "text"),
            Part::Reasoning(content) => (content, "reasoning"),
            Part::Refusal(content) => (content, "refusal"),
            other => return part_to_json(other).serialize(serializer),
        };
        let mut fields = serializer.serialize_map(Some(2))?;
        fields.serialize_entry("content", content)?;
        fields.serialize_entry("type", kind)?;
        fields.end()
    }
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
