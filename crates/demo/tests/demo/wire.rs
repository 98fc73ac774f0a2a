//! What the simulated provider answers, byte for byte where clients look.

use axum::body::Body;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use throughline_demo::provider::{ProviderOptions, router};
use throughline_demo::{Pace, Seed};
use tower::ServiceExt as _;

pub(crate) fn provider() -> axum::Router {
    let options = ProviderOptions { pace: Pace::new(0.0), ..ProviderOptions::new(Seed::new(42)) };
    router(options)
}

pub(crate) async fn post(
    provider: &axum::Router,
    path: &str,
    body: impl Into<Body>,
) -> Response<Body> {
    let request = Request::post(path).header("content-type", "application/json").body(body.into());
    provider.clone().oneshot(request.expect("the request is good")).await.expect("routers answer")
}

pub(crate) async fn json_of(response: Response<Body>) -> Value {
    let bytes = response.into_body().collect().await.expect("the body comes whole").to_bytes();
    serde_json::from_slice(&bytes).expect("the body is JSON")
}

async fn chat(body: Value) -> (StatusCode, Value) {
    let response = post(&provider(), "/v1/chat/completions", body.to_string()).await;
    (response.status(), json_of(response).await)
}

/// The data of each event of a stream, and whether the stream ended without a broken connection.
async fn stream(body: Value) -> (Vec<String>, bool) {
    let response = post(&provider(), "/v1/chat/completions", body.to_string()).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    let (mut text, mut is_whole, mut body) = (String::new(), true, response.into_body());
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                let data = frame.into_data().expect("streams have no trailers");
                text.push_str(std::str::from_utf8(&data).expect("events are text"));
            }
            Err(_) => is_whole = false,
        }
    }
    let events = text.split("\n\n").filter(|event| !event.is_empty());
    let data = events.map(|event| event.strip_prefix("data: ").expect("data only").to_owned());
    (data.collect(), is_whole)
}

fn hello(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "Say hello in Danish."}]})
}

fn with(mut body: Value, more: Value) -> Value {
    for (key, value) in more.as_object().expect("an object") {
        body[key] = value.clone();
    }
    body
}

#[tokio::test]
async fn a_plain_answer_has_the_shape_of_openai() {
    let (status, answer) = chat(hello("gpt-4o")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["model"], "gpt-4o-2024-08-06");
    assert!(answer["id"].as_str().is_some_and(|id| id.starts_with("chatcmpl-")), "{answer}");
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(choice["message"]["role"], "assistant");
    let text = choice["message"]["content"].as_str().expect("there is text");
    assert!(text.contains("Say hello in Danish."), "{text}");
    let usage = &answer["usage"];
    let count = |key: &str| usage[key].as_u64().expect("a count");
    assert_eq!(count("total_tokens"), count("prompt_tokens") + count("completion_tokens"));
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 0);
    assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], 0);
}

