//! What governance costs while it has nothing else to do: a thousand SLOs with indicators of their own and eight
//! detectors for each agent, over spans of a day and more, asked every ten seconds while a little goes on coming.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;

use crate::client::{self, Load};
use crate::load::{self, Template};
use crate::reading;
use crate::server::Server;
use crate::table::Table;
use crate::{load_average, megabytes};

/// Share of one core that evaluating may take.
const GOAL_PERCENT: f64 = 10.0;

/// Spans in one request while it is measured: one request a second.
const TRICKLE_BATCH: usize = 100;

/// Name of the thread that packs closed segments: what it does is not governance.
const KEEPER: &str = "store-keeper";

/// Bytes of a closed segment from which on the server packs it.
const PACKED_BYTES: u64 = 1 << 20;

/// How often it is looked at whether all are packed.
const LOOKED_EVERY: Duration = Duration::from_secs(2);

/// Longest wait for that.
const MOST_SETTLING: Duration = Duration::from_secs(3_600);

/// Workflows that the sent spans name.
const WORKFLOWS: usize = 50;

/// Threads that are told by name, those that take most.
const THREADS: usize = 12;

/// What is measured.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// The binary to measure.
    #[arg(long, default_value = "target/release/throughline")]
    binary: PathBuf,
    /// Spans that are stored before it is measured.
    #[arg(long, default_value_t = 10_000_000)]
    spans: u64,
    /// Hours before now over which they are spread.
    #[arg(long, default_value_t = 26)]
    hours: u64,
    /// SLOs, each with an indicator of its own.
    #[arg(long, default_value_t = 1_000)]
    slos: usize,
    /// Agents, each with eight detectors.
    #[arg(long, default_value_t = 26)]
    agents: u32,
    /// How many times it is measured.
    #[arg(long, default_value_t = 5)]
    times: u32,
    /// How long each time, seconds.
    #[arg(long, default_value_t = 60)]
    each_secs: u64,
    /// How long it runs before the first time, seconds: detectors learn what is usual.
    #[arg(long, default_value_t = 180)]
    warm_up_secs: u64,
    /// Where the scratch data directory goes.
    #[arg(long)]
    scratch: Option<PathBuf>,
}

/// Stores the spans, waits until they are indexed and packed, and measures.
///
/// # Errors
/// When the server does not start, refuses what is sent, or does not come to rest.
pub(crate) async fn measure(options: &Options) -> anyhow::Result<()> {
    let scratch = crate::scratch_in(options.scratch.as_deref())?;
    let mut table = Table::default();
    let rules = rules(options.slos, options.agents);
    let server = Server::start_with(&options.binary, scratch.path(), &rules).await?;
    let back = Duration::from_secs(options.hours * 3_600);
    let templates: Arc<[Template]> = load::templates(512, 64, options.agents).into();
    let batches = options.spans.div_ceil(512);
    let began = Instant::now();
    let load = Load { templates, batches, pace: None, back };
    client::send(&server.grpc_url(), load, 16).await?;
    let rate = options.spans as f64 / began.elapsed().as_secs_f64();
    table.row("stored before", format!("{} spans, {rate:.0} a second", batches * 512), "");
    let settling = Instant::now();
    let http = client::http()?;
    reading::until_indexed(&http, &server).await?;
    until_packed(&http, &server).await?;
    table.row("quiet after", format!("{:.0} s", settling.elapsed().as_secs_f64()), "");

    let trickle = tokio::spawn(trickle(server.grpc_url(), options.agents, options.all_secs()));
    tokio::time::sleep(Duration::from_secs(options.warm_up_secs)).await;
    while_asked(options, &server, &mut table).await?;
    table.row("memory (RSS)", megabytes(server.rss_bytes()?), "");
    table.row("disk", megabytes(server.disk_bytes()?), "");
    told(&server, &mut table).await?;
    trickle.abort();
    server.stop().await?;
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    table.print(&format!(
        "{} SLOs, {} agents with eight detectors each, spans of {} hours, {TRICKLE_BATCH} spans a second go on coming; \
         rules are asked every 10 s; {cores} cores, load {} at the end",
        options.slos,
        options.agents,
        options.hours,
        load_average(),
    ));
    Ok(())
}

impl Options {
    /// Longer than all that is measured.
    fn all_secs(&self) -> u64 {
        self.warm_up_secs + u64::from(self.times) * self.each_secs + 60
    }
}

