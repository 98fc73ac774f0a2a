//! Actions of rules in the binary: paused, delivered, recorded, and not repeated after a crash.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde_json::Value as Json;
use throughline_store::{ActionRecord, ActionState, Evaluation, Governance};
use throughline_trace::{
    Action, Finding, FindingSeverity, FindingState, Operation, Subject, finding_id,
};

use crate::server::{Server, run, until};

/// The secret that both sides know.
const SECRET: &str = "a secret of enough bytes";

/// Somebody who is told; says 503 while down.
#[derive(Clone, Default)]
struct Receiver {
    is_down: Arc<AtomicBool>,
    heard: Arc<Mutex<Vec<(HeaderMap, String)>>>,
}

impl Receiver {
    async fn start() -> (String, Self) {
        let receiver = Self::default();
        let router = axum::Router::new()
            .route("/hook", axum::routing::post(hear))
            .with_state(receiver.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (url, receiver)
    }

    fn heard(&self) -> Vec<(HeaderMap, String)> {
        self.heard.lock().expect("heard").clone()
    }
}

async fn hear(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let body = String::from_utf8(body.to_vec()).expect("text");
    receiver.heard.lock().expect("heard").push((headers, body));
    match receiver.is_down.load(Ordering::Relaxed) {
        true => StatusCode::SERVICE_UNAVAILABLE,
        false => StatusCode::NO_CONTENT,
    }
}

fn configure(dir: &Path, url: &str) {
    fs::write(dir.join("hook.secret"), SECRET).expect("written");
    let yaml = format!(
        "act:\n  receivers:\n    - {{name: oncall, kind: webhook, url: \"{url}\", secret_file: hook.secret}}\n"
    );
    fs::write(dir.join("throughline.yaml"), yaml).expect("written");
}

fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_nanos() as u64
}

/// Commits what a rule saw and asks for, as an evaluation does.
fn ask(governance: &Governance, number: u64) -> String {
    let at = now();
    let subject = Subject::of("agent", format!("fraud-{number}"));
    let finding = Finding {
        id: finding_id("latency", "1", &subject, at),
        rule: "latency".to_owned(),
        rule_version: "1".to_owned(),
        kind: "drift.latency".to_owned(),
        subject: subject.clone(),
        severity: FindingSeverity::Critical,
        state: FindingState::Firing,
        since_unix_nano: at,
        at_unix_nano: at,
        from_unix_nano: at,
        to_unix_nano: at,
        summary: "p95 is 2.8 s".to_owned(),
        values: [("p95_s".to_owned(), 2.8)].into(),
        confidence: Some(0.97),
        evidence: vec!["4bf92f3577b34da6a3ce929d0e0e4736".parse().expect("an id")],
        runbook: String::new(),
    };
    let action = Action {
        id: format!("notify/{}", finding.id),
        finding: finding.id.clone(),
        rule: "latency".to_owned(),
        rule_version: "1".to_owned(),
        subject,
        at_unix_nano: at,
        operation: Operation::Notify { receiver: "oncall".to_owned() },
        reason: "somebody should look".to_owned(),
        evidence: finding.evidence.clone(),
        cool_down_s: 300,
        is_dry_run: false,
    };
    let id = action.id.clone();
    let evaluation =
        Evaluation { findings: vec![finding], actions: vec![action], ..Default::default() };
    assert_eq!(governance.commit(&evaluation).expect("committed").len(), 1);
    id
}

