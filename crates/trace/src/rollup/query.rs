//! Questions about rollups: which measure of what, over which time, in which steps.

use std::collections::BTreeMap;

use crate::SpanRole;

use super::{Cuboid, Dimension, OperationKind, Operations, Outcome, Resolution, Rollup};

/// Most points of one series.
pub const MAX_SERIES_POINTS: u64 = 1_500;

/// Most series of one answer: those with the most spans; further ones are counted.
pub const MAX_SERIES_GROUPS: usize = 100;

/// Most measures of one question.
pub const MAX_SERIES_MEASURES: usize = 12;

/// Nanoseconds in a second.
const NANOS: f64 = 1e9;

/// What a series tells at each point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Measure {
    /// Spans stored.
    Spans,
    /// Operations that ended.
    Count,
    /// Operations that ended, per second.
    Rate,
    /// Operations with status ERROR.
    Errors,
    /// Share of operations with status ERROR.
    ErrorRate,
    /// Operations that ended in one way.
    WithOutcome(Outcome),
    /// A quantile of the durations, in thousandths (`950` is p95); seconds.
    Duration(u16),
    /// Mean duration, seconds.
    MeanDuration,
    /// A quantile of the time to the first token, in thousandths; seconds.
    FirstToken(u16),
    /// Tokens in.
    InputTokens,
    /// Tokens out.
    OutputTokens,
    /// Tokens in that a cache had.
    CachedTokens,
    /// Tokens out that were spent on reasoning.
    ReasoningTokens,
    /// Tokens in and out.
    TotalTokens,
    /// US dollars.
    CostUsd,
    /// Attempts beyond the first.
    Retries,
    /// Fallbacks that were triggered.
    Fallbacks,
    /// Share of the triggered fallbacks whose degraded branch answered.
    FallbackSuccessRate,
    /// Fallbacks triggered for each operation.
    FallbackActivationRatio,
    /// Decisions.
    Decisions,
    /// Mean confidence of decisions, 0 to 1.
    Confidence,
}

/// Measures whose name has nothing to work out.
const NAMED: [(&str, Measure); 26] = [
    ("spans", Measure::Spans),
    ("count", Measure::Count),
    ("rate", Measure::Rate),
    ("errors", Measure::Errors),
    ("error_rate", Measure::ErrorRate),
    ("p50", Measure::Duration(500)),
    ("p75", Measure::Duration(750)),
    ("p90", Measure::Duration(900)),
    ("p95", Measure::Duration(950)),
    ("p99", Measure::Duration(990)),
    ("mean", Measure::MeanDuration),
    ("ttft_p50", Measure::FirstToken(500)),
    ("ttft_p90", Measure::FirstToken(900)),
    ("ttft_p95", Measure::FirstToken(950)),
    ("ttft_p99", Measure::FirstToken(990)),
    ("input_tokens", Measure::InputTokens),
    ("output_tokens", Measure::OutputTokens),
    ("cached_tokens", Measure::CachedTokens),
    ("reasoning_tokens", Measure::ReasoningTokens),
    ("tokens", Measure::TotalTokens),
    ("cost_usd", Measure::CostUsd),
    ("retries", Measure::Retries),
    ("fallbacks", Measure::Fallbacks),
    ("fallback_success_rate", Measure::FallbackSuccessRate),
    ("fallback_activation_ratio", Measure::FallbackActivationRatio),
    ("decisions", Measure::Decisions),
];

impl Measure {
    /// The measure of a name.
    pub fn from_text(text: &str) -> Option<Self> {
        if text == "confidence" {
            return Some(Self::Confidence);
        }
        if let Some(outcome) = text.strip_prefix("outcome_") {
            let named = |one: &Outcome| one.as_str() == outcome;
            return Outcome::ALL.into_iter().find(named).map(Self::WithOutcome);
        }
        NAMED.iter().find(|(name, _)| *name == text).map(|(_, measure)| *measure)
    }

    /// Its name.
    pub fn name(self) -> String {
        if let Self::WithOutcome(outcome) = self {
            return format!("outcome_{}", outcome.as_str());
        }
        let named = NAMED.iter().find(|(_, measure)| *measure == self);
        named.map_or("confidence", |(name, _)| name).to_owned()
    }

    /// All of them.
    pub fn all() -> Vec<Self> {
        let named = NAMED.iter().map(|(_, measure)| *measure);
        let outcomes = Outcome::ALL.into_iter().map(Self::WithOutcome);
        named.chain([Self::Confidence]).chain(outcomes).collect()
    }

    /// All names, for a message.
    pub fn names() -> String {
        let names: Vec<&str> = NAMED.iter().map(|(name, _)| *name).collect();
        format!("{}, confidence or outcome_{{outcome}}", names.join(", "))
    }

