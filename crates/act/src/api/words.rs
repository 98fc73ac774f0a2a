//! A person's word: holds of routes and rollouts, and freezes that are lifted.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use throughline_trace::ROUTE_NAME_MAX_CHARS;
use throughline_trace::access::ApiKey;

use super::cases::as_moments;
use super::{Refused, person, read};
use crate::actor::Actor;
use crate::directives::ask;
use crate::moments::{NANOS_PER_SEC, now_unix_nano};
use crate::standing::{FREEZE, Freeze, HOLD, Hold, Standing, body as body_of};

/// `GET /api/v1/holds`: what people hold, or held, the one that changed last first.
pub(super) async fn holds(State(actor): State<Actor>) -> Result<Json<Value>, Refused> {
    all::<Hold>(&actor, HOLD).await
}

/// `GET /api/v1/freezes`: the one that changed last first.
pub(super) async fn freezes(State(actor): State<Actor>) -> Result<Json<Value>, Refused> {
    all::<Freeze>(&actor, FREEZE).await
}

async fn all<T>(actor: &Actor, kind: &'static str) -> Result<Json<Value>, Refused>
where
    T: serde::Serialize + serde::de::DeserializeOwned,
{
    let found = ask(&actor.inner.governance, move |governance| governance.documents(kind));
    let found = found.await.map_err(Refused::storage)?;
    let items: Vec<Value> = found.iter().filter_map(body_of::<T>).map(|one| of(&one)).collect();
    Ok(Json(json!({ "items": items })))
}

fn of(thing: &impl serde::Serialize) -> Value {
    let mut json = serde_json::to_value(thing).unwrap_or_default();
    as_moments(&mut json);
    json
}

/// `GET /api/v1/xds`: which Envoy took which version of the weights, or refused it and why; and the
/// weights that were set.
pub(super) async fn xds(State(actor): State<Actor>) -> Json<Value> {
    let nodes = actor.inner.nodes.all().into_iter().map(|((node, type_url), standing)| {
        let mut json = of(&standing);
        json["node"] = node.into();
        json["type"] = type_url.rsplit('.').next().unwrap_or_default().into();
        json
    });
    let nodes: Vec<Value> = nodes.collect();
    let weights: Vec<Value> = actor.inner.weights.borrow().values().map(of).collect();
    Json(json!({ "nodes": nodes, "weights": weights }))
}

/// What a person holds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Held {
    what: String,
    reason: String,
    #[serde(default)]
    for_s: Option<u64>,
}

/// `POST /api/v1/holds`: no rule changes the route or rollout until it is lifted.
pub(super) async fn hold(
    State(actor): State<Actor>,
    key: Option<Extension<ApiKey>>,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), Refused> {
    let Held { what, reason, for_s } = read(&body)?;
    let name = what.strip_prefix("route:").or_else(|| what.strip_prefix("rollout:"));
    if !name.is_some_and(|name| (1..=ROUTE_NAME_MAX_CHARS).contains(&name.chars().count())) {
        return Err(Refused::bad_body(format!(
            "expected `what` to be route:NAME or rollout:NAME, got {what:?}"
        )));
    }
    let ends = |seconds: u64| now_unix_nano().saturating_add(seconds.saturating_mul(NANOS_PER_SEC));
    let hold = Hold {
        what,
        person: person(key.as_ref()),
        reason,
        until_unix_nano: for_s.map(ends),
        is_lifted: false,
    };
    let kept = hold.clone();
    // No rule's action that was let in before is written behind it. Held by the question itself, which
    // goes on when whoever asked does not.
    let word = Arc::clone(&actor.inner.word).lock_owned().await;
    let written = ask(&actor.inner.governance, move |governance| {
        let _word = word;
        let (what, person) = (&kept.what, &kept.person);
        Standing(governance).change(HOLD, what, person, |_: Option<Hold>| Some(kept.clone()))
    });
    match written.await.map_err(Refused::storage)? {
        Some(hold) => Ok((StatusCode::CREATED, Json(of(&hold)))),
        None => Err(Refused::conflict("others change it too; try again".to_owned())),
    }
}

/// `POST /api/v1/holds/{what}/lift`: rules may change it again.
pub(super) async fn lift_hold(
    State(actor): State<Actor>,
    Path(what): Path<String>,
    key: Option<Extension<ApiKey>>,
) -> Result<Json<Value>, Refused> {
    let lift = |mut hold: Hold, _: &str| {
        hold.is_lifted = true;
        hold
    };
    lift_one(&actor, HOLD, what, person(key.as_ref()), lift).await
}

/// `POST /api/v1/freezes/{subject}/lift`: a person ends a freeze before its time, and no rule puts it
/// back before that.
pub(super) async fn lift_freeze(
    State(actor): State<Actor>,
    Path(subject): Path<String>,
    key: Option<Extension<ApiKey>>,
) -> Result<Json<Value>, Refused> {
    let lift = |mut freeze: Freeze, by: &str| {
        by.clone_into(&mut freeze.lifted_by);
        freeze
    };
    lift_one(&actor, FREEZE, subject, person(key.as_ref()), lift).await
}

async fn lift_one<T>(
    actor: &Actor,
    kind: &'static str,
    name: String,
    by: String,
    lift: impl Fn(T, &str) -> T + Send + 'static,
) -> Result<Json<Value>, Refused>
where
    T: serde::Serialize + serde::de::DeserializeOwned + Send + 'static,
{
    let wanted = name.clone();
    let word = Arc::clone(&actor.inner.word).lock_owned().await;
    let written = ask(&actor.inner.governance, move |governance| {
        let _word = word;
        let change = |known: Option<T>| known.map(|known| lift(known, &by));
        Standing(governance).change(kind, &wanted, &by, change)
    });
    match written.await.map_err(Refused::storage)? {
        Some(lifted) => Ok(Json(of(&lifted))),
        None => Err(Refused::not_found(kind, &name)),
    }
}
