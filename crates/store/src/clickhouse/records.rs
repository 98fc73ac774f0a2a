//! Rows of decisions, log records and metric points as ClickHouse gets them.

use rusqlite::{Connection, params};
use serde_json::{Value, json};
use throughline_trace::{Decision, LogRecord, MetricKind, MetricValue, Value as Any};

use super::rows::{resource, scope};
use crate::body;
use crate::layout::{Day, SegmentId};
use crate::prepare::{PointBody, SeriesBody};
use crate::read_spans::RowReader;
use crate::schema::to_nanos;
use crate::trace_rows::RowError;

/// The row of a decision.
pub(super) fn decision(key: i64, decision: &Decision) -> Value {
    let text = |id: Option<String>| id.unwrap_or_default();
    json!({
        "day": Day::of_nanos(decision.received_at_ns).name(),
        "key": key,
        "decision_id": decision.decision_id.to_string(),
        "parent_decision_id": text(decision.parent_decision_id.map(|id| id.to_string())),
        "trace_id": text(decision.trace_id.map(|id| id.to_string())),
        "span_id": text(decision.span_id.map(|id| id.to_string())),
        "time_unix_nano": decision.timestamp_ns,
        "received_unix_nano": decision.received_at_ns,
        "agent": decision.agent_id,
        "session": decision.session_id,
        "service": decision.service,
        "stage": decision.stage,
        "action": decision.action,
        "reason": decision.reason,
        "confidence": decision.confidence,
        "input_hash": decision.input_hash,
        "model_version": decision.model_version,
        "instance_id": decision.instance_id,
        "seq": decision.seq,
        "is_derived": u8::from(decision.derived),
        "attributes": decision.attributes.to_json().to_string(),
    })
}

/// The row of a log record.
pub(super) fn log(id: SegmentId, key: i64, log: &LogRecord) -> Value {
    json!({
        "day": id.day.name(),
        "segment": id.stem(),
        "key": key,
        "time_unix_nano": log.time_unix_nano,
        "observed_unix_nano": log.observed_unix_nano,
        "trace_id": log.trace_id.map(|id| id.to_string()).unwrap_or_default(),
        "span_id": log.span_id.map(|id| id.to_string()).unwrap_or_default(),
        "severity": log.severity.as_str(),
        "severity_number": log.severity.0,
        "severity_text": log.severity_text,
        "service": log.resource.service(),
        "event_name": log.event_name,
        "body_is_json": u8::from(!matches!(log.body, Any::String(_) | Any::Empty)),
        "body": if log.body == Any::Empty { String::new() } else { log.body.to_text() },
        "attributes": log.attributes.to_json().to_string(),
        "dropped_attributes_count": log.dropped_attributes_count,
        "resource": resource(&log.resource).to_string(),
        "scope": scope(&log.scope).to_string(),
    })
}

/// Rows of log records with these numbers, by number.
pub(super) fn logs(
    segment: &Connection,
    id: SegmentId,
    (from, next): (i64, i64),
    most: usize,
) -> Result<Vec<(i64, Value)>, RowError> {
    let mut statement = segment.prepare_cached(&format!(
        "SELECT {} FROM logs WHERE log >= ?1 AND log < ?2 ORDER BY log LIMIT ?3",
        RowReader::LOG_COLUMNS
    ))?;
    let mut rows = statement.query(params![from, next, limit(most)])?;
    let mut reader = RowReader::new(segment);
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let key = row.get(1)?;
        found.push((key, log(id, key, &reader.log(row)?)));
    }
    Ok(found)
}

/// Where a point lies in a segment: its running number, then its series and time.
pub(super) type PointPlace = (i64, i64, i64);

