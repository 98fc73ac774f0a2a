//! The JSON forms of sessions and users.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Serialize;
use throughline_store::GroupSummary;
use throughline_trace::NameSet;

use super::forms::{Moment, UnixNanos};
use crate::format::rfc3339;

/// What the traces of a session or of a user add up to.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Totals {
    trace_count: u64,
    /// Model calls.
    turns: u64,
    /// Traces with a failed span.
    failed_traces: u64,
    /// Failed spans.
    error_count: u64,
    input_tokens: u64,
    output_tokens: u64,
    cost_usd: f64,
    #[schemars(with = "BTreeSet<String>")]
    agents: NameSet,
    #[schemars(with = "BTreeSet<String>")]
    models: NameSet,
    #[schemars(with = "Moment")]
    first: String,
    #[schemars(with = "UnixNanos")]
    first_unix_nano: String,
    #[schemars(with = "Moment")]
    last_seen: String,
    #[schemars(with = "UnixNanos")]
    last_seen_unix_nano: String,
    /// The totals are of the latest 1,000 traces only.
    is_cut: bool,
}

/// A session with its totals.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Session {
    session: String,
    /// The first 16 in alphabetical order.
    #[schemars(with = "BTreeSet<String>")]
    users: NameSet,
    #[serde(flatten)]
    totals: Totals,
}

/// A user with its totals.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct User {
    user: String,
    /// The first 16 in alphabetical order.
    #[schemars(with = "BTreeSet<String>")]
    sessions: NameSet,
    #[serde(flatten)]
    totals: Totals,
}

/// A session with its totals.
pub(crate) fn session(group: &GroupSummary) -> Session {
    Session { session: group.name.clone(), users: group.users.clone(), totals: totals(group) }
}

/// A user with its totals.
pub(crate) fn user(group: &GroupSummary) -> User {
    User { user: group.name.clone(), sessions: group.sessions.clone(), totals: totals(group) }
}

fn totals(group: &GroupSummary) -> Totals {
    Totals {
        trace_count: group.trace_count,
        turns: group.turns,
        failed_traces: group.failed_traces,
        error_count: group.error_count,
        input_tokens: group.input_tokens,
        output_tokens: group.output_tokens,
        cost_usd: group.cost_usd(),
        agents: group.agents.clone(),
        models: group.models.clone(),
        first: rfc3339(group.first_unix_nano),
        first_unix_nano: group.first_unix_nano.to_string(),
        last_seen: rfc3339(group.last_unix_nano),
        last_seen_unix_nano: group.last_unix_nano.to_string(),
        is_cut: group.is_cut,
    }
}
