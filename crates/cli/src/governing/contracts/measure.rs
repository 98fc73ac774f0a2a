//! What providers answer: proposals are counted by the store as contracts are, and answered when what is
//! stored is counted whole.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use throughline_govern::contract::{
    Gauges, Measured, Offer, Proposal, ProposalState, Side, Verdict, answer, explain,
};
use throughline_govern::slo::Indicator;
use throughline_store::{Evaluation, IndicatorQuery, Reader, TraceFilter};
use throughline_trace::{Action, ContractStep, Counts, Operation, Resolution, Subject, TraceId};

use super::{Contracts, lock};
use crate::governing::{MINUTE_NANOS, RoundError};

/// How long an answer waits for what is stored to be counted whole, nanoseconds; then it stands on what is.
const MAX_WAIT_NANOS: u64 = 600_000_000_000;

/// How often what lacked calls is looked at again, nanoseconds.
const AGAIN_NANOS: u64 = MINUTE_NANOS;

/// How often what still lacks calls is told anew, nanoseconds.
const TOLD_AGAIN_NANOS: u64 = 3_600_000_000_000;

/// Minutes that are read by the minute; what is older by the hour.
const BY_THE_MINUTE_MIN: u64 = 4 * 24 * 60;

/// Traces that are looked at for examples at most, the newest.
const MAX_LOOKED_AT: usize = 50;

/// Traces that an answer names.
const EVIDENCE: usize = 5;

/// What is counted for proposals that wait for their provider.
#[derive(Default)]
pub(super) struct Measuring {
    waiting: BTreeMap<(String, u64, u64), Waiting>,
}

#[derive(Clone)]
struct Waiting {
    gauges: Arc<Gauges>,
    /// When it was looked at last, nanoseconds since the Unix epoch.
    looked_unix_nano: u64,
}

impl Contracts {
    /// What the store shall count for proposals, beside what is counted for rules.
    pub(in crate::governing) fn indicators(&self) -> Result<Vec<Arc<Indicator>>, RoundError> {
        let all = self.all()?;
        let mut measuring = lock(&self.measuring);
        let mut known = std::mem::take(&mut measuring.waiting);
        for kept in all.iter() {
            let Some((proposal, offer)) = kept.contract.open().and_then(waits) else { continue };
            let key = (kept.contract.name.clone(), proposal.number, offer.number);
            let waiting = match known.remove(&key) {
                Some(waiting) => waiting,
                None => match Gauges::of(&offer.terms) {
                    Ok(gauges) => Waiting { gauges: Arc::new(gauges), looked_unix_nano: 0 },
                    Err(error) => {
                        tracing::error!(contract = key.0, error, "a proposal cannot be measured");
                        continue;
                    }
                },
            };
            measuring.waiting.insert(key, waiting);
        }
        let gauges = measuring.waiting.values().flat_map(|waiting| waiting.gauges.indicators());
        Ok(gauges.map(Arc::clone).collect())
    }

    /// Asks for the answers that can be given at a moment, nanoseconds since the Unix epoch.
    pub(in crate::governing) async fn measure(
        &self,
        reader: &Reader,
        now: u64,
        evaluation: &mut Evaluation,
    ) -> Result<(), RoundError> {
        let waiting: Vec<_> = {
            let measuring = lock(&self.measuring);
            let due = measuring.waiting.iter();
            due.map(|(key, one)| (key.clone(), one.clone())).collect()
        };
        if waiting.is_empty() || self.governance.pause()?.is_on {
            return Ok(());
        }
        let all = self.all()?;
        for (key, Waiting { gauges, looked_unix_nano }) in waiting {
            let contract = all.iter().map(|kept| &kept.contract).find(|one| one.name == key.0);
            let Some((proposal, offer)) = contract.and_then(|one| one.open()).and_then(waits)
            else {
                continue;
            };
            let is_again = proposal.state == ProposalState::Insufficient;
            let is_early = is_again && now < looked_unix_nano.saturating_add(AGAIN_NANOS);
            if is_early || (proposal.number, offer.number) != (key.1, key.2) {
                continue;
            }
            if let Some(one) = lock(&self.measuring).waiting.get_mut(&key) {
                one.looked_unix_nano = now;
            }
            let Some(measured) = measured(reader, &gauges, (proposal, offer), now).await? else {
                continue;
            };
            if is_said(offer, &measured, now) {
                continue;
            }
            let evidence = examples(reader, &gauges.proposed, offer, &measured).await?;
            let (name, number, last) = &key;
            let to_min = measured.to_unix_nano / MINUTE_NANOS;
            let id = format!("contract/{name}/{number}/{last}/answer/{to_min}");
            let reason = explain(&offer.terms, &measured);
            let measured = serde_json::to_value(&measured).unwrap_or_default();
            let step = ContractStep::Answer { proposal: *number, offer: *last, measured };
            evaluation.actions.push(Action {
                id,
                finding: String::new(),
                rule: format!("contract:{name}"),
                rule_version: String::new(),
                subject: Subject::of("contract", name.as_str()),
                at_unix_nano: now,
                operation: Operation::Contract { contract: name.clone(), step },
                reason,
                evidence,
                cool_down_s: 0,
                is_dry_run: false,
            });
        }
        Ok(())
    }
}

