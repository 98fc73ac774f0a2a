//! What goes in comes out, field by field.

use std::sync::Arc;

use proptest::prelude::*;
use throughline_store::{DecisionFilter, LogFilter, TraceFilter};
use throughline_trace::{
    HistogramValue, LogRecord, MetricKind, MetricPoint, MetricValue, Severity, Span, SpanBatch,
    SpanId, TraceId,
};

use crate::made::{self, NOON, any_attributes, any_source, any_span};

prop_compose! {
    fn any_log()(
        (time, observed) in any::<(u64, u64)>(),
        (trace, span) in (proptest::option::of(1..3_u128), proptest::option::of(1..9_u64)),
        (severity, severity_text, event_name) in (0..25, ".{0,9}", ".{0,9}"),
        (attributes, body) in (any_attributes(), any_attributes()),
        dropped in any::<u32>(),
        (resource, scope) in any_source(),
    ) -> LogRecord {
        LogRecord {
            time_unix_nano: time,
            observed_unix_nano: observed,
            trace_id: trace.map(TraceId::from_u128),
            span_id: span.map(SpanId::from_u64),
            severity: Severity::from_i32(severity),
            severity_text,
            event_name,
            body: throughline_trace::Value::Map(body.0),
            attributes,
            dropped_attributes_count: dropped,
            resource,
            scope,
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn spans_and_logs_come_back_as_they_were(
        spans in proptest::collection::vec(any_span(), 0..12),
        logs in proptest::collection::vec(any_log(), 0..6),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let store = made::open(dir.path());
        let (read_spans, read_logs): (Vec<Span>, Vec<LogRecord>) = runtime().block_on(async {
            let batch = SpanBatch {
                received_unix_nano: NOON,
                spans: spans.clone(),
                logs: logs.clone(),
                ..SpanBatch::default()
            };
            let accepted = store.inbox().commit(batch).await.unwrap();
            assert_eq!(accepted.spans + accepted.duplicate_spans, spans.len() as u64);
            let mut read = Vec::new();
            for trace in 1..5 {
                let found = store.reader().trace(TraceId::from_u128(trace)).await.unwrap();
                read.extend(found.map(|trace| trace.spans).unwrap_or_default());
            }
            let logs = store.reader().logs(&LogFilter::default(), None, 100).await.unwrap();
            (read, logs.items)
        });
        let mut expected: Vec<Span> = Vec::new();
        let mut sorted = spans;
        sorted.sort_by_key(|span| span.trace_id);
        for span in sorted {
            if !expected.contains(&span) {
                expected.push(span);
            }
        }
        prop_assert_eq!(read_spans, expected);
        let mut expected: Vec<(usize, LogRecord)> = logs.into_iter().enumerate().collect();
        expected.sort_by_key(|(at, log)| std::cmp::Reverse((log.time_unix_nano, *at)));
        let expected: Vec<LogRecord> = expected.into_iter().map(|(_, log)| log).collect();
        prop_assert_eq!(read_logs, expected);
    }
}

#[tokio::test]
async fn decisions_and_points_come_back_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let store = made::open(dir.path());
    let decision = made::decision(1, 7, 0);
    let histogram = HistogramValue {
        count: 3,
        sum: Some(1.5),
        min: None,
        max: Some(1.0),
        bounds: vec![0.5, 1.0],
        bucket_counts: vec![1, 1, 1],
    };
    let point = |at: u64, value: MetricValue| MetricPoint {
        name: "agent_operations_total".to_owned(),
        description: "Operations".to_owned(),
        unit: "{operation}".to_owned(),
        kind: MetricKind::CumulativeSum { monotonic: true },
        start_unix_nano: NOON,
        time_unix_nano: NOON + at,
        attributes: [("outcome", "ok"), ("model_name", "gpt-4o")].into_iter().collect(),
        value,
        resource: made::resource("shop"),
        scope: Arc::default(),
    };
    let mut turned = point(2, MetricValue::Histogram(histogram.clone()));
    turned.attributes.0.reverse();
    let batch = SpanBatch {
        received_unix_nano: NOON,
        decisions: vec![decision.clone()],
        metrics: vec![point(1, MetricValue::Int(4)), turned, point(3, MetricValue::None)],
        ..SpanBatch::default()
    };
    let accepted = store.inbox().commit(batch).await.unwrap();
    assert_eq!((accepted.decisions, accepted.metrics), (1, 3));

    let reader = store.reader();
    let page = reader.decisions(&DecisionFilter::default(), None, 10).await.unwrap();
    assert_eq!((page.items, page.next), (vec![decision.clone()], None));
    assert_eq!(reader.decision(decision.decision_id).await.unwrap(), Some(decision.clone()));
    let trace = reader.trace(TraceId::from_u128(1)).await.unwrap().unwrap();
    assert_eq!((trace.decisions, trace.summary.decision_count), (vec![decision], 1));
    assert!(reader.traces(&TraceFilter::default(), None, 10).await.unwrap().items.is_empty());

    let names = reader.metric_names().await.unwrap();
    assert_eq!(names.len(), 1);
    assert_eq!(
        (names[0].name.as_str(), names[0].series_count, names[0].last_unix_nano),
        ("agent_operations_total", 1, NOON + 3)
    );
    assert_eq!(names[0].services, ["shop"]);
    let series = reader.metric_series("agent_operations_total", NOON, 2).await.unwrap().series;
    assert_eq!(series.len(), 1, "labels in another order are the same series");
    let points = &series[0].points;
    assert_eq!(points.iter().map(|p| p.time_unix_nano - NOON).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(points[0].value, MetricValue::Histogram(histogram));
    let stats = reader.stats().await.unwrap();
    assert_eq!((stats.decisions, stats.metric_points, stats.segments), (1, 3, 1));
    assert!(stats.bytes_on_disk > 0);
    let facets = reader.facets().await.unwrap();
    assert_eq!((facets.stages[0].value.as_str(), facets.stages[0].count), ("plan", 1));
}

#[tokio::test]
async fn a_decision_that_no_row_can_hold_is_unfit() {
    let dir = tempfile::tempdir().unwrap();
    let store = crate::made::open(dir.path());
    let mut decision = crate::made::decision(1, 1, 0);
    decision.reason = "x".repeat(129 * 1024 * 1024);
    let batch = throughline_trace::SpanBatch { decisions: vec![decision], ..Default::default() };
    let refused = store.inbox().commit(batch).await.unwrap_err();
    assert!(matches!(refused, throughline_trace::Refusal::Unfit(_)), "{refused}");
}
