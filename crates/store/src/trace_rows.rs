//! The rows of one trace in one segment, as writer and readers find them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use rusqlite::{Connection, Row};
use throughline_trace::{
    Attributes, Call, Dimensions, DimensionsRef, Resource, SpanFacts, SpanFrame, SpanId, SpanRole,
    StatusCode, TraceId, TraceSummary, is_call, keys,
};

use crate::body::{self, BodyError, SpanBody};
use crate::dictionary;
use crate::indicators::Watching;
use crate::messages::Slot;
use crate::prepare::share;
use crate::read_spans::RowReader;
use crate::rollups::Horizon;
use crate::sampled;
use crate::schema::to_nanos;
use crate::trace_place::{self, first_row};

/// Bits of a span's key below the row number of its trace.
pub(crate) const SPAN_BITS: u32 = 20;

/// The stored form of an empty list.
const NO_NAMES: u8 = 0;

/// What the row of a trace says.
#[derive(Debug)]
pub(crate) struct TraceRows {
    /// The row.
    pub(crate) trace_no: i64,
    /// It, and the rows that widen its key space, in order.
    pub(crate) spaces: Vec<i64>,
    /// Whether earlier segments know the trace too.
    pub(crate) is_carried: bool,
    /// What is known of it: by this segment, and if it is carried by those before.
    pub(crate) summary: TraceSummary,
}

/// What went wrong in a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RowError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Body(#[from] BodyError),
}

impl RowError {
    /// The error of whoever asks.
    pub(crate) fn on_query(self, path: &std::path::Path) -> crate::QueryError {
        match self {
            Self::Sqlite(error) => crate::QueryError::of(path, &error),
            Self::Body(error) => {
                crate::QueryError::Damaged { path: path.to_owned(), detail: error.to_string() }
            }
        }
    }
}

/// Keys of the spans of a row: from the first to the one behind the last.
pub(crate) fn key_range(trace_no: i64) -> (i64, i64) {
    (trace_no << SPAN_BITS, (trace_no + 1) << SPAN_BITS)
}

/// The rows of a trace; `None` when the segment does not know it.
pub(crate) fn find(connection: &Connection, id: TraceId) -> Result<Option<TraceRows>, RowError> {
    let mut statement = connection.prepare_cached(first_row!("trace_no, carried, summary"))?;
    read(connection, statement.query([id.as_bytes()])?)
}

/// The same by the first row.
pub(crate) fn at(connection: &Connection, first: i64) -> Result<Option<TraceRows>, RowError> {
    let mut statement = connection
        .prepare_cached("SELECT trace_no, carried, summary FROM traces WHERE trace_no = ?1")?;
    read(connection, statement.query([first])?)
}

fn read(
    connection: &Connection,
    mut rows: rusqlite::Rows<'_>,
) -> Result<Option<TraceRows>, RowError> {
    let Some(row) = rows.next()? else { return Ok(None) };
    let (trace_no, is_carried) = (row.get(0)?, row.get(1)?);
    let summary = summary(row, 2)?;
    let spaces = trace_place::rows(connection, trace_no)?;
    Ok(Some(TraceRows { trace_no, spaces, is_carried, summary }))
}

/// Whether the segment has something of a trace.
pub(crate) fn knows(connection: &Connection, id: TraceId) -> Result<bool, rusqlite::Error> {
    Ok(trace_place::first(connection, id)?.is_some())
}

/// Whether the segment has the trace with all that earlier segments know of it.
pub(crate) fn is_carried(connection: &Connection, id: TraceId) -> Result<bool, rusqlite::Error> {
    connection
        .prepare_cached("SELECT 1 FROM traces WHERE trace_id = ?1 AND carried = 1")?
        .exists([id.as_bytes()])
}

/// The summary in a column.
pub(crate) fn summary(row: &Row<'_>, column: usize) -> Result<TraceSummary, RowError> {
    let bytes = row.get_ref(column)?.as_blob().map_err(rusqlite::Error::from)?;
    Ok(decode_summary(bytes)?)
}

/// The summary of its stored form. The last field is a list of names that summaries did not always
/// have: a form that ends before it has none.
pub(crate) fn decode_summary(bytes: &[u8]) -> Result<TraceSummary, BodyError> {
    match body::decode(bytes) {
        Err(BodyError::Postcard(postcard::Error::DeserializeUnexpectedEnd)) => {
            let mut whole = bytes.to_vec();
            whole.push(NO_NAMES);
            body::decode(&whole)
        }
        other => other,
    }
}

/// What the writer remembers of a span that is stored.
#[derive(Debug)]
pub(crate) struct SeenSpan {
    pub(crate) span_id: SpanId,
    pub(crate) checksum: u64,
    /// The model call that it tells, if it does.
    pub(crate) call: Option<Call>,
}

/// Columns of `spans` that [`SpanRow`] is read from, with these bodies.
fn span_columns(body: &str) -> String {
    format!(
        "SELECT key, span_id, checksum, parent, start, duration, role, status, resource, {body}
            FROM spans WHERE key >= ?1 AND key < ?2"
    )
}

/// The body, of model calls only.
fn bodies_of_calls() -> String {
    let calls = [SpanRole::LlmCall, SpanRole::Embeddings].map(|role| (role as i64).to_string());
    format!("CASE WHEN role IN ({}) THEN body END", calls.join(", "))
}

/// What spans that are read together share.
#[derive(Default)]
struct Shared {
    /// Versions of services by the number of their resource.
    versions: HashMap<i64, Option<String>>,
    dimensions: Vec<Arc<Dimensions>>,
}

