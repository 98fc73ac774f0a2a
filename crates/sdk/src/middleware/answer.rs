//! The answer that a server or a client waits for, within its span: first the head, then the body.

use std::pin::Pin;
use std::task::{Context as Poller, Poll, ready};

use bytes::Buf;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use throughline_trace::ErrorType;

use super::exchange::fault_of;
use crate::instrument::Instrumented;
use crate::span::ActiveSpan;

/// Whoever keeps the span of a request that is under way. Dropped before one of the ends was told,
/// the request was given up.
pub(super) trait Watch: Send + Sync {
    /// The span.
    fn span(&self) -> &ActiveSpan;

    /// The head of the answer has come.
    fn head(&mut self, status: StatusCode, headers: &HeaderMap);

    /// These bytes of the body have come; `None` stands for some that cannot be looked at.
    fn data(&mut self, _bytes: Option<&[u8]>) {}

    /// Nothing has come yet; whoever waits for something else has itself woken.
    fn poll_idle(&mut self, _poller: &mut Poller<'_>) {}

    /// The trailers have come.
    fn trailers(&mut self, _trailers: &HeaderMap) {}

    /// The answer is complete.
    fn end(self: Box<Self>);

    /// There was no answer, or it broke off.
    fn broke(self: Box<Self>, kind: ErrorType, cause: String);

    /// The reader dropped the body before its end, having read some of it or none.
    fn given_up(self: Box<Self>, was_read: bool);
}

pin_project! {
    /// The answer of a traced service. Dropped before it is there, its span ends as cancelled.
    #[must_use = "futures do nothing unless polled"]
    pub struct TracedAnswer<F> {
        // Dropped before the span: what it writes while dropped still finds it open.
        #[pin]
        inner: Instrumented<F>,
        // Until the head has come.
        watch: Option<Box<dyn Watch>>,
        // An answer to HEAD has no body, whatever its headers say.
        is_head: bool,
    }
}

impl<F> TracedAnswer<F> {
    /// What `ask` starts, within the span of `watch`.
    pub(super) fn new(method: &Method, watch: Box<dyn Watch>, ask: impl FnOnce() -> F) -> Self
    where
        F: Future,
    {
        let asking = watch.span().in_scope(ask);
        let inner = watch.span().instrument(asking);
        Self { inner, watch: Some(watch), is_head: method == Method::HEAD }
    }
}

impl<F, R, E> Future for TracedAnswer<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: std::fmt::Display + 'static,
    R: Body,
{
    type Output = Result<Response<TracedBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.inner.poll(poller));
        let Some(mut watch) = this.watch.take() else { return Poll::Pending };
        Poll::Ready(match answer {
            Ok(response) => {
                watch.head(response.status(), response.headers());
                let is_head = *this.is_head;
                Ok(response.map(|body| TracedBody::new(body, watch, is_head)))
            }
            Err(error) => {
                let (kind, cause) = fault_of(&error);
                watch.broke(kind, cause);
                Err(error)
            }
        })
    }
}

impl<F> std::fmt::Debug for TracedAnswer<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TracedAnswer").finish_non_exhaustive()
    }
}

pin_project! {
    /// The body of an answer within its span, which ends with it. Bytes pass as they come.
    #[must_use = "a body does nothing unless polled"]
    pub struct TracedBody<B> {
        #[pin]
        inner: Option<B>,
        // Until the body is complete.
        watch: Option<Box<dyn Watch>>,
        // Bytes that are still to come, where the body says how many it has.
        left: Option<u64>,
        was_read: bool,
    }

    impl<B> PinnedDrop for TracedBody<B> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let Some(watch) = this.watch.take() else { return };
            watch.span().in_scope(|| this.inner.set(None));
            // Servers and clients stop reading at the last byte that they expect.
            match this.left {
                Some(0) => watch.end(),
                _ => watch.given_up(*this.was_read),
            }
        }
    }
}

impl<B: Body> TracedBody<B> {
    /// The body, whose end `watch` is told. An empty one, and one that nobody will read, has ended
    /// already.
    fn new(inner: B, watch: Box<dyn Watch>, is_head: bool) -> Self {
        let left = inner.size_hint().exact();
        if is_head || inner.is_end_stream() {
            watch.end();
            return Self { inner: Some(inner), watch: None, left, was_read: false };
        }
        Self { inner: Some(inner), watch: Some(watch), left, was_read: false }
    }
}

impl<B: Body> Body for TracedBody<B>
where
    B::Error: std::fmt::Display + 'static,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        poller: &mut Poller<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let Some(mut inner) = this.inner.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        *this.was_read = true;
        let Some(watch) = this.watch.as_mut() else { return inner.poll_frame(poller) };
        let polled = watch.span().in_scope(|| inner.as_mut().poll_frame(poller));
        let polled = match polled {
            Poll::Ready(polled) => polled,
            Poll::Pending => {
                watch.poll_idle(poller);
                return Poll::Pending;
            }
        };
        let is_over = match &polled {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let first = data.chunk();
                    watch.data((first.len() == data.remaining()).then_some(first));
                    let bytes = data.remaining() as u64;
                    *this.left = this.left.map(|left| left.saturating_sub(bytes));
                } else if let Some(trailers) = frame.trailers_ref() {
                    watch.trailers(trailers);
                }
                // Nothing comes after trailers.
                frame.is_trailers() || inner.is_end_stream()
            }
            Some(Err(error)) => {
                let (kind, cause) = fault_of(error);
                if let Some(watch) = this.watch.take() {
                    watch.broke(kind, cause);
                }
                false
            }
            None => true,
        };
        if is_over && let Some(watch) = this.watch.take() {
            watch.end();
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl<B> std::fmt::Debug for TracedBody<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let is_ended = self.watch.is_none();
        f.debug_struct("TracedBody").field("is_ended", &is_ended).finish_non_exhaustive()
    }
}
