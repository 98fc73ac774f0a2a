//! What the simulated provider does wrong, when, and to whom.

use crate::seed::Seed;
use crate::weather::Weather;

/// One way to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// 429 with `Retry-After`.
    RateLimited {
        /// The header's value, seconds.
        retry_after_secs: u64,
    },
    /// 500.
    ServerError,
    /// 503.
    Overloaded,
    /// No answer, ever.
    Hangs,
    /// The stream ends before its end; a plain answer becomes a 500.
    CutStream {
        /// Whether the connection breaks, rather than the stream just ending without `[DONE]`.
        abrupt: bool,
    },
    /// The answer is withheld: `finish_reason` is `content_filter`.
    ContentFilter,
}

/// Which streamed answer of a run breaks off: late enough that something is lost.
const CUT_STREAM: u64 = 3;

/// One request of a run, as far as faults are concerned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Occasion<'a> {
    /// Whose run it is.
    pub(crate) agent: &'a str,
    /// Which of its runs.
    pub(crate) run: u64,
    /// How many requests of the run came before.
    pub(crate) request: u64,
    /// How many streamed requests of the run came before.
    pub(crate) streamed: u64,
    /// Whether the agent's main model is asked.
    pub(crate) is_main_model: bool,
    /// Whether a stream is wanted.
    pub(crate) is_stream: bool,
}

/// What befalls this request: a function of the seed, the run and the request's number in it.
pub(crate) fn scheduled(seed: Seed, occasion: Occasion<'_>) -> Option<Fault> {
    let Occasion { agent, run, request, .. } = occasion;
    let mut dice = seed.named("faults").named(agent).nth(run).dice();
    let early = dice.below(2);
    let abrupt = dice.below(2) == 1;
    match Weather::of(seed, agent, run) {
        Weather::RateLimited if request == early => {
            Some(Fault::RateLimited { retry_after_secs: 1 })
        }
        Weather::ServerError if request == early => Some(Fault::ServerError),
        Weather::StreamCut if occasion.is_stream && occasion.streamed == CUT_STREAM => {
            Some(Fault::CutStream { abrupt })
        }
        Weather::ModelHangs if occasion.is_main_model => Some(Fault::Hangs),
        Weather::ModelDown if occasion.is_main_model => Some(Fault::Overloaded),
        Weather::ProviderDown => Some(Fault::ServerError),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(weather: Weather, is_main_model: bool) -> Vec<Option<Fault>> {
        let seed = Seed::new(42);
        let run = weather.first_run(seed, "web_researcher").expect("the deck holds it");
        (0..4)
            .map(|request| {
                let occasion = Occasion {
                    agent: "web_researcher",
                    run,
                    request,
                    streamed: request,
                    is_main_model,
                    is_stream: true,
                };
                scheduled(seed, occasion)
            })
            .collect()
    }

    #[test]
    fn a_bump_comes_once_and_an_outage_stays() {
        assert_eq!(faults_of(Weather::Calm, true), [None; 4]);
        for bump in [Weather::RateLimited, Weather::ServerError, Weather::StreamCut] {
            assert_eq!(faults_of(bump, true).iter().flatten().count(), 1, "{bump:?}");
        }
        assert_eq!(faults_of(Weather::ModelHangs, true), [Some(Fault::Hangs); 4]);
        assert_eq!(faults_of(Weather::ModelHangs, false), [None; 4]);
        assert_eq!(faults_of(Weather::ProviderDown, false), [Some(Fault::ServerError); 4]);
    }
}
