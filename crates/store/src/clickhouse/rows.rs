//! Rows of a segment as ClickHouse gets them, one JSON object each (`JSONEachRow`).

use std::path::Path;

use rusqlite::Connection;
use serde_json::{Value, json};
use throughline_trace::{Resource, Scope, Span, TraceId};

use super::feed::{MirrorError, tail_page};
use super::kind::RowKind;
use super::records;
use crate::decision_rows;
use crate::layout::{Layout, SegmentId};
use crate::read_spans::RowReader;
use crate::schema::{CONTROL, SEGMENT};
use crate::sql::{event, link};
use crate::trace_rows::{self, RowError, SPAN_BITS};

/// The row of a span.
pub(super) fn span(id: SegmentId, key: i64, span: &Span) -> Value {
    let events: Value = span.events.iter().map(event).collect();
    let links: Value = span.links.iter().map(link).collect();
    json!({
        "day": id.day.name(),
        "segment": id.stem(),
        "key": key,
        "trace_id": span.trace_id.to_string(),
        "span_id": span.span_id.to_string(),
        "parent_span_id": span.parent_span_id.map(|id| id.to_string()).unwrap_or_default(),
        "trace_state": span.trace_state,
        "flags": span.flags,
        "name": span.name,
        "kind": span.kind.as_str(),
        "status": span.status.code.as_str(),
        "status_message": span.status.message,
        "start_unix_nano": span.start_unix_nano,
        "end_unix_nano": span.end_unix_nano,
        "service": span.resource.service(),
        "attributes": span.attributes.to_json().to_string(),
        "dropped_attributes_count": span.dropped_attributes_count,
        "events": events.to_string(),
        "dropped_events_count": span.dropped_events_count,
        "links": links.to_string(),
        "dropped_links_count": span.dropped_links_count,
        "resource": resource(&span.resource).to_string(),
        "scope": scope(&span.scope).to_string(),
    })
}

pub(super) fn resource(resource: &Resource) -> Value {
    json!({ "attributes": resource.attributes.to_json(), "schema_url": resource.schema_url })
}

pub(super) fn scope(scope: &Scope) -> Value {
    json!({
        "name": scope.name,
        "version": scope.version,
        "attributes": scope.attributes.to_json(),
        "schema_url": scope.schema_url,
    })
}

/// The row of what a segment knows of a trace's spans. Counts of logs and decisions, and the time of
/// the last arrival, change without a span, and are left out.
pub(super) fn part(
    segment: &Connection,
    id: SegmentId,
    trace_id: TraceId,
) -> Result<Option<Value>, RowError> {
    let Some(rows) = trace_rows::find(segment, trace_id)? else { return Ok(None) };
    let mut summary = rows.summary;
    (summary.log_count, summary.decision_count, summary.received_unix_nano) = (0, 0, 0);
    let text = serde_json::to_string(&summary).unwrap_or_default();
    Ok(Some(json!({
        "day": id.day.name(),
        "segment": id.stem(),
        "trace_id": trace_id.to_string(),
        "is_carried": u8::from(rows.is_carried),
        "name": summary.root.as_ref().map(|root| root.name.as_str()).unwrap_or_default(),
        "start_unix_nano": summary.start_unix_nano,
        "end_unix_nano": summary.end_unix_nano,
        "span_count": summary.span_count,
        "error_count": summary.error_count,
        "cost_nano_usd": summary.cost_nano_usd,
        "summary": text,
    })))
}

/// The trace of a key space.
pub(super) fn trace_of(segment: &Connection, trace_no: i64) -> Result<TraceId, RowError> {
    let sql = "SELECT trace_id FROM traces WHERE trace_no = ?1";
    let bytes: Vec<u8> = segment.prepare_cached(sql)?.query_row([trace_no], |row| row.get(0))?;
    TraceId::from_slice(&bytes).map_err(|_| crate::body::BodyError::Id.into())
}

/// Keys from one to before another, at most so many; all of them where nothing is said.
pub(super) fn keys(
    segment: &Connection,
    from_key: i64,
    next_key: i64,
    most: Option<usize>,
) -> Result<Vec<i64>, rusqlite::Error> {
    // A negative limit is none.
    let sql = "SELECT key FROM spans WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3";
    let most = most.map_or(-1, |most| i64::try_from(most).unwrap_or(i64::MAX));
    let mut statement = segment.prepare_cached(sql)?;
    statement.query_map([from_key, next_key, most], |row| row.get(0))?.collect()
}

/// What the embedded store has, in the form in which ClickHouse has it.
#[derive(Debug)]
pub struct StoredRows(Layout);

impl StoredRows {
    /// Reads a data directory, beside a running server or without one.
    pub fn new(data_dir: &Path) -> Self {
        Self(Layout::new(data_dir))
    }

    pub(super) fn layout(&self) -> &Layout {
        &self.0
    }

    /// Segments that have their rows, oldest first, by name.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn segments(&self) -> Result<Vec<String>, MirrorError> {
        let mut files = self.0.files()?;
        files.reverse();
        Ok(files.iter().filter(|file| !file.is_skeleton).map(|file| file.id.stem()).collect())
    }

    /// Rows of a kind with a key above `after`, by key, at most so many: of a segment, whose name is
    /// of no matter for decisions. None when the segment is no more.
    ///
    /// # Errors
    /// [`MirrorError`] when the segment cannot be read.
    pub fn page(
        &self,
        kind: RowKind,
        segment: &str,
        (after, most): (i64, usize),
    ) -> Result<Vec<(i64, Value)>, MirrorError> {
        if !kind.is_of_segments() {
            let control = CONTROL.open_reader(&self.0.control())?;
            let found = decision_rows::after(&control, after, most)?;
            return Ok(found.iter().map(|(key, of)| (*key, records::decision(*key, of))).collect());
        }
        let files = self.0.files()?;
        let Some(file) = files.iter().find(|f| f.id.stem() == segment && !f.is_skeleton) else {
            return Ok(Vec::new());
        };
        let connection = SEGMENT.open_reader(&file.path)?;
        let transaction = connection.unchecked_transaction()?;
        if kind != RowKind::Spans {
            return Ok(tail_page(&transaction, file, kind, (after, most))?);
        }
        let mut reader = RowReader::new(&transaction);
        let mut found = Vec::new();
        for key in keys(&transaction, after.saturating_add(1), i64::MAX, Some(most))? {
            let trace_id = trace_of(&transaction, key >> SPAN_BITS)?;
            found.push((key, span(file.id, key, &reader.span_at(trace_id, key)?)));
        }
        Ok(found)
    }

    /// All rows of a trace, by segment and key.
    ///
    /// # Errors
    /// [`MirrorError`] when a segment cannot be read.
    pub fn trace(&self, trace_id: TraceId) -> Result<Vec<Value>, MirrorError> {
        let mut files = self.0.files()?;
        files.reverse();
        let mut found = Vec::new();
        for file in files.iter().filter(|file| !file.is_skeleton) {
            let connection = SEGMENT.open_reader(&file.path)?;
            let transaction = connection.unchecked_transaction()?;
            let Some(rows) = trace_rows::find(&transaction, trace_id)? else { continue };
            let mut reader = RowReader::new(&transaction);
            for space in rows.spaces {
                let (from, next) = trace_rows::key_range(space);
                for key in keys(&transaction, from, next, None)? {
                    found.push(span(file.id, key, &reader.span_at(trace_id, key)?));
                }
            }
        }
        Ok(found)
    }
}
