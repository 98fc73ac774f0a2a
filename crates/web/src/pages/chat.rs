//! Messages as a conversation: who said what, tool calls with their arguments, results, reasoning.

use std::collections::HashMap;

use maud::{Markup, html};
use serde_json::Value as Json;
use throughline_llm::genai::{self, SpanMessage};
use throughline_llm::{Media, MediaSource, Message, Part, Role, ToolCall, ToolResult};
use throughline_trace::{Attributes, LogRecord, Span, SpanId, SpanRole, keys};

use super::json_text;
use crate::format;
use crate::layout::copy_near;

/// Texts longer than this are folded, characters.
const FOLD_CHARS: usize = 1_400;
/// What a folded text shows, characters.
const PREVIEW_CHARS: usize = 700;
/// Earlier messages of a conversation beyond this many are folded together.
const FOLD_MESSAGES: usize = 8;
/// Messages that stay in sight at the end of a long conversation.
const LAST_MESSAGES: usize = 4;

/// Events of one message, with the role of messages that do not say theirs.
const MESSAGE_EVENTS: [(&str, &str); 4] = [
    ("gen_ai.system.message", "system"),
    ("gen_ai.user.message", "user"),
    ("gen_ai.assistant.message", "assistant"),
    ("gen_ai.tool.message", "tool"),
];
/// The event of an answer.
const ANSWER_EVENT: &str = "gen_ai.choice";

/// The conversation of a model call.
#[derive(Debug, Default)]
pub(crate) struct Chat {
    instructions: Vec<Part>,
    input: Vec<SpanMessage>,
    output: Vec<SpanMessage>,
    problems: Vec<String>,
}

impl Chat {
    /// The conversation of a span: that of its attributes, else that of its log records.
    pub(crate) fn of_span(span: &Span, logs: &[&LogRecord]) -> Self {
        match Self::from_attributes(&span.attributes) {
            chat if chat.len() == 0 => Self::from_logs(logs),
            chat => chat,
        }
    }

    /// The conversation that attributes hold, in whatever form the sender gave it.
    fn from_attributes(attributes: &Attributes) -> Self {
        let json =
            |key: &str| attributes.get(key).map(throughline_trace::Value::to_structured_json);
        let mut chat = Self::default();
        if let Some(value) = json(keys::GEN_AI_SYSTEM_INSTRUCTIONS) {
            let (parts, problems) = genai::parse_instructions(&value);
            chat.instructions = parts;
            chat.problems.extend(problems);
        }
        if let Some(value) = json(keys::GEN_AI_INPUT_MESSAGES) {
            let (messages, problems) = genai::parse_messages(&value);
            chat.input = messages;
            chat.problems.extend(problems);
        }
        if let Some(value) = json(keys::GEN_AI_OUTPUT_MESSAGES) {
            let (messages, problems) = genai::parse_messages(&value);
            chat.output = messages;
            chat.problems.extend(problems);
        }
        chat
    }

    /// The conversation that log records of the span hold, for instrumentations that send content as
    /// events beside it (GenAI conventions, "events"): one record a message, or one for all of them.
    fn from_logs(logs: &[&LogRecord]) -> Self {
        let mut records = logs.to_vec();
        records.sort_by_key(|record| record.time_unix_nano);
        if let Some(all) =
            records.iter().find(|record| record.event_name == keys::INFERENCE_DETAILS_EVENT)
        {
            return Self::from_attributes(&all.attributes);
        }
        let mut chat = Self::default();
        for record in records {
            let role = MESSAGE_EVENTS.iter().find(|(name, _)| *name == record.event_name);
            let is_answer = record.event_name == ANSWER_EVENT;
            if !is_answer && role.is_none() {
                continue;
            }
            let mut body = record.body.to_structured_json();
            if let (true, Some(inner)) = (is_answer, body.get_mut("message").map(Json::take)) {
                let reason = body.get("finish_reason").cloned();
                body = inner;
                if let (Some(fields), Some(reason)) = (body.as_object_mut(), reason) {
                    fields.insert("finish_reason".to_owned(), reason);
                }
            }
            if let Some(fields) = body.as_object_mut() {
                let role = role.map_or("assistant", |(_, role)| role);
                fields.entry("role").or_insert_with(|| Json::from(role));
                // The call that a tool's result answers, by the name that it had in events.
                if let (None, Some(id)) = (fields.get("tool_call_id"), fields.get("id").cloned())
                    && role == "tool"
                {
                    fields.insert("tool_call_id".to_owned(), id);
                }
            }
            let (messages, problems) = genai::parse_messages(&body);
            chat.problems.extend(problems);
            if is_answer { &mut chat.output } else { &mut chat.input }.extend(messages);
        }
        chat
    }

