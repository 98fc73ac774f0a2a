//! Whether traffic was divided as it should have been. A sample ratio mismatch means that something
//! loses or keeps one side's units, and no comparison of the sides can be believed.

use libm::lgamma;
use serde::{Deserialize, Serialize};

/// How sharply the alternative is set about the intended shares: the number of pseudo-observations of the
/// Dirichlet distribution.
const CONCENTRATION: f64 = 1_000.0;

/// What the counts say of the intended shares.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SplitCheck {
    /// Always-valid p-value: it may be looked at with every batch.
    pub p_value: f64,
    /// Whether it is below what was asked.
    pub is_mismatch: bool,
}

/// Tests counts against intended shares (which need not add up to 1): the sequential multinomial test of
/// Lindon and Malek (2022), a Bayes factor of a Dirichlet mixture against the intended shares, which
/// is a martingale when they hold. `None` for shares that are not above 0, or not as many as counts.
pub fn check_split(counts: &[u64], shares: &[f64], max_p_value: f64) -> Option<SplitCheck> {
    let whole: f64 = shares.iter().sum();
    let is_good = counts.len() == shares.len() && shares.iter().all(|share| *share > 0.0);
    if !is_good || counts.len() < 2 || !whole.is_finite() {
        return None;
    }
    let total: u64 = counts.iter().sum();
    let mut ln_factor = lgamma(CONCENTRATION) - lgamma(CONCENTRATION + total as f64);
    for (count, share) in counts.iter().zip(shares) {
        let (count, share) = (*count as f64, share / whole);
        let prior = CONCENTRATION * share;
        ln_factor += lgamma(prior + count) - lgamma(prior) - count * share.ln();
    }
    let p_value = (-ln_factor).exp().min(1.0);
    Some(SplitCheck { p_value, is_mismatch: p_value < max_p_value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Random;

    #[test]
    fn a_skewed_split_is_seen() {
        let check = |counts: &[u64]| check_split(counts, &[1.0, 1.0], 0.001).expect("good shares");
        assert!(!check(&[5_050, 4_950]).is_mismatch);
        assert!(check(&[5_300, 4_700]).is_mismatch);
        assert!(!check(&[0, 0]).is_mismatch);
        assert_eq!(check(&[0, 0]).p_value, 1.0);
        assert_eq!(check_split(&[1, 2], &[1.0, 0.0], 0.001), None);
        assert_eq!(check_split(&[1], &[1.0], 0.001), None);
    }

    #[test]
    fn looking_often_does_no_harm() {
        let mut random = Random::new(91);
        let runs = 300;
        let wrong = (0..runs).filter(|_| {
            let mut counts = [0_u64; 2];
            (0..2_000).any(|_| {
                counts[random.below(2)] += 1;
                check_split(&counts, &[0.5, 0.5], 0.05).is_some_and(|check| check.is_mismatch)
            })
        });
        let wrong = wrong.count();
        // At most 5 %: 15 of 300.
        assert!(wrong <= 15, "{wrong}");
    }
}
