//! Numbers, ids and states that ride on the wire of a stream (requirement R3.2), and streams that
//! are no model's.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use http::HeaderMap;
use throughline::llm::{ChatRequest, SseEvent};
use throughline::stream::{StreamChunk, traced};
use throughline::{ChatModel as _, OpenAi, Traced, keys, span};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::provider::{Provider, Step, quick, recorded};

const SHOWN: [&str; 6] = [
    keys::OUTCOME,
    keys::CHUNK_SEQ,
    keys::STREAM_CHUNKS,
    keys::STREAM_END,
    keys::ERROR,
    keys::ERROR_TYPE,
];

const EVENTS: [(&str, &str); 2] =
    [("content-type", "text/event-stream"), ("x-stream-id", "stream-9")];

/// Reads a streamed answer of these events and tells text, numbers and tree.
async fn tell(headers: &'static [(&'static str, &'static str)], body: &'static str) -> String {
    let provider = Provider::start([Step::Refuse(200, headers, body)]).await;
    tell_by(provider.client.clone(), |model| model).await
}

async fn tell_by(client: OpenAi, settings: impl FnOnce(Traced) -> Traced) -> String {
    let (recorder, telemetry) = recorded();
    let policy = throughline::resilience::Policy {
        retry: throughline::resilience::RetryPolicy {
            max_attempts: 1,
            ..throughline::resilience::RetryPolicy::default()
        },
        ..quick()
    };
    let model = settings(Traced::new(client).policy(policy));
    let work = async {
        let stream = match model.stream(ChatRequest::new("gpt-4o").user("hi")).await {
            Ok(stream) => stream,
            Err(error) => return format!("not opened: {error}"),
        };
        let position = stream.position().expect("it is traced");
        let chunks = stream.traced_chunks();
        let mut chunks = std::pin::pin!(chunks);
        let mut told = String::new();
        while let Some(item) = chunks.next().await {
            match item {
                Ok(chunk) => told.push_str(&format!("{}:{} ", chunk.seq(), chunk.text())),
                Err(error) => told.push_str(&format!("error: {error} ")),
            }
        }
        let id = Some(position.stream_id()).filter(|id| *id == "stream-9").unwrap_or("ID");
        format!("{told}of {id}, at {:?}", position.last_seq())
    };
    let told = telemetry.scope(work).await;
    assert_eq!(telemetry.counts().open_spans, 0);
    for span in recorder.spans().iter().filter(|span| span.name.starts_with("http.stream")) {
        let has_failed = span.attributes.iter().any(|entry| {
            entry.key.as_str() == keys::STREAM_END && entry.value.as_str() == "failed"
        });
        assert_eq!(span.events.iter().any(|event| event.name == "exception"), has_failed);
    }
    format!("{}{told}", recorder.tree(&SHOWN))
}

macro_rules! event {
    ($head:literal, $text:literal) => {
        concat!($head, "data: {\"choices\":[{\"delta\":{\"content\":\"", $text, "\"}}]}\n\n")
    };
}

