//! Directives: the stream that agents listen to, their answers, and what a person gives.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use throughline_store::MAX_GOVERNANCE_LIST;
use throughline_trace::access::ApiKey;
use throughline_trace::{DirectiveAck, DirectiveAction, DirectiveTarget, Operation, TraceId};

use super::acts::{Ordered, answer, order};
use super::{Refused, person, read};
use crate::actor::Actor;
use crate::directives::stream::Listener;
use crate::directives::{LONGEST_DIRECTIVE_TTL_S, MAX_LISTENERS, ask};
use crate::moments::rfc3339;

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
    who: Result<Query<Who>, QueryRejection>,
    key: Option<Extension<ApiKey>>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let Query(who) = who.map_err(|error| {
        Refused::parameter("service", "`service.name` of the process", &error.body_text())
    })?;
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
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Refused> {
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
    let status = serde_json::to_value(status).unwrap_or_default();
    actor.inner.metrics.ack(status.as_str().unwrap_or_default());
    Ok(Json(json!({ "directive_id": id, "status": status })))
}

/// What a person gives.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    target: DirectiveTarget,
    action: DirectiveAction,
    #[serde(default)]
    ttl_s: Option<u64>,
    reason: String,
    #[serde(default)]
    evidence: Vec<TraceId>,
}

/// `POST /api/v1/directives`: a person, or a program in a person's name, tells running agents.
pub(super) async fn give(
    State(actor): State<Actor>,
    key: Option<Extension<ApiKey>>,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), Refused> {
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
    Ok((StatusCode::CREATED, Json(answer(&record))))
}

/// `GET /api/v1/directives/list`: what was given, with the answers, the newest first.
pub(super) async fn list(State(actor): State<Actor>) -> Result<Json<Value>, Refused> {
    let found =
        ask(&actor.inner.governance, |governance| governance.directives(MAX_GOVERNANCE_LIST));
    let found = found.await.map_err(Refused::storage)?;
    let items: Vec<Value> = found
        .into_iter()
        .map(|(issued, acks)| {
            let mut json = issued.directive.to_json();
            json["place"] = issued.place.into();
            json["acks"] = acks
                .into_iter()
                .map(|record| {
                    let mut ack = serde_json::to_value(&record.ack).unwrap_or_default();
                    ack["at"] = rfc3339(record.at_unix_nano).into();
                    ack
                })
                .collect();
            json
        })
        .collect();
    Ok(Json(json!({ "items": items })))
}
