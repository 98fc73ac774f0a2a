//! Workflows, steps made by hand, and chat models with others behind them.

use futures_util::StreamExt as _;
use throughline::llm::{ChatRequest, ChatResponse};
use throughline::resilience::ErrorSet;
use throughline::{
    ChatError, ChatModel, ChatStream, Dimensions, Endpoint, ErrorType, Fallback, FallbackModel,
    Fault as _, Phase, ToolError, Traced, keys, step, workflow,
};

use crate::provider::recorded;

const SHOWN: [&str; 3] = [keys::WORKFLOW_ID, keys::SESSION_ID, keys::OUTCOME];

pub(crate) async fn stock(is_there: bool) -> Result<u32, ToolError> {
    let primary = async move {
        if is_there { Ok(17) } else { Err(ToolError::kind(ErrorType::Connection, "it is down")) }
    };
    Fallback::new("stock", primary)
        .degraded("cached", async { Ok(16) })
        .run()
        .await
        .map(|answered| answered.value)
        .map_err(ToolError::fault)
}

#[tokio::test]
async fn a_workflow_is_whose_it_says_and_ends_as_what_is_in_it_ended() {
    let (recorder, telemetry) = recorded();
    let of = |name: &str| workflow(name).dimensions(Dimensions::new().session("s-1"));
    let work = async {
        assert_eq!(of("calm").id("order-1").run(stock(true)).await, Ok(17));
        assert_eq!(of("degraded").run(stock(false)).await, Ok(16));
        let late =
            async { Err::<u8, _>(ToolError::kind(ErrorType::Timeout, "the bank is silent")) };
        assert!(of("late").run(late).await.is_err());
        // An error of somebody else's, which says no kind by itself.
        let foreign = async { "seventeen".parse::<u8>() };
        assert!(of("foreign").run_with(|_| ErrorType::InvalidArguments, foreign).await.is_err());
        let never = of("dropped").run(std::future::pending::<Result<u8, ToolError>>());
        assert!(futures_util::poll!(std::pin::pin!(never)).is_pending());
        of("by_hand").start().end();
    };
    telemetry.scope(work).await;
    insta::assert_snapshot!(recorder.tree(&SHOWN), @r"
    invoke_workflow calm workflow_id=order-1 session_id=s-1 outcome=ok
      fallback stock workflow_id=order-1 session_id=s-1 outcome=ok
        attempt stock workflow_id=order-1 session_id=s-1 outcome=ok
    invoke_workflow degraded workflow_id=degraded session_id=s-1 outcome=fallback_degraded
      fallback stock workflow_id=degraded session_id=s-1 outcome=fallback_degraded
        attempt stock workflow_id=degraded session_id=s-1 outcome=error ERROR(it is down)
        attempt stock workflow_id=degraded session_id=s-1 outcome=ok
    invoke_workflow late workflow_id=late session_id=s-1 outcome=timeout ERROR(TIMEOUT)
    invoke_workflow foreign workflow_id=foreign session_id=s-1 outcome=error ERROR(invalid digit found in string)
    invoke_workflow dropped workflow_id=dropped session_id=s-1 outcome=cancelled
    invoke_workflow by_hand workflow_id=by_hand session_id=s-1
    ");
    telemetry.flush();
    let metrics = recorder.metrics().join("\n");
    assert!(metrics.contains("operation=invoke_workflow, outcome=fallback_degraded"), "{metrics}");
}

#[test]
fn r2_5_a_step_by_hand_has_what_a_step_of_an_agent_has() {
    let (recorder, telemetry) = recorded();
    {
        let _in = telemetry.enter();
        let why = "ü".repeat(200);
        step("triage", Phase::Act, "Page nurse")
            .tool("page_v1")
            .reason(&why)
            .index(3)
            .start()
            .end();
    }
    let cut = "ü".repeat(128);
    let shown = ["throughline.role", "ai.agent.name", "ai.phase", "ai.tool_used", "ai.step_index"];
    insta::assert_snapshot!(recorder.tree(&shown), @"triage.act.page_nurse throughline.role=step ai.agent.name=triage ai.phase=act ai.tool_used=page_v1 ai.step_index=3");
    assert!(recorder.tree(&["ai.reasoning_trace"]).ends_with(&format!("={cut}\n")));
}

/// A model that answers, or else fails so; it says which model it was asked for.
struct Fixed(Result<(), ErrorType>);

impl Fixed {
    fn answer(&self, request: &ChatRequest) -> Result<ChatResponse, ChatError> {
        let model = request.model.as_str();
        match self.0 {
            Ok(()) => Ok(ChatResponse::of_text(model, format!("I am {model}"))),
            Err(kind) => Err(ChatError::new(kind, format!("{model} is not well"))),
        }
    }
}

impl ChatModel for Fixed {
    fn endpoint(&self) -> Endpoint {
        Endpoint::in_process("fixed")
    }

    fn chat(
        &self,
        request: ChatRequest,
    ) -> futures_util::future::BoxFuture<'_, Result<ChatResponse, ChatError>> {
        Box::pin(std::future::ready(self.answer(&request)))
    }

    fn stream(
        &self,
        request: ChatRequest,
    ) -> futures_util::future::BoxFuture<'_, Result<ChatStream, ChatError>> {
        let opened =
            self.answer(&request).map(|_| ChatStream::new(None, futures_util::stream::empty()));
        Box::pin(std::future::ready(opened))
    }
}