/// The offer that waits for what is measured.
fn waits(proposal: &Proposal) -> Option<(&Proposal, &Offer)> {
    let is_of_provider = proposal.state.turn() == Some(Side::Provider);
    proposal.last().filter(|_| is_of_provider).map(|offer| (proposal, offer))
}

/// Whether too few calls were told not long ago, and still are.
fn is_said(offer: &Offer, measured: &Measured, now: u64) -> bool {
    let is_few = |verdict: &Verdict| matches!(verdict, Verdict::Insufficient { .. });
    offer.answer.as_ref().is_some_and(|said| {
        is_few(&said.verdict)
            && is_few(&answer(&offer.terms, measured))
            && now < said.at_unix_nano.saturating_add(TOLD_AGAIN_NANOS)
    })
}

/// What was counted; `None` while what is stored is not counted whole.
async fn measured(
    reader: &Reader,
    gauges: &Gauges,
    (proposal, offer): (&Proposal, &Offer),
    now: u64,
) -> Result<Option<Measured>, RoundError> {
    let to_min = now / MINUTE_NANOS;
    let mut from_min = to_min.saturating_sub(proposal.measured_over_s / 60);
    let fresh_from = to_min.saturating_sub(BY_THE_MINUTE_MIN) / 60 * 60;
    let mut indicators: Vec<Arc<str>> =
        gauges.indicators().map(|one| Arc::from(one.id())).collect();
    indicators.sort();
    indicators.dedup();
    let query = |resolution, from: u64, to: u64| IndicatorQuery {
        indicators: indicators.clone(),
        resolution,
        from_unix_seconds: from * 60,
        to_unix_seconds: to * 60,
    };
    let minutes = query(Resolution::Minute, from_min.max(fresh_from), to_min);
    let newest = reader.indicators(minutes).await?;
    let has_waited = now.saturating_sub(offer.at_unix_nano) > MAX_WAIT_NANOS;
    let is_behind =
        newest.watermark_unix_nano.is_some_and(|watermark| watermark < offer.at_unix_nano);
    let mut covered_min = 0;
    for id in &indicators {
        match newest.coverage.get(id) {
            Some(coverage) => {
                covered_min = covered_min.max(coverage.from_unix_seconds.div_ceil(60));
            }
            // Nobody counts it yet.
            None => return Ok(None),
        }
    }
    if (is_behind || covered_min > from_min) && !has_waited {
        return Ok(None);
    }
    // What was counted in part, or by the weights of sampling, is no evidence.
    from_min = from_min.max(covered_min).min(to_min);
    let mut counts = newest.counts;
    if from_min < fresh_from {
        let hours = query(Resolution::Hour, from_min.next_multiple_of(60), fresh_from);
        from_min = from_min.next_multiple_of(60);
        for (id, of_hours) in reader.indicators(hours).await?.counts {
            counts.entry(id).or_default().extend(of_hours);
        }
    }
    let sums: HashMap<Arc<str>, (i64, i64)> = counts
        .into_iter()
        .map(|(id, counts)| {
            let inside = counts.iter().filter(|(second, _)| *second >= from_min * 60);
            let sum = inside
                .fold((0, 0), |(total, good), (_, Counts { total: t, good: g, .. })| {
                    (total + t, good + g)
                });
            (id, sum)
        })
        .collect();
    let window = (from_min * MINUTE_NANOS, to_min * MINUTE_NANOS);
    let counted = |id: &str| sums.get(id).copied().unwrap_or_default();
    Ok(Some(gauges.measured(window, counted)))
}

/// Some of the traces with such calls: those that were not as proposed before others.
async fn examples(
    reader: &Reader,
    proposed: &Indicator,
    offer: &Offer,
    measured: &Measured,
) -> Result<Vec<TraceId>, RoundError> {
    let consumer = offer.terms.consumer().to_owned();
    let window = TraceFilter {
        start_after_unix_nano: Some(measured.from_unix_nano),
        start_before_unix_nano: Some(measured.to_unix_nano),
        ..TraceFilter::default()
    };
    let of_agent = TraceFilter { agent: Some(consumer.clone()), ..window.clone() };
    let mut found = reader.traces(&of_agent, None, MAX_LOOKED_AT).await?.items;
    if found.is_empty() {
        let of_service = TraceFilter { service: Some(consumer), ..window };
        found = reader.traces(&of_service, None, MAX_LOOKED_AT).await?.items;
    }
    let (mut bad, mut good) = (Vec::new(), Vec::new());
    for summary in found {
        if bad.len() >= EVIDENCE {
            break;
        }
        let Some(trace) = reader.trace(summary.trace_id).await? else { continue };
        let seen = trace.spans.iter().filter_map(|span| proposed.observe(span));
        let judged: Vec<_> = seen.filter(|seen| seen.total > 0).collect();
        match judged.iter().any(|seen| seen.good == 0) {
            true => bad.push(summary.trace_id),
            false if !judged.is_empty() => good.push(summary.trace_id),
            false => {}
        }
    }
    bad.extend(good);
    bad.truncate(EVIDENCE);
    Ok(bad)
}
