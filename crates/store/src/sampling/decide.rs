//! The verdict over one trace: without IO, without a clock, of nothing but what is given.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use throughline_rules::Match;
use throughline_trace::{FallbackState, SKETCH_ACCURACY, SamplingRate, Sketch, TraceSummary};

use super::{Kind, MIN_BASELINE_OPERATIONS, ROOTLESS_WAITS, Sampling};

/// What is known of a trace.
#[derive(Debug, Clone)]
pub(crate) struct Case<'a> {
    /// Of all segments together, its decisions counted.
    pub(crate) summary: &'a TraceSummary,
    /// Its decisions.
    pub(crate) decided: Decided,
    /// Whether a legal hold names it.
    pub(crate) is_held: bool,
    /// Whether it has a log record of severity ERROR or above.
    pub(crate) has_error_log: bool,
    /// Whether more of it is to be expected, although nobody waits any longer.
    pub(crate) is_running: bool,
}

/// What the decisions of a trace say.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Decided {
    pub(crate) count: u64,
    /// Those of them that were not derived from the trace's own spans, of which they say nothing new.
    pub(crate) recorded: u64,
    /// The least confidence that one of them had.
    pub(crate) least_confidence: Option<f64>,
}

/// How others of a trace's kind were.
#[derive(Debug, Clone, Default)]
pub(crate) struct Baselines {
    /// Traces of each kind in the segment, by [`kind_of`].
    pub(crate) kinds: HashMap<u64, u64>,
    /// The duration that a root of an agent has to exceed to be slow, nanoseconds.
    pub(crate) slow_nanos: HashMap<String, f64>,
}

impl Baselines {
    /// Counts a trace of the segment.
    pub(crate) fn count(&mut self, summary: &TraceSummary, kind: Kind) {
        *self.kinds.entry(kind_of(summary, kind)).or_default() += 1;
    }
}

/// What the duration of a root has to exceed to be slow, nanoseconds, where enough is known. The sketch may tell
/// less than the quantile is: what is as long as many are is not slow.
pub(crate) fn slow_limit(durations: &Sketch, quantile: f64) -> Option<f64> {
    let is_enough = durations.count() >= MIN_BASELINE_OPERATIONS;
    Some(durations.quantile(quantile).filter(|_| is_enough)? / (1.0 - SKETCH_ACCURACY))
}

/// When a trace has been quiet for long enough, nanoseconds since the Unix epoch.
pub(crate) fn quiet_at(summary: &TraceSummary, sampling: &Sampling) -> u64 {
    let has_ended = summary.root.as_ref().is_some_and(|root| root.is_root);
    let waits = if has_ended { 1 } else { ROOTLESS_WAITS };
    let wait = sampling.wait.as_nanos().saturating_mul(waits.into());
    summary.received_unix_nano.saturating_add(u64::try_from(wait).unwrap_or(u64::MAX))
}

/// A number for the kind of a trace, the same within one process.
fn kind_of(summary: &TraceSummary, kind: Kind) -> u64 {
    let mut hasher = DefaultHasher::new();
    summary.agent().hash(&mut hasher);
    if kind != Kind::Agent {
        summary.root.as_ref().map(|root| (&root.service, &root.name)).hash(&mut hasher);
    }
    if kind == Kind::Shape {
        (&summary.tools, &summary.models).hash(&mut hasher);
    }
    hasher.finish()
}

/// Why a trace is kept whole and stands for itself only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    Held,
    Decided,
    Error,
    Fallback,
    LowConfidence,
    Slow,
    Rare,
    Slo,
    Running,
    /// A rule has no value for it: it is kept rather.
    RuleError,
}

impl Reason {
    /// The name that it is counted by.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Decided => "decided",
            Self::Error => "error",
            Self::Fallback => "fallback",
            Self::LowConfidence => "low_confidence",
            Self::Slow => "slow",
            Self::Rare => "rare",
            Self::Slo => "slo",
            Self::Running => "running",
            Self::RuleError => "rule_error",
        }
    }
}

