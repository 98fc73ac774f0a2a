//! Counters of indicators over failures of the applier, and over changes of who counts.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use throughline_trace::{Counts, Observation, Observe};

use super::*;
use crate::indicators::Observer;

/// Longer than one piece of counting takes, so that each piece is one trace.
const MORE_THAN_A_PIECE: Duration = Duration::from_millis(210);

/// Counts every span for each of its indicators, and does something else with it.
struct All<F>(Vec<Arc<str>>, F);

impl<F> std::fmt::Debug for All<F> {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(to)
    }
}

impl<F: Fn() + Send + Sync> Observe for All<F> {
    fn observe(&self, _: &Span, into: &mut Vec<Observation>) {
        (self.1)();
        let of =
            |id: &Arc<str>| Observation { indicator: Arc::clone(id), counts: Counts::event(true) };
        into.extend(self.0.iter().map(of));
    }

    fn indicators(&self) -> Vec<Arc<str>> {
        self.0.clone()
    }
}

fn all(ids: &[&str], and: impl Fn() + Send + Sync + 'static) -> Arc<dyn Observe> {
    Arc::new(All(ids.iter().map(|id| Arc::from(*id)).collect(), and))
}

fn nothing() {}

fn observed(dir: &Path, max_segment_bytes: u64) -> (StoreOptions, Observer) {
    let options = options(dir, max_segment_bytes);
    let observer = options.observer.clone();
    (options, observer)
}

fn settle(work: &mut Work) {
    while work.round(false).unwrap() {}
}

/// What an indicator counts in parts that are whole, and how many parts those are.
fn whole_parts(dir: &Path, id: &str) -> (i64, i64) {
    let rollups = Connection::open(Layout::new(dir).rollups()).unwrap();
    let sql = "SELECT coalesce(sum(total), 0), count(DISTINCT part.segment)
        FROM indicator_parts part JOIN indicators USING (indicator)
        LEFT JOIN indicator_counts counts ON counts.indicator = part.indicator
            AND counts.segment = part.segment AND resolution = 0
        WHERE id = ?1 AND standing = 0";
    rollups.query_row(sql, [id], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
}

#[test]
fn a_part_that_a_failure_forgot_is_counted_anew_and_not_told_as_whole() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let (options, observer) = observed(dir, MAX_SEGMENT_BYTES);
    let mut server = start_of(options.clone());
    (1..=3).for_each(|trace| server.send_of(trace, 1..3));
    let mut work = work_of(options);
    observer.set(all(&["play"], || {
        let begin = Instant::now();
        while begin.elapsed() < MORE_THAN_A_PIECE {
            std::thread::yield_now();
        }
    }));
    assert!(work.round(false).unwrap(), "one trace of three is counted");
    let rollups = Connection::open(Layout::new(dir).rollups()).unwrap();
    let fail = "CREATE TRIGGER fail BEFORE INSERT ON applied BEGIN SELECT RAISE(ABORT, 'no'); END";
    rollups.execute_batch(fail).unwrap();
    server.send_of(4, 1..3);
    let error = work.round(false).unwrap_err();
    work.let_go(&error);
    rollups.execute_batch("DROP TRIGGER fail").unwrap();
    settle(&mut work);
    assert_eq!(whole_parts(dir, "play"), (8, 1));
}

#[test]
fn damage_of_the_rollups_has_closed_segments_counted_again() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    // A segment for each group.
    let (options, observer) = observed(dir, 1);
    observer.set(all(&["work"], nothing));
    let mut server = start_of(options.clone());
    (1..=3).for_each(|trace| server.send_of(trace, 1..3));
    let mut work = work_of(options);
    settle(&mut work);
    let whole = whole_parts(dir, "work");
    assert!(whole.0 == 6 && whole.1 >= 3, "{whole:?}");
    for ending in ["", "-wal", "-shm"] {
        let path = dir.join(format!("rollups.db{ending}"));
        fs::remove_file(&path).unwrap();
    }
    fs::write(dir.join("rollups.db"), [7_u8; 8_192]).unwrap();
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    let damage = rusqlite::Error::SqliteFailure(code, None);
    work.let_go(&super::super::applier::ApplyError::of_rollups(damage));
    settle(&mut work);
    assert_eq!(whole_parts(dir, "work"), whole);
}

#[test]
fn a_newest_segment_that_cannot_be_opened_keeps_no_other_waiting() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let (options, observer) = observed(dir, MAX_SEGMENT_BYTES);
    start_of(options.clone()).send(1..5);
    observer.set(all(&["work"], nothing));
    // As it is before its writer has made the tables.
    let next = SegmentId::first(Day(first().day.0 + 1));
    fs::write(Layout::new(dir).segment(next), []).unwrap();
    settle(&mut work_of(options));
    assert_eq!(whole_parts(dir, "work"), (4, 1));
}

#[test]
fn a_group_that_is_written_while_others_begin_to_count_is_counted_for_them() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let (options, observer) = observed(dir, MAX_SEGMENT_BYTES);
    let mut server = start_of(options.clone());
    server.send(1..5);
    let work = Arc::new(Mutex::new(work_of(options)));
    let (applier, changed) = (Arc::clone(&work), observer.clone());
    observer.set(all(&["work"], move || {
        // The group is under way: its spans are counted now, and it is not committed.
        if changed.now().generation == 1 {
            changed.set(all(&["work", "play"], nothing));
            settle(&mut applier.lock().unwrap());
        }
    }));
    server.send(5..11);
    let mut work = work.lock().unwrap();
    settle(&mut work);
    assert_eq!(whole_parts(dir, "play"), (10, 1));
    assert_eq!(whole_parts(dir, "work"), (10, 1));
}

#[test]
fn who_did_not_count_for_a_while_lacks_every_segment_of_it() {
    for is_back in [true, false] {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path();
        drop(start(dir));
        // So long that the first group is in the first segment, and has it full.
        let empty = fs::metadata(Layout::new(dir).segment(first())).unwrap().len();
        let (options, observer) = observed(dir, empty + 1);
        observer.set(all(&["work", "play"], nothing));
        let mut server = start_of(options.clone());
        let mut work = work_of(options);
        work.begin_counting().unwrap();
        settle(&mut work);
        assert_eq!(whole_parts(dir, "play"), (0, 1));
        // Between two rounds it does not count, and there is another segment.
        observer.set(all(&["work"], nothing));
        server.send_of(1, 1..1_001);
        server.send_of(2, 1..1_001);
        if is_back {
            observer.set(all(&["work", "play"], nothing));
        }
        settle(&mut work);
        assert_eq!(whole_parts(dir, "work"), (2_000, 2));
        assert_eq!(whole_parts(dir, "play"), if is_back { (2_000, 2) } else { (0, 0) });
    }
}
