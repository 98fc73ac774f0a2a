//! What calls teach a router about how long its targets take (requirement R3.3): answers, failures,
//! and calls that were given up.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as Poller, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::BoxStream;
use throughline_llm::Chunk;
use throughline_resilience::Latencies;
use throughline_trace::ErrorType;
use tokio::time::Instant;

use crate::chat::ChatError;

/// A target that was not asked for so long counts as one of which nothing is known: one call finds
/// out how it does now, and what that says takes the place of what was known.
const FORGET_AFTER: Duration = Duration::from_secs(30);

/// What a router has learned of one target. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Learned(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    latencies: Latencies,
    asked_at: Option<Instant>,
}

impl State {
    /// Whether what is known is too old to go by.
    fn is_stale(&self, now: Instant) -> bool {
        self.asked_at.is_some_and(|at| now.saturating_duration_since(at) >= FORGET_AFTER)
    }
}

impl Learned {
    /// The smoothed latency; `None` when nobody knows.
    pub(super) fn mean(&self) -> Option<Duration> {
        self.known(Latencies::mean)
    }

    /// What nearly all answers stay within; `None` when nobody knows.
    pub(super) fn nearly_always(&self) -> Option<Duration> {
        self.known(Latencies::nearly_always)
    }

    /// The target is asked, and may take this long.
    pub(super) fn ask(&self, budget: Option<Duration>) -> Lesson {
        let now = Instant::now();
        let mut state = self.state();
        let is_fresh_start = state.is_stale(now);
        state.asked_at = Some(now);
        Lesson { learned: self.clone(), began: now, budget, is_fresh_start, is_over: false }
    }

    fn known(&self, what: impl Fn(&Latencies) -> Option<Duration>) -> Option<Duration> {
        let state = self.state();
        if state.is_stale(Instant::now()) { None } else { what(&state.latencies) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that is under way, of which the router will learn. Dropped before its end was told, it was
/// given up: it took at least as long as it had run.
#[derive(Debug)]
pub(super) struct Lesson {
    learned: Learned,
    began: Instant,
    budget: Option<Duration>,
    /// Whether what was known before is forgotten.
    is_fresh_start: bool,
    is_over: bool,
}

impl Lesson {
    /// When the call began.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// The answer has come, whole.
    pub(super) fn succeed(mut self) {
        self.end(Latencies::record);
    }

    /// The call failed.
    pub(super) fn fail(mut self, kind: ErrorType) {
        if !says_something(kind) {
            self.is_over = true;
            return;
        }
        // Who had a budget is as badly off as one that waited for all of it.
        let budget = self.budget.unwrap_or_default();
        self.end(|latencies, took| latencies.record_failure(took.max(budget)));
    }

    fn end(&mut self, record: impl FnOnce(&mut Latencies, Duration)) {
        self.is_over = true;
        let mut state = self.learned.state();
        if self.is_fresh_start {
            state.latencies = Latencies::new();
        }
        record(&mut state.latencies, self.began.elapsed());
    }
}

impl Drop for Lesson {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let took = self.began.elapsed();
        let mut state = self.learned.state();
        // A call that was given up early says nothing of how long it would have taken.
        if state.latencies.mean().is_none_or(|mean| took > mean) {
            state.latencies.record(took);
        }
    }
}

/// Whether a failure of this kind says how the target does, and not what it was asked or that it was
/// not asked.
fn says_something(kind: ErrorType) -> bool {
    !matches!(
        kind,
        ErrorType::InvalidRequest
            | ErrorType::InvalidArguments
            | ErrorType::ContentFiltered
            | ErrorType::PolicyRejected
            | ErrorType::ToolFailed
            | ErrorType::ToolMissing
            | ErrorType::Cancelled
            | ErrorType::CircuitOpen
    )
}

/// A streamed answer of which a router learns when it ends.
pub(super) struct LearningStream {
    inner: BoxStream<'static, Result<Chunk, ChatError>>,
    /// `None` once it is over.
    lesson: Option<Lesson>,
    /// Whether the model has said why the answer ends.
    is_finished: bool,
}

impl LearningStream {
    pub(super) fn new(inner: BoxStream<'static, Result<Chunk, ChatError>>, lesson: Lesson) -> Self {
        Self { inner, lesson: Some(lesson), is_finished: false }
    }
}

impl Stream for LearningStream {
    type Item = Result<Chunk, ChatError>;

    fn poll_next(mut self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<Option<Self::Item>> {
        let polled = ready!(self.inner.as_mut().poll_next(poller));
        match &polled {
            Some(Ok(chunk)) => {
                self.is_finished |= chunk.deltas.iter().any(|delta| delta.finish_reason.is_some());
            }
            Some(Err(error)) => {
                if let Some(lesson) = self.lesson.take() {
                    lesson.fail(error.error_type);
                }
            }
            None => {
                if let Some(lesson) = self.lesson.take() {
                    lesson.succeed();
                }
            }
        }
        Poll::Ready(polled)
    }
}

impl Drop for LearningStream {
    /// A reader that has read why the answer ended has read it all, and need not wait for the end
    /// mark.
    fn drop(&mut self) {
        if let Some(lesson) = self.lesson.take().filter(|_| self.is_finished) {
            lesson.succeed();
        }
    }
}
