//! The counters that SLOs are worked out from: what was counted in a range of minutes, and for how
//! many of them that is known to be all.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What an indicator counted in a range of minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Window {
    /// What counts, in units of [`Indicator::units_per_event`](super::Indicator::units_per_event).
    pub total: i64,
    /// What of it was good.
    pub good: i64,
    /// Minutes of the range for which the counters are known to be whole: the server ran, or what was
    /// missed has been counted since. What is not covered is missing, not good and not bad.
    pub covered_minutes: u64,
}

impl Window {
    /// What was not good.
    pub fn bad(&self) -> i64 {
        (self.total - self.good).max(0)
    }

    /// Bad over total; `None` when nothing was counted.
    pub fn error_ratio(&self) -> Option<f64> {
        (self.total > 0).then(|| self.bad() as f64 / self.total as f64)
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            total: self.total + other.total,
            good: self.good + other.good,
            covered_minutes: self.covered_minutes + other.covered_minutes,
        }
    }
}

/// Where counters are read. Minutes are whole minutes since the Unix epoch, `from` within and `to`
/// without.
pub trait Counters {
    /// What an indicator counted from `from_min` up to `to_min`. An indicator that is not known has
    /// counted nothing and is not covered.
    fn counts(&self, indicator: &str, from_min: u64, to_min: u64) -> Window;

    /// The same in steps of `step_min` minutes from `from_min`; the last step ends at `to_min` and may
    /// be shorter. Where one question for all steps is cheaper, this is the place for it.
    fn slices(&self, indicator: &str, from_min: u64, to_min: u64, step_min: u64) -> Vec<Window> {
        let step = step_min.max(1);
        let starts = (from_min..to_min).step_by(usize::try_from(step).unwrap_or(usize::MAX));
        starts
            .map(|start| self.counts(indicator, start, start.saturating_add(step).min(to_min)))
            .collect()
    }
}

/// Counters in memory: filled from the store, from a replay, or by a test.
#[derive(Debug, Clone, Default)]
pub struct MinuteTable {
    indicators: BTreeMap<String, Series>,
}

#[derive(Debug, Clone, Default)]
struct Series {
    cells: BTreeMap<u64, (i64, i64)>,
    /// Ranges of minutes that are whole, in order, apart from each other: begin → end.
    covered: BTreeMap<u64, u64>,
}

impl MinuteTable {
    /// Adds what was counted in a minute.
    pub fn add(&mut self, indicator: &str, minute: u64, total: i64, good: i64) {
        let cell = self.series(indicator).cells.entry(minute).or_default();
        *cell = (cell.0 + total, cell.1 + good);
    }

    /// Notes that the counters of these minutes are whole.
    pub fn cover(&mut self, indicator: &str, from_min: u64, to_min: u64) {
        if from_min >= to_min {
            return;
        }
        let covered = &mut self.series(indicator).covered;
        let (mut from, mut to) = (from_min, to_min);
        // What overlaps or touches becomes one range.
        while let Some((&begin, &end)) =
            covered.range(..=to).next_back().filter(|(_, end)| **end >= from)
        {
            covered.remove(&begin);
            (from, to) = (from.min(begin), to.max(end));
        }
        covered.insert(from, to);
    }

    /// Notes that the counters of these minutes are not whole after all.
    pub fn uncover(&mut self, indicator: &str, from_min: u64, to_min: u64) {
        if from_min >= to_min {
            return;
        }
        let covered = &mut self.series(indicator).covered;
        while let Some((&begin, &end)) =
            covered.range(..to_min).next_back().filter(|(_, end)| **end > from_min)
        {
            covered.remove(&begin);
            if begin < from_min {
                covered.insert(begin, from_min);
            }
            if end > to_min {
                covered.insert(to_min, end);
            }
        }
    }

    fn series(&mut self, indicator: &str) -> &mut Series {
        if !self.indicators.contains_key(indicator) {
            self.indicators.insert(indicator.to_owned(), Series::default());
        }
        self.indicators.entry(indicator.to_owned()).or_default()
    }
}

impl Counters for MinuteTable {
    fn counts(&self, indicator: &str, from_min: u64, to_min: u64) -> Window {
        let Some(series) = self.indicators.get(indicator).filter(|_| from_min < to_min) else {
            return Window::default();
        };
        let mut window = Window::default();
        for (total, good) in series.cells.range(from_min..to_min).map(|(_, cell)| cell) {
            window.total += total;
            window.good += good;
        }
        for (begin, end) in series.covered.range(..to_min).rev() {
            if *end <= from_min {
                break;
            }
            window.covered_minutes += (*end).min(to_min) - (*begin).max(from_min);
        }
        window
    }
}
