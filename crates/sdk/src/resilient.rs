//! Retry, timeout and breaker around any asynchronous operation: the driver of the state machines
//! of `throughline-resilience`, with a clock, sleeps and spans.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opentelemetry::trace::{SpanKind, TraceContextExt as _};
use opentelemetry::{Context, KeyValue};
use throughline_resilience::{
    BreakerPolicy, BreakerState, Moment, Policy, RetryPolicy, Target, TimeoutPolicy,
};
use throughline_trace::{ErrorType, keys};
use tokio::time::Instant;

use crate::attempt::{AttemptSpans, FaultReport};
use crate::metrics::Outcome;
use crate::run::{Ready, Run, drive, report_of};

/// A failure that says what kind it is, so that a policy can decide about it.
pub trait Fault: Display {
    /// What kind of failure it is.
    fn error_type(&self) -> ErrorType;

    /// What it means for the business: a model's timeout is not that of a tool.
    fn outcome(&self) -> Outcome {
        Outcome::of_error(self.error_type())
    }

    /// The pause that the other side asked for.
    fn retry_after(&self) -> Option<Duration> {
        None
    }

    /// The wire status that came back.
    fn status_code(&self) -> Option<u16> {
        None
    }

    /// The other side's raw code.
    fn code(&self) -> Option<&str> {
        None
    }
}

/// A policy with the state of the target that it is about. Clones share the state: give every
/// caller of one target a clone, and every target its own.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use throughline::{ErrorType, Resilience, ResilientError};
/// use throughline::resilience::RetryPolicy;
///
/// let retry = Resilience::retry(RetryPolicy { base_delay_ms: 1, ..RetryPolicy::default() });
/// let mut tries = 0;
/// let stock = retry
///     .run_with("stock", |_: &&str| ErrorType::Server, |_| {
///         tries += 1;
///         let result = if tries < 3 { Err("busy") } else { Ok(17) };
///         async move { result }
///     })
///     .await;
/// assert_eq!(stock.ok(), Some(17));
/// # std::io::Result::Ok(()) })?;
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug, Clone)]
pub struct Resilience {
    pub(crate) shared: Arc<Shared>,
}

/// The policy, and what all operations under it share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) policy: Policy,
    target: Mutex<Target>,
    origin: Instant,
    pub(crate) seed: Option<u64>,
}

impl Resilience {
    /// A policy for a target in good health.
    pub fn new(policy: Policy) -> Self {
        Self::with_seed(policy, None)
    }

    /// [`new`](Self::new) with jitter that is the same each time, for tests and simulations.
    pub fn seeded(policy: Policy, seed: u64) -> Self {
        Self::with_seed(policy, Some(seed))
    }

    fn with_seed(policy: Policy, seed: Option<u64>) -> Self {
        let target = Mutex::new(Target::new(&policy));
        let shared = Shared { policy, target, origin: Instant::now(), seed };
        Self { shared: Arc::new(shared) }
    }

    /// Only retries: no time limit, no breaker, no budget.
    pub fn retry(retry: RetryPolicy) -> Self {
        Self::new(Policy { retry, ..Policy::none() })
    }

    /// Only a time limit for a single attempt.
    pub fn timeout(limit: Duration) -> Self {
        let attempt_ms = Some(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        let timeouts = TimeoutPolicy { attempt_ms, ..TimeoutPolicy::none() };
        Self::new(Policy { timeouts, ..Policy::none() })
    }

    /// Only a breaker around single attempts.
    pub fn breaker(breaker: BreakerPolicy) -> Self {
        Self::new(Policy { breaker: Some(breaker), ..Policy::none() })
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.shared.policy
    }

    /// The state of the breaker at this moment; `None` when the policy has none.
    pub fn breaker_state(&self) -> Option<BreakerState> {
        let now = self.shared.now();
        self.shared.target().breaker().map(|breaker| breaker.state(now))
    }

    /// Runs an operation under the policy. `operation` is called once for every attempt with its
    /// index, from 0. Attempts beyond the first, and any that fails, are spans `attempt {name}`
    /// below the current one, which then carries `retry_count`.
    ///
    /// # Errors
    /// [`ResilientError`]: the last attempt's own error, or that time ran out or the breaker
    /// refused.
    pub async fn run<T, E, F>(
        &self,
        name: &str,
        operation: impl FnMut(u32) -> F,
    ) -> Result<T, ResilientError<E>>
    where
        E: Fault,
        F: Future<Output = Result<T, E>>,
    {
        self.run_described(name, report_of, operation).await
    }

    /// [`run`](Self::run) for errors of any type: `classify` says what kind of failure each is.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_with<T, E, F>(
        &self,
        name: &str,
        classify: impl Fn(&E) -> ErrorType,
        operation: impl FnMut(u32) -> F,
    ) -> Result<T, ResilientError<E>>
    where
        E: Display,
        F: Future<Output = Result<T, E>>,
    {
        let describe = |error: &E| FaultReport::new(classify(error), error.to_string());
        self.run_described(name, describe, operation).await
    }

