//! Continuity: the thread that tells a [`ContinuityTracker`] of what was inserted, and answers from it.
//!
//! The writer hands over what it really inserted, after the commit, and goes on; it never waits.
//! When the thread is too far behind, spans are not looked at, and counted as missed.
//!
//! # After a restart
//!
//! Nothing of it is on disk. The thread reads the rows of the last hour anew (`rebuild.rs`), within a
//! bound, from a snapshot that is taken before the first write, so that no span is told twice.
//! What cannot be known from rows is when each span arrived: that a parent came late before the
//! restart is forgotten, and the answer says from when on late parents are counted. Nothing is
//! judged before the rows are read and a grace has passed, since senders may still be repeating what
//! the stopped server did not take.

mod metrics;
mod rebuild;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use throughline_trace::{
    ContinuityLimits, ContinuityReport, ContinuityTracker, Sighting, SuspectedEdge, TraceId,
};

use crate::layout::Layout;
use crate::writer::now_unix_nano;
use metrics::ContinuityMetrics;
pub(crate) use rebuild::anew;
use rebuild::{Rebuild, Step};

/// How far back rows are read after a start.
pub const REBUILD_BACK: Duration = Duration::from_secs(3_600);

/// Most spans that are read after a start.
const MAX_REBUILD_SPANS: u64 = 500_000;

/// Most spans that wait for the thread; further ones are missed.
const MAX_QUEUED_SPANS: usize = 200_000;

/// Spans that are told under one lock.
const SPANS_UNDER_LOCK: usize = 2_048;

/// How often time passes for the tracker, and gauges are set.
const TICK: Duration = Duration::from_secs(1);

/// The time that the score on `/metrics` is of, nanoseconds.
const SCORE_NANOS: u64 = 3_600 * 1_000_000_000;

/// The tracker, as thread and readers share it.
#[derive(Debug)]
pub(crate) struct Watch {
    tracker: Mutex<ContinuityTracker>,
    metrics: ContinuityMetrics,
    started_unix_nano: u64,
    /// Everything that ended since then is told.
    whole_from: AtomicU64,
    is_rebuilding: AtomicBool,
    queued: AtomicUsize,
    missed: AtomicU64,
}

