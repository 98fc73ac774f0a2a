//! `/api/v1/decisions`: lists, and one decision with the chain that led to it.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::shapes;
use crate::doors::Visitor;
use crate::failure::Failure;
use crate::filters::{self, DECISION_PARAMS, PAGING};
use crate::pages::decision::{chain, load};
use crate::pages::gaps;
use crate::params::Params;
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
    Ok(Json(shapes::page(&page, shapes::decision)).into_response())
}

/// `GET /api/v1/decisions/{decision_id}`: `{decision, chain}`, the chain from the first ancestor.
pub(crate) async fn one(
    State(app): State<Shared>,
    Path(decision_id): Path<String>,
    params: Params,
) -> Result<Json<Value>, Failure> {
    params.expect_only(&[])?;
    let decision = load(&app, &decision_id).await?;
    let chain = chain(&app, &decision).await?;
    Ok(Json(json!({
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
