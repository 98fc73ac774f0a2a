//! Issue 3's proof "everything the SDK emits passes the OpenTelemetry semantic-convention rules
//! (types, enum values, required attributes)": broad scenarios, whose spans and metrics a checker
//! reads. The rules are data (`semconv/table.rs`); that the checker can fail is tested too.

mod events;
mod instruments;
mod rules;
mod table;
mod wrong;

use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};
use futures_util::{StreamExt as _, TryStreamExt as _};
use http::Method;
use opentelemetry::KeyValue;
use serde_json::json;
use throughline::llm::{ChatRequest, EmbeddingRequest, EncodingFormat, Tool};
use throughline::middleware::{SendTraced as _, TraceClientLayer, UrlTemplate};
use throughline::resilience::{BreakerPolicy, Policy, RetryPolicy, TimeoutPolicy};
use throughline::{
    Agent, ChatError, ChatModel as _, Dimensions, EmbeddingModel as _, ErrorType, GrpcTool,
    HttpRegistry, InMemory, McpServer, MemoryWindow, ObservedRegistry, OtlpProtocol, Phase,
    Recorder, Registry as _, RemoteAgent, Resilience, SpanKind, Task, Telemetry, ToolRegistry,
    ToolService, Traced, TracedEmbeddings, serve_agent, step, workflow,
};
use tonic::metadata::MetadataMap;
use tower::{Layer as _, Service as _};

use crate::agent::{Scripted, says, stage, tools, wants};
use crate::chain::{client, recording, serve, server_layer};
use crate::embeddings::Local;
use crate::provider::{Cue, Provider, Puppet, Step, quick, recorded};
use crate::{existing_agents, mcp, receiver, remote_tools, served, tool_kinds, workflows};

/// Panics with everything that is wrong; there are at least so many spans of the kinds looked for.
#[track_caller]
fn check(recorder: &Recorder, names: &[&str]) {
    let spans = recorder.spans();
    for name in names {
        assert!(spans.iter().any(|span| span.name == *name), "{name}\n{}", recorder.tree(&[]));
    }
    let problems = rules::problems(&spans, &["shop.item"]);
    assert!(problems.is_empty(), "{}\n{}", problems.join("\n"), recorder.tree(&[]));
}

fn request() -> ChatRequest {
    let tool = Tool {
        name: "stock_v1".to_owned(),
        description: "how many".to_owned(),
        parameters: json!({"type": "object"}),
        is_strict: false,
    };
    ChatRequest::new("gpt-4o")
        .system("be brief")
        .user("hi")
        .tool(tool)
        .max_tokens(50)
        .temperature(0.5)
}

