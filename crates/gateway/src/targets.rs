//! What all requests to one model of one provider share: the machines of breaker and retry budget,
//! behind a lock that is held for no wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use throughline_resilience::{BreakerState, Moment, Policy, Target};
use tokio::time::Instant;

/// Targets with a breaker of their own; a client may name any model, and what comes after these
/// shares one.
const MAX_TARGETS: usize = 1_024;

/// What those share is called in metrics.
const OTHER: &str = "other";

/// Every target that was asked so far.
#[derive(Debug)]
pub(crate) struct Targets {
    origin: Instant,
    all: Mutex<HashMap<String, Arc<Shared>>>,
}

impl Default for Targets {
    fn default() -> Self {
        Self { origin: Instant::now(), all: Mutex::default() }
    }
}

impl Targets {
    /// The target of a model at a provider. A policy that has changed holds from now on; the breaker
    /// keeps its state.
    pub(crate) fn get(&self, provider: &str, model: &str, policy: &Arc<Policy>) -> Arc<Shared> {
        let mut all = locked(&self.all);
        let mut name = format!("{provider}/{model}");
        if !all.contains_key(&name) && all.len() >= MAX_TARGETS {
            OTHER.clone_into(&mut name);
        }
        let shared = all.entry(name).or_insert_with_key(|name| {
            Arc::new(Shared {
                name: name.clone(),
                policy: ArcSwap::new(Arc::clone(policy)),
                target: Mutex::new(Target::new(policy)),
                origin: self.origin,
            })
        });
        let held = shared.policy.load();
        if !Arc::ptr_eq(&held, policy) && **held != **policy {
            shared.target().reconfigure(policy);
        }
        shared.policy.store(Arc::clone(policy));
        Arc::clone(shared)
    }
}

/// One target.
#[derive(Debug)]
pub(crate) struct Shared {
    /// `{provider}/{model}`.
    pub(crate) name: String,
    policy: ArcSwap<Policy>,
    target: Mutex<Target>,
    origin: Instant,
}

impl Shared {
    pub(crate) fn target(&self) -> MutexGuard<'_, Target> {
        locked(&self.target)
    }

    pub(crate) fn now(&self) -> Moment {
        Moment::from_origin(self.origin.elapsed())
    }

    /// What the machines call this moment.
    pub(crate) fn moment(&self, at: Instant) -> Moment {
        Moment::from_origin(at.saturating_duration_since(self.origin))
    }

    /// When a moment comes.
    pub(crate) fn instant(&self, moment: Moment) -> Instant {
        self.origin.checked_add(moment.since_origin()).unwrap_or_else(Instant::now)
    }

    /// Whether its breaker lets requests through.
    pub(crate) fn is_available(&self) -> bool {
        let now = self.now();
        let target = self.target();
        let state = target.breaker().map(|breaker| breaker.state(now));
        !matches!(state, Some(BreakerState::Open { .. }))
    }

    /// When its breaker lets requests through again, if it is open.
    pub(crate) fn opens_in(&self) -> Option<std::time::Duration> {
        let now = self.now();
        let target = self.target();
        match target.breaker()?.state(now) {
            BreakerState::Open { until } => Some(until.since(now)),
            _ => None,
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
