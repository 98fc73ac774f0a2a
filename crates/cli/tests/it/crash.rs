//! `kill -9` during load, again and again on one data directory: whatever was acknowledged, span,
//! log record or decision, is there afterwards.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use throughline_store::Reader;
use throughline_trace::{DecisionId, Measure, SeriesQuery, TraceId};
use tokio::task::JoinSet;

use crate::export::{Exporter, NOON, decision, log, logs, span, traces};
use crate::server::Server;

/// How often the server is killed.
const KILLS: u64 = 20;
/// Exporters that send at once.
const EXPORTERS: u64 = 3;
/// Spans in one request.
const SPANS_PER_REQUEST: u64 = 8;

/// What the server has acknowledged of one trace.
#[derive(Debug, Default)]
struct Acknowledged {
    spans: HashSet<u64>,
    logs: HashSet<String>,
    decisions: HashSet<DecisionId>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_by_kill_9() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    // Segments so small that kills fall into rotations, and the keeper's sealing, too.
    std::fs::write(dir.path().join("throughline.yaml"), "store: { max_segment_bytes: 1MiB }\n")
        .expect("written");
    let mut all: Vec<(TraceId, Acknowledged)> = Vec::new();
    let mut checked = 0;
    for kill in 0..KILLS {
        let server = Server::start(&data_dir);
        check(&data_dir, &all[checked..]).await;
        check_rollups(&data_dir).await;
        checked = all.len();
        let mut exporters = JoinSet::new();
        let mut notes = Vec::new();
        for exporter in 0..EXPORTERS {
            let trace = TraceId::from_u128(u128::from(kill * EXPORTERS + exporter + 1));
            let note = Arc::new(Mutex::new(Acknowledged::default()));
            notes.push((trace, Arc::clone(&note)));
            exporters.spawn(send(Exporter::connect(&server.grpc).await, trace, note));
        }
        // The moment of the kill wanders through the work of the writer.
        let under_way = || notes.iter().all(|(_, note)| !lock(note).spans.is_empty());
        while !under_way() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(60 + kill * 37 % 300)).await;
        server.kill();
        while exporters.join_next().await.is_some() {}
        all.extend(
            notes.into_iter().map(|(trace, note)| (trace, std::mem::take(&mut *lock(&note)))),
        );
    }
    // Once more, everything: later starts must not have lost what earlier ones still had.
    Server::start(&data_dir).stop();
    check(&data_dir, &all).await;
    check_rollups(&data_dir).await;
    let total: usize = all.iter().map(|(_, acknowledged)| acknowledged.spans.len()).sum();
    assert!(total > 1_000, "the load was a load: {total} spans");
    let segments = std::fs::read_dir(data_dir.join("segments")).expect("segments");
    let segments = segments.filter(|entry| {
        entry.as_ref().is_ok_and(|entry| entry.path().extension().is_some_and(|it| it == "db"))
    });
    assert!(segments.count() > 3, "rotations were under way");
    let report = throughline_store::verify_store(&data_dir, |_| {}).expect("a report");
    assert!(report.is_good(), "{report:?}");
}

fn lock(note: &Mutex<Acknowledged>) -> std::sync::MutexGuard<'_, Acknowledged> {
    note.lock().expect("no exporter panicked")
}

/// Sends spans, log records and decisions in turn until the server is gone. Noted is only what
/// was acknowledged.
async fn send(mut exporter: Exporter, trace: TraceId, note: Arc<Mutex<Acknowledged>>) {
    for round in 0.. {
        let first = round * SPANS_PER_REQUEST + 1;
        let ids = first..first + SPANS_PER_REQUEST;
        let spans = ids.clone().map(|id| {
            span(trace, id, Some(id / 2).filter(|p| *p > 0), "load", (id, id + 1), Vec::new())
        });
        if exporter.send_traces(traces("load", spans.collect())).await.is_err() {
            return;
        }
        lock(&note).spans.extend(ids);
        let body = format!("record {round} {}", noise());
        let id = DecisionId::random();
        let records = vec![log(trace, first, &body), decision(trace, first, id, "go_on")];
        if exporter.send_logs(logs("load", records)).await.is_err() {
            return;
        }
        let mut note = lock(&note);
        note.logs.insert(body);
        note.decisions.insert(id);
    }
}

/// Text that does not compress, so that segments fill.
fn noise() -> String {
    (0..1_000).map(|_| DecisionId::random().to_string()).collect()
}

async fn check(data_dir: &Path, expected: &[(TraceId, Acknowledged)]) {
    let reader = Reader::open(data_dir).expect("a store");
    for (trace, acknowledged) in expected {
        let found = reader.trace(*trace).await.expect("an answer").expect("the trace");
        assert_eq!(found.truncated, None, "the test can see all of it");
        let spans: HashSet<u64> = found.spans.iter().map(|span| span.span_id.as_u64()).collect();
        let logs: HashSet<String> = found.logs.iter().map(|log| log.body.to_text()).collect();
        let decisions: HashSet<DecisionId> =
            found.decisions.iter().map(|decision| decision.decision_id).collect();
        let lost = (
            acknowledged.spans.difference(&spans).count(),
            acknowledged.logs.difference(&logs).count(),
            acknowledged.decisions.difference(&decisions).count(),
        );
        assert_eq!(lost, (0, 0, 0), "spans, logs, decisions acknowledged and lost of {trace}");
        assert_eq!(spans.len(), found.spans.len(), "nothing is there twice");
    }
}

/// How long rollups may take to catch up after a start, in looks of 20 ms.
const ROLLUP_LOOKS: usize = 1_000;

/// What rollups count is what is stored, in the finest grain and in the coarsest.
async fn check_rollups(data_dir: &Path) {
    let reader = Reader::open(data_dir).expect("a store");
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    // The made time; a clock that is before it does not believe it and files under the arrival.
    let about = since.expect("a clock").as_secs().min(NOON / 1_000_000_000);
    let stored = reader.stats().await.expect("an answer");
    let mut told = Vec::new();
    for _ in 0..ROLLUP_LOOKS {
        told.clear();
        let mut is_whole = true;
        for step_seconds in [60, 86_400] {
            let query = SeriesQuery {
                step_seconds,
                ..SeriesQuery::new(
                    vec![Measure::Spans, Measure::Decisions],
                    about - 3_600,
                    about + 3_600,
                )
            };
            let found = reader.series(&query).await.expect("an answer");
            is_whole &= found.coverage.is_whole();
            let totals = found.groups.first().map(|group| group.totals.clone());
            told.push(totals.unwrap_or_else(|| vec![Some(0.0); 2]));
        }
        let expected = vec![Some(stored.spans as f64), Some(stored.decisions as f64)];
        if is_whole && told.iter().all(|told| *told == expected) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{} spans and {} decisions are stored; told: {told:?}", stored.spans, stored.decisions);
}
