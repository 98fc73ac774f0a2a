//! Experiments and candidates that rule files name: begun once, told with a verdict, and not begun anew by words
//! that did not change.

use std::fs;

use serde_json::{Value as Json, json};
use throughline_trace::{TraceId, keys};

use crate::export::{Exporter, span, text, traces};
use crate::governance::governed;
use crate::server::{Server, client, run, until};

const EXPERIMENT: &str = r#"
apiVersion: throughline/v1
kind: Experiment
metadata: {name: screening-speed}
spec:
  agent: screening
  by: model_version
  control: v1
  treatment: v2
  route: prompt
  metric: duration_s
  min_effect: 0.2
  guardrails: [{metric: success_rate, tolerance: 0.05}]
  winner_takes_all: true
"#;

const ROLLOUT: &str = r#"
apiVersion: throughline/v1
kind: Rollout
metadata: {name: screening}
spec:
  agent: screening
  route: words
  stable: v1
  candidate: v2
  steps: [{weight: 50, hold_s: 3600}]
"#;

async fn experiment(server: &Server) -> Json {
    server.get_json("/api/v1/experiments").await["items"][0].clone()
}

async fn asked(server: &Server, told: &str) -> Vec<Json> {
    let listed = server.get_json("/api/v1/actions?limit=500").await;
    let all = listed["items"].as_array().expect("a list").clone();
    all.into_iter().filter(|one| one["told"] == told).collect()
}

