//! What callers get whom no story knows: a tool call when tools are offered and the user spoke
//! last, what the tools found when they have answered, else a plain reply that repeats the question.

use serde_json::{Value, json};

use super::reply::Reply;
use super::request::{AnswerFormat, ChatRequest, Role, Tool, ToolChoice};

/// Most characters of the caller's own text that a reply repeats.
const ECHO_CHARS: usize = 240;

/// How deep a schema may nest before samples of it end.
const SCHEMA_DEPTH: usize = 8;

/// The reply to an unknown caller.
pub(crate) fn reply(request: &ChatRequest) -> Reply {
    if let Some(tool) = wanted_tool(request) {
        let arguments = sample(&tool.parameters, &tool.parameters, request.last_user_text(), 0);
        let arguments = if arguments.is_object() { arguments } else { json!({}) };
        return Reply::call(&tool.name, arguments);
    }
    match &request.format {
        AnswerFormat::Text => Reply::text(prose(request)),
        AnswerFormat::JsonObject => Reply::text(json!({ "answer": prose(request) }).to_string()),
        AnswerFormat::JsonSchema(schema) => {
            Reply::text(sample(schema, schema, request.last_user_text(), 0).to_string())
        }
    }
}

fn wanted_tool(request: &ChatRequest) -> Option<&Tool> {
    let user_spoke_last = request.messages.last().is_some_and(|m| m.role == Role::User);
    match &request.tool_choice {
        ToolChoice::None => None,
        ToolChoice::Named(name) if user_spoke_last => {
            request.tools.iter().find(|tool| tool.name == *name)
        }
        ToolChoice::Auto if user_spoke_last => request.tools.first(),
        ToolChoice::Required => request.tools.first(),
        ToolChoice::Named(_) | ToolChoice::Auto => None,
    }
}

fn prose(request: &ChatRequest) -> String {
    let asked = shortened(request.last_user_text());
    match request.messages.last() {
        Some(last) if last.role == Role::Tool => {
            let found = shortened(&last.text);
            format!("You asked: {asked}\n\nThe tool answered: {found}\n\nThat is all I needed.")
        }
        _ if asked.is_empty() => {
            "Hello! I am a simulated model. Ask me something and I will repeat it back.".to_owned()
        }
        _ => format!(
            "You asked: {asked}\n\nI am a simulated model, so this is no real answer, but it has \
             the shape, the pace and the token counts of one."
        ),
    }
}

fn shortened(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(ECHO_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A value that a JSON Schema allows, as far as the common keywords say; texts are filled from
/// `hint`.
fn sample(schema: &Value, root: &Value, hint: &str, depth: usize) -> Value {
    if depth > SCHEMA_DEPTH {
        return Value::Null;
    }
    let deeper = |schema: &Value| sample(schema, root, hint, depth + 1);
    for given in ["const", "default"] {
        if let Some(value) = schema.get(given) {
            return value.clone();
        }
    }
    for given in ["enum", "examples"] {
        if let Some(value) = schema.get(given).and_then(|values| values.get(0)) {
            return value.clone();
        }
    }
    if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
        let target = target.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
        return target.map_or(Value::Null, deeper);
    }
    for choice in ["anyOf", "oneOf", "allOf"] {
        if let Some(first) = schema.get(choice).and_then(|choices| choices.get(0)) {
            return deeper(first);
        }
    }
    let kind = match schema.get("type") {
        Some(Value::String(kind)) => kind.as_str(),
        Some(Value::Array(kinds)) => kinds.first().and_then(Value::as_str).unwrap_or("null"),
        _ if schema.get("properties").is_some() => "object",
        _ => "null",
    };
    let least = schema.get("minimum").and_then(Value::as_f64);
    match kind {
        "object" => {
            let fields = schema.get("properties").and_then(Value::as_object);
            let fields = fields.into_iter().flatten();
            Value::Object(fields.map(|(name, field)| (name.clone(), deeper(field))).collect())
        }
        "array" => json!([schema.get("items").map_or(Value::Null, deeper)]),
        "integer" => json!(number_in(hint).or(least).unwrap_or(1.0) as i64),
        "number" => json!(number_in(hint).or(least).unwrap_or(1.0)),
        "boolean" => json!(true),
        "string" => json!(text_for(schema, hint)),
        _ => Value::Null,
    }
}

fn text_for(schema: &Value, hint: &str) -> String {
    match schema.get("format").and_then(Value::as_str) {
        Some("date") => "2026-01-15".to_owned(),
        Some("date-time") => "2026-01-15T09:30:00Z".to_owned(),
        Some("email") => "someone@example.com".to_owned(),
        Some("uri" | "url") => "https://example.com/".to_owned(),
        Some("uuid") => "3f2504e0-4f89-41d3-9a0c-0305e82c3301".to_owned(),
        _ => {
            let most = schema.get("maxLength").and_then(Value::as_u64).unwrap_or(80);
            let text: String = hint.trim().chars().take(most as usize).collect();
            if text.is_empty() { "text".chars().take(most as usize).collect() } else { text }
        }
    }
}

fn number_in(hint: &str) -> Option<f64> {
    hint.split(|c: char| !c.is_ascii_digit() && c != '.').find_map(|part| part.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply_to(body: Value) -> Reply {
        reply(&ChatRequest::from_json(&body).expect("the request is good"))
    }

    #[test]
    fn a_tool_is_asked_for_with_arguments_that_fit_its_schema() {
        let reply = reply_to(json!({
            "model": "gpt-4o",
            "messages": [{"role": "user", "content": "weather in Oslo for 3 days"}],
            "tools": [{"type": "function", "function": {"name": "weather", "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "integer"},
                    "unit": {"enum": ["celsius", "fahrenheit"]},
                    "where": {"$ref": "#/$defs/place"},
                },
                "$defs": {"place": {"type": "object", "properties": {"near": {"type": "boolean"}}}},
            }}}],
        }));
        assert_eq!(
            reply.calls,
            [(
                "weather".to_owned(),
                json!({
                    "city": "weather in Oslo for 3 days",
                    "days": 3,
                    "unit": "celsius",
                    "where": {"near": true},
                })
            )]
        );
    }

    #[test]
    fn what_a_tool_found_is_told() {
        let reply = reply_to(json!({
            "model": "gpt-4o",
            "messages": [
                {"role": "user", "content": "weather in Oslo"},
                {"role": "assistant", "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]},
                {"role": "tool", "tool_call_id": "call_1", "content": "4 degrees, rain"},
            ],
            "tools": [{"type": "function", "function": {"name": "weather"}}],
        }));
        assert!(reply.calls.is_empty());
        assert!(reply.text.contains("4 degrees, rain"), "{}", reply.text);
    }

    #[test]
    fn a_schema_for_the_answer_is_kept() {
        let reply = reply_to(json!({
            "model": "gpt-4o",
            "messages": [{"role": "user", "content": "score it"}],
            "response_format": {"type": "json_schema", "json_schema": {"name": "score", "schema": {
                "type": "object",
                "properties": {"score": {"type": "number", "minimum": 0.5}, "tags": {"type": "array", "items": {"type": "string"}}},
            }}},
        }));
        let answer: Value = serde_json::from_str(&reply.text).expect("it is JSON");
        assert_eq!(answer, json!({"score": 0.5, "tags": ["score it"]}));
    }
}
