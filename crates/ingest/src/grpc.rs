//! OTLP/gRPC: the unary `Export` of the trace, logs and metrics services.
//!
//! The frame of a unary call is read here, not by `tonic`'s generated services: those read and
//! decode a message before anything can ask for a key or for memory, answer one that is too large
//! with `OUT_OF_RANGE` (which OTLP clients retry for ever), one that is broken with `INTERNAL`, and
//! one with a single text that is not UTF-8 with an error for all of it.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode, request};
use http_body_util::{BodyExt as _, Full};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::body::Compression;
use crate::decode::{Encoding, Signal};
use crate::failure::Failure;
use crate::receive::{Call, Incoming, Receiver, Transport};
use crate::reply;

/// Bytes before a message: whether it is compressed, and its length, 4 bytes, most significant
/// first.
pub(crate) const FRAME_BYTES: usize = 5;

const CONTENT_TYPE_GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// What is answered to OTLP/HTTP that comes to the port of gRPC.
const WRONG_PORT: &str = "expected OTLP/gRPC (Content-Type application/grpc over HTTP/2), got \
                          something else; OTLP/HTTP has a port of its own, 4318 by default";

/// What is answered to any other gRPC method.
const METHODS: &str = "expected Export of the OTLP trace, logs or metrics service, got another \
                       method";

pub(crate) fn router(receiver: &Arc<Receiver>) -> Router {
    let services = [
        (Signal::Traces, "/opentelemetry.proto.collector.trace.v1.TraceService/Export"),
        (Signal::Logs, "/opentelemetry.proto.collector.logs.v1.LogsService/Export"),
        (Signal::Metrics, "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"),
    ];
    let mut router = Router::new();
    for (signal, path) in services {
        let export = move |State(receiver): State<Arc<Receiver>>, request: Request| {
            export(receiver, signal, request)
        };
        router = router.route(path, post(export));
    }
    router.fallback(elsewhere).with_state(Arc::clone(receiver))
}

async fn export(receiver: Arc<Receiver>, signal: Signal, request: Request) -> Response {
    if !is_grpc(request.headers()) {
        return wrong_port(&receiver);
    }
    let (head, mut body) = request.into_parts();
    let call = Call { transport: Transport::Grpc, signal, encoding: Some(Encoding::Protobuf) };
    let result = match check(&receiver, &head, call) {
        Ok(incoming) => receiver.receive(incoming, &mut body).await,
        Err(failure) => {
            receiver.turned_away(call, &failure);
            Err(failure)
        }
    };
    match result {
        Ok(answer) => respond(&reply::success(Encoding::Protobuf, signal, &answer)),
        Err(failure) => respond_failure(&failure),
    }
}

async fn elsewhere(State(receiver): State<Arc<Receiver>>, request: Request) -> Response {
    if !is_grpc(request.headers()) {
        return wrong_port(&receiver);
    }
    let failure = Failure::Path(METHODS);
    receiver.misplaced(Transport::Grpc, Some(Encoding::Protobuf), failure.label());
    respond_failure(&failure)
}

fn check(receiver: &Receiver, head: &request::Parts, call: Call) -> Result<Incoming, Failure> {
    receiver.admit(head)?;
    let compression = Compression::of_header(head.headers.get("grpc-encoding"))?;
    Ok(Incoming { call, encoding: Encoding::Protobuf, compression })
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let essence = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.split(';').next());
    matches!(essence.map(str::trim), Some("application/grpc" | "application/grpc+proto"))
}

/// Takes the message out of its frame, and says how it is compressed.
pub(crate) fn message(
    mut wire: Bytes,
    compression: Compression,
) -> Result<(Bytes, Compression), Failure> {
    let malformed = |text: &str| Err(Failure::Malformed(text.to_owned()));
    let Some((flag, length)) = wire
        .first_chunk::<FRAME_BYTES>()
        .map(|[flag, length @ ..]| (*flag, u32::from_be_bytes(*length) as usize))
    else {
        return malformed("expected one gRPC message, got none");
    };
    let message = wire.split_off(FRAME_BYTES);
    if message.len() != length {
        return malformed(
            "expected one gRPC message of the length that its frame says, got another length",
        );
    }
    match (flag, compression) {
        (0, _) => Ok((message, Compression::Identity)),
        (1, Compression::Identity) => {
            malformed("expected the header grpc-encoding with a compressed message, got none")
        }
        (1, compression) => Ok((message, compression)),
        _ => malformed("expected 0 or 1 as the first byte of a gRPC frame, got another"),
    }
}

fn respond(message: &[u8]) -> Response {
    let mut frame = BytesMut::with_capacity(FRAME_BYTES + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    let trailers = async {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        Some(Ok(trailers))
    };
    let mut response = Response::new(Body::new(Full::new(frame.freeze()).with_trailers(trailers)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, CONTENT_TYPE_GRPC);
    headers.insert("grpc-accept-encoding", HeaderValue::from_static("gzip,zstd,identity"));
    response
}

fn respond_failure(failure: &Failure) -> Response {
    let (code, text) = (failure.grpc_code(), failure.to_string());
    let status = match failure.retry_after() {
        Some(after) => tonic::Status::with_error_details(
            code,
            text,
            ErrorDetails::with_retry_info(Some(after)),
        ),
        None => tonic::Status::new(code, text),
    };
    let mut response: Response = status.into_http();
    if matches!(failure, Failure::Compression(_)) {
        let known = HeaderValue::from_static("gzip,zstd,identity");
        response.headers_mut().insert("grpc-accept-encoding", known);
    }
    response
}

/// The answer of gRPC to what is not gRPC: HTTP 415, here with a text.
fn wrong_port(receiver: &Receiver) -> Response {
    receiver.misplaced(Transport::Grpc, None, "unsupported");
    let mut response = Response::new(Body::from(format!("{WRONG_PORT}\n")));
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}
