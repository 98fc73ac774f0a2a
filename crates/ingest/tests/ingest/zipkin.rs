//! Zipkin v2 JSON, as values and over a real socket.

use proptest::prelude::*;
use throughline_ingest::{Encoding, Limits, Signal, decode};
use throughline_trace::Value;

use crate::http::{client, reply};
use crate::support::{RECEIVED, Server, to_text};

const PATH: &str = "/api/v2/spans";

fn zipkin(body: &str) -> String {
    let limits = Limits::default();
    match decode(Signal::Traces, Encoding::Zipkin, body.as_bytes(), &limits, RECEIVED) {
        Ok(decoded) => to_text(&decoded.batch, &decoded.report),
        Err(error) => error.to_string(),
    }
}

/// A call as a service and its model client report it: the client's half, and the server's half of
/// the same span, with what the server did for it, told before and after it. Another service has a
/// parent of that id as well.
const SHARED: &str = r#"[
  {"traceId": "463ac35c9f6413ad48485a3953bb6124", "id": "a2fb4a1d1a96d312", "name": "get /stock",
   "kind": "CLIENT", "timestamp": 1795348799000000, "duration": 5000,
   "localEndpoint": {"serviceName": "shop", "ipv4": "10.0.0.1"},
   "remoteEndpoint": {"serviceName": "stock", "ipv4": "10.0.0.2", "port": 8080},
   "annotations": [{"timestamp": 1795348799001000, "value": "wire sent"},
                   {"timestamp": 1795348799002000, "value": "\"retry\": {\"attempt\": 2, \"why\": \"reset\"}"}],
   "tags": {"http.method": "GET", "otel.scope.name": "http", "otel.library.name": "http"}},
  {"traceId": "463ac35c9f6413ad48485a3953bb6124", "id": "00000000000000c1", "parentId": "a2fb4a1d1a96d312",
   "name": "look up", "timestamp": 1795348799002000, "duration": 1000,
   "localEndpoint": {"serviceName": "stock"}},
  {"traceId": "463ac35c9f6413ad48485a3953bb6124", "id": "a2fb4a1d1a96d312", "name": "get /stock",
   "kind": "SERVER", "shared": true, "timestamp": 1795348799001500, "duration": 3000,
   "localEndpoint": {"serviceName": "stock"}, "tags": {"error": "no such item"}},
  {"traceId": "463ac35c9f6413ad48485a3953bb6124", "id": "00000000000000c2", "parentId": "a2fb4a1d1a96d312",
   "name": "note", "timestamp": 1795348799003000, "duration": 1000,
   "localEndpoint": {"serviceName": "stock"}, "tags": {"otel.scope.name": "log"}},
  {"traceId": "463ac35c9f6413ad48485a3953bb6124", "id": "00000000000000c3", "parentId": "a2fb4a1d1a96d312",
   "name": "wait", "timestamp": 1795348799000500, "duration": 4000,
   "localEndpoint": {"serviceName": "shop", "ipv4": "10.0.0.1"}}
]"#;

#[test]
fn both_halves_of_a_shared_span_are_kept_in_order() {
    insta::assert_snapshot!(zipkin(SHARED), @r#"
    span "get /stock" 463ac35c9f6413ad48485a3953bb6124/a2fb4a1d1a96d312 root client received-1000ms+5000000 unset ""
      http.method = "GET"
      service.peer.name = "stock"
      network.peer.address = "10.0.0.2"
      network.peer.port = 8080
      event "wire sent" received-999ms
      event "retry" received-998ms
        attempt = 2
        why = "reset"
    span "wait" 463ac35c9f6413ad48485a3953bb6124/00000000000000c3 parent a2fb4a1d1a96d312 internal received-999.5ms+4000000 unset ""
    span "look up" 463ac35c9f6413ad48485a3953bb6124/00000000000000c1 parent 4a67459779f6a20d internal received-998ms+1000000 unset ""
    span "get /stock" 463ac35c9f6413ad48485a3953bb6124/4a67459779f6a20d parent a2fb4a1d1a96d312 server received-998.5ms+3000000 error "no such item"
      zipkin.shared = true
    span "note" 463ac35c9f6413ad48485a3953bb6124/00000000000000c2 parent 4a67459779f6a20d internal received-997ms+1000000 unset ""
    "#);
}

#[test]
fn numbers_of_the_genai_conventions_are_numbers_again() {
    let body = r#"[{"traceId": "1", "id": "2", "parentId": null, "name": "chat gpt-4o", "kind": "CLIENT",
        "timestamp": 1795348799000000, "duration": 1,
        "tags": {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o",
                 "gen_ai.usage.input_tokens": "1200", "gen_ai.usage.output_tokens": "30",
                 "gen_ai.request.temperature": "0.5", "is_cached": "false", "order": "17",
                 "otel.status_code": "ERROR", "otel.status_description": "cut", "error": "true",
                 "loose": 4, "nothing": null}}]"#;
    insta::assert_snapshot!(zipkin(body), @r#"
    span "chat gpt-4o" 00000000000000000000000000000001/0000000000000002 root client received-1000ms+1000 error "cut"
      gen_ai.operation.name = "chat"
      gen_ai.request.model = "gpt-4o"
      gen_ai.usage.input_tokens = 1200
      gen_ai.usage.output_tokens = 30
      gen_ai.request.temperature = 0.5
      is_cached = false
      order = "17"
      loose = "4"
      throughline.cost_usd = 0.0033
      throughline.price_version = "2026-11-26"
    "#);
}

