//! Rollups: what many spans and decisions add up to. A [`Rollup`] is a merge monoid over exact
//! integers and [sketches](Sketch), so that parts from batches, days and machines give the same
//! whole in any order.
//!
//! What a span adds is worked out once ([`SpanFacts`]); a model call that turns out to be told twice
//! ([`CallLedger`](crate::CallLedger)) is taken back with the same facts, so that a cell's calls,
//! durations, tokens and cost are those of the calls that really were.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::calls::is_call;
use crate::{Attributes, Decision, Observation, Span, SpanRole, StatusCode, keys};

mod lattice;
mod query;
mod sketch;
mod spent;

pub use lattice::{
    Cuboid, Dimension, Dimensions, DimensionsRef, LatticeKey, MAX_DIMENSION_CHARS, OTHER,
    PhaseName, Resolution,
};
pub use query::{
    MAX_SERIES_GROUPS, MAX_SERIES_MEASURES, MAX_SERIES_POINTS, Measure, SeriesGroups, SeriesPlan,
    SeriesQuery, SeriesQueryError,
};
pub use sketch::{SKETCH_ACCURACY, SKETCH_GAMMA, Sketch};
pub use spent::Spent;

/// Millionths in one: confidence is summed as integers.
const MILLIONTHS: f64 = 1_000_000.0;

/// What operations are told apart by within a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum OperationKind {
    /// Spans without a parent, whatever else they are: requests as they come in.
    Root,
    /// Spans of a role.
    Role(SpanRole),
}

impl OperationKind {
    /// `root`, or the value of `throughline.role`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Role(role) => role.as_str(),
        }
    }

    /// The kind of a name.
    pub fn from_text(text: &str) -> Option<Self> {
        match text {
            "root" => Some(Self::Root),
            text => SpanRole::from_text(text).map(Self::Role),
        }
    }
}

/// How an operation ended, in terms of business (R1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it should.
    Ok,
    /// A policy said no.
    PolicyRejected,
    /// A model took too long.
    ModelTimeout,
    /// Something else took too long.
    Timeout,
    /// Well, after another attempt.
    RetrySucceeded,
    /// Well, on the degraded branch of a fallback.
    FallbackDegraded,
    /// Not tried: the circuit was open.
    CircuitOpen,
    /// Cancelled.
    Cancelled,
    /// Failed in another way.
    Error,
    /// A word that is not in the list of R1.3.
    Unknown,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Ok,
        Self::PolicyRejected,
        Self::ModelTimeout,
        Self::Timeout,
        Self::RetrySucceeded,
        Self::FallbackDegraded,
        Self::CircuitOpen,
        Self::Cancelled,
        Self::Error,
        Self::Unknown,
    ];

    /// The value of `outcome`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::PolicyRejected => "policy_rejected",
            Self::ModelTimeout => "model_timeout",
            Self::Timeout => "timeout",
            Self::RetrySucceeded => "retry_succeeded",
            Self::FallbackDegraded => "fallback_degraded",
            Self::CircuitOpen => "circuit_open",
            Self::Cancelled => "cancelled",
            Self::Error => "error",
            Self::Unknown => "unknown",
        }
    }

    /// Whether it went well, be it after a retry or on a degraded branch.
    pub fn is_well(self) -> bool {
        matches!(self, Self::Ok | Self::RetrySucceeded | Self::FallbackDegraded)
    }

    /// What the attribute says; where there is none, what the status says.
    pub fn of(said: Option<&str>, is_error: bool) -> Self {
        match said {
            Some(text) => Self::ALL
                .into_iter()
                .find(|outcome| outcome.as_str() == text)
                .unwrap_or(Self::Unknown),
            None if is_error => Self::Error,
            None => Self::Ok,
        }
    }
}

/// Operations of one kind in a cell.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Operations {
    /// How many ended.
    pub count: i64,
    /// How many of them with status ERROR.
    pub errors: i64,
    /// How they ended; outcomes that are `ok` without an error are not listed.
    outcomes: Vec<(Outcome, i64)>,
    /// Of those with status ERROR: their outcomes.
    error_outcomes: Vec<(Outcome, i64)>,
    /// Nanoseconds from start to end.
    pub durations: Sketch,
}

