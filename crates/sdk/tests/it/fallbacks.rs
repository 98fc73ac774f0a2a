//! A primary with its fallback: which branch ran, why, and how it ended.

use std::time::Duration;

use throughline::llm::ChatRequest;
use throughline::resilience::ErrorSet;
use throughline::{
    ChatError, ChatModel as _, DegradedSwitch, ErrorType, Fallback, FallbackModel, Fault as _,
    Recorder, Traced, keys, span,
};

use crate::provider::{Cue, Puppet, recorded};

const SHOWN: [&str; 6] = [
    keys::FALLBACK_DECISION,
    keys::FALLBACK_BRANCH,
    keys::FALLBACK_RESULT,
    keys::OUTCOME,
    keys::FALLBACK_NAME,
    keys::ERROR_TYPE,
];

type Outcome = Result<u32, (ErrorType, &'static str)>;

/// One fallback over branches that end so, told as a tree and the decisions that were taken.
async fn tell(
    primary: Outcome,
    degraded: &[(&'static str, Outcome)],
    triggers: ErrorSet,
) -> String {
    let (recorder, telemetry) = recorded();
    let branch =
        |outcome: Outcome| async move { outcome.map_err(|(kind, text)| Failed { kind, text }) };
    let mut fallback = Fallback::new("stock", branch(primary)).triggers(triggers).input(&"item 7");
    for (name, outcome) in degraded {
        fallback = fallback.degraded(*name, branch(*outcome));
    }
    let got = match telemetry.scope(fallback.run_with(|error: &Failed| error.kind)).await {
        Ok(answered) => format!("{} by {}", answered.value, answered.branch.as_str()),
        Err(error) => format!("{}: {error}", error.error_type()),
    };
    let decisions = recorder.log_text(&[keys::STAGE, keys::DECISION_REASON]);
    format!("{}{decisions}{got}", recorder.tree(&SHOWN))
}

#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Failed {
    kind: ErrorType,
    text: &'static str,
}

const DOWN: Outcome = Err((ErrorType::Connection, "the warehouse is down"));
const ALL: ErrorSet = ErrorSet::FALLBACK_WORTHY;

#[tokio::test]
async fn a_primary_that_answers_skips_the_fallback() {
    insta::assert_snapshot!(tell(Ok(17), &[("cached_stock", Ok(16))], ALL).await, @r"
    fallback stock fallback.decision=skipped fallback.branch=primary fallback.result=success outcome=ok
      attempt stock fallback.branch=primary outcome=ok throughline.fallback.name=primary
    17 by primary
    ");
}

#[tokio::test]
async fn a_primary_that_fails_triggers_it() {
    insta::assert_snapshot!(tell(DOWN, &[("cached_stock", Ok(16))], ALL).await, @r#"
    fallback stock fallback.decision=triggered fallback.branch=degraded fallback.result=success outcome=fallback_degraded
      attempt stock fallback.branch=primary outcome=error throughline.fallback.name=primary error.type=CONNECTION ERROR(the warehouse is down)
      attempt stock fallback.branch=degraded outcome=ok throughline.fallback.name=cached_stock
    agent.decision "cached_stock" stage=fallback decision.reason=primary failed with CONNECTION: the warehouse is down
    16 by degraded
    "#);
}

#[tokio::test]
async fn the_branches_are_tried_in_order() {
    let stale = Err((ErrorType::Other, "the cache is stale"));
    insta::assert_snapshot!(tell(DOWN, &[("cached_stock", stale), ("guess", Ok(1))], ALL).await, @r#"
    fallback stock fallback.decision=triggered fallback.branch=degraded fallback.result=success outcome=fallback_degraded
      attempt stock fallback.branch=primary outcome=error throughline.fallback.name=primary error.type=CONNECTION ERROR(the warehouse is down)
      attempt stock fallback.branch=degraded outcome=error throughline.fallback.name=cached_stock error.type=_OTHER ERROR(the cache is stale)
      attempt stock fallback.branch=degraded outcome=ok throughline.fallback.name=guess
    agent.decision "cached_stock" stage=fallback decision.reason=primary failed with CONNECTION: the warehouse is down
    agent.decision "guess" stage=fallback decision.reason=cached_stock failed with _OTHER: the cache is stale
    1 by degraded
    "#);
    insta::assert_snapshot!(tell(DOWN, &[("cached_stock", stale)], ALL).await, @r#"
    fallback stock fallback.decision=triggered fallback.branch=degraded fallback.result=failed outcome=error error.type=FALLBACK_EXHAUSTED ERROR(every branch failed; the first: the warehouse is down)
      attempt stock fallback.branch=primary outcome=error throughline.fallback.name=primary error.type=CONNECTION ERROR(the warehouse is down)
      attempt stock fallback.branch=degraded outcome=error throughline.fallback.name=cached_stock error.type=_OTHER ERROR(the cache is stale)
    agent.decision "cached_stock" stage=fallback decision.reason=primary failed with CONNECTION: the warehouse is down
    FALLBACK_EXHAUSTED: the warehouse is down; the fallback failed too: the cache is stale
    "#);
}

#[tokio::test]
async fn some_failures_call_for_no_fallback() {
    let forbidden = Err((ErrorType::PolicyRejected, "not for this customer"));
    insta::assert_snapshot!(tell(forbidden, &[("cached_stock", Ok(16))], ALL).await, @r"
    fallback stock fallback.decision=skipped fallback.branch=primary fallback.result=failed outcome=policy_rejected error.type=POLICY_REJECTED ERROR(not for this customer)
      attempt stock fallback.branch=primary outcome=policy_rejected throughline.fallback.name=primary error.type=POLICY_REJECTED ERROR(not for this customer)
    POLICY_REJECTED: not for this customer
    ");
}

#[tokio::test(start_paused = true)]
async fn a_fallback_that_is_given_up_says_so() {
    let (recorder, telemetry) = recorded();
    let never = std::future::pending::<Result<u32, Failed>>();
    let fallback = Fallback::new("stock", never).run_with(|error: &Failed| error.kind);
    let work = tokio::time::timeout(Duration::from_secs(1), fallback);
    telemetry.scope(work).await.expect_err("given up");
    insta::assert_snapshot!(recorder.tree(&SHOWN), @r"
    fallback stock outcome=cancelled
      attempt stock fallback.branch=primary outcome=cancelled throughline.fallback.name=primary
    ");
}

#[tokio::test(start_paused = true)]
async fn r4_2_each_branch_has_its_own_limit() {
    let (recorder, telemetry) = recorded();
    let never = || std::future::pending::<Result<u32, ChatError>>();
    let limit = Duration::from_millis(20);
    let fallback = Fallback::new("stock", never())
        .primary_within(limit)
        .degraded_within("replica", limit, never())
        .degraded("cached_stock", async { Ok(16) });
    let answered = telemetry.scope(fallback.run()).await.expect("an answer");
    assert_eq!(answered.value, 16);
    insta::assert_snapshot!(recorder.tree(&SHOWN[3..]), @r"
    fallback stock outcome=fallback_degraded
      attempt stock outcome=model_timeout throughline.fallback.name=primary error.type=TIMEOUT ERROR(TIMEOUT)
      attempt stock outcome=model_timeout throughline.fallback.name=replica error.type=TIMEOUT ERROR(TIMEOUT)
      attempt stock outcome=ok throughline.fallback.name=cached_stock
    ");
}

#[tokio::test]
async fn r4_2_a_switch_orders_degraded_answers() {
    let (recorder, telemetry) = recorded();
    let switch = DegradedSwitch::new();
    switch.force("the provider bills twice");
    let fallback = || {
        let primary = async { Ok::<u32, Failed>(17) };
        let fallback = Fallback::new("stock", primary).degraded("cached_stock", async { Ok(16) });
        fallback.forced_by(&switch).run_with(|error: &Failed| error.kind)
    };
    assert_eq!(telemetry.scope(fallback()).await.expect("an answer").value, 16);
    switch.release();
    assert_eq!(telemetry.scope(fallback()).await.expect("an answer").value, 17);
    insta::assert_snapshot!(format!("{}{}", recorder.tree(&SHOWN[..4]), recorder.log_text(&[keys::DECISION_REASON])), @r#"
    fallback stock fallback.decision=triggered fallback.branch=degraded fallback.result=success outcome=fallback_degraded
      attempt stock fallback.branch=degraded outcome=ok
    fallback stock fallback.decision=skipped fallback.branch=primary fallback.result=success outcome=ok
      attempt stock fallback.branch=primary outcome=ok
    agent.decision "cached_stock" decision.reason=forced: the provider bills twice
    "#);
}

#[tokio::test]
async fn r4_2_fallbacks_nest() {
    let (recorder, telemetry) = recorded();
    let down = || async { Err::<u32, _>(ChatError::new(ErrorType::Connection, "down")) };
    let inner = async move {
        let inner = Fallback::new("replica", down()).degraded("other_replica", down());
        inner.run().await.map(|answered| answered.value).map_err(|error| error.primary)
    };
    let fallback =
        Fallback::new("stock", inner).degraded("cached_stock", async { Ok::<u32, ChatError>(16) });
    telemetry.scope(fallback.run()).await.expect("an answer");
    insta::assert_snapshot!(recorder.tree(&SHOWN[..3]), @r"
    fallback stock fallback.decision=triggered fallback.branch=degraded fallback.result=success
      attempt stock fallback.branch=primary ERROR(down)
        fallback replica fallback.decision=triggered fallback.branch=degraded fallback.result=failed ERROR(every branch failed; the first: down)
          attempt replica fallback.branch=primary ERROR(down)
          attempt replica fallback.branch=degraded ERROR(down)
      attempt stock fallback.branch=degraded
    ");
}

#[tokio::test(start_paused = true)]
async fn r4_2_a_stream_falls_back_until_its_first_content() {
    use futures_util::StreamExt as _;
    let (recorder, telemetry) = recorded();
    let error = ChatError::new(ErrorType::StreamFailed, "cut");
    // Models without a policy of their own: the stream opens, and breaks before it says anything.
    let silent = Puppet::new([vec![Cue::Say(""), Cue::Fail(error)]]);
    let stuck = Puppet::new([vec![Cue::Wait(Duration::from_secs(60)), Cue::Say("late")]]);
    let works = Puppet::new([vec![Cue::Say("hel"), Cue::Say("lo"), Cue::Last]]);
    let model = FallbackModel::new(silent)
        .then(stuck, "stuck")
        .then(works, "small")
        .each_within(Duration::from_secs(5));
    let work = async {
        let stream = model.stream(ChatRequest::new("large").user("hi")).await.expect("a stream");
        stream.map(|chunk| chunk.expect("a chunk").text().to_owned()).collect::<String>().await
    };
    assert_eq!(telemetry.scope(work).await, "hello");
    insta::assert_snapshot!(recorder.tree(&[keys::FALLBACK_NAME]), @r"
    fallback chat
      attempt chat throughline.fallback.name=primary ERROR(cut)
      attempt chat throughline.fallback.name=stuck ERROR(TIMEOUT)
      attempt chat throughline.fallback.name=small
    ");
}

#[tokio::test(start_paused = true)]
async fn r4_2_the_limit_of_a_streamed_answer_ends_with_its_first_content() {
    use futures_util::StreamExt as _;
    let (recorder, telemetry) = recorded();
    let pause = || Cue::Wait(Duration::from_secs(4));
    let stuck = Puppet::new([vec![Cue::Wait(Duration::from_secs(60)), Cue::Say("late")]]);
    let long = vec![pause(), Cue::Say("a"), pause(), Cue::Say("b"), pause(), Cue::Last];
    let model = FallbackModel::new(Traced::new(stuck))
        .then(Traced::new(Puppet::new([long])), "small")
        .each_within(Duration::from_secs(5));
    let work = async {
        let stream = model.stream(ChatRequest::new("large").user("hi")).await.expect("a stream");
        stream.map(|chunk| chunk.expect("a chunk").text().to_owned()).collect::<String>().await
    };
    assert_eq!(telemetry.scope(work).await, "ab");
    insta::assert_snapshot!(recorder.tree(&SHOWN[3..]), @r"
    fallback chat outcome=fallback_degraded
      attempt chat outcome=model_timeout throughline.fallback.name=primary error.type=TIMEOUT ERROR(TIMEOUT)
        chat large outcome=model_timeout error.type=TIMEOUT ERROR(TIMEOUT)
          attempt large error.type=TIMEOUT ERROR(TIMEOUT)
          http.stream.init error.type=TIMEOUT ERROR(TIMEOUT)
      attempt chat outcome=ok throughline.fallback.name=small
        chat small outcome=ok
          http.stream.init
          http.stream.segment
    ");
}

/// The fallback itself has read the whole answer, a single chunk, to know that it is one.
#[tokio::test(start_paused = true)]
async fn r3_2_an_answer_of_a_fallback_that_nobody_read_is_cancelled() {
    use futures_util::StreamExt as _;
    let (recorder, telemetry) = recorded();
    let puppet = Puppet::new([vec![Cue::Last], vec![Cue::Last]]);
    let model = FallbackModel::new(Traced::new(puppet));
    let work = async {
        let stream = model.stream(ChatRequest::new("unread").user("hi")).await.expect("a stream");
        assert_eq!(stream.position().and_then(|position| position.last_seq()), None);
        drop(stream);
        let mut stream = model.stream(ChatRequest::new("read").user("hi")).await.expect("a stream");
        stream.next().await.expect("a chunk").expect("the last");
        assert_eq!(stream.position().and_then(|position| position.last_seq()), Some(0));
    };
    telemetry.scope(work).await;
    insta::assert_snapshot!(recorder.tree(&[keys::OUTCOME, keys::STREAM_END]), @r"
    fallback chat outcome=ok
      attempt chat outcome=ok
        chat unread outcome=cancelled
          http.stream.init throughline.stream.end=first_token
    fallback chat outcome=ok
      attempt chat outcome=ok
        chat read outcome=ok
          http.stream.init throughline.stream.end=first_token
    ");
}

#[tokio::test]
async fn what_a_branch_does_is_below_it() {
    let (recorder, telemetry) = recorded();
    let primary = async {
        span("GET /stock").start().end();
        Err(Failed { kind: ErrorType::Server, text: "500" })
    };
    let cached = async {
        span("cache lookup").start().end();
        Ok(3)
    };
    let fallback = Fallback::new("stock", primary).degraded("cached_stock", cached);
    telemetry.scope(fallback.run_with(|error: &Failed| error.kind)).await.expect("an answer");
    insta::assert_snapshot!(recorder.tree(&[keys::FALLBACK_BRANCH]), @r"
    fallback stock fallback.branch=degraded
      attempt stock fallback.branch=primary ERROR(500)
        GET /stock
      attempt stock fallback.branch=degraded
        cache lookup
    ");
    telemetry.flush();
    let counted: Vec<String> =
        Recorder::metrics(&recorder).into_iter().filter(|line| line.contains("fallback")).collect();
    insta::assert_snapshot!(counted.join("\n"), @r"agent_operations_total{is_cached=false, model_name=none, operation=fallback, outcome=fallback_degraded, status_code=none} 1");
}
