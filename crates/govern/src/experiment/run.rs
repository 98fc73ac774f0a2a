//! How an experiment stands, and what its traces say.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use throughline_trace::{FallbackState, TraceId, TraceSummary};

use super::{Arm, Experiment, ExperimentResult, ExperimentSpec, UnitMetric, Verdict};

/// Runs that an experiment remembers.
pub const MAX_RUNS: usize = 20;

/// Traces of each side that a finding names.
const EVIDENCE: usize = 5;

/// One run: from the words of a file to the verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// [`ExperimentSpec::identity`] of what runs.
    pub identity: String,
    /// When it began, nanoseconds since the Unix epoch: what was before says nothing.
    pub since_unix_nano: u64,
    /// When there was a verdict, nanoseconds since the Unix epoch.
    pub decided_unix_nano: Option<u64>,
    /// What decided it; `None` while it runs.
    pub result: Option<ExperimentResult>,
    /// Some traces of both sides at that time.
    pub evidence: Vec<TraceId>,
    /// Who ended it without a verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
}

/// A person's word that ends a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// When, nanoseconds since the Unix epoch.
    pub at_unix_nano: u64,
    /// Who said so.
    pub person: String,
    /// Why.
    pub reason: String,
}

impl Run {
    /// The verdict; `None` while it runs.
    pub fn verdict(&self) -> Option<Verdict> {
        self.result.as_ref().map(|result| result.verdict)
    }

    /// Whether it neither has a verdict nor was stopped.
    pub fn is_on(&self) -> bool {
        self.result.is_none() && self.stopped.is_none()
    }
}

/// All runs of an experiment, the newest last: what is kept of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Runs {
    /// At most [`MAX_RUNS`].
    pub runs: Vec<Run>,
}

impl Runs {
    /// The run of what a file says now. Words that ran before go on where they were: a file that is read
    /// again, moved, or written in another order begins nothing.
    pub fn of(&self, spec: &ExperimentSpec) -> Option<&Run> {
        let identity = spec.identity();
        self.runs.last().filter(|run| run.identity == identity)
    }

    /// Begins a run of what a file says; `false`, and nothing changed, when it runs already.
    pub fn begin(&mut self, spec: &ExperimentSpec, now_unix_nano: u64) -> bool {
        self.of(spec).is_none() && self.push(spec, now_unix_nano)
    }

    /// Begins another run of the same words; `false`, and nothing changed, when they run.
    pub fn begin_again(&mut self, spec: &ExperimentSpec, now_unix_nano: u64) -> bool {
        !self.of(spec).is_some_and(Run::is_on) && self.push(spec, now_unix_nano)
    }

    /// Ends the run that is on without a verdict; `false`, and nothing changed, when none is.
    pub fn stop(&mut self, by: Stopped) -> bool {
        let Some(run) = self.runs.last_mut().filter(|run| run.is_on()) else { return false };
        run.stopped = Some(by);
        true
    }

    fn push(&mut self, spec: &ExperimentSpec, now_unix_nano: u64) -> bool {
        self.runs.push(Run {
            identity: spec.identity(),
            since_unix_nano: now_unix_nano,
            decided_unix_nano: None,
            result: None,
            evidence: Vec::new(),
            stopped: None,
        });
        let surplus = self.runs.len().saturating_sub(MAX_RUNS);
        self.runs.drain(..surplus);
        true
    }

    /// Takes a verdict in; `false`, and nothing changed, when there is one already or this is none.
    pub fn decide(
        &mut self,
        result: &ExperimentResult,
        evidence: Vec<TraceId>,
        now_unix_nano: u64,
    ) -> bool {
        let Some(run) = self.runs.last_mut().filter(|run| run.is_on()) else {
            return false;
        };
        if result.verdict == Verdict::Undecided {
            return false;
        }
        run.decided_unix_nano = Some(now_unix_nano);
        run.result = Some(result.clone());
        run.evidence = evidence;
        true
    }
}

/// What one unit did: sums over its traces.
#[derive(Debug, Clone)]
struct Unit {
    arm: Arm,
    is_mixed: bool,
    traces: u64,
    sums: Vec<f64>,
}

/// Units of an experiment, made of the traces of both sides.
#[derive(Debug)]
pub struct Units {
    metrics: Vec<UnitMetric>,
    units: BTreeMap<String, Unit>,
    evidence: [Vec<TraceId>; 2],
}

