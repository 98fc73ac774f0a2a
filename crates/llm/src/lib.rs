//! What Throughline knows of language models: messages, requests and answers, the wire form of
//! OpenAI's chat completions, server-sent events, the messages of the GenAI conventions, prices.
//!
//! Nothing here touches a network: bytes come in, values go out, and the other way round. Client,
//! gateway and simulated provider speak one wire form because it is written once.
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

pub mod genai;
pub mod openai;
pub mod prices;

mod assemble;
mod chat;
mod message;
mod sse;

pub use assemble::{Assembler, MAX_INDEX};
pub use chat::{
    ChatRequest, ChatResponse, Choice, Chunk, Delta, ResponseFormat, Tool, ToolCallDelta,
    ToolChoice, estimate_message_tokens, estimate_tokens,
};
pub use message::{FinishReason, Media, MediaSource, Message, Part, Role, ToolCall, ToolResult};
pub use sse::{DONE, MAX_EVENT_BYTES, SseError, SseEvent, SseParser, event_bytes};
