//! Whether equal inputs get equal decisions.

use std::collections::HashMap;

use super::{Estimate, Name};
use crate::detect::GroupedRate;

/// Decisions of a window counted by input: what `decision_consistency_rate` is made of, and what windows
/// and versions are compared by.
///
/// The rate asks of a group that all its actions are the same, so that it falls as groups grow, with the
/// traffic. Windows of other traffic are compared by the pairs that agree instead ([`Self::agreement`]):
/// their share is the same in expectation, however large a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Consistency {
    /// Decisions in groups of two or more that agree.
    pub agreeing: u64,
    /// Decisions in groups of two or more.
    pub grouped: u64,
    /// Of those, the ones beyond the first of their group.
    pub repeats: u64,
    /// The share of the pairs of a group that agree, weighted by its size and added up:
    /// Σ n · Σₖ nₖ(nₖ − 1) / (n(n − 1)), with nₖ of the n decisions of a group for action k; rounded.
    pub alike: u64,
}

impl Consistency {
    /// Counts decisions given as input hash and action. Decisions without an input hash are no group.
    pub fn of<'a>(decisions: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut groups: HashMap<&str, HashMap<&str, u64>> = HashMap::new();
        for (input_hash, action) in decisions {
            if input_hash.is_empty() {
                continue;
            }
            *groups.entry(input_hash).or_default().entry(action).or_default() += 1;
        }
        let (mut counted, mut alike) = (Self::default(), Vec::new());
        for actions in groups.values() {
            let size: u64 = actions.values().sum();
            if size < 2 {
                continue;
            }
            counted.grouped += size;
            counted.repeats += size - 1;
            counted.agreeing += if actions.len() == 1 { size } else { 0 };
            let pairs: u64 = actions.values().map(|one| one * (one - 1)).sum();
            alike.push(pairs as f64 / (size - 1) as f64);
        }
        // Groups come in any order; added up by size, the same decisions always give the same number.
        alike.sort_unstable_by(f64::total_cmp);
        counted.alike = alike.iter().sum::<f64>().round() as u64;
        counted
    }

    /// The groups, decisions in pairs that agree as the good ones: what windows and versions of other
    /// traffic are compared by, under the name `decision_agreement`.
    pub fn agreement(&self) -> GroupedRate {
        let groups = self.grouped.saturating_sub(self.repeats);
        GroupedRate { good: self.alike, total: self.grouped, groups }
    }

    /// The rate.
    pub fn estimate(&self) -> Estimate {
        let rate = (self.grouped > 0).then(|| self.agreeing as f64 / self.grouped as f64);
        Estimate::of(Name::DecisionConsistencyRate, rate, self.repeats)
    }
}

/// `decision_consistency_rate` of decisions given as input hash and action.
pub fn decision_consistency_rate<'a>(
    decisions: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Estimate {
    Consistency::of(decisions).estimate()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_weigh_by_their_size() {
        // a: three that agree; b: two that do not; c: alone; the last has no hash.
        let decisions =
            [("a", "x"), ("b", "x"), ("a", "x"), ("c", "y"), ("b", "y"), ("a", "x"), ("", "x")];
        let counted = Consistency::of(decisions);
        assert_eq!(counted, Consistency { agreeing: 3, grouped: 5, repeats: 3, alike: 3 });
        let estimate = counted.estimate();
        assert_eq!((estimate.value, estimate.count), (Some(0.6), 3));
        assert!(!estimate.is_enough, "20 repeats are asked for");
        assert_eq!(estimate.usable(), None);
    }

    #[test]
    fn pairs_that_agree_do_not_go_by_the_size_of_groups() {
        // One decision of ten is another; of each input there are two, or twenty.
        let mut random = crate::statistics::Random::new(5);
        let mut rates = |inputs: usize, each: usize| {
            let names: Vec<String> = (0..inputs).map(|at| at.to_string()).collect();
            let mut action = || if random.uniform() < 0.1 { "review" } else { "approve" };
            let told = names.iter().flat_map(|name| vec![name.as_str(); each]);
            let counted = Consistency::of(told.map(|name| (name, action())).collect::<Vec<_>>());
            let GroupedRate { good, total, groups } = counted.agreement();
            assert_eq!((total, groups), ((inputs * each) as u64, inputs as u64));
            (counted.estimate().value.unwrap(), good as f64 / total as f64)
        };
        let (small, large) = (rates(20_000, 2), rates(2_000, 20));
        assert!(small.0 - large.0 > 0.6, "the rate falls: {small:?} {large:?}");
        assert!((small.1 - large.1).abs() < 0.01, "the pairs do not: {small:?} {large:?}");
        assert!((small.1 - 0.82).abs() < 0.01, "{small:?}");
    }

    #[test]
    fn inputs_that_never_repeat_make_it_missing() {
        let hashes: Vec<String> = (0..500).map(|at| at.to_string()).collect();
        let estimate = decision_consistency_rate(hashes.iter().map(|hash| (hash.as_str(), "x")));
        assert_eq!(estimate, Estimate { value: None, count: 0, is_enough: false });
        let repeated = decision_consistency_rate((0..21).map(|_| ("a", "x")));
        assert_eq!(repeated.usable(), Some(1.0));
    }
}
