//! `sampling:` of the configuration file: what of closed segments is kept in full.

use std::time::Duration;

use serde::Deserialize;
use throughline_rules::{Expression, schemas};
use throughline_store::{Always, Kind, Rare, Sampling, SamplingRule};
use throughline_trace::{MIN_SAMPLING_RATE, SamplingRate};

use super::storage::Time;
use crate::failure::{Failure, Outcome};

/// Most rules: each is tried for every trace.
const MAX_RULES: usize = 64;

/// Longest name of a rule, characters: it is a label of metrics.
const MAX_RULE_NAME_CHARS: usize = 64;

/// Longest that a trace can be meant to be waited for.
const MAX_WAIT: Duration = Duration::from_secs(30 * 86_400);

/// Most traces of a kind that can be called rare.
const MAX_RARE: u64 = 1_000_000;

/// `sampling:`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SamplingConfig {
    /// The share of what is kept for no other reason, 0 to 1.
    pub(crate) rate: Option<f64>,
    /// What is always kept.
    pub(crate) keep: KeepConfig,
    /// Rules; the first that matches decides.
    pub(crate) rules: Vec<RuleConfig>,
    /// Quiet time after which a trace is taken to have ended.
    pub(crate) wait: Option<Time>,
    /// Time after the close of a segment after which it is sampled though some of its traces run.
    pub(crate) max_wait: Option<Time>,
}

/// `sampling.keep:`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct KeepConfig {
    /// Traces with an error.
    pub(crate) errors: Option<bool>,
    /// Traces in which a fallback was needed.
    pub(crate) fallbacks: Option<bool>,
    /// Slow traces.
    pub(crate) slow: SlowConfig,
    /// Rare traces.
    pub(crate) rare: Option<RareConfig>,
    /// Traces with a decision of less confidence.
    pub(crate) confidence_below: Option<f64>,
    /// Traces with decisions.
    pub(crate) decided: Option<bool>,
    /// Traces with an event that was bad for an objective.
    pub(crate) slo: Option<bool>,
    /// Traces that a legal hold names.
    pub(crate) held: Option<bool>,
}

/// `sampling.keep.slow:`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SlowConfig {
    /// At least this long.
    pub(crate) over: Option<Time>,
    /// Slower than this quantile of their agent's operations.
    pub(crate) quantile: Option<f64>,
}

/// `sampling.keep.rare:`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RareConfig {
    /// A segment has fewer of the kind than this.
    pub(crate) fewer_than: u64,
    /// What makes a kind.
    #[serde(default)]
    pub(crate) by: KindConfig,
}

/// `sampling.keep.rare.by:`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KindConfig {
    /// The agent.
    Agent,
    /// Agent, service and name of the root.
    #[default]
    Operation,
    /// The operation with its tools and models.
    Shape,
}

/// One of `sampling.rules:`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleConfig {
    /// What it is counted by.
    pub(crate) name: String,
    /// Which traces it is about.
    pub(crate) when: When,
    /// `true`: all of them are kept.
    pub(crate) keep: Option<bool>,
    /// The share of them that is kept, 0 to 1.
    pub(crate) rate: Option<f64>,
}

/// An expression over `trace`, compiled while the file is read, so that a mistake has its place.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct When(Expression);

impl PartialEq for When {
    fn eq(&self, other: &Self) -> bool {
        self.0.source() == other.0.source()
    }
}

impl TryFrom<String> for When {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Expression::filter(&text, &schemas::trace_schema())
            .map(Self)
            .map_err(|mistakes| format!("expected a rule over `trace`:\n{mistakes}"))
    }
}

impl SamplingConfig {
    /// What the store is told; what cannot be meant is refused.
    pub(crate) fn resolve(&self) -> Outcome<Sampling> {
        let usual = Sampling::default();
        let rest = self.rate.map_or(Ok(usual.rest), |rate| rate_of("sampling.rate", rate))?;
        if self.rules.len() > MAX_RULES {
            return Err(Failure::usage(format!(
                "expected at most {MAX_RULES} of `sampling.rules`, got {}",
                self.rules.len()
            ))
            .hint("join expressions with ||"));
        }
        let mut rules = Vec::with_capacity(self.rules.len());
        for rule in &self.rules {
            if rules.iter().any(|known: &SamplingRule| known.name == rule.name) {
                return Err(Failure::usage(format!(
                    "expected different names of `sampling.rules`, got `{}` twice",
                    rule.name
                ))
                .hint("what a rule keeps and takes is counted by its name"));
            }
            rules.push(rule.resolve()?);
        }
        let wait = within("sampling.wait", self.wait, usual.wait)?;
        let max_wait = within("sampling.max_wait", self.max_wait, usual.max_wait)?;
        if max_wait < wait {
            return Err(Failure::usage(format!(
                "expected `sampling.max_wait` of at least `wait` ({} s), got {} s",
                wait.as_secs(),
                max_wait.as_secs()
            ))
            .hint("a segment waits for each of its traces to be quiet for `wait`"));
        }
        Ok(Sampling { always: self.keep.resolve()?, rules, rest, wait, max_wait })
    }
}

