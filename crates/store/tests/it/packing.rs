//! Packing: a closed segment is rewritten smaller, and everything that is read stays the same.

use std::path::Path;

use prometheus_client::registry::Registry;
use rusqlite::Connection;
use throughline_store::{SegmentState, Store, StoreOptions, TraceFilter};
use throughline_trace::{Span, SpanBatch, SpanId, TraceId, keys};

use crate::made::{self, DAY, NOON, log, resource};

/// Numbers that are the same in every run.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Words with numbers in between, about this long.
    fn prose(&mut self, bytes: usize) -> String {
        const WORDS: [&str; 24] = [
            "transaction",
            "merchant",
            "velocity",
            "device",
            "matches",
            "history",
            "amount",
            "country",
            "risk",
            "score",
            "between",
            "hours",
            "customer",
            "verified",
            "address",
            "because",
            "recent",
            "pattern",
            "unusual",
            "refund",
            "approved",
            "review",
            "limit",
            "under",
        ];
        let mut text = String::new();
        while text.len() < bytes {
            text.push_str(WORDS[self.below(24) as usize]);
            text.push(' ');
            if self.below(6) == 0 {
                text.push_str(&format!("{} ", self.below(9_999)));
            }
        }
        text
    }
}

fn open(dir: &Path) -> Store {
    let options = StoreOptions { min_packed_bytes: 1, ..made::options(dir) };
    Store::open(options, &mut Registry::default()).unwrap()
}

fn a_trace_id(numbers: &mut Numbers) -> TraceId {
    TraceId::from_u128(u128::from(numbers.next()) << 64 | u128::from(numbers.next()) | 1)
}

/// Ten spans of an agent with seven to twelve attributes each and no messages, as the benchmark sends.
fn bare_trace(numbers: &mut Numbers, note_bytes: usize) -> Vec<Span> {
    let id = a_trace_id(numbers);
    let (agent, session) = (numbers.below(8), numbers.below(2_000));
    let root = SpanId::from_u64(numbers.next() | 1);
    let at = NOON + numbers.below(3_600_000_000_000);
    (0..10)
        .map(|place| {
            let own = if place == 0 { root } else { SpanId::from_u64(numbers.next() | 1) };
            let name = match place {
                0 => format!("invoke_agent agent-{agent}"),
                3 | 6 | 9 => "execute_tool risk_lookup_v2".to_owned(),
                _ => "chat gpt-4o-mini".to_owned(),
            };
            let mut span = Span::new(id, own, (place > 0).then_some(root), name);
            span.start_unix_nano = at + place * 1_500_000 + numbers.below(900_000);
            span.end_unix_nano = span.start_unix_nano + numbers.below(90_000_000);
            span.resource = resource("bench");
            let set = &mut span.attributes;
            set.set("agent_id", format!("agent-{agent}"));
            set.set("session_id", format!("session-{session}"));
            set.set("workflow_id", format!("workflow-{}", session % 50));
            set.set("ai.phase", ["plan", "act", "observe", "reflect"][place as usize % 4]);
            set.set("ai.step_index", place as i64);
            set.set("retry_count", 0_i64);
            if note_bytes > 0 {
                set.set("throughline.note", numbers.prose(note_bytes));
            }
            match place {
                0 => set.set("gen_ai.operation.name", "invoke_agent"),
                3 | 6 | 9 => {
                    set.set("gen_ai.operation.name", "execute_tool");
                    set.set("gen_ai.tool.name", "risk_lookup_v2");
                    set.set("gen_ai.tool.call.id", format!("call_{}", numbers.below(1 << 32)));
                }
                _ => {
                    set.set("gen_ai.operation.name", "chat");
                    set.set("gen_ai.request.model", "gpt-4o-mini");
                    set.set("gen_ai.usage.input_tokens", numbers.below(4_000) as i64);
                    set.set("gen_ai.usage.output_tokens", numbers.below(800) as i64);
                    set.set("gen_ai.response.id", format!("chatcmpl-{:x}", numbers.next()));
                }
            }
            span
        })
        .collect()
}