/// Rows of points at these places, in their order. What is gone is left out.
pub(super) fn points(
    segment: &Connection,
    id: SegmentId,
    places: &[PointPlace],
) -> Result<Vec<(i64, Value)>, RowError> {
    let mut series = segment.prepare_cached(
        "SELECT name, unit, description, resource, scope, body FROM series WHERE series = ?1",
    )?;
    let mut values = segment.prepare_cached(
        "SELECT value FROM points WHERE series = ?1 AND time = ?2 AND point = ?3",
    )?;
    let mut reader = RowReader::new(segment);
    let mut heads = std::collections::HashMap::new();
    let mut found = Vec::with_capacity(places.len());
    for (key, number, time) in places {
        if !heads.contains_key(number) {
            let mut rows = series.query([number])?;
            let Some(row) = rows.next()? else { continue };
            let (kind, attributes): SeriesBody =
                body::decode(row.get_ref(5)?.as_blob().map_err(rusqlite::Error::from)?)?;
            let of = reader.resource(row.get(3)?)?;
            let of_scope = reader.scope(row.get(4)?)?;
            let (kind, is_monotonic) = kind_name(kind);
            let head = json!({
                "day": id.day.name(),
                "segment": id.stem(),
                "name": row.get::<_, String>(0)?,
                "kind": kind,
                "is_monotonic": u8::from(is_monotonic),
                "unit": row.get::<_, String>(1)?,
                "description": row.get::<_, String>(2)?,
                "service": of.service(),
                "attributes": attributes.to_json().to_string(),
                "resource": resource(&of).to_string(),
                "scope": scope(of_scope.as_ref()).to_string(),
            });
            heads.insert(*number, head);
        }
        let mut rows = values.query([number, time, key])?;
        let (Some(row), Some(head)) = (rows.next()?, heads.get(number)) else { continue };
        let (start, value): PointBody =
            body::decode(row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?)?;
        let mut whole = head.clone();
        whole["key"] = (*key).into();
        whole["start_unix_nano"] = start.into();
        whole["time_unix_nano"] = to_nanos(*time).into();
        fill(&mut whole, &value);
        found.push((*key, whole));
    }
    Ok(found)
}

/// The name of a kind, and whether its sum only rises.
fn kind_name(kind: MetricKind) -> (&'static str, bool) {
    match kind {
        MetricKind::Gauge => ("gauge", false),
        MetricKind::CumulativeSum { monotonic } => ("cumulative_sum", monotonic),
        MetricKind::DeltaSum { monotonic } => ("delta_sum", monotonic),
        MetricKind::CumulativeHistogram => ("cumulative_histogram", false),
        MetricKind::DeltaHistogram => ("delta_histogram", false),
        MetricKind::Summary => ("summary", false),
    }
}

/// The columns of a value; all of them, so that rows can be compared. Numbers that are not finite
/// are null, as JSON has none.
fn fill(row: &mut Value, value: &MetricValue) {
    let (none, empty) = (Value::Null, Value::Array(Vec::new()));
    for name in ["value", "integer", "count", "sum", "min", "max"] {
        row[name] = none.clone();
    }
    for name in ["bounds", "bucket_counts", "quantiles", "quantile_values"] {
        row[name] = empty.clone();
    }
    match value {
        MetricValue::None => {}
        MetricValue::Int(number) => {
            row["value"] = json!(*number as f64);
            row["integer"] = json!(number);
        }
        MetricValue::Double(number) => row["value"] = json!(number),
        MetricValue::Histogram(of) => {
            row["count"] = json!(of.count);
            row["sum"] = json!(of.sum);
            row["min"] = json!(of.min);
            row["max"] = json!(of.max);
            row["bounds"] = json!(of.bounds);
            row["bucket_counts"] = json!(of.bucket_counts);
        }
        MetricValue::Summary { count, sum, quantiles } => {
            row["count"] = json!(count);
            row["sum"] = json!(sum);
            row["quantiles"] = quantiles.iter().map(|(at, _)| json!(at)).collect();
            row["quantile_values"] = quantiles.iter().map(|(_, value)| json!(value)).collect();
        }
    }
}

/// Places of the points of a segment with these numbers, by number. Points lie by series and time:
/// `recent`, a time as in the column, leaves out what is older, so that not all of them are read.
pub(super) fn places(
    segment: &Connection,
    (from, next): (i64, i64),
    recent: Option<i64>,
) -> Result<Vec<PointPlace>, rusqlite::Error> {
    let mut found: Vec<PointPlace> = Vec::new();
    let sql = match recent {
        Some(_) => {
            "SELECT p.point, p.series, p.time FROM series s CROSS JOIN points p
                ON p.series = s.series AND p.time >= ?3 WHERE p.point >= ?1 AND p.point < ?2"
        }
        None => {
            "SELECT point, series, time FROM points
                WHERE point >= ?1 AND point < ?2 AND ?3 IS NULL"
        }
    };
    let mut statement = segment.prepare_cached(sql)?;
    let rows = statement.query_map(params![from, next, recent], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })?;
    for row in rows {
        found.push(row?);
    }
    found.sort_unstable();
    Ok(found)
}

/// A limit of SQLite.
pub(super) fn limit(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}
