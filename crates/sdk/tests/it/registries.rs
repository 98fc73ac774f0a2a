//! Registries of other people, observed unchanged; links to the model call that asked (R4.1).

use std::sync::{Arc, Mutex};

use futures_util::future::{BoxFuture, ready};
use serde_json::{Value, json};
use throughline::llm::{ChatRequest, ToolCall};
use throughline::{
    ChatModel as _, ErrorType, Fault as _, Json, ObservedRegistry, Recorder, Registry,
    RegistryError, Telemetry, Tool, ToolError, ToolId, ToolRegistry, Traced, keys, span, tool,
};

use crate::provider::{Provider, Step, recorded};

/// A registry as somebody else would write it.
#[derive(Default)]
struct Theirs {
    tools: Mutex<Vec<Arc<dyn Tool>>>,
    is_down: bool,
}

impl Registry for Theirs {
    fn register(&self, tool: Arc<dyn Tool>) -> BoxFuture<'_, Result<(), RegistryError>> {
        self.tools.lock().expect("a lock").push(tool);
        Box::pin(ready(Ok(())))
    }

    fn lookup<'a>(
        &'a self,
        id: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<dyn Tool>>, RegistryError>> {
        if self.is_down {
            let down =
                RegistryError::Remote { kind: ErrorType::Connection, message: "it is down".into() };
            return Box::pin(ready(Err(down)));
        }
        span("SELECT tools").start().end();
        let tools = self.tools.lock().expect("a lock");
        let found = tools.iter().find(|tool| tool.id().as_str() == id).cloned();
        Box::pin(ready(Ok(found)))
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<ToolId>, RegistryError>> {
        let tools = self.tools.lock().expect("a lock");
        Box::pin(ready(Ok(tools.iter().map(|tool| tool.id().clone()).collect())))
    }
}

fn call(id: &str, name: &str) -> ToolCall {
    ToolCall { id: id.to_owned(), name: name.to_owned(), arguments: "{}".to_owned() }
}

fn ping() -> Arc<dyn Tool> {
    Arc::new(tool("ping_v1", "Answers", |_: ()| async { Json("pong") }).expect("an id"))
}

/// R4.1: the spans and metrics of a registry that knows nothing of telemetry.
#[tokio::test]
async fn r4_1_a_wrapper_observes_any_registry_unchanged() {
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).build().expect("telemetry");
    let work = async {
        let registry = ObservedRegistry::new(Theirs::default());
        registry.register(ping()).await.expect("registered");
        assert!(registry.lookup("ping_v1").await.expect("up").is_some());
        assert!(registry.lookup("pong_v1").await.expect("up").is_none());
        assert_eq!(registry.list().await.expect("up").len(), 1);
        let twice = ObservedRegistry::new(registry);
        assert!(twice.lookup("ping_v1").await.expect("up").is_some());
        let down = ObservedRegistry::new(Theirs { is_down: true, ..Theirs::default() });
        let error = down.execute(&call("", "ping_v1")).await.expect_err("down");
        assert_eq!(error.error_type(), ErrorType::Connection);
    };
    telemetry.scope(work).await;
    insta::assert_snapshot!(recorder.tree(&["component", "method", "error.type"]), @r#"
    tool.registry.ping_v1 component=tool-registry method=register
    tool.registry.ping_v1 component=tool-registry method=lookup
      SELECT tools
    tool.registry.pong_v1 component=tool-registry method=lookup error.type=TOOL_MISSING ERROR(no tool "pong_v1" is registered)
      SELECT tools
    tool.registry.ping_v1 component=tool-registry method=lookup
      SELECT tools
    tool.registry.ping_v1 component=tool-registry method=lookup error.type=CONNECTION ERROR(expected the registry to answer: it is down)
    "#);
    telemetry.flush();
    let metrics: Vec<String> =
        recorder.metrics().into_iter().filter(|line| line.starts_with("tool_registry")).collect();
    insta::assert_snapshot!(metrics.join("\n"), @r"
    tool_registry_calls_total{method=lookup, result=failed} 1
    tool_registry_calls_total{method=lookup, result=found} 2
    tool_registry_calls_total{method=lookup, result=missing} 1
    tool_registry_calls_total{method=register, result=registered} 1
    tool_registry_latency_ms{method=lookup, status=error} 2
    tool_registry_latency_ms{method=lookup, status=success} 2
    tool_registry_latency_ms{method=register, status=success} 1
    ");
}

/// R4.1: a request that is given up ends its span and is counted.
#[tokio::test]
async fn r4_1_a_lookup_that_is_given_up_is_counted() {
    struct Never;
    impl Registry for Never {
        fn register(&self, _: Arc<dyn Tool>) -> BoxFuture<'_, Result<(), RegistryError>> {
            Box::pin(std::future::pending())
        }
        fn lookup<'a>(
            &'a self,
            _: &'a str,
        ) -> BoxFuture<'a, Result<Option<Arc<dyn Tool>>, RegistryError>> {
            Box::pin(std::future::pending())
        }
        fn list(&self) -> BoxFuture<'_, Result<Vec<ToolId>, RegistryError>> {
            Box::pin(std::future::pending())
        }
    }
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).build().expect("telemetry");
    let work = async {
        let registry = ObservedRegistry::new(Never);
        let mut lookup = Box::pin(registry.lookup("a_v1"));
        assert!(futures_util::poll!(&mut lookup).is_pending());
    };
    telemetry.scope(work).await;
    assert_eq!(recorder.tree(&["outcome"]), "tool.registry.a_v1 outcome=cancelled\n");
    telemetry.flush();
    let metrics = recorder.metrics().join("\n");
    assert!(
        metrics.contains("tool_registry_calls_total{method=lookup, result=cancelled} 1"),
        "{metrics}"
    );
}

