//! Models of embeddings on the trace (R3.1), against a server on 127.0.0.1 that gives prepared
//! replies, and in the process.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use throughline::llm::{EmbeddingRequest, EmbeddingResponse, EncodingFormat};
use throughline::resilience::{BreakerPolicy, Policy, TimeoutPolicy};
use throughline::{
    ChatError, EmbeddingModel, Endpoint, ErrorType, Fallback, Recorder, Telemetry,
    TracedEmbeddings, keys,
};

use crate::provider::{quick, recorded};
use crate::providers::{Reply, Server};

const SHOWN: [&str; 11] = [
    keys::GEN_AI_OPERATION_NAME,
    keys::GEN_AI_PROVIDER_NAME,
    keys::GEN_AI_RESPONSE_MODEL,
    keys::GEN_AI_EMBEDDINGS_DIMENSION_COUNT,
    keys::GEN_AI_REQUEST_ENCODING_FORMATS,
    keys::GEN_AI_USAGE_INPUT_TOKENS,
    keys::GEN_AI_USAGE_OUTPUT_TOKENS,
    keys::COST_USD,
    keys::USAGE_ESTIMATED,
    keys::RETRY_COUNT,
    keys::OUTCOME,
];

fn two() -> EmbeddingRequest {
    EmbeddingRequest::new("text-embedding-3-small").texts(["a tent", "a stove"])
}

fn vectors(data: Value) -> Reply {
    Reply::json(json!({
        "object": "list", "data": data, "model": "text-embedding-3-small",
        "usage": {"prompt_tokens": 1_000, "total_tokens": 1_000},
    }))
}

fn whole() -> Reply {
    vectors(json!([
        {"object": "embedding", "index": 1, "embedding": [0.0, 1.0]},
        {"object": "embedding", "index": 0, "embedding": [1.0, 0.0]},
    ]))
}

/// The series of the GenAI metrics and of the operations, without what is no number of ours.
fn series(recorder: &Recorder, telemetry: &Telemetry) -> String {
    telemetry.flush();
    let metrics = recorder.metrics();
    let ours = |line: &&String| line.starts_with("gen_ai.") || line.starts_with("agent_operations");
    metrics.iter().filter(ours).map(String::as_str).collect::<Vec<_>>().join("\n")
}

