//! The spans of a stream's segments: what the machine says, done. The guard that holds it ends the
//! open segment whatever becomes of the stream.

use std::sync::Arc;

use opentelemetry::trace::SpanContext;
use opentelemetry::{Context, KeyValue, StringValue};
use throughline_resilience::{
    Moment, SegmentEnd, SegmentEvent, SegmentPolicy, SegmentStep, SegmentSteps, Segments,
    StreamTotals,
};
use throughline_trace::{ErrorType, SpanRole, keys};
use tokio::time::Instant;

use super::position::StreamPosition;
use crate::resilient::run::TimeoutNote;
use crate::span::{ActiveSpan, span};

/// The segments of one stream: `http.stream.init` from the first byte of the answer to its first
/// token, then `http.stream.segment`s, each linked to the one before.
#[derive(Debug)]
pub(crate) struct SegmentSpans {
    machine: Segments,
    position: StreamPosition,
    parent: Context,
    open: Option<ActiveSpan>,
    previous: Option<SpanContext>,
    origin: Instant,
    /// Why the attempt is dropped, should it be.
    timeout_note: Option<TimeoutNote>,
}

/// What a segment broke with.
struct Broken<'a> {
    error_type: ErrorType,
    message: &'a str,
    is_exception: bool,
}

impl SegmentSpans {
    /// A stream that has been opened below `parent`; going on after another one, if one is given.
    pub(crate) fn begin(
        policy: SegmentPolicy,
        stream_id: Option<Arc<str>>,
        parent: Context,
        timeout_note: Option<TimeoutNote>,
        resumed: Option<(&StreamPosition, Option<SpanContext>)>,
    ) -> Self {
        let last_seq = resumed.as_ref().and_then(|(position, _)| position.last_seq());
        let (machine, first) = Segments::resume(policy, last_seq, Moment::ZERO);
        let stream_id = stream_id
            .or_else(|| resumed.as_ref().map(|(position, _)| position.shared_id()))
            .unwrap_or_else(|| Arc::from(uuid::Uuid::new_v4().to_string()));
        let next_seq = last_seq.map_or(0, |last| last + 1);
        let position = StreamPosition::new(stream_id, next_seq, parent.clone());
        let previous = resumed.and_then(|(_, previous)| previous);
        let origin = Instant::now();
        let mut spans =
            Self { machine, position, parent, open: None, previous, origin, timeout_note };
        spans.apply([Some(first), None, None], None);
        spans
    }

    pub(crate) fn position(&self) -> &StreamPosition {
        &self.position
    }

    pub(crate) fn parent(&self) -> &Context {
        &self.parent
    }

    pub(crate) fn totals(&self) -> StreamTotals {
        self.machine.totals()
    }

    /// The segment that is open or was last, for the chain to go on from.
    pub(crate) fn last_segment(&self) -> Option<SpanContext> {
        let open = self.open.as_ref().map(ActiveSpan::span_context);
        open.or_else(|| self.previous.clone())
    }

    /// A chunk has come, at this time; its number.
    pub(crate) fn take(&mut self, seq: Option<u64>, bytes: u64, at: Instant) -> u64 {
        let expected = self.machine.next_seq();
        let steps = self.machine.on(SegmentEvent::Chunk { seq, bytes }, self.moment(at));
        let number = self.machine.next_seq().saturating_sub(1);
        if steps != [None; 3] {
            self.apply_chunk(steps, expected, number);
        }
        number
    }

    /// The first token has come: what waited for it ends here.
    pub(crate) fn answer_began(&mut self) {
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

    /// The stream broke. The segment says so; without an open one, one is made that does.
    pub(crate) fn fail(&mut self, error_type: ErrorType, message: &str) {
        let steps = self.machine.on(SegmentEvent::Over(SegmentEnd::Failed), self.now());
        self.apply(steps, Some(Broken { error_type, message, is_exception: true }));
    }

    /// The stream was cut, and may go on in another segment. This one says that it broke.
    pub(crate) fn cut(&mut self, error_type: ErrorType, message: &str) {
        let steps = self.machine.on(SegmentEvent::Cut, self.now());
        self.apply(steps, Some(Broken { error_type, message, is_exception: true }));
    }

    #[cold]
    fn apply_chunk(&mut self, steps: SegmentSteps, expected: u64, number: u64) {
        let message = format!("expected chunk {expected} of the stream, got {number}");
        let error_type = ErrorType::StreamFailed;
        self.apply(steps, Some(Broken { error_type, message: &message, is_exception: false }));
    }

    fn apply(&mut self, steps: SegmentSteps, broken: Option<Broken<'_>>) {
        for step in steps.into_iter().flatten() {
            match step {
                SegmentStep::Open { is_init, seq } => self.open(is_init, seq),
                SegmentStep::Close { end, chunks, bytes } => {
                    self.close(end, chunks, bytes, broken.as_ref());
                }
            }
        }
    }

    fn open(&mut self, is_init: bool, seq: u64) {
        let name = if is_init { "http.stream.init" } else { "http.stream.segment" };
        let mut builder = span(name)
            .role(SpanRole::StreamSegment)
            .attribute(keys::STREAM_ID, StringValue::from(self.position.shared_id()))
            .attribute(keys::CHUNK_SEQ, count(seq))
            .parent(self.parent.clone());
        if let Some(previous) = &self.previous {
            builder = builder.link(previous, Vec::new());
        }
        self.open = Some(builder.start());
    }

    fn close(&mut self, end: SegmentEnd, chunks: u64, bytes: u64, broken: Option<&Broken<'_>>) {
        let Some(segment) = self.open.take() else { return };
        segment.set(keys::STREAM_END, end.as_str());
        segment.set(keys::STREAM_CHUNKS, count(chunks));
        segment.set(keys::STREAM_BYTES, count(bytes));
        if let (true, Some(broken)) = (end.is_error(), broken) {
            if broken.is_exception {
                segment.event(
                    "exception",
                    [
                        KeyValue::new(keys::EXCEPTION_TYPE, broken.error_type.as_str()),
                        KeyValue::new(keys::EXCEPTION_MESSAGE, broken.message.to_owned()),
                    ],
                );
            }
            segment.set(keys::ERROR, true);
            segment.fail(broken.error_type, broken.message);
        }
        self.previous = Some(segment.span_context());
    }

    fn now(&self) -> Moment {
        self.moment(Instant::now())
    }

    fn moment(&self, at: Instant) -> Moment {
        Moment::from_origin(at.saturating_duration_since(self.origin))
    }
}

impl Drop for SegmentSpans {
    fn drop(&mut self) {
        if self.machine.is_over() {
            return;
        }
        match self.timeout_note.as_ref().and_then(TimeoutNote::read) {
            Some(message) if self.open.is_some() => self.fail(ErrorType::Timeout, &message),
            _ => self.end(SegmentEnd::Cancelled),
        }
    }
}

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