    /// How many messages there are; instructions count as one.
    pub(crate) fn len(&self) -> usize {
        usize::from(!self.instructions.is_empty()) + self.input.len() + self.output.len()
    }

    /// What a user said last.
    fn question(&self) -> Option<SpanMessage> {
        self.input.iter().rev().find(|said| said.message.role == Role::User).cloned()
    }

    /// What was said last in answer.
    fn answer(&self) -> Option<SpanMessage> {
        self.output.last().cloned()
    }

    /// The conversation; the first of many turns are folded.
    pub(crate) fn draw(&self) -> Markup {
        let instructions = (!self.instructions.is_empty()).then(|| {
            let message =
                Message { role: Role::System, parts: self.instructions.clone(), name: None };
            SpanMessage { message, finish_reason: None }
        });
        let folded = match self.input.len() {
            n if n > FOLD_MESSAGES => n - LAST_MESSAGES,
            _ => 0,
        };
        let (earlier, recent) = self.input.split_at(folded);
        html! {
            div.chat {
                @if let Some(message) = &instructions { (bubble(message, false)) }
                @if let Some((first, rest)) = earlier.split_first() {
                    (bubble(first, false))
                    @if !rest.is_empty() {
                        details.turns {
                            summary { "Show " (rest.len()) " earlier messages" }
                            @for message in rest { (bubble(message, false)) }
                        }
                    }
                }
                @for message in recent { (bubble(message, false)) }
                @for message in &self.output { (bubble(message, true)) }
                @for problem in &self.problems { p.muted { (problem) } }
            }
        }
    }
}

/// What a trace was asked and what it answered: the last thing that a user said to its first model
/// call, and what its last model call said. A call holds all that was said before it, so that only
/// those are read that are needed.
pub(super) fn exchange(spans: &[Span], logs: &[LogRecord]) -> Markup {
    let mut logs_of: HashMap<SpanId, Vec<&LogRecord>> = HashMap::new();
    for log in logs {
        if let Some(span_id) = log.span_id {
            logs_of.entry(span_id).or_default().push(log);
        }
    }
    let mut calls: Vec<&Span> =
        spans.iter().filter(|span| span.role() == SpanRole::LlmCall).collect();
    calls.sort_by_key(|span| (span.start_unix_nano, span.end_unix_nano));
    let chat = |span: &&Span| {
        let logs = logs_of.get(&span.span_id).map_or(&[][..], Vec::as_slice);
        Chat::of_span(span, logs)
    };
    let (mut question, mut answer) = (None, None);
    if let Some((last, earlier)) = calls.split_last() {
        let last = chat(last);
        let first = earlier.iter().find_map(|call| chat(call).question());
        question = first.or_else(|| last.question());
        let before = || earlier.iter().rev().find_map(|call| chat(call).answer());
        answer = last.answer().or_else(before);
    }
    html! {
        div.chat {
            @if let Some(question) = &question { (bubble(question, false)) }
            @if let Some(answer) = &answer { (bubble(answer, true)) }
            @if question.is_none() && answer.is_none() { p.muted { "No messages were recorded." } }
        }
    }
}

fn role_class(role: &Role) -> &'static str {
    match role {
        Role::System | Role::Developer => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
        Role::Other(_) => "",
    }
}

fn role_name(role: &Role) -> &str {
    match role {
        Role::System => "System",
        Role::Developer => "Developer",
        Role::User => "User",
        Role::Assistant => "Assistant",
        Role::Tool => "Tool",
        Role::Other(name) => name,
    }
}

