//! What comes twice is kept once; what merely shares an id is kept.

use throughline_store::{Store, StoreOptions};
use throughline_trace::{Accepted, SpanBatch, TraceId};

use crate::made::{self, DAY, NOON, span, spans};

fn counts(accepted: Accepted) -> (u64, u64, u64) {
    (accepted.spans, accepted.duplicate_spans, accepted.conflicting_spans)
}

#[tokio::test]
async fn redelivery_is_counted_and_not_stored_also_over_restarts_and_days() {
    let dir = tempfile::tempdir().unwrap();
    let batch = |received| spans(received, vec![span(1, 1, None, 0), span(1, 2, Some(1), 5)]);
    let mut other = span(1, 2, Some(1), 5);
    other.attributes.set("late", true);

    let store = made::open(dir.path());
    assert_eq!(counts(store.inbox().commit(batch(NOON)).await.unwrap()), (2, 0, 0));
    assert_eq!(counts(store.inbox().commit(batch(NOON + 9)).await.unwrap()), (0, 2, 0));
    let conflict = spans(NOON, vec![other.clone(), other.clone()]);
    assert_eq!(counts(store.inbox().commit(conflict.clone()).await.unwrap()), (1, 1, 1));
    drop(store);

    let store = made::open(dir.path());
    assert_eq!(counts(store.inbox().commit(batch(NOON)).await.unwrap()), (0, 2, 0));
    assert_eq!(counts(store.inbox().commit(batch(NOON + DAY)).await.unwrap()), (0, 2, 0));
    assert_eq!(counts(store.inbox().commit(conflict).await.unwrap()), (0, 2, 0));
    assert_eq!(
        counts(
            store.inbox().commit(spans(NOON + DAY, vec![span(1, 3, Some(1), 6)])).await.unwrap()
        ),
        (1, 0, 0)
    );

    let trace = store.reader().trace(TraceId::from_u128(1)).await.unwrap().unwrap();
    assert_eq!(trace.spans.len(), 4);
    assert_eq!((trace.summary.span_count, trace.spans[2].clone()), (4, other));
    assert_eq!(store.reader().stats().await.unwrap().traces, 1);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_decision_is_kept_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    let batch = SpanBatch {
        received_unix_nano: NOON,
        spans: vec![span(1, 1, None, 0)],
        decisions: vec![made::decision(1, 1, 0), made::decision(1, 2, 1), made::decision(1, 1, 0)],
        ..SpanBatch::default()
    };
    let accepted = store.inbox().commit(batch.clone()).await.unwrap();
    assert_eq!((accepted.decisions, accepted.duplicate_decisions), (2, 1));
    let accepted = store.inbox().commit(batch).await.unwrap();
    assert_eq!((accepted.decisions, accepted.duplicate_decisions), (0, 3));
    let summary = store.reader().summary(TraceId::from_u128(1)).await.unwrap().unwrap();
    assert_eq!(summary.decision_count, 2);
    assert!(summary.agents.contains("fraud") && summary.sessions.contains("s-1"));
}

#[tokio::test]
async fn a_trace_goes_on_when_its_key_space_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { spans_per_trace_no: 4, ..made::options(dir.path()) };
    let open = || {
        Store::open(options.clone(), &mut prometheus_client::registry::Registry::default()).unwrap()
    };
    let store = open();
    for id in 1..=6 {
        store
            .inbox()
            .commit(spans(NOON, vec![span(1, id, None, id), span(2, id, None, id)]))
            .await
            .unwrap();
    }
    drop(store);
    let store = open();
    let all: Vec<_> = (1..=11).map(|id| span(1, id, None, id)).collect();
    assert_eq!(counts(store.inbox().commit(spans(NOON, all)).await.unwrap()), (5, 6, 0));
    let trace = store.reader().trace(TraceId::from_u128(1)).await.unwrap().unwrap();
    let ids: Vec<u64> = trace.spans.iter().map(|span| span.span_id.as_u64()).collect();
    assert_eq!(ids, (1..=11).collect::<Vec<_>>());
    assert_eq!((trace.summary.span_count, store.reader().stats().await.unwrap().traces), (11, 2));
    let page = store.reader().traces(&Default::default(), None, 10).await.unwrap();
    assert_eq!(page.items.len(), 2);
}

#[tokio::test]
async fn a_conversation_is_stored_once() {
    const TURNS: usize = 30;
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    let message = |n: usize| {
        format!(r#"{{"role":"user","parts":[{{"type":"text","content":"message number {n}"}}]}}"#)
    };
    let mut sent = Vec::new();
    for turn in 0..TURNS {
        let history: Vec<String> = (0..=turn * 2).map(message).collect();
        let mut chat = span(1, turn as u64 + 1, None, turn as u64);
        chat.attributes.set("gen_ai.input.messages", format!("[{}]", history.join(",")));
        chat.attributes.set("gen_ai.output.messages", format!("[{}]", message(turn * 2 + 1)));
        sent.push(chat.clone());
        store.inbox().commit(spans(NOON, vec![chat])).await.unwrap();
    }
    let trace = store.reader().trace(TraceId::from_u128(1)).await.unwrap().unwrap();
    assert_eq!(trace.spans, sent);
    store.close().await.unwrap();
    let segment = rusqlite::Connection::open(dir.path().join("segments/2026-11-22.db"));
    let rows: i64 =
        segment.unwrap().query_row("SELECT count(*) FROM messages", [], |row| row.get(0)).unwrap();
    assert_eq!(rows as usize, TURNS * 2);
}
