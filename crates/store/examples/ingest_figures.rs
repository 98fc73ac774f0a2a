//! Prints what the store costs: CPU and bytes a span, and how long questions take.
//!
//! `cargo run --release -p throughline-store --example ingest_figures [SPANS]`; the directory is
//! a temporary one (`TMPDIR` says where). CPU is that of all threads of the process, taken from
//! `/proc`, without that of making the spans.
#![expect(clippy::print_stdout, reason = "figures are what this program is for")]

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use throughline_store::{Store, StoreOptions, TraceFilter};
use throughline_trace::{Resource, Span, SpanBatch, SpanId, SpanKind, TraceId};

/// Spans of one batch, as the OpenTelemetry batch processor sends by default.
const BATCH_SPANS: usize = 512;

/// Spans of one trace.
const TRACE_SPANS: usize = 10;

/// Traces that are under way at once: their spans arrive interleaved.
const OPEN_TRACES: usize = 64;

/// Batches sent at once.
const SENDERS: usize = 8;

const NOON: u64 = 1_795_348_800_000_000_000;

/// A generator that needs no crate: splitmix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn text(&mut self, bytes: usize) -> String {
        const WORDS: [&str; 16] = [
            "order", "payment", "declined", "because", "the", "risk", "of", "customer", "account",
            "limit", "exceeded", "retry", "tomorrow", "with", "another", "card",
        ];
        let mut text = String::with_capacity(bytes + 12);
        while text.len() < bytes {
            let roll = self.roll();
            text.push_str(WORDS[(roll % 16) as usize]);
            text.push(if roll.is_multiple_of(7) {
                (b'0' + (roll >> 40) as u8 % 10) as char
            } else {
                ' '
            });
        }
        text
    }
}

/// The `n`-th span: 12 attributes, 400 bytes of text.
fn span(dice: &mut Dice, n: usize, resource: &Arc<Resource>) -> Span {
    let trace = n / (TRACE_SPANS * OPEN_TRACES) * OPEN_TRACES + n % OPEN_TRACES;
    let in_trace = n / OPEN_TRACES % TRACE_SPANS;
    let mut ids = Dice(trace as u64);
    let trace_id = TraceId::from_u128(u128::from(ids.roll()) << 64 | u128::from(ids.roll()));
    let span_id = SpanId::from_u64(ids.0 ^ (in_trace as u64 + 1) << 17);
    let root = SpanId::from_u64(ids.0 ^ 1 << 17);
    let mut span = Span::new(trace_id, span_id, (in_trace > 0).then_some(root), "fraud.act.score");
    span.kind = SpanKind::Client;
    span.start_unix_nano = NOON + n as u64 * 30_000;
    span.end_unix_nano = span.start_unix_nano + dice.roll() % 900_000_000;
    let agent = ["fraud", "shop", "researcher", "triage"][trace % 4];
    let attributes = &mut span.attributes;
    attributes.set("agent_id", agent);
    attributes.set("session_id", format!("session-{}", trace / 3));
    attributes.set("workflow_id", format!("workflow-{}", trace / 5));
    attributes.set("retry_count", 0);
    attributes.set("ai.phase", "act");
    attributes.set("ai.step_index", in_trace as i64);
    attributes.set("gen_ai.request.model", "gpt-4o");
    attributes.set("gen_ai.usage.input_tokens", (dice.roll() % 4_000) as i64);
    attributes.set("gen_ai.usage.output_tokens", (dice.roll() % 900) as i64);
    attributes.set("outcome", "ok");
    if in_trace % 4 == 1 {
        attributes.set("gen_ai.operation.name", "chat");
        let (system, user) = ("You are a careful fraud analyst. ".repeat(4), dice.text(220));
        let list = format!(
            r#"[{{"role":"system","content":"{system}"}},{{"role":"user","content":"{user}"}}]"#
        );
        attributes.set("gen_ai.input.messages", list);
    } else {
        attributes.set("ai.reasoning_trace", dice.text(100));
        attributes.set("gen_ai.tool.call.result", dice.text(300));
    }
    span.resource = Arc::clone(resource);
    span
}

/// CPU time of all threads.
fn cpu() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanos = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

