//! Cases that people decide: takeovers and incidents.

use axum::Json;
use axum::extract::{Extension, State};
use schemars::JsonSchema;
use serde::Deserialize;
use throughline_api::InPath;
use throughline_store::Document;
use throughline_trace::access::ApiKey;
use throughline_trace::{Action, DirectiveAction, Operation};

use super::asked::{InQuery, Sent};
use super::paging::{self, List};
use super::shapes::{self, IncidentShape, Page, TakeoverShape};
use super::{Refused, person, read};
use crate::actor::Actor;
use crate::actor::incidents::{KIND, NotChanged};
use crate::directives::ask;
use crate::incident::{Change, Incident};
use crate::moments::{NANOS_PER_SEC, now_unix_nano, unix_nano_of};
use crate::standing::{Standing, body as body_of};
use crate::takeover::{self, Takeover, TakeoverState};

/// How long an order to hand over holds, seconds: a working day.
const HAND_OVER_TTL_S: u64 = 8 * 3_600;

/// What a person may do about an incident.
pub(super) const CHANGES: [&str; 6] =
    ["acknowledge", "silence", "assign", "note", "resolve", "reopen"];

/// Who takes over when nobody is named.
const A_HUMAN: &str = "human";

/// Which page.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Paging {
    pub(super) cursor: Option<String>,
    pub(super) limit: Option<usize>,
}

/// A page of what documents of a kind keep; those that cannot be read are told in the log and left out.
pub(super) async fn documents<T, S>(
    actor: &Actor,
    kind: &'static str,
    list: List,
    Paging { cursor, limit }: Paging,
    shape: impl Fn(&T) -> S,
) -> Result<Json<Page<S>>, Refused>
where
    T: serde::de::DeserializeOwned,
{
    let limit = paging::limit(limit)?;
    let after: Option<(u64, String)> = list.key(cursor.as_deref())?;
    let found = ask(&actor.inner.governance, move |governance| {
        let after = after.as_ref().map(|(at, name)| (*at, name.as_str()));
        governance.documents_behind(kind, after, limit + 1)
    });
    let found = found.await.map_err(Refused::storage)?;
    let key = |document: &Document| (document.at_unix_nano, document.name.clone());
    let page = paging::page(list, found, limit, key, |document| {
        body_of::<T>(&document).map(|of| shape(&of))
    });
    Ok(Json(Page { items: page.items.into_iter().flatten().collect(), next: page.next }))
}

/// `GET /api/v1/takeovers`: cases that wait for a person, or did, the one that changed last first.
pub(super) async fn takeovers(
    State(actor): State<Actor>,
    InQuery(paging): InQuery<Paging>,
) -> Result<Json<Page<TakeoverShape>>, Refused> {
    documents(&actor, takeover::KIND, List::Takeovers, paging, shapes::takeover).await
}

/// `POST /api/v1/takeovers/{id}/approve`: a person takes over; the agents that are meant are told.
pub(super) async fn approve(
    State(actor): State<Actor>,
    InPath(id): InPath<String>,
    key: Option<Extension<ApiKey>>,
    Sent(body): Sent,
) -> Result<Json<TakeoverShape>, Refused> {
    decide(actor, id, true, person(key.as_ref()), &body).await
}

/// `POST /api/v1/takeovers/{id}/reject`: the agent goes on.
pub(super) async fn reject(
    State(actor): State<Actor>,
    InPath(id): InPath<String>,
    key: Option<Extension<ApiKey>>,
    Sent(body): Sent,
) -> Result<Json<TakeoverShape>, Refused> {
    decide(actor, id, false, person(key.as_ref()), &body).await
}

/// What a person may write about a case.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "TakeoverDecided")]
pub(super) struct Decided {
    /// Why, for people.
    note: String,
}

async fn decide(
    actor: Actor,
    id: String,
    is_approved: bool,
    by: String,
    body: &[u8],
) -> Result<Json<TakeoverShape>, Refused> {
    let Decided { note } = read(body)?;
    // A click that is given up leaves no case approved whose agent was not told.
    let deciding = actor.clone();
    let decided =
        actor.to_its_end(async move { decide_one(&deciding, id, is_approved, by, note).await });
    decided.await.map_err(Refused::storage)?
}

