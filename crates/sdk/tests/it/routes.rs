//! Routing over several models and A/B tests (requirement R3.3).

use std::time::Duration;

use futures_util::StreamExt as _;
use http::HeaderMap;
use throughline::llm::ChatRequest;
use throughline::resilience::route::{RouteRule, RoutingStrategy};
use throughline::resilience::{BreakerPolicy, Policy, RetryPolicy};
use throughline::{
    AbGroup, ChatError, ChatModel, Dimensions, ErrorType, Experiment, RouteHints, RouteTo,
    RouteWeights, Router, RoutingTags, Traced, ab_test, keys, propagation, span,
};

use crate::provider::{Cue, Puppet, quick, recorded};

const SHOWN: [&str; 7] = [
    keys::MODEL_ID,
    keys::MODEL_VERSION,
    keys::ROUTING_STRATEGY,
    keys::ROUTING_WEIGHT,
    keys::AB_TEST_GROUP,
    keys::LATENCY_BUDGET_MS,
    keys::ERROR_TYPE,
];

fn request() -> ChatRequest {
    ChatRequest::new("any").user("hi")
}

/// A model that says its name, as often as it is asked.
fn model(name: &'static str) -> Traced {
    Traced::new(Puppet::new(vec![vec![Cue::Say(name), Cue::Last]; 400])).policy(quick())
}

