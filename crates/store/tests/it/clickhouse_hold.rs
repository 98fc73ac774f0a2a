//! Retention and sampling wait for ClickHouse, up to a limit; what goes without it is counted.

use std::path::Path;
use std::time::Duration;

use prometheus_client::registry::Registry;
use throughline_store::clickhouse::{Feed, Lost, RowKind};
use throughline_store::{MirrorHold, Retention, Sampling, SegmentState, Store, StoreOptions};
use throughline_trace::SamplingRate;

use crate::made::{self, DAY, NOON, span, spans};
use crate::retention::{SMALL, fill};

const HOUR: Duration = Duration::from_secs(3_600);
const MANY: u64 = 1 << 40;
const TARGET: &str = "http://one/#default";

fn feed(dir: &Path) -> Feed {
    Feed::open(dir, TARGET, (1_000, 1 << 30)).unwrap()
}

fn hold(max_age: Duration, max_bytes: u64) -> MirrorHold {
    MirrorHold { max_age, max_bytes, ..MirrorHold::new(TARGET) }
}

/// Takes what waits; how many spans that were.
fn drain(feed: &mut Feed) -> u64 {
    let mut spans = 0;
    while let Some(batch) = feed.next_batch().unwrap() {
        if batch.kind == RowKind::Spans {
            spans += batch.rows;
        }
        feed.acknowledge().unwrap();
    }
    spans
}

fn open(dir: &Path, hold: MirrorHold, sampling: Sampling) -> Store {
    let retention = Retention { max_age: None, max_bytes: Some(2 * SMALL) };
    // The rate of sampling is tried with whole days.
    let retention = if sampling.is_active() { Retention::default() } else { retention };
    let max_segment_bytes = if sampling.is_active() { MANY } else { SMALL };
    let options = StoreOptions {
        hold: Some(hold),
        max_segment_bytes,
        retention,
        sampling,
        ..made::options(dir)
    };
    Store::open(options, &mut Registry::default()).unwrap()
}

async fn retired(store: &Store) -> usize {
    let segments = store.reader().segments().await.unwrap();
    segments.iter().filter(|info| info.state == SegmentState::Retired).count()
}

#[tokio::test]
async fn retention_by_size_waits_for_clickhouse() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), hold(HOUR, MANY), Sampling::default());
    let mut feed = feed(dir.path());
    fill(&store, NOON, 1..80).await;
    store.keep_now().await;
    assert_eq!(retired(&store).await, 0);
    assert_eq!(drain(&mut feed), 79);
    store.keep_now().await;
    assert!(retired(&store).await > 1);
    assert_eq!(feed.lost().unwrap(), Lost::default());
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_full_disk_comes_first_and_what_is_lost_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), hold(HOUR, SMALL), Sampling::default());
    let mut feed = feed(dir.path());
    fill(&store, NOON, 1..10).await;
    let sent = drain(&mut feed);
    fill(&store, NOON, 10..120).await;
    store.keep_now().await;
    assert!(retired(&store).await > 1);
    // The limit of retention, what may wait, and what the open segment has.
    let segments = store.reader().segments().await.unwrap();
    let left = segments.iter().filter(|info| info.state == SegmentState::Sealed);
    assert!(left.map(|info| info.bytes).sum::<u64>() <= 4 * SMALL);
    let sent = sent + drain(&mut feed);
    let lost = feed.lost().unwrap();
    assert_eq!((lost.spans + sent, lost.logs, lost.points), (119, 0, 0));
    assert!(lost.spans > 0);
    // It is told over starts, and once.
    drop(feed);
    assert_eq!(self::feed(dir.path()).lost().unwrap(), lost);
    store.close().await.unwrap();
}

#[tokio::test]
async fn sampling_waits_for_clickhouse_and_not_for_ever() {
    let sampling = || Sampling {
        rest: SamplingRate::new(0.0).unwrap(),
        wait: Duration::ZERO,
        ..Sampling::default()
    };
    for (max_age, waits) in [(HOUR, true), (Duration::ZERO, false)] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), hold(max_age, MANY), sampling());
        let mut feed = feed(dir.path());
        for trace in 1..9 {
            let two = vec![span(trace, 1, None, 0), span(trace, 2, Some(1), 5)];
            store.inbox().commit(spans(NOON, two)).await.unwrap();
        }
        store.inbox().commit(spans(NOON + DAY, vec![span(99, 1, None, DAY)])).await.unwrap();
        store.keep_now().await;
        let stored = async || store.reader().stats().await.unwrap().spans;
        assert_eq!(stored().await, if waits { 17 } else { 1 });
        let sent = drain(&mut feed);
        store.keep_now().await;
        assert_eq!(stored().await, 1);
        let lost = feed.lost().unwrap().spans;
        assert_eq!((sent, lost), if waits { (17, 0) } else { (1, 16) });
        store.close().await.unwrap();
    }
}
