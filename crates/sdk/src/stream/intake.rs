//! What becomes of the chunks of a model's answer: they are put in order, counted into segments and
//! gathered.

use std::collections::VecDeque;

use throughline_llm::{Assembler, Chunk};
use throughline_resilience::Reorder;
use tokio::time::Instant;

use super::StreamRules;
use super::any::text_bytes;
use super::spans::SegmentSpans;

pub(super) struct Intake {
    pub(super) segments: SegmentSpans,
    pub(super) assembler: Assembler,
    /// Boxed, as few streams have it and many may be open.
    reorder: Option<Box<Reorder<Chunk>>>,
}

impl Intake {
    pub(super) fn new(rules: StreamRules, segments: SegmentSpans) -> Self {
        let window = rules.reorder_window;
        let reorder = (window > 0).then(|| Box::new(Reorder::new(window, None)));
        Self { segments, assembler: Assembler::new(), reorder }
    }

    /// Whether the answer has begun to come, or is over.
    pub(super) fn has_begun(&self) -> bool {
        self.assembler.text_bytes() > 0 || self.assembler.is_finished()
    }

    /// A chunk came, at this time. `true` if nothing is put in order and it is the next to be read;
    /// else it goes to [`keep`](Self::keep).
    pub(super) fn passes(&mut self, chunk: &mut Chunk, at: Instant) -> bool {
        if chunk.seq.is_some() && self.reorder.is_some() {
            return false;
        }
        self.note(chunk, at);
        true
    }

    /// Takes a chunk that waits for its turn: what is in order now is in `ready`.
    pub(super) fn keep(&mut self, chunk: Chunk, at: Instant, ready: &mut VecDeque<Chunk>) {
        let number = chunk.seq.unwrap_or_default();
        let mut next = self.reorder.as_mut().and_then(|reorder| reorder.push(number, chunk));
        while let Some((_, mut chunk)) = next {
            self.note(&mut chunk, at);
            ready.push_back(chunk);
            next = self.reorder.as_mut().and_then(|reorder| reorder.pop());
        }
    }

    /// Nothing more comes: what still waits for its turn is next.
    pub(super) fn rest(&mut self, ready: &mut VecDeque<Chunk>) {
        while let Some((_, mut chunk)) =
            self.reorder.as_mut().and_then(|reorder| reorder.pop_first())
        {
            self.note(&mut chunk, Instant::now());
            ready.push_back(chunk);
        }
    }

    fn note(&mut self, chunk: &mut Chunk, at: Instant) {
        chunk.seq = Some(self.segments.take(chunk.seq, text_bytes(chunk), at));
        self.assembler.push(chunk);
    }
}
