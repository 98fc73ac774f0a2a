//! Everything that a provider can do wrong: the client always gets a defined answer, and the trace
//! tells the truth.

use std::time::Duration;

use throughline_resilience::BreakerPolicy;

use crate::house::{House, before, question, with_fallback};
use crate::script::{
    Answer, Do, STREAM, Script, completion, ending, error, opening, piece, says, streams, whole,
};

/// What a client gets of a whole answer, and the tree.
async fn whole_of(answer: Answer) -> String {
    let script = Script::start([answer]).await;
    let house = House::open(&before(&script.url)).await;
    let answered = house.ask("gpt-4o").await;
    let code = answered.json()["error"]["code"].to_string();
    let message = answered.json()["error"]["message"].to_string().replace(&script.url, "URL");
    format!("{} {code} {message}\n{}", answered.status.as_u16(), house.tree().await)
}

/// What a client gets of a streamed answer, and the tree.
async fn stream_of(answer: Answer) -> String {
    let script = Script::start([answer]).await;
    let mut config = before(&script.url);
    config.policy.timeouts.between_tokens_ms = Some(150);
    config.policy.timeouts.first_token_ms = Some(150);
    let house = House::open(&config).await;
    let answered = house.ask_stream("gpt-4o").await;
    let state = answered.header("x-stream-state").unwrap_or("-").to_owned();
    let text = answered.text().replace(&opening().replace(",\"usage\":null", ""), "<opening>");
    let text = text.replace(&piece("Hel").replace(",\"usage\":null", ""), "<Hel>");
    let status = answered.status.as_u16();
    // How long something took differs from run to run.
    let told = format!("{status} {state} {}\n{}", text.trim(), house.tree().await);
    let mut parts = told.split("no answer within ");
    let mut same = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        same.push_str("no answer within #");
        same.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    same
}

