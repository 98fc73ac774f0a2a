//! An SLO as it is meant, whichever file it came from.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use throughline_trace::FindingSeverity;

use super::duration::{DAY_MIN, HOUR_MIN, Length};
use super::indicator::{Comparison, Indicator};
use super::window::BudgetWindow;

/// Burn rate from which the evaluation loop counts a window, unless the file says otherwise.
pub const DEFAULT_EVALUATION_THRESHOLD: f64 = 0.3;

/// Consecutive windows above the threshold that start an investigation, unless the file says otherwise.
pub const DEFAULT_EVALUATION_WINDOWS: u32 = 3;

/// Length of such a window, minutes, unless the file says otherwise.
pub const DEFAULT_EVALUATION_WINDOW_MIN: u64 = 5;

/// Events that a window needs before its burn rate means anything, unless the file says otherwise: of
/// fewer, one failure is a rate that no service has.
pub const DEFAULT_MIN_EVENTS: i64 = 10;

/// The error budget of an objective is rounded to this: floating point would give 0.0010000000000000009
/// for 99.9 %.
const BUDGET_DIGITS: f64 = 1e12;

/// A service level objective.
#[derive(Debug, Clone)]
pub struct Slo {
    /// Its name, unique among all.
    pub name: String,
    /// What people call it; empty when only the name.
    pub display_name: String,
    /// What it is about; may be empty.
    pub description: String,
    /// The service, as OpenSLO has it: a grouping for people, not a filter.
    pub service: String,
    /// Over which time the budget is.
    pub window: BudgetWindow,
    /// What is promised, each with its own indicator and budget.
    pub objectives: Vec<Objective>,
    /// When somebody is told.
    pub alerts: Vec<Alert>,
    /// Which of the alerts are the usual ones.
    pub usual_alerts: UsualAlerts,
    /// When an investigation starts.
    pub evaluation: EvaluationLoop,
    /// Events that a window needs before its burn rate means anything.
    pub min_events: i64,
    /// Where the team's runbook is; empty when there is none.
    pub runbook: String,
    /// A hash of what it promises, counts and alerts on; words for people are not part of it.
    pub version: String,
}

/// What is promised.
#[derive(Debug, Clone)]
pub struct Objective {
    /// What tells it from the others of its SLO: its display name, or its target in percent.
    pub name: String,
    /// What people call it; empty when only the name.
    pub display_name: String,
    /// The share that shall be good, between 0 and 1, both excluded.
    pub target: f64,
    /// How good is counted.
    pub budgeting: Budgeting,
    /// What is counted.
    pub indicator: Arc<Indicator>,
}

/// OpenSLO's budgeting method.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Budgeting {
    /// Good events of all events.
    Occurrences,
    /// Good slices of all slices in which something happened. A slice is good when the share of its
    /// good events reaches the slice's target.
    Timeslices {
        /// Length of a slice, minutes.
        slice_min: u64,
        /// The share that makes a slice good, above 0 up to 1.
        slice_target: f64,
    },
    /// The mean over slices of the share of good events in each: a quiet minute weighs what a busy
    /// one does.
    RatioTimeslices {
        /// Length of a slice, minutes.
        slice_min: u64,
    },
}

impl Budgeting {
    /// OpenSLO's name of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Occurrences => "Occurrences",
            Self::Timeslices { .. } => "Timeslices",
            Self::RatioTimeslices { .. } => "RatioTimeslices",
        }
    }

    /// Length of a slice, minutes, if there are slices.
    pub fn slice_min(self) -> Option<u64> {
        match self {
            Self::Occurrences => None,
            Self::Timeslices { slice_min, .. } | Self::RatioTimeslices { slice_min } => {
                Some(slice_min)
            }
        }
    }
}

/// When an investigation starts: the burn rate is above a threshold in consecutive windows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EvaluationLoop {
    /// Burn rate; 1 uses the budget up exactly at the end of the SLO's window.
    pub threshold: f64,
    /// How many windows in a row.
    pub windows: u32,
    /// Length of one, minutes. They are aligned to the Unix epoch.
    pub window_min: u64,
}

impl Default for EvaluationLoop {
    fn default() -> Self {
        Self {
            threshold: DEFAULT_EVALUATION_THRESHOLD,
            windows: DEFAULT_EVALUATION_WINDOWS,
            window_min: DEFAULT_EVALUATION_WINDOW_MIN,
        }
    }
}

/// When somebody is told that the budget burns.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// What tells it from the others of its SLO: `page-1h`, or the policy's name.
    pub name: String,
    /// How urgent.
    pub severity: FindingSeverity,
    /// How the file says that: `page`, `ticket`, `sev1` …
    pub severity_word: String,
    /// How the burn rate is held against the threshold: [`Comparison::Gt`] or [`Comparison::Gte`].
    pub op: Comparison,
    /// Burn rate.
    pub threshold: f64,
    /// The window that says it matters, minutes.
    pub long_min: u64,
    /// The window that says it still happens, minutes; both must be above the threshold. The same as
    /// `long_min` where there is only one.
    pub short_min: u64,
    /// For how long it must hold before it fires, minutes.
    pub after_min: u64,
    /// Whether it is told when it fires.
    pub when_breaching: bool,
    /// Whether receivers are told when it is over.
    pub when_resolved: bool,
    /// Whether a finding tells that there was nothing to judge.
    pub when_no_data: bool,
    /// Receivers that are told.
    pub targets: Vec<String>,
    /// Whether it is one of the usual ones, not of a policy.
    pub is_usual: bool,
}