    async fn run_described<T, E, F>(
        &self,
        name: &str,
        describe: impl Fn(&E) -> FaultReport,
        operation: impl FnMut(u32) -> F,
    ) -> Result<T, ResilientError<E>>
    where
        F: Future<Output = Result<T, E>>,
    {
        let parent = Context::current();
        let name = Cow::Owned(format!("attempt {name}"));
        let spans = AttemptSpans::new(name, SpanKind::Internal, Vec::new(), parent.clone());
        let mut run = Run::new(self, Ready::Whole, spans);
        let result = drive(&mut run, describe, |_| None, operation).await;
        let retries = run.attempts().saturating_sub(1);
        if retries > 0 {
            parent.span().set_attribute(KeyValue::new(keys::RETRY_COUNT, i64::from(retries)));
        }
        result.map_err(|stopped| stopped.error)
    }
}

impl Shared {
    pub(crate) fn now(&self) -> Moment {
        Moment::from_origin(Instant::now().saturating_duration_since(self.origin))
    }

    /// When a moment comes; the far future when the clock cannot say it.
    pub(crate) fn instant(&self, moment: Moment) -> Instant {
        const FAR: Duration = Duration::from_secs(86_400 * 365);
        let at = self.origin.checked_add(moment.since_origin());
        at.unwrap_or_else(|| Instant::now() + FAR)
    }

    pub(crate) fn target(&self) -> MutexGuard<'_, Target> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why an operation under a policy failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResilientError<E> {
    /// An attempt, or all of them together, took longer than the policy allows.
    Timeout {
        /// How long it took.
        after: Duration,
        /// Attempts that were made.
        attempts: u32,
    },
    /// The breaker refused an attempt.
    CircuitOpen {
        /// Attempts that were made before.
        attempts: u32,
        /// What the last of them failed with.
        last: Option<E>,
    },
    /// The last attempt failed by itself.
    Operation(E),
}

impl<E: Display> Display for ResilientError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout { after, attempts } => {
                write!(f, "no answer within {} ({})", spoken(*after), tries(*attempts))
            }
            Self::CircuitOpen { last: None, .. } => {
                f.write_str("not tried: the circuit is open after too many failures")
            }
            Self::CircuitOpen { last: Some(last), .. } => {
                write!(f, "not tried again: the circuit is open after too many failures: {last}")
            }
            Self::Operation(error) => Display::fmt(error, f),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for ResilientError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Timeout { .. } => None,
            Self::CircuitOpen { last, .. } => last.as_ref().map(|last| last as _),
            Self::Operation(error) => error.source(),
        }
    }
}

impl<E: Fault> Fault for ResilientError<E> {
    fn error_type(&self) -> ErrorType {
        match self {
            Self::Timeout { .. } => ErrorType::Timeout,
            Self::CircuitOpen { .. } => ErrorType::CircuitOpen,
            Self::Operation(error) => error.error_type(),
        }
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::Operation(error) => error.outcome(),
            other => Outcome::of_error(other.error_type()),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        self.operation().and_then(Fault::retry_after)
    }

    fn status_code(&self) -> Option<u16> {
        self.operation().and_then(Fault::status_code)
    }

    fn code(&self) -> Option<&str> {
        self.operation().and_then(Fault::code)
    }
}

impl<E> ResilientError<E> {
    fn operation(&self) -> Option<&E> {
        match self {
            Self::Operation(error) => Some(error),
            _ => None,
        }
    }
}

/// A duration as people say it.
pub(crate) fn spoken(duration: Duration) -> String {
    match duration.as_millis() {
        millis @ 0..1_000 => format!("{millis} ms"),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}

/// A number of attempts as people say it.
pub(crate) fn tries(attempts: u32) -> String {
    match attempts {
        1 => "1 attempt".to_owned(),
        many => format!("{many} attempts"),
    }
}
