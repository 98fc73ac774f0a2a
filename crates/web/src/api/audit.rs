//! `/api/v1/audit`: how the log stands, who read, erasure, holds.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use throughline_api::InPath;
use throughline_store::{
    AuditError, AuditFilter, AuditLog, AuditStatus, Hold, MAX_REASON_CHARS, ReadRecord, audit_hex,
};
use throughline_trace::{DecisionId, TraceId};

use super::forms::{DecisionIdText, Hash, Moment, TraceIdGiven, whole};
use super::paging::{self, Keyed};
use super::shapes::Page;
use crate::doors::Visitor;
use crate::failure::Failure;
use crate::format::rfc3339;
use crate::params::Params;
use crate::reads::who;
use crate::state::Shared;

/// Runs what blocks in the audit log.
pub(crate) async fn ask<T: Send + 'static>(
    app: &Shared,
    question: impl FnOnce(&AuditLog) -> Result<T, AuditError> + Send + 'static,
) -> Result<T, Failure> {
    let audit = app.web.audit.clone();
    match tokio::task::spawn_blocking(move || question(&audit)).await {
        Ok(answer) => answer.map_err(Failure::from),
        Err(error) => {
            tracing::error!(%error, "a question of the audit log ended");
            Err(Failure::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "storage",
                format!("the question ended: {error}"),
                "the server's log says more",
            ))
        }
    }
}

/// What to do about an error that does not say it itself.
const HINT: &str = "docs/audit.md tells what an order needs";

