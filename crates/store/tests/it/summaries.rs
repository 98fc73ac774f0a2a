//! A summary is what its spans say, in whatever order and on whatever day they come.

use std::collections::BTreeMap;

use proptest::prelude::*;
use throughline_store::TraceFilter;
use throughline_trace::{Call, CallLedger, Span, SpanBatch, TraceId, TraceSummary};

use crate::made::{self, DAY, NOON};

/// Spans that say much, with few distinct names.
fn any_telling_span() -> impl Strategy<Value = Span> {
    let choice = |words: &'static [&'static str]| proptest::sample::select(words);
    let ids = (1..6_u128, 1..40_u64, proptest::option::of(1..9_u64), 0..1_000_000_u64);
    let words = (
        choice(&["llm_call", "tool", "attempt", "fallback", "agent_run", "step"]),
        choice(&["fraud", "shop", ""]),
        choice(&["s-1", "s-2", ""]),
        choice(&["gpt-4o", "claude", ""]),
        choice(&["triggered", "skipped"]),
    );
    (ids, words, 0..100_i64, any::<bool>()).prop_map(
        |((trace, id, parent, at), words, number, is_error)| {
            let mut span = made::span(trace, id, parent, at);
            let (role, agent, session, model, fallback) = words;
            for (key, value) in [
                ("throughline.role", role),
                ("agent_id", agent),
                ("session_id", session),
                ("gen_ai.response.model", model),
                ("fallback.decision", fallback),
                ("gen_ai.tool.name", model),
            ] {
                span.attributes.set(key, value);
            }
            span.attributes.set("gen_ai.usage.input_tokens", number);
            span.attributes.set("retry_count", number % 3);
            span.attributes.set("throughline.cost_usd", number as f64 / 1e3);
            if is_error {
                span.status.code = throughline_trace::StatusCode::Error;
                span.attributes.set("error.type", "TIMEOUT");
            }
            span.resource = made::resource(if number % 2 == 0 { "a" } else { "b" });
            span
        },
    )
}

fn expected(batches: &[(u64, Vec<Span>)]) -> BTreeMap<TraceId, TraceSummary> {
    let mut seen: Vec<&Span> = Vec::new();
    let mut summaries: BTreeMap<TraceId, (TraceSummary, CallLedger)> = BTreeMap::new();
    for (received, spans) in batches {
        for span in spans {
            if seen.contains(&span) {
                continue;
            }
            seen.push(span);
            let empty = || (TraceSummary::empty(span.trace_id), CallLedger::default());
            let (summary, ledger) = summaries.entry(span.trace_id).or_insert_with(empty);
            summary.add_span(span, *received);
            if let Some(call) = Call::of(span) {
                summary.take_back(ledger.add(call));
            }
        }
    }
    summaries.into_iter().map(|(id, (summary, _))| (id, summary)).collect()
}

