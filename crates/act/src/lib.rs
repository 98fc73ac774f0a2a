//! The only room with side effects on the world: what governance asked for is done here, once, and
//! recorded as a decision with its evidence.
//!
//! An [`Action`](throughline_trace::Action) that is committed to `govern.db` is found by the
//! [`Actor`], which reads the pause switch, does it, records a decision of stage `govern.act`, and
//! notes what became of it. A restart does nothing twice: the id of an action is also that of the
//! directive, the webhook's delivery or the decision that comes of it.
//!
//! Nothing is decided here. What a person said stands above what a rule asks for ([`Standing`]).

mod actor;
mod api;
mod argo;
mod config;
mod directives;
mod embeddings;
mod incident;
mod metrics;
mod moments;
mod notify;
mod opa;
mod outgoing;
mod performed;
mod recorder;
mod sign;
mod standing;
mod takeover;
mod xds;

pub use actor::{Actor, Hook, Hooks, Wiring};
pub use api::{ApiDescription, api_description, route_paths};
pub use argo::{ArgoConfig, WorkflowConfig};
pub use config::{ActConfig, ActConfigError, ReceiverConfig, ReceiverKind};
pub use directives::{Board, LONGEST_DIRECTIVE_TTL_S};
pub use embeddings::{
    DEFAULT_EMBEDDING_REQUESTS_PER_MINUTE, EMBEDDING_BATCH_TEXTS, Embeddings, EmbeddingsConfig,
    EmbeddingsError, MAX_EMBEDDING_REQUESTS_PER_MINUTE,
};
pub use incident::{Change, Incident, IncidentError, IncidentState, group};
pub use opa::{DEFAULT_OPA_TIMEOUT_MS, MAX_OPA_TIMEOUT_MS, Opa, OpaConfig};
pub use outgoing::{cause, client as http_client, read as read_answer};
pub use performed::{Performed, told};
pub use recorder::Submit;
pub use sign::{DirectiveKey, MIN_KEY_BYTES, SigningError, webhook_signature};
pub use standing::{Freeze, Hold, Standing};
pub use takeover::{Takeover, TakeoverState};
pub use xds::{ManifestOptions, XdsConfig, XdsRoute, XdsTarget, manifests};
