//! From bytes to batches: what is kept, mended, rejected, and what is said about it.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{ArrayValue, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use prost::Message;
use throughline_ingest::{DecodeError, Encoding, Limits, Problem, Signal, decode};
use throughline_trace::{SpanBatch, Value, keys};

use crate::support::{RECEIVED, START, attribute, logs, span, text, to_text, traces, value};

fn protobuf(signal: Signal, message: &impl Message) -> String {
    within(&Limits::default(), signal, message)
}

fn within(limits: &Limits, signal: Signal, message: &impl Message) -> String {
    let body = message.encode_to_vec();
    let decoded = decode(signal, Encoding::Protobuf, &body, limits, RECEIVED).unwrap();
    to_text(&decoded.batch, &decoded.report)
}

fn json(signal: Signal, body: &str) -> String {
    match decode(signal, Encoding::Json, body.as_bytes(), &Limits::default(), RECEIVED) {
        Ok(decoded) => to_text(&decoded.batch, &decoded.report),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_span_with_everything() {
    let mut full = span(1, "chat gpt-4o");
    full.parent_span_id = vec![9; 8];
    full.kind = 3;
    full.attributes = vec![
        attribute("model", text("gpt-4o")),
        attribute("tokens", value(Any::IntValue(12))),
        attribute("cold", value(Any::BoolValue(true))),
        attribute("bytes", value(Any::BytesValue(vec![1, 2, 3]))),
        attribute(
            "list",
            value(Any::ArrayValue(ArrayValue { values: vec![text("a"), text("b")] })),
        ),
        attribute(
            "map",
            value(Any::KvlistValue(KeyValueList {
                values: vec![attribute("half", value(Any::DoubleValue(0.5)))],
            })),
        ),
        KeyValue { key: "nothing".into(), ..KeyValue::default() },
    ];
    full.dropped_attributes_count = 2;
    full.events = vec![Event {
        time_unix_nano: START,
        name: "exception".into(),
        attributes: vec![attribute("exception.type", text("IOError"))],
        ..Event::default()
    }];
    full.links = vec![Link { trace_id: vec![3; 16], span_id: vec![4; 8], ..Link::default() }];
    full.status = Some(Status { code: 2, message: "TIMEOUT".into() });
    insta::assert_snapshot!(protobuf(Signal::Traces, &traces(vec![full])), @r#"
    span "chat gpt-4o" aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/0101010101010101 parent 0909090909090909 client received-1000ms+5000000 error "TIMEOUT"
      model = "gpt-4o"
      tokens = 12
      cold = true
      bytes = {"base64":"AQID"}
      list = ["a","b"]
      map = {"half":0.5}
      nothing = null
      attributes dropped: 2
      event "exception" received-1000ms
        exception.type = "IOError"
      link 03030303030303030303030303030303/0404040404040404
    "#);
}

#[test]
fn spans_without_usable_ids_are_rejected_and_the_first_is_named() {
    let bad = |change: fn(&mut Span)| {
        let mut span = span(2, "bad");
        change(&mut span);
        span
    };
    let spans = vec![
        span(1, "good"),
        bad(|span| span.trace_id = vec![1; 15]),
        bad(|span| span.trace_id = vec![0; 16]),
        bad(|span| span.span_id.clear()),
        bad(|span| span.span_id = vec![1; 16]),
        span(7, "good too"),
    ];
    insta::assert_snapshot!(protobuf(Signal::Traces, &traces(spans)), @r#"
    span "good" aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/0101010101010101 root internal received-1000ms+5000000 unset ""
    span "good too" aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/0707070707070707 root internal received-1000ms+5000000 unset ""
    rejected 4 mended 0 truncated 0 {"span_id": 2, "trace_id": 2}
    rejected 4; first: span "bad": expected a trace id of 16 bytes (32 hexadecimal characters in JSON) that are not all zero, got 15 bytes
    "#);
}

#[test]
fn spans_are_mended_and_marked() {
    let mended = |name: &str, change: fn(&mut Span)| {
        let mut span = span(1, name);
        change(&mut span);
        span
    };
    let spans = vec![
        mended("parent of 3 bytes", |span| span.parent_span_id = vec![1, 2, 0xff]),
        mended("parent of zeros", |span| span.parent_span_id = vec![0; 8]),
        mended("ends before it starts", |span| span.end_time_unix_nano = START - 1),
        mended("no start", |span| span.start_time_unix_nano = 0),
        mended("no end", |span| span.end_time_unix_nano = 0),
        mended("no times", |span| {
            span.start_time_unix_nano = 0;
            span.end_time_unix_nano = 0;
        }),
        mended("seconds sent as nanoseconds", |span| {
            span.start_time_unix_nano = 1_795_348_800;
            span.end_time_unix_nano = 1_795_348_801;
        }),
        mended("the year 2500", |span| {
            span.start_time_unix_nano = 16_725_225_600_000_000_000;
            span.end_time_unix_nano = 16_725_225_600_000_000_001;
        }),
        mended("", |_| {}),
        mended("marked before", |span| {
            span.attributes = vec![attribute(keys::MENDED, text("no_start"))];
            span.end_time_unix_nano = 0;
        }),
        mended("event and link", |span| {
            span.events = vec![Event::default()];
            span.links = vec![Link { trace_id: vec![1; 16], span_id: vec![2], ..Link::default() }];
        }),
    ];
    insta::assert_snapshot!(protobuf(Signal::Traces, &traces(spans)), @r#"
    span "parent of 3 bytes" aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/0101010101010101 root internal received-1000ms+5000000 unset ""
      throughline.mended = "parent_id:0102ff"
    span "parent of zeros" aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/0101010101010101 root internal received-1000ms+5000000 unset ""
    span "ends before it starts" aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/0101010101010101 root internal received-1000ms+0 unset ""
      throughline.mended = "end_before_start"
    span "no start" aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/0101010101010101 root internal received-995ms+0 unset ""
      throughline.mended = "no_start"
    span "no end" aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/0101010101010101 root internal received-1000ms+0 unset ""
      throughline.mended = "no_end"
    span "no times" aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/0101010101010101 root internal received+0 unset ""
      throughline.mended = "no_start,no_end"
    span "seconds sent as nanoseconds" aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/0101010101010101 root internal at 1795348800+1 unset ""
      throughline.mended = "distant_past"
    span "the year 2500" aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/0101010101010101 root internal at 16725225600000000000+1 unset ""
      throughline.mended = "future"
    span "unnamed" aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/0101010101010101 root internal received-1000ms+5000000 unset ""
      throughline.mended = "empty_name"
    span "marked before" aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/0101010101010101 root internal received-1000ms+0 unset ""
      throughline.mended = "no_start,no_end"
    span "event and link" aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/0101010101010101 root internal received-1000ms+5000000 unset ""
      throughline.mended = "no_time,empty_name,link"
      event "unnamed" received-1000ms
      links dropped: 1
    rejected 0 mended 10 truncated 0 {"distant_past": 2, "empty_name": 2, "end_before_start": 1, "future": 2, "link": 1, "no_end": 3, "no_start": 2, "no_time": 1, "parent_id": 1}
    accepted 10 with changes; first: span "parent of 3 bytes": parent_id:0102ff
    "#);
}

#[test]
fn what_is_too_long_or_too_much_is_cut_and_marked() {
    let limits = Limits {
        max_attribute_bytes: 10,
        max_name_bytes: 8,
        max_attributes: 5,
        max_events: 1,
        max_links: 1,
        ..Limits::default()
    };
    let mut long = span(1, "a name that is long");
    long.attributes = vec![
        // The limit falls into the last of the two-byte characters.
        attribute("text", text("123456789é")),
        attribute("bytes", value(Any::BytesValue(vec![7; 12]))),
        attribute(
            "list",
            value(Any::ArrayValue(ArrayValue {
                values: vec![text("12345678"), text("abcdef"), text("z")],
            })),
        ),
        attribute("exact", text("1234567890")),
        attribute("last", text("kept")),
        attribute("sixth", text("left out")),
    ];
    long.events = vec![
        Event { name: "first".into(), time_unix_nano: START, ..Event::default() },
        Event { name: "second".into(), time_unix_nano: START, ..Event::default() },
    ];
    long.links = vec![Link { trace_id: vec![1; 16], span_id: vec![2; 8], ..Link::default() }; 3];
    long.status = Some(Status { code: 2, message: "a message that is long".into() });
    insta::assert_snapshot!(within(&limits, Signal::Traces, &traces(vec![long])), @r#"
    span "a name t" aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/0101010101010101 root internal received-1000ms+5000000 error "a message "
      text = "123456789"
      bytes = {"base64":"BwcHBwcHBwcHBw=="}
      list = ["12345678","ab"]
      exact = "1234567890"
      last = "kept"
      throughline.mended = "long_name,many_attributes,long_value,many_events,many_links"
      throughline.truncated_bytes = {"bytes":12,"list":15,"status.message":22,"text":11}
      attributes dropped: 1
      event "first" received-1000ms
      events dropped: 1
      link 01010101010101010101010101010101/0202020202020202
      links dropped: 2
    rejected 0 mended 1 truncated 1 {"long_name": 2, "long_value": 4, "many_attributes": 1, "many_events": 1, "many_links": 1}
    accepted 1 with changes; first: span "a name t": long_name,many_attributes,long_value,many_events,many_links
    "#);
}

#[test]
fn a_value_of_a_megabyte_is_kept_and_one_byte_more_is_cut() {
    let limit = Limits::default().max_attribute_bytes;
    let body = |bytes: usize| {
        let mut span = span(1, "long");
        span.attributes = vec![attribute("prompt", text(&"x".repeat(bytes)))];
        traces(vec![span]).encode_to_vec()
    };
    let decode = |bytes| {
        decode(Signal::Traces, Encoding::Protobuf, &body(bytes), &Limits::default(), RECEIVED)
            .unwrap()
    };
    assert!(decode(limit).report.is_clean());
    let cut = decode(limit + 1);
    assert_eq!(cut.report.count(Problem::LongValue), 1);
    let attributes = &cut.batch.spans[0].attributes;
    assert_eq!(attributes.get("prompt").unwrap().size_bytes(), limit);
    assert_eq!(
        attributes.get(keys::TRUNCATED_BYTES),
        Some(&Value::Map(vec![("prompt".into(), Value::Int(1_048_577))]))
    );
}

#[test]
fn text_that_is_not_utf8_harms_only_itself() {
    let mut body = traces(vec![span(1, "good"), span(2, "b#d"), span(3, "fine")]).encode_to_vec();
    let at = body.iter().position(|byte| *byte == b'#').unwrap();
    body[at] = 0xc3;
    let decoded =
        decode(Signal::Traces, Encoding::Protobuf, &body, &Limits::default(), RECEIVED).unwrap();
    let expected = to_text(&decoded.batch, &decoded.report);
    insta::assert_snapshot!(expected, @r#"
    span "good" aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/0101010101010101 root internal received-1000ms+5000000 unset ""
    span "b�d" aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/0202020202020202 root internal received-1000ms+5000000 unset ""
      throughline.mended = "not_utf8"
    span "fine" aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/0303030303030303 root internal received-1000ms+5000000 unset ""
    rejected 0 mended 1 truncated 0 {"not_utf8": 1}
    accepted 1 with changes; first: span "b�d": not_utf8
    "#);

    // The same as JSON: a raw byte, and a lone surrogate as Python writes it.
    let json = |name: &[u8]| {
        let mut body = br#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"aa000000000000000000000000000000","spanId":"bb00000000000000","startTimeUnixNano":"1795348800000000000","endTimeUnixNano":"1795348800000000000","name":""#.to_vec();
        body.extend_from_slice(name);
        body.extend_from_slice(br#""}]}]}]}"#);
        decode(Signal::Traces, Encoding::Json, &body, &Limits::default(), RECEIVED).unwrap()
    };
    for name in [b"b\xc3d".as_slice(), br"b\ud83dd"] {
        let decoded = json(name);
        assert_eq!(decoded.report.count(Problem::NotUtf8), 1);
        assert!(decoded.batch.spans[0].name.contains('\u{fffd}'));
        assert_eq!(decoded.batch.spans[0].attributes.str(keys::MENDED), Some("not_utf8"));
    }
    assert!(json(br"b\ud83d\ude00d").report.is_clean());

    // What is in no item is counted all the same.
    for encoding in [Encoding::Protobuf, Encoding::Json] {
        let request = traces(vec![span(1, "good")]);
        let mut body = match encoding {
            Encoding::Protobuf => request.encode_to_vec(),
            Encoding::Json => serde_json::to_vec(&request).unwrap(),
        };
        let at = body.windows(4).position(|bytes| bytes == b"shop").unwrap();
        body[at] = 0xff;
        let decoded =
            decode(Signal::Traces, encoding, &body, &Limits::default(), RECEIVED).unwrap();
        assert_eq!(decoded.report.count(Problem::NotUtf8), 1);
        assert_eq!(decoded.batch.spans[0].service(), "\u{fffd}hop");
    }
}

#[test]
fn broken_protobuf_is_an_error_that_says_where() {
    let whole = traces(vec![span(1, "cut")]).encode_to_vec();
    let error = decode(
        Signal::Traces,
        Encoding::Protobuf,
        &whole[..whole.len() - 3],
        &Limits::default(),
        RECEIVED,
    )
    .unwrap_err();
    insta::assert_snapshot!(error, @"expected an OTLP traces request as protobuf, got bytes that do not fit: failed to decode Protobuf message: ExportTraceServiceRequest.resource_spans: buffer underflow");
}

#[test]
fn small_bytes_that_make_large_structures_are_refused() {
    let limits = Limits { max_decoded_bytes: 100_000, ..Limits::default() };
    let spans = vec![Span::default(); 1_000];
    let body = traces(spans).encode_to_vec();
    assert!(body.len() < 2_100);
    let refused = |encoding, body: &[u8]| {
        let error = decode(Signal::Traces, encoding, body, &limits, RECEIVED).unwrap_err();
        assert_eq!(error, DecodeError::TooLarge { limit_bytes: 100_000 });
    };
    refused(Encoding::Protobuf, &body);
    let spans = vec!["{}"; 1_000].join(",");
    let json = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{spans}]}}]}}]}}"#);
    refused(Encoding::Json, json.as_bytes());
}

