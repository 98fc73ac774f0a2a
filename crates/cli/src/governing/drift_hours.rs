//! What every agent did in an hour that is over: how much, from the rollups, and what about, from embeddings.

use std::collections::BTreeMap;

use throughline_govern::signals::{ContextEmbedding, context_embeddings, opening_embeddings};
use throughline_govern::{AgentHour, DriftWatch};
use throughline_store::{Coverage, DecisionFilter, Governance, Reader};
use throughline_trace::{
    Dimension, Measure, OperationKind, Rollup, SeriesQuery, SpanRole, TraceId, keys,
};

use super::decisions::newest;
use super::drift::EVIDENCE;
use super::{LAG_NANOS, RoundError, SECOND_NANOS, Stores};

/// Seconds of an hour.
const HOUR_S: u64 = 3_600;

/// Seconds of a day.
const DAY_S: u64 = 24 * HOUR_S;

/// An hour, nanoseconds.
const HOUR_NANOS: u64 = HOUR_S * SECOND_NANOS;

/// Agents whose weeks before are read in one hour; the others wait for the next.
const MAX_LEARNED_AGENTS: usize = 50;

/// Decisions of an hour, and of the one before, that are looked at for embeddings, the newest.
const MAX_DECISIONS: usize = 20_000;

/// Operations by hour, and how far they can be relied on.
#[derive(Debug, Default)]
struct Counted {
    hours: BTreeMap<u64, u64>,
    coverage: Coverage,
}

impl Counted {
    /// Whether what was sent in an hour is counted by now. Exporters send in batches: also what came a little later.
    fn is_until(&self, hour: u64) -> bool {
        let over = (hour + 1) * HOUR_NANOS + LAG_NANOS;
        self.coverage.watermark_unix_nano.is_none_or(|until| until >= over)
    }

    /// What an agent did in an hour, of which the rollups have so many operations; `None` where that is not known.
    fn of_hour(&self, count: u64, hour: u64) -> Option<f64> {
        let day = hour * HOUR_S / DAY_S * DAY_S;
        let Coverage { rebuilding_days, incomplete_days, .. } = &self.coverage;
        let is_whole = self.is_until(hour)
            && !rebuilding_days.contains(&day)
            && !incomplete_days.contains(&day);
        // An hour in which nobody did anything is one in which nobody sent anything.
        let is_any = self.hours.get(&hour).is_some_and(|all| *all > 0);
        (is_whole && is_any).then_some(count as f64)
    }
}

/// What the agents that are watched did in an hour, since the Unix epoch; `None` where it `may_wait`, and the hour is
/// not counted yet: what is missing would be taken for silence.
pub(super) async fn hours(
    watch: &DriftWatch,
    (reader, governance): Stores<'_>,
    hour: u64,
    may_wait: bool,
) -> Result<Option<BTreeMap<String, AgentHour>>, RoundError> {
    let from = watch.hours_from(hour);
    let Some(first) = from.values().min().copied() else { return Ok(Some(BTreeMap::new())) };
    let known = operations(reader, None, (first, hour)).await?;
    if may_wait && !known.is_until(hour) {
        return Ok(None);
    }
    let now = by_agent(reader, hour).await?;
    let (mut found, mut learned) = (BTreeMap::new(), 0);
    for (agent, from) in from {
        let mut of = AgentHour::default();
        if from == hour {
            of.operations = vec![known.of_hour(now.get(&agent).copied().unwrap_or(0), hour)];
        } else if learned < MAX_LEARNED_AGENTS {
            learned += 1;
            let own = operations(reader, Some(&agent), (from, hour)).await?.hours;
            // Before an agent was there it did not do nothing.
            let begins = own.iter().find(|(_, count)| **count > 0).map_or(hour, |(at, _)| *at);
            let hours = begins.max(from)..=hour;
            of.operations =
                hours.map(|at| known.of_hour(own.get(&at).copied().unwrap_or(0), at)).collect();
        }
        found.insert(agent, of);
    }
    embeddings((reader, governance), hour, &mut found).await?;
    Ok(Some(found))
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
) -> Result<Counted, RoundError> {
    let sums = reader.rollup_sums(&query(agent, hours)).await?;
    let mut hours = BTreeMap::new();
    for (at, rollup) in sums.groups.values().flatten() {
        *hours.entry(at / HOUR_S).or_insert(0) += count(rollup);
    }
    Ok(Counted { hours, coverage: sums.coverage })
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
    let has =
        |one: &throughline_trace::Decision| one.attributes.get(keys::CONTEXT_EMBEDDING).is_some();
    let mut decisions = Vec::new();
    for span in both_hours(hour) {
        let filter = DecisionFilter {
            after_unix_nano: Some(span.0),
            before_unix_nano: Some(span.1),
            ..DecisionFilter::default()
        };
        decisions.extend(newest(reader, &filter, MAX_DECISIONS, has).await?.0);
    }
    let made = made_in_both_hours(governance, hour).await?;
    let mut of_agents: BTreeMap<String, Vec<ContextEmbedding>> = BTreeMap::new();
    for one in context_embeddings(&decisions, &made) {
        of_agents.entry(one.agent.clone()).or_default().push(one);
    }
    for (agent, contexts) in of_agents {
        let Some(of) = found.get_mut(&agent) else { continue };
        let [before, now] = opening_embeddings(&contexts, hour * HOUR_NANOS);
        (of.embeddings_before, of.embeddings) = (before, now);
        of.evidence = newest_traces(&contexts, hour * HOUR_NANOS);
    }
    Ok(())
}

