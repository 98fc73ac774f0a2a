//! Invariant 4 (DESIGN.md): whatever breaks off in the middle, and wherever, every span that was
//! started is ended and exported. A panic, a dropped future, an aborted task and a shutdown of the
//! runtime strike each operation at random points, whether a layer of `tracing` listens or not.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context as Poller, Poll};

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use proptest::prelude::*;
use schemars::JsonSchema;
use serde::Deserialize;
use throughline::llm::{ChatRequest, ChatResponse, Choice, FinishReason, Message, Part, ToolCall};
use throughline::resilience::{HedgePolicy, Policy};
use throughline::stream::traced;
use throughline::task::{self, WorkerPool};
use throughline::{
    Agent, ChatError, ChatModel, ChatStream, Endpoint, ErrorType, Fallback, FallbackModel, Json,
    Phase, Recorder, RouteTo, Router, Telemetry, ToolRegistry, Traced, span, step, tool, workflow,
};
use tracing_subscriber::layer::SubscriberExt as _;

use crate::provider::{last_chunk, quick, recorded, text_chunk};

/// The place where things break: it yields at every visit, and panics at a chosen one.
#[derive(Clone)]
struct Fuse(Arc<AtomicU32>);

impl Fuse {
    /// Panics at this visit, counted from 1.
    fn at(visit: u32) -> Self {
        Self(Arc::new(AtomicU32::new(visit)))
    }

    fn never() -> Self {
        Self::at(u32::MAX)
    }

    async fn visit(&self) {
        tokio::task::yield_now().await;
        if self.0.fetch_sub(1, Ordering::Relaxed) == 1 {
            // As a panic does, without its message.
            std::panic::resume_unwind(Box::new("the fuse"));
        }
    }
}

/// A model that hesitates before each piece of its answer, asks for a tool first, and fails once.
struct Hesitant {
    fuse: Fuse,
    asked: AtomicU32,
}

impl Hesitant {
    fn new(fuse: &Fuse) -> Self {
        Self { fuse: fuse.clone(), asked: AtomicU32::new(0) }
    }
}

impl ChatModel for Hesitant {
    fn endpoint(&self) -> Endpoint {
        Endpoint::in_process("hesitant")
    }

    fn chat(&self, request: ChatRequest) -> BoxFuture<'_, Result<ChatResponse, ChatError>> {
        async move {
            self.fuse.visit().await;
            match self.asked.fetch_add(1, Ordering::Relaxed) {
                0 => Err(ChatError::new(ErrorType::Server, "not yet")),
                1 if !request.tools.is_empty() => Ok(wants_stock()),
                _ => Ok(ChatResponse::of_text(request.model, "twelve")),
            }
        }
        .boxed()
    }

    fn stream(&self, _: ChatRequest) -> BoxFuture<'_, Result<ChatStream, ChatError>> {
        let fuse = self.fuse.clone();
        async move {
            self.fuse.visit().await;
            if self.asked.fetch_add(1, Ordering::Relaxed) == 0 {
                return Err(ChatError::new(ErrorType::Server, "not yet"));
            }
            let chunks = [text_chunk("twe"), text_chunk("lve"), last_chunk()];
            let chunks = futures_util::stream::iter(chunks).then(move |chunk| {
                let fuse = fuse.clone();
                async move {
                    fuse.visit().await;
                    Ok(chunk)
                }
            });
            Ok(ChatStream::new(None, chunks))
        }
        .boxed()
    }
}

fn wants_stock() -> ChatResponse {
    let mut message = Message::assistant("");
    message.parts.push(Part::ToolCall(call()));
    let choice = Choice { message, finish_reason: FinishReason::ToolCall };
    ChatResponse { choices: vec![choice], ..ChatResponse::default() }
}

