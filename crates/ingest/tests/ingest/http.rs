//! OTLP/HTTP over a real socket.

use std::io::Write as _;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder};
use throughline_ingest::IngestOptions;
use throughline_trace::Refusal;
use throughline_trace::access::{ApiKey, KeyHash, Keyring, Scope};

use crate::support::{self, Server, accept_all, logs, refuse, span, text, traces};

pub(crate) const PROTOBUF: &str = "application/x-protobuf";
pub(crate) const JSON: &str = "application/json";

pub(crate) fn client() -> reqwest::Client {
    support::client().build().unwrap()
}

/// A reply, as text: status, type, body (a protobuf one decoded as what it should be).
pub(crate) async fn reply(request: RequestBuilder) -> (String, HeaderMap) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let headers = response.headers().clone();
    let content_type = headers.get("content-type").map_or("-", |value| value.to_str().unwrap());
    let content_type = content_type.to_owned();
    let body = response.bytes().await.unwrap();
    let body = if content_type != PROTOBUF {
        String::from_utf8(body.to_vec()).unwrap()
    } else if status.is_success() {
        format!("{:?}", ExportTraceServiceResponse::decode(body).unwrap())
    } else {
        let status = tonic_types::Status::decode(body).unwrap();
        format!("Status {} {:?}", status.code, status.message)
    };
    (format!("{} {content_type} {body}", status.as_u16()), headers)
}

