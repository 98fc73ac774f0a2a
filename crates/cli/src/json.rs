//! placeholder until web's shapes exist.

use serde_json::{Value, json};
use throughline_store::StoredTrace;
use throughline_trace::{Decision, TraceSummary};

pub(crate) fn trace(trace: &StoredTrace) -> Value {
    json!({ "summary": summary(&trace.summary) })
}

pub(crate) fn summary(summary: &TraceSummary) -> Value {
    json!(summary)
}

pub(crate) fn decision(decision: &Decision) -> Value {
    json!(decision)
}