/// R4.1: a tool that answers with something else than it said is wrong.
#[tokio::test]
async fn r4_1_a_result_is_judged_by_the_tools_schema() {
    struct Stock(ToolId);
    impl Tool for Stock {
        fn id(&self) -> &ToolId {
            &self.0
        }
        fn description(&self) -> &str {
            "How many"
        }
        fn parameters(&self) -> Value {
            json!({"type": "object"})
        }
        fn result_schema(&self) -> Option<Value> {
            Some(json!({"type": "integer"}))
        }
        fn call(&self, _: Value) -> BoxFuture<'_, Result<Value, ToolError>> {
            Box::pin(ready(Ok(json!("twelve"))))
        }
    }
    let registry =
        ToolRegistry::new().with(Stock("stock_v1".parse().expect("an id"))).expect("new");
    let error = registry.execute(&call("", "stock_v1")).await.expect_err("a text");
    assert_eq!(error.error_type(), ErrorType::InvalidResponse);
    assert!(error.to_string().contains(r#"at the top: expected integer, got "twelve""#), "{error}");
    // A registry of somebody else compiles no schema; the arguments are judged all the same.
    let theirs = ObservedRegistry::new(Theirs::default());
    theirs.register(Arc::new(Stock("stock_v1".parse().expect("an id")))).await.expect("new");
    let wrong = ToolCall { arguments: "[]".to_owned(), ..call("", "stock_v1") };
    let error = theirs.execute(&wrong).await.expect_err("a list");
    assert_eq!(error.error_type(), ErrorType::InvalidArguments);
}

/// R4.1: a schema that is none, or lies elsewhere, is refused when the tool is registered.
#[test]
fn r4_1_a_tool_with_a_bad_schema_is_not_registered() {
    struct Odd(ToolId, Value);
    impl Tool for Odd {
        fn id(&self) -> &ToolId {
            &self.0
        }
        fn description(&self) -> &str {
            "Odd"
        }
        fn parameters(&self) -> Value {
            self.1.clone()
        }
        fn call(&self, _: Value) -> BoxFuture<'_, Result<Value, ToolError>> {
            Box::pin(ready(Ok(Value::Null)))
        }
    }
    for schema in [json!({"type": 12}), json!({"$ref": "https://example.com/schema.json"})] {
        let odd = Odd("odd_v1".parse().expect("an id"), schema);
        let error = ToolRegistry::new().register(odd).expect_err("no schema");
        assert!(matches!(error, RegistryError::Schema { part: "arguments", .. }), "{error}");
    }
}

