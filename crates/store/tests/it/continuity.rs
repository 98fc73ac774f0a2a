//! Continuity as the store tells it: only of what was inserted, and the same after a restart.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::registry::Registry;
use proptest::prelude::*;
use throughline_store::{MAX_SEGMENT_BYTES, Reader, Retention, Store, StoreOptions};
use throughline_trace::{ContinuityReport, Span, SpanBatch, SpanId, SpanKind, TraceId};

use crate::made::resource;

/// How often a test looks whether all is told, and how long.
const PATIENCE: (Duration, usize) = (Duration::from_millis(2), 5_000);

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

fn open(dir: &Path) -> Store {
    open_with(dir, MAX_SEGMENT_BYTES)
}

fn open_with(dir: &Path, max_segment_bytes: u64) -> Store {
    let options = StoreOptions {
        continuity_grace: Duration::ZERO,
        max_segment_bytes,
        ..StoreOptions::new(dir)
    };
    Store::open(options, &mut Registry::default()).unwrap()
}

fn span(trace: u64, id: u64, parent: Option<u64>, service: &str, kind: SpanKind) -> Span {
    let (trace, id) = (TraceId::from_u128(u128::from(trace)), SpanId::from_u64(id));
    let mut span = Span::new(trace, id, parent.map(SpanId::from_u64), "work");
    span.kind = kind;
    span.resource = resource(service);
    span.end_unix_nano = now() - 60_000_000_000;
    span.start_unix_nano = span.end_unix_nano - 1_000_000;
    span
}

async fn commit(store: &Store, spans: Vec<Span>) {
    let batch = SpanBatch { spans, received_unix_nano: now(), ..SpanBatch::default() };
    store.inbox().commit(batch).await.unwrap();
}

/// The answer when that many spans are counted and none is waited for.
#[expect(clippy::panic, reason = "a test that cannot go on fails")]
async fn settled(reader: &Reader, spans: u64) -> ContinuityReport {
    for _ in 0..PATIENCE.1 {
        let report = reader.continuity(0).await.unwrap();
        let told: u64 = report.services.iter().map(|of| of.spans).sum();
        let waiting: u64 = report.services.iter().map(|of| of.waiting).sum();
        if told == spans && waiting == 0 && !report.coverage.is_rebuilding {
            return report;
        }
        tokio::time::sleep(PATIENCE.0).await;
    }
    panic!("continuity did not catch up: {:?}", reader.continuity(0).await);
}

/// With parent, roots, without their parent: by service.
type Counts = BTreeMap<String, [u64; 3]>;

fn told(report: &ContinuityReport) -> Counts {
    let of = report.services.iter();
    of.map(|of| (of.service.clone(), [of.with_parent, of.roots, of.lost + of.remote])).collect()
}

fn expected(spans: &[Span]) -> Counts {
    let ids: HashSet<_> = spans.iter().map(|span| (span.trace_id, span.span_id)).collect();
    let mut counts = Counts::new();
    for span in spans {
        let of = counts.entry(span.service().to_owned()).or_default();
        match span.parent_span_id {
            None => of[1] += 1,
            Some(parent) => {
                of[0] += 1;
                of[2] += u64::from(!ids.contains(&(span.trace_id, parent)));
            }
        }
    }
    counts
}

