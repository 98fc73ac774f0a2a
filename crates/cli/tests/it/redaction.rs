//! Invariant 3: what is redacted never reaches the disk, whatever it came by.

use std::fs;
use std::path::Path;

use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{Status, status};
use throughline_trace::{DecisionId, TraceId, keys};

use crate::export::{Exporter, NOON, decision, log, logs, resource, span, text, traces};
use crate::server::{Server, client, run};

/// Marks of secrets that no test data but these has.
const KEY_MARK: &str = "QzMarkOfAKey0123456789abcdefQz";
const PASSWORD_MARK: &str = "QzMarkOfAPasswordQz";
const EMAIL_MARK: &str = "qzmark.of.a.person@example.com";
const PATH_MARK: &str = "QzMarkAtAPlaceQz";
const OWN_MARK: &str = "CUST-70707070707";

pub(crate) const MARKS: [&str; 5] = [KEY_MARK, PASSWORD_MARK, EMAIL_MARK, PATH_MARK, OWN_MARK];

const NONE: [String; 0] = [];

pub(crate) const RULES: &str = "\
redaction:
  rules:
    - { builtin: email, action: hash }
    - { name: customer, pattern: 'CUST-[0-9]+' }
    - { name: ssn, path: $.customer.ssn, fields: [gen_ai.tool.call.arguments] }
    - { name: gone, keys: ['*.pin'], action: drop }
";

fn key() -> String {
    format!("sk-{KEY_MARK}")
}

/// Every mark at once, in prose.
fn prose() -> String {
    format!("key {} of {EMAIL_MARK}, {OWN_MARK}; db postgres://app:{PASSWORD_MARK}@db", key())
}

/// Where one of the marks is in a file, if it is anywhere.
fn leak_in(path: &Path) -> Option<String> {
    let bytes = fs::read(path).expect("a readable file");
    let found = |mark: &&str| bytes.windows(mark.len()).any(|window| window == mark.as_bytes());
    MARKS.into_iter().find(found).map(|mark| format!("{mark} in {}", path.display()))
}