    /// Its unit: `1`, `1/s`, `ratio`, `s`, `tokens` or `USD`.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Rate => "1/s",
            Self::ErrorRate
            | Self::FallbackSuccessRate
            | Self::FallbackActivationRatio
            | Self::Confidence => "ratio",
            Self::Duration(_) | Self::MeanDuration | Self::FirstToken(_) => "s",
            Self::InputTokens
            | Self::OutputTokens
            | Self::CachedTokens
            | Self::ReasoningTokens
            | Self::TotalTokens => "tokens",
            Self::CostUsd => "USD",
            _ => "1",
        }
    }

    /// The value over a cell that spans `seconds`; `None` where there is nothing to tell from: a
    /// share of nothing is no number.
    pub fn of(self, rollup: &Rollup, kinds: &[OperationKind], seconds: u64) -> Option<f64> {
        let ratio = |part: i64, whole: i64| (whole > 0).then(|| part as f64 / whole as f64);
        let of_kinds = || kinds.iter().filter_map(|kind| rollup.operations(*kind));
        let count = || of_kinds().map(|operations| operations.count).sum::<i64>();
        let errors = || of_kinds().map(|operations| operations.errors).sum::<i64>();
        let spent = rollup.spent;
        Some(match self {
            Self::Spans => rollup.spans as f64,
            Self::Count => count() as f64,
            Self::Rate => count() as f64 / seconds.max(1) as f64,
            Self::Errors => errors() as f64,
            Self::ErrorRate => return ratio(errors(), count()),
            Self::WithOutcome(outcome) => {
                of_kinds().map(|operations| operations.with_outcome(outcome)).sum::<i64>() as f64
            }
            Self::Duration(thousandths) => {
                let durations = durations(of_kinds());
                return Some(durations.quantile(f64::from(thousandths) / 1e3)? / NANOS);
            }
            Self::MeanDuration => return Some(durations(of_kinds()).mean()? / NANOS),
            Self::FirstToken(thousandths) => {
                let nanos = rollup.first_tokens.quantile(f64::from(thousandths) / 1e3)?;
                return Some(nanos / NANOS);
            }
            Self::InputTokens => spent.input_tokens as f64,
            Self::OutputTokens => spent.output_tokens as f64,
            Self::CachedTokens => spent.cached_tokens as f64,
            Self::ReasoningTokens => spent.reasoning_tokens as f64,
            Self::TotalTokens => spent.input_tokens.wrapping_add(spent.output_tokens) as f64,
            Self::CostUsd => spent.cost_nano_usd as f64 / NANOS,
            Self::Retries => rollup.retries as f64,
            Self::Fallbacks => rollup.fallbacks.triggered as f64,
            Self::FallbackSuccessRate => {
                return ratio(rollup.fallbacks.succeeded, rollup.fallbacks.triggered);
            }
            Self::FallbackActivationRatio => return ratio(rollup.fallbacks.triggered, count()),
            Self::Decisions => rollup.decisions as f64,
            Self::Confidence => return Some(rollup.confidence.mean()? / 1e6),
        })
    }
}

fn durations<'a>(all: impl Iterator<Item = &'a Operations>) -> super::Sketch {
    let mut merged = super::Sketch::default();
    all.for_each(|operations| merged.merge(&operations.durations));
    merged
}

/// Why a question cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SeriesQueryError {
    /// The lattice has no such combination.
    #[error(
        "expected dimensions that are counted together (agent; agent and phase; model; tool; agent, version and branch), got {0}"
    )]
    Lattice(String),
    /// The step is no multiple of a minute.
    #[error("expected a step of whole minutes, got {0} s")]
    Step(u64),
    /// The time ends before it begins.
    #[error("expected a time that ends after it begins")]
    Time,
    /// There would be too many points.
    #[error(
        "expected at most {MAX_SERIES_POINTS} points, got {0}; take a longer step or a shorter time"
    )]
    Points(u64),
    /// No measure, or too many.
    #[error("expected 1 to {MAX_SERIES_MEASURES} measures, got {0}")]
    Measures(usize),
}

/// Which groups an answer has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SeriesGroups {
    /// Those with the most spans, [`MAX_SERIES_GROUPS`] of them.
    #[default]
    Busiest,
    /// All of them, with their totals and without points: what a list is made of.
    Totals,
    /// Those with these labels, in the order of `group_by`.
    Named(Vec<Vec<String>>),
}

impl SeriesGroups {
    /// Whether an answer may have the group with these labels.
    pub fn has(&self, labels: &[String]) -> bool {
        match self {
            Self::Busiest | Self::Totals => true,
            Self::Named(names) => names.iter().any(|name| name == labels),
        }
    }
}

/// A question about rollups.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesQuery {
    /// What is told at each point, at least one.
    pub measures: Vec<Measure>,
    /// Only cells with these values.
    pub filter: BTreeMap<Dimension, String>,
    /// One series for each value of these.
    pub group_by: Vec<Dimension>,
    /// Which of those series.
    pub groups: SeriesGroups,
    /// The operations that counts, rates and durations are of; empty for those that the dimensions
    /// are about (requests, runs of an agent, steps of a phase, calls of a model, runs of a tool).
    pub kinds: Vec<OperationKind>,
    /// From this second since the Unix epoch; rounded down to a whole step.
    pub from_unix_seconds: u64,
    /// Up to this second since the Unix epoch, not included; rounded up to a whole step.
    pub to_unix_seconds: u64,
    /// Seconds between points, whole minutes; 0 for a step that gives a readable chart.
    pub step_seconds: u64,
}

