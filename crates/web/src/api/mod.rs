//! The JSON API under `/api/v1`. Failures are problems of RFC 9457.

use serde::Serialize;
use throughline_store::{SegmentInfo, StoredTrace};
use throughline_trace::{Decision, TraceSummary};

pub(crate) mod audit;
pub(crate) mod beside;
pub(crate) mod continuity;
pub(crate) mod contract;
pub(crate) mod contracts;
mod decision_body;
mod decision_schema;
pub(crate) mod decisions;
mod forms;
pub(crate) mod gateway;
pub(crate) mod governing;
mod groups;
pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod openapi;
pub(crate) mod operation;
pub(crate) mod overview;
pub(crate) mod paging;
mod parameters;
pub(crate) mod record;
pub(crate) mod records;
pub(crate) mod series;
pub(crate) mod shapes;
pub(crate) mod signals;
pub(crate) mod sql;
pub(crate) mod table;
pub(crate) mod traces;

/// An answer as a value. What the answers hold can all be written as JSON.
fn to_json(answer: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(answer).unwrap_or_default()
}

/// A trace with everything that belongs to it, its spans in reading order: what
/// `/api/v1/traces/{trace_id}` answers.
pub fn trace_json(trace: StoredTrace) -> serde_json::Value {
    to_json(&shapes::trace(trace))
}

/// A trace's summary, as lists of `/api/v1` have it.
pub fn summary_json(summary: &TraceSummary) -> serde_json::Value {
    to_json(&shapes::summary(summary))
}

/// A segment, as `/api/v1/segments` and `throughline store segments --json` have it.
pub fn segment_json(segment: &SegmentInfo) -> serde_json::Value {
    to_json(&overview::segment(segment))
}

/// A decision, as all answers of `/api/v1` have it.
pub fn decision_json(decision: &Decision) -> serde_json::Value {
    to_json(&records::decision(decision))
}
