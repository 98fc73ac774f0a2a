//! `/api/v1/series` and the lists of agents, models and tools: measures over time, from rollups.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};

use axum::Json;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::Serialize;
use throughline_store::{Coverage, RollupGroup, RollupSeries};
use throughline_trace::{
    Dimension, MAX_SERIES_POINTS, Measure, OperationKind, SeriesGroups, SeriesQuery,
};

use super::forms::Moment;
use super::paging::Keyed;
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

/// Query parameters that choose a time.
pub(crate) const TIME_PARAMS: [&str; 2] = ["since", "until"];

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
) -> Result<Json<SeriesAnswer>, Failure> {
    let query = read(&params, visitor.now_unix_nano)?;
    Ok(Json(shape(&app.web.reader.series(&query).await?)))
}

/// `GET /api/v1/agents`
pub(crate) async fn agents(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Json<Totals>, Failure> {
    totals(&app, &visitor, &params, Keyed::Agents, Dimension::Agent).await
}

/// `GET /api/v1/models`
pub(crate) async fn models(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Json<Totals>, Failure> {
    totals(&app, &visitor, &params, Keyed::Models, Dimension::Model).await
}

/// `GET /api/v1/tools`
pub(crate) async fn tools(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Json<Totals>, Failure> {
    totals(&app, &visitor, &params, Keyed::Tools, Dimension::Tool).await
}

async fn totals(
    app: &Shared,
    visitor: &Visitor,
    params: &Params,
    list: Keyed,
    dimension: Dimension,
) -> Result<Json<Totals>, Failure> {
    let question = Question::read(list, params, visitor.now_unix_nano)?;
    let series = app.web.reader.series(&question.query().by(dimension)).await?;
    question.answer(&series)
}

/// What a list of agents, models or tools is asked for.
struct Question {
    list: Keyed,
    /// Seconds since the Unix epoch, the last one included. A page behind the first is about the time
    /// of the first.
    time: (u64, u64),
    /// Marks of the names that earlier pages had. A place by rank would not do: totals grow while
    /// somebody reads, and one that overtakes the place would be on no page.
    seen: String,
    limit: usize,
}

/// Characters of the mark of a name, of 6 bits each. Lists are of at most 2,001 names (the lattice tells
/// no more tools apart), of which two share a mark once in 30,000 lists; so a cursor has at most 12 kB.
const MARK_CHARS: usize = 6;

fn mark(name: &str) -> String {
    let hash = blake3::hash(name.as_bytes());
    let mut mark = URL_SAFE_NO_PAD.encode(hash.as_bytes());
    mark.truncate(MARK_CHARS);
    mark
}

impl Question {
    fn read(list: Keyed, params: &Params, now_unix_nano: u64) -> Result<Self, Failure> {
        let limit = params.limit()?;
        let asked = time(params, now_unix_nano)?;
        let before = list.key::<((u64, u64), String)>(params)?;
        let (time, seen) = before.unwrap_or((asked, String::new()));
        Ok(Self { list, time, seen, limit })
    }

    fn query(&self) -> SeriesQuery {
        SeriesQuery::new(LIST_MEASURES.to_vec(), self.time.0, self.time.1)
            .of_groups(SeriesGroups::Totals)
    }

    fn answer(&self, series: &RollupSeries) -> Result<Json<Totals>, Failure> {
        let seen: HashSet<&[u8]> = self.seen.as_bytes().chunks(MARK_CHARS).collect();
        let mut rest: Vec<(&RollupGroup, &str, String)> = (series.groups.iter())
            .map(|group| {
                let name = group.labels.first().map_or("", String::as_str);
                (group, name, mark(name))
            })
            .filter(|(.., mark)| !seen.contains(mark.as_bytes()))
            .collect();
        rest.sort_by_key(|(group, name, _)| (Reverse(group.spans), *name));
        let has_more = rest.len() > self.limit;
        rest.truncate(self.limit);
        let next = if has_more {
            let marks = rest.iter().map(|(.., mark)| mark.as_str());
            let seen: String = std::iter::once(self.seen.as_str()).chain(marks).collect();
            Some(self.list.cursor(&(self.time, seen))?)
        } else {
            None
        };
        let items = rest.iter().map(|(group, name, _)| Total {
            name: (*name).to_owned(),
            spans: group.spans,
            totals: values(&series.measures, &group.totals),
        });
        Ok(Json(Totals {
            from: moment(series.from_unix_seconds),
            to: moment(series.to_unix_seconds),
            items: items.collect(),
            next,
            coverage: coverage(&series.coverage),
        }))
    }
}

/// Agents, models or tools with their totals over a time.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Totals {
    #[schemars(with = "Moment")]
    from: String,
    #[schemars(with = "Moment")]
    to: String,
    /// Those with the most spans first.
    items: Vec<Total>,
    /// Where the next page begins, to be given back as `cursor`; null when this is the last.
    next: Option<String>,
    coverage: CoverageShape,
}

/// One agent, model or tool.
#[derive(Debug, Serialize, JsonSchema)]
struct Total {
    name: String,
    spans: i64,
    /// By measure; null where there is nothing to tell from.
    totals: Values,
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

/// A value of each measure by its name; null where there is nothing to tell from.
type Values = BTreeMap<String, Option<f64>>;

fn values(measures: &[Measure], values: &[Option<f64>]) -> Values {
    measures.iter().map(|measure| measure.name()).zip(values.iter().copied()).collect()
}

/// What of the stored is counted.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Coverage")]
struct CoverageShape {
    /// Everything that is stored is counted.
    whole: bool,
    /// Otherwise: whatever arrived before this is.
    #[schemars(with = "Option<Moment>")]
    watermark: Option<String>,
    /// Days of arrival whose sums are being made anew.
    #[schemars(with = "Vec<Moment>")]
    rebuilding_days: Vec<String>,
    /// Days of which something is missing for good.
    #[schemars(with = "Vec<Moment>")]
    incomplete_days: Vec<String>,
    /// Nothing of this grain is kept from before.
    #[schemars(with = "Moment")]
    kept_from: String,
}

fn coverage(coverage: &Coverage) -> CoverageShape {
    CoverageShape {
        whole: coverage.is_whole(),
        watermark: coverage.watermark_unix_nano.map(rfc3339),
        rebuilding_days: coverage.rebuilding_days.iter().map(|day| moment(*day)).collect(),
        incomplete_days: coverage.incomplete_days.iter().map(|day| moment(*day)).collect(),
        kept_from: moment(coverage.kept_from_unix_seconds),
    }
}

/// Measures over time.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Series")]
pub(crate) struct SeriesAnswer {
    /// The measures and their units.
    measures: BTreeMap<String, &'static str>,
    group_by: Vec<&'static str>,
    /// The operations that counts and durations are of.
    operations: Vec<&'static str>,
    /// The grain that was read.
    resolution: &'static str,
    #[schemars(with = "Moment")]
    from: String,
    #[schemars(with = "Moment")]
    to: String,
    step_seconds: u64,
    /// Most points of one group.
    max_points: u64,
    /// Those with the most spans first.
    groups: Vec<Group>,
    groups_left_out: usize,
    coverage: CoverageShape,
}

/// One series.
#[derive(Debug, Serialize, JsonSchema)]
struct Group {
    labels: BTreeMap<&'static str, String>,
    spans: i64,
    /// Over the whole time.
    totals: Values,
    /// Steps without spans or decisions have no point.
    points: Vec<Point>,
}

/// One step of a series.
#[derive(Debug, Serialize, JsonSchema)]
struct Point {
    #[schemars(with = "Moment")]
    time: String,
    spans: i64,
    values: Values,
}

fn shape(series: &RollupSeries) -> SeriesAnswer {
    let group = |group: &RollupGroup| Group {
        labels: (series.group_by.iter().map(|of| of.as_str()))
            .zip(group.labels.iter().cloned())
            .collect(),
        spans: group.spans,
        totals: values(&series.measures, &group.totals),
        points: (group.points.iter())
            .map(|point| Point {
                time: moment(point.unix_seconds),
                spans: point.spans,
                values: values(&series.measures, &point.values),
            })
            .collect(),
    };
    SeriesAnswer {
        measures: series.measures.iter().map(|of| (of.name(), of.unit())).collect(),
        group_by: series.group_by.iter().map(|of| of.as_str()).collect(),
        operations: series.kinds.iter().map(|kind| kind.as_str()).collect(),
        resolution: series.resolution.as_str(),
        from: moment(series.from_unix_seconds),
        to: moment(series.to_unix_seconds),
        step_seconds: series.step_seconds,
        max_points: MAX_SERIES_POINTS,
        groups: series.groups.iter().map(group).collect(),
        groups_left_out: series.groups_left_out,
        coverage: coverage(&series.coverage),
    }
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
