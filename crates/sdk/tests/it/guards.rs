//! Bulkhead, hedging, the breaker that tells what it does, policies that change while they run, and
//! the statuses of requirement R4.3.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use throughline::llm::ChatRequest;
use throughline::resilience::{
    BreakerPolicy, BreakerState, BudgetPolicy, BulkheadPolicy, HedgePolicy, Policy, RetryPolicy,
    TimeoutPolicy,
};
use throughline::{
    ChatError, ChatModel, ErrorType, FallbackModel, Resilience, Traced, breakers, keys, span,
};

use crate::provider::{Cue, Puppet, quick, recorded};

const SHOWN: [&str; 8] = [
    keys::OUTCOME,
    keys::RETRY_COUNT,
    keys::HEDGE,
    keys::ERROR_TYPE,
    keys::ATTEMPT_ERROR_TYPE,
    keys::GIVE_UP,
    keys::STREAM_END,
    keys::BREAKER_STATE,
];

fn request() -> ChatRequest {
    ChatRequest::new("gpt-4o").user("hi")
}

fn wait(ms: u64) -> Cue {
    Cue::Wait(Duration::from_millis(ms))
}

fn down() -> Cue {
    Cue::Fail(ChatError::new(ErrorType::Server, "overloaded"))
}

/// Asks a puppet that acts so, and tells the answer and the tree.
async fn tell(scripts: Vec<Vec<Cue>>, policy: Policy) -> String {
    let (recorder, telemetry) = recorded();
    let model = Traced::new(Puppet::new(scripts)).policy(policy);
    let answer = telemetry.scope(model.chat(request())).await;
    let answer = answer.map_or_else(|error| error.to_string(), |answer| answer.text());
    assert_eq!(telemetry.counts().open_spans, 0);
    format!("{}{answer}", recorder.tree(&SHOWN))
}

fn hedged(delay_ms: u64) -> Policy {
    let hedge = HedgePolicy { delay_ms, percentile: None, ..HedgePolicy::default() };
    Policy { hedge: Some(hedge), ..quick() }
}

