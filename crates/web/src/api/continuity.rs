//! `/api/v1/continuity`: where traces broke, by service, with the edges that probably lost them.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use throughline_trace::{ContinuityReport, ServiceContinuity, SuspectedEdge};

use crate::doors::Visitor;
use crate::failure::Failure;
use crate::format::{NANOS_PER_SEC, rfc3339};
use crate::params::Params;
use crate::state::Shared;

/// Time that is answered when `since` is not given, nanoseconds: that of the continuity score.
pub(crate) const DEFAULT_BACK_NS: u64 = 3_600 * NANOS_PER_SEC;

/// `GET /api/v1/continuity`
pub(crate) async fn report(
    State(app): State<Shared>,
    visitor: Visitor,
    params: Params,
) -> Result<Json<Value>, Failure> {
    params.expect_only(&[&["since"]])?;
    let now = visitor.now_unix_nano;
    let since = params.moment("since", now)?.unwrap_or(now.saturating_sub(DEFAULT_BACK_NS));
    Ok(Json(shape(&app.web.reader.continuity(since).await?)))
}

/// A report as JSON: what `/api/v1/continuity` answers.
pub fn shape(report: &ContinuityReport) -> Value {
    let coverage = &report.coverage;
    json!({
        "since": rfc3339(report.since_unix_nano),
        "is_well": report.is_well(),
        "services": report.services.iter().map(service).collect::<Vec<_>>(),
        "suspected_edges": report.edges.iter().map(edge).collect::<Vec<_>>(),
        "edges_left_out": report.edges_left_out,
        "missing_roots": {
            "count": report.missing_roots.count,
            "examples": report.missing_roots.examples,
        },
        "split_traces": report.splits.iter().map(|split| json!({
            "from": split.from,
            "call": split.call,
            "to": split.to,
            "operation": split.operation,
            "count": split.count,
            "first": rfc3339(split.first_unix_nano),
            "last": rfc3339(split.last_unix_nano),
            "examples": split.examples.iter().map(|(caller, callee)| json!({
                "caller": caller,
                "callee": callee,
            })).collect::<Vec<_>>(),
            "hint": split.hint(),
        })).collect::<Vec<_>>(),
        "clock_skews": report.skews.iter().map(|skew| json!({
            "from": skew.from,
            "to": skew.to,
            "offset_ms": skew.offset_nano as f64 / 1e6,
            "calls": skew.calls,
            "odd_calls": skew.odd,
            "last": rfc3339(skew.last_unix_nano),
            "examples": skew.examples,
        })).collect::<Vec<_>>(),
        "coverage": {
            "from": rfc3339(coverage.from_unix_nano),
            "mended_from": rfc3339(coverage.mended_from_unix_nano),
            "is_rebuilding": coverage.is_rebuilding,
            "missed_spans": coverage.missed_spans,
            "untracked_spans": coverage.untracked_spans,
            "forgotten_spans": coverage.forgotten_spans,
            "unnamed_spans": coverage.unnamed_spans,
            "folded_spans": coverage.folded_spans,
            "left_out_findings": coverage.left_out_findings,
        },
    })
}

fn service(of: &ServiceContinuity) -> Value {
    json!({
        "service": of.service,
        "score": of.score(),
        "spans": of.spans,
        "with_parent": of.with_parent,
        "roots": of.roots,
        "waiting": of.waiting,
        "orphans": of.lost,
        "remote": of.remote,
        "mended_late": of.mended_late,
        "untracked": of.untracked,
    })
}

fn edge(edge: &SuspectedEdge) -> Value {
    json!({
        "edge": edge.label(),
        "kind": edge.kind.as_str(),
        "from": edge.from,
        "caller": edge.caller,
        "to": edge.to,
        "operation": edge.operation,
        "count": edge.count,
        "first": rfc3339(edge.first_unix_nano),
        "last": rfc3339(edge.last_unix_nano),
        "examples": edge.examples,
        "hint": edge.kind.hint(),
    })
}
