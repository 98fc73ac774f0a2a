//! The evaluation loop (requirement R5.2): the burn rate is above a threshold in consecutive windows,
//! and somebody should find out why, once.

use serde::{Deserialize, Serialize};
use throughline_trace::{Action, Finding, FindingState, Operation, finding_id};

use super::alert::{base, budget_values, named};
use super::budget::Burn;
use super::duration::Length;
use super::evaluate::{Said, Step};
use super::model::{Objective, Slo};

/// Kind of the findings of the loop: an SLO deviates from what was promised.
pub const DEVIATION_KIND: &str = "slo.deviation";

/// What lists call the loop among the alerts.
pub(super) const NAME: &str = "evaluation-loop";

/// Windows without anything measured after which an episode is over: nothing is known to burn.
const SILENT_WINDOWS: u32 = 12;

/// Seconds of a minute.
const MINUTE_S: u64 = 60;

/// What the loop remembers between evaluations.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LoopState {
    /// End of the last window that was looked at, minutes since the Unix epoch.
    seen_min: Option<u64>,
    /// Windows above the threshold up to now.
    run: u32,
    /// Events in them.
    run_events: f64,
    /// Windows without anything measured, up to now, while it fires.
    silent: u32,
    /// What fires.
    open: Option<Finding>,
}

impl LoopState {
    /// Whether an episode goes on.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// What fires.
    pub(super) fn into_open(self) -> Option<Finding> {
        self.open
    }

    /// Length of a window, minutes: that of the file, or that of a slice where slices are longer,
    /// since otherwise several windows would be judged by one slice.
    fn window_min(slo: &Slo, objective: &Objective) -> u64 {
        let window = slo.evaluation.window_min.max(1);
        objective.budgeting.slice_min().map_or(window, |slice| window.next_multiple_of(slice))
    }

    /// Minutes that it looks back.
    pub(super) fn looks_back_min(slo: &Slo, objective: &Objective) -> u64 {
        Self::window_min(slo, objective) * u64::from(slo.evaluation.windows + 1)
    }

    /// Looks at one minute: the window that ends with it, if one does. The first time, the windows
    /// before are looked at too.
    pub(super) fn step(&mut self, step: &Step<'_>, said: &mut Said) {
        let window = Self::window_min(step.slo, step.objective);
        let last = step.minute - step.minute % window;
        let first = match self.seen_min {
            Some(seen) if seen >= last => return,
            // After a pause that was too long to be made up for, windows are missing in between.
            Some(seen) if seen + window < last => {
                self.run = 0;
                last
            }
            Some(_) => last,
            None => last.saturating_sub(window * u64::from(step.slo.evaluation.windows - 1)),
        };
        let mut end = first;
        while end <= last {
            self.window(&Step { minute: end, ..*step }, window, said);
            end += window;
        }
        self.seen_min = Some(last);
    }

    fn window(&mut self, step: &Step<'_>, window: u64, said: &mut Said) {
        let evaluation = step.slo.evaluation;
        let measured = step.measured(window);
        let burn = measured.burn(step.objective, f64::MIN_POSITIVE);
        match (burn, self.open.take()) {
            (Burn::Rate(rate), open) if rate > evaluation.threshold => {
                self.silent = 0;
                self.run = self.run.saturating_add(1);
                self.run_events += measured.events;
                self.burns(step, window, rate, open, said);
            }
            (Burn::Rate(rate), open) => {
                self.reset();
                if let Some(open) = open {
                    let why =
                        format!("burns at {rate:.2} again, not over {}", evaluation.threshold);
                    resolve(open, step, &why, said);
                }
            }
            // Missing is not bad: it ends a run, but an episode goes on until something is known.
            (_, Some(open)) => {
                self.silent += 1;
                if self.silent >= SILENT_WINDOWS {
                    self.reset();
                    let length = Length::of_minutes(window * u64::from(SILENT_WINDOWS));
                    resolve(open, step, &format!("was not measured for {length}"), said);
                } else {
                    self.open = Some(open);
                }
            }
            (_, None) => self.reset(),
        }
    }

    fn reset(&mut self) {
        (self.run, self.run_events, self.silent) = (0, 0.0, 0);
    }

    /// A window is above the threshold.
    fn burns(
        &mut self,
        step: &Step<'_>,
        window: u64,
        rate: f64,
        open: Option<Finding>,
        said: &mut Said,
    ) {
        let evaluation = step.slo.evaluation;
        let is_new = open.is_none();
        let has_enough = self.run_events >= step.slo.min_events as f64;
        if is_new && (self.run < evaluation.windows || !has_enough) {
            return;
        }
        let since = open.as_ref().map_or(step.at_unix_nano(), |open| open.since_unix_nano);
        let mut values = budget_values(step, rate);
        values.insert("threshold".to_owned(), evaluation.threshold);
        values.insert("windows".to_owned(), f64::from(self.run));
        let length = Length::of_minutes(window);
        let run = self.run;
        let finding = Finding {
            kind: DEVIATION_KIND.to_owned(),
            summary: format!(
                "{}: the burn rate was over {} in {run} windows of {length} in a row, {rate:.2} in the last",
                named(step.slo, step.objective),
                evaluation.threshold
            ),
            values,
            ..base(step, NAME, since, window * u64::from(evaluation.windows))
        };
        if is_new {
            said.actions.push(investigate(&finding, window * u64::from(evaluation.windows)));
        }
        said.find(finding.clone());
        self.open = Some(finding);
    }
}

fn resolve(mut open: Finding, step: &Step<'_>, why: &str, said: &mut Said) {
    open.state = FindingState::Resolved;
    open.at_unix_nano = step.at_unix_nano();
    open.summary = format!("{} {why}", named(step.slo, step.objective));
    said.find(open);
}

/// Asks to find out what the bad traces have in common, once for an episode. An episode that begins
/// within the time that makes one is the same trouble still.
fn investigate(finding: &Finding, cool_down_min: u64) -> Action {
    let rule = format!("{}:investigate", finding.rule);
    Action {
        id: finding_id(&rule, &finding.rule_version, &finding.subject, finding.since_unix_nano),
        finding: finding.id.clone(),
        rule: finding.rule.clone(),
        rule_version: finding.rule_version.clone(),
        subject: finding.subject.clone(),
        at_unix_nano: finding.at_unix_nano,
        operation: Operation::Investigate,
        reason: finding.summary.clone(),
        evidence: Vec::new(),
        cool_down_s: cool_down_min * MINUTE_S,
        is_dry_run: false,
    }
}
