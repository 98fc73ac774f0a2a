//! A run told while it happens, and taken back half-way.

use futures_util::StreamExt as _;
use throughline::{CancellationToken, Denial, RunEvent, StepContext, StepPolicy, Verdict};

use super::*;

fn line(event: &RunEvent) -> String {
    match event {
        RunEvent::StepStarted { phase, domain, index } => format!("step {index} {phase}.{domain}"),
        RunEvent::Text(delta) => format!("text {delta:?}"),
        RunEvent::ToolCall(call) => format!("call {}", call.name),
        RunEvent::ToolResult { call, result } => format!("result {} {result:?}", call.name),
        RunEvent::Handover { reason } => format!("handover {reason}"),
        RunEvent::Done(run) => format!("done {:?}", run.answer),
    }
}

#[tokio::test]
async fn a_stream_tells_the_answer_as_it_comes() {
    let (stage, builder) = stage([says("There are 12.")]);
    let agent = builder.build().expect("an agent");
    let events = stage.telemetry.scope(async { agent.stream("Is item 7 there?") }).await;
    let events: Vec<_> = events.map(|event| line(&event.expect("an event"))).collect().await;
    insta::assert_snapshot!(events.join("\n"), @r#"
    step 0 plan.task
    text "There "
    text "are "
    text "12."
    step 1 reflect.answer
    done "There are 12."
    "#);
    let tree = stage.recorder.tree(&["outcome"]);
    assert!(tree.starts_with("invoke_agent shop outcome=ok\n"), "{tree}");
}

#[tokio::test]
async fn a_stream_ends_with_the_error() {
    let (stage, builder) = stage([Err(ChatError::new(ErrorType::Auth, "the key is refused"))]);
    let agent = builder.build().expect("an agent");
    let mut events = stage.telemetry.scope(async { agent.stream("Hello") }).await;
    let mut all = Vec::new();
    while let Some(event) = events.next().await {
        all.push(event.map(|event| line(&event)).map_err(|error| error.error_type()));
    }
    assert_eq!(all, [Ok("step 0 plan.task".to_owned()), Err(ErrorType::Auth)]);
}

#[tokio::test]
async fn a_stream_that_is_dropped_cancels_the_run() {
    let (stage, builder) = stage([says("There are 12.")]);
    let agent = builder.build().expect("an agent");
    let mut events = stage.telemetry.scope(async { agent.stream("Is item 7 there?") }).await;
    while let Some(event) = events.next().await {
        if matches!(event.expect("an event"), RunEvent::Text(_)) {
            break;
        }
    }
    let ended = stage.recorder.tree(&[]);
    assert!(!ended.contains("plan"), "the run is no further than its reader:\n{ended}");
    drop(events);
    assert_eq!(stage.telemetry.counts().open_spans, 0);
    insta::assert_snapshot!(stage.recorder.tree(&["outcome"]), @r"
    invoke_agent shop outcome=cancelled
      shop.plan.task outcome=cancelled
        chat gpt-4o outcome=cancelled
          http.stream.init
          http.stream.segment
    ");
}

#[tokio::test]
async fn a_run_can_be_taken_back_by_its_token() {
    let (stage, builder) = stage([]);
    let token = CancellationToken::new();
    let task = Task::new("Hello").cancelled_by(token.clone());
    let cancel = async {
        tokio::task::yield_now().await;
        token.cancel();
    };
    let (result, ()) = tokio::join!(stage.run(builder, task), cancel);
    assert_eq!(result.expect_err("cancelled"), AgentError::Cancelled);
    insta::assert_snapshot!(stage.recorder.tree(&["outcome"]), @r"
    invoke_agent shop outcome=cancelled
      shop.plan.task outcome=cancelled
        chat gpt-4o outcome=cancelled
    ");
}

struct NoWord;

impl StepPolicy for NoWord {
    fn name(&self) -> &str {
        "no_word"
    }

    fn before<'a>(
        &'a self,
        step: &'a StepContext<'a>,
    ) -> futures_util::future::BoxFuture<'a, Verdict> {
        Box::pin(async move {
            match step.action {
                throughline::StepAction::Answer(text) if text.contains("secret") => {
                    Verdict::deny("a secret")
                }
                _ => Verdict::Allow,
            }
        })
    }

    fn on_denial(&self, _: &StepContext<'_>) -> Denial {
        Denial::TellModel
    }
}

#[tokio::test]
async fn no_word_of_a_refused_answer_is_streamed() {
    let (stage, builder) = stage([says("The secret is 12."), says("I must not say.")]);
    let agent = builder.policy(NoWord).build().expect("an agent");
    let events = stage.telemetry.scope(async { agent.stream("Tell me") }).await;
    let events: Vec<_> = events.map(|event| line(&event.expect("an event"))).collect().await;
    let told = events.join("\n");
    assert!(told.contains("text \"I must not say.\""), "{told}");
    assert!(!told.contains("The secret"), "{told}");
}
