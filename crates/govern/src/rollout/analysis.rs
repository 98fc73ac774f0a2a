//! The candidate against the stable version, over the same time.
//!
//! These are fixed tests, asked anew each round over a window that slides; `alpha` is the chance of one of
//! them at one look, and the effect size keeps many looks from failing what is as good. The always-valid
//! intervals of [`crate::experiment`] hold for data that only grow, and are not used here.

use throughline_trace::Sketch;

use super::spec::Analysis;
use super::state::Verdict;
use crate::detect::{RateWindow, compare_distributions, compare_rates};
use crate::signals::{Consistency, Direction};
use crate::statistics::Binned;

/// The quantile that is compared.
const P95: f64 = 0.95;

/// What one version did in a window.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VersionWindow {
    /// How long its decision-bearing steps took, nanoseconds.
    pub durations: Sketch,
    /// Steps without an error, of all.
    pub outcomes: RateWindow,
    /// Whether it decided alike about equal inputs.
    pub consistency: Consistency,
}

impl VersionWindow {
    /// Its p95, seconds.
    pub fn p95_s(&self) -> Option<f64> {
        self.durations.quantile(P95).map(|nanos| nanos / 1e9)
    }
}

/// Compares candidate and stable version. A difference fails the candidate when it is as large as the
/// analysis forbids *and* chance does not explain it; too few events of either say nothing.
pub fn compare(analysis: &Analysis, stable: &VersionWindow, candidate: &VersionWindow) -> Verdict {
    let least = stable.outcomes.total.min(candidate.outcomes.total);
    if least < analysis.min_events {
        return Verdict::NotEnough(format!(
            "{} events of the candidate and {} of the stable version, {} each are needed",
            candidate.outcomes.total, stable.outcomes.total, analysis.min_events
        ));
    }
    let (mut fails, mut passes) = (Vec::new(), Vec::new());
    let mut tell = |is_fail: bool, text: String| match is_fail {
        true => fails.push(text),
        false => passes.push(text),
    };
    latency(analysis, stable, candidate, &mut tell);
    errors(analysis, stable, candidate, &mut tell);
    consistency(analysis, stable, candidate, &mut tell);
    match (fails.is_empty(), passes.is_empty()) {
        (false, _) => Verdict::Fail(fails.join("; ")),
        (true, false) => Verdict::Pass(passes.join("; ")),
        (true, true) => {
            Verdict::NotEnough("neither durations, outcomes nor decisions to compare".to_owned())
        }
    }
}

fn latency(
    analysis: &Analysis,
    stable: &VersionWindow,
    candidate: &VersionWindow,
    tell: &mut impl FnMut(bool, String),
) {
    let (Some(usual), Some(now)) = (stable.p95_s(), candidate.p95_s()) else { return };
    let binned = |of: &VersionWindow| Binned::of_sketch(&of.durations);
    let reading = compare_distributions(&binned(stable), &binned(candidate), Direction::UpIsBad);
    let p_value = reading.and_then(|reading| reading.p_value).unwrap_or(1.0);
    let ratio = now / usual.max(f64::MIN_POSITIVE);
    let is_fail = ratio > analysis.max_latency_ratio && p_value <= analysis.alpha;
    let events = (candidate.durations.count(), stable.durations.count());
    tell(
        is_fail,
        format!(
            "agent_decision_latency_p95 is {now:.2} s against {usual:.2} s, {ratio:.1} times ({}, {} and {} events)",
            told_p(p_value),
            events.0,
            events.1
        ),
    );
}

fn errors(
    analysis: &Analysis,
    stable: &VersionWindow,
    candidate: &VersionWindow,
    tell: &mut impl FnMut(bool, String),
) {
    let (usual, now) = (stable.outcomes, candidate.outcomes);
    let Some(reading) = compare_rates(usual, now, Direction::DownIsBad, 1.0) else { return };
    let p_value = reading.p_value.unwrap_or(1.0);
    let is_fail = reading.effect > analysis.max_error_increase && p_value <= analysis.alpha;
    let share = |of: RateWindow| 100.0 * (1.0 - of.good as f64 / of.total.max(1) as f64);
    let text =
        format!("{:.1} % errors against {:.1} % ({})", share(now), share(usual), told_p(p_value));
    tell(is_fail, text);
}

fn consistency(
    analysis: &Analysis,
    stable: &VersionWindow,
    candidate: &VersionWindow,
    tell: &mut impl FnMut(bool, String),
) {
    let (usual, now) = (&stable.consistency, &candidate.consistency);
    if usual.repeats.min(now.repeats) < analysis.min_events {
        return;
    }
    // Pairs, since the stable version with most of the traffic has the larger groups.
    let (expected, observed) = (usual.agreement(), now.agreement());
    let Some(reading) = compare_rates(expected, observed, Direction::DownIsBad, 1.0) else {
        return;
    };
    let p_value = reading.p_value.unwrap_or(1.0);
    let is_fail = reading.effect > analysis.max_consistency_drop && p_value <= analysis.alpha;
    tell(
        is_fail,
        format!(
            "decision_agreement is {:.2} against {:.2} ({}, {} and {} repeats)",
            reading.observed,
            reading.expected,
            told_p(p_value),
            now.repeats,
            usual.repeats
        ),
    );
}

fn told_p(p_value: f64) -> String {
    match p_value {
        small if small < 1e-6 => "p < 0.000001".to_owned(),
        p_value => format!("p = {p_value:.6}"),
    }
}
