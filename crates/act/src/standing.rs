//! What stands: weights that were set, freezes, and a person's word, which no rule overrides.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use throughline_store::{ControlError, Document, Governance};
use throughline_trace::{Action, DirectiveAction, Operation, RouteWeights, Subject};

/// Kind of the documents that keep weights.
pub(crate) const WEIGHTS: &str = "weights";
/// Kind of the documents that keep a person's word.
pub(crate) const HOLD: &str = "hold";
/// Kind of the documents that keep freezes.
pub(crate) const FREEZE: &str = "freeze";

/// Why what a person wrote stands although nobody knows what it says.
const UNREADABLE: &str = "this version cannot read it; say it anew, then it can be lifted";

/// How often a document is written anew when others write it at the same time.
const WRITES: u32 = 5;

/// A person's word about a route or a rollout: what is, stays, whatever rules ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// What is held: `route:NAME` or `rollout:NAME`.
    pub what: String,
    /// Who said so.
    pub person: String,
    /// Why.
    pub reason: String,
    /// When it ends, nanoseconds since the Unix epoch; `None` when somebody lifts it.
    pub until_unix_nano: Option<u64>,
    /// Whether it was lifted.
    pub is_lifted: bool,
}

/// No new strategies, versions or experiments for a subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// What is frozen; a freeze of `agent=payment` also holds for `agent=payment,version=v2`.
    pub subject: Subject,
    /// When it ends, nanoseconds since the Unix epoch.
    pub until_unix_nano: u64,
    /// The rule that asked for it; empty when a person did.
    pub rule: String,
    /// Why.
    pub reason: String,
    /// Who lifted it before its time; empty for nobody.
    pub lifted_by: String,
}

impl Freeze {
    /// This freeze, written over one that is known: a rule may make a person's freeze longer, and
    /// neither shorter nor its own.
    pub(crate) fn beside(self, known: Option<Self>, now_unix_nano: u64) -> Self {
        let of_person = known.filter(|known| {
            known.rule.is_empty()
                && known.lifted_by.is_empty()
                && known.until_unix_nano > now_unix_nano
        });
        match of_person {
            Some(known) if !self.rule.is_empty() => {
                let until_unix_nano = known.until_unix_nano.max(self.until_unix_nano);
                Self { until_unix_nano, ..known }
            }
            _ => self,
        }
    }
}

/// What stands, as `govern.db` has it. Its calls are short and block.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a>(pub &'a Governance);

