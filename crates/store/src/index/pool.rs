//! Connections to indexes, kept open between searches.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use rusqlite::Connection;

use super::file::INDEX;
use super::pending::Pending;
use crate::layout::SegmentId;
use crate::schema::SchemaError;

/// Connections that are kept open: a search for what is rare asks the index of every segment.
const MAX_IDLE_INDEXES: usize = 64;

/// Page cache of a reader of an index, KiB; it grows only as it is used.
const CACHE_KIB: i64 = 1_024;

/// Steps of SQLite's machine between two looks at the clock.
const STEPS_PER_LOOK: i32 = 2_000;

/// The indexes of a data directory, as its readers share them.
#[derive(Debug, Default)]
pub(crate) struct IndexPool {
    idle: Mutex<Vec<(SegmentId, u64, Connection)>>,
    /// Rises whenever an index is made anew or goes: connections from before are not used again.
    epoch: AtomicU64,
    /// Indexes that are to be made anew.
    damaged: Mutex<BTreeSet<SegmentId>>,
    /// What waits, where this process writes.
    pending: OnceLock<Arc<Pending>>,
}

impl IndexPool {
    /// Says what waits; it is asked only once, when a store is opened.
    pub(crate) fn follow(&self, pending: Arc<Pending>) {
        let _ = self.pending.set(pending);
    }

    pub(super) fn pending(&self) -> Option<&Pending> {
        self.pending.get().map(Arc::as_ref)
    }

    /// An index was made anew, or is gone.
    pub(crate) fn forget(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        lock(&self.idle).clear();
    }

    /// The index of a segment is of no use to a search, or knows what is gone; it is made anew.
    pub(crate) fn mark_damaged(&self, id: SegmentId) {
        lock(&self.damaged).insert(id);
    }

    pub(super) fn is_damaged(&self, id: SegmentId) -> bool {
        lock(&self.damaged).contains(&id)
    }

    /// Takes the note that an index is damaged.
    pub(super) fn take_damaged(&self) -> BTreeSet<SegmentId> {
        std::mem::take(&mut lock(&self.damaged))
    }

    /// The index of a segment, in one read transaction; `None` when there is none.
    pub(super) fn lease(
        &self,
        id: SegmentId,
        path: &Path,
        until: Instant,
        abandoned: &Arc<AtomicBool>,
    ) -> Result<Option<IndexLease<'_>>, SchemaError> {
        let epoch = self.epoch.load(Ordering::SeqCst);
        let pooled = {
            let mut idle = lock(&self.idle);
            let at = idle.iter().position(|(of, from, _)| *of == id && *from == epoch);
            at.map(|at| idle.swap_remove(at).2)
        };
        let mut connection = match pooled {
            Some(connection) => connection,
            None if !path.exists() => return Ok(None),
            None => match INDEX.open_reader(path) {
                Ok(connection) => connection,
                // It is about to be made, or made anew.
                Err(SchemaError::Unready | SchemaError::Older { .. }) => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        let abandoned = Arc::clone(abandoned);
        connection.progress_handler(
            STEPS_PER_LOOK,
            Some(move || Instant::now() > until || abandoned.load(Ordering::Relaxed)),
        )?;
        connection.execute_batch("BEGIN")?;
        Ok(Some(IndexLease { pool: self, id, epoch, connection: Some(connection) }))
    }
}

/// An index on loan; its read transaction ends when it is given back.
#[derive(Debug)]
pub(super) struct IndexLease<'p> {
    pool: &'p IndexPool,
    id: SegmentId,
    epoch: u64,
    connection: Option<Connection>,
}

impl Deref for IndexLease<'_> {
    type Target = Connection;

    #[expect(
        clippy::expect_used,
        reason = "the connection is taken only when the lease is dropped"
    )]
    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("the lease has its connection until it is dropped")
    }
}

impl Drop for IndexLease<'_> {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        let is_clean = connection.progress_handler(0, None::<fn() -> bool>).is_ok()
            && (connection.is_autocommit() || connection.execute_batch("ROLLBACK").is_ok());
        if !is_clean || self.epoch != self.pool.epoch.load(Ordering::SeqCst) {
            return;
        }
        let mut idle = lock(&self.pool.idle);
        idle.push((self.id, self.epoch, connection));
        if idle.len() > MAX_IDLE_INDEXES {
            idle.remove(0);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
