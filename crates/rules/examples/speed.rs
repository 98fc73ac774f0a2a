//! How many evaluations a second one core does of usual rules, beside the `cel` crate where it can do
//! the same: `cargo run --release -p throughline-rules --example speed`.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use throughline_rules::schemas::{Exchange, exchange_schema, span_schema};
use throughline_rules::{Expression, Match, Scope};
use throughline_trace::{Attributes, Span, SpanId, Status, StatusCode, TraceId};

/// How long each rule is measured.
const MEASURED: Duration = Duration::from_secs(2);
/// Evaluations between two looks at the clock.
const BATCH: u32 = 2_000;

const CONTRACT: &str =
    r#"response.status == "ok" && size(response.items) > 0 && response.latency_ms < 800.0"#;
const FILTER: &str = r#"span.role == "llm_call" && span.status == "ERROR" && span.attributes["gen_ai.request.model"].startsWith("gpt-4")"#;

/// A span as an agent's model call has it: the attributes that a rule asks for are not the first.
fn span() -> Result<Span, Box<dyn std::error::Error>> {
    let trace_id: TraceId = "4bf92f3577b34da6a3ce929d0e0e4736".parse()?;
    let mut span = Span::new(trace_id, SpanId::from_u64(1), None, "chat gpt-4o");
    span.status = Status { code: StatusCode::Error, message: "rate limited".to_owned() };
    span.end_unix_nano = 1_200_000_000;
    span.attributes = Attributes::from_iter([
        ("agent_id", "fraud"),
        ("session_id", "s-1"),
        ("workflow_id", "w-1"),
        ("throughline.role", "llm_call"),
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "openai"),
        ("server.address", "api.openai.com"),
        ("gen_ai.request.model", "gpt-4o-2024-08-06"),
        ("gen_ai.response.model", "gpt-4o-2024-08-06"),
        ("error.type", "rate_limit"),
    ]);
    span.attributes.set("gen_ai.usage.input_tokens", 1_200_i64);
    span.attributes.set("gen_ai.usage.output_tokens", 300_i64);
    Ok(span)
}

/// Evaluations a second of something that answers yes: over all of the time, and in the batch that a
/// tenth of all batches are faster than, which a busy machine disturbs less.
fn rate(mut once: impl FnMut() -> bool) -> Option<(f64, f64)> {
    let start = Instant::now();
    let mut batches = Vec::new();
    while start.elapsed() < MEASURED {
        let began = Instant::now();
        for _ in 0..BATCH {
            if !once() {
                return None;
            }
        }
        batches.push(began.elapsed());
    }
    let whole = start.elapsed().as_secs_f64();
    batches.sort();
    let quick = batches.get(batches.len() / 10)?.as_secs_f64();
    Some((f64::from(BATCH) * batches.len() as f64 / whole, f64::from(BATCH) / quick))
}

fn ours(rule: &Expression, scope: &dyn Scope) -> Option<(f64, f64)> {
    rate(|| black_box(rule.matches(black_box(scope))) == Match::Yes)
}

fn theirs(response: &serde_json::Value) -> Option<(f64, f64)> {
    let program = cel::Program::compile(CONTRACT).ok()?;
    let mut context = cel::Context::default();
    context.add_variable("response", response.clone()).ok()?;
    rate(|| matches!(black_box(program.execute(black_box(&context))), Ok(cel::Value::Bool(true))))
}

#[expect(clippy::print_stdout, reason = "the figures are what the example is for")]
fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let response = serde_json::json!({
        "service": "inventory", "status": "ok", "latency_ms": 120.5, "consistency_level": "strong",
        "items": [{"sku": "a", "left": 3}, {"sku": "b", "left": 0}],
    });
    let request = serde_json::json!({"service": "inventory"});
    let exchange = Exchange { request: &request, response: &response };
    let contract = Expression::filter(CONTRACT, &exchange_schema(None, None))?;
    let filter = Expression::filter(FILTER, &span_schema())?;
    let span = span()?;
    println!("one thread, {} s a rule, {} build", MEASURED.as_secs(), build());
    println!("the contract reads JSON of 5 members, the filter a span of 12 attributes\n");
    let mut complete = true;
    for (name, found) in [
        ("contract", ours(&contract, &exchange)),
        ("span filter", ours(&filter, &span)),
        ("span filter, by guards", {
            let guarded = filter.guards();
            guarded.residual.and_then(|residual| ours(&residual, &span))
        }),
        ("contract, the cel crate", theirs(&response)),
    ] {
        match found {
            Some((whole, quick)) => println!(
                "{name:<26} {:>7.2} M/s over all, {:>7.2} M/s undisturbed ({:.0} ns)",
                whole / 1e6,
                quick / 1e6,
                1e9 / quick
            ),
            None => {
                println!("{name:<26} did not answer yes");
                complete = false;
            }
        }
    }
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn build() -> &'static str {
    if cfg!(debug_assertions) { "debug" } else { "release" }
}
