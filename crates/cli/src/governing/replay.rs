//! What rules would have said of a time that is over: each of its minutes is evaluated in turn, from what is
//! stored, as it would have been then. Nothing is committed, and nothing is done.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde::Serialize;
use throughline_act::Opa;
use throughline_govern::policy::{self, PolicyPhase, PolicyState, PolicyStatus, watch_signal};
use throughline_govern::slo::{self, MinuteTable, SloState};
use throughline_govern::{DriftWatch, Rules};
use throughline_trace::{Action, Finding, FindingState};

use super::policies::{Live, ask, questions};
use super::replay_rollouts::Replays;
use super::{MINUTE_NANOS, RoundError, SECOND_NANOS, Stores, drift};

/// Longest time that is replayed, minutes (a week).
pub(crate) const MAX_REPLAY_MIN: u64 = 7 * 24 * 60;

/// What would have happened.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Replayed {
    /// In the order of time.
    pub(crate) events: Vec<Event>,
    /// How each policy and contract was, by name.
    pub(crate) policies: BTreeMap<String, Minutes>,
}

/// Something that would have been told, and what would have been done at that moment.
#[derive(Debug, Serialize)]
pub(crate) struct Event {
    /// When, nanoseconds since the Unix epoch.
    pub(crate) at_unix_nano: u64,
    /// Which rule.
    pub(crate) rule: String,
    /// Id of the finding.
    pub(crate) finding: String,
    /// `firing` or `resolved`; `None` for what would have been done later, while it fired.
    pub(crate) state: Option<FindingState>,
    /// What it says.
    pub(crate) summary: String,
    /// What would have been done.
    pub(crate) actions: Vec<Taken>,
}

/// An action that would have been asked for.
#[derive(Debug, Serialize)]
pub(crate) struct Taken {
    /// What, in the words of the actions page.
    pub(crate) told: String,
    /// Why it would not have been done all the same: `cool_down` or `dry_run`.
    pub(crate) held_back: Option<&'static str>,
}

/// Minutes of a policy by how it was.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Minutes {
    pub(crate) quiet: u64,
    pub(crate) waiting: u64,
    pub(crate) firing: u64,
    pub(crate) unknown: u64,
    /// Why it could not be told the last time that it could not.
    pub(crate) why_unknown: String,
}

impl Minutes {
    fn add(&mut self, status: PolicyStatus) {
        match status.phase {
            PolicyPhase::Quiet => self.quiet += 1,
            PolicyPhase::Waiting => self.waiting += 1,
            PolicyPhase::Firing => self.firing += 1,
            PolicyPhase::Unknown => self.unknown += 1,
        }
        if !status.unknown.is_empty() {
            self.why_unknown = status.unknown;
        }
    }
}

