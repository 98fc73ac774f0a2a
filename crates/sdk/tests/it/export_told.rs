//! What people are told of exports that do not arrive: once, why, and when they do again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::{StatusCode, Uri};
use serde_json::Value;
use throughline::Telemetry;

use crate::export::{is_child, run_child, work};
use crate::receiver;

/// The lines of a child that sends twice to this address, as JSON.
fn lines(endpoint: &str, protocol: &str) -> Vec<Value> {
    let said = run_child(
        "export_told::child_that_sends_twice",
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint), ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)],
    );
    said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// What is told of exports.
fn told(lines: &[Value]) -> Vec<&str> {
    let ours = lines.iter().filter(|line| line["target"] == "throughline::export");
    ours.filter_map(|line| line["message"].as_str()).collect()
}

#[test]
fn child_that_sends_twice() {
    if !is_child() {
        return;
    }
    let telemetry = Telemetry::builder().timeout(Duration::from_millis(500)).init();
    let telemetry = telemetry.expect("telemetry");
    for _ in 0..2 {
        work();
        tracing::info!("a word");
        telemetry.flush();
    }
    // Says what was lost, if anything was, after the end.
    drop(telemetry);
}

#[test]
fn r2_1_a_receiver_that_is_not_there_is_told_once_with_the_reason() {
    for protocol in ["grpc", "http/protobuf"] {
        let endpoint = format!("http://{}", receiver::nobody());
        let lines = lines(&endpoint, protocol);
        let told = told(&lines);
        // Of all three signals together.
        let about = format!("telemetry does not arrive: cannot reach {endpoint}");
        assert_eq!(told.len(), 1, "{protocol}: {told:?}");
        assert!(told[0].starts_with(&about), "{protocol}: {told:?}");
        assert!(told[0].contains("Connection refused"), "{protocol}: {told:?}");
        let noise = |line: &&Value| {
            let name = line["name"].as_str().unwrap_or_default();
            name.ends_with(".ExportError") || name.ends_with("AfterShutdown")
        };
        assert_eq!(lines.iter().find(noise), None, "{protocol}");
        let lost = |line: &Value| {
            line["message"].as_str().is_some_and(|text| text.contains("check that the receiver"))
        };
        assert!(lines.iter().any(lost), "{protocol}: {lines:?}");
    }
}

#[test]
fn r2_1_a_key_that_is_refused_is_told_and_so_is_that_it_is_taken_again() {
    let is_let_in = Arc::new(AtomicBool::new(false));
    let address = receiver::serve(move || {
        axum::Router::new().fallback(move |uri: Uri| {
            // The first batch of spans is not let in.
            let is_traces = uri.path() == "/v1/traces";
            let is_refused = is_traces && !is_let_in.swap(is_traces, Ordering::AcqRel);
            async move { if is_refused { StatusCode::UNAUTHORIZED } else { StatusCode::OK } }
        })
    });
    let lines = lines(&format!("http://{address}"), "http/protobuf");
    let about = format!("http://{address} answered 401 Unauthorized; set its key with");
    let told = told(&lines);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains(&about), "{told:?}");
    assert_eq!(told[1], "telemetry arrives again");
}
