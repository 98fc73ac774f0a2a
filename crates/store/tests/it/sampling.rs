//! Tail sampling through the public doors: what stays, what is told of what went, and that it is
//! counted.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use throughline_store::{
    Always, AuditFilter, AuditKeys, AuditLog, Kind, Rare, Reader, Sampling, SearchQuery,
    SegmentInfo, SqlValue, Store, StoreOptions, TraceFilter,
};
use throughline_trace::{
    Counts, Measure, Observation, Observe, OperationKind, SamplingRate, SeriesGroups, SeriesQuery,
    Span, StatusCode, TraceId, TraceSummary,
};

use crate::kept_derived::derived;
use crate::made::{self, DAY, NOON, decision, log, span, spans};
use crate::rollups::settled;
use crate::sql::ask;

/// A share of what is kept for no other reason, judged without a wait.
fn share(rate: f64) -> Sampling {
    let rest = SamplingRate::new(rate).unwrap();
    Sampling { rest, wait: Duration::ZERO, ..Sampling::default() }
}

/// The search index moves only when it is asked to.
fn open(dir: &Path, sampling: Sampling) -> (Store, Registry) {
    let mut registry = Registry::default();
    let index_interval = Duration::from_secs(3_600);
    let options = StoreOptions { sampling, index_interval, ..made::options(dir) };
    (Store::open(options, &mut registry).unwrap(), registry)
}

/// An id whose randomness is this many hundredths of all.
fn id_at(hundredths: u64, number: u64) -> u128 {
    u128::from(number + 1) << 64 | ((u128::from(hundredths) << 56) / 100 + 1)
}

/// A trace of two spans.
fn two(id: u128) -> Vec<Span> {
    let mut child = span(id, 2, Some(1), 1_000);
    child.attributes.set("k", "here");
    vec![span(id, 1, None, 0), child]
}

async fn close_day(store: &Store, days: u64) {
    let id = u128::from(0xffff + days) << 64 | u128::from(u64::MAX);
    store.inbox().commit(spans(NOON + days * DAY, vec![span(id, 1, None, 0)])).await.unwrap();
    store.keep_now().await;
}

async fn all(reader: &Reader) -> HashMap<u128, TraceSummary> {
    let page = reader.traces(&TraceFilter::default(), None, 200).await.unwrap();
    assert!(page.next.is_none());
    let number = |id: TraceId| u128::from_be_bytes(*id.as_bytes());
    page.items.into_iter().map(|item| (number(item.trace_id), item)).collect()
}

async fn stored(reader: &Reader, id: u128) -> throughline_store::StoredTrace {
    reader.trace(TraceId::from_u128(id)).await.unwrap().unwrap()
}

async fn first_segment(reader: &Reader) -> SegmentInfo {
    reader.segments().await.unwrap().pop().unwrap()
}

async fn number(reader: &Reader, text: &str) -> f64 {
    let number = match ask(reader, text).await.rows[0][0] {
        SqlValue::Integer(number) => Some(number as f64),
        SqlValue::Real(number) => Some(number),
        _ => None,
    };
    number.unwrap()
}

fn metric(registry: &Registry, line: &str) -> Option<u64> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    text.lines().find_map(|of| of.strip_prefix(line)?.trim().parse().ok())
}

async fn spans_in_rollups(reader: &Reader) -> i64 {
    let query = SeriesQuery {
        measures: vec![Measure::Spans],
        kinds: vec![OperationKind::Root],
        group_by: Vec::new(),
        groups: SeriesGroups::Busiest,
        filter: BTreeMap::new(),
        from_unix_seconds: NOON / 1_000_000_000 - 43_200,
        to_unix_seconds: NOON / 1_000_000_000 + 3 * 86_400,
        step_seconds: 86_400,
    };
    let series = settled(reader, &query).await;
    series.groups.iter().map(|group| group.spans).sum()
}

