//! Decisions that were derived from spans, when retention takes those spans.

use std::path::Path;
use std::time::Duration;

use prometheus_client::registry::Registry;
use throughline_store::{
    AuditFilter, AuditKeys, AuditLog, DecisionFilter, Reader, Retention, Store, StoreOptions,
};
use throughline_trace::{Decision, DecisionId, SpanBatch, TraceId};

use crate::audit::{text, verify};
use crate::made::{self, DAY, NOON, decision, span, spans};
use crate::retention::metric;

/// A server that keeps spans for a day after the end of theirs.
fn open(dir: &Path, keep_derived: bool) -> (Store, Registry) {
    let max_age = Some(Duration::from_secs(86_400));
    let retention = Retention { max_age, max_bytes: None };
    let mut registry = Registry::default();
    let options = StoreOptions { retention, keep_derived, ..made::options(dir) };
    (Store::open(options, &mut registry).unwrap(), registry)
}

/// As a server derives one from a span.
pub(crate) fn derived(trace: u128, id: u128) -> Decision {
    Decision {
        derived: true,
        seq: 0,
        input_hash: String::new(),
        instance_id: String::new(),
        ..decision(trace, id, id as u64)
    }
}

/// Spans of these traces that arrive on a day after the first, and decisions.
fn batch(day: u64, traces: &[u128], decisions: Vec<Decision>) -> SpanBatch {
    let of = |trace: &u128| span(*trace, day + 1, None, day);
    SpanBatch { decisions, ..spans(NOON + day * DAY, traces.iter().map(of).collect()) }
}

/// What is left of a trace: whether only its skeleton is, and its decisions.
async fn left(reader: &Reader, trace: u128) -> Option<(bool, usize)> {
    let found = reader.trace(TraceId::from_u128(trace)).await.unwrap()?;
    Some((found.is_skeleton, found.decisions.len()))
}

async fn count(reader: &Reader) -> usize {
    reader.decisions(&DecisionFilter::default(), None, 100).await.unwrap().items.len()
}

fn gone(registry: &Registry) -> u64 {
    metric(registry, "throughline_store_retired_derived_decisions_total")
}

#[tokio::test]
async fn r4_4_derived_decisions_go_with_their_spans_and_leave_a_signed_bridge() {
    let dir = tempfile::tempdir().unwrap();
    let audit = AuditLog::new(dir.path(), AuditKeys::default());
    let (store, registry) = open(dir.path(), false);
    let reader = store.reader();
    // Long enough to be stored as a recorded one is.
    let long = Decision { reason: "because ".repeat(60), ..derived(1, 2) };
    let first = vec![derived(1, 1), long, decision(2, 3, 0), derived(2, 4), derived(3, 5)];
    store.inbox().commit(batch(0, &[1, 2, 3, 4], first)).await.unwrap();
    let held = AuditFilter { trace_id: Some(TraceId::from_u128(3)), ..AuditFilter::default() };
    let hold = audit.hold(&held, "case", "me").unwrap();
    audit.checkpoint().unwrap().unwrap();
    // The fourth trace goes on in a segment that stays, and what is derived there stays with it.
    store.inbox().commit(batch(2, &[4, 5], vec![derived(4, 6), derived(5, 7)])).await.unwrap();
    store.keep_now().await;
    assert_eq!(left(&reader, 1).await, None);
    assert_eq!(left(&reader, 2).await, Some((true, 1)), "one was recorded");
    assert_eq!(left(&reader, 3).await, Some((true, 1)), "a hold keeps it");
    assert_eq!(left(&reader, 4).await, Some((true, 1)), "a part of it is a skeleton");
    assert_eq!(left(&reader, 5).await, Some((false, 1)));
    assert_eq!((count(&reader).await, gone(&registry)), (4, 3));
    let found = verify(&audit);
    assert_eq!((text(&found).as_str(), found.retired), ("", 3));

    // Once nobody holds it, it goes with the next segment.
    audit.release(&hold.id, "me").unwrap();
    store.inbox().commit(batch(4, &[6], vec![derived(6, 8)])).await.unwrap();
    store.keep_now().await;
    let there = reader.decisions(&DecisionFilter::default(), None, 9).await.unwrap().items;
    let ids: Vec<DecisionId> = there.iter().map(|one| one.decision_id).collect();
    assert_eq!(ids, [8, 3].map(|id| DecisionId(uuid::Uuid::from_u128(id))));
    assert_eq!(gone(&registry), 6);
    let found = verify(&audit);
    assert_eq!((text(&found).as_str(), found.retired), ("", 6));
    store.close().await.unwrap();
    // Skeletons are looked at hourly, and first after a start.
    let (store, _) = open(dir.path(), false);
    store.keep_now().await;
    for trace in [3, 4] {
        assert_eq!(left(&store.reader(), trace).await, None);
    }
    store.close().await.unwrap();
    // A sender that repeats a span whose segment went brings both anew.
    let (store, _) = open(dir.path(), false);
    store.inbox().commit(batch(4, &[1], vec![derived(1, 1)])).await.unwrap();
    assert_eq!(left(&store.reader(), 1).await, Some((false, 1)));
    assert_eq!(text(&verify(&audit)), "");
}

