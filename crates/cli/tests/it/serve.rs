//! From an exporter to every place where a trace can be read.

use throughline_trace::{DecisionId, TraceId};

use crate::export::{Exporter, decision, fraud_trace, log, logs};
use crate::server::{Server, client, run, until};

/// Memory of its own that a server without work may have, kB. The pages of the binary come on top, many more
/// in the unoptimised one of the tests; `bench` holds the release binary against 50 MB in all.
const IDLE_MEMORY_KB: u64 = 20_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_sent_over_grpc_is_read_everywhere() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let server = Server::start(&data_dir);
    assert!(server.memory_kb() < IDLE_MEMORY_KB, "{} kB", server.memory_kb());
    assert_eq!(server.get("/healthz", None).await.0, 200);
    assert_eq!(server.get("/readyz", None).await.0, 200);

    let trace = TraceId::from_u128(0xabc);
    let id = DecisionId::random();
    let mut exporter = Exporter::connect(&server.grpc).await;
    exporter.send_traces(fraud_trace(trace)).await.expect("acknowledged");
    let records = vec![decision(trace, 2, id, "check_velocity"), log(trace, 2, "looking")];
    exporter.send_logs(logs("checkout", records)).await.expect("acknowledged");

    // It was acknowledged: it is there at once.
    let found = server.get_json(&format!("/api/v1/traces/{trace}")).await.to_string();
    for expected in ["invoke_agent fraud", "chat gpt-4o", "TOOL_FAILED", &id.to_string()] {
        assert!(found.contains(expected), "{expected} in {found}");
    }
    let listed = server.get_json("/api/v1/traces?agent=fraud").await.to_string();
    assert!(listed.contains(&trace.to_string()), "{listed}");
    let decided = server.get_json("/api/v1/decisions?action=check_velocity").await.to_string();
    assert!(decided.contains(&id.to_string()), "{decided}");
    let (status, page) = server.get(&format!("/traces/{trace}"), None).await;
    assert_eq!(status, 200);
    assert!(page.contains("fraud.plan.risk"), "the page shows the step");
    assert!(server.get("/metrics", None).await.1.contains("throughline_"));

    // The terminal, beside the running server.
    let tree = run(&data_dir, &["trace", &trace.to_string()]).ok();
    let body = tree.split_once("\n\n").expect("a heading").1;
    insta::assert_snapshot!(body, @r"
    invoke_agent fraud            2.31 s
    ├─ fraud.plan.risk            812 ms
    │  │  ◆ plan: check_velocity (0.83) because three cards in a minute
    │  └─ chat gpt-4o             800 ms  1,204 → 310 tokens  $0.006100
    └─ execute_tool geo_lookup   30.0 ms  ✗ TOOL_FAILED  no such place
          ◆ act: geo_lookup (derived)
    ");
    assert_eq!(run(&data_dir, &["trace", "last"]).ok(), tree);
    server.stop();
    assert_eq!(run(&data_dir, &["trace", "last"]).ok(), tree, "without a server too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_over_http_is_taken_and_answered_in_json() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let server = Server::start(&data_dir);
    let trace = TraceId::from_u128(0xdef);
    let answer = client()
        .post(format!("{}/v1/traces", server.http))
        .json(&serde_json::json!({ "resourceSpans": [{
            "resource": { "attributes": [
                { "key": "service.name", "value": { "stringValue": "web-shop" } }
            ]},
            "scopeSpans": [{ "spans": [{
                "traceId": trace.to_string(),
                "spanId": "00000000000000aa",
                "name": "invoke_agent shop",
                "kind": 1,
                "startTimeUnixNano": "1795348800000000000",
                "endTimeUnixNano": "1795348801000000000"
            }]}]
        }]}))
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status().as_u16(), 200);
    assert_eq!(answer.headers()["content-type"], "application/json");
    assert_eq!(answer.text().await.expect("a body"), "{}");
    let tree = run(&data_dir, &["trace", &trace.to_string()]).ok();
    assert!(tree.ends_with("invoke_agent shop    1.00 s\n"), "{tree}");

    let wrong = client()
        .post(format!("{}/v1/traces", server.http))
        .header("content-type", "application/json")
        .body("{\"resourceSpans\": 7}")
        .send()
        .await
        .expect("an answer");
    assert_eq!(wrong.status().as_u16(), 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_events_arrive_and_end_with_the_server() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(&dir.path().join("data"));
    let mut stream =
        client().get(format!("{}/api/v1/live", server.web)).send().await.expect("connected");
    let mut exporter = Exporter::connect(&server.grpc).await;
    exporter.send_traces(fraud_trace(TraceId::from_u128(0xabc))).await.expect("acknowledged");
    let mut heard = String::new();
    while !heard.contains("invoke_agent fraud") {
        let chunk = stream.chunk().await.expect("open").expect("not over yet");
        heard += &String::from_utf8_lossy(&chunk);
    }
    let started = std::time::Instant::now();
    server.stop();
    assert!(started.elapsed().as_secs() < 4, "a page that listens does not hold up the drain");
    until("the end of the stream", async || {
        stream.chunk().await.ok().flatten().is_none().then_some(())
    })
    .await;
}
