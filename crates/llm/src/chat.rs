//! A request to a chat model, and its answer.

use std::time::Duration;

use serde_json::{Map, Value};
use throughline_trace::Usage;

use crate::message::{FinishReason, Message, Role, ToolCall};

/// What is asked of a chat model.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ChatRequest {
    /// The model.
    pub model: String,
    /// The conversation so far.
    pub messages: Vec<Message>,
    /// Tools that the model may ask for.
    pub tools: Vec<Tool>,
    /// Whether it may, must or must not.
    pub tool_choice: Option<ToolChoice>,
    /// Sampling temperature.
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    pub top_p: Option<f64>,
    /// Longest answer, tokens.
    pub max_tokens: Option<u64>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// Seed of the sampling, where the provider has one.
    pub seed: Option<i64>,
    /// Shape of the answer.
    pub response_format: Option<ResponseFormat>,
    /// Whether the answer is wanted as a stream.
    pub stream: bool,
    /// Whether a stream shall end with the tokens used.
    pub is_stream_usage_wanted: bool,
    /// Fields of the wire form that we do not know, kept.
    pub extra: Map<String, Value>,
}

impl ChatRequest {
    /// A request without messages.
    pub fn new(model: impl Into<String>) -> Self {
        Self { model: model.into(), ..Self::default() }
    }

    /// Adds instructions.
    #[must_use]
    pub fn system(self, text: impl Into<String>) -> Self {
        self.message(Message::system(text))
    }

    /// Adds a question or task.
    #[must_use]
    pub fn user(self, text: impl Into<String>) -> Self {
        self.message(Message::user(text))
    }

    /// Adds a message.
    #[must_use]
    pub fn message(mut self, message: Message) -> Self {
        self.messages.push(message);
        self
    }

    /// Adds messages.
    #[must_use]
    pub fn messages(mut self, messages: impl IntoIterator<Item = Message>) -> Self {
        self.messages.extend(messages);
        self
    }

    /// Offers a tool.
    #[must_use]
    pub fn tool(mut self, tool: Tool) -> Self {
        self.tools.push(tool);
        self
    }

    /// Offers tools.
    #[must_use]
    pub fn tools(mut self, tools: impl IntoIterator<Item = Tool>) -> Self {
        self.tools.extend(tools);
        self
    }

    /// Sets the sampling temperature.
    #[must_use]
    pub fn temperature(mut self, temperature: f64) -> Self {
        self.temperature = Some(temperature);
        self
    }

    /// Sets the longest answer, tokens.
    #[must_use]
    pub fn max_tokens(mut self, max_tokens: u64) -> Self {
        self.max_tokens = Some(max_tokens);
        self
    }

    /// Asks for an answer of a shape.
    #[must_use]
    pub fn response_format(mut self, format: ResponseFormat) -> Self {
        self.response_format = Some(format);
        self
    }
}

/// A tool that a model may ask for.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// The name that the model writes.
    pub name: String,
    /// What the tool does, for the model.
    pub description: String,
    /// JSON Schema of the arguments.
    pub parameters: Value,
    /// Whether the provider shall hold the model to the schema.
    pub is_strict: bool,
}

/// Whether the model may ask for tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    /// It may.
    Auto,
    /// It must not.
    None,
    /// It must, whichever.
    Required,
    /// It must, and this one.
    Named(String),
}

/// Shape of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum ResponseFormat {
    /// Any text.
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON that fits a schema.
    JsonSchema {
        /// Name of the schema.
        name: String,
        /// The schema.
        schema: Value,
        /// Whether the provider shall hold the model to it.
        is_strict: bool,
    },
}

/// What a chat model answered.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ChatResponse {
    /// The provider's id of the answer; empty when it gave none.
    pub id: String,
    /// The model that answered; empty when the provider did not say.
    pub model: String,
    /// When, seconds since the Unix epoch by the provider's clock; 0 when it did not say.
    pub created_unix_secs: u64,
    /// The answers, usually one.
    pub choices: Vec<Choice>,
    /// Tokens used; `None` when the provider did not say.
    pub usage: Option<Usage>,
    /// HTTP status that the answer came with; `None` when it did not come over HTTP. It is no part
    /// of the wire form's body.
    pub status_code: Option<u16>,
    /// Whether a gateway answered out of its cache, as its headers say; no part of the body either.
    pub is_cached: bool,
    /// What is left of the caller's rate limits, if the headers say.
    pub limits: Option<RateLimits>,
    /// Whether the answer, told as a stream, is more than these fields hold: citations, sound, log
    /// probabilities, parts in another order. What is written of it is then not all that came.
    pub has_unread: bool,
    /// Fields of the wire form that we do not know, kept.
    pub extra: Map<String, Value>,
}

