//! `kill -9` during load, again and again on one data directory: whatever was acknowledged, span,
//! log record or decision, is there afterwards, or counted and left as a skeleton where retention took
//! it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use throughline_store::Reader;
use throughline_trace::{DecisionId, Measure, SeriesQuery, TraceId};
use tokio::task::JoinSet;

use crate::export::{Exporter, NOON, decision, log, logs, span, traces};
use crate::server::{Server, run};

/// How often the server is killed.
const KILLS: u64 = 20;
/// Exporters that send at once.
const EXPORTERS: u64 = 3;
/// Spans in one request.
const SPANS_PER_REQUEST: u64 = 8;
/// Spans of each exporter that are acknowledged before a kill, however slow the machine is.
const SPANS_BEFORE_KILL: usize = 24;

/// What the server has acknowledged of one trace.
#[derive(Debug, Default)]
struct Acknowledged {
    spans: HashSet<u64>,
    logs: HashSet<String>,
    decisions: HashSet<DecisionId>,
}

/// Segments so small that kills fall into rotations, and the keeper's sealing, too.
const SMALL_SEGMENTS: &str = "store: { max_segment_bytes: 1MiB }\n";

/// The same, and all but the latest one or two are retired.
const SMALL_RETENTION: &str =
    "store: { max_segment_bytes: 1MiB }\nretention: { max_bytes: 1MiB }\n";

/// The same, and what is packed loses all that no decision refers to, the rest its content, while
/// it is still being sent.
const SMALL_SAMPLING: &str = "store: { max_segment_bytes: 1MiB }
sampling: { rate: 0, keep: { decided: false, errors: false }, wait: 0s, max_wait: 0s }
";

/// What is left of an acknowledged trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// All of it.
    Everything,
    /// Its spans and decisions; log records and what spans said only where it is not retired.
    Skeletons,
    /// Its decisions, and of spans and log records as many as sampling does not say that it took.
    Counted,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_by_kill_9() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = kill_again_and_again(dir.path(), SMALL_SEGMENTS, Left::Everything).await;
    assert!(files(&data_dir, ".db").len() > 3, "rotations were under way");
    assert!(files(&data_dir, ".packed.db").len() > 2, "packing was under way");
    assert_eq!(files(&data_dir, ".tmp"), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sampling_under_kill_9_takes_nothing_that_it_does_not_count() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = kill_again_and_again(dir.path(), SMALL_SAMPLING, Left::Counted).await;
    assert!(files(&data_dir, ".packed.db").len() > 2, "packing was under way");
    assert_eq!(files(&data_dir, ".tmp"), Vec::<String>::new());
    let verified = run(&data_dir, &["audit", "verify"]);
    assert_eq!(verified.code, 0, "{}", verified.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_and_sealing_under_kill_9_lose_no_decision_no_skeleton_and_no_count() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = kill_again_and_again(dir.path(), SMALL_RETENTION, Left::Skeletons).await;
    assert!(files(&data_dir, ".skeleton.db").len() > 2, "retention was under way");
    assert_eq!(files(&data_dir, ".tmp"), Vec::<String>::new());
    let verified = run(&data_dir, &["audit", "verify"]);
    assert_eq!(verified.code, 0, "{}", verified.stderr);
}

/// Names of segments with this ending.
fn files(data_dir: &Path, ending: &str) -> Vec<String> {
    std::fs::read_dir(data_dir.join("segments"))
        .expect("segments")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(ending))
        .collect()
}

/// Kills servers under load and looks after each; answers the data directory.
async fn kill_again_and_again(dir: &Path, config: &str, left: Left) -> PathBuf {
    let data_dir = dir.join("data");
    std::fs::write(dir.join("throughline.yaml"), config).expect("written");
    let mut all: Vec<(TraceId, Acknowledged)> = Vec::new();
    let mut checked = 0;
    for kill in 0..KILLS {
        let server = Server::start(&data_dir);
        check(&data_dir, &all[checked..], left).await;
        check_rollups(&data_dir, &all, left).await;
        checked = all.len();
        let mut exporters = JoinSet::new();
        let mut notes = Vec::new();
        for exporter in 0..EXPORTERS {
            let trace = TraceId::from_u128(u128::from(kill * EXPORTERS + exporter + 1));
            let note = Arc::new(Mutex::new(Acknowledged::default()));
            notes.push((trace, Arc::clone(&note)));
            exporters.spawn(send(Exporter::connect(&server.grpc).await, trace, note));
        }
        // The moment of the kill wanders through the work of the writer and of the keeper.
        let under_way =
            || notes.iter().all(|(_, note)| lock(note).spans.len() >= SPANS_BEFORE_KILL);
        while !under_way() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(60 + kill * 37 % 300 + any_millis())).await;
        server.kill();
        while exporters.join_next().await.is_some() {}
        all.extend(
            notes.into_iter().map(|(trace, note)| (trace, std::mem::take(&mut *lock(&note)))),
        );
    }
    // Once more, everything: later starts must not have lost what earlier ones still had.
    Server::start(&data_dir).stop();
    check(&data_dir, &all, left).await;
    check_rollups(&data_dir, &all, left).await;
    let total: usize = all.iter().map(|(_, acknowledged)| acknowledged.spans.len()).sum();
    assert!(total > 1_000, "the load was a load: {total} spans");
    let report = throughline_store::verify_store(&data_dir, |_| {}).expect("a report");
    assert!(report.is_good(), "{report:?}");
    data_dir
}

