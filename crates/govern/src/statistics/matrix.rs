//! Small dense matrices: covariances of a handful of features.

/// Sweeps of Jacobi's method at most; a dozen does for any matrix in use.
const MAX_SWEEPS: usize = 100;

/// A square matrix in rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    size: usize,
    cells: Vec<f64>,
}

impl Matrix {
    /// Made cell by cell from row and column.
    pub fn from_cells(size: usize, cell: impl Fn(usize, usize) -> f64) -> Self {
        let cells = (0..size * size).map(|at| cell(at / size.max(1), at % size.max(1))).collect();
        Self { size, cells }
    }

    /// Ones on the diagonal.
    pub fn identity(size: usize) -> Self {
        Self::from_cells(size, |row, column| f64::from(u8::from(row == column)))
    }

    /// Rows and columns.
    pub fn size(&self) -> usize {
        self.size
    }

    /// A cell.
    pub fn at(&self, row: usize, column: usize) -> f64 {
        self.cells[row * self.size + column]
    }

    fn set(&mut self, row: usize, column: usize, value: f64) {
        self.cells[row * self.size + column] = value;
    }

    /// The matrix times a vector.
    pub fn times(&self, vector: &[f64]) -> Vec<f64> {
        (0..self.size)
            .map(|row| (0..self.size).map(|column| self.at(row, column) * vector[column]).sum())
            .collect()
    }
}

/// Eigenvalues and eigenvectors (as columns) of a symmetric matrix, by Jacobi's rotations (Golub and
/// Van Loan, algorithm 8.5.3).
pub fn jacobi_eigen(symmetric: &Matrix) -> (Vec<f64>, Matrix) {
    let n = symmetric.size;
    let (mut a, mut vectors) = (symmetric.clone(), Matrix::identity(n));
    for _ in 0..MAX_SWEEPS {
        let off: f64 = (0..n)
            .flat_map(|row| (0..n).map(move |column| (row, column)))
            .filter(|(row, column)| row != column)
            .map(|(row, column)| a.at(row, column).powi(2))
            .sum();
        let diagonal: f64 = (0..n).map(|at| a.at(at, at).powi(2)).sum();
        if off <= 1e-30 * diagonal || off == 0.0 {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                rotate(&mut a, &mut vectors, p, q);
            }
        }
    }
    ((0..n).map(|at| a.at(at, at)).collect(), vectors)
}

/// Makes the cell of `p` and `q` zero.
fn rotate(a: &mut Matrix, vectors: &mut Matrix, p: usize, q: usize) {
    let apq = a.at(p, q);
    if apq == 0.0 {
        return;
    }
    let theta = (a.at(q, q) - a.at(p, p)) / (2.0 * apq);
    let sign = if theta >= 0.0 { 1.0 } else { -1.0 };
    let t = sign / (theta.abs() + (theta * theta + 1.0).sqrt());
    let c = 1.0 / (t * t + 1.0).sqrt();
    let s = t * c;
    for k in 0..a.size {
        let (kp, kq) = (a.at(k, p), a.at(k, q));
        a.set(k, p, c * kp - s * kq);
        a.set(k, q, s * kp + c * kq);
    }
    for k in 0..a.size {
        let (pk, qk) = (a.at(p, k), a.at(q, k));
        a.set(p, k, c * pk - s * qk);
        a.set(q, k, s * pk + c * qk);
        let (kp, kq) = (vectors.at(k, p), vectors.at(k, q));
        vectors.set(k, p, c * kp - s * kq);
        vectors.set(k, q, s * kp + c * kq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eigenvectors_are_those_of_the_matrix() {
        let cells = [[4.0, 1.0, 0.5], [1.0, 3.0, -0.2], [0.5, -0.2, 1.0]];
        let matrix = Matrix::from_cells(3, |row, column| cells[row][column]);
        let (values, vectors) = jacobi_eigen(&matrix);
        for (at, value) in values.iter().enumerate() {
            let vector: Vec<f64> = (0..3).map(|row| vectors.at(row, at)).collect();
            for (left, right) in matrix.times(&vector).iter().zip(&vector) {
                assert!((left - value * right).abs() < 1e-12, "{values:?}");
            }
        }
        assert!((values.iter().sum::<f64>() - 8.0).abs() < 1e-12, "the trace stays");
    }
}
