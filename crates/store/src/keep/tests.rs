//! A retirement is killed after every step: what is left is the old state or the new one.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use throughline_trace::{Span, SpanBatch, SpanId, TraceId};

use super::retire::{Done, Retirement};
use super::step::Step;
use super::{manifest, pack};
use crate::answer::{SegmentState, StoredTrace};
use crate::layout::{Layout, SegmentId};
use crate::options::{RollupRetention, StoreOptions};
use crate::sampling::{Baselines, Sampling};
use crate::schema::CONTROL;
use crate::session::Files;
use crate::store::Store;
use crate::{Reader, TraceFilter};

const DAY: u64 = 86_400_000_000_000;
const FIRST: u64 = 20_000 * DAY;

fn open(dir: &std::path::Path) -> Store {
    let options = StoreOptions { first_day_unix_nano: Some(FIRST), ..StoreOptions::new(dir) };
    Store::open(options, &mut Registry::default()).unwrap()
}

fn batch(trace: u128, received: u64) -> SpanBatch {
    let mut span = Span::new(TraceId::from_u128(trace), SpanId::from_u64(1), None, "run");
    span.start_unix_nano = received;
    span.end_unix_nano = received + 7;
    span.attributes.set("gen_ai.operation.name", "chat");
    span.attributes.set("gen_ai.input.messages", r#"[{"role":"user","content":"a secret"}]"#);
    SpanBatch { received_unix_nano: received, spans: vec![span], ..SpanBatch::default() }
}

/// Two days, of which the first has a trace with a decision and one without.
async fn filled(dir: &std::path::Path) {
    let store = open(dir);
    let mut decided = batch(1, FIRST);
    decided.decisions.push(crate::writer::tests::decision(1));
    for batch in [decided, batch(2, FIRST), batch(3, FIRST + DAY)] {
        store.inbox().commit(batch).await.unwrap();
    }
    store.keep_now().await;
    store.close().await.unwrap();
}

async fn traces(reader: &Reader) -> [Option<StoredTrace>; 3] {
    let mut found = [const { None }; 3];
    for (at, place) in found.iter_mut().enumerate() {
        *place = reader.trace(TraceId::from_u128(at as u128 + 1)).await.unwrap();
    }
    found
}

#[tokio::test]
async fn a_kill_at_any_step_of_a_retirement_leaves_the_old_state_or_the_new_one() {
    for killed_after in 0..=Step::ALL.len() {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path()).await;
        let layout = Layout::new(dir.path());
        let id = *layout.list().unwrap().last().unwrap();
        let control = CONTROL.open_writer(&layout.control()).unwrap();
        let check = || Ok(());
        let job = Retirement { layout: &layout, control: &control, id, check: &check };
        let mut done = Done::default();
        for step in Step::ALL.into_iter().take(killed_after) {
            job.step(step, &mut done).unwrap();
        }
        drop(control);
        let is_old = killed_after < 4;
        // Beside a server that was killed, and after the next start.
        for is_reopened in [false, true] {
            let store = is_reopened.then(|| open(dir.path()));
            let reader =
                Reader::new(Arc::new(Files::new(layout.clone())), RollupRetention::default());
            let [decided, other, later] = traces(&reader).await;
            let told = format!("killed after {killed_after} steps, reopened: {is_reopened}");
            let decided = decided.expect(&told);
            assert_eq!((decided.spans.len(), decided.decisions.len()), (1, 1), "{told}");
            assert_eq!(decided.is_skeleton, !is_old, "{told}");
            let has_message = decided.spans[0].attributes.str("gen_ai.input.messages").is_some();
            assert_eq!(has_message, is_old, "{told}");
            assert_eq!(decided.spans[0].role(), throughline_trace::SpanRole::LlmCall, "{told}");
            assert_eq!(other.is_some(), is_old, "{told}");
            assert!(later.is_some_and(|trace| !trace.is_skeleton), "{told}");
            let listed = reader.traces(&TraceFilter::default(), None, 9).await.unwrap();
            assert_eq!(listed.items.len(), if is_old { 3 } else { 2 }, "{told}");
            if let Some(store) = store {
                let info = reader.segments().await.unwrap();
                let expected = if is_old { SegmentState::Sealed } else { SegmentState::Skeleton };
                assert_eq!(info.last().unwrap().state, expected, "{told}");
                store.close().await.unwrap();
            }
        }
        let names = std::fs::read_dir(layout.segments()).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        assert!(
            !names.iter().any(|name| name.to_string_lossy().contains(".tmp")),
            "{killed_after}: {names:?}"
        );
        // What was interrupted can be done again.
        let control = CONTROL.open_writer(&layout.control()).unwrap();
        let job = Retirement { layout: &layout, control: &control, id, check: &check };
        if is_old {
            assert_eq!(job.run().unwrap().kept, 1);
        }
        // With the decision goes the skeleton.
        assert!(!job.prune().unwrap());
        control.execute("DELETE FROM decisions", []).unwrap();
        assert!(job.prune().unwrap());
        assert!(!layout.file_of(id).exists());
    }
}

