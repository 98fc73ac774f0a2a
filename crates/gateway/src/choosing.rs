//! The choice of a target (requirement R3.3): by the machine of `resilience`, from weights, rules,
//! the session and what is known of the targets.

use std::sync::Arc;

use throughline_resilience::route::{
    Ask, Candidate, Choice, RouteRule, RoutingStrategy, Why, choose,
};
use throughline_trace::{Usage, Value, keys};

use crate::asked::Asked;
use crate::caller::Caller;
use crate::plan::Plan;
use crate::route::{Route, RouteTo};
use crate::targets::{Shared, Targets};
use crate::trail::Stamp;

/// Tokens that an answer is expected to have when the request sets no limit, for its cost.
const EXPECTED_OUTPUT_TOKENS: u64 = 500;
/// Bytes of a request that are about one token, where nobody can count them.
pub(crate) const BYTES_PER_TOKEN: u64 = 4;

/// A target that was chosen.
#[derive(Debug)]
pub(crate) struct Chosen<'a> {
    pub(crate) to: &'a RouteTo,
    pub(crate) shared: Arc<Shared>,
    pub(crate) reason: &'static str,
    pub(crate) strategy: RoutingStrategy,
    pub(crate) share: f64,
    /// What every span below bears.
    pub(crate) stamp: Stamp,
}

/// Chooses among a route's targets; `None` when it has none.
pub(crate) fn target_of<'a>(
    route: &'a Route,
    asked: &Asked,
    caller: &Caller,
    (plan, targets): (&Plan, &Targets),
) -> Option<Chosen<'a>> {
    let weighed = route.targets.iter().zip(route.weights());
    let (candidates, mut shared): (Vec<Candidate<'_>>, Vec<Arc<Shared>>) =
        weighed.map(|(to, weight)| candidate(route, (to, weight), asked, (plan, targets))).unzip();
    let group = caller.group().filter(|_| route.is_experiment);
    let (choice, reason) = match group {
        Some(group) => {
            // The group is the caller's word; whether its target can be asked is not looked at.
            let index = candidates.iter().position(|one| one.name == group)?;
            let sum: f64 = candidates.iter().map(|one| one.weight).sum();
            let share = if sum > 0.0 { candidates[index].weight / sum } else { 0.0 };
            let (strategy, reason) = (RoutingStrategy::Weighted, Why::Rule);
            (Choice { index, strategy, share, reason }, "the caller's group of the A/B test")
        }
        None => {
            let session = sticky_key(route, caller);
            let read = |name: &str| {
                caller.hint(name).or_else(|| (name == "model").then(|| asked.model.clone()))
            };
            let ask = Ask {
                session: session.as_deref(),
                ruled: RouteRule::first(&route.rules, read),
                latency_budget: route.budget(caller),
                random: rand::random(),
            };
            let choice = choose(route.strategy, &candidates, ask)?;
            (choice, choice.reason.as_str())
        }
    };
    let to = &route.targets[choice.index];
    let stamp = if route.is_named { tags(route, to, asked, choice) } else { Stamp::new() };
    let (strategy, share) = (choice.strategy, choice.share);
    let shared = shared.swap_remove(choice.index);
    Some(Chosen { to, shared, reason, strategy, share, stamp })
}

/// What a request stays with its target by: the session; in an A/B test without one the trace.
fn sticky_key(route: &Route, caller: &Caller) -> Option<String> {
    if !route.is_sticky {
        return None;
    }
    match caller.session() {
        Some(session) => Some(format!("{}/{session}", route.name)),
        None => route.is_experiment.then(|| format!("{}/{}", route.name, caller.trace_id)),
    }
}

fn tags(route: &Route, to: &RouteTo, asked: &Asked, choice: Choice) -> Stamp {
    let model = &asked.model;
    let mut stamp = vec![
        (keys::MODEL_ID, Value::from(to.model(model))),
        (keys::MODEL_VERSION, Value::from(to.version(model))),
        (keys::ROUTING_STRATEGY, Value::from(choice.strategy.as_str())),
        (keys::ROUTING_WEIGHT, Value::Double(choice.share)),
    ];
    if route.is_experiment {
        stamp.push((keys::AB_TEST_GROUP, Value::from(to.name.as_str())));
    }
    stamp
}

fn candidate<'a>(
    route: &Route,
    (to, weight): (&'a RouteTo, u32),
    asked: &Asked,
    (plan, targets): (&Plan, &Targets),
) -> (Candidate<'a>, Arc<Shared>) {
    let model = to.model(&asked.model);
    let shared = targets.get(plan, &to.provider.name, model);
    let mut candidate = Candidate::new(&to.name, f64::from(weight));
    candidate.is_available = shared.is_available();
    match route.strategy {
        RoutingStrategy::Weighted | RoutingStrategy::HeaderBased => {}
        RoutingStrategy::LatencyAware => candidate.latency = shared.target().latencies().mean(),
        RoutingStrategy::CostAware | RoutingStrategy::LatencyBudget => {
            let max_tokens = asked.request().and_then(|request| request.max_tokens);
            let usage = Usage {
                input_tokens: asked.body.len() as u64 / BYTES_PER_TOKEN,
                output_tokens: max_tokens.unwrap_or(EXPECTED_OUTPUT_TOKENS),
                ..Usage::default()
            };
            candidate.cost_usd =
                plan.prices.price(None, model).and_then(|price| price.cost_usd(usage, None));
            candidate.slow_latency = shared.target().latencies().nearly_always();
        }
    }
    (candidate, shared)
}
