//! A bounded pool of threads whose jobs keep their trace.

use std::any::Any;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as Poller, Poll};

use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot, watch};

use crate::dimensions::Dimensions;
use crate::task::queue::Queue;
use crate::task::{Carried, WorkerPoolBuilder};

/// Threads of their own for blocking work, with a queue that is bounded: who submits waits for room
/// or is told that there is none. Each job runs in the surroundings of who submitted it; a job that
/// panics is counted, logged in its own trace and told to its handle, and its worker goes on.
///
/// Dropping the pool closes it: what waits is still done, nobody waits for it.
///
/// ```
/// use throughline::task::WorkerPool;
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let pool = WorkerPool::builder("embed").workers(2).queue_jobs(16).build()?;
/// let embedded = pool.submit(|| "twelve numbers".len()).await?;
/// assert_eq!(embedded.await?, 14);
/// pool.drain().await;
/// assert_eq!(pool.counts().done, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct WorkerPool {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    queue: Queue<Job>,
    /// A permit for each job that may wait.
    room: Arc<Semaphore>,
    workers: watch::Sender<usize>,
    counters: Counters,
}

type Work = Box<dyn FnOnce(&Shared) + Send>;

struct Job {
    work: Carried<Work>,
    /// Given back when a worker takes the job up.
    room: OwnedSemaphorePermit,
}

#[derive(Debug, Default)]
struct Counters {
    submitted: AtomicU64,
    done: AtomicU64,
    panicked: AtomicU64,
    discarded: AtomicU64,
    replaced_workers: AtomicU64,
}

/// What became of the jobs of a pool: `submitted = done + panicked + discarded + unfinished`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolCounts {
    /// Jobs that found room in the queue.
    pub submitted: u64,
    /// Jobs that ran to their end.
    pub done: u64,
    /// Jobs that panicked.
    pub panicked: u64,
    /// Jobs that were thrown away by [`WorkerPool::discard`].
    pub discarded: u64,
    /// Threads that were replaced because a job had left a context or a span on them.
    pub replaced_workers: u64,
}

impl PoolCounts {
    /// Jobs that wait or run.
    pub fn unfinished(&self) -> u64 {
        self.submitted.saturating_sub(self.done + self.panicked + self.discarded)
    }
}

/// The pool takes no more jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a pool that takes jobs, it was shut down; submit before the shutdown")]
pub struct PoolClosed;

/// Why a job was not taken, with the job.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TrySubmitError<F> {
    /// As many jobs wait as may.
    #[error("expected room in the queue, it is full; wait with `submit` or submit less")]
    Full(F),
    /// The pool was shut down.
    #[error("expected a pool that takes jobs, it was shut down; submit before the shutdown")]
    Closed(F),
}

impl<F> fmt::Debug for TrySubmitError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::Closed(_) => "Closed(..)",
        })
    }
}

/// Why a job has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// It panicked, with this message.
    #[error("expected the job to end, it panicked: {0}")]
    Panicked(String),
    /// It was thrown away before a worker came to it.
    #[error("expected the job to run, its pool was shut down before; drain the pool instead")]
    Discarded,
}

/// The result of a job, to be awaited. Dropped, it leaves the job alone.
#[derive(Debug)]
pub struct JobHandle<T> {
    result: oneshot::Receiver<Result<T, JobError>>,
}

impl<T> Future for JobHandle<T> {
    type Output = Result<T, JobError>;

    fn poll(mut self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.result).poll(poller).map(|told| told.unwrap_or(Err(JobError::Discarded)))
    }
}

impl WorkerPool {
    /// A pool whose threads bear this name.
    pub fn builder(name: impl Into<String>) -> WorkerPoolBuilder {
        WorkerPoolBuilder::new(name.into())
    }

    pub(super) fn start(settings: WorkerPoolBuilder) -> io::Result<Self> {
        let shared = Shared {
            name: settings.name,
            queue: Queue::new(),
            room: Arc::new(Semaphore::new(settings.queue_jobs)),
            workers: watch::Sender::new(0),
            counters: Counters::default(),
        };
        let pool = Self { shared: Arc::new(shared) };
        for _ in 0..settings.workers {
            start_worker(&pool.shared)?;
        }
        Ok(pool)
    }

