//! Log records, and the decisions among them.

use opentelemetry_proto::tonic::common::v1::KeyValueList;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message as _;
use throughline_ingest::{Encoding, Limits, Problem, Signal, decode};
use throughline_trace::keys;

use crate::support::{RECEIVED, START, attribute, logs, protobuf, text, value};

fn decision(change: impl FnOnce(&mut LogRecord)) -> LogRecord {
    let mut record = LogRecord {
        time_unix_nano: START,
        observed_time_unix_nano: START + 1,
        severity_number: 9,
        trace_id: vec![0xaa; 16],
        span_id: vec![1; 8],
        event_name: keys::DECISION_EVENT.into(),
        attributes: vec![
            attribute(keys::DECISION_ID, text("6f9619ff-8b86-4d01-b42d-00cf4fc964ff")),
            attribute(keys::DECISION_ACTION, text("refund")),
            attribute(keys::DECISION_REASON, text("order never shipped")),
            attribute(keys::DECISION_CONFIDENCE, value(Any::DoubleValue(0.93))),
            attribute(keys::TIMESTAMP_NS, value(Any::IntValue(START as i64 - 5))),
            attribute(keys::STAGE, text("act.tool")),
            attribute(keys::INPUT_HASH, text("b3:77")),
            attribute(keys::AGENT_ID, text("shop")),
            attribute(keys::SESSION_ID, text("s-1")),
            attribute(keys::INSTANCE_ID, text("i-1")),
            attribute(keys::SEQ, value(Any::IntValue(4))),
            attribute("order", text("o-9")),
        ],
        ..LogRecord::default()
    };
    change(&mut record);
    record
}

fn set(record: &mut LogRecord, key: &str, value: Option<&str>) {
    record.attributes.retain(|entry| entry.key != key);
    record.attributes.extend(value.map(|value| attribute(key, text(value))));
}

