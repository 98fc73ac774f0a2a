//! Directives from end to end: an agent of the SDK listens to the binary, obeys, answers, and its
//! decision is stored.

use std::path::Path;

use serde_json::{Value as Json, json};
use throughline::resilience::RetryPolicy;
use throughline::{ErrorType, Resilience, Steering, Telemetry};

use crate::server::{Server, client, run, throughline, trust_ring, until};

/// Gives a directive as a person does.
async fn give(server: &Server, body: Json) -> Json {
    let request = client().post(format!("{}/api/v1/directives", server.web));
    let answer = request.body(body.to_string()).send().await.expect("an answer");
    assert_eq!(answer.status(), 201);
    serde_json::from_str(&answer.text().await.expect("a body")).expect("JSON")
}

/// The one answer to a directive, once it is there.
async fn acked(server: &Server, id: &str) -> Json {
    until("an answer", async || {
        let listed = server.get_json("/api/v1/directives/list").await;
        let given = listed["items"].as_array().expect("a list").clone();
        let given = given.into_iter().find(|one| one["id"] == id)?;
        let acks = given["acks"].as_array().expect("answers");
        assert!(acks.len() <= 1, "{given}");
        acks.first().cloned()
    })
    .await
}

/// The same server again, on the ports that agents know.
fn restart(data_dir: &Path, web: &str, http: &str) -> Server {
    let port = |url: &str| url.rsplit(':').next().expect("a port").to_owned();
    let mut command = throughline(data_dir);
    command.args(["serve", "--grpc-port", "0", "--http-port", &port(http)]);
    command.args(["--web-port", &port(web), "--log-format", "json"]);
    Server::spawn(command)
}

