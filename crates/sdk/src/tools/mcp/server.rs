//! A connection to an MCP server: made when it is needed, made anew when it broke.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fmt;
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;
use reqwest::Url;
use rmcp::model::ServerPeerInfo;
use rmcp::service::{NotificationContext, RunningService};
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::transport::{StreamableHttpClientTransport, TokioChildProcess};
use rmcp::{ClientHandler, Peer, RoleClient, ServiceError, ServiceExt as _};
use throughline_trace::{ErrorType, keys};
use tokio::process::Command;
use tokio::sync::{Mutex, watch};

use super::builder::{Inherits, McpBuilder, Via};
use super::session::{Session, SessionClient};
use super::tool::McpTool;
use crate::context_bag::Need;
use crate::http_client;
use crate::resilient::Fault;
use crate::span::{ActiveSpan, span};
use crate::tools::local::{Origin, Taken, ToolRegistry};
use crate::tools::tool::Tool as _;
use crate::tools::tool_id::{TOOL_ID_MAX_CHARS, ToolId};

/// How long the start of a server and its handshake may take.
pub const MCP_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Tools of one server that are taken at most.
const MAX_TOOLS: usize = 1_024;

/// Why an MCP server could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected the MCP server {server} to answer {method}: {message}")]
pub struct McpError {
    /// The server: its program or host.
    pub server: String,
    /// The method.
    pub method: &'static str,
    /// What kind of failure.
    pub kind: ErrorType,
    /// The JSON-RPC code, where the server gave one.
    pub code: Option<String>,
    /// For people.
    pub message: String,
}

impl Fault for McpError {
    fn error_type(&self) -> ErrorType {
        self.kind
    }
}

impl McpBuilder {
    /// Starts the server, or reaches it, and shakes hands.
    ///
    /// # Errors
    /// [`McpError`], also when a header was said that HTTP does not allow.
    pub async fn connect(self) -> Result<McpServer, McpError> {
        if let Some(message) = self.wrong {
            let (server, method) = (self.via.shown(), "initialize");
            let kind = ErrorType::InvalidRequest;
            return Err(McpError { server, method, kind, code: None, message });
        }
        let (changes, _) = watch::channel(0);
        let shared = Shared {
            of: self,
            origin: Origin::next(),
            connection: Mutex::new(None),
            info: SyncMutex::new(None),
            session: Session::default(),
            changes,
        };
        let server = McpServer { shared: Arc::new(shared) };
        server.peer().await?;
        Ok(server)
    }
}

/// Hears what a server says unasked.
#[derive(Clone)]
struct Listener {
    changes: watch::Sender<u64>,
}

impl ClientHandler for Listener {
    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.changes.send_modify(|count| *count += 1);
    }
}

struct Shared {
    of: McpBuilder,
    /// Tells this connection's tools in a registry from others.
    origin: Origin,
    connection: Mutex<Option<RunningService<RoleClient, Listener>>>,
    info: SyncMutex<Option<Arc<ServerPeerInfo>>>,
    session: Session,
    changes: watch::Sender<u64>,
}

/// An MCP server. Clones share its connection, which is made anew when a call finds it broken.
///
/// ```no_run
/// # async fn doc() -> Result<(), Box<dyn std::error::Error>> {
/// use throughline::{McpServer, ToolRegistry};
///
/// let files = McpServer::stdio("npx").arg("-y").arg("@modelcontextprotocol/server-filesystem")
///     .arg("/srv/files").prefix("files").connect().await?;
/// let tools = ToolRegistry::new();
/// let told = files.sync(&tools).await?;
/// assert!(told.skipped.is_empty(), "{:?}", told.skipped);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct McpServer {
    shared: Arc<Shared>,
}

/// What [`McpServer::sync`] changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct McpSync {
    /// Tools that are new in the registry.
    pub added: Vec<ToolId>,
    /// Tools that the server describes otherwise than before, replaced in the registry.
    pub changed: Vec<ToolId>,
    /// Tools that the server no longer has, taken out of the registry.
    pub removed: Vec<ToolId>,
    /// Tools that cannot be registered, with the reason.
    pub skipped: Vec<(String, String)>,
}

