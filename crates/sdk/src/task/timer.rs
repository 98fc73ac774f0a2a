//! Delayed and repeated work that keeps its trace.

use std::borrow::Cow;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::span::span;
use crate::task::{Origin, spawn};

/// Shortest period of [`every`]: a period of zero is none.
const SHORTEST_PERIOD: Duration = Duration::from_millis(1);

/// Starts a task that runs the future after `delay`, in the surroundings of this line. Abort the
/// handle to call it off.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// use std::time::Duration;
///
/// let reminder = throughline::task::after(Duration::from_millis(5), async { "still open" });
/// assert_eq!(reminder.await?, "still open");
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
/// Outside a tokio runtime with its timer on.
#[track_caller]
pub fn after<F>(delay: Duration, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    spawn(async move {
        tokio::time::sleep(delay).await;
        future.await
    })
}

/// Starts a task that does `work` every `period` (at least 1 ms) until its handle is aborted, the
/// first time at once. Work that takes longer than the period delays the next.
///
/// Each time is a trace of its own, whose span bears this name and links to the span that is current
/// here: a trace that grew for as long as the process lives would be of no use to anybody.
/// Dimensions, baggage and telemetry are those of this line. The `tracing` span that is current here
/// is not kept: it ends when its own work does, however long the repetitions go on.
///
/// # Panics
/// Outside a tokio runtime with its timer on.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "it carries all but the host's `tracing` span")]
pub fn every<W, F>(name: impl Into<Cow<'static, str>>, period: Duration, work: W) -> JoinHandle<()>
where
    W: FnMut() -> F + Send + 'static,
    F: Future + Send + 'static,
{
    let here = Context::current();
    let starter = here.span().span_context().clone();
    let apart = here.with_remote_span_context(SpanContext::NONE);
    let (name, mut work) = (name.into(), work);
    let mut ticks = tokio::time::interval(period.max(SHORTEST_PERIOD));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let _attached = apart.attach();
    tokio::spawn(Origin::here().detached().carry(Box::pin(async move {
        loop {
            ticks.tick().await;
            let one = span(name.clone()).link(&starter, Vec::new()).start();
            let future = one.in_scope(&mut work);
            one.run(future).await;
        }
    })))
}
