//! Vercel's AI SDK up to version 6 (`experimental_telemetry`): `ai.*`. Version 7 speaks the GenAI
//! conventions. After ai 4 to 6.
//!
//! The outer span of a call (`ai.generateText`) bears the sum of its steps, the inner ones
//! (`ai.generateText.doGenerate`) what the provider was asked: the inner ones are the inferences.

use serde_json::{Value as Json, json};
use throughline_trace::{Value, keys};

use super::draft::Draft;
use super::{json as json_of, langchain, messages};

/// The key that says what a span is.
pub(super) const OPERATION: &str = "ai.operationId";

const METADATA: &str = "ai.telemetry.metadata.";

/// Operations with the conventions' operation. An outer call with tools is an agent's loop.
const OPERATIONS: &[(&str, &str)] = &[
    ("ai.generateText", "invoke_agent"),
    ("ai.streamText", "invoke_agent"),
    ("ai.generateObject", "invoke_agent"),
    ("ai.streamObject", "invoke_agent"),
    ("ai.generateText.doGenerate", "chat"),
    ("ai.streamText.doStream", "chat"),
    ("ai.generateObject.doGenerate", "chat"),
    ("ai.streamObject.doStream", "chat"),
    ("ai.embed.doEmbed", "embeddings"),
    ("ai.embedMany.doEmbed", "embeddings"),
    ("ai.toolCall", "execute_tool"),
];

/// Operations that the conventions have none for, with our role.
const ROLES: &[(&str, &str)] = &[
    ("ai.embed", "step"),
    ("ai.embedMany", "step"),
    ("ai.rerank", "step"),
    ("ai.rerank.doRerank", "retrieval"),
];

const NAMES: &[(&str, &str)] = &[
    ("ai.telemetry.functionId", keys::GEN_AI_AGENT_NAME),
    ("ai.model.id", keys::GEN_AI_REQUEST_MODEL),
    ("ai.response.model", keys::GEN_AI_RESPONSE_MODEL),
    ("ai.response.id", keys::GEN_AI_RESPONSE_ID),
    ("ai.settings.temperature", keys::GEN_AI_REQUEST_TEMPERATURE),
    ("ai.settings.topP", keys::GEN_AI_REQUEST_TOP_P),
    ("ai.settings.topK", "gen_ai.request.top_k"),
    ("ai.settings.maxOutputTokens", keys::GEN_AI_REQUEST_MAX_TOKENS),
    ("ai.settings.maxTokens", keys::GEN_AI_REQUEST_MAX_TOKENS),
    ("ai.settings.seed", keys::GEN_AI_REQUEST_SEED),
    ("ai.toolCall.name", keys::GEN_AI_TOOL_NAME),
    ("ai.toolCall.id", keys::GEN_AI_TOOL_CALL_ID),
    ("ai.toolCall.args", keys::GEN_AI_TOOL_CALL_ARGUMENTS),
    ("ai.toolCall.result", keys::GEN_AI_TOOL_CALL_RESULT),
];

const COUNTS: &[(&str, &str)] = &[
    ("ai.usage.inputTokens", keys::GEN_AI_USAGE_INPUT_TOKENS),
    ("ai.usage.promptTokens", keys::GEN_AI_USAGE_INPUT_TOKENS),
    ("ai.usage.tokens", keys::GEN_AI_USAGE_INPUT_TOKENS),
    ("ai.usage.outputTokens", keys::GEN_AI_USAGE_OUTPUT_TOKENS),
    ("ai.usage.completionTokens", keys::GEN_AI_USAGE_OUTPUT_TOKENS),
    ("ai.usage.inputTokenDetails.cacheReadTokens", keys::GEN_AI_USAGE_CACHE_READ),
    ("ai.usage.cachedInputTokens", keys::GEN_AI_USAGE_CACHE_READ),
    ("ai.usage.inputTokenDetails.cacheWriteTokens", keys::GEN_AI_USAGE_CACHE_WRITE),
    ("ai.usage.outputTokenDetails.reasoningTokens", keys::GEN_AI_USAGE_REASONING),
    ("ai.usage.reasoningTokens", keys::GEN_AI_USAGE_REASONING),
];

/// What counts of a cache begin with since version 6, in which they are parts of the tokens in.
const DETAILS: &str = "ai.usage.inputTokenDetails.";

/// Of the provider's own words: counts of a cache, with our names. An earlier line goes before a later one.
const OF_ANTHROPIC: &[(&str, &str)] = &[
    ("/anthropic/cacheReadInputTokens", keys::GEN_AI_USAGE_CACHE_READ),
    ("/anthropic/usage/cache_read_input_tokens", keys::GEN_AI_USAGE_CACHE_READ),
    ("/anthropic/cacheCreationInputTokens", keys::GEN_AI_USAGE_CACHE_WRITE),
    ("/anthropic/usage/cache_creation_input_tokens", keys::GEN_AI_USAGE_CACHE_WRITE),
    ("/anthropic/usage/cache_creation/ephemeral_1h_input_tokens", keys::USAGE_CACHE_WRITE_1H),
];

