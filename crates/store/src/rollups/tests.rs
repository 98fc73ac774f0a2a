//! The way from a segment into `rollups.db`, cut at every step.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;
use throughline_trace::{Measure, Resolution, SeriesQuery, Span, SpanBatch, SpanId, TraceId};
use tokio::sync::{broadcast, oneshot};

use super::applier::Work;
use super::cells::{RollupFile, Source};
use super::door::{Progress, trim};
use crate::inbox::{Job, Queue};
use crate::layout::{Day, DirectoryLock, Layout, SegmentId};
use crate::metrics::StoreMetrics;
use crate::options::{MAX_SEGMENT_BYTES, RollupRetention, StoreOptions};
use crate::session::{Files, Session};
use crate::writer::Writer;
use crate::{prepare, read_metrics, read_rollups};

mod counting;

/// 2026-11-22T12:00:00Z, nanoseconds since the Unix epoch.
const NOON: u64 = 1_795_348_800_000_000_000;

/// Options whose applier does nothing by itself within a test.
fn options(dir: &Path, max_segment_bytes: u64) -> StoreOptions {
    StoreOptions {
        first_day_unix_nano: Some(NOON),
        max_segment_bytes,
        rollup_interval: std::time::Duration::from_secs(3_600),
        ..StoreOptions::new(dir)
    }
}

struct Server {
    writer: Writer,
    queue: Arc<Queue>,
}

fn start(dir: &Path) -> Server {
    start_with(dir, MAX_SEGMENT_BYTES)
}

fn start_with(dir: &Path, max_segment_bytes: u64) -> Server {
    start_of(options(dir, max_segment_bytes))
}

fn start_of(options: StoreOptions) -> Server {
    let layout = Layout::new(&options.data_dir);
    layout.create().unwrap();
    let lock = DirectoryLock::take(&layout).unwrap();
    let metrics = StoreMetrics::register(&mut prometheus_client::registry::Registry::default());
    let (committed, _) = broadcast::channel(8);
    let writer = Writer::open(layout, lock, &options, metrics.clone(), committed).unwrap();
    Server { writer, queue: Queue::new(options, metrics) }
}

impl Server {
    fn send(&mut self, ids: std::ops::Range<u64>) {
        self.send_of(1, ids);
    }

    fn send_of(&mut self, trace: u128, ids: std::ops::Range<u64>) {
        let spans = ids.map(|id| {
            let (trace, id) = (TraceId::from_u128(trace), SpanId::from_u64(id));
            let mut span = Span::new(trace, id, None, "work");
            span.start_unix_nano = NOON;
            span.end_unix_nano = NOON + 1_000;
            span.attributes.set("agent_id", "fraud");
            span
        });
        let batch = SpanBatch {
            received_unix_nano: NOON + 2_000,
            spans: spans.collect(),
            ..SpanBatch::default()
        };
        let (reply, mut answer) = oneshot::channel();
        let reservation = self.queue.reserve(1).unwrap();
        self.writer.write(vec![Job {
            prepared: prepare::prepare(batch, Default::default()).unwrap(),
            reservation,
            reply,
        }]);
        answer.try_recv().unwrap().unwrap();
    }
}

fn first() -> SegmentId {
    SegmentId::first(Day::of_nanos(NOON))
}

/// The files as a machine that stops now leaves them.
fn cut(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("segments")).unwrap();
    for folder in ["", "segments"] {
        for entry in fs::read_dir(dir.join(folder)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), copy.path().join(folder).join(entry.file_name())).unwrap();
            }
        }
    }
    copy
}

fn work(dir: &Path) -> Work {
    work_of(options(dir, MAX_SEGMENT_BYTES))
}

fn work_of(options: StoreOptions) -> Work {
    let layout = Layout::new(&options.data_dir);
    let file = RollupFile::open(&layout.rollups()).unwrap();
    Work::new(layout, options, file, Arc::new(Progress::default()))
}

/// Spans as stored, and as rollups count them by the minute and by the day, for all and by agent.
fn counts(dir: &Path) -> (u64, Vec<f64>) {
    let session = || Session::begin(Arc::new(Files::new(Layout::new(dir))));
    let stored = read_metrics::stats(&session()).unwrap().spans;
    let seconds = NOON / 1_000_000_000;
    let mut told = Vec::new();
    for resolution in [Resolution::Minute, Resolution::Day] {
        for group_by in [Vec::new(), vec![throughline_trace::Dimension::Agent]] {
            let query = SeriesQuery {
                step_seconds: resolution.seconds(),
                group_by,
                ..SeriesQuery::new(vec![Measure::Spans], seconds, seconds + 60)
            };
            let retention = RollupRetention::default();
            let found = read_rollups::series(&session(), &query, &retention).unwrap();
            assert!(found.coverage.is_whole(), "{:?}", found.coverage);
            told.push(found.groups.first().and_then(|group| group.totals[0]).unwrap_or(0.0));
        }
    }
    (stored, told)
}

