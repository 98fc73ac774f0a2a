//! Anthropic's `POST /v1/messages`: its requests in the words of chat completions, answers in its own.

use serde_json::{Value, json};

use super::door;
use super::error::ApiError;
use super::fields::not_permitted;
use super::reply::{Answer, Frame, Tempo};
use super::tokens;

/// A request in the words of chat completions.
pub(super) fn as_chat(body: &Value) -> Result<Value, ApiError> {
    if body.get("max_tokens").is_none_or(Value::is_null) {
        return Err(ApiError::invalid("max_tokens", "max_tokens: Field required"));
    }
    check(body)?;
    let mut messages = Vec::new();
    if let Some(system) = body.get("system").filter(|system| !system.is_null()) {
        messages.push(json!({"role": "system", "content": door::content(system, kind_of)}));
    }
    match body.get("messages") {
        Some(Value::Array(said)) => said.iter().for_each(|one| read_message(one, &mut messages)),
        Some(other) => {
            return Err(ApiError::invalid_type("messages", "an array of objects", other));
        }
        None => return Err(ApiError::missing("messages")),
    }
    let mut chat = json!({ "messages": messages });
    let same = ["model", "max_tokens", "stream", "temperature", "top_p"];
    door::copy(body, &mut chat, &same.map(|name| (name, name)));
    door::copy(body, &mut chat, &[("stop_sequences", "stop")]);
    if let Some(tools) = body.get("tools").and_then(Value::as_array).filter(|all| !all.is_empty()) {
        let tool = |tool: &Value| {
            json!({"type": "function", "function": {
                "name": tool["name"], "description": tool["description"],
                "parameters": tool["input_schema"],
            }})
        };
        chat["tools"] = tools.iter().map(tool).collect();
        chat["tool_choice"] = match body.pointer("/tool_choice/type").and_then(Value::as_str) {
            Some("any") => json!("required"),
            Some("none") => json!("none"),
            Some("tool") => {
                json!({"type": "function", "function": {"name": body["tool_choice"]["name"]}})
            }
            _ => json!("auto"),
        };
    }
    Ok(chat)
}

/// What Anthropic turns away beside what chat completions do.
fn check(body: &Value) -> Result<(), ApiError> {
    let metadata = body.get("metadata").and_then(Value::as_object).into_iter().flatten();
    if let Some((name, _)) = metadata.into_iter().find(|(name, _)| *name != "user_id") {
        return Err(not_permitted(&format!("metadata.{name}")));
    }
    if body.get("temperature").and_then(Value::as_f64).is_some_and(|is| is > 1.0) {
        return Err(ApiError::invalid("temperature", "temperature: range: 0..1"));
    }
    let tools = body.get("tools").and_then(Value::as_array).into_iter().flatten();
    for (at, tool) in tools.enumerate().filter(|(_, tool)| tool.get("type").is_none()) {
        if tool.pointer("/input_schema/type").is_none() {
            let place = format!("tools.{at}.custom.input_schema.type");
            return Err(ApiError::invalid(&*place, format!("{place}: Field required")));
        }
    }
    let limit = body.get("max_tokens").and_then(Value::as_u64);
    if body.pointer("/thinking/budget_tokens").and_then(Value::as_u64) >= limit
        && body.pointer("/thinking/budget_tokens").is_some()
    {
        let message = "`max_tokens` must be greater than `thinking.budget_tokens`";
        return Err(ApiError::invalid("max_tokens", message));
    }
    let roles = body.get("messages").and_then(Value::as_array).into_iter().flatten();
    for role in roles.filter_map(|message| message.get("role").and_then(Value::as_str)) {
        if !matches!(role, "user" | "assistant") {
            let message = format!(
                "messages: Unexpected role \"{role}\". Allowed roles are \"user\" or \"assistant\"."
            );
            return Err(ApiError::invalid("messages", message));
        }
    }
    Ok(())
}

/// What a part is called in chat completions.
fn kind_of(kind: &str) -> Option<&'static str> {
    match kind {
        "text" => Some("text"),
        "image" => Some("image_url"),
        "document" => Some("file"),
        // What the model thought is nothing that it is told again.
        "thinking" | "redacted_thinking" => Some("refusal"),
        _ => None,
    }
}

