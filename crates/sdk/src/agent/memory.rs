//! What an agent remembers of a session, as a trait, and a bounded memory in this process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use throughline_llm::{Message, Part, Role, tokens};

/// Messages that a window holds, when not said.
const WINDOW_MESSAGES: usize = 100;

/// Tokens that a window holds, when not said.
const WINDOW_TOKENS: u64 = 8_000;

/// Why something was not remembered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected the memory to {operation} a session, got {reason}")]
pub struct MemoryError {
    /// `load` or `keep`.
    pub operation: &'static str,
    /// What went wrong.
    pub reason: String,
}

impl MemoryError {
    /// Messages could not be read.
    pub fn load(reason: impl Into<String>) -> Self {
        Self { operation: "load", reason: reason.into() }
    }

    /// Messages could not be kept.
    pub fn keep(reason: impl Into<String>) -> Self {
        Self { operation: "keep", reason: reason.into() }
    }
}

/// Remembers what was said in sessions. An agent loads before a run and appends what is new after an
/// answer; with a memory, give it only the new messages.
///
/// Agents that share a memory share their sessions: one goes on with what another was told. A
/// sub-agent shares the session of its caller too, but not what was said in it: within another run it
/// remembers under `{session}/{agent}`. One in another process is not known to be a sub-agent: give
/// it a memory, or sessions, of its own.
pub trait Memory: Send + Sync {
    /// Name of the memory, on its spans.
    fn name(&self) -> &str;

    /// The messages of a session, oldest first; none of a session that is not known.
    fn load<'a>(&'a self, session: &'a str) -> BoxFuture<'a, Result<Vec<Message>, MemoryError>>;

    /// Adds messages to a session.
    fn append<'a>(
        &'a self,
        session: &'a str,
        messages: &'a [Message],
    ) -> BoxFuture<'a, Result<(), MemoryError>>;
}

impl<M: Memory + ?Sized> Memory for Arc<M> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn load<'a>(&'a self, session: &'a str) -> BoxFuture<'a, Result<Vec<Message>, MemoryError>> {
        (**self).load(session)
    }

    fn append<'a>(
        &'a self,
        session: &'a str,
        messages: &'a [Message],
    ) -> BoxFuture<'a, Result<(), MemoryError>> {
        (**self).append(session, messages)
    }
}

/// How much of a session a run sees: its newest part, from a message of the user on, so that no
/// tool's result stands without its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryWindow {
    /// Messages at most.
    pub max_messages: usize,
    /// Tokens at most, by a rough estimate.
    pub max_tokens: u64,
}

impl Default for MemoryWindow {
    fn default() -> Self {
        Self { max_messages: WINDOW_MESSAGES, max_tokens: WINDOW_TOKENS }
    }
}

impl MemoryWindow {
    /// A window of this many tokens.
    pub fn tokens(max_tokens: u64) -> Self {
        Self { max_tokens, ..Self::default() }
    }

    /// The newest messages that fit.
    pub fn trim(&self, mut messages: Vec<Message>) -> Vec<Message> {
        let mut left = self.max_tokens;
        let newest = messages.iter().rev().take(self.max_messages).take_while(|message| {
            let tokens = tokens_of(message);
            let fits = tokens <= left;
            left = left.saturating_sub(tokens);
            fits
        });
        let from = messages.len() - newest.count();
        let first = messages[from..].iter().position(|message| message.role == Role::User);
        messages.split_off(first.map_or(messages.len(), |first| from + first))
    }
}

/// The tokens of a message, roughly: which model will read it is not known here.
fn tokens_of(message: &Message) -> u64 {
    let of_part = |part: &Part| match part {
        Part::Text(text) | Part::Reasoning(text) | Part::Refusal(text) => text.clone(),
        Part::ToolCall(call) => format!("{}{}", call.name, call.arguments),
        Part::ToolResult(result) => result.result.to_string(),
        Part::Media(_) | Part::Other(_) => String::new(),
    };
    message.parts.iter().map(|part| tokens::count_text("", &of_part(part)).tokens).sum()
}

