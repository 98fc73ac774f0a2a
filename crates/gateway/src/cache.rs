//! Answers that are kept and given again to the same request, where a route says so.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;
use throughline_llm::{
    ChatResponse, Chunk, DONE, Delta, FinishReason, Part, ToolCallDelta, anthropic, event_bytes,
    named_event_bytes, openai, responses,
};
use tokio::time::Instant;

use crate::api::Api;
use crate::asked::Asked;
use crate::client;

type Key = [u8; 32];

/// Kept answers, in at most so many bytes together.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    answers: HashMap<Key, Kept>,
    /// Oldest first.
    order: VecDeque<Key>,
    bytes: usize,
}

/// An answer that is kept.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) response: Arc<ChatResponse>,
    /// The body as it came, of an answer that was no stream.
    whole: Option<Bytes>,
    expires: Instant,
    bytes: usize,
}

/// Where an answer is kept that is still to come.
#[derive(Debug)]
pub(crate) struct Keeping {
    pub(crate) cache: Arc<Cache>,
    pub(crate) key: Key,
    pub(crate) ttl: Duration,
    pub(crate) max_bytes: usize,
}

impl Keeping {
    /// Keeps a complete answer. One that was cut short by a filter or a limit is not kept, nor one that
    /// came as a stream and said more than is known of it: it would be less the next time.
    pub(crate) fn keep(self, response: ChatResponse, whole: Option<Bytes>) {
        if whole.is_none() && response.has_unread {
            return;
        }
        let is_good =
            |reason: &FinishReason| matches!(reason, FinishReason::Stop | FinishReason::ToolCall);
        if !response.choices.iter().all(|choice| is_good(&choice.finish_reason)) {
            return;
        }
        let said: usize = response.choices.iter().map(|choice| size(&choice.message.parts)).sum();
        let beside = response.extra.values().map(|value| value.to_string().len()).sum::<usize>();
        let bytes = said + beside + whole.as_ref().map_or(0, Bytes::len) + size_of::<Kept>();
        if bytes > self.max_bytes {
            return;
        }
        let expires = Instant::now() + self.ttl;
        let kept = Kept { response: Arc::new(response), whole, expires, bytes };
        let mut held = self.cache.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.put(self.key, kept, self.max_bytes);
    }
}

fn size(parts: &[Part]) -> usize {
    parts
        .iter()
        .map(|part| match part {
            Part::Text(text) | Part::Reasoning(text) | Part::Refusal(text) => text.len(),
            Part::ToolCall(call) => call.name.len() + call.arguments.len(),
            other => format!("{other:?}").len(),
        })
        .sum()
}

impl Held {
    fn put(&mut self, key: Key, kept: Kept, max_bytes: usize) {
        self.take(&key);
        self.bytes += kept.bytes;
        self.answers.insert(key, kept);
        self.order.push_back(key);
        while self.bytes > max_bytes {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(gone) = self.answers.remove(&oldest) {
                self.bytes -= gone.bytes;
            }
        }
    }

    fn take(&mut self, key: &Key) {
        if let Some(gone) = self.answers.remove(key) {
            self.bytes -= gone.bytes;
            self.order.retain(|other| other != key);
        }
    }
}

impl Cache {
    /// The answer to a request, if one is kept and still good.
    pub(crate) fn get(&self, key: &Key) -> Option<Kept> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = held.answers.get(key)?.clone();
        if Instant::now() >= kept.expires {
            held.take(key);
            return None;
        }
        Some(kept)
    }
}

/// A request, whom it goes to and whose it is.
pub(crate) struct AskedOf<'a> {
    pub(crate) asked: &'a Asked,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) route: &'a str,
    pub(crate) provider: &'a str,
    pub(crate) model: &'a str,
    pub(crate) api_key: &'a str,
}

/// What an answer is kept under: everything that a request says but whether it wants a stream, with the
/// headers that are passed on and may change the answer, which target it goes to, and whose it is. Two keys never see each other's answers.
pub(crate) fn key(of: AskedOf<'_>) -> Option<Key> {
    let AskedOf { asked, headers, route, provider, model, api_key } = of;
    let mut body: Value = serde_json::from_slice(&asked.body).ok()?;
    let fields = body.as_object_mut()?;
    fields.remove("stream");
    fields.remove("stream_options");
    let mut hasher = blake3::Hasher::new();
    let body = body.to_string();
    let parts = [route, provider, model, asked.api.as_str(), api_key, &body];
    let mut passed: Vec<[&[u8]; 2]> = headers
        .iter()
        .filter(|(name, _)| client::shapes_answer(name.as_str()))
        .map(|(name, value)| [name.as_str().as_bytes(), value.as_bytes()])
        .collect();
    // Clients write them in any order; those of one name keep theirs.
    passed.sort_by_key(|[name, _]| *name);
    for part in parts.map(str::as_bytes).into_iter().chain(passed.into_iter().flatten()) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    Some(*hasher.finalize().as_bytes())
}

