//! Streamed answers: segments, time to the first token, streams that break, stall or are given up.

use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use throughline::llm::{ChatRequest, ChatResponse, Chunk, Delta};
use throughline::resilience::{BreakerPolicy, BreakerState, Policy, RetryPolicy, TimeoutPolicy};
use throughline::{
    ChatError, ChatModel, ChatStream, Endpoint, ErrorType, Recorder, Resilience, Telemetry, Traced,
    keys,
};

use crate::provider::{Cue, Provider, Puppet, Step, quick, recorded};

const SHOWN: [&str; 10] = [
    keys::OUTCOME,
    keys::RETRY_COUNT,
    keys::STATUS_CODE,
    keys::ERROR_TYPE,
    keys::ATTEMPT_ERROR_TYPE,
    keys::GIVE_UP,
    keys::CHUNK_SEQ,
    keys::STREAM_CHUNKS,
    keys::STREAM_END,
    keys::ERROR,
];

fn request() -> ChatRequest {
    ChatRequest::new("gpt-4o").user("hi")
}

/// Reads a stream to its end: the text, and the error if it ended with one.
async fn read(model: &Traced) -> String {
    let mut stream = match model.stream(request()).await {
        Ok(stream) => stream,
        Err(error) => return format!("not opened: {error}"),
    };
    let mut text = String::new();
    while let Some(item) = stream.next().await {
        match item {
            Ok(chunk) => text.push_str(chunk.text()),
            Err(error) => text.push_str(&format!(" / error: {error}")),
        }
    }
    text
}

async fn tell(script: Vec<Step>) -> String {
    let provider = Provider::start(script).await;
    let (recorder, telemetry) = recorded();
    let model = Traced::new(provider.client.clone()).policy(quick());
    let text = telemetry.scope(read(&model)).await;
    assert_eq!(telemetry.counts().open_spans, 0);
    format!("{}{text}", recorder.tree(&SHOWN))
}

fn stage(scripts: Vec<Vec<Cue>>, policy: Policy) -> (Recorder, Telemetry, Traced) {
    let (recorder, telemetry) = recorded();
    (recorder, telemetry, Traced::new(Puppet::new(scripts)).policy(policy))
}

fn wait(secs: u64) -> Cue {
    Cue::Wait(Duration::from_secs(secs))
}

