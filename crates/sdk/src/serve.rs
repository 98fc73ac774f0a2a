//! An agent as a service over HTTP and, with feature `grpc`, gRPC on the same port
//! (requirement R1.1). The trace goes on from the caller, also into work in the background.

mod answer;
mod background;
mod chat_completions;
mod connections;
mod events;
mod inbound;
#[cfg(feature = "grpc")]
mod over_grpc;
mod routes;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::Context;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::agent::Agent;
use crate::telemetry_pipeline::Pipeline;
use background::Background;

/// Where an agent is served when the builder does not say: a free port of this machine alone.
pub const SERVE_ADDRESS: &str = "127.0.0.1:0";

/// Bytes of a request at most, when the builder does not say.
pub const REQUEST_MAX_BYTES: usize = 1024 * 1024;

/// Runs at once, those in the background among them, when the builder does not say.
pub const MAX_RUNS: usize = 64;

/// Runs in the background that are remembered at most, done or not.
pub const MAX_BACKGROUND_RUNS: usize = 1_024;

/// How long the answer of a run in the background is kept.
pub const BACKGROUND_TTL: Duration = Duration::from_secs(3_600);

/// How long a run may take, when the builder does not say.
pub const RUN_TIME_LIMIT: Duration = Duration::from_secs(600);

/// How long a shutdown waits for what is under way, when the builder does not say.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a shutdown waits for what it has cancelled: work that does not yield is left behind.
const GIVE_UP_TIMEOUT: Duration = Duration::from_secs(1);

/// Why an agent cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Two agents have one name.
    #[error("expected agents of different names, got {0:?} twice")]
    Twice(String),
    /// Others could reach the agents without a key.
    #[error("expected an API key or a loopback address, got {0} without a key; set `api_key`")]
    Open(IpAddr),
    /// The address could not be bound.
    #[error("expected to listen on {address}: {error}")]
    Bind {
        /// The address.
        address: String,
        /// What went wrong.
        #[source]
        error: std::io::Error,
    },
}

/// Serves this agent, and others with [`and`](AgentServerBuilder::and):
///
/// | request | answer |
/// |---|---|
/// | `POST /v1/agents/{name}/run` | the answer; events with `Accept: text/event-stream`; 202 with `"background": true` or `Prefer: respond-async` |
/// | `GET /v1/runs/{id}`, `DELETE /v1/runs/{id}` | a run in the background, fetched or cancelled |
/// | `GET /v1/agents` | the agents |
/// | `POST /v1/chat/completions` | the same for clients of OpenAI: the model is the agent's name |
/// | `GET /healthz` | 200, without a key |
/// | gRPC `throughline.agent.v1.Agent` | `Run`, `RunStream` (`proto/agent.proto`) |
///
/// Who may ask an agent may also put words into its mouth: `messages` of all roles are taken as they
/// come, in both forms, and those of role `system` or `developer` stand behind the agent's own
/// instructions, where a model obeys them too. Leave what the agent must not do to its policies and
/// tools, and callers who are not trusted so far to a service of yours that sends `task` alone.
///
/// The run's span is of kind SERVER, below the caller's; `x-trace-id` tells the trace. A client that
/// goes away cancels its run, unless that is in the background.
///
/// ```no_run
/// # use throughline::{Agent, ChatModel, serve_agent};
/// # async fn example(model: impl ChatModel + 'static) -> Result<(), Box<dyn std::error::Error>> {
/// let agent = Agent::builder("shop", model, "gpt-4o-mini").build()?;
/// let server = serve_agent(agent).bind("127.0.0.1:4321").start().await?;
/// println!("http://{}/v1/agents/shop/run", server.address());
/// tokio::signal::ctrl_c().await?;
/// server.shutdown().await;
/// # Ok(()) }
/// ```
pub fn serve_agent(agent: Agent) -> AgentServerBuilder {
    AgentServerBuilder {
        agents: vec![agent],
        address: SERVE_ADDRESS.to_owned(),
        key: None,
        limits: Limits {
            request_max_bytes: REQUEST_MAX_BYTES,
            max_runs: MAX_RUNS,
            run_time: RUN_TIME_LIMIT,
            drain: DRAIN_TIMEOUT,
        },
    }
}

/// What a server allows.
#[derive(Debug, Clone, Copy)]
struct Limits {
    request_max_bytes: usize,
    max_runs: usize,
    run_time: Duration,
    drain: Duration,
}

/// Describes an [`AgentServer`].
#[must_use = "a server starts with `start`"]
pub struct AgentServerBuilder {
    agents: Vec<Agent>,
    address: String,
    key: Option<blake3::Hash>,
    limits: Limits,
}

impl AgentServerBuilder {
    /// Serves another agent too.
    pub fn and(mut self, agent: Agent) -> Self {
        self.agents.push(agent);
        self
    }

