//! The demo at work: the provider, telemetry, and the agents in a loop.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::{OptionFuture, join_all};
use throughline::{OtlpProtocol, Telemetry};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::agents::{Performer, Setting};
use crate::pace::Pace;
use crate::pipeline;
use crate::provider::{self, ProviderOptions};
use crate::seed::Seed;
use crate::steady::{self, Steady, Work};
use crate::stories::inventory::Features;

/// Runs at the start that come quickly, so that the pages have life at once.
const BURST_RUNS: u64 = 12;

/// How much shorter every wait is during the burst.
const BURST_PACE: f64 = 0.2;

/// Time between two runs of the burst, at the pace of the demo.
const BURST_INTERVAL: Duration = Duration::from_millis(330);

/// Time between two runs afterwards, at human pace, least and most.
const INTERVAL_SECS: (f64, f64) = (3.0, 8.0);

/// Services of the agents that the scenario policies are about, and how often each has something to do in a
/// minute: so often that signals have their least counts within a few minutes.
const SCENARIO_SERVICES: [(&str, u32); 3] =
    [("payment-agent", 30), ("customer-service-agent", 14), ("inventory-agent", 12)];

/// How the demo runs.
#[derive(Debug)]
pub struct DemoOptions {
    /// Where telemetry goes, as `OTEL_EXPORTER_OTLP_ENDPOINT` spells it (`http://127.0.0.1:4318`).
    pub otlp_endpoint: String,
    /// The key that the receiver asks for, with scope `ingest`.
    pub api_key: Option<String>,
    /// Where the simulated provider listens; `None` takes a free port of the loopback interface.
    pub provider_listener: Option<TcpListener>,
    /// What decides every story and every fault.
    pub seed: u64,
    /// Factor on every wait: 1 is the pace of people, 0.1 ten times as fast, 0 does not wait.
    pub pace: f64,
    /// Most runs at the same time, at least 1.
    pub concurrency: usize,
    /// Stop after so many runs; `None` goes on until the shutdown.
    pub runs: Option<u64>,
    /// Payments that are screened a minute, beside the runs; 0 for none.
    pub screened_per_minute: u32,
    /// How many times as much as usual the agents of the scenario policies have to do beside the runs: payment, customer
    /// service and inventory; 0 for none of them.
    pub scenarios: u32,
    /// Where the simulated workflow server listens; `None` for no such server.
    pub pipeline_listener: Option<TcpListener>,
    /// Where directives come from (`http://127.0.0.1:4319`); `None` listens to nobody.
    pub directives: Option<String>,
    /// Whether the provider goes on answering after the last run, until the shutdown.
    pub keep_provider: bool,
}

impl DemoOptions {
    /// The demo at human pace, for ever, sending to this endpoint.
    pub fn new(otlp_endpoint: impl Into<String>) -> Self {
        Self {
            otlp_endpoint: otlp_endpoint.into(),
            api_key: None,
            provider_listener: None,
            seed: DEFAULT_SEED,
            pace: 1.0,
            concurrency: DEFAULT_CONCURRENCY,
            runs: None,
            screened_per_minute: 0,
            scenarios: 0,
            pipeline_listener: None,
            directives: None,
            keep_provider: false,
        }
    }
}

/// The seed when nobody says: under it the first dozen runs show retries, a rate limit, a fallback
/// of every agent and a failure (a test holds it to that).
pub const DEFAULT_SEED: u64 = 18_300;

/// Runs at the same time when nobody says.
pub const DEFAULT_CONCURRENCY: usize = 8;

/// What the demo did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DemoReport {
    /// Where the simulated provider listened.
    pub provider_address: SocketAddr,
    /// Runs that were begun.
    pub started: u64,
    /// Runs that reached their end.
    pub succeeded: u64,
    /// Runs that failed, as some are meant to.
    pub failed: u64,
    /// Runs that the shutdown cut short.
    pub cancelled: u64,
}

