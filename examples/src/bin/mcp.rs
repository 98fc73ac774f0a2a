//! The tools of an MCP server: `mcp` starts a small one of its own; `mcp PROGRAM ARGUMENTS…` or
//! `mcp URL` names another. The trace goes along in `_meta`, so the spans of a server that knows
//! OpenTelemetry stand below those of the call.

use throughline::{Agent, McpServer, Telemetry, ToolRegistry, Traced};
use throughline_examples::stock_server::StockServer;

/// Where telemetry goes (OpenTelemetry's environment variables).
const OTLP_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let server = match arguments.as_slice() {
        [only] if only == "serve" => return StockServer.serve_stdio().await,
        [url] if url.starts_with("http") => McpServer::http(url)?,
        [program, arguments @ ..] => {
            let server = McpServer::stdio(program);
            let server = arguments.iter().fold(server, |server, text| server.arg(text));
            // It inherits next to nothing; where its telemetry is to go, it is told.
            match std::env::var_os(OTLP_ENDPOINT) {
                Some(endpoint) => server.env(OTLP_ENDPOINT, endpoint),
                None => server,
            }
        }
        [] => McpServer::stdio(std::env::current_exe()?).arg("serve"),
    };
    let telemetry = Telemetry::builder().service_name("mcp").init()?;
    let server = server.connect().await?;
    let tools = ToolRegistry::new();
    server.sync(&tools).await?;
    let model = Traced::new(throughline_examples::model().await?);
    let agent = Agent::builder("shop", model, "gpt-4o-mini").tools(tools).build()?;
    let run = agent.run("How many of item 12 are left?").await?;
    println!("{}", run.answer);
    if let Some(trace_id) = run.trace_id {
        println!("trace {trace_id}");
    }
    server.disconnect().await;
    telemetry.close().await?;
    Ok(())
}
