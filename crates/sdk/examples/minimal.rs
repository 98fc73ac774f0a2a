//! An agent with one tool, against any OpenAI-compatible server.
//!
//! `OPENAI_API_KEY=… OPENAI_BASE_URL=http://127.0.0.1:11434/v1 cargo run --example minimal`; traces
//! go to a Throughline server on this machine (`throughline serve`).

use schemars::JsonSchema;
use serde::Deserialize;
use throughline::{Agent, Json, OpenAi, Task, Telemetry, ToolRegistry, Traced, tool};

#[derive(Deserialize, JsonSchema)]
struct Stock {
    /// The item's number.
    item: u32,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let telemetry = Telemetry::builder().service_name("minimal").init()?;
    let stock = tool("stock_v1", "How many of an item are left", |ask: Stock| async move {
        Json(ask.item % 7)
    })?;
    let model = std::env::var("MODEL").unwrap_or_else(|_| "gpt-4o-mini".to_owned());
    let agent = Agent::builder("shop", Traced::new(OpenAi::from_env()?), model)
        .instructions("You answer questions about our stock.")
        .tools(ToolRegistry::new().with(stock)?)
        .build()?;
    let run = agent.run(Task::new("Is there enough of item 12 for three people?")).await?;
    tracing::info!(answer = run.answer, tokens = run.usage.total_tokens(), "done");
    // The agent has done its work, whether or not anybody saw it.
    telemetry.close().await.unwrap_or_else(|lost| tracing::warn!("{lost}"));
    Ok(())
}
