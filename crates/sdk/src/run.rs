//! One operation under a policy: the machine of its attempts, driven with a clock and sleeps, and
//! the spans of the attempts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use throughline_resilience::{Attempts, Event, Failure, GiveUp, Moment, Next, Verdict};
use throughline_trace::ErrorType;
use tokio::time::Instant;

use crate::attempt::{AttemptSpans, FaultReport, Followed};
use crate::resilient::{Fault, Resilience, ResilientError, Shared, spoken};

/// Tells what an attempt does while it is dropped that it is dropped for its time limit, and not
/// because its caller went away.
#[derive(Debug, Clone, Default)]
pub(crate) struct TimeoutNote(Arc<Mutex<Option<String>>>);

impl TimeoutNote {
    /// What the limit was, for people, while an attempt is dropped that reached it.
    pub(crate) fn read(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn write(&self, message: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = message;
    }
}

/// One operation under way. Dropped before it is over, it was cancelled: the breaker gets its
/// permit back and the attempt's span ends so.
#[derive(Debug)]
pub(crate) struct Run {
    shared: Arc<Shared>,
    machine: Attempts,
    ready: Ready,
    spans: AttemptSpans,
    began: Instant,
    attempt_began: Instant,
    timeout_note: TimeoutNote,
    is_over: bool,
}

impl Run {
    pub(crate) fn new(resilience: &Resilience, ready: Ready, spans: AttemptSpans) -> Self {
        let shared = Arc::clone(&resilience.shared);
        let seed = shared.seed.unwrap_or_else(rand::random);
        let machine = match ready {
            Ready::Whole => Attempts::new(&shared.policy, seed, shared.now()),
            Ready::FirstToken => Attempts::streamed(&shared.policy, seed, shared.now()),
        };
        let began = Instant::now();
        Self {
            shared,
            machine,
            ready,
            spans,
            began,
            attempt_began: began,
            timeout_note: TimeoutNote::default(),
            is_over: false,
        }
    }

    /// Where the attempts of this operation read why they are dropped.
    pub(crate) fn timeout_note(&self) -> TimeoutNote {
        self.timeout_note.clone()
    }

    /// Attempts begun so far.
    pub(crate) fn attempts(&self) -> u32 {
        self.machine.begun()
    }

    /// The attempt that runs succeeded, to its end.
    pub(crate) fn succeed(&mut self, status_code: Option<u16>) {
        self.on(Event::Succeeded);
        self.spans.succeed(status_code);
    }

    /// The attempt that runs failed.
    pub(crate) fn fail(&mut self, report: &FaultReport) -> Next {
        let failure = Failure { error_type: report.error_type, retry_after: report.retry_after };
        let next = self.on(Event::Failed(failure));
        self.end_attempt(report, next)
    }

    /// The limit of the attempt that runs has passed. [`Next::Continue`] when it has moved since.
    pub(crate) fn time_out(&mut self) -> Next {
        let message = no_answer_since(self.attempt_began);
        let next = self.on(Event::DeadlineReached);
        if let Next::Continue { .. } = next {
            return next;
        }
        self.end_attempt(&FaultReport::new(ErrorType::Timeout, message), next)
    }

    /// When the attempt that runs reaches its limit.
    pub(crate) fn deadline(&mut self) -> Option<Instant> {
        // An event that fits no attempt changes nothing and is answered with what holds.
        match self.on(Event::DelayOver) {
            Next::Continue { deadline } => deadline.map(|moment| self.shared.instant(moment)),
            _ => None,
        }
    }

    /// How long the attempt that timed out took; all attempts together, when it was their limit.
    pub(crate) fn elapsed(&self, reason: GiveUp) -> Duration {
        match reason {
            GiveUp::DeadlineSpent => self.began.elapsed(),
            _ => self.attempt_began.elapsed(),
        }
    }

    fn begin(&mut self) -> Next {
        let now = self.shared.now();
        let next = self.machine.begin(&mut self.shared.target(), now);
        self.note(next)
    }

    fn on(&mut self, event: Event) -> Next {
        let now = self.shared.now();
        let next = self.machine.on(event, &mut self.shared.target(), now);
        self.note(next)
    }

    fn note(&mut self, next: Next) -> Next {
        self.is_over |= matches!(next, Next::Done(_));
        next
    }

    fn end_attempt(&mut self, report: &FaultReport, next: Next) -> Next {
        let followed = match next {
            Next::Delay { until, .. } => Followed::After(until.since(self.shared.now())),
            _ => Followed::No,
        };
        self.spans.fail(report, followed);
        next
    }
}

fn no_answer_since(began: Instant) -> String {
    format!("no answer within {}", spoken(began.elapsed()))
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.is_over {
            self.on(Event::Cancelled);
            self.spans.cancel();
        }
    }
}

