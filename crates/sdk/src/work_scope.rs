//! What a context says of one piece of work and of all below it: when it must be over, or must have
//! begun to answer, whatever policies below say (a latency budget, the limit of a fallback's branch);
//! and whether it is a model call, so that what it goes through counts no tokens again. Who goes on
//! with the trace of that work, and not with the work, has left it.

use std::time::Duration;

use opentelemetry::Context;
use tokio::time::Instant;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct WorkScope {
    deadline: Option<Instant>,
    opening_deadline: Option<Instant>,
    is_call: bool,
}

impl WorkScope {
    /// That of the current context.
    pub(crate) fn current() -> Self {
        Context::map_current(Self::of)
    }

    fn of(cx: &Context) -> Self {
        cx.get::<Self>().copied().unwrap_or_default()
    }

    /// When the work must be over.
    pub(crate) fn deadline(self) -> Option<Instant> {
        self.deadline
    }

    /// When a streamed answer must have brought its first token.
    pub(crate) fn opening_deadline(self) -> Option<Instant> {
        self.opening_deadline
    }

    /// Whether the work is a model call.
    pub(crate) fn is_call(self) -> bool {
        self.is_call
    }

    /// `cx` for work that may take so long from now, or until an earlier deadline that `cx` has.
    pub(crate) fn over_within(limit: Duration, cx: &Context) -> Context {
        let scope = Self::of(cx);
        cx.with_value(Self { deadline: earlier(scope.deadline, limit), ..scope })
    }

    /// [`over_within`](Self::over_within), for the first token of streamed answers.
    pub(crate) fn opened_within(limit: Duration, cx: &Context) -> Context {
        let scope = Self::of(cx);
        let opening_deadline = earlier(scope.opening_deadline, limit);
        cx.with_value(Self { opening_deadline, ..scope })
    }

    /// The current context for a model call.
    pub(crate) fn call() -> Context {
        Context::map_current(|cx| cx.with_value(Self { is_call: true, ..Self::of(cx) }))
    }

    /// `cx` for who has left the work.
    pub(crate) fn left(cx: Context) -> Context {
        if Self::of(&cx) == Self::default() { cx } else { cx.with_value(Self::default()) }
    }
}

/// A limit from now that no clock reaches is none.
fn earlier(outer: Option<Instant>, limit: Duration) -> Option<Instant> {
    let at = Instant::now().checked_add(limit);
    outer.into_iter().chain(at).min()
}
