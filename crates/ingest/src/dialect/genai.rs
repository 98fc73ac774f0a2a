//! The GenAI conventions of OpenTelemetry, older names to the newest. After semantic-conventions
//! 1.27 to 1.41 and semantic-conventions-genai of 2026.

use serde_json::Value as Json;
use throughline_trace::{SpanRole, Value, keys};

use super::draft::Draft;
use super::{Spoken, json, langchain, messages};

const COUNTS: &[(&str, &str)] = &[
    ("gen_ai.usage.prompt_tokens", keys::GEN_AI_USAGE_INPUT_TOKENS),
    ("gen_ai.usage.completion_tokens", keys::GEN_AI_USAGE_OUTPUT_TOKENS),
    ("gen_ai.usage.cache_creation.input_tokens", keys::GEN_AI_USAGE_CACHE_WRITE),
    ("gen_ai.usage.cache_creation_input_tokens", keys::GEN_AI_USAGE_CACHE_WRITE),
    ("gen_ai.usage.cache_read_input_tokens", keys::GEN_AI_USAGE_CACHE_READ),
    ("gen_ai.usage.reasoning_tokens", keys::GEN_AI_USAGE_REASONING),
    ("gen_ai.usage.details.reasoning_tokens", keys::GEN_AI_USAGE_REASONING),
    ("gen_ai.usage.details.cache_read_tokens", keys::GEN_AI_USAGE_CACHE_READ),
    ("gen_ai.usage.details.cache_write_tokens", keys::GEN_AI_USAGE_CACHE_WRITE),
];

const NAMES: &[(&str, &str)] = &[
    ("gen_ai.openai.request.seed", keys::GEN_AI_REQUEST_SEED),
    ("gen_ai.client.operation.time_to_first_chunk", keys::GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK),
];

/// Operations that are none of the conventions', with our role: those of LiteLLM (its call types, with
/// `a` before what is asynchronous), of Semantic Kernel, and of others.
const ROLES: &[(&str, &str)] = &[
    ("acompletion", "llm_call"),
    ("aembedding", "embeddings"),
    ("agenerate_content", "llm_call"),
    ("agenerate_content_stream", "llm_call"),
    ("agent_step", "step"),
    ("anthropic_messages", "llm_call"),
    ("arerank", "retrieval"),
    ("aresponses", "llm_call"),
    ("atext_completion", "llm_call"),
    ("chain", "step"),
    ("chat.completions", "llm_call"),
    ("chat.streaming_completions", "llm_call"),
    ("completion", "llm_call"),
    ("embedding", "embeddings"),
    ("execute_task", "step"),
    ("generate_content_stream", "llm_call"),
    ("rerank", "retrieval"),
    ("responses", "llm_call"),
    ("text.completions", "llm_call"),
    ("text.streaming_completions", "llm_call"),
];

/// Keys of dialects that say of each span what it is: what they do not call a model call is none,
/// whatever it bears.
const KINDS: &[&str] = &[
    "openinference.span.kind",
    "traceloop.span.kind",
    "langsmith.span.kind",
    "mlflow.spanType",
    "ai.operationId",
    "pydantic_ai.all_messages",
    "all_messages_events",
];

/// Words in the operation or the name of spans around model calls, whose tokens may be a sum.
const AROUND_CALLS: &[&str] = &[
    "agent",
    "chain",
    "conversation",
    "crew",
    "graph",
    "invocation",
    "pipeline",
    "session",
    "step",
    "task",
    "team",
    "turn",
    "workflow",
];

/// Our role of an operation that is none of the conventions'.
pub(super) fn role_of(operation: &str) -> Option<&'static str> {
    ROLES.iter().find(|(theirs, _)| *theirs == operation).map(|(_, role)| *role)
}

