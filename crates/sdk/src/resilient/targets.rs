//! What all operations against one target share: the machines behind locks, a clock, and who is
//! told when the breaker changes.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry::{Context, KeyValue};
use throughline_resilience::{BreakerChange, BreakerCounts, BreakerState, Moment, Policy, Target};
use throughline_trace::keys;
use tokio::sync::watch;
use tokio::time::Instant;

use super::gate::Gate;
use crate::decision::decision;
use crate::metrics::BreakerMetric;

/// Targets of one policy that have a breaker of their own; what comes after shares one.
const MAX_TARGETS: usize = 1_024;

/// The stage of the decisions that breakers take.
const STAGE: &str = "breaker";

/// All named targets of the process, for [`breakers`].
static NAMED: LazyLock<Mutex<Vec<Weak<Shared>>>> = LazyLock::new(Mutex::default);

/// One policy, and its targets.
#[derive(Debug)]
pub(super) struct Rules {
    policy: Arc<ArcSwap<Policy>>,
    targets: Mutex<HashMap<Arc<str>, Arc<Shared>>>,
    seed: Option<u64>,
}

impl Rules {
    pub(super) fn new(policy: Policy, seed: Option<u64>) -> (Arc<Self>, Arc<Shared>) {
        let policy = Arc::new(ArcSwap::from_pointee(policy));
        let base = Arc::new(Shared::new(Arc::clone(&policy), seed));
        let targets = Mutex::new(HashMap::from([(Arc::from(""), Arc::clone(&base))]));
        (Arc::new(Self { policy, targets, seed }), base)
    }

    /// The target of this name, made when it is new.
    pub(super) fn target(&self, name: &str) -> Arc<Shared> {
        let mut targets = locked(&self.targets);
        if let Some(shared) = targets.get(name) {
            return Arc::clone(shared);
        }
        let shared = Arc::new(Shared::new(Arc::clone(&self.policy), self.seed));
        if targets.len() < MAX_TARGETS {
            shared.name(name);
            targets.insert(Arc::from(name), Arc::clone(&shared));
            return shared;
        }
        targets.get("").cloned().unwrap_or(shared)
    }

    pub(super) fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// Puts another policy in place of the one that is.
    pub(super) fn replace(&self, change: impl Fn(&Policy) -> Policy) {
        self.policy.rcu(|policy| change(policy));
        let policy = self.policy.load();
        for shared in locked(&self.targets).values() {
            shared.target().reconfigure(&policy);
            shared.gate.reconfigure(policy.bulkhead.as_ref());
        }
    }
}

/// One target.
#[derive(Debug)]
pub(crate) struct Shared {
    policy: Arc<ArcSwap<Policy>>,
    name: OnceLock<Arc<str>>,
    target: Mutex<Target>,
    pub(super) gate: Gate,
    states: watch::Sender<BreakerState>,
    origin: Instant,
    pub(super) seed: Option<u64>,
}

impl Shared {
    fn new(policy: Arc<ArcSwap<Policy>>, seed: Option<u64>) -> Self {
        let target = Mutex::new(Target::new(&policy.load()));
        Self {
            policy,
            name: OnceLock::new(),
            target,
            gate: Gate::default(),
            states: watch::Sender::new(BreakerState::Closed),
            origin: Instant::now(),
            seed,
        }
    }

    /// The policy of this moment.
    pub(super) fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// Names the target; a name that it has stays.
    pub(super) fn name(self: &Arc<Self>, name: &str) {
        if self.name.get().is_none() && self.name.set(Arc::from(name)).is_ok() {
            let mut named = locked(&NAMED);
            named.retain(|other| other.strong_count() > 0);
            named.push(Arc::downgrade(self));
        }
    }

    pub(crate) fn now(&self) -> Moment {
        self.moment(Instant::now())
    }

    pub(super) fn moment(&self, at: Instant) -> Moment {
        Moment::from_origin(at.saturating_duration_since(self.origin))
    }

    /// When a moment comes; the far future when the clock cannot say it.
    pub(crate) fn instant(&self, moment: Moment) -> Instant {
        const FAR: Duration = Duration::from_secs(86_400 * 365);
        let at = self.origin.checked_add(moment.since_origin());
        at.unwrap_or_else(|| Instant::now() + FAR)
    }

    pub(crate) fn target(&self) -> MutexGuard<'_, Target> {
        locked(&self.target)
    }

    pub(super) fn breaker_state(&self) -> Option<BreakerState> {
        let now = self.now();
        self.target().breaker().map(|breaker| breaker.state(now))
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<BreakerState> {
        self.states.subscribe()
    }

    fn shown_name(&self) -> &str {
        self.name.get().map_or("unnamed", |name| name)
    }

    /// Tells whoever wants to know that the breaker changed: the span that caused it, the log, the
    /// decision log, the metrics, the subscribers.
    pub(super) fn tell(&self, change: BreakerChange, cx: &Context) {
        let (from, to, name) = (change.from.as_str(), change.to.as_str(), self.shown_name());
        self.states.send_replace(change.to);
        let _attached = cx.clone().attach();
        cx.span().add_event(
            "breaker.state_changed",
            vec![
                KeyValue::new(keys::BREAKER_TARGET, name.to_owned()),
                KeyValue::new(keys::BREAKER_FROM, from),
                KeyValue::new(keys::BREAKER_STATE, to),
            ],
        );
        match change.to {
            BreakerState::Open { .. } => {
                tracing::warn!(target: "throughline::resilience", breaker = name, from, to, "breaker opened")
            }
            _ => {
                tracing::info!(target: "throughline::resilience", breaker = name, from, to, "breaker changed")
            }
        }
        let reason = match change.to {
            BreakerState::Open { .. } => "too many attempts failed",
            BreakerState::HalfOpen => "it was open long enough to try again",
            BreakerState::Closed => "the attempts to see succeeded",
        };
        decision(STAGE)
            .action(to)
            .reason(format!("{name}: {reason}"))
            .attribute(keys::BREAKER_TARGET, name.to_owned())
            .record();
        BreakerMetric { target: name, state: change.to }.record();
    }

    /// Records that the breaker refused an attempt.
    pub(super) fn tell_refusal(&self, cx: &Context) {
        let _attached = cx.clone().attach();
        let name = self.shown_name();
        decision(STAGE)
            .action("refuse")
            .reason(format!("{name}: the circuit is open after too many failures"))
            .attribute(keys::BREAKER_TARGET, name.to_owned())
            .record();
    }

    fn report(&self) -> Option<BreakerReport> {
        let now = self.now();
        let target = self.target();
        let breaker = target.breaker()?;
        Some(BreakerReport {
            target: self.shown_name().to_owned(),
            state: breaker.state(now),
            counts: breaker.counts(now),
        })
    }
}

/// The breaker of one target at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerReport {
    /// What it guards: `{provider}/{model}` of a chat model, else as
    /// [`Resilience::named`](crate::Resilience::named) says.
    pub target: String,
    /// Its state.
    pub state: BreakerState,
    /// Attempts in its window.
    pub counts: BreakerCounts,
}

/// The breakers of all named targets of the process, sorted by name: what a page or a control plane
/// shows.
pub fn breakers() -> Vec<BreakerReport> {
    let shared: Vec<Arc<Shared>> = locked(&NAMED).iter().filter_map(Weak::upgrade).collect();
    let mut reports: Vec<BreakerReport> =
        shared.iter().filter_map(|shared| shared.report()).collect();
    reports.sort_by(|one, other| one.target.cmp(&other.target));
    reports
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
