//! What a formula is made of: signals of the table, and what expressions count over spans.

use serde::{Deserialize, Serialize};
use throughline_rules::{Expression, Match};
use throughline_trace::{Sketch, Span};

use super::{Direction, Estimate, Name, definition};

/// Quantiles of an indicator's values are kept in a sketch of whole numbers: millionths of its unit.
const SKETCHED_PER_UNIT: f64 = 1e6;

/// One variable of a formula.
#[derive(Debug, Clone)]
pub enum Indicator {
    /// A signal of the table.
    Defined(Name),
    /// Something over spans.
    Spans(SpanIndicator),
}

/// What is counted over spans, and how.
#[derive(Debug, Clone)]
pub struct SpanIndicator {
    /// The spans that it is about.
    pub(super) filter: Expression,
    /// What is made of them.
    pub(super) aggregate: Aggregate,
    /// Spans below which it is missing.
    pub(super) min_count: u64,
}

/// What is made of the spans of an indicator.
#[derive(Debug, Clone)]
pub enum Aggregate {
    /// Share of them for which this holds.
    Share(Expression),
    /// How many.
    Count,
    /// Mean of a value.
    Mean(Expression),
    /// Sum of a value.
    Sum(Expression),
    /// A quantile of a value that is not negative, 0 to 1.
    Quantile(Expression, f64),
}

/// What an indicator has counted. A merge monoid.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Spans that counted.
    pub count: u64,
    /// Of those: the share's condition held.
    pub good: u64,
    /// Sum of the values.
    pub sum: f64,
    /// The values, for quantiles.
    pub values: Sketch,
    /// Spans for which an expression had no value; they do not count.
    pub errors: u64,
}

impl Tally {
    /// Joins another part.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.good += other.good;
        self.sum += other.sum;
        self.values.merge(&other.values);
        self.errors += other.errors;
    }
}

impl Indicator {
    /// Which way it gets worse, where that is known.
    pub fn direction(&self) -> Option<Direction> {
        match self {
            Self::Defined(name) => Some(definition(*name).direction),
            Self::Spans(_) => None,
        }
    }
}

impl SpanIndicator {
    /// Takes a span in.
    pub fn observe(&self, span: &Span, tally: &mut Tally) {
        match self.filter.matches(span) {
            Match::Yes => {}
            Match::No => return,
            Match::Error(_) => {
                tally.errors += 1;
                return;
            }
        }
        let number = |value: &Expression| {
            let value = value.evaluate(span).ok()?.as_f64()?;
            value.is_finite().then_some(value)
        };
        match &self.aggregate {
            Aggregate::Count => tally.count += 1,
            Aggregate::Share(good) => match good.matches(span) {
                Match::Error(_) => tally.errors += 1,
                told => {
                    tally.count += 1;
                    tally.good += u64::from(told.is_yes());
                }
            },
            Aggregate::Mean(value) | Aggregate::Sum(value) => match number(value) {
                Some(value) => {
                    tally.count += 1;
                    tally.sum += value;
                }
                None => tally.errors += 1,
            },
            Aggregate::Quantile(value, _) => match number(value).filter(|value| *value >= 0.0) {
                Some(value) => {
                    tally.count += 1;
                    tally.values.add((value * SKETCHED_PER_UNIT).round() as u64, 1);
                }
                None => tally.errors += 1,
            },
        }
    }

    /// What was counted, as a number.
    pub fn estimate(&self, tally: &Tally) -> Estimate {
        let count = tally.count;
        let of_some = |value: f64| (count > 0).then_some(value);
        let value = match &self.aggregate {
            Aggregate::Count => Some(count as f64),
            Aggregate::Share(_) => of_some(tally.good as f64 / count as f64),
            Aggregate::Mean(_) => of_some(tally.sum / count as f64),
            Aggregate::Sum(_) => of_some(tally.sum),
            Aggregate::Quantile(_, share) => {
                tally.values.quantile(*share).map(|value| value / SKETCHED_PER_UNIT)
            }
        };
        Estimate::with_minimum(value, count, self.min_count)
    }
}
