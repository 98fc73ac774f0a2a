//! Puts the chunks of a streamed answer together again.

use serde_json::{Map, Value};
use throughline_trace::Usage;

use crate::chat::{ChatResponse, Choice, Chunk, Delta, ToolCallDelta};
use crate::message::{FinishReason, Message, Part, Role, ToolCall};

/// Most answers and tool calls that are gathered of one stream: an index is a number that the
/// provider names, and must not decide how much memory we take.
pub const MAX_INDEX: usize = 1_024;

/// Most fields that are gathered of what an answer says of itself.
const MAX_EXTRA: usize = 64;

/// The parts of an answer, in the order in which an [`Assembler`] puts them together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    Thought,
    Kept,
    Text,
    Refusal,
    Call,
}

/// Watches whether the parts of an answer come in that order, and thoughts and texts once: else it is
/// another answer when it is put together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Order {
    last: Option<Rank>,
    is_broken: bool,
}

impl Order {
    /// A part has come.
    pub(crate) fn came(&mut self, rank: Rank) {
        let may_repeat = matches!(rank, Rank::Kept | Rank::Call);
        let fits = self.last.is_none_or(|last| rank > last || (rank == last && may_repeat));
        self.is_broken |= !fits;
        self.last = Some(rank);
    }

    /// A part has come that nothing is kept of.
    pub(crate) fn lost(&mut self) {
        self.is_broken = true;
    }

    /// Whether the answer is not the same any more when it is put together.
    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken
    }
}

/// Gathers chunks. What has come is readable at any time, so that a stream that broke off or was
/// given up still tells its part.
#[derive(Debug, Clone, Default)]
pub struct Assembler {
    id: String,
    model: String,
    created_unix_secs: u64,
    answers: Vec<Answer>,
    usage: Option<Usage>,
    extra: Map<String, Value>,
    has_unread: bool,
}

#[derive(Debug, Clone, Default)]
struct Answer {
    role: Option<Role>,
    text: String,
    reasoning: String,
    refusal: String,
    calls: Vec<ToolCall>,
    kept: Vec<Value>,
    finish_reason: Option<FinishReason>,
}

impl Assembler {
    /// Nothing gathered yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next chunk. Answers and tool calls beyond [`MAX_INDEX`] are left out.
    pub fn push(&mut self, chunk: &Chunk) {
        if self.id.is_empty() {
            chunk.id.clone_into(&mut self.id);
        }
        if self.model.is_empty() {
            chunk.model.clone_into(&mut self.model);
        }
        if self.created_unix_secs == 0 {
            self.created_unix_secs = chunk.created_unix_secs;
        }
        if chunk.usage.is_some() {
            self.usage = chunk.usage;
        }
        self.has_unread |= chunk.has_unread;
        for (name, value) in &chunk.extra {
            match self.extra.get(name) {
                Some(known) => self.has_unread |= known != value,
                None if self.extra.len() < MAX_EXTRA => {
                    self.extra.insert(name.clone(), value.clone());
                }
                None => self.has_unread = true,
            }
        }
        for delta in chunk.deltas.iter().filter(|delta| delta.index < MAX_INDEX) {
            if self.answers.len() <= delta.index {
                self.answers.resize_with(delta.index + 1, Answer::default);
            }
            self.answers[delta.index].push(delta);
        }
    }

    /// Whether every answer that began has said why it ended.
    pub fn is_finished(&self) -> bool {
        !self.answers.is_empty() && self.answers.iter().all(|a| a.finish_reason.is_some())
    }

    /// The provider's id of the answer; empty before the first chunk.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The model that answers; empty before the first chunk.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Tokens used, once the provider has told them.
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// Bytes of text that the answers hold so far, for estimates.
    pub fn text_bytes(&self) -> usize {
        let calls = |answer: &Answer| -> usize {
            answer.calls.iter().map(|call| call.name.len() + call.arguments.len()).sum()
        };
        let bytes = |a: &Answer| a.text.len() + a.reasoning.len() + a.refusal.len() + calls(a);
        self.answers.iter().map(bytes).sum()
    }

    /// The answer as far as it has come; an answer without an end has the finish reason
    /// [`FinishReason::Error`].
    pub fn response(&self) -> ChatResponse {
        ChatResponse {
            id: self.id.clone(),
            model: self.model.clone(),
            created_unix_secs: self.created_unix_secs,
            choices: self.answers.iter().map(Answer::choice).collect(),
            usage: self.usage,
            extra: self.extra.clone(),
            has_unread: self.has_unread,
            ..ChatResponse::default()
        }
    }
}

