//! How the gateway stands at a moment: its routes, what is known of each model at a provider, and what
//! keys have used. Pages and the API show it.

use crate::RouteWeights;

/// How the gateway stands.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GatewayStanding {
    /// Routes, in the order in which they are tried.
    pub routes: Vec<RouteStanding>,
    /// Every model at a provider that was asked since the start, by name.
    pub targets: Vec<TargetStanding>,
    /// Every key that has asked since the start or has limits, by name.
    pub keys: Vec<KeyStanding>,
    /// Requests under way.
    pub in_flight: u64,
    /// Requests that may be under way at once.
    pub max_in_flight: u64,
}

/// A route.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteStanding {
    /// What decisions and weights call it.
    pub name: String,
    /// The model that clients ask for; a `*` at its end stands for anything.
    pub model: String,
    /// How a target is chosen (`weighted`, `header_based`, …).
    pub strategy: &'static str,
    /// Who may answer first.
    pub targets: Vec<RouteTargetStanding>,
    /// Who answers when the chosen target does not, in order.
    pub fallback: Vec<RouteTargetStanding>,
    /// Weights that were set while it runs and hold instead of the configuration's.
    pub set_weights: Option<RouteWeights>,
    /// How long answers are kept, seconds; `None` when they are not.
    pub cache_ttl_secs: Option<u64>,
    /// Whether requests or answers are held against a contract.
    pub has_contract: bool,
}

/// A target of a route.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteTargetStanding {
    /// What rules and weights call it.
    pub name: String,
    /// Its provider.
    pub provider: String,
    /// The provider's model; `None` for the one that is asked for.
    pub model: Option<String>,
    /// The weight of the configuration.
    pub configured_weight: u32,
    /// The weight that holds now.
    pub weight: u32,
}

/// A model at a provider.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetStanding {
    /// `{provider}/{model}`, as metrics call it.
    pub name: String,
    /// Its breaker: `closed`, `open`, `half_open`; `None` when it has none.
    pub breaker: Option<&'static str>,
    /// When an open breaker lets a request through again, milliseconds from now.
    pub opens_in_ms: Option<u64>,
    /// How long its provider's rate limit is used up as far as is known, milliseconds from now.
    pub used_up_for_ms: Option<u64>,
    /// The smoothed time of its answers, milliseconds; `None` before the first.
    pub latency_ms: Option<f64>,
}

/// An API key.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyStanding {
    /// Its name.
    pub name: String,
    /// Requests in this minute.
    pub requests: u64,
    /// How many it may make.
    pub requests_per_minute: Option<u64>,
    /// Tokens in this minute.
    pub tokens: u64,
    /// How many it may use.
    pub tokens_per_minute: Option<u64>,
    /// US dollars today (UTC).
    pub usd_today: f64,
    /// How many it may spend.
    pub usd_per_day: Option<f64>,
    /// US dollars this month (UTC).
    pub usd_this_month: f64,
    /// How many it may spend.
    pub usd_per_month: Option<f64>,
    /// Models that it may ask for; all when there are none.
    pub models: Vec<String>,
}

/// Money that a key has spent in a day or month, as it is kept over a restart.
#[derive(Debug, Clone, PartialEq)]
pub struct KeySpending {
    /// The name of the key.
    pub key: String,
    /// A day or month in UTC: `2026-11-27`, `2026-11`.
    pub period: String,
    /// US dollars.
    pub usd: f64,
}
