//! Every example runs here as a process of its own, and sends its trace to a receiver; what came is
//! told as a tree.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

mod provider;
mod receiver;
mod rig;

use std::process::Command;

use receiver::Receiver;

/// The trace of an agent that asks a tool once.
const AGENT_WITH_A_TOOL: &str = "\
invoke_agent shop
  shop.plan.stock
    chat gpt-4o-mini
  shop.act.stock
    tool.registry.stock_v1
    execute_tool stock_v1
  shop.observe.stock
  shop.reflect.stock
  shop.plan.answer
    chat gpt-4o-mini
  shop.reflect.answer
";

/// Runs an example against the simulated provider; answers the tree of what it sent.
fn tree_of(example: &str) -> String {
    let receiver = Receiver::start();
    run(example, &receiver);
    receiver.tree()
}

fn run(example: &str, receiver: &Receiver) -> String {
    run_with(example, receiver, &[])
}

fn run_with(example: &str, receiver: &Receiver, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(example);
    for (name, _) in std::env::vars() {
        if name.starts_with("OTEL_") || name.starts_with("OPENAI_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    let output = command
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url())
        .envs(variables.iter().copied())
        .output()
        .expect("the example starts");
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{example}: {}\n{stdout}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    stdout
}

#[test]
fn chat() {
    assert_eq!(tree_of(env!("CARGO_BIN_EXE_chat")), "chat gpt-4o-mini\n");
}

#[test]
fn streaming() {
    assert_eq!(
        tree_of(env!("CARGO_BIN_EXE_streaming")),
        "chat gpt-4o-mini\n  http.stream.init\n  http.stream.segment\n"
    );
}

#[test]
fn fallback_chain() {
    let receiver = Receiver::start();
    run(env!("CARGO_BIN_EXE_fallback_chain"), &receiver);
    assert_eq!(receiver.decisions(), ["fallback sim-overloaded", "fallback gpt-4o-mini"]);
    assert_eq!(
        receiver.tree(),
        "\
fallback chat
  attempt chat ! SERVER
    chat sim-server-error ! SERVER
      attempt sim-server-error
      attempt sim-server-error ! SERVER
  attempt chat ! SERVER
    chat sim-overloaded ! SERVER
      attempt sim-overloaded
      attempt sim-overloaded ! SERVER
  attempt chat
    chat gpt-4o-mini
"
    );
}

#[test]
fn tools() {
    assert_eq!(tree_of(env!("CARGO_BIN_EXE_tools")), AGENT_WITH_A_TOOL);
}

/// The program that the guide begins with, word for word: an address and a key are all that it needs.
#[test]
fn minimal() {
    let receiver = Receiver::start();
    let said = run_with(
        env!("CARGO_BIN_EXE_minimal"),
        &receiver,
        &[("OPENAI_BASE_URL", &provider::start()), ("OPENAI_API_KEY", "sk-simulated")],
    );
    let lines = said.lines().map(|line| serde_json::from_str(line).expect("a JSON line"));
    let lines: Vec<serde_json::Value> = lines.collect();
    let line = lines.iter().find(|line| line["message"] == "done").expect("it says so");
    assert!(line["tokens"].as_u64().is_some_and(|tokens| tokens > 0), "{line}");
    assert_eq!(receiver.tree(), AGENT_WITH_A_TOOL);
}

#[test]
fn ab_test() {
    let receiver = Receiver::start();
    let said = run(env!("CARGO_BIN_EXE_ab_test"), &receiver);
    let of = |session: &str| {
        let lines = said.lines().filter_map(|line| line.strip_prefix(session));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let [first, second] = of("ann").try_into().expect("Ann asked twice");
    assert_eq!(first, second, "a session stays in its group");
    let spans = receiver.spans();
    let calls = spans.iter().filter(|span| span.name.starts_with("chat "));
    let mut groups = 0;
    for call in calls {
        let group = call.attributes.str("ab_test_group").expect("a group");
        let model = match group {
            "control" => "gpt-4o",
            "treatment" => "gpt-4o-mini",
            other => panic!("expected control or treatment, got {other}"),
        };
        assert_eq!(call.attributes.str("model_id"), Some(model));
        assert_eq!(call.attributes.f64("routing_weight"), Some(0.5));
        groups += 1;
    }
    assert_eq!(groups, 3);
}

#[test]
fn subprocess() {
    let receiver = Receiver::start();
    let said = run(env!("CARGO_BIN_EXE_subprocess"), &receiver);
    let trace_id = receiver.work()[0].trace_id.to_string();
    assert!(said.contains(&format!("on trace {trace_id}")), "{said}");
    assert!(receiver.tree().contains("    execute_tool count_v1\n"), "{}", receiver.tree());
}

#[test]
fn mcp() {
    assert_eq!(
        tree_of(env!("CARGO_BIN_EXE_mcp")),
        "\
invoke_agent shop
  shop.plan.stock
    chat gpt-4o-mini
  shop.act.stock
    tool.registry.stock_v2
    execute_tool stock_v2
      tools/call stock
  shop.observe.stock
  shop.reflect.stock
  shop.plan.answer
    chat gpt-4o-mini
  shop.reflect.answer
"
    );
}

#[test]
fn existing_agent() {
    assert_eq!(
        tree_of(env!("CARGO_BIN_EXE_existing_agent")),
        "\
invoke_agent shop
  chat gpt-4o-mini
  execute_tool stock
  chat gpt-4o-mini
"
    );
}

#[test]
fn axum_service() {
    assert_eq!(
        tree_of(env!("CARGO_BIN_EXE_axum_service")),
        "\
POST
  POST /orders
    mail the receipt
"
    );
}