#[tokio::test]
async fn a_stream_adds_up_to_the_plain_answer() {
    let (_, plain) = chat(hello("gpt-4o")).await;
    let options = json!({"stream": true, "stream_options": {"include_usage": true}});
    let (events, is_whole) = stream(with(hello("gpt-4o"), options)).await;
    assert!(is_whole);
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    let chunks: Vec<Value> = events[..events.len() - 1]
        .iter()
        .map(|data| serde_json::from_str(data).expect("chunks are JSON"))
        .collect();
    let text: String =
        chunks.iter().filter_map(|c| c["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(plain["choices"][0]["message"]["content"], text);
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let (usage, rest) = chunks.split_last().expect("there are chunks");
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"], plain["usage"]);
    assert!(rest.iter().all(|chunk| chunk["usage"].is_null()));
    let finished = rest.last().expect("there are chunks");
    assert_eq!(finished["choices"][0]["finish_reason"], "stop");
    assert!(chunks.iter().all(|chunk| chunk["id"] == chunks[0]["id"]));
}

#[tokio::test]
async fn tools_are_asked_for_plain_and_streamed_and_their_results_used() {
    let tools = json!({"tools": [{"type": "function", "function": {
        "name": "translate_v1",
        "parameters": {"type": "object", "properties": {"text": {"type": "string"}}},
    }}]});
    let (_, plain) = chat(with(hello("gpt-4o-mini"), tools.clone())).await;
    let call = &plain["choices"][0]["message"]["tool_calls"][0];
    assert_eq!(plain["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(plain["choices"][0]["message"]["content"], Value::Null);
    assert_eq!(call["function"]["name"], "translate_v1");
    assert_eq!(call["function"]["arguments"], r#"{"text":"Say hello in Danish."}"#);

    let (events, _) =
        stream(with(with(hello("gpt-4o-mini"), tools.clone()), json!({"stream": true}))).await;
    let chunks = events.iter().filter_map(|data| serde_json::from_str::<Value>(data).ok());
    let deltas: Vec<Value> = chunks
        .map(|chunk| chunk["choices"][0]["delta"]["tool_calls"][0].clone())
        .filter(|delta| !delta.is_null())
        .collect();
    assert_eq!(deltas[0]["function"]["name"], "translate_v1");
    let arguments: String =
        deltas.iter().filter_map(|delta| delta["function"]["arguments"].as_str()).collect();
    assert_eq!(arguments, r#"{"text":"Say hello in Danish."}"#);

    let mut asked = with(hello("gpt-4o-mini"), tools);
    let messages = asked["messages"].as_array_mut().expect("a list");
    messages.push(json!({"role": "assistant", "content": null, "tool_calls": [call]}));
    messages.push(json!({"role": "tool", "tool_call_id": call["id"], "content": "hej"}));
    let (_, answer) = chat(asked).await;
    let text = answer["choices"][0]["message"]["content"].as_str().expect("there is text");
    assert!(text.contains("hej"), "{text}");
}

#[tokio::test]
async fn limits_and_stops_cut_the_answer() {
    let (_, answer) = chat(with(hello("gpt-4o"), json!({"max_tokens": 3}))).await;
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 3);
    let (_, answer) = chat(with(hello("gpt-4o"), json!({"stop": ["hello"]}))).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "You asked: Say ");
}

#[tokio::test]
async fn a_thinking_model_counts_its_thoughts() {
    let (_, answer) = chat(hello("o4-mini")).await;
    let details = &answer["usage"]["completion_tokens_details"];
    let thoughts = details["reasoning_tokens"].as_u64().expect("a count");
    assert!(thoughts >= 64 && thoughts % 64 == 0, "{thoughts}");
    assert!(answer["usage"]["completion_tokens"].as_u64().expect("a count") > thoughts);
}

#[tokio::test]
async fn a_long_conversation_reads_its_beginning_from_the_cache() {
    let long = "Tell me more about the history of the Danish language. ".repeat(40);
    let (_, answer) = chat(json!({"model": "gpt-4o", "messages": [
        {"role": "system", "content": long},
        {"role": "user", "content": "Begin."},
        {"role": "assistant", "content": "It began."},
        {"role": "user", "content": "Go on."},
    ]}))
    .await;
    let cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64();
    let cached = cached.expect("a count");
    assert!(cached >= 384 && cached % 128 == 0, "{cached}");
    assert!(cached < answer["usage"]["prompt_tokens"].as_u64().expect("a count"));
}

#[tokio::test]
async fn faults_come_on_cue() {
    let provider = provider();
    let ask =
        async |model: &str| post(&provider, "/v1/chat/completions", hello(model).to_string()).await;
    let limited = ask("sim-rate-limited").await;
    assert_eq!(limited.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(limited.headers()["retry-after"], "1");
    assert!(limited.headers().contains_key("x-request-id"));
    let error = json_of(limited).await;
    assert_eq!(error["error"]["code"], "rate_limit_exceeded");
    assert_eq!(ask("sim-server-error").await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(ask("sim-overloaded").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    let filtered = json_of(ask("sim-content-filter").await).await;
    assert_eq!(filtered["choices"][0]["finish_reason"], "content_filter");
}

#[tokio::test]
async fn a_cut_stream_ends_without_done() {
    for (model, ends_whole) in [("sim-cut-stream", true), ("sim-broken-connection", false)] {
        let (events, is_whole) = stream(with(hello(model), json!({"stream": true}))).await;
        assert_eq!(is_whole, ends_whole, "{model}");
        assert!(events.len() > 2, "{model}");
        assert!(!events.iter().any(|data| data == "[DONE]"), "{model}");
        assert!(!events.iter().any(|data| data.contains(r#""finish_reason":"stop""#)), "{model}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hanging_model_never_answers() {
    let provider = provider();
    let asked = post(&provider, "/v1/chat/completions", hello("sim-hangs").to_string());
    let waited = tokio::time::timeout(std::time::Duration::from_secs(300), asked).await;
    assert!(waited.is_err(), "it answered");
}

#[tokio::test(start_paused = true)]
async fn tokens_come_at_the_pace_that_was_set() {
    let options = ProviderOptions {
        pace: Pace::new(1.0),
        tokens_per_second: Some(10.0),
        ..ProviderOptions::new(Seed::new(1))
    };
    let began = tokio::time::Instant::now();
    let response =
        post(&router(options), "/v1/chat/completions", hello("gpt-4o").to_string()).await;
    let answer = json_of(response).await;
    let tokens = answer["usage"]["completion_tokens"].as_f64().expect("a count");
    let expected = 0.48 + tokens / 10.0;
    assert!((began.elapsed().as_secs_f64() - expected).abs() < 0.05, "{:?}", began.elapsed());
}

#[tokio::test]
async fn wrong_requests_are_told_what_is_wrong() {
    let user = json!([{"role": "user", "content": "hi"}]);
    let call = json!({"role": "assistant", "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]});
    let cases = [
        (json!([]), 400, "object"),
        (json!({"messages": user}), 400, "model parameter"),
        (json!({"model": "gpt-9", "messages": user}), 404, "`gpt-9` does not exist"),
        (json!({"model": "text-embedding-3-small", "messages": user}), 400, "not a chat model"),
        (json!({"model": "gpt-4o"}), 400, "'messages'"),
        (json!({"model": "gpt-4o", "messages": []}), 400, "empty array"),
        (
            json!({"model": "gpt-4o", "messages": "hi"}),
            400,
            "expected an array of objects, but got a string",
        ),
        (
            json!({"model": "gpt-4o", "messages": [{"role": "robot", "content": "hi"}]}),
            400,
            "'robot'",
        ),
        (
            json!({"model": "gpt-4o", "messages": [{"role": "user", "content": 5}]}),
            400,
            "got an integer",
        ),
        (json!({"model": "gpt-4o", "messages": user, "temperature": 3}), 400, "above maximum"),
        (json!({"model": "gpt-4o", "messages": user, "n": 0}), 400, "'n'"),
        (json!({"model": "gpt-4o", "messages": user, "stream": "yes"}), 400, "expected a boolean"),
        (
            json!({"model": "gpt-4o", "messages": user, "stream_options": {}}),
            400,
            "only allowed when 'stream'",
        ),
        (
            json!({"model": "gpt-4o", "messages": user, "tool_choice": "auto"}),
            400,
            "only allowed when 'tools'",
        ),
        (
            json!({"model": "gpt-4o", "messages": user, "tools": [{"type": "function", "function": {"name": "a b"}}]}),
            400,
            "pattern",
        ),
        (
            json!({"model": "gpt-4o", "messages": [call]}),
            400,
            "did not have response messages: call_1",
        ),
        (
            json!({"model": "gpt-4o", "messages": [{"role": "tool", "tool_call_id": "x", "content": ""}]}),
            400,
            "must be a response",
        ),
    ];
    for (body, status, part) in cases {
        let (got, answer) = chat(body.clone()).await;
        let message = answer["error"]["message"].as_str().expect("there is a message");
        assert_eq!(got.as_u16(), status, "{body} {message}");
        assert!(message.contains(part), "{body} {message}");
        assert_eq!(answer["error"]["type"], "invalid_request_error", "{body}");
    }
    let torn = post(&provider(), "/v1/chat/completions", "{\"model\":").await;
    assert_eq!(torn.status(), StatusCode::BAD_REQUEST);
    let nowhere = post(&provider(), "/v1/completions", "{}").await;
    assert_eq!(nowhere.status(), StatusCode::NOT_FOUND);
    assert_eq!(json_of(nowhere).await["error"]["message"], "Invalid URL (POST /v1/completions)");
    let huge = post(&provider(), "/v1/chat/completions", vec![b' '; 9 * 1024 * 1024]).await;
    assert_eq!(huge.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn embeddings_are_deterministic_and_come_in_both_encodings() {
    let ask = async |more: Value| {
        let body =
            with(json!({"model": "text-embedding-3-small", "input": ["a cat", "a cat"]}), more);
        json_of(post(&provider(), "/v1/embeddings", body.to_string()).await).await
    };
    let plain = ask(json!({"dimensions": 8})).await;
    assert_eq!(plain["data"][0]["embedding"].as_array().map(Vec::len), Some(8));
    assert_eq!(plain["data"][0]["embedding"], plain["data"][1]["embedding"]);
    assert_eq!(plain["usage"], json!({"prompt_tokens": 4, "total_tokens": 4}));
    let packed = ask(json!({"dimensions": 8, "encoding_format": "base64"})).await;
    assert_eq!(packed["data"][0]["embedding"].as_str().map(str::len), Some(44));
    assert_eq!(ask(json!({"dimensions": 5000})).await["error"]["param"], "dimensions");
    assert_eq!(ask(json!({"input": ""})).await["error"]["param"], "input");
}

#[tokio::test]
async fn the_same_seed_gives_the_same_answers() {
    let (first, second) = (provider(), provider());
    for _ in 0..3 {
        let body = hello("o4-mini").to_string();
        let one = json_of(post(&first, "/v1/chat/completions", body.clone()).await).await;
        let other = json_of(post(&second, "/v1/chat/completions", body).await).await;
        assert_eq!((&one["id"], &one["usage"]), (&other["id"], &other["usage"]));
    }
}

#[tokio::test]
async fn models_are_listed() {
    let get = async |path: &str| {
        let request = Request::get(path).body(Body::empty()).expect("the request is good");
        provider().oneshot(request).await.expect("routers answer")
    };
    let list = json_of(get("/v1/models").await).await;
    assert!(
        list["data"].as_array().is_some_and(|models| models.iter().any(|m| m["id"] == "o4-mini"))
    );
    assert_eq!(json_of(get("/v1/models/gpt-4o").await).await["object"], "model");
    assert_eq!(get("/v1/models/nope").await.status(), StatusCode::NOT_FOUND);
}
