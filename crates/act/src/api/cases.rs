//! Cases that people decide: takeovers and incidents.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, Path, State};
use serde::Deserialize;
use serde_json::{Value, json};
use throughline_trace::access::ApiKey;
use throughline_trace::{Action, DirectiveAction, Operation};

use super::{Refused, person, read};
use crate::actor::Actor;
use crate::actor::incidents::{KIND, NotChanged, incidents as all_incidents};
use crate::directives::ask;
use crate::incident::{Change, Incident};
use crate::moments::{NANOS_PER_SEC, now_unix_nano, rfc3339, unix_nano_of};
use crate::standing::{Standing, body as body_of};
use crate::takeover::{self, Takeover, TakeoverState};

/// How long an order to hand over holds, seconds: a working day.
const HAND_OVER_TTL_S: u64 = 8 * 3_600;

/// Who takes over when nobody is named.
const A_HUMAN: &str = "human";

/// `GET /api/v1/takeovers`: cases that wait for a person, or did, the one that changed last first.
pub(super) async fn takeovers(State(actor): State<Actor>) -> Result<Json<Value>, Refused> {
    let found = ask(&actor.inner.governance, |governance| governance.documents(takeover::KIND));
    let found = found.await.map_err(Refused::storage)?;
    let items: Vec<Value> =
        found.iter().filter_map(body_of::<Takeover>).map(|case| of_case(&case)).collect();
    Ok(Json(json!({ "items": items })))
}

/// `POST /api/v1/takeovers/{id}/approve`: a person takes over; the agents that are meant are told.
pub(super) async fn approve(
    State(actor): State<Actor>,
    Path(id): Path<String>,
    key: Option<Extension<ApiKey>>,
    body: Bytes,
) -> Result<Json<Value>, Refused> {
    decide(actor, id, true, person(key.as_ref()), &body).await
}

/// `POST /api/v1/takeovers/{id}/reject`: the agent goes on.
pub(super) async fn reject(
    State(actor): State<Actor>,
    Path(id): Path<String>,
    key: Option<Extension<ApiKey>>,
    body: Bytes,
) -> Result<Json<Value>, Refused> {
    decide(actor, id, false, person(key.as_ref()), &body).await
}

/// What a person may write about a case.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Decided {
    note: String,
}

async fn decide(
    actor: Actor,
    id: String,
    is_approved: bool,
    by: String,
    body: &[u8],
) -> Result<Json<Value>, Refused> {
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
) -> Result<Json<Value>, Refused> {
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
    let mut answer = of_case(&case);
    if case.state == TakeoverState::Approved {
        let order = order_of(&case).ok_or_else(|| Refused::conflict(case.names_nobody()))?;
        let record = actor.ask_and_perform(order).await.map_err(Refused::storage)?;
        answer["action"] = super::acts::answer(&record);
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

fn of_case(case: &Takeover) -> Value {
    let mut json = serde_json::to_value(case).unwrap_or_default();
    as_moments(&mut json);
    json
}

/// `GET /api/v1/incidents`: the one that changed last first.
pub(super) async fn incidents(State(actor): State<Actor>) -> Result<Json<Value>, Refused> {
    let found = ask(&actor.inner.governance, all_incidents).await.map_err(Refused::storage)?;
    let items: Vec<Value> = found.iter().map(of_incident).collect();
    Ok(Json(json!({ "items": items })))
}

/// `GET /api/v1/incidents/{id}`: one, with its timeline.
pub(super) async fn incident(
    State(actor): State<Actor>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refused> {
    let name = id.clone();
    let found = ask(&actor.inner.governance, move |governance| governance.document(KIND, &name));
    let found = found.await.map_err(Refused::storage)?;
    let incident = found.as_ref().and_then(body_of::<Incident>);
    match incident {
        Some(incident) => Ok(Json(of_incident(&incident))),
        None => Err(Refused::not_found("incident", &id)),
    }
}

/// What a change needs.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Asked {
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
    Path((id, change)): Path<(String, String)>,
    key: Option<Extension<ApiKey>>,
    body: Bytes,
) -> Result<Json<Value>, Refused> {
    let now = now_unix_nano();
    let change = change_of(&change, read(&body)?, now)?;
    let changed = actor.change_incident(&id, change, &person(key.as_ref()), now).await;
    match changed {
        Ok(incident) => Ok(Json(of_incident(&incident))),
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

fn of_incident(incident: &Incident) -> Value {
    let mut json = serde_json::to_value(incident).unwrap_or_default();
    as_moments(&mut json);
    // Hashes tell people nothing.
    json.as_object_mut().map(|fields| fields.remove("counted"));
    for entry in json["timeline"].as_array_mut().into_iter().flatten() {
        as_moments(entry);
    }
    json
}

/// Writes `x_unix_nano` as `x`, RFC 3339: such numbers do not fit those of JavaScript.
pub(super) fn as_moments(json: &mut Value) {
    let Value::Object(fields) = json else { return };
    let names: Vec<String> =
        fields.keys().filter(|name| name.ends_with("_unix_nano")).cloned().collect();
    for name in names {
        let moment = fields.remove(&name).and_then(|value| value.as_u64()).map(rfc3339);
        let short = name.trim_end_matches("_unix_nano").to_owned();
        fields.insert(short, moment.map_or(Value::Null, Value::from));
    }
}