impl Standing<'_> {
    /// The person's word about `what`, if it holds now. One that cannot be read holds: what it says is
    /// not known, so nothing is done against it.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn hold(&self, what: &str, now_unix_nano: u64) -> Result<Option<Hold>, ControlError> {
        let hold = self.0.document(HOLD, what)?.map(|found| {
            body(&found).unwrap_or_else(|| Hold {
                what: what.to_owned(),
                person: somebody(&found),
                reason: UNREADABLE.to_owned(),
                until_unix_nano: None,
                is_lifted: false,
            })
        });
        Ok(hold.filter(|hold| {
            !hold.is_lifted && hold.until_unix_nano.is_none_or(|until| until > now_unix_nano)
        }))
    }

    /// The freeze that holds for a subject now. One that cannot be read holds for what its name says.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub fn freeze(
        &self,
        subject: &Subject,
        now_unix_nano: u64,
    ) -> Result<Option<Freeze>, ControlError> {
        let freezes = self.0.documents(FREEZE)?;
        let freezes = freezes.iter().map(|found| {
            body(found).unwrap_or_else(|| Freeze {
                subject: named(&found.name),
                until_unix_nano: u64::MAX,
                rule: String::new(),
                reason: UNREADABLE.to_owned(),
                lifted_by: String::new(),
            })
        });
        Ok(freezes.into_iter().find(|freeze| {
            freeze.lifted_by.is_empty()
                && freeze.until_unix_nano > now_unix_nano
                && freeze.subject.0.iter().all(|(name, value)| subject.get(name) == Some(value))
        }))
    }

    /// The weights of every route that were set last.
    ///
    /// # Errors
    /// [`ControlError::Storage`]; also when those of one route cannot be read: they would count as
    /// never set.
    pub fn weights(&self) -> Result<BTreeMap<String, RouteWeights>, ControlError> {
        let read = |found: &Document| {
            let weights: RouteWeights = found.read()?;
            Ok((weights.route.clone(), weights))
        };
        self.0.documents(WEIGHTS)?.iter().map(read).collect()
    }

    /// Why an action of a rule may not be done: a person's word, or a freeze, stands against it.
    ///
    /// # Errors
    /// [`ControlError::Storage`].
    pub(crate) fn objection(
        &self,
        action: &Action,
        now_unix_nano: u64,
    ) -> Result<Option<String>, ControlError> {
        let what = match &action.operation {
            Operation::Weights { weights }
            | Operation::Directive { action: DirectiveAction::RouteWeights(weights), .. } => {
                format!("route:{}", weights.route)
            }
            Operation::Start { rollout, .. }
            | Operation::RollBack { rollout }
            | Operation::Advance { rollout } => {
                format!("rollout:{rollout}")
            }
            Operation::Freeze { .. } => return self.lifted(action, now_unix_nano),
            _ => return Ok(None),
        };
        if let Some(hold) = self.hold(&what, now_unix_nano)? {
            let Hold { what, person, reason, .. } = hold;
            return Ok(Some(format!("{person} holds {what}: {reason}")));
        }
        if let Operation::Start { rollout, .. } | Operation::Advance { rollout } = &action.operation
        {
            let subject = action.subject.clone().and("rollout", rollout);
            if let Some(freeze) = self.freeze(&subject, now_unix_nano)? {
                return Ok(Some(format!("{} is frozen: {}", freeze.subject, freeze.reason)));
            }
        }
        Ok(None)
    }

    /// A freeze that a person lifted is not put back for the time that it had left.
    fn lifted(&self, action: &Action, now_unix_nano: u64) -> Result<Option<String>, ControlError> {
        let Some(found) = self.0.document(FREEZE, &action.subject.to_string())? else {
            return Ok(None);
        };
        let Some(known) = body::<Freeze>(&found) else {
            return Ok(Some(format!("the freeze of {}: {UNREADABLE}", found.name)));
        };
        let lifted = Some(known).filter(|freeze| {
            !freeze.lifted_by.is_empty() && freeze.until_unix_nano > now_unix_nano
        });
        Ok(lifted.map(|freeze| format!("{} lifted this freeze", freeze.lifted_by)))
    }

    /// Writes the next version of a document, made from the one before.
    pub(crate) fn change<T: Serialize + DeserializeOwned>(
        &self,
        kind: &str,
        name: &str,
        person: &str,
        change: impl Fn(Option<T>) -> Option<T>,
    ) -> Result<Option<T>, ControlError> {
        for _ in 0..WRITES {
            let before = self.0.document(kind, name)?;
            let version = before.as_ref().map_or(0, |document| document.version);
            let Some(after) = change(before.as_ref().and_then(body)) else { return Ok(None) };
            let Ok(text) = serde_json::to_string(&after) else { return Ok(None) };
            if self.0.write_document(kind, name, version, person, &text)?.is_some() {
                return Ok(Some(after));
            }
        }
        Ok(None)
    }
}

/// Whoever wrote a document.
fn somebody(document: &Document) -> String {
    match document.person.is_empty() {
        true => "somebody".to_owned(),
        false => document.person.clone(),
    }
}

/// The subject of a name such as `agent=pay,version=v2`; the empty one, which is everything, when the
/// text is another.
fn named(name: &str) -> Subject {
    let pairs: Option<BTreeMap<String, String>> = name
        .split(',')
        .map(|pair| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())))
        .collect();
    Subject(pairs.unwrap_or_default())
}

/// The thing that a document holds; `None` for one of a later version that cannot be read.
pub(crate) fn body<T: DeserializeOwned>(document: &Document) -> Option<T> {
    match serde_json::from_str(&document.body) {
        Ok(thing) => Some(thing),
        Err(error) => {
            tracing::warn!(kind = document.kind, name = document.name, %error, "cannot be read");
            None
        }
    }
}
