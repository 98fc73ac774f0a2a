//! Clients of model providers. They talk to a provider and do nothing else; what they share (HTTP,
//! what errors mean, streams) is written once.

mod errors;
mod openai;
mod stream;

pub use openai::{OPENAI_BASE_URL, OpenAi, OpenAiBuilder, OpenAiError};
