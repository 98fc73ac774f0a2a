//! Asks an agent's policies, and the human that they refer to.

use std::sync::Arc;

use throughline_trace::{DecisionId, keys};

use super::human::{self, HumanQuestion};
use super::policy::{Denial, StepContext, StepPolicy, StepResult, Verdict};
use super::words::conversation;
use super::{AgentError, Definition};
use crate::agent_notes::captures_content;
use crate::content;
use crate::decision::decision;

/// Why a step must not be taken, or its result not be used.
pub(super) struct Denied {
    pub(super) policy: String,
    pub(super) reason: String,
    pub(super) denial: Denial,
}

impl Denied {
    pub(super) fn into_error(self) -> AgentError {
        AgentError::PolicyRejected { policy: self.policy, reason: self.reason }
    }

    /// What the model is told.
    pub(super) fn told(&self, what: &str) -> String {
        format!("the policy {} refused {what}: {}", self.policy, self.reason)
    }

    /// The denial as a span may show it.
    pub(super) fn shown(&self, what: &str) -> String {
        if captures_content() {
            content::text(&self.told(what)).into_owned()
        } else {
            format!("{} refused {what}", self.policy)
        }
    }
}

/// What the policies said, and the decisions that were recorded on the way.
pub(super) struct Judged {
    pub(super) denied: Option<Denied>,
    pub(super) decisions: Vec<DecisionId>,
}

/// Asks all policies in order until one denies. With a result they are asked about that.
pub(super) async fn judge(
    definition: &Definition,
    step: &StepContext<'_>,
    result: Option<&StepResult<'_>>,
    parent: Option<DecisionId>,
) -> Judged {
    let mut judged = Judged { denied: None, decisions: Vec::new() };
    for policy in &definition.policies {
        let verdict = match result {
            None => policy.before(step).await,
            Some(result) => policy.after(step, result).await,
        };
        judged.denied = match verdict {
            Verdict::Allow => None,
            Verdict::Deny { reason } => {
                let shown = if captures_content() {
                    content::text(&reason)
                } else {
                    "the policy denies it".into()
                };
                judged.decisions.push(record(policy, step, "deny", &shown, parent));
                Some(denied(policy, step, reason))
            }
            Verdict::AskHuman { question } => {
                ask(definition, policy, step, question, parent, &mut judged.decisions).await
            }
        };
        if judged.denied.is_some() {
            break;
        }
    }
    judged
}

async fn ask(
    definition: &Definition,
    policy: &Arc<dyn StepPolicy>,
    step: &StepContext<'_>,
    question: String,
    parent: Option<DecisionId>,
    decisions: &mut Vec<DecisionId>,
) -> Option<Denied> {
    let shown = if captures_content() {
        content::text(&question)
    } else {
        "the policy asks a human".into()
    };
    let asked = record(policy, step, "ask_human", &shown, parent);
    let question = HumanQuestion {
        agent: definition.name.clone(),
        session: human::session(),
        policy: policy.name().to_owned(),
        question,
        about: step.action.name().to_owned(),
    };
    let (answer, answered) = human::ask(definition, question, asked).await;
    decisions.extend([Some(asked), answered].into_iter().flatten());
    (!answer.is_approved).then(|| denied(policy, step, answer.reason))
}

fn denied(policy: &Arc<dyn StepPolicy>, step: &StepContext<'_>, reason: String) -> Denied {
    Denied { policy: policy.name().to_owned(), reason, denial: policy.on_denial(step) }
}

fn record(
    policy: &Arc<dyn StepPolicy>,
    step: &StepContext<'_>,
    action: &str,
    reason: &str,
    parent: Option<DecisionId>,
) -> DecisionId {
    decision("policy")
        .action(action)
        .reason(reason)
        .input(&(step.action.name(), conversation(step.messages)))
        .parent_if(parent)
        .attribute(keys::POLICY, policy.name().to_owned())
        .record()
}
