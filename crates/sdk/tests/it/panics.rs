//! What went wrong, on the trace and nowhere else (requirement R4.3): the closed list of kinds, and
//! where a panic came from.

use serde_json::json;
use throughline::{ErrorType, Recorder, keys, span};

use crate::provider::recorded;

#[test]
fn r4_3_error_type_is_a_closed_list() {
    let (recorder, telemetry) = recorded();
    let _in = telemetry.enter();
    for kind in ErrorType::ALL {
        let failed = span("step").start();
        failed.fail(kind, "reqwest::Error { kind: Request }");
        failed.end();
        assert_eq!(ErrorType::from_text(kind.as_str()), Some(kind));
    }
    let told: Vec<String> = recorder.spans().iter().map(error_type).collect();
    insta::assert_snapshot!(told.join(" "), @"TIMEOUT CIRCUIT_OPEN RATE_LIMITED CANCELLED CONNECTION SERVER INVALID_REQUEST AUTH INVALID_RESPONSE STREAM_FAILED POLICY_REJECTED CONTENT_FILTERED TOOL_FAILED TOOL_MISSING INVALID_ARGUMENTS FALLBACK_EXHAUSTED OVERLOADED PANIC _OTHER");
    for foreign in ["reqwest::Error", "rate_limit_exceeded", "500", "timeout", ""] {
        assert_eq!(ErrorType::from_text(foreign), None, "{foreign}");
    }
}

fn error_type(span: &opentelemetry_sdk::trace::SpanData) -> String {
    let kind = span.attributes.iter().find(|entry| entry.key.as_str() == keys::ERROR_TYPE);
    kind.expect("an error type").value.to_string()
}

/// The spans that say where a panic came from, each with the first line of what it says.
fn stacks(recorder: &Recorder) -> Vec<String> {
    let stack = |span: &opentelemetry_sdk::trace::SpanData| {
        let stack = span.attributes.iter().find(|entry| entry.key.as_str() == keys::ERROR_STACK)?;
        let stack = stack.value.to_string();
        let line = stack.lines().next().unwrap_or_default();
        let place = line.split(".rs:").next().unwrap_or_default();
        Some(format!("{}: {place}.rs", span.name))
    };
    recorder.spans().iter().filter_map(stack).collect()
}

#[test]
fn r4_3_the_innermost_span_of_a_panic_says_where_it_came_from() {
    let (recorder, telemetry) = recorded();
    let _in = telemetry.enter();
    let unwound = std::panic::catch_unwind(|| {
        span("outer").start().in_scope(|| {
            let _inner = span("inner").start();
            panic!("the card number is 4111");
        });
    });
    unwound.expect_err("a panic");
    insta::assert_snapshot!(stacks(&recorder).join("\n"), @"inner: panicked at crates/sdk/tests/it/panics.rs");
    assert!(!format!("{:?}", recorder.spans()).contains("4111"), "its message may say anything");
}

#[cfg(feature = "server")]
#[tokio::test]
async fn r4_3_a_stack_never_reaches_the_client_of_a_served_agent() {
    use crate::provider::Puppet;
    use crate::served::client;
    let (recorder, telemetry) = recorded();
    // A model without a script panics when it is asked.
    let model = throughline::Traced::new(Puppet::new([]));
    let agent = throughline::Agent::builder("shop", model, "gpt-4o").build().expect("an agent");
    let server = throughline::serve_agent(agent);
    let server = telemetry.scope(server.start()).await.expect("a server");
    let url = format!("http://{}/v1/agents/shop/run", server.address());
    let answer = client().post(url).json(&json!({"task": "Is it there?"})).send().await;
    let told = match answer {
        Ok(answer) => {
            let headers = format!("{:?}", answer.headers());
            headers + &answer.text().await.unwrap_or_else(|error| error.to_string())
        }
        Err(error) => error.to_string(),
    };
    for secret in ["panicked", ".rs", "stack", "a step"] {
        assert!(!told.contains(secret), "{told}");
    }
    server.shutdown().await;
    let stacks = stacks(&recorder);
    assert_eq!(stacks.len(), 1, "{stacks:?}");
    assert!(stacks[0].contains("tests/it/provider.rs"), "{stacks:?}");
}
