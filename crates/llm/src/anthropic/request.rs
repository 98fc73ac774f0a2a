//! Requests in Anthropic's form.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::content::{Side, blocks_of, collapsed, message_of, parts_of};
use super::{FORM, default_max_tokens};
use crate::chat::{ChatRequest, ResponseFormat, Tool, ToolChoice};
use crate::kept::{Kept, kind_of};
use crate::message::{Message, Role};
use crate::openai::WireError;
use crate::wire::from_any_body;

#[derive(Deserialize)]
struct WireRequest {
    model: String,
    messages: Vec<Value>,
    #[serde(default)]
    system: Value,
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
    stop_sequences: Option<Vec<String>>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

/// Reads the body of a request. The instructions become the first message; results of tools are
/// messages of the tool.
///
/// # Errors
/// [`WireError`] when it is not JSON, lacks `model` or `messages`, or a field has a value that
/// cannot be meant; unknown fields are kept in [`ChatRequest::extra`].
pub fn parse_request(body: &[u8]) -> Result<ChatRequest, WireError> {
    let wire: WireRequest = from_any_body(body)
        .map_err(|source| WireError::Json { expected: "a request for messages", source })?;
    let mut kept = Kept::default();
    let system = parts_of(wire.system, "/system", &mut kept);
    let system =
        (!system.is_empty()).then_some(Message { role: Role::System, parts: system, name: None });
    let messages = wire.messages.into_iter().enumerate();
    let messages: Vec<Message> = system
        .into_iter()
        .chain(messages.map(|(at, wire)| message_of(wire, at, &mut kept)))
        .collect();
    let mut tools = Vec::new();
    for (at, tool) in wire.tools.unwrap_or_default().into_iter().enumerate() {
        tools.extend(tool_of(tool, at, tools.len(), &mut kept)?);
    }
    let mut extra = wire.extra;
    let response_format = format_of(&mut extra);
    let tool_choice = match wire.tool_choice.filter(|choice| !choice.is_null()) {
        Some(choice) => Some(choice_of(&choice, &mut kept)?),
        None => None,
    };
    kept.store(FORM, &mut extra);
    let stream = wire.stream.unwrap_or(false);
    Ok(ChatRequest {
        model: wire.model,
        messages,
        tools,
        tool_choice,
        temperature: wire.temperature,
        top_p: wire.top_p,
        max_tokens: wire.max_tokens,
        stop: wire.stop_sequences.unwrap_or_default(),
        seed: None,
        response_format,
        stream,
        is_stream_usage_wanted: stream,
        extra,
    })
}

/// A tool of the caller, or `None` for one that the provider runs itself, which is kept.
fn tool_of(
    tool: Value,
    at: usize,
    number: usize,
    kept: &mut Kept,
) -> Result<Option<Tool>, WireError> {
    if !matches!(kind_of(&tool), None | Some("custom")) {
        kept.keep_tool(tool);
        return Ok(None);
    }
    let text = |key: &str| tool.get(key).and_then(Value::as_str);
    let name = text("name").filter(|name| !name.is_empty()).ok_or_else(|| WireError::Field {
        field: format!("tools[{at}].name"),
        expected: "the name of a tool",
        got: tool.to_string(),
    })?;
    kept.keep(
        || format!("/tools/{number}"),
        &tool,
        &["name", "description", "input_schema", "strict"],
    );
    Ok(Some(Tool {
        name: name.to_owned(),
        description: text("description").unwrap_or_default().to_owned(),
        parameters: tool.get("input_schema").cloned().unwrap_or_else(|| json!({})),
        is_strict: tool.get("strict").and_then(Value::as_bool).unwrap_or(false),
    }))
}

fn choice_of(choice: &Value, kept: &mut Kept) -> Result<ToolChoice, WireError> {
    kept.keep(|| "/tool_choice".to_owned(), choice, &["name"]);
    match (kind_of(choice), choice.get("name").and_then(Value::as_str)) {
        (Some("auto"), _) => Ok(ToolChoice::Auto),
        (Some("none"), _) => Ok(ToolChoice::None),
        (Some("any"), _) => Ok(ToolChoice::Required),
        (Some("tool"), Some(name)) => Ok(ToolChoice::Named(name.to_owned())),
        _ => Err(WireError::Field {
            field: "tool_choice.type".to_owned(),
            expected: "auto, none, any or a tool with a name",
            got: choice.to_string(),
        }),
    }
}

/// The shape that `output_config.format` asks for, taken out; the other settings stay.
fn format_of(extra: &mut Map<String, Value>) -> Option<ResponseFormat> {
    let config = extra.get_mut("output_config")?.as_object_mut()?;
    let format = config.get("format").filter(|f| kind_of(f) == Some("json_schema"))?;
    let schema = format.get("schema")?.clone();
    config.remove("format");
    if config.is_empty() {
        extra.remove("output_config");
    }
    Some(ResponseFormat::JsonSchema { name: String::new(), schema, is_strict: true })
}

/// Builds the body of a request. Instructions, wherever they are, go into `system`; results of tools
/// that follow each other, and what the user says after them, become one message; what the model
/// thought goes back only as the provider signed it. There is no seed in this form, nor a format
/// of any JSON object.
pub fn request_to_json(request: &ChatRequest) -> Value {
    let mut wire = request.extra.clone();
    let mut kept = Kept::take(FORM, &mut wire);
    let mut tools: Vec<Value> = request.tools.iter().map(tool_to_json).collect();
    tools.extend(kept.tools());
    let is_instruction = |m: &&Message| matches!(m.role, Role::System | Role::Developer);
    let system: Vec<Value> = request
        .messages
        .iter()
        .filter(is_instruction)
        .flat_map(|message| blocks_of(message, Side::Client))
        .collect();
    if let Some(ResponseFormat::JsonSchema { schema, .. }) = &request.response_format {
        let config = wire.entry("output_config").or_insert_with(|| json!({}));
        if let Value::Object(config) = config {
            let format = json!({ "type": "json_schema", "schema": schema });
            config.insert("format".to_owned(), format);
        }
    }
    let mut set = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            wire.insert(key.to_owned(), value);
        }
    };
    set("model", Some(Value::from(request.model.as_str())));
    set("system", (!system.is_empty()).then(|| Value::from(system)));
    set("messages", Some(Value::from(messages_to_json(&request.messages))));
    set("tools", (!tools.is_empty()).then(|| Value::from(tools)));
    set("tool_choice", request.tool_choice.as_ref().map(choice_to_json));
    set("temperature", request.temperature.map(Value::from));
    set("top_p", request.top_p.map(Value::from));
    let max_tokens = request.max_tokens.unwrap_or_else(|| default_max_tokens(&request.model));
    set("max_tokens", Some(Value::from(max_tokens)));
    set("stop_sequences", (!request.stop.is_empty()).then(|| Value::from(request.stop.clone())));
    set("stream", request.stream.then(|| Value::from(true)));
    let mut wire = Value::Object(wire);
    kept.restore(&mut wire);
    if let Some(system) = wire.get_mut("system") {
        *system = collapsed(system.take());
    }
    for message in wire["messages"].as_array_mut().into_iter().flatten() {
        let content = &mut message["content"];
        *content = collapsed(content.take());
    }
    wire
}

