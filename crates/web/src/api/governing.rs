//! `/api/v1/slos`, `/rollouts`, `/experiments` and `/policies`: how the rules of files stand, as the last round
//! of evaluation gave it. Nothing is counted for the answer.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Serialize;
use throughline_govern::experiment::{self, ExperimentResult};
use throughline_govern::policy::PolicyStatus;
use throughline_govern::rollout::{Change, Phase, Verdict};
use throughline_govern::slo::ObjectiveStatus;

use super::forms::Moment;
use super::paging::{self, Keyed};
use super::shapes::Page;
use crate::failure::Failure;
use crate::format::rfc3339;
use crate::governance::{ExperimentStanding, RolloutStanding, Standing};
use crate::params::Params;
use crate::state::Shared;

/// An objective of an SLO.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Objective {
    slo: String,
    objective: String,
    /// The share that shall be good.
    target: f64,
    /// The share that was good in the window so far; null when nothing was counted.
    attained: Option<f64>,
    /// Bad over allowed bad, over the window so far.
    error_budget_consumption_rate: Option<f64>,
    /// What is left of the budget; below 0 when it is overdrawn.
    budget_remaining: Option<f64>,
    /// Over the last hour; null when there was too little to say.
    burn_rate_1h: Option<f64>,
    /// `ok`, `burning`, `exhausted`, `no_events` or `not_covered`.
    health: serde_json::Value,
    /// Alerts that fire.
    firing: Vec<String>,
}

/// A rollout of versions.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Rollout {
    name: String,
    agent: String,
    route: String,
    stable: String,
    /// The version that is tried; null for none.
    candidate: Option<String>,
    /// The candidate's share, percent.
    weight: u32,
    /// The step it is at, from 1; null without a candidate.
    step: Option<usize>,
    steps: usize,
    /// `not_enough`, `pass` or `fail`; null without a candidate.
    verdict: Option<&'static str>,
    /// Why, with the numbers.
    told: Option<String>,
    /// The newest last.
    changes: Vec<RolloutChange>,
}

/// What became of a candidate.
#[derive(Debug, Serialize, JsonSchema)]
struct RolloutChange {
    #[schemars(with = "Moment")]
    at: String,
    /// `started`, `advanced`, `promoted` or `rolled_back`.
    kind: String,
    version: String,
    weight: u32,
    reason: String,
    /// Id of the action that did it.
    action: String,
}

/// An experiment.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Experiment {
    name: String,
    agent: String,
    /// The attribute that tells the sides apart.
    by: String,
    control: String,
    treatment: String,
    /// The treatment's intended share, percent.
    share: u32,
    route: Option<String>,
    metric: &'static str,
    min_effect: f64,
    /// When it began; null while it has not.
    #[schemars(with = "Option<Moment>")]
    since: Option<String>,
    /// When there was a verdict; null while there is none.
    #[schemars(with = "Option<Moment>")]
    decided: Option<String>,
    /// `undecided`, `treatment`, `control` or `no_difference`.
    verdict: &'static str,
    /// Why, with the numbers.
    told: String,
    control_units: u64,
    treatment_units: u64,
    /// Mean of the treatment less that of the control; null before there is one.
    difference: Option<f64>,
    /// Lower end of the interval that holds the true difference at any time.
    low: Option<f64>,
    /// Upper end of it.
    high: Option<f64>,
    /// Always-valid p-value.
    p_value: Option<f64>,
    /// Guardrails that the treatment breaches.
    breached: Vec<String>,
    /// What else is to be known; empty for nothing.
    note: String,
}

/// A policy.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Policy {
    policy: String,
    /// Whom it is about, as in `agent=payment`.
    subject: String,
    when: String,
    /// What the condition speaks of; null for what is missing.
    values: BTreeMap<String, Option<f64>>,
    /// `quiet`, `waiting`, `firing` or `unknown`.
    phase: serde_json::Value,
    /// Since when it fires.
    #[schemars(with = "Option<Moment>")]
    since: Option<String>,
    /// Why it cannot be told; empty when it can.
    unknown: String,
    is_dry_run: bool,
}

/// A page of one kind of them, in the order of their names.
fn listed<T: Clone, S, K: Ord + Serialize + serde::de::DeserializeOwned>(
    app: &Shared,
    params: &Params,
    list: Keyed,
    of: impl Fn(&Standing) -> &[T],
    key: impl Fn(&T) -> K,
    shape: impl Fn(&T) -> S,
) -> Result<Json<Page<S>>, Failure> {
    let standing = app.web.governance.standing.borrow().clone();
    Ok(Json(page(params, list, of(&standing).to_vec(), key, shape)?))
}

fn page<T, S, K: Ord + Serialize + serde::de::DeserializeOwned>(
    params: &Params,
    list: Keyed,
    mut all: Vec<T>,
    key: impl Fn(&T) -> K,
    shape: impl Fn(&T) -> S,
) -> Result<Page<S>, Failure> {
    let (after, limit) = (list.key(params)?, params.limit()?);
    all.sort_by_key(&key);
    let page = paging::page(list, all, key, after.as_ref(), limit)?;
    Ok(Page { items: page.items.iter().map(shape).collect(), next: page.next })
}