async fn finished(governance: &Governance, id: &str) -> ActionRecord {
    until("an end", async || {
        let record = governance.action(id).expect("read").expect("known");
        (record.state != ActionState::Asked).then_some(record)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_2_a_pause_stops_every_automatic_action_over_a_restart_and_each_is_a_decision() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let (url, receiver) = Receiver::start().await;
    configure(dir.path(), &url);
    let server = Server::start(&data_dir);
    let governance = Governance::open(&data_dir).expect("govern.db");
    run(&data_dir, &["act", "pause", "--by", "ada", "--reason", "a release"]).ok();
    let id = ask(&governance, 1);
    let record = finished(&governance, &id).await;
    assert_eq!(record.state, ActionState::Refused);
    assert!(record.detail.contains("paused by ada") && record.detail.ends_with(": a release"));
    server.stop();
    let server = Server::start(&data_dir);
    let id = ask(&governance, 2);
    assert_eq!(finished(&governance, &id).await.state, ActionState::Refused, "over a restart");
    assert!(receiver.heard().is_empty());
    let status = run(&data_dir, &["act", "status"]).ok();
    assert!(status.starts_with("paused by ada since") && status.contains("2 refused"), "{status}");

    run(&data_dir, &["act", "resume", "--by", "ada"]).ok();
    let id = ask(&governance, 3);
    let record = finished(&governance, &id).await;
    assert_eq!((record.state, record.detail.as_str()), (ActionState::Done, "told oncall (firing)"));
    let heard = receiver.heard();
    let [(headers, body)] = heard.as_slice() else { panic!("once: {heard:?}") };
    assert_eq!(headers["idempotency-key"], id.as_str());
    let signature = headers["x-throughline-signature"].to_str().expect("text");
    let seconds = signature.trim_start_matches("t=").split(',').next().expect("a time");
    let seconds: u64 = seconds.parse().expect("seconds");
    let expected = throughline_act::webhook_signature(SECRET.as_bytes(), seconds, body.as_bytes());
    assert_eq!(signature, expected);
    let told: Json = serde_json::from_str(body).expect("JSON");
    assert_eq!(told["finding"]["summary"], "p95 is 2.8 s");

    let decision_id = record.decision_id.expect("recorded").to_string();
    let path = format!("/api/v1/decisions/{decision_id}");
    let decision = server.get_json(&path).await["decision"].clone();
    assert_eq!(decision["stage"], "govern.act");
    assert_eq!(decision["decision"]["confidence"], 0.97);
    assert_eq!(decision["attributes"]["throughline.rule"], "latency");
    let evidence = &decision["attributes"]["throughline.evidence"];
    assert_eq!(evidence[0], "4bf92f3577b34da6a3ce929d0e0e4736");
    let trace = decision["trace_id"].as_str().expect("a trace");
    let (_, tree) = server.get(&format!("/api/v1/traces/{trace}/tree"), None).await;
    assert!(tree.starts_with("act notify ") && tree.lines().count() == 1, "{tree}");
    let listed = run(&data_dir, &["act", "list", "--json"]).ok();
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert!(run(&data_dir, &["audit", "verify"]).code == 0, "they are in the chain");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_2_what_was_not_delivered_outlives_a_crash_and_is_delivered_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let (url, receiver) = Receiver::start().await;
    receiver.is_down.store(true, Ordering::Relaxed);
    configure(dir.path(), &url);
    let server = Server::start(&data_dir);
    let governance = Governance::open(&data_dir).expect("govern.db");
    let id = ask(&governance, 1);
    until("a try", async || (!receiver.heard().is_empty()).then_some(())).await;
    until("a note", async || {
        let record = governance.action(&id).expect("read").expect("known");
        assert_eq!(record.state, ActionState::Asked);
        record.detail.contains("oncall answered 503").then_some(())
    })
    .await;
    server.kill();
    receiver.is_down.store(false, Ordering::Relaxed);
    let before = receiver.heard().len();
    let server = Server::start(&data_dir);
    let record = finished(&governance, &id).await;
    assert_eq!(record.state, ActionState::Done, "{record:?}");
    let heard = receiver.heard();
    assert_eq!(heard.len(), before + 1, "once");
    assert!(heard.iter().all(|(headers, _)| headers["idempotency-key"] == id.as_str()));

    // Whoever heard that it fires hears that it is over.
    let mut finding = governance.finding(&record.action.finding).expect("read").expect("known");
    finding.state = FindingState::Resolved;
    governance.commit(&Evaluation { findings: vec![finding], ..Default::default() }).expect("kept");
    let end = format!("{id}/resolved");
    until("the end", async || {
        let record = governance.action(&end).expect("read")?;
        (record.state == ActionState::Done).then_some(())
    })
    .await;
    let (_, last) = receiver.heard().last().cloned().expect("heard");
    let last: Json = serde_json::from_str(&last).expect("JSON");
    assert_eq!(last["status"], "resolved");
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_has_something_done_from_the_shell() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let server = Server::start(&data_dir);
    let operation = r#"{"type":"freeze","ttl_s":3600}"#;
    let args =
        ["act", "run", operation, "--reason", "an audit", "--subject", "agent=pay", "--by", "ada"];
    let done: Json = serde_json::from_str(&run(&data_dir, &args).ok()).expect("JSON");
    assert_eq!(done["state"], "done");
    let freezes = server.get_json("/api/v1/freezes").await;
    assert_eq!(freezes["items"][0]["subject"]["agent"], "pay");
    assert_eq!(freezes["items"][0]["reason"], "asked by ada: an audit");
    let refused = run(
        &data_dir,
        &["act", "run", r#"{"type":"notify","receiver":"x"}"#, "--reason", "a test"],
    );
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("failed: expected a receiver of `act.receivers` (none)"),
        "{}",
        refused.stderr
    );
    let wrong = run(&data_dir, &["act", "run", r#"{"type":"dance"}"#, "--reason", "a test"]);
    assert_eq!(wrong.code, 2);
    insta::assert_snapshot!(wrong.stderr.trim(), @r"
    error: expected an operation as JSON: unknown variant `dance`, expected one of `directive`, `weights`, `start`, `roll_back`, `advance`, `freeze`, `investigate`, `hand_over`, `notify`, `workflow`, `contract` at line 1 column 15
    hint: docs/acting.md lists the operations and their fields
    ");
}

/// What acts is described with all else, under names of its own, with the scopes that the doors ask for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_that_acts_is_in_the_description() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(&dir.path().join("data"));
    let (status, document) = server.get("/api/v1/openapi.json", None).await;
    assert_eq!(status, 200);
    let document: Json = serde_json::from_str(&document).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    for path in throughline_act::route_paths() {
        assert!(paths.contains_key(path), "{path}");
    }
    let mut ids = std::collections::BTreeSet::new();
    for (path, methods) in paths {
        for (method, of) in methods.as_object().expect("methods") {
            let id = of["operationId"].as_str().expect("an id");
            assert!(ids.insert(id.to_owned()), "{id} twice");
            assert!(of["responses"]["401"].is_object(), "{method} {path}");
        }
    }
    // A name of ours that is not what we described is that of another room.
    for (name, schema) in throughline_act::api_description().schemas {
        assert_eq!(document["components"]["schemas"][&name], schema, "{name}");
    }
    let scope = |path: &str, method: &str| paths[path][method]["security"][0]["key"][0].clone();
    assert_eq!(scope("/api/v1/actions", "get"), "read");
    assert_eq!(scope("/api/v1/actions", "post"), "act");
    assert_eq!(scope("/api/v1/directives", "get"), "ingest");
    assert_eq!(scope("/api/v1/incidents/{id}/{change}", "post"), "act");
}
