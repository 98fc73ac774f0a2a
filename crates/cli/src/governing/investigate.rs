//! Root-cause analysis: what the bad traces behind a finding have in common, and which change came
//! before.

use std::collections::BTreeMap;

use throughline_act::Performed;
use throughline_govern::cause::{Case, CauseConfig, Change, find_cause, paragraph};
use throughline_govern::rollout::Rollout;
use throughline_store::{Evaluation, FindingFilter, Governance, Reader, TraceFilter};
use throughline_trace::{
    Action, Attributes, Finding, FindingSeverity, FindingState, MAX_EVIDENCE_TRACES, Span,
    SpanRole, TraceSummary, Value, finding_id,
};

use super::rollouts::KIND as ROLLOUT_KIND;
use super::{RoundError, now_unix_nano};

/// Kind of the findings that say it.
const FINDING: &str = "root_cause";

/// Traces that are looked at whole.
const MAX_TRACES: usize = 300;

/// Traces in one answer of the store.
const TRACES_PER_PAGE: usize = 100;

/// How long before the finding's own time good traces are looked for, nanoseconds.
const LOOK_BACK_NANOS: u64 = 10 * 60 * 1_000_000_000;

/// How much longer than usual a trace is that counts as bad, where none failed.
const SLOW_RATIO: f64 = 2.0;

/// Failed traces from which failing is what is bad, not slowness.
const MIN_FAILED: usize = 10;

/// Longest value that is an attribute of a case, bytes: what is longer is content.
const MAX_VALUE_BYTES: usize = 100;

/// Values of one attribute beyond which it tells single cases, not what they share.
const MAX_VALUES: usize = 40;

/// Attributes that are never a cause: they are the trouble itself, or differ from case to case.
const NO_CAUSE: [&str; 14] = [
    "outcome",
    "error.type",
    "error.message",
    "session_id",
    "workflow_id",
    "agent_id",
    "gen_ai.response.id",
    "gen_ai.conversation.id",
    "gen_ai.response.finish_reasons",
    "decision_id",
    "enduser.id",
    "user.id",
    "http.response.status_code",
    "status_code",
];

/// Looks for the cause of what an action's finding tells, and writes it down as a finding of its own.
pub(super) async fn investigate(
    reader: &Reader,
    governance: &Governance,
    action: &Action,
) -> Result<Performed, RoundError> {
    let (store, id) = (governance.clone(), action.finding.clone());
    let found = tokio::task::spawn_blocking(move || store.finding(&id)).await??;
    let Some(finding) = found else {
        return Ok(Performed::Failed(
            "expected the finding to investigate, it is not there".to_owned(),
        ));
    };
    let summaries = traces(reader, &finding).await?;
    if summaries.is_empty() {
        return Ok(Performed::Failed("no trace of what it is about is stored".to_owned()));
    }
    let cases = cases(reader, &finding, &summaries).await?;
    let store = governance.clone();
    let changes = tokio::task::spawn_blocking(move || changes(&store)).await??;
    let cause = find_cause(&cases, &changes, finding.from_unix_nano, &CauseConfig::default());
    let text = paragraph(&cause, "bad traces", "good ones");
    let evidence = cases.iter().filter(|case| case.is_bad).filter_map(|case| case.trace_id);
    let now = now_unix_nano();
    let told = Finding {
        id: finding_id(FINDING, &finding.rule_version, &finding.subject, finding.since_unix_nano),
        rule: finding.rule.clone(),
        kind: FINDING.to_owned(),
        severity: FindingSeverity::Info,
        state: FindingState::Resolved,
        since_unix_nano: now,
        at_unix_nano: now,
        to_unix_nano: now,
        summary: text.clone(),
        values: BTreeMap::from([
            ("bad_traces".to_owned(), cause.bad as f64),
            ("good_traces".to_owned(), cause.good as f64),
        ]),
        confidence: cause.confidence,
        evidence: evidence.take(MAX_EVIDENCE_TRACES).collect(),
        ..finding
    };
    let (store, evaluation) =
        (governance.clone(), Evaluation { findings: vec![told], ..Evaluation::default() });
    tokio::task::spawn_blocking(move || store.commit(&evaluation)).await??;
    Ok(Performed::Done(text))
}

