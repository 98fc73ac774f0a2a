//! How long content may be: a prompt with images in it would make a span that no collector takes, and
//! with it lose the hundreds of others that are sent together.
//!
//! What is too long is cut so that it stays what it is, JSON of whole messages: media become their
//! size and hash, long parts are shortened, then the oldest messages are left out. That it was cut,
//! from how many bytes, and the hash of the original stand beside it and in each part.

use opentelemetry::KeyValue;
use ring::digest;
use serde_json::{Map, Value};
use throughline_trace::keys;

/// Bytes of one attribute with content at most (prompt, answer or tool definitions, as JSON), when
/// nobody says otherwise ([`max_content_bytes`](crate::TelemetryBuilder::max_content_bytes)).
pub const CONTENT_MAX_BYTES: usize = 256 * 1024;

/// Media longer than this are not kept when the whole is too long, bytes of base64.
const KEPT_MEDIA_BYTES: usize = 1_024;

/// The share of the whole that one part may have when the whole is too long: an eighth.
const PARTS_OF_WHOLE: usize = 8;

/// A part of so many bytes is never shortened: to say so takes nearly as many.
const SHORT_PART_BYTES: usize = 256;

/// The share of the whole that the instructions at the beginning may have: a quarter.
const INSTRUCTIONS_OF_WHOLE: usize = 4;

/// What content it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Input,
    Output,
    ToolDefinitions,
}

impl Kind {
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Input => keys::GEN_AI_INPUT_MESSAGES,
            Self::Output => keys::GEN_AI_OUTPUT_MESSAGES,
            Self::ToolDefinitions => keys::GEN_AI_TOOL_DEFINITIONS,
        }
    }

    /// The keys that tell what was cut: bytes, hash, and how much was left out.
    fn cut_keys(self) -> [&'static str; 3] {
        match self {
            Self::Input => [
                keys::CONTENT_INPUT_BYTES,
                keys::CONTENT_INPUT_SHA256,
                keys::CONTENT_INPUT_LEFT_OUT,
            ],
            Self::Output => [
                keys::CONTENT_OUTPUT_BYTES,
                keys::CONTENT_OUTPUT_SHA256,
                keys::CONTENT_OUTPUT_LEFT_OUT,
            ],
            Self::ToolDefinitions => [
                keys::CONTENT_TOOLS_BYTES,
                keys::CONTENT_TOOLS_SHA256,
                keys::CONTENT_TOOLS_LEFT_OUT,
            ],
        }
    }
}

/// Content as it may be recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// The attribute that it is.
    pub key: &'static str,
    /// Its value.
    pub value: Value,
    /// The value as text.
    text: String,
    /// What was cut, if anything was.
    pub cut: Vec<KeyValue>,
}

impl Kept {
    pub(super) fn within(max_bytes: usize, kind: Kind, mut value: Value) -> Self {
        let mut text = value.to_string();
        let mut cut = Vec::new();
        if text.len() > max_bytes {
            let [bytes, hash, left_out] = kind.cut_keys();
            cut.push(KeyValue::new(bytes, int(text.len())));
            cut.push(KeyValue::new(hash, sha256(&text)));
            let items = match value {
                Value::Array(items) => items,
                other => vec![other],
            };
            let before = items.len();
            let kept = match kind {
                Kind::Input | Kind::Output => messages_within(max_bytes, items),
                Kind::ToolDefinitions => definitions_within(max_bytes, items),
            };
            cut.push(KeyValue::new(left_out, int(before - kept.len())));
            value = Value::Array(kept);
            text = value.to_string();
        }
        Self { key: kind.key(), value, text, cut }
    }

    /// The attributes of a span that tell it.
    pub fn into_attributes(self) -> Vec<KeyValue> {
        let mut attributes = vec![KeyValue::new(self.key, self.text)];
        attributes.extend(self.cut);
        attributes
    }
}

