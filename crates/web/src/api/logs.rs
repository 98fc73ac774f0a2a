//! `/api/v1/logs`: log records.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::records;
use super::shapes::SearchedPage;
use crate::doors::Visitor;
use crate::failure::Failure;
use crate::filters;
use crate::params::Params;
use crate::state::Shared;

/// `GET /api/v1/logs`
pub(crate) async fn list(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Response, Failure> {
    let filter = filters::logs(&params, visitor.now_unix_nano)?;
    let _turn = app.turns.take().await?;
    let page = app.web.reader.logs(&filter, params.text("cursor"), params.limit()?).await?;
    Ok(Json(SearchedPage::of(&page, records::log)).into_response())
}
