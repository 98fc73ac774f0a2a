//! The traffic of model providers that the client layer can read: which request is one, and what
//! its answer says.

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use throughline_llm::openai::{self, WireError};
use throughline_llm::{
    ChatRequest, ChatResponse, Chunk, SseEvent, StreamReader, Streamed, WireForm,
};
use throughline_trace::Usage;

/// How a provider is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Chat(WireForm),
    /// OpenAI's older completions of a text.
    Completion,
    Embeddings,
}

impl Form {
    /// The form of a request, by where it goes; whether it is one, its body says.
    pub(super) fn of(method: &Method, path: &str) -> Option<Self> {
        if method != Method::POST {
            return None;
        }
        if let Some(form) = WireForm::of_path(path) {
            return Some(Self::Chat(form));
        }
        let path = path.trim_end_matches('/');
        if path.ends_with("/completions") {
            return Some(Self::Completion);
        }
        path.ends_with("/embeddings").then_some(Self::Embeddings)
    }

    /// `gen_ai.operation.name`.
    pub(super) fn operation(self) -> &'static str {
        match self {
            Self::Chat(_) => "chat",
            Self::Completion => "text_completion",
            Self::Embeddings => "embeddings",
        }
    }

    /// `gen_ai.provider.name`, where the host does not tell another.
    pub(super) fn provider(self) -> &'static str {
        match self {
            Self::Chat(WireForm::Messages) => "anthropic",
            _ => "openai",
        }
    }

    /// The request of a body; `None` when it is none of this form. Azure names the model in the path.
    pub(super) fn request(self, path: &str, body: &[u8]) -> Option<ChatRequest> {
        if let Self::Chat(form) = self
            && let Ok(request) = form.parse_request(body)
            && !request.model.is_empty()
        {
            return Some(request);
        }
        let mut wire: Value = serde_json::from_slice(body).ok()?;
        if !wire.get("model").is_some_and(Value::is_string) {
            wire.as_object_mut()?.insert("model".to_owned(), Value::from(deployment(path)?));
        }
        match self {
            Self::Chat(form) => form.parse_request(wire.to_string().as_bytes()).ok(),
            Self::Completion => completion_request(wire),
            Self::Embeddings => {
                wire.get("input")?;
                Some(ChatRequest::new(wire.get("model")?.as_str()?))
            }
        }
    }

    /// The answer of a body.
    pub(super) fn response(self, body: &[u8]) -> Result<ChatResponse, WireError> {
        match self {
            Self::Chat(form) => form.parse_response(body),
            Self::Completion => {
                let text = String::from_utf8_lossy(body);
                openai::parse_response(as_chat(&text, "message").as_bytes())
            }
            Self::Embeddings => embeddings_response(body),
        }
    }

    /// A reader at the start of a streamed answer.
    pub(super) fn reader(self) -> EventReader {
        match self {
            Self::Chat(form) => EventReader::Chat(form.stream_reader()),
            Self::Completion | Self::Embeddings => EventReader::Completion,
        }
    }
}

/// Reads the events of a streamed answer.
#[derive(Debug)]
pub(super) enum EventReader {
    Chat(StreamReader),
    Completion,
}

impl EventReader {
    pub(super) fn read(&mut self, event: &SseEvent) -> Result<Streamed, WireError> {
        match self {
            Self::Chat(reader) => reader.read(event),
            Self::Completion if event.is_done() => Ok(Streamed { chunk: None, is_last: true }),
            Self::Completion => {
                let chunk: Chunk = openai::parse_chunk(&as_chat(&event.data, "delta"))?;
                Ok(Streamed { chunk: Some(chunk), is_last: false })
            }
        }
    }
}

/// The deployment that an address of Azure names: `/openai/deployments/{name}/chat/completions`.
fn deployment(path: &str) -> Option<&str> {
    let (_, rest) = path.split_once("/deployments/")?;
    rest.split('/').next().filter(|name| !name.is_empty())
}

/// A completion's request as a conversation.
fn completion_request(mut wire: Value) -> Option<ChatRequest> {
    let prompt = wire.as_object_mut()?.remove("prompt")?;
    let text = match prompt {
        Value::String(text) => text,
        Value::Array(texts) => {
            texts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
        }
        _ => return None,
    };
    wire["messages"] = json!([{ "role": "user", "content": text }]);
    openai::parse_request(wire.to_string().as_bytes()).ok()
}

