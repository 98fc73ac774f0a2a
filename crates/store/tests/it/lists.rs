//! Lists: pages, cursors, filters.

use std::collections::HashSet;

use throughline_store::{DecisionFilter, LogFilter, QueryError, TraceFilter};
use throughline_trace::{Severity, SpanBatch, TraceId};

use crate::made::{self, DAY, NOON, span, spans};

#[tokio::test]
async fn pages_show_each_trace_once_while_others_come() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    for day in 0..3_u64 {
        // Starts of the days interleave, and some are equal.
        let traces =
            (0..40_u64).map(|n| span(u128::from(day * 100 + n + 1), 1, None, n / 2 * 7 + day % 2));
        store.inbox().commit(spans(NOON + day * DAY, traces.collect())).await.unwrap();
    }
    let mut seen: Vec<TraceId> = Vec::new();
    let mut cursor: Option<String> = None;
    let mut newer = 1_000;
    loop {
        let page =
            store.reader().traces(&TraceFilter::default(), cursor.as_deref(), 7).await.unwrap();
        assert!(page.items.len() == 7 || page.next.is_none());
        seen.extend(page.items.iter().map(|summary| summary.trace_id));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
        newer += 1;
        let late = spans(NOON + 2 * DAY, vec![span(newer, 1, None, 5_000 + newer as u64)]);
        store.inbox().commit(late).await.unwrap();
    }
    let distinct: HashSet<TraceId> = seen.iter().copied().collect();
    assert_eq!((seen.len(), distinct.len()), (120, 120));
}

#[tokio::test]
async fn a_cursor_of_another_kind_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    let mut batch = spans(NOON, vec![span(1, 1, None, 0), span(2, 1, None, 1)]);
    batch.logs = vec![made::log(None, 0, "a"), made::log(None, 1, "b")];
    store.inbox().commit(batch).await.unwrap();
    let reader = store.reader();
    let next = reader.traces(&TraceFilter::default(), None, 1).await.unwrap().next.unwrap();
    for cursor in ["", "nonsense", next.as_str()] {
        let refused = reader.logs(&LogFilter::default(), Some(cursor), 1).await;
        assert!(matches!(refused, Err(QueryError::Cursor(_))), "{cursor}");
    }
    let refused = reader.decisions(&DecisionFilter::default(), Some("x"), 1).await.unwrap_err();
    insta::assert_snapshot!(refused, @r#"expected a cursor as the page before gave it, got "x"; start again without one"#);
}

#[tokio::test]
async fn logs_are_listed_by_every_filter() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    for day in 0..2 {
        let mut logs: Vec<_> = (0..10)
            .map(|n| made::log((n % 2 == 0).then_some(7), n * 10 + day, "Card declined"))
            .collect();
        logs[3].severity = Severity::ERROR;
        logs[4].resource = made::resource("billing");
        logs[5].event_name = "gen_ai.evaluation.result".to_owned();
        logs[6].body = "all fine".into();
        let batch =
            SpanBatch { received_unix_nano: NOON + day * DAY, logs, ..SpanBatch::default() };
        store.inbox().commit(batch).await.unwrap();
    }
    let none = LogFilter::default();
    let name = |name: &str| Some(name.to_owned());
    let cases = [
        (none.clone(), 20),
        (LogFilter { service: name("billing"), ..none.clone() }, 2),
        (LogFilter { min_severity: Some(Severity::WARN), ..none.clone() }, 2),
        (LogFilter { event_name: name("gen_ai.evaluation.result"), ..none.clone() }, 2),
        (LogFilter { text: name("CARD"), ..none.clone() }, 18),
        (LogFilter { trace_id: Some(TraceId::from_u128(7)), ..none.clone() }, 10),
        (LogFilter { trace_id: Some(TraceId::from_u128(8)), ..none.clone() }, 0),
        (
            LogFilter {
                after_unix_nano: Some(NOON + 50),
                before_unix_nano: Some(NOON + 71),
                ..none
            },
            5,
        ),
    ];
    for (filter, count) in cases {
        let mut found = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let page = store.reader().logs(&filter, cursor.as_deref(), 3).await.unwrap();
            found.extend(page.items);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(found.len(), count, "{filter:?}");
        assert!(found.windows(2).all(|pair| pair[0].time_unix_nano >= pair[1].time_unix_nano));
    }
}

