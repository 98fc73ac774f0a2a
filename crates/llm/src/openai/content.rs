//! Messages in OpenAI's form: content as text or as a list of parts, tool calls beside it.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::kept::is_foreign_thought;
use crate::message::{Media, MediaSource, Message, Part, Role, ToolCall, ToolResult};
use crate::tool_content::shown_parts;

/// A message as the wire has it; every field may be missing or null.
#[derive(Debug, Default, Deserialize)]
pub(super) struct WireMessage {
    #[serde(default)]
    role: Option<String>,
    #[serde(default)]
    content: Value,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
    /// DeepSeek, vLLM and others.
    #[serde(default)]
    reasoning_content: Option<String>,
    /// OpenRouter, Ollama; some send an object here, which is no text to show.
    #[serde(default)]
    reasoning: Value,
    #[serde(default)]
    tool_calls: Option<Vec<WireToolCall>>,
    #[serde(default)]
    tool_call_id: Option<String>,
}

#[derive(Debug, Deserialize)]
struct WireToolCall {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    function: Option<WireFunction>,
    /// A call of a tool that takes text.
    #[serde(default)]
    custom: Option<WireCustom>,
}

#[derive(Debug, Deserialize)]
struct WireCustom {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    input: Value,
}

#[derive(Debug, Default, Deserialize)]
struct WireFunction {
    #[serde(default)]
    name: Option<String>,
    /// Text that holds JSON; some servers send the JSON itself.
    #[serde(default)]
    arguments: Value,
}

impl From<WireMessage> for Message {
    fn from(wire: WireMessage) -> Self {
        let role = Role::from_text(wire.role.as_deref().unwrap_or("assistant"));
        let reasoning = wire.reasoning_content.as_deref().or(wire.reasoning.as_str());
        let mut parts: Vec<Part> = Vec::new();
        parts.extend(
            reasoning.filter(|text| !text.is_empty()).map(|text| Part::Reasoning(text.to_owned())),
        );
        if role == Role::Tool {
            let result = ToolResult { id: wire.tool_call_id, result: flat_text(wire.content) };
            parts.push(Part::ToolResult(result));
        } else {
            parts.extend(parts_of(wire.content));
        }
        parts.extend(wire.refusal.filter(|text| !text.is_empty()).map(Part::Refusal));
        parts.extend(wire.tool_calls.into_iter().flatten().map(|call| {
            let (name, arguments) = match (call.function, call.custom) {
                (None, Some(custom)) => (custom.name, custom.input),
                (function, _) => {
                    let function = function.unwrap_or_default();
                    (function.name, function.arguments)
                }
            };
            Part::ToolCall(ToolCall {
                id: call.id.unwrap_or_default(),
                name: name.unwrap_or_default(),
                arguments: arguments_of(arguments),
            })
        }));
        Self { role, parts, name: wire.name }
    }
}

/// The arguments of a call: text that holds JSON, or from some servers the JSON itself.
pub(super) fn arguments_of(wire: Value) -> String {
    match wire {
        Value::Null => String::new(),
        Value::String(text) => text,
        json => json.to_string(),
    }
}

/// A list that holds only texts as one text: what most tools answer.
pub(crate) fn flat_text(content: Value) -> Value {
    let Value::Array(items) = &content else { return content };
    let texts: Option<Vec<&str>> =
        items.iter().map(|item| item.get("text").and_then(Value::as_str)).collect();
    match texts {
        Some(texts) => Value::from(texts.join("\n")),
        None => content,
    }
}

/// The parts of a `content` field: nothing, text, or a list.
pub(super) fn parts_of(content: Value) -> Vec<Part> {
    match content {
        Value::Null => Vec::new(),
        Value::String(text) if text.is_empty() => Vec::new(),
        Value::String(text) => vec![Part::Text(text)],
        Value::Array(items) => items.into_iter().map(part_of).collect(),
        other => vec![Part::Other(other)],
    }
}

