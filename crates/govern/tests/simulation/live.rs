//! An agent as the live watch sees it, made up with a fixed seed, minute by minute and hour by hour: how often one of its
//! eight detectors is wrong about it, and how late it is about a change.

use std::collections::{BTreeMap, BTreeSet};

use throughline_govern::detect::TimeSpan;
use throughline_govern::signals::{Consistency, SchemaCompliance};
use throughline_govern::statistics::Random;
use throughline_govern::{AgentHour, AgentWindow, DriftWatch, Drifted, TRACE_FEATURES, Watches};
use throughline_trace::FindingState;

const MINUTE_NANOS: u64 = 60_000_000_000;

/// Minutes of a day.
const DAY_MIN: f64 = 1_440.0;

/// The first minute, since the Unix epoch: in January 2026, at midnight.
const BEGIN_MIN: u64 = 29_453_760;

/// Hours whose operations are stored when the watch begins.
const STORED_HOURS: u64 = 28 * 24;

/// Inputs that an agent decides about again and again.
const INPUTS: usize = 40;

/// Traces of one minute that are read whole at most, for an agent among ten.
const WHOLE_TRACES: usize = 20;

/// Prompts whose embeddings are known of an hour.
const EMBEDDINGS: usize = 60;

/// Name of the agent.
const AGENT: &str = "fraud";

/// A change of one thing that is watched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shift {
    pub(crate) of: Watches,
    pub(crate) about: &'static str,
    /// How much, in the terms of what changes.
    pub(crate) to: f64,
}

/// What is tried of each.
pub(crate) const SHIFTS: [Shift; 10] = [
    Shift { of: Watches::Latency, about: "0.4 s → 2.8 s", to: 2.8 },
    Shift { of: Watches::Latency, about: "0.4 s → 0.8 s", to: 0.8 },
    Shift { of: Watches::Consistency, about: "4 % → 12 % of the decisions are others", to: 0.12 },
    Shift { of: Watches::Tokens, about: "+30 %", to: 1.3 },
    Shift { of: Watches::Responses, about: "1 % → 20 % of the responses are not valid", to: 0.2 },
    Shift { of: Watches::Traces, about: "a third of the traces decoupled", to: 1.0 / 3.0 },
    Shift { of: Watches::Skewness, about: "2 % of the prompts with 4,000 tokens more", to: 0.02 },
    Shift { of: Watches::Traffic, about: "× 2", to: 2.0 },
    Shift { of: Watches::Traffic, about: "nothing any more", to: 0.0 },
    Shift { of: Watches::Embeddings, about: "turned by 27°", to: 0.5 },
];

/// What an agent does.
pub(crate) struct Traffic {
    random: Random,
    /// Operations of a usual minute.
    per_minute: f64,
    /// What is told of it; of all where there is none.
    only: Option<Watches>,
}

/// The agent, and who watches it.
struct Agent {
    does: Traffic,
    watch: DriftWatch,
    minute: u64,
    /// Operations by hour.
    hours: BTreeMap<u64, u64>,
    /// Embeddings of the hour before.
    before: Vec<Vec<f32>>,
}

/// What a minute brought: what began to fire.
type Began = BTreeSet<(Watches, String)>;

impl Agent {
    fn new(seed: u64, per_minute: f64, only: Option<Watches>) -> Self {
        let mut does = Traffic::new(seed, per_minute, only);
        // Each is watched from another hour of the week on.
        let minute = BEGIN_MIN + 60 * does.random.below(168) as u64;
        let (now, mut hours) = (minute / 60, BTreeMap::new());
        for hour in now - STORED_HOURS..now {
            let count = (0..60).map(|at| does.operations(hour * 60 + at, None) as u64).sum();
            hours.insert(hour, count);
        }
        Self { does, watch: DriftWatch::default(), minute, hours, before: Vec::new() }
    }

    /// One minute, in which something is otherwise than usual or not, and the hour if it is over with it: what began
    /// to fire.
    fn minute(&mut self, shift: Option<Shift>) -> Began {
        let at = self.minute;
        let (operations, mut window) = self.does.minute(at, shift);
        *self.hours.entry(at / 60).or_default() += operations as u64;
        if self.does.tells(Watches::Traces) && self.watch.learns_of(AGENT, at) {
            window.usual_traces = self.does.traces(400, None);
        }
        let said = self.watch.observe(span(at), &BTreeMap::from([(AGENT.to_owned(), window)]));
        let mut began = began(&said);
        self.minute += 1;
        if self.minute.is_multiple_of(60) {
            began.extend(self.hour(at / 60, shift));
        }
        began
    }

