//! Answers in OpenAI's form, whole and in chunks.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};
use throughline_trace::Usage;

use super::content::{Side, WireMessage, arguments_of, message_to_json, parts_of};
use super::{WireError, WireUsage, api_error};
use crate::chat::{ChatResponse, Choice, Chunk, Delta, ToolCallDelta};
use crate::kept::Kept;
use crate::message::{FinishReason, Message, Part, Role};
use crate::wire::from_body;

#[derive(Deserialize)]
struct WireResponse {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    model: Option<String>,
    /// A number of seconds; some servers write a fraction.
    #[serde(default)]
    created: Option<f64>,
    choices: Vec<WireChoice>,
    #[serde(default)]
    usage: Option<WireUsage>,
    #[serde(default, rename = "object")]
    _object: IgnoredAny,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

#[derive(Deserialize)]
struct WireChoice {
    #[serde(default)]
    message: WireMessage,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct WireChunk {
    /// What a gateway numbers chunks with.
    #[serde(default)]
    chunk_seq: Option<u64>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    created: Option<f64>,
    /// Missing or empty on chunks that only carry usage.
    #[serde(default)]
    choices: Option<Vec<WireChunkChoice>>,
    #[serde(default)]
    usage: Option<WireUsage>,
}

#[derive(Deserialize)]
struct WireChunkChoice {
    #[serde(default)]
    index: usize,
    #[serde(default)]
    delta: Option<WireDelta>,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct WireDelta {
    #[serde(default)]
    role: Option<String>,
    /// Text; from some servers a list of parts, as in a whole message.
    #[serde(default)]
    content: Value,
    #[serde(default)]
    reasoning_content: Option<String>,
    /// Some send an object here, which is no text to show.
    #[serde(default)]
    reasoning: Value,
    #[serde(default)]
    refusal: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<WireToolCallDelta>>,
}

#[derive(Deserialize)]
struct WireToolCallDelta {
    #[serde(default)]
    index: Option<usize>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    function: Option<WireFunctionDelta>,
}

#[derive(Default, Deserialize)]
struct WireFunctionDelta {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    arguments: Value,
}

/// Reads the body of an answer.
///
/// # Errors
/// [`WireError::Api`] when the body is an error that came with status 200, [`WireError::Json`]
/// when it is neither.
pub fn parse_response(body: &[u8]) -> Result<ChatResponse, WireError> {
    let json_error = |source| WireError::Json { expected: "a chat completion", source };
    let wire: WireResponse = match from_body(body) {
        // An error beside the choices came in the middle of the answer.
        Ok(WireResponse { extra, .. }) if extra.get("error").is_some_and(Value::is_object) => {
            let error = api_error(&Value::Object(extra)).unwrap_or_default();
            return Err(WireError::Api(error));
        }
        Ok(wire) => wire,
        Err(source) => return Err(error_within(body).unwrap_or_else(|| json_error(source))),
    };
    Ok(ChatResponse {
        id: wire.id.unwrap_or_default(),
        model: wire.model.unwrap_or_default(),
        created_unix_secs: wire.created.map_or(0, |secs| secs as u64),
        choices: wire
            .choices
            .into_iter()
            .map(|choice| Choice {
                message: Message::from(choice.message),
                finish_reason: choice
                    .finish_reason
                    .map_or(FinishReason::Error, |reason| FinishReason::from_text(&reason)),
            })
            .collect(),
        usage: wire.usage.map(Usage::from),
        extra: wire.extra,
        ..ChatResponse::default()
    })
}

/// Reads the data of one event of a streamed answer ([`DONE`](crate::sse::DONE) is not one).
///
/// # Errors
/// [`WireError::Api`] when the provider reports an error in the middle of the stream,
/// [`WireError::Json`] when it is neither a chunk nor an error.
pub fn parse_chunk(data: &str) -> Result<Chunk, WireError> {
    if let Some(error) = error_within(data.as_bytes()) {
        return Err(error);
    }
    let wire: WireChunk = serde_json::from_str(data)
        .map_err(|source| WireError::Json { expected: "a chat completion chunk", source })?;
    Ok(Chunk {
        id: wire.id.unwrap_or_default(),
        model: wire.model.unwrap_or_default(),
        created_unix_secs: wire.created.map_or(0, |secs| secs as u64),
        deltas: wire.choices.into_iter().flatten().map(Delta::from).collect(),
        usage: wire.usage.map(Usage::from),
        seq: wire.chunk_seq,
    })
}

/// The error that a body carries in place of an answer, or beside what came of one (OpenRouter's, in
/// the middle of a stream). The first check keeps the cost of every ordinary chunk at one search.
fn error_within(body: &[u8]) -> Option<WireError> {
    let has_error = body.windows(7).any(|window| window == b"\"error\"");
    if !has_error {
        return None;
    }
    let json: Value = serde_json::from_slice(body).ok()?;
    let has_choices = json.get("choices").is_some_and(Value::is_array);
    if has_choices && !json.get("error").is_some_and(Value::is_object) {
        return None;
    }
    api_error(&json).map(WireError::Api)
}

/// What a list of parts says, and what it tells of the model's thoughts.
fn texts_of(content: Value) -> (Option<String>, Option<String>) {
    let (mut text, mut thought) = (None, None);
    for part in parts_of(content) {
        let (all, more): (&mut Option<String>, String) = match part {
            Part::Text(more) => (&mut text, more),
            Part::Reasoning(more) => (&mut thought, more),
            _ => continue,
        };
        all.get_or_insert_default().push_str(&more);
    }
    (text, thought)
}

impl From<WireChunkChoice> for Delta {
    fn from(wire: WireChunkChoice) -> Self {
        let delta = wire.delta.unwrap_or_default();
        let tool_calls = delta.tool_calls.into_iter().flatten();
        let (text, thought) = match delta.content {
            Value::String(text) => (Some(text), None),
            content => texts_of(content),
        };
        let reasoning = match delta.reasoning {
            Value::String(text) => Some(text),
            _ => None,
        };
        Self {
            index: wire.index,
            role: delta.role.as_deref().filter(|role| !role.is_empty()).map(Role::from_text),
            text,
            reasoning: delta.reasoning_content.or(reasoning).or(thought),
            refusal: delta.refusal,
            tool_calls: tool_calls
                .map(|call| {
                    let function = call.function.unwrap_or_default();
                    ToolCallDelta {
                        index: call.index,
                        id: call.id.filter(|id| !id.is_empty()),
                        name: function.name.filter(|name| !name.is_empty()),
                        arguments: arguments_of(function.arguments),
                    }
                })
                .collect(),
            kept: Vec::new(),
            finish_reason: wire.finish_reason.as_deref().map(FinishReason::from_text),
        }
    }
}

/// Builds the body of an answer.
pub fn response_to_json(response: &ChatResponse) -> Value {
    let choices: Vec<Value> = response
        .choices
        .iter()
        .enumerate()
        .map(|(index, choice)| {
            let message = message_to_json(&choice.message, Side::Provider, &mut Vec::new()).pop();
            json!({
                "index": index,
                "message": message,
                "logprobs": null,
                "finish_reason": wire_reason(&choice.finish_reason),
            })
        })
        .collect();
    let mut wire = response.extra.clone();
    Kept::forget(&mut wire);
    wire.insert("id".to_owned(), Value::from(response.id.as_str()));
    wire.insert("object".to_owned(), Value::from("chat.completion"));
    wire.insert("created".to_owned(), Value::from(response.created_unix_secs));
    wire.insert("model".to_owned(), Value::from(response.model.as_str()));
    wire.insert("choices".to_owned(), Value::from(choices));
    if let Some(usage) = response.usage {
        wire.insert("usage".to_owned(), json!(WireUsage::from(usage)));
    }
    Value::Object(wire)
}

/// Builds one chunk of a streamed answer.
pub fn chunk_to_json(chunk: &Chunk) -> Value {
    let choices: Vec<Value> = chunk
        .deltas
        .iter()
        .map(|delta| {
            json!({
                "index": delta.index,
                "delta": delta_to_json(delta),
                "logprobs": null,
                "finish_reason": delta.finish_reason.as_ref().map(wire_reason),
            })
        })
        .collect();
    let mut wire = json!({
        "id": chunk.id,
        "object": "chat.completion.chunk",
        "created": chunk.created_unix_secs,
        "model": chunk.model,
        "choices": choices,
    });
    if let Some(usage) = chunk.usage {
        wire["usage"] = json!(WireUsage::from(usage));
    }
    wire
}

fn delta_to_json(delta: &Delta) -> Map<String, Value> {
    let mut wire = Map::new();
    let texts = [
        ("role", delta.role.as_ref().map(Role::as_str)),
        ("content", delta.text.as_deref()),
        ("reasoning_content", delta.reasoning.as_deref()),
        ("refusal", delta.refusal.as_deref()),
    ];
    for (key, text) in texts {
        if let Some(text) = text {
            wire.insert(key.to_owned(), Value::from(text));
        }
    }
    let calls: Vec<Value> = delta.tool_calls.iter().map(tool_call_delta_to_json).collect();
    if !calls.is_empty() {
        wire.insert("tool_calls".to_owned(), Value::from(calls));
    }
    wire
}

fn tool_call_delta_to_json(call: &ToolCallDelta) -> Value {
    let mut function = Map::new();
    if let Some(name) = &call.name {
        function.insert("name".to_owned(), Value::from(name.as_str()));
    }
    function.insert("arguments".to_owned(), Value::from(call.arguments.as_str()));
    let mut wire = json!({ "function": function });
    if let Some(index) = call.index {
        wire["index"] = Value::from(index);
    }
    if let Some(id) = &call.id {
        wire["id"] = Value::from(id.as_str());
        wire["type"] = Value::from("function");
    }
    wire
}

fn wire_reason(reason: &FinishReason) -> &str {
    match reason {
        FinishReason::ToolCall => "tool_calls",
        other => other.as_str(),
    }
}
