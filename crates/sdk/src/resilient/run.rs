//! One operation under a policy: the machine of its attempts, driven with a clock and sleeps, and
//! the spans of the attempts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use throughline_resilience::{
    Attempts, BreakerChange, Event, Failure, GiveUp, Moment, Next, Policy, Verdict,
};
use throughline_trace::ErrorType;
use tokio::time::Instant;

use super::attempt::{AttemptSpans, FaultReport, Followed, Who};
use super::error::spoken;
use super::gate::{self, Held, NoPlace};
use super::hedged::try_hedged;
use super::{Fault, Resilience, ResilientError, Shared};
use crate::work_scope::WorkScope;

/// Tells what an attempt does while it is dropped that it is dropped for its time limit, and not
/// because its caller went away.
#[derive(Debug, Clone, Default)]
pub(crate) struct TimeoutNote(Arc<Mutex<Option<String>>>);

impl TimeoutNote {
    /// What the limit was, for people, while an attempt is dropped that reached it.
    pub(crate) fn read(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn write(&self, message: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = message;
    }
}

/// One operation under way. Dropped before it is over, it was cancelled: the breaker gets its
/// permit back and the attempt's span ends so.
#[derive(Debug)]
pub(crate) struct Run {
    pub(super) shared: Arc<Shared>,
    pub(super) policy: Arc<Policy>,
    machine: Attempts,
    ready: Ready,
    pub(super) spans: AttemptSpans,
    /// The copy of the attempt whose result counts.
    pub(super) copy: u32,
    began: Instant,
    pub(super) attempt_began: Instant,
    timeout_note: TimeoutNote,
    held: Option<Held>,
    is_over: bool,
}

impl Run {
    pub(crate) fn new(resilience: &Resilience, ready: Ready, spans: AttemptSpans) -> Self {
        let shared = Arc::clone(&resilience.shared);
        let policy = crate::steering::policy_of(&spans.operations(), shared.policy());
        let seed = shared.seed.unwrap_or_else(rand::random);
        let began = Instant::now();
        let now = shared.moment(began);
        let mut machine = match ready {
            Ready::Whole => Attempts::new(&policy, seed, now),
            Ready::FirstToken => Attempts::streamed(&policy, seed, now),
        };
        let scope = WorkScope::current();
        if let Some(deadline) = scope.deadline() {
            machine.limit_by_policy(shared.moment(deadline));
        }
        if let (Ready::FirstToken, Some(deadline)) = (ready, scope.opening_deadline()) {
            machine.limit_opening(shared.moment(deadline));
        }
        Self {
            shared,
            policy,
            machine,
            ready,
            spans,
            copy: 0,
            began,
            attempt_began: began,
            timeout_note: TimeoutNote::default(),
            held: None,
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
        if self.ready == Ready::Whole {
            self.shared.target().record_latency(self.attempt_began.elapsed());
        }
        self.on(Event::Succeeded);
        self.spans.succeed(self.copy, status_code);
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

    /// A copy of the attempt that runs failed, another goes on.
    pub(super) fn fail_copy(&mut self, copy: u32, report: &FaultReport) {
        self.spans.fail(copy, report, Followed::ByCopy);
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

    /// Waits for a place in the bulkhead, if there is one, and begins.
    async fn begin(&mut self) -> Next {
        if let Some(policy) = &self.policy.bulkhead {
            match gate::enter(&self.shared, policy, self.machine.answer_deadline()).await {
                Ok(held) => self.held = Some(held),
                Err(NoPlace::Full) => {
                    let next = self.machine.refuse();
                    return self.note(next);
                }
                // The machine says itself that no time is left.
                Err(NoPlace::Late) => {}
            }
        }
        let now = self.shared.now();
        let (next, change) = {
            let mut target = self.shared.target();
            let next = self.machine.begin(&mut target, now);
            (next, target.take_breaker_change())
        };
        self.told(next, change);
        self.note(next)
    }

    /// The first token has come.
    fn answer_began(&mut self) {
        self.shared.target().record_latency(self.attempt_began.elapsed());
        self.on(Event::FirstToken);
    }

    pub(super) fn on(&mut self, event: Event) -> Next {
        let now = self.shared.now();
        let (next, change) = {
            let mut target = self.shared.target();
            let next = self.machine.on(event, &mut target, now);
            (next, target.take_breaker_change())
        };
        self.told(next, change);
        self.note(next)
    }

    /// Tells what the breaker did.
    fn told(&self, next: Next, change: Option<BreakerChange>) {
        if let Some(change) = change {
            self.shared.tell(change, self.spans.parent());
        }
        let is_refused =
            matches!(next, Next::Done(Verdict::Failed { error_type: ErrorType::CircuitOpen, .. }));
        if is_refused && !self.is_over {
            self.shared.tell_refusal(self.spans.parent());
        }
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
        self.spans.fail(self.copy, report, followed);
        next
    }
}

pub(super) fn no_answer_since(began: Instant) -> String {
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
    let mut next = run.begin().await;
    loop {
        match next {
            Next::Attempt { index, deadline } => {
                let tried = match &run.policy.hedge {
                    Some(_) => try_hedged(run, index, deadline, &describe, &mut attempt).await,
                    None => try_once(run, index, deadline, &mut attempt).await,
                };
                match tried {
                    Ok(Ok(value)) => {
                        match run.ready {
                            Ready::Whole => run.succeed(status_of(&value)),
                            Ready::FirstToken => run.answer_began(),
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
    let result = match run.spans.begin(Who { index, copy: 0 }) {
        Some(span) => span.instrument(limited).await,
        None => limited.await,
    };
    result.ok_or_else(|| run.time_out())
}

fn stopped<E>(run: &Run, verdict: Verdict, cause: Cause<E>, last: Option<E>) -> Stopped<E> {
    let attempts = verdict.attempts();
    let (reason, kind) = match verdict {
        Verdict::Failed { reason, error_type, .. } => (reason, Some(error_type)),
        Verdict::Succeeded { .. } | Verdict::Cancelled { .. } => (GiveUp::NotRetryable, None),
    };
    let error = match (cause, kind) {
        (Cause::Failed(error), _) => ResilientError::Operation(error),
        (Cause::Begin, Some(ErrorType::CircuitOpen)) => {
            ResilientError::CircuitOpen { attempts, last }
        }
        (Cause::Begin, Some(ErrorType::Overloaded)) => ResilientError::BulkheadFull,
        (Cause::Begin | Cause::TimedOut, _) => {
            ResilientError::Timeout { after: run.elapsed(reason), attempts }
        }
    };
    Stopped { error, reason }
}
