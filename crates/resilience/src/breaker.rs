//! The breaker of a target: after too many failures it refuses attempts for a while, then lets a
//! few through to see.

use throughline_trace::ErrorType;

use crate::moment::Moment;
use crate::policy::{BreakerPolicy, millis};

/// Buckets that the window is counted in: old attempts leave it a tenth at a time.
const BUCKETS: usize = 10;

/// Whether a target is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// It is.
    Closed,
    /// It is left alone.
    Open {
        /// Until when.
        until: Moment,
    },
    /// A few attempts are let through to see.
    HalfOpen,
}

impl BreakerState {
    /// Name for attributes and pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open { .. } => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// A breaker went from one state to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerChange {
    /// The state that it left.
    pub from: BreakerState,
    /// The state that it entered.
    pub to: BreakerState,
}

/// Attempts in the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BreakerCounts {
    /// Attempts that succeeded, or failed in a way that does not speak against the target.
    pub succeeded: u32,
    /// Attempts that failed.
    pub failed: u32,
}

/// Leave for one attempt. It goes back to the breaker with the result; whoever cannot say a result
/// gives it back with [`Breaker::release`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit that is not given back holds a place in a half-open breaker"]
pub struct Permit {
    generation: u64,
    /// The attempt has counted as a success, in the bucket of the window with this number.
    counted_in: Option<u128>,
}

/// The breaker refuses an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the circuit is open after too many failures; try again later")]
pub struct Refused {
    /// When it will let attempts through again; `None` while attempts are under way to find out.
    pub until: Option<Moment>,
}

/// A breaker.
#[derive(Debug, Clone)]
pub struct Breaker {
    policy: BreakerPolicy,
    state: State,
    /// Counts changes of state: a result that belongs to an earlier state no longer counts.
    generation: u64,
    window: Window,
    /// The last change that nobody has been told of.
    change: Option<BreakerChange>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed,
    Open { until: Moment },
    HalfOpen { in_flight: u32, succeeded: u32 },
}

impl State {
    /// The state as it was entered, without regard to time.
    fn entered(self) -> BreakerState {
        match self {
            Self::Closed => BreakerState::Closed,
            Self::Open { until } => BreakerState::Open { until },
            Self::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }
}

impl Breaker {
    /// A closed breaker.
    pub fn new(policy: BreakerPolicy) -> Self {
        let window = Window::new(policy.window_ms);
        Self { policy, state: State::Closed, generation: 0, window, change: None }
    }

    /// Asks leave for an attempt.
    ///
    /// # Errors
    /// [`Refused`] while the breaker is open, or half open with all its probes under way.
    pub fn acquire(&mut self, now: Moment) -> Result<Permit, Refused> {
        self.half_open_when_due(now);
        match &mut self.state {
            State::Closed => {}
            State::Open { until } => return Err(Refused { until: Some(*until) }),
            State::HalfOpen { in_flight, succeeded } => {
                if *in_flight + *succeeded >= self.policy.half_open_probes.max(1) {
                    return Err(Refused { until: None });
                }
                *in_flight += 1;
            }
        }
        Ok(Permit { generation: self.generation, counted_in: None })
    }

    /// Whether leave for an attempt would be given at this moment.
    pub fn is_passable(&self, now: Moment) -> bool {
        match self.state {
            State::Closed => true,
            State::Open { until } => now >= until,
            State::HalfOpen { in_flight, succeeded } => {
                in_flight + succeeded < self.policy.half_open_probes.max(1)
            }
        }
    }

    /// An attempt has begun to answer: it counts as a success from now on, and no longer holds a place
    /// in a half-open breaker, since a streamed answer may take minutes. A failure that is recorded
    /// with the permit later takes the place of that success.
    pub fn record_begun(&mut self, permit: &mut Permit, now: Moment) {
        if permit.counted_in.is_some() {
            return;
        }
        let is_current = permit.generation == self.generation;
        permit.counted_in = Some(self.window.number(now));
        if is_current {
            self.count(false, now);
            // Its success may have closed the breaker; how its answer ends counts there.
            permit.generation = self.generation;
        }
    }

    /// An attempt ended: well (`None`), or with a failure.
    pub fn record(&mut self, permit: Permit, failure: Option<ErrorType>, now: Moment) {
        if permit.generation != self.generation {
            return;
        }
        let is_failure = failure.is_some_and(|kind| self.policy.counts.contains(kind));
        match permit.counted_in {
            Some(_) if !is_failure => return,
            Some(number) => self.window.take_back(number),
            None => {}
        }
        self.count(is_failure, now);
    }

