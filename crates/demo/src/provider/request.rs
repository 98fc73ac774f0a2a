//! A chat request, read strictly: what a real provider turns away is turned away here, in its words.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::error::ApiError;
use super::tokens;

/// Most completions a caller may ask for at once; one is given.
const MAX_CHOICES: u64 = 128;

/// A chat request in the form in which the rest of the provider uses it.
#[derive(Debug, Clone)]
pub(crate) struct ChatRequest {
    pub(crate) model: String,
    pub(crate) messages: Vec<Message>,
    pub(crate) tools: Vec<Tool>,
    pub(crate) tool_choice: ToolChoice,
    pub(crate) is_stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) max_tokens: Option<u64>,
    pub(crate) stop: Vec<String>,
    pub(crate) format: AnswerFormat,
    /// Tokens of the tool definitions.
    tool_tokens: u64,
}

/// Who says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// `system` or `developer`.
    System,
    /// The person, or the program for them.
    User,
    /// The model.
    Assistant,
    /// The result of a tool.
    Tool,
}

/// One message of the conversation so far.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) role: Role,
    /// All text parts together.
    pub(crate) text: String,
    /// Tools that the assistant asked for.
    pub(crate) calls: Vec<Call>,
    /// Which call a tool message answers.
    pub(crate) answers: Option<String>,
    tokens: u64,
}

/// One call of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) name: String,
    /// JSON text, as models write it.
    pub(crate) arguments: String,
}

/// A tool that the model may ask for.
#[derive(Debug, Clone)]
pub(crate) struct Tool {
    pub(crate) name: String,
    /// JSON Schema of the arguments.
    pub(crate) parameters: Value,
}

/// Whether the model may, must or must not ask for a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ToolChoice {
    Auto,
    None,
    Required,
    Named(String),
}

/// What shape the answer must have.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AnswerFormat {
    Text,
    JsonObject,
    JsonSchema(Value),
}

impl ChatRequest {
    /// Reads the body of a request.
    pub(crate) fn from_json(body: &Value) -> Result<Self, ApiError> {
        let Some(body) = body.as_object() else {
            return Err(ApiError::unreadable("the body is not an object"));
        };
        let model = text(body, "model")?
            .ok_or_else(|| ApiError::invalid("model", "you must provide a model parameter"))?;
        let messages = read_messages(body)?;
        check_tool_answers(&messages)?;
        let (tools, tool_tokens) = read_tools(body)?;
        let tool_choice = read_tool_choice(body, &tools)?;
        let is_stream = flag(body, "stream")?;
        let include_usage = read_stream_options(body, is_stream)?;
        if let Some(n) = count(body, "n")?
            && !(1..=MAX_CHOICES).contains(&n)
        {
            let message = format!("Invalid 'n': expected 1 to {MAX_CHOICES}, but got {n}.");
            return Err(ApiError::invalid("n", message));
        }
        within(body, "temperature", 0.0, 2.0)?;
        within(body, "top_p", 0.0, 1.0)?;
        let max_tokens = match count(body, "max_completion_tokens")? {
            Some(limit) => Some(limit),
            None => count(body, "max_tokens")?,
        };
        if max_tokens == Some(0) {
            let message = "Invalid 'max_tokens': integer below minimum value. Expected a value >= 1, but got 0 instead.";
            return Err(ApiError::invalid("max_tokens", message));
        }
        Ok(Self {
            model,
            messages,
            tools,
            tool_choice,
            is_stream,
            include_usage,
            max_tokens,
            stop: read_stop(body)?,
            format: read_format(body)?,
            tool_tokens,
        })
    }

    /// Tokens of everything that was sent.
    pub(crate) fn prompt_tokens(&self) -> u64 {
        let said: u64 = self.messages.iter().map(|message| message.tokens).sum();
        said + self.tool_tokens + tokens::ANSWER_FRAME_TOKENS
    }

