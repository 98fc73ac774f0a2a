//! Rollouts: what both versions did, from the store; what becomes of the candidate, to the actor.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use throughline_act::{Actor, Performed};
use throughline_govern::detect::RateWindow;
use throughline_govern::rollout::{Next, Phase, Rollout, RolloutSpec, Verdict, VersionWindow};
use throughline_store::{ActionState, ControlError, Document, Evaluation, Governance, Reader};
use throughline_trace::{
    Action, Finding, FindingSeverity, FindingState, Operation, RouteWeights, Subject, finding_id,
};
use throughline_web::governance::RolloutStanding;

use super::investigate::firing;
use super::versions::{Looked, look, look_at_stable};
use super::{RoundError, SECOND_NANOS, now_unix_nano};

/// Kind of the documents that keep rollouts.
pub(super) const KIND: &str = "rollout";

/// Kind of findings about them.
const FINDING: &str = "rollout.analysis";

/// Pause after the disk did not take something.
const STORAGE_PAUSE: Duration = Duration::from_secs(1);

/// How long after it was refused a step is asked for again, at most; nanoseconds.
const ASKED_AGAIN_NANOS: u64 = 300 * SECOND_NANOS;

/// The values of findings that tell how many pairs of decisions about equal inputs agree.
const AGREEMENT: &str = "decision_agreement";
const AGREEMENT_STABLE: &str = "decision_agreement_stable";

/// All rollouts.
pub(crate) struct Rollouts {
    governance: Governance,
    specs: Mutex<BTreeMap<String, RolloutSpec>>,
    /// Who sets weights; there is none before the actor is made.
    actor: OnceLock<Actor>,
    /// Held by whoever changes one: weights are set and the change is written in one turn.
    turn: tokio::sync::Mutex<()>,
}

impl Rollouts {
    pub(crate) fn new(governance: Governance, specs: BTreeMap<String, RolloutSpec>) -> Arc<Self> {
        let (specs, actor, turn) = (Mutex::new(specs), OnceLock::new(), Default::default());
        Arc::new(Self { governance, specs, actor, turn })
    }

    pub(crate) fn set_actor(&self, actor: Actor) {
        let _ = self.actor.set(actor);
    }

    pub(super) fn replace(&self, specs: BTreeMap<String, RolloutSpec>) {
        *self.specs.lock().unwrap_or_else(PoisonError::into_inner) = specs;
    }

