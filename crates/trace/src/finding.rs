//! What governance says and does: a [`Finding`] is what a rule saw, an [`Action`] what it asks for.
//! Both are values; only `act` has side effects.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{ContractStep, DecisionId, DirectiveAction, DirectiveTarget, RouteWeights, TraceId};

/// Characters of the id of a finding or an action at most.
pub const FINDING_ID_MAX_CHARS: usize = 256;

/// Traces that one finding names as evidence at most.
pub const MAX_EVIDENCE_TRACES: usize = 20;

/// How urgent a finding is, in the words of Alertmanager's usual `severity` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingSeverity {
    /// Worth knowing.
    Info,
    /// Somebody should look within days (the workbook's ticket).
    Warning,
    /// Somebody should look now (the workbook's page).
    Critical,
}

impl FindingSeverity {
    /// All of them, the least urgent first.
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Critical];

    /// `info`, `warning` or `critical`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// The severity of a name.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|severity| severity.as_str() == text)
    }
}

/// What a finding or an action is about: labels such as `agent`, `version`, `service`, `model`,
/// `slo`, `rollout`, in the order of their names. Two findings of one subject belong together.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Subject(pub BTreeMap<String, String>);

impl Subject {
    /// A subject of one label.
    pub fn of(name: &str, value: impl Into<String>) -> Self {
        Self::default().and(name, value)
    }

    /// The same with a further label.
    #[must_use]
    pub fn and(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// The value of a label.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl fmt::Display for Subject {
    /// `agent=fraud,version=v1.2.4`; part of ids.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, value)) in self.0.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(f, "{comma}{name}={value}")?;
        }
        Ok(())
    }
}

/// Whether what a finding tells still holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingState {
    /// It does.
    Firing,
    /// It does no longer.
    Resolved,
}

impl FindingState {
    /// `firing` or `resolved`, as Alertmanager says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

/// What a rule saw in a window of time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Made of rule, version, subject and the start of what it tells, so that the same finding has the
    /// same id however often the rule is evaluated.
    pub id: String,
    /// Name of the rule.
    pub rule: String,
    /// Version of the rule: a hash of its source.
    pub rule_version: String,
    /// What kind of thing it is: `slo.burn_rate`, `drift.latency`, `policy`, `contract.breach` …
    pub kind: String,
    /// What it is about.
    pub subject: Subject,
    /// How urgent.
    pub severity: FindingSeverity,
    /// Whether it still holds.
    pub state: FindingState,
    /// When it was first seen, nanoseconds since the Unix epoch.
    pub since_unix_nano: u64,
    /// When it was last evaluated, nanoseconds since the Unix epoch.
    pub at_unix_nano: u64,
    /// The telemetry that it was seen in: from, nanoseconds since the Unix epoch.
    pub from_unix_nano: u64,
    /// The telemetry that it was seen in: up to, nanoseconds since the Unix epoch.
    pub to_unix_nano: u64,
    /// One sentence for people, with the numbers that matter and their units.
    pub summary: String,
    /// The numbers by name; units are in the definitions.
    pub values: BTreeMap<String, f64>,
    /// How sure, 0 to 1; `None` when the rule does not say.
    pub confidence: Option<f64>,
    /// Traces that show it, at most [`MAX_EVIDENCE_TRACES`].
    pub evidence: Vec<TraceId>,
    /// Where the team's runbook is; empty when the rule has none.
    pub runbook: String,
}

/// What governance can have done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Operation {
    /// Tell running agents.
    Directive {
        /// Whom.
        target: DirectiveTarget,
        /// What they shall do.
        action: DirectiveAction,
        /// How long it holds, seconds.
        ttl_s: u64,
    },
    /// Divide the traffic of a route anew, everywhere where it is known.
    Weights {
        /// The new weights.
        weights: RouteWeights,
    },
    /// Give a version the first share of a rollout.
    Start {
        /// The rollout.
        rollout: String,
        /// The version that is tried.
        version: String,
    },
    /// Put a rollout back to its last stable version.
    RollBack {
        /// The rollout.
        rollout: String,
    },
    /// Go on with a rollout's next step.
    Advance {
        /// The rollout.
        rollout: String,
    },
    /// No new strategies, versions or experiments for a subject.
    Freeze {
        /// How long it holds, seconds; a person can lift it earlier.
        ttl_s: u64,
    },
    /// Find out what the bad traces have in common.
    Investigate,
    /// Ask a person: the case goes to the queue of human takeovers.
    HandOver {
        /// Whom; empty for anybody.
        to: String,
    },
    /// Tell a configured receiver (webhook, Slack, Alertmanager).
    Notify {
        /// Name of the receiver.
        receiver: String,
    },
    /// Start a workflow (Argo) of a configured name.
    Workflow {
        /// Name of the configured workflow.
        workflow: String,
        /// Its parameters.
        parameters: BTreeMap<String, String>,
    },
    /// A step in the negotiation of a contract between services.
    Contract {
        /// Name of the contract.
        contract: String,
        /// Which.
        #[serde(flatten)]
        step: ContractStep,
    },
}

