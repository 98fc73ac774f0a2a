//! The APIs that clients speak, and how each is read.

use serde_json::{Value, json};
use throughline_llm::openai::WireError;
use throughline_llm::{
    ChatRequest, ChatResponse, Chunk, SseEvent, StreamReader, Streamed, WireForm, openai,
};

/// An API by which a model is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Api {
    /// `POST /v1/chat/completions`
    Chat,
    /// `POST /v1/responses`
    Responses,
    /// `POST /v1/messages`, Anthropic's.
    Messages,
    /// `POST /v1/completions`, OpenAI's old one.
    Completions,
    /// `POST /v1/embeddings`
    Embeddings,
}

impl Api {
    /// Every API, in the order of their numbers.
    pub(crate) const ALL: [Self; 5] =
        [Self::Chat, Self::Responses, Self::Messages, Self::Completions, Self::Embeddings];

    /// The path below the base address.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Completions => "/completions",
            Self::Embeddings => openai::EMBEDDINGS_PATH,
            Self::Chat => WireForm::ChatCompletions.path(),
            Self::Responses => WireForm::Responses.path(),
            Self::Messages => WireForm::Messages.path(),
        }
    }

    /// The wire form, of the APIs for conversations.
    pub(crate) fn form(self) -> Option<WireForm> {
        match self {
            Self::Chat => Some(WireForm::ChatCompletions),
            Self::Responses => Some(WireForm::Responses),
            Self::Messages => Some(WireForm::Messages),
            Self::Completions | Self::Embeddings => None,
        }
    }

    /// `gen_ai.operation.name`, the first word of the span's name.
    pub(crate) fn operation(self) -> &'static str {
        match self {
            Self::Chat | Self::Responses | Self::Messages => "chat",
            Self::Completions => "text_completion",
            Self::Embeddings => "embeddings",
        }
    }

    /// Label of metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat_completions",
            Self::Responses => "responses",
            Self::Messages => "messages",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
        }
    }

    /// Whether a stream says its tokens only when it is asked to.
    pub(crate) fn has_stream_options(self) -> bool {
        matches!(self, Self::Chat | Self::Completions)
    }

    /// Reads a request; what is not understood is told.
    pub(crate) fn parse_request(self, body: &[u8]) -> Result<ChatRequest, WireError> {
        match self.form() {
            Some(form) => form.parse_request(body),
            None => {
                let json = json_of(body, "a request")?;
                let text = |key: &str| json.get(key).and_then(Value::as_str);
                let mut request = ChatRequest::new(text("model").unwrap_or_default());
                let prompt = match (self, json.get("prompt")) {
                    (Self::Completions, Some(Value::String(prompt))) => Some(prompt.clone()),
                    (Self::Completions, Some(Value::Array(prompts))) => {
                        let all: Vec<&str> = prompts.iter().filter_map(Value::as_str).collect();
                        Some(all.join("\n")).filter(|text| !text.is_empty())
                    }
                    _ => None,
                };
                if let Some(prompt) = prompt {
                    request = request.user(prompt);
                }
                request.max_tokens = json.get("max_tokens").and_then(Value::as_u64);
                request.temperature = json.get("temperature").and_then(Value::as_f64);
                request.stream = json.get("stream").and_then(Value::as_bool).unwrap_or(false);
                Ok(request)
            }
        }
    }

    /// Reads a whole answer.
    pub(crate) fn parse_answer(self, body: &[u8]) -> Result<ChatResponse, WireError> {
        match self {
            Self::Completions => openai::parse_response(&as_chat(body, "message")?),
            Self::Embeddings => {
                let mut json = json_of(body, "embeddings")?;
                if let Some(error) = openai::parse_error(body) {
                    return Err(WireError::Api(error));
                }
                if !json.get("data").is_some_and(Value::is_array) {
                    return Err(WireError::Field {
                        field: "data".to_owned(),
                        expected: "a list of embeddings",
                        got: "none".to_owned(),
                    });
                }
                json["choices"] = json!([]);
                json["data"] = Value::Null;
                openai::parse_response(json.to_string().as_bytes())
            }
            _ => match self.form() {
                Some(form) => form.parse_response(body),
                None => Ok(ChatResponse::default()),
            },
        }
    }

    /// Reads the events of a streamed answer.
    pub(crate) fn reader(self) -> EventReader {
        match self.form() {
            Some(form) => EventReader::Form(form.stream_reader()),
            None => EventReader::Completions,
        }
    }
}

/// Reads the events of a streamed answer.
#[derive(Debug, Clone)]
pub(crate) enum EventReader {
    /// Of a wire form.
    Form(StreamReader),
    /// Of OpenAI's old API.
    Completions,
}

impl EventReader {
    /// Reads the next event.
    pub(crate) fn read(&mut self, event: &SseEvent) -> Result<Streamed, WireError> {
        match self {
            Self::Form(reader) => reader.read(event),
            Self::Completions if event.is_done() => Ok(Streamed { chunk: None, is_last: true }),
            Self::Completions => {
                if let Some(error) = openai::parse_error(event.data.as_bytes()) {
                    return Err(WireError::Api(error));
                }
                let chat = as_chat(event.data.as_bytes(), "delta")?;
                let chunk = openai::parse_chunk(&String::from_utf8_lossy(&chat))?;
                Ok(Streamed { chunk: Some(chunk), is_last: false })
            }
        }
    }
}

/// An answer of the old API in the words of the new: what it calls `text` is the content of a
/// `message`, or of a `delta` in a stream.
fn as_chat(body: &[u8], place: &str) -> Result<Vec<u8>, WireError> {
    let mut json = json_of(body, "a completion")?;
    for choice in json.get_mut("choices").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(choice) = choice.as_object_mut()
            && let Some(text) = choice.remove("text")
        {
            choice.insert(place.to_owned(), json!({ "role": "assistant", "content": text }));
        }
    }
    Ok(json.to_string().into_bytes())
}

fn json_of(body: &[u8], expected: &'static str) -> Result<Value, WireError> {
    serde_json::from_slice(body).map_err(|source| WireError::Json { expected, source })
}

/// Whether a chunk adds something, or ends an answer: from there on it cannot be taken back.
pub(crate) fn is_content(chunk: &Chunk) -> bool {
    chunk.deltas.iter().any(|delta| {
        let has = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        has(&delta.text)
            || has(&delta.reasoning)
            || has(&delta.refusal)
            || !delta.tool_calls.is_empty()
            || !delta.kept.is_empty()
            || delta.has_more
            || delta.finish_reason.is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_api_stands_where_its_number_says() {
        for (at, api) in Api::ALL.into_iter().enumerate() {
            assert_eq!(api as usize, at);
        }
    }
}
