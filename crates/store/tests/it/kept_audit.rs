//! The audit log beside segments that go, and in what is restored.

use std::path::Path;
use std::time::Duration;

use prometheus_client::registry::Registry;
use throughline_store::{
    AnchorLines, AuditKeys, AuditLog, BackupOptions, Checkpoint, ProblemKind, Reader, Retention,
    Store, StoreOptions, Verification, VerifyOptions, back_up, restore, verify_store,
};
use throughline_trace::TraceId;

use crate::made::{self, DAY, NOON, decision, span, spans};

fn open(dir: &Path) -> Store {
    let max_age = Some(Duration::from_secs(86_400));
    let retention = Retention { max_age, max_bytes: None };
    let options = StoreOptions { retention, keep_derived: true, ..made::options(dir) };
    Store::open(options, &mut Registry::default()).unwrap()
}

fn verify(dir: &Path, anchor: &Checkpoint) -> Verification {
    let lines = vec![anchor.to_line()];
    let anchors = vec![AnchorLines { name: "disk".to_owned(), lines }];
    let audit = AuditLog::new(dir, AuditKeys::default());
    audit.verify(&VerifyOptions { anchors, ..VerifyOptions::default() }).unwrap()
}

fn take(data: &Path, target: &Path) {
    let options =
        BackupOptions { data_dir: data.to_owned(), target: target.to_owned(), link: false };
    back_up(&options, |_| {}).unwrap();
}

/// Whether each of the two traces is there, and if so as a skeleton.
async fn skeletons(reader: &Reader) -> [Option<bool>; 2] {
    let mut found = [None; 2];
    for (at, place) in found.iter_mut().enumerate() {
        let trace = reader.trace(TraceId::from_u128(at as u128 + 1)).await.unwrap();
        *place = trace.map(|trace| trace.is_skeleton);
    }
    found
}

#[tokio::test]
async fn r4_4_skeletons_follow_decisions_and_anchors_vouch_for_what_is_restored() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let data = path("data");
    let audit = AuditLog::new(&data, AuditKeys::default());
    let store = open(&data);
    let mut batch = spans(NOON, vec![span(1, 1, None, 0), span(2, 1, None, 0)]);
    let mut derived = decision(2, 2, 10);
    derived.derived = true;
    batch.decisions.extend([decision(1, 1, 0), derived]);
    store.inbox().commit(batch).await.unwrap();
    let early = audit.checkpoint().unwrap().unwrap();
    store.inbox().commit(spans(NOON + 2 * DAY, vec![span(3, 1, None, 0)])).await.unwrap();
    store.keep_now().await;
    assert_eq!(skeletons(&store.reader()).await, [Some(true), Some(true)]);
    take(&data, &path("first"));

    // The log lets the older decision go, and its skeleton goes with it at the next look.
    assert_eq!(audit.retire(NOON + 8).unwrap().decisions, 1);
    store.close().await.unwrap();
    let store = open(&data);
    store.keep_now().await;
    assert_eq!(skeletons(&store.reader()).await, [None, Some(true)]);
    let mut later = spans(NOON + 2 * DAY, vec![]);
    later.decisions.push(decision(3, 3, 2 * DAY));
    store.inbox().commit(later).await.unwrap();
    let late = audit.checkpoint().unwrap().unwrap();
    take(&data, &path("second"));
    store.close().await.unwrap();
    for anchor in [&early, &late] {
        let found = verify(&data, anchor);
        assert!(found.is_good(), "{:?}", found.problems);
    }

    // What is restored is vouched for by every anchor of before the backup.
    for (backup, anchors, left) in [
        ("second", vec![&early, &late], [None, Some(true)]),
        ("first", vec![&early], [Some(true), Some(true)]),
    ] {
        let new = path(&format!("new-{backup}"));
        restore(&path(backup), &new, |_| {}).unwrap();
        for anchor in anchors {
            let found = verify(&new, anchor);
            assert!(found.is_good(), "{backup}: {:?}", found.problems);
        }
        assert!(verify_store(&new, |_| {}).unwrap().is_good());
        let reader = Reader::open(&new).unwrap();
        assert_eq!(skeletons(&reader).await, left, "{backup}");
        let kept = reader.decision(made::decision(2, 2, 10).decision_id).await.unwrap().unwrap();
        assert!(kept.derived);
    }
    // One of after it tells what an older backup lacks.
    let found = verify(&path("new-first"), &late);
    let kinds: Vec<ProblemKind> = found.problems.iter().map(|problem| problem.kind).collect();
    assert_eq!(kinds, [ProblemKind::Truncated]);
}
