//! The gateway: an OpenAI client in any language points its base URL here, and every call is routed,
//! protected, traced and recorded without an SDK (requirement R3.4).
//!
//! Requests and answers are passed on to the byte where client and provider speak the same form; only
//! fields that must change are spliced. Retry, breaker, fallback and the choice of a target are the
//! machines of `resilience`, wire forms, usage and prices are those of `llm`, and what spans say is
//! what the SDK says of the same thing. No span of `tracing` is made here: records are built and
//! handed over through a bounded queue, and no request waits for the disk.
//!
//! One invariant: a client always gets a defined answer. What failed is never a 200 with half an
//! answer and a clean end: before the first content it is an error in the client's form, after it an
//! error event that ends the stream.
//!
//! ```
//! use std::sync::Arc;
//! use prometheus_client::registry::Registry;
//! use futures_util::future::BoxFuture;
//! use throughline_gateway::{Gateway, GatewayConfig, Offer, Plan};
//! use throughline_trace::{Accepted, Refusal, SpanBatch};
//! use throughline_trace::access::Keyring;
//!
//! /// Records that nobody keeps.
//! struct Forgotten(Option<SpanBatch>);
//!
//! impl Offer for Forgotten {
//!     fn offer(&mut self) -> BoxFuture<'_, Result<Accepted, Refusal>> {
//!         self.0 = None;
//!         Box::pin(async { Ok(Accepted::default()) })
//!     }
//!
//!     fn is_left(&self) -> bool {
//!         self.0.is_some()
//!     }
//! }
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! # let _inside = runtime.enter();
//! // Without a configuration, keys in the variables of OpenAI's and Anthropic's own clients make the
//! // obvious providers.
//! let plan = Plan::of(&GatewayConfig::default(), &|name| std::env::var(name).ok())?;
//! let submit = Arc::new(|batch| Box::new(Forgotten(Some(batch))) as Box<dyn Offer>);
//! let keyring = Arc::new(Keyring::open());
//! let (gateway, _handover) = Gateway::start(plan, submit, keyring, &mut Registry::default())?;
//! let router: axum::Router = gateway.router();
//! # drop(router);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod api;
mod asked;
mod attempt;
mod blocks;
mod buffers;
mod cache;
mod call;
mod caller;
mod choosing;
mod client;
mod clock;
mod config;
mod contract;
mod doors;
mod exchange;
mod fault;
mod live;
mod meter;
mod metrics;
mod models;
mod patience;
mod plain;
mod plan;
mod prices;
mod provider;
mod recorder;
mod relay;
mod reply;
mod route;
mod segments;
mod splice;
mod standing;
mod state;
mod targets;
mod trail;
mod way;
mod whole;

pub use config::{
    CacheConfig, GatewayConfig, GatewayLimits, KeyConfig, PolicyConfig, PriceConfig,
    ProviderConfig, ProviderKind, RouteConfig, TargetConfig, TimeoutsConfig,
};
pub use contract::{ContractConfig, ContractRule, ContractSchema, OnViolation};
pub use plan::{
    MAX_ANSWER_BYTES, MAX_CACHE_BYTES, MAX_CONCURRENT, MAX_IN_FLIGHT_BYTES, MAX_REQUEST_BYTES,
    Plan, PlanError,
};
pub use recorder::{Offer, Submit};
pub use state::{Gateway, Handover};
pub use way::MAX_CA_FILE_BYTES;