pub(crate) fn models(primary: ErrorType, second: Result<(), ErrorType>) -> FallbackModel {
    FallbackModel::new(Traced::new(Fixed(Err(primary))))
        .then(Fixed(second), "small")
        .then(Fixed(Ok(())), "smallest")
}

#[tokio::test]
async fn the_next_model_answers_when_one_does_not() {
    let (recorder, telemetry) = recorded();
    let model = models(ErrorType::InvalidResponse, Err(ErrorType::Server));
    let ask = model.chat(ChatRequest::new("large").user("who are you?"));
    let answer = telemetry.scope(ask).await.expect("an answer");
    assert_eq!(answer.text(), "I am smallest");
    let shown = [keys::FALLBACK_RESULT, keys::OUTCOME, keys::FALLBACK_NAME];
    insta::assert_snapshot!(recorder.tree(&shown), @r"
    fallback chat fallback.result=success outcome=fallback_degraded
      attempt chat outcome=error throughline.fallback.name=primary ERROR(large is not well)
        chat large outcome=error ERROR(large is not well)
          attempt large
          attempt large
          attempt large ERROR(large is not well)
      attempt chat outcome=error throughline.fallback.name=small ERROR(small is not well)
      attempt chat outcome=ok throughline.fallback.name=smallest
    ");
    insta::assert_snapshot!(recorder.log_text(&[keys::STAGE, keys::DECISION_REASON]), @r#"
    agent.decision "small" stage=fallback decision.reason=primary failed with INVALID_RESPONSE: large is not well
    agent.decision "smallest" stage=fallback decision.reason=small failed with SERVER: small is not well
    "#);
    assert!(recorder.log_text(&[keys::INPUT_HASH]).contains("input_hash="));
}

#[tokio::test]
async fn a_failure_that_calls_for_no_other_model_is_passed_on_as_it_is() {
    let (_, telemetry) = recorded();
    let only = ErrorSet::of(&[ErrorType::Server]);
    let model = models(ErrorType::InvalidRequest, Ok(())).triggers(only);
    let error = telemetry.scope(model.chat(ChatRequest::new("large"))).await.expect_err("refused");
    assert_eq!(error, ChatError::new(ErrorType::InvalidRequest, "large is not well"));
    let none = FallbackModel::new(Fixed(Err(ErrorType::Server)))
        .then(Fixed(Err(ErrorType::Server)), "small");
    let error = telemetry.scope(none.chat(ChatRequest::new("large"))).await.expect_err("none");
    assert_eq!(error.error_type(), ErrorType::FallbackExhausted);
    insta::assert_snapshot!(error, @"large is not well; the fallback failed too: small is not well");
}

#[tokio::test]
async fn a_stream_that_cannot_begin_begins_at_the_next_model() {
    let (recorder, telemetry) = recorded();
    let model = FallbackModel::new(Fixed(Err(ErrorType::Server))).then(Fixed(Ok(())), "small");
    let opened = telemetry.scope(model.stream(ChatRequest::new("large"))).await;
    assert_eq!(opened.expect("a stream").count().await, 0);
    assert!(recorder.tree(&[keys::OUTCOME]).starts_with("fallback chat outcome=fallback_degraded"));
}
