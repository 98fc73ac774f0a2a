//! LangSmith's OpenTelemetry exporter: `langsmith.span.kind`, metadata as attributes, inputs and
//! outputs whole as JSON. After langsmith 0.15.
//!
//! `langsmith.trace.session_id` and `session_name` are the project, not the conversation.

use serde_json::Value as Json;
use throughline_trace::{Value, keys};

use super::draft::Draft;
use super::{json, langchain, messages};

const KIND: &str = "langsmith.span.kind";
const METADATA: &str = "langsmith.metadata.";

/// What went in and came out.
const INPUT: &str = "gen_ai.prompt";
const OUTPUT: &str = "gen_ai.completion";

/// Kinds with the conventions' operation, and our role where LangSmith itself writes another word as
/// the operation.
const KINDS: &[(&str, &str, Option<&str>)] = &[
    ("llm", "chat", None),
    ("tool", "execute_tool", None),
    ("retriever", "retrieval", Some("retrieval")),
    ("embedding", "embeddings", Some("embeddings")),
    ("chain", "", Some("step")),
    ("prompt", "", Some("step")),
    ("parser", "", Some("step")),
];

const NAMES: &[(&str, &str)] = &[
    ("langsmith.metadata.ls_model_name", keys::GEN_AI_REQUEST_MODEL),
    ("langsmith.metadata.ls_temperature", keys::GEN_AI_REQUEST_TEMPERATURE),
    ("langsmith.metadata.ls_max_tokens", keys::GEN_AI_REQUEST_MAX_TOKENS),
];

pub(super) fn add(draft: &mut Draft<'_>) {
    let came = draft.came();
    let metadata = |name: &str| came.get(&format!("{METADATA}{name}"));
    let first = |names: &[&str]| names.iter().find_map(|name| Some(metadata(name)?.to_text()));
    let agent = metadata("lc_agent_name").and_then(Value::as_str);
    let is_node = metadata("langgraph_node").is_some();
    let kind = came.str(KIND).unwrap_or_default();
    if langchain::is_fallback(&draft.span.name) {
        langchain::fallback(draft);
    } else if agent.is_some_and(|agent| langchain::is_agent_run(draft, agent, is_node)) {
        draft.put(keys::ROLE, "agent_run");
    } else if let Some((_, operation, role)) = KINDS.iter().find(|(theirs, ..)| *theirs == kind) {
        draft.put_some(keys::ROLE, *role);
        draft.put_some(keys::GEN_AI_OPERATION_NAME, Some(*operation).filter(|o| !o.is_empty()));
    }
    if matches!(kind, "retriever" | "tool") {
        draft.put(keys::AI_PHASE, "act");
    }
    draft.put_some(keys::GEN_AI_AGENT_NAME, agent);
    draft.put_some(keys::SESSION_ID, first(langchain::SESSIONS));
    draft.put_some("user.id", first(langchain::USERS));
    match kind {
        "tool" => draft.copy_table(&[
            (INPUT, keys::GEN_AI_TOOL_CALL_ARGUMENTS),
            (OUTPUT, keys::GEN_AI_TOOL_CALL_RESULT),
        ]),
        "llm" | "embedding" => inference(draft),
        _ => {}
    }
}

fn inference(draft: &mut Draft<'_>) {
    let came = draft.came();
    draft.put_provider(came.str("gen_ai.system"));
    draft.put_provider(came.str("langsmith.metadata.ls_provider"));
    draft.copy_table(NAMES);
    if let Some(usage) = json(came, "langsmith.metadata.usage_metadata") {
        messages::put_usage(draft, &usage);
    }
    if let Some(input) = json(came, INPUT) {
        messages::put_request(draft, &input);
        if let Some(list) = langchain::input(&input) {
            messages::put_input(draft, list);
        }
    }
    if let Some(output) = json(came, OUTPUT) {
        draft.put_some(keys::GEN_AI_RESPONSE_ID, langchain::response_id(&output));
        let model = ["/model", "/llm_output/model_name"].iter().find_map(|p| output.pointer(p));
        draft.put_some(keys::GEN_AI_RESPONSE_MODEL, model.and_then(Json::as_str));
        if let Some(list) = langchain::output(&output) {
            let reason = list.pointer("/0/finish_reason").and_then(Json::as_str).map(str::to_owned);
            messages::put_finish_reason(draft, reason.as_deref());
            messages::put_output(draft, list, None);
        }
    }
}
