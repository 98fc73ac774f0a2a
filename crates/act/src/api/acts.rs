//! Actions, findings, and the switch that stops every automatic action.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use throughline_store::{ActionState, FindingFilter, parse_moment};
use throughline_trace::access::ApiKey;
use throughline_trace::{Action, DIRECTIVE_ID_MAX_CHARS, Operation, Subject, TraceId};

use super::asked::{InQuery, Sent};
use super::forms::{Labels, OperationGiven, TraceIdGiven};
use super::paging::{self, List};
use super::shapes::{self, ActionShape, FindingShape, Page, PauseShape};
use super::{Refused, person, read};
use crate::actor::Actor;
use crate::directives::ask;
use crate::moments::now_unix_nano;

/// Characters of a reason at most.
const MAX_REASON_CHARS: usize = 1_000;

/// Which actions.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WhichActions {
    state: Option<String>,
    cursor: Option<String>,
    limit: Option<usize>,
}

/// `GET /api/v1/actions`: what was asked for and what became of it, the newest first.
pub(super) async fn list(
    State(actor): State<Actor>,
    InQuery(which): InQuery<WhichActions>,
) -> Result<Json<Page<ActionShape>>, Refused> {
    let state = match which.state.as_deref() {
        None => None,
        Some(text) => {
            Some(ActionState::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(
                || Refused::parameter("state", "asked, done, failed, refused or dry_run", text),
            )?)
        }
    };
    let limit = paging::limit(which.limit)?;
    let after: Option<String> = List::Actions.key(which.cursor.as_deref())?;
    let found = ask(&actor.inner.governance, move |governance| {
        governance.actions_behind(state, after.as_deref(), limit + 1)
    });
    let found = found.await.map_err(Refused::storage)?;
    let shape = |record| shapes::action(&record);
    Ok(Json(paging::page(List::Actions, found, limit, |one| one.action.id.clone(), shape)))
}

/// What a person orders.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ActionOrder")]
pub(super) struct Ordered {
    /// The same id means the same action, however often it is ordered.
    #[serde(default)]
    #[schemars(length(min = 1, max = 256))]
    pub(super) id: Option<String>,
    /// The finding that it is about: its subject and evidence count where none are given.
    #[serde(default)]
    pub(super) finding: String,
    #[serde(default)]
    #[schemars(with = "Labels")]
    pub(super) subject: Subject,
    #[schemars(with = "OperationGiven")]
    pub(super) operation: Operation,
    /// Why, for people.
    #[schemars(length(min = 1, max = 1_000))]
    pub(super) reason: String,
    #[serde(default)]
    #[schemars(with = "Vec<TraceIdGiven>")]
    pub(super) evidence: Vec<TraceId>,
    /// Only tell what would be done.
    #[serde(default)]
    pub(super) is_dry_run: bool,
}

/// The action of a person.
pub(super) fn order(ordered: Ordered, by: &str) -> Result<Action, Refused> {
    let Ordered { id, finding, subject, operation, reason, evidence, is_dry_run } = ordered;
    let count = reason.chars().count();
    if !(1..=MAX_REASON_CHARS).contains(&count) {
        return Err(Refused::bad_body(format!(
            "expected a `reason` of 1 to {MAX_REASON_CHARS} characters, got {count}"
        )));
    }
    let asked = Action::of_person((by, &reason), subject, operation, now_unix_nano());
    let id = id.unwrap_or_else(|| asked.id.clone());
    let count = id.chars().count();
    if !(1..=DIRECTIVE_ID_MAX_CHARS).contains(&count) {
        return Err(Refused::bad_body(format!(
            "expected an `id` of 1 to {DIRECTIVE_ID_MAX_CHARS} characters, got {count}"
        )));
    }
    Ok(Action { id, finding, evidence, is_dry_run, ..asked })
}

