//! What indicators count: a rule that watches spans says of each one what it adds to which counter, and
//! the store keeps the counters, from rows that were really inserted.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Span;

/// Characters of the id of an indicator at most.
pub const INDICATOR_ID_MAX_CHARS: usize = 64;

/// What one indicator counted: a merge monoid over integers, so that parts give the same whole in any
/// order. In what is taken back the numbers are below zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Events.
    pub total: i64,
    /// Of them the good ones.
    pub good: i64,
    /// Sum of their values, millionths of the indicator's unit.
    pub sum_micros: i64,
}

impl Counts {
    /// One event.
    pub fn event(is_good: bool) -> Self {
        Self { total: 1, good: i64::from(is_good), sum_micros: 0 }
    }

    /// Joins another part, `times` over.
    pub fn add(&mut self, other: Self, times: i64) {
        for (mine, theirs) in [
            (&mut self.total, other.total),
            (&mut self.good, other.good),
            (&mut self.sum_micros, other.sum_micros),
        ] {
            *mine = mine.wrapping_add(theirs.wrapping_mul(times));
        }
    }

    /// The bad events.
    pub fn bad(self) -> i64 {
        self.total - self.good
    }

    /// The mean of the values in the indicator's unit; `None` without events.
    pub fn mean(self) -> Option<f64> {
        (self.total > 0).then(|| self.sum_micros as f64 / 1e6 / self.total as f64)
    }
}

/// What one span adds to one indicator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// The indicator: a hash of what it counts, so that two rules that count the same share it.
    pub indicator: Arc<str>,
    /// What it adds.
    pub counts: Counts,
}

/// Whoever counts spans: pure, quick, and the same answer for the same span at any time.
pub trait Observe: Send + Sync + fmt::Debug {
    /// Adds to `into` what a span counts for; nothing for most.
    fn observe(&self, span: &Span, into: &mut Vec<Observation>);

    /// Every indicator that it knows.
    fn indicators(&self) -> Vec<Arc<str>>;
}
