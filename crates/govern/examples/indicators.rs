//! How many spans a second one core holds against 1,000 SLOs, of which a span matches three:
//! `cargo run --release -p throughline-govern --example indicators`.

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use throughline_govern::slo::{Comparison, Indicator, IndicatorSet, Judge};
use throughline_rules::schemas::span_schema;
use throughline_rules::{Expression, Type};
use throughline_trace::{Attributes, Span, SpanId, Status, StatusCode, TraceId};

/// How long each case is measured.
const MEASURED: Duration = Duration::from_secs(3);
/// Spans between two looks at the clock.
const BATCH: u32 = 2_000;
/// Agents that have three SLOs each, and one left over.
const AGENTS: usize = 333;

type Problem = Box<dyn std::error::Error>;

/// Three SLOs an agent, as files have them: it answers, in time, and its tools work.
fn indicators() -> Result<Vec<Arc<Indicator>>, Problem> {
    let filter = |source: &str| Expression::filter(source, &span_schema());
    let mut all = Vec::new();
    for agent in 0..AGENTS {
        let spans = format!(r#"span.role == "llm_call" && span.agent == "agent-{agent}""#);
        let value = Expression::compile("span.duration_ms", &span_schema(), &Type::Double)?;
        let in_time = Judge::Threshold { value, op: Comparison::Lte, threshold: 800.0 };
        let answers = Judge::Bad(filter(r#"span.status == "ERROR""#)?);
        let cheap = Judge::Good(filter("span.cost_usd < 0.01")?);
        for (spans, judge) in [
            (spans.clone(), answers),
            (spans.clone(), in_time),
            (format!("{spans} && span.output_tokens > 0"), cheap),
        ] {
            all.push(Arc::new(Indicator::new(filter(&spans)?, judge)?));
        }
    }
    let tools = filter(r#"span.role == "tool" && span.service == "shop""#)?;
    let judge = Judge::Good(filter(r#"span.status != "ERROR""#)?);
    all.push(Arc::new(Indicator::new(tools, judge)?));
    Ok(all)
}

/// A span as an agent's model call has it.
fn span(agent: &str) -> Result<Span, Problem> {
    let trace_id: TraceId = "4bf92f3577b34da6a3ce929d0e0e4736".parse()?;
    let mut span = Span::new(trace_id, SpanId::from_u64(1), None, "chat gpt-4o");
    span.status = Status { code: StatusCode::Error, message: "rate limited".to_owned() };
    span.end_unix_nano = 1_200_000_000;
    span.attributes = Attributes::from_iter([
        ("agent_id", agent),
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
    span.attributes.set("throughline.cost_usd", 0.004);
    Ok(span)
}

/// Spans a second, over all of the time and in the batch that a tenth of all are faster than, and
/// observations that one span makes.
fn rate(set: &IndicatorSet, span: &Span) -> Option<(f64, f64, u64)> {
    let start = Instant::now();
    let (mut batches, mut seen) = (Vec::new(), 0_u64);
    while start.elapsed() < MEASURED {
        let began = Instant::now();
        for _ in 0..BATCH {
            set.observe(black_box(span), |at, observation| {
                black_box((at, observation));
                seen += 1;
            });
        }
        batches.push(began.elapsed());
    }
    let spans = f64::from(BATCH) * batches.len() as f64;
    let whole = start.elapsed().as_secs_f64();
    batches.sort();
    let quick = batches.get(batches.len() / 10)?.as_secs_f64();
    Some((spans / whole, f64::from(BATCH) / quick, seen / spans as u64))
}

#[expect(clippy::print_stdout, reason = "the figures are what the example is for")]
fn main() -> Result<ExitCode, Problem> {
    let set = IndicatorSet::new(indicators()?);
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    println!(
        "one thread, {} indicators, {} s a case, {build} build\n",
        set.indicators().len(),
        MEASURED.as_secs()
    );
    for (name, agent) in
        [("a span of an agent with SLOs", "agent-77"), ("a span of another", "nobody")]
    {
        if let Some((whole, quick, seen)) = rate(&set, &span(agent)?) {
            let observations = seen as f64 * quick / 1e6;
            println!(
                "{name:<30} {:>6.2} M spans/s over all, {:>6.2} undisturbed ({:.0} ns), {seen} observations each: {observations:.2} M/s",
                whole / 1e6,
                quick / 1e6,
                1e9 / quick
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}
