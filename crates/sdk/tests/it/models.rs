//! Chat models on the trace: what one call tells, and what it tells when it had to be tried again.

use std::time::Duration;

use opentelemetry::Value;
use throughline::llm::{ChatRequest, Tool};
use throughline::resilience::{BreakerPolicy, BreakerState, Policy, RetryPolicy, TimeoutPolicy};
use throughline::{
    ChatError, ChatModel, Dimensions, ErrorType, OpenAi, Recorder, Resilience, ResilientError,
    Traced, keys, span,
};

use crate::provider::{Cue, Provider, Puppet, Step, quick, recorded};
use crate::receiver;

/// What the trees of this file show.
const SHOWN: [&str; 8] = [
    keys::OUTCOME,
    keys::RETRY_COUNT,
    keys::STATUS_CODE,
    keys::ERROR_TYPE,
    keys::ERROR_CODE,
    keys::ATTEMPT_ERROR_TYPE,
    keys::ATTEMPT_ERROR_CODE,
    keys::GIVE_UP,
];

fn request() -> ChatRequest {
    ChatRequest::new("gpt-4o").system("be brief").user("hi")
}

/// The tree of one call against a provider with this script, and what the caller got.
async fn tell(script: Vec<Step>, policy: Policy) -> String {
    let provider = Provider::start(script).await;
    let (recorder, telemetry) = recorded();
    let model = Traced::new(provider.client.clone()).policy(policy);
    let got = telemetry.scope(async { model.chat(request()).await }).await;
    let got = got.map_or_else(|error| format!("error: {error}"), |answer| answer.text());
    format!("{}{got}", recorder.tree(&SHOWN))
}

fn attribute(recorder: &Recorder, key: &str) -> Option<Value> {
    let spans = recorder.spans();
    let call = spans.iter().find(|span| span.name.starts_with("chat "))?;
    call.attributes.iter().find(|entry| entry.key.as_str() == key).map(|entry| entry.value.clone())
}

#[tokio::test]
async fn a_call_tells_everything_on_one_span() {
    let provider = Provider::start([Step::Answer("hello")]).await;
    let (recorder, telemetry) = recorded();
    let model = Traced::new(provider.client.clone());
    let tool = Tool {
        name: "stock_v1".to_owned(),
        description: "how many".to_owned(),
        parameters: serde_json::json!({"type": "object"}),
        is_strict: false,
    };
    let asked = request().tool(tool).max_tokens(50).temperature(0.5);
    let as_shop = Dimensions::new().agent("shop").session("s-1");
    let work = async { as_shop.scope(model.chat(asked)).await };
    let answer = telemetry.scope(work).await.expect("an answer");
    assert_eq!(answer.text(), "hello");
    let spans = recorder.spans();
    assert_eq!(spans.len(), 1);
    assert_eq!(spans[0].span_kind, throughline::SpanKind::Client);
    let mut lines: Vec<String> = spans[0]
        .attributes
        .iter()
        .filter(|entry| entry.key.as_str() != keys::SERVER_PORT)
        .map(|entry| format!("{}={}", entry.key, entry.value))
        .collect();
    lines.sort();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    agent_id=shop
    gen_ai.input.messages=[{"parts":[{"content":"be brief","type":"text"}],"role":"system"},{"parts":[{"content":"hi","type":"text"}],"role":"user"}]
    gen_ai.operation.name=chat
    gen_ai.output.messages=[{"finish_reason":"stop","parts":[{"content":"hello","type":"text"}],"role":"assistant"}]
    gen_ai.provider.name=openai
    gen_ai.request.max_tokens=50
    gen_ai.request.model=gpt-4o
    gen_ai.request.temperature=0.5
    gen_ai.response.finish_reasons=["stop"]
    gen_ai.response.id=chatcmpl-1
    gen_ai.response.model=gpt-4o-2024-08-06
    gen_ai.tool.definitions=[{"description":"how many","name":"stock_v1","parameters":{"type":"object"},"type":"function"}]
    gen_ai.usage.cache_read.input_tokens=400
    gen_ai.usage.input_tokens=1000
    gen_ai.usage.output_tokens=100
    gen_ai.usage.reasoning.output_tokens=20
    http.response.status_code=200
    is_cached=false
    outcome=ok
    retry_count=0
    server.address=127.0.0.1
    session_id=s-1
    status_code=200
    throughline.cost_usd=0.003
    throughline.price_version=2026-11-26
    throughline.role=llm_call
    "#);
}

