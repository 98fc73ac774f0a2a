//! Pauses between attempts: exponential, with jitter.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::policy::{Jitter, RetryPolicy, millis};

/// Draws the pauses of one operation. The same seed draws the same pauses.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    rng: SmallRng,
}

impl Backoff {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: SmallRng::seed_from_u64(seed) }
    }

    /// The pause after the attempt `index` (from 0) failed; never longer than `max_delay_ms`.
    pub(crate) fn delay(&mut self, policy: &RetryPolicy, index: u32) -> Duration {
        let multiplier = if policy.multiplier >= 1.0 { policy.multiplier } else { 1.0 };
        let exponent = i32::try_from(index).unwrap_or(i32::MAX);
        let grown_ms = policy.base_delay_ms as f64 * multiplier.powi(exponent);
        let whole = if grown_ms < policy.max_delay_ms as f64 {
            Duration::from_secs_f64(grown_ms / 1e3)
        } else {
            millis(policy.max_delay_ms)
        };
        match policy.jitter {
            Jitter::None => whole,
            Jitter::Equal => whole / 2 + (whole / 2).mul_f64(self.rng.random::<f64>()),
            Jitter::Full => whole.mul_f64(self.rng.random::<f64>()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let policy = RetryPolicy { jitter: Jitter::None, ..RetryPolicy::default() };
        let mut backoff = Backoff::new(1);
        let pauses: Vec<u128> =
            [0, 1, 2, 5, 60, u32::MAX].map(|at| backoff.delay(&policy, at).as_millis()).into();
        assert_eq!(pauses, [250, 500, 1_000, 8_000, 8_000, 8_000]);
    }

    proptest! {
        #[test]
        fn pauses_stay_in_their_bounds(
            seed: u64, index in 0u32..100, base in 0u64..100_000, most in 0u64..100_000, multiplier: f64,
            jitter in prop::sample::select(vec![Jitter::None, Jitter::Equal, Jitter::Full]),
        ) {
            let policy = RetryPolicy {
                base_delay_ms: base, max_delay_ms: most, multiplier, jitter, ..RetryPolicy::default()
            };
            let pause = Backoff::new(seed).delay(&policy, index);
            prop_assert!(pause <= millis(most));
            prop_assert_eq!(pause, Backoff::new(seed).delay(&policy, index));
            if jitter == Jitter::Equal {
                prop_assert!(pause + Duration::from_micros(1) >= millis(base.min(most)) / 2);
            }
        }
    }
}
