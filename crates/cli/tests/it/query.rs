//! `throughline query`, over the data directory and over a running server.

use serde_json::Value as Json;
use throughline_trace::{DecisionId, TraceId};

use crate::export::{Exporter, decision, fraud_trace, logs};
use crate::server::{PATIENCE, Server, client, run, run_on};

const CALLS: &str =
    "SELECT model, count(*) AS calls, sum(input_tokens) AS tokens, min(start_unix_nano) AS first
    FROM llm_calls GROUP BY model ORDER BY model";

async fn filled(data_dir: &std::path::Path) -> Server {
    let server = Server::start(data_dir);
    let mut exporter = Exporter::connect(&server.grpc).await;
    let trace = TraceId::from_u128(0xabc);
    exporter.send_traces(fraud_trace(trace)).await.expect("acknowledged");
    let records = vec![decision(trace, 2, DecisionId::random(), "check_velocity")];
    exporter.send_logs(logs("checkout", records)).await.expect("acknowledged");
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_directory_and_the_server_give_the_same_rows_in_every_form() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let server = filled(&data_dir).await;
    for form in [None, Some("--csv"), Some("--ndjson")] {
        let args: Vec<&str> = ["query", CALLS].into_iter().chain(form).collect();
        let here = run(&data_dir, &args).ok();
        let there = [args.as_slice(), &["--server", &server.web]].concat();
        assert_eq!(here, run(&data_dir, &there).ok(), "{form:?}");
        match form {
            None => assert!(here.starts_with("model") && here.contains("gpt-4o"), "{here}"),
            Some("--csv") => assert!(here.starts_with("model,calls,tokens,first\r\n"), "{here}"),
            Some(_) => {
                let row: Json =
                    serde_json::from_str(here.lines().next().expect("a row")).expect("JSON");
                assert_eq!(row["calls"], 1);
                assert!(row["first"].is_string(), "nanoseconds are text in JSON: {row}");
            }
        }
    }
    let json = run(&data_dir, &["query", CALLS, "--json"]).ok();
    let json: Json = serde_json::from_str(&json).expect("JSON");
    let body = serde_json::json!({ "query": CALLS });
    let url = format!("{}/api/v1/sql", server.web);
    let answer = client().post(url).json(&body).send().await.expect("an answer");
    let answer: Json = answer.json().await.expect("JSON");
    assert_eq!((&json["columns"], &json["rows"]), (&answer["columns"], &answer["rows"]));
    // Without the server as well.
    server.stop();
    assert!(run(&data_dir, &["query", CALLS]).ok().contains("gpt-4o"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_limits_and_standard_input() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let server = filled(&data_dir).await;
    let text = "SELECT :name AS name, :count + 1 AS count";
    let given = ["query", text, "-p", "name=it's", "-p", "count=41", "--csv"];
    assert_eq!(run(&data_dir, &given).ok(), "name,count\r\nit's,42\r\n");
    let there = [given.as_slice(), &["--server", &server.web]].concat();
    assert_eq!(run(&data_dir, &there).ok(), "name,count\r\nit's,42\r\n");
    // Beyond what JavaScript's numbers hold; and ids that look like numbers.
    let text = "SELECT iso(:t) AS at, typeof(:id) AS id, typeof(:exp) AS exp";
    let given =
        ["query", text, "-p", "t=1795348800000000000", "-p", "id=0012", "-p", "exp=12e4", "--csv"];
    let told = "at,id,exp\r\n2026-11-22T12:00:00.000000000Z,text,text\r\n";
    assert_eq!(run(&data_dir, &given).ok(), told);
    assert_eq!(run(&data_dir, &[given.as_slice(), &["--server", &server.web]].concat()).ok(), told);
    let cut = run(&data_dir, &["query", "SELECT span_id FROM spans", "-n", "2", "--csv"]);
    assert!(cut.stderr.contains("more than 2 rows"), "{}", cut.stderr);
    assert_eq!(cut.ok().lines().count(), 3);
    let read = run_on(&data_dir, &["query", "-", "--csv"], b"SELECT 1 AS one");
    assert_eq!(read.ok(), "one\r\n1\r\n");
    let refused = run_on(&data_dir, &["query", "-"], b"SELECT '\xff'");
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("standard input is not UTF-8"), "{}", refused.stderr);
    // What was read of decisions is in the audit log.
    run(&data_dir, &["query", "SELECT action FROM decisions"]).ok();
    let noted = run(&data_dir, &["audit", "reads", "--json"]).ok();
    assert!(noted.contains("sql SELECT action FROM decisions"), "{noted}");
    // So is one that fails on the way, which may tell something too.
    assert_eq!(run(&data_dir, &["query", "SELECT json(reason || 'x') FROM decisions"]).code, 2);
    let noted = run(&data_dir, &["audit", "reads", "--json"]).ok();
    assert!(noted.contains("sql SELECT json(reason || 'x') FROM decisions"), "{noted}");
}

#[test]
fn the_schema_needs_no_data() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let schema = run(&data_dir, &["query", "--schema"]).ok();
    for part in ["llm_calls", "cost_nano_usd", "billionths of a US dollar", "unix_nano(text)"] {
        assert!(schema.contains(part), "{part}: {schema}");
    }
    let schema = run(&data_dir, &["query", "--schema", "--json"]).ok();
    let schema: Json = serde_json::from_str(&schema).expect("JSON");
    assert_eq!(schema["tables"][0]["name"], "spans");
    assert!(!data_dir.exists(), "asking makes nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_have_an_exit_code_and_a_hint() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    assert_eq!(run(&data_dir, &["query", "SELECT 1"]).code, 3, "there is no data directory");
    let server = Server::start(&data_dir);
    let there = ["--server", &server.web];
    for (args, code, message) in [
        (&["query", "SELECT nope FROM spans"][..], 2, "no such column: nope (line 1, column 8)"),
        (
            &["query", "DELETE FROM spans"],
            2,
            "expected one SELECT over the documented tables, got DELETE",
        ),
        (&["query", "SELECT 1", "-n", "0"], 2, "from 1 to 100000"),
        (
            &[
                "query",
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT max(i) FROM n",
                "--timeout",
                "200ms",
            ],
            1,
            "took longer than 200 ms",
        ),
    ] {
        for finished in [run(&data_dir, args), run(&data_dir, &[args, &there].concat())] {
            assert_eq!(finished.code, code, "{}", finished.stderr);
            let is_bounds = message.starts_with("from 1")
                && finished.stderr.contains("expected 1 to 100000 rows");
            assert!(is_bounds || finished.stderr.contains(message), "{}", finished.stderr);
            assert!(finished.stderr.contains("hint: "), "{}", finished.stderr);
        }
    }
    let nowhere = run(&data_dir, &["query", "SELECT 1", "--server", "http://127.0.0.1:1"]);
    assert_eq!(nowhere.code, 1);
    assert!(nowhere.stderr.contains("hint: is the server running"), "{}", nowhere.stderr);
    let odd = run(&data_dir, &["query", "SELECT 1", "--server", "localhost:4319"]);
    assert_eq!(odd.code, 2, "{}", odd.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_gives_its_turn_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let server = Server::start(&data_dir);
    let url = format!("{}/api/v1/sql", server.web);
    let endless = serde_json::json!({
        "query": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT max(i) FROM n",
        "timeout_ms": 60_000,
    });
    // More than run at once on any machine, each on a connection of its own.
    let asking: Vec<_> = (0..6)
        .map(|_| {
            let request = client().post(&url).json(&endless);
            tokio::spawn(async move { request.send().await.map(drop) })
        })
        .collect();
    let short = |timeout_ms: u64| {
        let body = serde_json::json!({ "query": "SELECT 1", "timeout_ms": timeout_ms });
        client().post(&url).json(&body).send()
    };
    // All turns are taken once a short one gets none.
    while short(200).await.expect("an answer").status() == 200 {}
    asking.iter().for_each(|one| one.abort());
    let answer = tokio::time::timeout(PATIENCE, short(30_000)).await.expect("soon");
    assert_eq!(answer.expect("an answer").status(), 200);
}
