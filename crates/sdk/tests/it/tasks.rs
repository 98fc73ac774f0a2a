//! Requirement R2.4: the trace survives tasks, threads, pools, channels, timers and callbacks, and
//! nothing of it is left when they end.

use std::future::pending;
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use throughline::task::{self, Carried, Origin, SendError};
use throughline::{Dimensions, Recorder, Telemetry, span};
use tracing_subscriber::layer::SubscriberExt;

/// Everything that is carried: a trace, dimensions, telemetry and a scoped subscriber.
struct Stage {
    recorder: Recorder,
    telemetry: Telemetry,
    _subscriber: tracing::subscriber::DefaultGuard,
}

fn stage() -> Stage {
    let recorder = Recorder::new();
    let telemetry = Telemetry::builder().recorder(&recorder).build().expect("telemetry");
    let subscriber =
        tracing_subscriber::registry().with(throughline::layer()).with(throughline::log_layer());
    let subscriber = tracing::subscriber::set_default(subscriber);
    Stage { recorder, telemetry, _subscriber: subscriber }
}

impl Stage {
    /// Runs `work` within the span `outer` on a runtime of one worker, so that every task meets a
    /// thread that was used before, and shows the trace.
    fn show<F: Future<Output = ()>>(&self, work: impl FnOnce() -> F) -> String {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(self.telemetry.scope(async {
            let within = async { span("outer").start().run(async { work().await }).await };
            Dimensions::new().session("s-1").scope(within).await;
        }));
        drop(runtime);
        assert_eq!(self.telemetry.counts().open_spans, 0);
        self.recorder.tree(&["session_id", "outcome", "error.type"])
    }
}

/// Leaves a span, a host's span and a log behind, wherever it runs.
fn leave_marks() {
    span("ours").start().end();
    tracing::info_span!("host").in_scope(|| tracing::info!("written"));
}

fn no_trace_is_shown() {
    assert!(!Context::current().has_active_span(), "an earlier task's context is shown");
    assert!(tracing::Span::current().is_none(), "an earlier task's span is shown");
    assert_eq!(Dimensions::current(), Dimensions::new(), "an earlier task's dimensions are shown");
}

/// The marks are in the trace, the log too.
fn assert_marks(stage: &Stage, tree: &str) {
    assert_eq!(tree, "outer session_id=s-1\n  ours session_id=s-1\n  host session_id=s-1\n");
    let spans = stage.recorder.spans();
    let host = spans.iter().find(|span| span.name == "host").expect("the host's span");
    let log = &stage.recorder.logs()[0];
    let trace = log.trace_context().expect("a log in a trace");
    assert_eq!(trace.trace_id, host.span_context.trace_id());
    assert_eq!(trace.span_id, host.span_context.span_id());
}

#[test]
fn r2_4_a_spawned_task_keeps_its_trace_and_clears_it() {
    let stage = stage();
    let tree = stage.show(async || {
        task::spawn(async {
            tokio::task::yield_now().await;
            leave_marks();
        })
        .await
        .expect("joined");
        tokio::spawn(async { no_trace_is_shown() }).await.expect("the worker is clear");
    });
    assert_marks(&stage, &tree);
}

#[test]
fn r2_4_a_task_on_another_runtime_keeps_its_trace() {
    let stage = stage();
    let other = tokio::runtime::Runtime::new().expect("a runtime");
    let tree = stage.show(async || {
        task::spawn_on(async { leave_marks() }, other.handle()).await.expect("joined");
    });
    assert_marks(&stage, &tree);
}

#[test]
fn r2_4_blocking_work_keeps_its_trace_and_clears_it() {
    let stage = stage();
    let tree = stage.show(async || {
        task::spawn_blocking(leave_marks).await.expect("joined");
        tokio::task::spawn_blocking(no_trace_is_shown).await.expect("the thread is clear");
    });
    assert_marks(&stage, &tree);
}

#[test]
fn r2_4_a_local_task_keeps_its_trace_and_clears_it() {
    let stage = stage();
    let tree = stage.show(async || {
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                task::spawn_local(async { leave_marks() }).await.expect("joined");
            })
            .await;
    });
    assert_marks(&stage, &tree);
}

