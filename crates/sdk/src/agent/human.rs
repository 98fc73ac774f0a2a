//! A human that a policy can ask.

use std::time::Duration;

use futures_util::future::BoxFuture;
use throughline_trace::{DecisionId, ErrorType, Phase, keys};

use super::Definition;
use crate::agent_notes::captures_content;
use crate::content;
use crate::decision::decision;
use crate::dimensions::Dimensions;
use crate::resilient::Fault as _;
use crate::step::step;

/// How long a human is waited for, when the builder does not say.
pub const HUMAN_TIMEOUT: Duration = Duration::from_secs(300);

/// What a human is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HumanQuestion {
    /// The agent.
    pub agent: String,
    /// The session, if there is one.
    pub session: Option<String>,
    /// The policy that asks.
    pub policy: String,
    /// The question, in the policy's words.
    pub question: String,
    /// What is to be allowed: `model_call`, a tool's name, or `answer`.
    pub about: String,
}

/// What a human said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HumanAnswer {
    /// Whether it may go on.
    pub is_approved: bool,
    /// Who said so.
    pub by: Option<String>,
    /// Why; may be empty.
    pub reason: String,
}

impl HumanAnswer {
    /// Yes.
    pub fn approve() -> Self {
        Self { is_approved: true, by: None, reason: String::new() }
    }

    /// No, for this reason.
    pub fn reject(reason: impl Into<String>) -> Self {
        Self { is_approved: false, by: None, reason: reason.into() }
    }

    /// Says who it was.
    #[must_use]
    pub fn by(mut self, who: impl Into<String>) -> Self {
        self.by = Some(who.into());
        self
    }
}

/// Brings a question to a human and the answer back: a chat message, a page, a console.
pub trait HumanGate: Send + Sync {
    /// Asks. The future is dropped when the human takes too long
    /// ([`AgentBuilder::human_timeout`](crate::AgentBuilder::human_timeout)).
    fn ask<'a>(&'a self, question: &'a HumanQuestion) -> BoxFuture<'a, HumanAnswer>;
}

/// Asks the agent's human, as a step of the run with a decision below that of the policy. Whoever
/// cannot be asked, or does not answer, says no.
pub(super) async fn ask(
    definition: &Definition,
    question: HumanQuestion,
    parent: DecisionId,
) -> (HumanAnswer, Option<DecisionId>) {
    let step = step(&definition.name, Phase::Reflect, "ask_human")
        .attribute(keys::POLICY, question.policy.clone())
        .start();
    let limit = definition.human_timeout;
    let answer = match &definition.human {
        None => HumanAnswer::reject("there is no human to ask"),
        Some(gate) => {
            let asked = step.instrument(tokio::time::timeout(limit, gate.ask(&question))).await;
            asked.unwrap_or_else(|_| {
                let late = format!("no human answered within {} s", limit.as_secs_f64());
                step.fail(ErrorType::Timeout, late.clone());
                HumanAnswer::reject(late)
            })
        }
    };
    let action = if answer.is_approved { "approve" } else { "reject" };
    let reason = match answer.reason.as_str() {
        "" => action.into(),
        said if captures_content() => content::text(said),
        _ => action.into(),
    };
    let mut decided = decision("human").action(action).reason(reason).parent(parent).on(&step);
    if let Some(who) = &answer.by {
        decided = decided.attribute(keys::DECIDED_BY, who.clone());
    }
    if !answer.is_approved {
        return (answer, Some(decided.record()));
    }
    // What is allowed is done next.
    match decided.record_audited().await {
        Ok(id) => (answer, Some(id)),
        Err(error) => {
            step.fail(error.error_type(), error.to_string());
            (HumanAnswer::reject(format!("the approval was not recorded: {error}")), None)
        }
    }
}

/// The session of the current context.
pub(super) fn session() -> Option<String> {
    Dimensions::current().session_id().map(str::to_owned)
}
