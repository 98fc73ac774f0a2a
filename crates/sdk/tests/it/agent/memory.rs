//! Memory: what was said before in a session.

use futures_util::future::BoxFuture;
use throughline::{InMemory, Memory, MemoryError, MemoryWindow};

use super::*;

#[tokio::test]
async fn a_session_is_remembered_from_run_to_run() {
    let memory = InMemory::new(10, 100);
    let (stage, builder) = stage([says("Hello Ada."), says("You are Ada."), says("Who knows?")]);
    let builder = builder.memory(memory, MemoryWindow::default());
    let agent = builder.build().expect("an agent");
    let run = |text: &str, session: &str| {
        stage.telemetry.scope(agent.run(Task::new(text).session(session)))
    };
    run("I am Ada.", "s-1").await.expect("an answer");
    let second = run("Who am I?", "s-1").await.expect("an answer");
    assert_eq!(second.messages.len(), 4);
    run("Who am I?", "s-2").await.expect("an answer");
    let lengths: Vec<usize> =
        stage.model.asked.lock().expect("asked").iter().map(|ask| ask.messages.len()).collect();
    assert_eq!(lengths, [2, 4, 2], "the instructions are of each request");
    let tree = stage.recorder.tree(&["throughline.memory.messages"]);
    let second = tree.split("invoke_agent shop\n").nth(2).expect("the second run");
    insta::assert_snapshot!(second, @r"
    search_memory throughline.memory.messages=2
    shop.plan.answer
      chat gpt-4o
    shop.reflect.answer
    update_memory throughline.memory.messages=2
    ");
}

struct Broken;

impl Memory for Broken {
    fn name(&self) -> &str {
        "broken"
    }

    fn load<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<Message>, MemoryError>> {
        Box::pin(async { Err(MemoryError::load("connection refused")) })
    }

    fn append<'a>(
        &'a self,
        _: &'a str,
        _: &'a [Message],
    ) -> BoxFuture<'a, Result<(), MemoryError>> {
        Box::pin(async { Err(MemoryError::keep("connection refused")) })
    }
}

#[tokio::test]
async fn a_memory_that_fails_fails_the_run_only_when_told_so() {
    let (stage, builder) = self::stage([says("Hello.")]);
    let task = || Task::new("Hello").session("s-1");
    let run = stage.run(builder.memory(Broken, MemoryWindow::default()), task()).await;
    run.expect("an answer all the same");
    insta::assert_snapshot!(stage.recorder.tree(&["outcome"]), @r"
    invoke_agent shop outcome=ok
      search_memory ERROR(expected the memory to load a session, got connection refused)
      shop.plan.answer
        chat gpt-4o outcome=ok
      shop.reflect.answer
      update_memory ERROR(expected the memory to keep a session, got connection refused)
    ");

    let (stage, builder) = self::stage([says("Hello.")]);
    let run = stage.run(builder.required_memory(Broken, MemoryWindow::default()), task()).await;
    let error = AgentError::Memory(MemoryError::load("connection refused"));
    assert_eq!(run.expect_err("no memory"), error);
}
