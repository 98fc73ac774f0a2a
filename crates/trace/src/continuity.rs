//! Continuity: where traces break. Which spans lost their parent, by service and minute, and between
//! whom the parent was lost.
//!
//! A [`ContinuityTracker`] is told of every span that was really inserted ([`Sighting`]) and of the
//! time; it keeps bounded state and answers a [`ContinuityReport`]. No clock, no IO.
//!
//! # When a missing parent counts
//!
//! Children end before their parents and are exported before them, so a missing parent is the usual
//! state of a new span. It is *waited for* until its trace has been quiet for [`GRACE_NANOS`], and at
//! least for twice as long as parents of this operation usually take, but for [`MAX_WAIT_NANOS`] at
//! most. Then it is judged:
//!
//! - A span that is no *entry* (kind SERVER or CONSUMER, or a parent that the sender flagged as
//!   remote) has its parent in its own process. It is **lost**: that process did not export it.
//! - An entry is **lost** when its trace has a call (CLIENT or PRODUCER) of another service that covers
//!   its start and has no children: that call is the caller.
//! - An entry whose operation has had parents before is **lost** when the trace has a root or spans of
//!   a service that usually calls it: the caller is one of ours. It is also lost when
//!   nearly all calls of that operation ([`USUALLY_PERCENT`], of at least [`MIN_SEEN`]) had their parent.
//! - Every other entry is **remote**: the trace began outside, in a browser or a caller that is
//!   not instrumented. That is legitimate and never lowers the score.
//!
//! A parent that comes later mends its children: they are no longer lost and count as mended late.
//!
//! # The score
//!
//! Of the spans that name a parent and are no longer waited for, the share that has it or is
//! legitimately remote, by service, over the asked time.
//!
//! # Time
//!
//! A span belongs to the minute in which it ended, by its own clock; to that of its arrival when that
//! would lie in the future. Spans that ended before [`KEPT_NANOS`] are not counted, but mend.

mod edges;
mod judged;
mod kept;
mod report;
mod scene;
mod skew;
mod splits;
mod tally;
mod tracker;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use crate::{Span, SpanId, SpanKind, SpanRole, TraceId};

pub use report::{
    Break, ClockSkew, ContinuityCoverage, ContinuityReport, MissingRoots, ServiceContinuity,
    SplitTraces, SuspectedEdge, describe_edges, edges_of_spans,
};
pub use skew::{CLOCK_TOLERANCE_NANOS, ClockOddity, SpanTimes, clock_oddity};
pub use tracker::ContinuityTracker;

/// Nanoseconds of a minute.
const MINUTE: u64 = 60_000_000_000;

/// Quiet time of a trace after which its missing parents are judged.
pub const GRACE_NANOS: u64 = 2 * MINUTE;

/// Longest that a parent is waited for, however busy its trace is.
pub const MAX_WAIT_NANOS: u64 = 60 * MINUTE;

/// How far back tallies and judged orphans are kept.
pub const KEPT_NANOS: u64 = 6 * 60 * MINUTE;

/// Quiet time of a trace after which its spans are forgotten; its orphans are not.
const FORGET_NANOS: u64 = 10 * MINUTE;

/// Parents that an operation must have had before their number is taken for a rule.
pub const MIN_SEEN: u32 = 3;

/// Share of an operation's calls that must have had their parent for a missing one to be lost
/// without further evidence, percent.
pub const USUALLY_PERCENT: u64 = 90;

/// How much clocks of two hosts may differ when a caller is looked for, nanoseconds.
const CALLER_SLACK_NANOS: u64 = 1_000_000_000;

/// The same when two traces are compared, of which less is known.
const SPLIT_SLACK_NANOS: u64 = 100_000_000;

/// Longest that a message may wait in a queue for the consumer's trace to be taken for the
/// producer's continuation.
const MAX_QUEUE_NANOS: u64 = MINUTE;

/// What services beyond [`ContinuityLimits::services`] and operations beyond
/// [`ContinuityLimits::operations`] are called.
pub const FOLDED: &str = "(other)";

/// Longest name that is kept of a service or span, bytes; the rest is cut.
const MAX_NAME_BYTES: usize = 200;

/// Example trace ids with each finding.
pub const MAX_EXAMPLES: usize = 3;

/// How much a tracker keeps. What goes beyond is counted in [`ContinuityCoverage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContinuityLimits {
    /// Services that are told apart.
    pub services: usize,
    /// Operations (service and span name) that are told apart.
    pub operations: usize,
    /// Spans that are remembered in detail, to learn edges from and to find callers by.
    pub spans: usize,
    /// Of one trace.
    pub spans_of_trace: usize,
    /// Spans whose parent is waited for.
    pub waiting: usize,
    /// Spans that were judged lost and can still be mended.
    pub lost: usize,
    /// Spans that were judged remote and can still be mended.
    pub remote: usize,
    /// Split traces, and pairs of services whose clocks are compared.
    pub findings: usize,
}

