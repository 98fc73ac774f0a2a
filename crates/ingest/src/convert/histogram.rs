//! Buckets: whether they fit together, and exponential ones with their bounds worked out.

use opentelemetry_proto::tonic::metrics::v1 as otlp;
use throughline_trace::HistogramValue;

/// Bounds (upper, inclusive, ascending) and counts (one more than the bounds).
#[derive(Debug, Default, PartialEq)]
pub(super) struct Buckets {
    pub(super) bounds: Vec<f64>,
    pub(super) counts: Vec<u64>,
}

/// Whether explicit buckets are as OTLP says: none at all, or ascending bounds and one more count.
pub(super) fn fits(value: &HistogramValue) -> bool {
    let none = value.bounds.is_empty() && value.bucket_counts.is_empty();
    none || (value.bucket_counts.len() == value.bounds.len() + 1 && is_ascending(&value.bounds))
}

/// The buckets of an exponential histogram: negative ones from the largest magnitude, the one of
/// zero, positive ones, and a last one, always empty, for what is above them. `None` when the
/// numbers leave what a float can say (OTLP: bucket `i` covers `(base^i, base^(i+1)]` with
/// `base = 2^(2^-scale)`).
pub(super) fn explicit(point: &otlp::ExponentialHistogramDataPoint) -> Option<Buckets> {
    let (negative_offset, negative) = side(point.negative.as_ref());
    let (positive_offset, positive) = side(point.positive.as_ref());
    let bound = |offset: i32, index: usize| {
        let exponent = f64::from(offset) + index as f64;
        (exponent * (-f64::from(point.scale)).exp2()).exp2()
    };
    let mut bounds = Vec::with_capacity(negative.len() + positive.len() + 1);
    let mut counts = Vec::with_capacity(negative.len() + positive.len() + 2);
    for (index, count) in negative.iter().enumerate().rev() {
        bounds.push(-bound(negative_offset, index));
        counts.push(*count);
    }
    bounds.push(if positive.is_empty() {
        point.zero_threshold.max(0.0)
    } else {
        bound(positive_offset, 0)
    });
    counts.push(point.zero_count);
    for (index, count) in positive.iter().enumerate() {
        bounds.push(bound(positive_offset, index + 1));
        counts.push(*count);
    }
    counts.push(0);
    is_ascending(&bounds).then_some(Buckets { bounds, counts })
}

/// Bytes that [`explicit`] takes for a point, beside those of the point itself.
pub(super) fn explicit_bytes(point: &otlp::ExponentialHistogramDataPoint) -> usize {
    let buckets = side(point.negative.as_ref()).1.len() + side(point.positive.as_ref()).1.len();
    (buckets + 2) * (size_of::<f64>() + size_of::<u64>())
}

/// Offset and counts of one side, without the empty buckets at its end.
fn side(buckets: Option<&otlp::exponential_histogram_data_point::Buckets>) -> (i32, &[u64]) {
    let Some(buckets) = buckets else { return (0, &[]) };
    let used = buckets.bucket_counts.iter().rposition(|count| *count > 0).map_or(0, |at| at + 1);
    (buckets.offset, &buckets.bucket_counts[..used])
}

fn is_ascending(bounds: &[f64]) -> bool {
    bounds.iter().all(|bound| bound.is_finite()) && bounds.is_sorted_by(|a, b| a < b)
}

#[cfg(test)]
mod tests {
    use otlp::exponential_histogram_data_point::Buckets as Side;

    use super::*;

    fn point(
        scale: i32,
        negative: (i32, &[u64]),
        zero: u64,
        positive: (i32, &[u64]),
    ) -> otlp::ExponentialHistogramDataPoint {
        let side =
            |(offset, counts): (i32, &[u64])| Some(Side { offset, bucket_counts: counts.to_vec() });
        otlp::ExponentialHistogramDataPoint {
            scale,
            zero_count: zero,
            negative: side(negative),
            positive: side(positive),
            ..Default::default()
        }
    }

    #[test]
    fn bounds_of_base_two() {
        let point = point(0, (0, &[3]), 2, (1, &[4, 0, 5]));
        let buckets = explicit(&point).unwrap();
        let held = 8 * (buckets.bounds.capacity() + buckets.counts.capacity());
        assert!(explicit_bytes(&point) >= held, "{held}");
        assert_eq!(buckets.bounds, [-1.0, 2.0, 4.0, 8.0, 16.0]);
        assert_eq!(buckets.counts, [3, 2, 4, 0, 5, 0]);
    }

    #[test]
    fn bounds_of_a_finer_scale() {
        let buckets = explicit(&point(1, (0, &[]), 0, (-2, &[1, 1]))).unwrap();
        assert_eq!(buckets.counts, [0, 1, 1, 0]);
        let expected = [0.5, 0.5f64.sqrt(), 1.0];
        for (got, expected) in buckets.bounds.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-12, "{got} is not {expected}");
        }
    }

    #[test]
    fn empty_sides_leave_the_bucket_of_zero() {
        let mut empty = point(5, (7, &[0, 0]), 9, (7, &[]));
        empty.zero_threshold = 0.25;
        let buckets = explicit(&empty).unwrap();
        assert_eq!((buckets.bounds, buckets.counts), (vec![0.25], vec![9, 0]));
    }

    #[test]
    fn what_no_float_can_say_has_no_buckets() {
        assert_eq!(explicit(&point(-10, (0, &[]), 0, (i32::MAX, &[1, 1]))), None);
        assert_eq!(explicit(&point(20, (0, &[]), 0, (0, &[]))).unwrap().counts, [0, 0]);
        assert_eq!(explicit(&point(i32::MIN, (0, &[]), 0, (1, &[1]))), None);
    }
}
