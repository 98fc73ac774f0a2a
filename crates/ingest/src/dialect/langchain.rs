//! The forms of LangChain, which several dialects carry as JSON: its messages, its answers, and
//! what its metadata tell of agent and session.

use std::collections::HashSet;

use serde_json::{Map, Value as Json, json};
use throughline_trace::{Span, SpanId, SpanRole, StatusCode, TraceId, keys};

use super::draft::Draft;

/// The runnable that tries its branches in order.
const FALLBACKS: &str = "RunnableWithFallbacks";

/// Names of the metadata that keep the turns of a conversation together, by how well they say so.
pub(super) const SESSIONS: &[&str] =
    &["session_id", "sessionId", "thread_id", "threadId", "conversation_id", "chat_id", "chatId"];

/// Names of the metadata that say who asked.
pub(super) const USERS: &[&str] = &["user_id", "userId"];

/// Whether a span of this name tries branches until one succeeds.
pub(crate) fn is_fallback(name: &str) -> bool {
    name.starts_with(FALLBACKS)
}

/// Adds that the span tries branches. By itself it tells only when all of them failed; what a branch
/// beneath it tells is added by [`fallbacks`].
pub(super) fn fallback(draft: &mut Draft<'_>) {
    draft.put(keys::ROLE, "fallback");
    if draft.span.status.code == StatusCode::Error {
        draft.put(keys::FALLBACK_DECISION, "triggered");
        draft.put(keys::FALLBACK_RESULT, "failed");
    }
}

/// Adds to fallbacks that succeeded what the branches that came with them tell: one that failed was
/// made good by another. Without one nothing is added: it may have come in an earlier request, and
/// "not needed" must not be said for want of news.
pub(crate) fn fallbacks(spans: &mut [Span]) {
    let failed: HashSet<(TraceId, SpanId)> = spans
        .iter()
        .filter(|span| span.is_error())
        .filter_map(|span| Some((span.trace_id, span.parent_span_id?)))
        .collect();
    for span in spans.iter_mut().filter(|span| !span.is_error() && is_fallback(&span.name)) {
        let is_silent = span.role() == SpanRole::Fallback
            && span.attributes.get(keys::FALLBACK_DECISION).is_none();
        if is_silent && failed.contains(&(span.trace_id, span.span_id)) {
            span.attributes.set(keys::FALLBACK_DECISION, "triggered");
            span.attributes.set(keys::FALLBACK_BRANCH, "degraded");
            span.attributes.set(keys::FALLBACK_RESULT, "success");
        }
    }
}

/// Adds what metadata tell: which agent, which session, who asked. The graph of an agent bears the
/// agent's name; that span is its run.
pub(super) fn agent_by_metadata(draft: &mut Draft<'_>, metadata: Option<&Json>) {
    let Some(metadata) = metadata.and_then(Json::as_object) else { return };
    let first = |names: &[&str]| names.iter().find_map(|name| text_of(metadata.get(*name)?));
    draft.put_some(keys::SESSION_ID, first(SESSIONS));
    draft.put_some("user.id", first(USERS));
    let Some(agent) = first(&["lc_agent_name"]) else { return };
    if is_agent_run(draft, &agent, metadata.contains_key("langgraph_node")) {
        draft.put(keys::GEN_AI_OPERATION_NAME, "invoke_agent");
    }
    draft.put(keys::GEN_AI_AGENT_NAME, agent);
}

/// Whether the span is the run of `agent`, rather than a node of its graph.
pub(super) fn is_agent_run(draft: &Draft<'_>, agent: &str, is_node: bool) -> bool {
    !is_node && draft.span.name == agent
}