/// Replays the minutes after the first up to the last, each with what was there before it; `tick` hears of
/// each. Counters of SLOs and contracts are given. Policies of an OPA are asked of it, as it is now; without one they are unknown.
pub(crate) async fn replay(
    rules: &Arc<Rules>,
    (stores, opa): (Stores<'_>, Option<&Opa>),
    counters: &MinuteTable,
    (from_min, to_min): (u64, u64),
    mut tick: impl FnMut(u64),
) -> Result<Replayed, RoundError> {
    let mut story = Story::default();
    let mut slos: Vec<SloState> = rules.slos.iter().map(|_| SloState::default()).collect();
    let mut policies: Vec<PolicyState> = vec![PolicyState::default(); rules.policies.len()];
    let mut signals: Vec<PolicyState> = vec![PolicyState::default(); rules.signals.len()];
    // Detectors know nothing when the time begins, as those of a server that is new.
    let mut drift_watch = DriftWatch::default();
    let mut rollouts = Replays::default();
    for minute in from_min + 1..=to_min {
        let mut statuses = Vec::new();
        for (slo, state) in rules.slos.iter().zip(&mut slos) {
            let done = slo::evaluate(slo, counters, minute * MINUTE_NANOS, std::mem::take(state));
            *state = done.state;
            statuses.extend(done.statuses);
            story.add(done.findings, done.actions);
        }
        let live = Live::read((rules, &statuses), stores, minute).await?;
        let mut values = live.of_policies();
        if let Some(opa) = opa {
            ask(opa, questions(rules, minute, &values), &mut values).await;
        }
        let states = values.iter().zip(&mut policies);
        for (policy, (values, state)) in rules.policies.values().zip(states) {
            let said = policy::evaluate(policy, minute, values, std::mem::take(state));
            *state = said.state;
            story.replayed.policies.entry(policy.name.clone()).or_default().add(said.status);
            story.add(said.findings, said.actions);
        }
        for (signal, state) in rules.signals.values().zip(&mut signals) {
            let Some((value, parts)) = live.of_signal(signal) else { continue };
            let (after, findings) =
                watch_signal(signal, minute, value, parts, std::mem::take(state));
            *state = after;
            story.add(findings, Vec::new());
        }
        let said;
        (drift_watch, said) = drift::observe_minute(drift_watch, stores.0, minute - 1).await?;
        story.add(said.findings, said.actions);
        let said;
        (drift_watch, said) = drift::observe_hour(drift_watch, stores, minute).await?;
        story.add(said.findings, said.actions);
        let said = rollouts.observe_minute(rules, stores.0, minute).await?;
        story.add(said.findings, said.actions);
        tick(minute - from_min);
    }
    Ok(story.replayed)
}

/// What is told once, as the store and the actor would.
#[derive(Default)]
struct Story {
    replayed: Replayed,
    /// The state that each finding was told in.
    findings: HashMap<String, FindingState>,
    /// Actions that were asked for, by id.
    asked: HashSet<String>,
    /// When something of a rule, subject and kind was done last, nanoseconds since the Unix epoch.
    done: HashMap<(String, String, &'static str), u64>,
}

impl Story {
    fn add(&mut self, findings: Vec<Finding>, actions: Vec<Action>) {
        let first = self.replayed.events.len();
        for finding in findings {
            if self.findings.insert(finding.id.clone(), finding.state) == Some(finding.state) {
                continue;
            }
            self.replayed.events.push(Event {
                at_unix_nano: finding.at_unix_nano,
                rule: finding.rule,
                finding: finding.id,
                state: Some(finding.state),
                summary: finding.summary,
                actions: Vec::new(),
            });
        }
        for action in actions {
            if self.asked.contains(&action.id) {
                continue;
            }
            let held_back = self.held_back(&action);
            // One that is held back is asked for again when that is over; it is told once all the same.
            let is_told = held_back == Some("cool_down") && self.is_told(&action);
            if held_back != Some("cool_down") {
                self.asked.insert(action.id.clone());
            }
            if is_told {
                continue;
            }
            let taken = Taken { told: throughline_act::told(&action.operation), held_back };
            let events = self.replayed.events.iter_mut().skip(first);
            match events.rev().find(|event| event.finding == action.finding) {
                Some(event) => event.actions.push(taken),
                None => self.replayed.events.push(Event {
                    at_unix_nano: action.at_unix_nano,
                    rule: action.rule,
                    finding: action.finding,
                    state: None,
                    summary: action.reason,
                    actions: vec![taken],
                }),
            }
        }
    }

    /// Why an action would not be done now; what is done is noted.
    fn held_back(&mut self, action: &Action) -> Option<&'static str> {
        if action.is_dry_run {
            return Some("dry_run");
        }
        let key = (action.rule.clone(), action.subject.to_string(), action.operation.kind());
        let rests = action.cool_down_s * SECOND_NANOS;
        if self.done.get(&key).is_some_and(|last| action.at_unix_nano < last + rests) {
            return Some("cool_down");
        }
        self.done.insert(key, action.at_unix_nano);
        None
    }

    /// Whether it was told before that this is held back; it counts as told from now on.
    fn is_told(&mut self, action: &Action) -> bool {
        !self.asked.insert(format!("held {}", action.id))
    }
}

#[cfg(test)]
mod tests {
    use throughline_trace::{FindingSeverity, Operation, Subject};

    use super::*;

    fn action(id: &str, minute: u64, is_dry_run: bool) -> Action {
        Action {
            id: id.to_owned(),
            finding: "f".to_owned(),
            rule: "policy:freeze".to_owned(),
            rule_version: "1".to_owned(),
            subject: Subject::default().and("agent", "payment"),
            at_unix_nano: minute * MINUTE_NANOS,
            operation: Operation::Freeze { ttl_s: 60 },
            reason: "it holds".to_owned(),
            evidence: Vec::new(),
            cool_down_s: 180,
            is_dry_run,
        }
    }

    fn finding(minute: u64) -> Finding {
        Finding {
            id: "f".to_owned(),
            rule: "policy:freeze".to_owned(),
            rule_version: "1".to_owned(),
            kind: "policy".to_owned(),
            subject: Subject::default().and("agent", "payment"),
            severity: FindingSeverity::Warning,
            state: FindingState::Firing,
            since_unix_nano: 10 * MINUTE_NANOS,
            at_unix_nano: minute * MINUTE_NANOS,
            from_unix_nano: 0,
            to_unix_nano: minute * MINUTE_NANOS,
            summary: "it holds".to_owned(),
            values: BTreeMap::new(),
            confidence: None,
            evidence: Vec::new(),
            runbook: String::new(),
        }
    }

    /// What is told of a story, a line an event: the minute, and what would have been done.
    fn told(story: Story) -> String {
        let line = |event: Event| {
            let minute = event.at_unix_nano / MINUTE_NANOS;
            let actions =
                event.actions.iter().map(|one| format!(" {} {:?}", one.told, one.held_back));
            format!("{minute} {:?}{}\n", event.state, actions.collect::<String>())
        };
        story.replayed.events.into_iter().map(line).collect()
    }

    #[test]
    fn what_is_asked_for_again_is_told_once_and_a_rest_is_kept() {
        let mut story = Story::default();
        story.add(vec![finding(10)], vec![action("a", 10, false)]);
        story.add(vec![finding(11)], vec![action("a", 11, false)]);
        // The freeze is renewed each minute; the cool-down is three.
        for minute in 11..=13 {
            story.add(Vec::new(), vec![action("b", minute, false)]);
        }
        insta::assert_snapshot!(told(story), @r#"
        10 Some(Firing) freeze for 60 s None
        11 None freeze for 60 s Some("cool_down")
        13 None freeze for 60 s None
        "#);
    }

    #[test]
    fn what_is_run_dry_is_told_as_such_and_rests_nothing() {
        let mut story = Story::default();
        story.add(vec![finding(10)], vec![action("a", 10, true)]);
        story.add(Vec::new(), vec![action("b", 11, false)]);
        insta::assert_snapshot!(told(story), @r#"
        10 Some(Firing) freeze for 60 s Some("dry_run")
        11 None freeze for 60 s None
        "#);
    }
}