    fn count(&mut self, is_failure: bool, now: Moment) {
        match &mut self.state {
            State::Closed => {
                self.window.count(is_failure, now);
                let counts = self.window.counts(now);
                let all = counts.succeeded.saturating_add(counts.failed);
                let ratio = f64::from(counts.failed) / f64::from(all.max(1));
                let is_enough = all >= self.policy.min_attempts.max(1) && counts.failed > 0;
                if is_failure && is_enough && ratio >= self.policy.failure_ratio {
                    self.open(now);
                }
            }
            State::HalfOpen { .. } if is_failure => self.open(now),
            State::HalfOpen { in_flight, succeeded } => {
                *in_flight = in_flight.saturating_sub(1);
                *succeeded += 1;
                if *succeeded >= self.policy.half_open_probes.max(1) {
                    self.window = Window::new(self.policy.window_ms);
                    self.enter(State::Closed);
                }
            }
            State::Open { .. } => {}
        }
    }

    /// An attempt was given up without a result.
    pub fn release(&mut self, permit: Permit) {
        if permit.generation == self.generation
            && permit.counted_in.is_none()
            && let State::HalfOpen { in_flight, .. } = &mut self.state
        {
            *in_flight = in_flight.saturating_sub(1);
        }
    }

    /// The state at this moment.
    pub fn state(&self, now: Moment) -> BreakerState {
        match self.state {
            State::Closed => BreakerState::Closed,
            State::Open { until } if now < until => BreakerState::Open { until },
            State::Open { .. } | State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// What changed since this was last asked: the state of then and the state of now, when they
    /// differ. That an open breaker may be tried again is told with the attempt that does.
    pub fn take_change(&mut self) -> Option<BreakerChange> {
        self.change.take().filter(|change| change.from != change.to)
    }

    /// Another policy from now on; the state stays. The counts begin anew when the window changes.
    pub fn reconfigure(&mut self, policy: BreakerPolicy) {
        if policy.window_ms != self.policy.window_ms {
            self.window = Window::new(policy.window_ms);
        }
        self.policy = policy;
    }

    /// Attempts in the window at this moment.
    pub fn counts(&self, now: Moment) -> BreakerCounts {
        self.window.counts(now)
    }

    fn half_open_when_due(&mut self, now: Moment) {
        if let State::Open { until } = self.state
            && now >= until
        {
            self.enter(State::HalfOpen { in_flight: 0, succeeded: 0 });
        }
    }

    fn open(&mut self, now: Moment) {
        self.enter(State::Open { until: now + millis(self.policy.open_ms) });
    }

    fn enter(&mut self, state: State) {
        let (from, to) = (self.state.entered(), state.entered());
        let from = self.change.map_or(from, |change| change.from);
        self.change = Some(BreakerChange { from, to });
        self.state = state;
        self.generation += 1;
    }
}

/// Counts of the last while, in buckets.
#[derive(Debug, Clone)]
struct Window {
    bucket_nanos: u128,
    buckets: [(u128, BreakerCounts); BUCKETS],
}

impl Window {
    fn new(window_ms: u64) -> Self {
        let bucket_nanos = (millis(window_ms).as_nanos() / BUCKETS as u128).max(1);
        Self { bucket_nanos, buckets: [(0, BreakerCounts::default()); BUCKETS] }
    }

    fn number(&self, now: Moment) -> u128 {
        now.since_origin().as_nanos() / self.bucket_nanos
    }

    fn count(&mut self, is_failure: bool, now: Moment) {
        let number = self.number(now);
        let (held, counts) = &mut self.buckets[(number % BUCKETS as u128) as usize];
        if *held != number {
            (*held, *counts) = (number, BreakerCounts::default());
        }
        let slot = if is_failure { &mut counts.failed } else { &mut counts.succeeded };
        *slot = slot.saturating_add(1);
    }

    /// Takes a success back that was counted in a bucket, if the bucket still is there.
    fn take_back(&mut self, number: u128) {
        let (held, counts) = &mut self.buckets[(number % BUCKETS as u128) as usize];
        if *held == number {
            counts.succeeded = counts.succeeded.saturating_sub(1);
        }
    }

    fn counts(&self, now: Moment) -> BreakerCounts {
        let number = self.number(now);
        let is_recent = |held: u128| held <= number && number - held < BUCKETS as u128;
        self.buckets.iter().filter(|(held, _)| is_recent(*held)).fold(
            BreakerCounts::default(),
            |sum, (_, counts)| BreakerCounts {
                succeeded: sum.succeeded.saturating_add(counts.succeeded),
                failed: sum.failed.saturating_add(counts.failed),
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy() -> BreakerPolicy {
        BreakerPolicy { min_attempts: 4, half_open_probes: 2, ..BreakerPolicy::default() }
    }

    fn at(millis: u64) -> Moment {
        Moment::from_millis(millis)
    }

    fn attempt(breaker: &mut Breaker, failure: Option<ErrorType>, now: Moment) {
        let permit = breaker.acquire(now).unwrap();
        breaker.record(permit, failure, now);
    }

    #[test]
    fn it_opens_probes_and_closes() {
        let mut breaker = Breaker::new(policy());
        for kind in [None, None, Some(ErrorType::Server), Some(ErrorType::Timeout)] {
            assert_eq!(breaker.state(at(5)), BreakerState::Closed);
            attempt(&mut breaker, kind, at(5));
        }
        let until = at(15_005);
        assert_eq!(breaker.state(at(6)), BreakerState::Open { until });
        assert_eq!(breaker.acquire(at(15_004)), Err(Refused { until: Some(until) }));
        let first = breaker.acquire(until).unwrap();
        let second = breaker.acquire(until).unwrap();
        assert_eq!(breaker.acquire(until), Err(Refused { until: None }));
        breaker.release(second);
        breaker.record(first, None, until);
        let third = breaker.acquire(until).unwrap();
        assert_eq!(breaker.state(until), BreakerState::HalfOpen);
        breaker.record(third, None, until);
        assert_eq!(breaker.state(until), BreakerState::Closed);
        assert_eq!(breaker.counts(until), BreakerCounts::default());
    }

    #[test]
    fn changes_of_state_are_told_once() {
        let mut breaker = Breaker::new(policy());
        let told = |breaker: &mut Breaker| {
            breaker.take_change().map(|c| format!("{} to {}", c.from.as_str(), c.to.as_str()))
        };
        assert_eq!(told(&mut breaker), None);
        for _ in 0..4 {
            attempt(&mut breaker, Some(ErrorType::Server), at(0));
        }
        assert_eq!(told(&mut breaker).as_deref(), Some("closed to open"));
        assert_eq!(told(&mut breaker), None);
        let first = breaker.acquire(at(15_000)).unwrap();
        assert_eq!(told(&mut breaker).as_deref(), Some("open to half_open"));
        breaker.record(first, None, at(15_000));
        attempt(&mut breaker, None, at(15_000));
        assert_eq!(told(&mut breaker).as_deref(), Some("half_open to closed"));
        breaker.reconfigure(BreakerPolicy { min_attempts: 1, ..policy() });
        attempt(&mut breaker, Some(ErrorType::Server), at(15_001));
        assert_eq!(told(&mut breaker).as_deref(), Some("closed to open"));
    }

    #[test]
    fn a_failed_probe_opens_it_again_and_late_results_do_not_count() {
        let mut breaker = Breaker::new(policy());
        let late = breaker.acquire(at(0)).unwrap();
        for _ in 0..4 {
            attempt(&mut breaker, Some(ErrorType::Connection), at(0));
        }
        let probe = breaker.acquire(at(15_000)).unwrap();
        breaker.record(late, None, at(15_000));
        assert_eq!(breaker.state(at(15_000)), BreakerState::HalfOpen);
        breaker.record(probe, Some(ErrorType::Server), at(15_001));
        assert_eq!(breaker.state(at(15_001)), BreakerState::Open { until: at(30_001) });
    }

    #[test]
    fn wrong_requests_do_not_speak_against_the_target() {
        let mut breaker = Breaker::new(policy());
        for _ in 0..50 {
            attempt(&mut breaker, Some(ErrorType::InvalidRequest), at(1));
        }
        assert_eq!(breaker.state(at(1)), BreakerState::Closed);
    }

    #[test]
    fn old_failures_leave_the_window() {
        let mut breaker = Breaker::new(policy());
        for _ in 0..3 {
            attempt(&mut breaker, Some(ErrorType::Server), at(1));
        }
        assert_eq!(breaker.counts(at(29_999)).failed, 3);
        assert_eq!(breaker.counts(at(30_000)).failed, 0);
        attempt(&mut breaker, Some(ErrorType::Server), at(30_000));
        assert_eq!(breaker.state(at(30_000)), BreakerState::Closed);
    }

    #[test]
    fn a_probe_that_answers_holds_no_place_and_may_still_fail() {
        let opened = || {
            let mut breaker = Breaker::new(policy());
            for _ in 0..4 {
                attempt(&mut breaker, Some(ErrorType::Server), at(0));
            }
            breaker
        };
        let mut breaker = opened();
        assert!(!breaker.is_passable(at(14_999)) && breaker.is_passable(at(15_000)));
        let mut first = breaker.acquire(at(15_000)).unwrap();
        let second = breaker.acquire(at(15_000)).unwrap();
        assert!(!breaker.is_passable(at(15_000)), "all probes are out");
        breaker.record(second, None, at(15_100));
        breaker.record_begun(&mut first, at(15_100));
        assert_eq!(breaker.state(at(15_100)), BreakerState::Closed);
        assert!(breaker.is_passable(at(15_100)));
        breaker.record(first, Some(ErrorType::StreamFailed), at(15_200));
        assert_eq!(breaker.counts(at(15_200)), BreakerCounts { succeeded: 0, failed: 1 });

        let mut breaker = opened();
        let mut probe = breaker.acquire(at(15_000)).unwrap();
        breaker.record_begun(&mut probe, at(15_100));
        breaker.record(probe, Some(ErrorType::StreamFailed), at(15_200));
        assert_eq!(breaker.state(at(15_200)).as_str(), "open");
    }

    #[test]
    fn an_attempt_counts_once_also_when_it_fails_after_it_began_to_answer() {
        let mut breaker = Breaker::new(BreakerPolicy { failure_ratio: 0.9, ..policy() });
        for round in 1..=4 {
            let mut permit = breaker.acquire(at(0)).unwrap();
            breaker.record_begun(&mut permit, at(0));
            breaker.record_begun(&mut permit, at(1));
            assert_eq!(breaker.counts(at(1)).succeeded, 1);
            breaker.record(permit, Some(ErrorType::StreamFailed), at(2));
            assert_eq!(breaker.counts(at(2)).failed, round);
        }
        assert_eq!(breaker.state(at(2)).as_str(), "open", "streams that always break open it");
        let mut breaker = Breaker::new(policy());
        let mut permit = breaker.acquire(at(0)).unwrap();
        breaker.record_begun(&mut permit, at(0));
        breaker.record(permit, None, at(60_000));
        assert_eq!(breaker.counts(at(60_000)), BreakerCounts::default(), "long ago");
    }

    proptest! {
        /// Whatever happens, no more probes are out than the policy says while it is half open,
        /// and none while it is open.
        #[test]
        fn probes_are_bounded(
            steps in proptest::collection::vec((0u64..4_000, 0u8..5, any::<prop::sample::Index>()), 0..300),
            probes in 0u32..4,
        ) {
            let policy = BreakerPolicy { half_open_probes: probes, min_attempts: 2, ..BreakerPolicy::default() };
            let mut breaker = Breaker::new(policy);
            let mut out: Vec<Permit> = Vec::new();
            let mut now_ms = 0;
            for (pause, what, which) in steps {
                now_ms += pause;
                let now = at(now_ms);
                let before = breaker.state(now);
                match what {
                    0 => if let Ok(permit) = breaker.acquire(now) {
                        let was_open = matches!(before, BreakerState::Open { .. });
                        prop_assert!(!was_open);
                        out.push(permit);
                    },
                    _ if out.is_empty() => {}
                    1 => breaker.record(out.swap_remove(which.index(out.len())), None, now),
                    2 => {
                        let failure = Some(ErrorType::Server);
                        breaker.record(out.swap_remove(which.index(out.len())), failure, now);
                    }
                    3 => {
                        let at = which.index(out.len());
                        breaker.record_begun(&mut out[at], now);
                    }
                    _ => breaker.release(out.swap_remove(which.index(out.len()))),
                }
                if breaker.state(now) == BreakerState::HalfOpen {
                    let is_out = |p: &&Permit| p.generation == breaker.generation && p.counted_in.is_none();
                    let current = out.iter().filter(is_out).count();
                    let is_entered = matches!(breaker.state, State::HalfOpen { .. });
                    prop_assert!(!is_entered || current as u32 <= probes.max(1));
                }
            }
        }
    }
}
