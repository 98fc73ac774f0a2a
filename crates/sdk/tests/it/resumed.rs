//! Streamed answers that are cut and go on (R3.2), against a server on 127.0.0.1 that cuts them.

use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};
use throughline::llm::{ChatRequest, ChatResponse};
use throughline::{
    Anthropic, ChatError, ChatModel, ChatStream, CutStream, Endpoint, ErrorType, FallbackModel,
    Recorder, RouteTo, Router, Traced, keys,
};

use crate::provider::{quick, recorded};
use crate::providers::{Reply, Server};

const SHOWN: [&str; 6] = [
    keys::OUTCOME,
    keys::STREAM_RESUMES,
    keys::CHUNK_SEQ,
    keys::STREAM_CHUNKS,
    keys::STREAM_END,
    keys::ERROR,
];

/// Events of chat completions under these numbers, each saying its own; the end mark if it is whole.
fn events(answer: &str, numbers: std::ops::Range<u64>, is_whole: bool) -> Reply {
    let mut body = String::new();
    for number in numbers {
        let delta = json!({"content": format!("{number} ")});
        let chunk =
            json!({"id": answer, "model": "gpt-4o", "choices": [{"index": 0, "delta": delta}]});
        body.push_str(&format!("id: {number}\ndata: {chunk}\n\n"));
    }
    if is_whole {
        let delta = json!({});
        let choice = json!({"index": 0, "delta": delta, "finish_reason": "stop"});
        let chunk = json!({"id": answer, "model": "gpt-4o", "choices": [choice],
            "usage": {"prompt_tokens": 3, "completion_tokens": 5}});
        body.push_str(&format!("data: {chunk}\n\ndata: [DONE]\n\n"));
    }
    Reply::events(&body)
}

/// Reads a stream to its end: the text with the numbers of the chunks, and the error if there was one.
async fn read(model: &impl ChatModel, request: ChatRequest) -> String {
    let mut stream = model.stream(request).await.expect("a stream");
    let mut text = String::new();
    let mut expected = 0;
    while let Some(item) = stream.next().await {
        match item {
            Ok(chunk) => {
                assert_eq!(chunk.seq, Some(expected), "the numbers go on");
                expected += 1;
                text.push_str(chunk.text());
            }
            Err(error) => text.push_str(&format!("/ {}: {error}", error.error_type)),
        }
    }
    text
}

async fn told(
    replies: impl IntoIterator<Item = Reply>,
    attempts: u32,
) -> (String, Server, Recorder) {
    let server = Server::start(replies).await;
    let (recorder, telemetry) = recorded();
    let model = Traced::new(server.openai()).policy(quick()).resume_cut_streams(attempts);
    let text = telemetry.scope(read(&model, ChatRequest::new("gpt-4o").user("count"))).await;
    assert_eq!(telemetry.counts().open_spans, 0);
    (format!("{}{text}", recorder.tree(&SHOWN)), server, recorder)
}

