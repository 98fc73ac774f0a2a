//! Spans, log records and decisions back to OTLP JSON, as the file exporter of the Collector writes
//! it: one export request a line. What [`crate::decode`] reads of such a line is what was written.

use std::ptr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json, json};
use throughline_trace::{
    Attributes, Decision, Event, Link, LogRecord, Resource, Scope, Span, Value, keys,
};

/// A request with these spans; `None` for none. Spans of one resource and scope that follow each
/// other are written under one head.
pub fn encode_spans(spans: &[Span]) -> Option<Json> {
    let groups = grouped(spans.iter().map(|span| (&span.resource, &span.scope, span_json(span))));
    (!groups.is_empty()).then(|| {
        let heads = groups.into_iter().map(|group| group.into_json("scopeSpans", "spans"));
        json!({ "resourceSpans": heads.collect::<Vec<_>>() })
    })
}

/// A request with these log records, and with these decisions as events; `None` for none.
pub fn encode_logs(logs: &[LogRecord], decisions: &[Decision]) -> Option<Json> {
    let of_decisions: Vec<(Arc<Resource>, Arc<Scope>, Json)> = decisions
        .iter()
        .map(|decision| (resource_of(decision), Arc::default(), decision_json(decision)))
        .collect();
    let groups =
        grouped(logs.iter().map(|log| (&log.resource, &log.scope, log_json(log))).chain(
            of_decisions.iter().map(|(resource, scope, log)| (resource, scope, log.clone())),
        ));
    (!groups.is_empty()).then(|| {
        let heads = groups.into_iter().map(|group| group.into_json("scopeLogs", "logRecords"));
        json!({ "resourceLogs": heads.collect::<Vec<_>>() })
    })
}

/// Items of one resource and scope.
struct Group<'a> {
    resource: &'a Arc<Resource>,
    scope: &'a Arc<Scope>,
    items: Vec<Json>,
}

fn grouped<'a>(
    items: impl Iterator<Item = (&'a Arc<Resource>, &'a Arc<Scope>, Json)>,
) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for (resource, scope, item) in items {
        let is_same = |group: &&mut Group<'a>| {
            let same = |a: &Resource, b: &Resource| ptr::eq(a, b) || a == b;
            same(group.resource, resource)
                && (Arc::ptr_eq(group.scope, scope) || group.scope == scope)
        };
        match groups.last_mut().filter(is_same) {
            Some(group) => group.items.push(item),
            None => groups.push(Group { resource, scope, items: vec![item] }),
        }
    }
    groups
}

impl Group<'_> {
    fn into_json(self, scopes: &str, items: &str) -> Json {
        let Self { resource, scope, items: list } = self;
        let scope_json = json!({
            "name": scope.name,
            "version": scope.version,
            "attributes": attributes_json(&scope.attributes),
        });
        let mut of_scope = Map::new();
        of_scope.insert("scope".to_owned(), scope_json);
        of_scope.insert(items.to_owned(), Json::Array(list));
        of_scope.insert("schemaUrl".to_owned(), scope.schema_url.as_str().into());
        let mut of_resource = Map::new();
        of_resource.insert(
            "resource".to_owned(),
            json!({ "attributes": attributes_json(&resource.attributes) }),
        );
        of_resource.insert(scopes.to_owned(), json!([of_scope]));
        of_resource.insert("schemaUrl".to_owned(), resource.schema_url.as_str().into());
        Json::Object(of_resource)
    }
}

fn span_json(span: &Span) -> Json {
    json!({
        "traceId": span.trace_id.to_string(),
        "spanId": span.span_id.to_string(),
        "parentSpanId": span.parent_span_id.map_or_else(String::new, |id| id.to_string()),
        "traceState": span.trace_state,
        "flags": span.flags,
        "name": span.name,
        "kind": span.kind as i32,
        "startTimeUnixNano": span.start_unix_nano.to_string(),
        "endTimeUnixNano": span.end_unix_nano.to_string(),
        "attributes": attributes_json(&span.attributes),
        "droppedAttributesCount": span.dropped_attributes_count,
        "events": span.events.iter().map(event_json).collect::<Vec<_>>(),
        "droppedEventsCount": span.dropped_events_count,
        "links": span.links.iter().map(link_json).collect::<Vec<_>>(),
        "droppedLinksCount": span.dropped_links_count,
        "status": { "code": span.status.code as i32, "message": span.status.message },
    })
}

fn event_json(event: &Event) -> Json {
    json!({
        "timeUnixNano": event.time_unix_nano.to_string(),
        "name": event.name,
        "attributes": attributes_json(&event.attributes),
        "droppedAttributesCount": event.dropped_attributes_count,
    })
}

