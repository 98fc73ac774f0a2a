//! Telemetry kept in memory, and shown as text: for the tests of whoever uses the SDK, ours among
//! them.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opentelemetry::logs::AnyValue;
use opentelemetry::trace::{SpanId, Status};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter, SdkLogRecord};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData, ResourceMetrics};
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};

/// Keeps what an agent records, in place of an exporter.
///
/// ```
/// use throughline::{Recorder, Telemetry, span};
///
/// let recorder = Recorder::new();
/// let telemetry = Telemetry::builder().recorder(&recorder).build()?;
/// {
///     let _in = telemetry.enter();
///     let outer = span("invoke_agent shop").start();
///     outer.in_scope(|| drop(span("chat gpt-4o").attribute("retry_count", 1).start()));
/// }
/// assert_eq!(
///     recorder.tree(&["retry_count"]),
///     "invoke_agent shop\n  chat gpt-4o retry_count=1\n"
/// );
/// # Ok::<(), throughline::TelemetryError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    spans: Vec<SpanData>,
    logs: Vec<SdkLogRecord>,
    metrics: Vec<String>,
}

impl Recorder {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The spans that have ended, in the order in which they ended.
    pub fn spans(&self) -> Vec<SpanData> {
        self.kept().spans.clone()
    }

    /// The log records, decisions among them, in the order in which they were written.
    pub fn logs(&self) -> Vec<SdkLogRecord> {
        self.kept().logs.clone()
    }

    /// The last state of every series as `name{label=value, …} value`, sorted; a histogram's value
    /// is its count. Call [`Telemetry::flush`](crate::Telemetry::flush) before.
    pub fn metrics(&self) -> Vec<String> {
        self.kept().metrics.clone()
    }

    /// Forgets everything.
    pub fn clear(&self) {
        *self.kept() = Kept::default();
    }

    /// The spans as indented text, children under parents in the order in which they started, with
    /// these attributes where a span has them, and a failed span's message. A span whose parent has
    /// not ended (or was somewhere else) stands at the left with a `?`.
    pub fn tree(&self, attributes: &[&str]) -> String {
        let spans = self.spans();
        let mut text = String::new();
        let mut children: HashMap<SpanId, Vec<&SpanData>> = HashMap::new();
        for span in &spans {
            children.entry(span.parent_span_id).or_default().push(span);
        }
        for siblings in children.values_mut() {
            siblings.sort_by_key(|span| span.start_time);
        }
        let mut tops: Vec<&SpanData> = spans
            .iter()
            .filter(|span| {
                !spans.iter().any(|other| other.span_context.span_id() == span.parent_span_id)
            })
            .collect();
        tops.sort_by_key(|span| span.start_time);
        for top in tops {
            if top.parent_span_id != SpanId::INVALID {
                text.push_str("? ");
            }
            write_span(&mut text, top, 0, &children, attributes);
        }
        text
    }

    /// The log records as text, one a line: event name or severity, body, and these attributes.
    pub fn log_text(&self, attributes: &[&str]) -> String {
        let mut text = String::new();
        for record in self.logs() {
            let event = record.event_name().filter(|name| !name.is_empty());
            let what = event.or_else(|| record.severity_text()).unwrap_or("-");
            let body = record.body().map(any_text).unwrap_or_default();
            let _ = write!(text, "{what} {body:?}");
            for name in attributes {
                if let Some((_, value)) =
                    record.attributes_iter().find(|(key, _)| key.as_str() == *name)
                {
                    let _ = write!(text, " {name}={}", any_text(value));
                }
            }
            text.push('\n');
        }
        text
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_span(
    text: &mut String,
    span: &SpanData,
    depth: usize,
    children: &HashMap<SpanId, Vec<&SpanData>>,
    attributes: &[&str],
) {
    let _ = write!(text, "{:indent$}{}", "", span.name, indent = depth * 2);
    for name in attributes {
        if let Some(entry) = span.attributes.iter().find(|entry| entry.key.as_str() == *name) {
            let _ = write!(text, " {name}={}", entry.value);
        }
    }
    if let Status::Error { description } = &span.status {
        let _ = write!(text, " ERROR({description})");
    }
    text.push('\n');
    for child in children.get(&span.span_context.span_id()).into_iter().flatten() {
        write_span(text, child, depth + 1, children, attributes);
    }
}

fn any_text(value: &AnyValue) -> String {
    match value {
        AnyValue::String(text) => text.to_string(),
        AnyValue::Int(number) => number.to_string(),
        AnyValue::Double(number) => number.to_string(),
        AnyValue::Boolean(truth) => truth.to_string(),
        other => format!("{other:?}"),
    }
}

impl SpanExporter for Recorder {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.kept().spans.extend(batch);
        Ok(())
    }
}

impl LogExporter for Recorder {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let records =
            batch.iter().map(|(record, _): (&SdkLogRecord, &InstrumentationScope)| record.clone());
        self.kept().logs.extend(records);
        Ok(())
    }
}

impl PushMetricExporter for Recorder {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let mut lines: Vec<String> = metrics
            .scope_metrics()
            .flat_map(|scope| scope.metrics())
            .flat_map(|metric| {
                let points = match metric.data() {
                    AggregatedMetrics::F64(data) => points(data),
                    AggregatedMetrics::U64(data) => points(data),
                    AggregatedMetrics::I64(data) => points(data),
                };
                points
                    .into_iter()
                    .map(|(labels, value)| format!("{}{{{labels}}} {value}", metric.name()))
            })
            .collect();
        lines.sort();
        self.kept().metrics = lines;
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

fn points<T: Copy + ToString>(data: &MetricData<T>) -> Vec<(String, String)> {
    match data {
        MetricData::Gauge(gauge) => gauge
            .data_points()
            .map(|point| (labels(point.attributes()), point.value().to_string()))
            .collect(),
        MetricData::Sum(sum) => sum
            .data_points()
            .map(|point| (labels(point.attributes()), point.value().to_string()))
            .collect(),
        MetricData::Histogram(histogram) => histogram
            .data_points()
            .map(|point| (labels(point.attributes()), point.count().to_string()))
            .collect(),
        MetricData::ExponentialHistogram(histogram) => histogram
            .data_points()
            .map(|point| (labels(point.attributes()), point.count().to_string()))
            .collect(),
    }
}

fn labels<'a>(attributes: impl Iterator<Item = &'a KeyValue>) -> String {
    let mut labels: Vec<String> =
        attributes.map(|entry| format!("{}={}", entry.key, entry.value)).collect();
    labels.sort();
    labels.join(", ")
}
