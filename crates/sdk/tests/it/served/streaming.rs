//! The client of a run's events, and what the run's span tells of its request.

use futures_util::StreamExt as _;
use throughline::{ChatError, ErrorType, RemoteEvent, RemoteStream};

use super::*;

/// The remote agent of a server, over both ways.
fn both(server: &AgentServer) -> [RemoteAgent; 2] {
    let url = format!("http://{}", server.address());
    [RemoteAgent::http(&url, "shop"), RemoteAgent::grpc(&url, "shop")]
        .map(|remote| remote.expect("an agent"))
}

/// Each event as a line.
async fn lines(mut events: RemoteStream) -> String {
    let mut lines = String::new();
    while let Some(event) = events.next().await {
        let line = match event {
            Ok(RemoteEvent::StepStarted { phase, domain, index }) => {
                format!("step {index} {phase} {domain}")
            }
            Ok(RemoteEvent::Text(more)) => format!("text {more:?}"),
            Ok(RemoteEvent::Done(run)) => {
                format!(
                    "done {:?} {} {}",
                    run.answer,
                    run.outcome.as_str(),
                    run.usage.total_tokens()
                )
            }
            Ok(other) => format!("{other:?}"),
            Err(error) => format!("error {} {}", error.error_type, error.outcome.as_str()),
        };
        lines.push_str(&line);
        lines.push('\n');
    }
    assert!(events.next().await.is_none(), "it is over");
    lines
}

