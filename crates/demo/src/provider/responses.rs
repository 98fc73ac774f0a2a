//! OpenAI's `POST /v1/responses`: its requests in the words of chat completions, answers in its own.
//! Nothing is remembered from one request to the next.

use serde_json::{Value, json};

use super::door;
use super::error::ApiError;
use super::reply::{Answer, Frame, Tempo};
use super::request::Call;
use super::tokens;

/// A request in the words of chat completions.
pub(super) fn as_chat(body: &Value) -> Result<Value, ApiError> {
    if let Some(before) = body.get("previous_response_id").and_then(Value::as_str) {
        let message = format!("Previous response with id '{before}' not found.");
        return Err(ApiError::invalid("previous_response_id", message));
    }
    let mut messages = Vec::new();
    if let Some(instructions) = body.get("instructions").filter(|text| !text.is_null()) {
        messages.push(json!({"role": "system", "content": instructions}));
    }
    match body.get("input") {
        Some(Value::String(text)) => messages.push(json!({"role": "user", "content": text})),
        Some(Value::Array(items)) => {
            for (at, item) in items.iter().enumerate() {
                read_item(at, item, &mut messages)?;
            }
        }
        Some(other) => {
            let expected = "one of a string or array of objects";
            return Err(ApiError::invalid_type("input", expected, other));
        }
        None => return Err(ApiError::missing("input")),
    }
    let mut chat = json!({ "messages": messages });
    let same = ["model", "stream", "temperature", "top_p"];
    door::copy(body, &mut chat, &same.map(|name| (name, name)));
    door::copy(body, &mut chat, &[("max_output_tokens", "max_tokens")]);
    let tools = body.get("tools").and_then(Value::as_array).into_iter().flatten();
    let functions: Vec<Value> = tools
        .filter(|tool| tool["type"] == "function")
        .map(|tool| {
            json!({"type": "function", "function": {
                "name": tool["name"], "description": tool["description"],
                "parameters": tool["parameters"],
            }})
        })
        .collect();
    if !functions.is_empty() {
        chat["tools"] = Value::from(functions);
        chat["tool_choice"] = match body.get("tool_choice") {
            Some(Value::String(choice)) => json!(choice),
            Some(choice) if choice["type"] == "function" => {
                json!({"type": "function", "function": {"name": choice["name"]}})
            }
            _ => json!("auto"),
        };
    }
    let format = body.pointer("/text/format").filter(|format| !format.is_null());
    if let Some(format) = format {
        chat["response_format"] = match format["type"].as_str() {
            Some("json_schema") => json!({"type": "json_schema", "json_schema": {
                "name": format["name"], "schema": format["schema"],
            }}),
            _ => format.clone(),
        };
    }
    Ok(chat)
}

/// What a part is called in chat completions.
fn kind_of(kind: &str) -> Option<&'static str> {
    match kind {
        "input_text" | "output_text" | "refusal" => Some("text"),
        "input_image" => Some("image_url"),
        "input_file" => Some("file"),
        _ => None,
    }
}

/// An item is a message, part of the message before, or nothing that a model is told.
fn read_item(at: usize, item: &Value, into: &mut Vec<Value>) -> Result<(), ApiError> {
    match item.get("type").and_then(Value::as_str) {
        None | Some("message") => {
            let content = door::content(&item["content"], kind_of);
            into.push(json!({"role": item["role"], "content": content}));
        }
        Some("function_call") => {
            let call = json!({"id": item["call_id"], "type": "function", "function": {
                "name": item["name"], "arguments": item["arguments"],
            }});
            // Calls that follow each other were asked for at once.
            let before = into.last_mut().and_then(|last| last.get_mut("tool_calls"));
            match before.and_then(Value::as_array_mut) {
                Some(calls) => calls.push(call),
                None => {
                    into.push(json!({"role": "assistant", "content": null, "tool_calls": [call]}))
                }
            }
        }
        Some("function_call_output") => {
            let found = door::content(&item["output"], kind_of);
            into.push(json!({"role": "tool", "tool_call_id": item["call_id"], "content": found}));
        }
        Some("reasoning") => {}
        Some(other) => {
            let message = format!(
                "Invalid value: '{other}'. The simulated provider knows 'message', 'function_call', 'function_call_output' and 'reasoning'."
            );
            return Err(ApiError::invalid(format!("input[{at}].type"), message));
        }
    }
    Ok(())
}

/// The id of an item: that of the answer or call with another beginning.
fn named(prefix: &str, id: &str) -> String {
    let rest = id.split_once(['-', '_']).map_or(id, |(_, rest)| rest);
    format!("{prefix}_{rest}")
}

fn text_part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

fn message_item(answer: &Answer, status: &str, content: Vec<Value>) -> Value {
    json!({
        "id": named("msg", &answer.id), "type": "message", "role": "assistant",
        "status": status, "content": content,
    })
}

fn call_item(call: &Call, status: &str, arguments: &str) -> Value {
    json!({
        "id": named("fc", &call.id), "type": "function_call", "call_id": call.id,
        "name": call.name, "arguments": arguments, "status": status,
    })
}

