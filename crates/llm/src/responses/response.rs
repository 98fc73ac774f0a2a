//! Answers in the form of responses.

use serde_json::{Map, Value, json};

use super::items::{Side, items_of, note_item, read_item};
use super::{usage_of, usage_to_json};
use crate::assemble::Order;
use crate::chat::{ChatResponse, Choice};
use crate::kept::Kept;
use crate::message::{FinishReason, Message, Part, Role};
use crate::openai::{ApiError, WireError, api_error};

/// Reads the body of an answer.
///
/// # Errors
/// [`WireError::Api`] when the body is an error, or an answer that failed; [`WireError`] of another
/// kind when it is neither.
pub fn parse_response(body: &[u8]) -> Result<ChatResponse, WireError> {
    let json: Value = serde_json::from_slice(body)
        .map_err(|source| WireError::Json { expected: "a response", source })?;
    response_of(json)
}

/// [`parse_response`], of JSON.
pub(super) fn response_of(json: Value) -> Result<ChatResponse, WireError> {
    if let Some(error) = failure_of(&json) {
        return Err(WireError::Api(error));
    }
    let field = |expected: &'static str, got: &Value| WireError::Field {
        field: "output".to_owned(),
        expected,
        got: got.to_string(),
    };
    let Value::Object(mut wire) = json else { return Err(field("a response", &json)) };
    let Some(Value::Array(output)) = wire.remove("output") else {
        return Err(field("a list of items", &Value::Object(wire)));
    };
    let mut order = Order::default();
    output.iter().for_each(|item| note_item(&mut order, item));
    let parts: Vec<Part> = output.into_iter().flat_map(|item| read_item(item).1).collect();
    let message = Message { role: Role::Assistant, parts, name: None };
    let finish_reason = finish_reason(&wire, message.tool_calls().next().is_some());
    let usage = wire.remove("usage").filter(Value::is_object).map(|usage| usage_of(&usage));
    let mut text = |key: &str| match wire.remove(key) {
        Some(Value::String(text)) => text,
        _ => String::new(),
    };
    let (id, model) = (text("id"), text("model"));
    let created = wire.remove("created_at").and_then(|secs| secs.as_f64());
    Ok(ChatResponse {
        id,
        model,
        created_unix_secs: created.map_or(0, |secs| secs as u64),
        choices: vec![Choice { message, finish_reason }],
        usage,
        extra: said_beside(&wire),
        has_unread: order.is_broken(),
        ..ChatResponse::default()
    })
}

/// What an answer says of itself beside what is read of it.
pub(super) fn said_beside(wire: &Map<String, Value>) -> Map<String, Value> {
    const READ: [&str; 9] = [
        "id",
        "object",
        "created_at",
        "status",
        "error",
        "incomplete_details",
        "model",
        "output",
        "usage",
    ];
    let rest = wire.iter().filter(|(name, _)| !READ.contains(&name.as_str()));
    rest.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The error that a body is, or that the answer in it failed with.
pub(super) fn failure_of(json: &Value) -> Option<ApiError> {
    let is_failed = json["status"] == "failed";
    if json.get("output").is_some_and(Value::is_array) && !is_failed {
        return None;
    }
    match json.get("error").filter(|error| !error.is_null()) {
        Some(_) => api_error(json),
        None if is_failed => {
            let message = "the response failed without a reason".to_owned();
            Some(ApiError { message, ..ApiError::default() })
        }
        None => api_error(json),
    }
}

/// Why an answer ended; one that is still in progress has not.
pub(super) fn finish_reason(wire: &Map<String, Value>, has_calls: bool) -> FinishReason {
    let cut = wire.get("incomplete_details").and_then(|details| details["reason"].as_str());
    match (wire.get("status").and_then(Value::as_str), cut) {
        (_, Some("max_output_tokens" | "max_tokens")) => FinishReason::Length,
        (_, Some(reason)) => FinishReason::from_text(reason),
        (Some("completed") | None, None) if has_calls => FinishReason::ToolCall,
        (Some("completed") | None, None) => FinishReason::Stop,
        _ => FinishReason::Error,
    }
}

/// Builds the body of an answer: of the first choice, since this form has one.
pub fn response_to_json(response: &ChatResponse) -> Value {
    let choice = response.choices.first();
    let output = choice.map(|choice| items_of(&choice.message, Side::Provider));
    let mut output = output.unwrap_or_default();
    for (at, item) in output.iter_mut().enumerate() {
        number_item(item, &response.id, at);
    }
    let (status, details) = status_of(choice.map(|choice| &choice.finish_reason));
    let mut wire = response.extra.clone();
    Kept::forget(&mut wire);
    wire.insert("id".to_owned(), Value::from(response.id.as_str()));
    wire.insert("object".to_owned(), Value::from("response"));
    wire.insert("created_at".to_owned(), Value::from(response.created_unix_secs));
    wire.insert("status".to_owned(), Value::from(status));
    wire.insert("error".to_owned(), Value::Null);
    wire.insert("incomplete_details".to_owned(), details);
    wire.insert("model".to_owned(), Value::from(response.model.as_str()));
    wire.insert("output".to_owned(), Value::from(output));
    if let Some(usage) = response.usage {
        wire.insert("usage".to_owned(), usage_to_json(usage));
    }
    Value::Object(wire)
}

/// Gives an item an id, which readers of this form expect.
pub(super) fn number_item(item: &mut Value, response_id: &str, at: usize) {
    let Some(object) = item.as_object_mut() else { return };
    let prefix = match object.get("type").and_then(Value::as_str) {
        Some("message") => "msg",
        Some("function_call") => "fc",
        Some("reasoning") => "rs",
        _ => "item",
    };
    object.entry("id").or_insert_with(|| Value::from(format!("{prefix}_{at}_{response_id}")));
}

fn status_of(reason: Option<&FinishReason>) -> (&'static str, Value) {
    match reason {
        Some(FinishReason::Length) => ("incomplete", json!({ "reason": "max_output_tokens" })),
        Some(FinishReason::ContentFilter) => ("incomplete", json!({ "reason": "content_filter" })),
        Some(FinishReason::Other(name)) => ("incomplete", json!({ "reason": name })),
        Some(FinishReason::Stop | FinishReason::ToolCall) => ("completed", Value::Null),
        Some(FinishReason::Error) | None => ("in_progress", Value::Null),
    }
}
