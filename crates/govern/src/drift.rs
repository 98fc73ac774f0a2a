//! Drift of agents against what was usual (requirements R5.1, R5.4 and R5.7), minute by minute: how long their
//! decision-bearing steps take, whether equal inputs get equal decisions, how many tokens their prompts have, whether
//! responses keep to their schema, and whether traces are unusual in several features together; and hour by hour: the
//! shape of prompt lengths, how much they do, and what their prompts are about.

mod features;
mod told;
mod watched;
mod watches;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use throughline_trace::{Action, Finding};

use crate::detect::{Reading, TimeSpan};
pub use features::{TRACE_FEATURES, trace_agent, trace_features};
pub use watched::{AgentHour, AgentWindow, MIN_USUAL_TRACES};
use watched::{ByHour, ByMinute, HOUR_NANOS};
pub use watches::Watches;

/// Agents that are watched at most; which has nothing for longest makes room.
pub const MAX_WATCHED_AGENTS: usize = 500;

/// Hours after which an agent that does nothing is no longer watched: two weeks, so that a week's silence is seen.
const FORGOTTEN_AFTER_HOURS: u64 = 14 * 24;

/// Hours before now from which an agent's usual week is learned at first: four weeks.
const LEARNED_HOURS: u64 = 28 * 24;

/// What is remembered of one agent.
#[derive(Debug, Clone, PartialEq)]
struct Watched {
    minute: ByMinute,
    hour: ByHour,
}

impl Default for Watched {
    fn default() -> Self {
        Self { minute: ByMinute::new(), hour: ByHour::new() }
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
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DriftWatch {
    agents: BTreeMap<String, Watched>,
    /// The end of the last window, nanoseconds since the Unix epoch; 0 before the first.
    pub observed_until_unix_nano: u64,
    /// The hour after the last, since the Unix epoch; 0 before the first.
    pub observed_until_hour: u64,
    /// Names of the parts that changed since they were taken.
    changed: BTreeSet<String>,
    /// Names of the parts that are no more.
    gone: BTreeSet<String>,
}

/// What is to be written of a watch: its parts as JSON by name, so that a minute costs what its agents cost.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DriftParts {
    /// Parts that changed.
    pub changed: Vec<(String, String)>,
    /// Names of parts that are no more.
    pub gone: Vec<String>,
    /// Whether an agent was forgotten, also one that came back meanwhile: its detectors are others.
    pub has_forgotten: bool,
}

/// The part that tells up to when it was looked.
#[derive(Serialize, Deserialize)]
struct Clock {
    observed_until_unix_nano: u64,
    observed_until_hour: u64,
}

const CLOCK: &str = "clock";
const MINUTE: &str = "minute/";
const HOUR: &str = "hour/";

/// What a window said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Drifted {
    /// What fires, and what ended.
    pub findings: Vec<Finding>,
    /// What is asked for: the cause, once an alarm.
    pub actions: Vec<Action>,
}

impl DriftWatch {
    /// Whether an agent's traces of before are wanted with the window of a minute (since the Unix epoch), to learn
    /// what is usual.
    pub fn learns_of(&self, agent: &str, minute: u64) -> bool {
        self.agents.get(agent).is_none_or(|watched| watched.minute.learns(minute))
    }

    /// Takes in what every agent did in a minute; an agent that did nothing is not there.
    pub fn observe(&mut self, span: TimeSpan, windows: &BTreeMap<String, AgentWindow>) -> Drifted {
        let mut drifted = Drifted::default();
        for (agent, window) in windows {
            let watched = self.agents.entry(agent.clone()).or_default();
            let (mut said, hour) = watched.minute.observe(span, window);
            if let Some((span, prompts)) = hour {
                said.extend(watched.hour.observe_prompts(span, &prompts));
                self.changed.insert(format!("{HOUR}{agent}"));
            }
            for (watches, detection) in said {
                drifted.say(agent, watches, &detection, &window.evidence);
            }
            self.changed.insert(format!("{MINUTE}{agent}"));
        }
        while self.agents.len() > MAX_WATCHED_AGENTS {
            let oldest = self.agents.iter().min_by_key(|(_, one)| one.minute.seen_unix_nano);
            let Some(name) = oldest.map(|(name, _)| name.clone()) else { break };
            self.forget(&name);
        }
        self.observed_until_unix_nano = span.to_unix_nano;
        drifted
    }

