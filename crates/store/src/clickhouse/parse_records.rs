//! Rows of decisions, log records and metric points that ClickHouse answers, back to what they were
//! made of.

use std::sync::Arc;

use serde_json::Value as Json;
use throughline_trace::{
    Decision, HistogramValue, LogRecord, MetricKind, MetricValue, Resource, Severity, Value,
};

use super::parse::{attributes, count, id, scope, text, tree};

/// An id that may be missing.
fn optional<T: std::str::FromStr>(row: &Json, name: &str) -> Result<Option<T>, String> {
    match text(row, name) {
        "" => Ok(None),
        _ => id(row, name).map(Some),
    }
}

fn number(row: &Json, name: &str) -> u64 {
    row[name].as_u64().unwrap_or_default()
}

fn owned(row: &Json, name: &str) -> String {
    text(row, name).to_owned()
}

/// The decision of a row.
pub(super) fn decision(row: &Json) -> Result<Decision, String> {
    Ok(Decision {
        decision_id: id(row, "decision_id")?,
        parent_decision_id: optional(row, "parent_decision_id")?,
        trace_id: optional(row, "trace_id")?,
        span_id: optional(row, "span_id")?,
        timestamp_ns: number(row, "time_unix_nano"),
        received_at_ns: number(row, "received_unix_nano"),
        stage: owned(row, "stage"),
        input_hash: owned(row, "input_hash"),
        model_version: owned(row, "model_version"),
        action: owned(row, "action"),
        reason: owned(row, "reason"),
        confidence: row["confidence"].as_f64(),
        agent_id: owned(row, "agent"),
        session_id: owned(row, "session"),
        instance_id: owned(row, "instance_id"),
        seq: number(row, "seq"),
        derived: row["is_derived"] == 1,
        service: owned(row, "service"),
        attributes: attributes(tree(row, "attributes")?),
    })
}

/// The log record of a row. Of rows from before tables of version 4 a body is text, whatever it was.
pub(super) fn log(row: &Json) -> Result<LogRecord, String> {
    let body = match text(row, "body") {
        "" => Value::Empty,
        body if row["body_is_json"] == 1 => {
            Value::from_json(serde_json::from_str(body).map_err(|error| {
                format!("expected JSON in the column body of ClickHouse: {error}")
            })?)
        }
        body => Value::String(body.to_owned()),
    };
    let mut resource = tree(row, "resource")?;
    Ok(LogRecord {
        time_unix_nano: number(row, "time_unix_nano"),
        observed_unix_nano: number(row, "observed_unix_nano"),
        trace_id: optional(row, "trace_id")?,
        span_id: optional(row, "span_id")?,
        severity: Severity(u8::try_from(number(row, "severity_number")).unwrap_or_default()),
        severity_text: owned(row, "severity_text"),
        event_name: owned(row, "event_name"),
        body,
        attributes: attributes(tree(row, "attributes")?),
        dropped_attributes_count: count(row, "dropped_attributes_count"),
        resource: Arc::new(Resource {
            attributes: attributes(resource["attributes"].take()),
            schema_url: owned(&resource, "schema_url"),
        }),
        scope: Arc::new(scope(tree(row, "scope")?)),
    })
}

/// The kind of a series, of the columns `kind` and `is_monotonic`.
pub(super) fn metric_kind(row: &Json) -> Result<MetricKind, String> {
    let monotonic = row["is_monotonic"] == 1;
    Ok(match text(row, "kind") {
        "gauge" => MetricKind::Gauge,
        "cumulative_sum" => MetricKind::CumulativeSum { monotonic },
        "delta_sum" => MetricKind::DeltaSum { monotonic },
        "cumulative_histogram" => MetricKind::CumulativeHistogram,
        "delta_histogram" => MetricKind::DeltaHistogram,
        "summary" => MetricKind::Summary,
        other => return Err(format!("expected a kind of metric in ClickHouse, got {other:?}")),
    })
}

/// The value of a point. What is not finite is missing there, as JSON has no number for it.
pub(super) fn value(row: &Json, kind: MetricKind) -> MetricValue {
    let floats = |name: &str| -> Vec<f64> {
        let all = row[name].as_array().into_iter().flatten();
        all.map(|one| one.as_f64().unwrap_or(f64::NAN)).collect()
    };
    if let Some(number) = row["integer"].as_i64() {
        return MetricValue::Int(number);
    }
    if let Some(number) = row["value"].as_f64() {
        return MetricValue::Double(number);
    }
    let Some(count) = row["count"].as_u64() else { return MetricValue::None };
    if kind == MetricKind::Summary {
        let quantiles = floats("quantiles").into_iter().zip(floats("quantile_values")).collect();
        return MetricValue::Summary {
            count,
            sum: row["sum"].as_f64().unwrap_or(f64::NAN),
            quantiles,
        };
    }
    let counts = row["bucket_counts"].as_array().into_iter().flatten();
    MetricValue::Histogram(HistogramValue {
        count,
        sum: row["sum"].as_f64(),
        min: row["min"].as_f64(),
        max: row["max"].as_f64(),
        bounds: floats("bounds"),
        bucket_counts: counts.filter_map(Json::as_u64).collect(),
    })
}
