//! Metric points: one value of one series at one time each, with the metric's name and unit.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1 as otlp;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use throughline_trace::{HistogramValue, MetricKind, MetricPoint, MetricValue, Resource, Scope};

use super::{Converter, histogram};
use crate::report::{Problem, quote};

/// OTLP's `NO_RECORDED_VALUE`: the series has ended.
const NO_RECORDED_VALUE: u32 = otlp::DataPointFlags::NoRecordedValueMask as u32;

/// What all points of one metric share.
struct Metric<'a> {
    name: &'a str,
    description: &'a str,
    unit: &'a str,
    kind: MetricKind,
    resource: &'a Arc<Resource>,
    scope: &'a Arc<Scope>,
}

impl Converter<'_> {
    /// Takes in the points of a request.
    pub(crate) fn metrics(&mut self, request: ExportMetricsServiceRequest) {
        for group in request.resource_metrics {
            let resource = self.resource_message(group.resource, group.schema_url);
            for group in group.scope_metrics {
                let scope = self.scope_message(group.scope, group.schema_url);
                for metric in group.metrics {
                    self.metric(metric, &resource, &scope);
                }
            }
        }
    }

    fn metric(&mut self, metric: otlp::Metric, resource: &Arc<Resource>, scope: &Arc<Scope>) {
        // A metric without data has no points: nothing to keep, nothing to reject.
        let Some(data) = metric.data else { return };
        if metric.name.is_empty() {
            let points = points_in(&data);
            self.next_item = self.next_item.saturating_add(points);
            self.report.reject(u64::from(points), Problem::MetricName, || {
                format!("expected a name of a metric, got none (unit {})", quote(&metric.unit))
            });
            return;
        }
        self.notes.clear();
        let name = self.name(metric.name);
        let description = self.text("description", metric.description);
        let unit = self.name(metric.unit);
        let shared = |kind| Metric {
            name: &name,
            description: &description,
            unit: &unit,
            kind,
            resource,
            scope,
        };
        match data {
            Data::Gauge(gauge) => self.numbers(&shared(MetricKind::Gauge), gauge.data_points),
            Data::Sum(sum) => {
                let monotonic = sum.is_monotonic;
                let kind = if is_delta(sum.aggregation_temporality) {
                    MetricKind::DeltaSum { monotonic }
                } else {
                    MetricKind::CumulativeSum { monotonic }
                };
                self.numbers(&shared(kind), sum.data_points);
            }
            Data::Histogram(data) => {
                let metric = shared(histogram_kind(data.aggregation_temporality));
                for point in data.data_points {
                    self.histogram(&metric, point);
                }
            }
            Data::ExponentialHistogram(data) => {
                let metric = shared(histogram_kind(data.aggregation_temporality));
                for point in data.data_points {
                    self.exponential(&metric, point);
                }
            }
            Data::Summary(summary) => {
                let metric = shared(MetricKind::Summary);
                for point in summary.data_points {
                    self.summary(&metric, point);
                }
            }
        }
    }

    fn numbers(&mut self, metric: &Metric<'_>, points: Vec<otlp::NumberDataPoint>) {
        for point in points {
            self.begin_item();
            let value = match point.value {
                _ if point.flags & NO_RECORDED_VALUE != 0 => MetricValue::None,
                Some(Number::AsInt(number)) => MetricValue::Int(number),
                Some(Number::AsDouble(number)) => MetricValue::Double(number),
                None => {
                    self.report.reject(1, Problem::PointValue, || {
                        format!(
                            "metric {}: expected asInt or asDouble, got neither",
                            quote(metric.name)
                        )
                    });
                    continue;
                }
            };
            self.report.exemplars_left_out += point.exemplars.len() as u64;
            let times = (point.start_time_unix_nano, point.time_unix_nano);
            self.point(metric, times, point.attributes, value);
        }
    }

    fn histogram(&mut self, metric: &Metric<'_>, point: otlp::HistogramDataPoint) {
        self.begin_item();
        let mut value = HistogramValue {
            count: point.count,
            sum: point.sum,
            min: point.min,
            max: point.max,
            bounds: point.explicit_bounds,
            bucket_counts: point.bucket_counts,
        };
        if !histogram::fits(&value) {
            self.mend(Problem::Buckets);
            value.bounds.clear();
            value.bucket_counts.clear();
        }
        self.report.exemplars_left_out += point.exemplars.len() as u64;
        let times = (point.start_time_unix_nano, point.time_unix_nano);
        self.point(metric, times, point.attributes, recorded(point.flags, value));
    }

    fn exponential(&mut self, metric: &Metric<'_>, mut point: otlp::ExponentialHistogramDataPoint) {
        self.begin_item();
        let attributes = std::mem::take(&mut point.attributes);
        self.report.exemplars_left_out += point.exemplars.len() as u64;
        let times = (point.start_time_unix_nano, point.time_unix_nano);
        if self.allowance.charge(histogram::explicit_bytes(&point)).is_err() {
            return;
        }
        let buckets = histogram::explicit(&point).unwrap_or_else(|| {
            self.mend(Problem::Buckets);
            histogram::Buckets::default()
        });
        let value = HistogramValue {
            count: point.count,
            sum: point.sum,
            min: point.min,
            max: point.max,
            bounds: buckets.bounds,
            bucket_counts: buckets.counts,
        };
        self.point(metric, times, attributes, recorded(point.flags, value));
    }

    fn summary(&mut self, metric: &Metric<'_>, point: otlp::SummaryDataPoint) {
        self.begin_item();
        let times = (point.start_time_unix_nano, point.time_unix_nano);
        let value = if point.flags & NO_RECORDED_VALUE != 0 {
            MetricValue::None
        } else {
            let quantiles =
                point.quantile_values.iter().map(|at| (at.quantile, at.value)).collect();
            MetricValue::Summary { count: point.count, sum: point.sum, quantiles }
        };
        self.point(metric, times, point.attributes, value);
    }

    /// Keeps a point. What was mended is counted but not marked on it: its attributes are the
    /// labels of its series, and another label would make it another series.
    fn point(
        &mut self,
        metric: &Metric<'_>,
        (start_unix_nano, time): (u64, u64),
        attributes: Vec<KeyValue>,
        value: MetricValue,
    ) {
        // Sent once for all points of the metric, kept with each.
        let copied = metric.name.len() + metric.description.len() + metric.unit.len();
        if self.allowance.charge(copied).is_err() {
            return;
        }
        let time_unix_nano = if time == 0 {
            self.mend(Problem::NoTime);
            self.batch.received_unix_nano
        } else {
            self.check_time(time);
            time
        };
        let (attributes, _) = self.attributes(attributes);
        let point = MetricPoint {
            name: metric.name.to_owned(),
            description: metric.description.to_owned(),
            unit: metric.unit.to_owned(),
            kind: metric.kind,
            start_unix_nano,
            time_unix_nano,
            attributes,
            value,
            resource: Arc::clone(metric.resource),
            scope: Arc::clone(metric.scope),
        };
        let describe = || format!("metric {}", quote(metric.name));
        if self.fits(&point, describe) {
            self.report.mended(&self.notes, describe);
            self.batch.metrics.push(point);
        }
    }
}

fn recorded(flags: u32, value: HistogramValue) -> MetricValue {
    if flags & NO_RECORDED_VALUE != 0 { MetricValue::None } else { MetricValue::Histogram(value) }
}

fn is_delta(temporality: i32) -> bool {
    temporality == otlp::AggregationTemporality::Delta as i32
}

fn histogram_kind(temporality: i32) -> MetricKind {
    if is_delta(temporality) { MetricKind::DeltaHistogram } else { MetricKind::CumulativeHistogram }
}

fn points_in(data: &Data) -> u32 {
    let points = match data {
        Data::Gauge(data) => data.data_points.len(),
        Data::Sum(data) => data.data_points.len(),
        Data::Histogram(data) => data.data_points.len(),
        Data::ExponentialHistogram(data) => data.data_points.len(),
        Data::Summary(data) => data.data_points.len(),
    };
    u32::try_from(points).unwrap_or(u32::MAX)
}
