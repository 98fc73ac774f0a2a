//! The loop closed: what is observed of two versions puts the bad one back, says why, and tells when all is
//! well again (requirements R5.1 and R5.4).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value as Json, json};
use throughline_trace::{TraceId, keys};

use crate::export::{Exporter, span, text, traces};
use crate::server::{Server, client, run, until};

const RULES: &str = r#"
apiVersion: throughline/v1
kind: Rollout
metadata: {name: screening}
spec:
  agent: screening
  route: prompt
  stable: v1.2.3
  steps: [{weight: 50, hold_s: 3600}]
"#;

/// A promise that nine of ten spans of an agent take less than a second.
pub(crate) fn in_time(agent: &str) -> String {
    let spans = format!("span.agent == \"{agent}\"");
    format!(
        r#"apiVersion: openslo/v1
kind: SLO
metadata: {{name: {agent}-in-time}}
spec:
  service: test
  indicator:
    metadata: {{name: {agent}-in-time}}
    spec:
      ratioMetric:
        counter: true
        good: {{metricSource: {{type: throughline, spec: {{spans: '{spans} && span.duration_ms < 1000.0'}}}}}}
        total: {{metricSource: {{type: throughline, spec: {{spans: '{spans}'}}}}}}
  timeWindow: [{{duration: 1d, isRolling: true}}]
  budgetingMethod: Occurrences
  objectives: [{{displayName: in time, target: 0.9}}]
"#
    )
}

/// A server whose rules are files of a folder beside its data, with that folder: rounds are each second.
pub(crate) fn governed(dir: &Path, files: &[(&str, &str)]) -> (Server, PathBuf) {
    let rules = dir.join("rules");
    fs::create_dir(&rules).expect("made");
    for (name, text) in files {
        fs::write(rules.join(name), text).expect("written");
    }
    let yaml = "governance: {rules: [rules], interval_secs: 1}\n";
    fs::write(dir.join("throughline.yaml"), yaml).expect("written");
    (Server::start(&dir.join("data")), rules)
}

/// Waits until so much of an SLO's error budget is consumed.
pub(crate) async fn is_consumed(server: &Server, slo: &str, expected: f64) {
    let named = format!("throughline_slo_error_budget_consumption_rate{{slo=\"{slo}\"");
    until("the counters", async || {
        let (_, metrics) = server.get("/metrics", None).await;
        let line = metrics.lines().find(|line| line.starts_with(&named))?;
        let consumed: f64 = line.rsplit(' ').next()?.parse().ok()?;
        ((consumed - expected).abs() < 1e-6).then_some(())
    })
    .await;
}

/// Waits until the decision of an action is on the record.
pub(crate) async fn is_recorded(server: &Server, action: &Json) {
    let id = action["decision_id"].as_str().expect("a decision");
    until("the decision", async || {
        let (status, _) = server.get(&format!("/api/v1/decisions/{id}"), None).await;
        (status == 200).then_some(())
    })
    .await;
}

/// How long ago something ended so that its minutes are over.
pub(crate) const LONG_AGO_NANOS: u64 = 180_000_000_000;

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64
}

/// Steps of a version that ended just now, each on a trace of its own.
fn steps(first: u64, version: &str, count: u64, millis: u64) -> Vec<Span> {
    steps_of("screening", (first, now()), version, count, millis)
}

fn steps_of(
    agent: &str,
    (first, end): (u64, u64),
    version: &str,
    count: u64,
    millis: u64,
) -> Vec<Span> {
    let of = |n: u64| {
        let trace = TraceId::from_u128(u128::from(first + n));
        let attributes = vec![
            text(keys::AGENT_ID, agent),
            text(keys::AI_AGENT_NAME, agent),
            text(keys::AI_PHASE, "act"),
            text("model_version", version),
            text("prompt.version", version),
        ];
        let name = "screening.act.payment";
        let mut step = span(trace, 1, None, name, (0, 1), attributes);
        step.end_time_unix_nano = end;
        step.start_time_unix_nano = end - (millis + n) * 1_000_000;
        step
    };
    (0..count).map(of).collect()
}

async fn actions(server: &Server) -> Vec<(String, String, String)> {
    let listed = server.get_json("/api/v1/actions").await;
    let of = |one: &Json| {
        let text = |value: &Json| value.as_str().unwrap_or_default().to_owned();
        (text(&one["told"]), text(&one["state"]), text(&one["detail"]))
    };
    listed["items"].as_array().expect("a list").iter().map(of).collect()
}

