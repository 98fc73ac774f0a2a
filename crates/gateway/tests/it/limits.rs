//! Rate limits of providers, learned from their answers: a target that is known to be used up is passed
//! over while another one can be asked.

use std::time::Duration;

use throughline_gateway::RouteConfig;

use crate::house::{House, before, target, with_fallback};
use crate::script::{Do, Script, completion, ending, error, piece, says, whole};

/// The last request of a route whose first target is used up is answered by its second, and the
/// first is not asked again.
async fn assert_passed_over(first: Vec<Do>, is_stream: bool) {
    let (one, two) = (Script::start([first]).await, Script::start([says("two")]).await);
    let house = House::open(&with_fallback(&one.url, &two.url)).await;
    match is_stream {
        true => house.ask_stream("smart").await,
        false => house.ask("smart").await,
    };
    let asked_before = two.came().len();
    let second = house.ask("smart").await;
    assert_eq!(second.text(), completion("two"));
    assert_eq!((one.came().len(), two.came().len()), (1, asked_before + 1));
    let metrics = house.metrics();
    assert!(metrics.contains(r#"passed_over_total{target="one/gpt-4o"} 1"#), "{metrics}");
    let records = house.records().await;
    let reason = &records.decisions.last().expect("a decision").reason;
    assert!(
        reason.starts_with("primary failed with RATE_LIMITED: gpt-4o at 127.0.0.1 was not asked: its rate limit is used up for another "),
        "{reason}"
    );
}

#[tokio::test]
async fn r3_4_a_target_without_requests_left_is_passed_over() {
    let headers = "x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 6m0s\r\n";
    assert_passed_over(whole("200 OK", headers, &completion("one")), false).await;
    let moment = "anthropic-ratelimit-tokens-remaining: 0\r\nanthropic-ratelimit-tokens-reset: 2199-01-01T00:00:00Z\r\n";
    assert_passed_over(whole("200 OK", moment, &completion("one")), false).await;
    let streamed = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{headers}connection: close\r\n\r\n{}{}",
        piece("one"),
        ending()
    );
    assert_passed_over(vec![Do::Send(streamed), Do::Cut], true).await;
}

#[tokio::test]
async fn r3_4_a_target_that_asked_for_a_pause_is_passed_over() {
    let limited = error("429 Too Many Requests", "retry-after: 120\r\n", "rate_limit_exceeded");
    assert_passed_over(limited, false).await;
}

#[tokio::test]
async fn r4_2_a_long_pause_is_not_waited_for_while_another_can_be_asked() {
    let limited = || error("429 Too Many Requests", "retry-after: 40\r\n", "rate_limit_exceeded");
    let (one, two) = (Script::start([limited()]).await, Script::start([says("two")]).await);
    let mut config = with_fallback(&one.url, &two.url);
    config.policy.retry = None;
    let house = House::open(&config).await;
    let answered = tokio::time::timeout(Duration::from_secs(20), house.ask("smart")).await;
    assert_eq!(answered.expect("at once").text(), completion("two"));
    assert_eq!((one.came().len(), two.came().len()), (1, 1));
}

#[tokio::test]
async fn r4_2_a_target_that_takes_all_its_time_leaves_as_much_for_another() {
    let (one, two) = (Script::start([vec![Do::Stall]]).await, Script::start([says("two")]).await);
    let mut config = with_fallback(&one.url, &two.url);
    config.policy.retry = None;
    config.policy.timeouts.attempt_ms = Some(1_000);
    config.policy.timeouts.total_ms = Some(2_500);
    let house = House::open(&config).await;
    assert_eq!(house.ask("smart").await.text(), completion("two"));
    assert_eq!((one.came().len(), two.came().len()), (1, 1));
}

#[tokio::test]
async fn a_target_with_requests_left_is_asked() {
    let headers = "x-ratelimit-remaining-requests: 1\r\nx-ratelimit-reset-requests: 6m0s\r\n";
    let one = Script::start([whole("200 OK", headers, &completion("one"))]).await;
    let two = Script::start([says("two")]).await;
    let house = House::open(&with_fallback(&one.url, &two.url)).await;
    house.ask("smart").await;
    house.ask("smart").await;
    assert_eq!((one.came().len(), two.came().len()), (2, 0));
}

#[tokio::test]
async fn who_has_nobody_else_to_ask_asks_nevertheless_and_a_choice_leaves_the_used_up_one_out() {
    let headers = "x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 6m0s\r\n";
    let script = Script::start([whole("200 OK", headers, &completion("one"))]).await;
    let house = House::open(&before(&script.url)).await;
    house.ask("gpt-4o").await;
    assert_eq!(house.ask("gpt-4o").await.status, 200, "what was told may have changed");
    assert_eq!(script.came().len(), 2);

    let mut config = before(&script.url);
    config.routes = vec![RouteConfig {
        model: "smart".to_owned(),
        targets: vec![target("one", "gpt-4o"), target("one", "gpt-4o-mini")],
        ..RouteConfig::default()
    }];
    // As good as always the first, were it not used up.
    config.routes[0].targets[0].weight = Some(1_000_000);
    let script = Script::start([whole("200 OK", headers, &completion("one"))]).await;
    config.providers[0].base_url = Some(script.url.clone());
    let house = House::open(&config).await;
    house.ask("smart").await;
    house.ask("smart").await;
    let models: Vec<String> =
        script.came().iter().map(|one| one.json()["model"].to_string()).collect();
    assert_eq!(models, ["\"gpt-4o\"", "\"gpt-4o-mini\""]);
}
