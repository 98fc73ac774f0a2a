//! Decisions outlive the server and the agent (requirement R4.4): the spool against a receiver that
//! goes away, a process that is killed, and a disk that refuses.

mod refused;
pub(crate) mod removed;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message as _;
use throughline::{Audit, AuditError, Recorder, Telemetry, TelemetryBuilder, decision, span};

use crate::export::is_child;

/// What a server keeps of a decision.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Kept {
    service: String,
    instance: String,
    seq: i64,
    action: String,
}

/// A receiver that keeps decisions by their id, and can be out of order.
#[derive(Clone, Default)]
struct Server {
    kept: Arc<Mutex<BTreeMap<String, Kept>>>,
    /// The status of every answer; 0 for what is right.
    status: Arc<AtomicU16>,
    /// Whether a batch with the action `poison` is malformed.
    knows_poison: Arc<AtomicBool>,
    /// Whether the server fails at such a batch instead.
    breaks_at_poison: Arc<AtomicBool>,
    requests: Arc<AtomicU64>,
}

impl Server {
    fn start() -> (SocketAddr, Self) {
        let server = Self::default();
        let served = server.clone();
        let address = crate::receiver::serve(move || {
            axum::Router::new()
                .route("/v1/logs", axum::routing::post(logs))
                .fallback(|| async { "" })
                .with_state(served)
        });
        (address, server)
    }

    fn kept(&self) -> BTreeMap<String, Kept> {
        self.kept.lock().expect("kept").clone()
    }

    fn set_down(&self, is_down: bool) {
        self.answer_with(if is_down { 503 } else { 0 });
    }

    /// Answers everything so; with 0 as is right.
    fn answer_with(&self, status: u16) {
        self.status.store(status, Ordering::Release);
    }
}

fn attribute(of: &[KeyValue], key: &str) -> Option<Value> {
    of.iter().find(|entry| entry.key == key)?.value.clone()?.value
}

fn text(of: &[KeyValue], key: &str) -> String {
    match attribute(of, key) {
        Some(Value::StringValue(text)) => text,
        _ => String::new(),
    }
}

async fn logs(State(server): State<Server>, body: Bytes) -> StatusCode {
    server.requests.fetch_add(1, Ordering::AcqRel);
    if let Ok(status) = StatusCode::from_u16(server.status.load(Ordering::Acquire)) {
        return status;
    }
    let request = ExportLogsServiceRequest::decode(body).expect("logs");
    let all = request.resource_logs.iter().flat_map(|group| &group.scope_logs);
    let is_poison = |record: &LogRecord| text(&record.attributes, "decision.action") == "poison";
    if server.knows_poison.load(Ordering::Acquire)
        && all.flat_map(|scope| &scope.log_records).any(is_poison)
    {
        return match server.breaks_at_poison.load(Ordering::Acquire) {
            true => StatusCode::INTERNAL_SERVER_ERROR,
            false => StatusCode::BAD_REQUEST,
        };
    }
    let mut kept = server.kept.lock().expect("kept");
    for group in request.resource_logs {
        let resource = group.resource.unwrap_or_default().attributes;
        for record in group.scope_logs.into_iter().flat_map(|scope| scope.log_records) {
            let Some(Value::IntValue(seq)) = attribute(&record.attributes, "seq") else { continue };
            let decision = Kept {
                service: text(&resource, "service.name"),
                instance: text(&record.attributes, "instance_id"),
                seq,
                action: text(&record.attributes, "decision.action"),
            };
            kept.insert(text(&record.attributes, "decision_id"), decision);
        }
    }
    StatusCode::OK
}

fn builder(address: SocketAddr, directory: &Path) -> TelemetryBuilder {
    Telemetry::builder()
        .environment(false)
        .service_name("shop")
        .endpoint(format!("http://{address}"))
        .decision_spool(directory)
}

