//! What was measured in a window, and what that means for a budget.

use serde::{Deserialize, Serialize};

use super::counters::{Counters, Window};
use super::model::{Budgeting, Objective, Slo};

/// Share of a window's minutes that must be covered before its burn rate means anything. A restart
/// costs a minute or two, which leaves an hour as good as whole; a window that lacks more than a tenth
/// is missing, not good and not bad.
pub const MIN_COVERED_SHARE: f64 = 0.9;

/// What was measured of an objective from one minute to another.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Measured {
    /// Events.
    pub events: f64,
    /// What the budget counts: events, or slices in which something happened.
    pub total: f64,
    /// What of it was bad; slices of a ratio count in part.
    pub bad: f64,
    /// Share of the minutes that were covered, 0 to 1.
    pub coverage: f64,
}

/// What a window says of the burn rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Burn {
    /// Error ratio over error budget: 1 uses the budget up exactly at the end of the SLO's window.
    Rate(f64),
    /// Nothing happened, or fewer events than mean anything.
    TooFewEvents,
    /// The counters of this time are not whole.
    NotCovered,
}

impl Burn {
    /// The rate, if there is one.
    pub fn rate(self) -> Option<f64> {
        match self {
            Self::Rate(rate) => Some(rate),
            _ => None,
        }
    }
}

impl Measured {
    /// What an objective was like from one minute to another. Slices are whole: those that begin
    /// within the window and are over; at least the last one that is over.
    pub fn of(objective: &Objective, counters: &dyn Counters, from_min: u64, to_min: u64) -> Self {
        let (indicator, units) =
            (&objective.indicator, objective.indicator.units_per_event() as f64);
        let Some(slice) = objective.budgeting.slice_min() else {
            let window = counters.counts(indicator.id(), from_min, to_min);
            return Self {
                events: window.total as f64 / units,
                total: window.total as f64 / units,
                bad: window.bad() as f64 / units,
                coverage: coverage(&window, to_min.saturating_sub(from_min)),
            };
        };
        let to = to_min - to_min % slice;
        let from = from_min.next_multiple_of(slice).min(to.saturating_sub(slice));
        let mut measured = Self::default();
        let mut covered = 0;
        for window in counters.slices(indicator.id(), from, to, slice) {
            covered += window.covered_minutes;
            measured.events += window.total as f64 / units;
            let Some(ratio) = window.error_ratio() else { continue };
            if coverage(&window, slice) < MIN_COVERED_SHARE {
                continue;
            }
            measured.total += 1.0;
            measured.bad += match objective.budgeting {
                Budgeting::Timeslices { slice_target, .. } => {
                    // Not 1 − ratio, which would miss a target that is met exactly.
                    let good = window.good as f64 / window.total as f64;
                    f64::from(u8::from(good < slice_target))
                }
                _ => ratio,
            };
        }
        let whole = Window { covered_minutes: covered, ..Window::default() };
        measured.coverage = coverage(&whole, to.saturating_sub(from));
        measured
    }

    /// Bad over total; `None` when nothing was counted.
    pub fn error_ratio(&self) -> Option<f64> {
        (self.total > 0.0).then(|| self.bad / self.total)
    }

    /// The burn rate that this tells, if it tells one.
    pub fn burn(&self, objective: &Objective, min_events: f64) -> Burn {
        match self.error_ratio() {
            _ if self.coverage < MIN_COVERED_SHARE => Burn::NotCovered,
            Some(ratio) if self.events >= min_events => {
                Burn::Rate(ratio / objective.error_budget())
            }
            _ => Burn::TooFewEvents,
        }
    }
}

fn coverage(window: &Window, minutes: u64) -> f64 {
    if minutes == 0 { 0.0 } else { window.covered_minutes as f64 / minutes as f64 }
}

/// The budget of an objective over the SLO's window so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// Where the window begins, minutes since the Unix epoch.
    pub from_min: u64,
    /// Where it ends; a rolling one ends now.
    pub ends_min: u64,
    /// What was measured in it up to now.
    pub measured: Measured,
    /// `error_budget_consumption_rate`: bad over allowed bad of the window so far; 1 is all of it,
    /// `None` when nothing was counted.
    pub consumption: Option<f64>,
    /// What of the budget is left: 1 is all, below 0 is overspent.
    pub remaining: Option<f64>,
    /// Minutes until it is used up if it burns on as in the last hour; 0 when it is, `None` when it
    /// does not burn or nothing is known.
    pub minutes_to_exhaustion: Option<f64>,
}

impl Budget {
    /// The budget at a time. `burn` is the burn rate now.
    pub fn of(
        slo: &Slo,
        objective: &Objective,
        counters: &dyn Counters,
        to_min: u64,
        burn: Burn,
    ) -> Self {
        let (from_min, ends_min) = slo.window.containing(to_min);
        let measured = Measured::of(objective, counters, from_min, to_min);
        let consumption = measured.error_ratio().map(|ratio| ratio / objective.error_budget());
        let remaining = consumption.map(|consumption| 1.0 - consumption);
        let length = ends_min.saturating_sub(from_min) as f64;
        let minutes_to_exhaustion = match (remaining, burn.rate()) {
            (Some(remaining), _) if remaining <= 0.0 => Some(0.0),
            (Some(remaining), Some(rate)) if rate > 0.0 => Some(remaining * length / rate),
            _ => None,
        };
        Self { from_min, ends_min, measured, consumption, remaining, minutes_to_exhaustion }
    }
}