#[tokio::test]
async fn the_request_carries_the_trace() {
    let provider =
        Provider::start([Step::Answer("a"), Step::Refuse(500, &[], ""), Step::Answer("b")]).await;
    let (recorder, telemetry) = recorded();
    let model = Traced::new(provider.client.clone()).policy(quick());
    let work = async {
        model.chat(request()).await.expect("an answer");
        model.chat(request()).await.expect("an answer");
    };
    telemetry.scope(async { Dimensions::new().session("s-1").scope(work).await }).await;
    let requests = provider.requests();
    let header = |at: usize, name: &str| {
        requests[at].0.get(name).and_then(|value| value.to_str().ok()).unwrap_or("none").to_owned()
    };
    assert_eq!(header(0, "authorization"), "Bearer secret");
    assert_eq!(header(0, "baggage"), "none", "a provider is a third party");
    let spans = recorder.spans();
    let parent_of = |name: &str, at: usize| {
        let span = spans.iter().filter(|span| span.name == name).nth(at).expect("the span");
        let cx = &span.span_context;
        format!("00-{}-{}-{:02x}", cx.trace_id(), cx.span_id(), cx.trace_flags().to_u8())
    };
    assert_eq!(header(0, "traceparent"), parent_of("chat gpt-4o", 0));
    // The first attempt runs in the call's span, the second has its own.
    assert_eq!(header(1, "traceparent"), parent_of("chat gpt-4o", 1));
    assert_eq!(header(2, "traceparent"), parent_of("attempt gpt-4o", 1));
}

#[tokio::test]
async fn the_request_carries_baggage_only_when_asked() {
    let provider = Provider::start([Step::Answer("a")]).await;
    let (_recorder, telemetry) = recorded();
    let model = OpenAi::builder().base_url(provider.base_url()).propagate_baggage(true);
    let model = Traced::new(model.build().expect("a client"));
    let as_session = Dimensions::new().session("s-1");
    let work = async { as_session.scope(model.chat(request())).await };
    telemetry.scope(work).await.expect("an answer");
    let headers = &provider.requests()[0].0;
    assert_eq!(headers["baggage"], "session_id=s-1");
    assert!(headers.contains_key("traceparent"));
}

#[tokio::test]
async fn without_telemetry_it_just_works() {
    let provider = Provider::start([Step::Answer("hello")]).await;
    let answer = Traced::new(provider.client.clone()).chat(request()).await;
    assert_eq!(answer.expect("an answer").text(), "hello");
}

