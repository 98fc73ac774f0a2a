//! The door of the writer: bounded, and never waiting for room.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use throughline_trace::{Accepted, Refusal, SpanBatch};
use tokio::sync::oneshot;

use crate::body::BodyError;
use crate::layout::Day;
use crate::metrics::StoreMetrics;
use crate::options::StoreOptions;
use crate::prepare::{self, Prepared};

/// Batches with more items than this are prepared on a blocking thread: the work would hold up
/// other connections (about 5 µs an item).
const MAX_INLINE_ITEMS: usize = 2_048;

/// Shortest time after which a refused sender is asked to come back, milliseconds.
const MIN_RETRY_MILLIS: u64 = 100;

/// Longest time after which a refused sender is asked to come back, milliseconds.
const MAX_RETRY_MILLIS: u64 = 5_000;

/// When a sender should come back while the server restarts, milliseconds.
const SHUTDOWN_RETRY_MILLIS: u64 = 2_000;

/// Takes batches for the writer; cheap to clone.
#[derive(Debug, Clone)]
pub struct Inbox {
    queue: Arc<Queue>,
}

impl Inbox {
    pub(crate) fn new(queue: Arc<Queue>) -> Self {
        Self { queue }
    }

    /// Makes a batch durable: `Ok` is answered only after the commit that holds it. Never waits
    /// for room: a full inbox refuses at once. When the future is dropped the batch may still be
    /// written.
    ///
    /// # Errors
    /// [`Refusal`]: nothing of the batch was kept that a repetition would count twice.
    pub async fn commit(&self, batch: SpanBatch) -> Result<Accepted, Refusal> {
        self.offer(&mut Some(batch)).await
    }

    /// [`commit`](Self::commit), for who wants to offer a batch again: it is taken out as soon as
    /// there is room for it, and left where it is without.
    ///
    /// # Errors
    /// [`Refusal`], as there.
    pub async fn offer(&self, batch: &mut Option<SpanBatch>) -> Result<Accepted, Refusal> {
        let result = self.submit(batch).await;
        if let Err(refusal) = &result {
            self.queue.metrics.refused(refusal);
        }
        result
    }

    async fn submit(&self, offered: &mut Option<SpanBatch>) -> Result<Accepted, Refusal> {
        let Some(batch) = offered.as_ref().filter(|batch| !batch.is_empty()) else {
            return Ok(Accepted::default());
        };
        let reservation = self.queue.reserve(prepare::estimate_bytes(batch))?;
        let Some(batch) = offered.take() else { return Ok(Accepted::default()) };
        let unfit = |error: BodyError| match error {
            BodyError::TooLarge(_) | BodyError::Postcard(_) => Refusal::Unfit(error.to_string()),
            other => Refusal::Storage(other.to_string()),
        };
        let watching = self.queue.limits.observer.now();
        let prepared = if batch.len() <= MAX_INLINE_ITEMS {
            prepare::prepare(batch, watching).map_err(unfit)?
        } else {
            tokio::task::spawn_blocking(|| prepare::prepare(batch, watching))
                .await
                .map_err(|error| {
                    Refusal::Storage(format!("a batch could not be prepared: {error}"))
                })?
                .map_err(unfit)?
        };
        let (reply, answer) = oneshot::channel();
        self.queue.push(Job { prepared, reservation, reply });
        answer.await.unwrap_or_else(|_| Err(writer_ended()))
    }
}

fn writer_ended() -> Refusal {
    Refusal::Storage("the writer ended; the server must be started again".to_owned())
}

/// A batch on its way to the writer.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) prepared: Prepared,
    pub(crate) reservation: Reservation,
    pub(crate) reply: oneshot::Sender<Result<Accepted, Refusal>>,
}

/// What the writer finds at the queue.
#[derive(Debug)]
pub(crate) enum Next {
    /// Batches of one day, to be written together.
    Group(Vec<Job>),
    /// Nothing came for a while.
    Idle,
    /// Nothing will come any more.
    Closed,
}

/// What waits for the writer.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    limits: StoreOptions,
    metrics: StoreMetrics,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Reserved: being prepared, waiting, or being written.
    batches: usize,
    bytes: usize,
    /// Bytes that the writer has lately written in a millisecond.
    bytes_per_milli: u64,
    is_closed: bool,
    /// The writer is gone: nobody will take what comes.
    is_abandoned: bool,
    #[cfg(test)]
    panics: bool,
}

