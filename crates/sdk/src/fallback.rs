//! A primary with its fallback (requirement R4.2), for any asynchronous operation.

mod model;
mod switch;

use std::fmt::{self, Display};
use std::time::Duration;

use futures_util::future::BoxFuture;
use opentelemetry::KeyValue;
use serde::Serialize;
use throughline_resilience::{
    Branch, BranchEvent, ErrorSet, FallbackDecision, FallbackNext, FallbackPlan, FallbackResult,
    FallbackVerdict,
};
use throughline_trace::{DecisionId, ErrorType, SpanRole, keys};

use crate::decision::{AuditError, Input, decision};
use crate::metrics::Outcome;
use crate::resilient::Fault;
use crate::resilient::attempt::FaultReport;
use crate::resilient::run::report_of;
use crate::span::span;
use crate::watched::Watched;
pub use model::FallbackModel;
pub use switch::{DegradedSwitch, LimitReached};
use switch::{Until, limited};

/// The stage of the decision that a triggered fallback records.
const STAGE: &str = "fallback";

/// What the primary is called.
const PRIMARY: &str = "primary";

/// An operation with a primary and degraded branches. The branches are futures, so those that are
/// not needed never begin.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use throughline::{ErrorType, Fallback};
///
/// let stock = Fallback::new("stock", async { Err("connection refused") })
///     .degraded("cached_stock", async { Ok(17) })
///     .run_with(|_: &&str| ErrorType::Connection)
///     .await;
/// assert!(stock.is_ok_and(|stock| stock.value == 17 && stock.is_degraded()));
/// # });
/// # std::io::Result::Ok(())
/// ```
#[must_use = "a fallback does nothing until it runs"]
pub struct Fallback<'a, T, E> {
    operation: String,
    primary: BoxFuture<'a, Result<T, E>>,
    degraded: Vec<(String, BoxFuture<'a, Result<T, E>>)>,
    triggers: ErrorSet,
    input: Option<Input>,
    /// Why a degraded answer is ordered.
    forced: Option<String>,
}

/// The value that a branch of a [`Fallback`] brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered<T> {
    /// The value.
    pub value: T,
    /// The branch that brought it.
    pub branch: Branch,
    /// The decision to leave the primary; `None` when it answered itself.
    pub decision: Option<DecisionId>,
}

impl<T> Answered<T> {
    /// Whether a degraded branch answered.
    pub fn is_degraded(&self) -> bool {
        matches!(self.branch, Branch::Degraded(_))
    }
}

/// No branch of a [`Fallback`] answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FallbackError<E> {
    /// What the primary failed with.
    pub primary: E,
    /// What the degraded branches failed with, those that were tried.
    pub degraded: Vec<E>,
    error_type: ErrorType,
    outcome: Outcome,
    /// Why the next branch was not tried, when its record is not durable and must be.
    audit: Option<AuditError>,
}

impl<E> FallbackError<E> {
    /// Whether a further branch was not tried because its decision is not durable and must be.
    pub fn is_refused(&self) -> bool {
        self.audit.is_some()
    }
}

impl<E: Display> Display for FallbackError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(&self.primary, f)?;
        if let Some(last) = self.degraded.last() {
            write!(f, "; the fallback failed too: {last}")?;
        }
        match &self.audit {
            None => Ok(()),
            Some(error) => write!(f, "; the next branch was not started: {error}"),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for FallbackError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.primary)
    }
}

impl<E: Display> Fault for FallbackError<E> {
    fn error_type(&self) -> ErrorType {
        self.error_type
    }

    fn outcome(&self) -> Outcome {
        self.outcome
    }
}

impl<'a, T, E> Fallback<'a, T, E> {
    /// An operation of this name that is tried this way first.
    pub fn new(
        operation: impl Into<String>,
        primary: impl Future<Output = Result<T, E>> + Send + 'a,
    ) -> Self {
        Self {
            operation: operation.into(),
            primary: Box::pin(primary),
            degraded: Vec::new(),
            triggers: ErrorSet::FALLBACK_WORTHY,
            input: None,
            forced: None,
        }
    }

    /// Gives the primary up after this long: [`LimitReached`], a timeout, which calls for the
    /// fallback like any other failure.
    pub fn primary_within(mut self, limit: Duration) -> Self
    where
        T: Send + 'a,
        E: From<LimitReached> + Send + 'a,
    {
        self.primary = Box::pin(limited(limit, Until::Complete, self.primary));
        self
    }

    /// [`degraded`](Self::degraded), given up after this long.
    pub fn degraded_within(
        self,
        name: impl Into<String>,
        limit: Duration,
        branch: impl Future<Output = Result<T, E>> + Send + 'a,
    ) -> Self
    where
        T: Send + 'a,
        E: From<LimitReached> + Send + 'a,
    {
        self.degraded(name, limited(limit, Until::Complete, branch))
    }

