//! What leaves the process: over a real connection, from any runtime, counted, in bounded time, as
//! builder and environment say. What needs a process of its own runs this test binary again.

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry::trace::TracerProvider as _;
use throughline::metrics::Operation;
use throughline::{OtlpProtocol, Outcome, Recorder, Telemetry, TelemetryError, decision, span};
use tracing_subscriber::layer::SubscriberExt as _;

use crate::receiver;

/// Set in the process that a test starts.
const CHILD: &str = "THROUGHLINE_TEST_CHILD";

/// Runs a test of this binary in a process of its own with these variables; answers what it wrote.
pub(crate) fn run_child(test: &str, variables: &[(&str, &str)]) -> String {
    let output = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .envs(variables.iter().copied())
        .output()
        .expect("a child");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    text.into_owned()
}

pub(crate) fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

pub(crate) fn work() {
    let outer = span("outer").start();
    outer.in_scope(|| {
        span("inner").start().end();
        decision("plan").action("go").record();
        Operation {
            operation: "chat",
            outcome: Outcome::Ok,
            status_code: Some(200),
            model_name: None,
            is_cached: false,
        }
        .record();
    });
}

#[test]
fn r2_1_everything_arrives_over_grpc_and_http_from_a_blocked_single_thread_runtime() {
    for protocol in [OtlpProtocol::Grpc, OtlpProtocol::HttpProtobuf] {
        let (address, received) = receiver::start();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let telemetry = Telemetry::builder()
                .service_name("shop")
                .endpoint(format!("http://{address}"))
                .protocol(protocol)
                .api_key("tl_test")
                .build()
                .expect("telemetry");
            telemetry.scope(async { work() }).await;
            // Blocks the only thread of the runtime that the telemetry was made in.
            telemetry.shutdown().expect("nothing is lost");
            let counts = telemetry.counts();
            assert_eq!((counts.spans.exported, counts.decisions.exported), (2, 1));
            assert_eq!((counts.spans.pending(), counts.open_spans), (0, 0));
        });
        insta::allow_duplicates! {
            insta::assert_snapshot!(received.lines().join("\n"), @r#"
    key Bearer tl_test
    log agent.decision
    metric agent_operations_total
    resource service.name=Some(StringValue("shop"))
    trace inner
    trace outer
    "#);
        }
    }
}

#[test]
fn r2_1_shutdown_is_bounded_when_nobody_listens() {
    // Connections are refused, the exporter retries.
    let endpoint = format!("http://{}", receiver::nobody());
    for protocol in [OtlpProtocol::Grpc, OtlpProtocol::HttpProtobuf] {
        let telemetry = Telemetry::builder()
            .endpoint(&endpoint)
            .protocol(protocol)
            .timeout(Duration::from_secs(60))
            .build()
            .expect("telemetry");
        {
            let _in = telemetry.enter();
            work();
        }
        let started = Instant::now();
        let lost = telemetry.shutdown().expect_err("nothing can have arrived");
        assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
        assert_eq!((lost.counts.spans.ended, lost.counts.spans.exported), (2, 0));
        assert_eq!((lost.counts.decisions.ended, lost.counts.decisions.exported), (1, 0));
        assert!(telemetry.shutdown().is_ok(), "a second shutdown does nothing");
    }
}

