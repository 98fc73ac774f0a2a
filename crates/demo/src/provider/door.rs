//! The APIs through which a conversation goes on. Each is read into one request and said in its own
//! form; in between they are the same model.

use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::error::ApiError;
use super::reply::{Answer, Frame, Tempo};
use super::request::ChatRequest;
use super::{fields, messages, responses};

/// One of the APIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// OpenAI's chat completions.
    Chat,
    /// OpenAI's responses.
    Responses,
    /// Anthropic's messages.
    Messages,
}

impl Door {
    /// Every API.
    pub(super) const ALL: [Self; 3] = [Self::Chat, Self::Responses, Self::Messages];

    /// Its path.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Responses => "/v1/responses",
            Self::Messages => "/v1/messages",
        }
    }

    /// Reads a request of this API.
    pub(super) fn read(self, body: Value) -> Result<ChatRequest, ApiError> {
        fields::check(self, &body)?;
        match self {
            Self::Chat => ChatRequest::from_json(&body),
            Self::Responses => ChatRequest::from_json(&responses::as_chat(&body)?),
            Self::Messages => ChatRequest::from_json(&messages::as_chat(&body)?),
        }
    }

    /// The body of an answer that is not streamed.
    pub(super) fn whole(self, answer: &Answer) -> Value {
        match self {
            Self::Chat => answer.to_json(),
            Self::Responses => responses::whole(answer),
            Self::Messages => messages::whole(answer),
        }
    }

    /// The events of a streamed answer. Only chat completions are asked whether they shall tell
    /// their tokens; the other forms always do.
    pub(super) fn frames(self, answer: &Answer, include_usage: bool, tempo: Tempo) -> Vec<Frame> {
        match self {
            Self::Chat => answer.frames(include_usage, tempo),
            Self::Responses => responses::frames(answer, tempo),
            Self::Messages => messages::frames(answer, tempo),
        }
    }

    /// What follows the last event of a stream.
    pub(super) fn end_mark(self) -> Option<&'static str> {
        (self == Self::Chat).then_some("data: [DONE]\n\n")
    }

    /// An error in the words of this API.
    pub(super) fn refuse(self, wrong: ApiError) -> Response {
        match self {
            Self::Chat | Self::Responses => wrong.into_response(),
            Self::Messages => wrong.into_anthropic(),
        }
    }
}

/// The parts of a chat message that a text or a list of parts is, by how a form calls them.
pub(super) fn content(content: &Value, kind_of: impl Fn(&str) -> Option<&'static str>) -> Value {
    let Some(parts) = content.as_array() else { return content.clone() };
    let said = parts.iter().map(|part| {
        let told = part.get("type").and_then(Value::as_str).unwrap_or_default();
        match kind_of(told) {
            Some("text") => {
                let text = part.get("text").or_else(|| part.get("refusal"));
                json!({"type": "text", "text": text})
            }
            Some(kind) => json!({ "type": kind }),
            // Chat completions do not know it either, and say so.
            None => json!({ "type": told }),
        }
    });
    said.collect()
}

/// Copies fields that both forms have, the first by another name in chat completions.
pub(super) fn copy(from: &Value, into: &mut Value, names: &[(&str, &str)]) {
    for (theirs, ours) in names {
        if let Some(value) = from.get(theirs).filter(|value| !value.is_null()) {
            into[*ours] = value.clone();
        }
    }
}
