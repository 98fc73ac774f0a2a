//! Where work comes from, and values that remember it: [`Origin`] and [`Carried`].

use std::fmt;
use std::pin::Pin;
use std::task::{Context as Poller, Poll};

use futures_util::Stream;
use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use opentelemetry::{Context, ContextGuard};
use pin_project_lite::pin_project;
use tracing::Dispatch;
use tracing::dispatcher::{self, DefaultGuard};
use tracing::subscriber::NoSubscriber;
use tracing_subscriber::Registry;

use crate::layer::{EnteredScene, Scene};
use crate::span::SpanBuilder;

/// The surroundings of the code that starts some work: the OpenTelemetry context (with its trace,
/// [`Dimensions`](crate::Dimensions), baggage and [`Telemetry`](crate::Telemetry)), the current
/// `tracing` span, and the `tracing` subscriber.
///
/// The functions of [`task`](crate::task) take it along for you. By itself it serves executors and
/// callbacks that they do not know:
///
/// ```
/// use throughline::task::Origin;
///
/// # struct Button; impl Button { fn on_click(&self, work: impl Fn() + 'static) { work() } }
/// # let button = Button;
/// let here = Origin::here();
/// button.on_click(move || here.run(|| tracing::info!("clicked, in the trace that drew the button")));
/// ```
#[derive(Clone)]
pub struct Origin {
    cx: Context,
    /// The subscriber and its span.
    scene: Scene,
    /// Which subscriber that is, if it can be told from others.
    identity: Option<usize>,
}

impl Origin {
    /// The surroundings of this line.
    pub fn here() -> Self {
        let scene = Scene::current();
        let identity = identity_of(&scene.subscriber);
        Self { cx: Context::current(), scene, identity }
    }

    /// The same without the `tracing` span, for work that outlives it. A span of the host's that is
    /// carried stays open until the work ends, as with `tracing`'s own `in_current_span`; a span of
    /// the SDK ends when its guard goes, whoever carries it.
    pub fn detached(mut self) -> Self {
        self.scene.leave_span();
        self
    }

    /// The OpenTelemetry context.
    pub fn context(&self) -> &Context {
        &self.cx
    }

    /// The span that was current, to link to. Invalid when there was none.
    pub fn span_context(&self) -> SpanContext {
        self.cx.span().span_context().clone()
    }

    /// Runs `work` in these surroundings. Those of the thread are back afterwards, also after a
    /// panic.
    pub fn run<R>(&self, work: impl FnOnce() -> R) -> R {
        let _entered = self.enter();
        work()
    }

    /// A value that remembers these surroundings.
    pub fn carry<T>(self, value: T) -> Carried<T> {
        Carried { value: Some(value), origin: self }
    }

    /// Declared so that the fields go in this order: the context that the layer attached for the
    /// span goes after ours and before the subscriber.
    fn enter(&self) -> Inside<'_> {
        let subscriber = (!self.is_current_subscriber())
            .then(|| dispatcher::set_default(&self.scene.subscriber));
        // The span before the context: its layer attaches the context that it knows, ours goes on
        // top. It is attached also when empty: whatever was left on the thread is then hidden.
        let span = self.scene.enter_span();
        let context = self.cx.clone().attach();
        Inside { _context: context, _span: span, _subscriber: subscriber }
    }

    /// A scoped default slows `tracing` down in every thread, so it is set only where it changes
    /// something.
    fn is_current_subscriber(&self) -> bool {
        self.identity.is_some()
            && dispatcher::get_default(|current| identity_of(current) == self.identity)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = self.span_context();
        f.debug_struct("Origin")
            .field("trace_id", &span.trace_id())
            .field("span_id", &span.span_id())
            .finish_non_exhaustive()
    }
}

/// The thread within an [`Origin`].
struct Inside<'a> {
    _context: ContextGuard,
    _span: EnteredScene<'a>,
    _subscriber: Option<DefaultGuard>,
}

/// The address of what keeps the subscriber's spans, which it owns: two subscribers that live at
/// the same time differ in it. A subscriber that is built on something else than a registry has
/// none; it is set anew each time.
fn identity_of(subscriber: &Dispatch) -> Option<usize> {
    match subscriber.downcast_ref::<Registry>() {
        Some(registry) => Some(std::ptr::from_ref(registry).addr()),
        None => subscriber.is::<NoSubscriber>().then_some(0),
    }
}

pin_project! {
    /// A value together with the surroundings of who made it, for channels, queues and the like. A
    /// carried future or stream is itself one, polled in those surroundings; and whatever is
    /// carried is dropped in them, so that what ends there ends inside its own trace.
    ///
    /// ```
    /// use throughline::task::Carried;
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let (sender, mut receiver) = tokio::sync::mpsc::channel(8);
    /// sender.send(Carried::new("order-17")).await?;
    ///
    /// let order = receiver.recv().await.expect("an order");
    /// order.enter(|order| tracing::info!(order, "in the trace of the sender"));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use = "futures and streams do nothing unless polled"]
    pub struct Carried<T> {
        #[pin]
        value: Option<T>,
        origin: Origin,
    }

    impl<T> PinnedDrop for Carried<T> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if this.value.is_some() {
                this.origin.run(|| this.value.set(None));
            }
        }
    }
}

impl<T> Carried<T> {
    /// The value with the surroundings of this line.
    pub fn new(value: T) -> Self {
        Origin::here().carry(value)
    }

    /// Where the value comes from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Runs `work` with the value, in the sender's surroundings.
    pub fn enter<R>(mut self, work: impl FnOnce(T) -> R) -> R {
        match self.value.take() {
            Some(value) => self.origin.run(|| work(value)),
            // Only `enter` and `with` take the value, and they take all of this with it.
            None => unreachable!("a carried value is taken once"),
        }
    }

    /// The future that `work` makes of the value, in the sender's surroundings.
    pub fn with<F: Future>(mut self, work: impl FnOnce(T) -> F) -> Carried<F> {
        let origin = self.origin.clone();
        let future = self.value.take().map(|value| origin.run(|| work(value)));
        Carried { value: future, origin }
    }

    /// The span builder with a link to the sender's span, for a receiver that goes on in a trace of
    /// its own, as the reader of a batch does.
    pub fn linked(&self, span: SpanBuilder) -> SpanBuilder {
        span.link(&self.origin.span_context(), Vec::new())
    }
}

impl<F: Future> Future for Carried<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        let _inside = this.origin.enter();
        let polled = match this.value.as_mut().as_pin_mut() {
            Some(inner) => inner.poll(poller),
            None => Poll::Pending,
        };
        if polled.is_ready() {
            // Dropped here, it need not be entered once more.
            this.value.set(None);
        }
        polled
    }
}

impl<S: Stream> Stream for Carried<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<Option<S::Item>> {
        let this = self.project();
        let _inside = this.origin.enter();
        match this.value.as_pin_mut() {
            Some(inner) => inner.poll_next(poller),
            None => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.value.as_ref().map_or((0, Some(0)), Stream::size_hint)
    }
}

impl<T: fmt::Debug> fmt::Debug for Carried<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Carried").field("value", &self.value).field("origin", &self.origin).finish()
    }
}
