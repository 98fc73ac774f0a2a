//! Spans that are read from the segment, for the index: those of before a start, and those that came
//! faster than they could be handed over.

use std::borrow::Cow;
use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _};

use super::error::IndexError;
use super::gather::{Address, Gathered, Message};
use super::shelf::Shelf;
use crate::body::{self, BodyError, SpanBody};
use crate::dictionary;
use crate::insert::read_varints;
use crate::messages::Slot;
use crate::read_spans::RowReader;
use crate::search::content::{self, Referred};
use crate::trace_rows::{self, RowError};

/// Reads spans of one segment.
pub(super) struct SegmentSpans<'c> {
    connection: &'c Connection,
    reader: RowReader<'c>,
    messages: HashMap<i64, Address>,
    pub(super) gathered: Gathered,
}

impl<'c> SegmentSpans<'c> {
    /// Reads from `connection`.
    pub(super) fn new(connection: &'c Connection) -> Self {
        let reader = RowReader::new(connection);
        let (messages, gathered) = Default::default();
        Self { connection, reader, messages, gathered }
    }

    /// Reads the spans of a row of `traces` from a key on, at most so many and, but for the last of
    /// them, until so many bytes are gathered, as those of the trace of the row `trace_no`. Answers
    /// the key behind the last, and whether that is all.
    pub(super) fn spans(
        &mut self,
        shelf: &mut Shelf<'_>,
        (space, trace_no): (i64, i64),
        from: i64,
        (most, most_bytes): (usize, usize),
    ) -> Result<(i64, bool), IndexError> {
        let (first, behind) = trace_rows::key_range(space);
        let mut next = from.max(first);
        let connection = self.connection;
        let mut statement = connection
            .prepare_cached(
                "SELECT key, name, resource, messages, body FROM spans
                 WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3",
            )
            .map_err(IndexError::of_segment)?;
        let mut rows =
            statement.query([next, behind, most as i64]).map_err(IndexError::of_segment)?;
        let mut read = 0;
        while let Some(row) = rows.next().map_err(IndexError::of_segment)? {
            if self.gathered.bytes >= most_bytes {
                return Ok((next, false));
            }
            let span = SpanRow::read(connection, row).map_err(IndexError::Segment)?;
            next = span.key + 1;
            read += 1;
            self.span(shelf, span, trace_no)?;
        }
        Ok((next, read < most))
    }

    fn span(
        &mut self,
        shelf: &mut Shelf<'_>,
        span: SpanRow<'_>,
        trace_no: i64,
    ) -> Result<(), IndexError> {
        let SpanRow { name, body, resource, messages, .. } = span;
        self.gathered.begin_span(span.bytes, (resource, trace_no));
        if self.gathered.wants_resource(resource) {
            let read = self.reader.resource(resource).map_err(IndexError::of_segment)?;
            self.gathered.resource(resource, &read.attributes);
        }
        self.gathered.name(shelf, name, trace_no);
        let own = body.attributes.iter().filter_map(|(key, slot)| match slot {
            Slot::Plain(value) => Some((key.as_str(), value)),
            Slot::Text { .. } | Slot::List { .. } => None,
        });
        let of_events = body.events.iter().flat_map(|event| event.attributes.iter());
        for attribute in own.chain(of_events) {
            self.gathered.value(shelf, attribute, trace_no);
        }
        for said in content::said_by(name, &body) {
            self.gathered.said(shelf, said, trace_no)?;
        }
        for referred in content::messages_of(&body.attributes, messages) {
            self.message(shelf, referred, trace_no)?;
        }
        Ok(())
    }

    fn message(
        &mut self,
        shelf: &mut Shelf<'_>,
        referred: Referred,
        trace_no: i64,
    ) -> Result<(), IndexError> {
        let Referred { message: number, is_json, written } = referred;
        let connection = self.connection;
        let address = match self.messages.get(&number) {
            Some(address) => *address,
            None => {
                let address: Address =
                    column(connection, "SELECT address FROM messages WHERE message = ?1", number)?;
                self.messages.insert(number, address);
                address
            }
        };
        let message = Message { address, is_json, written };
        self.gathered.message(shelf, message, trace_no, || {
            let stored: Vec<u8> =
                column(connection, "SELECT body FROM messages WHERE message = ?1", number)?;
            let bytes = dictionary::unpack(connection, &stored).map_err(IndexError::of_segment)?;
            Ok(Cow::Owned(bytes))
        })
    }
}

/// A column of a message.
fn column<T: rusqlite::types::FromSql>(
    connection: &Connection,
    sql: &str,
    message: i64,
) -> Result<T, IndexError> {
    let found = connection
        .prepare_cached(sql)
        .and_then(|mut find| find.query_row([message], |row| row.get(0)).optional())
        .map_err(|error| IndexError::Segment(error.into()))?;
    found.ok_or(IndexError::Segment(RowError::from(BodyError::Messages)))
}

/// What a row of `spans` says that is indexed.
struct SpanRow<'r> {
    key: i64,
    name: &'r str,
    resource: i64,
    /// Numbers of the messages that it refers to.
    messages: Vec<i64>,
    body: SpanBody,
    /// Length of the body, bytes.
    bytes: usize,
}

impl<'r> SpanRow<'r> {
    fn read(segment: &Connection, row: &'r rusqlite::Row<'_>) -> Result<Self, RowError> {
        let name = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
        let messages = row.get_ref(3)?.as_blob_or_null().map_err(rusqlite::Error::from)?;
        let stored = row.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?;
        let raw = dictionary::unpack(segment, stored)?;
        Ok(Self {
            key: row.get(0)?,
            name,
            resource: row.get(2)?,
            messages: messages.map(read_varints).unwrap_or_default(),
            body: body::decode(&raw)?,
            bytes: raw.len(),
        })
    }
}
