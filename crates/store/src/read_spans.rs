//! Rows back to spans and log records, with what they share read once.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, Row};
use serde::de::DeserializeOwned;
use throughline_trace::{
    Attributes, LogRecord, Resource, Scope, Severity, Span, SpanId, SpanKind, Status, StatusCode,
    TraceId,
};

use crate::body::{self, BodyError, LogBody, SpanBody};
use crate::dictionary;
use crate::insert::read_varints;
use crate::messages::{self, Slot};
use crate::schema::to_nanos;
use crate::trace_rows::{self, RowError};

/// Messages that are kept for the rows to come, bytes.
const MAX_CACHED_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// A statement over what [`RowReader`] makes a span of.
macro_rules! spans_where {
    ($rest:literal) => {
        concat!(
            "SELECT span_id, parent, kind, status, start, duration, resource, scope, name, messages, body
                FROM spans WHERE ",
            $rest
        )
    };
}

/// Messages of one segment that were read, by number: spans of a conversation refer to the same ones.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    known: HashMap<i64, Vec<u8>>,
    bytes: usize,
}

/// Reads rows of one segment.
#[derive(Debug)]
pub(crate) struct RowReader<'c> {
    connection: &'c Connection,
    resources: HashMap<i64, Arc<Resource>>,
    scopes: HashMap<i64, Arc<Scope>>,
    messages: Messages,
    /// Bytes of attribute values and bodies given out, for the bound of an answer.
    pub(crate) bytes: usize,
}

impl<'c> RowReader<'c> {
    pub(crate) fn new(connection: &'c Connection) -> Self {
        Self::knowing(connection, Messages::default())
    }

    /// A reader that goes on with the messages that another one of this segment has read.
    pub(crate) fn knowing(connection: &'c Connection, messages: Messages) -> Self {
        let (resources, scopes) = Default::default();
        Self { connection, resources, scopes, messages, bytes: 0 }
    }

    /// The messages that it has read.
    pub(crate) fn into_messages(self) -> Messages {
        self.messages
    }

