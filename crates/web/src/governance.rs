//! How governance stands, as pages and lists are told it after every round.

use std::sync::Arc;
use throughline_govern::rollout::{Rollout, RolloutSpec, Verdict};

use throughline_govern::policy::PolicyStatus;
use throughline_govern::slo::ObjectiveStatus;
use throughline_store::Governance;
use tokio::sync::watch;

/// Where pages look for what rules said and what was done.
#[derive(Debug, Clone)]
pub struct View {
    /// Findings, actions, rollouts, the pause.
    pub governance: Governance,
    /// The last round.
    pub standing: watch::Receiver<Arc<Standing>>,
}

impl View {
    /// Without rounds: where nobody evaluates rules.
    pub fn idle(governance: Governance) -> Self {
        Self { governance, standing: watch::channel(Arc::default()).1 }
    }
}

/// What the last round gave.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// When it was, nanoseconds since the Unix epoch; 0 before the first.
    pub at_unix_nano: u64,
    /// Objectives of all SLOs.
    pub slos: Vec<ObjectiveStatus>,
    /// Rollouts.
    pub rollouts: Vec<RolloutStanding>,
    /// Policies, each with the values of its last minute.
    pub policies: Vec<PolicyStatus>,
}

/// A rollout with what was seen last.
#[derive(Debug, Clone)]
pub struct RolloutStanding {
    /// What its file says.
    pub spec: RolloutSpec,
    /// The candidate's share, percent.
    pub weight: u32,
    /// Where it is.
    pub rollout: Rollout,
    /// What the telemetry of both versions says; `None` without a candidate.
    pub verdict: Option<Verdict>,
}
