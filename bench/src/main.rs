//! `cargo run --release -p throughline-bench`: starts the release binary on a scratch directory,
//! sends it durable OTLP/gRPC load from the same machine, reads back, and prints one table with
//! the conditions. Figures are printed, never asserted: machines are noisy.

mod client;
mod governance;
mod load;
mod reading;
mod server;
mod soak;
mod steady;
mod table;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Parser, Subcommand};

use crate::client::{Figures, Load};
use crate::load::Template;
use crate::reading::Readers;
use crate::server::Server;
use crate::table::Table;

/// Different requests that are sent.
const TEMPLATES: usize = 32;

/// Agents that they are of.
const AGENTS: u32 = 8;

/// Spans a second that the server has to take.
const INGEST_GOAL: f64 = 40_000.0;

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
    /// Readers that ask while as much as a tenth of the spans is sent once more.
    #[arg(long, default_value_t = 10)]
    readers: usize,
    /// Where the scratch data directory goes (its disk is what is measured).
    #[arg(long)]
    scratch: Option<PathBuf>,
}

/// What else this program does.
#[derive(Debug, Subcommand)]
enum Other {
    /// Posts at a steady rate and tells what the answers took, for `bench/gateway.sh`.
    Steady(steady::Options),
    /// Stores spans of a day and more, and measures what governance costs while it has nothing else to do.
    Governance(governance::Options),
    /// Sends at a steady rate for an hour, and tells each minute what the server takes.
    Soak(soak::Options),
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match &options.other {
        Some(Other::Steady(steady)) => runtime.block_on(steady::post(steady)),
        Some(Other::Governance(governance)) => runtime.block_on(governance::measure(governance)),
        Some(Other::Soak(soak)) => runtime.block_on(soak::measure(soak)),
        None => runtime.block_on(measure(options)),
    }
}

async fn measure(options: Options) -> anyhow::Result<()> {
    let scratch = scratch_in(options.scratch.as_deref())?;
    let mut table = Table::default();
    let size = std::fs::metadata(&options.binary)
        .with_context(|| format!("expected a built binary at {}", options.binary.display()))?
        .len();
    table.row("binary as built", format!("{:.1} MB", size as f64 / 1e6), "");
    let synced = sync_p99_ms(scratch.path())?;
    table.row("4 KiB written and synced, p99", format!("{synced:.1} ms"), "");

    let asked = Instant::now();
    let server = Server::start(&options.binary, scratch.path()).await?;
    table.row("start to ready", format!("{} ms", asked.elapsed().as_millis()), "");
    tokio::time::sleep(Duration::from_secs(2)).await;
    table.row("idle memory (RSS)", megabytes(server.rss_bytes()?), "50 MB");

    let templates: Arc<[Template]> = load::templates(options.batch, TEMPLATES, AGENTS).into();
    let rate = ingest(&options, &templates, &server, &mut table).await?;
    half_load(&options, (&templates, rate, synced), &server, &mut table).await?;
    reading::measure(options.reads, &server, &mut table).await?;
    while_reading(&options, (&templates, rate), &server, &mut table).await?;
    table.row("memory after all this (RSS)", megabytes(server.rss_bytes()?), "400 MB");
    table.row("the most that it was", megabytes(server.peak_rss_bytes()?), "400 MB");
    let asked = Instant::now();
    server.stop().await?;
    table.row("drain and exit", format!("{} ms", asked.elapsed().as_millis()), "");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    table.print(&format!(
        "{} spans, {} a request, {} senders; client and server share {cores} cores, load {} at the end; \
         every request acknowledged only when durable",
        options.spans,
        options.batch,
        options.senders,
        load_average(),
    ));
    Ok(())
}

