//! Clients of other wire forms than chat completions, and what providers say in headers, against a
//! server on 127.0.0.1 that gives prepared replies.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use throughline::llm::prices::PriceTable;
use throughline::llm::{ChatRequest, Chunk};
use throughline::{
    Anthropic, ChatModel, ClientError, OpenAi, OpenAiResponses, Recorder, Telemetry, Traced, keys,
};

use crate::export::{is_child, run_child};
use crate::provider::{quick, recorded};

/// One prepared reply.
#[derive(Clone, Default)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(&'static str, &'static str)>,
    body: String,
}

impl Reply {
    pub(crate) fn json(body: Value) -> Self {
        let headers = vec![("content-type", "application/json")];
        Self { status: 200, headers, body: body.to_string() }
    }

    pub(crate) fn events(body: &str) -> Self {
        let headers = vec![("content-type", "text/event-stream")];
        Self { status: 200, headers, body: body.to_owned() }
    }

    /// The reply, with more at its end.
    pub(crate) fn and(mut self, more: &str) -> Self {
        self.body.push_str(more);
        self
    }

    pub(crate) fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// What came: path with query, headers, body.
type Seen = (String, HeaderMap, Value);

#[derive(Clone, Default)]
pub(crate) struct Server {
    replies: Arc<Mutex<VecDeque<Reply>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    address: String,
}

impl Server {
    pub(crate) async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let replies = Arc::new(Mutex::new(replies.into_iter().collect()));
        let server = Self { replies, address, ..Self::default() };
        let router = Router::new().fallback(reply).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        server
    }

    pub(crate) fn seen(&self, at: usize) -> Seen {
        self.seen.lock().expect("the lock")[at].clone()
    }

    fn anthropic(&self) -> Anthropic {
        Anthropic::builder().base_url(&self.address).api_key("secret").build().expect("a client")
    }

    pub(crate) fn responses(&self) -> OpenAiResponses {
        let base = format!("{}/v1", self.address);
        OpenAiResponses::builder().base_url(base).api_key("secret").build().expect("a client")
    }

    /// How many requests came.
    pub(crate) fn count(&self) -> usize {
        self.seen.lock().expect("the lock").len()
    }

    /// Where it listens, as an address.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
    }

    pub(crate) fn openai(&self) -> OpenAi {
        let base = format!("{}/v1", self.address);
        OpenAi::builder().base_url(base).build().expect("a client")
    }
}

async fn reply(
    State(server): State<Server>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let body =
        if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).expect("JSON") };
    server.seen.lock().expect("the lock").push((uri.to_string(), headers, body));
    let reply = server.replies.lock().expect("the lock").pop_front().expect("a reply");
    let status = StatusCode::from_u16(reply.status).expect("a status");
    let mut response = (status, reply.body).into_response();
    for (name, value) in reply.headers {
        response.headers_mut().insert(name, value.parse().expect("a value"));
    }
    response
}

/// The attributes of the call's span that begin with one of these, a line each.
fn told(recorder: &Recorder, prefixes: &[&str]) -> String {
    let spans = recorder.spans();
    let call = spans.iter().find(|span| span.name.starts_with("chat ")).expect("the call");
    let mut lines: Vec<String> = call
        .attributes
        .iter()
        .filter(|entry| prefixes.iter().any(|prefix| entry.key.as_str().starts_with(prefix)))
        .map(|entry| format!("{}={}", entry.key, entry.value))
        .collect();
    lines.sort();
    lines.join("\n")
}

const SHOWN: [&str; 5] = [
    keys::OUTCOME,
    keys::STATUS_CODE,
    keys::ERROR_TYPE,
    keys::ERROR_CODE,
    keys::ATTEMPT_ERROR_TYPE,
];

const USAGE: [&str; 4] =
    ["gen_ai.usage.", "gen_ai.response.finish", "throughline.usage.", "throughline.cost"];

