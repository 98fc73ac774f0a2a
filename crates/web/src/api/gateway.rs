//! `/api/v1/gateway`: routes with the weights that hold, breakers, what keys have used.

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Serialize;
use throughline_trace as model;

use crate::state::Shared;

/// How the gateway stands.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Gateway")]
pub(crate) struct GatewayShape {
    /// In the order in which they are tried.
    routes: Vec<Route>,
    /// Every model at a provider that was asked since the start, by name.
    targets: Vec<Target>,
    /// Every key that asked since the start or has limits, by name.
    keys: Vec<Key>,
    /// Requests under way.
    in_flight: u64,
    /// Requests that may be under way at once.
    max_in_flight: u64,
}

/// A route.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "GatewayRoute")]
struct Route {
    /// What decisions and weights call it.
    name: String,
    /// The model that clients ask for; a `*` at its end stands for anything.
    model: String,
    strategy: &'static str,
    targets: Vec<RouteTarget>,
    /// Who answers when the chosen target does not, in order.
    fallback: Vec<RouteTarget>,
    /// The generation of the weights that governance set and that hold instead of the configuration's;
    /// null when it set none.
    weights_generation: Option<u64>,
    /// How long answers are kept; null when they are not.
    cache_ttl_secs: Option<u64>,
    has_contract: bool,
}

/// A target of a route.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "GatewayRouteTarget")]
struct RouteTarget {
    /// What rules and weights call it.
    name: String,
    provider: String,
    /// The provider's model; null for the one that is asked for.
    model: Option<String>,
    /// The weight that holds now.
    weight: u32,
    /// The weight of the configuration.
    configured_weight: u32,
}

/// A model at a provider.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "GatewayTarget")]
struct Target {
    /// `{provider}/{model}`, as metrics call it.
    name: String,
    /// `closed`, `open` or `half_open`; null without a breaker.
    breaker: Option<&'static str>,
    /// When an open breaker lets a request through again, from now.
    opens_in_ms: Option<u64>,
    /// How long its provider's rate limit is used up as far as is known, from now.
    used_up_for_ms: Option<u64>,
    /// The smoothed time of its answers; null before the first.
    latency_ms: Option<f64>,
}

/// An API key.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "GatewayKey")]
struct Key {
    name: String,
    /// In this minute.
    requests: u64,
    requests_per_minute: Option<u64>,
    /// In this minute.
    tokens: u64,
    tokens_per_minute: Option<u64>,
    /// UTC.
    usd_today: f64,
    usd_per_day: Option<f64>,
    /// UTC.
    usd_this_month: f64,
    usd_per_month: Option<f64>,
    /// Models that it may ask for; all when there are none.
    models: Vec<String>,
}

/// `GET /api/v1/gateway`
pub(crate) async fn standing(State(app): State<Shared>) -> Json<GatewayShape> {
    Json((app.web.gateway)().into())
}

impl From<model::GatewayStanding> for GatewayShape {
    fn from(of: model::GatewayStanding) -> Self {
        Self {
            routes: of.routes.into_iter().map(Route::from).collect(),
            targets: of.targets.into_iter().map(Target::from).collect(),
            keys: of.keys.into_iter().map(Key::from).collect(),
            in_flight: of.in_flight,
            max_in_flight: of.max_in_flight,
        }
    }
}

impl From<model::RouteStanding> for Route {
    fn from(of: model::RouteStanding) -> Self {
        Self {
            name: of.name,
            model: of.model,
            strategy: of.strategy,
            targets: of.targets.into_iter().map(RouteTarget::from).collect(),
            fallback: of.fallback.into_iter().map(RouteTarget::from).collect(),
            weights_generation: of.set_weights.map(|set| set.generation),
            cache_ttl_secs: of.cache_ttl_secs,
            has_contract: of.has_contract,
        }
    }
}

impl From<model::RouteTargetStanding> for RouteTarget {
    fn from(of: model::RouteTargetStanding) -> Self {
        let model::RouteTargetStanding { name, provider, model, configured_weight, weight } = of;
        Self { name, provider, model, weight, configured_weight }
    }
}

impl From<model::TargetStanding> for Target {
    fn from(of: model::TargetStanding) -> Self {
        let model::TargetStanding { name, breaker, opens_in_ms, used_up_for_ms, latency_ms } = of;
        Self { name, breaker, opens_in_ms, used_up_for_ms, latency_ms }
    }
}

impl From<model::KeyStanding> for Key {
    fn from(of: model::KeyStanding) -> Self {
        Self {
            name: of.name,
            requests: of.requests,
            requests_per_minute: of.requests_per_minute,
            tokens: of.tokens,
            tokens_per_minute: of.tokens_per_minute,
            usd_today: of.usd_today,
            usd_per_day: of.usd_per_day,
            usd_this_month: of.usd_this_month,
            usd_per_month: of.usd_per_month,
            models: of.models,
        }
    }
}