/// What the span of a row with [`span_columns`] adds to rollups, and the model call that it tells;
/// `None` when its body was not asked for.
fn told(
    connection: &Connection,
    row: &Row<'_>,
    shared: &mut Shared,
) -> Result<Option<(Option<Call>, SpanFacts)>, RowError> {
    let Some(bytes) = row.get_ref(9)?.as_blob_or_null().map_err(rusqlite::Error::from)? else {
        return Ok(None);
    };
    let body: SpanBody = dictionary::unpack_value(connection, bytes)?;
    let plain = body.attributes.into_iter().filter_map(|(key, slot)| match slot {
        Slot::Plain(value) => Some((key, value)),
        Slot::Text { .. } | Slot::List { .. } => None,
    });
    let attributes = Attributes(plain.collect());
    let parent: Option<i64> = row.get(3)?;
    let parent = parent.map(|id| SpanId::from_u64(id as u64));
    let start = to_nanos(row.get(4)?);
    let end = start.wrapping_add(row.get::<_, i64>(5)? as u64);
    let role: u32 = row.get(6)?;
    let role = SpanRole::ALL.get(role as usize).copied().unwrap_or(SpanRole::Other);
    let resource: i64 = row.get(8)?;
    let version = match shared.versions.entry(resource) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(slot) => {
            let bytes: Vec<u8> = connection
                .prepare_cached("SELECT body FROM resources WHERE resource = ?1")?
                .query_row([resource], |row| row.get(0))?;
            let resource: Resource = body::decode(&bytes)?;
            slot.insert(resource.attributes.str(keys::SERVICE_VERSION).map(str::to_owned))
        }
    };
    let dimensions = DimensionsRef::of_attributes(&attributes, || version.as_deref());
    let dimensions = share(&mut shared.dimensions, dimensions);
    let frame = SpanFrame {
        role,
        is_root: parent.is_none(),
        status: StatusCode::from_i32(row.get(7)?),
        start_unix_nano: start,
        end_unix_nano: end,
    };
    let facts = SpanFacts::of_parts(frame, &attributes, dimensions);
    let span_id = SpanId::from_u64(row.get::<_, i64>(1)? as u64);
    let call = is_call(role).then(|| Call::of_parts(span_id, parent, (start, end), &attributes));
    Ok(Some((call, facts)))
}

/// Tells `tell` what every span adds to rollups, and the model call that it tells.
pub(crate) fn told_spans(
    connection: &Connection,
    spaces: &[i64],
    mut tell: impl FnMut(Option<Call>, SpanFacts),
) -> Result<(), RowError> {
    let mut statement = connection.prepare_cached(&span_columns("body"))?;
    let mut shared = Shared::default();
    for space in spaces {
        let (from, to) = key_range(*space);
        let mut rows = statement.query([from, to])?;
        while let Some(row) = rows.next()? {
            if let Some((call, facts)) = told(connection, row, &mut shared)? {
                tell(call, facts);
            }
        }
    }
    Ok(())
}

/// Tells `see` every span of a trace, and answers the next free number of the last key space. Calls are
/// filed under the times that `horizon` believes: that of the last arrival of their trace, which is all
/// that is known of it, so that of a misdated one only the day is sure. They have with them what they
/// count for `watching`, so that it is taken back with the call; if nobody counts, that costs nothing.
pub(crate) fn seen_spans(
    connection: &Connection,
    (id, spaces): (TraceId, &[i64]),
    horizon: &Horizon,
    watching: &Watching,
    mut see: impl FnMut(SeenSpan),
) -> Result<u32, RowError> {
    let mut statement = connection.prepare_cached(&span_columns(&bodies_of_calls()))?;
    let mut shared = Shared::default();
    let mut reader = watching.is_any().then(|| RowReader::new(connection));
    let mut observed = Vec::new();
    let mut next = 0;
    if let Some(first) = spaces.first() {
        // What sampling took is not inserted again when it is delivered again.
        sampled::seen_spans(connection, *first, |span_id, checksum| {
            see(SeenSpan { span_id, checksum, call: None });
        })?;
    }
    for space in spaces {
        next = 0;
        let (from, to) = key_range(*space);
        let mut rows = statement.query([from, to])?;
        while let Some(row) = rows.next()? {
            let key: i64 = row.get(0)?;
            next = (key - from) as u32 + 1;
            let mut call = None;
            if let Some((Some(told), facts)) = told(connection, row, &mut shared)? {
                let mut facts = horizon.filed(&facts).unwrap_or(facts);
                if let Some(reader) = &mut reader {
                    watching.observe(&reader.span_at(id, key)?, &mut observed);
                    facts = facts.observed(&observed);
                }
                call = Some(told.with_facts(facts));
            }
            see(SeenSpan {
                span_id: SpanId::from_u64(row.get::<_, i64>(1)? as u64),
                checksum: row.get::<_, i64>(2)? as u64,
                call,
            });
        }
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_that_was_stored_before_there_were_users_is_read() {
        let mut summary = TraceSummary::empty(TraceId::from_u128(7));
        summary.agents.insert("fraud".to_owned());
        summary.error_types.insert("timeout".to_owned());
        let stored = body::encode(&summary).unwrap();
        assert_eq!(decode_summary(&stored).unwrap(), summary);
        let before = &stored[..stored.len() - 1];
        assert_eq!(decode_summary(before).unwrap(), summary);
        assert!(decode_summary(&before[..before.len() - 1]).is_err(), "it is cut");
        summary.users.insert("ada".to_owned());
        let stored = body::encode(&summary).unwrap();
        assert_eq!(decode_summary(&stored).unwrap(), summary);
    }
}
