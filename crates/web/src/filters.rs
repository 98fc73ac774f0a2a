//! From query parameters to the filters of the store: the same words for pages, API and live events.

use throughline_store::{DecisionFilter, LogFilter, SearchError, SearchQuery, TraceFilter};
use throughline_trace::{FallbackState, Severity};

use crate::failure::Failure;
use crate::params::Params;

/// Parameters of every list.
pub(crate) const PAGING: [&str; 2] = ["cursor", "limit"];
/// Parameters that choose traces.
pub(crate) const TRACE_PARAMS: [&str; 12] = [
    "q",
    "agent",
    "session",
    "user",
    "model",
    "service",
    "error",
    "fallback",
    "min_duration",
    "max_duration",
    "since",
    "until",
];
/// Parameters that choose decisions.
pub(crate) const DECISION_PARAMS: [&str; 14] = [
    "q",
    "agent",
    "session",
    "stage",
    "action",
    "model_version",
    "input_hash",
    "instance",
    "derived",
    "trace_id",
    "min_confidence",
    "max_confidence",
    "since",
    "until",
];
/// Parameters that choose log records.
pub(crate) const LOG_PARAMS: [&str; 7] =
    ["q", "service", "severity", "event_name", "trace_id", "since", "until"];

/// Parameters that choose sessions or users by their traces.
pub(crate) const SESSION_PARAMS: [&str; 4] = ["agent", "service", "since", "until"];

/// The traces that a query asks for.
pub(crate) fn traces(params: &Params, now_unix_nano: u64) -> Result<TraceFilter, Failure> {
    let query = query(params, now_unix_nano).map_err(|error| Failure::query("q", &error))?;
    Ok(TraceFilter { query, ..trace_fields(params, now_unix_nano)? })
}

/// What `q` asks in the query language.
pub(crate) fn query(
    params: &Params,
    now_unix_nano: u64,
) -> Result<Option<SearchQuery>, SearchError> {
    params.text("q").map(|text| SearchQuery::parse(text, now_unix_nano)).transpose()
}

/// The traces that the parameters beside `q` ask for.
pub(crate) fn trace_fields(params: &Params, now_unix_nano: u64) -> Result<TraceFilter, Failure> {
    Ok(TraceFilter {
        agent: params.owned("agent"),
        session: params.owned("session"),
        user: params.owned("user"),
        model: params.owned("model"),
        service: params.owned("service"),
        error: params.truth("error")?,
        fallback: params.read(
            "fallback",
            "none, skipped, degraded or failed",
            FallbackState::from_text,
        )?,
        min_duration_ms: params.duration_ms("min_duration")?,
        max_duration_ms: params.duration_ms("max_duration")?,
        text: None,
        start_after_unix_nano: params.moment("since", now_unix_nano)?,
        start_before_unix_nano: params.moment("until", now_unix_nano)?,
        query: None,
    })
}

/// The decisions that a query asks for.
pub(crate) fn decisions(params: &Params, now_unix_nano: u64) -> Result<DecisionFilter, Failure> {
    Ok(DecisionFilter {
        agent: params.owned("agent"),
        session: params.owned("session"),
        stage: params.owned("stage"),
        action: params.owned("action"),
        model_version: params.owned("model_version"),
        input_hash: params.owned("input_hash"),
        instance: params.owned("instance"),
        derived: params.truth("derived")?,
        trace_id: params.trace_id("trace_id")?,
        text: params.owned("q"),
        min_confidence: params.share("min_confidence")?,
        max_confidence: params.share("max_confidence")?,
        after_unix_nano: params.moment("since", now_unix_nano)?,
        before_unix_nano: params.moment("until", now_unix_nano)?,
    })
}

/// The log records that a query asks for.
pub(crate) fn logs(params: &Params, now_unix_nano: u64) -> Result<LogFilter, Failure> {
    Ok(LogFilter {
        service: params.owned("service"),
        min_severity: params.read(
            "severity",
            "trace, debug, info, warn, error or fatal",
            severity,
        )?,
        text: params.owned("q"),
        event_name: params.owned("event_name"),
        trace_id: params.trace_id("trace_id")?,
        after_unix_nano: params.moment("since", now_unix_nano)?,
        before_unix_nano: params.moment("until", now_unix_nano)?,
    })
}

/// The least severity of a named range (OpenTelemetry logs data model).
fn severity(text: &str) -> Option<Severity> {
    Some(Severity(match text {
        "trace" => 1,
        "debug" => 5,
        "info" => Severity::INFO.0,
        "warn" => Severity::WARN.0,
        "error" => Severity::ERROR.0,
        "fatal" => 21,
        _ => return None,
    }))
}
