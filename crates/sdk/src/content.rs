//! What of prompts, answers and tools is recorded: where it goes, and what is taken out of it first.
//!
//! The standard switches say where: `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT`
//! (`true`, `false`, `SPAN_ONLY`, `EVENT_ONLY`, `SPAN_AND_EVENT`, `NO_CONTENT`) and
//! `OTEL_INSTRUMENTATION_GENAI_EMIT_EVENT`. A [`Redactor`] sees all of it before it goes anywhere.

mod limit;

use std::borrow::Cow;
use std::sync::Arc;

use opentelemetry::KeyValue;
use serde_json::Value;
use throughline_llm::{Choice, MediaSource, Message, Part, Tool, genai};

use crate::agent_notes;
use crate::telemetry_pipeline::Pipeline;
pub use limit::CONTENT_MAX_BYTES;
pub use limit::Kept;
use limit::Kind;

/// Where content goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentCapture {
    /// Onto spans.
    pub spans: bool,
    /// Into events (`gen_ai.client.inference.operation.details`), as structured values.
    pub events: bool,
}

impl ContentCapture {
    /// Nowhere.
    pub const NONE: Self = Self { spans: false, events: false };
    /// Onto spans only.
    pub const SPANS: Self = Self { spans: true, events: false };
    /// Into events only.
    pub const EVENTS: Self = Self { spans: false, events: true };
    /// Onto spans and into events.
    pub const BOTH: Self = Self { spans: true, events: true };

    /// What a value of `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` says, in either case;
    /// `None` for what is no such value.
    pub fn from_text(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "true" | "span_only" => Self::SPANS,
            "event_only" => Self::EVENTS,
            "span_and_event" => Self::BOTH,
            "false" | "no_content" => Self::NONE,
            _ => return None,
        })
    }
}

impl From<bool> for ContentCapture {
    fn from(wanted: bool) -> Self {
        if wanted { Self::SPANS } else { Self::NONE }
    }
}

/// Takes out of content what must not be recorded. It sees every text of messages, of tool arguments
/// and results, of an agent's reasons and of the errors of tools, before it goes onto a span or into
/// an event. A function from text to text is one:
///
/// ```
/// use throughline::{Recorder, Telemetry};
///
/// let telemetry = Telemetry::builder()
///     .recorder(&Recorder::new())
///     .redact(|text: &str| text.replace("4111 1111 1111 1111", "[card]"))
///     .build()?;
/// # drop(telemetry);
/// # Ok::<(), throughline::TelemetryError>(())
/// ```
pub trait Redactor: Send + Sync {
    /// The text as it may be recorded.
    fn text(&self, text: &str) -> String;

    /// Changes JSON to what may be recorded: every text in it, if not said otherwise. Names of
    /// fields stay.
    fn json(&self, value: &mut Value) {
        redact_json(self, value);
    }

    /// What may be recorded of an image, sound or document that is in the message itself, in base64:
    /// all, if not said otherwise.
    fn media(&self, base64: &str) -> String {
        base64.to_owned()
    }
}

impl<F: Fn(&str) -> String + Send + Sync> Redactor for F {
    fn text(&self, text: &str) -> String {
        self(text)
    }
}

/// A redactor that keeps the shape of content (roles, kinds of parts, fields, lengths) and nothing it
/// says: a text becomes `[12 characters]`, a number 0.
#[derive(Debug, Clone, Copy, Default)]
pub struct MaskContent;

impl Redactor for MaskContent {
    fn text(&self, text: &str) -> String {
        format!("[{} characters]", text.chars().count())
    }

    fn json(&self, value: &mut Value) {
        if value.is_number() {
            *value = Value::from(0);
        }
        redact_json(self, value);
    }

    fn media(&self, base64: &str) -> String {
        format!("[{} characters]", base64.len())
    }
}

fn redact_json<R: Redactor + ?Sized>(redactor: &R, value: &mut Value) {
    match value {
        Value::String(text) => *text = redactor.text(text),
        Value::Array(items) => items.iter_mut().for_each(|item| redactor.json(item)),
        Value::Object(fields) => {
            fields.values_mut().for_each(|field| redactor.json(field));
        }
        _ => {}
    }
}

/// The redactor of the current telemetry.
fn redactor() -> Option<Arc<dyn Redactor>> {
    Pipeline::current()?.redactor()
}

/// Where the content of a model call goes, when the model or its agent says that it is wanted or not.
pub(crate) fn places(said: Option<bool>) -> ContentCapture {
    let general = Pipeline::current().map_or(ContentCapture::SPANS, |p| p.content_capture());
    match said.or_else(agent_notes::said_of_content) {
        Some(false) => ContentCapture::NONE,
        Some(true) if general == ContentCapture::NONE => ContentCapture::SPANS,
        _ => general,
    }
}

/// Content of this kind, in at most as many bytes as the current telemetry keeps.
fn kept(kind: Kind, value: Value) -> Kept {
    let max_bytes = Pipeline::current().map_or(CONTENT_MAX_BYTES, |one| one.max_content_bytes());
    Kept::within(max_bytes, kind, value)
}

