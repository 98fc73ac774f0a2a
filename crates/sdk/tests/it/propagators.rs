//! What telemetry installs for the process: the propagators of `OTEL_PROPAGATORS` unless the host
//! has its own, once, whoever asks again; and baggage of the builder's choice. What needs a process
//! of its own runs this test binary again.

use std::collections::HashMap;

use axum::http::HeaderMap;
use opentelemetry::baggage::BaggageExt as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Context, KeyValue, global};
use throughline::propagation::{self, B3};
use throughline::{Recorder, Telemetry, TelemetryError, span};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;

use crate::export::{is_child, run_child};
use crate::lines::Lines;

/// Tells a child what it must find.
const EXPECTED: &str = "THROUGHLINE_TEST_EXPECTED";

#[test]
fn r2_2_init_installs_the_propagators_of_the_environment() {
    let child = "propagators::child_that_injects_globally";
    let w3c = "baggage traceparent";
    for (propagators, expected) in [
        ("", w3c),
        ("tracecontext,baggage", w3c),
        ("b3", "b3"),
        ("b3multi", "x-b3-sampled x-b3-spanid x-b3-traceid"),
        ("tracecontext,b3", "b3 traceparent"),
        // What nobody knows is left out, and told.
        ("xray,baggage", "baggage"),
        ("none", ""),
    ] {
        run_child(child, &[("OTEL_PROPAGATORS", propagators), (EXPECTED, expected)]);
        // Whoever records nothing still passes on what came.
        let disabled = [("OTEL_SDK_DISABLED", "true"), ("THROUGHLINE_TEST_REMOTE", "1")];
        let mut variables = vec![("OTEL_PROPAGATORS", propagators), (EXPECTED, expected)];
        variables.extend(disabled);
        run_child(child, &variables);
    }
}

#[test]
fn child_that_injects_globally() {
    if !is_child() {
        return;
    }
    let telemetry = Telemetry::builder().recorder(&Recorder::new()).init().expect("telemetry");
    let span = span("work").start();
    let cx = match std::env::var_os("THROUGHLINE_TEST_REMOTE") {
        None => span.context(),
        Some(_) => {
            let mut headers = HeaderMap::new();
            let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
            headers.insert("traceparent", parent.parse().expect("ascii"));
            propagation::extract(&headers)
        }
    };
    let cx = cx.with_baggage([KeyValue::new("user", "anyone")]);
    let mut out: HashMap<String, String> = HashMap::new();
    global::get_text_map_propagator(|propagator| propagator.inject_context(&cx, &mut out));
    let mut names: Vec<&str> = out.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names.join(" "), std::env::var(EXPECTED).expect("what to find"));
    span.end();
    telemetry.shutdown().expect("nothing is lost");
}

#[test]
fn the_propagator_of_the_host_stays() {
    run_child("propagators::child_whose_host_has_a_propagator", &[("OTEL_PROPAGATORS", "baggage")]);
}

#[test]
fn child_whose_host_has_a_propagator() {
    if !is_child() {
        return;
    }
    global::set_text_map_propagator(B3::single());
    let telemetry = Telemetry::builder().recorder(&Recorder::new()).init().expect("telemetry");
    let fields = global::get_text_map_propagator(|propagator| {
        propagator.fields().map(str::to_owned).collect::<Vec<_>>()
    });
    assert_eq!(fields, ["b3"]);
    telemetry.shutdown().expect("nothing is lost");
}

#[test]
fn whoever_initialises_at_the_same_time_gets_one_telemetry_and_no_panic() {
    run_child("propagators::child_that_initialises_from_many_threads", &[]);
}

#[test]
fn child_that_initialises_from_many_threads() {
    if !is_child() {
        return;
    }
    let recorder = Recorder::new();
    let start = std::sync::Barrier::new(8);
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    Telemetry::builder().recorder(&recorder).init()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let (first, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(first.len(), 1, "one of them");
    for error in refused {
        assert!(matches!(error, Err(TelemetryError::AlreadySetUp)), "{error:?}");
    }
    tracing::info_span!("host").in_scope(|| span("ours").start().end());
    drop(first);
    assert_eq!(recorder.tree(&[]), "host\n  ours\n");
}

#[test]
fn two_of_our_layers_in_one_subscriber_are_one() {
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).build().expect("telemetry");
    let registry = tracing_subscriber::registry();
    let subscriber = registry.with(throughline::layer()).with(throughline::layer());
    let _subscriber = tracing::subscriber::set_default(subscriber);
    let _in = telemetry.enter();
    let outer = span("ours").start();
    outer.in_scope(|| {
        tracing::info_span!("tracing", answer = 17).in_scope(|| span("inner").start().end());
    });
    outer.end();
    assert_eq!(recorder.tree(&["answer"]), "ours\n  tracing answer=17\n    inner\n");
}

