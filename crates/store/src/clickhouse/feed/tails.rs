//! Rows with running numbers that ClickHouse does not have yet: log records and metric points of a
//! segment, and decisions. What is sent of them is told by the first number that is not.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::Value;

use super::{Batch, Feed, Insert, MirrorError, token};
use crate::clickhouse::kind::RowKind;
use crate::clickhouse::position::PlannedTail;
use crate::clickhouse::records::{self, PointPlace};
use crate::decision_rows;
use crate::layout::SegmentFile;
use crate::schema::{CONTROL, SEGMENT, SchemaError, from_nanos};
use crate::trace_rows::RowError;
use crate::writer::now_unix_nano;

/// Points whose places are kept in memory at a time, 24 bytes each.
const MAX_BACKLOG: i64 = 500_000;

/// Age of points, by their own clock, up to which those of the open segment are found without
/// reading all of them, nanoseconds: an hour.
const RECENT_NANOS: u64 = 3_600 * 1_000_000_000;

/// Time between two looks at the points of the open segment, in multiples of what a look takes.
const POINTS_PACE: u32 = 20;

/// Where the points of a segment lie whose numbers are in a range.
#[derive(Debug)]
pub(super) struct Backlog {
    segment: String,
    from: i64,
    next: i64,
    places: Vec<PointPlace>,
}

impl Backlog {
    /// Points are numbered without gaps and lie by series. Few new ones are usually recent; if some
    /// are not, or there are many, all points are looked at.
    fn read(
        connection: &Connection,
        segment: &str,
        (from, next): (i64, i64),
        is_recent: bool,
    ) -> Result<Self, rusqlite::Error> {
        let mut places = Vec::new();
        if is_recent {
            let recent = from_nanos(now_unix_nano().saturating_sub(RECENT_NANOS));
            places = records::places(connection, (from, next), Some(recent))?;
        }
        if (places.len() as i64) < next - from {
            places = records::places(connection, (from, next), None)?;
        }
        Ok(Self { segment: segment.to_owned(), from, next, places })
    }

    fn has(&self, segment: &str, (from, next): (i64, i64)) -> bool {
        self.segment == segment && self.from <= from && next <= self.next
    }

    fn of(&self, (from, next): (i64, i64)) -> &[PointPlace] {
        let at = |number| self.places.partition_point(|place| place.0 < number);
        &self.places[at(from)..at(next)]
    }
}

impl Feed {
    /// Log records, then points of a segment.
    pub(super) fn next_tails(
        &mut self,
        file: &SegmentFile,
        is_newest: bool,
    ) -> Result<Option<Batch>, MirrorError> {
        let segment = file.id.stem();
        let logs = self.position.tail(RowKind::Logs, &segment)?;
        let points = self.position.tail(RowKind::Points, &segment)?;
        if logs.is_none() && points.is_none() {
            return Ok(None);
        }
        let connection = match SEGMENT.open_reader(&file.path) {
            Err(SchemaError::Unready) if is_newest => return Ok(None),
            opened => opened?,
        };
        let transaction = connection.unchecked_transaction()?;
        if let Some(from) = logs {
            match self.waiting_logs(&transaction, from)? {
                Some(next) => return self.plan(file, (RowKind::Logs, from, next)),
                None if !is_newest => self.position.settle(RowKind::Logs, &segment)?,
                None => {}
            }
        }
        let Some(from) = points else { return Ok(None) };
        if is_newest && Instant::now() < self.points_due {
            return Ok(None);
        }
        let last: i64 = transaction.query_row("SELECT points FROM state", [], |row| row.get(0))?;
        drop(transaction);
        // The first has the number 1.
        let from = from.max(1);
        if last < from {
            if !is_newest {
                self.position.settle(RowKind::Points, &segment)?;
            }
            return Ok(None);
        }
        let most = i64::try_from(self.max_rows).unwrap_or(i64::MAX);
        let next = last.saturating_add(1).min(from.saturating_add(most));
        let begin = Instant::now();
        if !self.backlog.as_ref().is_some_and(|known| known.has(&segment, (from, next))) {
            let until = match last - from < most {
                true => last + 1,
                false => (last + 1).min(from.saturating_add(MAX_BACKLOG.max(most))),
            };
            let is_recent = is_newest && last - from < most;
            self.backlog = Some(Backlog::read(&connection, &segment, (from, until), is_recent)?);
        }
        let batch = self.plan(file, (RowKind::Points, from, next));
        if next > last {
            let pause = begin.elapsed().saturating_mul(POINTS_PACE);
            self.points_due = begin + pause.min(Duration::from_secs(60));
        }
        batch
    }

    /// The number behind the last log record of the next batch; `None` when none waits.
    fn waiting_logs(
        &self,
        connection: &Connection,
        from: i64,
    ) -> Result<Option<i64>, rusqlite::Error> {
        let sql = "SELECT log, length(body) FROM logs WHERE log >= ?1 ORDER BY log LIMIT ?2";
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query([from, records::limit(self.max_rows)])?;
        let (mut next, mut bytes) = (None, 0);
        while bytes < self.max_bytes
            && let Some(row) = rows.next()?
        {
            next = Some(row.get::<_, i64>(0)? + 1);
            bytes += row.get::<_, i64>(1)? as usize;
        }
        Ok(next)
    }

