//! The span of the SDK: an OpenTelemetry span that enters the world through `tracing` when a layer
//! listens, and is ended by its guard whatever happens.

mod attributes;

pub(crate) use attributes::{Attributes, keep_last};

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use opentelemetry::trace::{Link, SpanContext, SpanKind, SpanRef, Status, TraceContextExt as _};
use opentelemetry::{Context, Key, KeyValue, Value};
use throughline_trace::{ErrorType, SpanId, SpanRole, TraceId, keys};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::dimensions::Dimensions;
use crate::instrument::{InContext, Instrumented, Running};
use crate::layer::{self, Entrance, TRACING_NAME, TRACING_TARGET};
use crate::metrics::Outcome;
use crate::panic_stack;
use crate::routing::RoutingTags;
use crate::tracer::{self, HandedOver, StampGuard};
use attributes::{key_bit, sampler_bit};

/// A span of this name, to be described and then [started](SpanBuilder::start).
///
/// ```
/// use throughline::{SpanKind, span};
///
/// let span = span("GET /stock").kind(SpanKind::Client).attribute("item", 17).start();
/// span.event("cache missed", []);
/// span.in_scope(|| { /* spans made here are its children */ });
/// // Ended here, and exported without waiting for its children.
/// ```
pub fn span(name: impl Into<Cow<'static, str>>) -> SpanBuilder {
    SpanBuilder {
        name: name.into(),
        kind: SpanKind::Internal,
        parent: None,
        attributes: Attributes::default(),
        fixed: 0,
        links: Vec::new(),
    }
}

/// A span that has not started.
#[derive(Debug, Clone)]
#[must_use = "a span starts with `start`"]
pub struct SpanBuilder {
    name: Cow<'static, str>,
    kind: SpanKind,
    parent: Option<Context>,
    attributes: Attributes,
    fixed: u16,
    links: Vec<Link>,
}

impl SpanBuilder {
    /// The span's place between caller and callee; [`SpanKind::Internal`] when not said.
    pub fn kind(mut self, kind: SpanKind) -> Self {
        self.kind = kind;
        self
    }

    /// What part of an agent's work the span is.
    pub fn role(self, role: SpanRole) -> Self {
        self.attribute(keys::ROLE, role.as_str())
    }

    /// One attribute. Those that samplers decide by ([conventions]; also agent, phase, tool and number of
    /// a step) keep the value that they have when the span starts; the others may be replaced until it
    /// ends.
    ///
    /// [conventions]: https://opentelemetry.io/docs/specs/semconv/gen-ai/
    #[inline]
    pub fn attribute(mut self, key: impl Into<Key>, value: impl Into<Value>) -> Self {
        let key = key.into();
        // Here, where the key is a constant mostly.
        let bit = key_bit(key.as_str());
        self.put(bit, KeyValue::new(key, value));
        self
    }

    /// Apart from [`attribute`](Self::attribute), so that a chain of those moves the builder once.
    fn put(&mut self, key_bit: u64, entry: KeyValue) {
        self.fixed |= self.attributes.set_at_start(key_bit, entry);
    }

    /// Makes room for this many attributes at once.
    pub(crate) fn expecting(mut self, attributes: usize) -> Self {
        self.attributes.expect(attributes);
        self
    }

    /// Several attributes.
    pub fn attributes(mut self, entries: impl IntoIterator<Item = KeyValue>) -> Self {
        entries.into_iter().for_each(|entry| self.put(key_bit(entry.key.as_str()), entry));
        self
    }

    /// A span that this one is related to without being its child. An invalid context is ignored.
    pub fn link(mut self, to: &SpanContext, attributes: Vec<KeyValue>) -> Self {
        if to.is_valid() {
            self.links.push(Link::new(to.clone(), attributes, 0));
        }
        self
    }

    /// The context whose span is the parent, when it is not the current one.
    pub fn parent(mut self, cx: Context) -> Self {
        self.parent = Some(cx);
        self
    }

    /// Starts the span. Nothing here blocks or fails: without telemetry the span records nothing.
    pub fn start(mut self) -> ActiveSpan {
        let fixed = self.fixed;
        let mut attributes = std::mem::take(&mut self.attributes);
        let is_under_bridge = layer::has_bridge();
        let (cx, tracing) = if is_under_bridge {
            self.start_under_bridge(&mut attributes)
        } else {
            self.start_by_itself(&mut attributes)
        };
        let is_recording = cx.span().is_recording();
        ActiveSpan {
            cx,
            tracing,
            fixed: fixed | attributes.fixed_by_place(),
            is_recording,
            is_under_bridge,
            was_panicking: std::thread::panicking(),
            state: Mutex::new(State { attributes, failure: None }),
            progress: OnceLock::new(),
        }
    }

