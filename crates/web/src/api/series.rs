//! `/api/v1/series` and the lists of agents, models and tools: measures over time, from rollups.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use throughline_store::{Coverage, RollupGroup, RollupSeries};
use throughline_trace::{Dimension, MAX_SERIES_POINTS, Measure, OperationKind, SeriesQuery};

use crate::doors::Visitor;
use crate::failure::Failure;
use crate::format::{NANOS_PER_SEC, rfc3339};
use crate::params::Params;
use crate::state::Shared;

/// Query parameters of `/api/v1/series`.
pub(crate) const SERIES_PARAMS: [&str; 12] = [
    "measure",
    "group_by",
    "operation",
    "agent",
    "phase",
    "model",
    "tool",
    "version",
    "branch",
    "since",
    "until",
    "step",
];

/// Time that is answered when `since` is not given, nanoseconds.
const DEFAULT_BACK_NS: u64 = 24 * 3_600 * NANOS_PER_SEC;

/// What lists of agents, models and tools tell of each.
pub(crate) const LIST_MEASURES: [Measure; 10] = [
    Measure::Count,
    Measure::Errors,
    Measure::ErrorRate,
    Measure::Duration(500),
    Measure::Duration(950),
    Measure::InputTokens,
    Measure::OutputTokens,
    Measure::CostUsd,
    Measure::Retries,
    Measure::Fallbacks,
];

