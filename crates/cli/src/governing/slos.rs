//! SLOs: their counters from the store, their state and findings to it.

use std::collections::HashMap;
use std::sync::Arc;

use prometheus_client::registry::Registry;
use throughline_govern::slo::{ObjectiveStatus, Slo, SloState, evaluate, withdraw};
use throughline_govern::{CounterTable, Rules};
use throughline_store::{Evaluation, Governance, IndicatorQuery, Reader, RuleState};
use throughline_trace::{Counts, Resolution};

use super::slo_metrics::SloMetrics;
use super::{MINUTE_NANOS, RoundError, states};

/// Minutes at the end that every round reads anew: what arrives late changes them.
const FRESH_MIN: u64 = 15;

/// Rounds after which everything is read anew: what arrives very late changes that.
const ROUNDS_PER_WHOLE: u64 = 60;

/// Minutes that are read by the minute; what is older by the hour.
const BY_THE_MINUTE_MIN: u64 = 4 * 24 * 60;

/// How long a minute waits for what is stored and not counted yet, nanoseconds.
const MAX_WAIT_NANOS: u64 = 600_000_000_000;

/// Before the name of a rule's state.
const STATE_PREFIX: &str = "slo/";

/// What is remembered between rounds.
#[derive(Debug)]
pub(super) struct Slos {
    metrics: SloMetrics,
    table: CounterTable,
    states: Option<HashMap<String, SloState>>,
    rounds: u64,
    known: Read,
}

/// What was read the last time.
#[derive(Debug, Default, PartialEq)]
struct Read {
    indicators: Vec<Arc<str>>,
    /// From which second on each is whole.
    coverage: HashMap<Arc<str>, u64>,
    oldest_min: u64,
    /// Minutes before this one were counted whole.
    settled_min: u64,
}

/// How objectives are doing at a moment (nanoseconds since the Unix epoch) for somebody who only looks:
/// nothing is committed.
pub(crate) async fn statuses(
    rules: &Arc<Rules>,
    stores: (&Reader, &Governance),
    now: u64,
) -> Result<Vec<ObjectiveStatus>, RoundError> {
    let mut slos = Slos::new(SloMetrics::register(&mut Registry::default()));
    slos.evaluate(rules, stores, now, &mut Evaluation::default()).await
}

impl Slos {
    /// Nothing is known yet.
    pub(super) fn new(metrics: SloMetrics) -> Self {
        let (table, states, known) = (CounterTable::default(), None, Read::default());
        Self { metrics, table, states, rounds: 0, known }
    }

    /// What was not committed did not happen: it is read back before the next round.
    pub(super) fn forget(&mut self) {
        (self.states, self.rounds) = (None, 0);
    }

    /// Evaluates all of them at a moment, nanoseconds since the Unix epoch.
    pub(super) async fn evaluate(
        &mut self,
        rules: &Arc<Rules>,
        (reader, governance): (&Reader, &Governance),
        now: u64,
        evaluation: &mut Evaluation,
    ) -> Result<Vec<ObjectiveStatus>, RoundError> {
        if self.states.is_none() {
            self.states = Some(load(governance).await?);
        }
        let counted_min = self.refresh(&rules.slos, reader, now).await?;
        // A minute is judged once, so it waits for what is stored and not counted yet; not for ever, so
        // that counters which stand still are told as such.
        let now = now.min((counted_min * MINUTE_NANOS).max(now.saturating_sub(MAX_WAIT_NANOS)));
        // Lent: a thousand SLOs have hundreds of megabytes of counters.
        let (table, mut states) =
            (std::mem::take(&mut self.table), self.states.take().unwrap_or_default());
        let asked = Arc::clone(rules);
        // Thousands of SLOs are work for a while.
        let (said, states, table) = tokio::task::spawn_blocking(move || {
            let said: Vec<_> = asked
                .slos
                .iter()
                .map(|slo| {
                    let state = states.remove(&slo.name).unwrap_or_default();
                    let known = (state.evaluated_min, state.version.clone());
                    (slo.name.clone(), known, evaluate(slo, &table, now, state))
                })
                .collect();
            (said, states, table)
        })
        .await?;
        self.table = table;
        let mut statuses = Vec::new();
        let mut kept = HashMap::with_capacity(said.len());
        for (name, known, evaluated) in said {
            evaluation.findings.extend(evaluated.findings);
            evaluation.actions.extend(evaluated.actions);
            statuses.extend(evaluated.statuses);
            // It changes by the minute, or with the SLO.
            if known != (evaluated.state.evaluated_min, evaluated.state.version.clone()) {
                evaluation.states.push(state_of(&name, &evaluated.state));
            }
            kept.insert(name, evaluated.state);
        }
        // What fires of those that are no more is over.
        for (name, state) in states {
            evaluation.findings.extend(withdraw(state, now));
            evaluation.states.push(state_of(&name, &SloState::default()));
        }
        self.states = Some(kept);
        self.metrics.tell(&rules.slos, &self.table, &statuses, now / MINUTE_NANOS);
        Ok(statuses)
    }

