//! MLflow tracing exported over OTLP: `mlflow.spanType`, inputs and outputs whole. Every value is
//! JSON in a text, texts with their quotes. After mlflow 3.17.

use serde_json::Value as Json;
use throughline_trace::keys;

use super::draft::Draft;
use super::{json, langchain, messages, unquoted};

/// Types with the conventions' operation.
const OPERATIONS: &[(&str, &str)] = &[
    ("LLM", "chat"),
    ("CHAT_MODEL", "chat"),
    ("EMBEDDING", "embeddings"),
    ("RETRIEVER", "retrieval"),
    ("TOOL", "execute_tool"),
    ("AGENT", "invoke_agent"),
    ("WORKFLOW", "invoke_workflow"),
];

/// Types that the conventions have no operation for, with our role and phase.
const ROLES: &[(&str, &str, Option<&str>)] = &[
    ("CHAIN", "step", None),
    ("PARSER", "step", None),
    ("TASK", "step", None),
    ("MEMORY", "step", None),
    ("RERANKER", "retrieval", Some("act")),
    ("GUARDRAIL", "step", Some("reflect")),
    ("EVALUATOR", "step", Some("reflect")),
];

/// Texts in quotes.
const NAMES: &[(&str, &str)] = &[
    ("mlflow.llm.model", keys::GEN_AI_RESPONSE_MODEL),
    ("mlflow.trace.session", keys::SESSION_ID),
    ("mlflow.trace.user", "user.id"),
];

pub(super) fn add(draft: &mut Draft<'_>) {
    let came = draft.came();
    let name = draft.span.name.as_str();
    let kind = came.str("mlflow.spanType").map_or("", unquoted);
    if let Some((_, operation)) = OPERATIONS.iter().find(|(theirs, _)| *theirs == kind) {
        draft.put(keys::GEN_AI_OPERATION_NAME, *operation);
    } else if langchain::is_fallback(name) {
        langchain::fallback(draft);
    } else if let Some((_, role, phase)) = ROLES.iter().find(|(theirs, ..)| *theirs == kind) {
        draft.put(keys::ROLE, *role);
        draft.put_some(keys::AI_PHASE, *phase);
    }
    for (theirs, ours) in NAMES {
        draft.put_some(ours, came.str(theirs).map(unquoted));
    }
    match kind {
        "AGENT" => draft.put(keys::GEN_AI_AGENT_NAME, name),
        "TOOL" => {
            draft.put(keys::GEN_AI_TOOL_NAME, name);
            draft.copy_table(&[
                ("mlflow.spanInputs", keys::GEN_AI_TOOL_CALL_ARGUMENTS),
                ("mlflow.spanOutputs", keys::GEN_AI_TOOL_CALL_RESULT),
            ]);
        }
        "LLM" | "CHAT_MODEL" | "EMBEDDING" => inference(draft),
        _ => {}
    }
}

fn inference(draft: &mut Draft<'_>) {
    let came = draft.came();
    draft.put_provider(came.str("mlflow.llm.provider").map(unquoted));
    if let Some(usage) = json(came, "mlflow.chat.tokenUsage") {
        messages::put_usage(draft, &usage);
    }
    let cost = json(came, "mlflow.llm.cost");
    let cost = cost.as_ref().and_then(|cost| cost.get("total_cost").unwrap_or(cost).as_f64());
    draft.put_some(keys::COST_USD, cost);
    if let Some(Json::Array(tools)) = json(came, "mlflow.chat.tools") {
        messages::put_tools(draft, &tools);
    }
    if let Some(input) = json(came, "mlflow.spanInputs") {
        messages::put_request(draft, &input);
        if let Some(list) = langchain::input(&input) {
            messages::put_input(draft, list);
        }
    }
    if let Some(output) = json(came, "mlflow.spanOutputs") {
        draft.put_some(keys::GEN_AI_RESPONSE_ID, langchain::response_id(&output));
        if let Some(list) = langchain::output(&output) {
            let reason = list.pointer("/0/finish_reason").and_then(Json::as_str).map(str::to_owned);
            messages::put_finish_reason(draft, reason.as_deref());
            messages::put_output(draft, list, None);
        }
    }
}
