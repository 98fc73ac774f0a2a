//! A provider on 127.0.0.1 that does what a script says, one step for each request, and models in
//! the process for what needs a clock that stands still.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::Stream;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use throughline::llm::{
    ChatRequest, ChatResponse, Chunk, DONE, Delta, FinishReason, event_bytes, openai,
};
use throughline::resilience::{Jitter, Policy, RetryPolicy};
use throughline::{ChatError, ChatModel, ChatStream, Endpoint, OpenAi, Recorder, Telemetry};
use throughline_trace::Usage;
use tokio::sync::Notify;

/// What the provider does with one request.
#[derive(Clone)]
pub(crate) enum Step {
    /// Answers a text, in a stream if one was asked for.
    Answer(&'static str),
    /// Answers another status.
    Refuse(u16, &'static [(&'static str, &'static str)], &'static str),
    /// Answers 200 with this body and content type.
    Raw(&'static str, &'static str),
    /// Streams these pieces of text and then just ends, without the end mark.
    Cut(&'static [&'static str]),
    /// Streams these pieces of text and, once [`Provider::break_off`] says so, breaks the connection.
    Break(&'static [&'static str]),
}

/// The provider.
pub(crate) struct Provider {
    pub(crate) client: OpenAi,
    base_url: String,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    script: Mutex<VecDeque<Step>>,
    requests: Mutex<Vec<(HeaderMap, ChatRequest)>>,
    is_broken: Notify,
}

impl Provider {
    pub(crate) async fn start(script: impl IntoIterator<Item = Step>) -> Self {
        let seen =
            Arc::new(Seen { script: Mutex::new(script.into_iter().collect()), ..Seen::default() });
        let router =
            Router::new().route("/v1/chat/completions", post(answer)).with_state(Arc::clone(&seen));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        let base_url = format!("http://{address}/v1");
        let client =
            OpenAi::builder().base_url(&base_url).api_key("secret").build().expect("a client");
        Self { client, base_url, seen }
    }

    /// Where the provider is, for clients made in another way.
    pub(crate) fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Lets the stream of a [`Step::Break`] break.
    pub(crate) fn break_off(&self) {
        self.seen.is_broken.notify_one();
    }

    /// The requests that came, with their headers.
    pub(crate) fn requests(&self) -> Vec<(HeaderMap, ChatRequest)> {
        self.seen.requests.lock().expect("the lock").clone()
    }
}

async fn answer(State(seen): State<Arc<Seen>>, headers: HeaderMap, body: Bytes) -> Response {
    let request = openai::parse_request(&body).expect("a request");
    let is_stream = request.stream;
    seen.requests.lock().expect("the lock").push((headers, request));
    let step = seen.script.lock().expect("the lock").pop_front().expect("a step of the script");
    match step {
        Step::Answer(text) if is_stream => {
            let mut events = texts(&[text]);
            events.push(Ok(event_bytes(&openai::chunk_to_json(&last_chunk()).to_string())));
            events.push(Ok(event_bytes(DONE)));
            events_response(events)
        }
        Step::Answer(text) => {
            let mut response = ChatResponse::of_text("gpt-4o-2024-08-06", text);
            response.id = "chatcmpl-1".to_owned();
            response.usage = Some(usage());
            axum::Json(openai::response_to_json(&response)).into_response()
        }
        Step::Refuse(status, headers, body) => {
            let mut response =
                (StatusCode::from_u16(status).expect("a status"), body).into_response();
            for (name, value) in headers {
                response.headers_mut().insert(*name, value.parse().expect("a value"));
            }
            response
        }
        Step::Raw(content_type, body) => {
            ([(header::CONTENT_TYPE, content_type)], body).into_response()
        }
        Step::Cut(pieces) => events_response(texts(pieces)),
        Step::Break(pieces) => {
            let broken = async move {
                seen.is_broken.notified().await;
                Err(std::io::Error::other("broken"))
            };
            event_response(stream::iter(texts(pieces)).chain(stream::once(broken)))
        }
    }
}