    /// Of these, how many a prompt cache would hold: what an earlier turn of the same
    /// conversation must have sent already, in whole blocks.
    pub(crate) fn cached_tokens(&self) -> u64 {
        const BLOCK: u64 = 128;
        let earlier = self.messages.iter().rposition(|message| message.role == Role::Assistant);
        let seen: u64 = self.messages[..earlier.unwrap_or(0)].iter().map(|m| m.tokens).sum();
        if earlier.is_none() { 0 } else { (seen + self.tool_tokens) / BLOCK * BLOCK }
    }

    /// The texts of one role, in order.
    pub(crate) fn texts(&self, role: Role) -> impl DoubleEndedIterator<Item = &str> {
        self.messages.iter().filter(move |m| m.role == role).map(|m| m.text.as_str())
    }

    /// What the user said last.
    pub(crate) fn last_user_text(&self) -> &str {
        self.texts(Role::User).next_back().unwrap_or_default()
    }

    /// Results of the tool `name`, oldest first.
    pub(crate) fn results_of(&self, name: &str) -> Vec<&str> {
        let asked: BTreeSet<&str> = self
            .messages
            .iter()
            .flat_map(|message| &message.calls)
            .filter(|call| call.name == name)
            .map(|call| call.id.as_str())
            .collect();
        self.messages
            .iter()
            .filter(|message| message.answers.as_deref().is_some_and(|id| asked.contains(id)))
            .map(|message| message.text.as_str())
            .collect()
    }

    /// Whether the caller offers the tool `name`.
    pub(crate) fn offers(&self, name: &str) -> bool {
        self.tool_choice != ToolChoice::None && self.tools.iter().any(|tool| tool.name == name)
    }
}

fn read_messages(body: &Map<String, Value>) -> Result<Vec<Message>, ApiError> {
    let messages = match body.get("messages") {
        None => return Err(ApiError::missing("messages")),
        Some(Value::Array(messages)) => messages,
        Some(other) => {
            return Err(ApiError::invalid_type("messages", "an array of objects", other));
        }
    };
    if messages.is_empty() {
        let message = "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.";
        return Err(ApiError::invalid("messages", message));
    }
    messages.iter().enumerate().map(|(at, message)| read_message(at, message)).collect()
}

fn read_message(at: usize, message: &Value) -> Result<Message, ApiError> {
    let place = format!("messages[{at}]");
    let Some(fields) = message.as_object() else {
        return Err(ApiError::invalid_type(&place, "an object", message));
    };
    let role = match fields.get("role").and_then(Value::as_str) {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("tool") => Role::Tool,
        Some(other) => {
            let message = format!(
                "Invalid value: '{other}'. Supported values are: 'system', 'assistant', 'user', 'tool', and 'developer'."
            );
            return Err(ApiError::invalid(format!("{place}.role"), message));
        }
        None => return Err(ApiError::missing(&format!("{place}.role"))),
    };
    let calls = read_calls(&place, fields)?;
    let text = read_content(&place, fields.get("content"), role, !calls.is_empty())?;
    let answers = fields.get("tool_call_id").and_then(Value::as_str).map(str::to_owned);
    if role == Role::Tool && answers.is_none() {
        return Err(ApiError::missing(&format!("{place}.tool_call_id")));
    }
    let asked: u64 =
        calls.iter().map(|c| tokens::count(&c.name) + tokens::count(&c.arguments)).sum();
    let tokens = tokens::MESSAGE_FRAME_TOKENS + tokens::count(&text) + asked;
    Ok(Message { role, text, calls, answers, tokens })
}

fn read_content(
    place: &str,
    content: Option<&Value>,
    role: Role,
    has_calls: bool,
) -> Result<String, ApiError> {
    let place = format!("{place}.content");
    match content {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) => {
            let mut text = String::new();
            for (at, part) in parts.iter().enumerate() {
                match part.get("type").and_then(Value::as_str) {
                    Some("text") => {
                        text.push_str(part.get("text").and_then(Value::as_str).unwrap_or_default());
                    }
                    // Pictures, sound and files are accepted and not looked at.
                    Some("image_url" | "input_audio" | "file" | "refusal") => {}
                    _ => {
                        let message = format!(
                            "Invalid value at '{place}[{at}].type'. Supported values are: 'text', 'image_url', 'input_audio', 'refusal', and 'file'."
                        );
                        return Err(ApiError::invalid(format!("{place}[{at}].type"), message));
                    }
                }
            }
            Ok(text)
        }
        None | Some(Value::Null) if role == Role::Assistant && has_calls => Ok(String::new()),
        None => Err(ApiError::missing(&place)),
        Some(other) => {
            Err(ApiError::invalid_type(&place, "one of a string or array of objects", other))
        }
    }
}

