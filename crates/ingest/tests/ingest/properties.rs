//! Properties of the decoders: nothing makes them panic, JSON and protobuf say the same, every
//! item is accounted for.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint,
    Metric, NumberDataPoint, Sum, Summary, SummaryDataPoint, number_data_point,
    summary_data_point::ValueAtQuantile,
};
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use serde_json::{Value as Json, json};
use throughline_ingest::{Encoding, Limits, Signal, decode};

use crate::metrics::request as metrics;
use crate::support::{RECEIVED, logs, traces};

const SIGNALS: [Signal; 3] = [Signal::Traces, Signal::Logs, Signal::Metrics];

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-z._]{1,12}", "\\PC{0,8}"]
}

fn id(bytes: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => vec(any::<u8>(), bytes),
        1 => vec(any::<u8>(), 0..20),
        1 => Just(vec![0; bytes]),
    ]
}

fn time() -> impl Strategy<Value = u64> {
    prop_oneof![4 => RECEIVED - 1_000..RECEIVED + 1_000, 1 => any::<u64>(), 1 => Just(0)]
}

fn any_value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        text().prop_map(Any::StringValue),
        any::<bool>().prop_map(Any::BoolValue),
        any::<i64>().prop_map(Any::IntValue),
        (-1e300..1e300).prop_map(Any::DoubleValue),
        vec(any::<u8>(), 0..9).prop_map(Any::BytesValue),
    ]
    .prop_map(|value| AnyValue { value: Some(value) });
    leaf.prop_recursive(3, 16, 4, |inner| {
        let list =
            vec(inner.clone(), 0..4).prop_map(|values| Any::ArrayValue(ArrayValue { values }));
        let map = vec((text(), inner), 0..4).prop_map(|entries| {
            let values = entries.into_iter().map(|(key, value)| KeyValue {
                key,
                value: Some(value),
                ..KeyValue::default()
            });
            Any::KvlistValue(KeyValueList { values: values.collect() })
        });
        prop_oneof![list, map].prop_map(|value| AnyValue { value: Some(value) })
    })
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let entry = (text(), any_value()).prop_map(|(key, value)| KeyValue {
        key,
        value: Some(value),
        ..KeyValue::default()
    });
    vec(entry, 0..5)
}

fn span() -> impl Strategy<Value = Span> {
    let event = (time(), text(), attributes()).prop_map(|(time_unix_nano, name, attributes)| {
        Event { time_unix_nano, name, attributes, ..Event::default() }
    });
    let link = (id(16), id(8), text(), any::<u32>()).prop_map(
        |(trace_id, span_id, trace_state, flags)| Link {
            trace_id,
            span_id,
            trace_state,
            flags,
            ..Link::default()
        },
    );
    let status = (text(), 0..3i32).prop_map(|(message, code)| Status { message, code });
    (
        (id(16), id(8), id(8), text(), text(), any::<u32>()),
        (0..6i32, time(), time(), attributes(), any::<u32>()),
        (vec(event, 0..3), vec(link, 0..3), proptest::option::of(status)),
    )
        .prop_map(|(ids, middle, rest)| Span {
            trace_id: ids.0,
            span_id: ids.1,
            parent_span_id: ids.2,
            trace_state: ids.3,
            name: ids.4,
            flags: ids.5,
            kind: middle.0,
            start_time_unix_nano: middle.1,
            end_time_unix_nano: middle.2,
            attributes: middle.3,
            dropped_attributes_count: middle.4,
            events: rest.0,
            links: rest.1,
            status: rest.2,
            ..Span::default()
        })
}

fn log_record() -> impl Strategy<Value = LogRecord> {
    (
        (time(), time(), -1..30i32, text(), proptest::option::of(any_value())),
        (attributes(), id(16), id(8), prop_oneof![text(), Just("agent.decision".to_owned())]),
    )
        .prop_map(|(first, rest)| LogRecord {
            time_unix_nano: first.0,
            observed_time_unix_nano: first.1,
            severity_number: first.2,
            severity_text: first.3,
            body: first.4,
            attributes: rest.0,
            trace_id: rest.1,
            span_id: rest.2,
            event_name: rest.3,
            ..LogRecord::default()
        })
}

fn number_point() -> impl Strategy<Value = NumberDataPoint> {
    let value = prop_oneof![
        any::<i64>().prop_map(number_data_point::Value::AsInt),
        (-1e300..1e300).prop_map(number_data_point::Value::AsDouble),
    ];
    (attributes(), time(), time(), proptest::option::of(value), 0..2u32).prop_map(
        |(attributes, start_time_unix_nano, time_unix_nano, value, flags)| NumberDataPoint {
            attributes,
            start_time_unix_nano,
            time_unix_nano,
            value,
            flags,
            ..NumberDataPoint::default()
        },
    )
}