async fn done(server: &Server, told: &str) -> Json {
    until(told, async || asked(server, told).await.into_iter().find(|one| one["state"] == "done"))
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_4_an_experiment_of_a_file_is_decided_once_and_its_winner_takes_all() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, rules) = governed(dir.path(), &[("experiment.yaml", EXPERIMENT)]);
    let since = until("that it begins", async || {
        experiment(&server).await["since"].as_str().map(str::to_owned)
    })
    .await;
    done(&server, "weights prompt v1=50 v2=50").await;
    let begun: jiff::Timestamp = since.parse().expect("a moment");
    let begun = u64::try_from(begun.as_nanosecond()).expect("after 1970");
    let mut exporter = Exporter::connect(&server.grpc).await;
    let mut spans = Vec::new();
    for number in 0..400_u64 {
        let version = if number % 2 == 0 { "v1" } else { "v2" };
        let attributes = vec![
            text(keys::AGENT_ID, "screening"),
            text(keys::AI_AGENT_NAME, "screening"),
            text("model_version", version),
        ];
        let trace = TraceId::from_u128(u128::from(number + 1));
        let mut step = span(trace, 1, None, "screening.act.payment", (0, 1), attributes);
        step.start_time_unix_nano = begun + 1_000_000;
        // The treatment needs half a second less.
        let millis = 900 + number % 40 - 500 * (number % 2);
        step.end_time_unix_nano = step.start_time_unix_nano + millis * 1_000_000;
        spans.push(step);
    }
    exporter.send_traces(traces("bank", spans)).await.expect("taken");
    let decided = until("a verdict", async || {
        Some(experiment(&server).await).filter(|one| one["verdict"] == "treatment")
    })
    .await;
    assert_eq!(decided["since"], since.as_str(), "{decided}");
    let difference = decided["difference"].as_f64().expect("one");
    assert!((difference + 0.5).abs() < 0.02, "{decided}");
    done(&server, "weights prompt v1=0 v2=100").await;
    let findings = server.get_json("/api/v1/findings").await;
    let finding = &findings["items"][0];
    assert_eq!(
        (&finding["kind"], &finding["state"]),
        (&json!("experiment.verdict"), &json!("resolved"))
    );
    assert_eq!(finding["evidence"].as_array().map(Vec::len), Some(10));
    let (_, page) = server.get("/governance", None).await;
    assert!(page.contains("treatment does better"), "the page tells it");
    let shown = run(&dir.path().join("data"), &["experiment", "show", "screening-speed"]).ok();
    for part in ["screening-speed  treatment", "difference -0.4", "guardrail success_rate: holds"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }

    // A comment is no other experiment, and neither is what is done with the verdict; another effect is.
    let told = EXPERIMENT.replace("winner_takes_all: true", "runbook: https://x # told");
    fs::write(rules.join("experiment.yaml"), told).expect("written");
    until("the comment", async || {
        let (_, page) = server.get("/governance", None).await;
        let one = experiment(&server).await;
        (page.contains("treatment does better") && one["verdict"] == "treatment").then_some(())
    })
    .await;
    assert_eq!(experiment(&server).await["since"], since.as_str());
    fs::write(rules.join("experiment.yaml"), EXPERIMENT.replace("0.2", "0.25")).expect("written");
    let anew = until("another run", async || {
        Some(experiment(&server).await)
            .filter(|one| one["since"].as_str().is_some_and(|at| at != since))
    })
    .await;
    assert_ne!(anew["verdict"], "treatment", "what was before says nothing");
    assert_eq!(asked(&server, "weights prompt v1=0 v2=100").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_candidate_of_a_file_is_started_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, rules) = governed(dir.path(), &[("rollout.yaml", ROLLOUT)]);
    done(&server, "start screening with v2").await;
    done(&server, "weights words v1=50 v2=50").await;
    let body =
        json!({ "operation": { "type": "roll_back", "rollout": "screening" }, "reason": "a test" });
    let url = format!("{}/api/v1/actions", server.web);
    let answer = client().post(url).json(&body).send().await.expect("an answer");
    assert_eq!(answer.status(), 201);
    fs::write(rules.join("rollout.yaml"), format!("# read again\n{ROLLOUT}")).expect("written");
    // A file that changed something is in place, so the words of this one were looked at again.
    let other =
        ROLLOUT.replace("name: screening", "name: other").replace("route: words", "route: tone");
    fs::write(rules.join("other.yaml"), other).expect("written");
    done(&server, "start other with v2").await;
    assert_eq!(asked(&server, "start screening with v2").await.len(), 1);
    let rollouts = server.get_json("/api/v1/rollouts").await;
    let screening = rollouts["items"].as_array().expect("a list").iter();
    let screening = screening.clone().find(|one| one["name"] == "screening").expect("it is there");
    assert_eq!(
        (&screening["candidate"], &screening["weight"]),
        (&Json::Null, &json!(0)),
        "{screening}"
    );
}

