//! From a metric to the trace behind it: exemplars on what is exported.

use std::time::Duration;

use opentelemetry_proto::tonic::metrics::v1::{Exemplar, exemplar::Value, metric::Data};
use throughline::metrics::{ModelCall, Operation};
use throughline::{OtlpProtocol, Outcome, Telemetry, TelemetryBuilder, span};

use crate::export::{is_child, run_child};
use crate::receiver::{self, Received};

fn call(duration: Duration) {
    ModelCall {
        operation: "chat",
        provider: "openai",
        request_model: "gpt-4o",
        response_model: None,
        error_type: None,
        duration,
        time_to_first_chunk: None,
        usage: None,
    }
    .record();
}

fn operation() {
    Operation {
        operation: "chat",
        outcome: Outcome::Ok,
        status_code: Some(200),
        model_name: Some("gpt-4o"),
        is_cached: false,
    }
    .record();
}

/// All exemplars of the last export of a metric.
fn exemplars(received: &Received, name: &str) -> Vec<Exemplar> {
    let metrics = received.kept_metrics();
    match metrics.iter().rfind(|metric| metric.name == name).and_then(|it| it.data.clone()) {
        Some(Data::Sum(sum)) => {
            sum.data_points.into_iter().flat_map(|point| point.exemplars).collect()
        }
        Some(Data::Histogram(histogram)) => {
            histogram.data_points.into_iter().flat_map(|point| point.exemplars).collect()
        }
        other => panic!("expected a counter or a histogram {name}, got {other:?}"),
    }
}

/// Value and span of each.
fn told(exemplars: Vec<Exemplar>) -> Vec<(Value, Vec<u8>, Vec<u8>)> {
    exemplars
        .into_iter()
        .map(|exemplar| {
            assert!(exemplar.time_unix_nano > 0);
            (exemplar.value.expect("a value"), exemplar.trace_id, exemplar.span_id)
        })
        .collect()
}

fn builder() -> (TelemetryBuilder, Received) {
    let (address, received) = receiver::start();
    (Telemetry::builder().service_name("shop").endpoint(format!("http://{address}")), received)
}

#[test]
fn r1_3_a_measurement_leads_to_the_span_that_it_was_made_in() {
    for protocol in [OtlpProtocol::HttpProtobuf, OtlpProtocol::Grpc] {
        leads_to_its_span(protocol);
    }
}

fn leads_to_its_span(protocol: OtlpProtocol) {
    let (builder, received) = builder();
    let builder = builder.environment(false).protocol(protocol);
    let telemetry = builder.build().expect("telemetry");
    {
        let _in = telemetry.enter();
        // Within no span: nothing leads to it.
        operation();
        for (name, millis) in [("first", 30), ("second", 35), ("slow", 9_000)] {
            span(name).start().in_scope(|| {
                call(Duration::from_millis(millis));
                operation();
            });
        }
    }
    telemetry.shutdown().expect("nothing is lost");
    let spans = received.kept_spans();
    let at = |name: &str| {
        let span = spans.iter().find(|span| span.name == name).expect("the span");
        (span.trace_id.clone(), span.span_id.clone())
    };
    let ((trace, second), (slow_trace, slow)) = (at("second"), at("slow"));
    assert_eq!(
        told(exemplars(&received, "gen_ai.client.operation.duration")),
        [
            (Value::AsDouble(0.035), trace, second),
            (Value::AsDouble(9.0), slow_trace.clone(), slow.clone()),
        ],
        "the latest of each bucket"
    );
    assert_eq!(
        told(exemplars(&received, "agent_operations_total")),
        [(Value::AsInt(1), slow_trace, slow)],
        "the latest"
    );
}

#[test]
fn each_export_has_the_exemplars_since_the_last_one() {
    let (builder, received) = builder();
    let telemetry = builder.environment(false).build().expect("telemetry");
    let _in = telemetry.enter();
    span("one").start().in_scope(operation);
    telemetry.flush();
    assert_eq!(exemplars(&received, "agent_operations_total").len(), 1);
    telemetry.flush();
    assert_eq!(exemplars(&received, "agent_operations_total"), []);
}

#[test]
fn what_is_not_sampled_has_no_exemplar() {
    let (builder, received) = builder();
    let telemetry = builder.environment(false).sample_ratio(0.0).build().expect("telemetry");
    {
        let _in = telemetry.enter();
        span("one").start().in_scope(operation);
    }
    telemetry.shutdown().expect("nothing is lost");
    assert_eq!(exemplars(&received, "agent_operations_total"), []);
}

#[test]
fn the_standard_variable_switches_them_off() {
    let child = "exemplars::child_whose_environment_says_it";
    run_child(child, &[("OTEL_METRICS_EXEMPLAR_FILTER", "always_off")]);
    run_child(child, &[("OTEL_METRICS_EXEMPLAR_FILTER", "sometimes")]);
    run_child(child, &[("OTEL_METRICS_EXEMPLAR_FILTER", "trace_based")]);
}

#[test]
fn child_whose_environment_says_it() {
    if !is_child() {
        return;
    }
    let said = std::env::var("OTEL_METRICS_EXEMPLAR_FILTER").expect("the variable");
    let (builder, received) = builder();
    if said == "sometimes" {
        let error = builder.build().expect_err("it cannot say so").to_string();
        assert!(error.contains("always_on, always_off or trace_based, got"), "{error}");
        return;
    }
    let telemetry = builder.build().expect("telemetry");
    {
        let _in = telemetry.enter();
        span("one").start().in_scope(operation);
    }
    telemetry.shutdown().expect("nothing is lost");
    let count = usize::from(said == "trace_based");
    assert_eq!(exemplars(&received, "agent_operations_total").len(), count);
}