/// R3.2: the server is asked for what follows the last event, what comes again is passed over, and
/// the segment that was cut is linked to the next.
#[tokio::test]
async fn r3_2_a_stream_that_is_cut_goes_on_where_it_broke_off() {
    let replies = [events("c-1", 0..3, false), events("c-1", 1..6, true)];
    let (told, server, recorder) = told(replies, 2).await;
    insta::assert_snapshot!(told, @"
    chat gpt-4o outcome=ok throughline.stream.resumes=1
      http.stream.init chunk_seq=0 throughline.stream.chunks=1 throughline.stream.end=first_token
      http.stream.segment chunk_seq=1 throughline.stream.chunks=2 throughline.stream.end=failed error=true ERROR(the stream of gpt-4o at 127.0.0.1 broke off before its end mark)
      http.stream.segment chunk_seq=3 throughline.stream.chunks=4 throughline.stream.end=done
    0 1 2 3 4 5
    ");
    let ((_, first, asked), (path, second, again)) = (server.seen(0), server.seen(1));
    assert_eq!(first.get("last-event-id"), None);
    assert_eq!(second["last-event-id"], "2");
    assert_eq!((path.as_str(), &asked), ("/v1/chat/completions", &again));
    assert_eq!(first["traceparent"], second["traceparent"], "on the trace of the call");
    let spans = recorder.spans();
    let segments: Vec<_> =
        spans.iter().filter(|span| span.name.starts_with("http.stream")).collect();
    let cut = segments.iter().find(|span| !span.events.is_empty()).expect("the cut segment");
    assert_eq!(cut.events[0].name, "exception");
    let last = segments.last().expect("the last segment");
    let linked = last.links.iter().next().map(|link| &link.span_context);
    assert_eq!(linked, Some(&cut.span_context));
}

/// R3.2: it is asked for; else a cut is an error, as it is where there is nothing to go on from.
#[tokio::test]
async fn r3_2_a_stream_that_is_cut_fails_where_it_cannot_go_on() {
    let (unasked, server, _) = told([events("c-1", 0..3, false)], 0).await;
    assert!(
        unasked.ends_with(
            "0 1 2 / STREAM_FAILED: the stream of gpt-4o at 127.0.0.1 broke off before its end mark"
        ),
        "{unasked}"
    );
    assert_eq!(server.count(), 1);
    let nameless = Reply::events(
        "data: {\"id\":\"c-1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"0 \"}}]}\n\n",
    );
    let (nameless, server, _) = told([nameless], 2).await;
    assert!(nameless.contains("0 / STREAM_FAILED") && !nameless.contains("resumes"), "{nameless}");
    assert_eq!(server.count(), 1, "there is no event to go on after");
    let failed = events("c-1", 0..2, false).and("event: X-Stream-State\ndata: failed\n\n");
    let (failed, server, _) = told([failed], 2).await;
    assert!(failed.contains("says that its stream failed"), "{failed}");
    assert_eq!(server.count(), 1, "what failed at the server was not cut");
}

/// R3.2: the attempts are bounded, those that fail among them; each segment that was cut says so.
#[tokio::test]
async fn r3_2_a_stream_goes_on_so_many_times_at_most() {
    let busy = || Reply::json(json!({"error": {"message": "busy"}})).status(503);
    let replies = [
        events("c-1", 0..2, false),
        events("c-1", 2..4, false),
        busy(),
        events("c-1", 4..5, false),
    ];
    let (told, server, _) = told(replies, 3).await;
    insta::assert_snapshot!(told, @"
    chat gpt-4o outcome=error throughline.stream.resumes=2 ERROR(the stream of gpt-4o at 127.0.0.1 broke off before its end mark)
      attempt gpt-4o ERROR(the stream of gpt-4o at 127.0.0.1 broke off before its end mark)
      http.stream.init chunk_seq=0 throughline.stream.chunks=1 throughline.stream.end=first_token
      http.stream.segment chunk_seq=1 throughline.stream.chunks=1 throughline.stream.end=failed error=true ERROR(the stream of gpt-4o at 127.0.0.1 broke off before its end mark)
      http.stream.segment chunk_seq=2 throughline.stream.chunks=2 throughline.stream.end=failed error=true ERROR(the stream of gpt-4o at 127.0.0.1 broke off before its end mark)
      http.stream.segment chunk_seq=4 throughline.stream.chunks=1 throughline.stream.end=failed error=true ERROR(the stream of gpt-4o at 127.0.0.1 broke off before its end mark)
    0 1 2 3 4 / STREAM_FAILED: the stream of gpt-4o at 127.0.0.1 broke off before its end mark
    ");
    assert_eq!(server.count(), 4);
    assert_eq!(server.seen(3).1["last-event-id"], "3");
}

/// R3.2: when going on fails for good, the cut is told once, with why.
#[tokio::test]
async fn r3_2_a_stream_that_cannot_go_on_says_why() {
    let gone = Reply::json(json!({"error": {"message": "too late"}})).status(404);
    let (told, ..) = self::told([events("c-1", 0..2, false), gone], 3).await;
    insta::assert_snapshot!(told, @"
    chat gpt-4o outcome=error ERROR(the stream of gpt-4o at 127.0.0.1 broke off before its end mark; it could not go on: gpt-4o at 127.0.0.1 answered 404 Not Found: too late)
      attempt gpt-4o ERROR(the stream of gpt-4o at 127.0.0.1 broke off before its end mark; it could not go on: gpt-4o at 127.0.0.1 answered 404 Not Found: too late)
      http.stream.init chunk_seq=0 throughline.stream.chunks=1 throughline.stream.end=first_token
      http.stream.segment chunk_seq=1 throughline.stream.chunks=1 throughline.stream.end=failed error=true ERROR(the stream of gpt-4o at 127.0.0.1 broke off before its end mark)
    0 1 / STREAM_FAILED: the stream of gpt-4o at 127.0.0.1 broke off before its end mark; it could not go on: gpt-4o at 127.0.0.1 answered 404 Not Found: too late
    ");
}

/// R3.2: a server that begins anew gives another answer, which must not be sewn to the first.
#[tokio::test]
async fn r3_2_another_answer_is_not_taken_for_the_rest_of_the_first() {
    let replies = [events("c-1", 0..2, false), events("c-2", 0..4, true)];
    let (told, ..) = self::told(replies, 3).await;
    insta::assert_snapshot!(told, @"
    chat gpt-4o outcome=error ERROR(expected gpt-4o at 127.0.0.1 to go on with its answer c-1, got the answer c-2)
      attempt gpt-4o ERROR(expected gpt-4o at 127.0.0.1 to go on with its answer c-1, got the answer c-2)
      http.stream.init chunk_seq=0 throughline.stream.chunks=1 throughline.stream.end=first_token
      http.stream.segment chunk_seq=1 throughline.stream.chunks=1 throughline.stream.end=failed error=true ERROR(the stream of gpt-4o at 127.0.0.1 broke off before its end mark)
    0 1 / STREAM_FAILED: expected gpt-4o at 127.0.0.1 to go on with its answer c-1, got the answer c-2
    ");
    // Also when it has no chunk that the first had not.
    let replies = [events("c-1", 0..2, false), events("c-2", 0..1, false).and("data: [DONE]\n\n")];
    let (told, ..) = self::told(replies, 3).await;
    assert!(told.contains("got the answer c-2"), "{told}");
}

/// R3.2: a form whose reader keeps what came before goes on with it.
#[tokio::test]
async fn r3_2_messages_of_anthropic_go_on_in_the_middle_of_a_tool_call() {
    let event = |id: u64, data: Value| format!("id: {id}\ndata: {data}\n\n");
    let tool = json!({"type": "tool_use", "id": "t1", "name": "stock_v1", "input": {}});
    let grown = |text: &str| {
        let delta = json!({"type": "input_json_delta", "partial_json": text});
        json!({"type": "content_block_delta", "index": 0, "delta": delta})
    };
    let start = json!({"type": "message_start", "message": {"id": "msg_1", "model": "claude-sonnet-4-5",
        "usage": {"input_tokens": 10, "output_tokens": 1}}});
    let begun = json!({"type": "content_block_start", "index": 0, "content_block": tool});
    let first = [event(0, start), event(1, begun), event(2, grown("{\"item\":"))].concat();
    let end = json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}});
    let rest = [
        event(2, grown("{\"item\":")),
        event(3, grown("7}")),
        event(4, end),
        event(5, json!({"type": "message_stop"})),
    ];
    let server = Server::start([Reply::events(&first), Reply::events(&rest.concat())]).await;
    let client = Anthropic::builder().base_url(server.address()).build().expect("a client");
    let (recorder, telemetry) = recorded();
    let model = Traced::new(client).policy(quick()).resume_cut_streams(1);
    telemetry.scope(read(&model, ChatRequest::new("claude-sonnet-4-5").user("stock?"))).await;
    insta::assert_snapshot!(recorder.tree(&[keys::OUTCOME, keys::GEN_AI_OUTPUT_MESSAGES, keys::GEN_AI_USAGE_INPUT_TOKENS]), @r#"
    chat claude-sonnet-4-5 outcome=ok gen_ai.output.messages=[{"finish_reason":"tool_call","parts":[{"arguments":{"item":7},"id":"t1","name":"stock_v1","type":"tool_call"}],"role":"assistant"}] gen_ai.usage.input_tokens=10
      http.stream.init
      http.stream.segment ERROR(the stream of claude-sonnet-4-5 at 127.0.0.1 broke off before its end mark)
      http.stream.segment
    "#);
}

/// R3.2: a response that goes on in the background is asked for by its id and the last number.
#[tokio::test]
async fn r3_2_a_response_in_the_background_goes_on_by_its_id() {
    let event = |number: u64, mut data: Value| {
        data["sequence_number"] = json!(number);
        format!("data: {data}\n\n")
    };
    let text = |text: &str| json!({"type": "response.output_text.delta", "output_index": 0, "delta": text});
    let response =
        json!({"id": "resp_1", "model": "gpt-5.1", "status": "in_progress", "output": []});
    let created = json!({"type": "response.created", "response": response});
    let done = json!({"id": "resp_1", "model": "gpt-5.1", "status": "completed", "output": [],
        "usage": {"input_tokens": 3, "output_tokens": 5}});
    let completed = json!({"type": "response.completed", "response": done});
    let first =
        || [event(0, created.clone()), event(1, text("twelve ")), event(2, text("of "))].concat();
    let rest =
        [event(2, text("of ")), event(3, text("them")), event(4, completed.clone())].concat();
    let server =
        Server::start([Reply::events(&first()), Reply::events(&rest), Reply::events(&first())])
            .await;
    let (recorder, telemetry) = recorded();
    let model = Traced::new(server.responses()).policy(quick()).resume_cut_streams(1);
    let mut request = ChatRequest::new("gpt-5.1").user("how many?");
    request.extra.insert("background".to_owned(), json!(true));
    let said = telemetry.scope(read(&model, request)).await;
    assert_eq!(said, "twelve of them");
    let (path, headers, _) = server.seen(1);
    assert_eq!(path, "/v1/responses/resp_1?stream=true&starting_after=2");
    assert_eq!(headers["authorization"], "Bearer secret");
    insta::assert_snapshot!(recorder.tree(&SHOWN), @"
    chat gpt-5.1 outcome=ok throughline.stream.resumes=1
      http.stream.init chunk_seq=0 throughline.stream.chunks=2 throughline.stream.end=first_token
      http.stream.segment chunk_seq=2 throughline.stream.chunks=1 throughline.stream.end=failed error=true ERROR(the stream of gpt-5.1 at 127.0.0.1 broke off before its end mark)
      http.stream.segment chunk_seq=3 throughline.stream.chunks=2 throughline.stream.end=done
    ");
    // One that does not run in the background is lost with its connection.
    let lost = telemetry.scope(read(&model, ChatRequest::new("gpt-5.1").user("how many?"))).await;
    insta::assert_snapshot!(lost, @"twelve of / STREAM_FAILED: the stream of gpt-5.1 at 127.0.0.1 broke off before its end mark; it could not go on: expected event ids in the stream of gpt-5.1 at 127.0.0.1 to go on from, got none");
    assert_eq!(server.count(), 3);
}

/// A model that writes its answers in capitals, and may tell errors in words of its own.
struct Loud<M> {
    inner: M,
    replaces_errors: bool,
}

impl<M> Loud<M> {
    fn loud(&self, stream: ChatStream) -> ChatStream {
        let is_replaced = self.replaces_errors;
        let replaced = move |error: ChatError| match is_replaced {
            true => ChatError::new(ErrorType::StreamFailed, "it broke"),
            false => error,
        };
        stream.through(|chunks| {
            chunks.map_err(replaced).map_ok(|mut chunk| {
                for text in chunk.deltas.iter_mut().filter_map(|delta| delta.text.as_mut()) {
                    *text = text.replace(' ', "! ");
                }
                chunk
            })
        })
    }
}

impl<M: ChatModel> ChatModel for Loud<M> {
    fn endpoint(&self) -> Endpoint {
        self.inner.endpoint()
    }

    fn chat(&self, request: ChatRequest) -> BoxFuture<'_, Result<ChatResponse, ChatError>> {
        self.inner.chat(request)
    }

    fn stream(&self, request: ChatRequest) -> BoxFuture<'_, Result<ChatStream, ChatError>> {
        Box::pin(async move { Ok(self.loud(self.inner.stream(request).await?)) })
    }

    fn resume(
        &self,
        request: ChatRequest,
        cut: CutStream,
    ) -> BoxFuture<'_, Result<ChatStream, ChatError>> {
        Box::pin(async move { Ok(self.loud(self.inner.resume(request, cut).await?)) })
    }
}

