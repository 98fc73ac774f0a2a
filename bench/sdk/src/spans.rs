//! A step with twelve attributes that is sampled, entered, ended and exported: ours, the bare
//! layer's, `fastrace`'s. Exports go to a simple processor before nobody, or before a recorder that
//! is emptied after every trace.

use std::time::{Duration, Instant};

use fastrace::collector::{Config, Reporter, SpanContext, SpanRecord};
use opentelemetry::global;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SimpleSpanProcessor, SpanData, SpanExporter};
use throughline::{Phase, Recorder, Telemetry, span, step};
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::Registry;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::{Round, Table, measured};

/// Steps of one round.
pub(crate) const STEPS: u32 = 10_000;

/// Steps below one root.
pub(crate) const STEPS_OF_A_TRACE: u32 = 100;

/// Takes what is exported and forgets it.
#[derive(Debug)]
struct Nobody;

impl Reporter for Nobody {
    fn report(&mut self, spans: Vec<SpanRecord>) {
        drop(spans);
    }
}

impl SpanExporter for Nobody {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        drop(batch);
        Ok(())
    }
}

pub(crate) fn measure(table: &mut Table) -> anyhow::Result<()> {
    let forgetting =
        SdkTracerProvider::builder().with_span_processor(SimpleSpanProcessor::new(Nobody)).build();
    global::set_tracer_provider(forgetting.clone());
    let recorder = Recorder::new();
    let keeping = SdkTracerProvider::builder()
        .with_span_processor(SimpleSpanProcessor::new(recorder.clone()))
        .build();
    let telemetry = Telemetry::builder().environment(false).recorder(&recorder).build()?;
    fastrace::set_reporter(Nobody, Config::default());

    let nothing = || ();
    let clear = || recorder.clear();
    let contenders: [Round<'_>; 7] = [
        Box::new(|| round(ours(), our_trace, nothing)),
        Box::new(|| round(bare(&forgetting), bare_trace, nothing)),
        Box::new(|| round(lean(&forgetting), bare_trace, nothing)),
        Box::new(|| {
            let _in = telemetry.enter();
            round(ours(), our_trace, clear)
        }),
        Box::new(|| round(bare(&keeping), bare_trace, clear)),
        Box::new(|| round(tracing::subscriber::NoSubscriber::new(), our_trace, nothing)),
        // What it collects, it reports from a thread of its own, after the clock has stopped.
        Box::new(|| round(tracing::subscriber::NoSubscriber::new(), fast_trace, fastrace::flush)),
    ];
    let (medians, undisturbed) = measured(contenders);
    let [host, bare, lean, own, bare_kept, without_layer, fast] = medians;
    let [still_host, still_bare, _, still_own, still_bare_kept, ..] = undisturbed;
    table.ns("step, throughline, the host's provider, no exporter", host);
    table.ns("the same, tracing-opentelemetry by default", bare);
    table.ns("the same, tracing-opentelemetry, its extras off", lean);
    table.row(
        "throughline / tracing-opentelemetry by default",
        ratio(host / bare, still_host / still_bare),
    );
    table.ns("step, throughline, its own pipeline, a recorder", own);
    table.ns("the same, tracing-opentelemetry by default", bare_kept);
    table.row(
        "throughline / tracing-opentelemetry by default",
        ratio(own / bare_kept, still_own / still_bare_kept),
    );
    table.ns("step, throughline, no tracing layer, no exporter", without_layer);
    table.ns("step, fastrace, until it is handed over", fast);
    Ok(())
}

fn ratio(median: f64, undisturbed: f64) -> String {
    format!("{median:.2}, undisturbed {undisturbed:.2} (target 0.80)")
}

/// Some steps of one of the contenders, without exporter, alone.
///
/// # Errors
/// When there is none of this name.
pub(crate) fn alone(contender: &str, steps: u32) -> anyhow::Result<()> {
    let provider =
        SdkTracerProvider::builder().with_span_processor(SimpleSpanProcessor::new(Nobody)).build();
    global::set_tracer_provider(provider.clone());
    let recorder = Recorder::new();
    let keeping = SdkTracerProvider::builder()
        .with_span_processor(SimpleSpanProcessor::new(recorder.clone()))
        .build();
    let traces = |trace: fn()| {
        for _ in 0..steps / STEPS_OF_A_TRACE {
            trace();
            recorder.clear();
        }
    };
    let nobody = tracing::subscriber::NoSubscriber::new;
    use tracing::subscriber::with_default;
    match contender {
        "host" => with_default(ours(), || traces(our_trace)),
        "bare" => with_default(bare(&provider), || traces(bare_trace)),
        "lean" => with_default(lean(&provider), || traces(bare_trace)),
        "own" => {
            let telemetry = Telemetry::builder().environment(false).recorder(&recorder).build()?;
            let _in = telemetry.enter();
            with_default(ours(), || traces(our_trace));
        }
        "kept" => with_default(bare(&keeping), || traces(bare_trace)),
        "none" => with_default(nobody(), || traces(our_trace)),
        other => anyhow::bail!("expected host, bare, lean, own, kept or none, got {other}"),
    }
    Ok(())
}

