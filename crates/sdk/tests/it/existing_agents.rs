//! Agents on somebody else's client: the client layer recognises what they ask of model providers,
//! and puts it on the trace as our own wrapper does.

use std::convert::Infallible;

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::error::OpenAIError;
use async_openai::middleware::HttpRequestFactory;
use async_openai::types::chat::{
    ChatCompletionRequestUserMessageArgs, CreateChatCompletionRequest,
    CreateChatCompletionRequestArgs,
};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::{StreamExt as _, stream};
use throughline::llm::{ChatRequest, ChatResponse, WireForm, event_bytes};
use throughline::middleware::{SendTraced as _, TraceClientLayer};
use throughline::{ChatModel as _, Dimensions, Recorder, Traced, span};
use tower::{Layer as _, Service as _};

use crate::chain::{client, recording, serve};
use crate::provider::{Provider, Step, quick, usage};

/// What the span of a model call must say.
const KEYS: [&str; 12] = [
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "gen_ai.request.stream",
    "gen_ai.response.id",
    "gen_ai.response.model",
    "gen_ai.response.finish_reasons",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "throughline.cost_usd",
    "http.response.status_code",
    "error.type",
    "outcome",
];

/// The agent's client: async-openai with the layer.
pub(crate) fn agent(base_url: &str) -> Client<OpenAIConfig> {
    let traced = TraceClientLayer::new().layer(client());
    let service = tower::service_fn(move |factory: HttpRequestFactory| {
        let mut traced = traced.clone();
        async move {
            let request = factory.build().await?;
            traced.call(request).await.map_err(OpenAIError::Reqwest)
        }
    });
    let config = OpenAIConfig::new().with_api_base(base_url).with_api_key("secret");
    Client::with_config(config).with_http_service(service)
}

pub(crate) fn question() -> CreateChatCompletionRequest {
    let message = ChatCompletionRequestUserMessageArgs::default()
        .content("how many?")
        .build()
        .expect("a message");
    CreateChatCompletionRequestArgs::default()
        .model("gpt-4o")
        .messages([message.into()])
        .build()
        .expect("a request")
}