/// A message is one of chat completions, and one more for each result of a tool that it brings.
fn read_message(message: &Value, into: &mut Vec<Value>) {
    let content = &message["content"];
    let Some(parts) = content.as_array() else {
        into.push(json!({"role": message["role"], "content": content}));
        return;
    };
    let is = |part: &&Value, kind: &str| part["type"] == kind;
    for part in parts.iter().filter(|part| is(part, "tool_result")) {
        let found = match &part["content"] {
            Value::Null => json!(""),
            found => door::content(found, kind_of),
        };
        into.push(json!({"role": "tool", "tool_call_id": part["tool_use_id"], "content": found}));
    }
    let calls: Vec<Value> = parts
        .iter()
        .filter(|part| is(part, "tool_use"))
        .map(|part| {
            json!({"id": part["id"], "type": "function", "function": {
                "name": part["name"], "arguments": part["input"].to_string(),
            }})
        })
        .collect();
    let said: Vec<Value> = parts
        .iter()
        .filter(|part| !is(part, "tool_result") && !is(part, "tool_use"))
        .cloned()
        .collect();
    if said.is_empty() && calls.is_empty() && parts.iter().any(|part| is(&part, "tool_result")) {
        return;
    }
    let content = match said.is_empty() {
        true => Value::Null,
        false => door::content(&Value::from(said), kind_of),
    };
    let mut message = json!({"role": message["role"], "content": content});
    if !calls.is_empty() {
        message["tool_calls"] = Value::from(calls);
    }
    into.push(message);
}

fn id(answer: &Answer) -> String {
    answer.id.replace("chatcmpl-", "msg_")
}

fn call_id(id: &str) -> String {
    id.replace("call_", "toolu_")
}

fn stop_reason(answer: &Answer) -> &'static str {
    match answer.finish_reason {
        "tool_calls" => "tool_use",
        "length" => "max_tokens",
        "content_filter" => "refusal",
        _ => "end_turn",
    }
}

/// Tokens; what came from the cache is not among `input_tokens` here.
fn usage(answer: &Answer, output_tokens: u64) -> Value {
    json!({
        "input_tokens": answer.usage.prompt - answer.usage.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": answer.usage.cached,
        "output_tokens": output_tokens,
        "service_tier": "standard",
    })
}

fn message(answer: &Answer, content: Vec<Value>, stop_reason: Option<&str>, usage: Value) -> Value {
    json!({
        "id": id(answer),
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": null,
        "usage": usage,
    })
}

/// The body of an answer that is not streamed.
pub(super) fn whole(answer: &Answer) -> Value {
    let mut content = Vec::new();
    if !answer.text.is_empty() {
        content.push(json!({"type": "text", "text": answer.text}));
    }
    for call in &answer.calls {
        let input: Value = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!({}));
        content.push(json!({
            "type": "tool_use", "id": call_id(&call.id), "name": call.name, "input": input,
        }));
    }
    let usage = usage(answer, answer.usage.completion);
    message(answer, content, Some(stop_reason(answer)), usage)
}

/// The events of a streamed answer.
pub(super) fn frames(answer: &Answer, tempo: Tempo) -> Vec<Frame> {
    let Tempo { opening, token } = tempo;
    let none = std::time::Duration::ZERO;
    let mut frames = Vec::new();
    let mut push = |wait, event: &'static str, mut data: Value| {
        data["type"] = json!(event);
        frames.push(Frame { wait, event, data: data.to_string() });
    };
    let begun = message(answer, Vec::new(), None, usage(answer, 1));
    push(opening, "message_start", json!({ "message": begun }));
    push(none, "ping", json!({}));
    let mut index = 0;
    if !answer.text.is_empty() {
        let block = json!({"type": "text", "text": ""});
        push(none, "content_block_start", json!({"index": index, "content_block": block}));
        for piece in tokens::pieces(&answer.text) {
            let delta = json!({"type": "text_delta", "text": piece});
            push(token, "content_block_delta", json!({"index": index, "delta": delta}));
        }
        push(none, "content_block_stop", json!({ "index": index }));
        index += 1;
    }
    for call in &answer.calls {
        let block = json!({
            "type": "tool_use", "id": call_id(&call.id), "name": call.name, "input": {},
        });
        push(token, "content_block_start", json!({"index": index, "content_block": block}));
        for piece in tokens::pieces(&call.arguments) {
            let delta = json!({"type": "input_json_delta", "partial_json": piece});
            push(token, "content_block_delta", json!({"index": index, "delta": delta}));
        }
        push(none, "content_block_stop", json!({ "index": index }));
        index += 1;
    }
    let delta = json!({"stop_reason": stop_reason(answer), "stop_sequence": null});
    let usage = usage(answer, answer.usage.completion);
    push(token, "message_delta", json!({"delta": delta, "usage": usage}));
    push(none, "message_stop", json!({}));
    frames
}