prop_compose! {
    fn any_span()(
        (trace, id, parent) in (1..4_u64, 1..9_u64, proptest::option::weighted(0.8, 1..11_u64)),
        service in 0..3_usize,
        kind in 0..6_i32,
    ) -> Span {
        span(trace, id, parent, ["shop", "stock", "bank"][service], SpanKind::from_i32(kind))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn r2_6_the_store_counts_as_the_oracle_over_redeliveries_and_restarts(
        batches in proptest::collection::vec(
            (proptest::collection::vec(any_span(), 1..8), any::<bool>(), any::<bool>()),
            1..5,
        ),
        // One segment for all, or one for each batch.
        max_segment_bytes in prop_oneof![Just(MAX_SEGMENT_BYTES), Just(1)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let mut store = open_with(dir.path(), max_segment_bytes);
            let mut inserted: Vec<Span> = Vec::new();
            for (spans, is_repeated, is_restarted) in batches {
                commit(&store, spans.clone()).await;
                if is_repeated {
                    commit(&store, spans.clone()).await;
                }
                for span in spans {
                    if !inserted.contains(&span) {
                        inserted.push(span);
                    }
                }
                if is_restarted {
                    store.close().await.unwrap();
                    store = open_with(dir.path(), max_segment_bytes);
                }
            }
            let report = settled(&store.reader(), inserted.len() as u64).await;
            prop_assert_eq!(told(&report), expected(&inserted));
            store.close().await.unwrap();
            // Whoever asks without a store reads the rows, and finds the same.
            let reader = Reader::open(dir.path()).unwrap();
            let anew = reader.with_continuity_grace(Duration::ZERO).continuity(0).await.unwrap();
            prop_assert_eq!(told(&anew), expected(&inserted));
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn r2_6_a_parent_that_comes_after_a_restart_mends() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    commit(&store, vec![span(1, 2, Some(1), "shop", SpanKind::Internal)]).await;
    let report = settled(&store.reader(), 1).await;
    assert_eq!((report.services[0].lost, report.missing_roots.count), (1, 1));
    assert_eq!(report.edges[0].label(), "inside shop (work)");
    store.close().await.unwrap();

    let store = open(dir.path());
    let report = settled(&store.reader(), 1).await;
    assert_eq!(report.services[0].lost, 1);
    assert!(report.coverage.from_unix_nano < report.coverage.mended_from_unix_nano);
    commit(&store, vec![span(1, 1, None, "shop", SpanKind::Server)]).await;
    let report = settled(&store.reader(), 2).await;
    assert_eq!((report.services[0].lost, report.services[0].mended_late), (0, 1));
    assert!(report.is_well());
    assert_eq!(store.reader().edges_of_trace(TraceId::from_u128(1)), []);
    store.close().await.unwrap();
}

#[tokio::test]
async fn r2_6_the_score_is_a_metric_of_bounded_labels() {
    let dir = tempfile::tempdir().unwrap();
    let mut registry = Registry::default();
    let options =
        StoreOptions { continuity_grace: Duration::ZERO, ..StoreOptions::new(dir.path()) };
    let store = Store::open(options, &mut registry).unwrap();
    let spans = (0..400).map(|n| {
        let service = format!("service-{n}");
        span(n + 1, 2, Some(1), &service, SpanKind::Internal)
    });
    commit(&store, spans.collect()).await;
    let report = settled(&store.reader(), 400).await;
    assert_eq!(report.services.len(), 257);
    assert!(report.coverage.folded_spans > 0);
    let metrics = || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    };
    let wanted = "throughline_orphan_spans_total{service=\"(other)\"} 144";
    for _ in 0..PATIENCE.1 {
        if metrics().contains(wanted) {
            break;
        }
        tokio::time::sleep(PATIENCE.0).await;
    }
    let text = metrics();
    assert!(text.contains(wanted), "{text}");
    assert!(text.contains("throughline_continuity_score{service=\"service-7\"} 0.0"), "{text}");
    assert_eq!(text.matches("throughline_continuity_score{").count(), 257);
    store.close().await.unwrap();
}

#[tokio::test]
async fn r2_6_a_parent_in_a_retired_segment_is_known_where_a_skeleton_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let options = || StoreOptions {
        continuity_grace: Duration::ZERO,
        max_segment_bytes: 1,
        // All but the open one go.
        retention: Retention { max_age: None, max_bytes: Some(1) },
        ..StoreOptions::new(dir.path())
    };
    let begin = now();
    let store = Store::open(options(), &mut Registry::default()).unwrap();
    let mut first = SpanBatch {
        spans: vec![span(1, 1, None, "shop", SpanKind::Server)],
        received_unix_nano: now(),
        ..SpanBatch::default()
    };
    first.decisions.push(crate::made::decision(1, 1, 0));
    store.inbox().commit(first).await.unwrap();
    commit(&store, vec![span(1, 2, Some(1), "shop", SpanKind::Internal)]).await;
    commit(&store, vec![span(1, 3, Some(2), "shop", SpanKind::Internal)]).await;
    store.keep_now().await;
    let names: Vec<String> = std::fs::read_dir(dir.path().join("segments"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".skeleton.db"))
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    store.close().await.unwrap();
    let store = Store::open(options(), &mut Registry::default()).unwrap();
    let report = settled(&store.reader(), 3).await;
    assert_eq!((report.services[0].with_parent, report.services[0].lost), (2, 0));
    assert!(report.is_well());
    // What was retired altogether is not told: only from here on it is known that nothing was.
    assert!(report.coverage.from_unix_nano > begin);
    store.close().await.unwrap();
}
