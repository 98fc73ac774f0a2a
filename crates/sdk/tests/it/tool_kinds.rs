//! Tools that run elsewhere: programs and HTTP services, on the caller's trace and with their view of
//! its context (R2.2, R2.3, R4.1).

use std::time::{Duration, Instant};

use axum::extract::Path;
use axum::routing::{get, post};
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};
use throughline::llm::ToolCall;
use throughline::{
    ContextBag, Dimensions, ErrorType, Fault as _, HttpTool, Need, SUBPROCESS_STDOUT_MAX_BYTES,
    SourceLayer, SubprocessTool, Tool, ToolError, ToolRegistry, keys,
};

use crate::provider::recorded;

/// How long a test waits for a program to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(10);

pub(crate) fn call(name: &str, arguments: &Value) -> ToolCall {
    ToolCall { id: String::new(), name: name.to_owned(), arguments: arguments.to_string() }
}

fn filled() -> ContextBag {
    let bag = ContextBag::new();
    bag.set_session("s-1");
    bag.set(SourceLayer::Caller, "user_timezone", "Europe/Vienna").expect("set");
    bag.set(SourceLayer::Session, "consent_flag", "s3cret").expect("set");
    bag
}

/// A program that is a shell script.
pub(crate) fn script(text: &str) -> SubprocessTool {
    SubprocessTool::new("script_v1", "Runs", "sh").expect("an id").arg("-c").arg(text).arg("--")
}

pub(crate) async fn ran(tool: impl Tool + 'static, arguments: Value) -> Result<Value, ToolError> {
    let name = tool.id().to_string();
    let registry = ToolRegistry::new().with(tool).expect("new");
    registry.execute(&call(&name, &arguments)).await
}

