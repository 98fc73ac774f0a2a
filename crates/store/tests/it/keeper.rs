//! The keeper goes on when one of its files cannot be read.

use std::path::Path;
use std::time::Duration;

use prometheus_client::registry::Registry;
use rusqlite::Connection;
use throughline_store::{Retention, SegmentState, Store, StoreOptions, TraceFilter};

use crate::made::{self, DAY, NOON, decision, span, spans};
use crate::retention::{SMALL, fill};

fn open(dir: &Path, max_age: Option<Duration>) -> (Store, Registry) {
    let retention = Retention { max_age, max_bytes: None };
    let options = StoreOptions { max_segment_bytes: SMALL, retention, ..made::options(dir) };
    let mut registry = Registry::default();
    let store = Store::open(options, &mut registry).unwrap();
    (store, registry)
}

fn damaged_metric(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    let name = "throughline_store_damaged_segments ";
    text.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned()
}

/// Makes the hash of a segment the one that is looked at next; the lower, the sooner.
fn look_soon(dir: &Path, file: &str, turn: i64) {
    let control = Connection::open(dir.join("control.db")).unwrap();
    control.busy_timeout(Duration::from_secs(5)).unwrap();
    let sql = "UPDATE segments SET verified = ?2 WHERE file = ?1 AND blake3 IS NOT NULL";
    assert_eq!(control.execute(sql, (file, i64::MIN + turn)).unwrap(), 1);
}

#[tokio::test]
async fn a_missing_segment_and_an_unreadable_one_do_not_stop_the_keeper() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), None);
    fill(&store, NOON, 1..60).await;
    store.keep_now().await;
    store.close().await.unwrap();
    let segment = |name: &str| dir.path().join("segments").join(name);
    std::fs::remove_file(segment("2026-11-22.db")).unwrap();
    let (store, registry) = open(dir.path(), None);
    store.keep_now().await;
    // The missing one has waited longest, the other is one that the disk does not give.
    look_soon(dir.path(), "2026-11-22.db", 0);
    look_soon(dir.path(), "2026-11-22-1.db", 1);
    std::fs::remove_file(segment("2026-11-22-1.db")).unwrap();
    std::fs::create_dir(segment("2026-11-22-1.db")).unwrap();
    store.keep_now().await;
    assert_eq!(damaged_metric(&registry), "1");
    let known = store.reader().segments().await.unwrap();
    let state = |name: &str| known.iter().find(|one| one.segment == name).unwrap().state;
    assert_eq!(state("2026-11-22-1"), SegmentState::Damaged);
    assert_eq!(state("2026-11-22"), SegmentState::Missing);
    // It is told once, and the next one has its turn.
    look_soon(dir.path(), "2026-11-22-2.db", 2);
    store.keep_now().await;
    let known = store.reader().segments().await.unwrap();
    let looked = known.iter().find(|one| one.segment == "2026-11-22-2").unwrap();
    assert!(looked.verified_unix_nano > Some(2) && looked.damage.is_none(), "{looked:?}");
    assert_eq!(damaged_metric(&registry), "1");
    std::fs::remove_dir(segment("2026-11-22-1.db")).unwrap();
}

#[tokio::test]
async fn a_damaged_skeleton_stops_neither_the_others_nor_the_hashing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), Some(Duration::from_secs(86_400)));
    for (trace, day) in [(1, 0), (2, 1), (3, 3)] {
        let mut batch = spans(NOON + day * DAY, vec![span(trace, 1, None, 0)]);
        batch.decisions.push(decision(trace, trace, 1));
        store.inbox().commit(batch).await.unwrap();
    }
    store.keep_now().await;
    store.close().await.unwrap();
    let skeleton = |day: &str| dir.path().join(format!("segments/{day}.skeleton.db"));
    assert!(skeleton("2026-11-22").exists() && skeleton("2026-11-23").exists());
    // Nothing refers to them any more; the newer one comes first and cannot be read.
    let control = Connection::open(dir.path().join("control.db")).unwrap();
    control.execute("DELETE FROM decisions", []).unwrap();
    drop(control);
    std::fs::write(skeleton("2026-11-23"), vec![7; 16_384]).unwrap();
    let (store, registry) = open(dir.path(), None);
    store.keep_now().await;
    assert!(skeleton("2026-11-23").exists() && !skeleton("2026-11-22").exists());
    assert_eq!(damaged_metric(&registry), "1");
    let page = store.reader().traces(&TraceFilter::default(), None, 9).await.unwrap();
    assert_eq!(page.items.len(), 1);
}
