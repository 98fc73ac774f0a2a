//! Counters of indicators: what rules count of spans, by minute, in `rollups.db`.
//!
//! A rule that watches spans ([`Observe`]) is asked about each span while its batch is prepared. What
//! it counts travels with the span's facts through the group's delta ([`crate::rollups`]), so that
//! a counter has exactly the spans that were really inserted, once, over crashes and redelivery, and loses
//! calls that turn out to be told twice. A call that is stored already, and is read back when its trace goes
//! on, is asked about again, so that it can be lost too.
//!
//! # Parts
//!
//! Counters are kept as one part for each segment. A part is *whole* when it has every span of the
//! segment. For an indicator that is new, a segment has none: it is counted from a snapshot of the
//! rows (`count.rs`), whose last group is noted; deltas up to that group are passed over, later ones are
//! added. So a new rule has its history within minutes, and the answer says from when on it is whole.
//! What was sampled before is counted by its weights, and told as an estimate.

mod count;
mod observer;
mod parts;
mod read;

pub use observer::Observer;
pub use read::{IndicatorCounts, IndicatorCoverage, IndicatorQuery};

pub(crate) use count::Count;
pub(crate) use observer::Watching;
pub(crate) use parts::{CountDelta, Parts};
pub(crate) use read::counts;

#[cfg(test)]
mod tests;
