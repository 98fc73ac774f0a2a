//! The OTLP messages as a table: which fields are text, which are messages (opentelemetry-proto 1.x).

use opentelemetry_proto::tonic::common::v1 as common;
use opentelemetry_proto::tonic::logs::v1 as logs;
use opentelemetry_proto::tonic::metrics::v1 as metrics;
use opentelemetry_proto::tonic::trace::v1 as trace;

/// What a length-delimited field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Text,
    Message(Kind),
    /// Bytes, packed numbers, or a field that OTLP does not know.
    Other,
}

/// A message of OTLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `ExportTraceServiceRequest`.
    TraceRequest,
    /// `ExportLogsServiceRequest`.
    LogsRequest,
    /// `ExportMetricsServiceRequest`.
    MetricsRequest,
    ResourceSpans,
    ScopeSpans,
    Span,
    Event,
    Link,
    Status,
    ResourceLogs,
    ScopeLogs,
    LogRecord,
    ResourceMetrics,
    ScopeMetrics,
    Metric,
    /// `Gauge`, `Sum`: a list of number points.
    Numbers,
    Histogram,
    ExponentialHistogram,
    Summary,
    NumberPoint,
    HistogramPoint,
    ExponentialPoint,
    Buckets,
    SummaryPoint,
    Quantile,
    Exemplar,
    Resource,
    EntityRef,
    Scope,
    KeyValue,
    AnyValue,
    Array,
    KeyValueList,
}

impl Kind {
    /// What the length-delimited field `number` of this message holds.
    pub(super) fn field(self, number: u32) -> Field {
        use Field::{Message, Other, Text};
        match (self, number) {
            (Self::TraceRequest, 1) => Message(Self::ResourceSpans),
            (Self::LogsRequest, 1) => Message(Self::ResourceLogs),
            (Self::MetricsRequest, 1) => Message(Self::ResourceMetrics),
            (Self::ResourceSpans | Self::ResourceLogs | Self::ResourceMetrics, 1) => {
                Message(Self::Resource)
            }
            (Self::ResourceSpans, 2) => Message(Self::ScopeSpans),
            (Self::ResourceLogs, 2) => Message(Self::ScopeLogs),
            (Self::ResourceMetrics, 2) => Message(Self::ScopeMetrics),
            (Self::ScopeSpans | Self::ScopeLogs | Self::ScopeMetrics, 1) => Message(Self::Scope),
            (Self::ScopeSpans, 2) => Message(Self::Span),
            (Self::ScopeLogs, 2) => Message(Self::LogRecord),
            (Self::ScopeMetrics, 2) => Message(Self::Metric),
            (
                Self::ResourceSpans
                | Self::ResourceLogs
                | Self::ResourceMetrics
                | Self::ScopeSpans
                | Self::ScopeLogs
                | Self::ScopeMetrics,
                3,
            ) => Text,
            (Self::Span, 3 | 5) => Text,
            (Self::Span, 9) => Message(Self::KeyValue),
            (Self::Span, 11) => Message(Self::Event),
            (Self::Span, 13) => Message(Self::Link),
            (Self::Span, 15) => Message(Self::Status),
            (Self::Event, 2) | (Self::Link, 3) | (Self::Status, 2) => Text,
            (Self::Event, 3) | (Self::Link, 4) => Message(Self::KeyValue),
            (Self::LogRecord, 3 | 12) => Text,
            (Self::LogRecord, 5) => Message(Self::AnyValue),
            (Self::LogRecord, 6) => Message(Self::KeyValue),
            (Self::Metric, 1..=3) => Text,
            (Self::Metric, 5 | 7) => Message(Self::Numbers),
            (Self::Metric, 9) => Message(Self::Histogram),
            (Self::Metric, 10) => Message(Self::ExponentialHistogram),
            (Self::Metric, 11) => Message(Self::Summary),
            (Self::Metric, 12) => Message(Self::KeyValue),
            (Self::Numbers, 1) => Message(Self::NumberPoint),
            (Self::Histogram, 1) => Message(Self::HistogramPoint),
            (Self::ExponentialHistogram, 1) => Message(Self::ExponentialPoint),
            (Self::Summary, 1) => Message(Self::SummaryPoint),
            (Self::NumberPoint, 5) | (Self::HistogramPoint, 8) | (Self::ExponentialPoint, 11) => {
                Message(Self::Exemplar)
            }
            (Self::ExponentialPoint, 8 | 9) => Message(Self::Buckets),
            (Self::SummaryPoint, 6) => Message(Self::Quantile),
            (Self::NumberPoint | Self::SummaryPoint | Self::Exemplar, 7)
            | (Self::HistogramPoint, 9)
            | (Self::ExponentialPoint, 1)
            | (Self::Resource, 1)
            | (Self::Scope, 3)
            | (Self::KeyValueList, 1) => Message(Self::KeyValue),
            (Self::Resource, 3) => Message(Self::EntityRef),
            (Self::EntityRef, 1..=4) | (Self::Scope, 1 | 2) => Text,
            (Self::KeyValue, 1) | (Self::AnyValue, 1) => Text,
            (Self::KeyValue, 2) | (Self::Array, 1) => Message(Self::AnyValue),
            (Self::AnyValue, 5) => Message(Self::Array),
            (Self::AnyValue, 6) => Message(Self::KeyValueList),
            _ => Other,
        }
    }

