//! SLOs written as OpenSLO files: what was brought over from elsewhere becomes a file, and the same
//! text tells whether an SLO changed.

use crate::slo::duration::Length;
use crate::slo::indicator::{Indicator, Judge};
use crate::slo::lines::Lines;
use crate::slo::model::{
    Alert, Budgeting, DEFAULT_MIN_EVENTS, EvaluationLoop, Objective, Slo, UsualAlerts,
};
use crate::slo::window::BudgetWindow;

/// Hexadecimal digits of a version.
const VERSION_CHARS: usize = 12;

/// SLOs as one OpenSLO file, a document each, that reads back to the same.
///
/// Objectives of one threshold metric share their SLI, as in the file that they came from.
pub fn write_openslo(slos: &[Slo]) -> String {
    slos.iter().map(document).collect::<Vec<_>>().join("---\n")
}

/// A hash of what an SLO promises, counts and alerts on.
pub(in crate::slo) fn version_of(slo: &Slo) -> String {
    let bare = Slo {
        display_name: String::new(),
        description: String::new(),
        runbook: String::new(),
        ..slo.clone()
    };
    let mut version = blake3::hash(document(&bare).as_bytes()).to_hex().to_string();
    version.truncate(VERSION_CHARS);
    version
}

fn document(slo: &Slo) -> String {
    let mut lines = Lines::default();
    lines.add(0, "apiVersion: openslo/v1");
    lines.add(0, "kind: SLO");
    lines.add(0, "metadata:");
    lines.text(1, "name", &slo.name);
    lines.words(1, "displayName", &slo.display_name);
    annotations(&mut lines, slo);
    lines.add(0, "spec:");
    lines.words(1, "description", &slo.description);
    lines.text(1, "service", &slo.service);
    if let Some(objective) = slo.objectives.first() {
        indicator(&mut lines, &objective.indicator);
    }
    window(&mut lines, &slo.window);
    let method = slo.objectives.first().map_or("Occurrences", |first| first.budgeting.as_str());
    lines.add(1, &format!("budgetingMethod: {method}"));
    lines.add(1, "objectives:");
    slo.objectives.iter().for_each(|each| objective(&mut lines, each));
    let policies: Vec<&Alert> = slo.alerts.iter().filter(|alert| !alert.is_usual).collect();
    match (policies.is_empty(), slo.usual_alerts) {
        (true, UsualAlerts::None) => lines.add(1, "alertPolicies: []"),
        (true, _) => {}
        (false, _) => lines.add(1, "alertPolicies:"),
    }
    policies.iter().for_each(|each| alert(&mut lines, each));
    lines.0
}

fn annotations(lines: &mut Lines, slo: &Slo) {
    let usual = EvaluationLoop::default();
    let given = &slo.evaluation;
    let mut all: Vec<(&str, String)> = Vec::new();
    if !slo.runbook.is_empty() {
        all.push(("runbook", slo.runbook.clone()));
    }
    if slo.min_events != DEFAULT_MIN_EVENTS {
        all.push(("min-events", slo.min_events.to_string()));
    }
    if given.threshold != usual.threshold {
        all.push(("evaluation-threshold", given.threshold.to_string()));
    }
    if given.windows != usual.windows {
        all.push(("evaluation-windows", given.windows.to_string()));
    }
    if given.window_min != usual.window_min {
        all.push(("evaluation-window", Length::of_minutes(given.window_min).to_string()));
    }
    let has_policies = slo.alerts.iter().any(|alert| !alert.is_usual);
    // Without policies, none of the usual alerts is said by an empty list of policies.
    let is_said = slo.usual_alerts == UsualAlerts::default_for(has_policies)
        || (!has_policies && slo.usual_alerts == UsualAlerts::None);
    if !is_said {
        all.push(("usual-alerts", slo.usual_alerts.as_str().to_owned()));
    }
    let usual = slo.alerts.iter().find(|alert| alert.is_usual && !alert.targets.is_empty());
    if let Some(alert) = usual {
        all.push(("notify", alert.targets.join(", ")));
    }
    if !all.is_empty() {
        lines.add(1, "annotations:");
        for (name, value) in all {
            lines.text(2, &format!("throughline.dev/{name}"), &value);
        }
    }
}

