//! A policy over what is sent: it fires, what it asks for is done once and recorded, and signals are shown
//! beside the server (requirements R5.3 and R5.6).

use std::fs;

use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value as Json, json};
use throughline_trace::{TraceId, keys};

use crate::export::{Exporter, span, text, traces};
use crate::governance::{LONG_AGO_NANOS, governed, in_time, is_consumed, is_recorded, now};
use crate::server::{Server, client, run, until};

const POLICY: &str = include_str!("../../../../deploy/policies/payment_freeze.yaml");
const FORECASTS: &str = include_str!("../../../../deploy/policies/inventory_features.yaml");
const SCORE: &str = include_str!("../../../../deploy/signals/smart_sla_score.yaml");

fn long_ago() -> u64 {
    now() - LONG_AGO_NANOS
}

/// Steps of the payment agent, each on a trace and in a session of its own.
pub(crate) fn steps(first: u64, count: u64, millis: u64, outcome: &str) -> Vec<Span> {
    let of = |n: u64| {
        let attributes = vec![
            text(keys::AGENT_ID, "payment"),
            text(keys::AI_AGENT_NAME, "payment"),
            text(keys::AI_PHASE, "act"),
            text(keys::SESSION_ID, format!("s-{}", first + n)),
            text(keys::OUTCOME, outcome),
        ];
        let trace = TraceId::from_u128(u128::from(first + n));
        let mut step = span(trace, 1, None, "payment.act.charge", (0, 1), attributes);
        step.end_time_unix_nano = long_ago();
        step.start_time_unix_nano = step.end_time_unix_nano - millis * 1_000_000;
        step
    };
    (0..count).map(of).collect()
}

async fn decide(server: &Server) {
    let at = long_ago();
    let forecasts = [(1, 90.0, 100.0), (2, 150.0, 100.0)].map(|(number, forecast, actual)| {
        json!({
            "decision_id": format!("00000000-0000-4000-8000-{number:012}"),
            "timestamp_ns": at, "agent_id": "inventory", "stage": "forecast",
            "decision": {"action": "reorder"},
            "attributes": {keys::FORECAST_VALUE: forecast, keys::FORECAST_ACTUAL: actual},
        })
    });
    let url = format!("{}/api/v1/decisions", server.web);
    let answer = client().post(url).json(&forecasts).send().await.expect("an answer");
    assert!(answer.status().is_success(), "{}", answer.text().await.expect("a body"));
}

pub(crate) async fn freezes(server: &Server) -> Vec<Json> {
    let listed = server.get_json("/api/v1/actions").await;
    let all = listed["items"].as_array().expect("a list").clone();
    all.into_iter().filter(|one| one["told"] == "freeze for 86400 s").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_6_a_policy_freezes_an_agent_once_and_signals_are_shown() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let files = [("slo.yaml", in_time("payment")), ("score.yaml", SCORE.to_owned())];
    let (server, rules) =
        governed(dir.path(), &files.each_ref().map(|(name, text)| (*name, text.as_str())));
    let mut exporter = Exporter::connect(&server.grpc).await;
    // 7 of 100 were too late and failed, 10 may be: seven tenths of the budget.
    for spans in [steps(1, 93, 300, "ok"), steps(1_000, 7, 2_800, "timeout")] {
        exporter.send_traces(traces("shop", spans)).await.expect("taken");
    }
    decide(&server).await;
    is_consumed(&server, "payment-in-time", 0.7).await;
    // The next round reads the files and asks them at once.
    fs::write(rules.join("policy.yaml"), POLICY).expect("written");
    fs::write(rules.join("forecasts.yaml"), FORECASTS).expect("written");
    let freeze = until("the freeze", async || {
        freezes(&server).await.into_iter().find(|one| one["state"] == "done")
    })
    .await;
    assert_eq!(freeze["rule"], "policy:payment_freeze", "{freeze}");
    let detail = freeze["detail"].as_str().expect("text");
    assert!(detail.starts_with("agent=payment is frozen until "), "{detail}");
    let findings = server.get_json("/api/v1/findings?firing=true").await;
    let all = findings["items"].as_array().expect("a list");
    let finding = all.iter().find(|one| one["kind"] == "policy").expect("a finding");
    let consumed = finding["values"]["error_budget_consumption_rate"].as_f64().expect("a number");
    assert!((consumed - 0.7).abs() < 1e-9, "{finding}");
    is_recorded(&server, &freeze).await;
    until("the page", async || {
        let (_, page) = server.get("/governance", None).await;
        let shown = ["payment_freeze", "error_budget_consumption_rate", "0.700", "holds, waits"];
        shown.iter().all(|text| page.contains(text)).then_some(())
    })
    .await;

    // Beside the server, from the same store.
    let told = run(&data_dir, &["signals", "--agent", "payment", "--json"]).ok();
    let told: Json = serde_json::from_str(&told).expect("JSON");
    let of = |name: &str| {
        let rows = told["signals"].as_array().expect("a list");
        rows.iter().find(|row| row["name"] == name).expect("a row").clone()
    };
    assert_eq!(told["signals"].as_array().map(Vec::len), Some(16));
    assert_eq!(of("agent_decision_latency_p95")["count"], 100);
    assert_eq!(of("order_fulfillment_accuracy")["value"], 0.93);
    assert_eq!(of("session_continuity_index")["value"], 1.0);
    assert_eq!(of("error_budget_consumption_rate")["count"], 100);
    assert_eq!(of("fallback_success_rate")["value"], Json::Null);
    assert_eq!(of("fallback_success_rate")["lacks"], "no fallback was triggered");
    let score = &told["own"][0];
    assert_eq!(score["missing"], json!(["cross_service_coherence"]), "{score}");
    assert_eq!(score["parts"]["order_fulfillment_accuracy"], 0.93);
    // The server tells the same, and shows it.
    let live = server.get_json("/api/v1/signals?agent=payment").await;
    let rows = live["signals"].as_array().expect("a list");
    for name in ["order_fulfillment_accuracy", "error_budget_consumption_rate", "burn_rate"] {
        let row = rows.iter().find(|row| row["name"] == name).expect("a row");
        assert_eq!((&row["value"], &row["count"]), (&of(name)["value"], &of(name)["count"]));
    }
    assert_eq!(live["own"][0]["missing"], "without cross_service_coherence");
    let (_, page) = server.get("/governance/signals?agent=payment", None).await;
    assert!(page.contains("order_fulfillment_accuracy") && page.contains("0.930"), "{page}");
    let table = run(&data_dir, &["signals", "--agent", "inventory", "--window", "2h"]).ok();
    let row = table.lines().find(|line| line.starts_with("forecast_error_mape")).expect("a row");
    assert!(row.contains("30.000 %") && row.contains(" 2 "), "{row}");
    server.stop();

    // A restart repeats nothing.
    let server = Server::start(&data_dir);
    until("a round", async || {
        let (_, page) = server.get("/governance", None).await;
        (page.contains("payment_freeze") && page.contains(">fires<")).then_some(())
    })
    .await;
    assert_eq!(freezes(&server).await.len(), 1);
}
