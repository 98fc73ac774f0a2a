//! Alert policies, their conditions and receivers.

use throughline_trace::FindingSeverity;

use super::SloReader;
use super::documents::{Documents, Kind, Meta};
use super::indicators::is_kind;
use crate::slo::duration::DAY_MIN;
use crate::slo::fields::{Fields, list_of};
use crate::slo::indicator::Comparison;
use crate::slo::mistake::Report;
use crate::slo::model::Alert;
use crate::slo::tree::Tree;

/// Policies of one SLO at most.
const MAX_POLICIES: usize = 20;

/// Longest window that an alert looks back, minutes.
const MAX_LOOKBACK_MIN: u64 = 31 * DAY_MIN;

/// Longest time that a condition must hold, minutes.
const MAX_ALERT_AFTER_MIN: u64 = DAY_MIN;

/// `AlertCondition`.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    severity_word: String,
    op: Comparison,
    threshold: f64,
    lookback_min: u64,
    after_min: u64,
}

/// `AlertPolicy`.
#[derive(Debug, Clone)]
pub(super) struct Policy {
    name: String,
    condition: Condition,
    when_breaching: bool,
    when_resolved: bool,
    when_no_data: bool,
    targets: Vec<String>,
}

impl SloReader<'_, '_> {
    /// The alerts of an SLO's policies.
    pub(super) fn alerts(&mut self, list: Tree) -> Vec<Alert> {
        let at = list.at;
        let items = list_of(list, "alertPolicies", self.report);
        if items.len() > MAX_POLICIES {
            let got = items.len();
            let message = format!("expected at most {MAX_POLICIES} alert policies, got {got}");
            self.report.wrong(at, message, "");
            return Vec::new();
        }
        let mut alerts: Vec<Alert> = Vec::new();
        for item in items {
            let at = item.at;
            let Some(policy) = self.policy(item) else { continue };
            let alert = policy.alert();
            if alerts.iter().any(|other| other.name == alert.name) {
                let name = &alert.name;
                let message = format!("expected different alert policies, got `{name}` twice");
                self.report.wrong(at, message, "findings are told apart by the policy's name");
            }
            alerts.push(alert);
        }
        alerts
    }

    fn policy(&mut self, item: Tree) -> Option<Policy> {
        let mut fields = Fields::of(item, "an alert policy", self.report)?;
        if let Some(name) = fields.text("alertPolicyRef", self.report) {
            fields.finish(self.report);
            return self.documents.policy(&name, self.report);
        }
        is_kind(&mut fields, Kind::AlertPolicy, self.report);
        let meta = Meta::read(&mut fields, self.report);
        let spec = fields.need_fields("spec", self.report);
        fields.finish(self.report);
        policy(&meta?, spec?, self.documents, self.report)
    }
}

impl Policy {
    fn alert(self) -> Alert {
        let condition = self.condition;
        Alert {
            name: self.name,
            severity: severity_of(&condition.severity_word),
            severity_word: condition.severity_word,
            op: condition.op,
            threshold: condition.threshold,
            long_min: condition.lookback_min,
            short_min: condition.lookback_min,
            after_min: condition.after_min,
            when_breaching: self.when_breaching,
            when_resolved: self.when_resolved,
            when_no_data: self.when_no_data,
            targets: self.targets,
            is_usual: false,
        }
    }
}

/// Severities are any word in OpenSLO; these are the usual ones.
fn severity_of(word: &str) -> FindingSeverity {
    match word.to_lowercase().as_str() {
        "page" | "critical" | "crit" | "emergency" | "urgent" | "high" | "sev0" | "sev1" | "p0"
        | "p1" => FindingSeverity::Critical,
        "info" | "low" | "none" | "notice" | "sev4" | "sev5" | "p4" | "p5" => FindingSeverity::Info,
        _ => FindingSeverity::Warning,
    }
}

/// Reads the `spec` of a policy.
pub(super) fn policy(
    meta: &Meta,
    mut spec: Fields,
    documents: &mut Documents,
    report: &mut Report<'_>,
) -> Option<Policy> {
    super::description(&mut spec, report);
    let when_breaching = spec.flag("alertWhenBreaching", report).unwrap_or(true);
    let when_resolved = spec.flag("alertWhenResolved", report).unwrap_or(false);
    let when_no_data = spec.flag("alertWhenNoData", report).unwrap_or(false);
    let conditions = spec.need("conditions", report);
    let at = conditions.as_ref().map_or(spec.at, |tree| tree.at);
    let is_there = conditions.is_some();
    let conditions = conditions.map(|tree| list_of(tree, "conditions", report)).unwrap_or_default();
    let count = conditions.len();
    let mut conditions = conditions.into_iter();
    let condition = match (conditions.next(), conditions.next()) {
        (Some(only), None) => one_condition(only, documents, report),
        _ => {
            if is_there {
                let message = format!("expected exactly one condition in a policy, got {count}");
                report.wrong(at, message, "write a policy for each");
            }
            None
        }
    };
    let targets = spec.list("notificationTargets", report);
    let targets: Vec<String> =
        targets.into_iter().filter_map(|item| one_target(item, documents, report)).collect();
    spec.finish(report);
    let name = meta.name.text.clone();
    let condition = condition?;
    Some(Policy { name, condition, when_breaching, when_resolved, when_no_data, targets })
}

