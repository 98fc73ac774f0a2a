//! Prints what a span costs on its way into a rollup: finding its facts, and adding them.
//!
//! `cargo run --release -p throughline-trace --example rollup_figures`. One thread; wall time.
#![expect(clippy::print_stdout, reason = "figures are what this program is for")]

use std::sync::Arc;
use std::time::Instant;

use throughline_trace::{Rollup, Span, SpanFacts, SpanId, TraceId};

/// Spans that are made; a group of the store has as many.
const SPANS: u64 = 16_384;

/// Times that each is counted.
const ROUNDS: u32 = 40;

fn span(n: u64) -> Span {
    let mut span = Span::new(TraceId::from_u128(1), SpanId::from_u64(n + 1), None, "chat gpt-4o");
    span.end_unix_nano = (n * 7_919) % 3_000_000_000;
    for (key, value) in [
        ("agent_id", "fraud"),
        ("session_id", "s-1"),
        ("workflow_id", "w-1"),
        ("ai.phase", "plan"),
        ("gen_ai.operation.name", if n.is_multiple_of(3) { "chat" } else { "invoke_agent" }),
        ("gen_ai.request.model", "gpt-4o"),
        ("gen_ai.response.model", "gpt-4o-2026"),
        ("model_version", "v7"),
        ("outcome", "ok"),
    ] {
        span.attributes.set(key, value);
    }
    span.attributes.set("gen_ai.usage.input_tokens", 700 + (n % 900) as i64);
    span.attributes.set("gen_ai.usage.output_tokens", 80_i64);
    span.attributes.set("throughline.cost_usd", 0.002);
    span
}

fn main() {
    let spans: Vec<Span> = (0..SPANS).map(span).collect();
    let shared = throughline_trace::DimensionsRef::of_span(&spans[0]).to_shared();
    let mut facts = Vec::new();
    let begin = Instant::now();
    for _ in 0..ROUNDS {
        facts = spans
            .iter()
            .map(|span| {
                SpanFacts::of(span, span.role(), |of| {
                    if of.is(&shared) { Arc::clone(&shared) } else { of.to_shared() }
                })
            })
            .collect();
    }
    let found = begin.elapsed();
    let mut rollup = Rollup::default();
    let begin = Instant::now();
    for _ in 0..ROUNDS {
        facts.iter().for_each(|facts| rollup.add_span(facts));
    }
    let added = begin.elapsed();
    let per_span =
        |time: std::time::Duration| time.as_nanos() as f64 / f64::from(ROUNDS) / SPANS as f64;
    println!("facts: {:.0} ns a span; adding: {:.0} ns a span", per_span(found), per_span(added));
    println!("{} spans counted", rollup.spans);
}
