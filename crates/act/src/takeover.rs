//! The queue of human takeovers: cases that a rule wants a person to decide (requirement R5.6).

use serde::{Deserialize, Serialize};
use throughline_trace::{Action, DirectiveTarget, Subject, TraceId};

/// Kind of the documents.
pub(crate) const KIND: &str = "takeover";

/// How a case stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TakeoverState {
    /// Nobody decided yet.
    Waiting,
    /// A person takes over: the agents that are meant were told to hand over.
    Approved,
    /// The agent goes on.
    Rejected,
}

impl TakeoverState {
    /// `waiting`, `approved` or `rejected`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
        }
    }
}

/// One case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Takeover {
    /// The id of the action that asked for it.
    pub id: String,
    /// Who shall take over; empty for anybody.
    pub to: String,
    /// What it is about.
    pub subject: Subject,
    /// Why.
    pub reason: String,
    /// The rule that asked; empty when a person did.
    pub rule: String,
    /// Traces that show it.
    pub evidence: Vec<TraceId>,
    /// When it was asked for, nanoseconds since the Unix epoch.
    pub asked_unix_nano: u64,
    /// How it stands.
    pub state: TakeoverState,
    /// Who decided; empty while nobody did.
    pub decided_by: String,
    /// When, nanoseconds since the Unix epoch.
    pub decided_unix_nano: Option<u64>,
    /// What that person wrote about it.
    pub note: String,
}

impl Takeover {
    /// The case that an action opens.
    pub(crate) fn of(action: &Action, to: &str) -> Self {
        Self {
            id: action.id.clone(),
            to: to.to_owned(),
            subject: action.subject.clone(),
            reason: action.reason.clone(),
            rule: action.rule.clone(),
            evidence: action.evidence.clone(),
            asked_unix_nano: action.at_unix_nano,
            state: TakeoverState::Waiting,
            decided_by: String::new(),
            decided_unix_nano: None,
            note: String::new(),
        }
    }

    /// Decides it. `Err` with how it was decided already: a person's word is not taken back by
    /// another click.
    pub(crate) fn decide(
        mut self,
        is_approved: bool,
        by: &str,
        note: &str,
        now_unix_nano: u64,
    ) -> Result<Self, TakeoverState> {
        if self.state != TakeoverState::Waiting {
            return Err(self.state);
        }
        self.state = match is_approved {
            true => TakeoverState::Approved,
            false => TakeoverState::Rejected,
        };
        by.clone_into(&mut self.decided_by);
        note.clone_into(&mut self.note);
        self.decided_unix_nano = Some(now_unix_nano);
        Ok(self)
    }

    /// Whom the order to hand over is for; `None` when the subject names nobody, which would make it an
    /// order to everybody.
    pub(crate) fn target(&self) -> Option<DirectiveTarget> {
        DirectiveTarget::of_subject(&self.subject)
    }

    /// What is wrong with a case that names nobody.
    pub(crate) fn names_nobody(&self) -> String {
        format!(
            "expected a subject with agent, service, instance, session or workflow, got {:?}: \
             everybody would hand over",
            self.subject.to_string()
        )
    }
}