/// Room in the inbox, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    queue: Arc<Queue>,
    bytes: usize,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.batches -= 1;
        state.bytes -= self.bytes;
        self.queue.show(&state);
        if state.is_closed {
            self.queue.changed.notify_all();
        }
    }
}

impl Reservation {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Queue {
    pub(crate) fn new(limits: StoreOptions, metrics: StoreMetrics) -> Arc<Self> {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Arc::new(Self { state, changed, limits, metrics })
    }

    /// Room for a batch of this size, at once or not at all.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: usize) -> Result<Reservation, Refusal> {
        let mut state = self.lock();
        if state.is_abandoned && !state.is_closed {
            return Err(writer_ended());
        }
        if state.is_closed {
            return Err(Refusal::ShuttingDown { retry_after_ms: SHUTDOWN_RETRY_MILLIS });
        }
        let has_room = state.batches < self.limits.max_inbox_batches
            && state.bytes.saturating_add(bytes) <= self.limits.max_inbox_bytes;
        if !has_room && state.batches > 0 {
            let millis = state.bytes as u64 / state.bytes_per_milli.max(1);
            let retry_after_ms = millis.clamp(MIN_RETRY_MILLIS, MAX_RETRY_MILLIS);
            return Err(Refusal::Full { retry_after_ms });
        }
        state.batches += 1;
        state.bytes += bytes;
        self.show(&state);
        Ok(Reservation { queue: Arc::clone(self), bytes })
    }

    pub(crate) fn push(&self, job: Job) {
        let mut state = self.lock();
        if state.is_abandoned {
            // Its reservation looks at the state when it goes.
            drop(state);
            let _ = job.reply.send(Err(writer_ended()));
            return;
        }
        state.jobs.push_back(job);
        drop(state);
        self.changed.notify_all();
    }

    /// The writer ended: refuses what waits, and whatever comes.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        state.is_abandoned = true;
        let jobs = std::mem::take(&mut state.jobs);
        drop(state);
        for job in jobs {
            let _ = job.reply.send(Err(writer_ended()));
        }
    }

    /// The writer panics when it finds batches the next time.
    #[cfg(test)]
    pub(crate) fn panic_writer(&self) {
        self.lock().panics = true;
    }

    /// Lets nothing in any more.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Waits for batches, at most `patience`, and takes as many as fit into one transaction. All
    /// of a group belong to the day of the first, or to `open` when they are older.
    pub(crate) fn next(&self, open: Day, patience: Duration) -> Next {
        let mut state = self.lock();
        while state.jobs.is_empty() {
            if state.is_closed && state.batches == 0 {
                return Next::Closed;
            }
            let (next, timeout) =
                self.changed.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner);
            state = next;
            if timeout.timed_out() && state.jobs.is_empty() && !state.is_closed {
                return Next::Idle;
            }
        }
        #[cfg(test)]
        assert!(!state.panics, "a test wants the writer to panic");
        let day = |job: &Job| open.max(Day::of_nanos(job.prepared.batch.received_unix_nano));
        let (mut items, mut bytes) = (0, 0);
        let mut group: Vec<Job> = Vec::new();
        let mut group_day = open;
        while let Some(job) = state.jobs.front() {
            items += job.prepared.batch.len();
            bytes += job.reservation.bytes;
            let is_first = group.is_empty();
            if is_first {
                group_day = day(job);
            }
            let fits = items <= self.limits.max_group_items && bytes <= self.limits.max_group_bytes;
            if !(is_first || fits && day(job) == group_day) {
                break;
            }
            group.extend(state.jobs.pop_front());
        }
        Next::Group(group)
    }

    /// Tells how fast the writer was, for the advice to refused senders.
    pub(crate) fn report_speed(&self, bytes: usize, elapsed: Duration) {
        let now = bytes as u64 / (elapsed.as_millis() as u64).max(1);
        let mut state = self.lock();
        state.bytes_per_milli =
            if state.bytes_per_milli == 0 { now } else { (state.bytes_per_milli * 7 + now) / 8 };
    }

    fn show(&self, state: &State) {
        self.metrics.inbox_batches.set(state.batches as i64);
        self.metrics.inbox_bytes.set(state.bytes as i64);
    }

    /// A panic while the lock was held leaves counters that are right: each is one assignment.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
