//! A canary against what is stable: fail as soon as it is worse for sure, pass as soon as it cannot be
//! worse by more than is tolerated, and until then not enough is known. It may be asked at every step of
//! a rollout. Rollouts themselves use the fixed tests of [`crate::rollout`] so far.

use serde::{Deserialize, Serialize};
use throughline_trace::Sketch;

use super::{Difference, Sequential, sequential_difference};
use crate::detect::RateWindow;
use crate::signals::Direction;
use crate::statistics::{Binned, Moments};

/// The quantile of the stable version beyond which an operation is slow.
const SLOW: f64 = 0.95;

/// How much the share of slow operations may grow for a distribution to pass, at most: to twice the
/// five per cent that the stable version has.
const MAX_SLOW_GROWTH: f64 = 0.05;

/// What is compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CanaryMetric {
    /// Its name.
    pub name: String,
    /// Which way it gets worse. Of a distribution, more is worse, whatever is said here.
    pub direction: Direction,
    /// How much worse is tolerated: of rates and values in their unit, of a distribution as the growth of
    /// its 95th percentile (0.25: a quarter).
    pub tolerance: f64,
}

/// What one side has of a metric.
#[derive(Debug, Clone, PartialEq)]
pub enum CanarySide {
    /// Good of all: success rate, consistency, compliance.
    Rate(RateWindow),
    /// Numbers whose tail counts: latencies.
    Distribution(Sketch),
    /// Numbers whose mean counts: a signal, cost, confidence.
    Values(Moments),
}

/// A metric with both sides.
#[derive(Debug, Clone, PartialEq)]
pub struct Canary {
    /// What is compared.
    pub metric: CanaryMetric,
    /// The version that runs.
    pub stable: CanarySide,
    /// The one that is tried.
    pub canary: CanarySide,
}

/// When it is decided.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CanaryConfig {
    /// Chance of ever failing a canary that is not worse, over all metrics, 0 to 1.
    pub alpha: f64,
    /// Observations a side below which a metric says nothing.
    pub min_count: u64,
}

impl Default for CanaryConfig {
    fn default() -> Self {
        Self { alpha: 0.01, min_count: 50 }
    }
}

/// What is said of a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CanaryVerdict {
    /// It is not worse by more than is tolerated, in any metric.
    Pass,
    /// It is worse.
    Fail,
    /// Neither is known yet.
    NotEnough,
}

/// The numbers of one metric.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CanaryEvidence {
    /// Which metric.
    pub metric: String,
    /// What it says.
    pub verdict: CanaryVerdict,
    /// The stable version's rate, mean or 95th percentile; `None` where there is none.
    pub stable: Option<f64>,
    /// The canary's.
    pub canary: Option<f64>,
    /// By how much the canary is worse: of rates and values in their unit, of a distribution the growth of
    /// its 95th percentile. Below 0 it is better.
    pub worse_by: Option<f64>,
    /// The always-valid interval of that; of a distribution, of the growth of the share beyond the stable
    /// version's 95th percentile.
    pub interval: Option<(f64, f64)>,
    /// How much worse is tolerated.
    pub tolerance: f64,
    /// Observations of the stable version.
    pub stable_count: u64,
    /// Observations of the canary.
    pub canary_count: u64,
}

/// What is known of a canary.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CanaryResult {
    /// The verdict.
    pub verdict: CanaryVerdict,
    /// Why, one sentence for people.
    pub reason: String,
    /// Metric by metric, as they were given.
    pub evidence: Vec<CanaryEvidence>,
}

impl CanaryResult {
    /// Compares a canary with the stable version, metric by metric.
    pub fn of(metrics: &[Canary], config: &CanaryConfig) -> Self {
        // Each metric gets its part of α, so that all of them together keep to it.
        let alpha = config.alpha / metrics.len().max(1) as f64;
        let evidence: Vec<CanaryEvidence> =
            metrics.iter().map(|canary| judge(canary, alpha, config.min_count)).collect();
        let first = |verdict| evidence.iter().find(|one| one.verdict == verdict);
        let (verdict, reason) = match (first(CanaryVerdict::Fail), first(CanaryVerdict::NotEnough))
        {
            (Some(failed), _) => (CanaryVerdict::Fail, told(failed, "is worse")),
            (None, Some(open)) => {
                (CanaryVerdict::NotEnough, told(open, "is not known well enough"))
            }
            (None, None) if evidence.is_empty() => {
                (CanaryVerdict::NotEnough, "there is no metric to compare".to_owned())
            }
            (None, None) => {
                let reason =
                    format!("none of {} metrics is worse than is tolerated", evidence.len());
                (CanaryVerdict::Pass, reason)
            }
        };
        Self { verdict, reason, evidence }
    }
}

