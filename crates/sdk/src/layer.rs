//! The bridge from `tracing` spans to OpenTelemetry: [`layer`].

use std::any::TypeId;
use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry::Context as OtelContext;
use tracing::dispatcher::{self, Dispatch};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Entered, Id, Record};
use tracing::{Metadata, Subscriber};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterFn, Filtered, filter_fn};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::layer_company::{self, Company};
use crate::layer_untold::{Mirror, Untold};
use crate::tracer::SdkTracer;

/// The layer that turns `tracing` spans into OpenTelemetry spans, the SDK's own among them.
pub type SpanLayer<S> = Filtered<Bridge<S>, SpanFilter, S>;

/// Lets spans of a level through, and no events: those go to the log bridge, and an `error!` must
/// not make a span fail.
pub type SpanFilter = FilterFn<Box<dyn Fn(&Metadata<'_>) -> bool + Send + Sync>>;

/// The layer for a subscriber that you put together yourself; [`Telemetry`](crate::Telemetry) puts
/// one together when there is none. It takes spans of level INFO and above.
///
/// Beside another layer of `tracing-opentelemetry`, or a second one of ours, it does nothing: that one
/// makes an OpenTelemetry span of every `tracing` span, with its own tracer provider, and the SDK's
/// spans join its traces. Put ours on top of it: one that is above is seen only once there is a span, and
/// the SDK's span is told to both if it is the first.
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
    let company = Arc::new(Company::default());
    let other = Arc::clone(&company);
    let wanted: Box<dyn Fn(&Metadata<'_>) -> bool + Send + Sync> = Box::new(move |metadata| {
        metadata.is_span() && metadata.level() <= &level && !other.is_second()
    });
    let bridge = Bridge { spans: spans_layer(), company, untold: Untold::default() };
    bridge.with_filter(filter_fn(wanted))
}

fn spans_layer<S>() -> OpenTelemetryLayer<S, SdkTracer>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    OpenTelemetryLayer::new(SdkTracer)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_error_fields_to_exceptions(false)
        .with_error_records_to_exceptions(false)
        .with_error_events_to_exceptions(false)
        .with_error_events_to_status(false)
}

/// What the tracing spans of ours are called; their OpenTelemetry name is a field.
pub(crate) const TRACING_NAME: &str = "span";

/// The target of the tracing spans of ours.
pub(crate) const TRACING_TARGET: &str = "throughline";

/// The layer of `tracing-opentelemetry`, which is spared the spans of ours: those start, attach their
/// context and end by themselves. It only learns which context is theirs, once somebody asks it (a child
/// with an explicit parent, `OpenTelemetrySpanExt`, a follower, who enters a handle).
pub struct Bridge<S> {
    spans: OpenTelemetryLayer<S, SdkTracer>,
    /// Who else makes OpenTelemetry spans in the subscriber: two would give each span two lives, and
    /// `tracing-opentelemetry` panics then.
    company: Arc<Company>,
    /// The spans of ours that the layer has not learnt of.
    untold: Untold,
}

impl<S> fmt::Debug for Bridge<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bridge").field("company", &self.company).finish_non_exhaustive()
    }
}

/// Stands for every [`Bridge`], whatever subscriber it is for.
struct AnyBridge;

