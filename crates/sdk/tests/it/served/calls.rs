//! What a caller says of a call: its budget, its token, its key.

use std::sync::Arc;
use std::time::Duration;

use throughline::{Budget, CancellationToken, ErrorType, Json, RemoteError, ToolRegistry, tool};
use tokio::sync::Notify;

use super::*;
use crate::agent::wants;

fn both(server: &AgentServer) -> [RemoteAgent; 2] {
    let url = format!("http://{}", server.address());
    [RemoteAgent::http(&url, "shop"), RemoteAgent::grpc(&url, "shop")]
        .map(|remote| remote.expect("an agent"))
}

/// The last that a stream tells.
async fn end_of(mut stream: throughline::RemoteStream) -> Option<Result<(), RemoteError>> {
    use futures_util::StreamExt as _;
    let mut last = None;
    while let Some(event) = stream.next().await {
        last = Some(event.map(drop));
    }
    last
}

#[tokio::test]
async fn the_budget_of_a_task_goes_along() {
    let stage = stage();
    let call = || wants("again", &[("c", "none_v1", "{}")]);
    let model = Scripted::new((0..20).map(|_| call()));
    let agent = Agent::builder("shop", model, "gpt-4o").tools(ToolRegistry::new());
    let agent = agent.budget(Budget::none().tool_calls(9)).build().expect("an agent");
    let server = stage.serve(serve_agent(agent)).await;
    let task = || Task::new("Loop").budget(Budget::none().tool_calls(1));
    let told = "expected shop to need at most 1 of its tool calls, got 2; allow more or give the agent less to do";
    for remote in both(&server) {
        let error = remote.run(task()).await.expect_err("one call is allowed");
        assert_eq!((error.error_type, error.message.as_str()), (ErrorType::PolicyRejected, told));
        let error = end_of(remote.stream(task())).await.expect("an end").expect_err("one call");
        assert_eq!(error.message, told);
    }
    let more = Task::new("Loop").budget(Budget::none().tool_calls(99).tokens(30));
    let error = both(&server)[0].run(more).await.expect_err("30 tokens are allowed");
    assert!(error.message.contains("at most 30 of its tokens"), "{error}");
}

#[tokio::test]
async fn the_time_of_a_task_is_waited_for_at_most() {
    let stage = stage();
    let server = stage.serve(serve_agent(shop(Scripted::new([])))).await;
    let task = || Task::new("Wait").budget(Budget::none().time(Duration::from_millis(30)));
    for remote in both(&server) {
        let error = remote.run(task()).await.expect_err("it waits");
        assert_eq!(error.error_type, ErrorType::Timeout);
        assert_eq!(error.message, "expected shop to answer within 0.03 s, got nothing");
    }
}

/// An agent whose only tool never answers, and what tells that it was asked to.
pub(super) fn waiting() -> (Agent, Arc<Notify>) {
    let begun = Arc::new(Notify::new());
    let told = Arc::clone(&begun);
    let wait = tool("wait_v1", "Waits", move |_: ()| {
        told.notify_one();
        std::future::pending::<Json<u8>>()
    });
    let wait = wait.expect("an id").with_timeout(Duration::from_secs(3_600));
    let tools = ToolRegistry::new().with(wait).expect("new");
    let model = Scripted::new((0..9).map(|_| wants("", &[("c", "wait_v1", "{}")])));
    let agent = Agent::builder("shop", Traced::new(model), "gpt-4o").tools(tools).build();
    (agent.expect("an agent"), begun)
}

#[tokio::test]
async fn a_task_that_is_taken_back_ends_its_run_elsewhere() {
    let stage = stage();
    let (agent, begun) = waiting();
    let server = stage.serve(serve_agent(agent)).await;
    for (remote, is_stream) in
        both(&server).into_iter().flat_map(|remote| [(remote.clone(), false), (remote, true)])
    {
        stage.recorder.clear();
        let token = CancellationToken::new();
        let task = Task::new("Wait").cancelled_by(token.clone());
        let asking = stage.telemetry.scope(async {
            match is_stream {
                false => remote.run(task).await.map(drop),
                true => end_of(remote.stream(task)).await.expect("an end"),
            }
        });
        let taking_back = async {
            begun.notified().await;
            token.cancel();
        };
        let both = async { tokio::join!(asking, taking_back).0 };
        let ended = tokio::time::timeout(Duration::from_secs(20), both).await.expect("it ends");
        let error = ended.expect_err("taken back");
        assert_eq!((error.error_type, error.outcome), (ErrorType::Cancelled, Outcome::Cancelled));
        let shown = || stage.recorder.tree(&["outcome"]);
        let ended = async {
            while !shown().contains("\n  invoke_agent shop outcome=cancelled\n") {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(20), ended).await;
        assert!(ended.is_ok(), "the run there goes on:\n{}", shown());
        let call = shown();
        assert_eq!(call.lines().next(), Some("invoke_agent shop outcome=cancelled"), "no failure");
    }
}

#[tokio::test]
async fn no_error_and_no_span_shows_a_password_or_a_key() {
    let stage = stage();
    let mut told = String::new();
    for remote in [
        RemoteAgent::http("http://ada:s3cret@127.0.0.1:9/base?key=s3cret", "shop"),
        RemoteAgent::grpc("http://ada:s3cret@127.0.0.1:9", "shop"),
    ] {
        let remote = remote.expect("an agent");
        let error = stage.telemetry.scope(remote.run("Hello")).await.expect_err("nobody is there");
        assert_eq!(error.error_type, ErrorType::Connection, "{error}");
        told.push_str(&format!("{error}\n"));
        let stream = stage.telemetry.scope(async { end_of(remote.stream("Hello")).await });
        told.push_str(&format!("{:?}\n", stream.await));
        let error = remote.api_key("tl_s3cret\nx").expect_err("a line break");
        assert_eq!(error.error_type, ErrorType::InvalidRequest);
        told.push_str(&format!("{error}\n"));
    }
    for (wrong, name) in [("ftp://ada:s3cret@host", "shop"), ("http://ada:s3cret@127.0.0.1", "")] {
        let error = RemoteAgent::http(wrong, name).expect_err(wrong);
        told.push_str(&format!("{error}\n"));
    }
    assert!(told.contains("http://127.0.0.1:9/base/v1/agents/shop/run"), "{told}");
    assert!(!told.contains("s3cret"), "{told}");
    let spans = format!("{:?}", stage.recorder.spans());
    assert!(spans.contains("127.0.0.1") && !spans.contains("s3cret"), "{spans}");
}
