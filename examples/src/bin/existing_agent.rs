//! An agent that was there before: `async-openai` asks the model, `rmcp` runs the tool. What makes it
//! observable is marked; the agent's own code stays as it was.

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::error::OpenAIError;
use async_openai::middleware::HttpRequestFactory;
use async_openai::types::chat::{
    ChatCompletionMessageToolCalls, ChatCompletionTool, ChatCompletionTools,
    CreateChatCompletionRequest, CreateChatCompletionRequestArgs, FunctionObject,
};
use rmcp::model::CallToolRequestParams;
use rmcp::{RoleClient, ServiceExt as _, service::RunningService};
use throughline::middleware::TraceClientLayer;
use throughline::{Telemetry, span};
use throughline_examples::stock_server::StockServer;
use tower::{Layer as _, Service as _, service_fn};

const MODEL: &str = "gpt-4o-mini";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // 1: telemetry, beside whatever the program logs with.
    let telemetry = Telemetry::builder().service_name("existing-agent").init()?;
    // 2: the layer around the HTTP client knows a model call when it sees one.
    let traced = TraceClientLayer::new().layer(throughline_examples::http_client()?);
    let http = service_fn(move |call: HttpRequestFactory| {
        let mut traced = traced.clone();
        async move { traced.call(call.build().await?).await.map_err(OpenAIError::Reqwest) }
    });
    let config = OpenAIConfig::new()
        .with_api_base(throughline_examples::model_url().await?)
        .with_api_key(std::env::var("OPENAI_API_KEY").unwrap_or_default());
    let model = Client::with_config(config).with_http_service(http);
    // 3: a span around the run.
    let run = span("invoke_agent shop").start();
    let (stock, stock_server) = stock().await?;
    let answer = run.run(agent(model, stock)).await?;
    println!("{answer}");
    // What the server does is in this process, too: its spans end before telemetry does.
    stock_server.await??;
    telemetry.close().await?;
    Ok(())
}

/// The agent as it was, but for one line.
async fn agent(
    model: Client<OpenAIConfig>,
    stock: RunningService<RoleClient, ()>,
) -> anyhow::Result<String> {
    let question = CreateChatCompletionRequestArgs::default()
        .model(MODEL)
        .messages(messages(&[("user", "How many of item 12 are left?")])?)
        .tools(vec![tool(&stock).await?])
        .build()?;
    let asked = model.chat().create(question).await?;
    let call = asked.choices.into_iter().next().and_then(|choice| choice.message.tool_calls);
    let Some(ChatCompletionMessageToolCalls::Function(call)) =
        call.and_then(|calls| calls.into_iter().next())
    else {
        anyhow::bail!("expected a tool call, got none");
    };
    let wanted = CallToolRequestParams::new(call.function.name.clone())
        .with_arguments(serde_json::from_str(&call.function.arguments)?);
    // 4: and one around the tool.
    let tool_run = span(format!("execute_tool {}", call.function.name)).start();
    let found = tool_run.run(stock.call_tool(wanted)).await?;
    let found = serde_json::to_string(&found)?;
    let told = messages(&[("user", "How many of item 12 are left?"), ("user", &found)])?;
    let told = CreateChatCompletionRequest {
        model: MODEL.to_owned(),
        messages: told,
        ..CreateChatCompletionRequest::default()
    };
    let answer = model.chat().create(told).await?;
    stock.cancel().await?;
    let text = answer.choices.into_iter().next().and_then(|choice| choice.message.content);
    text.ok_or_else(|| anyhow::anyhow!("expected an answer, got none"))
}

fn messages(
    said: &[(&str, &str)],
) -> anyhow::Result<Vec<async_openai::types::chat::ChatCompletionRequestMessage>> {
    let said: Vec<_> = said
        .iter()
        .map(|(role, content)| serde_json::json!({"role": role, "content": content}))
        .collect();
    Ok(serde_json::from_value(said.into())?)
}

/// The stock's MCP server, here in the same process.
async fn stock()
-> anyhow::Result<(RunningService<RoleClient, ()>, tokio::task::JoinHandle<anyhow::Result<()>>)> {
    const PIPE_BYTES: usize = 64 * 1024;
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    let server = tokio::spawn(async move {
        StockServer.serve(theirs).await?.waiting().await?;
        Ok(())
    });
    Ok((().serve(ours).await?, server))
}

/// Its tool, as the model is told of it.
async fn tool(stock: &RunningService<RoleClient, ()>) -> anyhow::Result<ChatCompletionTools> {
    let tool = stock.list_all_tools().await?.into_iter().next();
    let tool = tool.ok_or_else(|| anyhow::anyhow!("expected a tool, got none"))?;
    Ok(ChatCompletionTools::Function(ChatCompletionTool {
        function: FunctionObject {
            name: tool.name.into_owned(),
            description: tool.description.map(|text| text.into_owned()),
            parameters: Some(serde_json::to_value(&*tool.input_schema)?),
            strict: None,
        },
    }))
}
