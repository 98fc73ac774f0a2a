//! pydantic-ai and Logfire: the GenAI conventions with more around them, older versions with names
//! of their own. After pydantic-ai-slim 2.68 and logfire 5.4.
//!
//! Logfire may send a span twice: when it begins (`logfire.span_type=pending_span`, with an id of
//! its own and the span as parent) and whole when it ends. An agent run bears the sum of its calls
//! under `gen_ai.aggregated_usage`, which is no usage of its own.

use serde_json::Value as Json;
use throughline_trace::{Attributes, keys};

use super::draft::Draft;
use super::{events, json, messages};

const NAMES: &[(&str, &str)] = &[
    ("agent_name", keys::GEN_AI_AGENT_NAME),
    ("model_name", keys::GEN_AI_REQUEST_MODEL),
    ("operation.cost", keys::COST_USD),
    ("tool_arguments", keys::GEN_AI_TOOL_CALL_ARGUMENTS),
    ("tool_response", keys::GEN_AI_TOOL_CALL_RESULT),
];

/// Whether the span is only the notice that one has begun.
pub(super) fn is_pending(attributes: &Attributes) -> bool {
    attributes.str("logfire.span_type") == Some("pending_span")
}

pub(super) fn add(draft: &mut Draft<'_>) {
    let came = draft.came();
    let conversation = ["pydantic_ai.all_messages", "all_messages_events"];
    let conversation = conversation.iter().find_map(|key| json(came, key));
    let request = json(came, "request_data").filter(|request| request.get("model").is_some());
    // Versions that named no operation.
    if came.str("agent_name").is_some() && conversation.is_some() {
        draft.put(keys::GEN_AI_OPERATION_NAME, "invoke_agent");
    } else if came.str(keys::GEN_AI_TOOL_NAME).is_some() && came.get("tool_arguments").is_some() {
        draft.put(keys::GEN_AI_OPERATION_NAME, "execute_tool");
    } else if request.as_ref().is_some_and(|request| request.get("messages").is_some()) {
        draft.put(keys::GEN_AI_OPERATION_NAME, "chat");
    }
    draft.copy_table(NAMES);
    if let Some(request) = &request {
        messages::put_request(draft, request);
        if let Some(list) = request.get("messages") {
            messages::put_input(draft, list.clone());
        }
    }
    if let Some(response) = json(came, "response_data") {
        answered(draft, &response);
    }
    if let Some(list) = json(came, "events") {
        told(draft, list);
    }
    if let Some(list) = conversation {
        told(draft, list);
    }
}

/// What the instrumentations of clients keep of an answer, whole or put together from a stream.
fn answered(draft: &mut Draft<'_>, response: &Json) {
    if let Some(usage) = response.get("usage") {
        messages::put_usage(draft, usage);
    }
    let text = response.get("combined_chunk_content");
    let message = response.get("message").cloned();
    let message = message.or_else(|| Some(events::message(text?.clone(), "assistant")));
    if let Some(message) = message {
        messages::put_output(draft, Json::Array(vec![message]), None);
    }
}

/// A conversation in one list, as messages or as events: what the model answered last is the
/// answer, all before it went in.
fn told(draft: &mut Draft<'_>, list: Json) {
    let Json::Array(list) = list else { return };
    let (mut input, mut output) = (Vec::new(), Vec::new());
    for item in list {
        let name = item.get("event.name").and_then(Json::as_str).map(str::to_owned);
        match name.as_deref() {
            Some("gen_ai.choice") => output.push(events::answer(item)),
            Some(name) => {
                let role = name.trim_start_matches("gen_ai.").trim_end_matches(".message");
                input.push(events::message(item, role));
            }
            None => input.push(item),
        }
    }
    let is_answer = |message: &Json| message.get("role") == Some(&Json::from("assistant"));
    if output.is_empty() && input.last().is_some_and(is_answer) {
        output.extend(input.pop());
    }
    messages::put_input(draft, Json::Array(input));
    messages::put_output(draft, Json::Array(output), None);
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use throughline_trace::{Span, SpanId, TraceId};

    use super::*;

    #[test]
    fn the_first_version_told_messages_as_events() {
        let mut span = Span::new(TraceId::from_u128(1), SpanId::from_u64(1), None, "chat gpt-4o");
        let list = json!([
            { "event.name": "gen_ai.user.message", "content": "hi", "role": "user" },
            { "event.name": "gen_ai.choice", "index": 0,
              "message": { "role": "assistant", "content": "hello" } },
        ]);
        span.attributes.set("events", list.to_string());
        let mut draft = Draft::new(&span);
        add(&mut draft);
        assert_eq!(
            draft.str(keys::GEN_AI_INPUT_MESSAGES),
            Some(r#"[{"parts":[{"content":"hi","type":"text"}],"role":"user"}]"#)
        );
        assert_eq!(
            draft.str(keys::GEN_AI_OUTPUT_MESSAGES),
            Some(r#"[{"parts":[{"content":"hello","type":"text"}],"role":"assistant"}]"#)
        );
    }
}
