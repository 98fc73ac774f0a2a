//! What is still to be sent to ClickHouse, over kills, repeats and further batches.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use throughline_store::clickhouse::{Batch, Feed, RowKind, StoredRows};
use throughline_store::{Store, StoreOptions};
use throughline_trace::{Span, SpanBatch, SpanId, TraceId};

const TARGET: &str = "http://one/#default";
const MANY: usize = 1_000_000;

fn open(dir: &Path, rows: usize) -> Feed {
    Feed::open(dir, TARGET, (rows, MANY)).unwrap()
}

async fn commit(store: &Store, trace: u128, ids: std::ops::Range<u64>) {
    let span = |id| {
        let name = format!("work {id}");
        Span::new(TraceId::from_u128(trace), SpanId::from_u64(id), None, &name)
    };
    let batch = SpanBatch { spans: ids.map(span).collect(), ..SpanBatch::default() };
    store.inbox().commit(batch).await.unwrap();
}

/// What ClickHouse would read: the newest version of each place.
#[derive(Default)]
struct Mirror {
    rows: BTreeMap<(String, i64), Value>,
    sent: u64,
}

impl Mirror {
    fn take(&mut self, batch: &Batch) {
        self.sent += batch.rows;
        assert_eq!(batch.rows, batch.inserts[0].rows.lines().count() as u64);
        for line in batch.inserts[0].rows.lines() {
            let mut row: Value = serde_json::from_str(line).unwrap();
            row.as_object_mut().unwrap().remove("version");
            let place = (row["segment"].as_str().unwrap().to_owned(), row["key"].as_i64().unwrap());
            self.rows.insert(place, row);
        }
    }

    fn drain(&mut self, feed: &mut Feed) {
        while let Some(batch) = feed.next_batch().unwrap() {
            self.take(&batch);
            feed.acknowledge().unwrap();
        }
    }

    fn assert_is(&self, dir: &Path) {
        let stored = StoredRows::new(dir);
        let mut expected = Vec::new();
        for segment in stored.segments().unwrap() {
            expected.extend(
                stored
                    .page(RowKind::Spans, &segment, (i64::MIN, MANY))
                    .unwrap()
                    .into_iter()
                    .map(|r| r.1),
            );
        }
        let found: Vec<Value> = self.rows.values().cloned().collect();
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn a_batch_is_the_same_until_it_is_acknowledged_also_over_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions::new(dir.path()), &mut Default::default()).unwrap();
    commit(&store, 1, 1..8).await;
    let mut feed = open(dir.path(), 5);
    let first = feed.next_batch().unwrap().unwrap();
    assert_eq!(first.rows, 5);
    // More comes before the batch is acknowledged: it is not part of what is repeated.
    commit(&store, 1, 8..10).await;
    assert_eq!(feed.next_batch().unwrap().unwrap().inserts[0], first.inserts[0]);
    drop(feed);
    // Whatever a batch may have by now, what was planned is sent, as it is acknowledged whole.
    let mut feed = open(dir.path(), 2);
    let again = feed.next_batch().unwrap().unwrap();
    assert_eq!(again.inserts[0], first.inserts[0]);
    feed.acknowledge().unwrap();
    let mut feed = open(dir.path(), 5);
    let second = feed.next_batch().unwrap().unwrap();
    assert_eq!(second.rows, 4);
    assert_ne!(second.inserts[0].token, first.inserts[0].token);
    feed.acknowledge().unwrap();
    assert_eq!(feed.next_batch().unwrap(), None);
    store.close().await.unwrap();
}

#[tokio::test]
async fn every_span_is_sent_once_whatever_order_traces_grow_in() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions::new(dir.path()), &mut Default::default()).unwrap();
    let (mut mirror, mut feed) = (Mirror::default(), open(dir.path(), 3));
    for round in 1..7_u64 {
        for trace in [1, 2 + u128::from(round)] {
            commit(&store, trace, round * 10..round * 10 + 4).await;
        }
        // A redelivery adds nothing.
        commit(&store, 1, round * 10..round * 10 + 4).await;
        mirror.drain(&mut feed);
        mirror.assert_is(dir.path());
        feed = open(dir.path(), 3);
    }
    assert_eq!((mirror.sent, mirror.rows.len()), (48, 48));
    let part = {
        commit(&store, 1, 100..101).await;
        let batch = feed.next_batch().unwrap().unwrap();
        serde_json::from_str::<Value>(batch.inserts[1].rows.trim()).unwrap()
    };
    assert_eq!(part["trace_id"], TraceId::from_u128(1).to_string());
    assert_eq!(part["span_count"], 25);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_trace_that_goes_on_behind_many_newer_ones_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions::new(dir.path()), &mut Default::default()).unwrap();
    let (mut mirror, mut feed) = (Mirror::default(), open(dir.path(), 5_000));
    // More than are looked at in any case.
    for part in 0..4_u128 {
        let span = |trace| Span::new(TraceId::from_u128(trace), SpanId::from_u64(1), None, "work");
        let spans = (1..=3_000).map(|n| span(part * 3_000 + n)).collect();
        store.inbox().commit(SpanBatch { spans, ..SpanBatch::default() }).await.unwrap();
        mirror.drain(&mut feed);
    }
    for round in 2..5_u64 {
        // The second time it is known to go on; after a start it is not.
        commit(&store, 1, round..round + 1).await;
        commit(&store, 11_999, round..round + 1).await;
        mirror.drain(&mut feed);
        assert_eq!(mirror.sent, 12_000 + 2 * (round - 1));
        if round == 3 {
            feed = open(dir.path(), 5_000);
        }
    }
    mirror.assert_is(dir.path());
    store.close().await.unwrap();
}

#[tokio::test]
async fn another_target_gets_everything() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreOptions::new(dir.path()), &mut Default::default()).unwrap();
    commit(&store, 1, 1..4).await;
    Mirror::default().drain(&mut open(dir.path(), 10));
    let mut other = Feed::open(dir.path(), "http://two/#default", (10, MANY)).unwrap();
    let mut mirror = Mirror::default();
    mirror.drain(&mut other);
    assert_eq!(mirror.sent, 3);
    mirror.assert_is(dir.path());
    store.close().await.unwrap();
}
