//! `/api/v1/metrics`: names of stored metrics, and the points of one.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use throughline_api::InPath;
use throughline_store::{MAX_POINTS, MetricInfo, MetricSeries, SeriesPoint};
use throughline_trace::MetricKind;

use super::forms::{AnyObject, MetricKindJson, MetricValueJson, Moment, UnixNanos};
use super::paging::{self, Keyed};
use super::records;
use super::shapes::Page;
use crate::doors::Visitor;
use crate::failure::Failure;
use crate::format::{NANOS_PER_SEC, rfc3339};
use crate::params::Params;
use crate::state::Shared;

/// Time that is answered when `since` is not given, nanoseconds.
const DEFAULT_BACK_NS: u64 = 24 * 3_600 * NANOS_PER_SEC;

/// What is known of a metric.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Metric {
    name: String,
    unit: String,
    description: String,
    #[schemars(with = "MetricKindJson")]
    kind: MetricKind,
    series_count: u64,
    /// When its last point was.
    #[schemars(with = "Moment")]
    last: String,
    services: Vec<String>,
}

/// `GET /api/v1/metrics`
pub(crate) async fn list(
    State(app): State<Shared>,
    params: Params,
) -> Result<Json<Page<Metric>>, Failure> {
    let (after, limit) = (Keyed::Metrics.key(&params)?, params.limit()?);
    let metrics = app.web.reader.metric_names().await?;
    let key = |metric: &MetricInfo| metric.name.clone();
    let page = paging::page(Keyed::Metrics, metrics, key, after.as_ref(), limit)?;
    let metric = |metric: MetricInfo| Metric {
        name: metric.name,
        unit: metric.unit,
        description: metric.description,
        kind: metric.kind,
        series_count: metric.series_count,
        last: rfc3339(metric.last_unix_nano),
        services: metric.services,
    };
    Ok(Json(Page { items: page.items.into_iter().map(metric).collect(), next: page.next }))
}

/// The points of a metric.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct MetricPoints {
    name: String,
    unit: String,
    series: Vec<OneSeries>,
    /// Series for which the answer has no room.
    series_left_out: u64,
    /// Most points of a series in this answer: the more series, the fewer of each.
    max_points: usize,
}

/// The points of one set of attributes.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "MetricSeries")]
struct OneSeries {
    service: String,
    #[schemars(with = "MetricKindJson")]
    kind: MetricKind,
    #[schemars(with = "AnyObject")]
    attributes: Value,
    /// The oldest first.
    points: Vec<Point>,
    /// Whether these are the newest of more in the time that was asked for.
    is_cut: bool,
}

/// One point of a metric.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "MetricPoint")]
struct Point {
    #[schemars(with = "Moment")]
    time: String,
    #[schemars(with = "UnixNanos")]
    time_unix_nano: String,
    #[schemars(with = "UnixNanos")]
    start_unix_nano: String,
    #[schemars(with = "MetricValueJson")]
    value: Value,
}

/// `GET /api/v1/metrics/{name}?since=`
pub(crate) async fn one(
    State(app): State<Shared>,
    visitor: Visitor,
    InPath(name): InPath<String>,
    params: Params,
) -> Result<Response, Failure> {
    let now = visitor.now_unix_nano;
    let since = params.moment("since", now)?.unwrap_or(now.saturating_sub(DEFAULT_BACK_NS));
    let _turn = app.turns.take().await?;
    let metrics = app.web.reader.metric_names().await?;
    let Some(info) = metrics.into_iter().find(|metric| metric.name == name) else {
        return Err(Failure::not_found("metric", &name));
    };
    let found = app.web.reader.metric_series(&name, since, MAX_POINTS).await?;
    let answer = MetricPoints {
        name: info.name,
        unit: info.unit,
        series: found.series.iter().map(one_series).collect(),
        series_left_out: found.series_left_out,
        max_points: found.max_points,
    };
    Ok(Json(answer).into_response())
}

fn one_series(series: &MetricSeries) -> OneSeries {
    let point = |point: &SeriesPoint| Point {
        time: rfc3339(point.time_unix_nano),
        time_unix_nano: point.time_unix_nano.to_string(),
        start_unix_nano: point.start_unix_nano.to_string(),
        value: records::metric_value(&point.value),
    };
    OneSeries {
        service: series.service.clone(),
        kind: series.kind,
        attributes: series.attributes.to_json(),
        points: series.points.iter().map(point).collect(),
        is_cut: series.is_cut,
    }
}
