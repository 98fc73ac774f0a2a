//! Which traces are recorded (requirement R2.1): a share of the new ones, and of those that come from
//! elsewhere the ones that were recorded there.

use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use throughline::{Recorder, Telemetry, in_context, span};

use crate::export::{is_child, run_child};
use crate::receiver;

/// The current context, called by another process whose trace is recorded there or not.
fn from_elsewhere(flags: TraceFlags) -> Context {
    let parent = SpanContext::new(
        TraceId::from(0x4bf9_2f35_77b3_4da6),
        SpanId::from(0xf067),
        flags,
        true,
        TraceState::NONE,
    );
    Context::current().with_remote_span_context(parent)
}

/// A span with a child, under this parent.
fn two_spans(parent: Context, name: &'static str) {
    let outer = span(name).parent(parent).start();
    outer.in_scope(|| span("inner").start().end());
}

fn with_share(ratio: f64) -> (Recorder, Telemetry) {
    let recorder = Recorder::new();
    let builder = Telemetry::builder().environment(false).sample_ratio(ratio).recorder(&recorder);
    (recorder, builder.build().expect("telemetry"))
}

#[test]
fn r2_1_what_comes_from_elsewhere_is_recorded_as_it_is_there() {
    for ratio in [0.0, 1.0] {
        let (recorder, telemetry) = with_share(ratio);
        let _in = telemetry.enter();
        two_spans(from_elsewhere(TraceFlags::SAMPLED), "recorded there");
        two_spans(from_elsewhere(TraceFlags::NOT_SAMPLED), "not recorded there");
        two_spans(Context::current(), "new");
        let new = if ratio > 0.0 { "new\n  inner\n" } else { "" };
        let kept = recorder.tree(&[]);
        assert!(kept.contains("recorded there\n  inner\n"), "{ratio}: {kept}");
        assert_eq!(
            kept.matches("inner").count(),
            1 + new.matches("inner").count(),
            "{ratio}: {kept}"
        );
        assert!(kept.contains(new) && !kept.contains("not recorded"), "{ratio}: {kept}");
    }
}

#[test]
fn r2_1_a_share_of_new_traces_is_recorded_and_each_as_a_whole() {
    /// Enough that the share is within a fifth of a quarter but once in a million years.
    const TRACES: usize = 8_000;
    let (recorder, telemetry) = with_share(0.25);
    let _in = telemetry.enter();
    for _ in 0..TRACES {
        two_spans(Context::current(), "outer");
    }
    let spans = recorder.spans();
    let outer = spans.iter().filter(|span| span.name == "outer").count();
    assert_eq!(spans.len(), 2 * outer, "no trace is in part");
    assert!((TRACES / 5..TRACES * 3 / 10).contains(&outer), "{outer} of {TRACES}");
}

#[test]
fn r2_1_the_sampler_of_production_may_be_named_by_the_standard_variables() {
    let (address, received) = receiver::start();
    let endpoint = format!("http://{address}");
    run_child(
        "sampling::child_with_a_sampler_of_the_environment",
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0"),
        ],
    );
    let traces: Vec<_> =
        received.lines().into_iter().filter(|line| line.starts_with("trace ")).collect();
    assert_eq!(traces, ["trace inner", "trace recorded there"]);
}

#[tokio::test]
async fn child_with_a_sampler_of_the_environment() {
    if !is_child() {
        return;
    }
    let telemetry = Telemetry::builder().init().expect("telemetry");
    two_spans(Context::current(), "new");
    in_context(from_elsewhere(TraceFlags::SAMPLED), async {
        two_spans(Context::current(), "recorded there");
    })
    .await;
    telemetry.close().await.expect("nothing is lost");
}
