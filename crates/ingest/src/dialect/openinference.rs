//! OpenInference (Arize Phoenix and its instrumentations): `openinference.span.kind`, `llm.*`,
//! messages in indexed attributes. After openinference-semantic-conventions 0.1.42.

use serde_json::{Map, Value as Json, json};
use throughline_trace::{StatusCode, keys};

use super::draft::Draft;
use super::{indexed, json, langchain, messages};

/// The key that says what a span is.
pub(super) const KIND: &str = "openinference.span.kind";

/// Kinds with the conventions' operation.
const OPERATIONS: &[(&str, &str)] = &[
    ("LLM", "chat"),
    ("EMBEDDING", "embeddings"),
    ("RETRIEVER", "retrieval"),
    ("TOOL", "execute_tool"),
    ("AGENT", "invoke_agent"),
];

/// Kinds that the conventions have no operation for, with our role and the phase that they are of.
const ROLES: &[(&str, &str, Option<&str>)] = &[
    ("CHAIN", "step", None),
    ("PROMPT", "step", None),
    ("RERANKER", "retrieval", Some("act")),
    ("GUARDRAIL", "step", Some("reflect")),
    ("EVALUATOR", "step", Some("reflect")),
    // A call of a model that answers with a choice instead of text.
    ("DECISION", "llm_call", Some("plan")),
];

const NAMES: &[(&str, &str)] = &[
    ("llm.request.model_name", keys::GEN_AI_REQUEST_MODEL),
    ("decision.request.model_name", keys::GEN_AI_REQUEST_MODEL),
    ("llm.response.model_name", keys::GEN_AI_RESPONSE_MODEL),
    ("decision.response.model_name", keys::GEN_AI_RESPONSE_MODEL),
    ("decision.model_name", keys::GEN_AI_RESPONSE_MODEL),
    ("embedding.model_name", keys::GEN_AI_REQUEST_MODEL),
    ("reranker.model_name", keys::GEN_AI_REQUEST_MODEL),
    ("agent.name", keys::GEN_AI_AGENT_NAME),
    ("llm.cost.total", keys::COST_USD),
    ("llm.prompt_template.version", "gen_ai.prompt.version"),
];

const COUNTS: &[(&str, &str)] = &[
    ("llm.token_count.prompt", keys::GEN_AI_USAGE_INPUT_TOKENS),
    ("decision.token_count.input", keys::GEN_AI_USAGE_INPUT_TOKENS),
    ("llm.token_count.completion", keys::GEN_AI_USAGE_OUTPUT_TOKENS),
    ("decision.token_count.output", keys::GEN_AI_USAGE_OUTPUT_TOKENS),
    ("llm.token_count.prompt_details.cache_read", keys::GEN_AI_USAGE_CACHE_READ),
    ("llm.token_count.prompt_details.cache_write", keys::GEN_AI_USAGE_CACHE_WRITE),
    ("llm.token_count.prompt_details.audio", keys::GEN_AI_USAGE_AUDIO_INPUT),
    ("llm.token_count.completion_details.reasoning", keys::GEN_AI_USAGE_REASONING),
    ("llm.token_count.completion_details.audio", keys::GEN_AI_USAGE_AUDIO_OUTPUT),
];

const OF_A_TOOL: &[(&str, &str)] = &[
    ("tool.name", keys::GEN_AI_TOOL_NAME),
    ("tool_call.function.name", keys::GEN_AI_TOOL_NAME),
    ("tool.description", keys::GEN_AI_TOOL_DESCRIPTION),
    ("tool_call.id", keys::GEN_AI_TOOL_CALL_ID),
    ("tool.id", keys::GEN_AI_TOOL_CALL_ID),
    ("tool_call.function.arguments", keys::GEN_AI_TOOL_CALL_ARGUMENTS),
    ("input.value", keys::GEN_AI_TOOL_CALL_ARGUMENTS),
    ("output.value", keys::GEN_AI_TOOL_CALL_RESULT),
];

/// Keys that are found on spans whose author forgot the kind.
pub(super) fn is_message_or_count(key: &str) -> bool {
    ["llm.input_messages.", "llm.output_messages.", "llm.token_count."]
        .iter()
        .any(|prefix| key.starts_with(prefix))
}

