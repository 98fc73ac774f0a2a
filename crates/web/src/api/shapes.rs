//! The JSON forms of what the store answers.
//!
//! Times are given twice: RFC 3339 with nanoseconds for people, and `*_unix_nano` as text, since
//! nanoseconds do not fit the numbers of JavaScript (OTLP/JSON does the same).

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};
use throughline_store::{Page, SegmentInfo, SessionSummary, StoredTrace};
use throughline_trace::{
    Attributes, Decision, Event, Link, LogRecord, MetricValue, Resource, Scope, Span, TraceNode,
    TraceSummary, TraceTree, Usage, Value, keys,
};

use crate::format::rfc3339;

/// A page of a list: `{items, next}`.
pub(crate) fn page<T>(page: &Page<T>, shape: impl Fn(&T) -> Json) -> Json {
    json!({ "items": page.items.iter().map(shape).collect::<Vec<_>>(), "next": page.next })
}

/// A page of a search: {items, next, search}; `search.searched_until` is set when it stopped for its
/// limits before the page was full.
pub(crate) fn searched_page<T>(page_of: &Page<T>, shape: impl Fn(&T) -> Json) -> Json {
    let mut json = page(page_of, shape);
    let until = page_of.search.searched_until_unix_nano;
    json["search"] = json!({
        "is_complete": until.is_none() && page_of.search.traces_cut == 0,
        "searched_until": until.map(rfc3339),
        "searched_until_unix_nano": until.map(|until| until.to_string()),
        "traces_cut": page_of.search.traces_cut,
    });
    json
}

/// A session with its totals.
pub(crate) fn session(session: &SessionSummary) -> Json {
    json!({
        "session": session.session,
        "trace_count": session.trace_count,
        "turns": session.turns,
        "failed_traces": session.failed_traces,
        "error_count": session.error_count,
        "input_tokens": session.input_tokens,
        "output_tokens": session.output_tokens,
        "cost_usd": session.cost_usd(),
        "agents": session.agents,
        "models": session.models,
        "first": rfc3339(session.first_unix_nano),
        "first_unix_nano": session.first_unix_nano.to_string(),
        "last_seen": rfc3339(session.last_unix_nano),
        "last_seen_unix_nano": session.last_unix_nano.to_string(),
        "is_cut": session.is_cut,
    })
}

/// A trace with everything that belongs to it, its spans in reading order: what
/// `/api/v1/traces/{trace_id}` answers.
pub fn trace(trace: StoredTrace) -> Json {
    let tree = TraceTree::build(trace.spans);
    json!({
        "summary": summary(&trace.summary),
        "orphan_count": tree.orphan_count(),
        "is_skeleton": trace.is_skeleton,
        "truncated": trace.truncated.map(|cut| json!({
            "total_spans": cut.total_spans,
            "total_logs": cut.total_logs,
            "total_decisions": cut.total_decisions,
        })),
        "spans": tree.nodes().iter().map(node).collect::<Vec<_>>(),
        "decisions": trace.decisions.iter().map(decision).collect::<Vec<_>>(),
        "logs": trace.logs.iter().map(log).collect::<Vec<_>>(),
    })
}

/// A segment, as `/api/v1/segments` and `throughline store segments --json` have it.
pub fn segment(info: &SegmentInfo) -> Json {
    json!({
        "segment": info.segment,
        "state": info.state.as_str(),
        "bytes": info.bytes,
        "traces": info.traces,
        "spans": info.spans,
        "logs": info.logs,
        "metric_points": info.metric_points,
        "blake3": info.blake3,
        "sealed": info.sealed_unix_nano.map(rfc3339),
        "verified": info.verified_unix_nano.map(rfc3339),
        "retired": info.retired_unix_nano.map(rfc3339),
        "damage": info.damage,
    })
}

/// A trace's summary, as lists of `/api/v1` have it.
pub fn summary(summary: &TraceSummary) -> Json {
    let names = |names: &BTreeSet<String>| json!(names);
    let root = summary.root.as_ref();
    let is_begun = summary.start_unix_nano != u64::MAX;
    json!({
        "trace_id": summary.trace_id,
        "name": summary.name(),
        "has_root": root.is_some_and(|root| root.is_root),
        "is_error": root.is_some_and(|root| root.is_error),
        "outcome": root.and_then(|root| root.outcome.as_deref()),
        "root_span_id": root.map(|root| root.span_id),
        "agent": summary.agent(),
        "session": summary.session(),
        "start": is_begun.then(|| rfc3339(summary.start_unix_nano)),
        "start_unix_nano": is_begun.then(|| summary.start_unix_nano.to_string()),
        "duration_ms": millis(summary.duration_nano()),
        "received": rfc3339(summary.received_unix_nano),
        "span_count": summary.span_count,
        "error_count": summary.error_count,
        "llm_calls": summary.llm_calls,
        "tool_calls": summary.tool_calls,
        "retries": summary.retries,
        "decision_count": summary.decision_count,
        "log_count": summary.log_count,
        "input_tokens": summary.input_tokens,
        "output_tokens": summary.output_tokens,
        "cost_usd": summary.cost_usd(),
        "fallback": summary.fallback.as_str(),
        "agents": names(&summary.agents),
        "sessions": names(&summary.sessions),
        "models": names(&summary.models),
        "services": names(&summary.services),
        "tools": names(&summary.tools),
        "error_types": names(&summary.error_types),
    })
}

