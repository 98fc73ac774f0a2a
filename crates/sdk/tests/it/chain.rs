//! The chain of requirement R2.2: A –HTTP→ B –gRPC→ C –HTTP→ D over real sockets is one trace, whose
//! sampled flag and tracestate arrive intact.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::get;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use throughline::middleware::{SendTraced as _, TraceClientLayer, TraceServerLayer};
use throughline::{Dimensions, Recorder, propagation, span};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tower::Layer as _;

use crate::provider::recorded;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03";
const STATE: &str = "foo@@bar=1,congo=t61";

/// Runs a test within telemetry of its own.
pub(crate) async fn recording<F: Future>(test: impl FnOnce(Recorder) -> F) -> F::Output {
    let (recorder, telemetry) = recorded();
    telemetry.scope(test(recorder)).await
}

/// Serves a router on a free port, until the test ends.
pub(crate) async fn serve(router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// A client of reqwest; its TLS is that of the process.
pub(crate) fn client() -> reqwest::Client {
    // The second time it is there already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

/// The layer of a server whose routes are named.
pub(crate) fn server_layer() -> TraceServerLayer {
    TraceServerLayer::new().route(|extensions| {
        let path = extensions.get::<axum::extract::MatchedPath>()?;
        Some(path.as_str().to_owned())
    })
}

/// D keeps the headers that reach it.
type Seen = Arc<Mutex<HeaderMap>>;

async fn start_d(seen: Seen) -> SocketAddr {
    let answer = |State(seen): State<Seen>, headers: HeaderMap| async move {
        *seen.lock().expect("the lock") = headers;
        span("work of D").start().end();
        "17"
    };
    serve(Router::new().route("/stock/{item}", get(answer)).layer(server_layer()).with_state(seen))
        .await
}

/// C answers gRPC calls, and asks D.
struct C {
    d: SocketAddr,
}

#[tonic::async_trait]
impl TraceService for C {
    async fn export(
        &self,
        _: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let url = format!("http://{}/stock/7", self.d);
        let answer = client().get(url).send_traced().await.expect("an answer of D");
        assert_eq!(answer.text().await.expect("a text"), "17");
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn start_c(d: SocketAddr) -> SocketAddr {
    let routes = tonic::service::Routes::new(TraceServiceServer::new(C { d }));
    serve(routes.prepare().into_axum_router().layer(TraceServerLayer::new())).await
}

/// B answers HTTP, and calls C.
async fn start_b(c: SocketAddr, sends_trace_bin: bool) -> SocketAddr {
    let channel = Channel::from_shared(format!("http://{c}")).expect("an address").connect_lazy();
    let layer =
        TraceClientLayer::new().server("127.0.0.1", c.port()).grpc_trace_bin(sends_trace_bin);
    let client = TraceServiceClient::new(layer.layer(channel));
    let answer = move || async move {
        let mut client = client.clone();
        client.export(ExportTraceServiceRequest::default()).await.expect("an answer of C");
        "done"
    };
    serve(Router::new().route("/order", get(answer)).layer(server_layer())).await
}

#[tokio::test]
async fn r2_2_a_chain_over_http_and_grpc_is_one_trace() {
    recording(|recorder| async move {
    let seen = Seen::default();
    let b = {
        let d = start_d(Arc::clone(&seen)).await;
        start_b(start_c(d).await, true).await
    };

    let mut incoming = HeaderMap::new();
    incoming.insert("traceparent", PARENT.parse().expect("ascii"));
    incoming.insert("tracestate", STATE.parse().expect("ascii"));
    let cx = Dimensions::new().session("s-1").onto(&propagation::extract(&incoming));
    let a = span("A").parent(cx).start();
    a.instrument(async {
        let answer = client().get(format!("http://{b}/order")).send_traced().await.expect("B");
        assert_eq!(answer.text().await.expect("a text"), "done");
    })
    .await;
    a.end();

    let tree = recorder.tree(&[
        "http.route",
        "url.path",
        "http.response.status_code",
        "rpc.response.status_code",
        "session_id",
        "outcome",
    ]);
    insta::assert_snapshot!(tree, @r"
    ? A session_id=s-1
      GET http.response.status_code=200 session_id=s-1 outcome=ok
        GET /order http.route=/order url.path=/order http.response.status_code=200 session_id=s-1 outcome=ok
          opentelemetry.proto.collector.trace.v1.TraceService/Export rpc.response.status_code=OK session_id=s-1 outcome=ok
            opentelemetry.proto.collector.trace.v1.TraceService/Export rpc.response.status_code=OK session_id=s-1 outcome=ok
              GET http.response.status_code=200 session_id=s-1 outcome=ok
                GET /stock/{item} http.route=/stock/{item} url.path=/stock/7 http.response.status_code=200 session_id=s-1 outcome=ok
                  work of D session_id=s-1
    ");
    let traces = recorder.spans().into_iter().map(|span| span.span_context.trace_id().to_string());
    assert!(traces.eq(std::iter::repeat_n("4bf92f3577b34da6a3ce929d0e0e4736".to_owned(), 8)));
    let seen = seen.lock().expect("the lock");
    assert_eq!(seen["tracestate"], STATE);
    let parent = seen["traceparent"].to_str().expect("ascii");
    assert!(parent.ends_with("-03"), "sampled and random: {parent}");
    assert_eq!(seen["baggage"], "session_id=s-1");
    })
    .await;
}
