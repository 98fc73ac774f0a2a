//! Experiments: what the traces of both sides did, from the store; what becomes of it, to whoever is told
//! and to the weights of the route.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use throughline_govern::experiment::{
    Arm, ExperimentResult, ExperimentSpec, Looks, Runs, Stopped, Units, Verdict,
};
use throughline_store::{ControlError, Evaluation, Governance, Reader, SearchQuery, TraceFilter};
use throughline_trace::{
    Action, Finding, FindingSeverity, FindingState, Operation, RouteWeights, Subject, TraceId,
    TraceSummary, finding_id,
};
use throughline_web::governance::ExperimentStanding;

use super::{RoundError, states};

/// Kind of the documents that keep experiments.
pub(crate) const KIND: &str = "experiment";

/// Before the name of the state that keeps what was known over time.
pub(crate) const LOOKS_PREFIX: &str = "experiment-looks/";

/// Kind of the findings that tell a verdict.
const FINDING: &str = "experiment.verdict";

/// Traces of one side that are looked at. Beyond them nothing is decided any more: what is left out would
/// make the test another one.
const MAX_TRACES: usize = 10_000;

/// Traces in one answer of the store.
const TRACES_PER_PAGE: usize = 500;

/// How many times as long as a look took is waited before the next: reading traces has a tenth of a core.
const REST: u32 = 9;

/// What is remembered between rounds: what was said last, and when it may be looked again.
#[derive(Debug, Default)]
pub(super) struct Experiments {
    rests_until: Option<Instant>,
    standings: Vec<ExperimentStanding>,
    /// What was known over time, by experiment.
    looks: Option<HashMap<String, Looks>>,
}

impl Experiments {
    /// What was not committed did not happen.
    pub(super) fn forget(&mut self) {
        (self.rests_until, self.looks) = (None, None);
    }

    /// Looks at every experiment, up to a moment at which everything has arrived; nanoseconds
    /// since the Unix epoch.
    pub(super) async fn evaluate(
        &mut self,
        specs: &BTreeMap<String, ExperimentSpec>,
        (reader, governance): (&Reader, &Governance),
        settled: u64,
        evaluation: &mut Evaluation,
    ) -> Result<Vec<ExperimentStanding>, RoundError> {
        let is_same = self.standings.len() == specs.len()
            && self.standings.iter().all(|one| specs.get(&one.name) == Some(&one.spec));
        let began = Instant::now();
        if is_same && self.rests_until.is_some_and(|until| began < until) {
            return Ok(self.standings.clone());
        }
        if self.looks.is_none() {
            self.looks = Some(states::load(governance, LOOKS_PREFIX).await?);
        }
        let looks = self.looks.get_or_insert_default();
        let mut standings = Vec::new();
        for (name, spec) in specs {
            let stores = (reader, governance);
            let mut standing = one(name, spec, stores, settled, evaluation).await?;
            if let (Some(run), Some(result)) = (&standing.run, &standing.result) {
                let of = looks.entry(name.clone()).or_default();
                // The look that decides is the last.
                let at = run.decided_unix_nano.unwrap_or(settled);
                if run.stopped.is_none() && of.add(run.since_unix_nano, at, result) {
                    evaluation.states.push(states::row(LOOKS_PREFIX, name, "1", of));
                }
            }
            let of = looks.get(name).filter(|of| {
                standing.run.as_ref().is_some_and(|run| run.since_unix_nano == of.since_unix_nano)
            });
            standing.looks = of.map(|of| of.looks.clone()).unwrap_or_default();
            standings.push(standing);
        }
        self.rests_until = Some(Instant::now() + began.elapsed() * REST);
        self.standings.clone_from(&standings);
        Ok(standings)
    }
}

