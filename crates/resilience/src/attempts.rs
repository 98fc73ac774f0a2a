//! The attempts of one operation: when to try, how long to wait, when to give up.

use std::time::Duration;

use throughline_trace::ErrorType;

use crate::backoff::Backoff;
use crate::breaker::{Breaker, BreakerChange, BreakerState, Permit};
use crate::budget::RetryBudget;
use crate::errors::ErrorSet;
use crate::latency::Latencies;
use crate::moment::Moment;
use crate::policy::{Policy, RetryPolicy, TimeoutPolicy, millis};

mod limits;

/// Longest pause asked for by a provider that is waited for while somebody else can be asked instead.
pub const MAX_PAUSE_BEFORE_FALLBACK: Duration = Duration::from_secs(1);

/// What all operations against the same target share.
#[derive(Debug, Clone)]
pub struct Target {
    breaker: Option<Breaker>,
    budget: Option<RetryBudget>,
    latencies: Latencies,
}

impl Target {
    /// A target in good health.
    pub fn new(policy: &Policy) -> Self {
        Self {
            breaker: policy.breaker.clone().map(Breaker::new),
            budget: policy.budget.clone().map(RetryBudget::new),
            latencies: Latencies::new(),
        }
    }

    /// Another policy from now on. A breaker keeps its state; a budget that changes starts full.
    pub fn reconfigure(&mut self, policy: &Policy) {
        match (&mut self.breaker, &policy.breaker) {
            (Some(breaker), Some(policy)) => breaker.reconfigure(policy.clone()),
            (breaker, policy) => *breaker = policy.clone().map(Breaker::new),
        }
        if self.budget.as_ref().map(RetryBudget::policy) != policy.budget.as_ref() {
            self.budget = policy.budget.clone().map(RetryBudget::new);
        }
    }

    /// How the state of the breaker changed since this was last asked.
    pub fn take_breaker_change(&mut self) -> Option<BreakerChange> {
        self.breaker.as_mut().and_then(Breaker::take_change)
    }

    /// How long successful attempts took lately; of streamed answers, until the first token.
    pub fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    /// An attempt that succeeded took this long.
    pub fn record_latency(&mut self, took: Duration) {
        self.latencies.record(took);
    }

    /// Takes a retry out of the budget, for a further copy of an attempt; `false` when there is
    /// none left.
    pub fn withdraw_hedge(&mut self, now: Moment) -> bool {
        self.budget.as_mut().is_none_or(|budget| budget.withdraw(now))
    }

    /// The breaker, if the policy has one.
    pub fn breaker(&self) -> Option<&Breaker> {
        self.breaker.as_ref()
    }

    /// The retry budget, if the policy has one.
    pub fn budget(&self) -> Option<&RetryBudget> {
        self.budget.as_ref()
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The attempt succeeded; of a streamed answer, to its end.
    Succeeded,
    /// The first token of a streamed answer was handed on: from here on a failure is final, since
    /// what the caller has cannot be taken back. The breaker takes it for a success until then.
    FirstToken,
    /// The attempt failed.
    Failed(Failure),
    /// The deadline that was named has come, the attempt is still running. When the answer is not
    /// [`Next::Continue`], abandon it.
    DeadlineReached,
    /// The pause that was named is over.
    DelayOver,
    /// The caller gave the operation up.
    Cancelled,
}

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure it was.
    pub error_type: ErrorType,
    /// The pause that the provider asked for (`Retry-After`).
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure without more to say.
    pub const fn of(error_type: ErrorType) -> Self {
        Self { error_type, retry_after: None }
    }
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Start an attempt.
    Attempt {
        /// Which, from 0.
        index: u32,
        /// When to send [`Event::DeadlineReached`]; `None` never.
        deadline: Option<Moment>,
    },
    /// Let the attempt run on.
    Continue {
        /// When to send [`Event::DeadlineReached`]; `None` never.
        deadline: Option<Moment>,
    },
    /// The attempt failed, another one follows: wait.
    Delay {
        /// When to send [`Event::DelayOver`].
        until: Moment,
        /// What the attempt failed with.
        failed: ErrorType,
    },
    /// It is over.
    Done(Verdict),
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It succeeded.
    Succeeded {
        /// Attempts that it took.
        attempts: u32,
    },
    /// It failed.
    Failed {
        /// What the operation failed with.
        error_type: ErrorType,
        /// Why it was not tried again.
        reason: GiveUp,
        /// Attempts that were made; 0 when the breaker refused the first.
        attempts: u32,
    },
    /// The caller gave it up.
    Cancelled {
        /// Attempts that were made.
        attempts: u32,
    },
}

impl Verdict {
    /// Attempts that were made.
    pub fn attempts(self) -> u32 {
        match self {
            Self::Succeeded { attempts }
            | Self::Failed { attempts, .. }
            | Self::Cancelled { attempts } => attempts,
        }
    }
}

