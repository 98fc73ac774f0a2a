//! How drift is told: what fires, what ended, and that the cause is asked for.

use throughline_trace::{
    Action, Finding, FindingSeverity, FindingState, Operation, Subject, TraceId, finding_id,
};

use super::{Drifted, Watches};
use crate::detect::{AlarmState, Detection};

/// Version of the rule: of its thresholds.
const VERSION: &str = "1";

impl Drifted {
    pub(super) fn say(
        &mut self,
        agent: &str,
        of: Watches,
        detection: &Detection,
        evidence: &[TraceId],
    ) {
        let kind = of.kind();
        let reading = &detection.reading;
        if !reading.is_enough {
            // The alarm stays as it is, and what was found with it: there is nothing new to tell.
            return;
        }
        let subject = Subject::of("agent", agent);
        let id = finding_id(kind, VERSION, &subject, detection.since_unix_nano);
        let name = of.signal();
        let told = format!("{}, usually {}", of.told(reading.observed), of.told(reading.expected));
        let is_on = detection.state == AlarmState::Firing;
        let summary = match is_on {
            true => format!("{name} of {agent} drifted: {told} ({} events)", reading.count),
            false => format!("{name} of {agent} is as usual again: {told}"),
        };
        self.findings.push(Finding {
            id: id.clone(),
            rule: kind.to_owned(),
            rule_version: VERSION.to_owned(),
            kind: kind.to_owned(),
            subject: subject.clone(),
            severity: FindingSeverity::Warning,
            state: if is_on { FindingState::Firing } else { FindingState::Resolved },
            since_unix_nano: detection.since_unix_nano,
            at_unix_nano: detection.at_unix_nano,
            from_unix_nano: detection.since_unix_nano,
            to_unix_nano: detection.at_unix_nano,
            summary: summary.clone(),
            values: [
                ("observed", Some(of.in_unit(reading.observed))),
                ("expected", Some(of.in_unit(reading.expected))),
                ("effect", Some(reading.effect)),
                ("p_value", reading.p_value),
            ]
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect(),
            // How unlikely the data are without a drift is not how likely a drift is.
            confidence: None,
            evidence: evidence.to_vec(),
            runbook: String::new(),
        });
        if is_on {
            self.actions.push(Action {
                // Once an alarm: the id is that of its beginning.
                id: format!("investigate/{id}"),
                finding: id,
                rule: kind.to_owned(),
                rule_version: VERSION.to_owned(),
                subject,
                at_unix_nano: detection.at_unix_nano,
                operation: Operation::Investigate,
                reason: summary,
                evidence: evidence.to_vec(),
                cool_down_s: INVESTIGATION_COOL_DOWN_S,
                is_dry_run: false,
            });
        }
    }
}

/// The cause of one agent's drift is looked for so often at most, seconds.
const INVESTIGATION_COOL_DOWN_S: u64 = 600;
