//! The streamed answer of a model: the stream that keeps its segments, the attempt and the call
//! until the last chunk.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context as Poller, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use opentelemetry::Context;
use throughline_llm::{Assembler, Chunk};
use throughline_resilience::{GiveUp, Next, SegmentEnd, SegmentPolicy, Verdict};
use throughline_trace::ErrorType;
use tokio::time::Instant;

use super::any::text_bytes;
use super::position::StreamPosition;
use super::spans::SegmentSpans;
use super::timer::Timer;
use super::{DEFAULT_MISSING_CHUNKS, SEGMENT_MAX_AGE};
use crate::call::Call;
use crate::chat::{ChatError, ChatStream};
use crate::resilient::run::{Run, TimeoutNote, report_of};
use crate::resilient::spoken;

/// A stream that has brought its first token.
pub(crate) struct Opened {
    pub(crate) stream: ChatStream,
    /// What came so far, up to the first token.
    chunks: VecDeque<Chunk>,
    segments: SegmentSpans,
    assembler: Assembler,
    /// The provider has ended the stream already.
    is_ended: bool,
}

impl Opened {
    /// Reads up to the first chunk that adds something, or that ends the answer.
    pub(crate) async fn read(
        mut stream: ChatStream,
        idle: Duration,
        timeout_note: TimeoutNote,
    ) -> Result<Self, ChatError> {
        let policy =
            SegmentPolicy { idle, max_age: SEGMENT_MAX_AGE, missing: DEFAULT_MISSING_CHUNKS };
        let (parent, stream_id) = (Context::current(), stream.wire_id());
        let mut segments = SegmentSpans::begin(policy, stream_id, parent, Some(timeout_note), None);
        let mut assembler = Assembler::new();
        let mut chunks = VecDeque::new();
        let mut is_ended = false;
        while !is_ended && assembler.text_bytes() == 0 && !assembler.is_finished() {
            match stream.next().await {
                Some(Ok(mut chunk)) => {
                    chunk.seq = Some(segments.take(chunk.seq, text_bytes(&chunk)));
                    assembler.push(&chunk);
                    chunks.push_back(chunk);
                }
                Some(Err(error)) => {
                    segments.fail(error.error_type, &error.message);
                    return Err(error);
                }
                None if chunks.is_empty() => {
                    let message = "the stream ended before its first chunk";
                    let mut error = ChatError::new(ErrorType::StreamFailed, message);
                    error.status_code = stream.status_code();
                    segments.fail(error.error_type, &error.message);
                    return Err(error);
                }
                None => is_ended = true,
            }
        }
        segments.answer_began();
        Ok(Self { stream, chunks, segments, assembler, is_ended })
    }
}

/// The stream that a caller of [`Traced`](crate::Traced) reads: it passes chunks on and keeps the
/// trace of them. Dropped before its end, it ends the spans with what had come and the outcome
/// `cancelled`; but a reader that has read why the answer ended has read it all, and need not wait
/// for the end mark.
pub(crate) struct TracedStream {
    /// `None` once the stream is over.
    live: Option<Box<Live>>,
    waiting: VecDeque<Chunk>,
    position: StreamPosition,
    timer: Timer,
    /// When the whole operation must be over.
    deadline: Option<Instant>,
}

struct Live {
    stream: ChatStream,
    is_ended: bool,
    segments: SegmentSpans,
    assembler: Assembler,
    run: Run,
    call: Call,
}

impl TracedStream {
    pub(crate) fn new(opened: Opened, mut run: Run, call: Call) -> Self {
        let deadline = run.deadline();
        let Opened { stream, chunks, segments, assembler, is_ended } = opened;
        let position = segments.position().clone();
        Self {
            live: Some(Box::new(Live { stream, is_ended, segments, assembler, run, call })),
            waiting: chunks,
            position,
            timer: Timer::default(),
            deadline,
        }
    }

    /// Where the stream is.
    pub(crate) fn position(&self) -> &StreamPosition {
        &self.position
    }

    fn hand_on(&self, chunk: Chunk) -> Poll<Option<Result<Chunk, ChatError>>> {
        self.position.advance(chunk.seq.map_or(0, |seq| seq.saturating_add(1)));
        Poll::Ready(Some(Ok(chunk)))
    }

