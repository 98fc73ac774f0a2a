//! One piece of work on an index: what one transaction adds to it.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::error::IndexError;
use super::file::Standing;
use super::gather::{Gathered, Gatherer};
use super::pending::Pending;
use crate::layout::SegmentId;

/// Spans that one transaction of a scan adds.
const MAX_CHUNK_SPANS: usize = 4_096;

/// Bytes of bodies and texts after which a transaction of a scan takes no further span.
const MAX_CHUNK_BYTES: usize = 4 * 1024 * 1024;

/// Traces after which a transaction takes no further group.
const MAX_CHUNK_TRACES: usize = 1_024;

/// Bytes of bodies and texts after which a transaction that follows the writer takes no further span,
/// 16 MiB: groups may be that large, and rows that go in together are cheaper.
pub(super) const MAX_FOLLOWED_BYTES: usize = 16 * 1024 * 1024;

/// Rows of `traces` that are looked at in one go.
const ROWS_AT_ONCE: i64 = 1_024;

/// A segment and its index.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) id: SegmentId,
    pub(super) segment: Connection,
    pub(super) index: Connection,
    pub(super) standing: Standing,
    scan: Option<Scan>,
    follow: Option<Follow>,
}

/// Groups that are followed, as far as that is not done.
#[derive(Debug)]
struct Follow {
    /// The last of them.
    batch_no: u64,
    /// Traces that they changed and that are still to be looked at.
    traces: BTreeSet<i64>,
}

/// A look at every trace of a segment.
#[derive(Debug, Clone, Copy)]
struct Scan {
    /// The last row of `traces` that was looked at.
    row: i64,
    /// The last group that was committed when it began.
    batch_no: u64,
}

impl Open {
    /// A segment and its index, which is as it stands.
    pub(super) fn new(
        id: SegmentId,
        segment: Connection,
        index: Connection,
    ) -> Result<Self, IndexError> {
        let standing = Standing::read(&index)?;
        Ok(Self { id, segment, index, standing, scan: None, follow: None })
    }

    /// Adds what one transaction takes; answers whether that was anything, and how many spans the
    /// segment has.
    pub(super) fn piece(&mut self, pending: &Pending) -> Result<(bool, u64), IndexError> {
        self.segment.execute_batch("BEGIN").map_err(IndexError::of_segment)?;
        let (committed, stored): (i64, i64) = self
            .segment
            .prepare_cached("SELECT batch_no, spans FROM state")
            .and_then(|mut state| state.query_row([], |row| Ok((row.get(0)?, row.get(1)?))))
            .map_err(IndexError::of_segment)?;
        let (committed, stored) = (committed as u64, stored as u64);
        if self.scan.is_none() && self.standing.is_whole && self.standing.batch_no >= committed {
            pending.indexed(self.id, self.standing.batch_no);
            return Ok((false, stored));
        }
        let told = match (self.scan, self.follow.take()) {
            (None, Some(follow)) => Some(follow),
            (None, None) if self.standing.is_whole => pending
                .after(self.id, self.standing.batch_no, committed, MAX_CHUNK_TRACES)
                .map(|(batch_no, traces)| Follow { batch_no, traces }),
            _ => None,
        };
        match told {
            Some(follow) => self.follow(follow)?,
            None => {
                let scan = self.scan.unwrap_or(Scan { row: 0, batch_no: committed });
                self.scan_on(scan)?;
            }
        }
        if self.standing.is_whole && self.scan.is_none() {
            pending.indexed(self.id, self.standing.batch_no);
        }
        Ok((true, stored))
    }

    /// Adds what groups changed, or as much of it as one transaction takes. Should it fail, they are
    /// asked for again.
    fn follow(&mut self, mut follow: Follow) -> Result<(), IndexError> {
        let mut chunk = Chunk::new(&self.segment, &self.index);
        let mut is_over = true;
        while let Some(trace) = follow.traces.first().copied().filter(|_| is_over) {
            for row in rows_of(&self.segment, trace).map_err(IndexError::of_segment)? {
                is_over &= chunk.row(row, (usize::MAX, MAX_FOLLOWED_BYTES))?;
            }
            if is_over {
                follow.traces.pop_first();
            }
        }
        let batch_no = if is_over { follow.batch_no } else { self.standing.batch_no };
        self.add(chunk.into_parts(), Standing { batch_no, ..self.standing })?;
        self.follow = (!is_over).then_some(follow);
        Ok(())
    }

    /// Goes on with a look at every trace.
    fn scan_on(&mut self, mut scan: Scan) -> Result<(), IndexError> {
        let mut chunk = Chunk::new(&self.segment, &self.index);
        let mut is_over = true;
        for row in rows_after(&self.segment, scan.row).map_err(IndexError::of_segment)? {
            let room = MAX_CHUNK_SPANS.saturating_sub(chunk.gatherer.gathered.spans as usize);
            let space = row.space;
            if room == 0 || !chunk.row(row, (room, MAX_CHUNK_BYTES))? {
                is_over = false;
                break;
            }
            scan.row = space;
        }
        is_over &= rows_after(&self.segment, scan.row).map_err(IndexError::of_segment)?.is_empty();
        let standing = match is_over {
            true => Standing { batch_no: scan.batch_no, is_whole: true, ..self.standing },
            false => self.standing,
        };
        let parts = chunk.into_parts();
        self.add(parts, standing)?;
        self.scan = (!is_over).then_some(scan);
        Ok(())
    }