impl Units {
    /// None yet.
    pub fn new(spec: &ExperimentSpec) -> Self {
        let guardrails = spec.guardrails.iter().map(|one| one.metric);
        let metrics = std::iter::once(spec.metric).chain(guardrails).collect();
        Self { metrics, units: BTreeMap::new(), evidence: Default::default() }
    }

    /// Takes a trace of a side in.
    pub fn add(&mut self, arm: Arm, trace: &TraceSummary) {
        let root = trace.root.as_ref().and_then(|root| root.session.clone());
        let session = root.or_else(|| trace.sessions.first().cloned());
        // What names no session is divided by itself.
        let name = session.map_or_else(|| trace.trace_id.to_string(), |name| format!("s/{name}"));
        let count = self.metrics.len();
        let unit = self.units.entry(name).or_insert_with(|| Unit {
            arm,
            is_mixed: false,
            traces: 0,
            sums: vec![0.0; count],
        });
        unit.is_mixed |= unit.arm != arm;
        unit.traces += 1;
        for (sum, metric) in unit.sums.iter_mut().zip(&self.metrics) {
            *sum += value(*metric, trace);
        }
        let evidence = &mut self.evidence[usize::from(arm == Arm::Treatment)];
        if evidence.len() < EVIDENCE {
            evidence.push(trace.trace_id);
        }
    }

    /// Units that were on both sides: they say nothing, and are left out.
    pub fn mixed(&self) -> usize {
        self.units.values().filter(|unit| unit.is_mixed).count()
    }

    /// Some traces of both sides, those of the treatment first.
    pub fn evidence(&self) -> Vec<TraceId> {
        self.evidence.iter().rev().flatten().copied().collect()
    }

    /// What they say.
    pub fn result(&self, spec: &ExperimentSpec) -> ExperimentResult {
        let mut experiment = Experiment::new(spec.config());
        for unit in self.units.values().filter(|unit| !unit.is_mixed) {
            let mut means = unit.sums.iter().map(|sum| sum / unit.traces.max(1) as f64);
            if let Some(mean) = means.next() {
                experiment.observe(unit.arm, mean);
            }
            for (place, mean) in means.enumerate() {
                experiment.observe_guardrail(place, unit.arm, mean);
            }
        }
        experiment.result()
    }
}