    fn poll_limits(&mut self, poller: &mut Poller<'_>) -> Poll<Option<Result<Chunk, ChatError>>> {
        loop {
            let Some(live) = &mut self.live else { return Poll::Pending };
            let limits = [live.segments.idle_at(), self.deadline];
            let Some(at) = limits.into_iter().flatten().min() else { return Poll::Pending };
            if !self.timer.poll(at, poller) {
                return Poll::Pending;
            }
            live.segments.tick();
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
                && let Some(live) = self.live.take()
            {
                return Poll::Ready(Some(Err(live.time_out())));
            }
        }
    }
}

impl Stream for TracedStream {
    type Item = Result<Chunk, ChatError>;

    fn poll_next(self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(chunk) = this.waiting.pop_front() {
            return this.hand_on(chunk);
        }
        let Some(live) = &mut this.live else { return Poll::Ready(None) };
        let polled = if live.is_ended { Poll::Ready(None) } else { live.poll(poller) };
        match polled {
            Poll::Pending => this.poll_limits(poller),
            Poll::Ready(Some(Ok(mut chunk))) => {
                chunk.seq = Some(live.segments.take(chunk.seq, text_bytes(&chunk)));
                live.assembler.push(&chunk);
                live.call.chunk_came();
                this.hand_on(chunk)
            }
            Poll::Ready(Some(Err(error))) => {
                if let Some(live) = this.live.take() {
                    live.fail(&error);
                }
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => {
                if let Some(live) = this.live.take() {
                    live.finish();
                }
                Poll::Ready(None)
            }
        }
    }
}

impl Drop for TracedStream {
    fn drop(&mut self) {
        let Some(live) = self.live.take() else { return };
        if self.waiting.is_empty() && live.assembler.is_finished() {
            live.finish();
        } else {
            live.cancel();
        }
    }
}

impl Live {
    /// The provider's stream, polled in the context of its attempt.
    fn poll(&mut self, poller: &mut Poller<'_>) -> Poll<Option<Result<Chunk, ChatError>>> {
        let _attached = self.segments.parent().clone().attach();
        Pin::new(&mut self.stream).poll_next(poller)
    }

    fn finish(mut self: Box<Self>) {
        self.segments.end(SegmentEnd::Done);
        let Self { stream, segments, assembler, mut run, call, .. } = *self;
        let status_code = stream.status_code();
        drop_within(&segments, stream);
        run.succeed(status_code);
        let mut response = assembler.response();
        response.status_code = status_code;
        call.succeed(&response);
    }

    fn fail(mut self: Box<Self>, error: &ChatError) {
        self.segments.fail(error.error_type, &error.message);
        let reason = reason_of(self.run.fail(&report_of(error)));
        self.end_partial(|call| call.fail(error, reason));
    }

    fn time_out(mut self: Box<Self>) -> ChatError {
        self.segments.end(SegmentEnd::Timeout);
        let began = self.call.began();
        let reason = reason_of(self.run.time_out());
        let (asked, after) = (self.call.asked(), spoken(began.elapsed()));
        let message = format!("the answer of {asked} was not complete within {after}");
        let error = ChatError::new(ErrorType::Timeout, message);
        self.end_partial(|call| call.fail(&error, reason));
        error
    }

    fn cancel(mut self: Box<Self>) {
        self.segments.end(SegmentEnd::Cancelled);
        self.end_partial(Call::cancel);
    }

    /// Ends the call with what has come of the answer.
    fn end_partial(self: Box<Self>, end: impl FnOnce(Call)) {
        let Self { stream, segments, assembler, run, mut call, .. } = *self;
        let status_code = stream.status_code();
        drop_within(&segments, stream);
        drop(segments);
        drop(run);
        let mut response = assembler.response();
        response.status_code = status_code;
        call.tell(&response);
        end(call);
    }
}

/// Drops the stream: what the provider's client writes meanwhile belongs to its attempt.
fn drop_within(segments: &SegmentSpans, stream: ChatStream) {
    let _attached = segments.parent().clone().attach();
    drop(stream);
}

/// Why the machine made no further attempt.
fn reason_of(next: Next) -> Option<GiveUp> {
    match next {
        Next::Done(Verdict::Failed { reason, .. }) => Some(reason),
        _ => None,
    }
}
