//! SQL beside everything else that a store does: what comes in, pages, and people who go away.

use std::time::Duration;

use throughline_store::{DecisionFilter, Reader, SqlError, SqlQuery, SqlValue};

use crate::made::{self, NOON};
use crate::sql::ask;

/// More than run at once, on any machine.
const MANY: usize = 6;

/// Long enough for anything that is not stuck.
const PATIENCE: Duration = Duration::from_secs(20);

/// A statement that ends by its bounds only.
fn endless(timeout: Duration) -> SqlQuery {
    let text =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
    SqlQuery { timeout, ..SqlQuery::new(text) }
}

/// Takes all turns, and returns once a further statement does not get any.
async fn start_many(reader: &Reader) -> Vec<tokio::task::JoinHandle<()>> {
    let run = |reader: Reader| async move {
        let _ = reader.sql(endless(Duration::from_secs(60))).await;
    };
    let running = (0..MANY).map(|_| tokio::spawn(run(reader.clone()))).collect();
    loop {
        if let Err(SqlError::Busy { .. }) = reader.sql(endless(Duration::from_millis(100))).await {
            return running;
        }
    }
}

#[tokio::test]
async fn a_statement_that_nobody_waits_for_ends_and_gives_its_turn_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    let reader = store.reader();
    let running = start_many(&reader).await;
    running.iter().for_each(|one| one.abort());
    let one = tokio::time::timeout(PATIENCE, reader.sql(SqlQuery::new("SELECT 1"))).await;
    assert_eq!(one.unwrap().unwrap_or_else(|error| panic!("{error}")).rows.len(), 1);
    store.close().await.unwrap();
}

#[tokio::test]
async fn statements_hold_up_neither_pages_nor_what_comes_in() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    let reader = store.reader();
    let running = start_many(&reader).await;
    let batch = made::spans(NOON, vec![made::span(1, 1, None, 0)]);
    let committed = tokio::time::timeout(PATIENCE, store.inbox().commit(batch)).await;
    assert_eq!(committed.unwrap().unwrap().spans, 1);
    let page = tokio::time::timeout(PATIENCE, reader.traces(&Default::default(), None, 10)).await;
    assert_eq!(page.unwrap().unwrap().items.len(), 1);
    running.iter().for_each(|one| one.abort());
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_meanwhile_is_seen_whole_or_not_at_all() {
    const SPANS: u64 = 7;
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    let inbox = store.inbox();
    let writing = tokio::spawn(async move {
        for trace in 1..200_u128 {
            let spans = (1..=SPANS).map(|id| made::span(trace, id, None, id)).collect();
            inbox.commit(made::spans(NOON, spans)).await.unwrap();
        }
    });
    let reader = store.reader();
    let mut before = 0;
    while !writing.is_finished() {
        let text = "SELECT count(*), min(n), max(n)
            FROM (SELECT trace_id, count(*) AS n FROM spans GROUP BY trace_id)";
        let answer = ask(&reader, text).await;
        let [SqlValue::Integer(traces), least, most] = answer.rows[0].as_slice() else {
            panic!("expected counts, got {answer:?}");
        };
        assert!(*traces >= before);
        before = *traces;
        if *traces > 0 {
            let whole = SqlValue::Integer(SPANS as i64);
            assert_eq!((least, most), (&whole, &whole));
        }
    }
    writing.await.unwrap();
    let counted = ask(&reader, "SELECT count(*), count(DISTINCT span_id) FROM spans").await;
    let expected = [SqlValue::Integer(199 * SPANS as i64), SqlValue::Integer(SPANS as i64)];
    assert_eq!(counted.rows, [expected]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn decisions_that_are_read_are_counted_for_the_log_of_reads() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    let decisions = (1..=5).map(|id| made::decision(id, id, id as u64)).collect();
    let batch = throughline_trace::SpanBatch {
        received_unix_nano: NOON,
        decisions,
        ..throughline_trace::SpanBatch::default()
    };
    store.inbox().commit(batch).await.unwrap();
    let reader = store.reader();
    let listed = reader.decisions(&DecisionFilter::default(), None, 10).await.unwrap().items;
    assert_eq!(listed.len(), 5);
    for (text, read) in [
        ("SELECT count(*) FROM spans", None),
        ("SELECT action FROM decisions WHERE agent = 'nobody'", Some(0)),
        ("SELECT action FROM decisions WHERE agent = 'fraud'", Some(5)),
        ("SELECT 1 WHERE EXISTS (SELECT 1 FROM decisions)", Some(1)),
        (
            "SELECT stage FROM decisions WHERE decision_id = '00000000-0000-0000-0000-000000000003'",
            Some(1),
        ),
        ("WITH d AS MATERIALIZED (SELECT * FROM decisions) SELECT count(*) FROM d", Some(5)),
    ] {
        assert_eq!(ask(&reader, text).await.decisions_read, read, "{text}");
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn rollups_and_agents_agree_with_the_series() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    let mut spans = vec![made::span(1, 1, None, 0)];
    for id in 2..30 {
        let mut span = made::span(1, id, Some(1), id * 1_000_000_000);
        span.attributes.set("throughline.role", "llm_call");
        span.attributes.set("agent_id", ["fraud", "shop"][id as usize % 2]);
        span.attributes.set("gen_ai.response.model", "gpt-4o");
        span.attributes.set("throughline.cost_usd", 0.5);
        spans.push(span);
    }
    store.inbox().commit(made::spans(NOON, spans)).await.unwrap();
    let reader = store.reader();
    let text = "SELECT agent, llm_calls, cost_usd FROM agents ORDER BY agent";
    let deadline = std::time::Instant::now() + PATIENCE;
    let answer = loop {
        let answer = ask(&reader, text).await;
        if !answer.rows.is_empty() || std::time::Instant::now() > deadline {
            break answer;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let row = |agent: &str| {
        vec![SqlValue::Text(agent.to_owned()), SqlValue::Integer(14), SqlValue::Real(7.0)]
    };
    assert_eq!(answer.rows, [row("fraud"), row("shop")]);
    for resolution in ["1m", "5m", "1h", "1d"] {
        let text = format!(
            "SELECT sum(llm_calls), sum(spans) FROM rollups
             WHERE resolution = '{resolution}' AND level = 'model' AND model = 'gpt-4o'
                AND start_unix_nano >= unix_nano('2026-11-22')"
        );
        let expected = vec![SqlValue::Integer(28), SqlValue::Integer(28)];
        assert_eq!(ask(&reader, &text).await.rows, [expected], "{resolution}");
    }
    let json = "SELECT operations ->> '$.llm_call.count' FROM rollups
        WHERE resolution = '1d' AND level = 'all'";
    assert_eq!(ask(&reader, json).await.rows, [[SqlValue::Integer(28)]]);
    store.close().await.unwrap();
}
