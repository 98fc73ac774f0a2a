//! Agents as services over HTTP and gRPC, with real sockets and models that answer from a script.

mod background;
mod calls;
mod chain;
mod grpc;
mod limits;
mod streaming;

use std::net::SocketAddr;

use serde_json::{Value, json};
use throughline::{
    Agent, AgentServer, AgentServerBuilder, Outcome, Recorder, RemoteAgent, Task, Telemetry,
    Traced, serve_agent,
};

use crate::agent::{Scripted, says};

struct Stage {
    recorder: Recorder,
    telemetry: Telemetry,
}

fn stage() -> Stage {
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).build().expect("telemetry");
    Stage { recorder, telemetry }
}

impl Stage {
    async fn serve(&self, builder: AgentServerBuilder) -> AgentServer {
        self.telemetry.scope(builder.start()).await.expect("a server")
    }
}

pub(crate) fn shop(model: Scripted) -> Agent {
    Agent::builder("shop", Traced::new(model), "gpt-4o")
        .description("Sells things")
        .build()
        .expect("an agent")
}

pub(crate) fn client() -> reqwest::Client {
    // Tests have no TLS provider of the process: one of them asserts that it stays unset.
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy();
    client.build().expect("a client")
}

async fn post(address: SocketAddr, path: &str, body: &Value) -> (u16, Value) {
    let response = client()
        .post(format!("http://{address}{path}"))
        .json(body)
        .send()
        .await
        .expect("an answer");
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03";

#[tokio::test]
async fn a_run_over_http_is_a_child_of_the_caller() {
    let stage = stage();
    let server = stage.serve(serve_agent(shop(Scripted::new([says("There are 12.")])))).await;
    let response = client()
        .post(format!("http://{}/v1/agents/shop/run", server.address()))
        .header("traceparent", TRACEPARENT)
        .header("baggage", "workflow_id=w-1")
        .json(&json!({ "task": "Is item 7 there?", "session_id": "s-1" }))
        .send()
        .await
        .expect("an answer");
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-trace-id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    let mut reply: Value = response.json().await.expect("JSON");
    let decisions = reply["decisions"].take();
    assert_eq!(decisions.as_array().map(Vec::len), Some(2));
    insta::assert_snapshot!(reply, @r#"{"answer":"There are 12.","cost_usd":0.000065,"decisions":null,"outcome":"ok","tool_calls":0,"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","turns":1,"usage":{"audio_input_tokens":0,"audio_output_tokens":0,"cache_read_tokens":0,"cache_write_1h_tokens":0,"cache_write_tokens":0,"image_input_tokens":0,"image_output_tokens":0,"input_tokens":10,"output_tokens":4,"reasoning_tokens":0}}"#);
    insta::assert_snapshot!(stage.recorder.tree(&["session_id", "workflow_id", "outcome"]), @r"
    ? invoke_agent shop session_id=s-1 workflow_id=w-1 outcome=ok
      shop.plan.answer session_id=s-1 workflow_id=w-1
        chat gpt-4o session_id=s-1 workflow_id=w-1 outcome=ok
      shop.reflect.answer session_id=s-1 workflow_id=w-1
    ");
    let spans = stage.recorder.spans();
    let root = spans.last().expect("the run");
    assert_eq!(root.span_kind, throughline::SpanKind::Server);
    assert_eq!(root.parent_span_id.to_string(), "00f067aa0ba902b7");
}

#[tokio::test]
async fn a_run_is_told_as_server_sent_events() {
    let stage = stage();
    let server = stage.serve(serve_agent(shop(Scripted::new([says("There are 12.")])))).await;
    let response = client()
        .post(format!("http://{}/v1/agents/shop/run", server.address()))
        .header("accept", "text/event-stream")
        .json(&json!({ "task": "Is item 7 there?" }))
        .send()
        .await
        .expect("an answer");
    let trace = response.headers()["x-trace-id"].to_str().expect("text").to_owned();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = response.text().await.expect("events");
    let (before, done) = text.split_once("event: done").expect("it is done");
    insta::assert_snapshot!(before.trim_end(), @r#"
    event: step
    data: {"domain":"task","index":0,"phase":"plan"}

    event: text
    data: {"delta":"There "}

    event: text
    data: {"delta":"are "}

    event: text
    data: {"delta":"12."}

    event: step
    data: {"domain":"answer","index":1,"phase":"reflect"}
    "#);
    assert!(done.contains("\"answer\":\"There are 12.\"") && done.contains(&trace), "{done}");
}

#[tokio::test]
async fn clients_of_openai_can_ask_an_agent() {
    let stage = stage();
    let model = Scripted::new([says("There are 12."), says("There are 13.")]);
    let server = stage.serve(serve_agent(shop(model))).await;
    let asked =
        json!({ "model": "shop", "messages": [{ "role": "user", "content": "How many?" }] });
    let (status, mut reply) = post(server.address(), "/v1/chat/completions", &asked).await;
    reply["id"].take();
    reply["created"].take();
    insta::assert_snapshot!(format!("{status} {reply}"), @r#"200 {"choices":[{"finish_reason":"stop","index":0,"logprobs":null,"message":{"content":"There are 12.","role":"assistant"}}],"created":null,"id":null,"model":"shop","object":"chat.completion","usage":{"completion_tokens":4,"completion_tokens_details":{"reasoning_tokens":0},"prompt_tokens":10,"prompt_tokens_details":{"cached_tokens":0},"total_tokens":14}}"#);
    // As the model of another agent.
    let model = throughline::OpenAi::builder()
        .base_url(format!("http://{}/v1", server.address()))
        .build()
        .expect("a client");
    let asking = Agent::builder("asking", Traced::new(model), "shop").streaming(true).build();
    let run = stage.telemetry.scope(asking.expect("an agent").run("How many?")).await;
    let run = run.expect("an answer");
    assert_eq!((run.answer.as_str(), run.usage.total_tokens()), ("There are 13.", 14));
    insta::assert_snapshot!(stage.recorder.tree(&["outcome"]), @r"
    invoke_agent shop outcome=ok
      shop.plan.answer
        chat gpt-4o outcome=ok
      shop.reflect.answer
    invoke_agent asking outcome=ok
      asking.plan.answer
        chat shop outcome=ok
          invoke_agent shop outcome=ok
            shop.plan.answer
              chat gpt-4o outcome=ok
                http.stream.init
                http.stream.segment
            shop.reflect.answer
          http.stream.init
          http.stream.segment
      asking.reflect.answer
    ");
}

#[tokio::test]
async fn a_service_says_what_agents_it_has() {
    let stage = stage();
    let server = stage.serve(serve_agent(shop(Scripted::new([])))).await;
    let get = |path: &str| client().get(format!("http://{}{path}", server.address())).send();
    let agents = get("/v1/agents").await.expect("an answer").text().await.expect("text");
    insta::assert_snapshot!(agents, @r#"{"agents":[{"description":"Sells things","name":"shop","version":null}]}"#);
    assert_eq!(get("/healthz").await.expect("an answer").status(), 200);
}

#[tokio::test]
async fn a_remote_agent_s_error_keeps_its_kind() {
    let stage = stage();
    let late = throughline::ChatError::new(throughline::ErrorType::Timeout, "no answer");
    let model = Scripted::new(std::iter::repeat_n(Err(late), 6));
    let server = stage.serve(serve_agent(shop(model))).await;
    for remote in [
        RemoteAgent::http(&format!("http://{}", server.address()), "shop"),
        RemoteAgent::grpc(&format!("http://{}", server.address()), "shop"),
    ] {
        let remote = remote.expect("an agent");
        let run = stage.telemetry.scope(remote.run(Task::new("Hello").session("s-1"))).await;
        let error = run.expect_err("no answer");
        assert_eq!(error.error_type, throughline::ErrorType::Timeout);
        assert_eq!(error.outcome, Outcome::ModelTimeout, "{error}");
        assert_eq!(error.to_string(), "expected the model to answer in turn 1: no answer");
    }
}

#[tokio::test]
async fn a_service_that_is_not_there_is_a_connection_error() {
    let stage = stage();
    for remote in [
        RemoteAgent::http("http://127.0.0.1:9", "shop"),
        RemoteAgent::grpc("http://127.0.0.1:9", "shop"),
    ] {
        let run = stage.telemetry.scope(remote.expect("an agent").run("Hello")).await;
        let error = run.expect_err("nobody is there");
        assert_eq!(error.error_type, throughline::ErrorType::Connection, "{error}");
    }
    for wrong in ["", "127.0.0.1:9", "ftp://127.0.0.1", "http://"] {
        RemoteAgent::http(wrong, "shop").expect_err(wrong);
        RemoteAgent::grpc(wrong, "shop").expect_err(wrong);
    }
}
