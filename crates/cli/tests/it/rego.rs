//! Policies in Rego and policies of an OPA over what is sent, and what files with rules would have said of it
//! (requirements R5.6 and R5.10). The OPA is a stand-in that speaks the wire format of OPA's REST API.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::http::{StatusCode, Uri};
use serde_json::{Value as Json, json};

use crate::contracts::calls;
use crate::export::{Exporter, traces};
use crate::governance::{governed, in_time, is_consumed};
use crate::policies::{freezes, steps};
use crate::server::{Server, run, until};

const PAYMENT: &str = include_str!("../../../../deploy/rego/payment_freeze.yaml");
const PAYMENT_REGO: &str = include_str!("../../../../deploy/rego/payment_freeze.rego");

const STOCK: &str = include_str!("../../../../deploy/rego/stock.yaml");

/// A policy that an OPA has.
const SPEND: &str = "
apiVersion: throughline/v1
kind: Policy
metadata: {name: spend}
spec:
  agent: payment
  opa: {signals: [error_budget_consumption_rate]}
  query: data.throughline.payments.allow
  do: [hand_over: {to: tier2}]
";

/// What the stand-in answers with, and what it was asked.
#[derive(Default)]
struct Opa {
    answer: Mutex<(u16, Json)>,
    asked: Mutex<Vec<(String, Json)>>,
}

async fn opa() -> (String, Arc<Opa>) {
    let opa = Arc::new(Opa { answer: Mutex::new((200, json!({}))), ..Opa::default() });
    let here = Arc::clone(&opa);
    let answer = move |uri: Uri, axum::Json(body): axum::Json<Json>| {
        here.asked.lock().expect("unharmed").push((uri.to_string(), body));
        let (status, body) = here.answer.lock().expect("unharmed").clone();
        std::future::ready((StatusCode::from_u16(status).expect("a status"), axum::Json(body)))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let app = axum::Router::new().route("/v1/data/{*path}", axum::routing::post(answer));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, opa)
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).expect("written");
}