async fn decide_one(
    actor: &Actor,
    id: String,
    is_approved: bool,
    by: String,
    note: String,
) -> Result<Json<TakeoverShape>, Refused> {
    let (name, person) = (id.clone(), by.clone());
    let decided = ask(&actor.inner.governance, move |governance| {
        let Some(known) = governance.document(takeover::KIND, &name)? else { return Ok(None) };
        let Some(known) = body_of::<Takeover>(&known) else { return Ok(None) };
        // Before anything is written: nobody could be told.
        if is_approved && known.target().is_none() {
            return Ok(Some((known, None)));
        }
        let now = now_unix_nano();
        let written = Standing(governance).change(
            takeover::KIND,
            &name,
            &person,
            |case: Option<Takeover>| case?.decide(is_approved, &person, &note, now).ok(),
        )?;
        Ok(Some((known, written)))
    });
    let case = match decided.await.map_err(Refused::storage)? {
        None => return Err(Refused::not_found("takeover", &id)),
        Some((known, None)) if is_approved && known.target().is_none() => {
            return Err(Refused::conflict(format!("{}; reject it", known.names_nobody())));
        }
        Some((_, Some(case))) => case,
        // The same decision again, after an answer that was lost, is no conflict.
        Some((known, None)) if is_decided(&known, is_approved) => known,
        Some((known, None)) => {
            return Err(Refused::conflict(format!(
                "{} decided otherwise before",
                if known.decided_by.is_empty() { "somebody" } else { &known.decided_by }
            )));
        }
    };
    let mut answer = shapes::takeover(&case);
    if case.state == TakeoverState::Approved {
        let order = order_of(&case).ok_or_else(|| Refused::conflict(case.names_nobody()))?;
        let record = actor.ask_and_perform(order).await.map_err(Refused::storage)?;
        answer.action = Some(shapes::action(&record));
    }
    Ok(Json(answer))
}

fn is_decided(case: &Takeover, is_approved: bool) -> bool {
    let wanted = if is_approved { TakeoverState::Approved } else { TakeoverState::Rejected };
    case.state == wanted
}

/// The order to hand over that an approval gives; `None` when the case names nobody.
fn order_of(case: &Takeover) -> Option<Action> {
    let target = case.target()?;
    let to = if case.to.is_empty() { A_HUMAN.to_owned() } else { case.to.clone() };
    let action = DirectiveAction::HandOver { to };
    let operation = Operation::Directive { target, action, ttl_s: HAND_OVER_TTL_S };
    let at_unix_nano = case.decided_unix_nano.unwrap_or_else(now_unix_nano);
    // A person decided: no pause of automatic actions stands against it.
    let word = (case.decided_by.as_str(), case.reason.as_str());
    Some(Action {
        id: format!("{}/approved", case.id),
        evidence: case.evidence.clone(),
        ..Action::of_person(word, case.subject.clone(), operation, at_unix_nano)
    })
}

/// `GET /api/v1/incidents`: the one that changed last first.
pub(super) async fn incidents(
    State(actor): State<Actor>,
    InQuery(paging): InQuery<Paging>,
) -> Result<Json<Page<IncidentShape>>, Refused> {
    documents(&actor, KIND, List::Incidents, paging, shapes::incident).await
}

/// `GET /api/v1/incidents/{id}`: one, with its timeline.
pub(super) async fn incident(
    State(actor): State<Actor>,
    InPath(id): InPath<String>,
) -> Result<Json<IncidentShape>, Refused> {
    let name = id.clone();
    let found = ask(&actor.inner.governance, move |governance| governance.document(KIND, &name));
    let found = found.await.map_err(Refused::storage)?;
    let incident = found.as_ref().and_then(body_of::<Incident>);
    match incident {
        Some(incident) => Ok(Json(shapes::incident(&incident))),
        None => Err(Refused::not_found("incident", &id)),
    }
}

/// What a change needs.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "IncidentAsked")]
pub(super) struct Asked {
    /// Of `silence`: RFC 3339.
    until: Option<String>,
    /// Of `silence`: from now, seconds.
    for_s: Option<u64>,
    /// Of `assign`.
    to: Option<String>,
    /// Of `note`.
    text: Option<String>,
}

/// `POST /api/v1/incidents/{id}/{change}`: what a person does about it.
pub(super) async fn change(
    State(actor): State<Actor>,
    InPath((id, change)): InPath<(String, String)>,
    key: Option<Extension<ApiKey>>,
    Sent(body): Sent,
) -> Result<Json<IncidentShape>, Refused> {
    let now = now_unix_nano();
    let change = change_of(&change, read(&body)?, now)?;
    let changed = actor.change_incident(&id, change, &person(key.as_ref()), now).await;
    match changed {
        Ok(incident) => Ok(Json(shapes::incident(&incident))),
        Err(NotChanged::Missing) => Err(Refused::not_found("incident", &id)),
        Err(NotChanged::Unfit(error)) => Err(Refused::conflict(error.to_string())),
        Err(NotChanged::Storage(error)) => Err(Refused::storage(error)),
    }
}

fn change_of(name: &str, asked: Asked, now: u64) -> Result<Change, Refused> {
    Ok(match name {
        "acknowledge" => Change::Acknowledge,
        "resolve" => Change::Resolve,
        "reopen" => Change::Reopen,
        "assign" => Change::Assign(asked.to.unwrap_or_default()),
        "note" => Change::Note(asked.text.unwrap_or_default()),
        "silence" => {
            let until = match (&asked.until, asked.for_s) {
                (Some(until), None) => unix_nano_of(until),
                (None, Some(seconds)) => {
                    Some(now.saturating_add(seconds.saturating_mul(NANOS_PER_SEC)))
                }
                _ => None,
            };
            let expected = "expected `until` (RFC 3339) or `for_s` (seconds), one of them";
            Change::Silence(until.ok_or_else(|| Refused::bad_body(expected.to_owned()))?)
        }
        other => {
            let expected = "acknowledge, silence, assign, note, resolve or reopen";
            return Err(Refused::parameter("change", expected, other));
        }
    })
}
