//! The configuration, resolved: what a request finds.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use throughline_resilience::{ErrorSet, Policy};
use throughline_trace::{ErrorType, RouteWeights, RouteWeightsError};

use crate::api::Api;
use crate::config::{GatewayConfig, KeyConfig, PolicyConfig, ProviderConfig, ProviderKind};
use crate::prices::Prices;
use crate::provider::Provider;
use crate::route::Route;
use crate::way::Way;

/// Largest request body, bytes, when nobody says otherwise: a few images in it.
pub const MAX_REQUEST_BYTES: usize = 32 << 20;
/// Largest whole answer of a provider, bytes, when nobody says otherwise.
pub const MAX_ANSWER_BYTES: usize = 64 << 20;
/// Requests under way at once, when nobody says otherwise.
pub const MAX_CONCURRENT: usize = 1_024;
/// Bytes of the bodies of all requests under way, when nobody says otherwise.
pub const MAX_IN_FLIGHT_BYTES: usize = 512 << 20;
/// Bytes of all kept answers, when nobody says otherwise.
pub const MAX_CACHE_BYTES: usize = 64 << 20;
/// Longest wait for a connection, when nobody says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait from one piece of a streamed answer to the next, when nobody says otherwise.
const BETWEEN_TOKENS_TIMEOUT: Duration = Duration::from_secs(60);
/// What a client gets to take the next piece of a streamed answer, when nobody says otherwise.
const CLIENT_STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// All of one request, when nobody says otherwise: a long answer is streamed for minutes.
const TOTAL_TIMEOUT_MS: u64 = 600_000;
/// One attempt at a whole answer, when nobody says otherwise.
const ATTEMPT_TIMEOUT_MS: u64 = 300_000;
/// The longest time limit that can be meant, milliseconds: a day.
const MAX_TIMEOUT_MS: u64 = 86_400_000;

/// Failures that call for the fallback, when a route does not say: not those that are the caller's
/// own, who is told at once.
pub(crate) const FALLBACK_ON: ErrorSet = ErrorSet::all_but(&[
    ErrorType::Cancelled,
    ErrorType::PolicyRejected,
    ErrorType::InvalidRequest,
    ErrorType::ContentFiltered,
]);

/// Why a configuration cannot be meant.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A field has a value that cannot be meant.
    #[error("expected {expected} in `{field}`, got {got}")]
    Field {
        /// Its path.
        field: String,
        /// What was expected.
        expected: String,
        /// What came.
        got: String,
    },
    /// The weights of a route divide nothing.
    #[error("{error} (`{field}`)")]
    Weights {
        /// The route's path.
        field: String,
        /// What is wrong with them.
        error: RouteWeightsError,
    },
    /// The HTTP client cannot be set up.
    #[error("cannot set up the HTTP client of the gateway: {0}")]
    Client(String),
}

/// Plans made so far.
static PLANS: AtomicU64 = AtomicU64::new(0);

/// What a request finds: providers, routes, limits.
#[derive(Debug)]
pub struct Plan {
    /// Counts plans: one that was made later has a higher number.
    pub(crate) number: u64,
    pub(crate) providers: Vec<Arc<Provider>>,
    default_provider: Option<Arc<Provider>>,
    /// The ways of models that no route names, one for each provider and in their order.
    unnamed: Vec<Arc<Route>>,
    routes: Vec<Arc<Route>>,
    base: Timing,
    pub(crate) captures_content: bool,
    pub(crate) keys: HashMap<String, KeyConfig>,
    pub(crate) prices: Arc<Prices>,
    pub(crate) max_request_bytes: usize,
    pub(crate) max_answer_bytes: usize,
    pub(crate) max_concurrent: usize,
    pub(crate) max_in_flight_bytes: usize,
    pub(crate) max_cache_bytes: usize,
}

/// A policy with the limits that the machines do not know.
#[derive(Debug, Clone)]
pub(crate) struct Timing {
    pub(crate) policy: Arc<Policy>,
    pub(crate) connect: Duration,
    pub(crate) between_tokens: Duration,
    pub(crate) client_stall: Duration,
}

