//! The files of the store by the commands: segments, verify, backup, restore, export, import.

use std::path::Path;

use serde_json::Value as Json;
use throughline_trace::{DecisionId, TraceId, keys};

use crate::export::{Exporter, NOON, decision, fraud_trace, int, log, logs, span, text, traces};
use crate::redaction::{MARKS, RULES, send_everything};
use crate::server::{Server, run, until};

/// Sends traces with decisions and logs.
async fn fill(server: &Server, traces: impl IntoIterator<Item = u128>) {
    let mut exporter = Exporter::connect(&server.grpc).await;
    for trace in traces {
        let trace = TraceId::from_u128(trace);
        exporter.send_traces(fraud_trace(trace)).await.expect("acknowledged");
        let noise: String = (0..200).map(|_| DecisionId::random().to_string()).collect();
        let records = vec![log(trace, 2, &noise), decision(trace, 2, DecisionId::random(), "hold")];
        exporter.send_logs(logs("checkout", records)).await.expect("acknowledged");
    }
}

fn configure(dir: &Path, text: &str) {
    std::fs::write(dir.join("throughline.yaml"), text).expect("written");
}

fn json(text: &str) -> Json {
    serde_json::from_str(text.trim()).expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backup_beside_a_server_restore_and_verify() {
    let dir = tempfile::tempdir().expect("a directory");
    configure(dir.path(), "store: { max_segment_bytes: 1MiB }\n");
    let (data_dir, target, new) =
        (dir.path().join("data"), dir.path().join("backup"), dir.path().join("new"));
    let server = Server::start(&data_dir);
    fill(&server, 1..400).await;
    until("sealed segments, all of them packed", async || {
        let listed = server.get_json("/api/v1/segments").await;
        let (packed, others): (Vec<_>, Vec<_>) =
            listed["items"].as_array()?.iter().partition(|one| one["is_packed"] == true);
        (packed.len() > 1 && others.iter().all(|one| one["state"] == "open")).then_some(())
    })
    .await;
    let target = target.to_str().expect("UTF-8");
    let done = json(&run(&data_dir, &["backup", target, "--json"]).ok());
    assert!(done["files"].as_u64() > Some(2), "{done}");
    let again = json(&run(&data_dir, &["backup", target, "--json"]).ok());
    assert!(again["reused_files"].as_u64() > Some(1), "{again}");
    let table = run(&data_dir, &["store", "segments"]).ok();
    assert!(table.contains("open") && table.contains("sealed"), "{table}");
    assert_eq!(run(&data_dir, &["restore", target]).code, 2, "the directory is not empty");
    assert_eq!(run(&new, &["restore", dir.path().to_str().expect("UTF-8")]).code, 3);
    let told = run(&new, &["restore", target]).ok();
    assert!(told.contains("all that was acknowledged before"), "{told}");
    run(&new, &["audit", "verify"]).ok();
    run(&new, &["store", "verify"]).ok();
    let trace = TraceId::from_u128(7).to_string();
    assert!(run(&new, &["trace", &trace]).ok().contains("hold"));
    server.stop();

    // A flipped page is named, and told by the exit code and on the pages.
    let segments: Vec<Json> = run(&new, &["store", "segments", "--json"])
        .ok()
        .lines()
        .map(json)
        .filter(|one| one["state"] == "sealed")
        .collect();
    let name = format!("segments/{}.packed.db", segments[0]["segment"].as_str().expect("a name"));
    let mut bytes = std::fs::read(new.join(&name)).expect("the segment");
    bytes[8_192..].iter_mut().step_by(97).for_each(|byte| *byte ^= 0x55);
    std::fs::write(new.join(&name), bytes).expect("written");
    let verified = run(&new, &["store", "verify"]);
    assert_eq!(verified.code, 6, "{}", verified.stderr);
    assert!(verified.stderr.contains(&name), "{}", verified.stderr);
    let server = Server::start(&new);
    let listed = server.get_json("/api/v1/traces?limit=500").await;
    let count = listed["items"].as_array().expect("a list").len();
    assert!(count > 50, "{count}");
    until("the page warns", async || {
        let (status, page) = server.get("/traces", None).await;
        assert_eq!(status, 200);
        page.contains("Damaged, and not shown").then_some(())
    })
    .await;
    let damaged = server.get_json("/api/v1/stats").await["damaged_segments"].clone();
    assert_eq!(damaged[0]["segment"], segments[0]["segment"]);
    server.stop();
    let lacking = run(&new, &["backup", dir.path().join("other").to_str().expect("UTF-8")]);
    assert_eq!(lacking.code, 6, "{}", lacking.stderr);
}

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).expect("an export");
    // Traces of one start have no order of their own.
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