/// Steps that a chart is read well in, seconds.
const NICE_STEPS: [u64; 12] =
    [60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 21_600, 43_200, 86_400, 604_800];

/// Points that a chart of no given step has at most.
const CHART_POINTS: u64 = 120;

impl SeriesQuery {
    /// A question about everything, with a step that fits.
    pub fn new(measures: Vec<Measure>, from_unix_seconds: u64, to_unix_seconds: u64) -> Self {
        Self {
            measures,
            filter: BTreeMap::new(),
            group_by: Vec::new(),
            groups: SeriesGroups::default(),
            kinds: Vec::new(),
            from_unix_seconds,
            to_unix_seconds,
            step_seconds: 0,
        }
    }

    /// The same question with one series for each value of a dimension.
    #[must_use]
    pub fn by(mut self, dimension: Dimension) -> Self {
        if !self.group_by.contains(&dimension) {
            self.group_by.push(dimension);
        }
        self
    }

    /// The same question about these groups.
    #[must_use]
    pub fn of_groups(self, groups: SeriesGroups) -> Self {
        Self { groups, ..self }
    }

    /// The combination of dimensions that answers it.
    ///
    /// # Errors
    /// [`SeriesQueryError::Lattice`].
    pub fn cuboid(&self) -> Result<Cuboid, SeriesQueryError> {
        let named: Vec<Dimension> = self.filter.keys().chain(&self.group_by).copied().collect();
        Cuboid::of(&named).ok_or_else(|| {
            let names: Vec<&str> = named.iter().map(|dimension| dimension.as_str()).collect();
            SeriesQueryError::Lattice(names.join(" and "))
        })
    }

    /// The operations that it is about.
    ///
    /// # Errors
    /// [`SeriesQueryError::Lattice`].
    pub fn operation_kinds(&self) -> Result<Vec<OperationKind>, SeriesQueryError> {
        use OperationKind::{Role, Root};
        if !self.kinds.is_empty() {
            return Ok(self.kinds.clone());
        }
        Ok(match self.cuboid()? {
            Cuboid::All => vec![Root],
            Cuboid::Agent | Cuboid::AgentVersionBranch => vec![Role(SpanRole::AgentRun)],
            Cuboid::AgentPhase => vec![Role(SpanRole::Step)],
            Cuboid::Model => vec![Role(SpanRole::LlmCall), Role(SpanRole::Embeddings)],
            Cuboid::Tool => vec![Role(SpanRole::Tool)],
        })
    }

    /// The step in use, and the first and the last second, aligned to it.
    ///
    /// # Errors
    /// [`SeriesQueryError`] for anything that cannot be asked.
    pub fn plan(&self) -> Result<SeriesPlan, SeriesQueryError> {
        if self.measures.is_empty() || self.measures.len() > MAX_SERIES_MEASURES {
            return Err(SeriesQueryError::Measures(self.measures.len()));
        }
        if self.to_unix_seconds <= self.from_unix_seconds {
            return Err(SeriesQueryError::Time);
        }
        let length = self.to_unix_seconds - self.from_unix_seconds;
        let step_seconds = match self.step_seconds {
            0 => *NICE_STEPS
                .iter()
                .find(|step| length.div_ceil(**step) <= CHART_POINTS)
                .unwrap_or(&NICE_STEPS[NICE_STEPS.len() - 1]),
            step => step,
        };
        let resolution =
            Resolution::of_step(step_seconds).ok_or(SeriesQueryError::Step(step_seconds))?;
        let from = self.from_unix_seconds / step_seconds * step_seconds;
        let to = self.to_unix_seconds.div_ceil(step_seconds).saturating_mul(step_seconds);
        let points = (to - from) / step_seconds;
        if points > MAX_SERIES_POINTS {
            return Err(SeriesQueryError::Points(points));
        }
        Ok(SeriesPlan {
            cuboid: self.cuboid()?,
            kinds: self.operation_kinds()?,
            resolution,
            step_seconds,
            from_unix_seconds: from,
            to_unix_seconds: to,
        })
    }
}

/// A question that can be answered.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesPlan {
    /// The combination of dimensions.
    pub cuboid: Cuboid,
    /// The operations.
    pub kinds: Vec<OperationKind>,
    /// The grain that is read: the coarsest that divides the step.
    pub resolution: Resolution,
    /// Seconds between points.
    pub step_seconds: u64,
    /// The first second.
    pub from_unix_seconds: u64,
    /// The second behind the last.
    pub to_unix_seconds: u64,
}
