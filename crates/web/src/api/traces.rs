//! `/api/v1/traces`: lists, one whole trace, its tree as text.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use throughline_trace::TraceTree;

use super::shapes;
use crate::doors::Visitor;
use crate::failure::Failure;
use crate::filters::{self, PAGING, SESSION_PARAMS, TRACE_PARAMS};
use crate::pages::trace::load;
use crate::params::Params;
use crate::reads::{Via, note_path};
use crate::state::Shared;

/// `GET /api/v1/traces`
pub(crate) async fn list(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Json<Value>, Failure> {
    params.expect_only(&[&TRACE_PARAMS, &PAGING])?;
    let filter = filters::traces(&params, visitor.now_unix_nano)?;
    let page = app.web.reader.traces(&filter, params.text("cursor"), params.limit()?).await?;
    Ok(Json(shapes::searched_page(&page, shapes::summary)))
}

/// `GET /api/v1/sessions`
pub(crate) async fn sessions(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Json<Value>, Failure> {
    params.expect_only(&[&SESSION_PARAMS, &PAGING])?;
    let filter = filters::trace_fields(&params, visitor.now_unix_nano)?;
    let page = app.web.reader.sessions(&filter, params.text("cursor"), params.limit()?).await?;
    Ok(Json(shapes::searched_page(&page, shapes::session)))
}

/// `GET /api/v1/traces/{trace_id}`: spans in reading order, with messages, logs and decisions.
pub(crate) async fn one(
    State(app): State<Shared>,
    visitor: Visitor,
    Path(trace_id): Path<String>,
    params: Params,
) -> Result<Response, Failure> {
    params.expect_only(&[])?;
    let (trace, _turn) = load(&app, &trace_id).await?;
    if !trace.decisions.is_empty() {
        let path = format!("/api/v1/traces/{}", trace.summary.trace_id);
        note_path(&app, &visitor, Via::Api, &path, trace.decisions.len());
    }
    Ok(Json(shapes::trace(trace)).into_response())
}

/// `GET /api/v1/traces/{trace_id}/tree`: the tree as indented text.
pub(crate) async fn tree(
    State(app): State<Shared>,
    Path(trace_id): Path<String>,
    params: Params,
) -> Result<String, Failure> {
    params.expect_only(&[])?;
    let (trace, _turn) = load(&app, &trace_id).await?;
    let tree = TraceTree::build(trace.spans);
    Ok(tree.to_text_with(|node| crate::format::duration(node.span.duration_nano())))
}