impl Watch {
    /// A tracker that nothing was told yet.
    pub(crate) fn new(grace: Duration, registry: &mut Registry) -> Arc<Self> {
        let now = now_unix_nano();
        let mut tracker = ContinuityTracker::new(ContinuityLimits::default(), nanos(grace));
        tracker.resume_at(now);
        Arc::new(Self {
            tracker: Mutex::new(tracker),
            metrics: ContinuityMetrics::register(registry),
            started_unix_nano: now,
            whole_from: AtomicU64::new(now),
            is_rebuilding: AtomicBool::new(true),
            queued: AtomicUsize::new(0),
            missed: AtomicU64::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, ContinuityTracker> {
        self.tracker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known since a moment.
    pub(crate) fn report(&self, since_unix_nano: u64) -> ContinuityReport {
        let now = now_unix_nano();
        let mut report = {
            let mut tracker = self.lock();
            if !self.is_rebuilding.load(Ordering::Acquire) {
                tracker.advance(now);
            }
            tracker.report(since_unix_nano, now)
        };
        let coverage = &mut report.coverage;
        let whole_from = self.whole_from.load(Ordering::Acquire);
        coverage.from_unix_nano = coverage.from_unix_nano.max(whole_from);
        coverage.mended_from_unix_nano = coverage.mended_from_unix_nano.max(self.started_unix_nano);
        coverage.is_rebuilding = self.is_rebuilding.load(Ordering::Acquire);
        coverage.missed_spans = self.missed.load(Ordering::Relaxed);
        report
    }

    /// Where one trace broke.
    pub(crate) fn edges_of_trace(&self, id: TraceId) -> Vec<SuspectedEdge> {
        self.lock().edges_of_trace(id)
    }

    fn see(&self, sightings: &[Sighting]) {
        for some in sightings.chunks(SPANS_UNDER_LOCK) {
            let mut tracker = self.lock();
            some.iter().for_each(|sighting| tracker.see(sighting));
        }
    }

    fn tick(&self) {
        let now = now_unix_nano();
        let mut tracker = self.lock();
        tracker.advance(now);
        self.metrics.set(&tracker, now.saturating_sub(SCORE_NANOS));
    }
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The thread, as the writer sees it.
#[derive(Debug)]
pub(crate) struct Watcher {
    watch: Arc<Watch>,
    told: Option<Sender<Vec<Sighting>>>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts the thread; to be called before anything is written.
    pub(crate) fn start(layout: &Layout, watch: Arc<Watch>) -> std::io::Result<Self> {
        let (told, tellings) = channel();
        let since = now_unix_nano().saturating_sub(nanos(REBUILD_BACK));
        let rebuild = Rebuild::begin(layout, since, MAX_REBUILD_SPANS, true);
        let work = Work { watch: Arc::clone(&watch), tellings, path: layout.segments() };
        let thread = std::thread::Builder::new()
            .name("store-continuity".to_owned())
            .spawn(move || work.run(rebuild))?;
        Ok(Self { watch, told: Some(told), thread: Some(thread) })
    }

    /// Tells what was inserted.
    pub(crate) fn tell(&self, sightings: Vec<Sighting>) {
        let count = sightings.len();
        if count == 0 {
            return;
        }
        let queued = self.watch.queued.fetch_add(count, Ordering::AcqRel);
        let is_taken = queued <= MAX_QUEUED_SPANS
            && self.told.as_ref().is_some_and(|told| told.send(sightings).is_ok());
        if !is_taken {
            self.watch.queued.fetch_sub(count, Ordering::AcqRel);
            self.watch.missed.fetch_add(count as u64, Ordering::Relaxed);
            self.watch.metrics.missed.inc_by(count as u64);
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.told = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the thread owns.
struct Work {
    watch: Arc<Watch>,
    tellings: Receiver<Vec<Sighting>>,
    path: PathBuf,
}

impl Work {
    fn run(self, rebuild: Result<Rebuild, rebuild::RebuildError>) {
        let rebuilt = rebuild.and_then(|rebuild| self.rebuild(rebuild));
        match rebuilt {
            Ok(Some(whole_from)) => self.watch.whole_from.store(whole_from, Ordering::Release),
            // The server is closing.
            Ok(None) => return,
            Err(error) => tracing::warn!(
                segments = %self.path.display(), %error,
                "the last hour could not be read; continuity is counted from now on"
            ),
        }
        self.watch.is_rebuilding.store(false, Ordering::Release);
        let mut last_tick = Instant::now();
        self.watch.tick();
        loop {
            let pause = TICK.saturating_sub(last_tick.elapsed());
            match self.tellings.recv_timeout(pause) {
                Ok(sightings) => self.take(&sightings),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if last_tick.elapsed() >= TICK {
                last_tick = Instant::now();
                self.watch.tick();
            }
        }
    }

    /// Reads what was stored before the start; from when on all is told, `None` when the server
    /// closes meanwhile.
    fn rebuild(&self, mut rebuild: Rebuild) -> Result<Option<u64>, rebuild::RebuildError> {
        let begin = Instant::now();
        loop {
            let mut sightings = Vec::new();
            let step = rebuild.step(|sighting| sightings.push(sighting))?;
            self.watch.see(&sightings);
            if let Step::End { whole_from } = step {
                tracing::debug!(
                    spans = rebuild.spans(),
                    seconds = begin.elapsed().as_secs_f64(),
                    "the last hour was read for continuity"
                );
                return Ok(Some(whole_from));
            }
            loop {
                match self.tellings.try_recv() {
                    Ok(sightings) => self.take(&sightings),
                    Err(std::sync::mpsc::TryRecvError::Empty) => break,
                    Err(std::sync::mpsc::TryRecvError::Disconnected) => return Ok(None),
                }
            }
        }
    }

    fn take(&self, sightings: &[Sighting]) {
        self.watch.see(sightings);
        self.watch.queued.fetch_sub(sightings.len(), Ordering::AcqRel);
    }
}
