//! What an agent's work looks like at the receiver (R1.2, R1.3): every outcome on the real path that
//! makes it, with the labels of the requirement, over OTLP; logs and retries with their dimensions.

use std::time::Duration;

use futures_util::future::BoxFuture;
use opentelemetry_proto::tonic::metrics::v1::{metric::Data, number_data_point};
use opentelemetry_proto::tonic::trace::v1::Span;
use throughline::llm::ChatRequest;
use throughline::resilience::{BreakerPolicy, Policy, RetryPolicy, TimeoutPolicy};
use throughline::{
    Agent, ChatError, ChatModel as _, Dimensions, ErrorType, FallbackModel, Json, StepAction,
    StepContext, StepPolicy, Telemetry, ToolRegistry, Traced, Verdict, tool,
};
use tracing_subscriber::layer::SubscriberExt as _;

use crate::provider::{Cue, Provider, Puppet, Step, quick};
use crate::receiver::{self, Received, shown};

/// A model that wants two tools.
const WANTS_TOOLS: &str = r#"{"id":"chatcmpl-2","object":"chat.completion","model":"gpt-4o","choices":[
    {"index":0,"finish_reason":"tool_calls","message":{"role":"assistant","content":null,"tool_calls":[
        {"id":"c1","type":"function","function":{"name":"pay_v1","arguments":"{}"}},
        {"id":"c2","type":"function","function":{"name":"stock_v1","arguments":"{}"}}]}}]}"#;

/// An answer out of a cache.
const CACHED: &str = r#"{"id":"chatcmpl-3","object":"chat.completion","model":"gpt-4o","choices":[
    {"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"hello"}}]}"#;

const HIT: &[(&str, &str)] =
    &[("content-type", "application/json"), ("x-throughline-cache", "hit")];

/// Forbids to pay.
struct NoPayment;

impl StepPolicy for NoPayment {
    fn name(&self) -> &str {
        "no_payment"
    }

    fn before<'a>(&'a self, step: &'a StepContext<'a>) -> BoxFuture<'a, Verdict> {
        let verdict = match &step.action {
            StepAction::ToolCall(call) if call.name == "pay_v1" => Verdict::deny("not today"),
            _ => Verdict::Allow,
        };
        Box::pin(async move { verdict })
    }
}

fn request() -> ChatRequest {
    ChatRequest::new("gpt-4o").user("hi")
}

fn once() -> Policy {
    Policy { retry: RetryPolicy { max_attempts: 1, ..quick().retry }, ..quick() }
}

async fn the_work_of_models() {
    let provider = Provider::start([
        Step::Answer("hello"),
        Step::Refuse(200, HIT, CACHED),
        Step::Refuse(503, &[], "busy"),
        Step::Answer("hello"),
        Step::Refuse(400, &[], "what?"),
        Step::Refuse(500, &[], "down"),
        Step::Answer("a smaller hello"),
    ])
    .await;
    let model = Traced::new(provider.client.clone()).policy(quick());
    model.chat(request()).await.expect("ok");
    model.chat(request()).await.expect("ok, out of a cache");
    model.chat(request()).await.expect("retry_succeeded");
    model.chat(request()).await.expect_err("error");
    let model = model.policy(once());
    let fallback = FallbackModel::new(model.clone()).then(model, "gpt-4o-mini");
    fallback.chat(request()).await.expect("fallback_degraded");

    let timeouts = TimeoutPolicy { attempt_ms: Some(20), ..TimeoutPolicy::default() };
    let slow = Puppet::new([vec![Cue::Wait(Duration::from_secs(3_600))]]);
    let slow = Traced::new(slow).policy(Policy { timeouts, ..once() });
    slow.chat(request()).await.expect_err("model_timeout");

    let breaker = BreakerPolicy { min_attempts: 1, ..BreakerPolicy::default() };
    let broken = Puppet::new([vec![Cue::Fail(ChatError::new(ErrorType::Server, "down"))]]);
    let broken = Traced::new(broken).policy(Policy { breaker: Some(breaker), ..once() });
    broken.chat(request()).await.expect_err("error");
    broken.chat(request()).await.expect_err("circuit_open");
}

async fn the_work_of_an_agent() {
    let provider =
        Provider::start([Step::Raw("application/json", WANTS_TOOLS), Step::Answer("no")]).await;
    let answers = |id, about| {
        tool(id, about, |_: ()| async {
            tracing::warn!("the stock is low");
            Json(7)
        })
        .expect("a tool")
    };
    let tools = ToolRegistry::new().with(answers("pay_v1", "Pays")).expect("new");
    let agent = Agent::builder("shop", Traced::new(provider.client.clone()), "gpt-4o")
        .role("clerk")
        .tools(tools.with(answers("stock_v1", "What is left")).expect("new"))
        .policy(NoPayment)
        .build()
        .expect("an agent");
    agent.run("Pay for item 7").await.expect("an answer");
}

