//! Whether the meaning of prompts moved (`embedding_cosine_similarity_drift`): the angle between the
//! mean embedding of a window and that of a baseline, with a permutation test of the labels.

use serde::{Deserialize, Serialize};

use super::alarm::{Alarm, Verdict, WELL_SHARE};
use super::permutation::permutation_p_value;
use super::shift::NOTHING;
use super::{Detection, DetectorKind, Hysteresis, Reading, TimeSpan};
use crate::signals::{Estimate, Name, cosine_similarity, mean_embedding};
use crate::statistics::Random;

/// Embeddings of each side that are looked at, at most; of more, evenly spread ones stand for all.
const MAX_EMBEDDINGS: usize = 1_000;

/// Permutations for a drift that is too small to matter.
const FEW_PERMUTATIONS: u32 = 49;

/// When a drift counts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EmbeddingDriftConfig {
    /// Least 1 − cosine.
    pub min_effect: f64,
    /// Greatest p-value.
    pub max_p_value: f64,
    /// Permutations.
    pub permutations: u32,
    /// Seed of the permutations.
    pub seed: u64,
    /// How many windows it takes.
    pub hysteresis: Hysteresis,
}

impl Default for EmbeddingDriftConfig {
    fn default() -> Self {
        Self {
            min_effect: 0.05,
            max_p_value: 0.002,
            permutations: 999,
            seed: 1,
            hysteresis: Hysteresis { raise_after_windows: 1, resolve_after_windows: 2 },
        }
    }
}

/// The embeddings of a window and of its baseline.
#[derive(Debug, Clone, Copy)]
pub struct EmbeddingWindow<'a> {
    /// Of the window.
    pub window: &'a [Vec<f32>],
    /// Of the baseline.
    pub baseline: &'a [Vec<f32>],
}

/// A drift with its significance.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct EmbeddingDrift {
    /// `embedding_cosine_similarity_drift`: 1 − cosine, 0 to 2; the count is the smaller side's.
    pub estimate: Estimate,
    /// How likely chance alone gives as much; `None` where there is no value.
    pub p_value: Option<f64>,
}

fn thinned(embeddings: &[Vec<f32>]) -> Vec<&[f32]> {
    let wanted = embeddings.len().min(MAX_EMBEDDINGS);
    (0..wanted).map(|at| embeddings[at * embeddings.len() / wanted].as_slice()).collect()
}

fn drift_of<'a>(
    a: impl IntoIterator<Item = &'a [f32]>,
    b: impl IntoIterator<Item = &'a [f32]>,
) -> Option<f64> {
    Some(1.0 - cosine_similarity(&mean_embedding(a)?, &mean_embedding(b)?)?)
}

impl EmbeddingDrift {
    /// Measures the drift of a window.
    pub fn measure(of: EmbeddingWindow<'_>, permutations: u32, seed: u64) -> Self {
        let (window, baseline) = (thinned(of.window), thinned(of.baseline));
        let count = of.window.len().min(of.baseline.len()) as u64;
        let drift = drift_of(window.iter().copied(), baseline.iter().copied());
        let estimate = Estimate::of(Name::EmbeddingCosineSimilarityDrift, drift, count);
        let p_value = estimate.value.map(|drift| {
            let mut pool: Vec<&[f32]> = window.iter().chain(&baseline).copied().collect();
            let mut random = Random::new(seed);
            permutation_p_value(drift, permutations, &mut random, |random| {
                random.shuffle(&mut pool);
                let (a, b) = pool.split_at(window.len());
                drift_of(a.iter().copied(), b.iter().copied()).unwrap_or(f64::INFINITY)
            })
        });
        Self { estimate, p_value }
    }
}

/// Watches the direction of embeddings. The baseline is given with each window: embeddings are kept by
/// the store, not here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EmbeddingDriftDetector {
    config: EmbeddingDriftConfig,
    alarm: Alarm,
}

impl EmbeddingDriftDetector {
    /// One that has seen nothing yet.
    pub fn new(config: EmbeddingDriftConfig) -> Self {
        Self { config, alarm: Alarm::default() }
    }