#[tokio::test]
async fn r1_1_a_run_elsewhere_is_told_as_it_happens() {
    let stage = stage();
    let model = Scripted::new([says("There are 12."), says("There are 12.")]);
    let server = stage.serve(serve_agent(shop(model))).await;
    for remote in both(&server) {
        stage.recorder.clear();
        let told = stage.telemetry.scope(async { lines(remote.stream("How many?")).await }).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(told, @r#"
            step 0 plan task
            text "There "
            text "are "
            text "12."
            step 1 reflect answer
            done "There are 12." ok 14
            "#);
            insta::assert_snapshot!(stage.recorder.tree(&["outcome"]), @r"
            invoke_agent shop outcome=ok
              invoke_agent shop outcome=ok
                shop.plan.answer
                  chat gpt-4o outcome=ok
                    http.stream.init
                    http.stream.segment
                shop.reflect.answer
            ");
        }
    }
}

#[tokio::test]
async fn a_run_elsewhere_that_fails_ends_its_events_with_the_error_and_its_kind() {
    let stage = stage();
    let late = ChatError::new(ErrorType::Timeout, "no answer");
    let model = Scripted::new(std::iter::repeat_n(Err(late), 6));
    let server = stage.serve(serve_agent(shop(model))).await;
    for remote in both(&server) {
        stage.recorder.clear();
        let told = stage.telemetry.scope(async { lines(remote.stream("How many?")).await }).await;
        assert!(told.ends_with("error TIMEOUT model_timeout\n"), "{told}");
        let tree = stage.recorder.tree(&["outcome"]);
        assert!(
            tree.starts_with("invoke_agent shop outcome=model_timeout ERROR(TIMEOUT)"),
            "{tree}"
        );
    }
    let nobody = [
        RemoteAgent::http("http://127.0.0.1:9", "x"),
        RemoteAgent::grpc("http://127.0.0.1:9", "x"),
    ];
    for remote in nobody.map(|remote| remote.expect("an agent")) {
        let told = stage.telemetry.scope(async { lines(remote.stream("Hello")).await }).await;
        assert_eq!(told, "error CONNECTION error\n");
    }
}

#[tokio::test]
async fn events_that_nobody_reads_on_cancel_the_call() {
    let stage = stage();
    let model = Scripted::new([says("There are 12."), says("There are 12.")]);
    let server = stage.serve(serve_agent(shop(model))).await;
    for remote in both(&server) {
        let first = async {
            let mut events = remote.stream("How many?");
            events.next().await.expect("an event").expect("an event");
        };
        stage.telemetry.scope(first).await;
        // One that was never read is told too.
        stage.telemetry.scope(async { drop(remote.stream("How many?")) }).await;
    }
    drop(server);
    let spans = stage.recorder.spans();
    let calls = spans.iter().filter(|span| span.span_kind == throughline::SpanKind::Client);
    let calls = calls.filter(|span| span.name == "invoke_agent shop");
    let outcomes: Vec<String> = calls
        .filter_map(|span| span.attributes.iter().find(|entry| entry.key.as_str() == "outcome"))
        .map(|entry| entry.value.to_string())
        .collect();
    assert_eq!(outcomes, ["cancelled"; 4]);
}

#[tokio::test]
async fn events_without_an_end_are_late_or_broken() {
    let stage = stage();
    let step = "event: step\ndata: {\"phase\":\"plan\",\"domain\":\"task\",\"index\":0}\n\n";
    let answer = move |is_endless: bool| async move {
        let first = futures_util::stream::once(async move { Ok::<_, std::io::Error>(step) });
        let body = match is_endless {
            true => axum::body::Body::from_stream(first.chain(futures_util::stream::pending())),
            false => axum::body::Body::from_stream(first),
        };
        ([("content-type", "text/event-stream")], body)
    };
    let app = axum::Router::new()
        .route("/v1/agents/endless/run", axum::routing::post(move || answer(true)))
        .route("/v1/agents/cut/run", axum::routing::post(move || answer(false)))
        .route("/v1/agents/page/run", axum::routing::post(|| async { "hello" }));
    let address = crate::chain::serve(app).await;
    for (name, end) in [
        ("endless", "step 0 plan task\nerror TIMEOUT timeout\n"),
        ("cut", "step 0 plan task\nerror STREAM_FAILED error\n"),
        ("page", "error INVALID_RESPONSE error\n"),
    ] {
        let remote = RemoteAgent::http(&format!("http://{address}"), name).expect("an agent");
        let remote = remote.with_timeout(std::time::Duration::from_millis(300));
        let told = stage.telemetry.scope(async { lines(remote.stream("How many?")).await }).await;
        assert_eq!(told, end, "{name}");
    }
}

#[tokio::test]
async fn r2_2_the_span_of_a_run_tells_its_request() {
    let stage = stage();
    let late = ChatError::new(ErrorType::Timeout, "no answer");
    let answers = (0..4).map(|_| says("There are 12."));
    let model = Scripted::new(answers.chain(std::iter::repeat_n(Err(late), 6)));
    let server = stage.serve(serve_agent(shop(model))).await;
    for remote in both(&server) {
        remote.run("How many?").await.expect("an answer");
        assert!(lines(remote.stream("How many?")).await.contains("done"));
    }
    for remote in both(&server) {
        remote.run("How many?").await.expect_err("no answer");
    }
    let keys = [
        "http.request.method",
        "url.path",
        "http.route",
        "http.response.status_code",
        "rpc.system.name",
        "rpc.method",
        "rpc.response.status_code",
        "outcome",
    ];
    let tree = stage.recorder.tree(&keys);
    let runs: Vec<&str> = tree.lines().filter(|line| line.contains("invoke_agent")).collect();
    insta::assert_snapshot!(runs.join("\n"), @r"
    invoke_agent shop http.request.method=POST url.path=/v1/agents/shop/run http.route=/v1/agents/{name}/run http.response.status_code=200 outcome=ok
    invoke_agent shop http.request.method=POST url.path=/v1/agents/shop/run http.route=/v1/agents/{name}/run http.response.status_code=200 outcome=ok
    invoke_agent shop rpc.system.name=grpc rpc.method=throughline.agent.v1.Agent/Run rpc.response.status_code=OK outcome=ok
    invoke_agent shop rpc.system.name=grpc rpc.method=throughline.agent.v1.Agent/RunStream rpc.response.status_code=OK outcome=ok
    invoke_agent shop http.request.method=POST url.path=/v1/agents/shop/run http.route=/v1/agents/{name}/run http.response.status_code=504 outcome=model_timeout ERROR(TIMEOUT)
    invoke_agent shop rpc.system.name=grpc rpc.method=throughline.agent.v1.Agent/Run rpc.response.status_code=DEADLINE_EXCEEDED outcome=model_timeout ERROR(TIMEOUT)
    ");
}

#[tokio::test]
async fn r2_2_the_grpc_way_reads_grpc_trace_bin() {
    let stage = stage();
    let server = stage.serve(serve_agent(shop(Scripted::new([says("There are 12.")])))).await;
    let answered = super::grpc::run_with(&server, |metadata| {
        let mut headers = axum::http::HeaderMap::new();
        headers.insert("traceparent", TRACEPARENT.parse().expect("ascii"));
        let cx = throughline::propagation::extract(&headers);
        throughline::propagation::inject_trace_bin(&cx, metadata);
    });
    assert_eq!(answered.await, "4bf92f3577b34da6a3ce929d0e0e4736");
}