pub(super) fn add(draft: &mut Draft<'_>) {
    let came = draft.came();
    let operation = came.str(OPERATION).unwrap_or_default();
    if let Some((_, ours)) = OPERATIONS.iter().find(|(theirs, _)| *theirs == operation) {
        draft.put(keys::GEN_AI_OPERATION_NAME, *ours);
    } else if let Some((_, role)) = ROLES.iter().find(|(theirs, _)| *theirs == operation) {
        draft.put(keys::ROLE, *role);
    }
    draft.copy_table(NAMES);
    draft.count_table(COUNTS);
    if operation.contains(".do") {
        anthropic_cache(draft);
    }
    draft.put_provider(came.str("ai.model.provider"));
    let metadata = |name: &&str| came.get(&format!("{METADATA}{name}")).map(Value::to_text);
    draft.put_some(keys::SESSION_ID, langchain::SESSIONS.iter().find_map(metadata));
    draft.put_some("user.id", langchain::USERS.iter().find_map(metadata));
    if operation.contains("stream") {
        draft.put(keys::GEN_AI_REQUEST_STREAM, true);
    }
    let millis = came.f64("ai.response.msToFirstChunk").filter(|ms| ms.is_finite() && *ms >= 0.0);
    draft.put_some(keys::GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK, millis.map(|ms| ms / 1e3));
    let reason = came.str("ai.response.finishReason").map(|reason| reason.replace('-', "_"));
    messages::put_finish_reason(draft, reason.as_deref());
    if let Some(Value::Array(tools)) = came.get("ai.prompt.tools") {
        let tools: Vec<Json> = tools.iter().map(Value::to_structured_json).collect();
        messages::put_tools(draft, &tools);
    }
    if let Some(messages) = asked(draft) {
        messages::put_input(draft, messages);
    }
    if let Some(message) = answered(draft) {
        messages::put_output(draft, json!([message]), reason.as_deref());
    }
}

/// Up to version 5 the SDK passes Anthropic's counts on as they are: what was read from a cache and
/// written to one is no part of the tokens in, and writes are told in the provider's words alone.
fn anthropic_cache(draft: &mut Draft<'_>) {
    let came = draft.came();
    // `anthropic.messages`, also as `vertex.anthropic.messages`.
    let is_it = came.str("ai.model.provider").is_some_and(|name| name.contains("anthropic"));
    if !is_it || came.iter().any(|(key, _)| key.starts_with(DETAILS)) {
        return;
    }
    if let Some(told) = json_of(came, "ai.response.providerMetadata") {
        for (theirs, ours) in OF_ANTHROPIC {
            let count = told.pointer(theirs).and_then(Json::as_i64).filter(|count| *count >= 0);
            draft.put_some(ours, count);
        }
    }
    let cached = [keys::GEN_AI_USAGE_CACHE_READ, keys::GEN_AI_USAGE_CACHE_WRITE];
    if cached.iter().any(|key| draft.get(key).and_then(Value::as_i64) > Some(0)) {
        draft.put(keys::USAGE_CACHE_BESIDE_INPUT, true);
    }
}

/// What went in: messages, or on the outer span what the program gave.
fn asked(draft: &Draft<'_>) -> Option<Json> {
    let came = draft.came();
    if let Some(Json::Array(list)) = json_of(came, "ai.prompt.messages") {
        return Some(list.into_iter().map(message).collect());
    }
    let given = json_of(came, "ai.prompt")?;
    let mut list = Vec::new();
    if let Some(system) = given.get("system").filter(|system| system.is_string()) {
        list.push(json!({ "role": "system", "content": system }));
    }
    match (given.get("prompt"), given.get("messages").and_then(Json::as_array)) {
        (_, Some(messages)) => list.extend(messages.iter().cloned().map(message)),
        (Some(prompt @ Json::String(_)), _) => {
            list.push(json!({ "role": "user", "content": prompt }));
        }
        (Some(Json::Array(messages)), _) => list.extend(messages.iter().cloned().map(message)),
        _ => {}
    }
    Some(Json::Array(list))
}

/// What came out, as one message.
fn answered(draft: &Draft<'_>) -> Option<Json> {
    let came = draft.came();
    let mut parts = Vec::new();
    if let Some(text) = came.str("ai.response.reasoning") {
        parts.push(json!({ "type": "reasoning", "content": text }));
    }
    if let Some(text) = came.first_str(&["ai.response.text", "ai.response.object"]) {
        parts.push(json!({ "type": "text", "content": text }));
    }
    if let Some(Json::Array(calls)) = json_of(came, "ai.response.toolCalls") {
        parts.extend(calls.iter().map(call));
    }
    (!parts.is_empty()).then(|| json!({ "role": "assistant", "parts": parts }))
}

/// A message of the SDK's own form in the conventions'.
fn message(mut message: Json) -> Json {
    // Under `content`, the results in a message of a tool would be taken for one result.
    if let Some(fields) = message.as_object_mut()
        && fields.get("content").is_some_and(Json::is_array)
        && let Some(Json::Array(parts)) = fields.remove("content")
    {
        fields.insert("parts".to_owned(), parts.into_iter().map(part).collect());
    }
    message
}

