//! Means, spreads and shapes of numbers.

use serde::{Deserialize, Serialize};

/// What the median absolute deviation is multiplied with to estimate the standard deviation of normal
/// data: 1 / Φ⁻¹(3/4).
pub const MAD_TO_SIGMA: f64 = 1.482_602_218_505_602;

/// Count, mean and second to third central moments, kept in one pass (Welford 1962, merged by Pébay
/// 2008).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Moments {
    /// How many numbers.
    pub count: u64,
    /// Their mean; 0 when there is none.
    pub mean: f64,
    m2: f64,
    m3: f64,
}

impl Moments {
    /// Takes a number in; one that is not finite is left out.
    pub fn add(&mut self, number: f64) {
        if number.is_finite() {
            self.merge(&Self { count: 1, mean: number, m2: 0.0, m3: 0.0 });
        }
    }

    /// Takes in a number that came `times` times.
    pub fn add_times(&mut self, number: f64, times: u64) {
        if number.is_finite() {
            self.merge(&Self { count: times, mean: number, m2: 0.0, m3: 0.0 });
        }
    }

    /// Of `count` numbers of which the sums of first, second and third powers are known. Exact only for
    /// numbers about 0: squares of large ones cancel.
    pub(crate) fn from_power_sums(count: u64, first: f64, second: f64, third: f64) -> Self {
        let n = count.max(1) as f64;
        let mean = first / n;
        let m2 = (second - n * mean * mean).max(0.0);
        let m3 = third - 3.0 * mean * second + 2.0 * n * mean.powi(3);
        Self { count, mean, m2, m3 }
    }

    /// Joins another part.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        let (a, b) = (self.count as f64, other.count as f64);
        let n = a + b;
        let delta = other.mean - self.mean;
        self.m3 += other.m3
            + delta.powi(3) * a * b * (a - b) / (n * n)
            + 3.0 * delta * (a * other.m2 - b * self.m2) / n;
        self.m2 += other.m2 + delta * delta * a * b / n;
        self.mean += delta * b / n;
        self.count += other.count;
    }

    /// Variance of the sample (divided by n − 1); `None` below two numbers.
    pub fn variance(&self) -> Option<f64> {
        (self.count >= 2).then(|| self.m2 / (self.count - 1) as f64)
    }

    /// Skewness of the sample, G₁ = g₁ √(n(n−1)) / (n−2) (Joanes and Gill 1998; what spreadsheets, SAS
    /// and `scipy.stats.skew(bias=False)` give); `None` below three numbers or where all are equal.
    pub fn skewness(&self) -> Option<f64> {
        let n = self.count as f64;
        if self.count < 3 || self.m2 <= f64::EPSILON * self.mean.abs() {
            return None;
        }
        let g1 = n.sqrt() * self.m3 / self.m2.powf(1.5);
        Some(g1 * (n * (n - 1.0)).sqrt() / (n - 2.0))
    }
}

impl FromIterator<f64> for Moments {
    fn from_iter<I: IntoIterator<Item = f64>>(numbers: I) -> Self {
        let mut moments = Self::default();
        numbers.into_iter().for_each(|number| moments.add(number));
        moments
    }
}

/// Skewness of a sample; see [`Moments::skewness`].
pub fn skewness(numbers: &[f64]) -> Option<f64> {
    numbers.iter().copied().collect::<Moments>().skewness()
}

/// The quantile of numbers with linear interpolation between neighbours (type 7 of Hyndman and Fan
/// 1996, the default of numpy); numbers that are not finite are left out, `None` when none is left.
pub fn quantile(numbers: &[f64], share: f64) -> Option<f64> {
    let mut sorted: Vec<f64> =
        numbers.iter().copied().filter(|number| number.is_finite()).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let at = share.clamp(0.0, 1.0) * sorted.len().checked_sub(1)? as f64;
    let below = sorted[at.floor() as usize];
    let above = sorted[at.ceil() as usize];
    Some(below + (above - below) * at.fract())
}

/// The middle of numbers; `None` when there is none.
pub fn median(numbers: &[f64]) -> Option<f64> {
    quantile(numbers, 0.5)
}

/// The median and the median distance from it; `None` when there is no number. Times
/// [`MAD_TO_SIGMA`] the latter estimates the standard deviation.
pub fn median_absolute_deviation(numbers: &[f64]) -> Option<(f64, f64)> {
    let middle = median(numbers)?;
    let distances: Vec<f64> = numbers.iter().map(|number| (number - middle).abs()).collect();
    Some((middle, median(&distances)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn by_hand() {
        // Deviations −2 −1 0 3: squares add to 14, cubes to 18, n = 4.
        let moments: Moments = [1.0, 2.0, 3.0, 6.0].into_iter().collect();
        assert_eq!(moments.mean, 3.0);
        assert!((moments.variance().expect("two") - 14.0 / 3.0).abs() < 1e-12);
        let g1 = (18.0 / 4.0) / (14.0_f64 / 4.0).powf(1.5);
        let expected = g1 * 12.0_f64.sqrt() / 2.0;
        assert!((moments.skewness().expect("three") - expected).abs() < 1e-12);
        assert_eq!(skewness(&[5.0, 5.0, 5.0]), None, "no shape without spread");
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 6.0], 0.5), Some(2.5));
        assert_eq!(median_absolute_deviation(&[1.0, 2.0, 3.0, 6.0, 9.0]), Some((3.0, 2.0)));
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[f64::NAN, 4.0]), Some(4.0));
    }

    proptest! {
        #[test]
        fn parts_make_the_whole(
            numbers in proptest::collection::vec(-1e3..1e3_f64, 3..60), cut in 0..60_usize,
        ) {
            let cut = cut.min(numbers.len());
            let whole: Moments = numbers.iter().copied().collect();
            let mut parts: Moments = numbers[..cut].iter().copied().collect();
            parts.merge(&numbers[cut..].iter().copied().collect());
            let sums = |power: i32| numbers.iter().map(|number| number.powi(power)).sum::<f64>();
            let summed = Moments::from_power_sums(whole.count, sums(1), sums(2), sums(3));
            let (a, b) = (summed.skewness(), whole.skewness());
            prop_assert!((a.unwrap_or(0.0) - b.unwrap_or(0.0)).abs() < 1e-6, "{:?} {:?}", a, b);
            prop_assert_eq!(parts.count, whole.count);
            prop_assert!((parts.mean - whole.mean).abs() < 1e-9);
            let (a, b) = (parts.skewness(), whole.skewness());
            prop_assert!((a.unwrap_or(0.0) - b.unwrap_or(0.0)).abs() < 1e-6, "{:?} {:?}", a, b);
        }
    }
}
