//! Which values, and pairs of values, go with bad cases.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use throughline_trace::{MAX_EVIDENCE_TRACES, TraceId};

use super::cases::{MAX_FACTORS, MAX_PAIRS, MAX_VALUES};
use super::changes::preceding;
use super::{Case, CauseConfig, Change, MAX_CASES, PrecedingChange};
use crate::statistics::{Side, benjamini_hochberg, two_proportions};

/// An attribute with a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Condition {
    /// The attribute.
    pub attribute: String,
    /// Its value.
    pub value: String,
}

/// Something that bad cases have and good ones have less.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Factor {
    /// One attribute with a value, or two that must come together.
    pub conditions: Vec<Condition>,
    /// Values that exactly the same cases have: the data cannot tell which of them it is.
    pub always_with: Vec<Condition>,
    /// Bad cases with it.
    pub bad: u64,
    /// Good cases with it.
    pub good: u64,
    /// Share of the bad cases that have it.
    pub bad_share: f64,
    /// Share of the good cases that have it.
    pub good_share: f64,
    /// Share of bad cases among those with it, over the share among all.
    pub lift: f64,
    /// Share of all cases by which bad ones with it are more than its size would give: what it
    /// explains. Factors are sorted by it, since lift alone would put rarities first.
    pub leverage: f64,
    /// p-value (one-sided; Fisher's exact test where cells are small), corrected after Benjamini and
    /// Hochberg for all values and pairs that were looked at.
    pub p_value: f64,
    /// Traces of bad cases with it, at most [`MAX_EVIDENCE_TRACES`].
    pub examples: Vec<TraceId>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RootCause {
    /// Bad cases.
    pub bad: u64,
    /// Good cases.
    pub good: u64,
    /// Whether both are enough to compare.
    pub is_enough: bool,
    /// When it began, nanoseconds since the Unix epoch.
    pub onset_unix_nano: u64,
    /// The factors, the one that explains most first.
    pub factors: Vec<Factor>,
    /// What was changed before it began.
    pub changes: Vec<PrecedingChange>,
    /// How far the first factor tells bad from good cases, 0 to 1: its share of the bad less its share
    /// of the good; `None` without a factor.
    pub confidence: Option<f64>,
}

/// Which cases have something.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Cases(Vec<u64>);

impl Cases {
    fn none(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }
    fn put(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }
    fn has(&self, at: usize) -> bool {
        self.0[at / 64] >> (at % 64) & 1 == 1
    }
    fn and(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a & b).collect())
    }
    fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }
    fn count_and(&self, other: &Self) -> u64 {
        self.0.iter().zip(&other.0).map(|(a, b)| u64::from((a & b).count_ones())).sum()
    }
}

/// A value or pair that is looked at.
struct Candidate {
    conditions: Vec<Condition>,
    always_with: Vec<Condition>,
    cases: Cases,
    bad: u64,
    total: u64,
    p_value: f64,
}

/// Looks for what bad cases have in common, and for what was changed before `onset_unix_nano`.
pub fn find_cause(
    cases: &[Case],
    changes: &[Change],
    onset_unix_nano: u64,
    config: &CauseConfig,
) -> RootCause {
    let cases = &cases[..cases.len().min(MAX_CASES)];
    let mut is_bad = Cases::none(cases.len());
    cases.iter().enumerate().filter(|(_, case)| case.is_bad).for_each(|(at, _)| is_bad.put(at));
    let bad = is_bad.count();
    let good = cases.len() as u64 - bad;
    let is_enough = bad >= config.min_side && good >= config.min_side;
    let search = Search { cases, is_bad, bad, good, config };
    let factors = if is_enough { search.factors() } else { Vec::new() };
    RootCause {
        bad,
        good,
        is_enough,
        onset_unix_nano,
        changes: preceding(changes, onset_unix_nano, &factors, config),
        confidence: factors.first().map(|first| first.bad_share - first.good_share),
        factors,
    }
}

struct Search<'a> {
    cases: &'a [Case],
    is_bad: Cases,
    bad: u64,
    good: u64,
    config: &'a CauseConfig,
}