/// What is left of a caller's rate limits at a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateLimits {
    /// Requests that may still be made.
    pub remaining_requests: Option<u64>,
    /// Tokens that may still be used.
    pub remaining_tokens: Option<u64>,
    /// Time until the limit of requests is full again.
    pub requests_reset: Option<Duration>,
    /// Time until the limit of tokens is full again.
    pub tokens_reset: Option<Duration>,
}

impl RateLimits {
    /// How long to wait, when a limit is used up.
    pub fn pause(self) -> Option<Duration> {
        let used_up = [
            (self.remaining_requests, self.requests_reset),
            (self.remaining_tokens, self.tokens_reset),
        ];
        used_up
            .into_iter()
            .filter(|(left, _)| *left == Some(0))
            .filter_map(|(_, reset)| reset)
            .max()
    }
}

/// One of the answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The answer.
    pub message: Message,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

impl ChatResponse {
    /// An answer of one text, for simulated providers and tests.
    pub fn of_text(model: impl Into<String>, text: impl Into<String>) -> Self {
        let message = Message::assistant(text);
        Self {
            model: model.into(),
            choices: vec![Choice { message, finish_reason: FinishReason::Stop }],
            ..Self::default()
        }
    }

    /// The text of the first answer; empty when there is none.
    pub fn text(&self) -> String {
        self.message().map(Message::joined_text).unwrap_or_default()
    }

    /// The first answer.
    pub fn message(&self) -> Option<&Message> {
        self.choices.first().map(|choice| &choice.message)
    }

    /// The tool calls of the first answer.
    pub fn tool_calls(&self) -> Vec<&ToolCall> {
        self.message().into_iter().flat_map(Message::tool_calls).collect()
    }

    /// Why the first answer ended.
    pub fn finish_reason(&self) -> Option<&FinishReason> {
        self.choices.first().map(|choice| &choice.finish_reason)
    }
}

/// A piece of a streamed answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Chunk {
    /// The provider's id of the answer.
    pub id: String,
    /// The model that answers.
    pub model: String,
    /// When, seconds since the Unix epoch by the provider's clock; 0 when it did not say.
    pub created_unix_secs: u64,
    /// What was added to which answer.
    pub deltas: Vec<Delta>,
    /// Tokens used, usually on the last chunk only; what an earlier chunk tells is true so far.
    pub usage: Option<Usage>,
    /// Its number in the stream, from 0: where the wire carries one, and in streams of traced
    /// models always.
    pub seq: Option<u64>,
    /// What the answer says of itself beside (`system_fingerprint`), kept.
    pub extra: Map<String, Value>,
    /// Whether the chunk, or one before it, says something that no field here holds.
    pub has_unread: bool,
}

impl Chunk {
    /// The text that the chunk adds to the first answer; empty when it adds none.
    pub fn text(&self) -> &str {
        let first = self.deltas.iter().find(|delta| delta.index == 0);
        first.and_then(|delta| delta.text.as_deref()).unwrap_or_default()
    }
}

/// What a chunk adds to one of the answers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Delta {
    /// Which answer, from 0.
    pub index: usize,
    /// Who answers, on the first chunk.
    pub role: Option<Role>,
    /// More text.
    pub text: Option<String>,
    /// More of what the model thinks.
    pub reasoning: Option<String>,
    /// More of why it declines.
    pub refusal: Option<String>,
    /// More of its tool calls.
    pub tool_calls: Vec<ToolCallDelta>,
    /// Parts that came whole and must go back as they came, or that we do not know
    /// ([`Part::Other`](crate::Part::Other)).
    pub kept: Vec<Value>,
    /// Whether it brings content of a kind that no field here holds, such as sound.
    pub has_more: bool,
    /// Why it ended, on the last chunk.
    pub finish_reason: Option<FinishReason>,
}

/// What a chunk adds to a tool call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ToolCallDelta {
    /// Which tool call of the answer, from 0; `None` when the provider does not count them, and the
    /// id alone tells where one begins.
    pub index: Option<usize>,
    /// The provider's id of the call, on its first piece.
    pub id: Option<String>,
    /// The tool, on its first piece.
    pub name: Option<String>,
    /// More of the arguments' text.
    pub arguments: String,
}
