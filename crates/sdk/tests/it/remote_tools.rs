//! A registry as a service, and tools that are gRPC methods: one trace, and the context declared (R2.2,
//! R2.3, R4.1).

use std::sync::Arc;

use http::Method;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use throughline::llm::ToolCall;
use throughline::{
    ContextBag, ErrorType, Fault as _, GrpcTool, HttpRegistry, HttpTool, Json, Need,
    ObservedRegistry, Registry, RegistryError, SourceLayer, ToolRegistry, ToolService, keys, tool,
};
use tonic::metadata::MetadataMap;
use tower::Service as _;

use crate::provider::recorded;

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Ask {
    pub(crate) item: u32,
}

fn call(name: &str, arguments: &Value) -> ToolCall {
    ToolCall { id: String::new(), name: name.to_owned(), arguments: arguments.to_string() }
}

pub(crate) fn filled() -> ContextBag {
    let bag = ContextBag::new();
    bag.set_session("s-1");
    bag.set(SourceLayer::Session, "consent_flag", "given").expect("set");
    bag
}

/// What serves tools, within its own telemetry.
pub(crate) async fn served(service: ToolService) -> String {
    // Connections are served in tasks of their own: the telemetry goes along with each request.
    let cx = opentelemetry::Context::current();
    let service = tower::service_fn(move |request: http::Request<axum::body::Body>| {
        let _in = cx.clone().attach();
        service.clone().call(request)
    });
    let app = axum::Router::new().nest_service("/registry", service);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}/registry")
}

pub(crate) fn tools() -> ToolRegistry {
    let stock = tool("stock_v1", "How many there are", |ask: Ask| async move {
        if ask.item == 0 {
            return Err("there is no item 0".to_owned());
        }
        let bag = ContextBag::current();
        let trace = bag.trace_id().map(|id| id.to_string());
        Ok(
            json!({"fields": bag.fields(), "session": bag.session_id().map(|id| id.to_string()), "trace": trace}),
        )
    });
    let needy = stock.expect("an id").with_needs([Need::of("consent_flag")]);
    let newer = tool("stock_v2", "How many there are", |_: Ask| async { Json(2) });
    ToolRegistry::new().with(needy).and_then(|all| all.with(newer.expect("an id"))).expect("new")
}

/// R4.1: found, described and run elsewhere, in one trace.
#[tokio::test]
async fn r4_1_a_registry_is_served_over_http() {
    let (recorder, telemetry) = recorded();
    let work = async {
        let address = served(ToolService::new(tools())).await;
        let theirs = ObservedRegistry::new(HttpRegistry::new(&address).expect("an address"));
        assert_eq!(theirs.list().await.expect("up").len(), 2);
        assert!(
            theirs.lookup("stock").await.expect("up").is_some_and(|tool| tool.id().version() == 2)
        );
        assert!(theirs.lookup("weather_v1").await.expect("up").is_none());
        recorder.clear();
        let bag = filled();
        bag.authorise("consent_flag", "the user", "asked").expect("a field");
        let asked = call("stock_v1", &json!({"item": 7}));
        let told = bag.scope(theirs.execute(&asked)).await.expect("told");
        assert_eq!((&told["fields"], &told["session"]), (&json!(["consent_flag"]), &json!("s-1")));
        let tree = recorder.tree(&[keys::HTTP_RESPONSE_STATUS_CODE]);
        let failed = bag.scope(theirs.execute(&call("stock_v1", &json!({"item": 0})))).await;
        let failed = failed.expect_err("no item");
        assert_eq!(
            (failed.error_type(), failed.to_string().as_str()),
            (ErrorType::ToolFailed, "there is no item 0")
        );
        let refused = filled().scope(theirs.execute(&asked)).await.expect_err("not authorised");
        assert_eq!(refused.error_type(), ErrorType::PolicyRejected);
        let here = ToolRegistry::new();
        assert_eq!(here.add_all(&theirs).await, Ok(2));
        assert_eq!(here.execute(&call("stock_v2", &json!({"item": 7}))).await, Ok(json!(2)));
        tree
    };
    let tree = telemetry.scope(work).await;
    let ran = [
        "execute_tool stock_v1",
        "  POST /tools/{id}/call http.response.status_code=200",
        "    POST /tools/{id}/call http.response.status_code=200",
        "      tool.registry.stock_v1",
        "      execute_tool stock_v1\n",
    ];
    assert!(tree.contains(&ran.join("\n")), "{tree}");
}

/// R2.3: who calls a tool by its bare name is served as who writes its version too.
#[tokio::test]
async fn r2_3_a_tool_that_is_called_by_its_name_alone_gets_what_was_given_to_it() {
    let (recorder, telemetry) = recorded();
    let stock = tool("stock_v3", "How many there are", |_: Ask| async {
        Json(ContextBag::current().fields())
    });
    let stock = stock.expect("an id").with_needs([Need::of("consent_flag")]);
    let bag = filled();
    bag.authorise("consent_flag", "the user", "asked").expect("a field");
    let given = bag.view_for("stock_v3", &[Need::of("consent_flag")]).expect("a view");
    let work = async {
        let registry = ToolRegistry::new().with(stock).expect("new");
        let address = served(ToolService::new(registry)).await;
        let mut headers = http::HeaderMap::new();
        given.inject_headers(&mut headers).expect("headers");
        let request = crate::served::client()
            .post(format!("{address}/tools/stock/call"))
            .headers(headers)
            .json(&json!({"arguments": {"item": 7}}));
        let answer = request.send().await.expect("an answer");
        let status = answer.status().as_u16();
        (status, answer.json::<Value>().await.expect("JSON"))
    };
    let told = telemetry.scope(work).await;
    assert_eq!(told, (200, json!({"result": ["consent_flag"]})));
    assert!(recorder.tree(&[]).contains("tool.registry.stock_v3"), "{}", recorder.tree(&[]));
}

