//! `gateway:` of the configuration file: providers, routes by model, limits. Plain data; what cannot
//! be meant is refused by [`Plan::of`](crate::Plan::of).

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use throughline_resilience::route::{RouteRule, RoutingStrategy};
use throughline_resilience::{BreakerPolicy, BudgetPolicy, ErrorSet, RetryPolicy};

use crate::contract::ContractConfig;

/// `gateway:`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
    /// Who answers. Without any, `OPENAI_API_KEY` and `ANTHROPIC_API_KEY` make the obvious ones.
    pub providers: Vec<ProviderConfig>,
    /// The provider of models that no route names; else the first whose form of API is asked.
    pub default_provider: Option<String>,
    /// Routes by model name; the first that fits counts.
    pub routes: Vec<RouteConfig>,
    /// How long, how often and how patient, where a route does not say.
    pub policy: PolicyConfig,
    /// Whether prompts and answers go onto spans (after redaction); they do, when not said.
    pub capture_content: Option<bool>,
    /// What single API keys may do, by the name that they were created with.
    pub keys: Vec<KeyConfig>,
    /// What tokens of a model cost, before the list prices that are known; a `*` at the end of a name
    /// stands for anything.
    pub prices: BTreeMap<String, PriceConfig>,
    /// How much is taken at once.
    pub limits: GatewayLimits,
}

/// One of `gateway.providers`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderConfig {
    /// What routes, pages and metrics call it.
    pub name: String,
    /// Which API it speaks.
    pub kind: ProviderKind,
    /// Its base address (`https://api.openai.com/v1`); that of the kind when left out.
    #[serde(default)]
    pub base_url: Option<String>,
    /// The environment variable with its key.
    #[serde(default)]
    pub api_key_env: Option<String>,
    /// The file with its key.
    #[serde(default)]
    pub api_key_file: Option<PathBuf>,
    /// The version of the API, of `azure_openai`.
    #[serde(default)]
    pub api_version: Option<String>,
    /// The file with certificates that are believed beside the system's, PEM.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// The proxy that leads there (`http://proxy.internal:3128`); `HTTPS_PROXY` when left out.
    #[serde(default)]
    pub proxy: Option<String>,
    /// Whether streams are asked for their tokens (`stream_options.include_usage`); they are, when not
    /// said.
    #[serde(default)]
    pub stream_usage: Option<bool>,
}

impl ProviderConfig {
    /// A provider of which nothing else is said.
    pub fn new(name: impl Into<String>, kind: ProviderKind) -> Self {
        Self {
            name: name.into(),
            kind,
            base_url: None,
            api_key_env: None,
            api_key_file: None,
            api_version: None,
            ca_file: None,
            proxy: None,
            stream_usage: None,
        }
    }
}

/// Which API a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderKind {
    /// OpenAI's.
    #[serde(rename = "openai")]
    OpenAi,
    /// Anthropic's.
    Anthropic,
    /// OpenAI's, as Azure serves it: one deployment a model.
    #[serde(rename = "azure_openai")]
    AzureOpenAi,
    /// OpenAI's, as many servers speak it: vLLM, Ollama, OpenRouter.
    #[serde(rename = "openai_compatible")]
    OpenAiCompatible,
}

/// One of `gateway.routes`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteConfig {
    /// The model that clients ask for; a `*` at the end stands for anything.
    pub model: String,
    /// What decisions and weights call it; the model when left out.
    pub name: Option<String>,
    /// How a target is chosen.
    pub strategy: RoutingStrategy,
    /// Whether a session stays with its target; it does, when left out.
    pub sticky: Option<bool>,
    /// Who may answer first.
    pub targets: Vec<TargetConfig>,
    /// Rules of `header_based` routing: names of headers, baggage entries, or `model`.
    pub rules: Vec<RouteRule>,
    /// Who answers when the chosen target does not, in order.
    pub fallback: Vec<TargetConfig>,
    /// Failures that call for the fallback.
    pub fallback_on: Option<ErrorSet>,
    /// The time that a request may take, retries and fallbacks included, milliseconds; the header
    /// `x-latency-budget-ms` says another.
    pub latency_budget_ms: Option<u64>,
    /// How long, how often and how patient.
    pub policy: PolicyConfig,
    /// Answers that are kept; none when left out.
    pub cache: Option<CacheConfig>,
    /// What requests and answers must be; anything when left out.
    pub contract: Option<ContractConfig>,
}

