//! What Throughline knows of language models: messages, requests and answers, the wire forms of
//! OpenAI (chat completions, responses, embeddings) and Anthropic (messages), server-sent events, the
//! messages of the GenAI conventions, tokens and prices.
//!
//! Nothing here touches a network: bytes come in, values go out, and the other way round. Client,
//! gateway and simulated provider speak one wire form because it is written once. [`WireForm`] has all
//! of them side by side.
//!
//! One invariant: details of usage are parts of the totals (cached tokens of the tokens in,
//! reasoning tokens of the tokens out), so that no token is ever billed twice.
//!
//! ```
//! use throughline_llm::{Assembler, SseEvent, SseParser, openai};
//!
//! let mut parser = SseParser::new();
//! let mut events: Vec<SseEvent> = Vec::new();
//! parser.push(b"data: {\"choices\":[{\"delta\":{\"content\":\"Hel\"}}]}\n\nda", &mut events)?;
//! parser.push(b"ta: {\"choices\":[{\"delta\":{\"content\":\"lo\"}}]}\n\n", &mut events)?;
//! let mut answer = Assembler::new();
//! for event in &events {
//!     answer.push(&openai::parse_chunk(&event.data)?);
//! }
//! assert_eq!(answer.response().text(), "Hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod anthropic;
pub mod genai;
pub mod openai;
pub mod prices;
pub mod responses;
pub mod tokens;

mod assemble;
mod chat;
mod embedding;
mod kept;
mod message;
#[cfg(test)]
mod samples;
mod sse;
mod tool_content;
mod translate;
mod usage;
mod wire;

pub use assemble::{Assembler, MAX_INDEX};
pub use chat::{
    ChatRequest, ChatResponse, Choice, Chunk, Delta, RateLimits, ResponseFormat, Tool,
    ToolCallDelta, ToolChoice,
};
pub use embedding::{
    EmbeddingFault, EmbeddingInput, EmbeddingRequest, EmbeddingResponse, EncodingFormat,
};
pub use message::{FinishReason, Media, MediaSource, Message, Part, Role, ToolCall, ToolResult};
pub use sse::{
    DONE, MAX_EVENT_BYTES, SseError, SseEvent, SseParser, event_bytes, named_event_bytes,
};
pub use translate::translate;
pub use usage::{UsageBuckets, with_subsets};
pub use wire::{StreamReader, Streamed, WireForm};
