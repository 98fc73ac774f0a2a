//! What the pages and the API stand on.

use std::sync::Arc;

use axum::http::StatusCode;
use futures_util::future::BoxFuture;
use prometheus_client::registry::Registry;
use throughline_api::Refuses;
use throughline_store::{AuditLog, Committed, ReadLog, Reader};
use throughline_trace::access::Keyring;
use throughline_trace::{Accepted, GatewayStanding, Refusal, SpanBatch};
use tokio::sync::{Semaphore, SemaphorePermit, broadcast, watch};

use crate::api::beside::Beside;
use crate::api::openapi::Description;
use crate::failure::Failure;
use crate::governance::View;
use crate::kept::Kept;
use crate::session::SignInLimiter;

/// Hands a batch to whoever makes it durable, through every door that telemetry goes through;
/// returns when it is, and only then is success answered.
pub type Submit =
    Arc<dyn Fn(SpanBatch) -> BoxFuture<'static, Result<Accepted, Refusal>> + Send + Sync>;

/// Asks the gateway how it stands.
pub type AsksGateway = Arc<dyn Fn() -> GatewayStanding + Send + Sync>;

/// Everything [`router`](crate::router) needs; the binary fills it in.
#[derive(Clone)]
pub struct WebState {
    /// Answers from the store.
    pub reader: Reader,
    /// The audit log of decisions.
    pub audit: AuditLog,
    /// Where reads of decisions are noted.
    pub reads: ReadLog,
    /// Where decisions go that are sent to the API.
    pub submit: Submit,
    /// What rules said, and what was done.
    pub governance: View,
    /// How the gateway stands at the moment of asking.
    pub gateway: AsksGateway,
    /// Where the store tells what became durable; live events subscribe to it.
    pub committed: broadcast::Sender<Arc<Committed>>,
    /// The live API keys.
    pub keyring: Arc<Keyring>,
    /// Key of the MACs in cookies and forms; the same over restarts, so that people stay signed in.
    pub cookie_secret: [u8; 32],
    /// The server's own metrics, for `/metrics`.
    pub registry: Arc<Registry>,
    /// `true` while the store is open and the server is not draining. When it turns `false`,
    /// `/readyz` says so and live event streams end, so that a drain need not wait for them.
    pub ready: watch::Receiver<bool>,
    /// Whether people reach the pages over TLS: cookies are then `Secure`.
    pub is_tls: bool,
    /// Version of the binary, as shown.
    pub version: String,
    /// Host names (without port) that requests may be addressed to; `None` for any. With access
    /// control off it keeps other web sites from reaching the pages through DNS rebinding: see
    /// [`loopback_hosts`].
    pub allowed_hosts: Option<Vec<String>>,
    /// Where exporters send OTLP/HTTP, for the page that tells how (`http://127.0.0.1:4318`).
    pub otlp_http_url: String,
    /// Where exporters send OTLP/gRPC (`http://127.0.0.1:4317`).
    pub otlp_grpc_url: String,
}

/// The host names of a server that is bound to loopback, for [`WebState::allowed_hosts`].
pub fn loopback_hosts() -> Option<Vec<String>> {
    Some(["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).to_vec())
}

/// Most answers that may be large (whole traces, pages of whole records) in the making at once:
/// what was read, its tree and its text are in memory together, and this bounds how often.
const LARGE_ANSWERS: usize = 8;

/// Turns at making a large answer.
pub(crate) struct Turns(Semaphore);

impl Default for Turns {
    fn default() -> Self {
        Self(Semaphore::new(LARGE_ANSWERS))
    }
}

impl Turns {
    /// Waits for a turn; to be taken before the store is asked and kept until the answer is text.
    pub(crate) async fn take(&self) -> Result<SemaphorePermit<'_>, Failure> {
        self.0.acquire().await.map_err(|_| {
            Failure::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "shutting_down",
                "the server is shutting down",
                "try again in a moment",
            )
        })
    }
}

/// The state as handlers share it.
pub(crate) struct App {
    pub(crate) web: WebState,
    pub(crate) sign_ins: SignInLimiter,
    pub(crate) turns: Turns,
    pub(crate) kept: Kept,
    pub(crate) description: Description,
    /// What other rooms answer behind our doors, for the description.
    pub(crate) beside: Beside,
}

impl Refuses for App {
    type Refusal = Failure;

    fn parameter(name: &str, expected: &str, got: &str) -> Failure {
        Failure::parameter(name, expected, got)
    }
}

/// What handlers take.
pub(crate) type Shared = Arc<App>;

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn few_large_answers_are_made_at_once() {
        let turns = Turns::default();
        let mut taken: Vec<_> =
            (0..LARGE_ANSWERS).map(|_| turns.take().now_or_never().unwrap().unwrap()).collect();
        assert!(turns.take().now_or_never().is_none(), "one more waits");
        taken.pop();
        assert!(turns.take().now_or_never().is_some());
    }
}