    /// Our layer listens: the OpenTelemetry span first, then a tracing span that stands for it.
    fn start_under_bridge(self, attributes: &mut Attributes) -> (Context, tracing::Span) {
        let Self { name, kind, parent, links, .. } = self;
        let kind_text = kind_text(&kind);
        let tracing_name = NameCopy::of(&name);
        let builder = otel_builder(name, kind, Vec::new(), links);
        let cx = match parent {
            Some(parent) => tracer::start_below(&parent, builder, attributes),
            None => Context::map_current(|parent| tracer::start_below(parent, builder, attributes)),
        };
        let tracing = layer::started(&cx, || tracing_span(tracing_name.as_str(), kind_text));
        (cx, tracing)
    }

    /// No layer listens, or one that is not ours: it may make the OpenTelemetry span of the tracing
    /// span.
    fn start_by_itself(self, attributes: &mut Attributes) -> (Context, tracing::Span) {
        let Self { name, kind, parent, links, .. } = self;
        let _attached = parent.map(Context::attach);
        let mut at_start = Vec::new();
        attributes.give_fixed(&mut at_start);
        let handed_over = HandedOver::new(at_start);
        let tracing = tracing_span(&name, kind_text(&kind));
        let left = handed_over.left();
        if let Some(cx) = context_of(&tracing, left.as_deref()) {
            for link in links {
                cx.span().add_link(link.span_context, link.attributes);
            }
            // A layer with our tracer has told whose the span is as its parent says.
            let place = if left.is_some() { Context::current() } else { cx.clone() };
            let mut whose = Vec::new();
            Dimensions::stamp(&place, &mut whose);
            attributes.fix(&whose);
            RoutingTags::stamp_later(&place, attributes);
            return (cx, tracing);
        }
        let builder = otel_builder(name, kind, left.unwrap_or_default(), links);
        let cx = Context::map_current(|parent| tracer::start_below(parent, builder, attributes));
        (cx, tracing)
    }
}

/// Bytes of a name that needs no memory of its own to be copied.
const SHORT_NAME_BYTES: usize = 64;

/// A copy of a span's name, while the OpenTelemetry span has the name itself.
enum NameCopy {
    Short([u8; SHORT_NAME_BYTES], usize),
    Whole(String),
}

impl NameCopy {
    fn of(name: &str) -> Self {
        let mut copy = [0; SHORT_NAME_BYTES];
        match copy.get_mut(..name.len()) {
            Some(start) => {
                start.copy_from_slice(name.as_bytes());
                Self::Short(copy, name.len())
            }
            None => Self::Whole(name.to_owned()),
        }
    }

    fn as_str(&self) -> &str {
        match self {
            // It was a text, so it is one.
            Self::Short(copy, bytes) => std::str::from_utf8(&copy[..*bytes]).unwrap_or_default(),
            Self::Whole(name) => name,
        }
    }
}

fn otel_builder(
    name: Cow<'static, str>,
    kind: SpanKind,
    attributes: Vec<KeyValue>,
    links: Vec<Link>,
) -> opentelemetry::trace::SpanBuilder {
    let builder = opentelemetry::trace::SpanBuilder::from_name(name)
        .with_kind(kind)
        .with_attributes(attributes);
    if links.is_empty() { builder } else { builder.with_links(links) }
}

fn tracing_span(name: &str, kind: &'static str) -> tracing::Span {
    tracing::info_span!(target: TRACING_TARGET, TRACING_NAME, otel.name = name, otel.kind = kind)
}

/// The context that the layer gives the tracing span, if there is a layer, it wants the span, and
/// it really made one: a layer without a tracer hands the parent back. A layer with a tracer of its
/// own has left the attributes, and does not know whose the span is.
fn context_of(tracing: &tracing::Span, left: Option<&[KeyValue]>) -> Option<Context> {
    if tracing.is_disabled() {
        return None;
    }
    let _stamped = left.map(|left| {
        let mut at_start = left.to_vec();
        Context::map_current(|cx| Dimensions::stamp(cx, &mut at_start));
        for entry in at_start {
            tracing.set_attribute(entry.key, entry.value);
        }
        StampGuard::set()
    });
    let cx = tracing.context();
    let parent = Context::map_current(|parent| parent.span().span_context().span_id());
    let span = cx.span();
    let is_new = span.span_context().span_id() != parent;
    (span.span_context().is_valid() && is_new).then_some(cx)
}

