//! Any stream of chunks in a trace: bytes of a chunked response, server-sent events, chunks of your
//! own.

use std::collections::VecDeque;
use std::fmt::Display;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Poller, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use opentelemetry::Context;
use opentelemetry::trace::SpanContext;
use pin_project_lite::pin_project;
use throughline_llm::{Chunk, Delta, SseEvent};
use throughline_resilience::{Reorder, SegmentEnd};
use throughline_trace::{ErrorType, keys};
use tokio::time::Instant;

use super::StreamRules;
use super::numbers::SseNumbers;
use super::position::{StreamPosition, TracedChunk};
use super::spans::SegmentSpans;
use super::timer::Timer;
use crate::metrics::Outcome;
use crate::span::ActiveSpan;

/// What the trace of a stream needs to know of a chunk.
pub trait StreamChunk {
    /// Its number in the stream, if the wire carries one; else chunks are counted here.
    fn seq(&self, numbers: &mut SseNumbers) -> Option<u64> {
        let _ = numbers;
        None
    }

    /// Bytes of content that it brings.
    fn bytes(&self) -> u64;

    /// Whether it is the end mark of the stream (`[DONE]`).
    fn is_end_mark(&self) -> bool {
        false
    }

    /// Whether it says that the stream failed (`X-Stream-State: failed` as an event).
    fn is_failure(&self) -> bool {
        false
    }
}

impl StreamChunk for Bytes {
    fn bytes(&self) -> u64 {
        self.len() as u64
    }
}

impl StreamChunk for Vec<u8> {
    fn bytes(&self) -> u64 {
        self.len() as u64
    }
}

impl StreamChunk for String {
    fn bytes(&self) -> u64 {
        self.len() as u64
    }
}

impl StreamChunk for SseEvent {
    fn seq(&self, numbers: &mut SseNumbers) -> Option<u64> {
        numbers.read_event(self)
    }

    fn bytes(&self) -> u64 {
        self.data.len() as u64
    }

    fn is_end_mark(&self) -> bool {
        self.is_done()
    }

    fn is_failure(&self) -> bool {
        is_failed_state(self)
    }
}

impl StreamChunk for Chunk {
    fn seq(&self, _: &mut SseNumbers) -> Option<u64> {
        self.seq
    }

    fn bytes(&self) -> u64 {
        text_bytes(self)
    }
}

/// Whether an event of the stream says `X-Stream-State: failed`.
/// Whether an event says that the stream failed: `x-stream-state: failed`.
pub fn is_failed_state(event: &SseEvent) -> bool {
    event.event.eq_ignore_ascii_case("x-stream-state") && event.data.trim() == "failed"
}

/// Bytes of content that a chunk brings.
pub fn text_bytes(chunk: &Chunk) -> u64 {
    let bytes = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let calls =
        |delta: &Delta| -> usize { delta.tool_calls.iter().map(|call| call.arguments.len()).sum() };
    let sum: usize = chunk
        .deltas
        .iter()
        .map(|d| bytes(&d.text) + bytes(&d.reasoning) + bytes(&d.refusal) + calls(d))
        .sum();
    sum as u64
}

