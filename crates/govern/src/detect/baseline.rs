//! What is usual: the windows of the last while, in parts of which the oldest goes.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Windows that are looked at together, at most.
const MAX_TOGETHER_WINDOWS: u32 = 360;

/// Parts of a baseline, at most.
const MAX_PARTS: u32 = 1_000;

/// How long a detector remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BaselineConfig {
    /// Parts that are kept, at most 1,000; the oldest goes as a whole.
    pub parts: u32,
    /// Windows in a part.
    pub windows_per_part: u32,
    /// Observations below which there is no baseline.
    pub min_count: u64,
}

impl Default for BaselineConfig {
    /// 360 windows: the last hour where a window has ten seconds, six hours where it has a minute.
    fn default() -> Self {
        Self { parts: 6, windows_per_part: 60, min_count: 200 }
    }
}

/// What can be added up.
pub(super) trait Sum: Default + Clone {
    fn join(&mut self, other: &Self);
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Baseline<T> {
    parts: VecDeque<T>,
    /// Windows in the newest part.
    newest_windows: u32,
}

impl<T: Sum> Baseline<T> {
    pub(super) fn learn(&mut self, window: &T, config: &BaselineConfig) {
        if self.parts.is_empty() || self.newest_windows >= config.windows_per_part.max(1) {
            self.parts.push_back(T::default());
            self.newest_windows = 0;
            while self.parts.len() > config.parts.clamp(1, MAX_PARTS) as usize {
                self.parts.pop_front();
            }
        }
        if let Some(newest) = self.parts.back_mut() {
            newest.join(window);
        }
        self.newest_windows += 1;
    }

    pub(super) fn whole(&self) -> T {
        sum(self.parts.iter())
    }
}

/// The last few windows, so that small changes are seen in several of them together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Recent<T>(VecDeque<T>);

impl<T: Sum> Recent<T> {
    pub(super) fn push(&mut self, window: &T, windows: u32) {
        self.0.push_back(window.clone());
        while self.0.len() > windows.clamp(1, MAX_TOGETHER_WINDOWS) as usize {
            self.0.pop_front();
        }
    }

    /// The sum, once there are `windows`.
    pub(super) fn whole(&self, windows: u32) -> Option<T> {
        (self.0.len() >= windows.clamp(1, MAX_TOGETHER_WINDOWS) as usize)
            .then(|| sum(self.0.iter()))
    }
}

fn sum<'t, T: Sum + 't>(parts: impl Iterator<Item = &'t T>) -> T {
    let mut whole = T::default();
    parts.for_each(|part| whole.join(part));
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Sum for u64 {
        fn join(&mut self, other: &Self) {
            *self += other;
        }
    }

    #[test]
    fn the_oldest_part_goes() {
        let config = BaselineConfig { parts: 2, windows_per_part: 3, min_count: 0 };
        let mut baseline = Baseline::default();
        (0..6).for_each(|_| baseline.learn(&1_u64, &config));
        assert_eq!(baseline.whole(), 6);
        baseline.learn(&10, &config);
        assert_eq!(baseline.whole(), 13, "three of the first part are gone");
        let mut recent = Recent::default();
        recent.push(&1_u64, 2);
        assert_eq!(recent.whole(2), None);
        recent.push(&2, 2);
        recent.push(&3, 2);
        assert_eq!(recent.whole(2), Some(5));
    }
}
