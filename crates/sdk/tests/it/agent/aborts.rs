//! A run that is dropped anywhere, or whose tool panics, leaves ended spans.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use futures_util::Stream as _;
use proptest::prelude::*;
use throughline::{Budget, CancellationToken, InMemory, MemoryWindow, Perception, RunEvent};

use super::*;

/// A run with all its parts: perception, memory, tools that yield, a sub-agent, an answer.
fn whole(stage: &Stage, builder: AgentBuilder) -> Agent {
    let yields = tool("yields_v1", "Takes its time", |ask: Item| async move {
        for _ in 0..ask.item {
            tokio::task::yield_now().await;
        }
        Json(ask.item)
    });
    let inner = Agent::builder("inner", Traced::new(Scripted::new([says("12")])), "gpt-4o");
    let inner = inner.build().expect("an agent").as_tool("inner_v1", "Knows").expect("a tool");
    let tools = ToolRegistry::new().with(yields.expect("a tool")).expect("new");
    let agent = builder
        .tools(tools.with(inner).expect("new"))
        .budget(Budget::none().tool_calls(9))
        .memory(InMemory::new(1, 9), MemoryWindow::default())
        .perceive_with(|_| async {
            tokio::task::yield_now().await;
            Ok::<_, &str>(Perception::new("stock"))
        })
        .build()
        .expect("an agent");
    stage.recorder.clear();
    agent
}

fn script() -> [Result<ChatResponse, ChatError>; 2] {
    let calls = [
        ("c1", "yields_v1", r#"{"item":2}"#),
        ("c2", "yields_v1", r#"{"item":0}"#),
        ("c3", "inner_v1", r#"{"task":"How many?"}"#),
    ];
    [wants("", &calls), says("There are 12.")]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_run_that_is_dropped_anywhere_leaves_no_open_span(polls in 0usize..40, is_told in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let _in = runtime.enter();
        let (stage, builder) = stage(script());
        let agent = whole(&stage, builder);
        let mut poller = Context::from_waker(Waker::noop());
        let task = || Task::new("How many?").session("s-1");
        let mut is_over = false;
        if is_told {
            let _in = stage.telemetry.enter();
            let mut events = pin!(agent.stream(task()));
            for _ in 0..polls {
                let polled = events.as_mut().poll_next(&mut poller);
                is_over |= matches!(polled, Poll::Ready(Some(Ok(RunEvent::Done(_)))));
            }
        } else {
            let mut run = pin!(stage.telemetry.scope(agent.run(task())));
            for _ in 0..polls {
                is_over = is_over || run.as_mut().poll(&mut poller).is_ready();
            }
        }
        prop_assert_eq!(stage.telemetry.counts().open_spans, 0);
        let tree = stage.recorder.tree(&["outcome"]);
        if let Some(root) = tree.lines().next() {
            // The last events of a run that is over may still wait for their reader.
            let is_ok = root == "invoke_agent shop outcome=ok";
            let is_cancelled = root == "invoke_agent shop outcome=cancelled";
            let is_right = if is_over { is_ok } else { is_cancelled || (is_told && is_ok) };
            prop_assert!(is_right, "{}", tree);
        }
    }
}

#[tokio::test]
async fn a_tool_that_panics_leaves_ended_spans_that_say_so() {
    let (stage, builder) = stage([wants("", &[("c1", "boom_v1", r#"{"item":7}"#)])]);
    let boom = tool("boom_v1", "Panics", |ask: Item| async move {
        assert_eq!(ask.item, 0, "boom");
        Json(1)
    });
    let tools = ToolRegistry::new().with(boom.expect("boom")).expect("new");
    let agent = builder.tools(tools).build().expect("an agent");
    let run = tokio::spawn(stage.telemetry.scope(async move { agent.run("Boom").await }));
    assert!(run.await.expect_err("a panic").is_panic());
    assert_eq!(stage.telemetry.counts().open_spans, 0);
    let tree = stage.recorder.tree(&["outcome", "error.type"]);
    assert!(tree.starts_with("invoke_agent shop outcome=error error.type=PANIC"), "{tree}");
}

#[tokio::test]
async fn a_token_that_is_cancelled_before_the_run_begins_ends_it_at_once() {
    let (stage, builder) = stage([]);
    let token = CancellationToken::new();
    token.cancel();
    let run = stage.run(builder, Task::new("Hello").cancelled_by(token)).await;
    assert_eq!(run.expect_err("cancelled"), AgentError::Cancelled);
    assert_eq!(stage.recorder.tree(&["outcome"]), "invoke_agent shop outcome=cancelled\n");
}
