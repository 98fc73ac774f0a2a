//! Every operation, done.

use std::collections::BTreeMap;
use std::time::Duration;

use throughline_trace::{
    Action, Directive, DirectiveAction, DirectiveTarget, Operation, RouteWeights,
};

use super::{Actor, Hook, Origin};
use crate::directives::{LONGEST_DIRECTIVE_TTL_S, ask};
use crate::moments::NANOS_PER_SEC;
use crate::notify::Message;
use crate::performed::Performed;
use crate::standing::{FREEZE, Freeze, HOLD, Hold, Standing, WEIGHTS};
use crate::takeover::{self, Takeover};

/// How long running agents keep weights that they were told, seconds; whoever starts later asks.
const WEIGHTS_TTL_S: u64 = LONGEST_DIRECTIVE_TTL_S;

/// Pause after the disk did not take something.
const STORAGE_PAUSE: Duration = Duration::from_secs(1);

impl Actor {
    /// Does what an action asks for.
    pub(super) async fn act(&self, action: &Action, origin: Origin, now: u64) -> Performed {
        match &action.operation {
            Operation::Directive { target, action: what, ttl_s } => {
                self.direct(action, target, what, *ttl_s, now).await
            }
            Operation::Weights { weights } => self.divide(action, weights, origin, now).await,
            Operation::Start { .. } | Operation::RollBack { .. } | Operation::Advance { .. } => {
                hook(self.inner.hooks.rollout.as_ref(), action, "rollouts").await
            }
            Operation::Freeze { ttl_s } => self.freeze(action, *ttl_s, now).await,
            Operation::Investigate => {
                hook(self.inner.hooks.investigate.as_ref(), action, "investigations").await
            }
            Operation::Contract { .. } => {
                hook(self.inner.hooks.contract.as_ref(), action, "contracts").await
            }
            Operation::HandOver { to } => self.hand_over(action, to).await,
            Operation::Notify { receiver } => self.notify(action, receiver, now).await,
            Operation::Workflow { workflow, parameters } => {
                self.start(action, workflow, parameters).await
            }
        }
    }

    async fn direct(
        &self,
        action: &Action,
        target: &DirectiveTarget,
        what: &DirectiveAction,
        ttl_s: u64,
        now: u64,
    ) -> Performed {
        let ttl_s = ttl_s.min(LONGEST_DIRECTIVE_TTL_S);
        let ends = action.at_unix_nano.saturating_add(ttl_s.saturating_mul(NANOS_PER_SEC));
        if ends <= now {
            return Performed::Refused(format!("it would have held for {ttl_s} s, which are over"));
        }
        let mut directive = Directive::new(&action.id, action.at_unix_nano, ends, what.clone());
        directive.target = target.clone();
        directive.reason = action.reason.clone();
        directive.evidence = action.evidence.clone();
        directive.rule = action.rule.clone();
        // What no agent could read must not stand among what they are told.
        if let Err(error) = Directive::from_json(&directive.to_json().to_string()) {
            return Performed::Failed(error.to_string());
        }
        match self.inner.board.issue(directive).await {
            Ok((place, true)) => Performed::Done(format!("given as number {place}")),
            Ok((place, false)) => Performed::Done(format!("was given before as number {place}")),
            Err(error) => Performed::Later(error, STORAGE_PAUSE),
        }
    }

    /// Keeps the weights, tells agents, and whoever follows [`Actor::weights`]. A person's weights
    /// hold against rules until somebody lifts them.
    async fn divide(
        &self,
        action: &Action,
        weights: &RouteWeights,
        origin: Origin,
        now: u64,
    ) -> Performed {
        if let Err(error) = weights.validate() {
            return Performed::Failed(error.to_string());
        }
        let (wanted, by) = (weights.clone(), who(action));
        let (rule, reason) = (action.rule.clone(), action.reason.clone());
        let is_own_word = rule.is_empty() && origin == Origin::Own;
        let written = ask(&self.inner.governance, move |governance| {
            let standing = Standing(governance);
            let route = &wanted.route;
            // What cannot be read is not taken for nothing.
            standing.weights()?;
            let set = standing.change(WEIGHTS, route, &by, |known| next(known, &wanted))?;
            if set.is_some() && is_own_word {
                let hold = Hold {
                    what: format!("route:{route}"),
                    person: by.clone(),
                    reason: reason.clone(),
                    until_unix_nano: None,
                    is_lifted: false,
                };
                standing.change(HOLD, &hold.what, &by, |_: Option<Hold>| Some(hold.clone()))?;
            }
            let current = standing.weights()?;
            Ok((set, current))
        });
        let (set, current) = match written.await {
            Ok(written) => written,
            Err(error) => return Performed::Later(error, STORAGE_PAUSE),
        };
        let Some(set) = set else {
            let holding = current.get(&weights.route).map_or(0, |known| known.generation);
            let got = weights.generation;
            return Performed::Refused(format!(
                "expected weights of a generation above {holding}, got {got}"
            ));
        };
        self.inner.weights.send_replace(current);
        let told = DirectiveAction::RouteWeights(set.clone());
        let everybody = DirectiveTarget::default();
        match self.direct(action, &everybody, &told, WEIGHTS_TTL_S, now).await {
            Performed::Done(told) => {
                Performed::Done(format!("generation {} is set and {told}", set.generation))
            }
            other => other,
        }
    }

