//! Drift: what every agent did in each minute that is over, from the store.

use std::collections::BTreeMap;

use throughline_govern::detect::TimeSpan;
use throughline_govern::signals::{Consistency, is_agents};
use throughline_govern::{AgentWindow, DetectorStanding, DriftWatch, Drifted};
use throughline_store::{DecisionFilter, Evaluation, Governance, Reader, RuleState};
use throughline_trace::{Decision, Dimension, Measure, OperationKind, SeriesQuery, SpanRole};

use super::decisions::newest;
use super::{MINUTE_NANOS, RoundError};

/// Name of the rule's state.
const STATE: &str = "drift";

/// Version of the form of the state.
const STATE_VERSION: &str = "1";

/// Minutes that are made up for after a pause at most.
const MAX_CATCH_UP_MIN: u64 = 10;

/// Decisions of one minute that are looked at.
const MAX_DECISIONS: usize = 5_000;

/// Traces that a finding names.
const EVIDENCE: usize = 5;

/// What is remembered between rounds.
#[derive(Debug, Default)]
pub(super) struct Drift {
    watch: Option<DriftWatch>,
}

impl Drift {
    /// What was not committed did not happen: it is read back before the next round.
    pub(super) fn forget(&mut self) {
        self.watch = None;
    }

    /// How every detector stands.
    pub(super) fn standing(&self) -> Vec<DetectorStanding> {
        self.watch.as_ref().map(DriftWatch::standing).unwrap_or_default()
    }

    /// Looks at the minutes that are over since the last time, up to a moment at which everything has
    /// arrived; nanoseconds since the Unix epoch.
    pub(super) async fn evaluate(
        &mut self,
        (reader, governance): (&Reader, &Governance),
        settled: u64,
        evaluation: &mut Evaluation,
    ) -> Result<(), RoundError> {
        if self.watch.is_none() {
            self.watch = Some(load(governance).await?);
        }
        let Some(known) = &self.watch else { return Ok(()) };
        let over = settled / MINUTE_NANOS;
        let first = (known.observed_until_unix_nano / MINUTE_NANOS)
            .max(over.saturating_sub(MAX_CATCH_UP_MIN));
        if first >= over {
            return Ok(());
        }
        let mut watch = known.clone();
        for minute in first..over {
            let said;
            (watch, said) = observe_minute(watch, reader, minute).await?;
            evaluation.findings.extend(said.findings);
            evaluation.actions.extend(said.actions);
        }
        evaluation.states.push(RuleState {
            rule: STATE.to_owned(),
            version: STATE_VERSION.to_owned(),
            body: serde_json::to_string(&watch).unwrap_or_default(),
        });
        self.watch = Some(watch);
        Ok(())
    }
}

async fn load(governance: &Governance) -> Result<DriftWatch, RoundError> {
    let governance = governance.clone();
    let states = tokio::task::spawn_blocking(move || governance.states()).await??;
    let known =
        states.into_iter().find(|state| state.rule == STATE && state.version == STATE_VERSION);
    Ok(known.and_then(|state| serde_json::from_str(&state.body).ok()).unwrap_or_default())
}

/// Watches a minute: what is said of it, beside what was said of those before.
pub(super) async fn observe_minute(
    mut watch: DriftWatch,
    reader: &Reader,
    minute: u64,
) -> Result<(DriftWatch, Drifted), RoundError> {
    let windows = windows(reader, minute).await?;
    // The shape of an hour's prompts is drawn thousands of times: not on a thread that others wait for.
    let observed = tokio::task::spawn_blocking(move || {
        let said = watch.observe(span_of(minute), &windows);
        (watch, said)
    });
    Ok(observed.await?)
}

fn span_of(minute: u64) -> TimeSpan {
    TimeSpan { from_unix_nano: minute * MINUTE_NANOS, to_unix_nano: (minute + 1) * MINUTE_NANOS }
}

async fn windows(
    reader: &Reader,
    minute: u64,
) -> Result<BTreeMap<String, AgentWindow>, RoundError> {
    let kinds = [SpanRole::Step, SpanRole::AgentRun].map(OperationKind::Role);
    let query = SeriesQuery {
        group_by: vec![Dimension::Agent],
        kinds: kinds.to_vec(),
        step_seconds: 60,
        ..SeriesQuery::new(vec![Measure::Count], minute * 60, minute * 60 + 60)
    };
    let sums = reader.rollup_sums(&query).await?;
    let mut found: BTreeMap<String, AgentWindow> = BTreeMap::new();
    for (labels, steps) in &sums.groups {
        let Some(agent) = labels.first().filter(|agent| !agent.is_empty()) else { continue };
        for (_, rollup) in steps {
            if rollup.prompt_tokens.count() > 0 {
                let window = found.entry(agent.clone()).or_default();
                window.prompt_tokens.merge(&rollup.prompt_tokens);
            }
            if let Some(operations) = kinds.iter().find_map(|kind| rollup.operations(*kind)) {
                let window = found.entry(agent.clone()).or_default();
                window.durations.merge(&operations.durations);
            }
        }
    }
    for (agent, decisions) in decisions(reader, minute).await? {
        let told = decisions.iter().map(|one| (one.input_hash.as_str(), one.action.as_str()));
        let window = found.entry(agent).or_default();
        window.consistency = Consistency::of(told);
        window.evidence = decisions.iter().filter_map(|one| one.trace_id).take(EVIDENCE).collect();
    }
    Ok(found)
}

/// The decisions of a minute by agent: what agents chose themselves, not where a router sent them.
async fn decisions(
    reader: &Reader,
    minute: u64,
) -> Result<BTreeMap<String, Vec<Decision>>, RoundError> {
    let filter = DecisionFilter {
        after_unix_nano: Some(minute * MINUTE_NANOS),
        before_unix_nano: Some((minute + 1) * MINUTE_NANOS),
        ..DecisionFilter::default()
    };
    let (all, _) = newest(reader, &filter, MAX_DECISIONS, is_agents).await?;
    let mut found: BTreeMap<String, Vec<Decision>> = BTreeMap::new();
    for one in all {
        found.entry(one.agent_id.clone()).or_default().push(one);
    }
    Ok(found)
}