fn data() -> impl Strategy<Value = Data> {
    let float = || proptest::option::of(-1e9..1e9);
    let histogram = (any::<u64>(), float(), vec(any::<u64>(), 0..4), vec(-1e9..1e9, 0..4), time())
        .prop_map(|(count, sum, bucket_counts, explicit_bounds, time_unix_nano)| {
            HistogramDataPoint {
                count,
                sum,
                bucket_counts,
                explicit_bounds,
                time_unix_nano,
                ..HistogramDataPoint::default()
            }
        });
    let side = || {
        (any::<i32>(), vec(any::<u64>(), 0..4))
            .prop_map(|(offset, bucket_counts)| Buckets { offset, bucket_counts })
    };
    let exponential = (-12..22i32, any::<u64>(), side(), proptest::option::of(side()), time())
        .prop_map(|(scale, zero_count, positive, negative, time_unix_nano)| {
            ExponentialHistogramDataPoint {
                scale,
                zero_count,
                positive: Some(positive),
                negative,
                time_unix_nano,
                ..ExponentialHistogramDataPoint::default()
            }
        });
    let summary = (any::<u64>(), -1e9..1e9, 0.0..1.0, time()).prop_map(
        |(count, sum, quantile, time_unix_nano)| SummaryDataPoint {
            count,
            sum,
            quantile_values: vec![ValueAtQuantile { quantile, value: sum }],
            time_unix_nano,
            ..SummaryDataPoint::default()
        },
    );
    prop_oneof![
        vec(number_point(), 0..3).prop_map(|data_points| Data::Gauge(Gauge { data_points })),
        (vec(number_point(), 0..3), 0..3i32, any::<bool>()).prop_map(
            |(data_points, aggregation_temporality, is_monotonic)| {
                Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic })
            }
        ),
        (vec(histogram, 0..3), 0..3i32).prop_map(|(data_points, aggregation_temporality)| {
            Data::Histogram(Histogram { data_points, aggregation_temporality })
        }),
        (vec(exponential, 0..3), 0..3i32).prop_map(|(data_points, aggregation_temporality)| {
            Data::ExponentialHistogram(ExponentialHistogram {
                data_points,
                aggregation_temporality,
            })
        }),
        vec(summary, 0..3).prop_map(|data_points| Data::Summary(Summary { data_points })),
    ]
}

fn metric() -> impl Strategy<Value = Metric> {
    (text(), text(), text(), proptest::option::of(data())).prop_map(
        |(name, description, unit, data)| Metric {
            name,
            description,
            unit,
            data,
            ..Metric::default()
        },
    )
}

fn trace_request() -> impl Strategy<Value = ExportTraceServiceRequest> {
    vec(span(), 0..5).prop_map(traces)
}

fn logs_request() -> impl Strategy<Value = ExportLogsServiceRequest> {
    vec(log_record(), 0..5).prop_map(logs)
}

fn metrics_request() -> impl Strategy<Value = ExportMetricsServiceRequest> {
    vec(metric(), 0..5).prop_map(metrics)
}

/// The same request spelled in another of the ways that OTLP/JSON allows.
fn respell(json: &mut Json, how: u64) {
    match json {
        Json::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                if name.ends_with("Id")
                    && how & 1 != 0
                    && let Json::String(id) = value
                {
                    id.make_ascii_uppercase();
                } else if (name.ends_with("UnixNano") || name == "intValue" || name == "asInt")
                    && how & 2 != 0
                    && let Json::String(number) = value
                    && let Ok(number) = number.parse::<serde_json::Number>()
                {
                    *value = Json::Number(number);
                } else if name == "flags" && how & 4 != 0 {
                    *value = Json::String(value.to_string());
                } else {
                    respell(value, how);
                }
            }
            if how & 8 != 0 {
                fields.retain(|name, value| {
                    let is_default = *value == json!("") || *value == json!([]) || value.is_null();
                    // Within a value it says that there is one.
                    !is_default || name == "stringValue" || name == "bytesValue"
                });
            }
            if how & 16 != 0 {
                fields.insert("aFieldOfTheFuture".into(), json!({"x": [1, null, "\u{1f600}"]}));
            }
        }
        Json::Array(items) => items.iter_mut().for_each(|item| respell(item, how)),
        _ => {}
    }
}

/// Both encodings of `message` decode to the same batch, with the same report.
fn same<T: Message + serde::Serialize>(
    signal: Signal,
    message: &T,
    how: u64,
) -> Result<(), TestCaseError> {
    let limits = Limits::default();
    let mut json = serde_json::to_value(message).unwrap();
    respell(&mut json, how);
    let json = json.to_string();
    let from_json = decode(signal, Encoding::Json, json.as_bytes(), &limits, RECEIVED);
    let from_json = from_json.map_err(|error| TestCaseError::fail(format!("{error} in {json}")))?;
    let body = message.encode_to_vec();
    let from_protobuf = decode(signal, Encoding::Protobuf, &body, &limits, RECEIVED).unwrap();
    prop_assert_eq!(from_json.batch, from_protobuf.batch, "{}", json);
    prop_assert_eq!(from_json.report, from_protobuf.report);
    Ok(())
}

