//! The retry budget of a target.

use crate::moment::Moment;
use crate::policy::BudgetPolicy;

/// A bucket of retries: operations and time fill it, retries empty it.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    policy: BudgetPolicy,
    level: f64,
    filled_at: Moment,
}

impl RetryBudget {
    /// A full budget.
    pub fn new(policy: BudgetPolicy) -> Self {
        let level = policy.max_retries.max(0.0);
        Self { policy, level, filled_at: Moment::ZERO }
    }

    /// The policy.
    pub fn policy(&self) -> &BudgetPolicy {
        &self.policy
    }

    /// An operation began.
    pub fn deposit(&mut self, now: Moment) {
        self.fill(now, self.policy.retries_per_operation);
    }

    /// Takes one retry out; `false` when there is none.
    pub fn withdraw(&mut self, now: Moment) -> bool {
        self.fill(now, 0.0);
        let has_one = self.level >= 1.0;
        if has_one {
            self.level -= 1.0;
        }
        has_one
    }

    /// Retries that are left.
    pub fn level(&self) -> f64 {
        self.level
    }

    fn fill(&mut self, now: Moment, extra: f64) {
        let secs = now.since(self.filled_at).as_secs_f64();
        self.filled_at = self.filled_at.max(now);
        let added = (secs * self.policy.retries_per_second).max(0.0) + extra.max(0.0);
        self.level = (self.level + added).min(self.policy.max_retries.max(0.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn retries_never_exceed_what_operations_and_time_gave(
            steps in proptest::collection::vec((0u64..2_000, any::<bool>()), 0..200),
        ) {
            let policy = BudgetPolicy { max_retries: 5.0, ..BudgetPolicy::default() };
            let mut budget = RetryBudget::new(policy.clone());
            let (mut now_ms, mut operations, mut retries) = (0, 0u32, 0u32);
            for (pause_ms, is_retry) in steps {
                now_ms += pause_ms;
                let now = Moment::from_millis(now_ms);
                if is_retry {
                    retries += u32::from(budget.withdraw(now));
                } else {
                    budget.deposit(now);
                    operations += 1;
                }
            }
            let given = policy.max_retries
                + f64::from(operations) * policy.retries_per_operation
                + now_ms as f64 / 1e3 * policy.retries_per_second;
            prop_assert!(f64::from(retries) <= given + 1e-6);
            prop_assert!(budget.level() >= 0.0 && budget.level() <= policy.max_retries);
        }
    }
}