/// How an agent remembers.
pub(crate) struct Remembered {
    pub(super) memory: Arc<dyn Memory>,
    pub(super) window: MemoryWindow,
    /// Whether its failure is that of the run.
    pub(super) is_required: bool,
}

/// A bounded memory in this process: the sessions that were used last, the newest messages of each.
/// Clones share it.
#[derive(Debug, Clone)]
pub struct InMemory {
    max_sessions: usize,
    max_messages: usize,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    /// With the moment of its last use.
    sessions: HashMap<String, (u64, Vec<Message>)>,
    moment: u64,
}

impl InMemory {
    /// A memory of this many sessions with this many messages each, at least one of each.
    pub fn new(max_sessions: usize, max_messages: usize) -> Self {
        Self {
            max_sessions: max_sessions.max(1),
            max_messages: max_messages.max(1),
            kept: Arc::default(),
        }
    }

    fn read(&self, session: &str) -> Vec<Message> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.moment += 1;
        let moment = kept.moment;
        kept.sessions.get_mut(session).map_or_else(Vec::new, |(used, messages)| {
            *used = moment;
            messages.clone()
        })
    }

    fn write(&self, session: &str, messages: &[Message]) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.moment += 1;
        let moment = kept.moment;
        if !kept.sessions.contains_key(session) && kept.sessions.len() >= self.max_sessions {
            let oldest = kept.sessions.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(oldest) = oldest.map(|(session, _)| session.clone()) {
                kept.sessions.remove(&oldest);
            }
        }
        let (used, all) = kept.sessions.entry(session.to_owned()).or_default();
        *used = moment;
        all.extend_from_slice(messages);
        let over = all.len().saturating_sub(self.max_messages);
        all.drain(..over);
    }
}

impl Memory for InMemory {
    fn name(&self) -> &str {
        "in_memory"
    }

    fn load<'a>(&'a self, session: &'a str) -> BoxFuture<'a, Result<Vec<Message>, MemoryError>> {
        Box::pin(std::future::ready(Ok(self.read(session))))
    }

    fn append<'a>(
        &'a self,
        session: &'a str,
        messages: &'a [Message],
    ) -> BoxFuture<'a, Result<(), MemoryError>> {
        self.write(session, messages);
        Box::pin(std::future::ready(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_memory_in_this_process_is_bounded() {
        let memory = InMemory::new(2, 3);
        for session in ["a", "b"] {
            memory.write(session, &[Message::user("1"), Message::assistant("2")]);
        }
        memory.write("a", &[Message::user("3"), Message::assistant("4")]);
        memory.write("c", &[Message::user("5")]);
        let lengths = ["a", "b", "c"].map(|session| memory.read(session).len());
        assert_eq!(lengths, [3, 0, 1], "b was used longest ago");
    }

    proptest! {
        #[test]
        fn a_window_is_never_larger_than_allowed_and_begins_with_a_user(
            roles in prop::collection::vec(0usize..3, 0..40),
            max_messages in 0usize..20,
            max_tokens in 0u64..60,
        ) {
            let messages: Vec<Message> = roles
                .iter()
                .enumerate()
                .map(|(at, role)| match role {
                    0 => Message::user("x".repeat(at)),
                    1 => Message::assistant("y".repeat(at)),
                    _ => Message::tool_result("call", "z".repeat(at)),
                })
                .collect();
            let window = MemoryWindow { max_messages, max_tokens };
            let trimmed = window.trim(messages.clone());
            prop_assert!(trimmed.len() <= max_messages);
            prop_assert!(trimmed.iter().map(tokens_of).sum::<u64>() <= max_tokens);
            prop_assert!(trimmed.first().is_none_or(|first| first.role == Role::User));
            prop_assert!(messages.ends_with(&trimmed));
        }
    }
}