impl From<AuditError> for Failure {
    fn from(error: AuditError) -> Self {
        let message = error.to_string();
        let (message, hint) = match message.rsplit_once("; ") {
            Some((message, hint)) => (message.to_owned(), hint.to_owned()),
            None => (message, HINT.to_owned()),
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
pub(crate) async fn verify(State(app): State<Shared>) -> Result<Json<Status>, Failure> {
    Ok(Json(status(&ask(&app, AuditLog::status).await?)))
}

/// How the audit log stands.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AuditStatus")]
pub(crate) struct Status {
    /// Id of the log.
    log: String,
    head: Head,
    key: Key,
    checkpoint_count: u64,
    last_checkpoint: Option<Checkpoint>,
    anchors: Vec<Anchor>,
    last_verification: Option<Verification>,
}

/// The record at the head of the chain.
#[derive(Debug, Serialize, JsonSchema)]
struct Head {
    number: u64,
    #[schemars(with = "Hash")]
    link: String,
}

/// The key that writes.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AuditKey")]
struct Key {
    id: String,
    /// Checks the signatures of checkpoints; hexadecimal.
    public_key: String,
    /// It comes from outside the data directory.
    is_external: bool,
}

/// A signed head.
#[derive(Debug, Serialize, JsonSchema)]
struct Checkpoint {
    number: u64,
    #[schemars(with = "Hash")]
    head: String,
    #[schemars(with = "Moment")]
    time: String,
    count: u64,
}

/// A place outside that has checkpoints.
#[derive(Debug, Serialize, JsonSchema)]
struct Anchor {
    name: String,
    /// `file`, `git` or `http`.
    kind: String,
    /// Number of the newest checkpoint that it has; 0 for none.
    last_number: u64,
    #[schemars(with = "Option<Moment>")]
    last_time: Option<String>,
    /// Failures in a row.
    failures: u64,
    error: Option<String>,
    #[schemars(with = "Option<Moment>")]
    tried: Option<String>,
}

/// A verification by the server.
#[derive(Debug, Serialize, JsonSchema)]
struct Verification {
    #[schemars(with = "Moment")]
    time: String,
    head_number: u64,
    records: u64,
    problems: u64,
    first_problem: Option<String>,
    is_good: bool,
}

fn status(status: &AuditStatus) -> Status {
    Status {
        log: status.log.clone(),
        head: Head { number: status.head_number, link: audit_hex(&status.head) },
        key: Key {
            id: status.key_id.clone(),
            public_key: audit_hex(&status.public_key),
            is_external: status.is_key_external,
        },
        checkpoint_count: status.checkpoints,
        last_checkpoint: status.checkpoint.as_ref().map(|last| Checkpoint {
            number: last.number,
            head: audit_hex(&last.head),
            time: rfc3339(last.time_unix_nano),
            count: last.count,
        }),
        anchors: (status.anchors.iter())
            .map(|anchor| Anchor {
                name: anchor.name.clone(),
                kind: anchor.kind.clone(),
                last_number: anchor.last_number,
                last_time: anchor.last_unix_nano.map(rfc3339),
                failures: anchor.failures,
                error: anchor.error.clone(),
                tried: anchor.tried_unix_nano.map(rfc3339),
            })
            .collect(),
        last_verification: status.verification.as_ref().map(|last| Verification {
            time: rfc3339(last.time_unix_nano),
            head_number: last.head_number,
            records: last.records,
            problems: last.problems,
            first_problem: last.first_problem.clone(),
            is_good: last.problems == 0,
        }),
    }
}

/// How the log stands, as the API and the command line tell it.
pub fn audit_status_json(of: &AuditStatus) -> serde_json::Value {
    super::to_json(&status(of))
}

/// `GET /api/v1/audit/reads`: who read decisions, newest first.
pub(crate) async fn reads(
    State(app): State<Shared>,
    params: Params,
) -> Result<Json<Page<Read>>, Failure> {
    let before: Option<u64> = Keyed::Reads.key(&params)?;
    let limit = params.limit()?;
    // One more says whether there is a next page.
    let mut found = ask(&app, move |audit| audit.reads(before, limit + 1)).await?;
    let has_more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().filter(|_| has_more);
    let next = last.map(|last| Keyed::Reads.cursor(&last.read)).transpose()?;
    Ok(Json(Page { items: found.iter().map(read).collect(), next }))
}

/// Decisions were read; the same question of the same reader is told once, with how often.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "DecisionRead")]
pub(crate) struct Read {
    #[schemars(with = "Moment")]
    first: String,
    #[schemars(with = "Moment")]
    last: String,
    /// Id and name of the key, or `local`.
    who: String,
    /// `api`, `page` or `cli`; `several` of records that were added up.
    via: String,
    query: String,
    times: u64,
    /// Decisions that were answered, in all.
    rows: u64,
}

fn read(read: &ReadRecord) -> Read {
    Read {
        first: rfc3339(read.first_unix_nano),
        last: rfc3339(read.last_unix_nano),
        who: read.who.clone(),
        via: read.via.clone(),
        query: read.query.clone(),
        times: read.times,
        rows: read.rows,
    }
}

/// What an erasure or a hold is about.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(example = serde_json::json!({ "filter": { "session": "s-42" }, "reason": "erasure request 17" }))]
pub(crate) struct Order {
    filter: Filter,
    /// Becomes part of the log: name no person.
    #[schemars(length(min = 1, max = MAX_REASON_CHARS), pattern(r"\S"))]
    reason: String,
}

/// Which decisions. All conditions must hold, and there must be one. A condition is left out, not
/// null: an order that forgets a value must not be about more than was meant.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "AuditFilter", extend("minProperties" = 1))]
struct Filter {
    /// Taken by this agent.
    #[serde(deserialize_with = "a_name", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1), pattern(r"\S"))]
    agent: Option<String>,
    /// Taken in this session.
    #[serde(deserialize_with = "a_name", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1), pattern(r"\S"))]
    session: Option<String>,
    /// Taken in the course of this trace.
    #[serde(deserialize_with = "a_value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TraceIdGiven")]
    trace_id: Option<TraceId>,
    /// This one.
    #[serde(deserialize_with = "a_value", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "DecisionIdText")]
    decision_id: Option<DecisionId>,
    /// Taken or received at or after this, nanoseconds since the Unix epoch.
    #[serde(deserialize_with = "a_moment", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64", range(max = MAX_UNIX_NANO))]
    after_unix_nano: Option<u64>,
    /// Taken or received before this, nanoseconds since the Unix epoch.
    #[serde(deserialize_with = "a_moment", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64", range(max = MAX_UNIX_NANO))]
    before_unix_nano: Option<u64>,
}

/// The last moment that can be told, nanoseconds since the Unix epoch.
const MAX_UNIX_NANO: u64 = i64::MAX as u64;

fn a_value<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

fn a_name<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let name = String::deserialize(from)?;
    if name.trim().is_empty() {
        return Err(D::Error::custom("expected a name, got a blank one"));
    }
    Ok(Some(name))
}

fn a_moment<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let number = serde_json::Number::deserialize(from)?;
    let moment = whole(&number).filter(|moment| *moment <= MAX_UNIX_NANO);
    moment.map(Some).ok_or_else(|| {
        D::Error::custom(format!(
            "expected whole nanoseconds since the Unix epoch, at most {MAX_UNIX_NANO}, got {number}"
        ))
    })
}

impl From<Filter> for AuditFilter {
    fn from(filter: Filter) -> Self {
        Self {
            agent: filter.agent,
            session: filter.session,
            trace_id: filter.trace_id,
            decision_id: filter.decision_id,
            after_unix_nano: filter.after_unix_nano,
            before_unix_nano: filter.before_unix_nano,
        }
    }
}

fn order(body: Result<Json<Order>, JsonRejection>) -> Result<Order, Failure> {
    body.map(|Json(order)| order).map_err(|rejection| {
        let status = rejection.status();
        let (code, hint) = match status {
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                ("unsupported_media_type", "set the header Content-Type to application/json")
            }
            StatusCode::PAYLOAD_TOO_LARGE => ("too_large", "an order is a few hundred bytes"),
            StatusCode::UNPROCESSABLE_ENTITY => (
                "bad_body",
                "a filter has agent, session, trace_id, decision_id, after_unix_nano, before_unix_nano",
            ),
            _ => ("bad_request", "send the order as JSON"),
        };
        let got = rejection.body_text();
        let expected = "expected {\"filter\": {…}, \"reason\": \"…\"}";
        Failure::new(status, code, format!("{expected}, got: {got}"), hint)
    })
}

