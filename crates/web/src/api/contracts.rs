//! `/api/v1/contracts`: what services have agreed on, what is proposed, and the versions that are kept. Steps
//! are taken by posting (docs/governance.md).

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use throughline_api::InPath;
use throughline_govern::contract as model;
use throughline_trace::TraceId;

use super::forms::{Moment, TraceIdText};
use super::paging::{self, Keyed};
use super::shapes::Page;
use crate::contracts::{self, Kept, KeptVersion};
use crate::failure::Failure;
use crate::format::rfc3339;
use crate::governance::{Standing, remembered};
use crate::params::Params;
use crate::state::Shared;

/// A contract between two services.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Contract {
    name: String,
    /// The rule file that holds it, and by which alone it is changed; null when it is negotiated.
    file: Option<String>,
    /// The version that is watched; null when none is.
    in_force: Option<u64>,
    /// The newest version; 0 for none.
    versions: u64,
    /// What is in force: `spec` of a rule file of kind Contract.
    terms: Option<Value>,
    /// The share of calls that shall be as agreed.
    objective: Option<f64>,
    /// The share that was, over the window of the contract, by the last evaluation of rules; null when it is
    /// not known.
    attained: Option<f64>,
    /// When it changed last.
    #[schemars(with = "Moment")]
    changed: String,
    /// The proposal that was made last.
    proposal: Option<Proposal>,
}

/// A proposal.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ContractProposal")]
struct Proposal {
    /// 1 for the first of its contract.
    number: u64,
    /// `proposed`, `insufficient`, `countered`, `accepted`, `rejected` or `superseded`.
    state: &'static str,
    /// `provider` or `consumer`: who may accept or counter; null when it is over.
    turn: Option<&'static str>,
    /// Over how much of what is stored answers are measured, seconds.
    measured_over_s: u64,
    /// Who ended it; empty while it is open, and when what was measured did.
    ended_by: String,
    offers: Vec<Offer>,
}

/// Terms that one side offers the other.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ContractOffer")]
struct Offer {
    number: u64,
    side: &'static str,
    terms: Value,
    /// Who offered it; empty when it was measured.
    by: String,
    #[schemars(with = "Moment")]
    at: String,
    answer: Option<Answer>,
}

/// What was answered from what was measured.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ContractAnswer")]
struct Answer {
    #[schemars(with = "Moment")]
    at: String,
    /// `accept`, `counter`, `insufficient` or `decline`.
    verdict: &'static str,
    /// The same in words, with its numbers.
    told: String,
    /// Calls that are needed beside these at least, when they are insufficient.
    more_calls: Option<u64>,
    /// What was offered instead.
    terms: Option<Value>,
    /// The stored history that was counted: from.
    #[schemars(with = "Moment")]
    from: String,
    /// The stored history that was counted: up to.
    #[schemars(with = "Moment")]
    to: String,
    /// Calls that are meant.
    meant: u64,
    /// Those of them that could be judged.
    judged: u64,
    /// Those of them that were as proposed.
    good: u64,
    /// Calls for which `expect` had no value.
    unjudged: u64,
    /// The share that was as proposed; null without calls.
    attained: Option<f64>,
    /// The lower end of Wilson's 95 % interval of that share.
    at_least: f64,
    /// The same with larger limits of `response.latency_ms`, the smallest first.
    at_limits: Vec<AtLimit>,
    #[schemars(with = "Vec<TraceIdText>")]
    evidence: Vec<TraceId>,
}

/// What holds with another limit of the latency.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ContractAtLimit")]
struct AtLimit {
    limit_ms: f64,
    judged: u64,
    good: u64,
    at_least: f64,
}

/// A contract with all its versions.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ContractHistory")]
pub(crate) struct History {
    #[serde(flatten)]
    contract: Contract,
    /// The newest first.
    history: Vec<VersionShape>,
}

/// Terms that were agreed.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ContractVersion")]
struct VersionShape {
    version: u64,
    #[schemars(with = "Moment")]
    at: String,
    /// Who agreed; empty when what was measured decided.
    by: String,
    terms: Value,
    /// The proposal that led to it; null for a rule file.
    proposal: Option<u64>,
    /// The offer that was accepted; null for a rule file.
    offer: Option<u64>,
    /// The rule file; empty for a proposal.
    file: String,
    /// What was measured last before it was agreed.
    evidence: Option<Answer>,
}

