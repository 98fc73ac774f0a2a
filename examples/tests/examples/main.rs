//! Every example runs here as a process of its own, and sends its trace to a receiver; what came is
//! told as a tree.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

mod receiver;

use std::process::Command;

use receiver::Receiver;

/// Runs an example against the simulated provider; answers the tree of what it sent.
fn tree_of(example: &str) -> String {
    let receiver = Receiver::start();
    run(example, &receiver);
    receiver.tree()
}

fn run(example: &str, receiver: &Receiver) -> String {
    let mut command = Command::new(example);
    for (name, _) in std::env::vars() {
        if name.starts_with("OTEL_") || name.starts_with("OPENAI_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    let output = command
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url())
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