#[tokio::test(start_paused = true)]
async fn r4_3_a_timeout_is_an_error_of_that_name() {
    let timeouts = TimeoutPolicy { attempt_ms: Some(50), ..TimeoutPolicy::default() };
    let retry = RetryPolicy { max_attempts: 1, ..RetryPolicy::default() };
    insta::assert_snapshot!(tell(vec![vec![wait(60_000)]], Policy { timeouts, retry, ..quick() }).await, @r"
    chat gpt-4o outcome=model_timeout retry_count=0 error.type=TIMEOUT throughline.give_up=attempts_spent ERROR(TIMEOUT)
      attempt gpt-4o retry_count=0 error.type=TIMEOUT ERROR(TIMEOUT)
    gpt-4o gave no answer within 50 ms (1 attempt)
    ");
}

#[tokio::test(start_paused = true)]
async fn r4_3_a_retry_that_is_not_the_last_has_no_status_and_the_call_is_clean() {
    insta::assert_snapshot!(tell(vec![vec![down()], vec![down()], vec![Cue::Say("fine")]], quick()).await, @r"
    chat gpt-4o outcome=retry_succeeded retry_count=2
      attempt gpt-4o retry_count=0 throughline.attempt.error_type=SERVER
      attempt gpt-4o retry_count=1 throughline.attempt.error_type=SERVER
      attempt gpt-4o retry_count=2
    fine
    ");
}

/// One retry for all calls: the first takes it, the second has none left and says so.
#[tokio::test(start_paused = true)]
async fn r4_2_retries_beyond_the_budget_are_not_made() {
    let (recorder, telemetry) = recorded();
    let budget =
        BudgetPolicy { max_retries: 1.0, retries_per_operation: 0.0, retries_per_second: 0.0 };
    let answers = vec![vec![down()], vec![Cue::Say("fine")], vec![down()], vec![Cue::Say("no")]];
    let model =
        Traced::new(Puppet::new(answers)).policy(Policy { budget: Some(budget), ..quick() });
    let work = async {
        model.chat(request()).await.expect("one retry is there");
        model.chat(request()).await.expect_err("and no other")
    };
    let error = telemetry.scope(work).await;
    insta::assert_snapshot!(format!("{}{error}", recorder.tree(&SHOWN)), @r"
    chat gpt-4o outcome=retry_succeeded retry_count=1
      attempt gpt-4o retry_count=0 throughline.attempt.error_type=SERVER
      attempt gpt-4o retry_count=1
    chat gpt-4o outcome=error retry_count=0 error.type=SERVER throughline.give_up=budget_spent ERROR(overloaded)
      attempt gpt-4o retry_count=0 error.type=SERVER ERROR(overloaded)
    overloaded
    ");
}

#[tokio::test(start_paused = true)]
async fn r4_2_a_hedge_outruns_the_first_copy_which_is_cancelled() {
    let scripts = vec![vec![wait(10_000), Cue::Say("slow")], vec![wait(10), Cue::Say("fast")]];
    insta::assert_snapshot!(tell(scripts, hedged(100)).await, @r"
    chat gpt-4o outcome=ok retry_count=0
      attempt gpt-4o outcome=cancelled retry_count=0 throughline.hedge=0
      attempt gpt-4o retry_count=0 throughline.hedge=1
    fast
    ");
}

#[tokio::test(start_paused = true)]
async fn r4_2_the_first_copy_wins_and_the_hedge_is_cancelled() {
    let scripts = vec![vec![wait(150), Cue::Say("first")], vec![wait(10_000), Cue::Say("second")]];
    insta::assert_snapshot!(tell(scripts, hedged(100)).await, @r"
    chat gpt-4o outcome=ok retry_count=0
      attempt gpt-4o retry_count=0 throughline.hedge=0
      attempt gpt-4o outcome=cancelled retry_count=0 throughline.hedge=1
    first
    ");
}

#[tokio::test(start_paused = true)]
async fn r4_2_a_fast_answer_has_no_hedge() {
    insta::assert_snapshot!(tell(vec![vec![wait(50), Cue::Say("fast")]], hedged(100)).await, @r"
    chat gpt-4o outcome=ok retry_count=0
    fast
    ");
}

#[tokio::test(start_paused = true)]
async fn r4_2_copies_that_all_fail_are_one_failed_attempt() {
    let scripts = vec![vec![wait(200), down()], vec![wait(50), down()], vec![Cue::Say("at last")]];
    insta::assert_snapshot!(tell(scripts, hedged(100)).await, @r"
    chat gpt-4o outcome=retry_succeeded retry_count=1
      attempt gpt-4o retry_count=0 throughline.hedge=0 throughline.attempt.error_type=SERVER
      attempt gpt-4o retry_count=0 throughline.hedge=1 throughline.attempt.error_type=SERVER
      attempt gpt-4o retry_count=1
    at last
    ");
}

#[tokio::test(start_paused = true)]
async fn r4_2_a_hedged_attempt_keeps_its_time_limit() {
    let timeouts = TimeoutPolicy { attempt_ms: Some(300), ..TimeoutPolicy::default() };
    let retry = RetryPolicy { max_attempts: 1, ..RetryPolicy::default() };
    let policy = Policy { timeouts, retry, ..hedged(100) };
    insta::assert_snapshot!(tell(vec![vec![wait(9_000)], vec![wait(9_000)]], policy).await, @r"
    chat gpt-4o outcome=model_timeout retry_count=0 error.type=TIMEOUT throughline.give_up=attempts_spent ERROR(TIMEOUT)
      attempt gpt-4o outcome=cancelled retry_count=0 throughline.hedge=0
      attempt gpt-4o retry_count=0 throughline.hedge=1 error.type=TIMEOUT ERROR(TIMEOUT)
    gpt-4o gave no answer within 300 ms (1 attempt)
    ");
}

#[tokio::test(start_paused = true)]
async fn r4_2_a_hedged_stream_goes_on_with_the_copy_that_spoke_first() {
    use futures_util::StreamExt as _;
    let (recorder, telemetry) = recorded();
    let scripts = vec![
        vec![wait(10_000), Cue::Say("slow")],
        vec![wait(10), Cue::Say("fa"), Cue::Say("st"), Cue::Last],
    ];
    let model = Traced::new(Puppet::new(scripts)).policy(hedged(100));
    let work = async {
        let stream = model.stream(request()).await.expect("a stream");
        stream.map(|chunk| chunk.expect("a chunk").text().to_owned()).collect::<String>().await
    };
    assert_eq!(telemetry.scope(work).await, "fast");
    assert_eq!(telemetry.counts().open_spans, 0);
    insta::assert_snapshot!(recorder.tree(&SHOWN), @r"
    chat gpt-4o outcome=ok retry_count=0
      attempt gpt-4o outcome=cancelled retry_count=0 throughline.hedge=0
      http.stream.init throughline.stream.end=cancelled
      attempt gpt-4o retry_count=0 throughline.hedge=1
        http.stream.init throughline.stream.end=first_token
        http.stream.segment throughline.stream.end=done
    ");
}

#[tokio::test(start_paused = true)]
async fn r4_2_a_full_bulkhead_refuses_and_gives_every_place_back() {
    let (recorder, telemetry) = recorded();
    let policy = BulkheadPolicy { max_concurrent: 1, max_waiting: 1, max_wait_ms: 100 };
    let guard = Resilience::new(Policy { bulkhead: Some(policy), ..quick() });
    let (now, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let one = |secs: u64| {
        let (guard, now, most) = (guard.clone(), Arc::clone(&now), Arc::clone(&most));
        async move {
            let work = |_| async {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(secs)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, ChatError>("done")
            };
            let step = span("step").start();
            let result = step.instrument(guard.run("stock", work)).await;
            result.map_or_else(|error| error.to_string(), str::to_owned)
        }
    };
    let told = telemetry.scope(async { tokio::join!(one(50), one(50), one(50)) }).await;
    insta::assert_debug_snapshot!(told, @r#"
    (
        "done",
        "done",
        "not tried: too many operations are under way",
    )
    "#);
    // One that waits too long is refused too; one that is given up leaves its place to others.
    let told = telemetry.scope(async { tokio::join!(one(500), one(1)) }).await;
    assert_eq!(told.1, "not tried: too many operations are under way");
    let short = Duration::from_millis(10);
    telemetry
        .scope(async {
            let (first, second) = tokio::join!(
                tokio::time::timeout(short, one(500)),
                tokio::time::timeout(short, one(1))
            );
            first.expect_err("given up");
            second.expect_err("given up while it waited");
        })
        .await;
    now.store(0, Ordering::SeqCst);
    assert_eq!(telemetry.scope(one(1)).await, "done");
    assert_eq!(most.load(Ordering::SeqCst), 1);
    drop(recorder);
}

#[tokio::test(start_paused = true)]
async fn r4_2_a_call_that_finds_the_bulkhead_full_says_so() {
    let (recorder, telemetry) = recorded();
    let bulkhead = BulkheadPolicy { max_concurrent: 1, max_waiting: 0, max_wait_ms: 0 };
    let scripts = vec![vec![wait(50), Cue::Say("fine")]];
    let model =
        Traced::new(Puppet::new(scripts)).policy(Policy { bulkhead: Some(bulkhead), ..quick() });
    let two = async { tokio::join!(model.chat(request()), model.chat(request())) };
    let (first, second) = telemetry.scope(two).await;
    assert_eq!(first.expect("an answer").text(), "fine");
    assert_eq!(second.expect_err("refused").error_type, ErrorType::Overloaded);
    insta::assert_snapshot!(recorder.tree(&SHOWN), @r"
    chat gpt-4o outcome=ok retry_count=0
    chat gpt-4o outcome=error retry_count=0 error.type=OVERLOADED throughline.give_up=bulkhead_full ERROR(gpt-4o was not asked: too many calls of it are under way)
    ");
}

#[tokio::test(start_paused = true)]
async fn r4_2_a_call_whose_time_ends_while_it_waits_for_a_place_is_a_timeout() {
    let (recorder, telemetry) = recorded();
    let bulkhead = BulkheadPolicy { max_concurrent: 1, max_waiting: 9, max_wait_ms: 60_000 };
    let scripts = vec![vec![wait(500), Cue::Say("fine")]];
    let model =
        Traced::new(Puppet::new(scripts)).policy(Policy { bulkhead: Some(bulkhead), ..quick() });
    let hurried = FallbackModel::new(model.clone()).each_within(Duration::from_millis(100));
    let two = async { tokio::join!(model.chat(request()), hurried.chat(request())) };
    let (first, second) = telemetry.scope(two).await;
    assert_eq!(first.expect("an answer").text(), "fine");
    assert_eq!(second.expect_err("too late").error_type, ErrorType::Timeout);
    insta::assert_snapshot!(recorder.tree(&SHOWN), @r"
    chat gpt-4o outcome=ok retry_count=0
    fallback chat outcome=model_timeout error.type=TIMEOUT ERROR(TIMEOUT)
      attempt chat outcome=model_timeout error.type=TIMEOUT ERROR(TIMEOUT)
        chat gpt-4o outcome=model_timeout retry_count=0 error.type=TIMEOUT throughline.give_up=deadline_spent ERROR(TIMEOUT)
    ");
}

#[tokio::test(start_paused = true)]
async fn r4_3_an_open_breaker_is_an_error_of_that_name_and_tells_its_state() {
    let (recorder, telemetry) = recorded();
    let breaker =
        BreakerPolicy { min_attempts: 2, half_open_probes: 1, ..BreakerPolicy::default() };
    let open_ms = breaker.open_ms;
    let retry = RetryPolicy { max_attempts: 1, ..RetryPolicy::default() };
    let scripts = vec![vec![down()], vec![down()], vec![Cue::Say("fine")]];
    let model = Traced::new(Puppet::new(scripts)).policy(Policy {
        retry,
        breaker: Some(breaker),
        ..quick()
    });
    let mut states = model.resilience_handle().target("puppet/gpt-4o-breaker").subscribe_breaker();
    let request = || ChatRequest::new("gpt-4o-breaker").user("hi");
    telemetry
        .scope(async {
            for _ in 0..3 {
                model.chat(request()).await.expect_err("down");
            }
            assert!(!model.is_available("gpt-4o-breaker"));
            assert!(model.is_available("another"), "every model has a breaker of its own");
            assert!(matches!(*states.borrow_and_update(), BreakerState::Open { .. }));
            let report = breakers().into_iter().find(|one| one.target == "puppet/gpt-4o-breaker");
            assert!(report.is_some_and(|one| matches!(one.state, BreakerState::Open { .. })));
            tokio::time::advance(Duration::from_millis(open_ms)).await;
            model.chat(request()).await.expect("an answer");
        })
        .await;
    assert_eq!(*states.borrow_and_update(), BreakerState::Closed);
    insta::assert_snapshot!(recorder.tree(&SHOWN), @r"
    chat gpt-4o-breaker outcome=error retry_count=0 error.type=SERVER throughline.give_up=attempts_spent ERROR(overloaded)
      attempt gpt-4o-breaker retry_count=0 error.type=SERVER ERROR(overloaded)
    chat gpt-4o-breaker outcome=error retry_count=0 error.type=SERVER throughline.give_up=attempts_spent ERROR(overloaded)
      attempt gpt-4o-breaker retry_count=0 error.type=SERVER ERROR(overloaded)
    chat gpt-4o-breaker outcome=circuit_open retry_count=0 error.type=CIRCUIT_OPEN throughline.give_up=circuit_open ERROR(gpt-4o-breaker was not asked: its circuit is open after too many failures)
    chat gpt-4o-breaker outcome=ok retry_count=0
    ");
    let events: Vec<String> = recorder
        .spans()
        .iter()
        .flat_map(|span| span.events.iter())
        .filter(|event| event.name == "breaker.state_changed")
        .map(|event| {
            event
                .attributes
                .iter()
                .map(|entry| entry.value.to_string())
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    insta::assert_debug_snapshot!(events, @r#"
    [
        "puppet/gpt-4o-breaker closed open",
        "puppet/gpt-4o-breaker open half_open",
        "puppet/gpt-4o-breaker half_open closed",
    ]
    "#);
    let decisions = recorder.log_text(&[keys::STAGE, keys::DECISION_REASON]);
    let breaker: Vec<&str> = decisions.lines().filter(|line| line.contains("=breaker")).collect();
    insta::assert_snapshot!(breaker.join("\n"), @r#"
    agent.decision "open" stage=breaker decision.reason=puppet/gpt-4o-breaker: too many attempts failed
    agent.decision "refuse" stage=breaker decision.reason=puppet/gpt-4o-breaker: the circuit is open after too many failures
    agent.decision "half_open" stage=breaker decision.reason=puppet/gpt-4o-breaker: it was open long enough to try again
    agent.decision "closed" stage=breaker decision.reason=puppet/gpt-4o-breaker: the attempts to see succeeded
    "#);
    telemetry.flush();
    let metrics: Vec<String> = recorder
        .metrics()
        .into_iter()
        .filter(|line| line.starts_with("throughline_breaker"))
        .collect();
    insta::assert_snapshot!(metrics.join("\n"), @r"
    throughline_breaker_state{target=puppet/gpt-4o-breaker} 0
    throughline_breaker_transitions_total{state=closed, target=puppet/gpt-4o-breaker} 1
    throughline_breaker_transitions_total{state=half_open, target=puppet/gpt-4o-breaker} 1
    throughline_breaker_transitions_total{state=open, target=puppet/gpt-4o-breaker} 1
    ");
}

#[tokio::test(start_paused = true)]
async fn r5_10_the_retry_strategy_changes_while_it_runs() {
    let (recorder, telemetry) = recorded();
    let scripts = vec![vec![down()], vec![down()], vec![down()], vec![Cue::Say("fine")]];
    let retry = RetryPolicy { max_attempts: 1, ..RetryPolicy::default() };
    let model = Traced::new(Puppet::new(scripts)).policy(Policy { retry, ..quick() });
    telemetry
        .scope(async {
            model.chat(request()).await.expect_err("one attempt");
            let ordered = "exponential_backoff(max_attempts=3)".parse().expect("a strategy");
            model.clone().resilience_handle().set_retry(ordered);
            assert_eq!(model.chat(request()).await.expect("an answer").text(), "fine");
        })
        .await;
    insta::assert_snapshot!(recorder.tree(&[keys::OUTCOME, keys::RETRY_COUNT]), @r"
    chat gpt-4o outcome=error retry_count=0 ERROR(overloaded)
      attempt gpt-4o retry_count=0 ERROR(overloaded)
    chat gpt-4o outcome=retry_succeeded retry_count=2
      attempt gpt-4o retry_count=0
      attempt gpt-4o retry_count=1
      attempt gpt-4o retry_count=2
    ");
}
