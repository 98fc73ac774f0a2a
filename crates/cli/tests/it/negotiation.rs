//! Contracts are negotiated over what is sent: a proposal is answered from what was measured, what both agree
//! on is watched, and every version is kept over restarts (requirement R5.10).

use std::fs;
use std::path::Path;

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::{Value as Json, json};
use throughline_trace::{TraceId, keys};

use crate::export::{Exporter, span, text, traces};
use crate::governance::{LONG_AGO_NANOS, governed, is_recorded, now};
use crate::server::{Server, client, run, until};

/// Calls of the shop's agent to the inventory service that are over.
fn calls(first: u64, count: u64, millis: u64, level: Option<&str>) -> Vec<Span> {
    let of = |n: u64| {
        let mut attributes =
            vec![text(keys::AGENT_ID, "shop_order"), text("peer.service", "inventory")];
        attributes.extend(level.map(|level| text("response.consistency_level", level)));
        let trace = TraceId::from_u128(u128::from(first + n));
        let mut call = span(trace, 1, None, "GET /stock", (0, 1), attributes);
        call.kind = SpanKind::Client.into();
        call.end_time_unix_nano = now() - LONG_AGO_NANOS;
        call.start_time_unix_nano = call.end_time_unix_nano - millis * 1_000_000;
        call
    };
    (0..count).map(of).collect()
}

fn terms() -> Json {
    json!({
        "consumer": "shop_order",
        "provider": "inventory",
        "when": "request.service == 'inventory' && response.status == 'success'",
        "expect": "response.latency_ms < 150 && response.consistency_level == 'strong'",
        "objective": 0.99,
        "window": "15m",
    })
}

async fn post(server: &Server, path: &str, body: &Json) -> (u16, Json) {
    let url = format!("{}/api/v1/contracts/{path}", server.web);
    let answer = client().post(url).json(body).send().await.expect("an answer");
    let status = answer.status().as_u16();
    let text = answer.text().await.expect("a body");
    (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status}: {text}")))
}

