//! Live values of signals: what one agent did, or all of them, over the minutes before now, read from the
//! store within bounds.

use std::collections::{BTreeMap, BTreeSet};

use throughline_govern::signals::{
    CompositeSignal, CompositeValue, Indicator, Name, ObjectiveReading, Observed, Reading, Source,
    Tally, TraceFacts,
};
use throughline_store::{DecisionFilter, Reader, TraceFilter};
use throughline_trace::{
    Dimension, Measure, OperationKind, SeriesQuery, SpanRole, TraceId, TraceSummary,
};

use super::decisions::newest;
use super::drift_hours::made_embeddings;
use super::{MINUTE_NANOS, RoundError, Stores};

/// Decisions of one look at most, the newest.
const MAX_DECISIONS: usize = 10_000;

/// Whole traces of one look at most, the newest.
pub(crate) const MAX_TRACES: usize = 200;

/// Whole traces of all looks of one round at most.
pub(crate) const MAX_TRACES_PER_ROUND: usize = 2_000;

/// Summaries of traces that tell when sessions began, at most, the newest.
const MAX_SUMMARIES: usize = 4_000;

/// Decisions of each of many agents that are read at least, if there are as many.
const LEAST_DECISIONS: usize = 500;

/// Whole traces of each of many agents that are read at least.
const LEAST_TRACES: usize = 20;

/// Summaries for each of many agents that are read at least.
const LEAST_SUMMARIES: usize = 500;

/// Of how much one look reads at most, the newest of each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Most {
    /// Decisions, about: the last page is whole.
    pub(crate) decisions: usize,
    /// Traces that are read whole.
    pub(crate) traces: usize,
    /// Summaries of traces that tell when sessions began.
    pub(crate) summaries: usize,
}

impl Default for Most {
    fn default() -> Self {
        Self { decisions: MAX_DECISIONS, traces: MAX_TRACES, summaries: MAX_SUMMARIES }
    }
}

impl Most {
    /// What a look at one of so many agents reads, of those that are looked at together: as much of each as
    /// two looks of one agent in all, but enough to tell something.
    pub(crate) fn of_one(agents: usize) -> Self {
        let share = |most: usize, least: usize| (2 * most / agents.max(1)).clamp(least, most);
        Self {
            decisions: share(MAX_DECISIONS, LEAST_DECISIONS),
            traces: share(MAX_TRACES, LEAST_TRACES),
            summaries: share(MAX_SUMMARIES, LEAST_SUMMARIES),
        }
    }
}

/// Summaries in one answer of the store.
const SUMMARIES_PER_PAGE: usize = 500;

/// How long before a window its sessions may have begun, minutes.
const SESSION_LOOK_BACK_MIN: u64 = 60;

/// Traces that a finding names.
const EVIDENCE: usize = 5;

/// What is asked: whose signals, over which minutes, and which of them.
#[derive(Debug, Clone)]
pub(crate) struct Look<'a> {
    /// The agent; `None` for all.
    pub(crate) agent: Option<&'a str>,
    /// First minute, since the Unix epoch.
    pub(crate) from_min: u64,
    /// Minute after the last.
    pub(crate) to_min: u64,
    /// Signals of the table.
    pub(crate) names: BTreeSet<Name>,
    /// Signals of the team's own; what they are made of need not be named.
    pub(crate) composites: Vec<&'a CompositeSignal>,
    /// Of how much it reads.
    pub(crate) most: Most,
}

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The signals of the table.
    pub(crate) readings: BTreeMap<Name, Reading>,
    /// The team's own, each with the values of its parts.
    pub(crate) composites: BTreeMap<String, (CompositeValue, BTreeMap<String, f64>)>,
    /// Some of the traces.
    pub(crate) evidence: Vec<TraceId>,
}

impl<'a> Look<'a> {
    /// A look at nothing yet, over minutes from the first up to the second, which is not included.
    pub(crate) fn new(agent: Option<&'a str>, (from_min, to_min): (u64, u64)) -> Self {
        let (names, composites) = (BTreeSet::new(), Vec::new());
        Self { agent, from_min, to_min, names, composites, most: Most::default() }
    }

    /// Looks at a signal of the team's own too.
    pub(crate) fn add(&mut self, signal: &'a CompositeSignal) {
        if self.composites.iter().all(|known| known.name != signal.name) {
            self.composites.push(signal);
        }
    }

    fn needs(&self) -> BTreeSet<Name> {
        let parts = self.composites.iter().flat_map(|signal| signal.indicators());
        let defined = parts.filter_map(|(_, indicator)| match indicator {
            Indicator::Defined(name) => Some(*name),
            Indicator::Spans(_) => None,
        });
        self.names.iter().copied().chain(defined).collect()
    }