/// `GET /api/v1/series`
pub(crate) async fn query(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Json<Value>, Failure> {
    params.expect_only(&[&SERIES_PARAMS])?;
    let query = read(&params, visitor.now_unix_nano)?;
    Ok(Json(shape(&app.web.reader.series(&query).await?)))
}

/// `GET /api/v1/agents`
pub(crate) async fn agents(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Json<Value>, Failure> {
    let query = list_query(&params, visitor.now_unix_nano)?;
    Ok(Json(list_shape(&app.web.reader.agents(query).await?)))
}

/// `GET /api/v1/models`
pub(crate) async fn models(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Json<Value>, Failure> {
    let query = list_query(&params, visitor.now_unix_nano)?;
    Ok(Json(list_shape(&app.web.reader.models(query).await?)))
}

/// `GET /api/v1/tools`
pub(crate) async fn tools(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Json<Value>, Failure> {
    let query = list_query(&params, visitor.now_unix_nano)?;
    Ok(Json(list_shape(&app.web.reader.tools(query).await?)))
}

fn list_query(params: &Params, now_unix_nano: u64) -> Result<SeriesQuery, Failure> {
    params.expect_only(&[&["since", "until"]])?;
    let (from, to) = time(params, now_unix_nano)?;
    Ok(SeriesQuery::new(LIST_MEASURES.to_vec(), from, to))
}

/// `since` and `until` as seconds, the last one included.
fn time(params: &Params, now_unix_nano: u64) -> Result<(u64, u64), Failure> {
    let until = params.moment("until", now_unix_nano)?.unwrap_or(now_unix_nano);
    let since = params.moment("since", now_unix_nano)?;
    let since = since.unwrap_or(until.saturating_sub(DEFAULT_BACK_NS));
    Ok((since / NANOS_PER_SEC, until.div_ceil(NANOS_PER_SEC)))
}

fn read(params: &Params, now_unix_nano: u64) -> Result<SeriesQuery, Failure> {
    let measures = list(params, "measure", &Measure::names(), Measure::from_text)?;
    let (from, to) = time(params, now_unix_nano)?;
    let mut query = SeriesQuery::new(measures.unwrap_or(vec![Measure::Count]), from, to);
    let dimensions = Dimension::ALL.map(Dimension::as_str).join(", ");
    query.group_by =
        list(params, "group_by", &dimensions, Dimension::from_text)?.unwrap_or_default();
    let kinds = "root, or roles such as agent_run, step, llm_call or tool";
    query.kinds = list(params, "operation", kinds, OperationKind::from_text)?.unwrap_or_default();
    for dimension in Dimension::ALL {
        if let Some(value) = params.owned(dimension.as_str()) {
            query.filter.insert(dimension, value);
        }
    }
    let step = params.read("step", "whole minutes such as 1m, 5m, 1h or 1d", step_seconds)?;
    query.step_seconds = step.unwrap_or(0);
    Ok(query)
}

/// A list joined by commas.
fn list<T>(
    params: &Params,
    name: &str,
    expected: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<Vec<T>>, Failure> {
    params.read(name, expected, |text| text.split(',').map(|part| parse(part.trim())).collect())
}

/// Seconds of `1m`, `5m`, `1h`, `1d` or a number of seconds.
fn step_seconds(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok().filter(|number| *number > 0)?;
    match &text[digits.len()..] {
        "" | "s" => Some(number),
        "m" => number.checked_mul(60),
        "h" => number.checked_mul(3_600),
        "d" => number.checked_mul(86_400),
        _ => None,
    }
}

fn moment(unix_seconds: u64) -> String {
    rfc3339(unix_seconds.saturating_mul(NANOS_PER_SEC))
}

fn labels(series: &RollupSeries, group: &RollupGroup) -> Value {
    let pairs = series.group_by.iter().zip(&group.labels);
    pairs.map(|(dimension, value)| (dimension.as_str().to_owned(), json!(value))).collect()
}

fn values(measures: &[Measure], values: &[Option<f64>]) -> Value {
    let pairs = measures.iter().zip(values);
    pairs.map(|(measure, value)| (measure.name(), json!(value))).collect()
}

fn coverage(coverage: &Coverage) -> Value {
    json!({
        "whole": coverage.is_whole(),
        "watermark": coverage.watermark_unix_nano.map(rfc3339),
        "rebuilding_days":
            coverage.rebuilding_days.iter().map(|day| moment(*day)).collect::<Vec<_>>(),
        "incomplete_days":
            coverage.incomplete_days.iter().map(|day| moment(*day)).collect::<Vec<_>>(),
        "kept_from": moment(coverage.kept_from_unix_seconds),
    })
}

fn shape(series: &RollupSeries) -> Value {
    let units: Value =
        series.measures.iter().map(|measure| (measure.name(), json!(measure.unit()))).collect();
    let groups: Vec<Value> = series
        .groups
        .iter()
        .map(|group| {
            let points = group.points.iter().map(|point| {
                json!({
                    "time": moment(point.unix_seconds),
                    "spans": point.spans,
                    "values": values(&series.measures, &point.values),
                })
            });
            json!({
                "labels": labels(series, group),
                "spans": group.spans,
                "totals": values(&series.measures, &group.totals),
                "points": points.collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "measures": units,
        "group_by": series.group_by.iter().map(|of| of.as_str()).collect::<Vec<_>>(),
        "operations": series.kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>(),
        "resolution": series.resolution.as_str(),
        "from": moment(series.from_unix_seconds),
        "to": moment(series.to_unix_seconds),
        "step_seconds": series.step_seconds,
        "max_points": MAX_SERIES_POINTS,
        "groups": groups,
        "groups_left_out": series.groups_left_out,
        "coverage": coverage(&series.coverage),
    })
}

fn list_shape(series: &RollupSeries) -> Value {
    let items: Vec<Value> = series
        .groups
        .iter()
        .map(|group| {
            json!({
                "name": group.labels.first(),
                "spans": group.spans,
                "totals": values(&series.measures, &group.totals),
            })
        })
        .collect();
    json!({
        "from": moment(series.from_unix_seconds),
        "to": moment(series.to_unix_seconds),
        "items": items,
        "left_out": series.groups_left_out,
        "coverage": coverage(&series.coverage),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read() {
        let read = ["1m", "5m", "1h", "1d", "90", "0m", "m", "1w", "1é"].map(step_seconds);
        let expected =
            [Some(60), Some(300), Some(3_600), Some(86_400), Some(90), None, None, None, None];
        assert_eq!(read, expected);
    }
}
