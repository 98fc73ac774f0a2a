//! Streamed answers in Anthropic's form, written.

use serde_json::{Value, json};
use throughline_trace::Usage;

use super::response::stop_reason;
use super::usage_to_json;
use crate::chat::{Chunk, Delta, ToolCallDelta};
use crate::kept::kind_of;
use crate::message::FinishReason;

/// Turns the chunks of an answer into the events of this form. Only the first answer is told, since
/// the form has one. Each event names itself in `type`
/// ([`named_event_bytes`](crate::named_event_bytes) puts it on the wire).
#[derive(Debug, Clone, Default)]
pub struct StreamWriter {
    has_begun: bool,
    /// Number of the next block.
    next: usize,
    open: Option<Open>,
    finish_reason: Option<FinishReason>,
    usage: Option<Usage>,
}

#[derive(Debug, Clone, PartialEq)]
enum Open {
    Text,
    Thought,
    /// The tool call of this index, if the chunks count them.
    Call(Option<usize>),
}

impl StreamWriter {
    /// A writer at the start of an answer.
    pub fn new() -> Self {
        Self::default()
    }

    /// The events that a chunk is.
    pub fn push(&mut self, chunk: &Chunk) -> Vec<Value> {
        let mut events = Vec::new();
        if chunk.usage.is_some() {
            self.usage = chunk.usage;
        }
        self.begin(&chunk.id, &chunk.model, &mut events);
        for delta in chunk.deltas.iter().filter(|delta| delta.index == 0) {
            self.push_delta(delta, &mut events);
        }
        events
    }

    /// The events that end the answer.
    pub fn finish(&mut self) -> Vec<Value> {
        let mut events = Vec::new();
        self.begin("", "", &mut events);
        self.close(&mut events);
        let reason = self.finish_reason.as_ref().and_then(|reason| stop_reason(reason, None));
        events.push(json!({
            "type": "message_delta",
            "delta": { "stop_reason": reason, "stop_sequence": null },
            "usage": usage_to_json(self.usage.unwrap_or_default(), None),
        }));
        events.push(json!({ "type": "message_stop" }));
        events
    }

    fn begin(&mut self, id: &str, model: &str, events: &mut Vec<Value>) {
        if std::mem::replace(&mut self.has_begun, true) {
            return;
        }
        events.push(json!({ "type": "message_start", "message": {
            "id": id,
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "stop_reason": null,
            "stop_sequence": null,
            "usage": usage_to_json(self.usage.unwrap_or_default(), None),
        }}));
    }

    fn push_delta(&mut self, delta: &Delta, events: &mut Vec<Value>) {
        let some = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(thought) = some(&delta.reasoning) {
            self.ensure(Open::Thought, || json!({ "type": "thinking", "thinking": "" }), events);
            self.grow(json!({ "type": "thinking_delta", "thinking": thought }), events);
        }
        for kept in &delta.kept {
            self.push_kept(kept, events);
        }
        for text in [some(&delta.text), some(&delta.refusal)].into_iter().flatten() {
            self.ensure(Open::Text, || json!({ "type": "text", "text": "" }), events);
            self.grow(json!({ "type": "text_delta", "text": text }), events);
        }
        for call in &delta.tool_calls {
            self.push_call(call, events);
        }
        if delta.finish_reason.is_some() {
            self.finish_reason.clone_from(&delta.finish_reason);
        }
    }

    /// A signed thought ends the one that is open; any other block stands for itself.
    fn push_kept(&mut self, kept: &Value, events: &mut Vec<Value>) {
        let signature = kept.get("signature").and_then(Value::as_str);
        if kind_of(kept) == Some("thinking") && self.open == Some(Open::Thought) {
            if let Some(signature) = signature {
                self.grow(json!({ "type": "signature_delta", "signature": signature }), events);
            }
            self.close(events);
            return;
        }
        self.close(events);
        self.start(kept.clone(), events);
        events.push(json!({ "type": "content_block_stop", "index": self.next }));
        self.next += 1;
    }

    fn push_call(&mut self, call: &ToolCallDelta, events: &mut Vec<Value>) {
        let is_open = match self.open {
            Some(Open::Call(index)) => {
                index == call.index && (index.is_some() || call.id.is_none())
            }
            _ => false,
        };
        if !is_open {
            self.close(events);
            let block = json!({
                "type": "tool_use",
                "id": call.id.as_deref().unwrap_or_default(),
                "name": call.name.as_deref().unwrap_or_default(),
                "input": {},
            });
            self.start(block, events);
            self.open = Some(Open::Call(call.index));
        }
        if !call.arguments.is_empty() {
            let delta = json!({ "type": "input_json_delta", "partial_json": call.arguments });
            self.grow(delta, events);
        }
    }

    fn ensure(&mut self, kind: Open, block: impl FnOnce() -> Value, events: &mut Vec<Value>) {
        if self.open.as_ref() != Some(&kind) {
            self.close(events);
            self.start(block(), events);
            self.open = Some(kind);
        }
    }

    fn start(&self, block: Value, events: &mut Vec<Value>) {
        events.push(json!({
            "type": "content_block_start", "index": self.next, "content_block": block,
        }));
    }

    fn grow(&self, delta: Value, events: &mut Vec<Value>) {
        events.push(json!({ "type": "content_block_delta", "index": self.next, "delta": delta }));
    }

    fn close(&mut self, events: &mut Vec<Value>) {
        if self.open.take().is_some() {
            events.push(json!({ "type": "content_block_stop", "index": self.next }));
            self.next += 1;
        }
    }
}