/// Text, or a number that stands where text should; nothing when empty.
pub(super) fn text_of(value: &Json) -> Option<String> {
    match value {
        Json::String(text) if !text.is_empty() => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The provider's id of an answer, in the forms of LangChain and of providers. LangChain's own id of
/// a run is none.
pub(super) fn response_id(output: &Json) -> Option<&str> {
    let is_answer = ["choices", "object", "model"].iter().any(|key| output.get(key).is_some());
    let own = output.get("id").filter(|_| is_answer);
    let of_message = || {
        ["/generations/0/0/message/kwargs/response_metadata/id", "/llm_output/id"]
            .iter()
            .find_map(|path| output.pointer(path))
    };
    own.or_else(of_message)?.as_str().filter(|id| !id.is_empty())
}

/// The messages of a request: `{"messages": […]}`, also in batches of one, or a list itself.
pub(super) fn input(json: &Json) -> Option<Json> {
    let list = json.get("messages").or_else(|| json.get("input")).unwrap_or(json).as_array()?;
    let list = match list.as_slice() {
        [Json::Array(batch)] => batch,
        _ => list,
    };
    Some(list.iter().map(message).collect())
}

/// The messages of an answer: LangChain's generations, OpenAI's choices, or messages.
pub(super) fn output(json: &Json) -> Option<Json> {
    if let Some(generations) = json.pointer("/generations/0").and_then(Json::as_array) {
        return Some(generations.iter().map(generation).collect());
    }
    if let Some(choices) = json.get("choices").and_then(Json::as_array) {
        return Some(choices.iter().map(choice).collect());
    }
    if json.get("role").is_some() {
        return Some(json!([json]));
    }
    let list = json.get("messages").or_else(|| json.get("output")).unwrap_or(json);
    Some(list.as_array()?.iter().map(message).collect())
}

fn generation(generation: &Json) -> Json {
    let mut out = match generation.get("message") {
        Some(inner) => message(inner),
        None => json!({ "role": "assistant", "content": generation.get("text") }),
    };
    if let Some(reason) = generation.pointer("/generation_info/finish_reason") {
        out["finish_reason"] = reason.clone();
    }
    out
}

fn choice(choice: &Json) -> Json {
    let mut out = match choice.get("message") {
        Some(message @ Json::Object(_)) => message.clone(),
        _ => json!({ "role": "assistant", "content": choice.get("text") }),
    };
    if out.get("role").is_none() {
        out["role"] = Json::from("assistant");
    }
    if let Some(reason) = choice.get("finish_reason") {
        out["finish_reason"] = reason.clone();
    }
    out
}

/// A message as OpenAI writes it. LangChain's are objects that were constructed (`kwargs`), dumped
/// (`data`) or plain; messages of others are left as they are.
pub(super) fn message(message: &Json) -> Json {
    let inner = ["kwargs", "data"].iter().find_map(|key| message.get(key)?.as_object());
    let Some(fields) = inner.or_else(|| message.as_object()) else { return message.clone() };
    let kind = fields.get("type").or_else(|| message.get("type")).and_then(Json::as_str);
    let role = match kind {
        _ if fields.contains_key("role") => return message.clone(),
        Some("human" | "HumanMessageChunk") => "user",
        Some("ai" | "AIMessageChunk") => "assistant",
        Some("system") => "system",
        Some("tool" | "function") => "tool",
        Some(other) => other,
        None => return message.clone(),
    };
    let mut out = Map::new();
    out.insert("role".to_owned(), Json::from(role));
    let calls = fields.get("tool_calls").and_then(Json::as_array).filter(|calls| !calls.is_empty());
    if let Some(content) = fields.get("content") {
        // Anthropic's parts name the calls that `tool_calls` names again.
        let content = match (content, calls) {
            (Json::Array(parts), Some(_)) => {
                let is_call = |part: &&Json| part.get("type") == Some(&Json::from("tool_use"));
                parts.iter().filter(|part| !is_call(part)).cloned().collect()
            }
            _ => content.clone(),
        };
        out.insert("content".to_owned(), content);
    }
    if let Some(calls) = calls {
        let call = |call: &Json| json!({ "id": call.get("id"), "name": call.get("name"), "arguments": call.get("args") });
        out.insert("tool_calls".to_owned(), calls.iter().map(call).collect());
    }
    for key in ["tool_call_id", "name"] {
        if let Some(value) = fields.get(key) {
            out.insert(key.to_owned(), value.clone());
        }
    }
    Json::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_every_form_have_one_role() {
        let forms = [
            json!({ "lc": 1, "kwargs": { "type": "human", "content": "hi" } }),
            json!({ "type": "human", "data": { "type": "human", "content": "hi" } }),
            json!({ "type": "human", "content": "hi" }),
            json!({ "role": "user", "content": "hi" }),
        ];
        for form in forms {
            let read = message(&form);
            assert_eq!((&read["role"], &read["content"]), (&json!("user"), &json!("hi")), "{form}");
        }
        let parts = json!([{ "type": "text", "text": "so" }, { "type": "tool_use", "id": "1" }]);
        let call = json!({ "name": "find", "args": { "q": 1 }, "id": "1" });
        let read = message(&json!({ "type": "ai", "content": parts, "tool_calls": [call] }));
        assert_eq!(read["content"], json!([{ "type": "text", "text": "so" }]));
        assert_eq!(read["tool_calls"][0]["arguments"], json!({ "q": 1 }));
    }

    #[test]
    fn a_run_of_langchain_is_no_answer_of_a_provider() {
        assert_eq!(response_id(&json!({ "id": "run--1" })), None);
        assert_eq!(response_id(&json!({ "id": "chatcmpl-1", "choices": [] })), Some("chatcmpl-1"));
        let nested = json!({ "generations": [[{ "message": { "kwargs": {
            "id": "lc_run--1", "response_metadata": { "id": "chatcmpl-2" } } } }]] });
        assert_eq!(response_id(&nested), Some("chatcmpl-2"));
    }
}
