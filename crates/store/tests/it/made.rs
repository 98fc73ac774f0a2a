//! Telemetry made for tests.

use std::path::Path;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use proptest::prelude::*;
use throughline_store::{Store, StoreOptions};
use throughline_trace::{
    Attributes, Decision, DecisionId, Event, Link, LogRecord, Resource, Scope, Severity, Span,
    SpanBatch, SpanId, SpanKind, Status, StatusCode, TraceId, Value,
};

/// 2026-11-22T12:00:00Z, nanoseconds since the Unix epoch.
pub(crate) const NOON: u64 = 1_795_348_800_000_000_000;

/// One UTC day, nanoseconds.
pub(crate) const DAY: u64 = 86_400_000_000_000;

/// The usual limits, and the made time for the first day: the real one goes on.
pub(crate) fn options(dir: &Path) -> StoreOptions {
    StoreOptions { first_day_unix_nano: Some(NOON), ..StoreOptions::new(dir) }
}

pub(crate) fn open(dir: &Path) -> Store {
    Store::open(options(dir), &mut Registry::default()).unwrap()
}

/// The files as a power cut would leave them: copied while the server runs, logs and all.
pub(crate) fn copy_of(from: &Path, to: &Path) {
    for folder in ["", "segments"] {
        std::fs::create_dir_all(to.join(folder)).unwrap();
        for entry in std::fs::read_dir(from.join(folder)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            // Shared memory is gone after a power cut.
            if entry.path().is_file() && !name.to_str().unwrap().ends_with("-shm") {
                std::fs::copy(entry.path(), to.join(folder).join(name)).unwrap();
            }
        }
    }
}

/// A span that starts `at` nanoseconds after noon and lasts a millisecond.
pub(crate) fn span(trace: u128, id: u64, parent: Option<u64>, at: u64) -> Span {
    let parent = parent.map(SpanId::from_u64);
    let mut span =
        Span::new(TraceId::from_u128(trace), SpanId::from_u64(id), parent, format!("span {id}"));
    span.start_unix_nano = NOON + at;
    span.end_unix_nano = NOON + at + 1_000_000;
    span
}

pub(crate) fn spans(received: u64, spans: Vec<Span>) -> SpanBatch {
    SpanBatch { received_unix_nano: received, spans, ..SpanBatch::default() }
}

pub(crate) fn decision(trace: u128, id: u128, at: u64) -> Decision {
    Decision {
        decision_id: DecisionId(uuid::Uuid::from_u128(id)),
        parent_decision_id: None,
        trace_id: Some(TraceId::from_u128(trace)),
        span_id: Some(SpanId::from_u64(1)),
        timestamp_ns: NOON + at,
        received_at_ns: NOON + at + 5,
        stage: "plan".to_owned(),
        input_hash: "9f".to_owned(),
        model_version: "v1".to_owned(),
        action: "approve".to_owned(),
        reason: "Amount below the limit".to_owned(),
        confidence: Some(0.9),
        agent_id: "fraud".to_owned(),
        session_id: "s-1".to_owned(),
        instance_id: "i".to_owned(),
        seq: 3,
        derived: false,
        service: "shop".to_owned(),
        attributes: [("k", 1_i64)].into_iter().collect(),
    }
}

pub(crate) fn resource(service: &str) -> Arc<Resource> {
    let attributes = [("service.name", service)].into_iter().collect();
    Arc::new(Resource { attributes, schema_url: String::new() })
}

pub(crate) fn log(trace: Option<u128>, at: u64, text: &str) -> LogRecord {
    LogRecord {
        time_unix_nano: NOON + at,
        observed_unix_nano: NOON + at + 1,
        trace_id: trace.map(TraceId::from_u128),
        span_id: trace.map(|_| SpanId::from_u64(1)),
        severity: Severity::INFO,
        severity_text: "info".to_owned(),
        event_name: String::new(),
        body: text.into(),
        attributes: Attributes::new(),
        dropped_attributes_count: 0,
        resource: resource("shop"),
        scope: Arc::default(),
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Empty),
        ".{0,12}".prop_map(Value::String),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (-1e300..1e300).prop_map(Value::Double),
        proptest::collection::vec(any::<u8>(), 0..9).prop_map(Value::Bytes),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::vec((".{0,6}", inner), 0..4).prop_map(Value::Map),
        ]
    })
}

pub(crate) fn any_attributes() -> impl Strategy<Value = Attributes> {
    let key = prop_oneof![
        3 => "[a-z.]{1,9}",
        1 => Just("gen_ai.input.messages".to_owned()),
        1 => Just("agent_id".to_owned()),
    ];
    let value = prop_oneof![
        4 => any_value(),
        1 => proptest::collection::vec(r#"\{"role":"user","content":"[a-z]{1,20}"\}"#, 1..4)
            .prop_map(|items| Value::String(format!("[{}]", items.join(", ")))),
    ];
    proptest::collection::vec((key, value), 0..6).prop_map(Attributes)
}

fn any_event() -> impl Strategy<Value = Event> {
    (any::<u64>(), ".{0,9}", any_attributes(), any::<u32>()).prop_map(
        |(time_unix_nano, name, attributes, dropped_attributes_count)| Event {
            time_unix_nano,
            name,
            attributes,
            dropped_attributes_count,
        },
    )
}

fn any_link() -> impl Strategy<Value = Link> {
    (1..u128::MAX, 1..u64::MAX, ".{0,9}", any::<u32>(), any_attributes()).prop_map(
        |(trace, span, trace_state, flags, attributes)| Link {
            trace_id: TraceId::from_u128(trace),
            span_id: SpanId::from_u64(span),
            trace_state,
            flags,
            attributes,
            dropped_attributes_count: flags / 2,
        },
    )
}

/// A resource and a scope, out of a few.
pub(crate) fn any_source() -> impl Strategy<Value = (Arc<Resource>, Arc<Scope>)> {
    ("[a-c]", any_attributes(), "[x-z]").prop_map(|(service, mut attributes, name)| {
        attributes.set("service.name", service);
        let resource = Resource { attributes: attributes.clone(), schema_url: name.clone() };
        let scope = Scope { name, version: "1".to_owned(), attributes, schema_url: String::new() };
        (Arc::new(resource), Arc::new(scope))
    })
}

prop_compose! {
    /// Any span, with few ids so that some meet.
    pub(crate) fn any_span()(
        (trace, id, parent) in (1..5_u128, 1..9_u64, proptest::option::of(1..9_u64)),
        (trace_state, flags, name) in (".{0,9}", any::<u32>(), ".{0,9}"),
        (kind, start, end) in (0..6, any::<u64>(), any::<u64>()),
        (code, message) in (0..3, ".{0,9}"),
        attributes in any_attributes(),
        (events, links) in (
            proptest::collection::vec(any_event(), 0..3),
            proptest::collection::vec(any_link(), 0..3),
        ),
        dropped in any::<[u32; 3]>(),
        (resource, scope) in any_source(),
    ) -> Span {
        Span {
            trace_id: TraceId::from_u128(trace),
            span_id: SpanId::from_u64(id),
            parent_span_id: parent.map(SpanId::from_u64),
            trace_state,
            flags,
            name,
            kind: SpanKind::from_i32(kind),
            start_unix_nano: start,
            end_unix_nano: end,
            status: Status { code: StatusCode::from_i32(code), message },
            attributes,
            dropped_attributes_count: dropped[0],
            events,
            dropped_events_count: dropped[1],
            links,
            dropped_links_count: dropped[2],
            resource,
            scope,
        }
    }
}