    /// Looks. Of `traces_left` what is read whole is taken.
    pub(crate) async fn see(
        &self,
        (reader, governance): Stores<'_>,
        objectives: Vec<ObjectiveReading>,
        traces_left: &mut usize,
    ) -> Result<Seen, RoundError> {
        let names = self.needs();
        let needs = |source| names.iter().any(|name| name.sources().contains(&source));
        let mut observed = Observed {
            from_unix_nano: self.from_min * MINUTE_NANOS,
            objectives,
            ..Observed::default()
        };
        let (mut tallies, mut seen) = (BTreeMap::new(), Seen::default());
        if needs(Source::Sums) {
            self.sums(reader, &mut observed).await?;
        }
        if needs(Source::Decisions) {
            self.decisions(reader, &mut observed).await?;
            for trace in observed.decisions.iter().rev().filter_map(|one| one.trace_id) {
                if seen.evidence.len() >= EVIDENCE {
                    break;
                }
                // A trace has many decisions, and shows what it shows once.
                if !seen.evidence.contains(&trace) {
                    seen.evidence.push(trace);
                }
            }
        }
        if needs(Source::Embeddings) {
            let from_min = self.from_min.saturating_sub(SESSION_LOOK_BACK_MIN);
            let span = (from_min * MINUTE_NANOS, self.to_min * MINUTE_NANOS);
            observed.made_embeddings = made_embeddings(governance, self.agent, span).await?;
        }
        if needs(Source::Sessions) {
            self.sessions(reader, &mut observed).await?;
        }
        if needs(Source::Traces) || self.composites.iter().any(|signal| signal.has_spans()) {
            let whole = self.traces(reader, &mut observed, &mut tallies, traces_left).await?;
            if seen.evidence.is_empty() {
                seen.evidence = whole.into_iter().take(EVIDENCE).collect();
            }
        }
        if needs(Source::Continuity) {
            observed.continuity = Some(self.continuity(reader).await?);
        }
        seen.readings = names.iter().map(|name| (*name, Reading::of(*name, &observed))).collect();
        for signal in &self.composites {
            let none = BTreeMap::new();
            let of_signal = tallies.get(&signal.name).unwrap_or(&none);
            let estimate = |name| seen.readings.get(&name).map(|one| one.estimate);
            let value = signal.evaluate(estimate, of_signal);
            let told = (value, parts(signal, &seen.readings, of_signal));
            seen.composites.insert(signal.name.clone(), told);
        }
        Ok(seen)
    }

    async fn sums(&self, reader: &Reader, observed: &mut Observed) -> Result<(), RoundError> {
        use OperationKind::{Role, Root};
        let agent = self.agent.map(|agent| (Dimension::Agent, agent.to_owned()));
        let query = SeriesQuery {
            filter: agent.into_iter().collect(),
            kinds: vec![Role(SpanRole::Step), Role(SpanRole::AgentRun), Root],
            step_seconds: 60,
            ..SeriesQuery::new(vec![Measure::Count], self.from_min * 60, self.to_min * 60)
        };
        let sums = reader.rollup_sums(&query).await?;
        let fallbacks = &mut observed.fallbacks;
        for (_, sum) in sums.groups.values().flatten() {
            let steps = [Role(SpanRole::Step), Role(SpanRole::AgentRun)];
            if let Some(of) = steps.iter().find_map(|kind| sum.operations(*kind)) {
                observed.durations.merge(&of.durations);
            }
            // What the series of an agent, and of all, have the ratio of.
            let kinds = match self.agent {
                Some(_) => [Role(SpanRole::AgentRun), Role(SpanRole::Step)],
                None => [Root, Role(SpanRole::AgentRun)],
            };
            let counted = kinds.iter().find_map(|kind| sum.operations(*kind));
            let counted = counted.map_or(0, |of| u64::try_from(of.count).unwrap_or(0));
            observed.operations += counted;
            observed.prompt_tokens.merge(&sum.prompt_tokens);
            fallbacks.triggered += sum.fallbacks.triggered;
            fallbacks.succeeded += sum.fallbacks.succeeded;
            fallbacks.failed += sum.fallbacks.failed;
            fallbacks.skipped += sum.fallbacks.skipped;
        }
        Ok(())
    }

    async fn decisions(&self, reader: &Reader, observed: &mut Observed) -> Result<(), RoundError> {
        let from = self.from_min.saturating_sub(SESSION_LOOK_BACK_MIN) * MINUTE_NANOS;
        let filter = DecisionFilter {
            agent: self.agent.map(str::to_owned),
            after_unix_nano: Some(from),
            before_unix_nano: Some(self.to_min * MINUTE_NANOS),
            ..DecisionFilter::default()
        };
        let (found, is_cut) = newest(reader, &filter, self.most.decisions, |_| true).await?;
        observed.decisions = found;
        observed.decisions.sort_by_key(|one| one.timestamp_ns);
        if is_cut {
            let told = format!("the newest {} decisions", self.most.decisions);
            observed.cut.push((Source::Decisions, told));
        }
        Ok(())
    }

