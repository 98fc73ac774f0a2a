//! R1.4: plugins are trace-aware by type. That a plugin which is not cannot be registered, and that
//! a hook cannot return work off the trace, is shown by the doctests of `TracerAware`.

use serde_json::Value;
use throughline::{AgentRun, Hook, PluginScope, TracerAware, span};
use tokio::sync::Notify;

use super::*;

#[derive(Default)]
struct Watcher {
    spawned: Arc<Notify>,
}

impl TracerAware for Watcher {
    fn name(&self) -> &str {
        "watcher"
    }

    fn on_run_start<'a>(&'a self, scope: &'a PluginScope, _: &'a [Message]) -> Hook<'a> {
        let spawned = Arc::clone(&self.spawned);
        scope.spawn(async move {
            drop(span("written later").start());
            spawned.notify_one();
        });
        scope.run(async { drop(span("in on_run_start").start()) })
    }

    fn before_model<'a>(
        &'a self,
        scope: &'a PluginScope,
        request: &'a mut ChatRequest,
    ) -> Hook<'a> {
        scope.run(async move { request.temperature = Some(0.5) })
    }

    fn after_model<'a>(&'a self, scope: &'a PluginScope, _: &'a ChatResponse) -> Hook<'a> {
        scope.run(async {})
    }

    fn before_tool<'a>(&'a self, scope: &'a PluginScope, _: &'a ToolCall) -> Hook<'a> {
        scope.run(async { drop(span("in before_tool").start()) })
    }

    fn after_tool<'a>(
        &'a self,
        scope: &'a PluginScope,
        _: &'a ToolCall,
        _: Result<&'a Value, &'a ToolError>,
    ) -> Hook<'a> {
        scope.run(async {})
    }

    fn on_answer<'a>(&'a self, scope: &'a PluginScope, run: &'a AgentRun) -> Hook<'a> {
        assert_eq!(run.answer, "There are 12.");
        scope.run(async {})
    }

    fn on_error<'a>(&'a self, scope: &'a PluginScope, _: &'a AgentError) -> Hook<'a> {
        scope.run(async {})
    }
}

#[tokio::test]
async fn r1_4_whatever_a_plugin_does_is_on_the_trace() {
    let (stage, builder) =
        stage([wants("", &[("c1", "stock_v1", r#"{"item":7}"#)]), says("There are 12.")]);
    let watcher = Watcher::default();
    let spawned = Arc::clone(&watcher.spawned);
    stage.run(builder.plugin(watcher), "Is item 7 there?").await.expect("an answer");
    spawned.notified().await;
    let temperature = stage.model.asked.lock().expect("asked")[0].temperature;
    assert_eq!(temperature, Some(0.5));
    let tree = stage.recorder.tree(&[]);
    // When it is written is up to the runtime, and so is its place among its siblings.
    let tree: Vec<&str> = tree.lines().filter(|line| *line != "  written later").collect();
    assert_eq!(stage.recorder.spans().len(), tree.len() + 1);
    insta::assert_snapshot!(tree.join("\n"), @r"
    invoke_agent shop
      plugin watcher.on_run_start
        in on_run_start
      shop.plan.stock
        plugin watcher.before_model
        chat gpt-4o
        plugin watcher.after_model
      shop.act.stock
        plugin watcher.before_tool
          in before_tool
        tool.registry.stock_v1
        execute_tool stock_v1
        plugin watcher.after_tool
      shop.observe.stock
      shop.reflect.stock
      shop.plan.answer
        plugin watcher.before_model
        chat gpt-4o
        plugin watcher.after_model
      shop.reflect.answer
      plugin watcher.on_answer
    ");
}

#[tokio::test]
async fn a_plugin_hears_of_failures() {
    let (stage, builder) = stage([Err(ChatError::new(ErrorType::Auth, "the key is refused"))]);
    stage.run(builder.plugin(Watcher::default()), "Hello").await.expect_err("no answer");
    assert!(stage.recorder.tree(&[]).contains("  plugin watcher.on_error\n"));
}

struct Slow;

impl TracerAware for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    fn on_run_start<'a>(&'a self, scope: &'a PluginScope, _: &'a [Message]) -> Hook<'a> {
        scope.run(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn a_plugin_that_hangs_does_not_hold_the_run() {
    let (stage, builder) = stage([says("There are 12.")]);
    stage.run(builder.plugin(Slow), "Is item 7 there?").await.expect("an answer");
    let tree = stage.recorder.tree(&["error.type"]);
    assert!(tree.contains("plugin slow.on_run_start error.type=TIMEOUT ERROR(TIMEOUT)"), "{tree}");
}
