//! Service level objectives: what is counted, what is promised, and when it burns.
//!
//! An SLO is a file in the form of [OpenSLO v1](https://github.com/OpenSLO/OpenSLO) whose metrics are
//! expressions over spans. Each gives an [`Indicator`], which says of a span whether it counts and
//! whether it was good; what it says is added up by the minute, and everything else (burn rates,
//! budgets, alerts) is worked out from these [`Counters`] and a time that is passed in.

mod counters;
mod indicator;
mod set;

pub use counters::{Counters, MinuteTable, Window};
pub use indicator::{
    Comparison, Indicator, IndicatorError, Judge, Observation, RAW_UNITS_PER_EVENT, minute_of,
};
pub use set::IndicatorSet;

#[cfg(test)]
mod tests;
