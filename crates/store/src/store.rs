//! The store as a whole: opened once a process, closed after the last batch.

use std::sync::Arc;
use std::thread::JoinHandle;

use prometheus_client::registry::Registry;
use tokio::sync::broadcast;

use crate::answer::Committed;
use crate::control::Control;
use crate::error::{ControlError, OpenError, StoreError};
use crate::inbox::{Inbox, Queue};
use crate::layout::{DirectoryLock, Layout};
use crate::metrics::StoreMetrics;
use crate::options::StoreOptions;
use crate::reader::Reader;
use crate::writer::Writer;

/// Groups that a slow listener may fall behind before it misses some.
const COMMITTED_BACKLOG: usize = 256;

/// An open data directory, with its writer. Dropping it without [`Store::close`] waits for what
/// is in the inbox, and loses nothing that was acknowledged.
#[derive(Debug)]
pub struct Store {
    queue: Arc<Queue>,
    writer: Option<JoinHandle<Result<(), StoreError>>>,
    reader: Reader,
    control: Control,
    committed: broadcast::Sender<Arc<Committed>>,
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
        let writer =
            Writer::open(layout.clone(), lock, &options, metrics.clone(), committed.clone())?;
        let control = Control::open(layout.root()).map_err(|error| match error {
            ControlError::Open(error) => error,
            other => OpenError::Storage { path: layout.control(), detail: other.to_string() },
        })?;
        let queue = Queue::new(options, metrics);
        let of_writer = Arc::clone(&queue);
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || {
                let result = writer.run(&of_writer);
                of_writer.close();
                result
            })
            .map_err(|source| OpenError::NotWritable { path: layout.control(), source })?;
        let reader = Reader::new(layout);
        Ok(Self { queue, writer: Some(writer), reader, control, committed })
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
