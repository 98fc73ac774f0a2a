//! When a series changed: binary segmentation with the cost of squared deviations from the segment's
//! mean (Scott and Knott 1974; the `Binseg` of ruptures with model `l2`).

use serde::Serialize;

use crate::statistics::MAD_TO_SIGMA;
use crate::statistics::median_absolute_deviation;

/// Points of one series that are looked at, at most; the latest.
pub const MAX_SERIES_POINTS: usize = 10_000;

/// Changes that are told at most.
const MAX_CHANGES: usize = 50;

/// A change of level.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ChangePoint {
    /// The first point of the new level, from 0.
    pub at: usize,
    /// Mean of the segment before.
    pub before: f64,
    /// Mean of the segment after.
    pub after: f64,
    /// By how much the squared deviations fall with it.
    pub gain: f64,
}

/// The changes of level in a series, in the order of time. Segments have at least `min_points`; a change
/// is one when the squared deviations fall by more than `penalty`. Without a penalty it is
/// 3 σ² ln n: more than the modified Bayesian information criterion asks (Zhang and Siegmund 2007), with
/// σ from the differences of neighbours, which a change of level hardly moves.
pub fn change_points(series: &[f64], min_points: usize, penalty: Option<f64>) -> Vec<ChangePoint> {
    let skipped = series.len().saturating_sub(MAX_SERIES_POINTS);
    let series: Vec<f64> = series[skipped..].to_vec();
    if series.iter().any(|number| !number.is_finite()) {
        return Vec::new();
    }
    let min_points = min_points.max(1);
    let penalty = penalty.unwrap_or_else(|| usual_penalty(&series));
    let sums = Sums::of(&series);
    let mut edges = vec![0, series.len()];
    let mut found: Vec<(usize, f64)> = Vec::new();
    while found.len() < MAX_CHANGES {
        let best = edges
            .windows(2)
            .filter_map(|pair| sums.best_split(pair[0], pair[1], min_points))
            .max_by(|a, b| a.1.total_cmp(&b.1));
        let Some((at, gain)) = best.filter(|(_, gain)| *gain > penalty) else { break };
        found.push((at, gain));
        edges.push(at);
        edges.sort_unstable();
    }
    found.sort_unstable_by_key(|(at, _)| *at);
    let segment = |at: usize| {
        let place = edges.partition_point(|edge| *edge < at);
        (edges[place - 1], edges[place], edges[place + 1])
    };
    found
        .into_iter()
        .map(|(at, gain)| {
            let (from, middle, to) = segment(at);
            let (before, after) = (sums.mean(from, middle), sums.mean(middle, to));
            ChangePoint { at: at + skipped, before, after, gain }
        })
        .collect()
}

fn usual_penalty(series: &[f64]) -> f64 {
    let differences: Vec<f64> = series.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let spread = median_absolute_deviation(&differences).map_or(0.0, |(_, mad)| mad);
    // A difference of two has twice the variance of one.
    let sigma = spread * MAD_TO_SIGMA / std::f64::consts::SQRT_2;
    3.0 * sigma * sigma * (series.len().max(2) as f64).ln() + f64::EPSILON
}

/// Running sums, so that a segment's cost is known at once.
struct Sums {
    /// Taken from all numbers, so that squares do not cancel.
    offset: f64,
    sum: Vec<f64>,
    squares: Vec<f64>,
}

impl Sums {
    fn of(series: &[f64]) -> Self {
        let offset = series.iter().sum::<f64>() / series.len().max(1) as f64;
        let (mut sum, mut squares) = (vec![0.0], vec![0.0]);
        let (mut total, mut total_squares) = (0.0, 0.0);
        for number in series {
            let number = number - offset;
            total += number;
            total_squares += number * number;
            sum.push(total);
            squares.push(total_squares);
        }
        Self { offset, sum, squares }
    }

    fn mean(&self, from: usize, to: usize) -> f64 {
        self.offset + (self.sum[to] - self.sum[from]) / (to - from).max(1) as f64
    }

    fn cost(&self, from: usize, to: usize) -> f64 {
        let sum = self.sum[to] - self.sum[from];
        self.squares[to] - self.squares[from] - sum * sum / (to - from).max(1) as f64
    }

    fn best_split(&self, from: usize, to: usize, min_points: usize) -> Option<(usize, f64)> {
        let whole = self.cost(from, to);
        (from + min_points..=to.checked_sub(min_points)?)
            .map(|at| (at, whole - self.cost(from, at) - self.cost(at, to)))
            .filter(|(at, _)| *at > from && *at < to)
            .max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::statistics::Random;

    #[test]
    fn two_changes_with_their_levels() {
        let series = [1.0, 1.1, 0.9, 1.0, 5.0, 5.1, 4.9, 5.0, 2.0, 2.1, 1.9, 2.0];
        let changes = change_points(&series, 2, Some(1.0));
        let told: Vec<(usize, f64, f64)> = changes
            .iter()
            .map(|change| {
                (change.at, (change.before * 10.0).round(), (change.after * 10.0).round())
            })
            .collect();
        assert_eq!(told, [(4, 10.0, 50.0), (8, 50.0, 20.0)]);
        assert!(change_points(&[], 2, None).is_empty());
        assert!(change_points(&[3.0; 40], 2, None).is_empty());
        assert!(change_points(&[1.0, f64::NAN, 9.0], 1, None).is_empty());
    }

    #[test]
    fn noise_alone_has_no_change() {
        let mut random = Random::new(21);
        let wrong = (0..200).filter(|_| {
            let series: Vec<f64> = (0..120).map(|_| random.normal()).collect();
            !change_points(&series, 5, None).is_empty()
        });
        assert!(wrong.count() <= 6, "the usual penalty holds");
    }

    proptest! {
        #[test]
        fn a_clear_change_is_found_where_it_is(
            at in 10..90_usize, seed in any::<u64>(), up in any::<bool>(),
        ) {
            let mut random = Random::new(seed);
            let level = if up { 20.0 } else { -20.0 };
            let series: Vec<f64> = (0..100)
                .map(|point| random.normal() + if point < at { 0.0 } else { level })
                .collect();
            let changes = change_points(&series, 5, None);
            prop_assert!(changes.iter().any(|change| change.at == at), "{:?}", changes);
        }
    }
}
