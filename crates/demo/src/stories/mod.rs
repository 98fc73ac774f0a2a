//! The stories that the demo tells. A story is one file that holds both sides of it: what the
//! systems behind an agent's tools know, and what the simulated model says to it.
//!
//! The model's side works from the request alone, as a model does: `recognise` finds the story by
//! the system prompt and the run by its reference number in the conversation, and `perform` looks
//! at which tools have answered to know its turn.

pub mod fraud;
pub mod inventory;
pub mod payment;
pub mod research;
pub mod screening;
pub mod service;
pub mod shop;
pub mod triage;

use crate::provider::{ChatRequest, Reply, Role, letters};
use crate::seed::Seed;

/// Sessions of an agent that are open at the same time.
const OPEN_SESSIONS: usize = 3;

/// Letters and digits in a session's id.
const SESSION_ID_LETTERS: usize = 6;

/// One agent's part in the play.
pub(crate) struct Part {
    /// The agent's name.
    pub(crate) agent: &'static str,
    /// Words of the system prompt by which its requests are known.
    mark: &'static str,
    /// What its reference numbers begin with.
    prefix: &'static str,
    /// The reference number of run 0.
    first: u64,
    /// The model that it prefers, which is the one that has bad days.
    main_model: &'static str,
    /// Runs of each session, in the order of the story's file.
    sessions: &'static [usize],
    /// What the model says.
    perform: fn(Seed, u64, &ChatRequest) -> Option<Reply>,
}

/// All parts.
const CAST: [&Part; 4] = [&fraud::PART, &shop::PART, &research::PART, &triage::PART];

/// Whose request it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scenario {
    /// The agent.
    pub(crate) agent: &'static str,
    /// Which of its runs.
    pub(crate) run: u64,
}

/// Where a run stands among the agent's sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// How often all sessions have been played before.
    round: u64,
    /// Which session of the story's file.
    pub(crate) session: usize,
    /// Which run of the session.
    pub(crate) step: usize,
}

/// Whose request this is, told by its own content; `None` for anybody whom no story knows.
pub(crate) fn recognise(request: &ChatRequest) -> Option<Scenario> {
    let part = CAST
        .into_iter()
        .find(|part| request.texts(Role::System).any(|text| text.contains(part.mark)))?;
    let number = request.texts(Role::User).rev().find_map(|text| part.number_in(text))?;
    Some(Scenario { agent: part.agent, run: number.checked_sub(part.first)? })
}

/// What the model says to this request; `None` when the story has no line for it.
pub(crate) fn perform(seed: Seed, scenario: Scenario, request: &ChatRequest) -> Option<Reply> {
    let part = CAST.into_iter().find(|part| part.agent == scenario.agent)?;
    let mut reply = (part.perform)(seed, scenario.run, request)?;
    if !reply.calls.is_empty() {
        // The agents ask for it, and it is what a decision needs.
        let turn = seed.named("sure").named(part.agent).nth(scenario.run);
        let sure = turn.nth(request.prompt_tokens()).dice().between(0.71, 0.97);
        reply.text = format!("{} (confidence {sure:.2})", reply.text);
    }
    Some(reply)
}

/// What the model says to the agents that work at a steady rate; `None` to anybody else.
pub(crate) fn perform_steady(seed: Seed, request: &ChatRequest) -> Option<Reply> {
    let all = [screening::perform, payment::perform, service::perform, inventory::perform];
    all.iter().find_map(|perform| perform(seed, request))
}

/// The model that an agent prefers.
pub(crate) fn main_model(agent: &str) -> &'static str {
    CAST.into_iter().find(|part| part.agent == agent).map_or("", |part| part.main_model)
}

impl Part {
    /// The reference of a run, as people write it.
    pub(crate) fn reference(&self, run: u64) -> String {
        format!("{}{}", self.prefix, self.first + run)
    }

    fn number_in(&self, text: &str) -> Option<u64> {
        let (_, after) = text.split_once(self.prefix)?;
        let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        after[..end].parse().ok()
    }

    /// Where run `run` stands: sessions come in an order that the seed decides, a few at a time, so
    /// that a person's second run follows the first after a while.
    pub(crate) fn place(&self, seed: Seed, run: u64) -> Place {
        let runs: usize = self.sessions.iter().sum();
        let round = run / runs as u64;
        let mut left = (run % runs as u64) as usize;
        let mut order: Vec<usize> = (0..self.sessions.len()).collect();
        seed.named("sessions").named(self.agent).nth(round).dice().shuffle(&mut order);
        for open in order.chunks(OPEN_SESSIONS) {
            let longest = open.iter().map(|session| self.sessions[*session]).max().unwrap_or(0);
            for step in 0..longest {
                for session in open.iter().copied().filter(|s| self.sessions[*s] > step) {
                    if left == 0 {
                        return Place { round, session, step };
                    }
                    left -= 1;
                }
            }
        }
        Place { round, session: 0, step: 0 }
    }

    /// The id of the session that a place is in.
    pub(crate) fn session_id(&self, seed: Seed, place: Place, word: &str) -> String {
        let path = seed.named("session id").named(self.agent).nth(place.round);
        let id = letters(&mut path.nth(place.session as u64).dice(), SESSION_ID_LETTERS);
        format!("{word}-{}", id.to_lowercase())
    }
}

/// An amount of money as people write it: `2,349.00`.
pub(crate) fn money(amount: f64) -> String {
    let text = format!("{amount:.2}");
    let (whole, cents) = text.split_once('.').unwrap_or((&text, "00"));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{grouped}.{cents}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_round_plays_every_run_of_every_session_in_order() {
        for part in CAST {
            let runs: usize = part.sessions.iter().sum();
            for round in 0..3 {
                let places: Vec<Place> = (0..runs as u64)
                    .map(|run| part.place(Seed::new(42), round * runs as u64 + run))
                    .collect();
                let distinct: BTreeSet<(usize, usize)> =
                    places.iter().map(|place| (place.session, place.step)).collect();
                assert_eq!(distinct.len(), runs, "{}", part.agent);
                for (at, place) in places.iter().enumerate() {
                    let earlier = places[..at].iter().filter(|p| p.session == place.session);
                    assert_eq!(earlier.count(), place.step, "{}", part.agent);
                }
            }
        }
    }

    #[test]
    fn references_are_read_back() {
        for part in CAST {
            let text = format!("About {}, please.", part.reference(17));
            assert_eq!(part.number_in(&text), Some(part.first + 17));
            assert_eq!(part.number_in("no number here"), None);
        }
    }

    #[test]
    fn money_is_grouped() {
        assert_eq!(money(48_000.0), "48,000.00");
        assert_eq!(money(0.5), "0.50");
        assert_eq!(money(1_234_567.891), "1,234,567.89");
    }
}
