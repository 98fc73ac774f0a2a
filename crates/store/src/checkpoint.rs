//! Moves the write-ahead log of the open segment into its main file, beside the writer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rusqlite::Connection;

use crate::metrics::StoreMetrics;
use crate::schema::{BUSY_TIMEOUT, PAGE_BYTES, SEGMENT};
use crate::segment::checkpoint;

/// Length of the write-ahead log at which a checkpoint begins, bytes.
const BEGIN_BYTES: i64 = 32 * 1024 * 1024;

/// What may be left over for the writer to move before it starts the log anew, bytes.
const RESTART_BYTES: i64 = 4 * 1024 * 1024;

/// The checkpoint thread, as the writer sees it.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    wake: Option<SyncSender<PathBuf>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    metrics: StoreMetrics,
}

#[derive(Debug, Default)]
struct Shared {
    /// Bytes in the log, told after every commit.
    wal_bytes: AtomicI64,
    is_restart_wanted: AtomicBool,
}

impl Checkpointer {
    /// Starts the thread.
    pub(crate) fn start(metrics: StoreMetrics) -> std::io::Result<Self> {
        let (wake, woken) = sync_channel(1);
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".to_owned())
            .spawn(move || run(&woken, &of_thread))?;
        Ok(Self { wake: Some(wake), thread: Some(thread), shared, metrics })
    }

    /// Listens to the commits of a segment's connection.
    pub(crate) fn watch(&self, connection: &mut Connection) -> Result<(), rusqlite::Error> {
        self.shared.wal_bytes.store(0, Ordering::Relaxed);
        let shared = Arc::clone(&self.shared);
        let gauge = self.metrics.wal_bytes.clone();
        connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: i32| {
            let bytes = i64::from(pages) * PAGE_BYTES;
            shared.wal_bytes.store(bytes, Ordering::Relaxed);
            gauge.set(bytes);
            Ok(())
        }))
    }

    /// Called between groups: starts the log anew when that is quick, and wakes the thread when
    /// the log is long.
    pub(crate) fn between_groups(&self, path: &Path, connection: &Connection) {
        if self.shared.is_restart_wanted.swap(false, Ordering::Relaxed) {
            // A reader in the way is not waited for: there will be another time.
            let restarted = connection
                .busy_timeout(std::time::Duration::ZERO)
                .and_then(|()| checkpoint(connection, "RESTART"));
            if let Err(error) = connection.busy_timeout(BUSY_TIMEOUT).and(restarted) {
                tracing::debug!(%error, "the write-ahead log could not be started anew");
            }
        }
        if self.shared.wal_bytes.load(Ordering::Relaxed) > BEGIN_BYTES
            && let Some(wake) = &self.wake
        {
            // A full channel means that the thread is at it.
            let _ = wake.try_send(path.to_owned());
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(woken: &Receiver<PathBuf>, shared: &Shared) {
    let mut open: Option<(PathBuf, Connection)> = None;
    for path in woken {
        if open.as_ref().is_none_or(|(open, _)| *open != path) {
            open = match SEGMENT.open_writer(&path) {
                Ok(connection) => Some((path, connection)),
                Err(error) => {
                    tracing::warn!(segment = %path.display(), %error, "cannot open for a checkpoint");
                    None
                }
            };
        }
        let Some((path, connection)) = &open else { continue };
        match checkpoint(connection, "PASSIVE") {
            Ok((log, moved)) => {
                let is_little = (log - moved) * PAGE_BYTES <= RESTART_BYTES;
                shared.is_restart_wanted.store(log > 0 && is_little, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::warn!(segment = %path.display(), %error, "a checkpoint failed; it will be repeated");
            }
        }
    }
}
