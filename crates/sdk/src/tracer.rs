//! The tracer that the layer and the SDK's own spans are started with.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::LazyLock;
use std::time::SystemTime;

use opentelemetry::global::{self, BoxedSpan};
use opentelemetry::trace::{Span, SpanBuilder, SpanContext, Status, TraceContextExt as _, Tracer};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use throughline_trace::SDK_SCOPE;

use crate::dimensions::Dimensions;
use crate::layer::{TRACING_NAME, is_for_started};
use crate::routing::RoutingTags;
use crate::span::Attributes;
use crate::telemetry_pipeline::Pipeline;

/// Starts spans with the provider of the parent's context, or else with the global one of this
/// moment, so that the layer may be made before telemetry is set up.
#[derive(Debug, Clone, Copy)]
pub struct SdkTracer;

impl Tracer for SdkTracer {
    type Span = SdkSpan;

    /// A layer calls this for every tracing span, when it is made. One of ours, in a layer that is
    /// not, finds here what it handed over.
    fn span_builder<T>(&self, name: T) -> SpanBuilder
    where
        T: Into<Cow<'static, str>>,
    {
        let builder = SpanBuilder::from_name(name);
        if builder.name != TRACING_NAME {
            return builder;
        }
        if is_for_started() {
            return SpanBuilder::from_name(SAME_SPAN);
        }
        match HANDED_OVER.take() {
            Some(mut attributes) => {
                attributes.push(KeyValue::new(HANDED_OVER_KEY, true));
                builder.with_attributes(attributes)
            }
            None => builder,
        }
    }

    fn build_with_context(&self, mut builder: SpanBuilder, parent_cx: &Context) -> SdkSpan {
        if builder.name == SAME_SPAN {
            return SdkSpan::same(builder, parent_cx);
        }
        let place = match take_mark(&mut builder) {
            true => Place::IsToldLater,
            false => Place::IsToldNow(None),
        };
        SdkSpan(match started_below(parent_cx, builder, place) {
            Started::Own(span) => Kind::Own(span),
            Started::Hosts(span) => Kind::Hosts(span),
        })
    }
}

/// Starts a span of ours. What it gets of the attributes now is no longer among them.
pub(crate) fn start_below(
    parent_cx: &Context,
    builder: SpanBuilder,
    attributes: &mut Attributes,
) -> Context {
    // Without the wrapping of `SdkSpan`, which every call would pass.
    match started_below(parent_cx, builder, Place::IsToldNow(Some(attributes))) {
        Started::Own(span) => parent_cx.with_span(span),
        Started::Hosts(span) => parent_cx.with_span(span),
    }
}

#[expect(
    clippy::large_enum_variant,
    reason = "it lives for a moment, and a box would be one more for each span"
)]
enum Started {
    Own(opentelemetry_sdk::trace::Span),
    Hosts(BoxedSpan),
}

/// How a span gets what its place says: whose it is, and what routing decided.
enum Place<'a> {
    /// Now; with attributes of a span of ours, which the span gets some or all of.
    IsToldNow(Option<&'a mut Attributes>),
    /// Whose it is now, as samplers decide by that; whoever started it tells the rest when it ends.
    IsToldLater,
}

fn started_below(parent_cx: &Context, mut builder: SpanBuilder, place: Place<'_>) -> Started {
    let tracer =
        Pipeline::within(parent_cx).and_then(|pipeline| Some((pipeline, pipeline.tracer()?)));
    let at_start = builder.attributes.get_or_insert_default();
    match place {
        Place::IsToldNow(Some(attributes)) if tracer.is_some() => {
            attributes.give_all(at_start);
            let given = at_start.len();
            stamp(parent_cx, at_start);
            attributes.give_more(&at_start[given..]);
        }
        Place::IsToldNow(Some(attributes)) => {
            attributes.give_fixed(at_start);
            stamp_in_turn(parent_cx, at_start, attributes);
        }
        Place::IsToldNow(None) => stamp(parent_cx, at_start),
        Place::IsToldLater => Dimensions::stamp(parent_cx, at_start),
    }
    let _stamped = StampGuard::set();
    // A context that restarts the trace holds an invalid span. Samplers that follow the parent
    // would take that for one that was not sampled, and drop the new trace.
    let restarted = parent_cx.has_active_span() && !parent_cx.span().span_context().is_valid();
    let nobody = restarted.then(Context::new);
    let parent_cx = nobody.as_ref().unwrap_or(parent_cx);
    match tracer {
        Some((pipeline, tracer)) => {
            pipeline.note_if_too_late(parent_cx);
            Started::Own(tracer.build_with_context(builder, parent_cx))
        }
        None => {
            let tracer = global::tracer_with_scope(SCOPE.clone());
            Started::Hosts(tracer.build_with_context(builder, parent_cx))
        }
    }
}

