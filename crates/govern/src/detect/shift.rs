//! Whether the distribution of a number (latency, tokens) moved.
//!
//! Two tests look at a window and its baseline: Kolmogorov and Smirnov's for a move of the whole, and
//! whether the share above the baseline's 95th percentile grew, for a move of the tail alone. The
//! p-value is twice the lesser of the two (Bonferroni). The effect is the ratio of quantiles, so that a
//! large sample does not alarm at nothing.

use serde::{Deserialize, Serialize};
use throughline_trace::Sketch;

use super::alarm::{Alarm, Verdict};
use super::baseline::{Baseline, Recent, Sum};
use super::{BaselineConfig, Detection, Detector, DetectorKind, Hysteresis, Reading, TimeSpan};
use crate::signals::Direction;
use crate::statistics::{Binned, Side, kolmogorov_smirnov, two_proportions};

/// Quantiles whose ratio is the effect.
const QUANTILES: [f64; 2] = [0.5, 0.95];

/// The quantile beyond which the tail begins.
const TAIL: f64 = 0.95;

/// When a shift counts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShiftConfig {
    /// Least ratio of a quantile to that of the baseline (or the reverse), as an increase: 0.25 is a
    /// quarter more.
    pub min_effect: f64,
    /// Greatest p-value of a window alone; the alarm needs several such windows in a row.
    pub max_p_value: f64,
    /// Greatest p-value of windows together: those share windows, so several in a row say little more
    /// than one.
    pub max_p_value_together: f64,
    /// Numbers below which a window is missing.
    pub min_count: u64,
    /// Windows that are looked at together, beside the latest alone, at most 360; 1 for the latest alone.
    pub together_windows: u32,
    /// Which way counts.
    pub direction: Direction,
    /// What is usual.
    pub baseline: BaselineConfig,
    /// How many windows it takes.
    pub hysteresis: Hysteresis,
}

impl Default for ShiftConfig {
    /// For latencies: half as much again, up.
    fn default() -> Self {
        Self {
            min_effect: 0.5,
            max_p_value: 1e-3,
            max_p_value_together: 1e-5,
            min_count: 10,
            together_windows: 6,
            direction: Direction::UpIsBad,
            baseline: BaselineConfig::default(),
            hysteresis: Hysteresis::default(),
        }
    }
}

impl ShiftConfig {
    /// For tokens: a sixth more or less.
    pub fn tokens() -> Self {
        Self { min_effect: 0.16, direction: Direction::EitherIsBad, ..Self::default() }
    }
}

/// Compares two distributions; the statistic is Kolmogorov and Smirnov's distance, the effect the
/// change of the quantile that changed most (0.5: half as much again, or down to two thirds), expected
/// and observed that quantile. `None` when either has nothing.
pub fn compare_distributions(
    baseline: &Binned,
    window: &Binned,
    direction: Direction,
) -> Option<Reading> {
    let (distance, p_of_all) = kolmogorov_smirnov(window, baseline)?;
    let edge = baseline.quantile(TAIL)?;
    let above = |of: &Binned| (of.above(edge), of.count());
    let tail = two_proportions(above(window), above(baseline), Side::Greater)?;
    let changes = QUANTILES.iter().filter_map(|share| {
        let (usual, now) = (baseline.quantile(*share)?, window.quantile(*share)?);
        // Below one unit (a nanosecond, a token) there is no ratio to speak of.
        let ratio = now.max(1.0) / usual.max(1.0);
        let change = match direction {
            Direction::UpIsBad => ratio - 1.0,
            Direction::DownIsBad => 1.0 / ratio - 1.0,
            Direction::EitherIsBad => ratio.max(1.0 / ratio) - 1.0,
        };
        Some((change, usual, now))
    });
    let (effect, expected, observed) = changes.max_by(|a, b| a.0.total_cmp(&b.0))?;
    Some(Reading {
        statistic: distance,
        p_value: Some((2.0 * p_of_all.min(tail.p_value)).min(1.0)),
        effect,
        expected,
        observed,
        count: window.count(),
        baseline_count: baseline.count(),
        is_enough: true,
    })
}