impl Default for ContinuityLimits {
    /// About 60 MB when all is full.
    fn default() -> Self {
        Self {
            services: 256,
            operations: 8_192,
            spans: 300_000,
            spans_of_trace: 4_096,
            waiting: 200_000,
            lost: 50_000,
            remote: 20_000,
            findings: 1_024,
        }
    }
}

/// Who a trace was for, as hashes: traces of one conversation may be parts of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conversation {
    session: u64,
    agent: Option<u64>,
}

impl Conversation {
    /// The conversation of a session, and of an agent if one is named.
    pub fn new(session: &str, agent: Option<&str>) -> Self {
        let hash = |text: &str| {
            let mut hasher = DefaultHasher::new();
            text.hash(&mut hasher);
            hasher.finish()
        };
        Self { session: hash(session), agent: agent.map(hash) }
    }

    /// Whether two traces may belong together: one session, and no two agents.
    fn fits(self, other: Self) -> bool {
        let agents_fit = self.agent.zip(other.agent).is_none_or(|(one, two)| one == two);
        self.session == other.session && agents_fit
    }
}

/// What a tracker is told of one span.
#[derive(Debug, Clone)]
pub struct Sighting {
    /// Its trace.
    pub trace_id: TraceId,
    /// Its id.
    pub span_id: SpanId,
    /// The parent that it names.
    pub parent_span_id: Option<SpanId>,
    /// Who sent it.
    pub service: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its kind.
    pub kind: SpanKind,
    /// Whether its parent is in another process: SERVER, CONSUMER, or flagged so by the sender.
    pub is_entry: bool,
    /// Whether another service may continue the trace below it: CLIENT or PRODUCER, and no call of a
    /// model, whose provider takes no context.
    pub calls_out: bool,
    /// Start, nanoseconds since the Unix epoch, by the sender's clock.
    pub start_unix_nano: u64,
    /// End, nanoseconds since the Unix epoch, by the sender's clock.
    pub end_unix_nano: u64,
    /// Session and agent, where the span says them.
    pub conversation: Option<Conversation>,
    /// When it arrived, nanoseconds since the Unix epoch.
    pub received_unix_nano: u64,
    /// Whether its parent was stored already. The tracker's own memory is bounded, the store's is not.
    pub is_parent_known: bool,
    /// Whether the root of its trace was stored already.
    pub has_root: bool,
}

impl Sighting {
    /// What can be told of a span by itself; the last three fields are the store's to fill in. The
    /// service and the name are as [`Sighting::name`] makes them: many spans share them.
    pub fn of(span: &Span, role: SpanRole, service: Arc<str>, name: Arc<str>) -> Self {
        Self {
            trace_id: span.trace_id,
            span_id: span.span_id,
            parent_span_id: span.parent_span_id,
            service,
            name,
            kind: span.kind,
            is_entry: Self::is_entry(span.kind, span.flags),
            calls_out: Self::calls_out(span.kind, role),
            start_unix_nano: span.start_unix_nano,
            end_unix_nano: span.end_unix_nano,
            conversation: span.session().map(|session| Conversation::new(session, span.agent())),
            received_unix_nano: 0,
            is_parent_known: false,
            has_root: false,
        }
    }

    /// A name of a service or span, as sightings carry it.
    pub fn name(name: &str) -> Arc<str> {
        name[..name.floor_char_boundary(MAX_NAME_BYTES)].into()
    }

    /// [`Sighting::is_entry`] of a span of this kind with these OTLP flags.
    pub fn is_entry(kind: SpanKind, flags: u32) -> bool {
        /// `HAS_IS_REMOTE` and `IS_REMOTE` of OTLP.
        const PARENT_IS_REMOTE: u32 = 0x300;
        matches!(kind, SpanKind::Server | SpanKind::Consumer)
            || flags & PARENT_IS_REMOTE == PARENT_IS_REMOTE
    }

    /// [`Sighting::calls_out`] of a span of this kind and role.
    pub fn calls_out(kind: SpanKind, role: SpanRole) -> bool {
        matches!(kind, SpanKind::Client | SpanKind::Producer)
            && !matches!(role, SpanRole::LlmCall | SpanRole::Embeddings)
    }

    /// The moment that it is counted at.
    fn filed_unix_nano(&self) -> u64 {
        self.end_unix_nano.min(self.received_unix_nano)
    }

    fn times(&self) -> SpanTimes {
        SpanTimes {
            kind: self.kind,
            start_unix_nano: self.start_unix_nano,
            end_unix_nano: self.end_unix_nano,
        }
    }
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
