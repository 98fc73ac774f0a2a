//! `/api/v1/facets`, `/api/v1/stats`, `/api/v1/segments` and `/api/v1/problems`: what filters may be
//! set to, how much is stored and where, which kinds of problems there are.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Serialize;
use throughline_store::{Count, FacetCount, SegmentInfo, Tally};

use super::forms::Moment;
use super::paging::{self, Keyed};
use super::shapes::Page;
use crate::failure::Failure;
use crate::format::rfc3339;
use crate::params::Params;
use crate::problems::{PROBLEM_KINDS, PROBLEMS_PATH, ProblemKind};
use crate::state::Shared;

/// Characters of a segment's day, `2026-11-22`.
const DAY_CHARS: usize = 10;

/// Values that filters may be set to, the most frequent of the recent ones first.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Facets {
    agents: Vec<Facet>,
    models: Vec<Facet>,
    services: Vec<Facet>,
    sessions: Vec<Facet>,
    users: Vec<Facet>,
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
        users: list(facets.users),
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
    /// Whether it was rewritten after it was closed.
    is_packed: bool,
    /// What sampling kept and took when it was; null when it did not act.
    sampled: Option<SampledShape>,
    /// What is wrong with it.
    damage: Option<String>,
}

/// What sampling kept and took, by reason.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "SampledSegment")]
struct SampledShape {
    /// Kept by what they are: `error`, `fallback`, `slow`, `rare`, `low_confidence`, `decided`, `held`,
    /// `running`, `rule_error`.
    kept: BTreeMap<String, SampledCount>,
    /// Kept by chance: `rest`, or `rule:` and the name of a rule.
    chosen: BTreeMap<String, SampledCount>,
    /// Gone but for their summaries, by the same names.
    dropped: BTreeMap<String, SampledCount>,
    /// Gone but for their skeletons, by the same names.
    bared: BTreeMap<String, SampledCount>,
    /// Kept after a part in an earlier segment had gone.
    too_late: SampledCount,
}

/// Traces, with their spans and log records.
#[derive(Debug, Serialize, JsonSchema)]
struct SampledCount {
    traces: u64,
    spans: u64,
    logs: u64,
}

impl SampledCount {
    fn of(count: Count) -> Self {
        Self { traces: count.traces, spans: count.spans, logs: count.logs }
    }
}

impl SampledShape {
    fn of(tally: &Tally) -> Self {
        let list = |counts: &BTreeMap<String, Count>| {
            counts.iter().map(|(of, count)| (of.clone(), SampledCount::of(*count))).collect()
        };
        Self {
            kept: list(&tally.kept),
            chosen: list(&tally.chosen),
            dropped: list(&tally.dropped),
            bared: list(&tally.bared),
            too_late: SampledCount::of(tally.too_late),
        }
    }
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
        is_packed: info.is_packed,
        sampled: info.sampled.as_ref().map(SampledShape::of),
        damage: info.damage.clone(),
    }
}

/// `GET /api/v1/segments`
pub(crate) async fn segments(
    State(app): State<Shared>,
    params: Params,
) -> Result<Json<Page<Segment>>, Failure> {
    let page = segments_of(&app, &params).await?;
    Ok(Json(Page { items: page.items.iter().map(segment).collect(), next: page.next }))
}

/// A page of the segments, the newest first.
pub(crate) async fn segments_of(
    app: &Shared,
    params: &Params,
) -> Result<Page<SegmentInfo>, Failure> {
    let (after, limit) = (Keyed::Segments.key(params)?, params.limit()?);
    let segments = app.web.reader.segments().await?;
    paging::page(Keyed::Segments, segments, place, after.as_ref(), limit)
}

/// The place of a segment in the list: the newest day first, and its last part.
fn place(info: &SegmentInfo) -> Reverse<(String, u32)> {
    let (day, part) = info.segment.split_at(info.segment.len().min(DAY_CHARS));
    Reverse((
        day.to_owned(),
        part.strip_prefix('-').and_then(|part| part.parse().ok()).unwrap_or(0),
    ))
}

#[cfg(test)]
mod tests {
    use throughline_store::SegmentState;

    use super::*;

    #[test]
    fn segments_are_paged_from_the_newest_day_and_its_last_part() {
        let segment = |name: &str| SegmentInfo {
            segment: name.to_owned(),
            state: SegmentState::Sealed,
            bytes: 0,
            traces: 0,
            spans: 0,
            logs: 0,
            metric_points: 0,
            blake3: None,
            sealed_unix_nano: None,
            verified_unix_nano: None,
            retired_unix_nano: None,
            is_packed: false,
            sampled: None,
            damage: None,
        };
        let names = ["2026-12-01", "2026-11-30-10", "2026-11-30-9", "2026-11-30", "2026-11-29-1"];
        let all: Vec<SegmentInfo> = names.into_iter().map(segment).collect();
        assert!(all.is_sorted_by_key(place));
        let after = place(&all[1]);
        let page = paging::page(Keyed::Segments, all, place, Some(&after), 2).unwrap();
        let shown: Vec<&str> = page.items.iter().map(|of| of.segment.as_str()).collect();
        assert_eq!((shown, page.next.is_some()), (vec!["2026-11-30-9", "2026-11-30"], true));
    }
}
