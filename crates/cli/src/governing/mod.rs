//! Governance, wired: rules from files are asked at a steady pace about what is stored; what they say
//! is committed, and the actor does what they ask for.
//!
//! One round: counters and sums are read from the store, every rule is evaluated at one moment, state,
//! findings and actions are committed together. A round that fails is tried again; nothing is asked
//! for twice, whatever is restarted, because an action's id is made of its rule, subject and window.

mod contracts;
mod decisions;
mod drift;
mod drift_ends;
mod drift_hours;
mod embedding;
mod embedding_queue;
mod evaluating;
mod evidence;
pub(crate) mod experiments;
mod files;
mod investigate;
mod minute_traces;
pub(crate) mod policies;
pub(crate) mod replay;
mod replay_rollouts;
pub(crate) mod report;
mod rollouts;
mod signal_metrics;
pub(crate) mod signals;
mod slo_metrics;
pub(crate) mod slos;
mod states;
mod versions;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use prometheus_client::registry::Registry;
use throughline_act::{Actor, Embeddings, Hooks, Performed};
use throughline_govern::Rules;
use throughline_govern::slo::{Judge, Slo};
use throughline_store::{ControlError, Evaluation, Governance, Observer, QueryError, Reader};
use throughline_trace::access::Keyring;
use throughline_trace::{Observe as _, RouteWeights};
use throughline_web::governance::{Standing, View};
use throughline_web::{Submit, WebState};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::acting;
use crate::commands::of_control;
use crate::failure::{Exit, Failure, Outcome};
use crate::listen::Doors;
use crate::settings::ServeSettings;
use contracts::Contracts;
use drift::Drift;
use embedding::Embedder;
use evidence::Examples;
use experiments::Experiments;
pub(crate) use files::{RuleFiles, RuleText, observer as rule_observer};
use policies::Policies;
use rollouts::Rollouts;
use signal_metrics::SignalMetrics;
use slo_metrics::SloMetrics;
use slos::Slos;

/// Nanoseconds of a minute, which is what counters are by.
pub(crate) const MINUTE_NANOS: u64 = 60 * SECOND_NANOS;

/// Nanoseconds of a second.
pub(crate) const SECOND_NANOS: u64 = 1_000_000_000;

/// Pause before an investigation that failed is tried again.
const INVESTIGATION_PAUSE: Duration = Duration::from_secs(5);

/// How long after its end a minute is looked at: exporters send in batches. Nanoseconds.
pub(crate) const LAG_NANOS: u64 = 15_000_000_000;

/// What is read: what was sent, and what governance remembers (`None` where nobody has that).
pub(crate) type Stores<'a> = (&'a Reader, Option<&'a Governance>);

/// What a round may fail with: it is told, and tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoundError {
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("the round panicked")]
    Panicked,
    #[error(
        "policies do not end: one in Rego makes an operation that takes for ever; mend or take it out"
    )]
    Stuck,
    #[error("no thread could be started")]
    Thread,
    #[error("an evaluation ended before its time: {0}")]
    Ended(#[from] tokio::task::JoinError),
}

/// Rules that were read, before there is a store to ask.
pub(crate) struct Read {
    files: RuleFiles,
    rules: Rules,
    observer: Observer,
    every: Duration,
}

/// Governance at work: who asks, and who acts.
pub(crate) struct Open {
    acting: acting::Open,
    view: View,
    working: JoinHandle<()>,
    beside: Vec<JoinHandle<()>>,
    closing: CancellationToken,
}

impl Read {
    /// Reads the rules, and has their indicators counted by a store that is opened so.
    pub(crate) fn of(serve: &ServeSettings, observer: &Observer) -> Outcome<Self> {
        let mut files = serve.rules.clone();
        let rules = files.read()?;
        observer.set(Arc::new(files::observer(&rules, Vec::new())));
        Ok(Self { files, rules, observer: observer.clone(), every: serve.rules_interval })
    }