fn kind_text(kind: &SpanKind) -> &'static str {
    match kind {
        SpanKind::Client => "client",
        SpanKind::Server => "server",
        SpanKind::Producer => "producer",
        SpanKind::Consumer => "consumer",
        SpanKind::Internal => "internal",
    }
}

/// A span that has started. Dropping it ends it: it is exported then, whether its children have
/// ended or not; a panic that unwinds through it marks it as failed with `error.type=PANIC`, the
/// innermost also with `error.stack`: where it came from, and the backtrace if `RUST_BACKTRACE` asks
/// for one.
#[derive(Debug)]
#[must_use = "a span ends when it is dropped"]
pub struct ActiveSpan {
    cx: Context,
    tracing: tracing::Span,
    /// Keys that went to the span when it started and cannot be replaced: their sampler bits.
    fixed: u16,
    is_recording: bool,
    /// Whether the tracing span stands for this span in our layer.
    is_under_bridge: bool,
    was_panicking: bool,
    state: Mutex<State>,
    /// Made for the first future.
    progress: OnceLock<Arc<Progress>>,
}

/// How far the futures within a span have come.
#[derive(Debug, Default)]
pub(crate) struct Progress(Mutex<Futures>);

#[derive(Debug, Default)]
struct Futures {
    done: u64,
    /// Whether the last that was given up was not outrun by another, as a hedged request is.
    is_given_up: bool,
}

impl Progress {
    /// How many came to their end.
    pub(crate) fn done(&self) -> u64 {
        self.futures().done
    }

    /// One came to its end.
    pub(crate) fn finished(&self) {
        let mut futures = self.futures();
        futures.done += 1;
        futures.is_given_up = false;
    }

    /// One was dropped before its end that was made when `done_before` had come to theirs.
    pub(crate) fn given_up(&self, done_before: u64) {
        let mut futures = self.futures();
        futures.is_given_up |= futures.done == done_before;
    }

    fn is_given_up(&self) -> bool {
        self.futures().is_given_up
    }

    fn futures(&self) -> MutexGuard<'_, Futures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct State {
    /// Held back so that a key is written once, in one call, with its last value.
    attributes: Attributes,
    failure: Option<(ErrorType, String)>,
}

impl ActiveSpan {
    /// Sets an attribute, replacing an earlier value. Attributes that samplers decide by keep the
    /// value they had at the start.
    pub fn set(&self, key: impl Into<Key>, value: impl Into<Value>) {
        self.set_all([KeyValue::new(key, value)]);
    }

    /// Sets several attributes ([`set`](Self::set)).
    pub fn set_all(&self, entries: impl IntoIterator<Item = KeyValue>) {
        if !self.is_recording {
            return;
        }
        for entry in entries {
            if self.fixed & sampler_bit(&entry.key) == 0 {
                // Not held while `entries` computes the next one, which may ask this span.
                let mut state = self.state();
                if let Some(entry) = state.attributes.set(entry) {
                    self.otel().set_attribute(entry);
                }
            }
        }
    }

    /// Notes that something happened now.
    pub fn event(
        &self,
        name: impl Into<Cow<'static, str>>,
        attributes: impl IntoIterator<Item = KeyValue>,
    ) {
        if self.is_recording {
            self.otel().add_event(name, attributes.into_iter().collect());
        }
    }

    /// Relates another span to this one. An invalid context is ignored.
    pub fn link(&self, to: &SpanContext, attributes: Vec<KeyValue>) {
        if to.is_valid() {
            self.otel().add_link(to.clone(), attributes);
        }
    }

    /// Gives the span another name, for when what it does is known only later.
    pub fn rename(&self, name: impl Into<Cow<'static, str>>) {
        self.otel().update_name(name);
    }

    /// Marks the span as failed (requirement R4.3): status ERROR, `error.type`, and `error.message`
    /// for people. The last call counts. A timeout's status message is the word `TIMEOUT`.
    pub fn fail(&self, kind: ErrorType, message: impl Into<String>) {
        self.state().failure = Some((kind, message.into()));
    }

    /// Takes back an earlier [`fail`](Self::fail), and that a future within the span was given up:
    /// the operation succeeded after all.
    pub fn recover(&self) {
        self.state().failure = None;
        if let Some(progress) = self.progress.get() {
            progress.finished();
        }
    }

