//! What a provider can answer to a proposal, from what was measured of the very calls that it is about.
//!
//! The measure is the lower end of Wilson's 95 % interval (1927) of the share of calls that were as expected: an
//! objective that it reaches is accepted. One that it does not reach is countered with what can be promised:
//! a larger latency where the objective holds, else the objective that the lower end supports. Calls that
//! are too few to show the objective however good they were lead to neither.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::latency::LatencyBound;
use super::terms::Terms;
use crate::slo::Indicator;
use crate::statistics::{normal_quantile, wilson_interval};

/// What the interval may miss: it is one of 95 %.
pub const ALPHA: f64 = 0.05;

/// The lowest objective that is offered; less than half of the calls is no promise.
pub const LEAST_OBJECTIVE: f64 = 0.5;

/// Objectives that are offered are rounded down to this.
const OBJECTIVE_DIGITS: f64 = 10_000.0;

/// Calls that could be judged, and those of them that were as expected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// Calls that could be judged.
    pub calls: u64,
    /// Those that were as expected.
    pub good: u64,
}

impl Judged {
    /// The share that was as expected; `None` without calls.
    pub fn share(self) -> Option<f64> {
        (self.calls > 0).then(|| self.good as f64 / self.calls as f64)
    }

    /// Wilson's 95 % interval of the share.
    pub fn interval(self) -> (f64, f64) {
        wilson_interval(self.good as f64, self.calls as f64, ALPHA)
    }
}

/// The calls with another limit of the latency.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AtLimit {
    /// The limit, milliseconds.
    pub limit_ms: f64,
    /// What holds with it.
    pub judged: Judged,
}

/// What was counted of the calls that a proposal is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// From, nanoseconds since the Unix epoch.
    pub from_unix_nano: u64,
    /// Up to, nanoseconds since the Unix epoch.
    pub to_unix_nano: u64,
    /// Calls that are meant, those too that could not be judged.
    pub meant: u64,
    /// With what is proposed.
    pub proposed: Judged,
    /// With rounded limits of the latency above the proposed one, the smallest first.
    pub at_limits: Vec<AtLimit>,
}

impl Measured {
    /// Calls for which `expect` had no value: they are neither good nor bad.
    pub fn unjudged(&self) -> u64 {
        self.meant.saturating_sub(self.proposed.calls)
    }
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// What was measured shows the objective.
    Accept,
    /// It does not; this can be promised instead.
    Counter {
        /// What is offered.
        terms: Terms,
    },
    /// Too few calls to say either.
    Insufficient {
        /// So many more are needed at least.
        more_calls: u64,
    },
    /// Nothing worth a promise was attained.
    Decline,
}

impl Verdict {
    /// As it is written in JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Counter { .. } => "counter",
            Self::Insufficient { .. } => "insufficient",
            Self::Decline => "decline",
        }
    }
}

/// Calls without which no share, however good, has a lower end that reaches an objective.
pub fn calls_needed(objective: f64, min_events: u64) -> u64 {
    let z = normal_quantile(1.0 - ALPHA / 2.0);
    // n / (n + z²) ≥ o, of n calls that are all good.
    let needed = (z * z * objective / (1.0 - objective)).ceil();
    (needed as u64).max(min_events).max(1)
}

/// The answer to a proposal.
pub fn answer(terms: &Terms, measured: &Measured) -> Verdict {
    let (objective, judged) = (terms.objective(), measured.proposed);
    let (lower, upper) = judged.interval();
    let needed = calls_needed(objective, terms.min_events());
    let missing = needed.saturating_sub(judged.calls);
    // Few calls can show that an objective is missed, and then they do.
    if judged.calls < terms.min_events().max(1) || (missing > 0 && upper >= objective) {
        return Verdict::Insufficient { more_calls: missing.max(1) };
    }
    if lower >= objective {
        return Verdict::Accept;
    }
    if let Some(bound) = LatencyBound::find(terms.expect()) {
        let holds =
            |at: &&AtLimit| at.judged.calls >= needed && at.judged.interval().0 >= objective;
        if let Some(at) = measured.at_limits.iter().find(holds) {
            let expect = bound.with(at.limit_ms);
            return Verdict::Counter { terms: terms.with_expect(&expect) };
        }
    }
    let supported = (lower * OBJECTIVE_DIGITS).floor() / OBJECTIVE_DIGITS;
    match supported >= LEAST_OBJECTIVE {
        true => Verdict::Counter { terms: terms.with_objective(supported) },
        false => Verdict::Decline,
    }
}