    /// Starts the rounds and the actor.
    pub(crate) fn start(
        self,
        (data_dir, serve, own_url): (&Path, &ServeSettings, &str),
        reader: Reader,
        (submit, keyring, ready): (Submit, Arc<Keyring>, watch::Receiver<bool>),
        registry: &mut Registry,
    ) -> Outcome<Open> {
        let governance = Governance::open(data_dir).map_err(|error| of_control(&error))?;
        self.files.keep(&governance).map_err(|error| of_control(&error))?;
        let rollouts = Rollouts::new(governance.clone(), self.rules.rollouts.clone());
        let contracts = Contracts::new(governance.clone());
        contracts.set_files(&self.rules);
        let acting = acting::Open::start(
            (governance.clone(), serve, own_url),
            hooks(&rollouts, &contracts, &reader, &governance),
            (submit, keyring, ready),
            registry,
        )?;
        rollouts.set_actor(acting.actor());
        let opa = acting::opa(&serve.act, registry)?;
        let (told, standing) = watch::channel(Arc::default());
        let of_files = Arc::new(self.rules);
        let (in_force, rules) = watch::channel(Arc::clone(&of_files));
        let signals = report::asker((reader.clone(), governance.clone()), rules, standing.clone());
        let closing = CancellationToken::new();
        let beside = Beside {
            metrics: SignalMetrics::register(standing.clone(), registry),
            embeddings: acting::embeddings(&serve.act, registry)?,
            stores: (reader.clone(), governance.clone()),
            rules: in_force.subscribe(),
        };
        let beside = beside.start(self.every, &closing);
        let view = View { governance: governance.clone(), standing, signals };
        let mut work = Work {
            governance,
            reader,
            observer: self.observer,
            standing: told,
            in_force,
            rollouts,
            contracts,
            counted: files::observer(&of_files, Vec::new()).indicators(),
            actor: acting.actor(),
            files: self.files,
            slos: Slos::new(SloMetrics::register(registry)),
            drift: Drift::default(),
            experiments: Experiments::default(),
            examples: Examples::default(),
            policies: Policies::new(opa),
            given_up: BTreeSet::new(),
            observed: Arc::clone(&of_files),
            rules: Arc::clone(&of_files),
            of_files,
        };
        // Before the first span comes: contracts that were negotiated are counted as those of files are.
        work.put_together().map_err(|error| Failure::new(Exit::Failure, error.to_string()))?;
        let working = tokio::spawn(work.run(self.every, closing.clone()));
        Ok(Open { acting, view, working, beside, closing })
    }
}

/// What is worked out beside the rounds, which never wait for it.
struct Beside {
    metrics: Arc<SignalMetrics>,
    embeddings: Option<Embeddings>,
    stores: (Reader, Governance),
    rules: watch::Receiver<Arc<Rules>>,
}

impl Beside {
    fn start(self, every: Duration, closing: &CancellationToken) -> Vec<JoinHandle<()>> {
        let Self { metrics, embeddings, stores, rules } = self;
        let mut working =
            vec![tokio::spawn(metrics.run(stores.clone(), rules, every, closing.clone()))];
        if let Some(embeddings) = embeddings {
            let embedder = Embedder::new(embeddings, stores.0, stores.1);
            working.push(tokio::spawn(embedder.run(every, closing.clone())));
        }
        working
    }
}

/// What the actor asks back.
fn hooks(
    rollouts: &Arc<Rollouts>,
    contracts: &Arc<Contracts>,
    reader: &Reader,
    governance: &Governance,
) -> Hooks {
    let (rollouts, contracts) = (Arc::clone(rollouts), Arc::clone(contracts));
    let (reader, governance) = (reader.clone(), governance.clone());
    Hooks {
        rollout: Some(Arc::new(move |action| {
            let rollouts = Arc::clone(&rollouts);
            Box::pin(async move { rollouts.perform(action).await })
        })),
        contract: Some(Arc::new(move |action| Box::pin(Arc::clone(&contracts).perform(action)))),
        investigate: Some(Arc::new(move |action| {
            let (reader, governance) = (reader.clone(), governance.clone());
            Box::pin(async move {
                match investigate::investigate(&reader, &governance, &action).await {
                    Ok(performed) => performed,
                    Err(error) => Performed::Later(error.to_string(), INVESTIGATION_PAUSE),
                }
            })
        })),
    }
}