/// One element of a list of parts; what is not known is kept whole.
pub(crate) fn part_of(item: Value) -> Part {
    let text = |path: &str| item.pointer(path).and_then(Value::as_str).map(str::to_owned);
    let media = |modality: &str, mime_type: Option<String>, source: MediaSource| {
        Part::Media(Media { modality: modality.to_owned(), mime_type, source })
    };
    let known = match item.get("type").and_then(Value::as_str) {
        Some("text" | "input_text" | "output_text") => text("/text").map(Part::Text),
        Some("refusal") => text("/refusal").map(Part::Refusal),
        // Mistral's models that think aloud.
        Some("thinking") if item["thinking"].is_array() => flat_text(item["thinking"].clone())
            .as_str()
            .map(|text| Part::Reasoning(text.to_owned())),
        Some("image_url") => text("/image_url/url").map(|url| match data_url(&url) {
            Some((mime_type, data)) => media("image", Some(mime_type), MediaSource::Base64(data)),
            None => media("image", None, MediaSource::Uri(url)),
        }),
        Some("input_audio") => text("/input_audio/data").map(|data| {
            let mime_type = text("/input_audio/format").map(|format| format!("audio/{format}"));
            media("audio", mime_type, MediaSource::Base64(data))
        }),
        Some("file") => text("/file/file_data").map(file_of).or_else(|| {
            text("/file/file_id").map(|id| media("document", None, MediaSource::FileId(id)))
        }),
        _ => None,
    };
    known.unwrap_or(Part::Other(item))
}

/// Media type and base64 content of a `data:` address.
pub(crate) fn data_url(url: &str) -> Option<(String, String)> {
    let (mime_type, data) = url.strip_prefix("data:")?.split_once(";base64,")?;
    // What follows the type (`;charset=utf-8`) is no part of it.
    let mime_type = mime_type.split(';').next().unwrap_or(mime_type);
    Some((mime_type.to_owned(), data.to_owned()))
}

/// A file whose content came with it: a `data:` address, or its base64 alone.
pub(crate) fn file_of(data: String) -> Part {
    let (mime_type, data) = match data_url(&data) {
        Some((mime_type, data)) => (Some(mime_type), data),
        None => (None, data),
    };
    let kind = mime_type.as_deref().and_then(|mime_type| mime_type.split('/').next());
    let modality = match kind {
        Some(kind @ ("image" | "audio" | "video")) => kind.to_owned(),
        _ => "document".to_owned(),
    };
    Part::Media(Media { modality, mime_type, source: MediaSource::Base64(data) })
}

/// What a file that came without a name is called: OpenAI wants one.
pub(crate) fn file_name(mime_type: Option<&str>) -> &'static str {
    match mime_type {
        None | Some("application/pdf") => "document.pdf",
        Some("text/markdown") => "document.md",
        Some("text/csv") => "document.csv",
        Some("application/json") => "document.json",
        Some(_) => "document.txt",
    }
}

/// Which side writes a message: providers also tell what the model thought, clients never send it
/// back (providers refuse or ignore it).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Provider,
}

/// The wire messages of a conversation. A tool's message has only text here, and all that answer the
/// calls of one message follow it: what tools showed comes after them, from the user.
pub(super) fn messages_to_json(messages: &[Message]) -> Vec<Value> {
    let mut wire: Vec<Value> = Vec::new();
    let mut shown: Vec<Value> = Vec::new();
    let show = |shown: &mut Vec<Value>, wire: &mut Vec<Value>| {
        if !shown.is_empty() {
            wire.push(json!({ "role": "user", "content": std::mem::take(shown) }));
        }
    };
    for message in messages {
        let mut of_this = Vec::new();
        for one in message_to_json(message, Side::Client, &mut of_this) {
            if one["role"] != "tool" {
                shown.append(&mut of_this);
                show(&mut shown, &mut wire);
            }
            wire.push(one);
        }
        shown.append(&mut of_this);
    }
    show(&mut shown, &mut wire);
    wire
}

/// What a tool answered, as the text of its message; images and documents go to `shown`.
fn result_text(result: &ToolResult, shown: &mut Vec<Value>) -> String {
    let Some(parts) = shown_parts(&result.result) else {
        return result.result.as_str().map_or_else(|| result.result.to_string(), str::to_owned);
    };
    let id = result.id.as_deref().unwrap_or_default();
    shown.push(json!({ "type": "text", "text": format!("What the call {id} showed:") }));
    let mut texts = Vec::new();
    for part in parts {
        match part {
            Part::Text(text) => texts.push(text),
            Part::Media(media) => shown.push(media_to_json(&media)),
            _ => {}
        }
    }
    if texts.is_empty() {
        texts.push("What it showed follows.".to_owned());
    }
    texts.join("\n")
}