impl Sum for Sketch {
    fn join(&mut self, other: &Self) {
        self.merge(other);
    }
}

/// Watches the distribution of a number, a [`Sketch`] a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShiftDetector {
    config: ShiftConfig,
    baseline: Baseline<Sketch>,
    recent: Recent<Sketch>,
    alarm: Alarm,
}

impl ShiftDetector {
    /// One that has seen nothing yet.
    pub fn new(config: ShiftConfig) -> Self {
        Self {
            config,
            baseline: Baseline::default(),
            recent: Recent::default(),
            alarm: Alarm::default(),
        }
    }

    fn judge(
        &self,
        usual: &Binned,
        numbers: &Sketch,
        max_p_value: f64,
    ) -> Option<(Verdict, Reading)> {
        let config = &self.config;
        let window = Binned::of_sketch(numbers);
        let mut reading = compare_distributions(usual, &window, config.direction)?;
        reading.is_enough =
            window.count() >= config.min_count && usual.count() >= config.baseline.min_count;
        let is_significant = reading.p_value.is_some_and(|p| p <= max_p_value);
        Some((Verdict::of(&reading, is_significant, config.min_effect), reading))
    }
}

impl Detector for ShiftDetector {
    type Window = Sketch;

    fn observe(&mut self, span: TimeSpan, window: &Sketch) -> Option<Detection> {
        let together = self.config.together_windows;
        self.recent.push(window, together);
        let usual = Binned::of_sketch(&self.baseline.whole());
        let alone = self.judge(&usual, window, self.config.max_p_value);
        let several = self.recent.whole(together).filter(|_| together > 1);
        let least = self.config.max_p_value_together;
        let several = several.and_then(|sum| self.judge(&usual, &sum, least));
        // A window without a single observation tells nothing, whatever the ones before it told.
        let told = if window.count() <= 0 { None } else { worse(alone, several) };
        let (verdict, reading) = told.unwrap_or((Verdict::Missing, NOTHING));
        if verdict.is_usual() {
            self.baseline.learn(window, &self.config.baseline);
        }
        let hysteresis = self.config.hysteresis;
        self.alarm.step(DetectorKind::Shift, hysteresis, span, verdict, reading)
    }

    fn latest(&self) -> Option<Reading> {
        self.alarm.latest()
    }

    fn is_firing(&self) -> bool {
        self.alarm.is_firing()
    }

    fn adopt(&mut self) {
        *self = Self::new(self.config);
    }
}

/// The reading of a window that there is nothing to compare with.
pub(super) const NOTHING: Reading = Reading {
    statistic: 0.0,
    p_value: None,
    effect: 0.0,
    expected: 0.0,
    observed: 0.0,
    count: 0,
    baseline_count: 0,
    is_enough: false,
};

