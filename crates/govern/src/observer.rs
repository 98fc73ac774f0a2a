//! The indicators of rules as the store asks them about each span.

use std::sync::Arc;

use throughline_trace::{Counts, Observation, Observe, Span};

use crate::slo::{Indicator, IndicatorSet};

/// Indicators of all rules, as one observer.
#[derive(Debug, Clone, Default)]
pub struct RuleObserver {
    set: IndicatorSet,
    /// Ids of the set's indicators, in their order, as observations share them.
    ids: Vec<Arc<str>>,
}

impl RuleObserver {
    /// An observer for these indicators; those with the same id are one.
    pub fn new(indicators: impl IntoIterator<Item = Arc<Indicator>>) -> Self {
        let set = IndicatorSet::new(indicators);
        let ids = set.indicators().iter().map(|indicator| Arc::from(indicator.id())).collect();
        Self { set, ids }
    }
}

impl Observe for RuleObserver {
    fn observe(&self, span: &Span, into: &mut Vec<Observation>) {
        self.set.observe(span, |at, observed| {
            // An event that could not be judged counts nowhere.
            if observed.total != 0 {
                let counts = Counts { total: observed.total, good: observed.good, sum_micros: 0 };
                into.push(Observation { indicator: Arc::clone(&self.ids[at]), counts });
            }
        });
    }

    fn indicators(&self) -> Vec<Arc<str>> {
        self.ids.clone()
    }
}
