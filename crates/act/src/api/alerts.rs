//! Alerts of others: the webhooks of Alertmanager and Grafana come in here as findings.

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Serialize;
use throughline_store::Evaluation;

use super::asked::Sent;
use super::{Refused, read};
use crate::actor::Actor;
use crate::directives::ask;
use crate::moments::now_unix_nano;
use crate::notify::inbound::{MAX_ALERTS, Webhook, findings};

/// The body of both.
pub(super) type WebhookGiven = Webhook;

/// What became of alerts.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AlertsTaken")]
pub(super) struct Taken {
    /// Findings that they became.
    findings: usize,
    /// Alerts that were ours already, and are none again.
    ours: usize,
}

/// `POST /api/v1/alerts/alertmanager`: a webhook of Alertmanager, version 4.
pub(super) async fn alertmanager(
    State(actor): State<Actor>,
    Sent(body): Sent,
) -> Result<Json<Taken>, Refused> {
    take(&actor, "alertmanager", &body).await
}

/// `POST /api/v1/alerts/grafana`: a webhook of Grafana's unified alerting.
pub(super) async fn grafana(
    State(actor): State<Actor>,
    Sent(body): Sent,
) -> Result<Json<Taken>, Refused> {
    take(&actor, "grafana", &body).await
}

async fn take(actor: &Actor, from: &str, body: &[u8]) -> Result<Json<Taken>, Refused> {
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
    Ok(Json(Taken { findings: taken, ours }))
}
