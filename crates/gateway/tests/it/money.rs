//! What keys may spend: every call counts, whatever is understood of its request and known of its model.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use throughline_gateway::{GatewayConfig, KeyConfig, PriceConfig};
use throughline_trace::keys;

use crate::doors::keyring;
use crate::house::{Answered, House, before, question};
use crate::script::{Answer, Script, completion, error, says, whole};

const PATH: &str = "/v1/chat/completions";
const TEAM: [(&str, &str); 1] = [("authorization", "Bearer tl_team")];

/// A gateway before a provider with this answer, whose key `team` may spend so much a day.
async fn open(answer: Answer, usd_per_day: f64, prices: &[(&str, f64)]) -> (Script, House) {
    let script = Script::start([answer]).await;
    let key = KeyConfig {
        name: "team".to_owned(),
        usd_per_day: Some(usd_per_day),
        ..KeyConfig::default()
    };
    let price = |usd| PriceConfig { input: usd, output: usd, ..PriceConfig::default() };
    let prices = prices.iter().map(|(model, usd)| ((*model).to_owned(), price(*usd)));
    let config = GatewayConfig { keys: vec![key], prices: prices.collect(), ..before(&script.url) };
    (script, House::with_keys(&config, keyring()).await)
}

async fn ask(house: &House, body: &str) -> Answered {
    house.post(PATH, &TEAM, body).await
}

/// A request with a field that is of another kind than it ever was.
fn not_understood() -> String {
    let mut body: Value = serde_json::from_str(&question("gpt-4o", false)).expect("JSON");
    body["temperature"] = json!("warm");
    body.to_string()
}

/// The same answer with another field in place of one.
fn answer_with(edit: impl FnOnce(&mut Value)) -> Answer {
    let mut body: Value = serde_json::from_str(&completion("hi")).expect("JSON");
    edit(&mut body);
    whole("200 OK", "", &body.to_string())
}

#[tokio::test]
async fn r3_1_a_request_that_is_not_understood_costs_what_its_provider_says() {
    let (_script, house) = open(says("hi"), 0.000_01, &[]).await;
    assert_eq!(ask(&house, &not_understood()).await.status, 200);
    let spent = house.gateway.spent();
    assert!(spent.iter().all(|one| one.usd > 0.0) && !spent.is_empty(), "{spent:?}");
    assert_eq!(house.gateway.standing().keys[0].tokens, 15);
    assert_eq!(ask(&house, &not_understood()).await.status, 402, "the budget is spent");
    let all = house.records().await;
    let call = all.spans.iter().find(|span| span.name == "chat gpt-4o").expect("the call");
    let tokens = call.attributes.get(keys::GEN_AI_USAGE_INPUT_TOKENS).and_then(|one| one.as_i64());
    assert_eq!(tokens, Some(10));
    assert!(call.attributes.get(keys::COST_USD).is_some());
    assert!(call.attributes.get(keys::USAGE_ESTIMATED).is_none());
}

#[tokio::test]
async fn r3_1_where_nobody_tells_tokens_the_bytes_are_counted() {
    let untold = answer_with(|body| body["usage"] = Value::Null);
    let (_script, house) = open(untold, 1.0, &[]).await;
    let body = not_understood();
    assert_eq!(ask(&house, &body).await.status, 200);
    let tokens = house.gateway.standing().keys[0].tokens;
    assert!(tokens >= body.len() as u64 / 4, "{tokens}");
    let all = house.records().await;
    let call = all.spans.iter().find(|span| span.name == "chat gpt-4o").expect("the call");
    assert!(call.attributes.get(keys::USAGE_ESTIMATED).is_some());
}

#[tokio::test]
async fn r3_4_a_key_with_a_budget_does_not_get_a_model_without_a_price() {
    let answer = || answer_with(|body| body["model"] = json!("homemade-7b-q4"));
    let (script, house) = open(answer(), 0.000_01, &[]).await;
    let refused = ask(&house, &question("homemade-7b", false)).await;
    let told = refused.json();
    assert_eq!(
        (refused.status.as_u16(), &told["error"]["code"]),
        (402, &"no_price".into()),
        "{told}"
    );
    assert!(told["error"]["message"].to_string().contains("`gateway.prices`"), "{told}");
    assert!(script.came().is_empty());
    let other = [("authorization", "Bearer tl_small")];
    let answered = house.post(PATH, &other, &question("homemade-7b", false)).await;
    assert_eq!(answered.status, 200, "a key without a budget may");
    assert!(house.tree().await.starts_with("chat homemade-7b outcome=policy_rejected"));

    let (_script, house) = open(answer(), 0.000_01, &[("homemade-*", 1.0)]).await;
    assert_eq!(ask(&house, &question("homemade-7b", false)).await.status, 200);
    let spent: BTreeMap<String, f64> =
        house.gateway.spent().into_iter().map(|one| (one.period, one.usd)).collect();
    assert!(spent.values().all(|usd| (usd - 15e-6).abs() < 1e-12), "{spent:?}");
    assert_eq!(ask(&house, &question("homemade-7b", false)).await.status, 402);
}

#[tokio::test]
async fn r3_4_a_tier_that_nobody_knows_is_not_free() {
    let tier = answer_with(|body| body["service_tier"] = json!("express"));
    let (_script, house) = open(tier, 0.000_01, &[]).await;
    assert_eq!(ask(&house, &question("gpt-4o", false)).await.status, 200);
    assert_eq!(ask(&house, &question("gpt-4o", false)).await.status, 402);
    let all = house.records().await;
    let call = all.spans.iter().find(|span| span.name == "chat gpt-4o").expect("the call");
    assert!(call.attributes.get(keys::COST_USD).is_some(), "the standard price");
}

#[tokio::test]
async fn what_failed_costs_nothing() {
    let (_script, house) = open(error("500 Internal Server Error", "", "oops"), 1.0, &[]).await;
    assert_eq!(ask(&house, &question("gpt-4o", false)).await.status, 502);
    assert!(house.gateway.spent().is_empty());
}