#[test]
fn r2_4_threads_and_scoped_threads_keep_their_trace() {
    for make in [
        || task::thread::spawn(leave_marks).join().expect("joined"),
        || {
            let builder = task::thread::Builder::new().name("marks").stack_size(1 << 20);
            builder.spawn(leave_marks).expect("a thread").join().expect("joined");
        },
        || task::thread::scope(|scope| scope.spawn(leave_marks).join().expect("joined")),
        || {
            task::thread::scope(|scope| {
                let thread = task::thread::Builder::new().spawn_scoped(scope, leave_marks);
                thread.expect("a thread").join().expect("joined");
            });
        },
    ] {
        let stage = stage();
        let tree = stage.show(async || make());
        assert_marks(&stage, &tree);
    }
}

#[cfg(feature = "rayon")]
#[test]
fn r2_4_parallel_work_keeps_its_trace_and_clears_it() {
    use rayon::prelude::*;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool");
    let works: [&dyn Fn(); 4] = [
        &|| task::rayon::install(&pool, leave_marks),
        &|| {
            pool.install(no_trace_is_shown);
            let work = task::rayon::carry(|()| leave_marks());
            pool.install(|| [()].into_par_iter().for_each(work));
        },
        &|| {
            let ((), ()) = task::rayon::join(leave_marks, || ());
        },
        &|| task::rayon::scope(|scope| scope.spawn(|inner| inner.spawn(|_| leave_marks()))),
    ];
    for work in works {
        let stage = stage();
        let tree = stage.show(async || work());
        assert_marks(&stage, &tree);
    }
    let stage = stage();
    let tree = stage.show(async || {
        let (done, finished) = tokio::sync::oneshot::channel();
        task::rayon::spawn(|| {
            leave_marks();
            let _ = done.send(());
        });
        finished.await.expect("done");
    });
    assert_marks(&stage, &tree);
    pool.install(no_trace_is_shown);
}

#[test]
fn r2_4_a_message_brings_its_senders_trace() {
    let stage = stage();
    let tree = stage.show(async || {
        let (sender, mut receiver) = task::channel(1);
        sender.send("order").await.expect("sent");
        assert_eq!(sender.try_send("more"), Err(SendError::Full("more")));
        let reader = tokio::spawn(async move {
            let message = receiver.recv().await.expect("a message");
            no_trace_is_shown();
            message.with(async |_| leave_marks()).await;
            no_trace_is_shown();
            receiver
        });
        let receiver = reader.await.expect("joined");
        drop(receiver);
        assert!(sender.is_closed());
        assert_eq!(sender.send("late").await, Err(SendError::Closed("late")));
    });
    assert_marks(&stage, &tree);
}

#[test]
fn r2_4_a_reader_of_many_senders_links_to_them() {
    let stage = stage();
    stage.show(async || {
        let message = Carried::new(());
        let _apart = Origin::here().context().with_remote_span_context(SpanContext::NONE).attach();
        message.linked(span("batch")).start().end();
    });
    let spans = stage.recorder.spans();
    let find = |name: &str| spans.iter().find(|span| span.name == name).expect("the span");
    let (batch, outer) = (find("batch"), find("outer"));
    assert_ne!(batch.span_context.trace_id(), outer.span_context.trace_id());
    assert_eq!(batch.links.iter().next().map(|l| &l.span_context), Some(&outer.span_context));
}

#[test]
fn r2_4_a_message_that_nobody_reads_is_dropped_in_its_trace() {
    struct Noted;
    impl Drop for Noted {
        fn drop(&mut self) {
            leave_marks();
        }
    }
    let stage = stage();
    let tree = stage.show(async || {
        let (sender, receiver) = task::channel(1);
        sender.send(Noted).await.expect("sent");
        std::thread::spawn(move || drop(receiver)).join().expect("joined");
    });
    assert_marks(&stage, &tree);
}

#[test]
fn r2_4_timers_and_delayed_callbacks_keep_their_trace() {
    let stage = stage();
    let tree = stage.show(async || {
        task::after(Duration::from_millis(1), async { leave_marks() }).await.expect("joined");
    });
    assert_marks(&stage, &tree);
    let stage = self::stage();
    let tree = stage.show(async || {
        let here = Origin::here();
        let callback: Box<dyn FnOnce() + Send> = Box::new(move || here.run(leave_marks));
        std::thread::spawn(callback).join().expect("called");
    });
    assert_marks(&stage, &tree);
}

