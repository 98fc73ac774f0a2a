//! How long statements take: `cargo run --release -p throughline-store --example sql_figures`.
//! Figures are printed with their conditions, never asserted: machines are noisy.

use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use throughline_store::{Reader, SqlQuery, Store, StoreOptions};
use throughline_trace::{Resource, Span, SpanBatch, SpanId, StatusCode, TraceId, keys};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Spans of a trace.
const SPANS_PER_TRACE: u64 = 10;

/// Spans of a batch, as exporters send them.
const SPANS_PER_BATCH: u64 = 510;

/// How often each statement is asked.
const TIMES: usize = 7;

/// What ids of traces begin with.
const TRACES: u128 = 0x5eed_0000_0000_0000 << 64;

const MODELS: [&str; 4] = ["gpt-4o", "gpt-4o-mini", "claude-sonnet", "o4-mini"];

fn span(number: u64, begin_unix_nano: u64) -> Span {
    let (trace, place) = (number / SPANS_PER_TRACE, number % SPANS_PER_TRACE);
    let parent = (place > 0).then(|| SpanId::from_u64(1));
    let id = TraceId::from_u128(TRACES + u128::from(trace) + 1);
    let mut span = Span::new(id, SpanId::from_u64(place + 1), parent, "invoke_agent");
    span.start_unix_nano = begin_unix_nano + trace * 2_000_000_000 + place * 50_000_000;
    span.end_unix_nano = span.start_unix_nano + 40_000_000 + number * 7_919 % 900_000_000;
    let service = [("service.name", format!("service-{}", trace % 5))].into_iter().collect();
    span.resource = std::sync::Arc::new(Resource { attributes: service, ..Resource::default() });
    let attributes = &mut span.attributes;
    attributes.set(keys::AGENT_ID, format!("agent-{}", trace % 12));
    attributes.set(keys::SESSION_ID, format!("session-{}", trace % 3_000));
    match place {
        0 => attributes.set(keys::ROLE, "agent_run"),
        1 | 4 | 7 => {
            let model = MODELS[(trace % 4) as usize];
            span.name = format!("chat {model}");
            attributes.set(keys::ROLE, "llm_call");
            attributes.set(keys::GEN_AI_RESPONSE_MODEL, model);
            attributes.set("gen_ai.usage.input_tokens", (500 + number % 3_000) as i64);
            attributes.set("gen_ai.usage.output_tokens", (50 + number % 700) as i64);
            attributes.set(keys::COST_USD, 0.000_1 * (1 + number % 90) as f64);
            let text =
                format!("Question {number}: what is the balance of this account, and is it late?");
            attributes
                .set("gen_ai.input.messages", format!(r#"[{{"role":"user","content":"{text}"}}]"#));
        }
        2 | 5 | 8 => {
            span.name = "execute_tool lookup".to_owned();
            attributes.set(keys::ROLE, "tool");
            attributes.set(keys::GEN_AI_TOOL_NAME, "lookup");
            attributes.set("gen_ai.tool.call.arguments", format!(r#"{{"account":{number}}}"#));
        }
        _ => attributes.set(keys::ROLE, "step"),
    }
    if number.is_multiple_of(997) {
        span.status.code = StatusCode::Error;
        span.status.message = "upstream gave up".to_owned();
    }
    span
}

async fn fill(store: &Store, spans: u64, begin_unix_nano: u64) -> Outcome {
    let inbox = store.inbox();
    let mut number = 0;
    while number < spans {
        let end = spans.min(number + SPANS_PER_BATCH);
        let list = (number..end).map(|number| span(number, begin_unix_nano)).collect();
        let batch = SpanBatch { received_unix_nano: now()?, spans: list, ..SpanBatch::default() };
        inbox.commit(batch).await?;
        number = end;
    }
    Ok(())
}

fn now() -> Outcome<u64> {
    Ok(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos() as u64)
}

async fn time(reader: &Reader, text: &str) -> Outcome<(Vec<f64>, usize)> {
    let (mut taken, mut rows) = (Vec::new(), 0);
    for _ in 0..TIMES {
        let asked = Instant::now();
        let query = SqlQuery { timeout: Duration::from_secs(60), ..SqlQuery::new(text) };
        rows = reader.sql(query).await?.rows.len();
        taken.push(asked.elapsed().as_secs_f64() * 1e3);
    }
    taken.sort_by(f64::total_cmp);
    Ok((taken, rows))
}

#[expect(clippy::print_stdout, reason = "figures are what the program is for")]
fn main() -> Outcome {
    let spans: u64 = std::env::args().nth(1).map_or(Ok(300_000), |text| text.parse())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let dir = tempfile::tempdir()?;
        let store = Store::open(StoreOptions::new(dir.path()), &mut Registry::default())?;
        let begin = now()?.saturating_sub(spans / SPANS_PER_TRACE * 2_000_000_000);
        let asked = Instant::now();
        fill(&store, spans, begin).await?;
        let cores = std::thread::available_parallelism()?;
        println!(
            "# {spans} spans in {} traces, one segment, written in {:.1} s; {cores} cores; {TIMES} \
             times each; milliseconds",
            spans / SPANS_PER_TRACE,
            asked.elapsed().as_secs_f64()
        );
        let reader = store.reader();
        let last = format!("{:032x}", TRACES + 77);
        for text in [
            "SELECT count(*) FROM spans",
            "SELECT model, sum(cost_usd) FROM llm_calls GROUP BY model",
            "SELECT model, sum(cost_usd) FROM spans GROUP BY model",
            &format!("SELECT * FROM spans WHERE trace_id = '{last}'"),
            "SELECT * FROM spans WHERE status = 'error' ORDER BY start_unix_nano DESC LIMIT 50",
            "SELECT count(*) FROM spans WHERE session = 'session-17'",
            "SELECT count(*), sum(duration_nano) FROM spans WHERE start_unix_nano >= unix_nano('1h')",
            "SELECT count(*) FROM spans WHERE attributes ->> 'gen_ai.tool.call.arguments' LIKE '%777%'",
            "SELECT count(*), sum(cost_usd) FROM traces",
            "SELECT name, count(*) FROM spans GROUP BY name ORDER BY 2 DESC",
            "SELECT agent, sum(cost_usd) FROM rollups WHERE resolution = '1h' AND level = 'agent' GROUP BY agent",
        ] {
            let (taken, rows) = time(&reader, text).await?;
            let middle = taken[taken.len() / 2];
            let most = taken[taken.len() - 1];
            println!("{middle:>9.1} median, {most:>9.1} most, {rows:>5} rows  {text}");
        }
        store.close().await?;
        Ok(())
    })
}
