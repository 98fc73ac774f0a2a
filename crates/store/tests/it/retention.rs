//! Rotation by size, retention, and damaged segments, through the public doors.

use std::path::Path;
use std::time::Duration;

use prometheus_client::registry::Registry;
use throughline_store::{
    AuditFilter, AuditKeys, AuditLog, Reader, Retention, SegmentState, Store, StoreOptions,
    TraceFilter,
};
use throughline_trace::TraceId;

use crate::made::{self, DAY, NOON, decision, log, span, spans};

/// Bytes of a segment of about a dozen of the traces that [`fill`] sends.
pub(crate) const SMALL: u64 = 256 * 1024;

fn options(dir: &Path, retention: Retention) -> StoreOptions {
    StoreOptions { max_segment_bytes: SMALL, retention, ..made::options(dir) }
}

fn open(dir: &Path, retention: Retention) -> (Store, Registry) {
    let mut registry = Registry::default();
    let store = Store::open(options(dir, retention), &mut registry).unwrap();
    (store, registry)
}

pub(crate) fn metric(registry: &Registry, name: &str) -> u64 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Text that does not compress.
fn noise(seed: u64) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |state: &mut u64| {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        char::from(b' ' + (*state % 90) as u8)
    };
    (0..20_000).map(|_| next(&mut state)).collect()
}

/// Sends traces of one noisy span each, from `first` on.
pub(crate) async fn fill(store: &Store, received: u64, traces: std::ops::Range<u128>) {
    for trace in traces {
        let mut one = span(trace, 1, None, trace as u64);
        one.attributes.set("noise", noise(trace as u64));
        store.inbox().commit(spans(received, vec![one])).await.unwrap();
    }
}

async fn states(store: &Store) -> Vec<(String, SegmentState)> {
    let segments = store.reader().segments().await.unwrap();
    segments.into_iter().map(|info| (info.segment, info.state)).collect()
}

#[tokio::test]
async fn a_full_segment_is_followed_by_another_of_its_day() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), Retention::default());
    fill(&store, NOON, 1..60).await;
    // A trace goes on over several segments, and a redelivery is found in an earlier one.
    let more = vec![span(1, 2, Some(1), 0), span(1, 3, Some(1), 0)];
    assert_eq!(store.inbox().commit(spans(NOON, more.clone())).await.unwrap().spans, 2);
    fill(&store, NOON, 60..120).await;
    let again = store.inbox().commit(spans(NOON, more)).await.unwrap();
    assert_eq!((again.spans, again.duplicate_spans), (0, 2));
    store.keep_now().await;
    let states = states(&store).await;
    assert!(states.len() > 4, "{states:?}");
    assert_eq!(states[0].1, SegmentState::Open);
    assert!(states[1..].iter().all(|(_, state)| *state == SegmentState::Sealed), "{states:?}");
    assert_eq!(states.last().unwrap().0, "2026-11-22");
    assert_eq!(states[states.len() - 2].0, "2026-11-22-1");
    let whole = store.reader().trace(TraceId::from_u128(1)).await.unwrap().unwrap();
    assert_eq!((whole.summary.span_count, whole.spans.len()), (3, 3));
    // Pages walk over all of them, each trace once, newest first.
    let (mut cursor, mut seen) = (None, Vec::new());
    loop {
        let page =
            store.reader().traces(&TraceFilter::default(), cursor.as_deref(), 7).await.unwrap();
        seen.extend(page.items.iter().map(|summary| summary.start_unix_nano - NOON));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 119);
    let mut sorted = seen.clone();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    sorted.dedup();
    assert!(sorted == seen || seen.last() == Some(&0), "{seen:?}");
    // The next start goes on in the newest.
    store.close().await.unwrap();
    let (store, _) = open(dir.path(), Retention::default());
    fill(&store, NOON + DAY, 200..201).await;
    assert_eq!(self::states(&store).await[0].0, "2026-11-23");
    assert_eq!(store.reader().stats().await.unwrap().spans, 122);
}