/// An agent of this many turns: each model call repeats the conversation so far.
pub(crate) fn agent_trace(numbers: &mut Numbers, turns: u64) -> Vec<Span> {
    let id = a_trace_id(numbers);
    let root = SpanId::from_u64(numbers.next() | 1);
    let at = NOON + numbers.below(3_600_000_000_000);
    let mut whole = Span::new(id, root, None, "invoke_agent support");
    (whole.start_unix_nano, whole.end_unix_nano) = (at, at + turns * 2_000_000_000);
    whole.attributes.set(keys::AGENT_ID, "support");
    whole.attributes.set("gen_ai.operation.name", "invoke_agent");
    let mut spans = vec![whole];
    let part = |role: &str, text: String| {
        format!(r#"{{"role":"{role}","parts":[{{"type":"text","content":"{text}"}}]}}"#)
    };
    let mut history = vec![part("system", numbers.prose(1_200)), part("user", numbers.prose(300))];
    for turn in 0..turns {
        let own = SpanId::from_u64(numbers.next() | 1);
        let mut chat = Span::new(id, own, Some(root), "chat gpt-4o-mini");
        chat.start_unix_nano = at + turn * 2_000_000_000;
        chat.end_unix_nano = chat.start_unix_nano + 1_400_000_000;
        let answer = part("assistant", numbers.prose(500));
        let set = &mut chat.attributes;
        set.set(keys::AGENT_ID, "support");
        set.set("gen_ai.operation.name", "chat");
        set.set("gen_ai.request.model", "gpt-4o-mini");
        set.set("gen_ai.response.id", format!("chatcmpl-{:x}", numbers.next()));
        set.set("gen_ai.usage.input_tokens", (800 + turn * 200) as i64);
        set.set("gen_ai.usage.output_tokens", numbers.below(800) as i64);
        set.set("gen_ai.input.messages", format!("[{}]", history.join(",")));
        set.set("gen_ai.output.messages", format!("[{answer}]"));
        history.push(answer);
        history.push(part("tool", numbers.prose(700)));
        spans.push(chat);
        let mut tool =
            Span::new(id, SpanId::from_u64(numbers.next() | 1), Some(own), "execute_tool lookup");
        tool.start_unix_nano = at + turn * 2_000_000_000 + 1_400_000_000;
        tool.end_unix_nano = tool.start_unix_nano + 300_000_000;
        tool.attributes.set("gen_ai.operation.name", "execute_tool");
        tool.attributes.set("gen_ai.tool.name", "lookup");
        tool.attributes.set("gen_ai.tool.call.id", format!("call_{:x}", numbers.next()));
        spans.push(tool);
    }
    spans
}

/// Bytes of a span as protobuf of OTLP, its resource left out: every field has a byte of key, its
/// length and itself.
pub(crate) fn otlp_bytes(span: &Span) -> usize {
    let field = |length: usize| {
        1 + if length < 128 {
            1
        } else if length < 16_384 {
            2
        } else {
            3
        } + length
    };
    let attributes = span.attributes.iter().map(|(key, value)| {
        let value = value.as_str().map_or(9, |text| field(text.len()));
        field(field(key.len()) + field(value))
    });
    let parent = if span.parent_span_id.is_some() { 10 } else { 0 };
    field(18 + 10 + parent + field(span.name.len()) + 2 + 9 + 9 + attributes.sum::<usize>())
}

async fn send(store: &Store, received: u64, traces: Vec<Vec<Span>>) {
    for some in traces.chunks(50) {
        let spans = some.iter().flatten().cloned().collect();
        let batch = SpanBatch { received_unix_nano: received, spans, ..SpanBatch::default() };
        store.inbox().commit(batch).await.unwrap();
    }
}

/// Closes the first day.
async fn close_day(store: &Store) {
    let next = made::span(0xffff, 1, None, 0);
    store.inbox().commit(made::spans(NOON + DAY, vec![next])).await.unwrap();
}

fn bytes(dir: &Path, name: &str) -> u64 {
    dir.join("segments").join(name).metadata().unwrap().len()
}

/// Bytes by table and index, the largest first.
fn by_table(dir: &Path, name: &str, spans: i64) -> String {
    let file = Connection::open(dir.join("segments").join(name)).unwrap();
    let mut statement = file
        .prepare("SELECT name, sum(pgsize), sum(unused) FROM dbstat GROUP BY name ORDER BY 2 DESC LIMIT 9")
        .unwrap();
    let rows = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap()
        .map(Result::unwrap);
    rows.map(|(name, bytes, unused): (String, i64, i64)| {
        format!(
            "  {name}: {:.1} B a span, {} % unused\n",
            bytes as f64 / spans as f64,
            unused * 100 / bytes
        )
    })
    .collect()
}

#[expect(clippy::print_stdout, reason = "the figures of the guide are read from here")]
fn print(figures: &str) {
    println!("{figures}");
}

/// Bytes of the segment as written and packed, of traces that say this much prose in each span.
async fn packed_and_the_same(note_bytes: usize) -> (u64, u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut numbers = Numbers(7);
    let traces: Vec<_> = (0..1_000).map(|_| bare_trace(&mut numbers, note_bytes)).collect();
    let spans = 10_000;
    let store = open(dir.path());
    send(&store, NOON, traces.clone()).await;
    close_day(&store).await;
    let before = store.reader().trace(traces[7][0].trace_id).await.unwrap();
    let page_before = store.reader().traces(&TraceFilter::default(), None, 50).await.unwrap();
    store.close().await.unwrap();
    let (old, new) = ("2026-11-22.db", "2026-11-22.packed.db");
    let written = bytes(dir.path(), old);
    let tables = by_table(dir.path(), old, spans as i64);
    print(&format!("{note_bytes} B of prose: written {} B a span\n{tables}", written / spans));
    let store = open(dir.path());
    store.keep_now().await;
    let packed = bytes(dir.path(), new);
    let tables = by_table(dir.path(), new, spans as i64);
    print(&format!("{note_bytes} B of prose: packed {} B a span\n{tables}", packed / spans));
    assert!(!dir.path().join("segments").join(old).exists());
    assert_eq!(store.reader().trace(traces[7][0].trace_id).await.unwrap(), before);
    let page = store.reader().traces(&TraceFilter::default(), None, 50).await.unwrap();
    assert_eq!(page.items, page_before.items);
    let info = store.reader().segments().await.unwrap().pop().unwrap();
    assert_eq!((info.state, info.is_packed, info.spans), (SegmentState::Sealed, true, spans));
    // What is delivered again is known, and the file is what its hash says.
    let again = made::spans(NOON + DAY, traces[9].clone());
    assert_eq!(store.inbox().commit(again).await.unwrap().duplicate_spans, 10);
    store.close().await.unwrap();
    let report = throughline_store::verify_store(dir.path(), |_| {}).unwrap();
    assert!(report.is_good(), "{report:?}");
    (written / spans, packed / spans)
}

#[tokio::test]
async fn spans_without_messages_become_smaller_and_stay_the_same() {
    let (written, packed) = packed_and_the_same(0).await;
    assert!(packed * 10 <= written * 8 && packed <= 350, "{packed} of {written} B a span");
    let (written, packed) = packed_and_the_same(400).await;
    assert!(packed * 10 <= written * 8, "{packed} of {written} B a span");
}

#[tokio::test]
async fn an_agent_of_thirty_turns_takes_a_twentieth_of_its_otlp() {
    let dir = tempfile::tempdir().unwrap();
    let mut numbers = Numbers(11);
    let traces: Vec<_> = (0..40).map(|_| agent_trace(&mut numbers, 30)).collect();
    let sent: usize = traces.iter().flatten().map(otlp_bytes).sum();
    let store = open(dir.path());
    send(&store, NOON, traces.clone()).await;
    let batch = SpanBatch {
        received_unix_nano: NOON,
        logs: vec![log(None, 5, "hello")],
        ..SpanBatch::default()
    };
    store.inbox().commit(batch).await.unwrap();
    close_day(&store).await;
    let before = store.reader().trace(traces[3][0].trace_id).await.unwrap().unwrap();
    store.close().await.unwrap();
    let written = bytes(dir.path(), "2026-11-22.db");
    let store = open(dir.path());
    store.keep_now().await;
    let packed = bytes(dir.path(), "2026-11-22.packed.db");
    print(&format!(
        "OTLP {sent}, written {written} (1/{}), packed {packed} (1/{})\n{}",
        sent as u64 / written,
        sent as u64 / packed,
        by_table(dir.path(), "2026-11-22.packed.db", 2_440)
    ));
    assert_eq!(store.reader().trace(traces[3][0].trace_id).await.unwrap().unwrap(), before);
    assert_eq!(before.spans.len(), traces[3].len());
    assert!(packed * 20 <= sent as u64, "{packed} of {sent}");
    store.close().await.unwrap();
}
