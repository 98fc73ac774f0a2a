//! A mergeable sketch of many numbers: quantiles within one per cent of the true value.
//!
//! It is a DDSketch (Masson, Rim and Lee, 2019): a number falls into the bin of its logarithm, and a
//! sketch is a sorted list of bin → count. The bins are our own rather than those of
//! `sketches-ddsketch`, for three reasons: counts must be able to go *down* (a model call that turns
//! out to be told twice is taken back from a cell that is written already), what is stored must be
//! as sparse as the data (most cells have a handful of bins; that crate stores a dense run), and
//! every cell must have the same bins for ever, which a format should not leave to a dependency.
//! Sums of bins do not depend on the order of merging, so that merging is exact.

use serde::{Deserialize, Serialize};

/// Greatest distance of a quantile from the true value, relative to it.
pub const SKETCH_ACCURACY: f64 = 0.01;

/// What the bins are made for: a little better than [`SKETCH_ACCURACY`], so that rounding at the
/// edge of a bin stays within it.
const BIN_ACCURACY: f64 = 0.009_95;

/// Ratio of the upper edges of two bins that lie beside each other.
pub const SKETCH_GAMMA: f64 = (1.0 + BIN_ACCURACY) / (1.0 - BIN_ACCURACY);

/// A sketch of non-negative integers: nanoseconds, tokens, millionths.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sketch {
    /// Bin and count, by bin. A count is below zero only in a delta that takes something back.
    bins: Vec<(u16, i64)>,
    /// Sum of the numbers; exact.
    sum: i128,
}

/// Logarithm of the ratio of one bin's edge to the one below.
fn ln_gamma() -> f64 {
    SKETCH_GAMMA.ln()
}

/// The bin of a number: 0 for zero, else one more than the power of gamma that it needs. The
/// greatest `u64` is in bin 2,231.
fn bin_of(number: u64) -> u16 {
    match number {
        0 => 0,
        number => ((number as f64).ln() / ln_gamma()).ceil() as u16 + 1,
    }
}

/// The number that stands for a bin.
fn number_of(bin: u16) -> f64 {
    match bin {
        0 => 0.0,
        bin => {
            let upper = (f64::from(bin - 1) * ln_gamma()).exp();
            // The bin ends at `upper`: its middle in the sense of relative distance.
            upper * (1.0 - BIN_ACCURACY)
        }
    }
}

impl Sketch {
    /// Takes a number in, or takes it back with `times` below zero.
    pub fn add(&mut self, number: u64, times: i64) {
        self.add_bin(bin_of(number), times);
        self.sum = self.sum.wrapping_add(i128::from(number).wrapping_mul(i128::from(times)));
    }

    fn add_bin(&mut self, bin: u16, times: i64) {
        match self.bins.binary_search_by_key(&bin, |(bin, _)| *bin) {
            Err(at) => self.bins.insert(at, (bin, times)),
            Ok(at) => {
                let count = self.bins[at].1.wrapping_add(times);
                if count == 0 {
                    self.bins.remove(at);
                } else {
                    self.bins[at].1 = count;
                }
            }
        }
    }

    /// Joins another sketch. Commutative and associative.
    pub fn merge(&mut self, other: &Self) {
        self.sum = self.sum.wrapping_add(other.sum);
        if other.bins.len() <= 2 {
            other.bins.iter().for_each(|(bin, count)| self.add_bin(*bin, *count));
            return;
        }
        let mut merged = Vec::with_capacity(self.bins.len() + other.bins.len());
        let (mut mine, mut theirs) = (self.bins.iter().peekable(), other.bins.iter().peekable());
        loop {
            let next = match (mine.peek(), theirs.peek()) {
                (Some(a), Some(b)) if a.0 == b.0 => {
                    let both = (a.0, a.1.wrapping_add(b.1));
                    mine.next();
                    theirs.next();
                    both
                }
                (Some(a), Some(b)) if b.0 < a.0 => {
                    let (bin, count) = **b;
                    theirs.next();
                    (bin, count)
                }
                (Some(a), _) => {
                    let (bin, count) = **a;
                    mine.next();
                    (bin, count)
                }
                (None, Some(b)) => {
                    let (bin, count) = **b;
                    theirs.next();
                    (bin, count)
                }
                (None, None) => break,
            };
            if next.1 != 0 {
                merged.push(next);
            }
        }
        self.bins = merged;
    }