/// Runs the demo until `shutdown` is done or all runs are, then flushes.
///
/// # Errors
/// When the provider cannot listen, telemetry cannot be set up, or not all of it could be sent.
pub async fn run(
    options: DemoOptions,
    shutdown: impl Future<Output = ()> + Send,
) -> anyhow::Result<DemoReport> {
    let mut options = options;
    let listener = match options.provider_listener.take() {
        Some(listener) => listener,
        None => TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("the simulated provider found no free port on the loopback interface")?,
    };
    let provider_address = listener.local_addr().context("asking for the provider's address")?;
    let (seed, pace) = (Seed::new(options.seed), Pace::new(options.pace));
    let provider = ProviderOptions { pace: pace.clone(), ..ProviderOptions::new(seed) };
    let serving = provider::serve(listener, provider, std::future::pending());
    let setting = Setting { provider: provider_address, seed, pace: pace.clone() };
    let features = Features::default();
    let workflows = options.pipeline_listener.take();
    let workflows = workflows.map(|on| pipeline::serve(on, features.clone(), pace.clone()));
    let mut troupe = Troupe::assemble(&options, &setting, &features)?;
    let plan = Plan {
        human_pace: options.pace,
        concurrency: options.concurrency.max(1),
        runs: options.runs.unwrap_or(u64::MAX),
    };
    let (mut tally, mut tasks) = (Tally::default(), JoinSet::new());
    let mut under_way: Vec<JoinSet<()>> = troupe.steady.iter().map(|_| JoinSet::new()).collect();
    let mut serving = pin!(serving);
    let mut workflows = pin!(OptionFuture::from(workflows));
    let mut shutdown = pin!(shutdown);
    let is_over = tokio::select! {
        served = &mut serving => {
            served.context("the simulated provider stopped")?;
            true
        }
        Some(served) = &mut workflows => {
            served.context("the simulated workflow server stopped")?;
            true
        }
        () = troupe.play(&plan, &setting, &mut tally, &mut tasks) => false,
        () = steady::play(&troupe.steady, seed, &mut under_way) => true,
        () = &mut shutdown => true,
    };
    if !is_over && options.keep_provider {
        tokio::select! {
            served = serving => served.context("the simulated provider stopped")?,
            () = shutdown => {}
        }
    }
    // Whatever is still going ends its spans as cancelled.
    tasks.abort_all();
    while let Some(ended) = tasks.join_next().await {
        tally.add(ended.ok());
    }
    // A payment that is still looked at holds the telemetry that is about to be flushed.
    for tasks in &mut under_way {
        tasks.shutdown().await;
    }
    troupe.steady.clear();
    let closed = troupe.close().await;
    let Tally { started, succeeded, failed, .. } = tally;
    let cancelled = started - succeeded - failed;
    closed.map(|()| DemoReport { provider_address, started, succeeded, failed, cancelled })
}

struct Plan {
    human_pace: f64,
    concurrency: usize,
    runs: u64,
}

#[derive(Debug, Default)]
struct Tally {
    started: u64,
    succeeded: u64,
    failed: u64,
}

impl Tally {
    /// Counts a run that ended; `None` when it was cut short.
    fn add(&mut self, succeeded: Option<bool>) {
        match succeeded {
            Some(true) => self.succeeded += 1,
            Some(false) => self.failed += 1,
            None => {}
        }
    }
}

/// The agents, each with the telemetry of its own service.
struct Troupe {
    agents: Vec<(Performer, Arc<Telemetry>)>,
    steady: Vec<Steady>,
    /// All of it, to be flushed when the others have let go.
    telemetry: Vec<Arc<Telemetry>>,
}

impl Troupe {
    fn assemble(
        options: &DemoOptions,
        setting: &Setting,
        features: &Features,
    ) -> anyhow::Result<Self> {
        let mut troupe = Self { agents: Vec::new(), steady: Vec::new(), telemetry: Vec::new() };
        for agent in Performer::all(setting)? {
            let telemetry = troupe.telemetry_of(agent.service(), options)?;
            troupe.agents.push((agent, telemetry));
        }
        let Some((first, telemetry)) = troupe.agents.first().cloned() else { return Ok(troupe) };
        if options.screened_per_minute > 0 {
            // A part of the fraud agent's service.
            let work = Work::Screening(first.card_screening()?);
            let per_minute = options.screened_per_minute;
            troupe.steady.push(Steady { per_minute, telemetry, work });
        }
        if options.scenarios > 0 {
            let works = [
                Work::Payment(first.payment()),
                Work::Service(first.customer_service()),
                Work::Inventory(first.inventory(features.clone())),
            ];
            for (work, (service, usual)) in works.into_iter().zip(SCENARIO_SERVICES) {
                let per_minute = usual.saturating_mul(options.scenarios);
                let telemetry = troupe.telemetry_of(service, options)?;
                troupe.steady.push(Steady { per_minute, telemetry, work });
            }
        }
        Ok(troupe)
    }

