//! Which target a request goes to (requirement R3.3), and what changes while the gateway runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use throughline_gateway::{
    CacheConfig, GatewayConfig, Plan, ProviderKind, RouteConfig, TargetConfig,
};
use throughline_resilience::route::{RouteRule, RoutingStrategy};
use throughline_resilience::{BreakerPolicy, BudgetPolicy};
use throughline_trace::RouteWeights;

use crate::house::{House, before, provider, question, target, with_fallback};
use crate::script::{Do, Script, completion, error, says, streams};

fn named(name: &str, provider: &str, model: &str, weight: u32) -> TargetConfig {
    TargetConfig { name: Some(name.to_owned()), weight: Some(weight), ..target(provider, model) }
}

/// A gateway with the route `smart` over two models of one provider.
fn split(url: &str, names: [&str; 2], weights: [u32; 2]) -> GatewayConfig {
    let mut config = before(url);
    config.routes = vec![RouteConfig {
        model: "smart".to_owned(),
        targets: vec![
            named(names[0], "one", "gpt-4o", weights[0]),
            named(names[1], "one", "gpt-4o-mini", weights[1]),
        ],
        ..RouteConfig::default()
    }];
    config
}

fn models(script: &Script) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for came in script.came() {
        *counts.entry(came.json()["model"].as_str().expect("a model").to_owned()).or_insert(0) += 1;
    }
    counts
}

#[tokio::test]
async fn r3_3_weights_divide_the_traffic_and_can_change_while_it_runs() {
    let script = Script::start([says("hi")]).await;
    let house = House::open(&split(&script.url, ["big", "small"], [1, 1])).await;
    for _ in 0..60 {
        assert_eq!(house.ask("smart").await.status, 200);
    }
    let counts = models(&script);
    assert!(counts["gpt-4o"] > 10 && counts["gpt-4o-mini"] > 10, "{counts:?}");
    let changed = split(&script.url, ["big", "small"], [0, 1]);
    house.gateway.replace(Plan::of(&changed, &|_| None).expect("a plan")).expect("in place");
    let before = models(&script)["gpt-4o"];
    for _ in 0..10 {
        house.ask("smart").await;
    }
    assert_eq!(models(&script)["gpt-4o"], before, "nothing goes where no weight is");
}

