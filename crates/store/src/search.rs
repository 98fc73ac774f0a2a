//! The query language of lists of traces: `model:gpt-4o fallback:degraded tokens>5000 "free text"`.
//!
//! A query is parsed into an `Expression` and judged against the
//! summary of a trace; terms about spans and texts wait for what its spans show. The grammar is in
//! `docs/search.md`.

pub(crate) mod content;
mod error;
mod field;
mod join;
mod judge;
mod parse;
#[cfg(test)]
mod print;
mod units;

#[cfg(test)]
mod tests;

use throughline_trace::FallbackState;

pub use error::SearchError;
pub(crate) use field::{NameField, NumberField};
pub(crate) use judge::{Evidence, NeedleSet, SpanTerms, value_matches};
pub use units::parse_moment;

/// Longest query, characters.
pub const MAX_QUERY_CHARS: usize = 2_000;

/// Deepest nesting of parentheses and negations.
pub(crate) const MAX_QUERY_DEPTH: usize = 16;

/// Most terms of a query.
pub(crate) const MAX_QUERY_TERMS: usize = 64;

/// What a list of traces is asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SearchQuery {
    /// What must hold; `None` when everything fits.
    pub(crate) expression: Option<Expression>,
}

/// Conditions and how they are joined.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expression {
    /// All hold; at least two.
    And(Vec<Expression>),
    /// One holds; at least two.
    Or(Vec<Expression>),
    /// It does not hold.
    Not(Box<Expression>),
    /// One condition.
    Term(Term),
}

/// One condition on a trace.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Term {
    /// A name, a status message or a message holds this text, in any case of letters.
    Text(String),
    /// One of these names of the trace is so.
    Name(NameField, TextTest),
    /// A number of the trace lies there: counts as they are, durations in nanoseconds, costs in US
    /// dollars.
    Number(NumberField, Bounds<f64>),
    /// It started then, nanoseconds since the Unix epoch.
    Start(Bounds<u64>),
    /// Whether some span failed.
    Error(bool),
    /// Whether the span that stands for the trace failed.
    Failed(bool),
    /// The furthest that any fallback went.
    Fallback(FallbackState),
    /// Some span, one of its events, or its resource has an attribute with this key and value.
    Attribute(String, AttributeTest),
}

/// What a text must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TextTest {
    /// Exactly this.
    Is(String),
    /// It begins so.
    Begins(String),
    /// It is there.
    Any,
}

/// What the value of an attribute must be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AttributeTest {
    /// Its text; numbers and truths count as the text that spells them.
    Text(TextTest),
    /// Its number; text that spells a number counts.
    Number(Bounds<f64>),
}

/// A range; at least one end is there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bounds<T> {
    /// The lower end.
    pub(crate) low: Option<Limit<T>>,
    /// The upper end.
    pub(crate) high: Option<Limit<T>>,
}

/// One end of a range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Limit<T> {
    /// Where it is.
    pub(crate) value: T,
    /// Whether the value itself is inside.
    pub(crate) is_inclusive: bool,
}

impl<T: PartialOrd + Copy> Bounds<T> {
    /// Only this value.
    pub(crate) fn exactly(value: T) -> Self {
        Self::between(Some(value), Some(value))
    }

    /// From one value to another, both inside.
    pub(crate) fn between(low: Option<T>, high: Option<T>) -> Self {
        let limit = |value| Limit { value, is_inclusive: true };
        Self { low: low.map(limit), high: high.map(limit) }
    }

    /// Whether a value lies inside.
    pub(crate) fn contains(&self, value: T) -> bool {
        self.low.is_none_or(|low| value > low.value || low.is_inclusive && value == low.value)
            && self
                .high
                .is_none_or(|high| value < high.value || high.is_inclusive && value == high.value)
    }
}

impl TextTest {
    /// Whether a text is so.
    pub(crate) fn accepts(&self, text: &str) -> bool {
        match self {
            Self::Is(wanted) => wanted == text,
            Self::Begins(prefix) => text.starts_with(prefix),
            Self::Any => true,
        }
    }
}

impl SearchQuery {
    /// Reads a query. Times that are told back from now are counted from `now_unix_nano`.
    ///
    /// # Errors
    /// [`SearchError`] with the column, what was expected and what came.
    pub fn parse(text: &str, now_unix_nano: u64) -> Result<Self, SearchError> {
        parse::parse(text, now_unix_nano)
    }

    /// Whether summaries are not enough to answer it: it asks for attributes, spans or texts.
    pub fn needs_spans(&self) -> bool {
        !SpanTerms::of(self).is_empty()
    }

    /// The conditions that every trace must meet that fits.
    pub(crate) fn required_terms(&self) -> impl Iterator<Item = &Term> {
        let all = match &self.expression {
            Some(Expression::And(all)) => all.as_slice(),
            Some(one) => std::slice::from_ref(one),
            None => &[],
        };
        all.iter().filter_map(|one| match one {
            Expression::Term(term) => Some(term),
            _ => None,
        })
    }
}

/// A text in lower case, as texts are compared: a sigma at the end of a word is one within it, since what is
/// looked for may end where a word goes on.
pub(crate) fn folded(text: &str) -> String {
    let lower = text.to_lowercase();
    if lower.contains('ς') { lower.replace('ς', "σ") } else { lower }
}