fn told(evidence: &CanaryEvidence, what: &str) -> String {
    let number = |number: Option<f64>| number.map_or("nothing".to_owned(), |x| format!("{x:.4}"));
    format!(
        "{} {what}: {} of the canary against {} of the stable version, from {} and {} observations",
        evidence.metric,
        number(evidence.canary),
        number(evidence.stable),
        evidence.canary_count,
        evidence.stable_count
    )
}

/// What a metric comes down to: two sides whose means are compared, and what people are shown.
struct Compared {
    means: Sequential,
    is_rate: bool,
    stable: Option<f64>,
    canary: Option<f64>,
    /// Growth of the 95th percentile, where it is one.
    growth: Option<f64>,
}

fn judge(of: &Canary, alpha: f64, min_count: u64) -> CanaryEvidence {
    let metric = &of.metric;
    let compared = compare(&of.stable, &of.canary);
    let mut evidence = CanaryEvidence {
        metric: metric.name.clone(),
        verdict: CanaryVerdict::NotEnough,
        stable: None,
        canary: None,
        worse_by: None,
        interval: None,
        tolerance: metric.tolerance,
        stable_count: 0,
        canary_count: 0,
    };
    let Some(compared) = compared else { return evidence };
    evidence.stable = compared.stable;
    evidence.canary = compared.canary;
    evidence.stable_count = compared.means.control.count;
    evidence.canary_count = compared.means.treatment.count;
    let (tolerance, direction) = match compared.growth {
        Some(_) => (MAX_SLOW_GROWTH, Direction::UpIsBad),
        None => (metric.tolerance, metric.direction),
    };
    let spread = compared.means.control.variance().unwrap_or(0.0).sqrt() * 0.1;
    let tau = if tolerance > 0.0 { tolerance } else { spread };
    let Some(difference) = sequential_difference(&compared.means, alpha, tau, compared.is_rate)
    else {
        return evidence;
    };
    let (worse_by, low, high) = worsening(difference, direction);
    evidence.worse_by = Some(compared.growth.unwrap_or(worse_by));
    evidence.interval = Some((low, high));
    let is_enough = evidence.stable_count.min(evidence.canary_count) >= min_count;
    let is_tolerated = evidence.worse_by.is_some_and(|worse_by| worse_by <= metric.tolerance);
    evidence.verdict = if !is_enough {
        CanaryVerdict::NotEnough
    } else if low > 0.0 && !is_tolerated {
        CanaryVerdict::Fail
    } else if high < tolerance && is_tolerated {
        CanaryVerdict::Pass
    } else {
        CanaryVerdict::NotEnough
    };
    evidence
}

/// A difference as a worsening, with the ends of its interval.
fn worsening(of: Difference, direction: Direction) -> (f64, f64, f64) {
    let Difference { difference, low, high, .. } = of;
    match direction {
        Direction::UpIsBad => (difference, low, high),
        Direction::DownIsBad => (-difference, -high, -low),
        Direction::EitherIsBad if difference >= 0.0 => (difference, low, high),
        Direction::EitherIsBad => (-difference, -high, -low),
    }
}

/// `None` where the sides are of different kinds, or there is nothing to compare.
fn compare(stable: &CanarySide, canary: &CanarySide) -> Option<Compared> {
    match (stable, canary) {
        (CanarySide::Rate(stable), CanarySide::Rate(canary)) => {
            let rate = |of: &RateWindow| (of.total > 0).then(|| of.good as f64 / of.total as f64);
            let means = Sequential {
                control: of_rate(stable.good, stable.total),
                treatment: of_rate(canary.good, canary.total),
            };
            let (stable, canary) = (rate(stable), rate(canary));
            Some(Compared { means, is_rate: true, stable, canary, growth: None })
        }
        (CanarySide::Values(stable), CanarySide::Values(canary)) => {
            let mean = |of: &Moments| (of.count > 0).then_some(of.mean);
            Some(Compared {
                means: Sequential { control: *stable, treatment: *canary },
                is_rate: false,
                stable: mean(stable),
                canary: mean(canary),
                growth: None,
            })
        }
        (CanarySide::Distribution(stable), CanarySide::Distribution(canary)) => {
            let (stable, canary) = (Binned::of_sketch(stable), Binned::of_sketch(canary));
            let edge = stable.quantile(SLOW)?;
            let slow = |of: &Binned| of_rate(of.above(edge), of.count());
            let at = canary.quantile(SLOW);
            Some(Compared {
                means: Sequential { control: slow(&stable), treatment: slow(&canary) },
                is_rate: true,
                stable: Some(edge),
                canary: at,
                growth: Some(at? / edge.max(1.0) - 1.0),
            })
        }
        _ => None,
    }
}

