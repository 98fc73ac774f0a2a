//! Service level objectives: what is counted, what is promised, and when it burns.
//!
//! An SLO is a file in the form of [OpenSLO v1](https://github.com/OpenSLO/OpenSLO) whose metrics are
//! expressions over spans. Each gives an [`Indicator`], which says of a span whether it counts and
//! whether it was good; what it says is added up by the minute, and everything else (burn rates,
//! budgets, alerts) is worked out from these [`Counters`] and a time that is passed in.

mod alert;
mod budget;
mod call_policy;
mod counters;
mod duration;
mod evaluate;
mod fields;
mod indicator;
mod investigate;
mod lines;
mod mistake;
mod model;
mod openslo;
mod prometheus;
mod set;
mod sloth;
mod tree;
mod window;

pub use alert::{AlertState, BURN_KIND, NO_DATA_KIND};
pub use budget::{Budget, Burn, MIN_COVERED_SHARE, Measured};
pub use call_policy::{CALL_TIME, CallPolicy, MAX_CALL_TIME, MAX_OVERRUNS};
pub use counters::{Counters, MinuteTable, Window};
pub use duration::{Length, Unit};
pub use evaluate::{
    Evaluated, MAX_CATCH_UP_MIN, ObjectiveState, ObjectiveStatus, RECENT_MIN, SloHealth, SloState,
    evaluate, withdraw,
};
pub use indicator::{
    Comparison, Indicator, IndicatorError, Judge, Observation, RAW_UNITS_PER_EVENT, minute_of,
};
pub use investigate::{DEVIATION_KIND, LoopState};
pub use mistake::{Mistake, Mistakes, Source};
pub use model::{
    Alert, Budgeting, DEFAULT_EVALUATION_THRESHOLD, DEFAULT_EVALUATION_WINDOW_MIN,
    DEFAULT_EVALUATION_WINDOWS, DEFAULT_MIN_EVENTS, EvaluationLoop, Need, Objective, Slo,
    UsualAlerts,
};
pub use openslo::{MAX_SLO_FILE_BYTES, MAX_SLOS, SloFiles, read_openslo, write_openslo};
pub use prometheus::{EVENTS_METRIC, GOOD_EVENTS_METRIC, write_prometheus};
pub use set::IndicatorSet;
pub use sloth::import_sloth;
pub use window::{BudgetWindow, Calendar};

#[cfg(test)]
mod tests;