#[tokio::test]
async fn r4_4_derived_decisions_stay_when_they_are_to() {
    let dir = tempfile::tempdir().unwrap();
    let (store, registry) = open(dir.path(), true);
    store.inbox().commit(batch(0, &[1, 2], vec![derived(1, 1)])).await.unwrap();
    store.inbox().commit(batch(2, &[3], vec![decision(3, 2, 0)])).await.unwrap();
    store.keep_now().await;
    let reader = store.reader();
    assert_eq!((left(&reader, 1).await, left(&reader, 2).await), (Some((true, 1)), None));
    assert_eq!(gone(&registry), 0);
    // Who decides otherwise later has them go with the next segment.
    store.close().await.unwrap();
    let (store, registry) = open(dir.path(), false);
    store.inbox().commit(batch(4, &[4], Vec::new())).await.unwrap();
    store.keep_now().await;
    assert_eq!(gone(&registry), 1);
    store.close().await.unwrap();
    let (store, _) = open(dir.path(), false);
    store.keep_now().await;
    assert_eq!(left(&store.reader(), 1).await, None);
}

#[tokio::test]
async fn what_a_sender_calls_derived_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (store, registry) = open(dir.path(), false);
    let of_instance = Decision { derived: true, ..decision(1, 1, 0) };
    let of_no_span = Decision { span_id: None, reason: "long ".repeat(90), ..derived(2, 2) };
    let first = vec![of_instance, of_no_span, derived(3, 3)];
    store.inbox().commit(batch(0, &[1, 2, 3], first)).await.unwrap();
    store.inbox().commit(batch(2, &[5], vec![decision(5, 5, 0)])).await.unwrap();
    store.keep_now().await;
    assert_eq!(gone(&registry), 1);
    let reader = store.reader();
    assert_eq!(
        (left(&reader, 1).await, left(&reader, 2).await),
        (Some((true, 1)), Some((true, 1)))
    );
}

#[tokio::test]
async fn derived_decisions_stay_while_an_earlier_segment_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    store.inbox().commit(batch(0, &[1], vec![derived(1, 1)])).await.unwrap();
    store.inbox().commit(batch(1, &[2], vec![derived(2, 2)])).await.unwrap();
    store.close().await.unwrap();
    let path = dir.path().join("segments/2026-11-22.db");
    let good = std::fs::read(&path).unwrap();
    std::fs::write(&path, vec![7; good.len()]).unwrap();
    let (store, registry) = open(dir.path(), false);
    store.inbox().commit(batch(4, &[3], vec![decision(3, 3, 0)])).await.unwrap();
    store.keep_now().await;
    assert_eq!(gone(&registry), 0, "it may be restored");
    store.close().await.unwrap();
    std::fs::write(&path, good).unwrap();
    let (store, registry) = open(dir.path(), false);
    store.keep_now().await;
    assert_eq!(gone(&registry), 1);
    assert_eq!(left(&store.reader(), 1).await, None);
}

#[tokio::test]
async fn derived_decisions_between_recorded_ones_go_each_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let audit = AuditLog::new(dir.path(), AuditKeys::default());
    let (store, registry) = open(dir.path(), false);
    // More than one transaction looks at.
    for first in (0..3_000_u128).step_by(500) {
        let mixed = (first..first + 500).map(|id| match id % 3 {
            0 => decision(1, id + 1, id as u64),
            _ => derived(2, id + 1),
        });
        store.inbox().commit(batch(0, &[1, 2], mixed.collect())).await.unwrap();
    }
    // The head of the chain stays, whatever it is.
    store.inbox().commit(batch(2, &[3], vec![derived(3, 4_000)])).await.unwrap();
    store.keep_now().await;
    assert_eq!(gone(&registry), 2_000);
    assert_eq!(store.reader().stats().await.unwrap().decisions, 1_001);
    let found = verify(&audit);
    assert_eq!((text(&found).as_str(), found.retired, found.records), ("", 2_000, 1_001));
}
