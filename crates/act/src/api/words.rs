//! A person's word: holds of routes and rollouts, and freezes that are lifted.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use throughline_api::InPath;
use throughline_trace::ROUTE_NAME_MAX_CHARS;
use throughline_trace::access::ApiKey;

use super::asked::{InQuery, Sent};
use super::cases::{Paging, documents};
use super::paging::List;
use super::shapes::{self, FreezeShape, HoldShape, Page, XdsShape};
use super::{Refused, person, read};
use crate::actor::Actor;
use crate::directives::ask;
use crate::moments::{NANOS_PER_SEC, now_unix_nano};
use crate::standing::{FREEZE, Freeze, HOLD, Hold, Standing};

/// `GET /api/v1/holds`: what people hold, or held, the one that changed last first.
pub(super) async fn holds(
    State(actor): State<Actor>,
    InQuery(paging): InQuery<Paging>,
) -> Result<Json<Page<HoldShape>>, Refused> {
    documents(&actor, HOLD, List::Holds, paging, shapes::hold).await
}

/// `GET /api/v1/freezes`: the one that changed last first.
pub(super) async fn freezes(
    State(actor): State<Actor>,
    InQuery(paging): InQuery<Paging>,
) -> Result<Json<Page<FreezeShape>>, Refused> {
    documents(&actor, FREEZE, List::Freezes, paging, shapes::freeze).await
}

/// `GET /api/v1/xds`: which Envoy took which version of the weights, or refused it and why; and the
/// weights that were set.
pub(super) async fn xds(State(actor): State<Actor>) -> Json<XdsShape> {
    let nodes = actor.inner.nodes.all().into_iter();
    let nodes = nodes.map(|(key, standing)| shapes::node(key, &standing)).collect();
    let weights = actor.inner.weights.borrow().values().map(shapes::weights).collect();
    Json(XdsShape { nodes, weights })
}

/// What a person holds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "HoldOrder")]
pub(super) struct Held {
    /// `route:NAME` or `rollout:NAME`.
    #[schemars(regex(pattern = r"^(route|rollout):[\s\S]{1,128}$"))]
    what: String,
    /// Why, for people.
    reason: String,
    /// From now, seconds; until somebody lifts it where it is left out.
    #[serde(default)]
    for_s: Option<u64>,
}

/// `POST /api/v1/holds`: no rule changes the route or rollout until it is lifted.
pub(super) async fn hold(
    State(actor): State<Actor>,
    key: Option<Extension<ApiKey>>,
    Sent(body): Sent,
) -> Result<(StatusCode, Json<HoldShape>), Refused> {
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
        Some(hold) => Ok((StatusCode::CREATED, Json(shapes::hold(&hold)))),
        None => Err(Refused::conflict("others change it too; try again".to_owned())),
    }
}

/// `POST /api/v1/holds/{what}/lift`: rules may change it again.
pub(super) async fn lift_hold(
    State(actor): State<Actor>,
    InPath(what): InPath<String>,
    key: Option<Extension<ApiKey>>,
) -> Result<Json<HoldShape>, Refused> {
    let lift = |mut hold: Hold, _: &str| {
        hold.is_lifted = true;
        hold
    };
    let lifted = lift_one(&actor, HOLD, what, person(key.as_ref()), lift).await?;
    Ok(Json(shapes::hold(&lifted)))
}

/// `POST /api/v1/freezes/{subject}/lift`: a person ends a freeze before its time, and no rule puts it
/// back before that.
pub(super) async fn lift_freeze(
    State(actor): State<Actor>,
    InPath(subject): InPath<String>,
    key: Option<Extension<ApiKey>>,
) -> Result<Json<FreezeShape>, Refused> {
    let lift = |mut freeze: Freeze, by: &str| {
        by.clone_into(&mut freeze.lifted_by);
        freeze
    };
    let lifted = lift_one(&actor, FREEZE, subject, person(key.as_ref()), lift).await?;
    Ok(Json(shapes::freeze(&lifted)))
}

async fn lift_one<T>(
    actor: &Actor,
    kind: &'static str,
    name: String,
    by: String,
    lift: impl Fn(T, &str) -> T + Send + 'static,
) -> Result<T, Refused>
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
        Some(lifted) => Ok(lifted),
        None => Err(Refused::not_found(kind, &name)),
    }
}