/// After any cut, the next start has everything exactly once, and goes on from there.
fn check(image: &tempfile::TempDir, step: &str, max_segment_bytes: u64) {
    let dir = image.path();
    let settle = || {
        let mut work = work(dir);
        while work.round(false).unwrap() {}
        assert!(apply_all(&mut work, dir), "{step}: nothing is missing");
    };
    settle();
    let (stored, told) = counts(dir);
    assert_eq!(told, vec![stored as f64; 4], "{step}");
    let mut server = start_with(dir, max_segment_bytes);
    // Some of these are there already: the sender repeats what it was not told of.
    server.send(0..stored / 2 + 50);
    drop(server);
    settle();
    let (after, told) = counts(dir);
    assert_eq!(told, vec![after as f64; 4], "{step}, going on");
    assert!(after >= stored);
}

/// Applies what all segments have; `false` when one must be counted anew.
fn apply_all(work: &mut Work, dir: &Path) -> bool {
    Layout::new(dir).list().unwrap().into_iter().all(|id| work.apply_segment(id).unwrap())
}

#[test]
fn r_inv_9_a_cut_at_any_step_neither_loses_nor_counts_twice() {
    // One segment for the day, and one for each group.
    for max_segment_bytes in [MAX_SEGMENT_BYTES, 1] {
        cut_at_each_step(max_segment_bytes);
    }
}

fn cut_at_each_step(max_segment_bytes: u64) {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let mut server = start_with(dir, max_segment_bytes);
    let mut images = vec![("before anything", cut(dir))];
    server.send(0..20);
    images.push(("committed in the segment", cut(dir)));
    server.send(10..30);
    images.push(("two groups wait", cut(dir)));
    let mut applier = work(dir);
    assert!(apply_all(&mut applier, dir));
    images.push(("applied, and nobody knows", cut(dir)));
    server.send(30..40);
    images.push(("one is applied, one waits", cut(dir)));
    let id = Layout::new(dir).list().unwrap()[0];
    assert_eq!(id == first(), max_segment_bytes == MAX_SEGMENT_BYTES);
    let segment = Connection::open(Layout::new(dir).segment(id)).unwrap();
    let applied = |work: &mut Work| {
        work.apply_segment(id).unwrap();
        let rollups = Connection::open(Layout::new(dir).rollups()).unwrap();
        rollups
            .query_row(
                "SELECT batch_no FROM applied WHERE segment = ?1",
                [Source::from(id).0],
                |row| row.get::<_, i64>(0),
            )
            .unwrap() as u64
    };
    trim(&segment, applied(&mut applier)).unwrap();
    images.push(("trimmed", cut(dir)));
    server.send(40..45);
    images.push(("trimmed, and one waits", cut(dir)));
    // A restored backup of the rollups is older than what was trimmed: they are made anew.
    let stale = cut(dir);
    for suffix in ["", "-wal", "-shm"] {
        let name = format!("rollups.db{suffix}");
        let _ = fs::remove_file(stale.path().join(&name));
        let _ = fs::copy(images[1].1.path().join(&name), stale.path().join(&name));
    }
    images.push(("an older rollups.db", stale));
    drop(applier);
    drop(server);
    images.push(("stopped", cut(dir)));
    for (step, image) in &images {
        check(image, step, max_segment_bytes);
    }
}

#[test]
fn a_rebuild_that_is_cut_begins_again() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let mut server = start(dir);
    server.send(0..30);
    drop(server);
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(dir.join(format!("rollups.db{suffix}")));
    }
    // As a version without rollups leaves it.
    let segment = Connection::open(Layout::new(dir).segment(first())).unwrap();
    trim(&segment, 1_000).unwrap();
    segment
        .execute("UPDATE rollup_state SET complete_from = (SELECT batch_no FROM state)", [])
        .unwrap();
    drop(segment);
    let mut file = RollupFile::open(&Layout::new(dir).rollups()).unwrap();
    file.begin_anew(first().into()).unwrap();
    drop(file);
    check(&cut(dir), "a rebuild that was cut", MAX_SEGMENT_BYTES);
}

#[test]
fn pruning_goes_in_small_steps_and_keeps_the_coarse() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let mut server = start(dir);
    server.send(1..31);
    drop(server);
    let mut file = RollupFile::open(&Layout::new(dir).rollups()).unwrap();
    let retention = RollupRetention::default();
    let now = NOON / 1_000_000_000;
    assert!(!file.prune(&retention, now + 6 * 86_400).unwrap());
    assert_eq!(counts(dir).1, [30.0; 4]);
    assert!(!file.prune(&retention, now + 8 * 86_400).unwrap());
    assert_eq!(counts(dir).1, [0.0, 0.0, 30.0, 30.0]);
}
