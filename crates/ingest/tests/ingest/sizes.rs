//! Items that are too large, each kind by itself, and requests that would become so.

use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, NumberDataPoint,
};
use prost::Message;
use throughline_ingest::{DecodeError, Decoded, Encoding, Limits, Problem, Signal, decode};
use throughline_trace::keys;

use crate::metrics::{metric, number, request};
use crate::support::{RECEIVED, START, attribute, logs, span, text, traces};

/// Small limits, so that tests need no large requests.
fn limits() -> Limits {
    Limits { max_item_bytes: 1_000, max_decoded_bytes: 1_000_000, ..Limits::default() }
}

fn read(signal: Signal, body: &[u8]) -> Decoded {
    decode(signal, Encoding::Protobuf, body, &limits(), RECEIVED).unwrap()
}

fn record(body: &str) -> LogRecord {
    LogRecord { time_unix_nano: START, body: Some(text(body)), ..LogRecord::default() }
}

#[test]
fn each_kind_of_item_is_rejected_alone() {
    let long = "x".repeat(1_000);
    let mut large = span(1, "large");
    large.events = vec![opentelemetry_proto::tonic::trace::v1::span::Event {
        name: long.clone(),
        time_unix_nano: START,
        ..Default::default()
    }];
    let decoded = read(Signal::Traces, &traces(vec![large, span(2, "good")]).encode_to_vec());
    assert_eq!(decoded.batch.spans.len(), 1);
    assert_eq!((decoded.report.rejected, decoded.report.count(Problem::LargeItem)), (1, 1));
    insta::assert_snapshot!(decoded.report.message(), @r#"rejected 1; first: span "large": expected at most 1000 bytes in all, got 1050 after cutting, of them 29 in resource and scope; send less with it"#);

    let mut decision = record("");
    decision.event_name = keys::DECISION_EVENT.to_owned();
    decision.attributes = vec![
        attribute(keys::DECISION_ID, text("01000000-0000-4000-8000-000000000001")),
        attribute(keys::DECISION_ACTION, text("go")),
        attribute(keys::DECISION_REASON, text(&long)),
    ];
    let body = logs(vec![record(&long), record("good"), decision]).encode_to_vec();
    let decoded = read(Signal::Logs, &body);
    assert_eq!((decoded.batch.logs.len(), decoded.batch.decisions.len()), (1, 0));
    assert_eq!((decoded.report.rejected, decoded.report.count(Problem::LargeItem)), (2, 2));

    let mut labelled = number(Some(Value::AsInt(1)));
    labelled.attributes = vec![attribute("label", text(&long))];
    let points = vec![labelled, number(Some(Value::AsInt(2)))];
    let gauge = Data::Gauge(Gauge { data_points: points });
    let decoded = read(Signal::Metrics, &request(vec![metric("m", gauge)]).encode_to_vec());
    assert_eq!(decoded.batch.metrics.len(), 1);
    assert_eq!((decoded.report.rejected, decoded.report.count(Problem::LargeItem)), (1, 1));
}

#[test]
fn the_resource_counts_with_each_of_its_items() {
    let mut request = traces(vec![span(1, "a"), span(2, "b")]);
    let long = attribute("long", text(&"x".repeat(1_000)));
    request.resource_spans[0].resource.as_mut().unwrap().attributes.push(long);
    request.resource_spans.extend(traces(vec![span(3, "c")]).resource_spans);
    let decoded = read(Signal::Traces, &request.encode_to_vec());
    assert_eq!(decoded.report.rejected, 2);
    assert_eq!(decoded.batch.spans[0].name, "c");
}

#[test]
fn what_mending_adds_counts() {
    // 400 bytes as sent, 1,200 once each that is no UTF-8 became U+FFFD.
    let mut broken = span(1, "broken");
    broken.attributes = vec![attribute("text", text(&"#".repeat(400)))];
    let mut body = traces(vec![broken, span(2, "good")]).encode_to_vec();
    let fine = read(Signal::Traces, &body);
    assert_eq!((fine.batch.spans.len(), fine.report.rejected), (2, 0));
    body.iter_mut().filter(|byte| **byte == b'#').for_each(|byte| *byte = 0xff);
    let decoded = read(Signal::Traces, &body);
    assert_eq!(decoded.batch.spans.len(), 1);
    assert_eq!(decoded.report.count(Problem::LargeItem), 1);
}

#[test]
fn what_is_sent_once_and_kept_often_counts_as_often() {
    let points: Vec<NumberDataPoint> = vec![number(Some(Value::AsInt(1))); 2_000];
    let gauge = Data::Gauge(Gauge { data_points: points });
    let mut described = metric("m", gauge);
    assert_eq!(
        read(Signal::Metrics, &request(vec![described.clone()]).encode_to_vec())
            .batch
            .metrics
            .len(),
        2_000
    );
    described.description = "d".repeat(800);
    let body = request(vec![described]).encode_to_vec();
    let decoded = decode(Signal::Metrics, Encoding::Protobuf, &body, &limits(), RECEIVED);
    assert_eq!(decoded.err(), Some(DecodeError::TooLarge { limit_bytes: 1_000_000 }));
}

#[test]
fn mending_and_buckets_take_their_memory_before() {
    let refused = |signal, body: &[u8], max_decoded_bytes| {
        let limits = Limits { max_decoded_bytes, ..limits() };
        decode(signal, Encoding::Protobuf, body, &limits, RECEIVED).err()
    };
    // 100 kB as sent, 300 in the mended body, and 300 in what is decoded of it.
    let mut body = logs(vec![record(&"#".repeat(100_000))]).encode_to_vec();
    body.iter_mut().filter(|byte| **byte == b'#').for_each(|byte| *byte = 0xff);
    assert_eq!(refused(Signal::Logs, &body, 700_000), None);
    let too_large = |limit_bytes| Some(DecodeError::TooLarge { limit_bytes });
    assert_eq!(refused(Signal::Logs, &body, 500_000), too_large(500_000));

    // 10 kB as sent, 80 in the message, and 160 with bounds and counts.
    let buckets = Buckets { offset: 0, bucket_counts: vec![1; 10_000] };
    let point = ExponentialHistogramDataPoint {
        scale: 20,
        positive: Some(buckets),
        time_unix_nano: START,
        ..Default::default()
    };
    let histogram = ExponentialHistogram { data_points: vec![point], ..Default::default() };
    let metric = metric("m", Data::ExponentialHistogram(histogram));
    let body = request(vec![metric]).encode_to_vec();
    assert_eq!(refused(Signal::Metrics, &body, 260_000), None);
    assert_eq!(refused(Signal::Metrics, &body, 200_000), too_large(200_000));
}

#[test]
fn derived_decisions_without_room_are_counted_and_the_spans_are_kept() {
    let tool = |id: u8| {
        let mut tool = span(id, "execute_tool weather");
        tool.attributes = vec![
            attribute("gen_ai.operation.name", text("execute_tool")),
            attribute("gen_ai.tool.name", text("weather")),
        ];
        tool
    };
    let body = traces(vec![tool(1), tool(2), tool(3)]).encode_to_vec();
    let mut seen = std::collections::BTreeSet::new();
    // The last bytes of room are those of the decisions, one after the other.
    for max_decoded_bytes in (0..20_000).step_by(4) {
        let limits = Limits { max_decoded_bytes, ..Limits::default() };
        let decoded = decode(Signal::Traces, Encoding::Protobuf, &body, &limits, RECEIVED);
        let Ok(Decoded { batch, report }) = decoded else {
            assert!(seen.is_empty(), "refused at {max_decoded_bytes} and not below");
            continue;
        };
        assert_eq!(batch.spans.len(), 3);
        let left_out = report.count(Problem::DerivedDecision);
        assert_eq!(batch.decisions.len() as u64 + left_out, 3);
        seen.insert(left_out);
    }
    assert_eq!(Vec::from_iter(seen), [0, 1, 2, 3]);
}