#[tokio::test]
async fn weights_that_are_set_hold_over_the_configuration_also_a_changed_one() {
    let script = Script::start([says("hi")]).await;
    let config = split(&script.url, ["big", "small"], [1, 0]);
    let house = House::open(&config).await;
    let set = |targets: &[(&str, u32)]| {
        let targets = targets.iter().copied();
        let weights = RouteWeights::new("smart", 1, targets).expect("good weights");
        house.gateway.weigh(BTreeMap::from([("smart".to_owned(), weights)]));
    };
    let asked = async || {
        let before = script.came().len();
        for _ in 0..10 {
            assert_eq!(house.ask("smart").await.status, 200);
        }
        let came = script.came();
        let models = came[before..].iter().map(|one| one.json()["model"].to_string());
        models.collect::<BTreeSet<String>>().into_iter().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(asked().await, "\"gpt-4o\"");
    set(&[("big", 0), ("small", 100), ("elsewhere", 3)]);
    assert_eq!(asked().await, "\"gpt-4o-mini\"");
    let standing = house.gateway.standing();
    let route = &standing.routes[0];
    let weights: Vec<_> =
        route.targets.iter().map(|one| (one.configured_weight, one.weight)).collect();
    assert_eq!(weights, [(1, 0), (0, 100)]);
    house.gateway.replace(Plan::of(&config, &|_| None).expect("a plan")).expect("in place");
    assert_eq!(asked().await, "\"gpt-4o-mini\"", "a new configuration does not take them away");
    set(&[("elsewhere", 1)]);
    assert_eq!(asked().await, "\"gpt-4o-mini\"", "weights for nobody here change nothing");
    house.gateway.weigh(BTreeMap::new());
    assert_eq!(asked().await, "\"gpt-4o\"");
}

#[tokio::test]
async fn r3_3_a_session_stays_with_its_target_and_the_group_is_on_the_spans() {
    let script = Script::start([says("hi")]).await;
    let house = House::open(&split(&script.url, ["control", "treatment"], [1, 1])).await;
    for _ in 0..8 {
        house
            .post("/v1/chat/completions", &[("x-session-id", "s-1")], &question("smart", false))
            .await;
    }
    assert_eq!(models(&script).len(), 1);
    let baggage = [("baggage", "ab_test_group=treatment")];
    house.post("/v1/chat/completions", &baggage, &question("smart", false)).await;
    assert_eq!(script.came()[8].json()["model"], "gpt-4o-mini");
    let all = house.records().await;
    let last = all.spans.iter().rfind(|span| span.name == "chat gpt-4o-mini").expect("the call");
    let told = |key: &str| last.attributes.get(key).map(throughline_trace::Value::to_text);
    assert_eq!(told("ab_test_group").as_deref(), Some("treatment"));
    assert_eq!(told("routing_strategy").as_deref(), Some("weighted"));
    assert_eq!(told("routing_weight").as_deref(), Some("0.5"));
    assert_eq!(told("model_version").as_deref(), Some("gpt-4o-mini"));
    let decision = all.decisions.last().expect("a decision");
    assert_eq!(
        (decision.action.as_str(), decision.reason.as_str()),
        ("treatment", "the caller's group of the A/B test")
    );
    assert_eq!(decision.attributes.str("throughline.route"), Some("smart"));
}

#[tokio::test]
async fn r3_3_a_header_names_the_target() {
    let script = Script::start([says("hi")]).await;
    let mut config = split(&script.url, ["big", "small"], [1, 0]);
    config.routes[0].strategy = RoutingStrategy::HeaderBased;
    config.routes[0].rules = vec![RouteRule::exact("x-tier", "free", "small")];
    let house = House::open(&config).await;
    house.post("/v1/chat/completions", &[("x-tier", "free")], &question("smart", false)).await;
    house.post("/v1/chat/completions", &[], &question("smart", false)).await;
    let came: Vec<String> =
        script.came().iter().map(|one| one.json()["model"].to_string()).collect();
    assert_eq!(came, ["\"gpt-4o-mini\"", "\"gpt-4o\""]);
    insta::assert_snapshot!(house.tree().await, @r"
    chat gpt-4o-mini outcome=ok retry_count=0 status_code=200 routing_strategy=header_based output_tokens=5
      * route: small
    chat gpt-4o outcome=ok retry_count=0 status_code=200 routing_strategy=weighted output_tokens=5
      * route: big
    ");
}

#[tokio::test]
async fn r3_4_the_same_question_is_answered_from_the_cache_whole_or_streamed() {
    let script = Script::start([says("kept"), streams(&["not ", "kept"])]).await;
    let mut config = split(&script.url, ["big", "small"], [1, 0]);
    config.routes[0].cache = Some(CacheConfig { ttl_secs: 60 });
    let house = House::open(&config).await;
    let first = house.ask("smart").await;
    assert_eq!(first.header("x-throughline-cache"), Some("miss"));
    let second = house.ask("smart").await;
    assert_eq!((second.text(), second.header("x-throughline-cache")), (first.text(), Some("hit")));
    let streamed = house.ask_stream("smart").await;
    assert_eq!(streamed.header("content-type"), Some("text/event-stream"));
    assert!(
        streamed.text().contains("\"content\":\"kept\"") && streamed.text().ends_with("[DONE]\n\n")
    );
    assert_eq!(script.came().len(), 1);
    let other = r#"{"model":"smart","messages":[{"role":"user","content":"else"}],"stream":true}"#;
    house.post("/v1/chat/completions", &[], other).await;
    assert_eq!(script.came().len(), 2);
    let whole = other.replace(",\"stream\":true", "");
    let replayed = house.post("/v1/chat/completions", &[], &whole).await;
    assert_eq!(replayed.json()["choices"][0]["message"]["content"], "not kept");
    insta::assert_snapshot!(house.tree().await, @r"
    chat gpt-4o outcome=ok retry_count=0 status_code=200 routing_strategy=weighted output_tokens=5
      * route: big
    chat smart outcome=ok routing_strategy=weighted is_cached=true
      * route: cache
    chat smart outcome=ok routing_strategy=weighted is_cached=true
      * route: cache
    chat gpt-4o outcome=ok retry_count=0 status_code=200 routing_strategy=weighted output_tokens=5
      * route: big
      http.stream.init end=first_token chunks=2 routing_strategy=weighted
      http.stream.segment end=done chunks=3 routing_strategy=weighted
    chat smart outcome=ok routing_strategy=weighted is_cached=true
      * route: cache
    ");
}

#[tokio::test]
async fn r3_3_an_answer_from_the_cache_counts_for_its_group_of_the_test() {
    let script = Script::start([says("kept")]).await;
    let mut config = split(&script.url, ["control", "treatment"], [0, 1]);
    config.routes[0].cache = Some(CacheConfig { ttl_secs: 60 });
    let house = House::open(&config).await;
    house.ask("smart").await;
    house.ask("smart").await;
    insta::assert_snapshot!(house.tree().await, @r"
    chat gpt-4o-mini outcome=ok retry_count=0 status_code=200 routing_strategy=weighted ab_test_group=treatment output_tokens=5
      * route: treatment
    chat smart outcome=ok routing_strategy=weighted ab_test_group=treatment is_cached=true
      * route: cache
    ");
}

#[tokio::test]
async fn a_model_that_no_route_names_goes_to_the_default_provider() {
    let (one, two) = (Script::start([says("one")]).await, Script::start([says("two")]).await);
    let mut config = before(&one.url);
    config.providers.push(provider("two", ProviderKind::OpenAiCompatible, &two.url));
    config.default_provider = Some("two".to_owned());
    let house = House::open(&config).await;
    house.ask("whatever").await;
    assert_eq!((one.came().len(), two.came().len()), (0, 1));
    assert_eq!(two.came()[0].json()["model"], "whatever");
    let nobody = House::open(&GatewayConfig::default()).await;
    let answered = nobody.ask("gpt-4o").await;
    assert_eq!(
        (answered.status.as_u16(), &answered.json()["error"]["code"]),
        (503, &"no_provider".into())
    );
}

#[tokio::test]
async fn azure_has_a_path_and_a_version_of_its_own() {
    let script = Script::start([says("hi")]).await;
    let mut config = before(&script.url);
    let url = script.url.trim_end_matches("/v1");
    config.providers = vec![provider("azure", ProviderKind::AzureOpenAi, url)];
    let house = House::open(&config).await;
    house.ask("my gpt").await;
    let line = script.came()[0].head.lines().next().unwrap_or_default().to_owned();
    assert_eq!(
        line,
        "POST /openai/deployments/my%20gpt/chat/completions?api-version=2024-10-21 HTTP/1.1"
    );
}

#[test]
fn a_configuration_that_cannot_be_meant_is_told() {
    let told = |edit: &dyn Fn(&mut GatewayConfig)| {
        let mut config = split("http://127.0.0.1:1/v1", ["big", "small"], [1, 1]);
        edit(&mut config);
        Plan::of(&config, &|_| None).expect_err("refused").to_string()
    };
    insta::assert_snapshot!(told(&|c| c.providers[0].base_url = Some("ftp://x".to_owned())), @"expected a `base_url` that begins with http:// or https:// in `gateway.providers[one]`, got ftp://x");
    insta::assert_snapshot!(told(&|c| c.providers[0].base_url = Some("http://me:secret@x".to_owned())), @"expected a `base_url` without user, password and query; keys come from `api_key_env` or `api_key_file` in `gateway.providers[one]`, got x");
    insta::assert_snapshot!(told(&|c| c.providers[0].api_key_env = Some("NO_SUCH".to_owned())), @"expected a key in the environment variable NO_SUCH in `gateway.providers[one].api_key_env`, got none");
    insta::assert_snapshot!(told(&|c| c.routes[0].targets[0].provider = "three".to_owned()), @r#"expected a provider (one) in `gateway.routes[smart].targets.provider`, got "three""#);
    insta::assert_snapshot!(told(&|c| c.routes[0].targets.clear()), @r#"expected 1 to 64 targets of route "smart", got 0 (`gateway.routes[smart]`)"#);
    insta::assert_snapshot!(told(&|c| c.routes[0].rules = vec![RouteRule::exact("a", "b", "huge")]), @"expected a target of this route in every rule in `gateway.routes[smart].rules`, got huge");
    insta::assert_snapshot!(told(&|c| c.policy.timeouts.total_ms = Some(0)), @"expected 1 to 86400000 milliseconds in `gateway.policy.timeouts.total_ms`, got 0");
    insta::assert_snapshot!(told(&|c| c.default_provider = Some("three".to_owned())), @r#"expected a provider (one) in `gateway.default_provider`, got "three""#);
}

#[tokio::test]
async fn r4_3_a_target_whose_probe_is_under_way_is_left_out_of_a_choice() {
    let one =
        Script::start([error("500 Internal Server Error", "", "oops"), vec![Do::Stall]]).await;
    let two = Script::start([says("two")]).await;
    let mut config = with_fallback(&one.url, &two.url);
    let other = config.routes[0].fallback.pop().expect("a fallback");
    config.routes[0].targets[0].weight = Some(1_000_000);
    config.routes[0].targets.push(other);
    config.policy.breaker = Some(BreakerPolicy {
        min_attempts: 1,
        open_ms: 1,
        half_open_probes: 1,
        ..BreakerPolicy::default()
    });
    let house = House::open(&config).await;
    assert_eq!(house.ask("smart").await.status, 502);
    tokio::time::sleep(Duration::from_millis(5)).await;
    let request = house.request("/v1/chat/completions", &[], &question("smart", false));
    let probe = house.send(request);
    let others = async {
        while one.came().len() < 2 {
            tokio::task::yield_now().await;
        }
        house.ask("smart").await.text()
    };
    let told = tokio::select! { told = others => told, _ = probe => panic!("it stalls") };
    assert_eq!((told, one.came().len()), (completion("two"), 2));
}

#[tokio::test]
async fn r4_3_routes_to_the_same_model_share_its_retry_budget_and_breaker() {
    let script = Script::start([error("500 Internal Server Error", "", "oops")]).await;
    let mut config = before(&script.url);
    let route = |model: &str, max_retries, window_ms| {
        let mut route = RouteConfig {
            model: model.to_owned(),
            targets: vec![target("one", "gpt-4o")],
            ..RouteConfig::default()
        };
        route.policy.budget =
            Some(BudgetPolicy { retries_per_operation: 0.0, retries_per_second: 0.0, max_retries });
        let breaker = BreakerPolicy { min_attempts: 12, window_ms, ..BreakerPolicy::default() };
        route.policy.breaker = Some(breaker);
        route
    };
    config.routes = vec![route("first", 2.0, 600_000), route("second", 3.0, 500_000)];
    let house = House::open(&config).await;
    for _ in 0..5 {
        house.ask("first").await;
        house.ask("second").await;
    }
    // Ten requests, of which the budget lets two be tried again, and the breaker opens at the twelfth.
    assert_eq!(script.came().len(), 12);
    assert_eq!(house.gateway.standing().targets[0].breaker, Some("open"));

    config.routes.remove(0);
    house.gateway.replace(Plan::of(&config, &|_| None).expect("a plan")).expect("in place");
    house.ask("second").await;
    assert_eq!(script.came().len(), 12, "another configuration does not close a breaker");
}
