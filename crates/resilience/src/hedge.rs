//! One attempt made by several copies: when the next copy starts, and which result counts.

use crate::latency::Latencies;
use crate::moment::Moment;
use crate::policy::{HedgePolicy, millis};

/// What happened to an attempt that may have several copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HedgeEvent {
    /// The time that was named has come. `may_start` says whether the target bears another copy.
    Due {
        /// Whether it does.
        may_start: bool,
    },
    /// A copy answered.
    Succeeded {
        /// Which, from 0.
        copy: u32,
    },
    /// A copy failed.
    Failed {
        /// Which, from 0.
        copy: u32,
    },
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HedgeNext {
    /// Start the copy with this number, and come back as [`HedgeNext::Wait`] says.
    Start {
        /// Its number.
        copy: u32,
        /// When to send [`HedgeEvent::Due`]; `None` never.
        due: Option<Moment>,
    },
    /// Let the copies run.
    Wait {
        /// When to send [`HedgeEvent::Due`]; `None` never.
        due: Option<Moment>,
    },
    /// It is over: the result of this copy counts, all others are to be given up.
    Done {
        /// Its number.
        copy: u32,
        /// Whether it succeeded.
        is_success: bool,
    },
}

/// The machine of one attempt.
#[derive(Debug, Clone)]
pub struct Hedge {
    max_hedges: u32,
    delay: std::time::Duration,
    /// Copies begun.
    begun: u32,
    /// Copies that failed.
    failed: u32,
    due: Option<Moment>,
    over: Option<HedgeNext>,
}

impl Hedge {
    /// An attempt whose first copy begins `now`; without a policy it stays the only one.
    pub fn begin(policy: Option<&HedgePolicy>, latencies: &Latencies, now: Moment) -> Self {
        let delay = policy.map_or(millis(0), |policy| delay(policy, latencies));
        let max_hedges = policy.map_or(0, |policy| policy.max_hedges);
        let due = (max_hedges > 0).then(|| now + delay);
        Self { max_hedges, delay, begun: 1, failed: 0, due, over: None }
    }

    /// When [`HedgeEvent::Due`] is to be sent.
    pub fn due(&self) -> Option<Moment> {
        self.due
    }

    /// Copies begun so far.
    pub fn begun(&self) -> u32 {
        self.begun
    }

    /// What to do after something happened.
    pub fn on(&mut self, event: HedgeEvent, now: Moment) -> HedgeNext {
        if let Some(over) = self.over {
            return over;
        }
        match event {
            HedgeEvent::Due { may_start } if self.due.is_some_and(|due| now >= due) => {
                if !may_start {
                    self.due = None;
                    return HedgeNext::Wait { due: None };
                }
                let copy = self.begun;
                self.begun += 1;
                self.due = (self.begun <= self.max_hedges).then(|| now + self.delay);
                HedgeNext::Start { copy, due: self.due }
            }
            HedgeEvent::Due { .. } => HedgeNext::Wait { due: self.due },
            HedgeEvent::Succeeded { copy } => self.done(copy, true),
            HedgeEvent::Failed { copy } => {
                self.failed += 1;
                // A failure is the retry policy's to answer, not another copy's: none starts now.
                self.due = None;
                if self.failed >= self.begun {
                    self.done(copy, false)
                } else {
                    HedgeNext::Wait { due: None }
                }
            }
        }
    }

    fn done(&mut self, copy: u32, is_success: bool) -> HedgeNext {
        *self.over.insert(HedgeNext::Done { copy, is_success })
    }
}

fn delay(policy: &HedgePolicy, latencies: &Latencies) -> std::time::Duration {
    let is_known = latencies.len() >= policy.min_answers as usize;
    let observed =
        policy.percentile.filter(|_| is_known).and_then(|rank| latencies.percentile(rank));
    observed.unwrap_or_else(|| millis(policy.delay_ms))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::from_millis(ms)
    }

    #[test]
    fn a_copy_starts_after_the_delay_or_the_percentile() {
        let policy = HedgePolicy { delay_ms: 500, min_answers: 3, ..HedgePolicy::default() };
        let mut latencies = Latencies::new();
        assert_eq!(Hedge::begin(Some(&policy), &latencies, at(0)).due(), Some(at(500)));
        for ms in [80, 90, 100] {
            latencies.record(Duration::from_millis(ms));
        }
        assert_eq!(Hedge::begin(Some(&policy), &latencies, at(0)).due(), Some(at(100)));
        assert_eq!(Hedge::begin(None, &latencies, at(0)).due(), None);
    }

    #[test]
    fn the_first_answer_counts_and_a_failure_waits_for_the_other() {
        let policy = HedgePolicy { delay_ms: 10, max_hedges: 1, ..HedgePolicy::default() };
        let mut hedge = Hedge::begin(Some(&policy), &Latencies::new(), at(0));
        let due = HedgeEvent::Due { may_start: true };
        assert_eq!(hedge.on(due, at(9)), HedgeNext::Wait { due: Some(at(10)) });
        assert_eq!(hedge.on(due, at(10)), HedgeNext::Start { copy: 1, due: None });
        assert_eq!(hedge.on(HedgeEvent::Failed { copy: 0 }, at(11)), HedgeNext::Wait { due: None });
        let done = HedgeNext::Done { copy: 1, is_success: true };
        assert_eq!(hedge.on(HedgeEvent::Succeeded { copy: 1 }, at(12)), done);
        assert_eq!(hedge.on(HedgeEvent::Failed { copy: 0 }, at(12)), done);
    }

    #[test]
    fn a_budget_that_is_spent_starts_none() {
        let policy = HedgePolicy { delay_ms: 10, max_hedges: 3, ..HedgePolicy::default() };
        let mut hedge = Hedge::begin(Some(&policy), &Latencies::new(), at(0));
        let next = hedge.on(HedgeEvent::Due { may_start: false }, at(10));
        assert_eq!(next, HedgeNext::Wait { due: None });
        assert_eq!(hedge.begun(), 1);
    }

    proptest! {
        /// Copies never exceed the policy, one result counts, and it is a success if there was one.
        #[test]
        fn r4_2_hedges_are_bounded_and_one_result_counts(
            max_hedges in 0u32..4, events in proptest::collection::vec((0u8..3, 0u64..30, any::<bool>()), 0..60),
        ) {
            let policy = HedgePolicy { delay_ms: 10, percentile: None, min_answers: 0, max_hedges };
            let mut hedge = Hedge::begin(Some(&policy), &Latencies::new(), at(0));
            let (mut now, mut running, mut done) = (0, vec![0u32], None);
            for (what, pause, may_start) in events {
                now += pause;
                let next = match what {
                    0 => hedge.on(HedgeEvent::Due { may_start }, at(now)),
                    _ if running.is_empty() => continue,
                    1 => hedge.on(HedgeEvent::Succeeded { copy: running.remove(0) }, at(now)),
                    _ => hedge.on(HedgeEvent::Failed { copy: running.remove(0) }, at(now)),
                };
                if let HedgeNext::Start { copy, .. } = next {
                    prop_assert!(done.is_none());
                    running.push(copy);
                }
                if let Some(done) = done {
                    prop_assert_eq!(next, done);
                } else if let HedgeNext::Done { is_success, .. } = next {
                    prop_assert_eq!(is_success, what == 1);
                    prop_assert!(is_success || running.is_empty());
                    done = Some(next);
                }
                prop_assert!(hedge.begun() <= max_hedges + 1);
            }
        }
    }
}