/// `gen_ai.input.messages`, redacted.
pub fn input_messages(messages: &[Message]) -> Kept {
    let value = match redactor() {
        Some(redactor) => {
            let redacted: Vec<Message> =
                messages.iter().map(|message| redact_message(&*redactor, message)).collect();
            genai::input_messages(&redacted)
        }
        None => genai::input_messages(messages),
    };
    kept(Kind::Input, value)
}

/// `gen_ai.tool.definitions`.
pub fn tool_definitions(tools: &[Tool]) -> Kept {
    kept(Kind::ToolDefinitions, genai::tool_definitions(tools))
}

/// `gen_ai.output.messages`, redacted.
pub fn output_messages(choices: &[Choice]) -> Kept {
    let value = match redactor() {
        Some(redactor) => {
            let redact = |choice: &Choice| Choice {
                message: redact_message(&*redactor, &choice.message),
                finish_reason: choice.finish_reason.clone(),
            };
            genai::output_messages(&choices.iter().map(redact).collect::<Vec<_>>())
        }
        None => genai::output_messages(choices),
    };
    kept(Kind::Output, value)
}

/// The attributes of [`input_messages`], which cost less than they do where nothing is taken out or cut.
pub fn input_attributes(messages: &[Message]) -> Vec<KeyValue> {
    let text = || genai::input_messages_text(messages);
    whole(Kind::Input, text).unwrap_or_else(|| input_messages(messages).into_attributes())
}

/// The attributes of [`output_messages`], which cost less than they do where nothing is taken out or cut.
pub fn output_attributes(choices: &[Choice]) -> Vec<KeyValue> {
    let text = || genai::output_messages_text(choices);
    whole(Kind::Output, text).unwrap_or_else(|| output_messages(choices).into_attributes())
}

/// Content as it is; `None` where there is a redactor, and when it is too long.
fn whole(kind: Kind, text: impl FnOnce() -> String) -> Option<Vec<KeyValue>> {
    let pipeline = Pipeline::current();
    if pipeline.as_ref().is_some_and(|one| one.redactor().is_some()) {
        return None;
    }
    let max_bytes = pipeline.map_or(CONTENT_MAX_BYTES, |one| one.max_content_bytes());
    let text = text();
    (text.len() <= max_bytes).then(|| vec![KeyValue::new(kind.key(), text)])
}

/// A text that quotes content, redacted.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    match redactor() {
        Some(redactor) => Cow::Owned(redactor.text(text)),
        None => Cow::Borrowed(text),
    }
}

/// The arguments of a tool as text, redacted: field by field where they are JSON.
pub(crate) fn arguments(arguments: &str) -> String {
    match redactor() {
        Some(redactor) => redact_arguments(&*redactor, arguments),
        None => arguments.to_owned(),
    }
}

/// The result of a tool as text, redacted.
pub(crate) fn result(result: &Value) -> String {
    match redactor() {
        Some(redactor) => {
            let mut result = result.clone();
            redactor.json(&mut result);
            result.to_string()
        }
        None => result.to_string(),
    }
}

fn redact_arguments(redactor: &dyn Redactor, arguments: &str) -> String {
    match serde_json::from_str::<Value>(arguments) {
        Ok(mut json) => {
            redactor.json(&mut json);
            json.to_string()
        }
        Err(_) if arguments.is_empty() => String::new(),
        Err(_) => redactor.text(arguments),
    }
}

fn redact_message(redactor: &dyn Redactor, message: &Message) -> Message {
    let mut message = message.clone();
    for part in &mut message.parts {
        match part {
            Part::Text(text) | Part::Reasoning(text) | Part::Refusal(text) => {
                *text = redactor.text(text);
            }
            Part::ToolCall(call) => call.arguments = redact_arguments(redactor, &call.arguments),
            Part::ToolResult(result) => redactor.json(&mut result.result),
            Part::Media(media) => match &mut media.source {
                MediaSource::Base64(data) => *data = redactor.media(data),
                MediaSource::Uri(uri) => *uri = redactor.text(uri),
                MediaSource::FileId(_) => {}
            },
            Part::Other(other) => redact_other(redactor, other),
        }
    }
    message.name = message.name.map(|name| redactor.text(&name));
    message
}