#[tokio::test]
async fn what_goes_is_counted_and_what_stays_tells_what_it_stands_for() {
    let dir = tempfile::tempdir().unwrap();
    let (store, registry) = open(dir.path(), share(0.25));
    // A hundred traces, spread evenly; of those that chance would take, some have more to say.
    for hundredth in 0..100 {
        let id = id_at(hundredth, hundredth);
        let mut batch = spans(NOON, two(id));
        match hundredth {
            3 => batch.spans[1].status.code = StatusCode::Error,
            4 => batch.decisions.push(decision(id, 4, 1)),
            5 => batch.logs.push(log(Some(id), 5, "of a trace that goes")),
            6 => {
                let mut failed = log(Some(id), 5, "of a trace that fails");
                failed.severity = throughline_trace::Severity::ERROR;
                batch.logs.push(failed);
            }
            _ => {}
        }
        batch.logs.extend((hundredth == 7).then(|| log(None, 6, "of no trace")));
        store.inbox().commit(batch).await.unwrap();
    }
    let reader = store.reader();
    close_day(&store, 1).await;

    let info = first_segment(&reader).await;
    let tally = info.sampled.clone().unwrap();
    let traces = |counts: &BTreeMap<String, throughline_store::Count>| {
        counts.iter().map(|(of, count)| (of.clone(), count.traces)).collect::<Vec<_>>()
    };
    assert_eq!(traces(&tally.kept), [("decided".to_owned(), 1), ("error".to_owned(), 2)]);
    assert_eq!(traces(&tally.chosen), [("rest".to_owned(), 25)]);
    assert_eq!(traces(&tally.dropped), [("rest".to_owned(), 72)]);
    let dropped = tally.total_dropped();
    assert_eq!((dropped.spans, dropped.logs), (144, 1));
    assert_eq!((info.traces, info.spans, info.logs), (100, 56, 2));
    let labels = r#"throughline_store_sampled_spans_total{fate="dropped",reason="rest"}"#;
    assert_eq!(metric(&registry, labels), Some(144));

    // Lists have all of them, and say of each what it is.
    let listed = all(&reader).await;
    assert_eq!(listed.len(), 101);
    for hundredth in 0..100 {
        let id = id_at(hundredth, hundredth);
        let (trace, listed) = (stored(&reader, id).await, &listed[&id]);
        assert_eq!(trace.summary.sampled, listed.sampled, "{hundredth}");
        assert_eq!(listed.span_count, 2);
        let weight = listed.sampled.weight_of_trace(listed.span_count);
        let (shown, expected) = match hundredth {
            3 | 4 | 6 => (2, 1.0),
            75.. => (2, 4.0),
            _ => (0, 0.0),
        };
        assert_eq!((trace.spans.len(), weight), (shown, expected), "{hundredth}");
        assert_eq!(trace.logs.len(), usize::from(hundredth == 6), "{hundredth}");
        assert!(!trace.is_skeleton);
    }
    // SQL over spans is weighted, and says that it should be.
    let there = ask(&reader, "SELECT count(*) FROM spans").await;
    assert_eq!(there.rows[0][0], SqlValue::Integer(57));
    assert!(there.is_sampled);
    assert_eq!(number(&reader, "SELECT sum(sampling_weight) FROM spans").await, 207.0);
    let over_traces = ask(&reader, "SELECT sum(spans), sum(spans_dropped) FROM traces").await;
    assert_eq!(over_traces.rows[0], [SqlValue::Integer(201), SqlValue::Integer(144)]);
    assert!(!over_traces.is_sampled);
    assert_eq!(number(&reader, "SELECT sum(sampling_weight) FROM traces").await, 104.0);
    // A search does not say of what went that it is not there.
    let query = SearchQuery::parse("@k:here", NOON).unwrap();
    let filter = TraceFilter { query: Some(query), ..TraceFilter::default() };
    let page = reader.traces(&filter, None, 200).await.unwrap();
    assert_eq!((page.items.len(), page.search.traces_cut), (28, 72));
    // One that the index leads knows what is left only.
    store.index_now().await;
    let page = reader.traces(&filter, None, 200).await.unwrap();
    assert_eq!((page.items.len(), page.search.traces_cut), (28, 0));
}

