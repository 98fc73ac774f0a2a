//! Clients of one form served by providers of another (requirement R3.4), and Anthropic's own.

use serde_json::{Value, json};
use throughline_gateway::{GatewayConfig, ProviderKind};

use crate::house::{House, before, provider, question};
use crate::script::{Answer, Do, STREAM, Script, error, says, streams, whole};

pub(crate) async fn anthropic(answer: Answer) -> (Script, House) {
    let script = Script::start([answer]).await;
    let config = GatewayConfig {
        providers: vec![provider("claude", ProviderKind::Anthropic, &script.url)],
        ..GatewayConfig::default()
    };
    let house = House::open(&config).await;
    (script, house)
}

pub(crate) fn message(content: &Value, reason: &str) -> Answer {
    let body = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5",
        "content": content, "stop_reason": reason, "stop_sequence": null,
        "usage": {"input_tokens": 12, "output_tokens": 6},
    });
    whole("200 OK", "", &body.to_string())
}

fn event(event: &Value) -> String {
    format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default())
}

fn message_stream() -> Answer {
    let usage = json!({"input_tokens": 12, "output_tokens": 1});
    let text: String = [
        json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant",
            "model": "claude-sonnet-4-5", "content": [], "stop_reason": null, "usage": usage}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 6}}),
        json!({"type": "message_stop"}),
    ]
    .iter()
    .map(event)
    .collect();
    vec![Do::Send(format!("{STREAM}{text}")), Do::Cut]
}

const TOOLS: &str = r#"{"model":"claude-sonnet-4-5","tools":[{"type":"function","function":{"name":"weather",
    "description":"d","parameters":{"type":"object","properties":{"city":{"type":"string"}}}}}],
    "messages":[{"role":"system","content":"be brief"},{"role":"user","content":"weather in Oslo"}]}"#;