    /// Leaves the primary out while the switch is thrown. An order whose decision must be durable and
    /// is not is not followed: the primary is tried.
    pub fn forced_by(mut self, switch: &DegradedSwitch) -> Self {
        self.forced = switch.reason();
        self
    }

    /// A way that is tried when all before it have failed. Its name is the action of the decision.
    pub fn degraded(
        mut self,
        name: impl Into<String>,
        branch: impl Future<Output = Result<T, E>> + Send + 'a,
    ) -> Self {
        self.degraded.push((name.into(), Box::pin(branch)));
        self
    }

    /// Failures that call for the fallback; [`ErrorSet::FALLBACK_WORTHY`] when not said.
    pub fn triggers(mut self, triggers: ErrorSet) -> Self {
        self.triggers = triggers;
        self
    }

    /// What the operation is about, for the input hash of the decision.
    pub fn input(mut self, input: &impl Serialize) -> Self {
        self.input = Some(Input::of(input));
        self
    }

    /// Runs it, as the span `fallback {operation}` with one child for each branch that was tried.
    ///
    /// # Errors
    /// [`FallbackError`] when no branch succeeded.
    pub async fn run(self) -> Result<Answered<T>, FallbackError<E>>
    where
        E: Fault,
    {
        self.run_described(report_of).await
    }

    /// [`run`](Self::run) for errors of any type: `classify` says what kind of failure each is.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_with(
        self,
        classify: impl Fn(&E) -> ErrorType,
    ) -> Result<Answered<T>, FallbackError<E>>
    where
        E: Display,
    {
        self.run_described(|error: &E| FaultReport::new(classify(error), error.to_string())).await
    }

    async fn run_described(
        self,
        describe: impl Fn(&E) -> FaultReport,
    ) -> Result<Answered<T>, FallbackError<E>> {
        let Self { operation, primary, degraded, triggers, input, forced } = self;
        let whole = Watched::new(
            span(format!("fallback {operation}")).role(SpanRole::Fallback).start(),
            Some("fallback"),
        );
        // Told by its caller, or by the server.
        let forced =
            forced.or_else(|| whole.span.in_scope(|| crate::steering::forced_degraded(&operation)));
        let mut decided: Option<DecisionId> = None;
        let first = degraded.first().map(|(name, _)| name.clone());
        if let (Some(order), Some(first)) = (forced, &first) {
            let why = format!("forced: {order}");
            match record(&whole, first, why, input.as_ref(), None).await {
                Ok(id) => decided = Some(id),
                Err(error) => whole.span.event("fallback.order_refused", refusal(&error)),
            }
        }
        let mut plan =
            FallbackPlan::new(degraded.len(), triggers).forced_degraded(decided.is_some());
        let mut degraded = degraded.into_iter();
        let mut failures: Vec<E> = Vec::new();
        let mut first_report: Option<FaultReport> = None;
        let (mut branch, mut name, mut work) = (Branch::Primary, PRIMARY.to_owned(), primary);
        if let FallbackNext::Run(first @ Branch::Degraded(_)) = plan.begin()
            && let Some((first_name, first_work)) = degraded.next()
        {
            (branch, name, work) = (first, first_name, first_work);
        }
        loop {
            let result = run_branch(&whole, &operation, branch, &name, work, &describe).await;
            let (event, report) = match &result {
                Ok(_) => (BranchEvent::Succeeded, None),
                Err((_, report)) => (BranchEvent::Failed(report.error_type), Some(report.clone())),
            };
            match (plan.on(event), degraded.next(), result) {
                (FallbackNext::Run(next), Some((next_name, next_work)), Err((error, report))) => {
                    let why =
                        format!("{name} failed with {}: {}", report.error_type, report.message);
                    match record(&whole, &next_name, why, input.as_ref(), decided).await {
                        Ok(id) => decided = Some(id),
                        Err(audit) => return refuse(&whole, branch, audit, failures, error),
                    }
                    first_report = first_report.or(Some(report));
                    failures.push(error);
                    (branch, name, work) = (next, next_name, next_work);
                }
                (FallbackNext::Done(verdict), _, result) => {
                    let first = first_report.or(report);
                    close(&whole, verdict, first.as_ref());
                    return settle(result, verdict, decided, failures, first);
                }
                // The plan knows how many branches there are.
                (FallbackNext::Run(_), _, result) => {
                    let verdict = FallbackVerdict {
                        decision: FallbackDecision::Skipped,
                        branch,
                        result: FallbackResult::Failed,
                    };
                    close(&whole, verdict, report.as_ref());
                    return settle(result, verdict, decided, failures, report);
                }
            }
        }
    }
}

impl<T, E> fmt::Debug for Fallback<'_, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let degraded: Vec<&str> = self.degraded.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Fallback")
            .field("operation", &self.operation)
            .field("degraded", &degraded)
            .finish_non_exhaustive()
    }
}