/// R3.1: one span a call, with what was asked, what came and what it cost; a retry below it.
#[tokio::test]
async fn r3_1_embeddings_are_on_the_trace_with_tokens_and_cost() {
    let (recorder, telemetry) = recorded();
    let refused = Reply::json(json!({"error": {"message": "slow down"}})).status(429);
    let server = Server::start([whole(), refused, whole()]).await;
    let model = TracedEmbeddings::new(server.openai()).policy(quick());
    let work = async {
        let request = two().dimensions(2).encoding_format(EncodingFormat::Float).user("u-1");
        let answer = model.embed(request).await.expect("vectors");
        assert_eq!(answer.embeddings, [[1.0, 0.0], [0.0, 1.0]]);
        model.embed(two()).await.expect("vectors at the second attempt");
    };
    telemetry.scope(work).await;
    // 1,000 tokens at 0.02 for a million.
    insta::assert_snapshot!(recorder.tree(&SHOWN), @r#"
    embeddings text-embedding-3-small gen_ai.operation.name=embeddings gen_ai.provider.name=openai gen_ai.response.model=text-embedding-3-small gen_ai.embeddings.dimension.count=2 gen_ai.request.encoding_formats=["float"] gen_ai.usage.input_tokens=1000 throughline.cost_usd=0.00002 retry_count=0 outcome=ok
    embeddings text-embedding-3-small gen_ai.operation.name=embeddings gen_ai.provider.name=openai gen_ai.response.model=text-embedding-3-small gen_ai.embeddings.dimension.count=2 gen_ai.usage.input_tokens=1000 throughline.cost_usd=0.00002 retry_count=1 outcome=retry_succeeded
      attempt text-embedding-3-small gen_ai.provider.name=openai retry_count=0
      attempt text-embedding-3-small gen_ai.provider.name=openai retry_count=1
    "#);
    insta::assert_snapshot!(series(&recorder, &telemetry), @"
    agent_operations_total{is_cached=false, model_name=text-embedding-3-small, operation=embeddings, outcome=ok, status_code=200} 1
    agent_operations_total{is_cached=false, model_name=text-embedding-3-small, operation=embeddings, outcome=retry_succeeded, status_code=200} 1
    gen_ai.client.operation.duration{gen_ai.operation.name=embeddings, gen_ai.provider.name=openai, gen_ai.request.model=text-embedding-3-small, gen_ai.response.model=text-embedding-3-small} 2
    gen_ai.client.token.usage{gen_ai.operation.name=embeddings, gen_ai.provider.name=openai, gen_ai.request.model=text-embedding-3-small, gen_ai.response.model=text-embedding-3-small, gen_ai.token.type=input} 2
    ");
    let (path, headers, body) = server.seen(0);
    assert_eq!(path, "/v1/embeddings");
    insta::assert_snapshot!(body, @r#"{"dimensions":2,"encoding_format":"float","input":["a tent","a stove"],"model":"text-embedding-3-small","user":"u-1"}"#);
    let span = &recorder.spans()[0].span_context;
    let expected = format!("00-{}-{}-01", span.trace_id(), span.span_id());
    assert_eq!(headers["traceparent"], expected, "the request goes on from the call");
    let told = |key: &str| {
        let spans = recorder.spans();
        let entry = spans[0].attributes.iter().find(|entry| entry.key.as_str() == key).cloned();
        entry.map(|entry| entry.value.to_string())
    };
    assert_eq!(told(keys::SERVER_ADDRESS).as_deref(), Some("127.0.0.1"));
    assert_eq!(told(keys::SERVER_PORT), Some(server.port().to_string()));
    assert_eq!(told("gen_ai.input.messages"), None);
}

/// R3.1: under the newest names the duration is a metric of its own.
#[tokio::test]
async fn r3_1_embeddings_have_their_own_metric_under_the_latest_names() {
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).latest_gen_ai_names(true);
    let telemetry = telemetry.build().expect("telemetry");
    let server = Server::start([whole()]).await;
    let model = TracedEmbeddings::new(server.openai());
    telemetry.scope(async { model.embed(two()).await.expect("vectors") }).await;
    insta::assert_snapshot!(series(&recorder, &telemetry), @"
    agent_operations_total{is_cached=false, model_name=text-embedding-3-small, operation=embeddings, outcome=ok, status_code=200} 1
    gen_ai.client.embeddings.duration{gen_ai.operation.name=embeddings, gen_ai.provider.name=openai, gen_ai.request.model=text-embedding-3-small, gen_ai.response.model=text-embedding-3-small} 1
    gen_ai.client.inference.operation.input_tokens{gen_ai.operation.name=embeddings, gen_ai.provider.name=openai, gen_ai.request.model=text-embedding-3-small, gen_ai.response.model=text-embedding-3-small} 1
    gen_ai.client.inference.usage.input_tokens{gen_ai.operation.name=embeddings, gen_ai.provider.name=openai, gen_ai.request.model=text-embedding-3-small, gen_ai.response.model=text-embedding-3-small, gen_ai.token.modality=unknown} 1000
    ");
}

/// What does not answer the request is an error that says so, whoever gave it.
#[tokio::test]
async fn r3_1_vectors_that_do_not_fit_the_request_are_an_error() {
    let (recorder, telemetry) = recorded();
    let server = Server::start([
        vectors(json!([{"index": 0, "embedding": [1.0]}])),
        vectors(json!([{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0, 2.0]}])),
        vectors(json!([{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [null]}])),
    ])
    .await;
    let model = TracedEmbeddings::new(server.openai()).policy(Policy::none());
    let own = TracedEmbeddings::new(Local::default()).policy(Policy::none());
    let messages = telemetry.scope(async {
        let mut messages = Vec::new();
        for _ in 0..3 {
            messages.push(model.embed(two()).await.expect_err("no answer"));
        }
        messages.push(own.embed(two().dimensions(3)).await.expect_err("too short"));
        messages.push(own.embed(EmbeddingRequest::new("local")).await.expect_err("nothing asked"));
        messages
    });
    let errors = messages.await;
    let told: Vec<String> =
        errors.iter().map(|error| format!("{}: {error}", error.error_type)).collect();
    insta::assert_snapshot!(told.join("\n"), @"
    INVALID_RESPONSE: text-embedding-3-small at 127.0.0.1 answered 200 OK: the embeddings do not answer the request: expected 2 vectors, one for each input, got 1
    INVALID_RESPONSE: text-embedding-3-small at 127.0.0.1 answered 200 OK: the embeddings do not answer the request: expected 1 dimensions in vector 1, got 2
    INVALID_RESPONSE: text-embedding-3-small at 127.0.0.1 answered 200 OK: the embeddings do not answer the request: expected finite numbers in vector 1, got NaN at 0
    INVALID_RESPONSE: text-embedding-3-small answered what does not fit the request: expected 3 dimensions in vector 0, got 2
    INVALID_REQUEST: expected at least one input for local to embed, got none
    ");
    insta::assert_snapshot!(recorder.tree(&[keys::ERROR_TYPE, keys::STATUS_CODE]), @"
    embeddings text-embedding-3-small error.type=INVALID_RESPONSE status_code=200 ERROR(text-embedding-3-small at 127.0.0.1 answered 200 OK: the embeddings do not answer the request: expected 2 vectors, one for each input, got 1)
      attempt text-embedding-3-small error.type=INVALID_RESPONSE status_code=200 ERROR(text-embedding-3-small at 127.0.0.1 answered 200 OK: the embeddings do not answer the request: expected 2 vectors, one for each input, got 1)
    embeddings text-embedding-3-small error.type=INVALID_RESPONSE status_code=200 ERROR(text-embedding-3-small at 127.0.0.1 answered 200 OK: the embeddings do not answer the request: expected 1 dimensions in vector 1, got 2)
      attempt text-embedding-3-small error.type=INVALID_RESPONSE status_code=200 ERROR(text-embedding-3-small at 127.0.0.1 answered 200 OK: the embeddings do not answer the request: expected 1 dimensions in vector 1, got 2)
    embeddings text-embedding-3-small error.type=INVALID_RESPONSE status_code=200 ERROR(text-embedding-3-small at 127.0.0.1 answered 200 OK: the embeddings do not answer the request: expected finite numbers in vector 1, got NaN at 0)
      attempt text-embedding-3-small error.type=INVALID_RESPONSE status_code=200 ERROR(text-embedding-3-small at 127.0.0.1 answered 200 OK: the embeddings do not answer the request: expected finite numbers in vector 1, got NaN at 0)
    embeddings text-embedding-3-small error.type=INVALID_RESPONSE ERROR(text-embedding-3-small answered what does not fit the request: expected 3 dimensions in vector 0, got 2)
      attempt text-embedding-3-small error.type=INVALID_RESPONSE ERROR(text-embedding-3-small answered what does not fit the request: expected 3 dimensions in vector 0, got 2)
    embeddings local error.type=INVALID_REQUEST ERROR(expected at least one input for local to embed, got none)
      attempt local error.type=INVALID_REQUEST ERROR(expected at least one input for local to embed, got none)
    ");
}

/// A model in this process that tells no tokens.
#[derive(Default)]
pub(crate) struct Local {
    asked: AtomicUsize,
    is_slow: bool,
}

impl EmbeddingModel for Local {
    fn endpoint(&self) -> Endpoint {
        Endpoint::in_process("local")
    }

    fn embed(
        &self,
        request: EmbeddingRequest,
    ) -> BoxFuture<'_, Result<EmbeddingResponse, ChatError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        async move {
            if self.is_slow {
                std::future::pending::<()>().await;
            }
            let embeddings = request.inputs.iter().map(|_| vec![0.5, 0.5]).collect();
            Ok(EmbeddingResponse { embeddings, ..EmbeddingResponse::default() })
        }
        .boxed()
    }
}

/// Tokens that nobody told are counted, and those that were given as tokens are so many.
#[tokio::test]
async fn r3_1_tokens_that_nobody_told_are_counted_and_marked() {
    let (recorder, telemetry) = recorded();
    let model = TracedEmbeddings::new(Local::default());
    let request = EmbeddingRequest::new("bge-small").text("eight by").tokens([1, 2, 3]);
    telemetry.scope(async { model.embed(request).await.expect("vectors") }).await;
    insta::assert_snapshot!(recorder.tree(&SHOWN), @"embeddings bge-small gen_ai.operation.name=embeddings gen_ai.provider.name=local gen_ai.embeddings.dimension.count=2 gen_ai.usage.input_tokens=5 throughline.usage.estimated=true retry_count=0 outcome=ok");
}

/// The same state machines guard it: time limits, the breaker of the model, and a fallback of any
/// operation.
#[tokio::test(start_paused = true)]
async fn r3_1_embeddings_obey_limits_a_breaker_and_a_fallback() {
    let (recorder, telemetry) = recorded();
    let timeouts = TimeoutPolicy { attempt_ms: Some(50), ..TimeoutPolicy::none() };
    let breaker = BreakerPolicy { min_attempts: 1, ..BreakerPolicy::default() };
    let policy = Policy { timeouts, breaker: Some(breaker), ..Policy::none() };
    let slow = Local { is_slow: true, ..Local::default() };
    let far = TracedEmbeddings::new(slow).policy(policy);
    let near = TracedEmbeddings::new(Local::default());
    let request = || EmbeddingRequest::new("bge-small").text("a tent");
    let work = async {
        let late = far.embed(request()).await.expect_err("late");
        assert_eq!(late.error_type, ErrorType::Timeout);
        assert!(!far.is_available("bge-small") && far.is_available("bge-large"));
        let answered = Fallback::new("embeddings", far.embed(request()))
            .degraded("near", near.embed(request()))
            .run()
            .await
            .expect("vectors");
        assert!(answered.is_degraded());
        answered.value
    };
    assert_eq!(telemetry.scope(work).await.embeddings, [[0.5, 0.5]]);
    let shown = [keys::OUTCOME, keys::FALLBACK_DECISION, keys::ERROR_TYPE];
    insta::assert_snapshot!(recorder.tree(&shown), @"
    embeddings bge-small outcome=model_timeout error.type=TIMEOUT ERROR(TIMEOUT)
      attempt bge-small error.type=TIMEOUT ERROR(TIMEOUT)
    fallback embeddings outcome=fallback_degraded fallback.decision=triggered
      attempt embeddings outcome=circuit_open error.type=CIRCUIT_OPEN ERROR(bge-small was not asked: its circuit is open after too many failures)
        embeddings bge-small outcome=circuit_open error.type=CIRCUIT_OPEN ERROR(bge-small was not asked: its circuit is open after too many failures)
      attempt embeddings outcome=ok
        embeddings bge-small outcome=ok
    ");
}
