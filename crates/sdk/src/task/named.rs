//! Tasks that are a span each.

use std::borrow::Cow;

use opentelemetry::{Key, Value};
use tokio::task::JoinHandle;

use crate::SpanKind;
use crate::metrics::Outcome;
use crate::span::{ActiveSpan, SpanBuilder, span};
use crate::task::{self, JobHandle, PoolClosed, WorkerPool};

/// A task with a span of this name, below the current span. The span begins when the task is
/// started, so it shows the time that the task waited, and ends with it: with outcome `cancelled`
/// when the task is aborted or the runtime goes down, with `error.type=PANIC` when it panics.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let rows = throughline::task::named("reindex").attribute("index", "orders").spawn(async { 17 });
/// assert_eq!(rows.await?, 17);
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn named(name: impl Into<Cow<'static, str>>) -> NamedTask {
    NamedTask { span: span(name) }
}

/// A task that has not started.
#[derive(Debug, Clone)]
#[must_use = "a task starts with `spawn` and its like"]
pub struct NamedTask {
    span: SpanBuilder,
}

impl NamedTask {
    /// The span's kind.
    pub fn kind(self, kind: SpanKind) -> Self {
        Self { span: self.span.kind(kind) }
    }

    /// An attribute of the span.
    pub fn attribute(self, key: impl Into<Key>, value: impl Into<Value>) -> Self {
        Self { span: self.span.attribute(key, value) }
    }

    /// [`task::spawn`] within the span.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[track_caller]
    pub fn spawn<F>(self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        task::spawn(self.span.start().run(future))
    }

    /// [`task::spawn_local`] within the span.
    ///
    /// # Panics
    /// Outside a [`tokio::task::LocalSet`].
    #[track_caller]
    pub fn spawn_local<F>(self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        task::spawn_local(self.span.start().run(future))
    }

    /// [`task::spawn_blocking`] within the span.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[track_caller]
    pub fn spawn_blocking<F, R>(self, work: F) -> JoinHandle<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        task::spawn_blocking(within(self.span.start(), work))
    }

    /// [`WorkerPool::submit`] within the span.
    ///
    /// # Errors
    /// [`PoolClosed`] after the pool's shutdown.
    pub async fn submit<F, R>(self, pool: &WorkerPool, work: F) -> Result<JobHandle<R>, PoolClosed>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        pool.submit(within(self.span.start(), work)).await
    }
}

/// The work within the span, which ends with it, or is cancelled when nobody comes to it.
fn within<R>(span: ActiveSpan, work: impl FnOnce() -> R) -> impl FnOnce() -> R {
    let waiting = Waiting(Some(span));
    move || {
        let span = { waiting }.0.take();
        match &span {
            Some(span) => span.in_scope(work),
            None => work(),
        }
    }
}

/// The span of work that has not begun.
struct Waiting(Option<ActiveSpan>);

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(span) = self.0.take() {
            span.outcome(Outcome::Cancelled);
        }
    }
}