async fn received() -> Received {
    let (address, received) = receiver::start();
    let telemetry = Telemetry::builder()
        .environment(false)
        .service_name("shop")
        .endpoint(format!("http://{address}"))
        .build()
        .expect("telemetry");
    let layers = tracing_subscriber::registry().with(throughline::layer());
    let subscriber = layers.with(throughline::log_layer());
    let _default = tracing::subscriber::set_default(subscriber);
    let whose = Dimensions::new().session("s-1").workflow("w-1");
    let work = async {
        the_work_of_models().await;
        the_work_of_an_agent().await;
    };
    telemetry.scope(async { whose.scope(work).await }).await;
    telemetry.close().await.expect("nothing is lost");
    received
}

/// `outcome status_code model_name is_cached operation: count`, sorted.
fn operations(received: &Received) -> String {
    let metrics = received.kept_metrics();
    let last = metrics.iter().rfind(|metric| metric.name == "agent_operations_total");
    let Some(Data::Sum(sum)) = last.and_then(|metric| metric.data.clone()) else {
        panic!("no counter agent_operations_total in {metrics:?}");
    };
    assert!(sum.is_monotonic, "it only counts");
    let mut lines: Vec<String> = sum
        .data_points
        .iter()
        .map(|point| {
            let labels = ["outcome", "status_code", "model_name", "is_cached", "operation"]
                .map(|label| shown(&point.attributes, label));
            let Some(number_data_point::Value::AsInt(count)) = point.value else {
                panic!("no whole number: {point:?}");
            };
            format!("{}: {count}", labels.join(" "))
        })
        .collect();
    lines.sort();
    lines.join("\n")
}

#[tokio::test]
async fn r1_3_every_outcome_arrives_with_the_labels_of_the_requirement() {
    let received = received().await;
    insta::assert_snapshot!(operations(&received), @r"
    circuit_open none gpt-4o false chat: 1
    error 400 gpt-4o false chat: 1
    error 500 gpt-4o false chat: 1
    error none gpt-4o false chat: 1
    fallback_degraded none none false fallback: 1
    model_timeout none gpt-4o false chat: 1
    ok 200 gpt-4o false chat: 1
    ok 200 gpt-4o false chat: 2
    ok 200 gpt-4o true chat: 1
    ok 200 gpt-4o-mini false chat: 1
    ok none gpt-4o false invoke_agent: 1
    ok none none false execute_tool: 1
    policy_rejected none none false execute_tool: 1
    retry_succeeded 200 gpt-4o false chat: 1
    ");
}

fn children<'s>(spans: &'s [Span], of: &Span) -> Vec<&'s Span> {
    let mut children: Vec<&Span> =
        spans.iter().filter(|span| span.parent_span_id == of.span_id).collect();
    children.sort_by_key(|span| span.start_time_unix_nano);
    children
}

#[tokio::test]
async fn r1_2_retries_and_logs_arrive_with_their_dimensions() {
    let received = received().await;
    let spans = received.kept_spans();
    let call = spans.iter().find(|span| shown(&span.attributes, "outcome") == "retry_succeeded");
    let call = call.expect("a call that was tried again");
    let mut lines = vec![format!("{} {}", call.name, shown(&call.attributes, "retry_count"))];
    for attempt in children(&spans, call) {
        let count = shown(&attempt.attributes, "retry_count");
        lines.push(format!("  {} {count}", attempt.name));
    }
    insta::assert_snapshot!(lines.join("\n"), @r"
    chat gpt-4o 1
      attempt gpt-4o 0
      attempt gpt-4o 1
    ");
    for span in &spans {
        let of = ["session_id", "workflow_id"].map(|key| shown(&span.attributes, key));
        assert_eq!(of, ["s-1", "w-1"], "{}", span.name);
    }

    let mut logs = received.kept_logs();
    logs.retain(|record| format!("{:?}", record.body).contains("the stock is low"));
    assert_eq!(logs.len(), 1, "the tool that was allowed: {logs:?}");
    let labels = ["agent_id", "session_id", "agent_role"];
    assert_eq!(labels.map(|key| shown(&logs[0].attributes, key)), ["shop", "s-1", "clerk"]);
    let at = spans.iter().find(|span| span.span_id == logs[0].span_id).expect("its span");
    assert_eq!((at.name.as_str(), &at.trace_id), ("execute_tool stock_v1", &logs[0].trace_id));
}
