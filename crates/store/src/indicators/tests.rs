//! Counters against what was inserted: once each, also for indicators that came later, and after a loss.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use throughline_trace::{
    Counts, Observation, Observe, Resolution, Span, SpanBatch, SpanId, Status, StatusCode, TraceId,
};

use super::*;
use crate::{Reader, Store, StoreOptions};

/// 2026-11-22T12:00:00Z, nanoseconds since the Unix epoch.
const NOON: u64 = 1_795_348_800_000_000_000;

/// Counts spans by the first letter of their names; good are those without an error.
#[derive(Debug)]
struct ByName(Vec<Arc<str>>);

impl Observe for ByName {
    fn observe(&self, span: &Span, into: &mut Vec<Observation>) {
        for id in self.0.iter().filter(|id| span.name.starts_with(&***id)) {
            let counts = Counts::event(span.status.code != StatusCode::Error);
            into.push(Observation { indicator: Arc::clone(id), counts });
        }
    }

    fn indicators(&self) -> Vec<Arc<str>> {
        self.0.clone()
    }
}

fn by_name(ids: &[&str]) -> Arc<dyn Observe> {
    Arc::new(ByName(ids.iter().map(|id| Arc::from(*id)).collect()))
}

fn options(dir: &std::path::Path, ids: &[&str]) -> StoreOptions {
    let options = StoreOptions {
        first_day_unix_nano: Some(NOON),
        rollup_interval: Duration::from_millis(5),
        ..StoreOptions::new(dir)
    };
    if !ids.is_empty() {
        options.observer.set(by_name(ids));
    }
    options
}

fn open(dir: &std::path::Path, ids: &[&str]) -> (Store, Observer) {
    let options = options(dir, ids);
    let observer = options.observer.clone();
    (Store::open(options, &mut Registry::default()).unwrap(), observer)
}

fn batch(ids: std::ops::Range<u64>, name: &str) -> SpanBatch {
    let spans = ids.map(|id| {
        let trace = TraceId::from_u128(u128::from(id / 10 + 1));
        let mut span = Span::new(trace, SpanId::from_u64(id + 1), None, name);
        span.start_unix_nano = NOON;
        span.end_unix_nano = NOON + 1_000;
        if id.is_multiple_of(5) {
            span.status = Status { code: StatusCode::Error, message: String::new() };
        }
        span
    });
    SpanBatch { received_unix_nano: NOON + 2_000, spans: spans.collect(), ..SpanBatch::default() }
}