#[test]
fn r2_4_each_time_of_repeated_work_is_a_trace_that_links_to_its_beginning() {
    let stage = stage();
    stage.show(async || {
        let (done, mut times) = tokio::sync::mpsc::unbounded_channel();
        let polling = task::every("poll", Duration::from_millis(1), move || {
            let done = done.clone();
            async move {
                span("look").start().end();
                let _ = done.send(());
            }
        });
        times.recv().await.expect("once");
        times.recv().await.expect("twice");
        polling.abort();
        assert!(polling.await.is_err_and(|ended| ended.is_cancelled()));
    });
    let spans = stage.recorder.spans();
    let outer = spans.iter().find(|span| span.name == "outer").expect("outer");
    let polls: Vec<_> = spans.iter().filter(|span| span.name == "poll").collect();
    assert!(polls.len() >= 2);
    for poll in &polls {
        assert_ne!(poll.span_context.trace_id(), outer.span_context.trace_id());
        let link = poll.links.iter().next().expect("a link");
        assert_eq!(link.span_context.span_id(), outer.span_context.span_id());
        assert!(poll.attributes.iter().any(|entry| entry.key.as_str() == "session_id"));
    }
    assert_ne!(polls[0].span_context.trace_id(), polls[1].span_context.trace_id());
    assert!(stage.recorder.tree(&[]).contains("poll\n  look\n"));
}

/// Notes the names of the host's spans that close.
#[derive(Clone, Default)]
struct Closed(std::sync::Arc<std::sync::Mutex<Vec<&'static str>>>);

impl<S> tracing_subscriber::Layer<S> for Closed
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    fn on_close(&self, id: tracing::Id, cx: tracing_subscriber::layer::Context<'_, S>) {
        let name = cx.metadata(&id).map(|metadata| metadata.name());
        self.0.lock().expect("the lock").extend(name);
    }
}

#[tokio::test]
async fn r2_4_repeated_work_does_not_keep_the_span_open_that_started_it() {
    let closed = Closed::default();
    let subscriber = tracing_subscriber::registry().with(closed.clone());
    let _subscriber = tracing::subscriber::set_default(subscriber);
    let (done, mut times) = tokio::sync::mpsc::unbounded_channel();
    let started = tracing::info_span!("handle_request");
    let polling = started.in_scope(|| {
        task::every("poll", Duration::from_millis(1), move || {
            let done = done.clone();
            async move {
                let _ = done.send(());
            }
        })
    });
    drop(started);
    times.recv().await.expect("once");
    times.recv().await.expect("twice");
    let names = closed.0.lock().expect("the lock").clone();
    assert!(names.contains(&"handle_request"), "{names:?}");
    polling.abort();
}

#[test]
fn r2_4_a_carried_stream_is_polled_and_dropped_in_its_trace() {
    use futures_util::StreamExt as _;
    let stage = stage();
    let tree = stage.show(async || {
        let stream = futures_util::stream::once(async { leave_marks() });
        let stream = Carried::new(Box::pin(stream));
        tokio::spawn(async move {
            let mut stream = stream;
            stream.next().await.expect("an item");
            no_trace_is_shown();
        })
        .await
        .expect("joined");
    });
    assert_marks(&stage, &tree);
}