/// Why an operation was not tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GiveUp {
    /// Failures of this kind do not pass by themselves.
    NotRetryable,
    /// Part of the answer has been handed on.
    AlreadyAnswering,
    /// As many attempts were made as the policy allows.
    AttemptsSpent,
    /// No time is left, or only what a fallback needs.
    DeadlineSpent,
    /// The target has been retried too much.
    BudgetSpent,
    /// The provider asks for a longer pause than the policy waits, or than is waited while somebody
    /// else can be asked.
    RetryAfterTooLong,
    /// The breaker lets nothing through.
    CircuitOpen,
    /// The bulkhead has no place left.
    BulkheadFull,
}

impl GiveUp {
    /// Name for attributes and pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotRetryable => "not_retryable",
            Self::AlreadyAnswering => "already_answering",
            Self::AttemptsSpent => "attempts_spent",
            Self::DeadlineSpent => "deadline_spent",
            Self::BudgetSpent => "budget_spent",
            Self::RetryAfterTooLong => "retry_after_too_long",
            Self::CircuitOpen => "circuit_open",
            Self::BulkheadFull => "bulkhead_full",
        }
    }
}

/// The machine of one operation.
#[derive(Debug)]
pub struct Attempts {
    retry: RetryPolicy,
    timeouts: TimeoutPolicy,
    backoff: Backoff,
    /// When the policy has it over.
    own_deadline: Option<Moment>,
    /// When the caller has it over, or whoever needs the time for something else.
    callers_deadline: Option<Moment>,
    /// When the caller must have seen the answer begin.
    opening_deadline: Option<Moment>,
    /// Failures after which somebody else is asked.
    fallback_on: ErrorSet,
    /// Attempts begun.
    begun: u32,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Ready,
    Running { since: Moment, permit: Option<Permit>, is_answering: bool },
    Delaying { until: Moment, failed: ErrorType },
    Over(Verdict),
}

impl Attempts {
    /// An operation that begins `now` and is answered as a whole: the limit for a first token does
    /// not concern it. The seed decides the jitter.
    pub fn new(policy: &Policy, seed: u64, now: Moment) -> Self {
        let timeouts = TimeoutPolicy { first_token_ms: None, ..policy.timeouts.clone() };
        Self::with_timeouts(policy, timeouts, seed, now)
    }

    /// An operation that begins `now` and is answered in a stream.
    pub fn streamed(policy: &Policy, seed: u64, now: Moment) -> Self {
        Self::with_timeouts(policy, policy.timeouts.clone(), seed, now)
    }

    fn with_timeouts(policy: &Policy, timeouts: TimeoutPolicy, seed: u64, now: Moment) -> Self {
        Self {
            retry: policy.retry.clone(),
            timeouts,
            backoff: Backoff::new(seed),
            own_deadline: policy.timeouts.total_ms.map(|total| now + millis(total)),
            callers_deadline: None,
            opening_deadline: None,
            fallback_on: ErrorSet::NONE,
            begun: 0,
            phase: Phase::Ready,
        }
    }

    /// Attempts begun so far.
    pub fn begun(&self) -> u32 {
        self.begun
    }

    /// Somebody else is asked when the operation fails with one of these: it then waits for no long
    /// pause ([`MAX_PAUSE_BEFORE_FALLBACK`]), and after an attempt that took all its time it leaves
    /// as much for the other.
    pub fn expect_fallback(&mut self, on: ErrorSet) {
        self.fallback_on = on;
    }

    /// The operation found no place in the bulkhead: it is over before it began.
    pub fn refuse(&mut self) -> Next {
        match self.phase {
            Phase::Ready => self.give_up(ErrorType::Overloaded, GiveUp::BulkheadFull),
            _ => self.unchanged(),
        }
    }

    /// What to do at first: start an attempt, or nothing because the breaker refuses.
    pub fn begin(&mut self, target: &mut Target, now: Moment) -> Next {
        if !matches!(self.phase, Phase::Ready) {
            return self.unchanged();
        }
        if let Some(budget) = &mut target.budget {
            budget.deposit(now);
        }
        self.try_now(target, now)
    }

    /// What to do after something happened. Events that do not fit (a pause that ends while an
    /// attempt runs) change nothing.
    pub fn on(&mut self, event: Event, target: &mut Target, now: Moment) -> Next {
        match (&mut self.phase, event) {
            (Phase::Over(_), _) => self.unchanged(),
            (_, Event::Cancelled) => {
                self.release(target);
                self.over(Verdict::Cancelled { attempts: self.begun })
            }
            (Phase::Running { .. }, Event::Succeeded) => {
                self.record(None, target, now);
                self.over(Verdict::Succeeded { attempts: self.begun })
            }
            (Phase::Running { is_answering, permit, .. }, Event::FirstToken) => {
                *is_answering = true;
                if let (Some(permit), Some(breaker)) = (permit, &mut target.breaker) {
                    breaker.record_begun(permit, now);
                }
                self.unchanged()
            }
            (Phase::Running { .. }, Event::Failed(failure)) => {
                self.failed(failure, false, target, now)
            }
            (Phase::Running { .. }, Event::DeadlineReached) => {
                if self.deadline().is_some_and(|deadline| now >= deadline) {
                    if self.policys_deadline().is_none_or(|deadline| now < deadline) {
                        self.release(target);
                    }
                    self.failed(Failure::of(ErrorType::Timeout), true, target, now)
                } else {
                    self.unchanged()
                }
            }
            (Phase::Delaying { until, .. }, Event::DelayOver) if now >= *until => {
                self.try_now(target, now)
            }
            _ => self.unchanged(),
        }
    }