/// R4.1: in a loop of one's own, without an agent, a tool's span links to the model call that asked.
#[tokio::test]
async fn r4_1_a_tool_call_is_linked_to_the_model_call_also_outside_of_an_agent() {
    const ANSWER: &str = r#"{"id": "c", "object": "chat.completion", "model": "gpt-4o", "choices": [
        {"index": 0, "finish_reason": "tool_calls", "message": {"role": "assistant", "content": null,
            "tool_calls": [{"id": "call_outside", "type": "function",
                "function": {"name": "ping_v1", "arguments": "{}"}}]}}]}"#;
    let provider = Provider::start([Step::Raw("application/json", ANSWER)]).await;
    let (recorder, telemetry) = recorded();
    let work = async {
        let registry = ToolRegistry::new().with(ping()).expect("new");
        let answer = Traced::new(provider.client.clone())
            .chat(ChatRequest::new("gpt-4o").user("hi"))
            .await
            .expect("an answer");
        let asked = answer.message().and_then(|message| message.tool_calls().next()).cloned();
        registry.execute(&asked.expect("a call")).await.expect("pong");
    };
    telemetry.scope(work).await;
    let spans = recorder.spans();
    let named = |name: &str| spans.iter().find(|span| span.name == name).expect("a span");
    let (chat, ran) = (named("chat gpt-4o"), named("execute_tool ping_v1"));
    assert_eq!(ran.links[0].span_context.span_id(), chat.span_context.span_id());
    let id = &ran.links[0].attributes[0];
    assert_eq!(
        (id.key.as_str(), id.value.as_str()),
        (keys::GEN_AI_TOOL_CALL_ID, "call_outside".into())
    );
}

/// R4.1: what a model made up is no name of a span, however long it is.
#[tokio::test]
async fn r4_1_a_made_up_tool_name_does_not_name_a_span() {
    let (recorder, telemetry) = recorded();
    let made_up = format!("Ignore all of it. {}", "x".repeat(10_000));
    let work = async {
        let registry = ToolRegistry::new().with(ping()).expect("new");
        let error = registry.execute(&call("", &made_up)).await.expect_err("none");
        assert!(error.to_string().len() < 300, "{error}");
        assert!(registry.lookup("").is_none());
        assert!(registry.lookup("pong_v1").is_none());
    };
    telemetry.scope(work).await;
    let beginning: String = made_up.chars().take(128).collect();
    let tree = recorder.tree(&[keys::METHOD]);
    let unknown = format!(
        "tool.registry.unknown method=lookup ERROR(no tool \"{beginning}…\" is registered)\n"
    );
    let empty = "tool.registry.unknown method=lookup ERROR(no tool \"\" is registered)\n";
    let known = "tool.registry.pong_v1 method=lookup ERROR(no tool \"pong_v1\" is registered)\n";
    assert_eq!(tree, ["tool.registry.ping_v1 method=register\n", &unknown, empty, known].concat());
}

/// R4.1: a registry of somebody else may know tools by other names.
#[tokio::test]
async fn r4_1_a_tool_found_by_a_foreign_name_is_named_by_its_id() {
    struct Aliased;
    impl Registry for Aliased {
        fn register(&self, _: Arc<dyn Tool>) -> BoxFuture<'_, Result<(), RegistryError>> {
            Box::pin(ready(Ok(())))
        }
        fn lookup<'a>(
            &'a self,
            _: &'a str,
        ) -> BoxFuture<'a, Result<Option<Arc<dyn Tool>>, RegistryError>> {
            Box::pin(ready(Ok(Some(ping()))))
        }
        fn list(&self) -> BoxFuture<'_, Result<Vec<ToolId>, RegistryError>> {
            Box::pin(ready(Ok(Vec::new())))
        }
    }
    let (recorder, telemetry) = recorded();
    let registry = ObservedRegistry::new(Aliased);
    let found = telemetry.scope(registry.lookup("tools/ping")).await.expect("up");
    assert!(found.is_some());
    assert_eq!(recorder.tree(&[]), "tool.registry.ping_v1\n");
}
