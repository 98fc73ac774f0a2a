//! `cargo run --release -p throughline-bench --bin search`: fills a store with conversations, and
//! asks the same questions with the search index and without it. Figures are printed, never asserted.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use prometheus_client::registry::Registry;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use throughline_store::{Reader, SearchQuery, Store, StoreOptions, TraceFilter};
use throughline_trace::{Span, SpanBatch, SpanId, TraceId, keys};

/// Spans in one trace.
const SPANS_PER_TRACE: u64 = 10;

/// Traces in one batch.
const TRACES_PER_BATCH: u64 = 50;

/// Times that each question is asked; the middle one is printed.
const ASKED: usize = 5;

const WORDS: &str = "the customer asks whether the payment of the order was declined because the card \
is expired or the limit was reached and the agent looks at the history of the account before it \
answers that a refund takes three days and a new card is sent to the address on file unless the \
address changed in which case a person must confirm it by phone during office hours";

/// Measures searches.
#[derive(Debug, Parser)]
struct Options {
    /// Spans to store.
    #[arg(long, default_value_t = 300_000)]
    spans: u64,
    /// Bytes at which a segment is full.
    #[arg(long, default_value_t = 16 * 1024 * 1024)]
    segment_bytes: u64,
    /// Where the scratch data directory goes.
    #[arg(long)]
    scratch: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(&options))
}

async fn measure(options: &Options) -> anyhow::Result<()> {
    let scratch = match &options.scratch {
        Some(parent) => tempfile::tempdir_in(parent)?,
        None => tempfile::tempdir()?,
    };
    let dir = scratch.path();
    let store_options =
        StoreOptions { max_segment_bytes: options.segment_bytes, ..StoreOptions::new(dir) };
    let store = Store::open(store_options, &mut Registry::default())?;
    let written = Instant::now();
    fill(&store, options.spans).await?;
    row("written", &format!("{} spans in {:.1} s", options.spans, written.elapsed().as_secs_f64()));
    let indexed = Instant::now();
    store.index_now().await;
    row("indexed afterwards", &format!("{:.1} s later", indexed.elapsed().as_secs_f64()));
    let segments = store.reader().segments().await?.len();
    store.close().await?;
    let (data, index) = (bytes(dir, "db")?, bytes(dir, "index")?);
    row("segments", &format!("{segments}, {:.1} MB", data as f64 / 1e6));
    let share = index as f64 / data as f64;
    row("their indexes", &format!("{:.1} MB, {:.0} % of that", index as f64 / 1e6, share * 100.0));
    let questions = [
        ("a value of one old trace", "user.id:user-17".to_owned()),
        ("a value that nothing has", "user.id:nobody".to_owned()),
        ("a text of one old trace", "\"ticket number 000017\"".to_owned()),
        ("a text that nothing says", "\"left the premises\"".to_owned()),
        ("two values that never meet", "tier:gold lane:l1".to_owned()),
        ("a value of each third trace", "lane:l1".to_owned()),
    ];
    println!(
        "\n{:32} {:>14} {:>14} {:>12} {:>12}",
        "", "first page", "to the end", "without", "to the end"
    );
    let mut with = Vec::new();
    for (_, question) in &questions {
        with.push(asked(dir, question).await?);
    }
    for path in indexes(dir)? {
        std::fs::remove_file(path)?;
    }
    for ((what, question), (first, whole, found)) in questions.iter().zip(with) {
        let (walked_first, walked, same) = asked(dir, question).await?;
        anyhow::ensure!(found == same, "{question}: {found} traces with the index, {same} without");
        println!(
            "{what:32} {:>14} {:>14} {:>12} {:>12}   {found} traces, {:.0} times",
            ms(first),
            ms(whole),
            ms(walked_first),
            ms(walked),
            walked.as_secs_f64() / whole.as_secs_f64()
        );
    }
    Ok(())
}

/// Conversations of which each says something of its own.
async fn fill(store: &Store, spans: u64) -> anyhow::Result<()> {
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let mut rng = StdRng::seed_from_u64(7);
    let inbox = store.inbox();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos() as u64;
    let traces = spans / SPANS_PER_TRACE;
    for first in (0..traces).step_by(TRACES_PER_BATCH as usize) {
        let mut batch = SpanBatch { received_unix_nano: now, ..SpanBatch::default() };
        for number in first..traces.min(first + TRACES_PER_BATCH) {
            let mut said = Vec::new();
            let mut say = |text: String| {
                let text = serde_json::json!({"role": "user", "parts": [{"type": "text", "content": text}]});
                said.push(text.to_string());
                format!("[{}]", said.join(","))
            };
            let id = TraceId::from_u128((u128::from(number) << 64) + 1);
            for n in 0..SPANS_PER_TRACE {
                let parent = (n > 0).then(|| SpanId::from_u64(1));
                let mut span = Span::new(id, SpanId::from_u64(n + 1), parent, "chat gpt-4o");
                span.start_unix_nano = now - (traces - number) * 1_000_000 + n * 10_000;
                span.end_unix_nano = span.start_unix_nano + 900_000;
                let attributes = &mut span.attributes;
                attributes.set("agent_id", "service-desk");
                attributes.set("user.id", format!("user-{number}"));
                attributes.set("gen_ai.response.id", format!("resp-{:016x}", rng.random::<u64>()));
                attributes.set("lane", format!("l{}", number % 3));
                attributes.set("tier", if number % 3 == 0 { "gold" } else { "base" });
                attributes.set("gen_ai.usage.input_tokens", rng.random_range(100..9_000_i64));
                let text: Vec<&str> =
                    (0..60).map(|_| words[rng.random_range(0..words.len())]).collect();
                let text = format!("{} ticket number {number:06}", text.join(" "));
                attributes.set(keys::GEN_AI_INPUT_MESSAGES, say(text));
                batch.spans.push(span);
            }
        }
        inbox.commit(batch).await.map_err(|error| anyhow::anyhow!("{error}"))?;
    }
    Ok(())
}

/// How long a question takes to its first page and to its end, and how many traces it finds. The
/// first page of many is asked for only.
async fn asked(dir: &Path, question: &str) -> anyhow::Result<(Duration, Duration, usize)> {
    let query = Some(SearchQuery::parse(question, 0).map_err(|error| anyhow::anyhow!("{error}"))?);
    let filter = TraceFilter { query, ..TraceFilter::default() };
    let mut times = Vec::new();
    let mut count = 0;
    for _ in 0..ASKED {
        let reader = Reader::open(dir)?;
        let begin = Instant::now();
        let mut page = reader.traces(&filter, None, 100).await?;
        let first = begin.elapsed();
        count = page.items.len();
        while count < 100
            && let Some(cursor) = page.next
        {
            page = reader.traces(&filter, Some(&cursor), 100).await?;
            count += page.items.len();
        }
        times.push((begin.elapsed(), first));
    }
    times.sort_unstable();
    let (whole, first) = times[ASKED / 2];
    Ok((first, whole, count))
}

fn indexes(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    files(dir, "index")
}

fn files(dir: &Path, ending: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir.join("segments")).context("no segments")? {
        let path = entry?.path();
        if path.extension().is_some_and(|of| of == ending) {
            found.push(path);
        }
    }
    Ok(found)
}

fn bytes(dir: &Path, ending: &str) -> anyhow::Result<u64> {
    files(dir, ending)?.iter().map(|path| Ok(path.metadata()?.len())).sum()
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

#[expect(clippy::print_stdout, reason = "the figures are the product")]
fn row(what: &str, figure: &str) {
    println!("{what:32} {figure}");
}