#[tokio::test]
async fn a_kill_at_any_step_of_packing_leaves_the_old_state_or_the_new_one() {
    let rest = throughline_trace::SamplingRate::new(0.0).unwrap();
    let wait = std::time::Duration::ZERO;
    let sampling = Sampling { rest, wait, ..Sampling::default() };
    for killed_after in 0..=Step::ALL.len() {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path()).await;
        let layout = Layout::new(dir.path());
        let id = *layout.list().unwrap().last().unwrap();
        let control = CONTROL.open_writer(&layout.control()).unwrap();
        let pause = || Ok(());
        let job = pack::Packer {
            layout: &layout,
            control: &control,
            id,
            sampling: &sampling,
            baselines: &Baselines::default(),
            watching: &crate::indicators::Watching::default(),
            now_unix_nano: u64::MAX,
            pause: &pause,
        };
        let mut done = pack::Done::default();
        for step in Step::ALL.into_iter().take(killed_after) {
            job.step(step, &mut done).unwrap();
        }
        let is_old = killed_after < 4;
        for is_reopened in [false, true] {
            let store = is_reopened.then(|| open(dir.path()));
            let reader =
                Reader::new(Arc::new(Files::new(layout.clone())), RollupRetention::default());
            let [decided, other, later] = traces(&reader).await;
            let told = format!("killed after {killed_after} steps, reopened: {is_reopened}");
            let (decided, other) = (decided.expect(&told), other.expect(&told));
            // The one with a decision is kept whole; of the other the summary stays.
            assert!(decided.spans[0].attributes.str("gen_ai.input.messages").is_some(), "{told}");
            assert_eq!((decided.summary.sampled.spans_dropped, decided.is_skeleton), (0, false));
            assert_eq!(other.summary.span_count, 1, "{told}");
            assert_eq!(other.spans.len(), usize::from(is_old), "{told}");
            assert_eq!(other.summary.sampled.spans_dropped, u64::from(!is_old), "{told}");
            assert!(later.is_some_and(|trace| trace.spans.len() == 1), "{told}");
            let listed = reader.traces(&TraceFilter::default(), None, 9).await.unwrap();
            assert_eq!(listed.items.len(), 3, "{told}");
            if let Some(store) = store {
                // The seal is of the file that is there, and what went is told.
                let info = reader.segments().await.unwrap().pop().unwrap();
                assert_eq!((info.state, info.is_packed), (SegmentState::Sealed, !is_old), "{told}");
                assert_eq!(info.spans, if is_old { 2 } else { 1 }, "{told}");
                let dropped = info.sampled.map(|tally| tally.total_dropped().spans);
                assert_eq!(dropped, (!is_old).then_some(1), "{told}");
                store.close().await.unwrap();
                let report = crate::verify_store(dir.path(), |_| {}).unwrap();
                assert!(report.is_good(), "{told}: {report:?}");
                let sealed = report.files.iter().filter(|file| file.is_sealed).count();
                assert_eq!(sealed, 1, "{told}: {report:?}");
            }
        }
        let names = std::fs::read_dir(layout.segments()).unwrap();
        let names: Vec<_> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert!(!names.iter().any(|name| name.contains(".tmp")), "{killed_after}: {names:?}");
        assert_eq!(names.iter().any(|name| name.contains(".packed")), !is_old, "{names:?}");
        // What was interrupted can be done again, and what is packed can be retired.
        if is_old {
            let sampled = job.run().unwrap().sampled.unwrap();
            assert_eq!((sampled.total_dropped().spans, sampled.kept["decided"].spans), (1, 1));
        }
        let check = || Ok(());
        let job = Retirement { layout: &layout, control: &control, id, check: &check };
        assert_eq!(job.run().unwrap().kept, 1);
        assert!(!layout.packed(id).exists() && layout.skeleton(id).exists());
        let reader = Reader::new(Arc::new(Files::new(layout.clone())), RollupRetention::default());
        let [decided, other, _] = traces(&reader).await;
        assert!(decided.is_some_and(|trace| trace.is_skeleton) && other.is_none());
    }
}

#[tokio::test]
async fn what_was_retired_is_not_written_to_again() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let layout = Layout::new(dir.path());
    let newest: SegmentId = layout.list().unwrap()[0];
    let control = CONTROL.open_writer(&layout.control()).unwrap();
    let check = || Ok(());
    for id in layout.list().unwrap() {
        Retirement { layout: &layout, control: &control, id, check: &check }.run().unwrap();
    }
    drop(control);
    // Only the skeleton of the first day is left; the next start goes on behind it.
    assert_eq!(layout.list().unwrap().len(), 1);
    let store = open(dir.path());
    store.inbox().commit(batch(9, FIRST + DAY)).await.unwrap();
    let ids = layout.list().unwrap();
    assert!(ids[0].day == newest.day && layout.segment(ids[0]).exists(), "{ids:?}");
    assert!(store.reader().trace(TraceId::from_u128(9)).await.unwrap().is_some());
}

#[test]
fn a_seal_that_was_noted_before_a_kill_is_read_as_it_was_written() {
    let zeros = ["0"; 32].join(",");
    let noted = format!(
        r#"{{"blake3":[{zeros}],"bytes":1,"schema":5,"traces":2,"spans":3,"logs":4,"points":5,"counted_until":6,"sampled":null}}"#
    );
    let packing: manifest::Packing = serde_json::from_str(&noted).unwrap();
    assert_eq!(serde_json::to_string(&packing).unwrap(), noted);
    assert_eq!((packing.seal.bytes, packing.seal.counted_until), (1, 6));
}
