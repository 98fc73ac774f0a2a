//! `/api/v1/decisions`: lists, and one decision with the chain that led to it.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use throughline_store::audit_hex;
use throughline_trace::Decision;

use super::shapes;
use crate::doors::Visitor;
use crate::failure::Failure;
use crate::filters::{self, DECISION_PARAMS, PAGING};
use crate::pages::decision::{chain, load, place};
use crate::pages::gaps;
use crate::params::Params;
use crate::reads::{Via, note, note_path};
use crate::state::Shared;

/// `GET /api/v1/decisions`
pub(crate) async fn list(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Response, Failure> {
    params.expect_only(&[&DECISION_PARAMS, &PAGING])?;
    let filter = filters::decisions(&params, visitor.now_unix_nano)?;
    let _turn = app.turns.take().await?;
    let page = app.web.reader.decisions(&filter, params.text("cursor"), params.limit()?).await?;
    let ids = page.items.iter().map(|decision| decision.decision_id).collect();
    let places = app.web.reader.chain_places(ids).await?;
    note(&app, &visitor, Via::Api, params.question("/api/v1/decisions"), page.items.len());
    let shape = |decision: &Decision| {
        let mut json = shapes::decision(decision);
        json["chain"] = match places.get(&decision.decision_id) {
            Some((number, link)) => json!({ "number": number, "link": audit_hex(link) }),
            None => Value::Null,
        };
        json
    };
    Ok(Json(shapes::page(&page, shape)).into_response())
}

/// `GET /api/v1/decisions/{decision_id}`: `{decision, chain}`, the chain from the first ancestor.
pub(crate) async fn one(
    State(app): State<Shared>,
    visitor: Visitor,
    Path(decision_id): Path<String>,
    params: Params,
) -> Result<Json<Value>, Failure> {
    params.expect_only(&[])?;
    let decision = load(&app, &decision_id).await?;
    let chain = chain(&app, &decision).await?;
    let place = place(&app, &decision).await?;
    let path = format!("/api/v1/decisions/{}", decision.decision_id);
    note_path(&app, &visitor, Via::Api, &path, 1 + chain.len());
    Ok(Json(json!({
        "audit": place.map(|place| json!({
            "number": place.number,
            "link": audit_hex(&place.link),
            "is_good": place.is_good,
            "problem": place.problem,
        })),
        "decision": shapes::decision(&decision),
        "chain": chain.iter().map(shapes::decision).collect::<Vec<_>>(),
    })))
}

/// `GET /api/v1/decisions/gaps`
pub(crate) async fn missing(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Json<Value>, Failure> {
    params.expect_only(&[])?;
    let gaps = gaps::known(&app, visitor.now_unix_nano).await?;
    let items: Vec<Value> = gaps
        .iter()
        .map(|gap| {
            json!({
                "instance_id": gap.instance_id,
                "agent_id": gap.agent_id,
                "first_seq": gap.first_seq,
                "last_seq": gap.last_seq,
                "missing": gap.missing(),
                "noticed_unix_nano": gap.noticed_unix_nano.to_string(),
            })
        })
        .collect();
    Ok(Json(json!({ "items": items })))
}
