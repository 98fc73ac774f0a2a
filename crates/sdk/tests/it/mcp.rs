//! Tools of MCP servers, against the official server: over streamable HTTP, and over the standard
//! input and output of a process (R2.2, R2.3, R4.1).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation,
    ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig,
};
use rmcp::service::{NotificationContext, RequestContext};
use rmcp::transport::streamable_http_server::StreamableHttpService;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::{ErrorData, Peer, RoleServer, ServerHandler, ServiceExt as _};
use serde_json::{Value, json};
use throughline::llm::ToolCall;
use throughline::{
    ContextBag, ErrorType, Fault as _, McpServer, Need, SourceLayer, ToolRegistry, keys,
};
use tokio::sync::Notify;

use crate::provider::recorded;

/// The variable that makes a process of this test binary an MCP server.
const SERVE: &str = "THROUGHLINE_TEST_MCP_SERVER";

/// A server with four tools. After `grow` it has one more and one less, and numbers pages with texts.
#[derive(Clone, Default)]
pub(crate) struct Library {
    is_grown: Arc<AtomicBool>,
    cancelled: Arc<Notify>,
    calls: Arc<AtomicUsize>,
}

fn listed(name: &'static str, schema: Value) -> rmcp::model::Tool {
    let schema = schema.as_object().expect("an object").clone();
    rmcp::model::Tool::new(name, "Does something", Arc::new(schema))
}

impl ServerHandler for Library {
    fn get_info(&self) -> ServerConfig {
        let capabilities =
            ServerCapabilities::builder().enable_tools().enable_tool_list_changed().build();
        ServerConfig::new(capabilities).with_server_info(Implementation::new("library", "3.1.4"))
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let object = json!({"type": "object"});
        let is_grown = self.is_grown.load(Ordering::Relaxed);
        let kind = if is_grown { "string" } else { "integer" };
        let page =
            json!({"type": "object", "properties": {"page": {"type": kind}}, "required": ["page"]});
        let mut tools = vec![
            listed("books.read", page),
            listed("fail", object.clone()),
            listed("grow", object.clone()),
            listed("wait", object.clone()),
        ];
        if is_grown {
            tools.remove(1);
            tools.push(listed("write", object));
        }
        Ok(ListToolsResult::with_all_items(tools))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let result = match &*request.name {
            "books.read" => {
                let meta = Value::Object(context.meta.0.0.clone());
                CallToolResult::structured(json!({"meta": meta, "arguments": request.arguments}))
            }
            "fail" => CallToolResult::error(vec![ContentBlock::text("no such book")]),
            "grow" => {
                self.is_grown.store(true, Ordering::Relaxed);
                let peer: Peer<RoleServer> = context.peer.clone();
                tokio::spawn(async move { peer.notify_tool_list_changed().await });
                CallToolResult::success(vec![ContentBlock::text("grown")])
            }
            "wait" => {
                context.ct.cancelled().await;
                self.cancelled.notify_one();
                CallToolResult::success(vec![])
            }
            _ => return Err(ErrorData::invalid_params("no such tool", None)),
        };
        Ok(CallToolResponse::Complete(result))
    }

    async fn on_initialized(&self, _: NotificationContext<RoleServer>) {}
}

/// The library over streamable HTTP.
pub(crate) async fn library() -> (Library, String) {
    let library = Library::default();
    let served = library.clone();
    let service = StreamableHttpService::new(
        move || Ok(served.clone()),
        LocalSessionManager::default().into(),
        Default::default(),
    );
    let app = axum::Router::new().nest_service("/mcp", service);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    (library, format!("http://{address}/mcp"))
}

pub(crate) fn call(name: &str, arguments: &Value) -> ToolCall {
    ToolCall { id: "call_1".to_owned(), name: name.to_owned(), arguments: arguments.to_string() }
}