/// Puts on what every span below a context bears.
fn stamp(cx: &Context, attributes: &mut Vec<KeyValue>) {
    Dimensions::stamp(cx, attributes);
    RoutingTags::stamp(cx, attributes);
}

/// [`stamp`], of a span of ours that somebody else keeps, who takes nothing back out of it: samplers
/// are shown whose it is, and the rest comes in the end, when nobody can say anything else.
fn stamp_in_turn(cx: &Context, at_start: &mut Vec<KeyValue>, later: &mut Attributes) {
    let given = at_start.len();
    Dimensions::stamp(cx, at_start);
    later.fix(&at_start[given..]);
    RoutingTags::stamp_later(cx, later);
}

/// One of the attributes that a layer with our tracer was handed over, last there, though the layer may add its
/// own: they are those of a span of ours.
const HANDED_OVER_KEY: &str = "throughline.handed_over";

/// Takes the mark of a span of ours off, and says whether it was there.
fn take_mark(builder: &mut SpanBuilder) -> bool {
    let Some(attributes) = &mut builder.attributes else { return false };
    let mark = attributes.iter().position(|entry| entry.key.as_str() == HANDED_OVER_KEY);
    mark.inspect(|at| drop(attributes.swap_remove(*at))).is_some()
}

/// The name of a builder that is for the span of its parent context itself: what `tracing-opentelemetry`
/// starts when it is asked for the context of a tracing span of ours.
const SAME_SPAN: &str = "throughline.same_span";

/// A span that [`SdkTracer`] has started.
#[derive(Debug)]
pub struct SdkSpan(Kind);

#[derive(Debug)]
enum Kind {
    /// Of a [`Telemetry`](crate::Telemetry).
    Own(opentelemetry_sdk::trace::Span),
    /// Of the tracer provider that the host has set globally.
    Hosts(BoxedSpan),
    /// The active span of a context, once more: it lives and ends there.
    Same { cx: Context, span_context: SpanContext },
}

impl SdkSpan {
    /// The active span of a context, with what was written on the builder since.
    fn same(builder: SpanBuilder, cx: &Context) -> Self {
        let SpanBuilder { attributes, events, links, .. } = builder;
        let span = cx.span();
        span.set_attributes(attributes.into_iter().flatten());
        for event in events.into_iter().flatten() {
            span.add_event_with_timestamp(event.name, event.timestamp, event.attributes);
        }
        for link in links.into_iter().flatten() {
            span.add_link(link.span_context, link.attributes);
        }
        Self(Kind::Same { cx: cx.clone(), span_context: span.span_context().clone() })
    }
}

impl Span for SdkSpan {
    fn add_event_with_timestamp<T>(
        &mut self,
        name: T,
        timestamp: SystemTime,
        attributes: Vec<KeyValue>,
    ) where
        T: Into<Cow<'static, str>>,
    {
        match &mut self.0 {
            Kind::Own(span) => span.add_event_with_timestamp(name, timestamp, attributes),
            Kind::Hosts(span) => span.add_event_with_timestamp(name, timestamp, attributes),
            Kind::Same { cx, .. } => {
                cx.span().add_event_with_timestamp(name, timestamp, attributes)
            }
        }
    }

