//! What was acknowledged is there, whatever happens next.

use throughline_store::{Reader, Store, StoreOptions, TraceFilter};
use throughline_trace::{Refusal, SpanBatch, TraceId};

use crate::made::{self, NOON, copy_of, span, spans};

fn batch(n: u64) -> SpanBatch {
    SpanBatch {
        received_unix_nano: NOON,
        spans: (0..20).map(|id| span(u128::from(n % 7 + 1), n * 100 + id + 1, None, n)).collect(),
        logs: vec![made::log(Some(u128::from(n % 7 + 1)), n, "line")],
        decisions: vec![made::decision(u128::from(n % 7 + 1), u128::from(n) + 1, n)],
        metrics: Vec::new(),
    }
}

#[tokio::test]
async fn a_power_cut_loses_nothing_that_was_acknowledged_and_doubles_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    for n in 0..30 {
        store.inbox().commit(batch(n)).await.unwrap();
        if n % 10 != 4 {
            continue;
        }
        let cut = tempfile::tempdir().unwrap();
        copy_of(dir.path(), cut.path());
        let after = made::open(cut.path());
        let stats = after.reader().stats().await.unwrap();
        assert_eq!((stats.spans, stats.logs, stats.decisions), ((n + 1) * 20, n + 1, n + 1));
        let again = after.inbox().commit(batch(n)).await.unwrap();
        assert_eq!((again.duplicate_spans, again.duplicate_decisions), (20, 1));
        let next = after.inbox().commit(batch(n + 1)).await.unwrap();
        assert_eq!((next.spans, next.decisions), (20, 1));
        let trace = TraceId::from_u128(u128::from(n % 7 + 1));
        let whole = after.reader().trace(trace).await.unwrap().unwrap();
        assert_eq!(whole.spans.len() as u64, whole.summary.span_count);
        assert_eq!(whole.decisions.len() as u64, whole.summary.decision_count);
    }
}

#[tokio::test]
async fn a_crash_between_the_two_files_is_made_good_by_repetition() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    store.inbox().commit(batch(0)).await.unwrap();
    let before = tempfile::tempdir().unwrap();
    copy_of(dir.path(), before.path());
    store.inbox().commit(batch(7)).await.unwrap();
    drop(store);
    // The control database is of after, the segment of before the commit.
    for file in ["control.db", "control.db-wal"] {
        let _ = std::fs::remove_file(before.path().join(file));
        let _ = std::fs::copy(dir.path().join(file), before.path().join(file));
    }
    let store = made::open(before.path());
    let first = store.committed();
    let again = store.inbox().commit(batch(7)).await.unwrap();
    assert_eq!((again.spans, again.logs, again.duplicate_decisions), (20, 1, 1));
    let whole = store.reader().trace(TraceId::from_u128(1)).await.unwrap().unwrap();
    assert_eq!((whole.summary.span_count, whole.summary.log_count), (40, 2));
    assert_eq!((whole.summary.decision_count, whole.decisions.len()), (2, 2));
    drop(first);
}

#[tokio::test]
async fn dropping_and_closing_both_let_the_next_one_in() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    store.inbox().commit(batch(0)).await.unwrap();
    drop(store);
    let store = made::open(dir.path());
    let inbox = store.inbox();
    inbox.commit(batch(1)).await.unwrap();
    store.close().await.unwrap();
    let refused = inbox.commit(batch(2)).await.unwrap_err();
    assert!(matches!(refused, Refusal::ShuttingDown { .. }), "{refused}");
    // Everything is in the main files: no log is left behind.
    let wal = dir.path().join("segments/2026-11-22.db-wal");
    assert!(wal.metadata().map_or(0, |wal| wal.len()) == 0);
    assert_eq!(Reader::open(dir.path()).unwrap().stats().await.unwrap().spans, 40);
}

#[tokio::test]
async fn a_batch_is_seen_by_every_reader_as_soon_as_it_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    let beside = Reader::open(dir.path()).unwrap();
    let mut listener = store.committed();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..40_u64 {
        let (inbox, beside) = (store.inbox(), beside.clone());
        tasks.spawn(async move {
            let id = u128::from(n) + 1;
            inbox.commit(spans(NOON, vec![span(id, 1, None, n)])).await.unwrap();
            let trace = beside.trace(TraceId::from_u128(id)).await.unwrap();
            assert_eq!(trace.map(|trace| trace.spans.len()), Some(1));
        });
    }
    tasks.join_all().await;
    let mut told = 0;
    let mut last = 0;
    while told < 40 {
        let committed = listener.recv().await.unwrap();
        assert!(committed.batch_no > last, "groups are told in the order of their commits");
        last = committed.batch_no;
        told += committed.summaries.len();
    }
    assert_eq!(
        (
            told,
            store.reader().traces(&TraceFilter::default(), None, 100).await.unwrap().items.len()
        ),
        (40, 40)
    );
}

#[tokio::test]
async fn a_full_inbox_refuses_at_once_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut registry = prometheus_client::registry::Registry::default();
    let options = StoreOptions { max_inbox_batches: 2, ..made::options(dir.path()) };
    let store = Store::open(options, &mut registry).unwrap();
    // Somebody else holds the segment's write lock: the writer waits, and the inbox fills.
    let segment = std::fs::read_dir(dir.path().join("segments")).unwrap().next().unwrap().unwrap();
    let blocker = rusqlite::Connection::open(segment.path()).unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();
    let inbox = store.inbox();
    let (first, second, third, ()) = tokio::join!(
        biased;
        inbox.commit(batch(0)),
        inbox.commit(batch(1)),
        inbox.commit(batch(2)),
        async { blocker.execute_batch("ROLLBACK").unwrap() }
    );
    assert_eq!((first.unwrap().spans, second.unwrap().spans), (20, 20));
    assert!(matches!(third, Err(Refusal::Full { retry_after_ms: 1.. })), "{third:?}");
    assert_eq!(inbox.commit(batch(2)).await.unwrap().spans, 20);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        "throughline_store_refusals_total{reason=\"full\"} 1",
        "throughline_store_refusals_total{reason=\"disk_full\"} 0",
        "throughline_store_spans_total 60",
        "throughline_store_inbox_batches 0",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}