fn files(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// Marks that are anywhere in the data directory, with their files.
fn leaks(data_dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    files(data_dir, &mut found);
    assert!(found.len() >= 3, "control, lock and a segment at least: {found:?}");
    found.iter().filter_map(|path| leak_in(path)).collect()
}

/// A run whose every text has secrets in it.
fn leaky_trace(trace: TraceId) -> Vec<opentelemetry_proto::tonic::trace::v1::Span> {
    let messages = serde_json::json!([{ "role": "user", "parts": [
        { "type": "text", "content": prose() },
        { "type": "tool_call", "arguments": { "password": PASSWORD_MARK } }
    ]}]);
    let arguments = serde_json::json!({ "customer": { "ssn": PATH_MARK }, "note": prose() });
    let attributes = vec![
        text(keys::AGENT_ID, "support"),
        text(keys::GEN_AI_OPERATION_NAME, "chat"),
        text(keys::GEN_AI_REQUEST_MODEL, "gpt-4o"),
        text(keys::GEN_AI_INPUT_MESSAGES, messages.to_string()),
        text(keys::GEN_AI_TOOL_CALL_ARGUMENTS, arguments.to_string()),
        text("llm.input_messages.0.message.content", prose()),
        text("http.request.header.authorization", format!("Bearer {KEY_MARK}")),
        text("card.pin", PATH_MARK),
        text(keys::SESSION_ID, EMAIL_MARK),
    ];
    let mut leaky = span(trace, 1, None, &prose(), (0, 10), attributes);
    leaky.status = Some(Status { code: status::StatusCode::Error as i32, message: prose() });
    leaky.events = vec![Event {
        time_unix_nano: NOON,
        name: format!("said {}", key()),
        attributes: vec![text("exception.message", prose())],
        ..Event::default()
    }];
    leaky.links = vec![Link {
        trace_id: trace.as_bytes().to_vec(),
        span_id: vec![7; 8],
        attributes: vec![text("why", prose())],
        ..Link::default()
    }];
    vec![leaky]
}

/// Sends the marks by every signal, and waits until all of it is acknowledged.
pub(crate) async fn send_everything(server: &Server, trace: TraceId) {
    let mut exporter = Exporter::connect(&server.grpc).await;
    let mut sent = traces("checkout", leaky_trace(trace));
    let mut leaky_resource = resource("checkout");
    leaky_resource.attributes.push(text("process.command_args", prose()));
    sent.resource_spans[0].resource = Some(leaky_resource);
    exporter.send_traces(sent).await.expect("acknowledged");
    let mut record = log(trace, 1, &prose());
    record.attributes.push(text("exception.stacktrace", prose()));
    let mut decided = decision(trace, 1, DecisionId::random(), &prose());
    for attribute in &mut decided.attributes {
        if [keys::DECISION_REASON, keys::STAGE].contains(&attribute.key.as_str()) {
            *attribute = text(&attribute.key, prose());
        }
    }
    decided.attributes.push(text("input", prose()));
    exporter.send_logs(logs("checkout", vec![record, decided])).await.expect("acknowledged");
    let point = serde_json::json!({ "resourceMetrics": [{ "scopeMetrics": [{ "metrics": [{
        "name": "requests", "gauge": { "dataPoints": [{ "asInt": "1",
            "timeUnixNano": NOON.to_string(),
            "attributes": [{ "key": "user", "value": { "stringValue": prose() } }] }] }
    }]}]}]});
    let answer = client().post(format!("{}/v1/metrics", server.http)).json(&point).send().await;
    assert_eq!(answer.expect("an answer").status().as_u16(), 200);
    let decided = serde_json::json!({ "decision_id": DecisionId::random().to_string(),
        "timestamp_ns": NOON.to_string(), "stage": "plan", "input": prose(),
        "decision": { "action": "refund", "reason": prose() } });
    let url = format!("{}/api/v1/decisions", server.web);
    let answer = client().post(url).json(&decided).send().await;
    assert_eq!(answer.expect("an answer").status().as_u16(), 200);
    let zipkin = serde_json::json!([{ "traceId": "abd", "id": "1", "name": prose(),
        "timestamp": NOON / 1_000, "tags": { "note": prose() },
        "annotations": [{ "timestamp": NOON / 1_000, "value": prose() }] }]);
    let answer = client().post(format!("{}/api/v2/spans", server.http)).json(&zipkin).send().await;
    assert_eq!(answer.expect("an answer").status().as_u16(), 202);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_redacted_never_reaches_the_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    fs::write(dir.path().join("throughline.yaml"), RULES).expect("written");
    let server = Server::start(&data_dir);
    let trace = TraceId::from_u128(0xabc);
    send_everything(&server, trace).await;

    // While it runs, with all that is in the write-ahead log; then what a clean end leaves.
    assert_eq!(leaks(&data_dir), NONE);
    let told = server.get("/metrics", None).await.1;
    let counted = r#"throughline_redactions_total{rule="api_key",field="message"} 1"#;
    assert!(told.contains(counted), "{told}");
    // What is compressed on disk is read back.
    let mut found = server.get_json(&format!("/api/v1/traces/{trace}")).await.to_string();
    for path in ["/api/v1/decisions", "/api/v1/logs", "/api/v1/metrics"] {
        found += &server.get_json(path).await.to_string();
    }
    for mark in MARKS {
        assert!(!found.contains(mark), "{mark} in {found}");
    }
    for expected in
        ["[api_key]", "[email:", "[customer]", "[ssn]", "throughline.redacted", "gpt-4o"]
    {
        assert!(found.contains(expected), "{expected} in {found}");
    }
    server.stop();
    assert_eq!(leaks(&data_dir), NONE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redaction_the_same_search_finds_them() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    fs::write(dir.path().join("throughline.yaml"), "redaction: off\n").expect("written");
    let server = Server::start(&data_dir);
    send_everything(&server, TraceId::from_u128(0xabc)).await;
    let found = leaks(&data_dir);
    assert!(found.iter().any(|leak| leak.contains("-wal")), "{found:?}");
    assert!(found.iter().any(|leak| leak.contains("control.db")), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hashes_join_across_restarts_and_with_a_key_of_ones_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let config = dir.path().join("throughline.yaml");
    let rules = "redaction:\n  rules: [{ builtin: email, action: hash }]\n";
    fs::write(&config, rules).expect("written");
    let mut names = Vec::new();
    for (number, own_key) in [(1, false), (2, false), (3, true)] {
        if own_key {
            fs::write(dir.path().join("my.key"), "0123456789abcdef0123456789abcdef\n")
                .expect("written");
            fs::write(&config, format!("{rules}  hash_key_file: my.key\n")).expect("written");
        }
        let server = Server::start(&data_dir);
        let trace = TraceId::from_u128(number);
        let sent = vec![span(trace, 1, None, EMAIL_MARK, (0, 1), Vec::new())];
        let mut exporter = Exporter::connect(&server.grpc).await;
        exporter.send_traces(traces("checkout", sent)).await.expect("acknowledged");
        let tree = run(&data_dir, &["trace", &trace.to_string()]).ok();
        let from = tree.find("[email:").expect("a hash");
        names.push(tree[from..from + "[email:0123456789ab]".len()].to_owned());
        server.stop();
    }
    assert_eq!(names[0], names[1]);
    assert_ne!(names[0], names[2]);
}

#[test]
fn a_server_with_wrong_rules_does_not_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let refused = |yaml: &str| {
        fs::write(dir.path().join("throughline.yaml"), yaml).expect("written");
        let finished = run(&data_dir, &["serve"]);
        assert_eq!(finished.code, 2, "{}", finished.stderr);
        finished.stderr
    };
    insta::assert_snapshot!(refused("redaction:\n  rules:\n    - { name: a, pattern: 'C-[' }\n"), @r"
    error: throughline.yaml:3:27: pattern `C-[`, column 3: unclosed character class
    hint: docs/redaction.md tells what a rule may say
    ");
    let twice =
        "redaction:\n  rules:\n    - { name: a, pattern: b }\n    - { name: a, pattern: c }\n";
    insta::assert_snapshot!(refused(twice), @r"
    error: expected a name of its own for each redaction rule, got `a` twice
    hint: see `redaction.rules` in the configuration file
    ");
    insta::assert_snapshot!(refused("redaction: { hash_key_file: none.key }\n").replace(&dir.path().display().to_string(), "DIR"), @r"
    error: cannot read `redaction.hash_key_file` none.key: No such file or directory (os error 2)
    hint: make one with `openssl rand -hex 32`, or leave it out to use the one in the data directory
    ");
}