    /// Takes a window in; see [`Detector::observe`](super::Detector::observe).
    pub fn observe(&mut self, span: TimeSpan, of: EmbeddingWindow<'_>) -> Option<Detection> {
        let config = self.config;
        // Below what ends an alarm no p-value changes the verdict: a few draws tell people how likely it is.
        let far = EmbeddingDrift::measure(of, 0, config.seed).estimate;
        let is_near = far.usable().is_some_and(|drift| drift < config.min_effect * WELL_SHARE);
        let permutations =
            config.permutations.min(if is_near { FEW_PERMUTATIONS } else { u32::MAX });
        let drift = EmbeddingDrift::measure(of, permutations, config.seed);
        let counts = (of.window.len() as u64, of.baseline.len() as u64);
        let reading = Reading { count: counts.0, baseline_count: counts.1, ..NOTHING };
        let (verdict, reading) = match drift.estimate.usable().zip(drift.p_value) {
            None => (Verdict::Missing, reading),
            Some((value, p_value)) => {
                let (statistic, effect, observed) = (value, value, value);
                let p = Some(p_value);
                let reading =
                    Reading { statistic, p_value: p, effect, observed, is_enough: true, ..reading };
                let is_significant = p_value <= config.max_p_value;
                (Verdict::of(&reading, is_significant, config.min_effect), reading)
            }
        };
        self.alarm.step(DetectorKind::Embedding, config.hysteresis, span, verdict, reading)
    }

    /// Whether its alarm is on.
    pub fn is_firing(&self) -> bool {
        self.alarm.is_firing()
    }

    /// What was seen in the latest window.
    pub fn latest(&self) -> Option<Reading> {
        self.alarm.latest()
    }

    /// Ends the alarm.
    pub fn adopt(&mut self) {
        *self = Self::new(self.config);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embeddings(random: &mut Random, count: usize, tilt: f64) -> Vec<Vec<f32>> {
        let one = |random: &mut Random| {
            let mut embedding: Vec<f32> = (0..16).map(|_| (0.3 * random.normal()) as f32).collect();
            embedding[0] += 1.0;
            embedding[1] += tilt as f32;
            embedding
        };
        (0..count).map(|_| one(random)).collect()
    }

    #[test]
    fn a_turn_is_seen_and_noise_is_not() {
        let mut random = Random::new(71);
        let baseline = embeddings(&mut random, 200, 0.0);
        let same = embeddings(&mut random, 60, 0.0);
        let turned = embeddings(&mut random, 60, 1.0);
        let of = |window| EmbeddingWindow { window, baseline: &baseline };
        let still = EmbeddingDrift::measure(of(&same), 199, 1);
        assert!(still.p_value.expect("one") > 0.01, "{still:?}");
        let drift = EmbeddingDrift::measure(of(&turned), 199, 1);
        // 45 degrees: 1 − cos is 0.29.
        assert!((drift.estimate.usable().expect("enough") - 0.29).abs() < 0.05, "{drift:?}");
        assert_eq!(drift.p_value, Some(1.0 / 200.0));
        assert_eq!(drift, EmbeddingDrift::measure(of(&turned), 199, 1), "the seed holds");
    }

    #[test]
    fn few_or_unlike_embeddings_are_missing() {
        let mut random = Random::new(72);
        let baseline = embeddings(&mut random, 200, 0.0);
        let few = embeddings(&mut random, 49, 3.0);
        let mut detector = EmbeddingDriftDetector::new(EmbeddingDriftConfig::default());
        let span = TimeSpan { from_unix_nano: 0, to_unix_nano: 1 };
        let observe = |window: &[Vec<f32>], detector: &mut EmbeddingDriftDetector| {
            detector.observe(span, EmbeddingWindow { window, baseline: &baseline })
        };
        assert_eq!(observe(&few, &mut detector), None);
        assert_eq!(observe(&vec![vec![1.0; 3]; 80], &mut detector), None, "other dimensions");
        assert_eq!(observe(&[], &mut detector), None);
        let turned = embeddings(&mut random, 60, 3.0);
        assert!(observe(&turned, &mut detector).is_some());
    }
}
