//! The rules of `sampling` over traces that leave: the same verdicts, of what is known when a trace is
//! read rather than when its segment was packed.

use std::collections::HashMap;
use std::convert::Infallible;

use throughline_trace::{OperationKind, Severity, Sketch, TraceSummary};

use super::{
    Baselines, Case, Decided, Sampling, Verdict, decide, quiet_at, slow_limit, unless_bad,
};
use crate::answer::{RollupSums, StoredTrace};
use crate::derived_rows::was_of_span;
use crate::indicators::{Observer, Watching};
use crate::writer::now_unix_nano;

/// What becomes of a trace that would leave.
#[derive(Debug, Clone, PartialEq)]
pub enum ExportVerdict {
    /// It leaves, and stands for so many: itself, or those that the share leaves behind too.
    Leaves {
        /// Why: `error`, `fallback`, …, `rule:NAME` or `rest`, as sampling counts them.
        reason: String,
        /// How many traces it stands for.
        weight: f64,
    },
    /// It stays, by a rule (`rule:NAME`) or as one of the `rest`.
    Stays(String),
}

/// Judges traces that leave.
#[derive(Debug)]
pub struct ExportSampler {
    sampling: Sampling,
    baselines: Baselines,
    watching: Watching,
    now_unix_nano: u64,
}

impl ExportSampler {
    /// By these rules. Legal holds are of no matter: nothing is taken away here.
    pub fn new(sampling: Sampling) -> Self {
        let (baselines, watching) = Default::default();
        Self { sampling, baselines, watching, now_unix_nano: now_unix_nano() }
    }

    /// With the objectives for which an event may be bad.
    pub fn observing(mut self, observer: &Observer) -> Self {
        self.watching = observer.now();
        self
    }

    /// Whether traces are to be [counted](Self::count) first.
    pub fn wants_counts(&self) -> bool {
        self.sampling.always.rare.is_some()
    }

    /// Counts a trace of those that are looked at: of which there are few is rare.
    pub fn count(&mut self, summary: &TraceSummary) {
        if let Some(rare) = self.sampling.always.rare {
            self.baselines.count(summary, rare.by);
        }
    }

    /// Whether it has to know how long [requests take](Self::learn).
    pub fn wants_durations(&self) -> bool {
        self.sampling.always.slow_quantile.is_some()
    }

    /// Learns from sums by agent how long requests take.
    pub fn learn(&mut self, sums: &RollupSums) {
        let Some(quantile) = self.sampling.always.slow_quantile else { return };
        let mut slow = HashMap::new();
        for (labels, steps) in &sums.groups {
            let mut durations = Sketch::default();
            let of_steps =
                steps.iter().filter_map(|(_, sums)| sums.operations(OperationKind::Root));
            of_steps.for_each(|operations| durations.merge(&operations.durations));
            if let (Some(limit), Some(agent)) = (slow_limit(&durations, quantile), labels.first()) {
                slow.insert(agent.clone(), limit);
            }
        }
        self.baselines.slow_nanos = slow;
    }

    /// The verdict over a trace. One of which sampling left a share here already stands for no fewer
    /// than it did.
    pub fn judge(&self, trace: &StoredTrace) -> ExportVerdict {
        let summary = &trace.summary;
        let derived = trace.decisions.iter().filter(|decision| was_of_span(decision)).count();
        let confidence = trace.decisions.iter().filter_map(|decision| decision.confidence);
        let case = Case {
            summary,
            decided: Decided {
                count: summary.decision_count,
                recorded: summary.decision_count.saturating_sub(derived as u64),
                least_confidence: confidence.reduce(f64::min),
            },
            is_held: false,
            // What there was no room to read may hold one.
            has_error_log: trace.logs.iter().any(|log| log.severity >= Severity::ERROR)
                || trace.truncated.is_some_and(|all| all.total_logs > trace.logs.len() as u64),
            is_running: quiet_at(summary, &self.sampling) > self.now_unix_nano,
        };
        let named = |rule: Option<usize>| match rule.and_then(|at| self.sampling.rules.get(at)) {
            Some(rule) => format!("rule:{}", rule.name),
            None => "rest".to_owned(),
        };
        let here = summary.sampled.weight_of_trace(summary.span_count).max(1.0);
        let verdict = decide(&self.sampling, &case, &self.baselines);
        let mut observed = Vec::new();
        let mut is_bad =
            || trace.spans.iter().any(|span| self.watching.is_bad(span, &mut observed));
        let verdict = unless_bad(&self.sampling, verdict, || Ok::<_, Infallible>(is_bad()));
        match verdict.unwrap_or_else(|never| match never {}) {
            Verdict::Keep(reason) => {
                ExportVerdict::Leaves { reason: reason.as_str().to_owned(), weight: here }
            }
            Verdict::Chosen { rule, weight } => {
                ExportVerdict::Leaves { reason: named(rule), weight: weight.max(here) }
            }
            Verdict::Drop { rule } => ExportVerdict::Stays(named(rule)),
        }
    }
}