fn bubble(message: &SpanMessage, is_answer: bool) -> Markup {
    let SpanMessage { message, finish_reason } = message;
    html! {
        article class={ "msg " (role_class(&message.role)) @if is_answer { " answer" } } data-text=(plain_text(message)) {
            header {
                (role_name(&message.role))
                @if let Some(name) = &message.name { small { (name) } }
                @if is_answer { small { "answer" } }
                @if let Some(reason) = finish_reason { small { (reason.as_str()) } }
                (copy_near("Copy the message"))
            }
            @for part in &message.parts { (draw_part(part)) }
            @if message.parts.is_empty() { p.muted { "(empty)" } }
        }
    }
}

fn plain_text(message: &Message) -> String {
    let parts = message.parts.iter().map(|part| match part {
        Part::Text(text) | Part::Reasoning(text) | Part::Refusal(text) => text.clone(),
        Part::ToolCall(call) => format!("{}({})", call.name, call.arguments),
        Part::ToolResult(result) => json_text::plain(&result.result),
        Part::Media(_) => String::new(),
        Part::Other(value) => json_text::plain(value),
    });
    parts.collect::<Vec<_>>().join("\n")
}

fn draw_part(part: &Part) -> Markup {
    match part {
        Part::Text(text) => prose(text),
        Part::Reasoning(text) => html! { div.reason { b { "Reasoning" } (prose(text)) } },
        Part::Refusal(text) => html! { div.errbox { b { "Refused" } (prose(text)) } },
        Part::ToolCall(call) => tool_call(call),
        Part::ToolResult(result) => tool_result(result),
        Part::Media(media) => draw_media(media),
        Part::Other(value) => html! { div.call { pre.json { (json_text::pretty(value)) } } },
    }
}

fn tool_call(call: &ToolCall) -> Markup {
    html! {
        div.call {
            header { span { "calls" } b { (call.name) } @if !call.id.is_empty() { small.cut { (call.id) } } }
            @match call.arguments_json() {
                Ok(Json::Object(arguments)) if arguments.is_empty() => {},
                Ok(arguments) => pre.json { (json_text::pretty(&arguments)) },
                Err(_) => pre.json { (call.arguments) },
            }
        }
    }
}

fn tool_result(result: &ToolResult) -> Markup {
    html! {
        div.call {
            header { span { "result" } @if let Some(id) = &result.id { small.cut { (id) } } }
            (value_box(&result.result))
        }
    }
}

fn draw_media(media: &Media) -> Markup {
    let mime = media.mime_type.as_deref().unwrap_or("");
    html! {
        div.call {
            header { span { (media.modality) } @if !mime.is_empty() { small { (mime) } } }
            pre {
                @match &media.source {
                    // Shown as text, never loaded: pages ask no other site for anything.
                    MediaSource::Uri(uri) => { (uri) },
                    MediaSource::Base64(data) => { "base64, " (format::bytes(data.len() as u64 * 3 / 4)) },
                    MediaSource::FileId(id) => { "file " (id) },
                }
            }
        }
    }
}

/// A JSON value; text that holds JSON is shown as JSON, and long ones are folded.
pub(crate) fn value_box(value: &Json) -> Markup {
    let unfolded = match value {
        Json::String(text) if matches!(text.trim_start().as_bytes().first(), Some(b'{' | b'[')) => {
            serde_json::from_str(text).unwrap_or_else(|_| value.clone())
        }
        other => other.clone(),
    };
    match &unfolded {
        Json::String(text) => html! { pre { (prose(text)) } },
        other => {
            let markup = html! { pre.json { (json_text::pretty(other)) } };
            let plain = json_text::plain(other);
            fold(&plain, &html! { pre.json { (preview(&plain)) } }, markup)
        }
    }
}

/// Text as it was written; long text is folded.
pub(crate) fn prose(text: &str) -> Markup {
    fold(text, &html! { div.text { (preview(text)) } }, html! { div.text { (text) } })
}

fn fold(text: &str, short: &Markup, whole: Markup) -> Markup {
    let chars = text.chars().count();
    if chars <= FOLD_CHARS {
        return whole;
    }
    html! {
        details.fold {
            summary {
                div.clip { (short) }
                span.ask.show { "Show all " (format::count(chars as u64)) " characters" }
                span.ask.hide { "Show less" }
            }
            (whole)
        }
    }
}

fn preview(text: &str) -> &str {
    let end = text.char_indices().nth(PREVIEW_CHARS).map_or(text.len(), |(at, _)| at);
    &text[..end]
}

#[cfg(test)]
#[path = "chat_tests.rs"]
mod tests;
