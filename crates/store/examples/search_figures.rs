//! How long searches take: `cargo run --release -p throughline-store --example search_figures`.
//! Fills a store with conversations, and asks the same questions with the search index and without it.
//! Figures are printed with their conditions, never asserted: machines are noisy.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use throughline_store::{Reader, SearchQuery, Store, StoreOptions, TraceFilter};
use throughline_trace::{Span, SpanBatch, SpanId, TraceId, keys};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Spans to store, unless the first argument says otherwise.
const SPANS: u64 = 300_000;

/// Bytes at which a segment is full, unless the second argument says otherwise.
const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;

/// Spans in one trace.
const SPANS_PER_TRACE: u64 = 10;

/// Traces in one batch.
const TRACES_PER_BATCH: u64 = 50;

/// Times that each question is asked; the middle one is printed.
const ASKED: usize = 3;

/// Traces of a page.
const PAGE: usize = 100;

const WORDS: &str = "the customer asks whether the payment of the order was declined because the card \
is expired or the limit was reached and the agent looks at the history of the account before it \
answers that a refund takes three days and a new card is sent to the address on file unless the \
address changed in which case a person must confirm it by phone during office hours";

fn main() -> Outcome {
    let mut numbers = std::env::args().skip(1).map(|number| number.parse::<u64>());
    let spans = numbers.next().transpose()?.unwrap_or(SPANS);
    let segment_bytes = numbers.next().transpose()?.unwrap_or(SEGMENT_BYTES);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(spans, segment_bytes))
}

async fn measure(spans: u64, segment_bytes: u64) -> Outcome {
    let scratch = tempfile::tempdir()?;
    let dir = scratch.path();
    let options = StoreOptions { max_segment_bytes: segment_bytes, ..StoreOptions::new(dir) };
    let store = Store::open(options, &mut Registry::default())?;
    let written = Instant::now();
    fill(&store, spans).await?;
    row("written", &format!("{spans} spans in {:.1} s", written.elapsed().as_secs_f64()));
    let indexed = Instant::now();
    store.index_now().await;
    row("indexed", &format!("{:.1} s later", indexed.elapsed().as_secs_f64()));
    let segments = store.reader().segments().await?.len();
    store.close().await?;
    let (data, index) = (bytes(dir, "db")?, bytes(dir, "index")?);
    row("segments", &format!("{segments}, {:.1} MB", data as f64 / 1e6));
    let share = index as f64 / data as f64;
    row("their indexes", &format!("{:.1} MB, {:.0} % of that", index as f64 / 1e6, share * 100.0));
    let questions = [
        ("a value of one old trace", "user.id:user-17"),
        ("a value that nothing has", "user.id:nobody"),
        ("a text of one old trace", "\"ticket number 000017\""),
        ("a text that nothing says", "\"left the premises\""),
        ("two values that never meet", "tier:gold lane:l1"),
        ("a value of each third trace", "lane:l1"),
    ];
    row("", "first page by a new reader, by the same again; without the index, and to its end");
    let mut with = Vec::new();
    for (_, question) in questions {
        with.push(asked(dir, question).await?);
    }
    for path in files(dir, "index")? {
        std::fs::remove_file(path)?;
    }
    for ((what, question), with) in questions.into_iter().zip(with) {
        let without = asked(dir, question).await?;
        if with.traces != without.traces {
            return Err(format!("{question}: {with:?} is not {without:?}").into());
        }
        let times = without.whole.as_secs_f64() / with.whole.as_secs_f64();
        let (first, again) = (ms(with.first), ms(with.again));
        let (walked, whole) = (ms(without.first), ms(without.whole));
        let traces = with.traces;
        row(
            what,
            &format!("{first}, {again}; {walked}, {whole}: {times:.0} times, {traces} traces"),
        );
    }
    Ok(())
}

/// Conversations of which each says something of its own.
async fn fill(store: &Store, spans: u64) -> Outcome {
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let mut chance = 7_u64;
    // Marsaglia's xorshift: the same conversations at each run.
    let mut any = move |most: u64| {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        chance % most
    };
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
                attributes.set("gen_ai.response.id", format!("resp-{:016x}", any(u64::MAX)));
                attributes.set("lane", format!("l{}", number % 3));
                attributes.set("tier", if number % 3 == 0 { "gold" } else { "base" });
                attributes.set("gen_ai.usage.input_tokens", any(9_000) as i64);
                let text: Vec<&str> =
                    (0..60).map(|_| words[any(words.len() as u64) as usize]).collect();
                let text = format!("{} ticket number {number:06}", text.join(" "));
                attributes.set(keys::GEN_AI_INPUT_MESSAGES, say(text));
                batch.spans.push(span);
            }
        }
        inbox.commit(batch).await?;
    }
    Ok(())
}

/// What a question took.
#[derive(Debug)]
struct Asked {
    /// To the first page of a reader that has nothing open yet.
    first: Duration,
    /// To the first page of the same reader, asked again.
    again: Duration,
    /// To the end, or to a hundred traces, of a new reader.
    whole: Duration,
    traces: usize,
}

/// Asks a question some times, and tells the middle ones.
async fn asked(dir: &Path, question: &str) -> Outcome<Asked> {
    let query = Some(SearchQuery::parse(question, 0)?);
    let filter = TraceFilter { query, ..TraceFilter::default() };
    let (mut firsts, mut agains, mut wholes, mut traces) = (vec![], vec![], vec![], 0);
    for _ in 0..ASKED {
        let reader = Reader::open(dir)?;
        let begin = Instant::now();
        let mut page = reader.traces(&filter, None, PAGE).await?;
        firsts.push(begin.elapsed());
        traces = page.items.len();
        while traces < PAGE
            && let Some(cursor) = page.next
        {
            page = reader.traces(&filter, Some(&cursor), PAGE).await?;
            traces += page.items.len();
        }
        wholes.push(begin.elapsed());
        let begin = Instant::now();
        reader.traces(&filter, None, PAGE).await?;
        agains.push(begin.elapsed());
    }
    let middle = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[ASKED / 2]
    };
    Ok(Asked { first: middle(firsts), again: middle(agains), whole: middle(wholes), traces })
}

fn files(dir: &Path, ending: &str) -> Outcome<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir.join("segments"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|of| of == ending) {
            found.push(path);
        }
    }
    Ok(found)
}

fn bytes(dir: &Path, ending: &str) -> Outcome<u64> {
    files(dir, ending)?.iter().map(|path| Ok(path.metadata()?.len())).sum()
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

#[expect(clippy::print_stdout, reason = "the figures are what it is for")]
fn row(what: &str, figure: &str) {
    println!("{what:32} {figure}");
}
