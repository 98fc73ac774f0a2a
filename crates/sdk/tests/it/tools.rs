//! Tools: registered and looked up in spans, run with checked arguments, in bounded time.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use throughline::{
    ErrorType, Fault as _, Json, Recorder, Telemetry, ToolError, ToolRegistry, span, tool,
};
use throughline_llm::ToolCall;

#[derive(Deserialize, JsonSchema)]
struct Item {
    item: u32,
}

fn call(name: &str, arguments: &str) -> ToolCall {
    ToolCall { id: "call_1".to_owned(), name: name.to_owned(), arguments: arguments.to_owned() }
}

fn registry() -> ToolRegistry {
    let stock = tool("stock_v1", "How many there are", |ask: Item| async move {
        span("SELECT stock").start().end();
        if ask.item == 0 { Err("there is no item 0") } else { Ok(12) }
    });
    let newer = tool("stock_v2", "How many there are, and where", |_: Item| async move {
        Json(serde_json::json!({"count": 12, "where": "Graz"}))
    });
    let slow = tool("slow_v1", "Never answers", |_: Item| std::future::pending::<Json<u8>>());
    let registry = ToolRegistry::new();
    registry.register(stock.expect("stock")).expect("new");
    registry.register(newer.expect("newer")).expect("new");
    registry.register(slow.expect("slow").with_timeout(Duration::from_millis(5))).expect("new");
    registry
}

#[tokio::test]
async fn every_request_to_the_registry_and_every_run_is_a_span() {
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).build().expect("telemetry");
    let work = async {
        let registry = registry();
        let step = span("shop.act.stock").start();
        let asked = span("chat gpt-4o").start();
        step.instrument(async {
            let asked = asked.span_context();
            let wanted = call("stock_v1", r#"{"item":7}"#);
            let fine = registry.execute_for(&wanted, Some(&asked)).await;
            assert_eq!(fine, Ok(serde_json::json!(12)));
            let newest = registry.execute(&call("stock", r#"{"item":7}"#)).await.expect("newest");
            assert_eq!(newest["where"], "Graz");
            let failed = registry.execute(&call("stock_v1", r#"{"item":0}"#)).await;
            assert_eq!(failed, Err(ToolError::Failed("there is no item 0".to_owned())));
            for wrong in ["{\"item\":\"seven\"}", "{\"item\":"] {
                let error = registry.execute(&call("stock_v1", wrong)).await.expect_err("wrong");
                assert_eq!(error.error_type(), ErrorType::InvalidArguments);
            }
            let late = registry.execute(&call("slow_v1", r#"{"item":7}"#)).await.expect_err("late");
            assert_eq!(late.error_type(), ErrorType::Timeout);
            let missing = registry.execute(&call("weather_v1", "{}")).await.expect_err("missing");
            assert_eq!(
                missing.to_string(),
                "expected a registered tool (slow_v1, stock_v1, stock_v2), got \"weather_v1\""
            );
        })
        .await;
        assert!(
            registry
                .register(tool("stock_v1", "Again", |_: Item| async { Json(1) }).expect("id"))
                .is_err()
        );
        (asked.span_context(), step)
    };
    let (asked, step) = telemetry.scope(work).await;
    step.end();
    insta::assert_snapshot!(recorder.tree(&["component", "method", "gen_ai.tool.call.arguments", "gen_ai.tool.call.result", "error.type"]), @r#"
    tool.registry.stock_v1 component=tool-registry method=register
    tool.registry.stock_v2 component=tool-registry method=register
    tool.registry.slow_v1 component=tool-registry method=register
    shop.act.stock
      tool.registry.stock_v1 component=tool-registry method=lookup
      execute_tool stock_v1 gen_ai.tool.call.arguments={"item":7} gen_ai.tool.call.result=12
        SELECT stock
      tool.registry.stock component=tool-registry method=lookup
      execute_tool stock_v2 gen_ai.tool.call.arguments={"item":7} gen_ai.tool.call.result={"count":12,"where":"Graz"}
      tool.registry.stock_v1 component=tool-registry method=lookup
      execute_tool stock_v1 gen_ai.tool.call.arguments={"item":0} error.type=TOOL_FAILED ERROR(there is no item 0)
        SELECT stock
      tool.registry.stock_v1 component=tool-registry method=lookup
      execute_tool stock_v1 gen_ai.tool.call.arguments={"item":"seven"} error.type=INVALID_ARGUMENTS ERROR(expected arguments that fit the schema of stock_v1, got {"item":"seven"}: at /item: expected integer, got "seven")
      tool.registry.stock_v1 component=tool-registry method=lookup
      execute_tool stock_v1 gen_ai.tool.call.arguments={"item": error.type=INVALID_ARGUMENTS ERROR(expected arguments that fit the schema of stock_v1, got {"item":: expected JSON: EOF while parsing a value at line 1 column 8)
      tool.registry.slow_v1 component=tool-registry method=lookup
      execute_tool slow_v1 gen_ai.tool.call.arguments={"item":7} error.type=TIMEOUT ERROR(TIMEOUT)
      tool.registry.weather_v1 component=tool-registry method=lookup error.type=TOOL_MISSING ERROR(no tool "weather_v1" is registered)
    chat gpt-4o
    tool.registry.stock_v1 component=tool-registry method=register error.type=INVALID_REQUEST ERROR(expected a new tool id, got stock_v1, which is registered; give the new tool another version)
    "#);
    let linked: Vec<_> =
        recorder.spans().into_iter().filter(|span| !span.links.is_empty()).collect();
    assert_eq!(linked.len(), 1);
    assert_eq!(linked[0].name, "execute_tool stock_v1");
    assert_eq!(linked[0].links[0].span_context.span_id(), asked.span_id());

    telemetry.flush();
    let metrics: Vec<String> =
        recorder.metrics().into_iter().filter(|line| line.starts_with("tool_registry")).collect();
    insta::assert_snapshot!(metrics.join("\n"), @r"
    tool_registry_calls_total{method=lookup, result=found} 6
    tool_registry_calls_total{method=lookup, result=missing} 1
    tool_registry_calls_total{method=register, result=already_registered} 1
    tool_registry_calls_total{method=register, result=registered} 3
    tool_registry_latency_ms{method=lookup, status=error} 1
    tool_registry_latency_ms{method=lookup, status=success} 6
    tool_registry_latency_ms{method=register, status=error} 1
    tool_registry_latency_ms{method=register, status=success} 3
    ");
}

#[tokio::test]
async fn content_stays_off_spans_when_told_so() {
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).capture_content(false).build();
    let telemetry = telemetry.expect("telemetry");
    let work = async {
        let registry = registry();
        let _ = registry.execute(&call("stock_v1", r#"{"item":7}"#)).await;
        let _ = registry.execute(&call("stock_v1", r#"{"item":"secret"}"#)).await;
    };
    telemetry.scope(work).await;
    let spans = recorder.spans();
    assert!(spans.iter().any(|span| span.name == "execute_tool stock_v1"));
    let text = format!("{spans:?}");
    assert!(!text.contains("secret") && !text.contains("gen_ai.tool.call.arguments"), "{text}");
    assert!(!text.contains("gen_ai.tool.call.result"), "{text}");
}
