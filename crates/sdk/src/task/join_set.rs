//! A set of tasks that keep their traces.

use std::task::{Context as Poller, Poll};

use tokio::runtime::Handle;
use tokio::task::{AbortHandle, Id, JoinError};

use crate::task::{Carried, carried_call};

/// [`tokio::task::JoinSet`], carried: tasks that are aborted when the set is dropped, and that end
/// their spans then.
#[derive(Debug)]
pub struct JoinSet<T> {
    inner: tokio::task::JoinSet<T>,
}

impl<T> Default for JoinSet<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> JoinSet<T> {
    /// An empty one.
    pub fn new() -> Self {
        Self { inner: tokio::task::JoinSet::new() }
    }

    /// How many tasks have not been joined.
    pub fn len(&self) -> usize {
        self.inner.len()
    }

    /// Whether all have been joined.
    pub fn is_empty(&self) -> bool {
        self.inner.is_empty()
    }
}

impl<T: 'static> JoinSet<T> {
    /// Starts a task in the surroundings of this line.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[track_caller]
    #[expect(clippy::disallowed_methods, reason = "this is what the ban asks for")]
    pub fn spawn<F>(&mut self, future: F) -> AbortHandle
    where
        F: Future<Output = T> + Send + 'static,
        T: Send,
    {
        self.inner.spawn(Carried::new(future))
    }

    /// [`spawn`](Self::spawn) onto the runtime of this handle.
    #[track_caller]
    #[expect(clippy::disallowed_methods, reason = "this is what the ban asks for")]
    pub fn spawn_on<F>(&mut self, future: F, runtime: &Handle) -> AbortHandle
    where
        F: Future<Output = T> + Send + 'static,
        T: Send,
    {
        self.inner.spawn_on(Carried::new(future), runtime)
    }

    /// Starts a task of this thread's [`tokio::task::LocalSet`].
    ///
    /// # Panics
    /// Outside a `LocalSet`.
    #[track_caller]
    #[expect(clippy::disallowed_methods, reason = "this is what the ban asks for")]
    pub fn spawn_local<F>(&mut self, future: F) -> AbortHandle
    where
        F: Future<Output = T> + 'static,
    {
        self.inner.spawn_local(Carried::new(future))
    }

    /// Starts blocking work, which cannot be aborted once it runs.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[track_caller]
    #[expect(clippy::disallowed_methods, reason = "this is what the ban asks for")]
    pub fn spawn_blocking<F>(&mut self, work: F) -> AbortHandle
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send,
    {
        self.inner.spawn_blocking(carried_call(work))
    }

    /// Waits for the next task that ends; `None` when there is none left.
    pub async fn join_next(&mut self) -> Option<Result<T, JoinError>> {
        self.inner.join_next().await
    }

    /// [`join_next`](Self::join_next), with the task's id.
    pub async fn join_next_with_id(&mut self) -> Option<Result<(Id, T), JoinError>> {
        self.inner.join_next_with_id().await
    }

    /// A task that has ended, without waiting.
    pub fn try_join_next(&mut self) -> Option<Result<T, JoinError>> {
        self.inner.try_join_next()
    }

    /// [`join_next`](Self::join_next) for hand-written futures.
    pub fn poll_join_next(
        &mut self,
        poller: &mut Poller<'_>,
    ) -> Poll<Option<Result<T, JoinError>>> {
        self.inner.poll_join_next(poller)
    }

    /// Waits for all, in the order in which they end.
    ///
    /// # Panics
    /// When a task did, as [`tokio::task::JoinSet::join_all`] does.
    pub async fn join_all(self) -> Vec<T> {
        self.inner.join_all().await
    }

    /// Aborts all, without waiting.
    pub fn abort_all(&mut self) {
        self.inner.abort_all();
    }

    /// Aborts all and waits until they are gone.
    pub async fn shutdown(&mut self) {
        self.inner.shutdown().await;
    }

    /// Lets all go on by themselves.
    pub fn detach_all(&mut self) {
        self.inner.detach_all();
    }
}
