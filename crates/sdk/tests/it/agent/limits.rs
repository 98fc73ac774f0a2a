//! What a run may spend (R1.1): each limit has an error, an outcome and a decision.

use std::sync::atomic::{AtomicUsize, Ordering};

use throughline::{Budget, BudgetLimit, Steer, Steered};

use super::*;

fn call(id: &str) -> Result<ChatResponse, ChatError> {
    wants("again", &[(id, "stock_v1", r#"{"item":7}"#)])
}

async fn spent(
    budget: Budget,
    script: Vec<Result<ChatResponse, ChatError>>,
) -> (AgentError, String) {
    let (stage, builder) = stage(script);
    let error = stage.run(builder.budget(budget), "Loop").await.expect_err("no answer");
    let last = stage.decisions().trim_end().lines().last().expect("a decision").to_owned();
    let root = stage.recorder.tree(&["outcome", "error.type"]);
    (error, format!("{last}\n{}", root.lines().next().expect("the run")))
}

#[tokio::test]
async fn each_limit_has_an_error_an_outcome_and_a_decision() {
    let (error, told) = spent(Budget::none().tool_calls(1), vec![call("a"), call("b")]).await;
    assert!(matches!(error, AgentError::Budget { limit: BudgetLimit::ToolCalls, .. }), "{error}");
    insta::assert_snapshot!(told, @r#"
    agent.decision "stop" stage=budget decision.reason=expected shop to need at most 1 of its tool calls, got 2; allow more or give the agent less to do seq=5
    invoke_agent shop outcome=policy_rejected error.type=POLICY_REJECTED ERROR(expected shop to need at most 1 of its tool calls, got 2; allow more or give the agent less to do)
    "#);
    let (error, told) =
        spent(Budget::none().tokens(20), vec![call("a"), call("b"), call("c")]).await;
    assert!(matches!(error, AgentError::Budget { limit: BudgetLimit::Tokens, .. }), "{error}");
    insta::assert_snapshot!(told, @r#"
    agent.decision "stop" stage=budget decision.reason=expected shop to need at most 20 of its tokens, got 28; allow more or give the agent less to do seq=5
    invoke_agent shop outcome=policy_rejected error.type=POLICY_REJECTED ERROR(expected shop to need at most 20 of its tokens, got 28; allow more or give the agent less to do)
    "#);
    let (error, told) = spent(Budget::none().cost_usd(0.000_06), vec![call("a"), call("b")]).await;
    assert!(matches!(error, AgentError::Budget { limit: BudgetLimit::Cost, .. }), "{error}");
    insta::assert_snapshot!(told, @r#"
    agent.decision "stop" stage=budget decision.reason=expected shop to need at most $0.000060 of its cost, got $0.000065; allow more or give the agent less to do seq=2
    invoke_agent shop outcome=policy_rejected error.type=POLICY_REJECTED ERROR(expected shop to need at most $0.000060 of its cost, got $0.000065; allow more or give the agent less to do)
    "#);
    let (error, told) = spent(Budget::none().steps(4), vec![call("a"), call("b")]).await;
    assert!(matches!(error, AgentError::Budget { limit: BudgetLimit::Steps, .. }), "{error}");
    insta::assert_snapshot!(told, @r#"
    agent.decision "stop" stage=budget decision.reason=expected shop to need at most 4 of its steps, got 4; allow more or give the agent less to do seq=4
    invoke_agent shop outcome=policy_rejected error.type=POLICY_REJECTED ERROR(expected shop to need at most 4 of its steps, got 4; allow more or give the agent less to do)
    "#);
    let (error, told) = spent(Budget::none().time(Duration::from_millis(20)), vec![]).await;
    assert!(matches!(error, AgentError::Budget { limit: BudgetLimit::Time, .. }), "{error}");
    assert_eq!(error.outcome(), Outcome::Timeout);
    insta::assert_snapshot!(told, @r#"
    agent.decision "stop" stage=budget decision.reason=expected shop to need at most 0.02 s of its time, got no answer; allow more or give the agent less to do seq=1
    invoke_agent shop outcome=timeout error.type=TIMEOUT ERROR(TIMEOUT)
    "#);
}

#[tokio::test]
async fn a_task_may_have_less_than_its_agent() {
    let (stage, builder) = stage([call("a")]);
    let task = Task::new("Loop").budget(Budget::none().tool_calls(0));
    let error = stage.run(builder.budget(Budget::none().tool_calls(9)), task).await;
    assert_eq!(
        error.expect_err("none is left").to_string(),
        "expected shop to need at most 0 of its tool calls, got 1; allow more or give the agent less to do"
    );
}

#[tokio::test]
async fn a_run_says_what_it_spent() {
    let (stage, builder) = stage([call("a"), says("There are 12.")]);
    let run = stage.run(builder, "Is item 7 there?").await.expect("an answer");
    assert_eq!((run.tool_calls, run.usage.total_tokens()), (1, 28));
    // Twice 10 tokens in at 2.5 and 4 out at 10 dollars per million.
    let cost = run.cost_usd.expect("a known price");
    assert!((cost - 130e-6).abs() < 1e-9, "{cost}");
}

#[tokio::test]
async fn tools_run_at_once_within_bounds_and_keep_their_order() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = {
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        tool("count_v1", "Counts", move |ask: Item| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // The first waits longest: order must not come from who is done first.
                tokio::time::sleep(Duration::from_millis(u64::from(10 - ask.item))).await;
                now.fetch_sub(1, Ordering::SeqCst);
                if ask.item == 2 { Err("no item 2") } else { Ok(ask.item) }
            }
        })
    };
    let calls: Vec<(String, String)> =
        (0..6).map(|at| (format!("c{at}"), format!("{{\"item\":{at}}}"))).collect();
    let calls: Vec<(&str, &str, &str)> =
        calls.iter().map(|(id, ask)| (id.as_str(), "count_v1", ask.as_str())).collect();
    let (stage, builder) = stage([wants("", &calls), says("Counted.")]);
    let tools = ToolRegistry::new().with(counted.expect("count")).expect("new");
    let agent = builder.tools(tools).parallel_tools(2).build().expect("an agent");
    let run = stage.telemetry.scope(agent.run("Count")).await.expect("an answer");
    assert_eq!(most.load(Ordering::SeqCst), 2);
    let told: Vec<String> = run
        .messages
        .iter()
        .flat_map(|message| &message.parts)
        .filter_map(|part| match part {
            Part::ToolResult(result) => Some(result.result.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(told.join(" "), r#"0 1 {"error":"no item 2"} 3 4 5"#);
}

#[tokio::test]
async fn wrong_arguments_are_told_to_the_model_which_may_mend_them() {
    let (stage, builder) = stage([
        wants("", &[("c1", "stock_v1", r#"{"item":"seven"}"#)]),
        wants("", &[("c2", "stock_v1", r#"{"item":7}"#)]),
        says("There are 12."),
    ]);
    let run = stage.run(builder, "Is item 7 there?").await.expect("an answer");
    assert_eq!((run.turns, run.outcome), (3, Outcome::Ok));
    let asked = stage.model.asked.lock().expect("asked");
    let told = format!("{:?}", asked[1].messages.last().expect("a result"));
    assert!(told.contains("expected arguments that fit the schema of stock_v1"), "{told}");
}

struct After(AtomicUsize, Steered);

impl Steer for After {
    fn between_steps(&self, agent: &str, session: Option<&str>) -> Option<Steered> {
        assert_eq!((agent, session), ("shop", Some("s-1")));
        (self.0.fetch_add(1, Ordering::SeqCst) >= 2).then(|| self.1.clone())
    }
}

#[tokio::test]
async fn a_run_can_be_stopped_and_handed_over_between_steps() {
    let reason = "the customer is upset".to_owned();
    let orders = [
        (Steered::Stop { reason: reason.clone() }, AgentError::Stopped { reason: reason.clone() }),
        (Steered::HandOver { reason: reason.clone() }, AgentError::HandedOver { reason }),
    ];
    for (order, expected) in orders {
        let (stage, builder) = stage([call("a"), call("b")]);
        let builder = builder.steer(After(AtomicUsize::new(0), order));
        let error =
            stage.run(builder, Task::new("Loop").session("s-1")).await.expect_err("stopped");
        assert_eq!((&error, error.outcome()), (&expected, Outcome::PolicyRejected));
        let last = stage.decisions();
        let last = last.trim_end().lines().last().expect("a decision");
        assert!(last.contains("stage=directive"), "{last}");
        assert!(last.contains("the customer is upset"), "{last}");
    }
}
