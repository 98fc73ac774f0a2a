//! Messages in Anthropic's form: blocks of content, results of tools among the user's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::assemble::{Order, Rank};
use crate::kept::{Kept, is_foreign_thought, is_made_of, kind_of};
use crate::message::{Media, MediaSource, Message, Part, Role, ToolCall, ToolResult};
use crate::openai::{data_url, flat_text};
use crate::tool_content::{parts_of_result, shown_parts};

/// Kinds of blocks that tell what the model thought.
const THOUGHTS: [&str; 2] = ["thinking", "redacted_thinking"];

/// Which side writes a message: what the model thought goes back to it only with its signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Provider,
}

/// A message of a request; `at` is its number.
pub(super) fn message_of(wire: Value, at: usize, kept: &mut Kept) -> Message {
    let Value::Object(mut wire) = wire else {
        return Message { role: Role::User, parts: vec![Part::Other(wire)], name: None };
    };
    let role = wire.get("role").and_then(Value::as_str).map_or(Role::User, Role::from_text);
    let content = wire.remove("content").unwrap_or_default();
    let parts = parts_of(content, &format!("/messages/{at}/content"), kept);
    let is_result = |part: &Part| matches!(part, Part::ToolResult(_));
    let is_tool = role == Role::User && !parts.is_empty() && parts.iter().all(is_result);
    Message { role: if is_tool { Role::Tool } else { role }, parts, name: None }
}

/// The parts of a `content` or `system` field at a JSON pointer: nothing, text, or a list.
pub(super) fn parts_of(content: Value, at: &str, kept: &mut Kept) -> Vec<Part> {
    match content {
        Value::Null => Vec::new(),
        Value::String(text) if text.is_empty() => Vec::new(),
        Value::String(text) => vec![Part::Text(text)],
        Value::Array(blocks) => {
            let mut parts = Vec::with_capacity(blocks.len());
            for (number, block) in blocks.into_iter().enumerate() {
                parts_of_block(block, || format!("{at}/{number}"), kept, &mut parts);
            }
            parts
        }
        other => vec![Part::Other(other)],
    }
}

fn parts_of_block(
    mut block: Value,
    at: impl FnOnce() -> String,
    kept: &mut Kept,
    parts: &mut Vec<Part>,
) {
    let text = |key: &str| block.get(key).and_then(Value::as_str).map(str::to_owned);
    let known: Option<(Part, &[&str])> = match kind_of(&block) {
        Some("text") => text("text").map(|text| (Part::Text(text), ["text"].as_slice())),
        Some("thinking") => {
            parts.extend(text("thinking").filter(|text| !text.is_empty()).map(Part::Reasoning));
            if is_unsigned(&block) {
                return;
            }
            None
        }
        Some(kind @ ("image" | "document")) => {
            media_of(kind, &block["source"]).map(|part| (part, ["source"].as_slice()))
        }
        Some("tool_use") => {
            let arguments = block.get("input").map(Value::to_string).unwrap_or_default();
            let (id, name) = (text("id").unwrap_or_default(), text("name").unwrap_or_default());
            Some((
                Part::ToolCall(ToolCall { id, name, arguments }),
                ["id", "name", "input"].as_slice(),
            ))
        }
        Some("tool_result") => {
            let id = text("tool_use_id");
            let keys = ["tool_use_id", "content"].as_slice();
            kept.keep(at, &block, keys);
            let content = block.get_mut("content").map(Value::take).unwrap_or_default();
            parts.push(Part::ToolResult(ToolResult { id, result: flat_text(content) }));
            return;
        }
        _ => None,
    };
    match known {
        Some((part, keys)) => {
            kept.keep(at, &block, keys);
            parts.push(part);
        }
        None => parts.push(Part::Other(block)),
    }
}

/// Takes note of a block of an answer: where it comes, and whether it says more than is kept of it.
pub(super) fn note_block(order: &mut Order, block: &Value) {
    let (rank, known): (Rank, &[&str]) = match kind_of(block) {
        Some("thinking") => (Rank::Thought, &["thinking", "signature"]),
        Some("text") => (Rank::Text, &["text"]),
        Some("tool_use") => (Rank::Call, &["id", "name", "input"]),
        // Kept whole.
        _ => return order.came(Rank::Kept),
    };
    order.came(rank);
    let fields = block.as_object().into_iter().flatten();
    let is_more = |(key, value): (&String, &Value)| {
        key != "type" && !known.contains(&key.as_str()) && !value.is_null()
    };
    if fields.into_iter().any(is_more) {
        order.lost();
    }
}

/// Whether a block is a thought without a signature, which the provider would not take back.
pub(super) fn is_unsigned(block: &Value) -> bool {
    let has_signature = block["signature"].as_str().is_some_and(|text| !text.is_empty());
    kind_of(block) == Some("thinking") && !has_signature
}

fn media_of(modality: &str, source: &Value) -> Option<Part> {
    let text = |key: &str| source.get(key).and_then(Value::as_str).map(str::to_owned);
    let place = match kind_of(source)? {
        "base64" => MediaSource::Base64(text("data")?),
        "url" => MediaSource::Uri(text("url")?),
        "file" => MediaSource::FileId(text("file_id")?),
        _ => return None,
    };
    let media =
        Media { modality: modality.to_owned(), mime_type: text("media_type"), source: place };
    Some(Part::Media(media))
}

