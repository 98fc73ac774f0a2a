//! `/api/v1/facets`, `/api/v1/stats`, `/api/v1/segments` and `/api/v1/problems`: what filters may be
//! set to, how much is stored and where, which kinds of problems there are.

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Serialize;
use throughline_store::{FacetCount, SegmentInfo};

use super::forms::Moment;
use crate::failure::Failure;
use crate::format::rfc3339;
use crate::problems::{PROBLEM_KINDS, PROBLEMS_PATH, ProblemKind};
use crate::state::Shared;

/// Values that filters may be set to, the most frequent of the recent ones first.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Facets {
    agents: Vec<Facet>,
    models: Vec<Facet>,
    services: Vec<Facet>,
    sessions: Vec<Facet>,
    stages: Vec<Facet>,
}

/// A value and how often it was seen lately.
#[derive(Debug, Serialize, JsonSchema)]
struct Facet {
    value: String,
    count: u64,
}

/// `GET /api/v1/facets`
pub(crate) async fn facets(State(app): State<Shared>) -> Result<Json<Facets>, Failure> {
    let facets = app.web.reader.facets().await?;
    let list = |facets: Vec<FacetCount>| -> Vec<Facet> {
        let facets = facets.into_iter();
        facets.map(|facet| Facet { value: facet.value, count: facet.count }).collect()
    };
    Ok(Json(Facets {
        agents: list(facets.agents),
        models: list(facets.models),
        services: list(facets.services),
        sessions: list(facets.sessions),
        stages: list(facets.stages),
    }))
}

/// A segment that cannot be read.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "DamagedSegment")]
struct Damaged {
    segment: String,
    /// What is wrong with it.
    damage: String,
}

/// How much is stored.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Stats {
    /// Version of the server.
    version: String,
    traces: u64,
    spans: u64,
    logs: u64,
    decisions: u64,
    metric_points: u64,
    bytes_on_disk: u64,
    segments: u64,
    /// Segments that are passed over, so that answers lack what they hold.
    damaged_segments: Vec<Damaged>,
    #[schemars(with = "Option<Moment>")]
    oldest: Option<String>,
    #[schemars(with = "Option<Moment>")]
    newest: Option<String>,
}

/// `GET /api/v1/stats`
pub(crate) async fn stats(State(app): State<Shared>) -> Result<Json<Stats>, Failure> {
    let stats = app.web.reader.stats().await?;
    let damaged = app.web.reader.damaged().into_iter();
    let damaged = damaged.map(|of| Damaged { segment: of.segment, damage: of.detail }).collect();
    Ok(Json(Stats {
        version: app.web.version.clone(),
        traces: stats.traces,
        spans: stats.spans,
        logs: stats.logs,
        decisions: stats.decisions,
        metric_points: stats.metric_points,
        bytes_on_disk: stats.bytes_on_disk,
        segments: stats.segments,
        damaged_segments: damaged,
        oldest: stats.oldest_unix_nano.map(rfc3339),
        newest: stats.newest_unix_nano.map(rfc3339),
    }))
}

/// The kinds of problems.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Problems {
    problems: Vec<Kind>,
}

/// One kind of problem.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ProblemKind")]
struct Kind {
    /// As problems have it.
    #[serde(rename = "type")]
    type_uri: String,
    code: &'static str,
    status: u16,
    title: &'static str,
    /// When it is answered, and what to do.
    about: &'static str,
}

/// `GET /api/v1/problems`
pub(crate) async fn problems() -> Json<Problems> {
    let kind = |kind: &ProblemKind| Kind {
        type_uri: format!("{PROBLEMS_PATH}#{}", kind.code),
        code: kind.code,
        status: kind.status.as_u16(),
        title: kind.title,
        about: kind.about,
    };
    Json(Problems { problems: PROBLEM_KINDS.iter().map(kind).collect() })
}

/// The files of the store, newest first, retired ones too.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Segments {
    items: Vec<Segment>,
}

/// One file of the store.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Segment {
    /// Its name: the UTC day of arrival, and the number within it if it is not the first.
    segment: String,
    /// `open`, `closed`, `sealed`, `skeleton`, `retired`, `missing` or `damaged`.
    state: &'static str,
    bytes: u64,
    traces: u64,
    spans: u64,
    logs: u64,
    metric_points: u64,
    /// Of the sealed file, 64 hexadecimal digits.
    blake3: Option<String>,
    #[schemars(with = "Option<Moment>")]
    sealed: Option<String>,
    /// When its hash was last found to be right.
    #[schemars(with = "Option<Moment>")]
    verified: Option<String>,
    #[schemars(with = "Option<Moment>")]
    retired: Option<String>,
    /// What is wrong with it.
    damage: Option<String>,
}

/// A segment as answers have it.
pub(crate) fn segment(info: &SegmentInfo) -> Segment {
    Segment {
        segment: info.segment.clone(),
        state: info.state.as_str(),
        bytes: info.bytes,
        traces: info.traces,
        spans: info.spans,
        logs: info.logs,
        metric_points: info.metric_points,
        blake3: info.blake3.clone(),
        sealed: info.sealed_unix_nano.map(rfc3339),
        verified: info.verified_unix_nano.map(rfc3339),
        retired: info.retired_unix_nano.map(rfc3339),
        damage: info.damage.clone(),
    }
}

/// `GET /api/v1/segments`
pub(crate) async fn segments(State(app): State<Shared>) -> Result<Json<Segments>, Failure> {
    let segments = app.web.reader.segments().await?;
    Ok(Json(Segments { items: segments.iter().map(segment).collect() }))
}
