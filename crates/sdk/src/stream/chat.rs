//! The streamed answer of a model: the stream that keeps its segments, the attempt and the call
//! until the last chunk.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context as Poller, Poll, ready};

use futures_util::{Stream, StreamExt as _};
use opentelemetry::Context;
use throughline_llm::Chunk;
use throughline_resilience::{GiveUp, Next, SegmentEnd, Verdict};
use throughline_trace::ErrorType;
use tokio::time::Instant;

use super::StreamRules;
use super::cut::{Cut, Resuming};
use super::intake::Intake;
use super::position::StreamPosition;
use super::spans::SegmentSpans;
use super::timer::Timer;
use crate::call::Call;
use crate::chat::{ChatError, ChatStream};
use crate::resilient::run::{Run, TimeoutNote, report_of};
use crate::resilient::spoken;

/// A stream that has brought its first token.
pub(crate) struct Opened {
    pub(crate) stream: ChatStream,
    /// What came so far, up to the first token.
    chunks: VecDeque<Chunk>,
    intake: Intake,
    /// The provider has ended the stream already.
    is_ended: bool,
}

impl Opened {
    /// Reads up to the first chunk that adds something, or that ends the answer.
    pub(crate) async fn read(
        mut stream: ChatStream,
        rules: StreamRules,
        timeout_note: TimeoutNote,
    ) -> Result<Self, ChatError> {
        let (parent, stream_id) = (Context::current(), stream.wire_id());
        let note = Some(timeout_note);
        let segments = SegmentSpans::begin(rules.segments, stream_id, parent, note, None);
        let mut intake = Intake::new(rules, segments);
        let mut chunks = VecDeque::new();
        let mut is_ended = false;
        while !is_ended && !intake.has_begun() {
            match stream.next().await {
                Some(Ok(mut chunk)) => {
                    let now = Instant::now();
                    if intake.passes(&mut chunk, now) {
                        chunks.push_back(chunk);
                    } else {
                        intake.keep(chunk, now, &mut chunks);
                    }
                }
                Some(Err(error)) => {
                    intake.segments.fail(error.error_type, &error.message);
                    return Err(error);
                }
                None => {
                    intake.rest(&mut chunks);
                    is_ended = true;
                    if !chunks.is_empty() {
                        continue;
                    }
                    let message = "the stream ended before its first chunk";
                    let mut error = ChatError::new(ErrorType::StreamFailed, message);
                    error.status_code = stream.status_code();
                    intake.segments.fail(error.error_type, &error.message);
                    return Err(error);
                }
            }
        }
        intake.segments.answer_began();
        Ok(Self { stream, chunks, intake, is_ended })
    }
}

/// The stream that a caller of [`Traced`](crate::Traced) reads: it passes chunks on and keeps the
/// trace of them. Dropped before its end, it ends the spans with what had come and the outcome
/// `cancelled`; but a reader that has read why the answer ended has read it all, and need not wait
/// for the end mark.
pub(crate) struct TracedStream {
    /// `None` once the stream is over.
    live: Option<Box<Live>>,
    /// Chunks that have come and not been read.
    waiting: VecDeque<Chunk>,
    /// What the stream broke with, to be told after them.
    broke: Option<Box<ChatError>>,
    position: StreamPosition,
    /// One more than the number of the last chunk that was read here.
    next_seq: u64,
    timer: Timer,
    /// When the whole operation must be over.
    deadline: Option<Instant>,
}

struct Live {
    stream: ChatStream,
    is_ended: bool,
    intake: Intake,
    run: Run,
    call: Call,
    /// The way on when it is cut, where one is wanted.
    resuming: Option<Box<Resuming>>,
    /// Whether the last segment has told already that the stream broke.
    is_cut_told: bool,
    /// How often the stream went on after it was cut.
    resumes: u32,
}

impl TracedStream {
    pub(crate) fn new(
        opened: Opened,
        mut run: Run,
        call: Call,
        resuming: Option<Box<Resuming>>,
    ) -> Self {
        let deadline = run.deadline();
        let Opened { stream, chunks, intake, is_ended } = opened;
        let position = intake.segments.position().clone();
        Self {
            live: Some(Box::new(Live {
                stream,
                is_ended,
                intake,
                run,
                call,
                resuming,
                is_cut_told: false,
                resumes: 0,
            })),
            waiting: chunks,
            broke: None,
            position,
            next_seq: 0,
            timer: Timer::default(),
            deadline,
        }
    }

    /// Where the stream is.
    pub(crate) fn position(&self) -> &StreamPosition {
        &self.position
    }

    fn hand_on(&mut self, chunk: Chunk) -> Poll<Option<Result<Chunk, ChatError>>> {
        self.next_seq = chunk.seq.map_or(0, |seq| seq.saturating_add(1));
        self.position.advance(self.next_seq);
        Poll::Ready(Some(Ok(chunk)))
    }

    /// Ready when the stream is over because its time is.
    fn poll_limits(&mut self, poller: &mut Poller<'_>) -> Poll<()> {
        loop {
            let Some(live) = &mut self.live else { return Poll::Pending };
            let limits = [live.intake.segments.idle_at(), self.deadline];
            let Some(at) = limits.into_iter().flatten().min() else { return Poll::Pending };
            if !self.timer.poll(at, poller) {
                return Poll::Pending;
            }
            live.intake.segments.tick();
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                self.time_out();
                return Poll::Ready(());
            }
        }
    }

    /// Ends the stream, whose time is over; what has come is still read.
    fn time_out(&mut self) {
        if let Some(mut live) = self.live.take() {
            live.intake.rest(&mut self.waiting);
            self.broke = Some(Box::new(live.time_out()));
        }
    }
}