/// A span in its place in the tree.
fn node(node: &TraceNode) -> Json {
    let mut json = span(&node.span);
    if let Json::Object(fields) = &mut json {
        fields.insert("depth".to_owned(), json!(node.depth));
        fields.insert("descendants".to_owned(), json!(node.descendants));
        fields.insert("is_orphan".to_owned(), json!(node.is_orphan));
        fields.insert("is_duplicate".to_owned(), json!(node.is_duplicate));
        fields.insert("is_cycle".to_owned(), json!(node.is_cycle));
    }
    json
}

fn span(span: &Span) -> Json {
    let usage = Usage::from_attributes(&span.attributes);
    json!({
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "parent_span_id": span.parent_span_id,
        "trace_state": span.trace_state,
        "name": span.name,
        "kind": span.kind.as_str(),
        "role": span.role().as_str(),
        "service": span.service(),
        "start": rfc3339(span.start_unix_nano),
        "start_unix_nano": span.start_unix_nano.to_string(),
        "end_unix_nano": span.end_unix_nano.to_string(),
        "duration_ms": millis(span.duration_nano()),
        "status": { "code": span.status.code.as_str(), "message": span.status.message },
        "error_type": span.error_type(),
        "model": span.model(),
        "tool": span.tool(),
        "usage": usage,
        "cost_usd": span.attributes.f64(keys::COST_USD),
        "attributes": attributes(&span.attributes),
        "events": span.events.iter().map(event).collect::<Vec<_>>(),
        "links": span.links.iter().map(link).collect::<Vec<_>>(),
        "resource": resource(&span.resource),
        "scope": scope(&span.scope),
        "dropped": {
            "attributes": span.dropped_attributes_count,
            "events": span.dropped_events_count,
            "links": span.dropped_links_count,
        },
    })
}

/// Attributes as an object. What conventions let travel as JSON text (messages, tool arguments)
/// is given as the JSON that it is.
fn attributes(attributes: &Attributes) -> Json {
    const STRUCTURED: [&str; 6] = [
        keys::GEN_AI_INPUT_MESSAGES,
        keys::GEN_AI_OUTPUT_MESSAGES,
        keys::GEN_AI_SYSTEM_INSTRUCTIONS,
        keys::GEN_AI_TOOL_DEFINITIONS,
        keys::GEN_AI_TOOL_CALL_ARGUMENTS,
        keys::GEN_AI_TOOL_CALL_RESULT,
    ];
    let value = |key: &str, value: &Value| {
        if STRUCTURED.contains(&key) { value.to_structured_json() } else { value.to_json() }
    };
    Json::Object(attributes.iter().map(|(key, v)| (key.to_owned(), value(key, v))).collect())
}

fn event(event: &Event) -> Json {
    json!({
        "name": event.name,
        "time": rfc3339(event.time_unix_nano),
        "time_unix_nano": event.time_unix_nano.to_string(),
        "attributes": event.attributes.to_json(),
    })
}

fn link(link: &Link) -> Json {
    json!({
        "trace_id": link.trace_id,
        "span_id": link.span_id,
        "attributes": link.attributes.to_json(),
    })
}

fn resource(resource: &Resource) -> Json {
    json!({ "attributes": resource.attributes.to_json(), "schema_url": resource.schema_url })
}

fn scope(scope: &Scope) -> Json {
    json!({ "name": scope.name, "version": scope.version, "attributes": scope.attributes.to_json() })
}

/// A decision, as all answers of `/api/v1` have it.
pub fn decision(decision: &Decision) -> Json {
    json!({
        "decision_id": decision.decision_id,
        "parent_decision_id": decision.parent_decision_id,
        "trace_id": decision.trace_id,
        "span_id": decision.span_id,
        "timestamp": rfc3339(decision.timestamp_ns),
        "timestamp_ns": decision.timestamp_ns.to_string(),
        "received": rfc3339(decision.received_at_ns),
        "received_at_ns": decision.received_at_ns.to_string(),
        "stage": decision.stage,
        "input_hash": decision.input_hash,
        "model_version": decision.model_version,
        "decision": {
            "action": decision.action,
            "reason": decision.reason,
            "confidence": decision.confidence,
        },
        "agent_id": decision.agent_id,
        "session_id": decision.session_id,
        "instance_id": decision.instance_id,
        "seq": decision.seq,
        "derived": decision.derived,
        "service": decision.service,
        "attributes": decision.attributes.to_json(),
    })
}

/// A log record.
pub(crate) fn log(log: &LogRecord) -> Json {
    json!({
        "time": rfc3339(log.time_unix_nano),
        "time_unix_nano": log.time_unix_nano.to_string(),
        "observed": rfc3339(log.observed_unix_nano),
        "trace_id": log.trace_id,
        "span_id": log.span_id,
        "severity": log.severity.as_str(),
        "severity_number": log.severity.0,
        "severity_text": log.severity_text,
        "event_name": log.event_name,
        "body": log.body.to_json(),
        "attributes": log.attributes.to_json(),
        "service": log.resource.service(),
        "resource": resource(&log.resource),
        "scope": scope(&log.scope),
    })
}

/// The value of a metric point; what JSON cannot spell becomes null.
pub(crate) fn metric_value(value: &MetricValue) -> Json {
    match value {
        MetricValue::None => Json::Null,
        MetricValue::Int(number) => json!(number),
        MetricValue::Double(number) => json!(number),
        MetricValue::Histogram(histogram) => json!(histogram),
        MetricValue::Summary { count, sum, quantiles } => {
            json!({ "count": count, "sum": sum, "quantiles": quantiles })
        }
    }
}

fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}
