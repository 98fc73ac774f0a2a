//! The thread that brings the indexes up to date, the newest first.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::file::{self, Standing};
use super::gather::{Gathered, Gatherer};
use super::metrics::IndexMetrics;
use super::pending::Pending;
use crate::layout::SegmentId;
use crate::schema::{self, SEGMENT, SchemaError};
use crate::session::Files;
use crate::trace_rows::RowError;

/// Spans that one transaction adds; those of one group that is written are not divided.
const MAX_CHUNK_SPANS: usize = 4_096;

/// Bytes of bodies and texts after which a transaction takes no further trace.
const MAX_CHUNK_BYTES: usize = 4 * 1024 * 1024;

/// Traces after which a transaction takes no further group.
const MAX_CHUNK_TRACES: usize = 1_024;

/// Rows of `traces` that are looked at in one go.
const ROWS_AT_ONCE: i64 = 1_024;

/// How long the store waits at its end for what is not indexed yet.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// How often indexes are looked for whose segments are gone, and their bytes are counted.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// Page cache of the connection that spans are read by, KiB.
const CACHE_KIB: i64 = 2 * 1024;

/// The follower as the store has it; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct FollowerDoor {
    pending: Arc<Pending>,
}

impl FollowerDoor {
    /// Has everything indexed that is committed now, and comes back when that is done.
    pub(crate) fn index_now(&self) {
        self.pending.index_now();
    }
}

