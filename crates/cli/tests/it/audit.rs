//! The audit log from the terminal, beside a running server (requirement R4.4).

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value as Json, json};

use crate::server::{Server, client, run, throughline, until};

fn config(dir: &Path, audit: &str) -> String {
    let path = dir.join("config.yaml");
    fs::write(&path, format!("audit:\n{audit}")).expect("written");
    path.display().to_string()
}

fn start(data_dir: &Path, config: &str) -> Server {
    Server::start_with(data_dir, &["--config", config, "serve"])
}

pub(crate) async fn record(server: &Server, numbers: std::ops::Range<u32>) {
    let decisions: Vec<Json> = numbers
        .map(|number| {
            json!({
                "decision_id": format!("00000000-0000-4000-8000-{number:012}"),
                "timestamp_ns": "1764144000000000000",
                "stage": "plan",
                "decision": { "action": "approve" },
                "session_id": "s-1",
            })
        })
        .collect();
    let answer = client()
        .post(format!("{}/api/v1/decisions", server.web))
        .json(&decisions)
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 200, "{}", answer.text().await.expect("a body"));
}

/// Takes requests in until the test ends; answers 500 to the first `failures`.
fn sink(failures: usize) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/checkpoints/{{number}}", listener.local_addr().expect("bound"));
    let taken: Arc<Mutex<Vec<String>>> = Arc::default();
    let of_thread = Arc::clone(&taken);
    thread::spawn(move || {
        for (at, stream) in listener.incoming().enumerate() {
            let mut stream = stream.expect("a connection");
            let (mut bytes, mut part) = (Vec::new(), [0; 4_096]);
            while !bytes.ends_with(b"}") {
                let read = stream.read(&mut part).expect("a request");
                bytes.extend_from_slice(&part[..read]);
                if read == 0 {
                    break;
                }
            }
            let status = if at < failures { "500 No" } else { "200 OK" };
            if at >= failures {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                of_thread.lock().expect("taken").push(text);
            }
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).expect("answered");
        }
    });
    (url, taken)
}

fn git(dir: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git").arg("-C").arg(dir).args(arguments).output().expect("git");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn r4_4_anchors_keep_checkpoints_and_show_a_truncated_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let (url, taken) = sink(1);
    let repository = dir.path().join("repository");
    fs::create_dir(&repository).expect("made");
    git(&repository, &["init", "--quiet"]);
    let identity = ["-c", "user.name=t", "-c", "user.email=t@localhost"];
    let commit = ["commit", "--quiet", "--allow-empty", "-m", "first"];
    git(&repository, &[&identity[..], &commit[..]].concat());
    let config = config(
        dir.path(),
        &format!(
            "  checkpoint_count: 1\n  anchors:\n  - {{ name: disk, file: anchors.log }}\n  - {{ name: notes, git: repository }}\n  - {{ name: web, http: '{url}', method: PUT, headers: {{ x-token: abc }} }}\n"
        ),
    );
    let server = start(&data_dir, &config);
    record(&server, 1..4).await;
    until("every anchor to have the head", async || {
        let status = server.get_json("/api/v1/audit/verify").await;
        let anchors = status["anchors"].as_array()?;
        let all = anchors.iter().all(|anchor| anchor["last_number"] == 3);
        (anchors.len() == 3 && all).then_some(())
    })
    .await;
    let (_, metrics) = server.get("/metrics", None).await;
    assert!(
        metrics.contains("throughline_audit_anchor_failures_total{anchor=\"web\"} 1"),
        "{metrics}"
    );
    assert!(metrics.contains("throughline_audit_anchor_number{anchor=\"disk\"} 3"), "{metrics}");
    {
        let taken = taken.lock().expect("taken");
        assert!(taken[0].starts_with("PUT /checkpoints/3 "), "{taken:?}");
        assert!(taken[0].contains("x-token: abc"), "{taken:?}");
    }
    let verified = run(&data_dir, &["--config", &config, "audit", "verify", "--json"]).ok();
    let verified: Json = serde_json::from_str(&verified).expect("JSON");
    assert_eq!(verified["is_good"], true, "{verified}");
    assert_eq!(verified["anchors"][1]["name"], "notes");
    assert_eq!(verified["anchors"][1]["agreed"], 1);
    record(&server, 4..6).await;
    server.stop();
    let lines = fs::read_to_string(dir.path().join("anchors.log")).expect("an anchor");
    assert!(lines.lines().last().expect("a line").contains("\"number\":5"), "at shutdown: {lines}");

    let database = rusqlite::Connection::open(data_dir.join("control.db")).expect("opened");
    database
        .execute_batch(
            "DELETE FROM chain WHERE number > 3; DELETE FROM decisions WHERE number > 3;
             DELETE FROM checkpoints; UPDATE state SET value = 3 WHERE name = 'chain_head';",
        )
        .expect("tampered");
    drop(database);
    let unaware = run(&data_dir, &["audit", "verify"]);
    assert_eq!(unaware.code, 0, "without an anchor it is not seen: {}", unaware.stdout);
    let anchor = dir.path().join("anchors.log").display().to_string();
    let found = run(&data_dir, &["audit", "verify", "--anchor", &anchor]);
    assert_eq!(found.code, 5, "{}", found.stderr);
    assert!(
        found.stdout.contains("truncated: record 4: the chain ends at record 3"),
        "{}",
        found.stdout
    );
    assert!(found.stderr.contains("the audit log does not verify"), "{}", found.stderr);
    let found = run(&data_dir, &["--config", &config, "audit", "verify"]);
    assert_eq!(found.code, 5);
    assert!(found.stdout.contains("the anchor notes vouches for 5"), "{}", found.stdout);
}

