//! OTLP/gRPC over a real socket, with the clients that `tonic` generates.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Gauge;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use throughline_ingest::IngestOptions;
use throughline_trace::Refusal;
use throughline_trace::access::Keyring;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::http::keyring;
use crate::metrics::{metric, number, request};
use crate::support::{START, Server, accept_all, attribute, logs, refuse, span, text, traces};

async fn client(server: &Server) -> TraceServiceClient<Channel> {
    TraceServiceClient::connect(server.url("")).await.unwrap()
}

fn say(status: &Status) -> String {
    format!("{:?} {:?} retry {:?}", status.code(), status.message(), retry(status))
}

fn retry(status: &Status) -> Option<std::time::Duration> {
    status.get_details_retry_info().and_then(|info| info.retry_delay)
}

#[tokio::test]
async fn all_three_signals_succeed_with_partial_success_unset() {
    let server = Server::open().await;
    let answer = client(&server).await.export(traces(vec![span(1, "one")])).await.unwrap();
    assert_eq!(answer.into_inner().partial_success, None);
    let record = LogRecord { time_unix_nano: START, ..LogRecord::default() };
    let mut client = LogsServiceClient::connect(server.url("")).await.unwrap();
    let answer = client.export(logs(vec![record])).await.unwrap();
    assert_eq!(answer.into_inner().partial_success, None);
    let gauge = Data::Gauge(Gauge { data_points: vec![number(Some(Value::AsInt(1)))] });
    let mut client = MetricsServiceClient::connect(server.url("")).await.unwrap();
    let answer = client.export(request(vec![metric("m", gauge)])).await.unwrap();
    assert_eq!(answer.into_inner().partial_success, None);
    let batches = server.batches();
    let counts: Vec<_> = batches
        .iter()
        .map(|batch| (batch.spans.len(), batch.logs.len(), batch.metrics.len()))
        .collect();
    assert_eq!(counts, [(1, 0, 0), (0, 1, 0), (0, 0, 1)]);
    let empty = self::client(&server).await.export(traces(Vec::new())).await.unwrap();
    assert_eq!(empty.into_inner().partial_success, None);
    assert_eq!(
        server.counter(
            r#"throughline_ingest_requests_total{signal="traces",transport="grpc",encoding="protobuf",result="ok"}"#
        ),
        2.0
    );
}

#[tokio::test]
async fn gzip_and_zstd_are_taken_also_for_large_bodies() {
    let server = Server::open().await;
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let spans = (1..=200).map(|id| {
            let mut span = span(id, "large");
            let noise: String =
                (0..4_000u32).map(|n| char::from(b'a' + (n * n % 23) as u8)).collect();
            span.attributes = vec![attribute("noise", text(&noise))];
            span
        });
        let mut client = client(&server).await.send_compressed(encoding);
        client.export(traces(spans.collect())).await.unwrap();
    }
    assert_eq!(server.span_names().len(), 400);
}

