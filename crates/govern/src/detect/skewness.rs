//! Whether the shape of prompt lengths moved (`prompt_token_distribution_skewness`): text that is
//! smuggled into some prompts gives them a tail.

use serde::{Deserialize, Serialize};
use throughline_trace::Sketch;

use super::alarm::{Alarm, Verdict};
use super::baseline::Baseline;
use super::shift::NOTHING;
use super::{BaselineConfig, Detection, Detector, DetectorKind, Hysteresis, Reading, TimeSpan};
use crate::statistics::{Binned, Moments, Random, median, quantile};

/// Numbers that are drawn for one window, at most.
const MAX_DRAWN: u64 = 2_000;

/// Windows that are drawn first. Where [`ENOUGH_REACHED`] of them are as far from what is expected as the
/// window that came, it is a usual one, and no more are drawn.
const FIRST_DRAWS: u32 = 199;

/// See [`FIRST_DRAWS`].
const ENOUGH_REACHED: usize = 5;

/// When a change of shape counts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SkewnessConfig {
    /// Least distance from the usual range.
    pub min_effect: f64,
    /// Greatest p-value.
    pub max_p_value: f64,
    /// Prompts below which a window is missing.
    pub min_count: u64,
    /// Windows that are drawn from the baseline.
    pub draws: u32,
    /// Seed of the draws.
    pub seed: u64,
    /// What is usual.
    pub baseline: BaselineConfig,
    /// How many windows it takes.
    pub hysteresis: Hysteresis,
}

impl Default for SkewnessConfig {
    fn default() -> Self {
        Self {
            min_effect: 1.0,
            max_p_value: 2e-4,
            min_count: 100,
            draws: 9_999,
            seed: 1,
            baseline: BaselineConfig { parts: 24, windows_per_part: 1, min_count: 2_000 },
            hysteresis: Hysteresis { raise_after_windows: 1, resolve_after_windows: 2 },
        }
    }
}

/// Compares the skewness (G₁) of a window with what windows of its size have when they are drawn from
/// the baseline (a bootstrap, since skewness depends on the size and has no usable standard error where
/// tails are long). Expected is the median of those, the statistic the distance from it. The effect is
/// the distance from the range of 99 % of those, the p-value twice the share of them that are as far out
/// on the same side. `None` where either has no shape.
pub fn skewness_shift(
    baseline: &Binned,
    window: &Binned,
    draws: u32,
    seed: u64,
) -> Option<Reading> {
    let observed = skewness_of(window)?;
    skewness_of(baseline)?;
    let mut random = Random::new(seed);
    let size = window.count().min(MAX_DRAWN);
    let urn = Urn::of(baseline);
    let mut drawn: Vec<f64> = Vec::new();
    let mut p_value = 1.0;
    for goal in [FIRST_DRAWS.min(draws), draws] {
        let more = goal.saturating_sub(drawn.len() as u32);
        drawn.extend((0..more).filter_map(|_| urn.draw(size, &mut random)));
        let below = drawn.iter().filter(|drawn| **drawn <= observed).count();
        let above = drawn.iter().filter(|drawn| **drawn >= observed).count();
        let reached = below.min(above);
        p_value = (2.0 * (reached + 1) as f64 / (drawn.len() + 1) as f64).min(1.0);
        if reached >= ENOUGH_REACHED {
            break;
        }
    }
    let expected = median(&drawn)?;
    let (low, high) = (quantile(&drawn, 0.005)?, quantile(&drawn, 0.995)?);
    let effect = (low - observed).max(observed - high).max(0.0);
    Some(Reading {
        statistic: observed - expected,
        p_value: Some(p_value),
        effect,
        expected,
        observed,
        count: window.count(),
        baseline_count: baseline.count(),
        is_enough: true,
    })
}

fn skewness_of(binned: &Binned) -> Option<f64> {
    let mut moments = Moments::default();
    binned.bins().iter().for_each(|(number, count)| moments.add_times(*number, *count));
    moments.skewness()
}

/// Numbers to draw from: how many are up to each, and how far each is from the mean.
struct Urn {
    up_to: Vec<u64>,
    from_mean: Vec<f64>,
}

