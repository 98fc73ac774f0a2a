//! A streamed answer of a model, read as it passes, and the segments of its stream (R3.2).

use std::sync::Arc;
use std::task::Context as Poller;

use http::HeaderMap;
use opentelemetry::Context;
use throughline_llm::openai::WireError;
use throughline_llm::{Assembler, Chunk, SseEvent, SseParser};
use throughline_resilience::{SegmentEnd, SegmentPolicy};
use throughline_trace::ErrorType;

use super::model_form::{EventReader, Form};
use crate::stream::any::{is_failed_state, text_bytes};
use crate::stream::spans::SegmentSpans;
use crate::stream::timer::Timer;
use crate::stream::{
    DEFAULT_IDLE_TIMEOUT, DEFAULT_MISSING_CHUNKS, SEGMENT_MAX_AGE, STREAM_ID, SseNumbers,
};

/// The header or trailer of a stream that failed.
const STREAM_STATE: &str = "x-stream-state";

/// Longest text of a streamed answer that is gathered, bytes; what follows only counts as an end.
const MAX_STREAM_TEXT_BYTES: usize = 4 * 1024 * 1024;

/// How a stream ended that its provider does not call complete.
#[derive(Debug)]
pub(super) enum Broken {
    /// The provider told an error.
    Told(WireError),
    /// It said `X-Stream-State: failed`.
    Failed,
    /// There was no end mark.
    Cut,
}

/// A streamed answer that is under way. Dropped, it ends its segment as cancelled.
pub(super) struct Events {
    parser: SseParser,
    reader: EventReader,
    numbers: SseNumbers,
    assembler: Assembler,
    segments: SegmentSpans,
    timer: Timer,
    /// Whether the part before the first token is over.
    has_begun: bool,
    /// Chunks that came after the one with the first token.
    further_chunks: usize,
    is_complete: bool,
    has_failed: bool,
    /// What the provider told instead of an answer.
    error: Option<WireError>,
}

impl Events {
    /// A stream whose answer has this head, below the span of its call.
    pub(super) fn begin(form: Form, parent: Context, headers: &HeaderMap) -> Self {
        let policy = SegmentPolicy {
            idle: DEFAULT_IDLE_TIMEOUT,
            max_age: SEGMENT_MAX_AGE,
            missing: DEFAULT_MISSING_CHUNKS,
        };
        let stream_id = headers.get(STREAM_ID).and_then(|id| id.to_str().ok());
        let stream_id = stream_id.filter(|id| !id.is_empty()).map(Arc::<str>::from);
        Self {
            parser: SseParser::new(),
            reader: form.reader(),
            numbers: SseNumbers::new(),
            assembler: Assembler::new(),
            segments: SegmentSpans::begin(policy, stream_id, parent, None, None),
            timer: Timer::default(),
            has_begun: false,
            further_chunks: 0,
            is_complete: false,
            has_failed: says_failed(headers),
            error: None,
        }
    }

    /// The answer so far.
    pub(super) fn answer(&self) -> &Assembler {
        &self.assembler
    }

    pub(super) fn has_text(&self) -> bool {
        self.assembler.text_bytes() > 0
    }

    /// Reads more of the body. How many chunks of the answer came, not counting those up to the
    /// first token.
    pub(super) fn push(&mut self, bytes: &[u8]) -> usize {
        if self.is_over() {
            return 0;
        }
        let before = self.further_chunks;
        let mut events = Vec::new();
        // A stream of endless lines cannot be read on; what its client makes of it is its own.
        let _ = self.parser.push(bytes, &mut events);
        for event in &events {
            self.read(event);
        }
        self.further_chunks - before
    }

    /// Nothing has come: silence ends the segment when it lasts.
    pub(super) fn poll_idle(&mut self, poller: &mut Poller<'_>) {
        while let Some(at) = self.segments.idle_at()
            && self.timer.poll(at, poller)
        {
            self.segments.tick();
        }
    }

    /// Reads the trailers, which may say that the stream failed.
    pub(super) fn trailers(&mut self, trailers: &HeaderMap) {
        self.has_failed |= says_failed(trailers);
    }

    /// Whether a reader that has read so far has read it all, and need not wait for the end mark.
    pub(super) fn is_over(&self) -> bool {
        self.error.is_some() || self.has_failed || self.is_complete
    }

    pub(super) fn is_readable_to_its_end(&self) -> bool {
        self.is_over() || self.assembler.is_finished()
    }

    /// The body has ended.
    ///
    /// # Errors
    /// Why the answer is not complete.
    pub(super) fn finish(&mut self) -> Result<(), Broken> {
        // The last event may lack its blank line; it counts if it is the end mark.
        let left = std::mem::take(&mut self.parser).finish().filter(SseEvent::is_done);
        self.is_complete |= left.is_some();
        if let Some(error) = self.error.take() {
            return Err(Broken::Told(error));
        }
        if self.has_failed {
            return Err(Broken::Failed);
        }
        if !self.is_complete && !self.assembler.is_finished() {
            return Err(Broken::Cut);
        }
        self.segments.end(SegmentEnd::Done);
        Ok(())
    }

    /// The stream broke, or told that it did.
    pub(super) fn fail(&mut self, kind: ErrorType, message: &str) {
        self.segments.fail(kind, message);
    }

    /// Nobody reads any more.
    pub(super) fn cancel(&mut self) {
        self.segments.end(SegmentEnd::Cancelled);
    }

    fn read(&mut self, event: &SseEvent) {
        if is_failed_state(event) {
            self.has_failed = true;
            return;
        }
        let number = self.numbers.read_event(event);
        match self.reader.read(event) {
            Ok(read) => {
                if let Some(chunk) = read.chunk {
                    self.take(number, chunk);
                }
                self.is_complete |= read.is_last;
            }
            Err(error @ WireError::Api(_)) => self.error = Some(error),
            // An event that we cannot read may be one that its client can.
            Err(_) => {}
        }
    }

    fn take(&mut self, number: Option<u64>, mut chunk: Chunk) {
        self.segments.take(chunk.seq.or(number), text_bytes(&chunk), tokio::time::Instant::now());
        if self.assembler.text_bytes() > MAX_STREAM_TEXT_BYTES {
            for delta in &mut chunk.deltas {
                (delta.text, delta.reasoning, delta.refusal) = (None, None, None);
                delta.tool_calls.clear();
            }
        }
        self.assembler.push(&chunk);
        self.further_chunks += usize::from(self.has_begun);
        if !self.has_begun && (self.has_text() || self.assembler.is_finished()) {
            self.has_begun = true;
            self.segments.answer_began();
        }
    }
}

/// Whether headers or trailers say that the stream failed.
fn says_failed(headers: &HeaderMap) -> bool {
    let state = headers.get(STREAM_STATE).and_then(|state| state.to_str().ok());
    state.is_some_and(|state| state.trim() == "failed")
}
