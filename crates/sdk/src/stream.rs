//! Streamed answers in a trace (requirement R3.2, first cut): the segments below the call's span,
//! and the stream that keeps them, the attempt and the call until the last chunk.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context as Poller, Poll};
use std::time::Duration;

use futures_util::Stream;
use opentelemetry::trace::SpanContext;
use opentelemetry::{Context, KeyValue};
use throughline_llm::{Assembler, Chunk};
use throughline_resilience::{GiveUp, Next, Verdict};
use throughline_trace::{ErrorType, SpanRole, keys};
use tokio::time::{Instant, Sleep};

use crate::chat::{ChatError, ChatStream};
use crate::resilient::run::{Run, TimeoutNote, report_of};
use crate::resilient::spoken;
use crate::span::{ActiveSpan, span};
use crate::traced::Call;

/// A stream that brings nothing for this long ends its segment; the next chunk begins another.
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// A segment of this age ends and is followed by another, so that a long answer is seen before it
/// ends: spans are exported when they end.
const SEGMENT_MAX_AGE: Duration = Duration::from_secs(10);

/// Why a segment ended, as `throughline.stream.end` says it.
#[derive(Debug, Clone, Copy)]
enum End {
    FirstToken,
    Done,
    Idle,
    Rotated,
    Cancelled,
    Timeout,
}

impl End {
    fn as_str(self) -> &'static str {
        match self {
            Self::FirstToken => "first_token",
            Self::Done => "done",
            Self::Idle => "idle",
            Self::Rotated => "rotated",
            Self::Cancelled => "cancelled",
            Self::Timeout => "timeout",
        }
    }
}

/// The segments of one stream: `http.stream.init` from the first byte of the answer to its first
/// token, then `http.stream.segment`s, each linked to the one before.
#[derive(Debug)]
pub(crate) struct Segments {
    stream_id: String,
    parent: Context,
    next_seq: u64,
    open: Option<Segment>,
    previous: Option<SpanContext>,
    /// Why the attempt is dropped, should it be.
    timeout_note: TimeoutNote,
}

#[derive(Debug)]
struct Segment {
    span: ActiveSpan,
    began: Instant,
    chunks: u64,
    bytes: u64,
}

impl Segments {
    /// The stream has been opened within the current context.
    pub(crate) fn begin(timeout_note: TimeoutNote) -> Self {
        let mut segments = Self {
            stream_id: uuid::Uuid::new_v4().to_string(),
            parent: Context::current(),
            next_seq: 0,
            open: None,
            previous: None,
            timeout_note,
        };
        segments.open("http.stream.init");
        segments
    }

    /// A chunk has come.
    pub(crate) fn take(&mut self, chunk: &Chunk) {
        if self.open.as_ref().is_some_and(|segment| segment.began.elapsed() > SEGMENT_MAX_AGE)
            && self.previous.is_some()
        {
            self.end(End::Rotated);
        }
        if self.open.is_none() {
            self.open("http.stream.segment");
        }
        self.next_seq += 1;
        if let Some(segment) = &mut self.open {
            segment.chunks += 1;
            segment.bytes += text_bytes(chunk);
        }
    }

    /// The first token has come: what waited for it ends here.
    pub(crate) fn answer_began(&mut self) {
        self.end(End::FirstToken);
    }

    /// The stream broke. The segment says so; without an open one, one is made that does.
    pub(crate) fn fail(&mut self, error: &ChatError) {
        if self.open.is_none() {
            self.open("http.stream.segment");
        }
        let Some(segment) = self.open.take() else { return };
        segment.span.event(
            "exception",
            [
                KeyValue::new(keys::EXCEPTION_TYPE, error.error_type.as_str()),
                KeyValue::new(keys::EXCEPTION_MESSAGE, error.message.clone()),
            ],
        );
        segment.span.set(keys::ERROR, true);
        segment.span.set(keys::STREAM_END, "failed");
        segment.span.fail(error.error_type, error.message.clone());
        self.close(segment);
    }

    /// Drops the stream: what the provider's client writes meanwhile belongs to its attempt.
    fn drop_within(&self, stream: ChatStream) {
        let _attached = self.parent.clone().attach();
        drop(stream);
    }

    fn open(&mut self, name: &'static str) {
        let mut builder = span(name)
            .role(SpanRole::StreamSegment)
            .attribute(keys::STREAM_ID, self.stream_id.clone())
            .attribute(keys::CHUNK_SEQ, i64::try_from(self.next_seq).unwrap_or(i64::MAX))
            .parent(self.parent.clone());
        if let Some(previous) = &self.previous {
            builder = builder.link(previous, Vec::new());
        }
        let span = builder.start();
        self.open = Some(Segment { span, began: Instant::now(), chunks: 0, bytes: 0 });
    }

    fn end(&mut self, end: End) {
        if let Some(segment) = self.open.take() {
            segment.span.set(keys::STREAM_END, end.as_str());
            self.close(segment);
        }
    }

    fn close(&mut self, segment: Segment) {
        let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        segment.span.set(keys::STREAM_CHUNKS, count(segment.chunks));
        segment.span.set(keys::STREAM_BYTES, count(segment.bytes));
        self.previous = Some(segment.span.span_context());
    }
}

impl Drop for Segments {
    fn drop(&mut self) {
        if self.open.is_none() {
            return;
        }
        match self.timeout_note.read() {
            Some(message) => self.fail(&ChatError::new(ErrorType::Timeout, message)),
            None => self.end(End::Cancelled),
        }
    }
}