impl Search<'_> {
    fn factors(&self) -> Vec<Factor> {
        let mut candidates = self.values();
        let pairs = self.pairs(&candidates);
        let singles = candidates.len();
        candidates.extend(pairs);
        let p_values: Vec<f64> = candidates.iter().map(|candidate| candidate.p_value).collect();
        let corrected = benjamini_hochberg(&p_values);
        let mut factors: Vec<Factor> = Vec::new();
        for (at, (candidate, p_value)) in candidates.iter().zip(corrected).enumerate() {
            let factor = self.factor(candidate, p_value);
            let counts = factor.p_value <= self.config.max_p_value
                && factor.lift >= self.config.min_lift
                && factor.bad_share >= self.config.min_bad_share;
            if counts && (at < singles || self.adds_to_its_parts(candidate, &candidates[..singles]))
            {
                factors.push(factor);
            }
        }
        factors.sort_by(|a, b| {
            b.leverage.total_cmp(&a.leverage).then_with(|| a.conditions.cmp(&b.conditions))
        });
        factors.truncate(MAX_FACTORS);
        for factor in &mut factors {
            factor.examples = self.examples(factor);
        }
        factors
    }

    /// All values that enough cases have, and not all of them; equal sets of cases are one.
    fn values(&self) -> Vec<Candidate> {
        let mut sets: BTreeMap<(&str, &str), Cases> = BTreeMap::new();
        for (at, case) in self.cases.iter().enumerate() {
            for (attribute, value) in &case.attributes {
                let key = (attribute.as_str(), value.as_str());
                sets.entry(key).or_insert_with(|| Cases::none(self.cases.len())).put(at);
            }
        }
        let all = self.cases.len() as u64;
        let mut merged: HashMap<Cases, Vec<Condition>> = HashMap::new();
        for ((attribute, value), set) in sets {
            if (self.config.min_cases..all).contains(&set.count()) {
                let condition =
                    Condition { attribute: attribute.to_owned(), value: value.to_owned() };
                merged.entry(set).or_default().push(condition);
            }
        }
        let candidate = |(cases, mut names): (Cases, Vec<Condition>)| {
            // The first by name speaks for all of them.
            let always_with = names.split_off(1);
            self.candidate(names, always_with, cases)
        };
        let mut candidates: Vec<Candidate> = merged.into_iter().map(candidate).collect();
        candidates
            .sort_by(|a, b| b.total.cmp(&a.total).then_with(|| a.conditions.cmp(&b.conditions)));
        candidates.truncate(MAX_VALUES);
        candidates
    }

    /// Pairs of values of different attributes. They are chosen by how many cases have them, not by how
    /// bad those are: else the correction for their number would not hold.
    fn pairs(&self, singles: &[Candidate]) -> Vec<Candidate> {
        let mut found: Vec<(u64, usize, usize)> = Vec::new();
        for (at, a) in singles.iter().enumerate() {
            for (behind, b) in singles.iter().enumerate().skip(at + 1) {
                if a.conditions[0].attribute == b.conditions[0].attribute {
                    continue;
                }
                let both = a.cases.count_and(&b.cases);
                // One that lies within the other says nothing new.
                if both >= self.config.min_cases && both < a.total.min(b.total) {
                    found.push((both, at, behind));
                }
            }
        }
        found.sort_unstable_by(|a, b| b.0.cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        found.truncate(MAX_PAIRS);
        let pair = |(_, a, b): (u64, usize, usize)| {
            let (a, b) = (&singles[a], &singles[b]);
            let mut conditions = vec![a.conditions[0].clone(), b.conditions[0].clone()];
            conditions.sort();
            self.candidate(conditions, Vec::new(), a.cases.and(&b.cases))
        };
        found.into_iter().map(pair).collect()
    }

    fn candidate(
        &self,
        conditions: Vec<Condition>,
        always_with: Vec<Condition>,
        cases: Cases,
    ) -> Candidate {
        let (total, bad) = (cases.count(), cases.count_and(&self.is_bad));
        let others = (self.bad - bad, self.bad + self.good - total);
        let test = two_proportions((bad, total), others, Side::Greater);
        let p_value = test.map_or(1.0, |test| test.p_value);
        Candidate { conditions, always_with, cases, bad, total, p_value }
    }

    /// Whether a pair is worse than each of its parts without the other: else it is only a piece of one.
    fn adds_to_its_parts(&self, pair: &Candidate, singles: &[Candidate]) -> bool {
        pair.conditions.iter().all(|condition| {
            let part = singles.iter().find(|single| single.conditions[0] == *condition);
            part.is_some_and(|part| {
                let rest = (part.bad - pair.bad, part.total - pair.total);
                let test = two_proportions((pair.bad, pair.total), rest, Side::Greater);
                let is_worse = test.is_some_and(|test| test.p_value <= self.config.max_p_value);
                let rate = |bad: u64, total: u64| bad as f64 / total.max(1) as f64;
                is_worse
                    && rate(pair.bad, pair.total)
                        >= self.config.min_lift * rate(part.bad, part.total)
            })
        })
    }

    fn factor(&self, of: &Candidate, p_value: f64) -> Factor {
        let all = (self.bad + self.good) as f64;
        let bad_of_all = self.bad as f64 / all;
        let good = of.total - of.bad;
        Factor {
            conditions: of.conditions.clone(),
            always_with: of.always_with.clone(),
            bad: of.bad,
            good,
            bad_share: of.bad as f64 / self.bad.max(1) as f64,
            good_share: good as f64 / self.good.max(1) as f64,
            lift: of.bad as f64 / of.total as f64 / bad_of_all,
            leverage: of.bad as f64 / all - of.total as f64 / all * bad_of_all,
            p_value,
            examples: Vec::new(),
        }
    }

    fn examples(&self, factor: &Factor) -> Vec<TraceId> {
        let has_all = |case: &Case| {
            factor.conditions.iter().all(|condition| {
                case.attributes.get(&condition.attribute) == Some(&condition.value)
            })
        };
        let bad = self.cases.iter().enumerate().filter(|(at, _)| self.is_bad.has(*at));
        let mut examples: Vec<TraceId> =
            bad.filter(|(_, case)| has_all(case)).filter_map(|(_, case)| case.trace_id).collect();
        // Decisions of one trace follow one another.
        examples.dedup();
        examples.truncate(MAX_EVIDENCE_TRACES);
        examples
    }
}

#[cfg(test)]
mod tests;