/// R4.1: arguments on the command line and on standard input, JSON or text back.
#[tokio::test]
async fn r4_1_a_program_gets_its_arguments_and_answers() {
    let echo = script(r#"printf '{"line": "%s", "input": %s}' "$1" "$(cat)""#)
        .arg_of("{word}")
        .and_then(|tool| tool.arg_of("{left_out}"))
        .expect("templates")
        .parameters(json!({"type": "object"}));
    let told = ran(echo, json!({"word": "-a b;$(c)"})).await;
    assert_eq!(told, Ok(json!({"line": "-a b;$(c)", "input": {"word": "-a b;$(c)"}})));
    let text = script("echo twelve").answering_text();
    assert_eq!(ran(text, json!({})).await, Ok(json!("twelve\n")));
}

/// R4.1: a failure tells its exit code and the end of what the program complained of.
#[tokio::test]
async fn r4_1_a_program_that_fails_tells_why() {
    let (recorder, telemetry) = recorded();
    let failing = script("echo no shelf >&2; exit 3");
    let error = telemetry.scope(ran(failing, json!({}))).await.expect_err("3");
    assert_eq!(error.to_string(), "expected sh to succeed, got exit status: 3: no shelf");
    assert_eq!(error.error_type(), ErrorType::ToolFailed);
    assert!(recorder.tree(&[keys::ERROR_CODE]).contains("throughline.error.code=exit 3"));
    let no_json = ran(script("echo twelve"), json!({})).await.expect_err("no JSON");
    assert_eq!(no_json.error_type(), ErrorType::InvalidResponse);
    let nowhere = SubprocessTool::new("no_v1", "No", "/no/such/program").expect("an id");
    assert_eq!(
        ran(nowhere, json!({})).await.expect_err("none").error_type(),
        ErrorType::ToolFailed
    );
}

/// R4.1: a model cannot make an option of an argument.
#[tokio::test]
async fn r4_1_an_argument_is_no_option() {
    let tool = SubprocessTool::new("list_v1", "Lists", "ls").expect("an id").arg_of("{path}");
    let tool = tool.expect("a template").parameters(json!({"type": "object"}));
    let error = ran(tool, json!({"path": "--help"})).await.expect_err("an option");
    assert_eq!(error.error_type(), ErrorType::InvalidArguments);
    assert!(error.to_string().contains("at /path: expected a value that does not begin with '-'"));
}

/// R2.2 and R2.3: the trace and the tool's view of the context are in the environment.
#[tokio::test]
async fn r2_2_a_program_has_the_trace_and_its_context_in_its_environment() {
    let (recorder, telemetry) = recorded();
    let tell = script(
        r#"printf '{"parent": "%s", "context": %s, "own": "%s"}' "$TRACEPARENT" "$THROUGHLINE_CONTEXT" "$OWN""#,
    )
    .with_needs([Need::of("user_timezone")])
    .clear_environment()
    .env("OWN", "value");
    let work = async { filled().scope(ran(tell, json!({}))).await };
    let told = telemetry.scope(work).await.expect("told");
    let spans = recorder.spans();
    let span = spans.iter().find(|span| span.name == "execute_tool script_v1").expect("a span");
    let (trace, id) = (span.span_context.trace_id(), span.span_context.span_id());
    assert_eq!(told["parent"], format!("00-{trace}-{id}-01"));
    assert_eq!(told["own"], "value");
    let bag = ContextBag::from_json(&told["context"].to_string()).expect("a bag");
    assert_eq!(bag.fields(), ["user_timezone"]);
    assert_eq!(bag.session_id().as_deref(), Some("s-1"));
    assert_eq!(bag.trace_id().map(|id| id.to_string()), Some(trace.to_string()));
    assert!(!told.to_string().contains("s3cret"));
}

/// Waits until a process is gone, by its id in a file.
async fn is_gone(file: &std::path::Path) {
    let end = Instant::now() + GONE_WITHIN;
    loop {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if let Ok(id) = text.trim().parse::<u32>() {
            // A killed process that nobody has waited for is a zombie: gone for our purpose.
            let state = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            let state = state.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
            if matches!(state, None | Some(Some('Z'))) {
                return;
            }
        }
        assert!(Instant::now() < end, "the program is still there: {text}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// R4.1: what runs out of time is killed, with all that it started; so is what is given up.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn r4_1_a_program_out_of_time_is_killed_with_its_children() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("child");
    let text = format!("sleep 600 & echo $! > '{}'; wait", file.display());
    let error = ran(script(&text).with_timeout(Duration::from_millis(300)), json!({})).await;
    assert_eq!(error.expect_err("late").error_type(), ErrorType::Timeout);
    is_gone(&file).await;

    std::fs::remove_file(&file).expect("the file");
    let tool = script(&text);
    let given_up = tokio::time::timeout(Duration::from_millis(300), tool.call(json!({})));
    assert!(given_up.await.is_err());
    is_gone(&file).await;

    // A program that ends leaves nothing behind that holds its output.
    std::fs::remove_file(&file).expect("the file");
    let text = format!("sleep 600 & echo $! > '{}'; echo 12", file.display());
    assert_eq!(ran(script(&text), json!({})).await, Ok(json!(12)));
    is_gone(&file).await;
}

/// R4.1: output without end is cut short.
#[tokio::test]
async fn r4_1_a_program_that_writes_too_much_is_stopped() {
    let error = ran(script("yes").answering_text(), json!({})).await.expect_err("too much");
    assert_eq!(error.error_type(), ErrorType::InvalidResponse);
    assert!(error.to_string().contains(&SUBPROCESS_STDOUT_MAX_BYTES.to_string()), "{error}");
}

/// A shop that tells what it was asked.
pub(crate) async fn shop() -> String {
    let told = |headers: &HeaderMap| {
        let bag = ContextBag::from_headers(headers).expect("a bag");
        json!({
            "parent": headers.get("traceparent").and_then(|value| value.to_str().ok()),
            "baggage": headers.get("baggage").and_then(|value| value.to_str().ok()),
            "key": headers.get("x-key").and_then(|value| value.to_str().ok()),
            "fields": bag.map(|bag| bag.fields()),
        })
    };
    let app = axum::Router::new()
        .route(
            "/items/{item}",
            get(async move |Path(item): Path<String>, uri: http::Uri, headers: HeaderMap| {
                let mut told = told(&headers);
                told["item"] = item.into();
                told["query"] = uri.query().into();
                axum::Json(told)
            }),
        )
        .route("/orders", post(async |body: axum::Json<Value>| axum::Json(json!({"got": body.0}))))
        .route("/busy", get(async || (StatusCode::TOO_MANY_REQUESTS, "later, please")))
        .route("/moved", get(async || (StatusCode::FOUND, [("location", "/orders")])))
        .route("/text", get(async || "twelve"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

pub(crate) fn http(method: Method, address: &str) -> HttpTool {
    let tool = HttpTool::new("shop_v1", "Asks the shop", method, address).expect("a tool");
    tool.parameters(json!({"type": "object"})).header("x-key", "s3cret-key").expect("a header")
}

/// R2.2, R2.3, R4.1: the service continues the trace and is told what the tool declared.
#[tokio::test]
async fn r4_1_an_http_service_is_asked_on_the_callers_trace() {
    let (recorder, telemetry) = recorded();
    let tool = http(Method::GET, &format!("{}/items/{{item}}", shop().await))
        .with_needs([Need::of("user_timezone")]);
    let asked = json!({"item": "a/b", "shelf": 3, "no": null});
    let work = async {
        let work = async { filled().scope(ran(tool, asked)).await };
        Dimensions::new().session("s-1").scope(work).await
    };
    let told = telemetry.scope(work).await.expect("told");
    let spans = recorder.spans();
    let span = spans.iter().find(|span| span.name == "GET /items/{item}").expect("a span");
    let (trace, id) = (span.span_context.trace_id(), span.span_context.span_id());
    assert_eq!(
        told,
        json!({
            "parent": format!("00-{trace}-{id}-01"), "baggage": "session_id=s-1",
            "key": "s3cret-key", "fields": ["user_timezone"], "item": "a/b", "query": "shelf=3",
        })
    );
    let shown = [keys::GEN_AI_TOOL_TYPE, keys::URL_TEMPLATE, keys::HTTP_RESPONSE_STATUS_CODE];
    insta::assert_snapshot!(recorder.tree(&shown), @r"
    tool.registry.shop_v1
    tool.registry.shop_v1
    execute_tool shop_v1 gen_ai.tool.type=extension
      GET /items/{item} url.template=/items/{item} http.response.status_code=200
    ");
}

#[tokio::test]
async fn r4_1_an_http_service_of_others_is_told_the_trace_alone() {
    let address = format!("{}/items/{{item}}", shop().await);
    let (_recorder, telemetry) = recorded();
    let tool = http(Method::GET, &address).third_party().with_needs([Need::of("user_timezone")]);
    let work = async { filled().scope(ran(tool, json!({"item": 7}))).await };
    let told = telemetry.scope(work).await.expect("told");
    assert_eq!((&told["baggage"], &told["fields"]), (&Value::Null, &Value::Null));
    assert!(told["parent"].is_string());
}

#[tokio::test]
async fn r4_1_the_status_of_an_http_service_says_what_went_wrong() {
    let shop = shop().await;
    let (recorder, telemetry) = recorded();
    let to = |method, path: &str| http(method, &format!("{shop}{path}"));
    let work = async {
        let busy = ran(to(Method::GET, "/busy"), json!({})).await.expect_err("busy");
        assert_eq!((busy.error_type(), busy.code()), (ErrorType::RateLimited, Some("429")));
        assert_eq!(
            busy.to_string(),
            "expected shop_v1 to answer, got 429 Too Many Requests: later, please"
        );
        let moved = ran(to(Method::GET, "/moved"), json!({})).await.expect_err("moved");
        assert_eq!((moved.error_type(), moved.code()), (ErrorType::InvalidResponse, Some("302")));
        let text = ran(to(Method::GET, "/text"), json!({})).await.expect_err("no JSON");
        assert_eq!(text.error_type(), ErrorType::InvalidResponse);
        let text = ran(to(Method::GET, "/text").answering_text(), json!({})).await;
        assert_eq!(text, Ok(json!("twelve")));
        let order = ran(to(Method::POST, "/orders"), json!({"item": 7})).await;
        assert_eq!(order, Ok(json!({"got": {"item": 7}})));
        let down = http(Method::GET, "http://127.0.0.1:1/");
        let down = ran(down, json!({})).await.expect_err("down");
        assert_eq!(down.error_type(), ErrorType::Connection);
    };
    telemetry.scope(work).await;
    assert!(!format!("{:?}", recorder.spans()).contains("s3cret-key"));
}