    fn hour(&mut self, hour: u64, shift: Option<Shift>) -> Began {
        let mut of = AgentHour::default();
        if self.does.tells(Watches::Traffic) {
            let from = self.watch.hours_from(hour).get(AGENT).copied().unwrap_or(hour);
            let known = self.hours.range(from..=hour).map(|(_, count)| Some(*count as f64));
            of.operations = known.collect();
        }
        if self.does.tells(Watches::Embeddings) {
            let tilt = of_kind(shift, Watches::Embeddings).unwrap_or(0.0);
            of.embeddings = (0..EMBEDDINGS).map(|_| self.does.embedding(tilt)).collect();
            of.embeddings_before = std::mem::replace(&mut self.before, of.embeddings.clone());
        }
        began(&self.watch.observe_hour(hour, &BTreeMap::from([(AGENT.to_owned(), of)])))
    }
}

/// The time of a minute.
pub(crate) fn span(minute: u64) -> TimeSpan {
    TimeSpan { from_unix_nano: minute * MINUTE_NANOS, to_unix_nano: (minute + 1) * MINUTE_NANOS }
}

impl Traffic {
    /// An agent that does so much in a usual minute; `only` leaves out what other detectors are given, which they do
    /// not miss.
    pub(crate) fn new(seed: u64, per_minute: f64, only: Option<Watches>) -> Self {
        Self { random: Random::new(seed), per_minute, only }
    }

    /// What it did in a minute, and how many operations those were.
    pub(crate) fn minute(&mut self, at: u64, shift: Option<Shift>) -> (usize, AgentWindow) {
        let operations = self.operations(at, shift);
        (operations, self.window(at, operations, shift))
    }

    /// So many traces, of which a share is not like the others.
    pub(crate) fn traces(
        &mut self,
        count: usize,
        decoupled: Option<f64>,
    ) -> Vec<[f64; TRACE_FEATURES]> {
        (0..count).map(|_| self.trace(decoupled)).collect()
    }

    fn tells(&self, of: Watches) -> bool {
        self.only.is_none_or(|only| only == of)
    }

    /// Poisson about a mean that has a day and a week.
    fn operations(&mut self, minute: u64, shift: Option<Shift>) -> usize {
        let days = minute / 1_440 + 3;
        let weekend = if days % 7 >= 5 { 0.7 } else { 1.0 };
        let factor = of_kind(shift, Watches::Traffic).unwrap_or(1.0);
        let mean = self.per_minute * weekend * (1.0 + 0.4 * day(minute)) * factor;
        (mean + mean.sqrt() * self.random.normal()).round().max(0.0) as usize
    }

    fn window(&mut self, at: u64, operations: usize, shift: Option<Shift>) -> AgentWindow {
        let mut window = AgentWindow::default();
        if self.tells(Watches::Latency) {
            let usual = 0.4 * (1.0 + 0.15 * day(at));
            let median = of_kind(shift, Watches::Latency).unwrap_or(usual);
            for _ in 0..operations {
                let seconds = median * (0.5 * self.random.normal()).exp();
                window.durations.add((seconds * 1e9) as u64, 1);
            }
        }
        if self.tells(Watches::Consistency) {
            let deviating = of_kind(shift, Watches::Consistency).unwrap_or(0.04);
            window.consistency = self.decisions(operations, deviating);
        }
        if self.tells(Watches::Tokens) || self.tells(Watches::Skewness) {
            self.prompts(&mut window, (at, operations), shift);
        }
        if self.tells(Watches::Responses) {
            let share = of_kind(shift, Watches::Responses).unwrap_or(0.01);
            let mut responses = SchemaCompliance::default();
            for _ in 0..operations.min(WHOLE_TRACES) {
                responses.add(Some(self.random.uniform() >= share));
            }
            window.responses = responses;
        }
        if self.tells(Watches::Traces) {
            window.traces = self.traces(operations.min(100), of_kind(shift, Watches::Traces));
        }
        window
    }

    fn decisions(&mut self, count: usize, deviating: f64) -> Consistency {
        let inputs: Vec<String> = (0..INPUTS).map(|input| format!("{input}")).collect();
        let decided: Vec<(usize, &str)> = (0..count)
            .map(|_| {
                let is_other = self.random.uniform() < deviating;
                (self.random.below(INPUTS), if is_other { "review" } else { "approve" })
            })
            .collect();
        Consistency::of(decided.into_iter().map(|(input, action)| (inputs[input].as_str(), action)))
    }