/// What an erasure did.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Erased {
    /// Decisions whose content is gone.
    decisions: u64,
    /// Chain numbers of the records that say so.
    records: Vec<u64>,
    /// The write-ahead log was emptied too.
    is_log_clean: bool,
}

/// `POST /api/v1/audit/erase`: erases the content of decisions.
pub(crate) async fn erase(
    State(app): State<Shared>,
    visitor: Visitor,
    body: Result<Json<Order>, JsonRejection>,
) -> Result<Json<Erased>, Failure> {
    let Order { filter, reason } = order(body)?;
    let by = who(&visitor);
    let erased = ask(&app, move |audit| audit.erase(&filter.into(), &reason, &by)).await?;
    Ok(Json(Erased {
        decisions: erased.decisions,
        records: erased.records,
        is_log_clean: erased.is_log_clean,
    }))
}

/// `GET /api/v1/audit/holds`
pub(crate) async fn holds(
    State(app): State<Shared>,
    params: Params,
) -> Result<Json<Page<HoldShape>>, Failure> {
    let (after, limit) = (Keyed::Holds.key(&params)?, params.limit()?);
    let holds = ask(&app, AuditLog::holds).await?;
    let key = |hold: &Hold| (hold.created_unix_nano, hold.id.clone());
    let page = paging::page(Keyed::Holds, holds, key, after.as_ref(), limit)?;
    Ok(Json(Page { items: page.items.iter().map(hold_shape).collect(), next: page.next }))
}

/// `POST /api/v1/audit/holds`: begins a hold.
pub(crate) async fn hold(
    State(app): State<Shared>,
    visitor: Visitor,
    body: Result<Json<Order>, JsonRejection>,
) -> Result<Json<HoldShape>, Failure> {
    let Order { filter, reason } = order(body)?;
    let by = who(&visitor);
    change(&app, move |audit| audit.hold(&filter.into(), &reason, &by)).await
}

/// `POST /api/v1/audit/holds/{hold_id}/release`: ends a hold.
pub(crate) async fn release(
    State(app): State<Shared>,
    visitor: Visitor,
    InPath(id): InPath<String>,
) -> Result<Json<HoldShape>, Failure> {
    let by = who(&visitor);
    change(&app, move |audit| audit.release(&id, &by)).await
}

async fn change(
    app: &Shared,
    change: impl FnOnce(&AuditLog) -> Result<Hold, AuditError> + Send + 'static,
) -> Result<Json<HoldShape>, Failure> {
    Ok(Json(hold_shape(&ask(app, change).await?)))
}

/// A legal hold.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Hold")]
pub(crate) struct HoldShape {
    id: String,
    reason: String,
    /// Who began it.
    by: String,
    #[schemars(with = "Filter")]
    filter: AuditFilter,
    #[schemars(with = "Moment")]
    created: String,
    /// Null while it is in force.
    #[schemars(with = "Option<Moment>")]
    released: Option<String>,
}

fn hold_shape(hold: &Hold) -> HoldShape {
    HoldShape {
        id: hold.id.clone(),
        reason: hold.reason.clone(),
        by: hold.by.clone(),
        filter: hold.filter.clone(),
        created: rfc3339(hold.created_unix_nano),
        released: hold.released_unix_nano.map(rfc3339),
    }
}