/// `POST /api/v1/actions`: a person has something done.
pub(super) async fn run(
    State(actor): State<Actor>,
    key: Option<Extension<ApiKey>>,
    Sent(body): Sent,
) -> Result<(StatusCode, Json<ActionShape>), Refused> {
    let mut action = order(read(&body)?, &person(key.as_ref()))?;
    if !action.finding.is_empty() {
        let id = action.finding.clone();
        let found = ask(&actor.inner.governance, move |governance| governance.finding(&id)).await;
        let Some(found) = found.map_err(Refused::storage)? else {
            return Err(Refused::not_found("finding", &action.finding));
        };
        if action.subject.0.is_empty() {
            action.subject = found.subject;
        }
        if action.evidence.is_empty() {
            action.evidence = found.evidence;
        }
    }
    let record = actor.ask_and_perform(action).await.map_err(Refused::storage)?;
    Ok((StatusCode::CREATED, Json(shapes::action(&record))))
}

/// Which findings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WhichFindings {
    firing: Option<bool>,
    rule: Option<String>,
    since: Option<String>,
    cursor: Option<String>,
    limit: Option<usize>,
}

/// `GET /api/v1/findings`: what rules saw, the newest first.
pub(super) async fn findings(
    State(actor): State<Actor>,
    InQuery(which): InQuery<WhichFindings>,
) -> Result<Json<Page<FindingShape>>, Refused> {
    let limit = paging::limit(which.limit)?;
    let since = match which.since.as_deref() {
        None => None,
        Some(text) => Some(parse_moment(text, now_unix_nano()).ok_or_else(|| {
            Refused::parameter("since", "a time such as 15m, 24h, 7d or RFC 3339", text)
        })?),
    };
    let filter = FindingFilter {
        is_firing: which.firing.unwrap_or(false),
        rule: which.rule,
        since_unix_nano: since,
        after: List::Findings.key(which.cursor.as_deref())?,
        limit: limit + 1,
    };
    let found = ask(&actor.inner.governance, move |governance| governance.findings(&filter)).await;
    let found = found.map_err(Refused::storage)?;
    let shape = |one| shapes::finding(&one);
    Ok(Json(paging::page(List::Findings, found, limit, |one| one.id.clone(), shape)))
}

/// Why a switch is turned.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Why")]
pub(super) struct Why {
    /// For people.
    reason: String,
}

/// `GET /api/v1/actions/pause`: whether automatic actions are stopped.
pub(super) async fn pause_state(State(actor): State<Actor>) -> Result<Json<PauseShape>, Refused> {
    let pause = ask(&actor.inner.governance, |governance| governance.pause()).await;
    Ok(Json(shapes::pause(&pause.map_err(Refused::storage)?)))
}

/// `POST /api/v1/actions/pause`: stops every automatic action, over restarts too.
pub(super) async fn pause(
    State(actor): State<Actor>,
    key: Option<Extension<ApiKey>>,
    Sent(body): Sent,
) -> Result<Json<PauseShape>, Refused> {
    switch(&actor, true, person(key.as_ref()), &body).await
}

/// `POST /api/v1/actions/resume`: lets them go on.
pub(super) async fn resume(
    State(actor): State<Actor>,
    key: Option<Extension<ApiKey>>,
    Sent(body): Sent,
) -> Result<Json<PauseShape>, Refused> {
    switch(&actor, false, person(key.as_ref()), &body).await
}

async fn switch(
    actor: &Actor,
    is_on: bool,
    by: String,
    body: &[u8],
) -> Result<Json<PauseShape>, Refused> {
    let Why { reason } = read(body)?;
    let turned = ask(&actor.inner.governance, move |governance| {
        governance.set_pause(is_on, &by, &reason)?;
        governance.pause()
    });
    let pause = turned.await.map_err(Refused::storage)?;
    tracing::info!(is_paused = pause.is_on, person = pause.person, "automatic actions");
    Ok(Json(shapes::pause(&pause)))
}
