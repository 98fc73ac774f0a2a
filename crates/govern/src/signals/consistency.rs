//! Whether equal inputs get equal decisions.

use std::collections::HashMap;

use super::{Estimate, Name};

/// Decisions of a window counted by input: what `decision_consistency_rate` and its detector are
/// made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Consistency {
    /// Decisions in groups of two or more that agree.
    pub agreeing: u64,
    /// Decisions in groups of two or more.
    pub grouped: u64,
    /// Of those, the ones beyond the first of their group.
    pub repeats: u64,
}

impl Consistency {
    /// Counts decisions given as input hash and action. Decisions without an input hash are no group.
    pub fn of<'a>(decisions: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        struct Group<'a> {
            first: &'a str,
            size: u64,
            agrees: bool,
        }
        let mut groups: HashMap<&str, Group<'_>> = HashMap::new();
        for (input_hash, action) in decisions {
            if input_hash.is_empty() {
                continue;
            }
            let group =
                groups.entry(input_hash).or_insert(Group { first: action, size: 0, agrees: true });
            group.size += 1;
            group.agrees &= group.first == action;
        }
        let repeated = groups.values().filter(|group| group.size >= 2);
        repeated.fold(Self::default(), |sum, group| Self {
            agreeing: sum.agreeing + if group.agrees { group.size } else { 0 },
            grouped: sum.grouped + group.size,
            repeats: sum.repeats + group.size - 1,
        })
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
        assert_eq!(counted, Consistency { agreeing: 3, grouped: 5, repeats: 3 });
        let estimate = counted.estimate();
        assert_eq!((estimate.value, estimate.count), (Some(0.6), 3));
        assert!(!estimate.is_enough, "20 repeats are asked for");
        assert_eq!(estimate.usable(), None);
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
