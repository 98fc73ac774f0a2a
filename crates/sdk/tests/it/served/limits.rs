//! What a service does not do: answer without a key, read without end, run too much or too long.

use std::time::Duration;

use throughline::ServeError;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

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
    400 expected {"task": "…"} as JSON, got something else: unknown field `tasks`, expected one of `task`, `messages`, `session_id`, `workflow_id`, `parent_decision_id`, `budget`, `background` at line 1 column 19
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
        let answer = remote
            .api_key(" tl_right\n")
            .expect("a key")
            .run("How many?")
            .await
            .expect("an answer");
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

/// The beginning of an HTTP/2 connection, and the frame SETTINGS that changes nothing.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The frame HEADERS of `GET /healthz` as the whole of stream 1 (RFC 9113, RFC 7541).
const HEALTHZ: &[u8] = b"\0\0\x0f\x01\x05\0\0\0\x01\x82\x86\x04\x08/healthz\x01\x01a";

/// There are places for 1,024 connections: who says nothing does not keep one. The clock of the test
/// goes on as fast as nobody has anything to do.
#[tokio::test(start_paused = true)]
async fn a_connection_that_nobody_uses_is_closed() {
    let stage = stage();
    let server = stage.serve(serve_agent(shop(Scripted::new([])))).await;
    let answered = [PREFACE, HEALTHZ].concat();
    for (said, least_secs, most_secs) in [
        (&b""[..], 10, 20),
        (b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n", 10, 80),
        (PREFACE, 10, 20),
        (&answered, 20, 70),
    ] {
        let begun = tokio::time::Instant::now();
        let connection = tokio::net::TcpStream::connect(server.address()).await;
        let closed = until_closed(connection.expect("a connection"), said);
        let closed = tokio::time::timeout(Duration::from_secs(3_600), closed).await;
        assert!(closed.is_ok(), "it is open for an hour after {} bytes", said.len());
        let secs = begun.elapsed().as_secs();
        assert!((least_secs..=most_secs).contains(&secs), "{} bytes: {secs} s", said.len());
    }
}

/// Says this, then only that it is still there, until the other side hangs up, in whichever way.
async fn until_closed(mut connection: tokio::net::TcpStream, said: &[u8]) {
    // How an HTTP/2 client is asked whether it is still there, and says so.
    const PING: u8 = 6;
    const ACK: u8 = 1;
    connection.write_all(said).await.expect("sent");
    if !said.starts_with(PREFACE) {
        let _ = connection.read_to_end(&mut Vec::new()).await;
        return;
    }
    let mut head = [0; 9];
    while connection.read_exact(&mut head).await.is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).expect("a length")];
        if connection.read_exact(&mut payload).await.is_err() {
            return;
        }
        if (head[3], head[4]) == (PING, 0) {
            head[4] = ACK;
            let answer = [&head[..], &payload].concat();
            if connection.write_all(&answer).await.is_err() {
                return;
            }
        }
    }
}

/// A run that says nothing for long is a request under way, also when its answer has begun.
#[tokio::test(start_paused = true)]
async fn a_connection_with_a_request_under_way_stays() {
    let stage = stage();
    let (agent, _begun) = super::calls::waiting();
    let builder = serve_agent(agent).run_time_limit(Duration::from_secs(300));
    let server = stage.serve(builder).await;
    let ask = || {
        client()
            .post(format!("http://{}/v1/agents/shop/run", server.address()))
            .json(&json!({ "task": "Wait" }))
    };
    let answer = ask().send().await.expect("an answer");
    assert_eq!(answer.status(), 504);
    let answer = ask().header("accept", "text/event-stream").send().await.expect("an answer");
    let events = answer.text().await.expect("events to the end");
    assert!(events.contains("event: error"), "{events}");
}
