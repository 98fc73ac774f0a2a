//! `throughline slo`: files are checked, brought over and written, and held against stored spans.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use throughline_trace::TraceId;

use crate::export::{Exporter, fraud_trace};
use crate::server::{Server, run, run_on};

/// How long ago the spans of the test ended, nanoseconds: in a minute that is over.
const AGO_NANOS: u64 = 120 * 1_000_000_000;

fn example(name: &str) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/slo");
    dir.join(name).display().to_string()
}

/// An SLO of the fraud agent: spans of a role are good unless they fail.
fn of_role(name: &str, role: &str) -> String {
    format!(
        r#"---
apiVersion: openslo/v1
kind: SLO
metadata: {{name: {name}}}
spec:
  service: checkout
  indicator:
    spec:
      ratioMetric:
        bad: {{metricSource: {{type: throughline, spec: {{spans: 'span.status == "ERROR"'}}}}}}
        total:
          metricSource:
            type: throughline
            spec: {{spans: 'span.role == "{role}" && span.agent == "fraud"'}}
  timeWindow: [{{duration: 7d, isRolling: true}}]
  budgetingMethod: Occurrences
  objectives: [{{target: 0.9}}]
"#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_2_objectives_are_listed_from_stored_spans() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let file = dir.path().join("slo.yaml");
    let slos =
        [of_role("models", "llm_call"), of_role("tools", "tool"), of_role("none", "retrieval")];
    fs::write(&file, slos.concat()).expect("written");
    let file = file.display().to_string();
    let server = Server::start(&data_dir);
    let mut exporter = Exporter::connect(&server.grpc).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    for number in 1..=12_u128 {
        let mut request = fraud_trace(TraceId::from_u128(number));
        let spans =
            request.resource_spans.iter_mut().flat_map(|resource| &mut resource.scope_spans);
        for span in spans.flat_map(|scope| &mut scope.spans) {
            let took = span.end_time_unix_nano - span.start_time_unix_nano;
            span.end_time_unix_nano = now - AGO_NANOS;
            span.start_time_unix_nano = span.end_time_unix_nano - took;
        }
        exporter.send_traces(request).await.expect("acknowledged");
    }
    let told: serde_json::Value =
        serde_json::from_str(&run(&data_dir, &["slo", "list", &file, "--json"]).ok())
            .expect("JSON");
    let seen = |name: &str| {
        let all = told["objectives"].as_array().expect("a list");
        let found = all.iter().find(|one| one["slo"] == name).expect("the SLO");
        let budget = &found["budget"];
        let events = budget["measured"]["events"].as_f64();
        (found["health"].as_str().map(str::to_owned), found["attainment"].as_f64(), events)
    };
    assert_eq!(seen("models"), (Some("ok".to_owned()), Some(1.0), Some(12.0)), "{told}");
    assert_eq!(seen("tools"), (Some("exhausted".to_owned()), Some(0.0), Some(12.0)), "{told}");
    assert_eq!(seen("none").1, None, "what never happened is missing, not bad");
    assert_eq!(told["source"], "stored_spans");
    assert_eq!(told["replay"]["traces"], 12);
    // Seven days are not known from two minutes of traces, and the list says so.
    let text = run(&data_dir, &["slo", &file]).ok();
    assert!(text.contains("COVERAGE") && text.contains("12 stored traces"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("tools") && line.ends_with("0 %")), "{text}");
    server.stop();
}

#[test]
fn r5_2_files_are_checked_and_mistakes_are_shown() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let deploy = example("");
    let text = run(&data_dir, &["slo", "check", &deploy]).ok();
    assert!(text.contains("4 SLOs can be used") && text.contains("page-1h"), "{text}");
    let told = run(&data_dir, &["slo", "check", &deploy, "--json"]).ok();
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(told["slos"].as_array().map(Vec::len), Some(4));

    let wrong = of_role("models", "llm-call").replace("0.9", "99.9");
    let refused = run_on(&data_dir, &["slo", "check", "-"], wrong.as_bytes());
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    for part in ["2 mistakes", "mean \"llm_call\"?", "-:17:25:", "targetPercent: 99.9", "^^^"] {
        assert!(refused.stderr.contains(part), "{part} in {}", refused.stderr);
    }
}

#[test]
fn r5_2_slos_of_sloth_are_brought_over_and_rules_are_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let sloth = r#"version: prometheus/v1
service: shop
slos:
  - name: tools
    objective: 99.5
    sli:
      events:
        error_query: span.status == "ERROR"
        total_query: span.role == "tool"
"#;
    let written = run_on(&data_dir, &["slo", "import", "sloth", "-"], sloth.as_bytes()).ok();
    let rules = run_on(&data_dir, &["slo", "export", "prometheus", "-"], written.as_bytes()).ok();
    assert!(rules.contains(r#"slo: "shop-tools""#) && rules.contains("[3d]"), "{rules}");
    let promql = sloth.replace("span.role == \"tool\"", "sum(rate(x[{{.window}}]))");
    let refused = run_on(&data_dir, &["slo", "import", "sloth", "-"], promql.as_bytes());
    assert_eq!(refused.code, 2);
    assert!(
        refused.stderr.contains("-:9:22: expected a condition over span"),
        "{}",
        refused.stderr
    );
}

#[test]
fn r5_2_given_counts_are_evaluated_minute_by_minute() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let series = dir.path().join("series.json");
    let (events, good) = (vec![100; 40], [vec![100; 20], vec![50; 20]].concat());
    let json = serde_json::json!({
        "start": "2026-11-26T00:00:00Z",
        "series": [{"slo": "fraud-answers", "objective": "99", "events": events, "good": good}],
    });
    fs::write(&series, json.to_string()).expect("written");
    let series = series.display().to_string();
    let file = example("fraud-agent.yaml");
    let told = run(&data_dir, &["slo", "evaluate", "--series", &series, &file, "--json"]).ok();
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    let rules: Vec<&str> = told["findings"]
        .as_array()
        .expect("findings")
        .iter()
        .filter_map(|finding| finding["rule"].as_str())
        .collect();
    for part in ["page-1h", "evaluation-loop"] {
        let rule = format!("slo:fraud-answers:{part}");
        assert!(rules.contains(&rule.as_str()), "{rules:?}");
    }
    assert_eq!(told["actions"][0]["operation"]["type"], "investigate");
    let unknown = json.to_string().replace("fraud-answers", "somebody");
    let refused =
        run_on(&data_dir, &["slo", "evaluate", "--series", "-", &file], unknown.as_bytes());
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("got `somebody`"), "{}", refused.stderr);
}
