//! How what exists does as it is told: the agent's loop, retries, routers and fallbacks.

use std::sync::Arc;

use throughline_resilience::{Jitter, Policy, RetryPolicy};
use throughline_trace::{RetryJitter, RetryStrategy, RouteWeights};

use super::Steering;
use crate::agent::Steered;

/// What a run shall do between two steps. To stop comes before handing over.
pub(crate) fn between_steps() -> Option<Steered> {
    let steering = Steering::current();
    if let Some(told) = steering.stop() {
        let reason = told.reason();
        told.take_effect();
        return Some(Steered::Stop { reason });
    }
    let told = steering.handover()?;
    let reason = told.reason();
    told.take_effect();
    Some(Steered::HandOver { reason })
}

/// Why a fallback of this name must skip its primary.
pub(crate) fn forced_degraded(operation: &str) -> Option<String> {
    let told = Steering::current().forced_degraded(operation)?;
    let reason = told.reason();
    told.take_effect();
    Some(reason)
}

/// The policy of an operation of these names, with the retries that it is told to make.
pub(crate) fn policy_of(names: &[&str], own: Arc<Policy>) -> Arc<Policy> {
    match Steering::current().retry_of(names) {
        None => own,
        Some(told) => {
            let retry = overruled(&own.retry, &told.take_effect());
            Arc::new(Policy { retry, ..Policy::clone(&own) })
        }
    }
}

fn overruled(own: &RetryPolicy, strategy: &RetryStrategy) -> RetryPolicy {
    RetryPolicy {
        max_attempts: strategy.max_attempts,
        base_delay_ms: strategy.base_ms.unwrap_or(own.base_delay_ms),
        max_delay_ms: strategy.max_ms.unwrap_or(own.max_delay_ms),
        jitter: match strategy.jitter {
            None => own.jitter,
            Some(RetryJitter::None) => Jitter::None,
            Some(RetryJitter::Equal) => Jitter::Equal,
            Some(RetryJitter::Full) => Jitter::Full,
        },
        ..own.clone()
    }
}

/// The weights that a route is told to follow, if they are newer than its own and name only targets
/// that it has.
pub(crate) fn weights_of(
    own: &RouteWeights,
    is_target: impl Fn(&str) -> bool,
) -> Option<RouteWeights> {
    let told = Steering::current().route_weights(&own.route)?;
    let is_newer = told.value.generation > own.generation;
    let fits = told.value.targets.iter().all(|target| is_target(&target.name));
    (is_newer && fits).then(|| told.take_effect())
}
