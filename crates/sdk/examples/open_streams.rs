//! What an open stream costs: opens many in one process and tells the memory of each, once streams
//! of any source ([`throughline::stream::traced`]) and once streamed answers of a model.
//!
//! `cargo run --example open_streams -- 100000` (Linux). Nobody takes the spans: the export queue is
//! full, as with a receiver that is down.

use std::convert::Infallible;
use std::io::Write as _;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, pending};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use throughline::llm::{ChatRequest, ChatResponse, Chunk, Delta};
use throughline::stream::{TracedChunks, traced};
use throughline::{ChatError, ChatModel, ChatStream, Endpoint, Telemetry, Traced, span};

/// Streams of each kind when nobody says.
const DEFAULT_STREAMS: usize = 100_000;

/// Bytes of a page of memory.
const PAGE_BYTES: u64 = 4_096;

type Page = BoxStream<'static, Result<Bytes, Infallible>>;

/// A model whose answers begin and do not end.
struct Endless;

impl ChatModel for Endless {
    fn endpoint(&self) -> Endpoint {
        Endpoint::in_process("endless")
    }

    fn chat(&self, request: ChatRequest) -> BoxFuture<'_, Result<ChatResponse, ChatError>> {
        async { Ok(ChatResponse::of_text(request.model, "")) }.boxed()
    }

    fn stream(&self, _: ChatRequest) -> BoxFuture<'_, Result<ChatStream, ChatError>> {
        let chunk = |text: &str| {
            let delta = Delta { text: Some(text.to_owned()), ..Delta::default() };
            let (id, model) = ("chatcmpl-1".to_owned(), "endless-1".to_owned());
            Ok(Chunk { id, model, deltas: vec![delta], ..Chunk::default() })
        };
        let chunks = stream::iter([chunk("Once upon"), chunk(" a time")]).chain(pending());
        async { Ok(ChatStream::new(None, chunks)) }.boxed()
    }
}

/// The memory of this process that is in use, bytes.
fn resident_bytes() -> std::io::Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    Ok(pages.unwrap_or_default() * PAGE_BYTES)
}

fn tell(kind: &str, streams: usize, before: u64) -> std::io::Result<()> {
    let bytes = resident_bytes()?.saturating_sub(before);
    let each = bytes / (streams as u64).max(1);
    writeln!(std::io::stdout(), "{streams} {kind}: {} MB, {each} bytes each", bytes / 1_000_000)
}

/// Streams that have brought two chunks each, and wait.
async fn open_chunks(count: usize) -> Vec<TracedChunks<Page>> {
    let mut open = Vec::with_capacity(count);
    for _ in 0..count {
        let lines = ["a", "b"].map(|line| Ok(Bytes::from_static(line.as_bytes())));
        let lines: Page = stream::iter(lines).chain(pending()).boxed();
        let mut lines = traced(lines).within(span("GET /events").start());
        for _ in 0..3 {
            lines.next().now_or_never();
        }
        open.push(lines);
    }
    open
}

async fn open_answers(count: usize) -> Result<Vec<ChatStream>, ChatError> {
    let model = Traced::new(Endless);
    let mut open = Vec::with_capacity(count);
    for _ in 0..count {
        let mut answer = model.stream(ChatRequest::new("endless").user("Tell me a story")).await?;
        for _ in 0..3 {
            answer.next().now_or_never();
        }
        open.push(answer);
    }
    Ok(open)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok());
    let count = count.unwrap_or(DEFAULT_STREAMS);
    let telemetry = Telemetry::builder().environment(false).service_name("open-streams").build()?;
    telemetry
        .scope(async {
            // What telemetry itself needs, its full queue included, is not a stream's.
            drop((open_chunks(4_000).await, open_answers(4_000).await?));
            let before = resident_bytes()?;
            let chunks = open_chunks(count).await;
            tell("streams of chunks", count, before)?;
            let before = resident_bytes()?;
            let answers = open_answers(count).await?;
            tell("streamed answers", count, before)?;
            drop((chunks, answers));
            Ok(())
        })
        .await
}
