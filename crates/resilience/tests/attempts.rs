//! The machine of attempts, driven through histories: a few that are told, and any that chance
//! makes.

use std::time::Duration;

use proptest::prelude::*;
use throughline_resilience::{
    Attempts, BreakerPolicy, BudgetPolicy, ErrorSet, Event, Failure, GiveUp, Jitter, Moment, Next,
    Policy, RetryPolicy, Target, TimeoutPolicy, Verdict,
};
use throughline_trace::ErrorType;

fn policy() -> Policy {
    Policy {
        retry: RetryPolicy { jitter: Jitter::None, ..RetryPolicy::default() },
        ..Policy::default()
    }
}

fn at(millis: u64) -> Moment {
    Moment::from_millis(millis)
}

/// Plays a history of (milliseconds after the last answer's due time, event) and tells the answers.
fn play(policy: &Policy, target: &mut Target, events: &[(u64, Event)]) -> String {
    let mut attempts = Attempts::streamed(policy, 1, Moment::ZERO);
    let mut now = Moment::ZERO;
    let mut told = vec![line(now, attempts.begin(target, now))];
    for (after, event) in events {
        now = now + Duration::from_millis(*after);
        told.push(line(now, attempts.on(event.clone(), target, now)));
    }
    told.join("\n")
}

fn line(now: Moment, next: Next) -> String {
    let ms = |moment: Moment| moment.since_origin().as_millis();
    let until =
        |deadline: Option<Moment>| deadline.map_or("ever".to_owned(), |d| ms(d).to_string());
    let told = match next {
        Next::Attempt { index, deadline } => format!("attempt {index} until {}", until(deadline)),
        Next::Continue { deadline } => format!("continue until {}", until(deadline)),
        Next::Delay { until, failed } => format!("wait until {} after {failed}", ms(until)),
        Next::Done(Verdict::Succeeded { attempts }) => format!("succeeded after {attempts}"),
        Next::Done(Verdict::Cancelled { attempts }) => format!("cancelled after {attempts}"),
        Next::Done(Verdict::Failed { error_type, reason, attempts }) => {
            format!("failed with {error_type} after {attempts}: {}", reason.as_str())
        }
    };
    format!("{}: {told}", ms(now))
}

fn failed(kind: ErrorType) -> Event {
    Event::Failed(Failure::of(kind))
}

fn rate_limited(secs: u64) -> Event {
    let retry_after = Some(Duration::from_secs(secs));
    Event::Failed(Failure { error_type: ErrorType::RateLimited, retry_after })
}