fn call() -> ToolCall {
    let (id, name) = ("c1".to_owned(), "stock_v1".to_owned());
    ToolCall { id, name, arguments: r#"{"item":7}"#.to_owned() }
}

#[derive(Deserialize, JsonSchema)]
struct Item {
    item: u32,
}

fn registry(fuse: &Fuse) -> ToolRegistry {
    let fuse = fuse.clone();
    let stock = tool("stock_v1", "How many there are", move |ask: Item| {
        let fuse = fuse.clone();
        async move {
            fuse.visit().await;
            span("SELECT stock").start().run(fuse.visit()).await;
            Json(ask.item)
        }
    });
    ToolRegistry::new().with(stock.expect("a tool")).expect("new")
}

#[derive(Debug, Clone, Copy)]
enum Operation {
    Span,
    Step,
    Workflow,
    Chat,
    Stream,
    Tool,
    Fallback,
    AgentRun,
    Tasks,
    /// A streamed answer through a router and a fallback, each branch with a policy of its own.
    RoutedStream,
    /// A call of which a second copy is under way.
    Hedged,
    AgentStream,
    /// A stream that is no model's.
    AnyStream,
    /// Work on threads of the runtime, and what is sent there.
    Blocking,
    /// Spans of `tracing` around and below ours.
    Foreign,
}

impl Operation {
    /// The operation, which visits the fuse wherever it waits.
    fn start(self, fuse: Fuse, pool: Arc<WorkerPool>) -> BoxFuture<'static, ()> {
        match self {
            Self::Span => async move {
                let work = async {
                    fuse.visit().await;
                    span("inner").start().run(fuse.visit()).await;
                };
                span("work").start().run(work).await;
            }
            .boxed(),
            Self::Step => async move {
                let step = step("shop", Phase::Act, "stock").start();
                step.instrument(async {
                    fuse.visit().await;
                    let _held = span("held").start();
                    fuse.visit().await;
                })
                .await;
            }
            .boxed(),
            Self::Workflow => async move {
                let work = async {
                    fuse.visit().await;
                    span("inner").start().run(fuse.visit()).await;
                    Ok::<_, ChatError>(())
                };
                let _ = workflow("orders").run(work).await;
            }
            .boxed(),
            Self::Chat => async move {
                let model = Traced::new(Hesitant::new(&fuse)).policy(quick());
                let _ = model.chat(ChatRequest::new("m-1").user("hi")).await;
            }
            .boxed(),
            Self::Stream => async move {
                let model = Traced::new(Hesitant::new(&fuse)).policy(quick());
                let Ok(mut stream) = model.stream(ChatRequest::new("m-1").user("hi")).await else {
                    return;
                };
                while stream.next().await.is_some() {
                    fuse.visit().await;
                }
            }
            .boxed(),
            Self::Tool => async move { drop(registry(&fuse).execute(&call()).await) }.boxed(),
            Self::Fallback => async move {
                let fails = async {
                    fuse.visit().await;
                    Err::<u32, _>(ChatError::new(ErrorType::Connection, "down"))
                };
                let answers = async {
                    fuse.visit().await;
                    Ok(7)
                };
                let _ = Fallback::new("stock", fails).degraded("cached", answers).run().await;
            }
            .boxed(),
            Self::AgentRun => async move {
                let model = Traced::new(Hesitant::new(&fuse)).policy(quick());
                let agent = Agent::builder("shop", model, "m-1").tools(registry(&fuse)).build();
                let _ = agent.expect("an agent").run("how many?").await;
            }
            .boxed(),
            Self::Tasks => async move {
                let mut set = task::JoinSet::new();
                for _ in 0..2 {
                    let fuse = fuse.clone();
                    set.spawn(span("one of a set").start().run(async move { fuse.visit().await }));
                }
                let inner = fuse.clone();
                let named = task::named("named").spawn(async move { inner.visit().await });
                let job = task::named("job").submit(&pool, || span("in the pool").start().end());
                if let Ok(job) = job.await {
                    let _ = job.await;
                }
                while set.join_next().await.is_some() {}
                let _ = named.await;
                fuse.visit().await;
            }
            .boxed(),
            other => other.start_more(fuse),
        }
    }

    fn start_more(self, fuse: Fuse) -> BoxFuture<'static, ()> {
        match self {
            Self::RoutedStream => async move {
                let branch = || Traced::new(Hesitant::new(&fuse)).policy(quick());
                let fallback = FallbackModel::new(branch()).then(branch(), "m-2");
                let router = Router::builder("chat").target(RouteTo::new("only", fallback));
                let router = router.build().expect("a router");
                let Ok(mut stream) = router.stream(ChatRequest::new("m-1").user("hi")).await else {
                    return;
                };
                while stream.next().await.is_some() {
                    fuse.visit().await;
                }
            }
            .boxed(),
            Self::Hedged => async move {
                // At once, so that both are under way from the start.
                let hedge = HedgePolicy { delay_ms: 0, percentile: None, ..HedgePolicy::default() };
                let policy = Policy { hedge: Some(hedge), ..quick() };
                let model = Traced::new(Hesitant::new(&fuse)).policy(policy);
                let _ = model.chat(ChatRequest::new("m-1").user("hi")).await;
            }
            .boxed(),
            Self::AgentStream => async move {
                let model = Traced::new(Hesitant::new(&fuse)).policy(quick());
                let agent = Agent::builder("shop", model, "m-1").tools(registry(&fuse)).build();
                let mut events = agent.expect("an agent").stream("how many?");
                while events.next().await.is_some() {
                    fuse.visit().await;
                }
            }
            .boxed(),
            Self::AnyStream => async move {
                let inner = fuse.clone();
                let lines = futures_util::stream::iter(0..3).then(move |line| {
                    let fuse = inner.clone();
                    async move {
                        fuse.visit().await;
                        Ok::<_, std::io::Error>(format!("line {line}"))
                    }
                });
                let lines = traced(lines).within(span("GET /log").start());
                let mut lines = lines.boxed();
                while lines.next().await.is_some() {
                    fuse.visit().await;
                }
            }
            .boxed(),
            Self::Blocking => async move {
                let outer = span("outer").start();
                let inner = fuse.clone();
                let work = async {
                    let (sender, mut letters) = task::channel(1);
                    let read = task::spawn_blocking(|| span("read").start().end());
                    let sent = task::spawn(async move {
                        inner.visit().await;
                        let _ = sender.send(7).await;
                    });
                    if let Some(letter) = letters.recv().await {
                        letter.enter(|_| span("letter").start().end());
                    }
                    let _ = (read.await, sent.await);
                    fuse.visit().await;
                };
                outer.run(work).await;
            }
            .boxed(),
            _ => async move {
                use tracing::Instrument as _;
                let inner = async {
                    fuse.visit().await;
                    let ours = span("ours").start();
                    ours.run(fuse.visit().instrument(tracing::info_span!("deep"))).await;
                    let entered = span("handle").start();
                    let handle = entered.in_scope(tracing::Span::current);
                    entered.end();
                    fuse.visit().instrument(handle).await;
                };
                inner.instrument(tracing::info_span!("host")).await;
            }
            .boxed(),
        }
    }
}

