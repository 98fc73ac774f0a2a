//! Drift: what every agent did in each minute that is over, from the store, and in each hour
//! ([`hours`](super::drift_hours)).

use std::collections::BTreeMap;

use throughline_govern::detect::TimeSpan;
use throughline_govern::signals::{Consistency, SchemaCompliance, is_agents};
use throughline_govern::{
    AgentWindow, DetectorStanding, DriftWatch, Drifted, Watches, trace_agent, trace_features,
};
use throughline_store::{DecisionFilter, Evaluation, Governance, Reader, RuleState, TraceFilter};
use throughline_trace::{
    Decision, Dimension, Finding, FindingState, Measure, OperationKind, SeriesQuery, SpanRole,
    TraceId, keys,
};

use super::decisions::newest;
use super::drift_hours::hours;
use super::minute_traces::{WholeTraces, in_turn, of_minute};
use super::signals::summaries;
use super::{MINUTE_NANOS, RoundError, Stores, drift_ends};

/// Before the names of the parts of the state.
const PREFIX: &str = "drift/";

/// Version of the form of the state.
const STATE_VERSION: &str = "2";

/// Name of the state when it had no parts, in version 1 of its form.
const STATE_OF_VERSION_1: &str = "drift";

/// Minutes that are made up for after a pause at most.
const MAX_CATCH_UP_MIN: u64 = 10;

/// Decisions of one minute that are looked at.
const MAX_DECISIONS: usize = 5_000;

/// Traces that a finding names.
pub(super) const EVIDENCE: usize = 5;

/// Minutes in an hour.
const HOUR_MIN: u64 = 60;

/// How many minutes after it began a trace is looked at: one that is under way would look short.
const TRACE_LAG_MIN: u64 = 1;

/// Traces of an agent that tell what is usual, the newest.
const MAX_USUAL_TRACES: usize = 400;

/// Agents of one minute of which it is learned what traces are usual; the others wait.
const MAX_LEARNED_AGENTS: usize = 20;

/// What is remembered between rounds.
#[derive(Debug, Default)]
pub(super) struct Drift {
    watch: Option<DriftWatch>,
    /// Whether it was read back, and what fires was not held against it since.
    is_fresh: bool,
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
            (self.watch, self.is_fresh) = (Some(load(governance).await?), true);
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
        let said;
        (watch, said) = observe_hour(watch, (reader, Some(governance)), over).await?;
        evaluation.findings.extend(said.findings);
        evaluation.actions.extend(said.actions);
        let parts = watch.take_parts();
        let name = |part: &str| format!("{PREFIX}{part}");
        evaluation.states.extend(parts.changed.into_iter().map(|(part, body)| RuleState {
            rule: name(&part),
            version: STATE_VERSION.to_owned(),
            body,
        }));
        evaluation.gone_states.extend(parts.gone.iter().map(|part| name(part)));
        if self.is_fresh {
            evaluation.gone_states.push(STATE_OF_VERSION_1.to_owned());
        }
        if self.is_fresh || parts.has_forgotten {
            let firing = drift_ends::firing(governance).await?;
            drift_ends::end(&watch.standing(), firing, settled, &mut evaluation.findings);
        }
        (self.watch, self.is_fresh) = (Some(watch), false);
        Ok(())
    }
}

async fn load(governance: &Governance) -> Result<DriftWatch, RoundError> {
    let governance = governance.clone();
    let states = tokio::task::spawn_blocking(move || governance.states()).await??;
    let parts = states.into_iter().filter(|state| state.version == STATE_VERSION);
    let parts =
        parts.filter_map(|state| Some((state.rule.strip_prefix(PREFIX)?.to_owned(), state.body)));
    let (watch, problems) = DriftWatch::of_parts(parts);
    for (part, error) in problems {
        tracing::warn!(part, %error, "what was known of drift cannot be read; it begins anew");
    }
    Ok(watch)
}

/// Watches a minute: what is said of it, beside what was said of those before.
pub(super) async fn observe_minute(
    mut watch: DriftWatch,
    reader: &Reader,
    minute: u64,
) -> Result<(DriftWatch, Drifted), RoundError> {
    let windows = windows(&watch, reader, minute).await?;
    // The shape of an hour's prompts is drawn thousands of times: not on a thread that others wait for.
    let observed = tokio::task::spawn_blocking(move || {
        let said = watch.observe(span_of(minute), &windows);
        (watch, said)
    });
    Ok(observed.await?)
}

