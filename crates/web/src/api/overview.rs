//! `/api/v1/facets`, `/api/v1/stats` and `/api/v1/segments`: what filters may be set to, and how much is stored.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use throughline_store::FacetCount;

use super::shapes;
use crate::failure::Failure;
use crate::format::rfc3339;
use crate::params::Params;
use crate::state::Shared;

/// `GET /api/v1/facets`
pub(crate) async fn facets(
    State(app): State<Shared>,
    params: Params,
) -> Result<Json<Value>, Failure> {
    params.expect_only(&[])?;
    let facets = app.web.reader.facets().await?;
    let list = |facets: &[FacetCount]| -> Value {
        facets.iter().map(|facet| json!({ "value": facet.value, "count": facet.count })).collect()
    };
    Ok(Json(json!({
        "agents": list(&facets.agents),
        "models": list(&facets.models),
        "services": list(&facets.services),
        "sessions": list(&facets.sessions),
        "stages": list(&facets.stages),
    })))
}

/// `GET /api/v1/stats`
pub(crate) async fn stats(
    State(app): State<Shared>,
    params: Params,
) -> Result<Json<Value>, Failure> {
    params.expect_only(&[])?;
    let stats = app.web.reader.stats().await?;
    Ok(Json(json!({
        "version": app.web.version,
        "traces": stats.traces,
        "spans": stats.spans,
        "logs": stats.logs,
        "decisions": stats.decisions,
        "metric_points": stats.metric_points,
        "bytes_on_disk": stats.bytes_on_disk,
        "segments": stats.segments,
        "damaged_segments": app.web.reader.damaged().iter().map(|one| json!({
            "segment": one.segment,
            "damage": one.detail,
        })).collect::<Vec<_>>(),
        "oldest": stats.oldest_unix_nano.map(rfc3339),
        "newest": stats.newest_unix_nano.map(rfc3339),
    })))
}

/// `GET /api/v1/segments`: the files, newest first, retired ones too.
pub(crate) async fn segments(
    State(app): State<Shared>,
    params: Params,
) -> Result<Json<Value>, Failure> {
    params.expect_only(&[])?;
    let segments = app.web.reader.segments().await?;
    Ok(Json(json!({ "items": segments.iter().map(shapes::segment).collect::<Vec<_>>() })))
}