#[tokio::test]
async fn r3_4_an_openai_client_calls_tools_of_an_anthropic_model() {
    let call = json!([{"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}}]);
    let (script, house) = anthropic(message(&call, "tool_use")).await;
    let answer = house.post("/v1/chat/completions", &[], TOOLS).await.json();
    let came = &script.came()[0];
    assert!(came.head.starts_with("POST /v1/messages "), "{}", came.head);
    assert_eq!(came.header("anthropic-version").as_deref(), Some("2023-06-01"));
    assert_eq!(came.json()["tools"][0]["name"], "weather");
    assert_eq!(came.json()["messages"][0]["role"], "user");
    let function = &answer["choices"][0]["message"]["tool_calls"][0]["function"];
    assert_eq!(
        (&function["name"], &function["arguments"]),
        (&"weather".into(), &r#"{"city":"Oslo"}"#.into())
    );
    assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(answer["usage"]["total_tokens"], 18);
    insta::assert_snapshot!(house.tree().await, @r"
    chat claude-sonnet-4-5 phase=plan outcome=ok retry_count=0 status_code=200 output_tokens=6
      * route: claude
    ");
}

#[tokio::test]
async fn r3_4_an_openai_client_streams_an_anthropic_model() {
    let (_script, house) = anthropic(message_stream()).await;
    let answer = house.ask_stream("claude-sonnet-4-5").await.text();
    let texts: Vec<Value> = answer
        .split("\n\n")
        .filter_map(|event| serde_json::from_str(event.strip_prefix("data: ")?).ok())
        .collect();
    let said: String =
        texts.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(said, "Hello");
    assert!(
        texts
            .iter()
            .all(|chunk| chunk["object"] == "chat.completion.chunk" && chunk["id"] == "msg_1")
    );
    assert!(answer.ends_with("data: [DONE]\n\n") && !answer.contains("usage"), "{answer}");
    insta::assert_snapshot!(house.tree().await, @r"
    chat claude-sonnet-4-5 outcome=ok retry_count=0 status_code=200 output_tokens=6
      * route: claude
      http.stream.init end=first_token chunks=2
      http.stream.segment end=done chunks=2
    ");
}

#[tokio::test]
async fn r3_4_an_anthropic_client_is_passed_through_to_the_byte() {
    let (script, house) = anthropic(message_stream()).await;
    let body = r#"{"model":"claude-sonnet-4-5","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
    let headers =
        [("x-api-key", "dummy"), ("anthropic-version", "2023-06-01"), ("anthropic-beta", "x")];
    let answer = house.post("/v1/messages", &headers, body).await;
    let Do::Send(sent) = &message_stream()[0] else { panic!("a stream") };
    assert_eq!(answer.text(), sent.trim_start_matches(STREAM));
    let came = &script.came()[0];
    assert_eq!((came.text().as_str(), came.header("anthropic-beta").as_deref()), (body, Some("x")));
    assert_eq!(came.header("x-api-key"), None);
    insta::assert_snapshot!(house.tree().await, @r"
    chat claude-sonnet-4-5 outcome=ok retry_count=0 status_code=200 output_tokens=6
      * route: claude
      http.stream.init end=first_token chunks=2
      http.stream.segment end=done chunks=2
    ");
}

#[tokio::test]
async fn r3_4_an_anthropic_client_is_served_by_an_openai_model_whole_and_streamed() {
    let script = Script::start([says("hello"), streams(&["Hel", "lo"])]).await;
    let house = House::open(&before(&script.url)).await;
    let body = r#"{"model":"gpt-4o","max_tokens":9,"system":"be brief","messages":[{"role":"user","content":"hi"}]}"#;
    let answer = house.post("/v1/messages", &[], body).await.json();
    assert_eq!(
        (&answer["type"], &answer["content"][0]["text"]),
        (&"message".into(), &"hello".into())
    );
    assert_eq!(answer["usage"]["output_tokens"], 5);
    assert_eq!(script.came()[0].json()["messages"][0]["role"], "system");
    let body = body.replace("\"max", "\"stream\":true,\"max");
    let streamed = house.post("/v1/messages", &[], &body).await.text();
    for name in ["message_start", "content_block_delta", "message_delta", "message_stop"] {
        assert!(streamed.contains(&format!("event: {name}\n")), "{name}: {streamed}");
    }
    assert!(streamed.contains("\"output_tokens\":5"), "{streamed}");
}

#[tokio::test]
async fn r3_4_a_translated_stream_that_breaks_ends_with_an_error_of_the_clients_form() {
    let Do::Send(whole) = &message_stream()[0] else { panic!("a stream") };
    let cut = whole.split("event: content_block_stop").next().expect("a beginning").to_owned();
    let (_script, house) = anthropic(vec![Do::Send(cut.clone()), Do::Cut]).await;
    let answer = house.ask_stream("claude-sonnet-4-5").await.text();
    assert!(
        answer.contains("\"code\":\"stream_failed\"") && !answer.contains("[DONE]"),
        "{answer}"
    );
    let (_script, house) = anthropic(vec![Do::Send(cut), Do::Cut]).await;
    let body =
        question("claude-sonnet-4-5", true).replace("\"stream\"", "\"max_tokens\":9,\"stream\"");
    let answer = house.post("/v1/messages", &[], &body).await.text();
    assert!(answer.contains("event: error\n") && !answer.contains("message_stop"), "{answer}");
}

#[tokio::test]
async fn responses_and_completions_pass_through() {
    let response = json!({"id": "resp_1", "object": "response", "status": "completed", "model": "gpt-4o",
        "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hi", "annotations": []}]}],
        "usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}});
    let completion = json!({"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "gpt-3.5-turbo-instruct",
        "choices": [{"text": "hi", "index": 0, "logprobs": null, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}});
    let streamed = format!(
        "{STREAM}data: {}\n\ndata: [DONE]\n\n",
        json!({"id": "cmpl-1", "choices": [{"text": "hi", "index": 0, "finish_reason": "stop"}]})
    );
    let script = Script::start([
        whole("200 OK", "", &response.to_string()),
        whole("200 OK", "", &completion.to_string()),
        vec![Do::Send(streamed), Do::Cut],
    ])
    .await;
    let house = House::open(&before(&script.url)).await;
    let answer = house.post("/v1/responses", &[], r#"{"model":"gpt-4o","input":"hi"}"#).await;
    assert_eq!(answer.text(), response.to_string());
    let answer = house
        .post("/v1/completions", &[], r#"{"model":"gpt-3.5-turbo-instruct","prompt":"say"}"#)
        .await;
    assert_eq!(answer.text(), completion.to_string());
    let answer = house
        .post(
            "/v1/completions",
            &[],
            r#"{"model":"gpt-3.5-turbo-instruct","prompt":"say","stream":true}"#,
        )
        .await;
    assert!(answer.text().ends_with("[DONE]\n\n"));
    insta::assert_snapshot!(house.tree().await, @r"
    chat gpt-4o outcome=ok retry_count=0 status_code=200 output_tokens=4
      * route: one
    text_completion gpt-3.5-turbo-instruct outcome=ok retry_count=0 status_code=200 output_tokens=2
      * route: one
    text_completion gpt-3.5-turbo-instruct outcome=ok retry_count=0 status_code=200 output_tokens=1
      * route: one
      http.stream.init end=first_token chunks=1
    ");
}

#[tokio::test]
async fn what_a_provider_has_not_is_told() {
    let (_script, house) = anthropic(message_stream()).await;
    let answer =
        house.post("/v1/embeddings", &[], r#"{"model":"claude-sonnet-4-5","input":"hi"}"#).await;
    assert_eq!(answer.status, 400);
    insta::assert_snapshot!(answer.json()["error"]["message"].as_str().unwrap_or_default(), @"the provider claude has nothing like /v1/embeddings");
}

#[tokio::test]
async fn an_anthropic_client_lists_models_in_its_own_form() {
    let list = json!({"data": [{"type": "model", "id": "claude-sonnet-4-5", "display_name": "Sonnet",
        "created_at": "2025-01-01T00:00:00Z"}], "has_more": false});
    let (_script, house) = anthropic(whole("200 OK", "", &list.to_string())).await;
    let listed = house.get("/v1/models", &[("anthropic-version", "2023-06-01")]).await.json();
    assert_eq!(
        (&listed["first_id"], &listed["has_more"]),
        (&"claude-sonnet-4-5".into(), &false.into())
    );
    assert_eq!(listed["data"][0]["display_name"], "Sonnet");
    let listed = house.get("/v1/models", &[]).await.json();
    assert_eq!(
        (&listed["object"], &listed["data"][0]["object"]),
        (&"list".into(), &"model".into())
    );
}

const ITEMS: &str = r#"{"model":"claude-sonnet-4-5","instructions":"be brief","max_output_tokens":99,
    "tools":[{"type":"function","name":"weather","parameters":{"type":"object","properties":{"city":{"type":"string"}}}}],
    "input":[{"role":"user","content":[{"type":"input_text","text":"weather in Oslo"}]},
    {"type":"function_call","call_id":"toolu_0","name":"weather","arguments":"{\"city\":\"Oslo\"}"},
    {"type":"function_call_output","call_id":"toolu_0","output":"rain"}]}"#;

#[tokio::test]
async fn r3_4_a_client_of_responses_is_served_by_an_anthropic_model() {
    let said = json!([
        {"type": "text", "text": "And in Bergen?"},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Bergen"}},
    ]);
    let (script, house) = anthropic(message(&said, "tool_use")).await;
    let answer = house.post("/v1/responses", &[], ITEMS).await.json();
    let came = &script.came()[0];
    assert!(came.head.starts_with("POST /v1/messages "), "{}", came.head);
    let came = came.json();
    insta::assert_snapshot!(came["messages"], @r#"[{"content":"weather in Oslo","role":"user"},{"content":[{"id":"toolu_0","input":{"city":"Oslo"},"name":"weather","type":"tool_use"}],"role":"assistant"},{"content":[{"content":"rain","tool_use_id":"toolu_0","type":"tool_result"}],"role":"user"}]"#);
    assert_eq!((&came["system"], &came["max_tokens"]), (&"be brief".into(), &99.into()));
    assert_eq!((&answer["object"], &answer["status"]), (&"response".into(), &"completed".into()));
    assert_eq!(answer["output"][0]["content"][0]["text"], "And in Bergen?");
    let call = &answer["output"][1];
    assert_eq!(
        (&call["type"], &call["call_id"], &call["arguments"]),
        (&"function_call".into(), &"toolu_1".into(), &r#"{"city":"Bergen"}"#.into())
    );
    assert_eq!(answer["usage"]["total_tokens"], 18);
    insta::assert_snapshot!(house.tree().await, @r"
    chat claude-sonnet-4-5 phase=observe outcome=ok retry_count=0 status_code=200 output_tokens=6
      * route: claude
    ");
}

#[tokio::test]
async fn r3_4_a_client_of_responses_streams_an_anthropic_model() {
    let streamed = ITEMS.replacen('{', r#"{"stream":true,"#, 1);
    let (_script, house) = anthropic(message_stream()).await;
    let answer = house.post("/v1/responses", &[], &streamed).await;
    let events: Vec<Value> = answer
        .text()
        .split("\n\n")
        .filter_map(|event| serde_json::from_str(event.split_once("data: ")?.1).ok())
        .collect();
    let kinds: Vec<&str> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    insta::assert_snapshot!(kinds.join("\n"), @r"
    response.created
    response.output_item.added
    response.content_part.added
    response.output_text.delta
    response.output_text.delta
    response.output_text.done
    response.content_part.done
    response.output_item.done
    response.completed
    ");
    let numbers = events.iter().map(|event| event["sequence_number"].as_u64());
    assert!(numbers.eq((0..events.len() as u64).map(Some)));
    let last = &events.last().expect("events")["response"];
    assert_eq!(last["output"][0]["content"][0]["text"], "Hello");
    assert_eq!(last["usage"]["output_tokens"], 6);
    insta::assert_snapshot!(house.tree().await, @r"
    chat claude-sonnet-4-5 phase=observe outcome=ok retry_count=0 status_code=200 output_tokens=6
      * route: claude
      http.stream.init end=first_token chunks=2
      http.stream.segment end=done chunks=2
    ");
}

#[tokio::test]
async fn r3_4_a_translated_stream_of_responses_that_breaks_is_never_completed() {
    let Do::Send(whole) = &message_stream()[0] else { panic!("a stream") };
    let cut = whole.split("event: content_block_stop").next().expect("a beginning").to_owned();
    let (_script, house) = anthropic(vec![Do::Send(cut), Do::Cut]).await;
    let streamed = ITEMS.replacen('{', r#"{"stream":true,"#, 1);
    let answer = house.post("/v1/responses", &[], &streamed).await.text();
    assert!(answer.contains("event: error\n"), "{answer}");
    assert!(!answer.contains("response.completed"), "{answer}");
}

/// Whether each request that came asked for the usage of its stream.
fn asked_for_usage(script: &Script) -> Vec<bool> {
    let asks = |one: &crate::script::Came| one.json()["stream_options"]["include_usage"] == true;
    script.came().iter().map(asks).collect()
}

#[tokio::test]
async fn r3_4_a_server_that_refuses_to_tell_usage_is_asked_without() {
    for status in ["400 Bad Request", "422 Unprocessable Entity"] {
        let refusal = error(status, "", "unknown_field_stream_options");
        let script = Script::start([refusal, streams(&["hi"])]).await;
        let house = House::open(&before(&script.url)).await;
        for _ in 0..2 {
            let answered = house.ask_stream("gpt-4o").await;
            assert!(answered.text().ends_with("data: [DONE]\n\n"), "{}", answered.text());
        }
        assert_eq!(asked_for_usage(&script), [true, false, false], "it is remembered");
        let tree = house.tree().await;
        assert!(tree.starts_with("chat gpt-4o outcome=ok retry_count=0"), "{tree}");
    }
    let script = Script::start([error("400 Bad Request", "", "too_long")]).await;
    let house = House::open(&before(&script.url)).await;
    assert_eq!(house.ask_stream("gpt-4o").await.status, 400);
    assert_eq!(asked_for_usage(&script), [true], "another refusal is the client's");

    let refusal = error("400 Bad Request", "", "unknown_field_stream_options");
    let script = Script::start([refusal.clone(), refusal, streams(&["hi"])]).await;
    let house = House::open(&before(&script.url)).await;
    assert_eq!(house.ask_stream("gpt-4o").await.status, 400);
    house.ask_stream("gpt-4o").await;
    assert_eq!(asked_for_usage(&script), [true, false, true], "what is refused was the client's");
}

#[tokio::test]
async fn r3_4_a_provider_need_not_be_asked_for_usage() {
    let script = Script::start([streams(&["hi"])]).await;
    let mut config = before(&script.url);
    config.providers[0].stream_usage = Some(false);
    let house = House::open(&config).await;
    house.ask_stream("gpt-4o").await;
    let body = r#"{"model":"gpt-4o","max_tokens":5,"stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
    house.post("/v1/messages", &[], body).await;
    assert_eq!(asked_for_usage(&script), [false, false]);
}
