//! What was known of an experiment over time: its always-valid p-value may be looked at whenever one likes, so that a line of it
//! may be drawn.

use serde::{Deserialize, Serialize};

use super::{Difference, ExperimentResult};

/// Looks that are kept of one run.
pub const MAX_LOOKS: usize = 240;

/// Looks come no closer to one another than the time of the run over this: the longer it runs, the further apart
/// they are, and what was at its beginning is not crowded out.
const PARTS: u64 = MAX_LOOKS as u64 / 2;

/// What was known at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Look {
    /// When, nanoseconds since the Unix epoch.
    pub at_unix_nano: u64,
    /// Units of the control.
    pub control_units: u64,
    /// Units of the treatment.
    pub treatment_units: u64,
    /// The difference of the metric; `None` before there is one.
    pub difference: Option<Difference>,
}

/// The looks at one run, by time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Looks {
    /// When the run began, nanoseconds since the Unix epoch.
    pub since_unix_nano: u64,
    /// At most [`MAX_LOOKS`].
    pub looks: Vec<Look>,
}

impl Looks {
    /// Takes a look at the run that began then in; `false` where it saw the same units as the one before.
    pub fn add(
        &mut self,
        since_unix_nano: u64,
        at_unix_nano: u64,
        result: &ExperimentResult,
    ) -> bool {
        if self.since_unix_nano != since_unix_nano {
            *self = Self { since_unix_nano, looks: Vec::new() };
        }
        let units = (result.control_units, result.treatment_units);
        if self.looks.last().is_some_and(|last| (last.control_units, last.treatment_units) == units)
        {
            return false;
        }
        // The newest look stands for those since the one before it, until that is a part of the time away.
        let part = at_unix_nano.saturating_sub(since_unix_nano) / PARTS;
        if let [.., before, _] = self.looks[..]
            && at_unix_nano.saturating_sub(before.at_unix_nano) < part
        {
            self.looks.pop();
        }
        if self.looks.len() >= MAX_LOOKS {
            let mut is_kept = false;
            self.looks.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
        }
        self.looks.push(Look {
            at_unix_nano,
            control_units: units.0,
            treatment_units: units.1,
            difference: result.difference,
        });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Experiment, ExperimentConfig};
    use super::*;

    #[test]
    fn looks_are_thinned_and_those_of_another_run_go() {
        let empty = Experiment::new(ExperimentConfig::for_rate(0.02)).result();
        let of = |control_units| ExperimentResult { control_units, ..empty.clone() };
        let mut looks = Looks::default();
        assert!(looks.add(7, 10, &of(1)));
        assert!(!looks.add(7, 11, &of(1)), "nothing came");
        for at in 0..1_000 {
            looks.add(7, 20 + at, &of(2 + at));
        }
        assert!(looks.looks.len() <= MAX_LOOKS);
        assert!(looks.looks.is_sorted_by_key(|look| look.at_unix_nano));
        assert_eq!(
            (looks.looks[0].at_unix_nano, looks.looks.last().map(|one| one.at_unix_nano)),
            (10, Some(1_019))
        );
        let first_half = looks.looks.iter().filter(|look| look.at_unix_nano < 510).count();
        assert!((40..=MAX_LOOKS / 2 + 40).contains(&first_half), "{first_half} in the first half");
        assert!(looks.add(8, 2_000, &of(1)));
        assert_eq!(looks.looks.len(), 1);
    }
}
