//! Permutation tests: what the statistic is when labels are dealt at random, again and again.

use crate::statistics::Random;

/// As many permutations that reach the statistic as end the test early: the p-value is then known well
/// enough to be far from significant (Besag and Clifford 1991).
const ENOUGH_REACHED: u32 = 20;

/// The p-value of a statistic, given how to draw it under a random labelling:
/// (reached + 1) / (drawn + 1) (Phipson and Smyth 2010), so it is never below 1 / (permutations + 1).
pub(super) fn permutation_p_value(
    observed: f64,
    permutations: u32,
    random: &mut Random,
    mut draw: impl FnMut(&mut Random) -> f64,
) -> f64 {
    let mut reached = 0;
    for drawn in 1..=permutations {
        // Drawn values that are the same but for rounding reach it.
        reached += u32::from(draw(random) >= observed - 1e-12 * observed.abs());
        if reached >= ENOUGH_REACHED {
            return f64::from(reached) / f64::from(drawn);
        }
    }
    f64::from(reached + 1) / f64::from(permutations + 1)
}
