//! `/api/v1/continuity`: where traces broke, by service, with the edges that probably lost them.

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Serialize;
use throughline_trace::{
    ClockSkew, ContinuityReport, ServiceContinuity, SplitTraces, SuspectedEdge, TraceId,
};

use super::forms::{Moment, TraceIdText};
use crate::doors::Visitor;
use crate::failure::Failure;
use crate::format::{NANOS_PER_SEC, rfc3339};
use crate::params::Params;
use crate::state::Shared;

/// Time that is answered when `since` is not given, nanoseconds: that of the continuity score.
const DEFAULT_BACK_NS: u64 = 3_600 * NANOS_PER_SEC;

/// `GET /api/v1/continuity`
pub(crate) async fn report(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Json<Continuity>, Failure> {
    let now = visitor.now_unix_nano;
    let since = params.moment("since", now)?.unwrap_or(now.saturating_sub(DEFAULT_BACK_NS));
    Ok(Json(shape(&app.web.reader.continuity(since).await?)))
}

/// Where traces broke.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Continuity {
    #[schemars(with = "Moment")]
    since: String,
    /// Nothing was found.
    is_well: bool,
    services: Vec<Service>,
    suspected_edges: Vec<Edge>,
    edges_left_out: usize,
    missing_roots: MissingRoots,
    split_traces: Vec<Split>,
    clock_skews: Vec<Skew>,
    coverage: Coverage,
}

/// Traces whose first span never came.
#[derive(Debug, Serialize, JsonSchema)]
struct MissingRoots {
    count: u64,
    #[schemars(with = "Vec<TraceIdText>")]
    examples: Vec<TraceId>,
}

/// A call that began a new trace where it should have continued one.
#[derive(Debug, Serialize, JsonSchema)]
struct Split {
    from: String,
    call: String,
    to: String,
    operation: String,
    count: u64,
    #[schemars(with = "Moment")]
    first: String,
    #[schemars(with = "Moment")]
    last: String,
    examples: Vec<SplitExample>,
    /// What to do.
    hint: &'static str,
}

/// The two traces of a split one.
#[derive(Debug, Serialize, JsonSchema)]
struct SplitExample {
    #[schemars(with = "TraceIdText")]
    caller: TraceId,
    #[schemars(with = "TraceIdText")]
    callee: TraceId,
}

/// Two services whose clocks disagree.
#[derive(Debug, Serialize, JsonSchema)]
struct Skew {
    from: String,
    to: String,
    /// How far the second is ahead of the first.
    offset_ms: f64,
    calls: u64,
    odd_calls: u64,
    #[schemars(with = "Moment")]
    last: String,
    #[schemars(with = "Vec<TraceIdText>")]
    examples: Vec<TraceId>,
}

/// What the report covers.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ContinuityCoverage")]
struct Coverage {
    #[schemars(with = "Moment")]
    from: String,
    #[schemars(with = "Moment")]
    mended_from: String,
    is_rebuilding: bool,
    missed_spans: u64,
    untracked_spans: u64,
    forgotten_spans: u64,
    unnamed_spans: u64,
    folded_spans: u64,
    left_out_findings: u64,
}

/// One service.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ServiceContinuity")]
struct Service {
    service: String,
    /// Share of the spans with a parent id whose parent is there or legitimately remote; null without
    /// such spans.
    score: Option<f64>,
    spans: u64,
    with_parent: u64,
    roots: u64,
    /// Spans whose parent may still come.
    waiting: u64,
    orphans: u64,
    remote: u64,
    mended_late: u64,
    untracked: u64,
}

/// A call that probably lost its trace.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "SuspectedEdge")]
struct Edge {
    edge: String,
    kind: &'static str,
    from: Option<String>,
    caller: Option<String>,
    to: String,
    operation: String,
    count: u64,
    #[schemars(with = "Moment")]
    first: String,
    #[schemars(with = "Moment")]
    last: String,
    #[schemars(with = "Vec<TraceIdText>")]
    examples: Vec<TraceId>,
    /// What to do.
    hint: &'static str,
}

/// A report in the form of answers.
fn shape(report: &ContinuityReport) -> Continuity {
    let coverage = &report.coverage;
    Continuity {
        since: rfc3339(report.since_unix_nano),
        is_well: report.is_well(),
        services: report.services.iter().map(service).collect(),
        suspected_edges: report.edges.iter().map(edge).collect(),
        edges_left_out: report.edges_left_out,
        missing_roots: MissingRoots {
            count: report.missing_roots.count,
            examples: report.missing_roots.examples.clone(),
        },
        split_traces: report.splits.iter().map(split).collect(),
        clock_skews: report.skews.iter().map(skew).collect(),
        coverage: Coverage {
            from: rfc3339(coverage.from_unix_nano),
            mended_from: rfc3339(coverage.mended_from_unix_nano),
            is_rebuilding: coverage.is_rebuilding,
            missed_spans: coverage.missed_spans,
            untracked_spans: coverage.untracked_spans,
            forgotten_spans: coverage.forgotten_spans,
            unnamed_spans: coverage.unnamed_spans,
            folded_spans: coverage.folded_spans,
            left_out_findings: coverage.left_out_findings,
        },
    }
}

fn split(of: &SplitTraces) -> Split {
    Split {
        from: of.from.clone(),
        call: of.call.clone(),
        to: of.to.clone(),
        operation: of.operation.clone(),
        count: of.count,
        first: rfc3339(of.first_unix_nano),
        last: rfc3339(of.last_unix_nano),
        examples: (of.examples.iter())
            .map(|(caller, callee)| SplitExample { caller: *caller, callee: *callee })
            .collect(),
        hint: of.hint(),
    }
}

fn skew(of: &ClockSkew) -> Skew {
    Skew {
        from: of.from.clone(),
        to: of.to.clone(),
        offset_ms: of.offset_nano as f64 / 1e6,
        calls: of.calls,
        odd_calls: of.odd,
        last: rfc3339(of.last_unix_nano),
        examples: of.examples.clone(),
    }
}

fn service(of: &ServiceContinuity) -> Service {
    Service {
        service: of.service.clone(),
        score: of.score(),
        spans: of.spans,
        with_parent: of.with_parent,
        roots: of.roots,
        waiting: of.waiting,
        orphans: of.lost,
        remote: of.remote,
        mended_late: of.mended_late,
        untracked: of.untracked,
    }
}

fn edge(edge: &SuspectedEdge) -> Edge {
    Edge {
        edge: edge.label(),
        kind: edge.kind.as_str(),
        from: edge.from.clone(),
        caller: edge.caller.clone(),
        to: edge.to.clone(),
        operation: edge.operation.clone(),
        count: edge.count,
        first: rfc3339(edge.first_unix_nano),
        last: rfc3339(edge.last_unix_nano),
        examples: edge.examples.clone(),
        hint: edge.kind.hint(),
    }
}

/// A report as JSON: what `/api/v1/continuity` answers.
pub fn continuity_json(report: &ContinuityReport) -> serde_json::Value {
    super::to_json(&shape(report))
}
