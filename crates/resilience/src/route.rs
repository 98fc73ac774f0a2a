//! The choice of a target among several (requirement R3.3): by weight, by what the request says, by
//! latency, by cost, or the cheapest that keeps a latency budget. Pure: what is known goes in, the
//! choice comes out.

mod draw;
mod rules;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use draw::{best, two};
pub use draw::{bucket, drawn, sticky};
pub use rules::{RouteRule, RuleMatch};

/// Share of requests that [`RoutingStrategy::LatencyAware`] sends anywhere, so that a target that
/// was slow once is asked again.
pub const EXPLORATION_SHARE: f64 = 0.05;

/// How a target is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoutingStrategy {
    /// In proportion to the weights: a session always the same, others at random.
    #[default]
    Weighted,
    /// By the first rule that fits the request; by weight when none does.
    HeaderBased,
    /// The faster of two drawn at random.
    LatencyAware,
    /// The cheapest.
    CostAware,
    /// The cheapest of those that nearly always keep the latency budget.
    LatencyBudget,
}

impl RoutingStrategy {
    /// Every strategy.
    pub const ALL: [Self; 5] = [
        Self::Weighted,
        Self::HeaderBased,
        Self::LatencyAware,
        Self::CostAware,
        Self::LatencyBudget,
    ];

    /// The value of `routing_strategy`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Weighted => "weighted",
            Self::HeaderBased => "header_based",
            Self::LatencyAware => "latency_aware",
            Self::CostAware => "cost_aware",
            Self::LatencyBudget => "latency_budget",
        }
    }
}

/// A target as the choice sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its weight; 0 leaves it to rules that name it.
    pub weight: f64,
    /// Whether its breaker lets requests through.
    pub is_available: bool,
    /// What the request is expected to cost there, US dollars; `None` when nobody knows.
    pub cost_usd: Option<f64>,
    /// Its smoothed latency; `None` when nobody knows.
    pub latency: Option<Duration>,
    /// What nearly all its answers stay within; `None` when nobody knows.
    pub slow_latency: Option<Duration>,
}

impl<'a> Candidate<'a> {
    /// A target in good health of which nothing is known.
    pub fn new(name: &'a str, weight: f64) -> Self {
        Self { name, weight, is_available: true, cost_usd: None, latency: None, slow_latency: None }
    }
}

/// What the choice is made for.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Ask<'a> {
    /// The session, to stay with its target.
    pub session: Option<&'a str>,
    /// The target that a rule names ([`RouteRule::first`]).
    pub ruled: Option<&'a str>,
    /// Time that the call may take.
    pub latency_budget: Option<Duration>,
    /// A random number, for what is left to chance.
    pub random: u64,
}

/// What was chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// Position among the candidates.
    pub index: usize,
    /// How it was chosen in the end: by weight also where a rule was asked and none fitted.
    pub strategy: RoutingStrategy,
    /// The target's share of the weights, 0 to 1.
    pub share: f64,
    /// Why.
    pub reason: Why,
}

/// Why a target was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The session belongs there.
    Session,
    /// By chance, in proportion to the weights.
    Chance,
    /// A rule names it.
    Rule,
    /// It answers faster than another.
    Faster,
    /// To learn how it does now.
    Exploration,
    /// It costs least.
    Cheapest,
    /// It costs least of those that keep the budget.
    CheapestInBudget,
    /// None keeps the budget: it is the fastest.
    FastestOutOfBudget,
}

impl Why {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Session => "the session belongs there",
            Self::Chance => "by chance, in proportion to the weights",
            Self::Rule => "a rule names it",
            Self::Faster => "it answers faster than another",
            Self::Exploration => "to learn how it does now",
            Self::Cheapest => "it costs least",
            Self::CheapestInBudget => "it costs least of those that keep the latency budget",
            Self::FastestOutOfBudget => "none keeps the latency budget and it is the fastest",
        }
    }
}