fn ours() -> impl Subscriber + Send + Sync + 'static {
    Registry::default().with(throughline::layer())
}

type BareLayer = OpenTelemetryLayer<Registry, opentelemetry_sdk::trace::SdkTracer>;

fn bare_layer(provider: &SdkTracerProvider) -> BareLayer {
    tracing_opentelemetry::layer().with_tracer(provider.tracer("bench"))
}

fn bare(provider: &SdkTracerProvider) -> impl Subscriber + Send + Sync + 'static + use<> {
    Registry::default().with(bare_layer(provider))
}

/// Without the seven attributes that nobody asked for.
fn lean(provider: &SdkTracerProvider) -> impl Subscriber + Send + Sync + 'static + use<> {
    let layer = bare_layer(provider)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false);
    Registry::default().with(layer)
}

/// Nanoseconds of one step. The subscriber lives for the round: as long as two do, `tracing` asks
/// both at every span.
fn round(
    subscriber: impl Subscriber + Send + Sync + 'static,
    trace: impl Fn(),
    settle: impl Fn(),
) -> f64 {
    let _subscriber = tracing::subscriber::set_default(subscriber);
    trace();
    settle();
    let mut took = Duration::ZERO;
    for _ in 0..STEPS / STEPS_OF_A_TRACE {
        let began = Instant::now();
        trace();
        took += began.elapsed();
        settle();
    }
    took.as_secs_f64() * 1e9 / f64::from(STEPS)
}

fn our_trace() {
    span("run").start().in_scope(|| {
        for index in 0..STEPS_OF_A_TRACE {
            // Role, agent and phase come with the step.
            let step = step("shop", Phase::Act, "stock")
                .tool("stock_v1")
                .reason("the shelf was asked for")
                .index(index)
                .attribute("item", 7)
                .attribute("warehouse", "graz")
                .attribute("is_cached", false)
                .attribute("price", 9.5)
                .attribute("retry_count", 0)
                .start();
            step.in_scope(|| ());
            step.set("status_code", 200);
            step.end();
        }
    });
}

fn bare_trace() {
    tracing::info_span!("run").in_scope(|| {
        for index in 0..STEPS_OF_A_TRACE {
            let step = tracing::info_span!(
                "step",
                otel.name = format!("{}.{}.{}", "shop", "act", "stock"),
                throughline.role = "step",
                ai.agent.name = "shop",
                ai.phase = "act",
                ai.tool_used = "stock_v1",
                ai.reasoning_trace = "the shelf was asked for",
                ai.step_index = i64::from(index),
                item = 7,
                warehouse = "graz",
                is_cached = false,
                price = 9.5,
                retry_count = 0,
                status_code = tracing::field::Empty,
            );
            step.in_scope(|| ());
            step.record("status_code", 200);
        }
    });
}

fn fast_trace() {
    let run = fastrace::Span::root("run", SpanContext::random());
    let _run = run.set_local_parent();
    for index in 0..STEPS_OF_A_TRACE {
        let step =
            fastrace::Span::enter_with_local_parent(format!("{}.{}.{}", "shop", "act", "stock"))
                .with_properties(|| {
                    [
                        ("throughline.role", "step".to_owned()),
                        ("ai.agent.name", "shop".to_owned()),
                        ("ai.phase", "act".to_owned()),
                        ("ai.tool_used", "stock_v1".to_owned()),
                        ("ai.reasoning_trace", "the shelf was asked for".to_owned()),
                        ("ai.step_index", index.to_string()),
                        ("item", "7".to_owned()),
                        ("warehouse", "graz".to_owned()),
                        ("is_cached", "false".to_owned()),
                        ("price", "9.5".to_owned()),
                        ("retry_count", "0".to_owned()),
                    ]
                });
        drop(step.set_local_parent());
        step.add_property(|| ("status_code", "200"));
    }
}