    fn span_context(&self) -> &SpanContext {
        match &self.0 {
            Kind::Own(span) => span.span_context(),
            Kind::Hosts(span) => span.span_context(),
            Kind::Same { span_context, .. } => span_context,
        }
    }

    fn is_recording(&self) -> bool {
        match &self.0 {
            Kind::Own(span) => span.is_recording(),
            Kind::Hosts(span) => span.is_recording(),
            Kind::Same { cx, .. } => cx.span().is_recording(),
        }
    }

    fn set_attribute(&mut self, attribute: KeyValue) {
        match &mut self.0 {
            Kind::Own(span) => span.set_attribute(attribute),
            Kind::Hosts(span) => span.set_attribute(attribute),
            Kind::Same { cx, .. } => cx.span().set_attribute(attribute),
        }
    }

    fn set_status(&mut self, status: Status) {
        match &mut self.0 {
            Kind::Own(span) => span.set_status(status),
            Kind::Hosts(span) => span.set_status(status),
            Kind::Same { cx, .. } => cx.span().set_status(status),
        }
    }

    fn update_name<T>(&mut self, name: T)
    where
        T: Into<Cow<'static, str>>,
    {
        match &mut self.0 {
            Kind::Own(span) => span.update_name(name),
            Kind::Hosts(span) => span.update_name(name),
            Kind::Same { cx, .. } => cx.span().update_name(name),
        }
    }

    fn add_link(&mut self, to: SpanContext, attributes: Vec<KeyValue>) {
        match &mut self.0 {
            Kind::Own(span) => span.add_link(to, attributes),
            Kind::Hosts(span) => span.add_link(to, attributes),
            Kind::Same { cx, .. } => cx.span().add_link(to, attributes),
        }
    }

    fn end_with_timestamp(&mut self, timestamp: SystemTime) {
        match &mut self.0 {
            Kind::Own(span) => span.end_with_timestamp(timestamp),
            Kind::Hosts(span) => span.end_with_timestamp(timestamp),
            Kind::Same { cx, .. } => cx.span().end_with_timestamp(timestamp),
        }
    }
}

/// The instrumentation scope of everything the SDK emits.
pub(crate) static SCOPE: LazyLock<InstrumentationScope> = LazyLock::new(|| {
    InstrumentationScope::builder(SDK_SCOPE).with_version(env!("CARGO_PKG_VERSION")).build()
});

/// Attributes on their way to the span that a layer which is not ours, but has our tracer, makes
/// within this call: one visit to the layer instead of one for each of them.
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

/// Ends a span; the keys of so many of its last attributes may be on it twice.
pub(crate) fn ending(maybe_twice: usize, end: impl FnOnce()) {
    MAYBE_TWICE.set(maybe_twice);
    end();
    MAYBE_TWICE.set(0);
}

/// How many of the last attributes of the span that a processor sees ending on this thread may be there
/// twice. It is to leave the last.
pub(crate) fn take_maybe_twice() -> usize {
    MAYBE_TWICE.take()
}

thread_local! {
    static HANDED_OVER: Cell<Option<Vec<KeyValue>>> = const { Cell::new(None) };

    /// How many of the last attributes of the span that is being ended may be there twice.
    static MAYBE_TWICE: Cell<usize> = const { Cell::new(0) };

    /// Whether the span being started has its dimensions already.
    static STAMPED: Cell<bool> = const { Cell::new(false) };
}

/// Whether the span that a processor sees starting on this thread has its dimensions already: spans
/// of the OpenTelemetry API do not, and the processor gives them theirs.
pub(crate) fn is_stamped() -> bool {
    STAMPED.get()
}

/// Until this goes, spans that start on this thread have their dimensions.
pub(crate) struct StampGuard {
    /// Whether they had them before.
    outer: bool,
}

impl StampGuard {
    pub(crate) fn set() -> Self {
        Self { outer: STAMPED.replace(true) }
    }
}

impl Drop for StampGuard {
    fn drop(&mut self) {
        STAMPED.set(self.outer);
    }
}
