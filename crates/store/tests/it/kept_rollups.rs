//! Rollups of days with several segments, and of segments that go.

use std::path::Path;
use std::time::Duration;

use prometheus_client::registry::Registry;
use throughline_store::{
    BackupOptions, Coverage, Reader, Retention, RollupSeries, Store, StoreOptions, back_up,
    restore, verify_store,
};
use throughline_trace::{Dimension, Measure, OperationKind, SeriesQuery, SpanBatch, SpanRole};

use crate::made::{self, DAY, NOON, decision, span, spans};
use crate::retention::{SMALL, fill};
use crate::rollups::settled;

/// Rollups move by themselves only when somebody asks for it.
const NEVER: Duration = Duration::from_secs(3_600);

fn open(dir: &Path, retention: Retention, rollup_interval: Duration) -> Store {
    let options =
        StoreOptions { max_segment_bytes: SMALL, retention, rollup_interval, ..made::options(dir) };
    Store::open(options, &mut Registry::default()).unwrap()
}

fn quick(dir: &Path, retention: Retention) -> Store {
    open(dir, retention, Duration::from_millis(3))
}

const ALL: Retention = Retention { max_age: None, max_bytes: None };
const LITTLE: Retention = Retention { max_age: None, max_bytes: Some(4 * SMALL) };
const DAY_ONLY: Retention =
    Retention { max_age: Some(Duration::from_secs(86_400)), max_bytes: None };

fn query(from: u64) -> SeriesQuery {
    let (from, to) = (from / 1_000_000_000, (NOON + 9 * DAY) / 1_000_000_000);
    SeriesQuery { step_seconds: 86_400, ..SeriesQuery::new(vec![Measure::Spans], from, to) }
}

fn total(series: &RollupSeries) -> f64 {
    series.groups.first().and_then(|group| group.totals[0]).unwrap_or(0.0)
}

async fn counted(reader: &Reader) -> f64 {
    total(&settled(reader, &query(NOON - DAY)).await)
}

/// The answer once nothing waits any more; something may be missing for good.
#[expect(clippy::panic, reason = "a test that cannot go on fails")]
async fn at_rest(reader: &Reader, query: &SeriesQuery) -> RollupSeries {
    for _ in 0..4_000 {
        let found = reader.series(query).await.unwrap();
        let Coverage { watermark_unix_nano, rebuilding_days, .. } = &found.coverage;
        if watermark_unix_nano.is_none() && rebuilding_days.is_empty() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("the rollups did not come to rest")
}

fn remove_rollups(dir: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(dir.join(format!("rollups.db{suffix}")));
    }
}

#[tokio::test]
async fn each_segment_of_a_day_is_counted_once_and_can_be_counted_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path(), ALL);
    fill(&store, NOON, 1..80).await;
    assert!(store.reader().segments().await.unwrap().len() > 3);
    assert_eq!(counted(&store.reader()).await, 79.0);
    store.close().await.unwrap();
    let store = quick(dir.path(), ALL);
    fill(&store, NOON, 80..120).await;
    assert_eq!(counted(&store.reader()).await, 119.0);
    store.close().await.unwrap();
    // What waits in closed segments is told, however many they are.
    remove_rollups(dir.path());
    let store = open(dir.path(), ALL, NEVER);
    let found = store.reader().series(&query(NOON - DAY)).await.unwrap();
    assert!(!found.coverage.is_whole());
    assert_eq!(found.coverage.rebuilding_days, [NOON / 1_000_000_000 / 86_400 * 86_400]);
    store.close().await.unwrap();
    let store = quick(dir.path(), ALL);
    assert_eq!(counted(&store.reader()).await, 119.0);
    store.close().await.unwrap();
}