/// What is counted at last, by the minute and by the day, which are the same here; total and good.
async fn counted(reader: &Reader, id: &str) -> (i64, i64) {
    let seconds = NOON / 1_000_000_000;
    let ask = async |resolution| {
        let indicators = vec![Arc::from(id)];
        let (from_unix_seconds, to_unix_seconds) = (seconds, seconds + 60);
        let query = IndicatorQuery { indicators, resolution, from_unix_seconds, to_unix_seconds };
        reader.indicators(query).await.unwrap()
    };
    let patience = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let answer = ask(Resolution::Minute).await;
        let is_whole = answer.coverage.get(id).is_some_and(|one| one.from_unix_seconds == 0);
        if is_whole && answer.watermark_unix_nano.is_none() {
            let of = |answer: &IndicatorCounts| {
                let found = answer.counts.get(id).map(Vec::as_slice).unwrap_or_default();
                assert!(found.len() <= 1, "{found:?}");
                found.first().map_or((0, 0), |(_, counts)| (counts.total, counts.good))
            };
            let by_day = ask(Resolution::Day).await;
            assert_eq!(of(&answer), of(&by_day));
            return of(&answer);
        }
        assert!(tokio::time::Instant::now() < patience, "never whole: {answer:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_is_inserted_is_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), &["work"]);
    for _ in 0..3 {
        store.inbox().commit(batch(0..10, "work")).await.unwrap();
    }
    store.inbox().commit(batch(10..20, "play")).await.unwrap();
    assert_eq!(counted(&store.reader(), "work").await, (10, 8));
    store.close().await.unwrap();
    let (store, _) = open(dir.path(), &["work"]);
    store.inbox().commit(batch(5..15, "work")).await.unwrap();
    // Of 10 to 14 there are others under the same ids: conflicting spans are kept, and count.
    assert_eq!(counted(&store.reader(), "work").await, (15, 12));
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_new_indicator_counts_what_is_stored_already_while_more_comes() {
    let dir = tempfile::tempdir().unwrap();
    let (store, observer) = open(dir.path(), &["work"]);
    for at in 0..20 {
        store.inbox().commit(batch(at * 100..at * 100 + 100, "work")).await.unwrap();
        if at == 10 {
            observer.set(by_name(&["work", "w", "play"]));
        }
    }
    for id in ["work", "w"] {
        assert_eq!(counted(&store.reader(), id).await, (2_000, 1_600), "{id}");
    }
    assert_eq!(counted(&store.reader(), "play").await, (0, 0));
    store.close().await.unwrap();
    // A restart in which nobody counts it, and one in which it is back.
    let (store, _) = open(dir.path(), &["work"]);
    store.inbox().commit(batch(5_000..5_100, "work")).await.unwrap();
    assert_eq!(counted(&store.reader(), "work").await, (2_100, 1_680));
    store.close().await.unwrap();
    let (store, _) = open(dir.path(), &["work", "w"]);
    for id in ["work", "w"] {
        assert_eq!(counted(&store.reader(), id).await, (2_100, 1_680), "{id}");
    }
    store.close().await.unwrap();
}

/// Takes its time, so that a segment is not counted in one piece.
#[derive(Debug)]
struct Slow(Arc<dyn Observe>);

impl Observe for Slow {
    fn observe(&self, span: &Span, into: &mut Vec<Observation>) {
        std::thread::sleep(Duration::from_millis(20));
        self.0.observe(span, into);
    }

    fn indicators(&self) -> Vec<Arc<str>> {
        self.0.indicators()
    }
}

#[tokio::test]
async fn indicators_that_come_while_a_segment_is_counted_leave_none_half_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (store, observer) = open(dir.path(), &[]);
    store.inbox().commit(batch(0..100, "work")).await.unwrap();
    observer.set(Arc::new(Slow(by_name(&["work"]))));
    let is_begun = async || {
        let seconds = NOON / 1_000_000_000;
        let query = IndicatorQuery {
            indicators: vec![Arc::from("work")],
            resolution: Resolution::Minute,
            from_unix_seconds: seconds,
            to_unix_seconds: seconds + 60,
        };
        let answer = store.reader().indicators(query).await.unwrap();
        answer.coverage.get("work").is_some_and(|one| one.is_estimated_before)
    };
    while !is_begun().await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    observer.set(by_name(&["work", "w"]));
    for id in ["work", "w"] {
        assert_eq!(counted(&store.reader(), id).await, (100, 80), "{id}");
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn counters_that_are_lost_are_counted_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), &["work"]);
    store.inbox().commit(batch(0..100, "work")).await.unwrap();
    assert_eq!(counted(&store.reader(), "work").await, (100, 80));
    store.close().await.unwrap();
    std::fs::remove_file(dir.path().join("rollups.db")).unwrap();
    let (store, _) = open(dir.path(), &["work"]);
    store.inbox().commit(batch(100..200, "work")).await.unwrap();
    assert_eq!(counted(&store.reader(), "work").await, (200, 160));
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_segment_whose_deltas_could_not_be_read_is_not_told_as_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), &["work"]);
    store.inbox().commit(batch(0..10, "work")).await.unwrap();
    assert_eq!(counted(&store.reader(), "work").await, (10, 8));
    store.close().await.unwrap();
    let rollups = rusqlite::Connection::open(dir.path().join("rollups.db")).unwrap();
    let incomplete = crate::rollups::Standing::Incomplete as i64;
    let changed = rollups.execute("UPDATE applied SET standing = ?1", [incomplete]).unwrap();
    assert!(changed > 0);
    let query = IndicatorQuery {
        indicators: vec![Arc::from("work")],
        resolution: Resolution::Minute,
        from_unix_seconds: NOON / 1_000_000_000,
        to_unix_seconds: NOON / 1_000_000_000 + 60,
    };
    let answer = Reader::open(dir.path()).unwrap().indicators(query).await.unwrap();
    let coverage = answer.coverage["work"];
    assert!(coverage.from_unix_seconds > NOON / 1_000_000_000, "{coverage:?}");
    assert!(coverage.is_estimated_before);
}

