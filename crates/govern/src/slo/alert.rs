//! Alerts on the burn rate: two windows, a threshold, and an end that is not the first good minute.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use throughline_trace::{
    Action, Finding, FindingSeverity, FindingState, Operation, Subject, finding_id,
};

use super::budget::Burn;
use super::duration::Length;
use super::evaluate::{Said, Step};
use super::indicator::MINUTE_NANOS;
use super::model::{Alert, Objective, Slo};

/// Kind of the findings that tell that a budget burns.
pub const BURN_KIND: &str = "slo.burn_rate";

/// Kind of the findings that tell that there is nothing to judge.
pub const NO_DATA_KIND: &str = "slo.no_data";

/// What an alert remembers between evaluations.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AlertState {
    /// The minute since which the condition holds, while it does not fire yet.
    pending_min: Option<u64>,
    /// What fires.
    open: Option<Finding>,
    /// The last minute in which something was measured while it fires.
    measured_min: u64,
    /// The minute since which there was nothing to judge.
    missing_min: Option<u64>,
    /// What tells that.
    missing: Option<Finding>,
}

impl AlertState {
    /// Whether it fires because the budget burns.
    pub(super) fn is_burning(&self) -> bool {
        self.open.is_some()
    }

    /// What fires.
    pub(super) fn into_open(self) -> impl Iterator<Item = Finding> {
        self.open.into_iter().chain(self.missing)
    }

    /// Minutes were not looked at: nobody knows whether the condition held.
    pub(super) fn wait_anew(&mut self) {
        (self.pending_min, self.missing_min) = (None, None);
    }

    /// Looks at one minute.
    pub(super) fn step(&mut self, step: &Step<'_>, alert: &Alert, said: &mut Said) {
        let min_events = step.slo.min_events as f64;
        let long = step.burn(alert.long_min, min_events);
        let short = match alert.short_min == alert.long_min {
            true => long,
            // That the long window has enough is enough: the short one says that it goes on.
            false => step.burn(alert.short_min, f64::MIN_POSITIVE),
        };
        if alert.when_breaching {
            match self.open.take() {
                Some(open) => self.go_on(open, step, alert, (long, short), said),
                None => self.wait(step, alert, (long, short), said),
            }
        }
        if alert.when_no_data {
            self.miss(step, alert, long, said);
        }
    }

    /// It does not fire.
    fn wait(&mut self, step: &Step<'_>, alert: &Alert, burn: (Burn, Burn), said: &mut Said) {
        let (Burn::Rate(long), Burn::Rate(short)) = burn else {
            // What cannot be judged is no reason to fire, nor to go on waiting.
            self.pending_min = None;
            return;
        };
        if !(alert.op.holds(long, alert.threshold) && alert.op.holds(short, alert.threshold)) {
            self.pending_min = None;
            return;
        }
        let since = *self.pending_min.get_or_insert(step.minute);
        if step.minute - since < alert.after_min {
            return;
        }
        self.pending_min = None;
        self.measured_min = step.minute;
        let finding = finding(step, alert, step.at_unix_nano(), (long, short));
        said.actions.extend(notices(&finding, alert, "notify"));
        said.find(finding.clone());
        self.open = Some(finding);
    }

    /// It fires: it is over when the short window is quiet. A window without events is not quiet but
    /// silent; only when the long window has passed in silence there is nothing left to tell.
    fn go_on(
        &mut self,
        open: Finding,
        step: &Step<'_>,
        alert: &Alert,
        burn: (Burn, Burn),
        said: &mut Said,
    ) {
        let since = open.since_unix_nano;
        let mut finding = match burn {
            (Burn::Rate(long), Burn::Rate(short)) => finding(step, alert, since, (long, short)),
            _ => Finding { at_unix_nano: step.at_unix_nano(), ..open },
        };
        match burn.1 {
            Burn::Rate(short) => {
                self.measured_min = step.minute;
                if !alert.op.holds(short, alert.threshold) {
                    finding.state = FindingState::Resolved;
                    finding.values.insert("burn_rate_short".to_owned(), short);
                    finding.summary = format!(
                        "{} is over: the burn rate of {} is {short:.2}, not over {}",
                        named(step.slo, step.objective),
                        Length::of_minutes(alert.short_min),
                        alert.threshold
                    );
                }
            }
            _ if step.minute - self.measured_min >= alert.long_min => {
                finding.state = FindingState::Resolved;
                finding.summary = format!(
                    "{}: nothing was measured for {}, so that nothing is known to burn",
                    named(step.slo, step.objective),
                    Length::of_minutes(alert.long_min)
                );
            }
            _ => {}
        }
        if finding.state == FindingState::Resolved {
            if alert.when_resolved {
                said.actions.extend(notices(&finding, alert, "resolved"));
            }
        } else {
            self.open = Some(finding.clone());
        }
        said.find(finding);
    }

