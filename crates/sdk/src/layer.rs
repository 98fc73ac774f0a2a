//! The bridge from `tracing` spans to OpenTelemetry: [`layer`], and the tracer that both it and the
//! SDK's own spans are started with.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use opentelemetry::global::{self, BoxedSpan};
use opentelemetry::trace::{SpanBuilder, TraceContextExt as _, Tracer};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Subscriber};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{FilterFn, Filtered, filter_fn};
use tracing_subscriber::layer::Layered;
use tracing_subscriber::registry::LookupSpan;

use crate::dimensions::Dimensions;
use crate::routing::RoutingTags;
use crate::telemetry_pipeline::Pipeline;

/// The layer that turns `tracing` spans into OpenTelemetry spans, the SDK's own among them.
pub type SpanLayer<S> =
    Filtered<Layered<OpenTelemetryLayer<S, SdkTracer>, OnlyOne, S>, SpanFilter, S>;

/// Lets spans of a level through, and no events: those go to the log bridge, and an `error!` must
/// not make a span fail.
pub type SpanFilter = FilterFn<Box<dyn Fn(&Metadata<'_>) -> bool + Send + Sync>>;

/// The layer for a subscriber that you put together yourself; [`Telemetry`](crate::Telemetry) puts
/// one together when there is none. It takes spans of level INFO and above. A second one above it
/// in a subscriber does nothing; beside another OpenTelemetry layer it is one too many, and
/// `tracing-opentelemetry` panics: a subscriber that has such a layer needs no other.
///
/// ```
/// use tracing_subscriber::layer::SubscriberExt;
///
/// let subscriber = tracing_subscriber::registry().with(throughline::layer());
/// # drop(subscriber);
/// ```
pub fn layer<S>() -> SpanLayer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    layer_at(LevelFilter::INFO)
}

/// [`layer`], for spans of another level.
pub fn layer_at<S>(level: LevelFilter) -> SpanLayer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    let only_one = OnlyOne::default();
    let is_second = Arc::clone(&only_one.is_second);
    let wanted: Box<dyn Fn(&Metadata<'_>) -> bool + Send + Sync> = Box::new(move |metadata| {
        metadata.is_span() && metadata.level() <= &level && !is_second.load(Ordering::Relaxed)
    });
    let spans = OpenTelemetryLayer::new(SdkTracer)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_error_fields_to_exceptions(false)
        .with_error_records_to_exceptions(false)
        .with_error_events_to_exceptions(false)
        .with_error_events_to_status(false);
    only_one.and_then(spans).with_filter(filter_fn(wanted))
}

/// Finds out whether a subscriber has our layer already: two would give each span two lives, and
/// `tracing-opentelemetry` panics then.
#[derive(Debug, Default)]
pub struct OnlyOne {
    is_second: Arc<AtomicBool>,
}

impl<S: Subscriber> tracing_subscriber::Layer<S> for OnlyOne {
    fn on_layer(&mut self, subscriber: &mut S) {
        let below: &dyn Subscriber = subscriber;
        self.is_second.store(below.is::<Self>(), Ordering::Relaxed);
    }
}

/// Starts spans with the provider of the parent's context, or else with the global one of this
/// moment, so that the layer may be made before telemetry is set up.
#[derive(Debug, Clone, Copy)]
pub struct SdkTracer;

impl Tracer for SdkTracer {
    type Span = BoxedSpan;

    /// The layer calls this for every tracing span, when it is made. One of ours finds here what it
    /// handed over.
    fn span_builder<T>(&self, name: T) -> SpanBuilder
    where
        T: Into<Cow<'static, str>>,
    {
        let builder = SpanBuilder::from_name(name);
        match (builder.name == TRACING_NAME).then(|| HANDED_OVER.take()).flatten() {
            Some(attributes) => builder.with_attributes(attributes),
            None => builder,
        }
    }

    fn build_with_context(&self, mut builder: SpanBuilder, parent_cx: &Context) -> BoxedSpan {
        let attributes = builder.attributes.get_or_insert_default();
        Dimensions::stamp(parent_cx, attributes);
        RoutingTags::stamp(parent_cx, attributes);
        let _stamped = StampGuard::set();
        // A context that restarts the trace holds an invalid span. Samplers that follow the parent
        // would take that for one that was not sampled, and drop the new trace.
        let restarted = parent_cx.has_active_span() && !parent_cx.span().span_context().is_valid();
        let pipeline = Pipeline::within(parent_cx);
        let nobody = Context::new();
        let parent_cx = if restarted { &nobody } else { parent_cx };
        match pipeline.and_then(|pipeline| pipeline.tracer()) {
            Some(tracer) => tracer.build_with_context(builder, parent_cx),
            None => global::tracer_with_scope(SCOPE.clone()).build_with_context(builder, parent_cx),
        }
    }
}

/// The instrumentation scope of everything the SDK emits.
pub(crate) static SCOPE: LazyLock<InstrumentationScope> = LazyLock::new(|| {
    InstrumentationScope::builder("throughline").with_version(env!("CARGO_PKG_VERSION")).build()
});

/// What the tracing spans of ours are called; their OpenTelemetry name is a field.
pub(crate) const TRACING_NAME: &str = "span";

/// Attributes on their way to the span that the layer makes within this call: one visit to the layer
/// instead of one for each of them.
pub(crate) struct HandedOver {
    /// Those of a span of ours that is just being made, if this one is made by a layer meanwhile.
    outer: Option<Vec<KeyValue>>,
}

impl HandedOver {
    /// Hands them over until this goes.
    pub(crate) fn new(attributes: Vec<KeyValue>) -> Self {
        Self { outer: HANDED_OVER.replace(Some(attributes)) }
    }

    /// Those that nobody took: there is no layer, or it is not ours.
    pub(crate) fn left(self) -> Option<Vec<KeyValue>> {
        HANDED_OVER.take()
    }
}

impl Drop for HandedOver {
    fn drop(&mut self) {
        HANDED_OVER.set(self.outer.take());
    }
}

thread_local! {
    static HANDED_OVER: Cell<Option<Vec<KeyValue>>> = const { Cell::new(None) };

    /// Whether the span being started has its dimensions already.
    static STAMPED: Cell<bool> = const { Cell::new(false) };
}

/// Whether the span that a processor sees starting on this thread has its dimensions already: spans
/// of the OpenTelemetry API do not, and the processor gives them theirs.
pub(crate) fn is_stamped() -> bool {
    STAMPED.get()
}

struct StampGuard;

impl StampGuard {
    fn set() -> Self {
        STAMPED.set(true);
        Self
    }
}

impl Drop for StampGuard {
    fn drop(&mut self) {
        STAMPED.set(false);
    }
}
