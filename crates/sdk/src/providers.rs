//! Clients of model providers. They talk to a provider and do nothing else: they neither retry nor
//! make spans, [`Traced`](crate::Traced) does. What they share (HTTP, what errors mean, streams) is
//! written once, and what differs between wire forms is in `llm`.

mod builder;
mod client;
pub(crate) mod errors;
pub(crate) mod limits;
mod stream;
mod wire;

pub use builder::provider_of_host;
pub use builder::{ClientBuilder, ClientError, OpenAiError};
pub use client::{
    ANTHROPIC_BASE_URL, Anthropic, AnthropicBuilder, ChatCompletions, Form, Messages, ModelClient,
    OPENAI_BASE_URL, OpenAi, OpenAiBuilder, OpenAiResponses, OpenAiResponsesBuilder, Responses,
};
