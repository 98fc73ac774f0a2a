//! How long a target took lately: a smoothed mean, and percentiles over the last answers.

use std::time::Duration;

/// Answers that percentiles are taken over.
const WINDOW: usize = 128;

/// Weight of the newest answer in the smoothed mean and its deviation.
const NEWEST: f64 = 0.2;

/// Deviations above the mean that nearly all answers stay within.
const DEVIATIONS: f64 = 2.0;

/// A failure counts as an answer that took so many times as long: whoever was failed asks again, and
/// waits again.
const FAILURE_FACTOR: u32 = 2;

/// What a failure counts as at least, so that a target that refuses at once is not the fastest.
pub const FAILURE_COUNTS_AS: Duration = Duration::from_secs(30);

/// Latencies of the answers of one target.
#[derive(Debug, Clone, Default)]
pub struct Latencies {
    /// The last answers, in microseconds: a ring.
    last_micros: Vec<u32>,
    next: usize,
    mean_micros: f64,
    deviation_micros: f64,
}

impl Latencies {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// An answer took this long.
    pub fn record(&mut self, took: Duration) {
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        let value = f64::from(micros);
        if self.last_micros.is_empty() {
            self.mean_micros = value;
            self.deviation_micros = value / 2.0;
        } else {
            let off = (value - self.mean_micros).abs();
            self.deviation_micros += NEWEST * (off - self.deviation_micros);
            self.mean_micros += NEWEST * (value - self.mean_micros);
        }
        if self.last_micros.len() < WINDOW {
            self.last_micros.push(micros);
        } else {
            self.last_micros[self.next] = micros;
        }
        self.next = (self.next + 1) % WINDOW;
    }

    /// A call failed after this long: counted as a slow answer, of twice the time and of
    /// [`FAILURE_COUNTS_AS`] at least.
    pub fn record_failure(&mut self, took: Duration) {
        self.record(took.saturating_mul(FAILURE_FACTOR).max(FAILURE_COUNTS_AS));
    }

    /// Answers that are known, at most 128.
    pub fn len(&self) -> usize {
        self.last_micros.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.last_micros.is_empty()
    }

    /// The smoothed mean; `None` before the first answer.
    pub fn mean(&self) -> Option<Duration> {
        (!self.is_empty()).then(|| micros(self.mean_micros))
    }

    /// What nearly every answer stays within; `None` before the first answer.
    pub fn nearly_always(&self) -> Option<Duration> {
        let bound = self.mean_micros + DEVIATIONS * self.deviation_micros;
        (!self.is_empty()).then(|| micros(bound))
    }

    /// The percentile `rank` (0 to 1) of the last answers; `None` before the first, and for a rank
    /// that is no such number.
    pub fn percentile(&self, rank: f64) -> Option<Duration> {
        if self.is_empty() || !(0.0..=1.0).contains(&rank) {
            return None;
        }
        let mut sorted = self.last_micros.clone();
        let at = ((sorted.len() as f64 * rank).ceil() as usize).clamp(1, sorted.len()) - 1;
        let (_, value, _) = sorted.select_nth_unstable(at);
        Some(micros(f64::from(*value)))
    }
}

fn micros(value: f64) -> Duration {
    Duration::from_secs_f64(value.max(0.0) / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_mean_follows_and_old_answers_leave() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.mean(), None);
        assert_eq!(latencies.percentile(0.5), None);
        for _ in 0..200 {
            latencies.record(Duration::from_millis(400));
        }
        for _ in 0..130 {
            latencies.record(Duration::from_millis(100));
        }
        assert_eq!(latencies.len(), 128);
        assert_eq!(latencies.percentile(0.95), Some(Duration::from_millis(100)));
        assert!(latencies.mean().unwrap() < Duration::from_millis(101));
        assert!(latencies.nearly_always().unwrap() < Duration::from_millis(110));
        assert_eq!(latencies.percentile(f64::NAN), None);
    }

    #[test]
    fn r3_3_a_target_that_fails_at_once_is_no_fast_one() {
        let (mut fails, mut answers) = (Latencies::new(), Latencies::new());
        fails.record_failure(Duration::from_millis(1));
        answers.record(Duration::from_secs(9));
        assert!(fails.mean() > answers.mean());
        let budget = Duration::from_secs(60);
        fails.record_failure(budget);
        assert!(fails.nearly_always().unwrap() > budget);
    }

    proptest! {
        #[test]
        fn percentiles_are_answers_that_came(
            answers in proptest::collection::vec(0u64..10_000_000, 1..300), rank in 0.0f64..=1.0,
        ) {
            let mut latencies = Latencies::new();
            for micros in &answers {
                latencies.record(Duration::from_micros(*micros));
            }
            let got = latencies.percentile(rank).unwrap();
            prop_assert!(answers.iter().any(|micros| got.as_micros().abs_diff(u128::from(*micros)) <= 1));
            let most = *answers.iter().max().unwrap();
            prop_assert!(latencies.mean().unwrap().as_micros() <= u128::from(most) + 1);
        }
    }
}
