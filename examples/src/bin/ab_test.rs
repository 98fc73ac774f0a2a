//! An A/B test of two models: a session stays in its group, the group is on every span below, and a
//! caller's group holds before any draw. The share can be changed while it runs.

use std::sync::Arc;

use throughline::llm::ChatRequest;
use throughline::{ChatModel as _, Dimensions, RouteTo, Telemetry, Traced, ab_test};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let telemetry = Telemetry::builder().service_name("ab-test").init()?;
    let provider = Traced::new(throughline_examples::model().await?);
    let model = Arc::new(
        ab_test("smaller-model")
            .control(provider.clone())
            .treatment_as(RouteTo::new("", provider).model("gpt-4o-mini"), 0.5)
            .build()?,
    );
    for session in ["ann", "ben", "ann"] {
        let question = ChatRequest::new("gpt-4o").user("What do you recommend?");
        let answer = Dimensions::new().session(session).scope(model.chat(question)).await?;
        println!("{session} was answered by {}", answer.model);
    }
    telemetry.close().await?;
    Ok(())
}