async fn one(
    name: &str,
    spec: &ExperimentSpec,
    (reader, governance): (&Reader, &Governance),
    now: u64,
    evaluation: &mut Evaluation,
) -> Result<ExperimentStanding, RoundError> {
    let (mut runs, version) = load(governance, name).await?;
    let mut standing = ExperimentStanding {
        name: name.to_owned(),
        spec: spec.clone(),
        run: None,
        result: None,
        looks: Vec::new(),
        note: String::new(),
    };
    if runs.of(spec).is_none() {
        let (asked, of, what) = (governance.clone(), spec.clone(), name.to_owned());
        let found = tokio::task::spawn_blocking(move || objection(&asked, &of, &what, now));
        if let Some(why) = found.await?? {
            standing.note = format!("It has not begun: {why}");
            return Ok(standing);
        }
        runs.begin(spec, now);
        if !write(governance, name, version, &runs).await? {
            standing.note = "It begins with the next round".to_owned();
            return Ok(standing);
        }
        return Ok(ExperimentStanding { run: runs.of(spec).cloned(), ..standing });
    }
    let Some(mut run) = runs.of(spec).cloned() else { return Ok(standing) };
    let id = finding_id(&rule(name), "1", &subject(name, spec), run.since_unix_nano);
    // By the one id it is asked for once, also when the first round that asked was not committed; it is of this
    // moment, as a person may have begun or stopped it while no server was there to follow.
    if run.is_on() {
        evaluation.actions.extend(divide(name, spec, &id, "begin", (spec.share, now)));
    }
    if let Some(Stopped { person, reason, .. }) = &run.stopped {
        standing.note = format!("{person} stopped it: {reason}");
        // Who is not compared any more is not tried any more either.
        evaluation.actions.extend(divide(name, spec, &id, "stop", (0, now)));
        return Ok(ExperimentStanding { run: Some(run), ..standing });
    }
    if run.result.is_none() {
        let looked = look(reader, spec, (run.since_unix_nano, now)).await?;
        standing.note = looked.note;
        if runs.decide(&looked.result, looked.evidence, now)
            && write(governance, name, version, &runs).await?
        {
            run = runs.of(spec).cloned().unwrap_or(run);
        }
        standing.result = Some(looked.result);
    }
    if let (Some(result), Some(at)) = (&run.result, run.decided_unix_nano) {
        let (store, wanted) = (governance.clone(), id.clone());
        let known = tokio::task::spawn_blocking(move || store.finding(&wanted)).await??;
        if known.is_none() {
            evaluation.findings.push(tell(name, spec, (&id, at), (result, &run.evidence)));
        }
        if spec.winner_takes_all {
            let share = if result.verdict == Verdict::Treatment { 100 } else { 0 };
            evaluation.actions.extend(divide(name, spec, &id, "end", (share, at)));
        }
        standing.result = Some(result.clone());
    }
    Ok(ExperimentStanding { run: Some(run), ..standing })
}

/// What both sides did.
struct Looked {
    result: ExperimentResult,
    evidence: Vec<TraceId>,
    note: String,
}

async fn look(
    reader: &Reader,
    spec: &ExperimentSpec,
    time: (u64, u64),
) -> Result<Looked, RoundError> {
    let (units, is_cut) = units(reader, spec, time).await?;
    let mut result = units.result(spec);
    if is_cut {
        result.verdict = Verdict::Undecided;
        result.reason = format!(
            "no verdict within {MAX_TRACES} traces of a side; what is left out would make the test another one, \
             so a person decides ({})",
            result.reason
        );
    }
    let note = match units.mixed() {
        0 => String::new(),
        mixed => format!("{mixed} units were on both sides and are left out"),
    };
    Ok(Looked { result, evidence: units.evidence(), note })
}

fn rule(name: &str) -> String {
    format!("experiment/{name}")
}

fn subject(name: &str, spec: &ExperimentSpec) -> Subject {
    Subject::of("experiment", name).and("agent", spec.agent.as_str())
}

/// What stands against its beginning: actions are paused, a person holds the route, or the agent is frozen.
///
/// # Errors
/// [`ControlError`] when that cannot be read.
pub(crate) fn objection(
    governance: &Governance,
    spec: &ExperimentSpec,
    name: &str,
    now: u64,
) -> Result<Option<String>, ControlError> {
    let standing = throughline_act::Standing(governance);
    let route = spec.route.as_ref().map(|route| format!("route:{route}"));
    if route.is_some() && governance.pause()?.is_on {
        return Ok(Some("automatic actions are paused".to_owned()));
    }
    if let Some(route) = &route
        && let Some(hold) = standing.hold(route, now)?
    {
        return Ok(Some(format!("{} holds {route}", hold.person)));
    }
    let freeze = standing.freeze(&subject(name, spec), now)?;
    Ok(freeze.map(|freeze| format!("{} is frozen: {}", freeze.subject, freeze.reason)))
}

async fn load(governance: &Governance, name: &str) -> Result<(Runs, u64), RoundError> {
    let (governance, name) = (governance.clone(), name.to_owned());
    let found = tokio::task::spawn_blocking(move || governance.document(KIND, &name)).await??;
    let Some(found) = found else { return Ok((Runs::default(), 0)) };
    match found.read() {
        Ok(runs) => Ok((runs, found.version)),
        Err(error) => {
            tracing::error!(experiment = found.name, %error, "how an experiment stands cannot be read; it begins anew");
            Ok((Runs::default(), found.version))
        }
    }
}

async fn write(
    governance: &Governance,
    name: &str,
    known: u64,
    runs: &Runs,
) -> Result<bool, RoundError> {
    let (governance, name) = (governance.clone(), name.to_owned());
    let body = serde_json::to_string(runs).unwrap_or_default();
    let written = tokio::task::spawn_blocking(move || {
        governance.write_document(KIND, &name, known, "", &body)
    });
    Ok(written.await??.is_some())
}