fn one_condition(
    item: Tree,
    documents: &mut Documents,
    report: &mut Report<'_>,
) -> Option<Condition> {
    let mut fields = Fields::of(item, "a condition", report)?;
    if let Some(name) = fields.text("conditionRef", report) {
        fields.finish(report);
        return documents.condition(&name, report);
    }
    is_kind(&mut fields, Kind::AlertCondition, report);
    if fields.has("metadata") {
        Meta::read(&mut fields, report);
    }
    let spec = fields.need_fields("spec", report);
    fields.finish(report);
    condition(spec?, report)
}

/// Reads the `spec` of a condition.
pub(super) fn condition(mut spec: Fields, report: &mut Report<'_>) -> Option<Condition> {
    super::description(&mut spec, report);
    let severity = spec.need_text("severity", report);
    let condition = spec.need_fields("condition", report);
    spec.finish(report);
    let mut fields = condition?;
    if let Some(kind) = fields.text("kind", report)
        && kind.text != "burnrate"
    {
        let message = format!("expected `kind: burnrate`, got `{}`", kind.text);
        report.wrong(kind.at, message, "OpenSLO v1 has no other kind of condition");
    }
    let op = match fields.text("op", report) {
        None => Some(Comparison::Gt),
        Some(word) => {
            let op = Comparison::from_text(&word.text);
            let op = op.filter(|op| matches!(op, Comparison::Gt | Comparison::Gte));
            if op.is_none() {
                let message = format!("expected `op` to be gt or gte, got `{}`", word.text);
                report.wrong(word.at, message, "a budget that burns slowly is no reason to alert");
            }
            op
        }
    };
    let threshold = fields.number("threshold", report);
    if threshold.is_none() && !fields.has_had("threshold") {
        fields.is_missing("`threshold`", report);
    }
    let lookback = fields.length("lookbackWindow", report);
    if lookback.is_none() && !fields.has_had("lookbackWindow") {
        fields.is_missing("`lookbackWindow`", report);
    }
    let after = fields.length("alertAfter", report);
    fields.finish(report);
    let (at, threshold) = threshold?;
    if threshold <= 0.0 {
        let message = format!("expected a burn rate above 0, got `{threshold}`");
        report.wrong(at, message, "1 uses the budget up exactly at the end of its window");
        return None;
    }
    let (at, length) = lookback?;
    let lookback_min = length.minutes().filter(|minutes| (1..=MAX_LOOKBACK_MIN).contains(minutes));
    if lookback_min.is_none() {
        let message = format!("expected `lookbackWindow` from 1m to 31d, got `{length}`");
        report.wrong(at, message, "");
    }
    let after_min = match after {
        None => Some(0),
        Some((at, length)) => {
            let minutes = length.minutes().filter(|minutes| *minutes <= MAX_ALERT_AFTER_MIN);
            if minutes.is_none() {
                let message = format!("expected `alertAfter` of at most 1d, got `{length}`");
                report.wrong(at, message, "");
            }
            minutes
        }
    };
    Some(Condition {
        severity_word: severity?.text,
        op: op?,
        threshold,
        lookback_min: lookback_min?,
        after_min: after_min?,
    })
}

fn one_target(item: Tree, documents: &mut Documents, report: &mut Report<'_>) -> Option<String> {
    let mut fields = Fields::of(item, "a notification target", report)?;
    if let Some(name) = fields.text("targetRef", report) {
        fields.finish(report);
        return documents.target(&name, report);
    }
    is_kind(&mut fields, Kind::AlertNotificationTarget, report);
    if fields.has("metadata") {
        Meta::read(&mut fields, report);
    }
    let spec = fields.need_fields("spec", report);
    fields.finish(report);
    target(spec?, report)
}

/// Reads the `spec` of a target: the name of the receiver.
pub(super) fn target(mut spec: Fields, report: &mut Report<'_>) -> Option<String> {
    super::description(&mut spec, report);
    let target = spec.need_text("target", report);
    spec.finish(report);
    target.map(|text| text.text.trim().to_owned())
}
