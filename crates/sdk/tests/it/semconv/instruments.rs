//! The checker of metrics, on what an exporter sends: names, units, bounds, labels.

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;

use super::table::{ESTABLISHED, INSTRUMENTS, LABELS, LATEST};

/// What is wrong with these metrics, a line each.
pub(crate) fn problems(metrics: &[Metric]) -> Vec<String> {
    let mut found = Vec::new();
    for metric in metrics {
        let name = &metric.name;
        let mut known = INSTRUMENTS.iter().chain(ESTABLISHED).chain(LATEST);
        let Some((_, unit, bounds, labels)) = known.find(|(known, ..)| known == name) else {
            found.push(format!("{name}: nobody knows it"));
            continue;
        };
        if metric.unit != *unit {
            found.push(format!("{name}: the unit should be {unit:?}, not {:?}", metric.unit));
        }
        if metric.description.is_empty() {
            found.push(format!("{name}: it has no description"));
        }
        for (point, own_bounds) in points(metric) {
            if own_bounds != *bounds {
                found.push(format!("{name}: the bounds should be {bounds:?}, not {own_bounds:?}"));
            }
            for label in *labels {
                if !point.iter().any(|entry| entry.key == *label) {
                    found.push(format!("{name}: {label} is missing"));
                }
            }
            for entry in &point {
                let key = entry.key.as_str();
                if !labels.contains(&key) && !LABELS.contains(&key) {
                    found.push(format!("{name}: nobody knows the label {key}"));
                }
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The labels and bounds of each point.
fn points(metric: &Metric) -> Vec<(Vec<KeyValue>, Vec<f64>)> {
    let without = |points: &[opentelemetry_proto::tonic::metrics::v1::NumberDataPoint]| {
        points.iter().map(|point| (point.attributes.clone(), Vec::new())).collect()
    };
    match &metric.data {
        Some(Data::Gauge(gauge)) => without(&gauge.data_points),
        Some(Data::Sum(sum)) => without(&sum.data_points),
        Some(Data::Histogram(histogram)) => histogram
            .data_points
            .iter()
            .map(|point| (point.attributes.clone(), point.explicit_bounds.clone()))
            .collect(),
        _ => Vec::new(),
    }
}