    /// Brings the counters up to date; answers up to which minute they are whole as far as what is stored
    /// goes.
    async fn refresh(
        &mut self,
        slos: &[Slo],
        reader: &Reader,
        now: u64,
    ) -> Result<u64, RoundError> {
        let needs: Vec<_> = slos.iter().flat_map(|slo| slo.needs(now)).collect();
        let mut indicators: Vec<Arc<str>> =
            needs.iter().map(|need| Arc::from(need.indicator.as_str())).collect();
        indicators.sort();
        indicators.dedup();
        let to_min = now / MINUTE_NANOS + 1;
        let oldest = needs.iter().map(|need| need.from_min).min().unwrap_or(to_min);
        if indicators.is_empty() {
            return Ok(to_min);
        }
        let mut is_whole = self.rounds.is_multiple_of(ROUNDS_PER_WHOLE)
            || indicators != self.known.indicators
            || oldest < self.known.oldest_min;
        loop {
            let known = self.read(&indicators, (oldest, to_min), reader, is_whole).await?;
            // A segment was counted meanwhile: what was not there before is now.
            let before = &self.known.coverage;
            let has_grown = known
                .coverage
                .iter()
                .any(|(id, from)| before.get(id).is_none_or(|then| from < then));
            self.known = known;
            if is_whole || !has_grown {
                break;
            }
            is_whole = true;
        }
        self.rounds += 1;
        self.table.keep(&self.known.indicators, oldest / 60 * 60);
        Ok(self.known.settled_min)
    }

    async fn read(
        &mut self,
        indicators: &[Arc<str>],
        (oldest, to_min): (u64, u64),
        reader: &Reader,
        is_whole: bool,
    ) -> Result<Read, RoundError> {
        let fresh_from = match is_whole {
            true => to_min.saturating_sub(BY_THE_MINUTE_MIN),
            // Also what was not counted then.
            false => to_min.min(self.known.settled_min).saturating_sub(FRESH_MIN),
        };
        let mut by_minute: HashMap<Arc<str>, Vec<(u64, Counts)>> = HashMap::new();
        let mut from_min = fresh_from;
        if is_whole && oldest < fresh_from {
            // Whole hours, so that none is there twice.
            from_min = fresh_from / 60 * 60;
            let query = query(indicators, Resolution::Hour, oldest, from_min);
            for (id, counts) in reader.indicators(query).await?.counts {
                by_minute.entry(id).or_default().extend(in_minutes(counts));
            }
        }
        let begin = if is_whole { 0 } else { from_min };
        let query = query(indicators, Resolution::Minute, from_min, to_min);
        let answer = reader.indicators(query).await?;
        for (id, counts) in answer.counts {
            by_minute.entry(id).or_default().extend(in_minutes(counts));
        }
        let mut coverage = HashMap::with_capacity(indicators.len());
        for id in indicators {
            self.table.replace_from(id, begin, by_minute.remove(id).unwrap_or_default());
            match answer.coverage.get(id) {
                Some(found) => {
                    self.table.cover(id, found.from_unix_seconds.div_ceil(60));
                    coverage.insert(Arc::clone(id), found.from_unix_seconds);
                }
                None => self.table.cover(id, u64::MAX),
            }
        }
        let settled_min =
            answer.watermark_unix_nano.map_or(to_min, |nanos| (nanos / MINUTE_NANOS).min(to_min));
        self.table.set_watermark(settled_min);
        Ok(Read { indicators: indicators.to_vec(), coverage, oldest_min: oldest, settled_min })
    }
}

fn query(indicators: &[Arc<str>], resolution: Resolution, from: u64, to: u64) -> IndicatorQuery {
    IndicatorQuery {
        indicators: indicators.to_vec(),
        resolution,
        from_unix_seconds: from * 60,
        to_unix_seconds: to * 60,
    }
}

fn in_minutes(counts: Vec<(u64, Counts)>) -> impl Iterator<Item = (u64, Counts)> {
    counts.into_iter().map(|(seconds, counts)| (seconds / 60, counts))
}

fn state_of(name: &str, state: &SloState) -> RuleState {
    states::row(STATE_PREFIX, name, &state.version, state)
}

async fn load(governance: &Governance) -> Result<HashMap<String, SloState>, RoundError> {
    let mut known: HashMap<String, SloState> = states::load(governance, STATE_PREFIX).await?;
    // That of one that was withdrawn is empty.
    known.retain(|_, state| !state.version.is_empty());
    Ok(known)
}
