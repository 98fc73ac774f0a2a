//! Answers in Anthropic's form.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::content::{Side, blocks_of, note_block, parts_of};
use super::{COUNTS, FORM, usage_of, usage_to_json};
use crate::assemble::Order;
use crate::chat::{ChatResponse, Choice};
use crate::kept::{Kept, kind_of};
use crate::message::{FinishReason, Message, Role};
use crate::openai::{WireError, api_error};

#[derive(Deserialize)]
struct WireResponse {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default, rename = "type")]
    _kind: Option<Value>,
    #[serde(default, rename = "role")]
    _role: Option<Value>,
    content: Vec<Value>,
    #[serde(default)]
    stop_reason: Option<String>,
    #[serde(default)]
    usage: Option<Map<String, Value>>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

/// Reads the body of an answer. What its usage says beside the tokens (`service_tier`) is kept in
/// `extra["usage"]`.
///
/// # Errors
/// [`WireError::Api`] when the body is an error, [`WireError::Json`] when it is neither.
pub fn parse_response(body: &[u8]) -> Result<ChatResponse, WireError> {
    let json_error = |source| WireError::Json { expected: "a message", source };
    let wire: WireResponse = match serde_json::from_slice(body) {
        Ok(wire) => wire,
        Err(source) => return Err(error_within(body).unwrap_or_else(|| json_error(source))),
    };
    let mut order = Order::default();
    wire.content.iter().for_each(|block| note_block(&mut order, block));
    let is_said = |(key, value): (&String, &Value)| key != "usage" && !value.is_null();
    let has_unread = order.is_broken() || wire.extra.iter().any(is_said);
    let mut kept = Kept::default();
    let parts = parts_of(Value::from(wire.content), "/content", &mut kept);
    let finish_reason =
        wire.stop_reason.map_or(FinishReason::Error, |reason| FinishReason::from_text(&reason));
    let mut extra = wire.extra;
    kept.store(FORM, &mut extra);
    let usage = wire.usage.map(|mut usage| {
        let tokens = usage_of(&Value::Object(usage.clone()));
        usage.retain(|key, _| !COUNTS.contains(&key.as_str()));
        if !usage.is_empty() {
            extra.insert("usage".to_owned(), Value::Object(usage));
        }
        tokens
    });
    let message = Message { role: Role::Assistant, parts, name: None };
    Ok(ChatResponse {
        id: wire.id.unwrap_or_default(),
        model: wire.model.unwrap_or_default(),
        choices: vec![Choice { message, finish_reason }],
        usage,
        extra,
        has_unread,
        ..ChatResponse::default()
    })
}

/// The error that a body carries in place of an answer.
fn error_within(body: &[u8]) -> Option<WireError> {
    api_error(&serde_json::from_slice(body).ok()?).map(WireError::Api)
}

/// Builds the body of an answer: of the first choice, since this form has one.
pub fn response_to_json(response: &ChatResponse) -> Value {
    let mut wire = response.extra.clone();
    let kept = Kept::take(FORM, &mut wire);
    let rest = wire.remove("usage");
    let choice = response.choices.first();
    let content = choice.map(|choice| blocks_of(&choice.message, Side::Provider));
    let reason = choice.map(|choice| stop_reason(&choice.finish_reason, wire.get("stop_sequence")));
    wire.insert("id".to_owned(), Value::from(response.id.as_str()));
    wire.insert("type".to_owned(), Value::from("message"));
    wire.insert("role".to_owned(), Value::from("assistant"));
    wire.insert("model".to_owned(), Value::from(response.model.as_str()));
    wire.insert("content".to_owned(), Value::from(content.unwrap_or_default()));
    wire.insert("stop_reason".to_owned(), json!(reason));
    wire.entry("stop_sequence").or_insert(Value::Null);
    if let Some(usage) = response.usage {
        let rest = rest.as_ref().and_then(Value::as_object);
        wire.insert("usage".to_owned(), usage_to_json(usage, rest));
    }
    let mut wire = Value::Object(wire);
    kept.restore(&mut wire);
    wire
}

/// Anthropic's name of a reason; an answer that never ended has none.
pub(super) fn stop_reason<'a>(
    reason: &'a FinishReason,
    stop_sequence: Option<&Value>,
) -> Option<&'a str> {
    match reason {
        FinishReason::Stop if stop_sequence.is_some_and(Value::is_string) => Some("stop_sequence"),
        FinishReason::Stop => Some("end_turn"),
        FinishReason::Length => Some("max_tokens"),
        FinishReason::ContentFilter => Some("refusal"),
        FinishReason::ToolCall => Some("tool_use"),
        FinishReason::Error => None,
        FinishReason::Other(name) => Some(name),
    }
}

/// Whether a body or event is an error.
pub(super) fn is_error(json: &Value) -> bool {
    kind_of(json) == Some("error")
}
