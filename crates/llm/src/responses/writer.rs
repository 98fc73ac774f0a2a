//! Streamed answers in the form of responses, written.

use serde_json::{Value, json};

use super::response::{number_item, response_to_json};
use crate::assemble::Assembler;
use crate::chat::{Chunk, Delta, ToolCallDelta};
use crate::kept::kind_of;

/// Turns the chunks of an answer into the events of this form. Only the first answer is told, since
/// the form has one. Each event names itself in `type`
/// ([`named_event_bytes`](crate::named_event_bytes) puts it on the wire).
#[derive(Debug, Clone, Default)]
pub struct StreamWriter {
    answer: Assembler,
    has_begun: bool,
    /// Running number of the events.
    sequence: u64,
    /// Finished items, as the last event repeats them.
    output: Vec<Value>,
    open: Option<Open>,
}

#[derive(Debug, Clone)]
struct Open {
    kind: Kind,
    item: Value,
    /// The text, refusal, thought or arguments so far.
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Refusal,
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
        self.answer.push(chunk);
        let mut events = Vec::new();
        self.begin(&mut events);
        for delta in chunk.deltas.iter().filter(|delta| delta.index == 0) {
            self.push_delta(delta, &mut events);
        }
        self.numbered(events)
    }

    /// The events that end the answer. One that never said why it ended is `response.failed`.
    pub fn finish(&mut self) -> Vec<Value> {
        let mut events = Vec::new();
        self.begin(&mut events);
        self.close(&mut events);
        let mut response = response_to_json(&self.answer.response());
        response["output"] = Value::from(self.output.clone());
        let kind = match response["status"].as_str() {
            Some("completed") => "response.completed",
            Some("incomplete") => "response.incomplete",
            _ => {
                response["status"] = Value::from("failed");
                response["error"] =
                    json!({ "code": "server_error", "message": "the answer broke off" });
                "response.failed"
            }
        };
        events.push(json!({ "type": kind, "response": response }));
        self.numbered(events)
    }

    fn numbered(&mut self, mut events: Vec<Value>) -> Vec<Value> {
        for event in &mut events {
            event["sequence_number"] = Value::from(self.sequence);
            self.sequence += 1;
        }
        events
    }

    fn begin(&mut self, events: &mut Vec<Value>) {
        if std::mem::replace(&mut self.has_begun, true) {
            return;
        }
        let mut response = response_to_json(&self.answer.response());
        response["status"] = Value::from("in_progress");
        response["incomplete_details"] = Value::Null;
        response["output"] = json!([]);
        events.push(json!({ "type": "response.created", "response": response }));
    }

    fn push_delta(&mut self, delta: &Delta, events: &mut Vec<Value>) {
        self.push_text(Kind::Thought, &delta.reasoning, events);
        for kept in &delta.kept {
            self.push_kept(kept, events);
        }
        self.push_text(Kind::Text, &delta.text, events);
        self.push_text(Kind::Refusal, &delta.refusal, events);
        for call in &delta.tool_calls {
            let is_open = match self.open.as_ref().map(|open| open.kind) {
                Some(Kind::Call(index)) => {
                    index == call.index && (index.is_some() || call.id.is_none())
                }
                _ => false,
            };
            if !is_open {
                self.close(events);
            }
            self.ensure(Kind::Call(call.index), Some(call), events);
            if !call.arguments.is_empty() {
                self.grow(&call.arguments, events);
            }
        }
    }

    fn push_text(&mut self, kind: Kind, text: &Option<String>, events: &mut Vec<Value>) {
        if let Some(text) = text.as_deref().filter(|text| !text.is_empty()) {
            self.ensure(kind, None, events);
            self.grow(text, events);
        }
    }

    /// An item that came whole; a thought that is open was told piece by piece before it.
    fn push_kept(&mut self, kept: &Value, events: &mut Vec<Value>) {
        let is_thought = kind_of(kept) == Some("reasoning");
        match &mut self.open {
            Some(open) if is_thought && open.kind == Kind::Thought => open.item = kept.clone(),
            _ => {
                self.close(events);
                self.start(Kind::Thought, kept.clone(), events);
            }
        }
        self.end_item(events);
    }

    fn ensure(&mut self, kind: Kind, call: Option<&ToolCallDelta>, events: &mut Vec<Value>) {
        if self.open.as_ref().is_some_and(|open| open.kind == kind) {
            return;
        }
        self.close(events);
        let item = match kind {
            Kind::Text | Kind::Refusal => {
                json!({ "type": "message", "role": "assistant", "status": "in_progress", "content": [] })
            }
            Kind::Thought => json!({ "type": "reasoning", "summary": [] }),
            Kind::Call(_) => json!({
                "type": "function_call",
                "status": "in_progress",
                "call_id": call.and_then(|call| call.id.as_deref()).unwrap_or_default(),
                "name": call.and_then(|call| call.name.as_deref()).unwrap_or_default(),
                "arguments": "",
            }),
        };
        self.start(kind, item, events);
        self.tell_part("added", empty_part(kind), events);
    }

    fn start(&mut self, kind: Kind, mut item: Value, events: &mut Vec<Value>) {
        number_item(&mut item, self.answer.id(), self.output.len());
        events.push(json!({
            "type": "response.output_item.added",
            "output_index": self.output.len(),
            "item": item,
        }));
        self.open = Some(Open { kind, item, text: String::new() });
    }

    fn grow(&mut self, more: &str, events: &mut Vec<Value>) {
        let Some(open) = &mut self.open else { return };
        open.text.push_str(more);
        let name = match open.kind {
            Kind::Text => "response.output_text.delta",
            Kind::Refusal => "response.refusal.delta",
            Kind::Thought => "response.reasoning_summary_text.delta",
            Kind::Call(_) => "response.function_call_arguments.delta",
        };
        self.tell(name, ("delta", Value::from(more)), events);
    }

    /// Ends the open item as far as it has come.
    fn close(&mut self, events: &mut Vec<Value>) {
        let Some(open) = &mut self.open else { return };
        let text = std::mem::take(&mut open.text);
        let (name, field) = match open.kind {
            Kind::Text => ("response.output_text.done", "text"),
            Kind::Refusal => ("response.refusal.done", "refusal"),
            Kind::Thought => ("response.reasoning_summary_text.done", "text"),
            Kind::Call(_) => ("response.function_call_arguments.done", "arguments"),
        };
        let part = empty_part(open.kind).map(|mut part| {
            part[field] = Value::from(text.as_str());
            part
        });
        match (&part, open.kind) {
            (Some(part), Kind::Thought) => open.item["summary"] = json!([part]),
            (Some(part), _) => {
                open.item["content"] = json!([part]);
                open.item["status"] = Value::from("completed");
            }
            (None, _) => {
                open.item["arguments"] = Value::from(text.as_str());
                open.item["status"] = Value::from("completed");
            }
        }
        self.tell(name, (field, Value::from(text)), events);
        self.tell_part("done", part, events);
        self.end_item(events);
    }

    fn end_item(&mut self, events: &mut Vec<Value>) {
        let Some(open) = self.open.take() else { return };
        let mut item = open.item;
        number_item(&mut item, self.answer.id(), self.output.len());
        events.push(json!({
            "type": "response.output_item.done",
            "output_index": self.output.len(),
            "item": item,
        }));
        self.output.push(item);
    }

    /// That the part of the open item was added, or is done.
    fn tell_part(&self, what: &str, part: Option<Value>, events: &mut Vec<Value>) {
        let (Some(part), Some(open)) = (part, &self.open) else { return };
        let place = match open.kind {
            Kind::Thought => "reasoning_summary_part",
            _ => "content_part",
        };
        self.tell(&format!("response.{place}.{what}"), ("part", part), events);
    }

    /// An event of the open item.
    fn tell(&self, name: &str, field: (&str, Value), events: &mut Vec<Value>) {
        let Some(open) = &self.open else { return };
        let mut event = json!({
            "type": name,
            "output_index": self.output.len(),
            "item_id": open.item["id"],
        });
        match open.kind {
            Kind::Text | Kind::Refusal => event["content_index"] = Value::from(0),
            Kind::Thought => event["summary_index"] = Value::from(0),
            Kind::Call(_) => {}
        }
        event[field.0] = field.1;
        events.push(event);
    }
}

fn empty_part(kind: Kind) -> Option<Value> {
    match kind {
        Kind::Text => Some(json!({ "type": "output_text", "text": "", "annotations": [] })),
        Kind::Refusal => Some(json!({ "type": "refusal", "refusal": "" })),
        Kind::Thought => Some(json!({ "type": "summary_text", "text": "" })),
        Kind::Call(_) => None,
    }
}
