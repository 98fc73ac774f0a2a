//! What the client layer does with requests that are, or may be, those of model calls: whom baggage
//! goes to, and what a recognised stream tells.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, Response};
use axum::routing::post;
use throughline::Dimensions;
use throughline::llm::{ChatRequest, WireForm};
use throughline::middleware::{SendTraced as _, TraceClientLayer};
use tower::{Layer as _, Service as _};

use crate::chain::{client, recording, serve};

#[tokio::test]
async fn r1_2_baggage_reaches_no_model_provider_that_was_not_recognised() {
    recording(|_| async move {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        let app = Router::new().fallback(move |headers: HeaderMap| {
            assert!(headers.contains_key("traceparent"));
            noted.lock().expect("the lock").push(headers.contains_key("baggage"));
            async { "{}" }
        });
        let address = serve(app).await;
        let mut request = ChatRequest::new("m").user("hi");
        request.stream = false;
        let model = WireForm::ChatCompletions.request_to_json(&request).to_string();
        let piped = || {
            let bytes = futures_util::stream::iter([Ok::<_, std::io::Error>(model.clone())]);
            reqwest::Body::wrap_stream(bytes)
        };
        let ask = async |path: &str, body: reqwest::Body| {
            let url = format!("http://{address}{path}");
            client().post(url).body(body).send_traced().await.expect("an answer");
        };
        let work = async {
            // Recognised; not to be looked at; own services.
            ask("/v1/chat/completions", model.clone().into()).await;
            ask("/v1/chat/completions", piped()).await;
            let large = format!("{model}{}", " ".repeat(9 * 1024 * 1024));
            ask("/v1/chat/completions", large.into()).await;
            ask("/survey/responses", r#"{"answer":1}"#.into()).await;
            ask("/stock", piped()).await;
        };
        Dimensions::new().session("s-1").scope(work).await;
        assert_eq!(*seen.lock().expect("the lock"), [false, false, false, true, true]);
    })
    .await;
}

#[tokio::test]
async fn r1_2_baggage_goes_to_no_known_provider_over_any_client() {
    recording(|_| async move {
        let mut seen = Vec::new();
        for url in ["https://api.openai.com/v1/files", "https://shop.example/v1/files"] {
            let service = tower::service_fn(|request: Request<Body>| {
                seen.push(request.headers().contains_key("baggage"));
                async { Ok::<_, std::io::Error>(Response::new(Body::empty())) }
            });
            let request = Request::post(url).body(Body::empty()).expect("a request");
            let mut client = TraceClientLayer::new().layer(service);
            let work = async { client.call(request).await.map(drop).expect("an answer") };
            Dimensions::new().session("s-1").scope(work).await;
        }
        assert_eq!(seen, [false, true]);
    })
    .await;
}

#[tokio::test]
async fn r3_2_a_recognised_stream_that_begins_as_failed_has_failed() {
    recording(|recorder| async move {
        let app = Router::new().route(
            "/v1/chat/completions",
            post(|| async {
                let head =
                    [("content-type", "text/event-stream"), ("x-stream-state", "failed")];
                (head, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
            }),
        );
        ask_stream(serve(app).await).await;
        insta::assert_snapshot!(recorder.tree(&["error.type", "outcome", "throughline.stream.end"]), @r"
        chat m error.type=STREAM_FAILED outcome=error ERROR(m at 127.0.0.1 says that its stream failed)
          http.stream.init error.type=STREAM_FAILED throughline.stream.end=failed ERROR(m at 127.0.0.1 says that its stream failed)
        ");
    })
    .await;
}

#[tokio::test]
async fn r3_2_the_time_between_chunks_of_a_recognised_stream_is_measured() {
    let (recorder, telemetry) = crate::provider::recorded();
    let work = async {
        let app = Router::new().route(
            "/v1/chat/completions",
            post(|| async {
                let event = |text: &str| {
                    format!("data: {{\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
                };
                let events = [event("a"), event("b"), event("c"), "data: [DONE]\n\n".to_owned()];
                ([("content-type", "text/event-stream")], events.concat())
            }),
        );
        ask_stream(serve(app).await).await;
    };
    telemetry.scope(work).await;
    telemetry.flush();
    let metrics = recorder.metrics();
    let line = metrics.iter().find(|line| line.contains("time_per_output_chunk"));
    insta::assert_snapshot!(line.expect("the metric"), @"gen_ai.client.operation.time_per_output_chunk{gen_ai.operation.name=chat, gen_ai.provider.name=openai, gen_ai.request.model=m, gen_ai.response.model=m} 2");
}

async fn ask_stream(address: std::net::SocketAddr) {
    let mut request = ChatRequest::new("m").user("hi");
    request.stream = true;
    let body = WireForm::ChatCompletions.request_to_json(&request).to_string();
    let url = format!("http://{address}/v1/chat/completions");
    let answer = client().post(url).body(body).send_traced().await.expect("an answer");
    answer.bytes().await.expect("a body");
}