fn files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect()
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn r4_4_decisions_outlive_an_outage_of_the_server() {
    let directory = tempfile::tempdir().expect("a directory");
    let (address, server) = Server::start();
    server.set_down(true);
    let telemetry = builder(address, directory.path()).build().expect("telemetry");
    let trace = {
        let _in = telemetry.enter();
        let step = span("shop.act.pay").start();
        for n in 0..600 {
            step.in_scope(|| decision("act").action(format!("a{n}")).record());
        }
        step.trace_id()
    };
    assert!(trace.is_some());
    telemetry.shutdown().expect("what is on disk is not lost");
    let counts = telemetry.counts();
    assert_eq!((counts.decisions.ended, counts.decision_spool.waiting), (600, 600));
    assert_eq!(server.kept().len(), 0);
    assert!(files(directory.path()).iter().any(|name| name.ends_with(".spool")));
    drop(telemetry);

    // Another process of another service finds them; they arrive as what they were.
    server.set_down(false);
    let next = builder(address, directory.path()).service_name("other").build().expect("telemetry");
    next.flush();
    assert_eq!(next.counts().decision_spool.replayed, 600);
    let kept = server.kept();
    assert_eq!(kept.len(), 600);
    let seqs: BTreeSet<i64> = kept.values().map(|kept| kept.seq).collect();
    assert_eq!(seqs, (1..=600).collect());
    assert!(kept.values().all(|kept| kept.service == "shop"), "{:?}", kept.values().next());
    next.shutdown().expect("nothing is lost");
    drop(next);
    assert_eq!(files(directory.path()), Vec::<String>::new(), "nothing is left behind");
}

#[test]
fn r4_4_decisions_reach_a_server_that_comes_back_while_the_agent_runs() {
    let directory = tempfile::tempdir().expect("a directory");
    let (address, server) = Server::start();
    server.set_down(true);
    let telemetry = builder(address, directory.path()).build().expect("telemetry");
    let _in = telemetry.enter();
    decision("act").action("first").record();
    telemetry.flush();
    assert_eq!(telemetry.counts().decision_spool.waiting, 1);
    server.set_down(false);
    decision("act").action("second").record();
    wait_until("both arrive", || server.kept().len() == 2);
    wait_until("both are acknowledged", || telemetry.counts().decisions.exported == 2);
    assert_eq!(telemetry.counts().decision_spool.waiting, 0);
}

/// How many times the agent is killed.
const KILLS: u64 = 5;

#[test]
fn r4_4_a_killed_agent_loses_no_durable_decision_and_no_number() {
    let directory = tempfile::tempdir().expect("a directory");
    let (address, server) = Server::start();
    let mut durable = BTreeSet::new();
    for round in 0..KILLS {
        // Up for some, down for others.
        server.set_down(round % 2 == 0);
        let mut child = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "spool::child_that_is_killed", "--nocapture", "--test-threads=1"])
            .env("THROUGHLINE_TEST_CHILD", "1")
            .env("SPOOL_TEST_DIRECTORY", directory.path())
            .env("SPOOL_TEST_ADDRESS", address.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a child");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let (lines, came) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some((_, id)) = line.split_once("durable ")
                    && lines.send(id.to_owned()).is_err()
                {
                    break;
                }
            }
        });
        // Killed after a different number of decisions each time, in the middle of the next.
        let before = durable.len();
        let wanted = 20 + usize::try_from(rand::random::<u64>() % 60).expect("small");
        while durable.len() - before < wanted {
            durable.insert(came.recv_timeout(Duration::from_secs(60)).expect("a decision"));
        }
        child.kill().expect("killed");
        child.wait().expect("gone");
        reader.join().expect("read");
        durable.extend(came.try_iter());
    }
    server.set_down(false);
    let telemetry = builder(address, directory.path()).build().expect("telemetry");
    telemetry.flush();
    telemetry.shutdown().expect("nothing is lost");
    drop(telemetry);
    let kept = server.kept();
    let missing: Vec<&String> = durable.iter().filter(|id| !kept.contains_key(*id)).collect();
    assert!(missing.is_empty(), "{} of {} are missing", missing.len(), durable.len());
    let mut seqs: BTreeMap<&str, BTreeSet<i64>> = BTreeMap::new();
    for kept in kept.values() {
        assert!(
            seqs.entry(&kept.instance).or_default().insert(kept.seq),
            "{kept:?} came with two ids"
        );
    }
    assert_eq!(seqs.len() as u64, KILLS);
    for (instance, seqs) in seqs {
        let last = i64::try_from(seqs.len()).expect("few");
        assert_eq!(seqs, (1..=last).collect(), "numbers are missing in {instance}");
    }
    assert_eq!(files(directory.path()), Vec::<String>::new(), "nothing is left behind");
}

