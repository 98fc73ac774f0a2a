//! The gateway in the binary: beside the pages, before the simulated provider, with its records in
//! the store.

use std::fs;

use serde_json::{Value as Json, json};

use crate::server::{Server, client, run, throughline, until};

const QUICK_DEMO: [&str; 5] = ["demo", "--runs", "0", "--pace", "0"];

async fn ask(server: &Server, key: Option<&str>, model: &str) -> reqwest::Response {
    let body = json!({"model": model, "messages": [{"role": "user", "content": "my key is sk-proj-Zm9vYmFyYmF6cXV4MDEyMzQ1"}]});
    let request = client().post(format!("{}/v1/chat/completions", server.web));
    let request = request.header("content-type", "application/json").body(body.to_string());
    let request = match key {
        Some(key) => request.bearer_auth(key),
        None => request,
    };
    request.send().await.expect("an answer")
}

async fn trace(server: &Server, id: &str) -> Json {
    // The decision is recorded when it is made, the spans when they end.
    until("the trace", async || {
        let (status, body) = server.get(&format!("/api/v1/traces/{id}"), None).await;
        let seen: Option<Json> =
            (status == 200).then(|| serde_json::from_str(&body).expect("JSON"));
        seen.filter(|seen| seen["spans"].as_array().is_some_and(|spans| !spans.is_empty()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_4_a_call_through_the_gateway_is_a_stored_trace_with_its_decision() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let server = Server::start_with(&data_dir, &QUICK_DEMO);
    let answer = ask(&server, None, "gpt-4o").await;
    assert_eq!(answer.status(), 200);
    let header = |name: &str| answer.headers()[name].to_str().expect("text").to_owned();
    let (trace_id, decision_id) = (header("x-trace-id"), header("x-decision-id"));
    let seen = trace(&server, &trace_id).await;
    let call = &seen["spans"][0];
    assert_eq!((&call["name"], &call["role"]), (&"chat gpt-4o".into(), &"llm_call".into()));
    assert_eq!(seen["summary"]["llm_calls"], 1);
    assert!(seen["summary"]["cost_usd"].as_f64().expect("a cost") > 0.0);
    let said = call["attributes"]["gen_ai.input.messages"].to_string();
    assert!(said.contains("[api_key]") && !said.contains("Zm9v"), "redacted: {said}");
    let decision = &server.get_json(&format!("/api/v1/decisions/{decision_id}")).await["decision"];
    assert_eq!(
        (&decision["stage"], &decision["trace_id"]),
        (&"route".into(), &trace_id.as_str().into())
    );
    let (_, metrics) = server.get("/metrics", None).await;
    assert!(
        metrics.contains(
            r#"throughline_gateway_requests_total{api="chat_completions",status="200"} 1"#
        )
    );
    assert!(metrics.contains("throughline_gateway_in_flight 0"));
    let failed = ask(&server, None, "sim-server-error").await;
    assert_eq!(failed.status(), 502);
    let failed_id = failed.headers()["x-trace-id"].to_str().expect("text").to_owned();
    // A stop hands over what was recorded.
    server.stop();
    let drawn = run(&data_dir, &["trace", &failed_id]).ok();
    assert!(
        drawn.contains("chat sim-server-error") && drawn.contains("attempt sim-server-error"),
        "{drawn}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_4_keys_with_the_scope_gateway_may_ask_and_others_may_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let key = |scope: &str| {
        let made = run(&data_dir, &["keys", "create", "--name", scope, "--scope", scope]).ok();
        made.split_whitespace().find(|word| word.starts_with("tl_")).expect("a key").to_owned()
    };
    let (gateway, read) = (key("gateway"), key("read"));
    let args = ["demo", "--runs", "0", "--pace", "0", "--access", "required"];
    let server = Server::start_with(&data_dir, &args);
    assert_eq!(ask(&server, None, "gpt-4o").await.status(), 401);
    assert_eq!(ask(&server, Some(&read), "gpt-4o").await.status(), 403);
    assert_eq!(ask(&server, Some(&gateway), "gpt-4o").await.status(), 200);
    assert_eq!(server.get("/api/v1/traces", Some(&gateway)).await.0, 403, "and no more than ask");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_4_a_changed_configuration_is_followed_while_it_runs() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let file = dir.path().join("throughline.yaml");
    let provider = Server::start_with(&dir.path().join("provider"), &QUICK_DEMO);
    let config = |model: &str| {
        format!(
            "gateway:\n  providers:\n    - {{name: sim, kind: openai_compatible, base_url: \"{}/v1\"}}\n  \
             routes:\n    - {{model: smart, targets: [{{provider: sim, model: {model}}}]}}\n",
            provider.web
        )
    };
    fs::write(&file, config("gpt-4o")).expect("written");
    let mut command = throughline(&data_dir);
    command.args(["serve", "--grpc-port", "0", "--http-port", "0", "--web-port", "0"]);
    command.args(["--log-format", "json"]);
    let server = Server::spawn(command);
    let model = async || {
        let answer: Json =
            serde_json::from_str(&ask(&server, None, "smart").await.text().await.expect("a body"))
                .expect("JSON");
        answer["model"].as_str().map(str::to_owned).unwrap_or_default()
    };
    assert_eq!(model().await, "gpt-4o-2024-08-06");
    fs::write(&file, "gateway: {routes: [{model: smart}]}").expect("written");
    until("a refusal", async || server.log().contains("is not used").then_some(())).await;
    assert_eq!(model().await, "gpt-4o-2024-08-06", "what was in place stays");
    fs::write(&file, config("gpt-4o-mini")).expect("written");
    until("the other model", async || (model().await == "gpt-4o-mini-2024-07-18").then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_file_of_a_provider_that_is_rotated_is_read_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let provider_data = dir.path().join("provider");
    let made = run(&provider_data, &["keys", "create", "--name", "a", "--scope", "gateway"]).ok();
    let key = made.split_whitespace().find(|word| word.starts_with("tl_")).expect("a key");
    let args = ["demo", "--runs", "0", "--pace", "0", "--access", "required"];
    let provider = Server::start_with(&provider_data, &args);
    let config = format!(
        "gateway:\n  providers:\n    - {{name: sim, kind: openai_compatible, base_url: \"{}/v1\", api_key_file: sim.key}}\n",
        provider.web
    );
    let key_file = dir.path().join("sim.key");
    fs::write(&key_file, key.replace(|letter: char| letter.is_ascii_digit(), "x"))
        .expect("written");
    fs::write(dir.path().join("throughline.yaml"), config).expect("written");
    let mut command = throughline(&dir.path().join("data"));
    command.args(["serve", "--grpc-port", "0", "--http-port", "0", "--web-port", "0"]);
    command.args(["--log-format", "json"]);
    let server = Server::spawn(command);
    assert_eq!(ask(&server, None, "gpt-4o").await.status(), 502, "the key is another");
    fs::write(&key_file, "").expect("written");
    until("a refusal", async || server.log().contains("an empty file").then_some(())).await;
    fs::write(&key_file, key).expect("written");
    let is_answered = async || (ask(&server, None, "gpt-4o").await.status() == 200).then_some(());
    until("an answer with the new key", is_answered).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_4_what_a_key_has_spent_is_known_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let keys = "gateway:\n  keys: [{name: team, usd_per_month: 0.000001}]\n";
    fs::write(dir.path().join("throughline.yaml"), keys).expect("written");
    let made = run(&data_dir, &["keys", "create", "--name", "team", "--scope", "gateway"]).ok();
    let key = made.split_whitespace().find(|word| word.starts_with("tl_")).expect("a key");
    let args = ["demo", "--runs", "0", "--pace", "0", "--access", "required"];
    let server = Server::start_with(&data_dir, &args);
    assert_eq!(ask(&server, Some(key), "gpt-4o").await.status(), 200);
    assert_eq!(ask(&server, Some(key), "gpt-4o").await.status(), 402);
    let governance = throughline_store::Governance::open(&data_dir).expect("govern.db");
    until("a note of it", async || (governance.spending().expect("read").len() == 2).then_some(()))
        .await;
    server.kill();
    let server = Server::start_with(&data_dir, &args);
    assert_eq!(ask(&server, Some(key), "gpt-4o").await.status(), 402, "after a crash");
    server.stop();
    let server = Server::start_with(&data_dir, &args);
    let refused = ask(&server, Some(key), "gpt-4o").await;
    assert_eq!(refused.status(), 402);
    let told = refused.text().await.expect("a body");
    assert!(told.contains("may spend 0.000001 US dollars a month"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_that_governance_sets_move_the_traffic_of_the_gateway_also_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let provider = Server::start_with(&dir.path().join("provider"), &QUICK_DEMO);
    let config = format!(
        "gateway:\n  providers:\n    - {{name: sim, kind: openai_compatible, base_url: \"{}/v1\"}}\n  \
         routes:\n    - model: smart\n      targets:\n        - {{name: v1, provider: sim, model: gpt-4o}}\n        \
         - {{name: v2, provider: sim, model: gpt-4o-mini, weight: 0}}\n",
        provider.web
    );
    fs::write(dir.path().join("throughline.yaml"), config).expect("written");
    let server = Server::start_with(&data_dir, &["serve"]);
    let model = async |server: &Server| {
        let answer = ask(server, None, "smart").await.text().await.expect("a body");
        let answer: Json = serde_json::from_str(&answer).expect("JSON");
        answer["model"].as_str().map(str::to_owned).unwrap_or_default()
    };
    assert_eq!(model(&server).await, "gpt-4o-2024-08-06");
    let wanted = json!({
        "id": "a-1", "reason": "the new one does better", "subject": {"route": "smart"},
        "operation": {"type": "weights", "weights": {
            "route": "smart", "targets": [{"name": "v1", "weight": 0}, {"name": "v2", "weight": 1}],
        }},
    });
    let asked = client()
        .post(format!("{}/api/v1/actions", server.web))
        .header("content-type", "application/json")
        .body(wanted.to_string())
        .send()
        .await
        .expect("an answer");
    let status = asked.status();
    assert_eq!(status, 201, "{}", asked.text().await.expect("a body"));
    until("the other model", async || {
        (model(&server).await == "gpt-4o-mini-2024-07-18").then_some(())
    })
    .await;
    let standing = server.get_json("/api/v1/gateway").await;
    assert_eq!(standing["routes"][0]["targets"][1]["weight"], 1, "{standing}");
    assert_eq!(standing["routes"][0]["targets"][1]["configured_weight"], 0);
    server.stop();
    let server = Server::start_with(&data_dir, &["serve"]);
    until("the other model again", async || {
        (model(&server).await == "gpt-4o-mini-2024-07-18").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demo_keeps_its_simulated_providers_beside_a_configuration_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    fs::write(dir.path().join("throughline.yaml"), "gateway: {}\n").expect("written");
    let server = Server::start_with(&data_dir, &["demo"]);
    assert_eq!(ask(&server, None, "gpt-4o").await.status(), 200);
    // Some seconds of screened payments, in which the file was looked at.
    let reader = throughline_store::Reader::open(&data_dir).expect("a store");
    let agent = Some("card_screening".to_owned());
    let screened = throughline_store::TraceFilter { agent, ..Default::default() };
    until("eight payments", async || {
        let page = reader.traces(&screened, None, 8).await.ok()?;
        (page.items.len() == 8).then_some(())
    })
    .await;
    assert_eq!(ask(&server, None, "gpt-4o").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_has_begun_is_finished_by_a_server_that_is_stopped() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let provider = Server::start_with(&dir.path().join("provider"), &["demo", "--runs", "0"]);
    let config = format!(
        "gateway: {{providers: [{{name: sim, kind: openai_compatible, base_url: \"{}/v1\"}}]}}\n",
        provider.web
    );
    fs::write(dir.path().join("throughline.yaml"), config).expect("written");
    let mut server = Server::start_with(&data_dir, &["serve"]);
    let body =
        json!({"model": "gpt-4o", "stream": true, "messages": [{"role": "user", "content": "hi"}]});
    let mut answer = client()
        .post(format!("{}/v1/chat/completions", server.web))
        .header("content-type", "application/json")
        .body(body.to_string())
        .send()
        .await
        .expect("an answer");
    let id = answer.headers()["x-trace-id"].to_str().expect("text").to_owned();
    let mut text = answer.chunk().await.expect("readable").expect("a piece").to_vec();
    server.signal("TERM");
    while let Some(piece) = answer.chunk().await.expect("not cut") {
        text.extend_from_slice(&piece);
    }
    let text = String::from_utf8(text).expect("text");
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    assert_eq!(server.wait().code(), Some(0), "{}", server.log());
    let drawn = run(&data_dir, &["trace", &id]).ok();
    assert!(drawn.contains("http.stream.segment"), "{drawn}");
}

#[test]
fn a_configuration_that_cannot_be_meant_is_refused_at_the_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let file = dir.path().join("throughline.yaml");
    let told = |text: &str| {
        fs::write(&file, text).expect("written");
        let finished =
            run(&data_dir, &["serve", "--web-port", "0", "--http-port", "0", "--grpc-port", "0"]);
        assert_eq!(finished.code, 2, "{}", finished.stderr);
        finished.stderr.replace(&dir.path().display().to_string(), "DIR").trim().to_owned()
    };
    insta::assert_snapshot!(told("gateway:\n  providers:\n    - {name: a, kind: opnai}\n"), @r"
    error: throughline.yaml:3:23: expected openai or anthropic or azure_openai or openai_compatible, got `opnai`
    hint: did you mean `openai`?
    ");
    insta::assert_snapshot!(told("gateway:\n  provider: []\n"), @r"
    error: throughline.yaml:2:3: unknown key `provider`
    hint: did you mean `providers`?
    ");
    insta::assert_snapshot!(told("gateway:\n  providers:\n    - {name: a, kind: openai, api_key: sk-1}\n"), @r"
    error: throughline.yaml:3:31: unknown key `api_key`
    hint: known here: name, kind, base_url, api_key_env, api_key_file, api_version, ca_file, proxy, stream_usage
    ");
    insta::assert_snapshot!(told("gateway:\n  providers:\n    - {name: a, kind: openai_compatible}\n"), @r"
    error: expected a `base_url` in `gateway.providers[a]`, got none
    hint: docs/gateway.md tells what `gateway:` may say
    ");
}