/// R3.2: what wraps a model or its stream, with combinators of its own, is gone on through.
#[tokio::test]
async fn r3_2_a_stream_goes_on_through_what_wraps_its_model() {
    for (replaces_errors, expected) in
        [(false, "0! 1! 2! 3! "), (true, "0! 1! / STREAM_FAILED: it broke")]
    {
        let replies = [events("c-1", 0..2, false), events("c-1", 1..4, true)];
        let server = Server::start(replies).await;
        let (_, telemetry) = recorded();
        let model = Loud { inner: server.openai(), replaces_errors };
        let model = Traced::new(model).policy(quick()).resume_cut_streams(1);
        let text = telemetry.scope(read(&model, ChatRequest::new("gpt-4o").user("count"))).await;
        assert_eq!(text, expected);
        assert_eq!(telemetry.counts().open_spans, 0);
    }
}

/// R3.2, R3.3, R4.2: a router over a fallback goes on with the model that answered, as often as it is
/// cut; the others are not asked.
#[tokio::test]
async fn r3_2_a_stream_goes_on_through_routers_and_fallbacks_with_the_model_that_answered() {
    let down =
        Server::start([Reply::json(json!({"error": {"message": "down"}})).status(503)]).await;
    let replies =
        [events("c-1", 0..2, false), events("c-1", 1..4, false), events("c-1", 4..6, true)];
    let server = Server::start(replies).await;
    let fallback = FallbackModel::new(down.openai()).then(server.openai(), "gpt-4o-mini");
    let router = Router::builder("chat").target(RouteTo::new("only", fallback));
    let (_, telemetry) = recorded();
    let model = Traced::new(router.build().expect("a router")).policy(quick());
    let model = model.resume_cut_streams(2);
    let text = telemetry.scope(read(&model, ChatRequest::new("gpt-4o").user("count"))).await;
    assert_eq!(text, "0 1 2 3 4 5 ");
    assert_eq!((down.count(), server.count()), (1, 3));
    for (again, after) in [(1, "1"), (2, "3")] {
        let (_, headers, body) = server.seen(again);
        assert_eq!(headers["last-event-id"], after);
        assert_eq!(body["model"], "gpt-4o-mini");
    }
    assert_eq!(telemetry.counts().open_spans, 0);
}
