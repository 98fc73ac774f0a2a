//! Messages in the form of the OpenTelemetry GenAI conventions (`gen_ai.input.messages`,
//! `gen_ai.output.messages`, `gen_ai.tool.definitions`), written for our spans and read for the
//! pages from anyone's.
//!
//! Reading is lenient, since foreign spans hold whatever their author found: older forms, the
//! forms of OpenAI and Anthropic, plain text. It answers what it understood with the problems it
//! met, and keeps parts that it does not know whole.

mod written;

use serde_json::{Map, Value, json};

use crate::chat::{Choice, Tool};
use crate::kept::is_foreign_thought;
use crate::message::{FinishReason, Media, MediaSource, Message, Part, Role, ToolCall, ToolResult};
use crate::openai;

pub use written::{input_messages_text, output_messages_text};

/// A message as a span tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanMessage {
    /// The message.
    pub message: Message,
    /// Why it ended, on messages that a model answered.
    pub finish_reason: Option<FinishReason>,
}

/// The value of `gen_ai.input.messages`.
pub fn input_messages(messages: &[Message]) -> Value {
    messages.iter().map(|message| Value::Object(message_to_json(message))).collect()
}

/// The value of `gen_ai.output.messages`.
pub fn output_messages(choices: &[Choice]) -> Value {
    let with_reason = |choice: &Choice| {
        let mut json = message_to_json(&choice.message);
        json.insert("finish_reason".to_owned(), Value::from(choice.finish_reason.as_str()));
        Value::Object(json)
    };
    choices.iter().map(with_reason).collect()
}

/// Messages as read from a span, in the newest form: what [`parse_messages`] understood, written
/// anew.
pub fn span_messages(messages: &[SpanMessage]) -> Value {
    let with_reason = |SpanMessage { message, finish_reason }: &SpanMessage| {
        let mut json = message_to_json(message);
        if let Some(reason) = finish_reason {
            json.insert("finish_reason".to_owned(), Value::from(reason.as_str()));
        }
        Value::Object(json)
    };
    messages.iter().map(with_reason).collect()
}

/// The value of `gen_ai.tool.definitions`.
pub fn tool_definitions(tools: &[Tool]) -> Value {
    let definition = |tool: &Tool| {
        json!({
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters,
        })
    };
    tools.iter().map(definition).collect()
}

fn message_to_json(message: &Message) -> Map<String, Value> {
    let mut json = Map::new();
    json.insert("role".to_owned(), Value::from(message.role.as_str()));
    let parts = message.parts.iter().filter(|part| !is_repeated(part));
    json.insert("parts".to_owned(), parts.map(part_to_json).collect());
    if let Some(name) = &message.name {
        json.insert("name".to_owned(), Value::from(name.as_str()));
    }
    json
}

/// Thoughts that must go back to the provider as they came stand in the message twice: readable, and
/// whole with a signature that is of no use to anybody else.
fn is_repeated(part: &Part) -> bool {
    matches!(part, Part::Other(other) if is_foreign_thought(other, &[]))
}

fn part_to_json(part: &Part) -> Value {
    match part {
        Part::Text(content) => json!({ "type": "text", "content": content }),
        Part::Reasoning(content) => json!({ "type": "reasoning", "content": content }),
        Part::Refusal(content) => json!({ "type": "refusal", "content": content }),
        Part::ToolCall(call) => {
            let arguments = call.arguments_json();
            json!({
                "type": "tool_call",
                "id": call.id,
                "name": call.name,
                "arguments": arguments.unwrap_or_else(|_| Value::from(call.arguments.as_str())),
            })
        }
        Part::ToolResult(result) => {
            let mut json = json!({ "type": "tool_call_response", "response": result.result });
            if let Some(id) = &result.id {
                json["id"] = Value::from(id.as_str());
            }
            json
        }
        Part::Media(media) => media_to_json(media),
        Part::Other(other) => other.clone(),
    }
}