/// The follower; its thread ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Follower {
    pending: Arc<Pending>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    /// Starts the thread over segments of which `open` is written, up to now to group `batch_no`.
    pub(crate) fn start(
        files: Arc<Files>,
        open: SegmentId,
        batch_no: u64,
        interval: Duration,
        registry: &mut Registry,
    ) -> std::io::Result<Self> {
        let pending = Arc::new(Pending::default());
        pending.begin(open, batch_no);
        files.index.follow(Arc::clone(&pending));
        let mut work = Work {
            files,
            pending: Arc::clone(&pending),
            interval,
            metrics: IndexMetrics::register(registry),
            open: Vec::new(),
            settled: HashSet::new(),
            unreadable: HashSet::new(),
            unindexed: HashMap::new(),
            swept: None,
        };
        let thread =
            std::thread::Builder::new().name("store-index".to_owned()).spawn(move || work.run())?;
        Ok(Self { pending, thread: Some(thread) })
    }

    pub(crate) fn door(&self) -> FollowerDoor {
        FollowerDoor { pending: Arc::clone(&self.pending) }
    }

    /// A group is about to be committed that changed these traces.
    pub(crate) fn tell(&self, id: SegmentId, batch_no: u64, traces: &[i64]) {
        self.pending.tell(id, batch_no, traces);
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.pending.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What goes wrong while an index is kept.
#[derive(Debug, thiserror::Error)]
enum IndexError {
    /// The segment cannot be read.
    #[error("the segment: {0}")]
    Segment(RowError),
    #[error("the segment: {0}")]
    SegmentFile(SchemaError),
    /// The index cannot be read or written.
    #[error("the index: {0}")]
    Index(#[from] rusqlite::Error),
    #[error("the index: {0}")]
    IndexFile(SchemaError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl IndexError {
    fn of_segment(error: impl Into<RowError>) -> Self {
        Self::Segment(error.into())
    }

    /// Whether it is the index that must be made anew.
    fn is_damage_of_index(&self) -> bool {
        match self {
            Self::Index(error) | Self::IndexFile(SchemaError::Sqlite(error)) => {
                schema::is_damage(error)
            }
            _ => false,
        }
    }

    /// Whether it is the segment that will not be read another time either.
    fn is_damage_of_segment(&self) -> bool {
        match self {
            Self::Segment(RowError::Sqlite(error))
            | Self::SegmentFile(SchemaError::Sqlite(error)) => schema::is_damage(error),
            Self::Segment(RowError::Body(_)) | Self::SegmentFile(_) => true,
            _ => false,
        }
    }
}

/// A segment and its index.
#[derive(Debug)]
struct Open {
    id: SegmentId,
    segment: Connection,
    index: Connection,
    standing: Standing,
    scan: Option<Scan>,
}

/// A look at every trace of a segment.
#[derive(Debug, Clone, Copy)]
struct Scan {
    /// The last row of `traces` that was looked at.
    row: i64,
    /// The last group that was committed when it began.
    batch_no: u64,
}

/// What the thread owns.
#[derive(Debug)]
struct Work {
    files: Arc<Files>,
    pending: Arc<Pending>,
    interval: Duration,
    metrics: IndexMetrics,
    /// The newest, and one that is closed.
    open: Vec<Open>,
    /// Closed segments whose index has everything, or that cannot be read.
    settled: HashSet<SegmentId>,
    /// Segments that are damaged: they are walked.
    unreadable: HashSet<SegmentId>,
    /// Spans that an index does not have yet.
    unindexed: HashMap<SegmentId, u64>,
    swept: Option<Instant>,
}

impl Work {
    fn run(&mut self) {
        let mut pause = Duration::ZERO;
        loop {
            let (asked, is_end) = self.pending.wait(pause);
            if is_end {
                break;
            }
            let begin = Instant::now();
            let worked = self.round();
            self.tell_metrics();
            let is_more = match worked {
                Ok(is_more) => is_more,
                Err(error) => {
                    tracing::warn!(%error, "the search index could not be brought up to date; it will be tried again");
                    self.open.clear();
                    false
                }
            };
            if !is_more {
                self.pending.is_done(asked);
            }
            // Half of the time at most: a search without the index is slower, not wrong.
            pause = if is_more { begin.elapsed().min(self.interval) } else { self.interval };
        }
        let begin = Instant::now();
        while begin.elapsed() < CLOSE_PATIENCE && self.round().is_ok_and(|is_more| is_more) {}
        for open in self.open.drain(..) {
            // What is not moved now stays in the log, and is there all the same.
            if let Err(error) = crate::segment::checkpoint(&open.index, "TRUNCATE") {
                tracing::debug!(%error, "a search index could not be checkpointed at its end");
            }
        }
    }

    /// One piece of work, for the newest segment that has some; `true` when there may be more.
    fn round(&mut self) -> Result<bool, IndexError> {
        let segments: Vec<SegmentId> = {
            let files = self.files.layout.files()?;
            files.into_iter().filter(|file| !file.is_skeleton).map(|file| file.id).collect()
        };
        self.sweep(&segments)?;
        for id in self.files.index.take_damaged() {
            self.begin_anew(id)?;
        }
        let newest = segments.first().copied();
        for id in segments {
            if self.settled.contains(&id) || self.unreadable.contains(&id) {
                continue;
            }
            match self.piece(id) {
                Ok(true) => return Ok(true),
                Ok(false) if Some(id) != newest => self.settle(id),
                Ok(false) => {}
                Err(error) if error.is_damage_of_index() => {
                    tracing::warn!(segment = id.stem(), %error, "a search index is damaged and made anew");
                    self.begin_anew(id)?;
                    return Ok(true);
                }
                // Retention took it a moment ago.
                Err(_) if !self.files.layout.whole(id).exists() => self.settle(id),
                // Its writer is about to make its tables.
                Err(IndexError::SegmentFile(SchemaError::Unready)) if Some(id) == newest => {}
                Err(error) if error.is_damage_of_segment() => {
                    tracing::warn!(segment = id.stem(), %error, "a segment is not indexed");
                    self.open.retain(|open| open.id != id);
                    self.unreadable.insert(id);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// A closed segment needs no further look.
    fn settle(&mut self, id: SegmentId) {
        if let Some(at) = self.open.iter().position(|open| open.id == id) {
            let open = self.open.swap_remove(at);
            if let Err(error) = crate::segment::checkpoint(&open.index, "TRUNCATE") {
                tracing::debug!(%error, "a search index could not be checkpointed");
            }
        }
        self.settled.insert(id);
        self.unindexed.remove(&id);
        self.pending.forget(id);
    }

    /// Removes an index, so that it is made anew.
    fn begin_anew(&mut self, id: SegmentId) -> Result<(), IndexError> {
        self.open.retain(|open| open.id != id);
        self.settled.remove(&id);
        file::remove(&self.files.layout.index(id))?;
        self.files.index.forget();
        self.metrics.rebuilds.inc();
        Ok(())
    }

    /// Removes indexes whose segments are gone, and counts the bytes of the others.
    fn sweep(&mut self, segments: &[SegmentId]) -> Result<(), IndexError> {
        if self.swept.is_some_and(|swept| swept.elapsed() < SWEEP_EVERY) {
            return Ok(());
        }
        let mut bytes = 0;
        for (id, path) in self.files.layout.indexes()? {
            if !segments.contains(&id) && !self.files.layout.whole(id).exists() {
                self.open.retain(|open| open.id != id);
                file::remove(&path)?;
                self.files.index.forget();
                self.pending.forget(id);
            } else if let Ok(metadata) = path.metadata() {
                bytes += metadata.len();
            }
        }
        self.metrics.bytes.set(bytes as i64);
        self.swept = Some(Instant::now());
        Ok(())
    }

    fn tell_metrics(&self) {
        self.metrics.unindexed_spans.set(self.unindexed.values().sum::<u64>() as i64);
        self.metrics.lag_milliseconds.set(self.pending.lag().as_millis() as i64);
    }

    /// A piece of work on one segment; `false` when there was nothing to do.
    fn piece(&mut self, id: SegmentId) -> Result<bool, IndexError> {
        let at = match self.open.iter().position(|open| open.id == id) {
            Some(at) => at,
            None => {
                let opened = self.open(id)?;
                self.open.retain(|open| open.id > id);
                self.open.push(opened);
                self.open.len() - 1
            }
        };
        let open = &mut self.open[at];
        let before = open.standing.spans;
        let done = open.piece(&self.pending);
        // Whatever came of it, the segment's snapshot must not stay.
        if !open.segment.is_autocommit() {
            open.segment.execute_batch("ROLLBACK").map_err(IndexError::of_segment)?;
        }
        if !open.index.is_autocommit() {
            open.index.execute_batch("ROLLBACK")?;
        }
        let (is_more, stored) = done?;
        self.metrics.indexed_spans.inc_by(open.standing.spans.saturating_sub(before));
        self.unindexed.insert(id, stored.saturating_sub(open.standing.spans));
        Ok(is_more)
    }

    fn open(&mut self, id: SegmentId) -> Result<Open, IndexError> {
        let layout = &self.files.layout;
        let segment = SEGMENT.open_reader(&layout.whole(id)).map_err(IndexError::SegmentFile)?;
        segment.pragma_update(None, "cache_size", -CACHE_KIB).map_err(IndexError::of_segment)?;
        let path = layout.index(id);
        let (mut index, is_anew) = file::open(&path).map_err(IndexError::IndexFile)?;
        let mut rebuilt = is_anew;
        if !file::is_of(&index, &segment)? {
            tracing::info!(
                segment = id.stem(),
                "a search index is of another segment and is made anew"
            );
            drop(index);
            file::remove(&path)?;
            index = file::open(&path).map_err(IndexError::IndexFile)?.0;
            rebuilt = true;
        }
        if rebuilt {
            self.files.index.forget();
            self.metrics.rebuilds.inc();
        }
        let standing = Standing::read(&index)?;
        Ok(Open { id, segment, index, standing, scan: None })
    }
}

impl Open {
    /// Adds what one transaction takes; answers whether that was anything, and how many spans the
    /// segment has.
    fn piece(&mut self, pending: &Pending) -> Result<(bool, u64), IndexError> {
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
        let told = match self.scan {
            None if self.standing.is_whole => {
                pending.after(self.id, self.standing.batch_no, committed, MAX_CHUNK_TRACES)
            }
            _ => None,
        };
        match told {
            Some((last, traces)) => self.follow(last, traces.into_iter())?,
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

    /// Adds what groups up to `last` changed.
    fn follow(&mut self, last: u64, traces: impl Iterator<Item = i64>) -> Result<(), IndexError> {
        let mut chunk = Chunk::new(&self.segment, &self.index);
        for trace in traces {
            for row in rows_of(&self.segment, trace).map_err(IndexError::of_segment)? {
                chunk.row(row, usize::MAX)?;
            }
        }
        let standing = Standing { batch_no: last, ..self.standing };
        self.add(chunk.into_parts(), standing)
    }

    /// Goes on with a look at every trace.
    fn scan_on(&mut self, mut scan: Scan) -> Result<(), IndexError> {
        let mut chunk = Chunk::new(&self.segment, &self.index);
        let mut is_over = true;
        for row in rows_after(&self.segment, scan.row).map_err(IndexError::of_segment)? {
            let room = MAX_CHUNK_SPANS.saturating_sub(chunk.gatherer.gathered.spans as usize);
            if room == 0 || chunk.gatherer.gathered.bytes > MAX_CHUNK_BYTES {
                is_over = false;
                break;
            }
            let space = row.space;
            if !chunk.row(row, room)? {
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

    /// Reads the new spans of a row, at most so many; answers whether that was all.
    fn row(&mut self, mut row: Row, most: usize) -> Result<bool, IndexError> {
        let mark: Option<i64> = self
            .index
            .prepare_cached("SELECT next FROM marks WHERE space = ?1")?
            .query_row([row.space], |row| row.get(0))
            .optional()?;
        let from = mark.unwrap_or(0);
        let read = self.gatherer.spans(row.space, row.trace_no, from, most);
        let (next, is_all) = read.map_err(IndexError::Segment)?;
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