    /// Reads the spans of a trace in the order of arrival, until `take` says stop.
    pub(crate) fn spans(
        &mut self,
        id: TraceId,
        spaces: &[i64],
        mut take: impl FnMut(Span, usize) -> bool,
    ) -> Result<(), RowError> {
        let sql = spans_where!("key >= ?1 AND key < ?2 ORDER BY key");
        let mut statement = self.connection.prepare_cached(sql)?;
        for space in spaces {
            let (from, to) = trace_rows::key_range(*space);
            let mut rows = statement.query([from, to])?;
            while let Some(row) = rows.next()? {
                let span = self.span(id, row)?;
                if !take(span, self.bytes) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The span of a key.
    pub(crate) fn span_at(&mut self, trace_id: TraceId, key: i64) -> Result<Span, RowError> {
        let mut statement = self.connection.prepare_cached(spans_where!("key = ?1"))?;
        let mut rows = statement.query([key])?;
        let row = rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        self.span(trace_id, row)
    }

    fn span(&mut self, trace_id: TraceId, row: &Row<'_>) -> Result<Span, RowError> {
        let stored = row.get_ref(10)?.as_blob().map_err(rusqlite::Error::from)?;
        let raw = dictionary::unpack(self.connection, stored)?;
        self.bytes += raw.len();
        let body: SpanBody = body::decode(&raw)?;
        let attributes = self.attributes(body.attributes, row, 9)?;
        let start_unix_nano = to_nanos(row.get(4)?);
        let parent: Option<i64> = row.get(1)?;
        Ok(Span {
            trace_id,
            span_id: SpanId::from_u64(row.get::<_, i64>(0)? as u64),
            parent_span_id: parent.map(|id| SpanId::from_u64(id as u64)),
            trace_state: body.trace_state,
            flags: body.flags,
            name: row.get(8)?,
            kind: SpanKind::from_i32(row.get(2)?),
            start_unix_nano,
            end_unix_nano: start_unix_nano.wrapping_add(row.get::<_, i64>(5)? as u64),
            status: Status {
                code: StatusCode::from_i32(row.get(3)?),
                message: body.status_message,
            },
            attributes,
            dropped_attributes_count: body.dropped_attributes_count,
            events: body.events,
            dropped_events_count: body.dropped_events_count,
            links: body.links,
            dropped_links_count: body.dropped_links_count,
            resource: self.resource(row.get(6)?)?,
            scope: self.scope(row.get(7)?)?,
        })
    }

    /// Columns of `logs` that [`RowReader::log`] reads, in its order.
    pub(crate) const LOG_COLUMNS: &'static str =
        "time, log, span_id, trace_id, severity, event_name, resource, scope, messages, body";

    /// The log record of a row with [`RowReader::LOG_COLUMNS`].
    pub(crate) fn log(&mut self, row: &Row<'_>) -> Result<LogRecord, RowError> {
        let stored = row.get_ref(9)?.as_blob().map_err(rusqlite::Error::from)?;
        let raw = dictionary::unpack(self.connection, stored)?;
        self.bytes += raw.len();
        let body: LogBody = body::decode(&raw)?;
        let attributes = self.attributes(body.attributes, row, 8)?;
        let span_id: Option<i64> = row.get(2)?;
        let trace_id: Option<Vec<u8>> = row.get(3)?;
        let trace_id = trace_id.map(|id| TraceId::from_slice(&id)).transpose();
        Ok(LogRecord {
            time_unix_nano: to_nanos(row.get(0)?),
            observed_unix_nano: body.observed_unix_nano,
            trace_id: trace_id.map_err(|_| BodyError::Id)?,
            span_id: span_id.map(|id| SpanId::from_u64(id as u64)),
            severity: Severity(row.get(4)?),
            severity_text: body.severity_text,
            event_name: row.get(5)?,
            body: body.body,
            attributes,
            dropped_attributes_count: body.dropped_attributes_count,
            resource: self.resource(row.get(6)?)?,
            scope: self.scope(row.get(7)?)?,
        })
    }

    fn attributes(
        &mut self,
        slots: Vec<(String, Slot)>,
        row: &Row<'_>,
        column: usize,
    ) -> Result<Attributes, RowError> {
        let references =
            match row.get_ref(column)?.as_blob_or_null().map_err(rusqlite::Error::from)? {
                Some(bytes) => read_varints(bytes),
                None => Vec::new(),
            };
        self.restored(slots, &references)
    }

    /// The attributes of slots whose messages have these numbers.
    pub(crate) fn restored(
        &mut self,
        slots: Vec<(String, Slot)>,
        references: &[i64],
    ) -> Result<Attributes, RowError> {
        if self.messages.bytes > MAX_CACHED_MESSAGE_BYTES {
            self.messages = Messages::default();
        }
        for number in references {
            self.load_message(*number)?;
        }
        let Self { messages, bytes, .. } = self;
        let mut numbers = references.iter();
        let next = || {
            let message = messages.known.get(numbers.next()?)?;
            *bytes += message.len();
            Some(message.as_slice())
        };
        Ok(messages::restore(slots, next)?)
    }

    fn load_message(&mut self, number: i64) -> Result<(), RowError> {
        if self.messages.known.contains_key(&number) {
            return Ok(());
        }
        let stored: Option<Vec<u8>> = self
            .connection
            .prepare_cached("SELECT body FROM messages WHERE message = ?1")?
            .query_row([number], |row| row.get(0))
            .optional()?;
        let stored = stored.ok_or(BodyError::Messages)?;
        let message = dictionary::unpack(self.connection, &stored)?;
        self.messages.bytes += message.len();
        self.messages.known.insert(number, message);
        Ok(())
    }

    pub(crate) fn resource(&mut self, number: i64) -> Result<Arc<Resource>, RowError> {
        let sql = "SELECT body FROM resources WHERE resource = ?1";
        shared(self.connection, &mut self.resources, sql, number)
    }

    pub(crate) fn scope(&mut self, number: i64) -> Result<Arc<Scope>, RowError> {
        let sql = "SELECT body FROM scopes WHERE scope = ?1";
        shared(self.connection, &mut self.scopes, sql, number)
    }
}

fn shared<T: DeserializeOwned>(
    connection: &Connection,
    known: &mut HashMap<i64, Arc<T>>,
    sql: &str,
    number: i64,
) -> Result<Arc<T>, RowError> {
    if let Some(value) = known.get(&number) {
        return Ok(Arc::clone(value));
    }
    let bytes: Vec<u8> = connection.prepare_cached(sql)?.query_row([number], |row| row.get(0))?;
    let value = Arc::new(body::decode(&bytes)?);
    known.insert(number, Arc::clone(&value));
    Ok(value)
}