/// A stream of chunks with segments below the current span, from its first poll on: for anything
/// that is no chat model ([`Traced`](crate::Traced) does the same for those). Chunks come out with
/// their trace ([`TracedChunk`]).
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use futures_util::{StreamExt as _, stream};
/// use throughline::{Recorder, Telemetry, keys, span};
///
/// let recorder = Recorder::new();
/// let telemetry = Telemetry::builder().recorder(&recorder).build().expect("telemetry");
/// let work = async {
///     let lines = stream::iter(["a", "b"].map(|line| Ok::<_, std::io::Error>(line.to_owned())));
///     let call = span("GET /log").start();
///     let mut lines = throughline::stream::traced(lines).within(call);
///     while let Some(line) = lines.next().await {
///         let line = line.expect("a line");
///         println!("{} {}", line.seq(), *line);
///     }
/// };
/// telemetry.scope(work).await;
/// assert_eq!(
///     recorder.tree(&[keys::CHUNK_SEQ, keys::STREAM_CHUNKS]),
///     "GET /log throughline.stream.chunks=2\n  \
///        http.stream.init chunk_seq=0 throughline.stream.chunks=1\n  \
///        http.stream.segment chunk_seq=1 throughline.stream.chunks=1\n"
/// );
/// # });
/// # std::io::Result::Ok(())
/// ```
pub fn traced<S>(stream: S) -> TracedChunks<S>
where
    S: Stream,
    S::Item: Item,
{
    TracedChunks {
        inner: stream,
        ready: VecDeque::new(),
        broke: None,
        state: State {
            rules: StreamRules::default(),
            parent: Context::current(),
            stream_id: None,
            resumed: None,
            has_end_mark: false,
            call: None,
            began: Instant::now(),
            numbers: SseNumbers::new(),
            reorder: None,
            spans: None,
            timer: Timer::default(),
            is_over: false,
            is_ending: false,
        },
    }
}

/// An item of a stream that can be traced: a `Result` with a [`StreamChunk`].
pub trait Item: sealed::Sealed {
    /// The chunk.
    type Chunk: StreamChunk;
    /// What the stream breaks with.
    type Error: Display;

    /// The item as the result that it is.
    fn into_result(self) -> Result<Self::Chunk, Self::Error>;
}

impl<T: StreamChunk, E: Display> Item for Result<T, E> {
    type Chunk = T;
    type Error = E;

    fn into_result(self) -> Self {
        self
    }
}

mod sealed {
    pub trait Sealed {}
    impl<T, E> Sealed for Result<T, E> {}
}

pin_project! {
    /// A stream with its trace: made by [`traced`].
    #[must_use = "streams do nothing unless polled"]
    pub struct TracedChunks<S>
    where
        S: Stream,
        S::Item: Item,
    {
        #[pin]
        inner: S,
        // Chunks that are in order again.
        ready: VecDeque<(u64, <S::Item as Item>::Chunk)>,
        // What the stream broke with, to be told after them.
        broke: Option<<S::Item as Item>::Error>,
        state: State<<S::Item as Item>::Chunk>,
    }
}

struct State<T> {
    rules: StreamRules,
    parent: Context,
    stream_id: Option<Arc<str>>,
    resumed: Option<(StreamPosition, Option<SpanContext>)>,
    has_end_mark: bool,
    call: Option<ActiveSpan>,
    began: Instant,
    numbers: SseNumbers,
    reorder: Option<Reorder<T>>,
    spans: Option<SegmentSpans>,
    timer: Timer,
    is_over: bool,
    /// The end has come, and chunks before it wait to be read: it is over when they are.
    is_ending: bool,
}

