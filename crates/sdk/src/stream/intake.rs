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

    /// A chunk came, at this time. It comes back if nothing is put in order; else what is in order
    /// now is in `ready`.
    pub(super) fn take(
        &mut self,
        chunk: Chunk,
        at: Instant,
        ready: &mut VecDeque<Chunk>,
    ) -> Option<Chunk> {
        let (Some(number), Some(reorder)) = (chunk.seq, &mut self.reorder) else {
            return Some(self.note(chunk, at));
        };
        let mut next = reorder.push(number, chunk);
        while let Some((_, chunk)) = next {
            ready.push_back(self.note(chunk, at));
            next = self.reorder.as_mut().and_then(|reorder| reorder.pop());
        }
        None
    }

    /// Nothing more comes: what still waits for its turn is next.
    pub(super) fn rest(&mut self, ready: &mut VecDeque<Chunk>) {
        while let Some((_, chunk)) = self.reorder.as_mut().and_then(|reorder| reorder.pop_first()) {
            ready.push_back(self.note(chunk, Instant::now()));
        }
    }

    fn note(&mut self, mut chunk: Chunk, at: Instant) -> Chunk {
        chunk.seq = Some(self.segments.take(chunk.seq, text_bytes(&chunk), at));
        self.assembler.push(&chunk);
        chunk
    }
}
