//! The layers over gRPC: what every status is to a server and to a client, whether it comes at once
//! or behind messages, and the binary form of the trace.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context as Poller, Poll};

use axum::body::Bytes;
use axum::http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame};
use throughline::middleware::{TraceClientLayer, TraceServerLayer};
use throughline::span;
use tower::{Layer as _, ServiceExt as _};

use crate::chain::recording;

const METHOD: &str = "/shop.Stock/Get";

/// A body of these frames.
#[derive(Default)]
struct Frames(VecDeque<Frame<Bytes>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Poller<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

/// Where an answer tells its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    /// In its head: it has no messages.
    Head,
    /// Behind a message.
    Trailers,
    Nowhere,
}

fn status(code: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("grpc-status", code.parse().expect("a header"));
    headers.insert("grpc-message", "no luck".parse().expect("a header"));
    headers
}

fn answer(code: &str, place: Where) -> Response<Frames> {
    let message = Frame::data(Bytes::from_static(b"\0\0\0\0\0"));
    let mut response = Response::new(Frames::default());
    match place {
        Where::Head => *response.headers_mut() = status(code),
        Where::Trailers => response.body_mut().0 = [message, Frame::trailers(status(code))].into(),
        Where::Nowhere => response.body_mut().0 = [message].into(),
    }
    response
}

fn request() -> Request<Frames> {
    Request::post(format!("http://shop.example{METHOD}"))
        .header("content-type", "application/grpc+proto")
        .body(Frames::default())
        .expect("a request")
}

/// Reads a body to its end.
async fn read<B: Body + Unpin>(mut body: B) {
    while std::future::poll_fn(|poller| Pin::new(&mut body).poll_frame(poller)).await.is_some() {}
}

/// What the span of a call says that is answered so, on the server and on the client.
async fn told(code: &'static str, place: Where) -> [String; 2] {
    recording(|recorder| async move {
        let keys = ["rpc.response.status_code", "error.type", "outcome"];
        let service = tower::service_fn(move |_: Request<Frames>| async move {
            Ok::<_, Infallible>(answer(code, place))
        });
        let asked = TraceServerLayer::new().layer(service).oneshot(request()).await;
        read(asked.expect("an answer").into_body()).await;
        let server = recorder.tree(&keys);
        recorder.clear();
        let asked = TraceClientLayer::new().layer(service).oneshot(request()).await;
        read(asked.expect("an answer").into_body()).await;
        [server, recorder.tree(&keys)]
    })
    .await
}

#[tokio::test]
async fn r2_2_every_grpc_status_is_told_wherever_it_comes() {
    // The kind of failure that a client sees, and whether it is one to the server.
    for (code, name, kind, fails_server) in [
        ("1", "CANCELLED", "CANCELLED", false),
        ("2", "UNKNOWN", "SERVER", true),
        ("3", "INVALID_ARGUMENT", "INVALID_REQUEST", false),
        ("4", "DEADLINE_EXCEEDED", "TIMEOUT", true),
        ("5", "NOT_FOUND", "INVALID_REQUEST", false),
        ("6", "ALREADY_EXISTS", "INVALID_REQUEST", false),
        ("7", "PERMISSION_DENIED", "AUTH", false),
        ("8", "RESOURCE_EXHAUSTED", "RATE_LIMITED", false),
        ("9", "FAILED_PRECONDITION", "INVALID_REQUEST", false),
        ("10", "ABORTED", "SERVER", false),
        ("11", "OUT_OF_RANGE", "INVALID_REQUEST", false),
        ("12", "UNIMPLEMENTED", "INVALID_REQUEST", true),
        ("13", "INTERNAL", "SERVER", true),
        ("14", "UNAVAILABLE", "CONNECTION", true),
        ("15", "DATA_LOSS", "SERVER", true),
        ("16", "UNAUTHENTICATED", "AUTH", false),
        ("99", "UNKNOWN", "SERVER", true),
        ("no number", "UNKNOWN", "SERVER", true),
    ] {
        let outcome = match kind {
            "TIMEOUT" => "timeout",
            "CANCELLED" => "cancelled",
            _ => "error",
        };
        let text = match kind {
            "TIMEOUT" => "TIMEOUT".to_owned(),
            _ => format!("shop.Stock/Get answered {name}: no luck"),
        };
        let failed = format!(
            "shop.Stock/Get rpc.response.status_code={name} error.type={kind} outcome={outcome} ERROR({text})\n"
        );
        let fine = format!("shop.Stock/Get rpc.response.status_code={name} outcome=ok\n");
        for place in [Where::Head, Where::Trailers] {
            let [server, client] = told(code, place).await;
            assert_eq!(client, failed, "{code} in {place:?}");
            assert_eq!(server, if fails_server { &*failed } else { &*fine }, "{code} in {place:?}");
        }
    }
}

#[tokio::test]
async fn a_grpc_answer_is_fine_with_its_status_and_broken_without() {
    for place in [Where::Head, Where::Trailers] {
        for told in told("0", place).await {
            assert_eq!(told, "shop.Stock/Get rpc.response.status_code=OK outcome=ok\n");
        }
    }
    for told in told("0", Where::Nowhere).await {
        assert_eq!(
            told,
            "shop.Stock/Get error.type=INVALID_RESPONSE outcome=error ERROR(shop.Stock/Get ended without a gRPC status)\n"
        );
    }
}

#[tokio::test]
async fn a_proxy_that_answers_grpc_in_http_is_a_failure_of_its_status() {
    recording(|recorder| async move {
        let service = tower::service_fn(|_: Request<Frames>| async {
            let mut response = Response::new(Frames::default());
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            Ok::<_, Infallible>(response)
        });
        let asked = TraceClientLayer::new().layer(service).oneshot(request()).await;
        read(asked.expect("an answer").into_body()).await;
        let tree = recorder.tree(&["error.type", "outcome"]);
        assert!(tree.contains("outcome=error") && tree.contains("503"), "{tree}");
    })
    .await;
}

#[tokio::test]
async fn r2_2_grpc_trace_bin_goes_on_through_the_layers() {
    recording(|recorder| async move {
        let (sent, mut asked) = tokio::sync::mpsc::unbounded_channel();
        let wire = tower::service_fn(move |request: Request<Frames>| {
            sent.send(request).expect("somebody listens");
            async { Ok::<_, Infallible>(answer("0", Where::Trailers)) }
        });
        let client = TraceClientLayer::new().grpc_trace_bin(true).layer(wire);
        let caller = span("caller").start();
        let answered = caller.instrument(client.oneshot(request())).await;
        read(answered.expect("an answer").into_body()).await;
        caller.end();

        // In between is somebody who knows nothing but the binary form.
        let mut arrived = asked.recv().await.expect("a request");
        assert!(arrived.headers_mut().remove("traceparent").is_some());
        let server = TraceServerLayer::new().layer(tower::service_fn(|_: Request<Frames>| async {
            span("work").start().end();
            Ok::<_, Infallible>(answer("0", Where::Trailers))
        }));
        let answered = server.oneshot(arrived).await;
        read(answered.expect("an answer").into_body()).await;
        insta::assert_snapshot!(recorder.tree(&["outcome"]), @r"
        caller
          shop.Stock/Get outcome=ok
            shop.Stock/Get outcome=ok
              work
        ");
    })
    .await;
}
