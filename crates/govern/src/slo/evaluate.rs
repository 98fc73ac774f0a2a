//! Evaluating an SLO: minute after minute, from where the last evaluation stopped, so that it does not
//! matter how often, or with what pauses, it is asked for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use throughline_trace::{Action, Finding, FindingState};

use super::alert::AlertState;
use super::budget::{Budget, Burn, Measured};
use super::counters::{Counters, Window};
use super::duration::{DAY_MIN, HOUR_MIN};
use super::indicator::MINUTE_NANOS;
use super::investigate::LoopState;
use super::model::{Objective, Slo};

/// The window of the burn rate that lists show, minutes.
pub const RECENT_MIN: u64 = HOUR_MIN;

/// Minutes that are made up for after a pause at most; of what was before, alerts and the evaluation
/// loop say nothing.
pub const MAX_CATCH_UP_MIN: u64 = DAY_MIN;

/// Steps from which counters are fetched at once.
const MANY_STEPS: u64 = 4;

/// What an SLO remembers between evaluations.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SloState {
    /// Version of the SLO that it belongs to.
    pub version: String,
    /// The minute up to which was evaluated, minutes since the Unix epoch.
    pub evaluated_min: Option<u64>,
    /// By name of the objective.
    pub objectives: BTreeMap<String, ObjectiveState>,
}

/// What an objective remembers between evaluations.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ObjectiveState {
    /// By name of the alert.
    pub alerts: BTreeMap<String, AlertState>,
    /// Of the evaluation loop.
    pub evaluation: LoopState,
}

/// How an objective is doing, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SloHealth {
    /// Within its budget, and nothing alerts.
    Ok,
    /// An alert or the evaluation loop fires.
    Burning,
    /// The budget is used up.
    Exhausted,
    /// Nothing happened that counts.
    NoEvents,
    /// Most of the window is not covered by counters.
    NotCovered,
}

impl SloHealth {
    /// `ok`, `burning`, `exhausted`, `no_events` or `not_covered`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Burning => "burning",
            Self::Exhausted => "exhausted",
            Self::NoEvents => "no_events",
            Self::NotCovered => "not_covered",
        }
    }
}

/// How an objective is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ObjectiveStatus {
    /// Name of the SLO.
    pub slo: String,
    /// Name of the objective.
    pub objective: String,
    /// The share that shall be good.
    pub target: f64,
    /// The share that was good in the window so far; `None` when nothing was counted.
    pub attainment: Option<f64>,
    /// The budget.
    pub budget: Budget,
    /// Burn rate over the last hour; `None` when there was too little to say.
    pub burn_rate_1h: Option<f64>,
    /// In a word.
    pub health: SloHealth,
    /// Alerts that fire.
    pub firing: Vec<String>,
}

/// What an evaluation gives. State, findings and actions are to be committed together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evaluated {
    /// What to pass in next time.
    pub state: SloState,
    /// One for each objective.
    pub statuses: Vec<ObjectiveStatus>,
    /// Those that fire, and those that were resolved since the last time.
    pub findings: Vec<Finding>,
    /// What is asked for.
    pub actions: Vec<Action>,
}

/// What one step says: findings by id, so that the last word on each counts.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) findings: BTreeMap<String, Finding>,
    pub(super) actions: Vec<Action>,
}

impl Said {
    pub(super) fn find(&mut self, finding: Finding) {
        self.findings.insert(finding.id.clone(), finding);
    }

    /// What fires of an objective tells its budget too.
    fn tell_budget(&mut self, status: &ObjectiveStatus) {
        let (Some(consumption), Some(remaining)) =
            (status.budget.consumption, status.budget.remaining)
        else {
            return;
        };
        for finding in self.findings.values_mut() {
            let is_of = finding.subject.get("objective") == Some(&status.objective);
            if is_of && finding.state == FindingState::Firing && finding.kind != super::NO_DATA_KIND
            {
                finding.values.insert("error_budget_consumption_rate".to_owned(), consumption);
                finding.values.insert("budget_remaining".to_owned(), remaining);
            }
        }
    }
}

/// What a step looks at.
#[derive(Clone, Copy)]
pub(super) struct Step<'a> {
    pub(super) slo: &'a Slo,
    pub(super) objective: &'a Objective,
    pub(super) counters: &'a dyn Counters,
    /// Counters of minutes before this one are looked at.
    pub(super) minute: u64,
}

impl Step<'_> {
    pub(super) fn at_unix_nano(&self) -> u64 {
        self.minute * MINUTE_NANOS
    }

    /// What the minutes before now were like.
    pub(super) fn measured(&self, minutes: u64) -> Measured {
        let from = self.minute.saturating_sub(minutes);
        Measured::of(self.objective, self.counters, from, self.minute)
    }

    /// The burn rate of the minutes before now, if so many events say it.
    pub(super) fn burn(&self, minutes: u64, min_events: f64) -> Burn {
        self.measured(minutes).burn(self.objective, min_events)
    }
}

