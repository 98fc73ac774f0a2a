//! The items of a conversation: messages, calls of functions, outputs, what the model thought.

use serde_json::{Map, Value, json};

use crate::assemble::{Order, Rank};
use crate::kept::{is_foreign_thought, is_made_of, kind_of};
use crate::message::{Media, MediaSource, Message, Part, Role, ToolCall, ToolResult};
use crate::openai::{data_url, file_name, file_of, flat_text, part_of};
use crate::tool_content::{parts_of_result, shown_parts};

/// Which side writes items: providers also tell what the model thought when it is not kept whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Provider,
}

/// The messages that a list of items is. What the model said, thought and asked for in a row is one
/// message; another text of it begins the next.
pub(super) fn messages_of(items: Vec<Value>) -> Vec<Message> {
    let mut messages: Vec<Message> = Vec::new();
    for item in items {
        let (role, parts) = read_item(item);
        let has_said = |m: &Message| {
            m.parts
                .iter()
                .any(|p| matches!(p, Part::Text(_) | Part::Refusal(_) | Part::ToolCall(_)))
        };
        let is_text = parts.iter().any(|p| matches!(p, Part::Text(_) | Part::Refusal(_)));
        match messages.last_mut() {
            Some(last)
                if role == Role::Assistant
                    && last.role == Role::Assistant
                    && !(is_text && has_said(last)) =>
            {
                last.parts.extend(parts);
            }
            _ => messages.push(Message { role, parts, name: None }),
        }
    }
    messages
}

/// Who an item comes from, and its parts.
pub(super) fn read_item(mut item: Value) -> (Role, Vec<Part>) {
    let text = |key: &str| item.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    match kind_of(&item) {
        Some("function_call") => {
            let call = ToolCall {
                id: text("call_id"),
                name: text("name"),
                arguments: match item.get("arguments") {
                    Some(Value::String(text)) => text.clone(),
                    None | Some(Value::Null) => String::new(),
                    Some(json) => json.to_string(),
                },
            };
            (Role::Assistant, vec![Part::ToolCall(call)])
        }
        Some("function_call_output") => {
            let id = Some(text("call_id"));
            let output = item.get_mut("output").map(Value::take).unwrap_or_default();
            (Role::Tool, vec![Part::ToolResult(ToolResult { id, result: flat_text(output) })])
        }
        Some("reasoning") => {
            let mut parts: Vec<Part> = Vec::new();
            let thought = thought_of(&item);
            parts.extend((!thought.is_empty()).then_some(Part::Reasoning(thought)));
            parts.push(Part::Other(item));
            (Role::Assistant, parts)
        }
        Some("message") | None if item.get("role").is_some() => {
            let role = Role::from_text(&text("role"));
            let content = item.get_mut("content").map(Value::take).unwrap_or_default();
            let parts = match content {
                Value::Null => Vec::new(),
                Value::String(text) => vec![Part::Text(text)],
                Value::Array(parts) => parts.into_iter().map(content_part).collect(),
                other => vec![Part::Other(other)],
            };
            (role, parts)
        }
        Some(kind) if kind.ends_with("_output") => (Role::Tool, vec![Part::Other(item)]),
        _ => (Role::Assistant, vec![Part::Other(item)]),
    }
}

/// Takes note of an item of an answer: where it comes, and whether it says more than is kept of it.
pub(super) fn note_item(order: &mut Order, item: &Value) {
    match kind_of(item) {
        Some("reasoning") => order.came(Rank::Thought),
        Some("message") => {
            for part in item["content"].as_array().into_iter().flatten() {
                let is_refusal = kind_of(part) == Some("refusal");
                order.came(if is_refusal { Rank::Refusal } else { Rank::Text });
                let is_said = |key: &str| part[key].as_array().is_some_and(|all| !all.is_empty());
                if is_said("annotations") || is_said("logprobs") {
                    order.lost();
                }
            }
        }
        Some("function_call") => order.came(Rank::Call),
        // Kept whole.
        _ => order.came(Rank::Kept),
    }
}

/// The readable text of a reasoning item: its own words, or else the summary.
fn thought_of(item: &Value) -> String {
    let texts = |key: &str| -> Vec<&str> {
        let parts = item.get(key).and_then(Value::as_array);
        parts.into_iter().flatten().filter_map(|p| p.get("text").and_then(Value::as_str)).collect()
    };
    let own = texts("content");
    if own.is_empty() { texts("summary").join("\n") } else { own.join("\n") }
}

/// One part of a message's content; what is not known is kept whole.
pub(crate) fn content_part(part: Value) -> Part {
    let text = |key: &str| part.get(key).and_then(Value::as_str).map(str::to_owned);
    let media = |modality: &str, mime_type: Option<String>, source: MediaSource| {
        Part::Media(Media { modality: modality.to_owned(), mime_type, source })
    };
    let placed = |modality: &str, url: String| match data_url(&url) {
        Some((mime_type, data)) => media(modality, Some(mime_type), MediaSource::Base64(data)),
        None => media(modality, None, MediaSource::Uri(url)),
    };
    let file =
        |modality: &str| text("file_id").map(|id| media(modality, None, MediaSource::FileId(id)));
    let known = match kind_of(&part) {
        Some("input_image") => {
            text("image_url").map(|url| placed("image", url)).or_else(|| file("image"))
        }
        Some("input_file") => {
            let url = || text("file_url").map(|url| placed("document", url));
            text("file_data").map(file_of).or_else(url).or_else(|| file("document"))
        }
        _ => None,
    };
    known.unwrap_or_else(|| part_of(part))
}