impl Urn {
    fn of(binned: &Binned) -> Self {
        let total: f64 = binned.bins().iter().map(|(number, count)| number * *count as f64).sum();
        let mean = total / binned.count().max(1) as f64;
        let mut seen = 0;
        let up_to = binned.bins().iter().map(|(_, count)| {
            seen += count;
            seen
        });
        let up_to = up_to.collect();
        let from_mean = binned.bins().iter().map(|(number, _)| number - mean).collect();
        Self { up_to, from_mean }
    }

    /// The skewness of `size` numbers drawn with replacement.
    fn draw(&self, size: u64, random: &mut Random) -> Option<f64> {
        let all = *self.up_to.last()? as usize;
        let (mut first, mut second, mut third) = (0.0, 0.0, 0.0);
        for _ in 0..size {
            let rank = random.below(all) as u64;
            let number = self.from_mean[self.up_to.partition_point(|up_to| *up_to <= rank)];
            first += number;
            second += number * number;
            third += number * number * number;
        }
        Moments::from_power_sums(size, first, second, third).skewness()
    }
}

/// Watches the shape of prompt token counts, a [`Sketch`] a window of an hour.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SkewnessDetector {
    config: SkewnessConfig,
    baseline: Baseline<Sketch>,
    alarm: Alarm,
}

impl SkewnessDetector {
    /// One that has seen nothing yet.
    pub fn new(config: SkewnessConfig) -> Self {
        Self { config, baseline: Baseline::default(), alarm: Alarm::default() }
    }
}

impl Detector for SkewnessDetector {
    type Window = Sketch;

    fn observe(&mut self, span: TimeSpan, window: &Sketch) -> Option<Detection> {
        let config = self.config;
        let usual = Binned::of_sketch(&self.baseline.whole());
        let numbers = Binned::of_sketch(window);
        let is_enough =
            numbers.count() >= config.min_count && usual.count() >= config.baseline.min_count;
        let compared = is_enough
            .then(|| skewness_shift(&usual, &numbers, config.draws, config.seed))
            .flatten();
        let (verdict, reading) = match compared {
            Some(reading) => {
                let is_significant = reading.p_value.is_some_and(|p| p <= config.max_p_value);
                (Verdict::of(&reading, is_significant, config.min_effect), reading)
            }
            None => {
                let (count, baseline_count) = (numbers.count(), usual.count());
                (Verdict::Missing, Reading { count, baseline_count, ..NOTHING })
            }
        };
        if verdict.is_usual() {
            self.baseline.learn(window, &config.baseline);
        }
        self.alarm.step(DetectorKind::Skewness, config.hysteresis, span, verdict, reading)
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

    fn prompts(random: &mut Random, count: u64, smuggled: u64) -> Sketch {
        let mut sketch = Sketch::default();
        for at in 0..count {
            let tokens = 600.0 + 120.0 * random.normal();
            let extra = if at < smuggled { 4_000.0 } else { 0.0 };
            sketch.add((tokens.max(50.0) + extra) as u64, 1);
        }
        sketch
    }

    fn span(at: u64) -> TimeSpan {
        TimeSpan { from_unix_nano: at, to_unix_nano: at + 1 }
    }

    #[test]
    fn a_few_prompts_with_much_more_text_show() {
        let mut random = Random::new(61);
        let mut detector = SkewnessDetector::new(SkewnessConfig::default());
        for at in 0..12 {
            assert_eq!(detector.observe(span(at), &prompts(&mut random, 300, 0)), None);
        }
        let alarm = detector.observe(span(12), &prompts(&mut random, 300, 6)).expect("an alarm");
        assert!(alarm.reading.effect > 3.0, "{alarm:?}");
        assert!(alarm.reading.p_value.expect("one") <= 2e-4);
        let few = detector.observe(span(13), &prompts(&mut random, 99, 50)).expect("still on");
        assert!(!few.reading.is_enough);
    }

    #[test]
    fn a_baseline_with_a_tail_expects_one() {
        let mut random = Random::new(62);
        let mut detector = SkewnessDetector::new(SkewnessConfig::default());
        for at in 0..40 {
            let smuggled = random.below(4) as u64;
            let told = detector.observe(span(at), &prompts(&mut random, 300, smuggled));
            assert_eq!(told, None, "{at}");
        }
    }
}
