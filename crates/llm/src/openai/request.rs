//! Requests in OpenAI's form.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::content::{WireMessage, messages_to_json};
use super::{FORM, WireError};
use crate::chat::{ChatRequest, ResponseFormat, Tool, ToolChoice};
use crate::kept::Kept;
use crate::message::Message;
use crate::wire::{from_any_body, from_body};

#[derive(Deserialize)]
struct WireRequest {
    model: String,
    messages: Vec<WireMessage>,
    #[serde(default)]
    tools: Option<Vec<Value>>,
    #[serde(default)]
    tool_choice: Option<Value>,
    #[serde(default)]
    temperature: Option<f64>,
    #[serde(default)]
    top_p: Option<f64>,
    #[serde(default)]
    max_tokens: Option<u64>,
    #[serde(default)]
    max_completion_tokens: Option<u64>,
    #[serde(default)]
    stop: Option<Stop>,
    #[serde(default)]
    seed: Option<i64>,
    #[serde(default)]
    response_format: Option<Value>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Many(Vec<String>),
}

#[derive(Default, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

/// Reads the body of a request. Tools, choices and shapes of answers that we do not know are kept, and so
/// is every other unknown field, in [`ChatRequest::extra`]. Of a field that is there twice the last one
/// counts.
///
/// # Errors
/// [`WireError`] when it is not JSON, lacks `model` or `messages`, or a field has a value of another
/// type.
pub fn parse_request(body: &[u8]) -> Result<ChatRequest, WireError> {
    from_any_body(body).map(request_of).map_err(no_request)
}

/// [`parse_request`], for who passes the body on to another reader: that one must not read another field.
///
/// # Errors
/// Beside those of [`parse_request`], when a field is there twice.
pub fn parse_request_once(body: &[u8]) -> Result<ChatRequest, WireError> {
    from_body(body).map(request_of).map_err(no_request)
}

fn no_request(source: serde_json::Error) -> WireError {
    WireError::Json { expected: "a chat completion request", source }
}

fn request_of(wire: WireRequest) -> ChatRequest {
    let (mut extra, mut kept, mut tools) = (wire.extra, Kept::default(), Vec::new());
    for tool in wire.tools.unwrap_or_default() {
        match tool_of(&tool) {
            Some(tool) => tools.push(tool),
            None => kept.keep_tool(tool),
        }
    }
    let mut known = |name: &str, value: Option<Value>, is_known: bool| {
        if let Some(value) = value.filter(|value| !is_known && !value.is_null()) {
            extra.insert(name.to_owned(), value);
        }
    };
    let tool_choice = wire.tool_choice.as_ref().and_then(choice_of);
    known("tool_choice", wire.tool_choice, tool_choice.is_some());
    let response_format = wire.response_format.as_ref().and_then(format_of);
    known("response_format", wire.response_format, response_format.is_some());
    kept.store(FORM, &mut extra);
    ChatRequest {
        model: wire.model,
        messages: wire.messages.into_iter().map(Message::from).collect(),
        tools,
        tool_choice,
        temperature: wire.temperature,
        top_p: wire.top_p,
        max_tokens: wire.max_completion_tokens.or(wire.max_tokens),
        stop: match wire.stop {
            None => Vec::new(),
            Some(Stop::One(text)) => vec![text],
            Some(Stop::Many(texts)) => texts,
        },
        seed: wire.seed,
        response_format,
        stream: wire.stream.unwrap_or(false),
        is_stream_usage_wanted: wire.stream_options.and_then(|o| o.include_usage).unwrap_or(false),
        extra,
    }
}

/// A function; `None` for another kind of tool, which is kept.
fn tool_of(tool: &Value) -> Option<Tool> {
    let function = tool.get("function")?;
    let text = |key: &str| function.get(key).and_then(Value::as_str);
    Some(Tool {
        name: text("name").filter(|name| !name.is_empty())?.to_owned(),
        description: text("description").unwrap_or_default().to_owned(),
        parameters: function.get("parameters").cloned().unwrap_or_else(|| json!({})),
        is_strict: function.get("strict").and_then(Value::as_bool).unwrap_or(false),
    })
}

