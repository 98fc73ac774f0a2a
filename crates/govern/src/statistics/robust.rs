//! Where a cloud of points is and how far from it a point lies, whatever outliers are among them: the
//! orthogonalised estimator of Gnanadesikan and Kettenring (OGK; Maronna and Zamar 2002) with medians and
//! median absolute deviations.

use serde::{Deserialize, Serialize};

use super::{
    MAD_TO_SIGMA, Matrix, chi_square_quantile, jacobi_eigen, median, median_absolute_deviation,
};

/// Times the cloud is turned; the authors find that more do not help.
const TURNS: usize = 2;

/// Features at most.
const MAX_FEATURES: usize = 32;

/// Distances from the middle of a cloud of points.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RobustDistance {
    /// Features that vary; the others are left out.
    used: Vec<usize>,
    /// Turns a point into independent directions, row by row.
    turned: Vec<Vec<f64>>,
    centre: Vec<f64>,
    scale: Vec<f64>,
    /// Makes the median distance that of a χ² variable.
    factor: f64,
}

impl RobustDistance {
    /// Learns from points that all have the same number of features. `None` with fewer than two points a
    /// feature, none, too many or unequal features, or numbers that are not finite.
    pub fn fit(points: &[Vec<f64>]) -> Option<Self> {
        let features = points.first()?.len();
        let is_good = |point: &Vec<f64>| {
            point.len() == features && point.iter().all(|number| number.is_finite())
        };
        let is_fit = (1..=MAX_FEATURES).contains(&features) && points.len() >= 2 * features;
        if !is_fit || !points.iter().all(is_good) {
            return None;
        }
        let column = |at: usize| points.iter().map(|point| point[at]).collect::<Vec<f64>>();
        let used: Vec<usize> = (0..features)
            .filter(|at| median_absolute_deviation(&column(*at)).is_some_and(|(_, mad)| mad > 0.0))
            .collect();
        let mut columns: Vec<Vec<f64>> = used.iter().map(|at| column(*at)).collect();
        let size = columns.len();
        let mut whole = Matrix::identity(size);
        for _ in 0..TURNS {
            let turn = turn(&columns)?;
            columns = (0..size)
                .map(|row| {
                    (0..points.len())
                        .map(|at| (0..size).map(|of| turn.at(row, of) * columns[of][at]).sum())
                        .collect()
                })
                .collect();
            whole = Matrix::from_cells(size, |row, column| {
                (0..size).map(|of| turn.at(row, of) * whole.at(of, column)).sum()
            });
        }
        let (centre, scale) = columns
            .iter()
            .map(|column| spread(column))
            .collect::<Option<Vec<_>>>()?
            .into_iter()
            .unzip();
        let turned = (0..size).map(|row| (0..size).map(|of| whole.at(row, of)).collect()).collect();
        let mut fitted = Self { used, turned, centre, scale, factor: 1.0 };
        let distances: Option<Vec<f64>> =
            points.iter().map(|point| fitted.squared_distance(point)).collect();
        let expected = chi_square_quantile(0.5, size);
        fitted.factor = (median(&distances?)? / expected).max(f64::MIN_POSITIVE);
        Some(fitted)
    }

    /// How many features vary: the degrees of freedom of [`Self::squared_distance`].
    pub fn degrees(&self) -> usize {
        self.used.len()
    }

    /// The squared distance of a point from the middle, about χ² for points of a normal cloud; `None` for
    /// a point that cannot be compared.
    pub fn squared_distance(&self, point: &[f64]) -> Option<f64> {
        let used: Vec<f64> =
            self.used.iter().map(|at| point.get(*at).copied()).collect::<Option<_>>()?;
        let distance: f64 = self
            .turned
            .iter()
            .zip(self.centre.iter().zip(&self.scale))
            .map(|(row, (centre, scale))| {
                let turned: f64 = row.iter().zip(&used).map(|(a, b)| a * b).sum();
                ((turned - centre) / scale).powi(2)
            })
            .sum();
        distance.is_finite().then_some(distance / self.factor)
    }
}

fn spread(column: &[f64]) -> Option<(f64, f64)> {
    let (middle, mad) = median_absolute_deviation(column)?;
    (mad > 0.0).then_some((middle, mad * MAD_TO_SIGMA))
}

/// The matrix that turns standardised columns into their principal directions.
fn turn(columns: &[Vec<f64>]) -> Option<Matrix> {
    let size = columns.len();
    let scales: Vec<f64> = columns
        .iter()
        .map(|column| spread(column).map(|(_, scale)| scale))
        .collect::<Option<_>>()?;
    let scale_of = |numbers: Vec<f64>| {
        median_absolute_deviation(&numbers).map_or(0.0, |(_, mad)| mad * MAD_TO_SIGMA)
    };
    let correlation = |a: usize, b: usize| {
        let pairs = columns[a].iter().zip(&columns[b]);
        let (sums, differences) = pairs
            .map(|(x, y)| (x / scales[a] + y / scales[b], x / scales[a] - y / scales[b]))
            .unzip();
        (scale_of(sums).powi(2) - scale_of(differences).powi(2)) / 4.0
    };
    let correlations = Matrix::from_cells(size, |row, column| {
        if row == column { 1.0 } else { correlation(row.min(column), row.max(column)) }
    });
    let (_, vectors) = jacobi_eigen(&correlations);
    Some(Matrix::from_cells(size, |row, column| vectors.at(column, row) / scales[column]))
}

#[cfg(test)]
mod tests {
    use super::super::Random;
    use super::*;

    fn cloud(random: &mut Random, points: usize) -> Vec<Vec<f64>> {
        (0..points)
            .map(|_| {
                let base = random.normal();
                vec![10.0 + 2.0 * base, 5.0 + base + 0.3 * random.normal(), random.normal(), 7.0]
            })
            .collect()
    }

    #[test]
    fn outliers_do_not_hide_one_another() {
        let mut random = Random::new(41);
        let mut points = cloud(&mut random, 300);
        // A quarter of the points lie together elsewhere: the mean and its covariance would follow.
        points.extend((0..100).map(|_| vec![30.0, -10.0 + random.normal(), 9.0, 7.0]));
        let fitted = RobustDistance::fit(&points).expect("fitted");
        assert_eq!(fitted.degrees(), 3, "the last feature never varies");
        let edge = chi_square_quantile(0.999, 3);
        let far = |point: &Vec<f64>| fitted.squared_distance(point).is_some_and(|d| d > edge);
        assert!(points[300..].iter().all(far));
        let among = points[..300].iter().filter(|point| far(point)).count();
        assert!(among <= 6, "{among}");
        // Each feature is usual, their combination is not.
        let crossed = fitted.squared_distance(&[14.0, 3.0, 0.0, 7.0]).expect("a distance");
        assert!(crossed > edge, "{crossed}");
        assert_eq!(fitted.squared_distance(&[1.0]), None);
        assert_eq!(RobustDistance::fit(&points[..3]), None);
    }
}