/// An objective for which each span that failed is bad.
const FAILED_SPANS: &str = "apiVersion: openslo/v1
kind: SLO
metadata: {name: no-failures}
spec:
  service: fraud
  indicator:
    metadata: {name: failures}
    spec:
      ratioMetric:
        counter: true
        bad: {metricSource: {type: throughline, spec: {spans: 'span.status == \"ERROR\"'}}}
        total: {metricSource: {type: throughline, spec: {spans: 'span.name != \"\"'}}}
  timeWindow: [{duration: 1d, isRolling: true}]
  budgetingMethod: Occurrences
  objectives: [{displayName: none fails, target: 0.9}]
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_exported_by_sampling_is_what_it_would_keep() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let server = Server::start(&data_dir);
    // Shares go by the last bits of an id, which are random elsewhere.
    fill(
        &server,
        (1..41).map(|at: u128| at.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)),
    )
    .await;
    server.stop();
    let exported = |config: &str| {
        let path = dir.path().join("sampling.yaml");
        std::fs::write(&path, config).expect("written");
        let path = path.to_str().expect("UTF-8").to_owned();
        run(
            &data_dir,
            &["--config", &path, "--log", "info", "export", "--sampled", "--agent", "fraud"],
        )
    };
    let whole = run(&data_dir, &["export", "--agent", "fraud"]).ok();
    let traces = |text: &str| {
        let lines = text.lines().map(json).filter(|line| line.get("resourceSpans").is_some());
        let text = |line: Json| line["resourceSpans"][0]["scopeSpans"][0]["spans"][0].clone();
        lines.map(text).collect::<Vec<Json>>()
    };
    assert_eq!(traces(&whole).len(), 40);

    // All of them have failed spans and decisions: by what they are they leave.
    let by_value = exported("sampling: { rate: 0.0, wait: 1ms }\n");
    assert_eq!(traces(&by_value.ok()).len(), 40);
    let none = "sampling: { rate: 0.0, wait: 1ms, keep: { errors: false, fallbacks: false, decided: false } }\n";
    let nothing = exported(none);
    assert!(nothing.stderr.contains("stayed, by sampling"), "{}", nothing.stderr);
    assert_eq!(traces(&nothing.ok()).len(), 0);
    // Each has a span that is bad for an objective.
    std::fs::write(dir.path().join("slo.yaml"), FAILED_SPANS).expect("written");
    let judged = exported(&format!("{none}governance: {{ rules: [slo.yaml] }}\n"));
    assert!(judged.stderr.contains("slo"), "{}", judged.stderr);
    assert_eq!(traces(&judged.ok()).len(), 40);
    let off = none.replace("errors: false", "errors: false, slo: false");
    let off = exported(&format!("{off}governance: {{ rules: [slo.yaml] }}\n"));
    assert_eq!(traces(&off.ok()).len(), 0);
    let rule = "sampling:\n  rate: 0.0\n  wait: 1ms\n  keep: { errors: false, fallbacks: false, decided: false }\n  rules:\n  - { name: all-of-fraud, when: trace.agent == \"fraud\", rate: 0.5 }\n";
    let chosen = exported(rule);
    assert!(chosen.stderr.contains("rule:all-of-fraud"), "{}", chosen.stderr);
    let chosen = traces(&chosen.ok());
    assert!((5..36).contains(&chosen.len()), "{}", chosen.len());
    for span in &chosen {
        let weight = span["attributes"].as_array().expect("a list").iter();
        let weight = weight.filter(|one| one["key"] == "throughline.sampling.weight");
        let told: Vec<f64> =
            weight.filter_map(|one| one["value"]["doubleValue"].as_f64()).collect();
        assert_eq!(told, [2.0], "{span}");
    }
    let refused = exported("redaction: off\n");
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("expected `sampling`"), "{}", refused.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_exported_and_imported_is_exported_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let server = Server::start(&data_dir);
    fill(&server, 1..20).await;
    let out = dir.path().join("first");
    let out_text = format!("{}/", out.display());
    run(&data_dir, &["export", "--out", &out_text]).ok();
    server.stop();
    let traces = lines(&out.join("traces.jsonl"));
    assert_eq!(traces.len(), 19);
    let one = run(&data_dir, &["export", "--trace", &TraceId::from_u128(3).to_string()]).ok();
    assert_eq!(one.lines().count(), 2, "its spans, and its logs with its decision");
    assert_eq!(run(&data_dir, &["export", "--trace", &TraceId::from_u128(99).to_string()]).code, 3);

    let other = dir.path().join("other");
    let server = Server::start(&other);
    let files = ["traces.jsonl", "logs.jsonl"].map(|name| out.join(name).display().to_string());
    let import = ["import", "--endpoint", &server.http, &files[0], &files[1]];
    let done = run(&other, &import).ok();
    assert!(done.contains("38 requests are on the server's disk, 0 rejected"), "{done}");
    let again = dir.path().join("second");
    let again_text = format!("{}/", again.display());
    run(&other, &["export", "--out", &again_text]).ok();
    assert_eq!(lines(&again.join("traces.jsonl")), traces);
    assert_eq!(lines(&again.join("logs.jsonl")), lines(&out.join("logs.jsonl")));
    // Once more: spans and decisions are known already.
    run(&other, &["import", "--endpoint", &server.http, &files[0]]).ok();
    let stats = server.get_json("/api/v1/stats").await;
    // Each trace has one that was sent and one that was derived from its spans.
    assert_eq!(stats["decisions"], 38);
    let derived = |of: &Path| {
        let of = lines(&of.join("logs.jsonl"));
        of.iter().map(|line| line.matches("\"derived\"").count()).sum::<usize>()
    };
    assert_eq!((derived(&out), derived(&again)), (19, 19));
    run(&other, &["export", "--out", &again_text]).ok();
    assert_eq!(lines(&again.join("traces.jsonl")), traces);
    let wrong = dir.path().join("wrong.jsonl");
    std::fs::write(&wrong, "{\"a\":1}\n").expect("written");
    let refused =
        run(&other, &["import", "--endpoint", &server.http, wrong.to_str().expect("UTF-8")]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("wrong.jsonl:1: expected an OTLP JSON"), "{}", refused.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_are_exported_as_parquet() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let server = Server::start(&data_dir);
    fill(&server, 1..20).await;
    let out = dir.path().join("tables");
    let path = out.to_str().expect("UTF-8");
    let rows = |table: &str| {
        // The footer ends with its length and the mark; what is in it, the interop tests read.
        let bytes = std::fs::read(out.join(format!("{table}.parquet"))).expect("a file");
        assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"), "{table}");
        bytes.len()
    };
    run(&data_dir, &["export", "--parquet", "--out", path]).ok();
    let all: Vec<usize> = ["traces", "spans", "decisions", "logs"].map(rows).into();
    assert!(run(&data_dir, &["audit", "reads"]).ok().contains("export"));
    run(&data_dir, &["export", "--parquet", "--out", path, "--since", "2026-11-23T00:00Z"]).ok();
    let none: Vec<usize> = ["traces", "spans", "decisions"].map(rows).into();
    assert!(none.iter().zip(&all).all(|(none, all)| none < all), "{none:?} {all:?}");
    let unknown = TraceId::from_u128(99).to_string();
    let missing = run(&data_dir, &["export", "--parquet", "--out", path, "--trace", &unknown]);
    assert_eq!(missing.code, 3, "{}", missing.stderr);
    let nowhere = run(&data_dir, &["export", "--parquet"]);
    assert_eq!(nowhere.code, 2, "{}", nowhere.stderr);
    assert!(nowhere.stderr.contains("name one with --out"), "{}", nowhere.stderr);
    server.stop();
}