/// Our choices; `None` for another one, which is kept.
fn choice_of(choice: &Value) -> Option<ToolChoice> {
    match choice.as_str() {
        Some("auto") => return Some(ToolChoice::Auto),
        Some("none") => return Some(ToolChoice::None),
        Some("required") => return Some(ToolChoice::Required),
        _ => {}
    }
    let name = choice.pointer("/function/name").and_then(Value::as_str)?;
    Some(ToolChoice::Named(name.to_owned()))
}

/// Our shapes; `None` for another one, which is kept.
fn format_of(format: &Value) -> Option<ResponseFormat> {
    let schema = &format["json_schema"];
    match format["type"].as_str()? {
        "text" => Some(ResponseFormat::Text),
        "json_object" => Some(ResponseFormat::JsonObject),
        "json_schema" => Some(ResponseFormat::JsonSchema {
            name: schema["name"].as_str().unwrap_or_default().to_owned(),
            schema: schema["schema"].clone(),
            is_strict: schema["strict"].as_bool().unwrap_or(false),
        }),
        _ => None,
    }
}

/// Builds the body of a request. What the model thought in earlier answers is left out, since
/// providers refuse or ignore it.
pub fn request_to_json(request: &ChatRequest) -> Value {
    let messages = messages_to_json(&request.messages);
    let mut wire = request.extra.clone();
    let mut kept = Kept::take(FORM, &mut wire);
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            wire.insert(key.to_owned(), value);
        }
    };
    set("model", Some(Value::from(request.model.as_str())));
    set("messages", Some(Value::from(messages)));
    let mut tools: Vec<Value> = request.tools.iter().map(tool_to_json).collect();
    tools.extend(kept.tools());
    set("tools", (!tools.is_empty()).then(|| Value::from(tools)));
    set("tool_choice", request.tool_choice.as_ref().map(choice_to_json));
    set("temperature", request.temperature.map(Value::from));
    set("top_p", request.top_p.map(Value::from));
    set(length_field(&request.model), request.max_tokens.map(Value::from));
    set("stop", (!request.stop.is_empty()).then(|| Value::from(request.stop.clone())));
    set("seed", request.seed.map(Value::from));
    set("response_format", request.response_format.as_ref().map(format_to_json));
    set("stream", request.stream.then(|| Value::from(true)));
    set(
        "stream_options",
        (request.stream && request.is_stream_usage_wanted)
            .then(|| json!({ "include_usage": true })),
    );
    Value::Object(wire)
}

/// OpenAI's reasoning models refuse `max_tokens`; most compatible servers know only that.
fn length_field(model: &str) -> &'static str {
    let name = model.rsplit('/').next().unwrap_or(model);
    let generation = name.strip_prefix("gpt-").and_then(|rest| rest.chars().next());
    let is_o_series = name
        .strip_prefix('o')
        .and_then(|rest| rest.chars().next())
        .is_some_and(|c| c.is_ascii_digit());
    if is_o_series || generation.is_some_and(|c| matches!(c, '5'..='9')) {
        "max_completion_tokens"
    } else {
        "max_tokens"
    }
}

/// Whether a model is one of OpenAI's that think before they answer, which alone take an effort.
pub(crate) fn takes_effort(model: &str) -> bool {
    let is_plain = ["-chat", "o1-mini", "o1-preview"].iter().any(|name| model.contains(name));
    length_field(model) == "max_completion_tokens" && !is_plain
}

fn tool_to_json(tool: &Tool) -> Value {
    let mut function = json!({
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    });
    if tool.is_strict {
        function["strict"] = Value::from(true);
    }
    json!({ "type": "function", "function": function })
}

fn choice_to_json(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => Value::from("auto"),
        ToolChoice::None => Value::from("none"),
        ToolChoice::Required => Value::from("required"),
        ToolChoice::Named(name) => json!({ "type": "function", "function": { "name": name } }),
    }
}

fn format_to_json(format: &ResponseFormat) -> Value {
    match format {
        ResponseFormat::Text => json!({ "type": "text" }),
        ResponseFormat::JsonObject => json!({ "type": "json_object" }),
        ResponseFormat::JsonSchema { name, schema, is_strict } => json!({
            "type": "json_schema",
            "json_schema": { "name": name, "schema": schema, "strict": is_strict },
        }),
    }
}
