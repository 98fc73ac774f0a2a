//! Actions, findings, and the switch that stops every automatic action.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use throughline_store::{
    ActionRecord, ActionState, FindingFilter, MAX_GOVERNANCE_LIST, Pause, parse_moment,
};
use throughline_trace::access::ApiKey;
use throughline_trace::{Action, DIRECTIVE_ID_MAX_CHARS, Finding, Operation, Subject, TraceId};

use super::{Refused, person, read};
use crate::actor::Actor;
use crate::directives::ask;
use crate::moments::{now_unix_nano, rfc3339};
use crate::performed::told;
use crate::recorder::trace_id;

/// Items of a list when `limit` is not given.
const USUAL_LIMIT: usize = 100;

/// Characters of a reason at most.
const MAX_REASON_CHARS: usize = 1_000;

/// Which actions.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WhichActions {
    state: Option<String>,
    limit: Option<usize>,
}

/// `GET /api/v1/actions`: what was asked for and what became of it, the newest first.
pub(super) async fn list(
    State(actor): State<Actor>,
    which: Result<Query<WhichActions>, QueryRejection>,
) -> Result<Json<Value>, Refused> {
    let Query(which) = which.map_err(|error| bad_query(&error))?;
    let state = match which.state.as_deref() {
        None => None,
        Some(text) => {
            Some(ActionState::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(
                || Refused::parameter("state", "asked, done, failed, refused or dry_run", text),
            )?)
        }
    };
    let limit = limit(which.limit)?;
    let found =
        ask(&actor.inner.governance, move |governance| governance.actions(state, limit)).await;
    let items: Vec<Value> = found.map_err(Refused::storage)?.iter().map(answer).collect();
    Ok(Json(json!({ "items": items })))
}

/// What a person orders.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ordered {
    /// The same id means the same action, however often it is ordered.
    #[serde(default)]
    pub(super) id: Option<String>,
    /// The finding that it is about: its subject and evidence count where none are given.
    #[serde(default)]
    pub(super) finding: String,
    #[serde(default)]
    pub(super) subject: Subject,
    pub(super) operation: Operation,
    pub(super) reason: String,
    #[serde(default)]
    pub(super) evidence: Vec<TraceId>,
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
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), Refused> {
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
    Ok((StatusCode::CREATED, Json(answer(&record))))
}

/// An action and what became of it, as all answers have it.
pub(super) fn answer(record: &ActionRecord) -> Value {
    let action = &record.action;
    json!({
        "id": action.id,
        "rule": action.rule,
        "rule_version": action.rule_version,
        "finding": action.finding,
        "subject": action.subject,
        "at": rfc3339(action.at_unix_nano),
        "operation": action.operation,
        "told": told(&action.operation),
        "reason": action.reason,
        "evidence": action.evidence,
        "is_dry_run": action.is_dry_run,
        "state": record.state.as_str(),
        "detail": record.detail,
        "decision_id": record.decision_id,
        "trace_id": record.decision_id.map(|_| trace_id(&action.id)),
        "finished": record.finished_unix_nano.map(rfc3339),
    })
}

/// Which findings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WhichFindings {
    firing: Option<bool>,
    rule: Option<String>,
    since: Option<String>,
    limit: Option<usize>,
}

/// `GET /api/v1/findings`: what rules saw, the newest first.
pub(super) async fn findings(
    State(actor): State<Actor>,
    which: Result<Query<WhichFindings>, QueryRejection>,
) -> Result<Json<Value>, Refused> {
    let Query(which) = which.map_err(|error| bad_query(&error))?;
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
        limit: limit(which.limit)?,
    };
    let found = ask(&actor.inner.governance, move |governance| governance.findings(&filter)).await;
    let items: Vec<Value> = found.map_err(Refused::storage)?.iter().map(finding).collect();
    Ok(Json(json!({ "items": items })))
}

/// A finding, its moments as text: they do not fit the numbers of JavaScript.
fn finding(finding: &Finding) -> Value {
    json!({
        "id": finding.id,
        "rule": finding.rule,
        "rule_version": finding.rule_version,
        "kind": finding.kind,
        "subject": finding.subject,
        "severity": finding.severity,
        "state": finding.state,
        "since": rfc3339(finding.since_unix_nano),
        "at": rfc3339(finding.at_unix_nano),
        "from": rfc3339(finding.from_unix_nano),
        "to": rfc3339(finding.to_unix_nano),
        "summary": finding.summary,
        "values": finding.values,
        "confidence": finding.confidence,
        "evidence": finding.evidence,
        "runbook": finding.runbook,
    })
}

/// Why a switch is turned.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Why {
    reason: String,
}

/// `GET /api/v1/actions/pause`: whether automatic actions are stopped.
pub(super) async fn pause_state(State(actor): State<Actor>) -> Result<Json<Value>, Refused> {
    let pause = ask(&actor.inner.governance, |governance| governance.pause()).await;
    Ok(Json(of_pause(&pause.map_err(Refused::storage)?)))
}

/// `POST /api/v1/actions/pause`: stops every automatic action, over restarts too.
pub(super) async fn pause(
    State(actor): State<Actor>,
    key: Option<Extension<ApiKey>>,
    body: Bytes,
) -> Result<Json<Value>, Refused> {
    switch(&actor, true, person(key.as_ref()), &body).await
}

/// `POST /api/v1/actions/resume`: lets them go on.
pub(super) async fn resume(
    State(actor): State<Actor>,
    key: Option<Extension<ApiKey>>,
    body: Bytes,
) -> Result<Json<Value>, Refused> {
    switch(&actor, false, person(key.as_ref()), &body).await
}

async fn switch(
    actor: &Actor,
    is_on: bool,
    by: String,
    body: &[u8],
) -> Result<Json<Value>, Refused> {
    let Why { reason } = read(body)?;
    let turned = ask(&actor.inner.governance, move |governance| {
        governance.set_pause(is_on, &by, &reason)?;
        governance.pause()
    });
    let pause = turned.await.map_err(Refused::storage)?;
    tracing::info!(is_paused = pause.is_on, person = pause.person, "automatic actions");
    Ok(Json(of_pause(&pause)))
}

fn of_pause(pause: &Pause) -> Value {
    json!({
        "is_paused": pause.is_on,
        "at": (pause.at_unix_nano > 0).then(|| rfc3339(pause.at_unix_nano)),
        "person": pause.person,
        "reason": pause.reason,
    })
}

fn limit(given: Option<usize>) -> Result<usize, Refused> {
    match given {
        None => Ok(USUAL_LIMIT),
        Some(limit) if (1..=MAX_GOVERNANCE_LIST).contains(&limit) => Ok(limit),
        Some(got) => {
            let expected = format!("1 to {MAX_GOVERNANCE_LIST}");
            Err(Refused::parameter("limit", &expected, &got.to_string()))
        }
    }
}

pub(super) fn bad_query(error: &QueryRejection) -> Refused {
    Refused::parameter("query", "the parameters that docs/acting.md has", &error.body_text())
}