impl Plan {
    /// Resolves a configuration; `env` reads environment variables.
    ///
    /// # Errors
    /// [`PlanError`], for people: what was expected and what came.
    pub fn of(
        config: &GatewayConfig,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, PlanError> {
        let configs = if config.providers.is_empty() {
            obvious_providers(env)
        } else {
            config.providers.clone()
        };
        let mut providers: Vec<Arc<Provider>> = Vec::new();
        for one in &configs {
            if providers.iter().any(|other| other.name == one.name) {
                return Err(field("gateway.providers", "every name once", &one.name));
            }
            providers.push(Arc::new(Provider::of(one, env)?));
        }
        let find = |place: &str, name: &str| {
            let found = providers.iter().find(|provider| provider.name == name);
            found.cloned().ok_or_else(|| {
                let known: Vec<&str> = providers.iter().map(|one| one.name.as_str()).collect();
                field(place, &format!("a provider ({})", known.join(", ")), &format!("{name:?}"))
            })
        };
        let default_provider = config.default_provider.as_deref();
        let default_provider =
            default_provider.map(|name| find("gateway.default_provider", name)).transpose()?;
        let base = timing("gateway.policy", &config.policy, &PolicyConfig::default())?;
        let unnamed = |provider: &Arc<Provider>| Route::unnamed(Arc::clone(provider), &base);
        let unnamed: Vec<_> = providers.iter().map(unnamed).map(Arc::new).collect();
        let mut routes = Vec::new();
        for one in &config.routes {
            routes.push(Arc::new(Route::of(one, &config.policy, &find)?));
        }
        let mut keys = HashMap::new();
        for key in &config.keys {
            check_key(key)?;
            if keys.insert(key.name.clone(), key.clone()).is_some() {
                return Err(field("gateway.keys", "every name once", &key.name));
            }
        }
        let limits = &config.limits;
        let positive = |name: &str, given: Option<usize>, usual: usize| match given {
            Some(0) => Err(field(&format!("gateway.limits.{name}"), "a number above 0", "0")),
            given => Ok(given.unwrap_or(usual)),
        };
        Ok(Self {
            number: PLANS.fetch_add(1, Ordering::Relaxed) + 1,
            max_request_bytes: positive(
                "max_request_bytes",
                limits.max_request_bytes,
                MAX_REQUEST_BYTES,
            )?,
            max_answer_bytes: positive(
                "max_answer_bytes",
                limits.max_answer_bytes,
                MAX_ANSWER_BYTES,
            )?,
            max_concurrent: positive("max_concurrent", limits.max_concurrent, MAX_CONCURRENT)?,
            max_in_flight_bytes: positive(
                "max_in_flight_bytes",
                limits.max_in_flight_bytes,
                MAX_IN_FLIGHT_BYTES,
            )?,
            max_cache_bytes: limits.max_cache_bytes.unwrap_or(MAX_CACHE_BYTES),
            unnamed,
            providers,
            default_provider,
            routes,
            base,
            captures_content: config.capture_content.unwrap_or(true),
            keys,
            prices: Arc::new(Prices::of(&config.prices)?),
        })
    }

    /// The route of a model that a client asks for; `None` without any provider.
    pub(crate) fn route(&self, api: Api, model: &str) -> Option<Arc<Route>> {
        let named = self.routes.iter().find(|route| fits(&route.pattern, model));
        named.cloned().or_else(|| self.unnamed.get(self.default_for(api, model)?).cloned())
    }

    /// The policy of a target's breaker and retry budget, which all routes to it share: that of the
    /// first route that leads there, else that of models without a route.
    pub(crate) fn policy_of(&self, provider: &str, model: &str) -> &Arc<Policy> {
        let leads = |route: &&Arc<Route>| {
            let mut all = route.targets.iter().chain(&route.fallback);
            all.any(|to| {
                let is_model = || match &to.model {
                    Some(own) => own == model,
                    None => fits(&route.pattern, model),
                };
                to.provider.name == provider && is_model()
            })
        };
        self.routes.iter().find(leads).map_or(&self.base.policy, |route| &route.timing.policy)
    }

    /// Tells in the log which routes want a breaker or budget of a target that an earlier route has said
    /// otherwise.
    pub(crate) fn tell_overruled(&self) {
        for route in &self.routes {
            for to in route.targets.iter().chain(&route.fallback) {
                let model = to.model(&route.pattern);
                let (own, held) = (&route.timing.policy, self.policy_of(&to.provider.name, model));
                if (&own.breaker, &own.budget) != (&held.breaker, &held.budget) {
                    tracing::warn!(
                        route = route.name,
                        provider = to.provider.name,
                        model,
                        "another breaker or budget is not used: an earlier route leads to the same \
                         target, which has one for all"
                    );
                }
            }
        }
    }

    /// Weights that were set for routes by name hold from now on, and no others.
    pub(crate) fn weigh(&self, weights: &BTreeMap<String, RouteWeights>) {
        for route in &self.routes {
            route.weigh(weights.get(&route.name));
        }
    }

    /// Routes, in the order in which they are tried.
    pub(crate) fn routes(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter().map(Arc::as_ref)
    }

    /// Names of models that routes name, without patterns.
    pub(crate) fn routed_models(&self) -> impl Iterator<Item = &str> {
        let patterns = self.routes.iter().map(|route| route.pattern.as_str());
        patterns.filter(|pattern| !pattern.ends_with('*'))
    }

    /// The number of the provider of a model that no route names: the one of the configuration, else the
    /// first that speaks what is asked in, or whose model it is by name.
    fn default_for(&self, api: Api, model: &str) -> Option<usize> {
        if let Some(default) = &self.default_provider {
            return self.providers.iter().position(|provider| Arc::ptr_eq(provider, default));
        }
        let is_anthropic = api == Api::Messages || model.starts_with("claude");
        let fits = |provider: &Arc<Provider>| provider.is_openai_like() != is_anthropic;
        let first = (!self.providers.is_empty()).then_some(0);
        self.providers.iter().position(fits).or(first)
    }

    /// The ways to all providers, and how long connections are waited for there, each pair once.
    pub(crate) fn ways(&self) -> HashSet<(Duration, Way)> {
        let base = self.providers.iter().map(|one| (self.base.connect, one.way.clone()));
        let routes = self.routes.iter().flat_map(|route| {
            let all = route.targets.iter().chain(&route.fallback);
            all.map(|to| (route.timing.connect, to.provider.way.clone()))
        });
        base.chain(routes).collect()
    }
}

/// Whether a model fits a pattern.
pub(crate) fn fits(pattern: &str, model: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => model.starts_with(beginning),
        None => pattern == model,
    }
}

