//! Random histories of streams, through the real spans (requirement R3.2): chunks, silence, gaps,
//! chunks out of order, errors, failures that the source tells, and consumers that go away at any
//! moment. Every span ends once, and the segments are a chain without a hole.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, Stream, StreamExt as _, stream};
use opentelemetry::Value;
use opentelemetry_sdk::trace::SpanData;
use proptest::prelude::*;
use throughline::llm::{ChatRequest, ChatResponse, Chunk};
use throughline::resilience::{Policy, RetryPolicy};
use throughline::stream::{SseNumbers, StreamChunk, traced};
use throughline::{
    ChatError, ChatModel, ChatStream, Endpoint, ErrorType, Recorder, Telemetry, Traced, keys, span,
};

use crate::provider::{last_chunk, quick, recorded, text_chunk};

/// What the source of a stream does next.
#[derive(Debug, Clone, Copy)]
enum Turn {
    /// Says something, under the number of the last chunk and so many more, if under any.
    Say(Option<i8>),
    /// Is silent for so many seconds.
    Wait(u64),
    /// Says why the answer ended.
    Last,
    /// Tells that the stream failed, as by a trailer.
    TellFailure,
    /// Breaks.
    Break,
}

/// A stream and its consumer.
#[derive(Debug, Clone)]
struct History {
    turns: Vec<Turn>,
    /// Whether the source says nothing at the end, rather than that it is over.
    is_stuck: bool,
    /// The consumer goes away after so many items.
    reads: usize,
    /// It goes away after so many seconds.
    patience_secs: u64,
    window: usize,
    missing: u64,
    idle_secs: u64,
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        12 => Just(Turn::Say(Some(1))),
        2 => Just(Turn::Say(None)),
        3 => (-3i8..6).prop_map(|step| Turn::Say(Some(step))),
        4 => (1u64..50).prop_map(Turn::Wait),
        1 => Just(Turn::Last),
        1 => Just(Turn::TellFailure),
        1 => Just(Turn::Break),
    ]
}

fn history() -> impl Strategy<Value = History> {
    let turns = proptest::collection::vec(turn(), 0..25);
    let consumer = (prop_oneof![0usize..20, Just(usize::MAX)], prop_oneof![1u64..150, Just(9_999)]);
    (turns, any::<bool>(), consumer, 0usize..4, 0u64..4, 5u64..40).prop_map(
        |(turns, is_stuck, (reads, patience_secs), window, missing, idle_secs)| History {
            turns,
            is_stuck,
            reads,
            patience_secs,
            window,
            missing,
            idle_secs,
        },
    )
}

/// The turns as they come over the wire, with the number of each chunk.
fn play(history: &History) -> impl Stream<Item = (Turn, Option<u64>)> + Send + use<> {
    let mut last = -1i64;
    let numbered: Vec<_> = history
        .turns
        .iter()
        .map(|turn| {
            let Turn::Say(Some(step)) = turn else { return (*turn, None) };
            last = last.saturating_add(i64::from(*step)).max(0);
            (*turn, u64::try_from(last).ok())
        })
        .collect();
    let turns = stream::iter(numbered).filter_map(async |(turn, number)| match turn {
        Turn::Wait(secs) => {
            tokio::time::sleep(Duration::from_secs(secs)).await;
            None
        }
        turn => Some((turn, number)),
    });
    let rest = if history.is_stuck {
        stream::pending().left_stream()
    } else {
        stream::empty().right_stream()
    };
    turns.chain(rest)
}

/// How reading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Whole,
    Failed,
    Dropped,
}

/// Reads until the consumer has enough; how it ended, and how many chunks were read.
async fn read<T, E>(
    history: &History,
    mut items: impl Stream<Item = Result<T, E>> + Unpin,
    mut on: impl FnMut(T),
) -> Ended {
    let reading = async {
        for _ in 0..history.reads {
            match items.next().await {
                Some(Ok(chunk)) => on(chunk),
                Some(Err(_)) => return Ended::Failed,
                None => return Ended::Whole,
            }
        }
        Ended::Dropped
    };
    let patience = Duration::from_secs(history.patience_secs);
    tokio::time::timeout(patience, reading).await.unwrap_or(Ended::Dropped)
}

/// A chunk of no model.
struct Said(Turn, Option<u64>);