impl Open {
    /// What pages look at.
    pub(crate) fn view(&self) -> View {
        self.view.clone()
    }

    /// The weights of routes that were set last.
    pub(crate) fn weights(&self) -> watch::Receiver<BTreeMap<String, RouteWeights>> {
        self.acting.actor().weights()
    }

    /// The pages with the routes of who acts behind their doors.
    pub(crate) fn mount(&mut self, pages: WebState, doors: &Doors) -> axum::Router {
        self.acting.mount(pages, doors)
    }

    /// Ends after what is under way; to be called before the store closes.
    pub(crate) async fn finish(self) {
        self.closing.cancel();
        for working in self.beside.into_iter().chain([self.working]) {
            if let Err(error) = working.await {
                tracing::error!(%error, "governance ended before its time");
            }
        }
        self.acting.finish().await;
    }
}

struct Work {
    governance: Governance,
    reader: Reader,
    observer: Observer,
    standing: watch::Sender<Arc<Standing>>,
    /// The rules as they are, for whoever asks for signals.
    in_force: watch::Sender<Arc<Rules>>,
    rollouts: Arc<Rollouts>,
    actor: Actor,
    files: RuleFiles,
    slos: Slos,
    drift: Drift,
    experiments: Experiments,
    examples: Examples,
    policies: Policies,
    /// Contracts in Rego that took too long over calls, of which was told.
    given_up: BTreeSet<String>,
    /// Those of which the store has the indicators.
    observed: Arc<Rules>,
    contracts: Arc<Contracts>,
    /// Ids of the indicators that the store counts.
    counted: Vec<Arc<str>>,
    /// What the files say.
    of_files: Arc<Rules>,
    /// With the contracts that were negotiated.
    rules: Arc<Rules>,
}