#[tokio::test]
async fn a_segment_that_is_gone_is_not_taken_for_counted() {
    let dir = tempfile::tempdir().unwrap();
    // A segment for each group.
    let options = || StoreOptions { max_segment_bytes: 1, ..options(dir.path(), &["work", "w"]) };
    let open = |options| Store::open(options, &mut Registry::default()).unwrap();
    let store = open(StoreOptions { observer: Observer::default(), ..options() });
    for at in 0..3 {
        store.inbox().commit(batch(at * 10..at * 10 + 10, "work")).await.unwrap();
    }
    store.close().await.unwrap();
    let layout = crate::layout::Layout::new(dir.path());
    let ids = layout.list().unwrap();
    let mut removed = ids.iter().rev().copied().filter(|id| {
        let segment = rusqlite::Connection::open(layout.segment(*id)).unwrap();
        segment.query_row("SELECT spans > 0 FROM state", [], |row| row.get(0)).unwrap()
    });
    let removed = removed.next().unwrap();
    // With those before it, which have no spans and would be counted all the same.
    for id in ids.iter().filter(|id| **id <= removed) {
        std::fs::remove_file(layout.segment(*id)).unwrap();
    }
    let store = open(options());
    let seconds = NOON / 1_000_000_000;
    let query = IndicatorQuery {
        indicators: vec![Arc::from("w")],
        resolution: Resolution::Minute,
        from_unix_seconds: seconds,
        to_unix_seconds: seconds + 60,
    };
    let hour_after = removed.day.end_nanos() / 1_000_000_000 + 3_600;
    let told = IndicatorCoverage { from_unix_seconds: hour_after, is_estimated_before: false };
    let patience = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let answer = store.reader().indicators(query.clone()).await.unwrap();
        let total: i64 = answer.counts.values().flatten().map(|(_, counts)| counts.total).sum();
        let coverage = answer.coverage.get("w").copied();
        // Whatever was counted by now, the hour of the one that is gone is never told as whole.
        assert!(coverage.is_none_or(|one| one.from_unix_seconds >= hour_after), "{answer:?}");
        // Segments without spans add nothing to the total, and are looked at too.
        if total == 20 && coverage == Some(told) {
            break;
        }
        assert!(tokio::time::Instant::now() < patience, "never counted: {answer:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    store.close().await.unwrap();
}

/// A telling of one model call under this id.
fn call(id: u64, parent: Option<u64>) -> SpanBatch {
    let parent = parent.map(SpanId::from_u64);
    let mut span = Span::new(TraceId::from_u128(1), SpanId::from_u64(id), parent, "chat gpt-4o");
    (span.start_unix_nano, span.end_unix_nano) = (NOON + id, NOON + 1_000 - id);
    span.attributes.set("gen_ai.operation.name", "chat");
    span.attributes.set("gen_ai.usage.input_tokens", 100_i64);
    span.attributes.set("gen_ai.usage.output_tokens", 10_i64);
    let received_unix_nano = NOON + 2_000;
    SpanBatch { received_unix_nano, spans: vec![span], ..SpanBatch::default() }
}

#[tokio::test]
async fn a_call_that_is_told_twice_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let (store, observer) = open(dir.path(), &["chat"]);
    let mut both = call(1, None);
    both.spans.extend(call(2, Some(1)).spans);
    store.inbox().commit(both).await.unwrap();
    let told = counted(&store.reader(), "chat").await;
    assert_eq!(told, (1, 1));
    observer.set(by_name(&["chat", "cha"]));
    assert_eq!(counted(&store.reader(), "cha").await, told, "from rows as from what came");
    store.close().await.unwrap();
}

/// What comes between the two tellings of a call.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Between {
    Restart,
    /// The second comes into another segment.
    Roll,
    /// Others count.
    Change,
}

#[tokio::test]
async fn a_call_that_is_told_again_later_counts_once() {
    for between in [Between::Restart, Between::Roll, Between::Change] {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            let mut options = options(dir.path(), &["chat"]);
            if between == Between::Roll {
                options.max_segment_bytes = 1;
            }
            let observer = options.observer.clone();
            (Store::open(options, &mut Registry::default()).unwrap(), observer)
        };
        let (mut store, mut observer) = open();
        store.inbox().commit(call(1, None)).await.unwrap();
        assert_eq!(counted(&store.reader(), "chat").await, (1, 1), "{between:?}");
        match between {
            Between::Restart => {
                store.close().await.unwrap();
                (store, observer) = open();
            }
            Between::Roll => {}
            Between::Change => {
                observer.set(by_name(&["chat", "cha"]));
                assert_eq!(counted(&store.reader(), "cha").await, (1, 1));
            }
        }
        store.inbox().commit(call(2, Some(1))).await.unwrap();
        assert_eq!(counted(&store.reader(), "chat").await, (1, 1), "{between:?}");
        if between != Between::Change {
            observer.set(by_name(&["chat", "cha"]));
        }
        assert_eq!(counted(&store.reader(), "cha").await, (1, 1), "from rows, {between:?}");
        store.close().await.unwrap();
    }
}