#[test]
fn json_takes_what_exporters_send() {
    let body = r#"{
        "unknown": {"deep": [1, {"x": null}]},
        "resourceSpans": [{
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}], "entityRefs": []},
            "schemaUrl": null,
            "scopeSpans": [{
                "scope": null,
                "spans": [{
                    "traceId": "5B8EFFF798038103D269B633813FC60C",
                    "spanId": "eEE19b7ec3c1b174",
                    "parentSpanId": "",
                    "name": "upper and lower",
                    "kind": "SPAN_KIND_CLIENT",
                    "startTimeUnixNano": 1795348799000000000,
                    "endTimeUnixNano": "1795348799005000000",
                    "start_time_unix_nano": "1",
                    "attributes": [
                        {"key": "text", "value": {"stringValue": "é\n"}},
                        {"key": "number as text", "value": {"intValue": "-9223372036854775808"}},
                        {"key": "number", "value": {"intValue": 7}},
                        {"key": "float", "value": {"doubleValue": 0.5}},
                        {"key": "whole float", "value": {"doubleValue": 5}},
                        {"key": "not a number", "value": {"doubleValue": "NaN"}},
                        {"key": "truth", "value": {"boolValue": true}},
                        {"key": "bytes", "value": {"bytesValue": "AQID_-8"}},
                        {"key": "list", "value": {"arrayValue": {"values": [{"intValue": "1"}, null, {}]}}},
                        {"key": "map", "value": {"kvlistValue": {"values": [{"key": "k", "value": {"stringValue": "v"}}]}}},
                        {"key": "nothing", "value": null},
                        {"key": "of the future", "value": {"newValue": [1]}}
                    ],
                    "events": null,
                    "links": [{"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b173"}],
                    "status": {"code": 2, "message": null},
                    "flags": 257
                }]
            }]
        }]
    }"#;
    insta::assert_snapshot!(json(Signal::Traces, body), @r#"
    span "upper and lower" 5b8efff798038103d269b633813fc60c/eee19b7ec3c1b174 root client received-1000ms+5000000 error ""
      text = "é\n"
      number as text = -9223372036854775808
      number = 7
      float = 0.5
      whole float = 5.0
      not a number = "NaN"
      truth = true
      bytes = {"base64":"AQID/+8="}
      list = [1,null,null]
      map = {"k":"v"}
      nothing = null
      of the future = null
      link 5b8efff798038103d269b633813fc60c/eee19b7ec3c1b173
    "#);
}

