//! Drift of agents against what was usual: how long their decision-bearing steps take, whether equal inputs get equal
//! decisions and how many tokens their prompts have, minute by minute (requirement R5.1), and the shape of prompt
//! lengths, hour by hour (R5.7).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use throughline_trace::{
    Action, Finding, FindingSeverity, FindingState, Operation, Sketch, Subject, TraceId, finding_id,
};

use crate::detect::{
    AlarmState, Detection, Detector, RateConfig, RateDetector, Reading, ShiftConfig, ShiftDetector,
    SkewnessConfig, SkewnessDetector, TimeSpan,
};
use crate::signals::{Consistency, Layer};

/// Kind of the findings about latency.
pub const LATENCY_KIND: &str = "drift.latency";

/// Kind of the findings about consistency.
pub const CONSISTENCY_KIND: &str = "drift.consistency";

/// Kind of the findings about the tokens of prompts.
pub const TOKENS_KIND: &str = "drift.tokens";

/// Kind of the findings about the shape of prompt lengths.
pub const SKEWNESS_KIND: &str = "data_quality.prompt_tokens";

/// An hour, nanoseconds: what the shape of prompt lengths is looked at by.
const HOUR_NANOS: u64 = 3_600_000_000_000;

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
    /// Tokens of the prompts of its model calls.
    pub prompt_tokens: Sketch,
    /// Some of its traces.
    pub evidence: Vec<TraceId>,
}

/// What is remembered of one agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Watched {
    latency: ShiftDetector,
    consistency: RateDetector,
    #[serde(default = "tokens_detector")]
    tokens: ShiftDetector,
    #[serde(default = "skewness_detector")]
    skewness: SkewnessDetector,
    /// The hour that is not over yet, since the Unix epoch, and the tokens of its prompts so far.
    #[serde(default)]
    hour: (u64, Sketch),
    seen_unix_nano: u64,
}

fn tokens_detector() -> ShiftDetector {
    ShiftDetector::new(ShiftConfig::tokens())
}

fn skewness_detector() -> SkewnessDetector {
    SkewnessDetector::new(SkewnessConfig::default())
}

impl Watched {
    fn new() -> Self {
        Self {
            latency: ShiftDetector::new(ShiftConfig::default()),
            consistency: RateDetector::new(RateConfig::consistency()),
            tokens: tokens_detector(),
            skewness: skewness_detector(),
            hour: (0, Sketch::default()),
            seen_unix_nano: 0,
        }
    }

    /// Takes in a window; an hour is looked at with the first window behind it.
    fn observe(&mut self, span: TimeSpan, window: &AgentWindow) -> Vec<(Watches, Detection)> {
        self.seen_unix_nano = span.to_unix_nano;
        let agreement = window.consistency.agreement();
        let mut said = vec![
            (Watches::Latency, self.latency.observe(span, &window.durations)),
            (Watches::Consistency, self.consistency.observe_grouped(span, &agreement)),
            (Watches::Tokens, self.tokens.observe(span, &window.prompt_tokens)),
        ];
        let hour = span.from_unix_nano / HOUR_NANOS;
        if hour != self.hour.0 {
            let (over, prompts) = std::mem::replace(&mut self.hour, (hour, Sketch::default()));
            if prompts.count() > 0 {
                let from_unix_nano = over * HOUR_NANOS;
                let span = TimeSpan { from_unix_nano, to_unix_nano: from_unix_nano + HOUR_NANOS };
                said.push((Watches::Skewness, self.skewness.observe(span, &prompts)));
            }
        }
        self.hour.1.merge(&window.prompt_tokens);
        said.into_iter().filter_map(|(of, detection)| Some((of, detection?))).collect()
    }

    fn standing(&self, of: Watches) -> (Option<Reading>, bool) {
        match of {
            Watches::Latency => (self.latency.latest(), self.latency.is_firing()),
            Watches::Consistency => (self.consistency.latest(), self.consistency.is_firing()),
            Watches::Tokens => (self.tokens.latest(), self.tokens.is_firing()),
            Watches::Skewness => (self.skewness.latest(), self.skewness.is_firing()),
        }
    }
}

/// What is watched of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Watches {
    /// How long its decision-bearing steps take.
    Latency,
    /// Whether it decides alike about equal inputs.
    Consistency,
    /// Tokens of the prompts of its model calls.
    Tokens,
    /// The shape of the distribution of those.
    Skewness,
}

impl Watches {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Latency, Self::Consistency, Self::Tokens, Self::Skewness];

    /// Kind of the findings about it.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Latency => LATENCY_KIND,
            Self::Consistency => CONSISTENCY_KIND,
            Self::Tokens => TOKENS_KIND,
            Self::Skewness => SKEWNESS_KIND,
        }
    }

    /// The number that is compared.
    pub fn signal(self) -> &'static str {
        match self {
            Self::Latency => "agent_decision_latency",
            Self::Consistency => "decision_agreement",
            Self::Tokens => "prompt_tokens",
            Self::Skewness => "prompt_token_distribution_skewness",
        }
    }

    /// Where in an agent's work it is measured.
    pub fn layer(self) -> Layer {
        match self {
            Self::Latency | Self::Consistency => Layer::Processing,
            Self::Tokens | Self::Skewness => Layer::Input,
        }
    }

    /// Length of the windows that are compared, seconds.
    pub fn window_s(self) -> u64 {
        if self == Self::Skewness { 3_600 } else { 60 }
    }

    /// How many of a detector's units its number's unit has.
    fn scale(self) -> f64 {
        if self == Self::Latency { 1e9 } else { 1.0 }
    }

    /// A number of a detector in its unit: seconds for latencies, which detectors have in nanoseconds.
    pub fn in_unit(self, number: f64) -> f64 {
        number / self.scale()
    }

    /// A number of a detector, for people.
    pub fn told(self, number: f64) -> String {
        match self {
            Self::Latency => format!("{:.2} s", number / self.scale()),
            Self::Tokens => format!("{number:.0}"),
            Self::Consistency | Self::Skewness => format!("{number:.2}"),
        }
    }
}