#[tokio::test]
async fn rollups_and_redelivery_do_not_see_that_anything_went() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), share(0.0));
    for number in 0..20 {
        store.inbox().commit(spans(NOON, two(id_at(7, number)))).await.unwrap();
    }
    let reader = store.reader();
    close_day(&store, 1).await;
    assert_eq!(first_segment(&reader).await.spans, 0);
    assert_eq!(spans_in_rollups(&reader).await, 41);
    let again = store.inbox().commit(spans(NOON + DAY, two(id_at(7, 3)))).await.unwrap();
    assert_eq!((again.spans, again.duplicate_spans), (0, 2));
    store.keep_now().await;
    assert_eq!(spans_in_rollups(&reader).await, 41);
    assert_eq!(stored(&reader, id_at(7, 3)).await.summary.span_count, 2);
    // The same after a start, when nothing is remembered.
    store.close().await.unwrap();
    let (store, _) = open(dir.path(), share(0.0));
    let again = store.inbox().commit(spans(NOON + DAY, two(id_at(7, 4)))).await.unwrap();
    assert_eq!((again.spans, again.duplicate_spans), (0, 2));
    let report = throughline_store::verify_store(dir.path(), |_| {}).unwrap();
    assert!(report.is_good(), "{report:?}");
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_trace_is_judged_by_all_its_parts_and_a_late_error_is_told_to_be_late() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), share(0.0));
    let (in_time, late) = (id_at(7, 1), id_at(7, 2));
    for id in [in_time, late] {
        store.inbox().commit(spans(NOON, two(id))).await.unwrap();
    }
    // The first batch of the next day brings an error, before the first day is judged.
    let failed = |id, number| {
        let mut failed = span(id, number, Some(1), DAY);
        failed.status.code = StatusCode::Error;
        failed
    };
    store.inbox().commit(spans(NOON + DAY, vec![failed(in_time, 3)])).await.unwrap();
    store.keep_now().await;
    let reader = store.reader();
    assert_eq!(stored(&reader, in_time).await.spans.len(), 3);
    assert_eq!(stored(&reader, late).await.spans.len(), 0);
    // The other's error comes after its first part went.
    store.inbox().commit(spans(NOON + DAY, vec![failed(late, 3)])).await.unwrap();
    let trace = stored(&reader, late).await;
    assert_eq!((trace.spans.len(), trace.summary.span_count), (1, 3));
    assert_eq!((trace.summary.error_count, trace.summary.sampled.spans_dropped), (1, 2));
    close_day(&store, 2).await;
    let second = reader.segments().await.unwrap().remove(1);
    let tally = second.sampled.unwrap();
    assert_eq!(tally.kept["error"].traces, 2);
    assert_eq!((tally.too_late.traces, tally.too_late.spans), (1, 1));
    // Nothing is counted twice, and all of it is still one trace.
    let listed = &all(&reader).await[&late];
    assert_eq!((listed.span_count, listed.sampled.spans_dropped), (3, 2));
}

