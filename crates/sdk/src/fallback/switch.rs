//! The switch that orders degraded answers, and the limit of a single branch.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use opentelemetry::Context;
use throughline_trace::ErrorType;

use crate::chat::ChatError;
use crate::instrument::in_context;
use crate::resilient::{Fault, spoken};
use crate::work_scope::WorkScope;

/// Orders degraded answers while it is thrown: fallbacks that hold a clone leave their primary out.
/// For directives and for people.
///
/// ```
/// use throughline::DegradedSwitch;
///
/// let switch = DegradedSwitch::new();
/// switch.force("the provider bills twice");
/// assert_eq!(switch.reason().as_deref(), Some("the provider bills twice"));
/// switch.release();
/// assert!(!switch.is_forced());
/// ```
#[derive(Debug, Clone, Default)]
pub struct DegradedSwitch(Arc<ArcSwapOption<String>>);

impl DegradedSwitch {
    /// One that orders nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Orders degraded answers from now on, and says why.
    pub fn force(&self, reason: impl Into<String>) {
        self.0.store(Some(Arc::new(reason.into())));
    }

    /// Takes the order back.
    pub fn release(&self) {
        self.0.store(None);
    }

    /// Whether degraded answers are ordered.
    pub fn is_forced(&self) -> bool {
        self.0.load().is_some()
    }

    /// Why they are; `None` when they are not.
    pub fn reason(&self) -> Option<String> {
        self.0.load().as_deref().cloned()
    }
}

/// A branch of a fallback took longer than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitReached {
    /// Its limit.
    pub limit: Duration,
}

impl fmt::Display for LimitReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer within {}", spoken(self.limit))
    }
}

impl std::error::Error for LimitReached {}

impl Fault for LimitReached {
    fn error_type(&self) -> ErrorType {
        ErrorType::Timeout
    }
}

impl From<LimitReached> for ChatError {
    fn from(reached: LimitReached) -> Self {
        Self::new(ErrorType::Timeout, reached.to_string())
    }
}

/// What of a branch's work a limit is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Until {
    /// All of it.
    Complete,
    /// The opening of a stream, which then goes on for as long as it takes.
    FirstContent,
}

/// The work, given up at its limit. What obeys a policy below ends by itself then, and says that it
/// was for time.
pub(super) async fn limited<T, E: From<LimitReached>>(
    limit: Duration,
    until: Until,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let cx = match until {
        Until::Complete => WorkScope::over_within(limit, &Context::current()),
        Until::FirstContent => WorkScope::opened_within(limit, &Context::current()),
    };
    match tokio::time::timeout(limit, in_context(cx, work)).await {
        Ok(result) => result,
        Err(_) => Err(LimitReached { limit }.into()),
    }
}