async fn finding(server: &Server, rule: &str, is_firing: bool) -> Json {
    until(rule, async || {
        let found = server.get_json("/api/v1/findings").await;
        let state = if is_firing { "firing" } else { "resolved" };
        let all = found["items"].as_array().expect("a list");
        all.iter().find(|one| one["rule"] == rule && one["state"] == state).cloned()
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_6_policies_in_rego_and_of_an_opa_act_and_are_replayed() {
    let dir = tempfile::tempdir().expect("a directory");
    let (data_dir, rules) = (dir.path().join("data"), dir.path().join("rules"));
    fs::create_dir(&rules).expect("made");
    write(&rules, "slo.yaml", &in_time("payment"));
    let (url, opa) = opa().await;
    let yaml = format!(
        "governance: {{rules: [rules], interval_secs: 1}}\nact: {{opa: {{url: \"{url}\", timeout_ms: 1000}}}}\n"
    );
    write(dir.path(), "throughline.yaml", &yaml);
    let server = Server::start(&data_dir);
    let mut exporter = Exporter::connect(&server.grpc).await;
    for spans in [steps(1, 93, 300, "ok"), steps(1_000, 7, 2_800, "timeout")] {
        exporter.send_traces(traces("shop", spans)).await.expect("taken");
    }
    is_consumed(&server, "payment-in-time", 0.7).await;
    for (name, text) in [
        ("payment_freeze.rego", PAYMENT_REGO),
        ("payment_freeze.yaml", PAYMENT),
        ("spend.yaml", SPEND),
    ] {
        write(&rules, name, text);
    }
    until("the freeze", async || {
        freezes(&server).await.into_iter().find(|one| one["state"] == "done")
    })
    .await;
    let told = finding(&server, "policy:payment_freeze", true).await;
    let summary = told["summary"].as_str().expect("text");
    assert!(summary.contains("70 % of the error budget is used up, 60 % may be"), "{summary}");

    // The OPA has no such rule: undefined denies.
    finding(&server, "policy:spend", true).await;
    let (path, asked) = opa.asked.lock().expect("unharmed")[0].clone();
    assert_eq!(path, "/v1/data/throughline/payments/allow");
    let rate =
        asked["input"]["signals"]["error_budget_consumption_rate"].as_f64().expect("a number");
    assert!((rate - 0.7).abs() < 1e-9, "{asked}");
    assert_eq!(asked["input"]["subject"], json!({"agent": "payment"}));
    let (_, metrics) = server.get("/metrics", None).await;
    assert!(
        metrics.contains("throughline_act_opa_questions_total{outcome=\"undefined\"}"),
        "{metrics}"
    );

    // One that fails is no answer, and no answer is shown as such.
    *opa.answer.lock().expect("unharmed") = (503, json!({"errors": "starting"}));
    write(&rules, "spend.yaml", &format!("# looked at again\n{SPEND}"));
    until("the page", async || {
        let (_, page) = server.get("/governance", None).await;
        page.contains("the OPA gave no answer: answered 503").then_some(())
    })
    .await;

    // A file in Rego that changes is followed: the policy is another one now, and its finding ends.
    write(&rules, "payment_freeze.rego", &PAYMENT_REGO.replace("0.6", "0.9"));
    finding(&server, "policy:payment_freeze", false).await;

    // What they would have said: with the first threshold it fires, and would freeze; with the second not.
    let folder = rules.to_str().expect("text");
    let quiet = replayed(&data_dir, folder);
    assert_eq!(quiet["replay"]["policies"]["payment_freeze"]["firing"], 0, "{quiet}");
    write(&rules, "payment_freeze.rego", PAYMENT_REGO);
    let told = replayed(&data_dir, folder);
    let events = told["replay"]["events"].as_array().expect("a list");
    let fired = events
        .iter()
        .find(|event| event["rule"] == "policy:payment_freeze" && event["state"] == "firing");
    let fired = fired.unwrap_or_else(|| panic!("{told}"));
    assert_eq!(fired["actions"], json!([{"told": "freeze for 86400 s", "held_back": null}]));
    assert!(
        fired["summary"].as_str().expect("text").contains("70 % of the error budget"),
        "{fired}"
    );
    let of_opa = &told["replay"]["policies"]["spend"];
    assert!(of_opa["why_unknown"].as_str().expect("text").contains("no OPA was asked"), "{of_opa}");
    // Asked for by a flag, it is asked about each minute.
    *opa.answer.lock().expect("unharmed") = (200, json!({}));
    let before = opa.asked.lock().expect("unharmed").len();
    let asked = run(&data_dir, &["check", folder, "--replay", "1h", "--ask-opa", "--json"]).ok();
    let asked: Json = serde_json::from_str(&asked).expect("JSON");
    let of_opa = &asked["replay"]["policies"]["spend"];
    assert!(of_opa["firing"].as_u64().expect("a number") > 0, "{of_opa}");
    assert!(opa.asked.lock().expect("unharmed").len() > before, "it was asked");
    let table = run(&data_dir, &["check", folder, "--replay", "1h"]).ok();
    for part in ["policy:payment_freeze", "fires", "freeze for 86400 s", "nothing was done"] {
        assert!(table.contains(part), "{part} in {table}");
    }
    assert_eq!(freezes(&server).await.len(), 1, "a replay does nothing");
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_10_a_contract_in_rego_is_counted_live_and_replayed() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let (server, rules) = governed(dir.path(), &[("stock.yaml", STOCK)]);
    let mut exporter = Exporter::connect(&server.grpc).await;
    // Of 100, 4 were too slow where one may be.
    for spans in [calls(1, 96, 80), calls(1_000, 4, 900)] {
        exporter.send_traces(traces("shop", spans)).await.expect("taken");
    }
    is_consumed(&server, "contract.stock", 4.0).await;
    let told = replayed(&data_dir, rules.to_str().expect("text"));
    let events = told["replay"]["events"].as_array().expect("a list");
    let broken = events.iter().find(|event| event["rule"] == "policy:contract.stock");
    let broken = broken.unwrap_or_else(|| panic!("{told}"));
    let summary = broken["summary"].as_str().expect("text");
    assert!(summary.contains("96.00 % of the calls of shop_order to inventory"), "{broken}");
    let action = broken["actions"][0]["told"].as_str().expect("text");
    assert!(action.starts_with("directive retry_strategy"), "{broken}");
    // The trace of what was done about it is one more, once it is stored.
    let traces = told["replay"]["counted"]["traces"].as_u64().expect("a number");
    assert!((100..=101).contains(&traces), "{told}");
    server.stop();
}

fn replayed(data_dir: &Path, folder: &str) -> Json {
    let told = run(data_dir, &["check", folder, "--replay", "1h", "--json"]).ok();
    serde_json::from_str(&told).expect("JSON")
}

#[test]
fn r5_6_files_with_rules_are_checked_with_line_and_column() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    write(dir.path(), "payment_freeze.yaml", PAYMENT);
    write(dir.path(), "payment_freeze.rego", PAYMENT_REGO);
    let file = dir.path().join("payment_freeze.yaml");
    let file = file.to_str().expect("text");
    let told = run(&data_dir, &["check", file]).ok();
    assert!(
        told.contains("the rules can be used  0 SLOs, 1 policy, 0 signals, 0 rollouts"),
        "{told}"
    );
    write(
        dir.path(),
        "payment_freeze.rego",
        &PAYMENT_REGO.replace("consumption_rate", "consumption_rat"),
    );
    let refused = run(&data_dir, &["check", file]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    for part in [
        "payment_freeze.yaml:",
        "payment_freeze.rego:10:24: expected a name of input.signals",
        "did you mean",
    ] {
        assert!(refused.stderr.contains(part), "{part} in {}", refused.stderr);
    }
    let alone = dir.path().join("payment_freeze.rego");
    let refused = run(&data_dir, &["check", alone.to_str().expect("text")]);
    assert!(refused.stderr.contains("expected files with rules"), "{}", refused.stderr);
}