/// When an attempt counts as a success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    /// As soon as its future is ready.
    Whole,
    /// Later: the future is ready with the first token, the stream goes on.
    FirstToken,
}

/// An operation that stopped without success.
#[derive(Debug)]
pub(crate) struct Stopped<E> {
    pub(crate) error: ResilientError<E>,
    pub(crate) reason: GiveUp,
}

/// Why the machine was last asked what to do.
enum Cause<E> {
    /// To begin an attempt.
    Begin,
    /// The attempt failed by itself.
    Failed(E),
    /// The attempt reached its limit.
    TimedOut,
}

/// What an error that describes itself tells.
pub(crate) fn report_of<E: Fault>(error: &E) -> FaultReport {
    FaultReport {
        error_type: error.error_type(),
        outcome: error.outcome(),
        message: error.to_string(),
        code: error.code().map(str::to_owned),
        status_code: error.status_code(),
        retry_after: error.retry_after(),
    }
}

/// Makes attempts until the machine says that it is over.
pub(crate) async fn drive<T, E, F>(
    run: &mut Run,
    describe: impl Fn(&E) -> FaultReport,
    status_of: impl Fn(&T) -> Option<u16>,
    mut attempt: impl FnMut(u32) -> F,
) -> Result<T, Stopped<E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut last: Option<E> = None;
    let mut cause = Cause::Begin;
    let mut next = run.begin();
    loop {
        match next {
            Next::Attempt { index, deadline } => {
                match try_once(run, index, deadline, &mut attempt).await {
                    Ok(Ok(value)) => {
                        match run.ready {
                            Ready::Whole => run.succeed(status_of(&value)),
                            Ready::FirstToken => drop(run.on(Event::FirstToken)),
                        }
                        return Ok(value);
                    }
                    Ok(Err(error)) => {
                        next = run.fail(&describe(&error));
                        cause = Cause::Failed(error);
                    }
                    Err(after) => {
                        next = after;
                        cause = Cause::TimedOut;
                    }
                }
            }
            Next::Delay { until, .. } => {
                if let Cause::Failed(error) = std::mem::replace(&mut cause, Cause::Begin) {
                    last = Some(error);
                }
                tokio::time::sleep_until(run.shared.instant(until)).await;
                next = run.on(Event::DelayOver);
            }
            // Only an attempt that runs is continued, and `try_once` does that.
            Next::Continue { .. } => next = run.on(Event::Cancelled),
            Next::Done(verdict) => return Err(stopped(run, verdict, cause, last)),
        }
    }
}

/// One attempt, in its span; `Err` with what the machine says when it reached its limit.
async fn try_once<T, E, F>(
    run: &mut Run,
    index: u32,
    deadline: Option<Moment>,
    attempt: &mut impl FnMut(u32) -> F,
) -> Result<Result<T, E>, Next>
where
    F: Future<Output = Result<T, E>>,
{
    let began = Instant::now();
    run.attempt_began = began;
    let (shared, timeout_note) = (Arc::clone(&run.shared), run.timeout_note());
    let mut work = Box::pin(attempt(index));
    let limited = async move {
        loop {
            let Some(limit) = deadline else { return Some(work.await) };
            match tokio::time::timeout_at(shared.instant(limit), work.as_mut()).await {
                Ok(result) => return Some(result),
                Err(_) if shared.now() < limit => {}
                Err(_) => {
                    // What the attempt still does while dropped belongs inside its span, and says
                    // why. The span's own work has not been given up: it ends here.
                    timeout_note.write(Some(no_answer_since(began)));
                    drop(work);
                    timeout_note.write(None);
                    return None;
                }
            }
        }
    };
    let result = match run.spans.begin(index) {
        Some(span) => span.instrument(limited).await,
        None => limited.await,
    };
    result.ok_or_else(|| run.time_out())
}

fn stopped<E>(run: &Run, verdict: Verdict, cause: Cause<E>, last: Option<E>) -> Stopped<E> {
    let attempts = verdict.attempts();
    let (reason, is_refused) = match verdict {
        Verdict::Failed { reason, error_type, .. } => {
            (reason, error_type == ErrorType::CircuitOpen)
        }
        Verdict::Succeeded { .. } | Verdict::Cancelled { .. } => (GiveUp::NotRetryable, false),
    };
    let error = match cause {
        Cause::Failed(error) => ResilientError::Operation(error),
        Cause::Begin if is_refused => ResilientError::CircuitOpen { attempts, last },
        Cause::Begin | Cause::TimedOut => {
            ResilientError::Timeout { after: run.elapsed(reason), attempts }
        }
    };
    Stopped { error, reason }
}