/// What becomes of a trace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Verdict {
    /// It is kept, and stands for itself.
    Keep(Reason),
    /// It is kept by chance, by a rule (its place in the list) or as one of the rest.
    Chosen { rule: Option<usize>, weight: f64 },
    /// It goes, by a rule or as one of the rest.
    Drop { rule: Option<usize> },
}

/// The verdict over a trace.
pub(crate) fn decide(sampling: &Sampling, case: &Case<'_>, baselines: &Baselines) -> Verdict {
    if let Some(reason) = always(sampling, case, baselines) {
        return Verdict::Keep(reason);
    }
    for (at, rule) in sampling.rules.iter().enumerate() {
        match rule.when.matches(case.summary) {
            Match::Yes => return by_chance(case, Some(at), rule.rate),
            Match::No => {}
            Match::Error(_) => return Verdict::Keep(Reason::RuleError),
        }
    }
    by_chance(case, None, sampling.rest)
}

/// The verdict with what only the spans say, which is asked of a trace that would not stay for itself: one that was
/// bad for an objective does.
pub(crate) fn unless_bad<E>(
    sampling: &Sampling,
    verdict: Verdict,
    was_bad: impl FnOnce() -> Result<bool, E>,
) -> Result<Verdict, E> {
    let stays = match verdict {
        Verdict::Keep(_) => true,
        Verdict::Chosen { weight, .. } => weight <= 1.0,
        Verdict::Drop { .. } => false,
    };
    let is_bad = !stays && sampling.always.slo && was_bad()?;
    Ok(if is_bad { Verdict::Keep(Reason::Slo) } else { verdict })
}

fn by_chance(case: &Case<'_>, rule: Option<usize>, rate: SamplingRate) -> Verdict {
    match rate.chooses(case.summary.trace_id) {
        true => Verdict::Chosen { rule, weight: rate.weight() },
        false => Verdict::Drop { rule },
    }
}

fn always(sampling: &Sampling, case: &Case<'_>, baselines: &Baselines) -> Option<Reason> {
    let always = &sampling.always;
    let summary = case.summary;
    let is_slow = || {
        let over = always.slow_over.is_some_and(|over| {
            u128::from(summary.duration_nano()) >= over.as_nanos() && over.as_nanos() > 0
        });
        over || summary.root.as_ref().filter(|root| root.is_root).is_some_and(|root| {
            let nanos = root.end_unix_nano.saturating_sub(root.start_unix_nano);
            let agent = root.agent.as_deref().unwrap_or_default();
            baselines.slow_nanos.get(agent).is_some_and(|limit| nanos as f64 > *limit)
        })
    };
    let is_rare = || {
        always.rare.is_some_and(|rare| {
            let of_kind = baselines.kinds.get(&kind_of(summary, rare.by));
            of_kind.copied().unwrap_or(0) < rare.fewer_than
        })
    };
    let is_doubtful =
        || always.confidence_below.zip(case.decided.least_confidence).is_some_and(|(b, c)| c < b);
    let fell_back = matches!(summary.fallback, FallbackState::Degraded | FallbackState::Failed);
    let has_failed = summary.error_count > 0 || case.has_error_log;
    match () {
        () if always.held && case.is_held => Some(Reason::Held),
        () if always.errors && has_failed => Some(Reason::Error),
        () if always.fallbacks && fell_back => Some(Reason::Fallback),
        () if is_doubtful() => Some(Reason::LowConfidence),
        () if always.decided && case.decided.recorded > 0 => Some(Reason::Decided),
        () if is_slow() => Some(Reason::Slow),
        () if is_rare() => Some(Reason::Rare),
        () if case.is_running => Some(Reason::Running),
        () => None,
    }
}

#[cfg(test)]
mod tests;
