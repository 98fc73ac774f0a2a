//! Doors: what a key opens, and how soon.

use reqwest::StatusCode;
use throughline_trace::TraceId;

use crate::export::{Exporter, fraud_trace};
use crate::server::{Server, client, run, until};

fn create_key(data_dir: &std::path::Path, scope: &str) -> String {
    let made = run(data_dir, &["keys", "create", "--name", scope, "--scope", scope]);
    assert!(made.stderr.contains("shown this once"), "{}", made.stderr);
    let key = made.ok();
    assert!(key.starts_with("tl_") && key.lines().count() == 1, "the key alone: {key:?}");
    key.trim().to_owned()
}

async fn post_traces(server: &Server, key: Option<&str>) -> StatusCode {
    let mut request = client()
        .post(format!("{}/v1/traces", server.http))
        .header("content-type", "application/json")
        .body("{\"resourceSpans\":[]}");
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    request.send().await.expect("an answer").status()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_scope_opens_its_own_door() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let ingest = create_key(&data_dir, "ingest");
    let read = create_key(&data_dir, "read");
    let server = Server::start_with(&data_dir, &["serve", "--access", "required"]);

    assert_eq!(post_traces(&server, None).await, 401);
    assert_eq!(post_traces(&server, Some("tl_wrong")).await, 401);
    assert_eq!(post_traces(&server, Some(&read)).await, 403);
    assert_eq!(post_traces(&server, Some(&ingest)).await, 200);

    let request = || fraud_trace(TraceId::from_u128(0xabc));
    let exporter = Exporter::connect(&server.grpc).await;
    let refused = exporter.clone().send_traces(request()).await.expect_err("no key");
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    let refused = exporter.clone().with_key(&read).send_traces(request()).await.expect_err("scope");
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    exporter.with_key(&ingest).send_traces(request()).await.expect("acknowledged");

    assert_eq!(server.get("/api/v1/traces", None).await.0, 401);
    assert_eq!(server.get("/api/v1/traces", Some(&ingest)).await.0, 403);
    assert_eq!(server.get("/api/v1/traces", Some(&read)).await.0, 200);
    assert_eq!(server.get("/healthz", None).await.0, 200);
    assert_eq!(server.get("/readyz", None).await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_change_under_a_running_server() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let server = Server::start_with(&data_dir, &["serve", "--access", "required"]);
    let key = create_key(&data_dir, "ingest");
    until("the new key to be taken", async || {
        (post_traces(&server, Some(&key)).await == 200).then_some(())
    })
    .await;

    let list = run(&data_dir, &["keys", "list", "--json"]).ok();
    let listed: serde_json::Value = serde_json::from_str(list.trim()).expect("one key");
    assert!(!list.contains(&key), "only the hash is kept");
    let id = listed["id"].as_str().expect("an id");
    assert_eq!(run(&data_dir, &["keys", "revoke", id]).code, 0);
    until("the revoked key to be refused", async || {
        (post_traces(&server, Some(&key)).await == 401).then_some(())
    })
    .await;
    let table = run(&data_dir, &["keys", "list"]).ok();
    assert!(table.starts_with("ID") && table.contains("ingest"), "{table}");

    let unknown = run(&data_dir, &["keys", "revoke", "nobody"]);
    assert_eq!(unknown.code, 3, "{}", unknown.stderr);
    assert!(unknown.stderr.contains("hint: list them with `throughline keys list`"));
}