/// Half of the SLOs are ratios of one workflow of one agent, half are thresholds of an agent's steps. One of twenty
/// promises more than is kept, so that something fires.
fn rules(count: usize, agents: u32) -> String {
    let mut text = String::new();
    for at in 0..count {
        let (agent, place) = (at % agents as usize, at / agents as usize);
        let target = if at % 20 == 7 { 0.999 } else { 0.95 };
        let source = |spans: &str| {
            format!("{{metricSource: {{type: throughline, spec: {{spans: '{spans}'}}}}}}")
        };
        let (indicator, objective) = if at % 2 == 0 {
            let of = format!(
                r#"span.agent == "agent-{agent}" && span.attributes["workflow_id"] == "workflow-{}""#,
                place % WORKFLOWS
            );
            let good = source(&format!(r#"{of} && span.status != "ERROR""#));
            let metric = format!("ratioMetric: {{good: {good}, total: {}}}", source(&of));
            (metric, format!("{{target: {target}}}"))
        } else {
            let of = format!(r#"span.agent == "agent-{agent}" && span.role == "tool""#);
            let spec = format!("{{spans: '{of}', value: span.duration_ms}}");
            let metric =
                format!("thresholdMetric: {{metricSource: {{type: throughline, spec: {spec}}}}}");
            (metric, format!("{{op: lte, value: {}, target: {target}}}", 100 + place))
        };
        let _ = write!(
            text,
            "---\napiVersion: openslo/v1\nkind: SLO\nmetadata: {{name: slo-{at}}}\nspec:\n  service: bench\n  \
             indicator: {{spec: {{{indicator}}}}}\n  timeWindow: [{{duration: 30d, isRolling: true}}]\n  \
             budgetingMethod: Occurrences\n  objectives: [{objective}]\n"
        );
    }
    text
}

/// One request a second, for so long.
async fn trickle(url: String, agents: u32, secs: u64) -> anyhow::Result<()> {
    let templates: Arc<[Template]> = load::templates(TRICKLE_BATCH, 64, agents).into();
    let pace = Some(Duration::from_secs(1));
    let load = Load { templates, batches: secs, pace, back: Duration::ZERO };
    client::send(&url, load, 1).await.map(|_| ())
}

/// Waits until closed segments are packed.
async fn until_packed(http: &reqwest::Client, server: &Server) -> anyhow::Result<()> {
    let (began, url) = (Instant::now(), server.web_url("/api/v1/segments?limit=500"));
    loop {
        let segments = client::get_json(http, &url).await?;
        let segments = segments["items"].as_array().context("expected a list of segments")?;
        let waits = |of: &&serde_json::Value| {
            of["state"] != "open"
                && of["is_packed"] == false
                && of["bytes"].as_u64() >= Some(PACKED_BYTES)
        };
        let left = segments.iter().filter(waits).count();
        if left == 0 {
            return Ok(());
        }
        anyhow::ensure!(
            began.elapsed() < MOST_SETTLING,
            "expected closed segments to be packed within {MOST_SETTLING:?}, {left} are not"
        );
        tokio::time::sleep(LOOKED_EVERY).await;
    }
}

/// CPU of the process and of its threads, several times.
async fn while_asked(options: &Options, server: &Server, table: &mut Table) -> anyhow::Result<()> {
    let each = Duration::from_secs(options.each_secs);
    let (mut shares, threads_before) = (Vec::new(), server.thread_cpu_seconds()?);
    for _ in 0..options.times {
        let (before, began) = (server.cpu_seconds()?, Instant::now());
        tokio::time::sleep(each).await;
        let taken = server.cpu_seconds()? - before;
        shares.push(100.0 * taken / began.elapsed().as_secs_f64());
    }
    let threads = server.thread_cpu_seconds()?;
    let all = shares.iter().map(|share| format!("{share:.1}")).collect::<Vec<_>>().join(", ");
    let goal = format!("{GOAL_PERCENT:.0} %");
    let mean = shares.iter().sum::<f64>() / shares.len().max(1) as f64;
    let seconds = (u64::from(options.times) * options.each_secs) as f64;
    let since = |name: &str| {
        let of = |at: &BTreeMap<String, f64>| at.get(name).copied().unwrap_or(0.0);
        100.0 * (of(&threads) - of(&threads_before)) / seconds
    };
    // What goes on coming may close a segment.
    let without = format!("{:.1} %", mean - since(KEEPER));
    table.row("one core, all but the packing of closed segments", without, &goal);
    table.row("one core, all of the server", format!("{mean:.1} %"), "");
    table.row(&format!("{} times {} s", options.times, options.each_secs), format!("{all} %"), "");
    let mut taken: Vec<(f64, &String)> = threads
        .iter()
        .map(|(name, now)| (now - threads_before.get(name).copied().unwrap_or(0.0), name))
        .collect();
    taken.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (cpu, name) in taken.into_iter().take(THREADS).filter(|(cpu, _)| *cpu > 0.0) {
        table.row(&format!("  thread {name}"), format!("{:.2} %", 100.0 * cpu / seconds), "");
    }
    Ok(())
}

/// How much of what is there had something to say.
async fn told(server: &Server, table: &mut Table) -> anyhow::Result<()> {
    let url = server.web_url("/metrics");
    let text = client::http()?.get(url).send().await?.error_for_status()?.text().await?;
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        *counts.entry(line.split(['{', ' ']).next().unwrap_or_default()).or_default() += 1;
    }
    let count = |name: &str| counts.get(name).copied().unwrap_or(0);
    let slos = count("throughline_slo_error_budget_consumption_rate");
    table.row("SLOs with a budget that is known", slos.to_string(), "");
    let (all, told) = (count("throughline_drift_alarm"), count("throughline_drift_effect"));
    table.row("detectors, of them with enough to tell", format!("{all}, {told}"), "200");
    let stats = client::get_json(&client::http()?, &server.web_url("/api/v1/stats")).await?;
    let spans = stats["spans"].as_u64().context("expected a number of spans")?;
    table.row("spans stored", spans.to_string(), "");
    Ok(())
}
