//! What tools are told of their caller (requirement R2.3), and the arguments that they are given.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use throughline::{
    BagError, ContextBag, Dimensions, ErrorType, Fault as _, Json, Need, Recorder, SourceLayer,
    Telemetry, ToolError, ToolRegistry, tool,
};
use throughline_llm::ToolCall;

#[derive(Deserialize, JsonSchema)]
struct Nothing {}

fn call(name: &str) -> ToolCall {
    ToolCall { id: String::new(), name: name.to_owned(), arguments: String::new() }
}

/// A tool that answers with what it sees of its caller.
fn seen(id: &str, needs: &[Need]) -> impl throughline::Tool + use<> {
    tool(id, "Tells what it sees", |_: Nothing| async {
        let bag = ContextBag::current();
        Json(json!({
            "session": bag.session_id().map(|id| id.to_string()),
            "trace": bag.trace_id().map(|id| id.to_string()),
            "fields": bag.fields(),
            "intent": bag.get("intent"),
        }))
    })
    .expect("an id")
    .with_needs(needs.to_vec())
}

fn filled(session: &str) -> ContextBag {
    let bag = ContextBag::new();
    bag.set_session(session);
    bag.set(SourceLayer::Caller, "user_timezone", "Europe/Vienna").expect("set");
    bag.set(SourceLayer::Session, "consent_flag", "s3cret").expect("set");
    bag.set_turn("order", json!({"item": "s3cret"})).expect("set");
    bag
}

/// R2.3: session, trace and what the tool declared, nothing else.
#[tokio::test]
async fn r2_3_a_tool_sees_its_view_of_the_bag_and_nothing_else() {
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).build().expect("telemetry");
    let registry = ToolRegistry::new()
        .with(seen("none_v1", &[]))
        .and_then(|all| all.with(seen("zone_v1", &[Need::of("user_timezone")])))
        .expect("new");
    let work = async {
        let none = registry.execute(&call("none_v1")).await.expect("none");
        assert_eq!((&none["session"], &none["fields"]), (&json!("s-1"), &json!([])));
        let zone = registry.execute(&call("zone_v1")).await.expect("zone");
        assert_eq!(zone["fields"], json!(["user_timezone"]));
        zone["trace"].clone()
    };
    let trace = telemetry.scope(async { filled("s-1").scope(work).await }).await;
    let ran = recorder.spans().into_iter().find(|span| span.name == "execute_tool zone_v1");
    assert_eq!(trace, ran.expect("a span").span_context.trace_id().to_string());
}

/// R2.3: an error before the tool starts, which says what is missing and has no secret.
#[tokio::test]
async fn r2_3_a_tool_without_what_it_needs_does_not_start() {
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).build().expect("telemetry");
    let never = |id: &str, field: &'static str| {
        tool(id, "Never starts", |_: Nothing| async { panic!("it started") as Json<u8> })
            .expect("an id")
            .with_needs([Need::of(field)])
    };
    let registry = ToolRegistry::new()
        .with(never("zone_v1", "user_timezone"))
        .and_then(|all| all.with(never("consent_v1", "consent_flag")))
        .expect("new");
    let work = async {
        let error = registry.execute(&call("zone_v1")).await.expect_err("no bag");
        assert_eq!(error.error_type(), ErrorType::InvalidArguments);
        assert_eq!(
            error.to_string(),
            "zone_v1 was not started: expected the context field user_timezone for zone_v1, got none; set it on the ContextBag before the tool is called"
        );
        let refused = filled("s-1").scope(registry.execute(&call("consent_v1"))).await;
        let error = refused.expect_err("not authorised");
        assert!(matches!(&error, ToolError::Context { error: BagError::NotAuthorised { .. }, .. }));
        assert_eq!(error.error_type(), ErrorType::PolicyRejected);
    };
    telemetry.scope(work).await;
    insta::assert_snapshot!(recorder.tree(&["error.type"]), @r"
    tool.registry.zone_v1
    execute_tool zone_v1 error.type=INVALID_ARGUMENTS ERROR(zone_v1 was not started: expected the context field user_timezone for zone_v1, got none; set it on the ContextBag before the tool is called)
    tool.registry.consent_v1
    execute_tool consent_v1 error.type=POLICY_REJECTED ERROR(consent_v1 was not started: expected consent_flag to be authorised before consent_v1 is given it; call ContextBag::authorise)
    ");
    let rejected = recorder.spans().into_iter().flat_map(|span| span.events.events);
    assert_eq!(rejected.filter(|event| event.name == "context.rejected").count(), 2);
    assert!(!format!("{:?}", recorder.spans()).contains("s3cret"));
}