    /// When sessions began: whoever began them, the agent that is meant or another.
    async fn sessions(&self, reader: &Reader, observed: &mut Observed) -> Result<(), RoundError> {
        let from = self.from_min.saturating_sub(SESSION_LOOK_BACK_MIN);
        let filter = self.filter(None, from);
        let (found, is_cut) = summaries(reader, &filter, self.most.summaries).await?;
        for trace in found {
            for session in trace.sessions {
                let known = observed.session_starts.entry(session).or_insert(trace.start_unix_nano);
                *known = trace.start_unix_nano.min(*known);
            }
        }
        if is_cut {
            let told = format!("sessions of the newest {} traces", self.most.summaries);
            observed.cut.push((Source::Sessions, told));
        }
        Ok(())
    }

    async fn traces(
        &self,
        reader: &Reader,
        observed: &mut Observed,
        tallies: &mut BTreeMap<String, BTreeMap<String, Tally>>,
        traces_left: &mut usize,
    ) -> Result<Vec<TraceId>, RoundError> {
        let most = self.most.traces.min(*traces_left);
        let filter = self.filter(self.agent, self.from_min);
        let (found, is_cut) = summaries(reader, &filter, most).await?;
        *traces_left -= found.len();
        let (mut read, mut lost) = (Vec::new(), 0);
        for summary in found {
            // It may have been retired a moment ago, and of one that is not whole nobody knows the end.
            let trace = reader.trace(summary.trace_id).await?;
            let Some(trace) = trace.filter(|one| !one.is_skeleton && one.truncated.is_none())
            else {
                lost += 1;
                continue;
            };
            observed.traces.push(TraceFacts::of(&trace.spans, &trace.decisions));
            for signal in self.composites.iter().filter(|signal| signal.has_spans()) {
                let of_signal = tallies.entry(signal.name.clone()).or_default();
                trace.spans.iter().for_each(|span| signal.observe(span, of_signal));
            }
            read.push(summary.trace_id);
        }
        if is_cut {
            observed.cut.push((Source::Traces, format!("the newest {most} traces")));
        }
        if lost > 0 {
            let told = format!("without {lost} traces that are not whole");
            observed.cut.push((Source::Traces, told));
        }
        Ok(read)
    }

    /// Spans that name a parent and were judged, and those that lost it: of all services, or of those that
    /// the agent's newest traces name.
    async fn continuity(&self, reader: &Reader) -> Result<(u64, u64), RoundError> {
        let report = reader.continuity(self.from_min * MINUTE_NANOS).await?;
        let services: Option<BTreeSet<String>> = match self.agent {
            None => None,
            Some(_) => {
                let filter = self.filter(self.agent, self.from_min);
                let (found, _) = summaries(reader, &filter, self.most.traces).await?;
                Some(found.into_iter().flat_map(|trace| trace.services).collect())
            }
        };
        let meant = report
            .services
            .iter()
            .filter(|one| services.as_ref().is_none_or(|names| names.contains(&one.service)));
        Ok(meant.fold((0, 0), |(judged, lost), one| {
            let of_service = one.with_parent.saturating_sub(one.waiting + one.untracked);
            (judged + of_service, lost + one.lost)
        }))
    }

    fn filter(&self, agent: Option<&str>, from_min: u64) -> TraceFilter {
        TraceFilter {
            agent: agent.map(str::to_owned),
            start_after_unix_nano: Some(from_min * MINUTE_NANOS),
            start_before_unix_nano: Some(self.to_min * MINUTE_NANOS),
            ..TraceFilter::default()
        }
    }
}

/// The values of a signal's parts that are known.
fn parts(
    signal: &CompositeSignal,
    readings: &BTreeMap<Name, Reading>,
    tallies: &BTreeMap<String, Tally>,
) -> BTreeMap<String, f64> {
    let value = |(name, indicator): (&str, &Indicator)| {
        let estimate = match indicator {
            Indicator::Defined(id) => readings.get(id).map(|one| one.estimate),
            Indicator::Spans(spans) => tallies.get(name).map(|tally| spans.estimate(tally)),
        };
        Some((name.to_owned(), estimate?.usable()?))
    };
    signal.indicators().filter_map(value).collect()
}

/// The newest summaries of a filter, so many at most, and whether there are more.
pub(super) async fn summaries(
    reader: &Reader,
    filter: &TraceFilter,
    most: usize,
) -> Result<(Vec<TraceSummary>, bool), RoundError> {
    let (mut found, mut cursor) = (Vec::new(), None);
    while found.len() < most {
        let rows = SUMMARIES_PER_PAGE.min(most - found.len());
        let page = reader.traces(filter, cursor.as_deref(), rows).await?;
        found.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            return Ok((found, false));
        }
    }
    Ok((found, true))
}