#[test]
fn a_layer_that_is_there_already_gets_no_second_one_by_init() {
    run_child("propagators::child_that_has_the_layer_before_init", &[]);
}

#[test]
fn child_that_has_the_layer_before_init() {
    if !is_child() {
        return;
    }
    let subscriber = tracing_subscriber::registry().with(throughline::layer());
    tracing::subscriber::set_global_default(subscriber).expect("the first");
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).init().expect("telemetry");
    tracing::info_span!("host").in_scope(|| span("ours").start().end());
    telemetry.shutdown().expect("nothing is lost");
    assert_eq!(recorder.tree(&[]), "host\n  ours\n");
}

/// A subscriber whose spans join no trace, as those of a host whose layer is made for another
/// version of OpenTelemetry: what it says is kept.
#[test]
fn a_host_whose_spans_join_no_trace_is_told() {
    run_child("propagators::child_whose_layers_share_no_contexts", &[]);
}

/// Keeps what the SDK says.
#[derive(Clone, Default)]
struct Said(Lines);

impl Said {
    /// A layer that keeps what the SDK says, and nothing of other libraries.
    fn layer<S>(&self) -> impl Layer<S>
    where
        S: tracing::Subscriber + for<'span> LookupSpan<'span>,
    {
        let writer = self.0.clone();
        tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).with_filter(filter_fn(
            |metadata| metadata.is_event() && metadata.target() == "throughline",
        ))
    }

    fn text(&self) -> String {
        self.0.text()
    }
}

#[test]
fn child_whose_layers_share_no_contexts() {
    if !is_child() {
        return;
    }
    let said = Said::default();
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(said.layer()))
        .expect("the first");
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).init().expect("telemetry");
    let text = said.text();
    assert!(text.contains("expected the subscriber to have an OpenTelemetry layer"), "{text}");
    assert!(text.contains("add throughline::layer() to it"), "it says what to do: {text}");
    // Our own spans are none the worse for it.
    tracing::info_span!("host").in_scope(|| span("ours").start().end());
    telemetry.shutdown().expect("nothing is lost");
    assert_eq!(recorder.tree(&[]), "ours\n", "the probe leaves no span");
}

#[test]
fn a_host_whose_layer_is_of_our_version_is_told_nothing() {
    run_child("propagators::child_whose_layer_shares_contexts", &[]);
}

#[test]
fn child_whose_layer_shares_contexts() {
    if !is_child() {
        return;
    }
    let hosts = Recorder::new();
    let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder()
        .with_simple_exporter(hosts.clone())
        .build();
    let said = Said::default();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("host"));
    let subscriber = tracing_subscriber::registry().with(said.layer()).with(layer);
    tracing::subscriber::set_global_default(subscriber).expect("the first");
    let telemetry = Telemetry::builder().recorder(&Recorder::new()).init().expect("telemetry");
    assert_eq!(said.text(), "");
    telemetry.shutdown().expect("nothing is lost");
    assert_eq!(hosts.tree(&[]), "", "the probe leaves no span");
}

#[test]
fn r2_2_baggage_that_the_builder_names_crosses_both_ways_and_no_other() {
    let named = Telemetry::builder().recorder(&Recorder::new()).propagate_baggage("tenant");
    let named = named.build().expect("telemetry");
    let other = Telemetry::builder().recorder(&Recorder::new()).build().expect("telemetry");
    let sent = |telemetry: &Telemetry| {
        let _in = telemetry.enter();
        let baggage = [KeyValue::new("tenant", "acme"), KeyValue::new("secret", "x")];
        let cx = Context::current().with_baggage(baggage);
        let mut headers = HeaderMap::new();
        propagation::inject_context(&cx, &mut headers);
        headers.get("baggage").map(|value| value.to_str().expect("ascii").to_owned())
    };
    assert_eq!(sent(&named).as_deref(), Some("tenant=acme"));
    assert_eq!(sent(&other), None);
    let came = |telemetry: &Telemetry| {
        let _in = telemetry.enter();
        let mut headers = HeaderMap::new();
        headers.insert("baggage", "tenant=acme,secret=x".parse().expect("ascii"));
        let cx = propagation::extract(&headers);
        let entries = cx.baggage().iter();
        entries.map(|(key, (value, _))| format!("{key}={value}")).collect::<Vec<_>>().join(",")
    };
    assert_eq!(came(&named), "tenant=acme");
    assert_eq!(came(&other), "");
}
