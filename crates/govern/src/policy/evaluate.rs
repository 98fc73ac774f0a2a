//! Evaluating a policy: the values of a minute and what is remembered go in, findings and actions come
//! out.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use throughline_trace::{Action, Finding, FindingState, MAX_EVIDENCE_TRACES, finding_id};

use super::episode::{Episode, OPEN_FORGET_MIN, Turn};
use super::names::{Use, Values};
use super::operations::Todo;
use super::spec::Policy;
use crate::signals::definition;

/// Kind of the findings of policies.
pub const POLICY_KIND: &str = "policy";

/// Nanoseconds of a minute.
pub(super) const MINUTE_NANOS: u64 = 60_000_000_000;

/// Nanoseconds of a second.
pub(super) const SECOND_NANOS: u64 = 1_000_000_000;

/// Seconds of a minute.
const MINUTE_S: u64 = 60;

/// What a policy, or a signal with levels, remembers between minutes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PolicyState {
    /// Version of the policy that it belongs to.
    pub version: String,
    /// How long it holds.
    pub episode: Episode,
    /// What fires.
    pub open: Option<Finding>,
}

/// How a policy is, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyPhase {
    /// It does not hold.
    Quiet,
    /// It holds, and not for long enough.
    Waiting,
    /// It fires.
    Firing,
    /// It cannot be told.
    Unknown,
}

impl PolicyPhase {
    /// `quiet`, `waiting`, `firing` or `unknown`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Waiting => "waiting",
            Self::Firing => "firing",
            Self::Unknown => "unknown",
        }
    }
}

/// How a policy is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PolicyStatus {
    /// Its name.
    pub policy: String,
    /// Whom it is about, as in `agent=payment`.
    pub subject: String,
    /// Its condition.
    pub when: String,
    /// What the condition speaks of, each with its value; `None` for what is missing.
    pub values: BTreeMap<String, Option<f64>>,
    /// In a word.
    pub phase: PolicyPhase,
    /// Since when it fires, nanoseconds since the Unix epoch.
    pub since_unix_nano: Option<u64>,
    /// Why it cannot be told; empty when it can.
    pub unknown: String,
    /// Whether it is only told what would be done.
    pub is_dry_run: bool,
}

/// What an evaluation gives. State, findings and actions are to be committed together.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyEvaluated {
    /// What to pass in next time.
    pub state: PolicyState,
    /// How it is.
    pub status: PolicyStatus,
    /// What fires, and what ended.
    pub findings: Vec<Finding>,
    /// What is asked for. An id that was told before is the same action.
    pub actions: Vec<Action>,
}

/// Evaluates a policy with the values of the time before a minute (minutes since the Unix epoch). A
/// minute that was evaluated before says nothing.
///
/// While it fires it asks for the same actions with every minute: each is done once, by its id; one that
/// was held back by a cool-down is done when that is over, and a freeze or directive is asked for anew when
/// its time is over.
pub fn evaluate(
    policy: &Policy,
    minute: u64,
    values: &Values,
    state: PolicyState,
) -> PolicyEvaluated {
    let mut findings = Vec::new();
    let mut state = if state.version == policy.version {
        state
    } else {
        findings.extend(withdraw(state, minute * MINUTE_NANOS));
        PolicyState { version: policy.version.clone(), ..PolicyState::default() }
    };
    let verdict = policy.condition.verdict(policy, minute, values);
    let holds = verdict.as_ref().ok().map(|verdict| verdict.holds);
    let turn = state.episode.step(minute, holds, policy.for_min);
    let messages = verdict.as_ref().map(|verdict| verdict.messages.as_str()).unwrap_or_default();
    let told = Told { policy, minute, values, messages };
    let mut actions = Vec::new();
    match turn {
        Turn::Begins | Turn::GoesOn(_) => {
            let since = if let Turn::GoesOn(since) = turn { since } else { minute };
            let finding = told.firing(since);
            actions = told.actions(&finding, since);
            findings.push(finding.clone());
            state.open = Some(finding);
        }
        Turn::Ends | Turn::Forgotten => {
            findings.extend(state.open.take().map(|open| told.over(open, turn)));
        }
        Turn::Same | Turn::Quiet | Turn::Waiting | Turn::Unknown => {}
    }
    let unknown = verdict.as_ref().err();
    let status = told.status(&state, unknown);
    PolicyEvaluated { state, status, findings, actions }
}

/// What still fires of a policy that is no more, resolved; the time is nanoseconds since the Unix epoch.
pub fn withdraw(state: PolicyState, now_unix_nano: u64) -> Option<Finding> {
    state.open.map(|open| Finding {
        state: FindingState::Resolved,
        at_unix_nano: now_unix_nano.max(open.at_unix_nano),
        summary: format!("{}; the policy was changed or taken away", open.summary),
        ..open
    })
}

/// What is told of one minute.
struct Told<'a> {
    policy: &'a Policy,
    minute: u64,
    values: &'a Values,
    /// What the condition says of itself; empty when it does not.
    messages: &'a str,
}