#[test]
fn r2_1_a_full_queue_drops_and_counts_and_never_waits() {
    // The first batch hangs, the rest queues up.
    let telemetry = Telemetry::builder()
        .endpoint(format!("http://{}", receiver::mute()))
        .build()
        .expect("telemetry");
    let _in = telemetry.enter();
    let spans = 6_000;
    let started = Instant::now();
    for _ in 0..spans {
        span("many").start().end();
    }
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    let counts = telemetry.counts().spans;
    assert_eq!(counts.ended, spans);
    assert_eq!(counts.exported, 0);
    assert!(counts.dropped > 0 && counts.pending() > 0, "{counts:?}");
    assert_eq!(counts.ended, counts.failed + counts.dropped + counts.pending());
    let lost = telemetry.shutdown().expect_err("the receiver hangs");
    assert!(lost.to_string().contains("6000 spans"), "{lost}");
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

#[test]
fn r2_1_the_standard_variables_are_honoured() {
    let (address, received) = receiver::start();
    let endpoint = format!("http://{address}");
    run_child(
        "export::child_that_only_initialises",
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20from-env"),
            ("OTEL_SERVICE_NAME", "from-env"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.name=not-this"),
        ],
    );
    insta::assert_snapshot!(received.lines().join("\n"), @r#"
    key Bearer from-env
    log WARN
    log agent.decision
    metric agent_operations_total
    resource deployment.environment.name=Some(StringValue("test"))
    resource service.name=Some(StringValue("from-env"))
    trace host
    trace inner
    trace outer
    "#);
}

#[test]
fn a_sampler_of_the_environment_and_a_disabled_sdk_send_nothing() {
    let (address, received) = receiver::start();
    let endpoint = format!("http://{address}");
    let child = "export::child_that_only_initialises";
    run_child(
        child,
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint), ("OTEL_TRACES_SAMPLER", "always_off")],
    );
    assert!(received.has("log agent.decision"), "decisions are not sampled");
    assert!(!received.lines().iter().any(|line| line.starts_with("trace")), "{received:?}");

    let (address, received) = receiver::start();
    let endpoint = format!("http://{address}");
    run_child(child, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint), ("OTEL_SDK_DISABLED", "true")]);
    assert_eq!(received.lines(), Vec::<String>::new());
}

#[test]
fn child_that_only_initialises() {
    if !is_child() {
        return;
    }
    let telemetry = Telemetry::builder().init().expect("telemetry");
    tracing::info_span!("host").in_scope(|| {
        work();
        tracing::warn!("a word");
    });
    telemetry.shutdown().expect("nothing is lost");
}

#[test]
fn a_second_set_up_is_refused_and_harms_nothing() {
    run_child("export::child_that_initialises_twice", &[]);
}

#[test]
fn child_that_initialises_twice() {
    if !is_child() {
        return;
    }
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).init().expect("telemetry");
    let again = Telemetry::builder().init();
    assert!(matches!(again, Err(TelemetryError::AlreadySetUp)), "{again:?}");
    tracing::info_span!("host").in_scope(work);
    // Foreign libraries use the global provider; their spans join.
    let foreign = opentelemetry::global::tracer("foreign");
    drop(opentelemetry::trace::Tracer::start(&foreign, "foreign"));
    telemetry.shutdown().expect("nothing is lost");
    assert_eq!(recorder.tree(&[]), "host\n  outer\n    inner\nforeign\n");
    assert_eq!(recorder.logs().len(), 1);
}

#[test]
fn what_the_host_has_set_up_is_composed_with() {
    run_child("export::child_whose_host_has_its_own", &[]);
}

#[test]
fn child_whose_host_has_its_own() {
    if !is_child() {
        return;
    }
    let hosts = Recorder::new();
    let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder()
        .with_simple_exporter(hosts.clone())
        .build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("host"));
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::set_global_default(subscriber).expect("the first");
    opentelemetry::global::set_tracer_provider(provider);

    let ours = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&ours).init().expect("telemetry");
    tracing::info_span!("host").in_scope(work);
    telemetry.shutdown().expect("nothing is lost");
    assert_eq!(hosts.tree(&[]), "host\n  outer\n    inner\n", "one tree, in the host's provider");
    assert_eq!(ours.tree(&[]), "");
    assert_eq!(ours.logs().len(), 1, "decisions go our way");
}

/// Answers `POST /v1/traces` and `/v1/logs` with how many items it did not take, and tells the sizes of
/// the bodies that came.
fn rejecting(rejected_spans: i64) -> (std::net::SocketAddr, Arc<Mutex<Vec<usize>>>) {
    use axum::extract::DefaultBodyLimit;
    use opentelemetry_proto::tonic::collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceResponse,
    };
    use prost::Message as _;
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&sizes);
    let answer = move |body: axum::body::Bytes| {
        kept.lock().expect("sizes").push(body.len());
        // The answers for spans and for logs are the same bytes.
        let error_message = "no room for these".to_owned();
        let partial = ExportTracePartialSuccess { rejected_spans, error_message };
        let answer = ExportTraceServiceResponse { partial_success: Some(partial) };
        async move { answer.encode_to_vec() }
    };
    let address = receiver::serve(move || {
        let app = axum::Router::new().route("/v1/{signal}", axum::routing::post(answer));
        app.layer(DefaultBodyLimit::disable())
    });
    (address, sizes)
}