    /// Its bins with their counts, by bin: 0 has zeros, and bin `b` the numbers above
    /// `g^(b-2)` up to `g^(b-1)`, where `g` is [`SKETCH_GAMMA`].
    pub fn numbered_bins(&self) -> impl Iterator<Item = (u16, i64)> {
        self.bins.iter().copied()
    }

    /// A sketch of [numbered bins](Self::numbered_bins), in any order, and of the sum of its numbers.
    pub fn of_bins(bins: impl IntoIterator<Item = (u16, i64)>, sum: i128) -> Self {
        let mut made = Self { bins: Vec::new(), sum };
        bins.into_iter().for_each(|(bin, count)| made.add_bin(bin, count));
        made.bins.retain(|(_, count)| *count != 0);
        made
    }

    /// How many numbers it holds.
    pub fn count(&self) -> i64 {
        self.bins.iter().fold(0, |sum, (_, count)| sum.wrapping_add(*count))
    }

    /// Their sum, exact.
    pub fn sum(&self) -> i128 {
        self.sum
    }

    /// Their mean; `None` when there is none.
    pub fn mean(&self) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| self.sum as f64 / count as f64)
    }

    /// The number at this rank (`0.95` is the 95th percentile: the smallest number that at least
    /// this share of all is not above), within [`SKETCH_ACCURACY`] of it; `None` when there is none.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        let count = self.count();
        if count <= 0 {
            return None;
        }
        let rank = (quantile.clamp(0.0, 1.0) * count as f64).ceil().max(1.0) as i64;
        let mut seen = 0_i64;
        for (bin, count) in &self.bins {
            seen = seen.wrapping_add(*count);
            if seen >= rank {
                return Some(number_of(*bin));
            }
        }
        self.bins.last().map(|(bin, _)| number_of(*bin))
    }

    /// The numbers that stand for its bins, ascending, with how many are in each. Every sketch has the
    /// same bins, so that two can be compared bin by bin.
    pub fn bins(&self) -> impl Iterator<Item = (f64, i64)> {
        self.bins.iter().map(|(bin, count)| (number_of(*bin), *count))
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.bins.is_empty() && self.sum == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sketch(numbers: &[u64]) -> Sketch {
        let mut sketch = Sketch::default();
        numbers.iter().for_each(|number| sketch.add(*number, 1));
        sketch
    }

    fn any_number() -> impl Strategy<Value = u64> {
        prop_oneof![0..40_u64, 1_000..9_000_000_000_u64, any::<u64>()]
    }

    proptest! {
        #[test]
        fn quantiles_are_within_one_per_cent(
            numbers in proptest::collection::vec(any_number(), 1..300),
            quantile in 0.0..=1.0_f64,
        ) {
            let mut sorted = numbers.clone();
            sorted.sort_unstable();
            let rank = ((quantile * sorted.len() as f64).ceil() as usize).max(1);
            let truth = sorted[rank - 1] as f64;
            let told = sketch(&numbers).quantile(quantile).unwrap();
            prop_assert!((told - truth).abs() <= truth * SKETCH_ACCURACY, "{told} for {truth}");
        }

        #[test]
        fn merging_does_not_depend_on_order_and_taking_back_leaves_nothing(
            parts in proptest::collection::vec(proptest::collection::vec(any_number(), 0..20), 3),
        ) {
            let [a, b, c] = [&parts[0], &parts[1], &parts[2]].map(|part| sketch(part));
            let whole = sketch(&parts.concat());
            let mut left = a.clone();
            left.merge(&b);
            left.merge(&c);
            let mut right = c.clone();
            right.merge(&b);
            right.merge(&a);
            prop_assert_eq!(&left, &whole);
            prop_assert_eq!(&right, &whole);
            let parts_again = left.numbered_bins().collect::<Vec<_>>().into_iter().rev();
            prop_assert_eq!(&Sketch::of_bins(parts_again, left.sum()), &whole);
            prop_assert_eq!(whole.sum(), parts.concat().iter().map(|n| i128::from(*n)).sum::<i128>());
            for number in parts.concat() {
                left.add(number, -1);
            }
            prop_assert!(left.is_empty());
        }
    }

    #[test]
    fn an_empty_sketch_knows_no_quantile() {
        assert_eq!(Sketch::default().quantile(0.5), None);
        assert_eq!(Sketch::default().mean(), None);
        assert!(bin_of(u64::MAX) < 2_300, "{}", bin_of(u64::MAX));
    }
}