/// The traces of both sides since the run began, and whether there are more than are looked at.
async fn units(
    reader: &Reader,
    spec: &ExperimentSpec,
    (from, to): (u64, u64),
) -> Result<(Units, bool), RoundError> {
    let (mut units, mut is_cut) = (Units::new(spec), false);
    for (arm, value) in [(Arm::Control, &spec.control), (Arm::Treatment, &spec.treatment)] {
        let filter = TraceFilter {
            agent: Some(spec.agent.clone()),
            query: Some(query(&spec.by, value, to)),
            start_after_unix_nano: Some(from),
            start_before_unix_nano: Some(to),
            ..TraceFilter::default()
        };
        let (mut cursor, mut seen) = (None, 0);
        loop {
            let page = reader.traces(&filter, cursor.as_deref(), TRACES_PER_PAGE).await?;
            page.items.iter().for_each(|trace: &TraceSummary| units.add(arm, trace));
            seen += page.items.len();
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
            if seen >= MAX_TRACES {
                is_cut = true;
                break;
            }
        }
    }
    Ok((units, is_cut))
}

/// Traces in which some span has the attribute with this value.
fn query(by: &str, value: &str, now: u64) -> SearchQuery {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let text = format!("@{}:{}", quoted(by), quoted(value));
    SearchQuery::parse(&text, now).unwrap_or_default()
}

/// The weights that an experiment wants of its route, where it has one.
fn divide(
    name: &str,
    spec: &ExperimentSpec,
    finding: &str,
    when: &str,
    (share, at): (u32, u64),
) -> Option<Action> {
    let route = spec.route.as_deref()?;
    let targets = [(spec.control.as_str(), 100 - share), (spec.treatment.as_str(), share)];
    let weights = RouteWeights::new(route, 0, targets)
        .inspect_err(|error| tracing::error!(experiment = name, %error, "no weights can be set"))
        .ok()?;
    let reason = match when {
        "begin" => format!("experiment {name} gives {} {share} %", spec.treatment),
        "stop" => format!("experiment {name} was stopped: {} has {share} %", spec.treatment),
        _ => format!("experiment {name} is decided: {} has {share} %", spec.treatment),
    };
    Some(Action {
        id: format!("{when}/{finding}"),
        finding: if when == "end" { finding.to_owned() } else { String::new() },
        rule: rule(name),
        rule_version: "1".to_owned(),
        subject: subject(name, spec),
        at_unix_nano: at,
        operation: Operation::Weights { weights },
        reason,
        evidence: Vec::new(),
        cool_down_s: 0,
        is_dry_run: spec.dry_run,
    })
}

fn tell(
    name: &str,
    spec: &ExperimentSpec,
    (id, at): (&str, u64),
    (result, evidence): (&ExperimentResult, &[TraceId]),
) -> Finding {
    let breached = result.guardrails.iter().any(|one| one.is_breached);
    let mut values = BTreeMap::from([
        ("control_units".to_owned(), result.control_units as f64),
        ("treatment_units".to_owned(), result.treatment_units as f64),
    ]);
    if let Some(of) = result.difference {
        for (name, value) in [
            ("difference", of.difference),
            ("difference_low", of.low),
            ("difference_high", of.high),
            ("p_value", of.p_value),
        ] {
            values.insert(name.to_owned(), value);
        }
    }
    let verdict = match result.verdict {
        Verdict::Treatment => format!("{} does better than {}", spec.treatment, spec.control),
        Verdict::Control => format!("{} does better than {}", spec.control, spec.treatment),
        _ => format!("{} and {} do equally well", spec.treatment, spec.control),
    };
    Finding {
        id: id.to_owned(),
        rule: rule(name),
        rule_version: "1".to_owned(),
        kind: FINDING.to_owned(),
        subject: subject(name, spec),
        severity: if breached { FindingSeverity::Warning } else { FindingSeverity::Info },
        // A verdict tells what was, and needs no end.
        state: FindingState::Resolved,
        since_unix_nano: at,
        at_unix_nano: at,
        from_unix_nano: at,
        to_unix_nano: at,
        summary: format!("{verdict}: {}", result.reason),
        values,
        confidence: Some(1.0 - spec.alpha),
        evidence: evidence.to_vec(),
        runbook: spec.runbook.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_of_attributes_and_values_are_quoted() {
        for (by, value) in
            [("ab_test_group", "control"), ("odd key", "a \"b\\c\" -d"), ("agent", "OR")]
        {
            assert_ne!(query(by, value, 1), SearchQuery::default(), "{by} {value}");
        }
    }
}