    fn specs(&self) -> BTreeMap<String, RolloutSpec> {
        self.specs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at every rollout that has a candidate.
    pub(super) async fn evaluate(
        &self,
        reader: &Reader,
        now: u64,
        evaluation: &mut Evaluation,
    ) -> Result<Vec<RolloutStanding>, RoundError> {
        let mut standings = Vec::new();
        for (name, spec) in self.specs() {
            let (rollout, _) = self.load(&name, &spec).await?;
            let open = firing(&self.governance, &format!("rollout/{name}")).await?;
            let mut verdict = None;
            if let (Phase::Progressing { .. }, Some(candidate)) =
                (rollout.phase, &rollout.candidate)
            {
                let looked = look(reader, &spec, &rollout, candidate, now).await?;
                // What would be refused is not asked for, since an action is asked for once: it is when
                // nothing stands against it any more.
                let next = match self.objection(&rollout, &spec, now).await? {
                    Some(Objection::Everything) => Next::Wait,
                    objection => rollout.next(&spec, now, &looked.verdict, objection.is_some()),
                };
                say(&rollout, &spec, &looked, (next, &open), now, evaluation);
                verdict = Some(looked.verdict);
            }
            if let Some(version) = rollout.wanted(&spec)
                && self.objection(&rollout, &spec, now).await?.is_none()
            {
                evaluation.actions.push(start(&rollout, &spec, version, now));
            }
            end(reader, &spec, (&rollout, verdict.as_ref()), open, now, evaluation).await?;
            standings.push(standing(&spec, rollout, verdict));
        }
        Ok(standings)
    }

    /// What stands against the next step of a rollout.
    async fn objection(
        &self,
        rollout: &Rollout,
        spec: &RolloutSpec,
        now: u64,
    ) -> Result<Option<Objection>, RoundError> {
        let governance = self.governance.clone();
        let held = [format!("rollout:{}", rollout.name), format!("route:{}", spec.route)];
        let subject = subject(rollout, spec);
        let found = tokio::task::spawn_blocking(move || {
            let standing = throughline_act::Standing(&governance);
            if governance.pause()?.is_on {
                return Ok(Some(Objection::Everything));
            }
            for what in &held {
                if standing.hold(what, now)?.is_some() {
                    return Ok(Some(Objection::Everything));
                }
            }
            let freeze = standing.freeze(&subject, now)?;
            Ok::<_, ControlError>(freeze.map(|_| Objection::GoingOn))
        });
        Ok(found.await??)
    }

    /// How a rollout stands, and the version of its document.
    async fn load(&self, name: &str, spec: &RolloutSpec) -> Result<(Rollout, u64), RoundError> {
        let (governance, of) = (self.governance.clone(), name.to_owned());
        let found: Option<Document> =
            tokio::task::spawn_blocking(move || governance.document(KIND, &of)).await??;
        let Some(found) = found else { return Ok((Rollout::new(name, spec), 0)) };
        match serde_json::from_str(&found.body) {
            Ok(rollout) => Ok((rollout, found.version)),
            Err(error) => {
                tracing::error!(rollout = name, %error, "how a rollout stands cannot be read; it begins anew");
                Ok((Rollout::new(name, spec), found.version))
            }
        }
    }

    /// Does what an action asks of a rollout, and divides the traffic anew.
    pub(crate) async fn perform(&self, action: Action) -> Performed {
        match self.change(&action).await {
            Ok(performed) => performed,
            Err(error) => Performed::Later(error.to_string(), STORAGE_PAUSE),
        }
    }

    async fn change(&self, action: &Action) -> Result<Performed, RoundError> {
        let (Operation::Start { rollout: name, .. }
        | Operation::RollBack { rollout: name }
        | Operation::Advance { rollout: name }) = &action.operation
        else {
            return Ok(Performed::Failed("expected an operation of rollouts".to_owned()));
        };
        let specs = self.specs();
        let Some(spec) = specs.get(name) else {
            let known = specs.keys().cloned().collect::<Vec<_>>().join(", ");
            return Ok(Performed::Failed(format!("expected a rollout ({known}), got {name:?}")));
        };
        let _turn = self.turn.lock().await;
        let (mut rollout, version) = self.load(name, spec).await?;
        let now = now_unix_nano();
        if rollout.changes.iter().any(|change| change.action == action.id) {
            return Ok(Performed::Done("it was done before".to_owned()));
        }
        if let Some(why) = no_longer_fits(&rollout, action) {
            return Ok(Performed::Refused(why));
        }
        let (reason, id) = (&action.reason, &action.id);
        let changed = match &action.operation {
            Operation::Start { version, .. } => rollout.start(spec, version, now, reason, id),
            Operation::RollBack { .. } => rollout.roll_back(spec, now, reason, id),
            _ => rollout.advance(spec, now, reason, id),
        };
        let weights = match changed {
            Ok(weights) => weights,
            Err(error) => return Ok(Performed::Refused(error.to_string())),
        };
        // The weights first: whoever is cut off in between finds the rollout as it was and sets the same
        // ones again, which changes nothing.
        let divided = self.divide(action, name, weights).await;
        if matches!(divided, Performed::Done(_)) {
            let body = serde_json::to_string(&rollout).unwrap_or_default();
            let person = if action.rule.is_empty() { "a person" } else { "" };
            if self.write(name, version, person, body).await?.is_none() {
                return Ok(Performed::Later("others changed it too".to_owned(), STORAGE_PAUSE));
            }
        }
        Ok(divided)
    }

    async fn write(
        &self,
        name: &str,
        known: u64,
        person: &str,
        body: String,
    ) -> Result<Option<u64>, RoundError> {
        let (governance, name, person) =
            (self.governance.clone(), name.to_owned(), person.to_owned());
        let written: Result<Option<u64>, ControlError> = tokio::task::spawn_blocking(move || {
            governance.write_document(KIND, &name, known, &person, &body)
        })
        .await?;
        Ok(written?)
    }

    /// Sets the weights that follow, as an action of its own.
    async fn divide(&self, of: &Action, rollout: &str, weights: RouteWeights) -> Performed {
        let Some(actor) = self.actor.get() else {
            return Performed::Later("the actor is not ready".to_owned(), STORAGE_PAUSE);
        };
        let shares: Vec<String> =
            weights.targets.iter().map(|one| format!("{} {} %", one.name, one.weight)).collect();
        let shares = shares.join(", ");
        let action = Action {
            id: format!("{}/weights", of.id),
            operation: Operation::Weights { weights },
            // The weights are the rollout's, also where a person asked: it may take them back.
            subject: of.subject.clone().and("rollout", rollout),
            cool_down_s: 0,
            ..of.clone()
        };
        let record = actor.perform_part(&action).await;
        match record.state {
            ActionState::Done => Performed::Done(format!("the traffic is divided {shares}")),
            ActionState::Asked => Performed::Later(record.detail, STORAGE_PAUSE),
            ActionState::Refused => Performed::Refused(record.detail),
            _ => Performed::Failed(record.detail),
        }
    }
}

/// Why what a rule asked for is over: it was about the step and the version of that time. (A step that
/// was taken and not noted as taken is over too.)
fn no_longer_fits(rollout: &Rollout, action: &Action) -> Option<String> {
    // What a file wants to be tried is no candidate before it is started.
    let is_start = matches!(action.operation, Operation::Start { .. });
    let is_over = action.at_unix_nano <= rollout.since_unix_nano
        || !is_start && action.subject.get("version") != rollout.candidate.as_deref();
    (!action.rule.is_empty() && is_over)
        .then(|| "the step that it was asked for is over".to_owned())
}

/// What may not be done with a rollout now.
enum Objection {
    /// Neither on nor back: actions are paused, or a person holds it.
    Everything,
    /// It may not go on; going back is never frozen.
    GoingOn,
}

/// Ends what fires of a rollout and holds no longer: the candidate passes, it is tried no more, or it was
/// put back and the stable version is seen to do as well as before.
async fn end(
    reader: &Reader,
    spec: &RolloutSpec,
    (rollout, verdict): (&Rollout, Option<&Verdict>),
    open: Vec<Finding>,
    now: u64,
    evaluation: &mut Evaluation,
) -> Result<(), RoundError> {
    let mut seen: Option<VersionWindow> = None;
    for finding in open.into_iter().filter(|one| one.kind == FINDING) {
        let version = finding.subject.get("version").unwrap_or_default().to_owned();
        let last = rollout.changes.iter().rev().find(|change| change.version == version);
        let told = match (rollout.candidate.as_deref() == Some(&version), verdict) {
            (true, Some(Verdict::Pass(_))) => "It does as well now".to_owned(),
            (true, _) => continue,
            (false, _) if last.is_some_and(|last| last.kind == "rolled_back") => {
                if seen.is_none() {
                    seen = Some(look_at_stable(reader, spec, rollout, now).await?);
                }
                match seen.as_ref().and_then(|seen| recovered(spec, &finding, seen)) {
                    Some(p95) => format!("Recovered: {} {p95}", rollout.stable),
                    None => continue,
                }
            }
            (false, _) => "It is not tried any more".to_owned(),
        };
        let summary = format!("{}. {told}", finding.summary);
        let state = FindingState::Resolved;
        evaluation.findings.push(Finding { state, summary, at_unix_nano: now, ..finding });
    }
    Ok(())
}

/// Whether the stable version does as well as when the finding was made; how well, if so.
fn recovered(spec: &RolloutSpec, finding: &Finding, seen: &VersionWindow) -> Option<String> {
    let (analysis, total) = (&spec.analysis, seen.outcomes.total);
    let usual = |name: &str| finding.values.get(name).copied();
    let p95 = seen.p95_s().filter(|_| total >= analysis.min_events)?;
    if usual("agent_decision_latency_p95_stable")
        .is_some_and(|usual| p95 > usual * analysis.max_latency_ratio)
    {
        return None;
    }
    let success = seen.outcomes.good as f64 / total as f64;
    if usual("success_rate_stable")
        .is_some_and(|usual| success < usual - analysis.max_error_increase)
    {
        return None;
    }
    // Pairs: the stable version has all of the traffic now, and the larger groups of it.
    let rate = seen.consistency.agreement().rate();
    if let (Some(usual), Some(rate)) = (usual(AGREEMENT_STABLE), rate)
        && rate < usual - analysis.max_consistency_drop
    {
        return None;
    }
    Some(format!("decides within {p95:.2} s again (p95 of {total} events)"))
}

/// What findings and actions about a rollout are about.
fn subject(rollout: &Rollout, spec: &RolloutSpec) -> Subject {
    let subject = Subject::of("rollout", rollout.name.as_str()).and("agent", spec.agent.as_str());
    match &rollout.candidate {
        Some(candidate) => subject.and("version", candidate.as_str()),
        None => subject,
    }
}

/// The start of the candidate that a file names. It is asked for once: the id has no time in it.
fn start(rollout: &Rollout, spec: &RolloutSpec, version: &str, now: u64) -> Action {
    let (name, operation) = (rollout.name.clone(), version.to_owned());
    Action {
        id: format!("start/rollout/{name}/{version}"),
        finding: String::new(),
        rule: format!("rollout/{name}"),
        rule_version: format!("{:.16}", spec_hash(spec)),
        subject: subject(rollout, spec).and("version", version),
        at_unix_nano: now,
        operation: Operation::Start { rollout: name, version: operation },
        reason: format!("its file names {version} as the candidate"),
        evidence: Vec::new(),
        cool_down_s: 0,
        is_dry_run: spec.dry_run,
    }
}

/// Turns what was looked at into a finding and an action.
pub(super) fn say(
    rollout: &Rollout,
    spec: &RolloutSpec,
    looked: &Looked,
    (next, open): (Next, &[Finding]),
    now: u64,
    evaluation: &mut Evaluation,
) {
    let candidate = rollout.candidate.clone().unwrap_or_default();
    let rule = format!("rollout/{}", rollout.name);
    let version = format!("{:.16}", spec_hash(spec));
    let subject = subject(rollout, spec);
    let since = rollout.since_unix_nano;
    let id = finding_id(&rule, &version, &subject, since);
    if let Verdict::Fail(why) = &looked.verdict {
        let mut values = BTreeMap::new();
        for (name, value) in [
            ("agent_decision_latency_p95", looked.candidate.p95_s()),
            ("agent_decision_latency_p95_stable", looked.stable.p95_s()),
            ("decision_consistency_rate", looked.candidate.consistency.estimate().value),
            ("decision_consistency_rate_stable", looked.stable.consistency.estimate().value),
            (AGREEMENT, looked.candidate.consistency.agreement().rate()),
            (AGREEMENT_STABLE, looked.stable.consistency.agreement().rate()),
        ] {
            values.extend(value.map(|value| (name.to_owned(), value)));
        }
        let RateWindow { good, total } = looked.candidate.outcomes;
        values.insert("success_rate".to_owned(), good as f64 / total.max(1) as f64);
        let RateWindow { good, total } = looked.stable.outcomes;
        values.insert("success_rate_stable".to_owned(), good as f64 / total.max(1) as f64);
        let known = open.iter().find(|known| known.id == id);
        evaluation.findings.push(Finding {
            id: id.clone(),
            rule: rule.clone(),
            rule_version: version.clone(),
            kind: FINDING.to_owned(),
            subject: subject.clone(),
            severity: FindingSeverity::Critical,
            state: FindingState::Firing,
            since_unix_nano: known.map_or(now, |known| known.since_unix_nano),
            at_unix_nano: now,
            from_unix_nano: looked.from_unix_nano,
            to_unix_nano: now,
            summary: format!(
                "{candidate} of {} does worse than {}: {why}",
                spec.agent, rollout.stable
            ),
            values,
            // Each test is at its alpha, and they are repeated with every round.
            confidence: None,
            evidence: looked.evidence.clone(),
            runbook: spec.runbook.clone(),
        });
    }
    if let Next::RollBack(why) = &next {
        evaluation.actions.push(Action {
            id: format!("investigate/{id}"),
            finding: id.clone(),
            rule: rule.clone(),
            rule_version: version.clone(),
            subject: subject.clone(),
            at_unix_nano: now,
            operation: Operation::Investigate,
            reason: why.clone(),
            evidence: looked.evidence.clone(),
            cool_down_s: 0,
            is_dry_run: spec.dry_run,
        });
    }
    let (operation, reason) = match next {
        Next::Wait => return,
        Next::Advance(why) => (Operation::Advance { rollout: rollout.name.clone() }, why),
        Next::RollBack(why) => (Operation::RollBack { rollout: rollout.name.clone() }, why),
    };
    evaluation.actions.push(Action {
        // One step is left once; what was refused all the same is asked for again after a while.
        id: format!("{}/{id}/{}", operation.kind(), now / ASKED_AGAIN_NANOS),
        finding: matches!(looked.verdict, Verdict::Fail(_)).then_some(id).unwrap_or_default(),
        rule,
        rule_version: version,
        subject,
        at_unix_nano: now,
        operation,
        reason,
        evidence: looked.evidence.clone(),
        cool_down_s: 0,
        is_dry_run: spec.dry_run,
    });
}

fn spec_hash(spec: &RolloutSpec) -> String {
    let text = serde_json::to_string(spec).unwrap_or_default();
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

fn standing(spec: &RolloutSpec, rollout: Rollout, verdict: Option<Verdict>) -> RolloutStanding {
    let weight = rollout.weight(spec);
    RolloutStanding { spec: spec.clone(), weight, rollout, verdict }
}