impl<S> Layer<S> for Bridge<S>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    fn on_layer(&mut self, subscriber: &mut S) {
        let below: &dyn Subscriber = subscriber;
        self.company.look_below(below, || below.is::<AnyBridge>());
        self.spans.on_layer(subscriber);
    }

    fn on_register_dispatch(&self, subscriber: &Dispatch) {
        self.company.is_in(subscriber);
        self.spans.on_register_dispatch(subscriber);
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, cx: Context<'_, S>) {
        self.company.look_above(id, |whole| whole.is::<AnyBridge>());
        let metadata = attributes.metadata();
        if self.company.is_second() {
            return;
        }
        if !is_ours(metadata) {
            if let Some(parent) = attributes.parent() {
                self.tell(parent, &cx);
            }
            return self.spans.on_new_span(attributes, id, cx);
        }
        // Without a mark it comes from a subscriber that hides this layer from who started it.
        match MARK.get() {
            Mark::Started => {
                with_nothing(metadata, |nothing| self.spans.on_new_span(nothing, id, cx));
            }
            Mark::Kept => MARK.set(Mark::Seen),
            _ => {}
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, cx: Context<'_, S>) {
        if self.company.is_second() {
            return;
        }
        self.activate(id, &cx);
        self.spans.on_record(id, values, cx);
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, cx: Context<'_, S>) {
        if self.company.is_second() {
            return;
        }
        self.tell(follows, &cx);
        self.activate(id, &cx);
        self.spans.on_follows_from(id, follows, cx);
    }

    fn on_enter(&self, id: &Id, cx: Context<'_, S>) {
        if MARK.get() != Mark::Entered && !self.company.is_second() {
            self.tell(id, &cx);
            self.spans.on_enter(id, cx);
        }
    }

    fn on_exit(&self, id: &Id, cx: Context<'_, S>) {
        if MARK.get() != Mark::Entered && !self.company.is_second() {
            self.spans.on_exit(id, cx);
        }
    }

    fn on_close(&self, id: Id, cx: Context<'_, S>) {
        // One of ours has been ended by its guard.
        let is_over = self.company.is_second() || self.untold.forget(&id);
        if !is_over && !cx.metadata(&id).is_some_and(is_ours) {
            self.spans.on_close(id, cx);
        }
    }

    /// Every extension trait of `tracing-opentelemetry` asks for its layer this way.
    #[expect(unsafe_code, reason = "a layer around another one has no other way to be found")]
    unsafe fn downcast_raw(&self, id: TypeId) -> Option<*const ()> {
        if self.company.is_second() {
            return None;
        }
        if id == TypeId::of::<Self>() || id == TypeId::of::<AnyBridge>() {
            return Some(std::ptr::from_ref(self).cast());
        }
        if id == TypeId::of::<Untold>() {
            return Some(std::ptr::from_ref(&self.untold).cast());
        }
        // SAFETY: as this function's; the inner layer lives as long as this one.
        let found = unsafe { self.spans.downcast_raw(id) };
        let is_inner = id == TypeId::of::<OpenTelemetryLayer<S, SdkTracer>>();
        if found.is_some() && !is_inner && layer_company::answers_others() {
            // Spans that start from here on are told of at once; those that are open are told of now.
            IS_ASKED.store(true, Ordering::SeqCst);
            self.tell_all();
        }
        found
    }
}

impl<S> Bridge<S>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    /// Tells the inner layer of a span, if it is one of ours that it has not learnt of.
    fn tell(&self, id: &Id, cx: &Context<'_, S>) {
        self.untold.tell(id, |id| {
            if let Some(metadata) = cx.metadata(id) {
                with_nothing(metadata, |nothing| {
                    marked(Mark::Started, || self.spans.on_new_span(nothing, id, cx.clone()));
                });
            }
        });
    }

    /// Tells it of all such spans. Whoever asks says for which one only when it is too late.
    fn tell_all(&self) {
        let Some(whole) = self.company.whole() else { return };
        self.untold.tell_all(|id| {
            let all = whole.downcast_ref::<S>();
            if let Some(metadata) = all.and_then(|all| Some(all.span(id)?.metadata())) {
                with_nothing(metadata, |nothing| {
                    marked(Mark::Started, || Mirror::<S>::show(spans_layer(), &whole, id, nothing));
                });
            }
        });
    }

    /// Lets the inner layer start what it keeps for a span of ours: what is written then reaches the
    /// OpenTelemetry span, and not a builder that nobody asks any more.
    fn activate(&self, id: &Id, cx: &Context<'_, S>) {
        self.tell(id, cx);
        if cx.metadata(id).is_some_and(is_ours) {
            self.spans.on_enter(id, cx.clone());
            self.spans.on_exit(id, cx.clone());
        }
    }
}

/// A span of which nothing is said: what it is called and what it bears, its OpenTelemetry span knows
/// already.
fn with_nothing(metadata: &'static Metadata<'static>, tell: impl FnOnce(&Attributes<'_>)) {
    let nothing = metadata.fields().value_set(&[]);
    tell(&Attributes::new(metadata, &nothing));
}

/// Whether the current subscriber has our layer.
pub(crate) fn has_bridge() -> bool {
    dispatcher::get_default(|subscriber| subscriber.is::<AnyBridge>())
}

/// Whether the tracing span that is being made has its OpenTelemetry span in the current context.
pub(crate) fn is_for_started() -> bool {
    MARK.get() == Mark::Started
}

/// Whether a tracing span is one of ours.
pub(crate) fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.name() == TRACING_NAME && metadata.target() == TRACING_TARGET
}

