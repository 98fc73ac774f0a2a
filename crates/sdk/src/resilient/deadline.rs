//! When everything below must be over, whatever its own policies say: how a latency budget is kept.

use std::time::Duration;

use opentelemetry::Context;
use tokio::time::Instant;

/// A deadline that a context carries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// `cx` with a deadline so long from now, unless it has an earlier one.
    pub(crate) fn within(budget: Duration, cx: &Context) -> Context {
        let Some(at) = Instant::now().checked_add(budget) else { return cx.clone() };
        let at = cx.get::<Self>().map_or(at, |outer| outer.0.min(at));
        cx.with_value(Self(at))
    }

    /// The deadline of the current context.
    pub(crate) fn current() -> Option<Instant> {
        Context::map_current(|cx| cx.get::<Self>().map(|deadline| deadline.0))
    }
}