/// The items of a message.
pub(super) fn items_of(message: &Message, side: Side) -> Vec<Value> {
    let mut items: Vec<Value> = Vec::new();
    let mut content: Vec<Value> = Vec::new();
    let is_answer = message.role == Role::Assistant;
    let has_item = message
        .parts
        .iter()
        .any(|part| matches!(part, Part::Other(other) if kind_of(other) == Some("reasoning")));
    let flush = |content: &mut Vec<Value>, items: &mut Vec<Value>| {
        if !content.is_empty() {
            items.push(message_item(message, std::mem::take(content), side));
        }
    };
    for part in &message.parts {
        let item = match part {
            Part::Text(text) => {
                content.push(text_part(text, is_answer));
                continue;
            }
            Part::Refusal(text) => {
                content.push(json!({ "type": "refusal", "refusal": text }));
                continue;
            }
            Part::Media(media) => {
                content.push(media_to_json(media));
                continue;
            }
            Part::Other(other) if is_foreign_thought(other, &["reasoning"]) => continue,
            Part::Other(other) if !is_answer && message.role != Role::Tool => {
                content.push(other.clone());
                continue;
            }
            Part::Other(other) => other.clone(),
            Part::Reasoning(text) if side == Side::Provider && !has_item => json!({
                "type": "reasoning",
                "summary": [{ "type": "summary_text", "text": text }],
            }),
            Part::Reasoning(_) => continue,
            Part::ToolCall(call) => json!({
                "type": "function_call",
                "call_id": call.id,
                "name": call.name,
                "arguments": call.arguments,
            }),
            Part::ToolResult(result) => json!({
                "type": "function_call_output",
                "call_id": result.id.as_deref().unwrap_or_default(),
                "output": output_to_json(&result.result),
            }),
        };
        flush(&mut content, &mut items);
        items.push(item);
    }
    flush(&mut content, &mut items);
    items
}

/// What an output may be made of. A tool's own list of things with a `type` is none.
const OUTPUT_PARTS: [&str; 3] = ["input_text", "input_image", "input_file"];

/// Text, or parts when the result is made of such; everything else as its JSON text.
fn output_to_json(result: &Value) -> Value {
    match result {
        Value::String(_) => result.clone(),
        Value::Array(parts)
            if is_made_of(parts, &OUTPUT_PARTS) && parts_of_result(result).is_some() =>
        {
            result.clone()
        }
        other => match shown_parts(other) {
            Some(parts) => parts.iter().filter_map(output_part).collect(),
            None => Value::from(other.to_string()),
        },
    }
}

fn output_part(part: &Part) -> Option<Value> {
    match part {
        Part::Text(text) => Some(text_part(text, false)),
        Part::Media(media) => Some(media_to_json(media)),
        _ => None,
    }
}

fn text_part(text: &str, is_answer: bool) -> Value {
    if is_answer {
        json!({ "type": "output_text", "text": text, "annotations": [] })
    } else {
        json!({ "type": "input_text", "text": text })
    }
}

fn message_item(message: &Message, mut content: Vec<Value>, side: Side) -> Value {
    let role = match &message.role {
        // A tool answers by outputs; what else it says comes from the user's side.
        Role::Tool | Role::Other(_) => "user",
        role => role.as_str(),
    };
    let mut item = Map::new();
    item.insert("type".to_owned(), Value::from("message"));
    item.insert("role".to_owned(), Value::from(role));
    let is_input_text = |part: &Value| kind_of(part) == Some("input_text");
    let content = match content.as_mut_slice() {
        [only] if side == Side::Client && is_input_text(only) => only["text"].take(),
        _ => Value::from(content),
    };
    item.insert("content".to_owned(), content);
    if side == Side::Provider {
        item.insert("status".to_owned(), Value::from("completed"));
    }
    Value::Object(item)
}

fn media_to_json(media: &Media) -> Value {
    let mime_type = media.mime_type.as_deref();
    let url = |default: &str| match &media.source {
        MediaSource::Base64(data) => format!("data:{};base64,{data}", mime_type.unwrap_or(default)),
        MediaSource::Uri(text) | MediaSource::FileId(text) => text.clone(),
    };
    match (media.modality.as_str(), &media.source) {
        ("image", MediaSource::FileId(id)) => json!({ "type": "input_image", "file_id": id }),
        ("image", _) => json!({ "type": "input_image", "image_url": url("image/png") }),
        ("audio", MediaSource::Base64(data)) => {
            let format = mime_type.and_then(|mime| mime.strip_prefix("audio/")).unwrap_or("wav");
            json!({ "type": "input_audio", "input_audio": { "data": data, "format": format } })
        }
        (_, MediaSource::FileId(id)) => json!({ "type": "input_file", "file_id": id }),
        (_, MediaSource::Uri(uri)) => json!({ "type": "input_file", "file_url": uri }),
        _ => json!({
            "type": "input_file",
            "filename": file_name(mime_type),
            "file_data": url("application/pdf"),
        }),
    }
}