/// How often an operation that never succeeds is tried.
async fn tries() -> u32 {
    let once = Resilience::retry(RetryPolicy {
        max_attempts: 1,
        base_delay_ms: 1,
        ..RetryPolicy::default()
    });
    let mut tries = 0;
    let work = once.run_with(
        "stock",
        |_: &&str| ErrorType::Server,
        |_| {
            tries += 1;
            async { Err::<(), _>("busy") }
        },
    );
    let _ = work.await;
    tries
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_10_an_agent_hears_obeys_and_answers_and_a_restart_repeats_nothing() {
    trust_ring();
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let server = Server::start(&data_dir);
    let (web, http) = (server.web.clone(), server.http.clone());
    let telemetry = Telemetry::builder()
        .environment(false)
        .service_name("shop")
        .endpoint(&http)
        .directives(&web)
        .build()
        .expect("telemetry");
    assert_eq!(telemetry.scope(tries()).await, 1, "before anybody says anything");
    let given = give(
        &server,
        json!({
            "id": "contract-7/1/shop", "target": {"service": "shop"},
            "action": {"type": "retry_strategy", "retry_strategy": "exponential_backoff(max_attempts=3, base_ms=1)"},
            "reason": "the warehouse broke its contract",
        }),
    )
    .await;
    let others = json!({"id": "others", "target": {"service": "other"}, "action": {"type": "stop"}, "reason": "not ours"});
    give(&server, others).await;
    let ack = acked(&server, "contract-7/1/shop").await;
    assert_eq!(ack["status"], "applied");
    assert_eq!(telemetry.scope(tries()).await, 3, "it obeys");

    telemetry.flush();
    let decision_id = ack["decision_id"].as_str().expect("a decision").to_owned();
    let path = format!("/api/v1/decisions/{decision_id}");
    let obeyed = until("the agent's decision", async || {
        let (status, body) = server.get(&path, None).await;
        (status == 200).then(|| serde_json::from_str::<Json>(&body).expect("JSON"))
    })
    .await;
    let obeyed = &obeyed["decision"];
    assert_eq!((&obeyed["stage"], &obeyed["service"]), (&"directive".into(), &"shop".into()));
    assert_eq!(obeyed["attributes"]["throughline.directive.id"], "contract-7/1/shop");
    // To give it was a decision too.
    let path = format!("/api/v1/decisions/{}", given["decision_id"].as_str().expect("an id"));
    let own = &server.get_json(&path).await["decision"];
    assert_eq!((&own["stage"], &own["service"]), (&"govern.act".into(), &"throughline".into()));
    assert!(
        own["decision"]["reason"].as_str().is_some_and(|why| why.starts_with("asked by local"))
    );

    server.stop();
    let server = restart(&data_dir, &web, &http);
    give(&server, json!({"id": "second", "action": {"type": "force_degraded", "operation": "stock", "on": true}, "reason": "again"})).await;
    assert_eq!(acked(&server, "second").await["status"], "applied");
    let is_degraded =
        telemetry.scope(async { Steering::current().forced_degraded("stock").is_some() });
    assert!(is_degraded.await);
    let (_, metrics) = server.get("/metrics", None).await;
    assert!(metrics.contains("throughline_act_directives_sent_total 1"), "{metrics}");
    assert_eq!(telemetry.scope(tries()).await, 3, "the first one still holds");
    // An agent that listens does not hold up the end of the server.
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_10_an_agent_that_believes_signatures_only_believes_this_server() {
    trust_ring();
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    // base64 of "the key of the server".
    std::fs::write(dir.path().join("directive.key"), "k1:dGhlIGtleSBvZiB0aGUgc2VydmVy\n")
        .expect("written");
    std::fs::write(
        dir.path().join("throughline.yaml"),
        "act: { directive_key_file: directive.key }\n",
    )
    .expect("written");
    let server = Server::start(&data_dir);
    let agent = |service: &str, key: &[u8]| {
        let builder = Telemetry::builder().environment(false).service_name(service.to_owned());
        builder.endpoint(&server.http).directives(&server.web).directive_key("k1", key).build()
    };
    let believer = agent("shop", b"the key of the server").expect("telemetry");
    let doubter = agent("bank", b"another key of enough bytes").expect("telemetry");
    for service in ["shop", "bank"] {
        let body = json!({"id": service, "target": {"service": service}, "action": {"type": "stop"}, "reason": "a drill é"});
        give(&server, body).await;
    }
    assert_eq!(acked(&server, "shop").await["status"], "applied");
    let refused = acked(&server, "bank").await;
    assert_eq!(
        (&refused["status"], &refused["reason"]),
        (&"refused".into(), &"it is not signed with the key k1".into())
    );
    let stopped = async { Steering::current().stop().is_some() };
    assert!(believer.scope(stopped).await);
    assert!(!doubter.scope(async { Steering::current().stop().is_some() }).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_10_who_may_listen_and_who_may_give() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let key = |scope: &str| {
        run(&data_dir, &["keys", "create", "--name", scope, "--scope", scope])
            .ok()
            .trim()
            .to_owned()
    };
    let (ingest, act, read) = (key("ingest"), key("act"), key("read"));
    let server = Server::start_with(&data_dir, &["serve", "--access", "required"]);
    let body = json!({"action": {"type": "stop"}, "reason": "a drill"}).to_string();
    for path in throughline_act::route_paths() {
        let path = path.replace(['{', '}'], "");
        for request in [
            client().get(format!("{}{path}", server.web)),
            client().post(format!("{}{path}", server.web)),
        ] {
            let status = request.send().await.expect("an answer").status();
            assert_eq!(status, 401, "{path} needs a key");
        }
    }
    let post = async |path: &str, key: &str| {
        let request = client().post(format!("{}{path}", server.web)).bearer_auth(key);
        request.body(body.clone()).send().await.expect("an answer").status().as_u16()
    };
    for path in [
        "/api/v1/directives",
        "/api/v1/actions/pause",
        "/api/v1/holds",
        "/api/v1/incidents/x/note",
        "/api/v1/contracts/x/proposals",
        "/api/v1/contracts/x/accept",
        "/governance/contracts/x",
    ] {
        assert_eq!(post(path, &ingest).await, 403, "{path}");
        assert_eq!(post(path, &read).await, 403, "{path}");
    }
    assert_eq!(post("/api/v1/directives", &act).await, 201);
    let stream = |key: &str| {
        let request =
            client().get(format!("{}/api/v1/directives?service=shop&instance_id=i", server.web));
        request.bearer_auth(key).send()
    };
    assert_eq!(stream(&read).await.expect("an answer").status(), 403);
    let mut heard = stream(&ingest).await.expect("an answer");
    assert_eq!(heard.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    while !text.contains("a drill") {
        let piece = heard.chunk().await.expect("readable").expect("more");
        text.push_str(std::str::from_utf8(&piece).expect("text"));
    }
    assert!(
        text.starts_with(": connected\nretry: 1000\n\n")
            || text.starts_with("retry: 1000\n: connected\n\n"),
        "{text}"
    );
    assert!(text.contains("event: directive\nid: 1\n"), "{text}");
    assert!(text.contains("asked by act: a drill"), "the key's name: {text}");
}
