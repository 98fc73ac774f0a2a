//! The same model through OpenAI's responses and Anthropic's messages: what it says is what it says in
//! chat completions, and streams add up to whole answers.

use http::StatusCode;
use serde_json::{Value, json};

use crate::wire::{json_of, post, provider};

async fn ask(path: &str, body: &Value) -> (StatusCode, Value) {
    let response = post(&provider(), path, body.to_string()).await;
    (response.status(), json_of(response).await)
}

/// The events of a stream; each must be named what it says in `type`.
async fn events(path: &str, mut body: Value) -> Vec<Value> {
    use http_body_util::BodyExt as _;
    body["stream"] = json!(true);
    let response = post(&provider(), path, body.to_string()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let text = response.into_body().collect().await.expect("a whole body").to_bytes();
    let text = std::str::from_utf8(&text).expect("events are text");
    let blocks = text.split("\n\n").filter(|block| !block.is_empty());
    let read = |block: &str| {
        let (event, data) = block.split_once('\n').expect("two lines");
        let data: Value =
            serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
        assert_eq!(event.strip_prefix("event: "), data["type"].as_str());
        data
    };
    blocks.map(read).collect()
}

fn deltas<'a>(events: &'a [Value], kind: &str, path: &str) -> String {
    let told = events.iter().filter(|event| event["type"] == kind);
    told.filter_map(|event: &'a Value| event.pointer(path)?.as_str()).collect()
}

#[tokio::test]
async fn responses_have_the_shape_of_openai() {
    let asked = json!({"model": "o4-mini", "instructions": "Be brief.", "input": "Say hello in Danish.",
        "tools": [{"type": "function", "name": "translate", "parameters": {
            "type": "object", "properties": {"text": {"type": "string"}}}}]});
    let (status, answer) = ask("/v1/responses", &asked).await;
    assert_eq!((status, &answer["status"]), (StatusCode::OK, &json!("completed")));
    let kinds: Vec<&Value> =
        answer["output"].as_array().expect("items").iter().map(|item| &item["type"]).collect();
    assert_eq!(kinds, ["reasoning", "function_call"], "a model that thinks says that it did");
    let call = &answer["output"][1];
    assert_eq!(call["arguments"], r#"{"text":"Say hello in Danish."}"#);
    assert!(answer["usage"]["output_tokens_details"]["reasoning_tokens"].as_u64() > Some(0));

    let streamed = events("/v1/responses", asked.clone()).await;
    let last = streamed.last().expect("events");
    assert_eq!(last["type"], "response.completed");
    assert_eq!(last["response"]["output"], answer["output"]);
    let arguments = deltas(&streamed, "response.function_call_arguments.delta", "/delta");
    assert_eq!(call["arguments"], arguments);
    let numbers = streamed.iter().map(|event| event["sequence_number"].as_u64());
    assert!(numbers.eq((0..streamed.len() as u64).map(Some)));

    let mut found = asked;
    found["input"] = json!([
        {"role": "user", "content": [{"type": "input_text", "text": "Say hello in Danish."}]},
        answer["output"][0], call,
        {"type": "function_call_output", "call_id": call["call_id"], "output": "hej"},
    ]);
    let (_, told) = ask("/v1/responses", &found).await;
    let text = told["output"][1]["content"][0]["text"].as_str().expect("text");
    assert!(text.contains("Say hello in Danish.") && text.contains("hej"), "{text}");
    let streamed = events("/v1/responses", found).await;
    assert_eq!(deltas(&streamed, "response.output_text.delta", "/delta"), text);
}

#[tokio::test]
async fn messages_have_the_shape_of_anthropic() {
    let asked = json!({"model": "claude-sonnet-4-5", "max_tokens": 100, "system": "Be brief.",
        "messages": [{"role": "user", "content": "Say hello in Danish."}],
        "tools": [{"name": "translate", "input_schema": {
            "type": "object", "properties": {"text": {"type": "string"}}}}]});
    let (status, answer) = ask("/v1/messages", &asked).await;
    assert_eq!(
        (status, &answer["stop_reason"], &answer["model"]),
        (StatusCode::OK, &json!("tool_use"), &json!("claude-sonnet-4-5-20250929"))
    );
    let call = &answer["content"][0];
    assert_eq!(call["input"], json!({"text": "Say hello in Danish."}));
    let streamed = events("/v1/messages", asked.clone()).await;
    let input = deltas(&streamed, "content_block_delta", "/delta/partial_json");
    assert_eq!(serde_json::from_str::<Value>(&input).expect("JSON"), call["input"]);
    let end = &streamed[streamed.len() - 2];
    assert_eq!(
        (&end["delta"]["stop_reason"], &end["usage"]),
        (&json!("tool_use"), &answer["usage"])
    );

    let mut found = asked;
    found["messages"] = json!([
        {"role": "user", "content": "Say hello in Danish."},
        {"role": "assistant", "content": answer["content"]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": call["id"], "content": [{"type": "text", "text": "hej"}]}]},
    ]);
    let (_, told) = ask("/v1/messages", &found).await;
    let text = told["content"][0]["text"].as_str().expect("text");
    assert!(text.contains("Say hello in Danish.") && text.contains("hej"), "{text}");
    assert_eq!(told["stop_reason"], "end_turn");
    let streamed = events("/v1/messages", found).await;
    assert_eq!(deltas(&streamed, "content_block_delta", "/delta/text"), text);
    assert_eq!(streamed.last().expect("events")["type"], "message_stop");
}

#[tokio::test]
async fn each_form_is_told_errors_in_its_own_words() {
    let user = json!([{"role": "user", "content": "hi"}]);
    let of = |path: &str, model: &str| match path {
        "/v1/messages" => json!({"model": model, "max_tokens": 9, "messages": user}),
        _ => json!({"model": model, "input": "hi"}),
    };
    for (path, model, status, kind) in [
        ("/v1/messages", "claude-9", 404, "not_found_error"),
        ("/v1/messages", "sim-rate-limited", 429, "rate_limit_error"),
        ("/v1/messages", "sim-overloaded", 529, "overloaded_error"),
        ("/v1/responses", "gpt-9", 404, "invalid_request_error"),
        ("/v1/responses", "sim-overloaded", 503, "server_error"),
    ] {
        let (got, answer) = ask(path, &of(path, model)).await;
        assert_eq!(
            (got.as_u16(), &answer["error"]["type"]),
            (status, &json!(kind)),
            "{path} {model}"
        );
    }
    let (got, answer) =
        ask("/v1/messages", &json!({"model": "claude-haiku-4-5", "messages": user})).await;
    assert_eq!(
        (got.as_u16(), &answer["error"]["message"]),
        (400, &json!("max_tokens: Field required"))
    );
    let before = json!({"model": "gpt-4o", "input": "hi", "previous_response_id": "resp_1"});
    assert_eq!(ask("/v1/responses", &before).await.1["error"]["param"], "previous_response_id");
    let cut = events("/v1/messages", of("/v1/messages", "sim-cut-stream")).await;
    assert!(cut.iter().all(|event| event["type"] != "message_stop"));
}

/// What the real providers refuse is refused here, so that a gateway that sends it is found out.
#[tokio::test]
async fn fields_of_another_form_are_refused() {
    let user = json!([{"role": "user", "content": "hi"}]);
    let chat = json!({"model": "gpt-4o", "messages": user});
    let responses = json!({"model": "gpt-4o", "input": "hi"});
    let messages = json!({"model": "claude-haiku-4-5", "max_tokens": 9, "messages": user});
    let system = json!([{"role": "system", "content": "be brief"}]);
    for (path, base, field, value, expected) in [
        (
            "/v1/chat/completions",
            &chat,
            "top_k",
            json!(5),
            "Unrecognized request argument supplied: top_k",
        ),
        ("/v1/responses", &responses, "stop", json!("x"), "Unknown parameter: 'stop'."),
        ("/v1/messages", &messages, "n", json!(1), "n: Extra inputs are not permitted"),
        ("/v1/messages", &messages, "user", json!("u"), "user: Extra inputs are not permitted"),
        (
            "/v1/messages",
            &messages,
            "metadata",
            json!({"x": 1}),
            "metadata.x: Extra inputs are not permitted",
        ),
        ("/v1/messages", &messages, "temperature", json!(1.5), "temperature: range: 0..1"),
        (
            "/v1/messages",
            &messages,
            "tools",
            json!([{"name": "f", "input_schema": {}}]),
            "tools.0.custom.input_schema.type: Field required",
        ),
        (
            "/v1/messages",
            &messages,
            "thinking",
            json!({"type": "enabled", "budget_tokens": 9}),
            "`max_tokens` must be greater than `thinking.budget_tokens`",
        ),
        (
            "/v1/messages",
            &messages,
            "messages",
            system,
            "messages: Unexpected role \"system\". Allowed roles are \"user\" or \"assistant\".",
        ),
    ] {
        let mut body = base.clone();
        body[field] = value;
        let (status, answer) = ask(path, &body).await;
        let error = &answer["error"];
        assert_eq!((status.as_u16(), &error["message"]), (400, &json!(expected)), "{path} {field}");
        assert_eq!(error["type"], "invalid_request_error");
    }
}