impl StreamChunk for Said {
    fn seq(&self, _: &mut SseNumbers) -> Option<u64> {
        self.1
    }

    fn bytes(&self) -> u64 {
        1
    }

    fn is_end_mark(&self) -> bool {
        matches!(self.0, Turn::Last)
    }

    fn is_failure(&self) -> bool {
        matches!(self.0, Turn::TellFailure)
    }
}

/// A model that answers each request with the same history.
struct Scripted(History);

impl ChatModel for Scripted {
    fn endpoint(&self) -> Endpoint {
        Endpoint::in_process("scripted")
    }

    fn chat(&self, request: ChatRequest) -> BoxFuture<'_, Result<ChatResponse, ChatError>> {
        async { Ok(ChatResponse::of_text(request.model, "")) }.boxed()
    }

    fn stream(&self, _: ChatRequest) -> BoxFuture<'_, Result<ChatStream, ChatError>> {
        let chunks = play(&self.0).map(|(turn, seq)| match turn {
            Turn::Last => Ok(Chunk { seq, ..last_chunk() }),
            Turn::Break | Turn::TellFailure => Err(ChatError::new(ErrorType::StreamFailed, "cut")),
            Turn::Say(_) | Turn::Wait(_) => Ok(Chunk { seq, ..text_chunk("word ") }),
        });
        async { Ok(ChatStream::new(None, chunks)) }.boxed()
    }
}

fn value(span: &SpanData, key: &str) -> Option<Value> {
    span.attributes.iter().find(|entry| entry.key.as_str() == key).map(|entry| entry.value.clone())
}

fn number(span: &SpanData, key: &str) -> i64 {
    match value(span, key) {
        Some(Value::I64(number)) => number,
        other => panic!("expected a number as {key}, got {other:?}"),
    }
}

fn outcome(spans: &[SpanData], name: &str) -> String {
    let call = spans.iter().find(|span| span.name == name).expect("the call");
    value(call, keys::OUTCOME).map(|outcome| outcome.as_str().into_owned()).unwrap_or_default()
}

/// Every span has ended, once; the segments of each stream are one chain. How many chunks they tell.
fn check(
    recorder: &Recorder,
    telemetry: &Telemetry,
) -> Result<(Vec<SpanData>, i64), TestCaseError> {
    let (spans, counts) = (recorder.spans(), telemetry.counts());
    prop_assert_eq!(counts.open_spans, 0);
    prop_assert_eq!(counts.spans.ended, spans.len() as u64, "each that ended ended once");
    let ids: HashSet<_> = spans.iter().map(|span| span.span_context.span_id()).collect();
    prop_assert_eq!(ids.len(), spans.len());
    let mut streams: BTreeMap<String, Vec<&SpanData>> = BTreeMap::new();
    for segment in spans.iter().filter(|span| span.name.starts_with("http.stream.")) {
        let id = value(segment, keys::STREAM_ID).expect("a stream id").as_str().into_owned();
        streams.entry(id).or_default().push(segment);
    }
    let mut chunks = 0;
    for segments in streams.values() {
        prop_assert_eq!(&*segments[0].name, "http.stream.init");
        prop_assert_eq!(number(segments[0], keys::CHUNK_SEQ), 0);
        prop_assert!(segments[0].links.is_empty());
        for pair in segments.windows(2) {
            prop_assert_eq!(&*pair[1].name, "http.stream.segment");
            prop_assert_eq!(pair[1].parent_span_id, pair[0].parent_span_id);
            let links: Vec<_> =
                pair[1].links.iter().map(|link| link.span_context.span_id()).collect();
            prop_assert_eq!(links, [pair[0].span_context.span_id()], "no hole in the chain");
            prop_assert!(pair[0].end_time <= pair[1].start_time, "one at a time");
        }
        for segment in segments {
            let end = value(segment, keys::STREAM_END).expect("why it ended");
            let is_broken = matches!(&*end.as_str(), "gap" | "failed");
            prop_assert_eq!(value(segment, keys::ERROR).is_some(), is_broken);
            let has_exception = segment.events.iter().any(|event| event.name == "exception");
            prop_assert_eq!(has_exception, end.as_str() == "failed");
            chunks += number(segment, keys::STREAM_CHUNKS);
        }
    }
    Ok((spans, chunks))
}

fn in_paused_time<F: Future>(work: F) -> F::Output {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().expect("a runtime").block_on(work)
}

