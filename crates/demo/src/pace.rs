//! How fast the demo plays: one factor on every wait, changeable while it runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A factor on every wait of the demo: 1 is the pace of people and real models, 0.1 ten times as
/// fast, 0 does not wait at all. Clones share the factor.
#[derive(Debug, Clone)]
pub struct Pace(Arc<AtomicU64>);

impl Pace {
    /// A pace of this factor; negative and non-finite factors count as 0.
    pub fn new(factor: f64) -> Self {
        let pace = Self(Arc::default());
        pace.set(factor);
        pace
    }

    /// The factor of the moment.
    pub fn factor(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    /// Changes the factor, for waits that begin from now on.
    pub fn set(&self, factor: f64) {
        let factor = if factor.is_finite() { factor.max(0.0) } else { 0.0 };
        self.0.store(factor.to_bits(), Ordering::Relaxed);
    }

    /// How long a wait of `human` takes at this pace.
    pub fn scaled(&self, human: Duration) -> Duration {
        human.mul_f64(self.factor())
    }

    /// How long a limit of `human` is at this pace, but never less than `least`: work that is not
    /// waiting takes its time at any pace, and a limit must leave room for it.
    pub fn limit(&self, human: Duration, least: Duration) -> Duration {
        self.scaled(human).max(least)
    }

    /// Waits as long as `human` takes at this pace; at 0 it gives way to other tasks once.
    pub async fn wait(&self, human: Duration) {
        let wait = self.scaled(human);
        if wait.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(wait).await;
        }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self::new(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_scale_waits_and_nonsense_does_not_wait() {
        let wait = Duration::from_secs(10);
        assert_eq!(Pace::new(0.1).scaled(wait), Duration::from_secs(1));
        assert_eq!(Pace::new(-1.0).scaled(wait), Duration::ZERO);
        assert_eq!(Pace::new(f64::NAN).scaled(wait), Duration::ZERO);
        assert_eq!(Pace::new(0.0).limit(wait, Duration::from_secs(2)), Duration::from_secs(2));
    }

    #[test]
    fn clones_share_the_factor() {
        let pace = Pace::default();
        pace.clone().set(0.5);
        assert!((pace.factor() - 0.5).abs() < f64::EPSILON);
    }
}
