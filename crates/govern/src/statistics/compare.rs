//! Whether two proportions, or counts and what was expected of them, differ.

use super::{chi_square_sf, fisher_exact, normal_sf};

/// Expected count of a cell below which the normal approximation is not relied on (Cochran's rule).
const MIN_EXPECTED: f64 = 5.0;

/// In which direction a difference counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The first is greater.
    Greater,
    /// The first is less.
    Less,
    /// Either.
    Both,
}

/// What a comparison of two proportions says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TwoProportions {
    /// Difference in standard errors, from the pooled proportion; 0 where that has no spread.
    pub z: f64,
    /// p-value.
    pub p_value: f64,
    /// First proportion less the second.
    pub difference: f64,
}

/// Compares `good_a` of `total_a` with `good_b` of `total_b`: the pooled z-test; Fisher's exact test
/// for the p-value where a cell is expected to hold fewer than five. `None` when either has nothing.
pub fn two_proportions(
    (good_a, total_a): (u64, u64),
    (good_b, total_b): (u64, u64),
    side: Side,
) -> Option<TwoProportions> {
    if total_a == 0 || total_b == 0 || good_a > total_a || good_b > total_b {
        return None;
    }
    let (na, nb) = (total_a as f64, total_b as f64);
    let (pa, pb) = (good_a as f64 / na, good_b as f64 / nb);
    let pooled = (good_a as f64 + good_b as f64) / (na + nb);
    let error = (pooled * (1.0 - pooled) * (1.0 / na + 1.0 / nb)).sqrt();
    let difference = pa - pb;
    let z = if error > 0.0 { difference / error } else { 0.0 };
    let least_expected = na.min(nb) * pooled.min(1.0 - pooled);
    let p_value = if least_expected < MIN_EXPECTED {
        fisher_exact(good_a, total_a - good_a, good_b, total_b - good_b, side)
    } else {
        match side {
            Side::Greater => normal_sf(z),
            Side::Less => normal_sf(-z),
            Side::Both => (2.0 * normal_sf(z.abs())).min(1.0),
        }
    };
    Some(TwoProportions { z, p_value, difference })
}

/// Pearson's χ² of counts against expected shares (which need not add up to 1), and its p-value;
/// `None` when there is nothing counted, or a share is not above 0.
pub fn chi_square_fit(counts: &[u64], shares: &[f64]) -> Option<(f64, f64)> {
    let total: u64 = counts.iter().sum();
    let whole: f64 = shares.iter().sum();
    if total == 0 || counts.len() != shares.len() || !shares.iter().all(|share| *share > 0.0) {
        return None;
    }
    let statistic = counts.iter().zip(shares).map(|(count, share)| {
        let expected = total as f64 * share / whole;
        (*count as f64 - expected).powi(2) / expected
    });
    let statistic: f64 = statistic.sum();
    Some((statistic, chi_square_sf(statistic, counts.len() - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // 80 of 100 against 60 of 100: pooled 0.7, error √(0.21 · 0.02) = 0.0648074.
        let test = two_proportions((80, 100), (60, 100), Side::Both).expect("enough");
        assert!((test.z - 0.2 / 0.004_2_f64.sqrt()).abs() < 1e-12, "{test:?}");
        assert!((test.p_value - 0.002_028).abs() < 1e-5, "{test:?}");
        assert_eq!(two_proportions((0, 0), (1, 2), Side::Both), None);
        // Few: the exact test.
        let few = two_proportions((3, 4), (1, 4), Side::Greater).expect("enough");
        assert!((few.p_value - 17.0 / 70.0).abs() < 1e-12, "{few:?}");
        let (statistic, p) = chi_square_fit(&[60, 40], &[1.0, 1.0]).expect("counts");
        assert!((statistic - 4.0).abs() < 1e-12 && (p - 0.045_500_263_896).abs() < 1e-9);
        assert_eq!(chi_square_fit(&[0, 0], &[1.0, 1.0]), None);
    }
}
