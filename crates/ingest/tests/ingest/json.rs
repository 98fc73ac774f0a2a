//! OTLP/JSON: what exporters send, and what is wrong with it.

use throughline_ingest::Signal;

use crate::support::{START, json};

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
fn errors_are_short_whatever_they_quote() {
    let spans = format!(r#"[{{"startTimeUnixNano": "{}"}}]"#, "é".repeat(100_000));
    let body = format!(r#"{{"resourceSpans": [{{"scopeSpans": [{{"spans": {spans}}}]}}]}}"#);
    let error = json(Signal::Traces, &body);
    assert!(error.len() < 1_000, "{} bytes", error.len());
    assert!(error.contains("startTimeUnixNano: invalid value: string"), "{error}");
    assert!(error.contains(" at line 1 column "), "{error}");
}