/// Watches the last hour that is over at a minute, if it was not watched before. Of those before it only how much was
/// done is made up for. One that is not counted yet is left for a later minute, but not for ever.
pub(super) async fn observe_hour(
    mut watch: DriftWatch,
    stores: Stores<'_>,
    over_min: u64,
) -> Result<(DriftWatch, Drifted), RoundError> {
    let over = over_min / HOUR_MIN;
    if over <= watch.observed_until_hour {
        return Ok((watch, Drifted::default()));
    }
    let may_wait = over_min % HOUR_MIN < MAX_CATCH_UP_MIN;
    let Some(of_hour) = hours(&watch, stores, over - 1, may_wait).await? else {
        return Ok((watch, Drifted::default()));
    };
    let observed = tokio::task::spawn_blocking(move || {
        let said = watch.observe_hour(over - 1, &of_hour);
        (watch, said)
    });
    let (watch, mut said) = observed.await?;
    show_traffic(&mut said, stores.0, over).await?;
    Ok((watch, said))
}

/// What is said of traffic names the agent's newest traces, also where the hour up to which it is said has none.
async fn show_traffic(said: &mut Drifted, reader: &Reader, hour: u64) -> Result<(), RoundError> {
    let is_bare = |one: &&mut Finding| {
        one.kind == Watches::Traffic.kind()
            && one.state == FindingState::Firing
            && one.evidence.is_empty()
    };
    for finding in said.findings.iter_mut().filter(is_bare).take(MAX_LEARNED_AGENTS) {
        let filter = TraceFilter {
            agent: finding.subject.get("agent").map(str::to_owned),
            start_before_unix_nano: Some(hour * HOUR_MIN * MINUTE_NANOS),
            ..TraceFilter::default()
        };
        let (newest, _) = summaries(reader, &filter, EVIDENCE).await?;
        finding.evidence = newest.iter().map(|one| one.trace_id).collect();
        let asked = said.actions.iter_mut().filter(|one| one.finding == finding.id);
        asked.for_each(|action| action.evidence.clone_from(&finding.evidence));
    }
    Ok(())
}

fn span_of(minute: u64) -> TimeSpan {
    TimeSpan { from_unix_nano: minute * MINUTE_NANOS, to_unix_nano: (minute + 1) * MINUTE_NANOS }
}

async fn windows(
    watch: &DriftWatch,
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
    traces(watch, reader, minute, &mut found).await?;
    Ok(found)
}

/// Puts what the traces of a minute tell beside what is known of their agents.
async fn traces(
    watch: &DriftWatch,
    reader: &Reader,
    minute: u64,
    found: &mut BTreeMap<String, AgentWindow>,
) -> Result<(), RoundError> {
    let began = minute.saturating_sub(TRACE_LAG_MIN);
    let of_agents = of_minute(reader, began).await?;
    let (mut whole, mut learned) = (WholeTraces::of(of_agents.len()), 0);
    for (agent, of_agent) in in_turn(&of_agents, began) {
        let window = found.entry(agent.clone()).or_default();
        window.traces = of_agent.iter().map(trace_features).collect();
        if window.evidence.is_empty() {
            window.evidence = of_agent.iter().map(|one| one.trace_id).take(EVIDENCE).collect();
        }
        let calls = of_agent.iter().filter(|one| one.llm_calls > 0);
        let mut calls: Vec<TraceId> = calls.map(|one| one.trace_id).collect();
        calls.truncate(whole.take(calls.len()));
        window.responses = responses(reader, &calls).await?;
        if learned < MAX_LEARNED_AGENTS && watch.learns_of(agent, minute) {
            learned += 1;
            let before = TraceFilter {
                agent: Some(agent.clone()),
                start_before_unix_nano: Some(began * MINUTE_NANOS),
                ..TraceFilter::default()
            };
            let (usual, _) = summaries(reader, &before, MAX_USUAL_TRACES).await?;
            let usual = usual.iter().filter(|one| trace_agent(one) == Some(agent.as_str()));
            window.usual_traces = usual.map(trace_features).collect();
        }
    }
    Ok(())
}

/// The responses of whole traces by whether they keep to their schema.
async fn responses(reader: &Reader, of: &[TraceId]) -> Result<SchemaCompliance, RoundError> {
    let mut counted = SchemaCompliance::default();
    for id in of {
        let Some(trace) = reader.trace(*id).await? else { continue };
        for span in &trace.spans {
            if let Some(is_valid) = span.attributes.bool(keys::RESPONSE_SCHEMA_VALID) {
                counted.add(Some(is_valid));
            }
        }
    }
    Ok(counted)
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