impl McpServer {
    /// A server that is a program, spoken to over its standard input and output. Of this process's
    /// environment it has [`MCP_INHERITED_VARIABLES`](super::MCP_INHERITED_VARIABLES) alone, unless
    /// the builder says otherwise: a server is often somebody else's program.
    pub fn stdio(program: impl Into<OsString>) -> McpBuilder {
        McpBuilder::new(Via::Stdio {
            program: program.into(),
            args: Vec::new(),
            environment: Vec::new(),
            inherits: Inherits::Small,
        })
    }

    /// A server over streamable HTTP.
    ///
    /// # Errors
    /// [`McpError`] when the address is none.
    pub fn http(address: &str) -> Result<McpBuilder, McpError> {
        let url = Url::parse(address).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let Some(url) = url else {
            return Err(McpError {
                server: http_client::without_userinfo(address),
                method: "initialize",
                kind: ErrorType::InvalidRequest,
                code: None,
                message: "expected an http or https address".to_owned(),
            });
        };
        Ok(McpBuilder::new(Via::Http { url, headers: HashMap::new() }))
    }

    /// The server's tools, as tools that can be registered; those whose names cannot be are left out.
    ///
    /// # Errors
    /// [`McpError`].
    pub async fn tools(&self) -> Result<Vec<McpTool>, McpError> {
        Ok(self.list().await?.into_iter().filter_map(|(_, tool)| tool.ok()).collect())
    }

    async fn list(&self) -> Result<Vec<(String, Result<McpTool, String>)>, McpError> {
        const METHOD: &str = "tools/list";
        let span = self.span(METHOD, METHOD.to_owned()).start();
        let listing = async {
            let peer = self.peer().await?;
            let listed = tokio::time::timeout(self.shared.of.timeout, peer.list_all_tools()).await;
            match listed {
                Ok(Ok(tools)) => Ok(tools),
                Ok(Err(error)) => Err(self.failure(METHOD, &error)),
                Err(_) => Err(self.late(METHOD, self.shared.of.timeout)),
            }
        };
        let listed = span.instrument(listing).await;
        let listed = listed.inspect_err(|error| fail(&span, error))?;
        let version = self.tool_version();
        let made = listed.into_iter().take(MAX_TOOLS).map(|listed| {
            let name = listed.name.to_string();
            let id = self.id_of(&name, version);
            (name, id.map(|id| McpTool::new(self.clone(), id, listed)))
        });
        Ok(made.collect())
    }

    /// Makes a registry have the tools that the server has: adds new ones, replaces those whose name,
    /// description or schemas changed, takes out those of this connection that are gone. A call that
    /// runs goes on with the tool that it began with.
    ///
    /// # Errors
    /// [`McpError`]; a tool that cannot be registered is told in the answer. One whose new schema is
    /// none is taken out too: the old one is no longer true.
    pub async fn sync(&self, registry: &ToolRegistry) -> Result<McpSync, McpError> {
        let mut told = McpSync::default();
        let mut there = HashSet::new();
        for (name, tool) in self.list().await? {
            let tool = match tool {
                Ok(tool) => tool,
                Err(reason) => {
                    told.skipped.push((name, reason));
                    continue;
                }
            };
            let id = tool.id().clone();
            if there.contains(&id) {
                told.skipped.push((name, format!("expected a name of its own, got {id} twice")));
                continue;
            }
            match registry.take_from(self.shared.origin, tool.fingerprint(), tool) {
                Ok(Taken::New) => told.added.push(id.clone()),
                Ok(Taken::Changed) => told.changed.push(id.clone()),
                Ok(Taken::AsItWas) => {}
                Err(error) => {
                    told.skipped.push((name, error.to_string()));
                    continue;
                }
            }
            there.insert(id);
        }
        for id in registry.of_origin(self.shared.origin) {
            if !there.contains(&id) && registry.remove(&id) {
                told.removed.push(id);
            }
        }
        Ok(told)
    }

