//! Runs in the background keep the trace of who asked for them.

use std::time::Duration;

use super::*;

async fn status(server: &AgentServer, id: &str) -> Value {
    let url = format!("http://{}/v1/runs/{id}", server.address());
    client().get(url).send().await.expect("an answer").json().await.expect("JSON")
}

/// Asks until the run is no longer running.
async fn ended(server: &AgentServer, id: &str) -> Value {
    let asking = async {
        loop {
            let status = status(server, id).await;
            if status["status"] != "running" {
                break status;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), asking).await.expect("it ends")
}

#[tokio::test]
async fn r1_1_the_trace_continues_into_background_work() {
    let stage = stage();
    let server = stage.serve(serve_agent(shop(Scripted::new([says("There are 12.")])))).await;
    let response = client()
        .post(format!("http://{}/v1/agents/shop/run", server.address()))
        .header("traceparent", TRACEPARENT)
        .header("prefer", "respond-async")
        .json(&json!({ "task": "Is item 7 there?", "session_id": "s-1" }))
        .send()
        .await
        .expect("an answer");
    assert_eq!(response.status(), 202);
    assert_eq!(response.headers()["x-trace-id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    let begun: Value = response.json().await.expect("JSON");
    assert_eq!(begun["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    let ended = ended(&server, begun["run_id"].as_str().expect("an id")).await;
    assert_eq!(
        (&ended["status"], &ended["result"]["answer"]),
        (&json!("done"), &json!("There are 12."))
    );
    insta::assert_snapshot!(stage.recorder.tree(&["http.response.status_code", "outcome"]), @r"
    ? POST /v1/agents/{name}/run http.response.status_code=202
      invoke_agent shop outcome=ok
        shop.plan.answer
          chat gpt-4o outcome=ok
        shop.reflect.answer
    ");
    let spans = stage.recorder.spans();
    let request = spans.iter().find(|span| span.name.starts_with("POST")).expect("the request");
    let run = spans.iter().find(|span| span.name.starts_with("invoke")).expect("the run");
    assert_eq!(request.span_kind, throughline::SpanKind::Server);
    assert_eq!(run.span_kind, throughline::SpanKind::Internal);
    assert!(request.end_time <= run.end_time, "the request does not wait for its run");
}

#[tokio::test]
async fn a_run_in_the_background_can_be_cancelled() {
    let stage = stage();
    let server = stage.serve(serve_agent(shop(Scripted::new([])))).await;
    let asked = json!({ "task": "Wait", "background": true });
    let (status, begun) = post(server.address(), "/v1/agents/shop/run", &asked).await;
    assert_eq!(status, 202);
    let id = begun["run_id"].as_str().expect("an id");
    let url = format!("http://{}/v1/runs/{id}", server.address());
    assert_eq!(client().delete(url).send().await.expect("an answer").status(), 202);
    let ended = ended(&server, id).await;
    assert_eq!(
        (&ended["status"], &ended["error"]["outcome"]),
        (&json!("failed"), &json!("cancelled"))
    );
    let tree = stage.recorder.tree(&["outcome"]);
    assert!(tree.contains("invoke_agent shop outcome=cancelled\n"), "{tree}");
}

#[tokio::test]
async fn a_shutdown_waits_for_what_is_under_way() {
    let stage = stage();
    let slow = throughline::tool("slow_v1", "Takes its time", |_: Slow| async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        throughline::Json(12)
    });
    let tools = throughline::ToolRegistry::new().with(slow.expect("slow")).expect("new");
    let model =
        Scripted::new([crate::agent::wants("", &[("c1", "slow_v1", "{}")]), says("There are 12.")]);
    let agent = Agent::builder("shop", model, "gpt-4o").tools(tools).build().expect("an agent");
    let server = stage.serve(serve_agent(agent)).await;
    let asked = json!({ "task": "Count", "background": true });
    assert_eq!(post(server.address(), "/v1/agents/shop/run", &asked).await.0, 202);
    let address = server.address();
    server.shutdown().await;
    let tree = stage.recorder.tree(&["outcome"]);
    assert!(tree.contains("invoke_agent shop outcome=ok\n"), "{tree}");
    assert!(client().get(format!("http://{address}/healthz")).send().await.is_err());
    assert_eq!(stage.telemetry.counts().open_spans, 0);
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Slow {}

#[tokio::test]
async fn a_shutdown_that_has_waited_long_enough_cancels() {
    let stage = stage();
    let builder = serve_agent(shop(Scripted::new([]))).drain_timeout(Duration::from_millis(20));
    let server = stage.serve(builder).await;
    let asked = json!({ "task": "Wait", "background": true });
    assert_eq!(post(server.address(), "/v1/agents/shop/run", &asked).await.0, 202);
    server.shutdown().await;
    let tree = stage.recorder.tree(&["outcome"]);
    assert!(tree.contains("invoke_agent shop outcome=cancelled\n"), "{tree}");
    assert_eq!(stage.telemetry.counts().open_spans, 0);
}