async fn done(server: &Server, what: &str) -> String {
    until(what, async || {
        let all = actions(server).await;
        all.into_iter().find(|(told, state, _)| told == what && state == "done").map(|one| one.2)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_1_a_bad_version_goes_back_with_its_cause_named_and_the_end_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let slos = format!("{}---\n{}", in_time("screening"), in_time("teller"));
    let (server, _) = governed(dir.path(), &[("rollout.yaml", RULES), ("slo.yaml", &slos)]);
    let mut exporter = Exporter::connect(&server.grpc).await;
    let send = async |exporter: &mut Exporter, spans| {
        exporter.send_traces(traces("bank", spans)).await.expect("taken");
    };
    send(&mut exporter, steps(1, "v1.2.3", 40, 300)).await;
    let long_ago = now() - LONG_AGO_NANOS;
    for (first, millis) in [(5_000, 300), (6_000, 2_800)] {
        let steps = steps_of("teller", (first, long_ago), "v1", 40, millis);
        send(&mut exporter, steps).await;
    }

    let order = json!({
        "operation": {"type": "start", "rollout": "screening", "version": "v1.2.4"},
        "reason": "a new prompt template",
    });
    let url = format!("{}/api/v1/actions", server.web);
    let answer = client().post(url).json(&order).send().await.expect("an answer");
    assert!(answer.status().is_success(), "{}", answer.text().await.expect("a body"));
    let divided = done(&server, "start screening with v1.2.4").await;
    assert_eq!(divided, "the traffic is divided v1.2.3 50 %, v1.2.4 50 %");

    send(&mut exporter, steps(1_000, "v1.2.3", 40, 300)).await;
    // While actions are paused it is seen and left alone; what was held back is done afterwards.
    run(&data_dir, &["act", "pause", "--by", "ada", "--reason", "a look"]).ok();
    send(&mut exporter, steps(2_000, "v1.2.4", 40, 2_800)).await;
    until("the finding", async || {
        let findings = server.get_json("/api/v1/findings?firing=true").await;
        let all = findings["items"].as_array().expect("a list").clone();
        all.iter().any(|one| one["kind"] == "rollout.analysis").then_some(())
    })
    .await;
    assert!(actions(&server).await.iter().all(|(told, ..)| !told.starts_with("roll_back")));
    run(&data_dir, &["act", "resume", "--by", "ada"]).ok();
    let divided = done(&server, "roll_back screening").await;
    assert_eq!(divided, "the traffic is divided v1.2.3 100 %, v1.2.4 0 %");
    let cause = done(&server, "investigate").await;
    assert!(
        cause.starts_with("100 % of the bad traces ran model_version v1.2.4"),
        "the version is named: {cause}"
    );
    let findings = server.get_json("/api/v1/findings").await;
    let analysis = findings["items"]
        .as_array()
        .and_then(|all| all.iter().find(|one| one["kind"] == "rollout.analysis"))
        .expect("a finding");
    let summary = analysis["summary"].as_str().expect("text");
    assert!(
        summary.starts_with(
            "v1.2.4 of screening does worse than v1.2.3: agent_decision_latency_p95 is 2."
        ),
        "{summary}"
    );

    // Only when the stable version is seen to do well is it over.
    send(&mut exporter, steps(3_000, "v1.2.3", 40, 300)).await;
    until("the end of the finding", async || {
        let findings = server.get_json("/api/v1/findings?firing=true").await;
        let all = findings["items"].as_array().expect("a list").clone();
        all.iter().all(|one| one["kind"] != "rollout.analysis").then_some(())
    })
    .await;

    // What was promised is counted as it comes: 40 of 160 were too late; of the teller's half, which is
    // five times what its budget has.
    until("the counters", async || {
        let (_, metrics) = server.get("/metrics", None).await;
        let of = |name: &str, slo: &str| {
            let named = format!("throughline_slo_{name}{{slo=\"{slo}\"");
            let line = metrics.lines().find(|line| line.starts_with(&named))?;
            line.rsplit(' ').next()?.parse::<f64>().ok()
        };
        let consumed = of("error_budget_consumption_rate", "teller-in-time")?;
        let events = of("events_total", "screening-in-time") == Some(160.0);
        let good = of("good_events_total", "screening-in-time") == Some(120.0);
        (events && good && (consumed - 5.0).abs() < 1e-6).then_some(())
    })
    .await;
    // The terminal has the same numbers, which no sampling takes.
    let file = dir.path().join("rules/slo.yaml");
    let told = run(&data_dir, &["slo", "list", file.to_str().expect("a path"), "--json"]).ok();
    let told: Json = serde_json::from_str(&told).expect("JSON");
    assert_eq!(told["source"], "counters", "{told}");
    let (status, page) = server.get("/governance", None).await;
    assert_eq!(status, 200);
    for shown in ["rolled back", "teller-in-time", "exhausted", "screening goes back"] {
        assert!(page.contains(shown), "{shown} is not on the page");
    }
    server.stop();

    // A restart repeats nothing.
    let server = Server::start(&data_dir);
    until("a round", async || {
        let (_, page) = server.get("/governance", None).await;
        page.contains("screening-in-time").then_some(())
    })
    .await;
    let backs =
        actions(&server).await.into_iter().filter(|(told, ..)| told == "roll_back screening");
    assert_eq!(backs.count(), 1);
}

#[test]
fn rules_that_cannot_be_meant_end_the_server_with_their_place() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("rules.yaml"), RULES.replace("route:", "rout:")).expect("written");
    fs::write(dir.path().join("throughline.yaml"), "governance: {rules: [rules.yaml]}\n")
        .expect("written");
    let said = run(
        &dir.path().join("data"),
        &["serve", "--web-port", "0", "--http-port", "0", "--grpc-port", "0"],
    );
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("rules.yaml:7:3: unknown field `rout`"), "{}", said.stderr);
}

