//! `#[throughline::tool]`: tools made of functions.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use serde_json::json;
use throughline::{ContextBag, Dimensions, ErrorType, Fault as _, SourceLayer, Tool, ToolRegistry};
use throughline_llm::ToolCall;

/// How many of an item there are,
/// and where.
///
/// Counted every night.
#[expect(clippy::too_many_arguments, reason = "one parameter of each kind")]
#[throughline::tool(id = "stock_v1", timeout_secs = 5, needs(user_timezone), wants(intent))]
async fn stock(
    /// The item's number.
    item: u32,
    /// Which shelf; all when not said.
    shelf: Option<String>,
    #[default(3)] depth: u8,
    #[schemars(description = "Words to look for.")] words: &[String],
    #[serde(rename = "lang")] language: &str,
    context: &ContextBag,
    dimensions: Dimensions,
    #[state] counter: &AtomicU32,
) -> Result<serde_json::Value, String> {
    if item == 0 {
        return Err("there is no item 0".to_owned());
    }
    counter.fetch_add(1, Ordering::Relaxed);
    Ok(json!([
        item,
        shelf,
        depth,
        words,
        language,
        context.get("user_timezone"),
        context.get("consent_flag"),
        dimensions.session_id(),
    ]))
}

/// Adds.
#[throughline::tool(id = "add_v2")]
fn add(a: i64, b: i64) -> i64 {
    a + b
}

/// Has no arguments.
#[throughline::tool(id = "ping_v1", name = pinging)]
fn ping(#[state] answer: String) -> throughline::Json<String> {
    throughline::Json(answer)
}

/// Waits for a word, and says who hears it.
#[throughline::tool(id = "hear_v1")]
fn hear(
    dimensions: Dimensions,
    #[state] words: &Mutex<mpsc::Receiver<&'static str>>,
) -> Result<String, String> {
    throughline::span("SELECT words").start().end();
    let word = words.lock().expect("words").recv_timeout(Duration::from_secs(20));
    let word = word.map_err(|_| "nobody said a word while the tool ran".to_owned())?;
    Ok(format!("{word}, {}", dimensions.session_id().unwrap_or("nobody")))
}

/// Panics.
#[throughline::tool(id = "panic_v1")]
fn panics(#[default(true)] really: bool) -> u8 {
    assert!(!really, "the tool panics");
    0
}

fn call(name: &str, arguments: serde_json::Value) -> ToolCall {
    ToolCall { id: String::new(), name: name.to_owned(), arguments: arguments.to_string() }
}

/// R4.1: a function becomes a tool; its documentation becomes the schema.
#[test]
fn r4_1_the_macro_makes_the_schema_of_the_signature() {
    let tool = stock_tool(Arc::default());
    assert_eq!(
        tool.description(),
        "How many of an item there are, and where.\n\nCounted every night."
    );
    assert_eq!(tool.timeout().as_secs(), 5);
    let needs: Vec<_> =
        tool.needs().iter().map(|need| (need.field(), need.is_optional())).collect();
    assert_eq!(needs, [("user_timezone", false), ("intent", true)]);
    insta::assert_snapshot!(serde_json::to_string_pretty(&tool.parameters()).expect("json"), @r#"
    {
      "additionalProperties": false,
      "properties": {
        "depth": {
          "default": 3,
          "format": "uint8",
          "maximum": 255,
          "minimum": 0,
          "type": "integer"
        },
        "item": {
          "description": "The item's number.",
          "format": "uint32",
          "minimum": 0,
          "type": "integer"
        },
        "lang": {
          "type": "string"
        },
        "shelf": {
          "description": "Which shelf; all when not said.",
          "type": [
            "string",
            "null"
          ]
        },
        "words": {
          "description": "Words to look for.",
          "items": {
            "type": "string"
          },
          "type": "array"
        }
      },
      "required": [
        "item",
        "words",
        "lang"
      ],
      "type": "object"
    }
    "#);
    assert_eq!(pinging(String::new()).parameters()["properties"], json!({}));
}

#[tokio::test]
async fn r4_1_a_tool_of_the_macro_runs_with_what_is_injected() {
    let counter = Arc::new(AtomicU32::new(0));
    let tools = ToolRegistry::new()
        .with(stock_tool(Arc::clone(&counter)))
        .and_then(|all| all.with(add_tool()))
        .and_then(|all| all.with(pinging("pong".to_owned())))
        .expect("new");
    let bag = ContextBag::new();
    bag.set(SourceLayer::Caller, "user_timezone", "Europe/Vienna").expect("set");
    bag.set(SourceLayer::Session, "consent_flag", true).expect("set");
    let asked = json!({"item": 7, "words": ["a"], "lang": "de"});
    let asked = call("stock_v1", asked);
    let work = async { bag.scope(tools.execute(&asked)).await };
    let told = Dimensions::new().session("s-1").scope(work).await.expect("told");
    assert_eq!(told, json!([7, null, 3, ["a"], "de", "Europe/Vienna", null, "s-1"]));
    assert_eq!(counter.load(Ordering::Relaxed), 1);
    let wrong = json!({"item": 7, "words": [], "lang": "de", "color": "red"});
    let error = tools.execute(&call("stock_v1", wrong)).await.expect_err("a field too many");
    assert_eq!(error.error_type(), ErrorType::InvalidArguments);
    assert!(error.to_string().contains("expected no other fields"), "{error}");
    assert_eq!(tools.execute(&call("add_v2", json!({"a": 1, "b": 2}))).await, Ok(json!(3)));
    assert_eq!(tools.execute(&call("ping_v1", json!({}))).await, Ok(json!("pong")));
    assert_eq!(add(1, 2), 3, "the function stays");
}

/// A function that is not async does not keep the runtime's only thread from others, and is on the
/// trace of its call all the same.
#[tokio::test]
async fn a_function_that_blocks_keeps_nobody_waiting() {
    let (recorder, telemetry) = crate::provider::recorded();
    let (say, words) = mpsc::channel();
    let tools = ToolRegistry::new()
        .with(hear_tool(Arc::new(Mutex::new(words))))
        .and_then(|all| all.with(panics_tool()))
        .expect("new");
    let asked = call("hear_v1", json!({}));
    let work = async {
        let run = Dimensions::new().session("s-1").scope(tools.execute(&asked));
        let speaking = async { say.send("hello").expect("the tool hears") };
        tokio::join!(run, speaking).0
    };
    let told = telemetry.scope(work).await;
    assert_eq!(told, Ok(json!("hello, s-1")));
    let tree = recorder.tree(&["session_id"]);
    let ran = "execute_tool hear_v1 session_id=s-1\n  SELECT words session_id=s-1\n";
    assert!(tree.contains(ran), "{tree}");

    let panicked = tokio::spawn(async move { tools.execute(&call("panic_v1", json!({}))).await });
    let panic = panicked.await.expect_err("it panics").into_panic();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"the tool panics"));
}

/// The macro judges ids as [`throughline::ToolId`] does: these are accepted by both, and the
/// `compile_fail` examples of the macro's documentation are refused by both.
#[test]
fn ids_that_the_macro_accepts_are_ids() {
    for id in ["stock_v1", "add_v2", "ping_v1"] {
        assert!(id.parse::<throughline::ToolId>().is_ok());
    }
    assert!("stock".parse::<throughline::ToolId>().is_err());
}