    /// Whether it is what OTLP counts: a span, a log record, a data point.
    pub(super) fn is_item(self) -> bool {
        matches!(
            self,
            Self::Span
                | Self::LogRecord
                | Self::NumberPoint
                | Self::HistogramPoint
                | Self::ExponentialPoint
                | Self::SummaryPoint
        )
    }

    /// Bytes that one element of its lists of plain values takes; 0 for messages without such lists.
    pub(super) fn element_bytes(self) -> usize {
        match self {
            Self::Buckets | Self::HistogramPoint => size_of::<u64>(),
            Self::EntityRef => size_of::<String>(),
            _ => 0,
        }
    }

    /// Bytes of the decoded structure, without what its fields point to.
    pub(super) fn decoded_bytes(self) -> usize {
        match self {
            Self::TraceRequest | Self::LogsRequest | Self::MetricsRequest => 0,
            Self::ResourceSpans => size_of::<trace::ResourceSpans>(),
            Self::ScopeSpans => size_of::<trace::ScopeSpans>(),
            Self::Span => size_of::<trace::Span>(),
            Self::Event => size_of::<trace::span::Event>(),
            Self::Link => size_of::<trace::span::Link>(),
            Self::ResourceLogs => size_of::<logs::ResourceLogs>(),
            Self::ScopeLogs => size_of::<logs::ScopeLogs>(),
            Self::LogRecord => size_of::<logs::LogRecord>(),
            Self::ResourceMetrics => size_of::<metrics::ResourceMetrics>(),
            Self::ScopeMetrics => size_of::<metrics::ScopeMetrics>(),
            Self::Metric => size_of::<metrics::Metric>(),
            Self::NumberPoint => size_of::<metrics::NumberDataPoint>(),
            Self::HistogramPoint => size_of::<metrics::HistogramDataPoint>(),
            Self::ExponentialPoint => size_of::<metrics::ExponentialHistogramDataPoint>(),
            Self::SummaryPoint => size_of::<metrics::SummaryDataPoint>(),
            Self::Quantile => size_of::<metrics::summary_data_point::ValueAtQuantile>(),
            Self::Exemplar => size_of::<metrics::Exemplar>(),
            Self::EntityRef => size_of::<common::EntityRef>(),
            Self::KeyValue => size_of::<common::KeyValue>(),
            Self::AnyValue => size_of::<common::AnyValue>(),
            // Held within the message that they belong to.
            Self::Status
            | Self::Numbers
            | Self::Histogram
            | Self::ExponentialHistogram
            | Self::Summary
            | Self::Buckets
            | Self::Resource
            | Self::Scope
            | Self::Array
            | Self::KeyValueList => 0,
        }
    }
}
