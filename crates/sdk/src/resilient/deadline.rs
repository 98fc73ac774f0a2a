//! When everything below must be over, or must have begun to answer, whatever its own policies say:
//! how a latency budget and the limit of a fallback's branch are kept.

use std::time::Duration;

use opentelemetry::Context;
use tokio::time::Instant;

/// A deadline that a context carries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Instant);

/// A deadline that a context carries for the beginning of a streamed answer.
#[derive(Debug, Clone, Copy)]
struct OpeningDeadline(Instant);

impl Deadline {
    /// `cx` with a deadline so long from now, unless it has an earlier one.
    pub(crate) fn within(budget: Duration, cx: &Context) -> Context {
        let Some(at) = Instant::now().checked_add(budget) else { return cx.clone() };
        let at = cx.get::<Self>().map_or(at, |outer| outer.0.min(at));
        cx.with_value(Self(at))
    }

    /// `cx` with a deadline so long from now for the first token of streamed answers, unless it has
    /// an earlier one.
    pub(crate) fn of_opening(limit: Duration, cx: &Context) -> Context {
        let Some(at) = Instant::now().checked_add(limit) else { return cx.clone() };
        let at = cx.get::<OpeningDeadline>().map_or(at, |outer| outer.0.min(at));
        cx.with_value(OpeningDeadline(at))
    }

    /// The deadline of the current context.
    pub(crate) fn current() -> Option<Instant> {
        Context::map_current(|cx| cx.get::<Self>().map(|deadline| deadline.0))
    }

    /// The deadline of the current context for the first token of a streamed answer.
    pub(crate) fn current_opening() -> Option<Instant> {
        Context::map_current(|cx| cx.get::<OpeningDeadline>().map(|deadline| deadline.0))
    }
}
