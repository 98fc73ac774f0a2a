//! What people do about a contract with a button: it is asked for as any other action, and done by whoever
//! acts.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;
use throughline_api::InPath;
use throughline_govern::contract::Contract;
use throughline_store::{ActionRecord, ActionState, Evaluation};
use throughline_trace::{Action, ContractStep, Operation, Subject};

use crate::contracts;
use crate::doors::Visitor;
use crate::failure::{Failure, shown};
use crate::form::{ShortForm, check_token};
use crate::governance::remembered;
use crate::state::{App, Shared};

/// How long the page waits for it to be done.
const WAIT: Duration = Duration::from_secs(5);

/// How often it is looked.
const POLL: Duration = Duration::from_millis(50);

/// Characters of a reason at most.
const MAX_REASON_CHARS: usize = 300;

#[derive(Debug, Deserialize)]
pub(crate) struct Answered {
    #[serde(default)]
    token: String,
    step: String,
    /// The offer, or the version, that is meant.
    number: Option<u64>,
    #[serde(default)]
    expect: String,
    #[serde(default)]
    objective: String,
    #[serde(default)]
    reason: String,
}

/// `POST /governance/contracts/{name}`
pub(crate) async fn answer(
    State(app): State<Shared>,
    visitor: Visitor,
    InPath(name): InPath<String>,
    headers: HeaderMap,
    ShortForm(form): ShortForm<Answered>,
) -> Result<Response, Failure> {
    check_token(&app, &headers, &form.token)?;
    let (governance, wanted) = (app.web.governance.governance.clone(), name.clone());
    let found = remembered(move || contracts::one(&governance, &wanted)).await?;
    let found = found.ok_or_else(|| Failure::not_found("contract", &name))?.contract;
    let step = step(&found, &form)?;
    let by = visitor.key.as_ref().map_or("somebody on the page", |key| key.name.as_str());
    let reason: String = match form.reason.trim() {
        "" => "the button on the page".to_owned(),
        told => told.chars().take(MAX_REASON_CHARS).collect(),
    };
    let subject = Subject::of("contract", name.as_str());
    let operation = Operation::Contract { contract: name.clone(), step };
    let action = Action {
        evidence: found.evidence(),
        ..Action::of_person((by, &reason), subject, operation, visitor.now_unix_nano)
    };
    let record = ask(&app, action).await?;
    match record.map(|record| (record.state, record.detail)) {
        Some((ActionState::Refused, detail)) => Err(Failure::new(
            StatusCode::CONFLICT,
            "conflict",
            detail,
            "load the page of the contract again and look how it stands",
        )),
        Some((ActionState::Failed, detail)) => Err(wrong(detail)),
        _ => Ok(Redirect::to(&format!("/governance/contracts/{name}")).into_response()),
    }
}

fn wrong(detail: String) -> Failure {
    let hint = "docs/governance.md tells what a contract may say";
    Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_body", detail, hint)
}

fn step(contract: &Contract, form: &Answered) -> Result<ContractStep, Failure> {
    let offer = form.number;
    Ok(match form.step.as_str() {
        "accept" => ContractStep::Accept { offer },
        "reject" => ContractStep::Reject { offer },
        "withdraw" => ContractStep::Withdraw,
        "restore" => ContractStep::Restore { version: offer.unwrap_or_default() },
        "counter" => {
            let objective: f64 = form.objective.trim().parse().map_err(|_| {
                let got = shown(&form.objective);
                wrong(format!("expected an objective between 0 and 1, got {got:?}"))
            })?;
            let last = contract.proposal.as_ref().and_then(|proposal| proposal.last());
            let last = last.ok_or_else(|| wrong("expected a proposal, got none".to_owned()))?;
            // A browser sends line ends of its own.
            let expect = form.expect.replace("\r\n", "\n");
            let terms = last.terms.with_expect(&expect).with_objective(objective).as_json();
            ContractStep::Counter { terms, offer }
        }
        other => {
            let got = shown(other);
            let expected = "expected accept, counter, reject, withdraw or restore";
            return Err(wrong(format!("{expected}, got {got:?}")));
        }
    })
}

/// Asks for it and waits a while until it is done; `None` when it is not by then, and will be.
async fn ask(app: &App, action: Action) -> Result<Option<ActionRecord>, Failure> {
    let governance = app.web.governance.governance.clone();
    let id = action.id.clone();
    let asked = Evaluation { actions: vec![action], ..Evaluation::default() };
    remembered(move || governance.commit(&asked)).await?;
    let until = tokio::time::Instant::now() + WAIT;
    loop {
        let (governance, id) = (app.web.governance.governance.clone(), id.clone());
        let record = remembered(move || governance.action(&id)).await?;
        let done = record.filter(|record| record.state != ActionState::Asked);
        if done.is_some() || tokio::time::Instant::now() >= until {
            return Ok(done);
        }
        tokio::time::sleep(POLL).await;
    }
}
