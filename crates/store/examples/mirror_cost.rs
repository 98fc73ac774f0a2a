//! What feeding ClickHouse costs a server: processor time of the feed for each span of a backlog, and
//! of each look at an open segment with many traces.
//!
//!     cargo run --release -p throughline-store --example mirror_cost -- [TRACES]
//!
//! Processor time is that of the thread, from `/proc`, so that others on the machine do not count.

#![expect(clippy::print_stdout, reason = "what it measured is what it is run for")]

use std::error::Error;
use std::fs;

use throughline_store::clickhouse::Feed;
use throughline_store::{Store, StoreOptions};
use throughline_trace::{Span, SpanBatch, SpanId, TraceId};

/// Spans of a trace.
const SPANS_PER_TRACE: u64 = 5;

/// Traces of a batch that comes in.
const TRACES_PER_BATCH: u64 = 100;

/// Looks at the open segment, each after a batch.
const LOOKS: u64 = 20;

/// Rows and stored bytes of a batch that goes out: the defaults of the server.
const LIMITS: (usize, usize) = (10_000, 4 * 1024 * 1024);

/// Processor time of this thread so far, microseconds.
fn spent_micros() -> Result<f64, Box<dyn Error>> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos: f64 = text.split(' ').next().ok_or("an empty schedstat")?.parse()?;
    Ok(nanos / 1_000.0)
}

fn batch(first: u64) -> SpanBatch {
    let mut spans = Vec::new();
    for trace in first..first + TRACES_PER_BATCH {
        for number in 1..=SPANS_PER_TRACE {
            let parent = (number > 1).then(|| SpanId::from_u64(1));
            // Ids are random in life.
            let id = u128::from(trace + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            let mut span =
                Span::new(TraceId::from_u128(id), SpanId::from_u64(number), parent, "chat gpt-4o");
            span.start_unix_nano = 1_795_348_800_000_000_000 + trace * 1_000;
            span.end_unix_nano = span.start_unix_nano + 1_000_000 * number;
            for (name, value) in [
                ("gen_ai.operation.name", "chat"),
                ("gen_ai.request.model", "gpt-4o"),
                ("gen_ai.agent.name", "fraud"),
                ("server.address", "api.example.org"),
            ] {
                span.attributes.set(name, value);
            }
            span.attributes.set("gen_ai.usage.input_tokens", trace as i64 % 900);
            span.attributes.set("session.id", format!("s-{}", trace / 7));
            spans.push(span);
        }
    }
    SpanBatch { spans, ..SpanBatch::default() }
}

/// Takes all that waits; answers spans and bytes of rows.
fn drain(feed: &mut Feed) -> Result<(u64, usize), Box<dyn Error>> {
    let (mut spans, mut bytes) = (0, 0);
    while let Some(batch) = feed.next_batch()? {
        spans += batch.rows;
        bytes += batch.inserts.iter().map(|insert| insert.rows.len()).sum::<usize>();
        feed.acknowledge()?;
    }
    Ok((spans, bytes))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let traces: u64 = std::env::args().nth(1).map_or(Ok(40_000), |text| text.parse())?;
    let dir = tempfile::tempdir()?;
    let mut registry = prometheus_client::registry::Registry::default();
    let store = Store::open(StoreOptions::new(dir.path()), &mut registry)?;
    for first in (0..traces).step_by(TRACES_PER_BATCH as usize) {
        store.inbox().commit(batch(first)).await?;
    }
    let mut feed = Feed::open(dir.path(), "http://nowhere/#default", LIMITS)?.named("eu-1");
    let begin = spent_micros()?;
    let (spans, bytes) = drain(&mut feed)?;
    let took = spent_micros()? - begin;
    println!(
        "backlog: {spans} spans, {:.1} µs a span, {} bytes of rows a span",
        took / spans as f64,
        bytes as u64 / spans
    );
    let (mut sent, mut took) = (0, 0.0);
    for look in 0..LOOKS {
        store.inbox().commit(batch(traces + look * TRACES_PER_BATCH)).await?;
        let begin = spent_micros()?;
        sent += drain(&mut feed)?.0;
        took += spent_micros()? - begin;
    }
    println!(
        "open segment of {traces} traces: {:.1} ms a look that finds {} spans",
        took / LOOKS as f64 / 1_000.0,
        sent / LOOKS
    );
    store.close().await?;
    Ok(())
}
