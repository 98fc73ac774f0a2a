//! The demo at work: the provider, telemetry, and the agents in a loop.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::join_all;
use throughline::{OtlpProtocol, Telemetry};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::agents::{Performer, Setting};
use crate::pace::Pace;
use crate::provider::{self, ProviderOptions};
use crate::seed::Seed;
use crate::stories::screening::Payment;

/// Runs at the start that come quickly, so that the pages have life at once.
const BURST_RUNS: u64 = 12;

/// How much shorter every wait is during the burst.
const BURST_PACE: f64 = 0.2;

/// Time between two runs of the burst, at the pace of the demo.
const BURST_INTERVAL: Duration = Duration::from_millis(330);

/// Time between two runs afterwards, at human pace, least and most.
const INTERVAL_SECS: (f64, f64) = (3.0, 8.0);

/// Payments that are screened at the same time; when the models are slower than that, some wait.
const MAX_SCREENED_AT_ONCE: usize = 64;

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
    let troupe = Troupe::assemble(&options, &setting)?;
    let plan = Plan {
        human_pace: options.pace,
        concurrency: options.concurrency.max(1),
        runs: options.runs.unwrap_or(u64::MAX),
    };
    let (mut tally, mut tasks, mut screened) = (Tally::default(), JoinSet::new(), JoinSet::new());
    let mut serving = pin!(serving);
    let mut shutdown = pin!(shutdown);
    let is_over = tokio::select! {
        served = &mut serving => {
            served.context("the simulated provider stopped")?;
            true
        }
        () = troupe.play(&plan, &setting, &mut tally, &mut tasks) => false,
        ended = troupe.screen(options.screened_per_minute, &setting, &mut screened) => {
            ended.context("setting the screening of payments up")?;
            true
        }
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
    screened.shutdown().await;
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
}

impl Troupe {
    fn assemble(options: &DemoOptions, setting: &Setting) -> anyhow::Result<Self> {
        let mut agents = Vec::new();
        for agent in Performer::all(setting)? {
            let mut telemetry = Telemetry::builder()
                .service_name(agent.service())
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
            let telemetry = telemetry.build().context("setting the demo's telemetry up")?;
            agents.push((agent, Arc::new(telemetry)));
        }
        Ok(Self { agents })
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

    /// Screens payments at a steady rate, for ever, as a part of the fraud agent's service.
    async fn screen(
        &self,
        per_minute: u32,
        setting: &Setting,
        tasks: &mut JoinSet<()>,
    ) -> anyhow::Result<()> {
        let Some((fraud, telemetry)) = self.agents.first().filter(|_| per_minute > 0) else {
            std::future::pending::<()>().await;
            return Ok(());
        };
        let screening = fraud.card_screening()?;
        let mut clock = tokio::time::interval(Duration::from_secs(60) / per_minute);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for run in 0.. {
            clock.tick().await;
            while tasks.try_join_next().is_some() {}
            if tasks.len() >= MAX_SCREENED_AT_ONCE {
                continue;
            }
            let payment = Payment::of(setting.seed, run);
            let (screening, telemetry) = (screening.clone(), Arc::clone(telemetry));
            tasks.spawn(async move {
                if let Err(error) = telemetry.scope(screening.screen(payment)).await {
                    tracing::debug!(%error, "a payment was not screened");
                }
            });
        }
        Ok(())
    }

    /// Flushes every agent's telemetry, all at once.
    async fn close(self) -> anyhow::Result<()> {
        let telemetries = self.agents.into_iter().filter_map(|(_, shared)| Arc::into_inner(shared));
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