#[tokio::test]
async fn an_error_in_a_log_of_an_earlier_segment_keeps_the_parts_that_come_later() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), share(0.0));
    let id = id_at(50, 1);
    let mut first = spans(NOON, vec![span(id, 1, None, 0)]);
    let mut failed = log(Some(id), 5, "of a trace that fails");
    failed.severity = throughline_trace::Severity::ERROR;
    first.logs.push(failed);
    store.inbox().commit(first).await.unwrap();
    close_day(&store, 1).await;
    store.inbox().commit(spans(NOON + DAY, vec![span(id, 2, Some(1), 1_000)])).await.unwrap();
    close_day(&store, 2).await;
    let reader = store.reader();
    let sampled: Vec<bool> =
        reader.segments().await.unwrap().iter().map(|one| one.sampled.is_some()).collect();
    assert_eq!(sampled, [false, true, true]);
    let trace = stored(&reader, id).await;
    assert_eq!((trace.spans.len(), trace.summary.sampled.spans_dropped), (2, 0));
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_segment_waits_for_what_runs_and_keeps_it_at_last() {
    let dir = tempfile::tempdir().unwrap();
    let years = Duration::from_secs(400 * 365 * 86_400);
    let patient = Sampling { wait: years, max_wait: years, ..share(0.0) };
    let (store, _) = open(dir.path(), patient.clone());
    store.inbox().commit(spans(NOON, two(id_at(7, 1)))).await.unwrap();
    close_day(&store, 1).await;
    let reader = store.reader();
    assert!(!first_segment(&reader).await.is_packed);
    store.close().await.unwrap();
    let (store, _) = open(dir.path(), Sampling { max_wait: Duration::ZERO, ..patient });
    store.keep_now().await;
    let info = first_segment(&store.reader()).await;
    assert!(info.is_packed);
    assert_eq!(info.sampled.unwrap().kept["running"].traces, 1);
    assert_eq!(stored(&store.reader(), id_at(7, 1)).await.spans.len(), 2);
}

#[tokio::test]
async fn what_a_decision_refers_to_keeps_its_skeleton_at_least() {
    let dir = tempfile::tempdir().unwrap();
    let always = Always { decided: false, ..Always::default() };
    let (store, _) = open(dir.path(), Sampling { always, ..share(0.0) });
    let id = id_at(7, 1);
    let mut batch = spans(NOON, two(id));
    batch.decisions.push(decision(id, 4, 1));
    store.inbox().commit(batch).await.unwrap();
    store.inbox().commit(spans(NOON, two(id_at(7, 2)))).await.unwrap();
    close_day(&store, 1).await;
    let reader = store.reader();
    let trace = stored(&reader, id).await;
    assert!(trace.is_skeleton);
    assert_eq!((trace.spans.len(), trace.summary.sampled.spans_bared), (2, 2));
    assert_eq!(trace.spans[1].name, "span 2");
    assert!(trace.spans[1].attributes.str("k").is_none());
    let tally = first_segment(&reader).await.sampled.unwrap();
    assert_eq!((tally.bared["rest"].traces, tally.dropped["rest"].traces), (1, 1));
}

#[tokio::test]
async fn what_was_derived_from_a_trace_does_not_keep_all_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), share(0.5));
    for (number, hundredths) in [(1, 7), (2, 13), (3, 75), (4, 88)] {
        let id = id_at(hundredths, number);
        let mut batch = spans(NOON, two(id));
        batch.decisions.push(derived(id, number.into()));
        store.inbox().commit(batch).await.unwrap();
    }
    close_day(&store, 1).await;
    let reader = store.reader();
    let tally = first_segment(&reader).await.sampled.unwrap();
    assert_eq!((tally.bared["rest"].traces, tally.chosen["rest"].traces), (2, 2));
    assert!(tally.kept.is_empty(), "{:?}", tally.kept);
    // Decisions have something to refer to, and the chosen stand for all four.
    let trace = stored(&reader, id_at(7, 1)).await;
    assert_eq!((trace.is_skeleton, trace.decisions.len()), (true, 1));
    let all = format!("start_unix_nano < {}", NOON + DAY / 2);
    // The span that closes the day is one more.
    for (table, expected) in [("spans", 9.0), ("traces", 5.0)] {
        let sum = format!("SELECT sum(sampling_weight) FROM {table} WHERE {all}");
        assert_eq!(number(&reader, &sum).await, expected, "{table}");
    }
}

/// Counts spans with `k`; those that say `bad` are.
#[derive(Debug)]
struct ByAttribute;

impl Observe for ByAttribute {
    fn observe(&self, span: &Span, into: &mut Vec<Observation>) {
        if let Some(said) = span.attributes.str("k") {
            let counts = Counts::event(said != "bad");
            into.push(Observation { indicator: "k".into(), counts });
        }
    }

