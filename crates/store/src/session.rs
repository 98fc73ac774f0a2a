//! One query's view of the files: connections on loan, and a deadline.

use std::cell::{Cell, OnceCell};
use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension as _};
use throughline_trace::TraceId;

use crate::error::QueryError;
use crate::facet::ALL_TRACES;
use crate::id_filter::IdFilter;
use crate::index::IndexPool;
use crate::layout::{Layout, SegmentFile, SegmentId};
use crate::reader::MAX_QUERY_MILLIS;
use crate::rollups;
use crate::sampled;
use crate::schema::{CONTROL, ROLLUPS, SEGMENT, Schema, to_nanos};

/// Connections that are kept open between queries; each holds a page cache.
const MAX_IDLE_CONNECTIONS: usize = 8;

/// Segments that one query keeps at hand.
const MAX_HELD_LEASES: usize = 8;

/// Times that a query is asked while segments are retired under its hands.
const MAX_TRIES: u32 = 4;

/// Steps of SQLite's machine between two looks at the clock.
const STEPS_PER_LOOK: i32 = 2_000;

/// The files of a data directory, shared by all queries.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) layout: Layout,
    idle: Mutex<Vec<(PathBuf, Connection)>>,
    /// What does not change any more of segments that are closed, by file: a skeleton is another.
    digests: Mutex<HashMap<PathBuf, Arc<Digest>>>,
    /// Segments that were found damaged, and how: they are passed over.
    damaged: Mutex<BTreeMap<SegmentId, String>>,
    /// What leads searches through the segments.
    pub(crate) index: IndexPool,
}

/// What a segment holds, in short.
#[derive(Debug, Default)]
pub(crate) struct Digest {
    pub(crate) traces: u64,
    pub(crate) spans: u64,
    pub(crate) logs: u64,
    pub(crate) points: u64,
    /// The last group that was written.
    pub(crate) batch_no: u64,
    /// Earliest and latest start of a trace, nanoseconds since the Unix epoch.
    pub(crate) starts: Option<(u64, u64)>,
    /// Earliest and latest time of a log record, nanoseconds since the Unix epoch.
    pub(crate) logs_at: Option<(u64, u64)>,
    /// The last group of which the rollups must have what it adds.
    pub(crate) counted_until: u64,
    /// Whether sampling touched any of its traces.
    pub(crate) is_sampled: bool,
    /// Which traces may be there; none for the open segment.
    pub(crate) filter: Option<IdFilter>,
}

impl Digest {
    /// Whether the segment may know a trace; `false` is certain.
    pub(crate) fn may_know(&self, id: TraceId) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.may_contain(id))
    }
}

impl Files {
    pub(crate) fn new(layout: Layout) -> Self {
        let (idle, digests, damaged, index) = Default::default();
        Self { layout, idle, digests, damaged, index }
    }

    /// Passes over a segment from now on; answers whether that is news.
    pub(crate) fn mark_damaged(&self, id: SegmentId, detail: &str) -> bool {
        let is_new = lock(&self.damaged).insert(id, detail.to_owned()).is_none();
        if is_new {
            let segment = self.layout.file_of(id);
            tracing::error!(
                segment = %segment.display(), detail,
                "a segment is damaged and is passed over; restore it from a backup"
            );
        }
        is_new
    }

    /// Passes over the segment of a file that a query found damaged; answers whether the rest can
    /// still be answered from.
    pub(crate) fn mark_damaged_file(&self, path: &Path, detail: &str) -> bool {
        let name = path.file_name().and_then(|name| name.to_str());
        let id = name.and_then(SegmentId::of_file_name);
        id.is_some_and(|id| self.mark_damaged(id, detail))
    }

    /// The segments that are passed over.
    pub(crate) fn damaged(&self) -> BTreeMap<SegmentId, String> {
        lock(&self.damaged).clone()
    }

    /// Lets go of the file of a segment that is no more, so that its room is given back.
    pub(crate) fn forget(&self, id: SegmentId) {
        for path in [self.layout.segment(id), self.layout.packed(id), self.layout.skeleton(id)] {
            lock(&self.idle).retain(|(of, _)| *of != path);
            lock(&self.digests).remove(&path);
        }
        self.index.forget();
    }
}

