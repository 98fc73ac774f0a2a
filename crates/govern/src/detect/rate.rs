//! Whether a rate (`decision_consistency_rate`, success, compliance) moved: the test of two proportions
//! with a least difference.

use serde::{Deserialize, Serialize};

use super::alarm::{Alarm, Verdict};
use super::baseline::{Baseline, Recent, Sum};
use super::shift::{NOTHING, worse};
use super::{BaselineConfig, Detection, Detector, DetectorKind, Hysteresis, Reading, TimeSpan};
use crate::signals::Direction;
use crate::statistics::{Side, two_proportions};

/// When a change of a rate counts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateConfig {
    /// Least difference of the rates, 0 to 1.
    pub min_effect: f64,
    /// Greatest p-value of a window alone; the alarm needs several such windows in a row.
    pub max_p_value: f64,
    /// Greatest p-value of windows together: those share windows, so several in a row say little more
    /// than one.
    pub max_p_value_together: f64,
    /// Observations below which a window is missing.
    pub min_count: u64,
    /// How many observations one independent observation is worth (Kish's design effect) where a window
    /// does not tell its groups: 1 where each is independent, the mean size of groups whose members share
    /// one verdict.
    pub design_effect: f64,
    /// Windows that are looked at together, beside the latest alone, at most 360; 1 for the latest alone.
    pub together_windows: u32,
    /// Which way counts.
    pub direction: Direction,
    /// What is usual.
    pub baseline: BaselineConfig,
    /// How many windows it takes.
    pub hysteresis: Hysteresis,
}

impl Default for RateConfig {
    /// For success rates: five points less.
    fn default() -> Self {
        Self {
            min_effect: 0.05,
            max_p_value: 1e-3,
            max_p_value_together: 1e-5,
            min_count: 20,
            design_effect: 1.0,
            together_windows: 6,
            direction: Direction::DownIsBad,
            baseline: BaselineConfig::default(),
            hysteresis: Hysteresis::default(),
        }
    }
}

impl RateConfig {
    /// For the agreement of decisions about equal inputs, whose groups count as one; where a window does
    /// not tell them, groups of three.
    pub fn consistency() -> Self {
        Self { design_effect: 3.0, ..Self::default() }
    }
}

/// What happened in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RateWindow {
    /// Of them: good.
    pub good: u64,
    /// All that counted.
    pub total: u64,
}

/// What happened in a window whose observations come in groups, of which each is worth one independent
/// observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GroupedRate {
    /// Of the observations: good.
    pub good: u64,
    /// All that counted.
    pub total: u64,
    /// In how many groups; 0 where that is not known, as in what earlier builds stored.
    #[serde(default)]
    pub groups: u64,
}

impl GroupedRate {
    /// The share of good ones; `None` without any.
    pub fn rate(self) -> Option<f64> {
        (self.total > 0).then(|| self.good as f64 / self.total as f64)
    }

    /// Observations and those that are good, as so many that are independent; `design_effect` where the
    /// groups are not known.
    fn independent(self, design_effect: f64) -> (u64, u64) {
        let design_effect = match self.groups {
            0 => design_effect,
            groups => self.total as f64 / groups as f64,
        };
        let shrink = |count: u64| (count as f64 / design_effect.max(1.0)).round() as u64;
        let total = shrink(self.total);
        (shrink(self.good).min(total), total)
    }
}

impl From<RateWindow> for GroupedRate {
    fn from(RateWindow { good, total }: RateWindow) -> Self {
        Self { good, total, groups: 0 }
    }
}

impl Sum for GroupedRate {
    fn join(&mut self, other: &Self) {
        self.good += other.good;
        self.total += other.total;
        self.groups += other.groups;
    }
}

/// Compares two rates: the statistic is z, the effect the difference for the worse. `design_effect` is that
/// of a side that does not tell its groups. `None` when either has nothing.
pub fn compare_rates(
    baseline: impl Into<GroupedRate>,
    window: impl Into<GroupedRate>,
    direction: Direction,
    design_effect: f64,
) -> Option<Reading> {
    let (baseline, window) = (baseline.into(), window.into());
    let side = match direction {
        Direction::UpIsBad => Side::Greater,
        Direction::DownIsBad => Side::Less,
        Direction::EitherIsBad => Side::Both,
    };
    let independent = |of: GroupedRate| of.independent(design_effect);
    let test = two_proportions(independent(window), independent(baseline), side)?;
    let rate = |of: GroupedRate| of.good as f64 / of.total as f64;
    let (expected, observed) = (rate(baseline), rate(window));
    let difference = observed - expected;
    Some(Reading {
        statistic: test.z,
        p_value: Some(test.p_value),
        effect: match direction {
            Direction::UpIsBad => difference,
            Direction::DownIsBad => -difference,
            Direction::EitherIsBad => difference.abs(),
        },
        expected,
        observed,
        count: window.total,
        baseline_count: baseline.total,
        is_enough: true,
    })
}

/// Watches a rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RateDetector {
    config: RateConfig,
    baseline: Baseline<GroupedRate>,
    recent: Recent<GroupedRate>,
    alarm: Alarm,
    kind: DetectorKind,
}

impl RateDetector {
    /// One that has seen nothing yet.
    pub fn new(config: RateConfig) -> Self {
        Self::of_kind(DetectorKind::Rate, config)
    }

