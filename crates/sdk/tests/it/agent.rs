//! The agent loop against models that answer from a script.

mod aborts;
mod limits;
mod memory;
mod perception;
mod plugins;
mod policies;
mod privacy;
mod streaming;
mod sub_agents;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Deserialize;
use throughline::{
    Agent, AgentBuilder, AgentError, ChatError, ChatModel, ChatStream, Endpoint, ErrorType,
    Fallback, Fault as _, Json, Outcome, Recorder, Task, Telemetry, ToolError, ToolRegistry,
    Traced, tool,
};
use throughline_llm::{
    ChatRequest, ChatResponse, Choice, Chunk, Delta, FinishReason, Message, Part, Role, ToolCall,
    ToolCallDelta,
};
use throughline_trace::Usage;

/// A model that answers what its script says, and keeps what it was asked.
#[derive(Clone, Default)]
pub(crate) struct Scripted {
    script: Arc<Mutex<VecDeque<Result<ChatResponse, ChatError>>>>,
    asked: Arc<Mutex<Vec<ChatRequest>>>,
}

impl Scripted {
    pub(crate) fn new(script: impl IntoIterator<Item = Result<ChatResponse, ChatError>>) -> Self {
        let script = Arc::new(Mutex::new(script.into_iter().collect()));
        Self { script, asked: Arc::default() }
    }

    fn next(&self, request: ChatRequest) -> Option<Result<ChatResponse, ChatError>> {
        self.asked.lock().expect("asked").push(request);
        self.script.lock().expect("script").pop_front()
    }
}

impl ChatModel for Scripted {
    fn endpoint(&self) -> Endpoint {
        Endpoint::in_process("scripted")
    }

    fn chat(&self, request: ChatRequest) -> BoxFuture<'_, Result<ChatResponse, ChatError>> {
        let next = self.next(request);
        Box::pin(async move {
            match next {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        })
    }

    fn stream(&self, request: ChatRequest) -> BoxFuture<'_, Result<ChatStream, ChatError>> {
        let next = self.next(request);
        Box::pin(async move {
            let response = next.expect("a script")?;
            let words: Vec<String> =
                response.text().split_inclusive(' ').map(str::to_owned).collect();
            let chunks = words.into_iter().map(|word| {
                let delta =
                    Delta { role: Some(Role::Assistant), text: Some(word), ..Delta::default() };
                Ok(Chunk { deltas: vec![delta], ..Chunk::default() })
            });
            let calls = response.tool_calls().into_iter().enumerate();
            let tool_calls = calls.map(|(at, call)| ToolCallDelta {
                index: Some(at),
                id: Some(call.id.clone()),
                name: Some(call.name.clone()),
                arguments: call.arguments.clone(),
            });
            let (tool_calls, finish_reason) = (tool_calls.collect(), Some(FinishReason::Stop));
            let stop = Delta { tool_calls, finish_reason, ..Delta::default() };
            let last = Ok(Chunk { deltas: vec![stop], usage: response.usage, ..Chunk::default() });
            Ok(ChatStream::new(None, futures_util::stream::iter(chunks.chain([last]))))
        })
    }
}

pub(crate) fn usage() -> Option<Usage> {
    Some(Usage { input_tokens: 10, output_tokens: 4, ..Usage::default() })
}

pub(crate) fn says(text: &str) -> Result<ChatResponse, ChatError> {
    Ok(ChatResponse { usage: usage(), ..ChatResponse::of_text("m-1", text) })
}

pub(crate) fn wants(text: &str, calls: &[(&str, &str, &str)]) -> Result<ChatResponse, ChatError> {
    let mut message = Message::assistant(text);
    message.parts.extend(calls.iter().map(|(id, name, arguments)| {
        Part::ToolCall(ToolCall {
            id: (*id).to_owned(),
            name: (*name).to_owned(),
            arguments: (*arguments).to_owned(),
        })
    }));
    let choice = Choice { message, finish_reason: FinishReason::ToolCall };
    Ok(ChatResponse {
        model: "m-1".to_owned(),
        choices: vec![choice],
        usage: usage(),
        ..ChatResponse::default()
    })
}