    fn indicators(&self) -> Vec<Arc<str>> {
        vec!["k".into()]
    }
}

#[tokio::test]
async fn r5_4_what_was_bad_for_an_objective_is_kept_in_whichever_segment_it_was() {
    for is_on in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let always = Always { slo: is_on, ..Always::default() };
        let options = StoreOptions {
            sampling: Sampling { always, ..share(0.0) },
            ..made::options(dir.path())
        };
        options.observer.set(Arc::new(ByAttribute));
        let store = Store::open(options, &mut Registry::default()).unwrap();
        let (good, bad, later) = (id_at(7, 1), id_at(7, 2), id_at(7, 3));
        let said = |id: u128, number: u64| {
            let mut span = span(id, number, Some(1), 1_000);
            span.attributes.set("k", "bad");
            span
        };
        let first = [two(good), two(bad), vec![said(bad, 3)], two(later)].concat();
        store.inbox().commit(spans(NOON, first)).await.unwrap();
        // The segment before is judged by what comes behind it, too.
        store.inbox().commit(spans(NOON + DAY, vec![said(later, 3)])).await.unwrap();
        close_day(&store, 2).await;
        let reader = store.reader();
        let mut left = Vec::new();
        for id in [good, bad, later] {
            left.push(stored(&reader, id).await.spans.len());
        }
        assert_eq!(left, if is_on { [0, 3, 3] } else { [0, 0, 0] });
        let tally = first_segment(&reader).await.sampled.unwrap();
        let kept = tally.kept.get("slo").map(|kept| (kept.traces, kept.spans));
        assert_eq!(kept, is_on.then_some((2, 5)));
        store.close().await.unwrap();
    }
}

#[tokio::test]
async fn slow_and_rare_are_told_by_the_others_of_the_kind() {
    let dir = tempfile::tempdir().unwrap();
    let rare = Some(Rare { fewer_than: 2, by: Kind::Operation });
    let always = Always { slow_quantile: Some(0.99), rare, ..Always::default() };
    let (store, _) = open(dir.path(), Sampling { always, ..share(0.0) });
    for number in 0..150 {
        let mut root = span(id_at(7, number), 1, None, 0);
        root.attributes.set("agent_id", "fraud");
        match number {
            5 => root.end_unix_nano += 10_000_000_000,
            6 => root.name = "something else".to_owned(),
            _ => {}
        }
        store.inbox().commit(spans(NOON, vec![root])).await.unwrap();
    }
    close_day(&store, 1).await;
    let tally = first_segment(&store.reader()).await.sampled.unwrap();
    assert_eq!((tally.kept["slow"].traces, tally.kept["rare"].traces), (1, 1), "{tally:?}");
    assert_eq!(tally.dropped["rest"].traces, 148);
    assert_eq!(stored(&store.reader(), id_at(7, 5)).await.spans.len(), 1);
    assert_eq!(stored(&store.reader(), id_at(7, 6)).await.spans.len(), 1);
}

#[tokio::test]
async fn a_legal_hold_keeps_what_it_names() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), share(0.0));
    let (held, other) = (id_at(7, 1), id_at(7, 2));
    for id in [held, other] {
        store.inbox().commit(spans(NOON, two(id))).await.unwrap();
    }
    let filter = AuditFilter { trace_id: Some(TraceId::from_u128(held)), ..AuditFilter::default() };
    AuditLog::new(dir.path(), AuditKeys::default()).hold(&filter, "case 7", "local").unwrap();
    close_day(&store, 1).await;
    assert_eq!(stored(&store.reader(), held).await.spans.len(), 2);
    assert_eq!(stored(&store.reader(), other).await.spans.len(), 0);
    let tally = first_segment(&store.reader()).await.sampled.unwrap();
    assert_eq!((tally.kept["held"].traces, tally.dropped["rest"].traces), (1, 1));
}
