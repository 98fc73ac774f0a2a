//! The disk spool (requirement R4.4: decisions are not best-effort). A thread of its own appends
//! every decision to a file; another task sends what is in the files and removes what the server
//! has acknowledged. What a process leaves behind, the next one with this directory sends.

mod owner;
mod refused;
mod segment;
mod sender;
mod way_out;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use self::owner::Owner;
pub(crate) use self::way_out::{Deliver, Delivery, Undelivered};
use self::writer::Writer;
use super::audit::{AuditError, Done};
use super::record::DecisionRecord;
use crate::export::Counters;

/// Bytes that a spool takes on disk at most, when
/// [`TelemetryBuilder::decision_spool_max_bytes`](crate::TelemetryBuilder::decision_spool_max_bytes)
/// does not say. What is there is kept; further decisions are refused and counted.
pub const DECISION_SPOOL_MAX_BYTES: u64 = 256 * 1024 * 1024;

/// Decisions that wait for the writer at most: more than a disk that is busy for a second needs.
const QUEUE_ITEMS: usize = 8_192;

/// What a spool is to be.
#[derive(Debug, Clone)]
pub(crate) struct SpoolSettings {
    pub(crate) directory: PathBuf,
    pub(crate) max_bytes: u64,
}

/// What became of decisions on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpoolCounts {
    /// Decisions of this process that are on disk and not yet acknowledged by the server.
    pub waiting: u64,
    /// Decisions of earlier processes that were sent and acknowledged.
    pub replayed: u64,
    /// Decisions that the spool could not take: no room, or the disk failed. They were sent without
    /// it, unless they had to be durable.
    pub refused: u64,
    /// Files with damage. They lie in the directory as `*.damaged`; what could be read of them was
    /// sent.
    pub damaged: u64,
    /// Decisions that the receiver will never take: it found fault with what they say (HTTP 400, 413
    /// or 422, gRPC `INVALID_ARGUMENT`). They lie in the directory as `*.refused`.
    pub set_aside: u64,
    /// Decisions that somebody removed from the disk before the receiver had them.
    pub vanished: u64,
}

/// What the writer, the sender and their callers share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Something was sent, or could not be.
    progress: Condvar,
    /// Something was written.
    news: Notify,
    /// Somebody waits until all is sent.
    hurry: Notify,
    counters: Arc<Counters>,
    replayed: AtomicU64,
    refused: AtomicU64,
    damaged: AtomicU64,
    set_aside: AtomicU64,
    vanished: AtomicU64,
    max_bytes: u64,
    /// Bytes of the files of other processes, when last looked.
    bytes_of_others: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Our files, oldest first.
    files: Vec<OwnFile>,
    /// Decisions in them that wait for the server.
    waiting: u64,
    /// Exports that failed, ever.
    failures: u64,
    /// Files of earlier processes that are not sent yet.
    adopted: usize,
    is_looked_for_orphans: bool,
}