impl Kept {
    /// The answer as a stream, as [`events_of`] has it; `None` when it would be less than the answer is.
    pub(crate) fn events(&self, api: Api, wants_usage: bool) -> Option<Bytes> {
        if self.response.has_unread && api != Api::Chat {
            return None;
        }
        events_of(&self.response, self.whole.as_ref(), api, wants_usage)
    }

    /// The body of a whole answer.
    pub(crate) fn body(&self, api: Api) -> Option<Bytes> {
        let said = || Some(Bytes::from(api.form()?.response_to_json(&self.response).to_string()));
        self.whole.clone().or_else(said)
    }
}

/// The answer as a stream of one piece; `None` of an API that we cannot stream in, and of an old
/// completion whose body is not there.
pub(crate) fn events_of(
    response: &ChatResponse,
    whole: Option<&Bytes>,
    api: Api,
    wants_usage: bool,
) -> Option<Bytes> {
    if let (Api::Chat, Some(body)) = (api, whole) {
        return chat_events(body, wants_usage).map(Bytes::from);
    }
    let chunk = chunk_of(response);
    let named = |events: Vec<Value>| events.iter().map(named_event_bytes).collect::<String>();
    let text = match api {
        Api::Chat => {
            let usage = chunk.usage;
            let said = Chunk { usage: None, ..chunk.clone() };
            let mut text = event_bytes(&openai::chunk_to_json(&said).to_string());
            if wants_usage {
                let last = Chunk { deltas: Vec::new(), usage, ..chunk };
                text.push_str(&event_bytes(&openai::chunk_to_json(&last).to_string()));
            }
            text.push_str(&event_bytes(DONE));
            text
        }
        Api::Messages => {
            let mut writer = anthropic::StreamWriter::new();
            let mut events = writer.push(&chunk);
            events.extend(writer.finish());
            named(events)
        }
        Api::Responses => {
            let mut writer = responses::StreamWriter::new();
            let mut events = writer.push(&chunk);
            events.extend(writer.finish());
            named(events)
        }
        Api::Completions => completion_events(whole?, wants_usage)?,
        Api::Embeddings => return None,
    };
    Some(Bytes::from(text))
}

/// A whole chat completion as events, with everything that it says.
fn chat_events(body: &[u8], wants_usage: bool) -> Option<String> {
    let mut said: Value = serde_json::from_slice(body).ok()?;
    let whole = said.as_object_mut()?;
    let usage = whole.remove("usage");
    whole.insert("object".to_owned(), Value::from("chat.completion.chunk"));
    for choice in whole.get_mut("choices")?.as_array_mut()? {
        let choice = choice.as_object_mut()?;
        let mut delta = choice.remove("message").unwrap_or_default();
        let calls = delta.get_mut("tool_calls").and_then(Value::as_array_mut);
        for (at, call) in calls.into_iter().flatten().enumerate() {
            call.as_object_mut()?.insert("index".to_owned(), Value::from(at));
        }
        choice.insert("delta".to_owned(), delta);
    }
    let mut text = event_bytes(&said.to_string());
    if wants_usage {
        said["choices"] = Value::Array(Vec::new());
        said["usage"] = usage.unwrap_or_default();
        text.push_str(&event_bytes(&said.to_string()));
    }
    Some(text + &event_bytes(DONE))
}

/// A body of the old API as events: there a piece of a stream has the form of a whole answer.
fn completion_events(body: &[u8], wants_usage: bool) -> Option<String> {
    // Written anew, on one line.
    let mut said: Value = serde_json::from_slice(body).ok()?;
    if !wants_usage {
        said.as_object_mut()?.remove("usage");
    }
    Some(event_bytes(&said.to_string()) + &event_bytes(DONE))
}

/// All of the answer as one chunk.
fn chunk_of(response: &ChatResponse) -> Chunk {
    let deltas = response.choices.iter().enumerate().map(|(index, choice)| {
        let mut delta = Delta {
            index,
            role: Some(choice.message.role.clone()),
            finish_reason: Some(choice.finish_reason.clone()),
            ..Delta::default()
        };
        for part in &choice.message.parts {
            let (whole, more) = match part {
                Part::Text(text) => (&mut delta.text, text),
                Part::Reasoning(text) => (&mut delta.reasoning, text),
                Part::Refusal(text) => (&mut delta.refusal, text),
                Part::ToolCall(call) => {
                    delta.tool_calls.push(ToolCallDelta {
                        index: Some(delta.tool_calls.len()),
                        id: Some(call.id.clone()),
                        name: Some(call.name.clone()),
                        arguments: call.arguments.clone(),
                    });
                    continue;
                }
                Part::Other(value) => {
                    delta.kept.push(value.clone());
                    continue;
                }
                _ => continue,
            };
            whole.get_or_insert_default().push_str(more);
        }
        delta
    });
    Chunk {
        id: response.id.clone(),
        model: response.model.clone(),
        created_unix_secs: response.created_unix_secs,
        deltas: deltas.collect(),
        usage: response.usage,
        extra: response.extra.clone(),
        ..Chunk::default()
    }
}