impl<S> TracedChunks<S>
where
    S: Stream,
    S::Item: Item,
{
    /// The span of the call, which is then the parent of the segments, is owned by the stream and
    /// ends with it: with the totals, the time to the first chunk, and the outcome `ok`, `error` or,
    /// when the consumer goes away, `cancelled`.
    pub fn within(mut self, call: ActiveSpan) -> Self {
        self.state.parent = call.context();
        self.state.call = Some(call);
        self
    }

    /// Silence that ends a segment; 30 s when not said.
    pub fn idle_timeout(mut self, idle: Duration) -> Self {
        self.state.rules.segments.idle = idle;
        self
    }

    /// So many chunks in a row must be missing for a segment to have broken; 2 when not said.
    pub fn missing_chunks(mut self, missing: u64) -> Self {
        self.state.rules.segments.missing = missing;
        self
    }

    /// Holds up to so many numbered chunks back to put them in order; none when not said.
    pub fn reorder_window(mut self, chunks: usize) -> Self {
        self.state.rules.reorder_window = chunks;
        self
    }

    /// The id that the wire gives the stream (`X-Stream-Id`); else it gets one.
    pub fn stream_id(mut self, id: impl Into<Arc<str>>) -> Self {
        self.state.stream_id = Some(id.into());
        self
    }

    /// A stream that ends without its end mark was cut.
    pub fn expects_end_mark(mut self) -> Self {
        self.state.has_end_mark = true;
        self
    }

    /// The stream goes on where another broke off ([`StreamPosition::resume_headers`] asks for it):
    /// same `stream_id`, and numbers from there.
    pub fn resume_from(mut self, position: &StreamPosition) -> Self {
        if let Some(last_seq) = position.last_seq() {
            self.state.numbers = SseNumbers::resumed(last_seq);
        }
        self.state.resumed = Some((position.clone(), None));
        self
    }

    /// [`resume_from`](Self::resume_from) a stream that is still at hand: its last segment is the
    /// one that the new chain goes on from.
    pub fn resume_after<R>(self, earlier: &TracedChunks<R>) -> Self
    where
        R: Stream,
        R::Item: Item,
    {
        let Some(position) = earlier.position() else { return self };
        let previous = earlier.state.spans.as_ref().and_then(SegmentSpans::last_segment);
        let mut resumed = self.resume_from(&position);
        resumed.state.resumed = Some((position, previous));
        resumed
    }

    /// Where the stream is; `None` before the first poll.
    pub fn position(&self) -> Option<StreamPosition> {
        self.state.spans.as_ref().map(|spans| spans.position().clone())
    }
}

impl<S> Stream for TracedChunks<S>
where
    S: Stream,
    S::Item: Item,
{
    type Item = Result<TracedChunk<<S::Item as Item>::Chunk>, <S::Item as Item>::Error>;

    fn poll_next(self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.project();
        loop {
            if let Some((seq, chunk)) = this.ready.pop_front() {
                let chunk = this.state.hand_on(seq, chunk);
                if this.state.is_ending && this.ready.is_empty() {
                    this.state.finish();
                }
                return Poll::Ready(Some(Ok(chunk)));
            }
            if let Some(error) = this.broke.take() {
                return Poll::Ready(Some(Err(error)));
            }
            if this.state.is_over {
                return Poll::Ready(None);
            }
            this.state.begin();
            let polled = {
                let _attached = this.state.parent.clone().attach();
                this.inner.as_mut().poll_next(poller)
            };
            match polled {
                Poll::Pending => {
                    this.state.poll_idle(poller);
                    return Poll::Pending;
                }
                Poll::Ready(Some(item)) => match item.into_result() {
                    Ok(chunk) => this.state.take(chunk, this.ready),
                    Err(error) => {
                        this.state.flush(this.ready);
                        this.state.fail(&error.to_string());
                        *this.broke = Some(error);
                    }
                },
                Poll::Ready(None) => this.state.end(this.ready),
            }
        }
    }
}

impl<T: StreamChunk> State<T> {
    /// Opens the first segment, at the first poll.
    fn begin(&mut self) {
        if self.spans.is_some() {
            return;
        }
        let resumed = self.resumed.take();
        let resumed = resumed.as_ref().map(|(position, previous)| (position, previous.clone()));
        let last_seq = resumed.as_ref().and_then(|(position, _)| position.last_seq());
        let window = self.rules.reorder_window;
        self.reorder = (window > 0).then(|| Reorder::new(window, last_seq));
        let (policy, parent) = (self.rules.segments, self.parent.clone());
        let spans = SegmentSpans::begin(policy, self.stream_id.take(), parent, None, resumed);
        self.spans = Some(spans);
        self.began = Instant::now();
    }

