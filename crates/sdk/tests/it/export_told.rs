//! What people are told of exports that do not arrive: once, why, and when they do again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, Uri};
use axum::response::IntoResponse as _;
use serde_json::Value;
use throughline::Telemetry;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::export::{is_child, run_child, work};
use crate::receiver;

/// The lines of a child that sends twice to this address, as JSON.
fn lines(endpoint: &str, protocol: &str) -> Vec<Value> {
    lines_with(endpoint, protocol, "")
}

/// [`lines`] with a spool of decisions in this directory, if it is one.
fn lines_with(endpoint: &str, protocol: &str, spool: &str) -> Vec<Value> {
    let said = run_child(
        "export_told::child_that_sends_twice",
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("THROUGHLINE_DECISION_SPOOL", spool),
        ],
    );
    said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// What is told of exports.
fn told(lines: &[Value]) -> Vec<&str> {
    let ours = lines.iter().filter(|line| line["target"] == "throughline::export");
    ours.filter_map(|line| line["message"].as_str()).collect()
}

/// What the libraries below say of each batch.
fn noise(lines: &[Value]) -> Option<&Value> {
    lines.iter().find(|line| {
        let name = line["name"].as_str().unwrap_or_default();
        let is_of_export = name.ends_with(".ExportError") || name.starts_with("Export.");
        is_of_export || name.ends_with("AfterShutdown")
    })
}

/// Whether the end says that something was lost.
fn is_loss_told(lines: &[Value]) -> bool {
    let mut messages = lines.iter().filter_map(|line| line["message"].as_str());
    messages.any(|text| text.contains("check that the receiver"))
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
    let spool = tempfile::tempdir().expect("a directory");
    let spool = spool.path().to_str().expect("a path");
    for (protocol, spool) in [("grpc", ""), ("http/protobuf", ""), ("http/protobuf", spool)] {
        let endpoint = format!("http://{}", receiver::nobody());
        let lines = lines_with(&endpoint, protocol, spool);
        let told = told(&lines);
        // Of all three signals together, and of the spool.
        let about = format!("telemetry does not arrive: cannot reach {endpoint}");
        assert_eq!(told.len(), 1, "{protocol}: {told:?}");
        assert!(told[0].starts_with(&about), "{protocol}: {told:?}");
        assert!(told[0].contains("Connection refused"), "{protocol}: {told:?}");
        assert_eq!(noise(&lines), None, "{protocol}");
        assert!(is_loss_told(&lines), "{protocol}: {lines:?}");
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

/// A receiver of both protocols that says of the first so many requests for each signal that it is busy, and
/// that they may come again at once.
fn busy_for(requests: usize) -> String {
    let came: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
    let address = receiver::serve(move || {
        axum::Router::new().fallback(move |uri: Uri, headers: HeaderMap| {
            let mut came = came.lock().expect("what came");
            let before = came.entry(uri.path().to_owned()).or_default();
            *before += 1;
            let is_busy = *before <= requests;
            let is_grpc = headers
                .get(CONTENT_TYPE)
                .is_some_and(|form| form.as_bytes() == b"application/grpc");
            async move {
                match (is_grpc, is_busy) {
                    (true, true) => {
                        let pause = ErrorDetails::with_retry_info(Some(Duration::ZERO));
                        let status = Status::with_error_details(Code::Unavailable, "busy", pause);
                        status.into_http::<Body>()
                    }
                    (true, false) => {
                        // An empty message: all was taken.
                        let mut response = Response::new(Body::from(vec![0; 5]));
                        let headers = response.headers_mut();
                        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                        headers.insert("grpc-status", HeaderValue::from_static("0"));
                        response
                    }
                    (false, true) => {
                        (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "0")]).into_response()
                    }
                    (false, false) => StatusCode::OK.into_response(),
                }
            }
        })
    });
    format!("http://{address}")
}

#[test]
fn r2_1_a_receiver_that_asks_for_a_pause_is_no_outage() {
    for protocol in ["grpc", "http/protobuf"] {
        let lines = lines(&busy_for(1), protocol);
        assert_eq!(told(&lines), [""; 0], "{protocol}");
        assert_eq!(noise(&lines), None, "{protocol}");
        assert!(!is_loss_told(&lines), "{protocol}: {lines:?}");
    }
}

#[test]
fn r2_1_a_receiver_that_asks_for_pauses_until_exports_are_given_up_is_told_once() {
    for (protocol, answered) in
        [("grpc", "Unavailable"), ("http/protobuf", "503 Service Unavailable")]
    {
        let endpoint = busy_for(usize::MAX);
        let lines = lines(&endpoint, protocol);
        let about =
            format!("telemetry does not arrive: {endpoint} is busy: it answered {answered}");
        let told = told(&lines);
        assert_eq!(told.len(), 1, "{protocol}: {told:?}");
        assert!(told[0].starts_with(&about), "{protocol}: {told:?}");
        assert_eq!(noise(&lines), None, "{protocol}");
        assert!(is_loss_told(&lines), "{protocol}: {lines:?}");
    }
}