    /// Hands a job over with the surroundings of this line, and waits while the queue is full.
    ///
    /// # Errors
    /// [`PoolClosed`] after the shutdown.
    pub async fn submit<F, T>(&self, work: F) -> Result<JobHandle<T>, PoolClosed>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let room = Arc::clone(&self.shared.room);
        let room = room.acquire_owned().await.map_err(|_| PoolClosed)?;
        self.push(work, room).ok_or(PoolClosed)
    }

    /// Hands a job over with the surroundings of this line, if there is room.
    ///
    /// # Errors
    /// [`TrySubmitError`] when there is none, or after the shutdown.
    pub fn try_submit<F, T>(&self, work: F) -> Result<JobHandle<T>, TrySubmitError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        match Arc::clone(&self.shared.room).try_acquire_owned() {
            // Closed in this very moment: the job is gone, as one that was discarded is.
            Ok(room) => Ok(self
                .push(work, room)
                .unwrap_or_else(|| JobHandle { result: oneshot::channel().1 })),
            Err(TryAcquireError::NoPermits) => Err(TrySubmitError::Full(work)),
            Err(TryAcquireError::Closed) => Err(TrySubmitError::Closed(work)),
        }
    }

    fn push<F, T>(&self, work: F, room: OwnedSemaphorePermit) -> Option<JobHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let (tell, result) = oneshot::channel();
        let work = move |shared: &Shared| {
            // Caught within the job's surroundings: its spans end as failed, its log has its trace.
            let ended = catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
                let message = message_of(&*panic);
                tracing::error!(target: "throughline", pool = shared.name, "a job panicked: {message}");
                JobError::Panicked(message)
            });
            let counters = &shared.counters;
            let counter = if ended.is_ok() { &counters.done } else { &counters.panicked };
            counter.fetch_add(1, Ordering::AcqRel);
            // Nobody may wait for the result any more.
            let _ = tell.send(ended);
        };
        let work: Work = Box::new(work);
        // Counted first: a worker may be done with the job before this line goes on.
        self.shared.counters.submitted.fetch_add(1, Ordering::AcqRel);
        if self.shared.queue.push(Job { work: Carried::new(work), room }).is_err() {
            self.shared.counters.submitted.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(JobHandle { result })
    }

    /// Takes no more jobs, does those that wait, and waits until all are done.
    pub async fn drain(&self) {
        self.close();
        self.workers_gone().await;
    }

    /// Takes no more jobs, throws those away that wait (their handles say [`JobError::Discarded`]),
    /// and waits until those that run are done. Says how many were thrown away.
    pub async fn discard(&self) -> u64 {
        self.shared.room.close();
        let jobs = self.shared.queue.empty_and_close();
        let count = jobs.len() as u64;
        self.shared.counters.discarded.fetch_add(count, Ordering::AcqRel);
        drop(jobs);
        self.workers_gone().await;
        count
    }

    /// What became of the jobs.
    pub fn counts(&self) -> PoolCounts {
        let counters = &self.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        PoolCounts {
            // First what leaves, then what came: so that nothing ever seems to leave twice.
            done: read(&counters.done),
            panicked: read(&counters.panicked),
            discarded: read(&counters.discarded),
            replaced_workers: read(&counters.replaced_workers),
            submitted: read(&counters.submitted),
        }
    }

    fn close(&self) {
        self.shared.room.close();
        self.shared.queue.close();
    }

    async fn workers_gone(&self) {
        // The sender is ours, so the wait cannot fail.
        let _ = self.shared.workers.subscribe().wait_for(|count| *count == 0).await;
    }
}

impl fmt::Debug for WorkerPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerPool")
            .field("name", &self.shared.name)
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.close();
    }
}

#[expect(clippy::disallowed_methods, reason = "a worker belongs to no trace, its jobs do")]
fn start_worker(shared: &Arc<Shared>) -> io::Result<()> {
    let worker = Worker::new(Arc::clone(shared));
    std::thread::Builder::new().name(shared.name.clone()).spawn(move || worker.run())?;
    Ok(())
}

/// One thread; it is counted for as long as this lives.
struct Worker(Arc<Shared>);

impl Worker {
    fn new(shared: Arc<Shared>) -> Self {
        shared.workers.send_modify(|count| *count += 1);
        Self(shared)
    }

    fn run(self) {
        while let Some(Job { work, room }) = self.0.queue.take() {
            drop(room);
            // A panic in here is one of dropping what the job left; the worker outlives it too.
            let ended = catch_unwind(AssertUnwindSafe(|| work.enter(|work| work(&self.0))));
            if ended.is_err() {
                tracing::error!(target: "throughline", pool = self.0.name, "a job panicked at its end");
            }
            // A guard that a job has leaked would show its trace to whatever comes next: the thread
            // goes, another takes its place. If the system refuses one, this one goes on; jobs bring
            // their own surroundings and do not see what was left.
            if !is_clean() {
                // Counted first: whoever hears from the other thread finds it counted.
                let replaced = &self.0.counters.replaced_workers;
                replaced.fetch_add(1, Ordering::AcqRel);
                match start_worker(&self.0) {
                    Ok(()) => return,
                    Err(_) => replaced.fetch_sub(1, Ordering::AcqRel),
                };
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.0.workers.send_modify(|count| *count -= 1);
    }
}

/// Whether nothing of a job is left on this thread.
fn is_clean() -> bool {
    !Context::map_current(|cx| cx.has_active_span())
        && tracing::Span::current().is_none()
        && Dimensions::current() == Dimensions::new()
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a value that is no text".to_owned())
}