impl RuleConfig {
    fn resolve(&self) -> Outcome<SamplingRule> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let length = self.name.chars().count();
        if length == 0 || length > MAX_RULE_NAME_CHARS || !self.name.chars().all(is_name) {
            return Err(Failure::usage(format!(
                "expected a name of 1 to {MAX_RULE_NAME_CHARS} letters, digits, `-`, `_` and `.` in `sampling.rules`, got {:?}",
                self.name
            ))
            .hint("it is the label that the rule's traces are counted by"));
        }
        let rate = match (self.keep, self.rate) {
            (Some(true), None) => SamplingRate::ALL,
            (None, Some(rate)) => rate_of(&format!("rate` of the rule `{}", self.name), rate)?,
            _ => {
                return Err(Failure::usage(format!(
                    "expected `keep: true` or a `rate` in the rule `{}` of `sampling.rules`",
                    self.name
                ))
                .hint("`rate: 0` keeps none of them, errors and other kinds of `keep` excepted"));
            }
        };
        Ok(SamplingRule { name: self.name.clone(), when: self.when.0.clone(), rate })
    }
}

impl KeepConfig {
    fn resolve(&self) -> Outcome<Always> {
        let usual = Always::default();
        let slow_over = self.slow.over.map(|time| time.0);
        if slow_over.is_some_and(|over| over.is_zero()) {
            return Err(Failure::usage("expected `sampling.keep.slow.over` above 0, got 0")
                .hint("leave it out to keep no trace for its duration"));
        }
        let share = |name: &str, given: Option<f64>| match given {
            Some(share) if !(share > 0.0 && share < 1.0) => Err(Failure::usage(format!(
                "expected `sampling.keep.{name}` between 0 and 1, got {share}"
            ))
            .hint("leave it out to switch it off")),
            given => Ok(given),
        };
        let rare = match &self.rare {
            Some(rare) if !(1..=MAX_RARE).contains(&rare.fewer_than) => {
                return Err(Failure::usage(format!(
                    "expected `sampling.keep.rare.fewer_than` of 1 to {MAX_RARE}, got {}",
                    rare.fewer_than
                ))
                .hint("leave `rare` out to switch it off"));
            }
            rare => rare.as_ref().map(|rare| Rare {
                fewer_than: rare.fewer_than,
                by: match rare.by {
                    KindConfig::Agent => Kind::Agent,
                    KindConfig::Operation => Kind::Operation,
                    KindConfig::Shape => Kind::Shape,
                },
            }),
        };
        Ok(Always {
            errors: self.errors.unwrap_or(usual.errors),
            fallbacks: self.fallbacks.unwrap_or(usual.fallbacks),
            slow_over,
            slow_quantile: share("slow.quantile", self.slow.quantile)?,
            rare,
            confidence_below: share("confidence_below", self.confidence_below)?,
            decided: self.decided.unwrap_or(usual.decided),
            slo: self.slo.unwrap_or(usual.slo),
            held: self.held.unwrap_or(usual.held),
        })
    }
}

fn rate_of(name: &str, rate: f64) -> Outcome<SamplingRate> {
    SamplingRate::new(rate).ok_or_else(|| {
        Failure::usage(format!(
            "expected `{name}` of 0, or of {MIN_SAMPLING_RATE} to 1, got {rate}"
        ))
        .hint("it is the share of traces that is kept: 0.1 keeps one in ten")
    })
}

fn within(name: &str, given: Option<Time>, usual: Duration) -> Outcome<Duration> {
    match given {
        None => Ok(usual),
        Some(Time(time)) if time <= MAX_WAIT => Ok(time),
        Some(Time(time)) => Err(Failure::usage(format!(
            "expected `{name}` of at most {} h, got {} h",
            MAX_WAIT.as_secs() / 3_600,
            time.as_secs() / 3_600
        ))
        .hint("segments stay large for as long as they wait")),
    }
}

#[cfg(test)]
mod tests;