    fn plan(
        &mut self,
        file: &SegmentFile,
        (kind, from_key, next_key): (RowKind, i64, i64),
    ) -> Result<Option<Batch>, MirrorError> {
        let (segment, version) = (file.id.stem(), now_unix_nano());
        let planned = PlannedTail { kind, segment, from_key, next_key, version };
        self.position.plan_tail(&planned)?;
        self.read_tail(file, &planned).map(Some)
    }

    /// The batch of a plan, of a segment.
    pub(super) fn read_tail(
        &mut self,
        file: &SegmentFile,
        planned: &PlannedTail,
    ) -> Result<Batch, MirrorError> {
        let connection = SEGMENT.open_reader(&file.path)?;
        let transaction = connection.unchecked_transaction()?;
        let range = (planned.from_key, planned.next_key);
        let rows = match planned.kind {
            // All that was planned, also when batches have become smaller since.
            RowKind::Logs => records::logs(&transaction, file.id, range, usize::MAX)?,
            _ => {
                let known = self.backlog.take().filter(|b| b.has(&planned.segment, range));
                let known = match known {
                    Some(known) => known,
                    None => Backlog::read(&transaction, &planned.segment, range, false)?,
                };
                let rows = records::points(&transaction, file.id, known.of(range))?;
                self.backlog = Some(known);
                rows
            }
        };
        Ok(self.batch(planned, rows))
    }

    /// Decisions that were not acknowledged.
    pub(super) fn next_decisions(&mut self) -> Result<Option<Batch>, MirrorError> {
        let kind = RowKind::Decisions;
        let from_key = self.position.tail(kind, "")?.unwrap_or(0);
        let control = match CONTROL.open_reader(&self.layout.control()) {
            Err(SchemaError::Unready) => return Ok(None),
            opened => opened?,
        };
        let sql = "SELECT decision, length(body) FROM decisions WHERE decision >= ?1
            ORDER BY decision LIMIT ?2";
        let (mut next, mut bytes) = (None, 0);
        {
            let mut statement = control.prepare(sql)?;
            let mut rows = statement.query([from_key, records::limit(self.max_rows)])?;
            while bytes < self.max_bytes
                && let Some(row) = rows.next()?
            {
                next = Some(row.get::<_, i64>(0)? + 1);
                bytes += row.get::<_, i64>(1)? as usize;
            }
        }
        let Some(next_key) = next else { return Ok(None) };
        let (segment, version) = (String::new(), now_unix_nano());
        let planned = PlannedTail { kind, segment, from_key, next_key, version };
        self.position.plan_tail(&planned)?;
        self.read_decisions(&planned).map(Some)
    }

    /// The batch of a plan, of decisions; those that were erased since are left out.
    pub(super) fn read_decisions(&self, planned: &PlannedTail) -> Result<Batch, MirrorError> {
        let control = CONTROL.open_reader(&self.layout.control())?;
        let most = usize::try_from(planned.next_key - planned.from_key).unwrap_or(usize::MAX);
        let found = decision_rows::after(&control, planned.from_key - 1, most)?;
        let rows = found
            .iter()
            .take_while(|(key, _)| *key < planned.next_key)
            .map(|(key, decision)| (*key, records::decision(*key, decision)))
            .collect();
        Ok(self.batch(planned, rows))
    }

    fn batch(&self, planned: &PlannedTail, rows: Vec<(i64, Value)>) -> Batch {
        let (count, mut lines) = (rows.len() as u64, String::new());
        rows.into_iter().for_each(|(_, row)| self.push(&mut lines, row, planned.version));
        let mut place = blake3::Hasher::new();
        for number in [planned.from_key, planned.next_key] {
            place.update(&number.to_le_bytes());
        }
        let hash = place.update(&planned.version.to_le_bytes()).finalize();
        let name = format!("{}-{}", planned.kind.table(), planned.segment);
        let insert =
            Insert { statement: planned.kind.insert(), rows: lines, token: token(&name, hash) };
        Batch { kind: planned.kind, rows: count, inserts: vec![insert] }
    }
}

/// Rows of a segment with a number above `after`, at most so many: as they would be sent.
pub(in crate::clickhouse) fn page(
    connection: &Connection,
    file: &SegmentFile,
    kind: RowKind,
    (after, most): (i64, usize),
) -> Result<Vec<(i64, Value)>, RowError> {
    let from = after.saturating_add(1);
    if kind == RowKind::Logs {
        return records::logs(connection, file.id, (from, i64::MAX), most);
    }
    let mut places = records::places(connection, (from, i64::MAX), None)?;
    places.truncate(most);
    records::points(connection, file.id, &places)
}