async fn answer(router: &Router) -> String {
    match router.chat(request()).await {
        Ok(answer) => answer.text(),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn r3_3_a_routed_call_bears_what_was_decided_on_every_span_below() {
    let (recorder, telemetry) = recorded();
    let router = Router::builder("chat")
        .target(RouteTo::new("large", model("large")).weight(3).version("2024-08"))
        .target(RouteTo::new("small", model("small")).weight(1))
        .latency_budget(Duration::from_secs(9))
        .build()
        .expect("a router");
    let agent = Dimensions::new().session("s-1");
    let work = async {
        let outer = span("agent").start();
        assert_eq!(outer.instrument(answer(&router)).await, "large");
    };
    telemetry.scope(async { agent.scope(work).await }).await;
    insta::assert_snapshot!(recorder.tree(&SHOWN), @r"
    agent
      chat large model_id=large model_version=2024-08 routing_strategy=weighted routing_weight=0.75 latency_budget_ms=9000
    ");
    insta::assert_snapshot!(recorder.log_text(&[keys::STAGE, keys::DECISION_REASON, keys::ROUTE, keys::ROUTING_WEIGHT]), @r#"agent.decision "large" stage=route decision.reason=the session belongs there throughline.route=chat routing_weight=0.75"#);
}

#[tokio::test]
async fn r3_3_a_streamed_call_bears_it_too() {
    let (recorder, telemetry) = recorded();
    let router =
        Router::builder("chat").target(RouteTo::new("large", model("large"))).build().expect("one");
    let work = async {
        let mut stream = router.stream(request()).await.expect("a stream");
        while stream.next().await.is_some() {}
    };
    telemetry.scope(work).await;
    insta::assert_snapshot!(recorder.tree(&SHOWN[..3]), @r"
    chat large model_id=large model_version=large routing_strategy=weighted
      http.stream.init model_id=large model_version=large routing_strategy=weighted
      http.stream.segment model_id=large model_version=large routing_strategy=weighted
    ");
}

#[tokio::test]
async fn r3_3_a_session_stays_and_weights_change_while_it_runs() {
    let (_recorder, telemetry) = recorded();
    let router = Router::builder("chat")
        .target(RouteTo::new("a", model("a")).weight(9))
        .target(RouteTo::new("b", model("b")).weight(1))
        .build()
        .expect("a router");
    let of =
        async |session: String| Dimensions::new().session(session).scope(answer(&router)).await;
    telemetry
        .scope(async {
            let mut before = Vec::new();
            for at in 0..40 {
                before.push(of(format!("s-{at}")).await);
                assert_eq!(of(format!("s-{at}")).await, before[at]);
            }
            let more = RouteWeights::new("chat", 1, [("a", 5), ("b", 5)]).expect("weights");
            router.set_weights(more).expect("newer");
            for (at, was) in before.iter().enumerate() {
                let is = of(format!("s-{at}")).await;
                assert!(is == *was || is == "b", "nobody leaves the target that grew");
            }
            router
                .set_weights(RouteWeights::new("chat", 2, [("b", 1)]).expect("weights"))
                .expect("newer");
            assert_eq!(of("s-1".to_owned()).await, "b");
        })
        .await;
    let refused =
        |weights: RouteWeights| router.set_weights(weights).expect_err("refused").to_string();
    let weights = |route: &str, generation, name: &str| {
        RouteWeights::new(route, generation, [(name.to_owned(), 1)]).expect("weights")
    };
    insta::assert_snapshot!(refused(weights("chat", 2, "a")), @r#"expected weights of route "chat" newer than generation 2, got 2"#);
    insta::assert_snapshot!(refused(weights("tools", 3, "a")), @r#"expected weights of route "chat", got those of "tools""#);
    insta::assert_snapshot!(refused(weights("chat", 3, "c")), @r#"expected a target of route "chat", got "c", which it does not have"#);
    assert_eq!(router.weights().generation, 2);
}

#[tokio::test]
async fn r3_3_header_based_rules_read_headers_and_baggage() {
    let (recorder, telemetry) = recorded();
    let router = Router::builder("chat")
        .target(RouteTo::new("large", model("large")).weight(1))
        .target(RouteTo::new("small", model("small")).weight(0))
        .rule(RouteRule::exact("X-Tier", "free", "small"))
        .build()
        .expect("a router");
    let mut headers = HeaderMap::new();
    headers.insert("x-tier", "free".parse().expect("a value"));
    headers.insert("authorization", "Bearer x".parse().expect("a value"));
    telemetry
        .scope(async {
            assert_eq!(answer(&router).await, "large");
            assert_eq!(RouteHints::from_headers(&headers).scope(answer(&router)).await, "small");
        })
        .await;
    insta::assert_snapshot!(recorder.tree(&SHOWN[..4]), @r"
    chat large model_id=large model_version=large routing_strategy=weighted routing_weight=1
    chat small model_id=small model_version=small routing_strategy=header_based routing_weight=0
    ");
}

#[tokio::test(start_paused = true)]
async fn r3_3_a_latency_budget_is_set_before_the_call_and_enforced() {
    let (recorder, telemetry) = recorded();
    let slow = vec![vec![Cue::Wait(Duration::from_secs(60)), Cue::Say("late")]; 3];
    let router = Router::builder("chat")
        .target(RouteTo::new("slow", Traced::new(Puppet::new(slow)).policy(quick())))
        .strategy(RoutingStrategy::LatencyBudget)
        .latency_budget(Duration::from_millis(200))
        .build()
        .expect("a router");
    let began = tokio::time::Instant::now();
    let told = telemetry.scope(answer(&router)).await;
    assert_eq!(told, "slow gave no answer within 200 ms (1 attempt)");
    assert!(began.elapsed() < Duration::from_millis(250), "{:?}", began.elapsed());
    insta::assert_snapshot!(recorder.tree(&[keys::LATENCY_BUDGET_MS, keys::ROUTING_STRATEGY, keys::ERROR_TYPE]), @r"
    chat slow latency_budget_ms=200 routing_strategy=latency_budget error.type=TIMEOUT ERROR(TIMEOUT)
      attempt slow latency_budget_ms=200 routing_strategy=latency_budget error.type=TIMEOUT ERROR(TIMEOUT)
    ");
    // The caller's own budget comes first.
    let patient = RoutingTags::new().latency_budget(Duration::from_secs(120));
    assert_eq!(telemetry.scope(patient.scope(answer(&router))).await, "late");
}

#[tokio::test(start_paused = true)]
async fn r3_3_a_model_that_knows_no_policy_is_given_up_at_its_budget_too() {
    let slow = vec![vec![Cue::Wait(Duration::from_secs(60)), Cue::Say("late")]];
    let router = Router::builder("chat")
        .target(RouteTo::new("bare", Puppet::new(slow)))
        .latency_budget(Duration::from_millis(200))
        .build()
        .expect("a router");
    assert_eq!(answer(&router).await, "bare gave no answer within its budget of 200 ms");
}

#[tokio::test]
async fn r3_3_cost_aware_takes_the_cheapest_and_leaves_out_an_open_breaker() {
    let (recorder, telemetry) = recorded();
    let breaker = BreakerPolicy { min_attempts: 1, ..BreakerPolicy::default() };
    let retry = RetryPolicy { max_attempts: 1, ..RetryPolicy::default() };
    let down = vec![vec![Cue::Fail(ChatError::new(ErrorType::Server, "down"))]];
    let cheap =
        Traced::new(Puppet::new(down)).policy(Policy { retry, breaker: Some(breaker), ..quick() });
    let router = Router::builder("chat")
        .target(RouteTo::new("gpt-4o", model("dear")))
        .target(RouteTo::new("gpt-4o-mini", cheap))
        .strategy(RoutingStrategy::CostAware)
        .build()
        .expect("a router");
    telemetry
        .scope(async {
            assert_eq!(answer(&router).await, "down");
            assert_eq!(answer(&router).await, "dear");
        })
        .await;
    insta::assert_snapshot!(recorder.tree(&[keys::ROUTING_STRATEGY]), @r"
    chat gpt-4o-mini routing_strategy=cost_aware ERROR(down)
      attempt gpt-4o-mini routing_strategy=cost_aware ERROR(down)
    chat gpt-4o routing_strategy=cost_aware
    ");
}

#[tokio::test]
async fn r3_3_an_ab_test_keeps_a_session_in_its_group_and_the_callers_group_wins() {
    let (recorder, telemetry) = recorded();
    let test = || ab_test("prompt-v2").control(model("old"));
    let all = test().treatment(model("new"), 1.0).build().expect("a test");
    let none = test().treatment(model("new"), 0.0).build().expect("a test");
    let half = test().treatment(model("new"), 0.5).build().expect("a test");
    telemetry
        .scope(async {
            assert_eq!(answer(&all).await, "new");
            assert_eq!(answer(&none).await, "old");
            for at in 0..20 {
                let session = Dimensions::new().session(format!("s-{at}"));
                let first = session.scope(answer(&half)).await;
                assert_eq!(session.scope(answer(&half)).await, first);
            }
            let treated = RoutingTags::new().group(AbGroup::Treatment);
            assert_eq!(treated.scope(answer(&none)).await, "new");
        })
        .await;
    let tree = recorder.tree(&SHOWN[2..5]);
    let lines: Vec<&str> = tree.lines().collect();
    insta::assert_snapshot!(format!("{}\n{}\n{}", lines[0], lines[1], lines[lines.len() - 1]), @r"
    chat any routing_strategy=weighted routing_weight=1 ab_test_group=treatment
    chat any routing_strategy=weighted routing_weight=1 ab_test_group=control
    chat any routing_strategy=weighted routing_weight=0 ab_test_group=treatment
    ");
    telemetry.flush();
    let labelled = |group: &str| {
        let label = format!("ab_test_group={group}");
        recorder
            .metrics()
            .iter()
            .any(|line| line.contains("agent_operations_total") && line.contains(&label))
    };
    assert!(labelled("control") && labelled("treatment"), "{:?}", recorder.metrics());
}

#[tokio::test]
async fn r3_3_what_was_decided_crosses_to_the_next_process() {
    let (recorder, telemetry) = recorded();
    let tags = RoutingTags::new()
        .group(AbGroup::Treatment)
        .model_version("prompt-v2")
        .strategy(RoutingStrategy::Weighted)
        .weight(0.1)
        .model_id("stays here");
    let mut headers = HeaderMap::new();
    {
        let _in = telemetry.enter();
        let _tags = tags.enter();
        propagation::inject(&mut headers);
    }
    // The next process: it has the headers and nothing else.
    let _in = telemetry.enter();
    let served = span("serve").parent(propagation::extract(&headers)).start();
    served.in_scope(|| {
        let tags = Experiment::new("prompt-v2", 0.0).assign();
        assert_eq!(tags.ab_test_group(), Some(AbGroup::Treatment));
        span("below").start().end();
    });
    drop(served);
    insta::assert_snapshot!(recorder.tree(&SHOWN), @r"
    serve model_version=prompt-v2 routing_strategy=weighted routing_weight=0.1 ab_test_group=treatment
      below model_version=prompt-v2 routing_strategy=weighted routing_weight=0.1 ab_test_group=treatment
    ");
    insta::assert_snapshot!(recorder.log_text(&[keys::STAGE, keys::DECISION_REASON]), @r#"agent.decision "treatment" stage=route decision.reason=the caller's group of the A/B test"#);
}

#[test]
fn r3_3_nonsense_in_the_baggage_is_left_out() {
    let mut headers = HeaderMap::new();
    let text = "ab_test_group=everyone,routing_weight=7,routing_strategy=psychic,model_version=v1";
    headers.insert("baggage", text.parse().expect("a value"));
    let (recorder, telemetry) = recorded();
    let _in = telemetry.enter();
    span("serve").parent(propagation::extract(&headers)).start().end();
    assert_eq!(recorder.tree(&SHOWN), "serve model_version=v1\n");
}

/// Who answers each of so many calls, one after the other.
async fn answers(router: &Router, calls: usize) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..calls {
        all.push(answer(router).await);
    }
    all
}

fn scripts(cues: &[Cue]) -> Puppet {
    Puppet::new(vec![cues.to_vec(); 400])
}

#[tokio::test(start_paused = true)]
async fn r3_3_a_target_that_misses_the_latency_budget_is_left_until_it_may_have_recovered() {
    let (_recorder, telemetry) = recorded();
    let late = vec![Cue::Wait(Duration::from_secs(60)), Cue::Say("late")];
    let recovered = vec![Cue::Say("cheap"), Cue::Last];
    let cheap = Puppet::new([vec![late], vec![recovered; 9]].concat());
    let router = Router::builder("chat")
        .target(RouteTo::new("gpt-4o", model("dear")))
        .target(RouteTo::new("gpt-4o-mini", Traced::new(cheap).policy(quick())))
        .strategy(RoutingStrategy::LatencyBudget)
        .latency_budget(Duration::from_secs(2))
        .build()
        .expect("a router");
    telemetry
        .scope(async {
            let told = answers(&router, 4).await;
            assert!(told[0].starts_with("gpt-4o-mini gave no answer within 2.0 s"), "{told:?}");
            assert_eq!(told[1..], ["dear", "dear", "dear"]);
            tokio::time::sleep(Duration::from_secs(30)).await;
            assert_eq!(answers(&router, 2).await, ["cheap", "cheap"]);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn r3_3_a_target_that_fails_at_once_is_not_the_fastest() {
    let (_recorder, telemetry) = recorded();
    let good = [Cue::Wait(Duration::from_millis(100)), Cue::Say("good"), Cue::Last];
    let router = Router::builder("chat")
        .target(RouteTo::new("good", scripts(&good)))
        .target(RouteTo::new("new", scripts(&[Cue::Fail(ChatError::new(ErrorType::Auth, "no"))])))
        .strategy(RoutingStrategy::LatencyAware)
        .build()
        .expect("a router");
    let told = telemetry.scope(answers(&router, 200)).await;
    let failed = told.iter().filter(|told| *told == "no").count();
    assert!((1..60).contains(&failed), "{failed} of 200 went to the target that fails");
}

#[tokio::test(start_paused = true)]
async fn r3_3_a_streamed_answer_takes_as_long_as_it_takes_to_its_end() {
    let (_recorder, telemetry) = recorded();
    let pause = |ms| Cue::Wait(Duration::from_millis(ms));
    let slow = [Cue::Say("slow"), pause(1_000), Cue::Last];
    let quick = [pause(50), Cue::Say("quick"), Cue::Last];
    let router = Router::builder("chat")
        .target(RouteTo::new("slow", scripts(&slow)))
        .target(RouteTo::new("quick", scripts(&quick)))
        .strategy(RoutingStrategy::LatencyAware)
        .build()
        .expect("a router");
    let quick = telemetry.scope(async {
        let mut quick = 0;
        for _ in 0..200 {
            let stream = router.stream(request()).await.expect("a stream");
            let text: Vec<String> =
                stream.map(|chunk| chunk.expect("a chunk").text().to_owned()).collect().await;
            quick += usize::from(text.concat() == "quick");
        }
        quick
    });
    let quick = quick.await;
    assert!(quick > 120, "{quick} of 200 went to the one whose answers end first");
}

#[tokio::test(start_paused = true)]
async fn r3_2_who_goes_on_with_a_chunk_has_left_the_budget_of_its_call() {
    let (recorder, telemetry) = recorded();
    let router = Router::builder("chat")
        .target(RouteTo::new("first", model("once")))
        .latency_budget(Duration::from_millis(200))
        .build()
        .expect("a router");
    let work = async {
        let mut stream = router.stream(request()).await.expect("a stream");
        stream.next().await.expect("a chunk").expect("in time");
        let position = stream.position().expect("a traced stream");
        drop(stream);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let later = model("later");
        let asked = throughline::in_context(position.context(), later.chat(request()));
        assert_eq!(asked.await.expect("its own time").text(), "later");
    };
    telemetry.scope(work).await;
    insta::assert_snapshot!(recorder.tree(&[keys::OUTCOME]), @r"
    chat first outcome=cancelled
      http.stream.init
      chat any outcome=ok
    ");
}
