//! How a rollout stands, and what may become of it.

use serde::{Deserialize, Serialize};
use throughline_trace::{RouteWeights, RouteWeightsError};

use super::spec::RolloutSpec;

/// Changes that a rollout remembers.
pub const MAX_CHANGES: usize = 50;

/// Nanoseconds in a second.
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Where a rollout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// The stable version has all traffic.
    Stable,
    /// The candidate has the share of a step.
    Progressing {
        /// Which step, from 0.
        step: usize,
    },
}

/// What became of a candidate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When, nanoseconds since the Unix epoch.
    pub at_unix_nano: u64,
    /// `started`, `advanced`, `promoted` or `rolled_back`.
    pub kind: String,
    /// The candidate.
    pub version: String,
    /// Its share afterwards, percent.
    pub weight: u32,
    /// Why, one sentence.
    pub reason: String,
    /// The id of the action that did it; empty in documents of earlier builds.
    #[serde(default)]
    pub action: String,
}

/// A rollout as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Its name.
    pub name: String,
    /// The version that everything goes back to.
    pub stable: String,
    /// The version that is tried.
    pub candidate: Option<String>,
    /// Where it is.
    #[serde(flatten)]
    pub phase: Phase,
    /// Since when, nanoseconds since the Unix epoch.
    pub since_unix_nano: u64,
    /// What happened, the newest last.
    pub changes: Vec<Change>,
}

/// What the telemetry of candidate and stable version says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Too little of it, or not whole.
    NotEnough(String),
    /// The candidate does as well.
    Pass(String),
    /// It does not; why, with the numbers.
    Fail(String),
}

/// What should be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing now.
    Wait,
    /// The next step, or the candidate becomes stable.
    Advance(String),
    /// Everything goes back.
    RollBack(String),
}

/// Why a rollout cannot do this now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RolloutError {
    /// There is a candidate already.
    #[error(
        "expected rollout {name} to have no candidate, it has {candidate}; promote it or roll it back first"
    )]
    Busy {
        /// The rollout.
        name: String,
        /// The candidate.
        candidate: String,
    },
    /// There is none.
    #[error("expected rollout {0} to have a candidate, it has none")]
    Idle(String),
    /// The file has become shorter than the rollout has come.
    #[error(
        "expected rollout {name} to be at one of the {steps} steps of its file, it is at step {at}; roll it back, or give the file the steps that it had"
    )]
    Shortened {
        /// The rollout.
        name: String,
        /// Steps that the file has.
        steps: usize,
        /// Where the rollout is, from 1.
        at: usize,
    },
    /// The candidate is what is stable already.
    #[error("expected a version other than {0}, which is the stable one")]
    Same(String),
    /// The version cannot be a target of a route.
    #[error(transparent)]
    Weights(#[from] RouteWeightsError),
}

impl Rollout {
    /// A rollout before its first candidate.
    pub fn new(name: impl Into<String>, spec: &RolloutSpec) -> Self {
        Self {
            name: name.into(),
            stable: spec.stable.clone(),
            candidate: None,
            phase: Phase::Stable,
            since_unix_nano: 0,
            changes: Vec::new(),
        }
    }

    /// The candidate's share, percent.
    pub fn weight(&self, spec: &RolloutSpec) -> u32 {
        match self.phase {
            Phase::Stable => 0,
            Phase::Progressing { step } => spec.steps.get(step).map_or(0, |step| step.weight),
        }
    }

    /// The weights that divide the traffic now. `also` is a version that must be told that it has
    /// nothing any more.
    ///
    /// # Errors
    /// A version cannot be the name of a target.
    pub fn weights(
        &self,
        spec: &RolloutSpec,
        also: Option<&str>,
    ) -> Result<RouteWeights, RouteWeightsError> {
        let share = self.weight(spec);
        let mut targets = vec![(self.stable.as_str(), 100 - share.min(100))];
        match (&self.candidate, also) {
            (Some(candidate), _) => targets.push((candidate, share)),
            (None, Some(also)) if also != self.stable => targets.push((also, 0)),
            (None, _) => {}
        }
        // Generation 0 stands for the one behind that which holds.
        RouteWeights::new(spec.route.as_str(), 0, targets)
    }

    /// What should be done at `now_unix_nano`, nanoseconds since the Unix epoch.
    pub fn next(
        &self,
        spec: &RolloutSpec,
        now_unix_nano: u64,
        verdict: &Verdict,
        is_frozen: bool,
    ) -> Next {
        let Phase::Progressing { step } = self.phase else { return Next::Wait };
        match verdict {
            Verdict::Fail(why) if spec.auto_rollback => Next::RollBack(why.clone()),
            Verdict::Pass(why) if spec.auto_advance && !is_frozen => {
                let held = now_unix_nano.saturating_sub(self.since_unix_nano) / NANOS_PER_SECOND;
                match spec.steps.get(step) {
                    Some(step) if held >= step.hold_s => Next::Advance(why.clone()),
                    // Not yet; or the file has become shorter, and nobody said how to go on.
                    _ => Next::Wait,
                }
            }
            _ => Next::Wait,
        }
    }

