//! What becomes of a request on its way into another form (requirement R3.4): fields that both forms
//! have are said in the other's words, the rest is left out and told, or refused.

use serde_json::{Value, json};
use throughline_demo::provider::ProviderOptions;
use throughline_demo::{Pace, Seed};
use throughline_gateway::{GatewayConfig, ProviderKind};

use crate::forms::{anthropic, message};
use crate::house::{House, before, provider, serve};
use crate::script::{Answer, Script, says};

fn hello() -> Answer {
    message(&json!([{"type": "text", "text": "hello"}]), "end_turn")
}

fn question(more: &Value) -> String {
    let mut body =
        json!({"model": "claude-sonnet-4-5", "messages": [{"role": "user", "content": "hi"}]});
    for (key, value) in more.as_object().expect("fields") {
        body[key] = value.clone();
    }
    body.to_string()
}

#[tokio::test]
async fn r3_4_anthropic_gets_no_field_that_it_does_not_know() {
    let (script, house) = anthropic(hello()).await;
    let body = question(&json!({
        "n": 1, "frequency_penalty": 0.2, "seed": 7, "user": "u-1", "stop": ["END"], "store": true,
        "max_completion_tokens": 50, "parallel_tool_calls": false, "logit_bias": {},
    }));
    let answer = house.post("/v1/chat/completions", &[], &body).await;
    assert_eq!(answer.status, 200);
    let came = script.came()[0].json();
    assert_eq!(
        came,
        json!({"model": "claude-sonnet-4-5", "max_tokens": 50, "stop_sequences": ["END"],
            "messages": [{"role": "user", "content": "hi"}], "metadata": {"user_id": "u-1"}})
    );
    let records = house.records().await;
    let told = records.spans[0].attributes.get("throughline.request.left_out");
    insta::assert_snapshot!(format!("{told:?}"), @r#"Some(Array([String("seed"), String("frequency_penalty"), String("store")]))"#);
}

#[tokio::test]
async fn r3_4_openai_gets_no_field_that_it_does_not_know() {
    let script = Script::start([says("hello")]).await;
    let house = House::open(&before(&script.url)).await;
    let body = question(&json!({"model": "gpt-4o", "max_tokens": 9, "top_k": 5,
        "metadata": {"user_id": "u-1"}, "thinking": {"type": "disabled"}}));
    assert_eq!(house.post("/v1/messages", &[], &body).await.status, 200);
    let came = script.came()[0].json();
    assert_eq!(
        came,
        json!({"model": "gpt-4o", "max_tokens": 9, "user": "u-1",
            "messages": [{"role": "user", "content": "hi"}]})
    );
}

/// Nobody is asked, and the client reads what to do.
#[tokio::test]
async fn r3_4_what_the_other_form_cannot_do_without_is_refused() {
    let (script, house) = anthropic(hello()).await;
    let answer =
        house.post("/v1/chat/completions", &[], &question(&json!({"n": 3, "stream": true}))).await;
    assert_eq!((answer.status.as_u16(), script.came().len()), (400, 0));
    let error = answer.json()["error"].clone();
    assert_eq!(error["type"], "invalid_request_error");
    insta::assert_snapshot!(error["message"].as_str().unwrap_or_default(), @"`n` cannot be passed on to a provider that speaks Anthropic's form: it gives one answer to a request; ask once for each, or a model of OpenAI's form");
    let body = r#"{"model":"claude-sonnet-4-5","input":"and?","previous_response_id":"resp_1"}"#;
    let answer = house.post("/v1/responses", &[], body).await;
    assert_eq!((answer.status.as_u16(), script.came().len()), (400, 0));
}

/// Anthropic does not say when it answered; OpenAI's clients read it, of whole and streamed answers.
#[tokio::test]
async fn r3_4_a_translated_answer_says_when_it_was_made() {
    let (_script, house) = anthropic(hello()).await;
    let now = || std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_secs();
    let before = now();
    let answer = house.post("/v1/chat/completions", &[], &question(&json!({}))).await.json();
    let items = r#"{"model":"claude-sonnet-4-5","input":"hi"}"#;
    let response = house.post("/v1/responses", &[], items).await.json();
    for made in [&answer["created"], &response["created_at"]] {
        let made = made.as_u64().expect("a number");
        assert!((before..=now()).contains(&made), "{made}");
    }
}

/// A picture that a tool shows is one that the model sees.
#[tokio::test]
async fn r3_4_what_a_tool_shows_is_seen_by_an_openai_model() {
    let script = Script::start([says("a cat")]).await;
    let house = House::open(&before(&script.url)).await;
    let image = json!({"type": "base64", "media_type": "image/png", "data": "AAAA"});
    let body = question(&json!({"model": "gpt-4o", "max_tokens": 9, "messages": [
        {"role": "user", "content": "look"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "look", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t",
            "content": [{"type": "image", "source": image}]}]}]}));
    assert_eq!(house.post("/v1/messages", &[], &body).await.status, 200);
    let came = script.came()[0].json();
    let shown = came["messages"][3]["content"][1]["image_url"]["url"].as_str();
    assert_eq!(shown, Some("data:image/png;base64,AAAA"));
    assert_eq!(came["messages"][2]["role"], "tool");
}

/// Every field of one form that the other can do without, before providers that refuse a field that they
/// do not know.
#[tokio::test]
async fn r3_4_strict_providers_take_what_is_translated() {
    let options = ProviderOptions { pace: Pace::new(0.0), ..ProviderOptions::new(Seed::new(42)) };
    let url = serve(throughline_demo::provider::router(options)).await;
    let tools = json!([{"type": "function", "function": {"name": "now"}}]);
    let of_openai = json!({
        "frequency_penalty": 0.1, "presence_penalty": 0.1, "logit_bias": {"1": 1}, "logprobs": false,
        "n": 1, "seed": 7, "store": true, "metadata": {"a": "b"}, "parallel_tool_calls": false,
        "prediction": {"type": "content", "content": "x"}, "service_tier": "auto", "verbosity": "low",
        "prompt_cache_key": "k", "safety_identifier": "s-1", "user": "u-1", "stop": "END", "tools": tools,
        "max_completion_tokens": 9000, "temperature": 1.5, "reasoning_effort": "low",
        "response_format": {"type": "json_object"},
    });
    let config = GatewayConfig {
        providers: vec![provider("claude", ProviderKind::Anthropic, &format!("{url}/v1"))],
        ..GatewayConfig::default()
    };
    let house = House::open(&config).await;
    let answer = house.post("/v1/chat/completions", &[], &question(&of_openai)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let of_anthropic = json!({
        "model": "gpt-4o", "max_tokens": 900, "top_k": 5, "metadata": {"user_id": "u-1"},
        "thinking": {"type": "enabled", "budget_tokens": 2048}, "stop_sequences": ["END"],
        "context_management": {"edits": []}, "service_tier": "auto", "system": "be brief",
        "tools": [{"name": "now", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": true},
    });
    let house = House::open(&before(&format!("{url}/v1"))).await;
    let answer = house.post("/v1/messages", &[], &question(&of_anthropic)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}
