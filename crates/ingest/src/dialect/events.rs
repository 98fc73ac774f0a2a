//! The GenAI conventions with content in events of the span: one event a message
//! (`gen_ai.user.message`, `gen_ai.choice`), or one for all that went in and one for what came out.
//! After semantic-conventions 1.27 to 1.36, and azure-ai-inference.

use serde_json::{Map, Value as Json};
use throughline_trace::{Event, keys};

use super::draft::Draft;
use super::{json, langchain, messages};

/// Where an event keeps its body as JSON; without it, the body's fields are attributes.
const BODY: &str = "gen_ai.event.content";

/// Events of one message, with the role of messages that do not say theirs.
const MESSAGES: &[(&str, &str)] = &[
    ("gen_ai.system.message", "system"),
    ("gen_ai.user.message", "user"),
    ("gen_ai.assistant.message", "assistant"),
    ("gen_ai.tool.message", "tool"),
];

pub(super) fn add(draft: &mut Draft<'_>) {
    let (mut input, mut output) = (Vec::new(), Vec::new());
    for event in &draft.span.events {
        match event.name.as_str() {
            "gen_ai.choice" => output.push(choice(event)),
            "gen_ai.content.prompt" => {
                let read =
                    json(&event.attributes, "gen_ai.prompt").as_ref().and_then(langchain::input);
                append(&mut input, read);
            }
            "gen_ai.content.completion" => {
                let read = json(&event.attributes, "gen_ai.completion")
                    .as_ref()
                    .and_then(langchain::output);
                append(&mut output, read);
            }
            keys::INFERENCE_DETAILS_EVENT => {
                for key in keys::MESSAGE_KEYS {
                    draft.put_some(key, event.attributes.get(key).cloned());
                }
            }
            name => {
                if let Some((_, role)) = MESSAGES.iter().find(|(theirs, _)| *theirs == name) {
                    input.push(message(body(event), role));
                }
            }
        }
    }
    if !input.is_empty() {
        messages::put_input(draft, Json::Array(input));
    }
    if !output.is_empty() {
        let reason = output[0].get("finish_reason").and_then(Json::as_str).map(str::to_owned);
        messages::put_finish_reason(draft, reason.as_deref());
        messages::put_output(draft, Json::Array(output), None);
    }
}

fn append(list: &mut Vec<Json>, read: Option<Json>) {
    if let Some(Json::Array(read)) = read {
        list.extend(read);
    }
}

/// The body of an event.
pub(super) fn body(event: &Event) -> Json {
    json(&event.attributes, BODY).unwrap_or_else(|| {
        let structured = |(key, value): (&str, &throughline_trace::Value)| {
            (key.to_owned(), value.to_structured_json())
        };
        let mut fields: Map<_, _> = event.attributes.iter().map(structured).collect();
        // What was said is text, whatever it looks like.
        if let Some(text) = event.attributes.str("content") {
            fields.insert("content".to_owned(), Json::from(text));
        }
        Json::Object(fields)
    })
}

/// The message of a body: with a role, and a call's id where the reader of messages looks for it.
pub(super) fn message(body: Json, role: &str) -> Json {
    let Json::Object(mut fields) = body else {
        return serde_json::json!({ "role": role, "content": body });
    };
    fields.entry("role").or_insert_with(|| Json::from(role));
    Json::Object(fields)
}

fn choice(event: &Event) -> Json {
    answer(body(event))
}

/// The message of a choice, with the reason why it ended.
pub(super) fn answer(mut body: Json) -> Json {
    let reason = body.get("finish_reason").cloned();
    let inner = body.get_mut("message").map(Json::take);
    let mut message = message(inner.unwrap_or(body), "assistant");
    if let Some(reason) = reason {
        message["finish_reason"] = reason;
    }
    message
}