impl Answer {
    fn push(&mut self, delta: &Delta) {
        if self.role.is_none() && delta.role.is_some() {
            self.role.clone_from(&delta.role);
        }
        let grown = [
            (&mut self.text, &delta.text),
            (&mut self.reasoning, &delta.reasoning),
            (&mut self.refusal, &delta.refusal),
        ];
        for (whole, more) in grown {
            if let Some(more) = more {
                whole.push_str(more);
            }
        }
        if !delta.kept.is_empty() {
            let room = MAX_INDEX.saturating_sub(self.kept.len());
            self.kept.extend(delta.kept.iter().take(room).cloned());
        }
        for (at, piece) in delta.tool_calls.iter().enumerate() {
            let index = piece.index.unwrap_or_else(|| self.index_of_uncounted(at, piece));
            if index >= MAX_INDEX {
                continue;
            }
            if self.calls.len() <= index {
                self.calls.resize_with(index + 1, ToolCall::default);
            }
            let call = &mut self.calls[index];
            // Some servers repeat id and name on every piece: the first is meant.
            if let (true, Some(id)) = (call.id.is_empty(), &piece.id) {
                id.clone_into(&mut call.id);
            }
            if let (true, Some(name)) = (call.name.is_empty(), &piece.name) {
                name.clone_into(&mut call.name);
            }
            call.arguments.push_str(&piece.arguments);
        }
        if delta.finish_reason.is_some() {
            self.finish_reason.clone_from(&delta.finish_reason);
        }
    }

    /// Which call a piece without an index belongs to, the one at `at` of its chunk: an id that is
    /// new begins the next call, and so does a name beside another call in the same chunk. Anything
    /// else goes on with the last.
    fn index_of_uncounted(&self, at: usize, piece: &ToolCallDelta) -> usize {
        let next = self.calls.len();
        let last = next.saturating_sub(1);
        match &piece.id {
            Some(id) => self.calls.iter().position(|call| call.id == *id).unwrap_or(next),
            None if at > 0 && piece.name.is_some() => next,
            None => last,
        }
    }

