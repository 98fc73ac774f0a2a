//! A traced stream, against the model's own; and many that are open at once.

use std::hint::black_box;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use throughline::llm::{ChatRequest, ChatResponse, Chunk, Delta, FinishReason};
use throughline::{ChatError, ChatModel, ChatStream, Endpoint, Recorder, Telemetry, Traced};

use crate::{Table, measured, ns_each, subscribe};

/// Chunks of one answer.
pub(crate) const CHUNKS: u32 = 20_000;

/// Streams that are open at once.
const OPEN_STREAMS: usize = 100_000;

/// A model whose answers are there at once, or which says one word and no more.
#[derive(Clone, Copy)]
struct Fast {
    is_stuck: bool,
}

fn chunk() -> Chunk {
    let delta = Delta { text: Some("word ".to_owned()), ..Delta::default() };
    Chunk { deltas: vec![delta], ..Chunk::default() }
}

impl ChatModel for Fast {
    fn endpoint(&self) -> Endpoint {
        Endpoint::in_process("fast")
    }

    fn chat(&self, request: ChatRequest) -> BoxFuture<'_, Result<ChatResponse, ChatError>> {
        async move { Ok(ChatResponse::of_text(request.model, "word")) }.boxed()
    }

    fn stream(&self, _: ChatRequest) -> BoxFuture<'_, Result<ChatStream, ChatError>> {
        let is_stuck = self.is_stuck;
        let stop = Delta { finish_reason: Some(FinishReason::Stop), ..Delta::default() };
        let last = Chunk { deltas: vec![stop], ..Chunk::default() };
        let words = if is_stuck { 1 } else { CHUNKS };
        let words = futures_util::stream::iter(0..words).map(|_| Ok(chunk()));
        async move {
            if is_stuck {
                let never = futures_util::stream::pending();
                return Ok(ChatStream::new(None, words.chain(never)));
            }
            Ok(ChatStream::new(None, words.chain(futures_util::stream::iter([Ok(last)]))))
        }
        .boxed()
    }
}

async fn read(stream: Result<ChatStream, ChatError>) {
    let Ok(mut stream) = stream else { return };
    while let Some(item) = stream.next().await {
        let _ = black_box(item);
    }
}

pub(crate) fn measure(table: &mut Table) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().environment(false).recorder(&recorder).build()?;
    subscribe();
    let _in = telemetry.enter();
    let request = || ChatRequest::new("m-1").user("go on");

    let model = Fast { is_stuck: false };
    let traced = Traced::new(model);
    let ([raw, traced], [still_raw, still_traced]) = measured([
        Box::new(|| {
            ns_each(CHUNKS, || {
                runtime.block_on(async { read(model.stream(request()).await).await })
            })
        }),
        Box::new(|| {
            ns_each(CHUNKS, || {
                runtime.block_on(async { read(traced.stream(request()).await).await })
            })
        }),
    ]);
    table.ns("stream chunk, the model's own", raw);
    table.added("a traced stream adds", [traced - raw, still_traced - still_raw], "target 300");

    recorder.clear();
    let model = Traced::new(Fast { is_stuck: true });
    let before = rss_bytes()?;
    let open = runtime.block_on(async {
        let mut open = Vec::with_capacity(OPEN_STREAMS);
        for _ in 0..OPEN_STREAMS {
            let Ok(mut stream) = model.stream(request()).await else { continue };
            let _ = stream.next().await;
            open.push(stream);
        }
        open
    });
    let grown = rss_bytes()?.saturating_sub(before);
    let megabytes = grown as f64 / 1e6;
    table.row(
        &format!("{} open streams (RSS)", open.len()),
        format!("{megabytes:.0} MB (target 1000)"),
    );
    Ok(())
}

/// What the process keeps in memory.
fn rss_bytes() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    let kilobytes =
        kilobytes.ok_or_else(|| anyhow::anyhow!("expected VmRSS in /proc/self/status"))?;
    Ok(kilobytes.parse::<u64>()? * 1_024)
}
