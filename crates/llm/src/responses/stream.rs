//! Streamed answers in the form of responses, read. The last event is `response.completed`,
//! `response.incomplete` or `response.failed`; events that are new are passed over.

use std::collections::BTreeMap;

use serde_json::Value;

use super::items::note_item;
use super::response::{failure_of, finish_reason, said_beside};
use super::usage_of;
use crate::assemble::{MAX_INDEX, Order};
use crate::chat::{Chunk, Delta, ToolCallDelta};
use crate::kept::kind_of;
use crate::message::Role;
use crate::openai::{ApiError, WireError, api_error};
use crate::sse::SseEvent;
use crate::wire::Streamed;

/// Reads the events of one answer.
#[derive(Debug, Clone, Default)]
pub struct StreamReader {
    id: String,
    model: String,
    created_unix_secs: u64,
    /// Calls of functions by the provider's number of the item.
    calls: BTreeMap<u64, Call>,
    /// The number of the last event.
    sequence_number: Option<u64>,
    order: Order,
}

#[derive(Debug, Clone)]
struct Call {
    /// Which call of the answer, from 0.
    number: usize,
    /// Whether some of its arguments have come.
    has_arguments: bool,
}

impl StreamReader {
    /// A reader at the start of an answer.
    pub fn new() -> Self {
        Self::default()
    }

    /// The `sequence_number` of the last event that was read; `None` when it had none.
    pub fn sequence_number(&self) -> Option<u64> {
        self.sequence_number
    }

    /// Reads the next event.
    ///
    /// # Errors
    /// [`WireError::Api`] when the provider reports an error or the answer failed,
    /// [`WireError::Json`] when the data is no JSON.
    pub fn read(&mut self, event: &SseEvent) -> Result<Streamed, WireError> {
        if event.is_done() {
            return Ok(Streamed { chunk: None, is_last: true });
        }
        let data: Value = serde_json::from_str(&event.data)
            .map_err(|source| WireError::Json { expected: "an event of a response", source })?;
        self.sequence_number = data["sequence_number"].as_u64();
        let kind = kind_of(&data).unwrap_or(&event.event).to_owned();
        let item = data.get("output_index").and_then(Value::as_u64).unwrap_or(0);
        let text = || data["delta"].as_str().map(str::to_owned);
        let delta = match kind.as_str() {
            "response.created" => return Ok(more(self.begin(&data["response"]))),
            "response.output_item.added" => self.item_began(item, &data["item"]),
            "response.output_item.done" => self.item_ended(item, &data["item"]),
            "response.output_text.delta" => {
                text().map(|text| Delta { text: Some(text), ..Delta::default() })
            }
            "response.refusal.delta" => {
                text().map(|text| Delta { refusal: Some(text), ..Delta::default() })
            }
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
                text().map(|text| Delta { reasoning: Some(text), ..Delta::default() })
            }
            "response.function_call_arguments.delta" => {
                text().and_then(|text| self.arguments_grew(item, text))
            }
            "response.completed" | "response.incomplete" => {
                return Ok(Streamed { chunk: Some(self.end(&data["response"])), is_last: true });
            }
            "response.failed" | "response.cancelled" => {
                let told = failure_of(&data["response"]).unwrap_or_else(|| ApiError {
                    message: format!("the stream ended with {kind}"),
                    ..ApiError::default()
                });
                return Err(WireError::Api(told));
            }
            "error" => return Err(WireError::Api(error_of(&data))),
            // An item of another kind grows: it is kept when it is whole.
            kind if kind.ends_with(".delta") || kind.ends_with(".partial_image") => {
                Some(Delta { has_more: true, ..Delta::default() })
            }
            _ => None,
        };
        Ok(Streamed { chunk: delta.map(|delta| self.chunk(delta)), is_last: false })
    }

    fn begin(&mut self, response: &Value) -> Chunk {
        self.learn(response);
        self.chunk(Delta { role: Some(Role::Assistant), ..Delta::default() })
    }

    fn learn(&mut self, response: &Value) {
        let text = |key: &str| response[key].as_str().unwrap_or_default().to_owned();
        if self.id.is_empty() {
            self.id = text("id");
        }
        // What answered may be known better at the end.
        if !text("model").is_empty() {
            self.model = text("model");
        }
        if let Some(secs) = response["created_at"].as_f64() {
            self.created_unix_secs = secs as u64;
        }
    }

    fn item_began(&mut self, at: u64, item: &Value) -> Option<Delta> {
        if kind_of(item) != Some("function_call") || self.calls.len() >= MAX_INDEX {
            return None;
        }
        let number = self.calls.len();
        let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
        let arguments = text("arguments");
        self.calls.insert(at, Call { number, has_arguments: !arguments.is_empty() });
        let call = ToolCallDelta {
            index: Some(number),
            id: Some(text("call_id")),
            name: Some(text("name")),
            arguments,
        };
        Some(Delta { tool_calls: vec![call], ..Delta::default() })
    }

    fn arguments_grew(&mut self, at: u64, arguments: String) -> Option<Delta> {
        let call = self.calls.get_mut(&at)?;
        call.has_arguments |= !arguments.is_empty();
        let call =
            ToolCallDelta { index: Some(call.number), arguments, ..ToolCallDelta::default() };
        Some(Delta { tool_calls: vec![call], ..Delta::default() })
    }

    fn item_ended(&mut self, at: u64, item: &Value) -> Option<Delta> {
        note_item(&mut self.order, item);
        match kind_of(item)? {
            // Some servers tell a call only when it is complete.
            "function_call" if !self.calls.contains_key(&at) => self.item_began(at, item),
            "function_call" => {
                let arguments = item["arguments"].as_str().unwrap_or_default().to_owned();
                let is_news = self.calls.get(&at).is_some_and(|call| !call.has_arguments);
                (is_news && !arguments.is_empty())
                    .then(|| self.arguments_grew(at, arguments))
                    .flatten()
            }
            "message" => None,
            _ => Some(Delta { kept: vec![item.clone()], ..Delta::default() }),
        }
    }

    fn end(&mut self, response: &Value) -> Chunk {
        self.learn(response);
        let reason = response.as_object().map(|wire| finish_reason(wire, !self.calls.is_empty()));
        let mut chunk = self.chunk(Delta { finish_reason: reason, ..Delta::default() });
        chunk.extra = response.as_object().map(said_beside).unwrap_or_default();
        chunk.usage = response.get("usage").filter(|usage| usage.is_object()).map(usage_of);
        chunk
    }

    fn chunk(&self, delta: Delta) -> Chunk {
        Chunk {
            id: self.id.clone(),
            model: self.model.clone(),
            created_unix_secs: self.created_unix_secs,
            deltas: vec![delta],
            has_unread: self.order.is_broken(),
            ..Chunk::default()
        }
    }
}

fn more(chunk: Chunk) -> Streamed {
    Streamed { chunk: Some(chunk), is_last: false }
}

/// The error of an `error` event, which has its fields at the top or in `error`.
fn error_of(data: &Value) -> ApiError {
    let text = |key: &str| data[key].as_str().unwrap_or_default().to_owned();
    api_error(data).unwrap_or_else(|| ApiError {
        message: text("message"),
        kind: String::new(),
        code: text("code"),
        param: text("param"),
    })
}
