//! Streamed answers in Anthropic's form, read: `message_start`, blocks with their deltas,
//! `message_delta`, `message_stop`; `ping` and what is new are passed over.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::content::{is_unsigned, note_block};
use super::response::is_error;
use super::{CACHE_CREATION, COUNTS, usage_of};
use crate::assemble::{MAX_INDEX, Order};
use crate::chat::{Chunk, Delta, ToolCallDelta};
use crate::kept::kind_of;
use crate::message::{FinishReason, Role};
use crate::openai::{WireError, api_error};
use crate::sse::SseEvent;
use crate::wire::Streamed;

/// Reads the events of one answer. The usage that has been told so far is on every chunk that
/// tells some, so that an answer that is cut off still has its tokens in.
#[derive(Debug, Clone, Default)]
pub struct StreamReader {
    id: String,
    model: String,
    /// Counts as the provider told them last; `message_delta` completes those of the start.
    usage: Map<String, Value>,
    /// Open blocks by the provider's number.
    blocks: BTreeMap<u64, Block>,
    /// Tool calls begun.
    calls: usize,
    order: Order,
}

#[derive(Debug, Clone)]
enum Block {
    /// Passed on as it comes.
    Plain,
    /// The tool call of this number, and the whole input if the provider told it at once.
    Call { number: usize, input: Option<String> },
    /// Gathered, since it must go back whole.
    Thought(Value),
}

impl StreamReader {
    /// A reader at the start of an answer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the next event.
    ///
    /// # Errors
    /// [`WireError::Api`] when the provider reports an error in the middle of the stream,
    /// [`WireError::Json`] when the data is no JSON.
    pub fn read(&mut self, event: &SseEvent) -> Result<Streamed, WireError> {
        let data: Value = serde_json::from_str(&event.data)
            .map_err(|source| WireError::Json { expected: "an event of a message", source })?;
        if is_error(&data) || event.event == "error" {
            let told = api_error(&data).unwrap_or_default();
            return Err(WireError::Api(told));
        }
        let number = data.get("index").and_then(Value::as_u64).unwrap_or(0);
        let chunk = match kind_of(&data).unwrap_or(&event.event) {
            "message_start" => Some(self.begin(&data["message"])),
            "content_block_start" => self.block_began(number, &data["content_block"]),
            "content_block_delta" => self.block_grew(number, &data["delta"]),
            "content_block_stop" => self.block_ended(number),
            "message_delta" => Some(self.end(&data)),
            "message_stop" => return Ok(Streamed { chunk: None, is_last: true }),
            _ => None,
        };
        Ok(Streamed { chunk, is_last: false })
    }

    fn begin(&mut self, message: &Value) -> Chunk {
        let text = |key: &str| message[key].as_str().unwrap_or_default().to_owned();
        self.id = text("id");
        self.model = text("model");
        let mut chunk = self.chunk(Delta { role: Some(Role::Assistant), ..Delta::default() });
        chunk.usage = self.learn(&message["usage"]);
        chunk
    }

    fn block_began(&mut self, number: u64, block: &Value) -> Option<Chunk> {
        if self.blocks.len() >= MAX_INDEX {
            self.order.lost();
            return None;
        }
        note_block(&mut self.order, block);
        let text = |key: &str| block[key].as_str().map(str::to_owned).filter(|t| !t.is_empty());
        let (open, delta) = match kind_of(block)? {
            "text" => (Block::Plain, Delta { text: text("text"), ..Delta::default() }),
            "tool_use" => {
                let call = ToolCallDelta {
                    index: Some(self.calls),
                    id: text("id"),
                    name: text("name"),
                    arguments: String::new(),
                };
                let has_input = block["input"].as_object().is_some_and(|input| !input.is_empty());
                let input = has_input.then(|| block["input"].to_string());
                let open = Block::Call { number: self.calls, input };
                self.calls += 1;
                (open, Delta { tool_calls: vec![call], ..Delta::default() })
            }
            "thinking" => {
                let delta = Delta { reasoning: text("thinking"), ..Delta::default() };
                (Block::Thought(block.clone()), delta)
            }
            _ => {
                self.blocks.insert(number, Block::Thought(block.clone()));
                return None;
            }
        };
        self.blocks.insert(number, open);
        let is_news = delta != Delta::default();
        is_news.then(|| self.chunk(delta))
    }

