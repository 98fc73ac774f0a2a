//! Tasks, threads, pools, channels and timers that keep the trace they were started in
//! (requirement R2.4).
//!
//! Each function here stands in for the one that it is named after and takes along what an
//! [`Origin`] holds: the OpenTelemetry context with its trace, [`Dimensions`](crate::Dimensions),
//! baggage and [`Telemetry`](crate::Telemetry), the current `tracing` span, and the `tracing`
//! subscriber. All of it is gone from the thread when the task ends, also by a panic: a worker that
//! is used again never shows an earlier task's trace.
//!
//! | instead of | write |
//! |---|---|
//! | `tokio::spawn`, `spawn_blocking`, `spawn_local` | [`spawn`], [`spawn_blocking`], [`spawn_local`], [`spawn_on`] |
//! | `tokio::task::JoinSet` | [`JoinSet`] |
//! | `std::thread::spawn`, `Builder`, `scope` | [`thread::spawn`], [`thread::Builder`], [`thread::scope`] |
//! | `rayon::spawn`, `join`, `scope`, parallel iterators | `task::rayon::{spawn, join, scope, install, carry}` (feature `rayon`) |
//! | a channel of `T` | [`channel`], or any channel of [`Carried<T>`](Carried) |
//! | a delayed callback, an interval | [`after`], [`every`] |
//! | a thread pool with a queue | [`WorkerPool`] |
//! | any other executor or callback | [`Origin::here`], then [`Origin::run`] or [`Carried::new`] |
//!
//! `.await`, `tokio::select!`, `tokio::join!`, `tokio::time::sleep` and `block_in_place` stay in
//! their task and need nothing. An aborted task ends its spans with outcome `cancelled`.
//!
//! [`spawn`] makes no span; [`named`] makes one for the task:
//!
//! ```
//! use throughline::{Recorder, Telemetry, span, task};
//!
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
//! let recorder = Recorder::new();
//! let telemetry = Telemetry::builder().recorder(&recorder).build()?;
//! let work = async {
//!     let reindex = task::named("reindex").spawn(async {
//!         task::spawn_blocking(|| span("read").start().end()).await
//!     });
//!     reindex.await
//! };
//! telemetry.scope(async { span("shop").start().run(work).await }).await??;
//! assert_eq!(recorder.tree(&[]), "shop\n  reindex\n    read\n");
//! # Ok::<(), Box<dyn std::error::Error>>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Lints
//!
//! `clippy-fragment.toml` of this crate bans the raw calls, and guards that are held across an
//! `.await`, each with the reason. Append it to your `clippy.toml`:
//!
//! ```toml
#![doc = include_str!("../../clippy-fragment.toml")]
//! ```

pub mod thread;

#[cfg(feature = "rayon")]
pub mod rayon;

mod channel;
mod join_set;
mod named;
mod origin;
mod pool;
mod pool_builder;
mod queue;
mod timer;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

pub use channel::{Receiver, SendError, Sender, channel};
pub use join_set::JoinSet;
pub use named::{NamedTask, named};
pub use origin::{Carried, Origin};
pub use pool::{JobError, JobHandle, PoolClosed, PoolCounts, TrySubmitError, WorkerPool};
pub use pool_builder::{WORKER_POOL_QUEUE_JOBS, WorkerPoolBuilder};
pub use timer::{after, every};

/// What the queue of the pool is locked with: the model of its tests puts others here.
mod sync {
    pub(super) use std::sync::{Condvar, Mutex, MutexGuard};
}

/// [`tokio::spawn`] in the surroundings of this line.
///
/// # Panics
/// Outside a tokio runtime, as `tokio::spawn` does.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "this is what the ban asks for")]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(Carried::new(future))
}

/// [`spawn`] onto the runtime of this handle.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "this is what the ban asks for")]
pub fn spawn_on<F>(future: F, runtime: &Handle) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    runtime.spawn(Carried::new(future))
}

/// [`tokio::task::spawn_blocking`] in the surroundings of this line. Work that the runtime never
/// comes to, because it is shut down, is dropped in them too.
///
/// # Panics
/// Outside a tokio runtime, as `tokio::task::spawn_blocking` does.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "this is what the ban asks for")]
pub fn spawn_blocking<F, R>(work: F) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    tokio::task::spawn_blocking(carried_call(work))
}

/// [`tokio::task::spawn_local`] in the surroundings of this line.
///
/// # Panics
/// Outside a [`tokio::task::LocalSet`], as `tokio::task::spawn_local` does.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "this is what the ban asks for")]
pub fn spawn_local<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    tokio::task::spawn_local(Carried::new(future))
}

/// The closure in the surroundings of this line.
fn carried_call<R>(work: impl FnOnce() -> R) -> impl FnOnce() -> R {
    let carried = Carried::new(work);
    move || carried.enter(|work| work())
}
