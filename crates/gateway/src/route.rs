//! What a model name leads to: targets, how one is chosen, and who answers when it does not.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use throughline_resilience::ErrorSet;
use throughline_resilience::route::{RouteRule, RoutingStrategy};
use throughline_trace::RouteWeights;

use crate::caller::Caller;
use crate::config::{PolicyConfig, RouteConfig, TargetConfig};
use crate::contract::ContractConfig;
use crate::plan::{FALLBACK_ON, PlanError, Timing, field, timing};
use crate::provider::Provider;

/// What a model name leads to.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) name: String,
    pub(crate) pattern: String,
    pub(crate) strategy: RoutingStrategy,
    pub(crate) is_sticky: bool,
    /// Its targets are `control` and `treatment`.
    pub(crate) is_experiment: bool,
    pub(crate) targets: Vec<RouteTo>,
    pub(crate) rules: Vec<RouteRule>,
    pub(crate) fallback: Vec<RouteTo>,
    pub(crate) triggers: ErrorSet,
    pub(crate) timing: Timing,
    latency_budget: Option<Duration>,
    pub(crate) cache_ttl: Option<Duration>,
    pub(crate) contract: Option<Arc<ContractConfig>>,
    /// Whether it stands in the configuration.
    pub(crate) is_named: bool,
    /// Weights that were set while it runs, which hold instead of those of the configuration.
    set: ArcSwapOption<RouteWeights>,
}

/// A model at a provider.
#[derive(Debug, Clone)]
pub(crate) struct RouteTo {
    pub(crate) name: String,
    pub(crate) provider: Arc<Provider>,
    pub(crate) model: Option<String>,
    version: Option<String>,
    pub(crate) weight: u32,
}

impl RouteTo {
    /// The provider's model for a request that asks for `asked`.
    pub(crate) fn model<'a>(&'a self, asked: &'a str) -> &'a str {
        self.model.as_deref().unwrap_or(asked)
    }

    /// The value of `model_version`.
    pub(crate) fn version<'a>(&'a self, asked: &'a str) -> &'a str {
        self.version.as_deref().unwrap_or_else(|| self.model(asked))
    }
}

impl Route {
    pub(crate) fn of(
        config: &RouteConfig,
        base: &PolicyConfig,
        find: &impl Fn(&str, &str) -> Result<Arc<Provider>, PlanError>,
    ) -> Result<Self, PlanError> {
        if config.model.is_empty() {
            return Err(field("gateway.routes[].model", "the name of a model", "none"));
        }
        let place = format!("gateway.routes[{}]", config.model);
        let to = |key: &str, target: &TargetConfig| -> Result<RouteTo, PlanError> {
            let provider = find(&format!("{place}.{key}.provider"), &target.provider)?;
            let model = target.model.as_deref().unwrap_or(&config.model);
            let name = target.name.clone().unwrap_or_else(|| model.to_owned());
            Ok(RouteTo {
                name,
                provider,
                model: target.model.clone(),
                version: target.version.clone(),
                weight: target.weight.unwrap_or(1),
            })
        };
        let all = |key: &str, list: &[TargetConfig]| -> Result<Vec<RouteTo>, PlanError> {
            list.iter().map(|target| to(key, target)).collect()
        };
        let targets = all("targets", &config.targets)?;
        let name = config.name.clone().unwrap_or_else(|| config.model.clone());
        let weights = targets.iter().map(|target| (target.name.clone(), target.weight));
        RouteWeights::new(&name, 0, weights)
            .map_err(|error| PlanError::Weights { field: place.clone(), error })?;
        for rule in &config.rules {
            if !targets.iter().any(|target| target.name == rule.target) {
                let expected = "a target of this route in every rule";
                return Err(field(&format!("{place}.rules"), expected, &rule.target));
            }
        }
        let names: HashSet<&str> = targets.iter().map(|target| target.name.as_str()).collect();
        let ttl = config.cache.as_ref().map(|cache| Duration::from_secs(cache.ttl_secs));
        if ttl == Some(Duration::ZERO) {
            return Err(field(&format!("{place}.cache.ttl_secs"), "a number above 0", "0"));
        }
        let latency_budget = config.latency_budget_ms;
        if latency_budget == Some(0) {
            return Err(field(&format!("{place}.latency_budget_ms"), "a number above 0", "0"));
        }
        Ok(Self {
            name,
            pattern: config.model.clone(),
            strategy: config.strategy,
            is_sticky: config.sticky.unwrap_or(true),
            is_experiment: names == HashSet::from(["control", "treatment"]),
            targets,
            rules: config.rules.clone(),
            fallback: all("fallback", &config.fallback)?,
            triggers: config.fallback_on.unwrap_or(FALLBACK_ON),
            timing: timing(&format!("{place}.policy"), &config.policy, base)?,
            latency_budget: latency_budget.map(Duration::from_millis),
            cache_ttl: ttl,
            contract: config.contract.clone().map(Arc::new),
            is_named: true,
            set: ArcSwapOption::empty(),
        })
    }

