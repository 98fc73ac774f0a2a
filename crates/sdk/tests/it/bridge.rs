//! A tracing span of ours, seen by who uses the traits of `tracing-opentelemetry`, explicit parents
//! and followers: it stands for the OpenTelemetry span, whatever way it is come by.

use std::sync::{Arc, Mutex, OnceLock};

use opentelemetry::KeyValue;
use opentelemetry::trace::{
    SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceId, TracerProvider as _,
};
use throughline::{Recorder, Telemetry, span};
use tracing::Instrument as _;
use tracing::dispatcher::{Dispatch, WeakDispatch};
use tracing::span::{Attributes, Id};
use tracing_opentelemetry::{OpenTelemetrySpanExt as _, get_otel_context};
use tracing_subscriber::layer::{self, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

use crate::export::{is_child, run_child};
use crate::stage::with_layer;

#[test]
fn the_context_of_the_tracing_span_is_that_of_ours() {
    let _stage = with_layer();
    let ours = span("ours").start();
    let seen = ours.in_scope(|| tracing::Span::current().context());
    assert_eq!(seen.span().span_context(), &ours.span_context());
}

#[test]
fn what_is_written_on_the_tracing_span_reaches_ours() {
    let stage = with_layer();
    let other = SpanContext::new(
        TraceId::from(7),
        SpanId::from(9),
        TraceFlags::SAMPLED,
        false,
        Default::default(),
    );
    let ours = span("ours").attribute("given", "before").start();
    // Not the current span, and nobody has asked for its context: it waits until ours ends.
    let tracing = ours.in_scope(tracing::Span::current);
    tracing.set_attribute("written", 1);
    tracing.set_attribute("twice", true);
    tracing.set_status(Status::error("it broke"));
    tracing.add_event("noted", vec![KeyValue::new("at", "once")]);
    tracing.add_link(other.clone());
    ours.end();
    let spans = stage.recorder.spans();
    let [only] = spans.as_slice() else { panic!("expected one span, found {}", spans.len()) };
    let keys: Vec<_> = only.attributes.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["given", "written", "twice"]);
    assert_eq!(only.status, Status::error("it broke"));
    assert_eq!(only.events.events.first().map(|event| event.name.as_ref()), Some("noted"));
    assert_eq!(only.links.links.first().map(|link| &link.span_context), Some(&other));
}

#[test]
fn a_name_that_comes_after_the_start_is_ignored_as_ever() {
    let stage = with_layer();
    let ours = span("ours").start();
    // `ActiveSpan::rename` is the way: `tracing-opentelemetry` knows none after the start.
    ours.in_scope(|| {
        tracing::Span::current().record("otel.name", "renamed");
    });
    ours.end();
    assert_eq!(stage.recorder.tree(&[]), "ours\n");
}

#[test]
fn a_follower_is_linked_to_ours_and_ours_to_what_it_follows() {
    let stage = with_layer();
    let host = tracing::info_span!("host");
    let ours = span("ours").start();
    let tracing = ours.in_scope(tracing::Span::current);
    tracing.follows_from(&host);
    host.follows_from(&tracing);
    drop((host, tracing));
    ours.end();
    let spans = stage.recorder.spans();
    let of = |name: &str| spans.iter().find(|span| span.name == name).expect("the span");
    for (one, other) in [("host", "ours"), ("ours", "host")] {
        let linked = of(one).links.links.first().map(|link| link.span_context.span_id());
        assert_eq!(linked, Some(of(other).span_context.span_id()), "{one}");
    }
}

