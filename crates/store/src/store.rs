//! The store as a whole: opened once a process, closed after the last batch.

use std::sync::Arc;
use std::thread::JoinHandle;

use prometheus_client::registry::Registry;
use tokio::sync::{broadcast, watch};

use crate::answer::Committed;
use crate::continuity::{Watch, Watcher};
use crate::control::Control;
use crate::error::{ControlError, OpenError, StoreError};
use crate::inbox::{Inbox, Queue};
use crate::index::FollowerDoor;
use crate::keep::{Keeper, KeeperDoor};
use crate::layout::{DirectoryLock, Layout};
use crate::metrics::StoreMetrics;
use crate::options::StoreOptions;
use crate::reader::Reader;
use crate::session::Files;
use crate::told::COMMITTED_BACKLOG;
use crate::writer::Writer;

/// An open data directory, with its writer. Dropping it without [`Store::close`] waits for what
/// is in the inbox, and loses nothing that was acknowledged.
#[derive(Debug)]
pub struct Store {
    queue: Arc<Queue>,
    writer: Option<JoinHandle<Result<(), StoreError>>>,
    reader: Reader,
    keeper: KeeperDoor,
    pub(crate) index: FollowerDoor,
    control: Control,
    committed: broadcast::Sender<Arc<Committed>>,
    ended: watch::Receiver<bool>,
}

/// Tells the inbox and whoever asked that the writer is gone.
#[derive(Debug)]
struct WriterEnd {
    queue: Arc<Queue>,
    ended: watch::Sender<bool>,
}

impl Drop for WriterEnd {
    fn drop(&mut self) {
        self.queue.abandon();
        self.ended.send_replace(true);
    }
}

impl Store {
    /// Opens a data directory, takes its lock and starts the writer.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(options: StoreOptions, registry: &mut Registry) -> Result<Self, OpenError> {
        let layout = Layout::new(&options.data_dir);
        layout.create()?;
        let lock = DirectoryLock::take(&layout)?;
        let metrics = StoreMetrics::register(registry);
        let (committed, _) = broadcast::channel(COMMITTED_BACKLOG);
        let watch = Watch::new(options.continuity_grace, registry);
        let mut writer =
            Writer::open(layout.clone(), lock, &options, metrics.clone(), committed.clone())?;
        let fails = |source| OpenError::NotWritable { path: layout.segments(), source };
        let watcher = Watcher::start(&layout, Arc::clone(&watch)).map_err(fails)?;
        writer.continuity = Some(watcher);
        let files = Arc::new(Files::new(layout.clone()));
        let index = writer.follow(&files, options.index_interval, registry).map_err(fails)?;
        let applier = writer.rollups.door();
        let keeper =
            Keeper::start(Arc::clone(&files), &options, metrics.clone(), applier).map_err(fails)?;
        let door = keeper.door();
        writer.set_keeper(keeper);
        let control = Control::open(layout.root()).map_err(|error| match error {
            ControlError::Open(error) => error,
            other => OpenError::Storage { path: layout.control(), detail: other.to_string() },
        })?;
        let reader = Reader::new(files, options.rollup_retention).watching(watch);
        let queue = Queue::new(options, metrics);
        let of_writer = Arc::clone(&queue);
        let (end, ended) = watch::channel(false);
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || {
                // Dropped however the thread ends, by a panic too.
                let _end = WriterEnd { queue: Arc::clone(&of_writer), ended: end };
                writer.run(&of_writer)
            })
            .map_err(|source| OpenError::NotWritable { path: layout.control(), source })?;
        let keeper = door;
        Ok(Self { queue, writer: Some(writer), reader, keeper, index, control, committed, ended })
    }

    /// The door for batches.
    pub fn inbox(&self) -> Inbox {
        Inbox::new(Arc::clone(&self.queue))
    }

    /// The door for questions.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// Keys and secrets.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// What becomes durable from now on. A listener that falls behind is told how much it missed.
    pub fn committed(&self) -> broadcast::Receiver<Arc<Committed>> {
        self.committed.subscribe()
    }

    /// The sender behind [`Store::committed`], for whoever hands out subscriptions.
    pub fn committed_sender(&self) -> broadcast::Sender<Arc<Committed>> {
        self.committed.clone()
    }

    /// Looks after closed segments now (seals, verifies, retires) instead of within a minute, and
    /// comes back when that is done.
    pub async fn keep_now(&self) {
        let door = self.keeper.clone();
        // It ends when the keeper does.
        let _ = tokio::task::spawn_blocking(move || door.keep_now()).await;
    }

    /// Brings the search index up to date now instead of within [`StoreOptions::index_interval`], and
    /// comes back when it has everything that was committed before.
    pub async fn index_now(&self) {
        let door = self.index.clone();
        // It ends when the follower does.
        let _ = tokio::task::spawn_blocking(move || door.index_now()).await;
    }

    /// Resolves when the writer has ended. Before [`Store::close`] that is a defect: nothing can
    /// be written any more, every batch is refused, and the process should end with an error.
    pub fn writer_ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut ended = self.ended.clone();
        async move {
            // An error means that the thread is gone too.
            let _ = ended.wait_for(|ended| *ended).await;
        }
    }

    /// Takes no more batches, writes those that wait, checkpoints, and gives the lock back.
    ///
    /// # Errors
    /// [`StoreError`]; what was acknowledged is durable all the same.
    pub async fn close(mut self) -> Result<(), StoreError> {
        self.queue.close();
        let Some(writer) = self.writer.take() else { return Ok(()) };
        tokio::task::spawn_blocking(move || join(writer))
            .await
            .map_err(|error| StoreError::Writer(error.to_string()))?
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(writer) = self.writer.take()
            && let Err(error) = join(writer)
        {
            tracing::warn!(%error, "the store was not closed cleanly");
        }
    }
}

fn join(writer: JoinHandle<Result<(), StoreError>>) -> Result<(), StoreError> {
    writer.join().unwrap_or_else(|_| Err(StoreError::Writer("it panicked".to_owned())))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use throughline_trace::{LogRecord, Refusal, Resource, Severity, SpanBatch, Value};

    use super::*;

    fn batch() -> SpanBatch {
        let log = LogRecord {
            time_unix_nano: 1,
            observed_unix_nano: 1,
            trace_id: None,
            span_id: None,
            severity: Severity::INFO,
            severity_text: String::new(),
            event_name: String::new(),
            body: Value::Empty,
            attributes: throughline_trace::Attributes::new(),
            dropped_attributes_count: 0,
            resource: Arc::new(Resource::default()),
            scope: Arc::default(),
        };
        SpanBatch { logs: vec![log], ..SpanBatch::default() }
    }

    #[tokio::test]
    async fn the_death_of_the_writer_is_told_to_everybody() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreOptions::new(dir.path()), &mut Registry::default()).unwrap();
        let inbox = store.inbox();
        inbox.commit(batch()).await.unwrap();
        let ended = store.writer_ended();
        store.queue.panic_writer();
        let patience = Duration::from_secs(60);
        let both = async { tokio::join!(inbox.commit(batch()), inbox.commit(batch())) };
        let answers = tokio::time::timeout(patience, both).await.unwrap();
        for answer in [answers.0, answers.1] {
            assert!(matches!(answer, Err(Refusal::Storage(_))), "{answer:?}");
        }
        tokio::time::timeout(patience, ended).await.unwrap();
        let refused = inbox.commit(batch()).await.unwrap_err();
        insta::assert_snapshot!(refused, @"storage failed: the writer ended; the server must be started again");
        assert!(matches!(store.close().await, Err(StoreError::Writer(_))));
    }
}
