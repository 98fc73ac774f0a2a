//! What the gateway tells of itself on `/metrics`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use throughline::Outcome;
use throughline_resilience::BreakerState;
use throughline_trace::{ErrorType, Usage};

use crate::api::Api;

type Labels<const N: usize> = [(&'static str, String); N];

/// Seconds: 10 ms to 80 s, the buckets that the GenAI conventions name.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.01, 2.0, 14))
}

/// Counters of one target that most of its calls add to, found once: looking them up by their labels costs
/// more than all else that is counted of a call. They come into being with the first call that adds to them.
#[derive(Debug, Default)]
pub(crate) struct TargetCounters {
    succeeded: OnceLock<Counter>,
    input_tokens: OnceLock<Counter>,
    output_tokens: OnceLock<Counter>,
    cost_nano_usd: OnceLock<Counter>,
    duration: OnceLock<Histogram>,
}

/// The status of most requests.
const OK: u16 = 200;

/// The gateway's own metrics. Labels are few: a target is one of those that have a
/// breaker of their own, everything beyond is `other`.
#[derive(Debug, Clone)]
pub(crate) struct GatewayMetrics {
    requests: Family<Labels<2>, Counter>,
    /// Of those the ones that were answered with 200, by the number of the API.
    answered: [OnceLock<Counter>; Api::ALL.len()],
    calls: Family<Labels<2>, Counter>,
    errors: Family<Labels<2>, Counter>,
    tokens: Family<Labels<2>, Counter>,
    cost_nano_usd: Family<Labels<1>, Counter>,
    retries: Family<Labels<1>, Counter>,
    fallbacks: Family<Labels<1>, Counter>,
    passed_over: Family<Labels<1>, Counter>,
    violations: Family<Labels<2>, Counter>,
    breaker: Family<Labels<1>, Gauge>,
    cache: Family<Labels<1>, Counter>,
    refused: Family<Labels<1>, Counter>,
    dropped: Family<Labels<1>, Counter>,
    inbox_full: Counter,
    stalled: Counter,
    pub(crate) in_flight: Gauge,
    duration: Family<Labels<1>, Histogram, fn() -> Histogram>,
    first_token: Family<Labels<1>, Histogram, fn() -> Histogram>,
}

impl GatewayMetrics {
    /// Registers the metrics, all with the prefix `throughline_gateway_`.
    pub(crate) fn register(registry: &mut Registry) -> Arc<Self> {
        let registry = registry.sub_registry_with_prefix("throughline_gateway");
        let metrics = Self {
            requests: Family::default(),
            answered: Default::default(),
            calls: Family::default(),
            errors: Family::default(),
            tokens: Family::default(),
            cost_nano_usd: Family::default(),
            retries: Family::default(),
            fallbacks: Family::default(),
            passed_over: Family::default(),
            violations: Family::default(),
            breaker: Family::default(),
            cache: Family::default(),
            refused: Family::default(),
            dropped: Family::default(),
            inbox_full: Counter::default(),
            stalled: Counter::default(),
            in_flight: Gauge::default(),
            duration: Family::new_with_constructor(seconds),
            first_token: Family::new_with_constructor(seconds),
        };
        let m = metrics.clone();
        registry.register("requests", "Requests of clients, by API and HTTP status", m.requests);
        registry.register("calls", "Model calls, by target and outcome", m.calls);
        registry.register("errors", "Failed model calls, by target and error.type", m.errors);
        registry.register("tokens", "Tokens, by target and direction", m.tokens);
        registry.register("cost_nano_usd", "Cost of calls, 10^-9 US dollars", m.cost_nano_usd);
        registry.register("retries", "Attempts beyond the first", m.retries);
        registry.register("fallbacks", "Requests that left their first target", m.fallbacks);
        registry.register(
            "passed_over",
            "Times that a target was not asked because its rate limit is known to be used up",
            m.passed_over,
        );
        registry.register(
            "contract_violations",
            "Requests and answers that broke a contract, by route and what became of it",
            m.violations,
        );
        registry.register(
            "breaker_state",
            "Breaker of a target: 0 closed, 1 half open, 2 open",
            m.breaker,
        );
        registry.register("cache", "Lookups of kept answers, by result", m.cache);
        registry.register("refused", "Requests that were not let through, by reason", m.refused);
        registry.register(
            "records_dropped",
            "Spans and decisions that found no room, by reason",
            m.dropped,
        );
        registry.register(
            "inbox_full",
            "Times that the store's inbox was full for the gateway",
            m.inbox_full,
        );
        registry.register(
            "clients_stalled",
            "Streamed answers that were given up because their client did not read on",
            m.stalled,
        );
        registry.register("in_flight", "Requests under way", m.in_flight);
        registry.register("call_duration_seconds", "Model calls to their end", m.duration);
        registry.register(
            "time_to_first_token_seconds",
            "Streamed calls to their first content",
            m.first_token,
        );
        Arc::new(metrics)
    }

    pub(crate) fn request(&self, api: Api, status: u16) {
        let counter = || {
            let labels = [("api", api.as_str().to_owned()), ("status", status.to_string())];
            self.requests.get_or_create_owned(&labels)
        };
        match self.answered.get(api as usize).filter(|_| status == OK) {
            Some(answered) => answered.get_or_init(counter).inc(),
            None => counter().inc(),
        };
    }

    /// Counts a call of a target, of which `counters` are.
    pub(crate) fn call(
        &self,
        target: &str,
        counters: &TargetCounters,
        outcome: &str,
        error: Option<ErrorType>,
        took: Duration,
    ) {
        let of = |name: &'static str, value: &str| {
            [("target", target.to_owned()), (name, value.to_owned())]
        };
        let calls = || self.calls.get_or_create_owned(&of("outcome", outcome));
        match outcome == Outcome::Ok.as_str() {
            true => counters.succeeded.get_or_init(calls).inc(),
            false => calls().inc(),
        };
        if let Some(error) = error {
            self.errors.get_or_create(&of("error_type", error.as_str())).inc();
        }
        let duration = || self.duration.get_or_create_owned(&[("target", target.to_owned())]);
        counters.duration.get_or_init(duration).observe(took.as_secs_f64());
    }

    /// Counts what a call of a target used, of which `counters` are.
    pub(crate) fn used(
        &self,
        target: &str,
        counters: &TargetCounters,
        usage: Usage,
        cost_usd: Option<f64>,
    ) {
        for (counter, direction, tokens) in [
            (&counters.input_tokens, "input", usage.input_tokens),
            (&counters.output_tokens, "output", usage.output_tokens),
        ] {
            let tokens_of = || {
                let labels = [("target", target.to_owned()), ("direction", direction.to_owned())];
                self.tokens.get_or_create_owned(&labels)
            };
            counter.get_or_init(tokens_of).inc_by(tokens);
        }
        if let Some(cost) = cost_usd {
            let nano = throughline_trace::nano_usd(cost);
            let cost_of =
                || self.cost_nano_usd.get_or_create_owned(&[("target", target.to_owned())]);
            counters.cost_nano_usd.get_or_init(cost_of).inc_by(nano);
        }
    }

    pub(crate) fn first_token(&self, target: &str, waited: Duration) {
        let labels = [("target", target.to_owned())];
        self.first_token.get_or_create(&labels).observe(waited.as_secs_f64());
    }

    pub(crate) fn retry(&self, target: &str) {
        self.retries.get_or_create(&[("target", target.to_owned())]).inc();
    }

    pub(crate) fn fallback(&self, result: &str) {
        self.fallbacks.get_or_create(&[("result", result.to_owned())]).inc();
    }

    pub(crate) fn passed_over(&self, target: &str) {
        self.passed_over.get_or_create(&[("target", target.to_owned())]).inc();
    }

    pub(crate) fn violation(&self, route: &str, action: &'static str) {
        let labels = [("route", route.to_owned()), ("action", action.to_owned())];
        self.violations.get_or_create(&labels).inc();
    }

    pub(crate) fn breaker(&self, target: &str, state: BreakerState) {
        let number = match state {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open { .. } => 2,
        };
        self.breaker.get_or_create(&[("target", target.to_owned())]).set(number);
    }

    pub(crate) fn cache(&self, result: &str) {
        self.cache.get_or_create(&[("result", result.to_owned())]).inc();
    }

    pub(crate) fn refused(&self, reason: &str) {
        self.refused.get_or_create(&[("reason", reason.to_owned())]).inc();
    }

    pub(crate) fn dropped(&self, reason: &str, records: u64) {
        self.dropped.get_or_create(&[("reason", reason.to_owned())]).inc_by(records);
    }

    pub(crate) fn client_stalled(&self) {
        self.stalled.inc();
    }

    pub(crate) fn inbox_full(&self) {
        self.inbox_full.inc();
    }
}