/// What detectors would have said of a time that is over, without a server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_1_drift_is_replayed_over_what_is_stored() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let server = Server::start(&data_dir);
    let mut exporter = Exporter::connect(&server.grpc).await;
    let minute = 60_000_000_000;
    for back in (2..30_u64).rev() {
        let (first, millis) = (back * 1_000, if back < 6 { 2_800 } else { 400 });
        let steps = steps_of("teller", (first, now() - back * minute), "v1", 40, millis);
        exporter.send_traces(traces("bank", steps)).await.expect("taken");
    }
    server.stop();
    let file = dir.path().join("slo.yaml");
    fs::write(&file, in_time("nobody")).expect("written");
    let told =
        run(&data_dir, &["check", file.to_str().expect("a path"), "--replay", "1h", "--json"]);
    let told: Json = serde_json::from_str(&told.ok()).expect("JSON");
    let events = told["replay"]["events"].as_array().expect("a list");
    let is_drift = |one: &&Json| {
        let summary = one["summary"].as_str().unwrap_or_default();
        one["state"] == "firing" && summary.contains("agent_decision_latency of teller")
    };
    assert_eq!(events.iter().filter(is_drift).count(), 1, "{told}");
}

/// What a rollout would have put back, without a server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_1_rollouts_are_replayed_over_what_is_stored() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let server = Server::start(&data_dir);
    let mut exporter = Exporter::connect(&server.grpc).await;
    let minute = 60_000_000_000;
    for back in (2..20_u64).rev() {
        let end = now() - back * minute;
        let mut send = async |first, version: &str, millis| {
            let steps = steps_of("screening", (first, end), version, 40, millis);
            exporter.send_traces(traces("bank", steps)).await.expect("taken");
        };
        send(back * 1_000, "v1.2.3", 400).await;
        // One that is as good, and one that is not.
        let (version, millis) = if back < 10 { ("v1.2.5", 2_800) } else { ("v1.2.4", 400) };
        send(back * 1_000 + 500, version, millis).await;
    }
    server.stop();
    let file = dir.path().join("rollout.yaml");
    fs::write(&file, RULES).expect("written");
    let told =
        run(&data_dir, &["check", file.to_str().expect("a path"), "--replay", "1h", "--json"]);
    let told: Json = serde_json::from_str(&told.ok()).expect("JSON");
    let events = told["replay"]["events"].as_array().expect("a list");
    let of_rollout: Vec<&Json> =
        events.iter().filter(|one| one["rule"] == "rollout/screening").collect();
    assert_eq!(of_rollout.len(), 1, "{told}");
    let summary = of_rollout[0]["summary"].as_str().expect("text");
    assert!(summary.starts_with("v1.2.5 of screening does worse than v1.2.3"), "{summary}");
    let actions = of_rollout[0]["actions"].as_array().expect("a list");
    assert!(actions.iter().any(|one| one["told"] == "roll_back screening"), "{told}");
}