    fn block_grew(&mut self, number: u64, delta: &Value) -> Option<Chunk> {
        let text = |key: &str| delta[key].as_str();
        let news = match (kind_of(delta)?, self.blocks.get_mut(&number)) {
            ("text_delta", _) => Delta { text: Some(text("text")?.to_owned()), ..Delta::default() },
            ("thinking_delta", block) => {
                let thought = text("thinking")?;
                if let Some(Block::Thought(whole)) = block {
                    append(whole, "thinking", thought);
                }
                Delta { reasoning: Some(thought.to_owned()), ..Delta::default() }
            }
            ("signature_delta", Some(Block::Thought(whole))) => {
                append(whole, "signature", text("signature")?);
                return None;
            }
            ("input_json_delta", Some(Block::Call { number, input })) => {
                *input = None;
                let arguments = text("partial_json")?.to_owned();
                let call =
                    ToolCallDelta { index: Some(*number), arguments, ..ToolCallDelta::default() };
                Delta { tool_calls: vec![call], ..Delta::default() }
            }
            ("input_json_delta", Some(Block::Thought(whole))) => {
                // A tool that the provider runs itself: its input is a text until it is complete.
                append(whole, "partial_json", text("partial_json")?);
                return None;
            }
            // Citations, and what is new.
            _ => {
                self.order.lost();
                return None;
            }
        };
        Some(self.chunk(news))
    }

    fn block_ended(&mut self, number: u64) -> Option<Chunk> {
        let delta = match self.blocks.remove(&number)? {
            Block::Plain | Block::Call { input: None, .. } => return None,
            Block::Call { number, input: Some(arguments) } => {
                let call =
                    ToolCallDelta { index: Some(number), arguments, ..ToolCallDelta::default() };
                Delta { tool_calls: vec![call], ..Delta::default() }
            }
            Block::Thought(whole) if is_unsigned(&whole) => return None,
            Block::Thought(whole) => Delta { kept: vec![with_input(whole)], ..Delta::default() },
        };
        Some(self.chunk(delta))
    }

    fn end(&mut self, data: &Value) -> Chunk {
        let reason = data["delta"]["stop_reason"].as_str().map(FinishReason::from_text);
        let others = data["delta"].as_object().into_iter().flatten();
        if others.into_iter().any(|(key, value)| key != "stop_reason" && !value.is_null()) {
            self.order.lost();
        }
        let mut chunk = self.chunk(Delta { finish_reason: reason, ..Delta::default() });
        chunk.usage = self.learn(&data["usage"]);
        chunk
    }

    /// Takes the counts of a report over those known, and tells all.
    fn learn(&mut self, usage: &Value) -> Option<throughline_trace::Usage> {
        for (key, value) in usage.as_object()? {
            let is_count = COUNTS.contains(&key.as_str()) && value.is_u64();
            if is_count || (key == CACHE_CREATION && value.is_object()) {
                self.usage.insert(key.clone(), value.clone());
            }
        }
        Some(usage_of(&Value::Object(self.usage.clone())))
    }

    fn chunk(&self, delta: Delta) -> Chunk {
        Chunk {
            id: self.id.clone(),
            model: self.model.clone(),
            deltas: vec![delta],
            has_unread: self.order.is_broken(),
            ..Chunk::default()
        }
    }
}

/// Appends to a text of an object; a field that is no text becomes one.
fn append(object: &mut Value, key: &str, more: &str) {
    let Some(object) = object.as_object_mut() else { return };
    match object.get_mut(key) {
        Some(Value::String(text)) => text.push_str(more),
        _ => {
            object.insert(key.to_owned(), Value::from(more));
        }
    }
}

/// A block whose input came in pieces, with it in its place.
fn with_input(mut block: Value) -> Value {
    if let Some(object) = block.as_object_mut()
        && let Some(Value::String(text)) = object.remove("partial_json")
        && let Ok(input) = serde_json::from_str(&text)
    {
        object.insert("input".to_owned(), input);
    }
    block
}
