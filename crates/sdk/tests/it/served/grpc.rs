//! The service as a gRPC client sees it that has only `proto/agent.proto`.

use futures_util::StreamExt as _;
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

use super::*;

#[derive(Clone, PartialEq, prost::Message)]
struct RunRequest {
    #[prost(string, tag = "1")]
    agent: String,
    #[prost(string, tag = "2")]
    task: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RunReply {
    #[prost(string, tag = "1")]
    answer: String,
    #[prost(string, tag = "8")]
    trace_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RunEvent {
    #[prost(string, optional, tag = "2")]
    text: Option<String>,
    #[prost(message, optional, tag = "6")]
    done: Option<RunReply>,
}

async fn channel(server: &AgentServer) -> Grpc<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address())).expect("a URL");
    Grpc::new(endpoint.connect().await.expect("a connection"))
}

async fn run(
    grpc: &mut Grpc<Channel>,
    request: Request<RunRequest>,
    path: &'static str,
) -> Result<RunReply, Status> {
    grpc.ready().await.expect("ready");
    let codec = ProstCodec::<RunRequest, RunReply>::default();
    let reply = grpc.unary(request, PathAndQuery::from_static(path), codec).await;
    reply.map(Response::into_inner)
}

/// Runs the one agent with this metadata, and tells the trace of the run.
pub(super) async fn run_with(
    server: &AgentServer,
    metadata: impl FnOnce(&mut tonic::metadata::MetadataMap),
) -> String {
    let mut request = Request::new(RunRequest { agent: String::new(), task: "How many?".into() });
    metadata(request.metadata_mut());
    let path = "/throughline.agent.v1.Agent/Run";
    run(&mut channel(server).await, request, path).await.expect("an answer").trace_id
}

fn asked(agent: &str, task: &str) -> Request<RunRequest> {
    let mut request = Request::new(RunRequest { agent: agent.into(), task: task.into() });
    request.metadata_mut().insert("traceparent", TRACEPARENT.parse().expect("metadata"));
    request
}

#[tokio::test]
async fn a_run_is_streamed_over_grpc() {
    let stage = stage();
    let server = stage.serve(serve_agent(shop(Scripted::new([says("There are 12.")])))).await;
    let path = PathAndQuery::from_static("/throughline.agent.v1.Agent/RunStream");
    let codec: ProstCodec<RunRequest, RunEvent> = ProstCodec::default();
    let mut grpc = channel(&server).await;
    grpc.ready().await.expect("ready");
    let response =
        grpc.server_streaming(asked("", "How many?"), path, codec).await.expect("events");
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    assert_eq!(response.metadata().get("x-trace-id").expect("a trace"), trace);
    let events: Vec<RunEvent> =
        response.into_inner().map(|event| event.expect("an event")).collect().await;
    let text: String = events.iter().filter_map(|event| event.text.clone()).collect();
    let done = events.last().and_then(|event| event.done.clone()).expect("it is done");
    assert_eq!((text.as_str(), done.answer.as_str()), ("There are 12.", "There are 12."));
    assert_eq!(done.trace_id, trace);
    assert!(stage.recorder.tree(&["outcome"]).starts_with("? invoke_agent shop outcome=ok\n"));
}

#[tokio::test]
async fn wrong_calls_have_the_codes_of_grpc() {
    let stage = stage();
    let server = stage.serve(serve_agent(shop(Scripted::new([])))).await;
    const RUN: &str = "/throughline.agent.v1.Agent/Run";
    let mut grpc = channel(&server).await;
    let status = run(&mut grpc, asked("stop", "x"), RUN).await.expect_err("no such agent");
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(status.metadata().get("throughline-error-type").expect("a type"), "INVALID_REQUEST");
    let status = run(&mut grpc, asked("shop", ""), RUN).await.expect_err("no task");
    assert_eq!(status.code(), Code::InvalidArgument);
    let other = "/throughline.agent.v1.Agent/Stop";
    let status = run(&mut grpc, asked("shop", "x"), other).await.expect_err("no such method");
    assert_eq!(status.code(), Code::Unimplemented);
}