    async fn freeze(&self, action: &Action, ttl_s: u64, now: u64) -> Performed {
        let until = action.at_unix_nano.saturating_add(ttl_s.saturating_mul(NANOS_PER_SEC));
        if until <= now {
            return Performed::Refused(format!("it would have held for {ttl_s} s, which are over"));
        }
        let freeze = Freeze {
            subject: action.subject.clone(),
            until_unix_nano: until,
            rule: action.rule.clone(),
            reason: action.reason.clone(),
            lifted_by: String::new(),
        };
        let (name, by) = (action.subject.to_string(), who(action));
        let written = ask(&self.inner.governance, move |governance| {
            Standing(governance).change(FREEZE, &name, &by, |known: Option<Freeze>| {
                Some(freeze.clone().beside(known, now))
            })
        });
        match written.await {
            Ok(Some(freeze)) => {
                let at = crate::moments::rfc3339(freeze.until_unix_nano);
                Performed::Done(format!("{} is frozen until {at}", action.subject))
            }
            Ok(None) => Performed::Later("others changed it too".to_owned(), STORAGE_PAUSE),
            Err(error) => Performed::Later(error, STORAGE_PAUSE),
        }
    }

    async fn hand_over(&self, action: &Action, to: &str) -> Performed {
        let case = Takeover::of(action, to);
        if case.target().is_none() {
            return Performed::Failed(case.names_nobody());
        }
        let written = ask(&self.inner.governance, move |governance| {
            let (id, case) = (case.id.clone(), case);
            // A case that is there already keeps what a person decided.
            Standing(governance).change(takeover::KIND, &id, "", |known: Option<Takeover>| {
                known.is_none().then(|| case.clone())
            })
        });
        match written.await {
            Ok(Some(_)) => Performed::Done("the case waits for a person".to_owned()),
            Ok(None) => Performed::Done("the case was there before".to_owned()),
            Err(error) => Performed::Later(error, STORAGE_PAUSE),
        }
    }

    async fn notify(&self, action: &Action, receiver: &str, now: u64) -> Performed {
        let id = action.finding.clone();
        let found = ask(&self.inner.governance, move |governance| governance.finding(&id));
        let finding = match found.await {
            Ok(finding) => finding,
            Err(error) => return Performed::Later(error, STORAGE_PAUSE),
        };
        let incident = match &finding {
            Some(finding) => self.incident_of(finding).await,
            None => Ok(None),
        };
        // Whoever cannot tell whether it is silenced tells nobody yet.
        let incident = match incident {
            Ok(incident) => incident,
            Err(error) => return Performed::Later(error, STORAGE_PAUSE),
        };
        if let Some(incident) = &incident
            && incident.is_silenced(now)
            && !action.rule.is_empty()
        {
            let until = incident.silenced_until_unix_nano.unwrap_or_default();
            let until = crate::moments::rfc3339(until);
            return Performed::Refused(format!("the incident is silenced until {until}"));
        }
        let receivers = &self.inner.receivers;
        let message = Message {
            action,
            finding: finding.as_ref(),
            incident: incident.as_ref().map(|incident| incident.id.as_str()),
            link: receivers.link(action),
            now_unix_nano: now,
        };
        match receivers.tell(receiver, &message).await {
            Some(Ok(done)) => Performed::Done(done),
            Some(Err(failed)) if failed.is_passing => {
                Performed::Later(failed.message, Duration::ZERO)
            }
            Some(Err(failed)) => Performed::Failed(failed.message),
            None => Performed::Failed(format!(
                "expected a receiver of `act.receivers` ({}), got {receiver:?}",
                receivers.names()
            )),
        }
    }
}

impl Actor {
    async fn start(
        &self,
        action: &Action,
        workflow: &str,
        parameters: &BTreeMap<String, String>,
    ) -> Performed {
        let missing = |known: String| {
            Performed::Failed(format!(
                "expected a workflow of `act.argo.workflows` ({known}), got {workflow:?}"
            ))
        };
        let Some(argo) = &self.inner.argo else { return missing("none".to_owned()) };
        match argo.submit(action, workflow, parameters).await {
            Some(Ok(done)) => Performed::Done(done),
            Some(Err(failed)) if failed.is_passing => {
                Performed::Later(failed.message, Duration::ZERO)
            }
            Some(Err(failed)) => Performed::Failed(failed.message),
            None => missing(argo.names()),
        }
    }
}

/// Who asked, for the documents; empty for a rule.
fn who(action: &Action) -> String {
    action.person().unwrap_or_default().to_owned()
}

/// The weights that follow those that hold; `None` when they are older. A generation of 0 stands for
/// the next one.
fn next(known: Option<RouteWeights>, wanted: &RouteWeights) -> Option<RouteWeights> {
    let mut next = wanted.clone();
    let Some(known) = known else {
        next.generation = next.generation.max(1);
        return Some(next);
    };
    if wanted.generation == 0 {
        // The same again, after a restart, is the same.
        if known.targets != wanted.targets {
            next.generation = known.generation + 1;
        } else {
            next.generation = known.generation;
        }
        return Some(next);
    }
    let is_same = wanted == &known;
    (wanted.generation > known.generation || is_same).then_some(next)
}

async fn hook(hook: Option<&Hook>, action: &Action, what: &str) -> Performed {
    match hook {
        Some(hook) => hook(action.clone()).await,
        None => Performed::Failed(format!("this server has no {what}")),
    }
}