/// R2.3: an authorisation is a decision on the trace.
#[tokio::test]
async fn r2_3_an_authorisation_is_recorded_as_a_decision() {
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).build().expect("telemetry");
    let registry =
        ToolRegistry::new().with(seen("consent_v1", &[Need::of("consent_flag")])).expect("new");
    let work = async {
        ContextBag::current()
            .authorise("consent_flag", "the user", "ticked the box")
            .expect("a field");
        let given = registry.execute(&call("consent_v1")).await.expect("authorised");
        assert_eq!(given["fields"], json!(["consent_flag"]));
    };
    telemetry.scope(async { filled("s-1").scope(work).await }).await;
    telemetry.flush();
    let logs = recorder.log_text(&["stage", "decision.action", "decision.reason"]);
    assert!(
        logs.contains("stage=authorise decision.action=give consent_flag to tools decision.reason=the user: ticked the box"),
        "{logs}"
    );
    assert!(!logs.contains("s3cret"), "{logs}");
}

/// R2.3: what passes through goes on from a tool to the tools that it calls, the rest does not.
#[tokio::test]
async fn r2_3_a_tool_within_a_tool_is_given_only_what_passes_through() {
    let inner = ToolRegistry::new()
        .with(seen("zone_v1", &[Need::of("user_timezone")]))
        .and_then(|all| all.with(seen("intent_v1", &[Need::of("intent")])))
        .expect("new");
    let outer = tool("outer_v1", "Calls others", move |_: Nothing| {
        let inner = inner.clone();
        async move {
            let zone = inner.execute(&call("zone_v1")).await?;
            let error = inner.execute(&call("intent_v1")).await.expect_err("one hop");
            Ok::<_, ToolError>(json!([zone["fields"], error.to_string()]))
        }
    });
    let outer = outer.expect("id").with_needs([Need::of("user_timezone"), Need::of("intent")]);
    let registry = ToolRegistry::new().with(outer).expect("new");
    let told = filled("s-1").scope(registry.execute(&call("outer_v1"))).await.expect("told");
    assert_eq!(told[0], json!(["user_timezone"]));
    assert!(told[1].as_str().is_some_and(|text| text.contains("does not pass through")), "{told}");
}

/// R2.3: many sessions at once on few threads never see each other's fields.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn r2_3_sessions_at_once_never_mix() {
    let registry = ToolRegistry::new().with(seen("seen_v1", &[Need::of("intent")])).expect("new");
    let sessions = (0..500).map(|n| {
        let registry = registry.clone();
        let work = async move {
            for turn in 0..4 {
                let intent = format!("intent {n}.{turn}");
                ContextBag::current().set_turn(&intent, json!({})).expect("set");
                tokio::task::yield_now().await;
                let seen = registry.execute(&call("seen_v1")).await.expect("seen");
                assert_eq!(seen["intent"], intent);
                assert_eq!(seen["session"], format!("s-{n}"));
            }
        };
        let session = Dimensions::new().session(format!("s-{n}"));
        tokio::spawn(session.scope(async { ContextBag::new().scope(work).await }))
    });
    for session in sessions.collect::<Vec<_>>() {
        session.await.expect("no mix");
    }
    assert_eq!(ContextBag::current().fields(), [""; 0]);
}

/// R2.3: what a tool's database client makes with the OpenTelemetry API joins the trace.
#[tokio::test]
async fn r2_3_a_tools_database_spans_join_the_trace() {
    use opentelemetry::trace::Tracer as _;

    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).build().expect("telemetry");
    let stock = tool("stock_v1", "How many", |_: Nothing| async {
        let tracer = throughline::SdkTracer;
        drop(tracer.span_builder("SELECT stock").start(&tracer));
        Json(12)
    });
    let registry = ToolRegistry::new().with(stock.expect("id")).expect("new");
    let asked = call("stock_v1");
    let work = async { filled("s-1").scope(registry.execute(&asked)).await };
    telemetry.scope(work).await.expect("12");
    insta::assert_snapshot!(recorder.tree(&[]), @r"
    tool.registry.stock_v1
    execute_tool stock_v1
      SELECT stock
    ");
}