#[tokio::test]
async fn r4_4_erasure_holds_and_reads_from_the_terminal() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let server = Server::start(&data_dir);
    record(&server, 1..4).await;
    let hold = ["audit", "hold", "add", "--session", "s-1", "--reason", "case 12"];
    let id = run(&data_dir, &hold).ok().trim().to_owned();
    let erase = ["audit", "erase", "--session", "s-1", "--reason", "asked"];
    let refused = run(&data_dir, &erase);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains(&format!("the legal hold {id} (case 12) keeps")),
        "{}",
        refused.stderr
    );
    assert!(run(&data_dir, &["audit", "hold", "list"]).ok().contains("case 12"));
    run(&data_dir, &["audit", "hold", "release", &id]).ok();
    let mut dry = erase.to_vec();
    dry.push("--dry-run");
    assert_eq!(run(&data_dir, &dry).ok(), "would erase 3 decisions\n");
    assert_eq!(run(&data_dir, &["decisions", "--agent", "nobody"]).code, 0);
    assert_eq!(
        run(&data_dir, &["decisions", "--session", "s-1", "--json"]).ok().lines().count(),
        3
    );
    assert!(
        run(&data_dir, &erase)
            .ok()
            .starts_with("erased 3 decisions; the chain says so in record 6")
    );
    assert_eq!(run(&data_dir, &erase).code, 3);
    record(&server, 1..5).await;
    let found = run(&data_dir, &["audit", "verify"]).ok();
    assert!(found.contains("the chain verifies"), "{found}");
    assert!(found.contains("7 records, 1 decision with content, 3 erased, 0 retired"), "{found}");
    let reads = run(&data_dir, &["audit", "reads", "--json"]).ok();
    assert!(reads.contains("decisions agent=nobody"), "{reads}");
    assert!(!reads.contains("session=s-1"), "what was asked about them is erased too: {reads}");
    let checkpoint = run(&data_dir, &["audit", "checkpoint"]).ok();
    let key = run(&data_dir, &["audit", "key"]).ok();
    assert!(checkpoint.contains(&format!("\"public_key\":\"{}\"", key.trim())), "{checkpoint}");
    assert!(run(&data_dir, &["audit", "status"]).ok().contains("(in control.db)"));
    assert_eq!(
        run(&data_dir, &["audit", "erase", "--reason", "x"]).code,
        2,
        "everything is not meant"
    );
    server.stop();
}

#[tokio::test]
async fn r4_4_a_key_from_outside_is_needed_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    fs::write(dir.path().join("audit.key"), "a".repeat(64)).expect("written");
    let config = config(dir.path(), "  key_file: audit.key\n  verify_interval_secs: 1\n");
    let server = start(&data_dir, &config);
    record(&server, 1..3).await;
    until("a verification of both", async || {
        let status = server.get_json("/api/v1/audit/verify").await;
        let last = &status["last_verification"];
        (last["head_number"] == 2 && last["is_good"] == true).then_some(())
    })
    .await;
    server.stop();
    assert_eq!(run(&data_dir, &["--config", &config, "audit", "verify"]).code, 0);
    let without = run(&data_dir, &["audit", "verify"]);
    assert_eq!(without.code, 5, "the links cannot be checked: {}", without.stdout);
    assert!(without.stdout.contains("which was not given"), "{}", without.stdout);
    let refused =
        run(&data_dir, &["serve", "--web-port", "0", "--grpc-port", "0", "--http-port", "0"]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("hint: give the key in `audit.key_file`"),
        "{}",
        refused.stderr
    );
    let mut by_variable = throughline(&data_dir);
    by_variable.env("THROUGHLINE_AUDIT_KEY", "a".repeat(64)).args(["audit", "verify"]);
    assert!(by_variable.output().expect("an end").status.success());
}
