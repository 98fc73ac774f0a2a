//! Requirement R2.4: the bounded worker pool.

use std::sync::mpsc;

use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt as _;
use throughline::task::{JobError, PoolClosed, PoolCounts, TrySubmitError, WorkerPool, named};
use throughline::{Dimensions, Recorder, Telemetry, span};
use tracing_subscriber::layer::SubscriberExt;

fn recorded() -> (Recorder, Telemetry) {
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).build().expect("telemetry");
    (recorder, telemetry)
}

fn pool(workers: usize, queue_jobs: usize) -> WorkerPool {
    WorkerPool::builder("test-pool")
        .workers(workers)
        .queue_jobs(queue_jobs)
        .build()
        .expect("a pool")
}

/// Keeps the only worker busy until the sender is dropped.
async fn block(pool: &WorkerPool) -> mpsc::Sender<()> {
    let (free, blocked) = mpsc::channel::<()>();
    let (begin, begun) = tokio::sync::oneshot::channel();
    let job = pool.submit(move || {
        let _ = begin.send(());
        let _ = blocked.recv();
    });
    job.await.expect("room");
    begun.await.expect("begun");
    free
}

#[tokio::test]
async fn r2_4_a_job_keeps_its_trace_and_its_worker_clears_it() {
    let (recorder, telemetry) = recorded();
    let pool = pool(1, 4);
    for session in ["s-1", "s-2"] {
        let work = async {
            let job = pool.submit(|| span("ours").start().end()).await.expect("room");
            job.await.expect("done");
            named("named").submit(&pool, || ()).await.expect("room").await.expect("done");
        };
        let within = async { span("outer").start().run(work).await };
        let within = async { Dimensions::new().session(session).scope(within).await };
        telemetry.scope(within).await;
        let clear = pool.submit(|| {
            !Context::current().has_active_span() && Dimensions::current() == Dimensions::new()
        });
        assert_eq!(clear.await.expect("room").await, Ok(true), "an earlier job's trace is shown");
    }
    insta::assert_snapshot!(recorder.tree(&["session_id"]), @r"
    outer session_id=s-1
      ours session_id=s-1
      named session_id=s-1
    outer session_id=s-2
      ours session_id=s-2
      named session_id=s-2
    ");
}

#[tokio::test]
async fn r2_4_a_job_that_panics_is_told_counted_and_logged_in_its_trace() {
    let (recorder, telemetry) = recorded();
    let subscriber = tracing_subscriber::registry().with(throughline::log_layer());
    let _subscriber = tracing::subscriber::set_default(subscriber);
    let pool = pool(1, 4);
    let bug = telemetry.scope(async { named("job").submit(&pool, || panic!("a bug")).await });
    let bug = bug.await.expect("room").await;
    assert_eq!(bug, Err::<(), _>(JobError::Panicked("a bug".to_owned())));
    let odd = pool.submit(|| std::panic::panic_any(7)).await.expect("room").await;
    assert_eq!(odd, Err::<(), _>(JobError::Panicked("a value that is no text".to_owned())));
    assert_eq!(pool.submit(|| 7).await.expect("room").await, Ok(7), "the worker goes on");
    let counts = PoolCounts { submitted: 3, done: 1, panicked: 2, ..PoolCounts::default() };
    assert_eq!(pool.counts(), counts);
    insta::assert_snapshot!(recorder.tree(&["error.type"]), @"job error.type=PANIC ERROR(a panic ended the operation)");
    insta::assert_snapshot!(recorder.log_text(&["pool"]), @r#"ERROR "a job panicked: a bug" pool=test-pool"#);
}

#[tokio::test]
async fn r2_4_the_queue_is_bounded_and_who_submits_waits() {
    let pool = pool(1, 1);
    let free = block(&pool).await;
    let waiting = pool.try_submit(|| 1).expect("room for one");
    let refused = pool.try_submit(|| 2).expect_err("no room for two");
    assert!(matches!(refused, TrySubmitError::Full(_)), "{refused:?}");
    let mut patient = Box::pin(pool.submit(|| 3));
    assert!(futures_util::poll!(patient.as_mut()).is_pending(), "back-pressure");
    drop(free);
    assert_eq!(waiting.await, Ok(1));
    assert_eq!(patient.await.expect("room").await, Ok(3));
}

#[tokio::test]
async fn r2_4_a_drained_pool_does_what_waits() {
    let pool = pool(2, 64);
    let jobs: Vec<_> = (0..50).map(|n| pool.try_submit(move || n).expect("room")).collect();
    pool.drain().await;
    let counts = pool.counts();
    assert_eq!((counts.done, counts.discarded, counts.unfinished()), (50, 0, 0));
    for (n, job) in jobs.into_iter().enumerate() {
        assert_eq!(job.await, Ok(n));
    }
    assert_eq!(pool.submit(|| ()).await.expect_err("closed"), PoolClosed);
    assert!(matches!(pool.try_submit(|| ()), Err(TrySubmitError::Closed(_))));
}

#[tokio::test]
async fn r2_4_a_discarded_pool_throws_away_what_waits_and_counts_it() {
    let (recorder, telemetry) = recorded();
    let pool = pool(1, 8);
    let free = block(&pool).await;
    let waiting = telemetry.scope(async { named("never").submit(&pool, || ()).await });
    let waiting = waiting.await.expect("room");
    let mut discard = Box::pin(pool.discard());
    assert!(futures_util::poll!(discard.as_mut()).is_pending(), "a job still runs");
    drop(free);
    assert_eq!(discard.await, 1);
    assert_eq!(waiting.await, Err(JobError::Discarded));
    let counts = pool.counts();
    assert_eq!((counts.done, counts.discarded, counts.unfinished()), (1, 1, 0));
    insta::assert_snapshot!(recorder.tree(&["outcome"]), @"never outcome=cancelled");
}

#[tokio::test]
async fn r2_4_a_dropped_pool_does_what_waits_in_the_background() {
    let pool = pool(1, 8);
    let free = block(&pool).await;
    let waiting = pool.try_submit(|| 5).expect("room");
    drop(pool);
    drop(free);
    assert_eq!(waiting.await, Ok(5));
}

#[tokio::test]
async fn r2_4_a_worker_on_which_a_job_left_its_context_is_replaced() {
    let (_, telemetry) = recorded();
    let pool = pool(1, 8);
    let leak = pool.submit({
        let cx = telemetry.context();
        move || {
            let _in = cx.attach();
            std::mem::forget(span("leaky").start().context().attach());
            std::thread::current().id()
        }
    });
    let first = leak.await.expect("room").await.expect("done");
    let second = pool.submit(|| {
        assert!(!Context::current().has_active_span(), "the leak is shown");
        std::thread::current().id()
    });
    let second = second.await.expect("room").await.expect("done");
    assert_ne!(first, second);
    assert_eq!(pool.counts().replaced_workers, 1);
    pool.drain().await;
}
