//! `/api/v1/metrics`: names of stored metrics, and the points of one.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::shapes;
use crate::doors::Visitor;
use crate::failure::Failure;
use crate::format::{NANOS_PER_SEC, rfc3339};
use crate::pages::series::MAX_POINTS;
use crate::params::Params;
use crate::state::Shared;

/// Time that is answered when `since` is not given, nanoseconds.
const DEFAULT_BACK_NS: u64 = 24 * 3_600 * NANOS_PER_SEC;

/// `GET /api/v1/metrics`
pub(crate) async fn list(
    State(app): State<Shared>,
    params: Params,
) -> Result<Json<Value>, Failure> {
    params.expect_only(&[])?;
    let metrics = app.web.reader.metric_names().await?;
    let items: Vec<Value> = metrics
        .iter()
        .map(|metric| {
            json!({
                "name": metric.name,
                "unit": metric.unit,
                "description": metric.description,
                "kind": metric.kind,
                "series_count": metric.series_count,
                "last": rfc3339(metric.last_unix_nano),
                "services": metric.services,
            })
        })
        .collect();
    Ok(Json(json!({ "items": items })))
}

/// `GET /api/v1/metrics/{name}?since=`
pub(crate) async fn one(
    State(app): State<Shared>,
    visitor: Visitor,
    Path(name): Path<String>,
    params: Params,
) -> Result<Json<Value>, Failure> {
    params.expect_only(&[&["since"]])?;
    let now = visitor.now_unix_nano;
    let since = params.moment("since", now)?.unwrap_or(now.saturating_sub(DEFAULT_BACK_NS));
    let metrics = app.web.reader.metric_names().await?;
    let Some(info) = metrics.iter().find(|metric| metric.name == name) else {
        return Err(Failure::not_found("metric", &name));
    };
    let series = app.web.reader.metric_series(&name, since, MAX_POINTS).await?;
    let series: Vec<Value> = series
        .iter()
        .map(|series| {
            let points = series.points.iter().map(|point| {
                json!({
                    "time": rfc3339(point.time_unix_nano),
                    "time_unix_nano": point.time_unix_nano.to_string(),
                    "start_unix_nano": point.start_unix_nano.to_string(),
                    "value": shapes::metric_value(&point.value),
                })
            });
            json!({
                "service": series.service,
                "kind": series.kind,
                "attributes": series.attributes.to_json(),
                "points": points.collect::<Vec<_>>(),
            })
        })
        .collect();
    Ok(Json(json!({ "name": info.name, "unit": info.unit, "series": series })))
}