/// Asks a query. When it meets a damaged segment, or one that is retired under its hands, it is
/// asked again without that one, within the same time. It ends early once `abandoned` is set.
pub(crate) fn ask<T>(
    files: &Arc<Files>,
    abandoned: &Arc<AtomicBool>,
    query: &impl Fn(&Session) -> Result<T, QueryError>,
) -> Result<T, QueryError> {
    let deadline = Instant::now() + Duration::from_millis(MAX_QUERY_MILLIS);
    let mut tries = 0;
    loop {
        let session = Session::until(Arc::clone(files), deadline, Arc::clone(abandoned));
        let error = match query(&session) {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        tries += 1;
        let is_another = match &error {
            QueryError::Damaged { path, detail } => files.mark_damaged_file(path, detail),
            QueryError::Storage(_) => session.is_outdated() && tries < MAX_TRIES,
            _ => false,
        };
        if !is_another {
            return Err(error);
        }
    }
}

/// One query.
#[derive(Debug)]
pub(crate) struct Session {
    files: Arc<Files>,
    deadline: Instant,
    /// Set once nobody waits for the answer any more.
    abandoned: Arc<AtomicBool>,
    /// Rows that lists looked at: what a page costs.
    rows: Cell<u64>,
    /// The files as this query saw them first.
    seen: OnceCell<Vec<PathBuf>>,
}

impl Session {
    fn until(files: Arc<Files>, deadline: Instant, abandoned: Arc<AtomicBool>) -> Self {
        Self { files, deadline, abandoned, rows: Cell::new(0), seen: OnceCell::new() }
    }

    /// Whether a file that this query saw is gone.
    fn is_outdated(&self) -> bool {
        self.seen.get().is_some_and(|seen| seen.iter().any(|path| !path.exists()))
    }

    /// For a part of something that has to end at `deadline`.
    pub(crate) fn begin_before(
        files: Arc<Files>,
        abandoned: Arc<AtomicBool>,
        deadline: Instant,
    ) -> Self {
        let longest = Instant::now() + Duration::from_millis(MAX_QUERY_MILLIS);
        Self::until(files, longest.min(deadline), abandoned)
    }

    #[cfg(test)]
    pub(crate) fn begin(files: Arc<Files>) -> Self {
        let deadline = Instant::now() + Duration::from_millis(MAX_QUERY_MILLIS);
        Self::until(files, deadline, Arc::default())
    }

    /// A query whose time is over.
    #[cfg(test)]
    pub(crate) fn begin_late(files: Arc<Files>) -> Self {
        Self { deadline: Instant::now(), ..Self::begin(files) }
    }

    /// What leads searches through the segments.
    pub(crate) fn index(&self) -> &IndexPool {
        &self.files.index
    }

    /// When it ends, and what ends it sooner.
    pub(crate) fn ends(&self) -> (Instant, &Arc<AtomicBool>) {
        (self.deadline, &self.abandoned)
    }

    /// Whether nobody waits for the answer any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// Fails when the query has taken too long or nobody waits for it; loops outside SQLite ask it.
    pub(crate) fn check_time(&self) -> Result<(), QueryError> {
        if Instant::now() > self.deadline || self.is_abandoned() {
            return Err(QueryError::Timeout { limit_ms: MAX_QUERY_MILLIS });
        }
        Ok(())
    }

    /// The segments that are passed over, and why.
    pub(crate) fn damaged(&self) -> BTreeMap<SegmentId, String> {
        self.files.damaged()
    }

    /// Counts a row that a list looked at.
    pub(crate) fn count_row(&self) {
        self.rows.set(self.rows.get() + 1);
    }

    #[cfg(test)]
    pub(crate) fn rows(&self) -> u64 {
        self.rows.get()
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.files.layout
    }

    /// The control database, in one read transaction.
    pub(crate) fn control(&self) -> Result<Lease, QueryError> {
        let path = self.files.layout.control();
        if !path.try_exists().map_err(|error| unreadable(&path, &error))? {
            return Err(QueryError::NoStore(self.files.layout.root().to_owned()));
        }
        self.lease(&CONTROL, path)
    }

    /// The segments, newest first, with what they hold. One that cannot be read is passed over
    /// with a warning: it must not hide the others.
    pub(crate) fn segments(&self) -> Result<Vec<Segment>, QueryError> {
        let root = self.files.layout.root();
        let layout = &self.files.layout;
        let files = layout.files().map_err(|error| match error.kind() {
            ErrorKind::NotFound => QueryError::NoStore(root.to_owned()),
            _ => unreadable(&layout.segments(), &error),
        })?;
        self.seen.get_or_init(|| files.iter().map(|file| file.path.clone()).collect());
        let newest = files.first().map(|file| file.id);
        let damaged = self.files.damaged();
        let mut segments = Vec::with_capacity(files.len());
        for file in files.into_iter().filter(|file| !damaged.contains_key(&file.id)) {
            let SegmentFile { id, path, is_skeleton } = file;
            match self.digest(&path, Some(id) == newest) {
                Ok(digest) => segments.push(Segment { id, is_skeleton, digest }),
                // Its writer is about to make its tables.
                Err(QueryError::NoStore(_)) if Some(id) == newest => {}
                // It was retired a moment ago, and nothing is left of it.
                Err(_) if !path.exists() && !layout.file_of(id).exists() => {}
                Err(QueryError::NoStore(path)) => {
                    let path = path.display();
                    tracing::error!(segment = %path, "a segment that should be whole has no tables");
                    return Err(QueryError::Storage(format!(
                        "{path}: expected a segment, got a file without tables; start `throughline serve` once, or restore it from a backup"
                    )));
                }
                Err(QueryError::Damaged { detail, .. }) => {
                    self.files.mark_damaged(id, &detail);
                }
                Err(error @ QueryError::NewerSchema { .. }) => {
                    tracing::warn!(%error, "a segment is passed over");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(segments)
    }

    /// A segment, in one read transaction.
    pub(crate) fn segment(&self, id: SegmentId) -> Result<Lease, QueryError> {
        self.lease(&SEGMENT, self.files.layout.file_of(id))
    }

    /// The rollups, in one read transaction; `None` when nothing has made them yet.
    pub(crate) fn rollups(&self) -> Result<Option<Lease>, QueryError> {
        let path = self.files.layout.rollups();
        if !path.try_exists().map_err(|error| unreadable(&path, &error))? {
            return Ok(None);
        }
        match self.lease(&ROLLUPS, path) {
            Err(QueryError::NoStore(_)) => Ok(None),
            other => other.map(Some),
        }
    }

    /// What a file holds.
    fn digest(&self, path: &Path, is_open: bool) -> Result<Arc<Digest>, QueryError> {
        if !is_open && let Some(digest) = lock(&self.files.digests).get(path) {
            return Ok(Arc::clone(digest));
        }
        let lease = self.lease(&SEGMENT, path.to_owned())?;
        let digest = Arc::new(read_digest(&lease, is_open).map_err(|error| lease.fails(&error))?);
        if !is_open {
            lock(&self.files.digests).insert(path.to_owned(), Arc::clone(&digest));
        }
        Ok(digest)
    }

    fn lease(&self, schema: &Schema, path: PathBuf) -> Result<Lease, QueryError> {
        let pooled = {
            let mut idle = lock(&self.files.idle);
            idle.iter().position(|(of, _)| *of == path).map(|at| idle.swap_remove(at).1)
        };
        let mut connection = match pooled {
            Some(connection) => connection,
            None => schema.open_reader(&path).map_err(|error| error.on_query(&path))?,
        };
        let (deadline, abandoned) = (self.deadline, Arc::clone(&self.abandoned));
        let fails = |error: rusqlite::Error| QueryError::of(&path, &error);
        connection
            .progress_handler(
                STEPS_PER_LOOK,
                Some(move || Instant::now() > deadline || abandoned.load(Ordering::Relaxed)),
            )
            .map_err(fails)?;
        connection.execute_batch("BEGIN").map_err(fails)?;
        Ok(Lease { files: Arc::clone(&self.files), path, connection: Some(connection) })
    }
}

/// A segment as a query sees it.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) id: SegmentId,
    /// Whether it was retired, and only skeletons of its traces are left.
    pub(crate) is_skeleton: bool,
    pub(crate) digest: Arc<Digest>,
}

/// A connection on loan; its read transaction ends when it is given back.
#[derive(Debug)]
pub(crate) struct Lease {
    files: Arc<Files>,
    path: PathBuf,
    connection: Option<Connection>,
}

impl Lease {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The error of whoever asks.
    pub(crate) fn fails(&self, error: &rusqlite::Error) -> QueryError {
        QueryError::of(&self.path, error)
    }
}

impl Deref for Lease {
    type Target = Connection;

    #[expect(
        clippy::expect_used,
        reason = "the connection is taken only when the lease is dropped"
    )]
    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("the lease has its connection until it is dropped")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        let is_clean = connection.progress_handler(0, None::<fn() -> bool>).is_ok()
            && (connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok());
        // A file that was retired meanwhile gives its room back.
        if !is_clean || !self.path.exists() {
            return;
        }
        let mut idle = lock(&self.files.idle);
        idle.push((std::mem::take(&mut self.path), connection));
        if idle.len() > MAX_IDLE_CONNECTIONS {
            idle.remove(0);
        }
    }
}

