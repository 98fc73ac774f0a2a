//! Streams that bring more than text: long events, content of other kinds, and what a cache makes of
//! them (requirement R3.4).

use serde_json::{Value, json};

use crate::house::{House, before};
use crate::script::{Answer, Do, STREAM, Script, ending, opening, piece};

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

fn stream(events: &str) -> Answer {
    vec![Do::Send(format!("{STREAM}{events}")), Do::Cut]
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