/// Some time below 50 ms, another one at each run.
fn any_millis() -> u64 {
    u64::from(DecisionId::random().0.as_bytes()[0]) % 50
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

async fn check(data_dir: &Path, expected: &[(TraceId, Acknowledged)], left: Left) {
    let reader = Reader::open(data_dir).expect("a store");
    for (trace, acknowledged) in expected {
        if left == Left::Skeletons && acknowledged.decisions.is_empty() {
            // Nothing referred to it.
            continue;
        }
        let found = reader.trace(*trace).await.expect("an answer").expect("the trace");
        assert_eq!(found.truncated, None, "the test can see all of it");
        let spans: HashSet<u64> = found.spans.iter().map(|span| span.span_id.as_u64()).collect();
        let logs: HashSet<String> = found.logs.iter().map(|log| log.body.to_text()).collect();
        let decisions: HashSet<DecisionId> =
            found.decisions.iter().map(|decision| decision.decision_id).collect();
        if left == Left::Counted {
            let sampled = found.summary.sampled;
            let lost = (
                acknowledged.spans.difference(&spans).count() as u64 > sampled.spans_dropped,
                acknowledged.logs.difference(&logs).count() as u64 > sampled.logs_dropped,
                acknowledged.decisions.difference(&decisions).count(),
            );
            assert_eq!(lost, (false, false, 0), "of {trace}, of which went: {sampled:?}");
            let there = found.spans.len() as u64 + sampled.spans_dropped;
            assert_eq!(there, found.summary.span_count, "of {trace}");
            continue;
        }
        let are_logs_kept = !found.is_skeleton;
        assert!(are_logs_kept || left == Left::Skeletons, "nothing is retired");
        // The first ones may have been retired before there was a decision that refers to them.
        let is_referred = |id: &&u64| left == Left::Everything || **id > SPANS_PER_REQUEST;
        let lost = (
            acknowledged.spans.difference(&spans).filter(is_referred).count(),
            acknowledged.logs.difference(&logs).filter(|_| are_logs_kept).count(),
            acknowledged.decisions.difference(&decisions).count(),
        );
        assert_eq!(lost, (0, 0, 0), "spans, logs, decisions acknowledged and lost of {trace}");
        assert_eq!(spans.len(), found.spans.len(), "nothing is there twice");
    }
}

/// How long rollups may take to catch up after a start, in looks of 20 ms.
const ROLLUP_LOOKS: usize = 1_000;

/// What rollups count is what is stored, in the finest grain and in the coarsest; with retention, what
/// was acknowledged, and what was committed when a kill came before its answer.
async fn check_rollups(data_dir: &Path, all: &[(TraceId, Acknowledged)], left: Left) {
    let acknowledged: u64 = all.iter().map(|(_, of)| of.spans.len() as u64).sum();
    let most = acknowledged + all.len() as u64 * SPANS_PER_REQUEST;

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
        let fits = |told: &Vec<Option<f64>>| {
            let [Some(spans), Some(decisions)] = told[..] else { return false };
            let are_spans_right = match left {
                Left::Everything => spans == stored.spans as f64,
                Left::Skeletons | Left::Counted => {
                    (acknowledged as f64..=most as f64).contains(&spans)
                }
            };
            are_spans_right && decisions == stored.decisions as f64
        };
        if is_whole && told.iter().all(fits) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!(
        "{acknowledged} to {most} spans were acknowledged, {} spans and {} decisions are stored; told: {told:?}",
        stored.spans, stored.decisions
    );
}