fn media_to_json(media: &Media) -> Value {
    let mut json = match &media.source {
        MediaSource::Uri(uri) => json!({ "type": "uri", "uri": uri }),
        MediaSource::Base64(content) => json!({ "type": "blob", "content": content }),
        MediaSource::FileId(id) => json!({ "type": "file", "file_id": id }),
    };
    json["modality"] = Value::from(media.modality.as_str());
    if let Some(mime_type) = &media.mime_type {
        json["mime_type"] = Value::from(mime_type.as_str());
    }
    json
}

/// Reads messages from the value of an attribute, as JSON or as a text that holds it. The second
/// value names what did not have a known form; text without form becomes a message of the user.
pub fn parse_messages(value: &Value) -> (Vec<SpanMessage>, Vec<String>) {
    let mut problems = Vec::new();
    let messages = match value {
        Value::Null => Vec::new(),
        Value::String(text) => return parse_text(text),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .filter_map(|(at, item)| parse_message(item, at, &mut problems))
            .collect(),
        Value::Object(object) => match object.get("messages") {
            Some(inner) => return parse_messages(inner),
            None => parse_message(value, 0, &mut problems).into_iter().collect(),
        },
        other => {
            problems.push(format!("expected a list of messages, got {other}"));
            Vec::new()
        }
    };
    (messages, problems)
}

/// Reads the parts of `gen_ai.system_instructions`, leniently as [`parse_messages`] does.
pub fn parse_instructions(value: &Value) -> (Vec<Part>, Vec<String>) {
    match value {
        Value::Null => (Vec::new(), Vec::new()),
        Value::String(text) => match structured(text) {
            Some(json) => parse_instructions(&json),
            None => (vec![Part::Text(text.clone())], Vec::new()),
        },
        Value::Array(items) => (items.iter().map(parse_part).collect(), Vec::new()),
        Value::Object(_) => (vec![parse_part(value)], Vec::new()),
        other => (Vec::new(), vec![format!("expected a list of parts, got {other}")]),
    }
}

fn parse_text(text: &str) -> (Vec<SpanMessage>, Vec<String>) {
    if text.trim().is_empty() {
        return (Vec::new(), Vec::new());
    }
    match structured(text) {
        Some(json) => parse_messages(&json),
        None => {
            let message = SpanMessage { message: Message::user(text), finish_reason: None };
            (vec![message], vec!["expected a list of messages, got plain text".to_owned()])
        }
    }
}

fn structured(text: &str) -> Option<Value> {
    let json: Value = serde_json::from_str(text).ok()?;
    (json.is_array() || json.is_object()).then_some(json)
}

fn parse_message(item: &Value, at: usize, problems: &mut Vec<String>) -> Option<SpanMessage> {
    let object = match item {
        Value::Object(object) => object,
        Value::String(text) => {
            problems.push(format!("messages[{at}]: expected an object with a role, got text"));
            return Some(SpanMessage {
                message: Message::user(text.as_str()),
                finish_reason: None,
            });
        }
        other => {
            problems.push(format!("messages[{at}]: expected an object with a role, got {other}"));
            return None;
        }
    };
    let text = |key: &str| object.get(key).and_then(Value::as_str);
    // A list of parts where messages belong: what some senders make of system instructions.
    let Some(role) = text("role") else {
        problems.push(format!("messages[{at}]: expected a `role`, got none"));
        let message = Message { role: Role::User, parts: vec![parse_part(item)], name: None };
        return Some(SpanMessage { message, finish_reason: None });
    };
    let role = Role::from_text(role);
    let mut parts: Vec<Part> = match object.get("parts").or_else(|| object.get("content")) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(items)) => items.iter().map(parse_part).collect(),
        Some(Value::String(text)) if text.is_empty() => Vec::new(),
        Some(Value::String(text)) => vec![Part::Text(text.clone())],
        Some(other) => vec![parse_part(other)],
    };
    if let (Role::Tool, Some(id)) = (&role, text("tool_call_id").or_else(|| text("id"))) {
        parts = vec![Part::ToolResult(ToolResult {
            id: Some(id.to_owned()),
            result: object
                .get("content")
                .or_else(|| object.get("parts"))
                .cloned()
                .unwrap_or_default(),
        })];
    }
    let calls = object.get("tool_calls").and_then(Value::as_array);
    parts.extend(calls.into_iter().flatten().map(|call| Part::ToolCall(parse_call(call))));
    let finish_reason = text("finish_reason").map(FinishReason::from_text);
    let name = text("name").map(str::to_owned);
    Some(SpanMessage { message: Message { role, parts, name }, finish_reason })
}