#[tokio::test]
async fn an_agent_with_tools_memory_and_a_workflow() {
    let (stage, builder) = stage([
        wants(
            "I check.",
            &[("c1", "stock_v1", r#"{"item":7}"#), ("c2", "price_v2", r#"{"item":7}"#)],
        ),
        wants("", &[("c3", "stock_v1", r#"{"item":0}"#), ("c4", "Weather?", "{}")]),
        says("There are 12, at 9.50 each."),
    ]);
    let builder = builder.memory(InMemory::new(10, 100), MemoryWindow::default());
    let task = Task::new("Is item 7 there?").session("s-1");
    let run = workflow("order").id("order-1").run(stage.run(builder, task));
    stage.telemetry.scope(run).await.expect("an answer");
    let by_hand = async {
        let own = step("triage", Phase::Act, "page").tool("page_v1").reason("sure").index(3);
        own.start().end();
        workflows::stock(true).await.expect("17");
        workflows::stock(false).await.expect("16");
        let late = throughline::ToolError::kind(ErrorType::Timeout, "the bank is silent");
        workflow("late").run(async { Err::<u8, _>(late) }).await.expect_err("late");
    };
    stage.telemetry.scope(by_hand).await;
    let names = ["invoke_agent shop", "invoke_workflow order", "execute_tool price_v2"];
    check(&stage.recorder, &names);
    check(&stage.recorder, &["search_memory", "update_memory", "fallback stock"]);
}

#[tokio::test]
async fn a_streamed_answer_a_dropped_one_and_a_sub_agent() {
    let (stage, builder) = stage([
        wants("", &[("c1", "researcher_v1", r#"{"task":"Count item 7"}"#)]),
        says("There are 12."),
        says("There are 13."),
    ]);
    let researcher = Agent::builder("researcher", Traced::new(Scripted::new([says("12")])), "m");
    let researcher = researcher.build().expect("an agent");
    let researcher = researcher.as_tool("researcher_v1", "Finds things out").expect("a tool");
    let tools = ToolRegistry::new().with(researcher).expect("new");
    let agent = builder.tools(tools).build().expect("an agent");
    let events = stage.telemetry.scope(async { agent.stream("Is item 7 there?") }).await;
    events.try_collect::<Vec<_>>().await.expect("an answer");
    let mut events = stage.telemetry.scope(async { agent.stream("And item 8?") }).await;
    events.next().await.expect("an event").expect("an event");
    drop(events);
    let names = ["invoke_agent researcher", "http.stream.segment", "chat m"];
    check(&stage.recorder, &names);
}

#[tokio::test]
async fn providers_that_answer_refuse_and_break_off() {
    recording(|recorder| async move {
        let slow = r#"{"error":{"message":"slow down","code":"rate_limit"}}"#;
        let provider = Provider::start([
            Step::Answer("hello"),
            Step::Refuse(429, &[("retry-after", "0")], slow),
            Step::Refuse(500, &[], ""),
            Step::Answer("hello again"),
            Step::Refuse(401, &[], slow),
            Step::Raw("text/html", "<html>"),
            Step::Answer("hello at last"),
            Step::Answer("in a stream"),
            Step::Cut(&["in", " pieces"]),
        ])
        .await;
        let model = Traced::new(provider.client.clone()).policy(quick());
        let as_shop = Dimensions::new().agent("shop").session("s-1");
        as_shop
            .scope(async {
                for is_answer in [true, true, false, true] {
                    assert_eq!(model.chat(request()).await.is_ok(), is_answer);
                }
                for is_whole in [true, false] {
                    let stream = model.stream(request()).await.expect("a stream");
                    let pieces: Result<Vec<_>, _> = stream.try_collect().await;
                    assert_eq!(pieces.is_ok(), is_whole);
                }
            })
            .await;
        let embeddings = TracedEmbeddings::new(Local::default());
        let wanted = EmbeddingRequest::new("bge-small").encoding_format(EncodingFormat::Float);
        embeddings.embed(wanted.clone().text("a tent").dimensions(2)).await.expect("vectors");
        embeddings.embed(wanted).await.expect_err("nothing to embed");
        check(&recorder, &["chat gpt-4o", "attempt gpt-4o", "http.stream.segment"]);
        check(&recorder, &["embeddings bge-small", "attempt bge-small"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn timeouts_breakers_hedges_and_fallbacks() {
    recording(|recorder| async move {
        let timeouts = TimeoutPolicy { attempt_ms: Some(50), ..TimeoutPolicy::default() };
        let retry = RetryPolicy { max_attempts: 2, ..RetryPolicy::default() };
        let wait = || vec![Cue::Wait(Duration::from_secs(60))];
        let late = Traced::new(Puppet::new([wait(), wait()]));
        let late = late.policy(Policy { timeouts, retry, ..quick() });
        late.chat(request()).await.expect_err("late");
        let fallback = workflows::models(ErrorType::InvalidResponse, Err(ErrorType::Server));
        fallback.chat(request()).await.expect("an answer");
        let breaker =
            Resilience::breaker(BreakerPolicy { min_attempts: 1, ..BreakerPolicy::default() });
        let outer = throughline::span("order.act.stock").attribute("shop.item", 7).start();
        let work = async {
            for _ in 0..2 {
                let broken = |_: usize| async { Err::<(), _>("no".to_owned()) };
                let kind = |_: &String| ErrorType::Connection;
                let _ = breaker.run_with("broken", kind, |_| broken(0)).await;
            }
        };
        outer.run(work).await;
        check(&recorder, &["chat gpt-4o", "fallback chat", "attempt broken"]);
    })
    .await;
}

#[tokio::test]
async fn tools_of_mcp_servers_programs_and_services() {
    let (recorder, telemetry) = recorded();
    let work = async {
        let (_library, address) = mcp::library().await;
        let registry = ToolRegistry::new();
        let server = McpServer::http(&address).expect("an address").connect().await.expect("up");
        server.sync(&registry).await.expect("synced");
        let page = mcp::call("books_read", &json!({"page": 7}));
        registry.execute(&page).await.expect("told");
        registry.execute(&mcp::call("fail_v3", &json!({}))).await.expect_err("no book");
        McpServer::stdio("/no/such/server").connect().await.expect_err("none");
        let echo = tool_kinds::script("echo 12");
        tool_kinds::ran(echo, json!({})).await.expect("12");
        let failing = tool_kinds::script("echo no shelf >&2; exit 3");
        tool_kinds::ran(failing, json!({})).await.expect_err("3");
        let shop = tool_kinds::shop().await;
        for path in ["/items/{item}", "/busy", "/moved"] {
            let tool = tool_kinds::http(Method::GET, &format!("{shop}{path}"));
            let _ = tool_kinds::ran(tool, json!({"item": 7})).await;
        }
        let down = tool_kinds::http(Method::GET, "http://127.0.0.1:1/");
        tool_kinds::ran(down, json!({})).await.expect_err("down");
    };
    telemetry.scope(work).await;
    let names = ["initialize", "tools/list", "tools/call fail", "GET /items/{item}", "GET /busy"];
    check(&recorder, &names);
}

#[tokio::test]
async fn registries_elsewhere_and_grpc_methods() {
    let (recorder, telemetry) = recorded();
    let work = async {
        let service = ToolService::new(remote_tools::tools());
        let theirs = HttpRegistry::new(&remote_tools::served(service).await).expect("an address");
        let theirs = ObservedRegistry::new(theirs);
        theirs.list().await.expect("up");
        let asked = mcp::call("stock_v2", &json!({"item": 7}));
        theirs.execute(&asked).await.expect("told");
        theirs.execute(&mcp::call("none_v1", &json!({}))).await.expect_err("none");
        let count = |ask: remote_tools::Ask, _: MetadataMap| async move {
            if ask.item == 0 { Err(tonic::Status::not_found("no item 0")) } else { Ok(12) }
        };
        let count = GrpcTool::new("far_v1", "How many", "shop.Stock/Count", count).expect("an id");
        let registry = ToolRegistry::new().with(count).expect("new");
        for item in [7, 0] {
            let _ = registry.execute(&mcp::call("far_v1", &json!({"item": item}))).await;
        }
    };
    telemetry.scope(work).await;
    check(&recorder, &["POST /tools/{id}/call", "shop.Stock/Count", "tool.registry.stock_v2"]);
    let codes = recorder.tree(&["rpc.response.status_code"]);
    assert!(codes.contains("code=OK") && codes.contains("code=NOT_FOUND"), "{codes}");
}

#[tokio::test]
async fn requests_of_others_and_model_calls_among_them() {
    recording(|recorder| async move {
        let provider = Provider::start([
            Step::Answer("17"),
            Step::Refuse(429, &[], r#"{"error":{"message":"slow down"}}"#),
            Step::Answer("17"),
        ])
        .await;
        let agent = existing_agents::agent(provider.base_url());
        let chat = agent.chat();
        chat.create(existing_agents::question()).await.expect("an answer");
        chat.create(existing_agents::question()).await.expect_err("refused");
        let stream = chat.create_stream(existing_agents::question()).await;
        stream.expect("a stream").for_each(|_| async {}).await;

        let embeddings =
            r#"{"model":"e-1","data":[{"embedding":[0.5]}],"usage":{"prompt_tokens":3}}"#;
        let app = Router::new()
            .route("/v1/messages", post(existing_agents::anthropic))
            .route("/v1/embeddings", post(move || async move { embeddings }))
            .route("/stock/{item}", get(|| async { "17" }))
            .route("/broken", get(|| async { StatusCode::BAD_GATEWAY }))
            .layer(server_layer());
        let address = serve(app).await;
        let mut message = ChatRequest::new("claude-sonnet-4-5").user("how many?");
        message.max_tokens = Some(100);
        let form = throughline::llm::WireForm::Messages;
        for (method, path, body) in [
            (Method::POST, "/v1/messages", form.request_to_json(&message).to_string()),
            (Method::POST, "/v1/embeddings", r#"{"model":"e","input":"a"}"#.to_owned()),
            (Method::GET, "/stock/7?key=secret", String::new()),
            (Method::GET, "/nowhere", String::new()),
            (Method::GET, "/broken", String::new()),
            (Method::from_bytes(b"BREW").expect("a method"), "/stock/7", String::new()),
        ] {
            let asked = client().request(method, format!("http://{address}{path}")).body(body);
            asked.send_traced().await.expect("an answer").bytes().await.expect("a body");
        }
        let refused = client().get("http://127.0.0.1:1/").send_traced().await;
        refused.expect_err("nobody is there");

        let mut asked = http::Request::new(axum::body::Body::empty());
        *asked.uri_mut() = "https://shop.example/stock/7".parse().expect("an address");
        asked.extensions_mut().insert(UrlTemplate("/stock/{item}".into()));
        let down = tower::service_fn(|_: http::Request<axum::body::Body>| async {
            Err::<http::Response<axum::body::Body>, _>(std::io::Error::other("no route"))
        });
        let down = TraceClientLayer::new().layer(down).call(asked).await;
        down.map(drop).expect_err("no answer");
        let names = ["chat gpt-4o", "chat claude-sonnet-4-5", "embeddings e", "HTTP"];
        check(&recorder, &names);
        check(&recorder, &["GET /stock/{item}", "GET /broken", "GET"]);
    })
    .await;
}

#[tokio::test]
async fn agents_as_services_and_who_asks_them() {
    let (recorder, telemetry) = recorded();
    let work = async {
        let script = (0..3).map(|_| says("There are 12."));
        let server = serve_agent(served::shop(Scripted::new(script))).start().await;
        let server = server.expect("a server");
        let url = format!("http://{}", server.address());
        let task = || Task::new("Is item 7 there?").session("s-1");
        RemoteAgent::http(&url, "shop").expect("one").run(task()).await.expect("an answer");
        RemoteAgent::grpc(&url, "shop").expect("one").run(task()).await.expect("an answer");
        RemoteAgent::http("http://127.0.0.1:9", "shop")
            .expect("one")
            .run(task())
            .await
            .expect_err("nobody is there");
        let asked = served::client().post(format!("{url}/v1/agents/shop/run"));
        let asked = asked.json(&json!({"task": "Count", "background": true}));
        assert!(asked.send().await.expect("an answer").status().is_success());
    };
    telemetry.scope(work).await;
    check(&recorder, &["invoke_agent shop"]);
    let kinds: Vec<_> = recorder
        .spans()
        .iter()
        .filter(|span| span.name == "invoke_agent shop")
        .map(|span| span.span_kind.clone())
        .collect();
    assert!(kinds.contains(&SpanKind::Client) && kinds.contains(&SpanKind::Server), "{kinds:?}");
}

/// Exports the metrics of agents, tools, streams, workflows and breakers, and checks them.
async fn check_metrics(is_latest: bool, names: &[table::Instrument]) {
    let (address, received) = receiver::start();
    let telemetry = Telemetry::builder()
        .environment(false)
        .service_name("shop")
        .endpoint(format!("http://{address}"))
        .protocol(OtlpProtocol::HttpProtobuf)
        .session_on_metrics(true)
        .latest_gen_ai_names(is_latest)
        .build()
        .expect("telemetry");
    let provider = Provider::start([Step::Answer("in a stream")]).await;
    let work = async {
        let model = Scripted::new([
            wants("", &[("c1", "stock_v1", r#"{"item":7}"#), ("c2", "none_v1", "{}")]),
            says("There are 12."),
            Err(ChatError::new(ErrorType::Auth, "the key is refused")),
        ]);
        let agent = Agent::builder("shop", Traced::new(model), "gpt-4o").tools(tools()).build();
        let agent = agent.expect("an agent");
        let task = Task::new("How many?").session("s-1").workflow("w-1");
        workflow("order").run(agent.run(task)).await.expect("an answer");
        agent.run("And now?").await.expect_err("refused");
        let stream = Traced::new(provider.client.clone()).stream(request()).await;
        stream.expect("a stream").try_collect::<Vec<_>>().await.expect("an answer");
        let embedded = EmbeddingRequest::new("bge-small").text("a tent").dimensions(2);
        let embedded = TracedEmbeddings::new(Local::default()).embed(embedded).await;
        embedded.expect("vectors");
        let breaker =
            Resilience::breaker(BreakerPolicy { min_attempts: 1, ..BreakerPolicy::default() });
        let kind = |_: &String| ErrorType::Connection;
        let broken = breaker.run_with("broken", kind, |_| async { Err::<(), _>("no".to_owned()) });
        broken.await.expect_err("broken");
    };
    telemetry.scope(work).await;
    telemetry.shutdown().expect("nothing is lost");
    let metrics = received.kept_metrics();
    assert_eq!(instruments::problems(&metrics), Vec::<String>::new());
    for (name, ..) in table::INSTRUMENTS.iter().chain(names) {
        assert!(metrics.iter().any(|metric| metric.name == *name), "{name} never came");
    }
}

#[tokio::test]
async fn every_instrument_has_its_unit_bounds_and_labels() {
    check_metrics(false, table::ESTABLISHED).await;
}

#[tokio::test]
async fn every_instrument_has_them_under_the_latest_names_too() {
    check_metrics(true, table::LATEST).await;
}

/// What the user sets is theirs: keys that nobody knows are found only where nobody named them.
#[test]
fn a_key_of_nobody_is_found_in_what_the_sdk_made() {
    let (recorder, telemetry) = recorded();
    {
        let _in = telemetry.enter();
        throughline::span("work").attributes([KeyValue::new("shop.shelf", 1)]).start().end();
    }
    assert_eq!(rules::problems(&recorder.spans(), &[]), ["work: nobody knows shop.shelf"]);
}