fn batches(spans: usize) -> impl Iterator<Item = SpanBatch> {
    let attributes = [("service.name", "fraud-llm-agent"), ("service.version", "1.2.3")];
    let resource = Arc::new(Resource {
        attributes: attributes.into_iter().collect(),
        schema_url: String::new(),
    });
    let mut dice = Dice(7);
    (0..spans).step_by(BATCH_SPANS).map(move |from| SpanBatch {
        received_unix_nano: NOON,
        spans: (from..(from + BATCH_SPANS).min(spans))
            .map(|n| span(&mut dice, n, &resource))
            .collect(),
        ..SpanBatch::default()
    })
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let spans: usize = std::env::args().nth(1).map_or(Ok(200_000), |text| text.parse())?;
    let profile = if cfg!(debug_assertions) { "debug assertions on" } else { "release" };
    let cores = std::thread::available_parallelism()?;
    println!(
        "{spans} spans, 12 attributes, 400 B of text, {BATCH_SPANS} a batch, {TRACE_SPANS} a trace"
    );
    println!("{cores} cores, {profile}, {SENDERS} batches in flight, synchronous=FULL");

    let begin = cpu();
    let made: usize = batches(spans).map(|batch| std::hint::black_box(batch).len()).sum();
    let making = cpu() - begin;

    let dir = tempfile::tempdir()?;
    let mut registry = prometheus_client::registry::Registry::default();
    let store = Store::open(StoreOptions::new(dir.path()), &mut registry)?;
    let (begin_cpu, begin) = (cpu(), Instant::now());
    let mut senders = tokio::task::JoinSet::new();
    for batch in batches(spans) {
        if senders.len() >= SENDERS
            && let Some(sent) = senders.join_next().await
        {
            sent??;
        }
        let inbox = store.inbox();
        senders.spawn(async move { inbox.commit(batch).await.map(drop) });
    }
    while let Some(sent) = senders.join_next().await {
        sent??;
    }
    let (elapsed, used) = (begin.elapsed(), (cpu() - begin_cpu).saturating_sub(making));
    let per_span = |time: Duration| time.as_secs_f64() * 1e6 / made as f64;
    println!(
        "ingest: {:.2} µs of CPU a span, {:.0} spans/s",
        per_span(used),
        made as f64 / elapsed.as_secs_f64()
    );
    println!("        (making the spans: {:.2} µs of CPU each, not counted)", per_span(making));

    ask(&store, spans).await?;
    store.close().await?;
    let bytes: u64 = std::fs::read_dir(dir.path().join("segments"))?
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .map(|metadata| metadata.len())
        .sum();
    println!("disk:   {:.0} bytes a span", bytes as f64 / made as f64);
    Ok(())
}

/// Asks the usual questions, each many times.
async fn ask(store: &Store, spans: usize) -> Result<(), Box<dyn Error>> {
    let reader = store.reader();
    let mut dice = Dice(11);
    let traces = (spans / TRACE_SPANS) as u64;
    let mut times = Vec::new();
    for _ in 0..500 {
        let mut ids = Dice(dice.roll() % traces);
        let id = TraceId::from_u128(u128::from(ids.roll()) << 64 | u128::from(ids.roll()));
        let begin = Instant::now();
        let trace = reader.trace(id).await?;
        times.push(begin.elapsed());
        if trace.is_none_or(|trace| trace.spans.is_empty()) {
            return Err(format!("the trace {id} is not there").into());
        }
    }
    report("trace by id", &mut times);
    let name = |text: &str| Some(text.to_owned());
    let none = TraceFilter::default();
    let filters = [
        ("list", none.clone()),
        ("list by agent", TraceFilter { agent: name("triage"), ..none.clone() }),
        ("list by session", TraceFilter { session: name("session-17"), ..none.clone() }),
        ("list by error (none)", TraceFilter { error: Some(true), ..none.clone() }),
        ("list by text (all)", TraceFilter { text: name("SCORE"), ..none.clone() }),
        ("list by text (none)", TraceFilter { text: name("nowhere"), ..none.clone() }),
        ("list by duration (none)", TraceFilter { min_duration_ms: Some(60_000), ..none }),
    ];
    for (label, filter) in filters {
        let mut times = Vec::new();
        for _ in 0..20 {
            let begin = Instant::now();
            reader.traces(&filter, None, 50).await?;
            times.push(begin.elapsed());
        }
        report(label, &mut times);
    }
    Ok(())
}

fn report(label: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |share: f64| {
        times.get((times.len() as f64 * share) as usize).map_or(0.0, |t| t.as_secs_f64() * 1e3)
    };
    println!("{label:<24} p50 {:>8.3} ms   p95 {:>8.3} ms", at(0.5), at(0.95));
}