impl Stream for TracedStream {
    type Item = Result<Chunk, ChatError>;

    fn poll_next(self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(chunk) = this.waiting.pop_front() {
                if this.waiting.is_empty() {
                    // A stream may stay open for long, and rarely has chunks that wait.
                    this.waiting = VecDeque::new();
                }
                return this.hand_on(chunk);
            }
            let Some(live) = &mut this.live else {
                return Poll::Ready(this.broke.take().map(|error| Err(*error)));
            };
            let polled = if live.is_ended { Poll::Ready(None) } else { live.poll(poller) };
            match polled {
                Poll::Pending => ready!(this.poll_limits(poller)),
                Poll::Ready(Some(Ok(mut chunk))) => {
                    // The clock is read once for all that want to know.
                    let now = Instant::now();
                    live.call.chunk_came(now);
                    // A provider that always has a chunk gives the timer no turn.
                    let is_late = this.deadline.is_some_and(|deadline| now >= deadline);
                    match live.intake.passes(&mut chunk, now) {
                        true if !is_late => return this.hand_on(chunk),
                        true => this.waiting.push_back(chunk),
                        false => live.intake.keep(chunk, now, &mut this.waiting),
                    }
                    if is_late {
                        this.time_out();
                    }
                }
                Poll::Ready(Some(Err(mut error))) => {
                    // Whoever reads this cannot go on where this could not.
                    error.cut = Cut::default();
                    live.intake.rest(&mut this.waiting);
                    if let Some(live) = this.live.take() {
                        live.fail(&error);
                    }
                    this.broke = Some(Box::new(error));
                }
                Poll::Ready(None) => {
                    live.intake.rest(&mut this.waiting);
                    if let Some(live) = this.live.take() {
                        live.finish();
                    }
                }
            }
        }
    }
}

impl Drop for TracedStream {
    fn drop(&mut self) {
        let Some(mut live) = self.live.take() else { return };
        let is_read = self.waiting.is_empty() && self.position.is_at(self.next_seq);
        // What came out of order has come.
        live.intake.rest(&mut self.waiting);
        if is_read && live.intake.assembler.is_finished() {
            live.finish();
        } else {
            live.cancel();
        }
    }
}

impl Live {
    /// The provider's stream, polled in the context of its attempt. One that was cut goes on, where
    /// that is wanted.
    fn poll(&mut self, poller: &mut Poller<'_>) -> Poll<Option<Result<Chunk, ChatError>>> {
        let _attached = self.intake.segments.parent().clone().attach();
        loop {
            if let Some(resuming) = self.resuming.as_mut().filter(|one| one.is_under_way()) {
                match ready!(resuming.poll(poller)) {
                    Ok(stream) => self.stream = stream,
                    Err(error) => return Poll::Ready(Some(Err(error))),
                }
            }
            let item = ready!(Pin::new(&mut self.stream).poll_next(poller));
            match item {
                Some(Err(error)) if self.goes_on(&error) => {}
                Some(Ok(chunk)) => {
                    if std::mem::take(&mut self.is_cut_told) {
                        self.resumes += 1;
                        self.call.went_on(self.resumes);
                    }
                    return Poll::Ready(Some(Ok(chunk)));
                }
                other => return Poll::Ready(other),
            }
        }
    }

    /// Whether the stream, which broke, was cut and is gone on with.
    fn goes_on(&mut self, error: &ChatError) -> bool {
        let (Some(resuming), Some(cut)) = (&mut self.resuming, &error.cut.0) else {
            return false;
        };
        if !resuming.begin((**cut).clone(), error.clone()) {
            return false;
        }
        self.is_cut_told = true;
        self.intake.segments.cut(error.error_type, &error.message);
        true
    }

    fn finish(mut self: Box<Self>) {
        self.intake.segments.end(SegmentEnd::Done);
        let Self { stream, intake, mut run, call, .. } = *self;
        let Intake { segments, assembler, .. } = intake;
        let status_code = stream.status_code();
        drop_within(&segments, stream);
        run.succeed(status_code);
        let mut response = assembler.response();
        response.status_code = status_code;
        call.succeed(&response);
    }

    fn fail(mut self: Box<Self>, error: &ChatError) {
        if self.is_cut_told {
            self.intake.segments.end(SegmentEnd::Done);
        } else {
            self.intake.segments.fail(error.error_type, &error.message);
        }
        let reason = reason_of(self.run.fail(&report_of(error)));
        self.end_partial(|call| call.fail(error, reason));
    }

    fn time_out(mut self: Box<Self>) -> ChatError {
        self.intake.segments.end(SegmentEnd::Timeout);
        let began = self.call.began();
        let reason = reason_of(self.run.time_out());
        let (asked, after) = (self.call.asked(), spoken(began.elapsed()));
        let message = format!("the answer of {asked} was not complete within {after}");
        let error = ChatError::new(ErrorType::Timeout, message);
        self.end_partial(|call| call.fail(&error, reason));
        error
    }

    fn cancel(mut self: Box<Self>) {
        self.intake.segments.end(SegmentEnd::Cancelled);
        self.end_partial(Call::cancel);
    }

    /// Ends the call with what has come of the answer.
    fn end_partial(self: Box<Self>, end: impl FnOnce(Call)) {
        let Self { stream, intake, run, mut call, .. } = *self;
        let Intake { segments, assembler, .. } = intake;
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