/// R2.2, R2.3, R4.1: names and versions, the trace and the context in `_meta`, the spans.
#[tokio::test]
async fn r4_1_tools_of_an_mcp_server_are_called_on_the_callers_trace() {
    let (_library, address) = library().await;
    let (recorder, telemetry) = recorded();
    let registry = ToolRegistry::new();
    let work = async {
        let server = McpServer::http(&address).expect("an address");
        let server = server.with_needs([Need::of("user_timezone")]).connect().await.expect("up");
        let told = server.sync(&registry).await.expect("synced");
        assert_eq!(told.skipped, []);
        let bag = ContextBag::new();
        bag.set(SourceLayer::Caller, "user_timezone", "Europe/Vienna").expect("set");
        let asked = call("books_read", &json!({"page": 7}));
        let told = bag.scope(registry.execute(&asked)).await.expect("told");
        assert_eq!(told["arguments"], json!({"page": 7}));
        let failed = bag.scope(registry.execute(&call("fail_v3", &json!({})))).await;
        let failed = failed.expect_err("no book");
        assert_eq!(
            (failed.error_type(), failed.code()),
            (ErrorType::ToolFailed, Some("tool_error"))
        );
        assert_eq!(failed.to_string(), "no such book");
        let wrong = bag.scope(registry.execute(&call("books.read_v3", &json!({})))).await;
        assert_eq!(wrong.expect_err("no tool").error_type(), ErrorType::ToolMissing);
        told["meta"].clone()
    };
    let meta = telemetry.scope(work).await;
    let spans = recorder.spans();
    let span = spans.iter().find(|span| span.name == "tools/call books.read").expect("a span");
    let (trace, id) = (span.span_context.trace_id(), span.span_context.span_id());
    assert_eq!(meta["traceparent"], format!("00-{trace}-{id}-01"));
    let bag = ContextBag::from_meta(meta.as_object().expect("an object")).expect("a bag");
    assert_eq!(bag.expect("there").fields(), ["user_timezone"]);
    let shown =
        [keys::MCP_METHOD_NAME, keys::NETWORK_TRANSPORT, keys::ERROR_TYPE, keys::ERROR_CODE];
    let tree = recorder.tree(&shown);
    for line in [
        "initialize mcp.method.name=initialize network.transport=tcp",
        "tools/list mcp.method.name=tools/list network.transport=tcp",
        "  tools/call books.read mcp.method.name=tools/call network.transport=tcp",
        "  tools/call fail mcp.method.name=tools/call network.transport=tcp error.type=TOOL_FAILED throughline.error.code=tool_error ERROR(no such book)",
    ] {
        assert!(tree.lines().any(|found| found == line), "{line}\n{tree}");
    }
    let attribute = |key: &str| span.attributes.iter().any(|entry| entry.key.as_str() == key);
    assert!(attribute(keys::JSONRPC_REQUEST_ID) && attribute(keys::MCP_PROTOCOL_VERSION));
    // One session for all that was asked, from the handshake on.
    let session = |span: &opentelemetry_sdk::trace::SpanData| {
        let found = span.attributes.iter().find(|entry| entry.key.as_str() == keys::MCP_SESSION_ID);
        found.map(|entry| entry.value.to_string())
    };
    let own = session(span).expect("a session");
    let asked = ["initialize", "tools/list", "tools/call books.read", "tools/call fail"];
    for name in asked {
        let span = spans.iter().find(|span| span.name == name).expect("a span");
        assert_eq!(session(span).as_ref(), Some(&own), "{name}");
        let is_there = |key: &str| span.attributes.iter().any(|entry| entry.key.as_str() == key);
        assert!(is_there(keys::MCP_PROTOCOL_VERSION), "{name}");
    }
}

/// R4.1: a server that says that its tools changed is listed anew.
#[tokio::test]
async fn r4_1_a_changed_list_of_tools_is_followed() {
    let (_library, address) = library().await;
    let server = McpServer::http(&address).expect("an address").prefix("lib").version(9);
    let server = server.connect().await.expect("up");
    let registry = ToolRegistry::new();
    server.sync(&registry).await.expect("synced");
    let mut changes = server.changes();
    let grown = registry.execute(&call("lib_grow_v9", &json!({}))).await;
    assert_eq!(grown, Ok(json!("grown")));
    tokio::time::timeout(Duration::from_secs(20), changes.changed())
        .await
        .expect("told in time")
        .expect("told");
    let told = server.sync(&registry).await.expect("synced");
    let ids = |ids: &[throughline::ToolId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(ids(&told.added), ["lib_write_v9"]);
    assert_eq!(ids(&told.removed), ["lib_fail_v9"]);
    assert_eq!(ids(&told.changed), ["lib_books_read_v9"]);
    let read = registry.execute(&call("lib_books_read_v9", &json!({"page": "iv"}))).await;
    assert_eq!(read.expect("as it is described now")["arguments"], json!({"page": "iv"}));
    assert_eq!(server.sync(&registry).await, Ok(Default::default()), "nothing has changed since");
    assert_eq!(server.tools().await.expect("listed").len(), 4);
}

/// A key with a line break cannot be sent, and is not left out in silence.
#[tokio::test]
async fn a_header_that_cannot_be_sent_is_an_error_of_connecting() {
    let (_library, address) = library().await;
    let server = || McpServer::http(&address).expect("an address");
    server().header("authorization", "Bearer s3cret").connect().await.expect("up");
    let error = server().header("authorization", "Bearer s3cret\n").connect().await;
    let error = error.expect_err("a line break");
    assert_eq!(error.error_type(), ErrorType::InvalidRequest);
    assert_eq!(
        error.to_string(),
        "expected the MCP server 127.0.0.1 to answer initialize: expected characters that a header may have as the value of authorization, got '\\n' among its 14 bytes; cut it off"
    );
    let error = server().header("no name", "x").connect().await.expect_err("a space");
    assert!(error.message.contains("expected the name of a header"), "{error}");
}

/// R4.1: a call that is given up, or runs out of time, is cancelled at the server.
#[tokio::test]
async fn r4_1_a_call_that_is_given_up_is_cancelled_at_the_mcp_server() {
    let (library, address) = library().await;
    let server = McpServer::http(&address).expect("an address");
    let server = server.with_timeout(Duration::from_millis(200)).connect().await.expect("up");
    let registry = ToolRegistry::new();
    server.sync(&registry).await.expect("synced");
    let late = registry.execute(&call("wait_v3", &json!({}))).await.expect_err("late");
    assert_eq!(late.error_type(), ErrorType::Timeout);
    tokio::time::timeout(Duration::from_secs(20), library.cancelled.notified())
        .await
        .expect("the server heard it");
}

/// The other process of the next test: nothing, unless it was asked for.
#[test]
fn mcp_server_of_the_stdio_test() {
    if std::env::var_os(SERVE).is_none() {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let running = Library::default().serve(rmcp::transport::stdio()).await.expect("served");
        running.waiting().await.expect("ended");
    });
    std::process::exit(0);
}