/// `GET /api/v1/contracts`
pub(crate) async fn list(
    State(app): State<Shared>,
    params: Params,
) -> Result<Json<Page<Contract>>, Failure> {
    let (after, limit) = (Keyed::Contracts.key(&params)?, params.limit()?);
    let governance = app.web.governance.governance.clone();
    let all = remembered(move || contracts::all(&governance)).await?;
    let standing = app.web.governance.standing.borrow().clone();
    let key = |kept: &Kept| kept.contract.name.clone();
    let page = paging::page(Keyed::Contracts, all, key, after.as_ref(), limit)?;
    let items = page.items.iter().map(|one| contract(one, &standing)).collect();
    Ok(Json(Page { items, next: page.next }))
}

/// `GET /api/v1/contracts/{contract}`
pub(crate) async fn one(
    State(app): State<Shared>,
    InPath(name): InPath<String>,
) -> Result<Json<History>, Failure> {
    let (governance, wanted) = (app.web.governance.governance.clone(), name.clone());
    let read = move || {
        let found = contracts::one(&governance, &wanted)?;
        Ok((found, contracts::versions(&governance, &wanted)?))
    };
    let (found, versions) = remembered(read).await?;
    let found = found.ok_or_else(|| Failure::not_found("contract", &name))?;
    let standing = app.web.governance.standing.borrow().clone();
    let history = versions.iter().map(version).collect();
    Ok(Json(History { contract: contract(&found, &standing), history }))
}

fn contract(kept: &Kept, standing: &Standing) -> Contract {
    let of = &kept.contract;
    let file = match &of.owner {
        model::Owner::File { file } => Some(file.clone()),
        model::Owner::Negotiated => None,
    };
    Contract {
        name: of.name.clone(),
        file,
        in_force: of.in_force,
        versions: of.versions,
        terms: kept.terms.as_ref().map(model::Terms::as_json),
        objective: kept.terms.as_ref().map(model::Terms::objective),
        attained: kept.attained(standing),
        changed: rfc3339(kept.at_unix_nano),
        proposal: of.proposal.as_ref().map(proposal),
    }
}

fn proposal(of: &model::Proposal) -> Proposal {
    Proposal {
        number: of.number,
        state: of.state.as_str(),
        turn: of.state.turn().map(model::Side::as_str),
        measured_over_s: of.measured_over_s,
        ended_by: of.ended_by.clone(),
        offers: of.offers.iter().map(offer).collect(),
    }
}

fn offer(of: &model::Offer) -> Offer {
    Offer {
        number: of.number,
        side: of.side.as_str(),
        terms: of.terms.as_json(),
        by: of.by.clone(),
        at: rfc3339(of.at_unix_nano),
        answer: of.answer.as_ref().map(answer),
    }
}

fn answer(said: &model::Answer) -> Answer {
    let measured = &said.measured;
    let (more_calls, offered) = match &said.verdict {
        model::Verdict::Insufficient { more_calls } => (Some(*more_calls), None),
        model::Verdict::Counter { terms } => (None, Some(terms.as_json())),
        model::Verdict::Accept | model::Verdict::Decline => (None, None),
    };
    let at_limit = |of: &model::AtLimit| AtLimit {
        limit_ms: of.limit_ms,
        judged: of.judged.calls,
        good: of.judged.good,
        at_least: of.judged.interval().0,
    };
    Answer {
        at: rfc3339(said.at_unix_nano),
        verdict: said.verdict.as_str(),
        told: said.told.clone(),
        more_calls,
        terms: offered,
        from: rfc3339(measured.from_unix_nano),
        to: rfc3339(measured.to_unix_nano),
        meant: measured.meant,
        judged: measured.proposed.calls,
        good: measured.proposed.good,
        unjudged: measured.unjudged(),
        attained: measured.proposed.share(),
        at_least: measured.proposed.interval().0,
        at_limits: measured.at_limits.iter().map(at_limit).collect(),
        evidence: said.evidence.clone(),
    }
}

fn version(of: &KeptVersion) -> VersionShape {
    let said = &of.version;
    VersionShape {
        version: of.number,
        at: rfc3339(of.at_unix_nano),
        by: of.by.clone(),
        terms: said.terms.as_json(),
        proposal: said.proposal,
        offer: said.offer,
        file: said.file.clone(),
        evidence: said.evidence.as_ref().map(answer),
    }
}
