//! Streams that bring more than text: long events, content of other kinds, and what a cache makes of
//! them (requirement R3.4).

use serde_json::{Value, json};
use throughline_gateway::{CacheConfig, GatewayConfig, ProviderKind, RouteConfig};

use crate::house::{House, before, provider, target};
use crate::script::{Answer, Do, STREAM, Script, completion, ending, opening, piece, whole};

fn asked(model: &str, more: &Value) -> String {
    let mut body = json!({"model": model, "messages": [{"role": "user", "content": "hi"}]});
    for (key, value) in more.as_object().expect("fields") {
        body[key] = value.clone();
    }
    body.to_string()
}

fn with_usage() -> Value {
    json!({"stream": true, "stream_options": {"include_usage": true}})
}

/// A chunk of one choice.
fn chunk(choice: &Value) -> String {
    let chunk = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1,
        "model": "gpt-4o-2024-08-06", "system_fingerprint": "fp_1", "choices": [choice]});
    format!("data: {chunk}\n\n")
}

fn stream(events: &str) -> Answer {
    vec![Do::Send(format!("{STREAM}{events}")), Do::Cut]
}

/// The model `smart`, whose answers are kept.
fn kept(config: GatewayConfig) -> GatewayConfig {
    let route = RouteConfig {
        model: "smart".to_owned(),
        targets: vec![target(&config.providers[0].name.clone(), "gpt-4o")],
        cache: Some(CacheConfig { ttl_secs: 600 }),
        ..RouteConfig::default()
    };
    GatewayConfig { routes: vec![route], ..config }
}

/// An image comes in one event, in base64.
#[tokio::test]
async fn r3_4_an_event_of_megabytes_passes_to_the_byte() {
    let events = format!("{}{}{}", opening(), piece(&"x".repeat(6 << 20)), ending());
    let script = Script::start([stream(&events)]).await;
    let house = House::open(&before(&script.url)).await;
    let answer = house.post("/v1/chat/completions", &[], &asked("gpt-4o", &with_usage())).await;
    assert_eq!(answer.status, 200);
    assert!(answer.text() == events, "{} of {} bytes", answer.body.len(), events.len());
}

#[tokio::test]
async fn what_a_stream_may_bring_is_bounded() {
    let events = format!("{}{}{}", opening(), piece(&"x".repeat(2 << 20)), ending());
    let script = Script::start([stream(&events)]).await;
    let mut config = before(&script.url);
    config.limits.max_answer_bytes = Some(1 << 20);
    let house = House::open(&config).await;
    let answer = house.ask_stream("gpt-4o").await;
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("gateway.limits.max_answer_bytes"), "{}", answer.text());
}

/// Sound is content: it is handed on when it comes, and can then not be taken back.
#[tokio::test]
async fn r3_4_content_of_another_kind_is_handed_on_when_it_comes() {
    let sound = chunk(&json!({"index": 0, "delta": {"audio": {"id": "a", "data": "AAAA"}}}));
    let answer = stream(&format!("{}{sound}", opening()));
    let script = Script::start([answer]).await;
    let house = House::open(&before(&script.url)).await;
    let answer = house.ask_stream("gpt-4o").await;
    assert_eq!((answer.status.as_u16(), script.came().len()), (200, 1));
    assert!(answer.text().contains("AAAA") && answer.text().contains("stream_failed"));
}

/// What a cache gives again is all that came, or it is not kept.
#[tokio::test]
async fn r3_4_a_stream_that_cannot_be_told_again_is_not_kept() {
    let said = |choice: Value| format!("{}{}{}", opening(), chunk(&choice), ending());
    let plain = said(json!({"index": 0, "delta": {"content": "hello"}}));
    let logprobs = json!({"content": [{"token": "hello", "logprob": -0.1}]});
    let lost = said(json!({"index": 0, "delta": {"content": "hello"}, "logprobs": logprobs}));
    for (events, second) in [(&plain, "hit"), (&lost, "miss")] {
        let script = Script::start([stream(events)]).await;
        let house = House::open(&kept(before(&script.url))).await;
        let body = asked("smart", &with_usage());
        for expected in ["miss", second] {
            let answer = house.post("/v1/chat/completions", &[], &body).await;
            assert_eq!(answer.header("x-throughline-cache"), Some(expected));
            assert!(answer.text().contains("\"system_fingerprint\":\"fp_1\""), "{}", answer.text());
        }
    }
}