/// The wire messages of one message: one, or one for each tool result; what results show beside text
/// goes to `shown`.
pub(super) fn message_to_json(message: &Message, side: Side, shown: &mut Vec<Value>) -> Vec<Value> {
    let mut wire = Vec::new();
    let mut rest: Vec<&Part> = Vec::new();
    for part in &message.parts {
        match part {
            Part::ToolResult(result) => wire.push(json!({
                "role": "tool",
                "tool_call_id": result.id.as_deref().unwrap_or_default(),
                "content": result_text(result, shown),
            })),
            part => rest.push(part),
        }
    }
    if !rest.is_empty() || wire.is_empty() {
        wire.push(Value::Object(plain_to_json(message, &rest, side)));
    }
    wire
}

fn plain_to_json(message: &Message, parts: &[&Part], side: Side) -> Map<String, Value> {
    let mut wire = Map::new();
    wire.insert("role".to_owned(), Value::from(message.role.as_str()));
    let mut content: Vec<Value> = Vec::new();
    let mut reasoning = String::new();
    let mut refusal: Option<String> = None;
    let mut calls: Vec<Value> = Vec::new();
    for part in parts {
        match part {
            Part::Text(text) => content.push(json!({ "type": "text", "text": text })),
            Part::Reasoning(text) => reasoning.push_str(text),
            Part::Refusal(text) => refusal = Some(text.clone()),
            Part::ToolCall(call) => calls.push(json!({
                "id": call.id,
                "type": "function",
                "function": { "name": call.name, "arguments": call.arguments },
            })),
            Part::Media(media) => content.push(media_to_json(media)),
            Part::Other(other) if is_foreign_thought(other, &[]) => {}
            Part::Other(other) => content.push(other.clone()),
            Part::ToolResult(_) => {}
        }
    }
    wire.insert("content".to_owned(), content_to_json(content));
    if let Some(name) = &message.name {
        wire.insert("name".to_owned(), Value::from(name.as_str()));
    }
    if side == Side::Provider && !reasoning.is_empty() {
        wire.insert("reasoning_content".to_owned(), Value::from(reasoning));
    }
    if let Some(refusal) = refusal {
        wire.insert("refusal".to_owned(), Value::from(refusal));
    }
    if !calls.is_empty() {
        wire.insert("tool_calls".to_owned(), Value::from(calls));
    }
    wire
}

/// One text as text, nothing as null, everything else as a list.
fn content_to_json(mut content: Vec<Value>) -> Value {
    match content.as_mut_slice() {
        [] => Value::Null,
        [only] if only["type"] == "text" => only["text"].take(),
        _ => Value::from(content),
    }
}

fn media_to_json(media: &Media) -> Value {
    let mime_type = media.mime_type.as_deref();
    match (&media.source, media.modality.as_str()) {
        (MediaSource::FileId(id), _) => json!({ "type": "file", "file": { "file_id": id } }),
        (MediaSource::Base64(data), "audio") => {
            let format = mime_type.and_then(|mime| mime.strip_prefix("audio/")).unwrap_or("wav");
            json!({ "type": "input_audio", "input_audio": { "data": data, "format": format } })
        }
        (MediaSource::Base64(data), modality) => {
            let is_image = modality == "image"
                || mime_type.is_some_and(|mime_type| mime_type.starts_with("image/"));
            let usual = if is_image { "image/png" } else { "application/pdf" };
            let url = format!("data:{};base64,{data}", mime_type.unwrap_or(usual));
            if is_image {
                json!({ "type": "image_url", "image_url": { "url": url } })
            } else {
                let name = file_name(mime_type);
                json!({ "type": "file", "file": { "filename": name, "file_data": url } })
            }
        }
        (MediaSource::Uri(uri), _) => json!({ "type": "image_url", "image_url": { "url": uri } }),
    }
}