/// A completion's answer, or a piece of it, as one of chat: the text stands in the message.
fn as_chat(text: &str, message: &str) -> String {
    let Ok(mut wire) = serde_json::from_str::<Value>(text) else { return text.to_owned() };
    let choices = wire.get_mut("choices").and_then(Value::as_array_mut);
    for choice in choices.into_iter().flatten().filter_map(Value::as_object_mut) {
        if let Some(content) = choice.remove("text") {
            let whole = json!({ "role": "assistant", "content": content });
            choice.insert(message.to_owned(), whole);
        }
    }
    wire.to_string()
}

#[derive(Deserialize)]
struct WireEmbeddings {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    usage: Option<WireUsage>,
}

#[derive(Deserialize)]
struct WireUsage {
    #[serde(default)]
    prompt_tokens: u64,
}

/// What an answer with embeddings says of itself; the numbers are passed over.
fn embeddings_response(body: &[u8]) -> Result<ChatResponse, WireError> {
    let wire: WireEmbeddings = serde_json::from_slice(body)
        .map_err(|source| WireError::Json { expected: "embeddings", source })?;
    let usage = |usage: WireUsage| Usage { input_tokens: usage.prompt_tokens, ..Usage::default() };
    Ok(ChatResponse {
        model: wire.model.unwrap_or_default(),
        usage: Some(wire.usage.map(usage).unwrap_or_default()),
        ..ChatResponse::default()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_are_known_by_path_and_body() {
        let read = |path: &str, body: &str| {
            let form = Form::of(&Method::POST, path)?;
            let request = form.request(path, body.as_bytes())?;
            Some(format!("{} {} {}", form.provider(), form.operation(), request.model))
        };
        let chat = r#"{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}"#;
        for (path, body, expected) in [
            ("/v1/chat/completions", chat, Some("openai chat gpt-4o")),
            ("/v1/completions", r#"{"model":"m","prompt":"a"}"#, Some("openai text_completion m")),
            ("/v1/embeddings", r#"{"model":"e","input":["a"]}"#, Some("openai embeddings e")),
            ("/v1/responses", r#"{"model":"r","input":"a"}"#, Some("openai chat r")),
            (
                "/v1/messages",
                r#"{"model":"c","max_tokens":9,"messages":[{"role":"user","content":"a"}]}"#,
                Some("anthropic chat c"),
            ),
            (
                "/openai/deployments/mine/chat/completions",
                r#"{"messages":[{"role":"user","content":"hi"}]}"#,
                Some("openai chat mine"),
            ),
            ("/v1/embeddings", r#"{"model":"e"}"#, None),
            ("/v1/chat/completions", "no JSON", None),
            ("/survey/responses", r#"{"answer":1}"#, None),
            ("/v1/models", chat, None),
        ] {
            assert_eq!(read(path, body).as_deref(), expected, "{path} {body}");
        }
        assert_eq!(Form::of(&Method::GET, "/v1/chat/completions"), None);
    }

    #[test]
    fn answers_of_older_forms_are_read() {
        let completion = br#"{"id":"c1","model":"m","choices":[{"text":"17","index":0,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#;
        let answer = Form::Completion.response(completion).expect("an answer");
        assert_eq!(
            (answer.text().as_str(), answer.usage.map(|u| u.output_tokens)),
            ("17", Some(1))
        );
        let event = SseEvent {
            data: r#"{"id":"c1","model":"m","choices":[{"text":"1","index":0}]}"#.to_owned(),
            ..SseEvent::default()
        };
        let read = Form::Completion.reader().read(&event).expect("an event");
        assert_eq!(read.chunk.map(|chunk| chunk.text().to_owned()).as_deref(), Some("1"));
        let embeddings =
            br#"{"model":"e","data":[{"embedding":[0.1]}],"usage":{"prompt_tokens":5}}"#;
        let answer = Form::Embeddings.response(embeddings).expect("an answer");
        assert_eq!(answer.usage.map(|u| u.input_tokens), Some(5));
    }

    proptest! {
        #[test]
        fn any_body_is_read_without_a_panic(body in "\\PC{0,80}", number in 0usize..5) {
            let path = ["/chat/completions", "/completions", "/embeddings", "/responses", "/v1/messages"];
            let path = path[number];
            let form = Form::of(&Method::POST, path).expect("a form");
            let _ = form.request(path, body.as_bytes());
            let _ = form.response(body.as_bytes());
            let _ = form.reader().read(&SseEvent { data: body, ..SseEvent::default() });
        }
    }
}
