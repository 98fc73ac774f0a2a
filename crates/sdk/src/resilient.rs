//! Retry, timeout, breaker, bulkhead and hedging around any asynchronous operation: the driver of the state machines
//! of `throughline-resilience`, with a clock, sleeps and spans.

pub(crate) mod attempt;
mod error;
mod gate;
mod hedged;
pub(crate) mod run;
mod targets;

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::{SpanKind, TraceContextExt as _};
use opentelemetry::{Context, KeyValue};
use throughline_resilience::{
    BreakerPolicy, BreakerState, BulkheadPolicy, HedgePolicy, Policy, RetryPolicy, TimeoutPolicy,
};
use throughline_trace::{ErrorType, keys};
use tokio::sync::watch;

use crate::metrics::Outcome;
use attempt::{AttemptSpans, FaultReport};
pub use error::ResilientError;
pub use error::{spoken, tries};
use run::{Ready, Run, drive, report_of};
use targets::Rules;
pub(crate) use targets::Shared;
pub use targets::{BreakerReport, breakers};

/// A failure that says what kind it is, so that a policy can decide about it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say what kind of failure it is",
    label = "an error that is no `Fault`",
    note = "call `run_with`, which takes a function that says so for errors of any type; or implement `Fault` for your own"
)]
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
/// caller of one target a clone, and every target its own ([`target`](Resilience::target)).
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
    rules: Arc<Rules>,
    pub(crate) shared: Arc<Shared>,
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
        let (rules, shared) = Rules::new(policy, seed);
        Self { rules, shared }
    }

    /// Names the target, for the metrics and decisions of its breaker and for [`breakers`]; else it
    /// has the name of the first operation. A name that it has stays.
    #[must_use]
    pub fn named(self, target: &str) -> Self {
        self.shared.name(target);
        self
    }

    /// The same policy for another target: with a breaker, budget, bulkhead and latencies of its
    /// own, which all clones share that ask for the same name. [`Traced`](crate::Traced) models have
    /// one for each `{provider}/{model}`. At most 1,024 names; targets beyond share one.
    #[must_use]
    pub fn target(&self, name: &str) -> Self {
        Self { rules: Arc::clone(&self.rules), shared: self.rules.target(name) }
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

    /// Only a bulkhead around single attempts.
    pub fn bulkhead(bulkhead: BulkheadPolicy) -> Self {
        Self::new(Policy { bulkhead: Some(bulkhead), ..Policy::none() })
    }

    /// Only hedging: a second copy of an attempt that takes long.
    pub fn hedge(hedge: HedgePolicy) -> Self {
        Self::new(Policy { hedge: Some(hedge), ..Policy::none() })
    }

    /// The policy of this moment.
    pub fn policy(&self) -> Arc<Policy> {
        self.rules.policy()
    }

    /// Puts another policy in place, for all clones and targets, while they run: operations that
    /// begin from now on follow it. Breakers keep their state, nobody who waits is sent away.
    pub fn set_policy(&self, policy: Policy) {
        self.rules.replace(|_| policy.clone());
    }

    /// Puts another retry strategy in place ([`set_policy`](Self::set_policy)), as a directive
    /// orders it: `"exponential_backoff(max_attempts=3)".parse()`.
    pub fn set_retry(&self, retry: RetryPolicy) {
        self.rules.replace(|policy| Policy { retry: retry.clone(), ..policy.clone() });
    }

    /// The state of the breaker at this moment; `None` when the policy has none.
    pub fn breaker_state(&self) -> Option<BreakerState> {
        self.shared.breaker_state()
    }

    /// The states that the breaker enters from now on. It also tells them by itself: as an event of
    /// the span that caused the change, in the log, as a decision, and as the metrics
    /// `throughline_breaker_state{target}` and `throughline_breaker_transitions_total`.
    pub fn subscribe_breaker(&self) -> watch::Receiver<BreakerState> {
        self.shared.subscribe()
    }

    /// Whether an attempt would be let through: the breaker is not open.
    pub fn is_available(&self) -> bool {
        !matches!(self.breaker_state(), Some(BreakerState::Open { .. }))
    }

    /// Runs an operation under the policy. `operation` is called once for every attempt with its
    /// index, from 0. Attempts beyond the first, and any that fails, are spans `attempt {name}`
    /// below the current one, which then carries `retry_count`.
    ///
    /// # Errors
    /// [`ResilientError`]: the last attempt's own error, or that time ran out, or the breaker or
    /// the bulkhead refused.
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
        self.shared.name(name);
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