    fn try_now(&mut self, target: &mut Target, now: Moment) -> Next {
        if self.answer_deadline().is_some_and(|deadline| now >= deadline) {
            return self.give_up(ErrorType::Timeout, GiveUp::DeadlineSpent);
        }
        let permit = match target.breaker.as_mut().map(|breaker| breaker.acquire(now)) {
            Some(Err(_)) => return self.give_up(ErrorType::CircuitOpen, GiveUp::CircuitOpen),
            Some(Ok(permit)) => Some(permit),
            None => None,
        };
        let index = self.begun;
        self.begun += 1;
        self.phase = Phase::Running { since: now, permit, is_answering: false };
        Next::Attempt { index, deadline: self.deadline() }
    }

    /// The attempt that runs failed; `is_late`: since its time was over.
    fn failed(
        &mut self,
        failure: Failure,
        is_late: bool,
        target: &mut Target,
        now: Moment,
    ) -> Next {
        self.record(Some(failure.error_type), target, now);
        let kind = failure.error_type;
        match self.pause_before_next(failure, is_late, target, now) {
            Ok(until) => {
                self.phase = Phase::Delaying { until, failed: kind };
                Next::Delay { until, failed: kind }
            }
            Err(reason) => self.give_up(kind, reason),
        }
    }

    /// When the next attempt starts, or why there is none.
    fn pause_before_next(
        &mut self,
        failure: Failure,
        is_late: bool,
        target: &mut Target,
        now: Moment,
    ) -> Result<Moment, GiveUp> {
        let is_fallback_next = self.fallback_on.contains(failure.error_type);
        if matches!(self.phase, Phase::Running { is_answering: true, .. }) {
            return Err(GiveUp::AlreadyAnswering);
        }
        if !self.retry.retry_on.contains(failure.error_type) {
            return Err(GiveUp::NotRetryable);
        }
        if self.begun >= self.retry.max_attempts.max(1) {
            return Err(GiveUp::AttemptsSpent);
        }
        let asked = failure.retry_after.unwrap_or_default();
        let longest = millis(self.retry.max_retry_after_ms);
        if asked > longest || (is_fallback_next && asked > MAX_PAUSE_BEFORE_FALLBACK) {
            return Err(GiveUp::RetryAfterTooLong);
        }
        let own = self.backoff.delay(&self.retry, self.begun.saturating_sub(1));
        let until = now + own.max(asked);
        // Another attempt that takes as long, and then the fallback's own.
        let kept = match self.attempt_limit() {
            Some(limit) if is_late && is_fallback_next => limit.saturating_mul(2),
            _ => Duration::ZERO,
        };
        if self.answer_deadline().is_some_and(|deadline| until + kept >= deadline) {
            return Err(GiveUp::DeadlineSpent);
        }
        let breaker = target.breaker.as_ref().map(|breaker| breaker.state(until));
        if matches!(breaker, Some(BreakerState::Open { .. })) {
            return Err(GiveUp::CircuitOpen);
        }
        let has_budget = target.budget.as_mut().is_none_or(|budget| budget.withdraw(now));
        if has_budget { Ok(until) } else { Err(GiveUp::BudgetSpent) }
    }

    fn record(&mut self, failure: Option<ErrorType>, target: &mut Target, now: Moment) {
        if let (Some(permit), Some(breaker)) = (self.take_permit(), &mut target.breaker) {
            breaker.record(permit, failure, now);
        }
    }

    /// Gives the permit back without a result.
    fn release(&mut self, target: &mut Target) {
        if let (Some(permit), Some(breaker)) = (self.take_permit(), &mut target.breaker) {
            breaker.release(permit);
        }
    }

    fn take_permit(&mut self) -> Option<Permit> {
        match &mut self.phase {
            Phase::Running { permit, .. } => permit.take(),
            _ => None,
        }
    }

    fn give_up(&mut self, error_type: ErrorType, reason: GiveUp) -> Next {
        self.over(Verdict::Failed { error_type, reason, attempts: self.begun })
    }

    fn over(&mut self, verdict: Verdict) -> Next {
        self.phase = Phase::Over(verdict);
        Next::Done(verdict)
    }

    fn unchanged(&self) -> Next {
        match self.phase {
            Phase::Running { .. } => Next::Continue { deadline: self.deadline() },
            Phase::Delaying { until, failed } => Next::Delay { until, failed },
            Phase::Over(verdict) => Next::Done(verdict),
            // Nothing has been asked for yet: `begin` was not called.
            Phase::Ready => Next::Continue { deadline: None },
        }
    }
}
