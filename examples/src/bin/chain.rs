//! Agents in several processes on one trace: A –HTTP→ B –gRPC→ C –HTTP→ D. Start them from the end,
//! each with the address that the next one prints:
//!
//! ```text
//! chain d
//! chain c http://127.0.0.1:PORT_OF_D
//! chain b http://127.0.0.1:PORT_OF_C
//! chain a http://127.0.0.1:PORT_OF_B
//! ```
//!
//! A is a process of its own that goes on with the trace of its environment (`TRACEPARENT`).

use std::io::Write as _;

use anyhow::Context as _;
use throughline::{
    Agent, RemoteAgent, Telemetry, ToolRegistry, Traced, in_context, propagation, serve_agent,
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().context("expected a, b, c or d, got nothing")?;
    let mut next = || arguments.next().context("expected the address of the next one, got none");
    let telemetry = Telemetry::builder().service_name(name.as_str()).init()?;
    match name.as_str() {
        "a" => ask(RemoteAgent::http(&next()?, "b")?).await?,
        "b" => serve(&name, Some(RemoteAgent::grpc(&next()?, "c")?)).await?,
        "c" => serve(&name, Some(RemoteAgent::http(&next()?, "d")?)).await?,
        "d" => serve(&name, None).await?,
        other => anyhow::bail!("expected a, b, c or d, got {other}"),
    }
    telemetry.close().await?;
    Ok(())
}

/// The caller: its environment may say which trace it belongs to.
async fn ask(b: RemoteAgent) -> anyhow::Result<()> {
    let caller = propagation::extract_env(std::env::vars());
    let run = in_context(caller, b.run("How many of item 12 are left?")).await?;
    println!("{}", run.answer);
    Ok(())
}

/// An agent that asks the next one, until the process is told to end.
async fn serve(name: &str, next: Option<RemoteAgent>) -> anyhow::Result<()> {
    let mut tools = ToolRegistry::new();
    if let Some(next) = next {
        tools = tools.with(next.as_tool("next_v1", "Knows what this agent does not")?)?;
    }
    let model = Traced::new(throughline_examples::model().await?);
    let agent = Agent::builder(name, model, "gpt-4o-mini").tools(tools).build()?;
    let server = serve_agent(agent).start().await?;
    let mut out = std::io::stdout();
    writeln!(out, "listening on http://{}", server.address())?;
    out.flush()?;
    let mut told = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = told.recv() => {}
        asked = tokio::signal::ctrl_c() => asked?,
    }
    server.shutdown().await;
    Ok(())
}
