//! Behaviour drift of agents: how long their decision-bearing steps take and whether equal inputs get
//! equal decisions, minute by minute against what was usual (requirement R5.1).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use throughline_trace::{
    Action, Finding, FindingSeverity, FindingState, Operation, Sketch, Subject, TraceId, finding_id,
};

use crate::detect::{
    AlarmState, Detection, Detector, RateConfig, RateDetector, ShiftConfig, ShiftDetector, TimeSpan,
};
use crate::signals::Consistency;

/// Kind of the findings about latency.
pub const LATENCY_KIND: &str = "drift.latency";

/// Kind of the findings about consistency.
pub const CONSISTENCY_KIND: &str = "drift.consistency";

/// Agents that are watched at most; which has nothing for longest makes room.
pub const MAX_WATCHED_AGENTS: usize = 500;

/// Version of the rule: of its thresholds.
const VERSION: &str = "1";

/// What one agent did in one window.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AgentWindow {
    /// How long its decision-bearing steps took, nanoseconds.
    pub durations: Sketch,
    /// Whether it decided alike about equal inputs.
    pub consistency: Consistency,
    /// Some of its traces.
    pub evidence: Vec<TraceId>,
}

/// What is remembered of one agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Watched {
    latency: ShiftDetector,
    consistency: RateDetector,
    seen_unix_nano: u64,
}

/// Watches every agent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DriftWatch {
    agents: BTreeMap<String, Watched>,
    /// The end of the last window, nanoseconds since the Unix epoch; 0 before the first.
    pub observed_until_unix_nano: u64,
}

/// What a window said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Drifted {
    /// What fires, and what ended.
    pub findings: Vec<Finding>,
    /// What is asked for: the cause, once an alarm.
    pub actions: Vec<Action>,
}

impl DriftWatch {
    /// Takes in what every agent did in a window; an agent that did nothing is not there.
    pub fn observe(&mut self, span: TimeSpan, windows: &BTreeMap<String, AgentWindow>) -> Drifted {
        let mut drifted = Drifted::default();
        for (agent, window) in windows {
            let watched = self.agents.entry(agent.clone()).or_insert_with(|| Watched {
                latency: ShiftDetector::new(ShiftConfig::default()),
                consistency: RateDetector::new(RateConfig::consistency()),
                seen_unix_nano: 0,
            });
            watched.seen_unix_nano = span.to_unix_nano;
            let latency = watched.latency.observe(span, &window.durations);
            let consistency =
                watched.consistency.observe_grouped(span, &window.consistency.agreement());
            for (kind, detection) in [(LATENCY_KIND, latency), (CONSISTENCY_KIND, consistency)] {
                if let Some(detection) = detection {
                    drifted.say(agent, kind, &detection, &window.evidence);
                }
            }
        }
        while self.agents.len() > MAX_WATCHED_AGENTS {
            let oldest = self.agents.iter().min_by_key(|(_, watched)| watched.seen_unix_nano);
            let Some(name) = oldest.map(|(name, _)| name.clone()) else { break };
            self.agents.remove(&name);
        }
        self.observed_until_unix_nano = span.to_unix_nano;
        drifted
    }
}

impl Drifted {
    fn say(&mut self, agent: &str, kind: &str, detection: &Detection, evidence: &[TraceId]) {
        let reading = &detection.reading;
        if !reading.is_enough {
            // The alarm stays as it is, and what was found with it: there is nothing new to tell.
            return;
        }
        let subject = Subject::of("agent", agent);
        let id = finding_id(kind, VERSION, &subject, detection.since_unix_nano);
        let (name, told) = match kind {
            LATENCY_KIND => (
                "agent_decision_latency",
                format!("{:.2} s, usually {:.2} s", reading.observed / 1e9, reading.expected / 1e9),
            ),
            _ => (
                "decision_agreement",
                format!("{:.2}, usually {:.2}", reading.observed, reading.expected),
            ),
        };
        let scale = if kind == LATENCY_KIND { 1e9 } else { 1.0 };
        let is_on = detection.state == AlarmState::Firing;
        let summary = match is_on {
            true => format!("{name} of {agent} drifted: {told} ({} events)", reading.count),
            false => format!("{name} of {agent} is as usual again: {told}"),
        };
        self.findings.push(Finding {
            id: id.clone(),
            rule: kind.to_owned(),
            rule_version: VERSION.to_owned(),
            kind: kind.to_owned(),
            subject: subject.clone(),
            severity: FindingSeverity::Warning,
            state: if is_on { FindingState::Firing } else { FindingState::Resolved },
            since_unix_nano: detection.since_unix_nano,
            at_unix_nano: detection.at_unix_nano,
            from_unix_nano: detection.since_unix_nano,
            to_unix_nano: detection.at_unix_nano,
            summary: summary.clone(),
            values: [
                ("observed", Some(reading.observed / scale)),
                ("expected", Some(reading.expected / scale)),
                ("effect", Some(reading.effect)),
                ("p_value", reading.p_value),
            ]
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect(),
            // How unlikely the data are without a drift is not how likely a drift is.
            confidence: None,
            evidence: evidence.to_vec(),
            runbook: String::new(),
        });
        if is_on {
            self.actions.push(Action {
                // Once an alarm: the id is that of its beginning.
                id: format!("investigate/{id}"),
                finding: id,
                rule: kind.to_owned(),
                rule_version: VERSION.to_owned(),
                subject,
                at_unix_nano: detection.at_unix_nano,
                operation: Operation::Investigate,
                reason: summary,
                evidence: evidence.to_vec(),
                cool_down_s: INVESTIGATION_COOL_DOWN_S,
                is_dry_run: false,
            });
        }
    }
}

