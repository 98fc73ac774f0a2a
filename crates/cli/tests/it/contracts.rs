//! A contract over what is sent: calls are counted, a breach tells the caller once, and that is on the
//! record (requirement R5.10).

use std::fs;

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::Value as Json;
use throughline_trace::{TraceId, keys};

use crate::export::{Exporter, span, text, traces};
use crate::governance::{LONG_AGO_NANOS, governed, is_consumed, is_recorded, now};
use crate::server::{Server, until};

const STOCK: &str = include_str!("../../../../deploy/contracts/stock.yaml");

/// Calls of the shop's agent to the inventory service.
pub(crate) fn calls(first: u64, count: u64, millis: u64) -> Vec<Span> {
    let of = |n: u64| {
        let attributes = vec![
            text(keys::AGENT_ID, "shop_order"),
            text("peer.service", "inventory"),
            text("response.consistency_level", "strong"),
        ];
        let trace = TraceId::from_u128(u128::from(first + n));
        let mut call = span(trace, 1, None, "GET /stock", (0, 1), attributes);
        call.kind = SpanKind::Client.into();
        call.end_time_unix_nano = now() - LONG_AGO_NANOS;
        call.start_time_unix_nano = call.end_time_unix_nano - millis * 1_000_000;
        call
    };
    (0..count).map(of).collect()
}

async fn told(server: &Server) -> Vec<Json> {
    let listed = server.get_json("/api/v1/actions").await;
    let all = listed["items"].as_array().expect("a list").clone();
    all.into_iter().filter(|one| one["rule"] == "policy:contract.stock").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_10_a_breach_tells_the_caller_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let rehearsed = STOCK.replace("  window: 15m", "  window: 15m\n  dry_run: true");
    let (server, rules) = governed(dir.path(), &[("stock.yaml", rehearsed.as_str())]);
    let mut exporter = Exporter::connect(&server.grpc).await;
    // Of 100, 4 were too slow where one may be.
    for spans in [calls(1, 96, 80), calls(1_000, 4, 900)] {
        exporter.send_traces(traces("shop", spans)).await.expect("taken");
    }
    is_consumed(&server, "contract.stock", 4.0).await;
    // Another version of it is asked at once.
    fs::write(rules.join("stock.yaml"), STOCK).expect("written");
    let action = until("the directive", async || {
        told(&server).await.into_iter().find(|one| one["state"] == "done")
    })
    .await;
    let reason = action["reason"].as_str().expect("text");
    assert!(reason.contains("96.00 % of the calls of shop_order to inventory"), "{action}");
    is_recorded(&server, &action).await;
    // The calls that were too slow are what it shows, and what justifies the directive.
    let slow = |id: &Json| {
        let id: TraceId = id.as_str().expect("an id").parse().expect("a trace id");
        (1_000..1_004).any(|n| id == TraceId::from_u128(n))
    };
    let findings = server.get_json("/api/v1/findings?firing=true").await;
    let all = findings["items"].as_array().expect("a list");
    let breach = all.iter().find(|one| one["rule"] == "policy:contract.stock").expect("a finding");
    for evidence in [&breach["evidence"], &action["evidence"]] {
        let traces = evidence.as_array().expect("a list");
        assert!(traces.len() == 4 && traces.iter().all(slow), "{evidence}");
    }
    until("the page", async || {
        let (_, page) = server.get("/governance", None).await;
        let shown = ["contract.stock", "inventory for shop_order", "is broken"];
        shown.iter().all(|text| page.contains(text)).then_some(())
    })
    .await;
    server.stop();

    // A restart repeats nothing.
    let server = Server::start(&data_dir);
    until("a round", async || {
        let (_, page) = server.get("/governance", None).await;
        (page.contains("contract.stock") && page.contains(">fires<")).then_some(())
    })
    .await;
    let done = told(&server).await.into_iter().filter(|one| one["state"] == "done");
    assert_eq!(done.count(), 1);
}
