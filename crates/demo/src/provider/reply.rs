//! What the simulated model says, and the answer it becomes on the wire, whole or as a stream.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::catalog;
use super::request::{Call, ChatRequest};
use super::tokens;
use crate::seed::{Dice, Seed};

/// Tokens of a block in which thinking is billed.
const THINKING_BLOCK_TOKENS: u64 = 64;

/// What the model says: words, or tools that it wants called, or both.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Reply {
    /// The words; empty when there are none.
    pub(crate) text: String,
    /// Names and arguments of the tools.
    pub(crate) calls: Vec<(String, Value)>,
}

impl Reply {
    /// Words.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), calls: Vec::new() }
    }

    /// One tool call without words.
    pub(crate) fn call(name: &str, arguments: Value) -> Self {
        Self::default().and_call(name, arguments)
    }

    /// The same with one more tool call.
    pub(crate) fn and_call(mut self, name: &str, arguments: Value) -> Self {
        self.calls.push((name.to_owned(), arguments));
        self
    }
}

/// A reply with everything that the wire forms need. Ids and the reason why it ended are in the words
/// of chat completions; the other forms say them in theirs.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(super) id: String,
    pub(super) created_unix_secs: u64,
    pub(super) model: &'static str,
    pub(super) text: String,
    pub(super) calls: Vec<Call>,
    pub(super) finish_reason: &'static str,
    pub(super) usage: Usage,
}

/// Tokens of an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    pub(super) prompt: u64,
    /// Of those of the prompt.
    pub(super) cached: u64,
    pub(super) completion: u64,
    /// Of those of the completion.
    pub(super) reasoning: u64,
}

/// How fast a stream comes, at human pace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tempo {
    /// Before its first event.
    pub(super) opening: Duration,
    /// Before each token.
    pub(super) token: Duration,
}

/// What an answer is made for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Making {
    /// Decides ids and how long the model thinks.
    pub(crate) seed: Seed,
    /// Now, seconds since the Unix epoch.
    pub(crate) created_unix_secs: u64,
    /// The dated name of the model.
    pub(crate) model: &'static str,
    /// Whether the model thinks before it answers.
    pub(crate) thinks: bool,
    /// Whether the answer is to be withheld.
    pub(crate) is_filtered: bool,
}

/// A piece of a stream: what to wait before it, then its data.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    /// At human pace.
    pub(crate) wait: Duration,
    /// The text after `event: `; empty where the form names no events.
    pub(crate) event: &'static str,
    /// The text after `data: `.
    pub(crate) data: String,
}

impl Frame {
    /// As it goes over the wire.
    pub(super) fn bytes(&self) -> Bytes {
        let Self { event, data, .. } = self;
        Bytes::from(match *event {
            "" => format!("data: {data}\n\n"),
            event => format!("event: {event}\ndata: {data}\n\n"),
        })
    }
}

impl Answer {
    /// The answer that a reply becomes: cut at stop words and the token limit, counted.
    pub(crate) fn new(request: &ChatRequest, reply: Reply, making: Making) -> Self {
        let mut dice = making.seed.dice();
        let id = format!("chatcmpl-{}", letters(&mut dice, 29));
        let mut text = reply.text;
        let mut finish_reason = "stop";
        if let Some(end) = request.stop.iter().filter_map(|stop| text.find(stop.as_str())).min() {
            text.truncate(end);
        }
        let mut calls: Vec<Call> = reply
            .calls
            .into_iter()
            .map(|(name, arguments)| Call {
                id: format!("call_{}", letters(&mut dice, 24)),
                name,
                arguments: arguments.to_string(),
            })
            .collect();
        if !calls.is_empty() {
            finish_reason = "tool_calls";
        }
        if making.is_filtered {
            (text, calls, finish_reason) = (String::new(), Vec::new(), "content_filter");
        }
        let reasoning = if making.thinks { THINKING_BLOCK_TOKENS * (2 + dice.below(7)) } else { 0 };
        if let Some(limit) = request.max_tokens {
            let room = limit.saturating_sub(reasoning) as usize;
            let pieces = tokens::pieces(&text);
            if pieces.len() > room {
                text = pieces[..room].concat();
                finish_reason = "length";
            }
        }
        let spoken = tokens::count(&text) + calls.iter().map(call_tokens).sum::<u64>();
        let usage = Usage {
            prompt: request.prompt_tokens(),
            cached: request.cached_tokens(),
            completion: spoken + reasoning,
            reasoning,
        };
        let Making { created_unix_secs, model, .. } = making;
        Self { id, created_unix_secs, model, text, calls, finish_reason, usage }
    }