/// The queue and an incident's page do what the API does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_decide_cases_on_the_pages() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::start(&dir.path().join("data"));
    let post = async |path: &str, body: Json| {
        let url = format!("{}{path}", server.web);
        let answer = client().post(url).json(&body).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
    };
    let form = async |path: &str, fields: &[(&str, &str)]| {
        let url = format!("{}{path}", server.web);
        let origin = server.web.clone();
        let text = |of: &str| of.replace(' ', "+");
        let fields: Vec<String> =
            fields.iter().map(|(name, value)| format!("{name}={}", text(value))).collect();
        let request = client().post(url).header("origin", origin).body(fields.join("&"));
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        request.send().await.expect("an answer").status().as_u16()
    };
    let subject = json!({ "agent": "shop" });
    let hand_over = json!({ "type": "hand_over", "to": "support" });
    post(
        "/api/v1/actions",
        json!({ "operation": hand_over, "subject": subject, "reason": "angry" }),
    )
    .await;
    let alert = json!({
        "status": "firing", "labels": { "alertname": "Slow", "agent": "shop" },
        "annotations": { "summary": "p99 is 4 s", "runbook_url": "https://runbooks/slow" },
        "startsAt": "2026-01-31T12:00:00Z",
    });
    post("/api/v1/alerts/alertmanager", json!({ "alerts": [alert] })).await;
    let (status, page) = server.get("/governance/takeovers", None).await;
    assert_eq!(status, 200);
    assert!(page.contains("angry") && page.contains("Take over"), "{page}");
    let case = server.get_json("/api/v1/takeovers").await["items"][0].clone();
    let address = |kind: &str, id: &Json| {
        let id = id.as_str().expect("an id").replace('/', "%2F").replace('=', "%3D");
        format!("/governance/{kind}/{}", id.replace(':', "%3A").replace('~', "%7E"))
    };
    let at = address("takeovers", &case["id"]);
    assert_eq!(form(&at, &[("decision", "approve"), ("note", "I call her")]).await, 200);
    let case = server.get_json("/api/v1/takeovers").await["items"][0].clone();
    assert_eq!((&case["state"], &case["note"]), (&json!("approved"), &json!("I call her")));
    assert_eq!(
        form(&at, &[("decision", "reject")]).await,
        409,
        "a word is not taken back by a click"
    );

    let incident = until("the incident", async || {
        let one = server.get_json("/api/v1/incidents").await["items"][0].clone();
        one.is_object().then_some(one)
    })
    .await;
    let at = address("incidents", &incident["id"]);
    for fields in [
        vec![("change", "acknowledge")],
        vec![("change", "assign"), ("to", "ada")],
        vec![("change", "silence"), ("for_s", "3600")],
        vec![("change", "note"), ("text", "the cache was cold")],
    ] {
        assert_eq!(form(&at, &fields).await, 200, "{fields:?}");
    }
    let (status, page) = server.get(&at, None).await;
    assert_eq!(status, 200);
    for part in [
        "acknowledged",
        "ada looks after it",
        "the cache was cold",
        "https://runbooks/slow",
        "nobody is told before",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert_eq!(form(&at, &[("change", "resolve")]).await, 200);
    assert_eq!(form(&at, &[("change", "acknowledge")]).await, 409, "it is over");
    let (_, list) = server.get("/governance/incidents", None).await;
    assert!(list.contains("p99 is 4 s") && list.contains("resolved"), "{list}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_4_a_person_stops_an_experiment_and_begins_it_again_in_the_terminal() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let (server, _) = governed(dir.path(), &[("experiment.yaml", EXPERIMENT)]);
    let name = "screening-speed";
    let since = until("that it begins", async || {
        experiment(&server).await["since"].as_str().map(str::to_owned)
    })
    .await;
    let listed = run(&data_dir, &["experiment", "list"]).ok();
    assert!(listed.lines().any(|line| line.contains(name) && line.contains("runs")), "{listed}");
    let stop = ["experiment", "stop", name, "--by", "ada", "--reason", "a release"];
    run(&data_dir, &stop).ok();
    done(&server, "weights prompt v1=100 v2=0").await;
    until("the note", async || {
        let one = experiment(&server).await;
        (one["note"] == "ada stopped it: a release").then_some(())
    })
    .await;
    let again = run(&data_dir, &stop);
    assert_eq!(again.code, 2, "{}", again.stderr);
    assert!(again.stderr.contains("expected one that runs"), "{}", again.stderr);
    let shown = run(&data_dir, &["experiment", "show", name]).ok();
    assert!(shown.contains("by ada: a release"), "{shown}");

    run(&data_dir, &["experiment", "start", name, "--by", "ada"]).ok();
    until("another run of the same words", async || {
        let one = experiment(&server).await;
        one["since"].as_str().filter(|at| **at != *since).map(|_| ())
    })
    .await;
    let (status, page) = server.get(&format!("/governance/experiments/{name}"), None).await;
    assert!(status == 200 && page.contains("screening"), "{page}");
    assert_eq!(server.get("/governance/experiments/nobody", None).await.0, 404);
    let unknown = run(&data_dir, &["experiment", "start", "nobody"]);
    assert_eq!(unknown.code, 2, "{}", unknown.stderr);
}