fn indicator(lines: &mut Lines, indicator: &Indicator) {
    let total = indicator.total().source();
    lines.add(1, "indicator:");
    lines.add(2, "spec:");
    if let Judge::Threshold { value, .. } = indicator.judge() {
        metric(lines, 3, "thresholdMetric", total, Some(value.source()));
        return;
    }
    lines.add(3, "ratioMetric:");
    match indicator.judge() {
        Judge::Good(rule) => metric(lines, 4, "good", rule.source(), None),
        Judge::Bad(rule) => metric(lines, 4, "bad", rule.source(), None),
        Judge::Raw { value, is_failure } => {
            let kind = if *is_failure { "failure" } else { "success" };
            lines.add(4, &format!("rawType: {kind}"));
            metric(lines, 4, "raw", total, Some(value.source()));
            return;
        }
        // Contracts alone have them, and are not written as OpenSLO.
        Judge::Rego(_) | Judge::Threshold { .. } => {}
    }
    metric(lines, 4, "total", total, None);
}

fn metric(lines: &mut Lines, depth: usize, name: &str, spans: &str, value: Option<&str>) {
    lines.add(depth, &format!("{name}:"));
    lines.add(depth + 1, "metricSource:");
    lines.add(depth + 2, "type: throughline");
    lines.add(depth + 2, "spec:");
    lines.text(depth + 3, "spans", spans);
    if let Some(value) = value {
        lines.text(depth + 3, "value", value);
    }
}

fn window(lines: &mut Lines, window: &BudgetWindow) {
    lines.add(1, "timeWindow:");
    match window {
        BudgetWindow::Rolling { minutes } => {
            lines.add(1, &format!("- duration: {}", Length::of_minutes(*minutes)));
            lines.add(2, "isRolling: true");
        }
        BudgetWindow::Calendar(calendar) => {
            lines.add(1, &format!("- duration: {}", calendar.length));
            lines.add(2, "calendar:");
            lines.text(3, "startTime", &calendar.start_text());
            lines.text(3, "timeZone", &calendar.zone());
        }
    }
}

fn objective(lines: &mut Lines, objective: &Objective) {
    lines.add(1, &format!("- target: {}", objective.target));
    lines.words(2, "displayName", &objective.display_name);
    if let Judge::Threshold { op, threshold, .. } = objective.indicator.judge() {
        lines.add(2, &format!("op: {}", op.as_str()));
        lines.add(2, &format!("value: {threshold}"));
    }
    if let Budgeting::Timeslices { slice_target, .. } = objective.budgeting {
        lines.add(2, &format!("timeSliceTarget: {slice_target}"));
    }
    if let Some(slice) = objective.budgeting.slice_min() {
        lines.add(2, &format!("timeSliceWindow: {}", Length::of_minutes(slice)));
    }
}

fn alert(lines: &mut Lines, alert: &Alert) {
    lines.add(1, "- kind: AlertPolicy");
    lines.add(2, "metadata:");
    lines.text(3, "name", &alert.name);
    lines.add(2, "spec:");
    lines.add(3, &format!("alertWhenBreaching: {}", alert.when_breaching));
    lines.add(3, &format!("alertWhenResolved: {}", alert.when_resolved));
    lines.add(3, &format!("alertWhenNoData: {}", alert.when_no_data));
    lines.add(3, "conditions:");
    lines.add(3, "- kind: AlertCondition");
    lines.add(4, "metadata:");
    lines.text(5, "name", &alert.name);
    lines.add(4, "spec:");
    lines.text(5, "severity", &alert.severity_word);
    lines.add(5, "condition:");
    lines.add(6, "kind: burnrate");
    lines.add(6, &format!("op: {}", alert.op.as_str()));
    lines.add(6, &format!("threshold: {}", alert.threshold));
    lines.add(6, &format!("lookbackWindow: {}", Length::of_minutes(alert.long_min)));
    lines.add(6, &format!("alertAfter: {}m", alert.after_min));
    if !alert.targets.is_empty() {
        lines.add(3, "notificationTargets:");
    }
    for target in &alert.targets {
        lines.add(3, "- kind: AlertNotificationTarget");
        lines.add(4, "spec:");
        lines.text(5, "target", target);
    }
}