/// Writes the verdict of the whole.
fn close(whole: &Watched, verdict: FallbackVerdict, first: Option<&FaultReport>) {
    whole.span.set_all([
        KeyValue::new(keys::FALLBACK_DECISION, verdict.decision.as_str()),
        KeyValue::new(keys::FALLBACK_BRANCH, verdict.branch.as_str()),
        KeyValue::new(keys::FALLBACK_RESULT, verdict.result.as_str()),
    ]);
    match (verdict.result, verdict.branch) {
        (FallbackResult::Success, Branch::Primary) => whole.tell(Outcome::Ok),
        (FallbackResult::Success, Branch::Degraded(_)) => whole.tell(Outcome::FallbackDegraded),
        (FallbackResult::Failed, Branch::Primary) => {
            let outcome = first.map_or(Outcome::Error, |first| first.outcome);
            whole.end(outcome, first);
        }
        (FallbackResult::Failed, Branch::Degraded(_)) => {
            let reason = first.map(|first| first.message.as_str()).unwrap_or_default();
            let message = format!("every branch failed; the first: {reason}");
            whole.span.fail(ErrorType::FallbackExhausted, message);
            whole.tell(Outcome::Error);
        }
    }
}

/// One branch, in a span of its own below the whole.
async fn run_branch<T, E>(
    whole: &Watched,
    operation: &str,
    branch: Branch,
    name: &str,
    work: BoxFuture<'_, Result<T, E>>,
    describe: &impl Fn(&E) -> FaultReport,
) -> Result<T, (E, FaultReport)> {
    let attempt = span(format!("attempt {operation}"))
        .role(SpanRole::Attempt)
        .attribute(keys::FALLBACK_BRANCH, branch.as_str())
        .attribute(keys::FALLBACK_NAME, name.to_owned())
        .parent(whole.span.context())
        .start();
    let attempt = Watched::new(attempt, None);
    let result = attempt.span.instrument(work).await;
    match result {
        Ok(value) => {
            attempt.end(Outcome::Ok, None);
            Ok(value)
        }
        Err(error) => {
            let report = describe(&error);
            attempt.end(report.outcome, Some(&report));
            Err((error, report))
        }
    }
}

/// Records that the operation goes on with the branch `action`.
async fn record(
    whole: &Watched,
    action: &str,
    reason: String,
    input: Option<&Input>,
    parent: Option<DecisionId>,
) -> Result<DecisionId, AuditError> {
    let decided = decision(STAGE).action(action).reason(reason).on(&whole.span).parent_if(parent);
    match input {
        Some(input) => decided.prepared(input.clone()).record_audited().await,
        None => decided.record_audited().await,
    }
}

fn refusal(error: &AuditError) -> Vec<KeyValue> {
    vec![
        KeyValue::new(keys::ERROR_TYPE, error.error_type().as_str()),
        KeyValue::new(keys::ERROR_MESSAGE, error.to_string()),
    ]
}

/// The next branch must not be tried: its decision is not durable.
fn refuse<T, E>(
    whole: &Watched,
    branch: Branch,
    audit: AuditError,
    failures: Vec<E>,
    error: E,
) -> Result<Answered<T>, FallbackError<E>> {
    let decision = match branch {
        Branch::Primary => FallbackDecision::Skipped,
        Branch::Degraded(_) => FallbackDecision::Triggered,
    };
    whole.span.set_all([
        KeyValue::new(keys::FALLBACK_DECISION, decision.as_str()),
        KeyValue::new(keys::FALLBACK_BRANCH, branch.as_str()),
        KeyValue::new(keys::FALLBACK_RESULT, FallbackResult::Failed.as_str()),
    ]);
    let error_type = audit.error_type();
    whole.span.fail(error_type, format!("the next branch was not started: {audit}"));
    whole.tell(Outcome::PolicyRejected);
    let (primary, degraded) = told_apart(failures, error);
    let outcome = Outcome::PolicyRejected;
    Err(FallbackError { primary, degraded, error_type, outcome, audit: Some(audit) })
}

/// The error of the first branch, and those of the others.
fn told_apart<E>(mut failures: Vec<E>, last: E) -> (E, Vec<E>) {
    failures.push(last);
    let degraded = failures.split_off(1);
    (failures.swap_remove(0), degraded)
}

fn settle<T, E>(
    result: Result<T, (E, FaultReport)>,
    verdict: FallbackVerdict,
    decision: Option<DecisionId>,
    failures: Vec<E>,
    first: Option<FaultReport>,
) -> Result<Answered<T>, FallbackError<E>> {
    match result {
        Ok(value) => Ok(Answered { value, branch: verdict.branch, decision }),
        Err((error, report)) if failures.is_empty() => {
            let FaultReport { error_type, outcome, .. } = first.unwrap_or(report);
            let (primary, degraded) = (error, Vec::new());
            Err(FallbackError { primary, degraded, error_type, outcome, audit: None })
        }
        Err((error, _)) => {
            let (primary, degraded) = told_apart(failures, error);
            let (error_type, outcome) = (ErrorType::FallbackExhausted, Outcome::Error);
            Err(FallbackError { primary, degraded, error_type, outcome, audit: None })
        }
    }
}
