//! How a [`WorkerPool`] is set up.

use std::io;
use std::num::NonZeroUsize;

use crate::task::WorkerPool;

/// Jobs that may wait for a worker of a [`WorkerPool`], when the builder does not say.
pub const WORKER_POOL_QUEUE_JOBS: usize = 1_024;

/// Most jobs that may be let wait: what the semaphore behind can count.
const QUEUE_JOBS_MAX: usize = 1 << 28;

/// A pool that has not started.
#[derive(Debug, Clone)]
#[must_use = "a pool starts with `build`"]
pub struct WorkerPoolBuilder {
    pub(super) name: String,
    pub(super) workers: usize,
    pub(super) queue_jobs: usize,
}

impl WorkerPoolBuilder {
    pub(super) fn new(name: String) -> Self {
        let workers = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self { name, workers, queue_jobs: WORKER_POOL_QUEUE_JOBS }
    }

    /// Threads; as many as the machine runs at once when not said, and one at least.
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = count.max(1);
        self
    }

    /// Jobs that may wait for a worker, [`WORKER_POOL_QUEUE_JOBS`] when not said, and one at least.
    pub fn queue_jobs(mut self, count: usize) -> Self {
        self.queue_jobs = count.clamp(1, QUEUE_JOBS_MAX);
        self
    }

    /// Starts the threads.
    ///
    /// # Errors
    /// When the system refuses one.
    pub fn build(self) -> io::Result<WorkerPool> {
        WorkerPool::start(self)
    }
}