/// The traces of the finding's agent or service, from a while before it.
async fn traces(reader: &Reader, finding: &Finding) -> Result<Vec<TraceSummary>, RoundError> {
    let of = |name: &str| finding.subject.get(name).map(str::to_owned);
    let filter = TraceFilter {
        agent: of("agent"),
        model: of("model"),
        // That of an SLO groups SLOs for people, and no sender need have the name.
        service: of("service").filter(|_| of("slo").is_none()),
        start_after_unix_nano: Some(finding.from_unix_nano.saturating_sub(LOOK_BACK_NANOS)),
        ..TraceFilter::default()
    };
    let (mut found, mut cursor) = (Vec::new(), None);
    while found.len() < MAX_TRACES {
        let page = reader.traces(&filter, cursor.as_deref(), TRACES_PER_PAGE).await?;
        found.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    found.truncate(MAX_TRACES);
    Ok(found)
}

/// Each trace as a case: whether it is bad, and what its spans say.
async fn cases(
    reader: &Reader,
    finding: &Finding,
    summaries: &[TraceSummary],
) -> Result<Vec<Case>, RoundError> {
    let is_failed = |one: &TraceSummary| {
        one.root.as_ref().is_some_and(|root| root.is_error) || one.error_count > 0
    };
    let failed = summaries.iter().filter(|one| is_failed(one)).count();
    let agent = finding.subject.get("agent");
    let (mut found, mut lengths) = (Vec::with_capacity(summaries.len()), Vec::new());
    for summary in summaries {
        let Some(trace) = reader.trace(summary.trace_id).await? else { continue };
        let mut attributes = BTreeMap::new();
        trace.spans.iter().for_each(|span| gather(span, &mut attributes));
        let trace_id = Some(summary.trace_id);
        found.push(Case { trace_id, is_bad: is_failed(summary), attributes });
        lengths.push(length(&trace.spans, agent).unwrap_or_else(|| summary.duration_nano()));
    }
    if failed < MIN_FAILED {
        let limit = slow_limit(finding, &lengths);
        for (case, length) in found.iter_mut().zip(&lengths) {
            case.is_bad = *length as f64 > limit;
        }
    }
    drop_unique(&mut found);
    Ok(found)
}

/// From which length on a trace is slow, nanoseconds: twice what the stable version's p95 is, where
/// the finding tells it, else twice the median.
fn slow_limit(finding: &Finding, lengths: &[u64]) -> f64 {
    if let Some(usual) = finding.values.get("agent_decision_latency_p95_stable") {
        return usual * 1e9 * SLOW_RATIO;
    }
    let mut lengths = lengths.to_vec();
    lengths.sort_unstable();
    lengths.get(lengths.len() / 2).map_or(f64::MAX, |median| *median as f64 * SLOW_RATIO)
}

/// How long the longest decision-bearing step took, of this agent if one is named: what the finding's own
/// numbers are of. Where there are no steps, the longest run; nanoseconds.
fn length(spans: &[Span], agent: Option<&str>) -> Option<u64> {
    let of = |role: SpanRole| {
        let is_of = |span: &&Span| {
            span.role() == role && agent.is_none_or(|agent| span.attributes.agent() == Some(agent))
        };
        let long = |span: &Span| span.end_unix_nano.saturating_sub(span.start_unix_nano);
        spans.iter().filter(is_of).map(long).max()
    };
    of(SpanRole::Step).or_else(|| of(SpanRole::AgentRun))
}

/// What a span says that cases may share. The first that says it counts: callers before callees.
fn gather(span: &Span, into: &mut BTreeMap<String, String>) {
    let mut take = |attributes: &Attributes, is_of_sender: bool| {
        for (key, value) in attributes.iter() {
            let is_wanted = match is_of_sender {
                true => matches!(
                    key,
                    "service.version"
                        | "deployment.environment.name"
                        | "cloud.region"
                        | "host.name"
                        | "k8s.pod.name"
                ),
                false => !NO_CAUSE.contains(&key) && !key.starts_with("throughline."),
            };
            if let (true, Value::String(text)) = (is_wanted, value)
                && !text.is_empty()
                && text.len() <= MAX_VALUE_BYTES
            {
                into.entry(key.to_owned()).or_insert_with(|| text.clone());
            }
        }
    };
    take(&span.attributes, false);
    take(&span.resource.attributes, true);
}

/// Takes out attributes that differ from case to case.
fn drop_unique(cases: &mut [Case]) {
    let mut values: BTreeMap<String, std::collections::BTreeSet<String>> = BTreeMap::new();
    for case in cases.iter() {
        for (key, value) in &case.attributes {
            values.entry(key.clone()).or_default().insert(value.clone());
        }
    }
    for case in cases {
        case.attributes
            .retain(|key, _| values.get(key).is_some_and(|some| some.len() <= MAX_VALUES));
    }
}

/// What was changed: versions that rollouts tried.
fn changes(governance: &Governance) -> Result<Vec<Change>, throughline_store::ControlError> {
    let mut found = Vec::new();
    for document in governance.documents(ROLLOUT_KIND)? {
        let Ok(rollout) = serde_json::from_str::<Rollout>(&document.body) else { continue };
        for change in rollout.changes.iter().filter(|change| change.kind == "started") {
            found.push(Change {
                at_unix_nano: change.at_unix_nano,
                kind: "model_version".to_owned(),
                subject: rollout.name.clone(),
                from: rollout.stable.clone(),
                to: change.version.clone(),
            });
        }
    }
    Ok(found)
}

/// What fires of a rule, for whoever may end it.
pub(super) async fn firing(
    governance: &Governance,
    rule: &str,
) -> Result<Vec<Finding>, RoundError> {
    let filter =
        FindingFilter { is_firing: true, rule: Some(rule.to_owned()), ..FindingFilter::default() };
    let governance = governance.clone();
    Ok(tokio::task::spawn_blocking(move || governance.findings(&filter)).await??)
}