/// A key with a line break cannot be sent, and is not left out in silence.
#[test]
fn a_header_that_cannot_be_sent_is_refused() {
    let registry = || HttpRegistry::new("http://127.0.0.1:1/").expect("an address");
    assert!(registry().header("authorization", "Bearer s3cret").is_ok());
    let error = registry().header("authorization", "Bearer s3cret\n").expect_err("a line break");
    assert_eq!(error.error_type(), ErrorType::InvalidRequest);
    assert!(!error.to_string().contains("s3cret"), "{error}");
}

/// R4.1: only a tool that has an address can be registered elsewhere, and only where that is wanted.
#[tokio::test]
async fn r4_1_a_tool_is_registered_at_a_service_that_accepts_it() {
    let (_recorder, telemetry) = recorded();
    let work = async {
        let http = |id: &str| {
            let tool = HttpTool::new(id, "Asks", Method::GET, "http://127.0.0.1:1/items/{item}");
            Arc::new(tool.expect("a tool").parameters(json!({"type": "object"})))
        };
        let address = served(ToolService::new(tools()).accepting_tools()).await;
        let theirs = HttpRegistry::new(&address).expect("an address");
        assert_eq!(theirs.register(http("far_v1")).await, Ok(()));
        let again = theirs.register(http("far_v1")).await;
        assert!(matches!(again, Err(RegistryError::AlreadyRegistered(_))), "{again:?}");
        let local = tool("near_v1", "Runs here", |_: Ask| async { Json(1) }).expect("an id");
        let near = theirs.register(Arc::new(local)).await;
        assert!(matches!(near, Err(RegistryError::NotReachable { .. })), "{near:?}");
        let secret =
            HttpTool::new("key_v1", "Asks", Method::GET, "http://127.0.0.1:1/").expect("a tool");
        let secret = Arc::new(secret.header("x-key", "s3cret").expect("a header"));
        assert!(matches!(theirs.register(secret).await, Err(RegistryError::NotReachable { .. })));

        let closed = served(ToolService::new(tools())).await;
        let closed = HttpRegistry::new(&closed).expect("an address");
        let refused = closed.register(http("far_v1")).await.expect_err("closed");
        assert_eq!(refused.error_type(), ErrorType::Auth);
        let down = HttpRegistry::new("http://127.0.0.1:1/").expect("an address");
        assert_eq!(down.list().await.expect_err("down").error_type(), ErrorType::Connection);
    };
    telemetry.scope(work).await;
}

/// R2.2, R2.3, R4.1: a gRPC method gets the trace and the context in its metadata.
#[tokio::test]
async fn r4_1_a_grpc_method_is_called_on_the_callers_trace() {
    let (recorder, telemetry) = recorded();
    let count = |ask: Ask, metadata: MetadataMap| async move {
        if ask.item == 0 {
            return Err(tonic::Status::not_found("there is no item 0"));
        }
        let bag = ContextBag::from_metadata(&metadata).expect("a bag").expect("there");
        let parent = metadata.get("traceparent").and_then(|value| value.to_str().ok());
        Ok(json!({"parent": parent, "fields": bag.fields()}))
    };
    let count = GrpcTool::new("stock_v1", "How many", "shop.Stock/Count", count).expect("an id");
    let count = count.with_needs([Need::of("user_timezone")]);
    let registry = ToolRegistry::new().with(count).expect("new");
    let work = async {
        let bag = filled();
        bag.set(SourceLayer::Caller, "user_timezone", "Europe/Vienna").expect("set");
        let told = bag.scope(registry.execute(&call("stock_v1", &json!({"item": 7})))).await;
        let missing = bag.scope(registry.execute(&call("stock_v1", &json!({"item": 0})))).await;
        let missing = missing.expect_err("no item");
        assert_eq!(
            (missing.error_type(), missing.code()),
            (ErrorType::InvalidRequest, Some("NotFound"))
        );
        told.expect("told")
    };
    let told = telemetry.scope(work).await;
    assert_eq!(told["fields"], json!(["user_timezone"]), "what it needs, and nothing else");
    let spans = recorder.spans();
    let span = spans.iter().find(|span| span.name == "shop.Stock/Count").expect("a span");
    let (trace, id) = (span.span_context.trace_id(), span.span_context.span_id());
    assert_eq!(told["parent"], format!("00-{trace}-{id}-01"));
    let tree = recorder.tree(&[keys::RPC_SYSTEM_NAME, keys::ERROR_TYPE, keys::ERROR_CODE]);
    assert!(tree.contains("  shop.Stock/Count rpc.system.name=grpc\n"), "{tree}");
    let failed = "  shop.Stock/Count rpc.system.name=grpc error.type=INVALID_REQUEST throughline.error.code=NotFound ERROR(expected an answer, got NotFound: there is no item 0)";
    assert!(tree.contains(failed), "{tree}");
}