fn parse_part(item: &Value) -> Part {
    let Value::Object(object) = item else {
        return match item {
            Value::String(text) => Part::Text(text.clone()),
            other => Part::Other(other.clone()),
        };
    };
    let text = |key: &str| object.get(key).and_then(Value::as_str).map(str::to_owned);
    let content = || text("content").or_else(|| text("text"));
    let media = |source: MediaSource| {
        let modality = text("modality").unwrap_or_else(|| "document".to_owned());
        Part::Media(Media { modality, mime_type: text("mime_type"), source })
    };
    let known = match text("type").as_deref() {
        Some("text" | "input_text" | "output_text") | None => content().map(Part::Text),
        Some("reasoning") => content().map(Part::Reasoning),
        Some("thinking") => text("thinking").or_else(content).map(Part::Reasoning),
        Some("refusal") => content().or_else(|| text("refusal")).map(Part::Refusal),
        Some("tool_call" | "tool_use" | "function") => Some(Part::ToolCall(parse_call(item))),
        Some("tool_call_response" | "tool_result") => {
            let result = ["response", "result", "content"].iter().find_map(|key| object.get(*key));
            Some(Part::ToolResult(ToolResult {
                id: text("id").or_else(|| text("tool_use_id")).or_else(|| text("tool_call_id")),
                result: result.cloned().unwrap_or_default(),
            }))
        }
        Some("uri") => text("uri").map(|uri| media(MediaSource::Uri(uri))),
        Some("blob") => {
            text("content").or_else(|| text("data")).map(|d| media(MediaSource::Base64(d)))
        }
        Some("file") => text("file_id").map(|id| media(MediaSource::FileId(id))),
        _ => None,
    };
    known.unwrap_or_else(|| openai::part_of(item.clone()))
}

