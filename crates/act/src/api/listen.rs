//! Directives: the stream that agents listen to, their answers, and what a person gives.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use throughline_api::InPath;
use throughline_store::{AckRecord, IssuedDirective};
use throughline_trace::access::ApiKey;
use throughline_trace::{
    DirectiveAck, DirectiveAction, DirectiveStatus, DirectiveTarget, Operation, TraceId,
};

use super::acts::{Ordered, order};
use super::asked::{InQuery, Sent};
use super::cases::Paging;
use super::forms::{DecisionIdText, DirectiveActionGiven, TargetJson, TraceIdGiven};
use super::paging::{self, List};
use super::shapes::{self, ActionShape, DirectiveShape, Page};
use super::{Refused, person, read};
use crate::actor::Actor;
use crate::directives::stream::Listener;
use crate::directives::{LONGEST_DIRECTIVE_TTL_S, MAX_LISTENERS, ask};

/// The header with the place to go on from.
const LAST_EVENT_ID: &str = "last-event-id";

/// How long a directive holds when the person does not say, seconds.
const USUAL_TTL_S: u64 = 300;

/// Characters of a reason in an answer that are kept.
const MAX_REASON_CHARS: usize = 1_000;

/// Characters of the name of an instance at most.
const MAX_INSTANCE_CHARS: usize = 256;

/// Who listens.
#[derive(Debug, Deserialize)]
pub(super) struct Who {
    service: String,
    #[serde(default)]
    instance_id: String,
}

/// `GET /api/v1/directives?service=…&instance_id=…`: server-sent events (docs/directives.md).
pub(super) async fn listen(
    State(actor): State<Actor>,
    InQuery(who): InQuery<Who>,
    key: Option<Extension<ApiKey>>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let after = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()?.trim().parse().ok());
    // What other processes gave counts before it is decided where to go on.
    actor.inner.board.look().await;
    let listener = Listener {
        service: who.service,
        instance_id: who.instance_id,
        after: after.unwrap_or(0),
        key: key.map(|Extension(key)| key),
    };
    let inner = &actor.inner;
    let stream = inner.board.listen(listener, Arc::clone(&inner.keyring), inner.ready.clone());
    stream.map(IntoResponse::into_response).ok_or_else(|| {
        Refused::full(format!("{MAX_LISTENERS} agents listen already; this server takes no more"))
    })
}

/// `POST /api/v1/directives/{id}/ack`: what became of a directive in one process.
pub(super) async fn acknowledge(
    State(actor): State<Actor>,
    InPath(id): InPath<String>,
    Sent(body): Sent,
) -> Result<Json<Acknowledged>, Refused> {
    let mut ack: DirectiveAck = read(&body)?;
    let count = ack.instance_id.chars().count();
    if !(1..=MAX_INSTANCE_CHARS).contains(&count) {
        return Err(Refused::bad_body(format!(
            "expected an `instance_id` of 1 to {MAX_INSTANCE_CHARS} characters, got {count}"
        )));
    }
    ack.reason = ack.reason.chars().take(MAX_REASON_CHARS).collect();
    let (directive, status) = (id.clone(), ack.status);
    let known =
        ask(&actor.inner.governance, move |governance| governance.acknowledge(&directive, &ack));
    if !known.await.map_err(Refused::storage)? {
        return Err(Refused::not_found("directive", &id));
    }
    let text = serde_json::to_value(status).unwrap_or_default();
    actor.inner.metrics.ack(text.as_str().unwrap_or_default());
    Ok(Json(Acknowledged { directive_id: id, status }))
}

/// What a process answers, for its schema: [`DirectiveAck`] reads it.
#[derive(JsonSchema)]
#[schemars(rename = "DirectiveAckGiven")]
#[expect(dead_code, reason = "the schema of what is read elsewhere")]
pub(super) struct AckGiven {
    /// `service.instance.id` of the process.
    #[schemars(length(min = 1, max = 256))]
    instance_id: String,
    #[schemars(with = "AckStatus")]
    status: DirectiveStatus,
    /// The decision that records it there.
    #[schemars(with = "Option<DecisionIdText>")]
    decision_id: Option<String>,
    /// Why it was not applied.
    #[schemars(default)]
    reason: String,
}

/// What became of a directive in one process.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
#[expect(dead_code, reason = "the schema of what is read elsewhere")]
enum AckStatus {
    Applied,
    Refused,
    Expired,
    Unsupported,
}

/// An answer that was noted.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "DirectiveAcknowledged")]
pub(super) struct Acknowledged {
    directive_id: String,
    #[schemars(with = "AckStatus")]
    status: DirectiveStatus,
}

/// What a person gives.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "DirectiveOrder")]
pub(super) struct Given {
    /// The same id means the same directive, however often it is given.
    #[serde(default)]
    #[schemars(length(min = 1, max = 256))]
    id: Option<String>,
    #[serde(default)]
    #[schemars(with = "TargetJson")]
    target: DirectiveTarget,
    #[schemars(with = "DirectiveActionGiven")]
    action: DirectiveAction,
    /// How long it holds, seconds; five minutes where it is left out.
    #[serde(default)]
    #[schemars(range(min = 1, max = LONGEST_DIRECTIVE_TTL_S))]
    ttl_s: Option<u64>,
    /// Why, for people.
    #[schemars(length(min = 1, max = 1_000))]
    reason: String,
    #[serde(default)]
    #[schemars(with = "Vec<TraceIdGiven>")]
    evidence: Vec<TraceId>,
}

/// `POST /api/v1/directives`: a person, or a program in a person's name, tells running agents.
pub(super) async fn give(
    State(actor): State<Actor>,
    key: Option<Extension<ApiKey>>,
    Sent(body): Sent,
) -> Result<(StatusCode, Json<ActionShape>), Refused> {
    let Given { id, target, action, ttl_s, reason, evidence } = read(&body)?;
    let ttl_s = ttl_s.unwrap_or(USUAL_TTL_S);
    if !(1..=LONGEST_DIRECTIVE_TTL_S).contains(&ttl_s) {
        return Err(Refused::bad_body(format!(
            "expected a `ttl_s` of 1 to {LONGEST_DIRECTIVE_TTL_S} seconds, got {ttl_s}"
        )));
    }
    let operation = Operation::Directive { target, action, ttl_s };
    let ordered = Ordered {
        id,
        finding: String::new(),
        subject: Default::default(),
        operation,
        reason,
        evidence,
        is_dry_run: false,
    };
    let action = order(ordered, &person(key.as_ref()))?;
    let record = actor.ask_and_perform(action).await.map_err(Refused::storage)?;
    Ok((StatusCode::CREATED, Json(shapes::action(&record))))
}

/// `GET /api/v1/directives/list`: what was given, with the answers, the newest first.
pub(super) async fn list(
    State(actor): State<Actor>,
    InQuery(Paging { cursor, limit }): InQuery<Paging>,
) -> Result<Json<Page<DirectiveShape>>, Refused> {
    let limit = paging::limit(limit)?;
    let before: u64 = List::Directives.key(cursor.as_deref())?.unwrap_or(u64::MAX);
    let found = ask(&actor.inner.governance, move |governance| {
        governance.directives_before(before, limit + 1)
    });
    let found = found.await.map_err(Refused::storage)?;
    let key = |(issued, _): &(IssuedDirective, Vec<AckRecord>)| issued.place;
    Ok(Json(paging::page(List::Directives, found, limit, key, shapes::directive)))
}