fn texts(pieces: &[&str]) -> Vec<Result<String, std::io::Error>> {
    let event =
        |piece: &&str| Ok(event_bytes(&openai::chunk_to_json(&text_chunk(piece)).to_string()));
    pieces.iter().map(event).collect()
}

fn events_response(events: Vec<Result<String, std::io::Error>>) -> Response {
    event_response(stream::iter(events))
}

fn event_response(
    events: impl Stream<Item = Result<String, std::io::Error>> + Send + 'static,
) -> Response {
    let body = Body::from_stream(events);
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}

pub(crate) fn usage() -> Usage {
    Usage {
        input_tokens: 1_000,
        output_tokens: 100,
        cache_read_tokens: 400,
        reasoning_tokens: 20,
        ..Usage::default()
    }
}

pub(crate) fn text_chunk(text: &str) -> Chunk {
    let delta = Delta { text: Some(text.to_owned()), ..Delta::default() };
    Chunk {
        id: "chatcmpl-1".to_owned(),
        model: "gpt-4o-2024-08-06".to_owned(),
        deltas: vec![delta],
        ..Chunk::default()
    }
}

pub(crate) fn last_chunk() -> Chunk {
    let delta = Delta { finish_reason: Some(FinishReason::Stop), ..Delta::default() };
    Chunk { deltas: vec![delta], usage: Some(usage()), ..text_chunk("") }
}

/// Retries without pauses to speak of.
pub(crate) fn quick() -> Policy {
    let retry = RetryPolicy { base_delay_ms: 1, jitter: Jitter::None, ..RetryPolicy::default() };
    Policy { retry, breaker: None, budget: None, ..Policy::default() }
}

/// Telemetry of its own for one test.
pub(crate) fn recorded() -> (Recorder, Telemetry) {
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).build().expect("telemetry");
    (recorder, telemetry)
}

/// What a [`Puppet`] does at one moment of its stream.
#[derive(Clone)]
pub(crate) enum Cue {
    Say(&'static str),
    Wait(Duration),
    Last,
    Fail(ChatError),
}

/// A model in this process that acts on cue: one list of cues for each request.
pub(crate) struct Puppet {
    scripts: Mutex<VecDeque<Vec<Cue>>>,
}

impl Puppet {
    pub(crate) fn new(scripts: impl IntoIterator<Item = Vec<Cue>>) -> Self {
        Self { scripts: Mutex::new(scripts.into_iter().collect()) }
    }

    fn next(&self) -> Vec<Cue> {
        self.scripts.lock().expect("the lock").pop_front().expect("a script")
    }
}

impl ChatModel for Puppet {
    fn endpoint(&self) -> Endpoint {
        Endpoint::in_process("puppet")
    }

    fn chat(&self, request: ChatRequest) -> BoxFuture<'_, Result<ChatResponse, ChatError>> {
        let cues = self.next();
        async move {
            let mut text = String::new();
            for cue in cues {
                match cue {
                    Cue::Say(more) => text.push_str(more),
                    Cue::Wait(pause) => tokio::time::sleep(pause).await,
                    Cue::Last => {}
                    Cue::Fail(error) => return Err(error),
                }
            }
            Ok(ChatResponse::of_text(request.model, text))
        }
        .boxed()
    }

    fn stream(&self, _: ChatRequest) -> BoxFuture<'_, Result<ChatStream, ChatError>> {
        let cues = self.next();
        let chunks = stream::iter(cues).filter_map(|cue| async move {
            match cue {
                Cue::Say(text) => Some(Ok(text_chunk(text))),
                Cue::Last => Some(Ok(last_chunk())),
                Cue::Fail(error) => Some(Err(error)),
                Cue::Wait(pause) => {
                    tokio::time::sleep(pause).await;
                    None
                }
            }
        });
        async move { Ok(ChatStream::new(None, chunks)) }.boxed()
    }
}
