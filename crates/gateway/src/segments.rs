//! The spans of a stream's segments (requirement R3.2), as the machine of `resilience` says.

use std::sync::Arc;

use throughline::telling::spoken;
use throughline_resilience::{
    Moment, SegmentEnd, SegmentEvent, SegmentPolicy, SegmentStep, Segments,
};
use throughline_trace::{ErrorType, SpanId, SpanKind, SpanRole, keys};
use tokio::time::Instant;

use crate::trail::{OpenSpan, Stamp, Trail, count};

/// The segments of one streamed answer: `http.stream.init` up to its first content, then
/// `http.stream.segment`s, each linked to the one before. Dropped before its end, it was cancelled.
#[derive(Debug)]
pub(crate) struct SegmentSpans {
    machine: Segments,
    trail: Arc<Trail>,
    parent: SpanId,
    stamp: Stamp,
    stream_id: String,
    open: Option<OpenSpan>,
    previous: Option<SpanId>,
    origin: Instant,
    /// When the attempt is dropped for its time.
    deadline: Option<Instant>,
}

impl SegmentSpans {
    /// A stream whose answer has begun, below the span of its attempt.
    pub(crate) fn begin(
        trail: &Arc<Trail>,
        parent: SpanId,
        stamp: Stamp,
        deadline: Option<Instant>,
    ) -> Self {
        let (machine, first) = Segments::begin(SegmentPolicy::default(), Moment::ZERO);
        let mut spans = Self {
            machine,
            trail: Arc::clone(trail),
            parent,
            stamp,
            stream_id: uuid::Uuid::new_v4().to_string(),
            open: None,
            previous: None,
            origin: Instant::now(),
            deadline,
        };
        spans.apply([Some(first), None, None], None);
        spans
    }

    /// A chunk has come.
    pub(crate) fn chunk(&mut self, seq: Option<u64>, bytes: u64) {
        let expected = self.machine.next_seq();
        let steps = self.machine.on(SegmentEvent::Chunk { seq, bytes }, self.now());
        if steps != [None; 3] {
            let got = self.machine.next_seq().saturating_sub(1);
            let message = format!("expected chunk {expected} of the stream, got {got}");
            self.apply(steps, Some((ErrorType::StreamFailed, &message, false)));
        }
    }

    /// The first content has come.
    pub(crate) fn answer_began(&mut self) {
        self.deadline = None;
        let steps = self.machine.on(SegmentEvent::FirstToken, self.now());
        self.apply(steps, None);
    }

    /// When silence ends the open segment.
    pub(crate) fn idle_at(&self) -> Option<Instant> {
        self.machine.idle_at().and_then(|at| self.origin.checked_add(at.since_origin()))
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self) {
        let steps = self.machine.on(SegmentEvent::Tick, self.now());
        self.apply(steps, None);
    }

    /// The stream is over, and did not break.
    pub(crate) fn end(&mut self, end: SegmentEnd) {
        let steps = self.machine.on(SegmentEvent::Over(end), self.now());
        self.apply(steps, None);
    }

    /// The stream broke.
    pub(crate) fn fail(&mut self, kind: ErrorType, message: &str) {
        let steps = self.machine.on(SegmentEvent::Over(SegmentEnd::Failed), self.now());
        self.apply(steps, Some((kind, message, true)));
    }

    fn apply(&mut self, steps: [Option<SegmentStep>; 3], broken: Option<(ErrorType, &str, bool)>) {
        for step in steps.into_iter().flatten() {
            match step {
                SegmentStep::Open { is_init, seq } => self.open(is_init, seq),
                SegmentStep::Close { end, chunks, bytes } => self.close(end, chunks, bytes, broken),
            }
        }
    }

    fn open(&mut self, is_init: bool, seq: u64) {
        let name = if is_init { "http.stream.init" } else { "http.stream.segment" };
        let mut span = self.trail.span(
            name.to_owned(),
            SpanKind::Internal,
            SpanRole::StreamSegment,
            Some(self.parent),
        );
        span.set(keys::STREAM_ID, self.stream_id.as_str());
        span.set(keys::CHUNK_SEQ, count(seq));
        span.stamp(&self.stamp);
        if let Some(previous) = self.previous {
            span.link(previous);
        }
        self.open = Some(span);
    }

    fn close(
        &mut self,
        end: SegmentEnd,
        chunks: u64,
        bytes: u64,
        broken: Option<(ErrorType, &str, bool)>,
    ) {
        let Some(mut span) = self.open.take() else { return };
        span.set(keys::STREAM_END, end.as_str());
        span.set(keys::STREAM_CHUNKS, count(chunks));
        span.set(keys::STREAM_BYTES, count(bytes));
        if let (true, Some((kind, message, is_exception))) = (end.is_error(), broken) {
            if is_exception {
                let told = vec![
                    (keys::EXCEPTION_TYPE, kind.as_str().into()),
                    (keys::EXCEPTION_MESSAGE, message.into()),
                ];
                span.event("exception", told);
            }
            span.set(keys::ERROR, true);
            span.fail(kind, message);
        }
        self.previous = Some(span.id());
    }

    fn now(&self) -> Moment {
        Moment::from_origin(self.origin.elapsed())
    }
}

impl Drop for SegmentSpans {
    fn drop(&mut self) {
        if self.machine.is_over() {
            return;
        }
        if self.deadline.is_some_and(|at| Instant::now() >= at) {
            let message = format!("no answer within {}", spoken(self.origin.elapsed()));
            self.fail(ErrorType::Timeout, &message);
        } else {
            self.end(SegmentEnd::Cancelled);
        }
    }
}
