//! Metric points of every kind.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge,
    Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
    Summary, SummaryDataPoint,
};
use prost::Message as _;
use throughline_ingest::{Encoding, Limits, Signal, decode};

use crate::support::{RECEIVED, START, attribute, resource, text, to_text};

const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;
const DELTA: i32 = AggregationTemporality::Delta as i32;

pub(crate) fn request(metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: resource(),
            scope_metrics: vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }],
            ..ResourceMetrics::default()
        }],
    }
}

pub(crate) fn metric(name: &str, data: Data) -> Metric {
    Metric { name: name.to_owned(), unit: "s".into(), data: Some(data), ..Metric::default() }
}

pub(crate) fn number(value: Option<Value>) -> NumberDataPoint {
    NumberDataPoint { time_unix_nano: START, value, ..NumberDataPoint::default() }
}

fn decoded(metrics: Vec<Metric>) -> String {
    let body = request(metrics).encode_to_vec();
    let decoded =
        decode(Signal::Metrics, Encoding::Protobuf, &body, &Limits::default(), RECEIVED).unwrap();
    to_text(&decoded.batch, &decoded.report)
}

#[test]
fn points_of_every_kind() {
    let mut labelled = number(Some(Value::AsInt(3)));
    labelled.attributes = vec![attribute("model_name", text("gpt-4o"))];
    labelled.exemplars = vec![Exemplar::default()];
    let sum = |aggregation_temporality, is_monotonic| {
        let data_points = vec![number(Some(Value::AsDouble(0.5)))];
        Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic })
    };
    let metrics = vec![
        metric("gauge", Data::Gauge(Gauge { data_points: vec![labelled] })),
        metric("total", sum(CUMULATIVE, true)),
        metric("change", sum(DELTA, false)),
        metric(
            "duration",
            Data::Histogram(Histogram {
                data_points: vec![HistogramDataPoint {
                    time_unix_nano: START,
                    count: 3,
                    sum: Some(4.5),
                    bucket_counts: vec![1, 2, 0],
                    explicit_bounds: vec![1.0, 2.0],
                    ..HistogramDataPoint::default()
                }],
                aggregation_temporality: DELTA,
            }),
        ),
        metric(
            "exponential",
            Data::ExponentialHistogram(ExponentialHistogram {
                data_points: vec![ExponentialHistogramDataPoint {
                    time_unix_nano: START,
                    count: 6,
                    zero_count: 1,
                    positive: Some(Buckets { offset: 0, bucket_counts: vec![2, 3] }),
                    ..ExponentialHistogramDataPoint::default()
                }],
                aggregation_temporality: CUMULATIVE,
            }),
        ),
        metric(
            "summary",
            Data::Summary(Summary {
                data_points: vec![SummaryDataPoint {
                    time_unix_nano: START,
                    count: 2,
                    sum: 3.0,
                    quantile_values: vec![ValueAtQuantile { quantile: 0.5, value: 1.5 }],
                    ..SummaryDataPoint::default()
                }],
            }),
        ),
        metric(
            "ended",
            Data::Gauge(Gauge { data_points: vec![NumberDataPoint { flags: 1, ..number(None) }] }),
        ),
    ];
    insta::assert_snapshot!(decoded(metrics), @r#"
    point "gauge" [s] Gauge received-1000ms Int(3)
      model_name = "gpt-4o"
    point "total" [s] CumulativeSum { monotonic: true } received-1000ms Double(0.5)
    point "change" [s] DeltaSum { monotonic: false } received-1000ms Double(0.5)
    point "duration" [s] DeltaHistogram received-1000ms Histogram(HistogramValue { count: 3, sum: Some(4.5), min: None, max: None, bounds: [1.0, 2.0], bucket_counts: [1, 2, 0] })
    point "exponential" [s] CumulativeHistogram received-1000ms Histogram(HistogramValue { count: 6, sum: None, min: None, max: None, bounds: [1.0, 2.0, 4.0], bucket_counts: [1, 2, 3, 0] })
    point "summary" [s] Summary received-1000ms Summary { count: 2, sum: 3.0, quantiles: [(0.5, 1.5)] }
    point "ended" [s] Gauge received-1000ms None
    "#);
}

#[test]
fn points_that_are_wrong() {
    let gauge = |points| Data::Gauge(Gauge { data_points: points });
    let histogram = |bounds: &[f64], counts: &[u64]| {
        Data::Histogram(Histogram {
            data_points: vec![HistogramDataPoint {
                time_unix_nano: START,
                count: 2,
                bucket_counts: counts.to_vec(),
                explicit_bounds: bounds.to_vec(),
                ..HistogramDataPoint::default()
            }],
            aggregation_temporality: CUMULATIVE,
        })
    };
    let metrics = vec![
        metric("", gauge(vec![number(None), number(None)])),
        metric("no value", gauge(vec![number(None), number(Some(Value::AsInt(1)))])),
        metric("too few buckets", histogram(&[1.0], &[2])),
        metric("bounds that fall", histogram(&[2.0, 1.0], &[1, 1, 0])),
        metric(
            "no time",
            gauge(vec![NumberDataPoint { time_unix_nano: 0, ..number(Some(Value::AsInt(1))) }]),
        ),
        Metric { name: "no data".into(), ..Metric::default() },
    ];
    insta::assert_snapshot!(decoded(metrics), @r#"
    point "no value" [s] Gauge received-1000ms Int(1)
    point "too few buckets" [s] CumulativeHistogram received-1000ms Histogram(HistogramValue { count: 2, sum: None, min: None, max: None, bounds: [], bucket_counts: [] })
    point "bounds that fall" [s] CumulativeHistogram received-1000ms Histogram(HistogramValue { count: 2, sum: None, min: None, max: None, bounds: [], bucket_counts: [] })
    point "no time" [s] Gauge received Int(1)
    rejected 3 mended 3 truncated 0 {"buckets": 2, "metric_name": 1, "no_time": 1, "point_value": 1}
    rejected 3; first: expected a name of a metric, got none (unit "s"); accepted 3 with changes; first: metric "too few buckets": buckets
    "#);
}