    fn prompts(
        &mut self,
        window: &mut AgentWindow,
        (at, operations): (u64, usize),
        shift: Option<Shift>,
    ) {
        let factor = of_kind(shift, Watches::Tokens).unwrap_or(1.0);
        let smuggled = of_kind(shift, Watches::Skewness).unwrap_or(0.0);
        let median = 800.0 * (1.0 + 0.05 * day(at)) * factor;
        for _ in 0..operations {
            let tokens = median * (0.3 * self.random.normal()).exp();
            let more = if self.random.uniform() < smuggled { 4_000.0 } else { 0.0 };
            window.prompt_tokens.add((tokens + more) as u64, 1);
        }
    }

    /// Features of a trace, as logarithms: tokens out, time and calls go with tokens in; of such a share they do not.
    fn trace(&mut self, decoupled: Option<f64>) -> [f64; TRACE_FEATURES] {
        let input = 6.7 + 0.5 * self.random.normal();
        let is_decoupled = decoupled.is_some_and(|share| self.random.uniform() < share);
        let base = if is_decoupled { 13.4 - input } else { input };
        let mut about = |mean: f64| mean + 0.15 * self.random.normal();
        let (took, output, spans) = (about(base - 0.5), about(input - 1.5), about(2.3));
        let calls = (1.0 + self.random.below(3) as f64).ln_1p();
        let tools = (self.random.below(3) as f64).ln_1p();
        let retries = if self.random.below(20) == 0 { 1_f64.ln_1p() } else { 0.0 };
        [took, input, output, calls, tools, spans, retries]
    }

    fn embedding(&mut self, tilt: f64) -> Vec<f32> {
        let mut embedding: Vec<f32> =
            (0..32).map(|_| (0.2 * self.random.normal()) as f32).collect();
        embedding[0] += 1.0;
        embedding[1] += tilt as f32;
        embedding
    }
}

fn of_kind(shift: Option<Shift>, of: Watches) -> Option<f64> {
    shift.filter(|shift| shift.of == of).map(|shift| shift.to)
}

/// −1 to 1 in the course of a day.
fn day(minute: u64) -> f64 {
    (minute as f64 / DAY_MIN * std::f64::consts::TAU).sin()
}

fn began(said: &Drifted) -> Began {
    let firing = said.findings.iter().filter(|one| one.state == FindingState::Firing);
    let of = |kind: &str| Watches::ALL.into_iter().find(|of| of.kind() == kind);
    firing.filter_map(|one| Some((of(&one.kind)?, one.id.clone()))).collect()
}

/// Alarms by what they are of, on so many hours that are as usual.
pub(crate) fn false_alarms(seed: u64, per_minute: f64, hours: u64) -> BTreeMap<Watches, usize> {
    let mut agent = Agent::new(seed, per_minute, None);
    let mut began = Began::new();
    for _ in 0..hours * 60 {
        began.extend(agent.minute(None));
    }
    let mut counted: BTreeMap<Watches, usize> = Watches::ALL.map(|of| (of, 0)).into();
    for (of, _) in began {
        *counted.entry(of).or_default() += 1;
    }
    counted
}

/// Windows from a change to the alarm about it, 1 when it was raised with the first window that has the change;
/// `None` when it was not within `most`, or was on before.
pub(crate) fn delay(
    seed: u64,
    per_minute: f64,
    shift: Shift,
    (warm_up_hours, most): (u64, u64),
) -> Option<u64> {
    let mut agent = Agent::new(seed, per_minute, Some(shift.of));
    // Changes of what is watched by the minute begin anywhere in an hour.
    let is_hourly = shift.of.window_s() == 3_600;
    let offset = if is_hourly { 0 } else { seed % 60 };
    let mut known = Began::new();
    for _ in 0..warm_up_hours * 60 + offset {
        known.extend(agent.minute(None));
    }
    let minutes = if is_hourly { 60 } else { 1 };
    // What prompts look like is told with the first minute behind their hour.
    let late = u64::from(shift.of == Watches::Skewness);
    for window in 1..=most {
        for _ in 0..minutes + if window == most { late } else { 0 } {
            let began = agent.minute(Some(shift));
            if began.iter().any(|one| one.0 == shift.of && !known.contains(one)) {
                let is_of_before = late == 1 && agent.minute % 60 == 1;
                return Some(window - u64::from(is_of_before && window > 1));
            }
        }
    }
    None
}
