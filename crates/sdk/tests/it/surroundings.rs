//! What the process around telemetry must not do to it, and telemetry not to the process: proxies,
//! variables, the TLS provider, work that has not ended, secrets in `{:?}`.

use rustls::crypto::CryptoProvider;
use throughline::{OtlpProtocol, Recorder, Telemetry, TelemetryBuilder, span};

use crate::export::{is_child, run_child, work};
use crate::receiver;

/// Tells a child where the receiver of its test is.
const RECEIVER: &str = "THROUGHLINE_TEST_RECEIVER";

/// An address where nobody is: the discard port.
const NO_ONE: &str = "http://127.0.0.1:9";

/// What a shell may have set for other programs.
const FOREIGN: [(&str, &str); 13] = [
    ("OTEL_SDK_DISABLED", "true"),
    ("OTEL_TRACES_EXPORTER", "none"),
    ("OTEL_METRICS_EXPORTER", "none"),
    ("OTEL_LOGS_EXPORTER", "none"),
    ("OTEL_TRACES_SAMPLER", "always_off"),
    ("OTEL_SERVICE_NAME", "other"),
    ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=other"),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "no number"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "no protocol"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", NO_ONE),
    ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20other,x-other=1"),
    ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
    ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/file.pem"),
];

fn receiver_of_child() -> String {
    std::env::var(RECEIVER).expect("a receiver")
}

/// Works under telemetry that is sent with each protocol.
fn send(builder: impl Fn() -> TelemetryBuilder) {
    for protocol in [OtlpProtocol::Grpc, OtlpProtocol::HttpProtobuf] {
        let telemetry = builder().protocol(protocol).build().expect("telemetry");
        {
            let _in = telemetry.enter();
            work();
        }
        telemetry.shutdown().expect("nothing is lost");
        assert_eq!(telemetry.counts().spans.exported, 2, "{protocol:?}");
    }
}

#[test]
fn a_proxy_is_not_asked_for_this_machine() {
    let proxies =
        ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let (address, received) = receiver::start();
    let endpoint = format!("http://{address}");
    let mut variables = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("NO_PROXY", "")];
    variables.extend(proxies.map(|name| (name, NO_ONE)));
    run_child("export::child_that_only_initialises", &variables);
    assert!(received.has("trace outer"), "{received:?}");

    let (address, received) = receiver::start();
    let endpoint = format!("http://{address}");
    variables[0] = (RECEIVER, endpoint.as_str());
    run_child("surroundings::child_that_names_its_receiver", &variables);
    assert!(received.has("trace outer"), "{received:?}");
}

#[test]
fn what_the_builder_says_wins_over_the_variables() {
    let (address, received) = receiver::start();
    let endpoint = format!("http://{address}");
    run_child(
        "surroundings::child_that_names_its_receiver",
        &[
            (RECEIVER, &endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "no protocol"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", NO_ONE),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20other"),
        ],
    );
    assert!(received.has("key Bearer tl_test"), "{received:?}");
    assert!(!received.has("key Bearer other"), "{received:?}");
}

#[test]
fn child_that_names_its_receiver() {
    if is_child() {
        send(|| Telemetry::builder().endpoint(receiver_of_child()).api_key("tl_test"));
    }
}

#[test]
fn the_environment_may_be_left_unread() {
    let (address, received) = receiver::start();
    let endpoint = format!("http://{address}");
    let mut variables = FOREIGN.to_vec();
    variables.push((RECEIVER, &endpoint));
    run_child("surroundings::child_that_leaves_the_environment_unread", &variables);
    insta::assert_snapshot!(received.lines().join("\n"), @r#"
    key Bearer tl_test
    log agent.decision
    metric agent_operations_total
    resource service.name=Some(StringValue("unknown_service"))
    trace inner
    trace outer
    "#);
}

#[test]
fn child_that_leaves_the_environment_unread() {
    if is_child() {
        let endpoint = receiver_of_child();
        send(|| Telemetry::builder().environment(false).endpoint(&endpoint).api_key("tl_test"));
    }
}

#[test]
fn the_tls_provider_of_the_process_stays_unset() {
    run_child("surroundings::child_that_has_no_tls_provider", &[]);
}

#[test]
fn child_that_has_no_tls_provider() {
    if !is_child() {
        return;
    }
    for protocol in [OtlpProtocol::Grpc, OtlpProtocol::HttpProtobuf] {
        for endpoint in ["http://127.0.0.1:9", "https://127.0.0.1:9"] {
            let builder = Telemetry::builder().protocol(protocol).endpoint(endpoint);
            let telemetry = builder.build().expect("telemetry");
            assert!(CryptoProvider::get_default().is_none(), "{protocol:?} {endpoint}");
            telemetry.shutdown().expect("nothing is lost");
        }
    }
}

#[test]
fn a_shutdown_amid_work_names_the_spans_that_have_not_ended() {
    let telemetry = Telemetry::builder().recorder(&Recorder::new()).build().expect("telemetry");
    let _in = telemetry.enter();
    let (one, two) = (span("one").start(), span("two").start());
    let lost = telemetry.shutdown().expect_err("two spans are open");
    assert_eq!(lost.counts.open_spans, 2);
    insta::assert_snapshot!(lost, @"expected everything to be ended and exported within 5 s, got 0 spans, 0 logs and 0 decisions that were not exported, and 2 spans that had not ended; end all work before the shutdown");
    drop((one, two));
}

#[test]
fn secrets_do_not_show() {
    let builder = Telemetry::builder()
        .endpoint("http://user:hunter2@127.0.0.1:9")
        .header("x-key", "hunter2")
        .api_key("hunter2");
    let shown = format!("{builder:?}");
    assert!(shown.contains("x-key") && shown.contains("127.0.0.1:9"), "{shown}");
    let telemetry = builder.build().expect("telemetry");
    let shown = format!("{shown} {telemetry:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
}
