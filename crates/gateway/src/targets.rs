//! What all requests to one model of one provider share: the machines of breaker and retry budget,
//! behind a lock that is held for no wait.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use throughline_llm::RateLimits;
use throughline_resilience::{BreakerState, Moment, Target};
use tokio::time::Instant;

use crate::metrics::TargetCounters;
use crate::plan::Plan;
use crate::prices::{Price, Prices};

/// Targets with a breaker of their own; a client may name any model, and what comes after these
/// shares one.
const MAX_TARGETS: usize = 1_024;

/// How long a target is believed to be used up, at most: limits of a day may be raised meanwhile.
const MAX_USED_UP: Duration = Duration::from_secs(600);

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
    /// The target of a model at a provider. Its breaker and budget follow the plan, whichever route is
    /// asked for: a policy that a later plan has changed holds from now on, and the breaker keeps its
    /// state.
    pub(crate) fn get(&self, plan: &Plan, provider: &str, model: &str) -> Arc<Shared> {
        let mut all = locked(&self.all);
        let mut name = [provider, "/", model].concat();
        if !all.contains_key(&name) && all.len() >= MAX_TARGETS {
            OTHER.clone_into(&mut name);
        }
        let shared = all.entry(name).or_insert_with_key(|name| {
            Arc::new(Shared {
                name: name.clone(),
                counters: TargetCounters::default(),
                priced: ArcSwapOption::empty(),
                is_unpriced_told: AtomicBool::new(false),
                refuses_usage: AtomicBool::new(false),
                plan: AtomicU64::new(plan.number),
                target: Mutex::new(Target::new(plan.policy_of(provider, model))),
                used_up_until: AtomicU64::new(0),
                origin: self.origin,
            })
        });
        // Requests that began under an earlier plan change nothing.
        if shared.plan.fetch_max(plan.number, Ordering::Relaxed) < plan.number {
            shared.target().reconfigure(plan.policy_of(provider, model));
            // Its server may be another one by now.
            shared.refuses_usage.store(false, Ordering::Relaxed);
        }
        Arc::clone(shared)
    }

    /// All of them, by name.
    pub(crate) fn all(&self) -> Vec<Arc<Shared>> {
        let mut all: Vec<Arc<Shared>> = locked(&self.all).values().map(Arc::clone).collect();
        all.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        all
    }
}

/// One target.
#[derive(Debug)]
pub(crate) struct Shared {
    /// `{provider}/{model}`.
    pub(crate) name: String,
    pub(crate) counters: TargetCounters,
    /// The model that answered last, with its price: most answers are of the same.
    priced: ArcSwapOption<Priced>,
    /// Whether the log says that there is no price.
    is_unpriced_told: AtomicBool,
    /// Its provider refuses to be asked for the usage of a stream.
    refuses_usage: AtomicBool,
    /// The number of the plan that its breaker and budget follow.
    plan: AtomicU64,
    target: Mutex<Target>,
    /// Until when its provider's rate limit is used up, milliseconds since the origin.
    used_up_until: AtomicU64,
    origin: Instant,
}

/// What was found out about the price of a model.
#[derive(Debug)]
struct Priced {
    prices: Arc<Prices>,
    answered: Option<String>,
    asked: String,
    price: Option<Price>,
}

impl Shared {
    /// What an answer tells of the rate limits.
    pub(crate) fn learn(&self, limits: Option<RateLimits>) {
        let Some(limits) = limits else { return };
        match limits.pause() {
            Some(pause) => self.used_up_for(pause),
            None if limits.remaining_requests.is_some() => {
                self.used_up_until.store(0, Ordering::Relaxed);
            }
            None => {}
        }
    }

    /// The provider asks for so long a pause.
    pub(crate) fn used_up_for(&self, pause: Duration) {
        let until = self.origin.elapsed() + pause.min(MAX_USED_UP);
        let until = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        self.used_up_until.store(until, Ordering::Relaxed);
    }

    /// How long its rate limit is still used up, as far as is known.
    pub(crate) fn is_used_up_for(&self) -> Option<Duration> {
        let until = Duration::from_millis(self.used_up_until.load(Ordering::Relaxed));
        until.checked_sub(self.origin.elapsed()).filter(|left| !left.is_zero())
    }

    /// The price of a call, of the model that answered and the one that was asked; without one the log
    /// says so, once.
    pub(crate) fn price(
        &self,
        prices: &Arc<Prices>,
        answered: Option<&str>,
        asked: &str,
    ) -> Option<Price> {
        let is_it = |last: &&Priced| {
            Arc::ptr_eq(&last.prices, prices)
                && last.answered.as_deref() == answered
                && last.asked == asked
        };
        if let Some(last) = self.priced.load().as_deref().filter(is_it) {
            return last.price.clone();
        }
        let price = prices.price(answered, asked);
        if price.is_none() && !self.is_unpriced_told.swap(true, Ordering::Relaxed) {
            let model = self.name.as_str();
            tracing::warn!(
                model,
                "the price of a model is not known: its calls have no cost, and keys with a limit of \
                 money may not ask for it; `gateway.prices` may name one"
            );
        }
        self.priced.store(Some(Arc::new(Priced {
            prices: Arc::clone(prices),
            answered: answered.map(str::to_owned),
            asked: asked.to_owned(),
            price: price.clone(),
        })));
        price
    }

    /// Whether its provider is known to refuse to be asked for the usage of a stream.
    pub(crate) fn refuses_usage(&self) -> bool {
        self.refuses_usage.load(Ordering::Relaxed)
    }

    /// Its provider refused to be asked for the usage of a stream.
    pub(crate) fn usage_refused(&self) {
        if !self.refuses_usage.swap(true, Ordering::Relaxed) {
            let target = self.name.as_str();
            tracing::warn!(
                model = target,
                "the provider refuses `stream_options.include_usage`: the tokens of its streams are \
                 estimated; `stream_usage: false` spares it the question"
            );
        }
    }

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

    /// Whether its breaker lets one more request through, and its provider as far as is known.
    pub(crate) fn is_available(&self) -> bool {
        if self.is_used_up_for().is_some() {
            return false;
        }
        let now = self.now();
        let target = self.target();
        target.breaker().is_none_or(|breaker| breaker.is_passable(now))
    }

    /// When its breaker lets requests through again, if it is open.
    pub(crate) fn opens_in(&self) -> Option<Duration> {
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
