//! The commands that read: lists, filters, JSON, exit codes.

use serde_json::Value as Json;
use throughline_trace::{DecisionId, TraceId};

use crate::export::{Exporter, decision, fraud_trace, logs};
use crate::server::{Server, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_filters_and_json() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let server = Server::start(&data_dir);
    let mut exporter = Exporter::connect(&server.grpc).await;
    let trace = TraceId::from_u128(0xabc);
    let ids = [DecisionId::random(), DecisionId::random()];
    exporter.send_traces(fraud_trace(trace)).await.expect("acknowledged");
    let records =
        vec![decision(trace, 2, ids[0], "check_velocity"), decision(trace, 2, ids[1], "hold")];
    exporter.send_logs(logs("checkout", records)).await.expect("acknowledged");
    let trace = trace.to_string();

    let table = run(&data_dir, &["traces"]).ok();
    assert!(table.starts_with("STARTED"), "{table}");
    assert!(table.contains(&trace) && table.contains("2.31 s"), "{table}");
    assert!(!table.contains('\x1b'), "no colour in a pipe");
    assert!(run(&data_dir, &["traces", "--color", "always"]).ok().contains('\x1b'));
    assert_eq!(run(&data_dir, &["traces", "--agent", "nobody"]).ok(), "");
    assert_eq!(run(&data_dir, &["traces", "--error", "--min-duration", "3s"]).ok(), "");
    let listed = run(&data_dir, &["traces", "--error", "--json"]).ok();
    let listed: Json = serde_json::from_str(listed.trim()).expect("one line of JSON");
    assert_eq!(listed["trace_id"], trace.as_str());

    let table = run(&data_dir, &["decisions"]).ok();
    // A heading, those that were sent, and the one that the span of a tool shows.
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(table.contains("check_velocity") && table.contains("0.83"), "{table}");
    let held = run(&data_dir, &["decisions", "--action", "hold", "--json"]).ok();
    let held: Json = serde_json::from_str(held.trim()).expect("one line of JSON");
    assert_eq!(held["decision_id"], ids[1].to_string());
    let one = run(&data_dir, &["decisions", "--id", &ids[0].to_string()]).ok();
    assert!(one.contains("check_velocity"), "{one}");
    assert_eq!(run(&data_dir, &["decisions", "--limit", "1"]).ok().lines().count(), 2);

    // The same JSON as the API gives.
    let answered: Json = server.get_json(&format!("/api/v1/traces/{trace}")).await;
    let printed = run(&data_dir, &["trace", &trace, "--json"]).ok();
    let printed: Json = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(printed, answered);
}

#[test]
fn what_is_not_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let none = run(&data_dir, &["traces"]);
    assert_eq!(none.code, 3, "{}", none.stderr);
    assert!(none.stderr.contains("hint: start `throughline serve` first"), "{}", none.stderr);
    assert_eq!(run(&data_dir, &["keys", "list"]).code, 3);
    assert!(!data_dir.exists(), "asking makes nothing");
    Server::start(&data_dir).stop();
    let id = TraceId::from_u128(7).to_string();
    let none = run(&data_dir, &["trace", &id]);
    assert_eq!(none.code, 3, "{}", none.stderr);
    assert!(none.stderr.starts_with(&format!("error: no trace {id}")), "{}", none.stderr);
    assert_eq!(run(&data_dir, &["trace", "last"]).code, 3);
    assert_eq!(run(&data_dir, &["decisions", "--id", &DecisionId::random().to_string()]).code, 3);
    assert_eq!(run(&data_dir, &["trace", "zzz"]).code, 2);
    assert_eq!(run(&data_dir, &["traces"]).code, 0, "an empty list is an answer");
}

#[test]
fn version_and_help() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let version = run(&data_dir, &["version"]).ok();
    assert_eq!(version, format!("throughline {}\n", env!("CARGO_PKG_VERSION")));
    assert!(run(&data_dir, &["--help"]).ok().contains("Exit codes:"));
}