/// The cause of one agent's drift is looked for so often at most, seconds.
const INVESTIGATION_COOL_DOWN_S: u64 = 600;

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000_000_000;

    fn window(seconds: f64, is_steady: bool) -> BTreeMap<String, AgentWindow> {
        let mut window = AgentWindow::default();
        let names: Vec<String> = (0..12).map(|n| format!("case {n}")).collect();
        let mut told = Vec::new();
        for n in 0..60_usize {
            let spread = 0.8 + 0.4 * (n as f64 / 60.0);
            window.durations.add((seconds * spread * 1e9) as u64, 1);
            let action = if is_steady || n % 5 != 0 { "approve" } else { "review" };
            told.push((names[n % 12].as_str(), action));
        }
        window.consistency = Consistency::of(told);
        BTreeMap::from([("fraud".to_owned(), window)])
    }

    fn play(
        watch: &mut DriftWatch,
        minutes: std::ops::Range<u64>,
        of: &BTreeMap<String, AgentWindow>,
    ) -> Vec<Drifted> {
        minutes
            .map(|n| {
                let span = TimeSpan { from_unix_nano: n * MINUTE, to_unix_nano: (n + 1) * MINUTE };
                // A restart between any two windows changes nothing.
                let json = serde_json::to_string(watch).unwrap();
                *watch = serde_json::from_str(&json).unwrap();
                watch.observe(span, of)
            })
            .collect()
    }

    #[test]
    fn a_slow_agent_is_told_within_two_windows_and_its_end_too() {
        let mut watch = DriftWatch::default();
        let usual = window(0.4, true);
        assert!(play(&mut watch, 0..20, &usual).iter().all(|said| *said == Drifted::default()));
        let slow = play(&mut watch, 20..23, &window(2.8, true));
        assert!(slow[0].findings.is_empty());
        insta::assert_snapshot!(slow[1].findings[0].summary);
        assert_eq!(slow[1].actions.len(), 1);
        assert_eq!(slow[2].findings[0].id, slow[1].findings[0].id, "it is the same one");
        assert_eq!(slow[2].actions[0].id, slow[1].actions[0].id, "it is asked for once");
        let after = play(&mut watch, 23..33, &usual);
        let ended: Vec<&Finding> = after
            .iter()
            .flat_map(|said| &said.findings)
            .filter(|one| one.state == FindingState::Resolved)
            .collect();
        assert_eq!(ended.len(), 1);
        assert_eq!(ended[0].id, slow[1].findings[0].id);
    }

    #[test]
    fn a_minute_with_too_little_data_says_nothing_while_an_alarm_is_on() {
        let mut watch = DriftWatch::default();
        play(&mut watch, 0..20, &window(0.4, true));
        let slow = play(&mut watch, 20..22, &window(2.8, true));
        assert_eq!(slow[1].findings.len(), 1);
        let silent = BTreeMap::from([("fraud".to_owned(), AgentWindow::default())]);
        assert!(play(&mut watch, 22..30, &silent).iter().all(|said| *said == Drifted::default()));
        let goes_on = play(&mut watch, 30..31, &window(2.8, true));
        assert_eq!(goes_on[0].findings[0].id, slow[1].findings[0].id, "it was on all the while");
    }

    /// Decisions about 60 inputs, `each` of each, of which `deviating` are others.
    fn decided(
        random: &mut crate::statistics::Random,
        each: usize,
        deviating: f64,
    ) -> BTreeMap<String, AgentWindow> {
        let names: Vec<String> = (0..60).map(|n| format!("case {n}")).collect();
        let told: Vec<(&str, &str)> = names
            .iter()
            .flat_map(|name| vec![name.as_str(); each])
            .map(|name| (name, if random.uniform() < deviating { "review" } else { "approve" }))
            .collect();
        let consistency = Consistency::of(told);
        BTreeMap::from([("fraud".to_owned(), AgentWindow { consistency, ..Default::default() })])
    }

    #[test]
    fn more_traffic_is_no_drift_and_more_deviations_are() {
        let mut random = crate::statistics::Random::new(8);
        let mut watch = DriftWatch::default();
        let mut findings = |minutes: std::ops::Range<u64>, each: usize, deviating: f64| {
            let said = minutes.flat_map(|at| {
                play(&mut watch, at..at + 1, &decided(&mut random, each, deviating))
            });
            said.flat_map(|one| one.findings).collect::<Vec<Finding>>()
        };
        assert_eq!(findings(0..60, 5, 0.03), []);
        assert_eq!(findings(60..120, 10, 0.03), [], "twice the traffic");
        assert_eq!(findings(120..180, 2, 0.03), [], "less than half of it");
        // Of pairs, 94 % agreed; 78 % do now: 17 % less.
        let told = findings(180..190, 10, 0.125);
        assert!(told.iter().any(|one| one.kind == CONSISTENCY_KIND), "{told:?}");
        assert!(told[0].summary.starts_with("decision_agreement of fraud drifted: 0."), "{told:?}");
    }

    #[test]
    fn an_agent_that_contradicts_itself_is_told_and_silence_is_not() {
        let mut watch = DriftWatch::default();
        play(&mut watch, 0..20, &window(0.4, true));
        assert!(
            play(&mut watch, 20..40, &BTreeMap::new())
                .iter()
                .all(|said| *said == Drifted::default())
        );
        let said = play(&mut watch, 40..46, &window(0.4, false));
        let kinds: Vec<&str> =
            said.iter().flat_map(|one| &one.findings).map(|one| one.kind.as_str()).collect();
        assert!(
            !kinds.is_empty() && kinds.iter().all(|kind| *kind == CONSISTENCY_KIND),
            "{kinds:?}"
        );
    }
}