/// Segments that one query looks into again and again. The first that it asks for, the newest,
/// stays in one read transaction: nothing moves there between two looks.
#[derive(Debug)]
pub(crate) struct Held<'s> {
    session: &'s Session,
    leases: Vec<(SegmentId, Rc<Lease>)>,
}

impl<'s> Held<'s> {
    pub(crate) fn new(session: &'s Session) -> Self {
        Self { session, leases: Vec::new() }
    }

    /// A segment.
    pub(crate) fn lease(&mut self, id: SegmentId) -> Result<Rc<Lease>, QueryError> {
        if let Some((_, lease)) = self.leases.iter().find(|(of, _)| *of == id) {
            return Ok(Rc::clone(lease));
        }
        if self.leases.len() >= MAX_HELD_LEASES {
            self.leases.remove(1);
        }
        let lease = Rc::new(self.session.segment(id)?);
        self.leases.push((id, Rc::clone(&lease)));
        Ok(lease)
    }
}

fn read_digest(connection: &Connection, is_open: bool) -> Result<Digest, rusqlite::Error> {
    let mut digest = connection.query_row(
        "SELECT traces, spans, logs, points, batch_no FROM state",
        [],
        |row| {
            let count = |at| row.get::<_, i64>(at).map(|count| count as u64);
            Ok(Digest {
                traces: count(0)?,
                spans: count(1)?,
                logs: count(2)?,
                points: count(3)?,
                batch_no: count(4)?,
                ..Digest::default()
            })
        },
    )?;
    let end = |function: &str| {
        let sql = format!("SELECT {function}(start) FROM postings WHERE facet = ?1");
        connection.prepare_cached(&sql)?.query_row([ALL_TRACES], |row| row.get::<_, Option<i64>>(0))
    };
    digest.starts = end("min")?.zip(end("max")?).map(|(min, max)| (to_nanos(min), to_nanos(max)));
    let end = |function: &str| {
        let sql = format!("SELECT {function}(time) FROM logs");
        connection.prepare_cached(&sql)?.query_row([], |row| row.get::<_, Option<i64>>(0))
    };
    digest.logs_at = end("min")?.zip(end("max")?).map(|(min, max)| (to_nanos(min), to_nanos(max)));
    digest.counted_until = rollups::counted_until(connection)?;
    digest.is_sampled = sampled::is_any(connection)?;
    if !is_open {
        let bits: Option<Vec<u8>> = connection
            .query_row("SELECT bits FROM trace_filter", [], |row| row.get(0))
            .optional()?;
        digest.filter = bits.and_then(IdFilter::from_bytes);
    }
    Ok(digest)
}

/// A file or directory that the system does not let us look at.
pub(crate) fn unreadable(path: &Path, error: &std::io::Error) -> QueryError {
    QueryError::Storage(format!("{}: {error}", path.display()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
