//! What leaves the process: over a real connection, from any runtime, counted, in bounded time.

use std::time::{Duration, Instant};

use throughline::{OtlpProtocol, Telemetry, TelemetryError, span};

#[test]
fn shutdown_is_bounded_when_nobody_listens() {
    // A port that was free a moment ago: connections are refused, the exporter retries.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let endpoint = format!("http://{}", port.expect("a free port"));
    for protocol in [OtlpProtocol::Grpc, OtlpProtocol::HttpProtobuf] {
        let telemetry = Telemetry::builder()
            .endpoint(&endpoint)
            .protocol(protocol)
            .timeout(Duration::from_secs(60))
            .build()
            .expect("telemetry");
        {
            let _in = telemetry.enter();
            span("lost").start().end();
            throughline::decision("plan").action("lost").record();
        }
        let started = Instant::now();
        let lost = telemetry.shutdown().expect_err("nothing can have arrived");
        assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
        assert_eq!((lost.counts.spans.ended, lost.counts.spans.exported), (1, 0));
        assert_eq!((lost.counts.decisions.ended, lost.counts.decisions.exported), (1, 0));
        assert!(telemetry.shutdown().is_ok(), "a second shutdown does nothing");
    }
}

#[test]
fn wrong_settings_are_named() {
    let error = Telemetry::builder().sample_ratio(1.5).build().expect_err("out of range");
    assert_eq!(error.to_string(), "expected sample_ratio to be between 0 and 1, got \"1.5\"");
    let error = Telemetry::builder().header("bad name", "x").build().expect_err("bad header");
    assert!(matches!(error, TelemetryError::Setting { .. }), "{error}");
    let error = Telemetry::builder().endpoint("not a url").protocol(OtlpProtocol::Grpc).build();
    assert!(matches!(error, Err(TelemetryError::Exporter(_))), "{error:?}");
}