#[tokio::test]
async fn r2_1_what_a_receiver_rejects_of_a_request_that_it_takes_counts_as_failed() {
    let (over_grpc, received) = receiver::start();
    received.reject(1);
    for (protocol, address) in
        [(OtlpProtocol::HttpProtobuf, rejecting(1).0), (OtlpProtocol::Grpc, over_grpc)]
    {
        let telemetry = Telemetry::builder()
            .environment(false)
            .endpoint(format!("http://{address}"))
            .protocol(protocol)
            .build()
            .expect("telemetry");
        telemetry
            .scope(async {
                work();
                let refused = decision("act").action("pay").record_required().await;
                let refused = refused.expect_err("it may be the one that was rejected").to_string();
                assert!(refused.contains("the receiver rejected 1"), "{refused}");
            })
            .await;
        let lost = telemetry.shutdown().expect_err("some were rejected").to_string();
        assert!(lost.contains("1 span"), "{lost}");
        let counts = telemetry.counts();
        assert_eq!((counts.spans.exported, counts.spans.failed), (1, 1), "{counts:?}");
        assert!(counts.decisions.failed >= 1, "{counts:?}");
    }
}

/// R2.1, R4.4: what the receiver said is told in its own words, whatever carried it.
#[tokio::test]
async fn r4_4_who_waits_for_a_decision_hears_the_code_that_the_receiver_answered() {
    let nothing_there = receiver::serve(|| {
        axum::Router::new().fallback(|| async {
            let unauthenticated = tonic::Status::unauthenticated("no such key");
            unauthenticated.into_http::<axum::body::Body>()
        })
    });
    let telemetry = Telemetry::builder()
        .environment(false)
        .endpoint(format!("http://{nothing_there}"))
        .protocol(OtlpProtocol::Grpc)
        .build()
        .expect("telemetry");
    let refused = telemetry.scope(decision("act").action("pay").record_required()).await;
    let refused = refused.expect_err("it was refused").to_string();
    assert!(refused.contains("the receiver answered Unauthenticated: no such key"), "{refused}");
}

/// R2.1: what is wrong with an address is said when telemetry is set up.
#[test]
fn r2_1_an_address_that_is_none_is_told_at_once() {
    for protocol in [OtlpProtocol::Grpc, OtlpProtocol::HttpProtobuf] {
        let builder =
            Telemetry::builder().environment(false).endpoint("http://").protocol(protocol);
        let error = builder.build().expect_err("that is no address");
        assert!(matches!(error, TelemetryError::Exporter(_)), "{error}");
    }
}

#[tokio::test]
async fn r2_1_a_batch_of_large_spans_leaves_in_requests_that_receivers_take() {
    /// What gRPC receivers take of one message, bytes, when nobody says otherwise.
    const TAKEN_BYTES: usize = 4 * 1024 * 1024;
    let (address, sizes) = rejecting(0);
    let telemetry = Telemetry::builder()
        .environment(false)
        .endpoint(format!("http://{address}"))
        .build()
        .expect("telemetry");
    let text = "x".repeat(200_000);
    telemetry
        .scope(async {
            for _ in 0..100 {
                span("large").attribute("content", text.clone()).start().end();
            }
        })
        .await;
    telemetry.shutdown().expect("all arrives");
    assert_eq!(telemetry.counts().spans.exported, 100);
    let sizes = sizes.lock().expect("sizes").clone();
    assert!(sizes.iter().all(|size| *size <= TAKEN_BYTES), "{sizes:?}");
    assert!(sizes.iter().sum::<usize>() >= 100 * text.len(), "{sizes:?}");
}