#[tokio::test]
async fn partial_success_says_how_many_and_why() {
    let server = Server::open().await;
    let mut bad = span(1, "bad");
    bad.trace_id.clear();
    let answer = client(&server).await.export(traces(vec![bad, span(2, "good")])).await.unwrap();
    let partial = answer.into_inner().partial_success.unwrap();
    assert_eq!(partial.rejected_spans, 1);
    insta::assert_snapshot!(partial.error_message, @r#"rejected 1; first: span "bad": expected a trace id of 16 bytes (32 hexadecimal characters in JSON) that are not all zero, got none"#);
}

#[tokio::test]
async fn refusals_are_unavailable_with_retry_info() {
    let mut texts = Vec::new();
    for refusal in [
        Refusal::Full { retry_after_ms: 250 },
        Refusal::ShuttingDown { retry_after_ms: 5_000 },
        Refusal::DiskFull { retry_after_ms: 30_000 },
        Refusal::Storage("secret path".into()),
    ] {
        let server =
            Server::start(IngestOptions::default(), Keyring::open(), refuse(refusal)).await;
        let status = client(&server).await.export(traces(vec![span(1, "one")])).await.unwrap_err();
        texts.push(say(&status));
    }
    insta::assert_snapshot!(texts.join("\n"), @r#"
    Unavailable "the inbox is full; retry in 250 ms" retry Some(250ms)
    Unavailable "the server is shutting down; retry in 5000 ms" retry Some(5s)
    Unavailable "no space left on the data disk; retry in 30000 ms, after space was made" retry Some(30s)
    Unavailable "the server could not store the batch; retry in 1000 ms" retry Some(1s)
    "#);
}

#[tokio::test]
async fn what_is_too_large_must_not_be_retried() {
    let options = IngestOptions { max_request_bytes: 10_000, ..IngestOptions::default() };
    let server = Server::start(options, Keyring::open(), accept_all()).await;
    let large = || {
        let mut span = span(1, "large");
        span.attributes = vec![attribute("zeros", text(&"0".repeat(100_000)))];
        traces(vec![span])
    };
    let plain = client(&server).await.export(large()).await.unwrap_err();
    assert_eq!((plain.code(), retry(&plain)), (Code::ResourceExhausted, None));
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let mut client = client(&server).await.send_compressed(encoding);
        let bomb = client.export(large()).await.unwrap_err();
        assert_eq!((bomb.code(), retry(&bomb)), (Code::ResourceExhausted, None));
    }
    insta::assert_snapshot!(say(&plain), @r#"ResourceExhausted "expected a body of at most 10000 bytes, after decompression too, got more; send smaller batches" retry None"#);
}

#[tokio::test]
async fn keys_are_asked_for_and_their_scope_is_checked() {
    let server = Server::start(IngestOptions::default(), keyring(), accept_all()).await;
    let mut texts = Vec::new();
    for authorization in
        [None, Some("Bearer tl_wrong"), Some("Bearer tl_read"), Some("Bearer tl_ingest")]
    {
        let mut request = Request::new(traces(vec![span(1, "one")]));
        if let Some(value) = authorization {
            request.metadata_mut().insert("authorization", value.parse().unwrap());
        }
        let answer = client(&server).await.export(request).await;
        let text = answer.map_or_else(|status| say(&status), |_| "ok".to_owned());
        texts.push(format!("{authorization:?}: {text}"));
    }
    insta::assert_snapshot!(texts.join("\n"), @r#"
    None: Unauthenticated "expected an API key (Authorization: Bearer tl_…), got none" retry None
    Some("Bearer tl_wrong"): Unauthenticated "the API key is not known or was revoked; list keys with `throughline keys list`" retry None
    Some("Bearer tl_read"): PermissionDenied "the API key k_read lacks the scope ingest; create one with `throughline keys create --scope ingest`" retry None
    Some("Bearer tl_ingest"): ok
    "#);
}

/// Name and value.
type Header<'a> = (&'static str, &'a str);

/// Sends `body` as it is to the trace service and gives back the status of gRPC.
async fn raw(server: &Server, headers: &[Header<'_>], body: Vec<u8>) -> String {
    const PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    post(server, PATH, headers, body).await
}

async fn post(server: &Server, path: &str, headers: &[Header<'_>], body: Vec<u8>) -> String {
    let mut request = crate::support::client()
        .http2_prior_knowledge()
        .build()
        .unwrap()
        .post(server.url(path))
        .body(Bytes::from(body));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    match Status::from_header_map(response.headers()) {
        Some(status) => format!("{} {}", response.status().as_u16(), say(&status)),
        None => format!("{} {}", response.status().as_u16(), response.text().await.unwrap()),
    }
}

#[tokio::test]
async fn frames_that_make_no_sense_are_answered_so() {
    let server = Server::open().await;
    let grpc = ("content-type", "application/grpc");
    let cases: [(&[Header], &[u8]); 7] = [
        (&[grpc], b""),
        (&[grpc], b"\0\0\0\0"),
        (&[grpc], b"\0\0\0\0\x09short"),
        (&[grpc], b"\0\0\0\0\x02\x0a\x7f"),
        (&[grpc], b"\x01\0\0\0\0"),
        (&[grpc], b"\x07\0\0\0\0"),
        (&[grpc, ("grpc-encoding", "snappy")], b"\0\0\0\0\0"),
    ];
    let mut texts = Vec::new();
    for (headers, body) in cases {
        texts.push(raw(&server, headers, body.to_vec()).await);
    }
    insta::assert_snapshot!(texts.join("\n"), @r#"
    200 InvalidArgument "expected one gRPC message, got none" retry None
    200 InvalidArgument "expected one gRPC message, got none" retry None
    200 InvalidArgument "expected one gRPC message of the length that its frame says, got another length" retry None
    200 InvalidArgument "expected an OTLP traces request as protobuf, got bytes that do not fit: failed to decode Protobuf message: ExportTraceServiceRequest.resource_spans: buffer underflow" retry None
    200 InvalidArgument "expected the header grpc-encoding with a compressed message, got none" retry None
    200 InvalidArgument "expected 0 or 1 as the first byte of a gRPC frame, got another" retry None
    200 Unimplemented "expected a body compressed with gzip, zstd or not at all (identity), got \"snappy\"" retry None
    "#);
    // An empty message that says it is not compressed is one, whatever the header says.
    let empty = raw(&server, &[grpc, ("grpc-encoding", "gzip")], vec![0; 5]).await;
    assert!(empty.starts_with("200"), "{empty}");
}

#[tokio::test]
async fn other_methods_are_unimplemented() {
    let server = Server::open().await;
    let headers = [("content-type", "application/grpc")];
    let text = post(&server, "/grpc.health.v1.Health/Check", &headers, vec![0; 5]).await;
    insta::assert_snapshot!(text, @r#"200 Unimplemented "expected Export of the OTLP trace, logs or metrics service, got another method" retry None"#);
    let line = r#"throughline_ingest_requests_total{signal="unknown",transport="grpc",encoding="protobuf",result="unsupported"}"#;
    assert_eq!(server.counter(line), 1.0);
}

#[tokio::test]
async fn otlp_http_at_the_port_of_grpc_is_told_so() {
    let server = Server::open_grpc().await;
    for path in ["/v1/traces", "/opentelemetry.proto.collector.trace.v1.TraceService/Export"] {
        let headers = [("content-type", "application/x-protobuf")];
        let text = post(&server, path, &headers, Vec::new()).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(text, @"415 expected OTLP/gRPC (Content-Type application/grpc over HTTP/2), got something else; OTLP/HTTP has a port of its own, 4318 by default");
        }
    }
    let line = r#"throughline_ingest_requests_total{signal="unknown",transport="grpc",encoding="unknown",result="unsupported"}"#;
    assert_eq!(server.counter(line), 2.0);
}