#[tokio::test]
async fn decisions_are_listed_by_every_filter() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    let decisions = (0..12_u64)
        .map(|n| {
            let mut decision = made::decision(u128::from(n % 3 + 1), u128::from(n) + 1, n);
            decision.agent_id = ["fraud", "shop"][n as usize % 2].to_owned();
            decision.session_id = format!("s-{}", n % 4);
            decision.stage = ["plan", "act.tool", "fallback"][n as usize % 3].to_owned();
            decision.action = if n == 5 { "deny" } else { "approve" }.to_owned();
            decision.confidence = (n != 0).then_some(n as f64 / 12.0);
            decision
        })
        .collect();
    let batch = SpanBatch { received_unix_nano: NOON, decisions, ..SpanBatch::default() };
    store.inbox().commit(batch).await.unwrap();
    let none = DecisionFilter::default();
    let name = |name: &str| Some(name.to_owned());
    let cases = [
        (none.clone(), 12),
        (DecisionFilter { agent: name("shop"), ..none.clone() }, 6),
        (DecisionFilter { session: name("s-1"), agent: name("shop"), ..none.clone() }, 3),
        (
            DecisionFilter {
                stage: name("act.tool"),
                trace_id: Some(TraceId::from_u128(2)),
                ..none.clone()
            },
            4,
        ),
        (DecisionFilter { action: name("deny"), text: name("LIMIT"), ..none.clone() }, 1),
        (DecisionFilter { max_confidence: Some(0.5), ..none.clone() }, 6),
        (DecisionFilter { min_confidence: Some(0.5), ..none.clone() }, 6),
        (
            DecisionFilter {
                after_unix_nano: Some(NOON + 3),
                before_unix_nano: Some(NOON + 5),
                ..none
            },
            2,
        ),
    ];
    for (filter, count) in cases {
        let mut found = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let page = store.reader().decisions(&filter, cursor.as_deref(), 2).await.unwrap();
            found.extend(page.items);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(found.len(), count, "{filter:?}");
        assert!(found.windows(2).all(|pair| pair[0].timestamp_ns > pair[1].timestamp_ns));
    }
}

#[tokio::test]
async fn a_page_ends_at_its_bytes_and_goes_on_with_the_next() {
    const MIB: usize = 1024 * 1024;
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    for day in 0..2_u64 {
        let text = "x".repeat(3 * MIB);
        let logs = (0..5).map(|n| made::log(Some(1), n * 2 + day, &text)).collect();
        let decisions = (0..5_u64).map(|n| {
            let at = n * 2 + day;
            let mut decision = made::decision(1, u128::from(at) + 1, at);
            // One is larger than a page.
            decision.reason = "y".repeat(if n == 2 { 9 * MIB } else { 3 * MIB });
            decision
        });
        let mut batch = spans(NOON + day * DAY, vec![span(1, day + 1, None, 0)]);
        batch.spans[0].attributes.set("big", "z".repeat(20 * MIB));
        (batch.logs, batch.decisions) = (logs, decisions.collect());
        store.inbox().commit(batch).await.unwrap();
    }
    let reader = store.reader();
    let (mut logs, mut decisions) = (Vec::new(), Vec::new());
    let mut cursor: Option<String> = None;
    loop {
        let page = reader.logs(&LogFilter::default(), cursor.as_deref(), 100).await.unwrap();
        assert!((1..=2).contains(&page.items.len()), "{}", page.items.len());
        logs.extend(page.items.iter().map(|log| log.time_unix_nano - NOON));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(logs, (0..10).rev().collect::<Vec<_>>());
    loop {
        let page =
            reader.decisions(&DecisionFilter::default(), cursor.as_deref(), 100).await.unwrap();
        assert!((1..=2).contains(&page.items.len()), "{}", page.items.len());
        decisions.extend(page.items.iter().map(|decision| decision.timestamp_ns - NOON));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(decisions, (0..10).rev().collect::<Vec<_>>());

    // One bound over both days: spans of 40 MiB and logs of 30 MiB are too much together.
    let trace = reader.trace(TraceId::from_u128(1)).await.unwrap().unwrap();
    let told = trace.truncated.unwrap();
    assert_eq!((told.total_spans, told.total_logs, told.total_decisions), (2, 10, 10));
    let kept = trace.spans.len() * 20 + trace.logs.len() * 3 + trace.decisions.len() * 3;
    assert!((41..=64).contains(&kept), "{kept} MiB");
}
