//! What sampling leaves of a trace, and by which number it is chosen.
//!
//! The choice follows OpenTelemetry's consistent probability sampling: the last 56 bits of a trace id
//! are its randomness (W3C Trace Context Level 2), and a trace is chosen when they reach a rejection
//! threshold. Every part of a trace, on whatever machine, is so chosen alike, and what is chosen at a
//! rate is also chosen at every higher one.

use serde::{Deserialize, Serialize};

use crate::TraceId;

/// Values that the randomness of a trace id may have: 2⁵⁶.
const RANDOMNESS_VALUES: u64 = 1 << 56;

/// The smallest rate above 0 that is told apart from others: one trace in a million.
pub const MIN_SAMPLING_RATE: f64 = 1e-6;

/// A share of all traces, as the threshold that their randomness must reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SamplingRate {
    /// From 0, which all reach, to 2⁵⁶, which none does.
    threshold: u64,
}

impl SamplingRate {
    /// All traces.
    pub const ALL: Self = Self { threshold: 0 };

    /// The share of a number: 0, or [`MIN_SAMPLING_RATE`] to 1; `None` for anything else.
    pub fn new(rate: f64) -> Option<Self> {
        if rate == 0.0 {
            return Some(Self { threshold: RANDOMNESS_VALUES });
        }
        (MIN_SAMPLING_RATE..=1.0).contains(&rate).then(|| {
            let chosen = (rate * RANDOMNESS_VALUES as f64).round() as u64;
            Self { threshold: RANDOMNESS_VALUES - chosen.min(RANDOMNESS_VALUES) }
        })
    }

    /// Whether a trace is of the share.
    pub fn chooses(self, id: TraceId) -> bool {
        randomness(id) >= self.threshold
    }

    /// How many traces each chosen one stands for (1/rate, at least 1); 0 when none is chosen.
    pub fn weight(self) -> f64 {
        let chosen = RANDOMNESS_VALUES - self.threshold;
        if chosen == 0 { 0.0 } else { RANDOMNESS_VALUES as f64 / chosen as f64 }
    }
}

/// The last 56 bits of a trace id.
fn randomness(id: TraceId) -> u64 {
    let mut low = [0; 8];
    low.copy_from_slice(&id.as_bytes()[8..]);
    u64::from_be_bytes(low) & (RANDOMNESS_VALUES - 1)
}

/// What sampling did to a trace. Parts of several segments [merge](Self::merge) in any order.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sampled {
    /// How many spans each of those that were chosen by chance stands for, at least 1.
    pub weight: f64,
    /// Spans that were chosen by chance.
    pub spans_chosen: u64,
    /// Spans that are gone; the summary counts them still.
    pub spans_dropped: u64,
    /// Log records that are gone; the summary counts them still.
    pub logs_dropped: u64,
    /// Spans of which ids, names, times, status and role are left.
    pub spans_bared: u64,
}

impl Default for Sampled {
    /// Nothing was done: the neutral element of [`Sampled::merge`].
    fn default() -> Self {
        Self { weight: 1.0, spans_chosen: 0, spans_dropped: 0, logs_dropped: 0, spans_bared: 0 }
    }
}

impl Sampled {
    /// Joins what was done to another part of the same trace.
    pub fn merge(&mut self, other: Self) {
        // Of two shares the larger one is how likely it was that anything is there.
        self.weight = match (self.spans_chosen > 0, other.spans_chosen > 0) {
            (true, true) => self.weight.min(other.weight),
            (_, true) => other.weight,
            _ => self.weight,
        };
        self.spans_chosen = self.spans_chosen.saturating_add(other.spans_chosen);
        self.spans_dropped = self.spans_dropped.saturating_add(other.spans_dropped);
        self.logs_dropped = self.logs_dropped.saturating_add(other.logs_dropped);
        self.spans_bared = self.spans_bared.saturating_add(other.spans_bared);
    }

    /// Whether anything was done.
    pub fn is_touched(&self) -> bool {
        *self != Self::default()
    }

    /// How many spans each of those that are left of this part stands for: 0 where only a skeleton is.
    pub fn weight_of_span(&self) -> f64 {
        if self.spans_bared > 0 && self.spans_chosen == 0 { 0.0 } else { self.weight }
    }