/// A model at a provider.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TargetConfig {
    /// What rules and weights call it; the model when left out. `control` and `treatment` make an
    /// A/B test.
    pub name: Option<String>,
    /// The provider.
    pub provider: String,
    /// The provider's model; the one that was asked for when left out.
    pub model: Option<String>,
    /// Version of model or prompt, for `model_version`; the model when left out.
    pub version: Option<String>,
    /// Share in proportion to the others' weights; 1 when left out.
    pub weight: Option<u32>,
}

/// How long, how often and how patient. What is left out is taken from `gateway.policy`, then the
/// default.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// Time limits.
    pub timeouts: TimeoutsConfig,
    /// Attempts and pauses.
    pub retry: Option<RetryPolicy>,
    /// When a model is left alone.
    pub breaker: Option<BreakerPolicy>,
    /// How much retrying a model bears.
    pub budget: Option<BudgetPolicy>,
}

/// Time limits, milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TimeoutsConfig {
    /// To the connection.
    pub connect_ms: Option<u64>,
    /// One attempt at a whole answer.
    pub attempt_ms: Option<u64>,
    /// To the first content of a streamed answer.
    pub first_token_ms: Option<u64>,
    /// From one piece of a streamed answer to the next.
    pub between_tokens_ms: Option<u64>,
    /// All attempts and pauses together, of fallbacks too, and a streamed answer to its end.
    pub total_ms: Option<u64>,
    /// What a client gets to take the next piece of a streamed answer, or of a large one.
    pub client_stall_ms: Option<u64>,
}

/// Answers that are kept and given again to the same request.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheConfig {
    /// How long, seconds.
    pub ttl_secs: u64,
}

/// What one API key may do.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyConfig {
    /// The name that the key was created with.
    pub name: String,
    /// Models that it may ask for, a `*` at the end stands for anything; all when left out.
    pub models: Vec<String>,
    /// Requests a minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens a minute, in and out.
    pub tokens_per_minute: Option<u64>,
    /// US dollars a day (UTC).
    pub usd_per_day: Option<f64>,
    /// US dollars a month (UTC).
    pub usd_per_month: Option<f64>,
}

/// What tokens of one model cost, US dollars for a million.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceConfig {
    /// Tokens in.
    pub input: f64,
    /// Tokens out, reasoning included.
    pub output: f64,
    /// Tokens in that were read from a cache; as `input` when left out.
    #[serde(default)]
    pub cached_input: Option<f64>,
    /// Tokens in that were written to a cache; as `input` when left out.
    #[serde(default)]
    pub cache_write: Option<f64>,
    /// Tokens in that were written to a cache for an hour; twice `input` when left out.
    #[serde(default)]
    pub cache_write_1h: Option<f64>,
    /// Tokens in of sound.
    #[serde(default)]
    pub audio_input: Option<f64>,
    /// Tokens out of sound.
    #[serde(default)]
    pub audio_output: Option<f64>,
    /// Tokens in of images; as `input` when left out.
    #[serde(default)]
    pub image_input: Option<f64>,
    /// Tokens out of images.
    #[serde(default)]
    pub image_output: Option<f64>,
}

impl PriceConfig {
    /// Every price that is said, with its name.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let all = [
            ("input", Some(self.input)),
            ("output", Some(self.output)),
            ("cached_input", self.cached_input),
            ("cache_write", self.cache_write),
            ("cache_write_1h", self.cache_write_1h),
            ("audio_input", self.audio_input),
            ("audio_output", self.audio_output),
            ("image_input", self.image_input),
            ("image_output", self.image_output),
        ];
        all.into_iter().filter_map(|(name, usd)| Some((name, usd?)))
    }
}

/// How much is taken at once.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayLimits {
    /// Largest request body, bytes.
    pub max_request_bytes: Option<usize>,
    /// Largest whole answer of a provider, bytes.
    pub max_answer_bytes: Option<usize>,
    /// Requests under way at once.
    pub max_concurrent: Option<usize>,
    /// Bytes that the bodies of all requests under way may take together.
    pub max_in_flight_bytes: Option<usize>,
    /// Bytes that all kept answers may take together.
    pub max_cache_bytes: Option<usize>,
}