/// Chooses a target. Targets whose breaker is open are left out, unless all are; targets without
/// weight are left to rules that name them, unless none has any. `None` without candidates.
pub fn choose(
    strategy: RoutingStrategy,
    candidates: &[Candidate<'_>],
    ask: Ask<'_>,
) -> Option<Choice> {
    let open = eligible(candidates);
    let (index, strategy, reason) = match strategy {
        RoutingStrategy::Weighted => by_weight(candidates, &open, ask)?,
        RoutingStrategy::HeaderBased => {
            let ruled = |at: &usize| Some(candidates[*at].name) == ask.ruled;
            let any_available = candidates.iter().any(|one| one.is_available);
            let named = (0..candidates.len()).find(ruled);
            match named.filter(|at| candidates[*at].is_available || !any_available) {
                Some(index) => (index, RoutingStrategy::HeaderBased, Why::Rule),
                None => by_weight(candidates, &open, ask)?,
            }
        }
        RoutingStrategy::LatencyAware => {
            let (index, reason) = by_latency(candidates, &open, ask.random)?;
            (index, strategy, reason)
        }
        RoutingStrategy::CostAware => {
            let index = best(&open, |at| cost(&candidates[at]))?;
            (index, strategy, Why::Cheapest)
        }
        RoutingStrategy::LatencyBudget => {
            let (index, reason) = in_budget(candidates, &open, ask.latency_budget)?;
            (index, strategy, reason)
        }
    };
    let sum: f64 = candidates.iter().map(|one| one.weight.max(0.0)).sum();
    let share = if sum > 0.0 { candidates[index].weight.max(0.0) / sum } else { 0.0 };
    Some(Choice { index, strategy, share, reason })
}

/// Positions of the candidates that may be chosen.
fn eligible(candidates: &[Candidate<'_>]) -> Vec<usize> {
    let has_weight = |at: &usize| candidates[*at].weight > 0.0;
    let is_available = |at: &usize| candidates[*at].is_available;
    let all = || 0..candidates.len();
    let both: Vec<usize> = all().filter(has_weight).filter(is_available).collect();
    if !both.is_empty() {
        return both;
    }
    let weighted: Vec<usize> = all().filter(has_weight).collect();
    if weighted.is_empty() { all().collect() } else { weighted }
}

fn by_weight(
    candidates: &[Candidate<'_>],
    open: &[usize],
    ask: Ask<'_>,
) -> Option<(usize, RoutingStrategy, Why)> {
    let weights = open.iter().map(|at| (candidates[*at].name, candidates[*at].weight));
    let (position, reason) = match ask.session {
        Some(session) => (sticky(session, weights)?, Why::Session),
        None => (drawn(ask.random, weights)?, Why::Chance),
    };
    Some((open[position], RoutingStrategy::Weighted, reason))
}

/// The faster of two that are drawn; one of which nothing is known counts as fast, so that it is
/// tried.
fn by_latency(candidates: &[Candidate<'_>], open: &[usize], random: u64) -> Option<(usize, Why)> {
    let (first, second) = two(open, random)?;
    // Bits that did not decide which two were drawn.
    let chance = (random >> 40) as f64 / (1u64 << 24) as f64;
    if chance < EXPLORATION_SHARE {
        return Some((first, Why::Exploration));
    }
    let latency = |at: usize| candidates[at].latency.unwrap_or_default();
    let index = if latency(second) < latency(first) { second } else { first };
    let reason = if candidates[index].latency.is_some() { Why::Faster } else { Why::Exploration };
    Some((index, reason))
}

fn in_budget(
    candidates: &[Candidate<'_>],
    open: &[usize],
    budget: Option<Duration>,
) -> Option<(usize, Why)> {
    let Some(budget) = budget else {
        return best(open, |at| cost(&candidates[at])).map(|index| (index, Why::Cheapest));
    };
    let fits = |at: &usize| candidates[*at].slow_latency.is_none_or(|slow| slow <= budget);
    let fitting: Vec<usize> = open.iter().copied().filter(fits).collect();
    if let Some(index) = best(&fitting, |at| cost(&candidates[at])) {
        return Some((index, Why::CheapestInBudget));
    }
    let slow = |at: usize| candidates[at].slow_latency.unwrap_or_default().as_secs_f64();
    best(open, slow).map(|index| (index, Why::FastestOutOfBudget))
}

/// A price that nobody knows comes after all others.
fn cost(candidate: &Candidate<'_>) -> f64 {
    candidate.cost_usd.filter(|cost| cost.is_finite()).unwrap_or(f64::INFINITY)
}