impl Operations {
    fn add(&mut self, facts: &SpanFacts, times: i64) {
        self.count = self.count.wrapping_add(times);
        if facts.is_error {
            self.errors = self.errors.wrapping_add(times);
            add_to(&mut self.error_outcomes, facts.outcome, times);
        }
        if facts.outcome != Outcome::Ok {
            add_to(&mut self.outcomes, facts.outcome, times);
        }
        self.durations.add(facts.duration_nano, times);
    }

    fn merge(&mut self, other: &Self) {
        self.count = self.count.wrapping_add(other.count);
        self.errors = self.errors.wrapping_add(other.errors);
        other.outcomes.iter().for_each(|(at, times)| add_to(&mut self.outcomes, *at, *times));
        for (at, times) in &other.error_outcomes {
            add_to(&mut self.error_outcomes, *at, *times);
        }
        self.durations.merge(&other.durations);
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The same operations with these outcomes, and with those of the failed among them, as
    /// [`Operations::with_outcome`] and [`Operations::error_outcomes`] tell them.
    #[must_use]
    pub fn with_outcomes(
        mut self,
        outcomes: impl IntoIterator<Item = (Outcome, i64)>,
        of_errors: impl IntoIterator<Item = (Outcome, i64)>,
    ) -> Self {
        for (at, times) in outcomes.into_iter().filter(|(at, _)| *at != Outcome::Ok) {
            add_to(&mut self.outcomes, at, times);
        }
        of_errors.into_iter().for_each(|(at, times)| add_to(&mut self.error_outcomes, at, times));
        self
    }

    /// How many ended in this way.
    pub fn with_outcome(&self, outcome: Outcome) -> i64 {
        if outcome == Outcome::Ok {
            let others = self.outcomes.iter().fold(0_i64, |sum, (_, n)| sum.wrapping_add(*n));
            return self.count.wrapping_sub(others);
        }
        self.outcomes.iter().find(|(of, _)| *of == outcome).map_or(0, |(_, count)| *count)
    }

    /// Operations with status ERROR by outcome.
    pub fn error_outcomes(&self) -> impl Iterator<Item = (Outcome, i64)> {
        self.error_outcomes.iter().copied()
    }
}

/// Adds to one entry of a sorted list; what comes to nothing is not kept.
fn add_to<K: Ord>(list: &mut Vec<(K, i64)>, key: K, times: i64) {
    match list.binary_search_by(|(of, _)| of.cmp(&key)) {
        Err(_) if times == 0 => {}
        Err(at) => list.insert(at, (key, times)),
        Ok(at) => {
            list[at].1 = list[at].1.wrapping_add(times);
            if list[at].1 == 0 {
                list.remove(at);
            }
        }
    }
}

/// Fallbacks of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fallbacks {
    /// Operations that fell back.
    pub triggered: i64,
    /// Of those: the degraded branch answered.
    pub succeeded: i64,
    /// Of those: the degraded branch failed too.
    pub failed: i64,
    /// Operations whose primary was enough.
    pub skipped: i64,
}

/// What one span adds to a rollup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanFacts {
    /// Where it belongs.
    pub dimensions: Arc<Dimensions>,
    /// When it ended, nanoseconds since the Unix epoch: the store may have clamped it.
    pub end_unix_nano: u64,
    /// Whether the sender's clock was so wrong that the end is the store's guess.
    pub is_misdated: bool,
    /// What part of an agent's work it is.
    pub role: SpanRole,
    is_root: bool,
    is_error: bool,
    outcome: Outcome,
    duration_nano: u64,
    first_token_nano: Option<u64>,
    spent: Spent,
    fallback: Option<Fallbacks>,
    is_retry: bool,
    /// What it adds to indicators; shared, as most spans add nothing and facts are kept.
    observed: Option<Arc<[Observation]>>,
}

/// What of a span makes its [`SpanFacts`], beside its attributes.
#[derive(Debug, Clone, Copy)]
pub struct SpanFrame {
    /// Its role.
    pub role: SpanRole,
    /// Whether it has no parent.
    pub is_root: bool,
    /// Its verdict.
    pub status: StatusCode,
    /// Start, nanoseconds since the Unix epoch.
    pub start_unix_nano: u64,
    /// End, nanoseconds since the Unix epoch.
    pub end_unix_nano: u64,
}