#[tokio::test]
async fn r3_2_numbers_come_from_the_wire_and_a_gap_breaks_the_segment() {
    let body = concat!(
        event!("id: 0\n", "a"),
        event!("id: 1\n", "b"),
        event!("id: 4\n", "c"),
        event!("id: 4\n", "d"),
        "data: [DONE]\n\n"
    );
    insta::assert_snapshot!(tell(&EVENTS, body).await, @r"
    chat gpt-4o outcome=ok
      http.stream.init chunk_seq=0 throughline.stream.chunks=1 throughline.stream.end=first_token
      http.stream.segment chunk_seq=1 throughline.stream.chunks=1 throughline.stream.end=gap error=true error.type=STREAM_FAILED ERROR(expected chunk 2 of the stream, got 4)
      http.stream.segment chunk_seq=4 throughline.stream.chunks=1 throughline.stream.end=gap error=true error.type=STREAM_FAILED ERROR(expected chunk 5 of the stream, got 4)
      http.stream.segment chunk_seq=4 throughline.stream.chunks=1 throughline.stream.end=done
    0:a 1:b 4:c 4:d of stream-9, at Some(4)
    ");
}

#[tokio::test]
async fn r3_2_a_number_that_comes_again_breaks_the_segment() {
    let body = "data: {\"chunk_seq\":0,\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n\
                data: {\"chunk_seq\":1,\"choices\":[{\"delta\":{\"content\":\"b\"}}]}\n\n\
                data: {\"chunk_seq\":1,\"choices\":[{\"delta\":{\"content\":\"b\"}}]}\n\n\
                data: [DONE]\n\n";
    insta::assert_snapshot!(tell(&EVENTS, body).await, @r"
    chat gpt-4o outcome=ok
      http.stream.init chunk_seq=0 throughline.stream.chunks=1 throughline.stream.end=first_token
      http.stream.segment chunk_seq=1 throughline.stream.chunks=1 throughline.stream.end=gap error=true error.type=STREAM_FAILED ERROR(expected chunk 2 of the stream, got 1)
      http.stream.segment chunk_seq=1 throughline.stream.chunks=1 throughline.stream.end=done
    0:a 1:b 1:b of stream-9, at Some(1)
    ");
}

#[tokio::test]
async fn r3_2_a_failed_stream_state_ends_the_segment_with_an_exception() {
    let body = concat!(event!("", "a"), event!("", "b"), "event: x-stream-state\ndata: failed\n\n");
    insta::assert_snapshot!(tell(&EVENTS, body).await, @r"
    chat gpt-4o outcome=error error.type=STREAM_FAILED ERROR(gpt-4o at 127.0.0.1 says that its stream failed)
      attempt gpt-4o error.type=STREAM_FAILED ERROR(gpt-4o at 127.0.0.1 says that its stream failed)
      http.stream.init chunk_seq=0 throughline.stream.chunks=1 throughline.stream.end=first_token
      http.stream.segment chunk_seq=1 throughline.stream.chunks=1 throughline.stream.end=failed error=true error.type=STREAM_FAILED ERROR(gpt-4o at 127.0.0.1 says that its stream failed)
    0:a 1:b error: gpt-4o at 127.0.0.1 says that its stream failed of stream-9, at Some(1)
    ");
    const FAILED: [(&str, &str); 2] =
        [("content-type", "text/event-stream"), ("x-stream-state", "failed")];
    insta::assert_snapshot!(tell(&FAILED, event!("", "a")).await, @r"
    chat gpt-4o outcome=error error.type=STREAM_FAILED ERROR(gpt-4o at 127.0.0.1 says that its stream failed)
      attempt gpt-4o error.type=STREAM_FAILED ERROR(gpt-4o at 127.0.0.1 says that its stream failed)
      http.stream.init chunk_seq=0 throughline.stream.chunks=0 throughline.stream.end=failed error=true error.type=STREAM_FAILED ERROR(gpt-4o at 127.0.0.1 says that its stream failed)
    not opened: gpt-4o at 127.0.0.1 says that its stream failed
    ");
}

/// A provider that streams one event and says in the trailers of its answer that the stream failed.
async fn fails_in_its_trailers() -> OpenAi {
    const HEADERS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                           transfer-encoding: chunked\r\ntrailer: x-stream-state\r\n\r\n";
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("a request");
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            assert_ne!(socket.read_buf(&mut request).await.expect("the request"), 0);
        }
        let request = String::from_utf8(request).expect("text").to_ascii_lowercase();
        assert!(request.contains("\r\nte: trailers\r\n"), "{request}");
        let event = event!("", "a");
        let body = format!("{:x}\r\n{event}\r\n0\r\nx-stream-state: failed\r\n\r\n", event.len());
        socket.write_all(format!("{HEADERS}{body}").as_bytes()).await.expect("written");
    });
    let client = OpenAi::builder().base_url(format!("http://{address}/v1")).api_key("secret");
    client.build().expect("a client")
}

#[tokio::test]
async fn r3_2_a_failed_stream_state_may_come_in_the_trailers() {
    let told = tell_by(fails_in_its_trailers().await, |model| model).await;
    insta::assert_snapshot!(told, @r"
    chat gpt-4o outcome=error error.type=STREAM_FAILED ERROR(gpt-4o at 127.0.0.1 says that its stream failed)
      attempt gpt-4o error.type=STREAM_FAILED ERROR(gpt-4o at 127.0.0.1 says that its stream failed)
      http.stream.init chunk_seq=0 throughline.stream.chunks=1 throughline.stream.end=first_token
      http.stream.segment chunk_seq=1 throughline.stream.chunks=0 throughline.stream.end=failed error=true error.type=STREAM_FAILED ERROR(gpt-4o at 127.0.0.1 says that its stream failed)
    0:a error: gpt-4o at 127.0.0.1 says that its stream failed of ID, at Some(0)
    ");
}

#[tokio::test]
async fn r3_2_a_model_is_told_what_a_gap_is_and_how_much_to_put_in_order() {
    let body = concat!(
        event!("id: 0\n", "a"),
        event!("id: 2\n", "c"),
        event!("id: 1\n", "b"),
        event!("id: 5\n", "f"),
        "data: [DONE]\n\n"
    );
    let provider = Provider::start([Step::Refuse(200, &EVENTS, body)]).await;
    let told = tell_by(provider.client.clone(), |model| model.reorder_window(2).missing_chunks(3));
    insta::assert_snapshot!(told.await, @r"
    chat gpt-4o outcome=ok
      http.stream.init chunk_seq=0 throughline.stream.chunks=1 throughline.stream.end=first_token
      http.stream.segment chunk_seq=1 throughline.stream.chunks=3 throughline.stream.end=done
    0:a 1:b 2:c 5:f of stream-9, at Some(5)
    ");
}

/// A chunk that says its number and whether it ends the stream.
struct Numbered(Option<u64>);

impl StreamChunk for Numbered {
    fn seq(&self, _: &mut throughline::stream::SseNumbers) -> Option<u64> {
        self.0
    }

    fn bytes(&self) -> u64 {
        1
    }

    fn is_end_mark(&self) -> bool {
        self.0.is_none()
    }
}

fn numbered(
    numbers: &[u64],
    has_end: bool,
) -> impl futures_util::Stream<Item = Result<Numbered, String>> + use<> {
    let mut chunks: Vec<_> = numbers.iter().map(|seq| Ok(Numbered(Some(*seq)))).collect();
    chunks.extend(has_end.then_some(Ok(Numbered(None))));
    stream::iter(chunks)
}

#[tokio::test]
async fn r3_2_any_stream_is_put_in_order_within_a_window_and_a_cut_one_fails() {
    let (recorder, telemetry) = recorded();
    let read = async |has_end| {
        let call = span("GET /log").start();
        let chunks = traced(numbered(&[0, 2, 1, 3], has_end))
            .reorder_window(4)
            .expects_end_mark()
            .stream_id("log-1")
            .within(call);
        chunks.map(|chunk| chunk.expect("a chunk").seq()).collect::<Vec<_>>().await
    };
    telemetry
        .scope(async {
            assert_eq!(read(true).await, [0, 1, 2, 3, 4]);
            assert_eq!(read(false).await, [0, 1, 2, 3]);
        })
        .await;
    insta::assert_snapshot!(recorder.tree(&SHOWN), @r"
    GET /log outcome=ok throughline.stream.chunks=5
      http.stream.init chunk_seq=0 throughline.stream.chunks=1 throughline.stream.end=first_token
      http.stream.segment chunk_seq=1 throughline.stream.chunks=4 throughline.stream.end=done
    GET /log outcome=error throughline.stream.chunks=4 error.type=STREAM_FAILED ERROR(the stream broke off before its end mark)
      http.stream.init chunk_seq=0 throughline.stream.chunks=1 throughline.stream.end=first_token
      http.stream.segment chunk_seq=1 throughline.stream.chunks=3 throughline.stream.end=failed error=true error.type=STREAM_FAILED ERROR(the stream broke off before its end mark)
    ");
    let exceptions =
        recorder.spans().iter().filter(|s| s.events.iter().any(|e| e.name == "exception")).count();
    assert_eq!(exceptions, 1);
}

/// Chunks that wait for one that never comes are handed on when the stream ends, breaks or says so.
#[tokio::test]
async fn r3_2_no_chunk_is_lost_that_waited_for_its_turn() {
    let (_, telemetry) = recorded();
    let numbers = |has_end| numbered(&[0, 2, 3], has_end);
    let broken = numbers(false).chain(stream::iter([Err("cut".to_owned())]));
    let read = async |chunks: stream::BoxStream<'static, Result<Numbered, String>>| {
        let chunks = traced(chunks).reorder_window(4);
        chunks.map(|item| item.map(|chunk| chunk.seq()).ok()).collect::<Vec<_>>().await
    };
    telemetry
        .scope(async {
            let came = [Some(0), Some(2), Some(3)];
            assert_eq!(read(numbers(false).boxed()).await, came);
            assert_eq!(read(numbers(true).boxed()).await, [&came[..], &[Some(4)]].concat());
            assert_eq!(read(broken.boxed()).await, [&came[..], &[None]].concat());
        })
        .await;
}

#[tokio::test]
async fn r3_2_a_stream_that_was_cut_goes_on_where_it_was() {
    let (recorder, telemetry) = recorded();
    let call = telemetry.scope(async { span("GET /log").start() }).await;
    let cx = call.context();
    let work = async {
        let mut first = traced(numbered(&[0, 1], false)).stream_id("log-1").expects_end_mark();
        while first.next().await.is_some() {}
        let position = first.position().expect("it began");
        let mut headers = HeaderMap::new();
        position.resume_headers(&mut headers);
        assert_eq!(headers["last-event-id"], "1");
        assert_eq!(headers["x-chunk-seq"], "1");
        assert_eq!(headers["x-stream-id"], "log-1");
        let mut rest = traced(numbered(&[2, 3], true)).resume_after(&first).expects_end_mark();
        while rest.next().await.is_some() {}
        assert_eq!(rest.position().expect("it began").stream_id(), "log-1");
    };
    throughline::in_context(cx, work).await;
    drop(call);
    insta::assert_snapshot!(recorder.tree(&SHOWN), @r"
    GET /log
      http.stream.init chunk_seq=0 throughline.stream.chunks=1 throughline.stream.end=first_token
      http.stream.segment chunk_seq=1 throughline.stream.chunks=1 throughline.stream.end=failed error=true error.type=STREAM_FAILED ERROR(the stream broke off before its end mark)
      http.stream.segment chunk_seq=2 throughline.stream.chunks=3 throughline.stream.end=done
    ");
    let spans = recorder.spans();
    let segments: Vec<_> = spans.iter().filter(|one| one.name.starts_with("http.stream")).collect();
    for pair in segments.windows(2) {
        let link = pair[1].links.iter().next().map(|link| link.span_context.span_id());
        assert_eq!(link, Some(pair[0].span_context.span_id()), "the chain is whole");
    }
}

#[tokio::test(start_paused = true)]
async fn r3_2_a_consumer_that_goes_away_leaves_ended_spans() {
    let (recorder, telemetry) = recorded();
    let work = async {
        let events = stream::iter([SseEvent { data: "a".to_owned(), ..SseEvent::default() }])
            .map(Ok::<_, std::io::Error>)
            .chain(stream::pending());
        let mut events = traced(events).within(span("GET /events").start());
        let chunk = events.next().await.expect("one").expect("an event");
        // The trace goes with the chunk, also to another task.
        let render = chunk.scope(async { span("render").start().end() });
        tokio::spawn(render).await.expect("it ran");
        let wait = tokio::time::timeout(Duration::from_secs(40), events.next());
        wait.await.expect_err("nothing more comes");
    };
    telemetry.scope(work).await;
    assert_eq!(telemetry.counts().open_spans, 0);
    insta::assert_snapshot!(recorder.tree(&SHOWN), @r"
    GET /events outcome=cancelled throughline.stream.chunks=1
      http.stream.init chunk_seq=0 throughline.stream.chunks=1 throughline.stream.end=first_token
      render
    ");
}
