//! Two models that fail and one that works: the caller gets an answer, the trace shows what it took,
//! and each step down the chain is a decision.

use throughline::llm::ChatRequest;
use throughline::resilience::{Policy, RetryPolicy};
use throughline::{ChatModel as _, FallbackModel, Telemetry, Traced};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let telemetry = Telemetry::builder().service_name("fallback-chain").init()?;
    let provider = throughline_examples::model().await?;
    let quick = RetryPolicy { max_attempts: 2, base_delay_ms: 20, ..RetryPolicy::default() };
    let model = Traced::new(provider).policy(Policy { retry: quick, ..Policy::default() });
    let chain = FallbackModel::new(model.clone())
        .then(model.clone(), "sim-overloaded")
        .then(model, "gpt-4o-mini");
    let question = ChatRequest::new("sim-server-error").user("Is item 12 in stock?");
    println!("{}", chain.chat(question).await?.text());
    telemetry.close().await?;
    Ok(())
}
