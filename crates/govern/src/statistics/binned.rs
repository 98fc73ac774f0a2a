//! Numbers that are kept as bins and counts, as a [`Sketch`] keeps them.

use throughline_trace::Sketch;

use super::kolmogorov_sf;

/// Numbers and how often each came, in ascending order, without double ones.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Binned {
    bins: Vec<(f64, u64)>,
    total: u64,
}

impl Binned {
    /// The bins of a sketch. Sketches share their bins, so that two of them can be compared bin by
    /// bin; counts below zero (deltas) are left out.
    pub fn of_sketch(sketch: &Sketch) -> Self {
        Self::of_counts(
            sketch.bins().filter_map(|(number, count)| Some((number, u64::try_from(count).ok()?))),
        )
    }

    /// Single numbers; those that are not finite are left out.
    pub fn of_numbers(numbers: &[f64]) -> Self {
        Self::of_counts(numbers.iter().map(|number| (*number, 1)))
    }

    /// Numbers with their counts, in any order.
    pub fn of_counts(counts: impl IntoIterator<Item = (f64, u64)>) -> Self {
        let mut bins: Vec<(f64, u64)> =
            counts.into_iter().filter(|(number, count)| number.is_finite() && *count > 0).collect();
        bins.sort_by(|a, b| a.0.total_cmp(&b.0));
        bins.dedup_by(|next, kept| {
            let is_same = next.0 == kept.0;
            kept.1 += if is_same { next.1 } else { 0 };
            is_same
        });
        let total = bins.iter().map(|(_, count)| count).sum();
        Self { bins, total }
    }

    /// How many numbers.
    pub fn count(&self) -> u64 {
        self.total
    }

    /// Numbers and their counts, ascending.
    pub fn bins(&self) -> &[(f64, u64)] {
        &self.bins
    }

    /// The smallest number that at least this share of all is not above; `None` when there is none.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        self.at_rank((share.clamp(0.0, 1.0) * self.total as f64).ceil() as u64)
    }

    /// The number of a rank, from 1; ranks outside give the first or last. `None` when there is none.
    pub fn at_rank(&self, rank: u64) -> Option<f64> {
        let mut seen = 0;
        for (number, count) in &self.bins {
            seen += count;
            if seen >= rank {
                return Some(*number);
            }
        }
        self.bins.last().map(|(number, _)| *number)
    }

    /// How many are above a number.
    pub fn above(&self, number: f64) -> u64 {
        self.bins.iter().filter(|(bin, _)| *bin > number).map(|(_, count)| count).sum()
    }
}

/// The two-sample test of Kolmogorov and Smirnov: the greatest distance of the two distribution
/// functions, and its asymptotic p-value with Stephens' (1970) correction for finite samples. For
/// numbers in bins the distance can only be less than it was, so the p-value is an upper bound.
/// `None` when either has nothing.
pub fn kolmogorov_smirnov(a: &Binned, b: &Binned) -> Option<(f64, f64)> {
    if a.total == 0 || b.total == 0 {
        return None;
    }
    let (na, nb) = (a.total as f64, b.total as f64);
    let (mut i, mut j, mut seen_a, mut seen_b) = (0, 0, 0_u64, 0_u64);
    let mut distance = 0.0_f64;
    while i < a.bins.len() && j < b.bins.len() {
        let at = a.bins[i].0.min(b.bins[j].0);
        if a.bins[i].0 == at {
            seen_a += a.bins[i].1;
            i += 1;
        }
        if b.bins[j].0 == at {
            seen_b += b.bins[j].1;
            j += 1;
        }
        distance = distance.max((seen_a as f64 / na - seen_b as f64 / nb).abs());
    }
    let effective = (na * nb / (na + nb)).sqrt();
    Some((distance, kolmogorov_sf((effective + 0.12 + 0.11 / effective) * distance)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let a = Binned::of_numbers(&[1.0, 2.0, 3.0, 4.0]);
        let b = Binned::of_numbers(&[3.0, 4.0, 5.0, 6.0]);
        let (distance, p) = kolmogorov_smirnov(&a, &b).expect("both");
        assert_eq!(distance, 0.5, "at 2: two of four against none");
        assert!(p > 0.3, "{p}");
        assert_eq!(kolmogorov_smirnov(&a, &a).map(|(distance, _)| distance), Some(0.0));
        assert_eq!(kolmogorov_smirnov(&a, &Binned::default()), None);
        assert_eq!((a.quantile(0.5), a.above(2.0), a.quantile(0.0)), (Some(2.0), 2, Some(1.0)));
    }

    #[test]
    fn sketches_are_compared_bin_by_bin() {
        let (mut a, mut b) = (Sketch::default(), Sketch::default());
        for number in 0..500_u64 {
            a.add(1_000 + number, 1);
            b.add(1_000 + number, 3);
        }
        let (a, b) = (Binned::of_sketch(&a), Binned::of_sketch(&b));
        let (distance, p) = kolmogorov_smirnov(&a, &b).expect("both");
        assert!(distance < 1e-12 && p > 0.999, "{distance} {p}");
        assert_eq!((a.count(), b.count()), (500, 1_500));
    }
}