impl SpanFacts {
    /// The same facts under a time of the store's choosing.
    #[must_use]
    pub fn misdated(&self, end_unix_nano: u64) -> Self {
        Self { end_unix_nano, is_misdated: true, ..self.clone() }
    }

    /// What a span adds. `share` gives what the dimensions are kept as, so that spans alike share
    /// them.
    pub fn of(
        span: &Span,
        role: SpanRole,
        share: impl FnOnce(DimensionsRef<'_>) -> Arc<Dimensions>,
    ) -> Self {
        let frame = SpanFrame {
            role,
            is_root: span.parent_span_id.is_none(),
            status: span.status.code,
            start_unix_nano: span.start_unix_nano,
            end_unix_nano: span.end_unix_nano,
        };
        Self::of_parts(frame, &span.attributes, share(DimensionsRef::of_span(span)))
    }

    /// What a span adds, from its parts.
    pub fn of_parts(
        frame: SpanFrame,
        attributes: &Attributes,
        dimensions: Arc<Dimensions>,
    ) -> Self {
        let is_error = frame.status == StatusCode::Error;
        let is_call = is_call(frame.role);
        let first_token =
            is_call.then(|| attributes.f64(keys::GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK));
        let first_token =
            first_token.flatten().filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
        Self {
            dimensions,
            end_unix_nano: frame.end_unix_nano,
            is_misdated: false,
            role: frame.role,
            is_root: frame.is_root,
            is_error,
            outcome: Outcome::of(attributes.str(keys::OUTCOME), is_error),
            duration_nano: frame.end_unix_nano.saturating_sub(frame.start_unix_nano),
            first_token_nano: first_token.map(|seconds| (seconds * 1e9) as u64),
            spent: if is_call { Spent::of(attributes) } else { Spent::default() },
            fallback: match frame.role {
                SpanRole::Fallback => fallbacks_of(attributes),
                _ => None,
            },
            is_retry: frame.role == SpanRole::Attempt
                && attributes.u64(keys::RETRY_COUNT).unwrap_or(0) > 0,
            observed: None,
        }
    }

    /// The same facts with what the span adds to indicators.
    #[must_use]
    pub fn observed(self, observed: &[Observation]) -> Self {
        Self { observed: (!observed.is_empty()).then(|| observed.into()), ..self }
    }

    /// What it adds to indicators.
    pub fn observations(&self) -> &[Observation] {
        self.observed.as_deref().unwrap_or_default()
    }
}

fn fallbacks_of(attributes: &Attributes) -> Option<Fallbacks> {
    let none = Fallbacks::default();
    match attributes.str(keys::FALLBACK_DECISION)? {
        "skipped" => Some(Fallbacks { skipped: 1, ..none }),
        "triggered" => Some(match attributes.str(keys::FALLBACK_RESULT) {
            Some("failed") => Fallbacks { triggered: 1, failed: 1, ..none },
            Some("success") => Fallbacks { triggered: 1, succeeded: 1, ..none },
            _ => Fallbacks { triggered: 1, ..none },
        }),
        _ => None,
    }
}

/// What the spans and decisions of one cell add up to. In a delta that takes something back, counts
/// may be below zero; in a whole cell they are not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rollup {
    /// Spans stored, calls told twice included.
    pub spans: i64,
    /// Spans and decisions whose clock was too wrong to be believed; they are filed under their
    /// arrival.
    pub misdated: i64,
    /// Operations by kind, sorted.
    operations: Vec<(OperationKind, Operations)>,
    /// Attempts beyond the first.
    pub retries: i64,
    /// Fallbacks.
    pub fallbacks: Fallbacks,
    /// Tokens and cost of the calls that count.
    pub spent: Spent,
    /// Nanoseconds to the first token of calls that tell it.
    pub first_tokens: Sketch,
    /// Tokens in of each call that tells them.
    pub prompt_tokens: Sketch,
    /// Decisions recorded.
    pub decisions: i64,
    /// Confidence of the decisions that tell it, millionths.
    pub confidence: Sketch,
}