const OPERATIONS: [Operation; 15] = [
    Operation::Span,
    Operation::Step,
    Operation::Workflow,
    Operation::Chat,
    Operation::Stream,
    Operation::Tool,
    Operation::Fallback,
    Operation::AgentRun,
    Operation::Tasks,
    Operation::RoutedStream,
    Operation::Hedged,
    Operation::AgentStream,
    Operation::AnyStream,
    Operation::Blocking,
    Operation::Foreign,
];

#[derive(Debug, Clone, Copy)]
enum Strike {
    Panic,
    Drop,
    Abort,
    Shutdown,
}

/// Polls a future this often, with the runtime alive around it.
struct Polls<F> {
    inner: Pin<Box<F>>,
    left: u32,
}

impl<F: Future> Future for Polls<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, poller: &mut Poller<'_>) -> Poll<()> {
        if self.left == 0 {
            return Poll::Ready(());
        }
        self.left -= 1;
        self.inner.as_mut().poll(poller).map(drop)
    }
}

/// Runs the operation until the strike, and says what telemetry counted afterwards.
fn strike(
    operation: Operation,
    strike: Strike,
    after: u32,
    is_heard: bool,
) -> (Recorder, Telemetry) {
    let (recorder, telemetry) = recorded();
    let layer = is_heard.then(|| tracing_subscriber::registry().with(throughline::layer()));
    let _heard = layer.map(tracing::subscriber::set_default);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let fuse = if matches!(strike, Strike::Panic) { Fuse::at(after + 1) } else { Fuse::never() };
    let pool = WorkerPool::builder("aborts").workers(1).build().expect("a pool");
    let pool = Arc::new(pool);
    let work = telemetry.scope(operation.start(fuse, Arc::clone(&pool)));
    match strike {
        Strike::Panic => {
            let _ = catch_unwind(AssertUnwindSafe(|| runtime.block_on(work)));
        }
        Strike::Drop => runtime.block_on(Polls { inner: Box::pin(work), left: after }),
        Strike::Abort => runtime.block_on(async {
            let running = task::spawn(work);
            for _ in 0..after {
                tokio::task::yield_now().await;
            }
            running.abort();
            let _ = running.await;
        }),
        Strike::Shutdown => runtime.block_on(async {
            task::spawn(work);
            for _ in 0..after {
                tokio::task::yield_now().await;
            }
        }),
    }
    drop(runtime);
    // A job that runs on a thread cannot be broken off: it ends by itself, and its span with it.
    let waiter = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    waiter.block_on(pool.drain());
    (recorder, telemetry)
}

/// Every span ended and was exported, once.
fn assert_whole(operation: Operation, kind: Strike, after: u32, is_heard: bool) -> usize {
    let (recorder, telemetry) = strike(operation, kind, after, is_heard);
    let counts = telemetry.counts();
    let what = format!("{operation:?} {kind:?} after {after}, heard {is_heard}");
    assert_eq!(counts.open_spans, 0, "{what}: a span has not ended\n{}", recorder.tree(&[]));
    assert_eq!(counts.spans.ended, counts.spans.exported, "{what}: a span was lost");
    let spans = recorder.spans();
    assert_eq!(spans.len() as u64, counts.spans.exported, "{what}");
    let ids: std::collections::HashSet<_> =
        spans.iter().map(|span| span.span_context.span_id()).collect();
    assert_eq!(ids.len(), spans.len(), "{what}: a span ended twice");
    spans.len()
}

/// How often an operation waits at most: the points where it may be struck.
const POINTS: u32 = 40;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_breaks_off_leaves_ended_and_exported_spans(
        operation in proptest::sample::select(OPERATIONS.to_vec()),
        kind in proptest::sample::select(vec![
            Strike::Panic, Strike::Drop, Strike::Abort, Strike::Shutdown,
        ]),
        after in 0..POINTS,
        is_heard in any::<bool>(),
    ) {
        assert_whole(operation, kind, after, is_heard);
    }
}

/// The operations do make spans, and end by themselves when nothing strikes.
#[test]
fn what_is_left_alone_ends_too() {
    let least = [2, 2, 2, 3, 4, 3, 3, 12, 5, 7, 3, 9, 3, 3, 4];
    for (operation, spans) in OPERATIONS.into_iter().zip(least) {
        let made = assert_whole(operation, Strike::Panic, 100_000, true);
        assert!(made >= spans, "{operation:?} made {made} spans");
    }
}
