//! Moves write-ahead logs, of the open segment and of the control database, into their files, beside the writer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use rusqlite::Connection;

use crate::schema::{CONTROL, SEGMENT, Schema};
use crate::segment::checkpoint;

/// A file that is written all the time, and how long its log may become.
#[derive(Debug)]
pub(crate) struct Logged {
    thread: &'static str,
    schema: &'static Schema,
    /// Length of the write-ahead log at which a checkpoint begins, bytes.
    begin_bytes: i64,
}

/// The open segment: rows come one behind the other, so that few pages are in its log twice.
pub(crate) const OPEN_SEGMENT: Logged =
    Logged { thread: "store-checkpoint", schema: &SEGMENT, begin_bytes: 32 * 1024 * 1024 };

/// The control database: decisions are found by ids that chance made, so that every group changes pages
/// all over its indices. The longer the log, the more of them are moved once instead of many times: at 4 MiB
/// as much was moved as was logged.
pub(crate) const CONTROL_DATABASE: Logged =
    Logged { thread: "store-control", schema: &CONTROL, begin_bytes: 64 * 1024 * 1024 };

/// What may be left over for the writer to move before it starts the log anew, bytes.
const RESTART_BYTES: i64 = 4 * 1024 * 1024;

/// The checkpoint thread, as the writer sees it.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    logged: &'static Logged,
    wake: Option<SyncSender<PathBuf>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    /// Told how long the log is.
    gauge: Gauge,
}

#[derive(Debug, Default)]
struct Shared {
    /// Bytes in the log, told after every commit.
    wal_bytes: AtomicI64,
    is_restart_wanted: AtomicBool,
    /// Bytes of a page of the file.
    page_bytes: AtomicI64,
}

impl Checkpointer {
    /// Starts the thread.
    pub(crate) fn start(logged: &'static Logged, gauge: Gauge) -> std::io::Result<Self> {
        let (wake, woken) = sync_channel(1);
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name(logged.thread.to_owned())
            .spawn(move || run(logged.schema, &woken, &of_thread))?;
        Ok(Self { logged, wake: Some(wake), thread: Some(thread), shared, gauge })
    }

    /// Listens to the commits of a connection.
    pub(crate) fn watch(&self, connection: &mut Connection) -> Result<(), rusqlite::Error> {
        self.shared.wal_bytes.store(0, Ordering::Relaxed);
        let shared = Arc::clone(&self.shared);
        let gauge = self.gauge.clone();
        let page: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        self.shared.page_bytes.store(page, Ordering::Relaxed);
        connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: i32| {
            let bytes = i64::from(pages) * page;
            shared.wal_bytes.store(bytes, Ordering::Relaxed);
            gauge.set(bytes);
            Ok(())
        }))
    }

    /// Called between groups: starts the log anew when that is quick, and wakes the thread when
    /// the log is long.
    ///
    /// `patience` is how long the connection waits for others, which it is told anew afterwards.
    pub(crate) fn between_groups(&self, path: &Path, connection: &Connection, patience: Duration) {
        if self.shared.is_restart_wanted.swap(false, Ordering::Relaxed) {
            // A reader in the way is not waited for: there will be another time.
            let restarted = connection
                .busy_timeout(Duration::ZERO)
                .and_then(|()| checkpoint(connection, "RESTART"));
            if let Err(error) = connection.busy_timeout(patience).and(restarted) {
                tracing::debug!(%error, "the write-ahead log could not be started anew");
            }
        }
        if self.shared.wal_bytes.load(Ordering::Relaxed) > self.logged.begin_bytes
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

fn run(schema: &Schema, woken: &Receiver<PathBuf>, shared: &Shared) {
    let mut open: Option<(PathBuf, Connection)> = None;
    for path in woken {
        if open.as_ref().is_none_or(|(open, _)| *open != path) {
            open = match schema.open_writer(&path) {
                Ok(connection) => Some((path, connection)),
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "cannot open for a checkpoint");
                    None
                }
            };
        }
        let Some((path, connection)) = &open else { continue };
        match checkpoint(connection, "PASSIVE") {
            Ok((log, moved)) => {
                let page = shared.page_bytes.load(Ordering::Relaxed);
                let is_little = (log - moved) * page <= RESTART_BYTES;
                shared.is_restart_wanted.store(log > 0 && is_little, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "a checkpoint failed; it will be repeated");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rusqlite::params;

    use super::*;
    use crate::schema::{BUSY_TIMEOUT, SMALL_PAGE_BYTES};

    static SHORT: Logged =
        Logged { thread: "store-checkpoint-test", schema: &CONTROL, begin_bytes: 256 * 1024 };

    #[test]
    fn a_log_that_has_grown_long_is_moved_into_its_file_and_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.db");
        let mut connection = CONTROL.open_writer(&path).unwrap();
        let gauge = Gauge::default();
        let checkpointer = Checkpointer::start(&SHORT, gauge.clone()).unwrap();
        checkpointer.watch(&mut connection).unwrap();
        let (mut longest, deadline) = (0, Instant::now() + Duration::from_secs(60));
        for number in 0_i64.. {
            let stage = format!("{number} {}", "x".repeat(3_000));
            let insert = "INSERT INTO stages VALUES (?1, ?2)";
            connection.execute(insert, params![stage, number]).unwrap();
            if gauge.get() < longest {
                break;
            }
            longest = gauge.get();
            checkpointer.between_groups(&path, &connection, BUSY_TIMEOUT);
            assert!(Instant::now() < deadline, "{longest} bytes, and never begun anew");
        }
        assert!(longest > SHORT.begin_bytes, "{longest}");
        assert_eq!(longest % SMALL_PAGE_BYTES, 0);
        // A page that was logged several times is in the file once.
        let moved = path.metadata().unwrap().len() as i64;
        assert!(moved > SHORT.begin_bytes / 4, "{moved} of {longest}");
    }
}
