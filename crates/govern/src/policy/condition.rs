//! Conditions of policies: in CEL, in Rego, or asked of an OPA elsewhere; all over the same signals, with the
//! same meaning of what is missing.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use throughline_rules::rego::{Answer, Question, RegoLimits, RegoPolicy};
use throughline_rules::{Expression, Match, Scope, Value};

use super::names::{BUDGET, Use, Values};
use super::spec::Policy;
use crate::rego::meaning_of;
use crate::signals::Name;

/// Seconds of a minute.
const MINUTE_S: u64 = 60;

/// A condition over signals.
#[derive(Debug, Clone)]
pub(crate) struct Condition {
    pub(super) form: Form,
    pub(super) uses: Vec<Use>,
}

/// What a condition is written in.
#[derive(Debug, Clone)]
pub(crate) enum Form {
    /// A condition in CEL, with the variables of its schema.
    Cel { expression: Expression, variables: Arc<[Arc<str>]> },
    /// A policy in Rego.
    Rego(RegoPolicy),
    /// A policy that an OPA has.
    Opa(Remote),
}

/// What is asked of an OPA elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// The rule, such as `data.throughline.payments.allow`.
    pub query: String,
    /// What its last name asks.
    pub question: Question,
}

impl Remote {
    /// The path of the rule in OPA's REST API, behind `/v1/data/`.
    pub fn path(&self) -> String {
        self.query.strip_prefix("data.").unwrap_or(&self.query).replace('.', "/")
    }
}

/// What a condition says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) holds: bool,
    /// What it says of that; empty in CEL.
    pub(super) messages: String,
}

impl Condition {
    /// As it was written: the condition in CEL, or the rule that is asked for.
    pub(crate) fn source(&self) -> &str {
        match &self.form {
            Form::Cel { expression, .. } => expression.source(),
            Form::Rego(policy) => policy.query(),
            Form::Opa(remote) => &remote.query,
        }
    }

    /// What changes its meaning.
    pub(super) fn meaning(&self) -> String {
        match &self.form {
            Form::Cel { expression, .. } => expression.source().to_owned(),
            Form::Rego(policy) => {
                let limits = meaning_of(policy.limits(), RegoLimits::default());
                format!("rego {} {}{limits}", policy.query(), policy.text())
            }
            Form::Opa(remote) => format!("opa {} {:?}", remote.query, self.uses),
        }
    }

    /// How long it may take at most.
    pub(super) fn max_time(&self) -> Duration {
        match &self.form {
            Form::Rego(policy) => policy.limits().time,
            Form::Cel { .. } | Form::Opa(_) => Duration::ZERO,
        }
    }

    /// What it speaks of.
    pub(crate) fn uses(&self) -> &[Use] {
        &self.uses
    }

    /// What it says of a policy's values at a minute; `Err` with why nobody knows.
    pub(super) fn verdict(
        &self,
        policy: &Policy,
        minute: u64,
        values: &Values,
    ) -> Result<Verdict, String> {
        match &self.form {
            Form::Cel { expression, variables } => {
                match expression.matches(&Known { variables, values }) {
                    Match::Yes => Ok(Verdict { holds: true, ..Verdict::default() }),
                    Match::No => Ok(Verdict::default()),
                    Match::Error(error) => Err(match self.missing(values) {
                        told if told.is_empty() => expression.explain(&error).message,
                        told => told,
                    }),
                }
            }
            // In Rego what is missing is undefined, which `not` takes for true: it is not asked at all.
            Form::Rego(_) | Form::Opa(_) if !self.missing(values).is_empty() => {
                Err(self.missing(values))
            }
            Form::Rego(rego) => {
                let input = input(policy, minute, values);
                rego.ask(input).map(said).map_err(|error| error.to_string())
            }
            Form::Opa(_) => match &values.remote {
                Some(answer) => answer.clone().map(said),
                None => Err("no OPA was asked; `act.opa` names one".to_owned()),
            },
        }
    }

    /// What it speaks of and is missing, for people; empty when nothing is.
    fn missing(&self, values: &Values) -> String {
        let missing = self.uses.iter().filter(|one| !values.known.contains_key(one));
        let told =
            missing.map(|one| match values.lacks.get(one).filter(|lacks| !lacks.is_empty()) {
                Some(lacks) => format!("{one} is missing: {lacks}"),
                None => format!("{one} is missing"),
            });
        told.collect::<Vec<_>>().join("; ")
    }
}

impl Policy {
    /// What is to be asked of an OPA, with the input for a minute; `None` when the policy is none of an OPA's,
    /// or when something that it speaks of is missing, so that nothing can be asked.
    pub fn remote(&self, minute: u64, values: &Values) -> Option<(&Remote, Json)> {
        let Form::Opa(remote) = &self.condition.form else { return None };
        let is_whole = self.condition.missing(values).is_empty();
        is_whole.then(|| (remote, input(self, minute, values)))
    }
}

/// The input of a policy: the signals by name, budgets by SLO, and about whom and when it is.
fn input(policy: &Policy, minute: u64, values: &Values) -> Json {
    let (mut signals, mut budgets) = (serde_json::Map::new(), serde_json::Map::new());
    for one in policy.uses() {
        let Some(value) = values.known.get(one) else { continue };
        match one {
            Use::Signal(name) => signals.insert(name.as_str().to_owned(), json!(value)),
            Use::Composite(name) => signals.insert(name.clone(), json!(value)),
            Use::Budget(slo) => budgets.insert(slo.clone(), json!(value)),
        };
    }
    json!({
        "signals": signals,
        BUDGET: budgets,
        "subject": policy.subject.0,
        "policy": policy.name,
        "at_unix_s": minute * MINUTE_S,
    })
}

fn said(answer: Answer) -> Verdict {
    let mut messages = answer.messages.join("; ");
    if answer.more > 0 {
        messages += &format!("; and {} more", answer.more);
    }
    Verdict { holds: answer.is_breach, messages }
}

/// The values of a schema's variables.
struct Known<'a> {
    variables: &'a [Arc<str>],
    values: &'a Values,
}

impl Scope for Known<'_> {
    fn variable(&self, index: usize) -> Option<Value<'_>> {
        let name = self.variables.get(index)?;
        if &**name == BUDGET {
            let budgets = self.values.known.iter().filter_map(|(one, value)| match one {
                Use::Budget(slo) => Some((Value::text(slo.as_str()), Value::Double(*value))),
                _ => None,
            });
            return Some(Value::map(budgets));
        }
        let one = match Name::from_text(name) {
            Some(id) => Use::Signal(id),
            None => Use::Composite(name.to_string()),
        };
        self.values.known.get(&one).map(|value| Value::Double(*value))
    }
}