#[test]
fn a_retry_that_succeeds() {
    let policy = policy();
    insta::assert_snapshot!(play(&policy, &mut Target::new(&policy), &[
        (100, failed(ErrorType::Server)),
        (1, Event::DelayOver),
        (249, Event::DelayOver),
        (10, rate_limited(2)),
        (2_000, Event::DelayOver),
        (10, Event::Succeeded),
        (10, failed(ErrorType::Server)),
    ]), @"
    0: attempt 0 until 30000
    100: wait until 350 after SERVER
    101: wait until 350 after SERVER
    350: attempt 1 until 30350
    360: wait until 2360 after RATE_LIMITED
    2360: attempt 2 until 32360
    2370: succeeded after 3
    2380: succeeded after 3
    ");
}

#[test]
fn time_runs_out() {
    let mut policy = policy();
    policy.timeouts =
        TimeoutPolicy { total_ms: Some(5_000), attempt_ms: Some(3_000), first_token_ms: None };
    insta::assert_snapshot!(play(&policy, &mut Target::new(&policy), &[
        (1_000, Event::DeadlineReached),
        (2_000, Event::DeadlineReached),
        (250, Event::DelayOver),
        (1_750, Event::DeadlineReached),
    ]), @"
    0: attempt 0 until 3000
    1000: continue until 3000
    3000: wait until 3250 after TIMEOUT
    3250: attempt 1 until 5000
    5000: failed with TIMEOUT after 2: deadline_spent
    ");
    insta::assert_snapshot!(play(&policy, &mut Target::new(&policy), &[
        (500, rate_limited(30)),
    ]), @"
    0: attempt 0 until 3000
    500: failed with RATE_LIMITED after 1: deadline_spent
    ");
    insta::assert_snapshot!(play(&policy, &mut Target::new(&policy), &[
        (500, rate_limited(61)),
    ]), @"
    0: attempt 0 until 3000
    500: failed with RATE_LIMITED after 1: retry_after_too_long
    ");
}

#[test]
fn r4_2_where_a_fallback_follows_no_long_pause_is_waited_for_and_time_is_left() {
    let play = |policy: &Policy, on: ErrorSet, now: u64, event: Event| {
        let mut target = Target::new(policy);
        let mut attempts = Attempts::new(policy, 1, Moment::ZERO);
        attempts.expect_fallback(on);
        attempts.begin(&mut target, at(0));
        line(at(now), attempts.on(event, &mut target, at(now)))
    };
    let (limited, timeout) =
        (ErrorSet::of(&[ErrorType::RateLimited]), ErrorSet::of(&[ErrorType::Timeout]));
    let mut usual = policy();
    insta::assert_snapshot!(play(&usual, limited, 10, rate_limited(40)), @"10: failed with RATE_LIMITED after 1: retry_after_too_long");
    insta::assert_snapshot!(play(&usual, limited, 10, rate_limited(1)), @"10: wait until 1010 after RATE_LIMITED");
    insta::assert_snapshot!(play(&usual, timeout, 10, rate_limited(40)), @"10: wait until 40010 after RATE_LIMITED");

    usual.timeouts =
        TimeoutPolicy { total_ms: Some(600), attempt_ms: Some(200), first_token_ms: None };
    usual.retry.base_delay_ms = 50;
    let late = || Event::DeadlineReached;
    insta::assert_snapshot!(play(&usual, timeout, 200, late()), @"200: failed with TIMEOUT after 1: deadline_spent");
    insta::assert_snapshot!(play(&usual, limited, 200, late()), @"200: wait until 250 after TIMEOUT");
    insta::assert_snapshot!(play(&usual, timeout, 10, failed(ErrorType::Timeout)), @"10: wait until 60 after TIMEOUT");
    usual.timeouts.total_ms = Some(700);
    insta::assert_snapshot!(play(&usual, timeout, 200, late()), @"200: wait until 250 after TIMEOUT");
}

#[test]
fn r4_2_a_limit_of_the_opening_is_over_with_the_first_token() {
    let policy = policy();
    let mut target = Target::new(&policy);
    let mut attempts = Attempts::streamed(&policy, 1, Moment::ZERO);
    attempts.limit_opening(at(5_000));
    attempts.limit_opening(at(9_000));
    let mut told = vec![line(at(0), attempts.begin(&mut target, at(0)))];
    for (now, event) in [
        (1_000, failed(ErrorType::Server)),
        (1_250, Event::DelayOver),
        (4_000, Event::FirstToken),
        (60_000, Event::Succeeded),
    ] {
        told.push(line(at(now), attempts.on(event, &mut target, at(now))));
    }
    insta::assert_snapshot!(told.join("\n"), @"
    0: attempt 0 until 5000
    1000: wait until 1250 after SERVER
    1250: attempt 1 until 5000
    4000: continue until 120000
    60000: succeeded after 2
    ");
    let mut late = Attempts::streamed(&policy, 1, Moment::ZERO);
    late.limit_opening(at(5_000));
    late.begin(&mut target, at(0));
    let next = late.on(failed(ErrorType::Server), &mut target, at(4_900));
    insta::assert_snapshot!(line(at(4_900), next), @"4900: failed with SERVER after 1: deadline_spent");
}

/// A target whose breaker opens at the first failure.
fn easily_opened(edit: impl FnOnce(&mut Policy)) -> (Policy, Target) {
    let mut policy = policy();
    policy.breaker = Some(BreakerPolicy { min_attempts: 1, ..BreakerPolicy::default() });
    edit(&mut policy);
    let target = Target::new(&policy);
    (policy, target)
}

fn breaker(target: &Target, now: u64) -> (&'static str, u32) {
    let told = target.breaker().map(|breaker| {
        let now = at(now);
        (breaker.state(now).as_str(), breaker.counts(now).failed)
    });
    told.unwrap_or_default()
}

#[test]
fn r4_2_the_hurry_of_a_caller_does_not_speak_against_the_target() {
    type Limit = fn(&mut Attempts);
    let limits: [(&str, Limit, bool, GiveUp); 4] = [
        ("the caller's", |attempts| attempts.limit(at(900)), false, GiveUp::DeadlineSpent),
        ("a branch's", |attempts| attempts.limit_by_policy(at(900)), true, GiveUp::DeadlineSpent),
        ("its opening's", |attempts| attempts.limit_opening(at(900)), true, GiveUp::DeadlineSpent),
        ("the attempt's", |attempts| attempts.limit(at(5_000)), true, GiveUp::CircuitOpen),
    ];
    for (whose, limit, speaks_against_it, reason) in limits {
        let (policy, mut target) =
            easily_opened(|policy| policy.timeouts.first_token_ms = Some(1_000));
        let mut attempts = Attempts::streamed(&policy, 1, Moment::ZERO);
        limit(&mut attempts);
        let Next::Attempt { deadline: Some(deadline), .. } = attempts.begin(&mut target, at(0))
        else {
            panic!("an attempt")
        };
        let next = attempts.on(Event::DeadlineReached, &mut target, deadline);
        let failed =
            Next::Done(Verdict::Failed { error_type: ErrorType::Timeout, reason, attempts: 1 });
        assert_eq!(next, failed, "{whose}");
        let expected = if speaks_against_it { ("open", 1) } else { ("closed", 0) };
        assert_eq!(breaker(&target, 1_000), expected, "{whose}");
    }
    let (policy, mut target) = easily_opened(|policy| policy.timeouts.total_ms = Some(1_000));
    let mut attempts = Attempts::streamed(&policy, 1, Moment::ZERO);
    attempts.begin(&mut target, at(0));
    attempts.on(Event::FirstToken, &mut target, at(10));
    attempts.on(Event::DeadlineReached, &mut target, at(1_000));
    assert_eq!(breaker(&target, 1_000), ("open", 1), "a total of the policy is the policy's");
}

#[test]
fn a_probe_that_streams_lets_others_through() {
    let probes = |policy: &mut Policy| {
        let breaker = policy.breaker.as_mut().expect("a breaker");
        breaker.half_open_probes = 1;
    };
    let (policy, mut target) = easily_opened(probes);
    let begin = |target: &mut Target, now| {
        let mut attempts = Attempts::streamed(&policy, 1, at(now));
        let next = attempts.begin(target, at(now));
        (attempts, matches!(next, Next::Attempt { .. }))
    };
    let (mut failing, _) = begin(&mut target, 0);
    failing.on(failed(ErrorType::Server), &mut target, at(1));
    let (mut probe, is_let) = begin(&mut target, 15_001);
    assert!(is_let && !begin(&mut target, 15_001).1, "one probe at a time");
    probe.on(Event::FirstToken, &mut target, at(15_500));
    assert_eq!(breaker(&target, 15_500), ("closed", 0));
    assert!(begin(&mut target, 15_500).1, "while the stream goes on");
    probe.on(failed(ErrorType::StreamFailed), &mut target, at(16_000));
    assert_eq!(breaker(&target, 16_000), ("open", 1), "that it broke counts nevertheless");
}

#[test]
fn a_stream_that_has_begun_is_not_tried_again() {
    let policy = policy();
    insta::assert_snapshot!(play(&policy, &mut Target::new(&policy), &[
        (900, Event::FirstToken),
        (40_000, Event::DeadlineReached),
        (1, failed(ErrorType::StreamFailed)),
    ]), @"
    0: attempt 0 until 30000
    900: continue until 120000
    40900: continue until 120000
    40901: failed with STREAM_FAILED after 1: already_answering
    ");
}

#[test]
fn only_a_stream_has_a_first_token_to_wait_for() {
    let policy = policy();
    let begin = |mut attempts: Attempts| attempts.begin(&mut Target::new(&policy), Moment::ZERO);
    let whole = Next::Attempt { index: 0, deadline: Some(at(60_000)) };
    assert_eq!(begin(Attempts::new(&policy, 1, Moment::ZERO)), whole);
    let streamed = Next::Attempt { index: 0, deadline: Some(at(30_000)) };
    assert_eq!(begin(Attempts::streamed(&policy, 1, Moment::ZERO)), streamed);
}

#[test]
fn some_failures_are_final() {
    let policy = policy();
    let after = |kind| play(&policy, &mut Target::new(&policy), &[(1, failed(kind))]);
    insta::assert_snapshot!(after(ErrorType::Auth), @"
    0: attempt 0 until 30000
    1: failed with AUTH after 1: not_retryable
    ");
    insta::assert_snapshot!(play(&policy, &mut Target::new(&policy), &[
        (1, failed(ErrorType::Server)), (5, Event::Cancelled), (9, Event::DelayOver),
    ]), @"
    0: attempt 0 until 30000
    1: wait until 251 after SERVER
    6: cancelled after 1
    15: cancelled after 1
    ");
}

#[test]
fn the_breaker_refuses_and_says_so() {
    let mut policy = policy();
    policy.breaker = Some(BreakerPolicy { min_attempts: 2, ..BreakerPolicy::default() });
    let mut target = Target::new(&policy);
    let history =
        [(1, failed(ErrorType::Server)), (250, Event::DelayOver), (1, failed(ErrorType::Server))];
    insta::assert_snapshot!(play(&policy, &mut target, &history), @"
    0: attempt 0 until 30000
    1: wait until 251 after SERVER
    251: attempt 1 until 30251
    252: failed with SERVER after 2: circuit_open
    ");
    insta::assert_snapshot!(play(&policy, &mut target, &[]), @"0: failed with CIRCUIT_OPEN after 0: circuit_open");
}

#[test]
fn the_budget_bounds_retries() {
    let mut policy = policy();
    policy.breaker = None;
    policy.budget = Some(BudgetPolicy {
        retries_per_operation: 0.0,
        retries_per_second: 0.0,
        max_retries: 1.0,
    });
    let mut target = Target::new(&policy);
    let history =
        [(1, failed(ErrorType::Server)), (250, Event::DelayOver), (1, failed(ErrorType::Server))];
    insta::assert_snapshot!(play(&policy, &mut target, &history), @"
    0: attempt 0 until 30000
    1: wait until 251 after SERVER
    251: attempt 1 until 30251
    252: failed with SERVER after 2: budget_spent
    ");
}

#[derive(Debug, Clone)]
enum Step {
    Fail(ErrorType, Option<u64>),
    Succeed,
    FirstToken,
    Deadline,
    Delay,
    Cancel,
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop::sample::select(ErrorType::ALL.to_vec());
    prop_oneof![
        6 => (kind, proptest::option::of(0u64..90_000)).prop_map(|(kind, ms)| Step::Fail(kind, ms)),
        1 => Just(Step::Succeed),
        1 => Just(Step::FirstToken),
        3 => Just(Step::Deadline),
        6 => Just(Step::Delay),
        1 => Just(Step::Cancel),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn whatever_happens_the_policy_holds(
        steps in proptest::collection::vec((step(), 0u64..20_000), 0..60),
        seed: u64,
        max_attempts in 0u32..6,
        total_ms in proptest::option::of(0u64..200_000),
        attempt_ms in proptest::option::of(1u64..40_000),
    ) {
        let mut policy = Policy::default();
        policy.retry.max_attempts = max_attempts;
        policy.timeouts = TimeoutPolicy { total_ms, attempt_ms, first_token_ms: None };
        let mut target = Target::new(&policy);
        let mut attempts = Attempts::new(&policy, seed, Moment::ZERO);
        let mut now = Moment::ZERO;
        let mut next = attempts.begin(&mut target, now);
        let (mut started, mut was_answering) = (0, false);
        for (step, pause) in steps {
            let done = matches!(next, Next::Done(_)).then_some(next);
            if let Next::Attempt { index, deadline } = next {
                prop_assert_eq!(index, started);
                started += 1;
                prop_assert!(total_ms.is_none_or(|total| now < at(total)));
                prop_assert!(deadline.is_none_or(|deadline| deadline >= now));
                prop_assert!(!was_answering, "an attempt after the answer began");
            }
            // Sometimes exactly at the named moment, sometimes at any other.
            now = match (&step, next) {
                (Step::Delay, Next::Delay { until, .. }) if pause % 2 == 0 => now.max(until),
                (Step::Deadline, Next::Attempt { deadline: Some(d), .. }) => now.max(d),
                _ => now + Duration::from_millis(pause),
            };
            let is_running = matches!(next, Next::Attempt { .. } | Next::Continue { .. });
            let event = match &step {
                Step::Fail(kind, ms) => Event::Failed(Failure {
                    error_type: *kind, retry_after: ms.map(Duration::from_millis),
                }),
                Step::Succeed => Event::Succeeded,
                Step::FirstToken => Event::FirstToken,
                Step::Deadline => Event::DeadlineReached,
                Step::Delay => Event::DelayOver,
                Step::Cancel => Event::Cancelled,
            };
            was_answering |= is_running && matches!(step, Step::FirstToken);
            next = attempts.on(event, &mut target, now);
            if let (true, Step::Fail(_, Some(ms)), Next::Delay { until, .. }) = (is_running, &step, next) {
                prop_assert!(until.since(now) >= Duration::from_millis(*ms), "sooner than Retry-After");
            }
            if let Some(done) = done {
                prop_assert_eq!(next, done);
            }
            if let (true, Next::Done(Verdict::Failed { reason, .. })) = (was_answering, next) {
                prop_assert!(reason == GiveUp::AlreadyAnswering || done.is_some(), "{:?}", reason);
            }
        }
        prop_assert!(started <= max_attempts.max(1));
        prop_assert!(attempts.begun() <= max_attempts.max(1));
    }
}
