//! Spans that ClickHouse does not have yet. They lie by trace, so that what is sent of a segment is
//! noted by key space of a trace.

use std::collections::{BTreeSet, HashMap};

use rusqlite::Connection;

use super::walk::{MAX_GROWING, Walk};
use super::{Batch, Feed, Insert, MirrorError, token};
use crate::clickhouse::kind::RowKind;
use crate::clickhouse::position::{Planned, Range};
use crate::clickhouse::rows;
use crate::clickhouse::schema::INSERT_PARTS;
use crate::layout::SegmentFile;
use crate::read_spans::RowReader;
use crate::schema::{SEGMENT, SchemaError};
use crate::trace_rows::key_range;
use crate::writer::now_unix_nano;

impl Feed {
    /// Spans of a segment that were not acknowledged, up to a batch of them.
    pub(super) fn next_spans(
        &mut self,
        file: &SegmentFile,
        is_newest: bool,
    ) -> Result<Option<Batch>, MirrorError> {
        let segment = file.id.stem();
        let (known, is_settled) = self.position.standing(&segment)?;
        if is_settled {
            return Ok(None);
        }
        let connection = match SEGMENT.open_reader(&file.path) {
            // The writer has made the file, and not its tables yet.
            Err(SchemaError::Unready) if is_newest => return Ok(None),
            opened => opened?,
        };
        let transaction = connection.unchecked_transaction()?;
        let (batch_no, total): (i64, i64) =
            transaction.query_row("SELECT batch_no, spans FROM state", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        if batch_no as u64 == known && is_newest {
            return Ok(None);
        }
        let counted = self.position.counted(RowKind::Spans, &segment)?;
        if is_newest && counted == Some(total as u64) {
            self.walk = None;
            self.position.note(&segment, batch_no as u64, false)?;
            return Ok(None);
        }
        // What is recent first; if that does not explain the count, all of it.
        for may_be_recent in [true, false] {
            let begun = self.walk.take().filter(|walk| walk.goes_on(&segment, is_newest));
            let is_fresh = begun.is_none();
            let mut walk = match begun {
                Some(walk) => walk,
                None if may_be_recent && is_newest && counted.is_some() => {
                    Walk::recent(&transaction, &segment, &self.growing)?
                }
                None => Walk::whole(&segment, !is_newest),
            };
            let ranges = self.waiting(&transaction, &mut walk)?;
            if !ranges.is_empty() {
                self.walk = Some(walk);
                drop(transaction);
                let planned = Planned { segment, ranges, version: now_unix_nano() };
                self.position.plan(&planned)?;
                return self.read_spans(file, &planned).map(Some);
            }
            if walk.is_whole {
                // A closed segment changes no more; of the open one only what this snapshot has is told.
                if !is_newest || is_fresh && counted.is_none() {
                    self.position.note(&segment, batch_no as u64, !is_newest)?;
                }
                break;
            }
        }
        Ok(None)
    }

    /// What of a segment was not acknowledged, up to a batch of it, from where the walk is.
    fn waiting(
        &mut self,
        connection: &Connection,
        walk: &mut Walk,
    ) -> Result<Vec<Range>, MirrorError> {
        if self.sent.as_ref().is_none_or(|(of, _)| *of != walk.segment) {
            self.sent = Some((walk.segment.clone(), self.position.sent(&walk.segment)?));
            self.growing.clear();
        }
        let none = HashMap::new();
        let sent = self.sent.as_ref().map_or(&none, |(_, sent)| sent);
        let (mut ranges, mut rows, mut bytes) = (Vec::new(), 0, 0);
        let sql = "SELECT key, length(body) FROM spans WHERE key >= ?1 AND key < ?2 ORDER BY key";
        let mut spans = connection.prepare_cached(sql)?;
        let mut traces = connection
            .prepare_cached("SELECT trace_no FROM traces WHERE trace_no >= ?1 ORDER BY 1")?;
        let mut traces = traces.query([walk.next])?;
        loop {
            let trace_no = match walk.growing.pop() {
                Some(trace_no) => trace_no,
                None => match traces.next()? {
                    Some(row) => row.get(0)?,
                    None => {
                        walk.next = i64::MAX;
                        break;
                    }
                },
            };
            let (first, end) = key_range(trace_no);
            let from_key = sent.get(&trace_no).copied().unwrap_or(first);
            let mut next_key = from_key;
            let mut found = spans.query([from_key, end])?;
            while rows < self.max_rows
                && bytes < self.max_bytes
                && let Some(span) = found.next()?
            {
                next_key = span.get::<_, i64>(0)? + 1;
                (rows, bytes) = (rows + 1, bytes + span.get::<_, i64>(1)? as usize);
            }
            if next_key > from_key {
                ranges.push(Range { trace_no, from_key, next_key });
                if from_key > first {
                    self.growing.insert(trace_no);
                }
            }
            let is_full = rows >= self.max_rows || bytes >= self.max_bytes;
            // What is left of the trace comes with the next batch.
            walk.stopped_at(trace_no, is_full);
            if is_full {
                break;
            }
        }
        if self.growing.len() > MAX_GROWING {
            self.growing.clear();
        }
        Ok(ranges)
    }

    /// The batch of a plan.
    pub(super) fn read_spans(
        &self,
        file: &SegmentFile,
        planned: &Planned,
    ) -> Result<Batch, MirrorError> {
        let connection = SEGMENT.open_reader(&file.path)?;
        let transaction = connection.unchecked_transaction()?;
        let mut reader = RowReader::new(&transaction);
        let (mut spans, mut parts, mut rows) = (String::new(), String::new(), 0);
        let mut traces = BTreeSet::new();
        let mut place = blake3::Hasher::new();
        for range in &planned.ranges {
            let trace_id = rows::trace_of(&transaction, range.trace_no)?;
            traces.insert(trace_id);
            for number in [range.from_key, range.next_key] {
                place.update(&number.to_le_bytes());
            }
            // All that was planned, also when batches have become smaller since: what is acknowledged is the plan.
            for key in rows::keys(&transaction, range.from_key, range.next_key, None)? {
                let row = rows::span(file.id, key, &reader.span_at(trace_id, key)?);
                self.push(&mut spans, row, planned.version);
                rows += 1;
            }
        }
        // What a segment knows of a trace only grows: what is read later is the newer version.
        let version = now_unix_nano();
        for trace_id in traces {
            if let Some(row) = rows::part(&transaction, file.id, trace_id)? {
                self.push(&mut parts, row, version);
            }
        }
        let hash = place.update(&planned.version.to_le_bytes()).finalize();
        let of_spans = Insert {
            statement: RowKind::Spans.insert(),
            token: token(&planned.segment, hash),
            rows: spans,
        };
        // It may have moved on in between: its token names its content.
        let hash = blake3::hash(parts.as_bytes());
        let of_parts =
            Insert { statement: INSERT_PARTS, token: token(&planned.segment, hash), rows: parts };
        Ok(Batch { kind: RowKind::Spans, rows, inserts: vec![of_spans, of_parts] })
    }
}
