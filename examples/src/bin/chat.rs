//! The least there is: one question to one model, with tokens, cost and time on the trace.

use throughline::llm::ChatRequest;
use throughline::{ChatModel as _, Telemetry, Traced};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let telemetry = Telemetry::builder().service_name("chat").init()?;
    let model = Traced::new(throughline_examples::model().await?);
    let question = ChatRequest::new("gpt-4o-mini").user("Why is the sky blue?");
    let answer = model.chat(question).await?;
    println!("{}", answer.text());
    telemetry.close().await?;
    Ok(())
}
