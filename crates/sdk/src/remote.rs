//! An agent in another process: the client of what [`serve_agent`](crate::serve_agent) serves, on
//! the caller's trace.

mod budget;
#[cfg(feature = "grpc")]
mod over_grpc;
mod over_http;
#[cfg(feature = "grpc")]
pub(crate) mod proto;
pub(crate) mod streaming;
pub(crate) mod wire;

use std::fmt;
#[cfg(feature = "grpc")]
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue};
use reqwest::Url;
use serde_json::Value;
use throughline_trace::{DecisionId, ErrorType, SpanRole, TraceId, Usage, keys};

use crate::SpanKind;
use crate::agent::{AGENT_TOOL_TIMEOUT, AgentTool, Ledger, Task};
use crate::decision::current_decision;
use crate::dimensions::Dimensions;
use crate::http_client;
use crate::metrics::Outcome;
use crate::propagation;
use crate::resilient::Fault;
use crate::resilient::run::report_of;
use crate::span::{ActiveSpan, span};
use crate::tools::{ToolError, ToolIdError};
use crate::watched::Watched;

use streaming::Events;
pub use streaming::{RemoteEvent, RemoteStream};

/// Bytes of an answer that are read at most.
pub(crate) const ANSWER_MAX_BYTES: usize = 8 * 1024 * 1024;

/// The provider of agents that this SDK serves, to those who ask them: what models answer there is
/// known only there.
const PROVIDER: &str = "throughline";

/// Why an agent elsewhere gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RemoteError {
    /// What kind of failure it was, as the other side says or as it looks from here.
    pub error_type: ErrorType,
    /// What it means for the business.
    pub outcome: Outcome,
    /// For people: who was asked, what came back.
    pub message: String,
    /// The HTTP status or gRPC code that came back.
    pub status_code: Option<u16>,
    /// The pause that the other side asked for.
    pub retry_after: Option<Duration>,
}

impl RemoteError {
    pub(crate) fn new(error_type: ErrorType, message: impl Into<String>) -> Self {
        Self {
            error_type,
            outcome: Outcome::of_error(error_type),
            message: message.into(),
            status_code: None,
            retry_after: None,
        }
    }
}

impl Fault for RemoteError {
    fn error_type(&self) -> ErrorType {
        self.error_type
    }

    fn outcome(&self) -> Outcome {
        self.outcome
    }

    fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    fn status_code(&self) -> Option<u16> {
        self.status_code
    }
}

/// What an agent elsewhere answered.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteRun {
    /// The answer.
    pub answer: String,
    /// How it went there.
    pub outcome: Outcome,
    /// How often its model was asked.
    pub turns: u32,
    /// How many tool calls its model asked for.
    pub tool_calls: u32,
    /// Tokens of all turns.
    pub usage: Usage,
    /// Cost, US dollars, where a price is known.
    pub cost_usd: Option<f64>,
    /// Its decisions, in order.
    pub decisions: Vec<DecisionId>,
    /// The trace that it was recorded on: the caller's.
    pub trace_id: Option<TraceId>,
}

/// How the agent is reached.
#[derive(Clone)]
enum Way {
    Http {
        url: Url,
        client: reqwest::Client,
    },
    #[cfg(feature = "grpc")]
    Grpc(Arc<over_grpc::GrpcAgent>),
}

/// An agent in another process, over HTTP or gRPC. A call is a span `invoke_agent {agent}` of kind
/// CLIENT, the agent's run there its child; session and workflow go along, and so does the decision
/// that led to the call. Clones share the connection.
///
/// ```no_run
/// use throughline::{RemoteAgent, ToolRegistry};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let pricing = RemoteAgent::http("http://pricing.internal:4321", "pricing")?.api_key("tl_secret")?;
/// let answer = pricing.run("What does item 7 cost?").await?.answer;
/// let tools = ToolRegistry::new().with(pricing.as_tool("pricing_v1", "What things cost")?)?;
/// # drop((answer, tools)); Ok(()) }
/// ```
#[derive(Clone)]
pub struct RemoteAgent {
    name: String,
    address: String,
    port: Option<u16>,
    way: Way,
    key: Option<HeaderValue>,
    timeout: Duration,
}