/// Evaluates an SLO up to the last whole minute before `now_unix_nano`.
///
/// Every minute since the last evaluation is looked at in its turn ([`MAX_CATCH_UP_MIN`] at most), so
/// that the same counters give the same findings whether they were looked at once a minute, once an
/// hour, or by a server that was restarted in between. A state of another version of the SLO is
/// closed: what fired is resolved.
pub fn evaluate(
    slo: &Slo,
    counters: &dyn Counters,
    now_unix_nano: u64,
    state: SloState,
) -> Evaluated {
    let now_min = now_unix_nano / MINUTE_NANOS;
    let mut said = Said::default();
    let mut state = if state.version == slo.version {
        state
    } else {
        close(state, now_min, &mut said);
        SloState { version: slo.version.clone(), ..SloState::default() }
    };
    let first = match state.evaluated_min {
        None => now_min,
        Some(last) => (last + 1).max(now_min.saturating_sub(MAX_CATCH_UP_MIN)),
    };
    let has_gap = state.evaluated_min.is_some_and(|last| last + 1 < first);
    let mut statuses = Vec::with_capacity(slo.objectives.len());
    for objective in &slo.objectives {
        let known = state.objectives.entry(objective.name.clone()).or_default();
        let fetched = (now_min.saturating_sub(first) >= MANY_STEPS)
            .then(|| Fetched::of(slo, objective, counters, first, now_min));
        let near: &dyn Counters = fetched.as_ref().map_or(counters, |fetched| fetched);
        for minute in first..=now_min {
            let step = Step { slo, objective, counters: near, minute };
            for alert in &slo.alerts {
                let alert_state = known.alerts.entry(alert.name.clone()).or_default();
                if has_gap && minute == first {
                    alert_state.wait_anew();
                }
                alert_state.step(&step, alert, &mut said);
            }
            known.evaluation.step(&step, &mut said);
        }
        let status = status(slo, objective, counters, now_min, known);
        said.tell_budget(&status);
        statuses.push(status);
    }
    // A clock that went back changes nothing: the minutes were looked at.
    state.evaluated_min = Some(state.evaluated_min.unwrap_or(0).max(now_min));
    let findings = said.findings.into_values().collect();
    Evaluated { state, statuses, findings, actions: said.actions }
}

/// What still fires of an SLO that is no more, resolved.
pub fn withdraw(state: SloState, now_unix_nano: u64) -> Vec<Finding> {
    let mut said = Said::default();
    close(state, now_unix_nano / MINUTE_NANOS, &mut said);
    said.findings.into_values().collect()
}

fn close(state: SloState, now_min: u64, said: &mut Said) {
    for objective in state.objectives.into_values() {
        let alerts = objective.alerts.into_values().flat_map(AlertState::into_open);
        for mut finding in alerts.chain(objective.evaluation.into_open()) {
            finding.state = FindingState::Resolved;
            finding.at_unix_nano = now_min * MINUTE_NANOS;
            finding.summary = format!("{}; the SLO was changed or taken away", finding.summary);
            said.find(finding);
        }
    }
}

/// How an objective is doing at a minute.
fn status(
    slo: &Slo,
    objective: &Objective,
    counters: &dyn Counters,
    minute: u64,
    known: &ObjectiveState,
) -> ObjectiveStatus {
    let step = Step { slo, objective, counters, minute };
    let burn = step.burn(RECENT_MIN, 1.0);
    let budget = Budget::of(slo, objective, counters, minute, burn);
    let attainment = budget.measured.error_ratio().map(|ratio| 1.0 - ratio);
    let open = known.alerts.iter().filter(|(_, state)| state.is_burning());
    let mut firing: Vec<String> = open.map(|(name, _)| name.clone()).collect();
    if known.evaluation.is_open() {
        firing.push(super::investigate::NAME.to_owned());
    }
    let health = match budget.remaining {
        Some(remaining) if remaining <= 0.0 => SloHealth::Exhausted,
        _ if !firing.is_empty() => SloHealth::Burning,
        None if budget.measured.coverage < 0.5 => SloHealth::NotCovered,
        None => SloHealth::NoEvents,
        Some(_) => SloHealth::Ok,
    };
    ObjectiveStatus {
        slo: slo.name.clone(),
        objective: objective.name.clone(),
        target: objective.target,
        attainment,
        budget,
        burn_rate_1h: burn.rate(),
        health,
        firing,
    }
}

/// Counters of an indicator by the minute, added up from the first, so that any window is one
/// subtraction.
struct Fetched {
    from_min: u64,
    /// What was counted before each minute; one more than there are minutes.
    before: Vec<Window>,
}

impl Fetched {
    fn of(
        slo: &Slo,
        objective: &Objective,
        counters: &dyn Counters,
        first: u64,
        to_min: u64,
    ) -> Self {
        let alerts = slo.alerts.iter().map(|alert| alert.long_min).max().unwrap_or(0);
        let evaluation = LoopState::looks_back_min(slo, objective);
        let slice = objective.budgeting.slice_min().unwrap_or(0);
        let from_min = first.saturating_sub(alerts.max(evaluation) + 2 * slice);
        let mut before = vec![Window::default()];
        let mut all = Window::default();
        for minute in counters.slices(objective.indicator.id(), from_min, to_min, 1) {
            all = all.and(minute);
            before.push(all);
        }
        Self { from_min, before }
    }

    fn before(&self, minute: u64) -> Window {
        let at = usize::try_from(minute.saturating_sub(self.from_min)).unwrap_or(usize::MAX);
        let last = self.before.last().copied().unwrap_or_default();
        self.before.get(at).copied().unwrap_or(last)
    }
}

impl Counters for Fetched {
    fn counts(&self, _indicator: &str, from_min: u64, to_min: u64) -> Window {
        let (from, to) = (self.before(from_min), self.before(to_min.max(from_min)));
        Window {
            total: to.total - from.total,
            good: to.good - from.good,
            covered_minutes: to.covered_minutes - from.covered_minutes,
        }
    }
}
