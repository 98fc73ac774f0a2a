//! `throughline check`: a rule is read, and held against what is stored.

use throughline_rules::limits::MAX_SOURCE_BYTES;
use throughline_trace::{DecisionId, TraceId};

use crate::export::{Exporter, decision, fraud_trace, logs};
use crate::server::{Server, run, run_on};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r5_6_a_rule_says_what_it_would_have_said_of_what_is_stored() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let server = Server::start(&data_dir);
    let mut exporter = Exporter::connect(&server.grpc).await;
    for number in [0xa, 0xb, 0xc] {
        let trace = TraceId::from_u128(number);
        exporter.send_traces(fraud_trace(trace)).await.expect("acknowledged");
        let records = vec![decision(trace, 2, DecisionId::random(), "check_velocity")];
        exporter.send_logs(logs("checkout", records)).await.expect("acknowledged");
    }
    for (rule, of, counts) in [
        (r#"span.role == "llm_call" && span.model.startsWith("gpt-4")"#, "span", [3, 9, 0]),
        (r#"span.attributes["gen_ai.usage.output_tokens"] > 300"#, "span", [3, 0, 9]),
        ("trace.error_count > 0", "trace", [3, 0, 0]),
        (r#"decision.action == "check_velocity""#, "decision", [3, 3, 0]),
    ] {
        let args = ["check", rule, "--of", of, "--replay", "3650d", "--json"];
        let told: serde_json::Value =
            serde_json::from_str(&run(&data_dir, &args).ok()).expect("JSON");
        let found = ["yes", "no", "errors"].map(|what| told["replay"][what].as_u64());
        assert_eq!(found, counts.map(Some), "{rule}: {told}");
    }
    // What was read of decisions, and nothing else, is in the audit log.
    let noted = run(&data_dir, &["audit", "reads", "--json"]).ok();
    let noted: Vec<serde_json::Value> =
        noted.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let [read] = noted.as_slice() else { panic!("one read, got {noted:?}") };
    assert_eq!(read["query"], r#"check decision.action == "check_velocity""#);
    assert_eq!(read["rows"], 6);
    let args = ["check", "span.duration_ms > 1e9", "--replay", "3650d", "--max", "2"];
    let told = run(&data_dir, &args).ok();
    assert!(told.contains("looked at 8 spans") && told.contains("there is more"), "{told}");
    let told = run(&data_dir, &["check", "trace.span_count > 3", "--of", "trace"]).ok();
    assert!(told.contains("a rule about traces"), "{told}");
    server.stop();
}

#[test]
fn r5_6_a_rule_that_cannot_be_used_is_shown_with_its_mistakes() {
    let dir = tempfile::tempdir().expect("a directory");
    let refused = run(&dir.path().join("data"), &["check", r#"span.rol == "step" && span.x"#]);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    for part in ["expected a field of span, got rol", "did you mean role?", "^^^", "hint: docs/"] {
        assert!(refused.stderr.contains(part), "{part} in {}", refused.stderr);
    }
}

#[test]
fn r5_6_a_rule_on_standard_input_is_text_of_a_length() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let told = run_on(&data_dir, &["check", "-"], b"span.is_root\n").ok();
    assert!(told.contains("a rule about spans"), "{told}");
    // One byte, and then characters of two: the first byte too many is half of one.
    let long = format!("\"{}\"", "é".repeat(MAX_SOURCE_BYTES / 2));
    for (input, message) in
        [(long.as_bytes(), "at most 16384 bytes"), (b"span.name == '\xff'", "is not UTF-8")]
    {
        let refused = run_on(&data_dir, &["check", "-"], input);
        assert_eq!(refused.code, 2, "{}", refused.stderr);
        assert!(refused.stderr.contains(message), "{}", refused.stderr);
    }
}