#[tokio::test]
async fn r3_4_a_kept_whole_answer_is_told_as_a_stream_with_all_that_it_says() {
    let mut body: Value = serde_json::from_str(&completion("hello")).expect("a completion");
    let message = json!({"role": "assistant", "content": "hello",
        "annotations": [{"type": "url_citation"}],
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]});
    body["choices"][0]["message"] = message.clone();
    body["choices"][0]["logprobs"] = json!({"content": [{"token": "hello"}]});
    let script = Script::start([whole("200 OK", "", &body.to_string())]).await;
    let house = House::open(&kept(before(&script.url))).await;
    house.post("/v1/chat/completions", &[], &asked("smart", &json!({}))).await;
    let again = house.post("/v1/chat/completions", &[], &asked("smart", &with_usage())).await;
    assert_eq!(again.header("x-throughline-cache"), Some("hit"));
    let text = again.text();
    let events: Vec<Value> = text
        .split("\n\n")
        .filter_map(|event| serde_json::from_str(event.strip_prefix("data: ")?).ok())
        .collect();
    let choice = &events[0]["choices"][0];
    assert_eq!(choice["logprobs"], body["choices"][0]["logprobs"]);
    assert_eq!(choice["delta"]["annotations"], message["annotations"]);
    assert_eq!(choice["delta"]["tool_calls"][0]["index"], 0);
    assert_eq!((&events[0]["strange"], &events[0]["usage"]), (&body["strange"], &Value::Null));
    assert_eq!((&events[1]["choices"], &events[1]["usage"]), (&json!([]), &body["usage"]));
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
}

/// Thoughts are signed one by one: two of them cannot be put into one.
#[tokio::test]
async fn r3_4_a_message_with_two_thoughts_is_not_kept_as_one() {
    let block = |index: u64, block: Value, delta: Value| {
        [
            json!({"type": "content_block_start", "index": index, "content_block": block}),
            json!({"type": "content_block_delta", "index": index, "delta": delta}),
            json!({"type": "content_block_stop", "index": index}),
        ]
    };
    let thought = |index: u64| {
        let signed = json!({"type": "thinking", "thinking": "", "signature": "c2ln"});
        block(index, signed, json!({"type": "thinking_delta", "thinking": "hm"}))
    };
    let text = block(
        9,
        json!({"type": "text", "text": ""}),
        json!({"type": "text_delta", "text": "hello"}),
    );
    for (thoughts, second) in [(1, "hit"), (2, "miss")] {
        let begin = json!({"type": "message_start", "message": {"id": "msg_1", "type": "message",
            "role": "assistant", "model": "claude-sonnet-4-5", "content": [],
            "usage": {"input_tokens": 1, "output_tokens": 1}}});
        let stop = json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null},
            "usage": {"output_tokens": 6}});
        let all = [begin].into_iter().chain((0..thoughts).flat_map(thought)).chain(text.clone());
        let all = all.chain([stop, json!({"type": "message_stop"})]);
        let events: String = all
            .map(|event| {
                format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default())
            })
            .collect();
        let script = Script::start([stream(&events)]).await;
        let house = House::open(&kept(GatewayConfig {
            providers: vec![provider("claude", ProviderKind::Anthropic, &script.url)],
            ..GatewayConfig::default()
        }))
        .await;
        let body = asked("smart", &json!({"stream": true, "max_tokens": 9}));
        for expected in ["miss", second] {
            let answer = house.post("/v1/messages", &[], &body).await;
            assert_eq!(answer.header("x-throughline-cache"), Some(expected), "{thoughts}");
        }
    }
}