fn link_json(link: &Link) -> Json {
    json!({
        "traceId": link.trace_id.to_string(),
        "spanId": link.span_id.to_string(),
        "traceState": link.trace_state,
        "flags": link.flags,
        "attributes": attributes_json(&link.attributes),
        "droppedAttributesCount": link.dropped_attributes_count,
    })
}

fn log_json(log: &LogRecord) -> Json {
    json!({
        "timeUnixNano": log.time_unix_nano.to_string(),
        "observedTimeUnixNano": log.observed_unix_nano.to_string(),
        "severityNumber": log.severity.0,
        "severityText": log.severity_text,
        "eventName": log.event_name,
        "body": value_json(&log.body),
        "attributes": attributes_json(&log.attributes),
        "droppedAttributesCount": log.dropped_attributes_count,
        "traceId": log.trace_id.map_or_else(String::new, |id| id.to_string()),
        "spanId": log.span_id.map_or_else(String::new, |id| id.to_string()),
    })
}

/// What a decision keeps of its sender.
fn resource_of(decision: &Decision) -> Arc<Resource> {
    let mut resource = Resource::default();
    if !decision.service.is_empty() {
        resource.attributes.set(keys::SERVICE_NAME, decision.service.clone());
    }
    Arc::new(resource)
}

fn decision_json(decision: &Decision) -> Json {
    let mut fields = Attributes::new();
    fields.set(keys::DECISION_ID, decision.decision_id.to_string());
    if let Some(parent) = decision.parent_decision_id {
        fields.set(keys::PARENT_DECISION_ID, parent.to_string());
    }
    fields.set(keys::TIMESTAMP_NS, i64::try_from(decision.timestamp_ns).unwrap_or(i64::MAX));
    for (key, text) in [
        (keys::STAGE, &decision.stage),
        (keys::INPUT_HASH, &decision.input_hash),
        (keys::MODEL_VERSION, &decision.model_version),
        (keys::DECISION_ACTION, &decision.action),
        (keys::DECISION_REASON, &decision.reason),
        (keys::AGENT_ID, &decision.agent_id),
        (keys::SESSION_ID, &decision.session_id),
        (keys::INSTANCE_ID, &decision.instance_id),
    ] {
        if !text.is_empty() || key == keys::DECISION_ACTION {
            fields.set(key, text.clone());
        }
    }
    if let Some(confidence) = decision.confidence {
        fields.set(keys::DECISION_CONFIDENCE, confidence);
    }
    if decision.seq > 0 {
        fields.set(keys::SEQ, i64::try_from(decision.seq).unwrap_or(i64::MAX));
    }
    if decision.derived {
        fields.set(keys::DERIVED, true);
    }
    fields.0.extend(decision.attributes.0.iter().cloned());
    json!({
        "timeUnixNano": decision.timestamp_ns.to_string(),
        "eventName": keys::DECISION_EVENT,
        "attributes": attributes_json(&fields),
        "traceId": decision.trace_id.map_or_else(String::new, |id| id.to_string()),
        "spanId": decision.span_id.map_or_else(String::new, |id| id.to_string()),
    })
}

fn attributes_json(attributes: &Attributes) -> Json {
    attributes
        .0
        .iter()
        .map(|(key, value)| json!({ "key": key, "value": value_json(value) }))
        .collect()
}

/// `AnyValue` as OTLP/JSON spells it: integers as text, bytes as base64.
fn value_json(value: &Value) -> Json {
    match value {
        Value::Empty => json!({}),
        Value::String(text) => json!({ "stringValue": text }),
        Value::Bool(truth) => json!({ "boolValue": truth }),
        Value::Int(number) => json!({ "intValue": number.to_string() }),
        Value::Double(number) => match serde_json::Number::from_f64(*number) {
            Some(number) => json!({ "doubleValue": number }),
            // The proto3 mapping has names for what JSON cannot spell.
            None if number.is_nan() => json!({ "doubleValue": "NaN" }),
            None if *number > 0.0 => json!({ "doubleValue": "Infinity" }),
            None => json!({ "doubleValue": "-Infinity" }),
        },
        Value::Bytes(bytes) => json!({ "bytesValue": STANDARD.encode(bytes) }),
        Value::Array(items) => {
            json!({ "arrayValue": { "values": items.iter().map(value_json).collect::<Vec<_>>() } })
        }
        Value::Map(entries) => {
            let entries = entries.iter();
            let values =
                entries.map(|(key, value)| json!({ "key": key, "value": value_json(value) }));
            json!({ "kvlistValue": { "values": values.collect::<Vec<_>>() } })
        }
    }
}
