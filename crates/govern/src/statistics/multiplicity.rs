//! Many questions asked at once.

/// Benjamini and Hochberg's adjusted p-values (1995), in the order of what came: below `q`, the expected
/// share of false discoveries is at most `q` (for independent or positively dependent tests).
pub fn benjamini_hochberg(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_unstable_by(|a, b| p_values[*b].total_cmp(&p_values[*a]));
    let n = p_values.len() as f64;
    let mut adjusted = vec![1.0; p_values.len()];
    let mut least = 1.0_f64;
    for (behind, at) in order.into_iter().enumerate() {
        let rank = n - behind as f64;
        least = least.min(p_values[at] * n / rank);
        adjusted[at] = least;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // Sorted 0.01 0.02 0.03 0.5: 4·0.01/1, 4·0.02/2, 4·0.03/3, then 0.5.
        let adjusted = benjamini_hochberg(&[0.5, 0.01, 0.03, 0.02]);
        let expected = [0.5, 0.04, 0.04, 0.04];
        assert!(adjusted.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{adjusted:?}");
        assert!(benjamini_hochberg(&[]).is_empty());
    }
}
