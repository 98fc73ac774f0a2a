//! Requests in OpenAI's form.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::WireError;
use super::content::{WireMessage, messages_to_json};
use crate::chat::{ChatRequest, ResponseFormat, Tool, ToolChoice};
use crate::kept::Kept;
use crate::message::Message;
use crate::wire::from_body;

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

/// Reads the body of a request.
///
/// # Errors
/// [`WireError`] when it is not JSON, lacks `model` or `messages`, or a field has a value that
/// cannot be meant; unknown fields are kept in [`ChatRequest::extra`].
pub fn parse_request(body: &[u8]) -> Result<ChatRequest, WireError> {
    let wire: WireRequest = from_body(body)
        .map_err(|source| WireError::Json { expected: "a chat completion request", source })?;
    let tools = wire.tools.unwrap_or_default();
    Ok(ChatRequest {
        model: wire.model,
        messages: wire.messages.into_iter().map(Message::from).collect(),
        tools: tools.into_iter().enumerate().map(tool_of).collect::<Result<_, _>>()?,
        tool_choice: wire
            .tool_choice
            .filter(|choice| !choice.is_null())
            .map(choice_of)
            .transpose()?,
        temperature: wire.temperature,
        top_p: wire.top_p,
        max_tokens: wire.max_completion_tokens.or(wire.max_tokens),
        stop: match wire.stop {
            None => Vec::new(),
            Some(Stop::One(text)) => vec![text],
            Some(Stop::Many(texts)) => texts,
        },
        seed: wire.seed,
        response_format: wire
            .response_format
            .filter(|format| !format.is_null())
            .map(|format| format_of(&format))
            .transpose()?,
        stream: wire.stream.unwrap_or(false),
        is_stream_usage_wanted: wire.stream_options.and_then(|o| o.include_usage).unwrap_or(false),
        extra: wire.extra,
    })
}

fn tool_of((at, tool): (usize, Value)) -> Result<Tool, WireError> {
    let function = tool.get("function").unwrap_or(&Value::Null);
    let text = |key: &str| function.get(key).and_then(Value::as_str);
    let name = text("name").filter(|name| !name.is_empty()).ok_or_else(|| WireError::Field {
        field: format!("tools[{at}].function.name"),
        expected: "the name of a function tool",
        got: function.get("name").unwrap_or(&tool).to_string(),
    })?;
    Ok(Tool {
        name: name.to_owned(),
        description: text("description").unwrap_or_default().to_owned(),
        parameters: function.get("parameters").cloned().unwrap_or_else(|| json!({})),
        is_strict: function.get("strict").and_then(Value::as_bool).unwrap_or(false),
    })
}

fn choice_of(choice: Value) -> Result<ToolChoice, WireError> {
    match choice.as_str() {
        Some("auto") => return Ok(ToolChoice::Auto),
        Some("none") => return Ok(ToolChoice::None),
        Some("required") => return Ok(ToolChoice::Required),
        _ => {}
    }
    match choice.pointer("/function/name").and_then(Value::as_str) {
        Some(name) => Ok(ToolChoice::Named(name.to_owned())),
        None => Err(WireError::Field {
            field: "tool_choice".to_owned(),
            expected: "auto, none, required or a function with a name",
            got: choice.to_string(),
        }),
    }
}

fn format_of(format: &Value) -> Result<ResponseFormat, WireError> {
    let schema = &format["json_schema"];
    match format["type"].as_str() {
        Some("text") => Ok(ResponseFormat::Text),
        Some("json_object") => Ok(ResponseFormat::JsonObject),
        Some("json_schema") => Ok(ResponseFormat::JsonSchema {
            name: schema["name"].as_str().unwrap_or_default().to_owned(),
            schema: schema["schema"].clone(),
            is_strict: schema["strict"].as_bool().unwrap_or(false),
        }),
        _ => Err(WireError::Field {
            field: "response_format.type".to_owned(),
            expected: "text, json_object or json_schema",
            got: format["type"].to_string(),
        }),
    }
}

/// Builds the body of a request. What the model thought in earlier answers is left out, since
/// providers refuse or ignore it.
pub fn request_to_json(request: &ChatRequest) -> Value {
    let messages = messages_to_json(&request.messages);
    let mut wire = request.extra.clone();
    Kept::forget(&mut wire);
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            wire.insert(key.to_owned(), value);
        }
    };
    set("model", Some(Value::from(request.model.as_str())));
    set("messages", Some(Value::from(messages)));
    let tools: Vec<Value> = request.tools.iter().map(tool_to_json).collect();
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
