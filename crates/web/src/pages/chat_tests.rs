//! Conversations of several providers as a reader sees them.

use serde_json::json;
use throughline_trace::Value;

use super::*;

fn chat(key: &str, value: Json) -> Chat {
    let mut attributes = Attributes::new();
    attributes.set(key, Value::from_json(value));
    Chat::from_attributes(&attributes)
}

/// The conversation as lines: what a reader sees, tags left out.
fn seen(chat: &Chat) -> String {
    let html = chat.draw().into_string().replace("</header>", "\n").replace("</article>", "\n\n");
    let mut text = String::new();
    for part in html.split('<') {
        text.push_str(part.split_once('>').map_or(part, |(_, shown)| shown));
    }
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_forms_of_three_providers_become_one_conversation() {
    let shown = seen(&chat(
        keys::GEN_AI_INPUT_MESSAGES,
        json!([
            { "role": "system", "content": "Be brief." },
            { "role": "user", "parts": [{ "type": "text", "content": "What is the time?" }] },
            { "role": "assistant", "content": null, "tool_calls": [
                { "id": "c1", "type": "function", "function": { "name": "clock", "arguments": "{\"zone\":\"UTC\"}" } }] },
            { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "c1", "content": "12:00" }] },
        ]),
    ));
    insta::assert_snapshot!(shown, @r"
    System
    Be brief.

    User
    What is the time?

    Assistant
    callsclockc1
    {
      &quot;zone&quot;: &quot;UTC&quot;
    }

    User
    resultc1
    12:00
    ");
}

#[test]
fn messages_may_travel_as_text() {
    let text = r#"[{"role":"user","parts":[{"type":"text","content":"hello"}]}]"#;
    let chat = chat(keys::GEN_AI_INPUT_MESSAGES, Json::from(text));
    assert_eq!(chat.len(), 1);
    assert!(seen(&chat).contains("hello"));
}

#[test]
fn hostile_messages_stay_text() {
    let evil = "</div><script>alert(1)</script>";
    let html = chat(
        keys::GEN_AI_OUTPUT_MESSAGES,
        json!([{ "role": evil, "name": evil, "finish_reason": evil, "parts": [
            { "type": "text", "content": evil },
            { "type": "tool_call", "id": evil, "name": evil, "arguments": { evil: evil } },
            { "type": "tool_call_response", "id": evil, "response": evil },
            { "type": "uri", "modality": evil, "mime_type": evil, "uri": "javascript:alert(1)" },
            { "type": evil, "x": evil },
        ] }]),
    )
    .draw()
    .into_string();
    assert!(!html.contains("<script"), "{html}");
    assert!(!html.contains("href"), "nothing that was sent becomes a link: {html}");
}

#[test]
fn long_texts_and_long_conversations_are_folded_and_complete() {
    let long = "word ".repeat(1_000);
    let html = prose(&long).into_string();
    assert!(html.contains("Show all 5,000 characters"));
    assert!(html.contains(long.as_str()), "the whole text is there");
    let many: Vec<Json> =
        (0..20).map(|n| json!({ "role": "user", "content": format!("turn {n}.") })).collect();
    let shown = seen(&chat(keys::GEN_AI_INPUT_MESSAGES, Json::Array(many)));
    assert!(shown.contains("Show 15 earlier messages"), "{shown}");
    for n in 0..20 {
        assert!(shown.contains(&format!("turn {n}.")), "turn {n} is there");
    }
}

#[test]
fn a_cut_within_a_character_is_none() {
    let text = "ü".repeat(PREVIEW_CHARS + 10);
    assert_eq!(preview(&text).chars().count(), PREVIEW_CHARS);
}

/// A record of the span with this body.
fn event(at: u64, name: &str, body: Json) -> LogRecord {
    LogRecord {
        time_unix_nano: at,
        observed_unix_nano: at,
        trace_id: None,
        span_id: None,
        severity: throughline_trace::Severity::INFO,
        severity_text: String::new(),
        event_name: name.to_owned(),
        body: Value::from_json(body),
        attributes: Attributes::new(),
        dropped_attributes_count: 0,
        resource: std::sync::Arc::default(),
        scope: std::sync::Arc::default(),
    }
}

#[test]
fn content_that_came_as_log_records_is_the_conversation() {
    let called = json!([{ "id": "c1", "type": "function",
                          "function": { "name": "clock", "arguments": "{}" } }]);
    let records = [
        event(
            4,
            "gen_ai.choice",
            json!({ "index": 0, "finish_reason": "stop",
            "message": { "role": "assistant", "content": "It is noon." } }),
        ),
        event(1, "gen_ai.user.message", json!({ "content": "What is the time?" })),
        event(2, "gen_ai.assistant.message", json!({ "tool_calls": called })),
        event(3, "gen_ai.tool.message", json!({ "content": "12:00", "id": "c1" })),
        event(3, "something.else", json!({ "content": "not said" })),
    ];
    let logs: Vec<&LogRecord> = records.iter().collect();
    let chat = Chat::from_logs(&logs);
    assert_eq!(chat.len(), 4);
    insta::assert_snapshot!(seen(&chat), @r"
    User
    What is the time?

    Assistant
    callsclockc1


    Tool
    resultc1
    12:00

    Assistantanswerstop
    It is noon.
    ");

    let mut all = event(1, keys::INFERENCE_DETAILS_EVENT, Json::Null);
    all.attributes.set(keys::GEN_AI_INPUT_MESSAGES, r#"[{"role":"user","content":"hi"}]"#);
    assert_eq!(Chat::from_logs(&[&all]).len(), 1);
}

fn call(number: u64) -> Span {
    let id = throughline_trace::TraceId::from_u128(1);
    let mut span = Span::new(id, SpanId::from_u64(number), None, "chat gpt-4o");
    (span.start_unix_nano, span.end_unix_nano) = (number, number + 1);
    span.attributes.set(keys::GEN_AI_OPERATION_NAME, "chat");
    span
}

#[test]
fn an_exchange_is_the_first_question_and_the_last_answer() {
    let told = |number: u64, said: &str, answered: &str| {
        let mut span = call(number);
        let input = json!([{ "role": "user", "content": said }]);
        let output = json!([{ "role": "assistant", "content": answered }]);
        span.attributes.set(keys::GEN_AI_INPUT_MESSAGES, Value::from_json(input));
        span.attributes.set(keys::GEN_AI_OUTPUT_MESSAGES, Value::from_json(output));
        span
    };
    let spans =
        [told(3, "third", "three"), told(1, "first", "one"), told(2, "second", "two"), call(4)];
    let html = exchange(&spans, &[]).into_string();
    let (asked, answered) = (html.find("first"), html.find("three"));
    assert!(asked.is_some() && asked < answered, "{html}");
    assert_eq!(html.matches("<article").count(), 2);
}

#[test]
fn an_exchange_is_read_from_log_records_where_spans_have_no_messages() {
    let mut records = [
        event(1, "gen_ai.user.message", json!({ "content": "What is the time?" })),
        event(2, "gen_ai.choice", json!({ "message": { "content": "It is noon." } })),
    ];
    for record in &mut records {
        record.span_id = Some(SpanId::from_u64(7));
    }
    let html = exchange(&[call(7)], &records).into_string();
    assert!(html.contains("What is the time?") && html.contains("It is noon."), "{html}");
    assert!(exchange(&[call(8)], &records).into_string().contains("No messages were recorded."));
}