/// Which of the usual alerts an SLO has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsualAlerts {
    /// All: that of an SLO that says nothing of alerts.
    All,
    /// Those that somebody looks at now.
    Page,
    /// Those that somebody looks at within days.
    Ticket,
    /// None: that of an SLO with alert policies of its own.
    None,
}

impl UsualAlerts {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::All, Self::Page, Self::Ticket, Self::None];

    /// `all`, `page`, `ticket` or `none`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Page => "page",
            Self::Ticket => "ticket",
            Self::None => "none",
        }
    }

    /// The choice of a name.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|choice| choice.as_str() == text)
    }

    /// What stands for the choice when a file does not make it.
    pub fn default_for(has_policies: bool) -> Self {
        if has_policies { Self::None } else { Self::All }
    }
}

impl Alert {
    fn usual(severity: FindingSeverity, word: &str, threshold: f64, long: u64, short: u64) -> Self {
        Self {
            name: format!("{word}-{}", Length::of_minutes(long)),
            severity,
            severity_word: word.to_owned(),
            op: Comparison::Gt,
            threshold,
            long_min: long,
            short_min: short,
            after_min: 0,
            when_breaching: true,
            when_resolved: false,
            when_no_data: false,
            targets: Vec::new(),
            is_usual: true,
        }
    }

    /// The multi-window, multi-burn-rate alerts of the
    /// [SRE workbook](https://sre.google/workbook/alerting-on-slos/), which tell `targets`. Those whose
    /// window is longer than the SLO's are left out: they would say what the budget says already.
    pub fn usual_for(choice: UsualAlerts, window: &BudgetWindow, targets: &[String]) -> Vec<Self> {
        let (page, ticket) = (FindingSeverity::Critical, FindingSeverity::Warning);
        let all = [
            Self::usual(page, "page", 14.4, HOUR_MIN, 5),
            Self::usual(page, "page", 6.0, 6 * HOUR_MIN, 30),
            Self::usual(ticket, "ticket", 3.0, DAY_MIN, 2 * HOUR_MIN),
            Self::usual(ticket, "ticket", 1.0, 3 * DAY_MIN, 6 * HOUR_MIN),
        ];
        let is_chosen = |alert: &Self| match choice {
            UsualAlerts::All => true,
            UsualAlerts::Page => alert.severity == page,
            UsualAlerts::Ticket => alert.severity == ticket,
            UsualAlerts::None => false,
        };
        all.into_iter()
            .filter(|alert| is_chosen(alert) && alert.long_min <= window.shortest_minutes())
            .map(|alert| Self { targets: targets.to_vec(), ..alert })
            .collect()
    }
}

impl Objective {
    /// The share that may be bad.
    pub fn error_budget(&self) -> f64 {
        ((1.0 - self.target) * BUDGET_DIGITS).round() / BUDGET_DIGITS
    }

    /// The burn rate when everything is bad: an alert above it never fires.
    pub fn highest_burn_rate(&self) -> f64 {
        1.0 / self.error_budget()
    }
}

/// Counters that an evaluation reads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need {
    /// Id of the indicator.
    pub indicator: String,
    /// From this minute since the Unix epoch.
    pub from_min: u64,
    /// Up to this one.
    pub to_min: u64,
}

impl Slo {
    /// The objective of a contract: a share of calls over a window, of which nobody is told by alerts.
    pub(crate) fn of_promise(
        name: &str,
        (display_name, description, service): (&str, &str, &str),
        window: BudgetWindow,
        (objective, target, indicator): (String, f64, Arc<Indicator>),
        min_events: i64,
    ) -> Self {
        let objective = Objective {
            name: objective,
            display_name: String::new(),
            target,
            budgeting: Budgeting::Occurrences,
            indicator,
        };
        let mut slo = Self {
            name: name.to_owned(),
            display_name: display_name.to_owned(),
            description: description.to_owned(),
            service: service.to_owned(),
            window,
            objectives: vec![objective],
            alerts: Vec::new(),
            usual_alerts: UsualAlerts::None,
            evaluation: EvaluationLoop::default(),
            min_events,
            runbook: String::new(),
            version: String::new(),
        };
        slo.version = super::openslo::version_of(&slo);
        slo
    }

    /// The counters that evaluating it at a time reads, for whoever fetches them first.
    pub fn needs(&self, now_unix_nano: u64) -> Vec<Need> {
        let to_min = now_unix_nano / super::indicator::MINUTE_NANOS;
        let longest_alert = self.alerts.iter().map(|alert| alert.long_min).max().unwrap_or(0);
        let evaluation = self.evaluation.window_min * u64::from(self.evaluation.windows + 1);
        let back = longest_alert.max(evaluation).max(super::evaluate::RECENT_MIN);
        let need = |objective: &Objective| {
            // A window of slices begins with a whole one, and ends with one that is over.
            let slice = 2 * objective.budgeting.slice_min().unwrap_or(0);
            let catch_up = super::evaluate::MAX_CATCH_UP_MIN;
            let from_min = to_min
                .saturating_sub(back + slice + catch_up)
                .min(self.window.containing(to_min).0.saturating_sub(slice));
            Need { indicator: objective.indicator.id().to_owned(), from_min, to_min }
        };
        let mut needs: Vec<Need> = self.objectives.iter().map(need).collect();
        needs.sort();
        needs.dedup_by(|next, kept| {
            let is_same = next.indicator == kept.indicator;
            if is_same {
                kept.from_min = kept.from_min.min(next.from_min);
            }
            is_same
        });
        needs
    }
}
