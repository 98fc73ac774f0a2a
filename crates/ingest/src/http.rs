//! OTLP/HTTP: `POST /v1/{traces,logs,metrics}`, protobuf and JSON on one port, and Zipkin beside it:
//! `POST /api/v2/spans`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::any;
use axum::{Router, middleware};
use http::header::{
    ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, request};

use crate::body::{self, Compression};
use crate::cors;
use crate::decode::{Encoding, Signal};
use crate::failure::Failure;
use crate::receive::{Call, Incoming, Receiver, Transport};
use crate::reply;

/// What a request may be.
const MEDIA_TYPES: &str = "application/x-protobuf or application/json";

/// Where Zipkin's reporters send spans.
const ZIPKIN_PATH: &str = "/api/v2/spans";

/// What a request of theirs may be.
const ZIPKIN_MEDIA_TYPE: &str = "application/json (Zipkin v2; set your reporter's encoder to JSON)";

/// What is answered on any other path.
const PATHS: &str = "expected POST /v1/traces, /v1/logs or /v1/metrics (OTLP/HTTP), or \
                     /api/v2/spans (Zipkin), got another path; set OTEL_EXPORTER_OTLP_ENDPOINT, which is without a path, or the whole \
                     URL in OTEL_EXPORTER_OTLP_TRACES_ENDPOINT and its like";

pub(crate) fn router(receiver: &Arc<Receiver>) -> Router {
    let mut router = Router::new();
    for signal in [Signal::Traces, Signal::Logs, Signal::Metrics] {
        let export = move |State(receiver): State<Arc<Receiver>>, request: Request| {
            let encoding = media_type(request.headers());
            export(receiver, signal, encoding, request)
        };
        router = router.route(&format!("/v1/{}", signal.as_str()), any(export));
    }
    let zipkin = |State(receiver): State<Arc<Receiver>>, request: Request| {
        let encoding = zipkin_media_type(request.headers());
        export(receiver, Signal::Traces, encoding, request)
    };
    router = router.route(ZIPKIN_PATH, any(zipkin));
    let router = router.fallback(elsewhere).with_state(Arc::clone(receiver));
    match cors::Origins::new(&receiver.options.cors_origins) {
        Some(origins) => {
            router.layer(middleware::from_fn_with_state(Arc::new(origins), cors::answer))
        }
        None => router,
    }
}

async fn export(
    receiver: Arc<Receiver>,
    signal: Signal,
    encoding: Result<Encoding, Failure>,
    request: Request,
) -> Response {
    let (head, mut body) = request.into_parts();
    let call =
        Call { transport: Transport::Http, signal, encoding: encoding.as_ref().ok().copied() };
    let result = match check(&receiver, &head, call, encoding) {
        Ok(incoming) => receiver.receive(incoming, &mut body).await,
        Err(failure) => {
            receiver.turned_away(call, &failure);
            Err(failure)
        }
    };
    match result {
        Ok(answer) => {
            // What was received came in a type that we know.
            let encoding = call.encoding.unwrap_or(Encoding::Json);
            let status = match encoding {
                Encoding::Zipkin => StatusCode::ACCEPTED,
                Encoding::Protobuf | Encoding::Json => StatusCode::OK,
            };
            let body = reply::success(encoding, signal, &answer);
            respond(status, reply::content_type(encoding), body)
        }
        Err(failure) => {
            if head.version < Version::HTTP_2 {
                body::drain(&mut body, receiver.options.max_request_bytes).await;
            }
            respond_failure(call.encoding, &failure, head.uri.path())
        }
    }
}

async fn elsewhere(State(receiver): State<Arc<Receiver>>, request: Request) -> Response {
    let encoding = media_type(request.headers()).ok();
    let failure = Failure::Path(PATHS);
    receiver.misplaced(Transport::Http, encoding, failure.label());
    respond_failure(encoding, &failure, request.uri().path())
}

fn check(
    receiver: &Receiver,
    head: &request::Parts,
    call: Call,
    encoding: Result<Encoding, Failure>,
) -> Result<Incoming, Failure> {
    if head.method != Method::POST {
        return Err(Failure::Method(head.method.clone()));
    }
    receiver.admit(head)?;
    let encoding = encoding?;
    let compression = Compression::of_header(head.headers.get(CONTENT_ENCODING))?;
    Ok(Incoming { call, encoding, compression })
}

/// The encoding that `Content-Type` names.
fn media_type(headers: &HeaderMap) -> Result<Encoding, Failure> {
    match essence(headers).as_str() {
        "application/x-protobuf" | "application/protobuf" => Ok(Encoding::Protobuf),
        "application/json" => Ok(Encoding::Json),
        _ => Err(other_media_type(headers, MEDIA_TYPES)),
    }
}

/// Zipkin's clients do not all name a type; what they send then is JSON.
fn zipkin_media_type(headers: &HeaderMap) -> Result<Encoding, Failure> {
    match essence(headers).as_str() {
        "application/json" | "text/json" | "" => Ok(Encoding::Zipkin),
        _ => Err(other_media_type(headers, ZIPKIN_MEDIA_TYPE)),
    }
}

/// What `Content-Type` names, its parameters (`charset=utf-8`) aside, in lower case.
fn essence(headers: &HeaderMap) -> String {
    let header = headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or("unreadable text"));
    let essence = header.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    essence.to_ascii_lowercase()
}

fn other_media_type(headers: &HeaderMap, expected: &'static str) -> Failure {
    let header = headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or("unreadable text"));
    let got = header.map_or_else(|| "none".to_owned(), |text| format!("{text:?}"));
    Failure::MediaType { expected, got }
}

fn respond(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Who speaks a protocol is answered in it; who asks in no type that we know, with a problem.
fn respond_failure(encoding: Option<Encoding>, failure: &Failure, path: &str) -> Response {
    let status = failure.http_status();
    let (content_type, body) = match encoding {
        Some(encoding) => (reply::content_type(encoding), reply::failure(encoding, failure)),
        None => (reply::PROBLEM_JSON, reply::problem(status, failure, path)),
    };
    let mut response = respond(status, content_type, body);
    let headers = response.headers_mut();
    if let Some(retry_after) = failure.retry_after() {
        let secs = retry_after.as_millis().div_ceil(1_000).max(1);
        let secs = HeaderValue::from(u64::try_from(secs).unwrap_or(u64::MAX));
        headers.insert(RETRY_AFTER, secs);
    }
    match failure {
        Failure::Method(_) => {
            headers.insert(ALLOW, HeaderValue::from_static("POST"));
        }
        Failure::Compression(_) => {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd, identity"));
        }
        _ if status == StatusCode::UNAUTHORIZED => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        _ => {}
    }
    response
}