fn of_rate(good: u64, total: u64) -> Moments {
    let good = good.min(total);
    let mut moments = Moments::default();
    if good > 0 {
        moments.add_times(1.0, good);
    }
    if total > good {
        moments.add_times(0.0, total - good);
    }
    moments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Random;

    fn metric(name: &str, direction: Direction, tolerance: f64) -> CanaryMetric {
        CanaryMetric { name: name.to_owned(), direction, tolerance }
    }

    fn latencies(random: &mut Random, count: usize, median_s: f64) -> CanarySide {
        let mut sketch = Sketch::default();
        for _ in 0..count {
            sketch.add((median_s * (0.4 * random.normal()).exp() * 1e9) as u64, 1);
        }
        CanarySide::Distribution(sketch)
    }

    fn success(good: u64, total: u64) -> CanarySide {
        CanarySide::Rate(RateWindow { good, total })
    }

    fn metrics(random: &mut Random, canary: (u64, u64), canary_median_s: f64) -> Vec<Canary> {
        vec![
            Canary {
                metric: metric("success_rate", Direction::DownIsBad, 0.05),
                stable: success(2_850, 3_000),
                canary: success(canary.0, canary.1),
            },
            Canary {
                metric: metric("latency", Direction::UpIsBad, 0.25),
                stable: latencies(random, 3_000, 0.4),
                canary: latencies(random, canary.1 as usize, canary_median_s),
            },
        ]
    }

    fn verdict(metrics: &[Canary]) -> CanaryVerdict {
        CanaryResult::of(metrics, &CanaryConfig::default()).verdict
    }

    #[test]
    fn pass_fail_and_not_enough() {
        let mut random = Random::new(111);
        assert_eq!(verdict(&metrics(&mut random, (950, 1_000), 0.4)), CanaryVerdict::Pass);
        assert_eq!(verdict(&metrics(&mut random, (160, 200), 0.4)), CanaryVerdict::Fail);
        assert_eq!(verdict(&metrics(&mut random, (57, 60), 0.4)), CanaryVerdict::NotEnough);
        assert_eq!(verdict(&metrics(&mut random, (0, 0), 0.4)), CanaryVerdict::NotEnough);
        assert_eq!(verdict(&metrics(&mut random, (0, 20), 2.8)), CanaryVerdict::NotEnough);
        let slow = CanaryResult::of(&metrics(&mut random, (57, 60), 2.8), &CanaryConfig::default());
        assert_eq!(slow.verdict, CanaryVerdict::Fail);
        assert!(slow.reason.starts_with("latency is worse: "), "{}", slow.reason);
        let latency = &slow.evidence[1];
        assert!(latency.worse_by.expect("known") > 4.0, "{latency:?}");
        assert!(latency.interval.expect("known").0 > 0.5, "{latency:?}");
        assert_eq!(
            CanaryResult::of(&[], &CanaryConfig::default()).verdict,
            CanaryVerdict::NotEnough
        );
    }

    #[test]
    fn signals_of_the_teams_own() {
        let mut random = Random::new(112);
        let mut values = |mean: f64, count: usize| {
            CanarySide::Values((0..count).map(|_| mean + 0.1 * random.normal()).collect())
        };
        let mut confidence = |mean: f64| {
            vec![Canary {
                metric: metric("confidence", Direction::DownIsBad, 0.05),
                stable: values(0.8, 2_000),
                canary: values(mean, 400),
            }]
        };
        assert_eq!(verdict(&confidence(0.8)), CanaryVerdict::Pass);
        assert_eq!(verdict(&confidence(0.9)), CanaryVerdict::Pass, "better is good");
        assert_eq!(verdict(&confidence(0.7)), CanaryVerdict::Fail);
    }

    #[test]
    fn a_canary_that_is_the_same_is_not_failed_by_looking_often() {
        let mut random = Random::new(113);
        let runs = 200;
        let failed = (0..runs)
            .filter(|_| {
                let (mut stable, mut canary) = (RateWindow::default(), RateWindow::default());
                (0..100).any(|_| {
                    for (of, count) in [(&mut stable, 90), (&mut canary, 10)] {
                        for _ in 0..count {
                            of.total += 1;
                            of.good += u64::from(random.uniform() < 0.95);
                        }
                    }
                    let one = [Canary {
                        metric: metric("success_rate", Direction::DownIsBad, 0.02),
                        stable: CanarySide::Rate(stable),
                        canary: CanarySide::Rate(canary),
                    }];
                    let config = CanaryConfig { alpha: 0.05, ..CanaryConfig::default() };
                    verdict(&one) == CanaryVerdict::Fail
                        || CanaryResult::of(&one, &config).verdict == CanaryVerdict::Fail
                })
            })
            .count();
        assert!(failed <= 10, "{failed} of {runs}, more than 5 %");
    }
}
