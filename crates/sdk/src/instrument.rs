//! Futures and streams that carry a span or a context: attached at every poll and, unlike the
//! wrappers of `tracing` and `opentelemetry`, also while the inner value is dropped, so that what
//! ends there ends inside its own trace.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Poller, Poll};

use futures_util::Stream;
use opentelemetry::Context;
use pin_project_lite::pin_project;

use crate::layer::Entrance;
use crate::metrics::Outcome;
use crate::span::{ActiveSpan, Progress};

pin_project! {
    /// A future within a span: made by [`ActiveSpan::instrument`]. Dropped before it is ready, it
    /// leaves the span as given up, which is then cancelled unless it is told something else.
    #[must_use = "futures do nothing unless polled"]
    pub struct Instrumented<F> {
        #[pin]
        inner: Option<F>,
        cx: Context,
        span: tracing::Span,
        // Whether the tracing span stands for that of the context in our layer.
        is_ours: bool,
        progress: Arc<Progress>,
        // How many futures of the span had come to their end when this one was made.
        done_before: u64,
    }

    impl<F> PinnedDrop for Instrumented<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if this.inner.is_none() {
                return;
            }
            let _entered = Entrance::of(this.span, *this.is_ours);
            let _attached = this.cx.clone().attach();
            this.inner.set(None);
            this.progress.given_up(*this.done_before);
        }
    }
}

impl<F> Instrumented<F> {
    pub(crate) fn new(
        (cx, span, is_ours): (Context, tracing::Span, bool),
        progress: Arc<Progress>,
        inner: F,
    ) -> Self {
        let done_before = progress.done();
        Self { inner: Some(inner), cx, span, is_ours, progress, done_before }
    }
}

impl<F: Future> Future for Instrumented<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        // The tracing span first: its layer attaches the context that it knows; ours goes on top.
        // The other way round the parent would be lost.
        let _entered = Entrance::of(this.span, *this.is_ours);
        let _attached = this.cx.clone().attach();
        let polled = match this.inner.as_mut().as_pin_mut() {
            Some(inner) => inner.poll(poller),
            None => return Poll::Pending,
        };
        if polled.is_ready() {
            this.inner.set(None);
            this.progress.finished();
        }
        polled
    }
}

pin_project! {
    /// A future or stream within an OpenTelemetry context: made by [`in_context`],
    /// [`Dimensions::scope`](crate::Dimensions::scope) and [`ActiveSpan::in_stream`].
    #[must_use = "futures and streams do nothing unless polled"]
    pub struct InContext<T> {
        #[pin]
        inner: Option<T>,
        cx: Context,
    }

    impl<T> PinnedDrop for InContext<T> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let _attached = this.cx.clone().attach();
            this.inner.set(None);
        }
    }
}

impl<T> InContext<T> {
    pub(crate) fn new(cx: Context, inner: T) -> Self {
        Self { inner: Some(inner), cx }
    }
}

/// The future or stream with `cx` current whenever it is polled or dropped.
pub fn in_context<T>(cx: Context, inner: T) -> InContext<T> {
    InContext::new(cx, inner)
}

impl<F: Future> Future for InContext<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _attached = this.cx.clone().attach();
        match this.inner.as_pin_mut() {
            Some(inner) => inner.poll(poller),
            None => Poll::Pending,
        }
    }
}

impl<S: Stream> Stream for InContext<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<Option<S::Item>> {
        let this = self.project();
        let _attached = this.cx.clone().attach();
        match this.inner.as_pin_mut() {
            Some(inner) => inner.poll_next(poller),
            None => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.inner.as_ref().map_or((0, Some(0)), Stream::size_hint)
    }
}

pin_project! {
    /// A future that owns its span and ends it: made by [`ActiveSpan::run`]. Dropped before it is
    /// ready, it leaves the span with outcome `cancelled`.
    #[must_use = "futures do nothing unless polled"]
    pub struct Running<F> {
        #[pin]
        inner: Option<F>,
        span: Option<ActiveSpan>,
    }

    impl<F> PinnedDrop for Running<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(span) = this.span.take() {
                if !std::thread::panicking() {
                    span.outcome(Outcome::Cancelled);
                }
                // The future goes first: what it writes while dropped still finds its span open.
                span.in_scope(|| this.inner.set(None));
            }
        }
    }
}

impl<F> Running<F> {
    pub(crate) fn new(span: ActiveSpan, inner: F) -> Self {
        Self { inner: Some(inner), span: Some(span) }
    }
}

impl<F: Future> Future for Running<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        let Some(span) = this.span.as_ref() else { return Poll::Pending };
        let polled = span.in_scope(|| match this.inner.as_mut().as_pin_mut() {
            Some(inner) => inner.poll(poller),
            None => Poll::Pending,
        });
        if polled.is_ready() {
            span.in_scope(|| this.inner.set(None));
            *this.span = None;
        }
        polled
    }
}