pub(crate) fn post(
    server: &Server,
    path: &str,
    content_type: &str,
    body: Vec<u8>,
) -> RequestBuilder {
    client().post(server.url(path)).header("content-type", content_type).body(body)
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn one_span() -> Vec<u8> {
    traces(vec![span(1, "one")]).encode_to_vec()
}

pub(crate) fn one_json_span() -> Vec<u8> {
    br#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"json","startTimeUnixNano":"1795348799000000000","endTimeUnixNano":"1795348799000000000"}]}]}]}"#.to_vec()
}

#[tokio::test]
async fn success_is_answered_in_the_type_of_the_request_with_nothing_in_it() {
    let server = Server::open().await;
    let (text, _) = reply(post(&server, "/v1/traces", PROTOBUF, one_span())).await;
    insta::assert_snapshot!(text, @"200 application/x-protobuf ExportTraceServiceResponse { partial_success: None }");
    let (text, _) = reply(post(&server, "/v1/traces", JSON, one_json_span())).await;
    insta::assert_snapshot!(text, @"200 application/json {}");
    let with_charset =
        post(&server, "/v1/traces", "application/json; charset=utf-8", one_json_span());
    assert!(reply(with_charset).await.0.starts_with("200"));
    assert_eq!(server.span_names(), ["one", "json", "json"]);
    // Nothing at all goes over the wire for a protobuf success, not even zeros.
    let response = post(&server, "/v1/traces", PROTOBUF, one_span()).send().await.unwrap();
    assert_eq!(response.bytes().await.unwrap().len(), 0);
}

#[tokio::test]
async fn empty_requests_succeed_and_commit_nothing() {
    let server = Server::open().await;
    for path in ["/v1/traces", "/v1/logs", "/v1/metrics"] {
        assert!(reply(post(&server, path, PROTOBUF, Vec::new())).await.0.starts_with("200"));
        assert!(reply(post(&server, path, JSON, b"{}".to_vec())).await.0.starts_with("200"));
    }
    assert_eq!(server.batches().len(), 0);
}

#[tokio::test]
async fn partial_success_says_how_many_and_why() {
    let server = Server::open().await;
    let mut bad = span(2, "bad");
    bad.span_id.pop();
    let mut mended = span(3, "mended");
    mended.end_time_unix_nano = 0;
    let body = traces(vec![span(1, "good"), bad.clone(), mended]).encode_to_vec();
    let (text, _) = reply(post(&server, "/v1/traces", PROTOBUF, body)).await;
    insta::assert_snapshot!(text, @r#"200 application/x-protobuf ExportTraceServiceResponse { partial_success: Some(ExportTracePartialSuccess { rejected_spans: 1, error_message: "rejected 1; first: span \"bad\": expected a span id of 8 bytes (16 hexadecimal characters in JSON) that are not all zero, got 7 bytes; accepted 1 with changes; first: span \"mended\": no_end" }) }"#);
    // Nothing good in it is a partial success still, and nothing is committed.
    let body = traces(vec![bad]).encode_to_vec();
    let (text, _) = reply(post(&server, "/v1/traces", PROTOBUF, body)).await;
    assert!(text.starts_with("200"), "{text}");
    let (text, _) = reply(post(
        &server,
        "/v1/traces",
        JSON,
        br#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"no ids"}]}]}]}"#.to_vec(),
    ))
    .await;
    insta::assert_snapshot!(text, @r#"200 application/json {"partialSuccess":{"errorMessage":"rejected 1; first: span \"no ids\": expected a trace id of 16 bytes (32 hexadecimal characters in JSON) that are not all zero, got none","rejectedSpans":"1"}}"#);
    assert_eq!(server.span_names(), ["good", "mended"]);
    assert_eq!(
        server.counter(r#"throughline_ingest_items_total{item="span",fate="rejected"}"#),
        3.0
    );
    assert_eq!(server.counter(r#"throughline_ingest_items_total{item="span",fate="mended"}"#), 1.0);
    assert_eq!(
        server.counter(r#"throughline_ingest_items_total{item="span",fate="accepted"}"#),
        2.0
    );
    assert_eq!(server.counter(r#"throughline_ingest_problems_total{problem="span_id"}"#), 2.0);
    assert_eq!(
        server.counter(
            r#"throughline_ingest_requests_total{signal="traces",transport="http",encoding="protobuf",result="partial"}"#
        ),
        2.0
    );
}

#[tokio::test]
async fn logs_and_metrics_have_their_own_names_for_what_was_rejected() {
    let server = Server::open().await;
    let body = br#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"x","gauge":{"dataPoints":[{"asInt":"5","timeUnixNano":"1795348799000000000"},{}]}}]}]}]}"#;
    let (answer, _) = reply(post(&server, "/v1/metrics", JSON, body.to_vec())).await;
    insta::assert_snapshot!(answer, @r#"200 application/json {"partialSuccess":{"errorMessage":"rejected 1; first: metric \"x\": expected asInt or asDouble, got neither","rejectedDataPoints":"1"}}"#);
    let body =
        br#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"hello"}}]}]}]}"#;
    let (answer, _) = reply(post(&server, "/v1/logs", JSON, body.to_vec())).await;
    insta::assert_snapshot!(answer, @r#"200 application/json {"partialSuccess":{"errorMessage":"accepted 1 with changes; first: log record of \"unknown_service\": no_time"}}"#);
    let record = opentelemetry_proto::tonic::logs::v1::LogRecord {
        time_unix_nano: 1_795_348_799_000_000_000,
        body: Some(text("fine")),
        ..Default::default()
    };
    let response = post(&server, "/v1/logs", PROTOBUF, logs(vec![record]).encode_to_vec());
    let body = response.send().await.unwrap().bytes().await.unwrap();
    assert_eq!(ExportLogsServiceResponse::decode(body).unwrap().partial_success, None);
}

#[tokio::test]
async fn gzip_and_zstd_are_unfolded() {
    let server = Server::open().await;
    let zstd = zstd::bulk::compress(&one_span(), 3).unwrap();
    let members = [gzip(&one_span()[..10]), gzip(&one_span()[10..])].concat();
    for (encoding, body) in [
        ("gzip", gzip(&one_span())),
        ("GZIP", members),
        ("zstd", zstd),
        ("identity", one_span()),
        ("", one_span()),
    ] {
        let request =
            post(&server, "/v1/traces", PROTOBUF, body).header("content-encoding", encoding);
        let (text, _) = reply(request).await;
        assert!(text.starts_with("200"), "{encoding}: {text}");
    }
    assert_eq!(server.span_names(), ["one"; 5]);
}

#[tokio::test]
async fn bombs_are_too_large() {
    let options = IngestOptions { max_request_bytes: 1024 * 1024, ..IngestOptions::default() };
    let server = Server::start(options, Keyring::open(), accept_all()).await;
    let zeros = vec![0; 64 * 1024 * 1024];
    let bombs = [("gzip", gzip(&zeros)), ("zstd", zstd::bulk::compress(&zeros, 3).unwrap())];
    for (encoding, bomb) in bombs {
        assert!(bomb.len() < 100_000);
        let request = post(&server, "/v1/traces", JSON, bomb).header("content-encoding", encoding);
        let (text, _) = reply(request).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(text, @r#"413 application/json {"code":8,"message":"expected a body of at most 1048576 bytes, after decompression too, got more; send smaller batches"}"#);
        }
    }
    // The same without compression, with a length and without one.
    let (text, _) = reply(post(&server, "/v1/traces", PROTOBUF, zeros.clone())).await;
    insta::assert_snapshot!(text, @r#"413 application/x-protobuf Status 8 "expected a body of at most 1048576 bytes, after decompression too, got more; send smaller batches""#);
    let pieces = zeros.chunks(64 * 1024).map(|piece| Ok::<_, std::io::Error>(piece.to_vec()));
    let pieces: Vec<_> = pieces.collect();
    let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    let request = client().post(server.url("/v1/traces")).header("content-type", PROTOBUF);
    let (text, _) = reply(request.body(chunked)).await;
    assert!(text.starts_with("413"), "{text}");
    // A frame that asks for a window of 2 GiB, far beyond the limit.
    let request =
        post(&server, "/v1/traces", JSON, vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0, 0])
            .header("content-encoding", "zstd");
    let (text, _) = reply(request).await;
    insta::assert_snapshot!(text, @r#"400 application/json {"code":3,"message":"expected a body compressed with zstd: Frame requires too much memory for decoding"}"#);
    assert_eq!(server.counter("throughline_ingest_in_flight_bytes"), 0.0);
}

#[tokio::test]
async fn a_body_as_large_as_the_limit_is_taken() {
    let body = |name_bytes| traces(vec![span(1, &"n".repeat(name_bytes))]).encode_to_vec();
    let exact = body(1_000);
    let options = IngestOptions { max_request_bytes: exact.len(), ..IngestOptions::default() };
    let server = Server::start(options, Keyring::open(), accept_all()).await;
    let send = async |body, encoding| {
        let request = post(&server, "/v1/traces", PROTOBUF, body);
        reply(request.header("content-encoding", encoding)).await.0
    };
    assert!(send(exact.clone(), "identity").await.starts_with("200"));
    assert!(send(gzip(&exact), "gzip").await.starts_with("200"));
    assert!(send(body(1_001), "identity").await.starts_with("413"));
    assert!(send(gzip(&body(1_001)), "gzip").await.starts_with("413"));
}

#[tokio::test]
async fn errors_are_answered_in_the_type_of_the_request() {
    let server = Server::open().await;
    let truncated = one_span()[..20].to_vec();
    let mut texts = Vec::new();
    for request in [
        post(&server, "/v1/traces", PROTOBUF, truncated),
        post(&server, "/v1/traces", JSON, br#"{"resourceSpans": 5}"#.to_vec()),
        post(&server, "/v1/traces", "text/plain; charset=utf-8", one_json_span()),
        client().post(server.url("/v1/traces")),
        post(&server, "/v1/traces", JSON, one_json_span()).header("content-encoding", "br"),
        post(&server, "/v1/traces", PROTOBUF, b"no gzip".to_vec())
            .header("content-encoding", "gzip"),
        post(&server, "/v1/traces", JSON, b"no zstd".to_vec()).header("content-encoding", "zstd"),
        client().get(server.url("/v1/traces")),
        client().request(Method::PUT, server.url("/v1/logs")).header("content-type", PROTOBUF),
        post(&server, "/", PROTOBUF, one_span()),
    ] {
        texts.push(reply(request).await.0);
    }
    insta::assert_snapshot!(texts.join("\n"), @r#"
    400 application/x-protobuf Status 3 "expected an OTLP traces request as protobuf, got bytes that do not fit: failed to decode Protobuf message: ExportTraceServiceRequest.resource_spans: buffer underflow"
    400 application/json {"code":3,"message":"expected an OTLP traces request as json, got bytes that do not fit: resourceSpans: invalid type: integer `5`, expected a list of objects at line 1 column 19"}
    415 application/problem+json {"code":"unsupported","detail":"expected Content-Type application/x-protobuf or application/json, got \"text/plain; charset=utf-8\"","hint":"see docs/sending-data.md","instance":"/v1/traces","status":415,"title":"Unsupported Media Type","type":"about:blank"}
    415 application/problem+json {"code":"unsupported","detail":"expected Content-Type application/x-protobuf or application/json, got none","hint":"see docs/sending-data.md","instance":"/v1/traces","status":415,"title":"Unsupported Media Type","type":"about:blank"}
    415 application/json {"code":12,"message":"expected a body compressed with gzip, zstd or not at all (identity), got \"br\""}
    400 application/x-protobuf Status 3 "expected a body compressed with gzip: unexpected end of file"
    400 application/json {"code":3,"message":"expected a body compressed with zstd: Unknown frame descriptor"}
    405 application/problem+json {"code":"unsupported","detail":"expected POST, got GET","hint":"see docs/sending-data.md","instance":"/v1/traces","status":405,"title":"Method Not Allowed","type":"about:blank"}
    405 application/x-protobuf Status 12 "expected POST, got PUT"
    404 application/x-protobuf Status 12 "expected POST /v1/traces, /v1/logs or /v1/metrics (OTLP/HTTP), or /api/v2/spans (Zipkin), got another path; set OTEL_EXPORTER_OTLP_ENDPOINT, which is without a path, or the whole URL in OTEL_EXPORTER_OTLP_TRACES_ENDPOINT and its like"
    "#);
    let (_, headers) = reply(client().get(server.url("/v1/traces"))).await;
    assert_eq!(headers["allow"], "POST");
    let request =
        post(&server, "/v1/traces", JSON, one_json_span()).header("content-encoding", "br");
    assert_eq!(reply(request).await.1["accept-encoding"], "gzip, zstd, identity");
    assert_eq!(server.batches().len(), 0);
}

#[tokio::test]
async fn refusals_say_when_to_retry() {
    let cases = [
        (Refusal::Full { retry_after_ms: 1_500 }, "2"),
        (Refusal::ShuttingDown { retry_after_ms: 5_000 }, "5"),
        (Refusal::DiskFull { retry_after_ms: 1 }, "1"),
        (Refusal::Storage("/var/lib/throughline/x.db: short read".into()), "1"),
    ];
    let mut texts = Vec::new();
    for (refusal, retry_after) in cases {
        let server =
            Server::start(IngestOptions::default(), Keyring::open(), refuse(refusal)).await;
        let (text, headers) = reply(post(&server, "/v1/traces", PROTOBUF, one_span())).await;
        assert_eq!(headers["retry-after"], retry_after, "{text}");
        texts.push(text);
        assert_eq!(
            server.counter(r#"throughline_ingest_items_total{item="span",fate="refused"}"#),
            1.0
        );
        assert_eq!(
            server.counter(r#"throughline_ingest_items_total{item="span",fate="accepted"}"#),
            0.0
        );
    }
    insta::assert_snapshot!(texts.join("\n"), @r#"
            503 application/x-protobuf Status 14 "the inbox is full; retry in 1500 ms"
            503 application/x-protobuf Status 14 "the server is shutting down; retry in 5000 ms"
            503 application/x-protobuf Status 14 "no space left on the data disk; retry in 1 ms, after space was made"
            503 application/x-protobuf Status 14 "the server could not store the batch; retry in 1000 ms"
            "#);
}

/// A key of each scope, named after it.
pub(crate) fn keyring() -> Keyring {
    let keyring = Keyring::required();
    let key = |scope: Scope| {
        let key = ApiKey {
            id: format!("k_{scope}"),
            name: scope.to_string(),
            scopes: vec![scope],
            created_unix_nano: 1,
            revoked_unix_nano: None,
        };
        (KeyHash::of(&format!("tl_{scope}")), key)
    };
    keyring.replace(Scope::ALL.into_iter().map(key));
    keyring
}

#[tokio::test]
async fn keys_are_asked_for_and_their_scope_is_checked() {
    let server = Server::start(IngestOptions::default(), keyring(), accept_all()).await;
    let send = |authorization: Option<&str>| {
        let request = post(&server, "/v1/traces", JSON, one_json_span());
        match authorization {
            Some(value) => request.header("authorization", value),
            None => request,
        }
    };
    let mut texts = Vec::new();
    for authorization in [
        None,
        Some("Bearer tl_wrong"),
        Some("Bearer tl_read"),
        Some("tl_ingest"),
        Some("Digest tl_ingest"),
        Some("Bearer tl_ingest"),
        Some("bearer tl_admin"),
    ] {
        let (text, _) = reply(send(authorization)).await;
        texts.push(format!("{authorization:?}: {text}"));
    }
    insta::assert_snapshot!(texts.join("\n"), @r#"
    None: 401 application/json {"code":16,"message":"expected an API key (Authorization: Bearer tl_…), got none"}
    Some("Bearer tl_wrong"): 401 application/json {"code":16,"message":"the API key is not known or was revoked; list keys with `throughline keys list`"}
    Some("Bearer tl_read"): 403 application/json {"code":7,"message":"the API key k_read lacks the scope ingest; create one with `throughline keys create --scope ingest`"}
    Some("tl_ingest"): 200 application/json {}
    Some("Digest tl_ingest"): 401 application/json {"code":16,"message":"expected an API key (Authorization: Bearer tl_…), got none"}
    Some("Bearer tl_ingest"): 200 application/json {}
    Some("bearer tl_admin"): 200 application/json {}
    "#);
    assert_eq!(reply(send(None)).await.1["www-authenticate"], "Bearer");
    // Basic with the key as password ("any:tl_ingest").
    let (text, _) = reply(send(Some("Basic YW55OnRsX2luZ2VzdA=="))).await;
    assert!(text.starts_with("200"), "{text}");
    // A large body does not keep the answer from its sender, though nobody reads it.
    let large = post(&server, "/v1/traces", PROTOBUF, vec![0; 8 * 1024 * 1024]);
    assert!(reply(large).await.0.starts_with("401"));
}

#[tokio::test]
async fn browsers_may_send_only_from_origins_that_are_listed() {
    let preflight = |server: &Server, origin: &str| {
        client()
            .request(Method::OPTIONS, server.url("/v1/traces"))
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type,authorization")
    };
    let closed = Server::open().await;
    let (text, headers) = reply(preflight(&closed, "https://app.example")).await;
    assert!(text.starts_with("405"), "{text}");
    assert!(!headers.contains_key("access-control-allow-origin"));

    let options = IngestOptions {
        cors_origins: vec!["https://app.example/".into()],
        ..IngestOptions::default()
    };
    // A preflight carries no key.
    let server = Server::start(options, keyring(), accept_all()).await;
    let (text, headers) = reply(preflight(&server, "https://app.example")).await;
    assert!(text.starts_with("204"), "{text}");
    assert_eq!(headers["access-control-allow-origin"], "https://app.example");
    assert_eq!(headers["access-control-allow-headers"], "content-type,authorization");
    assert_eq!(headers["access-control-allow-methods"], "POST");
    let (_, headers) = reply(preflight(&server, "https://evil.example")).await;
    assert!(!headers.contains_key("access-control-allow-origin"));
    let request = post(&server, "/v1/traces", JSON, one_json_span())
        .header("origin", "https://app.example")
        .header("authorization", "Bearer tl_ingest");
    let (text, headers) = reply(request).await;
    assert!(text.starts_with("200"), "{text}");
    assert_eq!(headers["access-control-allow-origin"], "https://app.example");
    assert_eq!(headers["vary"], "Origin");
}

#[tokio::test]
async fn pages_that_made_their_own_name_mean_us_send_nothing() {
    let options = IngestOptions {
        allowed_hosts: Some(vec!["127.0.0.1".to_owned()]),
        ..IngestOptions::default()
    };
    let server = Server::start(options, Keyring::open(), accept_all()).await;
    let send = || post(&server, "/v1/traces", PROTOBUF, one_span());
    let rebound = || send().header("host", "evil.example:4318");
    let (text, _) = reply(rebound().header("origin", "http://evil.example:4318")).await;
    insta::assert_snapshot!(text, @r#"421 application/x-protobuf Status 7 "expected a request of a browser page to be addressed to 127.0.0.1, got \"evil.example\"; add the name to the allowed hosts, or switch access control on""#);
    let fetched = reply(rebound().header("sec-fetch-site", "same-origin")).await.0;
    assert!(fetched.starts_with("421"), "{fetched}");
    assert_eq!(server.batches().len(), 0);
    assert_eq!(
        server.counter(
            r#"throughline_ingest_requests_total{signal="traces",transport="http",encoding="protobuf",result="forbidden"}"#
        ),
        2.0
    );
    let exporter = reply(rebound()).await.0;
    assert!(exporter.starts_with("200"), "no browser: {exporter}");
    let own = reply(send().header("origin", "http://127.0.0.1:3000")).await.0;
    assert!(own.starts_with("200"), "{own}");
}

#[tokio::test]
async fn calls_to_other_paths_are_counted() {
    let server = Server::open().await;
    reply(post(&server, "/v1/trace", PROTOBUF, one_span())).await;
    reply(post(&server, "/", "text/plain", Vec::new())).await;
    for encoding in ["protobuf", "unknown"] {
        let line = format!(
            r#"throughline_ingest_requests_total{{signal="unknown",transport="http",encoding="{encoding}",result="unsupported"}}"#
        );
        assert_eq!(server.counter(&line), 1.0, "{encoding}");
    }
}

#[tokio::test]
async fn one_item_that_no_store_could_take_does_not_stop_the_others() {
    let server = Server::open().await;
    let mut large = span(1, "large");
    large.attributes =
        (0..9).map(|n| support::attribute(&format!("k{n}"), text(&"x".repeat(1 << 20)))).collect();
    let body = traces(vec![large, span(2, "good")]).encode_to_vec();
    let (answer, _) = reply(post(&server, "/v1/traces", PROTOBUF, body)).await;
    insta::assert_snapshot!(answer, @r#"200 application/x-protobuf ExportTraceServiceResponse { partial_success: Some(ExportTracePartialSuccess { rejected_spans: 1, error_message: "rejected 1; first: span \"large\": expected at most 8388608 bytes in all, got 9437308 after cutting, of them 29 in resource and scope; send less with it" }) }"#);
    assert_eq!(server.span_names(), ["good"]);
    assert_eq!(server.counter(r#"throughline_ingest_problems_total{problem="large_item"}"#), 1.0);
}
