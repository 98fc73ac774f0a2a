//! What one evaluation of a policy in Rego costs: `cargo run --release -p throughline-rules --example rego_speed`.

#![expect(clippy::print_stdout, reason = "an example tells on standard output")]

use std::time::{Duration, Instant};

use serde_json::json;
use throughline_rules::rego::{InputShape, RegoLimits, RegoPolicy};
use throughline_rules::schemas::Call;
use throughline_trace::{Span, SpanId, SpanKind, TraceId};

const PAYMENT: &str = include_str!("../../../deploy/rego/payment_freeze.rego");

const STOCK: &str = r#"package throughline.stock

violation contains "slow" if input.response.latency_ms >= 150

violation contains "not strong" if not input.response.consistency_level == "strong"
"#;

/// How long each is asked.
const TIME: Duration = Duration::from_secs(2);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let signals =
        InputShape::default().with("signals", ["error_budget_consumption_rate".to_owned()]);
    let began = Instant::now();
    let policy = RegoPolicy::compile(
        PAYMENT,
        "data.throughline.payment.violation",
        &signals,
        RegoLimits::default(),
    )?;
    println!("compiled in {:?}", began.elapsed());
    for rate in [0.5, 0.7] {
        let input = json!({"signals": {"error_budget_consumption_rate": rate}});
        let name = format!("payment_freeze at {rate}");
        tell(&name, || policy.ask(input.clone()).map(|_| ()))?;
    }
    let shape = InputShape::open(["request", "response"]);
    let contract = RegoPolicy::compile(
        STOCK,
        "data.throughline.stock.violation",
        &shape,
        RegoLimits::default(),
    )?;
    let mut span = Span::new(TraceId::from_u128(7), SpanId::from_u64(1), None, "GET /stock");
    span.kind = SpanKind::Client;
    span.attributes.set("peer.service", "inventory".to_owned());
    span.attributes.set("response.consistency_level", "strong".to_owned());
    for number in 0..10 {
        span.attributes.set(format!("attribute.{number}"), "a value of usual length".to_owned());
    }
    let call = Call::of(&span).ok_or("a call")?;
    tell("stock, a call of 12 attributes", || contract.ask(call.to_json()).map(|_| ()))
}

fn tell<E: std::error::Error + 'static>(
    name: &str,
    mut ask: impl FnMut() -> Result<(), E>,
) -> Result<(), Box<dyn std::error::Error>> {
    let (began, mut count) = (Instant::now(), 0_u32);
    while began.elapsed() < TIME {
        ask()?;
        count += 1;
    }
    let each = began.elapsed() / count;
    println!("{name}: {each:?} each, {count} evaluations");
    Ok(())
}