/// A call in our form (`name`, `arguments`), OpenAI's (`function`) or Anthropic's (`input`).
fn parse_call(item: &Value) -> ToolCall {
    let inner = item.get("function").filter(|inner| inner.is_object()).unwrap_or(item);
    let text = |value: &Value, key: &str| {
        value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let arguments = match inner.get("arguments").or_else(|| inner.get("input")) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(json) => json.to_string(),
    };
    ToolCall { id: text(item, "id"), name: text(inner, "name"), arguments }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn conversation() -> Vec<Message> {
        let call = ToolCall {
            id: "call_1".to_owned(),
            name: "weather".to_owned(),
            arguments: r#"{"city":"Bern"}"#.to_owned(),
        };
        let image = Media {
            modality: "image".to_owned(),
            mime_type: Some("image/png".to_owned()),
            source: MediaSource::Base64("iVBO".to_owned()),
        };
        vec![
            Message::system("be brief"),
            Message {
                role: Role::User,
                parts: vec![Part::Text("look".to_owned()), Part::Media(image)],
                name: Some("ada".to_owned()),
            },
            Message {
                role: Role::Assistant,
                parts: vec![Part::Reasoning("hm".to_owned()), Part::ToolCall(call)],
                name: None,
            },
            Message::tool_result("call_1", json!({ "celsius": 21 })),
        ]
    }

    /// Messages as lines for a person, with the problems after them.
    fn read(value: Value) -> String {
        let (messages, problems) = parse_messages(&value);
        let line = |m: &SpanMessage| {
            let reason = m.finish_reason.as_ref().map(|r| format!(" [{}]", r.as_str()));
            format!(
                "{}: {:?}{}",
                m.message.role.as_str(),
                m.message.parts,
                reason.unwrap_or_default()
            )
        };
        let problems = problems.iter().map(|problem| format!("! {problem}"));
        messages.iter().map(line).chain(problems).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn our_messages_have_the_form_of_the_conventions() {
        insta::assert_snapshot!(format!("{:#}", input_messages(&conversation()[2..])), @r#"
        [
          {
            "parts": [
              {
                "content": "hm",
                "type": "reasoning"
              },
              {
                "arguments": {
                  "city": "Bern"
                },
                "id": "call_1",
                "name": "weather",
                "type": "tool_call"
              }
            ],
            "role": "assistant"
          },
          {
            "parts": [
              {
                "id": "call_1",
                "response": {
                  "celsius": 21
                },
                "type": "tool_call_response"
              }
            ],
            "role": "tool"
          }
        ]
        "#);
    }

    #[test]
    fn what_we_write_we_read() {
        let (messages, problems) = parse_messages(&input_messages(&conversation()));
        assert_eq!(problems, Vec::<String>::new());
        let messages: Vec<Message> = messages.into_iter().map(|m| m.message).collect();
        assert_eq!(messages, conversation());
        let choice =
            Choice { message: Message::assistant("yes"), finish_reason: FinishReason::ToolCall };
        let text = output_messages(std::slice::from_ref(&choice)).to_string();
        let (messages, _) = parse_messages(&Value::from(text));
        assert_eq!(
            messages,
            [SpanMessage { message: choice.message, finish_reason: Some(choice.finish_reason) }]
        );
    }

    #[test]
    fn foreign_forms_are_read() {
        insta::assert_snapshot!(read(json!([
            { "role": "human", "content": "hello" },
            { "role": "assistant", "content": null, "tool_calls": [
                { "id": "c", "type": "function", "function": { "name": "f", "arguments": "{}" } } ] },
            { "role": "tool", "tool_call_id": "c", "content": "42" },
            { "role": "assistant", "content": [
                { "type": "thinking", "thinking": "so" },
                { "type": "tool_use", "id": "t", "name": "g", "input": { "a": 1 } } ] },
            { "role": "user", "content": [
                { "type": "tool_result", "tool_use_id": "t", "content": "ok" },
                { "type": "image_url", "image_url": { "url": "https://x/y.png" } },
                { "type": "hologram" } ] },
            { "role": "assistant", "parts": [
                { "type": "tool_call_response", "id": "r", "result": 7 } ], "finish_reason": "end_turn" },
        ])), @r#"
        user: [Text("hello")]
        assistant: [ToolCall(ToolCall { id: "c", name: "f", arguments: "{}" })]
        tool: [ToolResult(ToolResult { id: Some("c"), result: String("42") })]
        assistant: [Reasoning("so"), ToolCall(ToolCall { id: "t", name: "g", arguments: "{\"a\":1}" })]
        user: [ToolResult(ToolResult { id: Some("t"), result: String("ok") }), Media(Media { modality: "image", mime_type: None, source: Uri("https://x/y.png") }), Other(Object {"type": String("hologram")})]
        assistant: [ToolResult(ToolResult { id: Some("r"), result: Number(7) })] [stop]
        "#);
    }

    #[test]
    fn what_has_no_form_is_named() {
        insta::assert_snapshot!(
            read(json!(["hi", 5, { "type": "text", "content": "x" }])),
            @r#"
        user: [Text("hi")]
        user: [Text("x")]
        ! messages[0]: expected an object with a role, got text
        ! messages[1]: expected an object with a role, got 5
        ! messages[2]: expected a `role`, got none
        "#
        );
        insta::assert_snapshot!(read(json!("what is 2+2?")), @r#"
        user: [Text("what is 2+2?")]
        ! expected a list of messages, got plain text
        "#);
        assert_eq!(read(json!("")), "");
        assert_eq!(
            parse_instructions(&json!([{ "type": "text", "content": "be brief" }])).0,
            [Part::Text("be brief".to_owned())]
        );
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in r#"[\[\]{}:,"a-z0-9 ]{0,60}"#) {
            let _ = parse_messages(&Value::from(text));
        }
    }
}
