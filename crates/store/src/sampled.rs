//! What sampling did to traces, as readers are told it: one row in the segment for each trace that
//! it touched.

use rusqlite::{Connection, OptionalExtension as _, params};
use throughline_trace::{Sampled, SpanId, TraceId, TraceSummary};

use crate::error::QueryError;
use crate::layout::SegmentId;
use crate::session::{Segment, Session};
use crate::trace_place;

/// Bytes of one span in `sampled.seen`: its id and its checksum.
const SEEN_BYTES: usize = 16;

/// Writes what was done to the trace of a row.
pub(crate) fn store(
    segment: &Connection,
    trace_no: i64,
    sampled: &Sampled,
    seen: &[u8],
) -> Result<(), rusqlite::Error> {
    segment.prepare_cached("INSERT INTO sampled VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute(
        params![
            trace_no,
            sampled.weight,
            sampled.spans_chosen as i64,
            sampled.spans_dropped as i64,
            sampled.logs_dropped as i64,
            sampled.spans_bared as i64,
            seen
        ],
    )?;
    Ok(())
}

/// What was done to a trace in one segment.
pub(crate) fn of(segment: &Connection, id: TraceId) -> Result<Option<Sampled>, rusqlite::Error> {
    if !is_any(segment)? {
        return Ok(None);
    }
    let Some(trace_no) = trace_place::first(segment, id)? else { return Ok(None) };
    segment
        .prepare_cached(
            "SELECT weight, spans_chosen, spans_dropped, logs_dropped, spans_bared FROM sampled
                WHERE trace_no = ?1",
        )?
        .query_row([trace_no], read)
        .optional()
}

fn read(row: &rusqlite::Row<'_>) -> Result<Sampled, rusqlite::Error> {
    let count = |at| row.get::<_, i64>(at).map(|count| count as u64);
    Ok(Sampled {
        weight: row.get(0)?,
        spans_chosen: count(1)?,
        spans_dropped: count(2)?,
        logs_dropped: count(3)?,
        spans_bared: count(4)?,
    })
}

/// Whether sampling touched any trace of a segment.
pub(crate) fn is_any(segment: &Connection) -> Result<bool, rusqlite::Error> {
    segment.prepare_cached("SELECT 1 FROM sampled LIMIT 1")?.exists([])
}

/// Appends a span that goes, so that it is still known when it is delivered again.
pub(crate) fn push_seen(seen: &mut Vec<u8>, span_id: i64, checksum: i64) {
    seen.extend_from_slice(&span_id.to_be_bytes());
    seen.extend_from_slice(&checksum.to_be_bytes());
}

/// Tells `see` the spans that are gone of a trace, with their checksums.
pub(crate) fn seen_spans(
    segment: &Connection,
    trace_no: i64,
    mut see: impl FnMut(SpanId, u64),
) -> Result<(), rusqlite::Error> {
    let seen: Option<Vec<u8>> = segment
        .prepare_cached("SELECT seen FROM sampled WHERE trace_no = ?1")?
        .query_row([trace_no], |row| row.get(0))
        .optional()?;
    let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    for span in seen.unwrap_or_default().chunks_exact(SEEN_BYTES) {
        let (id, checksum) = span.split_at(SEEN_BYTES / 2);
        see(SpanId::from_u64(number(id)), number(checksum));
    }
    Ok(())
}

/// Sets what sampling did to a trace, in all the segments that have a part of it.
pub(crate) fn fill(
    session: &Session,
    segments: &[Segment],
    summary: &mut TraceSummary,
) -> Result<(), QueryError> {
    summary.sampled = of_trace(session, segments, summary.trace_id, None)?;
    Ok(())
}

/// What sampling did to a trace, in all these segments but one.
pub(crate) fn of_trace(
    session: &Session,
    segments: &[Segment],
    id: TraceId,
    but: Option<SegmentId>,
) -> Result<Sampled, QueryError> {
    let mut sampled = Sampled::default();
    for segment in segments {
        if !segment.digest.is_sampled || !segment.digest.may_know(id) || but == Some(segment.id) {
            continue;
        }
        let lease = session.segment(segment.id)?;
        if let Some(found) = of(&lease, id).map_err(|error| lease.fails(&error))? {
            sampled.merge(found);
        }
    }
    Ok(sampled)
}
