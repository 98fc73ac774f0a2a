//! Directions of embeddings.

use super::{Estimate, Name};

/// Cosine of the angle between two embeddings; `None` where their lengths differ or one is zero.
pub fn cosine_similarity(a: &[f32], b: &[f32]) -> Option<f64> {
    if a.len() != b.len() {
        return None;
    }
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    (lengths.is_finite() && lengths > 0.0).then(|| (dot(a, b) / lengths).clamp(-1.0, 1.0))
}

/// The mean of embeddings that are scaled to length 1 first, so that each counts the same; `None`
/// where there is none, all are zero, or their dimensions differ.
pub fn mean_embedding<'a>(embeddings: impl IntoIterator<Item = &'a [f32]>) -> Option<Vec<f32>> {
    let mut sum: Vec<f64> = Vec::new();
    let mut count = 0_u64;
    for embedding in embeddings {
        if count == 0 {
            sum = vec![0.0; embedding.len()];
        }
        if embedding.len() != sum.len() {
            return None;
        }
        let length = embedding.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        if length > 0.0 && length.is_finite() {
            sum.iter_mut().zip(embedding).for_each(|(sum, x)| *sum += f64::from(*x) / length);
            count += 1;
        }
    }
    (count > 0).then(|| sum.iter().map(|sum| (sum / count as f64) as f32).collect())
}

/// `context_drift_score` of sessions, each with its current and its opening context embedding;
/// sessions whose embeddings cannot be compared are left out.
pub fn context_drift_score<'a>(
    sessions: impl IntoIterator<Item = (&'a [f32], &'a [f32])>,
) -> Estimate {
    let (mut sum, mut count) = (0.0, 0_u64);
    for (current, opening) in sessions {
        if let Some(cosine) = cosine_similarity(current, opening) {
            sum += 1.0 - cosine;
            count += 1;
        }
    }
    Estimate::of(Name::ContextDriftScore, (count > 0).then(|| sum / count as f64), count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        assert_eq!(cosine_similarity(&[1.0, 0.0], &[0.0, 3.0]), Some(0.0));
        assert_eq!(cosine_similarity(&[3.0, 4.0], &[-6.0, -8.0]), Some(-1.0));
        assert_eq!(cosine_similarity(&[1.0], &[1.0, 0.0]), None);
        assert_eq!(cosine_similarity(&[0.0], &[1.0]), None);
        let sessions: [(&[f32], &[f32]); 3] =
            [(&[1.0, 0.0], &[2.0, 0.0]), (&[1.0, 0.0], &[0.0, 1.0]), (&[0.0, 0.0], &[1.0, 0.0])];
        let drift = context_drift_score(sessions);
        assert_eq!((drift.value, drift.count), (Some(0.5), 2));
        let mean = mean_embedding([&[2.0, 0.0][..], &[0.0, 5.0][..]]);
        assert_eq!(mean, Some(vec![0.5, 0.5]), "each counts the same, whatever its length");
        assert_eq!(mean_embedding([&[1.0][..], &[1.0, 2.0][..]]), None);
    }
}
