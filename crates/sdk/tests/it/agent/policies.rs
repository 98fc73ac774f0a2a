//! Policies before and after each step (R1.1): allow, deny, ask a human.

use futures_util::future::BoxFuture;
use throughline::{
    Budget, BudgetLimit, Denial, HumanAnswer, HumanGate, HumanQuestion, Steer, Steered, StepAction,
    StepContext, StepPolicy, StepResult, Verdict,
};

use super::*;

/// What the policy of a test says to a step before it and after it.
type Says = fn(&StepAction<'_>, bool) -> Verdict;

struct Policy(Says, Denial);

impl StepPolicy for Policy {
    fn name(&self) -> &str {
        "house_rules"
    }

    fn before<'a>(&'a self, step: &'a StepContext<'a>) -> BoxFuture<'a, Verdict> {
        Box::pin(async move { (self.0)(&step.action, false) })
    }

    fn after<'a>(
        &'a self,
        step: &'a StepContext<'a>,
        _: &'a StepResult<'a>,
    ) -> BoxFuture<'a, Verdict> {
        Box::pin(async move { (self.0)(&step.action, true) })
    }

    fn on_denial(&self, _: &StepContext<'_>) -> Denial {
        self.1
    }
}

fn no_stock(action: &StepAction<'_>, is_after: bool) -> Verdict {
    match action {
        StepAction::ToolCall(call) if call.name == "stock_v1" && !is_after => {
            Verdict::deny("stock is secret")
        }
        _ => Verdict::Allow,
    }
}

