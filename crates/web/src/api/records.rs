//! The JSON forms of decisions, log records and metric values.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value as Json, json};
use throughline_store::{DecisionGap, audit_hex};
use throughline_trace::{self as model, MetricValue};

use super::forms::{
    AnyJson, AnyObject, DecisionIdText, Hash, Moment, SpanIdText, TraceIdText, UnixNanos,
};
use super::shapes::{Resource, Scope, resource, scope};
use crate::format::rfc3339;

/// A decision, as all answers of `/api/v1` have it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Decision {
    #[schemars(with = "DecisionIdText")]
    decision_id: model::DecisionId,
    #[schemars(with = "Option<DecisionIdText>")]
    parent_decision_id: Option<model::DecisionId>,
    #[schemars(with = "Option<TraceIdText>")]
    trace_id: Option<model::TraceId>,
    #[schemars(with = "Option<SpanIdText>")]
    span_id: Option<model::SpanId>,
    #[schemars(with = "Moment")]
    timestamp: String,
    #[schemars(with = "UnixNanos")]
    timestamp_ns: String,
    #[schemars(with = "Moment")]
    received: String,
    #[schemars(with = "UnixNanos")]
    received_at_ns: String,
    stage: String,
    input_hash: String,
    model_version: String,
    decision: Choice,
    agent_id: String,
    session_id: String,
    instance_id: String,
    /// Its number within the instance; 0 for none.
    seq: u64,
    /// The server derived it from a span.
    derived: bool,
    service: String,
    #[schemars(with = "AnyObject")]
    attributes: Json,
}

/// What was decided.
#[derive(Debug, Serialize, JsonSchema)]
struct Choice {
    action: String,
    reason: String,
    /// From 0 to 1.
    confidence: Option<f64>,
}

/// A decision, as all answers of `/api/v1` have it.
pub(crate) fn decision(decision: &model::Decision) -> Decision {
    Decision {
        decision_id: decision.decision_id,
        parent_decision_id: decision.parent_decision_id,
        trace_id: decision.trace_id,
        span_id: decision.span_id,
        timestamp: rfc3339(decision.timestamp_ns),
        timestamp_ns: decision.timestamp_ns.to_string(),
        received: rfc3339(decision.received_at_ns),
        received_at_ns: decision.received_at_ns.to_string(),
        stage: decision.stage.clone(),
        input_hash: decision.input_hash.clone(),
        model_version: decision.model_version.clone(),
        decision: Choice {
            action: decision.action.clone(),
            reason: decision.reason.clone(),
            confidence: decision.confidence,
        },
        agent_id: decision.agent_id.clone(),
        session_id: decision.session_id.clone(),
        instance_id: decision.instance_id.clone(),
        seq: decision.seq,
        derived: decision.derived,
        service: decision.service.clone(),
        attributes: decision.attributes.to_json(),
    }
}

/// A decision of a list, with its place in the audit log.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ListedDecision {
    #[serde(flatten)]
    decision: Decision,
    /// Null when it was put in past the server.
    chain: Option<Place>,
}

/// A place in the audit log's chain.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Place {
    number: u64,
    #[schemars(with = "Hash")]
    link: String,
}

pub(crate) fn listed(of: &model::Decision, place: Option<&(u64, [u8; 32])>) -> ListedDecision {
    let place = place.map(|(number, link)| Place { number: *number, link: audit_hex(link) });
    ListedDecision { decision: decision(of), chain: place }
}

/// Numbers of an instance that never came.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Gap {
    instance_id: String,
    agent_id: String,
    first_seq: u64,
    last_seq: u64,
    /// How many.
    missing: u64,
    #[schemars(with = "UnixNanos")]
    noticed_unix_nano: String,
}

pub(crate) fn gap(gap: &DecisionGap) -> Gap {
    Gap {
        instance_id: gap.instance_id.clone(),
        agent_id: gap.agent_id.clone(),
        first_seq: gap.first_seq,
        last_seq: gap.last_seq,
        missing: gap.missing(),
        noticed_unix_nano: gap.noticed_unix_nano.to_string(),
    }
}

/// A log record.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "LogRecord")]
pub(crate) struct Log {
    #[schemars(with = "Moment")]
    time: String,
    #[schemars(with = "UnixNanos")]
    time_unix_nano: String,
    #[schemars(with = "Moment")]
    observed: String,
    #[schemars(with = "Option<TraceIdText>")]
    trace_id: Option<model::TraceId>,
    #[schemars(with = "Option<SpanIdText>")]
    span_id: Option<model::SpanId>,
    /// `TRACE`, `DEBUG`, `INFO`, `WARN`, `ERROR`, `FATAL`, or what stands for none.
    severity: &'static str,
    severity_number: u8,
    severity_text: String,
    event_name: String,
    #[schemars(with = "AnyJson")]
    body: Json,
    #[schemars(with = "AnyObject")]
    attributes: Json,
    service: String,
    resource: Resource,
    scope: Scope,
}

pub(crate) fn log(log: &model::LogRecord) -> Log {
    Log {
        time: rfc3339(log.time_unix_nano),
        time_unix_nano: log.time_unix_nano.to_string(),
        observed: rfc3339(log.observed_unix_nano),
        trace_id: log.trace_id,
        span_id: log.span_id,
        severity: log.severity.as_str(),
        severity_number: log.severity.0,
        severity_text: log.severity_text.clone(),
        event_name: log.event_name.clone(),
        body: log.body.to_json(),
        attributes: log.attributes.to_json(),
        service: log.resource.service().to_owned(),
        resource: resource(&log.resource),
        scope: scope(&log.scope),
    }
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