/// Whether anybody has used the extension traits of `tracing-opentelemetry`: what they wrote on a
/// tracing span of ours is then to be fetched before it ends.
pub(crate) fn is_asked() -> bool {
    IS_ASKED.load(Ordering::Relaxed)
}

static IS_ASKED: AtomicBool = AtomicBool::new(false);

/// What the layer is told of the call that it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Nothing,
    /// The tracing span is being made for the OpenTelemetry span of the current context.
    Started,
    /// It is being made for an OpenTelemetry span whose context is kept until somebody asks.
    Kept,
    /// And a layer of ours has seen it.
    Seen,
    /// The tracing span is one of ours, and who enters it attaches the context.
    Entered,
}

thread_local! {
    static MARK: Cell<Mark> = const { Cell::new(Mark::Nothing) };
}

/// A mark for the layer while `work` calls it. It is off when anything else can run on the thread.
fn marked<R>(mark: Mark, work: impl FnOnce() -> R) -> R {
    let before = MARK.replace(mark);
    let result = work();
    MARK.set(before);
    result
}

/// Makes a tracing span for the OpenTelemetry span of a context.
pub(crate) fn started(cx: &OtelContext, make: impl FnOnce() -> tracing::Span) -> tracing::Span {
    if is_asked() {
        let _attached = cx.clone().attach();
        return marked(Mark::Started, make);
    }
    let (span, is_seen) = marked(Mark::Kept, || (make(), MARK.get() == Mark::Seen));
    if is_seen {
        // Not before all layers have seen it: one of them may ask for another span's context, and
        // hold what is kept of this one meanwhile.
        span.with_subscriber(|(id, subscriber)| {
            if let Some(untold) = subscriber.downcast_ref::<Untold>() {
                untold.keep(id, cx.clone());
            }
        });
    }
    span
}

/// A tracing span that is entered by who attaches its context too. Our layer need not do that for
/// one of ours.
pub(crate) struct Entrance<'a> {
    entered: Option<Entered<'a>>,
    mark: Mark,
}

impl<'a> Entrance<'a> {
    pub(crate) fn of(span: &'a tracing::Span, is_ours: bool) -> Self {
        let mark = if is_ours { Mark::Entered } else { Mark::Nothing };
        Self { entered: (!span.is_none()).then(|| marked(mark, || span.enter())), mark }
    }
}

impl Drop for Entrance<'_> {
    fn drop(&mut self) {
        if let Some(entered) = self.entered.take() {
            marked(self.mark, || drop(entered));
        }
    }
}

/// A subscriber and the span that was current with it, which stays open as long as this lives: what
/// [`tracing::Span::current`] and the subscriber beside it are, with one hold on the subscriber
/// instead of two.
pub(crate) struct Scene {
    pub(crate) subscriber: Dispatch,
    span: Option<Id>,
    mark: Mark,
}

impl Scene {
    /// That of this line.
    pub(crate) fn current() -> Self {
        dispatcher::get_default(|subscriber| {
            let (span, mark) = match subscriber.current_span().into_inner() {
                Some((id, metadata)) => {
                    let mark = if is_ours(metadata) { Mark::Entered } else { Mark::Nothing };
                    (Some(subscriber.clone_span(&id)), mark)
                }
                None => (None, Mark::Nothing),
            };
            Self { subscriber: subscriber.clone(), span, mark }
        })
    }

    /// Leaves the span, if there is one.
    pub(crate) fn leave_span(&mut self) {
        if let Some(id) = self.span.take() {
            self.subscriber.try_close(id);
        }
    }

    /// The span is entered until what this answers goes.
    pub(crate) fn enter_span(&self) -> EnteredScene<'_> {
        if let Some(id) = &self.span {
            marked(self.mark, || self.subscriber.enter(id));
        }
        EnteredScene(self)
    }
}

impl Clone for Scene {
    fn clone(&self) -> Self {
        let span = self.span.as_ref().map(|id| self.subscriber.clone_span(id));
        Self { subscriber: self.subscriber.clone(), span, mark: self.mark }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.leave_span();
    }
}

/// The thread within the span of a [`Scene`].
pub(crate) struct EnteredScene<'a>(&'a Scene);

impl Drop for EnteredScene<'_> {
    fn drop(&mut self) {
        let Scene { subscriber, span, mark } = self.0;
        if let Some(id) = span {
            marked(*mark, || subscriber.exit(id));
        }
    }
}