    /// [`sync`](Self::sync) each time the server says that its tools changed. Ends when it cannot be
    /// asked; to be spawned, or polled beside the agent.
    ///
    /// # Errors
    /// [`McpError`].
    pub async fn follow(&self, registry: &ToolRegistry) -> Result<(), McpError> {
        let mut changes = self.changes();
        while changes.changed().await.is_ok() {
            self.sync(registry).await?;
        }
        Ok(())
    }

    /// How often the server said that its tools changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Ends the connection; the next call makes a new one.
    pub async fn disconnect(&self) {
        if let Some(connection) = self.shared.connection.lock().await.take() {
            // How it ended is of no use to anybody.
            let _ = connection.cancel().await;
        }
    }

    pub(super) fn needs(&self) -> &[Need] {
        &self.shared.of.needs
    }

    pub(super) fn timeout(&self) -> Duration {
        self.shared.of.timeout
    }

    /// The connection, made if there is none that works.
    pub(super) async fn peer(&self) -> Result<Peer<RoleClient>, McpError> {
        const METHOD: &str = "initialize";
        let mut connection = self.shared.connection.lock().await;
        if let Some(running) = connection.as_ref()
            && !running.is_closed()
            && !running.is_transport_closed()
        {
            return Ok(running.peer().clone());
        }
        *connection = None;
        self.shared.session.forget();
        let span = self.span(METHOD, METHOD.to_owned()).start();
        let made = span.instrument(tokio::time::timeout(MCP_CONNECT_TIMEOUT, self.dial())).await;
        let made = match made {
            Ok(made) => made,
            Err(_) => Err(self.late(METHOD, MCP_CONNECT_TIMEOUT)),
        };
        let running = made.inspect_err(|error| fail(&span, error))?;
        let peer = running.peer().clone();
        let info = peer.peer_info();
        span.set_all(self.shared.session.attribute());
        span.set_all(info.as_deref().map(version_attribute));
        *self.shared.info.lock().unwrap_or_else(PoisonError::into_inner) = info;
        *connection = Some(running);
        Ok(peer)
    }

    async fn dial(&self) -> Result<RunningService<RoleClient, Listener>, McpError> {
        let listener = Listener { changes: self.shared.changes.clone() };
        let wrong = |kind, message: String| self.error("initialize", kind, message);
        let served = match &self.shared.of.via {
            Via::Stdio { program, args, environment, inherits } => {
                let mut command = Command::new(program);
                inherits.apply(&mut command);
                command.args(args).envs(environment.iter().cloned());
                let spawned =
                    TokioChildProcess::builder(command).stderr(std::process::Stdio::null()).spawn();
                let (transport, _) =
                    spawned.map_err(|error| wrong(ErrorType::Connection, error.to_string()))?;
                listener.serve(transport).await
            }
            Via::Http { url, headers } => {
                let client = http_client::client(url)
                    .map_err(|message| wrong(ErrorType::Connection, message))?;
                let config = StreamableHttpClientTransportConfig::with_uri(url.as_str())
                    .custom_headers(headers.clone());
                let client = SessionClient::new(client, self.shared.session.clone());
                listener.serve(StreamableHttpClientTransport::with_client(client, config)).await
            }
        };
        served.map_err(|error| wrong(ErrorType::Connection, error.to_string()))
    }