    /// Tells that there is nothing to judge, which asks for nothing.
    fn miss(&mut self, step: &Step<'_>, alert: &Alert, long: Burn, said: &mut Said) {
        if long.rate().is_some() {
            self.missing_min = None;
            if let Some(mut finding) = self.missing.take() {
                finding.state = FindingState::Resolved;
                finding.at_unix_nano = step.at_unix_nano();
                said.find(finding);
            }
            return;
        }
        let since = *self.missing_min.get_or_insert(step.minute);
        if step.minute - since < alert.after_min {
            return;
        }
        let since =
            self.missing.as_ref().map_or(step.at_unix_nano(), |known| known.since_unix_nano);
        let why = match long {
            Burn::NotCovered => "the counters are not whole",
            _ => "fewer events than mean anything",
        };
        let finding = Finding {
            kind: NO_DATA_KIND.to_owned(),
            severity: FindingSeverity::Info,
            summary: format!(
                "{} cannot be judged over {}: {why}",
                named(step.slo, step.objective),
                Length::of_minutes(alert.long_min)
            ),
            values: BTreeMap::new(),
            confidence: None,
            ..base(step, &format!("{}:no-data", alert.name), since, alert.long_min)
        };
        said.find(finding.clone());
        self.missing = Some(finding);
    }
}

/// `checkout-answers (99.9)`, for people.
pub(super) fn named(slo: &Slo, objective: &Objective) -> String {
    format!("{} ({})", slo.name, objective.name)
}

/// A finding about an objective, without what it says.
pub(super) fn base(step: &Step<'_>, part: &str, since_unix_nano: u64, minutes: u64) -> Finding {
    let (slo, objective) = (step.slo, step.objective);
    let rule = format!("slo:{}:{part}", slo.name);
    let subject = Subject::of("slo", slo.name.as_str())
        .and("objective", objective.name.as_str())
        .and("service", slo.service.as_str());
    // Whom it is about, for what is done about it.
    let labels = objective.indicator.labels().iter();
    let subject = labels.fold(subject, |subject, (name, value)| subject.and(name, value.as_str()));
    Finding {
        id: finding_id(&rule, &slo.version, &subject, since_unix_nano),
        rule,
        rule_version: slo.version.clone(),
        kind: BURN_KIND.to_owned(),
        subject,
        severity: FindingSeverity::Warning,
        state: FindingState::Firing,
        since_unix_nano,
        at_unix_nano: step.at_unix_nano(),
        from_unix_nano: step.minute.saturating_sub(minutes) * MINUTE_NANOS,
        to_unix_nano: step.at_unix_nano(),
        summary: String::new(),
        values: BTreeMap::new(),
        confidence: None,
        evidence: Vec::new(),
        runbook: slo.runbook.clone(),
    }
}

/// The numbers of the budget, for a finding.
pub(super) fn budget_values(step: &Step<'_>, burn: f64) -> BTreeMap<String, f64> {
    let measured = step.measured(super::evaluate::RECENT_MIN);
    let mut values = BTreeMap::from([
        ("target".to_owned(), step.objective.target),
        ("burn_rate".to_owned(), burn),
        ("events_1h".to_owned(), measured.events),
    ]);
    if let Some(ratio) = measured.error_ratio() {
        values.insert("error_ratio_1h".to_owned(), ratio);
    }
    values
}

fn finding(step: &Step<'_>, alert: &Alert, since: u64, (long, short): (f64, f64)) -> Finding {
    let mut values = budget_values(step, long);
    values.insert("burn_rate_short".to_owned(), short);
    values.insert("threshold".to_owned(), alert.threshold);
    let (long_text, short_text) =
        (Length::of_minutes(alert.long_min), Length::of_minutes(alert.short_min));
    let also = match alert.long_min == alert.short_min {
        true => String::new(),
        false => format!(" and {short:.2} times over {short_text}"),
    };
    Finding {
        severity: alert.severity,
        summary: format!(
            "{}: the error budget burns {long:.2} times as fast as it may over {long_text}{also} (alert over {})",
            named(step.slo, step.objective),
            alert.threshold
        ),
        values,
        ..base(step, &alert.name, since, alert.long_min)
    }
}

/// One notice for each receiver. They have no cool-down: that of one would silence the others, and an
/// alert that fires again has gone through its own end.
fn notices(finding: &Finding, alert: &Alert, why: &str) -> Vec<Action> {
    let notice = |receiver: &String| {
        let rule = format!("{}:{why}:{receiver}", finding.rule);
        Action {
            id: finding_id(&rule, &finding.rule_version, &finding.subject, finding.since_unix_nano),
            finding: finding.id.clone(),
            rule: finding.rule.clone(),
            rule_version: finding.rule_version.clone(),
            subject: finding.subject.clone(),
            at_unix_nano: finding.at_unix_nano,
            operation: Operation::Notify { receiver: receiver.clone() },
            reason: finding.summary.clone(),
            evidence: Vec::new(),
            cool_down_s: 0,
            is_dry_run: false,
        }
    };
    alert.targets.iter().map(notice).collect()
}