pub(super) fn add(draft: &mut Draft<'_>) {
    let came = draft.came();
    let kind = match came.str(KIND) {
        Some(kind) => kind.to_uppercase(),
        None => "LLM".to_owned(),
    };
    let operation = OPERATIONS.iter().find(|(theirs, _)| *theirs == kind).map(|(_, ours)| *ours);
    langchain::agent_by_metadata(draft, json(came, "metadata").as_ref());
    match operation {
        Some(operation) => draft.put(keys::GEN_AI_OPERATION_NAME, operation),
        None if langchain::is_fallback(&draft.span.name) => langchain::fallback(draft),
        None => {
            if let Some((_, role, phase)) = ROLES.iter().find(|(theirs, ..)| *theirs == kind)
                && draft.get(keys::GEN_AI_OPERATION_NAME).is_none()
            {
                draft.put(keys::ROLE, *role);
                draft.put_some(keys::AI_PHASE, *phase);
            }
        }
    }
    draft.copy_table(NAMES);
    match kind.as_str() {
        "TOOL" => {
            draft.copy_table(OF_A_TOOL);
            let name = draft.span.name.as_str();
            draft.put(keys::GEN_AI_TOOL_NAME, name);
        }
        "AGENT" => {
            let name = draft.span.name.as_str();
            draft.put(keys::GEN_AI_AGENT_NAME, name);
        }
        "LLM" | "EMBEDDING" | "DECISION" => inference(draft),
        _ => {}
    }
}

fn inference(draft: &mut Draft<'_>) {
    let came = draft.came();
    // The model that answered or, when none did, the one that was asked.
    match draft.span.status.code {
        StatusCode::Error => draft.copy_any(&["llm.model_name"], keys::GEN_AI_REQUEST_MODEL),
        _ => draft.copy_any(&["llm.model_name"], keys::GEN_AI_RESPONSE_MODEL),
    }
    draft.count_table(COUNTS);
    draft.put_provider(came.first_str(&["llm.provider", "llm.system", "decision.provider"]));
    for key in ["llm.invocation_parameters", "embedding.invocation_parameters"] {
        if let Some(request) = json(came, key) {
            messages::put_request(draft, &request);
        }
    }
    let reason = came.str("llm.finish_reason");
    messages::put_finish_reason(draft, reason);
    if let Some(tools) = indexed::list(came, "llm.tools.") {
        let schema = |tool: &Json| {
            let text = tool.pointer("/tool/json_schema")?;
            text.as_str().map_or(Some(text.clone()), |text| serde_json::from_str(text).ok())
        };
        let tools: Vec<Json> = tools.iter().filter_map(schema).collect();
        messages::put_tools(draft, &tools);
    }
    if let Some(list) = indexed::list(came, "llm.input_messages.") {
        messages::put_input(draft, list.iter().map(message).collect());
    }
    if let Some(list) = indexed::list(came, "llm.output_messages.") {
        messages::put_output(draft, list.iter().map(message).collect(), reason);
    }
    if let Some(output) = json(came, "output.value") {
        draft.put_some(keys::GEN_AI_RESPONSE_ID, langchain::response_id(&output));
    }
}

/// A message as OpenAI writes it, which the reader of messages knows.
fn message(element: &Json) -> Json {
    let Some(message) = element.get("message").and_then(Json::as_object) else { return json!({}) };
    let mut out = Map::new();
    for key in ["role", "content", "name", "tool_call_id"] {
        if let Some(value) = message.get(key) {
            out.insert(key.to_owned(), value.clone());
        }
    }
    if let Some(contents) = message.get("contents").and_then(Json::as_array) {
        out.insert("content".to_owned(), contents.iter().filter_map(content).collect());
    }
    if let Some(calls) = message.get("tool_calls").and_then(Json::as_array) {
        let calls = calls.iter().filter_map(|call| call.get("tool_call").cloned());
        out.insert("tool_calls".to_owned(), calls.collect());
    } else if let Some(name) = message.get("function_call_name") {
        let arguments = message.get("function_call_arguments_json");
        let call = json!({ "function": { "name": name, "arguments": arguments } });
        out.insert("tool_calls".to_owned(), json!([call]));
    }
    Json::Object(out)
}

/// A part of a message.
fn content(element: &Json) -> Option<Json> {
    let part = element.get("message_content")?;
    let uri = |modality: &str, path: &str| {
        Some(json!({ "type": "uri", "modality": modality, "uri": part.pointer(path)? }))
    };
    let text = |kind: &str| Some(json!({ "type": kind, "content": part.get("text")? }));
    let known = match part.get("type").and_then(Json::as_str) {
        Some("image") => uri("image", "/image/image/url"),
        Some("audio") => uri("audio", "/audio/audio/url"),
        Some("video") => uri("video", "/video/video/url"),
        Some("reasoning" | "thinking") => text("reasoning"),
        _ => text("text"),
    };
    Some(known.unwrap_or_else(|| part.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_message_keep_their_kind() {
        let element = json!({ "message": { "role": "user", "contents": [
            { "message_content": { "type": "text", "text": "look" } },
            { "message_content": { "type": "image", "image": { "image": { "url": "http://x/y.png" } } } },
        ] } });
        assert_eq!(
            message(&element)["content"],
            json!([
                { "type": "text", "content": "look" },
                { "type": "uri", "modality": "image", "uri": "http://x/y.png" },
            ])
        );
        assert_eq!(message(&json!({ "message": "text" })), json!({}));
    }
}