#[test]
fn decisions_are_read_from_their_log_events() {
    let records = vec![
        decision(|_| {}),
        // Exporters older than the field `event_name`.
        decision(|record| {
            record.event_name.clear();
            set(record, "event.name", Some(keys::DECISION_EVENT));
        }),
        // As a body, in the shape of R4.4; the ids of the trace as text.
        LogRecord {
            time_unix_nano: START,
            event_name: keys::DECISION_EVENT.into(),
            body: Some(value(Any::KvlistValue(KeyValueList {
                values: vec![
                    attribute(keys::DECISION_ID, text("0E37DF36-F698-11E6-8DD4-CB9CED3DF976")),
                    attribute("trace_id", text("AA000000000000000000000000000001")),
                    attribute("span_id", text("bb00000000000001")),
                    attribute(keys::TIMESTAMP_NS, text("1795348800000000001")),
                    attribute(
                        "decision",
                        value(Any::KvlistValue(KeyValueList {
                            values: vec![
                                attribute("action", text("wait")),
                                attribute("confidence", text("0.5")),
                            ],
                        })),
                    ),
                ],
            }))),
            ..LogRecord::default()
        },
    ];
    insta::assert_snapshot!(protobuf(Signal::Logs, &logs(records)), @r#"
    decision {"decision_id":"6f9619ff-8b86-4d01-b42d-00cf4fc964ff","parent_decision_id":null,"trace_id":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","span_id":"0101010101010101","timestamp_ns":1795348798999999995,"received_at_ns":1795348800000000000,"stage":"act.tool","input_hash":"b3:77","model_version":"","action":"refund","reason":"order never shipped","confidence":0.93,"agent_id":"shop","session_id":"s-1","instance_id":"i-1","seq":4,"derived":false,"service":"shop","attributes":[["order",{"String":"o-9"}]]}
    decision {"decision_id":"6f9619ff-8b86-4d01-b42d-00cf4fc964ff","parent_decision_id":null,"trace_id":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","span_id":"0101010101010101","timestamp_ns":1795348798999999995,"received_at_ns":1795348800000000000,"stage":"act.tool","input_hash":"b3:77","model_version":"","action":"refund","reason":"order never shipped","confidence":0.93,"agent_id":"shop","session_id":"s-1","instance_id":"i-1","seq":4,"derived":false,"service":"shop","attributes":[["order",{"String":"o-9"}]]}
    decision {"decision_id":"0e37df36-f698-11e6-8dd4-cb9ced3df976","parent_decision_id":null,"trace_id":"aa000000000000000000000000000001","span_id":"bb00000000000001","timestamp_ns":1795348800000000001,"received_at_ns":1795348800000000000,"stage":"","input_hash":"","model_version":"","action":"wait","reason":"","confidence":0.5,"agent_id":"","session_id":"","instance_id":"","seq":0,"derived":false,"service":"shop","attributes":[]}
    "#);
}

#[test]
fn malformed_decisions_are_kept() {
    let records = vec![
        decision(|record| set(record, keys::DECISION_ID, Some("not-a-uuid"))),
        decision(|record| set(record, keys::DECISION_ID, None)),
        decision(|record| set(record, keys::DECISION_ACTION, Some(""))),
        // These are decisions, and what cannot be read stays beside them.
        decision(|record| {
            set(record, keys::DECISION_CONFIDENCE, Some("very"));
            set(record, keys::PARENT_DECISION_ID, Some("the one before"));
        }),
        decision(|record| set(record, keys::DECISION_CONFIDENCE, Some("1.5"))),
    ];
    insta::assert_snapshot!(protobuf(Signal::Logs, &logs(records)), @r#"
    log "agent.decision" received-1000ms seen received-999.999999ms INFO Some(aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa) Some(0101010101010101) null
      decision.action = "refund"
      decision.reason = "order never shipped"
      decision.confidence = 0.93
      timestamp_ns = 1795348798999999995
      stage = "act.tool"
      input_hash = "b3:77"
      agent_id = "shop"
      session_id = "s-1"
      instance_id = "i-1"
      seq = 4
      order = "o-9"
      decision_id = "not-a-uuid"
      throughline.mended = "decision"
    log "agent.decision" received-1000ms seen received-999.999999ms INFO Some(aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa) Some(0101010101010101) null
      decision.action = "refund"
      decision.reason = "order never shipped"
      decision.confidence = 0.93
      timestamp_ns = 1795348798999999995
      stage = "act.tool"
      input_hash = "b3:77"
      agent_id = "shop"
      session_id = "s-1"
      instance_id = "i-1"
      seq = 4
      order = "o-9"
      throughline.mended = "decision"
    log "agent.decision" received-1000ms seen received-999.999999ms INFO Some(aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa) Some(0101010101010101) null
      decision_id = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"
      decision.reason = "order never shipped"
      decision.confidence = 0.93
      timestamp_ns = 1795348798999999995
      stage = "act.tool"
      input_hash = "b3:77"
      agent_id = "shop"
      session_id = "s-1"
      instance_id = "i-1"
      seq = 4
      order = "o-9"
      decision.action = ""
      throughline.mended = "decision"
    decision {"decision_id":"6f9619ff-8b86-4d01-b42d-00cf4fc964ff","parent_decision_id":null,"trace_id":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","span_id":"0101010101010101","timestamp_ns":1795348798999999995,"received_at_ns":1795348800000000000,"stage":"act.tool","input_hash":"b3:77","model_version":"","action":"refund","reason":"order never shipped","confidence":null,"agent_id":"shop","session_id":"s-1","instance_id":"i-1","seq":4,"derived":false,"service":"shop","attributes":[["order",{"String":"o-9"}],["decision.confidence",{"String":"very"}],["parent_decision_id",{"String":"the one before"}],["throughline.mended",{"String":"decision_field"}]]}
    decision {"decision_id":"6f9619ff-8b86-4d01-b42d-00cf4fc964ff","parent_decision_id":null,"trace_id":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","span_id":"0101010101010101","timestamp_ns":1795348798999999995,"received_at_ns":1795348800000000000,"stage":"act.tool","input_hash":"b3:77","model_version":"","action":"refund","reason":"order never shipped","confidence":null,"agent_id":"shop","session_id":"s-1","instance_id":"i-1","seq":4,"derived":false,"service":"shop","attributes":[["order",{"String":"o-9"}],["decision.confidence",{"String":"1.5"}],["throughline.mended",{"String":"decision_field"}]]}
    rejected 0 mended 5 truncated 0 {"decision": 3, "decision_field": 2}
    accepted 5 with changes; first: agent.decision of "shop" kept as a log record, expected a UUID as decision_id: decision
    "#);
}

#[test]
fn a_decision_with_too_many_fields_keeps_its_own_and_the_first_of_the_others() {
    let many = 50_000;
    let numbered = |n: usize| attribute(&format!("k{n}"), text("x"));
    let mut values: Vec<_> = (0..many).map(numbered).collect();
    // Said already among the attributes: the body's is no other field.
    values.push(attribute("order", text("o-10")));
    values.push(attribute(keys::MODEL_VERSION, text("v7")));
    values.push(attribute(
        "decision",
        value(Any::KvlistValue(KeyValueList {
            values: (0..many).map(numbered).chain([attribute("action", text("wait"))]).collect(),
        })),
    ));
    let record = decision(|record| {
        set(record, keys::DECISION_ACTION, None);
        record.body = Some(value(Any::KvlistValue(KeyValueList { values })));
    });
    let body = logs(vec![record]).encode_to_vec();
    let limits = Limits { max_attribute_bytes: body.len(), ..Limits::default() };
    let decoded = decode(Signal::Logs, Encoding::Protobuf, &body, &limits, RECEIVED).unwrap();
    let [decision] = decoded.batch.decisions.as_slice() else { panic!("one decision") };
    assert_eq!((decision.action.as_str(), decision.model_version.as_str()), ("wait", "v7"));
    assert_eq!(decision.attributes.str("order"), Some("o-9"));
    assert_eq!(decision.attributes.str("k0"), Some("x"));
    assert!(decision.attributes.len() <= limits.max_attributes, "{}", decision.attributes.len());
    assert_eq!(decision.attributes.str(keys::MENDED), Some("many_attributes"));
    assert_eq!(decoded.report.count(Problem::ManyAttributes), 1);
    assert_eq!(decoded.report.truncated, 1);
}

#[test]
fn log_records_of_all_sorts() {
    let records = vec![
        LogRecord {
            time_unix_nano: START,
            severity_number: 17,
            severity_text: "ERROR".into(),
            body: Some(text("it broke")),
            ..LogRecord::default()
        },
        LogRecord { observed_time_unix_nano: START, severity_number: 99, ..LogRecord::default() },
        LogRecord::default(),
        LogRecord {
            time_unix_nano: START,
            observed_time_unix_nano: START,
            trace_id: vec![1; 3],
            span_id: vec![0; 8],
            ..LogRecord::default()
        },
    ];
    insta::assert_snapshot!(protobuf(Signal::Logs, &logs(records)), @r#"
    log "" received-1000ms seen received ERROR None None "it broke"
    log "" received-1000ms seen received-1000ms  None None null
    log "" received seen received  None None null
      throughline.mended = "no_time"
    log "" received-1000ms seen received-1000ms  None None null
      throughline.mended = "trace_id:010101"
    rejected 0 mended 2 truncated 0 {"no_time": 1, "trace_id": 1}
    accepted 2 with changes; first: log record of "shop": no_time
    "#);
}