async fn is_in_state(server: &Server, name: &str, state: &str) -> Json {
    let path = format!("/api/v1/contracts/{name}");
    until(state, async || {
        // One from a file is there after the first round, for which the server does not wait to be ready.
        if server.get(&path, None).await.0 == 404 {
            return None;
        }
        let found = server.get_json(&path).await;
        (found["proposal"]["state"] == state).then_some(found)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_10_a_proposal_is_countered_from_what_was_measured_and_agreed_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let (server, _) = governed(dir.path(), &[]);
    let mut exporter = Exporter::connect(&server.grpc).await;
    // What is there before anybody proposes: 960 in time, 40 in 180 ms, and 7 that say nothing of
    // consistency.
    let sent = [
        calls(1, 960, 80, Some("strong")),
        calls(2_000, 40, 180, Some("strong")),
        calls(3_000, 7, 80, None),
    ];
    for spans in sent {
        exporter.send_traces(traces("shop", spans)).await.expect("taken");
    }
    let (status, asked) =
        post(&server, "stock/proposals", &json!({"terms": terms(), "reason": "a new shop"})).await;
    assert_eq!((status, asked["state"].as_str()), (201, Some("done")), "{asked}");
    let found = is_in_state(&server, "stock", "countered").await;
    let offers = &found["proposal"]["offers"];
    let answer = &offers[0]["answer"];
    assert_eq!(answer["verdict"], "counter", "{answer}");
    let counts = ["meant", "judged", "good", "unjudged"].map(|of| answer[of].as_u64());
    assert_eq!(counts, [Some(1_007), Some(1_000), Some(960), Some(7)], "{answer}");
    assert_eq!(answer["evidence"].as_array().map(Vec::len), Some(5), "{answer}");
    let offered = offers[1]["terms"]["expect"].as_str().expect("terms");
    assert_eq!(offered, "response.latency_ms < 200 && response.consistency_level == 'strong'");
    assert_eq!(
        (&offers[1]["side"], &found["proposal"]["turn"]),
        (&json!("provider"), &json!("consumer"))
    );
    assert_eq!(found["in_force"], Json::Null);

    // What was not seen is not agreed to, and what is not meant is not proposed.
    let (status, problem) = post(&server, "stock/accept", &json!({"offer": 1})).await;
    assert_eq!((status, problem["code"].as_str()), (409, Some("conflict")), "{problem}");
    let detail = problem["detail"].as_str().expect("text");
    assert!(detail.starts_with("expected an answer to offer 2, which is the last"), "{detail}");
    let (status, problem) =
        post(&server, "other/proposals", &json!({"terms": {"consumer": "a"}})).await;
    assert_eq!(status, 422, "{problem}");
    let (status, problem) = post(&server, "none/accept", &json!({})).await;
    assert_eq!(status, 404, "{problem}");

    let (status, agreed) = post(&server, "stock/accept", &json!({"offer": 2})).await;
    assert_eq!((status, agreed["detail"].as_str()), (201, Some("version 1 of stock is in force")));
    assert_eq!(agreed["evidence"], answer["evidence"], "what was agreed on has its evidence");
    is_recorded(&server, &agreed).await;
    // It is watched, with all that was there before.
    until("the objective", async || {
        let found = server.get_json("/api/v1/contracts/stock").await;
        (found["attained"].as_f64() == Some(1.0)).then_some(())
    })
    .await;
    let (_, page) = server.get("/governance", None).await;
    for shown in ["contract.stock", "inventory for shop_order", "version 1"] {
        assert!(page.contains(shown), "{shown} is not on the page");
    }
    server.stop();

    let server = Server::start(&data_dir);
    let found = server.get_json("/api/v1/contracts/stock").await;
    assert_eq!((&found["in_force"], &found["versions"]), (&json!(1), &json!(1)));
    until("a round", async || {
        let found = server.get_json("/api/v1/contracts/stock").await;
        (found["attained"].as_f64() == Some(1.0)).then_some(())
    })
    .await;
    by_hand(&server, dir.path()).await;
}

/// A second version by a person's word, the first again, and the end of it.
async fn by_hand(server: &Server, dir: &Path) {
    let data_dir = dir.join("data");
    let other = json!({"terms": {"consumer": "shop_order", "provider": "inventory",
        "when": "request.service == 'inventory'", "expect": "response.latency_ms < 1000.0",
        "objective": 0.5}});
    run(&data_dir, &["act", "pause", "--by", "ada", "--reason", "we talk"]).ok();
    let file = dir.join("other.json");
    let document = json!({"apiVersion": "throughline/v1", "kind": "Contract",
        "metadata": {"name": "stock"}, "spec": other["terms"]});
    fs::write(&file, document.to_string()).expect("written");
    let file = file.to_str().expect("a path");
    run(&data_dir, &["contract", "propose", "-f", file, "--by", "ada"]).ok();
    assert_eq!(post(server, "stock/accept", &json!({"reason": "agreed by phone"})).await.0, 201);
    let listed = run(&data_dir, &["contract", "list"]);
    assert!(listed.ok().contains("version 2 of 2"), "the second is listed");
    // The button on its page puts the first in force again.
    let pressed = client()
        .post(format!("{}/governance/contracts/stock", server.web))
        .header("origin", &server.web)
        .header("content-type", "application/x-www-form-urlencoded")
        .body("step=restore&number=1")
        .send()
        .await
        .expect("an answer");
    let shown = pressed.text().await.expect("a page");
    assert!(shown.contains("version 1</span>"), "{shown}");
    for told in ["960 of 1000 calls of shop_order to inventory", "Put in force again"] {
        assert!(shown.contains(told), "{told} is not in {shown}");
    }
    let told = run(&data_dir, &["contract", "show", "stock"]);
    let told = told.ok();
    assert!(told.contains("stock  version 1 is in force"), "{told}");
    assert!(told.contains("of 7 more, `expect` had no value"), "{told}");
    let found = server.get_json("/api/v1/contracts/stock").await;
    assert_eq!((&found["in_force"], &found["versions"]), (&json!(1), &json!(2)), "{found}");
    let history = found["history"].as_array().expect("versions");
    assert_eq!(history[0]["evidence"], Json::Null, "nobody measured it");
    assert_eq!(history[1]["evidence"]["judged"], 1_000);
    assert_eq!(history[1]["by"], "local");
    assert_eq!(post(server, "stock/withdraw", &json!({})).await.0, 201);
    until("the end of the watch", async || {
        let (_, page) = server.get("/governance", None).await;
        (!page.contains("contract.stock")).then_some(())
    })
    .await;
}

const FILE: &str = include_str!("../../../../deploy/contracts/stock.yaml");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_10_files_propose_and_hold_contracts() {
    let dir = tempfile::tempdir().expect("a directory");
    let proposed = FILE.replace("spec:\n", "spec:\n  status: proposed\n  measured_over: 24h\n");
    let (server, rules) = governed(dir.path(), &[("stock.yaml", &proposed)]);
    let mut exporter = Exporter::connect(&server.grpc).await;
    let few = calls(1, 100, 80, Some("strong"));
    exporter.send_traces(traces("shop", few)).await.expect("taken");
    let found = is_in_state(&server, "stock", "insufficient").await;
    let answer = &found["proposal"]["offers"][0]["answer"];
    let missing = answer["more_calls"].as_u64().expect("a number");
    assert!((281..=381).contains(&missing), "{answer}");
    // The answer follows when there are enough, within a minute.
    // A file that holds the contract ends the proposal; from then on it alone changes it.
    fs::write(rules.join("stock.yaml"), FILE).expect("written");
    let found = until("the file's version", async || {
        let found = server.get_json("/api/v1/contracts/stock").await;
        (found["versions"] == 1).then_some(found)
    })
    .await;
    assert_eq!(found["proposal"]["state"], "superseded");
    assert!(found["file"].as_str().is_some_and(|file| file.ends_with("stock.yaml")), "{found}");
    let (status, problem) = post(&server, "stock/proposals", &json!({"terms": terms()})).await;
    assert_eq!(status, 409);
    let detail = problem["detail"].as_str().expect("text");
    assert!(detail.contains("change it there"), "{detail}");
    fs::write(rules.join("stock.yaml"), FILE.replace("< 150", "< 250")).expect("written");
    let found = until("the next version", async || {
        let found = server.get_json("/api/v1/contracts/stock").await;
        (found["in_force"] == 2).then_some(found)
    })
    .await;
    let expects: Vec<&str> = found["history"]
        .as_array()
        .expect("versions")
        .iter()
        .filter_map(|one| one["terms"]["expect"].as_str())
        .collect();
    assert!(expects[0].contains("< 250") && expects[1].contains("< 150"), "{expects:?}");
    fs::remove_file(rules.join("stock.yaml")).expect("removed");
    until("the end of the file", async || {
        let found = server.get_json("/api/v1/contracts/stock").await;
        (found["in_force"].is_null() && found["file"].is_null()).then_some(())
    })
    .await;
}
