//! The traps of OpenTelemetry's Rust bridge, each with a test named after it: what the span of the
//! SDK must not fall into (DESIGN.md, "The span of the SDK").

use std::time::SystemTime;

use opentelemetry::Context;
use opentelemetry::trace::FutureExt as _;
use throughline::{ErrorType, Recorder, Telemetry, TelemetryError, in_context, keys, span};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt};

use crate::export::{is_child, run_child};
use crate::receiver;

use crate::stage::{stage, with_layer};

/// The bridge ends a span when it was last left.
#[test]
fn trap_last_exit_is_not_the_end() {
    let stage = with_layer();
    let outer = span("outer").start();
    outer.in_scope(|| {});
    let left = SystemTime::now();
    outer.end();
    assert!(stage.recorder.spans()[0].end_time >= left);
}

/// The bridge exports a span when its last child is closed.
#[test]
fn trap_open_children_do_not_hold_a_span_back() {
    let stage = with_layer();
    let parent = span("parent").start();
    let (ours, host) = parent.in_scope(|| (span("ours").start(), tracing::info_span!("host")));
    parent.end();
    assert_eq!(stage.recorder.tree(&[]), "parent\n");
    drop(ours);
    drop(host);
    insta::assert_snapshot!(stage.recorder.tree(&[]), @r"
    parent
      ours
      host
    ");
    assert_eq!(stage.recorder.spans().len(), 3, "each only once");
    let counts = stage.telemetry.counts();
    assert_eq!((counts.spans.ended, counts.spans.exported, counts.open_spans), (3, 3, 0));
}

/// The bridge has no context for a span that a level filter keeps from it.
#[test]
fn trap_level_filter_breaks_no_trace() {
    let nest = || {
        let outer = span("outer").start();
        outer.in_scope(|| tracing::info_span!("host").in_scope(|| span("inner").start().end()));
    };
    for subscriber in [
        Box::new(tracing_subscriber::registry().with(LevelFilter::WARN).with(throughline::layer()))
            as Box<dyn tracing::Subscriber + Send + Sync>,
        Box::new(tracing_subscriber::registry().with(throughline::layer_at(LevelFilter::WARN))),
        Box::new(
            tracing_subscriber::registry().with(throughline::layer().with_filter(LevelFilter::OFF)),
        ),
    ] {
        let stage = stage(subscriber);
        nest();
        insta::allow_duplicates! {
            insta::assert_snapshot!(stage.recorder.tree(&[]), @r"
            outer
              inner
            ");
        }
    }
}

/// The bridge gives a span the status of any `error!` that is written in it.
#[test]
fn trap_error_event_fails_no_span() {
    let stage = with_layer();
    let work = span("work").start();
    work.in_scope(|| tracing::error!("the host complains"));
    work.end();
    insta::assert_snapshot!(stage.recorder.tree(&[]), @"work");
    assert_eq!(stage.recorder.spans()[0].events.len(), 0);
}

/// The bridge ignores names that come after the span was first entered.
#[test]
fn trap_names_after_first_enter_count() {
    let stage = with_layer();
    let work = span("early").start();
    work.in_scope(|| {});
    work.rename("late");
    work.end();
    assert_eq!(stage.recorder.tree(&[]), "late\n");
}

/// Two layers of the bridge in one subscriber panic, so telemetry adds none to a subscriber that is
/// there, and a second set-up none to its own.
#[test]
fn trap_two_layers_never_come_of_a_set_up() {
    run_child("traps::child_whose_host_has_a_layer", &[]);
    run_child("traps::child_that_sets_up_twice", &[]);
}

#[test]
fn child_whose_host_has_a_layer() {
    if !is_child() {
        return;
    }
    let subscriber = tracing_subscriber::registry().with(throughline::layer());
    tracing::subscriber::set_global_default(subscriber).expect("the host is first");
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).init().expect("telemetry");
    tracing::info_span!("host").in_scope(|| span("ours").start().end());
    insta::assert_snapshot!(recorder.tree(&[]), @r"
    host
      ours
    ");
    telemetry.shutdown().expect("nothing is lost");
}

#[test]
fn child_that_sets_up_twice() {
    if !is_child() {
        return;
    }
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).init().expect("telemetry");
    let second = Telemetry::builder().recorder(&Recorder::new()).init();
    assert!(matches!(second, Err(TelemetryError::AlreadySetUp)));
    tracing::info_span!("host").in_scope(|| span("ours").start().end());
    insta::assert_snapshot!(recorder.tree(&[]), @r"
    host
      ours
    ");
    telemetry.shutdown().expect("nothing is lost");
}

/// With the wrappers of the bridge, `with_context(cx).instrument(span)` nests and the reverse loses
/// the parent. Ours nest both ways, among themselves and around the bridge's.
#[tokio::test]
async fn trap_order_of_wrappers_does_not_matter() {
    let stage = with_layer();
    async fn leaf() {
        for name in ["leaf 1", "leaf 2"] {
            span(name).start().end();
            tokio::task::yield_now().await;
        }
    }
    let outer = span("outer").start();
    let (a, b) = outer.in_scope(|| (span("a").start(), span("b").start()));
    // The inner wrapper says whose children they are, whatever stands around it.
    in_context(b.context(), a.instrument(leaf())).await;
    a.instrument(in_context(b.context(), leaf())).await;
    drop((a, b));
    let (host, inner) = outer.in_scope(|| (tracing::info_span!("host"), span("c").start()));
    hosts(inner.instrument(leaf()), host.clone()).await;
    hosts(inner.instrument(leaf()).with_context(Context::current()), host).await;
    outer.instrument(async { hosts(leaf(), tracing::info_span!("host d")).await }).await;
    drop((inner, outer));
    insta::assert_snapshot!(stage.recorder.tree(&[]), @r"
    outer
      a
        leaf 1
        leaf 2
      b
        leaf 1
        leaf 2
      host
      c
        leaf 1
        leaf 2
        leaf 1
        leaf 2
      host d
        leaf 1
        leaf 2
    ");
}

/// A future as the host instruments it.
fn hosts<F>(future: F, span: tracing::Span) -> tracing::instrument::Instrumented<F> {
    tracing::Instrument::instrument(future, span)
}

/// `RUST_LOG=off` is about logs: traces go on.
#[test]
fn trap_rust_log_off_switches_no_trace_off() {
    let (address, received) = receiver::start();
    let endpoint = format!("http://{address}");
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("RUST_LOG", "off")];
    run_child("export::child_that_only_initialises", &variables);
    for trace in ["trace host", "trace outer", "trace inner", "log agent.decision"] {
        assert!(received.has(trace), "{received:?}");
    }
    assert!(!received.has("log WARN"), "{received:?}");
}

/// Of two errors, OpenTelemetry keeps the one whose message is greater in the alphabet.
#[test]
fn trap_the_greater_message_of_two_errors_does_not_win() {
    for make in [with_layer, || stage(tracing::subscriber::NoSubscriber::new())] {
        let stage = make();
        let failed = span("failed").start();
        failed.fail(ErrorType::Server, "z comes last in the alphabet");
        failed.fail(ErrorType::Auth, "a wrong key");
        failed.end();
        let tree = stage.recorder.tree(&[keys::ERROR_TYPE]);
        assert_eq!(tree, "failed error.type=AUTH ERROR(a wrong key)\n");
    }
}
