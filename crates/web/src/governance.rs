//! How governance stands, as pages and lists are told it after every round.

use std::fmt;
use std::sync::Arc;
use throughline_govern::experiment::{ExperimentResult, ExperimentSpec, Look, Run};

use futures_util::future::BoxFuture;
use throughline_govern::DetectorStanding;
use throughline_govern::policy::PolicyStatus;
use throughline_govern::rollout::{Rollout, RolloutSpec, Verdict};
use throughline_govern::signals::SignalReport;
use throughline_govern::slo::ObjectiveStatus;
use throughline_store::{ControlError, Governance};
use tokio::sync::watch;

use crate::failure::Failure;

/// Whose signals are asked for, over how long.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct SignalsAsked {
    /// The agent; `None` for all together.
    pub agent: Option<String>,
    /// Minutes before now; `None` for the window of each signal.
    pub minutes: Option<u64>,
}

/// Asks for the signals of now; the error is for the log.
pub type AsksSignals = Arc<
    dyn Fn(SignalsAsked) -> BoxFuture<'static, Result<Arc<SignalReport>, String>> + Send + Sync,
>;

/// Where pages look for what rules said and what was done.
#[derive(Clone)]
pub struct View {
    /// Findings, actions, rollouts, the pause.
    pub governance: Governance,
    /// The last round.
    pub standing: watch::Receiver<Arc<Standing>>,
    /// The signals of an agent.
    pub signals: AsksSignals,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("standing", &self.standing).finish_non_exhaustive()
    }
}

impl View {
    /// Without rounds: where nobody evaluates rules.
    pub fn idle(governance: Governance) -> Self {
        let signals: AsksSignals = Arc::new(|asked| {
            let (agent, at_unix_nano) = (asked.agent, 0);
            let report = SignalReport { agent, at_unix_nano, signals: Vec::new(), own: Vec::new() };
            Box::pin(std::future::ready(Ok(Arc::new(report))))
        });
        Self { governance, standing: watch::channel(Arc::default()).1, signals }
    }
}

/// Asks what governance remembers, where it may block.
pub(crate) async fn remembered<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ControlError> + Send + 'static,
) -> Result<T, Failure> {
    let fails = |detail: String| {
        tracing::error!(detail, "governance cannot be read");
        Failure::new(
            axum::http::StatusCode::INTERNAL_SERVER_ERROR,
            "governance",
            "what governance remembers cannot be read",
            "the server's log says why",
        )
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| fails(error.to_string())),
        Err(error) => Err(fails(error.to_string())),
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
    /// Experiments.
    pub experiments: Vec<ExperimentStanding>,
    /// Policies, each with the values of its last minute.
    pub policies: Vec<PolicyStatus>,
    /// How detectors of drift stand, by agent.
    pub detectors: Vec<DetectorStanding>,
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

/// An experiment with what was seen last.
#[derive(Debug, Clone)]
pub struct ExperimentStanding {
    /// Its name.
    pub name: String,
    /// What its file says.
    pub spec: ExperimentSpec,
    /// What runs, or ran; `None` while it has not begun.
    pub run: Option<Run>,
    /// What both sides did; `None` before that was looked at.
    pub result: Option<ExperimentResult>,
    /// What was known over time.
    pub looks: Vec<Look>,
    /// What else is to be known; empty for nothing.
    pub note: String,
}