/// Of a window alone and several together: the one that shows a change. Where neither does, the
/// window alone speaks, if it has enough: old windows that are still among the several would else
/// keep an alarm on.
pub(super) fn worse(
    alone: Option<(Verdict, Reading)>,
    several: Option<(Verdict, Reading)>,
) -> Option<(Verdict, Reading)> {
    match (alone, several) {
        (Some(alone), _) if alone.0 == Verdict::Out => Some(alone),
        (_, Some(several)) if several.0 == Verdict::Out => Some(several),
        (Some(alone), Some(several)) if alone.0 == Verdict::Missing => Some(several),
        (Some(alone), _) => Some(alone),
        (None, several) => several,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::AlarmState;
    use crate::statistics::Random;

    fn window(random: &mut Random, count: usize, median_s: f64) -> Sketch {
        let mut sketch = Sketch::default();
        for _ in 0..count {
            let seconds = median_s * (0.4 * random.normal()).exp();
            sketch.add((seconds * 1e9) as u64, 1);
        }
        sketch
    }

    fn span(at: u64) -> TimeSpan {
        TimeSpan { from_unix_nano: at * 10, to_unix_nano: at * 10 + 10 }
    }

    #[test]
    fn an_alarm_after_two_windows_that_ends_when_it_is_over() {
        let mut random = Random::new(3);
        let mut detector = ShiftDetector::new(ShiftConfig::default());
        for at in 0..100 {
            assert_eq!(detector.observe(span(at), &window(&mut random, 40, 0.4)), None, "{at}");
        }
        assert_eq!(detector.observe(span(100), &window(&mut random, 40, 2.8)), None);
        let alarm = detector.observe(span(101), &window(&mut random, 40, 2.8)).expect("an alarm");
        assert_eq!((alarm.state, alarm.since_unix_nano), (AlarmState::Firing, 1_000));
        let reading = alarm.reading;
        assert!((reading.effect - 6.0).abs() < 1.5, "{reading:?}");
        assert!((reading.expected / 1e9 - 0.4).abs() < 0.5, "{reading:?}");
        // A silent hour neither ends it nor becomes usual.
        let silent = detector.observe(span(102), &Sketch::default()).expect("still on");
        assert!(!silent.reading.is_enough);
        let ends = (103..120)
            .find(|at| {
                let told = detector.observe(span(*at), &window(&mut random, 40, 0.4));
                told.is_some_and(|detection| detection.state == AlarmState::Resolved)
            })
            .expect("an end");
        assert!(ends <= 110, "{ends}");
    }

    #[test]
    fn a_large_sample_does_not_alarm_at_nothing() {
        let mut random = Random::new(4);
        let mut detector = ShiftDetector::new(ShiftConfig::default());
        (0..20).for_each(|at| {
            detector.observe(span(at), &window(&mut random, 5_000, 0.4));
        });
        let alarms = (20..40)
            .filter(|at| detector.observe(span(*at), &window(&mut random, 5_000, 0.46)).is_some());
        assert_eq!(alarms.count(), 0);
        let reading = detector.latest().expect("a reading");
        assert!(reading.p_value.expect("a p-value") < 1e-5, "it is significant: {reading:?}");
        assert!(reading.effect < 0.5, "and does not matter: {reading:?}");
    }

    #[test]
    fn a_tail_alone_is_seen() {
        let mut random = Random::new(5);
        let mut detector = ShiftDetector::new(ShiftConfig::default());
        for at in 0..60 {
            detector.observe(span(at), &window(&mut random, 40, 0.4));
        }
        let mut alarm = None;
        for at in 60..72 {
            let mut mixed = window(&mut random, 34, 0.4);
            mixed.merge(&window(&mut random, 6, 4.0));
            alarm = alarm.or(detector.observe(span(at), &mixed));
        }
        let alarm = alarm.expect("15 % of the calls became ten times slower");
        assert!(alarm.reading.effect > 0.5, "{alarm:?}");
    }

    #[test]
    fn a_plateau_below_the_alarm_never_becomes_usual() {
        let mut random = Random::new(7);
        let mut detector = ShiftDetector::new(ShiftConfig::default());
        for at in 0..10 {
            detector.observe(span(at), &window(&mut random, 2_000, 0.4));
        }
        for at in 10..12 {
            detector.observe(span(at), &window(&mut random, 2_000, 0.8));
        }
        // Four fifths of the effect that raises an alarm: too much to end one.
        let plateau = window(&mut random, 2_000, 0.56);
        for at in 12..412 {
            let told = detector.observe(span(at), &plateau).expect("still on");
            assert_eq!(told.state, AlarmState::Firing, "{at}: {told:?}");
        }
    }

    #[test]
    fn a_restart_goes_on_where_it_was() {
        let mut random = Random::new(6);
        let mut detector = ShiftDetector::new(ShiftConfig::default());
        for at in 0..30 {
            detector.observe(span(at), &window(&mut random, 40, 0.4));
        }
        detector.observe(span(30), &window(&mut random, 40, 2.8));
        let stored = serde_json::to_string(&detector).expect("json");
        let mut restarted: ShiftDetector = serde_json::from_str(&stored).expect("the same");
        assert_eq!(restarted, detector);
        assert!(restarted.observe(span(31), &window(&mut random, 40, 2.8)).is_some());
        restarted.adopt();
        assert_eq!(restarted.observe(span(32), &window(&mut random, 40, 2.8)), None);
    }
}