    /// The time that a request may take: what the caller says, else the route.
    pub(crate) fn budget(&self, caller: &Caller) -> Option<Duration> {
        caller.latency_budget.or(self.latency_budget)
    }

    /// The weights of its targets, in their order.
    pub(crate) fn weights(&self) -> Vec<u32> {
        let set = self.set.load();
        let of = |to: &RouteTo| match &*set {
            None => to.weight,
            Some(set) => {
                set.targets.iter().find(|one| one.name == to.name).map_or(0, |one| one.weight)
            }
        };
        self.targets.iter().map(of).collect()
    }

    /// The weights that were set while it runs.
    pub(crate) fn set_weights(&self) -> Option<Arc<RouteWeights>> {
        self.set.load_full()
    }

    /// Puts weights in place of the configuration's; `None` takes them away again. Those that would
    /// leave all of its targets without traffic are told, and change nothing.
    pub(crate) fn weigh(&self, weights: Option<&RouteWeights>) {
        let Some(weights) = weights else {
            self.set.store(None);
            return;
        };
        if self.set.load().as_deref() == Some(weights) {
            return;
        }
        let is_target = |name: &str| self.targets.iter().any(|target| target.name == name);
        let (known, unknown): (Vec<_>, Vec<_>) = weights
            .targets
            .iter()
            .filter(|one| one.weight > 0)
            .map(|one| one.name.as_str())
            .partition(|name| is_target(name));
        let route = self.name.as_str();
        if known.is_empty() {
            tracing::error!(
                route,
                ?unknown,
                "weights that name no target of the route are not used"
            );
            return;
        }
        if !unknown.is_empty() {
            tracing::warn!(route, ?unknown, "weights name what is no target of the route");
        }
        self.set.store(Some(Arc::new(weights.clone())));
        let names = self.targets.iter().map(|target| target.name.as_str());
        let weights: Vec<(&str, u32)> = names.zip(self.weights()).collect();
        tracing::info!(route, ?weights, "weights are set");
    }

    /// The way of a model that no route names.
    pub(crate) fn unnamed(provider: Arc<Provider>, timing: &Timing) -> Self {
        let target = RouteTo {
            name: provider.name.clone(),
            provider,
            model: None,
            version: None,
            weight: 1,
        };
        Self {
            name: "default".to_owned(),
            pattern: "*".to_owned(),
            strategy: RoutingStrategy::Weighted,
            is_sticky: false,
            is_experiment: false,
            targets: vec![target],
            rules: Vec::new(),
            fallback: Vec::new(),
            triggers: ErrorSet::NONE,
            timing: timing.clone(),
            latency_budget: None,
            cache_ttl: None,
            contract: None,
            is_named: false,
            set: ArcSwapOption::empty(),
        }
    }
}
