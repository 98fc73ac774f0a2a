//! `/api/v1/audit`: how the log stands, who read, erasure, holds.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use throughline_store::{
    AuditError, AuditFilter, AuditLog, AuditStatus, Hold, ReadRecord, audit_hex,
};

use crate::doors::Visitor;
use crate::failure::Failure;
use crate::format::rfc3339;
use crate::params::Params;
use crate::reads::who;
use crate::state::Shared;

/// Parameters of the list of reads.
pub(crate) const READS_PARAMS: [&str; 2] = ["cursor", "limit"];

/// Runs what blocks in the audit log.
pub(crate) async fn ask<T: Send + 'static>(
    app: &Shared,
    question: impl FnOnce(&AuditLog) -> Result<T, AuditError> + Send + 'static,
) -> Result<T, Failure> {
    let audit = app.web.audit.clone();
    match tokio::task::spawn_blocking(move || question(&audit)).await {
        Ok(answer) => answer.map_err(Failure::from),
        Err(error) => Err(Failure::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "storage",
            format!("the question ended: {error}"),
            "the server's log says more",
        )),
    }
}

impl From<AuditError> for Failure {
    fn from(error: AuditError) -> Self {
        let message = error.to_string();
        let (message, hint) = match message.rsplit_once("; ") {
            Some((message, hint)) => (message.to_owned(), hint.to_owned()),
            None => (message, String::new()),
        };
        let (status, code) = match error {
            AuditError::Held { .. } => (StatusCode::CONFLICT, "held"),
            AuditError::NoCondition | AuditError::Reason { .. } => {
                (StatusCode::BAD_REQUEST, "bad_request")
            }
            AuditError::NoSuchHold(_) => (StatusCode::NOT_FOUND, "not_found"),
            AuditError::Query(error) => return error.into(),
            _ => {
                tracing::error!(error = message, "the audit log could not be asked");
                (StatusCode::INTERNAL_SERVER_ERROR, "storage")
            }
        };
        Self::new(status, code, message, hint)
    }
}

/// `GET /api/v1/audit/verify`: head, checkpoints, anchors, the last verification by the server.
pub(crate) async fn verify(
    State(app): State<Shared>,
    params: Params,
) -> Result<Json<Value>, Failure> {
    params.expect_only(&[])?;
    Ok(Json(status_json(&ask(&app, AuditLog::status).await?)))
}

/// How the log stands, as the API and the command line tell it.
pub fn status_json(status: &AuditStatus) -> Value {
    json!({
        "log": status.log,
        "head": { "number": status.head_number, "link": audit_hex(&status.head) },
        "key": {
            "id": status.key_id,
            "public_key": audit_hex(&status.public_key),
            "is_external": status.is_key_external,
        },
        "checkpoint_count": status.checkpoints,
        "last_checkpoint": status.checkpoint.as_ref().map(|last| json!({
            "number": last.number,
            "head": audit_hex(&last.head),
            "time": rfc3339(last.time_unix_nano),
            "count": last.count,
        })),
        "anchors": status.anchors.iter().map(|anchor| json!({
            "name": anchor.name,
            "kind": anchor.kind,
            "last_number": anchor.last_number,
            "last_time": anchor.last_unix_nano.map(rfc3339),
            "failures": anchor.failures,
            "error": anchor.error,
            "tried": anchor.tried_unix_nano.map(rfc3339),
        })).collect::<Vec<_>>(),
        "last_verification": status.verification.as_ref().map(|last| json!({
            "time": rfc3339(last.time_unix_nano),
            "head_number": last.head_number,
            "records": last.records,
            "problems": last.problems,
            "first_problem": last.first_problem,
            "is_good": last.problems == 0,
        })),
    })
}

/// `GET /api/v1/audit/reads`: who read decisions, newest first.
pub(crate) async fn reads(
    State(app): State<Shared>,
    params: Params,
) -> Result<Json<Value>, Failure> {
    params.expect_only(&[&READS_PARAMS])?;
    let before =
        params.read("cursor", "the `next` of the page before", |text| text.parse().ok())?;
    let limit = params.limit()?;
    let found = ask(&app, move |audit| audit.reads(before, limit)).await?;
    let next = (found.len() == limit).then(|| found.last().map(|last| last.read.to_string()));
    let items: Vec<Value> = found.iter().map(read_json).collect();
    Ok(Json(json!({ "items": items, "next": next.flatten() })))
}

fn read_json(read: &ReadRecord) -> Value {
    json!({
        "first": rfc3339(read.first_unix_nano),
        "last": rfc3339(read.last_unix_nano),
        "who": read.who,
        "via": read.via,
        "query": read.query,
        "times": read.times,
        "rows": read.rows,
    })
}

/// What an erasure or a hold is about.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    filter: AuditFilter,
    reason: String,
}

fn order(body: Result<Json<Order>, JsonRejection>) -> Result<Order, Failure> {
    body.map(|Json(order)| order).map_err(|rejection| {
        Failure::new(
            rejection.status(),
            "bad_request",
            format!(
                "expected {{\"filter\": {{…}}, \"reason\": \"…\"}}, got: {}",
                rejection.body_text()
            ),
            "a filter has agent, session, trace_id, decision_id, after_unix_nano, before_unix_nano",
        )
    })
}

/// `POST /api/v1/audit/erase`: erases the content of decisions.
pub(crate) async fn erase(
    State(app): State<Shared>,
    visitor: Visitor,
    body: Result<Json<Order>, JsonRejection>,
) -> Result<Json<Value>, Failure> {
    let Order { filter, reason } = order(body)?;
    let by = who(&visitor);
    let erased = ask(&app, move |audit| audit.erase(&filter, &reason, &by)).await?;
    Ok(Json(json!(erased)))
}

/// `GET /api/v1/audit/holds`
pub(crate) async fn holds(
    State(app): State<Shared>,
    params: Params,
) -> Result<Json<Value>, Failure> {
    params.expect_only(&[])?;
    let holds = ask(&app, AuditLog::holds).await?;
    Ok(Json(json!({ "items": holds.iter().map(hold_json).collect::<Vec<_>>() })))
}

/// `POST /api/v1/audit/holds`: begins a hold.
pub(crate) async fn hold(
    State(app): State<Shared>,
    visitor: Visitor,
    body: Result<Json<Order>, JsonRejection>,
) -> Result<Json<Value>, Failure> {
    let Order { filter, reason } = order(body)?;
    let by = who(&visitor);
    let hold = ask(&app, move |audit| audit.hold(&filter, &reason, &by)).await?;
    Ok(Json(hold_json(&hold)))
}

/// `POST /api/v1/audit/holds/{hold_id}/release`: ends a hold.
pub(crate) async fn release(
    State(app): State<Shared>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Json<Value>, Failure> {
    let by = who(&visitor);
    let hold = ask(&app, move |audit| audit.release(&id, &by)).await?;
    Ok(Json(hold_json(&hold)))
}

fn hold_json(hold: &Hold) -> Value {
    json!({
        "id": hold.id,
        "reason": hold.reason,
        "by": hold.by,
        "filter": hold.filter,
        "created": rfc3339(hold.created_unix_nano),
        "released": hold.released_unix_nano.map(rfc3339),
    })
}
