//! Always-valid inference on the difference of two means: the mixture sequential probability ratio test
//! (Robbins 1970; Johari, Koomen, Pekelis and Walsh 2022), in the form of an asymptotic confidence
//! sequence (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2024).
//!
//! With d the difference of the means, V its estimated variance and τ² the variance of the normal mixture
//! over effects, Λ = √(V / (V + τ²)) · exp(τ² d² / (2 V (V + τ²))) is a martingale when there is no
//! difference, so p = 1 / Λ is valid at any time (Ville), and the interval holds all differences whose Λ
//! is below 1 / α. Valid once the means are about normal: from a hundred observations on.

use serde::{Deserialize, Serialize};

use crate::statistics::Moments;

/// Two sides, each with its moments.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Sequential {
    /// The one that runs.
    pub control: Moments,
    /// The one that is tried.
    pub treatment: Moments,
}

/// What is known of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Mean of the treatment less that of the control.
    pub difference: f64,
    /// Lower end of the interval that holds the true difference, at any time, with probability 1 − α.
    pub low: f64,
    /// Upper end of it.
    pub high: f64,
    /// Always-valid p-value.
    pub p_value: f64,
}

impl Difference {
    /// Whether zero is outside.
    pub fn is_significant(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

/// Estimated variance of a side's mean. That of a rate is never 0: a side whose observations have all been
/// good is not known without error.
fn variance_of_mean(side: &Moments, is_rate: bool) -> Option<f64> {
    let n = side.count as f64;
    if side.count < 2 {
        return None;
    }
    if is_rate {
        // Agresti and Coull's two successes and failures, so that 0 of n has an error.
        let rate = (side.mean * n + 2.0) / (n + 4.0);
        return Some((rate * (1.0 - rate)).max(side.variance()?) / n);
    }
    Some(side.variance()? / n)
}

/// Variance of an observation, in τ², where none varies.
const STILL: f64 = 0.25;

/// The difference of two means at any time. `tau` is the size of the effects that are expected, in the
/// unit of the observations: the interval is narrowest for those. Where neither side varies, as the tokens of a
/// prompt that is always the same, each observation is taken to vary by half of `tau`: with no variance the second
/// one would settle it. `None` below two observations a side.
pub fn sequential_difference(
    of: &Sequential,
    alpha: f64,
    tau: f64,
    is_rate: bool,
) -> Option<Difference> {
    let tau2 = tau * tau;
    let variance =
        match variance_of_mean(&of.control, is_rate)? + variance_of_mean(&of.treatment, is_rate)? {
            varies if varies > 0.0 => varies,
            _ => {
                let share = |side: &Moments| 1.0 / side.count as f64;
                STILL * tau2 * (share(&of.control) + share(&of.treatment))
            }
        };
    if !(variance > 0.0 && tau2 > 0.0 && alpha > 0.0) {
        return None;
    }
    let difference = of.treatment.mean - of.control.mean;
    let both = variance + tau2;
    let ln_lambda =
        0.5 * (variance / both).ln() + tau2 * difference * difference / (2.0 * variance * both);
    let half =
        (variance * both / tau2 * (2.0 * (1.0 / alpha).ln() + (both / variance).ln())).sqrt();
    Some(Difference {
        difference,
        low: difference - half,
        high: difference + half,
        p_value: (-ln_lambda).exp().min(1.0),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_interval_and_the_p_value_agree(
            a in proptest::collection::vec(-5.0..5.0_f64, 10..60),
            b in proptest::collection::vec(-4.0..6.0_f64, 10..60),
            tau in 0.05..3.0_f64,
        ) {
            let of = Sequential {
                control: a.into_iter().collect(),
                treatment: b.into_iter().collect(),
            };
            let told = sequential_difference(&of, 0.05, tau, false).expect("they vary");
            prop_assert!(told.low < told.difference && told.difference < told.high);
            if (told.p_value - 0.05).abs() > 1e-9 {
                prop_assert_eq!(told.is_significant(), told.p_value < 0.05, "{:?}", told);
            }
        }
    }

    #[test]
    fn what_never_varies_is_told_with_care_and_all_good_has_an_error() {
        let of =
            |number: f64, count: usize| -> Moments { vec![number; count].into_iter().collect() };
        let same = of(1.0, 200);
        let of_two = |treatment| Sequential { control: same, treatment };
        let told = sequential_difference(&of_two(same), 0.05, 0.1, false).expect("one");
        assert!(!told.is_significant() && told.p_value > 0.9, "{told:?}");
        let few = Sequential { control: of(1.0, 2), treatment: of(1.1, 2) };
        let told = sequential_difference(&few, 0.05, 0.1, false).expect("one");
        assert!(!told.is_significant(), "two do not settle it: {told:?}");
        let told = sequential_difference(&of_two(of(1.1, 200)), 0.05, 0.1, false).expect("one");
        assert!(told.is_significant() && told.low > 0.05, "{told:?}");
        let of = of_two(same);
        let told = sequential_difference(&of, 0.05, 0.1, true).expect("rates have an error");
        assert!(!told.is_significant() && told.high < 0.1, "{told:?}");
        assert_eq!(sequential_difference(&Sequential::default(), 0.05, 0.1, true), None);
    }
}