#[test]
fn child_that_is_killed() {
    if !is_child() {
        return;
    }
    let variable = |name| std::env::var(name).expect("a variable");
    let address = variable("SPOOL_TEST_ADDRESS").parse().expect("an address");
    let directory = variable("SPOOL_TEST_DIRECTORY");
    let telemetry = builder(address, Path::new(&directory)).build().expect("telemetry");
    let threads: Vec<_> = (0..3)
        .map(|thread| {
            let cx = telemetry.context();
            std::thread::spawn(move || {
                let _in = cx.attach();
                loop {
                    decision("plan").action("best effort").record();
                    let done = decision("act").action(format!("pay {thread}"));
                    let id = done.record_required_blocking().expect("durable");
                    // One write a line: the parent may kill us between two.
                    use std::io::Write as _;
                    let line = format!("\ndurable {id}\n");
                    std::io::stdout().write_all(line.as_bytes()).expect("written");
                    std::io::stdout().flush().expect("written");
                }
            })
        })
        .collect();
    // They never end: the parent ends the process.
    threads.into_iter().for_each(|thread| thread.join().expect("never"));
}

#[tokio::test]
async fn r4_4_a_full_spool_keeps_the_oldest_and_refuses_what_must_be_durable() {
    let directory = tempfile::tempdir().expect("a directory");
    let (address, server) = Server::start();
    server.set_down(true);
    let telemetry = builder(address, directory.path())
        .decision_spool_max_bytes(4_000)
        .audit(Audit::Required)
        .build()
        .expect("telemetry");
    let work = async {
        let mut recorded = 0;
        let error = loop {
            match decision("act").action("pay").reason("x".repeat(200)).record_audited().await {
                Ok(_) => recorded += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error, AuditError::SpoolFull);
        let later = decision("act").action("pay").reason("x".repeat(200)).record_audited().await;
        assert_eq!(later, Err(AuditError::SpoolFull));
        recorded
    };
    let recorded: u64 = telemetry.scope(work).await;
    assert!((3..12).contains(&recorded), "{recorded}");
    let counts = telemetry.counts();
    assert_eq!((counts.decision_spool.waiting, counts.decision_spool.refused), (recorded, 2));
    server.set_down(false);
    let closed = tokio::task::spawn_blocking(move || telemetry.shutdown().map(|()| telemetry));
    let telemetry = closed.await.expect("closed").expect("nothing is lost");
    let spooled = telemetry.counts().decision_spool;
    assert_eq!(spooled.waiting, 0);
    let seqs: BTreeSet<i64> = server.kept().values().map(|kept| kept.seq).collect();
    assert!((1..=recorded as i64).all(|seq| seqs.contains(&seq)), "{seqs:?}");
}

#[tokio::test]
async fn r4_4_without_a_spool_what_must_be_durable_waits_for_the_server() {
    let (address, server) = Server::start();
    let telemetry = Telemetry::builder()
        .environment(false)
        .endpoint(format!("http://{address}"))
        .build()
        .expect("telemetry");
    let work = async {
        let id = decision("act").action("pay").record_required().await.expect("acknowledged");
        assert!(server.kept().contains_key(&id.to_string()));
        server.set_down(true);
        let refused = decision("act").action("pay").record_required().await;
        assert!(matches!(refused, Err(AuditError::Refused(_))), "{refused:?}");
    };
    telemetry.scope(work).await;
    let lost = tokio::task::spawn_blocking(move || telemetry.shutdown()).await.expect("closed");
    let lost = lost.expect_err("the refused decision is a loss");
    assert_eq!((lost.counts.decisions.exported, lost.counts.decisions.failed), (1, 1));
}

#[test]
fn r4_4_damage_is_kept_told_and_stops_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let (address, server) = Server::start();
    server.set_down(true);
    let telemetry = builder(address, directory.path()).build().expect("telemetry");
    {
        let _in = telemetry.enter();
        for n in 0..3 {
            decision("act").action(format!("a{n}")).record();
        }
    }
    telemetry.shutdown().expect("what is on disk is not lost");
    drop(telemetry);
    let name = files(directory.path()).into_iter().find(|name| name.ends_with(".spool"));
    let path = directory.path().join(name.expect("a file"));
    let mut bytes = std::fs::read(&path).expect("bytes");
    let at = bytes.len() - 20;
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).expect("written");
    server.set_down(false);
    let next = builder(address, directory.path()).build().expect("telemetry");
    next.flush();
    let counts = next.counts().decision_spool;
    assert_eq!((counts.replayed, counts.damaged), (2, 1));
    assert_eq!(server.kept().len(), 2);
    next.shutdown().expect("nothing is lost");
    drop(next);
    let left = files(directory.path());
    assert!(left.len() == 1 && left[0].ends_with(".damaged"), "{left:?}");
}

#[test]
fn a_directory_that_cannot_be_written_is_told_at_the_start() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let error = Telemetry::builder()
        .recorder(&Recorder::new())
        .decision_spool(file.path().join("below a file"))
        .build()
        .expect_err("no directory");
    assert!(error.to_string().starts_with("expected decision_spool to be a directory"), "{error}");
}
