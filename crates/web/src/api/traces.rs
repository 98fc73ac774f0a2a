//! `/api/v1/traces`: lists, one whole trace, its tree as text.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use throughline_api::InPath;
use throughline_store::TracePlace;
use throughline_trace::{TraceId, TraceTree};

use super::contract::{etag, is_known, known_versions};
use super::groups::{self, Session, User};
use super::shapes::{self, SearchedPage, Summary};
use crate::doors::Visitor;
use crate::failure::Failure;
use crate::filters;
use crate::pages::trace::{id_of, load};
use crate::params::Params;
use crate::reads::{Via, note_path};
use crate::state::Shared;

/// `GET /api/v1/traces`
pub(crate) async fn list(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Json<SearchedPage<Summary>>, Failure> {
    let filter = filters::traces(&params, visitor.now_unix_nano)?;
    let page = app.web.reader.traces(&filter, params.text("cursor"), params.limit()?).await?;
    Ok(Json(SearchedPage::of(&page, shapes::summary)))
}

/// `GET /api/v1/sessions`
pub(crate) async fn sessions(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Json<SearchedPage<Session>>, Failure> {
    let filter = filters::trace_fields(&params, visitor.now_unix_nano)?;
    let page = app.web.reader.sessions(&filter, params.text("cursor"), params.limit()?).await?;
    Ok(Json(SearchedPage::of(&page, groups::session)))
}

/// `GET /api/v1/users`
pub(crate) async fn users(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Json<SearchedPage<User>>, Failure> {
    let filter = filters::trace_fields(&params, visitor.now_unix_nano)?;
    let page = app.web.reader.users(&filter, params.text("cursor"), params.limit()?).await?;
    Ok(Json(SearchedPage::of(&page, groups::user)))
}

/// `GET /api/v1/traces/{trace_id}`: spans in reading order, with messages, logs and decisions.
pub(crate) async fn one(
    State(app): State<Shared>,
    visitor: Visitor,
    InPath(trace_id): InPath<String>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let version = version(&app, &trace_id).await?;
    let path = format!("/api/v1/traces/{}", version.id);
    if is_known(known_versions(&headers).as_deref(), &version.tag) {
        // Who has the answer reads the decisions in it all the same.
        note_decisions(&app, &visitor, &path, version.decisions);
        return Ok((StatusCode::OK, [(header::ETAG, version.tag)]).into_response());
    }
    let (trace, _turn) = load(&app, &trace_id).await?;
    note_decisions(&app, &visitor, &path, trace.decisions.len());
    Ok(([(header::ETAG, version.tag)], Json(shapes::trace(trace))).into_response())
}

/// `GET /api/v1/traces/{trace_id}/tree`: the tree as indented text.
pub(crate) async fn tree(
    State(app): State<Shared>,
    InPath(trace_id): InPath<String>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let version = version(&app, &trace_id).await?;
    let tag = [(header::ETAG, version.tag.clone())];
    if is_known(known_versions(&headers).as_deref(), &version.tag) {
        return Ok((StatusCode::OK, tag).into_response());
    }
    let (trace, _turn) = load(&app, &trace_id).await?;
    let tree = TraceTree::build(trace.spans);
    let text = tree.to_text_with(|node| crate::format::duration(node.span.duration_nano()));
    Ok((tag, text).into_response())
}

fn note_decisions(app: &Shared, visitor: &Visitor, path: &str, count: usize) {
    if count > 0 {
        note_path(app, visitor, Via::Api, path, count);
    }
}

/// A trace as a request finds it.
struct Version {
    id: TraceId,
    tag: HeaderValue,
    decisions: usize,
}

/// The version of a trace, without reading its spans. Read before the trace: what comes between makes
/// the next question find another version.
async fn version(app: &Shared, trace_id: &str) -> Result<Version, Failure> {
    let id = id_of(trace_id)?;
    let version = app.web.reader.trace_version(id).await?;
    let version = version.ok_or_else(|| Failure::not_found("trace", trace_id))?;
    let shape = super::to_json(&shapes::summary(&version.summary)).to_string();
    let place = |of: &TracePlace| format!("{} {}\n", of.segment, of.is_skeleton);
    let places: String = version.places.iter().map(place).collect();
    let ids: Vec<u8> = version.decision_ids.iter().flat_map(|id| *id.0.as_bytes()).collect();
    let parts = [app.web.version.as_bytes(), shape.as_bytes(), places.as_bytes(), &ids];
    Ok(Version { id, tag: etag(&parts)?, decisions: version.decision_ids.len() })
}