fn filters() -> Vec<TraceFilter> {
    let name = |name: &str| Some(name.to_owned());
    let none = TraceFilter::default();
    vec![
        none.clone(),
        TraceFilter { agent: name("fraud"), ..none.clone() },
        TraceFilter { session: name("s-2"), error: Some(true), ..none.clone() },
        TraceFilter { model: name("claude"), service: name("a"), ..none.clone() },
        TraceFilter { error: Some(false), ..none.clone() },
        TraceFilter { fallback: Some(throughline_trace::FallbackState::Skipped), ..none.clone() },
        TraceFilter { min_duration_ms: Some(1), max_duration_ms: Some(1), ..none.clone() },
        TraceFilter { text: name("SPAN 1"), ..none.clone() },
        TraceFilter {
            start_after_unix_nano: Some(NOON + 200_000),
            start_before_unix_nano: Some(NOON + 700_000),
            ..none
        },
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn summaries_and_filters_agree_with_the_spans(
        batches in proptest::collection::vec(
            (0..3_u64, proptest::collection::vec(any_telling_span(), 1..9)), 1..7),
        restart_after in 0..7_usize,
        limit in 1..4_usize,
    ) {
        let mut day = 0;
        let batches: Vec<(u64, Vec<Span>)> = batches
            .into_iter()
            .map(|(step, spans)| {
                day += step / 2;
                (NOON + day * DAY, spans)
            })
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let expected = expected(&batches);
        runtime.block_on(async {
            let mut store = made::open(dir.path());
            let mut told: BTreeMap<TraceId, TraceSummary> = BTreeMap::new();
            let mut listener = store.committed();
            for (at, (received, spans)) in batches.iter().enumerate() {
                let batch = made::spans(*received, spans.clone());
                store.inbox().commit(batch).await.unwrap();
                while let Ok(committed) = listener.try_recv() {
                    told.extend(committed.summaries.iter().map(|s| (s.trace_id, s.clone())));
                }
                if at == restart_after {
                    drop(store);
                    store = made::open(dir.path());
                    listener = store.committed();
                }
            }
            assert_eq!(told, expected, "what was told after commits");
            for (id, summary) in &expected {
                let read = store.reader().summary(*id).await.unwrap();
                assert_eq!(read.as_ref(), Some(summary));
            }
            for filter in filters() {
                let mut listed = Vec::new();
                let mut cursor: Option<String> = None;
                loop {
                    let page = store.reader().traces(&filter, cursor.as_deref(), limit).await.unwrap();
                    listed.extend(page.items);
                    cursor = page.next;
                    if cursor.is_none() {
                        break;
                    }
                }
                assert!(listed.windows(2).all(|pair| pair[0].start_unix_nano >= pair[1].start_unix_nano));
                listed.sort_by_key(|summary| summary.trace_id);
                let wanted: Vec<TraceSummary> = expected.values().filter(|s| filter.matches(s)).cloned().collect();
                assert_eq!(listed, wanted, "{filter:?}");
            }
        });
    }
}

#[tokio::test]
async fn logs_and_decisions_of_a_trace_are_counted_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    let mut listener = store.committed();
    let batch = SpanBatch {
        received_unix_nano: NOON,
        logs: vec![made::log(Some(1), 0, "before its span"), made::log(None, 1, "on its own")],
        decisions: vec![made::decision(1, 1, 0)],
        ..SpanBatch::default()
    };
    store.inbox().commit(batch).await.unwrap();
    assert!(
        store.reader().traces(&TraceFilter::default(), None, 9).await.unwrap().items.is_empty()
    );
    store.inbox().commit(made::spans(NOON + DAY, vec![made::span(1, 1, None, 0)])).await.unwrap();
    let first = listener.recv().await.unwrap();
    let second = listener.recv().await.unwrap();
    assert_eq!(
        (first.log_count, first.decisions.len(), first.batch_no + 1),
        (2, 1, second.batch_no)
    );
    let listed = store.reader().traces(&TraceFilter::default(), None, 9).await.unwrap().items;
    assert_eq!(listed, second.summaries);
    let got = &listed[0];
    assert_eq!((got.span_count, got.log_count, got.decision_count), (1, 1, 1));
    let by_agent = TraceFilter { agent: Some("fraud".to_owned()), ..TraceFilter::default() };
    assert_eq!(store.reader().traces(&by_agent, None, 9).await.unwrap().items.len(), 1);
    let trace = store.reader().trace(TraceId::from_u128(1)).await.unwrap().unwrap();
    assert_eq!((trace.spans.len(), trace.logs.len(), trace.decisions.len()), (1, 1, 1));
}

/// A framework's span around the client's, as `parent` of it or beside it with the same answer.
fn told_twice(parent: Option<u64>) -> [Span; 2] {
    let call = |id, parent, tokens: i64| {
        let mut span = made::span(1, id, parent, 0);
        span.attributes.set("gen_ai.operation.name", "chat");
        span.attributes.set("gen_ai.response.id", "chatcmpl-1");
        span.attributes.set("gen_ai.usage.input_tokens", tokens);
        span.attributes.set("throughline.cost_usd", 0.5);
        span
    };
    [call(2, parent, 100), call(3, None, 100)]
}

#[tokio::test]
async fn a_call_that_is_told_twice_counts_once_also_across_restarts_and_days() {
    for parent in [Some(3), None] {
        for (between, is_restarted) in [(0, false), (0, true), (DAY, false)] {
            let dir = tempfile::tempdir().unwrap();
            let mut store = made::open(dir.path());
            let [client, framework] = told_twice(parent);
            store.inbox().commit(made::spans(NOON, vec![client.clone()])).await.unwrap();
            if is_restarted {
                drop(store);
                store = made::open(dir.path());
            }
            let later = made::spans(NOON + between, vec![framework, client]);
            store.inbox().commit(later).await.unwrap();
            let page = store.reader().traces(&TraceFilter::default(), None, 9).await.unwrap();
            let [summary] = page.items.as_slice() else { panic!("one trace") };
            let got = (summary.span_count, summary.llm_calls, summary.input_tokens);
            assert_eq!(got, (2, 1, 100), "{parent:?} {between} {is_restarted}");
            assert_eq!(summary.cost_usd(), 0.5);
        }
    }
}