impl Rollup {
    /// Takes in a span that has really been inserted.
    pub fn add_span(&mut self, facts: &SpanFacts) {
        self.spans = self.spans.wrapping_add(1);
        self.misdated = self.misdated.wrapping_add(i64::from(facts.is_misdated));
        if facts.is_root {
            self.operations_mut(OperationKind::Root).add(facts, 1);
        }
        self.add_operation(facts, 1);
        self.retries = self.retries.wrapping_add(i64::from(facts.is_retry));
        if let Some(fallback) = facts.fallback {
            self.add_fallbacks(fallback);
        }
    }

    /// Takes a model call back that was told twice. Its span is stored all the same, and if it is a
    /// root it stays the request that came in.
    pub fn take_back(&mut self, facts: &SpanFacts) {
        self.add_operation(facts, -1);
    }

    fn add_operation(&mut self, facts: &SpanFacts, times: i64) {
        let kind = OperationKind::Role(facts.role);
        let operations = self.operations_mut(kind);
        operations.add(facts, times);
        if operations.is_empty() {
            self.operations.retain(|(of, _)| *of != kind);
        }
        if is_call(facts.role) {
            self.spent.add(facts.spent, times);
            if facts.spent.input_tokens > 0 {
                self.prompt_tokens.add(facts.spent.input_tokens as u64, times);
            }
            if let Some(nanos) = facts.first_token_nano {
                self.first_tokens.add(nanos, times);
            }
        }
    }

    /// Takes in a decision that has really been inserted.
    pub fn add_decision(&mut self, decision: &Decision, is_misdated: bool) {
        self.decisions = self.decisions.wrapping_add(1);
        self.misdated = self.misdated.wrapping_add(i64::from(is_misdated));
        if let Some(confidence) = decision.confidence.filter(|sure| (0.0..=1.0).contains(sure)) {
            self.confidence.add((confidence * MILLIONTHS).round() as u64, 1);
        }
    }

    /// Joins another part. Commutative and associative, with the default as the neutral element.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.spans, other.spans),
            (&mut self.misdated, other.misdated),
            (&mut self.retries, other.retries),
            (&mut self.decisions, other.decisions),
        ] {
            *mine = mine.wrapping_add(theirs);
        }
        for (kind, operations) in &other.operations {
            self.operations_mut(*kind).merge(operations);
        }
        self.operations.retain(|(_, operations)| !operations.is_empty());
        self.add_fallbacks(other.fallbacks);
        self.spent.add(other.spent, 1);
        self.first_tokens.merge(&other.first_tokens);
        self.prompt_tokens.merge(&other.prompt_tokens);
        self.confidence.merge(&other.confidence);
    }

    /// Joins operations of a kind.
    pub fn add_operations(&mut self, kind: OperationKind, operations: &Operations) {
        self.operations_mut(kind).merge(operations);
        self.operations.retain(|(_, operations)| !operations.is_empty());
    }

    fn add_fallbacks(&mut self, other: Fallbacks) {
        let mine = &mut self.fallbacks;
        mine.triggered = mine.triggered.wrapping_add(other.triggered);
        mine.succeeded = mine.succeeded.wrapping_add(other.succeeded);
        mine.failed = mine.failed.wrapping_add(other.failed);
        mine.skipped = mine.skipped.wrapping_add(other.skipped);
    }

    fn operations_mut(&mut self, kind: OperationKind) -> &mut Operations {
        let at = match self.operations.binary_search_by_key(&kind, |(of, _)| *of) {
            Ok(at) => at,
            Err(at) => {
                self.operations.insert(at, (kind, Operations::default()));
                at
            }
        };
        &mut self.operations[at].1
    }

    /// Operations of a kind; `None` when there were none.
    pub fn operations(&self, kind: OperationKind) -> Option<&Operations> {
        self.operations.iter().find(|(of, _)| *of == kind).map(|(_, operations)| operations)
    }

    /// Operations of all kinds.
    pub fn all_operations(&self) -> impl Iterator<Item = (OperationKind, &Operations)> {
        self.operations.iter().map(|(kind, operations)| (*kind, operations))
    }

    /// Whether it stands for nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
