//! Examples for findings that are made of counters: traces with an event that was bad, so that a broken objective
//! or contract shows what broke it.

use std::collections::HashMap;

use throughline_govern::Rules;
use throughline_govern::slo::{Indicator, Slo};
use throughline_store::{Evaluation, Reader, TraceFilter};
use throughline_trace::{Finding, FindingState, Span, TraceId};

use super::{MINUTE_NANOS, RoundError};

/// Traces that a finding names.
const EVIDENCE: usize = 5;

/// Traces that are looked at whole for one finding, the newest.
const MAX_TRACES: usize = 200;

/// Traces in one answer of the store.
const TRACES_PER_PAGE: usize = 100;

/// Findings for which something is sought in one round; the others wait for the next.
const MAX_SOUGHT: usize = 5;

/// Findings whose examples are remembered.
const MAX_KNOWN: usize = 1_000;

/// How long before what counted bad its trace may have begun, nanoseconds.
const LONGEST_NANOS: u64 = 10 * MINUTE_NANOS;

/// Before the name of a policy in the name of its rule.
const OF_POLICY: &str = "policy:";

/// What was found: each finding is sought for once, also when nothing is.
#[derive(Debug, Default)]
pub(super) struct Examples {
    known: HashMap<String, Vec<TraceId>>,
}

impl Examples {
    /// Gives findings of SLOs and contracts that fire examples, and the actions that they led to.
    pub(super) async fn fill(
        &mut self,
        rules: &Rules,
        reader: &Reader,
        evaluation: &mut Evaluation,
    ) -> Result<(), RoundError> {
        let mut sought = 0;
        for finding in &mut evaluation.findings {
            if finding.state != FindingState::Firing || !finding.evidence.is_empty() {
                continue;
            }
            let Some(slo) = slo_of(rules, finding) else { continue };
            if !self.known.contains_key(&finding.id) {
                if sought == MAX_SOUGHT {
                    continue;
                }
                sought += 1;
                if self.known.len() >= MAX_KNOWN {
                    self.known.clear();
                }
                let found = seek(reader, slo, finding).await?;
                self.known.insert(finding.id.clone(), found);
            }
            finding.evidence = self.known.get(&finding.id).cloned().unwrap_or_default();
        }
        for action in &mut evaluation.actions {
            if let Some(found) = self.known.get(&action.finding)
                && action.evidence.is_empty()
            {
                action.evidence.clone_from(found);
            }
        }
        Ok(())
    }
}

/// The SLO that a finding is about: its own, or that by which a contract is watched.
fn slo_of<'r>(rules: &'r Rules, finding: &Finding) -> Option<&'r Slo> {
    let name = finding.subject.get("slo").or_else(|| finding.rule.strip_prefix(OF_POLICY))?;
    rules.slos.iter().find(|slo| slo.name == name)
}

async fn seek(reader: &Reader, slo: &Slo, finding: &Finding) -> Result<Vec<TraceId>, RoundError> {
    let meant = finding.subject.get("objective");
    let objectives = slo.objectives.iter();
    let objectives = objectives.filter(|one| meant.is_none_or(|meant| one.name == meant));
    let indicators: Vec<&Indicator> = objectives.map(|one| &*one.indicator).collect();
    let label = |wanted: &str| {
        let labels = indicators.first().map(|one| one.labels()).unwrap_or_default();
        labels.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.clone())
    };
    let filter = TraceFilter {
        agent: label("agent"),
        model: label("model"),
        start_after_unix_nano: Some(finding.from_unix_nano.saturating_sub(LONGEST_NANOS)),
        start_before_unix_nano: Some(finding.to_unix_nano),
        ..TraceFilter::default()
    };
    let (mut found, mut cursor, mut looked) = (Vec::new(), None, 0);
    while looked < MAX_TRACES {
        let page = reader.traces(&filter, cursor.as_deref(), TRACES_PER_PAGE).await?;
        for summary in page.items {
            looked += 1;
            let Some(trace) = reader.trace(summary.trace_id).await? else { continue };
            if trace.spans.iter().any(|span| is_bad(&indicators, span)) {
                found.push(summary.trace_id);
            }
            if found.len() == EVIDENCE {
                return Ok(found);
            }
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    Ok(found)
}

fn is_bad(indicators: &[&Indicator], span: &Span) -> bool {
    let mut observed = indicators.iter().filter_map(|indicator| indicator.observe(span));
    observed.any(|seen| seen.good < seen.total)
}
