//! What runs under a directive: an agent that is stopped or handed over, a router, a model's retries.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::Deserialize;
use throughline::llm::ChatRequest;
use throughline::resilience::{Policy, RetryPolicy};
use throughline::{
    Agent, AgentError, ChatError, ChatModel as _, Directive, ErrorType, Fault as _, Json, Outcome,
    RouteTo, Router, Steering, Task, ToolRegistry, Traced, keys, tool,
};

use crate::agent::{Scripted, says, wants};
use crate::provider::{Cue, Puppet, quick, recorded};

/// A directive that holds for a minute.
fn told(id: &str, action: &str) -> Directive {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let now = u64::try_from(now.as_nanos()).expect("before 2500");
    let minute = u64::try_from(Duration::from_secs(60).as_nanos()).expect("short");
    let mut directive = Directive::new(id, now, now + minute, action.parse().expect("an action"));
    directive.reason = "the customer is upset".to_owned();
    directive
}

#[derive(Deserialize, JsonSchema)]
struct Item {
    item: u32,
}

/// The end of a run whose first tool call is when the server says `action`, with its root span.
async fn told_while_it_runs(action: &'static str) -> (AgentError, String) {
    let (recorder, telemetry) = recorded();
    let stock = tool("stock_v1", "How many there are", move |ask: Item| async move {
        let mut directive = told("d-1", action);
        directive.target.session_id = Some("s-1".to_owned());
        Steering::current().apply(directive).expect("it holds");
        Json(ask.item)
    });
    let tools = ToolRegistry::new().with(stock.expect("stock")).expect("new");
    let model =
        Scripted::new([wants("", &[("c1", "stock_v1", r#"{"item":7}"#)]), says("never said")]);
    let agent = Agent::builder("shop", Traced::new(model), "gpt-4o").tools(tools);
    let agent = agent.build().expect("an agent");
    let run = agent.run(Task::new("How many?").session("s-1"));
    let error = telemetry.scope(run).await.expect_err("the order holds");
    let tree = recorder.tree(&[keys::OUTCOME, keys::DIRECTIVE_ID]);
    let root = tree.lines().find(|line| line.starts_with("invoke_agent")).expect("the run");
    let decisions = recorder.log_text(&[keys::STAGE]);
    let last = decisions.trim_end().lines().last().expect("a decision").to_owned();
    (error, format!("{root}\n{last}"))
}

#[tokio::test]
async fn r5_6_a_stop_directive_ends_the_run_at_its_next_step() {
    let (error, shown) = told_while_it_runs("stop").await;
    let reason = "directive d-1: the customer is upset".to_owned();
    assert_eq!(error, AgentError::Stopped { reason });
    assert_eq!(error.outcome(), Outcome::PolicyRejected);
    insta::assert_snapshot!(shown, @r#"
    invoke_agent shop outcome=policy_rejected throughline.directive.id=d-1 ERROR(expected to be let go on, got the order to stop: directive d-1: the customer is upset)
    agent.decision "stop" stage=directive
    "#);
}

#[tokio::test]
async fn r5_6_a_hand_over_directive_ends_the_run_at_its_next_step() {
    let (error, shown) = told_while_it_runs("hand_over: tier2").await;
    let reason = "directive d-1: the customer is upset".to_owned();
    assert_eq!(error, AgentError::HandedOver { reason });
    insta::assert_snapshot!(shown, @r#"
    invoke_agent shop outcome=policy_rejected throughline.directive.id=d-1 ERROR(expected to be let go on, got the order to hand over to a human: directive d-1: the customer is upset)
    agent.decision "hand_over" stage=directive
    "#);
}

#[tokio::test]
async fn r5_2_a_router_follows_the_weights_that_it_is_told() {
    let (recorder, telemetry) = recorded();
    let model =
        |name| Traced::new(Puppet::new(vec![vec![Cue::Say(name), Cue::Last]; 9])).policy(quick());
    let router = Router::builder("chat")
        .target(RouteTo::new("large", model("large")).weight(1))
        .target(RouteTo::new("small", model("small")).weight(0))
        .build()
        .expect("a router");
    let work = async {
        let answer = async || {
            let answer = router.chat(ChatRequest::new("any").user("hi")).await;
            answer.expect("an answer").text()
        };
        assert_eq!(answer().await, "large");
        let steering = Steering::current();
        let weights = "route_weights: chat generation=7 small=1";
        steering.apply(told("d-1", weights)).expect("it holds");
        assert_eq!(answer().await, "small");
        let strange = "route_weights: chat generation=8 nobody=1";
        steering.apply(told("d-2", strange)).expect("it holds, for whom it may fit");
        assert_eq!(answer().await, "large", "weights that do not fit are not followed");
        steering.apply(told("d-3", "revoke: d-2")).expect("it holds");
        assert_eq!(answer().await, "small");
        steering.apply(told("d-4", "revoke: d-1")).expect("it holds");
        assert_eq!(answer().await, "large");
    };
    telemetry.scope(work).await;
    let decisions = recorder.log_text(&[keys::STAGE, keys::ROUTE_GENERATION]);
    let routes = decisions.lines().filter(|line| line.contains("stage=route"));
    let generations: Vec<bool> = routes.map(|line| line.ends_with("=7")).collect();
    assert_eq!(generations, [false, true, false, true, false], "{decisions}");
}

#[tokio::test]
async fn r5_10_a_retry_strategy_for_chat_and_one_for_a_model_hold_for_its_calls() {
    for operation in ["chat", "gpt-4o"] {
        let (_recorder, telemetry) = recorded();
        let busy = || vec![Cue::Fail(ChatError::new(ErrorType::Server, "busy"))];
        let script = vec![busy(), busy(), busy(), vec![Cue::Say("hello"), Cue::Last]];
        let retry = RetryPolicy { max_attempts: 1, base_delay_ms: 1, ..RetryPolicy::default() };
        let model = Traced::new(Puppet::new(script)).policy(Policy { retry, ..quick() });
        let ask = || model.chat(ChatRequest::new("gpt-4o").user("hi"));
        let work = async {
            assert!(ask().await.is_err(), "one attempt");
            let strategy = "retry_strategy: exponential_backoff(max_attempts=3, base_ms=1)";
            let others = told("d-1", &format!("{strategy} for embeddings"));
            Steering::current().apply(others).expect("it holds");
            let ours = told("d-2", &format!("{strategy} for {operation}"));
            Steering::current().apply(ours).expect("it holds");
            assert_eq!(ask().await.expect("the third succeeds").text(), "hello");
        };
        telemetry.scope(work).await;
    }
}