/// The providers whose keys lie in the variables that their own clients read.
fn obvious_providers(env: &dyn Fn(&str) -> Option<String>) -> Vec<ProviderConfig> {
    let known = [
        ("openai", ProviderKind::OpenAi, "OPENAI_API_KEY"),
        ("anthropic", ProviderKind::Anthropic, "ANTHROPIC_API_KEY"),
    ];
    let is_set = |variable: &str| env(variable).is_some_and(|key| !key.trim().is_empty());
    known
        .into_iter()
        .filter(|(_, _, variable)| is_set(variable))
        .map(|(name, kind, variable)| ProviderConfig {
            api_key_env: Some(variable.to_owned()),
            ..ProviderConfig::new(name, kind)
        })
        .collect()
}

pub(crate) fn timing(
    place: &str,
    own: &PolicyConfig,
    base: &PolicyConfig,
) -> Result<Timing, PlanError> {
    let pick = |own: Option<u64>, base: Option<u64>, name: &str| match own.or(base) {
        Some(ms) if ms == 0 || ms > MAX_TIMEOUT_MS => {
            let expected = format!("1 to {MAX_TIMEOUT_MS} milliseconds");
            Err(field(&format!("{place}.timeouts.{name}"), &expected, &ms.to_string()))
        }
        given => Ok(given),
    };
    let (t, b) = (&own.timeouts, &base.timeouts);
    let connect = pick(t.connect_ms, b.connect_ms, "connect_ms")?;
    let between = pick(t.between_tokens_ms, b.between_tokens_ms, "between_tokens_ms")?;
    let stall = pick(t.client_stall_ms, b.client_stall_ms, "client_stall_ms")?;
    let attempt = pick(t.attempt_ms, b.attempt_ms, "attempt_ms")?;
    let first = pick(t.first_token_ms, b.first_token_ms, "first_token_ms")?;
    let total = pick(t.total_ms, b.total_ms, "total_ms")?;
    let mut policy = Policy::default();
    policy.timeouts.total_ms = Some(total.unwrap_or(TOTAL_TIMEOUT_MS));
    policy.timeouts.attempt_ms = Some(attempt.unwrap_or(ATTEMPT_TIMEOUT_MS));
    policy.timeouts.first_token_ms = first.or(policy.timeouts.first_token_ms);
    if let Some(retry) = own.retry.as_ref().or(base.retry.as_ref()) {
        policy.retry = retry.clone();
    }
    if let Some(breaker) = own.breaker.as_ref().or(base.breaker.as_ref()) {
        policy.breaker = Some(breaker.clone());
    }
    if let Some(budget) = own.budget.as_ref().or(base.budget.as_ref()) {
        policy.budget = Some(budget.clone());
    }
    Ok(Timing {
        policy: Arc::new(policy),
        connect: connect.map_or(CONNECT_TIMEOUT, Duration::from_millis),
        between_tokens: between.map_or(BETWEEN_TOKENS_TIMEOUT, Duration::from_millis),
        client_stall: stall.map_or(CLIENT_STALL_TIMEOUT, Duration::from_millis),
    })
}

fn check_key(key: &KeyConfig) -> Result<(), PlanError> {
    let place = format!("gateway.keys[{}]", key.name);
    if key.name.is_empty() {
        return Err(field("gateway.keys[].name", "the name of an API key", "none"));
    }
    for (name, usd) in [("usd_per_day", key.usd_per_day), ("usd_per_month", key.usd_per_month)] {
        let Some(usd) = usd.filter(|usd| !usd.is_finite() || *usd < 0.0) else { continue };
        let expected = "an amount of US dollars";
        return Err(field(&format!("{place}.{name}"), expected, &usd.to_string()));
    }
    Ok(())
}

pub(crate) fn field(place: &str, expected: &str, got: &str) -> PlanError {
    PlanError::Field { field: place.to_owned(), expected: expected.to_owned(), got: got.to_owned() }
}