#[test]
fn what_is_no_list_of_spans_is_told_with_its_place() {
    for (body, told) in [
        (
            "{}",
            "expected a list of Zipkin v2 spans as JSON, got bytes that do not fit: invalid type: map, expected a list of Zipkin v2 spans at line 1 column 0",
        ),
        (
            r#"[{"id": "2"}]"#,
            "expected a list of Zipkin v2 spans as JSON, got bytes that do not fit: [0].missing field `traceId` at line 1 column 12",
        ),
        (
            r#"[{"traceId": "1", "id": "2", "tags": {"a": []}}]"#,
            "expected a list of Zipkin v2 spans as JSON, got bytes that do not fit: [0].tags.a: invalid type: sequence, expected a text at line 1 column 45",
        ),
    ] {
        assert_eq!(zipkin(body), told);
    }
    for nothing in ["", " \n", "[]"] {
        assert_eq!(zipkin(nothing), "");
    }
}

#[test]
fn a_span_with_an_id_that_is_none_is_rejected_alone() {
    let body = r#"[{"traceId": "xyz", "id": "2", "name": "bad"},
                   {"traceId": "1", "id": "2", "name": "good", "timestamp": 1795348799000000}]"#;
    insta::assert_snapshot!(zipkin(body), @r#"
    span "good" 00000000000000000000000000000001/0000000000000002 root internal received-1000ms+0 unset ""
    rejected 1 mended 0 truncated 0 {"trace_id": 1}
    rejected 1; first: span "bad": expected a trace id of 16 bytes (32 hexadecimal characters in JSON) that are not all zero, got 3 bytes
    "#);
}

#[tokio::test]
async fn r6_3_zipkin_reporters_are_answered_as_they_expect() {
    let server = Server::open().await;
    let send = |body: &'static str| client().post(server.url(PATH)).body(body);
    let (text, _) = reply(send(SHARED).header("content-type", "application/json")).await;
    insta::assert_snapshot!(text, @"202 text/plain; charset=utf-8");
    assert_eq!(server.span_names(), ["get /stock", "wait", "look up", "get /stock", "note"]);
    let (text, _) = reply(send("[{}]")).await;
    insta::assert_snapshot!(text, @"400 text/plain; charset=utf-8 expected a list of Zipkin v2 spans as JSON, got bytes that do not fit: [0].missing field `traceId` at line 1 column 3");
    let (text, _) = reply(send("x").header("content-type", "application/x-protobuf")).await;
    assert!(
        text.starts_with("415 ")
            && text.contains("set your reporter's encoder to JSON), got")
            && text.contains("see docs/sending-data.md"),
        "{text}"
    );
    let (text, _) = reply(client().get(server.url(PATH))).await;
    assert!(text.starts_with("405 "), "{text}");
    let requests = |result: &str| {
        server.counter(&format!(
            "throughline_ingest_requests_total{{signal=\"traces\",transport=\"http\",encoding=\"zipkin\",result=\"{result}\"}}"
        ))
    };
    assert_eq!(requests("ok"), 1.0);
}

/// JSON of a span with these tags.
fn span_of(tags: &[(String, String)], timestamp: u64, duration: u64) -> String {
    let tags: serde_json::Map<_, _> =
        tags.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
    serde_json::json!([{"traceId": "a1", "id": "b2", "name": "n", "timestamp": timestamp,
                        "duration": duration, "tags": tags}])
    .to_string()
}

proptest! {
    #[test]
    fn no_bytes_and_no_times_are_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        timestamp: u64,
        duration: u64,
    ) {
        let limits = Limits::default();
        let _ = decode(Signal::Traces, Encoding::Zipkin, &bytes, &limits, RECEIVED);
        let body = span_of(&[], timestamp, duration);
        let decoded = decode(Signal::Traces, Encoding::Zipkin, body.as_bytes(), &limits, RECEIVED);
        prop_assert_eq!(decoded.unwrap().batch.spans.len(), 1);
    }

    #[test]
    fn tags_arrive_as_they_were(tags in proptest::collection::hash_map("x[a-z]{0,8}", ".{0,20}", 0..6)) {
        let tags: Vec<(String, String)> = tags.into_iter().collect();
        let body = span_of(&tags, RECEIVED / 1_000, 1);
        let decoded =
            decode(Signal::Traces, Encoding::Zipkin, body.as_bytes(), &Limits::default(), RECEIVED);
        let span = decoded.unwrap().batch.spans.remove(0);
        for (key, value) in &tags {
            prop_assert_eq!(span.attributes.get(key), Some(&Value::String(value.as_str().into())));
        }
    }
}