/// The answer in words, with the numbers that lead to it.
pub fn explain(terms: &Terms, measured: &Measured) -> String {
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    let (judged, (lower, _)) = (measured.proposed, measured.proposed.interval());
    let shall = percent(terms.objective());
    let mut told = match judged.share() {
        None => format!("none of the calls of {} could be judged", terms.consumer()),
        Some(share) => format!(
            "{} of {} calls of {} to {} ({}, at least {} at 95 % confidence) were as proposed, {shall} shall be",
            judged.good,
            judged.calls,
            terms.consumer(),
            terms.provider(),
            percent(share),
            percent(lower),
        ),
    };
    if measured.unjudged() > 0 {
        told += &format!("; of {} more, `expect` had no value", measured.unjudged());
    }
    told += "; ";
    told += &match answer(terms, measured) {
        Verdict::Accept => "accepted".to_owned(),
        Verdict::Insufficient { more_calls } => {
            format!("insufficient data: at least {more_calls} more calls are needed")
        }
        Verdict::Decline => "nothing worth a promise was attained".to_owned(),
        Verdict::Counter { terms: offered } if offered.expect() != terms.expect() => {
            let expect = offered.expect().split_whitespace().collect::<Vec<_>>().join(" ");
            format!("countered with {expect}, where {shall} hold")
        }
        Verdict::Counter { terms: offered } => {
            format!("countered with {}", percent(offered.objective()))
        }
    };
    told
}

/// What the store counts so that a proposal can be answered.
#[derive(Debug, Clone)]
pub struct Gauges {
    /// All calls that are meant are good here, also those that cannot be judged.
    pub meant: Arc<Indicator>,
    /// Those that are as proposed.
    pub proposed: Arc<Indicator>,
    /// Those that would be, by limit of the latency in milliseconds.
    pub at_limits: Vec<(f64, Arc<Indicator>)>,
}

impl Gauges {
    /// What is counted for terms.
    ///
    /// # Errors
    /// A text for people, when they cannot be counted.
    pub fn of(terms: &Terms) -> Result<Self, String> {
        let bound = LatencyBound::find(terms.expect());
        let limits = bound.iter().flat_map(|bound| {
            bound.above().into_iter().map(|limit_ms| (limit_ms, bound.with(limit_ms)))
        });
        Ok(Self {
            meant: terms.indicator("true")?,
            proposed: terms.indicator(terms.expect())?,
            at_limits: limits
                .map(|(limit_ms, expect)| Ok((limit_ms, terms.indicator(&expect)?)))
                .collect::<Result<_, String>>()?,
        })
    }

    /// All of them.
    pub fn indicators(&self) -> impl Iterator<Item = &Arc<Indicator>> {
        let at_limits = self.at_limits.iter().map(|(_, indicator)| indicator);
        [&self.meant, &self.proposed].into_iter().chain(at_limits)
    }

    /// What was measured from counters, asked for by the id of an indicator as (total, good).
    pub fn measured(
        &self,
        (from_unix_nano, to_unix_nano): (u64, u64),
        counted: impl Fn(&str) -> (i64, i64),
    ) -> Measured {
        let judged = |indicator: &Indicator| {
            let (total, good) = counted(indicator.id());
            // Corrections of calls told twice may come before what they correct.
            let calls = total.max(0) as u64;
            Judged { calls, good: (good.max(0) as u64).min(calls) }
        };
        let at_limits = self.at_limits.iter();
        Measured {
            from_unix_nano,
            to_unix_nano,
            meant: judged(&self.meant).calls,
            proposed: judged(&self.proposed),
            at_limits: at_limits
                .map(|(limit_ms, one)| AtLimit { limit_ms: *limit_ms, judged: judged(one) })
                .collect(),
        }
    }
}