/// How a detector stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DetectorStanding {
    /// The agent that is watched.
    pub agent: String,
    /// What of it.
    pub watches: Watches,
    /// What its latest window told, in the detector's unit; `None` before the first.
    pub reading: Option<Reading>,
    /// Whether its alarm is on.
    pub is_firing: bool,
    /// End of the last window in which the agent did anything, nanoseconds since the Unix epoch.
    pub seen_unix_nano: u64,
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
            let watched = self.agents.entry(agent.clone()).or_insert_with(Watched::new);
            for (watches, detection) in watched.observe(span, window) {
                drifted.say(agent, watches, &detection, &window.evidence);
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

    /// How every detector stands, by agent.
    pub fn standing(&self) -> Vec<DetectorStanding> {
        let of_agent = |(agent, watched): (&String, &Watched)| {
            Watches::ALL.map(|watches| {
                let (reading, is_firing) = watched.standing(watches);
                let (agent, seen_unix_nano) = (agent.clone(), watched.seen_unix_nano);
                DetectorStanding { agent, watches, reading, is_firing, seen_unix_nano }
            })
        };
        self.agents.iter().flat_map(of_agent).collect()
    }
}

impl Drifted {
    fn say(&mut self, agent: &str, of: Watches, detection: &Detection, evidence: &[TraceId]) {
        let kind = of.kind();
        let reading = &detection.reading;
        if !reading.is_enough {
            // The alarm stays as it is, and what was found with it: there is nothing new to tell.
            return;
        }
        let subject = Subject::of("agent", agent);
        let id = finding_id(kind, VERSION, &subject, detection.since_unix_nano);
        let (name, scale) = (of.signal(), of.scale());
        let told = format!("{}, usually {}", of.told(reading.observed), of.told(reading.expected));
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

    /// A minute of model calls, `smuggled` of which have 4,000 tokens more.
    fn prompts(
        random: &mut crate::statistics::Random,
        (calls, tokens): (usize, f64),
        smuggled: usize,
    ) -> BTreeMap<String, AgentWindow> {
        let mut window = AgentWindow::default();
        for at in 0..calls {
            let usual = tokens * (0.8 + 0.4 * random.uniform());
            let more = if at < smuggled { 4_000.0 } else { 0.0 };
            window.prompt_tokens.add((usual + more) as u64, 1);
        }
        BTreeMap::from([("support".to_owned(), window)])
    }

    #[test]
    fn prompts_that_grow_are_told_and_usual_ones_are_not() {
        let mut random = crate::statistics::Random::new(3);
        let mut watch = DriftWatch::default();
        let mut said = |minutes: std::ops::Range<u64>, tokens: f64| -> Vec<Finding> {
            minutes
                .flat_map(|at| play(&mut watch, at..at + 1, &prompts(&mut random, (40, tokens), 0)))
                .flat_map(|one| one.findings)
                .collect()
        };
        assert_eq!(said(0..90, 400.0), []);
        let told = said(90..93, 560.0);
        assert_eq!(told[0].kind, TOKENS_KIND, "{told:?}");
        assert!(told[0].summary.starts_with("prompt_tokens of support drifted: 5"), "{told:?}");
    }

    #[test]
    fn a_few_long_prompts_among_many_are_told_at_the_end_of_their_hour() {
        let mut random = crate::statistics::Random::new(4);
        let mut watch = DriftWatch::default();
        let mut said = |minutes: std::ops::Range<u64>, smuggled: usize| -> Vec<Finding> {
            let told = minutes.flat_map(|at| {
                // One prompt in fifty, spread over the hour.
                let now = if at % 2 == 0 { smuggled } else { 0 };
                play(&mut watch, at..at + 1, &prompts(&mut random, (25, 400.0), now))
            });
            let all: Vec<Finding> = told.flat_map(|one| one.findings).collect();
            all.into_iter().filter(|one| one.kind == SKEWNESS_KIND).collect()
        };
        assert_eq!(said(0..600, 0), [], "ten usual hours");
        assert_eq!(said(600..660, 1), [], "its hour is not over");
        let told = said(660..661, 0);
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].since_unix_nano, told[0].at_unix_nano), (600 * MINUTE, 660 * MINUTE));
        let standing = watch.standing();
        let of = standing.iter().find(|one| one.watches == Watches::Skewness).unwrap();
        assert!(of.is_firing && of.reading.unwrap().effect > 1.0, "{of:?}");
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
