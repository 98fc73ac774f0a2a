//! Metric points (OpenTelemetry metrics data model), one value of one series at one time.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Attributes, Resource, Scope};

/// One data point, with the name and unit of the metric that it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricPoint {
    /// Metric name (`gen_ai.client.token.usage`).
    pub name: String,
    /// What the metric says, for people.
    pub description: String,
    /// UCUM unit (`s`, `{token}`).
    pub unit: String,
    /// What kind of series it is.
    pub kind: MetricKind,
    /// Start of the interval that a sum or histogram covers, nanoseconds since the Unix epoch; 0
    /// when not said.
    pub start_unix_nano: u64,
    /// Time of the value, nanoseconds since the Unix epoch.
    pub time_unix_nano: u64,
    /// The labels that make the series.
    pub attributes: Attributes,
    /// The value.
    pub value: MetricValue,
    /// Who sent it.
    pub resource: Arc<Resource>,
    /// The instrumentation library.
    pub scope: Arc<Scope>,
}

/// What kind of series a point belongs to, with its aggregation temporality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricKind {
    /// A value that goes up and down.
    Gauge,
    /// A running total since the start.
    CumulativeSum {
        /// Whether it never falls.
        monotonic: bool,
    },
    /// A total over the interval.
    DeltaSum {
        /// Whether it never falls.
        monotonic: bool,
    },
    /// A distribution since the start (explicit or exponential buckets).
    CumulativeHistogram,
    /// A distribution over the interval.
    DeltaHistogram,
    /// Quantiles computed by the client.
    Summary,
}

/// The value of a point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum MetricValue {
    /// No recorded value (the series has ended: OTLP's `NO_RECORDED_VALUE` flag).
    None,
    /// An integer.
    Int(i64),
    /// A float.
    Double(f64),
    /// A distribution.
    Histogram(HistogramValue),
    /// Quantiles: count, sum, then (quantile 0–1, value).
    Summary {
        /// How many values.
        count: u64,
        /// Their sum.
        sum: f64,
        /// Quantile and value.
        quantiles: Vec<(f64, f64)>,
    },
}

/// A distribution in buckets. Exponential histograms arrive here with their bounds worked out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct HistogramValue {
    /// How many values.
    pub count: u64,
    /// Their sum, when the sender kept one.
    pub sum: Option<f64>,
    /// Smallest value, when the sender kept it.
    pub min: Option<f64>,
    /// Largest value, when the sender kept it.
    pub max: Option<f64>,
    /// Upper bounds, inclusive, ascending; one fewer than the counts.
    pub bounds: Vec<f64>,
    /// Values per bucket.
    pub bucket_counts: Vec<u64>,
}