#[tokio::test]
async fn r4_3_whole_answers_that_fail() {
    let garbage = whole("200 OK", "", "<html>oops</html>");
    insta::assert_snapshot!(whole_of(garbage).await, @r#"
    502 "invalid_response" "the answer of gpt-4o at 127.0.0.1 cannot be used: expected a chat completion as JSON, got something else: expected value at line 1 column 1"
    chat gpt-4o outcome=error retry_count=1 status_code=200 type=INVALID_RESPONSE give_up=attempts_spent ERROR
      * route: one
      attempt gpt-4o retry_count=0 status_code=200 error_type=INVALID_RESPONSE
      attempt gpt-4o retry_count=1 status_code=200 type=INVALID_RESPONSE ERROR
    "#);
    let html = vec![Do::Send(
        "HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html\r\ncontent-length: 5\r\n\r\n<oh/>"
            .to_owned(),
    )];
    insta::assert_snapshot!(whole_of(html).await, @r#"
    502 "server" "gpt-4o at 127.0.0.1 answered 502 Bad Gateway: \"<oh/>\""
    chat gpt-4o outcome=error retry_count=1 status_code=502 type=SERVER give_up=attempts_spent ERROR
      * route: one
      attempt gpt-4o retry_count=0 status_code=502 error_type=SERVER
      attempt gpt-4o retry_count=1 status_code=502 type=SERVER ERROR
    "#);
    let half = vec![Do::Send("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 900\r\n\r\n{\"id\":".to_owned()), Do::Cut];
    insta::assert_snapshot!(whole_of(half).await, @r#"
    502 "connection" "the answer of gpt-4o at 127.0.0.1 broke off: error reading a body from connection: end of file before message length reached"
    chat gpt-4o outcome=error retry_count=1 status_code=200 type=CONNECTION give_up=attempts_spent ERROR
      * route: one
      attempt gpt-4o retry_count=0 status_code=200 error_type=CONNECTION
      attempt gpt-4o retry_count=1 status_code=200 type=CONNECTION ERROR
    "#);
    let told = whole("200 OK", "", r#"{"error":{"message":"busy","type":"overloaded_error"}}"#);
    insta::assert_snapshot!(whole_of(told).await, @r#"
    503 "overloaded" "the answer of gpt-4o at 127.0.0.1 cannot be used: the provider answered with an error: busy (overloaded_error)"
    chat gpt-4o outcome=error retry_count=1 status_code=200 type=OVERLOADED give_up=attempts_spent ERROR
      * route: one
      attempt gpt-4o retry_count=0 status_code=200 error_type=OVERLOADED
      attempt gpt-4o retry_count=1 status_code=200 type=OVERLOADED ERROR
    "#);
    insta::assert_snapshot!(whole_of(error("401 Unauthorized", "", "invalid_api_key")).await, @r#"
    502 "auth" "gpt-4o at 127.0.0.1 answered 401 Unauthorized: no (invalid_api_key)"
    chat gpt-4o outcome=error retry_count=0 status_code=401 type=AUTH give_up=not_retryable ERROR
      * route: one
      attempt gpt-4o retry_count=0 status_code=401 type=AUTH ERROR
    "#);
    insta::assert_snapshot!(whole_of(vec![Do::Cut]).await, @r#"
    502 "connection" "gpt-4o at 127.0.0.1 did not answer: client error (SendRequest): connection closed before message completed"
    chat gpt-4o outcome=error retry_count=1 type=CONNECTION give_up=attempts_spent ERROR
      * route: one
      attempt gpt-4o retry_count=0 error_type=CONNECTION
      attempt gpt-4o retry_count=1 type=CONNECTION ERROR
    "#);
}

#[tokio::test]
async fn r3_4_a_wrong_request_is_told_in_the_providers_words_and_not_tried_again() {
    let script =
        Script::start([error("400 Bad Request", "x-request-id: r-1\r\n", "bad_thing")]).await;
    let house = House::open(&before(&script.url)).await;
    let answered = house.ask("gpt-4o").await;
    assert_eq!(answered.status, 400);
    assert_eq!(
        answered.text(),
        r#"{"error":{"code":"bad_thing","message":"no","param":null,"type":"some_error"}}"#
    );
    assert_eq!(answered.header("x-request-id"), Some("r-1"));
    assert!(answered.header("x-trace-id").is_some());
    assert_eq!(script.came().len(), 1);
}

#[tokio::test]
async fn r4_3_a_retry_that_helps_leaves_no_error() {
    let script =
        Script::start([error("500 Internal Server Error", "", "oops"), says("hello")]).await;
    let house = House::open(&before(&script.url)).await;
    let answered = house.ask("gpt-4o").await;
    assert_eq!(answered.text(), completion("hello"));
    insta::assert_snapshot!(house.tree().await, @r"
    chat gpt-4o outcome=retry_succeeded retry_count=1 status_code=200 output_tokens=5
      * route: one
      attempt gpt-4o retry_count=0 status_code=500 error_type=SERVER
      attempt gpt-4o retry_count=1 status_code=200
    ");
}

#[tokio::test]
async fn a_storm_of_429_is_passed_on_with_its_pause() {
    let script = Script::start([error(
        "429 Too Many Requests",
        "retry-after: 120\r\n",
        "rate_limit_exceeded",
    )])
    .await;
    let house = House::open(&before(&script.url)).await;
    let answered = house.ask("gpt-4o").await;
    assert_eq!((answered.status.as_u16(), answered.header("retry-after")), (429, Some("120")));
    insta::assert_snapshot!(house.tree().await, @r"
    chat gpt-4o outcome=error retry_count=0 status_code=429 type=RATE_LIMITED give_up=retry_after_too_long ERROR
      * route: one
      attempt gpt-4o retry_count=0 status_code=429 type=RATE_LIMITED ERROR
    ");
}

#[tokio::test]
async fn r4_3_a_refused_connection_and_a_provider_that_is_silent() {
    let house = House::open(&before(&Script::nobody().await)).await;
    let answered = house.ask("gpt-4o").await;
    assert_eq!(
        (answered.status.as_u16(), &answered.json()["error"]["code"]),
        (502, &"connection".into())
    );
    insta::assert_snapshot!(house.tree().await, @r"
    chat gpt-4o outcome=error retry_count=1 type=CONNECTION give_up=attempts_spent ERROR
      * route: one
      attempt gpt-4o retry_count=0 error_type=CONNECTION
      attempt gpt-4o retry_count=1 type=CONNECTION ERROR
    ");

    let script = Script::start([vec![Do::Stall]]).await;
    let mut config = before(&script.url);
    config.policy.timeouts.attempt_ms = Some(50);
    config.policy.timeouts.total_ms = Some(400);
    let house = House::open(&config).await;
    let answered = house.ask("gpt-4o").await;
    assert_eq!(
        (answered.status.as_u16(), &answered.json()["error"]["code"]),
        (504, &"timeout".into())
    );
    let all = house.records().await;
    let call = all.spans.iter().find(|span| span.name == "chat gpt-4o").expect("the call");
    assert_eq!(
        (call.status.message.as_str(), call.attributes.str("error.type")),
        ("TIMEOUT", Some("TIMEOUT"))
    );
    insta::assert_snapshot!(crate::trees::tree(&all.spans, &all.decisions), @r"
    chat gpt-4o outcome=model_timeout retry_count=1 type=TIMEOUT give_up=attempts_spent ERROR
      * route: one
      attempt gpt-4o retry_count=0 error_type=TIMEOUT
      attempt gpt-4o retry_count=1 type=TIMEOUT ERROR
    ");
}

#[tokio::test]
async fn r3_2_streams_that_break_before_their_first_content() {
    let wrong_kind = whole("200 OK", "", "{}");
    insta::assert_snapshot!(stream_of(wrong_kind).await, @r#"
    502 - {"error":{"code":"invalid_response","message":"expected text/event-stream as the stream of gpt-4o at 127.0.0.1, got content type application/json","param":null,"type":"api_error"}}
    chat gpt-4o outcome=error retry_count=1 status_code=200 type=INVALID_RESPONSE give_up=attempts_spent ERROR
      * route: one
      attempt gpt-4o retry_count=0 status_code=200 error_type=INVALID_RESPONSE
      attempt gpt-4o retry_count=1 status_code=200 type=INVALID_RESPONSE ERROR
    "#);
    let cut = vec![Do::Send(format!("{STREAM}{}", opening())), Do::Cut];
    insta::assert_snapshot!(stream_of(cut).await, @r#"
    502 failed {"error":{"code":"stream_failed","message":"the stream of gpt-4o at 127.0.0.1 broke off before its end mark","param":null,"type":"api_error"}}
    chat gpt-4o outcome=error retry_count=1 status_code=200 type=STREAM_FAILED give_up=attempts_spent ERROR
      * route: one
      attempt gpt-4o retry_count=0 status_code=200 error_type=STREAM_FAILED
      http.stream.init type=STREAM_FAILED end=failed chunks=1 ERROR !exception
      attempt gpt-4o retry_count=1 status_code=200 type=STREAM_FAILED ERROR
        http.stream.init type=STREAM_FAILED end=failed chunks=1 ERROR !exception
    "#);
    let half_an_event = vec![Do::Send(format!("{STREAM}{}data: {{\"choi", opening())), Do::Cut];
    insta::assert_snapshot!(stream_of(half_an_event).await, @r#"
    502 failed {"error":{"code":"stream_failed","message":"the stream of gpt-4o at 127.0.0.1 broke off before its end mark","param":null,"type":"api_error"}}
    chat gpt-4o outcome=error retry_count=1 status_code=200 type=STREAM_FAILED give_up=attempts_spent ERROR
      * route: one
      attempt gpt-4o retry_count=0 status_code=200 error_type=STREAM_FAILED
      http.stream.init type=STREAM_FAILED end=failed chunks=1 ERROR !exception
      attempt gpt-4o retry_count=1 status_code=200 type=STREAM_FAILED ERROR
        http.stream.init type=STREAM_FAILED end=failed chunks=1 ERROR !exception
    "#);
    let silent = vec![Do::Send(format!("{STREAM}{}", opening())), Do::Stall];
    insta::assert_snapshot!(stream_of(silent).await, @r#"
    504 - {"error":{"code":"timeout","message":"gpt-4o at 127.0.0.1 gave no answer within # ms (2 attempts)","param":null,"type":"timeout_error"}}
    chat gpt-4o outcome=model_timeout retry_count=1 type=TIMEOUT give_up=attempts_spent ERROR
      * route: one
      attempt gpt-4o retry_count=0 error_type=TIMEOUT
      http.stream.init type=TIMEOUT end=failed chunks=1 ERROR !exception
      attempt gpt-4o retry_count=1 type=TIMEOUT ERROR
        http.stream.init type=TIMEOUT end=failed chunks=1 ERROR !exception
    "#);
}

#[tokio::test]
async fn r3_2_streams_that_break_after_it_end_with_an_error_event() {
    let begun = || Do::Send(format!("{STREAM}{}{}", opening(), piece("Hel")));
    insta::assert_snapshot!(stream_of(vec![begun(), Do::Cut]).await, @r#"
    200 - <opening><Hel>data: {"error":{"code":"stream_failed","message":"the stream of gpt-4o at 127.0.0.1 broke off before its end mark","param":null,"type":"api_error"}}
    chat gpt-4o outcome=error retry_count=0 status_code=200 type=STREAM_FAILED give_up=already_answering output_tokens=1 ERROR
      * route: one
      attempt gpt-4o retry_count=0 status_code=200 type=STREAM_FAILED ERROR
      http.stream.init end=first_token chunks=2
      http.stream.segment type=STREAM_FAILED end=failed chunks=0 ERROR !exception
    "#);
    insta::assert_snapshot!(stream_of(vec![begun(), Do::Stall]).await, @r#"
    200 - <opening><Hel>data: {"error":{"code":"timeout","message":"the stream of gpt-4o at 127.0.0.1 brought nothing for 150 ms","param":null,"type":"timeout_error"}}
    chat gpt-4o outcome=model_timeout retry_count=0 status_code=200 type=TIMEOUT give_up=already_answering output_tokens=1 ERROR
      * route: one
      attempt gpt-4o retry_count=0 type=TIMEOUT ERROR
      http.stream.init end=first_token chunks=2
      http.stream.segment type=TIMEOUT end=failed chunks=0 ERROR !exception
    "#);
    let garbage = Do::Send("data: <html>\n\n".to_owned());
    insta::assert_snapshot!(stream_of(vec![begun(), garbage, Do::Cut]).await, @r#"
    200 - <opening><Hel>data: {"error":{"code":"invalid_response","message":"the answer of gpt-4o at 127.0.0.1 cannot be used: expected a chat completion chunk as JSON, got something else: expected value at line 1 column 1","param":null,"type":"api_error"}}
    chat gpt-4o outcome=error retry_count=0 status_code=200 type=INVALID_RESPONSE give_up=already_answering output_tokens=1 ERROR
      * route: one
      attempt gpt-4o retry_count=0 status_code=200 type=INVALID_RESPONSE ERROR
      http.stream.init end=first_token chunks=2
      http.stream.segment type=INVALID_RESPONSE end=failed chunks=0 ERROR !exception
    "#);
    let told = Do::Send(
        "data: {\"error\":{\"message\":\"busy\",\"type\":\"server_error\"}}\n\n".to_owned(),
    );
    insta::assert_snapshot!(stream_of(vec![begun(), told, Do::Cut]).await, @r#"
    200 - <opening><Hel>data: {"error":{"code":"server","message":"the answer of gpt-4o at 127.0.0.1 cannot be used: the provider answered with an error: busy (server_error)","param":null,"type":"api_error"}}
    chat gpt-4o outcome=error retry_count=0 status_code=200 type=SERVER give_up=already_answering output_tokens=1 ERROR
      * route: one
      attempt gpt-4o retry_count=0 status_code=200 type=SERVER ERROR
      http.stream.init end=first_token chunks=2
      http.stream.segment type=SERVER end=failed chunks=0 ERROR !exception
    "#);
    let invalid = Do::Raw(b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\xff\"}}]}\n\ndata: nothing\n\n".to_vec());
    let answered = stream_of(vec![begun(), invalid, Do::Cut]).await;
    assert!(answered.contains("invalid_response") && !answered.contains("[DONE]"), "{answered}");
}

#[tokio::test]
async fn r3_2_a_stream_that_broke_says_so_in_a_trailer_where_one_is_taken() {
    let script =
        Script::start([vec![Do::Send(format!("{STREAM}{}", piece("Hel"))), Do::Cut]]).await;
    let house = House::open(&before(&script.url)).await;
    let answered =
        house.post("/v1/chat/completions", &[("te", "trailers")], &question("gpt-4o", true)).await;
    let trailers = answered.trailers.expect("trailers");
    assert_eq!(trailers["x-stream-state"], "failed");
}

#[tokio::test]
async fn an_end_mark_without_its_blank_line_counts() {
    let text = format!("{STREAM}{}{}", piece("Hello"), ending());
    let script = Script::start([vec![Do::Send(text.trim_end().to_owned()), Do::Cut]]).await;
    let house = House::open(&before(&script.url)).await;
    let answered = house.ask_stream("gpt-4o").await;
    assert!(answered.text().ends_with("data: [DONE]\n\n"), "{}", answered.text());
    assert!(house.tree().await.starts_with("chat gpt-4o outcome=ok"));
}

#[tokio::test]
async fn r4_2_the_fallback_answers_when_the_first_does_not() {
    let down = Script::start([error("503 Service Unavailable", "", "down")]).await;
    let up = Script::start([says("from two")]).await;
    let house = House::open(&with_fallback(&down.url, &up.url)).await;
    let answered = house.ask("smart").await;
    assert_eq!((answered.status.as_u16(), answered.text()), (200, completion("from two")));
    assert_eq!(up.came()[0].json()["model"], "gpt-4o-mini");
    let decision = answered.header("x-decision-id").map(str::to_owned);
    let all = house.records().await;
    let last = all.decisions.iter().find(|one| one.stage == "fallback").expect("a decision");
    assert_eq!(decision, Some(last.decision_id.to_string()));
    insta::assert_snapshot!(crate::trees::tree(&all.spans, &all.decisions), @r"
    fallback chat outcome=fallback_degraded decision=triggered branch=degraded result=success
      * fallback: gpt-4o-mini
      attempt chat outcome=error type=SERVER branch=primary name=primary ERROR
        chat gpt-4o outcome=error retry_count=0 status_code=503 type=SERVER give_up=attempts_spent routing_strategy=weighted ERROR
          * route: gpt-4o
          attempt gpt-4o retry_count=0 status_code=503 type=SERVER routing_strategy=weighted ERROR
      attempt chat outcome=ok branch=degraded name=gpt-4o-mini
        chat gpt-4o-mini outcome=ok retry_count=0 status_code=200 output_tokens=5
    ");
}

#[tokio::test]
async fn r4_2_a_stream_falls_back_until_its_first_content_and_not_after() {
    let silent = Script::start([vec![Do::Send(format!("{STREAM}{}", opening())), Do::Cut]]).await;
    let up = Script::start([streams(&["from two"])]).await;
    let house = House::open(&with_fallback(&silent.url, &up.url)).await;
    let answered = house.ask_stream("smart").await;
    assert!(answered.text().contains("from two") && answered.text().ends_with("[DONE]\n\n"));
    assert_eq!(answered.text().matches("\"role\"").count(), 1, "nothing of the first is left");
    insta::assert_snapshot!(house.tree().await, @r"
    fallback chat outcome=fallback_degraded decision=triggered branch=degraded result=success
      * fallback: gpt-4o-mini
      attempt chat outcome=error type=STREAM_FAILED branch=primary name=primary ERROR
        chat gpt-4o outcome=error retry_count=0 status_code=200 type=STREAM_FAILED give_up=attempts_spent routing_strategy=weighted ERROR
          * route: gpt-4o
          attempt gpt-4o retry_count=0 status_code=200 type=STREAM_FAILED routing_strategy=weighted ERROR
          http.stream.init type=STREAM_FAILED end=failed chunks=1 routing_strategy=weighted ERROR !exception
      attempt chat outcome=ok branch=degraded name=gpt-4o-mini
        chat gpt-4o-mini outcome=ok retry_count=0 status_code=200 output_tokens=5
          http.stream.init end=first_token chunks=2
          http.stream.segment end=done chunks=2
    ");

    let broken =
        Script::start([vec![Do::Send(format!("{STREAM}{}", piece("Hel"))), Do::Cut]]).await;
    let house = House::open(&with_fallback(&broken.url, &up.url)).await;
    let answered = house.ask_stream("smart").await;
    assert!(answered.text().contains("stream_failed") && !answered.text().contains("from two"));
}

#[tokio::test]
async fn r4_2_a_failed_fallback_is_never_a_success() {
    let down = Script::start([error("500 Internal Server Error", "", "down")]).await;
    let busy =
        Script::start([error("429 Too Many Requests", "retry-after: 7\r\n", "slow_down")]).await;
    let house = House::open(&with_fallback(&down.url, &busy.url)).await;
    for answered in [house.ask("smart").await, house.ask_stream("smart").await] {
        assert_eq!((answered.status.as_u16(), answered.header("retry-after")), (503, Some("7")));
        assert_eq!(answered.json()["error"]["code"], "fallback_exhausted");
    }
    insta::assert_snapshot!(house.tree().await, @r"
    fallback chat outcome=error type=FALLBACK_EXHAUSTED decision=triggered branch=degraded result=failed ERROR
      * fallback: gpt-4o-mini
      attempt chat outcome=error type=SERVER branch=primary name=primary ERROR
        chat gpt-4o outcome=error retry_count=0 status_code=500 type=SERVER give_up=attempts_spent routing_strategy=weighted ERROR
          * route: gpt-4o
          attempt gpt-4o retry_count=0 status_code=500 type=SERVER routing_strategy=weighted ERROR
      attempt chat outcome=error type=RATE_LIMITED branch=degraded name=gpt-4o-mini ERROR
        chat gpt-4o-mini outcome=error retry_count=0 status_code=429 type=RATE_LIMITED give_up=attempts_spent ERROR
          attempt gpt-4o-mini retry_count=0 status_code=429 type=RATE_LIMITED ERROR
    fallback chat outcome=error type=FALLBACK_EXHAUSTED decision=triggered branch=degraded result=failed ERROR
      * fallback: gpt-4o-mini
      attempt chat outcome=error type=SERVER branch=primary name=primary ERROR
        chat gpt-4o outcome=error retry_count=0 status_code=500 type=SERVER give_up=attempts_spent routing_strategy=weighted ERROR
          * route: gpt-4o
          attempt gpt-4o retry_count=0 status_code=500 type=SERVER routing_strategy=weighted ERROR
      attempt chat outcome=error type=RATE_LIMITED branch=degraded name=gpt-4o-mini ERROR
        chat gpt-4o-mini outcome=error retry_count=0 status_code=429 type=RATE_LIMITED give_up=attempts_spent ERROR
          attempt gpt-4o-mini retry_count=0 status_code=429 type=RATE_LIMITED ERROR
    ");
    let house = House::open(&with_fallback(&down.url, &busy.url)).await;
    let body = r#"{"model":"smart","max_tokens":5,"messages":[{"role":"user","content":"hi"}]}"#;
    let answered = house.post("/v1/messages", &[], body).await;
    assert_eq!((answered.status.as_u16(), &answered.json()["type"]), (503, &"error".into()));
}

#[tokio::test]
async fn r4_3_an_open_breaker_refuses_and_says_until_when() {
    let script = Script::start([error("500 Internal Server Error", "", "oops")]).await;
    let mut config = before(&script.url);
    config.policy.breaker =
        Some(BreakerPolicy { min_attempts: 2, open_ms: 60_000, ..BreakerPolicy::default() });
    let house = House::open(&config).await;
    assert_eq!(house.ask("gpt-4o").await.status, 502);
    let refused = house.ask("gpt-4o").await;
    assert_eq!(
        (refused.status.as_u16(), &refused.json()["error"]["code"]),
        (503, &"circuit_open".into())
    );
    let pause: u64 = refused.header("retry-after").expect("a pause").parse().expect("seconds");
    assert!((58..=60).contains(&pause), "{pause}");
    assert_eq!(script.came().len(), 2, "the second request did not go out");
    assert_eq!(house.ask("gpt-4o-mini").await.status, 502, "another model has its own breaker");
    assert!(house.metrics().contains(r#"breaker_state{target="one/gpt-4o"} 2"#));
    insta::assert_snapshot!(house.tree().await, @r"
    chat gpt-4o outcome=error retry_count=1 status_code=500 type=SERVER give_up=attempts_spent ERROR !breaker.state_changed
      * route: one
      * breaker: open
      attempt gpt-4o retry_count=0 status_code=500 error_type=SERVER
      attempt gpt-4o retry_count=1 status_code=500 type=SERVER ERROR
    chat gpt-4o outcome=circuit_open retry_count=0 type=CIRCUIT_OPEN give_up=circuit_open ERROR
      * route: one
      * breaker: refuse
    chat gpt-4o-mini outcome=error retry_count=1 status_code=500 type=SERVER give_up=attempts_spent ERROR !breaker.state_changed
      * route: one
      * breaker: open
      attempt gpt-4o-mini retry_count=0 status_code=500 error_type=SERVER
      attempt gpt-4o-mini retry_count=1 status_code=500 type=SERVER ERROR
    ");
}

#[tokio::test]
async fn a_slow_but_steady_stream_is_not_cut() {
    let go = std::sync::Arc::new(tokio::sync::Notify::new());
    let script = Script::start([vec![
        Do::Send(format!("{STREAM}{}", piece("a"))),
        Do::Wait(std::sync::Arc::clone(&go)),
        Do::Send(": still here\n\n".to_owned()),
        Do::Wait(std::sync::Arc::clone(&go)),
        Do::Send(format!("{}{}", piece("b"), ending())),
        Do::Cut,
    ]])
    .await;
    let mut config = before(&script.url);
    config.policy.timeouts.between_tokens_ms = Some(400);
    let house = House::open(&config).await;
    let ticking = tokio::spawn(async move {
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(250)).await;
            go.notify_one();
        }
    });
    let answered = house.ask_stream("gpt-4o").await;
    ticking.await.expect("ticked");
    assert!(
        answered.text().contains(": still here\n\n") && answered.text().ends_with("[DONE]\n\n")
    );
}

#[tokio::test]
async fn r3_2_an_end_mark_whose_blank_line_is_cut_is_an_end_mark() {
    for cut in 1..=2 {
        let mut sent = format!("{STREAM}{}{}", piece("Hel"), ending());
        sent.truncate(sent.len() - cut);
        let script = Script::start([vec![Do::Send(sent), Do::Cut]]).await;
        let house = House::open(&before(&script.url)).await;
        let answer = house.ask_stream("gpt-4o").await.text();
        assert!(answer.ends_with("}\n\ndata: [DONE]\n\n"), "{answer}");
    }
}

#[tokio::test]
async fn r3_2_a_stream_that_takes_longer_than_its_request_may_is_ended() {
    let script =
        Script::start([vec![Do::Send(format!("{STREAM}{}", piece("a"))), Do::Stall]]).await;
    let mut config = before(&script.url);
    config.policy.timeouts.total_ms = Some(200);
    let house = House::open(&config).await;
    let answered = house.ask_stream("gpt-4o").await;
    assert!(answered.text().contains("was not complete within"), "{}", answered.text());
    insta::assert_snapshot!(house.tree().await, @r"
    chat gpt-4o outcome=model_timeout retry_count=0 status_code=200 type=TIMEOUT give_up=already_answering output_tokens=1 ERROR
      * route: one
      attempt gpt-4o retry_count=0 type=TIMEOUT ERROR
      http.stream.init end=first_token chunks=1
    ");
}
