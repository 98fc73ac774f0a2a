//! Counters of many indicators in memory, quick to add up over any range: what the store keeps by the
//! minute, refreshed at its end.

use std::collections::HashMap;
use std::sync::Arc;

use throughline_trace::Counts;

use crate::slo::{Counters, Window};

/// Counters by indicator.
#[derive(Debug, Clone, Default)]
pub struct CounterTable {
    series: HashMap<Arc<str>, Series>,
    /// Minutes before this one are whole as far as what is stored goes, since the Unix epoch.
    watermark_min: u64,
}

/// Running sums by minute, so that a range is the difference of two of them.
#[derive(Debug, Clone, Default)]
struct Series {
    minutes: Vec<u64>,
    /// Total and good up to and with the minute of the same place.
    sums: Vec<(i64, i64)>,
    /// Minutes from here on are counted whole.
    covered_from_min: u64,
}

impl Series {
    fn before(&self, minute: u64) -> (i64, i64) {
        let at = self.minutes.partition_point(|known| *known < minute);
        at.checked_sub(1).map_or((0, 0), |at| self.sums[at])
    }
}

impl CounterTable {
    /// Puts what was counted from a minute on in the place of what was known from there.
    pub fn replace_from(
        &mut self,
        indicator: &Arc<str>,
        from_min: u64,
        counts: impl IntoIterator<Item = (u64, Counts)>,
    ) {
        let series = self.series.entry(Arc::clone(indicator)).or_default();
        let kept = series.minutes.partition_point(|known| *known < from_min);
        series.minutes.truncate(kept);
        series.sums.truncate(kept);
        let mut sum = series.sums.last().copied().unwrap_or_default();
        for (minute, counts) in counts {
            if minute < from_min || series.minutes.last().is_some_and(|last| *last >= minute) {
                continue;
            }
            sum = (sum.0 + counts.total, sum.1 + counts.good);
            series.minutes.push(minute);
            series.sums.push(sum);
        }
    }

    /// Notes from which minute on an indicator is counted whole.
    pub fn cover(&mut self, indicator: &Arc<str>, from_min: u64) {
        self.series.entry(Arc::clone(indicator)).or_default().covered_from_min = from_min;
    }

    /// Notes up to which minute everything that is stored is counted.
    pub fn set_watermark(&mut self, minute: u64) {
        self.watermark_min = minute;
    }

    /// Forgets indicators that nobody asks for, and minutes that are over. `wanted` is sorted.
    pub fn keep(&mut self, wanted: &[Arc<str>], from_min: u64) {
        self.series.retain(|indicator, _| wanted.binary_search(indicator).is_ok());
        for series in self.series.values_mut() {
            let over = series.minutes.partition_point(|known| *known < from_min);
            // Sums are differences: what is before the first minute that is kept cancels out.
            if over > 0 {
                let before = series.sums[over - 1];
                series.minutes.drain(..over);
                series.sums.drain(..over);
                for sum in &mut series.sums {
                    *sum = (sum.0 - before.0, sum.1 - before.1);
                }
            }
        }
    }
}

impl Counters for CounterTable {
    fn counts(&self, indicator: &str, from_min: u64, to_min: u64) -> Window {
        let Some(series) = self.series.get(indicator).filter(|_| from_min < to_min) else {
            return Window::default();
        };
        let (begin, end) = (series.before(from_min), series.before(to_min));
        let covered = to_min.min(self.watermark_min);
        Window {
            total: end.0 - begin.0,
            good: end.1 - begin.1,
            covered_minutes: covered.saturating_sub(from_min.max(series.covered_from_min)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::slo::MinuteTable;

    fn counts(total: i64, good: i64) -> Counts {
        Counts { total, good, sum_micros: 0 }
    }

    proptest! {
        /// It answers as the plain table does, however it was filled.
        #[test]
        fn ranges_are_what_their_minutes_add_up_to(
            minutes in proptest::collection::btree_map(0_u64..200, (0_i64..50, 0_i64..50), 0..60),
            cut in 0_u64..200, dropped in 0_u64..100, from in 100_u64..200, length in 0_u64..100,
        ) {
            let id: Arc<str> = "errors".into();
            let mut plain = MinuteTable::default();
            for (minute, (total, good)) in &minutes {
                plain.add("errors", *minute, *total, *good);
            }
            plain.cover("errors", 20, 180);
            let all = || minutes.iter().map(|(minute, (total, good))| (*minute, counts(*total, *good)));
            let mut table = CounterTable::default();
            // First what is wrong behind the cut, then what is right.
            table.replace_from(&id, 0, all().map(|(at, one)| (at, if at < cut { one } else { counts(1_000, 7) })));
            table.replace_from(&id, cut, all());
            table.cover(&id, 20);
            table.set_watermark(180);
            table.keep(std::slice::from_ref(&id), dropped);
            let to = from + length;
            prop_assert_eq!(table.counts("errors", from, to), plain.counts("errors", from, to));
        }
    }

    #[test]
    fn who_is_not_known_has_counted_nothing() {
        assert_eq!(CounterTable::default().counts("x", 0, 10), Window::default());
    }
}