#[tokio::test]
async fn r4_4_retention_by_age_keeps_the_skeletons_of_what_was_decided() {
    let dir = tempfile::tempdir().unwrap();
    let retention = Retention { max_age: Some(Duration::from_secs(2 * 86_400)), max_bytes: None };
    let (store, registry) = open(dir.path(), retention);
    let mut decided = span(1, 1, None, 0);
    decided
        .attributes
        .set("gen_ai.input.messages", r#"[{"role":"user","content":"secret words"}]"#);
    decided.attributes.set("gen_ai.operation.name", "chat");
    let mut batch = spans(NOON, vec![decided, span(1, 2, Some(1), 5), span(2, 1, None, 9)]);
    let mut held = span(3, 1, None, 11);
    held.attributes.set("session_id", "s-held");
    batch.spans.push(held);
    batch.decisions.push(decision(1, 1, 3));
    batch.logs.push(log(Some(1), 4, "secret log"));
    store.inbox().commit(batch).await.unwrap();
    let audit = AuditLog::new(dir.path(), AuditKeys::default());
    let hold = AuditFilter { trace_id: Some(TraceId::from_u128(3)), ..AuditFilter::default() };
    audit.hold(&hold, "case", "me").unwrap();
    // A day later it is not old enough; two days after that both are.
    store.inbox().commit(spans(NOON + DAY, vec![span(1, 3, Some(1), 7)])).await.unwrap();
    store.keep_now().await;
    assert_eq!(metric(&registry, "throughline_store_retired_segments_total"), 0);
    let id = TraceId::from_u128(1);
    let before = store.reader().trace_version(id).await.unwrap().unwrap();
    assert_eq!(Some(&before), store.reader().trace_version(id).await.unwrap().as_ref());
    store.inbox().commit(spans(NOON + 3 * DAY, vec![span(9, 1, None, 8)])).await.unwrap();
    store.keep_now().await;
    let segments = states(&store).await;
    let names: Vec<_> = segments.iter().map(|(name, state)| (name.as_str(), *state)).collect();
    assert_eq!(
        names,
        [
            ("2026-11-25", SegmentState::Open),
            ("2026-11-23", SegmentState::Skeleton),
            ("2026-11-22", SegmentState::Skeleton)
        ]
    );
    assert_eq!(metric(&registry, "throughline_store_retired_segments_total"), 2);
    assert_eq!(metric(&registry, "throughline_store_retired_spans_total"), 5);

    let trace = store.reader().trace(TraceId::from_u128(1)).await.unwrap().unwrap();
    assert!(trace.is_skeleton);
    let after = store.reader().trace_version(id).await.unwrap().unwrap();
    assert_eq!(before.summary, after.summary, "the summary does not tell");
    assert_ne!(before, after);
    assert_eq!((trace.spans.len(), trace.decisions.len(), trace.logs.len()), (3, 1, 0));
    assert_eq!(trace.spans[1].parent_span_id, Some(trace.spans[0].span_id));
    assert_eq!(trace.spans[0].start_unix_nano, NOON);
    let told = format!("{:?}", trace.spans);
    assert!(!told.contains("secret"), "{told}");
    assert!(store.reader().trace(TraceId::from_u128(3)).await.unwrap().unwrap().is_skeleton);
    assert!(store.reader().trace(TraceId::from_u128(2)).await.unwrap().is_none());
    let listed = store.reader().traces(&TraceFilter::default(), None, 9).await.unwrap();
    assert_eq!(listed.items.len(), 3);
    for entry in std::fs::read_dir(dir.path().join("segments")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(12).any(|window| window == b"secret words"));
    }
    // A redelivery of a retired span is still known; a late one joins its trace.
    let late = vec![span(1, 2, Some(1), 5), span(1, 4, Some(1), 6)];
    let accepted = store.inbox().commit(spans(NOON + 3 * DAY, late)).await.unwrap();
    assert_eq!((accepted.spans, accepted.duplicate_spans), (1, 1));
    let trace = store.reader().trace(TraceId::from_u128(1)).await.unwrap().unwrap();
    assert_eq!((trace.summary.span_count, trace.spans.len()), (4, 4));
    store.close().await.unwrap();
    let (store, _) = open(dir.path(), Retention::default());
    assert_eq!(store.reader().stats().await.unwrap().spans, 6);
}