    fn choice(&self) -> Choice {
        let mut parts = Vec::new();
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        parts.extend(some(&self.reasoning).map(Part::Reasoning));
        parts.extend(self.kept.iter().cloned().map(Part::Other));
        parts.extend(some(&self.text).map(Part::Text));
        parts.extend(some(&self.refusal).map(Part::Refusal));
        let is_call = |call: &&ToolCall| !call.name.is_empty() || !call.arguments.is_empty();
        parts.extend(self.calls.iter().filter(is_call).cloned().map(Part::ToolCall));
        Choice {
            message: Message {
                role: self.role.clone().unwrap_or(Role::Assistant),
                parts,
                name: None,
            },
            finish_reason: self.finish_reason.clone().unwrap_or(FinishReason::Error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Cuts an answer into chunks the way a provider would, at the given places.
    /// A provider that does not count leaves the indexes out.
    fn chunks_of(text: &str, calls: &[ToolCall], every: usize, is_counted: bool) -> Vec<Chunk> {
        let chunk = |delta: Delta| Chunk {
            id: "c1".to_owned(),
            model: "m".to_owned(),
            deltas: vec![delta],
            ..Chunk::default()
        };
        let mut chunks = vec![chunk(Delta { role: Some(Role::Assistant), ..Delta::default() })];
        let pieces = |text: &str| -> Vec<String> {
            let chars: Vec<char> = text.chars().collect();
            chars.chunks(every).map(|piece| piece.iter().collect()).collect()
        };
        for piece in pieces(text) {
            chunks.push(chunk(Delta { text: Some(piece), ..Delta::default() }));
        }
        for (index, call) in calls.iter().enumerate() {
            let index = is_counted.then_some(index);
            let first = ToolCallDelta {
                index,
                id: Some(call.id.clone()),
                name: Some(call.name.clone()),
                arguments: String::new(),
            };
            chunks.push(chunk(Delta { tool_calls: vec![first], ..Delta::default() }));
            for arguments in pieces(&call.arguments) {
                let more = ToolCallDelta { index, arguments, ..ToolCallDelta::default() };
                chunks.push(chunk(Delta { tool_calls: vec![more], ..Delta::default() }));
            }
        }
        let end = Delta { finish_reason: Some(FinishReason::Stop), ..Delta::default() };
        chunks.push(chunk(end));
        chunks
    }

    #[test]
    fn an_unfinished_answer_tells_its_part() {
        let mut assembler = Assembler::new();
        assert!(!assembler.is_finished());
        for chunk in &chunks_of("half an ans", &[], 3, true)[..3] {
            assembler.push(chunk);
        }
        let response = assembler.response();
        assert_eq!(response.text(), "half a");
        assert_eq!(response.finish_reason(), Some(&FinishReason::Error));
        assert_eq!(assembler.text_bytes(), 6);
    }

    #[test]
    fn a_huge_index_takes_no_memory() {
        let mut assembler = Assembler::new();
        let call = ToolCallDelta { index: Some(usize::MAX), ..ToolCallDelta::default() };
        let far = Delta { index: usize::MAX, ..Delta::default() };
        let near = Delta { tool_calls: vec![call], ..Delta::default() };
        assembler.push(&Chunk { deltas: vec![far, near], ..Chunk::default() });
        assert_eq!(assembler.response().choices.len(), 1);
        assert!(assembler.response().tool_calls().is_empty());
    }

    /// The calls that come of these chunks, each given as its tool calls in OpenAI's form.
    fn calls_of(chunks: &[&str]) -> Vec<String> {
        let mut assembler = Assembler::new();
        for calls in chunks {
            let data = format!(r#"{{"choices":[{{"delta":{{"tool_calls":[{calls}]}}}}]}}"#);
            assembler.push(&crate::openai::parse_chunk(&data).expect("a chunk"));
        }
        let show = |call: &ToolCall| format!("{} {}({})", call.id, call.name, call.arguments);
        assembler.response().tool_calls().into_iter().map(show).collect()
    }

    #[test]
    fn calls_without_an_index_are_told_apart() {
        let a = r#"{"id":"a","function":{"name":"f","arguments":"{\"x\":1}"}}"#;
        let b = r#"{"id":"b","function":{"name":"f","arguments":"{\"x\":2}"}}"#;
        let two = [r#"a f({"x":1})"#, r#"b f({"x":2})"#];
        assert_eq!(calls_of(&[a, b]), two, "whole calls, one a chunk");
        assert_eq!(calls_of(&[&format!("{a},{b}")]), two, "whole calls in one chunk");
        let begin_a = r#"{"id":"a","function":{"name":"f","arguments":""}}"#;
        let more = |text: &str| format!(r#"{{"function":{{"arguments":"{text}"}}}}"#);
        let (one, rest) = (more(r#"{\"x\""#), more(":1}"));
        assert_eq!(calls_of(&[begin_a, &one, &rest, b]), two, "the first in pieces");
        let again = r#"{"id":"a","function":{"name":"f","arguments":":1}"}}"#;
        assert_eq!(calls_of(&[begin_a, &one, again, b]), two, "an id that is repeated");
        let nameless = [r#"{"function":{"name":"f","arguments":"1"}}"#; 2].join(",");
        assert_eq!(calls_of(&[&nameless]), [" f(1)", " f(1)"], "no ids, in one chunk");
        assert_eq!(calls_of(&[&one]), [r#" ({"x")"#], "nothing that begins");
    }

    #[test]
    fn calls_without_an_index_take_no_more_memory_than_others() {
        let call = |at: usize| ToolCallDelta {
            id: Some(format!("call_{at}")),
            name: Some("f".to_owned()),
            ..ToolCallDelta::default()
        };
        let mut assembler = Assembler::new();
        let tool_calls = (0..MAX_INDEX + 5).map(call).collect();
        let delta = Delta { tool_calls, ..Delta::default() };
        assembler.push(&Chunk { deltas: vec![delta], ..Chunk::default() });
        assert_eq!(assembler.response().tool_calls().len(), MAX_INDEX);
    }

    proptest! {
        #[test]
        fn chunks_come_together_however_they_were_cut(
            text in ".{0,30}", arguments in proptest::collection::vec(".{0,20}", 0..3), every in 1usize..7,
            is_counted: bool,
        ) {
            let calls: Vec<ToolCall> = arguments
                .into_iter()
                .enumerate()
                .map(|(at, arguments)| ToolCall { id: format!("call_{at}"), name: "f".to_owned(), arguments })
                .collect();
            let mut assembler = Assembler::new();
            for chunk in chunks_of(&text, &calls, every, is_counted) {
                assembler.push(&chunk);
            }
            prop_assert!(assembler.is_finished());
            let response = assembler.response();
            prop_assert_eq!(response.text(), text);
            prop_assert_eq!(response.tool_calls().into_iter().cloned().collect::<Vec<_>>(), calls);
        }
    }
}
