//! The same SLOs as recording and alerting rules of Prometheus, over the counters that the server
//! exposes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::duration::Length;
use super::evaluate::RECENT_MIN;
use super::indicator::Comparison;
use super::lines::Lines;
use super::model::{Alert, Budgeting, Objective, Slo};
use super::window::BudgetWindow;

/// Counter of events, by `slo` and `objective`.
pub const EVENTS_METRIC: &str = "throughline_slo_events_total";

/// Counter of good events, by `slo` and `objective`. An event that is good in part counts so.
pub const GOOD_EVENTS_METRIC: &str = "throughline_slo_good_events_total";

/// Name of every alert; labels tell which SLO it is.
const ALERT_NAME: &str = "ThroughlineSloBurn";

/// Rules in a file for Prometheus (`rule_files`), one group an objective.
///
/// An alert fires, and ends, when it does here: both windows above the threshold with enough events,
/// and until the short one is quiet. What PromQL has no words for is left out: the evaluation loop,
/// the budget of windows of the calendar, and that silence is not the end of an alert.
pub fn write_prometheus(slos: &[Slo]) -> String {
    let mut lines = Lines::default();
    lines.add(0, if slos.is_empty() { "groups: []" } else { "groups:" });
    for slo in slos {
        for objective in &slo.objectives {
            group(&mut lines, slo, objective);
        }
    }
    lines.0
}

fn group(lines: &mut Lines, slo: &Slo, objective: &Objective) {
    let rules = Rules { slo, objective };
    lines.text(1, "- name", &format!("throughline-slo-{}-{}", slo.name, objective.name));
    lines.add(2, "rules:");
    let mut windows: BTreeSet<u64> = BTreeSet::from([RECENT_MIN]);
    windows.extend(slo.alerts.iter().flat_map(|alert| [alert.long_min, alert.short_min]));
    for minutes in &windows {
        let expression = rules.burn(*minutes);
        rules.record(lines, &burn_metric(*minutes), &expression);
    }
    rules.record(
        lines,
        "throughline_slo:objective:ratio",
        &format!("vector({})", objective.target),
    );
    if let BudgetWindow::Rolling { minutes } = slo.window {
        let expression = format!("1 - ({})", rules.burn(minutes));
        rules.record(lines, "throughline_slo:error_budget_remaining:ratio", &expression);
    }
    for alert in slo.alerts.iter().filter(|alert| alert.when_breaching) {
        rules.alert(lines, alert);
    }
}

fn burn_metric(minutes: u64) -> String {
    format!("throughline_slo:burn_rate:{}", Length::of_minutes(minutes))
}

/// A string of PromQL.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The rules of one objective.
struct Rules<'s> {
    slo: &'s Slo,
    objective: &'s Objective,
}

impl Rules<'_> {
    fn matchers(&self) -> String {
        format!("{{slo={},objective={}}}", quoted(&self.slo.name), quoted(&self.objective.name))
    }

    fn increase(&self, metric: &str, minutes: u64) -> String {
        let (matchers, length) = (self.matchers(), Length::of_minutes(minutes));
        format!("sum by (slo, objective) (increase({metric}{matchers}[{length}]))")
    }

    /// The share of good events.
    fn good_ratio(&self, minutes: u64) -> String {
        let (good, events) =
            (self.increase(GOOD_EVENTS_METRIC, minutes), self.increase(EVENTS_METRIC, minutes));
        format!("{good} / {events}")
    }

    /// The burn rate over a window.
    fn burn(&self, minutes: u64) -> String {
        let budget = self.objective.error_budget();
        let ratio = match self.objective.budgeting {
            Budgeting::Occurrences => format!("1 - {}", self.good_ratio(minutes)),
            Budgeting::Timeslices { slice_min, slice_target } => {
                let bad = format!("(({}) >= 0) < bool {slice_target}", self.good_ratio(slice_min));
                over_slices(&bad, minutes, slice_min)
            }
            Budgeting::RatioTimeslices { slice_min } => {
                let bad = format!("1 - ({}) >= 0", self.good_ratio(slice_min));
                over_slices(&bad, minutes, slice_min)
            }
        };
        format!("({ratio}) / {budget}")
    }

    fn record(&self, lines: &mut Lines, name: &str, expression: &str) {
        lines.add(2, &format!("- record: {name}"));
        lines.text(3, "expr", expression);
        lines.add(3, "labels:");
        lines.text(4, "slo", &self.slo.name);
        lines.text(4, "objective", &self.objective.name);
        lines.text(4, "service", &self.slo.service);
    }

    fn alert(&self, lines: &mut Lines, alert: &Alert) {
        let (slo, objective) = (self.slo, self.objective);
        let matchers = self.matchers();
        let sign = match alert.op {
            Comparison::Gte => ">=",
            _ => ">",
        };
        let threshold = alert.threshold;
        let over = |minutes: u64| format!("{}{matchers} {sign} {threshold}", burn_metric(minutes));
        let events = self.increase(EVENTS_METRIC, alert.long_min);
        let fires = format!(
            "(\n  {}\n  and {}\n  and on (slo, objective) {events} >= {}\n)",
            over(alert.long_min),
            over(alert.short_min),
            slo.min_events
        );
        let goes_on = format!(
            "(\n  {}\n  and on (slo, objective) ALERTS{{alertname=\"{ALERT_NAME}\",alertstate=\"firing\",slo={},objective={},alert={}}}\n)",
            over(alert.short_min),
            quoted(&slo.name),
            quoted(&objective.name),
            quoted(&alert.name)
        );
        lines.add(2, &format!("- alert: {ALERT_NAME}"));
        lines.text(3, "expr", &format!("{fires}\nor\n{goes_on}"));
        if alert.after_min > 0 {
            lines.add(3, &format!("for: {}", Length::of_minutes(alert.after_min)));
        }
        lines.add(3, "labels:");
        lines.text(4, "severity", alert.severity.as_str());
        lines.text(4, "alert", &alert.name);
        lines.add(3, "annotations:");
        let (long, short) =
            (Length::of_minutes(alert.long_min), Length::of_minutes(alert.short_min));
        lines.text(
            4,
            "summary",
            &format!(
                "{} ({}): the error budget burns over {threshold} times as fast as it may, over {long} and {short}",
                slo.name, objective.name
            ),
        );
        lines.words(4, "runbook_url", &slo.runbook);
    }
}

/// The mean over the slices of a window in which something happened. A subquery is evaluated at whole
/// multiples of its step, and the range leaves the slice out that ended when the window began.
fn over_slices(bad: &str, minutes: u64, slice_min: u64) -> String {
    let (range, step) = (
        Length::of_minutes(minutes.max(slice_min).saturating_sub(1).max(1)),
        Length::of_minutes(slice_min),
    );
    format!("avg_over_time(({bad})[{range}:{step}])")
}