    /// The body of an answer that is not streamed.
    pub(crate) fn to_json(&self) -> Value {
        let mut message = json!({
            "role": "assistant",
            "content": if self.text.is_empty() && !self.calls.is_empty() { Value::Null } else { json!(self.text) },
            "refusal": null,
            "annotations": [],
        });
        if !self.calls.is_empty() {
            message["tool_calls"] = self
                .calls
                .iter()
                .map(|call| {
                    json!({
                        "id": call.id,
                        "type": "function",
                        "function": {"name": call.name, "arguments": call.arguments},
                    })
                })
                .collect();
        }
        json!({
            "id": self.id,
            "object": "chat.completion",
            "created": self.created_unix_secs,
            "model": self.model,
            "choices": [{
                "index": 0,
                "message": message,
                "logprobs": null,
                "finish_reason": self.finish_reason,
            }],
            "usage": self.usage_json(),
            "service_tier": "default",
            "system_fingerprint": SYSTEM_FINGERPRINT,
        })
    }

    /// How long the whole answer takes at human pace.
    pub(crate) fn duration(&self, first_token_ms: u64, per_second: f64) -> Duration {
        let spoken = self.usage.completion - self.usage.reasoning;
        catalog::first_token_delay(first_token_ms, self.usage.reasoning, per_second)
            + Duration::from_secs_f64(spoken as f64 / per_second.max(1.0))
    }

    /// The frames of a streamed answer, one token each, without the closing `[DONE]`.
    pub(crate) fn frames(&self, include_usage: bool, tempo: Tempo) -> Vec<Frame> {
        let Tempo { opening, token } = tempo;
        let mut frames = Vec::new();
        let mut push = |wait: Duration, delta: Value, finish: Option<&str>| {
            let data = self.chunk(
                include_usage,
                json!([{
                    "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish,
                }]),
            );
            frames.push(Frame { wait, event: "", data });
        };
        let content = if self.text.is_empty() { Value::Null } else { json!("") };
        push(opening, json!({"role": "assistant", "content": content, "refusal": null}), None);
        for piece in tokens::pieces(&self.text) {
            push(token, json!({ "content": piece }), None);
        }
        for (index, call) in self.calls.iter().enumerate() {
            let opened = json!({"tool_calls": [{
                "index": index,
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": ""},
            }]});
            push(token, opened, None);
            for piece in tokens::pieces(&call.arguments) {
                let more =
                    json!({"tool_calls": [{"index": index, "function": {"arguments": piece}}]});
                push(token, more, None);
            }
        }
        push(token, json!({}), Some(self.finish_reason));
        if include_usage {
            let data = self.chunk_with(json!([]), Some(self.usage_json()));
            frames.push(Frame { wait: Duration::ZERO, event: "", data });
        }
        frames
    }

    fn chunk(&self, include_usage: bool, choices: Value) -> String {
        self.chunk_with(choices, include_usage.then_some(Value::Null))
    }

    fn chunk_with(&self, choices: Value, usage: Option<Value>) -> String {
        let mut chunk = json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created_unix_secs,
            "model": self.model,
            "service_tier": "default",
            "system_fingerprint": SYSTEM_FINGERPRINT,
            "choices": choices,
        });
        if let Some(usage) = usage {
            chunk["usage"] = usage;
        }
        chunk.to_string()
    }

    fn usage_json(&self) -> Value {
        let Usage { prompt, cached, completion, reasoning } = self.usage;
        json!({
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": reasoning,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        })
    }
}

/// What `system_fingerprint` says: the wire form has it, the simulation has one "system".
const SYSTEM_FINGERPRINT: &str = "fp_throughline";

fn call_tokens(call: &Call) -> u64 {
    tokens::MESSAGE_FRAME_TOKENS + tokens::count(&call.name) + tokens::count(&call.arguments)
}

/// `length` letters and digits, as ids have them.
pub(crate) fn letters(dice: &mut Dice, length: usize) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    (0..length).map(|_| char::from(ALPHABET[dice.below(ALPHABET.len() as u64) as usize])).collect()
}
