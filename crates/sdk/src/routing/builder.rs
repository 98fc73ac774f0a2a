//! How a router is put together.

use std::sync::Arc;
use std::time::Duration;

use throughline_llm::prices::PriceTable;
use throughline_resilience::route::{RouteRule, RoutingStrategy};
use throughline_trace::RouteWeights;

use super::router::{Router, RouterError};
use crate::chat::ChatModel;

/// A target of a [`Router`].
#[derive(Clone)]
pub struct RouteTo {
    pub(super) name: String,
    pub(super) model: Arc<dyn ChatModel>,
    pub(super) model_id: Option<String>,
    pub(super) version: Option<String>,
    pub(super) weight: u32,
}

impl RouteTo {
    /// A target of this name, asked for the model of that name, with weight 1.
    pub fn new(name: impl Into<String>, model: impl ChatModel + 'static) -> Self {
        let model = Arc::new(model);
        let name = name.into();
        Self { model_id: Some(name.clone()), name, model, version: None, weight: 1 }
    }

    /// Its weight, in proportion to the sum of all.
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// The model to ask it for, when that is not the target's name.
    #[must_use]
    pub fn model(mut self, model_id: impl Into<String>) -> Self {
        self.model_id = Some(model_id.into());
        self
    }

    /// It is asked for the model that the request names.
    #[must_use]
    pub fn model_as_requested(mut self) -> Self {
        self.model_id = None;
        self
    }

    /// `model_version` of what it answers; the model when not said.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }
}

/// A router that is being put together.
#[must_use = "a router is made with `build`"]
pub struct RouterBuilder {
    pub(super) route: String,
    pub(super) strategy: RoutingStrategy,
    pub(super) targets: Vec<RouteTo>,
    pub(super) rules: Vec<RouteRule>,
    pub(super) latency_budget: Option<Duration>,
    pub(super) prices: Option<Arc<PriceTable>>,
    pub(super) is_sticky: bool,
    pub(super) is_experiment: bool,
}

impl RouterBuilder {
    pub(super) fn new(route: String) -> Self {
        Self {
            route,
            strategy: RoutingStrategy::default(),
            targets: Vec::new(),
            rules: Vec::new(),
            latency_budget: None,
            prices: None,
            is_sticky: true,
            is_experiment: false,
        }
    }

    /// Adds a target.
    pub fn target(mut self, target: RouteTo) -> Self {
        self.targets.push(target);
        self
    }

    /// How a target is chosen; by weight when not said.
    pub fn strategy(mut self, strategy: RoutingStrategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Adds a rule, tried after those before it, and routes by rules. Rules read
    /// [`RouteHints`](crate::RouteHints) and baggage; `model` is the model that the request names.
    pub fn rule(mut self, rule: RouteRule) -> Self {
        self.strategy = RoutingStrategy::HeaderBased;
        self.rules.push(rule);
        self
    }

    /// Time that a call may take, retries included: set as `latency_budget_ms` before it, and
    /// enforced; of a streamed answer, until its end. One that the caller's
    /// [`RoutingTags`](crate::RoutingTags) name comes first.
    pub fn latency_budget(mut self, budget: Duration) -> Self {
        self.latency_budget = Some(budget);
        self
    }

    /// Prices other than those of telemetry, for choices by cost.
    pub fn prices(mut self, prices: PriceTable) -> Self {
        self.prices = Some(Arc::new(prices));
        self
    }

    /// Whether a session stays with its target (it does when nobody says) or every request is drawn
    /// at random.
    pub fn sticky_by_session(mut self, wanted: bool) -> Self {
        self.is_sticky = wanted;
        self
    }

    /// Makes the router.
    ///
    /// # Errors
    /// [`RouterError`] when the weights cannot be used or a rule names an unknown target.
    pub fn build(self) -> Result<Router, RouterError> {
        let weights = self.targets.iter().map(|target| (target.name.clone(), target.weight));
        let weights = RouteWeights::new(self.route.clone(), 0, weights)?;
        for rule in &self.rules {
            if !self.targets.iter().any(|target| target.name == rule.target) {
                let (route, target) = (self.route.clone(), rule.target.clone());
                return Err(RouterError::UnknownTarget { route, target });
            }
        }
        Ok(Router::of(self, weights))
    }
}

impl std::fmt::Debug for RouterBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let targets: Vec<&str> = self.targets.iter().map(|target| target.name.as_str()).collect();
        f.debug_struct("RouterBuilder")
            .field("route", &self.route)
            .field("strategy", &self.strategy)
            .field("targets", &targets)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for RouteTo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RouteTo")
            .field("name", &self.name)
            .field("weight", &self.weight)
            .finish_non_exhaustive()
    }
}
