//! Steps of the negotiation of contracts between services, each an action of a person. What is kept of
//! them is read elsewhere (`GET /api/v1/contracts`).

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use throughline_api::InPath;
use throughline_store::{ActionState, Document};
use throughline_trace::access::ApiKey;
use throughline_trace::{ContractStep, Operation, Subject, TraceId};

use super::acts::{Ordered, order};
use super::asked::Sent;
use super::forms::TermsGiven;
use super::shapes::{self, ActionShape};
use super::{Refused, person, read};
use crate::actor::Actor;
use crate::directives::ask;

/// Kind of the documents that keep contracts.
const KIND: &str = "contract";

/// Steps that follow a proposal.
pub(super) const STEPS: [&str; 5] = ["accept", "counter", "reject", "withdraw", "restore"];

/// Why, where a person does not say.
const NO_REASON: &str = "no reason given";

/// What is proposed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ContractProposed")]
pub(super) struct Proposed {
    #[schemars(with = "TermsGiven")]
    terms: Value,
    /// Over how much of what is stored the answer is measured, seconds; a week where it is left out.
    #[serde(default)]
    measured_over_s: Option<u64>,
    /// Why, for people.
    #[serde(default)]
    #[schemars(length(min = 1, max = 1_000))]
    reason: Option<String>,
}

/// What a step may need.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ContractStepAsked")]
pub(super) struct Asked {
    /// Of `accept`, `counter` and `reject`: the offer that is meant.
    offer: Option<u64>,
    /// Of `counter`.
    #[schemars(with = "Option<TermsGiven>")]
    terms: Option<Value>,
    /// Of `restore`.
    version: Option<u64>,
    /// Why, for people.
    #[schemars(length(min = 1, max = 1_000))]
    reason: Option<String>,
}

/// `POST /api/v1/contracts/{contract}/proposals`: the consumer proposes terms.
pub(super) async fn propose(
    State(actor): State<Actor>,
    InPath(name): InPath<String>,
    key: Option<Extension<ApiKey>>,
    Sent(body): Sent,
) -> Result<(StatusCode, Json<ActionShape>), Refused> {
    let Proposed { terms, measured_over_s, reason } = read(&body)?;
    let step = ContractStep::Propose { terms, measured_over_s };
    take(&actor, name, step, reason, &person(key.as_ref())).await
}

/// `POST /api/v1/contracts/{contract}/{step}`: `accept`, `counter`, `reject`, `withdraw` or `restore`.
pub(super) async fn step(
    State(actor): State<Actor>,
    InPath((name, step)): InPath<(String, String)>,
    key: Option<Extension<ApiKey>>,
    Sent(body): Sent,
) -> Result<(StatusCode, Json<ActionShape>), Refused> {
    let Asked { offer, terms, version, reason } = read(&body)?;
    let is_odd = |what: &str, is_given: bool| {
        let expected = format!("expected no `{what}` of a step {step:?}, got one");
        if is_given { Err(Refused::bad_body(expected)) } else { Ok(()) }
    };
    let is_answer = matches!(step.as_str(), "accept" | "counter" | "reject");
    is_odd("offer", offer.is_some() && !is_answer)?;
    is_odd("terms", terms.is_some() && step != "counter")?;
    is_odd("version", version.is_some() && step != "restore")?;
    let lacks = |what: &str| Refused::bad_body(format!("expected `{what}`, got none"));
    let step = match step.as_str() {
        "accept" => ContractStep::Accept { offer },
        "counter" => ContractStep::Counter { terms: terms.ok_or_else(|| lacks("terms"))?, offer },
        "reject" => ContractStep::Reject { offer },
        "withdraw" => ContractStep::Withdraw,
        "restore" => ContractStep::Restore { version: version.ok_or_else(|| lacks("version"))? },
        other => {
            let expected = "proposals, accept, counter, reject, withdraw or restore";
            return Err(Refused::parameter("step", expected, other));
        }
    };
    take(&actor, name, step, reason, &person(key.as_ref())).await
}

async fn take(
    actor: &Actor,
    name: String,
    step: ContractStep,
    reason: Option<String>,
    by: &str,
) -> Result<(StatusCode, Json<ActionShape>), Refused> {
    let wanted = name.clone();
    let found = ask(&actor.inner.governance, move |governance| governance.document(KIND, &wanted));
    let found = found.await.map_err(Refused::storage)?;
    if found.is_none() && !matches!(step, ContractStep::Propose { .. }) {
        return Err(Refused::not_found("contract", &name));
    }
    let ordered = Ordered {
        id: None,
        finding: String::new(),
        subject: Subject::of("contract", name.as_str()),
        operation: Operation::Contract { contract: name, step },
        reason: reason.unwrap_or_else(|| NO_REASON.to_owned()),
        evidence: found.as_ref().map(evidence).unwrap_or_default(),
        is_dry_run: false,
    };
    let record = actor.ask_and_perform(order(ordered, by)?).await.map_err(Refused::storage)?;
    match record.state {
        // The attempt is on the record all the same.
        ActionState::Refused => Err(Refused::conflict(record.detail)),
        ActionState::Failed => Err(Refused::bad_body(record.detail)),
        _ => Ok((StatusCode::CREATED, Json(shapes::action(&record)))),
    }
}

/// Traces that the answer to the last proposal named: what a person goes by who answers it.
fn evidence(contract: &Document) -> Vec<TraceId> {
    let body: Value = serde_json::from_str(&contract.body).unwrap_or_default();
    let offers = body["proposal"]["offers"].as_array();
    let of_answer = |offer: &Value| Vec::deserialize(&offer["answer"]["evidence"]).ok();
    offers.and_then(|offers| offers.iter().rev().find_map(of_answer)).unwrap_or_default()
}