    /// Where to listen; [`SERVE_ADDRESS`] when not said. Other addresses than those of this machine
    /// need a key.
    pub fn bind(mut self, address: impl Into<String>) -> Self {
        self.address = address.into();
        self
    }

    /// The key that callers must show, as `authorization: Bearer …`.
    pub fn api_key(mut self, key: &str) -> Self {
        self.key = Some(blake3::hash(key.as_bytes()));
        self
    }

    /// Bytes of a request at most; [`REQUEST_MAX_BYTES`] when not said.
    pub fn request_max_bytes(mut self, most: usize) -> Self {
        self.limits.request_max_bytes = most;
        self
    }

    /// Runs at once; [`MAX_RUNS`] when not said, at least 1. More are refused with 503, or
    /// RESOURCE_EXHAUSTED.
    pub fn max_runs(mut self, most: usize) -> Self {
        self.limits.max_runs = most.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// How long a run may take; [`RUN_TIME_LIMIT`] when not said.
    pub fn run_time_limit(mut self, limit: Duration) -> Self {
        self.limits.run_time = limit;
        self
    }

    /// How long a shutdown waits for what is under way; [`DRAIN_TIMEOUT`] when not said.
    pub fn drain_timeout(mut self, limit: Duration) -> Self {
        self.limits.drain = limit;
        self
    }

    /// Begins to listen and to answer, with the telemetry of the current context.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn start(self) -> Result<AgentServer, ServeError> {
        let mut agents = BTreeMap::new();
        for agent in self.agents {
            let name = agent.name().to_owned();
            if agents.insert(name.clone(), agent).is_some() {
                return Err(ServeError::Twice(name));
            }
        }
        let failed = |error| ServeError::Bind { address: self.address.clone(), error };
        let listener = TcpListener::bind(&self.address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        if self.key.is_none() && !address.ip().is_loopback() {
            return Err(ServeError::Open(address.ip()));
        }
        // Only the telemetry: a request is no part of what the server was started in.
        let cx = match Pipeline::current() {
            Some(pipeline) => pipeline.onto(&Context::new()),
            None => Context::new(),
        };
        let service = Arc::new(Service {
            agents,
            key: self.key,
            limits: self.limits,
            runs: Arc::new(Semaphore::new(self.limits.max_runs)),
            background: Background::default(),
            tasks: TaskTracker::new(),
            cx,
            stop: CancellationToken::new(),
            give_up: CancellationToken::new(),
        });
        let accepting = connections::spawn(&service.cx, {
            let service = Arc::clone(&service);
            connections::accept(service, listener)
        });
        Ok(AgentServer { address, service, accepting })
    }
}

impl fmt::Debug for AgentServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentServerBuilder")
            .field("agents", &self.agents)
            .field("address", &self.address)
            .field("has_key", &self.key.is_some())
            .field("limits", &self.limits)
            .finish()
    }
}

/// What all connections share.
struct Service {
    agents: BTreeMap<String, Agent>,
    key: Option<blake3::Hash>,
    limits: Limits,
    runs: Arc<Semaphore>,
    background: Background,
    /// Runs in the background.
    tasks: TaskTracker,
    /// The telemetry.
    cx: Context,
    /// No more requests.
    stop: CancellationToken,
    /// No more patience: all runs are cancelled.
    give_up: CancellationToken,
}

/// Agents that are served: made by [`serve_agent`]. Dropped, it stops at once, and runs that are
/// under way are cancelled.
#[must_use = "a server stops when it is dropped"]
pub struct AgentServer {
    address: SocketAddr,
    service: Arc<Service>,
    accepting: tokio::task::JoinHandle<()>,
}

impl AgentServer {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more requests, and waits for what is under way, runs in the background among it, as
    /// long as the builder says. Then what is left is cancelled.
    pub async fn shutdown(mut self) {
        self.service.stop.cancel();
        self.service.tasks.close();
        let drained = async {
            // A panic of the task that accepts has nothing that could still be waited for.
            let _ = (&mut self.accepting).await;
            self.service.tasks.wait().await;
        };
        if tokio::time::timeout(self.service.limits.drain, drained).await.is_err() {
            self.service.give_up.cancel();
            let left = tokio::time::timeout(GIVE_UP_TIMEOUT, self.service.tasks.wait()).await;
            if left.is_err() {
                tracing::warn!(
                    runs = self.service.tasks.len(),
                    "runs that were cancelled do not end"
                );
            }
        }
    }

    /// Serves until `stop` is ready, then [shuts down](Self::shutdown).
    pub async fn run_until(self, stop: impl Future<Output = ()>) {
        stop.await;
        self.shutdown().await;
    }
}

impl Drop for AgentServer {
    fn drop(&mut self) {
        self.service.stop.cancel();
        self.service.give_up.cancel();
    }
}

impl fmt::Debug for AgentServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentServer").field("address", &self.address).finish_non_exhaustive()
    }
}
