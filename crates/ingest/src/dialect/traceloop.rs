//! OpenLLMetry (Traceloop): `traceloop.*`, and before 0.48 messages in indexed attributes
//! (`gen_ai.prompt.0.role`) with `llm.request.type`. After
//! opentelemetry-semantic-conventions-ai 0.5.1.

use serde_json::{Map, Value as Json, json};
use throughline_trace::{Value, keys};

use super::draft::Draft;
use super::{genai, indexed, langchain, messages};

/// Keys of its own that begin like OpenInference's.
pub(super) const OLD_KEYS: &[&str] = &["llm.request.type", "llm.usage.total_tokens"];

const PROPERTIES: &str = "traceloop.association.properties.";

/// `traceloop.span.kind` with the conventions' operation.
const KINDS: &[(&str, &str)] =
    &[("workflow", "invoke_workflow"), ("agent", "invoke_agent"), ("tool", "execute_tool")];

/// `llm.request.type` with the conventions' operation.
const REQUESTS: &[(&str, &str)] =
    &[("chat", "chat"), ("completion", "text_completion"), ("embedding", "embeddings")];

const OF_A_TOOL: &[(&str, &str)] = &[
    ("traceloop.entity.name", keys::GEN_AI_TOOL_NAME),
    ("traceloop.entity.input", keys::GEN_AI_TOOL_CALL_ARGUMENTS),
    ("traceloop.entity.output", keys::GEN_AI_TOOL_CALL_RESULT),
];

pub(super) fn add(draft: &mut Draft<'_>) {
    let came = draft.came();
    let operation = |table: &[(&str, &'static str)], key: &str| {
        let theirs = came.str(key)?;
        table.iter().find(|(name, _)| *name == theirs).map(|(_, ours)| *ours)
    };
    let kind = came.str("traceloop.span.kind");
    if langchain::is_fallback(&draft.span.name) {
        langchain::fallback(draft);
    } else if kind == Some("task") {
        draft.put(keys::ROLE, "step");
    } else if came.str("llm.request.type") == Some("rerank") {
        draft.put(keys::ROLE, "retrieval");
    }
    draft.put_some(keys::GEN_AI_OPERATION_NAME, operation(KINDS, "traceloop.span.kind"));
    draft.put_some(keys::GEN_AI_OPERATION_NAME, operation(REQUESTS, "llm.request.type"));
    // LiteLLM has its own names here, and may name no operation.
    if draft.get(keys::GEN_AI_OPERATION_NAME).is_none() {
        draft.put_some(keys::ROLE, came.str("llm.request.type").and_then(genai::role_of));
    }
    match kind {
        Some("tool") => draft.copy_table(OF_A_TOOL),
        Some("agent") => draft.copy_table(&[("traceloop.entity.name", keys::GEN_AI_AGENT_NAME)]),
        _ => {}
    }
    draft.copy_table(&[
        ("traceloop.workflow.name", keys::GEN_AI_WORKFLOW_NAME),
        ("traceloop.workflow.name", keys::WORKFLOW_ID),
        ("traceloop.prompt.version", "gen_ai.prompt.version"),
    ]);
    let property = |name: &str| came.get(&format!("{PROPERTIES}{name}")).map(Value::to_text);
    let first = |names: &[&str]| names.iter().find_map(|name| property(name));
    draft.put_some(keys::GEN_AI_AGENT_NAME, property("lc_agent_name"));
    draft.put_some(keys::SESSION_ID, first(langchain::SESSIONS));
    draft.put_some("user.id", first(langchain::USERS).or_else(|| first_text(draft, "llm.user")));
    if came.bool("llm.is_streaming") == Some(true) {
        draft.put(keys::GEN_AI_REQUEST_STREAM, true);
    }
    if let Some(tools) = indexed::list(came, "llm.request.functions.") {
        let tools: Vec<Json> = tools.into_iter().map(tool).collect();
        messages::put_tools(draft, &tools);
    }
    if let Some(list) = indexed::list(came, "gen_ai.prompt.") {
        messages::put_input(draft, list.into_iter().map(message).collect());
    }
    if let Some(list) = indexed::list(came, "gen_ai.completion.") {
        let reason = list.first().and_then(|first| first.get("finish_reason")?.as_str());
        messages::put_finish_reason(draft, reason);
        messages::put_output(draft, list.into_iter().map(message).collect(), None);
    }
}

fn first_text(draft: &Draft<'_>, key: &str) -> Option<String> {
    draft.came().str(key).map(str::to_owned)
}

/// A tool whose parameters are JSON in a text.
fn tool(mut tool: Json) -> Json {
    if let Some(text) = tool.get("parameters").and_then(Json::as_str)
        && let Ok(schema) = serde_json::from_str::<Json>(text)
    {
        tool["parameters"] = schema;
    }
    tool
}

/// A message whose content may be JSON of a list of parts, in a text.
fn message(message: Json) -> Json {
    let Json::Object(mut fields) = message else { return json!({}) };
    let parts = fields.get("content").and_then(Json::as_str).and_then(parts);
    if let Some(parts) = parts {
        fields.insert("content".to_owned(), parts);
    }
    if !fields.contains_key("role") {
        fields.insert("role".to_owned(), Json::from("assistant"));
    }
    Json::Object(fields.into_iter().collect::<Map<_, _>>())
}

/// The parts that a text spells: a list of objects that say their type. Any other text is what was
/// said.
fn parts(text: &str) -> Option<Json> {
    if !text.starts_with('[') {
        return None;
    }
    let json: Json = serde_json::from_str(text).ok()?;
    json.as_array()?.iter().all(|part| part.get("type").is_some()).then_some(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_looks_like_a_list_stays_a_text() {
        let said = |content: &str| message(json!({ "role": "user", "content": content }));
        assert_eq!(said("[1, 2]")["content"], json!("[1, 2]"));
        let parts = r#"[{"type":"text","text":"hi"}]"#;
        assert_eq!(said(parts)["content"], json!([{ "type": "text", "text": "hi" }]));
    }
}
