//! Requirement R2.4: a million interleaved tasks over workers that are used again and again, and
//! never one that shows another's trace.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Context, ContextGuard};
use throughline::task::{self, WorkerPool};

/// Tasks in all.
const TASKS: u64 = 1_000_000;

/// Tasks that one parent starts before it waits for them.
const WAVE: u64 = 250;

/// How many tasks saw their own trace, and how many another or none.
#[derive(Default)]
struct Tally {
    right: AtomicU64,
    wrong: AtomicU64,
}

impl Tally {
    fn check(&self, id: u64) {
        let is_own = trace_here() == TraceId::from(u128::from(id));
        let counter = if is_own { &self.right } else { &self.wrong };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn trace_here() -> TraceId {
    Context::map_current(|cx| cx.span().span_context().trace_id())
}

/// Attaches a trace of this number. No exporter has to bear a million spans for that.
fn trace(id: u64) -> ContextGuard {
    let span = SpanContext::new(
        TraceId::from(u128::from(id)),
        SpanId::from(id),
        TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    );
    Context::new().with_remote_span_context(span).attach()
}

/// One task of the wave: polled several times among its siblings, with a child task of its own.
async fn interleaved(id: u64, tally: Arc<Tally>) {
    tally.check(id);
    tokio::task::yield_now().await;
    let inner = Arc::clone(&tally);
    let child = task::spawn(async move { inner.check(id) });
    tokio::task::yield_now().await;
    tally.check(id);
    child.await.expect("the child");
}

/// Starts a wave over every kind of worker, each task in a trace of its own; says how many.
async fn wave(first: u64, pool: &WorkerPool, tally: &Arc<Tally>) -> u64 {
    let mut tasks = task::JoinSet::new();
    let mut jobs = Vec::new();
    let mut started = 0;
    for id in first..first + WAVE {
        let tally = Arc::clone(tally);
        match id % 16 {
            0 => {
                let job = {
                    let _in = trace(id);
                    pool.try_submit(move || {
                        tally.check(id);
                        if id % 4_096 == 0 {
                            // As a panic does, without its message.
                            std::panic::resume_unwind(Box::new("a bug"));
                        }
                    })
                };
                jobs.push(job.expect("the queue holds a wave"));
                started += 1;
            }
            1 if id % 64 == 1 => {
                let _in = trace(id);
                tasks.spawn_blocking(move || tally.check(id));
                started += 1;
            }
            2 => {
                // Raw on purpose: what carries nothing is shown nothing.
                tasks.spawn(async { assert_eq!(trace_here(), TraceId::INVALID) });
                started += 1;
            }
            #[cfg(feature = "rayon")]
            3 => {
                let _in = trace(id);
                let left = Arc::clone(&tally);
                let ((), ()) = task::rayon::join(|| left.check(id), || tally.check(id));
                started += 2;
            }
            _ => {
                let _in = trace(id);
                tasks.spawn(interleaved(id, tally));
                started += 2;
            }
        }
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no task panics");
    }
    for job in jobs {
        let _ = job.await;
    }
    started
}

#[test]
fn r2_4_a_million_interleaved_tasks_never_show_another_ones_trace() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().expect("a runtime");
    let pool =
        WorkerPool::builder("stress").workers(3).queue_jobs(4 * 250).build().expect("a pool");
    let (pool, tally) = (Arc::new(pool), Arc::new(Tally::default()));
    let started: u64 = runtime.block_on(async {
        let lanes = (0..4_u64).map(|lane| {
            let (pool, tally) = (Arc::clone(&pool), Arc::clone(&tally));
            tokio::spawn(async move {
                let (mut started, mut first) = (0, (lane << 40) + 1);
                while started < TASKS / 4 {
                    started += wave(first, &pool, &tally).await;
                    first += WAVE;
                }
                assert_eq!(trace_here(), TraceId::INVALID, "the lane itself has no trace");
                started
            })
        });
        futures_util::future::try_join_all(lanes).await.expect("the lanes").iter().sum()
    });
    assert!(started >= TASKS, "{started}");
    assert_eq!(tally.wrong.load(Ordering::Relaxed), 0, "a trace crossed over");
    assert!(tally.right.load(Ordering::Relaxed) > TASKS * 3 / 4);
    assert_eq!(pool.counts().replaced_workers, 0);
}
