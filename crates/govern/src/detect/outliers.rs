//! Whether more traces than usual are unusual in several features together (duration, tokens, calls,
//! retries …), although each feature alone may be within its range.

use serde::{Deserialize, Serialize};

use super::{
    Detection, Detector, DetectorKind, RateConfig, RateDetector, RateWindow, Reading, TimeSpan,
};
use crate::signals::Direction;
use crate::statistics::{RobustDistance, chi_square_quantile, chi_square_sf};

/// When a trace is an outlier, and when there are too many.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutlierConfig {
    /// A trace is an outlier when chance would put so few this far out, 0 to 1.
    pub max_share: f64,
    /// When the share of outliers is too large.
    pub rate: RateConfig,
}

impl Default for OutlierConfig {
    /// One in a thousand is far out; ten points more than usual are too many.
    fn default() -> Self {
        let rate =
            RateConfig { min_effect: 0.1, direction: Direction::UpIsBad, ..RateConfig::default() };
        Self { max_share: 0.001, rate }
    }
}

/// How unusual one trace is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Outlier {
    /// Squared robust distance from the middle.
    pub squared_distance: f64,
    /// How likely a usual trace is as far out.
    pub p_value: f64,
    /// Whether it is an outlier.
    pub is_outlier: bool,
}

/// Watches the features of traces. Features with long tails (durations, tokens) are given as logarithms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutlierDetector {
    config: OutlierConfig,
    usual: RobustDistance,
    rate: RateDetector,
}

impl OutlierDetector {
    /// Learns what is usual from traces of a baseline, outliers among them or not; `None` as
    /// [`RobustDistance::fit`] says, and where no feature varies.
    pub fn fit(config: OutlierConfig, baseline: &[Vec<f64>]) -> Option<Self> {
        let usual = RobustDistance::fit(baseline).filter(|usual| usual.degrees() > 0)?;
        let rate = RateDetector::of_kind(DetectorKind::Outliers, config.rate);
        Some(Self { config, usual, rate })
    }

    /// Takes traces in that are known to be usual: how many of them are outliers is what later windows are held
    /// against.
    pub fn learn(&mut self, traces: &[Vec<f64>]) {
        self.rate.learn(self.count(traces));
    }

    /// Outliers among traces; they are the "good" ones of the window, since it is their share that is watched.
    fn count(&self, traces: &[Vec<f64>]) -> RateWindow {
        let edge = chi_square_quantile(1.0 - self.config.max_share, self.usual.degrees());
        let distances = traces.iter().filter_map(|trace| self.usual.squared_distance(trace));
        distances.fold(RateWindow::default(), |counted, distance| RateWindow {
            good: counted.good + u64::from(distance > edge),
            total: counted.total + 1,
        })
    }

    /// How unusual a trace is; `None` for features that cannot be compared.
    pub fn judge(&self, features: &[f64]) -> Option<Outlier> {
        let squared_distance = self.usual.squared_distance(features)?;
        let degrees = self.usual.degrees();
        Some(Outlier {
            squared_distance,
            p_value: chi_square_sf(squared_distance, degrees),
            is_outlier: squared_distance
                > chi_square_quantile(1.0 - self.config.max_share, degrees),
        })
    }
}

impl Detector for OutlierDetector {
    /// The features of each trace of a window.
    type Window = [Vec<f64>];

    fn observe(&mut self, span: TimeSpan, window: &[Vec<f64>]) -> Option<Detection> {
        self.rate.observe(span, &self.count(window))
    }

    fn latest(&self) -> Option<Reading> {
        self.rate.latest()
    }

    fn is_firing(&self) -> bool {
        self.rate.is_firing()
    }

    /// The share of outliers that is now is usual; what an outlier is stays as it was learned.
    fn adopt(&mut self) {
        self.rate.adopt();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Random;

    fn traces(random: &mut Random, count: usize, is_decoupled: bool) -> Vec<Vec<f64>> {
        (0..count)
            .map(|_| {
                // Longer answers take longer; when that no longer holds, each is in its range still.
                let tokens = 6.0 + 0.5 * random.normal();
                let base = if is_decoupled { 12.0 - tokens } else { tokens };
                vec![tokens, base + 0.1 * random.normal()]
            })
            .collect()
    }

    #[test]
    fn what_is_usual_alone_can_be_unusual_together() {
        let mut random = Random::new(51);
        let baseline = traces(&mut random, 500, false);
        let mut detector =
            OutlierDetector::fit(OutlierConfig::default(), &baseline).expect("fitted");
        let mut observe = |at: u64, window: &[Vec<f64>]| {
            detector.observe(TimeSpan { from_unix_nano: at, to_unix_nano: at + 1 }, window)
        };
        for at in 0..20 {
            assert_eq!(observe(at, &traces(&mut random, 40, false)), None);
        }
        observe(20, &traces(&mut random, 40, true));
        let alarm = observe(21, &traces(&mut random, 40, true)).expect("an alarm");
        assert_eq!(alarm.detector, DetectorKind::Outliers);
        assert!(alarm.reading.observed > 0.5, "{alarm:?}");
        let usual = detector.judge(&[6.0, 6.0]).expect("judged");
        assert!(!usual.is_outlier && usual.p_value > 0.1, "{usual:?}");
        assert!(detector.judge(&[7.0, 5.0]).expect("judged").is_outlier);
        assert_eq!(detector.judge(&[7.0]), None);
    }
}