const CALLS: [(&str, &str, &str); 2] =
    [("c1", "stock_v1", r#"{"item":7}"#), ("c2", "price_v2", r#"{"item":7}"#)];

#[tokio::test]
async fn a_denied_tool_call_is_told_to_the_model_and_decided() {
    let (stage, builder) = stage([wants("", &CALLS), says("I must not say.")]);
    let builder = builder.policy(Policy(no_stock, Denial::TellModel));
    let run = stage.run(builder, "Is item 7 there?").await.expect("an answer");
    assert_eq!((run.outcome, run.decisions.len()), (Outcome::Ok, 7));
    insta::assert_snapshot!(stage.recorder.tree(&["outcome", "error.type"]), @r"
    invoke_agent shop outcome=ok
      shop.plan.stock
        chat gpt-4o outcome=ok
      shop.act.stock outcome=policy_rejected error.type=POLICY_REJECTED ERROR(the policy house_rules refused stock_v1: stock is secret)
      shop.act.price
        tool.registry.price_v2
        execute_tool price_v2 outcome=ok
      shop.observe.stock
      shop.observe.price
      shop.reflect.stock
      shop.plan.answer
        chat gpt-4o outcome=ok
      shop.reflect.answer
    ");
    let decisions = stage.recorder.log_text(&["stage", "decision.reason", "throughline.policy"]);
    insta::assert_snapshot!(decisions, @r#"
    agent.decision "stock_v1+price_v2" stage=plan decision.reason=the model asked for stock_v1+price_v2
    agent.decision "stock_v1" stage=act decision.reason=stock_v1: the model asked for it
    agent.decision "deny" stage=policy decision.reason=stock is secret throughline.policy=house_rules
    agent.decision "price_v2" stage=act decision.reason=price_v2: the model asked for it
    agent.decision "replan" stage=reflect decision.reason=1 of 2 tools failed
    agent.decision "answer" stage=plan decision.reason=I must not say.
    agent.decision "finish" stage=reflect decision.reason=the model answered
    "#);
    stage.telemetry.flush();
    let metrics = stage.recorder.metrics();
    let rejected = metrics.iter().find(|line| line.contains("outcome=policy_rejected"));
    assert!(rejected.expect("counted").contains("operation=execute_tool"), "{metrics:?}");
    let told = format!("{:?}", stage.model.asked.lock().expect("asked")[1].messages);
    assert!(told.contains("the policy house_rules refused stock_v1: stock is secret"), "{told}");
}

#[tokio::test]
async fn a_denial_may_end_the_run() {
    let (stage, builder) = stage([wants("", &CALLS)]);
    let builder = builder.policy(Policy(no_stock, Denial::EndRun));
    let error = stage.run(builder, "Is item 7 there?").await.expect_err("a denial");
    let (policy, reason) = ("house_rules".to_owned(), "stock is secret".to_owned());
    assert_eq!(error, AgentError::PolicyRejected { policy, reason });
    let tree = stage.recorder.tree(&["outcome"]);
    assert!(tree.starts_with("invoke_agent shop outcome=policy_rejected ERROR("), "{tree}");
    assert!(tree.contains("execute_tool price_v2"), "the other tool ran to its end:\n{tree}");
}

#[tokio::test]
async fn a_model_call_can_be_denied_before_and_its_answer_after() {
    let before: Says = |action, is_after| match action {
        StepAction::ModelCall(_) if !is_after => Verdict::deny("no models today"),
        _ => Verdict::Allow,
    };
    let (stage, builder) = self::stage([says("never asked")]);
    let builder = builder.policy(Policy(before, Denial::TellModel));
    let error = stage.run(builder, "Hello").await.expect_err("a denial");
    assert_eq!(error.outcome(), Outcome::PolicyRejected);
    assert!(stage.model.asked.lock().expect("asked").is_empty());

    let after: Says = |action, is_after| match action {
        StepAction::ModelCall(request) if is_after && request.messages.len() < 3 => {
            Verdict::deny("too rude")
        }
        _ => Verdict::Allow,
    };
    let (stage, builder) = self::stage([says("No!"), says("I am sorry, no.")]);
    let builder = builder.policy(Policy(after, Denial::TellModel));
    let run = stage.run(builder, "Hello").await.expect("a politer answer");
    assert_eq!((run.answer.as_str(), run.turns), ("I am sorry, no.", 2));
    insta::assert_snapshot!(stage.recorder.tree(&["error.type"]), @r"
    invoke_agent shop
      shop.plan.task error.type=POLICY_REJECTED ERROR(the policy house_rules refused the model's answer: too rude)
        chat gpt-4o
      shop.plan.answer
        chat gpt-4o
      shop.reflect.answer
    ");
}

#[tokio::test]
async fn an_answer_that_is_denied_is_given_another_try() {
    let secret: Says = |action, _| match action {
        StepAction::Answer(text) if text.contains("hunter2") => Verdict::deny("it has a password"),
        _ => Verdict::Allow,
    };
    let (stage, builder) = stage([says("It is hunter2."), says("I must not say.")]);
    let builder = builder.policy(Policy(secret, Denial::TellModel));
    let run = stage.run(builder, "What is the password?").await.expect("an answer");
    assert_eq!(run.answer, "I must not say.");
    assert!(!format!("{:?}", run.messages).contains("hunter2"));
    insta::assert_snapshot!(stage.recorder.tree(&["ai.reasoning_trace"]), @r"
    invoke_agent shop
      shop.plan.answer ai.reasoning_trace=It is hunter2.
        chat gpt-4o
      shop.reflect.answer ai.reasoning_trace=the policy house_rules refused the answer: it has a password
      shop.plan.answer ai.reasoning_trace=I must not say.
        chat gpt-4o
      shop.reflect.answer ai.reasoning_trace=the model answered
    ");
}

struct Gate(Option<HumanAnswer>);

impl HumanGate for Gate {
    fn ask<'a>(&'a self, question: &'a HumanQuestion) -> BoxFuture<'a, HumanAnswer> {
        assert_eq!(question.about, "stock_v1");
        assert_eq!(question.session.as_deref(), Some("s-1"));
        Box::pin(async move {
            match &self.0 {
                Some(answer) => answer.clone(),
                None => std::future::pending().await,
            }
        })
    }
}

#[tokio::test]
async fn a_human_may_be_asked_and_silence_is_a_no() {
    let asks: Says = |action, is_after| match action {
        StepAction::ToolCall(_) if !is_after => Verdict::ask_human("may I look?"),
        _ => Verdict::Allow,
    };
    let gates = [
        (Some(Gate(Some(HumanAnswer::approve().by("ada")))), "approve"),
        (Some(Gate(Some(HumanAnswer::reject("not today")))), "not today"),
        (Some(Gate(None)), "no human answered within 0.01 s"),
        (None, "there is no human to ask"),
    ];
    for (gate, said) in gates {
        let (stage, builder) = stage([wants("", &CALLS[..1]), says("So it is.")]);
        let mut builder = builder
            .policy(Policy(asks, Denial::TellModel))
            .human_timeout(Duration::from_millis(10));
        if let Some(gate) = gate {
            builder = builder.human_gate(gate);
        }
        let task = Task::new("Is item 7 there?").session("s-1");
        stage.run(builder, task).await.expect("an answer");
        let text = stage.recorder.log_text(&["stage", "decision.reason", "throughline.decided_by"]);
        let human: Vec<&str> = text.lines().filter(|line| line.contains("stage=human")).collect();
        assert_eq!(human.len(), 1, "{text}");
        assert!(human[0].contains(said), "{}", human[0]);
        let is_run = stage.recorder.tree(&[]).contains("execute_tool stock_v1");
        assert_eq!(is_run, said == "approve");
        if is_run {
            assert!(human[0].contains("decided_by=ada"), "{}", human[0]);
            insta::assert_snapshot!(stage.recorder.tree(&["ai.phase"]), @r"
            invoke_agent shop
              shop.plan.stock ai.phase=plan
                chat gpt-4o
              shop.act.stock ai.phase=act
                shop.reflect.ask_human ai.phase=reflect
                tool.registry.stock_v1
                execute_tool stock_v1
              shop.observe.stock ai.phase=observe
              shop.reflect.stock ai.phase=reflect
              shop.plan.answer ai.phase=plan
                chat gpt-4o
              shop.reflect.answer ai.phase=reflect
            ");
        }
    }
}

/// Stops at the second question.
struct Second(std::sync::atomic::AtomicBool);

impl Steer for Second {
    fn between_steps(&self, _: &str, _: Option<&str>) -> Option<Steered> {
        let reason = "enough".to_owned();
        let is_second = self.0.swap(true, std::sync::atomic::Ordering::SeqCst);
        is_second.then_some(Steered::Stop { reason })
    }
}

/// A model whose answers are refused one after the other is paid for each of them.
#[tokio::test]
async fn answers_that_are_refused_are_within_the_budget_and_can_be_stopped() {
    let never: Says = |action, is_after| match action {
        StepAction::ModelCall(_) if is_after => Verdict::deny("too rude"),
        _ => Verdict::Allow,
    };
    // One answer costs 65 millionths of a dollar.
    let (stage, builder) = stage((0..20).map(|_| says("No!")));
    let builder = builder.max_turns(20).budget(Budget::none().cost_usd(0.000_06));
    let run = stage.run(builder.policy(Policy(never, Denial::TellModel)), "Hello").await;
    let error = run.expect_err("no answer is allowed");
    assert!(matches!(error, AgentError::Budget { limit: BudgetLimit::Cost, .. }), "{error}");
    assert_eq!(stage.model.asked.lock().expect("asked").len(), 1);

    let (stage, builder) = self::stage((0..20).map(|_| says("No!")));
    let builder = builder.max_turns(20).steer(Second(false.into()));
    let run = stage.run(builder.policy(Policy(never, Denial::TellModel)), "Hello").await;
    assert_eq!(run.expect_err("an order"), AgentError::Stopped { reason: "enough".to_owned() });
    assert_eq!(stage.model.asked.lock().expect("asked").len(), 1);
}