#[test]
fn r2_4_select_stays_in_its_trace_and_the_loser_is_cancelled() {
    let stage = stage();
    let tree = stage.show(async || {
        tokio::select! {
            () = span("loser").start().run(pending()) => {}
            () = span("winner").start().run(tokio::time::sleep(Duration::from_millis(1))) => {}
        }
        span("after").start().end();
    });
    insta::assert_snapshot!(tree, @r"
    outer session_id=s-1
      loser session_id=s-1 outcome=cancelled
      winner session_id=s-1
      after session_id=s-1
    ");
}

#[test]
fn r2_4_named_tasks_are_spans_that_end_however_they_end() {
    let stage = stage();
    let tree = stage.show(async || {
        task::named("fine").spawn(async { span("child").start().end() }).await.expect("joined");
        let stuck = task::named("aborted").spawn(pending::<()>());
        tokio::task::yield_now().await;
        stuck.abort();
        assert!(stuck.await.is_err_and(|ended| ended.is_cancelled()));
        let bug = task::named("panicked").attribute("n", 1).spawn(async { panic!("a bug") });
        assert!(bug.await.is_err_and(|ended: tokio::task::JoinError| ended.is_panic()));
        let blocked = task::named("blocking").spawn_blocking(|| span("inner").start().end());
        blocked.await.expect("joined");
        let bug = task::named("blocking bug").spawn_blocking(|| panic!("a bug"));
        assert!(bug.await.is_err_and(|ended: tokio::task::JoinError| ended.is_panic()));
        tokio::spawn(async { no_trace_is_shown() }).await.expect("clear after a panic");
        tokio::task::spawn_blocking(no_trace_is_shown).await.expect("clear after a panic");
    });
    insta::assert_snapshot!(tree, @r"
    outer session_id=s-1
      fine session_id=s-1
        child session_id=s-1
      aborted session_id=s-1 outcome=cancelled
      panicked session_id=s-1 outcome=error error.type=PANIC ERROR(a panic ended the operation)
      blocking session_id=s-1
        inner session_id=s-1
      blocking bug session_id=s-1 outcome=error error.type=PANIC ERROR(a panic ended the operation)
    ");
}

#[test]
fn r2_4_a_set_of_tasks_keeps_their_trace_and_aborts_what_is_left() {
    let stage = stage();
    let tree = stage.show(async || {
        let mut set = task::JoinSet::new();
        set.spawn(async { span("one").start().end() });
        set.join_next().await.expect("one").expect("joined");
        set.spawn_blocking(|| span("two").start().end());
        set.join_next().await.expect("two").expect("joined");
        set.spawn(span("three").start().run(pending()));
        assert_eq!((set.len(), set.is_empty()), (1, false));
        tokio::task::yield_now().await;
        set.shutdown().await;
    });
    insta::assert_snapshot!(tree, @r"
    outer session_id=s-1
      one session_id=s-1
      two session_id=s-1
      three session_id=s-1 outcome=cancelled
    ");
}

#[test]
fn r2_4_a_shutdown_of_the_runtime_ends_the_spans_of_what_still_waits() {
    let stage = stage();
    let tree = stage.show(async || {
        task::named("waits").spawn(pending::<()>());
        let (free, blocked) = std::sync::mpsc::channel::<()>();
        // The only blocking thread is busy, so the next piece is never begun.
        let busy = task::named("busy").spawn_blocking(move || blocked.recv().is_err());
        let never = task::named("never begun").spawn_blocking(|| ());
        tokio::task::yield_now().await;
        never.abort();
        drop(free);
        let _ = busy.await;
    });
    insta::assert_snapshot!(tree, @r"
    outer session_id=s-1
      waits session_id=s-1 outcome=cancelled
      busy session_id=s-1
      never begun session_id=s-1 outcome=cancelled
    ");
}

#[test]
fn r2_4_a_guard_that_a_task_leaked_is_not_shown_to_the_next() {
    let stage = stage();
    let tree = stage.show(async || {
        let leak = || std::mem::forget(span("leaky").start().context().attach());
        task::spawn_blocking(leak).await.expect("joined");
        task::spawn_blocking(leave_marks).await.expect("joined");
        let bare = Context::new().attach();
        let clear = task::spawn_blocking(|| assert!(!Context::current().has_active_span()));
        drop(bare);
        clear.await.expect("the leak is hidden");
    });
    insta::assert_snapshot!(tree, @r"
    outer session_id=s-1
      leaky session_id=s-1
      ours session_id=s-1
      host session_id=s-1
    ");
}

#[test]
fn what_is_detached_does_not_hold_the_hosts_span_open() {
    let stage = stage();
    let _in = stage.telemetry.enter();
    let host = tracing::info_span!("host");
    let (held, detached) = host.in_scope(|| (Origin::here(), Origin::here().detached()));
    drop(host);
    assert_eq!(stage.recorder.tree(&[]), "", "it is carried, so it is open");
    drop(held);
    assert_eq!(stage.recorder.tree(&[]), "host\n");
    detached.run(|| span("late").start().end());
    assert_eq!(stage.recorder.tree(&[]), "host\n  late\n");
    assert!(format!("{detached:?}").contains("trace_id"));
}