/// A part of a kind that we do not know. Its kind is its shape, not what it says; what else is called
/// `type` in it may say anything.
fn redact_other(redactor: &dyn Redactor, part: &mut Value) {
    let kind = part.get("type").filter(|kind| kind.is_string()).cloned();
    redactor.json(part);
    if let (Some(kind), Some(fields)) = (kind, part.as_object_mut()) {
        fields.insert("type".to_owned(), kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use throughline_llm::{Media, Role, ToolCall, ToolResult};

    fn secret_message() -> Message {
        let call = |arguments: &str| {
            Part::ToolCall(ToolCall {
                id: "c".to_owned(),
                name: "f".to_owned(),
                arguments: arguments.to_owned(),
            })
        };
        Message {
            role: Role::User,
            parts: vec![
                Part::Text("hunter2".to_owned()),
                Part::Reasoning("hunter2".to_owned()),
                call(r#"{"key":"hunter2","pin":4711}"#),
                call("not json hunter2"),
                Part::ToolResult(ToolResult {
                    id: Some("c".to_owned()),
                    result: json!({"list": ["hunter2", 4711]}),
                }),
                Part::Media(Media {
                    modality: "image".to_owned(),
                    mime_type: None,
                    source: MediaSource::Base64("hunter2".to_owned()),
                }),
                Part::Other(json!({"type": "odd", "says": "hunter2"})),
            ],
            name: Some("hunter2".to_owned()),
        }
    }

    #[test]
    fn r3_1_masked_content_keeps_its_shape_and_says_nothing() {
        let masked = redact_message(&MaskContent, &secret_message());
        let told = genai::input_messages(&[masked]).to_string();
        assert!(!told.contains("hunter2") && !told.contains("4711"), "{told}");
        insta::assert_snapshot!(told, @r#"[{"name":"[7 characters]","parts":[{"content":"[7 characters]","type":"text"},{"content":"[7 characters]","type":"reasoning"},{"arguments":{"key":"[7 characters]","pin":0},"id":"c","name":"f","type":"tool_call"},{"arguments":"[16 characters]","id":"c","name":"f","type":"tool_call"},{"id":"c","response":{"list":["[7 characters]",0]},"type":"tool_call_response"},{"content":"[7 characters]","modality":"image","type":"blob"},{"says":"[7 characters]","type":"odd"}],"role":"user"}]"#);
    }

    #[test]
    fn a_function_redacts_every_text() {
        let redactor = |text: &str| text.replace("hunter2", "***");
        let told = genai::input_messages(&[redact_message(&redactor, &secret_message())]);
        let media = r#""content":"hunter2""#;
        assert_eq!(told.to_string().matches("hunter2").count(), 1, "{told}");
        assert!(told.to_string().contains(media), "base64 is no text");
    }

    #[test]
    fn r3_1_a_field_called_type_is_redacted_like_any_other() {
        let message = Message {
            role: Role::User,
            parts: vec![
                Part::ToolCall(ToolCall {
                    arguments: r#"{"type":"hunter2"}"#.to_owned(),
                    ..ToolCall::default()
                }),
                Part::ToolResult(ToolResult {
                    id: None,
                    result: json!({"type": "hunter2", "in": [{"type": "hunter2"}]}),
                }),
                Part::Other(json!({"type": "odd", "in": {"type": "hunter2"}})),
                Part::Other(json!({"type": {"of": "hunter2"}})),
            ],
            name: None,
        };
        let masked = redact_message(&MaskContent, &message);
        let told = genai::input_messages(&[masked]).to_string();
        assert!(!told.contains("hunter2"), "{told}");
        assert!(told.contains(r#""type":"odd""#), "{told}");
    }

    #[test]
    fn attributes_are_those_of_the_values_whatever_is_taken_out_or_cut() {
        let messages = [secret_message(), Message::user("hunter2 ".repeat(200))];
        let choices = messages
            .clone()
            .map(|message| Choice { message, finish_reason: throughline_llm::FinishReason::Stop });
        let agree = || {
            let input = input_attributes(&messages);
            assert_eq!(input, input_messages(&messages).into_attributes());
            assert_eq!(output_attributes(&choices), output_messages(&choices).into_attributes());
            input
        };
        let whole = agree();
        assert!(whole[0].value.as_str().contains("hunter2") && whole.len() == 1);
        let telemetry = || crate::Telemetry::builder().recorder(&crate::Recorder::new());
        let masking = telemetry().redact(MaskContent).build().expect("telemetry");
        let masked = masking.enter();
        assert!(!agree()[0].value.as_str().contains("\"content\":\"hunter2 "));
        drop(masked);
        let cutting = telemetry().max_content_bytes(1_024).build().expect("telemetry");
        let cut = cutting.enter();
        assert!(agree().len() > 1, "what was cut is told");
        drop(cut);
    }

    #[test]
    fn the_standard_switch_is_read_in_all_its_values() {
        for (text, capture) in [
            ("true", Some(ContentCapture::SPANS)),
            ("SPAN_ONLY", Some(ContentCapture::SPANS)),
            ("EVENT_ONLY", Some(ContentCapture::EVENTS)),
            ("Span_And_Event", Some(ContentCapture::BOTH)),
            ("false", Some(ContentCapture::NONE)),
            ("NO_CONTENT", Some(ContentCapture::NONE)),
            ("perhaps", None),
        ] {
            assert_eq!(ContentCapture::from_text(text), capture, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_survives_the_mask(text in "[a-z]{9,20}", arguments in "[a-z{}\":,]{9,20}") {
            let message = Message {
                role: Role::User,
                parts: vec![
                    Part::Text(text.clone()),
                    Part::ToolCall(ToolCall { arguments: arguments.clone(), ..ToolCall::default() }),
                    Part::ToolResult(ToolResult { id: None, result: json!([text, {"a": text}]) }),
                ],
                name: None,
            };
            let told = genai::input_messages(&[redact_message(&MaskContent, &message)]).to_string();
            prop_assert!(!told.contains(&text));
        }
    }
}
