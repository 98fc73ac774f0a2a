//! The state machines that decide about attempts: retry, timeout, breaker, retry budget, bulkhead,
//! hedging, fallback, the choice of a target, the segments of a stream.
//!
//! They do no IO, read no clock and wait for nothing: what happened goes in with the time at which
//! it happened, what to do next comes out. The SDK and the gateway drive the same machines, so that
//! they decide alike, and a test can drive them through any history.
//!
//! One invariant: once a machine has answered [`Next::Done`] it answers the same from then on, and
//! before that it never starts more attempts than its policy allows.
//!
//! ```
//! use throughline_resilience::{Attempts, Event, Failure, Moment, Next, Policy, Target};
//! use throughline_trace::ErrorType;
//!
//! let policy = Policy::default();
//! let mut target = Target::new(&policy);
//! let mut attempts = Attempts::new(&policy, 7, Moment::ZERO);
//! assert!(matches!(attempts.begin(&mut target, Moment::ZERO), Next::Attempt { index: 0, .. }));
//!
//! let failed = Event::Failed(Failure::of(ErrorType::Server));
//! let Next::Delay { until, .. } = attempts.on(failed, &mut target, Moment::from_millis(80)) else {
//!     panic!("a server error is worth another try");
//! };
//! let next = attempts.on(Event::DelayOver, &mut target, until);
//! assert!(matches!(next, Next::Attempt { index: 1, .. }));
//! ```

mod attempts;
mod backoff;
mod breaker;
mod budget;
mod bulkhead;
mod errors;
mod fallback;
mod hedge;
mod latency;
mod moment;
mod policy;
mod reorder;
pub mod route;
mod segments;
mod strategy_text;

pub use attempts::{
    Attempts, Event, Failure, GiveUp, MAX_PAUSE_BEFORE_FALLBACK, Next, Target, Verdict,
};
pub use breaker::{Breaker, BreakerChange, BreakerCounts, BreakerState, Permit, Refused};
pub use budget::RetryBudget;
pub use bulkhead::{Bulkhead, Entry, Place, Ticket};
pub use errors::ErrorSet;
pub use fallback::{
    Branch, BranchEvent, FallbackDecision, FallbackNext, FallbackPlan, FallbackResult,
    FallbackVerdict,
};
pub use hedge::{Hedge, HedgeEvent, HedgeNext};
pub use latency::{FAILURE_COUNTS_AS, Latencies};
pub use moment::Moment;
pub use policy::{
    BreakerPolicy, BudgetPolicy, BulkheadPolicy, HedgePolicy, Jitter, Policy, RetryPolicy,
    TimeoutPolicy,
};
pub use reorder::Reorder;
pub use segments::{
    SegmentEnd, SegmentEvent, SegmentPolicy, SegmentStep, SegmentSteps, Segments, StreamTotals,
};
pub use strategy_text::RetryTextError;