    /// Writes a chunk. The segment is let go of first: this takes longer than reading.
    fn add(&mut self, (gathered, rows): Parts, standing: Standing) -> Result<(), IndexError> {
        let first: Option<(i64, Vec<u8>)> = match rows.first() {
            Some(row) => self
                .segment
                .prepare_cached("SELECT trace_no, trace_id FROM traces WHERE trace_no = ?1")
                .and_then(|mut find| {
                    find.query_row([row.space], |row| Ok((row.get(0)?, row.get(1)?))).optional()
                })
                .map_err(IndexError::of_segment)?,
            None => None,
        };
        self.segment.execute_batch("ROLLBACK").map_err(IndexError::of_segment)?;
        let standing = Standing { spans: standing.spans + gathered.spans, ..standing };
        self.index.execute_batch("BEGIN IMMEDIATE")?;
        gathered.add_to(&self.index)?;
        {
            let mut mark =
                self.index.prepare_cached("INSERT OR REPLACE INTO marks VALUES (?1, ?2)")?;
            let mut carry =
                self.index.prepare_cached("INSERT OR IGNORE INTO carried VALUES (?1)")?;
            for row in &rows {
                if let Some(next) = row.next {
                    mark.execute([row.space, next])?;
                }
                if row.is_carried {
                    carry.execute([row.trace_no])?;
                }
            }
        }
        if let Some((trace_no, trace_id)) = first {
            self.index
                .prepare_cached(
                    "UPDATE state SET trace_no = ?1, trace_id = ?2 WHERE trace_no IS NULL",
                )?
                .execute(params![trace_no, trace_id])?;
        }
        standing.write(&self.index)?;
        self.index.execute_batch("COMMIT")?;
        self.standing = standing;
        Ok(())
    }
}

/// A row of `traces`: a trace, or what widens its key space.
#[derive(Debug, Clone, Copy)]
struct Row {
    space: i64,
    /// The row of the trace.
    trace_no: i64,
    is_carried: bool,
    /// The key from which on its spans are to be read, once some were.
    next: Option<i64>,
}

type Parts = (Gathered, Vec<Row>);

/// What one transaction will add.
struct Chunk<'c> {
    index: &'c Connection,
    gatherer: Gatherer<'c>,
    rows: Vec<Row>,
}

impl<'c> Chunk<'c> {
    fn new(segment: &'c Connection, index: &'c Connection) -> Self {
        Self { index, gatherer: Gatherer::new(segment, index), rows: Vec::new() }
    }

    /// Reads the new spans of a row, at most so many and, but for the last, so many bytes of all rows;
    /// answers whether that was all.
    fn row(&mut self, mut row: Row, most: (usize, usize)) -> Result<bool, IndexError> {
        let mark: Option<i64> = self
            .index
            .prepare_cached("SELECT next FROM marks WHERE space = ?1")?
            .query_row([row.space], |row| row.get(0))
            .optional()?;
        let from = mark.unwrap_or(0);
        let (next, is_all) = self.gatherer.spans(row.space, row.trace_no, from, most)?;
        row.next = (mark != Some(next)).then_some(next);
        if row.next.is_some() || row.is_carried {
            self.rows.push(row);
        }
        Ok(is_all)
    }

    fn into_parts(self) -> Parts {
        (self.gatherer.gathered, self.rows)
    }
}

fn read_row(row: &rusqlite::Row<'_>) -> Result<Row, rusqlite::Error> {
    let space = row.get(0)?;
    let trace_no = row.get::<_, Option<i64>>(1)?.unwrap_or(space);
    Ok(Row { space, trace_no, is_carried: row.get(2)?, next: None })
}

/// All rows of a trace; none if it is not there.
fn rows_of(segment: &Connection, trace_no: i64) -> Result<Vec<Row>, rusqlite::Error> {
    let sql = "SELECT trace_no, continues, carried FROM traces
               WHERE trace_id = (SELECT trace_id FROM traces WHERE trace_no = ?1)";
    segment.prepare_cached(sql)?.query_map([trace_no], read_row)?.collect()
}

/// The rows behind one, so many at most.
fn rows_after(segment: &Connection, row: i64) -> Result<Vec<Row>, rusqlite::Error> {
    let sql = "SELECT trace_no, continues, carried FROM traces WHERE trace_no > ?1
               ORDER BY trace_no LIMIT ?2";
    segment.prepare_cached(sql)?.query_map([row, ROWS_AT_ONCE], read_row)?.collect()
}