/// A file of this process.
#[derive(Debug, Clone)]
struct OwnFile {
    path: PathBuf,
    /// Up to where the server has it.
    acknowledged: u64,
    /// Up to where it is written.
    written: u64,
    /// Decisions in it that wait for the server.
    waiting: u64,
    /// Whether nothing is added any more.
    is_sealed: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the writer is asked for.
enum Ask {
    Write(Box<DecisionRecord>, Option<Done>),
    /// Write all that came before, and say so.
    Sync(SyncSender<()>),
    Stop,
}

/// What is left of a record that the spool did not take.
type Refused = Option<(DecisionRecord, Option<Done>)>;

/// How the writer sends a record without the disk.
pub(crate) type Bypass = Box<dyn Fn(&DecisionRecord) + Send>;

/// The spool of one pipeline.
pub(crate) struct Spool {
    shared: Arc<Shared>,
    /// Held while a number is given and the record is put into the queue, so that the file has them
    /// in order, without gaps.
    queue: Mutex<SyncSender<Ask>>,
    /// What the thread of the writer begins with; taken by [`start`](Self::start).
    prepared: Mutex<Option<(Writer, Receiver<Ask>)>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Spool {
    /// Opens the directory and the first file, so that a directory that cannot be written is told at
    /// the start. The sender runs on `runtime`.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn open(
        settings: &SpoolSettings,
        resource: &opentelemetry_sdk::Resource,
        counters: Arc<Counters>,
        runtime: &tokio::runtime::Handle,
        deliver: Deliver,
    ) -> std::io::Result<Self> {
        let owner = Owner::claim(&settings.directory)?;
        let header = sender::header_of(resource);
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            progress: Condvar::new(),
            news: Notify::new(),
            hurry: Notify::new(),
            counters,
            replayed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
            set_aside: AtomicU64::new(0),
            vanished: AtomicU64::new(0),
            max_bytes: settings.max_bytes,
            bytes_of_others: AtomicU64::new(owner.bytes_of_others()),
        });
        let owner = Arc::new(owner);
        let writer = Writer::open(Arc::clone(&shared), Arc::clone(&owner), header.clone())?;
        let (queue, asked) = sync_channel(QUEUE_ITEMS);
        #[expect(
            clippy::disallowed_methods,
            reason = "the decisions of a process belong to no trace"
        )]
        runtime.spawn(sender::run(Arc::clone(&shared), owner, header, deliver));
        Ok(Self {
            shared,
            queue: Mutex::new(queue),
            prepared: Mutex::new(Some((writer, asked))),
            thread: Mutex::new(None),
        })
    }

    /// Starts the writer. What it cannot write goes by `bypass`.
    ///
    /// # Errors
    /// When the system refuses another thread.
    pub(crate) fn start(&self, bypass: Bypass) -> std::io::Result<()> {
        let prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((writer, asked)) = prepared {
            #[expect(
                clippy::disallowed_methods,
                reason = "the decisions of a process belong to no trace"
            )]
            let thread = std::thread::Builder::new()
                .name("throughline-spool".to_owned())
                .spawn(move || writer.run(&asked, &bypass))?;
            *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        }
        Ok(())
    }

    /// Puts a record into the queue, after `number` has given it its number. Gives it back when the
    /// queue is full.
    pub(crate) fn push(
        &self,
        mut record: DecisionRecord,
        done: Option<Done>,
        number: impl FnOnce(&mut DecisionRecord),
    ) -> Refused {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        number(&mut record);
        match queue.try_send(Ask::Write(Box::new(record), done)) {
            Ok(()) => None,
            Err(TrySendError::Full(ask) | TrySendError::Disconnected(ask)) => {
                self.shared.refused.fetch_add(1, Ordering::AcqRel);
                match ask {
                    Ask::Write(record, done) => Some((*record, done)),
                    Ask::Sync(_) | Ask::Stop => None,
                }
            }
        }
    }

    pub(crate) fn counts(&self) -> SpoolCounts {
        SpoolCounts {
            waiting: self.shared.state().waiting,
            replayed: self.shared.replayed.load(Ordering::Acquire),
            refused: self.shared.refused.load(Ordering::Acquire),
            damaged: self.shared.damaged.load(Ordering::Acquire),
            set_aside: self.shared.set_aside.load(Ordering::Acquire),
            vanished: self.shared.vanished.load(Ordering::Acquire),
        }
    }

    /// Writes what waits, and sends what is on disk, until all is acknowledged, an export failed, or
    /// the time is up. `false` when something is left: it is on disk.
    pub(crate) fn flush(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let (written, is_written) = sync_channel(1);
        if !self.ask(Ask::Sync(written)) || is_written.recv_timeout(timeout).is_err() {
            return false;
        }
        self.shared.hurry.notify_one();
        self.shared.news.notify_one();
        let mut state = self.shared.state();
        let failures = state.failures;
        loop {
            if state.waiting == 0 && state.adopted == 0 && state.is_looked_for_orphans {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.failures > failures {
                return false;
            }
            let waited = self.shared.progress.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Flushes, and stops the writer.
    pub(crate) fn close(&self, timeout: Duration) -> bool {
        let is_empty = self.flush(timeout);
        self.ask(Ask::Stop);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
        is_empty
    }

    /// Asks the writer, which takes its questions faster than a flush may wait.
    fn ask(&self, ask: Ask) -> bool {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        queue.send(ask).is_ok()
    }
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

/// The error of a record that found no room.
fn full() -> AuditError {
    AuditError::SpoolFull
}