#[test]
fn ids_that_are_no_hexadecimal_reject_their_span_only() {
    let span = |trace_id: &str| {
        format!(
            r#"{{"traceId":{trace_id:?},"spanId":"eee19b7ec3c1b174","name":"x","startTimeUnixNano":"{START}","endTimeUnixNano":"{START}"}}"#
        )
    };
    let spans = [
        span("5b8efff798038103d269b633813fc60c"),
        span("5b8efff7-9803-8103-d269-b633813fc60c"),
        span("zzzzzzzzzzzzzzzz"),
        span("5b8"),
        span(""),
    ];
    let body =
        format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{}]}}]}}]}}"#, spans.join(","));
    insta::assert_snapshot!(json(Signal::Traces, &body), @r#"
    span "x" 5b8efff798038103d269b633813fc60c/eee19b7ec3c1b174 root unspecified received-1000ms+0 unset ""
    rejected 4 mended 0 truncated 0 {"trace_id": 4}
    rejected 4; first: span "x": expected a trace id of 16 bytes (32 hexadecimal characters in JSON) that are not all zero, got 36 bytes
    "#);
}

#[test]
fn wrong_types_in_json_are_errors_with_the_path_and_the_place() {
    let cases = [
        r#"[]"#,
        r#"{"resourceSpans": {}}"#,
        r#"{"resourceSpans": [{"scopeSpans": [{"spans": [{"name": 5}]}]}]}"#,
        r#"{"resourceSpans": [{"scopeSpans": [{"spans": [{"name": [104, 105]}]}]}]}"#,
        r#"{"resourceSpans": [{"scopeSpans": [{"spans": [{"startTimeUnixNano": "soon"}]}]}]}"#,
        r#"{"resourceSpans": [{"scopeSpans": [{"spans": [{"startTimeUnixNano": -1}]}]}]}"#,
        r#"{"resourceSpans": [{"scopeSpans": [{"spans": [{"attributes": [{"key": "k", "value": {"boolValue": 1}}]}]}]}]}"#,
        r#"{"resourceSpans": [{"scopeSpans": [{"spans": [{"attributes": [{"key": "k", "value": {"bytesValue": "%"}}]}]}]}]}"#,
        r#"{"resourceSpans": []} {}"#,
        r#"{"resourceSpans": ["#,
    ];
    let errors: Vec<_> = cases.iter().map(|body| json(Signal::Traces, body)).collect();
    insta::assert_snapshot!(errors.join("\n"), @r#"
    expected an OTLP traces request as json, got bytes that do not fit: invalid type: sequence, expected an object at line 1 column 0
    expected an OTLP traces request as json, got bytes that do not fit: resourceSpans: invalid type: map, expected a list of objects at line 1 column 18
    expected an OTLP traces request as json, got bytes that do not fit: resourceSpans: scopeSpans: spans: name: invalid type: integer `5`, expected a string at line 1 column 56
    expected an OTLP traces request as json, got bytes that do not fit: resourceSpans: scopeSpans: spans: name: invalid type: sequence, expected a string at line 1 column 56
    expected an OTLP traces request as json, got bytes that do not fit: resourceSpans: scopeSpans: spans: startTimeUnixNano: invalid value: string "soon", expected an unsigned 64-bit integer, as text or number at line 1 column 74
    expected an OTLP traces request as json, got bytes that do not fit: resourceSpans: scopeSpans: spans: startTimeUnixNano: invalid value: integer `-1`, expected an unsigned 64-bit integer, as text or number at line 1 column 70
    expected an OTLP traces request as json, got bytes that do not fit: resourceSpans: scopeSpans: spans: attributes: value: boolValue: invalid value: integer `1`, expected true or false at line 1 column 99
    expected an OTLP traces request as json, got bytes that do not fit: resourceSpans: scopeSpans: spans: attributes: value: bytesValue: expected base64: Invalid symbol 37, offset 0 at line 1 column 102
    expected an OTLP traces request as json, got bytes that do not fit: trailing characters at line 1 column 23
    expected an OTLP traces request as json, got bytes that do not fit: resourceSpans: EOF while parsing a list at line 1 column 19
    "#);
}

#[test]
fn deep_nesting_is_an_error_and_no_stack_overflow() {
    let deep = |levels: usize| {
        let mut body = String::from(r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":"#);
        body.push_str(&r#"{"arrayValue":{"values":["#.repeat(levels));
        body.push_str(&"]}}".repeat(levels));
        body.push_str("}]}]}]}");
        body
    };
    assert!(json(Signal::Logs, &deep(30)).starts_with("log"));
    assert!(json(Signal::Logs, &deep(100_000)).contains("recursion limit exceeded"));

    let mut body = text("inside");
    for _ in 0..200 {
        body = value(Any::ArrayValue(ArrayValue { values: vec![body] }));
    }
    let request =
        logs(vec![LogRecord { body: Some(body), ..LogRecord::default() }]).encode_to_vec();
    let error = decode(Signal::Logs, Encoding::Protobuf, &request, &Limits::default(), RECEIVED)
        .unwrap_err();
    assert!(error.to_string().contains("recursion limit reached"), "{error}");
}

#[test]
fn empty_requests_are_empty_batches() {
    for signal in [Signal::Traces, Signal::Logs, Signal::Metrics] {
        for (encoding, body) in [
            (Encoding::Protobuf, ""),
            (Encoding::Json, "{}"),
            (Encoding::Json, " \n"),
            (Encoding::Json, "null"),
        ] {
            let decoded =
                decode(signal, encoding, body.as_bytes(), &Limits::default(), RECEIVED).unwrap();
            let expected = SpanBatch { received_unix_nano: RECEIVED, ..SpanBatch::default() };
            assert_eq!(decoded.batch, expected);
            assert!(decoded.report.is_clean());
        }
    }
}

#[test]
fn a_group_shares_one_resource_and_one_scope() {
    let request: ExportTraceServiceRequest = traces(vec![span(1, "a"), span(2, "b")]);
    let body = request.encode_to_vec();
    let decoded =
        decode(Signal::Traces, Encoding::Protobuf, &body, &Limits::default(), RECEIVED).unwrap();
    let [a, b] = decoded.batch.spans.as_slice() else { panic!("two spans") };
    assert!(std::sync::Arc::ptr_eq(&a.resource, &b.resource));
    assert!(std::sync::Arc::ptr_eq(&a.scope, &b.scope));
    assert_eq!((a.service(), a.scope.name.as_str()), ("shop", "tests"));
}

#[test]
fn calls_of_known_models_get_a_price_unless_they_have_one() {
    let call = |id, extra: Vec<KeyValue>| {
        let mut call = span(id, "chat gpt-4o");
        call.attributes = vec![
            attribute(keys::GEN_AI_OPERATION_NAME, text("chat")),
            attribute(keys::GEN_AI_REQUEST_MODEL, text("gpt-4o")),
            attribute(keys::GEN_AI_USAGE_INPUT_TOKENS, value(Any::IntValue(1_000_000))),
            attribute(keys::GEN_AI_USAGE_OUTPUT_TOKENS, value(Any::IntValue(0))),
        ];
        call.attributes.extend(extra);
        call
    };
    let spans = vec![
        call(1, Vec::new()),
        call(2, vec![attribute(keys::COST_USD, value(Any::DoubleValue(0.25)))]),
        call(3, vec![attribute(keys::GEN_AI_RESPONSE_MODEL, text("home-made"))]),
    ];
    let body = traces(spans).encode_to_vec();
    let decoded =
        decode(Signal::Traces, Encoding::Protobuf, &body, &Limits::default(), RECEIVED).unwrap();
    let costs: Vec<_> =
        decoded.batch.spans.iter().map(|span| span.attributes.f64(keys::COST_USD)).collect();
    assert!(costs[0].is_some_and(|cost| cost > 0.0), "{costs:?}");
    assert_eq!(&costs[1..], [Some(0.25), None]);
    assert!(decoded.batch.spans[0].attributes.str(keys::PRICE_VERSION).is_some());
    assert!(decoded.report.is_clean());
}

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
    accepted 5 with changes; first: agent.decision of shop kept as a log record, expected a UUID as decision_id: decision
    "#);
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
    accepted 2 with changes; first: log record of shop: no_time
    "#);
}