fn read_calls(place: &str, fields: &Map<String, Value>) -> Result<Vec<Call>, ApiError> {
    let calls = match fields.get("tool_calls") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(calls)) => calls,
        Some(other) => {
            return Err(ApiError::invalid_type(
                &format!("{place}.tool_calls"),
                "an array of objects",
                other,
            ));
        }
    };
    let mut read = Vec::with_capacity(calls.len());
    for (at, call) in calls.iter().enumerate() {
        let field = |pointer: &str| {
            call.pointer(pointer).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| {
                let path = pointer.replace('/', ".");
                ApiError::missing(&format!("{place}.tool_calls[{at}]{path}"))
            })
        };
        read.push(Call {
            id: field("/id")?,
            name: field("/function/name")?,
            arguments: field("/function/arguments")?,
        });
    }
    Ok(read)
}

/// Every call must be answered by a tool message before anything else is said, and nothing else
/// may be answered.
fn check_tool_answers(messages: &[Message]) -> Result<(), ApiError> {
    let mut open: BTreeSet<&str> = BTreeSet::new();
    let mut asked: BTreeSet<&str> = BTreeSet::new();
    let unanswered = |open: &BTreeSet<&str>| {
        let ids: Vec<&str> = open.iter().copied().collect();
        let message = format!(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. The following tool_call_ids did not have response messages: {}",
            ids.join(", ")
        );
        ApiError::invalid("messages", message)
    };
    for (at, message) in messages.iter().enumerate() {
        if let Some(id) = message.answers.as_deref().filter(|_| message.role == Role::Tool) {
            if !asked.contains(id) {
                let message = "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.";
                return Err(ApiError::invalid(format!("messages[{at}].role"), message));
            }
            open.remove(id);
            continue;
        }
        if !open.is_empty() {
            return Err(unanswered(&open));
        }
        asked = message.calls.iter().map(|call| call.id.as_str()).collect();
        open.clone_from(&asked);
    }
    if open.is_empty() { Ok(()) } else { Err(unanswered(&open)) }
}

fn read_tools(body: &Map<String, Value>) -> Result<(Vec<Tool>, u64), ApiError> {
    let tools = match body.get("tools") {
        None | Some(Value::Null) => return Ok((Vec::new(), 0)),
        Some(Value::Array(tools)) => tools,
        Some(other) => return Err(ApiError::invalid_type("tools", "an array of objects", other)),
    };
    let mut read = Vec::with_capacity(tools.len());
    let mut size = 0;
    for (at, tool) in tools.iter().enumerate() {
        let name = tool.pointer("/function/name").and_then(Value::as_str);
        let name = name.ok_or_else(|| ApiError::missing(&format!("tools[{at}].function.name")))?;
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || !name.chars().all(fits) {
            let message = format!(
                "Invalid 'tools[{at}].function.name': string does not match pattern. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'."
            );
            return Err(ApiError::invalid(format!("tools[{at}].function.name"), message));
        }
        let parameters = tool.pointer("/function/parameters").cloned().unwrap_or(Value::Null);
        size += tokens::count(&tool.to_string());
        read.push(Tool { name: name.to_owned(), parameters });
    }
    Ok((read, size))
}