    /// How many traces one with this many spans stands for where those are counted that have spans: 0
    /// once of all of its spans nothing or only the skeleton is left, since those that chance chose stand for
    /// it; 1 if some of them are there for another reason than chance.
    pub fn weight_of_trace(&self, span_count: u64) -> f64 {
        let gone = self.spans_dropped.saturating_add(self.spans_bared);
        match () {
            () if span_count > 0 && gone >= span_count => 0.0,
            () if gone.saturating_add(self.spans_chosen) < span_count => 1.0,
            () => self.weight,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(randomness: u64, rest: u128) -> TraceId {
        TraceId::from_u128(rest << 56 | u128::from(randomness))
    }

    #[test]
    fn rates_that_cannot_be_meant_are_none() {
        for odd in [-0.1, 1.000_1, f64::NAN, f64::INFINITY, 1e-7] {
            assert_eq!(SamplingRate::new(odd), None, "{odd}");
        }
        assert_eq!(SamplingRate::new(1.0), Some(SamplingRate::ALL));
        let none = SamplingRate::new(0.0).unwrap();
        assert!(!none.chooses(TraceId::from_u128(u128::MAX)) && none.weight() == 0.0);
        // The example of the specification: a quarter is those from 0xc0… on.
        let quarter = SamplingRate::new(0.25).unwrap();
        assert_eq!(quarter.weight(), 4.0);
        assert!(quarter.chooses(id(0xc0 << 48, 7)) && !quarter.chooses(id((0xc0 << 48) - 1, 7)));
    }

    fn any_part() -> impl Strategy<Value = Sampled> {
        (1..9_u32, 0..3_u64, 0..3_u64, 0..3_u64).prop_map(|(weight, chosen, dropped, bared)| {
            Sampled {
                weight: if chosen > 0 { f64::from(weight) } else { 1.0 },
                spans_chosen: chosen,
                spans_dropped: dropped,
                logs_dropped: dropped,
                spans_bared: bared,
            }
        })
    }

    #[test]
    fn a_trace_weighs_as_much_as_it_was_likely_to_be_seen() {
        let chosen = Sampled { weight: 4.0, spans_chosen: 2, ..Sampled::default() };
        let dropped = Sampled { spans_dropped: 3, ..Sampled::default() };
        let mut both = chosen;
        both.merge(dropped);
        assert_eq!((chosen.weight_of_trace(2), both.weight_of_trace(5)), (4.0, 4.0));
        // A sixth span is there whatever chance says of the others.
        assert_eq!((both.weight_of_trace(6), dropped.weight_of_trace(3)), (1.0, 0.0));
        assert_eq!(Sampled::default().weight_of_trace(7), 1.0);
        // Those that chance chose stand for one of which a skeleton is left, too.
        let bared = Sampled { spans_bared: 2, ..Sampled::default() };
        assert_eq!((bared.weight_of_trace(2), bared.weight_of_span()), (0.0, 0.0));
        assert_eq!((chosen.weight_of_span(), Sampled::default().weight_of_span()), (4.0, 1.0));
    }

    proptest! {
        #[test]
        fn parts_merge_in_any_order(one in any_part(), two in any_part(), three in any_part()) {
            let merged = |parts: [Sampled; 3]| {
                let mut whole = Sampled::default();
                parts.into_iter().for_each(|part| whole.merge(part));
                whole
            };
            prop_assert_eq!(merged([one, two, three]), merged([three, one, two]));
            let mut tail = two;
            tail.merge(three);
            let mut grouped = one;
            grouped.merge(tail);
            prop_assert_eq!(merged([one, two, three]), grouped);
        }

        #[test]
        fn a_choice_is_the_trace_ids_alone_and_higher_rates_choose_more(
            random in 0..RANDOMNESS_VALUES, one: u64, other: u64,
            low in MIN_SAMPLING_RATE..1.0, high in MIN_SAMPLING_RATE..1.0,
        ) {
            let (low, high) = (low.min(high), low.max(high));
            let (low, high) = (SamplingRate::new(low).unwrap(), SamplingRate::new(high).unwrap());
            let chosen = low.chooses(id(random, one.into()));
            prop_assert_eq!(chosen, low.chooses(id(random, other.into())));
            prop_assert!(!chosen || high.chooses(id(random, one.into())));
        }

        #[test]
        fn weights_of_the_chosen_sum_to_all(rate in 0.001..1.0) {
            // Evenly spread randomness: the sum is exact to one trace.
            const TRACES: u64 = 1 << 14;
            let rate = SamplingRate::new(rate).unwrap();
            let ids = (0..TRACES).map(|n| id(n * (RANDOMNESS_VALUES / TRACES), 1));
            let sum: f64 = ids.filter(|id| rate.chooses(*id)).map(|_| rate.weight()).sum();
            prop_assert!((sum - TRACES as f64).abs() <= rate.weight(), "{}", sum);
        }
    }
}
