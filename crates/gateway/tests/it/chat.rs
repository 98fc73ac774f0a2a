//! The main path: a chat, whole and streamed, and its trace.

use serde_json::json;
use throughline_demo::provider::ProviderOptions;
use throughline_demo::{Pace, Seed};

use crate::house::{House, before, question, serve};
use crate::script::{Script, completion, opening, piece, says, streams};

#[tokio::test]
async fn r3_4_a_whole_answer_passes_to_the_byte_and_is_traced() {
    let script = Script::start([says("hello")]).await;
    let house = House::open(&before(&script.url)).await;
    let body =
        r#"{"model":"gpt-4o", "messages":[{"role":"user","content":"hi"}], "strange" : [1e3]}"#;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [
        ("traceparent", parent),
        ("tracestate", "a=1"),
        ("authorization", "Bearer dummy"),
        ("x-session-id", "s-1"),
        ("cookie", "secret"),
    ];
    let answer = house.post("/v1/chat/completions", &headers, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.text(), completion("hello"));
    assert_eq!(answer.header("x-trace-id"), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
    let came = &script.came()[0];
    assert_eq!(came.text(), body);
    assert_eq!(came.header("tracestate").as_deref(), Some("a=1"));
    assert_eq!((came.header("authorization"), came.header("cookie")), (None, None));
    let decision = answer.header("x-decision-id").map(str::to_owned);
    let all = house.records().await;
    let call = &all.spans[0];
    let sent = format!("00-{}-{}-01", call.trace_id, call.span_id);
    assert_eq!(came.header("traceparent"), Some(sent));
    assert_eq!(call.parent_span_id.map(|id| id.to_string()).as_deref(), Some("00f067aa0ba902b7"));
    assert_eq!(Some(all.decisions[0].decision_id.to_string()), decision);
    assert_eq!(all.decisions[0].trace_id, Some(call.trace_id));
    insta::assert_snapshot!(crate::trees::tree(&all.spans, &all.decisions), @r"
    chat gpt-4o outcome=ok retry_count=0 status_code=200 output_tokens=5
      * route: one
    ");
    let mut told: Vec<String> =
        call.attributes.iter().map(|(key, value)| format!("{key}={}", value.to_text())).collect();
    told.retain(|line| !line.starts_with("server.port"));
    insta::assert_snapshot!(told.join("\n"), @r#"
    throughline.role=llm_call
    gen_ai.operation.name=chat
    gen_ai.provider.name=one
    gen_ai.request.model=gpt-4o
    server.address=127.0.0.1
    is_cached=false
    gen_ai.input.messages=[{"parts":[{"content":"hi","type":"text"}],"role":"user"}]
    session_id=s-1
    gen_ai.response.finish_reasons=["stop"]
    gen_ai.response.id=chatcmpl-1
    gen_ai.response.model=gpt-4o-2024-08-06
    gen_ai.output.messages=[{"finish_reason":"stop","parts":[{"content":"hello","type":"text"}],"role":"assistant"}]
    gen_ai.usage.input_tokens=10
    gen_ai.usage.output_tokens=5
    throughline.cost_usd=0.000075
    throughline.price_version=2026-11-26
    outcome=ok
    retry_count=0
    status_code=200
    http.response.status_code=200
    "#);
}

#[tokio::test]
async fn r3_4_a_stream_passes_to_the_byte_without_the_usage_that_was_not_asked_for() {
    let script = Script::start([streams(&["Hel", "lo"])]).await;
    let house = House::open(&before(&script.url)).await;
    let answer = house.ask_stream("gpt-4o").await;
    assert_eq!(script.came()[0].json()["stream_options"], json!({"include_usage": true}));
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    let expected =
        format!("{}{}{}", opening(), piece("Hel"), piece("lo")).replace(",\"usage\":null", "");
    assert!(answer.text().starts_with(&expected), "{}", answer.text());
    assert!(answer.text().ends_with("data: [DONE]\n\n") && !answer.text().contains("usage"));
    insta::assert_snapshot!(house.tree().await, @r"
    chat gpt-4o outcome=ok retry_count=0 status_code=200 output_tokens=5
      * route: one
      http.stream.init end=first_token chunks=2
      http.stream.segment end=done chunks=3
    ");
}

#[tokio::test]
async fn r3_4_a_client_that_asks_for_usage_gets_the_bytes_as_they_came() {
    let script = Script::start([streams(&["Hello"])]).await;
    let house = House::open(&before(&script.url)).await;
    let body =
        r#"{"model":"gpt-4o","messages":[],"stream":true,"stream_options":{"include_usage":true}}"#;
    let answer = house.post("/v1/chat/completions", &[], body).await;
    let expected = format!("{}{}{}", opening(), piece("Hello"), crate::script::ending());
    assert_eq!(answer.text(), expected);
    assert_eq!(script.came()[0].text(), body);
}

#[tokio::test]
async fn r3_4_the_simulated_provider_answers_through_the_gateway() {
    let options = ProviderOptions { pace: Pace::new(0.0), ..ProviderOptions::new(Seed::new(1)) };
    let url = serve(throughline_demo::provider::router(options)).await;
    let house = House::open(&before(&format!("{url}/v1"))).await;
    let tools = json!([{"type": "function", "function": {"name": "weather", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}}}}]);
    let body = json!({"model": "gpt-4o", "tools": tools, "messages": [{"role": "user", "content": "weather in Oslo"}]});
    let asked = house.post("/v1/chat/completions", &[], &body.to_string()).await.json();
    assert_eq!(asked["choices"][0]["message"]["tool_calls"][0]["function"]["name"], "weather");
    let streamed = house.ask_stream("gpt-4o-mini").await;
    assert!(streamed.text().ends_with("data: [DONE]\n\n"));
    let embedded = house
        .post("/v1/embeddings", &[], r#"{"model":"text-embedding-3-small","input":"hi"}"#)
        .await;
    assert_eq!(embedded.json()["object"], "list");
    let models = house.get("/v1/models", &[]).await.json();
    assert!(models["data"].as_array().expect("a list").iter().any(|model| model["id"] == "gpt-4o"));
    assert_eq!(house.get("/v1/models/gpt-4o", &[]).await.json()["id"], "gpt-4o");
    assert_eq!(house.get("/v1/models/none", &[]).await.status, 404);
    let metrics = house.metrics();
    assert!(
        metrics.contains(r#"throughline_gateway_calls_total{target="one/gpt-4o",outcome="ok"} 1"#),
        "{metrics}"
    );
    insta::assert_snapshot!(house.tree().await, @r"
    chat gpt-4o phase=plan outcome=ok retry_count=0 status_code=200 output_tokens=16
      * route: one
    chat gpt-4o-mini outcome=ok retry_count=0 status_code=200 output_tokens=34
      * route: one
      http.stream.init end=first_token chunks=2
      http.stream.segment end=done chunks=35
    embeddings text-embedding-3-small outcome=ok retry_count=0 status_code=200
      * route: one
    ");
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_a_call_that_says_so() {
    let go = std::sync::Arc::new(tokio::sync::Notify::new());
    let script = Script::start([vec![
        crate::script::Do::Send(format!("{}{}", crate::script::STREAM, piece("Hel"))),
        crate::script::Do::Wait(go),
    ]])
    .await;
    let house = House::open(&before(&script.url)).await;
    let response =
        house.send(house.request("/v1/chat/completions", &[], &question("gpt-4o", true))).await;
    assert_eq!(response.status(), 200);
    drop(response);
    // The server notices when the connection is gone.
    while !house.metrics().contains(r#"outcome="cancelled"} 1"#) {
        tokio::task::yield_now().await;
    }
    insta::assert_snapshot!(house.tree().await, @r"
    chat gpt-4o outcome=cancelled retry_count=0 status_code=200 output_tokens=1
      * route: one
      http.stream.init end=first_token chunks=1
    ");
}
