//! Signals of a team's own beyond their levels, as findings.

use std::collections::BTreeMap;

use throughline_trace::{Finding, FindingSeverity, FindingState, Subject, finding_id};

use super::episode::{OPEN_FORGET_MIN, Turn};
use super::evaluate::{MINUTE_NANOS, PolicyState, SECOND_NANOS, withdraw};
use crate::signals::{CompositeSignal, CompositeValue, Level};

/// Kind of the findings about signals.
pub const SIGNAL_KIND: &str = "signal";

/// Looks at the value of a signal in a minute (since the Unix epoch) and answers what to remember, and
/// what fires or ended. `parts` are the values of its indicators. A value that is missing says nothing.
pub fn watch_signal(
    signal: &CompositeSignal,
    minute: u64,
    value: &CompositeValue,
    parts: &BTreeMap<String, f64>,
    state: PolicyState,
) -> (PolicyState, Vec<Finding>) {
    let (version, at) = (signal.version(), minute * MINUTE_NANOS);
    let mut findings = Vec::new();
    let mut state = if state.version == version {
        state
    } else {
        findings.extend(withdraw(state, at));
        PolicyState { version, ..PolicyState::default() }
    };
    let is_beyond = value.level.map(|level| level != Level::Ok);
    let since = match state.episode.step(minute, is_beyond, 0) {
        Turn::Begins => minute,
        Turn::GoesOn(since) => since,
        turn @ (Turn::Ends | Turn::Forgotten) => {
            findings.extend(state.open.take().map(|open| over(signal, open, at, (turn, value))));
            return (state, findings);
        }
        Turn::Same | Turn::Quiet | Turn::Waiting | Turn::Unknown => return (state, findings),
    };
    if let (Some(number), Some(level)) = (value.value, value.level) {
        let finding = beyond(signal, &state.version, (since, at), (number, level), parts);
        state.open = Some(finding.clone());
        findings.push(finding);
    }
    (state, findings)
}

fn beyond(
    signal: &CompositeSignal,
    version: &str,
    (since_min, at_unix_nano): (u64, u64),
    (number, level): (f64, Level),
    parts: &BTreeMap<String, f64>,
) -> Finding {
    let (subject, rule) = (Subject::of("signal", &*signal.name), format!("signal:{}", signal.name));
    let since_unix_nano = since_min * MINUTE_NANOS;
    let (severity, word) = match level {
        Level::Critical => (FindingSeverity::Critical, "critical"),
        _ => (FindingSeverity::Warning, "a warning"),
    };
    let told = parts.iter().map(|(name, value)| format!("{name} {value:.3}"));
    let mut values = parts.clone();
    values.insert(signal.name.clone(), number);
    Finding {
        id: finding_id(&rule, version, &subject, since_unix_nano),
        rule,
        rule_version: version.to_owned(),
        kind: SIGNAL_KIND.to_owned(),
        subject,
        severity,
        state: FindingState::Firing,
        since_unix_nano,
        at_unix_nano,
        from_unix_nano: at_unix_nano.saturating_sub(signal.window_s * SECOND_NANOS),
        to_unix_nano: at_unix_nano,
        summary: format!(
            "{} is {number:.3}, which is {word}: {}",
            signal.name,
            told.collect::<Vec<_>>().join(", ")
        ),
        values,
        confidence: None,
        evidence: Vec::new(),
        runbook: String::new(),
    }
}

fn over(
    signal: &CompositeSignal,
    open: Finding,
    at_unix_nano: u64,
    (turn, value): (Turn, &CompositeValue),
) -> Finding {
    let summary = match (turn, value.value) {
        (Turn::Ends, Some(number)) => format!("{} is {number:.3} again", signal.name),
        _ => format!("{}: nothing was known for {OPEN_FORGET_MIN} minutes", signal.name),
    };
    Finding {
        state: FindingState::Resolved,
        at_unix_nano,
        to_unix_nano: at_unix_nano,
        summary,
        ..open
    }
}
