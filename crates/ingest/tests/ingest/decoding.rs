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

use crate::support::{
    RECEIVED, START, attribute, json, logs, protobuf, span, text, to_text, traces, value, within,
};

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
      throughline.truncated_hashes = {"bytes":"b8944013d3702bff6d3623bf943b93299e1b5c23163bee7768e7692e2a73dfe6","list":"28f46a36ea8d343926081ccbcdd103684b5e0802053fdab5fa414b6737df6097","status.message":"465662c1e85f06379f945fb7b69e1bf3588cbdeb425517b21a89643de7eff8d2","text":"d66c938fc6a9995b53997d3ebee6fd4a8d0c37d31f479bb8157b364ec1d6f5fb"}
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
    let whole = blake3::hash("x".repeat(limit + 1).as_bytes()).to_hex().to_string();
    assert_eq!(
        attributes.get(keys::TRUNCATED_HASHES),
        Some(&Value::Map(vec![("prompt".into(), whole.into())]))
    );
}

#[test]
fn a_cut_in_an_event_or_a_link_says_where_and_tells_values_apart() {
    let limits = Limits { max_attribute_bytes: 10, ..Limits::default() };
    let list = |last: &str| {
        value(Any::ArrayValue(ArrayValue { values: vec![text("123456789"), text(last)] }))
    };
    let event = |last: &str| Event {
        name: "e".into(),
        time_unix_nano: START,
        attributes: vec![attribute("list", list(last))],
        ..Event::default()
    };
    let link = |trace_state: &str| Link {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        trace_state: trace_state.into(),
        attributes: vec![attribute("text", text("a long text"))],
        ..Link::default()
    };
    let mut long = span(1, "long");
    long.attributes = vec![attribute("text", text("a long text"))];
    long.events = vec![event("abc"), event(""), event("abd"), event("abc")];
    long.links = vec![Link::default(), link(""), link("a=long;state")];
    long.status = Some(Status { code: 2, message: "a long text".into() });
    let body = traces(vec![long]).encode_to_vec();
    let decoded = decode(Signal::Traces, Encoding::Protobuf, &body, &limits, RECEIVED).unwrap();
    let attributes = &decoded.batch.spans[0].attributes;
    let Some(Value::Map(sizes)) = attributes.get(keys::TRUNCATED_BYTES) else { panic!("sizes") };
    let Some(Value::Map(hashes)) = attributes.get(keys::TRUNCATED_HASHES) else { panic!("hashes") };
    let names = |map: &[(String, Value)]| {
        let mut names: Vec<String> = map.iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(names(sizes), names(hashes));
    assert_eq!(
        names(sizes),
        "events[0].list events[2].list events[3].list links[0].text links[1].text \
         links[1].trace_state status.message text"
    );
    let hash = |name: &str| hashes.iter().find(|(known, _)| known == name).map(|(_, hash)| hash);
    assert_eq!(hash("text"), hash("links[0].text"));
    assert_eq!(hash("events[0].list"), hash("events[3].list"));
    assert_ne!(hash("events[0].list"), hash("events[2].list"));
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
            Encoding::Json | Encoding::Zipkin => serde_json::to_vec(&request).unwrap(),
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
