//! The thread that brings the indexes up to date, the newest first.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;

use super::error::IndexError;
use super::fed::Fed;
use super::file::{self, Standing};
use super::metrics::IndexMetrics;
use super::pending::Pending;
use super::piece::Open;
use super::runs;
use crate::layout::{SegmentId, remove_database};
use crate::prepare::Prepared;
use crate::schema::{self, SEGMENT, SchemaError};
use crate::session::Files;

/// How long the store waits at its end for what is not indexed yet.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// How often indexes are looked for whose segments are gone, and their bytes are counted.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// Page cache of the connection that spans are read by, KiB.
const CACHE_KIB: i64 = 2 * 1024;

/// The follower as the store has it; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct FollowerDoor {
    pending: Arc<Pending>,
}

impl FollowerDoor {
    /// Has everything indexed that is committed now, and comes back when that is done.
    pub(crate) fn index_now(&self) {
        self.pending.index_now();
    }

    /// What was handed over and not taken is lost.
    #[cfg(test)]
    pub(crate) fn lose_fed(&self) {
        self.pending.drop_all_fed();
    }

    /// The thread panics at its next round.
    #[cfg(test)]
    pub(crate) fn panic(&self) {
        self.pending.panic_follower();
    }
}

/// The follower; its thread ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Follower {
    pending: Arc<Pending>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    /// Starts the thread over segments of which `open` is written, up to now to group `batch_no`.
    pub(crate) fn start(
        files: Arc<Files>,
        open: SegmentId,
        batch_no: u64,
        interval: Duration,
        registry: &mut Registry,
    ) -> std::io::Result<Self> {
        let pending = Arc::new(Pending::default());
        match batch_no {
            0 => pending.begin_empty(open, 0),
            last => pending.begin(open, last),
        }
        files.index.follow(Arc::clone(&pending));
        let metrics = IndexMetrics::register(registry);
        let mut work = Work::new(files, Arc::clone(&pending), interval, metrics);
        let end = End { pending: Arc::clone(&pending), metrics: work.metrics.clone() };
        end.metrics.following.set(1);
        let run = move || {
            // Dropped however the thread ends, by a panic too.
            let _end = end;
            work.run();
        };
        let thread = std::thread::Builder::new().name("store-index".to_owned()).spawn(run)?;
        Ok(Self { pending, thread: Some(thread) })
    }

    pub(crate) fn door(&self) -> FollowerDoor {
        FollowerDoor { pending: Arc::clone(&self.pending) }
    }

    /// A group is about to be committed that changed these traces.
    pub(crate) fn tell(&self, id: SegmentId, batch_no: u64, traces: &[i64]) {
        self.pending.tell(id, batch_no, traces);
    }

    /// The group is committed, and these are its spans. Gives back what there is no room for.
    pub(crate) fn feed(&self, id: SegmentId, batch_no: u64, fed: Fed) -> Option<Vec<Prepared>> {
        self.pending.feed(id, batch_no, fed)
    }

    /// The group is not committed.
    pub(crate) fn is_not_fed(&self, id: SegmentId, batch_no: u64) {
        self.pending.is_not_fed(id, batch_no);
    }

    /// The writer begins with a segment, and with groups behind this one.
    pub(crate) fn opened(&self, id: SegmentId, batch_no: u64) {
        self.pending.begin_empty(id, batch_no);
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.pending.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Tells whoever counts on the thread that it is gone.
#[derive(Debug)]
struct End {
    pending: Arc<Pending>,
    metrics: IndexMetrics,
}

impl Drop for End {
    fn drop(&mut self) {
        self.metrics.following.set(0);
        if std::thread::panicking() {
            self.pending.abandon();
            tracing::error!(
                "the thread of the search index panicked; searches walk what is written from now on, until the server is started again"
            );
        }
    }
}

/// What the thread owns.
#[derive(Debug)]
struct Work {
    files: Arc<Files>,
    pending: Arc<Pending>,
    interval: Duration,
    metrics: IndexMetrics,
    /// The newest, and one that is closed.
    open: Vec<Open>,
    /// Closed segments whose index has everything, or that cannot be read.
    settled: HashSet<SegmentId>,
    /// Segments that are damaged: they are walked.
    unreadable: HashSet<SegmentId>,
    /// Spans that an index does not have yet.
    unindexed: HashMap<SegmentId, u64>,
    swept: Option<Instant>,
}

impl Work {
    fn new(
        files: Arc<Files>,
        pending: Arc<Pending>,
        interval: Duration,
        metrics: IndexMetrics,
    ) -> Self {
        Self {
            files,
            pending,
            interval,
            metrics,
            open: Vec::new(),
            settled: HashSet::new(),
            unreadable: HashSet::new(),
            unindexed: HashMap::new(),
            swept: None,
        }
    }

    fn run(&mut self) {
        let mut pause = Duration::ZERO;
        loop {
            let woken = self.pending.wait(pause);
            if woken.is_end {
                break;
            }
            let begin = Instant::now();
            let worked = self.round(woken.is_asked);
            self.tell_metrics();
            let is_more = match worked {
                Ok(is_more) => is_more,
                Err(error) => {
                    tracing::warn!(%error, "the search index could not be brought up to date; it will be tried again");
                    self.open.clear();
                    self.pending.drop_all_fed();
                    false
                }
            };
            if !is_more {
                self.pending.is_done(woken.asked);
            }
            // Half of the time at most: a search without the index is slower, not wrong.
            pause = if is_more { begin.elapsed().min(self.interval) } else { self.until_due() };
        }
        let begin = Instant::now();
        while begin.elapsed() < CLOSE_PATIENCE && self.round(true).is_ok_and(|is_more| is_more) {}
        for open in self.open.drain(..) {
            // What is not moved now stays in the log, and is there all the same.
            if let Err(error) = crate::segment::checkpoint(&open.index, "TRUNCATE") {
                tracing::debug!(%error, "a search index could not be checkpointed at its end");
            }
        }
    }

    /// How long what was handed over may still be gathered.
    fn until_due(&self) -> Duration {
        let oldest =
            self.open.iter().filter_map(|open| open.grown.as_ref()).map(|grown| grown.since);
        let waited = oldest.min().map(|since| since.elapsed()).unwrap_or_default();
        self.interval.saturating_sub(waited)
    }

    /// One piece of work, for the newest segment that has some; `true` when there may be more. What was
    /// handed over is written at once if `is_asked`.
    fn round(&mut self, is_asked: bool) -> Result<bool, IndexError> {
        let segments: Vec<SegmentId> = {
            let files = self.files.layout.files()?;
            files.into_iter().filter(|file| !file.is_skeleton).map(|file| file.id).collect()
        };
        self.sweep(&segments)?;
        let mut failed = Ok(());
        for id in self.files.index.take_damaged() {
            if let Err(error) = self.begin_anew(id) {
                self.files.index.mark_damaged(id);
                failed = Err(error);
            }
        }
        failed?;
        self.open.retain(|open| segments.contains(&open.id));
        self.unindexed.retain(|id, _| segments.contains(id));
        let newest = segments.first().copied();
        for id in &segments {
            if !self.settled.contains(id) && !self.unindexed.contains_key(id) {
                // What cannot be read is told when its turn comes.
                let spans = self.outstanding(*id).unwrap_or(0);
                self.unindexed.insert(*id, spans);
            }
        }
        for id in self.in_turn(segments) {
            if self.settled.contains(&id) || self.unreadable.contains(&id) {
                continue;
            }
            match self.piece(id, is_asked || Some(id) != newest) {
                Ok(true) => return Ok(true),
                Ok(false) if Some(id) != newest => self.settle(id),
                Ok(false) => {}
                Err(error) if error.is_damage_of_index() => {
                    tracing::warn!(segment = id.stem(), %error, "a search index is damaged and made anew");
                    self.begin_anew(id)?;
                    return Ok(true);
                }
                // Retention took it a moment ago.
                Err(_) if !self.files.layout.whole(id).exists() => self.settle(id),
                // Its writer is about to make its tables.
                Err(IndexError::SegmentFile(SchemaError::Unready)) if Some(id) == newest => {}
                Err(error) if error.is_damage_of_segment() => {
                    tracing::warn!(segment = id.stem(), %error, "a segment is not indexed");
                    self.open.retain(|open| open.id != id);
                    self.unreadable.insert(id);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Segments in the order in which they have their turn: what was handed over takes memory.
    fn in_turn(&self, newest_first: Vec<SegmentId>) -> Vec<SegmentId> {
        let mut first = Vec::new();
        for id in self.pending.fed_segments() {
            let is_useless = self.settled.contains(&id) || self.unreadable.contains(&id);
            if is_useless || !newest_first.contains(&id) {
                self.pending.drop_fed(id, u64::MAX);
            } else {
                first.push(id);
            }
        }
        let rest = newest_first.into_iter().filter(|id| !first.contains(id));
        first.iter().copied().chain(rest).collect()
    }

    /// Spans that the index of a segment does not have.
    fn outstanding(&self, id: SegmentId) -> Result<u64, IndexError> {
        let layout = &self.files.layout;
        let segment = SEGMENT.open_reader(&layout.whole(id)).map_err(IndexError::SegmentFile)?;
        let stored: i64 = segment
            .query_row("SELECT spans FROM state", [], |row| row.get(0))
            .map_err(IndexError::of_segment)?;
        let indexed = match file::INDEX.open_reader(&layout.index(id)) {
            Ok(index) if file::is_of(&index, &segment)? => Standing::read(&index)?.spans,
            _ => 0,
        };
        Ok((stored as u64).saturating_sub(indexed))
    }

    /// A closed segment needs no further look.
    fn settle(&mut self, id: SegmentId) {
        if let Some(at) = self.open.iter().position(|open| open.id == id) {
            let open = self.open.swap_remove(at);
            let merged = runs::merge_all(&open.index);
            if let Err(error) =
                merged.and_then(|()| crate::segment::checkpoint(&open.index, "TRUNCATE"))
            {
                tracing::debug!(%error, "a search index could not be merged and checkpointed");
                if schema::is_damage(&error) {
                    self.files.index.mark_damaged(id);
                }
            }
        }
        self.settled.insert(id);
        self.unindexed.remove(&id);
        self.pending.forget(id);
    }

    /// Removes an index, so that it is made anew.
    fn begin_anew(&mut self, id: SegmentId) -> Result<(), IndexError> {
        self.open.retain(|open| open.id != id);
        self.settled.remove(&id);
        self.unreadable.remove(&id);
        self.unindexed.remove(&id);
        remove_database(&self.files.layout.index(id))?;
        self.files.index.forget();
        self.metrics.rebuilds.inc();
        Ok(())
    }

    /// Removes indexes whose segments are gone, and counts the bytes of the others.
    fn sweep(&mut self, segments: &[SegmentId]) -> Result<(), IndexError> {
        if self.swept.is_some_and(|swept| swept.elapsed() < SWEEP_EVERY) {
            return Ok(());
        }
        let mut bytes = 0;
        for (id, path) in self.files.layout.indexes()? {
            if !segments.contains(&id) && !self.files.layout.whole(id).exists() {
                self.open.retain(|open| open.id != id);
                remove_database(&path)?;
                self.files.index.forget();
                self.pending.forget(id);
            } else if let Ok(metadata) = path.metadata() {
                bytes += metadata.len();
            }
        }
        self.metrics.bytes.set(bytes as i64);
        self.swept = Some(Instant::now());
        Ok(())
    }

    fn tell_metrics(&self) {
        self.metrics.unindexed_spans.set(self.unindexed.values().sum::<u64>() as i64);
        self.metrics.lag_milliseconds.set(self.pending.lag().as_millis() as i64);
    }

    /// A piece of work on one segment; `false` when there was nothing to do.
    fn piece(&mut self, id: SegmentId, is_due: bool) -> Result<bool, IndexError> {
        let at = match self.open.iter().position(|open| open.id == id) {
            Some(at) => at,
            None => {
                let opened = self.open(id)?;
                // The newest, and one before: what is gathered of another must not get lost.
                self.open.retain(|open| open.id > id || open.grown.is_some());
                self.open.push(opened);
                self.open.len() - 1
            }
        };
        let open = &mut self.open[at];
        let before = open.standing.spans;
        let is_old =
            open.grown.as_ref().is_some_and(|grown| grown.since.elapsed() >= self.interval);
        let done = open.piece(&self.pending, is_due || is_old);
        // Whatever came of it, the segment's snapshot must not stay.
        if !open.segment.is_autocommit() {
            open.segment.execute_batch("ROLLBACK").map_err(IndexError::of_segment)?;
        }
        if !open.index.is_autocommit() {
            open.index.execute_batch("ROLLBACK")?;
        }
        let (is_more, stored) = done?;
        self.metrics.indexed_spans.inc_by(open.standing.spans.saturating_sub(before));
        self.unindexed.insert(id, stored.saturating_sub(open.standing.spans));
        Ok(is_more)
    }

    fn open(&mut self, id: SegmentId) -> Result<Open, IndexError> {
        let layout = &self.files.layout;
        let segment = SEGMENT.open_reader(&layout.whole(id)).map_err(IndexError::SegmentFile)?;
        segment.pragma_update(None, "cache_size", -CACHE_KIB).map_err(IndexError::of_segment)?;
        let path = layout.index(id);
        let (mut index, is_anew) = file::open(&path)?;
        let mut rebuilt = is_anew;
        if !file::is_of(&index, &segment)? {
            tracing::info!(
                segment = id.stem(),
                "a search index is of another segment and is made anew"
            );
            drop(index);
            remove_database(&path)?;
            index = file::open(&path)?.0;
            rebuilt = true;
        }
        if rebuilt {
            self.files.index.forget();
            self.metrics.rebuilds.inc();
        }
        Open::new(id, segment, index)
    }
}

#[cfg(test)]
mod tests {
    use throughline_trace::{Span, SpanBatch, SpanId, TraceId};

    use super::*;
    use crate::layout::Layout;
    use crate::{Store, StoreOptions};

    #[tokio::test]
    async fn spans_of_segments_whose_turn_has_not_come_count_as_not_indexed() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions { max_segment_bytes: 1, ..StoreOptions::new(dir.path()) };
        let store = Store::open(options, &mut Registry::default()).unwrap();
        for number in 1..=4_u64 {
            let spans = (1..=10)
                .map(|id| {
                    let trace = TraceId::from_u128(number.into());
                    Span::new(trace, SpanId::from_u64(id), None, "chat")
                })
                .collect();
            store.inbox().commit(SpanBatch { spans, ..SpanBatch::default() }).await.unwrap();
        }
        store.close().await.unwrap();
        let files = Arc::new(Files::new(Layout::new(dir.path())));
        for (_, index) in files.layout.indexes().unwrap() {
            remove_database(&index).unwrap();
        }
        let metrics = IndexMetrics::default();
        let mut work = Work::new(files, Arc::default(), Duration::ZERO, metrics.clone());
        let mut told = Vec::new();
        while work.round(true).unwrap() {
            work.tell_metrics();
            told.push(metrics.unindexed_spans.get());
        }
        work.tell_metrics();
        told.push(metrics.unindexed_spans.get());
        told.dedup();
        assert!(told.ends_with(&[30, 20, 10, 0]), "{told:?}");
    }
}
