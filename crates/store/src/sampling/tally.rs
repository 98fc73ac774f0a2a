//! What sampling kept and took, by reason.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Sampling, Verdict};

/// Traces, with their spans and log records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Count {
    /// Traces.
    pub traces: u64,
    /// Spans.
    pub spans: u64,
    /// Log records of them.
    pub logs: u64,
}

impl Count {
    /// Adds another count.
    pub fn add(&mut self, other: Self) {
        self.traces += other.traces;
        self.spans += other.spans;
        self.logs += other.logs;
    }
}

/// What sampling kept and took in one segment, or in several.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// Kept by what they are: `error`, `fallback`, `slow`, `rare`, `low_confidence`, `decided`,
    /// `held`, `running`, `rule_error`, `slo`.
    pub kept: BTreeMap<String, Count>,
    /// Kept by chance: `rest`, or `rule:` and the name of a rule.
    pub chosen: BTreeMap<String, Count>,
    /// Taken away; their summaries are left. By the same names.
    pub dropped: BTreeMap<String, Count>,
    /// Taken away but for their skeletons, as a decision or a hold refers to them. By the same names.
    pub bared: BTreeMap<String, Count>,
    /// Kept now, while a part in an earlier segment was taken away before it was known that they
    /// would be: what is missing of them cannot be brought back.
    pub too_late: Count,
}

impl Tally {
    /// The name that what was not kept by its own merit is counted by.
    fn by(sampling: &Sampling, rule: Option<usize>) -> String {
        match rule.and_then(|at| sampling.rules.get(at)) {
            Some(rule) => format!("rule:{}", rule.name),
            None => "rest".to_owned(),
        }
    }

    /// Counts a verdict; `is_bared` when a skeleton stays of what goes.
    pub(crate) fn note(
        &mut self,
        sampling: &Sampling,
        verdict: Verdict,
        is_bared: bool,
        count: Count,
    ) {
        let (list, name) = match verdict {
            Verdict::Keep(reason) => (&mut self.kept, reason.as_str().to_owned()),
            Verdict::Chosen { rule, .. } => (&mut self.chosen, Self::by(sampling, rule)),
            Verdict::Drop { rule } if is_bared => (&mut self.bared, Self::by(sampling, rule)),
            Verdict::Drop { rule } => (&mut self.dropped, Self::by(sampling, rule)),
        };
        list.entry(name).or_default().add(count);
    }

    /// All that was taken away, skeletons apart.
    pub fn total_dropped(&self) -> Count {
        let mut total = Count::default();
        self.dropped.values().for_each(|count| total.add(*count));
        total
    }

    /// Adds another tally.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.kept, &other.kept),
            (&mut self.chosen, &other.chosen),
            (&mut self.dropped, &other.dropped),
            (&mut self.bared, &other.bared),
        ] {
            for (name, count) in theirs {
                mine.entry(name.clone()).or_default().add(*count);
            }
        }
        self.too_late.add(other.too_late);
    }
}