/// JSON of the shapes and names of OTLP, with anything in the place of anything.
fn near_otlp() -> impl Strategy<Value = Json> {
    let name = prop_oneof![
        Just("resourceSpans"),
        Just("resourceLogs"),
        Just("resourceMetrics"),
        Just("scopeSpans"),
        Just("scopeLogs"),
        Just("scopeMetrics"),
        Just("spans"),
        Just("logRecords"),
        Just("metrics"),
        Just("resource"),
        Just("attributes"),
        Just("key"),
        Just("value"),
        Just("stringValue"),
        Just("arrayValue"),
        Just("kvlistValue"),
        Just("values"),
        Just("traceId"),
        Just("spanId"),
        Just("name"),
        Just("kind"),
        Just("gauge"),
        Just("exponentialHistogram"),
        Just("dataPoints"),
        Just("bucketCounts"),
        Just("asInt"),
        Just("body"),
        Just("startTimeUnixNano"),
        Just("status"),
        Just("bytesValue"),
    ];
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        text().prop_map(Json::from),
        "[0-9a-fA-F]{16,32}".prop_map(Json::from),
    ];
    leaf.prop_recursive(8, 64, 5, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Json::from),
            vec((name.clone(), inner), 0..4).prop_map(|fields| {
                Json::Object(
                    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
                )
            }),
        ]
    })
}

fn decode_everything(body: &[u8]) {
    for signal in SIGNALS {
        for encoding in [Encoding::Protobuf, Encoding::Json] {
            let _ = decode(signal, encoding, body, &Limits::default(), RECEIVED);
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(body in vec(any::<u8>(), 0..256)) {
        decode_everything(&body);
    }

    #[test]
    fn arbitrary_json_never_panics(json in near_otlp()) {
        decode_everything(json.to_string().as_bytes());
    }

    #[test]
    fn damaged_requests_never_panic(
        request in trace_request(),
        at in any::<prop::sample::Index>(),
        byte: u8,
        cut: bool,
    ) {
        let mut body = request.encode_to_vec();
        let at = at.index(body.len());
        body[at] = byte;
        if cut {
            body.truncate(at);
        }
        decode_everything(&body);
        let mut json = serde_json::to_vec(&request).unwrap();
        let at = at.min(json.len() - 1);
        json[at] = byte;
        if cut {
            json.truncate(at);
        }
        decode_everything(&json);
    }

    #[test]
    fn spans_as_json_are_spans_as_protobuf(request in trace_request(), how: u64) {
        same(Signal::Traces, &request, how)?;
    }

    #[test]
    fn logs_as_json_are_logs_as_protobuf(request in logs_request(), how: u64) {
        same(Signal::Logs, &request, how)?;
    }

    #[test]
    fn metrics_as_json_are_metrics_as_protobuf(request in metrics_request(), how: u64) {
        same(Signal::Metrics, &request, how)?;
    }

    #[test]
    fn every_span_is_accepted_or_rejected_and_none_ends_before_it_starts(request in trace_request()) {
        let sent = request.resource_spans[0].scope_spans[0].spans.len();
        let body = request.encode_to_vec();
        let decoded = decode(Signal::Traces, Encoding::Protobuf, &body, &Limits::default(), RECEIVED).unwrap();
        prop_assert_eq!(decoded.batch.spans.len() as u64 + decoded.report.rejected, sent as u64);
        for span in &decoded.batch.spans {
            prop_assert!(span.start_unix_nano <= span.end_unix_nano);
            prop_assert!(span.start_unix_nano > 0 && !span.name.is_empty());
        }
        let marked = decoded.batch.spans.iter().filter(|span| {
            span.attributes.get(throughline_trace::keys::MENDED).is_some()
        });
        prop_assert_eq!(marked.count() as u64, decoded.report.mended);
    }

    #[test]
    fn what_is_encoded_again_is_decoded_as_it_was(spans in trace_request(), logs in logs_request()) {
        let decode = |signal, encoding, body: &[u8]| {
            decode(signal, encoding, body, &Limits::default(), RECEIVED).unwrap().batch
        };
        let first = decode(Signal::Traces, Encoding::Protobuf, &spans.encode_to_vec());
        if let Some(json) = throughline_ingest::encode_spans(&first.spans) {
            let again = decode(Signal::Traces, Encoding::Json, json.to_string().as_bytes());
            prop_assert_eq!(&again.spans, &first.spans);
        }
        let first = decode(Signal::Logs, Encoding::Protobuf, &logs.encode_to_vec());
        if let Some(json) = throughline_ingest::encode_logs(&first.logs, &first.decisions) {
            let again = decode(Signal::Logs, Encoding::Json, json.to_string().as_bytes());
            prop_assert_eq!(&again.logs, &first.logs);
            prop_assert_eq!(&again.decisions, &first.decisions);
        }
    }

    #[test]
    fn every_log_record_is_kept(request in logs_request()) {
        let sent = request.resource_logs[0].scope_logs[0].log_records.len();
        let body = request.encode_to_vec();
        let decoded = decode(Signal::Logs, Encoding::Protobuf, &body, &Limits::default(), RECEIVED).unwrap();
        prop_assert_eq!(decoded.batch.logs.len() + decoded.batch.decisions.len(), sent);
        prop_assert_eq!(decoded.report.rejected, 0);
    }
}