impl Operation {
    /// The `type` of each.
    pub const KINDS: [&str; 11] = [
        "directive",
        "weights",
        "start",
        "roll_back",
        "advance",
        "freeze",
        "investigate",
        "hand_over",
        "notify",
        "workflow",
        "contract",
    ];

    /// Its `type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Directive { .. } => "directive",
            Self::Weights { .. } => "weights",
            Self::Start { .. } => "start",
            Self::RollBack { .. } => "roll_back",
            Self::Advance { .. } => "advance",
            Self::Freeze { .. } => "freeze",
            Self::Investigate => "investigate",
            Self::HandOver { .. } => "hand_over",
            Self::Notify { .. } => "notify",
            Self::Workflow { .. } => "workflow",
            Self::Contract { .. } => "contract",
        }
    }
}

/// What a rule asks for. It is done once, whatever is restarted: its id is what makes it one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// Made of rule, version, subject, operation and window.
    pub id: String,
    /// The finding that led to it; empty when a person asked.
    pub finding: String,
    /// Name of the rule; empty when a person asked.
    pub rule: String,
    /// Version of the rule.
    pub rule_version: String,
    /// What it is about.
    pub subject: Subject,
    /// When it was asked for, nanoseconds since the Unix epoch.
    pub at_unix_nano: u64,
    /// What to do.
    pub operation: Operation,
    /// Why, one sentence for people.
    pub reason: String,
    /// Traces that justify it.
    pub evidence: Vec<TraceId>,
    /// The same rule asks nothing of this subject again for so long, seconds.
    pub cool_down_s: u64,
    /// Whether it is only told what would have been done.
    pub is_dry_run: bool,
}

/// Before the name of a person in the reason of an action.
const ASKED_BY: &str = "asked by ";

impl Action {
    /// What a person asks for at a moment, nanoseconds since the Unix epoch; with an id of its own, of no
    /// rule, and with nothing that holds it back.
    pub fn of_person(
        (by, reason): (&str, &str),
        subject: Subject,
        operation: Operation,
        at_unix_nano: u64,
    ) -> Self {
        Self {
            id: format!("person/{}", DecisionId::random()),
            finding: String::new(),
            rule: String::new(),
            rule_version: String::new(),
            subject,
            at_unix_nano,
            operation,
            reason: format!("{ASKED_BY}{by}: {reason}"),
            evidence: Vec::new(),
            cool_down_s: 0,
            is_dry_run: false,
        }
    }

    /// The person who asked for it; `None` when it was a rule.
    pub fn person(&self) -> Option<&str> {
        let by = self.reason.strip_prefix(ASKED_BY).and_then(|rest| rest.split(": ").next());
        self.rule.is_empty().then(|| by.unwrap_or("a person"))
    }
}

/// The id of what a rule says of a subject from a time on: the same words, the same id.
pub fn finding_id(rule: &str, version: &str, subject: &Subject, from_unix_nano: u64) -> String {
    let seconds = from_unix_nano / 1_000_000_000;
    let id = format!("{rule}/{version}/{subject}/{seconds}");
    if id.chars().count() <= FINDING_ID_MAX_CHARS {
        return id;
    }
    // The end tells windows apart, so it is the subject that is cut and stands as a hash.
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let head: String = id.chars().take(FINDING_ID_MAX_CHARS - 60).collect();
    format!("{head}~{hash:016x}/{seconds}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_the_same_for_the_same_and_never_too_long() {
        let subject = Subject::of("version", "v2").and("agent", "fraud");
        let id = finding_id("latency", "3f", &subject, 1_764_143_700_000_000_000);
        assert_eq!(id, "latency/3f/agent=fraud,version=v2/1764143700");
        let long = |end: &str| {
            let subject = Subject::of("agent", format!("{}{end}", "a".repeat(400)));
            finding_id("latency", "3f", &subject, 1_764_143_700_000_000_000)
        };
        assert!(long("x").chars().count() <= FINDING_ID_MAX_CHARS);
        assert_ne!(long("x"), long("y"));
    }
}