#[test]
fn r3_2_a_reader_that_goes_away_before_the_last_chunks_in_order_has_cancelled() {
    let said = |number| Turn::Say(Some(number));
    // The end comes while chunks before it wait for their turn.
    let mut turns = vec![said(1); 12];
    turns.extend([said(2), said(1), Turn::Last]);
    for (reads, expected) in [(13, "cancelled"), (16, "ok")] {
        let history = History {
            turns: turns.clone(),
            is_stuck: false,
            reads,
            patience_secs: 1,
            window: 2,
            missing: 0,
            idle_secs: 5,
        };
        let (recorder, telemetry) = recorded();
        in_paused_time(telemetry.scope(async {
            let source = play(&history).map(|(turn, number)| Ok::<_, &str>(Said(turn, number)));
            let chunks = traced(Box::pin(source)).reorder_window(history.window);
            let chunks = chunks.within(span("GET /events").start());
            read(&history, chunks, drop).await
        }));
        assert_eq!(outcome(&recorder.spans(), "GET /events"), expected, "{reads} reads");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn r3_2_any_history_of_a_stream_leaves_ended_spans_in_one_chain(history in history()) {
        let (recorder, telemetry) = recorded();
        let mut came = 0;
        let ended = in_paused_time(telemetry.scope(async {
            let source = play(&history).map(|(turn, number)| match turn {
                Turn::Break => Err("cut"),
                turn => Ok(Said(turn, number)),
            });
            let chunks = traced(Box::pin(source))
                .reorder_window(history.window)
                .missing_chunks(history.missing)
                .idle_timeout(Duration::from_secs(history.idle_secs))
                .within(span("GET /events").start());
            read(&history, chunks, |_| came += 1).await
        }));
        let (spans, told) = check(&recorder, &telemetry)?;
        let outcome = outcome(&spans, "GET /events");
        match ended {
            Ended::Whole => {
                prop_assert_eq!(told, came, "all that came was handed on");
                // A source that tells its failure says so in a chunk.
                prop_assert!(outcome == "ok" || outcome == "error");
            }
            Ended::Failed => prop_assert_eq!(outcome, "error"),
            // The last chunk may have been the last of the stream.
            Ended::Dropped => prop_assert!(told >= came && (outcome != "ok" || told == came), "{} {} {}", outcome, told, came),
        }
    }

    #[test]
    fn r3_2_any_history_of_a_streamed_answer_leaves_ended_spans_in_one_chain(history in history()) {
        let (recorder, telemetry) = recorded();
        let retry = RetryPolicy { max_attempts: 2, ..quick().retry };
        let model = Traced::new(Scripted(history.clone()))
            .policy(Policy { retry, ..quick() })
            .reorder_window(history.window)
            .missing_chunks(history.missing)
            .idle_timeout(Duration::from_secs(history.idle_secs));
        let (mut is_opened, mut is_finish_read, mut text) = (false, false, String::new());
        let ended = in_paused_time(telemetry.scope(async {
            let Ok(stream) = model.stream(ChatRequest::new("scripted").user("hi")).await else {
                return Ended::Failed;
            };
            is_opened = true;
            read(&history, stream, |chunk: Chunk| {
                is_finish_read |= chunk.deltas.iter().any(|delta| delta.finish_reason.is_some());
                text.push_str(chunk.text());
            })
            .await
        }));
        let (spans, _) = check(&recorder, &telemetry)?;
        let outcome = outcome(&spans, "chat scripted");
        match ended {
            Ended::Whole => prop_assert!(matches!(&*outcome, "ok" | "retry_succeeded"), "{}", outcome),
            Ended::Failed => prop_assert!(matches!(&*outcome, "error" | "model_timeout"), "{}", outcome),
            Ended::Dropped if is_finish_read => {}
            Ended::Dropped => {
                // What it broke with may not have been read.
                prop_assert!(!matches!(&*outcome, "retry_succeeded"), "{}", outcome);
                if outcome == "cancelled" {
                    let call = spans.iter().find(|span| span.name == "chat scripted").expect("it");
                    let tokens = number(call, keys::GEN_AI_USAGE_OUTPUT_TOKENS);
                    prop_assert!(is_opened && (text.is_empty() || tokens > 0), "partial usage");
                }
            }
        }
    }
}
