//! What every agent did in an hour that is over: how much, from the rollups, and what about, from embeddings.

use std::collections::BTreeMap;

use throughline_govern::signals::{ContextEmbedding, context_embeddings, opening_embeddings};
use throughline_govern::{AgentHour, DriftWatch};
use throughline_store::{DecisionFilter, Governance, Reader};
use throughline_trace::{Dimension, Measure, OperationKind, Rollup, SeriesQuery, SpanRole, keys};

use super::decisions::newest;
use super::drift::EVIDENCE;
use super::{RoundError, SECOND_NANOS, Stores};

/// Seconds of an hour.
const HOUR_S: u64 = 3_600;

/// An hour, nanoseconds.
const HOUR_NANOS: u64 = HOUR_S * SECOND_NANOS;

/// Agents whose weeks before are read in one hour; the others wait for the next.
const MAX_LEARNED_AGENTS: usize = 50;

/// Decisions of an hour and the one before that are looked at for embeddings, the newest.
const MAX_DECISIONS: usize = 20_000;

/// What the agents that are watched did in an hour, since the Unix epoch.
pub(super) async fn hours(
    watch: &DriftWatch,
    (reader, governance): Stores<'_>,
    hour: u64,
) -> Result<BTreeMap<String, AgentHour>, RoundError> {
    let from = watch.hours_from(hour);
    let Some(first) = from.values().min().copied() else { return Ok(BTreeMap::new()) };
    let known = operations(reader, None, (first, hour)).await?;
    let now = by_agent(reader, hour).await?;
    let (mut found, mut learned) = (BTreeMap::new(), 0);
    for (agent, from) in from {
        // An hour in which nobody did anything is one in which nobody sent anything.
        let of_hour =
            |count: u64, at: u64| known.get(&at).filter(|all| **all > 0).map(|_| count as f64);
        let mut of = AgentHour::default();
        if from == hour {
            of.operations = vec![of_hour(now.get(&agent).copied().unwrap_or(0), hour)];
        } else if learned < MAX_LEARNED_AGENTS {
            learned += 1;
            let own = operations(reader, Some(&agent), (from, hour)).await?;
            // Before an agent was there it did not do nothing.
            let begins = own.iter().find(|(_, count)| **count > 0).map_or(hour, |(at, _)| *at);
            let hours = begins.max(from)..=hour;
            of.operations =
                hours.map(|at| of_hour(own.get(&at).copied().unwrap_or(0), at)).collect();
        }
        found.insert(agent, of);
    }
    embeddings((reader, governance), hour, &mut found).await?;
    Ok(found)
}

/// Runs of agents, or where they have none their steps.
fn count(rollup: &Rollup) -> u64 {
    let kinds = [SpanRole::AgentRun, SpanRole::Step].map(OperationKind::Role);
    let counted = kinds.iter().find_map(|kind| rollup.operations(*kind));
    counted.map_or(0, |of| u64::try_from(of.count).unwrap_or(0))
}

fn query(agent: Option<&str>, (from, to): (u64, u64)) -> SeriesQuery {
    SeriesQuery {
        filter: agent.map(|agent| (Dimension::Agent, agent.to_owned())).into_iter().collect(),
        kinds: [SpanRole::AgentRun, SpanRole::Step].map(OperationKind::Role).to_vec(),
        step_seconds: HOUR_S,
        ..SeriesQuery::new(vec![Measure::Count], from * HOUR_S, (to + 1) * HOUR_S)
    }
}

/// What an agent did, or all did, by hour; both ends are included.
async fn operations(
    reader: &Reader,
    agent: Option<&str>,
    hours: (u64, u64),
) -> Result<BTreeMap<u64, u64>, RoundError> {
    let sums = reader.rollup_sums(&query(agent, hours)).await?;
    let mut found = BTreeMap::new();
    for (at, rollup) in sums.groups.values().flatten() {
        *found.entry(at / HOUR_S).or_insert(0) += count(rollup);
    }
    Ok(found)
}

async fn by_agent(reader: &Reader, hour: u64) -> Result<BTreeMap<String, u64>, RoundError> {
    let query = SeriesQuery { group_by: vec![Dimension::Agent], ..query(None, (hour, hour)) };
    let sums = reader.rollup_sums(&query).await?;
    let of = |(labels, steps): (&Vec<String>, &Vec<(u64, Rollup)>)| {
        Some((labels.first()?.clone(), steps.iter().map(|(_, rollup)| count(rollup)).sum()))
    };
    Ok(sums.groups.iter().filter_map(of).collect())
}

/// Puts the embeddings of the hour and of the one before it beside what is known of their agents.
async fn embeddings(
    (reader, governance): Stores<'_>,
    hour: u64,
    found: &mut BTreeMap<String, AgentHour>,
) -> Result<(), RoundError> {
    let span = (hour.saturating_sub(1) * HOUR_NANOS, (hour + 1) * HOUR_NANOS);
    let filter = DecisionFilter {
        after_unix_nano: Some(span.0),
        before_unix_nano: Some(span.1),
        ..DecisionFilter::default()
    };
    let has =
        |one: &throughline_trace::Decision| one.attributes.get(keys::CONTEXT_EMBEDDING).is_some();
    let (decisions, _) = newest(reader, &filter, MAX_DECISIONS, has).await?;
    let made = made_embeddings(governance, None, span).await?;
    let mut of_agents: BTreeMap<String, Vec<ContextEmbedding>> = BTreeMap::new();
    for one in context_embeddings(&decisions, &made) {
        of_agents.entry(one.agent.clone()).or_default().push(one);
    }
    for (agent, contexts) in of_agents {
        let Some(of) = found.get_mut(&agent) else { continue };
        let [before, now] = opening_embeddings(&contexts, hour * HOUR_NANOS);
        (of.embeddings_before, of.embeddings) = (before, now);
        let of_agent = decisions.iter().filter(|one| one.agent_id == agent);
        of.evidence = of_agent.filter_map(|one| one.trace_id).take(EVIDENCE).collect();
    }
    Ok(())
}

/// Embeddings that were made of prompts of an agent, or of all, from one moment up to another; nanoseconds since the
/// Unix epoch.
pub(super) async fn made_embeddings(
    governance: Option<&Governance>,
    agent: Option<&str>,
    span: (u64, u64),
) -> Result<Vec<ContextEmbedding>, RoundError> {
    let Some(governance) = governance.cloned() else { return Ok(Vec::new()) };
    let agent = agent.map(str::to_owned);
    let read = move || governance.embedded_contexts(agent.as_deref(), span);
    let found = tokio::task::spawn_blocking(read).await??;
    let of = |one: throughline_store::EmbeddedContext| ContextEmbedding {
        at_unix_nano: one.context.at_unix_nano,
        agent: one.context.agent,
        session: one.context.session,
        numbers: one.numbers,
    };
    Ok(found.into_iter().map(of).collect())
}
