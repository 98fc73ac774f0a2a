//! Messages of any form to the conventions' form, and the request that they belong to.

use serde_json::{Value as Json, json};
use throughline_llm::genai::{self, SpanMessage};
use throughline_trace::{Value, keys};

use super::draft::Draft;

/// Adds messages as those that were sent to the model. They are read leniently: what has no known
/// form stays as it is.
pub(super) fn put_input(draft: &mut Draft<'_>, messages: Json) {
    put(draft, keys::GEN_AI_INPUT_MESSAGES, messages, None);
}

/// Adds messages as those that the model answered; `finish_reason` is that of messages that do not
/// say one.
pub(super) fn put_output(draft: &mut Draft<'_>, messages: Json, finish_reason: Option<&str>) {
    put(draft, keys::GEN_AI_OUTPUT_MESSAGES, messages, finish_reason);
}

fn put(draft: &mut Draft<'_>, key: &str, messages: Json, finish_reason: Option<&str>) {
    if draft.get(key).is_some() {
        return;
    }
    let (mut messages, _) = genai::parse_messages(&messages);
    if let Some(reason) = finish_reason {
        for message in &mut messages {
            let reason = || throughline_llm::FinishReason::from_text(reason);
            message.finish_reason.get_or_insert_with(reason);
        }
    }
    if messages.iter().any(|SpanMessage { message, .. }| !message.parts.is_empty()) {
        draft.put(key, genai::span_messages(&messages).to_string());
    }
}

/// Adds why the answer ended, by the conventions' name for it.
pub(super) fn put_finish_reason(draft: &mut Draft<'_>, reason: Option<&str>) {
    if let Some(reason) = reason.filter(|reason| !reason.is_empty()) {
        let reason = throughline_llm::FinishReason::from_text(reason);
        let reasons = Value::Array(vec![reason.as_str().into()]);
        draft.put(keys::GEN_AI_RESPONSE_FINISH_REASONS, reasons);
    }
}

/// Names of numbers in a request to a model.
const NUMBERS: &[(&str, &str)] = &[
    ("temperature", keys::GEN_AI_REQUEST_TEMPERATURE),
    ("top_p", keys::GEN_AI_REQUEST_TOP_P),
    ("max_tokens", keys::GEN_AI_REQUEST_MAX_TOKENS),
    ("max_completion_tokens", keys::GEN_AI_REQUEST_MAX_TOKENS),
    ("max_output_tokens", keys::GEN_AI_REQUEST_MAX_TOKENS),
    ("frequency_penalty", "gen_ai.request.frequency_penalty"),
    ("presence_penalty", "gen_ai.request.presence_penalty"),
    ("top_k", "gen_ai.request.top_k"),
    ("seed", keys::GEN_AI_REQUEST_SEED),
];

/// Adds what a request says beside its messages: model, sampling, whether it streams, tools.
pub(super) fn put_request(draft: &mut Draft<'_>, request: &Json) {
    let model = ["model", "model_name"].iter().find_map(|key| request.get(key)?.as_str());
    draft.put_some(keys::GEN_AI_REQUEST_MODEL, model.filter(|model| !model.is_empty()));
    for (theirs, ours) in NUMBERS {
        if let Some(number) = request.get(theirs).filter(|number| number.is_number()) {
            draft.put(ours, Value::from_json(number.clone()));
        }
    }
    if request.get("stream").and_then(Json::as_bool) == Some(true) {
        draft.put(keys::GEN_AI_REQUEST_STREAM, true);
    }
    if let Some(tools) = request.get("tools").and_then(Json::as_array) {
        put_tools(draft, tools);
    }
}

/// Adds the tools that the model could use, in the conventions' form or OpenAI's.
pub(super) fn put_tools(draft: &mut Draft<'_>, tools: &[Json]) {
    if tools.is_empty() || draft.get(keys::GEN_AI_TOOL_DEFINITIONS).is_some() {
        return;
    }
    let definition = |tool: &Json| {
        let inner = tool.get("function").filter(|inner| inner.is_object()).unwrap_or(tool);
        let schema = ["parameters", "inputSchema", "input_schema"];
        json!({
            "type": tool.get("type").and_then(Json::as_str).unwrap_or("function"),
            "name": inner.get("name"),
            "description": inner.get("description"),
            "parameters": schema.iter().find_map(|key| inner.get(key)),
        })
    };
    let tools: Json = tools.iter().map(definition).collect();
    draft.put(keys::GEN_AI_TOOL_DEFINITIONS, tools.to_string());
}

/// Names of token counts in a JSON object, of LangChain, OpenAI, Anthropic and MLflow.
const COUNTS: &[(&str, &str)] = &[
    ("/input_tokens", keys::GEN_AI_USAGE_INPUT_TOKENS),
    ("/prompt_tokens", keys::GEN_AI_USAGE_INPUT_TOKENS),
    ("/output_tokens", keys::GEN_AI_USAGE_OUTPUT_TOKENS),
    ("/completion_tokens", keys::GEN_AI_USAGE_OUTPUT_TOKENS),
    ("/input_token_details/cache_read", keys::GEN_AI_USAGE_CACHE_READ),
    ("/prompt_tokens_details/cached_tokens", keys::GEN_AI_USAGE_CACHE_READ),
    ("/cache_read_input_tokens", keys::GEN_AI_USAGE_CACHE_READ),
    ("/input_token_details/cache_creation", keys::GEN_AI_USAGE_CACHE_WRITE),
    ("/cache_creation_input_tokens", keys::GEN_AI_USAGE_CACHE_WRITE),
    ("/output_token_details/reasoning", keys::GEN_AI_USAGE_REASONING),
    ("/completion_tokens_details/reasoning_tokens", keys::GEN_AI_USAGE_REASONING),
    ("/input_token_details/audio", keys::GEN_AI_USAGE_AUDIO_INPUT),
    ("/output_token_details/audio", keys::GEN_AI_USAGE_AUDIO_OUTPUT),
];

/// Adds the token counts of an object.
pub(super) fn put_usage(draft: &mut Draft<'_>, usage: &Json) {
    for (theirs, ours) in COUNTS {
        let count = usage.pointer(theirs).and_then(Json::as_i64).filter(|count| *count >= 0);
        draft.put_some(ours, count);
    }
}
