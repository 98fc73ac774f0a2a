//! Spans of ours, of `tracing` and of the OpenTelemetry API nest both ways, in every order of three,
//! sync and async, whoever's layer there is.

use futures_util::future::BoxFuture;
use opentelemetry::Context;
use opentelemetry::trace::{
    FutureExt as _, TraceContextExt as _, Tracer as _, TracerProvider as _,
};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use throughline::{Recorder, Telemetry, span};
use tracing::Instrument as _;
use tracing::subscriber::NoSubscriber;
use tracing_subscriber::layer::SubscriberExt as _;

/// Whose span it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ours,
    Tracing,
    Api,
}
use Kind::{Api, Ours, Tracing};

const KINDS: [Kind; 3] = [Ours, Tracing, Api];

/// Spans of these kinds, each within the one before.
fn nest(kinds: &[Kind], api: &SdkTracer) {
    let Some((kind, inner)) = kinds.split_first() else { return };
    match kind {
        Ours => span("ours").start().in_scope(|| nest(inner, api)),
        Tracing => tracing::info_span!("tracing").in_scope(|| nest(inner, api)),
        Api => {
            let _in = Context::current_with_span(api.start("api")).attach();
            nest(inner, api);
        }
    }
}

/// [`nest`], in futures that are polled more than once.
fn nest_async<'a>(kinds: &'a [Kind], api: &'a SdkTracer) -> BoxFuture<'a, ()> {
    Box::pin(async move {
        tokio::task::yield_now().await;
        let Some((kind, inner)) = kinds.split_first() else { return };
        match kind {
            Ours => span("ours").start().run(nest_async(inner, api)).await,
            Tracing => nest_async(inner, api).instrument(tracing::info_span!("tracing")).await,
            Api => {
                let cx = Context::current_with_span(api.start("api"));
                nest_async(inner, api).with_context(cx).await;
            }
        }
        tokio::task::yield_now().await;
    })
}

/// The tree that these kinds must make, of the spans that are seen at all.
fn expected(kinds: &[Kind], has_layer: bool) -> String {
    let names = kinds.iter().filter_map(|kind| match kind {
        Ours => Some("ours"),
        Tracing => has_layer.then_some("tracing"),
        Api => Some("api"),
    });
    names.enumerate().map(|(depth, name)| format!("{}{name}\n", "  ".repeat(depth))).collect()
}

/// Which layer there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    Ours,
    Foreign,
    None,
}

/// Every order of three kinds under this layer.
fn every_order(layer: Layer) {
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).build().expect("telemetry");
    // The host's own provider: its spans go to the same place.
    let provider = SdkTracerProvider::builder().with_simple_exporter(recorder.clone()).build();
    let api = provider.tracer("host");
    let registry = tracing_subscriber::registry();
    let _subscriber = match layer {
        Layer::Ours => tracing::subscriber::set_default(registry.with(throughline::layer())),
        Layer::Foreign => {
            let foreign = tracing_opentelemetry::layer().with_tracer(provider.tracer("layer"));
            tracing::subscriber::set_default(registry.with(foreign))
        }
        Layer::None => tracing::subscriber::set_default(NoSubscriber::new()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let _in = telemetry.enter();
    for order in 0..27 {
        let kinds = [KINDS[order / 9], KINDS[order / 3 % 3], KINDS[order % 3]];
        for is_async in [false, true] {
            if is_async {
                runtime.block_on(nest_async(&kinds, &api));
            } else {
                nest(&kinds, &api);
            }
            let tree = recorder.tree(&[]);
            let how = if is_async { "async" } else { "sync" };
            assert_eq!(tree, expected(&kinds, layer != Layer::None), "{kinds:?} {layer:?} {how}");
            recorder.clear();
        }
    }
}

#[test]
fn every_order_nests_with_our_layer() {
    every_order(Layer::Ours);
}

#[test]
fn every_order_nests_with_a_foreign_layer() {
    every_order(Layer::Foreign);
}

#[test]
fn every_order_nests_without_a_layer() {
    every_order(Layer::None);
}