/// `GET /api/v1/slos`
pub(crate) async fn slos(
    State(app): State<Shared>,
    params: Params,
) -> Result<Json<Page<Objective>>, Failure> {
    let key = |one: &ObjectiveStatus| (one.slo.clone(), one.objective.clone());
    listed(&app, &params, Keyed::Slos, |standing| &standing.slos, key, objective)
}

/// `GET /api/v1/rollouts`
pub(crate) async fn rollouts(
    State(app): State<Shared>,
    params: Params,
) -> Result<Json<Page<Rollout>>, Failure> {
    let key = |one: &RolloutStanding| one.rollout.name.clone();
    listed(&app, &params, Keyed::Rollouts, |standing| &standing.rollouts, key, rollout)
}

/// `GET /api/v1/experiments`
pub(crate) async fn experiments(
    State(app): State<Shared>,
    params: Params,
) -> Result<Json<Page<Experiment>>, Failure> {
    let key = |one: &ExperimentStanding| one.name.clone();
    listed(&app, &params, Keyed::Experiments, |standing| &standing.experiments, key, experiment)
}

/// `GET /api/v1/policies`
pub(crate) async fn policies(
    State(app): State<Shared>,
    params: Params,
) -> Result<Json<Page<Policy>>, Failure> {
    let key = |one: &PolicyStatus| one.policy.clone();
    listed(&app, &params, Keyed::Policies, |standing| &standing.policies, key, policy)
}

fn objective(of: &ObjectiveStatus) -> Objective {
    Objective {
        slo: of.slo.clone(),
        objective: of.objective.clone(),
        target: of.target,
        attained: of.attainment,
        error_budget_consumption_rate: of.budget.consumption,
        budget_remaining: of.budget.remaining,
        burn_rate_1h: of.burn_rate_1h,
        health: super::to_json(&of.health),
        firing: of.firing.clone(),
    }
}

fn rollout(of: &RolloutStanding) -> Rollout {
    let (state, spec) = (&of.rollout, &of.spec);
    let (verdict, told) = match &of.verdict {
        None => (None, None),
        Some(Verdict::NotEnough(why)) => (Some("not_enough"), Some(why.clone())),
        Some(Verdict::Pass(why)) => (Some("pass"), Some(why.clone())),
        Some(Verdict::Fail(why)) => (Some("fail"), Some(why.clone())),
    };
    let change = |one: &Change| RolloutChange {
        at: rfc3339(one.at_unix_nano),
        kind: one.kind.clone(),
        version: one.version.clone(),
        weight: one.weight,
        reason: one.reason.clone(),
        action: one.action.clone(),
    };
    Rollout {
        name: state.name.clone(),
        agent: spec.agent.clone(),
        route: spec.route.clone(),
        stable: state.stable.clone(),
        candidate: state.candidate.clone(),
        weight: of.weight,
        step: match state.phase {
            Phase::Stable => None,
            Phase::Progressing { step } => Some(step + 1),
        },
        steps: spec.steps.len(),
        verdict,
        told,
        changes: state.changes.iter().map(change).collect(),
    }
}

fn experiment(of: &ExperimentStanding) -> Experiment {
    let spec = &of.spec;
    let result = of.result.as_ref();
    let difference = result.and_then(|result| result.difference);
    let breached = |result: &ExperimentResult| {
        let breached = result.guardrails.iter().filter(|one| one.is_breached);
        breached.map(|one| one.metric.clone()).collect()
    };
    Experiment {
        name: of.name.clone(),
        agent: spec.agent.clone(),
        by: spec.by.clone(),
        control: spec.control.clone(),
        treatment: spec.treatment.clone(),
        share: spec.share,
        route: spec.route.clone(),
        metric: spec.metric.as_str(),
        min_effect: spec.min_effect,
        since: of.run.as_ref().map(|run| rfc3339(run.since_unix_nano)),
        decided: of.run.as_ref().and_then(|run| run.decided_unix_nano).map(rfc3339),
        verdict: result.map_or(experiment::Verdict::Undecided, |result| result.verdict).as_str(),
        told: result.map(|result| result.reason.clone()).unwrap_or_default(),
        control_units: result.map_or(0, |result| result.control_units),
        treatment_units: result.map_or(0, |result| result.treatment_units),
        difference: difference.map(|of| of.difference),
        low: difference.map(|of| of.low),
        high: difference.map(|of| of.high),
        p_value: difference.map(|of| of.p_value),
        breached: result.map(breached).unwrap_or_default(),
        note: of.note.clone(),
    }
}

fn policy(of: &PolicyStatus) -> Policy {
    Policy {
        policy: of.policy.clone(),
        subject: of.subject.clone(),
        when: of.when.clone(),
        values: of.values.clone(),
        phase: super::to_json(&of.phase),
        since: of.since_unix_nano.map(rfc3339),
        unknown: of.unknown.clone(),
        is_dry_run: of.is_dry_run,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_listed_by_name_whatever_their_order_and_page_by_page() {
        let names = ["b", "d", "a", "c"].map(str::to_owned).to_vec();
        let (mut seen, mut query) = (Vec::new(), "limit=3".to_owned());
        loop {
            let params = Params::of_query(&query);
            let read = page(&params, Keyed::Policies, names.clone(), Clone::clone, Clone::clone);
            let read = read.expect("a page");
            seen.extend(read.items);
            let Some(next) = read.next else { break };
            query = format!("limit=3&cursor={next}");
        }
        assert_eq!(seen, ["a", "b", "c", "d"]);
    }
}
