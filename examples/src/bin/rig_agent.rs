//! An agent on `rig` that was there before: rig asks the model, runs the tool and streams the answer. What
//! makes it observable is marked; the agent's own code stays as it was.

use std::convert::Infallible;

use futures_util::{StreamExt as _, TryFutureExt as _, TryStreamExt as _};
use reqwest::RequestBuilder;
use rig_agent::agent::{Agent, MultiTurnStreamItem};
use rig_agent::client::AgentClientExt as _;
use rig_agent::completion::Prompt as _;
use rig_agent::streaming::{StreamedAssistantContent, StreamingPrompt as _};
use rig_core::http_client::sse::BoxedStream;
use rig_core::http_client::{
    Error, HttpClientExt, LazyBody, MultipartForm, Request, Response, Result, StreamingResponse,
};
use rig_core::providers::openai::CompletionsClient;
use rig_core::tool::PortableTool;
use rig_core::wasm_compat::WasmCompatSend;
use schemars::JsonSchema;
use serde::Deserialize;
use throughline::middleware::SendTraced as _;
use throughline::{Dimensions, ErrorType, Telemetry, span, workflow};

const MODEL: &str = "gpt-4o-mini";
const QUESTION: &str = "How many of item 12 are left?";
const MAX_TURNS: usize = 3;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // 1: telemetry. Rig's own spans come through it: the run, each turn, each tool.
    let telemetry = Telemetry::builder().service_name("rig-agent").init()?;
    // 2: rig's HTTP client is ours, below: it knows a model call when it sees one.
    let http = TracedHttp(throughline_examples::http_client()?);
    let client = CompletionsClient::builder()
        .api_key(std::env::var("OPENAI_API_KEY").unwrap_or_default())
        .base_url(throughline_examples::model_url().await?)
        .http_client(http)
        .build()?;
    let agent = client
        .agent(MODEL)
        .name("shop")
        .preamble("You answer questions about our stock.")
        .tool(Stock)
        .default_max_turns(MAX_TURNS)
        .build();
    // 3: a span around each run, which rig takes for its own, and one that makes them one trace.
    let questions = async {
        let whole = span("invoke_agent shop").start().run(asked(&agent)).await?;
        let streamed = span("invoke_agent shop").start().run(streamed(&agent)).await?;
        anyhow::Ok((whole, streamed))
    };
    let whose = Dimensions::new().agent("shop").session("s-1");
    let (whole, streamed) = workflow("stock_questions")
        .dimensions(whose)
        .run_with(|_| ErrorType::Other, questions)
        .await?;
    println!("{whole}\n{streamed}");
    telemetry.close().await?;
    Ok(())
}

/// The answer at once.
async fn asked(agent: &Agent) -> anyhow::Result<String> {
    Ok(agent.prompt(QUESTION).await?)
}

/// The answer piece by piece.
async fn streamed(agent: &Agent) -> anyhow::Result<String> {
    let mut items = agent.stream_prompt(QUESTION).await;
    let mut answer = String::new();
    while let Some(item) = items.next().await {
        if let MultiTurnStreamItem::StreamAssistantItem(StreamedAssistantContent::Text(text)) =
            item?
        {
            answer.push_str(&text.text);
        }
    }
    Ok(answer)
}

/// The agent's tool, which rig runs.
struct Stock;

#[derive(Deserialize, JsonSchema)]
struct StockOf {
    /// The item's number.
    item: u32,
}

impl PortableTool for Stock {
    const NAME: &'static str = "stock";
    type Args = StockOf;
    type Output = u32;
    type Error = Infallible;

    fn description(&self) -> String {
        "How many of an item are left".to_owned()
    }

    fn parameters(&self) -> serde_json::Value {
        schemars::schema_for!(StockOf).into()
    }

    async fn call(&self, ask: StockOf) -> std::result::Result<u32, Infallible> {
        Ok(ask.item % 7)
    }
}

/// 2, the rest of it: rig's requests through `send_traced`. All else is what rig does over `reqwest`.
#[derive(Debug, Clone, Default)]
struct TracedHttp(reqwest::Client);

impl TracedHttp {
    fn request<T>(&self, request: Request<T>) -> (RequestBuilder, T) {
        let (parts, body) = request.into_parts();
        let asking = self.0.request(parts.method, parts.uri.to_string()).headers(parts.headers);
        (asking, body)
    }
}

/// Sends it; an answer that says no is an error with its status, headers and body.
async fn sent(asking: RequestBuilder) -> Result<reqwest::Response> {
    let answer = asking.send_traced().await.map_err(instance)?;
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let headers = Box::new(answer.headers().clone());
    let body = answer.text().await.map_err(instance)?;
    Err(Error::InvalidStatusCodeWithDetails { status, body, headers })
}

async fn lazily<U: From<bytes::Bytes> + Send + 'static>(
    asking: RequestBuilder,
) -> Result<Response<LazyBody<U>>> {
    let answer = sent(asking).await?;
    let head = head_of(&answer);
    let body: LazyBody<U> = Box::pin(answer.bytes().map_ok(U::from).map_err(instance));
    Ok(head.body(body)?)
}

fn head_of(answer: &reqwest::Response) -> http::response::Builder {
    let mut head = Response::builder().status(answer.status()).version(answer.version());
    if let Some(headers) = head.headers_mut() {
        headers.clone_from(answer.headers());
    }
    head
}

fn instance(error: reqwest::Error) -> Error {
    Error::Instance(error.into())
}

impl HttpClientExt for TracedHttp {
    fn send<T, U>(
        &self,
        request: Request<T>,
    ) -> impl Future<Output = Result<Response<LazyBody<U>>>> + WasmCompatSend + 'static
    where
        T: Into<bytes::Bytes> + WasmCompatSend,
        U: From<bytes::Bytes> + WasmCompatSend + 'static,
    {
        let (asking, body) = self.request(request);
        lazily(asking.body(body.into()))
    }

    fn send_multipart<U>(
        &self,
        request: Request<MultipartForm>,
    ) -> impl Future<Output = Result<Response<LazyBody<U>>>> + WasmCompatSend + 'static
    where
        U: From<bytes::Bytes> + WasmCompatSend + 'static,
    {
        let (asking, form) = self.request(request);
        lazily(asking.multipart(form.into()))
    }

    fn send_streaming<T>(
        &self,
        request: Request<T>,
    ) -> impl Future<Output = Result<StreamingResponse>> + WasmCompatSend
    where
        T: Into<bytes::Bytes> + WasmCompatSend,
    {
        let (asking, body) = self.request(request);
        let asking = asking.body(body.into());
        async move {
            let answer = sent(asking).await?;
            let head = head_of(&answer);
            let body: BoxedStream = Box::pin(answer.bytes_stream().map_err(instance));
            Ok(head.body(body)?)
        }
    }
}
