//! How the gateway stands, for pages and the API, and what is kept of it over a restart.

use throughline_resilience::BreakerState;
use throughline_trace::{
    GatewayStanding, KeySpending, RouteStanding, RouteTargetStanding, TargetStanding,
};

use crate::route::{Route, RouteTo};
use crate::state::Gateway;
use crate::targets::Shared;

impl Gateway {
    /// How it stands now.
    pub fn standing(&self) -> GatewayStanding {
        let inner = &self.inner;
        let serving = inner.serving();
        let (in_flight, max_in_flight) = inner.under_way();
        GatewayStanding {
            routes: serving.plan.routes().map(route).collect(),
            targets: inner.targets.all().iter().map(|shared| target(shared)).collect(),
            keys: inner.meters.standing(&serving.plan.keys),
            in_flight,
            max_in_flight,
        }
    }

    /// What every key has spent in this day and month, to be [remembered](Self::remember) by the next
    /// process.
    pub fn spent(&self) -> Vec<KeySpending> {
        self.inner.meters.spent()
    }

    /// Adds what was spent before this process began. What is of another day or month is left out.
    pub fn remember(&self, spent: &[KeySpending]) {
        self.inner.meters.remember(spent);
    }
}

fn route(route: &Route) -> RouteStanding {
    let of = |to: &RouteTo, weight: u32| RouteTargetStanding {
        name: to.name.clone(),
        provider: to.provider.name.clone(),
        model: to.model.clone(),
        configured_weight: to.weight,
        weight,
    };
    let weighed = route.targets.iter().zip(route.weights());
    RouteStanding {
        name: route.name.clone(),
        model: route.pattern.clone(),
        strategy: route.strategy.as_str(),
        targets: weighed.map(|(to, weight)| of(to, weight)).collect(),
        fallback: route.fallback.iter().map(|to| of(to, to.weight)).collect(),
        set_weights: route.set_weights().map(|set| (*set).clone()),
        cache_ttl_secs: route.cache_ttl.map(|ttl| ttl.as_secs()),
        has_contract: route.contract.is_some(),
    }
}

fn target(shared: &Shared) -> TargetStanding {
    let now = shared.now();
    let (state, mean) = {
        let target = shared.target();
        (target.breaker().map(|breaker| breaker.state(now)), target.latencies().mean())
    };
    let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    TargetStanding {
        name: shared.name.clone(),
        breaker: state.map(BreakerState::as_str),
        opens_in_ms: match state {
            Some(BreakerState::Open { until }) => Some(ms(until.since(now))),
            _ => None,
        },
        used_up_for_ms: shared.is_used_up_for().map(ms),
        latency_ms: mean.map(|mean| mean.as_secs_f64() * 1e3),
    }
}
