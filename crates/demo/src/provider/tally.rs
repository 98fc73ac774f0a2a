//! How many requests each run has made, so that faults can be scheduled by their number.

use std::collections::{HashMap, VecDeque};

/// Most runs whose counts are kept; the oldest are forgotten first.
const MAX_RUNS: usize = 4_096;

/// Counts of requests.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    runs: HashMap<(&'static str, u64), Made>,
    order: VecDeque<(&'static str, u64)>,
    /// Requests of callers whom no story knows.
    others: u64,
}

/// What a run has asked for before this request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Made {
    /// Requests of any kind.
    pub(crate) requests: u64,
    /// Requests for a stream.
    pub(crate) streamed: u64,
}

impl Tally {
    /// Counts a request of a run and tells what came before it.
    pub(crate) fn of_run(&mut self, agent: &'static str, run: u64, is_stream: bool) -> Made {
        let key = (agent, run);
        if !self.runs.contains_key(&key) {
            self.order.push_back(key);
            if self.order.len() > MAX_RUNS
                && let Some(oldest) = self.order.pop_front()
            {
                self.runs.remove(&oldest);
            }
        }
        let made = self.runs.entry(key).or_default();
        let before = *made;
        made.requests += 1;
        made.streamed += u64::from(is_stream);
        before
    }

    /// Counts a request of anybody else and tells how many came before it.
    pub(crate) fn of_others(&mut self) -> u64 {
        self.others += 1;
        self.others - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_counted_apart_and_old_ones_forgotten() {
        let mut tally = Tally::default();
        assert_eq!(tally.of_run("a", 0, true), Made::default());
        assert_eq!(tally.of_run("a", 0, false), Made { requests: 1, streamed: 1 });
        assert_eq!(tally.of_run("b", 0, false), Made::default());
        for run in 1..=MAX_RUNS as u64 {
            tally.of_run("a", run, false);
        }
        assert_eq!(tally.runs.len(), MAX_RUNS);
        assert_eq!(tally.of_run("a", 0, false), Made::default());
    }
}