fn messages_to_json(messages: &[Message]) -> Vec<Value> {
    let mut wire: Vec<Value> = Vec::new();
    let mut is_after_tool = false;
    for message in messages {
        let role = match message.role {
            Role::System | Role::Developer => continue,
            Role::Assistant => "assistant",
            Role::User | Role::Tool | Role::Other(_) => "user",
        };
        let mut blocks = blocks_of(message, Side::Client);
        if blocks.is_empty() {
            continue;
        }
        match wire.last_mut() {
            Some(last) if is_after_tool && role == "user" => {
                if let Some(content) = last["content"].as_array_mut() {
                    content.append(&mut blocks);
                }
            }
            _ => wire.push(json!({ "role": role, "content": blocks })),
        }
        is_after_tool = message.role == Role::Tool;
    }
    wire
}

fn tool_to_json(tool: &Tool) -> Value {
    let schema = object_schema(&tool.parameters);
    let mut wire = json!({ "name": tool.name, "input_schema": schema });
    if !tool.description.is_empty() {
        wire["description"] = Value::from(tool.description.as_str());
    }
    if tool.is_strict {
        wire["strict"] = Value::from(true);
    }
    wire
}

/// The schema of an object, which Anthropic wants of a tool that takes nothing, too.
fn object_schema(parameters: &Value) -> Value {
    let mut schema = parameters.as_object().cloned().unwrap_or_default();
    if schema.is_empty() {
        schema.insert("properties".to_owned(), json!({}));
    }
    schema.entry("type").or_insert_with(|| Value::from("object"));
    Value::Object(schema)
}

fn choice_to_json(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => json!({ "type": "auto" }),
        ToolChoice::None => json!({ "type": "none" }),
        ToolChoice::Required => json!({ "type": "any" }),
        ToolChoice::Named(name) => json!({ "type": "tool", "name": name }),
    }
}

/// Keeps with a choice that one tool may be asked for at a time, which no type of ours says.
pub(crate) fn keep_one_tool_at_once(choice: &ToolChoice, extra: &mut Map<String, Value>) {
    let mut wire = choice_to_json(choice);
    wire["disable_parallel_tool_use"] = Value::from(true);
    let mut kept = Kept::default();
    kept.keep(|| "/tool_choice".to_owned(), &wire, &["name"]);
    kept.store(FORM, extra);
}