impl RemoteAgent {
    /// The agent of this name at the HTTP address of its service.
    ///
    /// # Errors
    /// [`RemoteError`] when the address is none, or the system has no root certificates that it
    /// needs.
    pub fn http(url: &str, name: impl Into<String>) -> Result<Self, RemoteError> {
        let (name, url) = (name.into(), address_of(url)?);
        let wrong = |reason| RemoteError::new(ErrorType::InvalidRequest, reason);
        let client = http_client::client(&url).map_err(wrong)?;
        let run = over_http::path(&url, &name).ok_or_else(|| {
            wrong(format!(
                "expected an address with a host and a name of an agent, got {} and {name:?}",
                http_client::shown(&url)
            ))
        })?;
        Ok(Self::at(name, &url, Way::Http { url: run, client }))
    }

    /// The agent of this name at the gRPC address of its service. It is connected to with the first
    /// call.
    ///
    /// # Errors
    /// [`RemoteError`] when the address is none.
    #[cfg(feature = "grpc")]
    pub fn grpc(url: &str, name: impl Into<String>) -> Result<Self, RemoteError> {
        let url = address_of(url)?;
        let way = over_grpc::GrpcAgent::new(&url)?;
        Ok(Self::at(name.into(), &url, Way::Grpc(Arc::new(way))))
    }

    fn at(name: String, url: &Url, way: Way) -> Self {
        Self {
            name,
            address: url.host_str().unwrap_or_default().to_owned(),
            port: url.port_or_known_default(),
            way,
            key: None,
            timeout: AGENT_TOOL_TIMEOUT,
        }
    }

    /// The key that the service asks for. White space around it, as the end of a file has it, is no
    /// part of it.
    ///
    /// # Errors
    /// [`RemoteError`] when the key cannot be part of a header; the error does not show it.
    pub fn api_key(mut self, key: &str) -> Result<Self, RemoteError> {
        let value = format!("Bearer {}", key.trim());
        let (_, value) = http_client::secret_header(AUTHORIZATION.as_str(), &value)
            .map_err(|reason| RemoteError::new(ErrorType::InvalidRequest, reason))?;
        self.key = Some(value);
        Ok(self)
    }

    /// How long an answer is waited for; [`AGENT_TOOL_TIMEOUT`] when not said.
    #[must_use]
    pub fn with_timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// The agent's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Has the agent do a task. What it spends counts in the budget of the run that this is part of.
    ///
    /// The task's own [budget](Task::budget) holds too: its time is waited for here at most, its
    /// other limits go along, and the service takes the lesser of these and its own. When its
    /// [token](Task::cancelled_by) is cancelled, the call ends with
    /// [`ErrorType::Cancelled`]; the agent there is told by the end of the connection.
    ///
    /// # Errors
    /// [`RemoteError`], also on the span, but for a task that was taken back: that is no failure.
    pub async fn run(&self, task: impl Into<Task>) -> Result<RemoteRun, RemoteError> {
        let task = task.into();
        let call = Watched::new(self.span(), None);
        let asking = call.span.instrument(self.call(&task));
        let result = match &task.cancel {
            None => asking.await,
            Some(token) => match token.run_until_cancelled(asking).await {
                Some(result) => result,
                None => {
                    call.tell(Outcome::Cancelled);
                    return Err(taken_back());
                }
            },
        };
        match &result {
            Ok(run) => {
                if let Some(ledger) = Ledger::current() {
                    ledger.spend_model_call(run.usage.total_tokens(), run.cost_usd);
                }
                call.tell(run.outcome);
            }
            Err(error) => {
                if let Some(code) = error.status_code {
                    call.span.set(self.status_key(), i64::from(code));
                }
                call.end(error.outcome, Some(&report_of(error)));
            }
        }
        result
    }

    /// [`run`](Self::run), told as it happens. The span begins here and ends with the last event; of
    /// a stream that is dropped before, it says `cancelled`, and the agent there is told by the end
    /// of the connection. The time limit is that of the whole run. A task that is taken back by its
    /// token ends the stream with [`ErrorType::Cancelled`].
    ///
    /// ```no_run
    /// use futures_util::StreamExt as _;
    /// use throughline::{RemoteAgent, RemoteEvent};
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let pricing = RemoteAgent::http("http://pricing.internal:4321", "pricing")?;
    /// let mut events = pricing.stream("What does item 7 cost?");
    /// while let Some(event) = events.next().await {
    ///     match event? {
    ///         RemoteEvent::Text(more) => print!("{more}"),
    ///         RemoteEvent::Done(run) => println!(" ({} turns)", run.turns),
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub fn stream(&self, task: impl Into<Task>) -> RemoteStream {
        let task = task.into();
        let call = Watched::new(self.span(), None);
        let (headers, request) = call.span.in_scope(|| self.request(&task));
        let events: Events = match &self.way {
            Way::Http { url, client } => {
                Box::pin(over_http::events(client.clone(), url.clone(), headers, request))
            }
            #[cfg(feature = "grpc")]
            Way::Grpc(agent) => Box::pin(Arc::clone(agent).events(&self.name, headers, request)),
        };
        RemoteStream::new(events, call, self.status_key(), self.time_for(&task), task.cancel)
    }