#[tokio::test]
async fn a_failure_that_was_tried_again_leaves_no_error() {
    let slow_down =
        r#"{"error":{"message":"slow down","type":"requests","code":"rate_limit_exceeded"}}"#;
    let script = vec![
        Step::Refuse(500, &[], "oops"),
        Step::Refuse(429, &[("retry-after-ms", "20")], slow_down),
        Step::Answer("hello"),
    ];
    insta::assert_snapshot!(tell(script, quick()).await, @r"
    chat gpt-4o outcome=retry_succeeded retry_count=2 status_code=200
      attempt gpt-4o retry_count=0 status_code=500 throughline.attempt.error_type=SERVER
      attempt gpt-4o retry_count=1 status_code=429 throughline.attempt.error_type=RATE_LIMITED throughline.attempt.error_code=rate_limit_exceeded
      attempt gpt-4o retry_count=2 status_code=200
    hello
    ");
}

#[tokio::test]
async fn the_last_failure_is_the_calls_failure() {
    let script =
        vec![Step::Refuse(503, &[], ""), Step::Refuse(502, &[], "<html>bad gateway</html>")];
    let policy = Policy { retry: RetryPolicy { max_attempts: 2, ..quick().retry }, ..quick() };
    insta::assert_snapshot!(tell(script, policy).await, @r#"
    chat gpt-4o outcome=error retry_count=1 status_code=502 error.type=SERVER throughline.give_up=attempts_spent ERROR(gpt-4o at 127.0.0.1 answered 502 Bad Gateway: "<html>bad gateway</html>")
      attempt gpt-4o retry_count=0 status_code=503 throughline.attempt.error_type=SERVER
      attempt gpt-4o retry_count=1 status_code=502 error.type=SERVER ERROR(gpt-4o at 127.0.0.1 answered 502 Bad Gateway: "<html>bad gateway</html>")
    error: gpt-4o at 127.0.0.1 answered 502 Bad Gateway: "<html>bad gateway</html>"
    "#);
}

#[tokio::test]
async fn a_wrong_request_is_not_tried_again() {
    let body = r#"{"error":{"message":"maximum context length is 8192 tokens","type":"invalid_request_error","code":"context_length_exceeded"}}"#;
    insta::assert_snapshot!(tell(vec![Step::Refuse(400, &[], body)], quick()).await, @r"
    chat gpt-4o outcome=error retry_count=0 status_code=400 error.type=INVALID_REQUEST throughline.error.code=context_length_exceeded throughline.give_up=not_retryable ERROR(gpt-4o at 127.0.0.1 answered 400 Bad Request: maximum context length is 8192 tokens (context_length_exceeded))
      attempt gpt-4o retry_count=0 status_code=400 error.type=INVALID_REQUEST throughline.error.code=context_length_exceeded ERROR(gpt-4o at 127.0.0.1 answered 400 Bad Request: maximum context length is 8192 tokens (context_length_exceeded))
    error: gpt-4o at 127.0.0.1 answered 400 Bad Request: maximum context length is 8192 tokens (context_length_exceeded)
    ");
    let body = r#"{"error":{"message":"wrong key","code":"invalid_api_key"}}"#;
    insta::assert_snapshot!(tell(vec![Step::Refuse(401, &[], body)], quick()).await, @r"
    chat gpt-4o outcome=error retry_count=0 status_code=401 error.type=AUTH throughline.error.code=invalid_api_key throughline.give_up=not_retryable ERROR(gpt-4o at 127.0.0.1 answered 401 Unauthorized: wrong key (invalid_api_key))
      attempt gpt-4o retry_count=0 status_code=401 error.type=AUTH throughline.error.code=invalid_api_key ERROR(gpt-4o at 127.0.0.1 answered 401 Unauthorized: wrong key (invalid_api_key))
    error: gpt-4o at 127.0.0.1 answered 401 Unauthorized: wrong key (invalid_api_key)
    ");
    let body = r#"{"error":{"message":"not that","code":"content_filter"}}"#;
    insta::assert_snapshot!(tell(vec![Step::Refuse(400, &[], body)], quick()).await, @r"
    chat gpt-4o outcome=error retry_count=0 status_code=400 error.type=CONTENT_FILTERED throughline.error.code=content_filter throughline.give_up=not_retryable ERROR(gpt-4o at 127.0.0.1 answered 400 Bad Request: not that (content_filter))
      attempt gpt-4o retry_count=0 status_code=400 error.type=CONTENT_FILTERED throughline.error.code=content_filter ERROR(gpt-4o at 127.0.0.1 answered 400 Bad Request: not that (content_filter))
    error: gpt-4o at 127.0.0.1 answered 400 Bad Request: not that (content_filter)
    ");
}

#[tokio::test]
async fn a_pause_that_is_too_long_is_not_waited_for() {
    let script = vec![Step::Refuse(429, &[("retry-after", "3600")], "")];
    insta::assert_snapshot!(tell(script, quick()).await, @r"
    chat gpt-4o outcome=error retry_count=0 status_code=429 error.type=RATE_LIMITED throughline.give_up=retry_after_too_long ERROR(gpt-4o at 127.0.0.1 answered 429 Too Many Requests: an empty body)
      attempt gpt-4o retry_count=0 status_code=429 error.type=RATE_LIMITED ERROR(gpt-4o at 127.0.0.1 answered 429 Too Many Requests: an empty body)
    error: gpt-4o at 127.0.0.1 answered 429 Too Many Requests: an empty body
    ");
}

#[tokio::test]
async fn garbage_is_told_as_such() {
    let script = vec![Step::Raw("text/html", "<html>"), Step::Answer("hello")];
    insta::assert_snapshot!(tell(script, quick()).await, @r"
    chat gpt-4o outcome=retry_succeeded retry_count=1 status_code=200
      attempt gpt-4o retry_count=0 status_code=200 throughline.attempt.error_type=INVALID_RESPONSE
      attempt gpt-4o retry_count=1 status_code=200
    hello
    ");
    let error = r#"{"error":{"message":"overloaded","code":503}}"#;
    let script = vec![Step::Raw("application/json", error)];
    let policy = Policy { retry: RetryPolicy { max_attempts: 1, ..quick().retry }, ..quick() };
    insta::assert_snapshot!(tell(script, policy).await, @r"
    chat gpt-4o outcome=error retry_count=0 status_code=200 error.type=SERVER throughline.error.code=503 throughline.give_up=attempts_spent ERROR(gpt-4o at 127.0.0.1 answered 200 OK: the provider answered with an error: overloaded (503))
      attempt gpt-4o retry_count=0 status_code=200 error.type=SERVER throughline.error.code=503 ERROR(gpt-4o at 127.0.0.1 answered 200 OK: the provider answered with an error: overloaded (503))
    error: gpt-4o at 127.0.0.1 answered 200 OK: the provider answered with an error: overloaded (503)
    ");
}

#[tokio::test]
async fn nobody_there() {
    let address = receiver::nobody();
    let client =
        OpenAi::builder().base_url(format!("http://{address}/v1")).build().expect("a client");
    let policy = Policy { retry: RetryPolicy { max_attempts: 1, ..quick().retry }, ..quick() };
    let (recorder, telemetry) = recorded();
    let model = Traced::new(client).policy(policy);
    let error = telemetry.scope(model.chat(request())).await.expect_err("nobody");
    assert_eq!(error.error_type, ErrorType::Connection);
    assert!(
        recorder.tree(&[keys::ERROR_TYPE]).starts_with("chat gpt-4o error.type=CONNECTION ERROR(")
    );
}

#[tokio::test(start_paused = true)]
async fn a_model_that_takes_too_long() {
    let second = Cue::Wait(Duration::from_secs(1));
    let hour = || vec![Cue::Wait(Duration::from_secs(3_600))];
    let puppet = Puppet::new([hour(), vec![second, Cue::Say("hello")], hour(), hour(), hour()]);
    let (recorder, telemetry) = recorded();
    let timeouts =
        TimeoutPolicy { total_ms: Some(10_000), attempt_ms: Some(3_000), first_token_ms: None };
    let model = Traced::new(puppet).policy(Policy { timeouts, ..quick() });
    let answer = telemetry.scope(model.chat(request())).await.expect("an answer");
    assert_eq!(answer.text(), "hello");
    let error = telemetry.scope(model.chat(request())).await.expect_err("too long");
    assert_eq!(error.error_type, ErrorType::Timeout);
    insta::assert_snapshot!(error, @r"gpt-4o gave no answer within 3.0 s (3 attempts)");
    insta::assert_snapshot!(recorder.tree(&SHOWN), @r"
    chat gpt-4o outcome=retry_succeeded retry_count=1
      attempt gpt-4o retry_count=0 throughline.attempt.error_type=TIMEOUT
      attempt gpt-4o retry_count=1
    chat gpt-4o outcome=model_timeout retry_count=2 error.type=TIMEOUT throughline.give_up=attempts_spent ERROR(TIMEOUT)
      attempt gpt-4o retry_count=0 throughline.attempt.error_type=TIMEOUT
      attempt gpt-4o retry_count=1 throughline.attempt.error_type=TIMEOUT
      attempt gpt-4o retry_count=2 error.type=TIMEOUT ERROR(TIMEOUT)
    ");
}

#[tokio::test(start_paused = true)]
async fn a_breaker_that_opens_and_closes() {
    let failed = || vec![Cue::Fail(ChatError::new(ErrorType::Server, "down"))];
    let puppet = Puppet::new([failed(), failed(), vec![Cue::Say("up")]]);
    let (recorder, telemetry) = recorded();
    let breaker =
        BreakerPolicy { min_attempts: 2, half_open_probes: 1, ..BreakerPolicy::default() };
    let resilience = Resilience::new(Policy { breaker: Some(breaker), ..quick() });
    let model = Traced::new(puppet).resilience(resilience.clone());
    telemetry
        .scope(async {
            model.chat(request()).await.expect_err("down");
            assert!(matches!(resilience.breaker_state(), Some(BreakerState::Open { .. })));
            model.chat(request()).await.expect_err("refused");
            tokio::time::sleep(Duration::from_secs(15)).await;
            model.chat(request()).await.expect("up");
            assert_eq!(resilience.breaker_state(), Some(BreakerState::Closed));
        })
        .await;
    insta::assert_snapshot!(recorder.tree(&SHOWN), @r"
    chat gpt-4o outcome=error retry_count=1 error.type=SERVER throughline.give_up=circuit_open ERROR(down)
      attempt gpt-4o retry_count=0 throughline.attempt.error_type=SERVER
      attempt gpt-4o retry_count=1 error.type=SERVER ERROR(down)
    chat gpt-4o outcome=circuit_open retry_count=0 error.type=CIRCUIT_OPEN throughline.give_up=circuit_open ERROR(gpt-4o was not asked: its circuit is open after too many failures)
    chat gpt-4o outcome=ok retry_count=0
    ");
    telemetry.flush();
    let counted: Vec<String> = recorder
        .metrics()
        .into_iter()
        .filter(|line| line.contains("agent_operations_total"))
        .collect();
    insta::assert_snapshot!(counted.join("\n"), @r"
    agent_operations_total{is_cached=false, model_name=gpt-4o, operation=chat, outcome=circuit_open, status_code=none} 1
    agent_operations_total{is_cached=false, model_name=gpt-4o, operation=chat, outcome=error, status_code=none} 1
    agent_operations_total{is_cached=false, model_name=gpt-4o, operation=chat, outcome=ok, status_code=none} 1
    ");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_up() {
    let puppet = Puppet::new([
        vec![Cue::Fail(ChatError::new(ErrorType::Server, "down"))],
        vec![Cue::Wait(Duration::from_secs(3_600))],
    ]);
    let (recorder, telemetry) = recorded();
    let model = Traced::new(puppet).policy(quick());
    let work = tokio::time::timeout(Duration::from_secs(5), model.chat(request()));
    telemetry.scope(work).await.expect_err("given up");
    insta::assert_snapshot!(recorder.tree(&SHOWN), @r"
    chat gpt-4o outcome=cancelled retry_count=1
      attempt gpt-4o retry_count=0 throughline.attempt.error_type=SERVER
      attempt gpt-4o outcome=cancelled retry_count=1
    ");
    assert_eq!(telemetry.counts().open_spans, 0);
}

#[tokio::test]
async fn content_stays_off_the_span_when_it_shall() {
    let provider = Provider::start([Step::Answer("hello")]).await;
    let (recorder, telemetry) = recorded();
    let model = Traced::new(provider.client.clone()).capture_content(false);
    telemetry.scope(model.chat(request())).await.expect("an answer");
    assert_eq!(attribute(&recorder, keys::GEN_AI_INPUT_MESSAGES), None);
    assert_eq!(attribute(&recorder, keys::GEN_AI_OUTPUT_MESSAGES), None);
    assert_eq!(attribute(&recorder, keys::GEN_AI_USAGE_INPUT_TOKENS), Some(Value::I64(1_000)));
}

#[tokio::test]
async fn tokens_that_nobody_counted_are_estimated_and_say_so() {
    let (recorder, telemetry) = recorded();
    let model = Traced::new(Puppet::new([vec![Cue::Say("twelve bytes")]]));
    telemetry.scope(model.chat(request())).await.expect("an answer");
    assert_eq!(attribute(&recorder, keys::USAGE_ESTIMATED), Some(Value::Bool(true)));
    assert_eq!(attribute(&recorder, keys::GEN_AI_USAGE_OUTPUT_TOKENS), Some(Value::I64(3)));
}

#[tokio::test(start_paused = true)]
async fn any_operation_can_be_retried_timed_and_broken() {
    let (recorder, telemetry) = recorded();
    let classify = |_: &String| ErrorType::Connection;
    let work = async {
        let retry = Resilience::seeded(quick(), 1);
        let stock = retry
            .run_with("stock", classify, |index| async move {
                if index == 0 { Err("refused".to_owned()) } else { Ok(17) }
            })
            .await;
        assert_eq!(stock, Ok(17));
        let timeout = Resilience::timeout(Duration::from_millis(20));
        let late =
            timeout.run_with("late", classify, |_| std::future::pending::<Result<u8, String>>());
        let late = late.await.expect_err("late");
        insta::assert_snapshot!(late, @r"no answer within 20 ms (1 attempt)");
        let breaker =
            Resilience::breaker(BreakerPolicy { min_attempts: 1, ..BreakerPolicy::default() });
        for expected in [ErrorType::Connection, ErrorType::CircuitOpen] {
            let broken =
                breaker.run_with("broken", classify, |_| async { Err::<(), _>("no".to_owned()) });
            let is_open = matches!(broken.await, Err(ResilientError::CircuitOpen { .. }));
            assert_eq!(is_open, expected == ErrorType::CircuitOpen);
        }
    };
    telemetry
        .scope(async {
            let step = span("order.act.stock").start();
            step.run(work).await;
        })
        .await;
    insta::assert_snapshot!(recorder.tree(&SHOWN), @r"
    order.act.stock retry_count=1
      attempt stock retry_count=0 throughline.attempt.error_type=CONNECTION
      attempt stock retry_count=1
      attempt late retry_count=0 error.type=TIMEOUT ERROR(TIMEOUT)
      attempt broken retry_count=0 error.type=CONNECTION ERROR(no)
    ");
}
