//! The layers of servers and clients: names, attributes, failures, and spans that end whatever
//! becomes of a request.

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{Method, Request, Response, StatusCode};
use axum::routing::{get, post};
use futures_util::{StreamExt as _, stream};
use opentelemetry::Context;
use throughline::middleware::{SendTraced as _, TraceClientLayer, TraceServerLayer, UrlTemplate};
use throughline::{in_context, span};
use tower::{Layer as _, Service as _, ServiceExt as _};

use crate::chain::{client, recording, serve, server_layer};

fn request(method: &str, path: &str) -> Request<Body> {
    Request::builder().method(method).uri(path).body(Body::empty()).expect("a request")
}

/// A body that says one word and then nothing any more.
fn endless() -> Body {
    let word = stream::once(async { Ok::<_, Infallible>(Bytes::from_static(b"word")) });
    Body::from_stream(word.chain(stream::pending()))
}

#[tokio::test]
async fn a_server_names_its_spans_by_method_and_route() {
    recording(|recorder| async move {
    let app = Router::new()
        .route("/stock/{item}", get(|| async { "17" }))
        .route("/broken", get(|| async { StatusCode::BAD_GATEWAY }))
        .layer(server_layer());
    for (method, path) in [
        ("GET", "/stock/7?key=secret"),
        ("HEAD", "/stock/7"),
        ("POST", "/stock/7"),
        ("GET", "/nowhere"),
        ("GET", "/broken"),
        ("BREW", "/stock/7"),
    ] {
        let answer = app.clone().oneshot(request(method, path)).await.expect("an answer");
        axum::body::to_bytes(answer.into_body(), 1_000).await.expect("a body");
    }
    let keys = [
        "url.path",
        "http.route",
        "http.request.method",
        "http.response.status_code",
        "error.type",
        "outcome",
    ];
    insta::assert_snapshot!(recorder.tree(&keys), @r"
    GET /stock/{item} url.path=/stock/7 http.route=/stock/{item} http.request.method=GET http.response.status_code=200 outcome=ok
    HEAD /stock/{item} url.path=/stock/7 http.route=/stock/{item} http.request.method=HEAD http.response.status_code=200 outcome=ok
    POST /stock/{item} url.path=/stock/7 http.route=/stock/{item} http.request.method=POST http.response.status_code=405 outcome=ok
    GET url.path=/nowhere http.request.method=GET http.response.status_code=404 outcome=ok
    GET /broken url.path=/broken http.route=/broken http.request.method=GET http.response.status_code=502 error.type=SERVER outcome=error ERROR(GET /broken answered 502 Bad Gateway)
    HTTP /stock/{item} url.path=/stock/7 http.route=/stock/{item} http.request.method=_OTHER http.response.status_code=405 outcome=ok
    ");
    })
    .await;
}

#[tokio::test]
async fn a_request_goes_on_with_its_callers_trace_also_in_the_background() {
    recording(|recorder| async move {
        let (done, finished) = tokio::sync::oneshot::channel::<()>();
        let done = std::sync::Arc::new(std::sync::Mutex::new(Some(done)));
        let handler = move || {
            let done = done.lock().expect("the lock").take();
            async move {
                let background = async move {
                    span("background").start().end();
                    drop(done);
                };
                tokio::spawn(in_context(Context::current(), background));
                "accepted"
            }
        };
        let address =
            serve(Router::new().route("/work", post(handler)).layer(server_layer())).await;
        let caller = span("caller").start();
        let asking = client().post(format!("http://{address}/work")).send_traced();
        let answer = caller.instrument(asking).await.expect("an answer");
        assert_eq!(answer.url().path(), "/work", "the answer knows its address");
        assert_eq!(answer.content_length(), Some(8));
        assert_eq!(answer.text().await.expect("a text"), "accepted");
        let _ = finished.await;
        caller.end();
        insta::assert_snapshot!(recorder.tree(&["server.address", "outcome"]), @r"
    caller
      POST server.address=127.0.0.1 outcome=ok
        POST /work server.address=127.0.0.1 outcome=ok
          background
    ");
    })
    .await;
}

#[tokio::test]
async fn a_server_span_lasts_until_the_body_ends() {
    recording(|recorder| async move {
        let app = Router::new()
            .route("/slow", get(|| async { endless() }))
            .route(
                "/words",
                get(|| async {
                    let words = ["a", "b"].map(Ok::<_, Infallible>);
                    Body::from_stream(stream::iter(words).map(|word| {
                        span("word").start().end();
                        word
                    }))
                }),
            )
            .layer(server_layer());
        let answer = app.clone().oneshot(request("GET", "/words")).await.expect("an answer");
        assert_eq!(recorder.tree(&[]), "", "the body is under way");
        axum::body::to_bytes(answer.into_body(), 1_000).await.expect("a body");
        let answer = app.oneshot(request("GET", "/slow")).await.expect("an answer");
        let mut body = answer.into_body().into_data_stream();
        assert_eq!(body.next().await.expect("a word").expect("a word"), "word");
        drop(body);
        insta::assert_snapshot!(recorder.tree(&["outcome"]), @r"
    GET /words outcome=ok
      word
      word
    GET /slow outcome=cancelled
    ");
    })
    .await;
}

#[tokio::test]
async fn a_dropped_request_leaves_ended_spans_on_both_sides() {
    recording(|recorder| async move {
        let service =
            tower::service_fn(|_: Request<Body>| pending::<Result<Response<Body>, Infallible>>());
        for is_server in [true, false] {
            let work = async {
                if is_server {
                    let _ =
                        TraceServerLayer::new().layer(service).oneshot(request("GET", "/a")).await;
                } else {
                    let _ =
                        TraceClientLayer::new().layer(service).oneshot(request("GET", "/a")).await;
                }
            };
            assert!(tokio::time::timeout(Duration::from_millis(1), work).await.is_err());
        }
        insta::assert_snapshot!(recorder.tree(&["outcome", "error.type"]), @r"
    GET outcome=cancelled
    GET outcome=cancelled
    ");
    })
    .await;
}

#[tokio::test]
async fn a_client_tells_what_went_wrong_and_no_secrets() {
    recording(|recorder| async move {
    let app = Router::new()
        .route("/busy", get(|| async { StatusCode::TOO_MANY_REQUESTS }))
        .route("/endless", get(|| async { endless() }))
        .route("/fine", get(|| async { "fine" }));
    let address = serve(app).await;
    let client = client();
    let get = |path: &str| client.get(format!("http://user:hunter2@{address}{path}?key=hunter2"));
    drop(get("/busy").send_traced().await.expect("an answer"));
    drop(get("/fine").send_traced().await.expect("an answer"));
    let mut words = get("/endless").send_traced().await.expect("an answer").bytes_stream();
    words.next().await.expect("a word").expect("a word");
    drop(words);
    client
        .get("http://127.0.0.1:9/x?key=hunter2")
        .send_traced()
        .await
        .expect_err("nobody is there");
    let keys = ["http.response.status_code", "error.type", "outcome"];
    // What the system says of a port where nobody listens is its own.
    let tree = recorder.tree(&keys);
    let tree = match tree.split_once("no answer: ") {
        Some((before, _)) => format!("{before}no answer)"),
        None => tree,
    };
    insta::assert_snapshot!(tree, @r"
    GET http.response.status_code=429 error.type=RATE_LIMITED outcome=error ERROR(GET 127.0.0.1 answered 429 Too Many Requests)
    GET http.response.status_code=200 outcome=ok
    GET http.response.status_code=200 outcome=cancelled
    GET error.type=CONNECTION outcome=error ERROR(GET 127.0.0.1 got no answer)
    ");
    assert!(!format!("{:?}", recorder.spans()).contains("hunter2"));
    })
    .await;
}

#[tokio::test]
async fn a_client_of_hyper_takes_the_layer_and_a_template_names_its_span() {
    recording(|recorder| async move {
    let mut seen = None;
    let mut asked = Request::new(Body::empty());
    *asked.method_mut() = Method::DELETE;
    *asked.uri_mut() = "https://shop.example/stock/7".parse().expect("an address");
    asked.extensions_mut().insert(UrlTemplate("/stock/{item}".into()));
    let service = tower::service_fn(|request: Request<Body>| {
        seen = Some(request.headers().clone());
        async { Err::<Response<Body>, _>(std::io::Error::other("no route to host")) }
    });
    let mut client = TraceClientLayer::new().baggage(false).layer(service);
    throughline::Dimensions::new()
        .session("s")
        .scope(async { client.call(asked).await.map(drop).expect_err("no answer") })
        .await;
    drop(client);
    let headers = seen.expect("a request");
    assert!(headers.contains_key("traceparent") && !headers.contains_key("baggage"), "{headers:?}");
    insta::assert_snapshot!(recorder.tree(&["url.full", "server.port", "error.type"]), @r"
    DELETE /stock/{item} url.full=https://shop.example/stock/7 server.port=443 error.type=CONNECTION ERROR(DELETE shop.example got no answer: no route to host)
    ");
    })
    .await;
}