/// What a model that thinks leaves of it; its thoughts are not shown.
fn thought_item(answer: &Answer) -> Option<Value> {
    let item = json!({"id": named("rs", &answer.id), "type": "reasoning", "summary": []});
    (answer.usage.reasoning > 0).then_some(item)
}

fn has_message(answer: &Answer) -> bool {
    !answer.text.is_empty() || answer.calls.is_empty()
}

fn output(answer: &Answer) -> Vec<Value> {
    let mut items: Vec<Value> = thought_item(answer).into_iter().collect();
    if has_message(answer) {
        items.push(message_item(answer, "completed", vec![text_part(&answer.text)]));
    }
    items.extend(answer.calls.iter().map(|call| call_item(call, "completed", &call.arguments)));
    items
}

fn response(answer: &Answer, status: &str, output: Vec<Value>, usage: Value) -> Value {
    json!({
        "id": named("resp", &answer.id),
        "object": "response",
        "created_at": answer.created_unix_secs,
        "status": status,
        "background": false,
        "error": null,
        "incomplete_details": null,
        "instructions": null,
        "metadata": {},
        "model": answer.model,
        "output": output,
        "parallel_tool_calls": true,
        "previous_response_id": null,
        "service_tier": "default",
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": usage,
    })
}

/// The body of an answer that is not streamed, and what the last event of a stream repeats.
pub(super) fn whole(answer: &Answer) -> Value {
    let super::reply::Usage { prompt, cached, completion, reasoning } = answer.usage;
    let usage = json!({
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": prompt + completion,
    });
    let why = match answer.finish_reason {
        "length" => Some("max_output_tokens"),
        "content_filter" => Some("content_filter"),
        _ => None,
    };
    let status = if why.is_some() { "incomplete" } else { "completed" };
    let mut whole = response(answer, status, output(answer), usage);
    if let Some(reason) = why {
        whole["incomplete_details"] = json!({ "reason": reason });
    }
    whole
}

/// The events of a streamed answer.
pub(super) fn frames(answer: &Answer, tempo: Tempo) -> Vec<Frame> {
    let Tempo { opening, token } = tempo;
    let none = std::time::Duration::ZERO;
    let mut frames: Vec<Frame> = Vec::new();
    let mut push = |wait, event: &'static str, mut data: Value| {
        data["type"] = json!(event);
        data["sequence_number"] = json!(frames.len());
        frames.push(Frame { wait, event, data: data.to_string() });
    };
    let begun = response(answer, "in_progress", Vec::new(), Value::Null);
    push(opening, "response.created", json!({ "response": begun }));
    push(none, "response.in_progress", json!({ "response": begun }));
    let mut at = 0;
    if let Some(item) = thought_item(answer) {
        push(none, "response.output_item.added", json!({"output_index": at, "item": item}));
        push(none, "response.output_item.done", json!({"output_index": at, "item": item}));
        at += 1;
    }
    if has_message(answer) {
        let id = named("msg", &answer.id);
        let place = |more: Value| {
            let mut place = json!({"item_id": id, "output_index": at, "content_index": 0});
            for (key, value) in more.as_object().into_iter().flatten() {
                place[key] = value.clone();
            }
            place
        };
        let item = message_item(answer, "in_progress", Vec::new());
        push(none, "response.output_item.added", json!({"output_index": at, "item": item}));
        push(none, "response.content_part.added", place(json!({ "part": text_part("") })));
        for piece in tokens::pieces(&answer.text) {
            let delta = place(json!({"delta": piece, "logprobs": []}));
            push(token, "response.output_text.delta", delta);
        }
        let text = place(json!({"text": answer.text, "logprobs": []}));
        push(none, "response.output_text.done", text);
        let part = text_part(&answer.text);
        push(none, "response.content_part.done", place(json!({ "part": part })));
        let item = message_item(answer, "completed", vec![part]);
        push(none, "response.output_item.done", json!({"output_index": at, "item": item}));
        at += 1;
    }
    for call in &answer.calls {
        let id = named("fc", &call.id);
        let item = call_item(call, "in_progress", "");
        push(token, "response.output_item.added", json!({"output_index": at, "item": item}));
        for piece in tokens::pieces(&call.arguments) {
            let delta = json!({"item_id": id, "output_index": at, "delta": piece});
            push(token, "response.function_call_arguments.delta", delta);
        }
        let done = json!({
            "item_id": id, "output_index": at, "name": call.name, "arguments": call.arguments,
        });
        push(none, "response.function_call_arguments.done", done);
        let item = call_item(call, "completed", &call.arguments);
        push(none, "response.output_item.done", json!({"output_index": at, "item": item}));
        at += 1;
    }
    let whole = whole(answer);
    let event = match whole["status"].as_str() {
        Some("incomplete") => "response.incomplete",
        _ => "response.completed",
    };
    push(token, event, json!({ "response": whole }));
    frames
}
