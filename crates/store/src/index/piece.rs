//! One piece of work on an index: what one transaction adds to it.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::error::IndexError;
use super::fed::Grown;
use super::file::Standing;
use super::gather::Gathered;
use super::pending::{Next, Pending};
use super::shelf::{Remembered, Shelf};
use super::stored::SegmentSpans;
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
    remembered: Remembered,
    /// What was handed over and is not written yet.
    pub(super) grown: Option<Grown>,
    /// The last group of which spans may have been read from the segment. A group up to it that is handed
    /// over might be counted twice.
    read_until: Option<u64>,
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
        let (scan, follow, grown, read_until) = Default::default();
        let remembered = Remembered::default();
        Ok(Self { id, segment, index, standing, remembered, grown, read_until, scan, follow })
    }

    /// Adds what one transaction takes; answers whether there may be more, and how many spans the
    /// segment has. What was handed over is gathered until it is much, or `is_due`.
    pub(super) fn piece(
        &mut self,
        pending: &Pending,
        is_due: bool,
    ) -> Result<(bool, u64), IndexError> {
        let (committed, stored) = state_of(&self.segment)?;
        self.begin_empty(pending);
        let read_until = *self.read_until.get_or_insert(committed);
        if self.scan.is_none() && self.follow.is_none() && self.standing.is_whole {
            let must_read = self.grow(pending, read_until)?;
            if self.grown.as_ref().is_some_and(|grown| is_due || must_read || grown.is_large()) {
                self.write_grown()?;
                pending.indexed(self.id, self.standing.batch_no);
                return Ok((true, stored));
            }
            // Without that, what is not there is about to be handed over.
            if !must_read || self.standing.batch_no >= committed {
                pending.indexed(self.id, self.standing.batch_no);
                return Ok((false, stored));
            }
        }
        self.segment.execute_batch("BEGIN").map_err(IndexError::of_segment)?;
        let (committed, stored) = state_of(&self.segment)?;
        self.read_until = Some(committed);
        pending.drop_fed(self.id, committed);
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

    /// An index of a segment that had nothing when the writer began with it is whole from the start.
    fn begin_empty(&mut self, pending: &Pending) {
        if self.standing == Standing::default()
            && self.scan.is_none()
            && let Some(batch_no) = pending.take_empty_until(self.id)
        {
            self.standing = Standing { batch_no, is_whole: true, ..Standing::default() };
            self.read_until = Some(batch_no);
        }
    }

    /// Gathers what was handed over; answers whether the group behind it must be read from the segment.
    fn grow(&mut self, pending: &Pending, read_until: u64) -> Result<bool, IndexError> {
        loop {
            if self.grown.as_ref().is_some_and(Grown::is_large) {
                return Ok(false);
            }
            let reached =
                self.grown.as_ref().map_or(self.standing.batch_no, |grown| grown.batch_no);
            if reached < read_until {
                // Spans of these groups may be there already, which their marks tell.
                return Ok(true);
            }
            match pending.next(self.id, reached) {
                Next::Fed(batch_no, told, fed) => {
                    let grown = self.grown.get_or_insert_with(|| Grown::new(reached, told));
                    let (index, remembered) = (&self.index, &mut self.remembered);
                    grown.add(&mut Shelf { index, remembered }, batch_no, &fed)?;
                }
                Next::Away => return Ok(true),
                Next::Nothing => return Ok(false),
            }
        }
    }

    /// Writes what was handed over.
    fn write_grown(&mut self) -> Result<(), IndexError> {
        let Some(grown) = self.grown.take() else { return Ok(()) };
        let Grown { gathered, batch_no, marks, carried, first, .. } = grown;
        let first = first.map(|(trace_no, id)| (trace_no, id.as_bytes().to_vec()));
        let standing = Standing { batch_no, ..self.standing };
        let rows = Rows { marks: marks.into_iter().collect(), carried: Vec::from_iter(carried) };
        self.write(gathered, (rows, first), standing)
    }

    /// Adds what groups changed, or as much of it as one transaction takes. Should it fail, they are
    /// asked for again.
    fn follow(&mut self, mut follow: Follow) -> Result<(), IndexError> {
        let (index, remembered) = (&self.index, &mut self.remembered);
        let mut chunk = Chunk::new(&self.segment, Shelf { index, remembered });
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
        let parts = chunk.into_parts();
        self.add(parts, Standing { batch_no, ..self.standing })?;
        self.follow = (!is_over).then_some(follow);
        Ok(())
    }

    /// Goes on with a look at every trace.
    fn scan_on(&mut self, mut scan: Scan) -> Result<(), IndexError> {
        let (index, remembered) = (&self.index, &mut self.remembered);
        let mut chunk = Chunk::new(&self.segment, Shelf { index, remembered });
        let mut is_over = true;
        for row in rows_after(&self.segment, scan.row).map_err(IndexError::of_segment)? {
            let room = MAX_CHUNK_SPANS.saturating_sub(chunk.spans.gathered.spans as usize);
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
        let marks = rows.iter().filter_map(|row| Some((row.space, row.next?))).collect();
        let carried = rows.iter().filter(|row| row.is_carried).map(|row| row.trace_no).collect();
        self.write(gathered, (Rows { marks, carried }, first), standing)
    }

    /// Writes what was gathered, in one transaction.
    fn write(
        &mut self,
        gathered: Gathered,
        (rows, first): (Rows, Option<(i64, Vec<u8>)>),
        standing: Standing,
    ) -> Result<(), IndexError> {
        let standing = Standing { spans: standing.spans + gathered.spans, ..standing };
        let (index, remembered) = (&self.index, &mut self.remembered);
        let written = transact(&mut Shelf { index, remembered }, gathered, (rows, first), standing);
        if let Err(error) = written {
            // It counts rows that are not there.
            self.remembered = Remembered::default();
            return Err(error.into());
        }
        self.standing = standing;
        Ok(())
    }
}

fn transact(
    shelf: &mut Shelf<'_>,
    gathered: Gathered,
    (rows, first): (Rows, Option<(i64, Vec<u8>)>),
    standing: Standing,
) -> Result<(), rusqlite::Error> {
    let index = shelf.index;
    index.execute_batch("BEGIN IMMEDIATE")?;
    shelf.add(gathered)?;
    let mut mark = index.prepare_cached("INSERT OR REPLACE INTO marks VALUES (?1, ?2)")?;
    for (space, next) in rows.marks {
        mark.execute([space, next])?;
    }
    let mut carry = index.prepare_cached("INSERT OR IGNORE INTO carried VALUES (?1)")?;
    for trace_no in rows.carried {
        carry.execute([trace_no])?;
    }
    if let Some((trace_no, trace_id)) = first {
        index
            .prepare_cached("UPDATE state SET trace_no = ?1, trace_id = ?2 WHERE trace_no IS NULL")?
            .execute(params![trace_no, trace_id])?;
    }
    standing.write(index)?;
    index.execute_batch("COMMIT")
}

/// The last group that is committed to a segment, and how many spans it has.
fn state_of(segment: &Connection) -> Result<(u64, u64), IndexError> {
    let (batch_no, spans): (i64, i64) = segment
        .prepare_cached("SELECT batch_no, spans FROM state")
        .and_then(|mut state| state.query_row([], |row| Ok((row.get(0)?, row.get(1)?))))
        .map_err(IndexError::of_segment)?;
    Ok((batch_no as u64, spans as u64))
}

/// Rows that say how far spans are read.
#[derive(Debug)]
struct Rows {
    /// Rows of `traces`, with the key behind the last span that is read.
    marks: Vec<(i64, i64)>,
    /// Traces that earlier segments know too.
    carried: Vec<i64>,
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
    shelf: Shelf<'c>,
    spans: SegmentSpans<'c>,
    rows: Vec<Row>,
}

impl<'c> Chunk<'c> {
    fn new(segment: &'c Connection, shelf: Shelf<'c>) -> Self {
        Self { shelf, spans: SegmentSpans::new(segment), rows: Vec::new() }
    }

    /// Reads the new spans of a row, at most so many and, but for the last, so many bytes of all rows;
    /// answers whether that was all.
    fn row(&mut self, mut row: Row, most: (usize, usize)) -> Result<bool, IndexError> {
        let mark: Option<i64> = self
            .shelf
            .index
            .prepare_cached("SELECT next FROM marks WHERE space = ?1")?
            .query_row([row.space], |row| row.get(0))
            .optional()?;
        let (from, of) = (mark.unwrap_or(0), (row.space, row.trace_no));
        let (next, is_all) = self.spans.spans(&mut self.shelf, of, from, most)?;
        row.next = (mark != Some(next)).then_some(next);
        if row.next.is_some() || row.is_carried {
            self.rows.push(row);
        }
        Ok(is_all)
    }

    fn into_parts(self) -> Parts {
        (self.spans.gathered, self.rows)
    }
}

fn read_row(row: &rusqlite::Row<'_>) -> Result<Row, rusqlite::Error> {
    let space = row.get(0)?;
    let trace_no = row.get::<_, Option<i64>>(1)?.unwrap_or(space);
    Ok(Row { space, trace_no, is_carried: row.get(2)?, next: None })
}

/// All rows of a trace; none if it is not there.
fn rows_of(segment: &Connection, trace_no: i64) -> Result<Vec<Row>, rusqlite::Error> {
    let sql = "SELECT trace_no, continues, carried FROM traces WHERE trace_no = ?1
               UNION ALL SELECT trace_no, continues, carried FROM traces WHERE continues = ?1";
    segment.prepare_cached(sql)?.query_map([trace_no], read_row)?.collect()
}

/// The rows behind one, so many at most.
fn rows_after(segment: &Connection, row: i64) -> Result<Vec<Row>, rusqlite::Error> {
    let sql = "SELECT trace_no, continues, carried FROM traces WHERE trace_no > ?1
               ORDER BY trace_no LIMIT ?2";
    segment.prepare_cached(sql)?.query_map([row, ROWS_AT_ONCE], read_row)?.collect()
}