fn read_tool_choice(body: &Map<String, Value>, tools: &[Tool]) -> Result<ToolChoice, ApiError> {
    let choice = match body.get("tool_choice") {
        None | Some(Value::Null) => return Ok(ToolChoice::Auto),
        Some(choice) => choice,
    };
    if tools.is_empty() {
        let message = "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified.";
        return Err(ApiError::invalid("tool_choice", message));
    }
    if let Some(name) = choice.pointer("/function/name").and_then(Value::as_str) {
        if tools.iter().any(|tool| tool.name == name) {
            return Ok(ToolChoice::Named(name.to_owned()));
        }
        let message = format!("Tool choice '{name}' not found in 'tools' parameter.");
        return Err(ApiError::invalid("tool_choice", message));
    }
    match choice.as_str() {
        Some("auto") => Ok(ToolChoice::Auto),
        Some("none") => Ok(ToolChoice::None),
        Some("required") => Ok(ToolChoice::Required),
        _ => {
            let message = "Invalid value for 'tool_choice'. Supported values are: 'none', 'auto', 'required', and an object that names a function.";
            Err(ApiError::invalid("tool_choice", message))
        }
    }
}

fn read_stream_options(body: &Map<String, Value>, is_stream: bool) -> Result<bool, ApiError> {
    match body.get("stream_options") {
        None | Some(Value::Null) => Ok(false),
        Some(_) if !is_stream => {
            let message =
                "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
            Err(ApiError::invalid("stream_options", message))
        }
        Some(options) => Ok(options.get("include_usage").and_then(Value::as_bool).unwrap_or(false)),
    }
}

fn read_stop(body: &Map<String, Value>) -> Result<Vec<String>, ApiError> {
    match body.get("stop") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(stop)) => Ok(vec![stop.clone()]),
        Some(Value::Array(stops)) if stops.iter().all(Value::is_string) => {
            Ok(stops.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        }
        Some(other) => {
            Err(ApiError::invalid_type("stop", "one of a string or array of strings", other))
        }
    }
}

fn read_format(body: &Map<String, Value>) -> Result<AnswerFormat, ApiError> {
    let Some(format) = body.get("response_format").filter(|format| !format.is_null()) else {
        return Ok(AnswerFormat::Text);
    };
    match format.get("type").and_then(Value::as_str) {
        Some("text") => Ok(AnswerFormat::Text),
        Some("json_object") => Ok(AnswerFormat::JsonObject),
        Some("json_schema") => match format.pointer("/json_schema/schema") {
            Some(schema) => Ok(AnswerFormat::JsonSchema(schema.clone())),
            None => Err(ApiError::missing("response_format.json_schema.schema")),
        },
        _ => {
            let message = "Invalid value for 'response_format.type'. Supported values are: 'text', 'json_object', and 'json_schema'.";
            Err(ApiError::invalid("response_format.type", message))
        }
    }
}

fn text(body: &Map<String, Value>, key: &str) -> Result<Option<String>, ApiError> {
    match body.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(ApiError::invalid_type(key, "a string", other)),
    }
}

fn flag(body: &Map<String, Value>, key: &str) -> Result<bool, ApiError> {
    match body.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(other) => Err(ApiError::invalid_type(key, "a boolean", other)),
    }
}

fn count(body: &Map<String, Value>, key: &str) -> Result<Option<u64>, ApiError> {
    match body.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            value.as_u64().map(Some).ok_or_else(|| ApiError::invalid_type(key, "an integer", value))
        }
    }
}

fn within(body: &Map<String, Value>, key: &str, low: f64, high: f64) -> Result<(), ApiError> {
    match body.get(key) {
        None | Some(Value::Null) => Ok(()),
        Some(value) => match value.as_f64() {
            None => Err(ApiError::invalid_type(key, "a decimal", value)),
            Some(number) if (low..=high).contains(&number) => Ok(()),
            Some(number) => {
                let (bound, side) =
                    if number < low { (low, "below minimum") } else { (high, "above maximum") };
                let relation = if number < low { ">=" } else { "<=" };
                let message = format!(
                    "Invalid '{key}': decimal {side} value. Expected a value {relation} {bound}, but got {number} instead."
                );
                Err(ApiError::invalid(key, message))
            }
        },
    }
}
