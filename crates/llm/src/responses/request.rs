//! Requests in the form of responses.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::FORM;
use super::items::{Side, items_of, messages_of};
use crate::chat::{ChatRequest, ResponseFormat, Tool, ToolChoice};
use crate::kept::{Kept, kind_of};
use crate::message::{Message, Role};
use crate::openai::WireError;
use crate::wire::from_any_body;

#[derive(Deserialize)]
struct WireRequest {
    /// A stored prompt may name the model in its place.
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    input: Value,
    #[serde(default)]
    instructions: Option<String>,
    #[serde(default)]
    tools: Option<Vec<Value>>,
    #[serde(default)]
    tool_choice: Option<Value>,
    #[serde(default)]
    temperature: Option<f64>,
    #[serde(default)]
    top_p: Option<f64>,
    #[serde(default)]
    max_output_tokens: Option<u64>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

/// Reads the body of a request. The instructions become the first message; `previous_response_id`
/// and what else is not ours stay in [`ChatRequest::extra`].
///
/// # Errors
/// [`WireError`] when it is not JSON, has an `input` that is neither text nor a list, or a field
/// has a value that cannot be meant.
pub fn parse_request(body: &[u8]) -> Result<ChatRequest, WireError> {
    let wire: WireRequest = from_any_body(body)
        .map_err(|source| WireError::Json { expected: "a request for a response", source })?;
    let mut kept = Kept::default();
    let mut messages: Vec<Message> = wire
        .instructions
        .filter(|text| !text.is_empty())
        .map(Message::system)
        .into_iter()
        .collect();
    match wire.input {
        Value::Null => {}
        Value::String(text) => messages.push(Message::user(text)),
        Value::Array(items) => messages.extend(messages_of(items)),
        other => {
            return Err(WireError::Field {
                field: "input".to_owned(),
                expected: "text or a list of items",
                got: other.to_string(),
            });
        }
    }
    let mut tools = Vec::new();
    for (at, tool) in wire.tools.unwrap_or_default().into_iter().enumerate() {
        tools.extend(tool_of(tool, at, &mut kept)?);
    }
    let mut extra = wire.extra;
    let response_format = format_of(&mut extra);
    let tool_choice = match wire.tool_choice {
        Some(choice) if !choice.is_null() => choice_of(choice, &mut extra),
        _ => None,
    };
    kept.store(FORM, &mut extra);
    let stream = wire.stream.unwrap_or(false);
    Ok(ChatRequest {
        model: wire.model.unwrap_or_default(),
        messages,
        tools,
        tool_choice,
        temperature: wire.temperature,
        top_p: wire.top_p,
        max_tokens: wire.max_output_tokens,
        stop: Vec::new(),
        seed: None,
        response_format,
        stream,
        is_stream_usage_wanted: stream,
        extra,
    })
}

/// A function, or `None` for a tool that the provider runs itself, which is kept.
fn tool_of(tool: Value, at: usize, kept: &mut Kept) -> Result<Option<Tool>, WireError> {
    if !matches!(kind_of(&tool), None | Some("function")) {
        kept.keep_tool(tool);
        return Ok(None);
    }
    let text = |key: &str| tool.get(key).and_then(Value::as_str);
    let name = text("name").filter(|name| !name.is_empty()).ok_or_else(|| WireError::Field {
        field: format!("tools[{at}].name"),
        expected: "the name of a function tool",
        got: tool.to_string(),
    })?;
    Ok(Some(Tool {
        name: name.to_owned(),
        description: text("description").unwrap_or_default().to_owned(),
        parameters: tool.get("parameters").cloned().unwrap_or_else(|| json!({})),
        is_strict: tool.get("strict").and_then(Value::as_bool).unwrap_or(false),
    }))
}

/// Our choices; another one (of a tool that the provider runs, of several) stays in `extra`.
fn choice_of(choice: Value, extra: &mut Map<String, Value>) -> Option<ToolChoice> {
    match (choice.as_str(), kind_of(&choice), choice.get("name").and_then(Value::as_str)) {
        (Some("auto"), ..) => Some(ToolChoice::Auto),
        (Some("none"), ..) => Some(ToolChoice::None),
        (Some("required"), ..) => Some(ToolChoice::Required),
        (None, Some("function"), Some(name)) => Some(ToolChoice::Named(name.to_owned())),
        _ => {
            extra.insert("tool_choice".to_owned(), choice);
            None
        }
    }
}

/// The shape that `text.format` asks for, taken out; the other settings of `text` stay.
fn format_of(extra: &mut Map<String, Value>) -> Option<ResponseFormat> {
    let text = extra.get_mut("text")?.as_object_mut()?;
    let format = text.get("format")?;
    let read = match kind_of(format)? {
        "text" => ResponseFormat::Text,
        "json_object" => ResponseFormat::JsonObject,
        "json_schema" => ResponseFormat::JsonSchema {
            name: format["name"].as_str().unwrap_or_default().to_owned(),
            schema: format["schema"].clone(),
            is_strict: format["strict"].as_bool().unwrap_or(false),
        },
        _ => return None,
    };
    text.remove("format");
    if text.is_empty() {
        extra.remove("text");
    }
    Some(read)
}

/// Builds the body of a request. A first message of instructions goes into `instructions`; this form
/// has neither stop texts nor a seed.
pub fn request_to_json(request: &ChatRequest) -> Value {
    let mut wire = request.extra.clone();
    let mut kept = Kept::take(FORM, &mut wire);
    let mut tools: Vec<Value> = request.tools.iter().map(tool_to_json).collect();
    tools.extend(kept.tools());
    let (instructions, rest) = match request.messages.split_first() {
        Some((first, rest)) if first.role == Role::System => (first.joined_text(), rest),
        _ => (String::new(), request.messages.as_slice()),
    };
    let input: Vec<Value> =
        rest.iter().flat_map(|message| items_of(message, Side::Client)).collect();
    if let Some(format) = &request.response_format {
        let text = wire.entry("text").or_insert_with(|| json!({}));
        if let Value::Object(text) = text {
            text.insert("format".to_owned(), format_to_json(format));
        }
    }
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            wire.insert(key.to_owned(), value);
        }
    };
    set("model", (!request.model.is_empty()).then(|| Value::from(request.model.as_str())));
    set("instructions", (!instructions.is_empty()).then(|| Value::from(instructions)));
    set("input", Some(Value::from(input)));
    set("tools", (!tools.is_empty()).then(|| Value::from(tools)));
    set("tool_choice", request.tool_choice.as_ref().map(choice_to_json));
    set("temperature", request.temperature.map(Value::from));
    set("top_p", request.top_p.map(Value::from));
    set("max_output_tokens", request.max_tokens.map(Value::from));
    set("stream", request.stream.then(|| Value::from(true)));
    Value::Object(wire)
}

fn tool_to_json(tool: &Tool) -> Value {
    json!({
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.is_strict,
    })
}

fn choice_to_json(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => Value::from("auto"),
        ToolChoice::None => Value::from("none"),
        ToolChoice::Required => Value::from("required"),
        ToolChoice::Named(name) => json!({ "type": "function", "name": name }),
    }
}

fn format_to_json(format: &ResponseFormat) -> Value {
    match format {
        ResponseFormat::Text => json!({ "type": "text" }),
        ResponseFormat::JsonObject => json!({ "type": "json_object" }),
        ResponseFormat::JsonSchema { name, schema, is_strict } => json!({
            "type": "json_schema", "name": name, "schema": schema, "strict": is_strict,
        }),
    }
}
