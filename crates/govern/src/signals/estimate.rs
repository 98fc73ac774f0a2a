//! A number with how much it rests on.

use serde::{Deserialize, Serialize};

use super::{Name, definition};

/// The value of a signal over a window. Too little data is missing data, which is neither good nor
/// bad: see [`Estimate::usable`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The value, in the unit of its definition; `None` where there is nothing to tell from.
    pub value: Option<f64>,
    /// How many observations it rests on, of the kind that the definition counts.
    pub count: u64,
    /// Whether that is at least the definition's minimum.
    pub is_enough: bool,
}

impl Estimate {
    /// A value of a definition with what it rests on.
    pub fn of(name: Name, value: Option<f64>, count: u64) -> Self {
        Self::with_minimum(value, count, definition(name).min_count)
    }

    /// A value with what it rests on and how much that must be. A value that is no number is none.
    pub fn with_minimum(value: Option<f64>, count: u64, min_count: u64) -> Self {
        let value = value.filter(|value| value.is_finite());
        Self { value, count, is_enough: value.is_some() && count >= min_count }
    }

    /// `part / whole`, with `whole` as the count.
    pub fn share(name: Name, part: u64, whole: u64) -> Self {
        Self::of(name, (whole > 0).then(|| part as f64 / whole as f64), whole)
    }

    /// The value that a rule may act on: the one that rests on enough.
    pub fn usable(&self) -> Option<f64> {
        self.value.filter(|_| self.is_enough)
    }
}
