//! `cargo run --release -p throughline-bench`: starts the release binary on a scratch directory,
//! sends it durable OTLP/gRPC load from the same machine, reads back, and prints one table with
//! the conditions. Figures are printed, never asserted: machines are noisy.

mod client;
mod load;
mod server;
mod steady;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::load::Template;
use crate::server::Server;

/// Measures the release binary.
#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    other: Option<Other>,
    /// The binary to measure.
    #[arg(long, default_value = "target/release/throughline")]
    binary: PathBuf,
    /// Spans to send.
    #[arg(long, default_value_t = 2_000_000)]
    spans: u64,
    /// Spans in one export request; 512 is what the OpenTelemetry SDKs send by default.
    #[arg(long, default_value_t = 512)]
    batch: usize,
    /// Export requests under way at once, each on its own connection.
    #[arg(long, default_value_t = 16)]
    senders: usize,
    /// Reads of each kind.
    #[arg(long, default_value_t = 200)]
    reads: usize,
    /// Where the scratch data directory goes (its disk is what is measured).
    #[arg(long)]
    scratch: Option<PathBuf>,
}

/// What else this program does.
#[derive(Debug, Subcommand)]
enum Other {
    /// Posts at a steady rate and tells what the answers took, for `bench/gateway.sh`.
    Steady(steady::Options),
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match &options.other {
        Some(Other::Steady(steady)) => runtime.block_on(steady::post(steady)),
        None => runtime.block_on(measure(options)),
    }
}

async fn measure(options: Options) -> anyhow::Result<()> {
    let scratch = match &options.scratch {
        Some(parent) => tempfile::tempdir_in(parent)?,
        None => tempfile::tempdir()?,
    };
    let mut table = Table::default();
    let size = std::fs::metadata(&options.binary)
        .with_context(|| format!("expected a built binary at {}", options.binary.display()))?
        .len();
    table.row("binary as built", format!("{:.1} MB", size as f64 / 1e6));

    let asked = Instant::now();
    let server = Server::start(&options.binary, scratch.path()).await?;
    table.row("start to ready", format!("{} ms", asked.elapsed().as_millis()));
    tokio::time::sleep(Duration::from_secs(2)).await;
    table.row("idle memory (RSS)", format!("{:.1} MB", server.rss_bytes()? as f64 / 1e6));

    ingest(&options, &server, &mut table).await?;
    reads(&options, &server, &mut table).await?;
    table.row("memory after load (RSS)", format!("{:.1} MB", server.rss_bytes()? as f64 / 1e6));
    let asked = Instant::now();
    server.stop().await?;
    table.row("drain and exit", format!("{} ms", asked.elapsed().as_millis()));
    table.print(&options);
    Ok(())
}

async fn ingest(options: &Options, server: &Server, table: &mut Table) -> anyhow::Result<()> {
    let templates = load::templates(options.batch, 64);
    let bytes: usize = templates.iter().map(Template::len).sum();
    let per_span = bytes as f64 / (templates.len() * options.batch) as f64;
    let batches = options.spans.div_ceil(options.batch as u64);
    let (cpu_before, asked) = (server.cpu_seconds()?, Instant::now());
    let outcome = client::send(&server.grpc_url(), templates, batches, options.senders).await?;
    let (seconds, cpu) = (asked.elapsed().as_secs_f64(), server.cpu_seconds()? - cpu_before);
    let spans = batches * options.batch as u64;
    table.row("OTLP bytes a span", format!("{per_span:.0}"));
    table.row("durable ingest, gRPC", format!("{:.0} spans/s", spans as f64 / seconds));
    table.row("server CPU a span", format!("{:.1} µs", cpu * 1e6 / spans as f64));
    table.row("ack p50 / p99", format!("{:.1} / {:.1} ms", outcome.p50_ms, outcome.p99_ms));
    table.row("retries after back-pressure", outcome.refused.to_string());
    table.row("disk a span", format!("{:.0} B", server.disk_bytes()? as f64 / spans as f64));
    Ok(())
}

async fn reads(options: &Options, server: &Server, table: &mut Table) -> anyhow::Result<()> {
    let http = client::http()?;
    let page = client::get_json(&http, &server.web_url("/api/v1/traces?limit=200")).await?;
    let ids: Vec<String> = page["items"]
        .as_array()
        .context("expected items in the list of traces")?
        .iter()
        .filter_map(|item| item["trace_id"].as_str().map(str::to_owned))
        .collect();
    anyhow::ensure!(!ids.is_empty(), "expected traces in the list, got none");
    let stats = client::get_json(&http, &server.web_url("/api/v1/stats")).await?;
    table.row("traces / spans stored", format!("{} / {}", stats["traces"], stats["spans"]));
    let by_id: Vec<String> =
        ids.iter().map(|id| server.web_url(&format!("/api/v1/traces/{id}"))).collect();
    let kinds = [
        ("trace by id, JSON API", by_id.clone()),
        (
            "trace page, HTML",
            ids.iter().map(|id| server.web_url(&format!("/traces/{id}"))).collect(),
        ),
        ("list page, HTML", vec![server.web_url("/traces")]),
        ("list by agent, HTML", vec![server.web_url("/traces?agent=agent-3")]),
        ("list by rare session, HTML", vec![server.web_url("/traces?session=session-17")]),
        ("list of errors, HTML", vec![server.web_url("/traces?error=true")]),
        ("list by text, HTML", vec![server.web_url("/traces?q=agent-3")]),
        ("bare request (healthz)", vec![server.web_url("/healthz")]),
    ];
    for (what, urls) in kinds {
        let figures = client::time_gets(&http, &urls, options.reads).await?;
        table.row(what, format!("p50 {:.2} ms, p99 {:.2} ms", figures.p50_ms, figures.p99_ms));
    }
    Ok(())
}

/// What was measured, in the order of measuring.
#[derive(Default)]
struct Table {
    rows: Vec<(String, String)>,
}

impl Table {
    fn row(&mut self, what: &str, figure: String) {
        self.rows.push((what.to_owned(), figure));
    }

    #[expect(clippy::print_stdout, reason = "the table is what the program is for")]
    fn print(&self, options: &Options) {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        println!(
            "# {} spans, {} a request, {} senders; client and server share {cores} cores; \
             every request acknowledged only when durable",
            options.spans, options.batch, options.senders,
        );
        for (what, figure) in &self.rows {
            println!("{what:<30} {figure}");
        }
    }
}