#[tokio::test]
async fn retention_by_size_takes_the_oldest_and_stalls_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let retention = Retention { max_age: None, max_bytes: Some(6 * SMALL) };
    let (store, registry) = open(dir.path(), retention);
    let reader = store.reader();
    for round in 0..12_u128 {
        fill(&store, NOON, round * 20 + 1..round * 20 + 21).await;
        let page = reader.traces(&TraceFilter::default(), None, 5).await.unwrap();
        // How many segments there are besides the one that is written depends on how far the keeper is.
        let newest = TraceId::from_u128(round * 20 + 20);
        assert_eq!(page.items[0].trace_id, newest, "a reader goes on while segments go");
        assert!(page.items.len() == 5 || page.next.is_none(), "what is there is shown: {page:?}");
    }
    store.keep_now().await;
    // Whoever still looks after segments ends here: what follows stands still.
    store.close().await.unwrap();
    let reader = Reader::open(dir.path()).unwrap();
    let retired = metric(&registry, "throughline_store_retired_segments_total");
    assert!(retired > 3, "{retired}");
    let stats = reader.stats().await.unwrap();
    let files = std::fs::read_dir(dir.path().join("segments")).unwrap().map(Result::unwrap);
    // Search indexes are made behind the keeper's back.
    let files = files.filter(|entry| !entry.file_name().to_string_lossy().contains(".index"));
    let mut sizes: Vec<(std::ffi::OsString, u64)> =
        files.map(|entry| (entry.file_name(), entry.metadata().unwrap().len())).collect();
    // The log of the open segment did not count, and is in it since the store was closed.
    let open = reader.segments().await.unwrap().remove(0).segment;
    sizes.retain(|(name, _)| *name != *format!("{open}.db"));
    let bytes: u64 = sizes.iter().map(|(_, bytes)| bytes).sum();
    assert!(bytes <= 6 * SMALL && !sizes.is_empty(), "{sizes:?} {stats:?}");
    assert_eq!(stats.spans + metric(&registry, "throughline_store_retired_spans_total"), 240);
    assert!(reader.trace(TraceId::from_u128(1)).await.unwrap().is_none(), "the oldest went");
    assert!(reader.trace(TraceId::from_u128(240)).await.unwrap().is_some(), "the newest stayed");
    let segments = reader.segments().await.unwrap();
    let gone = segments.iter().filter(|info| info.state == SegmentState::Retired).count();
    assert_eq!(gone as u64, retired);
}

/// Flips a bit in one page of every four of a file, the first excepted.
fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    for page in (5..bytes.len() / 8_192).step_by(4) {
        bytes[page * 8_192 + 4_000] ^= 1;
    }
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_damaged_segment_is_named_and_the_rest_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path(), Retention::default());
    fill(&store, NOON, 1..40).await;
    store.keep_now().await;
    let count = states(&store).await.len();
    store.close().await.unwrap();
    let path = dir.path().join("segments/2026-11-22-1.db");
    let good = std::fs::read(&path).unwrap();
    flip(&path);
    let report = throughline_store::verify_store(dir.path(), |_| {}).unwrap();
    let bad: Vec<_> = report.files.iter().filter(|file| file.damage.is_some()).collect();
    assert_eq!(bad.len(), 1, "{report:?}");
    assert_eq!(bad[0].file, "segments/2026-11-22-1.db");

    // Whoever meets the page answers with what the others have, and says so.
    let reader = Reader::open(dir.path()).unwrap();
    let mut found = 0;
    for trace in 1..40 {
        found += usize::from(reader.trace(TraceId::from_u128(trace)).await.unwrap().is_some());
    }
    let damaged = reader.damaged();
    assert_eq!(damaged.len(), 1, "{damaged:?}");
    assert_eq!(damaged[0].segment, "2026-11-22-1");
    assert!(found > 20, "{found}");
    // A server writes it down, goes on, and is glad when the file comes back.
    let (store, registry) = open(dir.path(), Retention::default());
    for trace in 1..40 {
        store.reader().trace(TraceId::from_u128(trace)).await.unwrap();
    }
    store.keep_now().await;
    assert_eq!(metric(&registry, "throughline_store_damaged_segments"), 1);
    let states = states(&store).await;
    assert_eq!(states[count - 2].1, SegmentState::Damaged, "{states:?}");
    fill(&store, NOON, 100..101).await;
    store.close().await.unwrap();
    assert_eq!(Reader::open(dir.path()).unwrap().damaged().len(), 1);
    std::fs::write(&path, good).unwrap();
    let (store, _) = open(dir.path(), Retention::default());
    store.keep_now().await;
    assert!(store.reader().damaged().is_empty());
    assert!(throughline_store::verify_store(dir.path(), |_| {}).unwrap().is_good());
    assert_eq!(store.reader().stats().await.unwrap().spans, 40);
}
