//! What a file says of a rollout.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Largest share of a step, percent: what the stable version has left is what the candidate is compared
/// with.
pub const MAX_STEP_WEIGHT: u32 = 99;

/// What to do about a step that leaves the stable version nothing.
const LEAVE_OUT: &str =
    "leave it out: behind the last step the candidate becomes stable and has all traffic";

/// A rollout as a file describes it (`kind: Rollout`, below `spec`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutSpec {
    /// The agent whose versions are compared, as its spans name it.
    pub agent: String,
    /// The route whose weights divide the traffic; its targets are named by version.
    pub route: String,
    /// The version that has all traffic before the first rollout.
    pub stable: String,
    /// The version that is to be tried: it is started once, when there is no other candidate. What was tried
    /// and put back is not started again by the same words. Without one a person asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub candidate: Option<String>,
    /// Shares that the candidate gets one after the other; after the last it becomes stable.
    #[serde(default = "default_steps")]
    pub steps: Vec<RolloutStep>,
    /// When it fails.
    #[serde(default)]
    pub analysis: Analysis,
    /// Whether a candidate that fails is put back without a person.
    #[serde(default = "yes")]
    pub auto_rollback: bool,
    /// Whether steps follow each other without a person.
    #[serde(default = "yes")]
    pub auto_advance: bool,
    /// Only tell what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// Where the team's runbook is.
    #[serde(default)]
    pub runbook: String,
}

/// One share, and how long it is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutStep {
    /// Percent of the traffic, 1 to [`MAX_STEP_WEIGHT`].
    pub weight: u32,
    /// How long it is held at least, seconds.
    pub hold_s: u64,
}

/// How candidate and stable version are compared, over the same time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Analysis {
    /// How much of the telemetry is looked at, seconds; from the start of the step at most.
    pub window_s: u64,
    /// Events that each version needs before anything is said.
    pub min_events: u64,
    /// How many times slower the candidate's p95 may be.
    pub max_latency_ratio: f64,
    /// How much worse the candidate's share of errors may be.
    pub max_error_increase: f64,
    /// How much lower the candidate's share of agreeing pairs of decisions about equal inputs may be.
    pub max_consistency_drop: f64,
    /// The significance that a difference needs beside its size, of one test at one look.
    pub alpha: f64,
}

impl Default for Analysis {
    fn default() -> Self {
        Self {
            window_s: 300,
            min_events: 20,
            max_latency_ratio: 1.5,
            max_error_increase: 0.05,
            max_consistency_drop: 0.1,
            alpha: 0.001,
        }
    }
}

/// One thing that is wrong with a [`RolloutSpec`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecMistake {
    /// Which part of the spec, as in `route`, `steps[0].weight` (from 0) and `analysis.alpha`.
    pub part: String,
    /// What was expected, what came and what to do.
    pub message: String,
}

impl SpecMistake {
    fn of(part: impl Into<String>, message: String) -> Self {
        Self { part: part.into(), message }
    }
}

impl fmt::Display for SpecMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

fn yes() -> bool {
    true
}

fn default_steps() -> Vec<RolloutStep> {
    let step = |weight| RolloutStep { weight, hold_s: 300 };
    vec![step(5), step(25), step(50)]
}

impl RolloutSpec {
    /// What is wrong with it: what was expected and what came.
    ///
    /// # Errors
    /// All mistakes, each with the part that it is about.
    pub fn check(&self) -> Result<(), Vec<SpecMistake>> {
        let mut wrong = Vec::new();
        for (name, value) in
            [("agent", &self.agent), ("route", &self.route), ("stable", &self.stable)]
        {
            if value.trim().is_empty() {
                let message = format!("expected {name} to name something, got an empty text");
                wrong.push(SpecMistake::of(name, message));
            }
        }
        if self.candidate.as_ref().is_some_and(|candidate| candidate.trim().is_empty()) {
            let message = "expected candidate to name a version, got an empty text; leave it out";
            wrong.push(SpecMistake::of("candidate", message.to_owned()));
        }
        self.check_steps(&mut wrong);
        self.analysis.check(&mut wrong);
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    fn check_steps(&self, wrong: &mut Vec<SpecMistake>) {
        if self.steps.is_empty() {
            let message = "expected at least one step, got none".to_owned();
            wrong.push(SpecMistake::of("steps", message));
        }
        for (at, step) in self.steps.iter().enumerate() {
            let before = at.checked_sub(1).and_then(|at| self.steps.get(at));
            let least = before.map_or(1, |before| before.weight.saturating_add(1));
            let (number, weight) = (at + 1, step.weight);
            let part = format!("steps[{at}].weight");
            if least > MAX_STEP_WEIGHT {
                let last = least - 1;
                let message = format!(
                    "expected no step behind one of {last} percent, got step {number} of {weight}; {LEAVE_OUT}"
                );
                wrong.push(SpecMistake::of(part, message));
            } else if !(least..=MAX_STEP_WEIGHT).contains(&weight) {
                let hint = if weight > MAX_STEP_WEIGHT { LEAVE_OUT } else { "shares only grow" };
                let message = format!(
                    "expected step {number} to have a weight of {least} to {MAX_STEP_WEIGHT} percent, got {weight}; {hint}"
                );
                wrong.push(SpecMistake::of(part, message));
            }
        }
    }
}

impl Analysis {
    fn check(&self, wrong: &mut Vec<SpecMistake>) {
        let analysis = self;
        let mut tell = |name: &str, expected: &str, value: &dyn fmt::Display| {
            let message = format!("expected analysis.{name} to be {expected}, got {value}");
            wrong.push(SpecMistake::of(format!("analysis.{name}"), message));
        };
        for (name, value, unit) in
            [("window_s", analysis.window_s, " second"), ("min_events", analysis.min_events, "")]
        {
            if value == 0 {
                tell(name, &format!("at least 1{unit}"), &value);
            }
        }
        let share = 0.0..=1.0;
        for (name, value, is_fit) in [
            ("max_latency_ratio", analysis.max_latency_ratio, analysis.max_latency_ratio >= 1.0),
            (
                "max_error_increase",
                analysis.max_error_increase,
                share.contains(&analysis.max_error_increase),
            ),
            (
                "max_consistency_drop",
                analysis.max_consistency_drop,
                share.contains(&analysis.max_consistency_drop),
            ),
            ("alpha", analysis.alpha, analysis.alpha > 0.0 && analysis.alpha < 0.5),
        ] {
            if !is_fit {
                let expected = match name {
                    "max_latency_ratio" => "at least 1",
                    "alpha" => "above 0 and below 0.5",
                    _ => "0 to 1",
                };
                tell(name, expected, &value);
            }
        }
    }
}
