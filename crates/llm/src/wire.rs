//! The wire forms of chat models side by side, for whoever speaks all of them: clients, the gateway,
//! and what recognises other people's traffic.

use serde_json::Value;

use crate::chat::{ChatRequest, ChatResponse, Chunk};
use crate::openai::{CHAT_COMPLETIONS_PATH, WireError};
use crate::sse::SseEvent;
use crate::{anthropic, openai, responses};

/// How a provider spells requests and answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WireForm {
    /// OpenAI's chat completions, and what the many compatible servers speak.
    ChatCompletions,
    /// OpenAI's responses.
    Responses,
    /// Anthropic's messages.
    Messages,
}

impl WireForm {
    /// Every form.
    pub const ALL: [Self; 3] = [Self::ChatCompletions, Self::Responses, Self::Messages];

    /// The path below the base address (`/chat/completions`).
    pub fn path(self) -> &'static str {
        match self {
            Self::ChatCompletions => CHAT_COMPLETIONS_PATH,
            Self::Responses => responses::RESPONSES_PATH,
            Self::Messages => anthropic::MESSAGES_PATH,
        }
    }

    /// The form of requests to a path (`/v1/messages`), if it is one of these.
    pub fn of_path(path: &str) -> Option<Self> {
        let path = path.trim_end_matches('/');
        Self::ALL.into_iter().find(|form| path.ends_with(form.path()))
    }

    /// What the form calls itself where it keeps what is beyond our types.
    pub(crate) fn kept_as(self) -> &'static str {
        match self {
            Self::ChatCompletions => openai::FORM,
            Self::Responses => responses::FORM,
            Self::Messages => anthropic::FORM,
        }
    }

    /// Reads the body of a request.
    ///
    /// # Errors
    /// [`WireError`] when it is no request of this form.
    pub fn parse_request(self, body: &[u8]) -> Result<ChatRequest, WireError> {
        match self {
            Self::ChatCompletions => openai::parse_request(body),
            Self::Responses => responses::parse_request(body),
            Self::Messages => anthropic::parse_request(body),
        }
    }

    /// Builds the body of a request.
    pub fn request_to_json(self, request: &ChatRequest) -> Value {
        match self {
            Self::ChatCompletions => openai::request_to_json(request),
            Self::Responses => responses::request_to_json(request),
            Self::Messages => anthropic::request_to_json(request),
        }
    }

    /// Reads the body of an answer.
    ///
    /// # Errors
    /// [`WireError`] when it is no answer of this form, or tells an error.
    pub fn parse_response(self, body: &[u8]) -> Result<ChatResponse, WireError> {
        match self {
            Self::ChatCompletions => openai::parse_response(body),
            Self::Responses => responses::parse_response(body),
            Self::Messages => anthropic::parse_response(body),
        }
    }

    /// Builds the body of an answer.
    pub fn response_to_json(self, response: &ChatResponse) -> Value {
        match self {
            Self::ChatCompletions => openai::response_to_json(response),
            Self::Responses => responses::response_to_json(response),
            Self::Messages => anthropic::response_to_json(response),
        }
    }

    /// A reader at the start of a streamed answer.
    pub fn stream_reader(self) -> StreamReader {
        StreamReader(match self {
            Self::ChatCompletions => Reader::ChatCompletions,
            Self::Responses => Reader::Responses(responses::StreamReader::new()),
            Self::Messages => Reader::Messages(anthropic::StreamReader::new()),
        })
    }
}

/// Reads JSON from a body. That all of it is UTF-8 is looked at once, and not at every text in it.
pub(crate) fn from_body<'b, T: serde::Deserialize<'b>>(body: &'b [u8]) -> serde_json::Result<T> {
    match std::str::from_utf8(body) {
        Ok(text) => serde_json::from_str(text),
        // It says where.
        Err(_) => serde_json::from_slice(body),
    }
}

/// The same, of a body in which a field may be there twice: the last one counts, as for most readers.
pub(crate) fn from_any_body<T: serde::de::DeserializeOwned>(body: &[u8]) -> serde_json::Result<T> {
    let first = match from_body(body) {
        Ok(read) => return Ok(read),
        Err(first) => first,
    };
    // Where that does not help, it is the first mistake that has its place.
    let once = from_body::<Value>(body).and_then(serde_json::from_value);
    once.map_err(|_| first)
}

/// What one event of a streamed answer says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Streamed {
    /// What it adds to the answer; `None` when it only keeps the connection alive or frames others.
    pub chunk: Option<Chunk>,
    /// Whether it is the end mark: the answer is complete.
    pub is_last: bool,
}

/// Reads the events of a streamed answer, in whichever form.
#[derive(Debug, Clone)]
pub struct StreamReader(Reader);

#[derive(Debug, Clone)]
enum Reader {
    ChatCompletions,
    Responses(responses::StreamReader),
    Messages(anthropic::StreamReader),
}

impl StreamReader {
    /// The number that the last event gave itself, in the form that has one (responses).
    pub fn sequence_number(&self) -> Option<u64> {
        match &self.0 {
            Reader::Responses(reader) => reader.sequence_number(),
            Reader::ChatCompletions | Reader::Messages(_) => None,
        }
    }

    /// Reads the next event.
    ///
    /// # Errors
    /// [`WireError`] when the provider reports an error, or the event is none of this form.
    pub fn read(&mut self, event: &SseEvent) -> Result<Streamed, WireError> {
        match &mut self.0 {
            Reader::ChatCompletions if event.is_done() => {
                Ok(Streamed { chunk: None, is_last: true })
            }
            Reader::ChatCompletions => {
                let chunk = openai::parse_chunk(&event.data)?;
                Ok(Streamed { chunk: Some(chunk), is_last: false })
            }
            Reader::Responses(reader) => reader.read(event),
            Reader::Messages(reader) => reader.read(event),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_tells_the_form() {
        for (path, form) in [
            ("/v1/chat/completions", Some(WireForm::ChatCompletions)),
            ("/openai/deployments/gpt/chat/completions", Some(WireForm::ChatCompletions)),
            ("/v1/responses/", Some(WireForm::Responses)),
            ("/v1/messages", Some(WireForm::Messages)),
            ("/v1/messages/count_tokens", None),
            ("/v1/embeddings", None),
            ("", None),
        ] {
            assert_eq!(WireForm::of_path(path), form, "{path}");
        }
    }
}
