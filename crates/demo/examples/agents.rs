//! The agents alone, sending to any OTLP receiver:
//! `cargo run -p throughline-demo --example agents -- http://127.0.0.1:4318 20` plays 20 runs,
//! without a number it goes on until Ctrl-C.

use anyhow::Context as _;
use throughline_demo::{DemoOptions, run};

const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:4318";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let endpoint = arguments.next().unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
    let runs = arguments.next().map(|text| text.parse().context("expected a number of runs"));
    let options = DemoOptions { runs: runs.transpose()?, ..DemoOptions::new(endpoint) };
    let report = run(options, async { drop(tokio::signal::ctrl_c().await) }).await?;
    anyhow::ensure!(report.started > 0, "nothing was played");
    Ok(())
}