    /// A span for a request to the server, as the conventions for MCP have it.
    pub(super) fn span(&self, method: &'static str, name: String) -> crate::span::SpanBuilder {
        let mut builder =
            span(name).kind(SpanKind::Client).attribute(keys::MCP_METHOD_NAME, method);
        match &self.shared.of.via {
            Via::Stdio { .. } => builder = builder.attribute(keys::NETWORK_TRANSPORT, "pipe"),
            Via::Http { url, .. } => {
                builder = builder
                    .attribute(keys::NETWORK_TRANSPORT, "tcp")
                    .attribute(keys::SERVER_ADDRESS, self.shared.of.via.shown());
                if let Some(port) = url.port_or_known_default() {
                    builder = builder.attribute(keys::SERVER_PORT, i64::from(port));
                }
            }
        }
        builder
            .attributes(self.info().as_deref().map(version_attribute))
            .attributes(self.shared.session.attribute())
    }

    fn info(&self) -> Option<Arc<ServerPeerInfo>> {
        self.shared.info.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first number of the server's version; 1 where it has none.
    fn tool_version(&self) -> u32 {
        let own = self.shared.of.version;
        own.unwrap_or_else(|| {
            let info = self.info();
            let server = info.as_ref().and_then(|info| info.server_info.as_ref());
            server.map_or(1, |server| first_number(&server.version))
        })
    }

    fn id_of(&self, name: &str, version: u32) -> Result<ToolId, String> {
        let prefix = &self.shared.of.prefix;
        let whole = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}_{name}") };
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let fitting: String = whole.chars().map(|c| if fits(c) { c } else { '_' }).collect();
        ToolId::new(&fitting, version).map_err(|_| {
            format!(
                "expected a name that makes a tool id of at most {TOOL_ID_MAX_CHARS} characters"
            )
        })
    }

    /// What an error of the client means.
    pub(super) fn failure(&self, method: &'static str, error: &ServiceError) -> McpError {
        let (kind, code) = match error {
            ServiceError::McpError(data) => {
                let kind = match data.code.0 {
                    -32602 => ErrorType::InvalidArguments,
                    -32601 => ErrorType::ToolMissing,
                    -32600 | -32700 => ErrorType::InvalidRequest,
                    _ => ErrorType::Server,
                };
                (kind, Some(data.code.0.to_string()))
            }
            ServiceError::TransportSend(_) | ServiceError::TransportClosed => {
                (ErrorType::Connection, None)
            }
            ServiceError::Timeout { .. } => (ErrorType::Timeout, None),
            ServiceError::Cancelled { .. } => (ErrorType::Cancelled, None),
            _ => (ErrorType::InvalidResponse, None),
        };
        let message = match error {
            ServiceError::McpError(data) => data.message.to_string(),
            other => other.to_string(),
        };
        McpError { code, ..self.error(method, kind, message) }
    }

    fn late(&self, method: &'static str, after: Duration) -> McpError {
        let text = format!("got nothing in {} ms", after.as_millis());
        self.error(method, ErrorType::Timeout, text)
    }

    fn error(&self, method: &'static str, kind: ErrorType, message: String) -> McpError {
        McpError { server: self.shared.of.via.shown(), method, kind, code: None, message }
    }
}

impl fmt::Debug for McpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpServer")
            .field("server", &self.shared.of.via.shown())
            .finish_non_exhaustive()
    }
}

fn version_attribute(info: &ServerPeerInfo) -> KeyValue {
    KeyValue::new(keys::MCP_PROTOCOL_VERSION, info.protocol_version.to_string())
}

fn fail(span: &ActiveSpan, error: &McpError) {
    if let Some(code) = &error.code {
        span.set(keys::ERROR_CODE, code.clone());
    }
    span.fail(error.kind, error.to_string());
}

/// `1` of `v1.2.3`, `2025` of `2025-11-05`, `1` of what has no number.
fn first_number(version: &str) -> u32 {
    let digits = version.trim_start_matches(|c: char| !c.is_ascii_digit());
    let digits: String = digits.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_a_server_makes_that_of_its_tools() {
        for (version, number) in
            [("1.2.3", 1), ("v2", 2), ("2025-11-05", 2025), ("0.6", 0), ("", 1), ("99999999999", 1)]
        {
            assert_eq!(first_number(version), number, "{version}");
        }
    }
}
