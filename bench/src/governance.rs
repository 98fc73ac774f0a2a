//! What evaluating rules costs: a server with many SLOs, whose agents are all watched for drift, over many stored spans. CPU is that
//! of the whole process while nothing is sent, each look at the rules included.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;

use crate::load::Template;
use crate::server::Server;
use crate::{Table, client, load};

/// Detectors of one agent.
const DETECTORS_PER_AGENT: u32 = 8;

/// Options of `governance`.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// The binary to measure.
    #[arg(long, default_value = "target/release/throughline")]
    binary: PathBuf,
    /// Spans to store first.
    #[arg(long, default_value_t = 10_000_000)]
    spans: u64,
    /// SLOs, each with an indicator of its own.
    #[arg(long, default_value_t = 1_000)]
    slos: u32,
    /// Agents, each with eight detectors.
    #[arg(long, default_value_t = 25)]
    agents: u32,
    /// Hours over which the spans are spread.
    #[arg(long, default_value_t = 24)]
    hours: u64,
    /// Seconds for which it is looked what evaluating costs.
    #[arg(long, default_value_t = 300)]
    watch: u64,
    /// Spans in one export request.
    #[arg(long, default_value_t = 512)]
    batch: usize,
    /// Export requests under way at once.
    #[arg(long, default_value_t = 16)]
    senders: usize,
    /// Spans a second that are sent while it is looked; 0 for none.
    #[arg(long, default_value_t = 0)]
    steady: u64,
    /// Where the scratch data directory goes.
    #[arg(long)]
    scratch: Option<PathBuf>,
}

/// Measures.
pub(crate) async fn measure(options: &Options) -> anyhow::Result<()> {
    let scratch = match &options.scratch {
        Some(parent) => tempfile::tempdir_in(parent)?,
        None => tempfile::tempdir()?,
    };
    write_rules(scratch.path(), options)?;
    let mut table = Table::default();
    let server = Server::start(&options.binary, scratch.path()).await?;
    let templates = Arc::new(load::templates(options.batch, 64, options.agents));
    let batches = options.spans.div_ceil(options.batch as u64);
    let spread = Duration::from_secs(options.hours * 3_600);
    let (cpu_before, asked) = (server.cpu_seconds()?, Instant::now());
    client::send(&server.grpc_url(), &templates, batches, options.senders, spread).await?;
    let (seconds, cpu) = (asked.elapsed().as_secs_f64(), server.cpu_seconds()? - cpu_before);
    let spans = batches * options.batch as u64;
    table.row("spans stored", spans.to_string());
    table.row("ingest with these rules", format!("{:.0} spans/s", spans as f64 / seconds));
    table.row("server CPU a span", format!("{:.1} µs", cpu * 1e6 / spans as f64));
    settle(&server).await?;
    table.row("memory (RSS)", format!("{:.0} MB", server.rss_bytes()? as f64 / 1e6));
    for _ in 0..3 {
        let share = watch(&server, options, &templates).await?;
        let told = format!("{:.2} % of a core over {} s", share * 100.0, options.watch / 3);
        table.row("evaluating", told);
    }
    let metrics = client::get_text(&client::http()?, &server.web_url("/metrics")).await?;
    let count = |name: &str| metrics.lines().filter(|line| line.starts_with(name)).count();
    table.row("SLOs on /metrics", count("throughline_slo_events_total{").to_string());
    table.row("detectors on /metrics", count("throughline_drift_alarm{").to_string());
    server.stop().await?;
    table.print(&format!(
        "{} SLOs, {} agents with {} detectors, every 10 s, over {spans} spans of the last {} h; {} spans/s meanwhile",
        options.slos,
        options.agents,
        options.agents * DETECTORS_PER_AGENT,
        options.hours,
        options.steady
    ));
    Ok(())
}

/// SLOs about every agent in turn, each with another limit, so that none shares its indicator.
fn write_rules(dir: &Path, options: &Options) -> anyhow::Result<()> {
    let rules = dir.join("rules");
    fs::create_dir(&rules)?;
    let mut text = String::new();
    for number in 0..options.slos {
        let (agent, limit) = (number % options.agents, 1 + number / options.agents);
        let of = format!("span.agent == \"agent-{agent}\"");
        let ratio = format!(
            "{{counter: true, good: {{metricSource: {{type: throughline, spec: {{spans: '{of} && span.duration_ms < {limit}.0'}}}}}}, \
             total: {{metricSource: {{type: throughline, spec: {{spans: '{of}'}}}}}}}}"
        );
        write!(
            text,
            "---\napiVersion: openslo/v1\nkind: SLO\nmetadata: {{name: slo-{number}}}\nspec:\n  service: bench\n  \
             indicator:\n    metadata: {{name: slo-{number}}}\n    spec:\n      ratioMetric: {ratio}\n  \
             timeWindow: [{{duration: 7d, isRolling: true}}]\n  budgetingMethod: Occurrences\n  \
             objectives: [{{displayName: in time, target: 0.9}}]\n"
        )?;
    }
    fs::write(rules.join("slo.yaml"), text)?;
    fs::write(dir.join("throughline.yaml"), "governance: {rules: [rules], interval_secs: 10}\n")?;
    Ok(())
}

/// Waits until what was sent is counted, indexed and packed: until the process is quiet, but for an hour at most.
async fn settle(server: &Server) -> anyhow::Result<()> {
    let (began, mut quiet) = (Instant::now(), 0);
    while quiet < 3 && began.elapsed() < Duration::from_secs(3_600) {
        let before = server.cpu_seconds()?;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let share = (server.cpu_seconds()? - before) / 10.0;
        quiet = if share < 0.3 { quiet + 1 } else { 0 };
    }
    Ok(())
}

/// The share of a core that the process takes.
async fn watch(
    server: &Server,
    options: &Options,
    templates: &Arc<Vec<Template>>,
) -> anyhow::Result<f64> {
    let length = Duration::from_secs((options.watch / 3).max(1));
    let (before, began) = (server.cpu_seconds()?, Instant::now());
    while began.elapsed() < length {
        if let Some(pause) = (options.batch as u64 * 1_000).checked_div(options.steady) {
            client::send(&server.grpc_url(), templates, 1, 1, Duration::from_secs(1)).await?;
            tokio::time::sleep(Duration::from_millis(pause)).await;
        } else {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    Ok((server.cpu_seconds()? - before) / began.elapsed().as_secs_f64())
}