    /// Sets the business outcome (requirement R1.3).
    pub fn outcome(&self, outcome: Outcome) {
        self.set(keys::OUTCOME, outcome.as_str());
    }

    /// The context in which this span is the active one, for children elsewhere.
    pub fn context(&self) -> Context {
        self.cx.clone()
    }

    /// The span's identity as OpenTelemetry has it.
    pub fn span_context(&self) -> SpanContext {
        self.otel().span_context().clone()
    }

    /// The trace that the span belongs to; `None` without telemetry.
    pub fn trace_id(&self) -> Option<TraceId> {
        TraceId::from_bytes(self.otel().span_context().trace_id().to_bytes())
    }

    /// The span's id; `None` without telemetry.
    pub fn span_id(&self) -> Option<SpanId> {
        SpanId::from_bytes(self.otel().span_context().span_id().to_bytes())
    }

    /// Whether what is set here is kept: `false` without telemetry and when sampled away.
    pub fn is_recording(&self) -> bool {
        self.is_recording
    }

    /// The future within this span: what it starts are children. The span ends with its guard, not
    /// with the future; see [`run`](Self::run). If the future is dropped before it is ready and the
    /// span is told neither an outcome nor a failure afterwards, its outcome is `cancelled`. Where
    /// `tracing::Instrument` is imported too, `(&span).instrument(…)` is this one.
    pub fn instrument<F: Future>(&self, inner: F) -> Instrumented<F> {
        let progress = Arc::clone(self.progress.get_or_init(Arc::default));
        let place = (self.cx.clone(), self.tracing.clone(), self.is_under_bridge);
        Instrumented::new(place, progress, inner)
    }

    /// The stream within this span's context.
    pub fn in_stream<S: futures_util::Stream>(&self, inner: S) -> InContext<S> {
        InContext::new(self.cx.clone(), inner)
    }

    /// The future within this span, which ends with it. If the future is dropped before it is
    /// ready, the span ends with outcome `cancelled`.
    pub fn run<F: Future>(self, inner: F) -> Running<F> {
        Running::new(self, inner)
    }

    /// Runs `work` within this span.
    pub fn in_scope<R>(&self, work: impl FnOnce() -> R) -> R {
        let _entered = Entrance::of(&self.tracing, self.is_under_bridge);
        let _attached = self.cx.clone().attach();
        work()
    }

    /// Ends the span now rather than when the guard goes out of scope.
    pub fn end(self) {}

    fn otel(&self) -> SpanRef<'_> {
        self.cx.span()
    }

    fn is_given_up(&self) -> bool {
        self.progress.get().is_some_and(|progress| progress.is_given_up())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ActiveSpan {
    fn drop(&mut self) {
        if self.is_under_bridge && layer::is_asked() {
            // Somebody may have written on the tracing span, by the traits of the layer's crate.
            let _ = self.tracing.context();
        }
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let (mut attributes, mut failure) =
            (std::mem::take(&mut state.attributes), state.failure.take());
        if failure.is_none() && std::thread::panicking() && !self.was_panicking {
            failure = Some((ErrorType::Panic, "a panic ended the operation".to_owned()));
            attributes.set_at_end(KeyValue::new(keys::OUTCOME, Outcome::Error.as_str()));
            if let Some(stack) = panic_stack::take() {
                attributes.set_at_end(KeyValue::new(keys::ERROR_STACK, stack));
            }
        }
        if failure.is_none() && self.is_given_up() && !attributes.has_outcome() {
            attributes.set_at_end(KeyValue::new(keys::OUTCOME, Outcome::Cancelled.as_str()));
        }
        let span = self.otel();
        let mut maybe_twice = 0;
        if self.is_recording {
            if let Some((kind, message)) = failure {
                let status = match kind {
                    ErrorType::Timeout => kind.as_str().to_owned(),
                    _ => message.clone(),
                };
                attributes.set_at_end(KeyValue::new(keys::ERROR_TYPE, kind.as_str()));
                attributes.set_at_end(KeyValue::new(keys::ERROR_MESSAGE, message));
                span.set_status(Status::error(status));
            }
            maybe_twice = attributes.maybe_twice();
            span.set_attributes(attributes.entries);
        }
        // The OpenTelemetry span ends here, so its export waits for no child. When the tracing span
        // closes later, its layer ends the same span again, which does nothing.
        tracer::ending(maybe_twice, || span.end());
    }
}
