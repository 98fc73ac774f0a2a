//! Puts the chunks of a streamed answer together again.

use throughline_trace::Usage;

use crate::chat::{ChatResponse, Choice, Chunk, Delta};
use crate::message::{FinishReason, Message, Part, Role, ToolCall};

/// Most answers and tool calls that are gathered of one stream: an index is a number that the
/// provider names, and must not decide how much memory we take.
pub const MAX_INDEX: usize = 1_024;

/// Gathers chunks. What has come is readable at any time, so that a stream that broke off or was
/// given up still tells its part.
#[derive(Debug, Clone, Default)]
pub struct Assembler {
    id: String,
    model: String,
    created_unix_secs: u64,
    answers: Vec<Answer>,
    usage: Option<Usage>,
}

#[derive(Debug, Clone, Default)]
struct Answer {
    role: Option<Role>,
    text: String,
    reasoning: String,
    refusal: String,
    calls: Vec<ToolCall>,
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
            status_code: None,
            extra: serde_json::Map::new(),
        }
    }
}

impl Answer {
    fn push(&mut self, delta: &Delta) {
        if self.role.is_none() {
            self.role.clone_from(&delta.role);
        }
        self.text.push_str(delta.text.as_deref().unwrap_or_default());
        self.reasoning.push_str(delta.reasoning.as_deref().unwrap_or_default());
        self.refusal.push_str(delta.refusal.as_deref().unwrap_or_default());
        for piece in delta.tool_calls.iter().filter(|piece| piece.index < MAX_INDEX) {
            if self.calls.len() <= piece.index {
                self.calls.resize_with(piece.index + 1, ToolCall::default);
            }
            let call = &mut self.calls[piece.index];
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

    fn choice(&self) -> Choice {
        let mut parts = Vec::new();
        let some = |text: &String| (!text.is_empty()).then(|| text.clone());
        parts.extend(some(&self.reasoning).map(Part::Reasoning));
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
    use crate::chat::ToolCallDelta;
    use proptest::prelude::*;

    /// Cuts an answer into chunks the way a provider would, at the given places.
    fn chunks_of(text: &str, calls: &[ToolCall], every: usize) -> Vec<Chunk> {
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
        for chunk in &chunks_of("half an ans", &[], 3)[..3] {
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
        let call = ToolCallDelta { index: usize::MAX, ..ToolCallDelta::default() };
        let far = Delta { index: usize::MAX, ..Delta::default() };
        let near = Delta { tool_calls: vec![call], ..Delta::default() };
        assembler.push(&Chunk { deltas: vec![far, near], ..Chunk::default() });
        assert_eq!(assembler.response().choices.len(), 1);
        assert!(assembler.response().tool_calls().is_empty());
    }

    proptest! {
        #[test]
        fn chunks_come_together_however_they_were_cut(
            text in ".{0,30}", arguments in proptest::collection::vec(".{0,20}", 0..3), every in 1usize..7,
        ) {
            let calls: Vec<ToolCall> = arguments
                .into_iter()
                .enumerate()
                .map(|(at, arguments)| ToolCall { id: format!("call_{at}"), name: "f".to_owned(), arguments })
                .collect();
            let mut assembler = Assembler::new();
            for chunk in chunks_of(&text, &calls, every) {
                assembler.push(&chunk);
            }
            prop_assert!(assembler.is_finished());
            let response = assembler.response();
            prop_assert_eq!(response.text(), text);
            prop_assert_eq!(response.tool_calls().into_iter().cloned().collect::<Vec<_>>(), calls);
        }
    }
}
