//! What goes wrong in a run. Every run has one card of a shuffled deck, so that any dozen runs of
//! an agent show calm, bumps, fallbacks and a failure in true proportion, and run N of an agent
//! under a seed always has the same one.

use crate::seed::Seed;

/// The adversity of one run. Model faults are played by the simulated provider, tool faults by the
/// tools; the agent knows of neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Weather {
    /// Nothing goes wrong.
    Calm,
    /// The provider rate-limits one request.
    RateLimited,
    /// The provider answers one request with a server error.
    ServerError,
    /// A streamed answer breaks off.
    StreamCut,
    /// The main model never answers; others do.
    ModelHangs,
    /// The main model is overloaded for the whole run; others work.
    ModelDown,
    /// The whole provider fails for the whole run.
    ProviderDown,
    /// The run's fragile tool takes three times as long.
    ToolSlow,
    /// The run's fragile tool does not answer the first time.
    ToolTimesOutOnce,
    /// The run's fragile tool does not answer at all.
    ToolDown,
}

impl Weather {
    /// The deck: what sixteen runs of one agent meet, in an order that the seed decides.
    pub const DECK: [Self; 16] = [
        Self::Calm,
        Self::Calm,
        Self::Calm,
        Self::Calm,
        Self::Calm,
        Self::Calm,
        Self::Calm,
        Self::RateLimited,
        Self::ServerError,
        Self::StreamCut,
        Self::ModelHangs,
        Self::ModelDown,
        Self::ProviderDown,
        Self::ToolSlow,
        Self::ToolTimesOutOnce,
        Self::ToolDown,
    ];

    /// The card of run `run` of `agent`.
    pub fn of(seed: Seed, agent: &str, run: u64) -> Self {
        let round = Self::DECK.len() as u64;
        let mut deck = Self::DECK;
        seed.named("weather").named(agent).nth(run / round).dice().shuffle(&mut deck);
        deck[(run % round) as usize]
    }

    /// The first run of `agent` that meets this, for tests and for showing it on purpose.
    pub fn first_run(self, seed: Seed, agent: &str) -> Option<u64> {
        (0..Self::DECK.len() as u64).find(|run| Self::of(seed, agent, *run) == self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_of_runs_meets_the_whole_deck() {
        for agent in ["fraud_check", "shop_order"] {
            for round in 0..3 {
                let met: Vec<Weather> =
                    (0..16).map(|n| Weather::of(Seed::new(42), agent, round * 16 + n)).collect();
                for card in Weather::DECK {
                    let dealt = Weather::DECK.iter().filter(|other| **other == card).count();
                    assert_eq!(met.iter().filter(|other| **other == card).count(), dealt);
                }
            }
        }
    }

    #[test]
    fn the_order_depends_on_seed_and_agent_alone() {
        let deal = |seed: u64, agent: &str| -> Vec<Weather> {
            (0..16).map(|run| Weather::of(Seed::new(seed), agent, run)).collect()
        };
        assert_eq!(deal(42, "fraud_check"), deal(42, "fraud_check"));
        assert_ne!(deal(42, "fraud_check"), deal(43, "fraud_check"));
        assert_ne!(deal(42, "fraud_check"), deal(42, "shop_order"));
    }

    #[test]
    fn every_card_has_a_first_run() {
        for card in Weather::DECK {
            let run = card.first_run(Seed::new(7), "medical_triage").expect("the deck holds it");
            assert_eq!(Weather::of(Seed::new(7), "medical_triage", run), card);
        }
    }
}