    /// A chunk came: what is in order now goes to `ready`.
    fn take(&mut self, chunk: T, ready: &mut VecDeque<(u64, T)>) {
        let number = chunk.seq(&mut self.numbers);
        let (Some(number), Some(reorder)) = (number, &mut self.reorder) else {
            if chunk.is_end_mark() || chunk.is_failure() {
                self.flush(ready);
            }
            self.note(number, chunk, ready);
            return;
        };
        let mut next = reorder.push(number, chunk);
        while let Some((number, chunk)) = next {
            self.note(Some(number), chunk, ready);
            next = self.reorder.as_mut().and_then(Reorder::pop);
        }
    }

    /// Nothing more comes: what still waits for its turn is next.
    fn flush(&mut self, ready: &mut VecDeque<(u64, T)>) {
        while let Some((number, chunk)) = self.reorder.as_mut().and_then(Reorder::pop_first) {
            self.note(Some(number), chunk, ready);
        }
    }

    /// Puts a chunk into its segment.
    fn note(&mut self, number: Option<u64>, chunk: T, ready: &mut VecDeque<(u64, T)>) {
        // After its end mark a stream says nothing.
        let is_said_out = self.is_over || self.is_ending;
        let Some(spans) = self.spans.as_mut().filter(|_| !is_said_out) else { return };
        let is_first = spans.totals().chunks == 0;
        let seq = spans.take(number, chunk.bytes(), Instant::now());
        if is_first {
            spans.answer_began();
            if let Some(call) = &self.call {
                let secs = self.began.elapsed().as_secs_f64();
                call.set(keys::GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK, secs);
            }
        }
        if chunk.is_failure() {
            self.fail("the other side says that the stream failed");
        } else if chunk.is_end_mark() {
            self.is_ending = true;
        }
        ready.push_back((seq, chunk));
    }

    fn hand_on(&mut self, seq: u64, chunk: T) -> TracedChunk<T> {
        let position = match &self.spans {
            Some(spans) => spans.position().clone(),
            None => StreamPosition::new(Arc::from(""), 0, self.parent.clone()),
        };
        position.advance(seq.saturating_add(1));
        TracedChunk::new(chunk, seq, &position)
    }

    fn poll_idle(&mut self, poller: &mut Poller<'_>) {
        while let Some(spans) = &mut self.spans
            && let Some(at) = spans.idle_at()
            && self.timer.poll(at, poller)
        {
            spans.tick();
        }
    }

    /// The inner stream has ended.
    fn end(&mut self, ready: &mut VecDeque<(u64, T)>) {
        self.flush(ready);
        if self.is_over || self.is_ending {
            return;
        }
        if self.has_end_mark {
            self.fail("the stream broke off before its end mark");
        } else if ready.is_empty() {
            self.finish();
        } else {
            self.is_ending = true;
        }
    }

    fn finish(&mut self) {
        self.close(Outcome::Ok, |spans| spans.end(SegmentEnd::Done));
    }

    fn fail(&mut self, message: &str) {
        if let (false, Some(call)) = (self.is_over, &self.call) {
            call.fail(ErrorType::StreamFailed, message);
        }
        self.close(Outcome::Error, |spans| spans.fail(ErrorType::StreamFailed, message));
    }
}

impl<T> State<T> {
    fn close(&mut self, outcome: Outcome, end: impl FnOnce(&mut SegmentSpans)) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        let Some(spans) = &mut self.spans else { return };
        end(spans);
        if let Some(call) = self.call.take() {
            let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            let totals = spans.totals();
            call.set(keys::STREAM_CHUNKS, count(totals.chunks));
            call.set(keys::STREAM_BYTES, count(totals.bytes));
            call.outcome(outcome);
        }
    }
}

impl<T> Drop for State<T> {
    fn drop(&mut self) {
        self.close(Outcome::Cancelled, |spans| spans.end(SegmentEnd::Cancelled));
        if let Some(call) = self.call.take() {
            call.outcome(Outcome::Cancelled);
        }
    }
}