#[test]
fn an_explicit_parent_that_is_ours_has_the_child() {
    let stage = with_layer();
    let ours = span("ours").start();
    let tracing = ours.in_scope(tracing::Span::current);
    tracing::info_span!(parent: &tracing, "host").in_scope(|| span("inner").start().end());
    ours.end();
    insta::assert_snapshot!(stage.recorder.tree(&[]), @r"
    ours
      host
        inner
    ");
}

#[tokio::test]
async fn who_enters_the_tracing_span_is_in_ours() {
    let stage = with_layer();
    let ours = span("ours").start();
    let work = async {
        tokio::task::yield_now().await;
        span("inner").start().end();
        tracing::info_span!("host").in_scope(|| ());
    };
    ours.in_scope(|| work.in_current_span()).await;
    let entered = ours.in_scope(tracing::Span::current);
    entered.in_scope(|| ours.in_scope(|| span("deep").start().end()));
    span("beside").start().end();
    ours.end();
    insta::assert_snapshot!(stage.recorder.tree(&[]), @r"
    ours
      inner
      host
      deep
    beside
    ");
}

/// Each of these in a process in which nobody has asked before: spans that are open are told of then.
#[test]
fn the_first_who_asks_in_a_process_hears_of_spans_that_are_open() {
    for test in [
        "the_context_of_the_tracing_span_is_that_of_ours",
        "what_is_written_on_the_tracing_span_reaches_ours",
        "a_name_that_comes_after_the_start_is_ignored_as_ever",
        "a_follower_is_linked_to_ours_and_ours_to_what_it_follows",
        "an_explicit_parent_that_is_ours_has_the_child",
        "who_enters_the_tracing_span_is_in_ours",
        "child_that_asks_for_one_of_many_from_another_thread",
        "child_with_a_layer_that_asks_about_parents",
    ] {
        run_child(&format!("bridge::{test}"), &[]);
    }
}

#[test]
fn child_that_asks_for_one_of_many_from_another_thread() {
    if !is_child() {
        return;
    }
    let stage = with_layer();
    let open: Vec<_> = (0..50).map(|_| span("open").start()).collect();
    let handles: Vec<_> = open.iter().map(|ours| ours.in_scope(tracing::Span::current)).collect();
    // Closed before anybody asks, and its handle after.
    let closed = span("closed").start();
    drop(closed.in_scope(tracing::Span::current));
    closed.end();
    std::thread::scope(|scope| {
        for (ours, handle) in open.iter().zip(&handles) {
            scope.spawn(|| {
                assert_eq!(handle.context().span().span_context(), &ours.span_context());
            });
        }
    });
    drop((handles, open));
    assert_eq!(stage.recorder.spans().len(), 51);
}

/// A layer above ours that looks up the trace of the parent while it holds what it keeps of the child.
#[derive(Default)]
struct Parents {
    whole: OnceLock<WeakDispatch>,
    seen: Arc<Mutex<Vec<Option<SpanId>>>>,
}

impl<S: tracing::Subscriber + for<'span> LookupSpan<'span>> Layer<S> for Parents {
    fn on_register_dispatch(&self, whole: &Dispatch) {
        self.whole.set(whole.downgrade()).expect("once");
    }

    fn on_new_span(&self, _: &Attributes<'_>, id: &Id, cx: layer::Context<'_, S>) {
        let whole = self.whole.get().and_then(WeakDispatch::upgrade).expect("the subscriber");
        let child = cx.span(id).expect("the child");
        let mut kept = child.extensions_mut();
        let parent = child.parent();
        let parent = parent.and_then(|parent| get_otel_context(&parent.id(), &whole));
        let seen = parent.map(|parent| parent.span().span_context().span_id());
        kept.insert(seen);
        self.seen.lock().expect("seen").push(seen);
    }
}

#[test]
fn child_with_a_layer_that_asks_about_parents() {
    if !is_child() {
        return;
    }
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).build().expect("telemetry");
    let _context = telemetry.enter();
    let parents = Parents::default();
    let seen = Arc::clone(&parents.seen);
    let registry = tracing_subscriber::registry().with(throughline::layer());
    let _default = tracing::subscriber::set_default(registry.with(parents));
    let mut ids = Vec::new();
    let outer = span("outer").start();
    outer.in_scope(|| {
        let inner = span("inner").start();
        inner.in_scope(|| drop(span("innermost").start()));
        ids.push(inner.span_context().span_id());
    });
    ids.insert(0, outer.span_context().span_id());
    outer.end();
    assert_eq!(*seen.lock().expect("seen"), [None, Some(ids[0]), Some(ids[1])]);
}

#[test]
fn a_layer_that_can_be_reloaded_hides_itself_and_loses_nothing() {
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).build().expect("telemetry");
    let _context = telemetry.enter();
    let (layer, _handle) = tracing_subscriber::reload::Layer::new(Some(throughline::layer()));
    let _default = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    let outer = span("outer").attribute("held", "back").start();
    outer.in_scope(|| {
        tracing::info_span!("host").in_scope(|| span("inner").start().end());
    });
    outer.end();
    insta::assert_snapshot!(recorder.tree(&["held"]), @r"
    outer held=back
      host
        inner
    ");
}

/// What the host's layer makes of spans of both, with ours above or below it.
fn beside_a_layer_of_the_host(is_ours_above: bool) -> (String, String) {
    let (hosts, ours) = (Recorder::new(), Recorder::new());
    let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder()
        .with_simple_exporter(hosts.clone())
        .build();
    let tracer = provider.tracer("host");
    let telemetry = Telemetry::builder().recorder(&ours).build().expect("telemetry");
    let _context = telemetry.enter();
    let registry = tracing_subscriber::registry();
    let subscriber: tracing::Dispatch = if is_ours_above {
        registry
            .with(tracing_opentelemetry::layer().with_tracer(tracer))
            .with(throughline::layer())
            .into()
    } else {
        registry
            .with(throughline::layer())
            .with(tracing_opentelemetry::layer().with_tracer(tracer))
            .into()
    };
    let _default = tracing::dispatcher::set_default(&subscriber);
    for _ in 0..2 {
        tracing::info_span!("host").in_scope(|| {
            let ours = span("ours").start();
            ours.in_scope(|| tracing::info_span!("deep", answer = 17).in_scope(|| ()));
            ours.end();
        });
    }
    (hosts.tree(&["answer"]), ours.tree(&[]))
}

#[test]
fn beside_a_layer_of_the_host_ours_leaves_the_spans_to_it() {
    let once = "host\n  ours\n    deep answer=17\n";
    let whole = (once.repeat(2), String::new());
    assert_eq!(beside_a_layer_of_the_host(true), whole, "the host's is below");
    assert_eq!(beside_a_layer_of_the_host(false), whole, "the host's is above");
}