fn value(metric: UnitMetric, trace: &TraceSummary) -> f64 {
    match metric {
        UnitMetric::SuccessRate => {
            let is_failed = trace.root.as_ref().map_or(trace.error_count > 0, |root| root.is_error);
            f64::from(u8::from(!is_failed))
        }
        UnitMetric::PrimaryRate => {
            let is_left = matches!(trace.fallback, FallbackState::Degraded | FallbackState::Failed);
            f64::from(u8::from(!is_left))
        }
        UnitMetric::DurationS => trace.duration_nano() as f64 / 1e9,
        UnitMetric::CostUsd => trace.cost_usd(),
        UnitMetric::Tokens => (trace.input_tokens + trace.output_tokens) as f64,
        UnitMetric::LlmCalls => trace.llm_calls as f64,
        UnitMetric::Retries => trace.retries as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::GuardrailSpec;

    fn spec() -> ExperimentSpec {
        let yaml = "{agent: shop, metric: duration_s, min_effect: 0.2, guardrails: [{metric: success_rate, tolerance: 0.05}]}";
        serde_saphyr::from_str(yaml).expect("a spec")
    }

    fn trace(number: u128, session: Option<&str>, seconds: u64) -> TraceSummary {
        TraceSummary {
            sessions: session.into_iter().map(str::to_owned).collect(),
            start_unix_nano: 1_000_000_000,
            end_unix_nano: (1 + seconds) * 1_000_000_000,
            span_count: 1,
            ..TraceSummary::empty(TraceId::from_u128(number))
        }
    }

    #[test]
    fn the_same_words_begin_nothing_new_and_others_do() {
        let (spec, mut runs) = (spec(), Runs::default());
        assert!(runs.begin(&spec, 1));
        assert!(!runs.begin(&spec, 2), "it runs");
        // What is done with the verdict is no part of what is compared.
        let told =
            ExperimentSpec { runbook: "https://x".to_owned(), dry_run: true, ..spec.clone() };
        assert!(!runs.begin(&told, 3));
        let undecided = Units::new(&spec).result(&spec);
        assert!(!runs.decide(&undecided, Vec::new(), 4));
        let decided = ExperimentResult { verdict: Verdict::Treatment, ..undecided };
        assert!(runs.decide(&decided, Vec::new(), 5));
        assert!(!runs.decide(&decided, Vec::new(), 6), "once");
        assert!(!runs.begin(&spec, 7), "a verdict does not end the words");
        let other = ExperimentSpec { min_effect: 0.3, ..spec.clone() };
        assert!(runs.begin(&other, 8));
        assert_eq!(runs.of(&other).map(|run| run.since_unix_nano), Some(8));
        assert!(runs.of(&spec).is_none());
    }

    #[test]
    fn a_person_stops_a_run_and_begins_another_of_the_same_words() {
        let (spec, mut runs) = (spec(), Runs::default());
        let by = |at_unix_nano| Stopped {
            at_unix_nano,
            person: "ada".to_owned(),
            reason: "a release".to_owned(),
        };
        assert!(!runs.stop(by(1)), "none runs");
        assert!(runs.begin(&spec, 2) && !runs.begin_again(&spec, 3));
        assert!(runs.stop(by(4)) && !runs.stop(by(5)));
        let decided =
            ExperimentResult { verdict: Verdict::Treatment, ..Units::new(&spec).result(&spec) };
        assert!(!runs.decide(&decided, Vec::new(), 6), "it is over");
        assert!(!runs.begin(&spec, 7), "the words alone begin nothing");
        assert!(runs.begin_again(&spec, 8));
        assert_eq!(runs.of(&spec).map(|run| (run.since_unix_nano, run.is_on())), Some((8, true)));
        // What was kept before there was a word for it reads as before.
        let old = r#"{"runs": [{"identity": "x", "since_unix_nano": 1, "decided_unix_nano": null, "result": null, "evidence": []}]}"#;
        assert!(serde_json::from_str::<Runs>(old).is_ok_and(|runs| runs.runs[0].is_on()));
    }

    #[test]
    fn traces_of_a_session_are_one_unit_and_of_both_sides_none() {
        let (spec, mut number) = (spec(), 0);
        let mut units = Units::new(&spec);
        let mut add = |arm, session: Option<String>, seconds| {
            number += 1;
            units.add(arm, &trace(number, session.as_deref(), seconds));
        };
        for unit in 0..150_u64 {
            // Two traces a session: their mean is what counts.
            for part in 0..2 {
                add(Arm::Control, Some(format!("c-{unit}")), 2 + part + unit % 2);
                add(Arm::Treatment, Some(format!("t-{unit}")), part + unit % 2);
            }
        }
        add(Arm::Control, None, 3);
        add(Arm::Control, Some("both".to_owned()), 3);
        add(Arm::Treatment, Some("both".to_owned()), 3);
        let result = units.result(&spec);
        assert_eq!((result.control_units, result.treatment_units), (151, 150));
        assert_eq!(units.mixed(), 1);
        assert_eq!(result.verdict, Verdict::Treatment, "{}", result.reason);
        let difference = result.difference.expect("one").difference;
        assert!((difference + 2.0).abs() < 0.01, "{difference}");
        assert_eq!(units.evidence().len(), 10);
    }

    #[test]
    fn what_cannot_be_meant_is_told_by_part() {
        let wrong = ExperimentSpec {
            agent: " ".to_owned(),
            treatment: "control".to_owned(),
            share: 100,
            min_effect: f64::NAN,
            alpha: 0.5,
            min_units: 1,
            winner_takes_all: true,
            guardrails: vec![GuardrailSpec { metric: UnitMetric::Retries, tolerance: -1.0 }],
            ..spec()
        };
        let mistakes = wrong.check().expect_err("mistakes");
        let parts: Vec<&str> = mistakes.iter().map(|one| one.part.as_str()).collect();
        let all = [
            "agent",
            "treatment",
            "share",
            "min_effect",
            "alpha",
            "min_units",
            "guardrails",
            "winner_takes_all",
        ];
        assert_eq!(parts, all);
        assert!(spec().check().is_ok());
    }
}