/// The number behind a name in the log of a command.
fn told(log: &str, name: &str) -> u64 {
    let digits = |rest: &str| rest.chars().take_while(char::is_ascii_digit).collect::<String>();
    let found = log.split_once(&format!("{name}=")).map(|(_, rest)| digits(rest));
    found.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("no {name} in {log}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tables_of_an_agent_have_its_traces_whole_as_the_lines_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let server = Server::start(&data_dir);
    fill(&server, 1..3).await;
    let mut exporter = Exporter::connect(&server.grpc).await;
    // Of the first, only the second of three spans names the agent; of the second, none does.
    for (trace, agents) in [(11, ["shop", "fraud", ""]), (12, ["shop", "stock", ""])] {
        let trace = TraceId::from_u128(trace);
        let spans = agents.into_iter().zip(1..).map(|(agent, id)| {
            let attributes = (!agent.is_empty()).then(|| text(keys::AGENT_ID, agent));
            let parent = (id > 1).then_some(1);
            span(trace, id, parent, "step", (id, id + 1), attributes.into_iter().collect())
        });
        exporter.send_traces(traces("checkout", spans.collect())).await.expect("acknowledged");
        let mut of_shop = decision(trace, 1, DecisionId::random(), "ship");
        of_shop.attributes.retain(|pair| pair.key != keys::AGENT_ID);
        of_shop.attributes.push(text(keys::AGENT_ID, "shop"));
        let records = vec![log(trace, 3, "said without an agent"), of_shop];
        exporter.send_logs(logs("checkout", records)).await.expect("acknowledged");
    }
    // Of a trace that has no spans.
    let alone = decision(TraceId::from_u128(13), 1, DecisionId::random(), "hold");
    exporter.send_logs(logs("checkout", vec![alone])).await.expect("acknowledged");
    let out = dir.path().join("tables");
    let path = out.to_str().expect("UTF-8");
    let of_agent = ["--log", "info", "export", "--agent", "fraud"];
    let lines = run(&data_dir, &of_agent);
    let tables = run(&data_dir, &[&of_agent[..], &["--parquet", "--out", path]].concat());
    let rows = |table: &str| {
        let line = tables.stderr.lines().find(|line| line.contains(&format!("{table}.parquet")));
        told(line.unwrap_or_else(|| panic!("{}", tables.stderr)), "rows")
    };
    for table in ["spans", "logs", "decisions"] {
        assert_eq!(rows(table), told(&lines.stderr, table), "{table}: {}", lines.stderr);
    }
    assert_eq!((rows("traces"), rows("logs")), (3, 3));
    // After all of them began: only decisions of that time, of which there are none.
    let later = ["--parquet", "--out", path, "--since", "2026-11-23T00:00Z"];
    let tables = run(&data_dir, &[&of_agent[..], &later].concat());
    assert_eq!(tables.stderr.matches("rows=0").count(), 4, "{}", tables.stderr);
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_is_too_large_keeps_no_other_out() {
    let dir = tempfile::tempdir().expect("a directory");
    configure(dir.path(), "limits: { max_request_bytes: 1048576 }\n");
    let data_dir = dir.path().join("data");
    let server = Server::start(&data_dir);
    fill(&server, 1..4).await;
    let out = dir.path().join("lines.jsonl");
    let file = out.to_str().expect("UTF-8").to_owned();
    run(&data_dir, &["export", "--out", &file]).ok();
    server.stop();
    let mut lines = lines(&out);
    let large =
        lines[0].replace("\"name\":", &format!("\"x\":\"{}\",\"name\":", "y".repeat(1_200_000)));
    assert!(large.len() > 1_048_576, "{}", large.len());
    lines.insert(1, large);
    std::fs::write(&out, lines.join("\n")).expect("written");
    let other = dir.path().join("other");
    let server = Server::start(&other);
    let import = run(&other, &["import", "--endpoint", &server.http, &file]);
    assert_eq!(import.code, 1, "{}", import.stderr);
    assert!(import.stderr.contains("1 line is larger than the server takes"), "{}", import.stderr);
    assert!(import.stdout.contains("6 requests are on the server's disk"), "{}", import.stdout);
    let stats = server.get_json("/api/v1/stats").await;
    assert_eq!(stats["traces"], 3);
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_in_the_time_that_is_exported_goes_without_a_trace_that_began_before() {
    const LATER: u64 = 5_000_000_000;
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let server = Server::start(&data_dir);
    let mut exporter = Exporter::connect(&server.grpc).await;
    let trace = TraceId::from_u128(7);
    exporter.send_traces(fraud_trace(trace)).await.expect("acknowledged");
    let mut late = decision(trace, 2, DecisionId::random(), "late decision");
    let at = i64::try_from(NOON + LATER).expect("before 2262");
    late.attributes.retain(|pair| pair.key != keys::TIMESTAMP_NS);
    late.attributes.push(int(keys::TIMESTAMP_NS, at));
    let mut records = vec![
        log(trace, 2, "late log"),
        log(TraceId::from_u128(8), 1, "log of a trace without spans"),
        late,
    ];
    records.iter_mut().for_each(|record| record.time_unix_nano = NOON + LATER);
    records.push(log(trace, 2, "early log"));
    exporter.send_logs(logs("checkout", records)).await.expect("acknowledged");
    let late = ["late log", "late decision", "log of a trace without spans"];
    let part = run(&data_dir, &["export", "--since", "2026-11-22T12:00:01Z"]).ok();
    assert!(!part.contains("resourceSpans") && !part.contains("early log"), "{part}");
    assert!(late.iter().all(|text| part.matches(text).count() == 1), "{part}");
    // What goes with its trace goes once.
    let all = run(&data_dir, &["export", "--since", "2026-11-22T12:00Z"]).ok();
    assert!(all.contains("resourceSpans") && all.contains("early log"), "{all}");
    assert!(late.iter().all(|text| all.matches(text).count() == 1), "{all}");
    server.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_redacted_is_exported_and_imported_with_its_marks() {
    let dir = tempfile::tempdir().expect("a directory");
    configure(dir.path(), RULES);
    let data_dir = dir.path().join("data");
    let server = Server::start(&data_dir);
    send_everything(&server, TraceId::from_u128(0xabc)).await;
    let export = |of: &Path, name: &str| {
        let out = dir.path().join(name);
        run(of, &["export", "--out", &format!("{}/", out.display())]).ok();
        ["traces.jsonl", "logs.jsonl"].map(|name| lines(&out.join(name)))
    };
    let first = export(&data_dir, "first");
    server.stop();
    let told = format!("{first:?}");
    assert!(told.contains("throughline.redacted") && told.contains("[api_key]"), "{told}");
    assert!(!MARKS.iter().any(|mark| told.contains(mark)), "{told}");
    // By the same door, with rules of its own: what is masked already is not masked again.
    let other = dir.path().join("other");
    let server = Server::start(&other);
    for name in ["traces.jsonl", "logs.jsonl"] {
        let path = dir.path().join("first").join(name).display().to_string();
        run(&other, &["import", "--endpoint", &server.http, &path]).ok();
    }
    // What was posted without a service is of an unknown one now.
    let unknown = r#"{"key":"service.name","value":{"stringValue":"unknown_service"}}"#;
    let mut second = export(&other, "second");
    second.iter_mut().flatten().for_each(|line| *line = line.replace(unknown, ""));
    second.iter_mut().for_each(|lines| lines.sort_unstable());
    assert_eq!(second, first);
    server.stop();
    run(&other, &["audit", "verify"]).ok();
    run(&other, &["store", "verify"]).ok();
}
