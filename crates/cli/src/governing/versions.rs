//! What the versions of an agent did, from the store.

use std::collections::{BTreeMap, BTreeSet};

use throughline_govern::rollout::{Rollout, RolloutSpec, Verdict, VersionWindow, compare};
use throughline_govern::signals::Consistency;
use throughline_store::{DecisionFilter, Reader, RollupSums};
use throughline_trace::{
    Decision, Dimension, Measure, OperationKind, SeriesQuery, SpanRole, TraceId,
};

use super::decisions::newest;
use super::{MINUTE_NANOS, RoundError, SECOND_NANOS};

/// Decisions of one version that are looked at.
const MAX_DECISIONS: usize = 2_000;

/// Traces that a finding names.
const EVIDENCE: usize = 5;

/// What the telemetry of both versions says.
pub(super) struct Looked {
    pub(super) verdict: Verdict,
    pub(super) stable: VersionWindow,
    pub(super) candidate: VersionWindow,
    pub(super) from_unix_nano: u64,
    pub(super) evidence: Vec<TraceId>,
}

/// Compares candidate and stable version over the same time.
pub(super) async fn look(
    reader: &Reader,
    spec: &RolloutSpec,
    rollout: &Rollout,
    candidate: &str,
    now: u64,
) -> Result<Looked, RoundError> {
    let window = spec.analysis.window_s.saturating_mul(SECOND_NANOS);
    // What was before the candidate had this share is another story.
    let mut from = now.saturating_sub(window).max(rollout.since_unix_nano);
    // Sums are by the minute: an earlier try of the same version in this one is not to be judged again.
    let minute = from / MINUTE_NANOS * MINUTE_NANOS;
    let mut earlier = rollout.changes.iter().rev().skip(1);
    if earlier.any(|one| {
        one.version == candidate && one.kind == "rolled_back" && one.at_unix_nano >= minute
    }) {
        from = minute + MINUTE_NANOS;
    }
    let sums = Sums::read(reader, spec, (from, now)).await?;
    let (mut stable, mut tried) = (sums.of(&rollout.stable), sums.of(candidate));
    stable.consistency = consistency(reader, spec, &rollout.stable, (from, now)).await?.0;
    let (of_candidate, evidence) = consistency(reader, spec, candidate, (from, now)).await?;
    tried.consistency = of_candidate;
    let verdict = compare(&spec.analysis, &stable, &tried);
    Ok(Looked { verdict, stable, candidate: tried, from_unix_nano: from, evidence })
}

/// The versions that had traffic in a time, in nanoseconds since the Unix epoch.
pub(super) async fn seen(
    reader: &Reader,
    spec: &RolloutSpec,
    time: (u64, u64),
) -> Result<BTreeSet<String>, RoundError> {
    let sums = Sums::read(reader, spec, time).await?;
    Ok(sums.0.groups.keys().filter_map(|labels| labels.first().cloned()).collect())
}

/// What the stable version did since the candidate was put back.
pub(super) async fn look_at_stable(
    reader: &Reader,
    spec: &RolloutSpec,
    rollout: &Rollout,
    now: u64,
) -> Result<VersionWindow, RoundError> {
    let window = spec.analysis.window_s.saturating_mul(SECOND_NANOS);
    let from = now.saturating_sub(window).max(rollout.since_unix_nano);
    let mut stable = Sums::read(reader, spec, (from, now)).await?.of(&rollout.stable);
    stable.consistency = consistency(reader, spec, &rollout.stable, (from, now)).await?.0;
    Ok(stable)
}

/// Operations whose durations and errors are compared: steps where there are any, as a run has several.
const KINDS: [OperationKind; 2] =
    [OperationKind::Role(SpanRole::Step), OperationKind::Role(SpanRole::AgentRun)];

/// Sums of an agent by version.
struct Sums(RollupSums);

impl Sums {
    async fn read(
        reader: &Reader,
        spec: &RolloutSpec,
        (from, now): (u64, u64),
    ) -> Result<Self, RoundError> {
        let seconds = (from / SECOND_NANOS, now / SECOND_NANOS + 1);
        let query = SeriesQuery {
            filter: BTreeMap::from([(Dimension::Agent, spec.agent.clone())]),
            group_by: vec![Dimension::Version],
            kinds: KINDS.to_vec(),
            step_seconds: 60,
            ..SeriesQuery::new(vec![Measure::Count], seconds.0, seconds.1)
        };
        Ok(Self(reader.rollup_sums(&query).await?))
    }

    fn of(&self, version: &str) -> VersionWindow {
        let mut found = VersionWindow::default();
        let steps = self.0.groups.get(&vec![version.to_owned()]).map(Vec::as_slice);
        for (_, rollup) in steps.unwrap_or_default() {
            let Some(operations) = KINDS.iter().find_map(|kind| rollup.operations(*kind)) else {
                continue;
            };
            found.durations.merge(&operations.durations);
            let count = |number: i64| u64::try_from(number).unwrap_or(0);
            found.outcomes.total += count(operations.count);
            found.outcomes.good += count(operations.count - operations.errors);
        }
        found
    }
}

/// How alike a version decided about equal inputs, and some of its traces.
async fn consistency(
    reader: &Reader,
    spec: &RolloutSpec,
    version: &str,
    (from, now): (u64, u64),
) -> Result<(Consistency, Vec<TraceId>), RoundError> {
    let filter = DecisionFilter {
        agent: Some(spec.agent.clone()),
        model_version: Some(version.to_owned()),
        after_unix_nano: Some(from),
        before_unix_nano: Some(now.saturating_add(1)),
        ..DecisionFilter::default()
    };
    // Where the traffic goes is not what the agent decides.
    let is_meant = |one: &Decision| one.stage != "route";
    let (decisions, _) = newest(reader, &filter, MAX_DECISIONS, is_meant).await?;
    let evidence = decisions.iter().filter_map(|one| one.trace_id).take(EVIDENCE).collect();
    let told = decisions.iter().map(|one| (one.input_hash.as_str(), one.action.as_str()));
    Ok((Consistency::of(told), evidence))
}