/// R4.1: a server that is a process; when it has ended, the next call starts it anew.
#[cfg(unix)]
#[tokio::test]
async fn r4_1_an_mcp_server_that_is_a_process_is_started_anew() {
    let own = std::env::current_exe().expect("the test binary");
    // The test harness writes lines of its own, which no server may.
    let script =
        r#""$0" mcp::mcp_server_of_the_stdio_test --exact --nocapture | grep --line-buffered '^{'"#;
    let server = McpServer::stdio("sh").arg("-c").arg(script).arg(own).env(SERVE, "1");
    let (recorder, telemetry) = recorded();
    let registry = ToolRegistry::new();
    let work = async {
        let server = server.connect().await.expect("up");
        server.sync(&registry).await.expect("synced");
        let asked = call("books_read_v3", &json!({"page": 1}));
        let first = registry.execute(&asked).await.expect("told");
        assert!(first["meta"]["traceparent"].is_string());
        server.disconnect().await;
        registry.execute(&asked).await.expect("told by the second process");
        let none = McpServer::stdio("/no/such/server").connect().await.expect_err("none");
        assert_eq!(none.error_type(), ErrorType::Connection);
    };
    telemetry.scope(work).await;
    let tree = recorder.tree(&[keys::NETWORK_TRANSPORT, keys::MCP_SESSION_ID]);
    assert_eq!(tree.matches("initialize network.transport=pipe").count(), 3, "{tree}");
    assert!(tree.contains("tools/call books.read network.transport=pipe"), "{tree}");
}

/// The variable that makes a process of this test binary start programs that tell their environment,
/// into this directory.
const TELL: &str = "THROUGHLINE_TEST_MCP_ENVIRONMENT";

/// The other process of the next test: nothing, unless it was asked for.
#[cfg(unix)]
#[tokio::test]
async fn mcp_client_of_the_environment_test() {
    let Some(directory) = std::env::var_os(TELL).map(std::path::PathBuf::from) else { return };
    let program = |name: &str| {
        let script = r#"env > "$0""#;
        McpServer::stdio("sh").arg("-c").arg(script).arg(directory.join(name)).env("OWN", "own")
    };
    for (name, server) in [
        ("small", program("small")),
        ("all", program("all").inherit_environment()),
        ("path", program("path").clear_environment()),
    ] {
        server.connect().await.expect_err(name);
    }
}

/// R2.3: what a call was told is not left to a server that outlives it, nor are this process's
/// credentials to a program that nobody gave them to.
#[cfg(unix)]
#[test]
fn the_program_of_an_mcp_server_has_a_small_environment() {
    let directory = tempfile::tempdir().expect("a directory");
    let own = std::env::current_exe().expect("the test binary");
    let status = std::process::Command::new(own)
        .args(["mcp::mcp_client_of_the_environment_test", "--exact"])
        .env(TELL, directory.path())
        .env("HOME", "/home/ada")
        .env("SECRET_KEY", "s3cret")
        .env("TRACEPARENT", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .env("THROUGHLINE_CONTEXT", "{}")
        .stdout(std::process::Stdio::null())
        .status();
    assert!(status.expect("a process").success());
    let names = ["PATH", "HOME", "OWN", "SECRET_KEY", "TRACEPARENT", "THROUGHLINE_CONTEXT"];
    let told = |file: &str| {
        let text = std::fs::read_to_string(directory.path().join(file)).expect(file);
        let has = |name: &&str| text.lines().any(|line| line.starts_with(&format!("{name}=")));
        names.into_iter().filter(has).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(told("small"), "PATH HOME OWN");
    assert_eq!(told("all"), "PATH HOME OWN SECRET_KEY");
    assert_eq!(told("path"), "PATH OWN");
}