/// An image, a document or a source to quote from, as other forms have it: where it lies, or its text.
pub(crate) fn source_part(kind: &str, block: &Value) -> Option<Part> {
    media_of(kind, &block["source"]).or_else(|| source_text(kind, block).map(Part::Text))
}

/// The text of a document that is no file, or of a source to quote from.
fn source_text(kind: &str, block: &Value) -> Option<String> {
    let content = match (kind, kind_of(&block["source"])) {
        ("document", Some("text")) => block["source"]["data"].clone(),
        ("document", Some("content")) => flat_text(block["source"]["content"].clone()),
        ("search_result", _) => flat_text(block["content"].clone()),
        _ => return None,
    };
    let heads = ["title", "source", "context"].map(|key| block[key].as_str());
    let texts = heads.into_iter().chain([Some(content.as_str()?)]).flatten();
    Some(texts.filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n"))
}

/// The blocks of a message.
pub(super) fn blocks_of(message: &Message, side: Side) -> Vec<Value> {
    let is_signed = message.parts.iter().any(
        |part| matches!(part, Part::Other(other) if kind_of(other).is_some_and(|k| THOUGHTS.contains(&k))),
    );
    let block = |part: &Part| match part {
        Part::Text(text) | Part::Refusal(text) if text.is_empty() => None,
        Part::Text(text) | Part::Refusal(text) => Some(json!({ "type": "text", "text": text })),
        Part::Reasoning(text) => (side == Side::Provider && !is_signed)
            .then(|| json!({ "type": "thinking", "thinking": text, "signature": "" })),
        Part::ToolCall(call) => Some(json!({
            "type": "tool_use",
            "id": call.id,
            "name": call.name,
            "input": input_of(call),
        })),
        Part::ToolResult(result) => Some(json!({
            "type": "tool_result",
            "tool_use_id": result.id.as_deref().unwrap_or_default(),
            "content": result_content(&result.result),
        })),
        Part::Media(media) => Some(media_to_json(media)),
        Part::Other(other) => (!is_foreign_thought(other, &THOUGHTS)).then(|| other.clone()),
    };
    message.parts.iter().filter_map(block).collect()
}

/// The arguments of a call, which must be an object here. What a model wrote instead is told as it is.
fn input_of(call: &ToolCall) -> Value {
    match call.arguments_json() {
        Ok(Value::Object(input)) => Value::Object(input),
        _ => json!({ "INVALID_JSON": call.arguments }),
    }
}

/// What the content of a result may be made of. A tool's own list of things with a `type` is none.
const RESULT_BLOCKS: [&str; 4] = ["text", "image", "document", "search_result"];

/// Text, or blocks when the result is made of such; everything else as its JSON text.
fn result_content(result: &Value) -> Value {
    match result {
        Value::String(_) => result.clone(),
        Value::Array(items)
            if is_made_of(items, &RESULT_BLOCKS) && parts_of_result(result).is_some() =>
        {
            result.clone()
        }
        Value::Null => Value::from(""),
        other => match shown_parts(other) {
            Some(parts) => parts.iter().filter_map(result_block).collect(),
            None => Value::from(other.to_string()),
        },
    }
}

fn result_block(part: &Part) -> Option<Value> {
    match part {
        Part::Text(text) => Some(json!({ "type": "text", "text": text })),
        Part::Media(media) => Some(media_to_json(media)),
        _ => None,
    }
}

fn media_to_json(media: &Media) -> Value {
    let mime_type = media.mime_type.as_deref();
    if let (MediaSource::Base64(data), Some(text)) = (&media.source, mime_type)
        && text.starts_with("text/")
        && let Some(text) = decoded(data)
    {
        // A document in base64 is a PDF here; a text is told as one.
        let source = json!({ "type": "text", "media_type": "text/plain", "data": text });
        return json!({ "type": "document", "source": source });
    }
    let (source, mime_type) = match &media.source {
        MediaSource::Base64(data) => (json!({ "type": "base64", "data": data }), mime_type),
        MediaSource::FileId(id) => (json!({ "type": "file", "file_id": id }), mime_type),
        MediaSource::Uri(uri) => match data_url(uri) {
            Some((mime_type, data)) => {
                let source = json!({ "type": "base64", "media_type": mime_type, "data": data });
                return json!({ "type": block_kind(media), "source": source });
            }
            None => (json!({ "type": "url", "url": uri }), mime_type),
        },
    };
    let default = match (&media.source, media.modality.as_str()) {
        (MediaSource::Base64(_), "image") => Some("image/png"),
        (MediaSource::Base64(_), _) => Some("application/pdf"),
        _ => None,
    };
    let mut source = source;
    if let Some(mime_type) = mime_type.or(default) {
        source["media_type"] = Value::from(mime_type);
    }
    json!({ "type": block_kind(media), "source": source })
}

/// The text that base64 holds.
fn decoded(data: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(data).ok()?).ok()
}

/// Anthropic has blocks for images and documents; what is something else is left under its own name,
/// so that the provider says that it does not take it.
fn block_kind(media: &Media) -> &str {
    &media.modality
}

/// A list of one plain text block as that text: what most people write.
pub(super) fn collapsed(blocks: Value) -> Value {
    let Value::Array(mut items) = blocks else { return blocks };
    let is_plain = |block: &Value| {
        kind_of(block) == Some("text") && block.as_object().map(Map::len) == Some(2)
    };
    match items.as_mut_slice() {
        [only] if is_plain(only) => only["text"].take(),
        _ => Value::from(items),
    }
}