/// The newest messages, and the instructions that they begin with, in at most so many bytes.
fn messages_within(max_bytes: usize, mut messages: Vec<Value>) -> Vec<Value> {
    for part in messages.iter_mut().flat_map(parts_of) {
        drop_media(part);
    }
    if length(&messages) <= max_bytes {
        return messages;
    }
    for part in messages.iter_mut().flat_map(parts_of) {
        shorten(part, long_part(max_bytes));
    }
    // The brackets; and each item has a comma.
    let mut left = max_bytes.saturating_sub(2);
    let is_instructions = messages.first().is_some_and(|first| first["role"] == "system");
    let mut instructions = None;
    if is_instructions && messages.len() > 1 {
        let bytes = length(&messages[0]) + 1;
        if bytes <= max_bytes / INSTRUCTIONS_OF_WHOLE {
            left = left.saturating_sub(bytes);
            instructions = Some(messages.remove(0));
        }
    }
    let mut kept = Vec::new();
    while let Some(mut message) = messages.pop() {
        let mut bytes = length(&message) + 1;
        if bytes > left && kept.is_empty() {
            newest_parts(&mut message, left);
            bytes = length(&message) + 1;
        }
        if bytes > left {
            break;
        }
        left -= bytes;
        kept.push(message);
    }
    kept.extend(instructions);
    kept.reverse();
    kept
}

/// The first definitions, in at most so many bytes; the schema of a very long one is left out.
fn definitions_within(max_bytes: usize, definitions: Vec<Value>) -> Vec<Value> {
    let mut left = max_bytes.saturating_sub(2);
    let mut kept = Vec::new();
    for mut definition in definitions {
        if length(&definition) > long_part(max_bytes)
            && let Some(fields) = definition.as_object_mut()
        {
            take_out(fields, "parameters");
        }
        let bytes = length(&definition) + 1;
        if bytes > left {
            break;
        }
        left -= bytes;
        kept.push(definition);
    }
    kept
}

/// What a part may have of so many bytes.
fn long_part(max_bytes: usize) -> usize {
    (max_bytes / PARTS_OF_WHOLE).max(SHORT_PART_BYTES)
}

fn parts_of(message: &mut Value) -> std::slice::IterMut<'_, Value> {
    match message.get_mut("parts") {
        Some(Value::Array(parts)) => parts.iter_mut(),
        _ => Default::default(),
    }
}

/// Media in the message itself become their size and hash.
fn drop_media(part: &mut Value) {
    let is_long = part["type"] == "blob"
        && part["content"].as_str().is_some_and(|base64| base64.len() > KEPT_MEDIA_BYTES);
    if is_long && let Some(fields) = part.as_object_mut() {
        take_out(fields, "content");
    }
}

