//! How spans nest, end and fail: with and without a layer, filtered, dropped, unwound.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry::trace::{
    Link, Span as _, SpanContext, TraceContextExt as _, TraceId, TraceState, Tracer as _,
    TracerProvider as _,
};
use opentelemetry::{Context, KeyValue, global};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, SdkTracerProvider, ShouldSample};
use throughline::{
    Dimensions, ErrorType, Outcome, Recorder, SdkTracer, SpanKind, SpanRole, Telemetry, in_context,
    keys, span,
};
use tracing::subscriber::NoSubscriber;
use tracing_subscriber::layer::SubscriberExt;

use crate::stage::{Stage, stage, with_layer};

fn without_layer() -> Stage {
    stage(NoSubscriber::new())
}

fn mixed_nesting() {
    let outer = span("ours.outer").start();
    outer.in_scope(|| {
        let host = tracing::info_span!("host");
        host.in_scope(|| {
            let inner = span("ours.inner").start();
            inner.in_scope(|| {
                let api = SdkTracer.start("api");
                let _attached = Context::current_with_span(api).attach();
                span("ours.leaf").start().end();
            });
        });
    });
}

#[test]
fn ours_host_and_api_spans_nest_with_a_layer() {
    let stage = with_layer();
    mixed_nesting();
    insta::assert_snapshot!(stage.tree(), @r"
    ours.outer
      host
        ours.inner
          api
            ours.leaf
    ");
}

#[test]
fn without_a_layer_the_host_spans_are_missing_and_nothing_else() {
    let stage = without_layer();
    mixed_nesting();
    insta::assert_snapshot!(stage.tree(), @r"
    ours.outer
      ours.inner
        api
          ours.leaf
    ");
}

#[test]
fn a_host_span_in_an_api_span_holds_ours() {
    let stage = with_layer();
    let api = Context::current_with_span(SdkTracer.start("api"));
    let attached = api.attach();
    tracing::info_span!("host").in_scope(|| span("ours").start().end());
    drop(attached);
    insta::assert_snapshot!(stage.tree(), @r"
    api
      host
        ours
    ");
}

#[test]
fn a_layer_that_the_host_made_itself_serves_too() {
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).build().expect("telemetry");
    let _context = telemetry.enter();
    let hosts = tracing_opentelemetry::layer().with_tracer(SdkTracer);
    let _default = tracing::subscriber::set_default(tracing_subscriber::registry().with(hosts));
    mixed_nesting();
    insta::assert_snapshot!(recorder.tree(&[]), @r"
    ours.outer
      host
        ours.inner
          api
            ours.leaf
    ");
}

#[test]
fn a_layer_without_a_tracer_does_not_swallow_ours() {
    let stage = stage(tracing_subscriber::registry().with(tracing_opentelemetry::layer()));
    let outer = span("outer").start();
    outer.in_scope(|| span("inner").start().end());
    outer.end();
    insta::assert_snapshot!(stage.tree(), @r"
    outer
      inner
    ");
}

#[test]
fn an_explicit_parent_counts_more_than_the_current_span() {
    let stage = with_layer();
    let first = span("first").start();
    let second = span("second").start();
    second.in_scope(|| span("child").parent(first.context()).start().end());
    first.end();
    second.end();
    insta::assert_snapshot!(stage.tree(), @r"
    first
      child
    second
    ");
}

#[test]
fn a_restarted_trace_is_recorded() {
    // As after a malformed `traceparent`: the context holds an invalid span.
    for make in [with_layer, without_layer] {
        let stage = make();
        let outer = span("outer").start();
        let restarted = outer.context().with_remote_span_context(SpanContext::NONE);
        span("anew").parent(restarted).start().end();
        outer.end();
        insta::allow_duplicates! {
            insta::assert_snapshot!(stage.tree(), @r"
            outer
            anew
            ");
        }
    }
}

#[test]
fn every_key_is_written_once_with_its_last_value() {
    let stage = with_layer();
    let call = span("first name")
        .kind(SpanKind::Client)
        .role(SpanRole::LlmCall)
        .attribute(keys::GEN_AI_REQUEST_MODEL, "gpt-4o")
        .attribute("retry_count", 0)
        .start();
    call.set("retry_count", 1);
    call.set("retry_count", 2);
    call.rename("chat gpt-4o");
    call.event("retried", [KeyValue::new("after_ms", 20)]);
    call.end();
    let spans = stage.recorder.spans();
    let mut attributes: Vec<String> =
        spans[0].attributes.iter().map(|entry| format!("{}={}", entry.key, entry.value)).collect();
    attributes.sort();
    insta::assert_snapshot!(attributes.join("\n"), @r"
    gen_ai.request.model=gpt-4o
    retry_count=2
    throughline.role=llm_call
    ");
    assert_eq!(spans[0].name, "chat gpt-4o");
    assert_eq!(spans[0].span_kind, SpanKind::Client);
    assert_eq!(spans[0].events[0].name, "retried");
}

#[test]
fn the_last_failure_counts_and_may_be_taken_back() {
    let stage = without_layer();
    let failed = span("failed").start();
    failed.fail(ErrorType::Server, "z comes last in the alphabet");
    failed.fail(ErrorType::Auth, "a wrong key");
    failed.end();
    let late = span("late").start();
    late.fail(ErrorType::Timeout, "no answer from gpt-4o within 2000 ms");
    late.outcome(Outcome::ModelTimeout);
    late.end();
    let fine = span("fine").start();
    fine.fail(ErrorType::Server, "HTTP 500");
    fine.recover();
    fine.end();
    let tree = stage.recorder.tree(&["error.type", "error.message", "outcome"]);
    insta::assert_snapshot!(tree, @r"
    failed error.type=AUTH error.message=a wrong key ERROR(a wrong key)
    late error.type=TIMEOUT error.message=no answer from gpt-4o within 2000 ms outcome=model_timeout ERROR(TIMEOUT)
    fine
    ");
}

#[test]
fn r1_2_dimensions_are_on_every_span_once() {
    let stage = with_layer();
    let _outer = Dimensions::new().agent("shop").session("s-1").enter();
    mixed_nesting();
    let other = Dimensions::new().agent("critic").workflow("w-9").enter();
    span("ours").start().end();
    drop(other);
    let tree = stage.recorder.tree(&["agent_id", "session_id", "workflow_id"]);
    insta::assert_snapshot!(tree, @r"
    ours.outer agent_id=shop session_id=s-1
      host agent_id=shop session_id=s-1
        ours.inner agent_id=shop session_id=s-1
          api agent_id=shop session_id=s-1
            ours.leaf agent_id=shop session_id=s-1
    ours agent_id=critic session_id=s-1 workflow_id=w-9
    ");
    for span in stage.recorder.spans() {
        let agents = span.attributes.iter().filter(|entry| entry.key.as_str() == "agent_id");
        assert_eq!(agents.count(), 1, "{}", span.name);
    }
}

#[test]
fn r1_2_dimensions_reach_spans_of_the_api_that_pass_by_our_tracer() {
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).build().expect("telemetry");
    let _context = telemetry.enter();
    let _as = Dimensions::new().agent("shop").enter();
    // A foreign library uses whatever provider is global; here it is ours, through a plain tracer.
    let tracer = global::tracer_provider().tracer("foreign");
    drop(tracer.start("lost, nobody has set a global provider"));
    let mut ours = SdkTracer.start("kept");
    ours.end();
    insta::assert_snapshot!(recorder.tree(&["agent_id"]), @"kept agent_id=shop");
}

#[tokio::test]
async fn futures_keep_their_span_across_awaits() {
    let stage = with_layer();
    let outer = span("outer").start();
    let left = outer.instrument(async {
        tokio::task::yield_now().await;
        let inner = span("left").start();
        inner
            .instrument(async {
                tokio::task::yield_now().await;
                span("leaf").start().end();
            })
            .await;
    });
    let right = span("other root").start().run(async {
        tokio::task::yield_now().await;
        span("right").start().end();
    });
    tokio::join!(left, right);
    assert!(!Context::current().has_active_span(), "context leaked out of a future");
    outer.end();
    insta::assert_snapshot!(stage.tree(), @r"
    outer
      left
        leaf
    other root
      right
    ");
}

#[tokio::test]
async fn a_dropped_future_leaves_an_ended_cancelled_span() {
    let stage = with_layer();
    let work = span("work").start().run(async {
        let _inner = span("inner").start();
        tokio::task::yield_now().await;
        pending::<()>().await;
    });
    let waited = tokio::time::timeout(Duration::from_millis(1), work).await;
    assert!(waited.is_err());
    insta::assert_snapshot!(stage.recorder.tree(&["outcome"]), @r"
    work outcome=cancelled
      inner
    ");
}

#[tokio::test]
async fn what_a_future_does_while_it_is_dropped_belongs_to_its_span() {
    struct Cleanup;
    impl Drop for Cleanup {
        fn drop(&mut self) {
            span("cleanup").start().end();
        }
    }
    for make in [with_layer, without_layer] {
        let stage = make();
        let outer = span("outer").start();
        let mut work = Box::pin(outer.instrument(async {
            let _cleanup = Cleanup;
            pending::<()>().await;
        }));
        assert!(futures_util::poll!(work.as_mut()).is_pending());
        drop(work);
        let stream = outer.in_stream(futures_util::stream::unfold(Cleanup, async |held| {
            pending::<()>().await;
            Some(((), held))
        }));
        drop(stream);
        outer.end();
        insta::allow_duplicates! {
            insta::assert_snapshot!(stage.tree(), @r"
            outer
              cleanup
              cleanup
            ");
        }
    }
}

#[tokio::test]
async fn a_panic_in_a_task_ends_its_spans_as_failed() {
    let stage = without_layer();
    let outer = span("outer").start();
    let task = in_context(outer.context(), async {
        let step = span("step").start();
        step.instrument(async {
            let _tool = span("tool").start();
            tokio::task::yield_now().await;
            panic!("a bug in the tool");
        })
        .await
    });
    let joined = tokio::spawn(task).await;
    assert!(joined.is_err_and(|error| error.is_panic()));
    outer.end();
    insta::assert_snapshot!(stage.recorder.tree(&["error.type", "outcome"]), @r"
    outer
      step error.type=PANIC outcome=error ERROR(a panic ended the operation)
        tool error.type=PANIC outcome=error ERROR(a panic ended the operation)
    ");
}

#[test]
fn a_span_made_while_unwinding_is_not_to_blame() {
    struct Cleanup;
    impl Drop for Cleanup {
        fn drop(&mut self) {
            span("cleanup").start().end();
        }
    }
    let stage = without_layer();
    let unwound = std::panic::catch_unwind(|| {
        let _cleanup = Cleanup;
        panic!("elsewhere");
    });
    assert!(unwound.is_err());
    insta::assert_snapshot!(stage.tree(), @"cleanup");
}

#[test]
fn without_telemetry_nothing_happens() {
    let work = span("nobody listens").start();
    assert!(!work.is_recording());
    assert_eq!(work.trace_id(), None);
    work.set("a", 1);
    work.fail(ErrorType::Other, "x");
    work.in_scope(|| span("child").start().end());
}

#[test]
fn links_and_ids_are_those_of_the_other_span() {
    let stage = with_layer();
    let call = span("chat gpt-4o").start();
    let called = call.span_context();
    let tool = span("execute_tool stock_v1").link(&called, vec![]).start();
    assert_eq!(
        tool.trace_id().map(|id| id.to_string()),
        Some(tool.span_context().trace_id().to_string())
    );
    assert_ne!(tool.trace_id(), call.trace_id());
    call.end();
    tool.end();
    let tool = &stage.recorder.spans()[1];
    assert_eq!(tool.links.len(), 1);
    assert_eq!(tool.links[0].span_context.span_id(), called.span_id());
}

#[tokio::test]
async fn work_that_is_given_up_cancels_its_span_unless_another_was_faster() {
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).build().expect("telemetry");
    let brief = Duration::from_millis(1);
    let work = async {
        let given_up = span("given up").start();
        let _ = tokio::time::timeout(brief, given_up.instrument(pending::<()>())).await;
        given_up.end();
        let failed = span("failed").start();
        let _ = tokio::time::timeout(brief, failed.instrument(pending::<()>())).await;
        failed.fail(ErrorType::Timeout, "no answer");
        failed.end();
        let told = span("told").start();
        let _ = tokio::time::timeout(brief, told.instrument(pending::<()>())).await;
        told.outcome(Outcome::FallbackDegraded);
        told.end();
        let replaced = span("replaced").start();
        let _ = tokio::time::timeout(brief, replaced.instrument(pending::<()>())).await;
        replaced.recover();
        replaced.end();
        let hedged = span("hedged").start();
        tokio::select! {
            () = hedged.instrument(pending()) => {}
            () = hedged.instrument(async {}) => {}
        }
        hedged.end();
        let done = span("done").start();
        done.instrument(async {}).await;
        done.end();
        let second = span("second step").start();
        second.instrument(async {}).await;
        let _ = tokio::time::timeout(brief, second.instrument(pending::<()>())).await;
        second.end();
    };
    telemetry.scope(work).await;
    insta::assert_snapshot!(recorder.tree(&["outcome", "error.type"]), @r"
    given up outcome=cancelled
    failed error.type=TIMEOUT ERROR(TIMEOUT)
    told outcome=fallback_degraded
    replaced
    hedged
    done
    second step outcome=cancelled
    ");
}

/// Notes the keys that a sampler is shown.
#[derive(Debug, Clone, Default)]
struct Shown(Arc<Mutex<Vec<String>>>);

impl ShouldSample for Shown {
    fn should_sample(
        &self,
        _: Option<&Context>,
        _: TraceId,
        _: &str,
        _: &SpanKind,
        attributes: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        self.0.lock().expect("keys").extend(attributes.iter().map(|one| one.key.to_string()));
        SamplingResult {
            decision: SamplingDecision::RecordAndSample,
            attributes: Vec::new(),
            trace_state: TraceState::default(),
        }
    }
}

#[test]
fn the_sampler_behind_a_layer_of_the_hosts_is_shown_what_it_decides_by() {
    let (shown, recorder) = (Shown::default(), Recorder::new());
    let hosts = SdkTracerProvider::builder().with_sampler(shown.clone());
    let hosts = hosts.with_simple_exporter(recorder.clone()).build();
    let layer = tracing_opentelemetry::layer().with_location(false).with_threads(false);
    let layer = layer.with_target(false).with_tracer(hosts.tracer("host"));
    let _default = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    span("ours").role(SpanRole::Step).attribute("later", 1).start().end();
    assert_eq!(*shown.0.lock().expect("keys"), [keys::ROLE]);
    insta::assert_snapshot!(recorder.tree(&[keys::ROLE, "later"]), @"ours throughline.role=step later=1");
}

#[test]
fn what_samplers_decide_by_is_on_the_span_once() {
    for stage in [with_layer, without_layer] {
        let stage = stage();
        span("ours").role(SpanRole::Step).start().end();
        let spans = stage.recorder.spans();
        let roles = spans[0].attributes.iter().filter(|one| one.key.as_str() == keys::ROLE);
        assert_eq!(roles.count(), 1);
    }
}

#[test]
fn values_that_ask_their_span_may_be_set_together() {
    let stage = with_layer();
    let ours = span("ours").start();
    ours.set_all((0..2).map(|n: i64| {
        ours.set("last", n);
        KeyValue::new("n", n)
    }));
    ours.end();
    assert_eq!(stage.recorder.tree(&["last", "n"]), "ours last=1 n=1\n");
}
