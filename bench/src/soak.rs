//! Hours at a steady rate: what the process takes of memory, processor and disk, a line for each minute, while
//! segments are closed, packed and retired beside it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;

use crate::client::{self, Load, Outcome};
use crate::load::{self, Template};
use crate::server::Server;
use crate::{AGENTS, TEMPLATES, load_average, megabytes, scratch_in};

/// From one line to the next.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// Memory that the server may take, bytes.
const MEMORY_GOAL: u64 = 400_000_000;

/// How long is measured, and how much comes.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// The binary to measure.
    #[arg(long, default_value = "target/release/throughline")]
    binary: PathBuf,
    /// Minutes.
    #[arg(long, default_value_t = 60)]
    minutes: u32,
    /// Spans a second.
    #[arg(long, default_value_t = 10_000.0)]
    rate: f64,
    /// Spans in one export request.
    #[arg(long, default_value_t = 512)]
    batch: usize,
    /// Export requests under way at once, each on its own connection.
    #[arg(long, default_value_t = 16)]
    senders: usize,
    /// Size from which on the next segment is begun, as in the configuration.
    #[arg(long, default_value = "1GiB")]
    max_segment_bytes: String,
    /// Size of all segments from which on the oldest are retired, as in the configuration.
    #[arg(long, default_value = "5GiB")]
    retention_max_bytes: String,
    /// Where the scratch data directory goes (its disk is what is measured).
    #[arg(long)]
    scratch: Option<PathBuf>,
}

/// Sends, and prints a line each minute.
#[expect(clippy::print_stdout, reason = "the lines are what the program is for")]
pub(crate) async fn measure(options: &Options) -> anyhow::Result<()> {
    anyhow::ensure!(options.rate > 0.0, "expected a rate above 0 spans/s, got {}", options.rate);
    let scratch = scratch_in(options.scratch.as_deref())?;
    let configuration = format!(
        "store: {{max_segment_bytes: {}}}\nretention: {{max_bytes: {}}}\n",
        options.max_segment_bytes, options.retention_max_bytes,
    );
    let server = Server::start_configured(&options.binary, scratch.path(), &configuration).await?;
    let templates: Arc<[Template]> = load::templates(options.batch, TEMPLATES, AGENTS).into();
    let mut sum = Sum::default();
    println!(
        "minute   spans/s  refused  ack p50 / p99 ms   CPU/span  memory (own)          disk  load"
    );
    for minute in 1..=options.minutes {
        let before = server.cpu_seconds()?;
        let began = Instant::now();
        let load = Load {
            templates: templates.clone(),
            batches: (options.rate * LINE_EVERY.as_secs_f64() / options.batch as f64) as u64,
            pace: Some(Duration::from_secs_f64(options.batch as f64 / options.rate)),
            back: Duration::ZERO,
        };
        let spans = load.batches * options.batch as u64;
        let outcome = client::send(&server.grpc_url(), load, options.senders).await?;
        let seconds = began.elapsed().as_secs_f64();
        let taken = (server.cpu_seconds()? - before) * 1e6 / spans as f64;
        let (rss, own) = (server.rss_bytes()?, server.own_bytes()?);
        sum.add(rss, spans, &outcome);
        println!(
            "{minute:>6}  {:>8.0}  {:>7}  {:>7.1} / {:>7.1}  {taken:>6.1} µs  {:>9} ({:>9})  {:>5.1} GB  {}",
            spans as f64 / seconds,
            outcome.refused,
            outcome.figures.p50_ms,
            outcome.figures.p99_ms,
            megabytes(rss),
            megabytes(own),
            server.disk_bytes()? as f64 / 1e9,
            load_average(),
        );
    }
    sum.print(&server)?;
    server.stop().await
}

/// What all minutes say together.
#[derive(Debug, Default)]
struct Sum {
    /// Memory at the end of each minute, bytes.
    rss: Vec<u64>,
    spans: u64,
    refused: u64,
}

impl Sum {
    fn add(&mut self, rss: u64, spans: u64, outcome: &Outcome) {
        self.rss.push(rss);
        self.spans += spans;
        self.refused += outcome.refused;
    }

    /// The least, median and most memory of each third: flat is when the last is like the second.
    #[expect(clippy::print_stdout, reason = "the lines are what the program is for")]
    fn print(&self, server: &Server) -> anyhow::Result<()> {
        println!("{} spans, {} requests refused and sent again", self.spans, self.refused);
        for (name, third) in ["first", "second", "last"].iter().zip(thirds(&self.rss)) {
            println!(
                "memory in the {name} third: {} to {}, median {}",
                megabytes(third[0]),
                megabytes(third[third.len() - 1]),
                megabytes(third[third.len() / 2]),
            );
        }
        let peak = server.peak_rss_bytes()?;
        println!("the most that it was: {} (goal {})", megabytes(peak), megabytes(MEMORY_GOAL));
        Ok(())
    }
}

/// The three thirds of a series that have something in them, each sorted.
fn thirds(series: &[u64]) -> Vec<Vec<u64>> {
    let length = series.len().div_ceil(3).max(1);
    series
        .chunks(length)
        .map(|third| {
            let mut third = third.to_vec();
            third.sort_unstable();
            third
        })
        .collect()
}
