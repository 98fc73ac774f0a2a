//! Tail sampling: which traces of a closed segment are kept in full. It acts when a segment is
//! packed, long after everything in it was durable and counted; what it takes is counted by reason.
//!
//! The decision ([`decide`]) is pure: what is known of a trace, over all segments, and how others
//! of its kind were, in; one verdict out. `keep/cases.rs` finds the one, `keep/pack.rs` acts on the
//! other.

mod decide;
mod export;
mod tally;

use std::time::Duration;

use throughline_rules::Expression;
use throughline_trace::SamplingRate;

pub(crate) use decide::{
    Baselines, Case, Decided, Verdict, decide, quiet_at, slow_limit, unless_bad,
};
pub use export::{ExportSampler, ExportVerdict};
pub use tally::{Count, Tally};

/// Quiet time after which a trace whose root has ended is judged.
pub const SAMPLING_WAIT: Duration = Duration::from_secs(10 * 60);

/// Time after which a segment is sampled though some of its traces still run; those are kept.
pub const MAX_SAMPLING_WAIT: Duration = Duration::from_secs(24 * 3_600);

/// Quiet time of a trace whose root never came, in multiples of the wait of others: an agent's root
/// is sent when it ends.
pub(crate) const ROOTLESS_WAITS: u32 = 6;

/// Fewest operations of an agent in the rollups from which its quantile is told.
pub(crate) const MIN_BASELINE_OPERATIONS: i64 = 100;

/// Days of rollups that a quantile is told from.
pub const BASELINE_DAYS: u64 = 7;

/// What is kept in full, and what of the rest.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Traces that are kept by what they are.
    pub always: Always,
    /// Rules over what is not kept by that; the first that matches decides.
    pub rules: Vec<SamplingRule>,
    /// The share of all others.
    pub rest: SamplingRate,
    /// Quiet time after which a trace whose root has ended is judged.
    pub wait: Duration,
    /// Time after the close of a segment after which it is sampled though some of its traces run.
    pub max_wait: Duration,
}

/// Traces that are kept by what they are; each can be switched off.
#[derive(Debug, Clone, PartialEq)]
pub struct Always {
    /// With a span of status ERROR, or a log record of severity ERROR or above.
    pub errors: bool,
    /// In which a fallback was needed.
    pub fallbacks: bool,
    /// That took at least this long.
    pub slow_over: Option<Duration>,
    /// Slower than this quantile (0 to 1) of what came in at their agent in the last days.
    pub slow_quantile: Option<f64>,
    /// Of which the segment has few.
    pub rare: Option<Rare>,
    /// With a decision whose confidence is below this.
    pub confidence_below: Option<f64>,
    /// With a decision.
    pub decided: bool,
    /// With an event that was bad for an objective (SLO).
    pub slo: bool,
    /// That a legal hold names.
    pub held: bool,
}

/// When a trace is rare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rare {
    /// The segment has fewer of its kind than this.
    pub fewer_than: u64,
    /// What makes a kind.
    pub by: Kind,
}

/// What makes traces of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The agent.
    Agent,
    /// Agent, service and name of the root.
    Operation,
    /// The operation, and which tools and models it used.
    Shape,
}

/// A rule of the configuration.
#[derive(Debug, Clone)]
pub struct SamplingRule {
    /// What it is counted by.
    pub name: String,
    /// Over the schema `trace`.
    pub when: Expression,
    /// The share of matching traces that is kept.
    pub rate: SamplingRate,
}

impl PartialEq for SamplingRule {
    /// Equal sources over one schema say the same.
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.when.source(), self.rate)
            == (&other.name, other.when.source(), other.rate)
    }
}

impl Default for Sampling {
    /// Everything is kept.
    fn default() -> Self {
        Self {
            always: Always::default(),
            rules: Vec::new(),
            rest: SamplingRate::ALL,
            wait: SAMPLING_WAIT,
            max_wait: MAX_SAMPLING_WAIT,
        }
    }
}

impl Default for Always {
    /// Whatever tells more than its number, but nothing that needs a threshold.
    fn default() -> Self {
        Self {
            errors: true,
            fallbacks: true,
            slow_over: None,
            slow_quantile: None,
            rare: None,
            confidence_below: None,
            decided: true,
            slo: true,
            held: true,
        }
    }
}

impl Sampling {
    /// Whether anything can be taken away.
    pub fn is_active(&self) -> bool {
        let all = |rate: SamplingRate| rate == SamplingRate::ALL;
        !all(self.rest) || self.rules.iter().any(|rule| !all(rule.rate))
    }
}
