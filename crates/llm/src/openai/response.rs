//! Answers in OpenAI's form, whole and, written, in chunks.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};
use throughline_trace::Usage;

use super::content::{Side, WireMessage, message_to_json};
use super::{WireError, WireUsage, api_error};
use crate::chat::{ChatResponse, Choice, Chunk, Delta, ToolCallDelta};
use crate::kept::Kept;
use crate::message::{FinishReason, Message, Role};
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

/// The error that a body carries in place of an answer, or beside what came of one (OpenRouter's, in
/// the middle of a stream). The first check keeps the cost of every ordinary chunk at one search.
pub(super) fn error_within(body: &[u8]) -> Option<WireError> {
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
    let mut wire = chunk.extra.clone();
    Kept::forget(&mut wire);
    wire.insert("id".to_owned(), Value::from(chunk.id.as_str()));
    wire.insert("object".to_owned(), Value::from("chat.completion.chunk"));
    wire.insert("created".to_owned(), Value::from(chunk.created_unix_secs));
    wire.insert("model".to_owned(), Value::from(chunk.model.as_str()));
    wire.insert("choices".to_owned(), Value::from(choices));
    if let Some(usage) = chunk.usage {
        wire.insert("usage".to_owned(), json!(WireUsage::from(usage)));
    }
    Value::Object(wire)
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