#[derive(Deserialize, JsonSchema)]
struct Item {
    item: u32,
}

pub(crate) fn tools() -> ToolRegistry {
    let stock = tool("stock_v1", "How many there are", |ask: Item| async move {
        if ask.item == 0 { Err("there is no item 0") } else { Ok(12) }
    });
    let price = tool("price_v2", "What it costs", |_: Item| async { Json(9.5) });
    let registry = ToolRegistry::new().with(stock.expect("stock")).expect("new");
    registry.with(price.expect("price")).expect("new")
}

pub(crate) struct Stage {
    pub(crate) recorder: Recorder,
    pub(crate) telemetry: Telemetry,
    model: Scripted,
}

pub(crate) fn stage(
    script: impl IntoIterator<Item = Result<ChatResponse, ChatError>>,
) -> (Stage, AgentBuilder) {
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).build().expect("telemetry");
    let model = Scripted::new(script);
    let builder =
        Agent::builder("shop", Traced::new(model.clone()), "gpt-4o").instructions("Be brief.");
    (Stage { recorder, telemetry, model }, builder)
}

impl Stage {
    pub(crate) async fn run(
        &self,
        builder: AgentBuilder,
        task: impl Into<Task>,
    ) -> Result<throughline::AgentRun, AgentError> {
        // Registered outside of the stage's telemetry, so that the tree is the run's alone.
        let agent = builder.tools(tools()).build().expect("an agent");
        self.telemetry.scope(agent.run(task)).await
    }

    fn decisions(&self) -> String {
        self.recorder.log_text(&["stage", "decision.reason", "decision.confidence", "seq"])
    }
}

const STEP_KEYS: [&str; 5] =
    ["ai.step_index", "ai.phase", "ai.tool_used", "ai.reasoning_trace", "outcome"];