/// An hour and the one before it, nanoseconds since the Unix epoch. Each is asked for by itself: the newest of both would
/// leave nothing of the one before where there is much.
fn both_hours(hour: u64) -> impl Iterator<Item = (u64, u64)> {
    (hour.saturating_sub(1)..=hour).map(|at| (at * HOUR_NANOS, (at + 1) * HOUR_NANOS))
}

async fn made_in_both_hours(
    governance: Option<&Governance>,
    hour: u64,
) -> Result<Vec<ContextEmbedding>, RoundError> {
    let mut made = Vec::new();
    for span in both_hours(hour) {
        made.extend(made_embeddings(governance, None, span).await?);
    }
    Ok(made)
}

/// Where contexts by time were said since a moment (nanoseconds since the Unix epoch), the newest first.
fn newest_traces(contexts: &[ContextEmbedding], from_unix_nano: u64) -> Vec<TraceId> {
    let since = contexts.iter().rev().take_while(|one| one.at_unix_nano >= from_unix_nano);
    let mut found = Vec::new();
    for trace in since.filter_map(|one| one.trace_id) {
        if found.len() < EVIDENCE && !found.contains(&trace) {
            found.push(trace);
        }
    }
    found
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
        trace_id: Some(one.context.trace_id),
        numbers: one.numbers,
    };
    Ok(found.into_iter().map(of).collect())
}

#[cfg(test)]
mod tests {
    use throughline_store::{MAX_CONTEXTS, SessionContext};

    use super::*;

    #[test]
    fn what_is_not_counted_is_not_taken_for_silence() {
        let day = 20_000 * DAY_S;
        let hour = day / HOUR_S + 5;
        let known = |coverage| Counted { hours: BTreeMap::from([(hour, 9)]), coverage };
        let until = |nanos| Coverage { watermark_unix_nano: Some(nanos), ..Coverage::default() };
        let over = (hour + 1) * HOUR_NANOS + LAG_NANOS;
        assert_eq!(known(Coverage::default()).of_hour(0, hour), Some(0.0), "others did something");
        assert_eq!(known(Coverage::default()).of_hour(0, hour + 1), None, "nobody did");
        assert_eq!(known(until(over)).of_hour(2, hour), Some(2.0));
        assert_eq!(known(until(over - 1)).of_hour(2, hour), None);
        assert!(known(until(over)).is_until(hour) && !known(until(over - 1)).is_until(hour));
        let rebuilding = Coverage { rebuilding_days: vec![day], ..Coverage::default() };
        assert_eq!(known(rebuilding).of_hour(2, hour), None);
        let other = Coverage { incomplete_days: vec![day - DAY_S], ..Coverage::default() };
        assert_eq!(known(other).of_hour(2, hour), Some(2.0));
        let incomplete = Coverage { incomplete_days: vec![day], ..Coverage::default() };
        assert_eq!(known(incomplete).of_hour(2, hour), None);
    }

    #[tokio::test]
    async fn of_an_hour_with_much_the_one_before_it_is_still_known() {
        let dir = tempfile::tempdir().expect("a directory");
        let governance = Governance::open(dir.path()).expect("opened");
        let hour = 500_000;
        let context = |at: u64, trace: usize| SessionContext {
            at_unix_nano: at,
            agent: "desk".to_owned(),
            session: String::new(),
            trace_id: TraceId::from_u128(trace as u128 + 1),
            text: [1; 16],
        };
        let of_hour = (0..MAX_CONTEXTS).map(|at| context(hour * HOUR_NANOS + at as u64, at));
        let mut contexts: Vec<SessionContext> = of_hour.collect();
        contexts.push(context(hour * HOUR_NANOS - 1, MAX_CONTEXTS));
        let embeddings = [([1; 16], vec![0.5])];
        let now = (hour + 1) * HOUR_NANOS;
        governance.write_embeddings(now, &contexts, &embeddings).expect("written");
        let made = made_in_both_hours(Some(&governance), hour).await.expect("read");
        let [before, since] =
            opening_embeddings(&context_embeddings(&[], &made), hour * HOUR_NANOS);
        assert_eq!((before.len(), since.len()), (1, MAX_CONTEXTS));
        let newest = newest_traces(&made, hour * HOUR_NANOS);
        let last = MAX_CONTEXTS as u128;
        assert_eq!(newest, [0, 1, 2, 3, 4].map(|back| TraceId::from_u128(last - back)));
        assert_eq!(newest_traces(&made, now), []);
    }
}
