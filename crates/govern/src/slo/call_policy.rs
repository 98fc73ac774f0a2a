//! A policy in Rego over calls, asked about each span that is one: it must not hold the store up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use throughline_rules::rego::{RegoError, RegoLimits, RegoPolicy};
use throughline_rules::schemas::Call;

/// How long a policy may take over one call where its rule says nothing. Spans are written behind it.
pub const CALL_TIME: Duration = Duration::from_millis(10);

/// How long it may be given at most.
pub const MAX_CALL_TIME: Duration = Duration::from_millis(100);

/// Calls in a row that a policy may take longer over; then it is not asked again before it is loaded anew.
pub const MAX_OVERRUNS: u32 = 20;

/// A policy over calls. Copies of it count what it takes together.
#[derive(Debug, Clone)]
pub struct CallPolicy {
    policy: RegoPolicy,
    overruns: Arc<AtomicU32>,
}

impl CallPolicy {
    /// A policy over the documents of [`Call::to_json`].
    pub fn new(policy: RegoPolicy) -> Self {
        Self { policy, overruns: Arc::default() }
    }

    /// What it may cost where its rule says nothing.
    pub fn usual_limits() -> RegoLimits {
        RegoLimits { time: CALL_TIME, ..RegoLimits::default() }
    }

    /// The policy.
    pub fn policy(&self) -> &RegoPolicy {
        &self.policy
    }

    /// Whether it took too long too often, and is not asked any more.
    pub fn is_given_up(&self) -> bool {
        self.overruns.load(Ordering::Relaxed) >= MAX_OVERRUNS
    }

    /// Whether a call is as it shall be: allowed, or without a violation. `None` when the policy has no
    /// answer, as when it takes too long: the call is neither good nor bad.
    pub fn is_good(&self, call: &Call<'_>) -> Option<bool> {
        if self.is_given_up() {
            return None;
        }
        match self.policy.ask(call.to_json()) {
            Err(RegoError::Time { .. }) => {
                self.overruns.fetch_add(1, Ordering::Relaxed);
                None
            }
            told => {
                self.overruns.store(0, Ordering::Relaxed);
                told.ok().map(|answer| !answer.is_breach)
            }
        }
    }
}
