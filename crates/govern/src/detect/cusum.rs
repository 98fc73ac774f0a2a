//! Whether the level of a series moved, little by little too: a two-sided CUSUM.
//!
//! With z the deviation of a window in standard deviations, C⁺ = max(0, C⁺ + z − k) and
//! C⁻ = max(0, C⁻ − z − k) (Page 1954); an alarm when either passes h. The h is worked out from how
//! many clean windows shall pass between false alarms, by Siegmund's formula (1985).

use serde::{Deserialize, Serialize};

use super::alarm::{Alarm, Verdict};
use super::{Detection, Detector, DetectorKind, Hysteresis, Reading, TimeSpan};
use crate::signals::Direction;

/// Least standard deviation relative to the mean: a series that never moved is no measure of itself.
const MIN_RELATIVE_DEVIATION: f64 = 1e-6;

/// A sum is not let grow beyond this many times h, so that it comes down again.
const CAP: f64 = 2.0;

/// Deviations beyond so many standard deviations are not learned from in full.
const CLIP: f64 = 3.0;

/// When a change of level counts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CusumConfig {
    /// k, standard deviations: half of the shift that shall be found soonest.
    pub reference: f64,
    /// Windows between false alarms on normal, independent windows whose mean and deviation are known.
    pub in_control_run_windows: f64,
    /// Windows from which mean and deviation are learned before anything is said.
    pub warm_up_windows: u64,
    /// After so many windows what was learned weighs half: slow changes of the day are followed.
    pub half_life_windows: f64,
    /// Least mean deviation since the sum left zero, in the unit of the series (for logarithms of
    /// latencies 0.15 is 16 %).
    pub min_effect: f64,
    /// Observations below which a window is missing.
    pub min_count: u64,
    /// Which way counts.
    pub direction: Direction,
    /// How many windows it takes; h has patience in it, so one does.
    pub hysteresis: Hysteresis,
}

impl Default for CusumConfig {
    fn default() -> Self {
        Self {
            reference: 1.0,
            in_control_run_windows: 1e6,
            warm_up_windows: 60,
            half_life_windows: 90.0,
            min_effect: 0.15,
            min_count: 5,
            direction: Direction::EitherIsBad,
            hysteresis: Hysteresis { raise_after_windows: 1, resolve_after_windows: 3 },
        }
    }
}

/// Mean number of windows until a CUSUM with reference `k` and threshold `h` passes on standard normal
/// windows without a change; Siegmund's approximation, one side or both.
pub fn average_run_length(k: f64, h: f64, is_two_sided: bool) -> f64 {
    let b = h + 1.166;
    let one = if k.abs() < 1e-9 {
        b * b
    } else {
        ((2.0 * k * b).exp() - 2.0 * k * b - 1.0) / (2.0 * k * k)
    };
    if is_two_sided { one / 2.0 } else { one }
}

/// The h that gives an average run length, by bisection.
pub fn threshold_for_run_length(k: f64, run_length: f64, is_two_sided: bool) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while average_run_length(k, high, is_two_sided) < run_length && high < 1e4 {
        high *= 2.0;
    }
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        if average_run_length(k, middle, is_two_sided) < run_length {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low + high) / 2.0
}

/// One side's sum.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Side {
    sum: f64,
    /// Sum of the deviations since it left zero, in the unit of the series, and how many.
    deviations: f64,
    windows: u64,
}

impl Side {
    fn step(&mut self, z: f64, deviation: f64, k: f64, cap: f64) {
        self.sum = (self.sum + z - k).clamp(0.0, cap);
        if self.sum == 0.0 {
            *self = Self::default();
        } else {
            self.deviations += deviation;
            self.windows += 1;
        }
    }

    fn effect(&self) -> f64 {
        if self.windows == 0 { 0.0 } else { self.deviations / self.windows as f64 }
    }
}

/// Watches the level of a series: one number a window, with how many observations it rests on. The
/// statistic is the greater sum, in standard deviations; the effect the mean deviation since it left
/// zero, in the unit of the series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CusumDetector {
    config: CusumConfig,
    threshold: f64,
    windows: u64,
    mean: f64,
    variance: f64,
    up: Side,
    down: Side,
    alarm: Alarm,
}

impl CusumDetector {
    /// One that has seen nothing yet.
    pub fn new(config: CusumConfig) -> Self {
        let is_two_sided = config.direction == Direction::EitherIsBad;
        let k = config.reference.max(0.01);
        Self {
            config: CusumConfig { reference: k, ..config },
            threshold: threshold_for_run_length(k, config.in_control_run_windows, is_two_sided),
            windows: 0,
            mean: 0.0,
            variance: 0.0,
            up: Side::default(),
            down: Side::default(),
            alarm: Alarm::default(),
        }
    }

    /// h, standard deviations.
    pub fn threshold(&self) -> f64 {
        self.threshold
    }

    /// Learns: plain mean and variance at first, then with the weight of the half-life.
    fn learn(&mut self, number: f64) {
        self.windows += 1;
        let fading = 1.0 - 0.5_f64.powf(1.0 / self.config.half_life_windows.max(1.0));
        let weight = (1.0 / self.windows as f64).max(fading);
        let deviation = number - self.mean;
        self.mean += weight * deviation;
        self.variance = (1.0 - weight) * (self.variance + weight * deviation * deviation);
    }