/// A scratch directory, in the one that is named: which is made when it is not there.
fn scratch_in(parent: Option<&Path>) -> anyhow::Result<tempfile::TempDir> {
    let Some(parent) = parent else { return Ok(tempfile::tempdir()?) };
    std::fs::create_dir_all(parent)
        .and_then(|()| tempfile::tempdir_in(parent))
        .with_context(|| format!("expected a place for scratch data at {}", parent.display()))
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn load_average() -> String {
    let all = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    all.split(' ').next().unwrap_or("?").to_owned()
}

/// What the disk alone takes to make a page durable: no acknowledgement is faster.
fn sync_p99_ms(directory: &Path) -> anyhow::Result<f64> {
    let mut file = tempfile::tempfile_in(directory)?;
    let mut taken = Vec::new();
    for _ in 0..200 {
        let asked = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        taken.push(asked.elapsed().as_secs_f64() * 1e3);
    }
    Ok(client::figures(taken).p99_ms)
}

/// As fast as the server takes it; spans a second.
async fn ingest(
    options: &Options,
    templates: &Arc<[Template]>,
    server: &Server,
    table: &mut Table,
) -> anyhow::Result<f64> {
    let bytes: usize = templates.iter().map(Template::len).sum();
    let per_span = bytes as f64 / (templates.len() * options.batch) as f64;
    let batches = options.spans.div_ceil(options.batch as u64);
    let (cpu_before, asked) = (server.cpu_seconds()?, Instant::now());
    let load = Load { templates: templates.clone(), batches, pace: None, back: Duration::ZERO };
    let outcome = client::send(&server.grpc_url(), load, options.senders).await?;
    let (seconds, cpu) = (asked.elapsed().as_secs_f64(), server.cpu_seconds()? - cpu_before);
    let spans = batches * options.batch as u64;
    let rate = spans as f64 / seconds;
    table.row("OTLP bytes a span", format!("{per_span:.0}"), "");
    table.row("durable ingest, gRPC", format!("{rate:.0} spans/s"), "40,000");
    table.row("server CPU a span", format!("{:.1} µs", cpu * 1e6 / spans as f64), "20 µs");
    table.row("ack p50 / p99 at full load", both(&outcome.figures), "");
    table.row("retries after back-pressure", outcome.refused.to_string(), "");
    table.row("disk a span", format!("{:.0} B", server.disk_bytes()? as f64 / spans as f64), "");
    Ok(rate)
}

/// Half of what it takes, or half of its goal if it takes more, for as long as a tenth of the spans lasts.
async fn half_load(
    options: &Options,
    (templates, rate, synced_p99_ms): (&Arc<[Template]>, f64, f64),
    server: &Server,
    table: &mut Table,
) -> anyhow::Result<()> {
    let half = rate.min(INGEST_GOAL) / 2.0;
    let load = Load {
        templates: templates.clone(),
        batches: (options.spans / 10).div_ceil(options.batch as u64),
        pace: Some(Duration::from_secs_f64(options.batch as f64 / half)),
        back: Duration::ZERO,
    };
    let outcome = client::send(&server.grpc_url(), load, options.senders).await?;
    let goal = format!("p99 {:.0} ms", (10.0 * synced_p99_ms).max(250.0));
    table.row(&format!("ack p50 / p99 at {half:.0} spans/s"), both(&outcome.figures), &goal);
    Ok(())
}

/// As fast as it takes it while readers ask for all that [`reading`] measures.
async fn while_reading(
    options: &Options,
    (templates, alone): (&Arc<[Template]>, f64),
    server: &Server,
    table: &mut Table,
) -> anyhow::Result<()> {
    let readers = Readers::start(options.readers, server).await?;
    let batches = (options.spans / 10).div_ceil(options.batch as u64);
    let load = Load { templates: templates.clone(), batches, pace: None, back: Duration::ZERO };
    let asked = Instant::now();
    client::send(&server.grpc_url(), load, options.senders).await?;
    let seconds = asked.elapsed().as_secs_f64();
    let rate = (batches * options.batch as u64) as f64 / seconds;
    let answers = readers.stop().await?;
    let figure = format!("{rate:.0} spans/s, {:.0} answers/s", answers as f64 / seconds);
    let what = format!("ingest while {} readers ask", options.readers);
    table.row(&what, figure, &format!("{:.0}, half", alone / 2.0));
    Ok(())
}

fn both(figures: &Figures) -> String {
    format!("{:.1} / {:.1} ms", figures.p50_ms, figures.p99_ms)
}
