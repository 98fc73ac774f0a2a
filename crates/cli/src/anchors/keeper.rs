//! Keeps the audit log beside a running server: checkpoints, anchors, verification, retention.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use throughline_store::{
    AnchorState, AuditError, AuditLog, Checkpoint, MAX_PENDING_CHECKPOINTS, ReadLog, Verification,
    VerifyOptions,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::failure::Outcome;
use crate::settings::{AnchorSettings, AuditSettings};

/// How often it is looked whether something is due.
const TICK: Duration = Duration::from_secs(1);

/// Longest wait before an anchor that failed is tried again.
const MAX_RETRY: Duration = Duration::from_secs(300);

/// How often retention looks for what is old enough.
const RETENTION_EVERY: Duration = Duration::from_secs(3_600);

/// What each anchor gets for the last checkpoint when the server ends.
const FAREWELL: Duration = Duration::from_secs(5);

type Label = [(&'static str, String); 1];

/// What is told of it on `/metrics`.
#[derive(Debug, Clone, Default)]
struct Metrics {
    head: Gauge,
    checkpoints: Counter,
    problems: Gauge,
    retired: Counter,
    anchor_number: Family<Label, Gauge>,
    anchor_failing: Family<Label, Gauge>,
    anchor_failures: Family<Label, Counter>,
}

impl Metrics {
    fn register(registry: &mut Registry) -> Self {
        let made = Self::default();
        let registry = registry.sub_registry_with_prefix("throughline_audit");
        registry.register("head", "Number of the newest record of the chain", made.head.clone());
        registry.register(
            "checkpoints",
            "Signed checkpoints that were made",
            made.checkpoints.clone(),
        );
        registry.register(
            "problems",
            "What the last verification found changed, missing, reordered or truncated",
            made.problems.clone(),
        );
        registry.register("retired", "Records that retention removed", made.retired.clone());
        registry.register(
            "anchor_number",
            "Number of the newest checkpoint that an anchor has",
            made.anchor_number.clone(),
        );
        registry.register(
            "anchor_failing",
            "Whether the last attempt at an anchor failed",
            made.anchor_failing.clone(),
        );
        registry.register(
            "anchor_failures",
            "Attempts at an anchor that failed",
            made.anchor_failures.clone(),
        );
        made
    }

    fn anchor(&self, state: &AnchorState) {
        let label = [("anchor", state.name.clone())];
        self.anchor_number.get_or_create(&label).set(state.last_number as i64);
        self.anchor_failing.get_or_create(&label).set(i64::from(state.failures > 0));
    }
}

/// The audit log of a running server, as the spine sees it.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// The log.
    pub(crate) audit: AuditLog,
    /// Where reads of decisions are noted.
    pub(crate) reads: ReadLog,
    task: JoinHandle<Work>,
    stop: oneshot::Sender<()>,
}

impl Keeper {
    /// Begins; the store is open.
    pub(crate) fn start(
        data_dir: &Path,
        settings: &AuditSettings,
        registry: &mut Registry,
    ) -> Outcome<Self> {
        let audit = AuditLog::new(data_dir, settings.keys.clone());
        let reads = ReadLog::start(audit.clone(), settings.reads_retention_days, registry)?;
        let (stop, stopped) = oneshot::channel();
        let work = Work {
            audit: audit.clone(),
            settings: settings.clone(),
            metrics: Metrics::register(registry),
            checkpointed: None,
            verified: None,
            retired: None,
            due: HashMap::new(),
        };
        Ok(Self { audit, reads, task: tokio::spawn(work.run(stopped)), stop })
    }

    /// Makes the last checkpoint, once nothing more is written, and hands it to the anchors.
    pub(crate) async fn finish(self) {
        let _ = self.stop.send(());
        let reads = self.reads;
        if let Err(error) = tokio::task::spawn_blocking(move || reads.flush()).await {
            tracing::error!(%error, "reads of decisions could not be noted");
        }
        match self.task.await {
            Ok(mut work) => work.farewell().await,
            Err(error) => tracing::error!(%error, "the keeper of the audit log ended"),
        }
    }
}

#[derive(Debug)]
struct Work {
    audit: AuditLog,
    settings: AuditSettings,
    metrics: Metrics,
    /// The newest checkpoint, and when it was made.
    checkpointed: Option<(u64, Instant)>,
    verified: Option<Instant>,
    retired: Option<Instant>,
    /// When an anchor that failed is tried again.
    due: HashMap<String, Instant>,
}

/// Runs what blocks.
async fn blocking<T: Send + 'static>(
    audit: &AuditLog,
    work: impl FnOnce(&AuditLog) -> Result<T, AuditError> + Send + 'static,
) -> Result<T, String> {
    let audit = audit.clone();
    match tokio::task::spawn_blocking(move || work(&audit)).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn now_unix_nano() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

impl Work {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) -> Self {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                // Stopped or forgotten: both mean that it is over.
                _ = &mut stopped => return self,
                _ = tick.tick() => {}
            }
            // What is begun is finished: an anchor's own limits bound it.
            self.checkpoint_if_due().await;
            self.anchor_all(None).await;
            self.retire_if_due().await;
            self.verify_if_due().await;
        }
    }

    async fn checkpoint_if_due(&mut self) {
        let head = match blocking(&self.audit, AuditLog::head_number).await {
            Ok(head) => head,
            Err(error) => {
                return tracing::error!(error, "the head of the audit log cannot be read");
            }
        };
        self.metrics.head.set(head as i64);
        let is_due = match self.checkpointed {
            None => head > 0,
            Some((number, at)) => {
                head > number
                    && (at.elapsed() >= self.settings.checkpoint_interval
                        || head - number >= self.settings.checkpoint_count)
            }
        };
        if is_due {
            self.checkpoint().await;
        }
    }

    async fn checkpoint(&mut self) {
        match blocking(&self.audit, AuditLog::checkpoint).await {
            Ok(Some(made)) => {
                if self.checkpointed.is_none_or(|(number, _)| number < made.number) {
                    self.metrics.checkpoints.inc();
                }
                self.checkpointed = Some((made.number, Instant::now()));
            }
            Ok(None) => {}
            Err(error) => tracing::error!(error, "no checkpoint of the audit log could be made"),
        }
    }

    /// Hands every anchor what it lacks; `limit` bounds each.
    async fn anchor_all(&mut self, limit: Option<Duration>) {
        if self.settings.anchors.is_empty() {
            return;
        }
        let states = match blocking(&self.audit, AuditLog::anchors).await {
            Ok(states) => states,
            Err(error) => return tracing::error!(error, "the anchors cannot be looked up"),
        };
        for anchor in self.settings.anchors.clone() {
            let is_waiting = self.due.get(&anchor.name).is_some_and(|due| *due > Instant::now());
            if is_waiting && limit.is_none() {
                continue;
            }
            let known = states.iter().find(|state| state.name == anchor.name);
            let mut state = known.cloned().unwrap_or_default();
            (state.name, state.kind) = (anchor.name.clone(), anchor.target.kind().to_owned());
            self.metrics.anchor(&state);
            let after = state.last_number;
            let pending = blocking(&self.audit, move |audit| audit.checkpoints_after(after)).await;
            match pending {
                Ok(pending) if pending.is_empty() => {}
                Ok(pending) => self.anchor(&anchor, state, &pending, limit).await,
                Err(error) => tracing::error!(error, "the checkpoints cannot be read"),
            }
        }
    }

    async fn anchor(
        &mut self,
        anchor: &AnchorSettings,
        mut state: AnchorState,
        pending: &[Checkpoint],
        limit: Option<Duration>,
    ) {
        let writing = super::write(anchor, pending);
        let written = match limit {
            None => writing.await,
            Some(limit) => timeout(limit, writing)
                .await
                .unwrap_or_else(|_| Err(format!("no answer within {} s", limit.as_secs()))),
        };
        let now = now_unix_nano();
        state.tried_unix_nano = Some(now);
        match written {
            Ok(()) => {
                if state.failures > 0 {
                    tracing::info!(anchor = anchor.name, "the anchor works again");
                }
                if pending.len() == MAX_PENDING_CHECKPOINTS {
                    tracing::warn!(
                        anchor = anchor.name,
                        "the anchor was away for long: it got the newest checkpoints only"
                    );
                }
                state.last_number = pending.last().map_or(state.last_number, |last| last.number);
                (state.last_unix_nano, state.failures, state.error) = (Some(now), 0, None);
                self.due.remove(&anchor.name);
            }
            Err(error) => {
                tracing::warn!(anchor = anchor.name, error, "an anchor of the audit log failed");
                let label = [("anchor", anchor.name.clone())];
                self.metrics.anchor_failures.get_or_create(&label).inc();
                let wait = TICK * 2_u32.saturating_pow(state.failures.min(16) as u32);
                self.due.insert(anchor.name.clone(), Instant::now() + wait.min(MAX_RETRY));
                (state.failures, state.error) = (state.failures + 1, Some(error));
            }
        }
        self.metrics.anchor(&state);
        let noted = blocking(&self.audit, move |audit| audit.note_anchor(&state)).await;
        if let Err(error) = noted {
            tracing::error!(error, "what became of an anchor could not be noted");
        }
    }

    async fn retire_if_due(&mut self) {
        let Some(age) = self.settings.retention else { return };
        if self.retired.is_some_and(|at| at.elapsed() < RETENTION_EVERY) {
            return;
        }
        self.retired = Some(Instant::now());
        let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        let before = now_unix_nano().saturating_sub(age);
        match blocking(&self.audit, move |audit| audit.retire(before)).await {
            Ok(retired) if retired.records > 0 => {
                self.metrics.retired.inc_by(retired.records);
                tracing::info!(?retired, "old decisions were removed");
            }
            Ok(_) => {}
            Err(error) => tracing::error!(error, "old decisions could not be removed"),
        }
    }

    async fn verify_if_due(&mut self) {
        let Some(every) = self.settings.verify_interval else { return };
        if self.verified.is_some_and(|at| at.elapsed() < every) {
            return;
        }
        self.verified = Some(Instant::now());
        let mut options = VerifyOptions::default();
        for anchor in &self.settings.anchors {
            match super::read(anchor).await {
                Ok(lines) => options.anchors.extend(lines),
                Err(error) => {
                    tracing::warn!(anchor = anchor.name, error, "an anchor cannot be read back");
                }
            }
        }
        let verified = blocking(&self.audit, move |audit| {
            let found = audit.verify(&options)?;
            audit.note_verification(&found)?;
            Ok(found)
        })
        .await;
        match verified {
            Ok(found) => self.tell(&found),
            Err(error) => tracing::error!(error, "the audit log could not be verified"),
        }
    }

    fn tell(&self, found: &Verification) {
        self.metrics.problems.set(found.problem_count() as i64);
        match found.problems.first() {
            None => tracing::debug!(records = found.records, "the audit log verifies"),
            Some(first) => tracing::error!(
                problems = found.problem_count(),
                %first,
                hint = "throughline audit verify",
                "the audit log does not verify"
            ),
        }
    }

    /// The last of it.
    async fn farewell(&mut self) {
        self.checkpoint().await;
        self.anchor_all(Some(FAREWELL)).await;
    }
}