#[tokio::test]
async fn an_agent_on_async_openai_is_traced() {
    recording(|recorder| async move {
        let provider = Provider::start([
            Step::Answer("17"),
            Step::Answer("17 again"),
            Step::Refuse(429, &[], r#"{"error":{"message":"slow down","code":"rate_limit"}}"#),
        ])
        .await;
        let agent = agent(provider.base_url());
        let work = span("invoke_agent shop").start();
        let asking = async {
            let answer = agent.chat().create(question()).await.expect("an answer");
            assert_eq!(answer.choices[0].message.content.as_deref(), Some("17"));
            let mut pieces = agent.chat().create_stream(question()).await.expect("a stream");
            let mut text = String::new();
            while let Some(piece) = pieces.next().await {
                let piece = piece.expect("a piece");
                let of = piece.choices.first().and_then(|choice| choice.delta.content.clone());
                text.push_str(&of.unwrap_or_default());
            }
            assert_eq!(text, "17 again");
            agent.chat().create(question()).await.expect_err("refused");
        };
        work.in_scope(|| Dimensions::new().session("s").scope(asking)).await;
        work.end();
        insta::assert_snapshot!(recorder.tree(&KEYS), @r#"
        invoke_agent shop
          chat gpt-4o gen_ai.operation.name=chat gen_ai.provider.name=openai gen_ai.response.id=chatcmpl-1 gen_ai.response.model=gpt-4o-2024-08-06 gen_ai.response.finish_reasons=["stop"] gen_ai.usage.input_tokens=1000 gen_ai.usage.output_tokens=100 throughline.cost_usd=0.003 http.response.status_code=200 outcome=ok
          chat gpt-4o gen_ai.operation.name=chat gen_ai.provider.name=openai gen_ai.request.stream=true gen_ai.response.id=chatcmpl-1 gen_ai.response.model=gpt-4o-2024-08-06 gen_ai.response.finish_reasons=["stop"] gen_ai.usage.input_tokens=1000 gen_ai.usage.output_tokens=100 throughline.cost_usd=0.003 http.response.status_code=200 outcome=ok
            http.stream.init
            http.stream.segment
          chat gpt-4o gen_ai.operation.name=chat gen_ai.provider.name=openai http.response.status_code=429 error.type=RATE_LIMITED outcome=error ERROR(gpt-4o at 127.0.0.1 answered 429 Too Many Requests: slow down (rate_limit))
        "#);
        let tree = recorder.tree(&["gen_ai.input.messages", "gen_ai.output.messages"]);
        assert!(tree.contains("how many?") && tree.contains("17 again"), "{tree}");
        let has_time = |recorder: &Recorder| {
            recorder.tree(&["gen_ai.response.time_to_first_chunk"]).matches("first_chunk=").count()
        };
        assert_eq!(has_time(&recorder), 1, "of the stream");
        for (headers, _) in provider.requests() {
            assert!(headers.contains_key("traceparent"), "{headers:?}");
            assert!(!headers.contains_key("baggage"), "a provider is a third party");
        }
    })
    .await;
}

/// An answer of Anthropic's form, whole or as a stream that ends or breaks off.
pub(crate) async fn anthropic(headers: HeaderMap, body: Bytes) -> Response {
    let request = WireForm::Messages.parse_request(&body).expect("a request");
    let mut answer = ChatResponse::of_text("claude-sonnet-4-5", "17");
    (answer.id, answer.usage) = ("msg_1".to_owned(), Some(usage()));
    if !request.stream {
        return axum::Json(WireForm::Messages.response_to_json(&answer)).into_response();
    }
    let mut events = vec![
        r#"{"type":"message_start","message":{"id":"msg_1","model":"claude-sonnet-4-5","role":"assistant","content":[],"usage":{"input_tokens":9,"output_tokens":1}}}"#,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"17"}}"#,
    ];
    if !headers.contains_key("x-cut") {
        events.extend([
            r#"{"type":"content_block_stop","index":0}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":2}}"#,
            r#"{"type":"message_stop"}"#,
        ]);
    }
    let pieces = events.into_iter().map(|event| Ok::<_, Infallible>(event_bytes(event)));
    // Each byte comes by itself: how a stream is cut changes nothing.
    let bytes: Vec<_> = pieces
        .flat_map(|piece| piece.map(String::into_bytes).unwrap_or_default())
        .map(|byte| Ok::<_, Infallible>(Bytes::copy_from_slice(&[byte])))
        .collect();
    let rest = stream::iter(bytes);
    let body = if headers.contains_key("x-hang") {
        Body::from_stream(rest.chain(stream::pending()))
    } else {
        Body::from_stream(rest)
    };
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}

#[tokio::test]
async fn messages_of_anthropic_are_recognised_streamed_cut_or_given_up() {
    recording(|recorder| async move {
        let address = serve(Router::new().route("/v1/messages", post(anthropic))).await;
        let ask = |is_stream: bool, how: &'static str| {
            let mut request = ChatRequest::new("claude-sonnet-4-5").user("how many?");
            (request.stream, request.max_tokens) = (is_stream, Some(100));
            client()
                .post(format!("http://{address}/v1/messages"))
                .header(how, "1")
                .body(WireForm::Messages.request_to_json(&request).to_string())
                .send_traced()
        };
        let whole = ask(false, "x-whole").await.expect("an answer").text().await.expect("a text");
        assert!(whole.contains("msg_1"), "{whole}");
        for how in ["x-whole", "x-cut"] {
            let text = ask(true, how).await.expect("an answer").text().await.expect("a text");
            assert!(text.contains("text_delta"), "{text}");
        }
        // Given up before the end, and without having read anything.
        let mut pieces = ask(true, "x-hang").await.expect("an answer").bytes_stream();
        for _ in 0..400 {
            pieces.next().await.expect("a piece").expect("a piece");
        }
        drop(pieces);
        drop(ask(true, "x-whole").await.expect("an answer"));
        insta::assert_snapshot!(recorder.tree(&KEYS), @r#"
        chat claude-sonnet-4-5 gen_ai.operation.name=chat gen_ai.provider.name=anthropic gen_ai.response.id=msg_1 gen_ai.response.model=claude-sonnet-4-5 gen_ai.response.finish_reasons=["stop"] gen_ai.usage.input_tokens=1000 gen_ai.usage.output_tokens=100 throughline.cost_usd=0.00342 http.response.status_code=200 outcome=ok
        chat claude-sonnet-4-5 gen_ai.operation.name=chat gen_ai.provider.name=anthropic gen_ai.request.stream=true gen_ai.response.id=msg_1 gen_ai.response.model=claude-sonnet-4-5 gen_ai.response.finish_reasons=["stop"] gen_ai.usage.input_tokens=9 gen_ai.usage.output_tokens=2 throughline.cost_usd=0.000057 http.response.status_code=200 outcome=ok
          http.stream.init
          http.stream.segment
        chat claude-sonnet-4-5 gen_ai.operation.name=chat gen_ai.provider.name=anthropic gen_ai.request.stream=true gen_ai.response.id=msg_1 gen_ai.response.model=claude-sonnet-4-5 gen_ai.response.finish_reasons=["error"] gen_ai.usage.input_tokens=9 gen_ai.usage.output_tokens=1 throughline.cost_usd=0.000042 http.response.status_code=200 error.type=STREAM_FAILED outcome=error ERROR(the stream of claude-sonnet-4-5 at 127.0.0.1 broke off before its end mark)
          http.stream.init
          http.stream.segment error.type=STREAM_FAILED ERROR(the stream of claude-sonnet-4-5 at 127.0.0.1 broke off before its end mark)
        chat claude-sonnet-4-5 gen_ai.operation.name=chat gen_ai.provider.name=anthropic gen_ai.request.stream=true gen_ai.response.id=msg_1 gen_ai.response.model=claude-sonnet-4-5 gen_ai.response.finish_reasons=["error"] gen_ai.usage.input_tokens=9 gen_ai.usage.output_tokens=1 throughline.cost_usd=0.000042 http.response.status_code=200 outcome=cancelled
          http.stream.init
        chat claude-sonnet-4-5 gen_ai.operation.name=chat gen_ai.provider.name=anthropic gen_ai.request.stream=true outcome=cancelled
          http.stream.init
        "#);
    })
    .await;
}

#[tokio::test]
async fn what_is_no_model_call_keeps_the_span_of_its_request() {
    recording(|recorder| async move {
        let app =
            Router::new().route("/survey/responses", post(|| async { StatusCode::CREATED })).route(
                "/v1/embeddings",
                post(|| async {
                    r#"{"model":"e-1","data":[{"embedding":[0.5]}],"usage":{"prompt_tokens":3}}"#
                }),
            );
        let address = serve(app).await;
        for (path, body) in [
            ("/survey/responses", r#"{"answer":1}"#),
            ("/v1/embeddings", r#"{"model":"e","input":"a"}"#),
        ] {
            let url = format!("http://{address}{path}");
            let answer = client().post(url).body(body).send_traced().await.expect("an answer");
            answer.bytes().await.expect("a body");
        }
        insta::assert_snapshot!(recorder.tree(&KEYS), @r"
        POST http.response.status_code=201 outcome=ok
        embeddings e gen_ai.operation.name=embeddings gen_ai.provider.name=openai gen_ai.response.model=e-1 gen_ai.usage.input_tokens=3 http.response.status_code=200 outcome=ok
        ");
    })
    .await;
}

/// A model of the SDK's own whose client has the layer too.
struct Layered(String);

impl throughline::ChatModel for Layered {
    fn endpoint(&self) -> throughline::Endpoint {
        throughline::Endpoint::in_process("openai")
    }

    fn chat(
        &self,
        request: ChatRequest,
    ) -> futures_util::future::BoxFuture<'_, Result<ChatResponse, throughline::ChatError>> {
        Box::pin(async move {
            let body = WireForm::ChatCompletions.request_to_json(&request).to_string();
            let url = format!("{}/chat/completions", self.0);
            let answer = client().post(url).body(body).send_traced().await.expect("an answer");
            let body = answer.bytes().await.expect("a body");
            Ok(WireForm::ChatCompletions.parse_response(&body).expect("an answer"))
        })
    }

    fn stream(
        &self,
        _: ChatRequest,
    ) -> futures_util::future::BoxFuture<'_, Result<throughline::ChatStream, throughline::ChatError>>
    {
        Box::pin(async {
            let message = "no streams here";
            Err(throughline::ChatError::new(throughline::ErrorType::Other, message))
        })
    }
}

#[tokio::test]
async fn tokens_of_a_call_are_counted_once_when_wrapper_and_layer_both_see_it() {
    recording(|recorder| async move {
        let provider = Provider::start([Step::Answer("17")]).await;
        let model = Traced::new(Layered(provider.base_url().to_owned())).policy(quick());
        let asking = model.chat(ChatRequest::new("gpt-4o").user("how many?"));
        Dimensions::new().session("s").scope(asking).await.expect("an answer");
        for (headers, _) in provider.requests() {
            assert!(!headers.contains_key("baggage"), "who is asked within a call is a provider");
        }
        let keys = ["gen_ai.usage.input_tokens", "http.request.method"];
        insta::assert_snapshot!(recorder.tree(&keys), @r"
        chat gpt-4o gen_ai.usage.input_tokens=1000
          POST http.request.method=POST
        ");
    })
    .await;
}

/// A handler that answers with one text, or with another as events when it is asked for a stream.
fn saying(whole: &'static str, events: &'static str) -> axum::routing::MethodRouter {
    post(move |body: String| async move {
        match body.contains("\"stream\":true") {
            true => ([(header::CONTENT_TYPE, "text/event-stream")], events).into_response(),
            false => ([(header::CONTENT_TYPE, "application/json")], whole).into_response(),
        }
    })
}

#[tokio::test]
async fn completions_and_responses_are_recognised_whole_and_streamed() {
    recording(|recorder| async move {
        let app = Router::new()
            .route(
                "/v1/completions",
                saying(
                    r#"{"id":"cmpl-1","model":"davinci-2","choices":[{"text":"17","index":0,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#,
                    "data: {\"id\":\"cmpl-2\",\"model\":\"davinci-2\",\"choices\":[{\"text\":\"1\",\"index\":0}]}\n\n\
                     data: {\"id\":\"cmpl-2\",\"model\":\"davinci-2\",\"choices\":[{\"text\":\"7\",\"index\":0,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n\
                     data: [DONE]\n\n",
                ),
            )
            .route(
                "/v1/responses",
                saying(
                    r#"{"id":"resp_1","object":"response","status":"completed","model":"gpt-4o-2024-08-06","output":[{"id":"msg_1","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"17","annotations":[]}]}],"usage":{"input_tokens":1000,"input_tokens_details":{"cached_tokens":0},"output_tokens":100,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":1100}}"#,
                    "event: response.output_text.delta\n\
                     data: {\"type\":\"response.output_text.delta\",\"item_id\":\"msg_1\",\"output_index\":0,\"content_index\":0,\"delta\":\"17\"}\n\n\
                     event: response.completed\n\
                     data: {\"type\":\"response.completed\",\"response\":{\"id\":\"resp_2\",\"status\":\"completed\",\"model\":\"gpt-4o-2024-08-06\",\"output\":[],\"usage\":{\"input_tokens\":1000,\"output_tokens\":100,\"total_tokens\":1100}}}\n\n",
                ),
            );
        let address = serve(app).await;
        for (path, body) in [
            ("/v1/completions", r#"{"model":"davinci","prompt":"how many?"}"#),
            ("/v1/completions", r#"{"model":"davinci","prompt":"how many?","stream":true}"#),
            ("/v1/responses", r#"{"model":"gpt-4o","input":"how many?"}"#),
            ("/v1/responses", r#"{"model":"gpt-4o","input":"how many?","stream":true}"#),
        ] {
            let url = format!("http://{address}{path}");
            let answer = client().post(url).body(body).send_traced().await.expect("an answer");
            answer.bytes().await.expect("a body");
        }
        insta::assert_snapshot!(recorder.tree(&KEYS), @r#"
        text_completion davinci gen_ai.operation.name=text_completion gen_ai.provider.name=openai gen_ai.response.id=cmpl-1 gen_ai.response.model=davinci-2 gen_ai.response.finish_reasons=["stop"] gen_ai.usage.input_tokens=3 gen_ai.usage.output_tokens=1 http.response.status_code=200 outcome=ok
        text_completion davinci gen_ai.operation.name=text_completion gen_ai.provider.name=openai gen_ai.request.stream=true gen_ai.response.id=cmpl-2 gen_ai.response.model=davinci-2 gen_ai.response.finish_reasons=["stop"] gen_ai.usage.input_tokens=3 gen_ai.usage.output_tokens=2 http.response.status_code=200 outcome=ok
          http.stream.init
          http.stream.segment
        chat gpt-4o gen_ai.operation.name=chat gen_ai.provider.name=openai gen_ai.response.id=resp_1 gen_ai.response.model=gpt-4o-2024-08-06 gen_ai.response.finish_reasons=["stop"] gen_ai.usage.input_tokens=1000 gen_ai.usage.output_tokens=100 throughline.cost_usd=0.0035 http.response.status_code=200 outcome=ok
        chat gpt-4o gen_ai.operation.name=chat gen_ai.provider.name=openai gen_ai.request.stream=true gen_ai.response.id=resp_2 gen_ai.response.model=gpt-4o-2024-08-06 gen_ai.response.finish_reasons=["stop"] gen_ai.usage.input_tokens=1000 gen_ai.usage.output_tokens=100 throughline.cost_usd=0.0035 http.response.status_code=200 outcome=ok
          http.stream.init
          http.stream.segment
        "#);
        let said = recorder.tree(&["gen_ai.input.messages", "gen_ai.output.messages"]);
        assert_eq!(said.matches("how many?").count(), 4, "{said}");
    })
    .await;
}

#[tokio::test]
async fn r3_2_a_recognised_stream_has_segments_whose_gaps_and_failures_show() {
    recording(|recorder| async move {
        let event = |id: u32, text: &str| {
            format!(
                "id: {id}\ndata: {{\"id\":\"c\",\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n"
            )
        };
        let gap = [event(1, "a"), event(2, "b"), event(7, "c"), "data: [DONE]\n\n".to_owned()].concat();
        let failed = format!("{}event: X-Stream-State\ndata: failed\n\n", event(1, "a"));
        let app = Router::new().route(
            "/v1/chat/completions",
            post(move |body: String| {
                let events = if body.contains("gap") { gap.clone() } else { failed.clone() };
                async move {
                    ([("content-type", "text/event-stream"), ("x-stream-id", "s-7")], events)
                }
            }),
        );
        let address = serve(app).await;
        for prompt in ["gap", "fail"] {
            let mut request = ChatRequest::new("m").user(prompt);
            request.stream = true;
            let body = WireForm::ChatCompletions.request_to_json(&request).to_string();
            let url = format!("http://{address}/v1/chat/completions");
            let answer = client().post(url).body(body).send_traced().await.expect("an answer");
            answer.bytes().await.expect("a body");
        }
        let keys = ["stream_id", "chunk_seq", "throughline.stream.chunks", "throughline.stream.end", "error.type", "outcome"];
        insta::assert_snapshot!(recorder.tree(&keys), @r"
        chat m outcome=ok
          http.stream.init stream_id=s-7 chunk_seq=0 throughline.stream.chunks=1 throughline.stream.end=first_token
          http.stream.segment stream_id=s-7 chunk_seq=2 throughline.stream.chunks=1 throughline.stream.end=gap error.type=STREAM_FAILED ERROR(expected chunk 3 of the stream, got 7)
          http.stream.segment stream_id=s-7 chunk_seq=7 throughline.stream.chunks=1 throughline.stream.end=done
        chat m error.type=STREAM_FAILED outcome=error ERROR(m at 127.0.0.1 says that its stream failed)
          http.stream.init stream_id=s-7 chunk_seq=0 throughline.stream.chunks=1 throughline.stream.end=first_token
          http.stream.segment stream_id=s-7 chunk_seq=2 throughline.stream.chunks=0 throughline.stream.end=failed error.type=STREAM_FAILED ERROR(m at 127.0.0.1 says that its stream failed)
        ");
    })
    .await;
}