    /// The telemetry of one service.
    fn telemetry_of(
        &mut self,
        service: &str,
        options: &DemoOptions,
    ) -> anyhow::Result<Arc<Telemetry>> {
        let mut telemetry = Telemetry::builder()
            .service_name(service)
            .service_version(env!("CARGO_PKG_VERSION"))
            .resource("deployment.environment.name", "demo")
            // The demo knows its receiver; what a shell says of another one is not for it.
            .environment(false)
            .protocol(OtlpProtocol::HttpProtobuf)
            .endpoint(&options.otlp_endpoint);
        if let Some(server) = &options.directives {
            telemetry = telemetry.directives(server);
        }
        if let Some(key) = &options.api_key {
            telemetry = telemetry.api_key(key);
        }
        let telemetry = Arc::new(telemetry.build().context("setting the demo's telemetry up")?);
        self.telemetry.push(Arc::clone(&telemetry));
        Ok(telemetry)
    }

    /// Starts runs, first in a burst, then in a trickle, until all are done.
    async fn play(
        &self,
        plan: &Plan,
        setting: &Setting,
        tally: &mut Tally,
        tasks: &mut JoinSet<bool>,
    ) {
        let pace = &setting.pace;
        let between = Pace::new(plan.human_pace);
        let mut dice = setting.seed.named("intervals").dice();
        while tally.started < plan.runs {
            let is_burst = tally.started < BURST_RUNS;
            // A run keeps the pace that it began with, as its time limits were made for that.
            let room = if tally.started == BURST_RUNS { 1 } else { plan.concurrency };
            while tasks.len() >= room {
                tally.add(tasks.join_next().await.and_then(Result::ok));
            }
            pace.set(plan.human_pace * if is_burst { BURST_PACE } else { 1.0 });
            let (agent, telemetry) =
                &self.agents[(tally.started % self.agents.len() as u64) as usize];
            let run = tally.started / self.agents.len() as u64;
            let (agent, telemetry) = (agent.clone(), Arc::clone(telemetry));
            tasks.spawn(async move { telemetry.scope(agent.run(run)).await });
            tally.started += 1;
            let interval = if is_burst {
                BURST_INTERVAL
            } else {
                Duration::from_secs_f64(dice.between(INTERVAL_SECS.0, INTERVAL_SECS.1))
            };
            between.wait(interval).await;
            while let Some(ended) = tasks.try_join_next() {
                tally.add(ended.ok());
            }
        }
        while let Some(ended) = tasks.join_next().await {
            tally.add(ended.ok());
        }
    }

    /// Flushes every agent's telemetry, all at once.
    async fn close(self) -> anyhow::Result<()> {
        drop((self.agents, self.steady));
        let telemetries = self.telemetry.into_iter().filter_map(Arc::into_inner);
        let closed = join_all(telemetries.map(Telemetry::close)).await;
        closed
            .into_iter()
            .collect::<Result<(), _>>()
            .context("not all telemetry of the demo could be sent")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stories::{fraud, research, shop, triage};
    use crate::weather::Weather;

    #[test]
    fn the_default_seed_begins_with_a_bit_of_everything() {
        let agents = [fraud::AGENT, shop::AGENT, research::AGENT, triage::AGENT];
        let rounds = BURST_RUNS / agents.len() as u64;
        let met = agents.map(|agent| {
            let runs = 0..rounds;
            runs.map(|run| Weather::of(Seed::new(DEFAULT_SEED), agent, run)).collect::<Vec<_>>()
        });
        assert_eq!(
            met,
            [
                [Weather::Calm, Weather::ServerError, Weather::ModelDown],
                [Weather::StreamCut, Weather::ToolDown, Weather::Calm],
                [Weather::RateLimited, Weather::StreamCut, Weather::ModelDown],
                [Weather::Calm, Weather::ToolDown, Weather::ToolTimesOutOnce],
            ]
        );
        let unpaid = shop::Order::of(Seed::new(DEFAULT_SEED), 1);
        assert!(!unpaid.letter.contains("Moorwalker boots, brown"), "that order is never paid");
    }
}