    fn reading(&self, number: f64, count: u64) -> Reading {
        let (side, effect) = match self.config.direction {
            Direction::UpIsBad => (self.up, self.up.effect()),
            Direction::DownIsBad => (self.down, self.down.effect()),
            Direction::EitherIsBad if self.up.sum >= self.down.sum => (self.up, self.up.effect()),
            Direction::EitherIsBad => (self.down, self.down.effect()),
        };
        Reading {
            statistic: side.sum,
            p_value: None,
            effect,
            expected: self.mean,
            observed: number,
            count,
            baseline_count: self.windows,
            is_enough: count >= self.config.min_count
                && self.windows >= self.config.warm_up_windows,
        }
    }
}

impl Detector for CusumDetector {
    /// The number (the logarithm of a median, a rate) and how many observations it rests on.
    type Window = (f64, u64);

    fn observe(&mut self, span: TimeSpan, (number, count): &(f64, u64)) -> Option<Detection> {
        let (number, count) = (*number, *count);
        let is_missing = !number.is_finite() || count < self.config.min_count;
        if is_missing || self.windows < self.config.warm_up_windows {
            if !is_missing {
                self.learn(number);
            }
            let reading = Reading { is_enough: false, ..self.reading(number, count) };
            let hysteresis = self.config.hysteresis;
            return self.alarm.step(
                DetectorKind::Cusum,
                hysteresis,
                span,
                Verdict::Missing,
                reading,
            );
        }
        let least = MIN_RELATIVE_DEVIATION * self.mean.abs().max(f64::MIN_POSITIVE);
        let sigma = self.variance.sqrt().max(least);
        let deviation = number - self.mean;
        let (k, cap) = (self.config.reference, CAP * self.threshold);
        self.up.step(deviation / sigma, deviation, k, cap);
        self.down.step(-deviation / sigma, -deviation, k, cap);
        let reading = self.reading(number, count);
        let is_over = reading.statistic > self.threshold;
        let verdict = if is_over && reading.effect >= self.config.min_effect {
            Verdict::Out
        } else if reading.statistic > self.threshold / 2.0 {
            Verdict::Between
        } else {
            Verdict::Well
        };
        // What looks like the beginning of a change that matters is not learned from; one that does not
        // matter is, or the sum would never come down.
        if verdict == Verdict::Well || reading.effect < self.config.min_effect {
            self.learn(self.mean + deviation.clamp(-CLIP * sigma, CLIP * sigma));
        }
        self.alarm.step(DetectorKind::Cusum, self.config.hysteresis, span, verdict, reading)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Random;

    #[test]
    fn run_lengths_are_those_of_the_books() {
        // Montgomery, Introduction to Statistical Quality Control, two-sided with k = 1/2: 168 at
        // h = 4 and 465 at h = 5; the formula is an approximation.
        for (h, book) in [(4.0, 168.0), (5.0, 465.0)] {
            let told = average_run_length(0.5, h, true);
            assert!((told / book - 1.0).abs() < 0.03, "{told} for {book}");
        }
        let h = threshold_for_run_length(0.5, 465.0, true);
        assert!((h - 5.0).abs() < 0.03, "{h}");
    }

    #[test]
    fn false_alarms_are_as_rare_as_was_asked() {
        // The plain recursion on windows of known mean and deviation.
        let h = threshold_for_run_length(0.5, 200.0, false);
        let mut random = Random::new(11);
        let mut total = 0_u64;
        let runs = 400;
        for _ in 0..runs {
            let mut side = Side::default();
            while side.sum <= h {
                side.step(random.normal(), 0.0, 0.5, 1e9);
                total += 1;
            }
        }
        let mean = total as f64 / f64::from(runs);
        assert!((mean / 200.0 - 1.0).abs() < 0.15, "{mean}");
    }

    #[test]
    fn a_small_shift_is_found_in_a_few_windows() {
        let mut random = Random::new(12);
        let mut detector = CusumDetector::new(CusumConfig::default());
        let mut observe = |at: u64, mean: f64| {
            let span = TimeSpan { from_unix_nano: at, to_unix_nano: at + 1 };
            detector.observe(span, &(mean + 0.1 * random.normal(), 40)).map(|told| told.reading)
        };
        assert!((0..300).all(|at| observe(at, 5.0).is_none()));
        let delay = (0..20).find(|at| observe(300 + at, 5.26).is_some()).expect("found");
        assert!(delay <= 6, "{delay}");
    }

    #[test]
    fn a_shift_that_does_not_matter_is_let_pass() {
        let mut random = Random::new(13);
        let mut detector = CusumDetector::new(CusumConfig::default());
        let mut alarms = 0;
        for at in 0..400_u64 {
            let mean = if at < 200 { 5.0 } else { 5.05 };
            let span = TimeSpan { from_unix_nano: at, to_unix_nano: at + 1 };
            let told = detector.observe(span, &(mean + 0.01 * random.normal(), 40));
            alarms += u32::from(told.is_some());
        }
        assert_eq!(alarms, 0);
    }
}
