//! What a service does not do: answer without a key, read without end, run too much or too long.

use std::time::Duration;

use throughline::ServeError;

use super::*;

#[tokio::test]
async fn wrong_requests_are_told_what_is_wrong() {
    let stage = stage();
    let builder = serve_agent(shop(Scripted::new([]))).request_max_bytes(200);
    let server = stage.serve(builder).await;
    let run = "/v1/agents/shop/run";
    let mut told = String::new();
    for (path, body) in [
        (run, json!({})),
        (run, json!({ "task": " " })),
        (run, json!({ "task": "x", "tasks": "y" })),
        (run, json!({ "messages": [] })),
        (run, json!({ "task": "x", "parent_decision_id": "y" })),
        (run, json!({ "task": "x".repeat(200) })),
        ("/v1/agents/stop/run", json!({ "task": "x" })),
        ("/v1/agents", json!({})),
        ("/v1/runs/17", json!({})),
        ("/v2", json!({})),
        ("/v1/chat/completions", json!({ "model": "shop", "messages": [] })),
    ] {
        let (status, answer) = post(server.address(), path, &body).await;
        told.push_str(&format!(
            "{status} {}\n",
            answer["error"]["message"].as_str().expect("text")
        ));
    }
    insta::assert_snapshot!(told, @r#"
    400 expected either `task`, a text, or `messages`, a list
    400 expected either `task`, a text, or `messages`, a list
    400 expected {"task": "…"} as JSON, got something else: unknown field `tasks`, expected one of `task`, `messages`, `session_id`, `workflow_id`, `parent_decision_id`, `background` at line 1 column 19
    400 expected at least one message, got none
    400 expected a UUID in `parent_decision_id`, got "y"
    413 expected a request of at most 200 bytes, got more
    404 expected an agent (shop), got "stop"
    405 expected another method for /v1/agents, got POST
    405 expected another method for /v1/runs/17, got POST
    404 expected /v1/agents/{name}/run or another path of this service, got /v2
    400 expected at least one message, got none
    "#);
    assert_eq!(stage.recorder.spans().len(), 0, "what is refused is no run");
}

#[tokio::test]
async fn a_key_is_asked_for_everywhere_but_at_the_health_check() {
    let stage = stage();
    let model = Scripted::new([says("12"), says("12")]);
    let server = stage.serve(serve_agent(shop(model)).api_key("tl_right")).await;
    let url = format!("http://{}", server.address());
    let get = |path: &str| client().get(format!("{url}{path}"));
    assert_eq!(get("/healthz").send().await.expect("an answer").status(), 200);
    let refused = get("/v1/agents").send().await.expect("an answer");
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["www-authenticate"]),
        (401, &"Bearer".parse().expect("a header"))
    );
    for wrong in ["Bearer tl_wrong", "tl_right", "Bearer", "bearer  tl_right", "Basic tl_right"] {
        let answer = get("/v1/agents").header("authorization", wrong).send().await;
        assert_eq!(answer.expect("an answer").status(), 401, "{wrong}");
    }
    for remote in [RemoteAgent::http(&url, "shop"), RemoteAgent::grpc(&url, "shop")] {
        let remote = remote.expect("an agent");
        let error = remote.run("How many?").await.expect_err("no key");
        assert_eq!(error.error_type, throughline::ErrorType::Auth);
        let answer = remote.api_key("tl_right").run("How many?").await.expect("an answer");
        assert_eq!(answer.answer, "12");
    }
}

#[tokio::test]
async fn others_do_not_reach_an_agent_without_a_key() {
    let open = serve_agent(shop(Scripted::new([]))).bind("0.0.0.0:0").start().await;
    assert!(matches!(open, Err(ServeError::Open(_))), "{open:?}");
    let twice = serve_agent(shop(Scripted::new([]))).and(shop(Scripted::new([]))).start().await;
    assert!(matches!(twice, Err(ServeError::Twice(_))), "{twice:?}");
}

#[tokio::test]
async fn more_runs_than_allowed_are_refused_for_now() {
    let stage = stage();
    let server = stage.serve(serve_agent(shop(Scripted::new([]))).max_runs(1)).await;
    let url = format!("http://{}", server.address());
    let asked = json!({ "task": "Wait", "background": true });
    assert_eq!(post(server.address(), "/v1/agents/shop/run", &asked).await.0, 202);
    for remote in [RemoteAgent::http(&url, "shop"), RemoteAgent::grpc(&url, "shop")] {
        let error = remote.expect("an agent").run("Hello").await.expect_err("it is busy");
        assert_eq!(error.error_type, throughline::ErrorType::Overloaded);
        assert_eq!(error.retry_after, Some(Duration::from_secs(1)));
        assert_eq!(
            error.to_string(),
            "expected at most 1 runs at once, got one more; try again later"
        );
    }
}

#[tokio::test]
async fn a_run_that_takes_too_long_is_ended() {
    let stage = stage();
    let builder = serve_agent(shop(Scripted::new([]))).run_time_limit(Duration::from_millis(20));
    let server = stage.serve(builder).await;
    let (status, answer) =
        post(server.address(), "/v1/agents/shop/run", &json!({ "task": "Wait" })).await;
    assert_eq!((status, &answer["error"]["type"]), (504, &json!("TIMEOUT")));
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_run() {
    let stage = stage();
    let server = stage.serve(serve_agent(shop(Scripted::new([])))).await;
    let url = format!("http://{}", server.address());
    for remote in [RemoteAgent::http(&url, "shop"), RemoteAgent::grpc(&url, "shop")] {
        stage.recorder.clear();
        let remote = remote.expect("an agent").with_timeout(Duration::from_millis(50));
        let error = stage.telemetry.scope(remote.run("Wait")).await.expect_err("it waits");
        assert_eq!(error.error_type, throughline::ErrorType::Timeout);
        drop(remote);
        let told = async {
            while !stage
                .recorder
                .tree(&["outcome"])
                .contains("  invoke_agent shop outcome=cancelled")
            {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), told).await.expect("the run is cancelled");
    }
}