/// What a key tells, given without its `gen_ai.`.
pub(super) fn spoken_by(rest: &str) -> Spoken {
    let is_numbered = |prefix: &str| {
        let number = rest.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.'));
        number.is_some_and(|number| number.as_bytes().first().is_some_and(u8::is_ascii_digit))
    };
    match rest.as_bytes().first() {
        Some(b'p') if is_numbered("prompt") => Spoken::TRACELOOP,
        Some(b'c') if is_numbered("completion") => Spoken::TRACELOOP,
        _ => match rest {
            "operation.name"
            | "agent.name"
            | "conversation.id"
            | "system"
            | "prompt"
            | "completion"
            | "request.model"
            | "response.model"
            | "is_streaming"
            | "openai.request.seed"
            | "client.operation.time_to_first_chunk" => Spoken::GENAI,
            "usage.prompt_tokens" | "usage.completion_tokens" | "usage.reasoning_tokens" => {
                Spoken::COUNTS
            }
            _ if rest.starts_with("usage.cache_") || rest.starts_with("usage.details.") => {
                Spoken::COUNTS
            }
            _ => Spoken::NONE,
        },
    }
}

pub(super) fn add(draft: &mut Draft<'_>) {
    let came = draft.came();
    draft.put_some(keys::ROLE, came.str(keys::GEN_AI_OPERATION_NAME).and_then(role_of));
    draft.put_some(keys::ROLE, unnamed_call(draft));
    draft.copy_table(NAMES);
    draft.put_provider(came.str(keys::GEN_AI_SYSTEM));
    if came.bool("gen_ai.is_streaming") == Some(true) {
        draft.put(keys::GEN_AI_REQUEST_STREAM, true);
    }
    if super::is_model_call(draft) {
        whole_content(draft);
    }
}

/// The role of a span that bears a model and its tokens, though neither an operation nor a dialect says
/// that it is a call (Google's ADK: `call_llm`). What seems to be around calls is left as it is: its
/// tokens may be theirs. A call right beneath it that tells the same counts in its place.
fn unnamed_call(draft: &Draft<'_>) -> Option<&'static str> {
    let operation = draft.str(keys::GEN_AI_OPERATION_NAME);
    if draft.span.role() != SpanRole::Other
        || draft.get(keys::ROLE).is_some()
        || operation.is_some_and(|known| SpanRole::from_operation(known).is_some())
        || KINDS.iter().any(|kind| draft.came().get(kind).is_some())
    {
        return None;
    }
    let named = operation.unwrap_or(&draft.span.name).to_lowercase();
    if AROUND_CALLS.iter().any(|word| named.contains(word)) {
        return None;
    }
    let models = [keys::GEN_AI_RESPONSE_MODEL, keys::GEN_AI_REQUEST_MODEL];
    let model = models.iter().find_map(|key| draft.str(key))?;
    let count = |key| draft.get(key).and_then(Value::as_i64).unwrap_or(0);
    let output = count(keys::GEN_AI_USAGE_OUTPUT_TOKENS);
    match count(keys::GEN_AI_USAGE_INPUT_TOKENS) {
        input if input <= 0 && output <= 0 => None,
        _ if output <= 0 && model.contains("embed") => Some("embeddings"),
        _ => Some("llm_call"),
    }
}

pub(super) fn add_counts(draft: &mut Draft<'_>) {
    draft.count_table(COUNTS);
}

/// Content that is one attribute, as conventions before 1.28 had it: messages in JSON, or text.
fn whole_content(draft: &mut Draft<'_>) {
    let came = draft.came();
    if let Some(Value::String(text)) = came.get("gen_ai.prompt") {
        let read = json(came, "gen_ai.prompt").as_ref().and_then(langchain::input);
        messages::put_input(draft, read.unwrap_or_else(|| said("user", text)));
    }
    if let Some(Value::String(text)) = came.get("gen_ai.completion") {
        let read = json(came, "gen_ai.completion").as_ref().and_then(langchain::output);
        messages::put_output(draft, read.unwrap_or_else(|| said("assistant", text)), None);
    }
}

/// One message of one text.
fn said(role: &str, text: &str) -> Json {
    serde_json::json!([{ "role": role, "content": text }])
}