#[tokio::test]
async fn rollups_outlive_their_segments_and_are_complete_before_these_go() {
    let dir = tempfile::tempdir().unwrap();
    // Nothing moves by itself: only retention can have it counted before it takes a segment.
    let store = open(dir.path(), LITTLE, NEVER);
    fill(&store, NOON, 1..160).await;
    store.keep_now().await;
    let left = store.reader().stats().await.unwrap().spans;
    assert!(left < 120, "segments went: {left} spans are left");
    store.close().await.unwrap();
    for _ in 0..2 {
        let store = quick(dir.path(), LITTLE);
        assert_eq!(counted(&store.reader()).await, 159.0);
        store.keep_now().await;
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn what_cannot_be_counted_anew_is_told_and_not_made_up() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path(), DAY_ONLY);
    let mut decided = spans(NOON, vec![span(1, 1, None, 0), span(2, 1, None, 0)]);
    decided.spans[0].attributes.set("agent_id", "fraud");
    decided.decisions.push(decision(1, 1, 0));
    store.inbox().commit(decided).await.unwrap();
    store.inbox().commit(spans(NOON + DAY, vec![span(3, 1, None, DAY)])).await.unwrap();
    store.inbox().commit(spans(NOON + 3 * DAY, vec![span(4, 1, None, 3 * DAY)])).await.unwrap();
    store.keep_now().await;
    // The first day has a skeleton, of the second nothing is left.
    assert_eq!(store.reader().stats().await.unwrap().spans, 2);
    assert_eq!(counted(&store.reader()).await, 4.0);
    store.close().await.unwrap();

    // An older copy of the rollups stays as it is: a skeleton would say less.
    let store = quick(dir.path(), DAY_ONLY);
    assert_eq!(counted(&store.reader()).await, 4.0);
    store.close().await.unwrap();

    remove_rollups(dir.path());
    let store = quick(dir.path(), DAY_ONLY);
    let found = at_rest(&store.reader(), &query(NOON - DAY)).await;
    let day = |days: u64| (NOON + days * DAY) / 1_000_000_000 / 86_400 * 86_400;
    assert_eq!(found.coverage.incomplete_days, [day(0), day(1)]);
    assert!(!found.coverage.is_whole());
    assert_eq!(total(&found), 1.0, "nothing comes from a skeleton");
    // Where it cannot touch the answer it is no warning.
    let later = at_rest(&store.reader(), &query(NOON + 3 * DAY)).await;
    assert!(later.coverage.is_whole(), "{:?}", later.coverage);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_call_whose_first_telling_is_a_skeleton_takes_nothing_back_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let told = |id, parent, received| -> SpanBatch {
        let mut one = span(1, id, parent, 0);
        for (key, value) in
            [("operation.name", "chat"), ("request.model", "small"), ("response.id", "a")]
        {
            one.attributes.set(format!("gen_ai.{key}"), value);
        }
        spans(received, vec![one])
    };
    let store = quick(dir.path(), DAY_ONLY);
    let mut first = told(1, None, NOON);
    first.decisions.push(decision(1, 1, 0));
    store.inbox().commit(first).await.unwrap();
    store.inbox().commit(spans(NOON + 2 * DAY, vec![span(9, 1, None, 0)])).await.unwrap();
    store.keep_now().await;
    store.inbox().commit(told(2, Some(1), NOON + 2 * DAY)).await.unwrap();
    // It counts twice, since nobody knows any more what it added when it was told before; that is
    // so whatever it is grouped by.
    let calls = SeriesQuery {
        measures: vec![Measure::Count],
        kinds: vec![OperationKind::Role(SpanRole::LlmCall)],
        ..query(NOON - DAY)
    };
    for query in [calls.clone(), calls.by(Dimension::Model)] {
        let found = settled(&store.reader(), &query).await;
        assert_eq!(found.groups.len(), 1, "{:?}", found.groups);
        assert_eq!(found.groups[0].totals, [Some(2.0)]);
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_name_that_was_used_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = quick(dir.path(), ALL);
    fill(&store, NOON, 1..40).await;
    assert_eq!(counted(&store.reader()).await, 39.0);
    let before = store.reader().segments().await.unwrap();
    store.close().await.unwrap();
    // Somebody made room by hand.
    for entry in std::fs::read_dir(dir.path().join("segments")).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let store = quick(dir.path(), ALL);
    fill(&store, NOON, 50..52).await;
    assert_eq!(counted(&store.reader()).await, 41.0);
    let names: Vec<String> =
        store.reader().segments().await.unwrap().into_iter().map(|one| one.segment).collect();
    assert_eq!(names.len(), before.len() + 1, "{names:?}");
    store.close().await.unwrap();
}

fn take(data: &Path, target: &Path) -> throughline_store::BackedUp {
    let options =
        BackupOptions { data_dir: data.to_owned(), target: target.to_owned(), link: false };
    back_up(&options, |_| {}).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_has_the_rollups_of_what_went_and_counts_the_rest_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (data, target) = (dir.path().join("data"), dir.path().join("backup"));
    let store = std::sync::Arc::new(quick(&data, LITTLE));
    fill(&store, NOON, 1..20).await;
    assert_eq!(counted(&store.reader()).await, 19.0);
    let of_load = std::sync::Arc::clone(&store);
    let load = tokio::spawn(async move { fill(&of_load, NOON, 20..200).await });
    for round in 0..3 {
        let (of_data, of_target) = (data.clone(), target.clone());
        tokio::task::spawn_blocking(move || take(&of_data, &of_target)).await.unwrap();
        store.keep_now().await;
        let new = dir.path().join(format!("new-{round}"));
        restore(&target, &new, |_| {}).unwrap();
        let report = verify_store(&new, |_| {}).unwrap();
        assert!(report.is_good(), "{report:?}");
        assert!(report.files.iter().any(|file| file.file == "rollups.db" && file.rows > 0));
        // Without a server: what waits in a copied segment is still to be applied, none anew.
        let reader = Reader::open(&new).unwrap();
        let coverage = reader.series(&query(NOON - DAY)).await.unwrap().coverage;
        assert!(coverage.rebuilding_days.is_empty(), "round {round}: {coverage:?}");
        assert!(coverage.incomplete_days.is_empty(), "round {round}: {coverage:?}");
    }
    load.await.unwrap();
    store.keep_now().await;
    assert!(store.reader().stats().await.unwrap().spans < 150, "some went");
    let last = dir.path().join("last");
    take(&data, &target);
    restore(&target, &last, |_| {}).unwrap();
    let copy = quick(&last, LITTLE);
    assert_eq!(counted(&copy.reader()).await, 199.0);
    fill(&copy, NOON, 300..310).await;
    assert_eq!(counted(&copy.reader()).await, 209.0);
    copy.close().await.unwrap();

    // Damaged rollups are named; the backup has the rest, and the restored counts what it can.
    drop(store);
    let path = data.join("rollups.db");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[..64].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    let report = verify_store(&data, |_| {}).unwrap();
    let bad: Vec<_> = report.files.iter().filter(|file| file.damage.is_some()).collect();
    assert_eq!(bad.len(), 1, "{bad:?}");
    assert_eq!(bad[0].file, "rollups.db");
    let other = dir.path().join("other");
    assert_eq!(take(&data, &other).damaged, ["rollups.db"]);
}
