//! The queue between those who submit jobs and the threads that do them. It knows nothing of traces
//! or threads: its locks come from the room above, so that a model checker can put its own there.

use std::collections::VecDeque;
use std::sync::PoisonError;

use super::sync::{Condvar, Mutex, MutexGuard};

/// Jobs in the order in which they came. How many may wait is the business of who pushes.
#[derive(Debug)]
pub(crate) struct Queue<J> {
    waiting: Mutex<Waiting<J>>,
    changed: Condvar,
}

#[derive(Debug)]
struct Waiting<J> {
    jobs: VecDeque<J>,
    is_closed: bool,
}

impl<J> Queue<J> {
    pub(crate) fn new() -> Self {
        let waiting = Waiting { jobs: VecDeque::new(), is_closed: false };
        Self { waiting: Mutex::new(waiting), changed: Condvar::new() }
    }

    /// Puts a job in; after the close it comes back.
    pub(crate) fn push(&self, job: J) -> Result<(), J> {
        let mut waiting = self.lock();
        if waiting.is_closed {
            return Err(job);
        }
        waiting.jobs.push_back(job);
        drop(waiting);
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for a job; `None` when the queue is closed and empty.
    pub(crate) fn take(&self) -> Option<J> {
        let mut waiting = self.lock();
        loop {
            if let Some(job) = waiting.jobs.pop_front() {
                return Some(job);
            }
            if waiting.is_closed {
                return None;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes no more jobs; those that wait are still handed out.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Takes no more jobs, and hands those that wait back to the caller.
    pub(crate) fn empty_and_close(&self) -> VecDeque<J> {
        let mut waiting = self.lock();
        waiting.is_closed = true;
        let left = std::mem::take(&mut waiting.jobs);
        drop(waiting);
        self.changed.notify_all();
        left
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<J>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