    /// This agent as a tool of another.
    ///
    /// # Errors
    /// [`ToolIdError`] when the id cannot be a tool's (`pricing_v1`).
    pub fn as_tool(
        &self,
        id: &str,
        description: impl Into<String>,
    ) -> Result<AgentTool, ToolIdError> {
        let agent = self.clone();
        let tool = AgentTool::of(id, description.into(), move |task| {
            let agent = agent.clone();
            async move {
                let run = agent.run(Task::new(task)).await.map_err(ToolError::fault)?;
                Ok(Value::from(run.answer))
            }
        })?;
        Ok(tool.with_timeout(self.timeout))
    }

    fn span(&self) -> ActiveSpan {
        let mut builder = span(format!("invoke_agent {}", self.name))
            .kind(SpanKind::Client)
            // The run itself is a span of the other side: two would count it twice.
            .role(SpanRole::Other)
            .attribute(keys::GEN_AI_OPERATION_NAME, "invoke_agent")
            .attribute(keys::GEN_AI_PROVIDER_NAME, PROVIDER)
            .attribute(keys::GEN_AI_AGENT_NAME, self.name.clone())
            .attribute(keys::SERVER_ADDRESS, self.address.clone());
        if let Some(port) = self.port {
            builder = builder.attribute(keys::SERVER_PORT, i64::from(port));
        }
        builder.start()
    }

    /// How long the answer to a task is waited for.
    fn time_for(&self, task: &Task) -> Duration {
        task.budget.max_time.map_or(self.timeout, |most| most.min(self.timeout))
    }

    fn status_key(&self) -> &'static str {
        match &self.way {
            Way::Http { .. } => keys::HTTP_RESPONSE_STATUS_CODE,
            #[cfg(feature = "grpc")]
            Way::Grpc(_) => keys::STATUS_CODE,
        }
    }

    /// What is sent, from the current context.
    fn request(&self, task: &Task) -> (HeaderMap, wire::RunRequest) {
        let mut headers = HeaderMap::new();
        propagation::inject(&mut headers);
        if let Some(key) = &self.key {
            headers.insert(AUTHORIZATION, key.clone());
        }
        let mut request = wire::RunRequest::of(task);
        request.parent_decision_id =
            task.cause.or_else(current_decision).map(|decision| decision.to_string());
        if request.session_id.is_none() {
            request.session_id = Dimensions::current().session_id().map(str::to_owned);
        }
        (headers, request)
    }

    async fn call(&self, task: &Task) -> Result<RemoteRun, RemoteError> {
        let (headers, request) = self.request(task);
        let asked: BoxFuture<'_, Result<RemoteRun, RemoteError>> = match &self.way {
            Way::Http { url, client } => {
                Box::pin(over_http::run(client, url.clone(), headers, request))
            }
            #[cfg(feature = "grpc")]
            Way::Grpc(agent) => Box::pin(agent.run(&self.name, headers, request)),
        };
        let limit = self.time_for(task);
        tokio::time::timeout(limit, asked).await.unwrap_or_else(|_| {
            let secs = limit.as_secs_f64();
            let message = format!("expected {} to answer within {secs} s, got nothing", self.name);
            Err(RemoteError::new(ErrorType::Timeout, message))
        })
    }
}

impl fmt::Debug for RemoteAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteAgent")
            .field("name", &self.name)
            .field("address", &self.address)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// The end of a call whose task was taken back.
fn taken_back() -> RemoteError {
    RemoteError::new(ErrorType::Cancelled, "the task was taken back")
}

fn address_of(text: &str) -> Result<Url, RemoteError> {
    let wrong = || {
        let shown = http_client::without_userinfo(text);
        let message = format!("expected an address (http://127.0.0.1:4321), got {shown:?}");
        RemoteError::new(ErrorType::InvalidRequest, message)
    };
    let url = Url::parse(text).map_err(|_| wrong())?;
    if url.has_host() && ["http", "https"].contains(&url.scheme()) { Ok(url) } else { Err(wrong()) }
}
