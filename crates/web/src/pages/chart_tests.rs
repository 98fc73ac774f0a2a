//! Counters, histograms and gauges as lines, and charts that stay finite.

use throughline_store::SeriesPoint;
use throughline_trace::{Attributes, HistogramValue};

use super::*;

const SECOND: u64 = 1_000_000_000;

fn series(kind: MetricKind, values: Vec<MetricValue>) -> MetricSeries {
    let points = values
        .into_iter()
        .enumerate()
        .map(|(at, value)| SeriesPoint {
            start_unix_nano: 0,
            time_unix_nano: (at as u64 + 1) * 10 * SECOND,
            value,
        })
        .collect();
    MetricSeries {
        service: "s".to_owned(),
        kind,
        unit: String::new(),
        attributes: Attributes::new(),
        points,
        is_cut: false,
    }
}

fn values(series: &MetricSeries, measure: Measure) -> Vec<f64> {
    line(series, measure).into_iter().map(|(_, value)| value).collect()
}

#[test]
fn a_counter_becomes_a_rate_and_survives_a_restart() {
    let ints = [10, 30, 60, 5, 25].map(MetricValue::Int).to_vec();
    let series = series(MetricKind::CumulativeSum { monotonic: true }, ints);
    assert_eq!(values(&series, Measure::PerSecond), [2.0, 3.0, 0.5, 2.0]);
    assert_eq!(values(&series, Measure::Value), [10.0, 30.0, 60.0, 5.0, 25.0]);
}

#[test]
fn a_cumulative_histogram_is_taken_apart_into_intervals() {
    let histogram = |counts: [u64; 3], sum: f64| {
        MetricValue::Histogram(HistogramValue {
            count: counts.iter().sum(),
            sum: Some(sum),
            bounds: vec![1.0, 2.0],
            bucket_counts: counts.to_vec(),
            ..HistogramValue::default()
        })
    };
    let points = vec![
        histogram([100, 0, 0], 50.0),
        histogram([100, 100, 0], 200.0),
        histogram([100, 100, 10], 260.0),
    ];
    let series = series(MetricKind::CumulativeHistogram, points);
    assert_eq!(values(&series, Measure::P95), [0.95, 1.95, 2.0]);
    assert_eq!(values(&series, Measure::Mean), [0.5, 1.5, 6.0]);
    assert_eq!(values(&series, Measure::PerSecond), [10.0, 1.0]);
}

#[test]
fn a_gauge_with_gaps_keeps_its_values() {
    let points = vec![
        MetricValue::Double(1.5),
        MetricValue::None,
        MetricValue::Double(f64::NAN),
        MetricValue::Int(2),
    ];
    assert_eq!(values(&series(MetricKind::Gauge, points), Measure::Value), [1.5, 2.0]);
}

#[test]
fn charts_of_nothing_one_point_and_a_flat_line_are_drawn() {
    let label = |value: f64| value.to_string();
    assert!(lines(&[], label).into_string().contains("too few points"));
    let one = lines(&[("a".to_owned(), vec![(5, 3.0)])], label).into_string();
    assert!(one.contains("<circle"), "{one}");
    let flat = lines(&[("a".to_owned(), vec![(5, 0.0), (6, 0.0)])], label).into_string();
    assert!(!flat.contains("NaN") && !flat.contains("inf"), "{flat}");
    assert!(spark(&vec![(1, 2.0), (2, 2.0)]).into_string().contains("13.0"));
}

proptest::proptest! {
    /// Whatever is measured, a chart has only finite coordinates and few lines.
    #[test]
    fn charts_are_finite(points in proptest::collection::vec((0_u64..1_000, -1e300_f64..1e300), 1..20)) {
        let mut points = points;
        points.sort_by_key(|(at, _)| *at);
        let html = lines(&[("a".to_owned(), points)], |value| value.to_string()).into_string();
        proptest::prop_assert!(!html.contains("NaN") && !html.contains("\"inf"));
        proptest::prop_assert!(html.matches("<line").count() <= 21);
    }
}