#[tokio::test]
async fn a_stream_is_two_segments_below_its_call() {
    insta::assert_snapshot!(tell(vec![Step::Answer("hello")]).await, @r"
    chat gpt-4o outcome=ok retry_count=0 status_code=200
      http.stream.init chunk_seq=0 throughline.stream.chunks=1 throughline.stream.end=first_token
      http.stream.segment chunk_seq=1 throughline.stream.chunks=1 throughline.stream.end=done
    hello
    ");
}

#[tokio::test]
async fn a_stream_tells_usage_content_and_first_token() {
    let provider = Provider::start([Step::Answer("hello")]).await;
    let (recorder, telemetry) = recorded();
    let model = Traced::new(provider.client.clone());
    telemetry.scope(read(&model)).await;
    assert!(provider.requests()[0].1.is_stream_usage_wanted);
    insta::assert_snapshot!(recorder.tree(&[
        keys::GEN_AI_REQUEST_STREAM,
        keys::GEN_AI_USAGE_INPUT_TOKENS,
        keys::GEN_AI_RESPONSE_ID,
        keys::GEN_AI_RESPONSE_FINISH_REASONS,
        keys::GEN_AI_OUTPUT_MESSAGES,
        keys::COST_USD,
    ]), @r#"
    chat gpt-4o gen_ai.request.stream=true gen_ai.usage.input_tokens=1000 gen_ai.response.id=chatcmpl-1 gen_ai.response.finish_reasons=["stop"] gen_ai.output.messages=[{"finish_reason":"stop","parts":[{"content":"hello","type":"text"}],"role":"assistant"}] throughline.cost_usd=0.003
      http.stream.init
      http.stream.segment
    "#);
    let spans = recorder.spans();
    let find = |name: &str| spans.iter().find(|span| span.name == name).expect("the span");
    let call = find("chat gpt-4o");
    let has_time = call
        .attributes
        .iter()
        .any(|entry| entry.key.as_str() == keys::GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK);
    assert!(has_time);
    // Chained: one stream id, and a link to the segment before.
    let (init, segment) = (find("http.stream.init"), find("http.stream.segment"));
    let id = |at: &opentelemetry_sdk::trace::SpanData| {
        at.attributes
            .iter()
            .find(|entry| entry.key.as_str() == keys::STREAM_ID)
            .map(|e| e.value.clone())
    };
    assert_eq!(id(init), id(segment));
    assert_eq!(
        segment.links.iter().next().map(|link| &link.span_context),
        Some(&init.span_context)
    );
}

#[tokio::test]
async fn a_stream_that_breaks_off_fails_with_what_had_come() {
    insta::assert_snapshot!(tell(vec![Step::Cut(&["hel", "lo"])]).await, @r"
    chat gpt-4o outcome=error retry_count=0 status_code=200 error.type=STREAM_FAILED throughline.give_up=already_answering ERROR(the stream of gpt-4o at 127.0.0.1 broke off before its end mark)
      attempt gpt-4o retry_count=0 status_code=200 error.type=STREAM_FAILED ERROR(the stream of gpt-4o at 127.0.0.1 broke off before its end mark)
      http.stream.init chunk_seq=0 throughline.stream.chunks=1 throughline.stream.end=first_token
      http.stream.segment error.type=STREAM_FAILED chunk_seq=1 throughline.stream.chunks=1 throughline.stream.end=failed error=true ERROR(the stream of gpt-4o at 127.0.0.1 broke off before its end mark)
    hello / error: the stream of gpt-4o at 127.0.0.1 broke off before its end mark
    ");
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_middle() {
    let provider = Provider::start([Step::Break(&["hel"])]).await;
    let (recorder, telemetry) = recorded();
    let model = Traced::new(provider.client.clone()).policy(quick());
    let work = async {
        let mut stream = model.stream(request()).await.expect("a stream");
        assert_eq!(stream.next().await.expect("a chunk").expect("text").text(), "hel");
        provider.break_off();
        stream.next().await.expect("an end").expect_err("broken")
    };
    let error = telemetry.scope(work).await;
    assert_eq!(error.error_type, ErrorType::StreamFailed);
    let told = error.to_string();
    assert!(
        told.starts_with("the stream of gpt-4o at 127.0.0.1 broke off before its end"),
        "{told}"
    );
    let tree = recorder.tree(&[keys::STREAM_END, keys::ERROR]);
    assert!(
        tree.contains("http.stream.segment throughline.stream.end=failed error=true"),
        "{tree}"
    );
}

#[tokio::test]
async fn a_broken_stream_bears_an_exception_event() {
    let provider = Provider::start([Step::Cut(&["hel", "lo"])]).await;
    let (recorder, telemetry) = recorded();
    let model = Traced::new(provider.client.clone()).policy(quick());
    telemetry.scope(read(&model)).await;
    let spans = recorder.spans();
    let segment =
        spans.iter().find(|span| span.name == "http.stream.segment").expect("the segment");
    assert_eq!(segment.events.iter().map(|event| &*event.name).collect::<Vec<_>>(), ["exception"]);
}

#[tokio::test]
async fn a_stream_that_fails_before_its_first_token_is_tried_again() {
    let script = vec![Step::Refuse(500, &[], ""), Step::Cut(&[]), Step::Answer("hello")];
    insta::assert_snapshot!(tell(script).await, @r"
    chat gpt-4o outcome=retry_succeeded retry_count=2 status_code=200
      attempt gpt-4o retry_count=0 status_code=500 throughline.attempt.error_type=SERVER
      attempt gpt-4o retry_count=1 status_code=200 throughline.attempt.error_type=STREAM_FAILED
        http.stream.init error.type=STREAM_FAILED chunk_seq=0 throughline.stream.chunks=0 throughline.stream.end=failed error=true ERROR(the stream of gpt-4o at 127.0.0.1 broke off before its end mark)
      attempt gpt-4o retry_count=2 status_code=200
        http.stream.init chunk_seq=0 throughline.stream.chunks=1 throughline.stream.end=first_token
        http.stream.segment chunk_seq=1 throughline.stream.chunks=1 throughline.stream.end=done
    hello
    ");
}

#[tokio::test]
async fn what_is_no_stream_is_told_as_such() {
    let html = || Step::Raw("text/html", "<html>");
    insta::assert_snapshot!(tell(vec![html(), html(), html()]).await, @r"
    chat gpt-4o outcome=error retry_count=2 status_code=200 error.type=INVALID_RESPONSE throughline.give_up=attempts_spent ERROR(gpt-4o at 127.0.0.1 answered 200 OK with content type text/html, expected text/event-stream)
      attempt gpt-4o retry_count=0 status_code=200 throughline.attempt.error_type=INVALID_RESPONSE
      attempt gpt-4o retry_count=1 status_code=200 throughline.attempt.error_type=INVALID_RESPONSE
      attempt gpt-4o retry_count=2 status_code=200 error.type=INVALID_RESPONSE ERROR(gpt-4o at 127.0.0.1 answered 200 OK with content type text/html, expected text/event-stream)
    not opened: gpt-4o at 127.0.0.1 answered 200 OK with content type text/html, expected text/event-stream
    ");
    let garbage = Step::Raw("text/event-stream", "data: {\"choices\":7}\n\n");
    insta::assert_snapshot!(tell(vec![garbage, Step::Answer("hello")]).await, @r"
    chat gpt-4o outcome=retry_succeeded retry_count=1 status_code=200
      attempt gpt-4o retry_count=0 status_code=200 throughline.attempt.error_type=INVALID_RESPONSE
      http.stream.init error.type=INVALID_RESPONSE chunk_seq=0 throughline.stream.chunks=0 throughline.stream.end=failed error=true ERROR(gpt-4o at 127.0.0.1 answered 200 OK: expected a chat completion chunk as JSON, got something else: invalid type: integer `7`, expected a sequence at line 1 column 12)
      attempt gpt-4o retry_count=1 status_code=200
        http.stream.init chunk_seq=0 throughline.stream.chunks=1 throughline.stream.end=first_token
        http.stream.segment chunk_seq=1 throughline.stream.chunks=1 throughline.stream.end=done
    hello
    ");
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_segment_and_the_next_chunk_begins_another() {
    let cues = vec![Cue::Say("a"), Cue::Say("b"), wait(31), Cue::Say("c"), wait(5), Cue::Last];
    let (recorder, telemetry, model) = stage(vec![cues], quick());
    assert_eq!(telemetry.scope(read(&model)).await, "abc");
    insta::assert_snapshot!(recorder.tree(&SHOWN), @r"
    chat gpt-4o outcome=ok retry_count=0
      http.stream.init chunk_seq=0 throughline.stream.chunks=1 throughline.stream.end=first_token
      http.stream.segment chunk_seq=1 throughline.stream.chunks=1 throughline.stream.end=idle
      http.stream.segment chunk_seq=2 throughline.stream.chunks=2 throughline.stream.end=done
    ");
}

#[tokio::test(start_paused = true)]
async fn a_long_answer_is_told_in_segments() {
    let mut cues = vec![Cue::Say("a")];
    cues.extend((0..5).flat_map(|_| [wait(4), Cue::Say("b")]));
    cues.push(Cue::Last);
    let (recorder, telemetry, model) = stage(vec![cues], quick());
    telemetry.scope(read(&model)).await;
    insta::assert_snapshot!(recorder.tree(&SHOWN), @r"
    chat gpt-4o outcome=ok retry_count=0
      http.stream.init chunk_seq=0 throughline.stream.chunks=1 throughline.stream.end=first_token
      http.stream.segment chunk_seq=1 throughline.stream.chunks=3 throughline.stream.end=rotated
      http.stream.segment chunk_seq=4 throughline.stream.chunks=3 throughline.stream.end=done
    ");
}

#[tokio::test(start_paused = true)]
async fn a_first_token_that_does_not_come_is_tried_again() {
    let (recorder, telemetry, model) =
        stage(vec![vec![wait(3_600)], vec![wait(2), Cue::Say("hello"), Cue::Last]], quick());
    assert_eq!(telemetry.scope(read(&model)).await, "hello");
    insta::assert_snapshot!(recorder.tree(&SHOWN), @r"
    chat gpt-4o outcome=retry_succeeded retry_count=1
      attempt gpt-4o retry_count=0 throughline.attempt.error_type=TIMEOUT
      http.stream.init error.type=TIMEOUT chunk_seq=0 throughline.stream.chunks=0 throughline.stream.end=failed error=true ERROR(TIMEOUT)
      attempt gpt-4o retry_count=1
        http.stream.init chunk_seq=0 throughline.stream.chunks=1 throughline.stream.end=first_token
        http.stream.segment chunk_seq=1 throughline.stream.chunks=1 throughline.stream.end=done
    ");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_never_ends_times_out_as_a_whole() {
    let timeouts = TimeoutPolicy { total_ms: Some(60_000), ..TimeoutPolicy::default() };
    let (recorder, telemetry, model) = stage(
        vec![vec![Cue::Say("a"), Cue::Say("b"), wait(3_600)]],
        Policy { timeouts, ..quick() },
    );
    assert_eq!(
        telemetry.scope(read(&model)).await,
        "ab / error: the answer of gpt-4o was not complete within 60.0 s"
    );
    insta::assert_snapshot!(recorder.tree(&SHOWN), @r"
    chat gpt-4o outcome=model_timeout retry_count=0 error.type=TIMEOUT throughline.give_up=already_answering ERROR(TIMEOUT)
      attempt gpt-4o retry_count=0 error.type=TIMEOUT ERROR(TIMEOUT)
      http.stream.init chunk_seq=0 throughline.stream.chunks=1 throughline.stream.end=first_token
      http.stream.segment chunk_seq=1 throughline.stream.chunks=1 throughline.stream.end=idle
    ");
}

/// A provider that always has another chunk at hand, for longer than anybody waits.
struct Endless;

impl ChatModel for Endless {
    fn endpoint(&self) -> Endpoint {
        Endpoint::in_process("endless")
    }

    fn chat(&self, _: ChatRequest) -> BoxFuture<'_, Result<ChatResponse, ChatError>> {
        async { Err(ChatError::new(ErrorType::Server, "streams only")) }.boxed()
    }

    fn stream(&self, _: ChatRequest) -> BoxFuture<'_, Result<ChatStream, ChatError>> {
        let word = Delta { text: Some("a".to_owned()), ..Delta::default() };
        let chunk = Chunk { deltas: vec![word], ..Chunk::default() };
        let words = stream::repeat(chunk).map(Ok).take(3_000_000);
        async move { Ok(ChatStream::new(None, words)) }.boxed()
    }
}

#[tokio::test]
async fn an_answer_that_leaves_the_timer_no_turn_times_out_too() {
    let timeouts = TimeoutPolicy { total_ms: Some(20), ..TimeoutPolicy::default() };
    let (recorder, telemetry) = recorded();
    let model = Traced::new(Endless).policy(Policy { timeouts, ..quick() });
    let text = telemetry.scope(read(&model)).await;
    // How long it took in the end is up to the machine.
    let told = text.find(" / error: the answer of gpt-4o was not complete within ");
    assert!(told.is_some(), "{}", &text[text.len() - 80..]);
    assert!(recorder.tree(&[keys::OUTCOME]).starts_with("chat gpt-4o outcome=model_timeout"));
    assert_eq!(telemetry.counts().open_spans, 0);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_goes_away_leaves_ended_spans_with_what_had_come() {
    let (recorder, telemetry, model) =
        stage(vec![vec![Cue::Say("hello "), Cue::Say("wor"), wait(3_600)]], quick());
    let request = ChatRequest::new("puppet").user("hi");
    telemetry
        .scope(async {
            let mut stream = model.stream(request).await.expect("a stream");
            for _ in 0..2 {
                stream.next().await.expect("a chunk").expect("text");
            }
        })
        .await;
    assert_eq!(telemetry.counts().open_spans, 0);
    insta::assert_snapshot!(recorder.tree(&[
        keys::OUTCOME, keys::STREAM_END, keys::USAGE_ESTIMATED, keys::GEN_AI_USAGE_OUTPUT_TOKENS,
    ]), @r"
    chat puppet outcome=cancelled throughline.usage.estimated=true gen_ai.usage.output_tokens=3
      http.stream.init throughline.stream.end=first_token
      http.stream.segment throughline.stream.end=cancelled
    ");
}

#[tokio::test(start_paused = true)]
async fn an_error_in_the_middle_is_final() {
    let error = ChatError::new(ErrorType::Server, "overloaded");
    let (recorder, telemetry, model) =
        stage(vec![vec![Cue::Say("a"), Cue::Fail(error), Cue::Say("b")]], quick());
    assert_eq!(telemetry.scope(read(&model)).await, "a / error: overloaded");
    insta::assert_snapshot!(recorder.tree(&SHOWN), @r"
    chat gpt-4o outcome=error retry_count=0 error.type=SERVER throughline.give_up=already_answering ERROR(overloaded)
      attempt gpt-4o retry_count=0 error.type=SERVER ERROR(overloaded)
      http.stream.init chunk_seq=0 throughline.stream.chunks=1 throughline.stream.end=first_token
      http.stream.segment error.type=SERVER chunk_seq=1 throughline.stream.chunks=0 throughline.stream.end=failed error=true ERROR(overloaded)
    ");
}

/// Reads until the answer says why it ended, and no further.
async fn read_to_finish_reason(model: &Traced) {
    let mut stream = model.stream(request()).await.expect("a stream");
    while let Some(item) = stream.next().await {
        let chunk = item.expect("a chunk");
        if chunk.deltas.iter().any(|delta| delta.finish_reason.is_some()) {
            return;
        }
    }
    panic!("expected a finish reason");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stops_at_the_finish_reason_has_read_it_all() {
    // The end mark would come after an hour.
    let (recorder, telemetry, model) =
        stage(vec![vec![Cue::Say("a"), Cue::Say("b"), Cue::Last, wait(3_600)]], quick());
    telemetry.scope(read_to_finish_reason(&model)).await;
    assert_eq!(telemetry.counts().open_spans, 0);
    insta::assert_snapshot!(recorder.tree(&SHOWN), @r"
    chat gpt-4o outcome=ok retry_count=0
      http.stream.init chunk_seq=0 throughline.stream.chunks=1 throughline.stream.end=first_token
      http.stream.segment chunk_seq=1 throughline.stream.chunks=2 throughline.stream.end=done
    ");
}

#[tokio::test(start_paused = true)]
async fn a_half_open_breaker_closes_at_the_finish_reason() {
    let breaker =
        BreakerPolicy { min_attempts: 1, half_open_probes: 1, ..BreakerPolicy::default() };
    let open_ms = breaker.open_ms;
    let retry = RetryPolicy { max_attempts: 1, ..RetryPolicy::default() };
    let resilience = Resilience::new(Policy { retry, breaker: Some(breaker), ..quick() });
    let error = ChatError::new(ErrorType::Server, "overloaded");
    let scripts = [vec![Cue::Fail(error)], vec![Cue::Say("a"), Cue::Last, wait(3_600)]];
    let model = Traced::new(Puppet::new(scripts)).resilience(resilience.clone());
    read(&model).await;
    assert!(matches!(resilience.breaker_state(), Some(BreakerState::Open { .. })));
    tokio::time::advance(Duration::from_millis(open_ms)).await;
    read_to_finish_reason(&model).await;
    assert_eq!(resilience.breaker_state(), Some(BreakerState::Closed));
}

#[tokio::test(start_paused = true)]
async fn an_end_that_nobody_read_is_no_end() {
    let (recorder, telemetry, model) = stage(vec![vec![Cue::Last, wait(3_600)]], quick());
    telemetry.scope(async { drop(model.stream(request()).await.expect("a stream")) }).await;
    assert!(recorder.tree(&SHOWN).starts_with("chat gpt-4o outcome=cancelled"));
}
