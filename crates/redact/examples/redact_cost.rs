//! Prints what redaction costs: nanoseconds of one thread for each span.
//!
//! `cargo run --release -p throughline-redact --example redact_cost`
//!
//! Spans in which there is nothing to find, of the forms that decoding is measured with; then a
//! model call with its messages as JSON; then one in which something is found.

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use throughline_redact::{Action, Builtin, RedactionConfig, Redactor, RuleConfig};
use throughline_trace::{Span, SpanBatch, SpanId, TraceId, Value, keys};

/// Spans of one batch, as an SDK sends them.
const SPANS: u64 = 512;

/// Batches redacted for one figure.
const ROUNDS: u32 = 400;

/// Attributes of a span, and bytes of text that half of them share.
const ATTRIBUTES: usize = 12;
const TEXT_BYTES: usize = 400;

/// Words as a conversation has them.
const PROSE: &str = "The three payments of this morning came from one card, which was used in two \
countries within 40 minutes; see https://example.com/cases/1204 for what the bank says about it. ";

fn batch(attributes: fn(&mut Span)) -> SpanBatch {
    let span = |number| {
        let trace = TraceId::from_u128(u128::from(number) | 1 << 100);
        let mut span =
            Span::new(trace, SpanId::from_u64(number), None, "researcher.act.web_search");
        attributes(&mut span);
        span
    };
    SpanBatch { spans: (1..=SPANS).map(span).collect(), ..SpanBatch::default() }
}

fn prose(bytes: usize) -> String {
    PROSE.chars().cycle().take(bytes).collect()
}

fn plain(span: &mut Span) {
    for number in 0..ATTRIBUTES {
        let value = match number % 4 {
            0 | 1 => Value::String(prose(TEXT_BYTES / (ATTRIBUTES / 2))),
            2 => Value::Int(number as i64),
            _ => Value::Bool(true),
        };
        span.attributes.set(format!("gen_ai.some.attribute.{number}"), value);
    }
}

fn model_call(span: &mut Span) {
    plain(span);
    let message = |role: &str| {
        let parts = serde_json::json!([{ "type": "text", "content": prose(500) }]);
        serde_json::json!({ "role": role, "parts": parts })
    };
    let messages = serde_json::Value::from(vec![message("user"), message("assistant")]);
    span.attributes.set(keys::GEN_AI_INPUT_MESSAGES, messages.to_string());
}

fn with_finds(span: &mut Span) {
    model_call(span);
    let arguments = serde_json::json!({ "to": "eve@example.com", "password": "hunter2" });
    span.attributes.set(keys::GEN_AI_TOOL_CALL_ARGUMENTS, arguments.to_string());
}

#[expect(clippy::print_stdout, reason = "printing figures is what it is for")]
fn main() -> Result<(), Box<dyn Error>> {
    let personal = [Builtin::Email, Builtin::Phone, Builtin::Card]
        .map(|builtin| RuleConfig::builtin(builtin, Action::Hash));
    let all = RedactionConfig { rules: personal.to_vec(), ..RedactionConfig::default() };
    println!("{SPANS} spans a batch, {ATTRIBUTES} attributes and {TEXT_BYTES} bytes of text each");
    for (rules, config) in [("default rules", RedactionConfig::default()), ("all built-in", all)] {
        let redactor = Redactor::new(&config, [7; 32], &mut Registry::default())?;
        for (kind, attributes) in [
            ("nothing to find", plain as fn(&mut Span)),
            ("+ 1,100 bytes of messages", model_call),
            ("+ finds in tool arguments", with_finds),
        ] {
            let batch = batch(attributes);
            // The fastest batch: what else the machine does is no cost of ours.
            let mut fastest = Duration::MAX;
            for _ in 0..ROUNDS {
                let copy = batch.clone();
                let started = Instant::now();
                let redacted = black_box(redactor.redact(copy));
                fastest = fastest.min(started.elapsed());
                drop(redacted);
            }
            let nanos = fastest.as_nanos() / u128::from(SPANS);
            println!("{rules}, {kind}: {nanos} ns a span");
        }
    }
    Ok(())
}
