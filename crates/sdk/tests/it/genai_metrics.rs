//! The metrics of the GenAI conventions: names of either generation, never both.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use throughline::llm::{ChatRequest, Chunk};
use throughline::{ChatModel, Recorder, Telemetry, TelemetryBuilder, Traced, workflow};

use crate::provider::{Cue, Provider, Puppet, Step, quick};

/// The names of the metrics that a stream, a failure and a workflow leave, each once.
async fn names(setting: impl FnOnce(TelemetryBuilder) -> TelemetryBuilder) -> String {
    let recorder = Recorder::new();
    let telemetry = setting(Telemetry::builder().recorder(&recorder)).build().expect("telemetry");
    let provider = Provider::start([Step::Answer("hello"), Step::Refuse(401, &[], "no")]).await;
    let model = Traced::new(provider.client.clone()).policy(quick());
    let request = || ChatRequest::new("gpt-4o").user("hi");
    let work = async {
        let stream = model.stream(request()).await?;
        stream.try_collect::<Vec<Chunk>>().await?;
        model.chat(request()).await.map(|_| ())
    };
    let _ = telemetry.scope(workflow("fulfilment").run(work)).await;
    telemetry.flush();
    let mut lines: Vec<String> = recorder
        .metrics()
        .into_iter()
        .filter(|line| line.starts_with("gen_ai."))
        .map(|line| line.split('{').next().unwrap_or_default().to_owned())
        .collect();
    lines.dedup();
    lines.join("\n")
}

#[tokio::test]
async fn genai_metrics_have_the_established_names() {
    insta::assert_snapshot!(names(|t| t.latest_gen_ai_names(false)).await, @"
    gen_ai.client.operation.duration
    gen_ai.client.operation.time_per_output_chunk
    gen_ai.client.operation.time_to_first_chunk
    gen_ai.client.token.usage
    gen_ai.invoke_workflow.duration
    ");
}

#[tokio::test]
async fn genai_metrics_have_the_latest_names_where_asked_for() {
    insta::assert_snapshot!(names(|t| t.latest_gen_ai_names(true)).await, @"
    gen_ai.client.inference.duration
    gen_ai.client.inference.operation.input_tokens
    gen_ai.client.inference.operation.output_tokens
    gen_ai.client.inference.time_per_output_chunk
    gen_ai.client.inference.time_to_first_chunk
    gen_ai.client.inference.usage.cache_read.input_tokens
    gen_ai.client.inference.usage.input_tokens
    gen_ai.client.inference.usage.output_tokens
    gen_ai.client.inference.usage.reasoning.output_tokens
    gen_ai.invoke_workflow.duration
    ");
}

#[tokio::test(start_paused = true)]
async fn the_time_between_chunks_is_measured() {
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).build().expect("telemetry");
    let pause = Cue::Wait(Duration::from_secs(2));
    let cues = vec![Cue::Say("a"), pause.clone(), Cue::Say("b"), pause, Cue::Say("c"), Cue::Last];
    let model = Traced::new(Puppet::new([cues])).policy(quick());
    let request = ChatRequest::new("puppet").user("hi");
    let read = async { model.stream(request).await?.try_collect::<Vec<Chunk>>().await };
    telemetry.scope(read).await.expect("all chunks");
    telemetry.flush();
    let metrics = recorder.metrics();
    let line =
        metrics.iter().find(|line| line.contains("time_per_output_chunk")).expect("the metric");
    insta::assert_snapshot!(line, @"gen_ai.client.operation.time_per_output_chunk{gen_ai.operation.name=chat, gen_ai.provider.name=puppet, gen_ai.request.model=puppet, gen_ai.response.model=gpt-4o-2024-08-06} 3");
}
