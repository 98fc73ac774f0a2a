//! The few statistics that rules need, each with the definition that it follows. They are held against
//! scipy, statsmodels and ruptures by `interop/test_statistics.py`.
//!
//! One invariant: nothing here draws numbers but [`Random`], which is the same everywhere and for ever,
//! so that a rule gives the same answer live, in replay and in a gate.

mod binned;
mod compare;
mod distributions;
mod fisher;
mod matrix;
mod moments;
mod multiplicity;
mod random;
mod robust;

pub use binned::{Binned, kolmogorov_smirnov};
pub use compare::{Side, TwoProportions, chi_square_fit, two_proportions};
pub use distributions::{
    chi_square_quantile, chi_square_sf, kolmogorov_sf, normal_cdf, normal_quantile, normal_sf,
    wilson_interval,
};
pub use fisher::{fisher_exact, hypergeometric_sf};
pub use matrix::{Matrix, jacobi_eigen};
pub use moments::{MAD_TO_SIGMA, Moments, median, median_absolute_deviation, quantile, skewness};
pub use multiplicity::benjamini_hochberg;
pub use random::Random;
pub use robust::RobustDistance;