    /// The agents that are watched, each with the first hour (since the Unix epoch) whose operations are wanted with
    /// this hour.
    pub fn hours_from(&self, hour: u64) -> BTreeMap<String, u64> {
        let oldest = (hour + 1).saturating_sub(LEARNED_HOURS);
        let of = |(agent, one): (&String, &Watched)| {
            (agent.clone(), one.hour.traffic_until_hour.clamp(oldest, hour))
        };
        self.agents.iter().map(of).collect()
    }

    /// Takes in what every agent did in an hour that is over, since the Unix epoch.
    pub fn observe_hour(&mut self, hour: u64, hours: &BTreeMap<String, AgentHour>) -> Drifted {
        let mut drifted = Drifted::default();
        for (agent, of) in hours {
            let Some(watched) = self.agents.get_mut(agent) else { continue };
            for (watches, detection) in watched.hour.observe(hour, of) {
                drifted.say(agent, watches, &detection, &of.evidence);
            }
            self.changed.insert(format!("{HOUR}{agent}"));
        }
        self.observed_until_hour = hour + 1;
        let oldest = (hour + 1).saturating_sub(FORGOTTEN_AFTER_HOURS) * HOUR_NANOS;
        let is_silent = |one: &Watched| one.minute.seen_unix_nano < oldest;
        let silent: Vec<String> =
            self.agents.iter().filter(|(_, one)| is_silent(one)).map(|of| of.0.clone()).collect();
        silent.iter().for_each(|name| self.forget(name));
        drifted
    }

    fn forget(&mut self, agent: &str) {
        self.agents.remove(agent);
        for part in [format!("{MINUTE}{agent}"), format!("{HOUR}{agent}")] {
            self.changed.remove(&part);
            self.gone.insert(part);
        }
    }

    /// How every detector stands, by agent.
    pub fn standing(&self) -> Vec<DetectorStanding> {
        let of_agent = |(agent, watched): (&String, &Watched)| {
            Watches::ALL.map(|watches| {
                let (reading, is_firing) =
                    watched::standing(&watched.minute, &watched.hour, watches);
                let (agent, seen_unix_nano) = (agent.clone(), watched.minute.seen_unix_nano);
                DetectorStanding { agent, watches, reading, is_firing, seen_unix_nano }
            })
        };
        self.agents.iter().flat_map(of_agent).collect()
    }

    /// What is to be written since this was asked last.
    pub fn take_parts(&mut self) -> DriftParts {
        let (observed_until_unix_nano, observed_until_hour) =
            (self.observed_until_unix_nano, self.observed_until_hour);
        let clock = Clock { observed_until_unix_nano, observed_until_hour };
        let mut changed = vec![(CLOCK.to_owned(), json(&clock))];
        for name in std::mem::take(&mut self.changed) {
            let of = |prefix| self.agents.get(name.strip_prefix(prefix)?);
            let body = match (of(MINUTE), of(HOUR)) {
                (Some(watched), _) => json(&watched.minute),
                (None, Some(watched)) => json(&watched.hour),
                (None, None) => continue,
            };
            changed.push((name, body));
        }
        let has_forgotten = !self.gone.is_empty();
        // One that came back meanwhile is among the changed.
        let gone = std::mem::take(&mut self.gone).into_iter();
        let gone = gone.filter(|name| changed.iter().all(|(known, _)| known != name)).collect();
        DriftParts { changed, gone, has_forgotten }
    }

    /// A watch of its parts. What cannot be read is named with why: it begins anew.
    pub fn of_parts(
        parts: impl IntoIterator<Item = (String, String)>,
    ) -> (Self, Vec<(String, serde_json::Error)>) {
        let (mut watch, mut problems) = (Self::default(), Vec::new());
        for (name, body) in parts {
            let agents = &mut watch.agents;
            let read = if let Some(agent) = name.strip_prefix(MINUTE) {
                serde_json::from_str(&body).map(|part| {
                    agents.entry(agent.to_owned()).or_default().minute = part;
                })
            } else if let Some(agent) = name.strip_prefix(HOUR) {
                serde_json::from_str(&body).map(|part| {
                    agents.entry(agent.to_owned()).or_default().hour = part;
                })
            } else if name == CLOCK {
                serde_json::from_str(&body).map(|clock: Clock| {
                    watch.observed_until_unix_nano = clock.observed_until_unix_nano;
                    watch.observed_until_hour = clock.observed_until_hour;
                })
            } else {
                Ok(())
            };
            if let Err(error) = read {
                problems.push((name, error));
            }
        }
        (watch, problems)
    }
}

/// JSON of a part: numbers, lists and texts, which always have one.
fn json(part: &impl Serialize) -> String {
    serde_json::to_string(part).unwrap_or_default()
}

#[cfg(test)]
mod tests;