    /// The version that the file wants to be tried and that was not yet: there is no candidate, it is not the
    /// stable one, and neither was it tried before.
    pub fn wanted<'a>(&self, spec: &'a RolloutSpec) -> Option<&'a str> {
        let wanted = spec.candidate.as_deref().filter(|_| self.candidate.is_none())?;
        let is_known =
            wanted == self.stable || self.changes.iter().any(|one| one.version == wanted);
        (!is_known).then_some(wanted)
    }

    /// Begins with a candidate; `action` is the id of the action that asks for it.
    ///
    /// # Errors
    /// [`RolloutError::Busy`], [`RolloutError::Same`], [`RolloutError::Weights`].
    pub fn start(
        &mut self,
        spec: &RolloutSpec,
        version: &str,
        now_unix_nano: u64,
        reason: &str,
        action: &str,
    ) -> Result<RouteWeights, RolloutError> {
        if let Some(candidate) = &self.candidate {
            let (name, candidate) = (self.name.clone(), candidate.clone());
            return Err(RolloutError::Busy { name, candidate });
        }
        if version == self.stable {
            return Err(RolloutError::Same(version.to_owned()));
        }
        let mut next = self.clone();
        next.candidate = Some(version.to_owned());
        let change = Change::new(now_unix_nano, "started", version, reason, action);
        next.enter(spec, Phase::Progressing { step: 0 }, change);
        let weights = next.weights(spec, None)?;
        *self = next;
        Ok(weights)
    }

    /// Takes the next step; behind the last the candidate becomes stable. `action` is the id of the
    /// action that asks for it.
    ///
    /// # Errors
    /// [`RolloutError::Idle`], [`RolloutError::Shortened`], [`RolloutError::Weights`].
    pub fn advance(
        &mut self,
        spec: &RolloutSpec,
        now_unix_nano: u64,
        reason: &str,
        action: &str,
    ) -> Result<RouteWeights, RolloutError> {
        let (Phase::Progressing { step }, Some(candidate)) = (self.phase, self.candidate.clone())
        else {
            return Err(RolloutError::Idle(self.name.clone()));
        };
        if step >= spec.steps.len() {
            let (name, steps) = (self.name.clone(), spec.steps.len());
            return Err(RolloutError::Shortened { name, steps, at: step + 1 });
        }
        let before = self.stable.clone();
        if step + 1 < spec.steps.len() {
            let phase = Phase::Progressing { step: step + 1 };
            let change = Change::new(now_unix_nano, "advanced", &candidate, reason, action);
            self.enter(spec, phase, change);
        } else {
            self.stable.clone_from(&candidate);
            self.candidate = None;
            let change = Change::new(now_unix_nano, "promoted", &candidate, reason, action);
            self.enter(spec, Phase::Stable, change);
        }
        Ok(self.weights(spec, Some(&before))?)
    }

    /// Puts everything back to the stable version; `action` is the id of the action that asks for it.
    ///
    /// # Errors
    /// [`RolloutError::Idle`], [`RolloutError::Weights`].
    pub fn roll_back(
        &mut self,
        spec: &RolloutSpec,
        now_unix_nano: u64,
        reason: &str,
        action: &str,
    ) -> Result<RouteWeights, RolloutError> {
        let Some(candidate) = self.candidate.take() else {
            return Err(RolloutError::Idle(self.name.clone()));
        };
        let change = Change::new(now_unix_nano, "rolled_back", &candidate, reason, action);
        self.enter(spec, Phase::Stable, change);
        Ok(self.weights(spec, Some(&candidate))?)
    }

    /// Goes to a phase and remembers `change`, whose weight is that of the phase.
    fn enter(&mut self, spec: &RolloutSpec, phase: Phase, change: Change) {
        (self.phase, self.since_unix_nano) = (phase, change.at_unix_nano);
        let weight = match change.kind.as_str() {
            "promoted" => 100,
            _ => self.weight(spec),
        };
        self.changes.push(Change { weight, ..change });
        let extra = self.changes.len().saturating_sub(MAX_CHANGES);
        self.changes.drain(..extra);
    }
}

impl Change {
    /// One whose weight is not known yet.
    fn new(at_unix_nano: u64, kind: &str, version: &str, reason: &str, action: &str) -> Self {
        let (kind, version) = (kind.to_owned(), version.to_owned());
        let (reason, action) = (reason.to_owned(), action.to_owned());
        Self { at_unix_nano, kind, version, weight: 0, reason, action }
    }
}