impl Work {
    async fn run(mut self, every: Duration, closing: CancellationToken) {
        let mut clock = interval(every);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = closing.cancelled() => return,
                _ = clock.tick() => {}
            }
            // A panic over one round must not end all that follow.
            let round = AssertUnwindSafe(self.round()).catch_unwind().await;
            if let Err(error) = round.unwrap_or(Err(RoundError::Panicked)) {
                tracing::warn!(%error, "rules could not be evaluated; it will be tried again");
                // What was worked out and not committed is worked out again from what was.
                self.slos.forget();
                self.drift.forget();
                self.experiments.forget();
                self.policies.forget();
            }
        }
    }

    /// Puts changed files in place; those that cannot be meant are told, and what was stays.
    async fn follow_files(&mut self) -> Result<(), RoundError> {
        let mut files = self.files.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let changed = files.changed();
            (files, changed)
        });
        let (files, changed) = looked.await?;
        self.files = files;
        match changed {
            None => {}
            Some(Ok(rules)) => {
                tracing::info!(
                    slos = rules.slos.len(),
                    rollouts = rules.rollouts.len(),
                    experiments = rules.experiments.len(),
                    signals = rules.signals.len(),
                    policies = rules.policies.len(),
                    "changed rules are in place"
                );
                self.rollouts.replace(rules.rollouts.clone());
                self.contracts.set_files(&rules);
                self.of_files = Arc::new(rules);
            }
            Some(Err(error)) => tracing::error!(error, "the changed rules are not used"),
        }
        self.put_together()
    }

    /// Puts what files say and what was negotiated in place, if either changed.
    fn put_together(&mut self) -> Result<(), RoundError> {
        if !self.contracts.take_change() {
            return Ok(());
        }
        let found = self.contracts.beside(&self.of_files, self.files.said());
        let found = found.map_err(RoundError::from);
        match found.and_then(|rules| Ok((rules, self.contracts.indicators()?))) {
            Ok((rules, beside)) => {
                let observer = files::observer(&rules, beside);
                let counted = observer.indicators();
                self.rules = Arc::new(rules);
                self.in_force.send_replace(Arc::clone(&self.rules));
                // Whoever counts anew begins with what was being counted.
                if counted != self.counted {
                    self.observer.set(Arc::new(observer));
                    self.counted = counted;
                    self.observed = Arc::clone(&self.rules);
                }
                Ok(())
            }
            Err(error) => {
                self.contracts.try_again();
                Err(error)
            }
        }
    }

    /// Tells once of each contract whose policy is not asked about calls any more.
    fn tell_given_up(&mut self) {
        let is_given_up = |slo: &&Slo| {
            let mut judges = slo.objectives.iter().map(|objective| objective.indicator.judge());
            judges.any(|judge| matches!(judge, Judge::Rego(policy) if policy.is_given_up()))
        };
        let names = self.observed.slos.iter().filter(is_given_up).map(|slo| slo.name.clone());
        let names: BTreeSet<String> = names.collect();
        for contract in names.difference(&self.given_up) {
            tracing::error!(
                contract,
                "the policy takes too long over calls, and judges none before its file changes"
            );
        }
        self.given_up = names;
    }

    async fn round(&mut self) -> Result<(), RoundError> {
        self.follow_files().await?;
        self.tell_given_up();
        let now = now_unix_nano();
        // Of whole minutes, which exporters have had time to send.
        let settled = now.saturating_sub(LAG_NANOS);
        let mut evaluation = Evaluation::default();
        let statuses = self
            .slos
            .evaluate(&self.rules, (&self.reader, &self.governance), settled, &mut evaluation)
            .await?;
        self.contracts.follow_files(&self.of_files, now, &mut evaluation)?;
        // A proposal that cannot be measured must hold nothing else up.
        if let Err(error) = self.contracts.measure(&self.reader, now, &mut evaluation).await {
            tracing::warn!(%error, "proposals could not be measured; it will be tried again");
        }
        let rollouts = self.rollouts.evaluate(&self.reader, now, &mut evaluation).await?;
        self.drift.evaluate((&self.reader, &self.governance), settled, &mut evaluation).await?;
        let stores = (&self.reader, &self.governance);
        // They read many traces; what they cannot read must hold nothing else up.
        let told = self
            .experiments
            .evaluate(&self.rules.experiments, stores, settled, &mut evaluation)
            .await;
        let experiments = told.unwrap_or_else(|error| {
            tracing::warn!(%error, "experiments could not be evaluated; it will be tried again");
            self.experiments.forget();
            Vec::new()
        });
        let (rules, stores) = ((&self.rules, &*statuses), (&self.reader, &self.governance));
        let told = self.policies.evaluate(rules, stores, settled, &mut evaluation).await;
        // They read the most; what they cannot read must hold nothing else up.
        let policies = told.unwrap_or_else(|error| {
            tracing::warn!(%error, "policies could not be evaluated; it will be tried again");
            self.policies.forget();
            self.policies.statuses()
        });
        // Without examples it is told all the same.
        if let Err(error) = self.examples.fill(&self.rules, &self.reader, &mut evaluation).await {
            tracing::warn!(%error, "no example traces could be looked for");
        }
        let governance = self.governance.clone();
        let asked = tokio::task::spawn_blocking(move || governance.commit(&evaluation)).await??;
        if !asked.is_empty() {
            self.actor.wake();
        }
        let standing = Standing {
            at_unix_nano: now,
            slos: statuses,
            rollouts,
            experiments,
            policies,
            detectors: self.drift.standing(),
        };
        self.standing.send_replace(Arc::new(standing));
        Ok(())
    }
}

pub(crate) fn now_unix_nano() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}
