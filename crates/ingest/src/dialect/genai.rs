//! The GenAI conventions of OpenTelemetry, older names to the newest. After semantic-conventions
//! 1.27 to 1.41 and semantic-conventions-genai of 2026.

use serde_json::Value as Json;
use throughline_trace::{Value, keys};

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

/// Operations that are none of the conventions', with our role.
const ROLES: &[(&str, &str)] = &[
    ("agent_step", "step"),
    ("chain", "step"),
    ("completion", "llm_call"),
    ("embedding", "embeddings"),
    ("execute_task", "step"),
    ("rerank", "retrieval"),
    ("responses", "llm_call"),
];

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
    let operation = came.str(keys::GEN_AI_OPERATION_NAME);
    if let Some((_, role)) = ROLES.iter().find(|(theirs, _)| Some(*theirs) == operation) {
        draft.put(keys::ROLE, *role);
    }
    draft.copy_table(NAMES);
    draft.put_provider(came.str(keys::GEN_AI_SYSTEM));
    if came.bool("gen_ai.is_streaming") == Some(true) {
        draft.put(keys::GEN_AI_REQUEST_STREAM, true);
    }
    let role = draft.str(keys::ROLE);
    let is_inference = match draft.str(keys::GEN_AI_OPERATION_NAME) {
        Some("chat" | "text_completion" | "generate_content") => role.is_none(),
        _ => role == Some("llm_call"),
    };
    if is_inference {
        whole_content(draft);
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
