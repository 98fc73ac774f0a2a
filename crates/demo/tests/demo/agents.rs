//! Each agent from end to end under a fixed seed: its trace and its decisions as text.

use throughline::{Recorder, Telemetry};
use throughline_demo::provider::{ProviderOptions, serve};
use throughline_demo::{Pace, Performer, Seed, Setting, Weather};
use tokio::net::TcpListener;

const SEED: Seed = Seed::new(42);

/// Plays the first run of `agent` that meets `weather`, and gives whether it succeeded, its trace
/// and its log.
async fn play(agent: &str, weather: Weather) -> (bool, String, String) {
    let run = weather.first_run(SEED, agent).expect("the deck holds every card");
    play_run(agent, run).await
}

async fn play_run(agent: &str, run: u64) -> (bool, String, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let provider = listener.local_addr().expect("it is bound");
    let pace = Pace::new(0.0);
    let options = ProviderOptions { pace: pace.clone(), ..ProviderOptions::new(SEED) };
    let serving = tokio::spawn(serve(listener, options, std::future::pending()));
    let setting = Setting { provider, seed: SEED, pace };
    let performers = Performer::all(&setting).expect("the client is good");
    let performer = performers.into_iter().find(|performer| performer.agent() == agent);
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).build().expect("it records");
    let succeeded =
        telemetry.scope(performer.expect("the agent is one of the four").run(run)).await;
    telemetry.flush();
    serving.abort();
    let attributes =
        ["fallback.decision", "fallback.branch", "fallback.result", "retry_count", "outcome"];
    let log = recorder.log_text(&["stage", "decision.reason", "decision.confidence"]);
    (succeeded, recorder.tree(&attributes), log)
}

#[tokio::test]
async fn x() {
    for agent in ["fraud_check", "shop_order", "web_researcher", "medical_triage"] {
        for weather in [
            Weather::Calm,
            Weather::ToolDown,
            Weather::ProviderDown,
            Weather::StreamCut,
            Weather::ModelDown,
            Weather::ToolTimesOutOnce,
        ] {
            let (ok, tree, log) = play(agent, weather).await;
            println!("=== {agent} {weather:?} {ok}\n{tree}\n{log}");
        }
    }
}