    pub(super) fn of_kind(kind: DetectorKind, config: RateConfig) -> Self {
        Self {
            config,
            baseline: Baseline::default(),
            recent: Recent::default(),
            alarm: Alarm::default(),
            kind,
        }
    }

    fn judge(
        &self,
        usual: GroupedRate,
        window: GroupedRate,
        max_p_value: f64,
    ) -> Option<(Verdict, Reading)> {
        let config = &self.config;
        let mut reading = compare_rates(usual, window, config.direction, config.design_effect)?;
        reading.is_enough =
            window.total >= config.min_count && usual.total >= config.baseline.min_count;
        let is_significant = reading.p_value.is_some_and(|p| p <= max_p_value);
        Some((Verdict::of(&reading, is_significant, config.min_effect), reading))
    }
}

impl RateDetector {
    /// Takes a window in that is known to be usual, as one from before anybody watched.
    pub fn learn(&mut self, window: impl Into<GroupedRate>) {
        self.baseline.learn(&window.into(), &self.config.baseline);
    }

    /// [`Detector::observe`] of a window that tells its groups.
    pub fn observe_grouped(&mut self, span: TimeSpan, window: &GroupedRate) -> Option<Detection> {
        let together = self.config.together_windows;
        self.recent.push(window, together);
        let usual = self.baseline.whole();
        let alone = self.judge(usual, *window, self.config.max_p_value);
        let several = self.recent.whole(together).filter(|_| together > 1);
        let least = self.config.max_p_value_together;
        let several = several.and_then(|sum| self.judge(usual, sum, least));
        // A window without a single observation tells nothing, whatever the ones before it told.
        let told = if window.total == 0 { None } else { worse(alone, several) };
        let (verdict, reading) = told.unwrap_or((Verdict::Missing, NOTHING));
        if verdict.is_usual() {
            self.baseline.learn(window, &self.config.baseline);
        }
        self.alarm.step(self.kind, self.config.hysteresis, span, verdict, reading)
    }
}

impl Detector for RateDetector {
    type Window = RateWindow;

    fn observe(&mut self, span: TimeSpan, window: &RateWindow) -> Option<Detection> {
        self.observe_grouped(span, &GroupedRate::from(*window))
    }

    fn latest(&self) -> Option<Reading> {
        self.alarm.latest()
    }

    fn is_firing(&self) -> bool {
        self.alarm.is_firing()
    }

    fn adopt(&mut self) {
        *self = Self::of_kind(self.kind, self.config);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(config: RateConfig, rates: &[(u64, u64)]) -> Vec<bool> {
        let mut detector = RateDetector::new(config);
        let observe = |(at, (good, total)): (usize, &(u64, u64))| {
            let span = TimeSpan { from_unix_nano: at as u64, to_unix_nano: at as u64 + 1 };
            detector.observe(span, &RateWindow { good: *good, total: *total }).is_some()
        };
        rates.iter().enumerate().map(observe).collect()
    }

    #[test]
    fn a_drop_is_seen_and_a_rise_is_not() {
        let mut rates = vec![(96, 100); 10];
        rates.extend([(80, 100), (79, 100)]);
        assert_eq!(run(RateConfig::default(), &rates).last(), Some(&true));
        let mut rates = vec![(80, 100); 10];
        rates.extend([(99, 100); 4]);
        assert!(!run(RateConfig::default(), &rates).contains(&true));
    }

    #[test]
    fn groups_count_as_few() {
        // Significant if each decision were independent; in groups of ten it is not.
        let mut rates = vec![(96, 100); 10];
        rates.extend([(80, 100); 2]);
        let config =
            RateConfig { design_effect: 10.0, together_windows: 1, ..RateConfig::default() };
        assert!(!run(config, &rates).contains(&true));
    }

    #[test]
    fn a_plateau_below_the_alarm_never_becomes_usual() {
        let mut rates = vec![(9_500, 10_000); 10];
        rates.extend([(8_800, 10_000); 2]);
        // Four fifths of the effect that raises an alarm: too much to end one.
        rates.extend([(9_100, 10_000); 400]);
        assert_eq!(run(RateConfig::default(), &rates).iter().filter(|is_on| **is_on).count(), 401);
    }

    #[test]
    fn groups_that_are_told_count_as_one_each() {
        let usual = GroupedRate { good: 900, total: 1_000, groups: 100 };
        let now = GroupedRate { good: 300, total: 400, groups: 10 };
        let grouped = compare_rates(usual, now, Direction::DownIsBad, 1.0).unwrap();
        let shrunk = compare_rates(
            RateWindow { good: 90, total: 100 },
            RateWindow { good: 8, total: 10 },
            Direction::DownIsBad,
            1.0,
        );
        assert_eq!(grouped.p_value, shrunk.unwrap().p_value);
        assert!((grouped.effect - 0.15).abs() < 1e-12, "the rates are those of all: {grouped:?}");
        // Earlier builds stored no groups.
        let stored: GroupedRate = serde_json::from_str(r#"{"good": 3, "total": 9}"#).unwrap();
        assert_eq!(stored.independent(3.0), (1, 3));
    }

    #[test]
    fn silence_is_no_drop() {
        let mut rates = vec![(96, 100); 10];
        rates.extend([(0, 0); 20]);
        rates.extend([(0, 5); 3]);
        assert!(!run(RateConfig::default(), &rates).contains(&true), "15 observations are too few");
    }
}