fn part(part: Json) -> Json {
    match part.get("type").and_then(Json::as_str) {
        Some("tool-call") => call(&part),
        Some("tool-result") => {
            let output = part.get("output").or_else(|| part.get("result"));
            // `{"type": "json", "value": …}` since version 5.
            let output = output.map(|output| output.get("value").unwrap_or(output));
            json!({ "type": "tool_call_response", "id": part.get("toolCallId"), "response": output })
        }
        Some("reasoning") => json!({ "type": "reasoning", "content": part.get("text") }),
        Some("image" | "file") => {
            let source = ["image", "data", "url"].iter().find_map(|key| part.get(key)?.as_str());
            let mime = ["mediaType", "mimeType"].iter().find_map(|key| part.get(key)?.as_str());
            let modality = mime.and_then(|mime| mime.split('/').next()).unwrap_or("image");
            match source {
                Some(uri) if uri.contains("://") => {
                    json!({ "type": "uri", "modality": modality, "mime_type": mime, "uri": uri })
                }
                Some(data) => {
                    json!({ "type": "blob", "modality": modality, "mime_type": mime, "content": data })
                }
                None => part,
            }
        }
        _ => part,
    }
}

/// A call of a tool: its arguments are JSON in a text, or `args` before version 5.
fn call(call: &Json) -> Json {
    json!({
        "type": "tool_call",
        "id": call.get("toolCallId"),
        "name": call.get("toolName"),
        "arguments": call.get("input").or_else(|| call.get("args")),
    })
}

#[cfg(test)]
mod tests {
    use throughline_trace::{Span, SpanId, TraceId};

    use super::*;

    /// Tokens of a call of a provider: in, of them read from a cache, written to one, and for an hour.
    fn usage(provider: &str, more: &[(&str, Value)]) -> (u64, u64, u64, u64) {
        let id = (TraceId::from_u128(1), SpanId::from_u64(1));
        let mut span = Span::new(id.0, id.1, None, "ai.streamText.doStream");
        for (key, value) in [
            (OPERATION, Value::from("ai.streamText.doStream")),
            ("ai.model.provider", provider.into()),
            ("ai.usage.inputTokens", Value::Int(1_000)),
            ("ai.usage.cachedInputTokens", Value::Int(400)),
            // The SDK itself writes this one too.
            (keys::GEN_AI_USAGE_INPUT_TOKENS, Value::Int(1_000)),
            (
                "ai.response.providerMetadata",
                r#"{"anthropic":{"cacheCreationInputTokens":300,"usage":{"cache_creation":{"ephemeral_1h_input_tokens":100}}}}"#
                    .into(),
            ),
        ]
        .into_iter()
        .chain(more.iter().cloned())
        {
            span.attributes.set(key, value);
        }
        let mut draft = Draft::new(&span);
        add(&mut draft);
        draft.finish().write(&mut span.attributes);
        let usage = throughline_trace::Usage::from_attributes(&span.attributes).unwrap();
        (
            usage.input_tokens,
            usage.cache_read_tokens,
            usage.cache_write_tokens,
            usage.cache_write_1h_tokens,
        )
    }

    #[test]
    fn what_anthropic_caches_comes_on_top_up_to_version_five() {
        assert_eq!(usage("anthropic.messages", &[]), (1_700, 400, 300, 100));
        assert_eq!(usage("vertex.anthropic.messages", &[]), (1_700, 400, 300, 100));
        // Of others it is a part of the tokens in, and so it is since version 6.
        assert_eq!(usage("openai.chat", &[]), (1_000, 400, 0, 0));
        let details = [
            ("ai.usage.inputTokenDetails.cacheReadTokens", Value::Int(400)),
            ("ai.usage.inputTokenDetails.cacheWriteTokens", Value::Int(300)),
        ];
        assert_eq!(usage("anthropic.messages", &details), (1_000, 400, 300, 0));
    }

    #[test]
    fn versions_before_five_had_other_names() {
        let mut span = Span::new(
            TraceId::from_u128(1),
            SpanId::from_u64(1),
            None,
            "ai.generateText.doGenerate",
        );
        for (key, value) in [
            (OPERATION, Value::from("ai.generateText.doGenerate")),
            ("ai.usage.promptTokens", Value::Int(10)),
            ("ai.usage.completionTokens", Value::Double(f64::NAN)),
            (
                "ai.response.toolCalls",
                r#"[{"toolCallId":"1","toolName":"find","args":"{\"q\":1}"}]"#.into(),
            ),
        ] {
            span.attributes.set(key, value);
        }
        let mut draft = Draft::new(&span);
        add(&mut draft);
        assert_eq!(draft.get(keys::GEN_AI_USAGE_INPUT_TOKENS), Some(&Value::Int(10)));
        assert_eq!(draft.get(keys::GEN_AI_USAGE_OUTPUT_TOKENS), None);
        assert_eq!(
            draft.str(keys::GEN_AI_OUTPUT_MESSAGES),
            Some(
                r#"[{"parts":[{"arguments":{"q":1},"id":"1","name":"find","type":"tool_call"}],"role":"assistant"}]"#
            )
        );
    }
}