/// Shortens a part that is longer than so many bytes: what it says to its beginning, a kind that we
/// do not know to its name.
fn shorten(part: &mut Value, max_bytes: usize) {
    if length(part) <= max_bytes {
        return;
    }
    let Some(fields) = part.as_object_mut() else { return };
    let said = ["content", "arguments", "response"];
    let Some(said) = said.into_iter().find(|key| fields.contains_key(*key)) else {
        let whole = Value::Object(std::mem::take(fields));
        if let Some(kind) = whole.get("type").filter(|kind| kind.is_string()) {
            fields.insert("type".to_owned(), kind.clone());
        }
        mark(fields, &whole);
        return;
    };
    let whole = fields.remove(said).unwrap_or_default();
    let mut text = match &whole {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    text.truncate(text.floor_char_boundary(max_bytes));
    mark(fields, &whole);
    fields.insert(said.to_owned(), Value::from(text));
}

/// The newest parts of a message, in at most so many bytes.
fn newest_parts(message: &mut Value, max_bytes: usize) {
    let Some(Value::Array(parts)) = message.get_mut("parts") else { return };
    let before = parts.len();
    let mut parts = std::mem::take(parts);
    message[keys::CONTENT_PARTS_LEFT_OUT] = Value::from(before);
    let mut left = max_bytes.saturating_sub(length(&message) + 1);
    let mut kept = Vec::new();
    while let Some(part) = parts.pop() {
        let bytes = length(&part) + 1;
        if bytes > left {
            break;
        }
        left -= bytes;
        kept.push(part);
    }
    kept.reverse();
    message[keys::CONTENT_PARTS_LEFT_OUT] = Value::from(before - kept.len());
    message["parts"] = Value::Array(kept);
}

fn take_out(fields: &mut Map<String, Value>, key: &str) {
    if let Some(whole) = fields.remove(key) {
        mark(fields, &whole);
    }
}

/// Says how long what was taken out is, and its hash: of a text the text itself, of others their
/// JSON.
fn mark(fields: &mut Map<String, Value>, whole: &Value) {
    let json;
    let text = match whole {
        Value::String(text) => text.as_str(),
        other => {
            json = other.to_string();
            &json
        }
    };
    fields.insert(keys::CONTENT_BYTES.to_owned(), Value::from(text.len()));
    fields.insert(keys::CONTENT_SHA256.to_owned(), Value::from(sha256(text)));
}

/// Bytes of a value as JSON.
fn length(value: &impl serde::Serialize) -> usize {
    struct Bytes(usize);
    impl std::io::Write for Bytes {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut bytes = Bytes(0);
    // JSON can always be written to what takes everything.
    let _ = serde_json::to_writer(&mut bytes, value);
    bytes.0
}

fn sha256(text: &str) -> String {
    use std::fmt::Write as _;
    let mut hex = String::with_capacity(64);
    for byte in digest::digest(&digest::SHA256, text.as_bytes()).as_ref() {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

fn int(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn text(role: &str, content: &str) -> Value {
        json!({"role": role, "parts": [{"type": "text", "content": content}]})
    }

    /// The content with each hash and long text as a word.
    fn shown(max_bytes: usize, kind: Kind, value: Value) -> String {
        let kept = Kept::within(max_bytes, kind, value);
        assert!(kept.text.len() <= max_bytes, "{}", kept.text.len());
        assert_eq!(serde_json::from_str::<Value>(&kept.text).expect("JSON"), kept.value);
        let mut text = kept.text.clone();
        for letter in ["A", "b", "c"] {
            while text.contains(&letter.repeat(9)) {
                text = text.replace(&letter.repeat(9), &letter.repeat(8));
            }
        }
        let mut lines = vec![text];
        lines.extend(kept.cut.iter().map(|entry| format!("{}={}", entry.key, entry.value)));
        lines.join("\n")
    }

    #[test]
    fn r3_1_content_within_its_limit_is_as_it_was() {
        let value = json!([text("user", "hi")]);
        let kept = Kept::within(200, Kind::Input, value.clone());
        assert_eq!((kept.value.clone(), kept.cut.len()), (value.clone(), 0));
        assert_eq!(kept.into_attributes()[0].value.to_string(), value.to_string());
    }

    #[test]
    fn r3_1_an_image_that_is_too_long_becomes_its_size_and_hash() {
        let image = json!({"type": "blob", "modality": "image", "mime_type": "image/png", "content": "A".repeat(5_000_000)});
        let value =
            json!([{"role": "user", "parts": [{"type": "text", "content": "what is it?"}, image]}]);
        insta::assert_snapshot!(shown(CONTENT_MAX_BYTES, Kind::Input, value), @r#"
        [{"parts":[{"content":"what is it?","type":"text"},{"mime_type":"image/png","modality":"image","throughline.content.bytes":5000000,"throughline.content.sha256":"17489c179266203146568d71e1869805e11a78230f12b589f4624e4a5c67a385","type":"blob"}],"role":"user"}]
        throughline.content.input.bytes=5000139
        throughline.content.input.sha256=0afb58ddfc319e6986041c68b26693f512fbfe60f074b0bbaf74fce350d7ac74
        throughline.content.input.left_out=0
        "#);
    }

    #[test]
    fn r3_1_the_newest_messages_and_the_instructions_are_kept() {
        let mut value: Vec<Value> = (0..100).map(|at| text("user", &format!("{at}"))).collect();
        value.insert(0, text("system", "be brief"));
        insta::assert_snapshot!(shown(300, Kind::Input, Value::from(value)), @r#"
        [{"parts":[{"content":"be brief","type":"text"}],"role":"system"},{"parts":[{"content":"96","type":"text"}],"role":"user"},{"parts":[{"content":"97","type":"text"}],"role":"user"},{"parts":[{"content":"98","type":"text"}],"role":"user"},{"parts":[{"content":"99","type":"text"}],"role":"user"}]
        throughline.content.input.bytes=5756
        throughline.content.input.sha256=76bbb7abc27a01dab91e48a602596245bff08b1249c8b70d1860b1a893ec3b71
        throughline.content.input.left_out=96
        "#);
    }

    #[test]
    fn r3_1_a_long_text_and_a_long_result_keep_their_beginning() {
        let result = json!({"type": "tool_call_response", "id": "c", "response": {"rows": "c".repeat(9_000)}});
        let value = json!([
            text("user", &"b".repeat(9_000)),
            {"role": "tool", "parts": [result]},
            {"role": "user", "parts": [{"type": "odd", "says": "b".repeat(9_000)}]},
        ]);
        insta::assert_snapshot!(shown(2_400, Kind::Input, value), @r#"
        [{"parts":[{"content":"bbbbbbbb","throughline.content.bytes":9000,"throughline.content.sha256":"e806dc11f46b8ae662da9e72d8be87f949d730a5028aca2746f07b1e4bff9444","type":"text"}],"role":"user"},{"parts":[{"id":"c","response":"{\"rows\":\"cccccccc","throughline.content.bytes":9011,"throughline.content.sha256":"066644b4111f8a4ef34e0538a88ccffdd099ecd8224d9c3d501cdb8f1f63cca9","type":"tool_call_response"}],"role":"tool"},{"parts":[{"throughline.content.bytes":9024,"throughline.content.sha256":"de7f4b8ceadc45553177ddd43a8ab2ebcb095dc352c5be105e4bf8d11b92a43f","type":"odd"}],"role":"user"}]
        throughline.content.input.bytes=27195
        throughline.content.input.sha256=d14ec2ac40960c7c7a4269853d62fd51d074c6cf0a05c6b194c5738f3dd02050
        throughline.content.input.left_out=0
        "#);
    }

    #[test]
    fn r3_1_a_message_of_many_parts_keeps_the_newest() {
        let parts: Vec<Value> =
            (0..50).map(|at| json!({"type": "text", "content": format!("{at}")})).collect();
        let value = json!([{"role": "assistant", "parts": parts, "finish_reason": "stop"}]);
        insta::assert_snapshot!(shown(220, Kind::Output, value), @r#"
        [{"finish_reason":"stop","parts":[{"content":"47","type":"text"},{"content":"48","type":"text"},{"content":"49","type":"text"}],"role":"assistant","throughline.content.parts_left_out":47}]
        throughline.content.output.bytes=1595
        throughline.content.output.sha256=9f38b51e61ff9976dd5b07f6799012ee5d94ba28a7100044e55d0f8e5159fb66
        throughline.content.output.left_out=0
        "#);
    }

    #[test]
    fn r3_1_the_first_definitions_are_kept() {
        let tool = |name: &str, parameters: Value| json!({"type": "function", "name": name, "description": "", "parameters": parameters});
        let mut value = vec![tool("long", json!({"enum": "b".repeat(900)}))];
        value.extend((0..50).map(|at| tool(&format!("t{at}"), json!({}))));
        insta::assert_snapshot!(shown(400, Kind::ToolDefinitions, Value::from(value)), @r#"
        [{"description":"","name":"long","throughline.content.bytes":911,"throughline.content.sha256":"cac10ecf587b075877c52d2ba5c25f00b31ec1f2785c29a57cc40a58b8d5aba6","type":"function"},{"description":"","name":"t0","parameters":{},"type":"function"},{"description":"","name":"t1","parameters":{},"type":"function"},{"description":"","name":"t2","parameters":{},"type":"function"}]
        throughline.content.tools.bytes=4267
        throughline.content.tools.sha256=04dfe83e693ffe9b8024469cfef199eec6c8fd56b1329645702c356528d5927a
        throughline.content.tools.left_out=47
        "#);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<i32>().prop_map(Value::from),
            "\\PC{0,40}".prop_map(Value::from),
            "[\u{0}-\u{1f}é\"]{0,200}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 40, 6, |inner| {
            let keys =
                prop::sample::select(vec!["type", "content", "parts", "arguments", "role", "x"]);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((keys, inner), 0..6)
                    .prop_map(|all| all.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn r3_1_whatever_it_is_it_fits_and_says_that_it_was_cut(
            items in prop::collection::vec(any_json(), 0..6),
            max_bytes in 2usize..600,
            kind in prop::sample::select(vec![Kind::Input, Kind::Output, Kind::ToolDefinitions]),
        ) {
            let value = Value::from(items);
            let kept = Kept::within(max_bytes, kind, value.clone());
            prop_assert!(kept.text.len() <= max_bytes, "{}", kept.text);
            prop_assert_eq!(&serde_json::from_str::<Value>(&kept.text).expect("JSON"), &kept.value);
            prop_assert_eq!(kept.value == value, kept.cut.is_empty());
        }
    }
}