impl Told<'_> {
    fn at_unix_nano(&self) -> u64 {
        self.minute * MINUTE_NANOS
    }

    fn rule(&self) -> String {
        format!("policy:{}", self.policy.name)
    }

    /// The values of what the condition speaks of, with their units, for people.
    fn numbers(&self) -> String {
        let told = self.policy.uses().iter().filter_map(|one| {
            let value = self.values.known.get(one)?;
            let unit = match one {
                Use::Signal(name) => match definition(*name).unit {
                    unit @ ("s" | "%") => format!(" {unit}"),
                    _ => String::new(),
                },
                _ => String::new(),
            };
            Some(format!("{one} {value:.3}{unit}"))
        });
        told.collect::<Vec<_>>().join(", ")
    }

    /// Of the first budget that the condition speaks of.
    fn consumption(&self) -> Option<f64> {
        let mut uses = self.policy.uses().iter();
        let budget = uses.find(|one| matches!(one, Use::Budget(_)))?;
        self.values.known.get(budget).copied()
    }

    fn known(&self) -> BTreeMap<String, f64> {
        let uses = self.policy.uses().iter();
        uses.filter_map(|one| Some((one.to_string(), *self.values.known.get(one)?))).collect()
    }

    /// The longest time that the values may be of, nanoseconds.
    fn window_nanos(&self) -> u64 {
        let own = self.policy.uses().iter().map(|one| match one {
            Use::Signal(name) => definition(*name).window_s,
            _ => 0,
        });
        let seconds = self.policy.window_s.or_else(|| own.max()).unwrap_or(0);
        seconds.max(MINUTE_S) * SECOND_NANOS
    }

    fn firing(&self, since_min: u64) -> Finding {
        let policy = self.policy;
        let (rule, since_unix_nano) = (self.rule(), since_min * MINUTE_NANOS);
        let lasting = match policy.for_min {
            0 => String::new(),
            minutes => format!(" for {minutes} minutes and more"),
        };
        let summary = match (&policy.promise, self.consumption()) {
            (Some(promise), Some(consumption)) => promise.broken(consumption),
            _ if !self.messages.is_empty() => {
                let said = self.messages;
                format!("{} holds{lasting}: {said} ({})", policy.name, self.numbers())
            }
            _ => format!("{} holds{lasting}: {} ({})", policy.name, self.numbers(), policy.when()),
        };
        Finding {
            id: finding_id(&rule, &policy.version, &policy.subject, since_unix_nano),
            rule,
            rule_version: policy.version.clone(),
            kind: POLICY_KIND.to_owned(),
            subject: policy.subject.clone(),
            severity: policy.severity,
            state: FindingState::Firing,
            since_unix_nano,
            at_unix_nano: self.at_unix_nano(),
            from_unix_nano: since_unix_nano.saturating_sub(self.window_nanos()),
            to_unix_nano: self.at_unix_nano(),
            summary,
            values: self.known(),
            confidence: None,
            evidence: self.values.evidence.iter().take(MAX_EVIDENCE_TRACES).copied().collect(),
            runbook: policy.runbook.clone(),
        }
    }

    fn over(&self, open: Finding, turn: Turn) -> Finding {
        let name = &self.policy.name;
        let (summary, values) = match turn {
            Turn::Forgotten => {
                let told = "nothing was known for";
                (
                    format!(
                        "{name}: {told} {OPEN_FORGET_MIN} minutes, so that nothing is known to hold"
                    ),
                    open.values,
                )
            }
            _ => {
                let summary = match (&self.policy.promise, self.consumption()) {
                    (Some(promise), Some(consumption)) => promise.kept(consumption),
                    _ => format!("{name} holds no longer: {}", self.numbers()),
                };
                (summary, self.known())
            }
        };
        Finding {
            state: FindingState::Resolved,
            at_unix_nano: self.at_unix_nano(),
            to_unix_nano: self.at_unix_nano(),
            summary,
            values,
            ..open
        }
    }

    fn actions(&self, finding: &Finding, since_min: u64) -> Vec<Action> {
        let mut kinds: HashMap<&str, usize> = HashMap::new();
        let mut action = |todo: &Todo| {
            let kind = todo.operation.kind();
            let number = kinds.entry(kind).and_modify(|known| *known += 1).or_insert(1);
            // A cool-down is of rule, subject and kind: two receivers must not silence each other.
            let rule = match *number {
                1 => finding.rule.clone(),
                number => format!("{}:{kind}:{number}", finding.rule),
            };
            // What was done holds for a time; when that is over it is another action.
            let lasted_s = self.minute.saturating_sub(since_min) * MINUTE_S;
            let renewed = todo.holds_s().map_or(0, |ttl_s| lasted_s / ttl_s.max(1) * ttl_s);
            let from = finding.since_unix_nano + renewed * SECOND_NANOS;
            let name = format!("{}:{kind}:{number}", finding.rule);
            Action {
                id: finding_id(&name, &finding.rule_version, &finding.subject, from),
                finding: finding.id.clone(),
                rule,
                rule_version: finding.rule_version.clone(),
                subject: finding.subject.clone(),
                at_unix_nano: finding.at_unix_nano,
                operation: todo.operation.clone(),
                reason: match todo.reason.is_empty() {
                    true => finding.summary.clone(),
                    false => format!("{}: {}", todo.reason, finding.summary),
                },
                evidence: finding.evidence.clone(),
                cool_down_s: self.policy.cool_down_s,
                is_dry_run: self.policy.is_dry_run,
            }
        };
        self.policy.todos.iter().map(&mut action).collect()
    }

    fn status(&self, state: &PolicyState, unknown: Option<&String>) -> PolicyStatus {
        let policy = self.policy;
        let since_unix_nano = state.episode.since_min().map(|since| since * MINUTE_NANOS);
        let phase = match unknown {
            _ if since_unix_nano.is_some() => PolicyPhase::Firing,
            Some(_) => PolicyPhase::Unknown,
            None if state.episode.held_min() > 0 => PolicyPhase::Waiting,
            None => PolicyPhase::Quiet,
        };
        let uses = policy.uses().iter();
        let values = uses.map(|one| (one.to_string(), self.values.known.get(one).copied()));
        PolicyStatus {
            policy: policy.name.clone(),
            subject: policy.subject.to_string(),
            when: policy.when().to_owned(),
            values: values.collect(),
            phase,
            since_unix_nano,
            unknown: unknown.cloned().unwrap_or_default(),
            is_dry_run: policy.is_dry_run,
        }
    }
}