fn message() -> Value {
    json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5-20250929",
        "content": [{"type": "text", "text": "hello"}], "stop_reason": "end_turn",
        "usage": {"input_tokens": 10, "cache_creation_input_tokens": 100,
            "cache_read_input_tokens": 1_000, "output_tokens": 50, "service_tier": "standard"},
    })
}

const MESSAGE_EVENTS: &str = r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_1","model":"claude-sonnet-4-5","usage":{"input_tokens":10,"cache_read_input_tokens":90,"output_tokens":1}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello, how are you"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":42}}

event: message_stop
data: {"type":"message_stop"}
"#;

const RESPONSE_EVENTS: &str = r#"data: {"type":"response.created","response":{"id":"resp_1","model":"gpt-4o","status":"in_progress","output":[]}}

data: {"type":"response.output_text.delta","output_index":0,"delta":"Hello"}

data: {"type":"response.completed","response":{"id":"resp_1","status":"completed","model":"gpt-4o","output":[],"usage":{"input_tokens":10,"output_tokens":5,"output_tokens_details":{"reasoning_tokens":2}}}}

"#;

#[tokio::test]
async fn r3_1_a_call_of_anthropic_tells_the_same_as_any_other() {
    let server = Server::start([Reply::json(message())]).await;
    let (recorder, telemetry) = recorded();
    let model = Traced::new(server.anthropic());
    let request = ChatRequest::new("claude-sonnet-4-5").system("be brief").user("hi");
    let answer = telemetry.scope(model.chat(request)).await.expect("an answer");
    assert_eq!(answer.text(), "hello");
    // 10 plain at 3, 1,000 read at 0.30, 100 written at 3.75, 50 out at 15, per million.
    insta::assert_snapshot!(told(&recorder, &[USAGE.as_slice(), &["gen_ai.provider", "gen_ai.output"]].concat()), @r#"
    gen_ai.output.messages=[{"finish_reason":"stop","parts":[{"content":"hello","type":"text"}],"role":"assistant"}]
    gen_ai.provider.name=anthropic
    gen_ai.response.finish_reasons=["stop"]
    gen_ai.usage.cache_read.input_tokens=1000
    gen_ai.usage.cache_write.input_tokens=100
    gen_ai.usage.input_tokens=1110
    gen_ai.usage.output_tokens=50
    throughline.cost_usd=0.001455
    "#);
    let (path, headers, body) = server.seen(0);
    assert_eq!(path, "/v1/messages");
    assert_eq!(headers["x-api-key"], "secret");
    assert_eq!(headers["anthropic-version"], "2023-06-01");
    assert!(headers.contains_key("traceparent"));
    insta::assert_snapshot!(body, @r#"{"max_tokens":32000,"messages":[{"content":"hi","role":"user"}],"model":"claude-sonnet-4-5","system":"be brief"}"#);
}

#[tokio::test]
async fn a_stream_of_anthropic_is_traced_to_its_end_mark() {
    let server = Server::start([Reply::events(MESSAGE_EVENTS)]).await;
    let (recorder, telemetry) = recorded();
    let model = Traced::new(server.anthropic());
    let request = ChatRequest::new("claude-sonnet-4-5").user("hi");
    let chunks: Vec<Chunk> = telemetry
        .scope(async { model.stream(request).await.expect("a stream").try_collect().await })
        .await
        .expect("all chunks");
    assert_eq!(chunks.iter().map(Chunk::text).collect::<String>(), "Hello, how are you");
    insta::assert_snapshot!(recorder.tree(&SHOWN), @"
    chat claude-sonnet-4-5 outcome=ok status_code=200
      http.stream.init
      http.stream.segment
    ");
    insta::assert_snapshot!(told(&recorder, &USAGE), @r#"
    gen_ai.response.finish_reasons=["stop"]
    gen_ai.usage.cache_read.input_tokens=90
    gen_ai.usage.input_tokens=100
    gen_ai.usage.output_tokens=42
    throughline.cost_usd=0.000687
    "#);
}

/// The provider told the tokens in at the start; those out are counted from what came.
#[tokio::test]
async fn r3_1_a_stream_that_is_cut_off_has_its_partial_usage_marked_as_estimated() {
    let cut =
        &MESSAGE_EVENTS[..MESSAGE_EVENTS.find("event: content_block_stop").expect("the place")];
    let server = Server::start([Reply::events(cut)]).await;
    let (recorder, telemetry) = recorded();
    let model = Traced::new(server.anthropic()).policy(quick());
    let request = ChatRequest::new("claude-sonnet-4-5").user("hi");
    let read = async {
        let stream = model.stream(request).await.expect("a stream");
        stream.try_collect::<Vec<Chunk>>().await.expect_err("the cut")
    };
    let error = telemetry.scope(read).await;
    assert!(error.message.contains("broke off before its end mark"), "{error}");
    insta::assert_snapshot!(told(&recorder, &USAGE), @r#"
    gen_ai.response.finish_reasons=["error"]
    gen_ai.usage.cache_read.input_tokens=90
    gen_ai.usage.input_tokens=100
    gen_ai.usage.output_tokens=5
    throughline.cost_usd=0.000132
    throughline.usage.estimated=true
    throughline.usage.method=bytes
    "#);
}

#[tokio::test]
async fn an_overloaded_provider_is_tried_again() {
    let overloaded = json!({"type": "error",
        "error": {"type": "overloaded_error", "message": "Overloaded"}});
    let limited = json!({"type": "error",
        "error": {"type": "rate_limit_error", "message": "slow down"}});
    let server = Server::start([
        Reply::json(overloaded).status(529),
        Reply::json(limited)
            .status(429)
            .header("anthropic-ratelimit-requests-remaining", "0")
            .header("anthropic-ratelimit-requests-reset", "2000-01-01T00:00:00Z"),
        Reply::json(message()),
    ])
    .await;
    let (recorder, telemetry) = recorded();
    let model = Traced::new(server.anthropic()).policy(quick());
    let request = ChatRequest::new("claude-sonnet-4-5").user("hi");
    telemetry.scope(model.chat(request)).await.expect("an answer");
    insta::assert_snapshot!(recorder.tree(&SHOWN), @"
    chat claude-sonnet-4-5 outcome=retry_succeeded status_code=200
      attempt claude-sonnet-4-5 status_code=529 throughline.attempt.error_type=OVERLOADED
      attempt claude-sonnet-4-5 status_code=429 throughline.attempt.error_type=RATE_LIMITED
      attempt claude-sonnet-4-5 status_code=200
    ");
}

#[tokio::test]
async fn r3_1_responses_are_spoken_whole_and_streamed() {
    let whole = json!({
        "id": "resp_1", "object": "response", "status": "completed", "model": "gpt-4o-2024-08-06",
        "output": [{"type": "message", "role": "assistant",
            "content": [{"type": "output_text", "text": "hello"}]}],
        "usage": {"input_tokens": 100, "input_tokens_details": {"cached_tokens": 40},
            "output_tokens": 50, "output_tokens_details": {"reasoning_tokens": 20}},
        "service_tier": "flex",
    });
    let failed = "data: {\"type\":\"response.failed\",\"response\":{\"status\":\"failed\",\"error\":{\"code\":\"server_error\",\"message\":\"oops\"}}}\n\n";
    let server =
        Server::start([Reply::json(whole), Reply::events(RESPONSE_EVENTS), Reply::events(failed)]);
    let server = server.await;
    let (recorder, telemetry) = recorded();
    let policy = throughline::resilience::Policy::none();
    let model = Traced::new(server.responses()).policy(policy);
    let request = || {
        let mut request = ChatRequest::new("gpt-4o").system("be brief").user("hi");
        request.extra.insert("previous_response_id".to_owned(), json!("resp_0"));
        request
    };
    let answer = telemetry.scope(model.chat(request())).await.expect("an answer");
    assert_eq!(answer.text(), "hello");
    // Half the list price, since the tier is `flex`.
    insta::assert_snapshot!(told(&recorder, &USAGE), @r#"
    gen_ai.response.finish_reasons=["stop"]
    gen_ai.usage.cache_read.input_tokens=40
    gen_ai.usage.input_tokens=100
    gen_ai.usage.output_tokens=50
    gen_ai.usage.reasoning.output_tokens=20
    throughline.cost_usd=0.00035
    "#);
    let (path, headers, body) = server.seen(0);
    assert_eq!(
        (path.as_str(), &headers["authorization"]),
        ("/v1/responses", &"Bearer secret".parse().expect("a value"))
    );
    insta::assert_snapshot!(body, @r#"{"input":[{"content":"hi","role":"user","type":"message"}],"instructions":"be brief","model":"gpt-4o","previous_response_id":"resp_0"}"#);

    recorder.clear();
    let read = async { model.stream(request()).await.expect("a stream").try_collect().await };
    let chunks: Vec<Chunk> = telemetry.scope(read).await.expect("all chunks");
    assert_eq!(chunks.iter().map(Chunk::text).collect::<String>(), "Hello");
    insta::assert_snapshot!(told(&recorder, &USAGE), @r#"
    gen_ai.response.finish_reasons=["stop"]
    gen_ai.usage.input_tokens=10
    gen_ai.usage.output_tokens=5
    gen_ai.usage.reasoning.output_tokens=2
    throughline.cost_usd=0.000075
    "#);

    recorder.clear();
    let error = telemetry.scope(model.stream(request())).await.expect_err("the failure");
    assert_eq!(error.code.as_deref(), Some("server_error"));
    insta::assert_snapshot!(recorder.tree(&SHOWN), @"
    chat gpt-4o outcome=error status_code=200 error.type=SERVER throughline.error.code=server_error ERROR(gpt-4o at 127.0.0.1 answered 200 OK: the provider answered with an error: oops (server_error))
      attempt gpt-4o status_code=200 error.type=SERVER throughline.error.code=server_error ERROR(gpt-4o at 127.0.0.1 answered 200 OK: the provider answered with an error: oops (server_error))
      http.stream.init error.type=SERVER ERROR(gpt-4o at 127.0.0.1 answered 200 OK: the provider answered with an error: oops (server_error))
    ");
}

fn completion(usage: Option<Value>) -> Value {
    let mut body = json!({"id": "c", "model": "gpt-4o", "choices": [
        {"message": {"role": "assistant", "content": "hello world"}, "finish_reason": "stop"}]});
    if let Some(usage) = usage {
        body["usage"] = usage;
    }
    body
}

#[tokio::test]
async fn r1_3_an_answer_out_of_a_gateways_cache_is_counted_as_cached() {
    let usage = json!({"prompt_tokens": 10, "completion_tokens": 5});
    let reply = Reply::json(completion(Some(usage)))
        .header("x-throughline-cache", "hit")
        .header("x-ratelimit-remaining-requests", "99")
        .header("x-ratelimit-remaining-tokens", "5000");
    let server = Server::start([reply]).await;
    let (recorder, telemetry) = recorded();
    let model = Traced::new(server.openai());
    let request = ChatRequest::new("gpt-4o").user("hi");
    telemetry.scope(model.chat(request)).await.expect("an answer");
    insta::assert_snapshot!(told(&recorder, &["is_cached", "throughline.rate_limit"]), @"
    is_cached=true
    throughline.rate_limit.remaining_requests=99
    throughline.rate_limit.remaining_tokens=5000
    ");
    telemetry.flush();
    let metrics = recorder.metrics().join("\n");
    let counted = metrics.lines().find(|line| line.contains("agent_operations_total"));
    assert!(counted.is_some_and(|line| line.contains("is_cached=true")), "{metrics}");
}

#[tokio::test]
async fn r3_1_tokens_that_nobody_tells_are_counted_and_marked() {
    let server =
        Server::start([Reply::json(completion(None)), Reply::json(completion(None))]).await;
    let (recorder, telemetry) = recorded();
    let model = Traced::new(server.openai());
    let request = ChatRequest::new("gpt-4o").user("hello world, how are you?");
    telemetry.scope(model.chat(request)).await.expect("an answer");
    if cfg!(feature = "tokenizer") {
        insta::assert_snapshot!(told(&recorder, &USAGE), @r#"
        gen_ai.response.finish_reasons=["stop"]
        gen_ai.usage.input_tokens=13
        gen_ai.usage.output_tokens=2
        throughline.cost_usd=0.0000525
        throughline.usage.estimated=true
        throughline.usage.method=tokenizer
        "#);
    } else {
        insta::assert_snapshot!(told(&recorder, &USAGE), @r#"
        gen_ai.response.finish_reasons=["stop"]
        gen_ai.usage.input_tokens=7
        gen_ai.usage.output_tokens=3
        throughline.cost_usd=0.0000475
        throughline.usage.estimated=true
        throughline.usage.method=bytes
        "#);
    }
    recorder.clear();
    let request = ChatRequest::new("house-model").user("hello world, how are you?");
    telemetry.scope(model.chat(request)).await.expect("an answer");
    assert!(told(&recorder, &USAGE).contains("throughline.usage.method=bytes"));
}

#[tokio::test]
async fn r3_1_prices_are_laid_over_the_built_in_ones_and_change_while_running() {
    let usage = json!({"prompt_tokens": 1_000_000, "completion_tokens": 0});
    let reply = || {
        let mut body = completion(Some(usage.clone()));
        body["model"] = json!("house-model");
        Reply::json(body)
    };
    let server = Server::start([reply(), reply(), reply()]).await;
    let table = |version: &str, input: f64| {
        let text = json!({"version": version, "models": [
            {"name": "house-model", "input": input, "output": 1}]});
        PriceTable::builtin().with(PriceTable::from_json(&text.to_string()).expect("a table"))
    };
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).build().expect("telemetry");
    let model = Traced::new(server.openai());
    let ask = || async {
        recorder.clear();
        let request = ChatRequest::new("house-model").user("hi");
        telemetry.scope(model.chat(request)).await.expect("an answer");
        told(&recorder, &["throughline.cost", "throughline.price"])
    };
    assert_eq!(ask().await, "", "a model without a price has no cost, which is not a cost of 0");
    telemetry.set_prices(table("acme-1", 2.0));
    insta::assert_snapshot!(ask().await, @"
    throughline.cost_usd=2
    throughline.price_version=2026-11-26+acme-1
    ");
    telemetry.set_prices(table("acme-2", 3.0));
    insta::assert_snapshot!(ask().await, @"
    throughline.cost_usd=3
    throughline.price_version=2026-11-26+acme-2
    ");
}

#[test]
fn child_that_asks_the_environment() {
    if is_child() {
        let said = |error: Option<ClientError>| error.map(|error| error.to_string());
        println!("openai {:?}", said(OpenAi::from_env().err()));
        println!("anthropic {:?}", said(Anthropic::from_env().err()));
    }
}

#[test]
fn an_environment_without_key_and_address_is_told_and_one_with_either_is_enough() {
    let none = ("ANTHROPIC_API_KEY", "");
    let nowhere = ("ANTHROPIC_BASE_URL", " ");
    for (key, url) in [("sk-1", ""), ("", "http://127.0.0.1:11434/v1")] {
        let variables = [("OPENAI_API_KEY", key), ("OPENAI_BASE_URL", url), none, nowhere];
        let said = run_child("providers::child_that_asks_the_environment", &variables);
        assert!(said.contains("openai None"), "{said}");
        assert!(said.contains("expected a key in ANTHROPIC_API_KEY, got none; set it"), "{said}");
    }
}
