//! Alerts of others: the webhooks of Alertmanager and Grafana come in here as findings.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use serde_json::{Value, json};
use throughline_store::Evaluation;

use super::{Refused, read};
use crate::actor::Actor;
use crate::directives::ask;
use crate::moments::now_unix_nano;
use crate::notify::inbound::{MAX_ALERTS, Webhook, findings};

/// `POST /api/v1/alerts/alertmanager`: a webhook of Alertmanager, version 4.
pub(super) async fn alertmanager(
    State(actor): State<Actor>,
    body: Bytes,
) -> Result<Json<Value>, Refused> {
    take(&actor, "alertmanager", &body).await
}

/// `POST /api/v1/alerts/grafana`: a webhook of Grafana's unified alerting.
pub(super) async fn grafana(
    State(actor): State<Actor>,
    body: Bytes,
) -> Result<Json<Value>, Refused> {
    take(&actor, "grafana", &body).await
}

async fn take(actor: &Actor, from: &str, body: &[u8]) -> Result<Json<Value>, Refused> {
    let webhook: Webhook = read(body)?;
    let count = webhook.alerts.len();
    if count > MAX_ALERTS {
        return Err(Refused::bad_body(format!(
            "expected at most {MAX_ALERTS} alerts, got {count}"
        )));
    }
    let (findings, ours) = findings(from, webhook, now_unix_nano());
    let taken = findings.len();
    let evaluation = Evaluation { findings, ..Evaluation::default() };
    let committed =
        ask(&actor.inner.governance, move |governance| governance.commit(&evaluation)).await;
    committed.map_err(Refused::storage)?;
    Ok(Json(json!({ "findings": taken, "ours": ours })))
}