#[tokio::test]
async fn r2_5_a_run_is_one_trace_of_named_steps_with_its_decisions() {
    let (stage, builder) = stage([
        wants(
            "I check stock and price.",
            &[("c1", "stock_v1", r#"{"item":7}"#), ("c2", "price_v2", r#"{"item":7}"#)],
        ),
        says("There are 12, at 9.50 each."),
    ]);
    let builder = builder
        .confidence(|response| Some(if response.tool_calls().is_empty() { 0.9 } else { 0.7 }));
    let task = Task::new("Is item 7 there?").session("s-1").workflow("w-1");
    let run = stage.run(builder, task).await.expect("an answer");

    assert_eq!(run.answer, "There are 12, at 9.50 each.");
    assert_eq!((run.turns, run.outcome), (2, Outcome::Ok));
    assert_eq!(run.usage.total_tokens(), 28);
    assert_eq!(run.decisions.len(), 6);
    insta::assert_snapshot!(stage.recorder.tree(&STEP_KEYS), @r"
    invoke_agent shop outcome=ok
      shop.plan.stock ai.step_index=0 ai.phase=plan ai.tool_used=stock_v1 ai.reasoning_trace=I check stock and price.
        chat gpt-4o outcome=ok
      shop.act.stock ai.step_index=1 ai.phase=act ai.tool_used=stock_v1 ai.reasoning_trace=I check stock and price.
        tool.registry.stock_v1
        execute_tool stock_v1 ai.tool_used=stock_v1 outcome=ok
      shop.act.price ai.step_index=2 ai.phase=act ai.tool_used=price_v2 ai.reasoning_trace=I check stock and price.
        tool.registry.price_v2
        execute_tool price_v2 ai.tool_used=price_v2 outcome=ok
      shop.observe.stock ai.step_index=3 ai.phase=observe ai.tool_used=stock_v1 ai.reasoning_trace=the tool answered
      shop.observe.price ai.step_index=4 ai.phase=observe ai.tool_used=price_v2 ai.reasoning_trace=the tool answered
      shop.reflect.stock ai.step_index=5 ai.phase=reflect ai.reasoning_trace=the tools answered
      shop.plan.answer ai.step_index=6 ai.phase=plan ai.reasoning_trace=There are 12, at 9.50 each.
        chat gpt-4o outcome=ok
      shop.reflect.answer ai.step_index=7 ai.phase=reflect ai.reasoning_trace=the model answered
    ");
    insta::assert_snapshot!(stage.decisions(), @r#"
    agent.decision "stock_v1+price_v2" stage=plan decision.reason=I check stock and price. decision.confidence=0.7 seq=1
    agent.decision "stock_v1" stage=act decision.reason=stock_v1: I check stock and price. decision.confidence=0.7 seq=2
    agent.decision "price_v2" stage=act decision.reason=price_v2: I check stock and price. decision.confidence=0.7 seq=3
    agent.decision "continue" stage=reflect decision.reason=the tools answered decision.confidence=0.7 seq=4
    agent.decision "answer" stage=plan decision.reason=There are 12, at 9.50 each. decision.confidence=0.9 seq=5
    agent.decision "finish" stage=reflect decision.reason=the model answered decision.confidence=0.9 seq=6
    "#);

    let spans = stage.recorder.spans();
    let of = |name: &str| spans.iter().find(|span| span.name == name).expect("a span");
    let chat = of("chat gpt-4o").span_context.span_id();
    for name in ["execute_tool stock_v1", "execute_tool price_v2"] {
        let links: Vec<_> = of(name).links.iter().map(|link| link.span_context.span_id()).collect();
        assert_eq!(links, [chat], "{name} links to the call that asked");
    }
    let root = of("invoke_agent shop");
    let value = |key: &str| {
        let found = root.attributes.iter().find(|entry| entry.key.as_str() == key);
        found.map(|entry| entry.value.to_string()).unwrap_or_default()
    };
    assert_eq!(value("gen_ai.operation.name"), "invoke_agent");
    assert_eq!(value("gen_ai.conversation.id"), "s-1");
    assert_eq!(
        run.trace_id.expect("a trace").to_string(),
        root.span_context.trace_id().to_string()
    );
    for span in &spans {
        for key in ["agent_id", "session_id", "workflow_id"] {
            assert!(
                span.attributes.iter().any(|entry| entry.key.as_str() == key),
                "{key} on {}",
                span.name
            );
        }
    }

    let asked = stage.model.asked.lock().expect("asked");
    let roles: Vec<&str> = asked[1].messages.iter().map(|message| message.role.as_str()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "tool", "tool"]);
    let offered: Vec<&str> = asked[0].tools.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(offered, ["price_v2", "stock_v1"]);
}

#[tokio::test]
async fn tools_that_fail_are_told_to_the_model() {
    let (stage, builder) = stage([
        wants("", &[("c1", "stock_v1", r#"{"item":0}"#), ("c2", "Weather?", "{}")]),
        says("I cannot say."),
    ]);
    let run = stage.run(builder, "Is item 0 there?").await.expect("an answer");
    assert_eq!(run.outcome, Outcome::Ok);
    insta::assert_snapshot!(stage.recorder.tree(&["ai.reasoning_trace", "error.type"]), @r#"
    invoke_agent shop
      shop.plan.stock
        chat gpt-4o
      shop.act.stock error.type=TOOL_FAILED ERROR(there is no item 0)
        tool.registry.stock_v1
        execute_tool stock_v1 error.type=TOOL_FAILED ERROR(there is no item 0)
      shop.act.weather_ error.type=TOOL_MISSING ERROR(expected a registered tool (price_v2, stock_v1), got "Weather?")
        tool.registry.unknown error.type=TOOL_MISSING ERROR(no tool "Weather?" is registered)
      shop.observe.stock ai.reasoning_trace=there is no item 0
      shop.observe.weather_ ai.reasoning_trace=expected a registered tool (price_v2, stock_v1), got "Weather?"
      shop.reflect.stock ai.reasoning_trace=2 of 2 tools failed
      shop.plan.answer ai.reasoning_trace=I cannot say.
        chat gpt-4o
      shop.reflect.answer ai.reasoning_trace=the model answered
    "#);
    insta::assert_snapshot!(stage.decisions(), @r#"
    agent.decision "stock_v1+Weather?" stage=plan decision.reason=the model asked for stock_v1+Weather? seq=1
    agent.decision "stock_v1" stage=act decision.reason=stock_v1: the model asked for it seq=2
    agent.decision "Weather?" stage=act decision.reason=Weather?: the model asked for it seq=3
    agent.decision "replan" stage=reflect decision.reason=2 of 2 tools failed seq=4
    agent.decision "answer" stage=plan decision.reason=I cannot say. seq=5
    agent.decision "finish" stage=reflect decision.reason=the model answered seq=6
    "#);
    let told: Vec<String> = run
        .messages
        .iter()
        .flat_map(|message| &message.parts)
        .filter_map(|part| match part {
            Part::ToolResult(result) => Some(result.result.to_string()),
            _ => None,
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    {"error":"there is no item 0"}
    {"error":"expected a registered tool (price_v2, stock_v1), got \"Weather?\""}
    "#);
}

#[tokio::test]
async fn a_model_that_never_answers_is_stopped() {
    let call = || wants("again", &[("c", "stock_v1", r#"{"item":7}"#)]);
    let (stage, builder) = stage([call(), call(), call()]);
    let error = stage.run(builder.max_turns(2), "Loop").await.expect_err("no answer");
    assert_eq!(error, AgentError::TurnLimit { turns: 2 });
    let spans = stage.recorder.spans();
    let root = spans.last().expect("the run");
    assert_eq!(root.name, "invoke_agent shop");
    let last = stage.decisions();
    assert!(last.trim_end().lines().last().expect("a decision").contains("\"stop\""), "{last}");
}

#[tokio::test]
async fn a_model_that_fails_fails_the_run() {
    let (stage, builder) = stage([Err(ChatError::new(ErrorType::Auth, "the key is refused"))]);
    let error = stage.run(builder, "Hello").await.expect_err("no answer");
    assert_eq!(error.error_type(), ErrorType::Auth);
    insta::assert_snapshot!(stage.recorder.tree(&["error.type", "outcome"]), @r"
    invoke_agent shop error.type=AUTH outcome=error ERROR(expected the model to answer in turn 1: the key is refused)
      shop.plan.task error.type=AUTH ERROR(the key is refused)
        chat gpt-4o error.type=AUTH outcome=error ERROR(the key is refused)
          attempt gpt-4o error.type=AUTH ERROR(the key is refused)
    ");
    stage.telemetry.flush();
    let metrics = stage.recorder.metrics();
    let runs: Vec<&String> =
        metrics.iter().filter(|line| line.contains("operation=invoke_agent")).collect();
    insta::assert_snapshot!(runs[0], @"agent_operations_total{agent_id=shop, is_cached=false, model_name=gpt-4o, operation=invoke_agent, outcome=error, status_code=none} 1");
}

#[tokio::test]
async fn an_empty_answer_is_no_answer() {
    let (stage, builder) = stage([says("")]);
    let error = stage.run(builder, "Hello").await.expect_err("no answer");
    assert_eq!(error, AgentError::Empty { model: "gpt-4o".to_owned(), turn: 1 });
    assert_eq!(error.error_type(), ErrorType::InvalidResponse);
}

#[tokio::test]
async fn a_run_that_is_dropped_is_cancelled_and_counted() {
    let (stage, builder) = stage([]);
    let waited = tokio::time::timeout(Duration::from_millis(20), stage.run(builder, "Hello")).await;
    assert!(waited.is_err());
    insta::assert_snapshot!(stage.recorder.tree(&["outcome"]), @r"
    invoke_agent shop outcome=cancelled
      shop.plan.task outcome=cancelled
        chat gpt-4o outcome=cancelled
    ");
    stage.telemetry.flush();
    let metrics = stage.recorder.metrics();
    assert!(
        metrics.iter().any(|line| line.contains("operation=invoke_agent, outcome=cancelled")),
        "{metrics:?}"
    );
    let counts = stage.telemetry.counts();
    assert_eq!(counts.open_spans, 0);
}

#[tokio::test]
async fn a_streaming_agent_answers_the_same() {
    let (stage, builder) = stage([says("There are 12 of them.")]);
    let run = stage.run(builder.streaming(true), "Is item 7 there?").await.expect("an answer");
    assert_eq!(run.answer, "There are 12 of them.");
    assert_eq!(run.usage.total_tokens(), 14);
    insta::assert_snapshot!(stage.recorder.tree(&["outcome"]), @r"
    invoke_agent shop outcome=ok
      shop.plan.answer
        chat gpt-4o outcome=ok
          http.stream.init
          http.stream.segment
      shop.reflect.answer
    ");
}

#[tokio::test]
async fn a_tool_that_fell_back_makes_the_run_degraded() {
    let (stage, builder) =
        stage([wants("", &[("c1", "cached_v1", r#"{"item":7}"#)]), says("About 17.")]);
    let cached = tool("cached_v1", "How many there were", |_: Item| async {
        Fallback::new("stock", async { Err("connection refused") })
            .degraded("cache", async { Ok(17) })
            .run_with(|_: &&str| ErrorType::Connection)
            .await
            .map(|answered| answered.value)
            .map_err(|error| error.primary)
    });
    let tools = ToolRegistry::new().with(cached.expect("cached")).expect("new");
    let agent = builder.tools(tools).build().expect("an agent");
    let run = stage.telemetry.scope(agent.run("Is item 7 there?")).await.expect("an answer");
    assert_eq!(run.outcome, Outcome::FallbackDegraded);
    insta::assert_snapshot!(stage.recorder.tree(&["fallback.decision", "fallback.branch", "fallback.result", "outcome"]), @r"
    invoke_agent shop outcome=fallback_degraded
      shop.plan.cached
        chat gpt-4o outcome=ok
      shop.act.cached
        tool.registry.cached_v1
        execute_tool cached_v1 outcome=ok
          fallback stock fallback.decision=triggered fallback.branch=degraded fallback.result=success outcome=fallback_degraded
            attempt stock fallback.branch=primary outcome=error ERROR(connection refused)
            attempt stock fallback.branch=degraded outcome=ok
      shop.observe.cached
      shop.reflect.cached
      shop.plan.answer
        chat gpt-4o outcome=ok
      shop.reflect.answer
    ");
}

#[test]
fn whatever_is_wrong_with_a_tool_is_an_error_of_the_agent() {
    let of_tools = |first: &str, second: &str| -> Result<Agent, AgentError> {
        let tools = ToolRegistry::new()
            .with(tool(first, "One", |_: Item| async { Json(1) })?)?
            .with(tool(second, "Another", |_: Item| async { Json(2) })?)?;
        Agent::builder("shop", Scripted::default(), "gpt-4o").tools(tools).build()
    };
    let text = |first, second| of_tools(first, second).expect_err("wrong tools").to_string();
    insta::assert_snapshot!(text("stock", "price_v1"), @r#"expected a tool name of a-z, A-Z, 0-9, '_' and '-' with its version (web_search_v2), at most 64 characters, got "stock""#);
    insta::assert_snapshot!(text("stock_v1", "stock_v1"), @"expected a new tool id, got stock_v1, which is registered; give the new tool another version");
}

#[tokio::test]
async fn only_the_timeout_of_a_model_is_a_model_timeout() {
    let late = || Err(ChatError::new(ErrorType::Timeout, "no answer"));
    let (stage, builder) = stage([late(), late(), late()]);
    let error = stage.run(builder, "Hello").await.expect_err("no answer");
    assert_eq!(error.outcome(), Outcome::ModelTimeout);
    assert_eq!(ToolError::kind(ErrorType::Timeout, "late").outcome(), Outcome::Timeout);
    let root = stage.recorder.tree(&["outcome"]);
    assert!(root.starts_with("invoke_agent shop outcome=model_timeout"), "{root}");
}

#[test]
fn r2_5_a_name_that_cannot_be_part_of_a_span_name_is_refused() {
    let error =
        Agent::builder("My Shop", Scripted::default(), "gpt-4o").build().expect_err("a name");
    assert_eq!(error.to_string(), "expected an agent of a-z, 0-9, '_' and '-', got \"My Shop\"");
}

#[tokio::test]
async fn a_run_that_is_dropped_cancels_its_tools_and_steps() {
    let (stage, builder) = stage([wants(
        "",
        &[("c1", "hang_v1", r#"{"item":7}"#), ("c2", "stock_v1", r#"{"item":7}"#)],
    )]);
    let hang = tool("hang_v1", "Never answers", |_: Item| std::future::pending::<Json<u8>>());
    let tools = tools().with(hang.expect("hang")).expect("new");
    let agent = builder.tools(tools).build().expect("an agent");
    let run = stage.telemetry.scope(agent.run("Is item 7 there?"));
    tokio::time::timeout(Duration::from_millis(20), run).await.expect_err("it hangs");
    insta::assert_snapshot!(stage.recorder.tree(&["outcome", "error.type"]), @r"
    invoke_agent shop outcome=cancelled
      shop.plan.hang
        chat gpt-4o outcome=ok
      shop.act.hang outcome=cancelled
        tool.registry.hang_v1
        execute_tool hang_v1 outcome=cancelled
      shop.act.stock
        tool.registry.stock_v1
        execute_tool stock_v1 outcome=ok
    ");
}

#[tokio::test]
async fn a_refusal_keeps_its_words() {
    let refusal = || {
        let mut response = ChatResponse::of_text("m-1", "");
        response.choices[0].message.parts = vec![Part::Refusal("I help with no weapons.".into())];
        Ok(response)
    };
    let filtered = || {
        let mut response = ChatResponse::of_text("m-1", "First you take");
        response.choices[0].finish_reason = FinishReason::ContentFilter;
        Ok(response)
    };
    for (answer, said) in [(refusal(), "I help with no weapons."), (filtered(), "First you take")] {
        let (stage, builder) = stage([answer]);
        let error = stage.run(builder, "Hello").await.expect_err("a refusal");
        assert_eq!(error.error_type(), ErrorType::ContentFiltered);
        let (model, text) = ("gpt-4o".to_owned(), said.to_owned());
        assert_eq!(error, AgentError::Refused { model, turn: 1, text });
        let text = "expected an answer from gpt-4o in turn 1, got a refusal";
        assert_eq!(error.to_string(), text);
        let tree = stage.recorder.tree(&["error.type"]);
        let failed = format!("invoke_agent shop error.type=CONTENT_FILTERED ERROR({text})");
        assert!(tree.starts_with(&failed), "{tree}");
    }
    let (stage, builder) = stage([refusal()]);
    let agent = builder.capture_content(false).build().expect("an agent");
    let work = throughline::workflow("order").run(agent.run("Hello"));
    stage.telemetry.scope(work).await.expect_err("a refusal");
    let all = format!("{:?}", stage.recorder.spans());
    assert!(all.contains("invoke_workflow order") && !all.contains("weapons"), "{all}");
}

#[tokio::test]
async fn the_model_s_error_is_the_source_of_the_agent_s() {
    let (stage, builder) = stage([Err(ChatError::new(ErrorType::Auth, "the key is refused"))]);
    let error = stage.run(builder, "Hello").await.expect_err("no answer");
    let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref());
    assert_eq!(source.map(|error: &ChatError| error.error_type), Some(ErrorType::Auth));
}