fn text_bytes(chunk: &Chunk) -> u64 {
    let bytes = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let calls = |delta: &throughline_llm::Delta| -> usize {
        delta.tool_calls.iter().map(|call| call.arguments.len()).sum()
    };
    let sum: usize = chunk
        .deltas
        .iter()
        .map(|d| bytes(&d.text) + bytes(&d.reasoning) + bytes(&d.refusal) + calls(d))
        .sum();
    sum as u64
}

/// A stream that has brought its first token.
pub(crate) struct Opened {
    pub(crate) stream: ChatStream,
    /// What came so far, up to the first token.
    pub(crate) chunks: VecDeque<Chunk>,
    pub(crate) segments: Segments,
    pub(crate) assembler: Assembler,
    /// The provider has ended the stream already.
    pub(crate) is_ended: bool,
}

impl Opened {
    /// Reads up to the first chunk that adds something, or that ends the answer.
    pub(crate) async fn read(
        mut stream: ChatStream,
        timeout_note: TimeoutNote,
    ) -> Result<Self, ChatError> {
        use futures_util::StreamExt as _;
        let mut segments = Segments::begin(timeout_note);
        let mut assembler = Assembler::new();
        let mut chunks = VecDeque::new();
        let mut is_ended = false;
        while !is_ended && assembler.text_bytes() == 0 && !assembler.is_finished() {
            match stream.next().await {
                Some(Ok(chunk)) => {
                    segments.take(&chunk);
                    assembler.push(&chunk);
                    chunks.push_back(chunk);
                }
                Some(Err(error)) => {
                    segments.fail(&error);
                    return Err(error);
                }
                None if chunks.is_empty() => {
                    let message = "the stream ended before its first chunk";
                    let mut error = ChatError::new(ErrorType::StreamFailed, message);
                    error.status_code = stream.status_code();
                    segments.fail(&error);
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
    live: Option<Live>,
    waiting: VecDeque<Chunk>,
    idle: Pin<Box<Sleep>>,
    idle_timeout: Duration,
    /// When the whole operation must be over.
    deadline: Option<Pin<Box<Sleep>>>,
}

struct Live {
    stream: ChatStream,
    is_ended: bool,
    segments: Segments,
    assembler: Assembler,
    run: Run,
    call: Call,
}

impl TracedStream {
    pub(crate) fn new(opened: Opened, mut run: Run, call: Call, idle_timeout: Duration) -> Self {
        let deadline = run.deadline().map(|at| Box::pin(tokio::time::sleep_until(at)));
        let Opened { stream, chunks, segments, assembler, is_ended } = opened;
        Self {
            live: Some(Live { stream, is_ended, segments, assembler, run, call }),
            waiting: chunks,
            idle: Box::pin(tokio::time::sleep(idle_timeout)),
            idle_timeout,
            deadline,
        }
    }

    fn poll_limits(&mut self, poller: &mut Poller<'_>) -> Poll<Option<Result<Chunk, ChatError>>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(poller).is_ready()
            && let Some(live) = self.live.take()
        {
            return Poll::Ready(Some(Err(live.time_out())));
        }
        if let Some(live) = &mut self.live
            && live.segments.open.is_some()
            && self.idle.as_mut().poll(poller).is_ready()
        {
            live.segments.end(End::Idle);
        }
        Poll::Pending
    }
}

impl Stream for TracedStream {
    type Item = Result<Chunk, ChatError>;

    fn poll_next(self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(chunk) = this.waiting.pop_front() {
            return Poll::Ready(Some(Ok(chunk)));
        }
        let Some(live) = &mut this.live else { return Poll::Ready(None) };
        let polled = if live.is_ended { Poll::Ready(None) } else { live.poll(poller) };
        match polled {
            Poll::Pending => this.poll_limits(poller),
            Poll::Ready(Some(Ok(chunk))) => {
                live.segments.take(&chunk);
                live.assembler.push(&chunk);
                this.idle.as_mut().reset(Instant::now() + this.idle_timeout);
                Poll::Ready(Some(Ok(chunk)))
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
        let _attached = self.segments.parent.clone().attach();
        Pin::new(&mut self.stream).poll_next(poller)
    }

    fn finish(mut self) {
        self.segments.end(End::Done);
        let Self { stream, segments, assembler, mut run, call, .. } = self;
        let status_code = stream.status_code();
        segments.drop_within(stream);
        run.succeed(status_code);
        let mut response = assembler.response();
        response.status_code = status_code;
        call.succeed(&response);
    }

    fn fail(mut self, error: &ChatError) {
        self.segments.fail(error);
        let reason = reason_of(self.run.fail(&report_of(error)));
        self.end_partial(|call| call.fail(error, reason));
    }

    fn time_out(mut self) -> ChatError {
        self.segments.end(End::Timeout);
        let began = self.call.began();
        let reason = reason_of(self.run.time_out());
        let (asked, after) = (self.call.asked(), spoken(began.elapsed()));
        let message = format!("the answer of {asked} was not complete within {after}");
        let error = ChatError::new(ErrorType::Timeout, message);
        self.end_partial(|call| call.fail(&error, reason));
        error
    }

    fn cancel(mut self) {
        self.segments.end(End::Cancelled);
        self.end_partial(Call::cancel);
    }

    /// Ends the call with what has come of the answer.
    fn end_partial(self, end: impl FnOnce(Call)) {
        let Self { stream, segments, assembler, run, mut call, .. } = self;
        let status_code = stream.status_code();
        segments.drop_within(stream);
        drop(segments);
        drop(run);
        let mut response = assembler.response();
        response.status_code = status_code;
        call.tell(&response);
        end(call);
    }
}

/// Why the machine made no further attempt.
fn reason_of(next: Next) -> Option<GiveUp> {
    match next {
        Next::Done(Verdict::Failed { reason, .. }) => Some(reason),
        _ => None,
    }
}
