//! What a file says of an experiment.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_saphyr::{Location, Spanned};

use super::{ExperimentConfig, Guardrail};
use crate::rollout::SpecMistake;
use crate::signals::Direction;

/// Guardrails of one experiment at most.
pub const MAX_GUARDRAILS: usize = 10;

/// What is measured of a unit: a session, or a trace that names none. Several traces of one session are
/// averaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnitMetric {
    /// Share of traces whose root has not failed; 0 to 1.
    SuccessRate,
    /// Share of traces without a fallback that went to its degraded branch, or failed; 0 to 1.
    PrimaryRate,
    /// Length of a trace, seconds.
    DurationS,
    /// Cost of its model calls, US dollars.
    CostUsd,
    /// Tokens in and out of its model calls.
    Tokens,
    /// Its model calls.
    LlmCalls,
    /// Attempts beyond the first.
    Retries,
}

impl UnitMetric {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::SuccessRate,
        Self::PrimaryRate,
        Self::DurationS,
        Self::CostUsd,
        Self::Tokens,
        Self::LlmCalls,
        Self::Retries,
    ];

    /// Its name in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SuccessRate => "success_rate",
            Self::PrimaryRate => "primary_rate",
            Self::DurationS => "duration_s",
            Self::CostUsd => "cost_usd",
            Self::Tokens => "tokens",
            Self::LlmCalls => "llm_calls",
            Self::Retries => "retries",
        }
    }

    /// Which way it gets worse.
    pub fn direction(self) -> Direction {
        if self.is_rate() { Direction::DownIsBad } else { Direction::UpIsBad }
    }

    /// Whether it is a share.
    pub fn is_rate(self) -> bool {
        matches!(self, Self::SuccessRate | Self::PrimaryRate)
    }
}

/// An experiment as a file describes it (`kind: Experiment`, below `spec`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExperimentSpec {
    /// The agent whose traces are compared.
    pub agent: String,
    /// The attribute of spans that tells the sides apart.
    #[serde(default = "ab_test_group")]
    pub by: String,
    /// Its value on the side of what runs.
    #[serde(default = "control")]
    pub control: String,
    /// Its value on the side of what is tried.
    #[serde(default = "treatment")]
    pub treatment: String,
    /// Share of the traffic that the treatment is meant to have, percent.
    #[serde(default = "half")]
    pub share: u32,
    /// The route whose weights divide the traffic, with targets named as the sides are; without one somebody
    /// else divides it.
    #[serde(default)]
    pub route: Option<String>,
    /// What decides.
    pub metric: UnitMetric,
    /// The least difference that matters, in the unit of the metric.
    pub min_effect: f64,
    /// What the treatment must not make worse.
    #[serde(default)]
    pub guardrails: Vec<GuardrailSpec>,
    /// Chance of ever calling a difference where there is none, above 0 and below 0.5.
    #[serde(default = "five_percent")]
    pub alpha: f64,
    /// Units a side below which nothing is decided.
    #[serde(default = "hundred")]
    pub min_units: u64,
    /// Whether all traffic of the route goes to the side that did better, and to the control where neither did.
    #[serde(default)]
    pub winner_takes_all: bool,
    /// Only tell what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// Where the team's runbook is.
    #[serde(default)]
    pub runbook: String,
}

/// A guardrail.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardrailSpec {
    /// What is measured.
    pub metric: UnitMetric,
    /// How much worse is tolerated, in its unit.
    #[serde(default)]
    pub tolerance: f64,
}

fn ab_test_group() -> String {
    "ab_test_group".to_owned()
}

fn control() -> String {
    "control".to_owned()
}

fn treatment() -> String {
    "treatment".to_owned()
}

fn half() -> u32 {
    50
}

fn five_percent() -> f64 {
    0.05
}

fn hundred() -> u64 {
    100
}

impl ExperimentSpec {
    /// What is wrong with it: what was expected and what came.
    ///
    /// # Errors
    /// All mistakes, each with the part that it is about.
    pub fn check(&self) -> Result<(), Vec<SpecMistake>> {
        let mut wrong = Vec::new();
        let mut tell = |part: &str, message: String| {
            wrong.push(SpecMistake { part: part.to_owned(), message });
        };
        for (name, value) in [
            ("agent", &self.agent),
            ("by", &self.by),
            ("control", &self.control),
            ("treatment", &self.treatment),
        ] {
            if value.trim().is_empty() {
                tell(name, format!("expected {name} to name something, got an empty text"));
            }
        }
        if self.control == self.treatment {
            let both = &self.control;
            tell("treatment", format!("expected two sides, got {both:?} for both"));
        }
        if !(1..=99).contains(&self.share) {
            tell("share", format!("expected a share of 1 to 99 percent, got {}", self.share));
        }
        for (name, value) in [("min_effect", self.min_effect)] {
            if !(value > 0.0 && value.is_finite()) {
                tell(name, format!("expected {name} to be above 0, got {value}"));
            }
        }
        if !(self.alpha > 0.0 && self.alpha < 0.5) {
            tell(
                "alpha",
                format!("expected alpha to be above 0 and below 0.5, got {}", self.alpha),
            );
        }
        if self.min_units < 2 {
            tell(
                "min_units",
                format!("expected min_units to be at least 2, got {}", self.min_units),
            );
        }
        if self.guardrails.len() > MAX_GUARDRAILS {
            let got = self.guardrails.len();
            tell("guardrails", format!("expected at most {MAX_GUARDRAILS} guardrails, got {got}"));
        }
        for one in &self.guardrails {
            if !(one.tolerance >= 0.0 && one.tolerance.is_finite()) {
                let (metric, got) = (one.metric.as_str(), one.tolerance);
                tell(
                    "guardrails",
                    format!("expected a tolerance of 0 or more for {metric}, got {got}"),
                );
            }
        }
        if self.winner_takes_all && self.route.is_none() {
            let message = "expected a route whose traffic the winner takes, got none".to_owned();
            tell("winner_takes_all", message);
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// How it is decided.
    pub fn config(&self) -> ExperimentConfig {
        let guardrail = |one: &GuardrailSpec| Guardrail {
            metric: one.metric.as_str().to_owned(),
            direction: one.metric.direction(),
            is_rate: one.metric.is_rate(),
            tolerance: one.tolerance,
        };
        ExperimentConfig {
            metric: self.metric.as_str().to_owned(),
            direction: self.metric.direction(),
            is_rate: self.metric.is_rate(),
            alpha: self.alpha,
            min_effect: self.min_effect,
            min_units: self.min_units,
            treatment_share: f64::from(self.share) / 100.0,
            guardrails: self.guardrails.iter().map(guardrail).collect(),
        }
    }

    /// What makes it this experiment and no other: another text is another experiment, which begins anew.
    /// What is done with the verdict is no part of it.
    pub fn identity(&self) -> String {
        let compared = Self {
            winner_takes_all: false,
            dry_run: false,
            runbook: String::new(),
            ..self.clone()
        };
        serde_json::to_string(&compared).unwrap_or_default()
    }
}

#[derive(Deserialize)]
struct Document {
    spec: BTreeMap<String, Spanned<IgnoredAny>>,
}

/// The places of the parts of an `Experiment` document by name, as [`SpecMistake::part`] names them.
pub(crate) fn places(document: &str) -> BTreeMap<String, Location> {
    let Ok(Document { spec }) = serde_saphyr::from_str(document) else { return BTreeMap::new() };
    spec.into_iter().map(|(name, part)| (name, part.referenced)).collect()
}
